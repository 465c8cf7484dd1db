"""Hidden tests of hw3.benchmarking: the clock and the device are scripted, so that every time is known."""

import itertools
import random

import pytest

from hw3 import benchmarking
from shared_tasks.checks import assert_close, assert_equal

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)


class Device:
    """A clock, and a device that works behind the program's back; all times are multiples of 1/64 s."""

    def __init__(self, launch=1 / 64, seed=0):
        self.random = random.Random(seed)
        self.now = 1000 + self.seconds()
        self.done, self.launch = 0.0, launch

    def seconds(self, most=640):
        """Draw a time."""
        return self.random.randint(1, most) / 64

    def clock(self):
        """Return the time."""
        return self.now

    def synchronize(self):
        """Wait for the device."""
        self.now = max(self.now, self.done)

    def work(self, seconds):
        """Give the device work; the program goes on when it has given it."""
        self.now += self.launch
        self.done = max(self.now, self.done) + seconds

    @property
    def arguments(self):
        """What to measure with."""
        return {"clock": self.clock, "synchronize": self.synchronize}


def request(sent, times, prompt_tokens=5000):
    """Return a request whose tokens came at these times."""
    return benchmarking.Request(prompt_tokens, sent, list(times))


def random_requests(seed, count):
    """Draw requests that overlap, in no order; the one that is sent last need not end last."""
    generator = random.Random(seed)
    for _ in range(count):
        sent = generator.randint(640, 2000) / 64
        times = [sent + generator.randint(1, 600) / 64]
        for _ in range(generator.randrange(7)):
            times.append(times[-1] + generator.randint(1, 90) / 64)
        yield request(sent, times, generator.randint(1, 3000))


def duration(requests):
    """Return the seconds from the first request sent to the last token."""
    return max(r.token_times[-1] for r in requests) - min(r.sent for r in requests)


def assert_summary(got, seconds, what):
    """Fail unless median and quartiles of the times are right."""
    ordered = sorted(seconds)
    for name, q in (("lower", 0.25), ("median", 0.5), ("upper", 0.75)):
        place = q * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        expected = ordered[below] + (place - below) * (ordered[above] - ordered[below])
        assert_close(getattr(got, name), expected, 1e-9, f"{name} of {what}")


class TestMeasure:
    """Measuring."""

    def test_every_time(self):
        """Each call has its own time, from an idle device to an idle device, in order.

        A call returns before the device has done its work: wait for it before the clock is read.
        """
        for warmup, repeats in ((0, 1), (1, 5), (3, 8)):
            device = Device(seed=repeats)
            durations = [device.seconds() for _ in range(warmup + repeats)]
            left = list(durations)
            got = benchmarking.measure(
                lambda left=left, device=device: device.work(left.pop(0)),
                warmup=warmup,
                repeats=repeats,
                **device.arguments,
            )
            expected = [device.launch + seconds for seconds in durations[warmup:]]
            assert_equal([float(seconds) for seconds in got], expected, f"{repeats} times after {warmup} calls")
            assert_equal(left, [], "calls that were not made")

    def test_work_from_before(self):
        """What the device still has to do when the measurement begins is not counted.

        Wait for the device before the clock starts, too.
        """
        for warmup in (0, 2):
            device = Device(launch=0.25)
            device.work(500.0)
            got = benchmarking.measure(
                lambda device=device: device.work(2.0), warmup=warmup, repeats=3, **device.arguments
            )
            assert_equal([float(seconds) for seconds in got], [2.25] * 3, f"times after {warmup} calls")

    def test_refuses(self):
        """No repetition, or a negative number of warm-up calls, is refused before anything is run.

        An empty list of times has no median.
        """
        for warmup, repeats in ((0, 0), (2, -1), (-1, 3)):
            calls, device = [], Device()
            with pytest.raises(ValueError):
                benchmarking.measure(
                    lambda calls=calls: calls.append(1), warmup=warmup, repeats=repeats, **device.arguments
                )
            assert_equal(len(calls), 0, "calls")


class TestSummarize:
    """Medians."""

    def test_any_number(self):
        """Median and quartiles of any number of times are right, in whatever order they came.

        Between two places, interpolate.
        """
        generator = random.Random(1)
        for count in (1, 2, 3, 4, 5, 6, 7, 8, 20):
            seconds = [generator.expovariate(1.0) for _ in range(count)]
            given = list(seconds)
            assert_summary(benchmarking.summarize(given), seconds, f"{count} times")
            assert_equal(given, seconds, "the times that were given, afterwards")

    def test_outliers(self):
        """A run that took a thousand times as long moves neither median nor quartiles far.

        This is why a mean and a standard deviation do not do.
        """
        assert_summary(
            benchmarking.summarize([2.0, 1.0, 2000.0, 1.5, 1.75, 1.25]), [1, 1.25, 1.5, 1.75, 2, 2000], "times"
        )

    def test_nothing(self):
        """Of no times there is no summary.

        NaN would go unnoticed into a table.
        """
        with pytest.raises(ValueError):
            benchmarking.summarize([])


class TestTimeGeneration:
    """Timing a generation."""

    def test_every_token(self):
        """Each token has the time at which the device has computed it; the prompt gives the first.

        Wait for the device before each reading of the clock. n tokens take n - 1 steps.
        """
        for num_tokens in (2, 5, 9):
            device = Device(seed=num_tokens)
            steps = [device.seconds() for _ in range(num_tokens)]
            left = list(steps)
            sent = device.now
            got = benchmarking.time_generation(
                lambda left=left, device=device: device.work(left.pop(0)),
                lambda left=left, device=device: device.work(left.pop(0)),
                prompt_tokens=30,
                num_tokens=num_tokens,
                **device.arguments,
            )
            expected = [sent + sum(steps[: i + 1]) + (i + 1) * device.launch for i in range(num_tokens)]
            assert_equal(float(got.sent), sent, "time of sending")
            assert_equal([float(time) for time in got.token_times], expected, f"times of {num_tokens} tokens")
            assert_equal(got.prompt_tokens, 30, "tokens of the prompt")

    def test_who_is_called(self):
        """The prompt is read once and first, then come the steps; a single token takes none.

        A step more would be timed with nothing to show for it.
        """
        for num_tokens in (1, 4):
            device, calls = Device(), []
            got = benchmarking.time_generation(
                lambda calls=calls: calls.append("prefill"),
                lambda calls=calls: calls.append("decode"),
                prompt_tokens=3,
                num_tokens=num_tokens,
                **device.arguments,
            )
            assert_equal(calls, ["prefill"] + ["decode"] * (num_tokens - 1), "calls")
            assert_equal(len(got.token_times), num_tokens, "times")
        with pytest.raises(ValueError):
            benchmarking.time_generation(
                lambda: None, lambda: None, prompt_tokens=3, num_tokens=0, **Device().arguments
            )

    def test_work_from_before(self):
        """The request is sent when the device is idle.

        Otherwise the first token pays for what came before.
        """
        device = Device(launch=0.5)
        device.work(300.0)
        idle = device.done
        got = benchmarking.time_generation(
            lambda: device.work(8.0), lambda: device.work(1.0), prompt_tokens=3, num_tokens=2, **device.arguments
        )
        assert_equal((float(got.sent), float(got.token_times[0])), (idle, idle + 8.5), "sent, and first token")


class TestLatency:
    """Latencies of a request."""

    def test_any_request(self):
        """TTFT is until the first token, TPOT the mean step from there on, end to end until the last.

        n tokens have n - 1 steps between them, and the first token is no step.
        """
        for own in random_requests(2, 30):
            got, times = benchmarking.latency(own), own.token_times
            assert_close(got.ttft, times[0] - own.sent, 1e-9, f"TTFT of {own}")
            assert_close(got.end_to_end, times[-1] - own.sent, 1e-9, f"end to end of {own}")
            if len(times) > 1:
                expected = sum(after - before for before, after in itertools.pairwise(times))
                assert_close(got.tpot, expected / (len(times) - 1), 1e-9, f"TPOT of {own}")
            else:
                assert got.tpot is None, f"expected no TPOT for a single token, got {got.tpot!r}"

    def test_uneven_steps(self):
        """TPOT is a mean: a pause in the middle counts.

        The median of the steps would hide it; that a median is taken over requests is another matter.
        """
        got = benchmarking.latency(request(10.0, [11.0, 11.5, 12.0, 20.0, 20.5]))
        assert_close(got.tpot, 9.5 / 4, 1e-9, "TPOT")

    def test_without_tokens(self):
        """A request without tokens has no latencies.

        It failed, and must not count as fast.
        """
        with pytest.raises(ValueError):
            benchmarking.latency(request(1.0, []))


class TestThroughput:
    """Throughput."""

    def test_overlapping(self):
        """Tokens and requests count over the time from the first request sent to the last token of all.

        The time during which two requests run is one time, and the first in the list need not be the first sent.
        """
        for seed in range(12):
            requests = list(random_requests(seed, 1 + seed))
            got = benchmarking.throughput(requests)
            tokens = sum(len(r.token_times) for r in requests)
            assert_close(got.output_tokens_per_second, tokens / duration(requests), 1e-9, "tokens a second")
            assert_close(got.requests_per_second, len(requests) / duration(requests), 1e-9, "requests a second")

    def test_long_prompts(self):
        """Prompts do not count, however long.

        A system that reads 100,000 tokens and writes 2 has written 2.
        """
        got = benchmarking.throughput([request(0.0, [3.0, 4.0], 100_000)])
        assert_close(got.output_tokens_per_second, 0.5, 1e-9, "tokens a second")

    def test_nothing(self):
        """Without requests there is no throughput.

        An empty list is a mistake of the caller.
        """
        with pytest.raises(ValueError):
            benchmarking.throughput([])


class TestGoodput:
    """Goodput."""

    def test_any_limits(self):
        """It counts requests within both limits, over the time of all requests.

        Late requests took time too.
        """
        for seed in range(12):
            requests = list(random_requests(20 + seed, 2 + seed))
            generator = random.Random(seed)
            max_ttft, max_tpot = generator.randint(100, 500) / 64, generator.randint(30, 60) / 64
            good = 0
            for r in requests:
                steps = len(r.token_times) - 1
                tpot = (r.token_times[-1] - r.token_times[0]) / steps if steps else 0.0
                good += r.token_times[0] - r.sent <= max_ttft and tpot <= max_tpot
            got = benchmarking.goodput(requests, max_ttft=max_ttft, max_tpot=max_tpot)
            assert_close(got, good / duration(requests), 1e-9, f"good requests a second of {len(requests)}")

    def test_at_the_limit(self):
        """A latency that equals the limit is within it, and a single token has no step that could be slow.

        At most, not less than.
        """
        requests = [request(0.0, [2.0, 3.0, 4.0]), request(1.0, [3.0]), request(1.0, [3.0, 4.5])]
        got = benchmarking.goodput(requests, max_ttft=2.0, max_tpot=1.0)
        assert_close(got, 2 / 4.5, 1e-9, "good requests a second")

    def test_nothing(self):
        """Without requests there is no goodput.

        An empty list is a mistake of the caller.
        """
        with pytest.raises(ValueError):
            benchmarking.goodput([], max_ttft=1.0, max_tpot=1.0)


class Swept:
    """Runs whose times are known, each prepared anew, and a note of what was asked in which order."""

    def __init__(self, launch=1 / 64):
        self.device = Device(launch=launch, seed=3)
        self.events, self.times = [], {}

    def prepare(self, setting):
        """Make input, on the program's time and on the device's; return a run that may be used once."""
        self.events.append(("prepare", setting))
        self.device.now += 30.0
        self.device.work(40.0)
        seconds = setting + self.device.seconds(64) + len(self.events) / 16
        used = []

        def run():
            assert not used, "a run was used twice: its input is no longer fresh"
            used.append(True)
            self.events.append(("run", setting))
            self.times.setdefault(setting, []).append(self.device.launch + seconds)
            self.device.work(seconds)

        return run


class TestSweep:
    """Sweeps."""

    def check(self, settings, warmup, repeats):
        """Sweep over settings; return what happened in which order."""
        swept = Swept()
        got = benchmarking.sweep(swept.prepare, settings, warmup=warmup, repeats=repeats, **swept.device.arguments)
        assert_equal(len(got), len(settings), "summaries")
        for setting, summary in zip(settings, got, strict=True):
            assert_summary(summary, swept.times[setting][warmup:], f"setting {setting}")
        return swept.events

    def test_summaries(self):
        """Each setting has the median and the quartiles of its own times, in the order of the settings.

        Warm-up rounds do not count, nor does the work that preparation gives the device.
        """
        for settings, warmup, repeats in (([1, 8, 64], 0, 1), ([16, 2, 4], 2, 5), ([3], 1, 4), ([], 1, 1)):
            self.check(settings, warmup, repeats)

    def test_in_turns(self):
        """A round runs every setting once with fresh input, warm-up rounds too.

        If one setting after the other were measured, a machine that gets slower would make the last ones look slow.
        """
        for settings, warmup, repeats in (([5, 1, 9], 1, 3), ([2, 4], 3, 2)):
            events = self.check(settings, warmup, repeats)
            runs = [setting for kind, setting in events if kind == "run"]
            prepared = [setting for kind, setting in events if kind == "prepare"]
            assert_equal(runs, settings * (warmup + repeats), "settings in the order of their runs")
            assert_equal(sorted(prepared), sorted(runs), "settings that were prepared")

    def test_refuses(self):
        """No repetition, or a negative number of warm-up rounds, is refused.

        As in `measure`.
        """
        for warmup, repeats in ((1, 0), (-1, 2)):
            swept = Swept()
            with pytest.raises(ValueError):
                benchmarking.sweep(swept.prepare, [1, 2], warmup=warmup, repeats=repeats, **swept.device.arguments)
