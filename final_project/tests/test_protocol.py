"""Public tests of a server: what it must answer, whatever its engine.

`pytest final_project` starts `python -m final_project.serve`; `SERVER_URL=http://127.0.0.1:8000 pytest final_project`
asks a server that runs already.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

PROMPT = "Mia has 12 apples and buys"
CHAT = [{"role": "user", "content": "Mia has 12 apples and buys 5. How many apples has she?"}]


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """Give the address of the server."""
    if given := os.environ.get("SERVER_URL"):
        yield given.rstrip("/")
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "final_project.serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(address + "/health").raise_for_status()
                break
            except httpx.HTTPError:
                try:
                    pytest.fail(f"{' '.join(command)}: ended with {process.wait(timeout=0.1)}")
                except subprocess.TimeoutExpired:
                    continue
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="session")
def client(url: str) -> OpenAI:
    """Give OpenAI's own client."""
    return OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="session")
def model(client: OpenAI) -> str:
    """Give the name of the model that is served."""
    return client.models.list().data[0].id


class TestCompletions:
    """POST /v1/completions."""

    def test_length(self, client: OpenAI, model: str):
        """max_tokens=7 generates 7 tokens where the end token is ignored, and the answer says why it ended."""
        answer = client.completions.create(
            model=model, prompt=PROMPT, max_tokens=7, temperature=0, extra_body={"ignore_eos": True}
        )
        assert answer.usage.completion_tokens == 7
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7
        assert answer.choices[0].finish_reason == "length"

    def test_list_of_prompts(self, client: OpenAI, model: str):
        """Several prompts are answered in their order, each as if it stood alone."""
        prompts = [PROMPT, "Once upon a time", "2 + 2 ="]
        together = client.completions.create(model=model, prompt=prompts, max_tokens=12, temperature=0)
        alone = [client.completions.create(model=model, prompt=p, max_tokens=12, temperature=0) for p in prompts]
        assert [choice.index for choice in together.choices] == [0, 1, 2]
        assert [choice.text for choice in together.choices] == [answer.choices[0].text for answer in alone]
        assert together.usage.prompt_tokens == sum(answer.usage.prompt_tokens for answer in alone)

    def test_token_ids(self, client: OpenAI, model: str):
        """A prompt of token ids is taken as it is, and so is a list of such prompts."""
        one = client.completions.create(model=model, prompt=[5, 60, 70], max_tokens=5, temperature=0)
        two = client.completions.create(model=model, prompt=[[5, 60, 70], [9]], max_tokens=5, temperature=0)
        assert one.usage.prompt_tokens == 3
        assert two.usage.prompt_tokens == 4
        assert two.choices[0].text == one.choices[0].text

    def test_echo(self, client: OpenAI, model: str):
        """With echo the text begins with the prompt, and is otherwise the same."""
        plain, echoed = (
            client.completions.create(model=model, prompt=PROMPT, max_tokens=8, temperature=0, echo=echo)
            for echo in (False, True)
        )
        assert echoed.choices[0].text == PROMPT + plain.choices[0].text

    def test_prompt_logprobs(self, client: OpenAI, model: str):
        """With echo and logprobs the prompt's tokens have log-probabilities: those that they have as an answer."""
        answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=6, temperature=0, logprobs=1)
        whole = client.completions.create(
            model=model, prompt=PROMPT + answer.choices[0].text, max_tokens=1, temperature=0, logprobs=1, echo=True
        )
        told, generated = whole.choices[0].logprobs, answer.choices[0].logprobs
        assert told.token_logprobs[0] is None
        assert len(told.tokens) == whole.usage.prompt_tokens + 1
        place = answer.usage.prompt_tokens
        assert told.tokens[place : place + 6] == generated.tokens
        assert told.token_logprobs[place : place + 6] == pytest.approx(generated.token_logprobs, abs=1e-3)

    def test_logprobs(self, client: OpenAI, model: str):
        """A greedy token is the most likely one, and as many of the most likely are told as are asked for."""
        answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=4, temperature=0, logprobs=3)
        told = answer.choices[0].logprobs
        for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
            assert len(top) == 3
            assert top[token] == pytest.approx(max(top.values())) == pytest.approx(logprob)

    def test_stop(self, client: OpenAI, model: str):
        """The text ends before the first of the stop strings, wherever it lies in the tokens."""
        text = client.completions.create(model=model, prompt=PROMPT, max_tokens=20, temperature=0).choices[0].text
        stop = text[5:8]
        stopped = client.completions.create(
            model=model, prompt=PROMPT, max_tokens=20, temperature=0, stop=["never this", stop]
        )
        assert stopped.choices[0].text == text[: text.index(stop)]
        assert stopped.choices[0].finish_reason == "stop"

    def test_seed(self, client: OpenAI, model: str):
        """A seed makes the n answers of a request the same each time, and different from one another."""
        first, second = (
            client.completions.create(model=model, prompt=PROMPT, max_tokens=16, temperature=1, n=3, seed=7)
            for _ in range(2)
        )
        texts = [choice.text for choice in first.choices]
        assert texts == [choice.text for choice in second.choices]
        assert len(set(texts)) > 1

    @pytest.mark.parametrize("filters", [{"top_k": 1}, {"min_p": 1.0}, {"top_p": 1e-6}])
    def test_filters(self, client: OpenAI, model: str, filters: dict):
        """A filter that leaves one token makes sampling greedy."""
        greedy = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=0)
        cut = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=1, extra_body=filters)
        assert cut.choices[0].text == greedy.choices[0].text


class TestChat:
    """POST /v1/chat/completions."""

    def test_answer(self, client: OpenAI, model: str):
        """The assistant answers, with as many tokens as the usage says."""
        answer = client.chat.completions.create(model=model, messages=CHAT, max_tokens=24, temperature=0)
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].message.content
        assert 1 <= answer.usage.completion_tokens <= 24

    def test_logprobs(self, client: OpenAI, model: str):
        """Each token comes with its log-probability and the most likely ones."""
        answer = client.chat.completions.create(
            model=model, messages=CHAT, max_tokens=5, temperature=0, logprobs=True, top_logprobs=2
        )
        content = answer.choices[0].logprobs.content
        assert len(content) == answer.usage.completion_tokens
        assert all(token.top_logprobs[0].logprob == pytest.approx(token.logprob) for token in content)

    def test_without_a_limit(self, client: OpenAI, model: str):
        """Without max_tokens an answer goes on to its end, or to the end of the window."""
        answer = client.chat.completions.create(model=model, messages=CHAT, temperature=0)
        assert answer.choices[0].finish_reason in ("stop", "length")


class TestStreaming:
    """Server-sent events."""

    def test_completion(self, client: OpenAI, model: str):
        """The pieces make up the text that comes without streaming; the usage comes last, where it is asked for."""
        whole = client.completions.create(model=model, prompt=PROMPT, max_tokens=24, temperature=0)
        events = list(
            client.completions.create(
                model=model,
                prompt=PROMPT,
                max_tokens=24,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert "".join(event.choices[0].text for event in events[:-1]) == whole.choices[0].text
        assert [event.choices[0].finish_reason for event in events[:-1]][-1] == whole.choices[0].finish_reason
        assert events[-1].usage == whole.usage
        assert all(event.usage is None for event in events[:-1])
        assert len(events) > 3, "expected the text to come piece by piece"

    def test_chat(self, client: OpenAI, model: str):
        """A chat's pieces make up its answer, and the first one says whose turn it is."""
        whole = client.chat.completions.create(model=model, messages=CHAT, max_tokens=24, temperature=0)
        events = list(
            client.chat.completions.create(model=model, messages=CHAT, max_tokens=24, temperature=0, stream=True)
        )
        assert events[0].choices[0].delta.role == "assistant"
        text = "".join(event.choices[0].delta.content or "" for event in events)
        assert text == whole.choices[0].message.content

    def test_several(self, client: OpenAI, model: str):
        """Pieces of several answers are told apart by their index."""
        prompts = [PROMPT, "Once upon a time"]
        whole = client.completions.create(model=model, prompt=prompts, max_tokens=12, temperature=0)
        texts = ["", ""]
        for event in client.completions.create(model=model, prompt=prompts, max_tokens=12, temperature=0, stream=True):
            for choice in event.choices:
                texts[choice.index] += choice.text
        assert texts == [choice.text for choice in whole.choices]

    def test_end(self, url: str, model: str):
        """A stream of events ends with [DONE]."""
        body = {"model": model, "prompt": PROMPT, "max_tokens": 3, "stream": True}
        response = httpx.post(url + "/v1/completions", json=body)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.text.endswith("data: [DONE]\n\n")


class TestErrors:
    """What is wrong is said in OpenAI's form."""

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("temperature", -1),
            ("temperature", "hot"),
            ("top_p", 0),
            ("top_p", 1.5),
            ("top_k", -2),
            ("min_p", 2),
            ("n", 0),
            ("max_tokens", 0),
            ("max_tokens", 1.5),
            ("logprobs", -1),
            ("stop", [""]),
            ("seed", "x"),
            ("stream", "yes"),
            ("prompt", []),
            ("prompt", {"text": "a"}),
            ("prompt", [10**9]),
            ("maximum", 3),
        ],
    )
    def test_bad_values(self, url: str, model: str, field: str, value: object):
        """A bad value is answered with 400, and the error names its field."""
        body = {"model": model, "prompt": PROMPT, "max_tokens": 2} | {field: value}
        response = httpx.post(url + "/v1/completions", json=body)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == field
        assert field in response.json()["error"]["message"]

    def test_client(self, client: OpenAI):
        """OpenAI's client understands the errors: an unknown model is not found."""
        with pytest.raises(NotFoundError, match="no-such-model"):
            client.completions.create(model="no-such-model", prompt=PROMPT)

    def test_messages(self, client: OpenAI, model: str):
        """A role that there is not is a bad request."""
        with pytest.raises(BadRequestError) as raised:
            client.chat.completions.create(model=model, messages=[{"role": "wizard", "content": "hi"}])
        assert raised.value.param == "messages"

    def test_too_long(self, url: str, model: str):
        """A prompt that fills the model's window is answered with 413."""
        body = {"model": model, "prompt": "apple pie " * 5000}
        assert httpx.post(url + "/v1/completions", json=body).status_code == 413

    def test_huge_limit(self, client: OpenAI, model: str):
        """A limit beyond the window means up to the window's end."""
        answer = client.completions.create(model=model, prompt=PROMPT, max_tokens=10**12, temperature=0)
        assert answer.choices[0].finish_reason in ("stop", "length")

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"model": "\xff"}', b'{"prompt": "\\ud800"}'])
    def test_malformed(self, url: str, body: bytes):
        """A body that is no JSON object in UTF-8 is answered with 400."""
        response = httpx.post(url + "/v1/completions", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 400
        assert response.json()["error"]["message"]

    def test_unknown_path(self, url: str):
        """A path that there is not is answered with 404, in the same form."""
        response = httpx.get(url + "/v2/completions")
        assert response.status_code == 404
        assert response.json()["error"]["message"]


class TestManyAtOnce:
    """Neighbours, and those who leave."""

    def test_independence(self, url: str, model: str):
        """Greedy and seeded answers are the same alone and among 24 others."""
        bodies = [
            {
                "model": model,
                "prompt": f"{PROMPT} {i}" + " and more" * (i % 7),
                "max_tokens": 5 + i % 20,
                "temperature": i % 3 / 2,
                "top_p": 0.9,
                "seed": i,
            }
            for i in range(24)
        ]

        def ask(body: dict) -> str:
            response = httpx.post(url + "/v1/completions", json=body, timeout=60)
            return response.raise_for_status().json()["choices"][0]["text"]

        alone = [ask(body) for body in bodies]
        with ThreadPoolExecutor(len(bodies)) as threads:
            together = list(threads.map(ask, bodies))
        assert together == alone

    @pytest.mark.parametrize("stream", [False, True])
    def test_cancelled(self, url: str, model: str, stream: bool):
        """Whoever goes away frees its place: afterwards nothing runs and nothing waits."""
        body = {"model": model, "prompt": [PROMPT] * 8, "n": 8, "max_tokens": 900, "ignore_eos": True, "stream": stream}
        with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port)) as connection:
            content = json.dumps(body).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
            connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)
            assert poll(url, lambda busy: busy > 0), "expected the request to run"
        assert poll(url, lambda busy: busy == 0), "expected the server to have nothing to do"

    def test_metrics(self, url: str, model: str):
        """/metrics tells tokens and latencies of what was answered, in Prometheus' format."""
        before = metrics(url)
        body = {"model": model, "prompt": [5, 6, 7], "max_tokens": 4, "ignore_eos": True}
        httpx.post(url + "/v1/completions", json=body).raise_for_status()
        after = metrics(url)
        grown = {name: value - before.get(name, 0) for name, value in after.items()}
        assert grown["prompt_tokens_total"] == 3
        assert grown["generated_tokens_total"] == 4
        assert grown["time_to_first_token_seconds_count"] == 1
        assert grown["time_per_output_token_seconds_count"] == 1
        assert 0 <= after["cache_usage_ratio"] <= 1


def metrics(url: str) -> dict[str, float]:
    """Return the server's metrics by name."""
    lines = httpx.get(url + "/metrics").raise_for_status().text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def poll(url: str, holds: object) -> bool:
    """Return whether something soon holds of the number of sequences that run or wait."""
    for _ in range(2000):
        now = metrics(url)
        if holds(now["requests_running"] + now["requests_waiting"]):
            return True
    return False
