"""What became of the requests of a trace, in numbers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import numpy as np

from final_project.trace import Pool, Request
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.registry import TASKS
from shared_tasks.tasks.task import Output, Task

ASKED = ("math", "multiple_choice", "open_ended")
"""The tasks of the load test."""
CUT_OFF = "not answered when the window ended"


class Record(msgspec.Struct):
    """What became of a request. Times are in seconds after the beginning of the window."""

    arrival: float
    """As planned."""
    sent: float | None = None
    """Later than `arrival` where too many requests were in flight; None if it never was."""
    first_token: float | None = None
    end: float | None = None
    status: int | None = None
    """Of HTTP."""
    error: str = CUT_OFF
    """Why it was not served; empty if it was."""
    texts: list[str] = []
    """The answer to each prompt."""
    tokens: list[int] = []
    """Of each answer, counted from its text."""
    claimed_tokens: int | None = None
    """Of all answers, as the server says."""

    @property
    def served(self) -> bool:
        """Whether all its prompts were answered in the window."""
        return not self.error

    @property
    def time_to_first_token(self) -> float | None:
        """From the planned arrival to the first piece of an answer: waiting in the client counts."""
        return None if self.first_token is None else self.first_token - self.arrival

    @property
    def time_per_output_token(self) -> float | None:
        """From a token to the next, on average over the request's longest answer; None for an answer of one token."""
        longest = max(self.tokens, default=0)
        if self.first_token is None or self.end is None or longest < 2:
            return None
        return (self.end - self.first_token) / (longest - 1)

    @property
    def end_to_end(self) -> float | None:
        """From the planned arrival to the end of the last answer."""
        return None if self.end is None else self.end - self.arrival


class Quantiles(msgspec.Struct, frozen=True):
    """Of a latency, in seconds, over the requests that were served."""

    p50: float
    p90: float
    p99: float


class Accuracy(msgspec.Struct, frozen=True):
    """Of a task, over the prompts that were answered."""

    value: float
    standard_error: float
    answers: int


class Summary(msgspec.Struct, frozen=True):
    """A window in numbers."""

    seconds: float
    requests: int
    served: int
    requests_per_second: float
    tokens_per_second: float
    errors: dict[str, int]
    """How often each, the most frequent first."""
    latencies: dict[str, Quantiles]
    """time_to_first_token, time_per_output_token and end_to_end, where there is one."""
    accuracy: dict[str, Accuracy]
    """By task."""


LATENCIES = ("time_to_first_token", "time_per_output_token", "end_to_end")

Questions = dict[str, tuple[str, Any]]
"""From a question as it is asked to its task's name and the item, with which an answer to it can be scored."""


def load_questions(split: str | None = None, data: Path | None = None) -> tuple[dict[str, Pool], Questions]:
    """Load what the load test asks: an embedded split, or the files TASK.jsonl of a folder."""
    pools: dict[str, Pool] = {}
    questions: Questions = {}
    for name in ASKED:
        task = TASKS[name]
        items = load(task, split, data / f"{name}.jsonl" if data else None)
        own = {_question(task, item): (name, item) for item in items}
        shots = [(_question(task, item), task.answer(item, task.styles[0])) for item in load(task, "train", limit=2)]
        pools[name] = Pool(list(own), shots, task.max_tokens)
        questions |= own
    return pools, questions


def _question(task: Task[Any], item: Any) -> str:
    (asked,) = task.questions(item, task.styles[0])
    return asked


def scores(trace: Sequence[Request], records: Sequence[Record], questions: Questions) -> dict[str, list[float]]:
    """Return the scores of all answers by task; questions that are not known are left out.

    An answer of more tokens than were asked for is worth nothing.
    """
    found: dict[str, list[float]] = {name: [] for name in ASKED}
    for request, record in zip(trace, records, strict=True):
        if not record.served:
            continue
        for chat, text, tokens in zip(request.prompts, record.texts, record.tokens, strict=True):
            known = questions.get(chat[-1]["content"])
            if known is not None:
                name, item = known
                score = TASKS[name].score(item, [Output(text)]).score if tokens <= request.max_tokens else 0.0
                found[name].append(score or 0.0)
    return {name: values for name, values in found.items() if values}


def summarize(records: Sequence[Record], scores: Mapping[str, Sequence[float]], seconds: float) -> Summary:
    """Put a window of so many seconds into numbers."""
    served = [record for record in records if record.served]
    errors = Counter(record.error for record in records if not record.served)
    tokens = sum(sum(record.tokens) for record in served)
    latencies = {
        name: [value for record in served if (value := getattr(record, name)) is not None] for name in LATENCIES
    }
    return Summary(
        seconds=seconds,
        requests=len(records),
        served=len(served),
        requests_per_second=len(served) / seconds,
        tokens_per_second=tokens / seconds,
        errors=dict(errors.most_common()),
        latencies={name: quantiles(values) for name, values in latencies.items() if values},
        accuracy={name: Accuracy(mean(values), standard_error(values), len(values)) for name, values in scores.items()},
    )


def quantiles(values: Sequence[float]) -> Quantiles:
    """Return median, 90th and 99th percentile, with linear interpolation between neighbours."""
    return Quantiles(*(float(value) for value in np.percentile(values, (50, 90, 99))))
