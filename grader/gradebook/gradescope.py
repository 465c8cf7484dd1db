"""Gradescope's autograder: the zip that is uploaded there, and what it runs for each submission.

It is for the staff's eyes: the assignment's hidden tests are in it. Lateness is no matter of it, since what a late day
costs is known only when the term is seen as a whole.
"""

import io
import sys
import zipfile
from pathlib import Path

import jinja2
import msgspec
import torch

from grader.assignment import Assignment, UnusableInput, load_assignment
from grader.goldens.prepare import goldens_in_force
from grader.grading import grade
from grader.release.build import files_in
from grader.reports import gradescope_results
from grader.sandbox import isolation
from grader.sandbox.isolation import KIT
from grader.submissions import Submission, collect

FOLDER = Path(__file__).parent
NEEDED = ["LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"]
LEFT_OUT = ("grader/reference/", "grader/examples/", "grader/hidden/")  # what the judge does not need


def autograder(assignment: Assignment, out: Path) -> list[str]:
    """Write the zip and return the names of the files in it; the same kit gives the same bytes."""
    run = jinja2.Template((FOLDER / "run_autograder.jinja").read_text(), keep_trailing_newline=True)
    files = {
        "setup.sh": (FOLDER / "setup.sh").read_bytes(),
        "run_autograder": run.render(name=assignment.name).encode(),
    }
    for name in _kit_files(assignment):
        files[f"kit/{name}"] = (KIT / name).read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)  # of one date
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (0o100644 if "/" in name else 0o100755) << 16
            archive.writestr(member, data)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(packed.getvalue())
    return list(files)


def _kit_files(assignment: Assignment) -> list[str]:
    """Return the files that the judge of one assignment is made of."""
    hidden = f"grader/hidden/{assignment.name}/"
    grader = [name for name in files_in("grader") if name.startswith(hidden) or not name.startswith(LEFT_OUT)]
    tests = [hidden + f"test_{module}.py" for module in assignment.modules]
    kept = [name for name in grader if not name.startswith(hidden) or name in tests]
    goldens = [path.relative_to(KIT).as_posix() for path in goldens_in_force(assignment.name).files()]
    return [*NEEDED, *kept, *goldens, *files_in("shared_tasks"), *files_in(assignment.name)]


def judge(assignment: Assignment, folder: Path) -> bytes:
    """Return results.json for the folder that Gradescope unpacked a submission into.

    Raises SandboxUnavailable where a submission cannot be isolated: then there is no score at all.
    """
    isolation.check()
    result = grade(assignment, _submission(assignment, folder))
    return msgspec.json.format(msgspec.json.encode(gradescope_results(result)))


def _submission(assignment: Assignment, folder: Path) -> Submission:
    try:
        found = collect([folder], assignment)
    except UnusableInput:
        expected = ", ".join(f"{assignment.name}/{module}.py" for module in assignment.modules)
        return Submission("submission", "submission", {}, [], f"no files were handed in; expected {expected}")
    usable = [submission for submission in found if not submission.refusal]
    if len(usable) > 1:
        folders = ", ".join(submission.name for submission in usable)
        return Submission("submission", "submission", {}, [], f"{len(usable)} versions were handed in: {folders}")
    return (usable or found)[0]


def main() -> None:
    """Judge one submission: `python -m grader.gradebook.gradescope hw1 SUBMISSION RESULTS_JSON`."""
    name, folder, results = sys.argv[1:]
    torch.set_num_threads(1)
    Path(results).parent.mkdir(parents=True, exist_ok=True)
    Path(results).write_bytes(judge(load_assignment(name), Path(folder)))


if __name__ == "__main__":
    main()
