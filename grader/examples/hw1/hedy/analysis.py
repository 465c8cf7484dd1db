"""Analysis: whether a bad text is the fault of the search or of the model, and what temperature does to text.

Logarithms are natural. No function changes its arguments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness


@dataclass
class ErrorRates:
    """Shares of inputs, from 0 to 1; an input may count in both."""

    search: float
    model: float


def error_rates(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    decoded: Sequence[Sequence[int]],
    gold: Sequence[Sequence[int]],
    best: Sequence[Sequence[int]],
) -> ErrorRates:
    """Return how often the search failed and how often the model did.

    For each prompt x there is what a decoder found, a gold continuation, and the most probable continuation of all
    (from exact search). A search error: log P(best | x) exceeds log P(decoded | x). A model error: log P(best | x)
    exceeds log P(gold | x). Exceeds means by more than 1e-6 nats. A continuation may have probability zero. Raises
    ValueError unless there is a prompt and as many of each kind of continuation as prompts.

    Paper: Stahlberg and Byrne, 2019, https://arxiv.org/abs/1908.10090.
    """
    n = len(prompts)
    if n == 0 or not len(decoded) == len(gold) == len(best) == n:
        raise ValueError(f"expected a prompt, and as many continuations of each kind, got {n} prompts")
    found, right, possible = (_logprobs(model, prompts, kind) for kind in (decoded, gold, best))
    worse = [[p > other + 1e-6 for p, other in zip(possible, others, strict=True)] for others in (found, right)]
    return ErrorRates(search=sum(worse[0]) / n, model=sum(worse[1]) / n)


def distinct_n(samples: Sequence[Sequence[int]], n: int) -> float:
    """Return the number of different n-grams over the number of n-grams, of all samples together.

    An n-gram lies within one sample. Without any n-gram the result is 0. Raises ValueError unless n >= 1.
    Paper: Li et al., 2016, https://arxiv.org/abs/1510.03055.
    """
    if n < 1:
        raise ValueError(f"expected n of at least 1, got {n}")
    ngrams = [tuple(sample[i : i + n]) for sample in samples for i in range(len(sample) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


@dataclass
class TemperaturePoint:
    """Diversity and quality of the samples drawn at one temperature."""

    temperature: float
    diversity: float
    """Different samples over samples."""
    quality: float
    """Mean over samples of log P(sample | prompt) under the model itself, at temperature 1, in nats."""


def temperature_curve(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Draw `num_samples` continuations of the prompt at each temperature, in the order given, and measure them.

    A step is one call of `rng.categorical` for all samples that have not ended, with the softmax of log-probabilities /
    temperature. A sample ends with the end token, which it keeps, or at `max_tokens` tokens. Raises ValueError unless
    all temperatures are > 0, num_samples >= 1 and max_tokens >= 1.
    """
    if num_samples < 1 or max_tokens < 1 or not all(temperature > 0 for temperature in temperatures):
        raise ValueError(f"cannot draw {num_samples} samples of {max_tokens} tokens at {list(temperatures)}")
    points = []
    for temperature in temperatures:
        samples: list[list[int]] = [[] for _ in range(num_samples)]
        for _ in range(max_tokens):
            running = [sample for sample in samples if not sample or sample[-1] != model.eos_token_id]
            if not running:
                break
            logprobs = model.next_token_logprobs([[*prompt, *sample] for sample in running])
            drawn = rng.categorical((logprobs / temperature).softmax(-1)).tolist()
            for sample, token in zip(running, drawn, strict=True):
                sample.append(token)
        diversity = len({tuple(sample) for sample in samples}) / num_samples
        quality = sum(_logprobs(model, [prompt] * num_samples, samples)) / num_samples
        points.append(TemperaturePoint(temperature, diversity, quality))
    return points


def group_perplexities(model: LanguageModel, groups: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float]:
    """Return the perplexity of each group of sequences, such as generated and reference text.

    It is exp of minus the mean log-probability (nats) per token over all tokens of the group, with the empty context
    before each sequence. Raises ValueError when a group has no token.
    """
    perplexities = {}
    for name, sequences in groups.items():
        num_tokens = sum(map(len, sequences))
        if num_tokens == 0:
            raise ValueError(f"expected at least one token in the group {name!r}")
        mean = sum(_logprobs(model, [[]] * len(sequences), sequences)) / num_tokens
        perplexities[name] = float(torch.tensor(-mean, dtype=torch.float64).exp())
    return perplexities


def _logprobs(
    model: LanguageModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[float]:
    """Return log P(continuation | prompt) of each pair."""
    return [float(terms.double().sum()) for terms in model.continuation_logprobs(prompts, continuations)]
