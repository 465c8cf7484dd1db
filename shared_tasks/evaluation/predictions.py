"""Scoring outputs that exist already: a file whose lines are a data set's, each with its output or outputs."""

from pathlib import Path
from typing import Any

import msgspec

from shared_tasks.evaluation.judge import judge_outputs
from shared_tasks.evaluation.report import summarise
from shared_tasks.metrics.judging import Judge
from shared_tasks.tasks.loading import to_item
from shared_tasks.tasks.open_ended import OpenEnded
from shared_tasks.tasks.reading import DataError, Row, as_schema, read_file
from shared_tasks.tasks.task import Metric, Output, Scored, Task


class Outputs(msgspec.Struct):
    """What a line adds to the fields of the data set: one output, or several samples."""

    output: str | None = None
    outputs: list[str] | None = None


class ScoredRow(msgspec.Struct, kw_only=True):
    """What one line is worth."""

    index: int
    parsed: str | list[str | None] | None
    """The answer read off the output, or a list of them for several."""
    score: float | None
    correct: list[bool]
    values: dict[str, float]
    details: dict[str, Any]


def score_file(task: Task[Any], path: Path, judge: Judge | None = None) -> tuple[dict[str, Metric], list[ScoredRow]]:
    """Score a file of outputs; raises DataError, with file and line, for what cannot be scored.

    All lines are checked before the first one is scored. For a conversation, `outputs` are the answers to its turns.
    """
    rows = read_file(path)
    items = [to_item(task, row) for row in rows]
    given = [as_schema(row, Outputs) for row in rows]
    texts = [_texts(outputs, row.place) for outputs, row in zip(given, rows, strict=True)]
    scores = [_score(task, *one) for one in zip(items, texts, rows, strict=True)]
    if judge is not None and isinstance(task, OpenEnded):
        judge_outputs(judge, task, items, texts, scores)
    shown = [_row(index, score, given[index].outputs is None) for index, score in enumerate(scores)]
    return summarise(task, items, texts, scores), shown


def _score(task: Task[Any], item: Any, texts: list[str], row: Row) -> Scored:
    try:
        return task.score(item, [Output(text) for text in texts])
    except ValueError as error:
        raise DataError(f"{row.place}: {error}") from None


def _texts(given: Outputs, place: str) -> list[str]:
    if (given.output is None) == (given.outputs is None):
        raise DataError(f"{place}: expected either the field output or the field outputs")
    if given.outputs == []:
        raise DataError(f"{place}: field outputs: expected at least one output, got an empty list")
    return [given.output] if given.output is not None else given.outputs or []


def _row(index: int, score: Scored, single: bool) -> ScoredRow:
    return ScoredRow(
        index=index,
        parsed=(score.parsed[0] if score.parsed else None) if single else score.parsed,
        score=score.score,
        correct=score.correct,
        values=score.values,
        details=score.details,
    )
