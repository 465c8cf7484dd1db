"""Several samples of a question: exact expectations against enumeration."""

import itertools
import math
from collections.abc import Hashable, Sequence

import pytest

from shared_tasks.metrics.samples import (
    best_of_k,
    best_of_n,
    group_answers,
    majority_at_k,
    majority_vote,
    oracle,
    pass_at_k,
)


@pytest.mark.parametrize(("k", "value"), [(1, 0.3), (2, 8 / 15), (5, 11 / 12), (8, 1.0)])
def test_pass_at_k_is_unbiased(k: int, value: float) -> None:
    """With 3 of 10 right, pass@k is .3, .5333, .9167, 1 for k = 1, 2, 5, 8; the plug-in 1 - .7^k is not."""
    assert pass_at_k(10, 3, k) == pytest.approx(value, abs=1e-12)


def test_pass_at_k_of_many_samples_does_not_overflow() -> None:
    """Binomial coefficients beyond every float still give the exact ratio."""
    assert pass_at_k(10_000, 1, 5_000) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(10, 11, 1), (10, -1, 1), (10, 3, 0), (10, 3, 11)])
def test_pass_at_k_refuses_impossible_counts(n: int, c: int, k: int) -> None:
    """More right samples than samples, or more drawn than there are, is an error."""
    with pytest.raises(ValueError, match="expected"):
        pass_at_k(n, c, k)


def test_the_majority_wins() -> None:
    """The most frequent answer is the vote's."""
    assert majority_vote(["3", "5", "5"]) == "5"


def test_the_first_of_tied_answers_wins() -> None:
    """A tie goes to the answer that came first, not to the smallest or the last."""
    assert majority_vote(["5", "3", "3", "5"]) == "5"


def test_no_answer_never_wins() -> None:
    """Samples without an answer do not vote, however many there are."""
    assert majority_vote([None, None, None, "7"]) == "7"
    assert majority_vote([None, None]) is None
    assert majority_vote([]) is None


def majority_by_enumeration(answers: Sequence[Hashable], correct: Sequence[bool], k: int) -> float:
    """Return the share of ordered draws of k samples whose vote is right."""
    right = {answer for answer, flag in zip(answers, correct, strict=True) if flag}
    draws = list(itertools.permutations(answers, k))
    return sum(majority_vote(draw) in right for draw in draws) / len(draws)


@pytest.mark.parametrize(
    "answers", ["aabbc", "aaabbb", "abcdef", "a??bb", "?????a", "aab???", "bbbbba", "aabbcc"], ids=lambda text: text
)
def test_majority_at_k_is_the_mean_over_all_draws(answers: str) -> None:
    """maj@k equals the vote of every ordered draw of k samples, ties and missing answers included."""
    samples = [None if answer == "?" else answer for answer in answers]
    correct = [answer == "a" for answer in samples]
    for k in range(1, len(samples) + 1):
        expected = majority_by_enumeration(samples, correct, k)
        assert majority_at_k(samples, correct, k) == pytest.approx(expected, abs=1e-12), k


def test_majority_at_k_counts_every_right_spelling() -> None:
    """Two answers that are both right share the votes but both win for the question."""
    samples = ["1/2", "0.5", "2"]
    assert majority_at_k(samples, [True, True, False], 1) == pytest.approx(2 / 3)
    assert majority_at_k(samples, [True, True, False], 3) == pytest.approx(2 / 3)


def test_majority_at_one_is_the_accuracy() -> None:
    """One sample votes for itself."""
    assert majority_at_k(["a", "b", None, "a"], [True, False, False, True], 1) == 0.5


def test_majority_at_k_handles_64_samples() -> None:
    """64 different wrong answers against one right answer given twice: the pair wins whenever both are drawn."""
    samples = ["right", "right", *map(str, range(62))]
    both, one = math.comb(62, 30), 2 * math.comb(62, 31)
    expected = (both + one / 32) / math.comb(64, 32)
    assert majority_at_k(samples, [s == "right" for s in samples], 32) == pytest.approx(expected, rel=1e-12)


def test_majority_at_k_refuses_contradictions() -> None:
    """An answer that is right in one sample and wrong in another, or a missing one that is right, is an error."""
    with pytest.raises(ValueError, match="together"):
        majority_at_k(["a", "a"], [True, False], 1)
    with pytest.raises(ValueError, match="None"):
        majority_at_k([None, "a"], [True, False], 1)
    with pytest.raises(ValueError, match="flag"):
        majority_at_k(["a"], [True, False], 1)
    with pytest.raises(ValueError, match="k = 3"):
        majority_at_k(["a", "b"], [True, False], 3)


def test_equal_answers_vote_together() -> None:
    """Answers are replaced by the first one that equals them; a missing one stays missing."""

    def same_number(first: str, second: str) -> bool:
        return float(first) == float(second)

    assert group_answers(["0.5", None, ".50", "2", "5e-1"], same_number) == ["0.5", None, "0.5", "2", "0.5"]


def test_best_of_n_takes_the_first_highest_score() -> None:
    """The index of the maximum, and of the first where several are equal; negative scores are scores."""
    assert best_of_n([-3.0, -1.0, -2.0]) == 1
    assert best_of_n([0.5, 0.9, 0.9]) == 1


def test_best_of_k_is_the_mean_over_all_subsets() -> None:
    """The expected value of the best-scored of k samples equals the mean over every subset of k."""
    scores, values = [0.1, 0.9, 0.4, 0.7, 0.2], [1.0, 0.0, 1.0, 0.0, 0.5]
    for k in range(1, 6):
        subsets = list(itertools.combinations(range(5), k))
        expected = sum(values[max(subset, key=scores.__getitem__)] for subset in subsets) / len(subsets)
        assert best_of_k(scores, values, k) == pytest.approx(expected, abs=1e-12)


def test_equal_scores_choose_at_random() -> None:
    """With one score for all samples best-of-k is the mean value, whatever k is."""
    assert best_of_k([1.0] * 4, [1, 0, 0, 0], 3) == pytest.approx(0.25)


def test_a_perfect_score_makes_best_of_k_pass_at_k() -> None:
    """Chosen by correctness itself, best-of-k is pass@k: the oracle."""
    values = [1.0] * 3 + [0.0] * 7
    for k in range(1, 11):
        assert best_of_k(values, values, k) == pytest.approx(pass_at_k(10, 3, k), abs=1e-12)
    assert oracle(values) == 1.0
    assert oracle([0.0, 0.25]) == 0.25


def test_scores_must_be_numbers() -> None:
    """NaN has no order and an empty list no best: both are errors."""
    for scores in ([], [0.0, math.nan]):
        with pytest.raises(ValueError, match="expected"):
            best_of_n(scores)
        with pytest.raises(ValueError, match="expected"):
            oracle(scores)
