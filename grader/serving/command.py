"""`grader serve-test`: every system of a submission, and the baselines, through the load test and into the pages."""

import re
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from final_project.summary import Questions, Record, load_questions
from final_project.trace import Request, draw_trace, read_trace
from grader.assignment import UnusableInput
from grader.serving import report
from grader.serving.judge import (
    HIDDEN,
    Result,
    baseline_entry,
    digest,
    installed,
    read_results,
    run_sandboxed,
    run_url,
)
from grader.serving.report import BASELINES, CEILING
from grader.serving.rules import PACKAGE, LoadTest, audit, load_rules, stage
from grader.serving.sandboxed import Entry
from grader.serving.vllm_server import VllmServer
from grader.submissions import Refused
from shared_tasks.models.folders import hash_files, model_folder

OnRecord = Callable[[Record], None]
OnStart = Callable[[str, int], OnRecord]
"""Called with what is tested now and how many requests there are; returns what is called with each that has ended."""


class Session:
    """The load tests of one trace, kept in one folder: DIR/STUDENT/SYSTEM, the pages above it."""

    def __init__(self, out: Path, test: LoadTest, trace_file: Path | None = None, split: str = "hidden"):
        """Draw the trace of a split, or read it. Raises UnusableInput, and OSError."""
        self.out, self.test = out, test
        self.questions: Questions
        pools, self.questions = load_questions(split, HIDDEN if split == "hidden" else None)
        try:
            self.trace: list[Request] = (
                read_trace(trace_file) if trace_file else draw_trace(test.phases, pools, test.seed)
            )
        except ValueError as error:
            raise UnusableInput(str(error)) from error
        self.digest = digest(self.trace, test.seconds)
        out.mkdir(parents=True, exist_ok=True)

    def test_baselines(self, on_start: OnStart, systems: Sequence[str] = ("simple", "improved")) -> list[Result]:
        """Measure the kit's own systems that have not been measured on this trace; return those that were."""
        there = {result.system for result in self.results() if result.student == BASELINES}
        results = []
        with tempfile.TemporaryDirectory() as empty:
            for system in systems:
                if system not in there:
                    result = Result(BASELINES, system, "course-base", self.digest)
                    self._run(result, baseline_entry(system, Path(empty)), on_start)
                    results.append(result)
        return results

    def test_ceiling(self, on_start: OnStart) -> list[Result]:
        """Measure vLLM's own server with the baselines' model, unless it has been measured on this trace.

        It runs outside the sandbox. Raises UnusableInput when it does not start.
        """
        if any((result.student, result.system) == (BASELINES, CEILING) for result in self.results()):
            return []
        result = Result(BASELINES, CEILING, "course-base", self.digest)
        result.weights = hash_files(model_folder(result.model))
        out = self._folder(result)
        out.mkdir(parents=True, exist_ok=True)
        try:
            with VllmServer(result.model, out / "log.txt") as server:
                on_record = on_start(f"{BASELINES}: {CEILING}", len(self.trace))
                run_url(result, server.url, self.test, self.trace, self.questions, out, on_record)
        except ValueError as error:
            raise UnusableInput(str(error)) from error
        return [result]

    def test_submission(self, source: Path, on_start: OnStart, again: bool = True) -> list[Result]:
        """Measure every system of a submission; those that have been are measured anew only where `again` says so.

        Raises Refused, with one line, for what is not tested at all.
        """
        student = _name(source.stem if source.is_file() else source.resolve().name)
        there = {} if again else {result.system: result for result in self.results() if result.student == student}
        if student == BASELINES:
            raise Refused(f"no student can be called {BASELINES}")
        results = []
        rules = load_rules()
        with tempfile.TemporaryDirectory() as staged:
            folder = Path(staged)
            configuration = stage(source, folder, self.test.limits.submission_bytes)
            found = audit(folder, rules) + installed(self.test.packages, rules)
            if found:
                raise Refused("; ".join(found))
            for system in configuration.systems:
                if (name := _name(system.name)) in there:
                    results.append(there[name])
                    continue
                result = Result(student, name, system.model, self.digest)
                limit = min(system.memory_bytes, self.test.limits.memory_bytes)
                limits = msgspec.structs.replace(self.test.limits, memory_bytes=limit)
                entry = Entry(folder, f"/submission/{PACKAGE}/serve.toml", system.name)
                self._run(result, entry, on_start, msgspec.structs.replace(self.test, limits=limits))
                results.append(result)
        return results

    def test_server(self, url: str, on_start: OnStart) -> list[Result]:
        """Measure a server that runs already. Raises Refused when it lists no model that is known here."""
        result = Result(_name(re.sub(r"^https?://", "", url)), "server", "", self.digest)
        out = self._folder(result)
        try:
            run_url(result, url, self.test, self.trace, self.questions, out, on_start(result.student, len(self.trace)))
        except ValueError as error:
            raise Refused(str(error)) from error
        return [result]

    def results(self) -> list[Result]:
        """Return all results of this trace that the folder holds."""
        return list(read_results(self.out, self.digest))

    def records(self, result: Result) -> list[Record]:
        """Return what became of each request of the trace."""
        lines = (self._folder(result) / "records.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Record) for line in lines]

    def write_pages(self) -> Path:
        """Write the pages of all systems that were measured on this trace, and scores.csv; return the index."""
        standing = report.stand(self.results(), self.test)
        for result in standing.results:
            page = report.run_page(result, self.records(result), standing, self.test)
            (self._folder(result) / "report.html").write_text(page, "utf-8")
        index = self.out / "index.html"
        generated = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        index.write_text(report.class_page(standing, self.test, generated), "utf-8")
        report.results_table(standing, self.test).to_csv(self.out / "scores.csv", index=False)
        return index

    def _run(self, result: Result, entry: Entry, on_start: OnStart, test: LoadTest | None = None) -> None:
        on_record = on_start(f"{result.student}: {result.system}", len(self.trace))
        out = self._folder(result)
        run_sandboxed(result, entry, test or self.test, self.trace, self.questions, out, on_record)

    def _folder(self, result: Result) -> Path:
        return self.out / result.student / result.system


def _name(text: str) -> str:
    """Return a name that is one for a folder too."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "unnamed"
