"""How sure a mean score is, and whether two runs differ.

Scores are one number an item or sample. `clusters`, where given, names the question that each score belongs to: samples
of one question are alike, and an error that took them as independent would be too small.

Paper: Miller, 2024, "Adding error bars to evals", https://arxiv.org/abs/2411.00640.
"""

import math
from collections.abc import Hashable, Sequence
from fractions import Fraction

import msgspec
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

_NORMAL_95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def standard_error(scores: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float:
    """Return the closed-form standard error of the mean score.

    Without clusters it is sqrt(mean of squared deviations / n): of 15 right ones in 100, sqrt(.15 · .85 / 100) = .0357.
    With clusters the deviations are first summed within each (equation 4 of the paper), which gives the same where each
    cluster has one score. Raises ValueError for no score, for one that is not finite, and unless every score has a
    cluster.
    """
    values = _checked(scores)
    deviations = _cluster_sums(values - values.mean(), clusters)
    return float(np.sqrt((deviations**2).sum()) / len(values))


def bootstrap_standard_error(
    scores: Sequence[float], clusters: Sequence[Hashable] | None = None, resamples: int = 1000, seed: int = 0
) -> float:
    """Return the standard deviation of the mean over resampled data sets, drawn with replacement.

    With clusters, whole clusters are drawn. Seeded: the same scores give the same error. Raises ValueError as
    `standard_error` does, and unless there are at least two resamples.

    Paper: Efron, 1979, https://doi.org/10.1214/aos/1176344552.
    """
    if resamples < 2:
        raise ValueError(f"expected at least 2 resamples, got {resamples}")
    values = _checked(scores)
    sums = _cluster_sums(values, clusters)
    sizes = _cluster_sums(np.ones_like(values), clusters)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        drawn = rng.integers(len(sums), size=len(sums))
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    return float(means.std(ddof=1))


class PairedComparison(msgspec.Struct, frozen=True):
    """Two runs on the same items: how much better the second is, and how sure that is."""

    difference: float
    """Mean score of the second run minus that of the first."""
    standard_error: float
    """Of the difference, from the differences of the pairs."""
    low: float
    """Lower end of the 95 % interval, difference ± 1.96 standard errors."""
    high: float
    p_value: float
    """Probability of a difference at least this large, either way, if the two runs were exchangeable."""


def paired_comparison(
    first: Sequence[float],
    second: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    permutations: int = 10_000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two runs whose i-th scores belong to the same item.

    The p-value is that of the paired permutation test: if the runs do not differ, the sign of each pair's difference
    (with clusters, of each cluster's sum) is a coin flip. All sign patterns are counted where all differences are of
    one size, which for 0/1 scores is McNemar's exact test, and where there are no more patterns than `permutations`;
    otherwise so many are drawn, seeded, and the observed one counts as one of them.

    Raises ValueError unless both runs have the same number of scores, at least one, all finite.

    Papers: Fisher, 1935; Phipson and Smyth, 2010, https://arxiv.org/abs/1603.05766, for the drawn p-value.
    """
    if len(first) != len(second):
        raise ValueError(f"expected two runs on the same items, got {len(first)} and {len(second)} scores")
    differences = _checked(second) - _checked(first)
    difference = float(differences.mean())
    error = standard_error(differences.tolist(), clusters)
    sums = _cluster_sums(differences, clusters)
    return PairedComparison(
        difference=difference,
        standard_error=error,
        low=difference - _NORMAL_95 * error,
        high=difference + _NORMAL_95 * error,
        p_value=_sign_flip_p_value(sums[sums != 0], permutations, seed),
    )


def _sign_flip_p_value(sums: Float[NDArray[np.float64], "clusters"], permutations: int, seed: int) -> float:
    observed = abs(sums.sum()) * (1 - 1e-12)  # sums of the same numbers in another order may differ in the last bit
    sizes = np.abs(sums)
    if len(sums) == 0:
        return 1.0
    if np.all(sizes == sizes[0]):  # the sum of equal steps is a binomial variable
        n, k = len(sums), round((len(sums) + abs(sums.sum()) / sizes[0]) / 2)
        tail = sum(math.comb(n, i) for i in range(k, n + 1))
        return min(1.0, float(Fraction(2 * tail, 2**n)))
    if 2 ** len(sums) <= permutations:
        patterns = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        return float(np.mean(np.abs((2 * patterns - 1) @ sums) >= observed))
    rng = np.random.default_rng(seed)
    as_large = sum(abs(rng.choice((-1.0, 1.0), size=len(sums)) @ sums) >= observed for _ in range(permutations))
    return float((as_large + 1) / (permutations + 1))


def _cluster_sums(
    values: Float[NDArray[np.float64], "n"], clusters: Sequence[Hashable] | None
) -> Float[NDArray[np.float64], "clusters"]:
    if clusters is None:
        return values
    if len(clusters) != len(values):
        raise ValueError(f"expected a cluster for each of {len(values)} scores, got {len(clusters)}")
    index = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros(len(index))
    np.add.at(sums, [index[cluster] for cluster in clusters], values)
    return sums


def _checked(scores: Sequence[float]) -> Float[NDArray[np.float64], "n"]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError("expected a sequence of at least one score, got " + ("none" if not values.size else "a table"))
    if not np.isfinite(values).all():
        raise ValueError("expected finite scores, got NaN or infinity")
    return values
