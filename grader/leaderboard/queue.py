"""The queue of a board, in SQLite: what was entered, how far its evaluation is, and what the judge has measured.

Every step is one transaction, and a worker that dies leaves an evaluation running that nobody runs: `recover` queues it
again. There is one worker at a time (`alone`), since a load test wants the machine for itself.
"""

import contextlib
import fcntl
import sqlite3
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from grader.assignment import UnusableInput
from grader.submissions import Refused

Track = Literal["systems", "servers"]
Role = Literal["student", "baseline", "ceiling"]
State = Literal["queued", "running", "done", "failed"]
SPLITS = ("dev_test", "hidden")
"""In the order in which an entry is evaluated: the public board is filled first."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    student TEXT NOT NULL,
    track TEXT NOT NULL CHECK (track IN ('systems', 'servers')),
    role TEXT NOT NULL CHECK (role IN ('student', 'baseline', 'ceiling')),
    title TEXT NOT NULL, digest TEXT NOT NULL, received TEXT NOT NULL, day TEXT NOT NULL,
    UNIQUE (student, track, digest)
);
CREATE TABLE IF NOT EXISTS evaluation (
    entry INTEGER NOT NULL REFERENCES entry, split TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
    attempts INTEGER NOT NULL, reason TEXT NOT NULL, conditions TEXT NOT NULL,
    PRIMARY KEY (entry, split)
);
CREATE TABLE IF NOT EXISTS run (
    entry INTEGER NOT NULL, split TEXT NOT NULL, variant TEXT NOT NULL, result BLOB NOT NULL,
    PRIMARY KEY (entry, split, variant)
);
"""


class Entry(NamedTuple):
    """Something that was entered."""

    id: int
    student: str
    track: Track
    role: Role
    title: str
    """In its author's words."""
    digest: str
    """Of its files."""
    received: datetime


class Evaluation(NamedTuple):
    """An entry on a split."""

    entry: Entry
    split: str
    state: State
    reason: str
    """Why it failed; empty if it did not."""


class Failed(Exception):
    """An entry that cannot be evaluated, by its own fault; the message is one line."""


Runs = Mapping[str, bytes]
"""What was measured, by variant: a token budget, or a system of a server."""


class Queue:
    """The database of one board."""

    def __init__(self, path: Path):
        """Open it, or make it."""
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=30)  # transactions begin by hand
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")  # what is committed survives a kill, and costs no wait
        self._connection.executescript(SCHEMA)

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    # Entering

    def submit(
        self,
        student: str,
        track: Track,
        title: str,
        digest: str,
        received: datetime,
        day: str,
        per_day: int,
        role: Role = "student",
    ) -> tuple[Entry, bool]:
        """Enter files, and return the entry and whether it is new: the same files again are the entry they were.

        Raises Refused for a student who has entered `per_day` others on this day.
        """
        with self._transaction() as transaction:
            known = self._entries("student = ? AND track = ? AND digest = ?", student, track, digest)
            if known:
                return known[0], False
            query = "SELECT count(*) FROM entry WHERE student = ? AND day = ? AND role = 'student'"
            (today,) = transaction.execute(query, (student, day)).fetchone()
            if role == "student" and today >= per_day:
                raise Refused(f"{today} of {per_day} entries of {day} are used; the next one can come tomorrow")
            row = (student, track, role, title, digest, received.astimezone(UTC).isoformat(), day)
            columns = "student, track, role, title, digest, received, day"
            made = transaction.execute(f"INSERT INTO entry ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            transaction.executemany(
                "INSERT INTO evaluation VALUES (?, ?, 'queued', 0, '', '')",
                [(made.lastrowid, split) for split in SPLITS],
            )
            return self._entries("id = ?", made.lastrowid)[0], True

    # Evaluating

    def recover(self) -> None:
        """Queue what a worker was at when it died. Only who is `alone` may call this."""
        with self._transaction() as transaction:
            transaction.execute("UPDATE evaluation SET state = 'queued' WHERE state = 'running'")

    def renew(self, track: Track, split: str, conditions: str) -> None:
        """Queue what was evaluated under other conditions (another model, other data): a board compares alike."""
        with self._transaction() as transaction:
            transaction.execute(
                "UPDATE evaluation SET state = 'queued', attempts = 0, reason = '' "
                "WHERE split = ? AND state IN ('done', 'failed') AND conditions != ? "
                "AND entry IN (SELECT id FROM entry WHERE track = ?)",
                (split, conditions, track),
            )

    def again(self, entry: int, split: str) -> Entry:
        """Queue an evaluation that has ended, or failed, once more, and return its entry. Raises UnusableInput."""
        with self._transaction() as transaction:
            found = self._entries("id = ?", entry)
            if not found:
                raise UnusableInput(f"there is no entry {entry}")
            transaction.execute(
                "UPDATE evaluation SET state = 'queued', attempts = 0, reason = '' WHERE entry = ? AND split = ?",
                (entry, split),
            )
            return found[0]

    def claim(self, splits: Sequence[str], leave: Container[tuple[int, str]] = ()) -> Evaluation | None:
        """Return the next evaluation, which is running from now on; None when there is none but those to leave.

        Those that were begun the fewest times come first, so that one at which the judge dies holds up no other.
        """
        with self._transaction() as transaction:
            rows = transaction.execute(
                "SELECT entry, split FROM evaluation WHERE state = 'queued' ORDER BY split != ?, attempts, entry",
                SPLITS[:1],
            ).fetchall()
            for key in rows:
                if key[1] in splits and key not in leave:
                    change = "UPDATE evaluation SET state = 'running', attempts = attempts + 1 "
                    transaction.execute(change + "WHERE entry = ? AND split = ?", key)
                    return Evaluation(self._entries("id = ?", key[0])[0], key[1], "running", "")
        return None

    def finish(self, evaluation: Evaluation, runs: Runs, conditions: str) -> None:
        """Keep what was measured, whole."""
        key = (evaluation.entry.id, evaluation.split)
        with self._transaction() as transaction:
            transaction.execute("DELETE FROM run WHERE entry = ? AND split = ?", key)
            rows = [(*key, variant, result) for variant, result in runs.items()]
            transaction.executemany("INSERT INTO run VALUES (?, ?, ?, ?)", rows)
            self._move(evaluation, "done", "", conditions)

    def fail(self, evaluation: Evaluation, reason: str, conditions: str) -> None:
        """Say why there is nothing to measure."""
        key = (evaluation.entry.id, evaluation.split)
        with self._transaction() as transaction:
            transaction.execute("DELETE FROM run WHERE entry = ? AND split = ?", key)
            self._move(evaluation, "failed", reason, conditions)

    def put_back(self, evaluation: Evaluation) -> None:
        """Queue an evaluation again that the judge could not do."""
        with self._transaction():
            self._move(evaluation, "queued", "", "")

    def _move(self, evaluation: Evaluation, state: State, reason: str, conditions: str) -> None:
        changed = self._connection.execute(
            "UPDATE evaluation SET state = ?, reason = ?, conditions = ? "
            "WHERE entry = ? AND split = ? AND state = 'running'",
            (state, reason, conditions, evaluation.entry.id, evaluation.split),
        )
        assert changed.rowcount == 1, "only what runs can end"

    # Reading

    def tracks(self) -> list[Track]:
        """Return the tracks in which something was entered."""
        return [track for (track,) in self._connection.execute("SELECT DISTINCT track FROM entry ORDER BY track DESC")]

    def evaluations(self, split: str) -> list[Evaluation]:
        """Return all entries on a split, in the order in which they came."""
        states = {
            entry: (state, reason)
            for entry, state, reason in self._connection.execute(
                "SELECT entry, state, reason FROM evaluation WHERE split = ?", (split,)
            )
        }
        return [Evaluation(entry, split, *states[entry.id]) for entry in self._entries("1")]

    def runs(self, split: str) -> dict[tuple[int, str], bytes]:
        """Return what was measured on a split, by entry and variant, of the evaluations that are done."""
        query = (
            "SELECT run.entry, variant, result FROM run JOIN evaluation USING (entry, split) "
            "WHERE split = ? AND state = 'done' ORDER BY run.entry, run.rowid"
        )
        return {(entry, variant): result for entry, variant, result in self._connection.execute(query, (split,))}

    def _entries(self, condition: str, *values: object) -> list[Entry]:
        columns = "id, student, track, role, title, digest, received"
        query = f"SELECT {columns} FROM entry WHERE {condition} ORDER BY id"
        rows = self._connection.execute(query, values).fetchall()
        return [Entry._make([*row[:-1], datetime.fromisoformat(row[-1])]) for row in rows]


@contextlib.contextmanager
def alone(board: Path) -> Iterator[None]:
    """Be the only worker of a board, until the block ends or the process dies. Raises UnusableInput."""
    with (board / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnusableInput(f"{board}: another run evaluates this board; wait for it to end") from None
        yield


class Trouble(NamedTuple):
    """An evaluation that the judge could not do, and why; it is in the queue again."""

    evaluation: Evaluation
    error: Exception


def work(
    queue: Queue,
    evaluate: Callable[[Entry, str], Runs],
    conditions: Callable[[Track, str], str],
    splits: Sequence[str],
    on_end: Callable[[Evaluation, str], None] = lambda evaluation, reason: None,
) -> list[Trouble]:
    """Evaluate what is queued, one after the other, and return what the judge could not do.

    `evaluate` measures an entry on a split, or raises Failed. `conditions` says what results of a track on a split must
    share to be compared. `on_end` is told of each evaluation that ended, with the reason if it failed.
    """
    queue.recover()
    for track in queue.tracks():
        for split in splits:
            queue.renew(track, split, conditions(track, split))
    troubles: list[Trouble] = []
    left: set[tuple[int, str]] = set()
    while (evaluation := queue.claim(splits, left)) is not None:
        entry, split = evaluation.entry, evaluation.split
        try:
            runs = evaluate(entry, split)
        except Failed as failed:
            queue.fail(evaluation, str(failed), conditions(entry.track, split))
            on_end(evaluation, str(failed))
        except Exception as error:  # the judge's fault: it must cost the entry nothing, and the others neither
            queue.put_back(evaluation)
            left.add((entry.id, split))
            troubles.append(Trouble(evaluation, error))
        else:
            queue.finish(evaluation, runs, conditions(entry.track, split))
            on_end(evaluation, "")
    return troubles
