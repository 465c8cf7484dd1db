"""What has been graded, in SQLite: written as it comes, so that an interrupted run goes on where it was."""

import sqlite3
from pathlib import Path

import msgspec

from grader.results import SubmissionResult

SCHEMA = """
CREATE TABLE IF NOT EXISTS submission (
    slug TEXT PRIMARY KEY, name TEXT NOT NULL, key TEXT NOT NULL, points REAL NOT NULL, max_points REAL NOT NULL,
    refusal TEXT NOT NULL, seconds REAL NOT NULL, result TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS test (
    slug TEXT NOT NULL, test TEXT NOT NULL, problem TEXT NOT NULL, visibility TEXT NOT NULL, outcome TEXT NOT NULL,
    points REAL NOT NULL, max_points REAL NOT NULL, wall_seconds REAL NOT NULL,
    PRIMARY KEY (slug, visibility, test)
);
"""


class Store:
    """The results of one output folder. A key says what a result depends on: the submission and the judge."""

    def __init__(self, path: Path):
        self._connection = sqlite3.connect(path)
        self._connection.executescript(SCHEMA)

    def get(self, slug: str, key: str) -> SubmissionResult | None:
        """Return the stored result, or None when there is none for this key."""
        query = "SELECT result FROM submission WHERE slug = ? AND key = ?"
        row = self._connection.execute(query, (slug, key)).fetchone()
        return msgspec.json.decode(row[0], type=SubmissionResult) if row else None

    def put(self, key: str, result: SubmissionResult) -> None:
        """Keep a result at once and whole, in place of an older one."""
        tests = [
            (result.slug, t.test, t.problem, t.visibility, t.outcome, t.points, t.max_points, t.usage.wall_seconds)
            for t in result.tests
        ]
        row = (result.slug, result.name, key, result.points, result.max_points, result.refusal, result.seconds)
        with self._connection as transaction:
            transaction.execute("DELETE FROM test WHERE slug = ?", (result.slug,))
            transaction.executemany("INSERT INTO test VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tests)
            transaction.execute(
                "INSERT OR REPLACE INTO submission VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, msgspec.json.encode(result).decode()),
            )

    def keep_only(self, slugs: list[str]) -> None:
        """Forget the submissions that are no longer in the cohort."""
        with self._connection as transaction:
            for (slug,) in transaction.execute("SELECT slug FROM submission").fetchall():
                if slug not in slugs:
                    transaction.execute("DELETE FROM test WHERE slug = ?", (slug,))
                    transaction.execute("DELETE FROM submission WHERE slug = ?", (slug,))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
