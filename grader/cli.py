"""The `grader` command."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from final_project.summary import Record
from grader import doctor as examination
from grader import reports
from grader.assignment import UnusableInput, load_assignment, load_homework
from grader.goldens.prepare import DEFAULT_MODEL, Goldens, Prepared, open_subject
from grader.gradebook import pages
from grader.gradebook.book import make_book
from grader.gradebook.gradescope import autograder
from grader.grading import Graded, grade_cohort
from grader.leaderboard.entries import submit, submit_kit_servers
from grader.leaderboard.judge import Judge
from grader.leaderboard.page import write_boards
from grader.leaderboard.queue import SPLITS, Entry, Evaluation, Queue, Track, alone, work
from grader.leaderboard.rules import load_rules
from grader.release import build
from grader.results import SubmissionResult
from grader.sandbox import isolation
from grader.serving.command import Session
from grader.serving.judge import Result
from grader.serving.rules import CONFIGURATION, load_configuration
from grader.shared_engine import BatchingEngine, EngineStopped, SharedEngine
from grader.store import Store
from grader.submissions import Refused, collect
from grader.systems import (
    TASKS,
    SystemResult,
    SystemStore,
    TaskScore,
    Terms,
    load_questions,
    run_systems,
    systems_assignment,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Grade submissions in a sandbox.")
leaderboard = typer.Typer(no_args_is_help=True, help="Keep a leaderboard: enter submissions, evaluate them, build it.")
app.add_typer(leaderboard, name="leaderboard")
console = Console(stderr=True)


@app.command()
def grade(
    assignment: Annotated[str, typer.Argument(help="The assignment's name: hw1.")],
    submissions: Annotated[list[Path], typer.Argument(help="Folders and zips: one submission each, or many.")],
    out: Annotated[Path, typer.Option(help="Where reports go. Run again with the same folder to go on.")],
    jobs: Annotated[int, typer.Option(min=1, help="Submissions judged at the same time.")] = os.cpu_count() or 1,
    received: Annotated[Path | None, typer.Option(help="CSV with columns name, received (ISO 8601 times).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
) -> None:
    """Grade a cohort and write its reports."""
    try:
        wanted = load_homework(assignment)
        isolation.check()
        cohort = collect(submissions, wanted)
        times = _times(received)
        if received is not None:
            names = {submission.name for submission in cohort}
            for name in sorted(names ^ set(times)):
                what = "has no time there: counted as in time" if name in names else "has a time and no submission"
                console.print(f"{_plain(str(received))}: {_plain(name)} {what}", soft_wrap=True, highlight=False)
        out.mkdir(parents=True, exist_ok=True)
        list(_shown(Goldens(wanted.name).ensure(), f"references of {wanted.name}"))
    except (UnusableInput, isolation.SandboxUnavailable, OSError) as error:
        _refuse(str(error))
    store = Store(out / "grades.sqlite")
    results: list[SubmissionResult] = []
    failures: list[Graded] = []
    try:
        store.keep_only([submission.slug for submission in cohort])
        with _progress() as progress:
            task = progress.add_task(f"grading {wanted.name}", total=len(cohort))
            for graded in grade_cohort(wanted, cohort, store, jobs, times):
                if graded.result is None:
                    failures.append(graded)
                else:
                    results.append(graded.result)
                    _write_pages(out, graded.result)
                progress.update(task, advance=1, description=f"graded {graded.submission.slug}")
    except KeyboardInterrupt:
        console.print(f"interrupted after {len(results)} of {len(cohort)}; run the same command again to go on")
        raise typer.Exit(130) from None
    finally:
        store.close()
    results.sort(key=lambda result: result.name.lower())
    index = _write_cohort(out, results)
    if as_json:
        print(json.dumps([_summary(result) for result in results]))
    else:
        Console().print(_table(results))
        print(index)
    for graded in failures:
        reason = graded.failure.strip().splitlines()[-1]
        console.print(f"[red]not graded:[/] {graded.submission.slug}: {reason}", soft_wrap=True, highlight=False)
    if failures:
        (out / "failures.txt").write_text("\n\n".join(f"{g.submission.slug}\n{g.failure}" for g in failures))
        raise typer.Exit(1)


@app.command()
def prepare(
    assignment: Annotated[str, typer.Argument(help="The assignment's name: hw1.")],
    engine: Annotated[str, typer.Option(help="transformers, vllm, or endpoint: a server's address and model.")] = (
        "transformers"
    ),
    model: Annotated[str, typer.Option(help="A course model, a folder, or a name on the hub.")] = DEFAULT_MODEL,
    dtype: Annotated[str | None, typer.Option(help="float32 or bfloat16; the engine's own unless told.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Of an endpoint, like http://localhost:8000/v1.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
) -> None:
    """Run the references of an assignment once, and keep what they give for the hidden tests that compare with it.

    Run it again to go on after an interruption: what is there, and depends on nothing that has changed, is kept.
    """
    done: list[Prepared] = []
    try:
        goldens = Goldens(load_homework(assignment).name)
        environment, load = open_subject(engine, model, dtype, base_url)
        for prepared in _shown(goldens.prepare(environment, load), f"references of {assignment}"):
            done.append(prepared)
    except (UnusableInput, OSError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        console.print(f"interrupted; {len(done)} results are kept, run the same command again to go on")
        raise typer.Exit(130) from None
    rows = [_prepared_row(name, [p for p in done if p.reference == name]) for name in goldens.references]
    if as_json:
        print(json.dumps({"environment": msgspec.to_builtins(environment), "references": rows}))
        return
    table = Table(*_prepared_row("", []))
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    computed, kept = (sum(p.computed == computed for p in done) for computed in (True, False))
    print(f"{computed} computed, {kept} kept, on {engine} {model} in {environment.dtype}")


def _prepared_row(name: str, done: list[Prepared]) -> dict[str, str | int | float]:
    """Say what became of a reference's inputs, how fast the engine was, and how many answers were right."""
    results = [prepared.result for prepared in done]
    seconds = sum(result["seconds"] for result in results)
    verdicts = [r["value"]["correct"] for r in results if isinstance(r.get("value"), dict) and "correct" in r["value"]]
    return {
        "reference": name,
        "computed": sum(prepared.computed for prepared in done),
        "kept": sum(not prepared.computed for prepared in done),
        "damaged": sum(prepared.damaged for prepared in done),
        "left out": sum("unusable" in result for result in results),
        "seconds": round(seconds, 2),
        "tokens/s": round(sum(result["generated_tokens"] for result in results) / seconds) if seconds else "",
        "accuracy": round(sum(verdicts) / len(verdicts), 3) if verdicts else "",
    }


def _shown(prepared: Iterable[Prepared], what: str) -> Iterator[Prepared]:
    """Pass results on, and show how many there are."""
    with _progress() as progress:
        task: TaskID | None = None
        for one in prepared:
            if task is None:
                task = progress.add_task(what, total=one.total)
            progress.update(task, advance=1, description=f"{what}: {one.reference}")
            yield one


@app.command(name="run-systems")
def run_systems_command(
    submissions: Annotated[list[Path], typer.Argument(help="Folders and zips with hw2/system.py, as for grade.")],
    out: Annotated[Path, typer.Option(help="Where results go. Run again with the same folder to go on.")],
    token_budget: Annotated[int, typer.Option(min=1, help="Tokens a question, prompts included.")],
    model: Annotated[str, typer.Option(help="A course model, a folder, or a name on the hub.")] = "course-base",
    split: Annotated[str, typer.Option(help="dev_test or hidden.")] = "dev_test",
    limit: Annotated[int | None, typer.Option(min=1, help="Questions of each task; all unless told.")] = None,
    engine: Annotated[str, typer.Option(help="What runs the model: transformers or vllm.")] = "transformers",
    seconds: Annotated[float, typer.Option(min=0.01, help="Wall time a question, the engine's included.")] = 5.0,
    jobs: Annotated[int, typer.Option(min=1, help="Systems run at the same time.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run the systems of homework 2 on the three tasks, and write their accuracies and costs."""
    # Loading transformers takes seconds that other commands need not wait for.
    from shared_tasks.models.registry import load_engine

    try:
        assignment = systems_assignment()
        isolation.check()
        cohort = collect(submissions, assignment)
        questions = load_questions(split, limit)
        loaded = load_engine(model, engine)
        if not isinstance(loaded, BatchingEngine):
            raise ValueError(f"run-systems needs an engine whose requests can join while others run, {engine} has none")
        out.mkdir(parents=True, exist_ok=True)
    except (UnusableInput, isolation.SandboxUnavailable, OSError, ValueError) as error:
        _refuse(str(error))
    terms = Terms(model, loaded.fingerprint(), token_budget, split, limit, seconds)
    store = SystemStore(out / "systems.sqlite")
    results: list[SystemResult] = []
    try:
        with SharedEngine(loaded) as shared, _progress() as progress:
            task = progress.add_task("running systems", total=len(cohort))
            for result in run_systems(cohort, assignment, questions, terms, shared, store, jobs):
                results.append(result)
                progress.update(task, advance=1, description=f"ran {result.slug}")
    except EngineStopped as error:
        _refuse(f"{error}; run the same command again to go on")
    finally:
        store.close()
    results.sort(key=lambda result: (-result.accuracy, result.name))
    written = msgspec.json.encode({"terms": terms, "systems": results})
    (out / "results.json").write_bytes(msgspec.json.format(written))
    (out / "index.html").write_text(reports.systems_page(results, terms), encoding="utf-8")
    if as_json:
        print(written.decode())
    else:
        Console().print(_systems_table(results))
        print(out / "index.html")


def _systems_table(results: list[SystemResult]) -> Table:
    table = Table("system", "what went wrong")
    for column in ("all tasks", *TASKS, "tokens a question", "seconds"):
        table.add_column(column, justify="right")
    for result in results:
        scores: list[SystemResult | TaskScore] = [result, *result.tasks.values()] if result.tasks else []
        cells = [f"{100 * score.accuracy:.1f} ± {100 * score.standard_error:.1f}" for score in scores]
        cells += ["–"] * (1 + len(TASKS) - len(cells))
        words = _plain(result.refusal or "; ".join(result.reasons))[:120]
        table.add_row(_plain(result.name), words, *cells, f"{result.tokens_per_question:.1f}", f"{result.seconds:.1f}")
    return table


@app.command()
def release(
    assignment: Annotated[str, typer.Argument(help="The assignment's name: hw1.")],
    out: Annotated[Path, typer.Option(help="The archive to write, a .tar.gz.")],
) -> None:
    """Build the archive that students get."""
    try:
        names = build.release(load_assignment(assignment), out)
    except (UnusableInput, OSError) as error:
        _refuse(str(error))
    print(f"{out}: {len(names)} files, {out.stat().st_size / (1 << 20):.1f} MiB")


@app.command()
def gradebook(
    term: Annotated[Path, typer.Argument(help="The term's TOML file; paths in it start from its folder.")],
    out: Annotated[Path, typer.Option(help="Where canvas.csv, gradebook.csv and gradebook.html go.")],
    explain: Annotated[str | None, typer.Option(help="A student's login: print every number with its source.")] = None,
) -> None:
    """Add up a term: quizzes, homeworks with their late days, and the final project."""
    try:
        book = make_book(term)
        explanation = None if explain is None else pages.explanation(book.of(explain))
        out.mkdir(parents=True, exist_ok=True)
        pages.canvas_table(book).to_csv(out / "canvas.csv", index=False)
        pages.plain_table(book).to_csv(out / "gradebook.csv", index=False)
        generated = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        (out / "gradebook.html").write_text(pages.book_page(book, generated), encoding="utf-8")
    except (UnusableInput, OSError) as error:
        _refuse(str(error))
    print(explanation or out / "gradebook.html")
    for complaint in book.complaints:
        console.print(f"[yellow]warning:[/] {_plain(complaint)}", soft_wrap=True, highlight=False)
    if book.complaints:
        raise typer.Exit(1)


@app.command()
def gradescope(
    assignment: Annotated[str, typer.Argument(help="The assignment's name: hw1.")],
    out: Annotated[Path, typer.Option(help="The zip to write. Hidden tests are in it: it is for the staff.")],
) -> None:
    """Build the autograder that Gradescope runs."""
    try:
        names = autograder(load_homework(assignment), out)
    except (UnusableInput, OSError) as error:
        _refuse(str(error))
    print(f"{out}: {len(names)} files, {out.stat().st_size / (1 << 20):.1f} MiB")


@app.command()
def serve_test(
    out: Annotated[Path, typer.Option(help="Where results and pages go; those of the same trace are compared.")],
    submissions: Annotated[
        list[str] | None, typer.Argument(help="Folders, zips, or URLs of servers that run already.")
    ] = None,
    config: Annotated[Path, typer.Option(help="What comes when, limits and points.")] = CONFIGURATION,
    seed: Annotated[int | None, typer.Option(help="Draw another trace than the configuration's.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Replay a file, JSON lines, instead of drawing a trace.")] = None,
    baselines: Annotated[bool, typer.Option(help="Measure the baselines, unless they have been.")] = True,
    ceiling: Annotated[bool, typer.Option("--ceiling", help="Measure vLLM's own server, unless it has been.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Put servers of the final project under load, and write their pages and points."""
    results: list[Result] = []
    refused = False
    try:
        isolation.check()
        test = load_configuration(config)
        if seed is not None:
            test = msgspec.structs.replace(test, seed=seed)
        session = Session(out, test, trace)
        with _progress() as progress:

            def start(name: str, total: int) -> Callable[[Record], None]:
                task = progress.add_task(_plain(name), total=total)
                return lambda record: progress.advance(task)

            if baselines:
                results += session.test_baselines(start)
            if ceiling:
                results += session.test_ceiling(start)
            for one in submissions or []:
                try:
                    is_url = one.startswith(("http://", "https://"))
                    results += session.test_server(one, start) if is_url else session.test_submission(Path(one), start)
                except Refused as reason:
                    refused = True
                    _tell_refusal(one, reason)
        index = session.write_pages() if list(session.results()) else None
    except (UnusableInput, isolation.SandboxUnavailable, OSError) as error:
        _refuse(str(error))
    if as_json:
        print(msgspec.json.encode(results).decode())
    else:
        Console().print(_serving_table(results))
        print(index or "nothing was measured")
    if refused:
        raise typer.Exit(1)


BoardFolder = Annotated[Path, typer.Option("--board", help="The board's folder; rules: its leaderboard.toml, if any.")]


@leaderboard.command(name="submit")
def submit_command(
    submissions: Annotated[
        list[Path], typer.Argument(help="Folders and zips with a system.py or serve.toml, one each.")
    ],
    board: BoardFolder,
    student: Annotated[str | None, typer.Option(help="The login; the name of the folder or zip unless told.")] = None,
    received: Annotated[str | None, typer.Option(help="When it was handed in, ISO 8601; now unless told.")] = None,
    baseline: Annotated[bool, typer.Option(help="Enter it as a baseline, without a daily limit.")] = False,
    track: Annotated[Track | None, typer.Option(help="Which one, where a submission has files of both.")] = None,
) -> None:
    """Put submissions into the queue; the same files again are the entry that they were."""
    refused = False
    try:
        if student is not None and len(submissions) > 1:
            raise UnusableInput("--student names who handed in one submission; give one")
        if student == "":
            raise UnusableInput("--student is empty")
        now = _moment(received) if received else datetime.now(UTC)
        board.mkdir(parents=True, exist_ok=True)
        rules = load_rules(board)
        with Queue(board / "leaderboard.sqlite") as queue:
            for one in submissions:
                name = student or (one.stem if one.is_file() else one.resolve().name)
                try:
                    entry, new = submit(
                        queue, board, rules, one, name, now, "baseline" if baseline else "student", track
                    )
                    print(f"{name}: {'entered' if new else 'is already'} entry {entry.id}, {entry.track}")
                except Refused as reason:
                    refused = True
                    _tell_refusal(name, reason)
    except (UnusableInput, OSError, ValueError) as error:
        _refuse(str(error))
    if refused:
        raise typer.Exit(1)


@leaderboard.command(name="run")
def run_command(
    board: BoardFolder,
    split: Annotated[
        str | None, typer.Option(help="dev_test or hidden; first one, then the other, unless told.")
    ] = None,
    again: Annotated[list[int] | None, typer.Option(help="The number of an entry to measure anew.")] = None,
) -> None:
    """Evaluate what is in the queue, and the kit's own servers; run again after an interruption to go on."""
    try:
        if split not in (None, *SPLITS):
            raise UnusableInput(f"no split {split!r}; there are: {', '.join(SPLITS)}")
        splits = [split] if split else list(SPLITS)
        isolation.check()
        board.mkdir(parents=True, exist_ok=True)
        rules = load_rules(board)
        with alone(board), Queue(board / "leaderboard.sqlite") as queue, _progress() as progress:
            submit_kit_servers(queue, rules, datetime.now(UTC))
            renewed = [(queue.again(number, name), name) for number in again or [] for name in splits]

            def waiting() -> int:
                return sum(one.state in ("queued", "running") for name in splits for one in queue.evaluations(name))

            task = progress.add_task("evaluating", total=waiting())
            ended = count(1)

            def on_start(name: str, total: int) -> Callable[[Record], None]:
                requests = progress.add_task(_plain(name), total=total)
                return lambda record: progress.advance(requests)

            def on_run(entry: Entry, what: str) -> None:
                progress.update(task, description=f"entry {entry.id}, {what}")

            def on_end(evaluation: Evaluation, reason: str) -> None:
                outcome = f"failed: {_plain(reason)}" if reason else "done"
                entry = evaluation.entry
                console.print(f"entry {entry.id} ({_plain(entry.student)}) on {evaluation.split}: {outcome}")
                done = next(ended)
                progress.update(task, completed=done, total=done + waiting())  # more, where conditions have changed

            judge = Judge(board, rules, on_start, on_run)
            try:
                for entry, name in renewed:
                    judge.forget(entry, name)
                troubles = work(queue, judge.evaluate, judge.conditions, splits, on_end)
            finally:
                judge.close()
    except (UnusableInput, isolation.SandboxUnavailable, OSError, ValueError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on")
        raise typer.Exit(130) from None
    for trouble in troubles:
        reason = f"entry {trouble.evaluation.entry.id} on {trouble.evaluation.split}: {trouble.error!r}"
        console.print(f"[red]the judge failed:[/] {_plain(reason)}; it is in the queue again", highlight=False)
    if troubles:
        raise typer.Exit(1)


@leaderboard.command(name="build")
def build_command(board: BoardFolder) -> None:
    """Write the public board, of dev-test, and the staff's, of the hidden split, as pages and CSV."""
    try:
        rules = load_rules(board)
        if not (board / "leaderboard.sqlite").exists():
            raise UnusableInput(f"{board} is no board yet; enter something with `grader leaderboard submit`")
        with Queue(board / "leaderboard.sqlite") as queue:
            generated = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
            for file in write_boards(queue, board, rules, generated):
                print(file)
    except (UnusableInput, OSError) as error:
        _refuse(str(error))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what this machine has of what the kit needs."""
    findings = examination.examine(Path.cwd())
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        table = Table("part", "found", "", "what to do")
        for finding in findings:
            mark = "[green]fine[/]" if finding.fine else "[red]missing[/]" if finding.needed else "optional"
            table.add_row(finding.part, finding.found, mark, "" if finding.fine else finding.advice)
        Console().print(table)
    if any(finding.needed and not finding.fine for finding in findings):
        raise typer.Exit(1)


def _refuse(reason: str) -> NoReturn:
    console.print(f"[red]error:[/] {' '.join(reason.split())}", soft_wrap=True, highlight=False)
    raise typer.Exit(2)


def _tell_refusal(name: str, reason: Refused) -> None:
    console.print(f"[red]refused:[/] {_plain(name)}: {_plain(str(reason))}", soft_wrap=True, highlight=False)


def _moment(text: str) -> datetime:
    """Read an ISO 8601 time; one without an offset is UTC. Raises ValueError."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _times(path: Path | None) -> dict[str, datetime]:
    """Read when each submission was received. Raises UnusableInput with file and line."""
    if path is None:
        return {}
    times: dict[str, datetime] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    times[row["name"]] = _moment(row["received"])
                except KeyError as error:
                    raise UnusableInput(f"{path}: expected columns name and received, there is no {error}") from error
                except (TypeError, ValueError) as error:
                    raise UnusableInput(f"{path}:{number}: expected name and an ISO 8601 time: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableInput(f"{path}: {error}") from error
    return times


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console)


def _write_pages(out: Path, result: SubmissionResult) -> None:
    student = out / "students" / result.slug
    staff = out / "staff"
    student.mkdir(parents=True, exist_ok=True)
    staff.mkdir(parents=True, exist_ok=True)
    (student / "report.html").write_text(reports.student_report(result), encoding="utf-8")
    (student / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(reports.gradescope_results(result))))
    (staff / f"{result.slug}.html").write_text(reports.staff_report(result), encoding="utf-8")


def _write_cohort(out: Path, results: list[SubmissionResult]) -> Path:
    index = out / "index.html"
    generated = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    index.write_text(reports.class_page(results, generated), encoding="utf-8")
    reports.results_table(results).to_csv(out / "results.csv", index=False)
    return index


def _summary(result: SubmissionResult) -> dict[str, object]:
    names = ("name", "slug", "points", "max_points", "earned", "days_late", "refusal", "seconds")
    return {name: getattr(result, name) for name in names} | {"summary": result.summary}


def _table(results: list[SubmissionResult]) -> Table:
    table = Table("submission", "what happened")
    table.add_column("points", justify="right")
    table.add_column("of", justify="right")
    table.add_column("seconds", justify="right")
    for result in results:
        words = result.refusal or " ".join(result.summary)
        shown = words if len(words) <= 120 else words[:119] + "…"
        row = (f"{result.points:g}", f"{result.max_points:g}", f"{result.seconds:.1f}")
        table.add_row(_plain(result.name), _plain(shown), *row)
    return table


def _serving_table(results: list[Result]) -> Table:
    table = Table("student", "system", "what happened")
    for name in ("served", "of", "accuracy", "TTFT p50", "TPOT p50"):
        table.add_column(name, justify="right")
    for result in results:
        assert result.summary is not None
        accuracies = [accuracy.value for accuracy in result.summary.accuracy.values()]
        latencies = [result.summary.latencies.get(name) for name in ("time_to_first_token", "time_per_output_token")]
        row = (
            str(result.served),
            str(result.summary.requests),
            f"{100 * sum(accuracies) / len(accuracies):.1f} %" if accuracies else "",
            *(f"{latency.p50:.3f} s" if latency else "" for latency in latencies),
        )
        words = "; ".join([result.failure, *result.findings] if result.failure else result.findings)
        table.add_row(result.student, result.system, _plain(words), *row)
    return table


def _plain(text: str) -> str:
    """Keep a student's brackets and control characters from meaning anything to the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("[", r"\[")


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    sys.exit(app())
