"""The arrows of docs/architecture.md: who may import whom."""

import ast
from pathlib import Path

import pytest

KIT = Path(__file__).parents[1]
STUDENT_FOLDERS = ["hw1", "hw2", "hw3", "final_project"]
PACKAGES = [*STUDENT_FOLDERS, "shared_tasks", "grader", "tests", "benchmarks"]


# What students are given and do not write: references stand on it as their solutions do.
GIVEN = {"hw3.transformer", "final_project.interface"}
# What the judge of the load test has in common with them: the load generator, and how serve.toml is read.
LOAD_TEST = {f"final_project.{module}" for module in ("configuration", "load", "summary", "trace")}


def kit_imports(file: Path, given: frozenset[str] | set[str] = frozenset()) -> set[str]:
    """Return the kit's top-level packages that a file imports, modules of `given` left out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names - given} & set(PACKAGES)


def test_homeworks_import_only_shared_tasks() -> None:
    """A homework imports shared_tasks and itself, and nothing else of the kit."""
    for folder in STUDENT_FOLDERS:
        for file in (KIT / folder).rglob("*.py"):
            assert kit_imports(file) <= {"shared_tasks", folder}, file


def test_shared_tasks_stand_alone() -> None:
    """shared_tasks imports nothing else of the kit."""
    files = list((KIT / "shared_tasks").rglob("*.py"))
    assert files
    for file in files:
        assert kit_imports(file) <= {"shared_tasks"}, file


def test_the_grader_imports_no_homework() -> None:
    """The grader's own modules reach homeworks by the name in the assignment, and submissions through the sandbox."""
    for file in (KIT / "grader").rglob("*.py"):
        place = file.relative_to(KIT / "grader").parts[0]
        if place not in ("hidden", "examples"):
            given = {"reference": GIVEN, "serving": LOAD_TEST, "leaderboard": LOAD_TEST, "cli.py": LOAD_TEST}.get(
                place, set()
            )
            assert kit_imports(file, given) <= {"shared_tasks", "grader"}, file


@pytest.mark.parametrize("folder", [*STUDENT_FOLDERS, "shared_tasks", "grader", "tests", "benchmarks", "docs"])
def test_every_folder_of_the_map_exists(folder: str) -> None:
    """The map names the folder, and the folder is there with its purpose visible."""
    assert folder in (KIT / "docs" / "architecture.md").read_text()
    assert any((KIT / folder).iterdir())
