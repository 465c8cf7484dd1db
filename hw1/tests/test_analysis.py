"""Public tests of `hw1/analysis.py`: run them with `pytest hw1/tests/test_analysis.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math

import pytest

from hw1 import analysis
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.randomness import Randomness, TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import TableModel

TOLERANCE = 1e-5  # wide enough for a solution that computes in float32

# Token 0 ends a sequence. After a context that is not in the table it comes with certainty.
MODEL = TableModel({(): [0.4, 0.6], (1,): [0.5, 0.5]}, eos_token_id=0)


class TestErrorRates:
    """Whose fault it is."""

    def test_by_hand(self) -> None:
        """Counts a search error where the best beats what was decoded, and a model error where it beats gold."""
        # P: [0] .4, [1, 0] .3, [1, 1, 0] .3. The best is [0].
        decoded, gold = [[0], [1, 0], [0], [1, 1, 0]], [[0], [0], [1, 0], [1, 0]]
        actual = analysis.error_rates(MODEL, [[]] * 4, decoded, gold, [[0]] * 4)
        assert_close(actual.search, 0.5, TOLERANCE, "the share of search errors")
        assert_close(actual.model, 0.5, TOLERANCE, "the share of model errors")

    def test_refuses_uneven_lists(self) -> None:
        """Raises ValueError unless there are as many continuations of each kind as prompts."""
        with pytest.raises(ValueError):
            analysis.error_rates(MODEL, [[], []], [[0]], [[0], [0]], [[0], [0]])


class TestDistinctN:
    """Different n-grams."""

    def test_by_hand(self) -> None:
        """Divides the different n-grams by all n-grams, over all samples together."""
        samples = [[1, 2, 3], [1, 2], [4]]
        assert_close(analysis.distinct_n(samples, 1), 4 / 6, TOLERANCE, "distinct-1 of [1, 2, 3], [1, 2] and [4]")
        assert_close(analysis.distinct_n(samples, 2), 2 / 3, TOLERANCE, "distinct-2 of [1, 2, 3], [1, 2] and [4]")

    def test_no_ngram(self) -> None:
        """Gives 0 where there is no n-gram, and raises ValueError for n below 1."""
        assert_close(analysis.distinct_n([[1], []], 2), 0.0, TOLERANCE, "distinct-2 of [1] and []")
        with pytest.raises(ValueError):
            analysis.distinct_n([[1]], 0)


class TestTemperatureCurve:
    """Diversity against quality."""

    def test_distribution(self) -> None:
        """Draws at the temperature, and scores under the model itself."""

        def run(rng: Randomness) -> tuple[float, float]:
            (point,) = analysis.temperature_curve(MODEL, [], [0.5], num_samples=2, max_tokens=1, rng=rng)
            return round(point.diversity, 3), round(point.quality, 3)

        a, b = 0.16 / 0.52, 0.36 / 0.52  # .4 and .6 at temperature .5
        expected = {
            (0.5, round(math.log(0.4), 3)): a * a,
            (0.5, round(math.log(0.6), 3)): b * b,
            (1.0, round((math.log(0.4) + math.log(0.6)) / 2, 3)): 2 * a * b,
        }
        assert_same_distribution(enumerate_outcomes(run), expected, TOLERANCE)

    def test_refuses_temperature_zero(self) -> None:
        """Has a point for each temperature in the order given, and raises ValueError for temperature 0."""
        rng = TorchRandomness(0)
        points = analysis.temperature_curve(MODEL, [], [2.0, 0.5], num_samples=3, max_tokens=4, rng=rng)
        assert_equal([point.temperature for point in points], [2.0, 0.5], "the temperatures of the points")
        with pytest.raises(ValueError):
            analysis.temperature_curve(MODEL, [], [0.0], num_samples=3, max_tokens=4, rng=rng)


class TestGroupPerplexities:
    """Text by where it came from."""

    def test_by_hand(self) -> None:
        """Lets every token of a group weigh the same, whichever sequence it is in."""
        actual = analysis.group_perplexities(MODEL, {"short": [[0]], "mixed": [[0], [1, 1, 0]]})
        assert_close(actual["short"], 1 / 0.4, TOLERANCE, "the perplexity of [0]")
        assert_close(actual["mixed"], (0.4 * 0.3) ** (-1 / 4), TOLERANCE, "the perplexity of [0] and [1, 1, 0]")

    def test_group_without_tokens(self) -> None:
        """Raises ValueError for a group that has no token."""
        with pytest.raises(ValueError):
            analysis.group_perplexities(MODEL, {"empty": [[]]})
