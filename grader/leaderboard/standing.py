"""Where entries stand: scores, places that are shared within error, Pareto fronts. Plain functions."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from grader.leaderboard.judge import Run
from grader.leaderboard.queue import Entry, Evaluation, Queue, Track
from grader.serving.scoring import Measured, accuracy, accuracy_error, distance, front
from shared_tasks.metrics.statistics import standard_error

RESAMPLES = 2000
SEED = 0
CONFIDENCE = 0.95

Scores = Mapping[str, Sequence[float]]
"""Of each question, by task."""


class Row(NamedTuple):
    """A run on the board."""

    entry: Entry
    run: Run
    score: float
    """The mean over tasks of the mean score of all questions; an unanswered one counts 0."""
    error: float
    """Its standard error."""
    accuracy: float
    """On the plot: the score of a system; of a server that of its answers, see `serving.scoring.accuracy`."""
    accuracy_error: float
    place: int | None
    """None for a ceiling, which does not compete."""
    shared: bool
    """Whether another row has the same place."""
    distance: float | None
    """To the Pareto front, 0 on it; None for a ceiling."""
    on_front: bool


class Standing(NamedTuple):
    """A track of a board."""

    track: Track
    rows: list[Row]
    """The best run of every entrant under each budget, or with each of a server's systems; the best row first."""
    every: list[Row]
    """All runs of all entries; those that are not in `rows` have no place."""


class Board(NamedTuple):
    """A split."""

    split: str
    standings: list[Standing]
    evaluations: list[Evaluation]


def read_board(queue: Queue, split: str) -> Board:
    """Return what a queue knows of a split, and nothing of another one."""
    evaluations = queue.evaluations(split)
    entries = {evaluation.entry.id: evaluation.entry for evaluation in evaluations}
    runs = [(entries[entry], msgspec.json.decode(result, type=Run)) for (entry, _), result in queue.runs(split).items()]
    standings = [stand(track, [one for one in runs if one[0].track == track]) for track in queue.tracks()]
    return Board(split, standings, evaluations)


def stand(track: Track, runs: Sequence[tuple[Entry, Run]]) -> Standing:
    """Compare the runs of a track."""
    least = _least(runs)
    rows = [_row(entry, run, least) for entry, run in runs]
    best: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row.entry.student, row.entry.role, row.run.variant)
        if key not in best or row.score > best[key].score:
            best[key] = row
    shown = sorted(best.values(), key=lambda row: (-row.score, row.entry.received, row.entry.id))
    competing = [row for row in shown if row.entry.role != "ceiling"]
    places = share_places([{name: task.scores for name, task in row.run.tasks.items()} for row in competing])
    budget = max((row.run.budget for row in competing), default=0)
    axes = [on_axes(row, budget) for row in competing]
    steps = front(axes)
    placed = {
        id(row): row._replace(
            place=place,
            shared=places.count(place) > 1,
            distance=distance(axis, axes),
            on_front=axis in steps and row.score > 0,  # to answer nothing costs nothing
        )
        for row, place, axis in zip(competing, places, axes, strict=True)
    }
    return Standing(track, [placed.get(id(row), row) for row in shown], [placed.get(id(row), row) for row in rows])


def _row(entry: Entry, run: Run, least: Mapping[str, int]) -> Row:
    scores = {name: task.scores for name, task in run.tasks.items()}
    score, error = overall(scores)
    accurate, accurate_error = score, error
    if entry.track == "servers":
        answered = {name: task.answered for name, task in run.tasks.items()}
        accurate, accurate_error = accuracy(answered, least, list(answered)), accuracy_error(answered, list(answered))
    return Row(entry, run, score, error, accurate, accurate_error, None, False, None, False)


def _least(runs: Sequence[tuple[Entry, Run]]) -> dict[str, int]:
    """Return how many answers of each task must count: as many as the simple baseline has given, if it is there."""
    for entry, run in runs:
        if entry.role == "baseline" and run.variant == "simple":
            return {name: task.answers for name, task in run.tasks.items()}
    return {}


def overall(scores: Scores) -> tuple[float, float]:
    """Return the mean over tasks of the mean score, and its standard error, tasks being independent."""
    errors = [standard_error(of_task) for of_task in scores.values()]
    return mean(map(mean, scores.values())), math.hypot(*errors) / len(errors)


def on_axes(row: Row, budget: int) -> Measured:
    """Return a row's place on the two axes, on both of which more is better.

    The first is accuracy; the second, of a server, requests served, and of a system, how many tokens a question it has
    left of the largest budget.
    """
    return Measured(row.accuracy, row.run.served if row.entry.track == "servers" else budget - row.run.tokens)


# Places


def bootstrap_means(scores: Scores, resamples: int = RESAMPLES, seed: int = SEED) -> Float[NDArray[np.float64], "n"]:
    """Return the mean over tasks of the mean score in resampled sets of questions, drawn within each task.

    Who has scores of the same questions gets the same sets from the same seed, so that the differences of two systems
    are those of a paired bootstrap.

    Paper: Koehn, 2004, https://aclanthology.org/W04-3250.
    """
    rng = np.random.default_rng(seed)
    means = []
    for _, of_task in sorted(scores.items()):
        count = len(of_task)
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)  # how often each question
        means.append(drawn @ np.asarray(of_task) / count)
    averages: NDArray[np.float64] = np.mean(means, axis=0)
    return averages


def within_error(
    better: Float[NDArray[np.float64], "n"], worse: Float[NDArray[np.float64], "n"], confidence: float = CONFIDENCE
) -> bool:
    """Return whether 0 lies in the interval of so much confidence of the difference of two systems."""
    low, high = np.quantile(better - worse, [(1 - confidence) / 2, (1 + confidence) / 2])
    return bool(low <= 0 <= high)


def share_places(scores: Sequence[Scores]) -> list[int]:
    """Return the places of systems that are given from best to worst.

    Each shares the place of the best system of the place above it if it is within error of that one. Otherwise its
    place is one more than the number of systems above it.
    """
    resampled = [bootstrap_means(one) for one in scores]
    places: list[int] = []
    for index, own in enumerate(resampled):
        leader = places[-1] - 1 if places else index
        places.append(leader + 1 if within_error(resampled[leader], own) else index + 1)
    return places
