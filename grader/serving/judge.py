"""One load test: a system started, replayed the trace, measured, and what is known about it kept in a folder."""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from final_project.load import model_tokenizer, new_client, replay, served_model_name, write_results
from final_project.summary import ASKED, Questions, Record, Summary, load_questions, scores, summarize
from final_project.trace import Request
from grader.sandbox.isolation import KIT, package_paths
from grader.serving.rules import Forbidden, LoadTest, installed_forbidden
from grader.serving.sandboxed import Entry, NotServing, SandboxedServer
from grader.serving.scoring import Measured, accuracy, accuracy_error
from shared_tasks.models.folders import hash_files, model_folder

HIDDEN = KIT / "grader" / "hidden" / "shared_tasks"
REFERENCE = "grader/reference/final_project/serve.toml"
KIT_OF_BASELINES = ("final_project", "grader/__init__.py", "grader/reference", "hw3", "shared_tasks")
CLAIMED_TOO_MUCH = 1.1
"""Times the tokens that answers have. Less may be chance: a text has several tokenisations."""


class Result(msgspec.Struct):
    """What a load test has found out about a system."""

    student: str
    system: str
    model: str
    trace: str
    """A digest: only results of the same trace and window can be compared."""
    weights: str = ""
    """A digest of the model's files: a submission may bring its own under the name of another."""
    failure: str = ""
    """Why it did not start, or how it ended before the window did."""
    findings: list[str] = []
    """What the staff should look at."""
    repeats: tuple[int, int] = (0, 0)
    """Repeated requests that were answered, and those of them that were answered as the first time."""
    scores: dict[str, list[float]] = {}
    """Of the answers, by task."""
    summary: Summary | None = None

    @property
    def served(self) -> int:
        """The number of requests served in the window."""
        return self.summary.served if self.summary else 0

    def measured(self, least: dict[str, int]) -> Measured:
        """Return the place of the system on the two axes; `least` answers count of each task."""
        return Measured(accuracy(self.scores, least, ASKED), self.served, accuracy_error(self.scores, ASKED))


def digest(trace: Sequence[Request], seconds: float) -> str:
    """Return what results must share to be compared."""
    return hashlib.sha256(msgspec.json.encode((seconds, list(trace)))).hexdigest()[:16]


def hidden_questions() -> set[str]:
    """Return what the load test may ask, as it is asked."""
    return set(load_questions(data=HIDDEN)[1])


def baseline_entry(system: str, submission: Path) -> Entry:
    """Return a system of the reference's serve.toml; `submission` is a folder that nothing is taken from."""
    return Entry(submission, f"/packages/{REFERENCE}", system, KIT_OF_BASELINES)


def run_sandboxed(
    result: Result,
    entry: Entry,
    test: LoadTest,
    trace: Sequence[Request],
    questions: Questions,
    out: Path,
    on_end: Callable[[Record], None] = lambda record: None,
) -> None:
    """Start an entry in the sandbox, replay the trace and complete the result; files go to the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"

    async def run() -> list[Record]:
        with SandboxedServer(entry, test.packages, test.limits, log) as server:
            async with new_client("http://server", server.transport()) as client:
                await server.wait_until_healthy(client)
                watching = asyncio.create_task(server.watch())
                try:
                    records = await replay(trace, client, result.model, tokenizer, test.seconds, on_end)
                finally:
                    watching.cancel()
                result.failure = server.ended()
                return records

    try:
        tokenizer = model_tokenizer(result.model)
        result.weights = hash_files(model_folder(result.model))
        result.model = Path(result.model).name  # as the server calls it
        records = asyncio.run(run())
    except (NotServing, ValueError, OSError) as error:
        result.failure = str(error)
        records = [Record(request.arrival) for request in trace]
    _complete(result, test.seconds, trace, records, questions, out)


def run_url(
    result: Result,
    url: str,
    test: LoadTest,
    trace: Sequence[Request],
    questions: Questions,
    out: Path,
    on_end: Callable[[Record], None] = lambda record: None,
) -> None:
    """Replay the trace against a server that runs already, and complete the result.

    Raises ValueError when it lists no model, or one whose tokenizer is not known here.
    """
    result.model = served_model_name(url)
    tokenizer = model_tokenizer(result.model)

    async def run() -> list[Record]:
        async with new_client(url) as client:
            return await replay(trace, client, result.model, tokenizer, test.seconds, on_end)

    _complete(result, test.seconds, trace, asyncio.run(run()), questions, out)


def _complete(
    result: Result, seconds: float, trace: Sequence[Request], records: list[Record], questions: Questions, out: Path
) -> None:
    result.scores = scores(trace, records, questions)
    result.summary = summarize(records, result.scores, seconds)
    result.repeats = repeats(trace, records)
    result.findings += check_honesty(trace, records)
    write_results(out, trace, records, result.summary)
    (out / "result.json").write_bytes(msgspec.json.format(msgspec.json.encode(result)))


class Asked(NamedTuple):
    """What became of one question of a trace, which may have been asked more than once."""

    scores: list[float]
    """Of each time it was asked; not served counts 0."""
    texts: list[str]
    """The answers that there were."""


def by_question(trace: Sequence[Request], records: Sequence[Record], questions: Questions) -> dict[str, list[Asked]]:
    """Return what became of every question by task, in the order of the trace.

    So all systems that had the same trace have scores of the same questions, which can be compared in pairs.
    """
    found: dict[tuple[str, str], Asked] = {}
    for request, record in zip(trace, records, strict=True):
        for place, chat in enumerate(request.prompts):
            question = chat[-1]["content"]
            if question not in questions:
                continue
            task = questions[question][0]
            asked = found.setdefault((task, question), Asked([], []))
            if record.served:
                one = msgspec.structs.replace(record, texts=[record.texts[place]], tokens=[record.tokens[place]])
                (score,) = scores([msgspec.structs.replace(request, prompts=[chat])], [one], questions)[task]
                asked.scores.append(score)
                asked.texts.append(record.texts[place])
            else:
                asked.scores.append(0.0)
    return {task: [asked for (name, _), asked in found.items() if name == task] for task in ASKED}


def repeats(trace: Sequence[Request], records: Sequence[Record]) -> tuple[int, int]:
    """Return how many requests that repeat an earlier one were served as it was, and how many with the same answers."""
    first: dict[bytes, Record] = {}
    again = same = 0
    for request, record in zip(trace, records, strict=True):
        if record.served:
            before = first.setdefault(msgspec.json.encode(request.prompts), record)
            if before is not record:
                again += 1
                same += before.texts == record.texts
    return again, same


def check_honesty(trace: Sequence[Request], records: Sequence[Record]) -> list[str]:
    """Return what does not fit together in the answers, a sentence each."""
    found = []
    served = [(request, record) for request, record in zip(trace, records, strict=True) if record.served]
    claimed = sum(record.claimed_tokens or 0 for _, record in served)
    counted = sum(tokens + 1 for _, record in served for tokens in record.tokens)  # with the end token of each
    if claimed > CLAIMED_TOO_MUCH * counted:
        found.append(f"the server claims {claimed:,} tokens; its answers have {counted:,}")
    long = sum(tokens > request.max_tokens for request, record in served for tokens in record.tokens)
    if long:
        found.append(f"{long} answers have more tokens than were asked for; they count as wrong")
    again, same = repeats(trace, records)
    if same < again / 2:
        found.append(f"of {again} repeated requests only {same} were answered as the first time")
    return found


def installed(packages: Sequence[str], rules: Forbidden) -> list[str]:
    """Return what is forbidden among the distributions that a server can import, with what they require."""
    names = {}
    for _, name in package_paths(tuple(packages)):
        if name.endswith(".dist-info"):
            distribution, _, version = name.removesuffix(".dist-info").rpartition("-")
            names[distribution] = version
    return installed_forbidden(names, rules)


def read_results(out: Path, trace: str) -> Iterator[Result]:
    """Yield the results of a trace that a folder holds, whoever wrote them."""
    for file in sorted(out.glob("*/*/result.json")):
        with contextlib.suppress(msgspec.DecodeError):
            result = msgspec.json.decode(file.read_bytes(), type=Result)
            if result.trace == trace:
                yield result
