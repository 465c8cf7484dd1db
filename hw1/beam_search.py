"""Beam search: keeping the few best continuations at every step, by probability, by diversity, or by chance.

A search continues one prompt `x`, which may be empty. The prompt belongs to no result and counts in no length, and an
end token in it ends nothing. A continuation is complete when it ends in `model.eos_token_id`, which it keeps, or has
`max_tokens` tokens. Continuations of probability zero are never kept. Logarithms are natural; `model` is called once a
step, for all continuations that are extended. Where two continuations tie, either may come first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness


@dataclass
class Hypothesis:
    """A continuation that a search found: its tokens without the prompt, log P(tokens | prompt) in nats, and a score.

    The score is what the search ranks by: the log-probability normalised by length, or with noise.
    """

    tokens: list[int]
    logprob: float
    score: float


def greedy_search(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Take the most probable token at every step, until the end token or `max_tokens` tokens.

    Raises ValueError unless max_tokens >= 1.
    """
    raise NotImplementedError


def score_bound(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Return the highest score that a running continuation can still reach.

    It has `length` tokens with log-probability `logprob`, and will be complete with length + 1 to `max_tokens` tokens
    and a log-probability of at most `logprob`; its score is then that divided by its length ** length_penalty. Raises
    ValueError unless 0 <= length < max_tokens.
    """
    raise NotImplementedError


def beam_search(
    model: LanguageModel,
    x: Sequence[int],
    *,
    num_beams: int,
    max_tokens: int,
    length_penalty: float = 0.0,
    early_stopping: bool = False,
) -> list[Hypothesis]:
    """Return the best complete continuations that a beam of `num_beams` finds, by falling score, at most `num_beams`.

    The score is logprob / length ** length_penalty, where the length counts the end token. Each step extends every
    running continuation by every token. Of these candidates, in order of falling log-probability,

    - the complete ones among the first `num_beams` are finished hypotheses, of which the `num_beams` with the highest
      scores are kept;
    - the first `num_beams` that are not complete are the running continuations of the next step.

    The search stops when nothing runs, or when there are `num_beams` finished hypotheses and, unless `early_stopping`,
    no running continuation has a `score_bound` above the lowest of their scores. Raises ValueError unless
    num_beams >= 1 and max_tokens >= 1.

    Paper: Wu et al., 2016, https://arxiv.org/abs/1609.08144, section 7, for scores that are normalised by length.
    """
    raise NotImplementedError


def diverse_beam_search(
    model: LanguageModel,
    x: Sequence[int],
    *,
    num_beams: int,
    num_beam_groups: int,
    diversity_penalty: float,
    max_tokens: int,
    length_penalty: float = 0.0,
) -> list[list[Hypothesis]]:
    """Search with `num_beam_groups` beams of num_beams / num_beam_groups continuations that avoid each other's tokens.

    Each step extends the groups one after the other, and each as `beam_search` extends its beam, except for the order
    of the candidates: it is by falling logprob - diversity_penalty * n(token), where n(token) counts the candidates
    with this last token that became finished hypotheses or running continuations of the groups before it at this step.
    The penalty orders the candidates of this step and has no other effect: hypotheses have their log-probability under
    the model, and their score is logprob / length ** length_penalty. A group takes part, and counts, up to and
    including the step after which it has as many finished hypotheses as its beam is wide, or nothing in it runs.

    Returns the finished hypotheses of each group, by falling score, at most as many as its beam is wide. Raises
    ValueError unless num_beam_groups >= 1 divides num_beams >= 1, diversity_penalty >= 0 and max_tokens >= 1.

    Paper: Vijayakumar et al., 2018, https://arxiv.org/abs/1610.02424, with Hamming diversity.
    """
    # This one is given, and wrong in five places: repair it, or write it anew.
    if num_beam_groups < 1 or num_beams < 1 or num_beams % num_beam_groups or diversity_penalty < 0 or max_tokens < 1:
        raise ValueError(f"cannot search with {num_beams} beams, {num_beam_groups} groups and {max_tokens} tokens")
    size = num_beams // num_beam_groups
    running = [[Hypothesis([], 0.0, 0.0)] for _ in range(num_beam_groups)]
    finished: list[list[Hypothesis]] = [[] for _ in range(num_beam_groups)]
    kept = [0] * model.vocab_size
    for length in range(1, max_tokens + 1):
        active = [g for g in range(num_beam_groups) if running[g] and len(finished[g]) < size]
        contexts = [[*x, *beam.tokens] for g in active for beam in running[g]]
        if not contexts:
            break
        rows = iter(model.next_token_logprobs(contexts).tolist())
        for g in active:
            candidates = []
            for beam in running[g]:
                for token, logprob in enumerate(next(rows)):
                    total = beam.logprob + logprob + diversity_penalty * kept[token]
                    if total > -math.inf:
                        candidates.append(Hypothesis([*beam.tokens, token], total, total / length**length_penalty))
            candidates.sort(key=lambda candidate: candidate.logprob, reverse=True)
            best = candidates[:num_beams]
            ended = [c for c in best if c.tokens[-1] == model.eos_token_id or length == max_tokens]
            finished[g] = sorted(finished[g] + ended, key=lambda hypothesis: hypothesis.score, reverse=True)[:size]
            running[g] = best if length < max_tokens else []
            for candidate in [*ended, *running[g]]:
                kept[candidate.tokens[-1]] += 1
    return finished


def condition_on_maximum(
    perturbed: Float[Tensor, "*batch n"], maximum: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch n"]:
    """Turn independent Gumbel variables into ones that have the given maximum, row by row.

    With Z the maximum of the row g, the result is -log(exp(-maximum) - exp(-Z) + exp(-g)). It is exact, and finite for
    finite g, whatever the size of g and the maximum. An entry of -inf stays -inf; each row has a finite one.

    Paper: Kool et al., 2019, https://arxiv.org/abs/1903.06059.
    """
    raise NotImplementedError


def stochastic_beam_search(
    model: LanguageModel, x: Sequence[int], *, num_beams: int, max_tokens: int, rng: Randomness
) -> list[Hypothesis]:
    """Draw `num_beams` different complete continuations without replacement, each with its perturbed log-probability.

    The score of a hypothesis is its perturbed log-probability. The beam begins with the empty continuation, whose score
    is drawn with `rng.gumbel(())`. At each step the incomplete members of the beam, in order of falling score, are
    extended by every token, with noise from one `rng.gumbel((their number, vocab_size))`: a child's log-probability
    plus noise, conditioned by `condition_on_maximum` so that the best child of a member has the member's score. The
    `num_beams` highest scores among these children and the complete members are the next beam.

    Returns the beam when all of its members are complete, by falling score; it has fewer members where there are not
    that many continuations. Raises ValueError unless num_beams >= 1 and max_tokens >= 1.

    Paper: Kool et al., 2019, https://arxiv.org/abs/1903.06059, algorithm 1, with a root that is drawn.
    """
    raise NotImplementedError
