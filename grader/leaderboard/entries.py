"""Taking entries in: what they are, and the copy of their files that is evaluated."""

import ast
import hashlib
import importlib.util
import os
import zipfile
from datetime import datetime
from pathlib import Path, PurePosixPath

from grader.leaderboard.queue import Entry, Queue, Role, Track
from grader.leaderboard.rules import Rules
from grader.reports import visible_text
from grader.serving.report import BASELINES, CEILING
from grader.serving.rules import load_configuration
from grader.submissions import Refused, read_files

MARKS: dict[str, Track] = {"system.py": "systems", "serve.toml": "servers"}
"""The file by which an entry is known for what it is."""
LONGEST_TITLE = 60  # characters
OF_THE_KIT = "kit:"


def submit(
    queue: Queue,
    board: Path,
    rules: Rules,
    source: Path,
    student: str,
    now: datetime,
    role: Role = "student",
    track: Track | None = None,
) -> tuple[Entry, bool]:
    """Enter a folder or a zip, and return the entry and whether it is new.

    The track is that of the file that is there, a system.py or a serve.toml. Raises Refused with one line for what is
    neither, or both, and for a student who has used up the day's entries.
    """
    files = read_files(source, load_configuration().limits.submission_bytes)
    names = [PurePosixPath(name).name for name in files]
    several = [mark for mark in MARKS if names.count(mark) > 1]
    if several:
        raise Refused(f"there are {names.count(several[0])} files called {several[0]}; enter one submission at a time")
    there = [of_file for file, of_file in MARKS.items() if file in names and track in (None, of_file)]
    if len(there) != 1:
        what = "both a system.py and a serve.toml; say which with --track" if there else f"no {' or '.join(MARKS)}"
        raise Refused(f"there is {what}")
    hashed = hashlib.sha256(f"{student}\0{role}\0".encode())
    for name, contents in sorted(files.items()):
        hashed.update(f"{name}\0{hashlib.sha256(contents).hexdigest()}\n".encode())
    digest = hashed.hexdigest()[:32]
    _keep(board / "entries" / f"{digest}.zip", files)  # before the entry: one without its files could not be evaluated
    title = title_of(files) if there == ["systems"] else ""
    return queue.submit(student, there[0], title, digest, now, rules.day(now), rules.entries_per_day, role)


def submit_kit_servers(queue: Queue, rules: Rules, now: datetime) -> None:
    """Enter the kit's own servers, which have no files, where they have not been: baselines, and vLLM's if here."""
    roles: dict[str, Role] = dict.fromkeys(rules.servers.baselines, "baseline")
    if importlib.util.find_spec("vllm") is not None:
        roles[CEILING] = "ceiling"
    for system, role in roles.items():
        digest = f"{OF_THE_KIT}{system}"
        queue.submit(BASELINES, "servers", system, digest, now, rules.day(now), rules.entries_per_day, role)


def kit_system(entry: Entry) -> str | None:
    """Return which of the kit's own servers an entry is; None for one with files."""
    return entry.digest.removeprefix(OF_THE_KIT) if entry.digest.startswith(OF_THE_KIT) else None


def kept(board: Path, entry: Entry) -> Path:
    """Return the zip with an entry's files."""
    return board / "entries" / f"{entry.digest}.zip"


def title_of(files: dict[str, bytes]) -> str:
    """Return how a system calls itself: the first line of system.py's docstring, up to a colon."""
    (place,) = (name for name in files if PurePosixPath(name).name == "system.py")
    try:
        words = ast.get_docstring(ast.parse(files[place])) or ""
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        words = ""
    title = visible_text(words.split("\n")[0].split(":")[0].strip().rstrip("."))
    return title if len(title) <= LONGEST_TITLE else title[: LONGEST_TITLE - 1] + "…"


def _keep(file: Path, files: dict[str, bytes]) -> None:
    """Write a zip, whole or not at all."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    new.replace(file)
