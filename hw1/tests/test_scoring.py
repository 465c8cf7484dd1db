"""Public tests of `hw1/scoring.py`: run them with `pytest hw1/tests/test_scoring.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math

import pytest
import torch

from hw1 import scoring
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.toy import PositionModel, TableModel, enumerate_sequences

TOLERANCE = 1e-5  # wide enough for a solution that computes in float32

# Token 0 ends a sequence. After a context that is not in the table it comes with certainty.
MODEL = TableModel(
    {
        (): [0.2, 0.5, 0.3],
        (1,): [0.1, 0.6, 0.3],
        (2,): [0.25, 0.25, 0.5],
        (1, 1): [0.7, 0.1, 0.2],
    },
    eos_token_id=0,
)


def log(*probabilities: float) -> torch.Tensor:
    """Return the log-probabilities of a distribution, in float64."""
    return torch.tensor(probabilities, dtype=torch.float64).log()


class TestSequenceLogprobs:
    """log P(x)."""

    def test_by_hand(self) -> None:
        """Adds up the log-probabilities of all tokens, the first one and the end token included."""
        actual = scoring.sequence_logprobs(MODEL, [[1, 1, 0]])
        assert_close(actual, log(0.5 * 0.6 * 0.7), TOLERANCE, "log P([1, 1, 0]), with P = 0.5 · 0.6 · 0.7")

    def test_batch_of_different_lengths(self) -> None:
        """Gives every sequence of a batch its exact log-probability, whatever the lengths of the others."""
        exact = enumerate_sequences(MODEL, max_tokens=3)
        actual = scoring.sequence_logprobs(MODEL, list(exact))
        assert_close(actual, log(*exact.values()), TOLERANCE, f"log P of the sequences {list(exact)}")

    def test_empty_sequence(self) -> None:
        """Gives the empty sequence log-probability 0, since there is nothing to multiply."""
        actual = scoring.sequence_logprobs(MODEL, [[2], [], [1, 2]])
        assert_close(actual, log(0.3, 1.0, 0.5 * 0.3), TOLERANCE, "log P of [2], [] and [1, 2]")

    def test_impossible_sequence(self) -> None:
        """Gives a sequence with a token of probability zero the log-probability -inf."""
        actual = scoring.sequence_logprobs(MODEL, [[2, 2, 0], [2, 2, 1]])
        assert_close(actual, log(0.3 * 0.5, 0.0), TOLERANCE, "log P of [2, 2, 0] and [2, 2, 1]")


class TestConditionalLogprobs:
    """log P(y | x)."""

    def test_by_hand(self) -> None:
        """Scores the tokens of the continuation only, each after the prompt and the tokens before it."""
        actual = scoring.conditional_logprobs(MODEL, [[1], [1, 1], []], [[1, 0], [2], [2, 2]])
        assert_close(
            actual, log(0.6 * 0.7, 0.2, 0.3 * 0.5), TOLERANCE, "log P([1, 0] | [1]), P([2] | [1, 1]), P([2, 2] | [])"
        )

    def test_prompts_of_different_lengths(self) -> None:
        """Gives a pair the same score in a batch of prompts of different lengths as alone."""
        model = PositionModel(vocab_size=3, max_length=20, seed=1)
        prompts = [[1, 2, 2, 1], [], [2, 1]]
        prompts_in_batch, continuations, exact = [], [], []
        for prompt in prompts:
            for continuation, probability in enumerate_sequences(model, max_tokens=2, context=prompt).items():
                prompts_in_batch.append(prompt)
                continuations.append(list(continuation))
                exact.append(probability)
        actual = scoring.conditional_logprobs(model, prompts_in_batch, continuations)
        assert_close(actual, log(*exact), TOLERANCE, "log P(y | x) under a model that knows absolute positions")

    def test_as_many_continuations_as_prompts(self) -> None:
        """Scores an empty continuation 0, and raises ValueError when prompts and continuations do not pair up."""
        actual = scoring.conditional_logprobs(MODEL, [[1], [2]], [[], [0]])
        assert_close(actual, log(1.0, 0.25), TOLERANCE, "log P([] | [1]) and log P([0] | [2])")
        with pytest.raises(ValueError):
            scoring.conditional_logprobs(MODEL, [[1], [2]], [[0]])


class TestPerplexity:
    """Perplexity of a corpus."""

    def test_uniform_model(self) -> None:
        """Gives a uniform model a perplexity equal to the size of its vocabulary."""
        uniform = TableModel({(): [0.25] * 4, (3,): [0.25] * 4, (3, 1): [0.25] * 4}, eos_token_id=0)
        assert_close(scoring.perplexity(uniform, [[3, 1, 0], [2]]), 4.0, TOLERANCE, "perplexity of 4 equal choices")

    def test_every_token_weighs_the_same(self) -> None:
        """Averages over the tokens of the corpus, not over its sequences."""
        actual = scoring.perplexity(MODEL, [[1, 1, 0], [0]])
        expected = (0.5 * 0.6 * 0.7 * 0.2) ** (-1 / 4)
        assert_close(actual, expected, TOLERANCE, "perplexity of [1, 1, 0] and [0], four tokens in all")

    def test_no_token(self) -> None:
        """Passes over empty sequences, and raises ValueError when there is no token at all."""
        assert_close(scoring.perplexity(MODEL, [[], [1]]), 2.0, TOLERANCE, "perplexity of [] and [1]")
        with pytest.raises(ValueError):
            scoring.perplexity(MODEL, [[], []])


class TestEntropy:
    """Entropy of next-token distributions."""

    def test_in_nats(self) -> None:
        """Returns log 4 for four equal probabilities, and less when they differ."""
        actual = scoring.entropy(torch.stack([log(0.25, 0.25, 0.25, 0.25), log(0.5, 0.25, 0.125, 0.125)]))
        expected = torch.tensor([2.0, 1.75], dtype=torch.float64) * math.log(2)
        assert_close(actual, expected, TOLERANCE, "entropy of (¼, ¼, ¼, ¼) and (½, ¼, ⅛, ⅛)")

    def test_zero_probability(self) -> None:
        """Counts 0 log 0 as 0 instead of NaN."""
        actual = scoring.entropy(torch.stack([log(0.5, 0.0, 0.5), log(0.0, 1.0, 0.0)]))
        expected = torch.tensor([math.log(2), 0.0], dtype=torch.float64)
        assert_close(actual, expected, TOLERANCE, "entropy of (½, 0, ½) and (0, 1, 0)")

    def test_any_batch_shape(self) -> None:
        """Reduces the last dimension and keeps all others."""
        half = math.log(2)
        logprobs = torch.stack([log(0.5, 0.5), log(1.0, 0.0), log(0.0, 1.0), log(0.5, 0.5)]).reshape(2, 2, 2)
        expected = torch.tensor([[half, 0.0], [0.0, half]], dtype=torch.float64)
        assert_close(scoring.entropy(logprobs.float()), expected, TOLERANCE, "entropies of a 2 × 2 batch in float32")
        assert_close(scoring.entropy(log(0.5, 0.5)), half, TOLERANCE, "entropy of one distribution without batch")


class TestKLDivergence:
    """KL(p || q)."""

    def test_by_hand(self) -> None:
        """Weighs log p/q by p, the first argument, so that the two directions differ."""
        p, q = log(0.5, 0.5), log(0.25, 0.75)
        forward = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
        backward = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
        assert_close(scoring.kl_divergence(p, q), forward, TOLERANCE, "KL((½, ½) || (¼, ¾))")
        assert_close(scoring.kl_divergence(q, p), backward, TOLERANCE, "KL((¼, ¾) || (½, ½))")

    def test_zero_probabilities(self) -> None:
        """Counts a term as 0 where p is 0, and is infinite where only q is 0."""
        p = torch.stack([log(0.5, 0.5, 0.0), log(1.0, 0.0, 0.0), log(0.5, 0.25, 0.25)])
        q = torch.stack([log(0.25, 0.75, 0.0), log(0.5, 0.25, 0.25), log(1.0, 0.0, 0.0)])
        expected = torch.tensor([0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2), math.inf])
        assert_close(scoring.kl_divergence(p, q), expected, TOLERANCE, "KL with zeros in both, in p, and in q")

    def test_any_batch_shape(self) -> None:
        """Reduces the last dimension and keeps all others."""
        p = torch.stack([log(0.5, 0.5), log(0.2, 0.8), log(1.0, 0.0), log(0.5, 0.5)]).reshape(2, 2, 2)
        q = torch.stack([log(0.5, 0.5), log(0.2, 0.8), log(0.5, 0.5), log(0.1, 0.9)]).reshape(2, 2, 2)
        expected = torch.tensor([[0.0, 0.0], [math.log(2), 0.5 * math.log(0.25 / 0.09)]])
        assert_close(scoring.kl_divergence(p.float(), q.float()), expected, TOLERANCE, "KL of a 2 × 2 batch")


class TestExpectedCalibrationError:
    """ECE with bins of equal mass."""

    def test_two_bins(self) -> None:
        """Compares accuracy and mean confidence within each half of the predictions."""
        confidences = torch.tensor([0.95, 0.85, 0.75, 0.65, 0.45, 0.35])
        correct = torch.tensor([True, False, True, False, True, False])
        expected = (abs(2 / 3 - 2.55 / 3) + abs(1 / 3 - 1.45 / 3)) / 2
        assert_close(scoring.expected_calibration_error(confidences, correct, 2), expected, TOLERANCE, "ECE in 2 bins")

    def test_sorts_by_confidence(self) -> None:
        """Sorts the predictions together with their outcomes before it cuts them into bins."""
        confidences = torch.tensor([0.3, 0.9, 0.6, 0.8])
        correct = torch.tensor([False, True, True, True])
        expected = (abs(1.0 - 0.85) + abs(0.5 - 0.45)) / 2  # bins: 0.9 and 0.8, 0.6 and 0.3
        assert_close(scoring.expected_calibration_error(confidences, correct, 2), expected, TOLERANCE, "ECE in 2 bins")

    def test_uneven_bins(self) -> None:
        """Puts the larger bins first, weighs each by its size, and raises ValueError unless 1 <= num_bins <= n."""
        confidences = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.2])
        correct = torch.tensor([True, True, False, True, False])
        expected = 3 / 5 * abs(2 / 3 - 2.4 / 3) + 2 / 5 * abs(1 / 2 - 0.8 / 2)
        actual = scoring.expected_calibration_error(confidences, correct, 2)
        assert_close(actual, expected, TOLERANCE, "ECE of 5 predictions in bins of 3 and 2")
        for num_bins in (0, 6):
            with pytest.raises(ValueError):
                scoring.expected_calibration_error(confidences, correct, num_bins)


class TestMacroCalibrationError:
    """MacroCE."""

    def test_by_hand(self) -> None:
        """Averages 1 - confidence over the correct predictions, confidence over the wrong ones, and then both."""
        confidences = torch.tensor([0.9, 0.9, 0.8, 0.8, 0.7, 0.7])
        correct = torch.tensor([True, False, True, False, True, True])
        actual = scoring.macro_calibration_error(confidences, correct)
        assert_close(
            actual, (0.225 + 0.85) / 2, TOLERANCE, "MacroCE, with 0.225 for the correct and 0.85 for the wrong"
        )

    def test_needs_both_classes(self) -> None:
        """Is 0 for a model that is sure where right and doubtful where wrong, and raises ValueError for one class."""
        correct = torch.tensor([True, False, False])
        assert_close(scoring.macro_calibration_error(torch.tensor([1.0, 0.0, 0.0]), correct), 0.0, TOLERANCE, "MacroCE")
        assert_close(
            scoring.macro_calibration_error(torch.tensor([0.5, 0.4, 0.0]), correct), 0.35, TOLERANCE, "MacroCE"
        )
        for one_class in (torch.tensor([True, True]), torch.tensor([False, False])):
            with pytest.raises(ValueError):
                scoring.macro_calibration_error(torch.tensor([0.9, 0.8]), one_class)


class TestBrierScore:
    """Brier score."""

    def test_by_hand(self) -> None:
        """Averages the squared distance of the confidence from 1 where correct and from 0 where wrong."""
        confidences = torch.tensor([0.9, 0.9, 0.8, 0.8, 0.7, 0.7])
        correct = torch.tensor([True, False, True, False, True, True])
        expected = (0.01 + 0.81 + 0.04 + 0.64 + 0.09 + 0.09) / 6
        assert_close(scoring.brier_score(confidences, correct), expected, TOLERANCE, "Brier score")

    def test_no_prediction(self) -> None:
        """Is 1 for a sure mistake, and raises ValueError when there is no prediction."""
        assert_close(scoring.brier_score(torch.tensor([1.0]), torch.tensor([False])), 1.0, TOLERANCE, "Brier score")
        with pytest.raises(ValueError):
            scoring.brier_score(torch.zeros(0), torch.zeros(0, dtype=torch.bool))


class TestRankSamples:
    """Samples by probability."""

    def test_three_groups(self) -> None:
        """Returns the most, the middle and the least probable samples, each group from most to least probable."""
        samples = [[2, 2, 0], [1, 0], [1, 1, 0], [2, 0], [0]]  # P = 0.15, 0.05, 0.21, 0.075, 0.2
        ranking = scoring.rank_samples(MODEL, samples, 2)
        assert_equal(ranking.highest, [[1, 1, 0], [0]], "the 2 most probable samples")
        assert_equal(ranking.middle, [[0], [2, 2, 0]], "the 2 samples from position (5 - 2) // 2 = 1 on")
        assert_equal(ranking.lowest, [[2, 0], [1, 0]], "the 2 least probable samples")

    def test_given_a_prompt(self) -> None:
        """Ranks by the probability of the sample after the prompt."""
        samples = [[0], [2, 0], [1, 0], [1, 1]]  # after [1]: P = 0.1, 0.3, 0.42, 0.06
        ranking = scoring.rank_samples(MODEL, samples, 1, [1])
        assert_equal(ranking.highest, [[1, 0]], "the most probable sample after [1]")
        assert_equal(ranking.middle, [[2, 0]], "the sample at position (4 - 1) // 2 = 1 after [1]")
        assert_equal(ranking.lowest, [[1, 1]], "the least probable sample after [1]")

    def test_equal_samples_are_kept(self) -> None:
        """Keeps equal samples, and raises ValueError unless 1 <= k <= n."""
        ranking = scoring.rank_samples(MODEL, [[0], [1, 0], [0]], 2)
        assert_equal(ranking.highest, [[0], [0]], "the 2 most probable of [0], [1, 0], [0]")
        assert_equal(ranking.lowest, [[0], [1, 0]], "the 2 least probable of [0], [1, 0], [0]")
        for k in (0, 4):
            with pytest.raises(ValueError):
                scoring.rank_samples(MODEL, [[0], [1, 0], [0]], k)
