"""Beam search: keeping the few best continuations at every step, by probability, by diversity, or by chance.

A search continues one prompt `x`, which may be empty. The prompt belongs to no result and counts in no length, and an
end token in it ends nothing. A continuation is complete when it ends in `model.eos_token_id`, which it keeps, or has
`max_tokens` tokens. Continuations of probability zero are never kept. Logarithms are natural; `model` is called once a
step, for all continuations that are extended. Where two continuations tie, either may come first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
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
    if max_tokens < 1:
        raise ValueError(f"expected max_tokens >= 1, got {max_tokens}")
    y: list[int] = []
    while len(y) < max_tokens and y[-1:] != [model.eos_token_id]:
        y.append(int(model.next_token_logprobs([[*x, *y]]).argmax()))
    return y


def score_bound(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Return the highest score that a running continuation can still reach.

    It has `length` tokens with log-probability `logprob`, and will be complete with length + 1 to `max_tokens` tokens
    and a log-probability of at most `logprob`; its score is then that divided by its length ** length_penalty. Raises
    ValueError unless 0 <= length < max_tokens.
    """
    if not 0 <= length < max_tokens:
        raise ValueError(f"expected 0 <= length < max_tokens, got length {length} and max_tokens {max_tokens}")
    best_length = max_tokens if length_penalty > 0 else length + 1
    return float(logprob / best_length**length_penalty)


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
    beam = _Beam(num_beams, max_tokens, length_penalty, model.eos_token_id)
    while beam.running:
        beam.extend(model.next_token_logprobs([[*x, *y] for y in beam.running]))
        if beam.full and (early_stopping or beam.bound() <= beam.finished[-1].score):
            break
    return beam.finished


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
    if num_beam_groups < 1 or num_beams % num_beam_groups or diversity_penalty < 0:
        raise ValueError(
            "expected num_beam_groups >= 1 that divides num_beams, and diversity_penalty >= 0, "
            f"got {num_beam_groups} groups of {num_beams} beams and penalty {diversity_penalty}"
        )
    size = num_beams // num_beam_groups
    groups = [_Beam(size, max_tokens, length_penalty, model.eos_token_id) for _ in range(num_beam_groups)]
    while active := [group for group in groups if group.running and not group.full]:
        logprobs = model.next_token_logprobs([[*x, *y] for group in active for y in group.running])
        kept = torch.zeros(model.vocab_size, dtype=torch.float64)
        for group, rows in zip(active, torch.split(logprobs, [len(group.running) for group in active]), strict=True):
            for token in group.extend(rows, diversity_penalty * kept):
                kept[token] += 1
    return [group.finished for group in groups]


def condition_on_maximum(
    perturbed: Float[Tensor, "*batch n"], maximum: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch n"]:
    """Turn independent Gumbel variables into ones that have the given maximum, row by row.

    With Z the maximum of the row g, the result is -log(exp(-maximum) - exp(-Z) + exp(-g)). It is exact, and finite for
    finite g, whatever the size of g and the maximum. An entry of -inf stays -inf; each row has a finite one.

    Paper: Kool et al., 2019, https://arxiv.org/abs/1903.06059.
    """
    target = maximum[..., None]
    ratio = torch.log(-torch.expm1(perturbed - perturbed.amax(-1, keepdim=True)))  # log(1 - exp(g - Z))
    return target - torch.logaddexp(target - perturbed + ratio, torch.zeros_like(perturbed))


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
    _check(num_beams, max_tokens)
    root = float(rng.gumbel(()))
    complete: list[Hypothesis] = []
    running = [Hypothesis([], 0.0, root)]
    for length in range(1, max_tokens + 1):
        if not running:
            break
        parents = torch.tensor([parent.logprob for parent in running], dtype=torch.float64)
        scores = torch.tensor([parent.score for parent in running], dtype=torch.float64)
        logprobs = parents[:, None] + model.next_token_logprobs([[*x, *parent.tokens] for parent in running]).double()
        perturbed = condition_on_maximum(logprobs + rng.gumbel(logprobs.shape), scores)
        best = perturbed.flatten().topk(min(num_beams, perturbed.numel())).indices
        children = [
            Hypothesis([*running[row].tokens, token], float(logprobs[row, token]), float(perturbed[row, token]))
            for row, token in (divmod(index, model.vocab_size) for index in best.tolist())
            if perturbed[row, token] > -torch.inf
        ]
        beam = sorted([*complete, *children], key=lambda member: -member.score)[:num_beams]
        running = [m for m in beam if m.tokens[-1] != model.eos_token_id and length < max_tokens]
        complete = [member for member in beam if member not in running]
    return complete


class _Beam:
    """A beam on its way: the running continuations by falling log-probability, and what has finished, by score."""

    def __init__(self, num_beams: int, max_tokens: int, length_penalty: float, eos_token_id: int):
        _check(num_beams, max_tokens)
        self.num_beams, self.max_tokens, self.length_penalty = num_beams, max_tokens, length_penalty
        self.eos_token_id = eos_token_id
        self.running: list[list[int]] = [[]]
        self.logprobs = torch.zeros(1, dtype=torch.float64)
        self.finished: list[Hypothesis] = []

    @property
    def full(self) -> bool:
        return len(self.finished) == self.num_beams

    def bound(self) -> float:
        if not self.running:
            return -torch.inf
        return score_bound(float(self.logprobs[0]), len(self.running[0]), self.max_tokens, self.length_penalty)

    def extend(
        self, next_token_logprobs: Float[Tensor, "beams vocab"], penalty: Float[Tensor, "vocab"] | float = 0.0
    ) -> list[int]:
        """Take a step, with candidates in order of falling logprob - penalty; return the last tokens of those kept."""
        logprobs = self.logprobs[:, None] + next_token_logprobs.double()
        # One candidate of each beam ends, so that there are `num_beams` that do not among twice as many.
        best = (logprobs - penalty).flatten().topk(min(2 * self.num_beams, logprobs.numel())).indices
        best = best[logprobs.flatten()[best] > -torch.inf]
        length = len(self.running[0]) + 1
        complete = (best % logprobs.shape[1] == self.eos_token_id) | (length == self.max_tokens)
        ended, going = best[: self.num_beams][complete[: self.num_beams]], best[~complete][: self.num_beams]

        def tokens(index: int) -> list[int]:
            row, token = divmod(index, logprobs.shape[1])
            return [*self.running[row], token]

        normaliser = length**self.length_penalty
        self.finished += [
            Hypothesis(tokens(index), logprob, logprob / normaliser)
            for index, logprob in zip(ended.tolist(), logprobs.flatten()[ended].tolist(), strict=True)
        ]
        self.finished = sorted(self.finished, key=lambda hypothesis: -hypothesis.score)[: self.num_beams]
        self.running, self.logprobs = [tokens(index) for index in going.tolist()], logprobs.flatten()[going]
        return [index % logprobs.shape[1] for index in [*ended.tolist(), *going.tolist()]]


def _check(num_beams: int, max_tokens: int) -> None:
    if num_beams < 1 or max_tokens < 1:
        raise ValueError(f"expected num_beams >= 1 and max_tokens >= 1, got {num_beams} and {max_tokens}")
