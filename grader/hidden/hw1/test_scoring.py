"""Hidden tests of `hw1/scoring.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from grader.goldens.recording import RecordedModel
from grader.goldens.tolerances import ARITHMETIC
from hw1 import scoring
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.toy import NgramModel, PositionModel, TableModel, enumerate_sequences

TOLERANCE = 1e-5  # wide enough for a solution that computes in float32
PRECISIONS = (torch.float32, torch.float64)


def chain(model: LanguageModel, prompt: Sequence[int], tokens: Sequence[int]) -> float:
    """Return log P(tokens | prompt), one token after the other."""
    contexts = [[*prompt, *tokens[:t]] for t in range(len(tokens))]
    rows = model.next_token_logprobs(contexts).tolist()
    return math.fsum(row[token] for row, token in zip(rows, tokens, strict=True))


def numbers(*values: float) -> Tensor:
    """Return the values as a tensor in float64."""
    return torch.tensor(values, dtype=torch.float64)


def logs(rows: object, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the log-probabilities of nested lists of probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log().to(dtype)


def random_logprobs(shape: tuple[int, ...], seed: int) -> Tensor:
    """Return random normalised log-probabilities over the last dimension."""
    generator = torch.Generator().manual_seed(seed)
    return (1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


def product(first: Tensor, second: Tensor) -> Tensor:
    """Return the log-probabilities of an independent pair, a row of all pairs for each pair of rows."""
    return (first[..., :, None] + second[..., None, :]).flatten(-2)


class TestSequenceLogprobs:
    """log P(x)."""

    def test_every_sequence_of_a_model(self) -> None:
        """Gives every sequence its exact log-probability in one batch, so that the probabilities sum to one.

        The model knows absolute positions: if you pad, check that no token moves to another position, that no padding
        is scored, and that the first and the last token are.
        """
        model = CountingModel(PositionModel(vocab_size=4, max_length=24, seed=31, eos_token_id=2))
        exact = enumerate_sequences(model, max_tokens=4)
        actual = scoring.sequence_logprobs(model, [list(sequence) for sequence in exact])
        assert_close(actual, numbers(*exact.values()).log(), TOLERANCE, "log P of all sequences of up to 4 tokens")
        assert_close(actual.exp().sum(), 1.0, 10 * TOLERANCE, "the sum of their probabilities")

    def test_end_token_in_any_place(self) -> None:
        """Scores exactly the tokens given, whether or not the end token is among them.

        The end token is a token like any other here: do not append it, skip it, or stop at it. A model's end token
        need not be token 0.
        """
        model = NgramModel(vocab_size=5, order=3, seed=32, eos_token_id=3)
        sequences = [[1, 4, 3], [1, 4], [3], [2, 3, 0, 4], [3, 3], [0, 0, 1, 3, 3]]
        expected = numbers(*(chain(model, [], sequence) for sequence in sequences))
        assert_close(scoring.sequence_logprobs(model, sequences), expected, TOLERANCE, "log P with and without an end")

    def test_empty_sequence(self) -> None:
        """Gives the empty sequence log-probability 0 in any place of a batch.

        An empty sum is 0. Check that the scores of the other sequences do not move when one is empty.
        """
        model = NgramModel(vocab_size=3, order=2, seed=33)
        sequences: list[list[int]] = [[], [2, 1, 0], [], [1]]
        expected = numbers(0.0, chain(model, [], [2, 1, 0]), 0.0, chain(model, [], [1]))
        assert_close(scoring.sequence_logprobs(model, sequences), expected, TOLERANCE, "log P with empty sequences")

    def test_impossible_token(self) -> None:
        """Returns -inf, not NaN and not a large number, for a sequence with a token of probability zero.

        Look for 0 · inf, for inf - inf, and for a small constant added before a logarithm.
        """
        model = TableModel({(): [0.0, 0.4, 0.6], (1,): [0.5, 0.0, 0.5], (2,): [0.5, 0.5, 0.0]}, eos_token_id=0)
        actual = scoring.sequence_logprobs(model, [[0], [1, 1], [1, 2, 0], [2, 2, 2], [2, 1]])
        expected = numbers(-math.inf, -math.inf, math.log(0.2), -math.inf, math.log(0.3))
        assert_close(actual, expected, TOLERANCE, "log P of possible and impossible sequences")

    def test_leaves_its_input_alone(self) -> None:
        """Returns the log-probabilities without changing the sequences.

        Padding or appending in place changes the caller's lists: work on copies.
        """
        model = NgramModel(vocab_size=4, order=2, seed=34)
        sequences = [[3, 1, 2], [2], [1, 1, 1, 0]]
        expected = numbers(*(chain(model, [], sequence) for sequence in sequences))
        assert_close(scoring.sequence_logprobs(model, sequences), expected, TOLERANCE, "log P")
        assert_equal(sequences, [[3, 1, 2], [2], [1, 1, 1, 0]], "the sequences after the call")


class TestConditionalLogprobs:
    """log P(y | x)."""

    def test_every_continuation_of_several_prompts(self) -> None:
        """Gives every continuation its exact log-probability after prompts of different lengths in one batch.

        The model knows absolute positions: if you pad, check that no token moves. Score the continuation's tokens
        only, from its first to its last.
        """
        model = PositionModel(vocab_size=4, max_length=24, seed=41, eos_token_id=1)
        prompts, continuations, expected = [], [], []
        for prompt in ([2, 0, 3, 3, 0], [0], [], [3, 2]):
            for continuation, probability in enumerate_sequences(model, max_tokens=3, context=prompt).items():
                prompts.append(prompt)
                continuations.append(list(continuation))
                expected.append(math.log(probability))
        actual = scoring.conditional_logprobs(model, prompts, continuations)
        assert_close(actual, numbers(*expected), TOLERANCE, "log P(y | x) of all continuations of up to 3 tokens")

    def test_end_token_in_prompt_and_continuation(self) -> None:
        """Scores exactly the continuation given, whether or not end tokens are in it or in the prompt.

        The prompt only conditions, the continuation is only scored: neither is cut at an end token, and none is
        appended.
        """
        model = NgramModel(vocab_size=4, order=3, seed=42, eos_token_id=0)
        prompts = [[1, 0], [0], [2, 3], [2], [0, 0]]
        continuations = [[2, 0], [3, 1, 2], [1, 0, 3], [0], [0, 0]]
        pairs = zip(prompts, continuations, strict=True)
        expected = numbers(*(chain(model, prompt, continuation) for prompt, continuation in pairs))
        actual = scoring.conditional_logprobs(model, prompts, continuations)
        assert_close(actual, expected, TOLERANCE, "log P(y | x) with end tokens in x and y")

    def test_zero_probabilities(self) -> None:
        """Conditions on a prompt of probability zero as on any other, and returns -inf for an impossible continuation.

        log P(x, y) - log P(x) is -inf + inf when the prompt is impossible: ask the model for the continuation's
        tokens directly.
        """
        model = TableModel({(): [0.7, 0.3, 0.0], (2,): [0.1, 0.0, 0.9], (2, 2): [0.4, 0.6, 0.0]}, eos_token_id=0)
        prompts: list[list[int]] = [[2], [2, 2], [2], [], [2]]
        actual = scoring.conditional_logprobs(model, prompts, [[2, 1], [0], [1], [2], [0]])
        expected = numbers(math.log(0.9 * 0.6), math.log(0.4), -math.inf, -math.inf, math.log(0.1))
        assert_close(actual, expected, TOLERANCE, "log P(y | x) with an impossible x or y")

    def test_empty_prompt_and_empty_continuation(self) -> None:
        """Treats an empty prompt as the start of a sequence, and gives an empty continuation log-probability 0.

        The empty context is a context like any other; an empty sum is 0.
        """
        model = NgramModel(vocab_size=5, order=2, seed=43)
        prompts: list[list[int]] = [[], [4, 2], [], [3]]
        actual = scoring.conditional_logprobs(model, prompts, [[4, 1], [], [], [1, 1, 0]])
        expected = numbers(chain(model, [], [4, 1]), 0.0, 0.0, chain(model, [3], [1, 1, 0]))
        assert_close(actual, expected, TOLERANCE, "log P(y | x) with an empty x or y")

    def test_pairs_must_match(self) -> None:
        """Scores matching pairs, and raises ValueError when one of the two lists is longer.

        Check both directions: `zip` without `strict=True` drops what is left over.
        """
        model = NgramModel(vocab_size=3, order=2, seed=44)
        expected = numbers(chain(model, [1], [2, 0]), chain(model, [2, 2], [1]))
        actual = scoring.conditional_logprobs(model, [[1], [2, 2]], [[2, 0], [1]])
        assert_close(actual, expected, TOLERANCE, "log P(y | x) of two pairs")
        with pytest.raises(ValueError):
            scoring.conditional_logprobs(model, [[1]], [[2, 0], [1]])
        with pytest.raises(ValueError):
            scoring.conditional_logprobs(model, [[1], [2, 2], [0]], [[2, 0], [1]])

    def test_leaves_its_input_alone(self) -> None:
        """Returns the log-probabilities without changing prompts or continuations.

        `prompt += continuation` changes the caller's list, `prompt + continuation` makes a new one.
        """
        model = NgramModel(vocab_size=4, order=3, seed=45)
        prompts, continuations = [[1, 2], [3]], [[3, 1], [2, 2, 0]]
        actual = scoring.conditional_logprobs(model, prompts, continuations)
        expected = numbers(chain(model, [1, 2], [3, 1]), chain(model, [3], [2, 2, 0]))
        assert_close(actual, expected, TOLERANCE, "log P(y | x)")
        assert_equal(prompts, [[1, 2], [3]], "the prompts after the call")
        assert_equal(continuations, [[3, 1], [2, 2, 0]], "the continuations after the call")

    @pytest.mark.reference("log_probabilities")
    def test_real_model(self, golden) -> None:
        """Gives texts their log-probabilities under a real model, with a vocabulary of more than a thousand tokens.

        Check that token ids of any size arrive at the model as they are.
        """
        model = RecordedModel(*(case["recording"] for case in golden))
        actual = scoring.conditional_logprobs(model, [case["x"] for case in golden], [case["y"] for case in golden])
        assert_close(actual, numbers(*(case["logprob"] for case in golden)), ARITHMETIC, "log P(y | x) of texts")
        assert_equal(model.strayed, 0, "the number of contexts that nothing asks for")


class TestPerplexity:
    """Perplexity of a corpus."""

    def test_uniform_model(self) -> None:
        """Gives a uniform model over V tokens perplexity V on every corpus, and a model without doubt perplexity 1.

        Check the base of the exponential against that of the logarithm, the sign, and the number of tokens that you
        divide by.
        """
        contexts: list[tuple[int, ...]] = [(), (1,), (4,), (4, 1), (4, 1, 2)]
        uniform = TableModel({context: [1 / 7] * 7 for context in contexts}, eos_token_id=0)
        assert_close(scoring.perplexity(uniform, [[4, 1, 2, 6], [5], [1, 0]]), 7.0, TOLERANCE, "perplexity, uniform")
        sure = TableModel({(): [0.0, 1.0], (1,): [0.0, 1.0], (1, 1): [1.0, 0.0]}, eos_token_id=0)
        assert_close(scoring.perplexity(sure, [[1, 1, 0], [1]]), 1.0, TOLERANCE, "perplexity without doubt")

    def test_every_token_weighs_the_same(self) -> None:
        """Divides the total log-probability by the total number of tokens, end tokens included.

        The mean of per-sequence means, or of per-sequence perplexities, weighs the tokens of short sequences more.
        """
        model = PositionModel(vocab_size=4, max_length=24, seed=51, eos_token_id=2)
        corpus = [[1, 3, 0, 3, 1, 2], [2], [0, 0, 2], [3]]
        total = math.fsum(chain(model, [], sequence) for sequence in corpus)
        assert_close(scoring.perplexity(model, corpus), math.exp(-total / 11), TOLERANCE, "perplexity of 11 tokens")

    def test_empty_sequences_change_nothing(self) -> None:
        """Passes over empty sequences, and raises ValueError for a corpus without any token.

        An empty sequence adds nothing to either sum. Check that no 0 / 0 is left when all of them are empty, or when
        there are none.
        """
        model = NgramModel(vocab_size=3, order=2, seed=52)
        expected = math.exp(-chain(model, [], [2, 1, 1, 0]) / 4)
        assert_close(scoring.perplexity(model, [[], [2, 1, 1, 0], []]), expected, TOLERANCE, "perplexity of 4 tokens")
        corpora: list[list[list[int]]] = [[], [[]], [[], [], []]]
        for corpus in corpora:
            with pytest.raises(ValueError):
                scoring.perplexity(model, corpus)

    def test_impossible_token(self) -> None:
        """Is infinite, not NaN and not an error, when the corpus has a token of probability zero.

        exp(inf) is inf both in `math` and in torch; 1 / 0 is an error in plain Python.
        """
        model = TableModel({(): [0.5, 0.5, 0.0], (1,): [0.2, 0.2, 0.6]}, eos_token_id=0)
        possible = (0.5 * 0.6 * 0.5) ** (-1 / 3)
        assert_close(scoring.perplexity(model, [[1, 2], [0]]), possible, TOLERANCE, "perplexity of a possible corpus")
        assert_close(scoring.perplexity(model, [[1, 0], [2]]), math.inf, TOLERANCE, "perplexity of an impossible one")


class TestEntropy:
    """Entropy of next-token distributions."""

    def test_closed_forms(self) -> None:
        """Returns log V for V equal probabilities, and the textbook values in nats for others.

        Check the base of the logarithm, the sign, and that you sum over the last dimension instead of averaging.
        """
        rows = [[1 / 6] * 6, [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.03125], [0.9, 0.02, 0.02, 0.02, 0.02, 0.02]]
        skewed = -0.9 * math.log(0.9) - 0.1 * math.log(0.02)
        expected = numbers(math.log(6), 1.9375 * math.log(2), skewed)
        for dtype in PRECISIONS:
            assert_close(scoring.entropy(logs(rows, dtype)), expected, TOLERANCE, f"entropies in {dtype}")

    def test_zero_probability(self) -> None:
        """Counts 0 log 0 as 0, so that impossible tokens change nothing.

        -inf times 0 is NaN in floating point: leave those terms out instead of adding a small constant.
        """
        rows = [[0.0, 0.5, 0.0, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0, 1.0], [0.2] * 5, [0.5, 0.0, 0.0, 0.0, 0.5]]
        expected = numbers(1.5 * math.log(2), 0.0, math.log(5), math.log(2))
        for dtype in PRECISIONS:
            assert_close(scoring.entropy(logs(rows, dtype)), expected, TOLERANCE, f"entropies with zeros in {dtype}")

    def test_independent_pairs_add_up(self) -> None:
        """Gives a pair of independent tokens the sum of their entropies.

        This is the chain rule H(X, Y) = H(X) + H(Y | X). Compare your terms with -p log p on a small case by hand.
        """
        first, second = random_logprobs((3, 5), seed=61), random_logprobs((3, 4), seed=62)
        expected = [[-math.fsum(math.exp(s) * s for s in row) for row in rows.tolist()] for rows in (first, second)]
        together = numbers(*expected[0]) + numbers(*expected[1])
        assert_close(scoring.entropy(product(first, second)), together, TOLERANCE, "entropies of independent pairs")

    def test_any_batch_shape(self) -> None:
        """Reduces the last dimension only, whatever dimensions come before it.

        Sum over dimension -1, not over 1 or over all of them; without a batch the result has no dimension.
        """
        shapes: list[tuple[int, ...]] = [(4,), (4, 4), (2, 3, 3), (2, 2, 2, 2)]
        for shape in shapes:
            logprobs = random_logprobs(shape, seed=63)
            rows = logprobs.reshape(-1, shape[-1]).tolist()
            expected = numbers(*(-math.fsum(math.exp(s) * s for s in row) for row in rows)).reshape(shape[:-1])
            assert_close(scoring.entropy(logprobs), expected, TOLERANCE, f"entropies of a batch of shape {shape}")

    def test_leaves_its_input_alone(self) -> None:
        """Returns the entropies without changing the log-probabilities.

        Methods whose names end in an underscore, and assignments to `logprobs[mask]`, change the caller's tensor.
        """
        logprobs = logs([[0.5, 0.0, 0.5], [0.25, 0.25, 0.5]])
        before = logprobs.clone()
        assert_close(scoring.entropy(logprobs), numbers(1.0, 1.5) * math.log(2), TOLERANCE, "entropies")
        assert_close(logprobs, before, 0.0, "the log-probabilities after the call")


class TestKLDivergence:
    """KL(p || q)."""

    def test_closed_forms(self) -> None:
        """Weighs log p/q by p, in nats, so that the two directions differ and KL(p || p) is 0.

        Check which argument the weights come from, the sign, and the base of the logarithm.
        """
        p = [[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.2, 0.3, 0.5]]
        q = [[0.25, 0.5, 0.25], [0.5, 0.375, 0.125], [0.2, 0.3, 0.5]]
        forward = numbers(0.25 * math.log(2), 0.25 * math.log(2 / 3) + 0.75 * math.log(2), 0.0)
        backward = numbers(0.25 * math.log(2), 0.25 * math.log(2) + 0.375 * math.log(1.5), 0.0)
        for dtype in PRECISIONS:
            actual = scoring.kl_divergence(logs(p, dtype), logs(q, dtype))
            assert_close(actual, forward, TOLERANCE, f"KL(p || q) in {dtype}")
            actual = scoring.kl_divergence(logs(q, dtype), logs(p, dtype))
            assert_close(actual, backward, TOLERANCE, f"KL(q || p) in {dtype}")

    def test_where_p_is_zero(self) -> None:
        """Counts a term as 0 where p is 0, whether q is 0 there or not.

        -inf minus -inf is NaN, and so is 0 times inf: leave out the terms where p is 0.
        """
        p = [[0.0, 0.5, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.25, 0.75, 0.0]]
        q = [[0.0, 0.125, 0.25, 0.625], [0.25, 0.25, 0.25, 0.25], [0.0, 0.25, 0.75, 0.0]]
        expected = numbers(1.5 * math.log(2), 2 * math.log(2), 0.0)
        for dtype in PRECISIONS:
            actual = scoring.kl_divergence(logs(p, dtype), logs(q, dtype))
            assert_close(actual, expected, TOLERANCE, f"KL(p || q) with zeros in p, in {dtype}")

    def test_where_only_q_is_zero(self) -> None:
        """Is infinite in exactly the rows where q is 0 and p is not.

        Do not clamp q or add a small constant to it, and keep the rows of a batch apart.
        """
        p = logs([[0.5, 0.5, 0.0], [0.999, 0.001, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]])
        q = logs([[0.75, 0.25, 0.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.125, 0.0, 0.875]])
        third = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
        fourth = 0.5 * math.log(0.5 / 0.125) + 0.5 * math.log(0.5 / 0.875)
        expected = numbers(third, math.inf, math.inf, fourth)
        assert_close(scoring.kl_divergence(p, q), expected, TOLERANCE, "KL(p || q) with zeros in q")

    def test_independent_pairs_add_up(self) -> None:
        """Gives independent pairs the sum of the divergences of their members.

        KL(p₁ p₂ || q₁ q₂) = KL(p₁ || q₁) + KL(p₂ || q₂). Compare your terms with p log p/q on a small case by hand.
        """
        p = random_logprobs((4, 3), seed=71), random_logprobs((4, 5), seed=72)
        q = random_logprobs((4, 3), seed=73), random_logprobs((4, 5), seed=74)
        expected = torch.zeros(4, dtype=torch.float64)
        for of_p, of_q in zip(p, q, strict=True):
            for row, (p_row, q_row) in enumerate(zip(of_p.tolist(), of_q.tolist(), strict=True)):
                expected[row] += math.fsum(math.exp(a) * (a - b) for a, b in zip(p_row, q_row, strict=True))
        assert_close(scoring.kl_divergence(product(*p), product(*q)), expected, TOLERANCE, "KL of independent pairs")

    def test_any_batch_shape(self) -> None:
        """Reduces the last dimension only, sums over it, and changes neither argument.

        Sum over dimension -1, not over 1 or over all of them, and do not average; work on copies.
        """
        shapes: list[tuple[int, ...]] = [(5,), (3, 3), (2, 4, 4)]
        for shape in shapes:
            p, q = random_logprobs(shape, seed=75), random_logprobs(shape, seed=76)
            before = p.clone(), q.clone()
            pairs = zip(p.reshape(-1, shape[-1]).tolist(), q.reshape(-1, shape[-1]).tolist(), strict=True)
            divergences = [math.fsum(math.exp(a) * (a - b) for a, b in zip(*pair, strict=True)) for pair in pairs]
            expected = numbers(*divergences).reshape(shape[:-1])
            assert_close(scoring.kl_divergence(p, q), expected, TOLERANCE, f"KL of batches of shape {shape}")
            assert_close(p, before[0], 0.0, "the log-probabilities of p after the call")
            assert_close(q, before[1], 0.0, "the log-probabilities of q after the call")


class TestExpectedCalibrationError:
    """ECE with bins of equal mass."""

    def test_bins_of_equal_mass(self) -> None:
        """Cuts predictions, sorted from high to low confidence, into bins whose sizes differ by at most one.

        Sort outcomes along with confidences; bins hold equal numbers of predictions, not equal intervals of
        confidence; the larger bins come first; each bin weighs as much as it has members.
        """
        given = [0.15, 0.97, 0.62, 0.83, 0.41, 0.56, 0.91, 0.28, 0.74, 0.35]
        correct = torch.tensor([True, True, False, True, False, False, False, False, True, True])
        sums_of_gaps = {
            1: [5 - 5.82],
            2: [3 - 4.07, 2 - 1.75],
            3: [3 - 3.45, 0 - 1.59, 2 - 0.78],
            4: [2 - 2.71, 1 - 1.92, 1 - 0.76, 1 - 0.43],
        }
        for dtype in PRECISIONS:
            confidences = torch.tensor(given, dtype=dtype)
            for num_bins, gaps in sums_of_gaps.items():
                actual = scoring.expected_calibration_error(confidences, correct, num_bins)
                expected = sum(map(abs, gaps)) / 10
                assert_close(actual, expected, TOLERANCE, f"ECE of 10 predictions in {num_bins} bins, in {dtype}")

    def test_one_prediction_a_bin(self) -> None:
        """Is the mean distance between confidence and outcome when every prediction has a bin of its own.

        With one bin, errors in both directions cancel; with n bins none do. Take the absolute value per bin.
        """
        confidences = torch.tensor([0.3, 0.8, 0.6, 0.1, 0.95], dtype=torch.float64)
        correct = torch.tensor([True, False, True, False, True])
        actual = scoring.expected_calibration_error(confidences, correct, 5)
        assert_close(actual, (0.7 + 0.8 + 0.4 + 0.1 + 0.05) / 5, TOLERANCE, "ECE of 5 predictions in 5 bins")
        actual = scoring.expected_calibration_error(confidences, correct, 1)
        assert_close(actual, (3 - 2.75) / 5, TOLERANCE, "ECE of 5 predictions in 1 bin")

    def test_order_does_not_matter(self) -> None:
        """Gives the same error in whatever order the predictions come, and changes neither argument.

        Sort inside the function, and into a new tensor: `out=` and in-place operations change the caller's.
        """
        confidences = torch.tensor([0.2, 0.4, 0.5, 0.7, 0.8, 0.85, 0.9], dtype=torch.float64)
        correct = torch.tensor([False, True, False, False, True, True, True])
        expected = (abs(3 - 2.55) + abs(0 - 1.2) + abs(1 - 0.6)) / 7  # bins of 3, 2 and 2
        for order in (torch.arange(7), torch.arange(6, -1, -1), torch.tensor([3, 0, 6, 2, 5, 1, 4])):
            given, outcomes = confidences[order].clone(), correct[order].clone()
            actual = scoring.expected_calibration_error(given, outcomes, 3)
            assert_close(actual, expected, TOLERANCE, "ECE of 7 predictions in 3 bins")
            assert_close(given, confidences[order], 0.0, "the confidences after the call")
            assert_close(outcomes.double(), correct[order].double(), 0.0, "the outcomes after the call")

    def test_number_of_bins(self) -> None:
        """Accepts every number of bins from 1 to the number of predictions, and raises ValueError for others.

        Check both ends: 0 bins, and one bin more than there are predictions; without predictions there is no bin.
        """
        confidences, correct = torch.tensor([0.9, 0.6, 0.3]), torch.tensor([False, True, True])
        for num_bins, expected in ((1, 0.2 / 3), (2, (0.5 + 0.7) / 3), (3, (0.9 + 0.4 + 0.7) / 3)):
            actual = scoring.expected_calibration_error(confidences, correct, num_bins)
            assert_close(actual, expected, TOLERANCE, f"ECE of 3 predictions in {num_bins} bins")
        for num_bins in (0, -1, 4):
            with pytest.raises(ValueError):
                scoring.expected_calibration_error(confidences, correct, num_bins)
        with pytest.raises(ValueError):
            scoring.expected_calibration_error(torch.zeros(0), torch.zeros(0, dtype=torch.bool), 1)


class TestMacroCalibrationError:
    """MacroCE."""

    def test_classes_weigh_the_same(self) -> None:
        """Averages within the correct and within the wrong predictions first, and then the two averages.

        With one wrong among many correct predictions, that one is half of the score. Average distances, not their
        squares, and use no bins.
        """
        correct = torch.tensor([True, True, True, False, True, True])
        for dtype in PRECISIONS:
            confidences = torch.tensor([0.95, 0.9, 0.6, 0.85, 0.5, 0.7], dtype=dtype)
            actual = scoring.macro_calibration_error(confidences, correct)
            assert_close(actual, (1.35 / 5 + 0.85) / 2, TOLERANCE, f"MacroCE in {dtype}")

    def test_constant_confidence(self) -> None:
        """Is one half for every model with the same confidence in all of its predictions.

        The errors are then 1 - c and c, whatever the accuracy: this is what MacroCE sees and ECE does not.
        """
        for confidence, outcomes in ((0.75, [True, True, True, False]), (0.1, [False, True, False, False, False])):
            confidences = torch.full((len(outcomes),), confidence, dtype=torch.float64)
            actual = scoring.macro_calibration_error(confidences, torch.tensor(outcomes))
            assert_close(actual, 0.5, TOLERANCE, f"MacroCE of a constant confidence of {confidence}")

    def test_extremes_and_missing_class(self) -> None:
        """Is 0 at best and 1 at worst, and raises ValueError where a class has no prediction.

        The mean of an empty tensor is NaN, not an error: check first. Without any prediction both classes are missing.
        """
        correct = torch.tensor([True, False, True, False, False])
        best, worst = correct.double(), (~correct).double()
        assert_close(scoring.macro_calibration_error(best, correct), 0.0, TOLERANCE, "MacroCE of a perfect model")
        assert_close(scoring.macro_calibration_error(worst, correct), 1.0, TOLERANCE, "MacroCE of the opposite")
        for outcomes in ([True] * 5, [False] * 5):
            with pytest.raises(ValueError):
                scoring.macro_calibration_error(best, torch.tensor(outcomes))
        with pytest.raises(ValueError):
            scoring.macro_calibration_error(torch.zeros(0), torch.zeros(0, dtype=torch.bool))

    def test_leaves_its_input_alone(self) -> None:
        """Returns the error without changing confidences or outcomes.

        An assignment to `confidences[correct]` changes the caller's tensor.
        """
        confidences, correct = numbers(0.8, 0.7, 0.4), torch.tensor([False, True, True])
        actual = scoring.macro_calibration_error(confidences, correct)
        assert_close(actual, (0.45 + 0.8) / 2, TOLERANCE, "MacroCE")
        assert_close(confidences, numbers(0.8, 0.7, 0.4), 0.0, "the confidences after the call")
        assert_equal(correct.tolist(), [False, True, True], "the outcomes after the call")


class TestBrierScore:
    """Brier score."""

    def test_mean_of_squares(self) -> None:
        """Averages the squared difference between confidence and outcome over all predictions.

        Square before you average, take no root, and divide by the number of predictions.
        """
        correct = torch.tensor([True, False, True, True, False, True, False])
        expected = (0.16 + 0.01 + 0.0025 + 0.49 + 0.64 + 0.25 + 0.0) / 7
        for dtype in PRECISIONS:
            confidences = torch.tensor([0.6, 0.1, 0.95, 0.3, 0.8, 0.5, 0.0], dtype=dtype)
            assert_close(scoring.brier_score(confidences, correct), expected, TOLERANCE, f"Brier score in {dtype}")

    def test_constant_confidence(self) -> None:
        """Splits into calibration, (confidence - accuracy)², and uncertainty, accuracy · (1 - accuracy).

        This holds when all confidences are the same. A score over both outcomes of each prediction is twice as large.
        """
        for confidence, outcomes in ((0.9, [True, False, True, True]), (0.2, [False, False, True, False, True])):
            accuracy = sum(outcomes) / len(outcomes)
            confidences = torch.full((len(outcomes),), confidence, dtype=torch.float64)
            actual = scoring.brier_score(confidences, torch.tensor(outcomes))
            expected = (confidence - accuracy) ** 2 + accuracy * (1 - accuracy)
            assert_close(actual, expected, TOLERANCE, f"Brier score of a constant confidence of {confidence}")

    def test_one_class_and_no_prediction(self) -> None:
        """Scores predictions that are all correct or all wrong, raises ValueError for none, and changes no argument.

        Unlike MacroCE it needs no second class. The mean of an empty tensor is NaN, not an error: check first.
        """
        confidences = numbers(0.9, 0.4)
        actual = scoring.brier_score(confidences, torch.tensor([True, True]))
        assert_close(actual, 0.185, TOLERANCE, "Brier score of two correct predictions")
        actual = scoring.brier_score(confidences, torch.tensor([False, False]))
        assert_close(actual, 0.485, TOLERANCE, "Brier score of two wrong predictions")
        assert_close(confidences, numbers(0.9, 0.4), 0.0, "the confidences after the calls")
        with pytest.raises(ValueError):
            scoring.brier_score(torch.zeros(0), torch.zeros(0, dtype=torch.bool))


class TestRankSamples:
    """Samples by probability."""

    def test_groups_of_every_size(self) -> None:
        """Returns highest, middle and lowest group for every k, each from most to least probable.

        The middle group starts at (n - k) // 2. Near k = n the groups overlap, and for k = n they are the same.
        """
        model = TableModel.random(vocab_size=3, depth=2, seed=81, eos_token_id=1)
        exact = enumerate_sequences(model, max_tokens=3)
        falling = [list(sequence) for sequence in sorted(exact, key=lambda sequence: -exact[sequence])]
        n = len(falling)
        for k in range(1, n + 1):
            ranking = scoring.rank_samples(model, [list(sequence) for sequence in sorted(exact)], k)
            start = (n - k) // 2
            assert_equal(ranking.highest, falling[:k], f"the {k} most probable of {n} samples")
            assert_equal(ranking.middle, falling[start : start + k], f"the {k} middle of {n} samples")
            assert_equal(ranking.lowest, falling[n - k :], f"the {k} least probable of {n} samples")

    def test_whole_samples_after_a_prompt(self) -> None:
        """Ranks by log P(sample | prompt) of the whole sample, without dividing by its length.

        Check that the prompt reaches the model, that every token of a sample counts, and that nothing is averaged.
        The model knows absolute positions.
        """
        model = PositionModel(vocab_size=4, max_length=24, seed=82, eos_token_id=3)
        prompt = [2, 0, 1]
        samples = [[1, 0, 3], [0], [2, 2, 2, 1], [3], [1, 3], [0, 2, 3], [2, 1, 0, 0, 3], [1]]
        falling = [list(sample) for sample in sorted(samples, key=lambda sample: -chain(model, prompt, sample))]
        ranking = scoring.rank_samples(model, samples, 3, prompt)
        assert_equal(ranking.highest, falling[:3], "the 3 most probable samples after the prompt")
        assert_equal(ranking.middle, falling[2:5], "the 3 middle samples after the prompt")
        assert_equal(ranking.lowest, falling[5:], "the 3 least probable samples after the prompt")

    def test_equal_samples_are_kept(self) -> None:
        """Counts a sample as often as it was drawn.

        Do not go through a set or a dict of samples: samples that were drawn twice are twice in the ranking.
        """
        model = TableModel({(): [0.1, 0.6, 0.3], (1,): [0.5, 0.3, 0.2], (2,): [0.9, 0.05, 0.05]}, eos_token_id=0)
        samples = [[2, 0], [1, 1], [2, 0], [0], [1, 1], [2, 0], [1, 0]]  # P = 0.27, 0.18, ..., 0.1, ..., 0.3
        ranking = scoring.rank_samples(model, samples, 3)
        assert_equal(ranking.highest, [[1, 0], [2, 0], [2, 0]], "the 3 most probable samples")
        assert_equal(ranking.middle, [[2, 0], [2, 0], [1, 1]], "the 3 middle samples")
        assert_equal(ranking.lowest, [[1, 1], [1, 1], [0]], "the 3 least probable samples")

    def test_empty_and_impossible_samples(self) -> None:
        """Ranks the empty sample first and an impossible one last.

        Their log-probabilities are 0 and -inf. A NaN in a sort puts samples in the wrong places.
        """
        model = TableModel({(): [0.4, 0.6, 0.0], (1,): [0.5, 0.25, 0.25]}, eos_token_id=0)
        ranking = scoring.rank_samples(model, [[2], [1, 1], [], [1, 0]], 2)
        assert_equal(ranking.highest, [[], [1, 0]], "the 2 most probable samples")
        assert_equal(ranking.middle, [[1, 0], [1, 1]], "the 2 middle samples")
        assert_equal(ranking.lowest, [[1, 1], [2]], "the 2 least probable samples")

    def test_number_of_samples(self) -> None:
        """Accepts every k from 1 to the number of samples, raises ValueError for others, and changes no argument.

        Check both ends; slices with k = 0 or k > n return something instead of failing. Sort into a new list.
        """
        model = TableModel({(): [0.2, 0.3, 0.5]}, eos_token_id=0)
        samples, prompt = [[1], [0], [2]], [1]
        ranking = scoring.rank_samples(model, samples, 1)
        assert_equal((ranking.highest, ranking.middle, ranking.lowest), ([[2]], [[1]], [[0]]), "one sample a group")
        for k in (0, -1, 4):
            with pytest.raises(ValueError):
                scoring.rank_samples(model, samples, k)
        with pytest.raises(ValueError):
            scoring.rank_samples(model, [], 1)
        ranking = scoring.rank_samples(model, samples, 1, prompt)
        assert_equal(ranking.highest, [[0]], "the one sample that is possible after the prompt")
        assert_equal((samples, prompt), ([[1], [0], [2]], [1]), "samples and prompt after the calls")
