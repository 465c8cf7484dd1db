"""One engine for all submissions that are judged at the same time: their requests run in one batch, by turns.

The boundary to the engine behind is small: a batch that requests are added to, that takes steps, and from which
requests are aborted. It is what vLLM's engine offers too.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import msgspec

from shared_tasks.models.engine import (
    Engine,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)

LOOK_SECONDS = 0.1

Result = TypeVar("Result", Generation, LogLikelihood)


class Batch(Protocol):
    """Generations in progress."""

    def add(self, key: int, prompt: Prompt, params: SamplingParams) -> None:
        """Take in a request. Raises ValueError for one that cannot be run."""
        ...

    def abort(self, keys: Container[int]) -> None:
        """Drop the requests with these keys, whether they run or wait."""
        ...

    def step(self) -> list[tuple[int, Generation]]:
        """Generate a token of every completion; return the generations that ended, with their keys."""
        ...


@runtime_checkable
class BatchingEngine(Engine, Protocol):
    """An engine whose requests can join while others run."""

    def open_batch(self) -> Batch:
        """Return an empty batch."""
        ...


class EngineStopped(Exception):
    """The shared engine was closed, or has failed: the fault is the judge's and not the submission's."""


@dataclass(eq=False)
class _Job:
    """A request of a client: a prompt to continue, or some continuations to score."""

    client: "EngineClient"
    index: int
    prompts: Sequence[Prompt]
    params: SamplingParams | None
    continuations: Sequence[str]
    answers: "queue.SimpleQueue[tuple[_Job, Any]]"

    @property
    def sequences(self) -> int:
        """How many sequences it runs."""
        return self.params.n if self.params else len(self.prompts)


class SharedEngine:
    """Runs an engine in a thread of its own for several clients, in one batch.

    Clients take turns: each in turn may start its next request, as long as it has no more than `sequences_per_client`
    running. So one that floods fills its own share, and the others' requests start in the next step.
    """

    def __init__(self, engine: BatchingEngine, sequences_per_client: int = 64):
        """Start serving. Nothing else may use the engine until `close`."""
        self.engine = engine
        self.sequences_per_client = sequences_per_client
        self.failure: Exception | None = None
        """Why the engine serves no more; None while it does."""
        self._clients: deque[EngineClient] = deque()
        self._running: dict[int, _Job] = {}
        self._aborted: set[int] = set()
        self._next_key = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="shared engine", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def client(self, look: Callable[[], None] = lambda: None) -> "EngineClient":
        """Return an engine for one submission; `look` runs regularly while it waits, and ends the wait by raising."""
        client = EngineClient(self, look)
        with self._changed:
            self._clients.append(client)
        return client

    def close(self) -> None:
        """Stop serving after the step that runs; who still waits gets EngineStopped."""
        self._stop(EngineStopped("the shared engine was closed"))
        self._thread.join()

    # What clients do

    def submit(self, client: "EngineClient", jobs: Sequence[_Job]) -> None:
        """Let jobs of a client wait for their turn. Raises EngineStopped."""
        with self._changed:
            if self.failure is not None:
                raise self.failure
            client.waiting.extend(jobs)
            self._changed.notify_all()

    def withdraw(self, client: "EngineClient", jobs: Sequence[_Job]) -> None:
        """Drop jobs that have not ended: those that wait at once, those that run before the next step."""
        dropped = set(map(id, jobs))
        with self._changed:
            client.waiting = deque(job for job in client.waiting if id(job) not in dropped)
            for key, job in list(self._running.items()):
                if id(job) in dropped:
                    self._ended(key)
                    self._aborted.add(key)
            self._changed.notify_all()

    def leave(self, client: "EngineClient") -> None:
        """Take no more turns for a client."""
        with self._changed:
            self._clients.remove(client)

    # The thread

    def _serve(self) -> None:
        try:
            batch = self.engine.open_batch()
            while self._serve_once(batch):
                pass
        except Exception as error:
            stopped = EngineStopped(f"the shared engine failed: {type(error).__name__}: {error}")
            stopped.__cause__ = error
            self._stop(stopped)

    def _serve_once(self, batch: Batch) -> bool:
        """Start what may start, take a step, and hand out what has ended; return whether to go on."""
        with self._changed:
            while not (self.failure or self._running or self._aborted or any(c.waiting for c in self._clients)):
                self._changed.wait()
            if self.failure is not None:
                return False
            aborted, self._aborted = self._aborted, set()
            started = self._start()
        if aborted:
            batch.abort(aborted)
        for key, job in started:
            try:
                if job.params is not None:
                    batch.add(key, job.prompts[0], job.params)
                else:
                    self._deliver(key, self.engine.loglikelihood(job.prompts, job.continuations))
            except (ValueError, TypeError) as error:  # the request's fault; anything else is the engine's
                self._deliver(key, error)
        for key, generation in batch.step():
            self._deliver(key, generation)
        return True

    def _start(self) -> list[tuple[int, _Job]]:
        """Return the jobs that begin now, by turns."""
        started: list[tuple[int, _Job]] = []
        while True:
            client = next((client for client in self._clients if client.may_start), None)
            if client is None:
                return started
            self._clients.remove(client)
            self._clients.append(client)  # the next turn is the others'
            job = client.waiting.popleft()
            client.running += job.sequences
            self._running[self._next_key] = job
            started.append((self._next_key, job))
            self._next_key += 1

    def _deliver(self, key: int, result: Generation | list[LogLikelihood] | ValueError | TypeError) -> None:
        with self._changed:
            if key in self._running:
                job = self._ended(key)
                job.answers.put((job, result))

    def _ended(self, key: int) -> _Job:
        job = self._running.pop(key)
        job.client.running -= job.sequences
        return job

    def _stop(self, reason: EngineStopped) -> None:
        with self._changed:
            if self.failure is None:
                self.failure = reason
            for job in [*self._running.values(), *(job for client in self._clients for job in client.waiting)]:
                job.answers.put((job, self.failure))
            self._running.clear()
            self._changed.notify_all()


class EngineClient:
    """The shared engine as one submission's judge uses it. One thread at a time may call."""

    def __init__(self, shared: SharedEngine, look: Callable[[], None]):
        self.name, self.has_chat_template = shared.engine.name, shared.engine.has_chat_template
        self.usage = Usage()
        """Empty: a `MeteredEngine` around the client counts."""
        self.waiting: deque[_Job] = deque()
        self.running = 0  # sequences
        self._next_seed = 0
        self._shared = shared
        self._look = look

    @property
    def may_start(self) -> bool:
        """Whether the next request, if there is one, fits into this client's share."""
        limit = self._shared.sequences_per_client
        return bool(self.waiting) and self.running + self.waiting[0].sequences <= limit

    def close(self) -> None:
        """Take no more turns."""
        self._shared.leave(self)

    def fingerprint(self) -> str:
        """Return the engine's."""
        return self._shared.engine.fingerprint()

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the engine's count."""
        return self._shared.engine.count_tokens(prompt, continuation)

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt; see `Engine`.

        A request without a seed gets one that depends on the requests before it. Raises ValueError also for more
        completions of one prompt than may run at a time, and EngineStopped.
        """
        limit = self._shared.sequences_per_client
        answers: queue.SimpleQueue[tuple[_Job, Any]] = queue.SimpleQueue()
        jobs = []
        for index, (prompt, settings) in enumerate(each_with_params(prompts, params)):
            if settings.n > limit:
                raise ValueError(f"n: expected at most {limit} completions of a prompt at a time, got {settings.n}")
            if settings.seed is None:  # so that a run can be repeated
                settings = msgspec.structs.replace(settings, seed=self._next_seed)
                self._next_seed += settings.n
            jobs.append(_Job(self, index, [prompt], settings, [], answers))
        results: dict[int, Generation] = {}
        for job, generation in self._answers(jobs, answers):
            results[job.index] = generation
            if on_done is not None:
                on_done(job.index, generation)
        return [results[i] for i in range(len(jobs))]

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Return log P(continuation | context) of each pair; see `Engine`. Raises EngineStopped too."""
        if len(contexts) != len(continuations):
            raise ValueError(f"expected as many continuations as contexts ({len(contexts)}), got {len(continuations)}")
        limit = self._shared.sequences_per_client
        answers: queue.SimpleQueue[tuple[_Job, Any]] = queue.SimpleQueue()
        jobs = [
            _Job(self, i, contexts[i : i + limit], None, continuations[i : i + limit], answers)
            for i in range(0, len(contexts), limit)
        ]
        results: dict[int, LogLikelihood] = {}
        for job, scored in self._answers(jobs, answers):
            for index, result in enumerate(scored, start=job.index):
                results[index] = result
                if on_done is not None:
                    on_done(index, result)
        return [results[i] for i in range(len(contexts))]

    def _answers(self, jobs: list[_Job], answers: "queue.SimpleQueue[tuple[_Job, Any]]") -> Any:
        """Yield each job with its result as it comes; whatever ends the wait withdraws the others."""
        left = set(map(id, jobs))
        next_look = time.monotonic() + LOOK_SECONDS
        try:
            self._shared.submit(self, jobs)
            while left:
                if time.monotonic() > next_look:
                    self._look()
                    next_look = time.monotonic() + LOOK_SECONDS
                try:
                    job, result = answers.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    continue
                left.discard(id(job))
                if isinstance(result, Exception):
                    raise result
                yield job, result
        finally:
            self._shared.withdraw(self, [job for job in jobs if id(job) in left])
