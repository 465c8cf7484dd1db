"""One self-contained HTML page about a run: metrics, calibration, lengths, and every sample."""

import base64
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shared_tasks.evaluation.evaluate import Choice, Sample
from shared_tasks.evaluation.run import Run
from shared_tasks.metrics.calibration import Bin, reliability_bins
from shared_tasks.models.engine import Prompt, SamplingParams
from shared_tasks.tasks.multiple_choice import CALIBRATION_BINS, softmax
from shared_tasks.tasks.prompts import LABELS
from shared_tasks.tasks.task import Metric

MOST_SAMPLES = 3_000  # on one page; the wrong ones come first
LONGEST_TEXT = 8_000  # characters of one prompt or output
MOST_BARS = 30  # of the histogram of lengths
STATES = {  # word and mark
    "wrong": ("Wrong", "✗"),
    "part": ("Partly right", "~"),
    "right": ("Right", "✓"),
    "unscored": ("Not scored", "·"),
}

ANSI_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
INVISIBLE = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: "␡"}
    | dict.fromkeys(range(0x80, 0xA0), "�")
    | {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}  # turn text around
)


class Bar(NamedTuple):
    """A bar of the histogram of lengths: outputs from `low` to `high` tokens."""

    low: int
    high: int
    right: int
    others: int

    @property
    def height(self) -> int:
        """All of them."""
        return self.right + self.others


class Curve(NamedTuple):
    """A metric over the number of samples k."""

    name: str
    points: list[tuple[int, Metric]]
    label_at: float
    """Height of its name on the chart, where it does not cover another one."""


def page(run: Run, samples: Sequence[Sample]) -> str:
    """Return the page."""
    ordered = sorted(samples, key=lambda sample: (2.0 if sample.score is None else sample.score, sample.index))
    states = {sample.index: _state(sample) for sample in samples}
    return _environment.get_template("run.html.jinja").render(
        run=run,
        samples=ordered[:MOST_SAMPLES],
        headline=run.metrics.get(run.headline or ""),
        states=states,
        counts=Counter(states.values()),
        groups=sorted({sample.group for sample in samples if sample.group}),
        bins=_bins(samples),
        lengths=_lengths(samples),
        curves=_curves(run.metrics),
    )


def _state(sample: Sample) -> str:
    if sample.score is None:
        return "unscored"
    return "right" if sample.score >= 1 else "part" if sample.score > 0 else "wrong"


def _bins(samples: Sequence[Sample]) -> list[Bin]:
    details = [sample.details for sample in samples if "confidence" in sample.details]
    if not details:
        return []
    confidences, correct = [one["confidence"] for one in details], [one["confident_and_right"] for one in details]
    return reliability_bins(confidences, correct, min(CALIBRATION_BINS, len(details)))


def _lengths(samples: Sequence[Sample]) -> list[Bar]:
    """Count outputs by their length, the right ones apart."""
    outputs = [
        (tokens, bool(sample.correct[place : place + 1] == [True]))
        for sample in samples
        for place, tokens in enumerate(sample.output_tokens)
    ]
    if not outputs:
        return []
    shortest, longest = min(tokens for tokens, _ in outputs), max(tokens for tokens, _ in outputs)
    width = max(1, math.ceil((longest - shortest + 1) / MOST_BARS))
    counts = Counter(((tokens - shortest) // width, right) for tokens, right in outputs)
    return [
        Bar(shortest + i * width, shortest + (i + 1) * width - 1, counts[i, True], counts[i, False])
        for i in range((longest - shortest) // width + 1)
    ]


def _curves(metrics: dict[str, Metric]) -> list[Curve]:
    """Return what became of more samples: pass@k, maj@k and the others, over k."""
    curves: dict[str, list[tuple[int, Metric]]] = {}
    for name, metric in metrics.items():
        kind, at, k = name.partition("@")
        if at:
            curves.setdefault(kind, []).append((int(k), metric))
    heights: dict[str, float] = {}
    for kind, points in sorted(curves.items(), key=lambda curve: -curve[1][-1][1].value):
        below = max((height + 13 for height in heights.values()), default=-math.inf)
        heights[kind] = max(below, 200 * (1 - points[-1][1].value) + 4)
    one = next(iter(metrics.values()), None)  # the mean over single samples comes first
    return [Curve(kind, [(1, one), *points], heights[kind]) for kind, points in curves.items()] if one else []


# Words and numbers


def visible_text(text: str) -> str:
    """Return text that is safe to show: no terminal colours, control characters made visible, and not endless."""
    cut = len(text) - LONGEST_TEXT
    text = ANSI_ESCAPE.sub("", text[:LONGEST_TEXT].replace("\r\n", "\n")).translate(INVISIBLE)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return f"{text}\n… and {cut:,} more characters" if cut > 0 else text


def _finalized(value: Any) -> Any:
    """Clean every string on its way into the page; markup was cleaned when it was made."""
    return visible_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _plain(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _value(metric: Metric) -> str:
    return f"{100 * metric.value:.1f} %" if metric.share else f"{metric.value:,.2f}"


def _error(metric: Metric) -> str:
    error = metric.standard_error or 0.0
    return f"{100 * error:.1f}" if metric.share else f"{error:.2f}"


def _verdict(sample: Sample) -> str:
    """Say in a few words what came and what was right."""
    if len(sample.correct) > 1:
        return f"{sum(sample.correct)} of {len(sample.correct)} right"
    if sample.score is None:
        return ""
    if not sample.gold:
        return f"{sample.score:.2f}".rstrip("0").rstrip(".")
    given = next(iter(sample.parsed), None)
    if given is None:
        return f"no answer, right is {_short(sample.gold)}"
    return _short(given) if sample.score >= 1 else f"{_short(given)}, right is {_short(sample.gold)}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def _turns(prompt: Prompt) -> list[tuple[str, str]]:
    if isinstance(prompt, str):
        return [("prompt", prompt)]
    return [(message["role"], message["content"]) for message in prompt]


def _options(sample: Sample) -> list[tuple[Choice, float, str]]:
    """Return each option with its probability among the options and its letter."""
    probabilities = softmax([choice.logprob for choice in sample.choices])
    return list(zip(sample.choices, probabilities, LABELS, strict=False))


def _changed(params: SamplingParams) -> list[tuple[str, Any]]:
    """Return the parameters that are not the usual ones, and those that always matter."""
    usual = SamplingParams()
    return [
        (name, getattr(params, name))
        for name in params.__struct_fields__
        if name in ("temperature", "max_tokens") or getattr(params, name) != getattr(usual, name)
    ]


def _new_environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("shared_tasks.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": _plain,
        "value": _value,
        "error": _error,
        "verdict": _verdict,
        "turns": _turns,
        "options": _options,
        "changed": _changed,
        "as_json": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    }
    for kind, name in (("style", "style.css"), ("script", "filter.js")):
        source = (Path(__file__).parent / "templates" / name).read_text("utf-8")
        environment.globals[kind] = Markup(source)
        environment.globals[f"{kind}_hash"] = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    environment.globals["states_in_words"] = STATES
    return environment


_environment = _new_environment()
