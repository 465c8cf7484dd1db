"""Check your work and pack it: `make submit ID=your-id`, or `python submit.py HOMEWORK --id your-id`.

Runs the public tests, checks the files as the grader will, and writes your-id.zip. Tests that fail do not stop it:
unfinished work may be handed in.
"""

import argparse
import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def main() -> None:
    """Test, check, pack; exit with 1, and one line for each reason, where the grader would refuse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("assignment")
    parser.add_argument("--id", required=True, help="your student id: the name of the zip")
    asked = parser.parse_args()
    rules = json.loads((HERE / "submit.json").read_text())
    if asked.assignment != rules["assignment"]:
        sys.exit(f"error: this release is of {rules['assignment']}, not of {asked.assignment}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", asked.id):
        sys.exit(
            f"error: expected a student id of letters, digits, dots and dashes, got {asked.id!r}: make submit ID=..."
        )
    folder = HERE / rules["assignment"]
    files = files_of(folder, rules)
    problems = [*refusals(folder, files, rules), *(line for path in files for line in faults(path, rules))]
    if problems:
        sys.exit("\n".join(f"error: {line}" for line in problems))
    print(f"public tests of {rules['assignment']}", flush=True)
    subprocess.run([sys.executable, "-m", "pytest", "-q", "--tb=no", "-rN", folder.name], cwd=HERE, check=False)
    packed = HERE / f"{asked.id}.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in files:
            archive.write(path, path.relative_to(HERE).as_posix())
    if modules := rules["modules"]:
        begun = [name for name in modules if not untouched(folder / f"{name}.py")]
        print(f"{len(begun)} of {len(modules)} modules have no stub left: {', '.join(begun) or 'none'}")
    print(f"hand in {packed.name} ({len(files)} files, {packed.stat().st_size / 1024:.0f} KiB)")


def files_of(folder: Path, rules: dict[str, Any]) -> list[Path]:
    """Return what is handed in, without tests and what editors and caches leave."""
    found = [path for pattern in rules["files"] for path in folder.rglob(pattern) if path.is_file()]
    return sorted(
        path
        for path in found
        if not any(part == "tests" or part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
    )


def refusals(folder: Path, files: list[Path], rules: dict[str, Any]) -> list[str]:
    """Return why the grader would not take the files at all."""
    lines = [f"{folder.name}/{name} is missing" for name in rules["required"] if folder / name not in files]
    lines += [
        f"{path.relative_to(HERE)} is a link; only ordinary files are taken" for path in files if path.is_symlink()
    ]
    if len(files) > rules["max_files"]:
        lines.append(f"{len(files)} files; at most {rules['max_files']} are taken")
    total = sum(path.stat().st_size for path in files)
    if total > rules["max_bytes"]:
        lines.append(f"{total >> 20} MiB; at most {rules['max_bytes'] >> 20} MiB are taken")
    return lines


def faults(path: Path, rules: dict[str, Any]) -> list[str]:
    """Return why a module could not be imported where it is graded: its syntax, or a package that is not there."""
    if path.suffix != ".py":
        return []
    place = path.relative_to(HERE)
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        return [f"{place}: {type(error).__name__}: {error}"]
    there = {*rules["packages"], *sys.stdlib_module_names, rules["assignment"], "shared_tasks"}
    lines = []
    for node in tree.body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        lines += [
            f"{place}:{node.lineno}: {name} is not there when your work is graded"
            for name in names
            if name.split(".")[0] not in there
        ]
    return lines if path.stem in rules["modules"] or not rules["modules"] else []


def untouched(path: Path) -> bool:
    """Return whether a function of the module is still a stub."""
    return "raise NotImplementedError" in path.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
