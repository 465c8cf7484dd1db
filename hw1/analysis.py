"""Analysis: whether a bad text is the fault of the search or of the model, and what temperature does to text.

Logarithms are natural. No function changes its arguments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    raise NotImplementedError


def distinct_n(samples: Sequence[Sequence[int]], n: int) -> float:
    """Return the number of different n-grams over the number of n-grams, of all samples together.

    An n-gram lies within one sample. Without any n-gram the result is 0. Raises ValueError unless n >= 1.
    Paper: Li et al., 2016, https://arxiv.org/abs/1510.03055.
    """
    raise NotImplementedError


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
    raise NotImplementedError


def group_perplexities(model: LanguageModel, groups: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, float]:
    """Return the perplexity of each group of sequences, such as generated and reference text.

    It is exp of minus the mean log-probability (nats) per token over all tokens of the group, with the empty context
    before each sequence. Raises ValueError when a group has no token.
    """
    raise NotImplementedError
