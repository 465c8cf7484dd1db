"""A second correct solution of hw1.analysis, structured differently: one text at a time, in plain Python."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness


@dataclass
class ErrorRates:
    """Shares of prompts."""

    search: float
    model: float


@dataclass
class TemperaturePoint:
    """Measured at one temperature."""

    temperature: float
    diversity: float
    quality: float


def error_rates(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    decoded: Sequence[Sequence[int]],
    gold: Sequence[Sequence[int]],
    best: Sequence[Sequence[int]],
) -> ErrorRates:
    """Count prompt by prompt."""
    if len(prompts) == 0 or {len(decoded), len(gold), len(best)} != {len(prompts)}:
        raise ValueError("as many decoded, gold and best continuations as prompts, please")
    search = wrong = 0
    for x, found, wanted, most in zip(prompts, decoded, gold, best, strict=True):
        limit = _score(model, x, most) - 1e-6
        search += _score(model, x, found) < limit
        wrong += _score(model, x, wanted) < limit
    return ErrorRates(search / len(prompts), wrong / len(prompts))


def distinct_n(samples: Sequence[Sequence[int]], n: int) -> float:
    """Count with a dictionary."""
    if n <= 0:
        raise ValueError(f"no {n}-grams")
    counts: Counter[tuple[int, ...]] = Counter()
    for sample in samples:
        counts.update(zip(*(sample[i:] for i in range(n)), strict=False))
    return float(Fraction(len(counts), counts.total())) if counts else 0.0


def temperature_curve(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Sum the score while drawing."""
    if num_samples <= 0 or max_tokens <= 0 or any(t <= 0 for t in temperatures):
        raise ValueError("everything must be positive")
    curve = []
    for t in temperatures:
        rows, scores = [tuple(prompt)] * num_samples, [0.0] * num_samples
        running = list(range(num_samples))
        while running and len(rows[running[0]]) < len(prompt) + max_tokens:
            logprobs = model.next_token_logprobs([rows[i] for i in running])
            tokens = rng.categorical((logprobs / t).softmax(-1)).tolist()
            for i, row, token in zip(running, logprobs.tolist(), tokens, strict=True):
                rows[i] += (token,)
                scores[i] += row[token]
            running = [i for i, token in zip(running, tokens, strict=True) if token != model.eos_token_id]
        curve.append(TemperaturePoint(t, len(set(rows)) / num_samples, math.fsum(scores) / num_samples))
    return curve


def group_perplexities(model: LanguageModel, groups: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float]:
    """Add up sequence by sequence."""
    sizes = {name: sum(len(sequence) for sequence in group) for name, group in groups.items()}
    if 0 in sizes.values():
        raise ValueError("an empty group")
    means = {name: sum(_score(model, [], y) for y in group) / sizes[name] for name, group in groups.items()}
    return {name: math.exp(-mean) if mean > -math.inf else math.inf for name, mean in means.items()}


def _score(model: LanguageModel, x: Sequence[int], y: Sequence[int]) -> float:
    context, total = list(x), 0.0
    for token in y:
        total += float(model.next_token_logprobs([context])[0][token])
        context.append(token)
    return total
