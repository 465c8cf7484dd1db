"""Hidden tests of hw1.sampling: exact, by enumeration, scripted noise and closed forms."""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from grader.goldens.recording import RecordedModel, ScriptedDraws
from grader.goldens.tolerances import ARITHMETIC
from hw1 import sampling
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.next_token import probabilities
from shared_tasks.models.randomness import Randomness, ScriptedNoise, TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import NgramModel, PositionModel, TableModel, enumerate_sequences

# A peaked, a more peaked and a flat distribution, none of them in sorted order and without ties.
ROWS = [
    [0.05, 0.40, 0.10, 0.25, 0.17, 0.03],
    [0.62, 0.02, 0.12, 0.04, 0.11, 0.09],
    [0.16, 0.19, 0.14, 0.18, 0.13, 0.20],
]
MASKED = [0.0, 0.45, 0.30, 0.0, 0.20, 0.05]  # tokens 0 and 3 were removed before
CERTAIN = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]

ALL = [[0, 1, 2, 3, 4, 5]] * 3  # kept in each of ROWS
BEST = [[1], [0], [5]]

# Token 1 is followed by 2, that by 3, and that by the end token 0, with certainty.
FOLLOWS = {
    (1,): 2, (1, 2): 3, (1, 2, 3): 0, (2,): 3, (2, 3): 0, (3,): 0,
    (0, 2): 3, (0, 2, 3): 0, (3, 3, 0, 1): 2, (3, 3, 0, 1, 2): 3, (3, 3, 0, 1, 2, 3): 0,
}  # fmt: skip
CHAIN = TableModel({context: [float(i == token) for i in range(4)] for context, token in FOLLOWS.items()}, 0)

Kept = Sequence[Sequence[int]]
FilterWith = Callable[[Tensor, float], Tensor]


def logits_of(probabilities: Sequence, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return logits with these probabilities; like most logits, they are not log-probabilities."""
    return torch.tensor(probabilities, dtype=torch.float64).log().add(1.3).to(dtype)


def assert_keeps(filtered: Tensor, logits: Tensor, kept: Kept, what: str) -> None:
    """Fail unless `filtered` is `logits` at the tokens `kept` of each row and -inf everywhere else."""
    expected = torch.full_like(logits, -torch.inf)
    vocab = logits.shape[-1]
    for target, row, tokens in zip(expected.view(-1, vocab), logits.reshape(-1, vocab), kept, strict=True):
        target[list(tokens)] = row[list(tokens)]
    assert_close(filtered, expected, 1e-6, what)


def check_kept(apply: FilterWith, cases: dict[float, Kept]) -> None:
    """Check every row alone, in both precisions."""
    for setting, kept in cases.items():
        for row, tokens in zip(ROWS, kept, strict=True):
            for dtype in (torch.float64, torch.float32):
                logits = logits_of(row, dtype)
                assert_keeps(apply(logits.clone(), setting), logits, [tokens], f"{setting} on probabilities {row}")


def check_rows(apply: FilterWith, setting: float, kept: Kept) -> None:
    """Check a batch in two dimensions, in another order, and in three dimensions."""
    batch = logits_of(ROWS) + torch.tensor([[0.0], [5.0], [-3.0]])
    flipped = batch.flip(0)
    assert_keeps(apply(batch.clone(), setting), batch, kept, f"{setting} on a batch of rows")
    assert_keeps(apply(flipped.clone(), setting), flipped, kept[::-1], f"{setting} on the batch in reverse order")
    cube = torch.stack([batch, flipped])
    kept_in_cube = [*kept, *kept[::-1]]
    assert_keeps(apply(cube.clone(), setting), cube, kept_in_cube, f"{setting} on logits of shape (2, 3, 6)")


def check_symmetry(apply: FilterWith, setting: float, kept: Kept) -> None:
    """Check permutations of the vocabulary and shifts of the logits."""
    for order in ([3, 5, 0, 2, 1, 4], [5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]):
        for shift in (-50.0, 0.0, 50.0):
            logits = logits_of(ROWS)[:, order] + shift
            moved = [[order.index(token) for token in tokens] for tokens in kept]
            what = f"{setting} with the vocabulary in the order {order} and {shift} added to the logits"
            assert_keeps(apply(logits.clone(), setting), logits, moved, what)


def check_masked(apply: FilterWith, cases: dict[float, Sequence[int]]) -> None:
    """Check a row with -inf, beside a row with a single token left."""
    logits = logits_of([MASKED, CERTAIN])
    for setting, tokens in cases.items():
        what = f"{setting} on probabilities {MASKED} and {CERTAIN}"
        assert_keeps(apply(logits.clone(), setting), logits, [tokens, [2]], what)


def check_pure(apply: FilterWith, setting: float, kept: Kept) -> None:
    """Check the result and the argument after the call."""
    before = logits_of(ROWS)
    logits = before.clone()
    assert_keeps(apply(logits, setting), before, kept, f"{setting} on a batch of rows")
    assert_close(logits, before, 0, "the argument after the call")


def check_limits(apply: FilterWith, kept_at: dict[float, Kept], refused: Sequence[float]) -> None:
    """Check the least and the largest settings, and that those beyond are refused."""
    logits = logits_of(ROWS)
    for setting, kept in kept_at.items():
        assert_keeps(apply(logits.clone(), setting), logits, kept, f"{setting} on a batch of rows")
    for setting in refused:
        assert_refused(lambda value=setting: apply(logits.clone(), value))


class TestAncestralSample:
    """A draw from the softmax."""

    def test_softmax(self):
        """Every token is drawn with its softmax probability, whatever constant is added to the logits.

        Look at how logits become the probabilities that you pass to `rng.categorical`.
        """
        for row in ROWS:
            for shift in (-7.0, 0.0, 7.0):
                logits = logits_of(row) + shift
                outcomes = enumerate_outcomes(lambda rng, z=logits: drawn(sampling.ancestral_sample(z, rng), ()))
                assert_same_distribution(outcomes, {(i,): p for i, p in enumerate(row)}, 1e-6)

    def test_rows_are_independent(self):
        """Every row of a batch is drawn on its own, from its own distribution.

        Normalise over the last dimension only, and give each row a draw of its own.
        """
        rows = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.4, 0.35], [0.5, 0.1, 0.4]]
        expected = {
            tokens: math.prod(row[token] for row, token in zip(rows, tokens, strict=True))
            for tokens in itertools.product(range(3), repeat=4)
        }
        logits = logits_of(rows)
        for shape in ((4,), (2, 2), (2, 1, 2)):
            shaped = logits.reshape(*shape, 3)
            outcomes = enumerate_outcomes(
                lambda rng, z=shaped, s=shape: drawn(sampling.ancestral_sample(z, rng), s), max_paths=100
            )
            assert_same_distribution(outcomes, expected, 1e-6)

    def test_removed_tokens(self):
        """A token with logit -inf is never drawn, and the argument stays as it was.

        exp(-inf) is 0, so the softmax needs no special case; look for NaN and for edits in place.
        """
        before = logits_of([MASKED, CERTAIN])
        logits = before.clone()
        outcomes = enumerate_outcomes(lambda rng: drawn(sampling.ancestral_sample(logits, rng), (2,)))
        assert_same_distribution(outcomes, {(i, 2): p for i, p in enumerate(MASKED) if p}, 1e-6)
        assert_close(logits, before, 0, "the argument after the call")

    def test_large_logits(self):
        """Logits of several hundred are drawn from as any others are, in float32 too.

        exp(89) overflows in float32: use torch's softmax, or subtract the largest logit before exp.
        """
        for shift in (-400.0, 400.0):
            logits = logits_of(ROWS[0], torch.float32) + shift
            outcomes = enumerate_outcomes(lambda rng, z=logits: drawn(sampling.ancestral_sample(z, rng), ()))
            assert_same_distribution(outcomes, {(i,): p for i, p in enumerate(ROWS[0])}, 1e-4)


class TestGumbelMaxSample:
    """The argmax of logits plus noise."""

    def test_argmax_of_perturbed_logits(self):
        """The token drawn is the argmax of p / E, where E = exp(-noise) are the exponential variables behind the noise.

        log(p / E) is the logit plus the noise, up to a constant: check the sign of the noise and what it is added to.
        """
        for noise in (
            [2.0, 0.1, 1.6, -0.3, 0.2, 0.9],
            [0.3, -1.0, 0.1, 0.2, -0.5, 1.4],
            [0.0, -2.0, 2.5, 1.0, 0.4, 4.0],
        ):
            for row in ROWS:
                ratios = [p / math.exp(-g) for p, g in zip(row, noise, strict=True)]
                token = sampling.gumbel_max_sample(logits_of(row), ScriptedNoise(noise))
                assert_equal(drawn(token, ()), (ratios.index(max(ratios)),), f"the token for noise {noise} on {row}")

    def test_noise_of_each_row(self):
        """Every row has noise of its own, in the order of `rng.gumbel(logits.shape)`.

        Look at the shape that you ask `rng.gumbel` for.
        """
        logits = logits_of(ROWS)[:, :3].log_softmax(-1)
        noise = [[0.0, 0.0, 3.0], [0.0, 5.0, 0.0], [3.0, 0.0, 0.0]]
        for rows, tokens in (([0, 1, 2], (2, 1, 0)), ([2, 0, 1], (0, 2, 1)), ([1, 1, 0], (1, 1, 2))):
            rng = ScriptedNoise([value for row in rows for value in noise[row]])
            assert_equal(drawn(sampling.gumbel_max_sample(logits, rng), (3,)), tokens, f"the tokens for noise {rows}")
            assert_equal(rng.used, 9, "the number of noise values used")
        flat = [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
        rng = ScriptedNoise([0.0, 1.0, 1.0, 0.0, 2.0, 1.0, 0.0, 2.0])
        token = sampling.gumbel_max_sample(logits_of(flat).reshape(2, 2, 2), rng)
        assert_equal(drawn(token, (2, 2)), (1, 0, 0, 1), "the tokens for logits of shape (2, 2, 2)")

    def test_removed_tokens(self):
        """A token with logit -inf is never drawn, whatever its noise.

        -inf plus noise is still -inf: removed tokens need no replacement by a finite number.
        """
        rng = ScriptedNoise([60.0, 0.0, 0.1, 60.0, 2.0, 0.3, 60.0, 60.0, -50.0, 60.0, 60.0, 60.0])
        tokens = sampling.gumbel_max_sample(logits_of([MASKED, CERTAIN]), rng)
        assert_equal(drawn(tokens, (2,)), (4, 2), "the tokens")

    def test_input_and_precision(self):
        """Float32 logits are drawn from as float64 ones are, and the argument stays as it was.

        `logits += noise` edits the caller's tensor.
        """
        noise = [0.2, -0.4, 0.3, 0.1, 0.9, 2.0, -0.1, 2.0, 0.4, 3.5, 0.0, 1.0]
        for dtype in (torch.float32, torch.float64):
            before = logits_of(ROWS[:2], dtype)
            logits = before.clone()
            token = sampling.gumbel_max_sample(logits, ScriptedNoise(noise))
            assert_equal(drawn(token, (2,)), (4, 3), f"the tokens for {dtype} logits")
            assert_close(logits, before, 0, "the argument after the call")


class TestTemperature:
    """Logits divided by a temperature."""

    def test_quotient(self):
        """The result is logits / temperature, in either precision and any number of dimensions.

        Divide the logits themselves: no softmax, no rounding.
        """
        for dtype in (torch.float64, torch.float32):
            logits = torch.tensor([[[1.5, -2.0, 0.25]], [[3.0, 7.0, -0.5]]], dtype=dtype)
            for temperature, expected in (
                (0.5, [[[3.0, -4.0, 0.5]], [[6.0, 14.0, -1.0]]]),
                (4.0, [[[0.375, -0.5, 0.0625]], [[0.75, 1.75, -0.125]]]),
            ):
                actual = sampling.apply_temperature(logits.clone(), temperature)
                assert_close(actual, torch.tensor(expected), 1e-6, f"the logits at temperature {temperature}")

    def test_sharpens_and_flattens(self):
        """The probabilities at temperature T are proportional to p^(1/T).

        A temperature below one makes the distribution sharper, one above one flatter.
        """
        for temperature in (0.3, 0.8, 2.5):
            for row in ROWS:
                powers = torch.tensor(row, dtype=torch.float64) ** (1 / temperature)
                probs = sampling.apply_temperature(logits_of(row), temperature).softmax(-1)
                assert_close(probs, powers / powers.sum(), 1e-6, f"the probabilities at temperature {temperature}")

    def test_removed_tokens_and_input(self):
        """A logit of -inf stays -inf, and the argument stays as it was.

        `logits /= temperature` edits the caller's tensor.
        """
        before = torch.tensor([1.2, -torch.inf, 0.6, -torch.inf])
        logits = before.clone()
        actual = sampling.apply_temperature(logits, 0.6)
        assert_close(actual, torch.tensor([2.0, -torch.inf, 1.0, -torch.inf]), 1e-5, "the logits at temperature 0.6")
        assert_close(logits, before, 0, "the argument after the call")

    def test_refuses_no_temperature(self):
        """Small temperatures divide like all others, and temperatures that are not positive raise ValueError.

        The limit for a temperature of zero is the argmax, which is another algorithm: refuse it.
        """
        logits = torch.tensor([0.02, -0.03], dtype=torch.float64)
        actual = sampling.apply_temperature(logits, 0.01)
        assert_close(actual, torch.tensor([2.0, -3.0]), 1e-6, "the logits at temperature 0.01")
        for temperature in (0.0, -1.0):
            assert_refused(lambda value=temperature: sampling.apply_temperature(logits, value))


class TestTopK:
    """The k most probable tokens."""

    def test_kept_tokens(self):
        """Exactly the k most probable tokens keep their logits, and all others get -inf.

        Count the tokens you keep, and check that they are the largest.
        """
        check_kept(
            sampling.top_k_filter,
            {
                1: [[1], [0], [5]],
                3: [[1, 3, 4], [0, 2, 4], [5, 1, 3]],
                5: [[0, 1, 2, 3, 4], [0, 2, 3, 4, 5], [0, 1, 2, 3, 5]],
            },
        )

    def test_rows_on_their_own(self):
        """Every row keeps its own k most probable tokens, whatever the other rows hold.

        Search along the last dimension, for a threshold or indices per row.
        """
        check_rows(sampling.top_k_filter, 2, [[1, 3], [0, 2], [5, 1]])

    def test_order_and_shift_do_not_matter(self):
        """The same tokens are kept after a permutation of the vocabulary or a shift of all logits.

        If this alone fails, look at how the mask gets from sorted order back to the order of the vocabulary.
        """
        check_symmetry(sampling.top_k_filter, 2, [[1, 3], [0, 2], [5, 1]])

    def test_removed_tokens_stay_removed(self):
        """A token that was -inf stays -inf, also where fewer than k tokens are left.

        With fewer than k finite logits the k-th largest is -inf: nothing more is removed, nothing comes back.
        """
        check_masked(sampling.top_k_filter, {2: [1, 2], 3: [1, 2, 4], 5: [1, 2, 4, 5]})

    def test_input_unchanged(self):
        """The tokens kept are returned in a new tensor, and the argument stays as it was.

        `logits[...] = -inf` edits the caller's tensor: mask a copy.
        """
        check_pure(sampling.top_k_filter, 2, [[1, 3], [0, 2], [5, 1]])

    def test_limits(self):
        """k from one to beyond the vocabulary is accepted, and k below one raises ValueError.

        torch.topk wants k no larger than the vocabulary.
        """
        check_limits(
            sampling.top_k_filter,
            {1: BEST, 5: [[0, 1, 2, 3, 4], [0, 2, 3, 4, 5], [0, 1, 2, 3, 5]], 6: ALL, 50: ALL},
            [0, -1],
        )


class TestTopP:
    """The nucleus."""

    def test_kept_tokens(self):
        """The smallest set of most probable tokens that reaches top_p is kept, with the token that crosses it.

        A token stays when the probability of those before it is still below top_p.
        """
        check_kept(
            sampling.top_p_filter,
            {
                0.3: [[1], [0], [5, 1]],
                0.7: [[1, 3, 4], [0, 2], [5, 1, 3, 0]],
                0.95: [[0, 1, 2, 3, 4], [0, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]],
            },
        )

    def test_rows_on_their_own(self):
        """Every row keeps its own nucleus, whatever the other rows hold.

        Sort and accumulate along the last dimension.
        """
        check_rows(sampling.top_p_filter, 0.7, [[1, 3, 4], [0, 2], [5, 1, 3, 0]])

    def test_order_and_shift_do_not_matter(self):
        """The same tokens are kept after a permutation of the vocabulary or a shift of all logits.

        If this alone fails, look at how the mask gets from sorted order back to the order of the vocabulary.
        """
        check_symmetry(sampling.top_p_filter, 0.7, [[1, 3, 4], [0, 2], [5, 1, 3, 0]])

    def test_removed_tokens_stay_removed(self):
        """A token that was -inf stays -inf, and a token that is certain is kept alone.

        Only finite logits may come out where finite logits went in.
        """
        check_masked(sampling.top_p_filter, {0.3: [1], 0.7: [1, 2], 0.97: [1, 2, 4, 5], 1.0: [1, 2, 4, 5]})

    def test_input_unchanged(self):
        """The tokens kept are returned in a new tensor, and the argument stays as it was.

        `logits[...] = -inf` edits the caller's tensor: mask a copy.
        """
        check_pure(sampling.top_p_filter, 0.7, [[1, 3, 4], [0, 2], [5, 1, 3, 0]])

    def test_limits(self):
        """A tiny top_p keeps the most probable token, top_p 1 keeps all, and values outside (0, 1] raise ValueError.

        At least one token is always kept, however large its own probability is.
        """
        check_limits(sampling.top_p_filter, {0.001: BEST, 0.6: [[1, 3], [0], [5, 1, 3, 0]], 1.0: ALL}, [0.0, -0.1, 1.1])


class TestMinP:
    """A threshold relative to the most probable token."""

    def test_kept_tokens(self):
        """Exactly the tokens of at least min_p times the probability of the most probable one are kept.

        The threshold is a product: neither min_p itself nor a ratio of logits.
        """
        check_kept(
            sampling.min_p_filter,
            {
                0.3: [[1, 3, 4], [0], [0, 1, 2, 3, 4, 5]],
                0.75: [[1], [0], [5, 1, 3, 0]],
                0.1: [[0, 1, 2, 3, 4], [0, 2, 4, 5], [0, 1, 2, 3, 4, 5]],
            },
        )

    def test_rows_on_their_own(self):
        """Every row has a threshold of its own, from its own most probable token.

        Take the maximum over the last dimension only.
        """
        check_rows(sampling.min_p_filter, 0.3, [[1, 3, 4], [0], [0, 1, 2, 3, 4, 5]])

    def test_order_and_shift_do_not_matter(self):
        """The same tokens are kept after a permutation of the vocabulary or a shift of all logits.

        If only shifted logits fail, a threshold is compared with logits where it should be with probabilities.
        """
        check_symmetry(sampling.min_p_filter, 0.3, [[1, 3, 4], [0], [0, 1, 2, 3, 4, 5]])

    def test_removed_tokens_stay_removed(self):
        """A token that was -inf stays -inf, also at min_p 0.

        min_p 0 removes nothing, and brings nothing back; log(0) needs care in the log domain.
        """
        check_masked(sampling.min_p_filter, {0.5: [1, 2], 0.3: [1, 2, 4], 0.0: [1, 2, 4, 5]})

    def test_input_unchanged(self):
        """The tokens kept are returned in a new tensor, and the argument stays as it was.

        `logits[...] = -inf` edits the caller's tensor: mask a copy.
        """
        check_pure(sampling.min_p_filter, 0.3, [[1, 3, 4], [0], [0, 1, 2, 3, 4, 5]])

    def test_limits(self):
        """min_p 0 keeps all tokens, min_p 1 the most probable one, and values outside [0, 1] raise ValueError.

        The most probable token passes its own threshold: compare with >=.
        """
        check_limits(sampling.min_p_filter, {0.0: ALL, 0.75: [[1], [0], [5, 1, 3, 0]], 1.0: BEST}, [-0.1, 1.1])


class TestTypical:
    """The tokens nearest to the entropy."""

    def test_kept_tokens(self):
        """Tokens are kept from the surprisal nearest to the entropy outwards, until their mass reaches typical_p.

        Sort by the absolute difference, in nats on both sides; accumulate probabilities in that order.
        """
        check_kept(
            sampling.typical_filter,
            {
                0.2: [[3], [0], [0, 3]],
                0.6: [[3, 4, 1], [0], [0, 3, 1, 5]],
                0.9: [[3, 4, 1, 2], [0, 2, 4, 5], [0, 1, 2, 3, 4, 5]],
            },
        )

    def test_rows_on_their_own(self):
        """Every row has an entropy of its own and keeps its own typical set.

        Sum p log p over the last dimension only, and keep that dimension.
        """
        check_rows(sampling.typical_filter, 0.7, [[3, 4, 1], [0, 2], [0, 3, 1, 5]])

    def test_order_and_shift_do_not_matter(self):
        """The same tokens are kept after a permutation of the vocabulary or a shift of all logits.

        If this alone fails, look at how the mask gets from sorted order back to the order of the vocabulary.
        """
        check_symmetry(sampling.typical_filter, 0.7, [[3, 4, 1], [0, 2], [0, 3, 1, 5]])

    def test_removed_tokens_stay_removed(self):
        """A token that was -inf stays -inf and adds nothing to the entropy.

        0 * log 0 is NaN in floating point, where the entropy wants 0.
        """
        check_masked(
            sampling.typical_filter, {0.2: [2], 0.6: [2, 1], 0.9: [2, 1, 4], 0.99: [1, 2, 4, 5], 1.0: [1, 2, 4, 5]}
        )

    def test_input_unchanged(self):
        """The tokens kept are returned in a new tensor, and the argument stays as it was.

        `logits[...] = -inf` edits the caller's tensor: mask a copy.
        """
        check_pure(sampling.typical_filter, 0.7, [[3, 4, 1], [0, 2], [0, 3, 1, 5]])

    def test_limits(self):
        """A tiny typical_p keeps the most typical token, 1 keeps all, and values outside (0, 1] raise ValueError.

        The most typical token need not be the most probable one.
        """
        check_limits(
            sampling.typical_filter,
            {0.001: [[3], [0], [0]], 0.45: [[3, 4, 1], [0], [0, 3, 1]], 1.0: ALL},
            [0.0, -0.1, 1.1],
        )


class TestEpsilon:
    """An absolute threshold."""

    def test_kept_tokens(self):
        """Exactly the tokens of at least epsilon_cutoff probability are kept.

        Compare probabilities, not logits, and do not scale the threshold.
        """
        check_kept(
            sampling.epsilon_filter,
            {
                0.07: [[1, 2, 3, 4], [0, 2, 4, 5], [0, 1, 2, 3, 4, 5]],
                0.115: [[1, 3, 4], [0, 2], [0, 1, 2, 3, 4, 5]],
                0.15: [[1, 3, 4], [0], [0, 1, 3, 5]],
            },
        )

    def test_rows_on_their_own(self):
        """Every row keeps the tokens that pass the threshold in that row.

        Normalise over the last dimension only.
        """
        check_rows(sampling.epsilon_filter, 0.15, [[1, 3, 4], [0], [0, 1, 3, 5]])

    def test_order_and_shift_do_not_matter(self):
        """The same tokens are kept after a permutation of the vocabulary or a shift of all logits.

        If only shifted logits fail, a threshold is compared with logits where it should be with probabilities.
        """
        check_symmetry(sampling.epsilon_filter, 0.15, [[1, 3, 4], [0], [0, 1, 3, 5]])

    def test_removed_tokens_stay_removed(self):
        """A token that was -inf stays -inf, also at epsilon_cutoff 0.

        A cutoff of 0 removes nothing, and brings nothing back.
        """
        check_masked(sampling.epsilon_filter, {0.25: [1, 2], 0.15: [1, 2, 4], 0.0: [1, 2, 4, 5]})

    def test_input_unchanged(self):
        """The tokens kept are returned in a new tensor, and the argument stays as it was.

        `logits[...] = -inf` edits the caller's tensor: mask a copy.
        """
        check_pure(sampling.epsilon_filter, 0.15, [[1, 3, 4], [0], [0, 1, 3, 5]])

    def test_limits(self):
        """A row where no token passes keeps its most probable one, and values outside [0, 1) raise ValueError.

        A row of nothing but -inf cannot be drawn from.
        """
        check_limits(sampling.epsilon_filter, {0.0: ALL, 0.5: BEST, 0.99: BEST}, [-0.1, 1.0, 1.5])


class TestEta:
    """A threshold that follows the entropy."""

    def test_kept_tokens(self):
        """Exactly the tokens of at least min(eta_cutoff, sqrt(eta_cutoff) exp(-entropy)) probability are kept.

        Check the minimum, the square root, the sign in the exponent, and that the entropy is in nats.
        """
        check_kept(
            sampling.eta_filter,
            {
                0.035: [[0, 1, 2, 3, 4], [0, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]],
                0.15: [[1, 2, 3, 4], [0, 2], [0, 1, 2, 3, 4, 5]],
                0.5: [[1, 3, 4], [0], [0, 1, 2, 3, 4, 5]],
            },
        )

    def test_rows_on_their_own(self):
        """Every row has an entropy and so a threshold of its own.

        Sum p log p over the last dimension only, and keep that dimension.
        """
        check_rows(sampling.eta_filter, 0.15, [[1, 2, 3, 4], [0, 2], [0, 1, 2, 3, 4, 5]])

    def test_order_and_shift_do_not_matter(self):
        """The same tokens are kept after a permutation of the vocabulary or a shift of all logits.

        If only shifted logits fail, a threshold is compared with logits where it should be with probabilities.
        """
        check_symmetry(sampling.eta_filter, 0.15, [[1, 2, 3, 4], [0, 2], [0, 1, 2, 3, 4, 5]])

    def test_removed_tokens_stay_removed(self):
        """A token that was -inf stays -inf and adds nothing to the entropy.

        0 * log 0 is NaN in floating point, where the entropy wants 0.
        """
        check_masked(sampling.eta_filter, {0.8: [1, 2], 0.15: [1, 2, 4], 0.0: [1, 2, 4, 5]})

    def test_input_unchanged(self):
        """The tokens kept are returned in a new tensor, and the argument stays as it was.

        `logits[...] = -inf` edits the caller's tensor: mask a copy.
        """
        check_pure(sampling.eta_filter, 0.15, [[1, 2, 3, 4], [0, 2], [0, 1, 2, 3, 4, 5]])

    def test_limits(self):
        """A cutoff of 0 keeps all tokens, a large one still some, and values outside [0, 1) raise ValueError.

        sqrt(0) is 0, and the most probable token always has at least exp(-entropy): no special case is needed.
        """
        check_limits(sampling.eta_filter, {0.0: ALL, 0.95: [[1, 3], [0], [1, 3, 5]]}, [-0.1, 1.0, 1.5])


class TestZipfExponent:
    """The slope of Zipf's law."""

    def test_exact_law(self):
        """On an exact Zipf distribution the estimate is its exponent, in whatever order the tokens come.

        Sort the probabilities from large to small before you take ratios of neighbours.
        """
        for exponent, vocab in ((0.7, 60), (1.0, 30), (1.9, 90)):
            for probs in (zipf(exponent, vocab), shuffled(zipf(exponent, vocab))):
                assert_close(sampling.estimate_zipf_exponent(probs), exponent, 1e-6, f"the exponent of {vocab} tokens")

    def test_least_squares(self):
        """On any other distribution the estimate is sum(t b) / sum(t^2), the least-squares slope through the origin.

        A mean of the ratios b / t, or a regression of log p on log rank, agrees on exact Zipf distributions only.
        """
        for probs, b in (
            ([0.15, 0.6, 0.25], [math.log(0.6 / 0.25), math.log(0.25 / 0.15)]),
            ([0.1, 0.2, 0.3, 0.4], [math.log(4 / 3), math.log(3 / 2), math.log(2 / 1)]),
            ([0.04, 0.9, 0.06], [math.log(90 / 6), math.log(6 / 4)]),
        ):
            t = [math.log(2 / 1), math.log(3 / 2), math.log(4 / 3)][: len(b)]
            expected = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
            actual = sampling.estimate_zipf_exponent(torch.tensor(probs, dtype=torch.float64))
            assert_close(actual, expected, 1e-6, f"the exponent of {probs}")

    def test_most_probable_tokens_only(self):
        """The estimate is that of the m most probable tokens, and m is 100 unless it is given.

        m tokens have m - 1 ratios of neighbours: the ratio to the token after the m-th is not one of them.
        """
        for m, given in ((7, {"m": 7}), (100, {})):
            weights = [i**-1.4 for i in range(1, m + 1)] + [m**-1.4 * 0.05 * 0.5**i for i in range(30)]
            probs = shuffled(torch.tensor(weights, dtype=torch.float64) / sum(weights))
            assert_close(sampling.estimate_zipf_exponent(probs, **given), 1.4, 1e-6, f"the exponent for m = {m}")
        three_of_four = (math.log(2) * math.log(4 / 3) + math.log(3 / 2) ** 2) / (
            math.log(2) ** 2 + math.log(3 / 2) ** 2
        )
        actual = sampling.estimate_zipf_exponent(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), 3)
        assert_close(actual, three_of_four, 1e-6, "the exponent of (0.1, 0.2, 0.3, 0.4) for m = 3")
        assert_close(sampling.estimate_zipf_exponent(zipf(0.9, 12), 40), 0.9, 1e-6, "the exponent of 12 tokens, m = 40")

    def test_zero_probabilities(self):
        """Tokens of probability zero are left out, and when a single token is left the estimate is infinite.

        A ratio to a probability of zero is infinite: drop zeros before you take ratios.
        """
        probs = torch.cat([torch.zeros(4, dtype=torch.float64), shuffled(zipf(1.2, 9)), torch.zeros(2)])
        assert_close(sampling.estimate_zipf_exponent(probs), 1.2, 1e-6, "the exponent of 9 tokens among zeros")
        assert_close(sampling.estimate_zipf_exponent(torch.tensor(CERTAIN)), math.inf, 0, "the exponent of one token")

    def test_input_and_precision(self):
        """Float32 probabilities give the same estimate, and the argument stays as it was.

        Sort or scale a copy.
        """
        before = shuffled(zipf(1.3, 50)).float()
        probs = before.clone()
        assert_close(sampling.estimate_zipf_exponent(probs), 1.3, 1e-4, "the exponent of float32 probabilities")
        assert_close(probs, before, 0, "the argument after the call")


class TestMirostat:
    """Top-k with a target surprise."""

    def test_k_follows_mu(self):
        """k is the closed form for the estimated exponent, the vocabulary and mu, to the nearest integer.

        mu starts at 2 tau and is in bits; the last power is 1 / s; N is the vocabulary, not m.
        """
        for exponent, vocab, tau, k in (
            (0.8, 300, 2.5, 4),  # 3.958
            (2.2, 40, 1.0, 2),  # 2.051
            (1.3, 6, 1.2, 3),  # 2.797
            (0.5, 40, 2.0, 2),  # 2.257
        ):
            actual = sampling.Mirostat(tau).top_k(shuffled(zipf(exponent, vocab)))
            assert_equal(actual, k, f"k for s = {exponent}, N = {vocab}, mu = {2 * tau}")
        weights = [i**-1.3 for i in range(1, 6)] + [5**-1.3 * 0.6 * 0.98**i for i in range(55)]
        probs = shuffled(torch.tensor(weights, dtype=torch.float64) / sum(weights))
        assert_equal(sampling.Mirostat(3.0, m=5).top_k(probs), 13, "k for s = 1.3, N = 60, mu = 6, m = 5")
        assert_equal(sampling.Mirostat(3.0).top_k(probs), 14, "k for s = 1.201, N = 60, mu = 6, m = 100")

    def test_k_stays_in_bounds(self):
        """k is at least 1 and at most the vocabulary, and the limits at s = 0, 1 and infinity are taken.

        Clamp before you round, and look for a division by zero where s is 0 or 1.
        """
        for probs, tau, k, why in (
            (zipf(1.2, 50), 0.05, 1, "0.461 before clamping"),
            (torch.tensor([0.2, 0.5, 0.3]), 2.0, 3, "24.4 before clamping"),
            (torch.full((4,), 0.25), 2.0, 4, "equal probabilities and mu = 4"),
            (torch.full((4,), 0.25), 0.25, 1, "equal probabilities and mu = 0.5"),
            (torch.tensor(CERTAIN), 1.5, 1, "a certain token"),
        ):
            assert_equal(sampling.Mirostat(tau).top_k(probs), k, f"k for {why}")
        probs = torch.tensor([0.5, 0.25, 0.15, 0.1], dtype=torch.float64)
        assert_equal(sampling.Mirostat(1.0, m=2).top_k(probs), 3, "k for s = 1, N = 4, mu = 2")  # 4 / log 4

    def test_draws_among_k(self):
        """The first draw is among the k most probable tokens, with renormalised probabilities.

        Truncate, renormalise, draw: with the mu from before this draw.
        """
        for tau, tokens in ((1.25, [1, 3, 4]), (1.0, [1, 3]), (0.25, [1])):  # k = 3.090, 2.247, 0.865
            mass = sum(ROWS[0][token] for token in tokens)
            for dtype in (torch.float64, torch.float32):
                logits = logits_of(ROWS[0], dtype)
                outcomes = enumerate_outcomes(lambda rng, z=logits, t=tau: sampling.Mirostat(t).sample(z, rng))
                assert_same_distribution(outcomes, {token: ROWS[0][token] / mass for token in tokens}, 1e-6)

    def test_mu_after_a_draw(self):
        """mu falls by learning_rate times the excess of the token's surprise, in bits and before truncation, over tau.

        A token that surprises more than tau lowers mu; the surprise is of its probability under all tokens.
        """
        for given, rate in (({}, 0.1), ({"learning_rate": 0.7}, 0.7)):
            mus: dict[int, float] = {}

            def run(rng: Randomness, given: dict = given, mus: dict = mus) -> int:
                mirostat = sampling.Mirostat(1.25, **given)
                token = mirostat.sample(logits_of(ROWS[0]), rng)
                mus[token] = mirostat.mu
                return token

            outcomes = enumerate_outcomes(run)
            assert_equal(set(outcomes), {1, 3, 4}, "the tokens that can be drawn")
            for token, mu in mus.items():
                expected = 2.5 - rate * (-math.log2(ROWS[0][token]) - 1.25)
                assert_close(mu, expected, 1e-5, f"mu after token {token}")

    def test_three_steps(self):
        """Each step draws with the mu that the surprises so far have left.

        Keep mu between calls of `sample`, and estimate the exponent again from the distribution of each step.
        """
        steps = [[0.15, 0.6, 0.25], [0.1, 0.2, 0.3, 0.4], [0.45, 0.05, 0.3, 0.2]]

        def run(rng: Randomness) -> tuple[int, ...]:
            mirostat = sampling.Mirostat(1.0, learning_rate=0.6)
            return tuple(mirostat.sample(logits_of(probs), rng) for probs in steps)

        paths = [((), 1.0, 2.0)]
        for probs in steps:
            paths = [
                ((*tokens, token), mass * p, mu - 0.6 * (-math.log2(probs[token]) - 1.0))
                for tokens, mass, mu in paths
                for token, p in truncated(probs, closed_form_k(probs, mu)).items()
            ]
        expected = {tokens: mass for tokens, mass, _ in paths}
        assert_same_distribution(enumerate_outcomes(run, max_paths=200), expected, 1e-6)

    def test_removed_tokens_and_input(self):
        """Removed tokens are never drawn, they count in N, and the logits stay as they were.

        A logit of -inf is a probability of zero: no ratio can be taken with it, no surprise of it can arise.
        """
        before = logits_of([0.25, 0.0, 0.6, 0.0, 0.15])
        logits = before.clone()
        for tau, k in ((1.1, 3), (0.9, 2)):  # k = 2.698, 2.166
            outcomes = enumerate_outcomes(lambda rng, t=tau: sampling.Mirostat(t).sample(logits, rng))
            expected = {token: p / sum([0.6, 0.25, 0.15][:k]) for token, p in [(2, 0.6), (0, 0.25), (4, 0.15)][:k]}
            assert_same_distribution(outcomes, expected, 1e-6)
            assert_close(logits, before, 0, "the argument after the call")


class TestGenerate:
    """Sampling to the end."""

    def test_distribution_of_continuations(self):
        """A continuation comes with its probability under the model, given the prompt, with its end token.

        Look at the context of each call, at the last token, and at what counts towards max_tokens.
        """
        model = NgramModel(vocab_size=3, order=3, seed=41, eos_token_id=1)
        for prompt in ([], [2, 0]):
            expected = {(tokens,): p for tokens, p in enumerate_sequences(model, 3, prompt).items()}
            assert_same_distribution(outcomes_of_generate(model, [prompt], 3), expected, 1e-6)

    def test_rows_are_independent(self):
        """Prompts of different lengths are continued independently of each other.

        The model takes contexts of different lengths: do not pad, and give every row its own draw.
        """
        model = PositionModel(vocab_size=3, max_length=5, seed=42, eos_token_id=2)
        first, second = (enumerate_sequences(model, 2, prompt) for prompt in ([0, 1, 0], [1]))
        expected = {(a, b): p * q for (a, p), (b, q) in itertools.product(first.items(), second.items())}
        assert_same_distribution(outcomes_of_generate(model, [[0, 1, 0], [1]], 2), expected, 1e-6)

    def test_filters_in_order(self):
        """At every step the filters change the log-probabilities in the order given, before the draw.

        Each filter takes what the one before it returned; the draw is from the softmax of what the last one returns.
        """
        model = NgramModel(vocab_size=4, order=2, seed=82)
        sharpen = lambda z: z / 0.6  # noqa: E731
        cut = lambda z: z.masked_fill(z < math.log(0.1), -torch.inf)  # noqa: E731
        for filters in ([sharpen, cut], [cut, sharpen], [cut]):
            expected = {(tokens,): p for tokens, p in filtered_sequences(model, [3], 2, filters).items()}
            assert_same_distribution(outcomes_of_generate(model, [[3]], 2, filters), expected, 1e-6)

    def test_filters_see_every_row(self):
        """A filter gets a row of log-probabilities for each prompt, and each row is drawn from what came back for it.

        Pass the whole batch that the model returned to each filter, at every step.
        """
        model = NgramModel(vocab_size=4, order=2, seed=44, eos_token_id=3)
        seen: list[Tensor] = []

        def two_best(logits: Tensor) -> Tensor:
            seen.append(logits.clone())
            return logits.masked_fill(logits < logits.topk(2).values[..., 1:], -torch.inf)

        first, second = (filtered_sequences(model, prompt, 2, [two_best]) for prompt in ([0], [2, 1]))
        expected = {(a, b): p * q for (a, p), (b, q) in itertools.product(first.items(), second.items())}
        seen.clear()
        assert_same_distribution(outcomes_of_generate(model, [[0], [2, 1]], 2, [two_best]), expected, 1e-6)
        for logits in seen:
            assert_close(
                logits.exp().sum(-1), torch.ones(logits.shape[:-1]), 1e-5, "the sum of exp(what a filter gets)"
            )

    def test_finished_rows(self):
        """A row that has ended is neither extended nor passed to the model again, and others go on.

        Each step is one call of the model for the rows that have not ended; after the last one ends there is none.
        """
        model = CountingModel(CHAIN)
        y = sampling.generate(model, [[3], [1], [2]], max_tokens=9, rng=TorchRandomness(0))
        assert_equal(y, [[0], [2, 3, 0], [3, 0]], "the continuations")
        assert_equal(model.calls, 3, "the number of model calls")
        assert_equal(model.contexts, 6, "the number of contexts passed to the model")

    def test_limits(self):
        """max_tokens bounds the continuation alone, an end token in a prompt ends nothing, and prompts do not change.

        max_tokens 0 gives empty continuations without a model call; a negative one raises ValueError.
        """
        x = [[3, 3, 0, 1], [0, 2], [1]]
        y = sampling.generate(CHAIN, x, max_tokens=2, rng=TorchRandomness(0))
        assert_equal(y, [[2, 3], [3, 0], [2, 3]], "the continuations of at most two tokens")
        assert_equal(x, [[3, 3, 0, 1], [0, 2], [1]], "the prompts after the call")
        model = CountingModel(CHAIN)
        assert_equal(sampling.generate(model, x, max_tokens=0, rng=TorchRandomness(0)), [[], [], []], "no continuation")
        assert_equal(model.calls, 0, "the number of model calls for max_tokens 0")
        assert_refused(lambda: sampling.generate(CHAIN, x, max_tokens=-1, rng=TorchRandomness(0)))

    @pytest.mark.reference("sampled")
    def test_real_model(self, golden):
        """On a real model too, every token is drawn from the softmax of what the filters return, over all tokens.

        Keep every token that the filters keep: with a thousand tokens and more, the improbable ones have weight.
        """
        for case in golden:
            model, rng = RecordedModel(case["recording"]), ScriptedDraws(case["script"])
            params = SamplingParams(**dict(case["filters"]))
            cut = lambda z, params=params: probabilities(z, [params] * len(z)).log()  # noqa: E731
            y = sampling.generate(
                model, case["x"], max_tokens=case["max_tokens"], rng=rng, filters=[cut] if case["filters"] else []
            )
            assert_equal(y, case["y"], "the continuations")
            for step, (actual, expected) in enumerate(zip(rng.probs, case["probs"], strict=True)):
                what = f"the distribution of draw {step} after the filters {case['filters']}"
                assert_close(actual, expected, ARITHMETIC, what)


def assert_refused(call: Callable[[], object]) -> None:
    """Fail unless the call raises ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 (the message is the student's own)
        call()


def drawn(tokens: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the tokens as a flat tuple after checking the shape of the tensor that holds them."""
    assert isinstance(tokens, Tensor), f"expected a tensor of token ids, got {type(tokens).__name__}"
    assert_equal(tuple(tokens.shape), shape, "the shape of the tokens")
    return tuple(tokens.flatten().tolist())


def zipf(exponent: float, vocab: int) -> Tensor:
    """Return Zipf's law exactly."""
    weights = torch.arange(1, vocab + 1, dtype=torch.float64) ** -exponent
    return weights / weights.sum()


def shuffled(probs: Tensor) -> Tensor:
    """Return the probabilities in another, fixed order."""
    return probs[torch.randperm(len(probs), generator=torch.Generator().manual_seed(17))]


def closed_form_k(probs: Sequence[float], mu: float) -> int:
    """Return Mirostat's k, from the formula in the docstring."""
    p = sorted(probs, reverse=True)
    t = [math.log((i + 1) / i) for i in range(1, len(p))]
    b = [math.log(large / small) for large, small in itertools.pairwise(p)]
    s = sum(x * y for x, y in zip(t, b, strict=True)) / sum(x * x for x in t)
    k = ((s - 1) * 2**mu / (1 - len(p) ** (1 - s))) ** (1 / s)
    assert abs(k % 1 - 0.5) > 0.01, f"k = {k} would depend on rounding"
    return max(1, min(len(p), round(k)))


def truncated(probs: Sequence[float], k: int) -> dict[int, float]:
    """Return the k most probable tokens with renormalised probabilities."""
    best = sorted(range(len(probs)), key=lambda token: -probs[token])[:k]
    return {token: probs[token] / sum(probs[i] for i in best) for token in best}


def outcomes_of_generate(
    model: LanguageModel, x: list[list[int]], max_tokens: int, filters: Sequence[Callable[[Tensor], Tensor]] = ()
) -> dict[tuple[tuple[int, ...], ...], float]:
    """Return the exact joint distribution of the continuations."""

    def run(rng: Randomness) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(tokens) for tokens in sampling.generate(model, x, max_tokens=max_tokens, rng=rng, filters=filters)
        )

    return enumerate_outcomes(run, max_paths=400, max_draws=50)


def filtered_sequences(
    model: LanguageModel, context: list[int], max_tokens: int, filters: Sequence[Callable[[Tensor], Tensor]]
) -> dict[tuple[int, ...], float]:
    """Return the distribution of continuations when every step is drawn from what the filters leave."""
    logits = model.next_token_logprobs([context])
    for change in filters:
        logits = change(logits)
    sequences: dict[tuple[int, ...], float] = {}
    for token, p in enumerate(logits.softmax(-1)[0].tolist()):
        if p == 0:
            continue
        if token == model.eos_token_id or max_tokens == 1:
            sequences[(token,)] = p
        else:
            rest = filtered_sequences(model, [*context, token], max_tokens - 1, filters)
            sequences |= {(token, *tokens): p * q for tokens, q in rest.items()}
    return sequences
