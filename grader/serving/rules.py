"""What a submission of the final project must be: its files, its serve.toml, and no serving engine in it."""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, TypeVar

import msgspec

from final_project.configuration import Configuration, read_configuration
from final_project.trace import Phase
from grader.assignment import UnusableInput
from grader.sandbox.isolation import KIT
from grader.serving.sandboxed import ServerLimits
from grader.serving.scoring import Conditions, Marks, Points
from grader.submissions import Refused, read_files

CONFIGURATION = Path(__file__).with_name("final_project.toml")
RULES = KIT / "final_project" / "rules.toml"
PACKAGE = "final_project"

Kind = TypeVar("Kind")


class LoadTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of the configuration."""

    title: str
    seed: int
    seconds: Annotated[float, msgspec.Meta(gt=0)]
    phases: Annotated[list[Phase], msgspec.Meta(min_length=1)]
    packages: list[str]
    limits: ServerLimits
    points: Points
    marks: Marks
    conditions: Conditions


class Forbidden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must be neither imported nor installed."""

    forbidden_distributions: list[str]
    forbidden_modules: list[str]


def load_configuration(file: Path = CONFIGURATION) -> LoadTest:
    """Read the configuration. Raises UnusableInput, saying what was expected."""
    return _read_toml(file, LoadTest)


def load_rules(file: Path = RULES) -> Forbidden:
    """Read the lists of what is forbidden. Raises UnusableInput, saying what was expected."""
    return _read_toml(file, Forbidden)


def _read_toml(file: Path, kind: type[Kind]) -> Kind:
    try:
        return msgspec.convert(tomllib.loads(file.read_text()), kind)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise UnusableInput(f"{file}: {error}") from error


def stage(source: Path, folder: Path, max_bytes: int) -> Configuration:
    """Write a submission, a folder or a zip, to FOLDER/final_project, and return its serve.toml.

    The package is the nearest folder with a serve.toml. Raises Refused with one line for the student.
    """
    files = read_files(source, max_bytes)
    places = sorted(
        (PurePosixPath(name).parent for name in files if PurePosixPath(name).name == "serve.toml"),
        key=lambda place: (place.name != PACKAGE, len(place.parts), place),
    )
    if not places:
        raise Refused("there is no serve.toml: expected the folder final_project, as a folder or a zip")
    for name, contents in files.items():
        if PurePosixPath(name).is_relative_to(places[0]):
            target = folder / PACKAGE / PurePosixPath(name).relative_to(places[0])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(contents)
    try:
        return read_configuration(folder / PACKAGE / "serve.toml")
    except (ValueError, OSError) as error:
        raise Refused(str(error).removeprefix(f"{folder / PACKAGE}/")) from error


def audit(folder: Path, rules: Forbidden) -> list[str]:
    """Return what a staged submission has of what is forbidden, each with its place, a sentence each.

    Looked at are the imports of all Python files, also by a name given to import_module or __import__; the names of
    folders and files, where a package would lie; and machine code, in which nothing can be looked up.
    """
    found = []
    distributions = {_normal(name) for name in rules.forbidden_distributions}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (module := forbidden_module(path.stem, rules)) is not None and (path.is_dir() or path.suffix == ".py"):
            found.append(f"{name} is named like {module}, which is forbidden")
        if path.suffix == ".dist-info" and _normal(path.stem.split("-")[0]) in distributions:
            found.append(f"{name} is an installed distribution that is forbidden")
        if not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(4) == b"\x7fELF":
                found.append(f"{name} is machine code: hand in its source")
        if path.suffix == ".py":
            lines = {(line, forbidden_module(imported, rules)) for line, imported in imports(path.read_bytes())}
            found += [
                f"{name}, line {line}, imports {module}, which is forbidden"
                for line, module in sorted((line, module) for line, module in lines if module is not None)
            ]
    return found


def forbidden_module(name: str, rules: Forbidden) -> str | None:
    """Return the entry of the list that a module is, or is inside of."""
    return next((entry for entry in rules.forbidden_modules if f"{name}.".startswith(f"{entry}.")), None)


def imports(source: bytes) -> set[tuple[int, str]]:
    """Return line and full name of all that a file imports. Nothing, where it is no Python."""
    try:
        return {found for node in ast.walk(ast.parse(source)) for found in _imports(node)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()


def _imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.lineno, node.module
        yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function, argument = node.func, node.args[0].value
        called = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        if called in ("__import__", "import_module", "run_module") and isinstance(argument, str):
            yield node.lineno, argument


def installed_forbidden(names: Mapping[str, str], rules: Forbidden) -> list[str]:
    """Return the forbidden distributions among what is installed, given as names and versions."""
    there = {_normal(name): (name, version) for name, version in names.items()}
    forbidden = sorted({_normal(name) for name in rules.forbidden_distributions} & set(there))
    return [f"{there[name][0]} {there[name][1]} is installed, which is forbidden" for name in forbidden]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
