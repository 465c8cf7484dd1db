"""Public tests of `hw2/mbr.py`: run them with `pytest hw2/tests/test_mbr.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor

from hw2 import mbr
from shared_tasks.checks import assert_close, assert_equal

TOLERANCE = 1e-3  # of 100; wide enough for a solution that computes in float32
TEXTS = [
    "the cat sat on the mat .",
    "The cat sat on a mat",
    "a dog ran to the cat on the mat .",
    "the the the",
    "yes",
]


class TestExpectedUtility:
    """The mean over the references."""

    def test_mean_of_each_row(self) -> None:
        """Averages over the references, so that the mode wins under the utility "equal or not"."""
        equal = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
        assert_close(mbr.expected_utility(equal), [2 / 3, 1 / 3, 2 / 3], 1e-6, "the expected utilities")

    def test_weights(self) -> None:
        """Weighs the references in proportion, and raises ValueError for weights that cannot be."""
        utilities = torch.tensor([[1.0, 0.0], [0.2, 0.6]])
        actual = mbr.expected_utility(utilities, torch.tensor([3.0, 1.0]))
        assert_close(actual, [0.75, 0.3], 1e-6, "the expected utilities with weights 3 and 1")
        for weights in ([1.0, -1.0], [0.0, 0.0], [1.0, 1.0, 1.0]):
            with pytest.raises(ValueError):
                mbr.expected_utility(utilities, torch.tensor(weights))


class TestUtilityMatrix:
    """Any utility."""

    def test_hypotheses_are_rows(self) -> None:
        """Has utility(hypothesis, reference) in the hypothesis's row and the reference's column."""
        actual = mbr.utility_matrix(lambda h, r: 10.0 * len(h) + len(r), ["a", "bb"], ["ccc", "d", "ee"], False)
        assert_close(actual, [[13.0, 11.0, 12.0], [23.0, 21.0, 22.0]], 1e-6, "the utilities")

    def test_no_call_twice(self) -> None:
        """Asks for every different pair once, and for one of the two orders where the utility is symmetric."""
        texts = ["a", "b", "a", "c"]
        for symmetric, calls in ((False, 9), (True, 6)):
            asked = []

            def utility(h: str, r: str, asked: list = asked) -> float:
                asked.append((h, r))
                return float(h == r)

            actual = mbr.utility_matrix(utility, texts, texts, symmetric)
            expected = [[float(h == r) for r in texts] for h in texts]
            assert_close(actual, expected, 1e-6, "the utilities")
            assert_equal(len(asked), calls, f"the number of calls for {texts}, symmetric = {symmetric}")


class TestBleuMatrix:
    """Sentence BLEU."""

    def test_by_hand(self) -> None:
        """Multiplies the geometric mean of the precisions by the brevity penalty."""
        actual = mbr.bleu_matrix(["a b c d", "a b", "a x c y"], ["a b c d e"])
        first = 100 * math.exp(1 - 5 / 4)
        second = 100 * math.exp(1 - 5 / 2)
        third = 100 * math.exp(1 - 5 / 4) * (2 / 4 * 0.5 / 3 * 0.25 / 2 * 0.125 / 1) ** (1 / 4)
        assert_close(actual, [[first], [second], [third]], TOLERANCE, "BLEU against a b c d e")

    def test_equals_sacrebleu(self) -> None:
        """Equals sacrebleu's sentence BLEU."""
        metric = BLEU(tokenize="none", effective_order=True)
        expected = [[metric.sentence_score(h, [r]).score for r in TEXTS[1:]] for h in TEXTS]
        assert_close(mbr.bleu_matrix(TEXTS, TEXTS[1:]), expected, TOLERANCE, f"BLEU of {TEXTS}")


class TestChrfMatrix:
    """chrF."""

    def test_by_hand(self) -> None:
        """Averages precision and recall over the orders that both texts have, and weighs recall more."""
        actual = mbr.chrf_matrix(["ab", "x"], ["a bc"])
        precision, recall = (2 / 2 + 1 / 1) / 2, (2 / 3 + 1 / 2) / 2
        expected = 100 * 5 * precision * recall / (4 * precision + recall)
        assert_close(actual, [[expected], [0.0]], TOLERANCE, "chrF of ab and x against a bc")

    def test_equals_sacrebleu(self) -> None:
        """Equals sacrebleu's sentence chrF."""
        metric = CHRF()
        expected = [[metric.sentence_score(h, [r]).score for r in TEXTS[1:]] for h in TEXTS]
        assert_close(mbr.chrf_matrix(TEXTS, TEXTS[1:]), expected, TOLERANCE, f"chrF of {TEXTS}")


class TestRougeLMatrix:
    """ROUGE-L."""

    def test_by_hand(self) -> None:
        """Is the F1 of the longest common subsequence of the words."""
        actual = mbr.rouge_l_matrix(["A b, c!", "c b a", "?"], ["a x b y c"])
        assert_close(actual, [[2 * 3 / 8], [2 * 1 / 8], [0.0]], 1e-5, "ROUGE-L against a x b y c")

    def test_equals_rouge_score(self) -> None:
        """Equals rouge_score's rougeL."""
        scorer = RougeScorer(["rougeL"])
        expected = [[scorer.score(r, h)["rougeL"].fmeasure for r in TEXTS[1:]] for h in TEXTS]
        assert_close(mbr.rouge_l_matrix(TEXTS, TEXTS[1:]), expected, 1e-5, f"ROUGE-L of {TEXTS}")


class TestEmbeddingMatrix:
    """Cosine similarity."""

    def test_cosine(self) -> None:
        """Returns the cosine of the angle between the embeddings, whatever their lengths."""
        table = {"east": [2.0, 0.0], "north": [0.0, 5.0], "between": [3.0, 3.0], "nowhere": [0.0, 0.0]}

        def embed(texts: list[str]) -> Tensor:
            return torch.tensor([table[text] for text in texts])

        actual = mbr.embedding_matrix(embed, ["east", "between"], ["north", "east", "nowhere"])
        assert_close(actual, [[0.0, 1.0, 0.0], [0.5**0.5, 0.5**0.5, 0.0]], 1e-5, "the similarities")

    def test_every_text_once(self) -> None:
        """Embeds all different texts in one call."""
        asked = []

        def embed(texts: list[str]) -> Tensor:
            asked.append(sorted(texts))
            return torch.tensor([[float(len(text)), 1.0] for text in texts])

        mbr.embedding_matrix(embed, ["a", "bb", "a"], ["bb", "ccc"])
        assert_equal(asked, [["a", "bb", "ccc"]], "the texts of each call")


class TestAggregateChrf:
    """chrF against an average reference."""

    def test_one_reference(self) -> None:
        """Equals chrF where there is one reference, or all are the same."""
        for count in (1, 3):
            actual = mbr.aggregate_chrf(TEXTS, [TEXTS[0]] * count)
            assert_close(actual, mbr.chrf_matrix(TEXTS, TEXTS[:1])[:, 0], TOLERANCE, "chrF against the average")

    def test_by_hand(self) -> None:
        """Gives each n-gram of the average its mean number of occurrences, and needs a reference."""
        actual = mbr.aggregate_chrf(["ab"], ["ab", "b"])  # the average has half an a, one b, half an ab
        precision, recall = (1.5 / 2 + 0.5 / 1) / 2, (1.5 / 1.5 + 0.5 / 0.5) / 2
        expected = 100 * 5 * precision * recall / (4 * precision + recall)
        assert_close(actual, [expected], TOLERANCE, "chrF of ab against the average of ab and b")
        with pytest.raises(ValueError):
            mbr.aggregate_chrf(["ab"], [])
