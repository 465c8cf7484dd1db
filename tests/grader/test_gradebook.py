"""What students earned in a term, to the exact fraction, whatever is wrong with the files."""

import csv
import json
import os
import random
import re
import subprocess
import sys
import zipfile
from datetime import timedelta
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from grader.assignment import UnusableInput, load_assignment
from grader.cli import app
from grader.examples.term import ROSTER, write_term
from grader.gradebook.book import Book, make_book
from grader.gradebook.gradescope import autograder, main
from grader.gradebook.pages import explanation
from grader.gradebook.tables import read_rows
from grader.gradebook.totals import best_spending, kept_quizzes, late_factor, letter_of, rounded, ways_to_count
from grader.reports import results_table
from grader.results import SubmissionResult
from grader.sandbox import isolation

KIT = Path(__file__).parents[2]
POLICY = load_assignment("hw1").late  # 5 % a day, at most five days
LETTERS = {"A": Fraction(93), "B": Fraction(80), "F": Fraction(0)}

TERM = """\
title = "Small term"
roster = "roster.csv"
extensions = "extensions.csv"
free_days = 1
counted_submission = "best"
letters = { A = 93, C = 70, F = 0 }

[quizzes]
weight = 15
file = "quizzes.csv"
points = 10
dropped = 1

[[homeworks]]
assignment = "hw1"
title = "Homework 1 (77)"
weight = 60
submissions = [{ graded = "hw1.csv", received = "received.csv" }]
parts = [{ title = "Written answers", file = "answers.csv", column = "points", points = 30 }]

[project]
title = "Final project"
weight = 25
parts = [
    { title = "Load test", file = "project.csv", column = "load", points = 65 },
    { title = "Report", file = "project.csv", column = "report", points = 35 },
]
"""
FILES = {
    "term.toml": TERM,
    "roster.csv": "Student,ID,SIS User ID,SIS Login ID,Section\n    Points Possible,,,,\n"
    '"Lovelace, Ada",1,S1,ada,One\n"=cmd(), Bob",2,S2,bob,Two\n',
    "extensions.csv": "name,assignment,deadline\n",
    "quizzes.csv": "name,Quiz 1 (71),Quiz 2 (72),Quiz 3 (73),Quiz 4 (74)\nada,10,8,EX,\nbob,10,10,10,10\n",
    "received.csv": "name,received\nada,2026-10-18T12:00:00+00:00\nbob,2026-10-01T12:00:00+00:00\n",
    "answers.csv": "name,points\nada,20\nbob,30\n",
    "project.csv": "name,load,report\nada,50,30\nbob,65,35\n",
}
ADA = Fraction(15 * 18, 20) + Fraction(60 * 220, 280) * Fraction(95, 100) + Fraction(25 * 80, 100)


def graded(**earned: float) -> str:
    """Return results.csv as `grader grade` writes it."""
    results = [SubmissionResult(n, n, "hw1", "Homework 1", "", p, 250.0, p) for n, p in earned.items()]
    return results_table(results).to_csv(index=False)


@pytest.fixture
def term(tmp_path: Path) -> Path:
    """A term of two students: Ada, two days late, and Bob, who has all points."""
    for name, text in (FILES | {"hw1.csv": graded(ada=200, bob=250)}).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def totals(book: Book) -> dict[str, Fraction]:
    return {grade.student.login: grade.total for grade in book.grades}


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# The arithmetic


def test_excused_quizzes_go_before_the_lowest() -> None:
    """An excused quiz neither counts nor uses up one of those that are dropped, and one quiz is kept at least."""
    shares = [Fraction(5), None, Fraction(2), Fraction(9), Fraction(2)]
    assert kept_quizzes(shares, dropped=0) == {0, 2, 3, 4}
    assert kept_quizzes(shares, dropped=1) == {0, 3, 4}
    assert kept_quizzes(shares, dropped=2) == {0, 3}
    assert kept_quizzes(shares, dropped=9) == {3}
    assert kept_quizzes([None, None], dropped=3) == set()


def test_a_free_day_saves_its_deduction_and_accepts_nothing() -> None:
    """Five days late with two of them free leave 85 %; six days late leave nothing, free or not."""
    left = [late_factor(POLICY, days, 0) for days in range(7)]
    assert left == [Fraction(20 - days, 20) for days in range(6)] + [0]
    assert late_factor(POLICY, 5, 2) == Fraction(17, 20)
    assert late_factor(POLICY, 6, 3) == 0


def test_days_begun_count_from_the_second_after_the_deadline() -> None:
    """The deadline itself is in time, a second later is a day late, 24 hours and a second are two."""
    seconds = {0: 0, 1: 1, 86_400: 1, 86_401: 2, -5: 0}
    assert {s: POLICY.days_late(POLICY.deadline + timedelta(seconds=s)) for s in seconds} == seconds


def test_free_days_are_spent_where_a_day_is_worth_most() -> None:
    """The better homework gets them where weights are equal; a heavier one where weight times points is more."""
    weak, strong = ([(Fraction(2, 5), 3)], [(Fraction(9, 10), 3)])
    ways = [ways_to_count(POLICY, homework, 3) for homework in (weak, strong)]
    assert [way.free_days for way in best_spending(ways, [Fraction(20), Fraction(20)], 3)] == [0, 3]
    assert [way.free_days for way in best_spending(ways, [Fraction(50), Fraction(20)], 3)] == [3, 0]


def test_free_days_that_bring_nothing_are_kept() -> None:
    """Work that is too late, in time, or without points takes no free day."""
    homeworks = [[(Fraction(1), 6)], [(Fraction(1), 0)], [(Fraction(0), 2)], [(Fraction(1), 1)]]
    ways = [ways_to_count(POLICY, homework, 3) for homework in homeworks]
    assert [way.free_days for way in best_spending(ways, [Fraction(1)] * 4, 3)] == [0, 0, 0, 1]


def every_outcome(homeworks: list[list[tuple[Fraction, int]]], weights: list[Fraction], free_days: int) -> Fraction:
    """Return the best total over all submissions and all free days of each homework, by the rule's own words."""
    choices = [
        [(share, days, free) for share, days in homework for free in range(min(days, free_days) + 1)]
        for homework in homeworks
    ]
    return max(
        sum(
            (
                weight * share * (1 - Fraction(days - free, 20)) if days <= 5 else Fraction(0)
                for weight, (share, days, free) in zip(weights, chosen, strict=True)
            ),
            Fraction(0),
        )
        for chosen in product(*choices)
        if sum(free for _, _, free in chosen) <= free_days
    )


def test_spending_is_the_optimum() -> None:
    """In 300 terms drawn with a seed, submissions and free days chosen are worth what the best of all choices is."""
    drawn = random.Random(7)
    for _ in range(300):
        homeworks = [
            [(Fraction(drawn.randint(0, 20), 20), drawn.randint(0, 7)) for _ in range(drawn.randint(1, 3))]
            for _ in range(3)
        ]
        weights = [Fraction(drawn.randint(1, 60)) for _ in homeworks]
        free_days = drawn.randint(0, 4)
        ways = best_spending([ways_to_count(POLICY, own, free_days) for own in homeworks], weights, free_days)
        worth = sum((way.share * weight for way, weight in zip(ways, weights, strict=True)), Fraction(0))
        assert worth == every_outcome(homeworks, weights, free_days)
        assert sum(way.free_days for way in ways) <= free_days


def test_the_letter_goes_by_the_number_that_is_shown() -> None:
    """Totals are rounded to hundredths, halves up, once; a cut-off that is reached exactly is reached."""
    assert rounded(Fraction("92.995")) == 93
    assert [letter_of(Fraction(total), LETTERS) for total in ("92.995", "92.9949", "80", "0")] == ["A", "B", "B", "F"]


# A term


def test_the_total_by_hand(term: Path) -> None:
    """Ada: quizzes 10 and 8 of 20; (200 + 20) of 280 less 5 % for the second late day; 80 of 100; together 78.29."""
    book = make_book(term / "term.toml")
    assert book.complaints == []
    assert totals(book) == {"ada": ADA, "bob": Fraction(100)}
    assert float(rounded(ADA)) == 78.29
    assert [(grade.free_days, grade.letter) for grade in book.grades] == [(1, "C"), (0, "A")]


def test_an_extension_moves_the_deadline(term: Path) -> None:
    """With a deadline of her own Ada is in time, keeps her free day, and nobody else's total changes."""
    change(term / "extensions.csv", "deadline\n", "deadline\nada,hw1,2026-10-20T00:00:00+00:00\n")
    book = make_book(term / "term.toml")
    assert totals(book) == {"ada": ADA / 1 + Fraction(60 * 220, 280) * Fraction(5, 100), "bob": Fraction(100)}
    assert book.of("ada").free_days == 0


@pytest.mark.parametrize(("counted", "points"), [("best", 220 * Fraction(95, 100)), ("last", 140 * Fraction(90, 100))])
def test_several_submissions(term: Path, counted: str, points: Fraction) -> None:
    """The best submission may be the first; the last one is the last that is accepted, not the one that is too late."""
    change(term / "term.toml", '"best"', f'"{counted}"')
    others = "".join(f', {{ graded = "hw1-{n}.csv", received = "received-{n}.csv" }}' for n in (2, 3))
    change(term / "term.toml", 'received = "received.csv" }', f'received = "received.csv" }}{others}')
    for number, time, earned in ((2, "2026-10-19T12:00:00+00:00", 120.0), (3, "2026-10-29T12:00:00+00:00", 250.0)):
        (term / f"hw1-{number}.csv").write_text(graded(ada=earned))
        (term / f"received-{number}.csv").write_text(f"name,received\nada,{time}\n")
    book = make_book(term / "term.toml")
    assert book.complaints == []
    (homework,) = (group for group in book.of("ada").groups if group.title.startswith("Homework"))
    assert homework.points == points


def test_who_is_excused_from_every_quiz_is_graded_on_the_rest(term: Path) -> None:
    """Then the other weights make up the hundred."""
    change(term / "quizzes.csv", "ada,10,8,EX,", "ada,EX,EX,ex,excused")
    ada = make_book(term / "term.toml").of("ada")
    assert ada.total == (ADA - Fraction(15 * 18, 20)) * 100 / 85


def test_nothing_handed_in_is_nothing_earned(term: Path) -> None:
    """A student without a row anywhere has 0, a letter, and no complaint."""
    change(term / "roster.csv", '"=cmd(), Bob"', '"Curie, Marie",3,S3,marie,One\n"=cmd(), Bob"')
    book = make_book(term / "term.toml")
    assert (book.of("marie").total, book.of("marie").letter, book.complaints) == (0, "F", [])


@pytest.mark.parametrize(
    ("file", "old", "new", "line", "ada"),
    [
        ("quizzes.csv", "ada,", "eve,1,1,1,1\nada,", "quizzes.csv:2: 'eve' is not on the roster", ADA),
        ("quizzes.csv", "ada,", "bobb,1,1,1,1\nada,", "'bobb' is not on the roster; did you mean 'bob'?", ADA),
        ("hw1.csv", "ada,", "eve,9,250,9\nada,", "hw1.csv:2: 'eve' is not on the roster", ADA),
        ("answers.csv", "bob,30", "bob,30\nada,30", "answers.csv:4: a second row for ada; the one in line 2", ADA),
        ("roster.csv", '"=cmd', '"Else",9,S9,ada,One\n"=cmd', "roster.csv:4: a second row for ada", ADA),
        ("roster.csv", '"=cmd', '"Else",9,S9,,One\n"=cmd', "roster.csv:4: Else has no SIS Login ID", ADA),
        (
            "project.csv",
            "ada,50,30",
            "ada,50,300",
            "project.csv:2: ada, report: expected points from 0 to 35, got '300'; counted as 35",
            ADA + Fraction(25 * 5, 100),
        ),
        (
            "project.csv",
            "ada,50,30",
            "ada,50,-3",
            "project.csv:2: ada, report: expected points from 0 to 35, got '-3'; counted as 0",
            ADA - Fraction(25 * 30, 100),
        ),
        ("project.csv", "ada,50,30", "ada,50,nan", "got 'nan'; counted as 0", ADA - Fraction(25 * 30, 100)),
        ("project.csv", "ada,50,30", "ada,50,1e999999999", "counted as 0", ADA - Fraction(25 * 30, 100)),
        ("quizzes.csv", "ada,10,8", "ada,10,80", "got '80'; counted as 10", ADA + Fraction(15 * 2, 20)),
        (
            "received.csv",
            "ada,2026-10-18T12:00:00+00:00\n",
            "",
            "hw1.csv:2: no time for ada in received.csv; counted as in time",
            ADA + Fraction(60 * 220, 280) * Fraction(5, 100),
        ),
        (
            "received.csv",
            "2026-10-18T12:00:00+00:00",
            "yesterday",
            "received.csv:2: expected an ISO 8601 time in received, got 'yesterday'",
            ADA + Fraction(60 * 220, 280) * Fraction(5, 100),
        ),
        (
            "answers.csv",
            "ada,20\n",
            "",
            "answers.csv: no row for ada, who handed in Homework 1",
            ADA - Fraction(60 * 20, 280) * Fraction(95, 100),
        ),
        (
            "extensions.csv",
            "deadline\n",
            "deadline\nada,hw9,2026-11-01\n",
            "extensions.csv:2: 'hw9' is no homework",
            ADA,
        ),
        ("extensions.csv", "deadline\n", "deadline\nada,hw1,2026-09-01\n", "ends before the deadline; left out", ADA),
    ],
)
def test_a_flaw_is_one_line_and_stops_nothing_else(
    term: Path, file: str, old: str, new: str, line: str, ada: Fraction
) -> None:
    """Each flaw is one line on stderr and exit status 1; Bob's hundred stands, and all files are written."""
    change(term / file, old, new)
    outcome = run("gradebook", term / "term.toml", "--out", term / "out")
    assert outcome.exit_code == 1
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert line in outcome.stderr
    assert totals(make_book(term / "term.toml")) == {"ada": ada, "bob": Fraction(100)}
    assert {path.name for path in (term / "out").iterdir()} == {"canvas.csv", "gradebook.csv", "gradebook.html"}


def test_handed_in_but_not_graded(term: Path) -> None:
    """A receipt without a result is said, since the student would have 0 for it."""
    (term / "hw1.csv").write_text(graded(bob=250))
    assert make_book(term / "term.toml").complaints == ["received.csv:2: ada has handed in, but has no row in hw1.csv"]


def test_results_of_another_homework(term: Path) -> None:
    """Results out of another number of points are said once, not once a student."""
    text = (term / "hw1.csv").read_text()
    (term / "hw1.csv").write_text(text.replace(",250.0,", ",213.0,"))
    (complaint,) = make_book(term / "term.toml").complaints
    assert complaint == "hw1.csv: graded out of 213.0, but hw1 has 250 points now; grade it again"


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("term.toml", "free_days = 1", "free_days = -1", "free_days"),
        ("term.toml", "free_days = 1", "free_days = 1\nfree_weeks = 1", "free_weeks"),
        ("term.toml", "F = 0", "F = 10", "expected a letter that is earned from 0 on"),
        ("term.toml", 'assignment = "hw1"', 'assignment = "hw7"', "no assignment 'hw7'; there are: final_project, hw1"),
        ("term.toml", "quizzes.csv", "missing.csv", "missing.csv"),
        (
            "project.csv",
            "report",
            "paper",
            "project.csv: expected a column 'report'; the columns are: name, load, paper",
        ),
        ("roster.csv", "SIS Login ID", "Login", "roster.csv: expected a column 'SIS Login ID'"),
    ],
)
def test_a_term_that_cannot_be_read_is_one_line_and_exit_2(
    term: Path, file: str, old: str, new: str, words: str
) -> None:
    """What cannot be used at all is said in one line, and nothing is written."""
    change(term / file, old, new)
    outcome = run("gradebook", term / "term.toml", "--out", term / "out")
    assert (outcome.exit_code, len(outcome.stderr.strip().splitlines())) == (2, 1)
    assert words in outcome.stderr
    assert not (term / "out").exists()


# What comes out


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_canvas_columns(term: Path) -> None:
    """Header, points possible, ids as the roster has them, EX for excused, points after the late deduction."""
    assert run("gradebook", term / "term.toml", "--out", term / "out").exit_code == 0
    header, possible, ada, bob = rows(term / "out" / "canvas.csv")
    assert header == [
        *("Student", "ID", "SIS User ID", "SIS Login ID", "Section"),
        *("Quiz 1 (71)", "Quiz 2 (72)", "Quiz 3 (73)", "Quiz 4 (74)"),
        *("Homework 1 (77)", "Final project", "Final Score", "Final Grade"),
    ]
    assert possible[:5] == ["    Points Possible", "", "", "", ""]
    assert [float(cell) for cell in possible[5:11]] == [10, 10, 10, 10, 280, 100]
    assert possible[11:] == ["(read only)", "(read only)"]
    assert ada == [
        *("Lovelace, Ada", "1", "S1", "ada", "One", "10.0", "8.0", "EX", "0.0"),
        *("209.0", "80.0", "78.29", "C"),
    ]
    assert bob[:5] == ["'=cmd(), Bob", "2", "S2", "bob", "Two"]


def test_formulas_and_markup_stay_text(term: Path) -> None:
    """No cell of a CSV begins as a formula does, and a name with tags is shown, not run."""
    change(term / "roster.csv", '"=cmd(), Bob"', '"+1<script>alert(1)</script>"')
    change(term / "roster.csv", "Two", "@SUM(A1)")
    run("gradebook", term / "term.toml", "--out", term / "out")
    for name in ("canvas.csv", "gradebook.csv"):
        cells = [cell for row in rows(term / "out" / name) for cell in row]
        assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]
        assert "'+1<script>alert(1)</script>" in cells
    page = (term / "out" / "gradebook.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "+1&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page)  # self-contained


def test_neutralised_names_are_found_again(term: Path) -> None:
    """A login that results.csv had to quote is the same student."""
    for file in ("roster.csv", "quizzes.csv", "received.csv", "answers.csv", "project.csv"):
        change(term / file, "bob,", "=bob,")
    (term / "hw1.csv").write_text(graded(**{"ada": 200, "=bob": 250}))
    assert "'=bob" in (term / "hw1.csv").read_text()
    book = make_book(term / "term.toml")
    assert (book.complaints, totals(book)["=bob"]) == ([], 100)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_term(folder)
    return folder


def test_explanations_add_up(sample: Path) -> None:
    """For all thirty students: lines add up to their group's points, groups to the total, as exact and as printed."""
    book = make_book(sample / "term.toml")
    assert [grade.student.login for grade in book.grades] == list(ROSTER)
    for grade in book.grades:
        assert sum((grade.worth(group) for group in grade.groups), Fraction(0)) == grade.total
        brought, lines, expected, total = 0.0, 0.0, 0.0, None
        for text in explanation(grade).splitlines()[4:]:
            cells = re.split(r" {2,}", text.strip())
            number = float(cells[1]) if len(cells) > 2 and re.fullmatch(r"-?[\d.]+", cells[1]) else 0.0
            if text.startswith("Total"):
                total = number
            elif text.startswith("  "):
                lines += number
            elif text:
                assert lines == pytest.approx(expected, abs=1e-3)
                brought, lines, expected = brought + number, 0.0, float(cells[3].split()[0])
        assert lines == pytest.approx(expected, abs=1e-3)
        assert total == pytest.approx(brought, abs=1e-3)
        assert total == pytest.approx(float(grade.total), abs=1e-4)


def test_every_line_of_an_explanation_names_a_place_that_holds_its_number(sample: Path) -> None:
    """A source "FILE:LINE, COLUMN" leads to the very cell."""
    grade = make_book(sample / "term.toml").of("maryam")
    looked_up = 0
    for line in (line for group in grade.groups for line in group.lines):
        place = re.fullmatch(r"([^:]+):(\d+), ([^:]+)", line.source)
        if place and line.points is not None:
            with (sample / place[1]).open(encoding="utf-8") as file:
                row = list(csv.DictReader(file))[int(place[2]) - 2]
            assert (row["name"], Fraction(row[place[3]])) == ("maryam", line.points)
            looked_up += 1
    assert looked_up >= 15


def test_explain_prints_one_student_or_says_who_is_meant(term: Path) -> None:
    """The command prints the student's numbers; a login that is not there is answered with the nearest one."""
    arguments = ("gradebook", term / "term.toml", "--out", term / "out", "--explain")
    text = run(*arguments, "ada").stdout
    assert "78.29: C" in text
    assert "answers.csv:2, points" in text
    assert "2 days late, 1 day of them free; 5 % off" in text
    outcome = run(*arguments, "adda")
    assert (outcome.exit_code, "did you mean 'ada'?" in outcome.stderr) == (2, True)


def test_the_sample_term(sample: Path, tmp_path: Path) -> None:
    """Thirty students, the same bytes each time, and three flaws that are found."""
    write_term(tmp_path)
    files = sorted(path.relative_to(sample) for path in sample.rglob("*.*"))
    assert all((tmp_path / file).read_bytes() == (sample / file).read_bytes() for file in files)
    outcome = run("gradebook", sample / "term.toml", "--out", tmp_path / "out")
    assert outcome.exit_code == 1
    assert [re.sub(r".*warning: (\S+): .*", r"\1", line) for line in outcome.stderr.splitlines()] == [
        *("quizzes.csv:32", "answers.csv:32", "answers.csv:5")
    ]
    assert len(rows(tmp_path / "out" / "canvas.csv")) == 32


# Gradescope


def test_the_autograder_holds_the_judge_of_one_homework(tmp_path: Path) -> None:
    """Scripts at the top that may be run, the homework's hidden tests, no reference and nothing of other homeworks."""
    names = autograder(load_assignment("hw1"), tmp_path / "a.zip")
    autograder(load_assignment("hw1"), tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == names
        for script in ("setup.sh", "run_autograder"):
            assert archive.getinfo(script).external_attr >> 16 & 0o111
            subprocess.run(["bash", "-n"], input=archive.read(script), check=True)
    assert "kit/grader/hidden/hw1/test_scoring.py" in names
    assert not [name for name in names if re.search(r"reference|examples|mutants|alternative|hidden/(?!hw1)", name)]


def test_without_a_sandbox_there_is_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a submission cannot be isolated the autograder fails, and writes no results that could be taken for a 0."""

    def missing() -> str:
        raise isolation.SandboxUnavailable("bubblewrap is missing")

    monkeypatch.setattr(isolation, "check", missing)
    monkeypatch.setattr(sys, "argv", ["gradescope", "hw1", str(tmp_path), str(tmp_path / "results" / "results.json")])
    with pytest.raises(isolation.SandboxUnavailable):
        main()
    assert not (tmp_path / "results" / "results.json").exists()


@pytest.mark.slow
def test_run_autograder_judges_in_the_sandbox(tmp_path: Path) -> None:
    """On Gradescope's layout: solved problems earn their points, files of the judge cannot be read, no files earn 0."""
    autograder(load_assignment("hw1"), tmp_path / "hw1.zip")
    source = tmp_path / "autograder" / "source"
    with zipfile.ZipFile(tmp_path / "hw1.zip") as archive:
        archive.extractall(source)
    submission = tmp_path / "autograder" / "submission"
    submission.mkdir()
    environment = os.environ | {"AUTOGRADER": str(source.parent), "PYTHON": sys.executable}

    def results() -> Any:
        subprocess.run(["bash", source / "run_autograder"], env=environment, check=True, capture_output=True)
        return json.loads((source.parent / "results" / "results.json").read_text())

    empty = results()
    assert (empty["score"], empty["tests"]) == (0, [])
    assert "no files were handed in; expected hw1/scoring.py" in empty["output"]
    (submission / "hw1").mkdir()
    secret = source / "kit" / "grader" / "hidden" / "hw1" / "test_scoring.py"
    spying = f"\n\nfrom pathlib import Path\nif Path({str(secret)!r}).exists():\n    raise SystemError('no wall')\n"
    solution = (KIT / "grader" / "reference" / "hw1" / "scoring.py").read_text()
    (submission / "hw1" / "scoring.py").write_text(solution + spying)
    judged = results()
    problems = [problem for problem in load_assignment("hw1").problems if problem.module == "scoring"]
    assert judged["score"] == sum(problem.points.public + problem.points.hidden for problem in problems)
    assert len({test["status"] for test in judged["tests"]}) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,points\nada,30,5\n", r"a.csv:2: more cells than columns"),
        ("name,points,points\nada,1,2\n", r"two columns are called 'points'"),
    ],
)
def test_points_are_not_read_from_the_wrong_column(tmp_path: Path, text: str, message: str) -> None:
    """A row that is too long, or a title that is there twice, is refused and not guessed at."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UnusableInput, match=message):
        read_rows(tmp_path, "a.csv", ["name", "points"])
