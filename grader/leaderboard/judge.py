"""What is known of an entry: all of it measured by the judge, on a split, under the rules of the board."""

import hashlib
import shutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import msgspec
import numpy as np

from grader.leaderboard.entries import kept, kit_system
from grader.leaderboard.queue import Entry, Failed, Runs, Track
from grader.leaderboard.rules import Rules
from grader.sandbox.isolation import KIT
from grader.serving.command import OnStart, Session
from grader.serving.judge import Result, by_question
from grader.serving.report import BASELINES
from grader.serving.rules import LoadTest, load_configuration
from grader.shared_engine import SharedEngine
from grader.submissions import Refused, collect
from grader.systems import (
    HIDDEN,
    TASKS,
    SystemResult,
    SystemStore,
    Terms,
    load_questions,
    run_systems,
    systems_assignment,
)
from shared_tasks.metrics.diversity import distinct_n
from shared_tasks.models.folders import hash_files, model_folder
from shared_tasks.models.registry import model_path
from shared_tasks.models.transformers_engine import TransformersEngine
from shared_tasks.tasks.loading import EMBEDDED

JUDGE = ("grader", "shared_tasks", "final_project", "hw3")
"""What of the kit a measurement depends on."""


class TaskRun(msgspec.Struct):
    """A task's part of a run."""

    scores: list[float]
    """Of each question, from 0 to 1, in an order that all runs of the board share; unanswered ones count 0."""
    answers: int
    distinct_2: float
    """The share of different pairs of words among all that the answers have."""
    answered: list[float] = []
    """Of a server: the scores of its answers alone, with those of questions that were asked twice."""


class Run(msgspec.Struct):
    """What was measured of an entry under one token budget, or of one of a server's systems."""

    variant: str
    tasks: dict[str, TaskRun]
    tokens: float
    """A question, the prompt's included; of a server those of an answer."""
    budget: int
    """Tokens a question that there were; 0 where there is no such limit."""
    latencies: tuple[float, float]
    """p50 and p99, in seconds; of a system, of the call in which a question was answered. Zeros without an answer."""
    served: int
    """Requests; of a system, questions."""
    requests: int
    throughput: float
    """Of what was served, a second."""
    notes: list[str]
    """What went wrong, each once."""
    findings: list[str]
    """What the staff should look at."""
    kit: str
    model: str
    data: str


class Judge:
    """Evaluates entries, one after the other; engine, questions and traces are loaded when first needed, and kept."""

    def __init__(self, board: Path, rules: Rules, on_start: OnStart, on_run: Callable[[Entry, str], None]):
        """Judge for a board's folder.

        `on_run` is told of each system and budget that begins, `on_start` of each load test, whose requests it counts.
        """
        self._board, self._rules, self._on_start, self._on_run = board, rules, on_start, on_run
        self._store = SystemStore(board / "systems.sqlite")
        self._shared: SharedEngine | None = None
        self._sessions: dict[str, Session] = {}
        self._model = hash_files(model_folder(rules.systems.model))

    def close(self) -> None:
        """Stop the engine, and close the files."""
        if self._shared is not None:
            self._shared.close()
        self._store.close()

    def conditions(self, track: Track, split: str) -> str:
        """Return what results must share to be compared, as a hash: model, data, rules; the kit's code is not in it."""
        own = f"{self._model} {self._rules.systems}" if track == "systems" else str(self._load_test())
        return hashlib.sha256(f"{own} {data_digest(split)}".encode()).hexdigest()

    def evaluate(self, entry: Entry, split: str) -> Runs:
        """Measure an entry on a split. Raises Failed for what cannot be, or answered nothing at all."""
        runs = self._systems(entry, split) if entry.track == "systems" else self._servers(entry, split)
        if not any(task.answers for run in runs for task in run.tasks.values()):
            raise Failed("; ".join(dict.fromkeys(note for run in runs for note in run.notes)) or "it answered nothing")
        return {run.variant: msgspec.json.encode(run) for run in runs}

    def forget(self, entry: Entry, split: str) -> None:
        """Drop what was measured of an entry on a split, so that it is measured and not taken from there."""
        if entry.track == "systems":
            self._store.forget(f"{entry.id} {split} ")
        else:
            system = kit_system(entry)
            place = f"{BASELINES}/{system}" if system is not None else entry.digest
            shutil.rmtree(self._session(split).out / place, ignore_errors=True)

    # Systems of homework 2

    def _systems(self, entry: Entry, split: str) -> list[Run]:
        rules, runs = self._rules.systems, []
        if self._shared is not None and self._shared.failure is not None:  # what one entry breaks is not the next one's
            self._shared.close()
            self._shared = None
        if self._shared is None:
            self._shared = SharedEngine(TransformersEngine(model_path(rules.model), name=rules.model))
        questions = load_questions(split, rules.questions)
        assignment = systems_assignment()
        (submission,) = collect([kept(self._board, entry)], assignment)
        for budget in rules.token_budgets:
            self._on_run(entry, f"{budget:,} tokens")
            # The slug keeps what was run for other splits, budgets and conditions apart in the store.
            slug = f"{entry.id} {split} {budget} {self.conditions('systems', split)}"
            named = msgspec.structs.replace(submission, slug=slug)
            terms = Terms(rules.model, self._model, budget, split, rules.questions, rules.seconds_per_question)
            (result,) = run_systems([named], assignment, questions, terms, self._shared, self._store, jobs=1)
            if result.refusal:
                raise Failed(result.refusal)
            runs.append(self._run_of_system(result, budget, split))
        return runs

    def _run_of_system(self, result: SystemResult, budget: int, split: str) -> Run:
        tasks = {
            name: TaskRun(task.scores, task.questions - task.unanswered, task.distinct_2)
            for name, task in result.tasks.items()
        }
        asked = sum(task.questions for task in result.tasks.values())
        served = sum(task.answers for task in tasks.values())
        return Run(
            variant=f"{budget:,} tokens",
            tasks=tasks,
            tokens=result.tokens_per_question,
            budget=budget,
            latencies=_quantiles(result.call_seconds),
            served=served,
            requests=asked,
            throughput=served / result.seconds if result.seconds else 0.0,
            notes=result.reasons,
            findings=[],
            kit=kit_version(),
            model=f"{self._rules.systems.model} {self._model[:8]}",
            data=f"{split} {data_digest(split)[:8]}",
        )

    # Servers of the final project

    def _servers(self, entry: Entry, split: str) -> list[Run]:
        session = self._session(split)
        system = kit_system(entry)
        if system is not None:
            if entry.role == "ceiling":
                session.test_ceiling(self._on_start)
            else:
                session.test_baselines(self._on_start, [system])
            results = [one for one in session.results() if (one.student, one.system) == (BASELINES, system)]
        else:
            try:
                results = session.test_submission(kept(self._board, entry), self._on_start, again=False)
            except Refused as reason:
                raise Failed(str(reason)) from reason
        return [self._run_of_server(result, session, split) for result in results]

    def _run_of_server(self, result: Result, session: Session, split: str) -> Run:
        summary = result.summary
        assert summary is not None, "a load test ends with its summary"
        records = session.records(result)
        tasks = {
            name: TaskRun(
                scores=[mean(question.scores) for question in questions],
                answers=len(result.scores.get(name, [])),
                distinct_2=distinct_n([question.texts[0] for question in questions if question.texts], 2),
                answered=result.scores.get(name, []),
            )
            for name, questions in by_question(session.trace, records, session.questions).items()
            if questions  # a short trace may ask nothing of a task
        }
        tokens = [count for record in records if record.served for count in record.tokens]
        end_to_end = summary.latencies.get("end_to_end")
        return Run(
            variant=result.system,
            tasks=tasks,
            tokens=mean(tokens) if tokens else 0.0,
            budget=0,
            latencies=(end_to_end.p50, end_to_end.p99) if end_to_end else (0.0, 0.0),
            served=summary.served,
            requests=summary.requests,
            throughput=summary.requests_per_second,
            notes=[result.failure] if result.failure else [],
            findings=result.findings,
            kit=kit_version(),
            model=f"{result.model} {result.weights[:8]}",
            data=f"{split} {data_digest(split)[:8]}",
        )

    def _session(self, split: str) -> Session:
        if split not in self._sessions:
            folder = self._board / "servers" / f"{split}-{self.conditions('servers', split)[:16]}"
            self._sessions[split] = Session(folder, self._load_test(), split=split)
        return self._sessions[split]

    def _load_test(self) -> LoadTest:
        test, rules = load_configuration(), self._rules.servers
        return msgspec.structs.replace(test, seconds=rules.seconds or test.seconds, phases=rules.phases or test.phases)


def _quantiles(seconds: list[float]) -> tuple[float, float]:
    return (float(np.quantile(seconds, 0.5)), float(np.quantile(seconds, 0.99))) if seconds else (0.0, 0.0)


@cache
def data_digest(split: str) -> str:
    """Return a hash of a split's questions and answers."""
    hashed = hashlib.sha256()
    for task in TASKS:
        file = HIDDEN / f"{task}.jsonl" if split == "hidden" else EMBEDDED / task / f"{split}.jsonl"
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


@cache
def kit_version() -> str:
    """Return the kit's version with a hash of the code that measures."""
    hashed = hashlib.sha256((KIT / "constraints.txt").read_bytes())
    for folder in JUDGE:
        for file in sorted((KIT / folder).rglob("*.py")):
            hashed.update(file.read_bytes())
    return f"{version('inference-course-kit')} {hashed.hexdigest()[:8]}"
