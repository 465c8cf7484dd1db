"""Sampling: drawing the next token, and the truncations that keep a sampler away from the unreliable tail.

A filter maps logits to logits: a token that it removes gets -inf, a token that it keeps stays as it was. Filters never
change their input, treat every row on its own, accept -inf in their input and never bring such a token back. "Probable"
refers to the softmax of the row. Where two tokens tie at the cut, either may be kept.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness

Filter = Callable[[Float[Tensor, "batch vocab"]], Float[Tensor, "batch vocab"]]


def ancestral_sample(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Draw a token per row from softmax(logits), with one call of `rng.categorical`."""
    return rng.categorical(logits.softmax(-1, dtype=torch.float64))


def gumbel_max_sample(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Draw a token per row as the argmax of logits plus Gumbel noise, with one call of `rng.gumbel(logits.shape)`.

    Paper: Gumbel, 1954; Maddison et al., 2014, https://arxiv.org/abs/1411.0030.
    """
    return (logits + rng.gumbel(logits.shape).to(logits.device)).argmax(-1)


def apply_temperature(logits: Float[Tensor, "*batch vocab"], temperature: float) -> Float[Tensor, "*batch vocab"]:
    """Return logits / temperature. Raises ValueError unless temperature > 0."""
    if not temperature > 0:
        raise ValueError(f"expected a temperature above 0, got {temperature}")
    return logits / temperature


def top_k_filter(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Keep the `top_k` most probable tokens, or all of them when there are fewer.

    Raises ValueError unless top_k >= 1. Paper: Fan et al., 2018, https://arxiv.org/abs/1805.04833.
    """
    if top_k < 1:
        raise ValueError(f"expected top_k of at least 1, got {top_k}")
    best = logits.topk(min(top_k, logits.shape[-1])).indices
    return _keep(logits, torch.zeros_like(logits, dtype=torch.bool).scatter(-1, best, True))


def top_p_filter(logits: Float[Tensor, "*batch vocab"], top_p: float) -> Float[Tensor, "*batch vocab"]:
    """Keep the smallest set of most probable tokens whose total probability is at least `top_p`.

    The token that crosses the threshold is kept. Raises ValueError unless 0 < top_p <= 1.

    Paper: Holtzman et al., 2020, https://arxiv.org/abs/1904.09751.
    """
    if not 0 < top_p <= 1:
        raise ValueError(f"expected 0 < top_p <= 1, got {top_p}")
    return _keep_mass(logits, logits.argsort(-1, descending=True), top_p)


def min_p_filter(logits: Float[Tensor, "*batch vocab"], min_p: float) -> Float[Tensor, "*batch vocab"]:
    """Keep the tokens whose probability is at least `min_p` times that of the most probable token.

    Raises ValueError unless 0 <= min_p <= 1. Paper: Nguyen et al., 2024, https://arxiv.org/abs/2407.01082.
    """
    if not 0 <= min_p <= 1:
        raise ValueError(f"expected 0 <= min_p <= 1, got {min_p}")
    if min_p == 0:
        return logits.clone()
    return _keep(logits, logits >= logits.amax(-1, keepdim=True) + math.log(min_p))


def typical_filter(logits: Float[Tensor, "*batch vocab"], typical_p: float) -> Float[Tensor, "*batch vocab"]:
    """Keep the tokens whose surprisal is nearest to the entropy, until their total probability is at least `typical_p`.

    Tokens are taken in order of |-log p - entropy|, both in nats; the one that crosses the threshold is kept. Raises
    ValueError unless 0 < typical_p <= 1. Paper: Meister et al., 2023, https://arxiv.org/abs/2202.00666.
    """
    if not 0 < typical_p <= 1:
        raise ValueError(f"expected 0 < typical_p <= 1, got {typical_p}")
    surprisal = -logits.log_softmax(-1, dtype=torch.float64)
    return _keep_mass(logits, (surprisal - _entropy(logits)).abs().argsort(-1), typical_p)


def epsilon_filter(logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float) -> Float[Tensor, "*batch vocab"]:
    """Keep the tokens whose probability is at least `epsilon_cutoff`, and always the most probable one.

    Raises ValueError unless 0 <= epsilon_cutoff < 1. Paper: Hewitt et al., 2022, https://arxiv.org/abs/2210.15191.
    """
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(f"expected 0 <= epsilon_cutoff < 1, got {epsilon_cutoff}")
    return _keep_above(logits, torch.tensor(epsilon_cutoff, dtype=torch.float64))


def eta_filter(logits: Float[Tensor, "*batch vocab"], eta_cutoff: float) -> Float[Tensor, "*batch vocab"]:
    """Keep the tokens whose probability is at least eta, and always the most probable one.

    eta = min(eta_cutoff, sqrt(eta_cutoff) * exp(-entropy)), with the row's entropy in nats. Raises ValueError unless
    0 <= eta_cutoff < 1. Paper: Hewitt et al., 2022, https://arxiv.org/abs/2210.15191.
    """
    if not 0 <= eta_cutoff < 1:
        raise ValueError(f"expected 0 <= eta_cutoff < 1, got {eta_cutoff}")
    eta = math.sqrt(eta_cutoff) * (-_entropy(logits)).exp()
    return _keep_above(logits, eta.clamp(max=eta_cutoff))


def estimate_zipf_exponent(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Estimate the exponent s of Zipf's law from the `m` most probable tokens (all of them when there are fewer).

    With p_1 >= p_2 >= ... the sorted probabilities, t_i = log((i + 1) / i) and b_i = log(p_i / p_(i+1)), the estimate
    is sum(t_i b_i) / sum(t_i^2) over i = 1 .. m - 1. Tokens of probability zero are left out. When a single token is
    left there is nothing to fit, and the estimate is math.inf: the steepest law.

    Paper: Basu et al., 2021, https://arxiv.org/abs/2007.14966, equation 30.
    """
    logs = probs[probs > 0].double().log().sort(descending=True).values[:m]
    if len(logs) == 1:
        return math.inf
    t = (1 / torch.arange(1, len(logs), dtype=torch.float64)).log1p()
    b = (logs[:-1] - logs[1:]).to(t.device)
    return ((t @ b) / (t @ t)).item()


class Mirostat:
    """Mirostat sampling: top-k sampling whose k follows a target surprise, in bits.

    Paper: Basu et al., 2021, https://arxiv.org/abs/2007.14966, algorithm 1.
    """

    mu: float
    """The maximal surprise in bits that the next step allows; 2 * tau before the first step."""

    def __init__(self, tau: float, learning_rate: float = 0.1, m: int = 100):
        """Aim at a surprise of `tau` bits per token, estimating Zipf's exponent from the `m` most probable tokens."""
        self.tau = tau
        self.learning_rate = learning_rate
        self.m = m
        self.mu = 2 * tau

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return the k that the current `mu` allows for this distribution.

        With the estimated exponent s, epsilon = s - 1 and N tokens in the vocabulary,
        k = ((epsilon 2^mu) / (1 - N^(-epsilon)))^(1/s), clamped to 1 .. N and rounded to the nearest integer. N counts
        tokens of probability zero too. Limits stand where the formula has none of its own: for epsilon = 0,
        epsilon / (1 - N^(-epsilon)) is 1 / log(N); for s = 0, k is N where the base of the power exceeds one, else 1;
        for s = math.inf, k is 1.
        """
        s, n = estimate_zipf_exponent(probs, self.m), len(probs)
        if s == math.inf:
            return 1
        epsilon, log_n = s - 1, math.log(n)
        factor = 1 / log_n if epsilon == 0 else epsilon / -math.expm1(-epsilon * log_n)
        log_base = math.log(factor) + self.mu * math.log(2)
        if s == 0:
            return n if log_base > 0 else 1
        log_k = log_base / s  # the power itself may overflow
        return n if log_k >= log_n else round(math.exp(max(log_k, 0.0)))

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw a token from the k most probable ones with one call of `rng.categorical`, then update `mu`.

        The k is that of `top_k` for softmax(logits), and the k probabilities are renormalised for the draw. Then mu
        becomes mu - learning_rate * (surprise - tau), where the surprise of the token drawn is -log2 of its probability
        under the full distribution, before truncation.
        """
        probs = logits.softmax(-1, dtype=torch.float64)
        best = probs.topk(self.top_k(probs))
        drawn = int(rng.categorical(best.values / best.values.sum()))
        self.mu -= self.learning_rate * (-math.log2(best.values[drawn]) - self.tau)
        return int(best.indices[drawn])


def generate(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[Filter] = (),
) -> list[list[int]]:
    """Sample a continuation of each prompt in `x`, token by token, until the end token or `max_tokens` tokens.

    Each step is one call of `model.next_token_logprobs` for all rows that have not ended, then the filters on the
    log-probabilities in the order given, then one call of `rng.categorical` that draws a token for each of these rows
    from the softmax of what the filters return. The end token is part of the continuation; the prompt is not. A row
    that has ended is not passed to the model again, and when none is left the model is not called. An end token inside
    a prompt ends nothing. The prompts are not changed. Raises ValueError unless max_tokens >= 0.
    """
    if max_tokens < 0:
        raise ValueError(f"expected max_tokens of at least 0, got {max_tokens}")
    continuations: list[list[int]] = [[] for _ in x]
    running = list(range(len(x)))
    for _ in range(max_tokens):
        if not running:
            break
        logits = model.next_token_logprobs([[*x[i], *continuations[i]] for i in running])
        for apply in filters:
            logits = apply(logits)
        for i, token in zip(running, ancestral_sample(logits, rng).tolist(), strict=True):
            continuations[i].append(token)
        running = [i for i in running if continuations[i][-1] != model.eos_token_id]
    return continuations


def _entropy(logits: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch 1"]:
    """Return the entropy of each row in nats."""
    return torch.special.entr(logits.softmax(-1, dtype=torch.float64)).sum(-1, keepdim=True)


def _keep(logits: Float[Tensor, "*batch vocab"], kept: Bool[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
    return logits.masked_fill(~kept, -torch.inf)


def _keep_above(
    logits: Float[Tensor, "*batch vocab"], threshold: Float[Tensor, "*batch 1"]
) -> Float[Tensor, "*batch vocab"]:
    """Keep the tokens of at least this probability, and the most probable one."""
    probs = logits.softmax(-1, dtype=torch.float64)
    return _keep(logits, probs >= torch.minimum(threshold, probs.amax(-1, keepdim=True)))


def _keep_mass(
    logits: Float[Tensor, "*batch vocab"], order: Int[Tensor, "*batch vocab"], mass: float
) -> Float[Tensor, "*batch vocab"]:
    """Keep tokens in this order until their probability is at least `mass`."""
    probs = logits.softmax(-1, dtype=torch.float64).gather(-1, order)
    before = probs.cumsum(-1) - probs
    kept = (before < mass) | (mass == 1)  # rounding must not cut the last of all tokens
    return _keep(logits, torch.zeros_like(kept).scatter(-1, order, kept))
