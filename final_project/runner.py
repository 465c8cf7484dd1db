"""Runs an engine on a thread of its own, and brings its tokens to the requests that wait for them in asyncio."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue

from final_project.interface import Engine, Output, Request, Stats
from final_project.metrics import Metrics

logger = logging.getLogger("uvicorn.error")


class ServerFull(Exception):
    """There is no room for more sequences now."""


class EngineFailed(Exception):
    """The engine has raised an exception, and is not called again."""


@dataclass(eq=False)
class _Stream:
    """The way from the engine to one HTTP request: outputs that have come and have not been read."""

    outputs: list[Output] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class _Sequence:
    """A sequence that the engine is at work on."""

    stream: _Stream
    arrived: float
    first_token: float | None = None
    later_tokens: int = 0


class EngineRunner:
    """Owns the thread that steps an engine. All other methods belong to the event loop's thread.

    A sequence counts against `max_sequences` until the engine is done with it, however slowly its tokens are read.
    """

    def __init__(self, engine: Engine, max_sequences: int, metrics: Metrics):
        self.max_sequences = max_sequences
        self.failed = False
        self._engine = engine
        self._metrics = metrics
        self._sequences: dict[int, _Sequence] = {}
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; its outputs come to the event loop that is running now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present step."""
        self._commands.put(self._stop)
        self._thread.join()

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Output]:
        """Yield what is generated of some sequences as it comes, until all have ended or been aborted.

        To end early, or be cancelled, aborts what is unfinished. Raises ServerFull when there is no room for all of
        them, and EngineFailed.
        """
        if self.failed:
            raise EngineFailed
        if len(self._sequences) + len(requests) > self.max_sequences:
            raise ServerFull
        stream, now = _Stream(), time.perf_counter()
        for request in requests:
            self._sequences[request.id] = _Sequence(stream, now)
            self._commands.put(partial(self._engine.add, request))
        try:
            while stream.outputs or any(request.id in self._sequences for request in requests):
                await stream.came.wait()
                stream.came.clear()
                outputs, stream.outputs = stream.outputs, []
                for output in outputs:
                    yield output
                if self.failed:
                    raise EngineFailed
        finally:
            for request in requests:
                self.abort(request.id)

    def abort(self, request_id: int) -> None:
        """Free a sequence's place at once; one that has ended is no error."""
        if self._sequences.pop(request_id, None) is not None:
            self._commands.put(partial(self._engine.abort, request_id))

    # On the engine's thread

    def _run(self) -> None:
        try:
            stats = self._engine.stats()
            while not self._stopping:
                self._obey(wait=stats.waiting + stats.running == 0)
                outputs = self._engine.step()
                stats = self._engine.stats()
                self._tell(self._deliver, outputs, stats)
        except Exception:
            logger.exception("the engine has failed")
            self._tell(self._fail)

    def _obey(self, wait: bool) -> None:
        """Carry out all commands that have come; `wait` for one if there is nothing else to do."""
        try:
            while True:
                self._commands.get(block=wait)()
                wait = False
        except Empty:
            return

    def _stop(self) -> None:
        self._stopping = True

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *arguments)

    # On the event loop

    def _deliver(self, outputs: Sequence[Output], stats: Stats) -> None:
        now = time.perf_counter()
        self._metrics.observe_engine(stats)
        for output in outputs:
            sequence = self._sequences.get(output.request_id)
            if sequence is None:
                continue  # aborted while the step ran
            sequence.stream.outputs.append(output)
            sequence.stream.came.set()
            if sequence.first_token is None:
                sequence.first_token = now
                self._metrics.time_to_first_token.observe(now - sequence.arrived)
            else:
                sequence.later_tokens += len(output.tokens)
            if output.finish_reason is not None:
                del self._sequences[output.request_id]
                if sequence.later_tokens:
                    self._metrics.time_per_output_token.observe((now - sequence.first_token) / sequence.later_tokens)

    def _fail(self) -> None:
        self.failed = True
        for sequence in self._sequences.values():
            sequence.stream.came.set()
        self._sequences.clear()
