"""Scoring: how probable a sequence is, how uncertain a model is, and whether its confidence can be trusted.

Logarithms are natural. No function changes its arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel


def sequence_logprobs(model: LanguageModel, sequences: Sequence[Sequence[int]]) -> Float[Tensor, "batch"]:
    """Return log P(x) in nats of each sequence x, the sum of log P(x_t | x_<t) over all of its tokens.

    Exactly the tokens given are scored, the end token too where a sequence contains one, and tokens after it. The
    empty sequence has log-probability zero, an impossible one -inf. Sequences may differ in length.
    """
    return conditional_logprobs(model, [[]] * len(sequences), sequences)


def conditional_logprobs(
    model: LanguageModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> Float[Tensor, "batch"]:
    """Return log P(y | x) in nats of each continuation y after its prompt x.

    The prompt itself is not scored: it may be empty, and it may be one that the model gives probability zero. Raises
    ValueError when there are not as many continuations as prompts.
    """
    if len(prompts) != len(continuations):
        raise ValueError(f"expected a continuation for each of {len(prompts)} prompts, got {len(continuations)}")
    terms = model.continuation_logprobs(prompts, continuations)
    return torch.tensor([row.double().sum().item() for row in terms], dtype=torch.float64)


def perplexity(model: LanguageModel, sequences: Sequence[Sequence[int]]) -> float:
    """Return the perplexity of a corpus: exp of minus the mean log-probability (nats) per token, over all tokens.

    Every token weighs the same, whichever sequence it is in. A token of probability zero makes it infinite. Raises
    ValueError when there is no token at all.
    """
    num_tokens = sum(map(len, sequences))
    if num_tokens == 0:
        raise ValueError("expected at least one token in the corpus")
    return (-sequence_logprobs(model, sequences).sum() / num_tokens).exp().item()


def entropy(logprobs: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """Return the entropy in nats of each distribution given by its log-probabilities; 0 log 0 counts as 0."""
    possible = logprobs > -torch.inf
    return -torch.where(possible, logprobs.exp() * logprobs, 0.0).sum(-1)


def kl_divergence(
    p_logprobs: Float[Tensor, "*batch vocab"], q_logprobs: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """Return KL(p || q) in nats of each pair of distributions given by their log-probabilities.

    Where p is 0 the term is 0, whatever q is; where q is 0 and p is not, the divergence is infinite.
    """
    terms = p_logprobs.exp() * (p_logprobs - q_logprobs)
    terms = torch.where(q_logprobs == -torch.inf, torch.inf, terms)
    return torch.where(p_logprobs == -torch.inf, 0.0, terms).sum(-1)


def expected_calibration_error(confidences: Float[Tensor, "n"], correct: Bool[Tensor, "n"], num_bins: int) -> float:
    """Return the expected calibration error over bins of equal mass.

    Predictions are sorted by confidence, highest first, and cut into `num_bins` consecutive bins whose sizes differ
    by at most one, the larger bins first; the order of equal confidences is left open. The error is the mean over
    predictions of their bin's |accuracy - mean confidence|. Raises ValueError unless 1 <= num_bins <= n.

    Paper: Nguyen and O'Connor, 2015, https://arxiv.org/abs/1508.05154.
    """
    n = len(confidences)
    if not 1 <= num_bins <= n:
        raise ValueError(f"expected from 1 to {n} bins, got {num_bins}")
    order = confidences.argsort(descending=True)
    gaps = (correct.double() - confidences.double())[order]
    return sum(abs(part.sum().item()) for part in gaps.tensor_split(num_bins)) / n  # the larger parts come first


def macro_calibration_error(confidences: Float[Tensor, "n"], correct: Bool[Tensor, "n"]) -> float:
    """Return MacroCE: the mean of two instance-level errors, each averaged over its own class.

    Over the correct predictions the error is 1 - confidence; over the wrong ones it is the confidence. Raises
    ValueError unless there is at least one prediction of each class.

    Paper: Si et al., 2022, https://arxiv.org/abs/2205.12507.
    """
    right = correct.bool()
    if right.all() or not right.any():
        raise ValueError("expected at least one correct and one wrong prediction")
    confidences = confidences.double()
    return ((1 - confidences[right]).mean() + confidences[~right].mean()).item() / 2


def brier_score(confidences: Float[Tensor, "n"], correct: Bool[Tensor, "n"]) -> float:
    """Return the mean squared difference between the confidence and the outcome (1 if correct, else 0).

    Raises ValueError when there is no prediction. Paper: Brier, 1950.
    """
    if len(confidences) == 0:
        raise ValueError("expected at least one prediction")
    return (confidences.double() - correct.double()).square().mean().item()


@dataclass
class Ranking:
    """Samples by probability, each group from its most to its least probable member."""

    highest: list[list[int]]
    middle: list[list[int]]
    lowest: list[list[int]]


def rank_samples(model: LanguageModel, samples: Sequence[Sequence[int]], k: int, prompt: Sequence[int] = ()) -> Ranking:
    """Rank samples by log P(sample | prompt) and return the k most, k middle and k least probable ones.

    The middle group starts at position (n - k) // 2, counted from 0, of the n samples in order of falling
    probability. Groups overlap where n < 3 k. Equal samples are all kept; the order of equally probable samples is
    left open. Raises ValueError unless 1 <= k <= n.
    """
    n = len(samples)
    if not 1 <= k <= n:
        raise ValueError(f"expected k from 1 to {n}, the number of samples, got {k}")
    order = conditional_logprobs(model, [prompt] * n, samples).argsort(descending=True).tolist()
    ranked = [list(samples[i]) for i in order]
    middle = (n - k) // 2
    return Ranking(highest=ranked[:k], middle=ranked[middle : middle + k], lowest=ranked[n - k :])
