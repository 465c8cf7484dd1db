"""Whether a model is right as often as its confidence says.

A confidence is a probability from 0 to 1; `correct` says whether the prediction was right. Bins are of equal mass.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import msgspec


class Bin(msgspec.Struct, frozen=True):
    """Predictions of neighbouring confidence: one point of a reliability diagram."""

    count: int
    confidence: float
    """Mean confidence."""
    accuracy: float
    lowest: float
    """The lowest confidence in the bin."""
    highest: float


def reliability_bins(confidences: Sequence[float], correct: Sequence[bool], num_bins: int = 10) -> list[Bin]:
    """Return the bins of a reliability diagram, from the highest confidence to the lowest.

    Predictions are sorted by confidence, highest first and equal ones in the order given, and cut into `num_bins` bins
    whose sizes differ by at most one, the larger ones first.

    Raises ValueError unless there is a verdict for each confidence, all confidences are from 0 to 1, and
    1 <= num_bins <= n. Paper: Nguyen and O'Connor, 2015, https://arxiv.org/abs/1508.05154.
    """
    _check(confidences, correct)
    n = len(confidences)
    if not 1 <= num_bins <= n:
        raise ValueError(f"expected 1 <= num_bins <= n predictions, got num_bins = {num_bins} of n = {n}")
    ranked = sorted(zip(confidences, correct, strict=True), key=lambda pair: -pair[0])
    bins, start = [], 0
    for i in range(num_bins):
        end = start + n // num_bins + (i < n % num_bins)
        chosen = [confidence for confidence, _ in ranked[start:end]]
        accuracy = fmean(float(right) for _, right in ranked[start:end])
        bins.append(Bin(end - start, fmean(chosen), accuracy, lowest=chosen[-1], highest=chosen[0]))
        start = end
    return bins


def expected_calibration_error(confidences: Sequence[float], correct: Sequence[bool], num_bins: int = 10) -> float:
    """Return ECE: the mean over predictions of their bin's |accuracy - mean confidence|.

    Bins and errors raised are those of `reliability_bins`. Papers: Naeini et al., 2015,
    https://doi.org/10.1609/aaai.v29i1.9602; with bins of equal mass Nguyen and O'Connor, 2015,
    https://arxiv.org/abs/1508.05154.
    """
    bins = reliability_bins(confidences, correct, num_bins)
    return sum(bin.count * abs(bin.accuracy - bin.confidence) for bin in bins) / len(confidences)


def macro_calibration_error(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Return MacroCE: the mean of the right predictions' 1 - confidence and the wrong ones' confidence, averaged.

    Each class weighs half, however rare it is. Raises ValueError unless there is a prediction of each class, and as
    `reliability_bins` does. Paper: Si et al., 2022, https://arxiv.org/abs/2205.12507.
    """
    _check(confidences, correct)
    pairs = list(zip(confidences, correct, strict=True))
    right = [1 - confidence for confidence, flag in pairs if flag]
    wrong = [confidence for confidence, flag in pairs if not flag]
    if not right or not wrong:
        raise ValueError(f"expected right and wrong predictions, got {len(right)} right and {len(wrong)} wrong ones")
    return (fmean(right) + fmean(wrong)) / 2


def brier_score(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Return the mean squared difference between the confidence and the outcome (1 if correct, else 0).

    Raises ValueError as `reliability_bins` does. Paper: Brier, 1950,
    https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    _check(confidences, correct)
    return fmean((confidence - flag) ** 2 for confidence, flag in zip(confidences, correct, strict=True))


def _check(confidences: Sequence[float], correct: Sequence[bool]) -> None:
    if len(confidences) != len(correct) or not len(confidences):
        raise ValueError(
            f"expected a verdict for each of at least one confidence, got {len(correct)} for {len(confidences)}"
        )
    for confidence in confidences:
        if not 0 <= confidence <= 1 or math.isnan(confidence):
            raise ValueError(f"expected confidences from 0 to 1, got {confidence}")
