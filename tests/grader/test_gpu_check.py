"""The check on a GPU: it says where there is none, and reports what passed and what did not."""

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from grader.cli import app
from grader.gpu_check import Part, check, gpu, main, parts, report, run
from grader.sandbox.isolation import KIT

NOW = datetime(2026, 9, 1, 10, 30, tzinfo=UTC)
GOOD, BAD = Part("Good", ["-c", "print('3 passed')"]), Part("Bad", ["-c", "print('oh no'); exit(3)"])


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """One line says that there is none, the exit status is not 0, and nothing is written."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: there is no GPU that torch can use here: nothing was checked\n"
    assert not (tmp_path / "out").exists()
    with pytest.raises(RuntimeError, match="no GPU"):
        gpu()


def test_a_report(tmp_path: Path) -> None:
    """Every part runs, also after one that failed; the dated report has outcomes, commands and output."""
    assert not check("Some GPU, 80 GiB", [GOOD, BAD, GOOD], tmp_path, NOW)
    text = (tmp_path / "gpu-2026-09-01-1030.md").read_text()
    assert text.startswith("# GPU check of 2026-09-01 10:30\n\nSome GPU, 80 GiB; torch ")
    assert text.count("| Good | passed |") == 2
    assert "| Bad | FAILED with 3 |" in text
    assert "oh no" in text
    assert check("Some GPU", [GOOD], tmp_path, NOW)


def test_long_output_is_cut() -> None:
    """Of a part's output the end is kept."""
    outcome = run(Part("Long", ["-c", "for i in range(500): print('line', i)"]))
    text = report("Some GPU", [outcome], NOW)
    assert "line 499" in text
    assert "line 4\n" not in text


def test_parts_are_there(tmp_path: Path) -> None:
    """What the check runs exists: test files, modules, and the options of the load test."""
    for part in parts(tmp_path):
        _, module, *words = part.words
        assert importlib.util.find_spec(module), module
        for word in words:
            assert not word.startswith("tests/") or (KIT / word).exists(), word
    outcome = CliRunner().invoke(app, ["serve-test", "--help"], env={"COLUMNS": "200"})
    assert "--ceiling" in outcome.stdout
