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
    raise NotImplementedError


def summarize(seconds: Sequence[float]) -> Summary:
    """Return median and quartiles.

    The quantile q of n sorted values is at place q * (n - 1), counted from 0; between two places it is interpolated
    linearly. Raises ValueError without values.
    """
    raise NotImplementedError


def time_generation(
    prefill: Action, decode: Action, *, prompt_tokens: int, num_tokens: int, clock: Clock, synchronize: Action
) -> Request:
    """Generate tokens and note when each is there: the first comes from `prefill`, the others from calls of `decode`.

    The request is sent when the device has nothing left to do, just before the call of `prefill`. A token is there when
    the device has computed it. Both together are called as often as there are tokens. Raises ValueError unless
    num_tokens >= 1.
    """
    raise NotImplementedError


def latency(request: Request) -> Latency:
    """Return the latencies of a request. Raises ValueError for one without tokens."""
    raise NotImplementedError


def throughput(requests: Sequence[Request]) -> Throughput:
    """Return tokens generated and requests answered a second, from the first request sent to the last token of all.

    Requests come in any order and may overlap, as those of a batch do. Tokens of prompts do not count. Raises
    ValueError without requests.
    """
    raise NotImplementedError


def goodput(requests: Sequence[Request], *, max_ttft: float, max_tpot: float) -> float:
    """Return how many requests a second are answered within both limits, in the same time as for `throughput`.

    A latency that equals its limit is within it, and a single token is within any limit of TPOT. Raises ValueError
    without requests.

    Paper: Zhong et al., 2024, "DistServe", https://arxiv.org/abs/2401.09670.
    """
    raise NotImplementedError


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
    raise NotImplementedError
