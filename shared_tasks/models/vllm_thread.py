"""vLLM in a thread of its own, which loads it, takes its steps, and ends it: no other thread touches it."""

import gc
import itertools
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch

# What vLLM reads from the environment, unless it is set already.
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, taken at once; half of the memory if nothing is said
}

Result = TypeVar("Result")


class VllmStopped(RuntimeError):
    """The engine was closed, or has failed."""


@dataclass(eq=False)
class Requests:
    """Requests of one caller: what of them has not ended, and what has ended and was not collected yet."""

    running: dict[str, Any] = field(default_factory=dict)
    """The caller's name for each, by vLLM's."""
    ended: list[tuple[Any, Any]] = field(default_factory=list)
    """The caller's name with vLLM's output, or with the error of a request that could not be run."""


class _Command(NamedTuple):
    """What another thread wants done."""

    do: Callable[[Any], None]
    alone: bool = False
    """Whether no request may be running."""


class VllmThread:
    """Runs `vllm.LLM` for any number of threads; whatever they ask for joins the one batch that is running.

    The engine lives in this process, without processes of its own: nothing is left over, however the process ends.
    """

    def __init__(self, **options: Any):
        """Load a model with vLLM's own options. Raises what vLLM raises."""
        self.seconds = 0.0
        """Wall time in steps."""
        self.steps = 0
        self.changed = threading.Condition()
        """Held while any of this changes, and told of every step."""
        self._options = options
        self._names = itertools.count()
        self._commands: deque[_Command] = deque()
        self._requests: dict[str, Requests] = {}
        self._stopped: BaseException | None = None
        loaded: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(loaded,), name="vllm", daemon=True)
        self._thread.start()
        loaded.result()

    def submit(self, requests: Requests, prompts: Sequence[tuple[Any, list[int], Any]]) -> None:
        """Add requests, each a name, the prompt's tokens and vLLM's parameters. Raises VllmStopped."""
        named = [(str(next(self._names)), *prompt) for prompt in prompts]

        def add(llm: Any) -> None:
            for request_id, _, tokens, params in named:
                try:
                    llm.llm_engine.add_request(request_id, {"prompt_token_ids": tokens}, params)
                except Exception as error:  # whatever it is, the request is refused and the others run on
                    self._end(request_id, ValueError(f"vLLM refuses the request: {' '.join(str(error).split())}"))

        with self.changed:
            self._check()
            for request_id, name, *_ in named:
                requests.running[request_id] = name
                self._requests[request_id] = requests
            self._commands.append(_Command(add))
            self.changed.notify_all()

    def abort(self, requests: Requests, names: Container[Any] | None = None) -> None:
        """Drop the requests with these names, all of them if none are given."""
        with self.changed:
            dropped = [request_id for request_id, name in requests.running.items() if names is None or name in names]
            for request_id in dropped:
                del requests.running[request_id], self._requests[request_id]
            if dropped and self._stopped is None:
                self._commands.append(_Command(lambda llm: llm.llm_engine.abort_request(dropped)))
                self.changed.notify_all()

    def collect(self, requests: Requests, step: bool = False) -> list[tuple[Any, Any]]:
        """Wait until some of the requests have ended, with `step` for one step at most, and return those.

        Raises VllmStopped, and the error of a request that could not be run.
        """
        with self.changed:
            before = self.steps
            while requests.running and not requests.ended and not (step and self.steps > before):
                self._check()
                self.changed.wait()
            ended, requests.ended = requests.ended, []
        for _, output in ended:
            if isinstance(output, ValueError):
                raise output
        return ended

    def run(self, function: Callable[[Any], Result]) -> Result:
        """Return what a function makes of `vllm.LLM` when no request is running; those that come meanwhile wait."""
        answer: Future[Result] = Future()

        def call(llm: Any) -> None:
            try:
                answer.set_result(function(llm))
            except BaseException as error:
                answer.set_exception(error)

        with self.changed:
            self._check()
            self._commands.append(_Command(call, alone=True))
            self.changed.notify_all()
            while not answer.done():
                self._check()
                self.changed.wait()
        return answer.result()

    def close(self) -> None:
        """End after the step that runs, and free the model; who still waits gets VllmStopped."""
        self._stop(VllmStopped("the engine vllm was closed"))
        self._thread.join()

    # The thread

    def _serve(self, loaded: "Future[None]") -> None:
        try:
            llm = _load(self._options)
        except BaseException as error:
            self._stopped = error
            loaded.set_exception(error)
            return
        loaded.set_result(None)
        try:
            while self._serve_once(llm):
                pass
        except BaseException as error:
            self._stop(error)
        _leave(llm)

    def _serve_once(self, llm: Any) -> bool:
        """Do what was asked and take a step; return whether to go on."""
        engine = llm.llm_engine
        commands: list[_Command] = []
        with self.changed:
            while not (self._stopped or self._commands or engine.has_unfinished_requests()):
                self.changed.wait()
            if self._stopped is not None:
                return False
            while self._commands and not self._commands[0].alone:
                commands.append(self._commands.popleft())
            if self._commands and not commands and not engine.has_unfinished_requests():
                commands.append(self._commands.popleft())
        for command in commands:
            command.do(llm)
        began = time.perf_counter()
        outputs = engine.step() if engine.has_unfinished_requests() else []
        self.seconds += time.perf_counter() - began
        for output in outputs:
            if output.finished:
                self._end(output.request_id, output)
        with self.changed:
            self.steps += 1
            self.changed.notify_all()
        return True

    def _end(self, request_id: str, output: Any) -> None:
        with self.changed:
            requests = self._requests.pop(request_id, None)
            if requests is not None:  # it was not aborted
                requests.ended.append((requests.running.pop(request_id), output))

    def _check(self) -> None:
        if self._stopped is not None:
            raise VllmStopped(f"the engine vllm runs no more: {self._stopped}") from self._stopped

    def _stop(self, reason: BaseException) -> None:
        with self.changed:
            self._stopped = self._stopped or reason
            self.changed.notify_all()


def gpu_options(share: float) -> dict[str, Any]:
    """Return the options by which vLLM takes this share of the memory that is free on a GPU; none on a CPU."""
    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": round(share * free / total, 4)}


# What vLLM sets up for a process (its groups of processes, of one) goes down with the first engine that is shut down.
# So all engines of this process are shut down together, when the last of them is closed.
_engines: list[Any] = []
_closed = 0
_turn = threading.Lock()


def _load(options: dict[str, Any]) -> Any:
    """Return `vllm.LLM` with these options, in this process."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM

    with _turn, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what vLLM uses of torch, and nothing that its user could change
        llm = LLM(**options)
        _engines.append(llm)
    return llm


def _leave(llm: Any) -> None:
    """Shut the engine down, and those that were closed before, unless one of this process still runs."""
    global _closed
    with _turn:
        engine = llm.llm_engine
        engine.abort_request(list(engine.output_processor.request_states), internal=True)
        _closed += 1
        if _closed == len(_engines):
            for each in _engines:
                each.llm_engine.engine_core.shutdown()
            _engines.clear()
            _closed = 0
    del llm, engine
    gc.collect()
