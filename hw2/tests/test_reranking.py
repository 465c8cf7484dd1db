"""Public tests of `hw2/reranking.py`: run them with `pytest hw2/tests/test_reranking.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math

import pytest
import torch

from hw2 import reranking
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.engine import Completion, SamplingParams
from shared_tasks.models.randomness import enumerate_outcomes
from shared_tasks.models.scripted import ScriptedEngine

TOLERANCE = 1e-5  # wide enough for a solution that computes in float32


def completion(text: str, *logprobs: float) -> Completion:
    """Return a completion with these log-probabilities of its tokens."""
    return Completion(text, list(range(len(logprobs))), list(logprobs), "stop")


class TestGenerateAndRerank:
    """Draw, score, keep the best."""

    def test_keeps_the_candidate_with_the_highest_score(self) -> None:
        """Returns the candidate that the reranker gives the highest score."""
        model = ScriptedEngine({"2 + 2 =": ["5", "4", "22"]})
        best = reranking.generate_and_rerank(
            model, lambda x, ys: [1.0 if y.text == "4" else 0.0 for y in ys], 3, "2 + 2 ="
        )
        assert_equal(best.text, "4", "the text of the candidate with the highest score")

    def test_asks_for_all_candidates_at_once(self) -> None:
        """Draws all candidates with one request, so that the prompt is paid once."""
        model = ScriptedEngine({"x": ["a", "b", "c", "d"]})
        params = SamplingParams(temperature=0.7, max_tokens=5)
        reranking.generate_and_rerank(model, lambda x, ys: [float(i) for i in range(len(ys))], 4, "x", params)
        assert_equal(model.calls, [["x"]], "the prompts of each call")
        assert_equal(model.params, [SamplingParams(n=4, temperature=0.7, max_tokens=5)], "the sampling parameters")

    def test_refuses(self) -> None:
        """Raises ValueError for fewer than one candidate, and for a reranker that skips a candidate."""
        model = ScriptedEngine(lambda x, params: ["a"] * params.n)
        assert_equal(reranking.generate_and_rerank(model, lambda x, ys: [1.0], 1, "x").text, "a", "the one candidate")
        with pytest.raises(ValueError):
            reranking.generate_and_rerank(model, lambda x, ys: [1.0], 0, "x")
        with pytest.raises(ValueError):
            reranking.generate_and_rerank(model, lambda x, ys: [1.0], 2, "x")


class TestLogprobScores:
    """Sum and mean log-probability."""

    def test_sum_and_mean(self) -> None:
        """Returns the sum of the log-probabilities for length_penalty 0 and their mean for 1."""
        candidates = [completion("short", -1.0), completion("a long one", -0.5, -0.25, -0.75)]
        assert_close(torch.tensor(reranking.logprob_scores(candidates, 0.0)), [-1.0, -1.5], TOLERANCE, "sums")
        assert_close(torch.tensor(reranking.logprob_scores(candidates, 1.0)), [-1.0, -0.5], TOLERANCE, "means")

    def test_needs_logprobs(self) -> None:
        """Divides by a power of the length, and raises ValueError where there are no log-probabilities."""
        scores = reranking.logprob_scores([completion("four", -1.0, -1.0, -1.0, -3.0)], 0.5)
        assert_close(scores[0], -3.0, TOLERANCE, "-6 / √4")
        with pytest.raises(ValueError):
            reranking.logprob_scores([completion("none")], 0.0)


class TestLikelihoodScores:
    """Another model's opinion."""

    def test_scores_under_the_given_model(self) -> None:
        """Returns log P(text | x) under the model given, whatever the engine that drew the candidates told."""
        model = ScriptedEngine({}, logprobs=lambda x, y: {"yes": [-1.0, -2.0], "no": [-0.5]}[y])
        scores = reranking.likelihood_scores(model, "x", [completion("yes", -0.1), completion("no", -9.0)])
        assert_close(torch.tensor(scores), [-3.0, -0.5], TOLERANCE, "scores of yes and no")

    def test_one_call(self) -> None:
        """Scores all candidates in one call, every different text once."""
        model = ScriptedEngine({}, logprobs=lambda x, y: [-float(len(y))])
        scores = reranking.likelihood_scores(model, "x", [completion(text, -1.0) for text in ("aa", "b", "aa")])
        assert_close(torch.tensor(scores), [-2.0, -1.0, -2.0], TOLERANCE, "scores of aa, b, aa")
        assert_equal([sorted(call) for call in model.scored], [[("x", "aa"), ("x", "b")]], "the pairs of each call")


class TestRewardScores:
    """A scalar reward."""

    def test_every_text_once(self) -> None:
        """Returns the reward of every candidate, and asks for that of every different text once."""
        asked = []

        def reward(x: str, y: str) -> float:
            asked.append((x, y))
            return float(len(y))

        scores = reranking.reward_scores(reward, "x", [completion(text, -1.0) for text in ("aa", "b", "aa")])
        assert_close(torch.tensor(scores), [2.0, 1.0, 2.0], TOLERANCE, "rewards of aa, b, aa")
        assert_equal(sorted(asked), [("x", "aa"), ("x", "b")], "the rewards asked for")


QUALITY = {"good": 2.0, "fair": 1.0, "poor": 0.0}


def first_is_better(x: str, first: str, second: str) -> float:
    """Judge by quality alone."""
    return 1 / (1 + math.exp(QUALITY[second] - QUALITY[first]))


class TestFullTournament:
    """Everyone meets everyone."""

    def test_expected_wins(self) -> None:
        """Adds up the chances of each text against all others."""
        even, one, two = 0.5, 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
        wins = reranking.full_tournament(first_is_better, "x", ["fair", "good", "poor"])
        assert_close(torch.tensor(wins), [1 - one + one, one + two, 2 - one - two], TOLERANCE, "wins")
        wins = reranking.full_tournament(first_is_better, "x", ["fair", "fair"])
        assert_close(torch.tensor(wins), [even, even], TOLERANCE, "wins of two equal texts")

    def test_order_is_swapped(self) -> None:
        """Shows every pair in both orders, so that a liking for one place has no effect."""
        asked = []

        def prefers_first(x: str, first: str, second: str) -> float:
            asked.append((first, second))
            return 1.0

        wins = reranking.full_tournament(prefers_first, "x", ["a", "b", "c"])
        assert_close(torch.tensor(wins), [1.0, 1.0, 1.0], TOLERANCE, "wins under a judge who always takes the first")
        expected = [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]
        assert_equal(sorted(asked), expected, "the comparisons")


class TestKnockoutTournament:
    """Winners go on."""

    def test_the_best_text_wins(self) -> None:
        """Returns the place of a text that beats every other, wherever it stands."""
        for place in range(5):
            texts = ["poor"] * 5
            texts[place] = "good"
            assert_equal(reranking.knockout_tournament(first_is_better, "x", texts), place, f"the winner of {texts}")

    def test_number_of_comparisons(self) -> None:
        """Takes 2 (n - 1) comparisons, and raises ValueError when there is no text."""
        for n in (1, 2, 5, 8):
            asked = []

            def prefer(x: str, first: str, second: str, asked: list = asked) -> float:
                asked.append((first, second))
                return float(first > second)

            assert_equal(reranking.knockout_tournament(prefer, "x", list("abcdefgh"[:n])), n - 1, "the winner")
            assert_equal(len(asked), 2 * (n - 1), f"the number of comparisons of {n} texts")
        with pytest.raises(ValueError):
            reranking.knockout_tournament(first_is_better, "x", [])


class TestSoftBestOfN:
    """A draw by reward."""

    def test_softmax_of_the_rewards(self) -> None:
        """Draws a candidate with probability proportional to exp(reward / temperature)."""
        rewards = [2 * math.log(5), 2 * math.log(3), 2 * math.log(2)]
        outcomes = enumerate_outcomes(lambda rng: reranking.soft_best_of_n(rewards, 2.0, rng))
        assert_same_distribution(outcomes, {0: 0.5, 1: 0.3, 2: 0.2}, 1e-6)

    def test_refuses(self) -> None:
        """Raises ValueError for a temperature of 0 or without rewards."""
        outcomes = enumerate_outcomes(lambda rng: reranking.soft_best_of_n([1.0], 0.1, rng))
        assert_same_distribution(outcomes, {0: 1.0}, 1e-6)
        for rewards, temperature in (([1.0, 2.0], 0.0), ([], 1.0)):
            with pytest.raises(ValueError):
                enumerate_outcomes(lambda rng, r=rewards, t=temperature: reranking.soft_best_of_n(r, t, rng))


class TestBestOfNDistribution:
    """What best-of-n does, exactly."""

    def test_by_hand(self) -> None:
        """Gives outcome i, in order of reward, the probability F(i)^n - F(i-1)^n."""
        probs, rewards = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([1.0, 2.0, 3.0, 4.0])
        actual = reranking.best_of_n_distribution(probs, rewards, 4)
        assert_close(actual, [0.0256, 0.2145, 0.4160, 0.3439], TOLERANCE, "the best of 4")

    def test_equal_rewards(self) -> None:
        """Lets outcomes of equal reward share in proportion, so that a constant reward changes nothing."""
        probs = torch.tensor([0.5, 0.2, 0.3])
        actual = reranking.best_of_n_distribution(probs, torch.tensor([7.0, 7.0, 7.0]), 5)
        assert_close(actual, [0.5, 0.2, 0.3], TOLERANCE, "the best of 5 by a constant reward")
        with pytest.raises(ValueError):
            reranking.best_of_n_distribution(probs, probs, 0)


class TestBestOfNKL:
    """How far best-of-n goes from the model."""

    def test_by_hand(self) -> None:
        """Returns KL(best-of-n || one sample) in nats, 0 for n = 1."""
        probs, rewards = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([1.0, 2.0, 3.0, 4.0])
        best = (0.0256, 0.2145, 0.4160, 0.3439)
        expected = sum(q * math.log(q / p) for q, p in zip(best, (0.4, 0.3, 0.2, 0.1), strict=True))
        assert_close(reranking.best_of_n_kl(probs, rewards, 4), expected, TOLERANCE, "KL of the best of 4")
        assert_close(reranking.best_of_n_kl(probs, rewards, 1), 0.0, TOLERANCE, "KL of a plain sample")
