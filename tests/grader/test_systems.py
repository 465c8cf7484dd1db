"""Systems of homework 2, run for real: good ones get scores, bad ones their reason, and nobody an answer."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from grader.cli import app
from grader.systems import TASKS, load_questions, read_answers

EXAMPLES = Path(__file__).parents[2] / "grader" / "examples" / "systems"
GOOD = ("greedy", "chain_of_thought", "self_consistency", "best_of_n", "mbr", "self_refine")
REASONS = {
    "over_budget": "raised TokenBudgetExceeded: 1800 of 1800 tokens are left, and a request could cost",
    "raises": "raised KeyError: 'no idea'",
    "too_few": "expected 6 answers, got 3",
    "numbers": "expected texts, got 6 answers of another type, at first int",
    "leaves": "its process ended itself with exit code 0",
    "snoops": "",
}
BUDGET = 300


def run(out: Path, *names: str, seconds: float = 60, more: tuple[str, ...] = ()) -> dict[str, Any]:
    folders = [str(EXAMPLES / name) for name in names]
    limits = ["--token-budget", str(BUDGET), "--limit", "2", "--seconds", str(seconds), "--model", "course-small"]
    outcome = CliRunner().invoke(app, ["run-systems", *folders, *limits, "--out", str(out), "--json", *more])
    assert outcome.exit_code == 0, outcome.output
    return {system["name"]: system for system in json.loads(outcome.stdout.splitlines()[-1])["systems"]}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("systems")


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    return run(out, *GOOD, *REASONS)


class TestReadAnswers:
    def test_partial_answers_are_kept(self) -> None:
        """Texts count where they stand; too few, too many and other types are told."""
        assert read_answers(["a", "b"], 2) == (["a", "b"], "")
        assert read_answers(["a"], 2) == (["a", None], "expected 2 answers, got 1")
        assert read_answers(["a", "b", "c"], 2) == (["a", "b"], "expected 2 answers, got 3")
        assert read_answers(["a", 3], 2)[0] == ["a", None]
        assert read_answers({"a": 1}, 2) == ([None, None], "expected a list of 2 texts, got dict")


class TestQuestions:
    @pytest.mark.parametrize("split", ["dev_test", "hidden"])
    def test_all_tasks_are_mixed_alike_every_time(self, split: str) -> None:
        """A limit holds for each task, and two runs ask in the same order."""
        questions = load_questions(split, 5)
        assert sorted(question.task.name for question in questions) == sorted(TASKS * 5)
        assert [question.prompt for question in questions] == [question.prompt for question in load_questions(split, 5)]
        assert len({question.task.name for question in questions[:5]}) > 1


@pytest.mark.slow
class TestRuns:
    def test_good_systems_get_scores(self, results: dict[str, Any]) -> None:
        """Each answers everything within its budget."""
        for name in GOOD:
            system = results[name]
            assert system["reasons"] == [], name
            assert set(system["tasks"]) == set(TASKS)
            assert all(task["questions"] == 2 and task["unanswered"] == 0 for task in system["tasks"].values())
            assert 0 < system["tokens_per_question"] <= BUDGET
        assert results["self_consistency"]["tokens_per_question"] > results["greedy"]["tokens_per_question"]

    @pytest.mark.parametrize("name", REASONS)
    def test_bad_systems_get_their_reason(self, results: dict[str, Any], name: str) -> None:
        """Each is told what went wrong, in words, and what it did not answer counts 0."""
        system = results[name]
        assert " ".join(system["reasons"]).startswith(REASONS[name])
        missing = sum(task["unanswered"] for task in system["tasks"].values())
        assert missing == {"too_few": 3, "snoops": 0}.get(name, 6)

    def test_a_system_finds_no_answers(self, results: dict[str, Any], out: Path) -> None:
        """Neither files of the judge, nor anything behind the engine, nor the network can be reached."""
        with sqlite3.connect(out / "systems.sqlite") as store:
            (text,) = store.execute("SELECT result FROM batch WHERE slug = 'snoops'").fetchone()
        assert json.loads(text)["answers"] == ["found: []"] * 6

    def test_again_runs_nothing_that_ran(self, results: dict[str, Any], out: Path) -> None:
        """The same command takes every call from the store, times and all; another budget runs anew."""
        assert run(out, "greedy", "raises") == {name: results[name] for name in ("greedy", "raises")}

    def test_a_run_can_be_repeated(self, results: dict[str, Any], tmp_path: Path) -> None:
        """A system that samples gets the same samples again, whatever runs beside it."""
        again = run(tmp_path, "self_consistency")["self_consistency"]
        assert again["tasks"] == results["self_consistency"]["tasks"]
        assert again["generated_tokens"] == results["self_consistency"]["generated_tokens"]

    def test_a_system_that_hangs_is_stopped(self, tmp_path: Path) -> None:
        """It gets its time and no more."""
        system = run(tmp_path, "hangs", seconds=0.2)["hangs"]
        assert system["reasons"][0].startswith("no answer within 1 s")
        assert system["accuracy"] == 0

    def test_pages_hold_no_question(self, results: dict[str, Any], tmp_path: Path) -> None:
        """A run on the hidden split writes scores, and neither a prompt nor an answer."""
        run(tmp_path, "greedy", more=("--split", "hidden"))
        prompts = [question.prompt for question in load_questions("hidden", 2)]
        for page in ("results.json", "index.html"):
            text = (tmp_path / page).read_text()
            assert "greedy" in text
            assert not [prompt for prompt in prompts if prompt in text]
