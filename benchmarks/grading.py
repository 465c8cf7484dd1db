"""What the sandbox costs: `python -m benchmarks.grading` (or `make bench`).

Times the grading of copies of one correct submission of hw1, next to bare pytest of the same tests on the same code,
and the round trip of a call into the sandbox. Medians, in one run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from grader.assignment import Assignment, load_assignment
from grader.grading import grade_cohort
from grader.sandbox.isolation import KIT
from grader.sandbox.remote import RemoteFunction
from grader.sandbox.sandbox import Sandbox
from grader.store import Store
from grader.submissions import Submission, collect
from grader.testing import VISIBILITIES

COPIES = 8
CALLS = 2000
ECHO = "def first(tensor):\n    return float(tensor[0])\n\n\ndef echo(tensor):\n    return tensor\n"


def main() -> None:
    """Measure and print the table."""
    assignment = load_assignment("hw1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        submission = folder / "full" / "hw1"
        submission.mkdir(parents=True)
        (submission / "__init__.py").touch()  # or else the kit's own hw1 would be found first
        for module in assignment.modules:
            shutil.copy(KIT / "grader/hidden/hw1" / f"alternative_{module}.py", submission / f"{module}.py")
        bare = [_bare_pytest(assignment, submission.parent) for _ in range(COPIES)]
        (original,) = collect([submission.parent], assignment)
        one_job = _grading(assignment, original, folder / "one.sqlite", 1)
        all_jobs = _grading(assignment, original, folder / "all.sqlite", os.cpu_count() or 1)
        first, echo = _round_trips(assignment, folder / "echo")
    table = Table("what", "median", "against bare pytest")
    table.add_row("bare pytest, a submission", f"{median(bare):.2f} s", "")
    for jobs, seconds in ((1, one_job), (os.cpu_count() or 1, all_jobs)):
        table.add_row(f"grader, a submission, --jobs {jobs}", f"{seconds:.2f} s", f"{seconds - median(bare):+.2f} s")
    table.add_row("call with 32,768 floats, returning one", f"{1e3 * first:.3f} ms", "")
    table.add_row("call with 32,768 floats, returning them", f"{1e3 * echo:.3f} ms", "")
    Console().print(table)


def _bare_pytest(assignment: Assignment, submission: Path) -> float:
    """Return the wall time of pytest in a process of its own, on the submission's code without any sandbox."""
    files = [
        str(assignment.test_file(module, visibility)) for module in assignment.modules for visibility in VISIBILITIES
    ]
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={submission}", "--import-mode=importlib"]
    environment = os.environ | {"PYTHONPATH": f"{submission}:{KIT}", "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=submission, env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def _grading(assignment: Assignment, original: Submission, store: Path, jobs: int) -> float:
    """Return the wall time per submission once the first ones are graded."""
    copies = [Submission(f"copy {i}", f"copy-{i}", original.files, []) for i in range(COPIES + jobs)]
    done = []
    for graded in grade_cohort(assignment, copies, Store(store), jobs, {}):
        assert graded.result is not None, graded.failure
        assert graded.result.points == assignment.max_points
        done.append(time.perf_counter())
    return (done[-1] - done[jobs - 1]) / COPIES


def _round_trips(assignment: Assignment, folder: Path) -> tuple[float, float]:
    """Return the seconds of a call that takes a large tensor, and of one that also returns it."""
    (folder / "hw1").mkdir(parents=True)
    (folder / "hw1" / "echo.py").write_text(ECHO)
    sandbox = Sandbox(folder, assignment.packages, assignment.kit, assignment.limits, {})
    try:
        sandbox.start_group()
        sandbox.begin_test(60.0)
        tensor = torch.randn(32_768)
        return tuple(  # type: ignore[return-value]
            _median_seconds(RemoteFunction(f"hw1.echo:{name}", sandbox.call), tensor) for name in ("first", "echo")
        )
    finally:
        sandbox.close()


def _median_seconds(function: Callable[[torch.Tensor], object], tensor: torch.Tensor) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        function(tensor)
        times.append(time.perf_counter() - began)
    return median(times)


if __name__ == "__main__":
    main()
