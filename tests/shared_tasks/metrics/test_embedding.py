"""Embedding similarity: the matching by hand, and a tiny random BERT."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from shared_tasks.metrics.embedding import EmbeddingSimilarity, Similarity, match


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a BERT with random weights and a vocabulary of a few words."""
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sat", "ran"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


def test_greedy_matching_by_hand() -> None:
    """Two tokens against three: precision (1 + .8) / 2, recall (1 + .8 + .6) / 3, F1 their harmonic mean."""
    hypothesis = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    reference = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    score = match(hypothesis, reference)
    assert score.precision == pytest.approx((1 + 0.8) / 2)
    assert score.recall == pytest.approx((1 + 0.8 + 0) / 3)
    assert score.f1 == pytest.approx(2 * 0.9 * 0.6 / 1.5)


def test_an_empty_text_matches_nothing() -> None:
    """Without tokens on one side, everything is 0, and nothing is divided by it."""
    assert match(torch.empty(0, 2), torch.ones(1, 2)) == Similarity(0.0, 0.0)
    assert Similarity(0.0, 0.0).f1 == 0.0


def test_a_text_is_most_similar_to_itself(model: str) -> None:
    """Against itself a text scores 1; the best of several references counts; another text scores less."""
    similarity = EmbeddingSimilarity(model)
    same, best, other = similarity(["a cat sat"] * 3, [["a cat sat"], ["dog ran", "a cat sat"], ["dog ran"]])
    assert same.f1 == pytest.approx(1, abs=1e-5)
    assert best.f1 == pytest.approx(1, abs=1e-5)
    assert other.f1 < 0.99


def test_special_tokens_take_no_part(model: str) -> None:
    """Two words give two vectors of length 1, without [CLS] and [SEP]; a text beyond the window is cut."""
    similarity = EmbeddingSimilarity(model)
    vectors = similarity.embed("cat dog")
    assert vectors.shape == (2, 16)
    assert vectors.norm(dim=-1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert len(similarity.embed("cat " * 50)) == 8 - 2


def test_the_layer_matters(model: str) -> None:
    """Layer 0, the input embeddings, knows no context but the position; the last layer is the default."""
    first, last, default = (EmbeddingSimilarity(model, **kwargs) for kwargs in ({"layer": 0}, {"layer": 2}, {}))
    assert torch.equal(first.embed("cat dog")[0], first.embed("cat cat")[0])
    assert not torch.allclose(last.embed("cat dog")[0], last.embed("cat cat")[0])
    assert torch.equal(last.embed("cat dog"), default.embed("cat dog"))
    with pytest.raises(ValueError, match="layer from 0 to 2"):
        EmbeddingSimilarity(model, layer=3)


def test_the_course_model_will_do() -> None:
    """A language model of the course, without special tokens around a text, embeds it too."""
    weights = Path(__file__).parents[3] / "shared_tasks" / "models" / "course" / "weights" / "course-small"
    (same,) = EmbeddingSimilarity(str(weights))(["Tom has 3 apples."], [["Tom has 3 apples."]])
    assert same.f1 == pytest.approx(1, abs=1e-5)


def test_references_come_in_lists(model: str) -> None:
    """A bare string or a missing list is an error."""
    similarity = EmbeddingSimilarity(model)
    for references in (["a cat"], [[]], [["a"], ["b"]]):
        with pytest.raises(ValueError, match="list of references"):
            similarity(["a cat"], references)
