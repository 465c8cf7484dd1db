"""A second correct solution of `analysis`: plain Python, token by token, in float32 where the model gives that."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness


@dataclass
class ErrorRates:
    """Shares of inputs."""

    search: float
    model: float


@dataclass
class TemperaturePoint:
    """One temperature."""

    temperature: float
    diversity: float
    quality: float


def _score(model: LanguageModel, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    contexts = [[*prompt, *tokens[:t]] for t in range(len(tokens))]
    rows = model.next_token_logprobs(contexts) if contexts else []
    return sum(float(row[token]) for row, token in zip(rows, tokens, strict=True))


def error_rates(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    decoded: Sequence[Sequence[int]],
    gold: Sequence[Sequence[int]],
    best: Sequence[Sequence[int]],
) -> ErrorRates:
    """Go through the prompts one by one."""
    if len({len(prompts), len(decoded), len(gold), len(best)}) > 1 or len(prompts) == 0:
        raise ValueError("expected as many of each")
    search = wrong_model = 0
    for i, prompt in enumerate(prompts):
        top = _score(model, prompt, best[i])
        search += top - 1e-6 > _score(model, prompt, decoded[i])
        wrong_model += top - 1e-6 > _score(model, prompt, gold[i])
    return ErrorRates(search / len(prompts), wrong_model / len(prompts))


def distinct_n(samples: Sequence[Sequence[int]], n: int) -> float:
    """Count with a Counter and shifted copies."""
    if n <= 0:
        raise ValueError("n is at least 1")
    counts = Counter(
        ngram for sample in samples for ngram in zip(*(sample[shift:] for shift in range(n)), strict=False)
    )
    return len(counts) / counts.total() if counts else 0.0


def temperature_curve(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Add the log-probabilities up while drawing."""
    if min(temperatures, default=1.0) <= 0 or min(num_samples, max_tokens) < 1:
        raise ValueError("out of range")
    points = []
    for temperature in temperatures:
        samples = [()] * num_samples
        scores = [0.0] * num_samples
        for _ in range(max_tokens):
            open_ones = [i for i in range(num_samples) if samples[i][-1:] != (model.eos_token_id,)]
            if not open_ones:
                break
            rows = model.next_token_logprobs([[*prompt, *samples[i]] for i in open_ones])
            weights = (rows - rows.max(-1, keepdim=True).values).div(temperature).exp()
            tokens = rng.categorical(weights / weights.sum(-1, keepdim=True))
            for i, row, token in zip(open_ones, rows, tokens.tolist(), strict=True):
                samples[i] = (*samples[i], token)
                scores[i] += float(row[token])
        points.append(TemperaturePoint(temperature, len(set(samples)) / num_samples, sum(scores) / num_samples))
    return points


def group_perplexities(model: LanguageModel, groups: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float]:
    """Score sequence by sequence."""
    result = {}
    for name in groups:
        length = sum(len(sequence) for sequence in groups[name])
        if not length:
            raise ValueError(f"no token in {name}")
        mean = sum(_score(model, (), sequence) for sequence in groups[name]) / length
        result[name] = math.exp(-mean)
    return result
