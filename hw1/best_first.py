"""Best-first search: finding the most probable continuation, or what beam search finds, with few model calls.

A search continues one prompt `x`, which may be empty. The prompt belongs to no result and counts in no length, and an
end token in it ends nothing. A continuation is complete when it ends in `model.eos_token_id`, which it keeps, or has
`max_tokens` tokens; the end token alone is one too. To expand a continuation is to ask the model for the row that
follows it: no continuation is expanded twice, and complete ones are never expanded. Every function returns the tokens
of one complete continuation and its log-probability given the prompt, in nats. Where two tie, either may be returned.
"""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel

Heuristic = Callable[[Sequence[Sequence[int]]], Float[Tensor, "batch"]]


def uniform_cost_search(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> tuple[list[int], float]:
    """Return the most probable complete continuation, expanding the most probable one first.

    Only continuations that are at least as probable as the result are expanded. Raises ValueError unless
    max_tokens >= 1.
    """
    raise NotImplementedError


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
    raise NotImplementedError


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
    raise NotImplementedError


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
    raise NotImplementedError
