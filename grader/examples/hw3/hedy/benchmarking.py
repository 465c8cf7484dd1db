"""Measuring latency and throughput, so that the figures mean what they say.

What is measured, the clock and the device are arguments. `clock()` returns seconds from some moment on, as
`time.perf_counter` does. A GPU works behind the program's back: a call gives it work and returns. `synchronize()`
returns when all work that was given is done, as `torch.cuda.synchronize` does; on a CPU it has nothing to do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Setting = TypeVar("Setting")
Clock = Callable[[], float]
Action = Callable[[], object]


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
    _check_counts(warmup, repeats)
    for _ in range(warmup):
        run()
    return [_timed(run, clock, synchronize) for _ in range(repeats)]


def summarize(seconds: Sequence[float]) -> Summary:
    """Return median and quartiles.

    The quantile q of n sorted values is at place q * (n - 1), counted from 0; between two places it is interpolated
    linearly. Raises ValueError without values.
    """
    if not seconds:
        raise ValueError("expected at least one measurement to summarise, got none")
    values = sorted(seconds)
    return Summary(median=_quantile(values, 0.5), lower=_quantile(values, 0.25), upper=_quantile(values, 0.75))


def time_generation(
    prefill: Action, decode: Action, *, prompt_tokens: int, num_tokens: int, clock: Clock, synchronize: Action
) -> Request:
    """Generate tokens and note when each is there: the first comes from `prefill`, the others from calls of `decode`.

    The request is sent when the device has nothing left to do, just before the call of `prefill`. A token is there when
    the device has computed it. Nothing is called more often than there are tokens. Raises ValueError unless num_tokens
    >= 1.
    """
    if num_tokens < 1:
        raise ValueError(f"expected num_tokens of at least 1, got {num_tokens}")

    def now() -> float:
        synchronize()
        return clock()

    sent = now()
    times = []
    for number in range(num_tokens):
        (decode if number else prefill)()
        times.append(now())
    return Request(prompt_tokens, sent, times)


def latency(request: Request) -> Latency:
    """Return the latencies of a request. Raises ValueError for one without tokens."""
    times = request.token_times
    if not times:
        raise ValueError("expected a request with at least one generated token, got none")
    first, last = times[0], times[-1]
    tpot = (last - first) / (len(times) - 1) if len(times) > 1 else None
    return Latency(ttft=first - request.sent, tpot=tpot, end_to_end=last - request.sent)


def throughput(requests: Sequence[Request]) -> Throughput:
    """Return tokens generated and requests answered a second, from the first request sent to the last token of all.

    Requests come in any order and may overlap, as those of a batch do. Tokens of prompts do not count. Raises
    ValueError without requests.
    """
    seconds = _span(requests)
    tokens = sum(len(request.token_times) for request in requests)
    return Throughput(tokens / seconds, len(requests) / seconds)


def goodput(requests: Sequence[Request], *, max_ttft: float, max_tpot: float) -> float:
    """Return how many requests a second are answered within both limits, in the same time as for `throughput`.

    A latency that equals its limit is within it, and a single token is within any limit of TPOT. Raises ValueError
    without requests.

    Paper: Zhong et al., 2024, "DistServe", https://arxiv.org/abs/2401.09670.
    """
    seconds = _span(requests)
    good = 0
    for request in requests:
        if not request.token_times:
            continue  # was never answered
        own = latency(request)
        good += own.ttft <= max_ttft and (own.tpot is None or own.tpot <= max_tpot)
    return good / seconds


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
    _check_counts(warmup, repeats)
    times: list[list[float]] = [[] for _ in settings]
    for number in range(warmup + repeats):
        for setting, own in zip(settings, times, strict=True):
            # what prepare gives the device is done before the clock starts: _timed waits first
            seconds = _timed(prepare(setting), clock, synchronize)
            if number >= warmup:
                own.append(seconds)
    return [summarize(own) for own in times]


def _check_counts(warmup: int, repeats: int) -> None:
    if warmup < 0 or repeats < 1:
        raise ValueError(f"expected warmup >= 0 and repeats >= 1, got {warmup} and {repeats}")


def _timed(run: Action, clock: Clock, synchronize: Action) -> float:
    """Return the seconds of one call, from an idle device to an idle device."""
    synchronize()
    begin = clock()
    run()
    synchronize()
    return clock() - begin


def _quantile(ordered: Sequence[float], q: float) -> float:
    place = q * (len(ordered) - 1)
    below = int(place)
    share = place - below
    if share == 0:
        return ordered[below]
    return ordered[below] + share * (ordered[below + 1] - ordered[below])


def _span(requests: Sequence[Request]) -> float:
    """Return the time from the first request sent to the last token of all."""
    if not requests:
        raise ValueError("expected at least one request, got none")
    ends = [time for request in requests for time in request.token_times]
    if not ends:
        raise ValueError("expected a request with a generated token, got none")
    return max(ends) - min(request.sent for request in requests)
