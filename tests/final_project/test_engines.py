"""The reference engine and the baselines, step by step and without a server."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import pytest
import torch

from final_project.app import ServedModel, create_app
from final_project.interface import Output, Request
from grader.reference.final_project.baselines import StaticBatchingEngine
from grader.reference.final_project.engine import Engine
from shared_tasks.models.endpoint import EndpointEngine
from shared_tasks.models.engine import Prompt, SamplingParams
from shared_tasks.models.folders import model_folder
from shared_tasks.models.transformers_engine import TransformersEngine
from tests.final_project.conftest import LiveServer

PROMPTS = ["Mia has 12 apples", "Once upon a time there was a dog that", "2", "The answer is (A) because " * 6]


@pytest.fixture(scope="module")
def judge() -> TransformersEngine:
    """Give the engine of the shared tasks, which knows the right answers."""
    return TransformersEngine(str(model_folder("course-small")), device="cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_reference(**options: Any) -> Engine:
    return Engine("course-small", **options)


MAKERS: dict[str, Callable[[], Any]] = {
    "reference": make_reference,
    "in small chunks": lambda: make_reference(max_batch_size=3, max_batched_tokens=7, block_size=4),
    "speculative": lambda: make_reference(num_speculative_tokens=3),
    "simple": lambda: StaticBatchingEngine("course-small"),
    "improved": lambda: StaticBatchingEngine("course-small", max_batch_size=3),
}


def drain(engine: Any) -> list[Output]:
    """Step until nothing is left to do."""
    outputs: list[Output] = []
    while engine.stats().waiting + engine.stats().running:
        outputs += engine.step()
    return outputs


def answers(engine: Any, requests: Sequence[Request]) -> dict[int, tuple[list[int], str | None]]:
    """Return the tokens of each request and why it ended."""
    for request in requests:
        engine.add(request)
    tokens: dict[int, list[int]] = {request.id: [] for request in requests}
    reasons: dict[int, str | None] = {}
    for output in drain(engine):
        assert output.request_id not in reasons, "expected nothing after the end"
        tokens[output.request_id] += [token.id for token in output.tokens]
        if output.finish_reason:
            reasons[output.request_id] = output.finish_reason
    return {request_id: (tokens[request_id], reasons[request_id]) for request_id in tokens}


@pytest.mark.parametrize("name", MAKERS)
class TestAnswers:
    """What every engine must get right."""

    def test_equal_to_the_judge(self, judge: TransformersEngine, name: str) -> None:
        """Greedy, seeded and filtered answers are those of the shared tasks' engine, token for token."""
        params = [
            SamplingParams(temperature=0, max_tokens=24),
            SamplingParams(temperature=1, seed=3, max_tokens=17),
            SamplingParams(temperature=0.7, seed=4, top_p=0.8, max_tokens=9, ignore_eos=True),
            SamplingParams(temperature=1.3, seed=5, top_k=5, min_p=0.1, max_tokens=31),
        ]
        right = judge.generate(PROMPTS, params)
        prompts = judge.tokenizer.encode(PROMPTS)
        requests = [Request(i, prompt, p) for i, (prompt, p) in enumerate(zip(prompts, params, strict=True))]
        given = answers(MAKERS[name](), requests)
        for i, generation in enumerate(right):
            assert given[i] == (generation.completions[0].token_ids, generation.completions[0].finish_reason)

    def test_logprobs(self, judge: TransformersEngine, name: str) -> None:
        """Log-probabilities are the model's own, before temperature, with the most likely tokens beside them."""
        params = SamplingParams(temperature=0.5, seed=1, max_tokens=6, logprobs=2)
        (right,) = judge.generate(PROMPTS[:1], params)
        engine = MAKERS[name]()
        engine.add(Request(0, judge.tokenizer.encode(PROMPTS[:1])[0], params))
        engine.add(Request(1, [5], SamplingParams(max_tokens=3, logprobs=None)))
        outputs = drain(engine)
        told = [token for output in outputs if output.request_id == 0 for token in output.tokens]
        assert [token.logprob for token in told] == pytest.approx(right.completions[0].logprobs, abs=1e-4)
        for token, top in zip(told, right.completions[0].top_logprobs, strict=True):
            assert token.top_logprobs == pytest.approx(top, abs=1e-4)
        silent = [token for output in outputs if output.request_id == 1 for token in output.tokens]
        assert all(token.logprob is None and token.top_logprobs is None for token in silent)

    def test_scored_prompt(self, judge: TransformersEngine, name: str) -> None:
        """A scored prompt's tokens come first, with the log-probabilities that they have as a continuation."""
        prompt = judge.tokenizer.encode(PROMPTS[3:])[0]
        (right,) = judge.loglikelihood([""], [PROMPTS[3]])
        engine = MAKERS[name]()
        engine.add(Request(0, prompt, SamplingParams(max_tokens=8, temperature=0)))
        drain(engine)  # leaves the prompt in a cache that knows prefixes
        engine.add(Request(1, prompt, SamplingParams(max_tokens=2, temperature=0, ignore_eos=True), score_prompt=True))
        engine.add(Request(2, [7, 8, 9], SamplingParams(max_tokens=4)))
        outputs = drain(engine)
        told, others = ([t for output in outputs if output.request_id == i for t in output.tokens] for i in (1, 2))
        assert 1 <= len(others) <= 4, "expected the prompt of the neighbour not to be told"
        assert [token.id for token in told[: len(prompt)]] == prompt
        assert len(told) == len(prompt) + 2
        assert told[0].logprob is None
        scored = [token.logprob for token in told[len(prompt) - len(right.logprobs) : len(prompt)]]
        assert scored == pytest.approx(right.logprobs, abs=1e-4)

    def test_abort(self, name: str) -> None:
        """Aborted sequences, waiting or running, give out nothing more, and the others run on as if alone."""
        params = SamplingParams(temperature=1, seed=1, max_tokens=12, ignore_eos=True)
        alone = answers(MAKERS[name](), [Request(3, [9, 9], params)])[3]
        engine = MAKERS[name]()
        for i in range(4):
            engine.add(Request(i, [9, 9], params))
        engine.step()
        for i in range(3):
            engine.abort(i)
        engine.abort(99)
        rest = drain(engine)
        assert {output.request_id for output in rest} <= {3}
        engine.add(Request(5, [9, 9], params))
        again = [token.id for output in drain(engine) for token in output.tokens]
        assert again == alone[0]
        assert (engine.stats().waiting, engine.stats().running) == (0, 0)


class TestReference:
    """What the paged cache and the scheduler are for."""

    @pytest.mark.parametrize("guessed", [0, 3])
    def test_preemption(self, judge: TransformersEngine, guessed: int) -> None:
        """With too few blocks for all, sequences are put off and computed again, and every answer stays the same."""
        params = [SamplingParams(temperature=1, seed=i, max_tokens=400, ignore_eos=True) for i in range(4)]
        requests = [Request(i, [40 + i, 50, 60], p, score_prompt=i == 3) for i, p in enumerate(params)]
        config = judge.model.config
        position = 8 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        positions = config.max_position_embeddings + (4 * 16 if guessed else 0)
        engine = make_reference(cache_bytes=position * positions, num_speculative_tokens=guessed)
        most = 0
        for request in requests:
            engine.add(request)
        tokens: dict[int, list[int]] = {i: [] for i in range(4)}
        put_off = False
        while engine.stats().waiting + engine.stats().running:
            for output in engine.step():
                tokens[output.request_id] += [token.id for token in output.tokens]
            most = max(most, engine.stats().running)
            put_off |= most == 4 and engine.stats().running < 4 and all(len(given) < 400 for given in tokens.values())
        assert put_off, "expected that the cache is too small for this test's sequences"
        for request in requests:
            alone = answers(make_reference(), [request])[request.id][0]
            assert tokens[request.id] == alone

    def test_shared_prefix(self) -> None:
        """Of a prompt that begins like an earlier one only the rest is computed."""
        engine = make_reference(block_size=16)
        positions: list[int] = []
        engine.model.register_forward_pre_hook(lambda module, inputs: positions.append(int((inputs[1] >= 0).sum())))
        prefix = list(range(100, 180))
        answers(engine, [Request(0, [*prefix, 5], SamplingParams(max_tokens=1))])
        answers(engine, [Request(1, [*prefix, 6, 7], SamplingParams(max_tokens=1))])
        assert positions == [81, 2]

    def test_speculation(self) -> None:
        """Of an answer that repeats itself tokens are guessed: it is the same, by half of the passes.

        With many sequences running nothing is guessed.
        """
        params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True, logit_bias={9: 100.0})
        passes = []
        for guessed, sequences in ((0, 1), (3, 1), (3, 5)):
            engine = make_reference(num_speculative_tokens=guessed)
            count: list[int] = []
            engine.model.register_forward_pre_hook(lambda module, inputs, count=count: count.append(1))
            given = answers(engine, [Request(i, [5, 6], params) for i in range(sequences)])
            assert given == {i: ([9] * 60, "length") for i in range(sequences)}
            passes.append(len(count))
        assert passes[0] == passes[2] == 60
        # Two passes come before a token has followed itself; then each is worth two, its own and the one looked up.
        assert passes[1] == 2 + 29

    @pytest.mark.parametrize("guessed", [0, 3])
    def test_all_blocks_come_back(self, guessed: int) -> None:
        """When all have ended or been aborted, no sequence holds a block."""
        engine = make_reference(num_speculative_tokens=guessed)
        for i in range(5):
            engine.add(Request(i, [30 + i] * 40, SamplingParams(max_tokens=5)))
        engine.step()
        engine.abort(2)
        drain(engine)
        assert max(engine.cache.references()) == 1, "expected only the prefix cache to refer to a block"
        assert engine.sequences == {}

    def test_small_cache(self) -> None:
        """A cache that could not hold one whole window is refused with what it takes."""
        with pytest.raises(ValueError, match=r"cache_bytes: expected \d+ at least"):
            make_reference(cache_bytes=1000)

    @pytest.mark.slow
    def test_memory(self) -> None:
        """Requests of ever new lengths leave no memory behind."""
        engine = make_reference()
        resident = psutil.Process().memory_info

        def run(first: int) -> None:
            for i in range(first, first + 60):
                prompt = [30 + j for j in range(i * 37 % 300 + 1)]
                engine.add(Request(i, prompt, SamplingParams(max_tokens=i * 13 % 70 + 1, ignore_eos=True)))
            drain(engine)

        run(0)
        before = resident().rss
        for first in (60, 120, 180):
            run(first)
        assert resident().rss < before + (16 << 20)


class TestStaticBatching:
    """When a batch begins."""

    def test_window(self) -> None:
        """A batch begins when it is full, or when its first sequence has waited for the window."""
        now = [0.0]
        naps: list[float] = []
        engine = StaticBatchingEngine(
            "course-small", max_batch_size=2, window=1.0, clock=lambda: now[0], sleep=naps.append
        )
        params = SamplingParams(max_tokens=1)
        engine.add(Request(0, [5], params))
        assert (engine.step(), len(naps)) == ([], 1)
        now[0] = 0.5
        engine.add(Request(1, [5, 6], params))
        assert [output.request_id for output in engine.step()] == [0, 1]
        engine.add(Request(2, [5], params))
        now[0] = 1.25
        assert engine.step() == []
        now[0] = 1.5
        assert [output.request_id for output in engine.step()] == [2]

    def test_a_batch_runs_to_its_end(self) -> None:
        """Who comes while a batch runs waits until its last sequence has ended."""
        engine = StaticBatchingEngine("course-small", max_batch_size=2)
        engine.add(Request(0, [5], SamplingParams(max_tokens=4, ignore_eos=True)))
        engine.step()
        engine.add(Request(1, [5], SamplingParams(max_tokens=1)))
        order = [output.request_id for output in drain(engine)]
        assert order == [0, 0, 0, 1]

    def test_who_has_ended_leaves(self) -> None:
        """A row that has ended, or was aborted, is computed no more."""
        engine = StaticBatchingEngine("course-small", max_batch_size=3)
        rows: list[int] = []
        embed = engine.model.get_input_embeddings()
        embed.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
        for i, limit in enumerate((5, 1, 9)):
            engine.add(Request(i, [5], SamplingParams(max_tokens=limit, ignore_eos=True)))
        engine.step()
        engine.step()
        engine.abort(2)
        drain(engine)
        assert rows == [3, 2, 1, 1, 1]

    def test_similar_lengths_go_together(self) -> None:
        """The oldest sequence begins, with those of the nearest lengths: a batch is padded to its longest."""
        engine = StaticBatchingEngine("course-small", max_batch_size=2)
        for i, length in enumerate((10, 200, 190, 12)):
            engine.add(Request(i, [5] * length, SamplingParams(max_tokens=1)))
        assert [{output.request_id for output in engine.step()} for _ in range(2)] == [{0, 3}, {1, 2}]


class TestThroughTheServer:
    """The shared tasks' client of servers, on the reference."""

    def test_endpoint(self, judge: TransformersEngine, model: ServedModel) -> None:
        """Greedy and seeded texts, chats, and the log-likelihoods of options are the judge's own."""
        live = LiveServer(create_app(make_reference(), model))
        try:
            engine = EndpointEngine(live.url, tokenizer=str(model_folder("course-small")))
            prompts: list[Prompt] = [*PROMPTS, [{"role": "user", "content": "What is 2 + 3?"}]]
            params = SamplingParams(temperature=0.8, seed=5, n=2, max_tokens=20, stop=("e",), logprobs=0)
            for given, right in zip(engine.generate(prompts, params), judge.generate(prompts, params), strict=True):
                assert given.prompt_tokens == right.prompt_tokens
                for completion, other in zip(given.completions, right.completions, strict=True):
                    assert (completion.text, completion.finish_reason) == (other.text, other.finish_reason)
                    assert completion.logprobs == pytest.approx(other.logprobs, abs=1e-3)
            pairs = [PROMPTS[0]] * 3, [" and", " zebra zebra", " more than he needs"]
            for score, other_score in zip(engine.loglikelihood(*pairs), judge.loglikelihood(*pairs), strict=True):
                assert score.logprobs == pytest.approx(other_score.logprobs, abs=1e-3)
                assert score.is_greedy == other_score.is_greedy
        finally:
            live.stop()
