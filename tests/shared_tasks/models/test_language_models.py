"""Language models: exact toy models, the model on transformers, counting."""

import itertools
from pathlib import Path

import pytest
import torch

from shared_tasks.checks import assert_close
from shared_tasks.models.folders import course_models
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.registry import load_model
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

    def test_cache_runs_only_new_tokens(self, course_small: TransformersModel, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call that extends the last one forwards one position a row."""
        positions: list[int] = []
        forward = course_small.model.forward

        def counted(ids: torch.Tensor, **options: object) -> object:
            positions.append(ids.numel())
            return forward(ids, **options)

        monkeypatch.setattr(course_small.model, "forward", counted)
        contexts = [list(range(10, 30)), list(range(20, 40))]
        course_small.next_token_logprobs(contexts)
        course_small.next_token_logprobs([[*context, 7] for context in contexts])
        assert positions == [42, 2]  # the start token of each row the first time

    def test_errors_name_what_came(self, course_small: TransformersModel) -> None:
        """Token ids and lengths out of range, and uneven pairs, are refused with what was expected."""
        with pytest.raises(ValueError, match="token ids from 0 to"):
            course_small.next_token_logprobs([[course_small.vocab_size]])
        with pytest.raises(ValueError, match="the model's window"):
            course_small.next_token_logprobs([[5] * 2000])
        with pytest.raises(ValueError, match="as many continuations as contexts"):
            course_small.continuation_logprobs([[1]], [])
        assert course_small.next_token_logprobs([]).shape == (0, course_small.vocab_size)


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
