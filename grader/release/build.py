"""Builds the archive that students get: stubs, handout, public tests, shared tasks, course models, pins and licence.

Folders and papers that go in are listed; whatever is not listed stays out, the whole of `grader/` but for the files of
this folder that are made for students. A solution or a hidden test that was left lying in a listed folder is found by
its lines, and nothing is written.
"""

import ast
import gzip
import io
import json
import re
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from grader import submissions
from grader.assignment import Assignment, UnusableInput
from grader.sandbox.isolation import KIT, package_paths
from grader.serving.judge import hidden_questions
from grader.serving.rules import load_configuration

FOLDER = Path(__file__).parent
AS_THEY_ARE = ["LICENSE", "constraints.txt", "docs/student_guide.md"]
STAFF_ONLY = {"psutil"}  # what the grader alone requires
WRITTEN = 1_577_836_800  # one date for all files: zip knows none before 1980, make warns of those to come
JUNK = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints"}


def release(assignment: Assignment, out: Path) -> list[str]:
    """Write the archive, a .tar.gz of one folder, and return the names of the files in it.

    The same kit gives the same bytes. Raises UnusableInput, and writes nothing, when something of the staff's is in it.
    """
    files = contents(assignment)
    if found := leaks(files):
        raise UnusableInput(f"nothing was written, for the archive would give away: {'; '.join(found)}")
    top = f"{assignment.name}-release"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mode, member.mtime = len(data), 0o644, WRITTEN
            archive.addfile(member, io.BytesIO(data))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    return list(files)


def contents(assignment: Assignment) -> dict[str, bytes]:
    """Return the files of the archive by name."""
    folders = [assignment.name, "shared_tasks"]
    files = {name: (KIT / name).read_bytes() for name in AS_THEY_ARE}
    for folder in folders:
        files |= {name: (KIT / name).read_bytes() for name in files_in(folder)}
    facts = _facts(assignment, folders)
    for template in FOLDER.glob("*.jinja"):
        rendered = jinja2.Template(template.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        files[template.stem] = rendered.render(facts).encode()
    files["submit.py"] = (FOLDER / "submit.py").read_bytes()
    files["submit.json"] = (json.dumps(_rules(assignment), indent=2) + "\n").encode()
    return dict(sorted(files.items()))


def leaks(files: dict[str, bytes]) -> list[str]:
    """Return what of the staff's is in the archive.

    These are functions of references and hidden tests that stand line by line in a file, and files with questions of
    the hidden split, as a trace or a load test's records have them.
    """
    secrets = {
        (path.relative_to(KIT).as_posix(), function): lines
        for place in ("reference", "hidden")
        for path in sorted((KIT / "grader" / place).rglob("*.py"))
        for function, lines in _functions(path.read_text())
        if place == "reference" or function.startswith("test_")
    }
    found = []
    for name, data in files.items():
        if name.endswith(".py"):
            there = {line.strip() for line in data.decode().splitlines()}
            found += [
                f"{function} of {path} in {name}" for (path, function), lines in secrets.items() if lines <= there
            ]
    hidden = hidden_questions()
    return found + [f"hidden questions in {name}" for name, data in files.items() if hidden & _strings(data)]


def _strings(data: bytes) -> set[str]:
    """Return what stands between quotes in a file, read as JSON."""
    quoted = re.findall(rb'"(?:[^"\\\n]|\\.)*"', data)
    return {text for one in quoted if isinstance(text := _as_json(one), str)}


def _as_json(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _functions(source: str) -> Iterator[tuple[str, set[str]]]:
    """Yield functions that say enough to be told by it: their names, and the longer lines of their bodies."""
    text = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = {line.strip() for part in body for line in text[part.lineno - 1 : part.end_lineno]}
            lines = {line for line in lines if len(line) > 25}
            if len(lines) >= 2:
                yield node.name, lines


def files_in(folder: str) -> Iterator[str]:
    """Return the names of a folder's files from the kit's root on, without what tools leave behind."""
    for path in sorted((KIT / folder).rglob("*")):
        if path.is_file() and not path.is_symlink() and not JUNK & set(path.parts) and path.suffix != ".pyc":
            yield path.relative_to(KIT).as_posix()


def _facts(assignment: Assignment, folders: list[str]) -> dict[str, Any]:
    """Return what the templates speak of."""
    project = tomllib.loads((KIT / "pyproject.toml").read_text())
    requirements = [name for name in project["project"]["dependencies"] if name not in STAFF_ONLY]
    return {
        "name": assignment.name,
        "title": assignment.title,
        "version": project["project"]["version"],
        "folders": folders,
        "requirements": requirements,
        "package_data": project["tool"]["setuptools"]["package-data"]["shared_tasks"],
        "deadline": assignment.late.deadline,
    }


def _rules(assignment: Assignment) -> dict[str, Any]:
    """Return what a submission is checked for before it is handed in: what intake and sandbox will hold it to."""
    rules = {
        "assignment": assignment.name,
        "files": ["*.py", "*.md", "*.toml"],
        "required": [f"{module}.py" for module in assignment.modules],
        "modules": assignment.modules,
        "packages": assignment.packages,
        "max_files": submissions.MAX_FILES,
        "max_bytes": submissions.MAX_BYTES,
    }
    return rules if assignment.problems else rules | _rules_under_load()


def _rules_under_load() -> dict[str, Any]:
    """Return what else holds for a server: all of its folder is handed in, and of it serve.toml is needed."""
    test = load_configuration()
    installed = {Path(name).stem for _, name in package_paths(tuple(test.packages)) if not name.endswith(".dist-info")}
    return {
        "files": ["*"],
        "required": ["serve.toml"],
        "packages": sorted(installed),
        "max_bytes": test.limits.submission_bytes,
    }
