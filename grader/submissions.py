"""Taking submissions in: folders, zips, and the zip of zips that a learning platform hands out.

Nothing of a submission is unpacked or run here: its Python files are read into memory, within limits.
"""

import hashlib
import io
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from grader.assignment import Assignment, UnusableInput

MAX_FILES = 2_000
MAX_BYTES = 20 << 20  # of one submission, unpacked
MAX_COHORT_BYTES = 4 << 30  # of a zip of zips
JUNK = {"__MACOSX", "__pycache__", ".DS_Store", ".git", ".idea", ".vscode", ".ipynb_checkpoints", "Thumbs.db"}


class Refused(Exception):
    """A submission that is not graded; the message is one clear line for the student."""


class Submission(msgspec.Struct):
    """What one student handed in, ready to be staged."""

    name: str
    slug: str
    files: dict[str, bytes]  # "hw1/scoring.py" -> contents
    ignored: list[str]  # files that have no effect
    refusal: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of names and contents."""
        hashed = hashlib.sha256(self.refusal.encode())
        for name, contents in sorted(self.files.items()):
            hashed.update(f"{name}\0{hashlib.sha256(contents).hexdigest()}\n".encode())
        return hashed.hexdigest()


def collect(paths: list[Path], assignment: Assignment) -> list[Submission]:
    """Return the submissions found at the given paths, in order of name.

    A path is one submission (a folder or a zip) or holds many (a folder of folders and zips, or a zip of zips).
    Raises UnusableInput when a path does not exist or there is no submission at all.
    """
    found: list[Submission] = []
    slugs: set[str] = set()
    for name, source in (entry for path in paths for entry in _entries(path, assignment)):
        refusal = ""
        files: dict[str, bytes] = {}
        ignored: list[str] = []
        try:
            if any(submission.name == name for submission in found):
                raise Refused("a second submission under the same name; the first one was graded")
            files, ignored = _relevant(read_files(source), assignment)
        except Refused as reason:
            refusal = str(reason)
        slug = _slug(name, slugs)
        slugs.add(slug.lower())
        found.append(Submission(name, slug, files, ignored, refusal))
    if not found:
        raise UnusableInput(f"no submissions in {', '.join(map(str, paths))}: expected folders or zips, one a student")
    return sorted(found, key=lambda submission: submission.name.lower())


Source = Path | bytes | Refused  # a folder or a zip, the contents of a zip, or why it could not be read


def _entries(path: Path, assignment: Assignment) -> Iterator[tuple[str, Source]]:
    """Return (name, source) of each submission at a path."""
    if not path.exists():
        raise UnusableInput(f"{path} does not exist")
    if path.is_file():
        yield from _in_file(path)
    elif _package_folder({str(file.relative_to(path)) for file in path.rglob("*.py")}, assignment) in (
        "",
        assignment.name,
    ):
        yield path.resolve().name, path
    else:
        for child in sorted(path.iterdir()):
            if child.name.startswith(".") or child.name in JUNK:
                continue
            if child.is_symlink():
                yield child.stem, Refused("a link instead of a folder or zip")
            elif child.is_dir():
                yield child.name, child
            elif child.suffix.lower() == ".zip":
                yield from _in_file(child)


def _in_file(path: Path) -> list[tuple[str, Source]]:
    """Return what a file holds: the submissions in a zip of zips, or else the file as one submission."""
    inner = _inner_zips(path)
    return [(path.stem, path)] if inner is None else inner


def _inner_zips(path: Path) -> list[tuple[str, Source]] | None:
    """Return the zips inside a zip of zips, or None for any other file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir() and not _is_junk(member.filename)]
            if not members or any(not member.filename.lower().endswith(".zip") for member in members):
                return None
            if sum(member.file_size for member in members) > MAX_COHORT_BYTES:
                raise UnusableInput(f"{path}: more than {MAX_COHORT_BYTES >> 30} GiB of submissions in one zip")
            return [_inner_zip(archive, member) for member in members]
    except (zipfile.BadZipFile, NotImplementedError, OSError):
        return None


def _inner_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[str, Source]:
    place = PurePosixPath(member.filename)
    name = place.stem if len(place.parts) == 1 else place.parts[0]  # some platforms make a folder for each student
    try:
        with archive.open(member) as file:
            return name, _bounded(file, MAX_BYTES, MAX_BYTES)
    except Refused as reason:
        return name, reason
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError) as error:
        return name, Refused(f"the zip cannot be read: {error}")


def read_files(source: Source, max_bytes: int = MAX_BYTES) -> dict[str, bytes]:
    """Return the files of a submission by relative path, at most so many bytes. Raises Refused."""
    if isinstance(source, Refused):
        raise source
    if isinstance(source, Path) and source.is_dir():
        return _read_folder(source, max_bytes)
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            return _read_zip(archive, max_bytes)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError, EOFError, ValueError) as error:
        raise Refused(f"the zip cannot be read: {_one_line(str(error))}") from error


def _read_folder(folder: Path, max_bytes: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    total = 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _is_junk(name):
            continue
        kind = path.lstat().st_mode
        if stat.S_ISDIR(kind):
            continue
        if not stat.S_ISREG(kind):
            raise Refused(f"{_shown(name)} is a link or a device; only ordinary files are taken")
        _check_name(name)
        total += path.stat().st_size
        _check_size(len(files) + 1, total, max_bytes)
        files[name] = path.read_bytes()
    return files


def _read_zip(archive: zipfile.ZipFile, max_bytes: int) -> dict[str, bytes]:
    members = archive.infolist()
    _check_size(len(members), sum(member.file_size for member in members), max_bytes)
    files: dict[str, bytes] = {}
    total = 0
    for member in members:
        name = member.filename
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Refused(f"{_shown(name)} is a link or a device; only ordinary files are taken")
        _check_name(name.removesuffix("/"))
        if member.is_dir() or _is_junk(name):
            continue
        if member.flag_bits & 1:
            raise Refused(f"{_shown(name)} is encrypted")
        if name in files:
            raise Refused(f"{_shown(name)} is in the zip twice")
        with archive.open(member) as file:
            files[name] = _bounded(file, max_bytes - total, max_bytes)
        total += len(files[name])
    return files


def _bounded(file: IO[bytes], limit: int, max_bytes: int) -> bytes:
    """Read a file of a zip, which may unpack to more than its header says."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise Refused(f"more than {max_bytes >> 20} MiB unpacked")
    return data


def _check_size(count: int, total: int, max_bytes: int) -> None:
    if count > MAX_FILES:
        raise Refused(f"more than {MAX_FILES} files")
    if total > max_bytes:
        raise Refused(f"more than {max_bytes >> 20} MiB unpacked")


def _check_name(name: str) -> None:
    """Refuse names that lead out of the folder, or that mean different things on different systems."""
    parts = name.split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise Refused(f"{_shown(name)} leads out of the submission's folder")
    if (
        not name
        or any(part in ("", ".") for part in parts)
        or len(name) > 255
        or re.search(r"[\x00-\x1f\x7f\\:]", name)
    ):
        raise Refused(f"{_shown(name)} is not a name for a file")


def _relevant(files: dict[str, bytes], assignment: Assignment) -> tuple[dict[str, bytes], list[str]]:
    """Return the Python files of the assignment's package, and the names of those that have no effect."""
    folder = _package_folder(set(files), assignment)
    if folder is None:
        expected = ", ".join(f"{assignment.name}/{module}.py" for module in assignment.modules)
        raise Refused(f"none of the assignment's files is there; expected {expected}")
    prefix = f"{folder}/" if folder else ""
    kept: dict[str, bytes] = {}
    for name, contents in files.items():
        inside = name.removeprefix(prefix)
        tests = inside.startswith("tests/") or inside in ("conftest.py", "setup.py")
        if name.startswith(prefix) and name.endswith(".py") and not tests:
            kept[f"{assignment.name}/{inside}"] = contents
    taken = {prefix + name.removeprefix(f"{assignment.name}/") for name in kept}
    return kept, sorted(set(files) - taken)


def _package_folder(names: set[str], assignment: Assignment) -> str | None:
    """Return the folder that holds the assignment's modules: called like the package, or else the nearest one."""
    wanted = {f"{module}.py" for module in assignment.modules}
    folders = {str(PurePosixPath(name).parent) for name in names if PurePosixPath(name).name in wanted}
    folders = {"" if folder == "." else folder for folder in folders}
    ranked = sorted(
        folders, key=lambda folder: (PurePosixPath(folder).name != assignment.name, folder.count("/"), folder)
    )
    return ranked[0] if ranked else None


def _is_junk(name: str) -> bool:
    return any(part in JUNK or part.startswith("._") for part in name.split("/"))


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:80] + "…")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _slug(name: str, taken: set[str]) -> str:
    """Return a name for files and links that is plain and not taken yet."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "submission"
    slug, number = plain, 2
    while slug.lower() in taken:
        slug, number = f"{plain}-{number}", number + 1
    return slug
