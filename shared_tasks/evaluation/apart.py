"""Answering each question apart, through a meter of its own, while the engine still sees all questions together."""

import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shared_tasks.evaluation.methods import Method, Question
from shared_tasks.models.engine import (
    Completion,
    Engine,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)
from shared_tasks.models.metered import MeteredEngine, TokenBudgetExceeded

QUESTIONS_AT_A_TIME = 256
OnAnswer = Callable[[int, Generation, str], None]


def answer_apart(
    method: Method,
    engine: Engine,
    questions: Sequence[Question],
    params: Sequence[SamplingParams],
    token_budget: int | None,
    on_answer: OnAnswer,
    name: str,
) -> None:
    """Let a method answer each question by itself, within `token_budget` tokens.

    Every question has a thread and a meter; what all threads ask for next is collected into one call of the engine,
    which runs in the calling thread. `on_answer` gets the index of a question, its generation with the tokens that the
    meter counted, and an empty text, or why the budget was too small: then its outputs are empty. Raises ValueError,
    naming the function, where the method meets a stub, and where it does not return one generation; other errors of
    the method as they are.
    """
    for start in range(0, len(questions), QUESTIONS_AT_A_TIME):
        indices = range(start, min(start + QUESTIONS_AT_A_TIME, len(questions)))
        _answer_together(method, engine, questions, params, token_budget, on_answer, name, indices)


@dataclass
class _Call:
    """What one question asks the engine for."""

    kind: str
    first: list[Any]
    """Prompts, or contexts."""
    second: list[Any]
    """Parameters, or continuations."""
    result: "Future[list[Any]]" = field(default_factory=Future)


class _Front:
    """The engine as the thread of one question sees it: it hands its calls over, and waits."""

    def __init__(self, engine: Engine, events: "queue.Queue[_Call | _Ended]"):
        self.name, self.has_chat_template = engine.name, engine.has_chat_template
        self.usage: Usage = engine.usage
        self._engine = engine
        self._events = events

    def fingerprint(self) -> str:
        return self._engine.fingerprint()

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        return self._engine.count_tokens(prompt, continuation)

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        pairs = each_with_params(prompts, params)
        return self._wait(_Call("generate", [one for one, _ in pairs], [one for _, one in pairs]), on_done)

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        return self._wait(_Call("loglikelihood", list(contexts), list(continuations)), on_done)

    def _wait(self, call: _Call, on_done: Callable[[int, Any], None] | None) -> list[Any]:
        self._events.put(call)
        results = call.result.result()
        if on_done is not None:
            for index, result in enumerate(results):
                on_done(index, result)
        return results


@dataclass
class _Ended:
    """How a question ended."""

    index: int
    generation: Generation | None
    error: Exception | None
    meter: MeteredEngine


def _answer_together(
    method: Method,
    engine: Engine,
    questions: Sequence[Question],
    params: Sequence[SamplingParams],
    token_budget: int | None,
    on_answer: OnAnswer,
    name: str,
    indices: Sequence[int],
) -> None:
    events: queue.Queue[_Call | _Ended] = queue.Queue()

    def run(index: int) -> None:
        meter = MeteredEngine(_Front(engine, events), token_budget)
        generation, error = None, None
        try:
            results = method.generate(meter, [questions[index]], [params[index]], lambda position, result: None)
            if len(results) != 1 or not isinstance(results[0], Generation):
                raise ValueError(f"{name}: expected one Generation for one question, got {results!r:.200}")
            generation = results[0]
        except Exception as caught:
            error = caught
        events.put(_Ended(index, generation, error, meter))

    running = len(indices)
    waiting: list[_Call] = []
    for index in indices:
        threading.Thread(target=run, args=[index], daemon=True).start()
    try:
        while running:
            event = events.get()
            if isinstance(event, _Call):
                waiting.append(event)
            else:
                running -= 1
                on_answer(event.index, *_outcome(event, params[event.index], name))
            if running and len(waiting) == running:
                for kind in ("generate", "loglikelihood"):
                    _run([call for call in waiting if call.kind == kind], engine, kind)
                waiting = []
    except BaseException as error:
        while running:  # every thread ends: it gets the error from the call in which it waits
            for call in waiting:
                if not call.result.done():
                    call.result.set_exception(RuntimeError(f"the run ended: {error}"))
            waiting = []
            event = events.get()
            if isinstance(event, _Call):
                waiting.append(event)
            else:
                running -= 1
        raise


def _run(calls: Sequence[_Call], engine: Engine, kind: str) -> None:
    """Run the calls of all questions as one."""
    if not calls:
        return
    first = [one for call in calls for one in call.first]
    second = [one for call in calls for one in call.second]
    results = iter(engine.generate(first, second) if kind == "generate" else engine.loglikelihood(first, second))
    for call in calls:
        call.result.set_result([next(results) for _ in call.first])


def _outcome(ended: _Ended, params: SamplingParams, name: str) -> tuple[Generation, str]:
    exceeded = ""
    generation = ended.generation
    if isinstance(ended.error, TokenBudgetExceeded):
        exceeded = str(ended.error)
        empty = Completion(text="", token_ids=[], logprobs=[], finish_reason="length")
        generation = Generation(0, [empty] * params.n, 0.0)
    elif isinstance(ended.error, NotImplementedError):
        frame = traceback.extract_tb(ended.error.__traceback__)[-1]
        raise ValueError(f"{name}: {frame.name} in {frame.filename}, line {frame.lineno}, is not implemented yet")
    elif ended.error is not None:
        raise ended.error
    assert generation is not None
    usage = ended.meter.usage
    return msgspec.structs.replace(
        generation,
        prompt_tokens=usage.prompt_tokens,
        generated_tokens=usage.generated_tokens,
        forward_positions=usage.forward_positions,
    ), exceeded
