"""Text overlap with references: BLEU and chrF by sacrebleu, ROUGE by rouge-score.

References are given per hypothesis: `references[i]` lists one or more good texts for `hypotheses[i]`. All scores are
from 0 to 100 and carry the signature of what computed them.
"""

import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from statistics import fmean
from typing import Any

import msgspec
from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
from rouge_score.tokenizers import Tokenizer  # type: ignore[import-untyped]
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_SCRIPTS_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")


class Overlap(msgspec.Struct, frozen=True):
    """A score and how it was computed."""

    score: float
    """From 0 to 100."""
    signature: str
    """Name, parameters and version of the metric: what must agree for two scores to be comparable."""


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Overlap:
    """Return the corpus BLEU of all hypotheses together.

    Raises ValueError unless there is a list of at least one reference for each of at least one hypothesis.

    Papers: Papineni et al., 2002, https://aclanthology.org/P02-1040; Post, 2018, https://arxiv.org/abs/1804.08771
    (sacrebleu; its default tokenizer 13a).
    """
    metric = BLEU()
    score = metric.corpus_score(list(hypotheses), _streams(hypotheses, references)).score
    return Overlap(min(score, 100.0), f"BLEU|{metric.get_signature()}")


def sentence_bleu(hypothesis: str, references: Sequence[str]) -> Overlap:
    """Return the BLEU of one text, over the orders of n-grams that it has (`effective_order`), smoothed.

    Without the effective order a text of three words, which has no 4-gram, could not score 100. Errors, papers: see
    `bleu`.
    """
    _check([hypothesis], [references])
    metric = BLEU(effective_order=True)
    score = metric.sentence_score(hypothesis, list(references)).score
    return Overlap(min(score, 100.0), f"BLEU|{metric.get_signature()}")


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Overlap:
    """Return the corpus chrF2 of all hypotheses together: the F-score of character n-grams up to six, recall twice.

    Errors: see `bleu`. Papers: Popović, 2015, https://aclanthology.org/W15-3049; Post, 2018.
    """
    metric = CHRF()
    score = metric.corpus_score(list(hypotheses), _streams(hypotheses, references)).score
    return Overlap(min(score, 100.0), f"chrF2|{metric.get_signature()}")


def sentence_chrf(hypothesis: str, references: Sequence[str]) -> Overlap:
    """Return the chrF2 of one text with the best of its references. Errors, papers: see `chrf`."""
    _check([hypothesis], [references])
    metric = CHRF()
    score = metric.sentence_score(hypothesis, list(references)).score
    return Overlap(min(score, 100.0), f"chrF2|{metric.get_signature()}")


def rouge(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Overlap]:
    """Return ROUGE-1, -2, -L and -Lsum by name: the mean over texts of the F-score with the best reference.

    Names as in rouge-score: rouge1, rouge2, rougeL, rougeLsum. For the last one a new line separates sentences. Words
    are those of `words`, so that every script counts; no stemming. Errors: see `bleu`.

    Paper: Lin, 2004, https://aclanthology.org/W04-1013.
    """
    _check(hypotheses, references)
    scorer = RougeScorer(ROUGE_TYPES, tokenizer=_Words())
    scores = [
        scorer.score_multi(list(texts), hypothesis) for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]
    signature = f"f-score|case:lc|tok:unicode-words|stem:no|refs:best|version:{version('rouge-score')}"
    return {
        name: Overlap(100 * fmean(score[name].fmeasure for score in scores), f"{name}|{signature}")
        for name in ROUGE_TYPES
    }


def words(text: str) -> list[str]:
    """Return the words of a text in any script, in small letters.

    A word is a run of letters, their combining marks, and digits; where a script has no spaces (Chinese, Japanese, Thai
    …) each letter is one. On ASCII text this is what rouge-score does by default; that drops all other letters.
    """
    found: list[str] = []
    inside = False
    for character in text.lower():
        category = unicodedata.category(character)
        if category[0] == "M" and inside:
            found[-1] += character
        elif category[0] not in "LN":
            inside = False
        elif not character.isascii() and unicodedata.name(character, "").startswith(_SCRIPTS_WITHOUT_SPACES):
            found.append(character)
            inside = False
        elif inside:
            found[-1] += character
        else:
            found.append(character)
            inside = True
    return found


class _Words(Tokenizer):  # type: ignore[misc]
    """`words`, for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _streams(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Return every text's first reference, every text's second …, as sacrebleu takes them; None where there is none."""
    _check(hypotheses, references)
    most = max(map(len, references))
    return [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    shape = 'a list of references for each text, like [["a cat", "one cat"], ["a dog"]]'
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise ValueError(f"expected a list of texts and {shape}, got a single string")
    if len(hypotheses) != len(references) or not len(hypotheses):
        raise ValueError(f"expected {shape}, got {len(hypotheses)} texts and {len(references)} lists of references")
    for i, texts in enumerate(references):
        if isinstance(texts, str) or not len(texts) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"expected {shape}, got {texts!r:.60} for text {i}")
