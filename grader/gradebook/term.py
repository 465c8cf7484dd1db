"""A term: one TOML file that says what is graded, where its points lie, and what they weigh."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from grader.assignment import UnusableInput

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]


class Part(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Points that stand in a column of a CSV, beside the column `name`: given by hand, or by another command."""

    title: str
    file: str
    column: str
    points: Positive  # the most there are


class Quizzes(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Quizzes, a column each of one CSV; they count alike."""

    weight: Positive
    file: str
    points: Positive  # of each quiz
    dropped: Count  # of a student's quizzes, the lowest


class Batch(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Submissions that were graded together, at most one of each student."""

    graded: str  # results.csv, as `grader grade` writes it
    received: str  # CSV with columns name, received: the learning platform's times


class Homework(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A homework: code that `grader grade` graded, and parts that come from CSVs, handed in together."""

    assignment: str  # the deadline, and what a day costs, stand in its file
    title: str
    weight: Positive
    submissions: Annotated[list[Batch], Meta(min_length=1)]  # more than one where students may hand in again
    parts: list[Part] = []


class Project(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The final project; all of its points come from CSVs."""

    title: str
    weight: Positive
    parts: Annotated[list[Part], Meta(min_length=1)]


class Term(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What makes the total; weights are relative, so that a term that has just begun lists what there is.

    Titles are as Canvas has them. One that ends in Canvas's id, "Homework 1 (12346)", meets that assignment when the
    CSV is imported.
    """

    title: str
    roster: str  # as Canvas exports it; SIS Login ID is the name of a student's zips
    free_days: Count  # late days of a term that cost nothing
    counted_submission: Literal["best", "last"]
    letters: Annotated[dict[str, float], Meta(min_length=1)]  # letter -> the lowest total that earns it
    quizzes: Quizzes | None = None
    homeworks: list[Homework] = []
    project: Project | None = None
    extensions: str | None = None  # CSV with columns name, assignment, deadline


def load_term(path: Path) -> Term:
    """Read a term's file. Raises UnusableInput when there is none or it is wrong."""
    try:
        term = msgspec.toml.decode(path.read_bytes(), type=Term)
    except (OSError, msgspec.DecodeError) as error:
        raise UnusableInput(f"{path}: {error}") from error
    if min(term.letters.values()) != 0:
        raise UnusableInput(f"{path}: expected a letter that is earned from 0 on, got {term.letters}")
    if not (term.quizzes or term.homeworks or term.project):
        raise UnusableInput(f"{path}: expected quizzes, homeworks or a project, got none of them")
    assignments = [homework.assignment for homework in term.homeworks]
    if len(set(assignments)) < len(assignments):
        raise UnusableInput(f"{path}: expected each assignment once, got {', '.join(assignments)}")
    titles = [homework.title for homework in term.homeworks]
    if len(set(titles)) < len(titles):
        raise UnusableInput(f"{path}: expected a title for each homework, got {', '.join(titles)}")
    return term
