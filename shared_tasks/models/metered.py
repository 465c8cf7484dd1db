"""An engine that counts the tokens that pass through it, and keeps to a budget."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from shared_tasks.models.engine import (
    Engine,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)

Result = TypeVar("Result", Generation, LogLikelihood)
Run = Callable[[Sequence[int], Callable[[int, Result], None]], object]
"""Runs the requests with these indices, and calls back with the place among them and the result of each."""


class TokenBudgetExceeded(RuntimeError):
    """A request could cost more tokens than are left; it did not run."""


class MeteredEngine:
    """An engine around an engine, with a token budget of its own.

    A generation costs the tokens of its prompt, once whatever `n`, and those of all its completions; a log-likelihood
    costs the tokens of context and continuation. Before a request runs, the most that it can cost is set aside: prompt
    and n * max_tokens. It runs only if that much is left, so that the budget is never exceeded, and what it did not
    use is given back as soon as it ends. A call that ends in an error when some of its requests have ended, because
    `on_done` raises or a request cannot run, pays for all that it had set aside: how far the others had come is not
    known. Several threads may call at once.
    """

    def __init__(self, engine: Engine, token_budget: int | None = None):
        """Meter an engine; without a budget the tokens are counted only."""
        self.name, self.has_chat_template = engine.name, engine.has_chat_template
        self.usage = Usage()
        """What went through this meter. Tokens of scored continuations count as prompt tokens: the model reads them."""
        self._engine = engine
        self._budget = token_budget
        self._reserved: Counter[int] = Counter()
        """Tokens set aside, by the thread that asked: a call from within its `on_done` must not wait for its own."""
        self._changed = threading.Condition()

    @property
    def remaining(self) -> int | None:
        """Return how many tokens are neither used nor set aside; None without a budget."""
        if self._budget is None:
            return None
        return self._budget - self.usage.prompt_tokens - self.usage.generated_tokens - self._reserved.total()

    def fingerprint(self) -> str:
        """Return the engine's."""
        return self._engine.fingerprint()

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the engine's count, which costs nothing."""
        return self._engine.count_tokens(prompt, continuation)

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt; see `Engine`.

        Requests that do not fit into what is left all at once run one part after the other. Raises TokenBudgetExceeded
        before anything runs if one of them could cost more than is left, and later if one does not fit any more;
        `on_done` has been told what had run by then.
        """
        pairs = each_with_params(prompts, params)
        costs = [self.count_tokens(prompt) + settings.n * settings.max_tokens for prompt, settings in pairs]

        def run(indices: Sequence[int], settle: Callable[[int, Generation], None]) -> None:
            self._engine.generate([pairs[i][0] for i in indices], [pairs[i][1] for i in indices], settle)

        return self._run(costs, run, _count_generation, on_done)

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Return log P(continuation | context) of each pair; see `Engine`, and `generate` for the budget."""
        if len(contexts) != len(continuations):
            raise ValueError(f"expected as many continuations as contexts ({len(contexts)}), got {len(continuations)}")
        costs = [self.count_tokens(*pair) for pair in zip(contexts, continuations, strict=True)]

        def run(indices: Sequence[int], settle: Callable[[int, LogLikelihood], None]) -> None:
            self._engine.loglikelihood([contexts[i] for i in indices], [continuations[i] for i in indices], settle)

        return self._run(costs, run, _count_loglikelihood, on_done)

    def _run(
        self,
        costs: list[int],
        run: Run[Result],
        count: Callable[[Usage, Result], None],
        on_done: Callable[[int, Result], None] | None,
    ) -> list[Result]:
        """Run all requests, as many at a time as the budget has room for at their greatest cost."""
        if costs and self.remaining is not None and max(costs) > self.remaining + self._reserved.total():
            raise self._exceeded(max(costs))
        caller = threading.get_ident()  # the engine may tell of results from another thread
        results: dict[int, Result] = {}
        while len(results) < len(costs):
            first: int = len(results)
            wave: range = range(first, first + self._reserve(costs[first:]))
            clock = time.perf_counter()

            def settle(place: int, result: Result, wave: range = wave) -> None:
                index = wave[place]
                results[index] = result
                with self._changed:
                    self._reserved[caller] -= costs[index]
                    self.usage.requests += 1
                    self.usage.forward_positions += result.forward_positions
                    count(self.usage, result)
                    self._changed.notify_all()
                if on_done is not None:
                    on_done(index, result)

            try:
                run(wave, settle)
            finally:
                with self._changed:
                    cut_off = sum(costs[i] for i in wave if i not in results)
                    self._reserved[caller] -= cut_off
                    if any(i in results for i in wave):
                        self.usage.generated_tokens += cut_off
                    self.usage.seconds += time.perf_counter() - clock
                    self._changed.notify_all()
        return [results[i] for i in range(len(costs))]

    def _reserve(self, costs: Sequence[int]) -> int:
        """Set aside the cost of the first requests; return how many.

        Waits for what other threads may give back. Raises TokenBudgetExceeded if there is no room for the first one.
        """
        with self._changed:
            while self.remaining is not None and costs[0] > self.remaining:
                if self._reserved.total() == self._reserved[threading.get_ident()]:
                    raise self._exceeded(costs[0])
                self._changed.wait()
            count = 0
            for cost in costs:
                if self.remaining is not None and cost > self.remaining:
                    break
                self._reserved[threading.get_ident()] += cost
                count += 1
            return count

    def _exceeded(self, cost: int) -> TokenBudgetExceeded:
        return TokenBudgetExceeded(
            f"{self.remaining} of {self._budget} tokens are left, and a request could cost {cost} "
            "(its prompt and n * max_tokens): ask for fewer or shorter completions"
        )


def _count_generation(usage: Usage, generation: Generation) -> None:
    usage.prompt_tokens += generation.prompt_tokens
    usage.generated_tokens += generation.generated_tokens


def _count_loglikelihood(usage: Usage, scored: LogLikelihood) -> None:
    usage.prompt_tokens += scored.prompt_tokens + len(scored.logprobs)
