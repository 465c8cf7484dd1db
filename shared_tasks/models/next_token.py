"""From logits to the next token: the distribution that sampling parameters make of them, and draws from it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from shared_tasks.models.engine import SamplingParams

# Whether a token is in or out at exactly top_p or min_p must not hang on the last bit of a sum.
ROUNDING = 1e-6
LEAST_TEMPERATURE = 1e-5  # below it, single precision has no room for what a logit is divided by


def probabilities(
    logits: Float[Tensor, "batch vocab"], params: Sequence[SamplingParams]
) -> Float[Tensor, "batch vocab"]:
    """Return the distribution that each row's next token is drawn from.

    The order is vLLM's: logit bias, temperature, min_p, top_k, top_p (Holtzman et al. 2020), each on what the one
    before left over, renormalised. At temperature 0 all mass is on the most likely token.
    """
    logits = biased(logits, params)
    scaled = logits / _column([max(p.temperature or 1.0, LEAST_TEMPERATURE) for p in params], logits)
    if any(p.min_p for p in params):
        floor = scaled.amax(-1, keepdim=True) + _column([p.min_p for p in params], logits).log()
        scaled = scaled.masked_fill(scaled < floor - ROUNDING, -torch.inf)
    if any(p.top_k > 0 or p.top_p < 1 for p in params):
        scaled = _cut_to_top(scaled, params)
    distribution = scaled.softmax(-1)
    greedy = [row for row, p in enumerate(params) if p.temperature == 0]
    if greedy:
        distribution[greedy] = torch.nn.functional.one_hot(logits[greedy].argmax(-1), logits.shape[-1]).to(logits.dtype)
    return distribution


def choose(
    logits: Float[Tensor, "batch vocab"], params: Sequence[SamplingParams], uniforms: Sequence[float]
) -> Int[Tensor, "batch"]:
    """Return each row's next token: its distribution's quantile at its uniform draw from [0, 1).

    One uniform number a token makes a row's result independent of the rows beside it.
    """
    if all(p.temperature == 0 for p in params):
        return biased(logits, params).argmax(-1)
    cumulative = probabilities(logits, params).double().cumsum(-1)
    draws = _column(uniforms, cumulative) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, draws, right=True)[:, 0]
    return tokens.clamp_max(logits.shape[-1] - 1)  # a draw just below 1 may round up to all of the mass


def uniforms(params: SamplingParams, count: int, number: int = 0) -> list[float]:
    """Return the draws from [0, 1) of completion `number` of a request, one a token; with a seed always the same."""
    if params.temperature == 0:
        return [0.0] * count
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed + number)
    draws: list[float] = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    return draws


def biased(logits: Float[Tensor, "batch vocab"], params: Sequence[SamplingParams]) -> Float[Tensor, "batch vocab"]:
    """Return the logits with each row's `logit_bias` added, the given ones where there is none.

    Raises ValueError for a token id outside the vocabulary.
    """
    if any(p.logit_bias for p in params):
        logits = logits.clone()
    for row, p in enumerate(params):
        for token in p.logit_bias:
            if not 0 <= token < logits.shape[-1]:
                raise ValueError(f"logit_bias: expected token ids from 0 to {logits.shape[-1] - 1}, got {token}")
        if p.logit_bias:
            values = torch.tensor(list(p.logit_bias.values()), dtype=logits.dtype)
            logits[row, list(p.logit_bias)] += values.to(logits.device)
    return logits


def _cut_to_top(scaled: Float[Tensor, "batch vocab"], params: Sequence[SamplingParams]) -> Float[Tensor, "batch vocab"]:
    """Keep each row's top_k most likely tokens, and of these the fewest that have a mass of top_p."""
    vocab_size = scaled.shape[-1]
    top_k = [min(p.top_k, vocab_size) if p.top_k > 0 else vocab_size for p in params]
    ordered, order = scaled.topk(max(top_k))
    rank = torch.arange(max(top_k), device=scaled.device)
    ordered = ordered.masked_fill(rank >= _column(top_k, rank), -torch.inf)
    mass = ordered.softmax(-1)
    before = mass.cumsum(-1) - mass  # of the more likely tokens
    top_p = _column([p.top_p if p.top_p < 1 else 2.0 for p in params], scaled)
    ordered = ordered.masked_fill((before >= top_p - ROUNDING) & (rank > 0), -torch.inf)
    return torch.full_like(scaled, -torch.inf).scatter(1, order, ordered)


def _column(values: Sequence[float], like: Tensor) -> Float[Tensor, "batch 1"]:
    return torch.tensor(values, dtype=like.dtype).to(like.device)[:, None]
