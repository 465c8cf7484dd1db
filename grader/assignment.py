"""An assignment: one TOML file that says which tests give which points, under which limits, until when."""

import hashlib
from datetime import datetime, timedelta
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType

import msgspec

from grader.goldens.store import FOLDER as GOLDENS
from grader.results import Visibility
from grader.sandbox.isolation import KIT, Limits

FOLDER = Path(__file__).parent / "assignments"


class UnusableInput(Exception):
    """What the command was given cannot be used; the message is one clear line."""


class Points(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The points of a problem, shared out evenly among its public and among its hidden tests."""

    public: float
    hidden: float


class Problem(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One thing to implement: a class of tests in the public and in the hidden file of its module."""

    id: str
    title: str
    module: str  # "scoring": tests are in test_scoring.py
    tests: str  # "TestEntropy"
    points: Points


class LatePolicy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What lateness costs."""

    deadline: datetime  # with a time zone
    deduction_per_day: float  # share of the points, for each day begun
    accepted_days: int  # later than that earns nothing

    def days_late(self, received: datetime) -> int:
        """Return the days begun after the deadline."""
        return max(0, -((self.deadline - received) // timedelta(days=1)))

    def factor(self, days: int) -> float:
        """Return the share of the points that is left."""
        return max(0.0, 1.0 - self.deduction_per_day * days) if days <= self.accepted_days else 0.0


NOTHING = Limits(*[0] * len(Limits.__struct_fields__))


class Assignment(msgspec.Struct, forbid_unknown_fields=True, frozen=True, dict=True):
    """What is graded, and how."""

    name: str  # also the folder and package that students fill in: "hw1"
    title: str
    late: LatePolicy
    packages: list[str] = []  # distributions that a submission may import, with what they require
    kit: list[str] = []  # files of the kit that a submission may import
    limits: Limits = NOTHING
    problems: list[Problem] = []  # none where tests do not grade it: the final project

    @cached_property
    def modules(self) -> list[str]:
        """The modules to submit, without their package: ["scoring", "sampling"]."""
        return list(dict.fromkeys(problem.module for problem in self.problems))

    @cached_property
    def stubs(self) -> dict[str, ModuleType]:
        """The stub modules by full name; their signatures are the contract."""
        return {name: import_module(name) for name in (f"{self.name}.{module}" for module in self.modules)}

    def test_file(self, module: str, visibility: Visibility) -> Path:
        """Return the file that holds a module's public or hidden tests."""
        folder = KIT / self.name / "tests" if visibility == "public" else KIT / "grader" / "hidden" / self.name
        return folder / f"test_{module}.py"

    @property
    def max_points(self) -> float:
        """The points for everything."""
        return sum(problem.points.public + problem.points.hidden for problem in self.problems)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that a grade depends on besides the submission, the goldens in force too."""
        judge = [KIT / "grader" / file for file in ("assignment.py", "results.py", "testing.py")]
        sources = [FOLDER / f"{self.name}.toml", *judge]
        sources += [self.test_file(module, "public") for module in self.modules]
        sources += [self.test_file(module, "hidden") for module in self.modules]
        for folder in (KIT / self.name, KIT / "grader/sandbox", KIT / "grader/goldens", KIT / "shared_tasks"):
            sources += folder.glob("*.py")
        sources += (KIT / "shared_tasks/models").glob("*.py")
        hashed = hashlib.sha256()
        for source in sorted(sources):
            hashed.update(f"{source.relative_to(KIT)}\0".encode())
            hashed.update(hashlib.sha256(source.read_bytes()).digest())
        index = GOLDENS / f"{self.name}.json"
        hashed.update(index.read_bytes() if index.is_file() else b"")
        return hashed.hexdigest()


def load_assignment(name: str) -> Assignment:
    """Read `grader/assignments/NAME.toml`. Raises UnusableInput when there is none or it is wrong."""
    path = FOLDER / f"{name}.toml"
    known = sorted(file.stem for file in FOLDER.glob("*.toml"))
    if name not in known:
        raise UnusableInput(f"no assignment {name!r}; there are: {', '.join(known)}")
    try:
        assignment = msgspec.toml.decode(path.read_bytes(), type=Assignment)
    except msgspec.DecodeError as error:
        raise UnusableInput(f"{path}: {error}") from error
    if assignment.problems and assignment.limits == NOTHING:
        raise UnusableInput(f"{path}: expected [limits] beside problems, got none")
    return assignment


def load_homework(name: str) -> Assignment:
    """Read an assignment that tests grade. Raises UnusableInput as `load_assignment`, and for the final project."""
    assignment = load_assignment(name)
    if not assignment.problems:
        raise UnusableInput(f"{name} is not graded by tests but under load: grader serve-test")
    return assignment
