"""What comes out of a book: Canvas's CSV, a plain one, a page for the staff, and one student's grade in words."""

from collections import Counter
from fractions import Fraction
from statistics import mean, median
from typing import Any

import pandas

from grader.gradebook.book import Book, Grade, Group, short
from grader.gradebook.tables import ROSTER_COLUMNS, Score
from grader.gradebook.totals import rounded
from grader.reports import render_page, spreadsheet_text, visible_text

READ_ONLY = "(read only)"  # as Canvas marks columns of its own; it takes no notice of them when it imports


def canvas_table(book: Book) -> pandas.DataFrame:
    """Return what Canvas imports as a gradebook: below the header the points possible, then a row a student."""
    project = [book.term.project.title] if book.term.project else []
    titles = [*book.quiz_titles, *(homework.title for homework in book.term.homeworks), *project]
    columns = [*ROSTER_COLUMNS, *titles, "Final Score", "Final Grade"]
    first = book.grades[0]
    maxima = [*(score.maximum for score in first.quizzes), *(group.maximum for group in _beside_quizzes(book, first))]
    rows: list[list[Any]] = [["    Points Possible", "", "", "", "", *map(_decimal, maxima), READ_ONLY, READ_ONLY]]
    for grade in book.grades:
        student = grade.student
        who = (student.name, student.canvas_id, student.sis_user_id, student.login, student.section)
        points = [*map(_canvas_score, grade.quizzes), *(_decimal(g.points) for g in _beside_quizzes(book, grade))]
        rows.append([*map(spreadsheet_text, who), *points, _decimal(rounded(grade.total)), grade.letter])
    return pandas.DataFrame(rows, columns=[spreadsheet_text(column) for column in columns], dtype=object)


def plain_table(book: Book) -> pandas.DataFrame:
    """Return a row a student: what each part brings to the total, free days spent, total and letter."""
    rows = []
    for grade in book.grades:
        brought = {spreadsheet_text(short(group.title)): _decimal(grade.worth(group)) for group in grade.groups}
        rows.append(
            {
                "name": spreadsheet_text(grade.student.login),
                "student": spreadsheet_text(grade.student.name),
                "section": spreadsheet_text(grade.student.section),
                **brought,
                "free_days": grade.free_days,
                "total": _decimal(rounded(grade.total)),
                "letter": spreadsheet_text(grade.letter),
            }
        )
    return pandas.DataFrame(rows)


def book_page(book: Book, generated: str) -> str:
    """Return the page for the staff: the class, every student's numbers, and what is wrong with the files."""
    grades = sorted(book.grades, key=lambda grade: (grade.student.name.casefold(), grade.student.login))
    total = [float(rounded(grade.total)) for grade in grades]
    tenths = Counter(min(9, int(value // 10)) for value in total)
    letters = Counter(grade.letter for grade in grades)
    return render_page(
        "gradebook.html.jinja",
        book=book,
        grades=grades,
        generated=generated,
        statistics={"mean": mean(total), "median": median(total), "lowest": min(total), "highest": max(total)},
        histogram=[tenths[tenth] for tenth in range(10)],
        letters={letter: letters[letter] for letter in book.term.letters},
        rounded=rounded,
        short=short,
        precise=precise,
    )


def explanation(grade: Grade) -> str:
    """Return every number of a grade with its source, as text; what does not count stands in parentheses."""
    student = grade.student
    rows = [("", "points", "of", "source")]
    for group in grade.groups:
        sums = f"{precise(group.points)} of {precise(group.maximum)}" if group.maximum else "excused"
        rows.append(("", "", "", ""))
        rows.append((short(group.title), precise(grade.worth(group)), precise(grade.most(group)), sums))
        for line in group.lines:
            points, maximum = ("" if value is None else precise(value) for value in (line.points, line.maximum))
            if not line.counts:
                points, maximum = (f"({text})" if text else "" for text in (points, maximum))
            rows.append((f"  {line.what}", points, maximum, line.source))
    rows += [
        ("", "", "", ""),
        ("Total", precise(grade.total), "100", f"{precise(rounded(grade.total))}: {grade.letter}"),
    ]
    clean = [tuple(visible_text(text).replace("\n", " ") for text in row) for row in rows]
    widths = [max(len(row[column]) for row in clean) for column in range(3)]
    table = [
        f"{what:<{widths[0]}}  {points:>{widths[1]}}  {maximum:>{widths[2]}}  {source}".rstrip()
        for what, points, maximum, source in clean
    ]
    who = visible_text(f"{student.name} ({student.login})").replace("\n", " ")
    return "\n".join([who, f"free late days spent: {grade.free_days}", "", *table])


def precise(value: Fraction) -> str:
    """Return a number to four decimals, without zeros at its end."""
    return f"{float(value):.4f}".rstrip("0").rstrip(".")


def _beside_quizzes(book: Book, grade: Grade) -> list[Group]:
    return grade.groups[1:] if book.term.quizzes else grade.groups


def _canvas_score(score: Score) -> float | str:
    return "EX" if score.points is None else _decimal(score.points)


def _decimal(value: Fraction) -> float:
    return round(float(value), 4)
