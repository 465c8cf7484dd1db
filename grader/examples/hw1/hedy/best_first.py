"""Best-first search: finding the most probable continuation, or what beam search finds, with few model calls.

A search continues one prompt `x`, which may be empty. The prompt belongs to no result and counts in no length, and an
end token in it ends nothing. A continuation is complete when it ends in `model.eos_token_id`, which it keeps, or has
`max_tokens` tokens; the end token alone is one too. To expand a continuation is to ask the model for the row that
follows it: no continuation is expanded twice, and complete ones are never expanded. Every function returns the tokens
of one complete continuation and its log-probability given the prompt, in nats. Where two tie, either may be returned.
"""

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel

Heuristic = Callable[[Sequence[Sequence[int]]], Float[Tensor, "batch"]]


def uniform_cost_search(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> tuple[list[int], float]:
    """Return the most probable complete continuation, expanding the most probable one first.

    Only continuations that are at least as probable as the result are expanded. Raises ValueError unless
    max_tokens >= 1.
    """
    return a_star_search(model, x, max_tokens=max_tokens, heuristic=lambda contexts: torch.zeros(len(contexts)))


def a_star_search(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int, heuristic: Heuristic
) -> tuple[list[int], float]:
    """Return the most probable complete continuation, expanding first where log-probability plus heuristic is highest.

    `heuristic(contexts)` takes a batch of contexts as the model does, each the prompt and an incomplete continuation,
    and estimates for each of them the log-probability of the best way to complete it. It is never called with complete
    continuations, whose estimate is 0. Where it is admissible, that is never below the true value, the result is the
    most probable continuation, and none is expanded whose log-probability plus heuristic is below the result's
    log-probability. Raises ValueError unless max_tokens >= 1.

    Paper: Hart, Nilsson and Raphael, 1968, https://doi.org/10.1109/TSSC.1968.300136.
    """
    _check(max_tokens=max_tokens)
    ties = itertools.count()
    # The smallest comes first: minus f, a number that decides ties, the log-probability, the tokens.
    queue: list[tuple[float, int, float, list[int]]] = [(0.0, next(ties), 0.0, [])]
    while True:
        _, _, logprob, y = heapq.heappop(queue)
        if _complete(model, y, max_tokens):
            return y, logprob
        children = _children(model, x, y, logprob)
        open_ones = [child for child, _ in children if not _complete(model, child, max_tokens)]
        to_come = iter(heuristic([[*x, *child] for child in open_ones]).tolist() if open_ones else [])
        for child, total in children:
            h = 0.0 if _complete(model, child, max_tokens) else next(to_come)
            heapq.heappush(queue, (-(total + h), next(ties), total, child))


def best_first_beam_search(
    model: LanguageModel, x: Sequence[int], *, num_beams: int, max_tokens: int, length_penalty: float = 0.0
) -> tuple[list[int], float]:
    """Return what beam search finds, without the expansions that cannot change it.

    The result is the best hypothesis of `beam_search` with the same `num_beams`, `max_tokens` and `length_penalty`, and
    with early_stopping=False. Continuations are taken from a queue, the most probable one first. Of each length, the
    first `num_beams` incomplete ones taken are expanded, and the complete ones among the first `num_beams` taken are
    hypotheses with a score of logprob / length ** length_penalty. The search ends when no continuation in the queue can
    reach a higher score than the best hypothesis. So no continuation is expanded whose
    logprob / max_tokens ** length_penalty is below the result's score. Raises ValueError unless num_beams >= 1,
    max_tokens >= 1 and length_penalty >= 0.

    Paper: Meister et al., 2020, https://arxiv.org/abs/2007.03909.
    """
    _check(num_beams=num_beams, max_tokens=max_tokens, length_penalty=length_penalty)
    ties = itertools.count()
    queue: list[tuple[float, int, list[int]]] = [(0.0, next(ties), [])]
    taken: Counter[int] = Counter()
    expanded: Counter[int] = Counter()
    best: tuple[list[int], float] = ([], -math.inf)
    best_score = -math.inf
    while queue and -queue[0][0] / max_tokens**length_penalty > best_score:
        cost, _, y = heapq.heappop(queue)
        logprob, length = -cost, len(y)
        taken[length] += 1
        if _complete(model, y, max_tokens):
            score = logprob / length**length_penalty
            if taken[length] <= num_beams and score > best_score:
                best, best_score = (y, logprob), score
        elif expanded[length] < num_beams:
            expanded[length] += 1
            for child, total in _children(model, x, y, logprob):
                heapq.heappush(queue, (-total, next(ties), child))
    return best


def exact_search(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int, length_penalty: float = 0.0
) -> tuple[list[int], float]:
    """Return the complete continuation with the highest logprob / length ** length_penalty, by branch and bound.

    Depth first: the children of a continuation are visited in order of falling probability, each with all that begins
    with it before the next. A continuation is expanded only if its logprob / max_tokens ** length_penalty, which bounds
    the score of all that begins with it, is above the score of the best complete continuation visited before. There
    may be fewer expansions than this order takes, and not more. Raises ValueError unless max_tokens >= 1 and
    length_penalty >= 0.

    Paper: Stahlberg and Byrne, 2019, https://arxiv.org/abs/1908.10090.
    """
    _check(max_tokens=max_tokens, length_penalty=length_penalty)
    stack: list[tuple[list[int], float]] = [([], 0.0)]
    best: tuple[list[int], float] = ([], -math.inf)
    best_score = -math.inf
    while stack:
        y, logprob = stack.pop()
        if logprob / max_tokens**length_penalty <= best_score:
            continue
        # All complete children come before the others, so that the bound is as high as it can be.
        for child, total in sorted(_children(model, x, y, logprob), key=lambda pair: pair[1]):
            if not _complete(model, child, max_tokens):
                stack.append((child, total))
            elif total / len(child) ** length_penalty > best_score:
                best, best_score = (child, total), total / len(child) ** length_penalty
    return best


def _check(*, max_tokens: int, num_beams: int = 1, length_penalty: float = 0.0) -> None:
    if max_tokens < 1 or num_beams < 1 or length_penalty < 0:
        raise ValueError(
            "expected max_tokens and num_beams of at least 1 and length_penalty of at least 0, "
            f"got {max_tokens}, {num_beams} and {length_penalty}"
        )


def _complete(model: LanguageModel, y: Sequence[int], max_tokens: int) -> bool:
    return len(y) == max_tokens or (len(y) > 0 and y[-1] == model.eos_token_id)


def _children(model: LanguageModel, x: Sequence[int], y: list[int], logprob: float) -> list[tuple[list[int], float]]:
    """Expand y: return its children of positive probability with their log-probabilities."""
    (row,) = model.next_token_logprobs([[*x, *y]]).double().tolist()
    return [([*y, token], logprob + term) for token, term in enumerate(row) if term > -math.inf]
