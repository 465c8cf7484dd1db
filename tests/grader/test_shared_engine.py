"""One engine for many: turns, shares, aborted requests, clean ends. Steps are counted, nothing is timed."""

import threading
from collections.abc import Callable, Container

import pytest

from grader.shared_engine import EngineClient, EngineStopped, SharedEngine
from shared_tasks.models.engine import Completion, Generation, Prompt, SamplingParams
from shared_tasks.models.registry import load_engine
from shared_tasks.models.scripted import ScriptedEngine
from shared_tasks.models.transformers_engine import TransformersEngine


class CountedBatch:
    """A batch in which a request takes as many steps as it has tokens; it keeps what joined and left at each step."""

    def __init__(self) -> None:
        self.running: dict[int, tuple[str, SamplingParams, int]] = {}
        self.steps: list[list[str]] = []
        self.aborted: list[str] = []
        self.gate = threading.Semaphore(0)

    def add(self, key: int, prompt: Prompt, params: SamplingParams) -> None:
        if prompt == "too long":
            raise ValueError("too long")
        self.running[key] = str(prompt), params, 0

    def abort(self, keys: Container[int]) -> None:
        self.aborted += [self.running.pop(key)[0] for key in list(self.running) if key in keys]

    def step(self) -> list[tuple[int, Generation]]:
        assert self.gate.acquire(timeout=60)
        if any(prompt == "break" for prompt, *_ in self.running.values()):
            raise OSError("out of memory")
        self.steps.append([prompt for prompt, *_ in self.running.values()])
        ended = []
        for key, (prompt, params, done) in list(self.running.items()):
            self.running[key] = prompt, params, done + 1
            if done + 1 == params.max_tokens:
                del self.running[key]
                ended.append((key, Generation(1, [Completion(prompt, [0], [0.0], "length")] * params.n, 0.0, done + 1)))
        return ended


def score(context: str, text: str) -> list[float]:
    """Return what a text is worth."""
    if not isinstance(text, str):
        raise TypeError("no text")
    return [-1.0]


class CountedEngine(ScriptedEngine):
    """An engine whose batch is a counted one."""

    def __init__(self) -> None:
        super().__init__({}, score)
        self.batch = CountedBatch()

    def open_batch(self) -> CountedBatch:
        return self.batch


def ask(client: EngineClient, prompts: list[str], max_tokens: int = 1, n: int = 1) -> Callable[[], list[Generation]]:
    """Let a thread ask, and return once its requests wait; the function gives the answers."""
    found: list[list[Generation]] = []
    before = client._shared  # the thread has submitted when the engine knows all of its requests
    waiting = len(client.waiting) + client.running
    settings = SamplingParams(max_tokens=max_tokens, n=n)
    thread = threading.Thread(target=lambda: found.append(client.generate(prompts, settings)))
    thread.start()
    while True:
        with before._changed:
            if len(client.waiting) + client.running // n > waiting or not thread.is_alive():
                break

    def answers() -> list[Generation]:
        thread.join(60)
        return found[0]

    return answers


def test_a_flood_does_not_starve_the_others() -> None:
    """With shares of two, a flood of ten runs two at a time, and whoever comes beside it runs in the next step."""
    engine = CountedEngine()
    with SharedEngine(engine, sequences_per_client=2) as shared:
        flood, quiet = shared.client(), shared.client()
        flooded = ask(flood, [f"flood {i}" for i in range(10)])
        asked = ask(quiet, ["quiet 0", "quiet 1"])
        engine.batch.gate.release(8)
        assert [generation.completions[0].text for generation in asked()] == ["quiet 0", "quiet 1"]
        assert len(flooded()) == 10
    steps = [step for step in engine.batch.steps if step]
    assert all(sum(prompt.startswith("flood") for prompt in step) <= 2 for step in steps)
    assert len(steps) <= 6
    assert max(i for i, step in enumerate(steps) if any("quiet" in prompt for prompt in step)) <= 1


def test_completions_count_to_the_share() -> None:
    """A request for two completions takes the place of two; one for more than the share is refused with words."""
    engine = CountedEngine()
    with SharedEngine(engine, sequences_per_client=3) as shared:
        client = shared.client()
        answers = ask(client, ["a", "b"], n=2)
        engine.batch.gate.release(2)
        assert len(answers()) == 2
        assert engine.batch.steps == [["a"], ["b"]]
        with pytest.raises(ValueError, match="at most 3 completions"):
            client.generate(["a"], SamplingParams(n=4))


def test_a_wait_that_ends_frees_the_requests() -> None:
    """A submission that dies while it waits: what ran for it is aborted, what waited never runs."""
    engine = CountedEngine()

    def died() -> None:
        raise ChildProcessError("its process ended")

    with SharedEngine(engine, sequences_per_client=1) as shared:
        client, other = shared.client(died), shared.client()
        engine.batch.gate.release(1)
        with pytest.raises(ChildProcessError):
            client.generate(["long", "never"], SamplingParams(max_tokens=1000))
        answers = ask(other, ["other"])
        engine.batch.gate.release(2)
        assert len(answers()) == 1
        assert client.running == 0
    assert engine.batch.aborted == ["long"]
    assert "never" not in {prompt for step in engine.batch.steps for prompt in step}


def test_a_request_that_cannot_run_harms_nobody() -> None:
    """Its client is told, and the engine serves on; scoring goes between the steps."""
    engine = CountedEngine()
    engine.batch.gate.release(10)
    with SharedEngine(engine) as shared:
        client = shared.client()
        with pytest.raises(ValueError, match="too long"):
            client.generate(["too long"], SamplingParams(max_tokens=1))
        with pytest.raises(TypeError, match="no text"):
            client.loglikelihood(["a"], [None])  # type: ignore[list-item]
        assert client.generate(["a"], SamplingParams(max_tokens=1))[0].completions[0].text == "a"
        assert [scored.total for scored in client.loglikelihood(["a"] * 3, ["b"] * 3)] == [-1.0] * 3


def test_an_engine_that_fails_tells_everybody() -> None:
    """Those who wait, and those who come later, get an error that is none of a submission's."""
    engine = CountedEngine()
    engine.batch.gate.release(10)
    shared = SharedEngine(engine)
    client = shared.client()
    for _ in range(2):
        with pytest.raises(EngineStopped, match="out of memory"):
            client.generate(["break"], SamplingParams(max_tokens=1))
    shared.close()


@pytest.fixture(scope="module")
def small() -> TransformersEngine:
    engine = load_engine("course-small")
    assert isinstance(engine, TransformersEngine)
    return engine


def test_a_running_batch_gives_what_generate_gives(small: TransformersEngine) -> None:
    """Requests that join at any step, longer prompts after shorter ones, get the tokens that they get alone."""
    prompts = ["One and one", "A much longer prompt, " * 8 + "which comes late", "Two", "And " * 30 + "so on"]
    settings = [SamplingParams(n=1 + i % 2, max_tokens=5 + 4 * i, seed=i) for i in range(len(prompts))]
    batch = small.open_batch()
    ended: dict[int, Generation] = {}
    for i, (prompt, params) in enumerate(zip(prompts, settings, strict=True)):
        batch.add(i, prompt, params)
        for _ in range(3):
            ended |= dict(batch.step())
    while len(ended) < len(prompts):
        ended |= dict(batch.step())
    for i, (prompt, params) in enumerate(zip(prompts, settings, strict=True)):
        (alone,) = small.generate([prompt], params)
        assert [c.token_ids for c in ended[i].completions] == [c.token_ids for c in alone.completions]
        assert ended[i].prompt_tokens == alone.prompt_tokens


def test_aborted_requests_leave_a_running_batch(small: TransformersEngine) -> None:
    """What is aborted never ends, and its neighbour goes on as if it had been alone."""
    batch = small.open_batch()
    for key in range(3):
        batch.add(key, "Once upon", SamplingParams(n=2, max_tokens=6, seed=key, ignore_eos=True))
    assert batch.step() == []
    batch.abort({0, 2})
    ended = [generation for _ in range(8) for generation in batch.step()]
    (alone,) = small.generate(["Once upon"], SamplingParams(n=2, max_tokens=6, seed=1, ignore_eos=True))
    ((key, generation),) = ended
    assert key == 1
    assert [c.token_ids for c in generation.completions] == [c.token_ids for c in alone.completions]


@pytest.mark.parametrize("params", [SamplingParams(seed=1 << 62), SamplingParams(logit_bias={10**6: 1.0})])
def test_parameters_that_would_break_a_step_are_refused(small: TransformersEngine, params: SamplingParams) -> None:
    """A submission cannot take the engine from the others by a seed or a token that does not exist."""
    with pytest.raises(ValueError, match="expected"):
        small.open_batch().add(0, "Once", params)
