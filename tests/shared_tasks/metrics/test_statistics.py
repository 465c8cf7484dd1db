"""Error bars: closed forms against values worked out by hand."""

import math

import pytest

from shared_tasks.metrics.statistics import bootstrap_standard_error, paired_comparison, standard_error

FIFTEEN_OF_100 = [1.0] * 15 + [0.0] * 85


def test_standard_error_of_an_accuracy() -> None:
    """15 right of 100: sqrt(.15 · .85 / 100) = .0357, to four digits not the .0359 of the divisor n - 1."""
    assert round(standard_error(FIFTEEN_OF_100), 4) == 0.0357
    assert standard_error(FIFTEEN_OF_100) == pytest.approx(math.sqrt(0.15 * 0.85 / 100), abs=1e-15)


def test_bootstrap_agrees_with_the_closed_form_and_is_seeded() -> None:
    """20,000 resamples give the closed form within 3 %, and the same seed the same number."""
    error = bootstrap_standard_error(FIFTEEN_OF_100, resamples=20_000, seed=1)
    assert error == pytest.approx(standard_error(FIFTEEN_OF_100), rel=0.03)
    assert error == bootstrap_standard_error(FIFTEEN_OF_100, resamples=20_000, seed=1)
    assert error != bootstrap_standard_error(FIFTEEN_OF_100, resamples=20_000, seed=2)


def test_clusters_of_one_change_nothing() -> None:
    """Every score its own question: the clustered error is the plain one."""
    assert standard_error(FIFTEEN_OF_100, list(range(100))) == pytest.approx(standard_error(FIFTEEN_OF_100), abs=1e-15)


def test_identical_samples_of_a_question_count_once() -> None:
    """Four copies of each score have the error of one copy each; taken as independent it would be half."""
    copies = [score for score in FIFTEEN_OF_100 for _ in range(4)]
    questions = [question for question in range(100) for _ in range(4)]
    assert standard_error(copies, questions) == pytest.approx(standard_error(FIFTEEN_OF_100), abs=1e-15)
    assert standard_error(copies) == pytest.approx(standard_error(FIFTEEN_OF_100) / 2, abs=1e-15)
    clustered = bootstrap_standard_error(copies, questions, resamples=500, seed=3)
    assert clustered == pytest.approx(bootstrap_standard_error(FIFTEEN_OF_100, resamples=500, seed=3), abs=1e-12)


def test_clusters_need_not_be_neighbours() -> None:
    """Clusters are found by name: scores a b a b with values 1 0 0 0 have error sqrt(.5² + .5²) / 4."""
    assert standard_error([1, 0, 0, 0], ["a", "b", "a", "b"]) == pytest.approx(math.sqrt(0.5) / 4)


def test_paired_comparison_by_hand() -> None:
    """Differences 1 1 1 0: mean .75, error sqrt(.75 / 16), p = 2 · 2^-3, the interval 1.96 errors wide each way."""
    result = paired_comparison([0, 0, 0, 1], [1, 1, 1, 1])
    error = math.sqrt(0.1875 / 4)
    assert result.difference == 0.75
    assert result.standard_error == pytest.approx(error)
    assert result.p_value == pytest.approx(0.25)
    assert (result.low, result.high) == pytest.approx((0.75 - 1.96 * error, 0.75 + 1.96 * error), abs=1e-4)


def test_pairing_sees_what_two_error_bars_hide() -> None:
    """Ten items better and none worse of 1,000: p = 2^-9, while the unpaired errors overlap widely."""
    first = [1.0] * 500 + [0.0] * 500
    second = [1.0] * 510 + [0.0] * 490
    assert paired_comparison(first, second).p_value == pytest.approx(2**-9)


def test_0_1_scores_give_mcnemars_exact_test() -> None:
    """8 items better, 2 worse: p = 2 · (C(10,8) + C(10,9) + C(10,10)) / 2^10, whatever the number of equal items."""
    first = [0.0] * 8 + [1.0] * 2 + [1.0] * 100
    second = [1.0] * 8 + [0.0] * 2 + [1.0] * 100
    assert paired_comparison(first, second).p_value == pytest.approx(2 * 56 / 1024)


def test_all_sign_patterns_are_counted_for_few_pairs() -> None:
    """Differences .1, .2, .4: only the patterns +++ and --- are as large as .7, so p = 2/8."""
    assert paired_comparison([0, 0, 0], [0.1, 0.2, 0.4]).p_value == pytest.approx(2 / 8)
    assert paired_comparison([0, 0, 0], [-0.1, 0.2, 0.4]).p_value == pytest.approx(4 / 8)


def test_drawn_patterns_are_seeded_and_near_the_exact_value() -> None:
    """With 14 uneven pairs the p-value from 4,000 draws is within .03 of the one from all 16,384 patterns."""
    first = [0.0] * 14
    second = [0.31, -0.2, 0.5, 0.11, -0.42, 0.23, 0.37, -0.15, 0.29, 0.08, -0.33, 0.41, 0.19, -0.07]
    exact = paired_comparison(first, second, permutations=2**14).p_value
    drawn = paired_comparison(first, second, permutations=4_000, seed=5).p_value
    assert 0.05 < exact < 0.5
    assert drawn == pytest.approx(exact, abs=0.03)
    assert drawn == paired_comparison(first, second, permutations=4_000, seed=5).p_value


def test_equal_runs_do_not_differ() -> None:
    """A run against itself: difference 0, error 0, p = 1."""
    result = paired_comparison(FIFTEEN_OF_100, FIFTEEN_OF_100)
    assert (result.difference, result.standard_error, result.p_value) == (0.0, 0.0, 1.0)


def test_the_sign_tells_the_better_run() -> None:
    """The difference is second minus first; swapping the runs negates it and keeps the p-value."""
    ahead, behind = paired_comparison([0, 0, 1], [1, 1, 1]), paired_comparison([1, 1, 1], [0, 0, 1])
    assert ahead.difference == -behind.difference > 0
    assert ahead.p_value == behind.p_value


def test_samples_of_a_question_flip_together() -> None:
    """Four better samples of one question are one coin flip: p = 1, not 2^-3."""
    assert paired_comparison([0, 0, 0, 0], [1, 1, 1, 1], clusters=["q"] * 4).p_value == 1.0
    assert paired_comparison([0, 0, 0, 0], [1, 1, 1, 1]).p_value == pytest.approx(2**-3)


def test_bad_input_is_refused() -> None:
    """No score, NaN, unequal runs and missing clusters are errors that say what was expected."""
    for scores in ([], [math.nan], [math.inf]):
        with pytest.raises(ValueError, match="expected"):
            standard_error(scores)
    with pytest.raises(ValueError, match="same items"):
        paired_comparison([1], [1, 0])
    with pytest.raises(ValueError, match="cluster for each"):
        standard_error([1, 0], ["a"])
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_standard_error([1, 0], resamples=1)
