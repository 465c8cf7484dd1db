"""Hidden tests of hw1.analysis: exact, by enumeration on toy models."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import itertools
import math

import pytest

from hw1 import analysis
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.language_model import CountingModel
from shared_tasks.models.randomness import Randomness, TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import NgramModel, TableModel

TOLERANCE = 1e-5
MODEL = TableModel(
    {(): [0.3, 0.45, 0.25], (1,): [0.5, 0.2, 0.3], (2,): [0.9, 0.1, 0.0], (1, 2): [0.6, 0.2, 0.2]}, eos_token_id=0
)


class TestErrorRates:
    """Whose fault it is."""

    def test_two_kinds(self):
        """A search error is a best above the decoded output, a model error a best above the gold one.

        Compare each with the most probable continuation, not with one another.
        """
        # P after []: [0] .3, [1, 0] .225, [2, 0] .225, [1, 2, 0] .081.
        cases = [
            ([0], [0], 0, 0),
            ([1, 0], [0], 1, 0),
            ([0], [1, 2, 0], 0, 1),
            ([1, 2, 0], [1, 0], 1, 1),
            ([1, 0], [1, 2, 0], 1, 1),
        ]
        for decoded, gold, search, model in cases:
            actual = analysis.error_rates(MODEL, [[]], [decoded], [gold], [[0]])
            assert_close(actual.search, search, TOLERANCE, f"search errors of {decoded} with gold {gold}")
            assert_close(actual.model, model, TOLERANCE, f"model errors of {decoded} with gold {gold}")

    def test_shares(self):
        """Rates are shares of the prompts, and continuations are scored given their prompt.

        Score P(y | x): the prompt itself is not scored, and the mean is over prompts.
        """
        model = TableModel({(): [0.3, 0.45, 0.25], (1,): [0.5, 0.2, 0.3], (2,): [0.1, 0.9, 0.0]}, eos_token_id=0)
        prompts = [[1], [], [2], [1], []]
        best = [[0], [0], [1, 0], [0], [0]]  # after [2]: [1, 0] .9, although [0] is more probable without the prompt
        decoded = [[2, 0], [0], [0], [0], [1, 0]]
        gold = [[0], [0], [1, 0], [1, 0], [0]]
        actual = analysis.error_rates(model, prompts, decoded, gold, best)
        assert_close(actual.search, 3 / 5, TOLERANCE, "the share of search errors")
        assert_close(actual.model, 1 / 5, TOLERANCE, "the share of model errors")

    def test_other_best_of_equal_probability(self):
        """Another continuation as probable as the best is no error, and one of probability zero is.

        Compare log-probabilities, not tokens; sum over tokens, and do not divide by the length.
        """
        model = TableModel(
            {(): [0.0, 0.5, 0.5], (1,): [0.5, 0.5, 0.0], (1, 1): [1.0, 0.0, 0.0], (2,): [0.5, 0.0, 0.5]}, 0
        )
        actual = analysis.error_rates(model, [[], []], [[2, 0], [0]], [[1, 1, 0], [2, 1, 0]], [[1, 0], [1, 0]])
        assert_close(actual.search, 0.5, TOLERANCE, "the share of search errors")
        assert_close(actual.model, 0.5, TOLERANCE, "the share of model errors")

    def test_errors(self):
        """No prompt at all, or a continuation missing, raises ValueError.

        Check the four lengths.
        """
        for arguments in (
            ([], [], [], []),
            ([[]], [[0]], [], [[0]]),
            ([[]], [], [[0]], [[0]]),
            ([[]], [[0]], [[0]], []),
        ):
            with pytest.raises(ValueError):
                analysis.error_rates(MODEL, *arguments)


class TestDistinctN:
    """Different n-grams."""

    def test_by_hand(self):
        """The share of different n-grams is over all samples together, and an n-gram lies within one sample.

        Count over the whole set, not as a mean over samples.
        """
        samples = [[1, 2, 1, 2], [2, 1], [3], [1, 2, 3]]
        for n, expected in ((1, 3 / 10), (2, 3 / 6), (3, 3 / 3)):
            assert_close(analysis.distinct_n(samples, n), expected, TOLERANCE, f"distinct-{n}")
        assert_close(analysis.distinct_n([[1, 1, 1], [1, 1]], 2), 1 / 3, TOLERANCE, "distinct-2 of a loop")

    def test_limits(self):
        """Without n-grams the result is 0, and n below 1 raises ValueError.

        Samples shorter than n have no n-gram.
        """
        for samples in ([], [[]], [[1], [2, 3]]):
            assert_close(analysis.distinct_n(samples, 3), 0.0, TOLERANCE, f"distinct-3 of {samples}")
        with pytest.raises(ValueError):
            analysis.distinct_n([[1, 2]], 0)


def sequences_at(model: NgramModel, prompt: list[int], temperature: float, max_tokens: int) -> dict:
    """Return the distribution of continuations at a temperature, with their log-probability at temperature 1."""
    done, frontier = {}, {(): (1.0, 0.0)}
    for _ in range(max_tokens):
        grown = {}
        for y, (mass, score) in frontier.items():
            row = model.next_token_logprobs([[*prompt, *y]])[0]
            for token, p in enumerate((row / temperature).softmax(-1).tolist()):
                target = done if token == model.eos_token_id else grown
                target[(*y, token)] = (mass * p, score + float(row[token]))
        frontier = grown
    return done | frontier


def snap(value: float, values: set[float]) -> float:
    """Return the one of the values that is the same up to rounding in float32, or else the value itself."""
    nearest = min(values, key=lambda other: abs(other - value))
    return nearest if abs(nearest - value) < 1e-4 else value


class TestTemperatureCurve:
    """Diversity against quality."""

    def test_distribution(self):
        """Diversity and quality have exactly the distribution of samples drawn at each temperature.

        Draw at the temperature, but score without it; sum over tokens, mean over samples.
        """
        model = NgramModel(vocab_size=3, order=2, seed=61)

        def point(temperature: float) -> dict:
            found = {}
            for (a, (p, s)), (b, (q, t)) in itertools.product(
                sequences_at(model, [2], temperature, 1).items(), repeat=2
            ):
                key = (temperature, len({a, b}) / 2, round((s + t) / 2, 6))
                found[key] = found.get(key, 0) + p * q
            return found

        first, second = point(2.0), point(0.5)
        qualities = {quality for _, _, quality in first | second}

        def run(rng: Randomness) -> tuple[float, ...]:
            points = analysis.temperature_curve(model, [2], [2.0, 0.5], num_samples=2, max_tokens=1, rng=rng)
            return tuple(v for p in points for v in (p.temperature, p.diversity, snap(p.quality, qualities)))

        expected = {(*a, *b): p * q for a, p in first.items() for b, q in second.items()}
        assert_same_distribution(enumerate_outcomes(run), expected, 1e-5)

    def test_longer_samples(self):
        """Samples end with the end token or at max_tokens, and are compared as wholes.

        Samples that have ended are not extended, and their end token is scored.
        """
        model = NgramModel(vocab_size=3, order=2, seed=62, eos_token_id=2)
        sequences = sequences_at(model, [], 1.6, 2)

        expected = {}
        for (a, (p, s)), (b, (q, t)) in itertools.product(sequences.items(), repeat=2):
            key = (len({a, b}) / 2, round((s + t) / 2, 6))
            expected[key] = expected.get(key, 0) + p * q
        qualities = {quality for _, quality in expected}

        def run(rng: Randomness) -> tuple[float, float]:
            (p,) = analysis.temperature_curve(model, [], [1.6], num_samples=2, max_tokens=2, rng=rng)
            return p.diversity, snap(p.quality, qualities)

        assert_same_distribution(enumerate_outcomes(run), expected, 1e-5)

    def test_limits(self):
        """Ten equal samples have diversity .1, there is no point without a temperature, and bad settings are refused.

        Diversity is different samples over samples.
        """
        model = CountingModel(TableModel({(1,): [0.0, 1.0], (1, 1): [1.0, 0.0]}, 0))
        (point,) = analysis.temperature_curve(model, [1], [3.0], num_samples=10, max_tokens=5, rng=TorchRandomness(0))
        assert_close(point.diversity, 0.1, TOLERANCE, "the diversity")
        assert_close(point.quality, 0.0, TOLERANCE, "the quality")
        empty = analysis.temperature_curve(model, [1], [], num_samples=1, max_tokens=1, rng=TorchRandomness(0))
        assert_equal(empty, [], "the points")
        for temperatures, num_samples, max_tokens in (([1.0, 0.0], 2, 2), ([1.0], 0, 2), ([1.0], 2, 0)):
            with pytest.raises(ValueError):
                analysis.temperature_curve(
                    model, [1], temperatures, num_samples=num_samples, max_tokens=max_tokens, rng=TorchRandomness(0)
                )


class TestGroupPerplexities:
    """Text by where it came from."""

    def test_by_hand(self):
        """Each group has the perplexity of its own tokens, every token weighing the same.

        Sum log-probabilities and tokens over a group, divide once, then exp.
        """
        groups = {"model": [[0], [1, 2, 0]], "people": [[2, 1], [], [1, 0]]}
        actual = analysis.group_perplexities(MODEL, groups)
        assert_equal(set(actual), set(groups), "the groups")
        assert_close(actual["model"], (0.3 * 0.45 * 0.3 * 0.6) ** (-1 / 4), TOLERANCE, "the perplexity of 'model'")
        assert_close(actual["people"], (0.25 * 0.1 * 0.45 * 0.5) ** (-1 / 4), TOLERANCE, "the perplexity of 'people'")

    def test_limits(self):
        """A token of probability zero makes its group infinite, and a group without tokens raises ValueError.

        Other groups stay as they are.
        """
        actual = analysis.group_perplexities(MODEL, {"a": [[2, 2]], "b": [[1]]})
        assert_close(actual["a"], math.inf, 0, "the perplexity of an impossible text")
        assert_close(actual["b"], 1 / 0.45, TOLERANCE, "the perplexity of [1]")
        for groups in ({"a": [[1]], "b": []}, {"a": [[]]}):
            with pytest.raises(ValueError):
                analysis.group_perplexities(MODEL, groups)
