"""The one source of chance: drawn in production, enumerated or scripted in a test."""

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Outcome = TypeVar("Outcome", bound=Hashable)


@runtime_checkable
class Randomness(Protocol):
    """Where an algorithm draws. Nothing in the course reads a global seed."""

    def categorical(self, probs: Float[Tensor, "*batch vocab"]) -> Int[Tensor, "*batch"]:
        """Draw an index per row with the row's probabilities.

        Raises ValueError unless every row is finite, non-negative and sums to one.
        """
        ...

    def bernoulli(self, p: Float[Tensor, "*shape"] | float) -> Bool[Tensor, "*shape"]:
        """Draw True with probability p, elementwise. Raises ValueError unless 0 <= p <= 1."""
        ...

    def gumbel(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Draw independent standard Gumbel variables."""
        ...

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Draw independent variables uniform on (0, 1)."""
        ...


class TorchRandomness:
    """Draws from a seeded `torch.Generator`."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def categorical(self, probs: Float[Tensor, "*batch vocab"]) -> Int[Tensor, "*batch"]:
        """Draw an index per row."""
        rows = _checked_rows(probs)
        return torch.multinomial(rows, 1, generator=self.generator).reshape(probs.shape[:-1]).to(probs.device)

    def bernoulli(self, p: Float[Tensor, "*shape"] | float) -> Bool[Tensor, "*shape"]:
        """Draw True with probability p, elementwise."""
        probabilities = _checked_probability(p)
        draws = torch.rand(probabilities.shape, generator=self.generator, dtype=torch.float64)
        return draws < probabilities

    def gumbel(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Draw standard Gumbel noise in float64."""
        return -torch.log(-torch.log(self.uniform(shape)))

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Draw uniformly from the open interval (0, 1), in float64."""
        draws = torch.rand(tuple(shape), generator=self.generator, dtype=torch.float64)
        return draws.clamp_min(torch.finfo(torch.float64).tiny)


class ScriptedNoise:
    """Answers `gumbel` and `uniform` with given values in order, and refuses every other draw."""

    def __init__(self, values: Sequence[float]):
        self.values = list(values)
        self.used = 0

    def gumbel(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Return the next values of the script in the shape asked for."""
        return self._next(shape)

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Return the next values of the script in the shape asked for."""
        return self._next(shape)

    def categorical(self, probs: Float[Tensor, "*batch vocab"]) -> Int[Tensor, "*batch"]:
        """Raise ValueError: the script holds continuous noise."""
        raise ValueError("expected a draw of noise (gumbel or uniform), got rng.categorical")

    def bernoulli(self, p: Float[Tensor, "*shape"] | float) -> Bool[Tensor, "*shape"]:
        """Raise ValueError: the script holds continuous noise."""
        raise ValueError("expected a draw of noise (gumbel or uniform), got rng.bernoulli")

    def _next(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        count = math.prod(shape)
        values = self.values[self.used : self.used + count]
        if len(values) < count:
            raise ValueError(f"expected draws of at most {len(self.values)} values in all, got one of {count} more")
        self.used += count
        return torch.tensor(values, dtype=torch.float64).reshape(tuple(shape))


class _Branching:
    """Follows one path through the tree of draws; `enumerate_outcomes` visits every path once."""

    def __init__(self, path: list[int], max_draws: int):
        self.max_draws = max_draws
        self.path = path  # the branch taken at each draw; grows where the run goes beyond it
        self.branches: list[list[tuple[int, float]]] = []  # (value, probability) of the branches at each draw
        self.probability = 1.0

    def categorical(self, probs: Float[Tensor, "*batch vocab"]) -> Int[Tensor, "*batch"]:
        rows = _checked_rows(probs)
        drawn = [self._draw([(i, p) for i, p in enumerate(row) if p > 0]) for row in rows.tolist()]
        return torch.tensor(drawn, dtype=torch.long).reshape(probs.shape[:-1])

    def bernoulli(self, p: Float[Tensor, "*shape"] | float) -> Bool[Tensor, "*shape"]:
        probabilities = _checked_probability(p)
        drawn = [
            self._draw([(value, q) for value, q in ((1, p), (0, 1 - p)) if q > 0])
            for p in probabilities.flatten().tolist()
        ]
        return torch.tensor(drawn, dtype=torch.bool).reshape(probabilities.shape)

    def gumbel(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        raise ValueError("expected a discrete draw (categorical or bernoulli), got rng.gumbel")

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        raise ValueError("expected a discrete draw (categorical or bernoulli), got rng.uniform")

    def _draw(self, branches: list[tuple[int, float]]) -> int:
        depth = len(self.branches)
        if depth == self.max_draws:
            raise RuntimeError(f"expected at most {self.max_draws} random draws: does the algorithm stop?")
        if depth == len(self.path):
            self.path.append(0)
        self.branches.append(branches)
        value, probability = branches[self.path[depth]]
        self.probability *= probability
        return value


def enumerate_outcomes(
    run: Callable[[Randomness], Outcome], max_paths: int = 20_000, max_draws: int = 1_000
) -> dict[Outcome, float]:
    """Return the exact distribution of `run(rng)` by visiting every branch of its random draws once, depth first.

    `run` must be a function of its draws alone. Raises ValueError when a draw is continuous, and RuntimeError when
    there are more than `max_paths` paths or a path has more than `max_draws` draws.
    """
    distribution: dict[Outcome, float] = {}
    path: list[int] = []
    for count in itertools.count(1):
        if count > max_paths:
            raise RuntimeError(f"expected at most {max_paths} random paths: does the algorithm draw too often?")
        rng = _Branching(path, max_draws)
        outcome = run(rng)
        distribution[outcome] = distribution.get(outcome, 0.0) + rng.probability
        path = path[: len(rng.branches)]
        while path and path[-1] + 1 == len(rng.branches[len(path) - 1]):
            path.pop()
        if not path:
            return distribution
        path[-1] += 1
    raise AssertionError("unreachable")


def _checked_rows(probs: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "rows vocab"]:
    if not isinstance(probs, Tensor) or probs.ndim == 0 or probs.shape[-1] == 0:
        raise ValueError("rng.categorical expected a tensor of probabilities of shape (*batch, vocab)")
    rows = probs.detach().reshape(-1, probs.shape[-1]).to("cpu", torch.float64)
    if not bool(torch.isfinite(rows).all()) or bool((rows < 0).any()):
        raise ValueError("rng.categorical expected finite, non-negative probabilities")
    sums = rows.sum(-1)
    if bool(((sums - 1).abs() > 1e-4).any()):
        raise ValueError(
            f"rng.categorical expected probabilities that sum to 1, got a row that sums to {sums.min():.4f}"
        )
    return rows / sums[:, None]


def _checked_probability(p: Float[Tensor, "*shape"] | float) -> Float[Tensor, "*shape"]:
    probabilities = torch.as_tensor(p).detach().to("cpu", torch.float64)
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise ValueError("rng.bernoulli expected probabilities from 0 to 1")
    return probabilities
