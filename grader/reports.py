"""Pages and tables made from graded submissions: what a student sees, what the staff sees, what a gradebook reads."""

import base64
import builtins
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any
from urllib.parse import quote

import msgspec
import pandas
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from grader.results import Outcome, ProblemResult, SubmissionResult, TestResult, Usage
from grader.systems import TASKS, SystemResult, Terms

OUTCOME_WORDS = {
    Outcome.PASSED: "passed",
    Outcome.FAILED: "wrong answer",
    Outcome.ERROR: "raised an exception",
    Outcome.CRASHED: "the process died",
    Outcome.TIMEOUT: "out of time",
    Outcome.MEMORY: "out of memory",
    Outcome.PROCESSES: "too many processes",
    Outcome.PROTOCOL: "the answer could not be read",
    Outcome.NOT_RUN: "not run, the time was up",
}
OUTCOME_MARKS = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.NOT_RUN: "–"}  # "!" for every other one
TROUBLE = [outcome for outcome in Outcome if outcome not in (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR)]

LONGEST_TEXT = 20_000  # characters of one message or of one output on a page
MEBIBYTE = 2**20

ANSI_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
INVISIBLE = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: "␡"}
    | dict.fromkeys(range(0x80, 0xA0), "�")
    | {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}  # turn text around
)


def student_report(result: SubmissionResult) -> str:
    """Return the page that the student gets."""
    return _submission_page(seen_by_student(result), staff=False)


def staff_report(result: SubmissionResult) -> str:
    """Return the page with everything that is known about a submission."""
    return _submission_page(result, staff=True)


def class_page(results: Sequence[SubmissionResult], generated: str) -> str:
    """Return the page about all submissions; `generated` says when it was made."""
    results = sorted(results, key=lambda result: result.name.casefold())
    graded = [result for result in results if not result.refusal]
    modules = _by_module(_problems(results))
    return render_page(
        "class.html.jinja",
        results=results,
        graded=graded,
        generated=generated,
        title=next((result.title for result in results), "No submissions"),
        modules=modules,
        statistics=_statistics(graded),
        histogram=_histogram(graded),
        rates={module: _rates(graded, {problem.problem for problem in modules[module]}) for module in modules},
        troubles=_troubles(results),
    )


def gradescope_results(result: SubmissionResult) -> dict[str, Any]:
    """Return what Gradescope reads from results.json; students see all of it.

    The score is given at the top, where it takes precedence over the sum of the tests: the late deduction is in it.
    """
    seen = seen_by_student(result)
    about = [f"Not graded: {seen.refusal}"] if seen.refusal else []
    return {
        "score": round(seen.points, 4),
        "execution_time": seen.seconds,
        "output": visible_text("\n".join([*about, *seen.summary, *_late_sentences(seen)])),
        "output_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": _gradescope_tests(seen),
        "extra_data": {"earned": seen.earned, "days_late": seen.days_late, "late_factor": seen.late_factor},
    }


def results_table(results: Sequence[SubmissionResult]) -> pandas.DataFrame:
    """Return a row per submission for results.csv; a problem of a refused submission is left empty."""
    problems = [problem.problem for problem in _problems(results)]
    columns = [
        *("name", "points", "max_points", "earned", "days_late"),
        *problems,
        *("tests_passed", "tests", "status", "seconds", "refusal"),
    ]
    return pandas.DataFrame([_row(result) for result in results], columns=columns)


def seen_by_student(result: SubmissionResult) -> SubmissionResult:
    """Return the part of a result that its student may see: the one rule of secrecy.

    Nothing of a hidden test may tell what it feeds to a submission, so its message and its output stay here, and
    so do names that a submission could make up from an input: of an exception, of a file that was not handed in.
    """
    return SubmissionResult(
        name=result.name,
        slug=result.slug,
        assignment=result.assignment,
        title=result.title,
        digest="",
        points=result.points,
        max_points=result.max_points,
        earned=result.earned,
        days_late=result.days_late,
        late_factor=result.late_factor,
        problems=result.problems,
        tests=[_test_seen_by_student(test, result.files) for test in result.tests],
        refusal=result.refusal,
        summary=result.summary,
        files=result.files,
        seconds=round(result.seconds, 1),
    )


def _test_seen_by_student(test: TestResult, files: list[str]) -> TestResult:
    if test.visibility == "public":
        return msgspec.structs.replace(test, usage=_rounded(test.usage))
    return TestResult(  # field by field, so that a field added later stays hidden
        test="",
        problem=test.problem,
        visibility=test.visibility,
        statement=test.statement,
        hint="" if test.outcome == Outcome.PASSED else test.hint,
        outcome=test.outcome,
        exception=_exception_seen_by_student(test.exception),
        traceback=[line for line in test.traceback if line.file in files],
        usage=_rounded(test.usage),
        points=test.points,
        max_points=test.max_points,
    )


def _exception_seen_by_student(name: str) -> str:
    known = getattr(builtins, name, None)
    is_exception = isinstance(known, type) and issubclass(known, BaseException)
    return name if not name or is_exception else "an exception of your own"


def _rounded(usage: Usage) -> Usage:
    return Usage(
        wall_seconds=round(usage.wall_seconds, 1),
        cpu_seconds=round(usage.cpu_seconds, 1),
        peak_memory_bytes=round(usage.peak_memory_bytes / (10 * MEBIBYTE)) * 10 * MEBIBYTE,
    )


def visible_text(text: str) -> str:
    """Return text that is safe to show: no terminal colours, control characters made visible, and not endless."""
    cut = len(text) - LONGEST_TEXT
    text = ANSI_ESCAPE.sub("", text[:LONGEST_TEXT].replace("\r\n", "\n")).translate(INVISIBLE)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return f"{text}\n… and {cut:,} more characters" if cut > 0 else text


def status(result: SubmissionResult) -> str:
    """Say in words what became of a submission."""
    if result.refusal:
        return "refused"
    late = [_days(result.days_late) + " late"] if result.days_late else []
    counts = Counter(test.outcome for test in result.tests)
    troubles = [f"{OUTCOME_WORDS[outcome]} ({counts[outcome]})" for outcome in TROUBLE if counts[outcome]]
    return "; ".join(["graded", *late, *troubles])


# The class


@dataclass(frozen=True)
class Rate:
    """How often a problem or a test was solved."""

    label: str
    detail: str
    solved: int
    tried: int
    mean_share: float  # of the points

    @property
    def share(self) -> float:
        """The share of submissions that solved it."""
        return self.solved / self.tried


@dataclass(frozen=True)
class Trouble:
    """Why a submission, or a part of it, could not be graded as usual."""

    result: SubmissionResult
    what: str
    why: str


def _problems(results: Iterable[SubmissionResult]) -> list[ProblemResult]:
    """Return each problem once, as the first submission that has it lists it."""
    problems: dict[str, ProblemResult] = {}
    for result in results:
        for problem in result.problems:
            problems.setdefault(problem.problem, problem)
    return list(problems.values())


def _by_module(problems: list[ProblemResult]) -> dict[str, list[ProblemResult]]:
    modules: dict[str, list[ProblemResult]] = {}
    for problem in problems:
        modules.setdefault(problem.module, []).append(problem)
    return modules


def _statistics(graded: list[SubmissionResult]) -> dict[str, float]:
    if not graded:
        return {}
    points = [result.points for result in graded]
    return {"mean": mean(points), "median": median(points), "lowest": min(points), "highest": max(points)}


def _histogram(graded: list[SubmissionResult]) -> list[int]:
    """Count the submissions in each tenth of the points."""
    counts = Counter(min(9, int(10 * share(result.points, result.max_points) + 1e-9)) for result in graded)
    return [counts[tenth] for tenth in range(10)]


def _rates(graded: list[SubmissionResult], problems: set[str]) -> dict[str, list[Rate]]:
    """Return how a module's problems and tests were solved, the hardest first."""
    by_problem: dict[str, list[ProblemResult]] = {}
    by_test: dict[str, list[TestResult]] = {}
    for result in graded:
        for problem in result.problems:
            if problem.problem in problems:
                by_problem.setdefault(problem.problem, []).append(problem)
        for test in result.tests:
            if test.problem in problems:
                by_test.setdefault(test.test, []).append(test)
    return {
        "problems": _hardest_first(_problem_rate(group) for group in by_problem.values()),
        "tests": _hardest_first(_test_rate(group) for group in by_test.values()),
    }


def _hardest_first(rates: Iterable[Rate]) -> list[Rate]:
    return sorted(rates, key=lambda rate: (rate.share, rate.mean_share))


def _problem_rate(group: list[ProblemResult]) -> Rate:
    return Rate(
        label=group[0].title,
        detail=group[0].problem,
        solved=sum(problem.points >= problem.max_points for problem in group),
        tried=len(group),
        mean_share=mean(share(problem.points, problem.max_points) for problem in group),
    )


def _test_rate(group: list[TestResult]) -> Rate:
    passed = sum(test.outcome == Outcome.PASSED for test in group)
    return Rate(
        label=group[0].statement,
        detail=f"{group[0].problem}, {group[0].visibility}",
        solved=passed,
        tried=len(group),
        mean_share=passed / len(group),
    )


def _troubles(results: Iterable[SubmissionResult]) -> list[Trouble]:
    troubles = []
    for result in results:
        if result.refusal:
            troubles.append(Trouble(result, "refused", result.refusal))
        for outcome in TROUBLE:
            tests = [test for test in result.tests if test.outcome == outcome]
            if tests:
                why = tests[0].message or tests[0].statement
                troubles.append(Trouble(result, f"{OUTCOME_WORDS[outcome]} ({len(tests)})", why))
    return troubles


def _row(result: SubmissionResult) -> dict[str, Any]:
    return {
        "name": spreadsheet_text(result.name),
        "points": round(result.points, 4),
        "max_points": result.max_points,
        "earned": round(result.earned, 4),
        "days_late": result.days_late,
        **{problem.problem: round(problem.points, 4) for problem in result.problems if not result.refusal},
        "tests_passed": sum(test.outcome == Outcome.PASSED for test in result.tests),
        "tests": len(result.tests),
        "status": status(result),
        "seconds": round(result.seconds, 1),
        "refusal": spreadsheet_text(result.refusal),
    }


def spreadsheet_text(text: str) -> str:
    """Return text that a spreadsheet takes as text, even where it looks like a formula."""
    text = visible_text(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


# Gradescope


def _gradescope_tests(seen: SubmissionResult) -> list[dict[str, Any]]:
    titles = {problem.problem: problem.title for problem in seen.problems}
    return [
        {
            "name": visible_text(f"{titles.get(test.problem, test.problem)}: {test.statement}"),
            "number": str(number),
            "score": round(test.points, 4),
            "max_score": round(test.max_points, 4),
            "status": "passed" if test.outcome == Outcome.PASSED else "failed",
            "output": "\n\n".join(_test_paragraphs(test)),
            "output_format": "text",
            "visibility": "visible",
            "tags": [test.problem, test.visibility],
            "extra_data": {"outcome": test.outcome.value},
        }
        for number, test in enumerate(seen.tests, start=1)
    ]


def _test_paragraphs(test: TestResult) -> list[str]:
    """Say in plain text what a page says about a test."""
    lines = [f"{line.file}, line {line.line}, in {line.function}\n    {line.source}" for line in test.traceback]
    paragraphs = [
        OUTCOME_WORDS[test.outcome].capitalize() + (f": {test.exception}" if test.exception else ""),
        test.message,
        f"Hint: {test.hint}" if test.hint and test.outcome != Outcome.PASSED else "",
        "\n".join(lines),
        f"Printed:\n{test.stdout}" if test.stdout else "",
    ]
    return [visible_text(paragraph) for paragraph in paragraphs if paragraph]


# Rendering


def share(points: float, max_points: float) -> float:
    """Return points as a share of the points there are, between 0 and 1."""
    return min(1.0, max(0.0, points / max_points)) if max_points > 0 else 0.0


def systems_page(results: Sequence[SystemResult], terms: Terms) -> str:
    """Return the page about systems, in the given order."""
    return render_page("systems.html.jinja", results=results, terms=terms, tasks=TASKS)


def _submission_page(result: SubmissionResult, staff: bool) -> str:
    return render_page("submission.html.jinja", result=result, staff=staff, modules=_by_module(result.problems))


def render_page(template: str, **values: Any) -> str:
    """Render a template of the folder templates/; all text in it is cleaned and escaped."""
    return _environment.get_template(template).render(values)


def _finalized(value: Any) -> Any:
    """Clean every string on its way into a page; markup was cleaned when it was made."""
    return visible_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + " s" if value else "under 0.1 s"


def _mebibytes(value: int) -> str:
    return f"{value / MEBIBYTE:,.1f}".removesuffix(".0") + " MiB"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _late_sentences(result: SubmissionResult) -> list[str]:
    if not result.days_late:
        return []
    late = f"Handed in {_days(result.days_late)} late"
    if result.late_factor == 1:
        return [f"{late}, without a deduction."]
    return [
        f"{late}: {_number(result.earned)} points × {_number(result.late_factor)} = {_number(result.points)} points."
    ]


def _heat(problem: ProblemResult) -> int:
    """Return a shade from 0, no points, to 4, all points."""
    return int(4 * share(problem.points, problem.max_points) + 1e-9)


def _new_environment() -> Environment:
    style = (Path(__file__).parent / "templates" / "style.css").read_text("utf-8")
    environment = Environment(
        loader=PackageLoader("grader"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "seconds": _seconds,
        "mebibytes": _mebibytes,
        "percent": _percent,
        "heat": _heat,
        "path": lambda text: quote(text, safe=""),
    }
    environment.globals |= {
        "style": Markup(style),
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "outcome_words": OUTCOME_WORDS,
        "outcome_marks": OUTCOME_MARKS,
        "late_sentences": _late_sentences,
        "share": share,
        "status": status,
    }
    return environment


_environment = _new_environment()
