"""Systems of homework 2: called in the sandbox with prompts alone, metered and scored in the judge."""

import contextlib
import hashlib
import importlib
import math
import random
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import msgspec

from grader.assignment import Assignment, Points, Problem, UnusableInput, load_assignment
from grader.evidence import believed_name
from grader.results import Outcome
from grader.sandbox.isolation import KIT
from grader.sandbox.remote import NoAnswer, RemoteFunction, class_interfaces
from grader.sandbox.sandbox import Sandbox
from grader.shared_engine import EngineStopped, SharedEngine
from grader.submissions import Submission
from shared_tasks.metrics.diversity import distinct_n
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.models.metered import MeteredEngine, TokenBudgetExceeded
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.registry import find_task
from shared_tasks.tasks.task import Example, Output, Task

SPLITS = ("dev_test", "hidden")
TASKS = ("math", "multiple_choice", "open_ended")
BATCH = 60  # prompts of one call
MAX_ANSWER = 20_000  # characters; what is beyond is cut off
MAX_REASON = 500
HIDDEN = KIT / "grader" / "hidden" / "shared_tasks"

SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (
    slug TEXT NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL, result TEXT NOT NULL, PRIMARY KEY (slug, number)
);
"""


class Question(NamedTuple):
    """An example with the words in which it is asked."""

    task: Task[Any]
    example: Example
    prompt: str


class BatchResult(msgspec.Struct):
    """What became of one call of a system; everything in it was measured in the judge, but for the answers' texts."""

    answers: list[str | None]
    """None where there is none."""
    reason: str
    """What went wrong; empty if nothing did."""
    ended: bool
    """Whether the system is not called again."""
    prompt_tokens: int
    generated_tokens: int
    seconds: float


class TaskScore(msgspec.Struct):
    """The mean score of one task's questions; those without an answer count 0."""

    accuracy: float
    standard_error: float
    questions: int
    unanswered: int
    scores: list[float]
    """Of each question, in the order in which they are asked."""
    distinct_2: float
    """The share of different pairs of words among all that the answers have."""


class SystemResult(msgspec.Struct):
    """How a system did."""

    name: str
    slug: str
    digest: str
    refusal: str = ""
    tasks: dict[str, TaskScore] = {}
    accuracy: float = 0.0
    """Mean over the tasks."""
    standard_error: float = 0.0
    tokens_per_question: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    call_seconds: list[float] = []
    """Of each call, in order."""
    reasons: list[str] = []
    """What went wrong, each once."""


class Terms(msgspec.Struct, frozen=True):
    """What all systems of a run have in common."""

    model: str
    fingerprint: str
    token_budget: int
    """A question."""
    split: str
    limit: int | None
    """Questions of each task."""
    seconds_per_question: float


class SystemStore:
    """The calls that were made, in SQLite: written as they end, so that a run goes on where it was."""

    def __init__(self, path: Path):
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.executescript(SCHEMA)
        self._turn = threading.Lock()  # systems run in threads

    def get(self, slug: str, key: str) -> dict[int, BatchResult]:
        """Return the results of the calls that were made under this key, by number."""
        query = "SELECT number, result FROM batch WHERE slug = ? AND key = ?"
        with self._turn:
            rows = self._connection.execute(query, (slug, key)).fetchall()
        return {number: msgspec.json.decode(result, type=BatchResult) for number, result in rows}

    def put(self, slug: str, key: str, number: int, result: BatchResult) -> None:
        """Keep a result at once."""
        with self._turn, self._connection as transaction:
            transaction.execute("DELETE FROM batch WHERE slug = ? AND key != ?", (slug, key))
            row = (slug, key, number, msgspec.json.encode(result).decode())
            transaction.execute("INSERT OR REPLACE INTO batch VALUES (?, ?, ?, ?)", row)

    def forget(self, beginning: str) -> None:
        """Drop the calls of all slugs that begin so."""
        with self._turn, self._connection as transaction:
            transaction.execute("DELETE FROM batch WHERE substr(slug, 1, ?) = ?", (len(beginning), beginning))

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._connection.close()


def systems_assignment() -> Assignment:
    """Return homework 2 with `system.py` among its modules, so that a submission may consist of it alone."""
    homework = load_assignment("hw2")
    system = Problem("system", "System", "system", "TestSystem", Points(0, 0))
    return msgspec.structs.replace(homework, problems=[*homework.problems, system])


def load_questions(split: str, limit: int | None) -> list[Question]:
    """Return the questions of all tasks, mixed; the order depends on their number alone.

    Raises UnusableInput for a split that there is not.
    """
    if split not in SPLITS:
        raise UnusableInput(f"no split {split!r}; there are: {', '.join(SPLITS)}")
    questions = [
        Question(task, example, task.questions(example, "direct")[0])
        for task in map(find_task, TASKS)
        for example in load(task, split, HIDDEN / f"{task.name}.jsonl" if split == "hidden" else None, limit=limit)
    ]
    random.Random(0).shuffle(questions)
    return questions


def run_systems(
    submissions: Sequence[Submission],
    assignment: Assignment,
    questions: Sequence[Question],
    terms: Terms,
    shared: SharedEngine,
    store: SystemStore,
    jobs: int,
) -> Iterator[SystemResult]:
    """Run systems, `jobs` at a time, each in a sandbox of its own, and yield each result as it is there.

    A thread judges each; what is in the store already is not run again. Raises EngineStopped when the engine fails.
    """
    with ThreadPoolExecutor(jobs) as threads:
        futures = [
            threads.submit(_judge, submission, assignment, questions, terms, shared, store)
            for submission in submissions
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _judge(
    submission: Submission,
    assignment: Assignment,
    questions: Sequence[Question],
    terms: Terms,
    shared: SharedEngine,
    store: SystemStore,
) -> SystemResult:
    refusal = submission.refusal
    if not refusal and f"{assignment.name}/system.py" not in submission.files:
        refusal = f"there is no {assignment.name}/system.py"
    if refusal:
        return SystemResult(submission.name, submission.slug, submission.digest, refusal)
    key = _key(submission, assignment, terms)
    done = store.get(submission.slug, key)
    batches = [questions[i : i + BATCH] for i in range(0, len(questions), BATCH)]
    if len(done) < len(batches) and not any(result.ended for result in done.values()):
        with staged(submission, assignment, terms) as sandbox:
            for number, batch in enumerate(batches):
                if number in done:
                    continue
                done[number] = result = _run_batch(batch, assignment, terms, shared, sandbox)
                store.put(submission.slug, key, number, result)
                if result.ended:
                    break
    return _result(submission, batches, done)


@contextlib.contextmanager
def staged(submission: Submission, assignment: Assignment, terms: Terms) -> Iterator[Sandbox]:
    """Give a sandbox in which the submission's files lie."""
    limits = msgspec.structs.replace(assignment.limits, test_cpu_seconds=BATCH * terms.seconds_per_question)
    classes = class_interfaces([importlib.import_module(f"{assignment.name}.system")])
    with tempfile.TemporaryDirectory(prefix="system-") as name:
        folder = Path(name)
        for file, contents in submission.files.items():
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)
        folder.chmod(0o755)
        sandbox = Sandbox(folder, assignment.packages, assignment.kit, limits, classes)
        try:
            sandbox.wait_ready()
            yield sandbox
        finally:
            sandbox.close()


def _run_batch(
    batch: Sequence[Question], assignment: Assignment, terms: Terms, shared: SharedEngine, sandbox: Sandbox
) -> BatchResult:
    """Call a system once, in a fresh process, with a budget and a time for these prompts."""
    client = shared.client(sandbox.look)
    meter = MeteredEngine(client, terms.token_budget * len(batch))
    prompts = [question.prompt for question in batch]
    answer = RemoteFunction(f"{assignment.name}.system:answer", sandbox.call)
    returned: object = []
    reason, ended = "", False
    sandbox.start_group()
    sandbox.begin_test(terms.seconds_per_question * len(batch))
    began = time.perf_counter()
    try:
        returned = answer(prompts, meter)
    except NoAnswer as stopped:
        reason, ended = str(stopped), stopped.outcome is Outcome.TIMEOUT
    except Exception as error:
        raised = getattr(error, "raised", None)
        if raised is None:  # not the submission's
            raise
        reason = f"raised {_exception_name(raised.name)}: {raised.message}"
    finally:
        seconds = time.perf_counter() - began
        sandbox.end_test()
        sandbox.end_group()
        client.close()
    if isinstance(shared.failure, EngineStopped):  # whatever the system made of it
        raise shared.failure
    answers, wrong = read_answers(returned, len(batch))
    return BatchResult(
        answers=answers,
        reason=_line(reason or wrong),
        ended=ended,
        prompt_tokens=meter.usage.prompt_tokens,
        generated_tokens=meter.usage.generated_tokens,
        seconds=round(seconds, 3),
    )


def _exception_name(told: str) -> str:
    """Return the name of an exception if it is Python's or the meter's: any other is a submission's own words."""
    return told if told == TokenBudgetExceeded.__name__ else believed_name(told)


def read_answers(returned: object, count: int) -> tuple[list[str | None], str]:
    """Return the answers that are texts, in their places, and in words what is wrong with what was returned."""
    if not isinstance(returned, list):
        return [None] * count, f"expected a list of {count} texts, got {type(returned).__name__}"
    answers = [one[:MAX_ANSWER] if isinstance(one, str) else None for one in returned[:count]]
    answers += [None] * (count - len(answers))
    if len(returned) != count:
        return answers, f"expected {count} answers, got {len(returned)}"
    others = [type(one).__name__ for one in returned if not isinstance(one, str)]
    if others:
        return answers, f"expected texts, got {len(others)} answers of another type, at first {others[0]}"
    return answers, ""


def _result(
    submission: Submission, batches: Sequence[Sequence[Question]], done: dict[int, BatchResult]
) -> SystemResult:
    result = SystemResult(submission.name, submission.slug, submission.digest)
    worth: dict[str, list[float]] = {task: [] for task in TASKS}
    texts: dict[str, list[str]] = {task: [] for task in TASKS}
    for number, batch in enumerate(batches):
        answers = done[number].answers if number in done else [None] * len(batch)
        for question, text in zip(batch, answers, strict=True):
            worth[question.task.name].append(0.0 if text is None else _score(question, text))
            if text is not None:
                texts[question.task.name].append(text)
    result.tasks = {
        task: TaskScore(
            accuracy=mean(scores),
            standard_error=standard_error(scores),
            questions=len(scores),
            unanswered=len(scores) - len(texts[task]),
            scores=scores,
            distinct_2=distinct_n(texts[task], 2),
        )
        for task, scores in worth.items()
    }
    result.accuracy = mean(task.accuracy for task in result.tasks.values())
    result.standard_error = math.sqrt(sum(task.standard_error**2 for task in result.tasks.values())) / len(TASKS)
    ran = [done[number] for number in sorted(done)]
    result.prompt_tokens = sum(one.prompt_tokens for one in ran)
    result.generated_tokens = sum(one.generated_tokens for one in ran)
    result.tokens_per_question = (result.prompt_tokens + result.generated_tokens) / sum(map(len, batches))
    result.call_seconds = [one.seconds for one in ran]
    result.seconds = round(sum(result.call_seconds), 3)
    result.reasons = list(dict.fromkeys(one.reason for one in ran if one.reason))
    if any(one.ended for one in ran) and len(ran) < len(batches):
        result.reasons.append(f"after that it was not called again; {len(batches) - len(ran)} calls are missing")
    return result


def _score(question: Question, text: str) -> float:
    """Return what an answer is worth, from 0 to 1; what a metric cannot read is worth nothing."""
    try:
        return float(question.task.score(question.example, [Output(text)]).score or 0.0)
    except (ValueError, ArithmeticError, RecursionError):
        return 0.0


def _key(submission: Submission, assignment: Assignment, terms: Terms) -> str:
    """Return what the calls of a system depend on, as a hash."""
    hashed = hashlib.sha256(f"{submission.digest} {load_assignment(assignment.name).digest} {terms}".encode())
    for file in ("systems.py", "shared_engine.py"):
        hashed.update((KIT / "grader" / file).read_bytes())
    if terms.split == "hidden":
        for task in TASKS:
            hashed.update((HIDDEN / f"{task}.jsonl").read_bytes())
    return hashed.hexdigest()


def _line(text: str) -> str:
    """Return a submission's words as one short line without control characters."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:MAX_REASON]
