"""Public tests of hw3.benchmarking: the clock and the device are scripted, so that every time is known."""

import pytest

from hw3 import benchmarking
from shared_tasks.checks import assert_close, assert_equal


class Device:
    """A clock, and a device that works behind the program's back; all times are multiples of 1/8 s."""

    def __init__(self):
        self.now, self.done = 100.0, 0.0

    def clock(self):
        """Return the time."""
        return self.now

    def synchronize(self):
        """Wait for the device."""
        self.now = max(self.now, self.done)

    def work(self, seconds, launch=0.125):
        """Give the device work, which takes the program itself the time of `launch`."""
        self.now += launch
        self.done = max(self.now, self.done) + seconds

    @property
    def arguments(self):
        """What to measure with."""
        return {"clock": self.clock, "synchronize": self.synchronize}


def request(sent, times, prompt_tokens=1000):
    """Return a request whose tokens came at these times."""
    return benchmarking.Request(prompt_tokens, sent, list(times))


class TestMeasure:
    """Measuring."""

    def test_device(self):
        """A time is that of the call and of what the device does for it; slow calls at the beginning are left out."""
        device, durations = Device(), [50.0, 20.0, 2.0, 1.0, 3.0]
        left = list(durations)
        got = benchmarking.measure(lambda: device.work(left.pop(0)), warmup=2, repeats=3, **device.arguments)
        assert_equal(left, [], "calls that were not made")
        assert_close(got[0], 2.125, 1e-9, "the first time")
        assert_equal(list(got), [2.125, 1.125, 3.125], "times")

    def test_refuses(self):
        """Without a repetition there is nothing to return."""
        device = Device()
        with pytest.raises(ValueError):  # noqa: PT011
            benchmarking.measure(lambda: None, warmup=1, repeats=0, **device.arguments)


class TestSummarize:
    """Medians."""

    def test_outlier(self):
        """One slow run changes the median little."""
        summary = benchmarking.summarize([3.0, 1.0, 2.0, 90.0, 2.5])
        assert_close(summary.median, 2.5, 1e-9, "median")
        assert_close(summary.lower, 2.0, 1e-9, "lower quartile")
        assert_close(summary.upper, 3.0, 1e-9, "upper quartile")


class TestTimeGeneration:
    """Timing a generation."""

    def test_tokens(self):
        """The first token comes from the prompt, each other one from a step, and each is timed when it is there."""
        device = Device()
        got = benchmarking.time_generation(
            lambda: device.work(4.0), lambda: device.work(0.5), prompt_tokens=7, num_tokens=3, **device.arguments
        )
        assert_equal((got.prompt_tokens, got.sent), (7, 100.0), "prompt tokens and time of sending")
        assert_equal(list(got.token_times), [104.125, 104.75, 105.375], "times of the tokens")


class TestLatency:
    """Latencies of a request."""

    def test_example(self):
        """Tokens at 4, 5, 5.5 and 7 s of a request sent at 1 s: TTFT 3 s, TPOT 1 s, 6 s in all."""
        got = benchmarking.latency(request(1.0, [4.0, 5.0, 5.5, 7.0]))
        assert_close(got.ttft, 3.0, 1e-9, "TTFT")
        assert_close(got.tpot, 1.0, 1e-9, "TPOT")
        assert_close(got.end_to_end, 6.0, 1e-9, "end to end")


class TestThroughput:
    """Throughput."""

    def test_batch(self):
        """Two requests of 3 tokens, sent at 2 s and answered at 6 s: 1.5 tokens and half a request a second."""
        got = benchmarking.throughput([request(2.0, [4.0, 5.0, 6.0])] * 2)
        assert_close(got.output_tokens_per_second, 1.5, 1e-9, "tokens a second")
        assert_close(got.requests_per_second, 0.5, 1e-9, "requests a second")


class TestGoodput:
    """Goodput."""

    def test_both_limits(self):
        """Of three requests in 10 s one comes too late and one too slowly: 0.1 a second are good."""
        requests = [request(0.0, [1.0, 2.0]), request(0.0, [5.0, 6.0]), request(0.0, [1.0, 10.0])]
        assert_close(benchmarking.goodput(requests, max_ttft=2.0, max_tpot=2.0), 0.1, 1e-9, "good requests a second")


class TestSweep:
    """Sweeps."""

    def test_rounds(self):
        """Settings are run in turns, each with fresh input, and warm-up rounds do not count."""
        device, prepared = Device(), []

        def prepare(size):
            prepared.append(size)
            slow = 70.0 if len(prepared) <= 2 else 0.0
            device.now += 16.0
            return lambda: device.work(size + slow)

        got = benchmarking.sweep(prepare, [1, 4], warmup=1, repeats=3, **device.arguments)
        assert_equal(prepared, [1, 4] * 4, "settings in the order of their runs")
        assert_equal([summary.median for summary in got], [1.125, 4.125], "medians")
