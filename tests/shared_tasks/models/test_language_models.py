"""Language models: exact toy models, the model on transformers, counting."""

import itertools
import random
from pathlib import Path

import pytest
import torch

from shared_tasks.checks import assert_close
from shared_tasks.models.folders import course_models
from shared_tasks.models.kv_cache import PrefixCache
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.registry import load_model, model_path
from shared_tasks.models.toy import NgramModel, PositionModel, TableModel, enumerate_sequences
from shared_tasks.models.transformers_model import TransformersModel

TOYS = [
    TableModel.random(vocab_size=4, depth=3, seed=1),
    NgramModel(vocab_size=4, order=3, seed=2),
    PositionModel(vocab_size=4, max_length=6, seed=3),
]


@pytest.fixture(scope="module")
def course_small() -> TransformersModel:
    return load_model("course-small")


@pytest.mark.parametrize("model", TOYS, ids=lambda model: type(model).__name__)
def test_probabilities_of_all_sequences_sum_to_one(model: LanguageModel) -> None:
    """Rows are normalised, and so is the distribution over sequences, from any context."""
    contexts = [[], [1], [2, 3], [3, 3]]
    assert_close(model.next_token_logprobs(contexts).exp().sum(-1), torch.ones(4), 1e-12)
    for context in contexts:
        assert sum(enumerate_sequences(model, 3, context).values()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("model", TOYS, ids=lambda model: type(model).__name__)
def test_continuations_chain_next_tokens(model: LanguageModel) -> None:
    """log P(continuation[t] | ...) is the entry of the row after that prefix."""
    (scores,) = model.continuation_logprobs([[1, 2]], [[3, 1, 0]])
    rows = model.next_token_logprobs([[1, 2], [1, 2, 3], [1, 2, 3, 1]])
    assert_close(scores, rows[[0, 1, 2], [3, 1, 0]], 1e-12)


def test_what_each_toy_looks_at() -> None:
    """A table sees the whole context, an n-gram its end, and the third one positions."""
    table, ngram, position = TOYS

    def differ(model: LanguageModel, a: list[int], b: list[int]) -> bool:
        rows = model.next_token_logprobs([a, b])
        return not torch.allclose(rows[0], rows[1])

    assert differ(table, [1, 2], [2, 2])
    assert not differ(ngram, [1, 2, 3], [2, 2, 3])
    assert differ(ngram, [1, 3], [2, 3])
    assert differ(position, [3], [3, 3])
    assert not differ(position, [1, 3], [2, 3])


def test_counting() -> None:
    """Calls, contexts and tokens are counted, and answers are the wrapped model's."""
    model = CountingModel(TOYS[1])
    row = model.next_token_logprobs([[], [1, 2]])
    model.continuation_logprobs([[1]], [[2, 0]])
    assert torch.equal(row, TOYS[1].next_token_logprobs([[], [1, 2]]))
    assert (model.calls, model.contexts, model.tokens) == (2, 3, 5)


class Positions:
    """A model that counts the positions that run; in float64, where rounding hides nothing."""

    def __init__(self) -> None:
        self.model = TransformersModel(model_path("course-small"), dtype=torch.float64)
        self.count = 0
        self.model.model.register_forward_pre_hook(self._add)

    @property
    def cache(self) -> PrefixCache:
        return self.model._cache

    def remember_at_most(self, positions: int) -> None:
        self.model._cache = PrefixCache(self.model.model.config.num_hidden_layers, positions, self.model.device)

    def alone(self, contexts: list[list[int]]) -> torch.Tensor:
        """Return what transformers makes of each whole context, without a cache."""
        ids = [torch.tensor([[self.model.tokenizer.bos_token_id, *context]]) for context in contexts]
        with torch.inference_mode():
            return torch.cat([self.model.model(row).logits[:, -1].log_softmax(-1) for row in ids])

    def of(self, contexts: list[list[int]]) -> int:
        """Return what a call runs, padding included."""
        self.count = 0
        self.model.next_token_logprobs(contexts)
        return self.count

    def _add(self, module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        self.count += arguments[0].numel()


@pytest.fixture
def positions() -> Positions:
    return Positions()


class TestTransformersModel:
    def test_every_split_gives_the_same(self, course_small: TransformersModel) -> None:
        """One token at a time on the cache, at once, in a padded batch, by transformers' own call: all agree."""
        text = course_small.encode("Mia had a red kite. One day she lost the kite in the garden.")
        start = course_small.tokenizer.bos_token_id
        with torch.inference_mode():
            expected = course_small.model(torch.tensor([[start, *text]])).logits[0].log_softmax(-1)
        steps = torch.cat([course_small.next_token_logprobs([text[:t]]) for t in range(len(text) + 1)])
        assert_close(steps, expected, 1e-4)
        batch = course_small.next_token_logprobs([text[:3], text, text[:7], []])
        assert_close(batch, expected[[3, -1, 7, 0]], 1e-4)
        (scores,) = course_small.continuation_logprobs([text[:5]], [text[5:]])
        assert_close(scores, expected[range(5, len(text)), text[5:]], 1e-4)

    def test_rows_of_the_cache_move(self, course_small: TransformersModel) -> None:
        """Rows may be repeated, dropped and reordered between calls, as beam search does."""
        a, b = course_small.encode("Ben has 12 apples."), course_small.encode("In the forest there was")
        course_small.next_token_logprobs([a, b])
        moved = course_small.next_token_logprobs([[*b, 5], [*b, 6], [*a, 5]])
        fresh = load_model("course-small")
        for row, context in zip(moved, ([*b, 5], [*b, 6], [*a, 5]), strict=True):
            assert_close(row, fresh.next_token_logprobs([context])[0], 1e-4)

    def test_results_can_be_changed_in_place(self, course_small: TransformersModel) -> None:
        """What a caller writes into a result stays there: later results are what they would have been."""
        context = course_small.encode("Mia had a red kite.")
        row, (scores,) = (
            course_small.next_token_logprobs([context]),
            course_small.continuation_logprobs([[]], [context]),
        )
        expected_row, expected_scores = row.clone(), scores.clone()
        row[0, course_small.eos_token_id] = -torch.inf
        row += 1
        scores.zero_()
        assert_close(course_small.next_token_logprobs([context]), expected_row, 1e-5)
        assert_close(course_small.continuation_logprobs([[]], [context])[0], expected_scores, 1e-5)

    def test_errors_name_what_came(self, course_small: TransformersModel) -> None:
        """Token ids and lengths out of range, and uneven pairs, are refused with what was expected."""
        with pytest.raises(ValueError, match="token ids from 0 to"):
            course_small.next_token_logprobs([[course_small.vocab_size]])
        with pytest.raises(ValueError, match="the model's window"):
            course_small.next_token_logprobs([[5] * 2000])
        with pytest.raises(ValueError, match="as many continuations as contexts"):
            course_small.continuation_logprobs([[1]], [])
        assert course_small.next_token_logprobs([]).shape == (0, course_small.vocab_size)


class TestPrefixes:
    """Keys and values of the contexts that a model of transformers has seen."""

    A, B, C = list(range(10, 29)), list(range(30, 49)), list(range(50, 69))  # twenty positions with the start token

    def test_only_what_follows_a_known_prefix_is_run(self, positions: Positions) -> None:
        """A context costs a position if its parent was seen, in whatever call, and what is missing if not."""
        assert positions.of([self.A]) == 20
        assert positions.of([self.B]) == 19  # the start token is known
        assert positions.of([[*self.A, 7]]) == 1
        assert positions.of([[*self.B, 7], [*self.B, 8], [*self.A, 7, 7]]) == 3
        assert positions.of([[*self.B, 8, 9, 10]]) == 2
        assert positions.of([self.A]) == 1  # the row that follows was not kept

    def test_equal_contexts_of_a_call_run_once(self, positions: Positions) -> None:
        """The first step of sampling many continuations runs the prompt once."""
        assert positions.of([self.A] * 64) == 20

    def test_the_prefixes_used_longest_ago_are_forgotten(self, positions: Positions) -> None:
        """Where a third context does not fit, that one of two goes which was not used since."""
        positions.remember_at_most(50)
        positions.of([self.A])
        positions.of([self.B])
        positions.of([self.A])
        assert positions.of([self.C]) == 19
        assert positions.of([[*self.A, 7]]) == 1
        assert positions.of([[*self.B, 7]]) == 20

    def test_memory_is_bounded(self, positions: Positions) -> None:
        """However many contexts come, no more positions are kept than was asked for, each once in every layer."""
        positions.remember_at_most(50)
        for first in range(1, 40):
            positions.of([[first, *self.A], [first, *self.B[:5]]])
            assert len(positions.cache) <= 50
            assert all(len(layer.keys) <= 51 for layer in positions.cache.layers)  # and the padding

    def test_a_call_may_need_more(self, positions: Positions) -> None:
        """A batch with more positions than are kept runs all the same, and gives what it should."""
        positions.remember_at_most(8)
        contexts = [self.A, self.B, [*self.C, 3, 4]]
        for _ in range(2):
            assert_close(positions.model.next_token_logprobs(contexts), positions.alone(contexts), 1e-5)

    @pytest.mark.parametrize("most", [30, 100, 10_000])
    def test_results_do_not_depend_on_what_is_kept(self, positions: Positions, most: int) -> None:
        """Calls that come back to older contexts, of different lengths, give what the whole context gives alone."""
        positions.remember_at_most(most)
        generator = random.Random(0)
        seen: list[list[int]] = [[]]
        for _ in range(60):
            parents = generator.choices(seen, k=generator.randint(1, 4))
            contexts = [[*p, *generator.choices(range(1, 50), k=generator.randint(0, 5))] for p in parents]
            seen += contexts
            assert_close(positions.model.next_token_logprobs(contexts), positions.alone(contexts), 1e-5)

    def test_an_interrupt_leaves_nothing_half_done(self, positions: Positions, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that was interrupted is as if it had not been made."""
        positions.of([self.A])

        def interrupted(*arguments: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(positions.model.model.model.layers[1].mlp, "forward", interrupted)
            with pytest.raises(KeyboardInterrupt):
                positions.model.next_token_logprobs([[*self.A, 7], self.B])
        for context in (self.A, [*self.A, 7, 8], [*self.B, 3]):
            assert_close(positions.model.next_token_logprobs([context]), positions.alone([context]), 1e-5)


def test_models_load_by_name_and_by_folder(course_small: TransformersModel) -> None:
    """A course model is found by name, and any folder of transformers by its path."""
    assert "course-small" in course_models()
    folder = Path(course_small.model.config._name_or_path)
    assert folder.is_dir()
    again = TransformersModel(str(folder))
    assert torch.equal(again.next_token_logprobs([[5, 6]]), load_model("course-small").next_token_logprobs([[5, 6]]))


def test_text_survives_the_tokenizer(course_small: TransformersModel) -> None:
    """Any text comes back as it was, and every digit is a token."""
    for text in ("Mia had 12 apples.", "Zoë 漢字 🙂\n\ttab", "1234567890", ""):
        assert course_small.decode(course_small.encode(text)) == text
    assert len(course_small.encode("1234567890")) == 10
    assert len(set(itertools.chain(*(course_small.encode(digit) for digit in "0123456789")))) == 10
