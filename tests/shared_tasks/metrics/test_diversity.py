"""How different texts are from each other."""

import pytest

from shared_tasks.metrics.diversity import distinct_n, pairwise_diversity, self_bleu


def test_distinct_n_by_hand() -> None:
    """ "a b a" and "a b": two of five words and two of three pairs are different; pairs do not cross texts."""
    assert distinct_n(["a b a", "a b"], 1) == pytest.approx(2 / 5)
    assert distinct_n(["a b a", "a b"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a b", "c d"], 2) == 1
    assert distinct_n(["a", ""], 2) == 0


def test_distinct_n_knows_every_script() -> None:
    """Cyrillic words count, and a capital is no other word."""
    assert distinct_n(["Кот кот пёс"], 1) == pytest.approx(2 / 3)


def test_equal_texts_have_no_diversity() -> None:
    """Copies: self-BLEU 100, pairwise diversity 0. Nothing in common: 0 and 1."""
    assert self_bleu(["a b c d"] * 3) == pytest.approx(100)
    assert pairwise_diversity(["a b c d"] * 3) == pytest.approx(0)
    assert pairwise_diversity(["a b c d", "e f g h"]) == pytest.approx(1)
    assert self_bleu(["a b c d", "e f g h"]) == pytest.approx(0)


def test_self_bleu_uses_all_other_texts() -> None:
    """Two copies and a stranger: the copies score 100 each, the stranger 0."""
    assert self_bleu(["a b c d", "a b c d", "e f g h"]) == pytest.approx(200 / 3)


def test_pairs_are_ordered() -> None:
    """With a similarity of 1 in one order and 0 in the other the mean over both is one half."""
    assert pairwise_diversity(["a", "b"], lambda first, second: float(first < second)) == 0.5
    assert pairwise_diversity(["a", "b", "a"], lambda first, second: float(first == second)) == pytest.approx(2 / 3)


def test_one_text_has_no_diversity_to_measure() -> None:
    """Fewer than two texts, or n below 1, is an error."""
    for metric in (self_bleu, pairwise_diversity):
        with pytest.raises(ValueError, match="two texts"):
            metric(["a"])
    with pytest.raises(ValueError, match="n >= 1"):
        distinct_n(["a"], 0)
