"""The figures and the experiments of homework 3, with the reference solutions in the place of the stubs."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

MODULES = ("costs", "benchmarking", "kv_cache")


@contextmanager
def on_the_references(name: str) -> Iterator[ModuleType]:
    """Yield a module of hw3 that was imported on the references, and take it away again."""
    names = [f"hw3.{module}" for module in MODULES]
    before = {own: sys.modules.pop(own, None) for own in [*names, "hw3.configurations", name]}
    for own in names:
        sys.modules[own] = importlib.import_module(f"grader.reference.{own}")
    yield importlib.import_module(name)
    for own, module in before.items():
        sys.modules.pop(own, None)
        if module is not None:
            sys.modules[own] = module


@pytest.fixture
def figures() -> Iterator[ModuleType]:
    with on_the_references("hw3.figures") as module:
        yield module


@pytest.fixture
def experiments(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """hw3.experiments with few and small settings."""
    with on_the_references("hw3.experiments") as module:
        settings = [module.Setting(1, 5, 3), module.Setting(2, 4, 2)]
        monkeypatch.setattr(module, "SWEEPS", dict.fromkeys(module.SWEEPS, settings))
        monkeypatch.setattr(module, "MATRIX", 16)
        monkeypatch.setattr(module, "models", lambda: {"course-small": lambda: module.load_transformer("course-small")})
        yield module


def test_figures_are_written(figures: ModuleType, tmp_path: Path) -> None:
    """One command writes every figure, on a white background of its own."""
    figures.main(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(figures.FIGURES)
    for file in tmp_path.iterdir():
        assert "fill: #ffffff" in file.read_text(), file.name


def test_labels_do_not_overlap(figures: ModuleType) -> None:
    """Neighbouring labels of an axis leave room between them."""
    for name, draw in figures.FIGURES.items():
        figure = draw()
        FigureCanvasAgg(figure).draw()
        for panel in figure.axes:
            for axis, low, high in ((panel.xaxis, "x0", "x1"), (panel.yaxis, "y0", "y1")):
                labels = [label for label in axis.get_ticklabels() if label.get_text()]
                boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: getattr(box, low))
                assert len(boxes) >= 2, name
                for first, second in pairwise(boxes):
                    assert getattr(first, high) < getattr(second, low), (name, panel.get_title())


def test_stubs_leave_figures_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is not implemented is named, and is no error."""
    stubs = importlib.import_module("hw3.figures")
    stubs.main(tmp_path)
    assert "not implemented yet, so left out: flops.svg, rooflines.svg, kv_cache.svg" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_experiments_measure_every_setting(experiments: ModuleType, tmp_path: Path) -> None:
    """There is a row for each setting, with what was measured and what the roofline says, and a plot."""
    experiments.main(tmp_path, rounds=1, threads=1)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [tuple(row["setting"]) for row in results["rows"]] == [(1, 5, 3), (2, 4, 2)] * 3
    for row in results["rows"]:
        assert 0 < row["ttft"] <= row["end_to_end"]
        assert row["predicted_tpot"] > 0
    assert (tmp_path / "table.md").read_text().count("| course-small |") == 1 + len(results["rows"])
    assert (tmp_path / "latency.svg").is_file()


def test_generation_is_cached_decoding(experiments: ModuleType) -> None:
    """Each row gives its model the prompt once, and then one new position a token."""
    model = experiments.load_transformer("course-small")
    given: list[tuple[int, ...]] = []

    class Watched:
        config = model.config

        def __call__(self, token_ids, positions, cache, logits_at):  # type: ignore[no-untyped-def]
            given.append((*token_ids.shape, int(positions[0, 0])))
            return model(token_ids, positions, cache, logits_at=logits_at)

    request = experiments.generate_once(Watched(), experiments.Setting(3, 6, 4), time.perf_counter)
    assert given == [(3, 6, 0), (3, 1, 6), (3, 1, 7), (3, 1, 8)]
    assert len(request.token_times) == 4


def test_experiments_name_what_is_missing(tmp_path: Path) -> None:
    """On the stubs the command ends with the name of the first function that it needs."""
    stubs = importlib.import_module("hw3.experiments")
    with pytest.raises(SystemExit, match="weight_bytes is not implemented yet"):
        stubs.main(tmp_path, rounds=1, threads=1)
