"""Several samples of one question: what votes, scores and a perfect choice make of them.

Everything that ends in `_at_k` is an exact expectation over the subsets of k of the n samples, so it does not depend on
their order and needs no random draw.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from typing import TypeVar

Answer = TypeVar("Answer", bound=Hashable)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return the probability that at least one of k samples is correct, when c of n samples were.

    The unbiased estimate 1 - C(n-c, k) / C(n, k). Raises ValueError unless 0 <= c <= n and 1 <= k <= n.

    Paper: Chen et al., 2021, https://arxiv.org/abs/2107.03374.
    """
    if not 0 <= c <= n:
        raise ValueError(f"expected 0 <= c <= n correct samples, got c = {c} of n = {n}")
    _check_k(n, k)
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def majority_vote(answers: Sequence[Answer | None]) -> Answer | None:
    """Return the most frequent answer; among equally frequent ones the one that came first.

    None is a sample without an answer. It has no vote: the result is None only where no sample has an answer.

    Paper: Wang et al., 2022, https://arxiv.org/abs/2203.11171.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    return max(votes, key=votes.__getitem__, default=None)


def majority_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool], k: int) -> float:
    """Return the probability that `majority_vote` over k samples, drawn without replacement, is correct.

    `correct[i]` says whether answers[i] is right; None never is. Drawn in random order, tied answers are equally
    likely to come first, so each of t tied answers wins with probability 1/t.

    Raises ValueError unless there are as many flags as answers, equal answers have equal flags, no None is correct, and
    1 <= k <= n.
    """
    if len(answers) != len(correct):
        raise ValueError(f"expected a flag for each of {len(answers)} answers, got {len(correct)}")
    _check_k(len(answers), k)
    right = {answer for answer, flag in zip(answers, correct, strict=True) if flag}
    wrong = {answer for answer, flag in zip(answers, correct, strict=True) if not flag}
    if None in right:
        raise ValueError("expected None, a sample without an answer, to be wrong; it is marked as correct")
    if right & wrong:
        raise ValueError(
            f"expected equal answers to be right or wrong together, got both for {min(map(str, right & wrong))!r}"
        )
    counts = Counter(answers)
    wins = sum((_winning_subsets(counts, answer, k) for answer in right), Fraction(0))
    return float(wins / math.comb(len(answers), k))


def _winning_subsets(counts: Counter[Hashable | None], winner: Hashable, k: int) -> Fraction:
    """Return the number of subsets of k samples in which the winner leads; one with t answers tied counts 1/t."""
    others = [count for answer, count in counts.items() if answer is not None and answer != winner]
    total = Fraction(0)
    for votes in range(1, min(k, counts[winner]) + 1):
        ways = {(votes, 1): math.comb(counts[winner], votes)}  # (samples taken, answers that lead) -> subsets
        for count in others:
            extended: Counter[tuple[int, int]] = Counter()
            for (taken, leaders), subsets in ways.items():
                for more in range(min(count, votes, k - taken) + 1):
                    extended[taken + more, leaders + (more == votes)] += subsets * math.comb(count, more)
            ways = dict(extended)
        for (taken, leaders), subsets in ways.items():
            total += Fraction(subsets * math.comb(counts[None], k - taken), leaders)
    return total


def group_answers(answers: Sequence[str | None], equal: Callable[[str, str], bool | None]) -> list[str | None]:
    """Return each answer as the first one that `equal(first, answer)` accepts, so that equal answers vote together.

    For answers that can be written in several ways, such as expressions. `equal` is asked once per pair at most.
    """
    firsts: list[str] = []
    groups: dict[str, str] = {}
    for answer in answers:
        if answer is not None and answer not in groups:
            groups[answer] = next((first for first in firsts if equal(first, answer)), answer)
            if groups[answer] == answer:
                firsts.append(answer)
    return [None if answer is None else groups[answer] for answer in answers]


def best_of_n(scores: Sequence[float]) -> int:
    """Return the index of the highest score, the first of equally high ones.

    Raises ValueError for no score at all and for a score that is not a number (NaN).
    """
    _check_scores(scores)
    return max(range(len(scores)), key=scores.__getitem__)


def best_of_k(scores: Sequence[float], values: Sequence[float], k: int) -> float:
    """Return the expected value of the highest-scored of k samples, drawn without replacement.

    `scores` choose (log-probability, reward), `values` count (1 for a correct sample, else 0). Equally high scores are
    equally likely to be chosen.

    The sample of rank i of n, from the lowest, is chosen in C(i-1, k-1) of the C(n, k) subsets. Raises ValueError
    unless there are as many values as scores and 1 <= k <= n, and for a score that is not a number.

    Paper: Nakano et al., 2021, https://arxiv.org/abs/2112.09332, appendix I.
    """
    if len(scores) != len(values):
        raise ValueError(f"expected a value for each of {len(scores)} scores, got {len(values)}")
    _check_scores(scores)
    _check_k(len(scores), k)
    groups: dict[float, list[float]] = {}
    for score, value in zip(scores, values, strict=True):
        groups.setdefault(score, []).append(value)
    below, expected = 0, 0.0
    for score in sorted(groups):
        upto = below + len(groups[score])
        chosen = Fraction(math.comb(upto, k) - math.comb(below, k), math.comb(len(scores), k))
        expected += float(chosen) * sum(groups[score]) / len(groups[score])
        below = upto
    return expected


def oracle(values: Sequence[float]) -> float:
    """Return the value of the best sample: what a perfect choice among the samples would reach.

    For samples that are right or wrong, its expectation over k of n samples is `pass_at_k`. Raises ValueError for no
    sample.
    """
    _check_scores(values)
    return max(values)


def _check_k(n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(f"expected 1 <= k <= n samples, got k = {k} of n = {n}")


def _check_scores(scores: Sequence[float]) -> None:
    if not len(scores):
        raise ValueError("expected at least one sample, got none")
    if any(math.isnan(score) for score in scores):
        raise ValueError("expected every score to be a number, got NaN")
