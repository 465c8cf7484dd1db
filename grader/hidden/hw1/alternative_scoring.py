"""A second correct solution of `scoring`, in plain Python: next-token rows, loops and `math` instead of tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel


def _token_logprobs(model: LanguageModel, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
    scores, context = [], list(prompt)
    for token in tokens:
        row = model.next_token_logprobs([context])[0]
        scores.append(float(row[token]))
        context.append(token)
    return scores


def sequence_logprobs(model: LanguageModel, sequences: Sequence[Sequence[int]]) -> Float[Tensor, "batch"]:
    """Score each sequence token by token from the empty context."""
    return torch.tensor([math.fsum(_token_logprobs(model, (), sequence)) for sequence in sequences])


def conditional_logprobs(
    model: LanguageModel, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> Float[Tensor, "batch"]:
    """Score each continuation token by token after its prompt."""
    return torch.tensor([math.fsum(_token_logprobs(model, x, y)) for x, y in zip(prompts, continuations, strict=True)])


def perplexity(model: LanguageModel, sequences: Sequence[Sequence[int]]) -> float:
    """Collect every token's log-probability in one list and average that."""
    scores = [score for sequence in sequences for score in _token_logprobs(model, (), sequence)]
    if not scores:
        raise ValueError("there is no token")
    return math.exp(-math.fsum(scores) / len(scores))


def entropy(logprobs: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """Sum p log(1/p) over the tokens that can occur."""
    rows = logprobs.reshape(-1, logprobs.shape[-1]).tolist()
    values = [sum(-score * math.exp(score) for score in row if score > -math.inf) for row in rows]
    return torch.tensor(values).reshape(logprobs.shape[:-1])


def kl_divergence(
    p_logprobs: Float[Tensor, "*batch vocab"], q_logprobs: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """Compute cross-entropy minus entropy."""
    vocab = p_logprobs.shape[-1]
    values = []
    for p_row, q_row in zip(
        p_logprobs.reshape(-1, vocab).tolist(), q_logprobs.reshape(-1, vocab).tolist(), strict=True
    ):
        support = [(math.exp(p), p, q) for p, q in zip(p_row, q_row, strict=True) if p > -math.inf]
        cross_entropy = -sum(mass * q for mass, _, q in support)
        values.append(cross_entropy + sum(mass * p for mass, p, _ in support))
    return torch.tensor(values).reshape(p_logprobs.shape[:-1])


def expected_calibration_error(confidences: Float[Tensor, "n"], correct: Bool[Tensor, "n"], num_bins: int) -> float:
    """Deal the sorted predictions out to the bins one bin after the other."""
    predictions = sorted(zip(confidences.tolist(), correct.tolist(), strict=True), reverse=True)
    if num_bins < 1 or num_bins > len(predictions):
        raise ValueError("the number of bins does not fit the number of predictions")
    size, larger_bins = divmod(len(predictions), num_bins)
    error, start = 0.0, 0
    for index in range(num_bins):
        end = start + size + (1 if index < larger_bins else 0)
        members = predictions[start:end]
        accuracy = sum(right for _, right in members) / len(members)
        confidence = sum(sure for sure, _ in members) / len(members)
        error += len(members) / len(predictions) * abs(accuracy - confidence)
        start = end
    return error


def macro_calibration_error(confidences: Float[Tensor, "n"], correct: Bool[Tensor, "n"]) -> float:
    """Collect the errors of both classes in two lists."""
    errors: dict[bool, list[float]] = {True: [], False: []}
    for confidence, right in zip(confidences.tolist(), correct.tolist(), strict=True):
        errors[right].append(1 - confidence if right else confidence)
    if not all(errors.values()):
        raise ValueError("a class has no prediction")
    return sum(sum(members) / len(members) for members in errors.values()) / 2


def brier_score(confidences: Float[Tensor, "n"], correct: Bool[Tensor, "n"]) -> float:
    """Add the squared errors up one by one."""
    if not len(correct):
        raise ValueError("there is no prediction")
    total = 0.0
    for confidence, right in zip(confidences.tolist(), correct.tolist(), strict=True):
        total += (1 - confidence) ** 2 if right else confidence**2
    return total / len(correct)


@dataclass
class Ranking:
    """Samples by probability, each group from its most to its least probable member."""

    highest: list[list[int]]
    middle: list[list[int]]
    lowest: list[list[int]]


def rank_samples(model: LanguageModel, samples: Sequence[Sequence[int]], k: int, prompt: Sequence[int] = ()) -> Ranking:
    """Sort the samples themselves, by a key."""
    if k < 1 or k > len(samples):
        raise ValueError("there are not k samples")
    ranked = sorted(map(list, samples), key=lambda sample: -sum(_token_logprobs(model, prompt, sample)))
    first = (len(ranked) - k) // 2
    return Ranking(ranked[:k], [ranked[first + i] for i in range(k)], ranked[-k:])
