"""The experiments of homework 2, on your own functions: `python -m hw2.experiments --out runs/hw2`.

Writes `table.md`, `results.json` and plots. What you have not implemented yet is left out and named; a run that was
stopped goes on where it was.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from matplotlib.figure import Figure
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers.utils import logging

from hw2.budget import majority_at_k, pass_at_k
from hw2.methods import refine
from hw2.refinement import predicted_accuracy, transition_statistics
from shared_tasks.evaluation.answers import Answers
from shared_tasks.evaluation.evaluate import Sample, evaluate
from shared_tasks.evaluation.methods import Question
from shared_tasks.evaluation.plan import make_plan
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.models.engine import Engine, SamplingParams
from shared_tasks.models.registry import load_engine
from shared_tasks.models.transformers_engine import TransformersEngine
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.mathematical_reasoning import Problem
from shared_tasks.tasks.registry import TASKS
from shared_tasks.tasks.task import prompt

MODELS = ("course-small", "course-base")
MAX_TOKENS = 128
SAMPLES = 16
SWEEPS = {  # method -> the values of n
    "self_consistency": (1, 2, 4, 8, 16),
    "best_of_n_mean": (1, 4, 16),
    "best_of_n_verifier": (1, 4, 16),
    "mbr_chrf": (1, 4, 16),
    "self_refine": (1, 2),
    "beam_of_steps": (1, 2, 4),
    "best_first": (8, 16),
}


class Row(NamedTuple):
    """One method of one model with one n."""

    model: str
    method: str
    n: int
    accuracy: float
    standard_error: float
    tokens: float  # a question, prompts and generated


def run_method(engine: Engine, model: str, items: Sequence[Problem], name: str, n: int, out: Path) -> Row:
    """Run a method on problems, every question through a meter."""
    scores = _samples(engine, items, f"hw2.methods:{name}", n, out / "answers" / f"{model}-{name}-{n}.jsonl")
    values = [sample.score or 0.0 for sample in scores]
    tokens = sum(sample.tokens.prompt + sample.tokens.generated for sample in scores) / len(scores)
    return Row(model, name, n, sum(values) / len(values), standard_error(values), tokens)


def _samples(engine: Engine, items: Sequence[Problem], method: str, n: int, path: Path) -> list[Sample]:
    plan = make_plan(TASKS["math"], method, "cot", n=n, max_tokens=MAX_TOKENS, seed=0)
    with Answers(path) as answers:
        return evaluate(TASKS["math"], items, engine, plan, answers, lambda sample: None)


def curves(engine: Engine, model: str, items: Sequence[Problem], out: Path) -> list[dict[str, Any]]:
    """Return pass@k and maj@k of samples, over k."""
    samples = _samples(engine, items, "sample", SAMPLES, out / "answers" / f"{model}-sample.jsonl")
    points = []
    for k in range(1, SAMPLES + 1):
        passed = [pass_at_k(SAMPLES, sum(sample.correct), k) for sample in samples]
        voted = [majority_at_k(sample.parsed, _right(sample), k) for sample in samples]
        means = {"pass@k": sum(passed) / len(passed), "maj@k": sum(voted) / len(voted)}
        points.append({"model": model, "k": k} | means)
    return points


def _right(sample: Sample) -> str:
    """Return the right answer as samples write it, or one that none of them gives."""
    given = zip(sample.parsed, sample.correct, strict=True)
    return next((answer for answer, right in given if right and answer is not None), "none of them")


def transitions(engine: TransformersEngine, model: str, items: Sequence[Problem], rounds: int) -> dict[str, Any]:
    """Return what a round of self-refinement does to right and wrong answers."""
    task = TASKS["math"]
    questions = []
    for item in items:
        asked = prompt([], task.questions(item, "cot")[0], chat=True)
        questions.append(Question(asked, partial(task.parse, item), engine.tokenizer.render(asked)))
    params = SamplingParams(n=rounds, temperature=0.7, max_tokens=MAX_TOKENS, seed=0)
    trajectories = [
        [task.gold(item) == task.parse(item, answer) for answer in refinement.answers]
        for item, refinement in zip(items, refine(engine, questions, params), strict=True)
    ]
    found = transition_statistics(trajectories)
    drafts = sum(trajectory[0] for trajectory in trajectories) / len(trajectories)
    after = [sum(trajectory[min(t, len(trajectory) - 1)] for trajectory in trajectories) for t in range(rounds + 1)]
    predicted = None
    if found.stays_correct is not None and found.becomes_correct is not None:
        predicted = predicted_accuracy(drafts, found.stays_correct, found.becomes_correct, rounds)
    return {
        "model": model,
        "stays correct": found.stays_correct,
        "becomes correct": found.becomes_correct,
        "accuracy": [count / len(trajectories) for count in after],
        "predicted": predicted,
    }


def write_table(rows: Sequence[Row], found: dict[str, list[Any]], out: Path) -> None:
    """Write everything as Markdown."""
    lines = ["| model | method | n | accuracy | tokens a question |", "| --- | --- | ---: | ---: | ---: |"]
    lines += [
        f"| {r.model} | {r.method} | {r.n} | {100 * r.accuracy:.1f} ± {100 * r.standard_error:.1f} % | {r.tokens:.0f} |"
        for r in rows
    ]
    if found["curves"]:
        lines += ["", "| model | k | pass@k | maj@k |", "| --- | ---: | ---: | ---: |"]
        lines += [
            f"| {p['model']} | {p['k']} | {100 * p['pass@k']:.1f} % | {100 * p['maj@k']:.1f} % |"
            for p in found["curves"]
            if p["k"] in (1, 2, 4, 8, 16)
        ]
    if found["transitions"]:
        lines += [
            "",
            "| self-refine | P(correct next, given correct) | P(correct next, given wrong) | accuracy by round |",
        ]
        lines += ["| --- | ---: | ---: | --- |"]
        for p in found["transitions"]:
            shares = " | ".join(
                "–" if p[key] is None else f"{p[key]:.2f}" for key in ("stays correct", "becomes correct")
            )
            lines.append(f"| {p['model']} | {shares} | {', '.join(f'{100 * a:.1f} %' for a in p['accuracy'])} |")
    (out / "table.md").write_text("\n".join(lines) + "\n")


def plot(rows: Sequence[Row], points: Sequence[dict[str, Any]], out: Path) -> None:
    """Draw accuracy against tokens for every method, and pass@k and maj@k over k."""
    if rows:
        figure = Figure(figsize=(12, 4.5), layout="constrained")
        panels = figure.subplots(1, len(MODELS), sharey=True)
        colours = {name: f"C{i}" for i, name in enumerate(SWEEPS)}
        for model, panel in zip(MODELS, panels, strict=True):
            for name in SWEEPS:
                line = [row for row in rows if (row.model, row.method) == (model, name)]
                if line:
                    xs, ys = [row.tokens for row in line], [row.accuracy for row in line]
                    panel.plot(xs, ys, "o-", color=colours[name], label=name)
            panel.set(title=model, xscale="log", xlabel="tokens a question", ylabel="accuracy", ylim=(0, 1))
        panels[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(out / "accuracy_and_tokens.svg")
    if points:
        figure = Figure(figsize=(5.5, 4), layout="constrained")
        panel = figure.subplots()
        for model, colour in zip(MODELS, ("C0", "C1"), strict=True):
            over_k = [point for point in points if point["model"] == model]
            for name, style in (("pass@k", "-"), ("maj@k", "--")):
                panel.plot(
                    [p["k"] for p in over_k], [p[name] for p in over_k], style, color=colour, label=f"{model}, {name}"
                )
        panel.set(xscale="log", xticks=[1, 2, 4, 8, 16], xlabel="samples k", ylabel="accuracy", ylim=(0, 1))
        panel.set_xticklabels(["1", "2", "4", "8", "16"])
        panel.minorticks_off()
        panel.legend(fontsize=8)
        figure.savefig(out / "samples.svg")


def main(
    out: Annotated[Path, typer.Option(help="Where table, results and plots go.")],
    limit: Annotated[int, typer.Option(min=2, help="Problems.")] = 40,
    split: Annotated[str, typer.Option(help="The split of the embedded set.")] = "dev",
) -> None:
    """Run the experiments of homework 2 on both course models."""
    logging.disable_progress_bar()  # transformers shows one for every file of weights
    out.mkdir(parents=True, exist_ok=True)
    items = load(TASKS["math"], split, limit=limit)
    parts: list[tuple[str, str, Callable[[], Any]]] = []
    for model in MODELS:
        engine = load_engine(model)
        assert isinstance(engine, TransformersEngine)
        parts += [
            (f"{model}, {name}, n = {n}", "rows", partial(run_method, engine, model, items, name, n, out))
            for name, ns in SWEEPS.items()
            for n in ns
        ]
        parts.append((f"{model}, pass@k", "curves", partial(curves, engine, model, items, out)))
        parts.append((f"{model}, transitions", "transitions", partial(transitions, engine, model, items, 2)))
    found: dict[str, list[Any]] = {"rows": [], "curves": [], "transitions": []}
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    missing: list[str] = []
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times) as progress:
        running = progress.add_task("", total=len(parts))
        for name, kind, part in parts:
            progress.update(running, description=name)
            try:
                result = part()
            except (NotImplementedError, ValueError) as error:
                if "not implemented" not in str(error) and not isinstance(error, NotImplementedError):
                    raise
                missing.append(name)
            else:
                found[kind] += result if isinstance(result, list) else [result]
            progress.advance(running)
    write_table(found["rows"], found, out)
    plot(found["rows"], found["curves"], out)
    results = {"limit": limit, "split": split, **found, "rows": [row._asdict() for row in found["rows"]]}
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print((out / "table.md").read_text())
    if missing:
        print(f"not implemented yet, so left out: {'; '.join(missing)}")
    print(f"plots and results are in {out}")


if __name__ == "__main__":
    typer.run(main)
