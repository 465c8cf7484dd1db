"""A sample cohort, written as students hand it in: `python -m grader.examples.cohort hw1 DIR`.

Every submission starts from one of the kit's own solutions, or from the stubs; what a student did differently stands
under `hw1/NAME/` beside this file and is added at the end of the module of the same name. Writing it twice gives the
same bytes.
"""

import csv
import functools
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from grader.assignment import load_assignment
from grader.sandbox.isolation import KIT

CHANGES = Path(__file__).parent
SOURCES = {"other": "grader/hidden/{}/alternative_{}.py", "own": "grader/reference/{}/{}.py", "stub": "{}/{}.py"}

Files = dict[str, bytes]  # a submission: "scoring.py" -> contents


class Student(NamedTuple):
    """One of the class: what the work starts from, how it is handed in, and when."""

    name: str
    story: str
    starts: dict[str, str]
    form: str = "zip"
    received: str = "2026-10-15T18:00:00+00:00"


def _all(assignment: str, others: str, **modules: str) -> dict[str, str]:
    """Return what each module of an assignment starts from."""
    return dict.fromkeys(load_assignment(assignment).modules, others) | modules


_hw1, _hw2, _hw3 = (functools.partial(_all, name) for name in ("hw1", "hw2", "hw3"))

STUDENTS = {
    "hw1": [
        Student("ada", "full marks, written differently from the reference", _hw1("other"), "folder"),
        Student("grace", "full marks, with a helper module", _hw1("other", scoring="own"), "zip in a folder"),
        Student("hedy", "full marks, written from handout, stubs and public tests", {}),
        Student("linus", "did scoring and did not begin the rest", _hw1("stub", scoring="other"), "flat zip"),
        Student("margaret", "seven plausible mistakes", _hw1("other", scoring="own"), "folder"),
        Student("edsger", "six plausible mistakes", _hw1("own", scoring="other")),
        Student("barbara", "the stubs, untouched", _hw1("stub")),
        Student("ken", "imports what is not there", _hw1("other", scoring="own"), "folder"),
        Student("dennis", "a syntax error", _hw1("own", scoring="other"), "flat zip"),
        Student("donald", "answers of the wrong shape", _hw1("own"), "zip in a folder"),
        Student("john", "NaN", _hw1("other")),
        Student("alan", "loops that catch every exception", _hw1("other", scoring="own"), "folder"),
        Student("niklaus", "takes all memory", _hw1("own", scoring="other")),
        Student("radia", "a fork bomb and a thousand threads", _hw1("own"), "folder"),
        Student("tony", "a segmentation fault", _hw1("other", scoring="own")),
        Student("frances", "leaves by os._exit(0)", _hw1("other")),
        Student("claude", "prints a gigabyte, and HTML", _hw1("own"), "folder"),
        Student("mallory", "tries to forge; brier_score is honest", _hw1("stub", scoring="own")),
        Student("peggy", "two days late", _hw1("own"), "bulk zip", "2026-10-18T09:30:00+00:00"),
        Student("victor", "too late", _hw1("own", scoring="other"), "bulk zip", "2026-10-30T12:00:00+00:00"),
        Student("eve", "a zip that writes outside of its folder", _hw1("own"), "zip slip"),
        Student("oscar", "a zip with a link to the host's files", _hw1("own"), "zip with a link"),
        Student("trudy", "a zip that unpacks to 256 MiB", _hw1("own"), "zip bomb"),
    ],
    "hw2": [
        Student("ada", "full marks, written differently from the reference", _hw2("other"), "folder"),
        Student("grace", "full marks, the reference", _hw2("own"), "zip in a folder"),
        Student("hedy", "full marks, written from handout, stubs and public tests", {}),
        Student("linus", "did self-consistency and did not begin the rest", _hw2("stub", self_consistency="other")),
        Student("margaret", "a mistake in each of six modules", _hw2("own"), "folder"),
        Student("edsger", "two mistakes in the other modules", _hw2("other"), "flat zip"),
        Student("ken", "imports what is not there", _hw2("own", tools="other")),
        Student("tony", "a segmentation fault", _hw2("other")),
        Student("mallory", "tries to forge; debate is honest", _hw2("stub", debate="own")),
    ],
    "hw3": [
        Student("ada", "full marks, written differently from the reference", _hw3("other"), "folder"),
        Student("grace", "full marks, the reference", _hw3("own"), "zip in a folder"),
        Student("hedy", "full marks, written from handout, stubs and public tests", {}),
        Student("linus", "did caches and did not begin the rest", _hw3("stub", kv_cache="other"), "flat zip"),
        Student("margaret", "a mistake in each of seven modules", _hw3("own"), "folder"),
        Student(
            "edsger",
            "four mistakes in three modules",
            dict.fromkeys(("kv_cache", "speculative", "quantization"), "other"),
            "flat zip",
        ),
        Student("barbara", "the stubs, untouched", _hw3("stub")),
        Student("ken", "imports what is not there", {"attention": "own", "quantization": "other"}),
        Student("dennis", "a syntax error", {"batching": "own", "quantization": "own"}),
        Student("alan", "a loop that does not always end", {"speculative": "own"}, "folder"),
        Student("niklaus", "takes all memory", {"quantization": "own"}),
        Student("tony", "a segmentation fault", {"attention": "other"}),
        Student("mallory", "tries to forge; pack_int4 is honest", {"quantization": "stub"}, "folder"),
    ],
}


def begun(assignment: str, starts: dict[str, str]) -> Files:
    """Return modules, each from a stub or one of the kit's solutions."""
    # A reference that builds on another one finds that module where a student has it.
    ours, theirs = f"grader.reference.{assignment}.".encode(), f"{assignment}.".encode()
    return {
        f"{module}.py": (KIT / SOURCES[start].format(assignment, module)).read_bytes().replace(ours, theirs)
        for module, start in starts.items()
    }


def files_of(assignment: str, student: Student) -> Files:
    """Return what a student hands in."""
    files = begun(assignment, student.starts)
    for path in sorted((CHANGES / assignment / student.name).glob("*.py")):
        files[path.name] = files[path.name] + b"\n\n" + path.read_bytes() if path.name in files else path.read_bytes()
    return files


def write_cohort(assignment: str, folder: Path) -> None:
    """Write the cohort, and received.csv with the times at which it came, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    bulk: Files = {}
    for student in STUDENTS[assignment]:
        files = files_of(assignment, student)
        if student.form == "folder":
            for name, contents in files.items():
                path = folder / student.name / assignment / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(contents)
        elif student.form == "bulk zip":
            bulk[f"{student.name}.zip"] = ZIPS["zip"](assignment, files)
        else:
            (folder / f"{student.name}.zip").write_bytes(ZIPS[student.form](assignment, files))
    if bulk:
        (folder / "bulk_download.zip").write_bytes(_zip(bulk))
    with (folder / "received.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("name", "received"))
        rows.writerows((student.name, student.received) for student in STUDENTS[assignment])


def _zip(files: Files, links: tuple[str, ...] = ()) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            member = zipfile.ZipInfo(name)  # of one date, so that the bytes are the same every time
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (0o120777 if name in links else 0o100644) << 16
            archive.writestr(member, contents)
    return buffer.getvalue()


def _under(folder: str, files: Files) -> Files:
    return {f"{folder}/{name}": contents for name, contents in files.items()}


ZIPS: dict[str, Callable[[str, Files], bytes]] = {
    "zip": lambda hw, files: _zip(_under(hw, files)),
    "flat zip": lambda hw, files: _zip(files),
    "zip in a folder": lambda hw, files: _zip(
        _under(f"my homework/{hw}", files)
        | _under(f"__MACOSX/my homework/{hw}", {f"._{name}": b"\0" for name in files})
        | _under(f"my homework/{hw}/tests", {"test_own.py": b"def test_nothing():\n    assert True\n"})
    ),
    "zip slip": lambda hw, files: _zip(_under(hw, files) | {"../../../etc/cron.d/grade": b"* * * * * root true\n"}),
    "zip with a link": lambda hw, files: _zip(
        _under(hw, files) | {f"{hw}/numbers.py": b"/etc/passwd"}, links=(f"{hw}/numbers.py",)
    ),
    "zip bomb": lambda hw, files: _zip(_under(hw, files) | {f"{hw}/weights.bin": bytes(1 << 28)}),
}


def main(
    assignment: Annotated[str, typer.Argument(help=f"The assignment: {', '.join(STUDENTS)}.")],
    folder: Annotated[Path, typer.Argument(help="Where the submissions go.")],
) -> None:
    """Write a sample cohort."""
    if assignment not in STUDENTS:
        raise typer.BadParameter(f"no sample cohort of {assignment!r}; there are: {', '.join(STUDENTS)}")
    write_cohort(assignment, folder)
    print(f"{len(STUDENTS[assignment])} sample submissions in {folder}")


if __name__ == "__main__":
    typer.run(main)
