"""A sample term of 30 students, seeded: `python -m grader.examples.term DIR`.

Everybody hands in a zip for every homework, of modules that are solved or not begun. Their results are made up, in the
format of `grader grade`, so that the gradebook needs no grader; `grader grade` puts real ones in their place. Files are
as people make them, and a few are wrong: the gradebook says which.
"""

import csv
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer

from grader.assignment import Assignment, load_assignment
from grader.examples.cohort import ZIPS, begun
from grader.reports import results_table
from grader.results import ProblemResult, SubmissionResult

HOMEWORKS = ("hw1", "hw2", "hw3")
QUIZZES = 12
ROSTER = {  # login -> name
    "ada": "Lovelace, Ada",
    "grace": "Hopper, Grace",
    "hedy": "Lamarr, Hedy",
    "linus": "Torvalds, Linus",
    "margaret": "Hamilton, Margaret",
    "edsger": "Dijkstra, Edsger W.",
    "barbara": "Liskov, Barbara",
    "ken": "Thompson, Ken",
    "dennis": "Ritchie, Dennis",
    "donald": "Knuth, Donald",
    "john": "von Neumann, John",
    "alan": "Turing, Alan",
    "niklaus": "Wirth, Niklaus",
    "radia": "Perlman, Radia",
    "tony": "Hoare, Tony",
    "frances": "Allen, Frances",
    "claude": "Shannon, Claude",
    "mallory": "=cmd()|'/C calc'!A0, Mallory",
    "peggy": 'O\'Connor, Peggy "Peg"',
    "victor": "Müller-Lüdenscheidt, Victor",
    "eve": "@SUM(1+1), Eve",
    "oscar": "Ørsted, Oscar",
    "trudy": "<script>alert('total')</script>, Trudy",
    "jörg": "Weiß, Jörg",
    "noether": "Nöther, Emmy",
    "zhang": "张, 益唐",
    "sofia": "Kovalevskaya, Sofia",
    "srinivasa": "Ramanujan, Srinivasa",
    "katherine": "Johnson, Katherine",
    "maryam": "Mirzakhani, Maryam",
}

TERM = """\
# A term. Paths start from this file's folder. `grader gradebook term.toml --out DIR` adds it up.

title = "Inference algorithms, autumn 2026"
roster = "roster.csv"
extensions = "extensions.csv"
free_days = 3
counted_submission = "best"

[letters]
A = 93
"A-" = 90
"B+" = 87
B = 83
"B-" = 80
C = 70
D = 60
F = 0

[quizzes]
weight = 15
file = "quizzes.csv"
points = 10
dropped = 3

[[homeworks]]
assignment = "hw1"
title = "Homework 1 (880101)"
weight = 20
submissions = [
    { graded = "grades/hw1/results.csv", received = "submissions/hw1/received.csv" },
    { graded = "grades/hw1-again/results.csv", received = "submissions/hw1-again/received.csv" },
]
parts = [{ title = "Written answers", file = "answers.csv", column = "hw1", points = 30 }]

[[homeworks]]
assignment = "hw2"
title = "Homework 2 (880102)"
weight = 20
submissions = [{ graded = "grades/hw2/results.csv", received = "submissions/hw2/received.csv" }]
parts = [{ title = "Written answers", file = "answers.csv", column = "hw2", points = 30 }]

[[homeworks]]
assignment = "hw3"
title = "Homework 3 (880103)"
weight = 20
submissions = [{ graded = "grades/hw3/results.csv", received = "submissions/hw3/received.csv" }]
parts = [{ title = "Written answers", file = "answers.csv", column = "hw3", points = 30 }]

[project]
title = "Final project (880104)"
weight = 25
parts = [
    { title = "Load test", file = "grades/final_project/scores.csv", column = "points", points = 65 },
    { title = "Report", file = "project.csv", column = "report", points = 25 },
    { title = "Poster", file = "project.csv", column = "poster", points = 10 },
]
"""


def write_term(folder: Path) -> None:
    """Write the term's file and everything that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    random = Random(2026)
    skill = {login: min(1.0, max(0.3, random.gauss(0.85, 0.12))) for login in ROSTER}
    (folder / "term.toml").write_text(TERM, encoding="utf-8")
    _write(folder / "roster.csv", ("Student", "ID", "SIS User ID", "SIS Login ID", "Section"), _roster())
    for name in HOMEWORKS:
        _write_homework(folder, name, load_assignment(name), skill, random)
    again = {login: min(1.0, skill[login] + 0.1) for login in ("linus", "donald", "sofia")}
    _write_homework(folder, "hw1-again", load_assignment("hw1"), again, random)
    quizzes = [[login, *(_quiz(skill[login], random) for _ in range(QUIZZES))] for login in ROSTER]
    quizzes.append(["edsgar", *["7"] * QUIZZES])  # misspelt
    _write(folder / "quizzes.csv", ("name", *(f"Quiz {n} ({880200 + n})" for n in range(1, QUIZZES + 1))), quizzes)
    answers = [[login, *(_by_hand(skill[login], 30, random) for _ in HOMEWORKS)] for login in ROSTER]
    answers[3][1] = "33"  # of 30
    answers.append(["grace", "30", "30", "30"])  # a second row
    _write(folder / "answers.csv", ("name", *HOMEWORKS), answers)
    project = [[login, _by_hand(skill[login], 25, random), _by_hand(skill[login], 10, random)] for login in ROSTER]
    _write(folder / "project.csv", ("name", "report", "poster"), project)
    scores = [(login, round(65 * skill[login] * random.uniform(0.9, 1.0), 4), 65.0) for login in ROSTER]
    _write(folder / "grades/final_project/scores.csv", ("name", "points", "max_points"), scores)
    until = load_assignment("hw2").late.deadline + timedelta(days=7)
    _write(folder / "extensions.csv", ("name", "assignment", "deadline"), [("maryam", "hw2", until.isoformat())])


def _roster() -> list[tuple[Any, ...]]:
    return [
        ("    Points Possible", "", "", "", ""),
        *(
            (name, 41000 + n, f"S{n:05}", login, f"Section {1 + n % 2}")
            for n, (login, name) in enumerate(ROSTER.items(), start=1)
        ),
        ("Student, Test", 99999, "", "", "Section 1"),
    ]


def _write_homework(folder: Path, name: str, assignment: Assignment, skill: dict[str, float], random: Random) -> None:
    times = {login: _received(assignment.late.deadline, random) for login in skill}
    results = [_result(assignment, login, level, random) for login, level in skill.items()]
    path = folder / "grades" / name / "results.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    results_table(results).to_csv(path, index=False)
    rows = [(login, time.isoformat(timespec="seconds")) for login, time in times.items()]
    submissions = folder / "submissions" / name
    _write(submissions / "received.csv", ("name", "received"), rows)
    for login, level in skill.items():
        (submissions / f"{login}.zip").write_bytes(_work(assignment, level, Random(f"{name} {login}")))


def _work(assignment: Assignment, level: float, random: Random) -> bytes:
    """Draw a submission: modules that are solved, in one of two ways, or not begun."""
    solved = random.choice(("own", "other"))
    starts = {module: solved if random.random() < level else "stub" for module in assignment.modules}
    return ZIPS["zip"](assignment.name, begun(assignment.name, starts))


def _received(deadline: datetime, random: Random) -> datetime:
    """Draw a time: two of three are early, the others up to a week late, the sooner the likelier."""
    if random.random() < 0.65:
        return deadline - timedelta(hours=random.expovariate(1 / 12))
    return deadline + timedelta(hours=min(170.0, random.expovariate(1 / 36)))


def _result(assignment: Assignment, login: str, level: float, random: Random) -> SubmissionResult:
    problems = []
    for problem in assignment.problems:
        most = problem.points.public + problem.points.hidden
        share = 1.0 if random.random() < level else random.choice((0.0, 0.25, 0.5, 0.75))
        problems.append(ProblemResult(problem.id, problem.title, problem.module, round(share * most, 2), most))
    earned = round(sum(problem.points for problem in problems), 2)
    return SubmissionResult(
        name=login,
        slug=login,
        assignment=assignment.name,
        title=assignment.title,
        digest="",
        points=earned,
        max_points=assignment.max_points,
        earned=earned,
        problems=problems,
    )


def _quiz(level: float, random: Random) -> str:
    drawn = random.random()
    if drawn < 0.03:
        return "EX"
    return "" if drawn < 0.08 else _by_hand(level, 10, random)


def _by_hand(level: float, most: int, random: Random) -> str:
    """Draw points in halves."""
    return f"{min(most, round(2 * random.gauss(level, 0.08) * most) / 2):g}"


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def main(folder: Annotated[Path, typer.Argument(help="Where the term goes.")]) -> None:
    """Write a sample term."""
    write_term(folder)
    print(f"{len(ROSTER)} students in {folder / 'term.toml'}")


if __name__ == "__main__":
    typer.run(main)
