"""Pages about load tests: one for each system, which its student may see, and one about all systems for the staff.

Nothing that a server has said is on a student's page, and no question: a server could print what it was asked.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas

from final_project.summary import ASKED, Record
from grader.reports import render_page, spreadsheet_text
from grader.serving.judge import Result
from grader.serving.rules import LoadTest
from grader.serving.scoring import Earned, Measured, earned, front, in_tradeoff, reaches

BASELINES = "baselines"
"""The student that the two baselines are kept under, and the ceiling."""
CEILING = "ceiling"
"""vLLM's own server: shown beside the others, and no part of anybody's points."""
BINS = 30
PLOT_HEIGHT = 160  # of the charts, in their own units
LABEL_HEIGHT = 10  # of a name, likewise
LABEL_WIDTH = 0.25  # of a name, as a share of the plot
LATENCY_WORDS = {
    "time_to_first_token": "Time to first token",
    "time_per_output_token": "Time per output token",
    "end_to_end": "End to end",
}


class Standing(NamedTuple):
    """All systems that were measured on one trace, and what they earn."""

    results: list[Result]
    measured: dict[tuple[str, str], Measured]
    """By student and system."""
    reached: dict[tuple[str, str], bool]
    """Whether it is as accurate as the simple baseline; empty without baselines."""
    earned: dict[str, Earned]
    """By student; empty without baselines."""
    front: list[Measured]
    """From the most accurate to the one that serves most."""


class Axis(NamedTuple):
    """From 0 to `end`, with marks at round numbers."""

    end: float
    ticks: list[float]


class Line(NamedTuple):
    """A series of a chart, in its axes' units."""

    name: str
    points: list[tuple[float, float]]


class Chart(NamedTuple):
    """Lines over time."""

    title: str
    x: Axis
    y: Axis
    lines: list[Line]
    caption: str


class Histogram(NamedTuple):
    """Requests by a latency, in seconds; the last bin holds all that is longer."""

    title: str
    x: Axis
    counts: list[int]
    quantiles: dict[str, float]


class Dot(NamedTuple):
    """A system on the plot of accuracy over requests served."""

    label: str
    kind: str
    """own, other or baseline."""
    system: Measured
    label_at: float = 0.0
    """The height of its name, where it covers no other one."""


class ParetoPlot(NamedTuple):
    """All systems, and the staircase of the front."""

    x: Axis
    y: Axis
    dots: list[Dot]
    staircase: list[tuple[float, float]]


def stand(results: Sequence[Result], test: LoadTest) -> Standing:
    """Compare systems with each other and with the baselines, and give points where both baselines are there."""
    baselines = {result.system: result for result in results if result.student == BASELINES}
    simple = baselines.get("simple")
    least = {task: len(simple.scores.get(task, ())) for task in ASKED} if simple else {}
    measured = {(result.student, result.system): result.measured(least) for result in results}
    students: dict[str, dict[str, Measured]] = {}
    for (student, system), place in measured.items():
        if student != BASELINES:
            students.setdefault(student, {})[system] = place
    if not {"simple", "improved"} <= set(baselines):
        return Standing(list(results), measured, {}, {}, front(list(measured.values())))
    simple_place, improved_place = measured[BASELINES, "simple"], measured[BASELINES, "improved"]
    conditions = test.conditions
    reached = {key: reaches(place, simple_place, conditions.standard_errors) for key, place in measured.items()}
    traded = [
        place
        for key, place in measured.items()
        if key != (BASELINES, CEILING) and in_tradeoff(place, simple_place, conditions.least_accuracy)
    ]
    points = earned(students, simple_place, improved_place, test.points, test.marks, conditions)
    return Standing(list(results), measured, reached, points, front(traded))


def run_page(result: Result, records: Sequence[Record], standing: Standing, test: LoadTest) -> str:
    """Return the page about one system."""
    return render_page(
        "serving.html.jinja",
        result=result,
        test=test,
        place=standing.measured[result.student, result.system],
        reached=standing.reached.get((result.student, result.system)),
        earned=standing.earned.get(result.student),
        charts_over_time=[in_flight(records, test.seconds), throughput(records, test.seconds)],
        histograms=histograms(result, records),
        latency_words=LATENCY_WORDS,
        pareto=pareto(standing, (result.student, result.system)),
    )


def class_page(standing: Standing, test: LoadTest, generated: str) -> str:
    """Return the page about all systems; `generated` says when it was made."""
    return render_page(
        "serving_class.html.jinja",
        standing=standing,
        test=test,
        generated=generated,
        pareto=pareto(standing, None),
        baselines=BASELINES,
        ceiling=CEILING,
    )


def results_table(standing: Standing, test: LoadTest) -> pandas.DataFrame:
    """Return a row per student, for scores.csv; points by hand are left out."""
    rows = [
        {
            "name": spreadsheet_text(student),
            "points": round(of_student.total, 4),
            "max_points": test.points.accuracy + test.points.efficiency + test.points.tradeoff,
            **{part: round(getattr(of_student, part), 4) for part in ("accuracy", "efficiency", "tradeoff")},
            **{f"{part}_by": spreadsheet_text(system) for part, system in of_student.by_system.items()},
        }
        for student, of_student in sorted(standing.earned.items())
    ]
    return pandas.DataFrame(rows)


# Charts


def axis(largest: float) -> Axis:
    """Return an axis of three to six marks at 1, 2 or 5 times a power of ten, up to the first one not exceeded."""
    if largest <= 0:
        return Axis(1.0, [0.0, 1.0])
    raw = largest / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    count = math.ceil(largest / step * (1 - 1e-9))
    return Axis(count * step, [round(i * step, 10) for i in range(count + 1)])


def in_flight(records: Sequence[Record], seconds: float) -> Chart:
    """Return how many requests had come and were not answered, and how many of them had been sent, over time.

    A request that was never answered counts until the window ends.
    """
    lines = [
        Line("open", _open(((record.arrival, record.end) for record in records), seconds)),
        Line("sent", _open(((r.sent, r.end) for r in records if r.sent is not None), seconds)),
    ]
    highest = max((value for line in lines for _, value in line.points), default=0)
    caption = "Requests that had come and had not been answered; below, where it differs, those of them that were sent."
    return Chart("Requests in flight", Axis(seconds, axis(seconds).ticks), axis(highest), lines, caption)


def _open(spans: Iterable[tuple[float, float | None]], seconds: float) -> list[tuple[float, float]]:
    """Return the corners of the step function that counts spans."""
    changes: list[tuple[float, int]] = []
    for begin, end in spans:
        changes += [(begin, 1)] + ([(end, -1)] if end is not None else [])
    corners, level = [(0.0, 0.0)], 0
    for time, change in sorted(changes):
        corners += [(time, float(level)), (time, float(level + change))]
        level += change
    return [*corners, (seconds, float(level))]


def throughput(records: Sequence[Record], seconds: float) -> Chart:
    """Return how many requests came and were served a second, over time."""
    width = seconds / BINS

    def rates(times: Sequence[float]) -> list[tuple[float, float]]:
        counts = [0] * BINS
        for time in times:
            counts[min(int(time / width), BINS - 1)] += 1
        return [((place + 0.5) * width, count / width) for place, count in enumerate(counts)]

    lines = [
        Line("came", rates([record.arrival for record in records])),
        Line("served", rates([record.end for record in records if record.end is not None])),
    ]
    highest = max(value for line in lines for _, value in line.points)
    caption = f"Requests a second that came and that were served, in parts of {width:.3g} s."
    return Chart("Throughput", Axis(seconds, axis(seconds).ticks), axis(highest), lines, caption)


def histograms(result: Result, records: Sequence[Record]) -> list[Histogram]:
    """Return how the latencies of the requests served are distributed."""
    found = []
    for name, quantiles in result.summary.latencies.items() if result.summary else ():
        values = [value for record in records if record.served and (value := getattr(record, name)) is not None]
        x = axis(quantiles.p99 * 1.05)
        counts = [0] * BINS
        for value in values:
            counts[min(int(value / x.end * BINS), BINS - 1)] += 1
        marks = {"p50": quantiles.p50, "p90": quantiles.p90, "p99": quantiles.p99}
        found.append(Histogram(LATENCY_WORDS[name], x, counts, marks))
    return found


def pareto(standing: Standing, own: tuple[str, str] | None) -> ParetoPlot:
    """Return all systems on the two axes; with `own`, the other students' have no names."""
    places = standing.measured
    dots = []
    for (student, system), place in places.items():
        if student == BASELINES:
            dots.append(Dot(system, "baseline", place))
        elif own is None or own == (student, system):
            dots.append(Dot(system if own else f"{student}: {system}", "own", place))
        else:
            dots.append(Dot("", "other", place))
    x, y = axis(max(dot.system.served for dot in dots)), axis(max(dot.system.accuracy for dot in dots))
    steps = standing.front
    staircase = [(0.0, steps[0].accuracy)]
    for step in steps:
        staircase += [(staircase[-1][0], step.accuracy), (step.served, step.accuracy)]
    return ParetoPlot(x, y, _labelled(dots, x, y), [*staircase, (steps[-1].served, 0.0)])


def _labelled(dots: Sequence[Dot], x: Axis, y: Axis) -> list[Dot]:
    """Return the dots from top to bottom, the name of each below those before it that it would cover."""
    placed: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (-dot.system.accuracy, -dot.system.served)):
        height = PLOT_HEIGHT * (1 - dot.system.accuracy / y.end) - 4
        for other in placed:
            near = abs(other.system.served - dot.system.served) < LABEL_WIDTH * x.end
            if near and other.label and abs(other.label_at - height) < LABEL_HEIGHT:
                height = other.label_at + LABEL_HEIGHT
        placed.append(dot._replace(label_at=height))
    return placed
