"""A second correct solution of hw1.sampling, by rows and loops: the tests must pass it as they pass the reference."""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness

Filter = Callable[[Float[Tensor, "batch vocab"]], Float[Tensor, "batch vocab"]]


def ancestral_sample(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Normalise by hand, shifted by the largest logit."""
    z = logits.double()
    weights = torch.exp(z - z.max(dim=-1, keepdim=True).values)
    return rng.categorical(weights / weights.sum(dim=-1, keepdim=True))


def gumbel_max_sample(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Race exponential clocks: the argmin of log E - log p."""
    noise = rng.gumbel(list(logits.shape))
    exponential = torch.exp(-noise)
    return torch.argmin(torch.log(exponential) - torch.log_softmax(logits.double(), dim=-1), dim=-1)


def apply_temperature(logits: Float[Tensor, "*batch vocab"], temperature: float) -> Float[Tensor, "*batch vocab"]:
    """Multiply by the inverse temperature."""
    if temperature <= 0:
        raise ValueError("the temperature must be positive")
    return logits * (1.0 / temperature)


def top_k_filter(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Sort each row."""
    if top_k <= 0:
        raise ValueError("top_k must be positive")
    return _by_row(logits, lambda p: _by_probability(p)[:top_k])


def top_p_filter(logits: Float[Tensor, "*batch vocab"], top_p: float) -> Float[Tensor, "*batch vocab"]:
    """Walk down each sorted row."""
    if top_p <= 0 or top_p > 1:
        raise ValueError("top_p must be in (0, 1]")
    return _by_row(logits, lambda p: _until(p, _by_probability(p), top_p))


def min_p_filter(logits: Float[Tensor, "*batch vocab"], min_p: float) -> Float[Tensor, "*batch vocab"]:
    """Compare token by token."""
    if min_p < 0 or min_p > 1:
        raise ValueError("min_p must be in [0, 1]")
    return _by_row(logits, lambda p: [i for i in range(len(p)) if p[i] >= min_p * max(p)])


def typical_filter(logits: Float[Tensor, "*batch vocab"], typical_p: float) -> Float[Tensor, "*batch vocab"]:
    """Sort the tokens present in each row by their distance from the entropy."""
    if typical_p <= 0 or typical_p > 1:
        raise ValueError("typical_p must be in (0, 1]")

    def typical(p: list[float]) -> list[int]:
        entropy = _row_entropy(p)
        present = [i for i in range(len(p)) if p[i] > 0]
        return _until(p, sorted(present, key=lambda i: abs(math.log(p[i]) + entropy)), typical_p)

    return _by_row(logits, typical)


def epsilon_filter(logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float) -> Float[Tensor, "*batch vocab"]:
    """Compare token by token."""
    if epsilon_cutoff < 0 or epsilon_cutoff >= 1:
        raise ValueError("epsilon_cutoff must be in [0, 1)")
    return _by_row(logits, lambda p: _above(p, epsilon_cutoff))


def eta_filter(logits: Float[Tensor, "*batch vocab"], eta_cutoff: float) -> Float[Tensor, "*batch vocab"]:
    """Compare token by token."""
    if eta_cutoff < 0 or eta_cutoff >= 1:
        raise ValueError("eta_cutoff must be in [0, 1)")
    return _by_row(logits, lambda p: _above(p, min(eta_cutoff, math.sqrt(eta_cutoff) / math.exp(_row_entropy(p)))))


def estimate_zipf_exponent(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Add the two sums up in a loop."""
    p = sorted((value for value in probs.tolist() if value > 0), reverse=True)
    p = p[:m]
    if len(p) == 1:
        return float("inf")
    numerator = denominator = 0.0
    for i in range(1, len(p)):
        t = math.log(i + 1) - math.log(i)
        numerator += t * (math.log(p[i - 1]) - math.log(p[i]))
        denominator += t**2
    return numerator / denominator


class Mirostat:
    """Mirostat in plain Python."""

    mu: float

    def __init__(self, tau: float, learning_rate: float = 0.1, m: int = 100):
        """Start at twice the target."""
        self.tau = tau
        self.learning_rate = learning_rate
        self.m = m
        self.mu = 2.0 * tau

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Take the power in logs."""
        n = len(probs)
        s = estimate_zipf_exponent(probs, self.m)
        if s == math.inf:
            return 1
        epsilon = s - 1
        factor = 1 / math.log(n) if abs(epsilon) < 1e-9 else epsilon / (1 - n ** (-epsilon))
        log_base = math.log(factor) + self.mu * math.log(2)  # the power is taken in logs: it may overflow
        if s == 0:
            return n if log_base > 0 else 1
        return max(1, min(n, math.floor(math.exp(min(log_base / s, math.log(n))) + 0.5)))

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw a rank among the k largest, in a batch of one."""
        p = torch.softmax(logits.double(), dim=0)
        values, tokens = torch.sort(p, descending=True)
        k = self.top_k(p)
        drawn = rng.categorical(values[:k][None] / values[:k].sum())
        token = tokens[drawn[0]].item()
        self.mu = self.mu + self.learning_rate * (self.tau + math.log2(p[token].item()))
        return int(token)


def generate(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[Filter] = (),
) -> list[list[int]]:
    """Grow whole sequences and cut the prompts off at the end."""
    if max_tokens < 0:
        raise ValueError("max_tokens must not be negative")
    sequences = [list(prompt) for prompt in x]
    finished = [max_tokens == 0] * len(sequences)
    while not all(finished):
        rows = [row for row, done in enumerate(finished) if not done]
        logits = model.next_token_logprobs([list(sequences[row]) for row in rows])
        for change in filters:
            logits = change(logits)
        tokens = ancestral_sample(logits, rng)
        for position, row in enumerate(rows):
            sequences[row].append(int(tokens[position]))
            length = len(sequences[row]) - len(x[row])
            finished[row] = sequences[row][-1] == model.eos_token_id or length == max_tokens
    return [sequence[len(prompt) :] for sequence, prompt in zip(sequences, x, strict=True)]


def _by_row(
    logits: Float[Tensor, "*batch vocab"], choose: Callable[[list[float]], list[int]]
) -> Float[Tensor, "*batch vocab"]:
    """Keep in each row the tokens that `choose` picks from its probabilities."""
    rows = logits.reshape(-1, logits.shape[-1])
    filtered = []
    for row in rows:
        kept = set(choose(torch.softmax(row.double(), dim=0).tolist()))
        filtered.append([value if i in kept else -math.inf for i, value in enumerate(row.tolist())])
    return torch.tensor(filtered, dtype=logits.dtype).reshape(logits.shape)


def _by_probability(p: list[float]) -> list[int]:
    return sorted(range(len(p)), key=lambda i: p[i], reverse=True)


def _until(p: list[float], order: list[int], mass: float) -> list[int]:
    kept: list[int] = []
    total = 0.0
    for i in order:
        kept.append(i)
        total += p[i]
        if total >= mass:
            break
    return kept


def _above(p: list[float], threshold: float) -> list[int]:
    return [i for i in range(len(p)) if p[i] >= threshold] or [p.index(max(p))]


def _row_entropy(p: list[float]) -> float:
    return -sum(value * math.log(value) for value in p if value > 0)
