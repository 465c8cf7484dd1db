"""The experiments of homework 1, on your own functions: `python -m hw1.experiments --out runs/hw1`.

Writes `table.md`, `results.json` and plots. What you have not implemented yet is left out and named.
"""

import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers.utils import logging

from hw1.analysis import error_rates, temperature_curve
from hw1.beam_search import beam_search, greedy_search
from hw1.best_first import exact_search
from hw1.sampling import apply_temperature, generate, typical_filter
from hw1.scoring import conditional_logprobs
from shared_tasks.metrics.diversity import distinct_n
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.models.randomness import TorchRandomness
from shared_tasks.models.registry import load_model
from shared_tasks.models.transformers_model import TransformersModel
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.registry import TASKS
from shared_tasks.tasks.task import Output

Tokens = Sequence[int]
Decode = Callable[[TransformersModel, Sequence[Tokens], int, int], list[list[int]]]
"""(model, prompts, max_tokens, seed) -> a continuation of each prompt."""

ASKED = {"math": "cot", "multiple_choice": "cot", "open_ended": "plain"}
TEMPERATURES = (0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
MARKERS = "osD^vPX"  # of the settings, told apart without colours too
SHORT = 10  # tokens of an answer without reasoning


def _sampled(filters: list[Any]) -> Decode:
    def decode(model: TransformersModel, prompts: Sequence[Tokens], max_tokens: int, seed: int) -> list[list[int]]:
        return generate(model, prompts, max_tokens=max_tokens, rng=TorchRandomness(seed), filters=filters)

    return decode


def _searched(search: Callable[..., list[int]]) -> Decode:
    def decode(model: TransformersModel, prompts: Sequence[Tokens], max_tokens: int, seed: int) -> list[list[int]]:
        return [search(model, prompt, max_tokens=max_tokens) for prompt in prompts]

    return decode


def _beam(model: TransformersModel, prompt: Tokens, max_tokens: int, num_beams: int) -> list[int]:
    return beam_search(model, prompt, num_beams=num_beams, max_tokens=max_tokens)[0].tokens


SETTINGS: dict[str, Decode] = {
    "default: temperature 1": _sampled([]),
    "temperature 1.5": _sampled([lambda logits: apply_temperature(logits, 1.5)]),
    "temperature 0.25": _sampled([lambda logits: apply_temperature(logits, 0.25)]),
    "typical 0.9": _sampled([lambda logits: typical_filter(logits, 0.9)]),
    "greedy": _searched(greedy_search),
    "beam 3": _searched(functools.partial(_beam, num_beams=3)),
    "beam 25": _searched(functools.partial(_beam, num_beams=25)),
}


class Row(NamedTuple):
    """One setting on one task."""

    setting: str
    task: str
    score: float
    standard_error: float
    logprob: float  # mean of log P(output | prompt), in nats
    tokens: float  # mean length
    distinct_2: float  # over the outputs of all items


def decode_task(model: TransformersModel, name: str, setting: str, limit: int, split: str, seed: int) -> Row:
    """Ask the first `limit` items of a split, decode in one of the settings, and score the outputs."""
    task = TASKS[name]
    items = load(task, split, limit=limit)
    prompts = [model.encode_chat(task.questions(item, ASKED[name])[0]) for item in items]
    outputs = SETTINGS[setting](model, prompts, task.max_tokens, seed)
    texts = [model.decode(tokens) for tokens in outputs]
    scores = [task.score(item, [Output(text)]).score or 0.0 for item, text in zip(items, texts, strict=True)]
    return Row(
        setting=setting,
        task=name,
        score=sum(scores) / len(scores),
        standard_error=standard_error(scores),
        logprob=float(conditional_logprobs(model, prompts, outputs).mean()),
        tokens=sum(map(len, outputs)) / len(outputs),
        distinct_2=distinct_n(texts, 2),
    )


def search_and_model_errors(model: TransformersModel, limit: int, split: str) -> dict[str, dict[str, float]]:
    """Return the error rates of greedy search and beam widths 3 and 25 on answers to math without reasoning."""
    task = TASKS["math"]
    items = load(task, split, limit=limit)
    prompts = [model.encode_chat(task.questions(item, "direct")[0]) for item in items]
    gold = [[*model.encode(f"#### {task.gold(item)}"), model.eos_token_id] for item in items]
    best = [exact_search(model, prompt, max_tokens=SHORT)[0] for prompt in prompts]
    rates = {}
    for setting in ("greedy", "beam 3", "beam 25"):
        found = error_rates(model, prompts, SETTINGS[setting](model, prompts, SHORT, 0), gold, best)
        rates[setting] = {"search errors": found.search, "model errors": found.model}
    return rates


def temperatures(model: TransformersModel, samples: int, split: str) -> list[dict[str, float]]:
    """Return diversity and quality of solutions of one problem over temperature."""
    task = TASKS["math"]
    (item,) = load(task, split, limit=1)
    prompt = model.encode_chat(task.questions(item, ASKED["math"])[0])
    points = temperature_curve(
        model, prompt, TEMPERATURES, num_samples=samples, max_tokens=task.max_tokens, rng=TorchRandomness(0)
    )
    return [{"temperature": p.temperature, "diversity": p.diversity, "quality": p.quality} for p in points]


def write_table(rows: Sequence[Row], errors: dict[str, dict[str, float]], out: Path) -> None:
    """Write the rows, and the rates of errors, as Markdown."""
    lines = [
        "| task | setting | score | mean log P | tokens | distinct-2 |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.task} | {row.setting} | {row.score:.3f} ± {row.standard_error:.3f} | {row.logprob:.2f} | "
        f"{row.tokens:.1f} | {row.distinct_2:.3f} |"
        for row in rows
    ]
    if errors:
        lines += ["", "| search for short answers | search errors | model errors |", "| --- | ---: | ---: |"]
        lines += [f"| {name} | {r['search errors']:.2f} | {r['model errors']:.2f} |" for name, r in errors.items()]
    (out / "table.md").write_text("\n".join(lines) + "\n")


def plot(rows: Sequence[Row], curve: Sequence[dict[str, float]], out: Path) -> None:
    """Draw score against log-probability for each task, and diversity against quality over temperature."""
    names = list(dict.fromkeys(row.task for row in rows))
    settings = list(dict.fromkeys(row.setting for row in rows))
    if rows:
        figure = Figure(figsize=(4.5 * len(names), 4.5), layout="constrained")
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for row in rows:
            i = settings.index(row.setting)
            style = {"fmt": MARKERS[i % len(MARKERS)], "color": f"C{i}", "markersize": 7, "capsize": 3, "alpha": 0.8}
            panel = panels[names.index(row.task)]
            panel.errorbar(-row.logprob, row.score, row.standard_error, label=row.setting, **style)
        for name, panel in zip(names, panels, strict=True):
            panel.set(title=name, xscale="log", xlabel="mean $-$log P(output) in nats", ylim=(-0.05, 1.05))
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("score, with its standard error")
        named = {
            label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4)
        figure.savefig(out / "score_and_probability.svg")
    if curve:
        figure = Figure(figsize=(5, 4), layout="constrained")
        panel = figure.subplots()
        panel.plot([p["quality"] for p in curve], [p["diversity"] for p in curve], color="0.8", zorder=0)
        for p in curve:
            panel.plot(p["quality"], p["diversity"], "o", label=f"{p['temperature']:g}")
        panel.set(title="one problem, over temperature", xlabel="quality: mean log P(sample) in nats")
        panel.set(ylabel="diversity: share of different samples", ylim=(-0.05, 1.05))
        panel.grid(alpha=0.3)
        panel.legend(title="temperature")
        figure.savefig(out / "temperature.svg")


def main(
    out: Annotated[Path, typer.Option(help="Where table, results and plots go.")],
    model: Annotated[str, typer.Option(help="A course model, a local folder, or a name on the hub.")] = "course-base",
    limit: Annotated[int, typer.Option(min=2, help="Items of each task.")] = 30,
    split: Annotated[str, typer.Option(help="The split of the embedded sets.")] = "dev",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
) -> None:
    """Run the experiments of homework 1."""
    logging.disable_progress_bar()  # transformers shows one for every file of weights
    loaded = load_model(model)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    parts: list[tuple[str, Callable[[], Any]]] = [
        (f"{name}, {setting}", functools.partial(decode_task, loaded, name, setting, limit, split, seed))
        for name in ASKED
        for setting in SETTINGS
    ]
    parts.append(("errors", functools.partial(search_and_model_errors, loaded, min(limit, 25), split)))
    parts.append(("temperatures", functools.partial(temperatures, loaded, 32, split)))
    found: dict[str, Any] = {"errors": {}, "temperatures": []}
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)
    missing: list[str] = []
    with Progress(*columns) as progress:
        running = progress.add_task("", total=len(parts))
        for name, part in parts:
            progress.update(running, description=name)
            try:
                result = part()
            except NotImplementedError:
                missing.append(name)
            else:
                rows += [result] if isinstance(result, Row) else []
                found |= {} if isinstance(result, Row) else {name: result}
            progress.advance(running)
    write_table(rows, found["errors"], out)
    plot(rows, found["temperatures"], out)
    results = {"model": model, "limit": limit, "split": split, "seed": seed, "rows": [row._asdict() for row in rows]}
    (out / "results.json").write_text(json.dumps(results | found, indent=2, default=_finite) + "\n")
    print((out / "table.md").read_text())
    if missing:
        print(f"not implemented yet, so left out: {'; '.join(missing)}")
    print(f"plots and results are in {out}")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


if __name__ == "__main__":
    typer.run(main)
