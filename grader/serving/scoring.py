"""Points of the load test: from what systems have measured to what students earn. Plain functions, no files."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

import msgspec

from shared_tasks.metrics.statistics import standard_error


class Points(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the parts of the grade are worth."""

    accuracy: float
    efficiency: float
    tradeoff: float
    by_hand: float  # report and poster


class Marks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shares of the points that are earned at three places of a scale."""

    simple: float
    improved: float
    best: float


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How accurate a system must be to earn points for what it serves."""

    standard_errors: float  # of the difference, by which it may be below the simple baseline and earn by efficiency
    least_accuracy: float  # the part of the simple baseline's accuracy without which it is left out of the trade-off


class Measured(NamedTuple):
    """A system on the two axes."""

    accuracy: float
    served: float
    """Requests in the window."""
    accuracy_error: float = 0.0
    """The standard error of its accuracy."""


class Earned(msgspec.Struct, frozen=True):
    """What one student earns, with the system that earned it in each part."""

    accuracy: float
    efficiency: float
    tradeoff: float
    by_system: dict[str, str]

    @property
    def total(self) -> float:
        """The points of all parts together, those by hand left out."""
        return self.accuracy + self.efficiency + self.tradeoff


def accuracy(scores: Mapping[str, Sequence[float]], least: Mapping[str, int], tasks: Sequence[str]) -> float:
    """Return the mean over tasks of the mean score of the answers.

    Of a task with fewer answers than `least`, those missing count as wrong: who answers only what is easy gains
    nothing.
    """
    return mean(sum(scores.get(task, ())) / max(len(scores.get(task, ())), least.get(task, 0), 1) for task in tasks)


def accuracy_error(scores: Mapping[str, Sequence[float]], tasks: Sequence[str]) -> float:
    """Return the standard error of the mean over tasks of the mean score, tasks being independent."""
    errors = [standard_error(scores[task]) for task in tasks if scores.get(task)]
    return math.hypot(*errors) / len(tasks)


def scale(value: float, simple: float, improved: float, best: float, marks: Marks) -> float:
    """Return the share of the points that a value earns.

    It is linear from nothing at 0 to the simple baseline, on to the improved baseline, and on to the best submission. A
    place that lies below the one before it is moved up to it; where places coincide the highest mark holds.
    """
    places = [0.0, simple, max(simple, improved), max(simple, improved, best)]
    shares = [0.0, marks.simple, marks.improved, marks.best]
    above = bisect_right(places, value)
    if above == len(places):
        return shares[-1]
    if above == 0:
        return 0.0
    low, high = places[above - 1], places[above]
    return shares[above - 1] + (shares[above] - shares[above - 1]) * (value - low) / (high - low)


def reaches(system: Measured, simple: Measured, standard_errors: float) -> bool:
    """Return whether a system is as accurate as the simple baseline, within standard errors of the difference."""
    slack = standard_errors * math.hypot(system.accuracy_error, simple.accuracy_error)
    return system.accuracy >= simple.accuracy - slack


def front(systems: Sequence[Measured]) -> list[Measured]:
    """Return the Pareto front, from the most accurate to the one that serves most: of equal systems one."""
    found: list[Measured] = []
    for system in sorted(systems, key=lambda system: (-system.accuracy, -system.served)):
        if not found or system.served > found[-1].served:
            found.append(system)
    return found


def distance(system: Measured, systems: Sequence[Measured]) -> float:
    """Return how far a system is from where none of the others is better on both axes; 0 on the front.

    Axes are measured in the best of the systems on each, so that both weigh alike and 1 is the whole of an axis.
    """
    steps = front(systems)
    unit_accuracy = max(steps[0].accuracy, 0.0) or 1.0
    unit_served = max(steps[-1].served, 0.0) or 1.0
    # What is not dominated lies above and to the right of an inner corner of the staircase that the front draws.
    corners = zip([0.0, *(step.served for step in steps)], [*(step.accuracy for step in steps), 0.0], strict=True)
    return min(
        math.hypot(max(0.0, served - system.served) / unit_served, max(0.0, accurate - system.accuracy) / unit_accuracy)
        for served, accurate in corners
    )


def in_tradeoff(system: Measured, simple: Measured, least_accuracy: float) -> bool:
    """Return whether a system has at least so large a part of the simple baseline's accuracy.

    Without this a server that answers at once with anything would be on the front.
    """
    return system.accuracy >= least_accuracy * simple.accuracy


def earned(
    students: Mapping[str, Mapping[str, Measured]],
    simple: Measured,
    improved: Measured,
    points: Points,
    marks: Marks,
    conditions: Conditions,
) -> dict[str, Earned]:
    """Return what each student earns by the best of the own systems in each part.

    Efficiency earns nothing with a system that is less accurate than the simple baseline (see `reaches`), nor does the
    trade-off with one that is far less accurate (see `in_tradeoff`).
    """
    systems = [system for own in students.values() for system in own.values()]
    fast = [system for system in systems if reaches(system, simple, conditions.standard_errors)]
    traded = [system for system in systems if in_tradeoff(system, simple, conditions.least_accuracy)]
    closeness = {system: 1 - distance(system, [*traded, simple, improved]) for system in (*traded, simple, improved)}
    best_accuracy = max((system.accuracy for system in systems), default=0.0)
    best_served = max((system.served for system in fast), default=0.0)
    best_closeness = max((closeness[system] for system in traded), default=0.0)

    def parts(system: Measured) -> dict[str, float]:
        accuracy = scale(system.accuracy, simple.accuracy, improved.accuracy, best_accuracy, marks)
        efficiency = tradeoff = 0.0
        if system in fast:
            efficiency = scale(system.served, simple.served, improved.served, best_served, marks)
        if system in traded:
            tradeoff = scale(closeness[system], closeness[simple], closeness[improved], best_closeness, marks)
        return {
            "accuracy": points.accuracy * accuracy,
            "efficiency": points.efficiency * efficiency,
            "tradeoff": points.tradeoff * tradeoff,
        }

    result = {}
    for student, own in students.items():
        of_systems = {name: parts(system) for name, system in own.items()}
        got, by_system = {}, {}
        for part in ("accuracy", "efficiency", "tradeoff"):
            got[part], by_system[part] = max(((one[part], name) for name, one in of_systems.items()), default=(0.0, ""))
        result[student] = Earned(**got, by_system=by_system)
    return result
