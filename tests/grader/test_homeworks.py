"""The material of each homework: stubs and references agree, right solutions pass, wrong ones fail."""

import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from grader.assignment import FOLDER, Assignment, Problem, load_assignment
from grader.results import Outcome, Visibility
from grader.sandbox.isolation import KIT
from grader.sandbox.remote import public_names
from grader.testing import run_tests

ASSIGNMENTS = [one for path in sorted(FOLDER.glob("*.toml")) if (one := load_assignment(path.stem)).problems]
MODULES = [(assignment, module) for assignment in ASSIGNMENTS for module in assignment.modules]


def fresh(path: Path) -> ModuleType:
    """Return a module newly executed from a file, so that changing it changes no other."""
    spec = importlib.util.spec_from_file_location(f"fresh_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def staff_file(folder: str, assignment: Assignment, file: str) -> Path:
    return KIT / "grader" / folder / assignment.name / f"{file}.py"


def solution(assignment: Assignment, folder: str, prefix: str = "") -> dict[str, ModuleType]:
    names = {f"{assignment.name}.{module}": prefix + module for module in assignment.modules}
    return {name: fresh(staff_file(folder, assignment, file)) for name, file in names.items()}


def mutants() -> list[tuple[Assignment, str, str]]:
    """Return (assignment, module, mutant's name) of every mutant."""
    found = []
    for assignment, module in MODULES:
        source = fresh(staff_file("hidden", assignment, f"mutants_{module}"))
        found += [(assignment, module, name) for name in vars(source) if "__" in name.strip("_")]
    return found


def names(case: object) -> str:
    return case.name if isinstance(case, Assignment) else str(case)


@pytest.mark.parametrize(("assignment", "module"), MODULES, ids=names)
def test_stub_and_reference_have_one_contract(assignment: Assignment, module: str) -> None:
    """Every public name of the stub is in the reference, with the same signature and docstring."""
    stub = assignment.stubs[f"{assignment.name}.{module}"]
    reference = importlib.import_module(f"grader.reference.{assignment.name}.{module}")
    assert inspect.getdoc(stub) == inspect.getdoc(reference)
    offered, given = public_names(stub), public_names(reference)
    assert list(offered) == list(given)
    for name in offered:
        assert contract(offered[name]) == contract(given[name]), name


def contract(value: object) -> list[tuple[str, str | None, str]]:
    """Return name, docstring and signature of a function, or of a class and its public methods."""
    parts = [("", value)]
    if inspect.isclass(value):
        parts += [(key, part) for key, part in vars(value).items() if inspect.isfunction(part)]
    module = getattr(value, "__module__", "")
    return [
        (key, inspect.getdoc(part), str(inspect.signature(part)).replace(f"{module}.", ""))  # type: ignore[arg-type]
        for key, part in parts
        if key == "__init__" or not key.startswith("_")
    ]


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=names)
def test_handout_names_every_problem_with_its_points(assignment: Assignment) -> None:
    """The handout has a section for each problem, in order, with the points that the grader gives."""
    sections = handout_sections(assignment)
    given = [problem.points.public + problem.points.hidden for problem in assignment.problems]
    assert list(sections.values()) == given
    functions = [name for stub in assignment.stubs.values() for name in public_names(stub)]
    assert set(sections) <= set(functions)


def handout_sections(assignment: Assignment) -> dict[str, int]:
    """Return the points that the handout announces for each function that has a section, in order."""
    handout = (KIT / assignment.name / "README.md").read_text()
    sections = re.findall(r"^### `(\w+)`.* \((\d+) points\)$", handout, re.MULTILINE)
    return {name: int(points) for name, points in sections}


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=names)
def test_stubs_fail_every_test(assignment: Assignment) -> None:
    """The untouched stubs pass no test at all."""
    results = run_tests(assignment, assignment.stubs)
    assert results
    assert [result.test for result in results if result.outcome is Outcome.PASSED] == []


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=names)
@pytest.mark.parametrize(("folder", "prefix"), [("reference", ""), ("hidden", "alternative_")])
def test_correct_solutions_pass_every_test(assignment: Assignment, folder: str, prefix: str) -> None:
    """The reference passes everything, and so does a correct solution that is written differently."""
    results = run_tests(assignment, solution(assignment, folder, prefix))
    assert [(r.test, r.message) for r in results if r.outcome is not Outcome.PASSED] == []
    assert sum(result.points for result in results) == pytest.approx(assignment.max_points)


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=names)
def test_every_test_states_a_sentence(assignment: Assignment) -> None:
    """Each test states what is right in one sentence, and each hidden test has a hint."""
    for result in run_tests(assignment, assignment.stubs):
        assert result.statement.endswith("."), result.test
        assert result.hint or result.visibility == "public", result.test


def test_every_function_has_mutants() -> None:
    """There are at least four plausible wrong implementations of every function and class."""
    found = [(assignment.name, module, name.split("__")[0]) for assignment, module, name in mutants()]
    for assignment, module in MODULES:
        stub = assignment.stubs[f"{assignment.name}.{module}"]
        for name in public_names(stub):
            data = inspect.isclass(getattr(stub, name)) and hasattr(getattr(stub, name), "__dataclass_fields__")
            assert data or found.count((assignment.name, module, name)) >= 4, name


@pytest.mark.parametrize(("assignment", "module", "name"), mutants(), ids=names)
def test_mutant_is_killed(assignment: Assignment, module: str, name: str) -> None:
    """A plausible wrong implementation fails at least one hidden test of the problem that it belongs to."""
    modules = solution(assignment, "reference")
    function = name.split("__")[0]
    wrong = getattr(fresh(staff_file("hidden", assignment, f"mutants_{module}")), name)
    setattr(modules[f"{assignment.name}.{module}"], function, wrong)
    own = dict(zip(handout_sections(assignment), assignment.problems, strict=True)).get(function)

    def wanted(problem: Problem, visibility: Visibility) -> bool:
        return visibility == "hidden" and (problem is own if own else problem.module == module)

    results = run_tests(assignment, modules, wanted=wanted, stop_at_failure=True)
    assert results
    assert results[-1].outcome is not Outcome.PASSED
