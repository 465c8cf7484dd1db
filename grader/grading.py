"""Grading a cohort: a judge process per submission, results stored as they come."""

import contextlib
import multiprocessing
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import msgspec
import torch

from grader.assignment import Assignment, load_assignment
from grader.evidence import believed_lines, believed_name
from grader.goldens.prepare import goldens_in_force
from grader.results import Outcome, ProblemResult, SubmissionResult, TestResult
from grader.sandbox.remote import class_interfaces, remote_module
from grader.sandbox.sandbox import Sandbox
from grader.store import Store
from grader.submissions import Submission
from grader.testing import run_tests


class JudgeFailed(Exception):
    """The grader itself failed on a submission; the message is the judge's traceback."""


class Graded(msgspec.Struct):
    """A submission that is done: with a result, or with what went wrong in the judge."""

    submission: Submission
    result: SubmissionResult | None
    failure: str = ""


def grade_cohort(
    assignment: Assignment,
    submissions: list[Submission],
    store: Store,
    jobs: int,
    received: dict[str, datetime],
) -> Iterator[Graded]:
    """Grade submissions, `jobs` at a time, and yield each as it is done; what the store has already comes at once.

    Each submission is judged in a process of its own. While `jobs` of them run tests, one more starts its sandbox,
    so that importing torch there costs no waiting.
    """
    goldens_in_force(assignment.name)
    waiting: list[Submission] = []
    for submission in submissions:
        known = store.get(submission.slug, _key(assignment, submission, received))
        if known is not None:
            yield Graded(submission, known)
        else:
            waiting.append(submission)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["grader.testing"])
    slots = context.Semaphore(jobs)
    patience = 120.0 + 3 * assignment.limits.submission_seconds  # no honest judge takes that long
    running: dict[Connection, tuple[Submission, BaseProcess, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs + 1:
                submission = waiting.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                arguments = (assignment.name, submission, received.get(submission.name), slots, theirs)
                process: BaseProcess = context.Process(target=_judge, args=arguments, name=f"judge {submission.slug}")
                process.start()
                theirs.close()
                running[ours] = submission, process, time.monotonic()
            for _, process, started in running.values():
                if time.monotonic() - started > patience:
                    process.kill()
            for ready in wait(list(running), timeout=5.0):
                assert isinstance(ready, Connection)
                submission, process, _ = running.pop(ready)
                graded = _outcome(submission, ready)
                process.join()
                if graded.result is not None:
                    store.put(_key(assignment, submission, received), graded.result)
                yield graded
    finally:
        for _, process, _ in running.values():
            process.kill()


def _key(assignment: Assignment, submission: Submission, received: dict[str, datetime]) -> str:
    return f"{assignment.digest} {submission.digest} {received.get(submission.name)}"


def _outcome(submission: Submission, connection: Connection) -> Graded:
    """Read what a judge sent; one that died sent nothing."""
    try:
        kind, body = connection.recv()
    except EOFError:
        return Graded(submission, None, "the judge process died")
    finally:
        connection.close()
    return Graded(submission, body) if kind == "result" else Graded(submission, None, body)


def _judge(
    name: str, submission: Submission, received: datetime | None, slots: Semaphore, connection: Connection
) -> None:
    """Grade one submission in this process and send the result."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)  # the judge's own arithmetic is small, and other judges run beside it
    try:
        result = grade(load_assignment(name), submission, received, slots)
        connection.send(("result", result))
    except BaseException:
        connection.send(("failure", traceback.format_exc()))


def grade(
    assignment: Assignment,
    submission: Submission,
    received: datetime | None = None,
    slots: contextlib.AbstractContextManager[object] | None = None,
) -> SubmissionResult:
    """Run all tests on one submission and count its points; hold a slot, if slots are given, while tests run."""
    result = SubmissionResult(
        name=submission.name,
        slug=submission.slug,
        assignment=assignment.name,
        title=assignment.title,
        digest=submission.digest,
        max_points=assignment.max_points,
        refusal=submission.refusal,
        files=sorted(submission.files),
    )
    if not submission.refusal:
        with tempfile.TemporaryDirectory(prefix="submission-") as folder:
            result.tests, result.seconds = _run_sandboxed(assignment, submission, Path(folder), slots)
    result.problems = [
        ProblemResult(
            problem.id,
            problem.title,
            problem.module,
            round(sum(test.points for test in result.tests if test.problem == problem.id), 2),
            problem.points.public + problem.points.hidden,
        )
        for problem in assignment.problems
    ]
    result.earned = round(sum(test.points for test in result.tests), 2)
    result.days_late = assignment.late.days_late(received) if received else 0
    result.late_factor = assignment.late.factor(result.days_late)
    result.points = round(result.earned * result.late_factor, 2)
    result.summary = [] if result.refusal else summarize(assignment, submission, result.tests)
    return result


def _run_sandboxed(
    assignment: Assignment,
    submission: Submission,
    folder: Path,
    slots: contextlib.AbstractContextManager[object] | None,
) -> tuple[list[TestResult], float]:
    """Return the results of all tests and the wall time from when the sandbox was ready."""
    for name, contents in submission.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    folder.chmod(0o755)
    classes = class_interfaces(list(assignment.stubs.values()))
    sandbox = Sandbox(folder, assignment.packages, assignment.kit, assignment.limits, classes)
    try:
        sandbox.wait_ready()
        with slots or contextlib.nullcontext():
            began = time.monotonic()
            modules = {name: remote_module(stub, sandbox.call) for name, stub in assignment.stubs.items()}
            tests = run_tests(assignment, modules, sandbox)
            for test in tests:
                test.traceback = believed_lines(test.traceback, submission.files)
            return tests, time.monotonic() - began
    finally:
        sandbox.close()


HAPPENED = {
    Outcome.CRASHED: "the process died",
    Outcome.TIMEOUT: "the time ran out",
    Outcome.MEMORY: "the memory ran out",
    Outcome.PROCESSES: "too many processes or threads were started",
    Outcome.PROTOCOL: "the answer was of a kind that cannot be read",
    Outcome.NOT_RUN: "there was no time left to run them",
}


def summarize(assignment: Assignment, submission: Submission, tests: list[TestResult]) -> list[str]:
    """Say in plain words what happened, without anything that a hidden test keeps to itself."""
    passed = sum(test.outcome is Outcome.PASSED for test in tests)
    sentences = [f"{passed} of {len(tests)} tests passed."]
    problems = {problem.id: problem for problem in assignment.problems}
    for module in assignment.modules:
        file = f"{assignment.name}/{module}.py"
        own = [test for test in tests if problems[test.problem].module == module]
        failures = {(test.exception, test.traceback[-1] if test.traceback else None) for test in own}
        if file not in submission.files:
            sentences.append(f"{file} was not submitted, so none of its tests could pass.")
        elif len(failures) == 1 and own[0].exception and own[0].exception != "NotImplementedError":
            line = own[0].traceback[-1] if own[0].traceback else None
            where = f", at line {line.line} of {line.file}" if line else ""
            sentences.append(f"{file} could not be imported: {believed_name(own[0].exception)}{where}.")
    open_problems = [
        problem.title
        for problem in assignment.problems
        if all(test.exception == "NotImplementedError" for test in tests if test.problem == problem.id)
    ]
    if open_problems:
        sentences.append(f"Not implemented yet: {', '.join(open_problems)}.")
    for outcome, words in HAPPENED.items():
        where_it_happened = Counter(problems[test.problem].title for test in tests if test.outcome is outcome)
        if where_it_happened:
            places = ", ".join(f"{title} ({count})" for title, count in where_it_happened.items())
            sentences.append(f"In {sum(where_it_happened.values())} tests {words}: {places}.")
    return sentences
