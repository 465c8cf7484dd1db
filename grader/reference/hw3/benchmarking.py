"""Measuring latency and throughput, so that the figures mean what they say.

What is measured, the clock and the device are arguments. `clock()` returns seconds from some moment on, as
`time.perf_counter` does. A GPU works behind the program's back: a call gives it work and returns. `synchronize()`
returns when all work that was given is done, as `torch.cuda.synchronize` does; on a CPU it has nothing to do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

Setting = TypeVar("Setting")
Clock = Callable[[], float]
Action = Callable[[], object]

QUARTILES = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)


@dataclass(frozen=True)
class Summary:
    """What to report of repeated measurements, in seconds."""

    median: float
    lower: float
    """The quartile below the median."""
    upper: float
    """The quartile above it."""


@dataclass(frozen=True)
class Request:
    """When the tokens of a request came, in seconds of one clock."""

    prompt_tokens: int
    sent: float
    token_times: list[float]
    """Of each generated token, in order."""


@dataclass(frozen=True)
class Latency:
    """How long a user waits, in seconds."""

    ttft: float
    """Time to first token."""
    tpot: float | None
    """Time per output token: the mean time from one token to the next, None for a single token."""
    end_to_end: float
    """Until the last token."""


@dataclass(frozen=True)
class Throughput:
    """What a system gets done a second."""

    output_tokens_per_second: float
    requests_per_second: float


def measure(run: Action, *, clock: Clock, synchronize: Action, warmup: int, repeats: int) -> list[float]:
    """Return the seconds that each of `repeats` calls of `run` takes, after `warmup` calls that are not timed.

    A time begins when the device has nothing left to do, and ends when it has done what the call gave it. Raises
    ValueError unless warmup >= 0 and repeats >= 1.
    """
    (seconds,) = _measure_in_turns([lambda: run], clock, synchronize, warmup, repeats)
    return seconds


def summarize(seconds: Sequence[float]) -> Summary:
    """Return median and quartiles.

    The quantile q of n sorted values is at place q * (n - 1), counted from 0; between two places it is interpolated
    linearly. Raises ValueError without values.
    """
    if not seconds:
        raise ValueError("expected at least one time, got none")
    lower, median, upper = torch.tensor(seconds, dtype=torch.float64).quantile(QUARTILES).tolist()
    return Summary(median, lower, upper)


def time_generation(
    prefill: Action, decode: Action, *, prompt_tokens: int, num_tokens: int, clock: Clock, synchronize: Action
) -> Request:
    """Generate tokens and note when each is there: the first comes from `prefill`, the others from calls of `decode`.

    The request is sent when the device has nothing left to do, just before the call of `prefill`. A token is there when
    the device has computed it. Both together are called as often as there are tokens. Raises ValueError unless
    num_tokens >= 1.
    """
    if num_tokens < 1:
        raise ValueError(f"expected at least one token, got {num_tokens}")
    synchronize()
    sent = clock()
    token_times = []
    for step in [prefill] + [decode] * (num_tokens - 1):
        step()
        synchronize()
        token_times.append(clock())
    return Request(prompt_tokens, sent, token_times)


def latency(request: Request) -> Latency:
    """Return the latencies of a request. Raises ValueError for one without tokens."""
    if not request.token_times:
        raise ValueError("expected a request with tokens, got one without")
    first, last = request.token_times[0], request.token_times[-1]
    steps = len(request.token_times) - 1
    return Latency(first - request.sent, (last - first) / steps if steps else None, last - request.sent)


def throughput(requests: Sequence[Request]) -> Throughput:
    """Return tokens generated and requests answered a second, from the first request sent to the last token of all.

    Requests come in any order and may overlap, as those of a batch do. Tokens of prompts do not count. Raises
    ValueError without requests.
    """
    seconds = _duration(requests)
    tokens = sum(len(request.token_times) for request in requests)
    return Throughput(tokens / seconds, len(requests) / seconds)


def goodput(requests: Sequence[Request], *, max_ttft: float, max_tpot: float) -> float:
    """Return how many requests a second are answered within both limits, in the same time as for `throughput`.

    A latency that equals its limit is within it, and a single token is within any limit of TPOT. Raises ValueError
    without requests.

    Paper: Zhong et al., 2024, "DistServe", https://arxiv.org/abs/2401.09670.
    """
    seconds = _duration(requests)
    latencies = [latency(request) for request in requests]
    return sum(found.ttft <= max_ttft and (found.tpot or 0.0) <= max_tpot for found in latencies) / seconds


def sweep(
    prepare: Callable[[Setting], Action],
    settings: Sequence[Setting],
    *,
    clock: Clock,
    synchronize: Action,
    warmup: int,
    repeats: int,
) -> list[Summary]:
    """Return for each setting, a batch size or a length, the summary of its `repeats` times.

    Settings take turns: in a round each is run once, in their order, so that a machine that slows down slows all of
    them. `warmup` rounds that are not timed come first. `prepare(setting)` makes fresh input and returns what to run;
    it is called anew for every run, and neither its time nor that of the work it gives the device is counted. Raises
    ValueError unless warmup >= 0 and repeats >= 1.
    """
    prepared = [partial(prepare, setting) for setting in settings]
    return [summarize(seconds) for seconds in _measure_in_turns(prepared, clock, synchronize, warmup, repeats)]


def _measure_in_turns(
    prepares: Sequence[Callable[[], Action]], clock: Clock, synchronize: Action, warmup: int, repeats: int
) -> list[list[float]]:
    """Return the times of each kind of run, in rounds of one run of each."""
    if warmup < 0 or repeats < 1:
        raise ValueError(f"expected warmup >= 0 and repeats >= 1, got {warmup} and {repeats}")
    times: list[list[float]] = [[] for _ in prepares]
    for _ in range(warmup + repeats):
        for prepare, seconds in zip(prepares, times, strict=True):
            run = prepare()
            synchronize()
            begin = clock()
            run()
            synchronize()
            seconds.append(clock() - begin)
    return [seconds[warmup:] for seconds in times]


def _duration(requests: Sequence[Request]) -> float:
    """Return the seconds from the first request sent to the last token of all."""
    if not requests:
        raise ValueError("expected at least one request, got none")
    return max(request.token_times[-1] for request in requests) - min(request.sent for request in requests)
