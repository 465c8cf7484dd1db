"""Measure what the course models show, as a table and plots: `python -m benchmarks.course_models --out DIR`.

Everything is measured on the embedded dev-test split, on items that no course model has seen. The table goes to
`table.md` and `table.json`, the plots to SVG files beside them.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import matplotlib
import torch
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shared_tasks.metrics.calibration import expected_calibration_error
from shared_tasks.metrics.choices import choice_probabilities, extract_choice, pick_by_loglikelihood
from shared_tasks.metrics.constraints import follows_instructions
from shared_tasks.metrics.diversity import distinct_n
from shared_tasks.metrics.numbers import extract_number, numbers_equal
from shared_tasks.metrics.samples import best_of_k, majority_at_k, majority_vote, pass_at_k
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.models.course.text import MIXES
from shared_tasks.models.course.training import ASSISTANT, END, USER
from shared_tasks.models.engine import Generation, Message, SamplingParams
from shared_tasks.models.folders import WEIGHTS
from shared_tasks.models.transformers_engine import TransformersEngine
from shared_tasks.models.transformers_model import TransformersModel
from shared_tasks.tasks.embedded import mathematics, multiple_choice
from shared_tasks.tasks.embedded.splits import DATA
from shared_tasks.tasks.prompts import LABELS, Method, math_prompt, multiple_choice_prompt

matplotlib.use("svg")
from matplotlib import pyplot as plt

MODELS = ("course-small", "course-base")
SAMPLES, TEMPERATURE = 16, 0.7
TEMPERATURES, SWEEP_SAMPLES = (0.3, 0.7, 1.0, 1.5), 8  # on half of the items
BEAMS = (1, 2, 4, 8)
KS = (1, 2, 4, 8, 16)
BINS = 10
TEMPLATES = mathematics.TEMPLATES.keys() | multiple_choice.TEMPLATES.keys()
MAX_TOKENS = 320
Item = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A figure of the table: what it is, of which model, its value and its standard error."""

    task: str
    figure: str
    model: str
    value: float
    error: float | None


class Measurement:
    """The models, the items, and the rows measured so far."""

    def __init__(self, weights: Path, limit: int, progress: Progress):
        """Load the models and `limit` items a task."""
        self.engines = {name: TransformersEngine(str(weights / name), name=name) for name in MODELS}
        self.parameters = {name: engine.model.num_parameters() for name, engine in self.engines.items()}
        self.language_model = TransformersModel(str(weights / "course-base"))  # for beams, token by token
        self.items = {task: _items(task, limit) for task in ("math", "multiple_choice", "open_ended")}
        self.rows: list[Row] = []
        self.progress = progress

    def add(
        self, task: str, figure: str, model: str, scores: Sequence[float], clusters: Sequence[int] | None = None
    ) -> float:
        """Add the mean of some scores, with its standard error, and return it.

        Raises ValueError for a figure that is there already: the table would show only one of the two.
        """
        if any((row.task, row.figure, row.model) == (task, figure, model) for row in self.rows):
            raise ValueError(f"the figure {figure!r} of {model} on {task} is measured twice")
        value = fmean(scores)
        self.rows.append(Row(task, figure, model, value, standard_error(scores, clusters)))
        return value

    def add_by_template(self, task: str, figure: str, model: str, scores: Sequence[float]) -> None:
        """Add the mean of the items of templates that the models were trained on, and of those that they were not."""
        trained = [item["template"] in TEMPLATES for item in self.items[task]]
        for name, kind in (("trained", True), ("held-out", False)):
            part = [score for score, seen in zip(scores, trained, strict=True) if seen == kind]
            self.add(task, f"{figure}, {name} templates", model, part)

    def generate(self, model: str, prompts: Sequence[str], what: str, **params: Any) -> list[Generation]:
        """Return what a model says to every prompt."""
        bar = self.progress.add_task(f"{model}: {what}", total=len(prompts))
        return self.engines[model].generate(
            [_chat(prompt) for prompt in prompts],
            SamplingParams(max_tokens=MAX_TOKENS, seed=0, **params),
            on_done=lambda *_: self.progress.advance(bar),
        )


def _chat(prompt: str) -> list[Message]:
    return [{"role": "user", "content": prompt}]


def _items(task: str, limit: int) -> list[Item]:
    lines = (DATA / task / "dev_test.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:limit]]


# --- Mathematical reasoning ---


def verified(text: str) -> float:
    """Return the share of a solution's equations that hold; -1 where it has none or no final answer.

    A verifier without a model: it does the arithmetic of each line again, and knows nothing of the question.
    """
    chains = re.findall(r"[\d+\-*/()]+(?:=[\d+\-*/()]+)+", text)
    if not chains or "####" not in text:
        return -1.0
    results = [[_value(part) for part in chain.split("=")] for chain in chains]
    holds = [len(set(values)) == 1 and None not in values for values in results]
    final = _value(text.rpartition("####")[2].strip())
    return fmean([*holds, final is not None and final == results[-1][-1]])


def _value(expression: str) -> Fraction | None:
    """Return the exact value of an expression of whole numbers; None for one that has none."""
    tokens = re.findall(r"\d+|[-+*/()]", expression)
    try:
        value, rest = _sum(tokens)
    except (IndexError, ValueError, ZeroDivisionError):
        return None
    return None if rest else value


def _sum(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, rest = _product(tokens)
    while rest and rest[0] in "+-":
        other, after = _product(rest[1:])
        value, rest = (value + other if rest[0] == "+" else value - other), after
    return value, rest


def _product(tokens: list[str]) -> tuple[Fraction, list[str]]:
    value, rest = _factor(tokens)
    while rest and rest[0] in "*/":
        other, after = _factor(rest[1:])
        value, rest = (value * other if rest[0] == "*" else value / other), after
    return value, rest


def _factor(tokens: list[str]) -> tuple[Fraction, list[str]]:
    if tokens[0] == "(":
        value, rest = _sum(tokens[1:])
        if rest[0] != ")":
            raise ValueError("unclosed parenthesis")
        return value, rest[1:]
    return Fraction(int(tokens[0])), tokens[1:]


def style(text: str) -> str:
    """Return which of the styles of reasoning a solution is written in."""
    if text.startswith("Let us"):
        return "careful"
    if text.startswith("Step"):
        return "equations"
    return "terse" if re.match(r"[\d(]", text) else "prose"


@dataclass(frozen=True)
class Sampled:
    """Samples of the math items: the answer of each, whether it is right, and scores to choose by."""

    answers: list[list[Fraction | None]]
    right: list[list[bool]]
    scores: dict[str, list[list[float]]]

    def at(self, k: int, how: str) -> list[float]:
        """Return the expected accuracy on each item with k samples, by a vote, by a score or by an oracle."""
        if how == "majority":
            return [majority_at_k(a, r, k) for a, r in zip(self.answers, self.right, strict=True)]
        if how == "oracle":
            return [pass_at_k(len(r), sum(r), k) for r in self.right]
        return [best_of_k(s, r, k) for s, r in zip(self.scores[how], self.right, strict=True)]


def _sampled(items: Sequence[Item], generations: Sequence[Generation]) -> Sampled:
    completions = [generation.completions for generation in generations]
    answers = [[extract_number(c.text) for c in samples] for samples in completions]
    right = [[numbers_equal(item["answer"], a) for a in row] for item, row in zip(items, answers, strict=True)]
    scores = {
        "sum log-probability": [[c.cumulative_logprob for c in samples] for samples in completions],
        "mean log-probability": [[c.cumulative_logprob / len(c.logprobs) for c in samples] for samples in completions],
        "verifier": [[verified(c.text) for c in samples] for samples in completions],
    }
    return Sampled(answers, right, scores)


def _first_texts(generations: Sequence[Generation]) -> list[str]:
    return [generation.completions[0].text for generation in generations]


def _numbers_right(items: Sequence[Item], texts: Sequence[str]) -> list[float]:
    return [float(numbers_equal(item["answer"], extract_number(t))) for item, t in zip(items, texts, strict=True)]


def measure_mathematics(measured: Measurement, out: Path) -> None:
    """Greedy and direct answers, votes and rerankers over samples; then temperatures, beams and drafts."""
    items = measured.items["math"]
    prompts = [math_prompt(item["question"], "cot") for item in items]
    sampled: dict[str, Sampled] = {}
    costs: dict[str, list[float]] = {}
    greedy: dict[str, float] = {}
    for model in MODELS:
        generations = measured.generate(model, prompts, "math, greedy", temperature=0.0)
        texts = _first_texts(generations)
        scores = _numbers_right(items, texts)
        greedy[model] = measured.add("math", "greedy", model, scores)
        measured.add_by_template("math", "greedy", model, scores)
        measured.add("math", "greedy: share of terse solutions", model, [float(style(t) == "terse") for t in texts])
        direct = [math_prompt(item["question"], "direct") for item in items]
        answers = _first_texts(measured.generate(model, direct, "math, direct", temperature=0.0))
        measured.add("math", "direct, without reasoning", model, _numbers_right(items, answers))
        generations = measured.generate(model, prompts, f"math, {SAMPLES} samples", temperature=TEMPERATURE, n=SAMPLES)
        sampled[model] = _sampled(items, generations)
        measured.add("math", f"one sample, T {TEMPERATURE}", model, sampled[model].at(1, "oracle"))
        for k in KS[1:]:
            measured.add("math", f"majority of {k}, T {TEMPERATURE}", model, sampled[model].at(k, "majority"))
        for how in ("sum log-probability", "mean log-probability", "verifier", "oracle"):
            measured.add("math", f"{how} of {SAMPLES}, T {TEMPERATURE}", model, sampled[model].at(SAMPLES, how))
        for name in [kind.__name__ for kind in MIXES["course"].solutions]:
            rows = [
                (float(right), i)
                for i, generation in enumerate(generations)
                for c, right in zip(generation.completions, sampled[model].right[i], strict=True)
                if style(c.text) == name
            ]
            if rows:
                measured.add("math", f"one sample, {name} style", model, [r for r, _ in rows], [i for _, i in rows])
        prompt_tokens = fmean(g.prompt_tokens for g in generations)
        tokens = fmean(len(c.token_ids) for g in generations for c in g.completions)
        costs[model] = [2 * measured.parameters[model] * (prompt_tokens + k * tokens) for k in KS]
    _plot_samples(sampled["course-base"], greedy["course-base"], out / "samples.svg")
    _plot_scaling(sampled, costs, greedy, out / "scaling.svg")
    _measure_temperatures(measured, out / "temperature.svg")
    _measure_beams(measured, out / "beams.svg")
    _measure_drafts(measured)


def _measure_temperatures(measured: Measurement, out: Path) -> None:
    """Accuracy of one sample against how different the samples of an item are, by temperature."""
    items = measured.items["math"][: len(measured.items["math"]) // 2]
    prompts = [math_prompt(item["question"], "cot") for item in items]
    lines: dict[str, list[float]] = {"one sample": [], f"majority of {SWEEP_SAMPLES}": [], "distinct 2-grams": []}
    for temperature in TEMPERATURES:
        generations = measured.generate(
            "course-base", prompts, f"math, T {temperature}", temperature=temperature, n=SWEEP_SAMPLES
        )
        sampled = _sampled(items, generations)
        figures = {
            "one sample": sampled.at(1, "oracle"),
            f"majority of {SWEEP_SAMPLES}": sampled.at(SWEEP_SAMPLES, "majority"),
            "distinct 2-grams": [distinct_n([c.text for c in g.completions], 2) for g in generations],
        }
        for name, scores in figures.items():
            lines[name].append(
                measured.add("math", f"half of the items, T {temperature:g}: {name}", "course-base", scores)
            )
    figure, axes = _axes("temperature", "share", "Temperature trades quality against diversity (course-base, math)")
    for name, values in lines.items():
        axes.plot(TEMPERATURES, values, marker="o", label=name)
    _save(figure, axes, out)


def beam_search(
    model: TransformersModel, prompts: Sequence[list[int]], width: int, done: Callable[[], None]
) -> list[tuple[float, list[int]]]:
    """Return the best finished continuation of each prompt with its log-probability, in nats.

    A prompt's search ends when none of its `width` open beams is likelier than its best finished one.
    """
    best: list[tuple[float, list[int]]] = []
    for prompt in prompts:
        beams: list[tuple[float, list[int]]] = [(0.0, [])]
        finished: list[tuple[float, list[int]]] = []
        for _ in range(MAX_TOKENS):
            logprobs = model.next_token_logprobs([prompt + tokens for _, tokens in beams])
            totals = logprobs + torch.tensor([score for score, _ in beams])[:, None]
            top = totals.flatten().topk(2 * width)
            grown = [
                (float(s), [*beams[i // model.vocab_size][1], i % model.vocab_size])
                for s, i in zip(top.values, top.indices.tolist(), strict=True)
            ]
            finished += [beam for beam in grown[:width] if beam[1][-1] == model.eos_token_id]
            beams = [beam for beam in grown if beam[1][-1] != model.eos_token_id][:width]
            if finished and max(finished)[0] >= beams[0][0]:
                break
        best.append(max(finished or beams))
        done()
    return best


def _measure_beams(measured: Measurement, out: Path) -> None:
    """Log-probability and accuracy of the best beam, by width."""
    items = measured.items["math"][: len(measured.items["math"]) // 2]
    model = measured.language_model
    prompts = [model.encode(f"{USER}{math_prompt(item['question'], 'cot')}{ASSISTANT}") for item in items]
    scores, accuracies = [], []
    for width in BEAMS:
        bar = measured.progress.add_task(f"course-base: math, beam {width}", total=len(items))
        found = beam_search(model, prompts, width, lambda bar=bar: measured.progress.advance(bar))  # type: ignore[misc]
        texts = [model.decode(tokens) for _, tokens in found]
        scores.append(
            measured.add(
                "math", f"half of the items, beam {width}: log-probability", "course-base", [s for s, _ in found]
            )
        )
        accuracies.append(
            measured.add(
                "math", f"half of the items, beam {width}: accuracy", "course-base", _numbers_right(items, texts)
            )
        )
        lengths = [float(len(tokens)) for _, tokens in found]
        measured.add("math", f"half of the items, beam {width}: tokens", "course-base", lengths)
    figure, axes = _axes("beam width", "mean log-probability, nats", "A wider beam (course-base, math)")
    axes.plot(BEAMS, scores, marker="o", label="log-probability")
    axes.set_xscale("log", base=2)
    right = axes.twinx()
    right.plot(BEAMS, accuracies, marker="s", color="C1", label="accuracy")
    right.set_ylabel("accuracy")
    right.legend(loc="lower right")
    _save(figure, axes, out)


@torch.inference_mode()
def _measure_drafts(measured: Measurement) -> None:
    """How often course-base would accept a token that course-small drafts, on texts that course-base samples.

    The chance is the sum over tokens of the smaller of the two probabilities (Leviathan et al., 2023,
    https://arxiv.org/abs/2211.17192, corollary 3.6).
    """
    draft, target = (measured.engines[name].model for name in MODELS)
    for task, prompts in (
        ("math", [math_prompt(item["question"], "cot") for item in measured.items["math"]]),
        ("open_ended", [item["prompt"] for item in measured.items["open_ended"]]),
    ):
        generations = measured.generate("course-base", prompts, f"{task}, texts for drafts", temperature=1.0)
        accepted, agree, clusters = [], [], []
        for i, (prompt, generation) in enumerate(zip(prompts, generations, strict=True)):
            tokens = generation.completions[0].token_ids
            context = measured.language_model.encode(f"{END}{USER}{prompt}{ASSISTANT}")
            ids = torch.tensor([context + tokens], device=target.device)
            p, q = (model(ids).logits[0, len(context) - 1 : -1].float().softmax(-1) for model in (target, draft))
            accepted += torch.minimum(p, q).sum(-1).tolist()
            agree += (p.argmax(-1) == q.argmax(-1)).float().tolist()
            clusters += [i] * len(tokens)
        measured.add(task, "draft acceptance, T 1", "small for base", accepted, clusters)
        measured.add(task, "draft acceptance, greedy", "small for base", agree, clusters)


# --- Multiple choice ---


def measure_multiple_choice(measured: Measurement, out: Path) -> None:
    """Accuracy with reasoning, by the likeliest option text and by the likeliest letter; calibration of each."""
    items = measured.items["multiple_choice"]
    measured.add("multiple_choice", "chance", "", [1 / len(item["choices"]) for item in items])
    curves: dict[str, list[tuple[float, float]]] = {}
    for model in MODELS:
        prompts = [multiple_choice_prompt(item["question"], item["choices"], "cot") for item in items]
        texts = _first_texts(measured.generate(model, prompts, "choices, greedy", temperature=0.0))
        picks = [extract_choice(text, item["choices"]) for text, item in zip(texts, items, strict=True)]
        right = [float(pick == item["answer"]) for pick, item in zip(picks, items, strict=True)]
        measured.add("multiple_choice", "greedy, with reasoning", model, right)
        measured.add_by_template("multiple_choice", "greedy, with reasoning", model, right)
        for subject in sorted({item["subject"] for item in items}):
            part = [r for r, item in zip(right, items, strict=True) if item["subject"] == subject]
            measured.add("multiple_choice", f"greedy, with reasoning: {subject}", model, part)
        generations = measured.generate(model, prompts, "choices, samples", temperature=TEMPERATURE, n=SWEEP_SAMPLES)
        votes = [
            [extract_choice(c.text, item["choices"]) for c in g.completions]
            for g, item in zip(generations, items, strict=True)
        ]
        flags = [[vote == item["answer"] for vote in row] for row, item in zip(votes, items, strict=True)]
        majority = [majority_at_k(v, f, SWEEP_SAMPLES) for v, f in zip(votes, flags, strict=True)]
        measured.add("multiple_choice", f"majority of {SWEEP_SAMPLES}, with reasoning", model, majority)
        winners = [majority_vote(row) for row in votes]
        shares = [row.count(winner) / len(row) for row, winner in zip(votes, winners, strict=True)]
        correct = [winner == item["answer"] for winner, item in zip(winners, items, strict=True)]
        _calibrate(measured, f"share of {SWEEP_SAMPLES} votes", model, shares, correct, curves)
        for method in ("direct", "letter"):
            confidences, hits = _option_scores(measured, model, method)
            measured.add("multiple_choice", METHODS[method], model, [float(hit) for hit in hits])
            _calibrate(measured, METHODS[method], model, confidences, hits, curves)
    figure, axes = _axes("confidence", "accuracy", "Calibration on multiple choice (course-base)")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, points in curves.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    _save(figure, axes, out / "calibration.svg")


METHODS: dict[Method, str] = {"direct": "likeliest option text", "letter": "likeliest letter"}


def _option_scores(measured: Measurement, model: str, method: Method) -> tuple[list[float], list[bool]]:
    """Return the probability of the likeliest option of each item, among its options, and whether it is right."""
    items = measured.items["multiple_choice"]
    contexts, continuations = [], []
    for item in items:
        options = item["choices"] if method == "direct" else LABELS[: len(item["choices"])]
        contexts += [_chat(multiple_choice_prompt(item["question"], item["choices"], method))] * len(options)
        continuations += list(options)
    bar = measured.progress.add_task(f"{model}: choices, {METHODS[method]}", total=len(contexts))
    scored = measured.engines[model].loglikelihood(
        contexts, continuations, on_done=lambda *_: measured.progress.advance(bar)
    )
    remaining = iter(scored)
    confidences, right = [], []
    for item in items:
        logprobs = [next(remaining).total for _ in item["choices"]]
        confidences.append(max(choice_probabilities(logprobs)))
        right.append(pick_by_loglikelihood(logprobs, item["choices"]) == item["answer"])
    return confidences, right


def _calibrate(
    measured: Measurement,
    name: str,
    model: str,
    confidences: Sequence[float],
    right: Sequence[bool],
    curves: dict[str, list[tuple[float, float]]],
) -> None:
    measured.add("multiple_choice", f"mean confidence, {name}", model, confidences)
    error = expected_calibration_error(confidences, right, BINS)
    measured.rows.append(Row("multiple_choice", f"calibration error (ECE), {name}", model, error, None))
    if model == "course-base":
        order = sorted(range(len(right)), key=lambda i: confidences[i])
        parts = [order[len(order) * b // BINS : len(order) * (b + 1) // BINS] for b in range(BINS)]
        curves[name] = [(fmean(confidences[i] for i in part), fmean(right[i] for i in part)) for part in parts]


# --- Open-ended generation ---


def measure_open_ended(measured: Measurement, out: Path) -> None:
    """Share of requests with every constraint met: greedy, by temperature, and best of n under the checker."""
    items = measured.items["open_ended"]
    prompts = [item["prompt"] for item in items]
    figure, axes = _axes("samples", "all constraints met", "Best of n under the checker (open-ended)")
    for model in MODELS:
        texts = _first_texts(measured.generate(model, prompts, "stories, greedy", temperature=0.0))
        met = [_met(item, text) for item, text in zip(items, texts, strict=True)]
        measured.add("open_ended", "greedy: all constraints met", model, [float(all(flags)) for flags in met])
        measured.add("open_ended", "greedy: constraints met", model, [fmean(flags) for flags in met])
        generations = measured.generate(model, prompts, "stories, samples", temperature=1.0, n=SAMPLES)
        counts = [
            sum(all(_met(item, c.text)) for c in g.completions) for item, g in zip(items, generations, strict=True)
        ]
        values = [
            measured.add(
                "open_ended",
                f"best of {k}, T 1: all constraints met",
                model,
                [pass_at_k(SAMPLES, c, k) for c in counts],
            )
            for k in KS
        ]
        axes.plot(KS, values, marker="o", label=model)
    axes.set_xscale("log", base=2)
    _save(figure, axes, out / "best_of_n.svg")
    half = items[: len(items) // 2]
    for temperature in TEMPERATURES:
        generations = measured.generate(
            "course-base", prompts[: len(half)], f"stories, T {temperature}", temperature=temperature, n=SWEEP_SAMPLES
        )
        met_shares = [
            fmean(all(_met(i, c.text)) for c in g.completions) for i, g in zip(half, generations, strict=True)
        ]
        distinct = [distinct_n([c.text for c in g.completions], 2) for g in generations]
        of_half = f"half of the items, T {temperature:g}"
        measured.add("open_ended", f"{of_half}: all constraints met", "course-base", met_shares)
        measured.add("open_ended", f"{of_half}: distinct 2-grams", "course-base", distinct)


def _met(item: Item, text: str) -> list[bool]:
    return follows_instructions(text, item["instruction_id_list"], item["kwargs"])


# --- Table and plots ---


def _plot_samples(sampled: Sampled, greedy: float, out: Path) -> None:
    figure, axes = _axes("samples", "accuracy", f"Choosing among samples, T {TEMPERATURE} (course-base, math)")
    for how in ("oracle", "verifier", "majority", "mean log-probability", "sum log-probability"):
        axes.plot(KS, [fmean(sampled.at(k, how)) for k in KS], marker="o", label=how)
    axes.axhline(greedy, color="grey", linestyle="--", label="greedy")
    axes.set_xscale("log", base=2)
    _save(figure, axes, out)


def _plot_scaling(
    sampled: dict[str, Sampled], costs: dict[str, list[float]], greedy: dict[str, float], out: Path
) -> None:
    figure, axes = _axes("floating-point operations an item", "accuracy", "Samples against model size (math)")
    for i, (model, samples) in enumerate(sampled.items()):
        for how, line in (("majority", "-"), ("verifier", ":")):
            values = [fmean(samples.at(k, how)) for k in KS]
            axes.plot(costs[model], values, line, marker="o", color=f"C{i}", label=f"{model}, {how}")
        axes.axhline(greedy[model], color=f"C{i}", linestyle="--", linewidth=0.8, label=f"{model}, greedy")
    axes.set_xscale("log")
    _save(figure, axes, out)


def _axes(x: str, y: str, title: str) -> tuple[Any, Any]:
    figure, axes = plt.subplots(figsize=(6, 4))
    axes.set(xlabel=x, ylabel=y, title=title)
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, axes: Any, file: Path) -> None:
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def table(rows: Sequence[Row]) -> str:
    """Return the rows in Markdown: a line a figure, a column a model."""
    columns = [*MODELS, "small for base", ""]
    lines = ["| task | figure | course-small | course-base |", "| --- | --- | ---: | ---: |"]
    figures = dict.fromkeys((row.task, row.figure) for row in rows)
    for task, figure in figures:
        cells = {row.model: row for row in rows if (row.task, row.figure) == (task, figure)}
        shown = [_cell(cells[name]) if name in cells else "" for name in columns]
        small, base = shown[0], shown[1] or shown[2] or shown[3]
        lines.append(f"| {task} | {figure} | {small} | {base} |")
    return "\n".join(lines) + "\n"


def _cell(row: Row) -> str:
    percent = not row.figure.endswith((": log-probability", ": tokens"))
    scale, digits = (100, 1) if percent else (1, 2)
    error = "" if row.error is None else f" ± {scale * row.error:.{digits}f}"
    return f"{scale * row.value:.{digits}f}{error}{' %' if percent else ''}"


def main(
    out: Annotated[Path, typer.Option(help="The folder for the table and the plots.")] = Path("course_models"),
    weights: Annotated[Path, typer.Option(help="The folder with the models.")] = WEIGHTS,
    limit: Annotated[int, typer.Option(help="Items a task.")] = 200,
) -> None:
    """Measure the course models on the embedded dev-test split."""
    out.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        measured = Measurement(weights, limit, progress)
        for measure in (measure_mathematics, measure_multiple_choice, measure_open_ended):
            measure(measured, out)
            (out / "table.json").write_text(json.dumps([asdict(row) for row in measured.rows], indent=1) + "\n")
            (out / "table.md").write_text(table(measured.rows))
    print(table(measured.rows))


if __name__ == "__main__":
    typer.run(main)
