"""Public tests of hw1.beam_search. Run them with `pytest hw1/tests/test_beam_search.py`; -k TestBeam picks one problem.

The models are so small that every continuation can be listed, and the noise of stochastic beam search is written down.
"""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math
from collections.abc import Sequence

import pytest
import torch

from hw1 import beam_search as search
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.language_model import CountingModel
from shared_tasks.models.randomness import ScriptedNoise
from shared_tasks.models.toy import NgramModel, PositionModel, TableModel, enumerate_sequences

TOLERANCE = 1e-4  # wide enough for a solution that computes in float32

# Token 0 ends a continuation. After a context that is not in the table it comes with certainty.
GARDEN = TableModel({(): [0.0, 0.6, 0.4], (1,): [0.34, 0.36, 0.3], (2,): [0.9, 0.06, 0.04]}, eos_token_id=0)
SHORT_OR_LONG = TableModel(
    {(): [0.5, 0.4, 0.1], (1,): [0.1, 0.85, 0.05], (1, 1): [0.9, 0.06, 0.04], (2,): [0.3, 0.5, 0.2]}, eos_token_id=0
)

Expected = tuple[list[int], float, int]  # tokens, their probability, and the length to divide by


def assert_hypotheses(found: Sequence, expected: Sequence[Expected], length_penalty: float, what: str) -> None:
    """Fail unless the hypotheses found have these tokens in this order, with their log-probabilities and scores."""
    assert_equal([list(hypothesis.tokens) for hypothesis in found], [tokens for tokens, _, _ in expected], what)
    for hypothesis, (tokens, probability, length) in zip(found, expected, strict=True):
        logprob = math.log(probability)
        assert_close(hypothesis.logprob, logprob, TOLERANCE, f"the log-probability of {tokens}")
        assert_close(hypothesis.score, logprob / length**length_penalty, TOLERANCE, f"the score of {tokens}")


class TestGreedySearch:
    """The most probable token at every step."""

    def test_most_probable_token(self) -> None:
        """Takes the most probable token at every step, up to the end token, which it keeps."""
        assert_equal(search.greedy_search(GARDEN, [], max_tokens=5), [1, 1, 0], "the continuation of []")
        assert_equal(search.greedy_search(GARDEN, [2], max_tokens=5), [0], "the continuation of [2]")

    def test_max_tokens(self) -> None:
        """Stops at max_tokens tokens, prompt not counted, and raises ValueError for max_tokens 0."""
        model = NgramModel(vocab_size=4, order=2, seed=6)  # after token 2 comes 1, after 1 comes 2
        assert_equal(search.greedy_search(model, [2, 2, 2], max_tokens=3), [1, 2, 1], "the continuation of [2, 2, 2]")
        with pytest.raises(ValueError):
            search.greedy_search(model, [2], max_tokens=0)


class TestScoreBound:
    """What a running continuation can still reach."""

    def test_positive_penalty(self) -> None:
        """With a positive length_penalty the score can rise up to the greatest length."""
        assert_close(search.score_bound(-3.0, 2, 6, 1.0), -3.0 / 6, TOLERANCE, "the bound for length_penalty 1")
        assert_close(search.score_bound(-3.0, 2, 6, 0.5), -3.0 / 6**0.5, TOLERANCE, "the bound for length_penalty 0.5")

    def test_other_penalties(self) -> None:
        """Otherwise the best is to end with the next token; lengths that leave no next token raise ValueError."""
        assert_close(search.score_bound(-3.0, 2, 6, 0.0), -3.0, TOLERANCE, "the bound for length_penalty 0")
        assert_close(search.score_bound(-3.0, 2, 6, -1.0), -9.0, TOLERANCE, "the bound for length_penalty -1")
        with pytest.raises(ValueError):
            search.score_bound(-3.0, 6, 6, 1.0)


class TestBeamSearch:
    """Beam search."""

    def test_finds_what_greedy_search_misses(self) -> None:
        """A beam of two finds the continuation that begins with the less probable token and is more probable."""
        found = search.beam_search(GARDEN, [], num_beams=2, max_tokens=5)
        assert_hypotheses(found, [([2, 0], 0.36, 2), ([1, 1, 0], 0.216, 3)], 0.0, "the hypotheses of 2 beams")
        found = search.beam_search(GARDEN, [], num_beams=1, max_tokens=5)
        assert_hypotheses(found, [([1, 1, 0], 0.216, 3)], 0.0, "the hypothesis of 1 beam, which is greedy search")

    def test_wide_beam_is_brute_force(self) -> None:
        """A beam of V^(T - 1) finds the most probable of all continuations of up to T tokens, after the prompt."""
        model = PositionModel(vocab_size=3, max_length=5, seed=11)
        exact = enumerate_sequences(model, max_tokens=3, context=[2, 1])
        best = sorted(exact, key=lambda tokens: -exact[tokens])[:9]
        expected = [(list(tokens), exact[tokens], len(tokens)) for tokens in best]
        found = search.beam_search(model, [2, 1], num_beams=9, max_tokens=3)
        assert_hypotheses(found, expected, 0.0, "the 9 best of all continuations")

    def test_length_penalty(self) -> None:
        """The score is the log-probability over length ** length_penalty, with the end token and without the prompt."""
        for length_penalty, order in ((0.0, (0, 1)), (1.0, (1, 0))):
            expected = [([0], 0.5, 1), ([1, 1, 0], 0.4 * 0.85 * 0.9, 3)]
            found = search.beam_search(SHORT_OR_LONG, [], num_beams=2, max_tokens=5, length_penalty=length_penalty)
            what = f"the hypotheses for length_penalty {length_penalty}"
            assert_hypotheses(found, [expected[i] for i in order], length_penalty, what)

    def test_early_stopping(self) -> None:
        """With early_stopping the search stops at num_beams finished hypotheses, without it when no beam can beat them.

        Both are seen in the number of model calls, which is at most one a step.
        """
        for early_stopping, tokens, calls in ((True, [0], 1), (False, [1, 1, 0], 3)):
            model = CountingModel(SHORT_OR_LONG)
            (found,) = search.beam_search(
                model, [], num_beams=1, max_tokens=4, length_penalty=1.0, early_stopping=early_stopping
            )
            assert_equal(list(found.tokens), tokens, f"the best hypothesis with early_stopping={early_stopping}")
            assert model.calls <= calls, f"expected at most {calls} model calls, got {model.calls}"


class TestDiverseBeamSearch:
    """Groups of beams that avoid each other."""

    def test_no_penalty(self) -> None:
        """Without a penalty each group is a beam search of its own width."""
        groups = search.diverse_beam_search(
            GARDEN, [], num_beams=4, num_beam_groups=2, diversity_penalty=0.0, max_tokens=5
        )
        assert_equal(len(groups), 2, "the number of groups")
        for number, group in enumerate(groups):
            expected = [([2, 0], 0.36, 2), ([1, 1, 0], 0.216, 3)]
            assert_hypotheses(group, expected, 0.0, f"the hypotheses of group {number}")

    def test_penalty(self) -> None:
        """A large penalty makes groups of one beam take different tokens at each step, at their true probability."""
        groups = search.diverse_beam_search(
            GARDEN, [], num_beams=2, num_beam_groups=2, diversity_penalty=50.0, max_tokens=2
        )
        assert_hypotheses(groups[0], [([1, 1], 0.216, 2)], 0.0, "the hypotheses of group 0")
        assert_hypotheses(groups[1], [([2, 0], 0.36, 2)], 0.0, "the hypotheses of group 1")

    def test_penalty_of_each_step(self) -> None:
        """Only what earlier groups keep at the same step is penalised, once for each time that they keep it."""
        model = TableModel(
            {
                (): [0.1, 0.5, 0.4],
                (1,): [0.2, 0.7, 0.1],
                (2,): [0.3, 0.45, 0.25],
                (1, 1): [0.2, 0.6, 0.2],
                (2, 1): [0.1, 0.2, 0.7],
                (2, 0): [0.5, 0.3, 0.2],
            },
            eos_token_id=0,
        )
        groups = search.diverse_beam_search(
            model, [], num_beams=2, num_beam_groups=2, diversity_penalty=math.log(1.3), max_tokens=3
        )
        assert_hypotheses(groups[0], [([1, 1, 1], 0.21, 3)], 0.0, "the hypotheses of group 0")
        assert_hypotheses(groups[1], [([2, 1, 2], 0.126, 3)], 0.0, "the hypotheses of group 1, which differ at step 0")


class TestConditionOnMaximum:
    """Gumbel variables with a given maximum."""

    def test_by_hand(self) -> None:
        """Returns -log(exp(-maximum) - exp(-Z) + exp(-g)) for a row g with maximum Z, which becomes the maximum."""
        g = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
        actual = search.condition_on_maximum(g, torch.tensor(1.0, dtype=torch.float64))
        others = [-math.log(math.exp(-1.0) - math.exp(-2.0) + math.exp(-value)) for value in (0.5, -1.0)]
        expected = torch.tensor([others[0], 1.0, others[1]], dtype=torch.float64)
        assert_close(actual, expected, TOLERANCE, "(0.5, 2, -1) with the maximum 1")

    def test_rows(self) -> None:
        """Every row has its own maximum, and entries of -inf stay -inf."""
        g = torch.tensor([[1.0, -torch.inf, 0.0], [-3.0, 4.0, -torch.inf]], dtype=torch.float64)
        actual = search.condition_on_maximum(g, torch.tensor([3.0, -1.0], dtype=torch.float64))
        second = -math.log(math.exp(-3.0) - math.exp(-1.0) + 1.0)
        third = -math.log(math.exp(1.0) - math.exp(-4.0) + math.exp(3.0))
        expected = torch.tensor([[3.0, -torch.inf, second], [third, -1.0, -torch.inf]], dtype=torch.float64)
        assert_close(actual, expected, TOLERANCE, "two rows with the maxima 3 and -1")


class TestStochasticBeamSearch:
    """Sampling without replacement."""

    def test_one_step(self) -> None:
        """With one token this is Gumbel-top-k: the largest log-probabilities plus noise, conditioned on the root's."""
        model = TableModel({(): [0.2, 0.5, 0.3]}, eos_token_id=0)
        rng = ScriptedNoise([0.7, 2.0, 0.1, 1.5])  # the root's, then one for each token
        found = search.stochastic_beam_search(model, [], num_beams=2, max_tokens=1, rng=rng)
        assert_equal([list(hypothesis.tokens) for hypothesis in found], [[0], [2]], "the tokens of the 2 samples")
        largest, other = math.log(0.2) + 2.0, math.log(0.3) + 1.5
        second = -math.log(math.exp(-0.7) - math.exp(-largest) + math.exp(-other))
        assert_close(found[0].score, 0.7, TOLERANCE, "the perturbed log-probability of [0], which is the root's")
        assert_close(found[1].score, second, TOLERANCE, "the perturbed log-probability of [2]")
        assert_close(found[0].logprob, math.log(0.2), TOLERANCE, "the log-probability of [0]")
        assert_close(found[1].logprob, math.log(0.3), TOLERANCE, "the log-probability of [2]")

    def test_best_child_has_the_score_of_its_parent(self) -> None:
        """Among the continuations that begin alike, the best perturbed log-probability is that of their beginning."""
        model = TableModel(
            {(): [0.0, 0.6, 0.4], (1,): [0.3, 0.7, 0.0], (2,): [0.5, 0.2, 0.3]}, eos_token_id=0
        )  # after one token the scores are -0.4 for [2], the root's, and -0.818 for [1]
        noise = [-0.4, 0.0, 0.1, 0.8, *(0.3, -0.2, 1.1), *(0.9, 2.2, 5.0)]  # rows for the root, for [2] and for [1]
        found = search.stochastic_beam_search(model, [], num_beams=5, max_tokens=2, rng=ScriptedNoise(noise))
        assert_equal(sorted(list(h.tokens) for h in found), [[1, 0], [1, 1], [2, 0], [2, 1], [2, 2]], "all samples")
        scores = {tuple(hypothesis.tokens): float(hypothesis.score) for hypothesis in found}
        z, other = math.log(0.4) + 0.8, math.log(0.6) + 0.1
        of_1 = -math.log(math.exp(0.4) - math.exp(-z) + math.exp(-other))
        assert_close(scores[2, 2], -0.4, TOLERANCE, "the score of [2, 2], the best that begins with [2]")
        assert_close(scores[1, 1], of_1, TOLERANCE, "the score of [1, 1], the best that begins with [1]")
        assert max(scores.values()) == scores[2, 2], f"expected [2, 2] to have the highest score, got {scores}"

    def test_complete_members(self) -> None:
        """A complete member of the beam keeps its score and its place, and is neither extended nor given noise."""
        model = CountingModel(TableModel({(): [0.5, 0.3, 0.2], (1,): [0.4, 0.6, 0.0]}, eos_token_id=0))
        rng = ScriptedNoise([1.0, *(0.5, 0.6, 0.0), *(0.2, 0.1, 0.3), *(0.4, 0.7, 0.9)])
        found = search.stochastic_beam_search(model, [], num_beams=2, max_tokens=4, rng=rng)
        assert_equal([list(hypothesis.tokens) for hypothesis in found], [[0], [1, 1, 0]], "the tokens of the 2 samples")
        assert_close(found[0].score, 1.0, TOLERANCE, "the score of [0]")
        assert_equal(model.contexts, 3, "the number of contexts passed to the model: [], [1] and [1, 1]")
