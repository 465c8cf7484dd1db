"""The sample cohort of homework 2, graded for real: honest mistakes cost what they are in, forgery earns nothing."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grader.assignment import load_assignment
from grader.cli import app
from grader.examples.cohort import STUDENTS, write_cohort

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cohorts")]  # two at once would share their time limits

# By hand: all points, less those of the problems that a student spoilt.
ALL = load_assignment("hw2").max_points
HONEST = {
    "ada": ALL,
    "grace": ALL,
    "hedy": ALL,
    "linus": 23.0,  # self-consistency
    # parts of logprob_scores and expected_utility; pass@k, extract_answer; transition_statistics but for refusals;
    # aggregate_rewards, and with it most of the beam search and all of the best-first search
    "margaret": ALL - 1.5 - 2.5 - 3 - 3 - 4 - 3 - 8.25 - 7,
    "edsger": ALL - 3.29 - 5.75,  # eval in the calculator; in a debate the first agent decides
    "ken": ALL - 32,  # all of tools
    "tony": ALL - 3,  # predicted_accuracy crashes
    "mallory": 10.0,  # debate is honest
}
SAYS = {
    "ken": "hw2/tools.py could not be imported: ModuleNotFoundError",
    "tony": "the process died: Accuracy after some rounds",
    "linus": "Not implemented yet: Generate and rerank",
}


def test_each_gets_what_its_honest_code_earns(tmp_path: Path) -> None:
    """Points are exact, and each is told in plain words what happened."""
    write_cohort("hw2", tmp_path / "submissions")
    arguments = ["grade", "hw2", str(tmp_path / "submissions"), "--out", str(tmp_path / "out"), "--json"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    rows = {row["name"]: row for row in json.loads(outcome.stdout)}
    assert {name: row["points"] for name, row in rows.items()} == pytest.approx(HONEST)
    assert set(HONEST) == {student.name for student in STUDENTS["hw2"]}
    for name, words in SAYS.items():
        assert words in " ".join(rows[name]["summary"]), name
