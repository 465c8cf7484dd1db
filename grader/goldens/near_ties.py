"""Choices that are too close to call: what a reference test accepts, and which inputs it does without."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from grader.goldens.recording import Recorder, Unusable
from grader.goldens.tolerances import ARITHMETIC
from shared_tasks.models.language_model import LanguageModel

MOST_BRANCHES = 64  # of greedy decoding; a model with more of them is no model to decode greedily


def best_tokens(logprobs: Float[Tensor, "vocab"], tolerance: float) -> list[int]:
    """Return the tokens whose log-probability is within the tolerance of the best one's."""
    found: list[int] = (logprobs >= logprobs.max() - tolerance).nonzero()[:, 0].tolist()
    return found


def ends_right(tokens: Sequence[int], max_tokens: int, eos_token_id: int) -> bool:
    """Say whether a continuation ends with its first end token, or else has `max_tokens` tokens."""
    ended = eos_token_id in tokens
    length = list(tokens).index(eos_token_id) + 1 if ended else max_tokens
    return len(tokens) == length <= max_tokens


def takes_best(logits: Float[Tensor, "length vocab"], tokens: Sequence[int], tolerance: float) -> bool:
    """Say whether each token is as probable, within the tolerance, as the best one by its row of logits."""
    logprobs = logits.log_softmax(-1)
    return bool((logprobs.amax(-1) - logprobs[range(len(tokens)), tokens] <= tolerance).all())


def is_greedy(model: LanguageModel, x: Sequence[int], tokens: Sequence[int], max_tokens: int, tolerance: float) -> bool:
    """Say whether a continuation takes a best token at every step, near-ties included, and ends where it should."""
    if not ends_right(tokens, max_tokens, model.eos_token_id):
        return False
    for i, token in enumerate(tokens):
        (row,) = model.next_token_logprobs([[*x, *tokens[:i]]])
        if token not in best_tokens(row, tolerance):
            return False
    return True


def record_near_ties(recorder: Recorder, x: Sequence[int], max_tokens: int, tolerance: float) -> None:
    """Ask for all contexts that greedy decoding may come to if it takes any of the best tokens at each step.

    Raises Unusable when there are more than `MOST_BRANCHES` at a time.
    """
    branches: list[list[int]] = [[]]
    for _ in range(max_tokens):
        rows = recorder.next_token_logprobs([[*x, *branch] for branch in branches])
        branches = [
            [*branch, token]
            for branch, row in zip(branches, rows, strict=True)
            for token in best_tokens(row, tolerance)
            if token != recorder.eos_token_id
        ]
        if len(branches) > MOST_BRANCHES:
            raise Unusable(f"greedy decoding has more than {MOST_BRANCHES} branches of near-ties")
        if not branches:
            break


def decided(run: Callable[[LanguageModel], Any], recorder: Recorder) -> Any:
    """Return what `run` makes of a model, if rounding cannot change it.

    Raises Unusable when it makes something else of log-probabilities that are off by up to `ARITHMETIC`. What it asks
    the model for on the way is recorded in any case.
    """
    result = run(recorder)
    if any(run(_Rounded(recorder, seed)) != result for seed in range(4)):
        raise Unusable("a near-tie decides what comes out")
    return result


class _Rounded:
    """A language model whose log-probabilities are off by a little, in a way of its own for each context and seed."""

    def __init__(self, model: LanguageModel, seed: int):
        self.vocab_size, self.eos_token_id = model.vocab_size, model.eos_token_id
        self._model, self._seed = model, seed

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        rows = self._model.next_token_logprobs(contexts)
        noise = torch.empty(rows.shape)
        for row, context in zip(noise, contexts, strict=True):
            row.uniform_(-ARITHMETIC, ARITHMETIC, generator=torch.Generator().manual_seed(self._seed + sum(context)))
        return rows + noise

    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        return self._model.continuation_logprobs(contexts, continuations)
