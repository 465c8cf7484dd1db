"""Beam search: keeping the few best continuations at every step, by probability, by diversity, or by chance.

A search continues one prompt `x`, which may be empty. The prompt belongs to no result and counts in no length, and an
end token in it ends nothing. A continuation is complete when it ends in `model.eos_token_id`, which it keeps, or has
`max_tokens` tokens. Continuations of probability zero are never kept. Logarithms are natural; `model` is called once a
step, for all continuations that are extended. Where two continuations tie, either may come first.
"""

import math
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
    _check_at_least_one(max_tokens=max_tokens)
    tokens: list[int] = []
    while len(tokens) < max_tokens and not _ended(model, tokens):
        tokens.append(int(model.next_token_logprobs([[*x, *tokens]])[0].argmax()))
    return tokens


def score_bound(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Return the highest score that a running continuation can still reach.

    It has `length` tokens with log-probability `logprob`, and will be complete with length + 1 to `max_tokens` tokens
    and a log-probability of at most `logprob`; its score is then that divided by its length ** length_penalty. Raises
    ValueError unless 0 <= length < max_tokens.
    """
    if not 0 <= length < max_tokens:
        raise ValueError(f"expected a length from 0 to {max_tokens - 1}, got {length}")
    best_length = max_tokens if length_penalty > 0 else length + 1
    return logprob / best_length**length_penalty


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
    _check_at_least_one(num_beams=num_beams, max_tokens=max_tokens)
    beam = _Beam(num_beams, max_tokens, length_penalty)
    while beam.running:
        rows = model.next_token_logprobs([[*x, *h.tokens] for h in beam.running])
        beam.step(rows, model.eos_token_id)
        if len(beam.finished) == num_beams and (early_stopping or not beam.may_improve()):
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
    if num_beam_groups < 1 or num_beams < 1 or num_beams % num_beam_groups or diversity_penalty < 0 or max_tokens < 1:
        raise ValueError(f"cannot search with {num_beams} beams, {num_beam_groups} groups and {max_tokens} tokens")
    width = num_beams // num_beam_groups
    groups = [_Beam(width, max_tokens, length_penalty) for _ in range(num_beam_groups)]
    while active := [group for group in groups if group.running and len(group.finished) < width]:
        contexts = [[*x, *h.tokens] for group in active for h in group.running]
        rows = model.next_token_logprobs(contexts).split([len(group.running) for group in active])
        kept = torch.zeros(model.vocab_size, dtype=torch.float64, device=rows[0].device)
        for group, own in zip(active, rows, strict=True):
            for token in group.step(own, model.eos_token_id, diversity_penalty * kept):
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
    maximum = maximum.unsqueeze(-1)
    below = perturbed - perturbed.amax(-1, keepdim=True)
    v = maximum - perturbed + (-below.expm1()).log()
    return maximum - v.clamp(min=0) - (-v.abs()).exp().log1p()


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
    _check_at_least_one(num_beams=num_beams, max_tokens=max_tokens)
    beam = [Hypothesis([], 0.0, float(rng.gumbel(())))]
    while True:
        complete = [h for h in beam if len(h.tokens) == max_tokens or _ended(model, h.tokens)]
        running = [h for h in beam if h not in complete]
        if not running:
            return beam
        logprobs = _extended(running, model.next_token_logprobs([[*x, *h.tokens] for h in running]))
        noise = rng.gumbel((len(running), model.vocab_size)).to(logprobs)
        scores = condition_on_maximum(logprobs + noise, logprobs.new_tensor([h.score for h in running]))
        children = _best_children(running, logprobs, scores, num_beams)
        beam = sorted([*complete, *children], key=lambda h: h.score, reverse=True)[:num_beams]


def _check_at_least_one(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"expected {name} of at least 1, got {value}")


def _ended(model: LanguageModel, tokens: Sequence[int]) -> bool:
    return len(tokens) > 0 and tokens[-1] == model.eos_token_id


def _extended(running: Sequence[Hypothesis], rows: Float[Tensor, "beams vocab"]) -> Float[Tensor, "beams vocab"]:
    """Return the log-probability of every continuation by one token, in float64."""
    rows = rows.double()
    return rows + rows.new_tensor([h.logprob for h in running])[:, None]


def _best_children(
    running: Sequence[Hypothesis],
    logprobs: Float[Tensor, "beams vocab"],
    scores: Float[Tensor, "beams vocab"],
    count: int,
) -> list[Hypothesis]:
    """Return the `count` children with the highest scores, in this order, without those of probability zero."""
    vocab_size = logprobs.shape[-1]
    scores = scores.masked_fill(logprobs == -torch.inf, -torch.inf).flatten()
    best = scores.topk(min(count, len(scores))).indices
    picked = zip(best.tolist(), logprobs.flatten()[best].tolist(), scores[best].tolist(), strict=True)
    return [
        Hypothesis([*running[i // vocab_size].tokens, i % vocab_size], logprob, score)
        for i, logprob, score in picked
        if logprob > -math.inf
    ]


class _Beam:
    """A beam of some width: what runs, and the best that has finished."""

    def __init__(self, width: int, max_tokens: int, length_penalty: float):
        self.width = width
        self.max_tokens = max_tokens
        self.length_penalty = length_penalty
        self.running = [Hypothesis([], 0.0, 0.0)]
        self.finished: list[Hypothesis] = []  # by falling score

    def step(
        self, rows: Float[Tensor, "beams vocab"], eos_token_id: int, penalty: Float[Tensor, "vocab"] | float = 0.0
    ) -> list[int]:
        """Extend what runs, in the order of log-probability minus penalty; return the last tokens of what is kept."""
        length = len(self.running[0].tokens) + 1
        logprobs = _extended(self.running, rows)
        # At most `width` of these end, one for each that runs: enough are left to run on.
        candidates = _best_children(self.running, logprobs, logprobs - penalty, 2 * self.width)
        for candidate in candidates:
            candidate.score = candidate.logprob / length**self.length_penalty
        ends = [length == self.max_tokens or c.tokens[-1] == eos_token_id for c in candidates]
        ended = [c for c, end in zip(candidates[: self.width], ends, strict=False) if end]
        self.running = [c for c, end in zip(candidates, ends, strict=True) if not end][: self.width]
        self.finished = sorted([*self.finished, *ended], key=lambda h: h.score, reverse=True)[: self.width]
        return [c.tokens[-1] for c in [*ended, *self.running]]

    def may_improve(self) -> bool:
        """Say whether something that runs can still beat the worst of the finished hypotheses."""
        bounds = (score_bound(h.logprob, len(h.tokens), self.max_tokens, self.length_penalty) for h in self.running)
        return any(bound > self.finished[-1].score for bound in bounds)
