"""How different texts are from each other, such as the samples of one prompt."""

from collections.abc import Callable, Sequence
from itertools import permutations
from statistics import fmean

from shared_tasks.metrics.overlap import sentence_bleu, words


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Return the share of different n-grams among all n-grams of words of all texts: 1 where none occurs twice.

    0 where no text has n words. Words are those of `overlap.words`. Raises ValueError unless n >= 1.

    Paper: Li et al., 2016, https://arxiv.org/abs/1510.03055.
    """
    if n < 1:
        raise ValueError(f"expected n >= 1, got {n}")
    grams = [tuple(tokens[i : i + n]) for tokens in map(words, texts) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """Return the mean sentence BLEU (0 to 100) of each text against all the others as references: high is alike.

    Raises ValueError for fewer than two texts. Paper: Zhu et al., 2018, https://arxiv.org/abs/1802.01886.
    """
    _check(texts)
    return fmean(sentence_bleu(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts))


def _bleu_similarity(first: str, second: str) -> float:
    return sentence_bleu(first, [second]).score / 100


def pairwise_diversity(texts: Sequence[str], similarity: Callable[[str, str], float] = _bleu_similarity) -> float:
    """Return 1 minus the mean similarity over all ordered pairs of texts: 0 where all are the same.

    `similarity(first, second)` is from 0 to 1; by default it is sentence BLEU, so that this is 1 minus pairwise BLEU.
    Raises ValueError for fewer than two texts. Paper: Shen et al., 2019, https://arxiv.org/abs/1902.07816.
    """
    _check(texts)
    return 1 - fmean(similarity(first, second) for first, second in permutations(texts, 2))


def _check(texts: Sequence[str]) -> None:
    if isinstance(texts, str) or len(texts) < 2:
        raise ValueError("expected a list of at least two texts to compare")
