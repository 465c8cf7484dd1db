"""The sample cohort, graded for real: each submission gets what its honest code earns, and its neighbours too."""

import csv
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from grader.assignment import load_assignment
from grader.cli import app
from grader.examples.cohort import STUDENTS, write_cohort

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cohorts")]  # two at once would share their time limits

# Points of hw1, by hand: what is left of all points when those of the problems that a student spoilt are taken away.
ALL = load_assignment("hw1").max_points
SCORING = 40.0
HONEST = {
    "ada": ALL,
    "grace": ALL,
    "hedy": ALL,
    "linus": SCORING,
    "margaret": ALL - 26.58,  # entropy, KL, greedy search, most of top_p and error rates, parts of eta, distinct-n
    "edsger": ALL - 25.58,  # temperature, most of perplexity, generation, uniform-cost search, DExperts and guidance
    "barbara": 0.0,
    "ken": ALL - 60,  # all of sampling
    "dennis": ALL - SCORING,
    "donald": ALL - 33.33,  # sequence_logprobs, entropy, ancestral sampling, min_p, and what calls them
    "john": ALL - 8.73,  # temperature, parts of entropy, KL divergence and typical sampling
    "alan": ALL - 5 - 6,  # perplexity and top_p hang
    "niklaus": ALL - 5 - 2,  # entropy and Brier score take all memory
    "radia": ALL - 13.33,  # top_k and what calls it, gumbel_max
    "tony": ALL - 4,  # min_p crashes
    "frances": ALL - 5 - 2,  # KL divergence and Brier score leave
    "claude": ALL - 3 - 0.75,  # epsilon, and two refusals of temperature; a gigabyte of output costs nothing
    "mallory": 2.0,  # the Brier score is honest
    "peggy": 0.9 * ALL,  # two days late
    "victor": 0.0,  # too late
    "eve": 0.0,
    "oscar": 0.0,
    "trudy": 0.0,
}
SAYS = {
    "ken": "hw1/sampling.py could not be imported: ModuleNotFoundError",
    "dennis": "hw1/scoring.py could not be imported: SyntaxError",
    "barbara": "Not implemented yet",
    "alan": "the time ran out: Perplexity",
    "niklaus": "the memory ran out: Entropy",
    "radia": "too many processes or threads were started",
    "tony": "the process died: Min-p",
    "frances": "the process died: Kullback-Leibler divergence",
    "mallory": "the answer was of a kind that cannot be read",
    "eve": "leads out of the submission's folder",
    "oscar": "is a link or a device",
    "trudy": "more than 20 MiB unpacked",
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort("hw1", folder / "submissions")
    run(folder)
    return folder


def run(folder: Path) -> list[dict[str, object]]:
    received = str(folder / "submissions" / "received.csv")
    arguments = ["grade", "hw1", str(folder / "submissions"), "--out", str(folder / "out"), "--received", received]
    outcome = CliRunner().invoke(app, [*arguments, "--json"])
    assert outcome.exit_code == 0, outcome.output
    return json.loads(outcome.stdout)  # type: ignore[no-any-return]


def test_each_gets_what_its_honest_code_earns(graded: Path) -> None:
    """Crashes, hangs, bombs and forgeries cost the problems that they are in, and nothing else."""
    with (graded / "out" / "results.csv").open() as file:
        assert {row["name"]: float(row["points"]) for row in csv.DictReader(file)} == pytest.approx(HONEST)
    assert set(HONEST) == {student.name for student in STUDENTS["hw1"]}


def test_each_is_told_in_plain_words(graded: Path) -> None:
    """The report of a submission that went wrong says how."""
    for name, words in SAYS.items():
        for page in (graded / "out" / "students" / name / "report.html", graded / "out" / "staff" / f"{name}.html"):
            assert words.replace("'", "&#39;") in page.read_text(), page


def test_hidden_tests_stay_hidden(graded: Path) -> None:
    """No student page quotes a line of a hidden test, not even where a submission prints what it was given."""
    hidden = Path(__file__).parents[2] / "grader" / "hidden" / "hw1"
    lines = {
        line.strip()
        for path in hidden.glob("test_*.py")
        for line in path.read_text().splitlines()
        if len(line.strip()) > 40 and not line.strip().startswith(('"""', "def ", "import", "from"))
    }
    public = "".join(
        path.read_text() for path in (hidden.parents[2] / "hw1").rglob("*.*") if path.suffix in (".py", ".md")
    )
    docstrings = "".join(path.read_text() for path in (graded / "out" / "students" / "barbara").glob("*"))
    secret = {line for line in lines if line not in public and line not in docstrings}
    assert len(secret) > 200
    for page in (graded / "out" / "students").rglob("*.*"):
        text = page.read_text()
        assert not [line for line in secret if line in text], page


def test_output_is_complete(graded: Path) -> None:
    """There are a page for the class, a table, and for each submission a report, a staff page and Gradescope's file."""
    out = graded / "out"
    assert (out / "index.html").is_file()
    for name in HONEST:
        results = json.loads((out / "students" / name / "results.json").read_text())
        assert results["score"] == pytest.approx(HONEST[name])
        assert (out / "staff" / f"{name}.html").is_file()


def test_again_grades_only_what_changed(graded: Path) -> None:
    """The same command again takes what is unchanged from the store, and grades a changed submission anew."""
    database = graded / "out" / "grades.sqlite"
    with sqlite3.connect(database) as store:
        before = dict(store.execute("SELECT slug, key FROM submission").fetchall())
        store.execute("UPDATE submission SET result = replace(result, '\"seconds\":', '\"seconds\":1234') ")
    changed = graded / "submissions" / "ada" / "hw1" / "scoring.py"
    changed.write_text(changed.read_text() + "\n# one more line\n")
    rows = {str(row["name"]): row for row in run(graded)}
    taken = {name for name, row in rows.items() if float(str(row["seconds"])) >= 1234}
    assert taken == set(HONEST) - {"ada"}
    with sqlite3.connect(database) as store:
        after = dict(store.execute("SELECT slug, key FROM submission").fetchall())
    assert {slug for slug in before if before[slug] != after[slug]} == {"ada"}
