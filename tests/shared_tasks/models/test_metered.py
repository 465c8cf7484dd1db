"""The meter: what requests cost, what a budget lets through, and several callers at once."""

import threading
from collections.abc import Callable, Sequence

import pytest

from shared_tasks.models.engine import Engine, Generation, Prompt, SamplingParams
from shared_tasks.models.metered import MeteredEngine, TokenBudgetExceeded
from shared_tasks.models.registry import load_engine
from shared_tasks.models.scripted import ScriptedEngine

WORDS = "one two three four five six"


def long_winded() -> ScriptedEngine:
    """Return an engine that would say six words to anything, and finds each word of a continuation as likely."""
    return ScriptedEngine(lambda prompt, params: [WORDS] * params.n, lambda context, text: [-1.0] * len(text.split()))


def test_a_prompt_costs_once_whatever_n() -> None:
    """Three completions of two tokens to a prompt of four tokens cost 4 + 6."""
    meter = MeteredEngine(long_winded(), token_budget=10)
    assert isinstance(meter, Engine)
    meter.generate(["a b c d"], SamplingParams(n=3, max_tokens=2))
    assert (meter.usage.requests, meter.usage.prompt_tokens, meter.usage.generated_tokens) == (1, 4, 6)
    assert meter.remaining == 0


def test_loglikelihood_costs_context_and_continuation() -> None:
    """Scoring two tokens after three costs five, and one token more than is left is too much."""
    meter = MeteredEngine(long_winded(), token_budget=9)
    meter.loglikelihood(["a b c"], [" d e"])
    assert meter.remaining == 4
    with pytest.raises(TokenBudgetExceeded):
        meter.loglikelihood(["a b c"], [" d e"])
    meter.loglikelihood(["a b c"], [" d"])
    assert meter.remaining == 0


def test_what_is_not_used_is_given_back() -> None:
    """A request needs room for the longest answers, and costs those it got."""
    meter = MeteredEngine(long_winded(), token_budget=21)
    meter.generate(["a"], SamplingParams(n=2, max_tokens=10))
    assert meter.remaining == 21 - 1 - 12


def test_a_request_that_could_cost_too_much_does_not_run() -> None:
    """It is refused before anything of its call runs, in words that tell both numbers; a smaller one still runs."""
    engine = long_winded()
    meter = MeteredEngine(engine, token_budget=20)
    with pytest.raises(TokenBudgetExceeded, match="20 of 20 tokens are left, and a request could cost 21"):
        meter.generate(["a", "b"], [SamplingParams(max_tokens=1), SamplingParams(max_tokens=20)])
    assert engine.calls == []
    assert (meter.remaining, meter.usage.requests) == (20, 0)
    meter.generate(["b"], SamplingParams(max_tokens=19))


def test_many_requests_run_in_waves_that_fit() -> None:
    """With room for two at their greatest cost two run at a time, and more when these have cost less."""
    engine = long_winded()
    meter = MeteredEngine(engine, token_budget=35)
    done: list[int] = []
    generations = meter.generate(
        ["a", "b", "c", "d"], SamplingParams(max_tokens=11), lambda index, generation: done.append(index)
    )
    # 35 holds two of 12; 21 are left, which holds one; then 14, and one; 7 at last.
    assert engine.calls == [["a", "b"], ["c"], ["d"]]
    assert (meter.remaining, done, len(generations)) == (7, [0, 1, 2, 3], 4)


def test_a_call_that_runs_dry_tells_what_ran() -> None:
    """The third of three requests does not fit any more: the first two were told, and are paid for."""
    meter = MeteredEngine(long_winded(), token_budget=20)
    done: list[int] = []
    with pytest.raises(TokenBudgetExceeded, match="6 of 20 tokens are left, and a request could cost 7"):
        meter.generate(["a", "b", "c"], SamplingParams(max_tokens=6), lambda index, generation: done.append(index))
    assert (done, meter.remaining) == ([0, 1], 6)


def test_an_error_of_the_engine_gives_back_what_was_set_aside() -> None:
    """A request that fails costs nothing."""
    meter = MeteredEngine(ScriptedEngine({}), token_budget=20)
    with pytest.raises(ValueError, match="replies"):
        meter.generate(["a"], SamplingParams(max_tokens=6))
    assert meter.remaining == 20


def test_a_call_that_is_cut_off_pays_for_all_that_it_had_set_aside() -> None:
    """Whoever takes the first answer and drops the others pays for them too: 1 + 6, and twice 1 + 10."""
    meter = MeteredEngine(long_winded(), token_budget=100)

    def first_is_enough(index: int, generation: Generation) -> None:
        raise StopIteration

    with pytest.raises(StopIteration):
        meter.generate(["a", "b", "c"], SamplingParams(max_tokens=10), first_is_enough)
    assert meter.remaining == 100 - 7 - 22


def test_a_call_within_on_done_does_not_wait_for_its_own_tokens() -> None:
    """What only the outer call could give back is not there for the inner one: it is refused, and nobody hangs."""
    meter = MeteredEngine(long_winded(), token_budget=50)

    def ask_for_more(index: int, generation: Generation) -> None:
        meter.generate(["x"], SamplingParams(max_tokens=(meter.remaining or 0) + 5))

    with pytest.raises(TokenBudgetExceeded):
        meter.generate(["a", "b"], SamplingParams(max_tokens=10), ask_for_more)


def test_an_engine_may_tell_of_results_from_another_thread() -> None:
    """What is set aside belongs to the caller: a later call that is too large is refused and does not wait."""

    class Elsewhere(ScriptedEngine):
        def generate(
            self,
            prompts: Sequence[Prompt],
            params: SamplingParams | Sequence[SamplingParams],
            on_done: Callable[[int, Generation], None] | None = None,
        ) -> list[Generation]:
            found: list[Generation] = []
            thread = threading.Thread(
                target=lambda: found.extend(super(Elsewhere, self).generate(prompts, params, on_done))
            )
            thread.start()
            thread.join()
            return found

    meter = MeteredEngine(Elsewhere(lambda prompt, params: [WORDS] * params.n), token_budget=20)
    meter.generate(["a"], SamplingParams(max_tokens=10))
    meter.generate(["b"], SamplingParams(max_tokens=10))
    assert meter.remaining == 20 - 2 * 7
    with pytest.raises(TokenBudgetExceeded):
        meter.generate(["c"], SamplingParams(max_tokens=6))


def test_meters_of_one_engine_count_for_themselves() -> None:
    """What goes through one meter is not in the other's usage, and is in the engine's."""
    engine = long_winded()
    first, second = MeteredEngine(engine, 30), MeteredEngine(engine)
    first.generate(["a b"], SamplingParams(max_tokens=3))
    second.generate(["a"], SamplingParams(max_tokens=4))
    assert (first.usage.generated_tokens, second.usage.generated_tokens) == (3, 4)
    assert (first.remaining, second.remaining, engine.usage.generated_tokens) == (25, None, 7)


def test_threads_share_a_budget_that_is_never_exceeded() -> None:
    """Two threads ask for more than is left together: one waits for what the other gives back, and both are served."""
    began, go_on = threading.Event(), threading.Event()

    class Slow(ScriptedEngine):
        def generate(
            self,
            prompts: Sequence[Prompt],
            params: SamplingParams | Sequence[SamplingParams],
            on_done: Callable[[int, Generation], None] | None = None,
        ) -> list[Generation]:
            began.set()
            assert go_on.wait(60)
            return super().generate(prompts, params, on_done)

    meter = MeteredEngine(Slow(lambda prompt, params: [WORDS]), token_budget=17)

    def ask() -> None:
        meter.generate(["a"], SamplingParams(max_tokens=9))

    first, second = threading.Thread(target=ask), threading.Thread(target=ask)
    first.start()
    assert began.wait(60)
    second.start()
    assert meter.remaining == 7
    go_on.set()
    first.join(60)
    second.join(60)
    assert (meter.remaining, meter.usage.requests) == (3, 2)


def test_counts_are_those_of_the_engine() -> None:
    """What the meter sets aside for prompts and continuations is what the model turns out to have read."""
    engine = load_engine("course-small")
    chat = [{"role": "user", "content": "What is 2 + 3?"}]
    for prompt in ("", "Two plus three ", chat):
        (generation,) = engine.generate([prompt], SamplingParams(max_tokens=1))
        (scored,) = engine.loglikelihood([prompt], [" is five."])
        assert engine.count_tokens(prompt) == generation.prompt_tokens
        assert engine.count_tokens(prompt, " is five.") == scored.prompt_tokens + len(scored.logprobs)
