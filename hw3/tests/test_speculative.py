"""Public tests of `hw3/speculative.py`: run them with `pytest hw3/tests/test_speculative.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hw3 import speculative
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.randomness import Randomness, TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import NgramModel, enumerate_sequences

P, Q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
Rows = Sequence[Sequence[int]]


def scorer(model: LanguageModel) -> Any:
    """Make a scorer of a model."""

    def score(contexts: Rows, drafts: Rows) -> list[Tensor]:
        pairs = list(zip(contexts, drafts, strict=True))
        rows = model.next_token_logprobs([[*c, *draft[:i]] for c, draft in pairs for i in range(len(draft) + 1)])
        return list(rows.split([len(draft) + 1 for draft in drafts]))

    return score


def nothing(contexts: Rows, lengths: Sequence[int]) -> list[speculative.Draft]:
    """Be a drafter that never guesses."""
    return [speculative.Draft([], torch.empty(0, 3)) for _ in contexts]


class TestAcceptanceRate:
    """How often a draft is accepted."""

    def test_overlap(self) -> None:
        """Is the overlap of the two distributions."""
        assert_close(speculative.acceptance_rate(P, Q), torch.tensor(0.7), 1e-6, "the acceptance rate")


class TestResidual:
    """What a rejected token is replaced by."""

    def test_by_hand(self) -> None:
        """Is what p has more than q, normalised."""
        assert_close(speculative.residual(P, Q), torch.tensor([1.0, 0.0, 0.0]), 1e-6, "the residual of p and q")
        assert_close(speculative.residual(Q, P), torch.tensor([0.0, 2 / 3, 1 / 3]), 1e-6, "the residual of q and p")


class TestVerify:
    """Acceptance and rejection."""

    def test_target_distribution(self) -> None:
        """Draws the first token exactly from p, whatever q proposes."""

        def first(rng: Randomness) -> int:
            token = int(rng.categorical(Q))
            return speculative.verify(torch.stack([P, P]), speculative.Draft([token], Q[None]), rng)[0]

        expected = {i: float(p) for i, p in enumerate(P)}
        assert_same_distribution(enumerate_outcomes(first), expected, 1e-6)

    def test_length(self) -> None:
        """Adds one token to a draft that is accepted, and refuses a wrong number of rows."""
        certain = torch.eye(3)
        accepted = speculative.verify(certain, speculative.Draft([0, 1], certain[:2]), TorchRandomness(0))
        assert_equal(accepted, [0, 1, 2], "the tokens of a draft that is certain")
        with pytest.raises(ValueError):
            speculative.verify(certain, speculative.Draft([0], certain[:1]), TorchRandomness(0))


class TestSamplingProbs:
    """Temperature and nucleus."""

    def test_by_hand(self) -> None:
        """Applies the temperature, keeps the smallest set with enough probability, and renormalises."""
        probs = speculative.sampling_probs(P.log(), 1.0, 0.6)
        assert_close(probs, torch.tensor([0.625, 0.375, 0.0]), 1e-6, "the nucleus of .6")
        greedy = speculative.sampling_probs(P.log(), 0.0)
        assert_close(greedy, torch.tensor([1.0, 0.0, 0.0]), 0, "the distribution at temperature 0")


class TestScoreWithModel:
    """All prefixes in one call."""

    def test_one_call(self) -> None:
        """Returns a row after the context and after each token of its draft, from one call of the model."""
        model = CountingModel(NgramModel(vocab_size=4, order=3, seed=1))
        rows = speculative.score_with_model(model, [[1, 2], [3]], [[3, 1], []])
        expected = model.model.next_token_logprobs([[1, 2], [1, 2, 3], [1, 2, 3, 1], [3]])
        assert_equal((model.calls, len(rows)), (1, 2), "calls of the model and answers")
        assert_close(torch.cat(list(rows)), expected, 1e-6, "the rows")


class TestDraftWithModel:
    """A small model guesses."""

    def test_probs(self) -> None:
        """Draws as many tokens as asked for, and tells the distributions that it drew them from."""
        model = NgramModel(vocab_size=4, order=3, seed=2)
        (draft,) = speculative.draft_with_model(
            scorer(model), [[1, 2]], [2], eos_token_id=9, temperature=0.7, top_p=0.9, rng=TorchRandomness(0)
        )
        assert_equal(len(draft.tokens), 2, "the number of tokens")
        rows = model.next_token_logprobs([[1, 2], [1, 2, draft.tokens[0]]])
        assert_close(draft.probs, speculative.sampling_probs(rows, 0.7, 0.9), 1e-6, "the distributions")


class TestDraftWithNgrams:
    """The context guesses."""

    def test_by_hand(self) -> None:
        """Copies what followed the longest, then the latest earlier occurrence of the last tokens."""
        for context, expected in (([5, 6, 7, 8, 5, 6], [7, 8]), ([1, 2, 1, 3, 1], [3, 1]), ([1, 2, 3], [])):
            (draft,) = speculative.draft_with_ngrams([context], [2], vocab_size=9, max_ngram_size=3)
            assert_equal(list(draft.tokens), expected, f"the draft after {context}")
            assert_close(draft.probs, torch.eye(9)[expected], 0, f"the probabilities of the draft after {context}")


class TestSpeculativeGenerate:
    """The loop."""

    def test_distribution(self) -> None:
        """Draws sequences exactly as the target does, with a bad drafter too."""
        target, small = NgramModel(3, 2, seed=1), NgramModel(3, 2, seed=2)

        def run(rng: Randomness) -> tuple[int, ...]:
            settings: dict[str, Any] = {"eos_token_id": 0, "temperature": 1.0, "top_p": 1.0, "rng": rng}

            def draft(contexts: Rows, lengths: Sequence[int]) -> list[speculative.Draft]:
                return speculative.draft_with_model(scorer(small), contexts, lengths, **settings)

            (y,) = speculative.speculative_generate(
                scorer(target), draft, [[1]], num_speculative_tokens=2, max_tokens=3, **settings
            )
            return tuple(y)

        assert_same_distribution(enumerate_outcomes(run), enumerate_sequences(target, 3, [1]), 1e-6)

    def test_without_guesses(self) -> None:
        """Is plain decoding when the drafter never guesses: a call of the target for each token."""
        target = CountingModel(NgramModel(3, 2, seed=1))
        (y,) = speculative.speculative_generate(
            scorer(target), nothing, [[1]],
            eos_token_id=9, num_speculative_tokens=2, max_tokens=5, temperature=0.0, top_p=1.0, rng=TorchRandomness(0),
        )  # fmt: skip
        assert_equal((len(y), target.calls), (5, 5), "tokens and calls of the target")


class TestExpectedTokens:
    """What a round yields."""

    def test_known_values(self) -> None:
        """Is the sum of the powers of the acceptance rate."""
        for acceptance, tokens, expected in ((0.8, 4, 3.3616), (0.9, 7, 5.695328), (0.5, 0, 1.0)):
            actual = speculative.expected_tokens(acceptance, tokens)
            assert_close(actual, expected, 1e-6, f"the tokens of a round of {tokens} at {acceptance}")


class TestBestLookahead:
    """How far to guess."""

    def test_known_value(self) -> None:
        """Is 8 tokens at an acceptance rate of .8 with a drafter that costs a twentieth of the target."""
        lookahead, speedup = speculative.best_lookahead(0.8, 0.05, 20)
        assert_equal(lookahead, 8, "the best lookahead")
        assert_close(speedup, 3.0920795, 1e-6, "its speed-up")


def kept(answer: tuple[Tensor, Tensor, Tensor], row: int) -> dict[int, tuple[float, float]]:
    """Return key and value of each position of a row, as numbers."""
    keys, values, positions = answer
    numbers = {
        p: (keys[row, 0, i, 0].item(), values[row, 0, i, 0].item()) for i, p in enumerate(positions[row].tolist())
    }
    return {position: numbers[position] for position in sorted(numbers) if position >= 0}


class TestRollbackCache:
    """Cutting back."""

    def test_truncate_rows_and_go_on(self) -> None:
        """Forgets the last positions of each row, and puts new ones in their place."""
        cache = speculative.RollbackCache()
        numbers = torch.arange(8.0).reshape(2, 1, 4, 1)
        cache.update(0, numbers, -numbers, torch.arange(4).expand(2, 4))
        cache.truncate([1, 3])
        new = torch.tensor([10.0, 20.0]).reshape(2, 1, 1, 1)
        answer = cache.update(0, new, -new, torch.tensor([[1], [3]]))
        assert_equal(kept(answer, 0), {0: (0.0, -0.0), 1: (10.0, -10.0)}, "keys and values of the row cut to 1")
        expected = {0: (4.0, -4.0), 1: (5.0, -5.0), 2: (6.0, -6.0), 3: (20.0, -20.0)}
        assert_equal(kept(answer, 1), expected, "keys and values of the row cut to 3")


class Transformer:
    """Stands in for a transformer: its logits depend on all that the cache returns, and on where it was."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size
        self.forwarded: list[int] = []

    def __call__(self, token_ids: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Return the logits of every new position."""
        self.forwarded.append(int((positions >= 0).sum()))
        keys = (token_ids + 1.0)[:, None, :, None]
        seen, _, where = cache.update(0, keys, keys, positions)
        visible = (where[:, None] <= positions[:, :, None]) & (where[:, None] >= 0)
        history = torch.sin(seen[:, None, 0, :, 0] * (where[:, None] + 1.7)) * visible
        return torch.cos(history.sum(-1, keepdim=True) * (1 + torch.arange(self.vocab_size)))


class TestCachedScorer:
    """Only what is new."""

    def test_forwards_what_is_missing(self) -> None:
        """Answers as a scorer without a cache does, and forwards only the tokens that the cache lacks."""
        model = Transformer(5)
        cached = speculative.CachedScorer(model)
        for context, draft in (([1, 2, 3], [4, 4]), ([1, 2, 3, 4, 2], [1]), ([1, 2, 3, 4, 2, 1, 3], [])):
            (rows,) = cached.score([context], [draft])
            (expected,) = speculative.CachedScorer(Transformer(5)).score([context], [draft])
            assert_close(rows, expected, 1e-5, f"the log-probabilities after {context} and {draft}")
        assert_equal(model.forwarded, [5, 2, 1], "the positions forwarded in each call")

    def test_log_probabilities(self) -> None:
        """Returns a normalised row after the context and after each token of the draft."""
        (rows,) = speculative.CachedScorer(Transformer(5)).score([[1, 2]], [[3]])
        tokens = torch.tensor([[1, 2, 3]])
        logits = Transformer(5)(tokens, torch.arange(3)[None], speculative.RollbackCache())
        assert_close(rows, logits[0, 1:].log_softmax(-1), 1e-5, "the rows")
