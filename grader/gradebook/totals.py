"""The arithmetic of a term, in exact fractions: quizzes, late days, letters."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from math import floor
from typing import NamedTuple

from grader.assignment import LatePolicy

HUNDRED = Fraction(100)


class Spending(NamedTuple):
    """One way to count a homework: which submission, with how many free days, for what share of its points."""

    submission: int | None  # None: nothing was handed in
    free_days: int
    share: Fraction  # of the homework's points, after the deduction


def kept_quizzes(shares: Sequence[Fraction | None], dropped: int) -> set[int]:
    """Return the positions of the quizzes that count: without the excused ones, and then without the lowest.

    One is kept at least, if any is there; of equal ones the later is kept.
    """
    taken = [(share, position) for position, share in enumerate(shares) if share is not None]
    return {position for _, position in sorted(taken)[min(dropped, max(0, len(taken) - 1)) :]}


def late_factor(policy: LatePolicy, days_late: int, free_days: int) -> Fraction:
    """Return the share of the points that is left. A free day saves its deduction; no day makes work accepted."""
    if days_late > policy.accepted_days:
        return Fraction(0)
    return Fraction(policy.factor(days_late - free_days)).limit_denominator(10**6)


def ways_to_count(policy: LatePolicy, submissions: Sequence[tuple[Fraction, int]], free_days: int) -> list[Spending]:
    """Return for each number of free days the best way to spend them on one homework.

    `submissions` are (share of the points before the deduction, days late); of equal ones the first is taken.
    """
    ways = []
    for spent in range(free_days + 1):
        possible = [
            Spending(number, spent, share * late_factor(policy, days, spent))
            for number, (share, days) in enumerate(submissions)
            if spent <= days
        ]
        ways += [max(possible, key=lambda way: way.share)] if possible else []
    return ways


def best_spending(
    homeworks: Sequence[Sequence[Spending]], weights: Sequence[Fraction], free_days: int
) -> tuple[Spending, ...]:
    """Return the way to count each homework that makes the total largest, and of those one with fewest free days.

    All ways within the free days of the term are tried, so the optimum is exact.
    """

    def worth(ways: tuple[Spending, ...]) -> tuple[Fraction, int]:
        total = sum((way.share * weight for way, weight in zip(ways, weights, strict=True)), Fraction(0))
        return total, -sum(way.free_days for way in ways)

    affordable = (ways for ways in product(*homeworks) if sum(way.free_days for way in ways) <= free_days)
    return max(affordable, key=worth)


def total_of(groups: Iterable[tuple[Fraction, Fraction]]) -> Fraction:
    """Return the total out of 100 of (share, weight) pairs; it is 0 when nothing counts."""
    pairs = list(groups)
    weights = sum((weight for _, weight in pairs), Fraction(0))
    return sum((share * weight for share, weight in pairs), Fraction(0)) * HUNDRED / weights if weights else Fraction(0)


def rounded(total: Fraction) -> Fraction:
    """Return the total in hundredths, halves up: the number that is shown, and that the letter goes by."""
    return Fraction(floor(total * 100 + Fraction(1, 2)), 100)


def letter_of(total: Fraction, letters: Mapping[str, Fraction]) -> str:
    """Return the letter of the highest cut-off that the rounded total reaches."""
    reached = {letter: lowest for letter, lowest in letters.items() if rounded(total) >= lowest}
    return max(reached, key=lambda letter: reached[letter])
