"""The engine on a server: what the engine on transformers gives, through HTTP, whatever fails on the way."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from shared_tasks.models.endpoint import EndpointEngine
from shared_tasks.models.engine import Engine, SamplingParams
from shared_tasks.models.registry import load_engine
from shared_tasks.models.transformers_engine import TransformersEngine
from tests.shared_tasks.engines.server import Behaviour, Server, broken_connection, failure

CHAT = [{"role": "user", "content": "Tom has 12 apples."}]
PROMPTS = ["Tom has 12 apples.", "One day Mia lost", CHAT]
GREEDY = SamplingParams(temperature=0, max_tokens=12)
CONTEXTS = ["Tom has 12 apples.", "Tom has 12 apples. ", "One day Mia"]
CONTINUATIONS = [" He eats", "He", " lost her"]


@pytest.fixture(scope="module")
def local(folder) -> TransformersEngine:
    return TransformersEngine(str(folder), device="cpu", name="course-small")


@pytest.fixture(scope="module")
def running(local) -> Iterator[Server]:
    server = Server(local)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(running) -> Server:
    running.behaviour = Behaviour()
    return running


class Naps(list[float]):
    """Notes how long it should have slept."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


def endpoint(server: Server, **options: Any) -> EndpointEngine:
    return EndpointEngine(server.url, **({"sleep": Naps()} | options))


def contents(results: list[Any]) -> list[Any]:
    """Everything but what is measured."""
    return [(result.prompt_tokens, result.generated_tokens, result.completions) for result in results]


class TestGeneration:
    @pytest.mark.parametrize(
        "params",
        [
            GREEDY,
            SamplingParams(n=3, seed=3, max_tokens=15, top_k=20, top_p=0.9, min_p=0.01, temperature=0.7),
            SamplingParams(seed=1, max_tokens=30, stop=("e", "\n")),
            SamplingParams(temperature=0, max_tokens=5, ignore_eos=True, logit_bias={0: 100.0}),
            SamplingParams(temperature=0, max_tokens=5, logprobs=2),
            SamplingParams(temperature=0, max_tokens=5, logprobs=None),
        ],
    )
    def test_gives_what_the_local_engine_gives(self, server, local, params):
        """Texts, token ids, log-probabilities and counts of plain texts and chats are those of the model behind it."""
        remote, direct = endpoint(server).generate(PROMPTS, params), local.generate(PROMPTS, params)
        for (tokens, generated, completions), expected in zip(contents(remote), contents(direct), strict=True):
            assert (tokens, generated) == expected[:2]
            for completion, other in zip(completions, expected[2], strict=True):
                assert (completion.text, completion.token_ids) == (other.text, other.token_ids)
                assert completion.finish_reason == other.finish_reason
                assert completion.logprobs == pytest.approx(other.logprobs, abs=1e-4)
                for top, other_top in zip(completion.top_logprobs, other.top_logprobs, strict=True):
                    assert top == pytest.approx(other_top, abs=1e-4)

    def test_a_server_that_is_not_vllm_is_asked_for_nothing_of_vllms(self, server):
        """By default only OpenAI's own parameters are sent, and what a server does not tell is left out."""
        server.behaviour.is_vllm = False
        (result,) = endpoint(server).generate(PROMPTS[:1], GREEDY)
        assert set(server.behaviour.requests[0]) == {
            "model", "prompt", "n", "temperature", "top_p", "max_tokens", "logprobs",
        }  # fmt: skip
        assert result.completions[0].token_ids == []
        assert len(result.completions[0].logprobs) == result.generated_tokens
        with pytest.raises(ValueError, match="does not tell token ids"):
            endpoint(server).generate(PROMPTS[:1], SamplingParams(logprobs=3))

    def test_a_tokenizer_makes_token_ids_of_plain_texts(self, server, folder, local):
        """With a tokenizer a plain text goes as its token ids, start token included."""
        engine = endpoint(server, tokenizer=str(folder))
        engine.generate(["Tom has"], GREEDY)
        assert server.behaviour.requests[0]["prompt"] == local.tokenizer.encode(["Tom has"])[0]

    def test_usage_and_progress(self, server):
        """Results come to on_done as they are ready, and totals add up."""
        engine, seen = endpoint(server), {}
        results = engine.generate(PROMPTS, GREEDY, seen.__setitem__)
        assert seen == dict(enumerate(results))
        assert engine.usage.requests == 3
        assert engine.usage.prompt_tokens == sum(result.prompt_tokens for result in results)
        assert engine.usage.generated_tokens == sum(result.generated_tokens for result in results)
        assert engine.usage.forward_positions == 0
        assert engine.usage.seconds > 0
        assert all(result.latency > 0 for result in results)

    def test_inside_a_running_loop(self, server, local):
        """It works where a loop is running already, as in a notebook."""

        async def cell() -> Any:
            return endpoint(server).generate(PROMPTS[:1], GREEDY)

        assert contents(asyncio.run(cell()))[0][0] == local.generate(PROMPTS[:1], GREEDY)[0].prompt_tokens

    def test_its_tokenizer_tells_whether_chats_can_be_prompts(self, server, folder):
        """Chats can be prompts where the tokenizer that was given has a chat template."""
        engine = endpoint(server, tokenizer=str(folder))
        assert engine.has_chat_template
        engine.tokenizer.tokenizer.chat_template = None
        assert not engine.has_chat_template


class TestLogLikelihood:
    @pytest.mark.parametrize("with_tokenizer", [True, False])
    @pytest.mark.parametrize("is_vllm", [True, False])
    def test_equals_the_local_engine(self, server, local, folder, is_vllm, with_tokenizer):
        """By vLLM's prompt_logprobs or by echo, with a tokenizer or by the server's own tokens: the same numbers."""
        server.behaviour.is_vllm = is_vllm
        engine = endpoint(server, tokenizer=str(folder) if with_tokenizer else None)
        remote = engine.loglikelihood(CONTEXTS, CONTINUATIONS)
        for one, other in zip(remote, local.loglikelihood(CONTEXTS, CONTINUATIONS), strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
            assert (one.is_greedy, one.prompt_tokens) == (other.is_greedy, other.prompt_tokens)

    @pytest.mark.parametrize("is_vllm", [True, False])
    def test_greedy_continuations_are_told(self, server, local, is_vllm):
        """What the model generates greedily is a greedy continuation; with another last letter it is not."""
        server.behaviour.is_vllm = is_vllm
        text = local.generate(CONTEXTS[:1], GREEDY)[0].completions[0].text
        yes, no = endpoint(server).loglikelihood(CONTEXTS[:1] * 2, [text, text[:-1] + "@"])
        assert (yes.is_greedy, no.is_greedy) == (True, False)

    def test_chats_need_a_tokenizer(self, server, local, folder):
        """A chat is rendered by the tokenizer; without one the task is refused in one line, before anything is sent."""
        (one,) = endpoint(server, tokenizer=str(folder)).loglikelihood([CHAT], ["He"])
        assert one.total == pytest.approx(local.loglikelihood([CHAT], ["He"])[0].total, abs=1e-4)
        sent = len(server.behaviour.requests)
        with pytest.raises(ValueError, match="needs the log-probabilities of prompts that are chats") as error:
            endpoint(server).loglikelihood([CHAT], ["He"])
        assert "\n" not in str(error.value)
        assert len(server.behaviour.requests) == sent

    @pytest.mark.parametrize("is_vllm", [True, False])
    def test_a_server_without_log_probabilities(self, server, is_vllm):
        """Where the server leaves them out, the refusal is one line that says what the task needs."""
        server.behaviour.is_vllm, server.behaviour.has_logprobs = is_vllm, False
        with pytest.raises(ValueError, match="this task needs the log-probabilities of prompts") as error:
            endpoint(server).loglikelihood(CONTEXTS, CONTINUATIONS)
        assert "\n" not in str(error.value)

    def test_a_server_that_refuses_to_echo(self, server):
        """Where the server refuses the request, its own words are passed on."""
        server.behaviour.is_vllm = False
        server.behaviour.failures = [failure(400, "echo is not supported")]
        with pytest.raises(ValueError, match=r"needs the log-probabilities of prompts, but .* echo is not supported"):
            endpoint(server).loglikelihood(CONTEXTS[:1], CONTINUATIONS[:1])

    def test_a_border_within_a_token(self, server):
        """Without a tokenizer, a continuation that begins within a token of the server is refused, not misread."""
        with pytest.raises(ValueError, match="name the model's tokenizer"):
            endpoint(server).loglikelihood(["Tom ha"], ["s 12"])

    @pytest.mark.parametrize("with_tokenizer", [True, False])
    def test_bad_pairs(self, server, folder, with_tokenizer):
        """Lists of different lengths and empty continuations are errors."""
        engine = endpoint(server, tokenizer=str(folder) if with_tokenizer else None)
        with pytest.raises(ValueError, match=r"as contexts \(2\), got 1"):
            engine.loglikelihood(["a", "b"], ["c"])
        with pytest.raises(ValueError, match="continuation 0"):
            engine.loglikelihood(["a"], [""])


class TestFailures:
    def test_rate_limit(self, server, local):
        """After 429 it waits for as many seconds as the server asks for, and the result is as ever."""
        server.behaviour.failures = [failure(429, **{"Retry-After": "7"}), failure(429, **{"Retry-After": "0.5"})]
        engine = endpoint(server)
        assert engine.generate(PROMPTS[:1], GREEDY)[0].completions[0].text == (
            local.generate(PROMPTS[:1], GREEDY)[0].completions[0].text
        )
        assert engine._sleep == [7.0, 0.5]

    def test_rate_limit_with_a_date(self, server):
        """Retry-After may also be a date."""
        later = datetime.now(UTC) + timedelta(seconds=100)
        server.behaviour.failures = [failure(429, **{"Retry-After": format_datetime(later, usegmt=True)})]
        engine = endpoint(server)
        engine.generate(PROMPTS[:1], GREEDY)
        (wait,) = engine._sleep
        assert 50 < wait <= 100

    def test_server_errors_and_broken_connections(self, server, local):
        """Errors of the server and answers that break off are tried again after up to 1, 2, 4 seconds."""
        server.behaviour.failures = [failure(500), broken_connection(), failure(503)]
        engine = endpoint(server)
        (result,) = engine.generate(PROMPTS[:1], GREEDY)
        assert result.completions[0].text == local.generate(PROMPTS[:1], GREEDY)[0].completions[0].text
        assert [0 <= nap <= 2**i for i, nap in enumerate(engine._sleep)] == [True] * 3
        assert len(set(engine._sleep)) == 3

    def test_waits_are_bounded(self, server):
        """However often it has failed, no wait of its own is longer than a minute."""
        server.behaviour.failures = [failure(500) for _ in range(20)]
        engine = endpoint(server, max_retries=20)
        engine.generate(PROMPTS[:1], GREEDY)
        assert max(engine._sleep) <= 60

    def test_giving_up(self, server):
        """After max_retries more attempts the last failure is told; what had come before has been delivered."""
        engine, seen = endpoint(server, max_retries=2, max_in_flight=1), {}

        def then_fail(index: int, result: Any) -> None:
            seen[index] = result
            server.behaviour.failures = [failure(503, "overloaded") for _ in range(3)]

        with pytest.raises(ConnectionError, match="has failed 3 times, at last with 503: overloaded"):
            engine.generate(PROMPTS, GREEDY, then_fail)
        assert list(seen) == [0]
        assert len(engine._sleep) == 2

    def test_refused_requests_are_not_tried_again(self, server):
        """What the server says against a request reaches the user at once."""
        engine = endpoint(server)
        with pytest.raises(ValueError, match="refuses the request, 400: the prompt is too long"):
            engine.generate(["Tom " * 2000], GREEDY)
        assert engine._sleep == []

    def test_nobody_there(self):
        """An address where no server is fails soon, with the address."""
        naps = Naps()
        with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:9/v1/models has failed 2 times"):
            EndpointEngine("http://127.0.0.1:9", sleep=naps)
        assert len(naps) == 1

    def test_requests_in_flight_are_bounded(self, server):
        """With a bound of 3, six requests that wait for one another in threes go through, and never more at a time."""
        engine = endpoint(server, max_in_flight=3, timeout=20.0)
        server.behaviour.barrier = asyncio.Barrier(3)
        engine.generate(PROMPTS[:2] * 3, GREEDY)
        assert server.behaviour.most_in_flight == 3


class TestServer:
    def test_key_from_the_environment(self, server, monkeypatch):
        """The key of the named variable goes along; a refused key is an error that names the variable."""
        monkeypatch.setenv("COURSE_KEY", "secret")
        engine = endpoint(server, api_key_variable="COURSE_KEY")
        assert server.behaviour.headers[-1]["authorization"] == "Bearer secret"
        server.behaviour.failures = [failure(401, "no such key")]
        with pytest.raises(ValueError, match=r"401: no such key \(the key comes from COURSE_KEY\)") as error:
            engine.generate(PROMPTS[:1], GREEDY)
        assert "secret" not in str(error.value)

    def test_no_key(self, server, monkeypatch):
        """Without a key no header is sent."""
        monkeypatch.delenv("COURSE_KEY", raising=False)
        endpoint(server, api_key_variable="COURSE_KEY")
        assert "authorization" not in server.behaviour.headers[-1]

    def test_models(self, server):
        """The only model need not be named; one that is not there is an error that lists those that are."""
        assert endpoint(server).model == "course-small"
        with pytest.raises(ValueError, match="has the models course-small; expected one of them, got gpt-9"):
            endpoint(server, model="gpt-9")

    def test_is_an_engine(self, server):
        """It has the engines' interface, and a name and fingerprint that tell address and model."""
        engine = load_engine("course-small", "endpoint", base_url=server.url + "/v1/")
        assert isinstance(engine, Engine)
        assert engine.name == f"course-small at {server.url}/v1"
        assert engine.fingerprint() == f"{server.url}/v1 course-small"
        assert engine.has_chat_template, "a server whose tokenizer is not known is taken to render chats"
        with pytest.raises(ValueError, match="needs a base_url"):
            load_engine("course-small", "endpoint")
