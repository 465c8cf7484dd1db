"""Public tests of hw1.sampling. Run them with `pytest hw1/tests/test_sampling.py`; -k TestTopP picks one problem.

Nothing here is left to luck: `enumerate_outcomes` follows every draw that an algorithm can make and returns its exact
distribution, and `ScriptedNoise` answers with noise that is written down in the test.
"""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from hw1 import sampling
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.language_model import CountingModel
from shared_tasks.models.randomness import Randomness, ScriptedNoise, TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import NgramModel, TableModel, enumerate_sequences

HALVES = [0.5, 0.25, 0.125, 0.0625, 0.0625]  # entropy 1.875 bits = 1.2997 nats
MIXED = [0.1, 0.2, 0.4, 0.3]  # not in sorted order
PEAKED = [0.07, 0.85, 0.05, 0.03]


def logits_of(probabilities: Sequence, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return logits with these probabilities."""
    return torch.tensor(probabilities, dtype=torch.float64).log().add(0.5).to(dtype)


def assert_keeps(filtered: Tensor, logits: Tensor, kept: Sequence[Sequence[int]], what: str) -> None:
    """Fail unless `filtered` is `logits` at the tokens `kept` of each row and -inf everywhere else."""
    expected = torch.full_like(logits, -torch.inf)
    vocab = logits.shape[-1]
    for target, row, tokens in zip(expected.view(-1, vocab), logits.reshape(-1, vocab), kept, strict=True):
        target[list(tokens)] = row[list(tokens)]
    assert_close(filtered, expected, 1e-6, what)


class TestAncestralSample:
    """A draw from the softmax."""

    def test_softmax(self):
        """Every token is drawn with its softmax probability."""
        outcomes = enumerate_outcomes(lambda rng: sampling.ancestral_sample(logits_of(MIXED), rng).item())
        assert_same_distribution(outcomes, dict(enumerate(MIXED)), 1e-6)

    def test_batch(self):
        """Every row of a batch is drawn on its own, from its own distribution."""
        logits = logits_of([[0.8, 0.2], [0.3, 0.7]])
        outcomes = enumerate_outcomes(lambda rng: tuple(sampling.ancestral_sample(logits, rng).tolist()))
        assert_same_distribution(outcomes, {(0, 0): 0.24, (0, 1): 0.56, (1, 0): 0.06, (1, 1): 0.14}, 1e-6)


class TestGumbelMaxSample:
    """The argmax of logits plus noise."""

    def test_argmax(self):
        """The token drawn is the argmax of the logits plus the noise."""
        for noise, token in (([0.0, 0.0, 0.0, 0.0], 2), ([3.0, 0.0, 0.0, 0.0], 0), ([-1.0, 2.0, -1.0, 1.0], 1)):
            drawn = sampling.gumbel_max_sample(logits_of(MIXED), ScriptedNoise(noise))
            assert_close(drawn, token, 0, f"the token for noise {noise}")

    def test_batch(self):
        """Every row of a batch has noise of its own."""
        rng = ScriptedNoise([3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0])
        drawn = sampling.gumbel_max_sample(logits_of([MIXED, MIXED]), rng)
        assert_close(drawn, torch.tensor([0, 3]), 0, "the tokens")
        assert_equal(rng.used, 8, "the number of noise values used")


class TestTemperature:
    """Logits divided by a temperature."""

    def test_quotient(self):
        """The result is logits / temperature."""
        logits = torch.tensor([[1.0, -2.0], [0.5, -torch.inf]])
        actual = sampling.apply_temperature(logits, 0.5)
        assert_close(actual, torch.tensor([[2.0, -4.0], [1.0, -torch.inf]]), 1e-6, "the logits at temperature 0.5")

    def test_refuses_zero(self):
        """A temperature of two halves the logits, and a temperature of zero raises ValueError."""
        logits = torch.tensor([3.0, -1.0])
        assert_close(sampling.apply_temperature(logits, 2.0), torch.tensor([1.5, -0.5]), 1e-6, "temperature 2")
        with pytest.raises(ValueError):  # noqa: PT011
            sampling.apply_temperature(logits, 0.0)


class TestTopK:
    """The k most probable tokens."""

    def test_kept_tokens(self):
        """The k most probable tokens keep their logits, and all others get -inf."""
        for top_k, kept in ((1, [2]), (2, [2, 3]), (3, [1, 2, 3])):
            logits = logits_of(MIXED)
            assert_keeps(sampling.top_k_filter(logits, top_k), logits_of(MIXED), [kept], f"top_k {top_k} on {MIXED}")

    def test_batch(self):
        """Every row keeps its own k most probable tokens."""
        logits = logits_of([MIXED, PEAKED])
        assert_keeps(sampling.top_k_filter(logits.clone(), 2), logits, [[2, 3], [0, 1]], "top_k 2 on two rows")

    def test_limits(self):
        """k may exceed the number of tokens left, and k below one raises ValueError."""
        logits = logits_of([0.5, 0.0, 0.3, 0.2])
        assert_keeps(sampling.top_k_filter(logits.clone(), 2), logits, [[0, 2]], "top_k 2 of 3 tokens")
        assert_keeps(sampling.top_k_filter(logits.clone(), 9), logits, [[0, 2, 3]], "top_k 9 of 3 tokens")
        with pytest.raises(ValueError):  # noqa: PT011
            sampling.top_k_filter(logits, 0)


class TestTopP:
    """The nucleus."""

    def test_kept_tokens(self):
        """The smallest set of most probable tokens that reaches top_p is kept, with the token that crosses it."""
        for top_p, kept in ((0.49, [0]), (0.51, [0, 1]), (0.74, [0, 1]), (0.76, [0, 1, 2])):
            logits = logits_of(HALVES)
            assert_keeps(sampling.top_p_filter(logits, top_p), logits_of(HALVES), [kept], f"top_p {top_p} on {HALVES}")

    def test_batch(self):
        """Every row keeps its own nucleus, in the order of the vocabulary."""
        logits = logits_of([MIXED, PEAKED])
        assert_keeps(sampling.top_p_filter(logits.clone(), 0.8), logits, [[1, 2, 3], [1]], "top_p 0.8 on two rows")

    def test_limits(self):
        """A tiny top_p keeps the most probable token, and top_p 0 raises ValueError."""
        logits = logits_of(MIXED)
        assert_keeps(sampling.top_p_filter(logits.clone(), 1e-4), logits, [[2]], f"top_p 0.0001 on {MIXED}")
        with pytest.raises(ValueError):  # noqa: PT011
            sampling.top_p_filter(logits, 0.0)


class TestMinP:
    """A threshold relative to the most probable token."""

    def test_kept_tokens(self):
        """The tokens of at least min_p times the probability of the most probable one are kept."""
        for min_p, kept in ((0.9, [2]), (0.6, [2, 3]), (0.4, [1, 2, 3])):
            logits = logits_of(MIXED)
            assert_keeps(sampling.min_p_filter(logits, min_p), logits_of(MIXED), [kept], f"min_p {min_p} on {MIXED}")

    def test_batch(self):
        """Every row has a threshold of its own."""
        logits = logits_of([MIXED, PEAKED])
        assert_keeps(sampling.min_p_filter(logits.clone(), 0.4), logits, [[1, 2, 3], [1]], "min_p 0.4 on two rows")


class TestTypical:
    """The tokens nearest to the entropy."""

    def test_kept_tokens(self):
        """Tokens are kept from the surprisal nearest to the entropy outwards, until their mass reaches typical_p.

        In HALVES the surprisals are 1, 2, 3, 4 and 4 bits and the entropy is 1.875 bits: token 1 comes first.
        """
        for typical_p, kept in ((0.2, [1]), (0.6, [0, 1]), (0.76, [0, 1, 2])):
            logits = logits_of(HALVES)
            what = f"typical_p {typical_p} on {HALVES}"
            assert_keeps(sampling.typical_filter(logits, typical_p), logits_of(HALVES), [kept], what)

    def test_removed_tokens(self):
        """A token that was -inf adds nothing to the entropy and stays -inf."""
        logits = logits_of([[*HALVES, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]])
        assert_keeps(sampling.typical_filter(logits.clone(), 0.2), logits, [[1], [4]], "typical_p 0.2 with -inf")


class TestEpsilon:
    """An absolute threshold."""

    def test_kept_tokens(self):
        """The tokens of at least epsilon_cutoff probability are kept."""
        for epsilon, kept in ((0.15, [1, 2, 3]), (0.25, [2, 3])):
            logits = logits_of(MIXED)
            what = f"epsilon_cutoff {epsilon} on {MIXED}"
            assert_keeps(sampling.epsilon_filter(logits, epsilon), logits_of(MIXED), [kept], what)

    def test_none_passes(self):
        """Where no token passes, the most probable one is kept."""
        logits = logits_of([MIXED, PEAKED])
        assert_keeps(sampling.epsilon_filter(logits.clone(), 0.6), logits, [[2], [1]], "epsilon_cutoff 0.6 on two rows")


class TestEta:
    """A threshold that follows the entropy."""

    def test_high_entropy(self):
        """Where entropy is high the threshold is sqrt(eta_cutoff) exp(-entropy), with the entropy in nats.

        For HALVES it is 0.1221 at eta_cutoff 0.2 and 0.1363 at 0.25.
        """
        for eta, kept in ((0.2, [0, 1, 2]), (0.25, [0, 1])):
            logits = logits_of(HALVES)
            assert_keeps(sampling.eta_filter(logits, eta), logits_of(HALVES), [kept], f"eta_cutoff {eta} on {HALVES}")

    def test_low_entropy(self):
        """Where entropy is low the threshold is eta_cutoff itself, the smaller of the two."""
        logits = logits_of([PEAKED, MIXED])
        kept = [[0, 1, 2], [0, 1, 2, 3]]
        assert_keeps(sampling.eta_filter(logits.clone(), 0.04), logits, kept, "eta_cutoff 0.04 on two rows")


class TestZipfExponent:
    """The slope of Zipf's law."""

    def test_exact_law(self):
        """On an exact Zipf distribution the estimate is its exponent, in whatever order the tokens come."""
        weights = torch.arange(1, 41, dtype=torch.float64) ** -1.2
        probs = weights / weights.sum()
        assert_close(sampling.estimate_zipf_exponent(probs), 1.2, 1e-6, "the exponent")
        assert_close(sampling.estimate_zipf_exponent(probs.flip(0)), 1.2, 1e-6, "the exponent in reverse order")

    def test_two_ratios(self):
        """On three tokens the estimate is (t1 b1 + t2 b2) / (t1^2 + t2^2)."""
        t1, t2, b1, b2 = math.log(2 / 1), math.log(3 / 2), math.log(5 / 3), math.log(3 / 2)
        expected = (t1 * b1 + t2 * b2) / (t1 * t1 + t2 * t2)  # 0.804
        actual = sampling.estimate_zipf_exponent(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
        assert_close(actual, expected, 1e-6, "the exponent of (0.5, 0.3, 0.2)")


class TestMirostat:
    """Top-k with a target surprise."""

    def test_k(self):
        """k is the closed form for mu = 2 tau, to the nearest integer and at least 1."""
        weights = torch.arange(1, 2001, dtype=torch.float64) ** -1.5
        probs = weights / weights.sum()
        mirostat = sampling.Mirostat(tau=1.5)
        assert_close(mirostat.mu, 3.0, 1e-9, "mu before the first step")
        assert_equal(mirostat.top_k(probs), 3, "k for s = 1.5, N = 2000, mu = 3")  # 2.558
        assert_equal(sampling.Mirostat(tau=0.25).top_k(probs), 1, "k for s = 1.5, N = 2000, mu = 0.5")  # 0.806

    def test_sample(self):
        """A token is drawn among the k most probable ones, and mu moves by its surprise in bits before truncation."""
        mus: dict[int, float] = {}

        def run(rng: Randomness) -> int:
            mirostat = sampling.Mirostat(tau=0.75, learning_rate=0.5)
            token = mirostat.sample(logits_of([0.25, 0.5, 0.15, 0.1]), rng)  # s = 1.105, mu = 1.5: k = 2.035
            mus[token] = mirostat.mu
            return token

        assert_same_distribution(enumerate_outcomes(run), {1: 2 / 3, 0: 1 / 3}, 1e-6)
        assert_close(mus[1], 1.5 - 0.5 * (1.0 - 0.75), 1e-6, "mu after a token of 1 bit")
        assert_close(mus[0], 1.5 - 0.5 * (2.0 - 0.75), 1e-6, "mu after a token of 2 bits")


class TestGenerate:
    """Sampling to the end."""

    def test_distribution(self):
        """Without filters a continuation comes with its probability under the model, given the prompt."""
        model = NgramModel(vocab_size=3, order=2, seed=5)
        outcomes = enumerate_outcomes(
            lambda rng: tuple(sampling.generate(model, [[1]], max_tokens=2, rng=rng)[0]), max_paths=100
        )
        assert_same_distribution(outcomes, enumerate_sequences(model, max_tokens=2, context=[1]), 1e-6)

    def test_filters(self):
        """At each step the filters change the log-probabilities in the order given, before the draw."""
        model = TableModel({(): [0.0, 0.64, 0.36], (1,): [0.9, 0.05, 0.05], (2,): [0.2, 0.8, 0.0]}, eos_token_id=0)
        root = lambda z: z / 2  # noqa: E731
        likely = lambda z: z.masked_fill(z.softmax(-1) < 0.6, -torch.inf)  # noqa: E731
        unlikely = lambda z: z.masked_fill(z.softmax(-1) > 0.6, -torch.inf)  # noqa: E731
        for filters, expected in (
            ([root], {(1,): 0.8 / 1.4, (2,): 0.6 / 1.4}),
            ([likely, root], {(1,): 1.0}),
            ([unlikely, root], {(2,): 1.0}),
            ([root, unlikely], {(1,): 0.8 / 1.4, (2,): 0.6 / 1.4}),
        ):
            outcomes = enumerate_outcomes(
                lambda rng, f=filters: tuple(sampling.generate(model, [[]], max_tokens=1, rng=rng, filters=f)[0])
            )
            assert_same_distribution(outcomes, expected, 1e-6)

    def test_finished_rows(self):
        """A row that has ended keeps its end token, is not extended, and is not passed to the model again."""
        model = CountingModel(
            TableModel({(1,): [0.0, 0.0, 1.0], (1, 2): [0.0, 1.0, 0.0], (1, 2, 1): [1.0, 0.0, 0.0]}, eos_token_id=0)
        )
        y = sampling.generate(model, [[1], [2]], max_tokens=5, rng=TorchRandomness(0))
        assert_equal(y, [[2, 1, 0], [0]], "the continuations")
        assert_equal(model.contexts, 4, "the number of contexts passed to the model: 2 + 1 + 1")

    def test_max_tokens(self):
        """A continuation stops at max_tokens tokens, prompt not counted; a negative max_tokens raises ValueError."""
        model = TableModel({(1, 1): [0.0, 0.0, 1.0], (1, 1, 2): [0.0, 1.0, 0.0]}, eos_token_id=0)
        y = sampling.generate(model, [[1, 1]], max_tokens=2, rng=TorchRandomness(0))
        assert_equal(y, [[2, 1]], "the continuation of at most two tokens")
        with pytest.raises(ValueError):  # noqa: PT011
            sampling.generate(model, [[1, 1]], max_tokens=-1, rng=TorchRandomness(0))
