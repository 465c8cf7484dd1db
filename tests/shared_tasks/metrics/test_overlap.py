"""Overlap with references: values worked out by hand, and mistakes in the shape of references."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from rouge_score.tokenizers import DefaultTokenizer

from shared_tasks.metrics.overlap import bleu, chrf, rouge, sentence_bleu, sentence_chrf, words
from tests.shared_tasks.metrics.public_data import rows


def test_bleu_by_hand() -> None:
    """Precisions 5/6, 4/5, 3/4, 2/3 at equal length: their geometric mean, 100 · (1/3)^(1/4)."""
    result = bleu(["a b c d e f"], [["a b c d e x"]])
    assert result.score == pytest.approx(100 * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)


def test_bleu_punishes_brevity() -> None:
    """A prefix of four of five words has full precision and the penalty exp(1 - 5/4)."""
    assert bleu(["a b c d"], [["a b c d e"]]).score == pytest.approx(100 * math.exp(-1 / 4))


def test_references_belong_to_their_hypothesis() -> None:
    """Each text has its own references, in any number; given to the other text they do not match."""
    hypotheses = ["a b c d e", "f g h i j"]
    assert bleu(hypotheses, [["x", "a b c d e"], ["f g h i j"]]).score == pytest.approx(100)
    assert bleu(hypotheses, [["f g h i j"], ["x", "a b c d e"]]).score == 0
    assert chrf(hypotheses, [["x", "a b c d e"], ["f g h i j"]]).score == pytest.approx(100)
    assert rouge(hypotheses, [["x", "a b c d e"], ["f g h i j"]])["rouge2"].score == pytest.approx(100)


def test_short_sentences_use_the_orders_they_have() -> None:
    """Three right words score 100 as a sentence, and 0 in corpus BLEU, which wants a 4-gram."""
    assert sentence_bleu("the cat sat", ["the cat sat"]).score == pytest.approx(100)
    assert bleu(["the cat sat"], [["the cat sat"]]).score == 0


def test_chrf_by_hand() -> None:
    """Of "ab" against "abc": precision 1 and 1, recall 2/3 and 1/2 for orders 1 and 2, mean F2."""
    precision, recall = 1.0, (2 / 3 + 1 / 2) / 2
    assert sentence_chrf("ab", ["abc"]).score == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall))


def test_signatures_say_how() -> None:
    """A score carries its parameters: the sentence's effective order, the number of references, the version."""
    assert "eff:yes" in sentence_bleu("a", ["a"]).signature
    assert "eff:no" in bleu(["a"], [["a"]]).signature
    assert "nrefs:2" in chrf(["a"], [["a", "b"]]).signature
    for result in (bleu(["a"], [["a"]]), chrf(["a"], [["a"]]), rouge(["a"], [["a"]])["rougeL"]):
        assert "version:" in result.signature


def test_rouge_by_hand() -> None:
    """a b c d against a c b d e: 1-grams 4 of 4 and 5; no common 2-gram; longest common subsequence 3."""
    scores = rouge(["a b c d"], [["a c b d e"]])
    assert scores["rouge1"].score == pytest.approx(100 * 2 * 4 / (4 + 5))
    assert scores["rouge2"].score == 0
    assert scores["rougeL"].score == pytest.approx(100 * 2 * 3 / (4 + 5))


def test_rouge_lsum_splits_at_new_lines() -> None:
    """Swapped lines keep every word in order for Lsum, but not for L."""
    scores = rouge(["a b\nc d"], [["c d\na b"]])
    assert scores["rougeLsum"].score == pytest.approx(100)
    assert scores["rougeL"].score == pytest.approx(50)


def test_rouge_takes_the_best_reference() -> None:
    """The mean over texts of the best reference's score: 100 and 50 give 75."""
    assert rouge(["a b", "a b"], [["x y", "a b"], ["a c"]])["rouge1"].score == pytest.approx(75)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "score"),
    [
        ("вот кот", "вот пёс", 50),
        ("नमस्ते दुनिया", "नमस्ते जी", 50),
        ("我爱猫", "我爱狗", 200 / 3),
        ("Straße", "straße", 100),
        ("été", "ete", 0),
    ],
)
def test_rouge_counts_every_script(hypothesis: str, reference: str, score: float) -> None:
    """Cyrillic, Devanagari with its marks, Chinese characters and umlauts are words; the default drops them all."""
    assert rouge([hypothesis], [[reference]])["rouge1"].score == pytest.approx(score)


def test_words_of_every_script() -> None:
    """Combining marks stay with their letters, an underscore separates, characters without spaces are words."""
    assert words("नमस्ते दुनिया, a_b Été 我爱 ไทย") == ["नमस्ते", "दुनिया", "a", "b", "été", "我", "爱", "ไ", "ท", "ย"]


def test_words_of_ascii_text_are_those_of_rouge_score() -> None:
    """On 541 real prompts, other letters removed, the tokens are exactly rouge-score's."""
    default = DefaultTokenizer(use_stemmer=False)
    for row in rows("ifeval/input_data.jsonl"):
        text = row["prompt"].encode("ascii", "ignore").decode()
        assert words(text) == default.tokenize(text)


@pytest.mark.parametrize("metric", [bleu, chrf, rouge])
@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "b"], [["a", "b"]]),
        (["a"], [["a"], ["b"]]),
        (["a"], [[]]),
        (["a"], [[None]]),
        ([], []),
        ("a", [["a"]]),
        (["a"], "a"),
    ],
)
def test_a_wrong_shape_is_an_error(metric: Callable[..., Any], hypotheses: Any, references: Any) -> None:
    """Bare strings, streams instead of lists per text, and missing references are refused, not scored by letters."""
    with pytest.raises(ValueError, match="expected a list"):
        metric(hypotheses, references)


def test_a_single_string_is_no_list_of_references() -> None:
    """The sentence scores take a list of references too, and say so."""
    for metric in (sentence_bleu, sentence_chrf):
        with pytest.raises(ValueError, match="list of references"):
            metric("a", "a")
