"""The `grader` command: what it says and how it ends."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from grader import cli
from grader.grading import Graded, grade_cohort
from grader.sandbox import isolation

STUB = Path(__file__).parents[2] / "hw1"


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three submissions that are quick to grade, since all is stubs."""
    for name in ("ada", "grace", "linus"):
        folder = tmp_path / "cohort" / name / "hw1"
        folder.mkdir(parents=True)
        (folder / "scoring.py").write_bytes((STUB / "scoring.py").read_bytes())
    return tmp_path / "cohort"


def grader(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hw9", "."], "no assignment 'hw9'; there are: final_project, hw1"),
        (["hw1", "missing"], "missing does not exist"),
        (["hw1", "cohort", "--received", "missing.csv"], "missing.csv"),
        (["hw1", "cohort", "--received", "bad.csv"], "bad.csv:3: expected name and an ISO 8601 time"),
    ],
)
def test_unusable_input_is_one_line_and_exit_2(
    cohort: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    """What cannot be used is said in one line, and nothing is written."""
    monkeypatch.chdir(cohort.parent)
    Path("bad.csv").write_text("name,received\nada,2026-10-01T10:00:00+00:00\ngrace,yesterday\n")
    outcome = grader("grade", *arguments, "--out", "out")
    assert outcome.exit_code == 2
    assert words in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert not Path("out").exists()


def test_without_a_sandbox_nothing_runs(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that cannot isolate grades nothing."""

    def missing() -> str:
        raise isolation.SandboxUnavailable("bubblewrap is missing")

    monkeypatch.setattr(isolation, "check", missing)
    outcome = grader("grade", "hw1", cohort, "--out", cohort.parent / "out")
    assert (outcome.exit_code, "bubblewrap is missing" in outcome.stderr) == (2, True)


def test_interrupted_and_started_again(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption keeps what is graded; the same command goes on with the rest."""

    def interrupted(*arguments: Any) -> Iterator[Graded]:
        yield next(grade_cohort(*arguments))
        raise KeyboardInterrupt

    graded: list[str] = []

    def watched(*arguments: Any) -> Iterator[Graded]:
        for one in grade_cohort(*arguments):
            graded.append(one.submission.name)
            yield one

    out = cohort.parent / "out"
    monkeypatch.setattr(cli, "grade_cohort", interrupted)
    first = grader("grade", "hw1", cohort, "--out", out, "--jobs", 1)
    assert (first.exit_code, "interrupted after 1 of 3" in first.stderr) == (130, True)
    (kept,) = [path.name for path in (out / "students").iterdir()]
    monkeypatch.setattr(cli, "grade_cohort", watched)
    second = grader("grade", "hw1", cohort, "--out", out, "--json")
    assert second.exit_code == 0
    assert graded[0] == kept  # what the store has comes first
    assert [row["points"] for row in json.loads(second.stdout)] == [0.0, 0.0, 0.0]


def test_doctor_names_every_part() -> None:
    """The table has a row for each part, and here nothing that is needed is missing."""
    outcome = grader("doctor", "--json")
    assert [row["part"] for row in json.loads(outcome.stdout)] == ["Python", "torch", "sandbox", "GPU", "vLLM", "disk"]
    assert outcome.exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["grade", "final_project", "x", "--out", "y"],
        ["prepare", "final_project"],
        ["gradescope", "final_project", "--out", "y"],
    ],
)
def test_what_no_test_grades_is_refused(words: list[str]) -> None:
    """The final project has no tests: commands about tests name the command that grades it."""
    outcome = CliRunner().invoke(cli.app, words)
    assert outcome.exit_code == 2
    assert "grader serve-test" in " ".join(outcome.output.split())
