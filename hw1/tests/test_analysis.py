"""Public tests of hw1.analysis. Run them with `pytest hw1/tests/test_analysis.py`; -k TestErrorRates picks one problem.

The models are so small that every expected number can be found by hand.
"""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math

import pytest

from hw1 import analysis
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.randomness import Randomness, TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import TableModel

TOLERANCE = 1e-4  # wide enough for a solution that computes in float32

# Token 0 ends a continuation. After a context that is not in the table it comes with certainty.
# P after []: [0] .2, [1, 0] .3, [1, 1, 0] .2, [1, 2, 0] 0, [2, 0] .3.
MODEL = TableModel({(): [0.2, 0.5, 0.3], (1,): [0.6, 0.4, 0.0]}, eos_token_id=0)


class TestErrorRates:
    """Whose fault it is."""

    def test_search_errors(self) -> None:
        """A search error is a decoded continuation less probable than the best one."""
        decoded = [[1, 0], [0], [1, 1, 0], [1, 0]]
        gold = best = [[1, 0]] * 4
        actual = analysis.error_rates(MODEL, [[]] * 4, decoded, gold, best)
        assert_close(actual.search, 1 / 2, TOLERANCE, "the share of search errors")
        assert_close(actual.model, 0.0, TOLERANCE, "the share of model errors")

    def test_model_errors(self) -> None:
        """A model error is a gold continuation less probable than the best one, whatever was decoded."""
        decoded = [[1, 0], [0], [1, 0]]
        gold = [[0], [1, 1, 0], [2, 0]]  # [2, 0] is as probable as [1, 0]
        actual = analysis.error_rates(MODEL, [[]] * 3, decoded, gold, [[1, 0]] * 3)
        assert_close(actual.search, 1 / 3, TOLERANCE, "the share of search errors")
        assert_close(actual.model, 2 / 3, TOLERANCE, "the share of model errors")

    def test_after_a_prompt(self) -> None:
        """Continuations are scored given their prompt; without prompts, or with one missing, it raises ValueError."""
        actual = analysis.error_rates(MODEL, [[1], []], [[0], [0]], [[2, 0], [1, 0]], [[0], [1, 0]])
        assert_close(actual.search, 1 / 2, TOLERANCE, "the share of search errors")
        assert_close(actual.model, 1 / 2, TOLERANCE, "the share of model errors")
        with pytest.raises(ValueError):
            analysis.error_rates(MODEL, [], [], [], [])
        with pytest.raises(ValueError):
            analysis.error_rates(MODEL, [[]], [[0]], [], [[0]])


class TestDistinctN:
    """Different n-grams."""

    def test_by_hand(self) -> None:
        """The result is the number of different n-grams of all samples over the number of n-grams."""
        samples = [[4, 5, 4, 5], [5, 6]]
        assert_close(analysis.distinct_n(samples, 1), 3 / 6, TOLERANCE, "distinct-1")
        assert_close(analysis.distinct_n(samples, 2), 3 / 4, TOLERANCE, "distinct-2")
        assert_close(analysis.distinct_n(samples, 3), 2 / 2, TOLERANCE, "distinct-3")

    def test_limits(self) -> None:
        """Without any n-gram the result is 0; n = 0 raises ValueError."""
        assert_close(analysis.distinct_n([[1, 2], [3]], 3), 0.0, TOLERANCE, "distinct-3 of short samples")
        with pytest.raises(ValueError):
            analysis.distinct_n([[1, 2], [3]], 0)


class TestTemperatureCurve:
    """Diversity against quality."""

    def test_two_samples_of_one_token(self) -> None:
        """Two samples are drawn at the temperature, and scored at temperature 1."""
        model = TableModel({(1,): [0.8, 0.2]}, eos_token_id=0)
        # At temperature .5 the probabilities are squared and normalised: .64 / .68 and .04 / .68.
        p, q = 16 / 17, 1 / 17
        qualities = {"both [0]": math.log(0.8), "different": math.log(0.16) / 2, "both [1]": math.log(0.2)}

        def run(rng: Randomness) -> tuple[float, str]:
            (point,) = analysis.temperature_curve(model, [1], [0.5], num_samples=2, max_tokens=1, rng=rng)
            found = [name for name, quality in qualities.items() if abs(quality - point.quality) < TOLERANCE]
            return point.diversity, found[0] if found else f"quality {point.quality}"

        expected = {(0.5, "both [0]"): p * p, (1.0, "different"): 2 * p * q, (0.5, "both [1]"): q * q}
        assert_same_distribution(enumerate_outcomes(run), expected, TOLERANCE)

    def test_where_nothing_is_left_to_chance(self) -> None:
        """There is a point for each temperature, in the order given; samples of one kind have diversity 1 / samples."""
        model = TableModel({(): [0.0, 1.0]}, eos_token_id=0)
        points = analysis.temperature_curve(
            model, [], [2.0, 0.5, 1.0], num_samples=4, max_tokens=6, rng=TorchRandomness(0)
        )
        assert_equal([point.temperature for point in points], [2.0, 0.5, 1.0], "the temperatures")
        for point in points:
            assert_close(point.diversity, 1 / 4, TOLERANCE, f"the diversity at temperature {point.temperature}")
            assert_close(point.quality, 0.0, TOLERANCE, f"the quality at temperature {point.temperature}")

    def test_errors(self) -> None:
        """A temperature of 0, no samples and no tokens raise ValueError."""
        for temperatures, num_samples, max_tokens in (([0.0], 1, 1), ([1.0], 0, 1), ([1.0], 1, 0)):
            with pytest.raises(ValueError):
                analysis.temperature_curve(
                    MODEL, [], temperatures, num_samples=num_samples, max_tokens=max_tokens, rng=TorchRandomness(0)
                )


class TestGroupPerplexities:
    """Text by where it came from."""

    def test_by_hand(self) -> None:
        """Each group has the perplexity of all of its tokens, and a group without tokens raises ValueError."""
        actual = analysis.group_perplexities(MODEL, {"generated": [[1, 0]], "reference": [[0], [1, 1, 0]]})
        assert_equal(set(actual), {"generated", "reference"}, "the groups")
        assert_close(actual["generated"], 0.3 ** (-1 / 2), TOLERANCE, "the perplexity of 'generated'")
        assert_close(actual["reference"], 0.04 ** (-1 / 4), TOLERANCE, "the perplexity of 'reference'")
        with pytest.raises(ValueError):
            analysis.group_perplexities(MODEL, {"generated": [[1, 0]], "reference": [[]]})
