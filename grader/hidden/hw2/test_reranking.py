"""Hidden tests of `hw2/reranking.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import itertools
import math
from collections.abc import Callable

import msgspec
import pytest
import torch

from grader.goldens.recording import RecordedEngine
from grader.goldens.tolerances import ARITHMETIC
from hw2 import reranking
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.engine import Completion, SamplingParams
from shared_tasks.models.randomness import enumerate_outcomes
from shared_tasks.models.scripted import ScriptedEngine

TOLERANCE = 1e-5  # wide enough for a solution that computes in float32


def completion(text: str, *logprobs: float) -> Completion:
    """Return a completion with these log-probabilities of its tokens."""
    return Completion(text, list(range(len(logprobs))), list(logprobs), "stop")


def mean_logprob(x: str, candidates: list[Completion]) -> list[float]:
    """Be a reranker."""
    return [candidate.cumulative_logprob / len(candidate.logprobs) for candidate in candidates]


def chooses(model: ScriptedEngine, scores: list[float]) -> str:
    """Return the text that is kept under these scores."""
    return reranking.generate_and_rerank(model, lambda x, ys: scores, len(scores), "x").text


class TestGenerateAndRerank:
    """Draw, score, keep the best."""

    def test_highest_score_in_any_place(self) -> None:
        """Returns the candidate with the highest score in any place, negative and infinite scores included.

        Start the search for the maximum at the first score, not at 0, and return the candidate, not its place.
        """
        for scores, best in (
            ([-5.0, -2.0, -9.0], "b"),
            ([3.0, 1.0, 2.0], "a"),
            ([-math.inf, -8.0, -1e6], "b"),
            ([1.0, 2.0, math.inf], "c"),
        ):
            model = ScriptedEngine({"x": ["a", "b", "c"]})
            assert_equal(chooses(model, scores), best, f"the text kept of a, b, c with scores {scores}")

    def test_one_request_with_the_callers_parameters(self) -> None:
        """Draws all candidates with one request that differs from the caller's parameters in n alone.

        Use n in SamplingParams: separate requests pay the prompt again, and with a seed they draw the same sample.
        """
        model = ScriptedEngine({"x y z": list("abcdef")})
        params = SamplingParams(n=2, temperature=0.3, top_p=0.9, max_tokens=7, stop=("!",), seed=11)
        best = reranking.generate_and_rerank(
            model, lambda x, ys: [float(i == 4) for i in range(len(ys))], 6, "x y z", params
        )
        assert_equal(best.text, "e", "the text kept of a to f")
        assert_equal(model.calls, [["x y z"]], "the prompts of each call")
        wanted = SamplingParams(n=6, temperature=0.3, top_p=0.9, max_tokens=7, stop=("!",), seed=11)
        assert_equal(model.params, [wanted], "the sampling parameters")

    def test_reranker_sees_prompt_and_all_candidates_once(self) -> None:
        """Calls the reranker once, with the prompt and all candidates in order, duplicates too.

        A vote or minimum Bayes risk needs to see how often an answer was drawn. Do not call the reranker per candidate.
        """
        seen = []

        def reranker(x: str, candidates: list[Completion]) -> list[float]:
            seen.append((x, [(y.text, y.logprobs) for y in candidates]))
            return [0.0, 1.0, 0.0, 1.0]

        model = ScriptedEngine({"x": [("b", [-1.0]), ("a", [-2.0]), ("b", [-1.0]), ("a", [-2.0])]})
        best = reranking.generate_and_rerank(model, reranker, 4, "x")
        assert_equal((best.text, best.logprobs), ("a", [-2.0]), "the candidate kept")
        expected = [("x", [("b", [-1.0]), ("a", [-2.0]), ("b", [-1.0]), ("a", [-2.0])])]
        assert_equal(seen, expected, "what the reranker was called with")

    def test_refuses(self) -> None:
        """Raises ValueError for fewer than one candidate, a wrong number of scores, and a score that is NaN.

        Comparisons with NaN are false, so that a maximum over scores with NaN depends on their order: check first.
        """
        assert_equal(chooses(ScriptedEngine({"x": ["a", "b"]}), [0.5, 0.25]), "a", "the text kept")
        for count, scores in ((0, []), (-1, []), (2, [1.0]), (2, [1.0, 2.0, 3.0]), (2, [1.0, math.nan])):
            model = ScriptedEngine(lambda x, params: ["a"] * params.n)
            with pytest.raises(ValueError):
                reranking.generate_and_rerank(model, lambda x, ys, s=scores: s, count, "x")

    @pytest.mark.reference("best_of_n")
    def test_real_model(self, golden) -> None:
        """Keeps the best sample of a real model by mean log-probability; of nearly equal ones either is right.

        Real samples are alike: compare their scores, not what they say.
        """
        for case in golden:
            model, params = RecordedEngine(case["recording"]), msgspec.convert(case["params"], SamplingParams)
            best = reranking.generate_and_rerank(model, mean_logprob, case["n"], case["prompt"], params)
            assert_close(mean_logprob("", [best])[0], case["score"], ARITHMETIC, "the score of the sample that is kept")
            assert_equal(model.strayed, 0, "the number of requests that nothing asks for")


class TestLogprobScores:
    """Sum and mean log-probability."""

    def test_sum_mean_and_between(self) -> None:
        """Divides the sum of the log-probabilities by length ** length_penalty, for any penalty.

        The length is the number of tokens, not of words or characters. The divisor is a power of it, not a multiple.
        """
        candidates = [
            completion("one word", -0.7),
            completion("x", -0.5, -0.25, -0.75, -0.1, -2.4),
            completion("", -0.2, -0.9),
        ]
        for penalty in (0.0, 0.5, 1.0, 2.0):
            expected = [-0.7, -4.0 / 5**penalty, -1.1 / 2**penalty]
            actual = torch.tensor(reranking.logprob_scores(candidates, penalty))
            assert_close(actual, expected, TOLERANCE, f"scores at length_penalty {penalty}")

    def test_needs_logprobs(self) -> None:
        """Scores an impossible candidate -inf, and raises ValueError for any one without log-probabilities.

        An empty sum is 0, the best score there is: a candidate whose engine told nothing must not win.
        """
        scores = reranking.logprob_scores([completion("a", -1.0, -math.inf), completion("b", -3.0)], 1.0)
        assert_close(torch.tensor(scores), [-math.inf, -3.0], TOLERANCE, "scores with an impossible token")
        for penalty in (0.0, 1.0):
            with pytest.raises(ValueError):
                reranking.logprob_scores([completion("a", -1.0), completion("b")], penalty)


class TestLikelihoodScores:
    """Another model's opinion."""

    def test_total_under_the_given_model(self) -> None:
        """Returns the total log-probability of each text given the prompt under the model given.

        Ask the model for log P(text | x); the log-probabilities in the candidates are another model's. Nothing is
        divided by a length.
        """
        table = {"aa": [-1.5, -0.5, -1.0], "b": [-2.5], "c": [-0.25] * 8}
        model = ScriptedEngine({}, logprobs=lambda x, y: table[y] if x == "why?" else [-99.0])
        scores = reranking.likelihood_scores(model, "why?", [completion(text, -0.1, -0.1) for text in ("c", "aa", "b")])
        assert_close(torch.tensor(scores), [-2.0, -3.0, -2.5], TOLERANCE, "scores of c, aa, b")
        assert_equal(model.calls, [], "the calls of generate")

    def test_one_call_for_different_texts(self) -> None:
        """Takes one call for all candidates, scores every different text once, and answers in the candidates' order.

        Collect the different texts first. Compare whole texts, white space too.
        """
        model = ScriptedEngine({}, logprobs=lambda x, y: [-float(len(y))])
        texts = ["z", "long text", "z", " z", "mid", "long text"]
        scores = reranking.likelihood_scores(model, "x", [completion(text, -1.0) for text in texts])
        assert_close(torch.tensor(scores), [-float(len(t)) for t in texts], TOLERANCE, f"scores of {texts}")
        assert_equal(len(model.scored), 1, "the number of calls")
        assert_equal(sorted(model.scored[0]), sorted(("x", t) for t in set(texts)), "the pairs scored")

    @pytest.mark.reference("likelihoods")
    def test_real_model(self, golden) -> None:
        """Gives samples the log-likelihoods that a real model finds when it reads them.

        Reading a text may split it into other tokens than writing it did: ask the model.
        """
        for case in golden:
            model = RecordedEngine(case["recording"])
            candidates = msgspec.convert(case["candidates"], list[Completion])
            scores = reranking.likelihood_scores(model, case["prompt"], candidates)
            assert_close(torch.tensor(scores), case["scores"], ARITHMETIC, "the scores of samples")
            assert_equal(model.strayed, 0, "the number of requests that nothing asks for")


class TestRewardScores:
    """A scalar reward."""

    def test_rewards_in_order(self) -> None:
        """Returns the reward of the prompt and each text, unchanged, in the order of the candidates.

        The reward's first argument is the prompt. Rewards may be negative, and are neither normalised nor sorted.
        """
        scores = reranking.reward_scores(
            lambda x, y: {("p", "u"): -3.5, ("p", "v"): 12.0, ("p", ""): 0.0}[x, y],
            "p",
            [completion(t, -1.0) for t in ("u", "v", "")],
        )
        assert_close(torch.tensor(scores), [-3.5, 12.0, 0.0], TOLERANCE, "rewards of u, v and the empty text")

    def test_every_text_once(self) -> None:
        """Asks for the reward of every different text once.

        Reward models are as expensive as generators: look a text up before you score it again.
        """
        asked = []

        def reward(x: str, y: str) -> float:
            asked.append(y)
            return float(ord(y[0]))

        texts = ["b", "a", "b", "b", "c", "a"]
        scores = reranking.reward_scores(reward, "x", [completion(text, -1.0) for text in texts])
        assert_close(torch.tensor(scores), [float(ord(t)) for t in texts], TOLERANCE, f"rewards of {texts}")
        assert_equal(sorted(asked), ["a", "b", "c"], "the texts asked for")


def biased(strengths: dict[str, float], bias: float) -> Callable[[str, str, str], float]:
    """Return a judge who compares strengths and adds a liking for the first place."""
    return lambda x, first, second: 1 / (1 + math.exp(strengths[second] - strengths[first] - bias))


STRENGTHS = {"a": 0.3, "b": -1.0, "c": 1.2, "d": 0.9}


class TestFullTournament:
    """Everyone meets everyone."""

    def test_expected_wins_without_bias(self) -> None:
        """Gives each text the sum of its chances against every other, so that all sum to n (n - 1) / 2.

        Check which of the two texts the judge's probability speaks of. A chance of .6 is .6 of a win, not a whole one.
        """
        prefer = biased(STRENGTHS, 0.0)
        expected = [sum(prefer("x", a, b) for b in STRENGTHS if b != a) for a in STRENGTHS]
        wins = reranking.full_tournament(prefer, "x", list(STRENGTHS))
        assert_close(torch.tensor(wins), expected, TOLERANCE, "wins of a, b, c, d")
        assert_close(sum(wins), 6.0, TOLERANCE, "all wins together")

    def test_bias_cancels(self) -> None:
        """Averages both orders, so that a liking for a place favours no text in any order of the list.

        Judge (i, j) and (j, i); the second answer is the probability of j.
        """
        prefer = biased(STRENGTHS, 2.5)
        for order in itertools.permutations(STRENGTHS):
            expected = [sum((prefer("x", a, b) + 1 - prefer("x", b, a)) / 2 for b in order if b != a) for a in order]
            wins = reranking.full_tournament(prefer, "x", list(order))
            assert_close(torch.tensor(wins), expected, TOLERANCE, f"wins of {order} under a judge who likes the first")

    def test_comparisons(self) -> None:
        """Makes each of the n (n - 1) ordered comparisons once, equal texts included, and no text meets itself.

        Go over places, not over different texts: a text that was drawn twice is twice in the tournament.
        """
        asked = []

        def prefer(x: str, first: str, second: str) -> float:
            asked.append((x, first, second))
            return 0.75 if first < second else 0.5 if first == second else 0.25

        wins = reranking.full_tournament(prefer, "q", ["b", "a", "b"])
        assert_close(torch.tensor(wins), [0.75, 1.5, 0.75], TOLERANCE, "wins of b, a, b")
        expected = [("q", "a", "b")] * 2 + [("q", "b", "a")] * 2 + [("q", "b", "b")] * 2
        assert_equal(sorted(asked), expected, "the comparisons")
        assert_equal([float(w) for w in reranking.full_tournament(prefer, "q", ["a"])], [0.0], "wins of a single text")


class TestKnockoutTournament:
    """Winners go on."""

    def test_best_text_wins_from_any_place(self) -> None:
        """Returns the place of the text that beats all others, for any number of texts, an odd one too.

        Do not lose the last text of an odd round. Return its place in the list that was given, not in the last round.
        """
        strengths = {str(i): float(i % 3) for i in range(11)}
        for n in range(1, 12):
            for place in range(n):
                texts = [str(i) for i in range(n)]
                prefer = biased(strengths | {str(place): 9.0}, 0.0)
                actual = reranking.knockout_tournament(prefer, "x", texts)
                assert_equal(actual, place, f"the winner of {n} texts with the best in place {place}")

    def test_both_orders(self) -> None:
        """Judges every match in both orders, so that a liking for a place cannot decide it.

        A judge who nearly always takes the text shown first still prefers the better text in both orders together.
        """
        for bias in (4.0, -4.0):
            for order in itertools.permutations(STRENGTHS):
                actual = reranking.knockout_tournament(biased(STRENGTHS, bias), "x", list(order))
                assert_equal(actual, order.index("c"), f"the winner of {order} under a judge with bias {bias}")

    def test_bracket(self) -> None:
        """Pairs neighbours, and lets the last of an odd number go on without a match, in each round.

        The judge prefers in a circle, so the winner depends on who meets whom. Winners keep their order, and the one
        without a match stays last.
        """
        beats = {
            ("b", "a"),
            ("c", "a"),
            ("b", "c"),
            ("d", "a"),
            ("c", "d"),
            ("b", "d"),
            ("e", "c"),
            ("e", "b"),
            ("a", "e"),
            ("d", "e"),
        }
        asked = set()

        def prefer(x: str, first: str, second: str) -> float:
            asked.add((first, second))
            return 1.0 if (first, second) in beats else 0.0

        # a-b: b, c-d: c, e stays; b-c: b, e stays; b-e: e.
        assert_equal(reranking.knockout_tournament(prefer, "x", list("abcde")), 4, "the winner of a, b, c, d, e")
        matches = {"".join(sorted(pair)) for pair in asked}
        assert_equal(matches, {"ab", "cd", "bc", "be"}, "the matches played")

    def test_number_of_comparisons(self) -> None:
        """Takes exactly 2 (n - 1) comparisons, and raises ValueError when there is no text.

        Every match sends one text home, and costs one comparison in each order.
        """
        for n in range(1, 18):
            asked = []

            def prefer(x: str, first: str, second: str, asked: list = asked) -> float:
                asked.append((first, second))
                return float(int(first) < int(second))

            winner = reranking.knockout_tournament(prefer, "x", [str(i) for i in range(n)])
            assert_equal((winner, len(asked)), (0, 2 * (n - 1)), f"winner and comparisons of {n} texts")
        with pytest.raises(ValueError):
            reranking.knockout_tournament(lambda x, first, second: 0.5, "x", [])


def soft(rewards: list[float], temperature: float) -> dict[int, float]:
    """Return the exact distribution of the draw."""
    return enumerate_outcomes(lambda rng: reranking.soft_best_of_n(rewards, temperature, rng))


class TestSoftBestOfN:
    """A draw by reward."""

    def test_distribution(self) -> None:
        """Draws each candidate with probability proportional to exp(reward / temperature).

        Temperature divides. Equal rewards have equal chances, wherever they stand.
        """
        rewards = [0.4, -1.3, 2.2, 0.4]
        for temperature in (0.3, 1.0, 5.0):
            weights = [math.exp(reward / temperature) for reward in rewards]
            expected = {i: weight / sum(weights) for i, weight in enumerate(weights)}
            assert_same_distribution(soft(rewards, temperature), expected, 1e-6)

    def test_large_rewards(self) -> None:
        """Draws as it should for rewards of any size.

        exp(1000) overflows: subtract the largest reward first, or use torch's softmax.
        """
        for shift in (-5000.0, 5000.0):
            expected = {0: 1 / (1 + math.e), 1: math.e / (1 + math.e)}
            assert_same_distribution(soft([shift, shift + 2.0], 2.0), expected, 1e-4)

    def test_refuses(self) -> None:
        """Takes one draw, and raises ValueError for a temperature of 0 or below and without rewards.

        Check the temperature before you divide by it.
        """
        outcomes = enumerate_outcomes(lambda rng: reranking.soft_best_of_n([1.0, 1.0, 1.0], 2.0, rng), max_draws=1)
        assert_same_distribution(outcomes, {0: 1 / 3, 1: 1 / 3, 2: 1 / 3}, 1e-6)
        for rewards, temperature in (([1.0, 2.0], 0.0), ([1.0, 2.0], -1.0), ([], 1.0)):
            with pytest.raises(ValueError):
                soft(rewards, temperature)


def brute_force(probs: list[float], rewards: list[float], n: int) -> list[float]:
    """Return the distribution of the first best one of n samples, by listing all n-tuples."""
    best = [0.0] * len(probs)
    for drawn in itertools.product(range(len(probs)), repeat=n):
        best[max(drawn, key=lambda i: rewards[i])] += math.prod(probs[i] for i in drawn)
    return best


CASES = [
    ([0.1, 0.35, 0.05, 0.3, 0.2], [2.0, -1.0, 5.0, 3.0, 0.5]),
    ([0.25, 0.3, 0.1, 0.35], [1.0, 2.0, 2.0, 1.0]),
    ([0.5, 0.0, 0.3, 0.2, 0.0], [1.0, 4.0, -2.0, 1.0, 9.0]),
    ([0.2, 0.8], [3.0, 3.0]),
]


class TestBestOfNDistribution:
    """What best-of-n does, exactly."""

    def test_brute_force(self) -> None:
        """Equals the sum over all n-tuples of samples, with outcomes in any order of reward, ties and impossible ones.

        Sort by reward before you accumulate, or add up what is not better. Outcomes of equal reward form one group,
        whose probability is shared in proportion to `probs`; 0 / 0 is no share.
        """
        for probs, rewards in CASES:
            for n in range(1, 5):
                actual = reranking.best_of_n_distribution(torch.tensor(probs), torch.tensor(rewards), n)
                assert_close(
                    actual, brute_force(probs, rewards, n), TOLERANCE, f"the best of {n} by {rewards}, P = {probs}"
                )

    def test_many_samples(self) -> None:
        """Approaches certainty of the best outcome that is possible, and raises ValueError for n below 1.

        The probability that all n samples are no better than i is F(i)^n: the power of a sum, not a sum of powers.
        """
        probs, rewards = torch.tensor([0.6, 0.39, 0.01, 0.0]), torch.tensor([0.0, 1.0, 2.0, 3.0])
        actual = reranking.best_of_n_distribution(probs, rewards, 100)
        rest = 0.99**100
        assert_close(actual, [0.6**100, rest - 0.6**100, 1 - rest, 0.0], TOLERANCE, "the best of 100")
        for n in (0, -2):
            with pytest.raises(ValueError):
                reranking.best_of_n_distribution(probs, rewards, n)


class TestBestOfNKL:
    """How far best-of-n goes from the model."""

    def test_exact(self) -> None:
        """Returns the divergence of the exact distribution in nats, from best-of-n to the model.

        Best-of-n comes first. Outcomes that are impossible add nothing. The closed form log n - (n - 1) / n is only a
        bound where rewards are discrete.
        """
        for probs, rewards in CASES:
            for n in range(1, 5):
                best = brute_force(probs, rewards, n)
                expected = sum(q * math.log(q / p) for q, p in zip(best, probs, strict=True) if q > 0)
                actual = reranking.best_of_n_kl(torch.tensor(probs), torch.tensor(rewards), n)
                assert_close(actual, expected, TOLERANCE, f"KL of the best of {n} by {rewards}, P = {probs}")

    def test_bound(self) -> None:
        """Comes close to log n - (n - 1) / n when there are many outcomes, and never exceeds it.

        Check the base of the logarithm.
        """
        probs, rewards = torch.full((2000,), 1 / 2000, dtype=torch.float64), torch.arange(2000.0)
        for n in (2, 8):
            bound = math.log(n) - (n - 1) / n
            actual = reranking.best_of_n_kl(probs, rewards, n)
            assert_close(actual, bound, 5e-3, f"KL of the best of {n}")
            assert actual <= bound + TOLERANCE, f"expected at most {bound}, got {actual}"
        with pytest.raises(ValueError):
            reranking.best_of_n_kl(probs, rewards, 0)
