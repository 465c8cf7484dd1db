"""The `shared-tasks` command: what it prints, what it keeps, and how it ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from shared_tasks.cli import app
from shared_tasks.models import registry
from tests.shared_tasks.evaluation.scripted import ScriptedEngine

ROOT = Path(__file__).parents[2]
ROWS = [{"question": f"{i}+{i}", "answer": f"#### {2 * i}"} for i in range(1, 11)]
CHOICES = [
    {"question": f"Which is {i}?", "choices": [f"{i}", "none of them"], "answer": 0, "subject": "ab"[i % 2]}
    for i in range(4)
]


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[ScriptedEngine]:
    """Engines that the command loads, one after the other; each says that a sum is six."""
    made: list[ScriptedEngine] = []
    waiting: list[ScriptedEngine] = []

    def load_engine(model: str, *arguments: Any) -> ScriptedEngine:
        made.append(waiting.pop(0) if waiting else ScriptedEngine(lambda text, sample: "#### 6", model=model))
        return made[-1]

    monkeypatch.setattr(registry, "load_engine", load_engine)
    return waiting


class TestList:
    def test_all_tasks_are_listed(self) -> None:
        """The thirteen tasks stand in the list, with their data, splits and prompts."""
        listed = json.loads(call("list", "--json").stdout)
        names = ("math multiple_choice open_ended gsm8k math500 svamp mmlu mmlu_pro arc openbookqa infobench ifeval "
                 "mt_bench").split()  # fmt: skip
        assert [task["name"] for task in listed["tasks"]] == names
        assert {"greedy", "sample", "majority", "best_of_n", "loglikelihood"} == set(listed["methods"])
        text = call("list").stdout
        assert all(name in text for name in names)


class TestEvaluate:
    def test_metrics_samples_and_costs(self, tmp_path: Path, engines: list[ScriptedEngine]) -> None:
        """One of ten sums is six: accuracy 0.1, its standard error, the samples as JSON lines, tokens and latency."""
        data = written(tmp_path / "test.jsonl", ROWS)
        out = tmp_path / "run"
        result = call("evaluate", "gsm8k", "--data", data, "--out", out, "--samples", tmp_path / "s.jsonl", "--json")
        assert result.exit_code == 0, result.output
        run = json.loads(result.stdout)
        assert run["metrics"]["accuracy"] == pytest.approx(0.1)
        assert run["metrics"]["accuracy_stderr"] == pytest.approx((0.1 * 0.9 / 10) ** 0.5)
        assert (run["items"], run["done"], run["latency"], run["tokens"]["generated"]) == (10, 10, 0.5, 20)
        samples = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
        assert [sample["score"] for sample in samples] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        assert {"prompt", "outputs", "parsed", "score", "tokens"} <= set(samples[0])
        assert (out / "samples.jsonl").read_text() == (tmp_path / "s.jsonl").read_text()
        assert "10 of 10: gsm8k 10.0 ± 9.5 %" in result.stderr

    def test_options_are_kept_with_their_loglikelihoods(self, tmp_path: Path, engines: list[ScriptedEngine]) -> None:
        """A multiple choice sample has the log-likelihood of each choice; subjects have means of their own."""
        engines.append(ScriptedEngine(likelihood=lambda context, option: -float(len(option))))
        data = written(tmp_path / "test.jsonl", CHOICES)
        result = call("evaluate", "mmlu", "--data", data, "--out", tmp_path / "run", "--json")
        run = json.loads(result.stdout)
        assert (run["metrics"]["accuracy"], run["groups"]["a"], run["groups"]["b"]) == (1, 1, 1)
        (first, *_) = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
        assert [choice["logprob"] for choice in json.loads(first)["choices"]] == [-1, -12]

    def test_an_interrupt_leaves_everything_resumable(self, tmp_path: Path, engines: list[ScriptedEngine]) -> None:
        """Ctrl-C ends with 130 and says what is kept; the same command goes on and asks only for the rest."""
        data = written(tmp_path / "test.jsonl", ROWS)
        command = ("evaluate", "gsm8k", "--data", data, "--out", tmp_path / "run")
        engines += [ScriptedEngine(lambda text, sample: "#### 6", stop_after=4)]
        result = call(*command)
        assert result.exit_code == 130
        assert f"4 of 10 items are kept in {tmp_path / 'run'}; the same command goes on" in result.stderr
        assert len((tmp_path / "run" / "samples.jsonl").read_text().splitlines()) == 4
        second = ScriptedEngine(lambda text, sample: "#### 6")
        engines += [second]
        assert call(*command).exit_code == 0
        assert len(second.prompts) == 6

    def test_a_failing_engine_leaves_what_was_computed(self, tmp_path: Path, engines: list[ScriptedEngine]) -> None:
        """An engine that fails halfway ends the command with one line; what was answered is kept."""

        def reply(text: str, sample: int) -> str:
            if text.startswith("3"):
                raise ValueError("the server\nis gone")
            return "#### 6"

        engines += [ScriptedEngine(reply)]
        result = call("evaluate", "gsm8k", "--data", written(tmp_path / "t.jsonl", ROWS), "--out", tmp_path / "run")
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "error: the server is gone")
        assert len((tmp_path / "run" / "answers.jsonl").read_text().splitlines()) == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["gsm9k"], "no task 'gsm9k'"),
            (["gsm8k", "--method", "beam"], "gsm8k has no method 'beam'"),
            (["gsm8k", "--split", "dev"], "gsm8k has no split 'dev'"),
            (["gsm8k", "--data", "none.jsonl"], "none.jsonl"),
            (["math500", "--shots", "2"], "math500"),
        ],
    )
    def test_bad_input_ends_in_one_line(
        self, engines: list[ScriptedEngine], arguments: list[str], message: str
    ) -> None:
        """A wrong name, method, split or path ends the command with one clear line and exit code 2."""
        result = call("evaluate", *arguments)
        assert result.exit_code == 2
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
        assert message in result.stderr

    def test_a_bad_line_is_named(self, tmp_path: Path, engines: list[ScriptedEngine]) -> None:
        """A row without an answer is refused with file and line, before anything runs."""
        data = written(tmp_path / "test.jsonl", [*ROWS[:2], {"question": "Q"}])
        result = call("evaluate", "gsm8k", "--data", data, "--out", tmp_path / "run")
        assert result.exit_code == 2
        assert result.stderr == f"error: {data}, line 3: the field answer is missing\n"

    def test_few_shot_examples_come_from_the_train_split(self, tmp_path: Path, engines: list[ScriptedEngine]) -> None:
        """Examples of a folder's train split stand in the prompt; those of the evaluated split are refused."""
        written(tmp_path / "train.jsonl", [{"question": "7+7", "answer": "7+7=14\n#### 14"}])
        written(tmp_path / "test.jsonl", ROWS)
        engine = ScriptedEngine(lambda text, sample: "#### 6")
        engines += [engine]
        command = ["evaluate", "gsm8k", "--data", tmp_path, "--shots", 1, "--out", tmp_path / "run"]
        assert call(*command).exit_code == 0
        assert [turn["content"] for turn in engine.prompts[0]][1] == "7+7=14\n#### 14"
        refused = call(*command, "--shots-split", "test")
        assert (refused.exit_code, "train or dev split" in refused.stderr) == (2, True)

    def test_a_model_without_a_chat_template_gets_plain_text(
        self, tmp_path: Path, engines: list[ScriptedEngine]
    ) -> None:
        """Prompts are chats where the model has a template, and plain text where it has none."""
        engine = ScriptedEngine(lambda text, sample: "#### 6", has_chat_template=False)
        engines += [engine]
        call("evaluate", "gsm8k", "--data", written(tmp_path / "t.jsonl", ROWS[:1]), "--out", tmp_path / "run")
        assert isinstance(engine.prompts[0], str)
        assert engine.prompts[0].endswith("\nAnswer:")


class TestScore:
    def test_outputs_are_scored(self, tmp_path: Path) -> None:
        """Lines with the data set's fields and an output give metrics, and a row each."""
        rows = [ROWS[0] | {"output": "So it is\n#### 2"}, ROWS[1] | {"output": "no idea"}, ROWS[2] | {"output": "5"}]
        result = call("score", "gsm8k", written(tmp_path / "p.jsonl", rows), "--json")
        scored = json.loads(result.stdout)
        assert scored["metrics"]["accuracy"] == pytest.approx(1 / 3)
        assert [(row["index"], row["parsed"], row["score"]) for row in scored["rows"]] == [
            (0, "2", 1),
            (1, None, 0),
            (2, "5", 0),
        ]

    def test_several_outputs_are_samples(self, tmp_path: Path) -> None:
        """Three of four samples right: accuracy 3/4, pass@2 = 1, maj@4 right; no answer never wins."""
        rows = [ROWS[0] | {"outputs": ["#### 2", "#### 2.0", "none", "#### 2"]}]
        scored = json.loads(call("score", "gsm8k", written(tmp_path / "p.jsonl", rows), "--json").stdout)
        assert scored["rows"][0]["parsed"] == ["2", "2", None, "2"]
        assert scored["rows"][0]["score"] == 0.75
        assert (scored["metrics"]["pass@2"], scored["metrics"]["maj@4"]) == (1, 1)

    def test_reasoning_is_no_answer(self, tmp_path: Path) -> None:
        """What stands between reasoning tags is stripped, and an unclosed one leaves nothing."""
        rows = [ROWS[0] | {"output": "<think>9</think>#### 2"}, ROWS[0] | {"output": "<think>#### 2"}]
        scored = json.loads(call("score", "gsm8k", written(tmp_path / "p.jsonl", rows), "--json").stdout)
        assert [row["parsed"] for row in scored["rows"]] == ["2", None]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (
                b'{"question": "Q", "answer": "#### 1"}\n',
                "line 1: expected either the field output or the field outputs",
            ),
            (
                b'{"question": "Q", "answer": "#### 1", "output": 5}\n',
                "line 1: field output: expected a text, got a number",
            ),
            (b'{"question": "Q", "answer": "#### 1", "outputs": []}\n', "line 1: field outputs: expected at least one"),
            (b'{"question": "Q", "output": "1"}\n', "line 1: the field answer is missing"),
            (b'{"question": "Q", "answer": "#### 1", "output": "1"}\nnot json\n', "line 2: not JSON"),
            (b'{"question": "Q", "answer": "#### 1", "output": "\xe9"}\n', "line 1: expected UTF-8"),
            (b"", "line 1: expected at least one example"),
        ],
    )
    def test_bad_lines_are_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        """A bad line ends the command with one line that names file and line, and exit code 2."""
        path = tmp_path / "predictions.jsonl"
        path.write_bytes(content)
        result = call("score", "gsm8k", path, "--json")
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {path}, {message}")
        assert result.stderr.count("\n") == 1


class TestCompareAndView:
    @pytest.fixture
    def runs(self, tmp_path: Path, engines: list[ScriptedEngine]) -> tuple[Path, Path]:
        """A run in which one of ten sums is right, and one in which all are."""
        data = written(tmp_path / "test.jsonl", ROWS)
        engines += [
            ScriptedEngine(lambda text, sample: "#### 6"),
            ScriptedEngine(lambda text, sample: f"#### {2 * int(text.split('+')[0])}"),
        ]
        for name in ("first", "second"):
            call("evaluate", "gsm8k", "--data", data, "--out", tmp_path / name)
        return tmp_path / "first", tmp_path / "second"

    def test_compare_says_how_sure_it_is(self, runs: tuple[Path, Path]) -> None:
        """Nine more right of ten: + 0.9, and p = 2 / 2^9."""
        result = json.loads(call("compare", *runs, "--json").stdout)
        assert (result["first"], result["second"], result["only_second"]) == (0.1, 1.0, 9)
        assert result["paired"]["p_value"] == pytest.approx(2 / 2**9)
        assert "difference +0.9000" in call("compare", *runs).stdout

    def test_view_writes_a_page(self, runs: tuple[Path, Path]) -> None:
        """The page stands in the run's folder, and its path is printed."""
        result = call("view", runs[0])
        assert result.stdout.strip() == str(runs[0] / "report.html")
        assert "10.0 %" in (runs[0] / "report.html").read_text()

    def test_a_folder_without_a_run_is_refused(self, tmp_path: Path, runs: tuple[Path, Path]) -> None:
        """A folder that holds no run ends the command with one line."""
        for command in (("view", tmp_path), ("compare", tmp_path, runs[0])):
            result = call(*command)
            assert result.exit_code == 2
            assert "expected the folder of a run" in result.stderr


@pytest.mark.slow
class TestWithAModel:
    def test_a_killed_run_goes_on(self, tmp_path: Path) -> None:
        """A process that is interrupted, or killed outright, leaves answers that the next one does not ask for."""
        command = [
            *(sys.executable, "-m", "shared_tasks.cli", "evaluate", "math", "--model", "course-small", "--limit", "60"),
            *("--max-tokens", "40", "--out", str(tmp_path / "run"), "--json"),
        ]
        kept = []
        for number in (signal.SIGINT, signal.SIGKILL):
            with subprocess.Popen(
                command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as process:
                assert process.stderr is not None
                next(line for line in process.stderr if " of 60:" in line)
                process.send_signal(number)
                process.communicate()
            assert process.returncode in (130, -number, 0)
            kept.append(len((tmp_path / "run" / "answers.jsonl").read_bytes().splitlines()))
        assert 0 < kept[0] <= kept[1]
        last = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        run = json.loads(last.stdout)
        assert (run["done"], run["usage"]["requests"] <= 60 - kept[0]) == (60, True)
        whole = subprocess.run(
            [*command[:-3], "--out", str(tmp_path / "whole"), "--json"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(whole.stdout)["metrics"] == run["metrics"]
