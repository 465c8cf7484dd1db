"""Running an assignment's tests with pytest in the judge, on modules that may live elsewhere."""

import contextlib
import inspect
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from grader.assignment import Assignment, Problem
from grader.goldens.prepare import Goldens, goldens_in_force
from grader.goldens.store import Corrupt
from grader.results import Outcome, TestResult, Usage, Visibility
from grader.sandbox.isolation import KIT
from grader.sandbox.remote import NoAnswer, Raised
from grader.sandbox.sandbox import Sandbox

MESSAGE_LENGTH = 4000
VISIBILITIES: tuple[Visibility, ...] = ("public", "hidden")
OPTIONS = [
    *("-c", os.devnull, f"--rootdir={KIT}", "--import-mode=importlib", "--noconftest", "--capture=no", "-W", "ignore"),
    *("-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:faulthandler"),
    *("-p", "no:unraisableexception", "-p", "no:threadexception"),  # they collect garbage for 0.2 s at the end
]


class BrokenTests(Exception):
    """The tests themselves cannot be run; a fault of the kit, not of a submission."""


def run_tests(
    assignment: Assignment,
    modules: dict[str, ModuleType],
    sandbox: Sandbox | None = None,
    wanted: Callable[[Problem, Visibility], bool] = lambda problem, visibility: True,
    stop_at_failure: bool = False,
) -> list[TestResult]:
    """Run public and hidden tests on the given modules ("hw1.scoring": ...), in the order of the problems.

    With a sandbox, the modules are remote ones that call into it: each problem gets a fresh process, each test its
    limits. Without one, the modules run right here, as references do. With `stop_at_failure` the first test that does
    not pass is the last one to run. Raises BrokenTests when a test file cannot be collected.
    """
    plugin = _Plugin(assignment, sandbox, wanted, stop_at_failure)
    files = [
        str(assignment.test_file(module, visibility))
        for module in assignment.modules
        for visibility in VISIBILITIES
        if any(problem.module == module and wanted(problem, visibility) for problem in assignment.problems)
    ]
    with _installed(assignment.name, modules):
        status = pytest.main([*OPTIONS, *files], plugins=[plugin])
    expected = {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
    if stop_at_failure:
        expected.add(pytest.ExitCode.INTERRUPTED)
    if plugin.broken or status not in expected:
        raise BrokenTests("\n".join(plugin.broken) or f"pytest ended with status {status}")
    return plugin.results


@contextlib.contextmanager
def _installed(package: str, modules: dict[str, ModuleType]) -> Iterator[None]:
    """Make `from hw1 import scoring` find the given modules, and test files be imported anew."""

    def belongs(name: str) -> bool:
        return name.split(".")[0] == package or name.startswith("grader.hidden")

    before = {name: module for name, module in sys.modules.items() if belongs(name)}
    parent = ModuleType(package)
    parent.__path__ = [str(KIT / package)]  # what is given to students, such as hw3/transformer.py, is the kit's
    try:
        for name in before:
            del sys.modules[name]
        sys.modules[package] = parent
        for name, module in modules.items():
            sys.modules[name] = module
            setattr(parent, name.rpartition(".")[2], module)
        yield
    finally:
        for name in [name for name in sys.modules if belongs(name)]:
            del sys.modules[name]
        sys.modules.update(before)


class _Plugin:
    """Orders the tests by problem, keeps the clock, and turns reports into results."""

    def __init__(
        self,
        assignment: Assignment,
        sandbox: Sandbox | None,
        wanted: Callable[[Problem, Visibility], bool],
        stop_at_failure: bool,
    ):
        self.assignment = assignment
        self.sandbox = sandbox
        self.wanted = wanted
        self.stop_at_failure = stop_at_failure
        self.results: list[TestResult] = []
        self.broken: list[str] = []
        self.raised: BaseException | None = None
        self.place: dict[str, tuple[Problem, Visibility]] = {}
        self.current: Problem | None = None
        self.problem_left = 0.0
        self.submission_left = assignment.limits.submission_seconds

    def pytest_configure(self, config: pytest.Config) -> None:
        config.option.tbstyle = "native"  # a report of its own is made here; pytest's is costly and is dropped

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(str(report.longrepr))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = {(problem.module, problem.tests): i for i, problem in enumerate(self.assignment.problems)}
        ranked: list[tuple[int, bool, int, pytest.Item]] = []
        for number, item in enumerate(items):
            hidden = item.path.is_relative_to(KIT / "grader")
            key = item.path.stem.removeprefix("test_"), item.nodeid.split("::")[1]
            if key not in order:
                self.broken.append(f"{item.nodeid} belongs to no problem of {self.assignment.name}.toml")
                continue
            problem, visibility = self.assignment.problems[order[key]], VISIBILITIES[hidden]
            self.place[item.nodeid] = problem, visibility
            if self.wanted(problem, visibility):
                ranked.append((order[key], hidden, number, item))
        self.shares = Counter((problem.id, visibility) for problem, visibility in self.place.values())
        for problem in self.assignment.problems:
            for visibility in VISIBILITIES:
                if self.wanted(problem, visibility) and not self.shares[problem.id, visibility] and not self.broken:
                    self.broken.append(f"the problem {problem.id} has no {visibility} tests")
        items[:] = [] if self.broken else [item for *_, item in sorted(ranked, key=lambda row: row[:3])]

    @pytest.fixture
    def golden(self, request: pytest.FixtureRequest) -> list[Any]:
        """Return what the reference gave that the test's marker names.

        Whoever starts judges has made sure that the goldens are in force.
        """
        (name,) = request.node.get_closest_marker("reference").args
        goldens = Goldens(self.assignment.name) if self.sandbox else goldens_in_force(self.assignment.name)
        try:
            return goldens.load(name)
        except (OSError, KeyError, ValueError, Corrupt) as error:
            self.broken.append(f"the goldens of {name} cannot be read: {error!r}")
            raise

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        problem, visibility = self.place[item.nodeid]
        result = self._described(item, problem, visibility)
        self.results.append(result)
        if self.sandbox is None:
            self._run(item, nextitem, result)
        elif self._prepare(self.sandbox, problem, result):
            began = time.monotonic()
            self.sandbox.begin_test(min(self.problem_left, self.submission_left, self.assignment.limits.test_seconds))
            self._run(item, nextitem, result)
            result.stdout, result.stdout_bytes = self.sandbox.end_test()
            result.usage = self.sandbox.usage
            took = time.monotonic() - began
            self.problem_left -= took
            self.submission_left -= took
        else:  # what earlier tests set up for this one and its class is still to be taken down
            item.session._setupstate.teardown_exact(nextitem)
        if result.outcome is Outcome.PASSED:
            result.points = result.max_points
        elif self.stop_at_failure:
            item.session.shouldstop = "a test failed"
        return True

    def _described(self, item: pytest.Item, problem: Problem, visibility: Visibility) -> TestResult:
        paragraphs = (inspect.getdoc(getattr(item, "function", None)) or item.name).split("\n\n")
        statement, hint = (" ".join(text.split()) for text in (paragraphs[0], " ".join(paragraphs[1:])))
        share = getattr(problem.points, visibility) / self.shares[problem.id, visibility]
        name = f"{item.path.name}::{item.nodeid.split('::', 1)[1]}"
        return TestResult(name, problem.id, visibility, statement, hint, max_points=share)

    def _prepare(self, sandbox: Sandbox, problem: Problem, result: TestResult) -> bool:
        """Give the test a process to call; return False when the time for it has run out."""
        if problem is not self.current:
            self.current = problem
            self.problem_left = self.assignment.limits.problem_seconds
            sandbox.start_group()
        if min(self.problem_left, self.submission_left) <= 0:
            whose = "this problem" if self.problem_left <= 0 else "this submission"
            result.outcome, result.message = Outcome.NOT_RUN, f"not run: the time for {whose} had run out before"
            return False
        if sandbox.stopped is not None:
            sandbox.start_group()
        return True

    def _run(self, item: pytest.Item, nextitem: pytest.Item | None, result: TestResult) -> None:
        self.raised = None
        began = time.monotonic()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        result.usage = Usage(wall_seconds=time.monotonic() - began)
        passed = [report.when for report in reports if report.outcome == "passed" and not hasattr(report, "wasxfail")]
        stopped = self.sandbox.stopped if self.sandbox else None
        if passed == ["setup", "call", "teardown"] and stopped is None:
            result.outcome = Outcome.PASSED
        else:
            _explain(stopped or self.raised, result)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
        if call.excinfo is not None and self.raised is None:
            self.raised = call.excinfo.value


def _explain(error: BaseException | None, result: TestResult) -> None:
    """Fill in how a test failed."""
    raised: Raised | None = getattr(error, "raised", None)
    if isinstance(error, NoAnswer):
        result.outcome, result.message = error.outcome, str(error)
    elif raised is not None:
        result.outcome = Outcome.MEMORY if _out_of_memory(raised) else Outcome.ERROR
        result.exception, result.traceback = raised.name, raised.traceback
        result.message = f"{raised.name}: {raised.message}"
    else:
        result.outcome = Outcome.FAILED
        expected = isinstance(error, (AssertionError, pytest.fail.Exception))
        result.message = str(error) if expected else f"the answer could not be used: {type(error).__name__}: {error}"
    result.message = result.message[:MESSAGE_LENGTH]


def _out_of_memory(raised: Raised) -> bool:
    return raised.name == "MemoryError" or "can't allocate memory" in raised.message
