"""Boards as documents: one page that stands alone, a table for spreadsheets, and Gradescope's field.

A public board has pseudonyms, and is made of one split alone. Everything on it that comes from a student is text.
"""

import base64
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import pandas
from markupsafe import Markup

from grader.leaderboard.pseudonyms import load_key, pseudonym
from grader.leaderboard.queue import Entry, Evaluation, Queue, Track
from grader.leaderboard.rules import Rules
from grader.leaderboard.standing import Board, Row, Standing, read_board
from grader.reports import render_page, spreadsheet_text, visible_text
from grader.systems import TASKS
from shared_tasks.metrics.statistics import standard_error

TEMPLATES = Path(__file__).parents[1] / "templates"
TASK_WORDS = {"math": "Mathematics", "multiple_choice": "Multiple choice", "open_ended": "Open-ended"}
SPLIT_WORDS = {"dev_test": "dev-test", "hidden": "the hidden split"}
WIDTH, HEIGHT = 640, 300  # of a plot, in its own units
LABEL_HEIGHT = 13
CHARACTER_WIDTH = 5.6  # of a label's and a hint's
LONGEST_REASON = 200  # characters


class Column(NamedTuple):
    """A number of each row."""

    label: str
    name: str
    """In the CSV."""
    value: Callable[[Row], float]
    text: Callable[[Row], str]
    error: Callable[[Row], float] | None = None
    """A standard error, in the units of the value."""
    less_is_better: bool = False
    about: str = ""


class Axis(NamedTuple):
    """From a round number to a round number, with marks at round numbers."""

    start: float
    end: float
    ticks: list[float]

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1."""
        return min(1.0, max(0.0, (value - self.start) / (self.end - self.start)))


class Dot(NamedTuple):
    """A row on a plot, in the plot's units."""

    row: Row
    x: float
    y: float
    high: float
    """Of its error bar."""
    low: float
    hint: list[str]
    label: str = ""
    label_y: float = 0.0

    @property
    def label_right(self) -> bool:
        """Whether the label stands to the right of the dot."""
        return _span(self.x, self.label)[0] > self.x

    @property
    def hint_width(self) -> float:
        """Of the box with the hint."""
        return 18 + CHARACTER_WIDTH * max(map(len, self.hint))

    @property
    def hint_x(self) -> float:
        """The left of the box, which stays within the plot."""
        return max(0.0, min(self.x + 12, WIDTH - self.hint_width))

    @property
    def hint_y(self) -> float:
        """The top of the box: above the dot, or below it where there is no room."""
        height = 10 + 15 * len(self.hint)
        return self.y - height - 12 if self.y > height else self.y + 12


class Plot(NamedTuple):
    """Accuracy over what it costs, or over throughput, with the Pareto front."""

    x: Axis
    y: Axis
    dots: list[Dot]
    staircase: list[tuple[float, float]]
    label: str


class Names:
    """What entrants are called: on a public board by their pseudonyms, for the staff by both names."""

    def __init__(self, term: str, key: bytes, staff: bool):
        self._term, self._key, self._staff = term, key, staff

    def of(self, entry: Entry) -> str:
        """Return the name of who entered."""
        if entry.role != "student":
            return entry.role
        public = pseudonym(entry.student, self._term, self._key)
        return f"{entry.student} ({public})" if self._staff else public


def percent(value: float) -> str:
    """Return a share in percent, to a tenth."""
    return f"{100 * value:.1f}"


def columns(track: Track) -> list[Column]:
    """Return the numbers that a row of a track has."""

    def of_task(task: str) -> Column:
        def scores(row: Row) -> list[float]:
            return row.run.tasks[task].scores if task in row.run.tasks else [0.0]

        return Column(
            TASK_WORDS[task],
            task,
            lambda row: mean(scores(row)),
            lambda row: percent(mean(scores(row))),
            lambda row: standard_error(scores(row)),
        )

    def latency(place: int, name: str) -> Column:
        return Column(
            f"Latency {name}, s",
            f"latency_{name}",
            lambda row: row.run.latencies[place],
            lambda row: f"{row.run.latencies[place]:.2f}",
            less_is_better=True,
            about="from arrival to the last word" if servers else "of the call in which a question was answered",
        )

    servers = track == "servers"
    of_answers = Column(
        "Of answers",
        "accuracy",
        lambda row: row.accuracy,
        lambda row: percent(row.accuracy),
        lambda row: row.accuracy_error,
        about="accuracy of the answers that came",
    )
    return [
        Column("Score", "score", lambda row: row.score, lambda row: percent(row.score), lambda row: row.error),
        *map(of_task, TASKS),
        *([of_answers] if servers else []),
        Column(
            "Tokens an answer" if servers else "Tokens a question",
            "tokens",
            lambda row: row.run.tokens,
            lambda row: f"{row.run.tokens:,.0f}",
            less_is_better=True,
        ),
        latency(0, "p50"),
        latency(1, "p99"),
        Column(
            "Served",
            "served",
            lambda row: row.run.served,
            lambda row: f"{row.run.served} / {row.run.requests}",
            about="requests in the window" if servers else "questions that were answered",
        ),
        Column("A second", "throughput", lambda row: row.run.throughput, lambda row: f"{row.run.throughput:.2f}"),
        Column(
            "Diversity",
            "distinct_2",
            lambda row: diversity(row),
            lambda row: f"{diversity(row):.2f}",
            about="different pairs of words among all of the open-ended answers",
        ),
        Column(
            "To the front",
            "distance_to_front",
            lambda row: math.inf if row.distance is None else row.distance,
            lambda row: "–" if row.distance is None else "on it" if row.on_front else f"{row.distance:.3f}",
            less_is_better=True,
            about="in units of the best on each axis",
        ),
    ]


def diversity(row: Row) -> float:
    """Return distinct-2 of the open-ended answers."""
    task = row.run.tasks.get("open_ended")
    return task.distinct_2 if task else 0.0


def label_of(row: Row) -> str:
    """Return what a row is called beside its entrant's name."""
    if row.entry.role == "ceiling":
        return "vLLM"
    if row.entry.track == "servers":
        return row.run.variant
    return row.entry.title or f"entry {row.entry.id}"


def write_boards(queue: Queue, folder: Path, rules: Rules, generated: str) -> list[Path]:
    """Write all that is made of a queue into a board's folder, and return the two pages.

    `public/` is made of dev-test alone and may be published as it is. `staff/` is made of the hidden split; beside it,
    in `gradescope/`, lies Gradescope's field for each student and track, made of dev-test.
    """
    key = load_key(folder)
    pages = []
    for place, split, staff in (("public", "dev_test", False), ("staff", "hidden", True)):
        board, names = read_board(queue, split), Names(rules.term, key, staff)
        out = folder / place
        out.mkdir(exist_ok=True)
        pages.append(out / "index.html")
        pages[-1].write_text(board_page(board, rules, names, staff, generated), "utf-8")
        board_table(board, names).to_csv(out / "leaderboard.csv", index=False)
    public = read_board(queue, "dev_test")
    fields = folder / "staff" / "gradescope"
    fields.mkdir(exist_ok=True)
    for entry in {one.entry for one in public.evaluations if one.entry.role == "student"}:
        field = {"leaderboard": gradescope_leaderboard(public, entry.student, entry.track)}
        name = f"{quote(entry.student, safe='')}.{entry.track}.json"
        (fields / name).write_bytes(msgspec.json.format(msgspec.json.encode(field)))
    return pages


# The page


def board_page(board: Board, rules: Rules, names: Names, staff: bool, generated: str) -> str:
    """Return a board as a page that needs nothing beside it; `generated` says when it was made."""
    entrants: dict[str, list[Evaluation]] = {}
    for evaluation in board.evaluations:
        entrants.setdefault(names.of(evaluation.entry), []).append(evaluation)
    rows: dict[int, list[Row]] = {}
    for row in (row for standing in board.standings for row in standing.every):
        rows.setdefault(row.entry.id, []).append(row)
    script, style = _asset("leaderboard.js"), _asset("leaderboard.css")
    return render_page(
        "leaderboard.html.jinja",
        rules=rules,
        staff=staff,
        generated=generated,
        split=SPLIT_WORDS[board.split],
        states={
            state: sum(evaluation.state == state for evaluation in board.evaluations)
            for state in ("queued", "running", "done", "failed")
        },
        standings=[
            (standing, columns(standing.track), plot(standing)) for standing in board.standings if standing.rows
        ],
        entrants=sorted(entrants.items(), key=lambda item: (item[1][0].entry.role != "student", item[0])),
        rows=rows,
        names=names,
        label_of=label_of,
        percent=percent,
        histories=_histories,
        shortened=lambda text: visible_text(text if staff else _without_words(text))[:LONGEST_REASON],
        task_words=TASK_WORDS,
        mean=mean,
        standard_error=standard_error,
        script=script[0],
        script_hash=script[1],
        board_style=style[0],
        board_style_hash=style[1],
    )


def _without_words(reason: str) -> str:
    """Return a reason without what an exception said: a system can say in it what it was asked."""
    return re.sub(r"(raised [^:]*):.*", r"\1", reason, flags=re.DOTALL)


@cache
def _asset(name: str) -> tuple[Markup, str]:
    """Return a script or style sheet with the hash by which the page's policy lets it in."""
    text = (TEMPLATES / name).read_text("utf-8")
    return Markup(text), base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _histories(evaluations: Sequence[Evaluation], rows: Mapping[int, Sequence[Row]]) -> dict[Track, list[float]]:
    """Return for each track the best score of each entry that is done, in the order in which they came."""
    histories: dict[Track, list[float]] = {}
    for entry in (evaluation.entry for evaluation in evaluations if evaluation.entry.id in rows):
        histories.setdefault(entry.track, []).append(max(row.score for row in rows[entry.id]))
    return histories


# The plot


def axis(lowest: float, highest: float) -> Axis:
    """Return an axis that holds two values between marks at 1, 2 or 5 times a power of ten, three to seven of them."""
    if highest <= lowest:
        highest = lowest + (abs(lowest) or 1)
    raw = (highest - lowest) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(lowest / step + 1e-9), math.ceil(highest / step - 1e-9)
    ticks = [round(place * step, 10) for place in range(first, last + 1)]
    return Axis(ticks[0], ticks[-1], ticks)


def plot(standing: Standing) -> Plot:
    """Return all rows of a track on the two axes: accuracy up, tokens a question or requests served to the right."""
    servers = standing.track == "servers"

    def across(row: Row) -> float:
        return row.run.served if servers else row.run.tokens

    x = axis(0.0, max(map(across, standing.rows)))
    y = axis(
        max(0.0, min(row.accuracy - row.accuracy_error for row in standing.rows)),
        min(1.0, max(row.accuracy + row.accuracy_error for row in standing.rows)),
    )

    def up(value: float) -> float:
        return HEIGHT * (1 - y.share(value))

    dots = [
        Dot(
            row,
            WIDTH * x.share(across(row)),
            up(row.accuracy),
            up(row.accuracy + row.accuracy_error),
            up(row.accuracy - row.accuracy_error),
            _hint(row),
        )
        for row in standing.rows
    ]
    corners: list[tuple[float, float]] = []
    for row in sorted((row for row in standing.rows if row.on_front), key=across):
        place = (WIDTH * x.share(across(row)), up(row.accuracy))
        if corners:  # between two steps lies the corner that neither of them reaches
            corners.append((corners[-1][0], place[1]) if servers else (place[0], corners[-1][1]))
        else:
            corners.append((place[0] if not servers else 0.0, HEIGHT if not servers else place[1]))
        corners.append(place)
    if corners:
        corners.append((corners[-1][0], HEIGHT) if servers else (WIDTH, corners[-1][1]))
    label = "requests served in the window" if servers else "tokens a question, the prompt's included"
    return Plot(x, y, _labelled(dots), corners, label)


def _hint(row: Row) -> list[str]:
    what = f"{row.run.served} of {row.run.requests} requests" if row.entry.track == "servers" else row.run.variant
    place = [f"place {row.place}"] if row.place is not None else [row.entry.role]
    return [
        label_of(row),
        f"{percent(row.accuracy)} ± {percent(row.accuracy_error)} %, {row.run.tokens:,.0f} tokens",
        ", ".join([what, *place, *(["on the front"] if row.on_front else [])]),
    ]


def _labelled(dots: Sequence[Dot]) -> list[Dot]:
    """Return the dots with names at those on the front, baselines and ceilings, where they cover no name and no dot."""
    taken = [(dot.x - 5, dot.x + 5, dot.y) for dot in dots]
    named: set[tuple[str, float, float]] = set()
    done = []
    for dot in sorted(dots, key=lambda dot: (dot.y, dot.x)):
        text = label_of(dot.row)
        wanted = dot.row.on_front or dot.row.entry.role != "student"
        if wanted and (text, dot.x, dot.y) not in named:  # one name for one system under two budgets at one place
            begin, end = _span(dot.x, text)
            around = [dot.y + sign * LABEL_HEIGHT * step for step in (0, 1) for sign in (-1, 1)]
            free = (
                height
                for height in around
                if 0 < height < HEIGHT - 4
                and all(right < begin or left > end or abs(y - height) >= LABEL_HEIGHT for left, right, y in taken)
            )
            height = next(free, None)
            if height is not None:
                taken.append((begin, end, height))
                named.add((text, dot.x, dot.y))
                dot = dot._replace(label=text, label_y=height)
        done.append(dot)
    return done


def _span(x: float, text: str) -> tuple[float, float]:
    """Return from where to where a label beside a dot reaches: to the right, or to the left where it would not fit."""
    width = CHARACTER_WIDTH * len(text)
    return (x + 8, x + 8 + width) if x + 8 + width <= WIDTH else (x - 8 - width, x - 8)


# Tables for other programs


def board_table(board: Board, names: Names) -> pandas.DataFrame:
    """Return a row per row of the board; scores are from 0 to 1, latencies in seconds."""
    return pandas.DataFrame(
        [
            {
                "track": standing.track,
                "place": row.place,
                "entry": row.entry.id,
                "entrant": spreadsheet_text(names.of(row.entry)),
                "role": row.entry.role,
                "title": spreadsheet_text(row.entry.title),
                "variant": spreadsheet_text(row.run.variant),
                "received": row.entry.received.isoformat(),
                **{column.name: _rounded(column.value(row)) for column in columns(standing.track)},
                **{
                    f"{column.name}_error": _rounded(column.error(row))
                    for column in columns(standing.track)
                    if column.error is not None
                },
                "requests": row.run.requests,
                "on_front": row.on_front,
                "kit": row.run.kit,
                "model": spreadsheet_text(row.run.model),
                "data": row.run.data,
            }
            for standing in board.standings
            for row in standing.rows
        ]
    ).convert_dtypes()


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def gradescope_leaderboard(board: Board, student: str, track: Track) -> list[dict[str, Any]]:
    """Return the field `leaderboard` of Gradescope's results.json: a student's best row of a track; empty without one.

    Everybody in the course sees it there, so make it of the public split.
    """
    for standing in board.standings:
        for row in standing.rows:
            if (standing.track, row.entry.student, row.entry.role) == (track, student, "student"):
                return [{"name": "Place", "value": row.place, "order": "asc"}] + [
                    {
                        "name": column.label,
                        "value": _rounded(column.value(row)),
                        "order": "asc" if column.less_is_better else "desc",
                    }
                    for column in columns(track)
                ]
    return []
