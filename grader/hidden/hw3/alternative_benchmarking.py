"""Another correct solution of hw3.benchmarking: no shared loop, Python's own statistics, fractions."""

import itertools
import statistics
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Summary:
    """Median and quartiles."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Request:
    """When tokens came."""

    prompt_tokens: int
    sent: float
    token_times: list[float]


@dataclass(frozen=True)
class Latency:
    """How long a user waits."""

    ttft: float
    tpot: float | None
    end_to_end: float


@dataclass(frozen=True)
class Throughput:
    """What gets done."""

    output_tokens_per_second: float
    requests_per_second: float


def _stopwatch(run, clock, synchronize):
    synchronize()
    start = clock()
    run()
    synchronize()
    return clock() - start


def measure(run, *, clock, synchronize, warmup, repeats):
    """Warm up, then time."""
    if warmup < 0:
        raise ValueError(f"expected a number of warm-up calls of 0 or more, got {warmup}")
    if repeats < 1:
        raise ValueError(f"expected 1 repetition or more, got {repeats}")
    while warmup:
        run()
        warmup -= 1
    return tuple(_stopwatch(run, clock, synchronize) for _ in range(repeats))


def summarize(seconds):
    """Let the standard library interpolate."""
    if len(seconds) == 0:
        raise ValueError("expected times, got none")
    if len(seconds) == 1:
        return Summary(seconds[0], seconds[0], seconds[0])
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Summary(median, lower, upper)


def time_generation(prefill, decode, *, prompt_tokens, num_tokens, clock, synchronize):
    """Add times up."""
    if num_tokens < 1:
        raise ValueError(f"expected 1 token or more, got {num_tokens}")
    synchronize()
    sent = clock()

    def token(step):
        step()
        synchronize()
        return clock()

    times = [token(prefill)]
    while len(times) < num_tokens:
        times.append(token(decode))
    return Request(token_times=times, sent=sent, prompt_tokens=prompt_tokens)


def latency(request):
    """Average the steps."""
    times = request.token_times
    if len(times) == 0:
        raise ValueError("expected tokens")
    steps = [after - before for before, after in itertools.pairwise(times)]
    return Latency(times[0] - request.sent, statistics.fmean(steps) if steps else None, times[-1] - request.sent)


def _per_second(count, requests):
    if len(requests) == 0:
        raise ValueError("expected requests")
    ends = [time for request in requests for time in request.token_times]
    return float(count / (Fraction(max(ends)) - Fraction(min(request.sent for request in requests))))


def throughput(requests):
    """Count tokens and requests."""
    tokens = [time for request in requests for time in request.token_times]
    return Throughput(_per_second(len(tokens), requests), _per_second(len(requests), requests))


def goodput(requests, *, max_ttft, max_tpot):
    """Count requests that nobody complains about."""
    good = 0
    for request in requests:
        first, last = request.token_times[0], request.token_times[-1]
        slow = last - first > max_tpot * (len(request.token_times) - 1)
        if not slow and not first - request.sent > max_ttft:
            good += 1
    return _per_second(good, requests)


def sweep(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Go round."""
    if warmup < 0 or repeats < 1:
        raise ValueError(f"expected warm-up rounds of 0 or more and 1 repetition or more, got {warmup}, {repeats}")
    for _ in range(warmup):
        for setting in settings:
            prepare(setting)()
    rounds = [[_stopwatch(prepare(setting), clock, synchronize) for setting in settings] for _ in range(repeats)]
    return [summarize(times) for times in zip(*rounds, strict=True)]
