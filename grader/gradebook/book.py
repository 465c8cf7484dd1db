"""The book: for each student on the roster every number that the total is made of, with its source."""

import difflib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import msgspec

from grader.assignment import LatePolicy, UnusableInput, load_assignment
from grader.gradebook import totals
from grader.gradebook.tables import (
    Complain,
    Row,
    Score,
    Student,
    by_student,
    exact,
    read_roster,
    read_rows,
    read_score,
    read_time,
    student_key,
)
from grader.gradebook.term import Batch, Homework, Part, Quizzes, Term, load_term

ZERO = Fraction(0)


class Line(NamedTuple):
    """A number, or a fact that led to one; those that count add up to the points and the maximum of their group."""

    what: str
    source: str
    points: Fraction | None = None
    maximum: Fraction | None = None
    counts: bool = True


class Group(NamedTuple):
    """A share of the total: the quizzes, a homework, the project."""

    title: str
    weight: Fraction
    lines: list[Line]

    @property
    def points(self) -> Fraction:
        """The points that count."""
        return sum((line.points for line in self.lines if line.counts and line.points is not None), ZERO)

    @property
    def maximum(self) -> Fraction:
        """The points that could have counted; 0 when the student is excused from all of it."""
        return sum((line.maximum for line in self.lines if line.counts and line.maximum is not None), ZERO)

    @property
    def share(self) -> Fraction:
        """Points as a share of the maximum."""
        return self.points / self.maximum if self.maximum else ZERO


class Grade(NamedTuple):
    """What one student earned."""

    student: Student
    groups: list[Group]
    quizzes: list[Score]
    free_days: int  # spent
    letter: str

    @property
    def weights(self) -> Fraction:
        """The weights that count for this student."""
        return sum((group.weight for group in self.groups if group.maximum), ZERO)

    @property
    def total(self) -> Fraction:
        """The total out of 100, exact."""
        return sum((self.worth(group) for group in self.groups), ZERO)

    def worth(self, group: Group) -> Fraction:
        """Return how much of the total a group brings."""
        return group.share * self.most(group)

    def most(self, group: Group) -> Fraction:
        """Return how much of the total a group could bring; nothing where the student is excused from it."""
        return group.weight * 100 / self.weights if group.maximum else ZERO


class Book(NamedTuple):
    """The grades of a term in the order of the roster, and what is wrong with its files, a line each."""

    term: Term
    quiz_titles: list[str]
    grades: list[Grade]
    complaints: list[str]

    def of(self, login: str) -> Grade:
        """Return the grade of a student. Raises UnusableInput when there is none of that name."""
        grades = {grade.student.login: grade for grade in self.grades}
        login = student_key(login)
        if login not in grades:
            near = difflib.get_close_matches(login, grades, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ": expected a SIS Login ID"
            raise UnusableInput(f"{login!r} is not on the roster{hint}")
        return grades[login]


def make_book(path: Path) -> Book:
    """Return the book of a term. Raises UnusableInput when its file, or a file that it names, cannot be used."""
    term = load_term(path)
    folder = path.parent
    complaints: list[str] = []
    complain = complaints.append
    students = read_roster(folder, term.roster, complain)
    logins = [student.login for student in students]
    quizzes = _QuizScores(folder, term.quizzes, logins, complain)
    extensions = _read_extensions(folder, term, logins, complain)
    homeworks = [_Submissions(folder, term, homework, logins, extensions, complain) for homework in term.homeworks]
    project = (
        [] if term.project is None else [_read_part(folder, part, logins, complain) for part in term.project.parts]
    )
    letters = {letter: exact(lowest) for letter, lowest in term.letters.items()}
    weights = [exact(homework.weight) for homework in term.homeworks]
    grades = []
    for student in students:
        login = student.login
        spent = totals.best_spending([homework.ways(login) for homework in homeworks], weights, term.free_days)
        groups = [] if term.quizzes is None else [quizzes.group(login, term.quizzes)]
        groups += [homework.group(login, way) for homework, way in zip(homeworks, spent, strict=True)]
        if term.project is not None:
            lines = [_part_line(part, scores[login]) for part, scores in zip(term.project.parts, project, strict=True)]
            groups.append(Group(term.project.title, exact(term.project.weight), lines))
        free_days = sum(way.free_days for way in spent)
        grade = Grade(student, groups, quizzes.of(login), free_days, letter="")
        grades.append(grade._replace(letter=totals.letter_of(grade.total, letters)))
    return Book(term, quizzes.titles, grades, list(dict.fromkeys(complaints)))


class _QuizScores:
    """The quizzes of everybody: a column each, in the order of the file."""

    def __init__(self, folder: Path, quizzes: Quizzes | None, logins: Sequence[str], complain: Complain):
        self.titles: list[str] = []
        self._scores: dict[str, list[Score]] = {login: [] for login in logins}
        if quizzes is None:
            return
        rows = read_rows(folder, quizzes.file, ["name"])
        self.titles = [column for column in rows[0].cells if column != "name"] if rows else []
        if not rows:
            complain(f"{quizzes.file}: there are no rows; quizzes are left out of the total")
        found = by_student(rows, logins, complain)
        maximum = exact(quizzes.points)
        for login in logins:
            self._scores[login] = [
                read_score(found[login], title, maximum, complain, may_be_excused=True)
                if login in found
                else Score(ZERO, maximum, f"no row in {quizzes.file}")
                for title in self.titles
            ]

    def of(self, login: str) -> list[Score]:
        return self._scores[login]

    def group(self, login: str, quizzes: Quizzes) -> Group:
        scores = self._scores[login]
        kept = totals.kept_quizzes(
            [None if score.points is None else score.points for score in scores], quizzes.dropped
        )
        lines = []
        for position, (title, score) in enumerate(zip(self.titles, scores, strict=True)):
            fate = "" if position in kept else ", excused" if score.points is None else ", dropped"
            lines.append(Line(short(title) + fate, score.source, score.points, score.maximum, counts=position in kept))
        return Group("Quizzes", exact(quizzes.weight), lines)


class _Attempt(NamedTuple):
    """One submission of a student."""

    code: Score
    refusal: str
    received: datetime | None
    source: str  # of the time
    days_late: int


class _Submissions:
    """A homework of everybody: what was handed in and when, and the parts that come from CSVs."""

    def __init__(
        self,
        folder: Path,
        term: Term,
        homework: Homework,
        logins: Sequence[str],
        extensions: dict[tuple[str, str], tuple[datetime, str]],
        complain: Complain,
    ):
        assignment = load_assignment(homework.assignment)
        self._homework = homework
        self._free_days = term.free_days
        self._maximum = exact(assignment.max_points)
        self._policies: dict[str, tuple[LatePolicy, str]] = {}
        for login in logins:
            policy, source = assignment.late, f"{assignment.name}.toml"
            if (login, assignment.name) in extensions:
                until, source = extensions[login, assignment.name]
                if until >= policy.deadline:
                    policy = msgspec.structs.replace(policy, deadline=until)
                else:
                    complain(f"{source}: the extension of {login} ends before the deadline; left out")
            self._policies[login] = policy, source
        self._attempts: dict[str, list[_Attempt]] = {login: [] for login in logins}
        for batch in homework.submissions:
            self._read(folder, batch, logins, complain)
        self._parts = [_read_part(folder, part, logins, complain) for part in homework.parts]
        for part, scores in zip(homework.parts, self._parts, strict=True):
            for login in logins:
                if self._attempts[login] and scores[login].source.startswith("no row"):
                    complain(f"{part.file}: no row for {login}, who handed in {short(homework.title)}; counted as 0")
        if term.counted_submission == "last":
            self._attempts = {login: self._last(login) for login in logins}

    def _read(self, folder: Path, batch: Batch, logins: Sequence[str], complain: Complain) -> None:
        rows = read_rows(folder, batch.graded, ["name", "earned", "max_points", "refusal"])
        graded = by_student(rows, logins, complain)
        received = by_student(read_rows(folder, batch.received, ["name", "received"]), logins, complain)
        others = {row.cells["max_points"] for row in rows} - {
            f"{float(self._maximum):.1f}",
            f"{float(self._maximum):g}",
        }
        if others:
            now = f"{self._homework.assignment} has {float(self._maximum):g} points now"
            complain(f"{batch.graded}: graded out of {', '.join(sorted(others))}, but {now}; grade it again")
        for login in logins:
            if login in graded:
                row, receipt = graded[login], received.get(login)
                code = read_score(row, "earned", self._maximum, complain)
                time = read_time(receipt, "received", complain) if receipt else None
                if receipt is None:
                    complain(f"{row.place}: no time for {login} in {batch.received}; counted as in time")
                days = self._policies[login][0].days_late(time) if time else 0
                source = receipt.place if receipt else f"no row in {batch.received}"
                self._attempts[login].append(_Attempt(code, row.cells["refusal"], time, source, days))
            elif login in received:
                complain(f"{received[login].place}: {login} has handed in, but has no row in {batch.graded}")

    def _last(self, login: str) -> list[_Attempt]:
        """Return the last submission that came early enough to be accepted, or else the last one."""
        policy, _ = self._policies[login]
        attempts = sorted(self._attempts[login], key=lambda attempt: attempt.received or policy.deadline)
        accepted = [attempt for attempt in attempts if attempt.days_late <= policy.accepted_days]
        return (accepted or attempts)[-1:]

    def _full(self, login: str, attempt: _Attempt | None) -> tuple[Fraction, Fraction]:
        """Return points before the deduction, and the most there are."""
        scores = [parts[login] for parts in self._parts]
        code = attempt.code.points if attempt else None
        points = sum((score.points or ZERO for score in scores), code or ZERO)
        return points, sum((score.maximum for score in scores), self._maximum)

    def ways(self, login: str) -> list[totals.Spending]:
        """Return the ways to count this homework of a student; one at least."""
        submissions = []
        for attempt in self._attempts[login]:
            points, maximum = self._full(login, attempt)
            submissions.append((points / maximum, attempt.days_late))
        points, maximum = self._full(login, None)
        ways = totals.ways_to_count(self._policies[login][0], submissions, self._free_days)
        return ways or [totals.Spending(None, 0, points / maximum)]

    def group(self, login: str, way: totals.Spending) -> Group:
        """Return the numbers of this homework of a student, counted in the given way."""
        policy, policy_source = self._policies[login]
        lines = []
        for number, attempt in enumerate(self._attempts[login]):
            counts = number == way.submission
            which = "Code" if len(self._attempts[login]) == 1 else f"Code, submission {number + 1}"
            refused = f": refused, {attempt.refusal}" if attempt.refusal else ""
            unused = "" if counts else ", does not count"
            lines.append(
                Line(which + unused + refused, attempt.code.source, attempt.code.points, self._maximum, counts)
            )
            late = f"{_days(attempt.days_late)} late" if attempt.days_late else "in time"
            lines.append(Line(f"{_time(attempt.received)}, {late}", attempt.source, counts=counts))
        if not lines:
            lines.append(Line("Code: nothing handed in", self._homework.submissions[0].graded, ZERO, self._maximum))
        parts = zip(self._homework.parts, self._parts, strict=True)
        lines += [_part_line(part, scores[login]) for part, scores in parts]
        if way.submission is not None and self._attempts[login][way.submission].days_late:
            attempt = self._attempts[login][way.submission]
            points, _ = self._full(login, attempt)
            left = totals.late_factor(policy, attempt.days_late, way.free_days)
            free = f", {_days(way.free_days)} of them free" if way.free_days else ""
            deadline = f"due {_time(policy.deadline)}"
            what = f"{deadline}: {_days(attempt.days_late)} late{free}; {float(100 * (1 - left)):g} % off"
            lines.append(Line(what, policy_source, points * (left - 1)))
        return Group(self._homework.title, exact(self._homework.weight), lines)


def _read_part(folder: Path, part: Part, logins: Sequence[str], complain: Complain) -> dict[str, Score]:
    found = by_student(read_rows(folder, part.file, ["name", part.column]), logins, complain)
    maximum = exact(part.points)
    return {
        login: read_score(found[login], part.column, maximum, complain)
        if login in found
        else Score(ZERO, maximum, f"no row in {part.file}")
        for login in logins
    }


def _part_line(part: Part, score: Score) -> Line:
    return Line(part.title, score.source, score.points, score.maximum)


def _read_extensions(
    folder: Path, term: Term, logins: Sequence[str], complain: Complain
) -> dict[tuple[str, str], tuple[datetime, str]]:
    """Return the deadline, and where it stands, of each student and assignment that has one of its own."""
    extensions: dict[tuple[str, str], tuple[datetime, str]] = {}
    if term.extensions is None:
        return extensions
    by_assignment: dict[str, list[Row]] = {homework.assignment: [] for homework in term.homeworks}
    for row in read_rows(folder, term.extensions, ["name", "assignment", "deadline"]):
        assignment = row.cells["assignment"]
        if assignment in by_assignment:
            by_assignment[assignment].append(row)
        else:
            complain(f"{row.place}: {assignment!r} is no homework of this term; there are: {', '.join(by_assignment)}")
    for assignment, rows in by_assignment.items():
        for login, row in by_student(rows, logins, complain).items():
            until = read_time(row, "deadline", complain)
            if until is not None:
                extensions[login, assignment] = until, row.place
    return extensions


def short(title: str) -> str:
    """Return a title without Canvas's id."""
    return re.sub(r" \(\d+\)$", "", title)


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _time(time: datetime | None) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if time else "time unknown"
