"""The pages and tables made from graded submissions: nothing secret, nothing executable, nothing missing."""

import base64
import hashlib
import io
import json
import random
import re
from html.parser import HTMLParser

import pandas
import pytest

from grader.reports import (
    class_page,
    gradescope_results,
    results_table,
    seen_by_student,
    staff_report,
    student_report,
    visible_text,
)
from grader.results import Outcome, ProblemResult, SubmissionResult, TracebackLine, Usage
from grader.results import TestResult as GradedTest  # a name that pytest does not collect

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "{{ 7 * 191 }}{% for x in y %}",
    "\x1b[31mred\x1b[0m \x00 \x07 \u202egnp.exe \ud800",
]

PROBLEMS = [
    ("sequence_logprobs", "Log-probability of a sequence", "hw1/scoring.py", 4),
    ("perplexity", "Perplexity", "hw1/scoring.py", 3),
    ("calibration", "Expected calibration error", "hw1/scoring.py", 5),
    ("temperature", "Temperature", "hw1/sampling.py", 2),
    ("top_k", "Top-k", "hw1/sampling.py", 3),
    ("top_p", "Top-p", "hw1/sampling.py", 4),
    ("typical", "Locally typical sampling", "hw1/sampling.py", 5),
    ("mirostat", "Mirostat", "hw1/sampling.py", 8),
    ("beam_search", "Beam search with length normalisation", "hw1/search.py", 8),
    ("stochastic_beam", "Stochastic beam search", "hw1/search.py", 10),
    ("a_star", "A* with an admissible heuristic", "hw1/search.py", 8),
]
TESTS = [
    ("public", "The answer is right on the example of the handout.", ""),
    ("public", "An empty batch gives an empty answer.", "What is the shape of an empty tensor?"),
    ("hidden", "Tokens that were removed before stay removed.", "Look at what happens to -inf in the input."),
    ("hidden", "The exact distribution is right on every toy model.", "Draw from the distribution after truncation."),
]
NAMES = ["Ada Lovelace", "Alan Turing", "Grace Hopper", "Andrey Markov", "Claude Shannon", "Emmy Noether", "José Núñez"]
FILES = ["hw1/scoring.py", "hw1/sampling.py", "hw1/search.py"]
FAILURES = {
    Outcome.FAILED: "the result: expected tensor([0.2500, 0.7500]), got tensor([0.5000, 0.5000]) (tolerance 1e-06)",
    Outcome.ERROR: "IndexError: index 5 is out of bounds for dimension 0 with size 5",
    Outcome.CRASHED: "the process was killed by signal 11 (SIGSEGV)",
    Outcome.TIMEOUT: "no answer after 10 s",
    Outcome.MEMORY: "the limit of 2 GiB was reached",
    Outcome.PROTOCOL: "a value of type 'generator' cannot be returned",
    Outcome.NOT_RUN: "the 60 s of this problem had run out",
}


def graded_test(problem: str, module: str, index: int, outcome: Outcome, points: float) -> GradedTest:
    """Return one test of a problem as it ended."""
    visibility, statement, hint = TESTS[index]
    raised = outcome == Outcome.ERROR
    lines = [
        TracebackLine(module, 48, problem, "kept = sorted_probs.cumsum(-1) - sorted_probs < top_p"),
        TracebackLine(module, 12, "_gather", "return logits[order[len(order)]]"),
    ]
    return GradedTest(
        test=f"{module.replace('hw1/', 'hw1/tests/test_')}::test_{problem}_{index}",
        problem=problem,
        visibility=visibility,
        statement=statement,
        hint=hint,
        outcome=outcome,
        message=FAILURES.get(outcome, ""),
        exception="IndexError" if raised else "",
        traceback=lines if raised else [],
        stdout="top_p = 0.9\nsorted: \x1b[32m[0.5, 0.3, 0.2]\x1b[0m\n" if raised else "",
        stdout_bytes=46 if raised else 0,
        usage=Usage() if outcome == Outcome.NOT_RUN else Usage(0.0123, 0.0117, 187_654_321),
        points=points if outcome == Outcome.PASSED else 0.0,
        max_points=points,
    )


def submission(name: str, seed: int = 0, skill: float = 0.8, days_late: int = 0) -> SubmissionResult:
    """Return a graded submission of a student who passes each test with probability `skill`."""
    generator = random.Random(seed)
    problems, tests = [], []
    for number, (problem, title, module, points) in enumerate(PROBLEMS):
        passes = skill - 0.04 * number
        own = []
        for index in range(len(TESTS)):
            failure = generator.choices(list(FAILURES), weights=[30, 15, 1, 2, 1, 1, 1])[0]
            outcome = Outcome.PASSED if generator.random() < passes else failure
            own.append(graded_test(problem, module, index, outcome, points / len(TESTS)))
        tests += own
        problems.append(ProblemResult(problem, title, module, sum(test.points for test in own), points))
    earned = sum(problem.points for problem in problems)
    factor = 1 - 0.05 * days_late
    passed = sum(test.outcome == Outcome.PASSED for test in tests)
    return SubmissionResult(
        name=name,
        slug=re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "student",
        assignment="hw1",
        title="Homework 1: generation algorithms",
        digest=hashlib.sha256(name.encode("utf-8", "replace")).hexdigest(),
        points=earned * factor,
        max_points=sum(points for *_, points in PROBLEMS),
        earned=earned,
        days_late=days_late,
        late_factor=factor,
        problems=problems,
        tests=tests,
        summary=[f"{passed} of {len(tests)} tests passed.", "All three modules could be imported."],
        files=FILES,
        seconds=generator.uniform(8, 40),
    )


def refused(name: str) -> SubmissionResult:
    """Return a submission that could not be graded."""
    return SubmissionResult(
        name=name,
        slug=name.lower().replace(" ", "-"),
        assignment="hw1",
        title="Homework 1: generation algorithms",
        digest="0" * 64,
        max_points=60,
        problems=[ProblemResult(problem, title, module, 0, points) for problem, title, module, points in PROBLEMS],
        refusal="The zip has no folder hw1; it holds: homework/sampling.py, homework/scoring.py.",
        summary=["Nothing was graded."],
        seconds=0.04,
    )


def cohort(size: int) -> list[SubmissionResult]:
    """Return a class: every thirteenth submission refused, every seventh two days late."""
    generator = random.Random(1)
    results = []
    for number in range(size):
        name = f"{NAMES[number % len(NAMES)]} {number + 1}"
        late = 2 if number % 7 == 3 else 0
        graded = submission(name, number, min(1.2, generator.gauss(0.9, 0.25)), late)
        results.append(refused(name) if number % 13 == 12 else graded)
    return results


def secretive(visibility: str) -> SubmissionResult:
    """Return a submission with one failed test whose every secret field is a marker."""
    result = submission("Ada Lovelace")
    result.tests = [
        GradedTest(
            test="SECRET-TEST",
            problem="top_p",
            visibility=visibility,
            statement="The crossing token is kept.",
            hint="Look at the token that crosses.",
            outcome=Outcome.ERROR,
            message="SECRET-MESSAGE",
            exception="SECRET_EXCEPTION",
            traceback=[
                TracebackLine("hw1/sampling.py", 48, "top_p_filter", "raise Leak(logits)"),
                TracebackLine("SECRET-FILE", 1, "SECRET-FUNCTION", "SECRET-SOURCE"),
            ],
            stdout="SECRET-OUTPUT",
            stdout_bytes=98_765_431,
            usage=Usage(1.23456, 1.13579, 123_456_789),
            max_points=1.0,
        )
    ]
    return result


class Page(HTMLParser):
    """What a browser would find in a page: its tags, the attributes, and the text."""

    def __init__(self, page: str) -> None:
        """Read the page."""
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text += f"{data} "


def all_pages(result: SubmissionResult) -> list[str]:
    """Return the three pages that show a submission."""
    return [student_report(result), staff_report(result), class_page([result], "1 May")]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("index", [0, 1, 2], ids=["student", "staff", "class"])
def test_hostile_text_stays_text(text: str, index: int) -> None:
    """Whatever a student writes anywhere shows up as text and adds no tag to a page."""
    result = submission(text)
    for test in result.tests:
        test.outcome = Outcome.CRASHED
    tests_before = Page(all_pages(result)[index]).tags
    for test in result.tests:
        test.statement = test.message = test.stdout = test.exception = test.hint = text
        test.traceback = [TracebackLine(text, 1, text, text)]
    result.summary, result.files = [text] * 2, [text] * 3
    for problem in result.problems:
        problem.title = text
    page = all_pages(result)[index]
    found = Page(page)
    assert not set(found.tags) & {"script", "img", "iframe", "object", "link", "base", "form"}
    assert found.tags.count("svg") == tests_before.count("svg")
    assert not [name for _, name, _ in found.attributes if name.startswith("on") or name == "style"]
    assert "".join(visible_text(text).split()) in "".join(found.text.split())
    page.encode("utf-8")


@pytest.mark.parametrize(
    "page", [*all_pages(submission("Ada")), class_page([], "1 May"), student_report(refused("Eve"))]
)
def test_policy_allows_the_one_style_and_nothing_else(page: str) -> None:
    """The security policy names the hash of the style block that is in the page, and forbids all else."""
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policies = [value for tag, name, value in Page(page).attributes if tag == "meta" and "default-src" in value]
    assert policies == [f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"]


@pytest.mark.parametrize("page", [*all_pages(submission("Ada")), class_page(cohort(20), "1 May")])
def test_pages_need_nothing_from_outside(page: str) -> None:
    """A page loads nothing, runs nothing, and links only to its neighbours."""
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    for _, name, value in Page(page).attributes:
        assert name not in {"src", "srcset", "style", "action", "background"}
        if name == "href":
            assert re.fullmatch(r"#problem-\d+|students/[\w%.-]+/report\.html|staff/[\w%.-]+\.html", value)


@pytest.mark.parametrize("slug", ["../../etc", 'x" onclick="y', "a b/c?d#e"])
def test_links_stay_inside_their_folder(slug: str) -> None:
    """A strange slug is quoted in links."""
    result = submission("Ada")
    result.slug = slug
    links = [value for _, name, value in Page(class_page([result], "1 May")).attributes if name == "href"]
    assert links
    assert all(re.fullmatch(r"(students/[\w%.-]+/report|staff/[\w%.-]+)\.html", link) for link in links)


def test_hidden_tests_keep_their_secrets() -> None:
    """Neither the student's page nor Gradescope shows a message, an output or a made-up name of a hidden test."""
    for shown in (student_report(secretive("hidden")), json.dumps(gradescope_results(secretive("hidden")))):
        assert "SECRET" not in shown
        assert not re.search(r"98.?765.?431|1\.23456|1\.235|123.?456.?789|117\.7", shown)
        assert "The crossing token is kept." in shown
        assert "Look at the token that crosses." in shown
        assert "an exception of your own" in shown
        assert "raise Leak(logits)" in shown
        assert "raised an exception" in shown.lower()


def test_staff_sees_everything() -> None:
    """The staff's page shows what the student's page withholds."""
    result = secretive("hidden")
    page = staff_report(result)
    for secret in ["TEST", "MESSAGE", "FILE", "FUNCTION", "SOURCE", "OUTPUT"]:
        assert f"SECRET-{secret}" in page
    for exact in ["SECRET_EXCEPTION", "98,765,431", "1.235 s", "117.7 MiB", result.digest]:
        assert exact in page


def test_public_tests_tell_everything() -> None:
    """A public test shows its message, output and exception to the student, here and on Gradescope."""
    for shown in (student_report(secretive("public")), json.dumps(gradescope_results(secretive("public")))):
        for part in ["SECRET-MESSAGE", "SECRET-OUTPUT", "SECRET_EXCEPTION"]:
            assert part in shown


def test_unknown_visibility_is_hidden() -> None:
    """A test that is not marked public is treated as hidden."""
    (seen,) = seen_by_student(secretive("unheard of")).tests
    assert (seen.test, seen.message, seen.stdout, seen.stdout_bytes) == ("", "", "", 0)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("ValueError", "ValueError"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("", ""),
        ("token_17", "an exception of your own"),
        ("int", "an exception of your own"),
        ("print", "an exception of your own"),
    ],
)
def test_exception_names_of_hidden_tests(name: str, shown: str) -> None:
    """Only the names of Python's own exceptions leave a hidden test."""
    result = secretive("hidden")
    result.tests[0].exception = name
    assert seen_by_student(result).tests[0].exception == shown


def test_hint_waits_for_a_failure() -> None:
    """A hidden test that passed gives no hint."""
    result = secretive("hidden")
    result.tests[0].outcome = Outcome.PASSED
    for shown in (student_report(result), json.dumps(gradescope_results(result))):
        assert "Look at the token that crosses." not in shown


def test_student_page_does_not_change_the_result() -> None:
    """Making the student's page leaves the result as it was."""
    result = secretive("hidden")
    student_report(result)
    assert result == secretive("hidden")


def test_failed_tests_are_open() -> None:
    """The details of a test are open unless it passed."""
    result = submission("Ada", seed=3)
    passed = sum(test.outcome == Outcome.PASSED for test in result.tests)
    page = student_report(result)
    assert 0 < passed < len(result.tests)
    assert len(re.findall(r'<details class="test passed">', page)) == passed
    assert len(re.findall(r'<details class="test (?!passed)\w+" open>', page)) == len(result.tests) - passed


@pytest.mark.parametrize("outcome", list(Outcome))
def test_outcomes_are_said_in_words(outcome: Outcome) -> None:
    """Every outcome is told by words and by a mark, so that colour is not needed."""
    result = submission("Ada")
    result.tests = [graded_test("top_p", "hw1/sampling.py", 0, outcome, 1.0)]
    words = re.search(r'class="outcome">([^<]+)<', student_report(result))
    mark = re.search(r'class="mark" aria-hidden="true">([^<]+)<', student_report(result))
    assert words is not None
    assert mark is not None
    assert words[1].strip()
    assert mark[1].strip()


def test_points_add_up_on_the_page() -> None:
    """The page shows the points before and after the late deduction, and they agree with the problems."""
    result = submission("Ada", days_late=2)
    text = " ".join(Page(student_report(result)).text.split())
    assert result.points == pytest.approx(0.9 * sum(problem.points for problem in result.problems))
    earned, points = (f"{value:.2f}".rstrip("0").rstrip(".") for value in (result.earned, result.points))
    assert f"Handed in 2 days late: {earned} points × 0.9 = {points} points." in text
    assert f"{points} of 60 points" in text


def test_free_late_days_cost_nothing() -> None:
    """Lateness without a deduction is said so."""
    result = submission("Ada")
    result.days_late = 1
    assert "Handed in 1 day late, without a deduction." in student_report(result)


def test_refusal_is_shown() -> None:
    """Why a submission was refused stands on all its pages, on Gradescope and in the table."""
    result = refused("Eve")
    for page in all_pages(result):
        assert result.refusal in page
    assert "Perplexity" not in student_report(result)
    assert result.refusal in gradescope_results(result)["output"]
    assert gradescope_results(result)["score"] == 0
    assert results_table([result]).loc[0, ["status", "refusal"]].tolist() == ["refused", result.refusal]


def test_gradescope_reads_the_score_from_the_top() -> None:
    """The score at the top has the late deduction, the tests have the points before it, and all of it is JSON."""
    result = submission("Ada", days_late=2)
    written = json.loads(json.dumps(gradescope_results(result), allow_nan=False))
    assert written["score"] == pytest.approx(result.points)
    assert sum(test["score"] for test in written["tests"]) == pytest.approx(result.earned)
    assert sum(test["max_score"] for test in written["tests"]) == pytest.approx(result.max_points)
    assert written["stdout_visibility"] == "hidden"
    assert {test["status"] for test in written["tests"]} == {"passed", "failed"}
    assert {test["output_format"] for test in written["tests"]} == {"text"}


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\r=1", "\x1b[0m=1"])
def test_names_are_not_formulas(name: str) -> None:
    """A name or a refusal that a spreadsheet would compute is kept as text."""
    result = refused("Eve")
    result.name = result.refusal = name
    row = results_table([result]).loc[0]
    for cell in (row["name"], row["refusal"]):
        assert cell.startswith("'") or not re.match(r"\s*[=+@-]", cell)


def test_table_has_a_row_per_submission() -> None:
    """The table has points per problem, and nothing where a problem was not graded."""
    results = [submission("Ada", days_late=2), refused("Eve")]
    table = results_table(results)
    ids = [problem for problem, *_ in PROBLEMS]
    assert table.columns.tolist()[:5] == ["name", "points", "max_points", "earned", "days_late"]
    assert table[ids].sum(axis=1).tolist() == pytest.approx([results[0].earned, 0])
    assert table[ids].isna().all(axis=1).tolist() == [False, True]
    again = pandas.read_csv(io.StringIO(table.to_csv(index=False)))
    assert again["points"].tolist() == pytest.approx([results[0].points, 0])


def test_table_of_no_submissions() -> None:
    """Without submissions the table still has its columns."""
    assert results_table([]).columns.tolist()[0] == "name"
    assert len(results_table([])) == 0


@pytest.mark.parametrize("size", [0, 1, 13, 40])
def test_class_page_of_any_size(size: int) -> None:
    """The class page names every submission once in its table, with links to both of its pages."""
    results = cohort(size)
    page = class_page(results, "Generated on 1 May 2026.")
    assert "Generated on 1 May 2026." in page
    assert page.count(">student</a>") == size
    for result in results:
        assert f'<th scope="row" class="name">{result.name}</th>' in page
        assert f'href="students/{result.slug}/report.html"' in page
    assert page.count("The zip has no folder") == sum(bool(result.refusal) for result in results)


def test_class_page_of_refused_submissions_only() -> None:
    """A class of which nothing could be graded still has a page."""
    page = class_page([refused("Eve"), refused("Mallory")], "1 May")
    assert "0 graded, 2 refused" in page


def test_class_page_counts() -> None:
    """The histogram counts every graded submission once, and statistics leave refused ones out."""
    results = cohort(40)
    graded = [result for result in results if not result.refusal]
    label = re.search(r'aria-label="Submissions by share of the points: ([^"]+)"', class_page(results, "1 May"))
    assert label is not None
    assert sum(int(count) for count in re.findall(r"percent: (\d+)", label[1])) == len(graded)
    text = " ".join(Page(class_page(results, "1 May")).text.split())
    lowest = f"{min(result.points for result in graded):.2f}".rstrip("0").rstrip(".")
    assert f"Lowest {lowest}" in text


def test_hardest_comes_first() -> None:
    """Within a module, problems and tests are listed from the least to the most often solved."""
    page = class_page(cohort(40), "1 May").split('id="rates"')[1]
    tables = re.findall(r'<table class="rates">(.*?)</table>', page, re.DOTALL)
    assert len(tables) == 6
    for table in tables:
        solved = [int(count) for count in re.findall(r"(\d+) of \d+</td>", table)]
        assert solved
        assert solved == sorted(solved)


def test_text_without_points_does_not_divide_by_zero() -> None:
    """A submission of which no point can be had has pages too."""
    result = submission("Ada")
    result.points = result.max_points = 0
    for problem in result.problems:
        problem.points = problem.max_points = 0
    assert all(all_pages(result))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\x00b\x7f", "a␀b␡"),
        ("a\r\nb\tc\n", "a\nb\tc\n"),
        ("50 %\r100 %", "50 %␍100 %"),
        ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
        ("\ud800", "?"),
        ("naïve 日本語 🎲", "naïve 日本語 🎲"),
    ],
)
def test_invisible_characters_are_made_visible(text: str, shown: str) -> None:
    """Colours are dropped and control characters are shown."""
    assert visible_text(text) == shown


def test_endless_text_is_cut() -> None:
    """A very long text ends with the number of characters left out."""
    assert visible_text("x" * 1_000_000).endswith("x\n… and 980,000 more characters")
