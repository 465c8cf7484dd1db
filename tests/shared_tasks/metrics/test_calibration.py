"""Calibration: values worked out by hand."""

import math

import pytest

from shared_tasks.metrics.calibration import (
    Bin,
    brier_score,
    expected_calibration_error,
    macro_calibration_error,
    reliability_bins,
)

CONFIDENCES = [0.9, 0.9, 0.8, 0.8, 0.7, 0.7]
CORRECT = [True, False, True, False, True, True]


def test_values_by_hand() -> None:
    """Two bins of three: ECE .1333; MacroCE .5375; Brier .28."""
    assert expected_calibration_error(CONFIDENCES, CORRECT, 2) == pytest.approx(0.4 / 3)
    assert macro_calibration_error(CONFIDENCES, CORRECT) == pytest.approx(0.5375)
    assert brier_score(CONFIDENCES, CORRECT) == pytest.approx(0.28)


def test_bins_have_equal_mass_and_weigh_by_it() -> None:
    """Seven predictions in three bins: sizes 3, 2, 2 from the highest confidence, whatever the order given."""
    confidences = [0.1, 0.9, 0.3, 0.8, 0.2, 0.7, 0.4]
    correct = [False, True, False, True, True, False, False]
    bins = reliability_bins(confidences, correct, 3)
    assert [bin.count for bin in bins] == [3, 2, 2]
    assert bins[0] == Bin(3, pytest.approx(0.8), pytest.approx(2 / 3), lowest=0.7, highest=0.9)
    assert bins[2] == Bin(2, pytest.approx(0.15), pytest.approx(0.5), lowest=0.1, highest=0.2)
    expected = (3 * (0.8 - 2 / 3) + 2 * 0.35 + 2 * 0.35) / 7
    assert expected_calibration_error(confidences, correct, 3) == pytest.approx(expected)


def test_perfect_confidence_has_no_error() -> None:
    """Sure where right and sure to be wrong where wrong: every error is 0; the other way round it is 1."""
    for confidences, error in (([1.0, 0.0], 0.0), ([0.0, 1.0], 1.0)):
        assert expected_calibration_error(confidences, [True, False], 2) == error
        assert macro_calibration_error(confidences, [True, False]) == error
        assert brier_score(confidences, [True, False]) == error


def test_macro_error_sees_the_rare_class() -> None:
    """99 right and one wrong prediction at confidence .99: ECE is 0, MacroCE is one half."""
    confidences, correct = [0.99] * 100, [True] * 99 + [False]
    assert expected_calibration_error(confidences, correct, 1) == pytest.approx(0.0, abs=1e-12)
    assert macro_calibration_error(confidences, correct) == pytest.approx(0.5)


def test_bad_input_is_refused() -> None:
    """No prediction, percentages, NaN, a missing verdict or class, and too many bins are errors."""
    for confidences, correct in (([], []), ([90.0], [True]), ([math.nan], [True]), ([0.5], [True, False])):
        with pytest.raises(ValueError, match="expected"):
            brier_score(confidences, correct)
        with pytest.raises(ValueError, match="expected"):
            expected_calibration_error(confidences, correct, 1)
    with pytest.raises(ValueError, match="right and wrong"):
        macro_calibration_error([0.5], [True])
    for num_bins in (0, 7):
        with pytest.raises(ValueError, match="num_bins"):
            expected_calibration_error(CONFIDENCES, CORRECT, num_bins)
