"""The load generator: replays a trace against a server and measures what comes back.

`python -m final_project.load http://127.0.0.1:8000 --seed 0 --rate 4 --seconds 30 --out load` draws a trace of the
public splits. The load is open: requests go out when the trace says so, whether earlier ones have been answered or not,
up to 300 at a time. What exceeds that waits in the client, and this counts as latency.
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
from transformers import AutoTokenizer

from final_project.summary import Record, Summary, load_questions, scores, summarize
from final_project.trace import Phase, Request, draw_trace, read_trace, write_trace
from shared_tasks.models.folders import model_folder
from shared_tasks.models.tokenizing import PromptTokenizer

MAX_IN_FLIGHT = 300
MAX_BYTES = 2 << 20
"""Of one response: several times what the longest takes."""


class BadStream(Exception):
    """A response is no stream of answers; the message says what is wrong, in words that are not the server's."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int
    text: str | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Chunk(msgspec.Struct):
    """An event of either kind of stream, with the fields that matter here."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_decoder = msgspec.json.Decoder(_Chunk)


class AnswerStream:
    """Takes the bytes of a response in and puts the answers to a request together."""

    def __init__(self, answers: int):
        self.texts = [""] * answers
        self.claimed_tokens: int | None = None
        self.begun = False
        """Whether there is a piece of an answer."""
        self.done = False
        self._finished: set[int] = set()
        self._rest = b""
        self._bytes = 0

    def feed(self, data: bytes) -> None:
        """Take some bytes in. Raises BadStream."""
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            raise BadStream(f"more than {MAX_BYTES >> 20} MiB in one response")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data" and not self.done:  # else a comment, another field, or the end of an event
                self._take(value.strip())

    def _take(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            if len(self._finished) < len(self.texts):
                raise BadStream("the stream is done, and an answer has no finish_reason")
            self.done = True
            return
        try:
            chunk = _decoder.decode(payload)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadStream("an event of the stream is malformed") from error
        if chunk.error is not None:
            raise BadStream("an error in the stream")
        if chunk.usage is not None:
            self.claimed_tokens = chunk.usage.completion_tokens
        for choice in chunk.choices:
            if not 0 <= choice.index < len(self.texts):
                raise BadStream("an answer to no prompt")
            text = (choice.delta.content if choice.delta else choice.text) or ""
            self.texts[choice.index] += text
            if choice.finish_reason is not None:
                self._finished.add(choice.index)
            self.begun |= bool(text) or choice.finish_reason is not None


async def replay(
    trace: Sequence[Request],
    client: httpx.AsyncClient,
    model: str,
    tokenizer: PromptTokenizer,
    seconds: float,
    on_end: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Send the requests of a trace to a server and return what became of each, when `seconds` have passed.

    A request fails alone: by another status than 200, a connection that breaks, a stream that is malformed or without
    end, or because the window ends.
    """
    clock = asyncio.get_running_loop().time
    records = [Record(request.arrival) for request in trace]
    places = asyncio.Semaphore(MAX_IN_FLIGHT)
    bodies = [body(request, model, tokenizer) for request in trace]  # made before, so that it costs the server no time
    start = clock()

    async def serve(record: Record, path: str, content: bytes, answers: int) -> None:
        async with places:
            record.sent = clock() - start
            try:
                await ask(record, path, content, answers)
            except BadStream as error:
                record.error = str(error)
            except Exception as error:  # whatever a server makes the client raise costs this request alone
                record.error = f"the connection failed ({type(error).__name__})"
        on_end(record)

    async def ask(record: Record, path: str, content: bytes, answers: int) -> None:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        async with client.stream("POST", path, content=content, headers=headers) as response:
            record.status = response.status_code
            if response.status_code != 200:
                record.error = f"status {response.status_code}"
                return
            stream = AnswerStream(answers)
            async for data in response.aiter_raw():
                stream.feed(data)
                if stream.begun and record.first_token is None:
                    record.first_token = clock() - start
                if stream.done:
                    record.end = clock() - start
                    record.texts, record.claimed_tokens, record.error = stream.texts, stream.claimed_tokens, ""
                    return
            raise BadStream("the stream ended before its answers did")

    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for request, record, (path, content) in zip(trace, records, bodies, strict=True):
                await asyncio.sleep(start + request.arrival - clock())
                group.create_task(serve(record, path, content, len(request.prompts)))
    except TimeoutError:
        pass
    for record in records:
        record.tokens = [len(tokenizer.tokenizer.encode(text, add_special_tokens=False)) for text in record.texts]
    return records


def body(request: Request, model: str, tokenizer: PromptTokenizer) -> tuple[str, bytes]:
    """Return path and body of a request: one prompt goes as a chat, several as the texts of chats."""
    shared: dict[str, Any] = {"model": model, "max_tokens": request.max_tokens, "temperature": 0, "stream": True}
    shared["stream_options"] = {"include_usage": True}
    if len(request.prompts) == 1:
        return "/v1/chat/completions", msgspec.json.encode(shared | {"messages": request.prompts[0]})
    texts = [tokenizer.render(chat) for chat in request.prompts]
    return "/v1/completions", msgspec.json.encode(shared | {"prompt": texts})


def new_client(url: str, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """Return a client for `replay`: no timeouts, since the window is the only one, and no proxies."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_IN_FLIGHT)
    return httpx.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False, transport=transport)


def served_model_name(url: str) -> str:
    """Return the name of the model that a server has. Raises ValueError when it tells none."""
    try:
        models = httpx.get(url.rstrip("/") + "/v1/models", timeout=30, trust_env=False)
        return str(models.raise_for_status().json()["data"][0]["id"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{url}: expected a server that lists its model at /v1/models ({error})") from error


def model_tokenizer(name_or_path: str) -> PromptTokenizer:
    """Return a model's tokenizer. Raises ValueError when there is no such model, or it has no chat template."""
    folder = model_folder(name_or_path)
    tokenizer = PromptTokenizer(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), folder.name)
    tokenizer.render([{"role": "user", "content": "?"}])
    return tokenizer


def write_results(out: Path, trace: Sequence[Request], records: Sequence[Record], summary: Summary) -> None:
    """Write trace.jsonl, records.jsonl and summary.json into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    write_trace(out / "trace.jsonl", trace)
    (out / "records.jsonl").write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    (out / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary)))


def lines(summary: Summary) -> list[str]:
    """Say a summary in lines of text."""
    told = [
        f"served {summary.served} of {summary.requests} requests in {summary.seconds:g} s: "
        f"{summary.requests_per_second:.2f} requests and {summary.tokens_per_second:.0f} tokens a second"
    ]
    for name, latency in summary.latencies.items():
        words = f"{name.replace('_', ' ')}:"
        told.append(f"{words:23} p50 {latency.p50:.3f} s, p90 {latency.p90:.3f} s, p99 {latency.p99:.3f} s")
    for name, accuracy in summary.accuracy.items():
        told.append(
            f"{name + ':':23} {100 * accuracy.value:.1f} ± {100 * accuracy.standard_error:.1f} % "
            f"of {accuracy.answers} answers"
        )
    return told + [f"{count} requests: {error}" for error, count in summary.errors.items()]


def main() -> None:
    """Read the command line, replay a trace and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m final_project.load", description=__doc__)
    parser.add_argument("url", help="of the server: http://127.0.0.1:8000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=4.0, help="requests a second, on average")
    parser.add_argument("--seconds", type=float, default=30.0, help="the length of the window")
    parser.add_argument("--burstiness", type=float, default=1.0, help="1 is Poisson, less is bursty")
    parser.add_argument("--split", default="dev", help="of the tasks: dev or dev_test")
    parser.add_argument("--trace", type=Path, help="replay this file instead of drawing a trace")
    parser.add_argument("--model", help="name or folder, for its tokenizer; the served model's name by default")
    parser.add_argument("--out", type=Path, help="a folder for trace.jsonl, records.jsonl and summary.json")
    arguments = parser.parse_args()
    try:
        pools, questions = load_questions(arguments.split)
        phase = msgspec.convert({name: getattr(arguments, name) for name in ("seconds", "rate", "burstiness")}, Phase)
        trace = read_trace(arguments.trace) if arguments.trace else draw_trace([phase], pools, arguments.seed)
        model = served_model_name(arguments.url)
        tokenizer = model_tokenizer(arguments.model or model)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")

    async def run() -> list[Record]:
        async with new_client(arguments.url) as client:
            return await replay(trace, client, model, tokenizer, arguments.seconds)

    records = asyncio.run(run())
    summary = summarize(records, scores(trace, records, questions), arguments.seconds)
    print("\n".join(lines(summary)))
    if arguments.out:
        write_results(arguments.out, trace, records, summary)


if __name__ == "__main__":
    main()
