"""The load generator: what a trace consists of, what the client measures, and what a broken server costs."""

import asyncio
import json
import random
import selectors
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from statistics import mean, variance
from typing import Any

import httpx
import pytest

from final_project.load import (
    MAX_BYTES,
    MAX_IN_FLIGHT,
    AnswerStream,
    BadStream,
    body,
    model_tokenizer,
    new_client,
    replay,
)
from final_project.summary import CUT_OFF, Quantiles, Record, load_questions, quantiles, scores, summarize
from final_project.trace import Phase, Pool, Request, arrivals, draw_trace, read_trace, write_trace
from shared_tasks.models.tokenizing import PromptTokenizer
from tests.final_project.conftest import LiveServer, ScriptedEngine

WORDS = ["the", "cat", "sat"]


# Traces


def pools(questions: int = 50, shots: int = 2) -> dict[str, Pool]:
    return {
        name: Pool([f"{name} {i}" for i in range(questions)], [(f"{name} shot {i}", "so") for i in range(shots)], 64)
        for name in ("math", "choice", "open")
    }


def asked(trace: list[Request]) -> list[str]:
    return [chat[-1]["content"] for request in trace for chat in request.prompts]


def test_trace_follows_from_its_seed() -> None:
    """The same seed gives the same trace, another seed another one."""
    phases = [Phase(20, 5)]
    assert draw_trace(phases, pools(), seed=1) == draw_trace(phases, pools(), seed=1)
    assert draw_trace(phases, pools(), seed=1) != draw_trace(phases, pools(), seed=2)


def test_poisson_arrivals() -> None:
    """With burstiness 1 the times between requests are exponential: mean 1/rate, and a deviation as large."""
    times = list(arrivals([Phase(5000, 2)], random.Random(0)))
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert len(times) == pytest.approx(10_000, rel=0.03)
    assert mean(gaps) == pytest.approx(0.5, rel=0.03)
    assert variance(gaps) == pytest.approx(0.25, rel=0.06)
    assert sum(gap > 0.5 for gap in gaps) / len(gaps) == pytest.approx(0.3679, abs=0.015)


def test_bursty_arrivals() -> None:
    """Burstiness k leaves the mean time between requests, and its variance is 1/k of the squared mean."""
    times = list(arrivals([Phase(10_000, 2, burstiness=0.25)], random.Random(0)))
    gaps = [after - before for before, after in zip([0.0, *times], times, strict=False)]
    assert mean(gaps) == pytest.approx(0.5, rel=0.05)
    assert variance(gaps) == pytest.approx(4 * 0.25, rel=0.1)


def test_phases_follow_each_other() -> None:
    """A phase begins where the one before ends, and each has its own rate."""
    times = list(arrivals([Phase(100, 1), Phase(100, 10)], random.Random(3)))
    assert times == sorted(times)
    assert max(times) < 200
    assert sum(time < 100 for time in times) == pytest.approx(100, rel=0.3)
    assert sum(time >= 100 for time in times) == pytest.approx(1000, rel=0.1)


def test_no_question_comes_twice() -> None:
    """Only whole requests are repeated, one in twenty; else a question comes once while there are others."""
    trace = draw_trace([Phase(200, 5)], pools(questions=2000), seed=0)
    batches = [tuple(json.dumps(chat) for chat in request.prompts) for request in trace]
    assert (len(batches) - len(set(batches))) / len(batches) == pytest.approx(0.05, abs=0.02)
    fresh = [json.loads(chat)[-1]["content"] for batch in dict.fromkeys(batches) for chat in batch]
    assert len(fresh) == len(set(fresh))


def test_questions_go_round() -> None:
    """When all questions of a task have been asked they begin anew, each as often as the others."""
    trace = draw_trace([Phase(100, 5)], pools(questions=2, shots=0), seed=0)
    counts = Counter(asked(trace))
    assert len(counts) == 6
    assert max(counts.values()) < 1.4 * min(counts.values())


def test_requests_are_mixed() -> None:
    """Tasks, batch sizes and shots are mixed, also within one request; nothing but the text tells the task."""
    trace = draw_trace([Phase(100, 5)], pools(), seed=0)
    assert {len(request.prompts) for request in trace} == {1, 2, 4, 8}
    assert {len(chat) for request in trace for chat in request.prompts} == {1, 3, 5}
    assert {request.max_tokens for request in trace} == {64}
    assert any(len({question.split()[0] for question in asked([request])}) == 3 for request in trace)
    shot = next(chat for request in trace for chat in request.prompts if len(chat) == 3)
    task = shot[-1]["content"].split()[0]
    assert [message["role"] for message in shot] == ["user", "assistant", "user"]
    assert shot[0]["content"] == f"{task} shot 0"


def test_traces_are_kept_in_files(tmp_path: Path) -> None:
    """What is written is read back; a line that is no request, or one out of order, is refused by its number."""
    file = tmp_path / "trace.jsonl"
    trace = draw_trace([Phase(10, 3)], pools(), seed=0)
    write_trace(file, trace)
    assert read_trace(file) == trace
    write_trace(file, trace[::-1])
    with pytest.raises(ValueError, match="jsonl:2: expected requests in the order"):
        read_trace(file)
    file.write_text('{"arrival": 0, "prompts": [], "max_tokens": 1}\n')
    with pytest.raises(ValueError, match="jsonl:1: "):
        read_trace(file)


def test_public_splits() -> None:
    """The three tasks are asked as they are evaluated, and answers to them can be scored by the question alone."""
    pools, questions = load_questions("dev")
    assert {name: len(pool.questions) for name, pool in pools.items()} == {
        "math": 300,
        "multiple_choice": 300,
        "open_ended": 300,
    }
    question = pools["math"].questions[0]
    item = questions[question][1]
    trace = [Request(0, [[{"role": "user", "content": question}]] * 2, 64)]
    record = Record(0, error="", texts=[f"#### {item.answer}", f"#### {item.answer}1"], tokens=[5, 5])
    assert scores(trace, [record], questions) == {"math": [1.0, 0.0]}
    record.tokens = [65, 5]  # more than was asked for
    assert scores(trace, [record], questions) == {"math": [0.0, 0.0]}
    record.error = CUT_OFF
    assert scores(trace, [record], questions) == {}


# The client, on a clock that stands still unless somebody waits for it


class WaitsNot(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Tells of what is ready, and lets the time of a loop pass instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


def at_once(work: Awaitable[Any]) -> Any:
    """Run a coroutine on a loop whose clock jumps to the next thing to do."""
    selector = WaitsNot()

    class Loop(asyncio.SelectorEventLoop):
        _clock_resolution = 1e-9

        def time(self) -> float:
            return selector.now

    async def run() -> Any:
        return await work

    with asyncio.Runner(loop_factory=lambda: Loop(selector)) as runner:
        return runner.run(run())


Script = Callable[[dict[str, Any]], AsyncIterator[bytes]]


class Stream(httpx.AsyncByteStream):
    def __init__(self, pieces: AsyncGenerator[bytes]):
        self.pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.pieces

    async def aclose(self) -> None:
        await self.pieces.aclose()


class ScriptedServer(httpx.AsyncBaseTransport):
    """Answers each request by the script that its last word names, `good` if there is none."""

    def __init__(self, **scripts: Script):
        self.scripts = {"good": good} | scripts
        self.seen: list[tuple[float, str, dict[str, Any]]] = []
        self.in_flight = self.most_in_flight = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        self.seen.append((asyncio.get_running_loop().time(), request.url.path, asked))
        question = asked["messages"][-1]["content"] if "messages" in asked else "good"
        if question.endswith("fails"):
            return httpx.Response(500, content=b"no")
        if question.endswith("full"):
            return httpx.Response(429, headers={"Retry-After": "1"})
        if question.endswith("refuses"):
            raise httpx.ConnectError("as the test says")
        script = self.scripts.get(question.split()[-1], good)
        return httpx.Response(200, stream=Stream(self.counted(script(asked))))

    async def counted(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            async for piece in pieces:
                yield piece
        finally:
            self.in_flight -= 1


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(text: str, finish_reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}])


async def good(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    """Give the first word after 1 s, and two more after 0.25 s each."""
    prompts = asked.get("prompt", [None])
    await asyncio.sleep(0.75)
    for place, word in enumerate(WORDS):
        await asyncio.sleep(0.25)
        reason = "stop" if place == 2 else None
        for index in range(len(prompts)):
            piece = {"delta": {"content": f" {word}"}} if "messages" in asked else {"text": f" {word}"}
            yield event(choices=[{"index": index, **piece, "finish_reason": reason}])
    yield event(choices=[], usage={"completion_tokens": 4 * len(prompts)})
    yield b"data: [DONE]\n\n"


async def resets(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    yield delta("the")
    raise httpx.ReadError("as the test says")


async def malformed(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    yield delta("the")
    yield b"data: {broken\n\n"


async def early(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    yield delta("the")


async def unfinished(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    yield delta("the")
    yield b"data: [DONE]\n\n"


async def hangs(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    yield delta("the")
    await asyncio.Event().wait()


async def drips(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(1)
        yield delta("")


async def floods(asked: dict[str, Any]) -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0)
        yield b"x" * 65536


BROKEN = {script.__name__: script for script in (resets, malformed, early, unfinished, hangs, drips, floods)}


@pytest.fixture(scope="module")
def tokenizer() -> PromptTokenizer:
    return model_tokenizer("course-small")


def single(arrival: float, question: str = "a question") -> Request:
    return Request(arrival, [[{"role": "user", "content": question}]], 64)


def run(
    trace: list[Request], server: httpx.AsyncBaseTransport, tokenizer: PromptTokenizer, seconds: float
) -> list[Record]:
    async def work() -> list[Record]:
        async with new_client("http://server", server) as client:
            return await replay(trace, client, "course-small", tokenizer, seconds)

    records: list[Record] = at_once(work())
    return records


def test_what_is_measured(tokenizer: PromptTokenizer) -> None:
    """Times of the planned arrival, the first token and the end, the text and its tokens, counted and claimed."""
    (record,) = run([single(2.0)], ScriptedServer(), tokenizer, 10)
    tokens = len(tokenizer.tokenizer.encode(" the cat sat"))
    assert record == Record(2.0, 2.0, 3.0, 3.5, 200, "", [" the cat sat"], [tokens], 4)
    assert record.time_to_first_token == 1.0
    assert record.time_per_output_token == 0.5 / (tokens - 1)
    assert record.end_to_end == 1.5


def test_what_is_sent(tokenizer: PromptTokenizer) -> None:
    """One prompt goes as a chat, several go as texts of chats; greedy, streamed, and with the trace's limit."""
    question: Any = [{"role": "user", "content": "a question"}]
    server = ScriptedServer()
    records = run([single(0.5), Request(1.0, [question, question], 32)], server, tokenizer, 10)
    (first, path, chat), (second, other_path, batch) = server.seen
    assert (first, path, second, other_path) == (0.5, "/v1/chat/completions", 1.0, "/v1/completions")
    shared = {"model": "course-small", "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    assert chat == shared | {"max_tokens": 64, "messages": question}
    assert batch == shared | {"max_tokens": 32, "prompt": [tokenizer.render(question)] * 2}
    assert records[1].texts == [" the cat sat"] * 2


def test_the_load_is_open(tokenizer: PromptTokenizer) -> None:
    """Requests go out when the trace says so, however many have not been answered."""
    server = ScriptedServer(**BROKEN)
    trace = [single(0.01 * i, "it hangs") for i in range(100)]
    run(trace, server, tokenizer, 5)
    assert [time for time, _, _ in server.seen] == pytest.approx([request.arrival for request in trace])
    assert server.most_in_flight == 100


def test_so_many_in_flight_at_most(tokenizer: PromptTokenizer) -> None:
    """What comes when all places are taken waits in the client, and its latency counts from the planned arrival."""
    server = ScriptedServer()
    records = run([single(0.0) for _ in range(MAX_IN_FLIGHT + 1)], server, tokenizer, 10)
    assert server.most_in_flight == MAX_IN_FLIGHT
    last = max(records, key=lambda record: record.sent or 0)
    assert (last.arrival, last.sent, last.first_token, last.time_to_first_token) == (0.0, 1.5, 2.5, 2.5)
    assert all(record.served for record in records)


@pytest.mark.parametrize(
    ("way", "error", "status"),
    [
        ("fails", "status 500", 500),
        ("full", "status 429", 429),
        ("refuses", "the connection failed (ConnectError)", None),
        ("resets", "the connection failed (ReadError)", 200),
        ("malformed", "an event of the stream is malformed", 200),
        ("early", "the stream ended before its answers did", 200),
        ("unfinished", "the stream is done, and an answer has no finish_reason", 200),
        ("hangs", CUT_OFF, 200),
        ("drips", CUT_OFF, 200),
        ("floods", f"more than {MAX_BYTES >> 20} MiB in one response", 200),
    ],
)
def test_what_breaks_costs_its_own_requests(
    way: str, error: str, status: int | None, tokenizer: PromptTokenizer
) -> None:
    """Whatever a server does to one request, those before, beside and after it are served, and the window ends."""
    trace = [single(0.0), single(1.0, f"it {way}"), single(1.0), single(2.0)]
    records = run(trace, ScriptedServer(**BROKEN), tokenizer, 5)
    assert [record.served for record in records] == [True, False, True, True]
    assert (records[1].error, records[1].status, records[1].texts, records[1].end) == (error, status, [], None)


def test_the_window_ends(tokenizer: PromptTokenizer) -> None:
    """What has not been answered when the window ends is not served, whether it was sent or not."""

    async def clock_after() -> tuple[list[Record], float]:
        async with new_client("http://server", ScriptedServer(**BROKEN)) as client:
            trace = [single(0.0), single(3.0), single(9.0)]
            records = await replay(trace, client, "course-small", tokenizer, 4.25)
            return records, asyncio.get_running_loop().time()

    records, now = at_once(clock_after())
    assert now == pytest.approx(4.25)
    assert [(record.error, record.sent) for record in records] == [("", 0.0), (CUT_OFF, 3.0), (CUT_OFF, None)]
    assert records[1].first_token == 4.0


def test_streams_in_any_pieces() -> None:
    """However the bytes of a stream are cut, its answers are the same; comments and carriage returns are no matter."""
    whole = b": hello\r\n\r\n" + b"".join([delta("über"), delta(" the", "stop"), b"data:[DONE]\r\n\r\n"])
    for size in (1, 2, 7, len(whole)):
        stream = AnswerStream(1)
        for begin in range(0, len(whole), size):
            stream.feed(whole[begin : begin + size])
        assert stream.done
        assert stream.texts == ["über the"]


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b'{"choices": 3}',
        b'{"choices": [{"index": 1, "text": "no such prompt"}]}',
        b'{"choices": [{"index": -1, "text": ""}]}',
        b'{"choices": [{"index": 0, "text": 5}]}',
        b'{"choices": [{"index": 0, "text": "\\ud800"}]}',
        b'{"error": {"message": "<b>"}}',
        b"[" * 100_000,
        b"\xff",
        b"",
    ],
)
def test_malformed_events(payload: bytes) -> None:
    """An event that is none, or an answer to no prompt, fails with words of the client's own."""
    with pytest.raises(BadStream, match=r"^(an event of the stream is malformed|an answer to no prompt|an error in)"):
        AnswerStream(1).feed(b"data: " + payload + b"\n\n")


def test_against_a_real_server(server: LiveServer, engine: ScriptedEngine, tokenizer: PromptTokenizer) -> None:
    """Over HTTP, with the server that students are given: each prompt comes back as its own answer."""
    trace = [single(0.0, "first"), Request(0.0, [single(0.0, text).prompts[0] for text in ("one", "other")], 4)]

    async def work() -> list[Record]:
        async with new_client(server.url) as client:
            return await replay(trace, client, "course-small", tokenizer, 30)

    records = asyncio.run(work())
    assert [record.error for record in records] == ["", ""]
    for request, record in zip(trace, records, strict=True):
        for chat, text in zip(request.prompts, record.texts, strict=True):
            prompt = tokenizer.encode([tokenizer.render(chat)])[0]  # which the scripted engine repeats
            echoed = (prompt * request.max_tokens)[: request.max_tokens]
            assert text == tokenizer.decode(echoed)
    assert body(trace[0], "course-small", tokenizer)[0] == "/v1/chat/completions"


# The summary


def test_quantiles() -> None:
    """Quantiles lie between neighbours in proportion: of 0, 1, ..., 100 the p-th is p."""
    assert quantiles([float(value) for value in range(100, -1, -1)]) == Quantiles(50, 90, 99)
    assert quantiles([1.0, 2.0]) == Quantiles(1.5, pytest.approx(1.9), pytest.approx(1.99))  # type: ignore[arg-type]


def test_summary() -> None:
    """Only what was served counts for rates and latencies; accuracy is a mean with its standard error."""
    records = [
        Record(0, 0, 1, 3, 200, "", ["..."], [5]),
        Record(1, 1, 3, 3, 200, "", ["."], [1]),
        Record(2, 2, 3, None, 200, "status 500"),
        Record(2),
        Record(3),
    ]
    summary = summarize(records, {"math": [1.0, 0.0, 0.0, 1.0]}, seconds=4)
    assert (summary.requests, summary.served) == (5, 2)
    assert (summary.requests_per_second, summary.tokens_per_second) == (0.5, 1.5)
    assert summary.errors == {CUT_OFF: 2, "status 500": 1}
    assert summary.latencies["time_to_first_token"].p50 == 1.5
    assert summary.latencies["time_per_output_token"].p50 == 0.5  # of the answer of five tokens alone
    assert summary.latencies["end_to_end"].p50 == 2.5
    assert (summary.accuracy["math"].value, summary.accuracy["math"].standard_error) == (0.5, 0.25)
    assert summary.accuracy["math"].answers == 4


def test_nothing_served() -> None:
    """A window in which nothing was served has a summary too."""
    summary = summarize([Record(0)], {}, seconds=4)
    assert (summary.served, summary.latencies, summary.accuracy) == (0, {}, {})
