"""A second correct solution of hw1.beam_search, candidate by candidate in Python and partly in float32."""

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
    """A continuation."""

    tokens: list[int]
    logprob: float
    score: float


def greedy_search(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Sort every row and take its first token."""
    if max_tokens <= 0:
        raise ValueError("max_tokens must be positive")
    sequence = list(x)
    for _ in range(max_tokens):
        row = model.next_token_logprobs([sequence])[0].float().tolist()
        sequence.append(max(range(len(row)), key=row.__getitem__))
        if sequence[-1] == model.eos_token_id:
            break
    return sequence[len(x) :]


def score_bound(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Try every length."""
    if length < 0 or length >= max_tokens:
        raise ValueError("length must be from 0 to max_tokens - 1")
    return max(logprob * n**-length_penalty for n in range(length + 1, max_tokens + 1))


def beam_search(
    model: LanguageModel,
    x: Sequence[int],
    *,
    num_beams: int,
    max_tokens: int,
    length_penalty: float = 0.0,
    early_stopping: bool = False,
) -> list[Hypothesis]:
    """Follow whole sequences, with a check of every running one before each step."""
    if num_beams <= 0 or max_tokens <= 0:
        raise ValueError("num_beams and max_tokens must be positive")
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    pool: list[Hypothesis] = []
    length = 0
    while running:
        if len(pool) == num_beams:
            bounds = (score_bound(total, length, max_tokens, length_penalty) for total, _ in running)
            if early_stopping or max(bounds) <= min(hypothesis.score for hypothesis in pool):
                break
        candidates = _all_candidates(model, x, running)
        candidates.sort(reverse=True)
        length += 1
        running, ended = _divide(candidates, num_beams, length == max_tokens, model.eos_token_id)
        pool += [Hypothesis(list(y), total, total * length**-length_penalty) for total, y in ended]
        pool.sort(key=lambda hypothesis: hypothesis.score, reverse=True)
        del pool[num_beams:]
    return pool


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
    """Keep (total, tokens) pairs for each group, and the tokens of a step in a list."""
    if num_beam_groups <= 0 or num_beams <= 0 or max_tokens <= 0 or diversity_penalty < 0:
        raise ValueError("out of range")
    width, rest = divmod(num_beams, num_beam_groups)
    if rest:
        raise ValueError("num_beams must be a multiple of num_beam_groups")
    running: dict[int, list[tuple[float, tuple[int, ...]]]] = {g: [(0.0, ())] for g in range(num_beam_groups)}
    pools: list[list[Hypothesis]] = [[] for _ in range(num_beam_groups)]
    for length in range(1, max_tokens + 1):
        if not running:
            break
        owners = [g for g, beams in running.items() for _ in beams]
        flat = _all_candidates(model, x, [beam for beams in running.values() for beam in beams])
        used: list[int] = []
        for g in list(running):
            mine = [c for i, c in enumerate(flat) if owners[i // model.vocab_size] == g]
            mine.sort(key=lambda candidate: diversity_penalty * used.count(candidate[1][-1]) - candidate[0])
            running[g], ended = _divide(mine, width, length == max_tokens, model.eos_token_id)
            pools[g] += [Hypothesis(list(y), total, total / length**length_penalty) for total, y in ended]
            used += [y[-1] for _, y in ended + running[g]]
            if len(pools[g]) >= width or not running[g]:
                del running[g]
    return [sorted(pool, key=lambda hypothesis: -hypothesis.score)[:width] for pool in pools]


def condition_on_maximum(
    perturbed: Float[Tensor, "*batch n"], maximum: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch n"]:
    """Compute it as in the paper's appendix, in float64."""
    g, target = perturbed.double(), maximum.double().unsqueeze(-1)
    largest = g.max(dim=-1, keepdim=True).values
    v = target - g + torch.log1p(-torch.exp(g - largest))
    return target - torch.relu(v) - torch.log1p(torch.exp(-v.abs()))


def stochastic_beam_search(
    model: LanguageModel, x: Sequence[int], *, num_beams: int, max_tokens: int, rng: Randomness
) -> list[Hypothesis]:
    """Keep one list of members, each extended or passed on."""
    if num_beams <= 0 or max_tokens <= 0:
        raise ValueError("num_beams and max_tokens must be positive")
    members = [Hypothesis([], 0.0, rng.gumbel([]).item())]
    for _ in range(max_tokens):
        going = [member for member in members if member.tokens[-1:] != [model.eos_token_id]]
        if not going:
            break
        members = [member for member in members if member.tokens[-1:] == [model.eos_token_id]]
        rows = model.next_token_logprobs([[*x, *member.tokens] for member in going])
        noise = rng.gumbel([len(going), model.vocab_size])
        for i, member in enumerate(going):
            totals = rows[i].double() + member.logprob
            scores = condition_on_maximum(totals + noise[i], torch.tensor(member.score, dtype=torch.float64))
            for token in range(model.vocab_size):
                if totals[token] != -math.inf:
                    members.append(Hypothesis([*member.tokens, token], totals[token].item(), scores[token].item()))
        members.sort(key=lambda member: member.score, reverse=True)
        members = members[:num_beams]
    return members


def _all_candidates(
    model: LanguageModel, x: Sequence[int], beams: list[tuple[float, tuple[int, ...]]]
) -> list[tuple[float, tuple[int, ...]]]:
    rows = model.next_token_logprobs([[*x, *y] for _, y in beams]).float().tolist()
    return [
        (total + value, (*y, v)) for (total, y), row in zip(beams, rows, strict=True) for v, value in enumerate(row)
    ]


def _divide(
    candidates: list[tuple[float, tuple[int, ...]]], width: int, last: bool, end: int
) -> tuple[list[tuple[float, tuple[int, ...]]], list[tuple[float, tuple[int, ...]]]]:
    """Return what runs on and what ends, of sorted candidates."""
    running, ended = [], []
    for rank, candidate in enumerate(c for c in candidates if c[0] > -math.inf):
        complete = last or candidate[1][-1] == end
        if complete and rank < width:
            ended.append(candidate)
        if not complete and len(running) < width:
            running.append(candidate)
    return running, ended
