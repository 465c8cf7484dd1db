"""Plausible wrong solutions of hw3.benchmarking: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import itertools
import statistics
from dataclasses import replace

from grader.reference.hw3 import benchmarking as reference
from grader.reference.hw3.benchmarking import Request, Summary, Throughput


def _nothing():
    """Wait for nothing."""


def measure__counts_the_warm_up(run, *, clock, synchronize, warmup, repeats):
    """Times the first calls too."""
    return reference.measure(run, clock=clock, synchronize=synchronize, warmup=0, repeats=warmup + repeats)


def measure__skips_the_warm_up(run, *, clock, synchronize, warmup, repeats):
    """Begins to time at once."""
    return reference.measure(run, clock=clock, synchronize=synchronize, warmup=min(warmup, 0), repeats=repeats)


def measure__never_waits(run, *, clock, synchronize, warmup, repeats):
    """Times how long it takes to give work away."""
    return reference.measure(run, clock=clock, synchronize=_nothing, warmup=warmup, repeats=repeats)


def _timed(run, clock, before, after, warmup, repeats):
    if warmup < 0 or repeats < 1:
        raise ValueError
    for _ in range(warmup):
        run()
    times = []
    for _ in range(repeats):
        before()
        begin = clock()
        run()
        after()
        times.append(clock() - begin)
    return times


def measure__waits_at_the_end_only(run, *, clock, synchronize, warmup, repeats):
    """Starts the clock while the device is busy."""
    return _timed(run, clock, _nothing, synchronize, warmup, repeats)


def measure__waits_at_the_beginning_only(run, *, clock, synchronize, warmup, repeats):
    """Stops the clock while the device is busy."""
    return _timed(run, clock, synchronize, _nothing, warmup, repeats)


def measure__mean(run, *, clock, synchronize, warmup, repeats):
    """Divides the time of all calls by their number."""
    times = reference.measure(run, clock=clock, synchronize=synchronize, warmup=warmup, repeats=repeats)
    return [statistics.fmean(times)] * repeats


def measure__sorts(run, *, clock, synchronize, warmup, repeats):
    """Returns the fastest first."""
    return sorted(reference.measure(run, clock=clock, synchronize=synchronize, warmup=warmup, repeats=repeats))


def measure__takes_any_number(run, *, clock, synchronize, warmup, repeats):
    """Returns no times where none were asked for."""
    if repeats < 1:
        return []
    return reference.measure(run, clock=clock, synchronize=synchronize, warmup=max(0, warmup), repeats=repeats)


def summarize__mean(seconds):
    """Lets an outlier move the middle."""
    return replace(reference.summarize(seconds), median=statistics.fmean(seconds))


def summarize__upper_of_two(seconds):
    """Takes the upper one of two values in the middle."""
    return replace(reference.summarize(seconds), median=sorted(seconds)[len(seconds) // 2])


def summarize__does_not_sort(seconds):
    """Takes the value that came in the middle."""
    return replace(reference.summarize(seconds), median=seconds[len(seconds) // 2])


def summarize__extremes(seconds):
    """Takes the fastest and the slowest for quartiles."""
    return replace(reference.summarize(seconds), lower=min(seconds), upper=max(seconds))


def summarize__standard_deviation(seconds):
    """Reports the median plus and minus a standard deviation."""
    summary, spread = reference.summarize(seconds), statistics.pstdev(seconds)
    return replace(summary, lower=summary.median - spread, upper=summary.median + spread)


def summarize__exclusive_quartiles(seconds):
    """Counts places from 1 to n + 1."""
    if len(seconds) < 2:
        return reference.summarize(seconds)
    lower, median, upper = statistics.quantiles(seconds, n=4)
    return Summary(median, lower, upper)


def summarize__sorts_in_place(seconds):
    """Changes the list that it was given."""
    seconds.sort()
    return reference.summarize(seconds)


def summarize__of_nothing(seconds):
    """Summarises no times."""
    return reference.summarize(seconds) if seconds else Summary(0.0, 0.0, 0.0)


def time_generation__never_waits(prefill, decode, *, prompt_tokens, num_tokens, clock, synchronize):
    """Times how long it takes to give work away."""
    return reference.time_generation(
        prefill, decode, prompt_tokens=prompt_tokens, num_tokens=num_tokens, clock=clock, synchronize=_nothing
    )


def time_generation__waits_at_the_end(prefill, decode, *, prompt_tokens, num_tokens, clock, synchronize):
    """Waits for the last token only."""
    got = time_generation__never_waits(
        prefill, decode, prompt_tokens=prompt_tokens, num_tokens=num_tokens, clock=clock, synchronize=synchronize
    )
    synchronize()
    return replace(got, token_times=[*got.token_times[:-1], clock()])


def time_generation__sent_to_a_busy_device(prefill, decode, *, prompt_tokens, num_tokens, clock, synchronize):
    """Starts the clock while the device is busy."""
    sent = clock()
    got = reference.time_generation(
        prefill, decode, prompt_tokens=prompt_tokens, num_tokens=num_tokens, clock=clock, synchronize=synchronize
    )
    return replace(got, sent=sent)


def time_generation__a_step_more(prefill, decode, *, prompt_tokens, num_tokens, clock, synchronize):
    """Takes no token from the prompt."""
    got = reference.time_generation(
        prefill, decode, prompt_tokens=prompt_tokens, num_tokens=num_tokens + 1, clock=clock, synchronize=synchronize
    )
    return replace(got, token_times=got.token_times[1:])


def time_generation__starts_after_the_prompt(prefill, decode, *, prompt_tokens, num_tokens, clock, synchronize):
    """Leaves the prompt out of the time."""
    got = reference.time_generation(
        prefill, decode, prompt_tokens=prompt_tokens, num_tokens=num_tokens, clock=clock, synchronize=synchronize
    )
    return replace(got, sent=got.token_times[0])


def time_generation__warms_up(prefill, decode, *, prompt_tokens, num_tokens, clock, synchronize):
    """Reads the prompt twice."""
    prefill()
    return reference.time_generation(
        prefill, decode, prompt_tokens=prompt_tokens, num_tokens=num_tokens, clock=clock, synchronize=synchronize
    )


def time_generation__from_zero(prefill, decode, *, prompt_tokens, num_tokens, clock, synchronize):
    """Lets every request be sent at 0, so that two of them cannot be compared."""
    got = reference.time_generation(
        prefill, decode, prompt_tokens=prompt_tokens, num_tokens=num_tokens, clock=clock, synchronize=synchronize
    )
    return Request(prompt_tokens, 0.0, [time - got.sent for time in got.token_times])


def latency__divides_by_all_tokens(request):
    """Takes n tokens for n steps."""
    got, count = reference.latency(request), len(request.token_times)
    return replace(got, tpot=None if got.tpot is None else got.tpot * (count - 1) / count)


def latency__first_token_in_tpot(request):
    """Spreads the time of the prompt over all tokens."""
    got = reference.latency(request)
    return replace(got, tpot=None if got.tpot is None else got.end_to_end / len(request.token_times))


def latency__median_step(request):
    """Takes the median of the steps."""
    got, times = reference.latency(request), request.token_times
    steps = [after - before for before, after in itertools.pairwise(times)]
    return replace(got, tpot=statistics.median(steps) if steps else None)


def latency__zero_for_a_single_token(request):
    """Invents a TPOT."""
    got = reference.latency(request)
    return replace(got, tpot=got.tpot or 0.0)


def latency__end_to_end_from_the_first_token(request):
    """Leaves the prompt out."""
    got = reference.latency(request)
    return replace(got, end_to_end=got.end_to_end - got.ttft)


def latency__absolute_times(request):
    """Takes the time of the clock for a latency."""
    got = reference.latency(request)
    return replace(got, ttft=request.token_times[0])


def latency__of_nothing(request):
    """Gives a request without tokens no latency."""
    if not request.token_times:
        return reference.Latency(0.0, None, 0.0)
    return reference.latency(request)


def throughput__counts_prompts(requests):
    """Adds the tokens of prompts."""
    got = reference.throughput(requests)
    seconds = len(requests) / got.requests_per_second
    more = sum(request.prompt_tokens for request in requests) / seconds
    return replace(got, output_tokens_per_second=got.output_tokens_per_second + more)


def throughput__adds_latencies(requests):
    """Takes requests that overlap one after the other."""
    if not requests:
        raise ValueError
    seconds = sum(request.token_times[-1] - request.sent for request in requests)
    tokens = sum(len(request.token_times) for request in requests)
    return Throughput(tokens / seconds, len(requests) / seconds)


def throughput__mean_of_rates(requests):
    """Averages the speed of each request."""
    got = reference.throughput(requests)
    rates = [len(request.token_times) / (request.token_times[-1] - request.sent) for request in requests]
    return replace(got, output_tokens_per_second=statistics.fmean(rates))


def throughput__from_the_first_token(requests):
    """Begins with the first token."""
    if not requests:
        raise ValueError
    begin = min(request.token_times[0] for request in requests)
    seconds = max(request.token_times[-1] for request in requests) - begin or 1.0
    return Throughput(sum(len(request.token_times) for request in requests) / seconds, len(requests) / seconds)


def throughput__in_the_order_of_the_list(requests):
    """Takes the first for the first sent and the last for the last to end."""
    if not requests:
        raise ValueError
    seconds = requests[-1].token_times[-1] - requests[0].sent
    return Throughput(sum(len(request.token_times) for request in requests) / seconds, len(requests) / seconds)


def throughput__steps_for_tokens(requests):
    """Leaves the first token of each request out."""
    got = reference.throughput(requests)
    tokens = sum(len(request.token_times) for request in requests)
    return replace(got, output_tokens_per_second=got.output_tokens_per_second * (tokens - len(requests)) / tokens)


def throughput__of_nothing(requests):
    """Has a throughput of zero without requests."""
    return reference.throughput(requests) if requests else Throughput(0.0, 0.0)


def goodput__either_limit(requests, *, max_ttft, max_tpot):
    """Is content with one limit."""
    first = reference.goodput(requests, max_ttft=max_ttft, max_tpot=float("inf"))
    steps = reference.goodput(requests, max_ttft=float("inf"), max_tpot=max_tpot)
    return first + steps - reference.goodput(requests, max_ttft=max_ttft, max_tpot=max_tpot)


def goodput__less_than_the_limit(requests, *, max_ttft, max_tpot):
    """Refuses what equals the limit."""
    return reference.goodput(requests, max_ttft=max_ttft - 1e-9, max_tpot=max_tpot - 1e-9)


def goodput__single_tokens_are_late(requests, *, max_ttft, max_tpot):
    """Counts no request of a single token."""
    good = [r for r in requests if len(r.token_times) > 1]
    if not good:
        return 0.0 * reference.goodput(requests, max_ttft=max_ttft, max_tpot=max_tpot)
    window = len(requests) / reference.throughput(requests).requests_per_second
    own = len(good) / reference.throughput(good).requests_per_second
    return reference.goodput(good, max_ttft=max_ttft, max_tpot=max_tpot) * own / window


def goodput__time_of_the_good(requests, *, max_ttft, max_tpot):
    """Leaves the time of late requests out."""
    if not requests:
        raise ValueError
    good = [
        request
        for request in requests
        if (found := reference.latency(request)).ttft <= max_ttft and (found.tpot or 0.0) <= max_tpot
    ]
    return reference.throughput(good).requests_per_second if good else 0.0


def goodput__share(requests, *, max_ttft, max_tpot):
    """Returns the share of requests within the limits."""
    rate = reference.throughput(requests).requests_per_second
    return reference.goodput(requests, max_ttft=max_ttft, max_tpot=max_tpot) / rate


def goodput__tokens(requests, *, max_ttft, max_tpot):
    """Counts tokens of good requests."""
    rate = reference.throughput(requests)
    good = reference.goodput(requests, max_ttft=max_ttft, max_tpot=max_tpot)
    return good * rate.output_tokens_per_second / rate.requests_per_second


def goodput__of_nothing(requests, *, max_ttft, max_tpot):
    """Has a goodput of zero without requests."""
    return reference.goodput(requests, max_ttft=max_ttft, max_tpot=max_tpot) if requests else 0.0


def _sweep(prepare, settings, clock, synchronize, warmup, repeats, settle=True, summarize=reference.summarize):
    """Sweep in turns, with a place for a bug."""
    if warmup < 0 or repeats < 1:
        raise ValueError
    times = [[] for _ in settings]
    for number in range(warmup + repeats):
        for setting, own in zip(settings, times, strict=True):
            run = prepare(setting)
            if settle:
                synchronize()
            begin = clock()
            run()
            synchronize()
            if number >= warmup:
                own.append(clock() - begin)
    return [summarize(own) for own in times]


def sweep__one_setting_after_the_other(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Finishes a setting before it begins the next."""
    measured = {"clock": clock, "synchronize": synchronize, "warmup": warmup, "repeats": repeats}
    return [summary for setting in settings for summary in reference.sweep(prepare, [setting], **measured)]


def sweep__prepares_once(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Runs on the input of the run before."""
    kept = {setting: prepare(setting) for setting in settings}
    return reference.sweep(
        kept.__getitem__, settings, clock=clock, synchronize=synchronize, warmup=warmup, repeats=repeats
    )


def sweep__times_the_preparation(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Counts what it takes to make the input."""

    def later(setting):
        return lambda: prepare(setting)()

    return reference.sweep(later, settings, clock=clock, synchronize=synchronize, warmup=warmup, repeats=repeats)


def sweep__does_not_wait_for_the_preparation(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Starts the clock while the device is still making the input."""
    return _sweep(prepare, settings, clock, synchronize, warmup, repeats, settle=False)


def sweep__counts_the_warm_up(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Times the first rounds too."""
    return reference.sweep(
        prepare, settings, clock=clock, synchronize=synchronize, warmup=0, repeats=max(0, warmup) + repeats
    )


def sweep__means(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Averages."""
    return _sweep(prepare, settings, clock, synchronize, warmup, repeats, summarize=summarize__mean)


def sweep__warms_up_the_first_setting(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Warms up once, with the first setting."""
    if warmup < 0 or repeats < 1:
        raise ValueError
    for setting in settings[:1] * warmup:
        prepare(setting)()
    return _sweep(prepare, settings, clock, synchronize, 0, repeats)


def sweep__sorts_the_settings(prepare, settings, *, clock, synchronize, warmup, repeats):
    """Returns the smallest setting first."""
    return reference.sweep(
        prepare, sorted(settings), clock=clock, synchronize=synchronize, warmup=warmup, repeats=repeats
    )
