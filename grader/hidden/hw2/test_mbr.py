"""Hidden tests of `hw2/mbr.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import itertools
import math
import random

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor

from hw2 import mbr
from shared_tasks.checks import assert_close, assert_equal

TOLERANCE = 1e-3  # of 100; wide enough for a solution that computes in float32
WORDS = "The the THE cat cat's sat, on mat. 42 ! naïve (so) x-ray a a a of".split()


def texts(count: int, longest: int, seed: int) -> list[str]:
    """Return texts of words that repeat, with odd white space and some of them empty."""
    draw = random.Random(seed)
    spaces = [" ", " ", " ", "  ", "\t", "\n"]
    words = [draw.choices(WORDS, k=draw.randint(0, longest)) for _ in range(count)]
    return ["".join(word + draw.choice(spaces) for word in line) for line in words] + ["", " "]


class TestExpectedUtility:
    """The mean over the references."""

    def test_rows(self) -> None:
        """Averages each row, also where there are more or fewer references than hypotheses.

        Rows are hypotheses. For an asymmetric utility the mean of the columns is something else.
        """
        for dtype in (torch.float32, torch.float64):
            utilities = torch.tensor([[1.0, 2.0, 6.0], [0.0, -3.0, 0.0]], dtype=dtype)
            assert_close(mbr.expected_utility(utilities), [3.0, -1.0], 1e-5, "expected utilities of 2 hypotheses")
            assert_close(
                mbr.expected_utility(utilities.T), [0.5, -0.5, 3.0], 1e-5, "expected utilities of 3 hypotheses"
            )

    def test_weights(self) -> None:
        """Weighs references in proportion to weights that need not sum to one; zeros leave references out.

        Divide by the sum of the weights, not by their number.
        """
        utilities = torch.tensor([[1.0, 2.0, 6.0], [0.0, -3.0, 1.0]])
        for weights, expected in (
            ([1.0, 1.0, 1.0], [3.0, -2 / 3]),
            ([2.0, 0.0, 6.0], [4.75, 0.75]),
            ([0.1, 0.3, 0.0], [1.75, -2.25]),
        ):
            actual = mbr.expected_utility(utilities, torch.tensor(weights))
            assert_close(actual, expected, 1e-5, f"expected utilities with weights {weights}")

    def test_refuses(self) -> None:
        """Changes no argument, and raises ValueError for weights that are too few, too many, negative, or all zero.

        Broadcasting accepts a single weight for three references: compare the shapes.
        """
        utilities, weights = torch.tensor([[1.0, 2.0, 6.0]]), torch.tensor([1.0, 2.0, 1.0])
        assert_close(mbr.expected_utility(utilities, weights), [2.75], 1e-5, "the expected utility")
        assert_equal(
            (utilities.tolist(), weights.tolist()), ([[1.0, 2.0, 6.0]], [1.0, 2.0, 1.0]), "the arguments after"
        )
        for refused in ([1.0], [1.0, 1.0], [1.0] * 4, [2.0, -1.0, 2.0], [0.0, 0.0, 0.0]):
            with pytest.raises(ValueError):
                mbr.expected_utility(utilities, torch.tensor(refused))


class TestUtilityMatrix:
    """Any utility."""

    def test_asymmetric(self) -> None:
        """Asks for utility(hypothesis, reference), in this order, and keeps duplicates in rows and columns.

        Hypotheses are rows, references columns. A sample that was drawn twice weighs twice in the mean over a row, so
        its column is there twice.
        """
        hypotheses, references = ["aa", "b", "aa"], ["b", "cccc", "b", "aa"]
        actual = mbr.utility_matrix(lambda h, r: 3.0 * len(h) - len(r) ** 2, hypotheses, references, False)
        expected = [[3.0 * len(h) - len(r) ** 2 for r in references] for h in hypotheses]
        assert_close(actual, expected, 1e-6, f"the utilities of {hypotheses} against {references}")

    def test_calls(self) -> None:
        """Asks for each different pair once, each unordered pair once if the utility is symmetric, and for no other.

        Keep what you know in a table. A text against itself is a pair: do not assume that its utility is 1.
        """
        hypotheses, references = ["a", "b", "a", "c", "d"], ["b", "e", "c", "b", "a"]
        ordered = sorted(set(itertools.product(hypotheses, references)))
        unordered = sorted({(min(pair), max(pair)) for pair in ordered})
        for symmetric, pairs in ((False, ordered), (True, unordered)):
            asked = []

            def utility(h: str, r: str, asked: list = asked) -> float:
                asked.append((h, r))
                return float(ord(h) * ord(r))

            actual = mbr.utility_matrix(utility, hypotheses, references, symmetric)
            expected = [[float(ord(h) * ord(r)) for r in references] for h in hypotheses]
            assert_close(actual, expected, 1e-6, f"the utilities, symmetric = {symmetric}")
            seen = sorted((min(p), max(p)) for p in asked) if symmetric else sorted(asked)
            assert_equal(seen, pairs, f"the pairs asked for, symmetric = {symmetric}")


class TestBleuMatrix:
    """Sentence BLEU."""

    def test_equals_sacrebleu(self) -> None:
        """Equals sacrebleu's sentence BLEU on texts of all lengths, with repetitions and odd white space.

        Clip the matches of an n-gram at its number in the reference. Split at any white space, keep case and
        punctuation.
        """
        metric = BLEU(tokenize="none", effective_order=True)
        for longest, seed in ((3, 91), (9, 92), (30, 93)):
            hypotheses, references = texts(12, longest, seed), texts(9, longest, seed + 50)
            expected = [[metric.sentence_score(h, [r]).score for r in references] for h in hypotheses]
            actual = mbr.bleu_matrix(hypotheses, references)
            assert_close(actual, expected, TOLERANCE, f"BLEU of texts of up to {longest} words")

    def test_smoothing_and_effective_order(self) -> None:
        """Smooths orders without a match by 1/2, 1/4, ..., leaves out orders that the hypothesis has no n-gram of.

        The smoothing halves with each such order of this pair. Without any match BLEU is 0, not smoothed.
        """
        penalty = math.exp(1 - 4 / 3)
        cases = {
            ("a b c d", "a b c d"): 1.0,
            ("a", "a"): 1.0,
            ("a b", "a c"): (1 / 2 * 0.5) ** (1 / 2),
            ("a b x", "a b c d"): penalty * (2 / 3 * 1 / 2 * 0.5) ** (1 / 3),
            ("a c b d", "a b c d"): (1.0 * 0.5 / 3 * 0.25 / 2 * 0.125) ** (1 / 4),
            ("x y z w", "a b c d"): 0.0,
            ("a a a a", "a b"): (1 / 4 * 0.5 / 3 * 0.25 / 2 * 0.125) ** (1 / 4),
        }
        for (hypothesis, reference), expected in cases.items():
            actual = mbr.bleu_matrix([hypothesis], [reference])
            assert_close(actual, [[100 * expected]], TOLERANCE, f"BLEU of {hypothesis!r} against {reference!r}")

    def test_brevity(self) -> None:
        """Penalises hypotheses that are shorter than the reference, and only those.

        exp(1 - r/h) is above 1 for long hypotheses: take the minimum with 1. BLEU is not symmetric.
        """
        short, long = "a b c d e", "a b c d e f g h"
        precision = (5 / 8 * 4 / 7 * 3 / 6 * 2 / 5) ** (1 / 4)
        expected = [[100.0, 100 * math.exp(1 - 8 / 5)], [100 * precision, 100.0]]
        assert_close(
            mbr.bleu_matrix([short, long], [short, long]), expected, TOLERANCE, "BLEU of a short and a long text"
        )


class TestChrfMatrix:
    """chrF."""

    def test_equals_sacrebleu(self) -> None:
        """Equals sacrebleu's sentence chrF on texts of all lengths, with repetitions and odd white space.

        Remove all white space before you take n-grams, so that they run across words; keep case and punctuation.
        """
        metric = CHRF()
        for longest, seed in ((2, 94), (6, 95), (25, 96)):
            hypotheses, references = texts(12, longest, seed), texts(9, longest, seed + 50)
            expected = [[metric.sentence_score(h, [r]).score for r in references] for h in hypotheses]
            actual = mbr.chrf_matrix(hypotheses, references)
            assert_close(actual, expected, TOLERANCE, f"chrF of texts of up to {longest} words")

    def test_short_texts(self) -> None:
        """Averages over the orders that both texts have, precision and recall each before the F-score.

        Texts of two letters have orders 1 and 2 only. The mean of the F-scores is another number than the F-score of
        the means.
        """
        for h, r, precision, recall in (
            ("ab", "ab", 1.0, 1.0),
            ("a", "abcdef", 1.0, 1 / 6),
            ("aab", "abb", (2 / 3 + 1 / 2) / 3, (2 / 3 + 1 / 2) / 3),
            ("abcd", "ab", (2 / 4 + 1 / 3) / 2, 1.0),
        ):
            expected = 100 * 5 * precision * recall / (4 * precision + recall)
            assert_close(mbr.chrf_matrix([h], [r]), [[expected]], TOLERANCE, f"chrF of {h!r} against {r!r}")

    def test_nothing_in_common(self) -> None:
        """Is 0, not NaN, for texts with nothing in common and for empty ones.

        0 / 0 is NaN in torch and an error in Python: check first.
        """
        actual = mbr.chrf_matrix(["", "abc", " "], ["xyz", "", "abc"])
        assert_close(actual, [[0.0, 0.0, 0.0], [0.0, 0.0, 100.0], [0.0, 0.0, 0.0]], TOLERANCE, "chrF of empty texts")


class TestRougeLMatrix:
    """ROUGE-L."""

    def test_equals_rouge_score(self) -> None:
        """Equals rouge_score's rougeL without stemming on texts of all lengths.

        Lower the case, then take runs of a-z and 0-9: everything else separates tokens.
        """
        scorer = RougeScorer(["rougeL"])
        for longest, seed in ((3, 97), (12, 98), (40, 99)):
            hypotheses, references = texts(10, longest, seed), texts(8, longest, seed + 50)
            expected = [[scorer.score(r, h)["rougeL"].fmeasure for r in references] for h in hypotheses]
            actual = mbr.rouge_l_matrix(hypotheses, references)
            assert_close(actual, expected, 1e-5, f"ROUGE-L of texts of up to {longest} words")

    def test_subsequence(self) -> None:
        """Counts a subsequence: in order, but with gaps, and each token once.

        A substring has no gaps; a bag of words has no order.
        """
        for h, r, common in (
            ("a b c d", "a x b x c x d", 4),
            ("a b c", "c b a", 1),
            ("a a a", "a b", 1),
            ("b a b a", "a b a b", 3),
        ):
            expected = 2 * common / (len(h.split()) + len(r.split()))
            assert_close(mbr.rouge_l_matrix([h], [r]), [[expected]], 1e-5, f"ROUGE-L of {h!r} against {r!r}")


class TestEmbeddingMatrix:
    """Cosine similarity."""

    def test_cosine(self) -> None:
        """Returns cosines, negative ones too, and 0 with an embedding of zeros, for any float type.

        Divide by both norms. A norm of 0 gives NaN: check first, or use a function that does.
        """
        generator = torch.Generator().manual_seed(9)
        table = {letter: torch.randn(6, generator=generator) * 10.0**i for i, letter in enumerate("abcde", -2)}
        table["z"] = torch.zeros(6)
        for dtype in (torch.float32, torch.float64):

            def embed(given: list[str], dtype: torch.dtype = dtype) -> Tensor:
                return torch.stack([table[text] for text in given]).to(dtype)

            actual = mbr.embedding_matrix(embed, ["d", "a", "z", "a"], ["b", "a", "e", "c", "z"])
            expected = [
                [
                    0.0 if "z" in (h, r) else float(table[h] @ table[r] / table[h].norm() / table[r].norm())
                    for r in "baecz"
                ]
                for h in "daza"
            ]
            assert_close(actual, expected, 1e-4, f"the similarities in {dtype}")

    def test_one_call(self) -> None:
        """Embeds every different text of both lists in one call, once.

        An embedding is a pass through a model: n texts need n of them, not n². Put both lists into one batch.
        """
        asked = []

        def embed(given: list[str]) -> Tensor:
            asked.append(sorted(given))
            return torch.tensor([[math.cos(ord(text)), math.sin(ord(text))] for text in given], dtype=torch.float64)

        hypotheses, references = list("caabc"), list("dcbbd")
        actual = mbr.embedding_matrix(embed, hypotheses, references)
        expected = [[math.cos(ord(h) - ord(r)) for r in references] for h in hypotheses]
        assert_close(actual, expected, 1e-5, "the similarities")
        assert_equal(asked, [["a", "b", "c", "d"]], "the texts of each call")


def averaged(h: str, references: list[str]) -> float:
    """Return chrF against the average reference, n-gram by n-gram."""
    pairs = []
    for order in range(1, 7):
        grams = [
            [("".join(t.split()))[i : i + order] for i in range(len("".join(t.split())) - order + 1)]
            for t in [h, *references]
        ]
        mean = {
            g: sum(row.count(g) for row in grams[1:]) / len(references) for g in {g for row in grams[1:] for g in row}
        }
        matches = sum(min(grams[0].count(g), mean.get(g, 0.0)) for g in set(grams[0]))
        if grams[0] and mean:
            pairs.append((matches / len(grams[0]), matches / sum(mean.values())))
    precision, recall = (sum(column) / max(len(pairs), 1) for column in (list(zip(*pairs, strict=True)) or [(), ()]))
    return 100 * 5 * precision * recall / (4 * precision + recall) if precision else 0.0


class TestAggregateChrf:
    """chrF against an average reference."""

    def test_average_reference(self) -> None:
        """Compares with the mean number of occurrences of each n-gram over all references, short and empty ones too.

        Average the counts, not the scores. The smaller of two numbers may be a fraction: do not round, and do not clip
        the sum of the references' counts.
        """
        for longest, seed in ((2, 101), (6, 102), (12, 103)):
            hypotheses, references = texts(6, longest, seed), texts(7, longest, seed + 50)
            expected = [averaged(h, references) for h in hypotheses]
            actual = mbr.aggregate_chrf(hypotheses, references)
            assert_close(actual, expected, TOLERANCE, f"chrF against the average of texts of up to {longest} words")

    def test_duplicates_weigh(self) -> None:
        """Counts a reference as often as it was drawn, and equals chrF if all are the same.

        Do not go through a set of references.
        """
        once, twice = ["abc", "bcd"], ["abc", "bcd", "abc"]
        hypotheses = ["abc", "bcd", "abd"]
        for references in (once, twice, ["abc"] * 4):
            expected = [averaged(h, references) for h in hypotheses]
            assert_close(mbr.aggregate_chrf(hypotheses, references), expected, TOLERANCE, f"chrF against {references}")
        same = [averaged(h, ["abc"]) for h in hypotheses]
        assert_close(mbr.aggregate_chrf(hypotheses, ["abc"] * 4), same, TOLERANCE, "chrF against four times abc")

    def test_nothing_in_common(self) -> None:
        """Is 0 where nothing matches or a text is empty, and raises ValueError when there is no reference.

        An average of nothing divides by zero: check first.
        """
        assert_close(
            mbr.aggregate_chrf(["", "xy", "ab"], ["ab", ""]), [0.0, 0.0, averaged("ab", ["ab", ""])], TOLERANCE, "chrF"
        )
        assert_close(mbr.aggregate_chrf(["ab"], ["", " "]), [0.0], TOLERANCE, "chrF against empty references")
        with pytest.raises(ValueError):
            mbr.aggregate_chrf(["ab"], [])
