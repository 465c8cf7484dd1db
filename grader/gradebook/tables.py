"""Reading the CSVs of a term: each number with the place it comes from, each flaw as one line."""

import csv
import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from grader.assignment import UnusableInput

ROSTER_COLUMNS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
NO_STUDENTS = {"", "Points Possible", "Student, Test"}  # rows of Canvas that are about nobody
EXCUSED = {"EX", "EXCUSED"}

Complain = Callable[[str], None]  # takes one clear line about something in the term's files


class Student(NamedTuple):
    """A row of the roster."""

    login: str  # the name that zips and CSVs know the student by
    name: str
    canvas_id: str
    sis_user_id: str
    section: str


class Row(NamedTuple):
    """A row of a CSV, and where it stands."""

    file: str
    line: int
    cells: dict[str, str]

    @property
    def place(self) -> str:
        """Where the row stands, as editors and compilers write it."""
        return f"{self.file}:{self.line}"


class Score(NamedTuple):
    """Points, and where they come from; None when the student is excused."""

    points: Fraction | None
    maximum: Fraction
    source: str


def exact(number: float) -> Fraction:
    """Return the number that was written in decimal: 0.05 is a twentieth."""
    return Fraction(str(number))


def read_rows(folder: Path, file: str, columns: Collection[str]) -> list[Row]:
    """Return the rows of a CSV.

    Raises UnusableInput when it cannot be read, when a column is missing or there twice, and for a row with more cells
    than there are columns: points would be read from the wrong ones.
    """
    try:
        with (folder / file).open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, restval="")
            missing = [column for column in columns if column not in (reader.fieldnames or [])]
            if missing:
                there = ", ".join(reader.fieldnames or []) or "none"
                raise UnusableInput(f"{file}: expected a column {missing[0]!r}; the columns are: {there}")
            twice = [name for name, count in Counter(filter(None, reader.fieldnames or [])).items() if count > 1]
            if twice:
                raise UnusableInput(f"{file}: two columns are called {twice[0]!r}")
            rows = []
            for cells in reader:
                if any(cells.pop(None, [])):
                    raise UnusableInput(
                        f"{file}:{reader.line_num}: more cells than columns; is there a comma in a number?"
                    )
                rows.append(Row(file, reader.line_num, {column: text.strip() for column, text in cells.items()}))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableInput(f"{file}: {error}") from error


def read_roster(folder: Path, file: str, complain: Complain) -> list[Student]:
    """Return the students in the order of the roster, which is a gradebook export of Canvas.

    Raises UnusableInput when it cannot be read or nobody is on it.
    """
    students: dict[str, Student] = {}
    for row in read_rows(folder, file, ROSTER_COLUMNS):
        name, canvas_id, sis_user_id, login, section = (row.cells[column] for column in ROSTER_COLUMNS)
        login = student_key(login)
        if name in NO_STUDENTS:
            continue
        if not login:
            complain(f"{row.place}: {name} has no SIS Login ID; left out")
        elif login in students:
            complain(f"{row.place}: a second row for {login}; the first one counts")
        else:
            students[login] = Student(login, name, canvas_id, sis_user_id, section)
    if not students:
        raise UnusableInput(f"{file}: nobody is on the roster")
    return list(students.values())


def student_key(text: str) -> str:
    """Return a name as it is compared: composed letters, and without the quote that keeps a formula from running."""
    return unicodedata.normalize("NFC", re.sub(r"^'(?=\s*[=+\-@])", "", text.strip()))


def by_student(rows: Iterable[Row], logins: Collection[str], complain: Complain) -> dict[str, Row]:
    """Return the row of each student; what is not on the roster, or there twice, is complained of."""
    found: dict[str, Row] = {}
    for row in rows:
        login = student_key(row.cells["name"])
        if login not in logins:
            near = difflib.get_close_matches(login, logins, n=1)
            complain(f"{row.place}: {login!r} is not on the roster" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif login in found:
            complain(f"{row.place}: a second row for {login}; the one in line {found[login].line} counts")
        else:
            found[login] = row
    return found


def read_score(row: Row, column: str, maximum: Fraction, complain: Complain, may_be_excused: bool = False) -> Score:
    """Return the points in a cell; an empty one has none, one above the maximum has the maximum."""
    text = row.cells[column]
    source = f"{row.place}, {column}"
    if may_be_excused and text.upper() in EXCUSED:
        return Score(None, maximum, source)
    if not text:
        return Score(Fraction(0), maximum, f"{source}: empty")
    is_number = re.fullmatch(r"\d{1,9}(\.\d{0,20})?|\.\d{1,20}", text)
    points = Fraction(text) if is_number else Fraction(0)
    if is_number and points <= maximum:
        return Score(points, maximum, source)
    counted = min(points, maximum)
    line = f"expected points from 0 to {float(maximum):g}, got {text!r}; counted as {float(counted):g}"
    complain(f"{row.place}: {row.cells['name']}, {column}: {line}")
    return Score(counted, maximum, f"{source}: {text!r}")


def read_time(row: Row, column: str, complain: Complain) -> datetime | None:
    """Return the time in a cell, in UTC unless it says otherwise, or None with a complaint."""
    try:
        time = datetime.fromisoformat(row.cells[column])
    except ValueError:
        complain(f"{row.place}: expected an ISO 8601 time in {column}, got {row.cells[column]!r}; left out")
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
