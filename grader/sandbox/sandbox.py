"""One submission's worker: started, given fresh processes, watched, stopped."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import psutil

from grader.results import Outcome, Usage
from grader.sandbox.connection import Connection, Disconnected, TooLarge
from grader.sandbox.isolation import Limits, SandboxUnavailable, command, seccomp_filter
from grader.sandbox.peer import Peer
from grader.sandbox.remote import ClassInterface, JudgeSide, NoAnswer
from grader.sandbox.wire import WireError

START_SECONDS = 120.0
ANSWER_SECONDS = 5.0


class Sandbox:
    """A worker for one submission. `start_group` gives it a fresh process, `begin_test` and `end_test` frame a test.

    It starts at once and imports torch while the judge goes on; `wait_ready` waits for that.
    """

    def __init__(
        self,
        submission: Path,
        packages: list[str],
        modules: list[str],
        limits: Limits,
        classes: dict[str, ClassInterface],
    ):
        self.limits = limits
        self.usage = Usage()
        self.stopped: NoAnswer | None = None  # why the group cannot be called any more
        self._submission = submission
        self._packages = packages
        self._modules = modules
        self._classes = classes
        self._connection: Connection | None = None
        self._child: psutil.Process | None = None
        self._printed = b"", 0
        self._launch()

    def _launch(self) -> None:
        """Start the worker."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - kept for the worker's last words
        with theirs, tempfile.TemporaryFile() as seccomp:
            seccomp.write(seccomp_filter())
            seccomp.seek(0)
            words = command(self._submission, self._packages, self._modules, self.limits, seccomp.fileno())
            self._worker = subprocess.Popen(
                [*words, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(theirs.fileno(), seccomp.fileno()),
            )
        settings = {"limits": msgspec.structs.asdict(self.limits), "classes": list(self._classes)}
        self._control.send(json.dumps(settings).encode())
        self._ready = False

    def wait_ready(self) -> None:
        """Wait until the worker has imported torch. Raises SandboxUnavailable with its last words when it cannot."""
        if self._ready:
            return
        self._control.settimeout(START_SECONDS)
        try:
            self._ready = self._control.recv(16) == b"ready"
        except OSError:
            self._ready = False
        if not self._ready:
            self.close()
            self._log.seek(0)
            words = self._log.read().decode(errors="replace").strip().splitlines() or ["it left no message"]
            raise SandboxUnavailable(f"the sandboxed worker did not start: {words[-1]}")
        self._control.settimeout(ANSWER_SECONDS)

    def close(self) -> None:
        """End the worker and with it everything in its namespace."""
        self._hang_up()
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._worker.kill()
        self._worker.wait()
        self._control.close()

    def start_group(self) -> None:
        """Fork a fresh process for the next calls; whatever ran before in this sandbox is killed."""
        self.end_group()
        self.wait_ready()
        connection = Connection(self.limits.output_bytes, self.limits.message_bytes, self._look)
        try:
            socket.send_fds(self._control, [b"fork"], [connection.their_socket.fileno(), connection.their_pipe])
            forked = self._control.recv(16) == b"forked"
        except OSError:
            forked = False
        finally:
            connection.close_their_ends()
        if not forked:  # the submission has broken its own worker: it gets a new one
            connection.close()
            self._relaunch()
            return self.start_group()
        self._connection = connection
        self._peer = Peer(connection, JudgeSide(self._classes, self.call))
        self._child = None
        self.stopped = None

    def end_group(self) -> str:
        """Kill the group; return how one of its processes had ended by itself, in words, or an empty string."""
        if self._connection is None:
            return ""
        self._hang_up()
        try:
            self._control.send(b"kill")
            statuses = json.loads(self._control.recv(1 << 16))
        except (OSError, ValueError):  # the submission has broken its own worker
            self._relaunch()
            return ""
        return next((words for status in statuses if (words := _how_it_ended(status))), "")

    def _relaunch(self) -> None:
        self.close()
        self._launch()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # One test

    def begin_test(self, seconds: float) -> None:
        """Give the next calls `seconds` of wall time in all, and count anew what they take and print."""
        self.usage = Usage()
        self._began = time.monotonic()
        self._deadline = self._began + seconds
        if self._connection is not None:
            self._connection.forget_output()
            if self._child is None:
                self._child = next(iter(self._processes()[1:]), None)
        self._before = measure(self._child)

    def end_test(self) -> tuple[str, int]:
        """Complete the count; return the beginning of what was printed, and how many bytes were printed in all."""
        self.usage.wall_seconds = time.monotonic() - self._began
        if self._connection is not None:
            self._connection.drain()
            self._count([measure(self._child)])
            self._printed = bytes(self._connection.output), self._connection.output_bytes
        return self._printed[0].decode(errors="replace"), self._printed[1]

    def call(self, target: int, method: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call the submission. Raises what it raised, or NoAnswer."""
        if self.stopped is not None:
            raise self.stopped
        try:
            return self._peer.call(target, method, arguments, keywords)
        except (WireError, TooLarge) as error:
            self._stop(Outcome.PROTOCOL, f"its answer cannot be read: {error}")
        except Disconnected:
            self._stop(Outcome.CRASHED, "its process ended")

    def look(self) -> None:
        """Notice, while the judge works for the group, that it has died or is over a limit. Raises NoAnswer."""
        if self.stopped is not None:
            raise self.stopped
        if self._connection is not None:
            if self._connection.hung_up:
                self._stop(Outcome.CRASHED, "its process ended")
            self._look()

    def _stop(self, outcome: Outcome, reason: str) -> NoReturn:
        """Kill the group and raise why."""
        if self.stopped is None:
            connection = self._connection
            assert connection is not None
            connection.drain()
            self._printed = bytes(connection.output), connection.output_bytes
            ended = self.end_group()
            self.stopped = NoAnswer(outcome, ended if outcome is Outcome.CRASHED and ended else reason)
        raise self.stopped

    # What the group takes, seen from outside

    def _look(self) -> None:
        """Take the measure of every process of the group, and stop it where it is over a limit."""
        limits = self.limits
        group = [measure(process) for process in self._processes()[1:]]  # the first is the worker
        self._count(group)
        if sum(taken.threads for taken in group) > limits.processes:
            self._stop(Outcome.PROCESSES, f"more than {limits.processes} processes and threads at one time")
        if self.usage.peak_memory_bytes > limits.memory_bytes:
            self._stop(Outcome.MEMORY, f"more than {limits.memory_bytes / 2**20:,.0f} MiB of memory")
        if self.usage.cpu_seconds > limits.test_cpu_seconds:
            self._stop(Outcome.TIMEOUT, f"more than {limits.test_cpu_seconds:.0f} s of CPU time")
        if time.monotonic() > self._deadline:
            self._stop(Outcome.TIMEOUT, f"no answer within {self._deadline - self._began:.0f} s")

    def _count(self, group: list["Taken"]) -> None:
        """Note what the group has taken since the test began; what a fork shares with its parent counts once."""
        usage, before = self.usage, self._before
        cpu = sum(taken.cpu_seconds for taken in group) - before.cpu_seconds
        memory = sum(max(0, taken.memory_bytes - before.memory_bytes) for taken in group)
        usage.cpu_seconds = max(usage.cpu_seconds, cpu)
        usage.peak_memory_bytes = max(usage.peak_memory_bytes, memory)

    def _processes(self) -> list[psutil.Process]:
        """Return the worker and all that runs beside it in its namespace."""
        try:
            return psutil.Process(self._worker.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


@dataclass(frozen=True)
class Taken:
    """What processes hold and have used."""

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    threads: int = 0


def measure(process: psutil.Process | None) -> Taken:
    """Measure a process; memory is what is its own, without files and libraries that all processes share."""
    with contextlib.suppress(psutil.Error, OSError, KeyError):
        if process is not None:
            times = process.cpu_times()
            status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
            kibibytes = sum(int(status[field].split()[0]) for field in ("RssAnon", "RssShmem"))
            seconds = times.user + times.system + times.children_user + times.children_system
            return Taken(seconds, 1024 * kibibytes, int(status["Threads"]))
    return Taken()


def _how_it_ended(status: int) -> str:
    """Describe a wait status in words; empty for a process that the judge killed or that was told to go."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGKILL:
            return ""
        return f"its process died: {signal.strsignal(number)} (signal {number})"
    return f"its process ended itself with exit code {os.WEXITSTATUS(status)}"
