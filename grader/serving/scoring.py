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


def earned(
    students: Mapping[str, Mapping[str, Measured]],
    simple: Measured,
    improved: Measured,
    points: Points,
    marks: Marks,
    standard_errors: float,
) -> dict[str, Earned]:
    """Return what each student earns by the best of the own systems in each part.

    Efficiency earns nothing with a system that is less accurate than the simple baseline (see `reaches`).
    """
    systems = [system for own in students.values() for system in own.values()]
    everything = [*systems, simple, improved]
    best_accuracy = max((system.accuracy for system in systems), default=0.0)
    best_served = max((s.served for s in systems if reaches(s, simple, standard_errors)), default=0.0)
    closeness = {system: 1 - distance(system, everything) for system in everything}

    def parts(system: Measured) -> dict[str, float]:
        share = scale(system.accuracy, simple.accuracy, improved.accuracy, best_accuracy, marks)
        efficiency = scale(system.served, simple.served, improved.served, best_served, marks)
        best_closeness = max((closeness[system] for system in systems), default=1.0)
        tradeoff = scale(closeness[system], closeness[simple], closeness[improved], best_closeness, marks)
        return {
            "accuracy": points.accuracy * share,
            "efficiency": points.efficiency * efficiency if reaches(system, simple, standard_errors) else 0.0,
            "tradeoff": points.tradeoff * tradeoff,
        }

    result = {}
    for student, own in students.items():
        of_systems = {name: parts(system) for name, system in own.items()}
        best = {
            part: max(of_systems, key=lambda name: of_systems[name][part], default="")
            for part in ("accuracy", "efficiency", "tradeoff")
        }
        got = {part: of_systems[name][part] if name else 0.0 for part, name in best.items()}
        result[student] = Earned(**got, by_system=best)
    return result
