"""What a model answered, kept line by line as it comes, so that a run that was stopped goes on where it was."""

import fcntl
import hashlib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from shared_tasks.models.engine import Generation, LogLikelihood
from shared_tasks.tasks.reading import DataError


class Answer(msgspec.Struct):
    """What an engine returned for one prompt: what it generated, or how likely it finds each option."""

    key: str
    generation: Generation | None = None
    options: list[LogLikelihood] = []
    exceeded: str = ""
    """Why there is no answer, where the question's token budget was too small for one."""


def key_of(**parts: Any) -> str:
    """Return a key that changes with everything that it is made from."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]


class Answers:
    """The answers in a file, by key. One process at a time writes to it.

    Raises BlockingIOError when another process holds the file, and DataError for a line that is no answer. A last line
    that was not written to its end is dropped.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise BlockingIOError(
                f"{path.parent}: another run is writing there; wait for it, or choose another --out"
            ) from None
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        self._file.truncate(whole)
        self._answers: dict[str, Answer] = {}
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                answer = msgspec.json.decode(line, type=Answer)
            except msgspec.DecodeError as error:
                raise DataError(f"{path}, line {number}: not a stored answer ({error}); delete the line") from None
            self._answers[answer.key] = answer

    def get(self, key: str) -> Answer | None:
        """Return the answer with this key, if it is there."""
        return self._answers.get(key)

    def add(self, answer: Answer) -> None:
        """Keep an answer; it is in the file when this returns."""
        self._answers[answer.key] = answer
        self._file.write(msgspec.json.encode(answer) + b"\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
