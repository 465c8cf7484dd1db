"""Traces: which request comes when. They are drawn from a seed, or read from a file of JSON lines."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, cast

import msgspec

from shared_tasks.models.engine import Message
from shared_tasks.tasks.task import prompt

BATCH_SIZES = (1, 1, 1, 1, 1, 1, 2, 2, 4, 8)
"""Prompts of a request, each entry as likely as the others."""
SHOTS = (0, 0, 0, 1, 2)
"""Questions with answers before the question itself, likewise: prompts get longer, and begin alike."""
REPEATED = 0.05
"""The share of requests that ask once more what an earlier one has asked."""


class Request(msgspec.Struct, frozen=True):
    """A request of the trace. All its prompts are answered greedily."""

    arrival: Annotated[float, msgspec.Meta(ge=0)]
    """Seconds after the beginning of the window."""
    prompts: Annotated[list[list[Message]], msgspec.Meta(min_length=1)]
    """Chats; the last message of each is the question."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    """Of each answer."""


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the window in which requests come at one rate."""

    seconds: Annotated[float, msgspec.Meta(gt=0)]
    rate: Annotated[float, msgspec.Meta(gt=0)]
    """Requests a second, on average."""
    burstiness: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """The shape of the gamma distribution of the times between requests: 1 is a Poisson process, less is bursty."""


class Pool(NamedTuple):
    """What a task has to ask."""

    questions: list[str]
    shots: list[tuple[str, str]]
    """Questions with answers, which are none of those asked."""
    max_tokens: int


def arrivals(phases: Sequence[Phase], rng: random.Random) -> Iterator[float]:
    """Yield the times of arrival, in seconds, phase after phase."""
    start = 0.0
    for phase in phases:
        now = 0.0
        while True:
            now += rng.gammavariate(phase.burstiness, 1 / (phase.rate * phase.burstiness))
            if now >= phase.seconds:
                break
            yield start + now
        start += phase.seconds


def draw_trace(phases: Sequence[Phase], pools: Mapping[str, Pool], seed: int) -> list[Request]:
    """Draw a trace: the same from the same seed.

    Tasks are mixed evenly, also within a request, and a question is asked again only when all of its task have been,
    or where a whole request is repeated.
    """
    rng = random.Random(seed)
    decks = {name: _shuffled(pool.questions, rng) for name, pool in pools.items()}
    max_tokens = max(pool.max_tokens for pool in pools.values())  # tells nothing of the task
    requests: list[Request] = []
    for arrival in arrivals(phases, rng):
        if requests and rng.random() < REPEATED:
            prompts = rng.choice(requests).prompts
        else:
            prompts = []
            for _ in range(rng.choice(BATCH_SIZES)):
                name = rng.choice(list(pools))
                shots = pools[name].shots[: rng.choice(SHOTS)]
                prompts.append(list(cast(Sequence[Message], prompt(shots, next(decks[name]), chat=True))))
        requests.append(Request(arrival, prompts, max_tokens))
    return requests


def _shuffled(questions: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Yield all questions in random order, again and again."""
    while True:
        yield from rng.sample(questions, len(questions))


def write_trace(file: Path, trace: Sequence[Request]) -> None:
    """Write a trace, a line a request."""
    file.write_bytes(b"".join(msgspec.json.encode(request) + b"\n" for request in trace))


def read_trace(file: Path) -> list[Request]:
    """Read a trace. Raises ValueError, with the line, for one that is no request or comes before its time."""
    trace: list[Request] = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            trace.append(msgspec.json.decode(line, type=Request))
        except msgspec.DecodeError as error:
            raise ValueError(f"{file}:{number}: {error}") from error
    for number, (before, after) in enumerate(itertools.pairwise(trace), start=2):
        if after.arrival < before.arrival:
            raise ValueError(f"{file}:{number}: expected requests in the order of their arrival")
    return trace
