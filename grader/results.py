"""What grading a submission yields, before it is stored and rendered."""

from enum import StrEnum
from typing import Literal

import msgspec

Visibility = Literal["public", "hidden"]


class Outcome(StrEnum):
    """How a test ended. Only `PASSED` earns points."""

    PASSED = "passed"
    FAILED = "failed"  # the answer was wrong
    ERROR = "error"  # the submission raised an exception
    CRASHED = "crashed"  # the process died: segmentation fault, os._exit, a kill
    TIMEOUT = "timeout"  # wall time or CPU time ran out
    MEMORY = "memory"  # too much memory
    PROCESSES = "processes"  # too many processes
    PROTOCOL = "protocol"  # the answer could not cross: an object of an unknown type, too large, too deep, malformed
    NOT_RUN = "not run"  # the time of the problem or of the submission had run out before


class TracebackLine(msgspec.Struct, frozen=True):
    """A line of the submission's own code on the way to an exception."""

    file: str
    line: int
    function: str
    source: str


class Usage(msgspec.Struct):
    """What a test took in the sandbox."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


class TestResult(msgspec.Struct):
    """One test of one submission."""

    __test__ = False  # nor is it one for pytest to collect

    test: str  # "test_sampling.py::TestTopP::test_keeps_the_crossing_token"
    problem: str  # the problem's id, "top_p"
    visibility: Visibility
    statement: str  # the sentence that the test states
    hint: str = ""  # what to look at when it fails
    outcome: Outcome = Outcome.NOT_RUN
    message: str = ""  # what was expected and what came, or what happened; may quote a hidden test's inputs
    exception: str = ""  # the type of the submission's exception
    traceback: list[TracebackLine] = []
    stdout: str = ""  # what the submission printed, cut at the limit; may quote a hidden test's inputs
    stdout_bytes: int = 0  # how much it printed in all
    usage: Usage = msgspec.field(default_factory=Usage)
    points: float = 0.0
    max_points: float = 0.0


class ProblemResult(msgspec.Struct):
    """The points of one problem."""

    problem: str
    title: str
    module: str
    points: float
    max_points: float


class SubmissionResult(msgspec.Struct):
    """Everything about one graded submission."""

    name: str  # the student, as the folder or zip is named
    slug: str  # the name as it stands in file names
    assignment: str
    title: str  # the assignment's title
    digest: str  # SHA-256 of the submitted files
    points: float = 0.0  # after the late deduction
    max_points: float = 0.0
    earned: float = 0.0  # before the late deduction
    days_late: int = 0
    late_factor: float = 1.0
    problems: list[ProblemResult] = []
    tests: list[TestResult] = []
    refusal: str = ""  # why it was not graded at all, in one line
    summary: list[str] = []  # what happened, in plain words, a sentence each
    files: list[str] = []  # the submitted files that were used
    seconds: float = 0.0  # wall time of grading it
