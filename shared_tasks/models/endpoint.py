"""An engine on a server that speaks OpenAI's protocol: completions, chats, and log-probabilities where it has them."""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import httpx
from transformers import AutoTokenizer

from shared_tasks.models.engine import (
    Completion,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)
from shared_tasks.models.tokenizing import PromptTokenizer

RETRIED = {408, 409, 429, 500, 502, 503, 504}  # what may pass by itself
LONGEST_WAIT = 60.0  # seconds between two attempts, unless the server asks for more
PROMPT_LOGPROBS = "this task needs the log-probabilities of prompts"

Result = TypeVar("Result", Generation, LogLikelihood)
Answer = TypeVar("Answer")


@dataclass(slots=True)
class _Job(Generic[Result]):
    """A request, and what makes a result of the reply and the latency in seconds."""

    path: str
    body: dict[str, Any]
    parse: Callable[[dict[str, Any], float], Result]


class _Refused(ValueError):
    """The server understands a request and will not do it."""


class EndpointEngine:
    """Generates and scores through HTTP, many requests at a time.

    Plain texts go to /completions and chats to /chat/completions. Where a tokenizer is given, plain texts go as its
    token ids, so that start tokens and the border between context and continuation are those of the other engines.

    Rate limits, server errors and broken connections are tried again, after as long as the server asks for or else
    after a random part of 1, 2, 4, ... seconds.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key_variable: str = "OPENAI_API_KEY",
        tokenizer: str | None = None,
        max_in_flight: int = 32,
        timeout: float = 600.0,
        max_retries: int = 8,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ):
        """Ask the server for its models.

        The model is the server's only one if none is named. The key comes from an environment variable; `tokenizer` is
        a local folder or a name on the hub; `timeout` is in seconds and for one attempt. Raises ValueError when the
        server does not have the model, and ConnectionError when it does not answer.
        """
        self.base_url = base_url.rstrip("/").removesuffix("/v1") + "/v1"
        self.usage = Usage()
        self.max_in_flight = max_in_flight
        self.timeout = timeout
        self.max_retries = max_retries
        self.tokenizer = PromptTokenizer(AutoTokenizer.from_pretrained(tokenizer), tokenizer) if tokenizer else None
        self._api_key_variable = api_key_variable
        self._sleep = sleep
        self._jitter = random.Random()
        models = {entry["id"]: entry for entry in _run(self._models())}
        if model is None and len(models) == 1:
            (model,) = models
        if model not in models:
            raise ValueError(
                f"{self.base_url} has the models {', '.join(models) or '(none)'}; expected one of them, got {model}"
            )
        self.model = model
        self.name = f"{model} at {self.base_url}"
        self._is_vllm = models[model].get("owned_by") == "vllm"

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer that was given has a chat template; without one the server is taken to have it."""
        return self.tokenizer is None or self.tokenizer.has_chat_template

    def fingerprint(self) -> str:
        """Return address and model: what a server runs under a name cannot be seen from outside."""
        return f"{self.base_url} {self.model}"

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the number of tokens; see `Engine`. Raises ValueError when there is no tokenizer."""
        if self.tokenizer is None:
            raise ValueError(f"to count tokens before {self.name} does, name the model's tokenizer")
        return self.tokenizer.count(prompt, continuation)

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt; see `Engine`.

        Raises ValueError for what the server refuses, and ConnectionError when it goes on failing.
        """
        jobs = [self._generation_job(prompt, of_prompt) for prompt, of_prompt in each_with_params(prompts, params)]
        return _run(self._all(jobs, on_done))

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Return log P(continuation | context) of each pair; see `Engine`.

        Raises ValueError when the server has no log-probabilities of prompts, for chats when there is no tokenizer, and
        as `generate`.
        """
        if len(contexts) != len(continuations):
            raise ValueError(f"expected as many continuations as contexts ({len(contexts)}), got {len(continuations)}")
        if self.tokenizer is not None:
            pairs = self.tokenizer.encode_pairs(contexts, continuations)
            jobs = [self._scoring_job(context + continuation, len(context)) for context, continuation in pairs]
        else:
            jobs = []
            for i, (context, continuation) in enumerate(zip(contexts, continuations, strict=True)):
                if not continuation:
                    raise ValueError(f"continuation {i} is empty")
                if not isinstance(context, str):
                    raise ValueError(
                        f"{PROMPT_LOGPROBS} that are chats: name the model's tokenizer, which renders them"
                    )
                # As the tokenizer would do it: white space at the end of a context goes over to the continuation.
                jobs.append(self._scoring_job(context + continuation, len(context.rstrip())))
        try:
            return _run(self._all(jobs, on_done))
        except _Refused as error:
            raise ValueError(f"{PROMPT_LOGPROBS}, but {error}") from error

    # What is asked, and what is made of the answer

    def _generation_job(self, prompt: Prompt, params: SamplingParams) -> _Job[Generation]:
        body: dict[str, Any] = {
            "n": params.n,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "max_tokens": params.max_tokens,
        }
        # What is not everywhere known is only sent where it is asked for.
        optional = {
            "top_k": params.top_k if params.top_k > 0 else None,
            "min_p": params.min_p or None,
            "stop": list(params.stop) or None,
            "seed": params.seed,
            "ignore_eos": params.ignore_eos or None,
            "logit_bias": {str(token): bias for token, bias in params.logit_bias.items()} or None,
        }
        body |= {name: value for name, value in optional.items() if value is not None}
        if self._is_vllm:
            # Said even where it asks for nothing: else the defaults of the model's generation_config hold.
            body |= {"top_k": max(params.top_k, 0), "min_p": params.min_p, "repetition_penalty": 1.0}
            body["return_token_ids"] = True
            if params.logprobs:
                body["return_tokens_as_token_ids"] = True
        elif params.logprobs:
            raise ValueError(
                f"logprobs: {self.base_url} does not tell token ids, so expected 0 or None, got {params.logprobs}"
            )
        if isinstance(prompt, str):
            body["prompt"] = self.tokenizer.encode([prompt])[0] if self.tokenizer else prompt
            if params.logprobs is not None:
                body["logprobs"] = params.logprobs
            return _Job("/completions", body, lambda reply, latency: _generation(reply, latency, params, _completion))
        body["messages"] = list(prompt)
        if params.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": params.logprobs}
        return _Job(
            "/chat/completions", body, lambda reply, latency: _generation(reply, latency, params, _chat_completion)
        )

    def _scoring_job(self, prompt: str | list[int], border: int) -> _Job[LogLikelihood]:
        """Ask for the log-probabilities of a prompt whose continuation begins at a token, or at a character."""
        body: dict[str, Any] = {"prompt": prompt, "max_tokens": 1, "temperature": 0.0}
        if self._is_vllm:
            body["prompt_logprobs"] = 1
        else:
            body |= {"echo": True, "logprobs": 1}
        return _Job("/completions", body, lambda reply, latency: self._loglikelihood(reply, prompt, border))

    def _loglikelihood(self, reply: dict[str, Any], prompt: str | list[int], border: int) -> LogLikelihood:
        tokens = _prompt_tokens(reply, prompt)
        if tokens is None:
            raise ValueError(f"{PROMPT_LOGPROBS}, {self.base_url} does not tell them: serve the model with vLLM")
        start = border
        if isinstance(prompt, str):
            continuation, start = prompt[border:], len(tokens)
            while start > 0 and len("".join(token.text for token in tokens[start:])) < len(continuation):
                start -= 1
            if "".join(token.text for token in tokens[start:]) != continuation:
                raise ValueError(
                    f"the server's tokens have no border between context and continuation {continuation!r}: "
                    "name the model's tokenizer, which finds one"
                )
        return LogLikelihood(
            logprobs=[token.logprob for token in tokens[start:]],
            is_greedy=all(token.is_greedy for token in tokens[start:]),
            prompt_tokens=start,
        )

    # Traffic

    async def _all(self, jobs: Sequence[_Job[Result]], on_done: Callable[[int, Result], None] | None) -> list[Result]:
        """Do all jobs, a bounded number at a time; the first failure ends the others."""
        results: dict[int, Result] = {}
        places = asyncio.Semaphore(self.max_in_flight)
        clock = time.perf_counter()

        async def do(index: int, job: _Job[Result], client: httpx.AsyncClient) -> None:
            nonlocal clock
            async with places:
                began = time.perf_counter()
                body = job.body | {"model": self.model}
                reply = await self._send(client, "POST", job.path, body, self.max_retries + 1)
            results[index] = result = job.parse(reply, time.perf_counter() - began)
            self.usage.requests += 1
            self.usage.prompt_tokens += result.prompt_tokens
            self.usage.generated_tokens += result.generated_tokens if isinstance(result, Generation) else 0
            self.usage.seconds += time.perf_counter() - clock
            clock = time.perf_counter()
            if on_done is not None:
                on_done(index, result)

        try:
            async with self._client() as client, asyncio.TaskGroup() as group:
                for index, job in enumerate(jobs):
                    group.create_task(do(index, job, client))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return [results[index] for index in range(len(jobs))]

    async def _models(self) -> list[dict[str, Any]]:
        async with self._client() as client:
            reply = await self._send(client, "GET", "/models", None, attempts=2)  # a wrong address is soon found out
            models: list[dict[str, Any]] = reply["data"]
            return models

    def _client(self) -> httpx.AsyncClient:
        key = os.environ.get(self._api_key_variable)
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self.timeout,
            limits=httpx.Limits(max_connections=self.max_in_flight),
        )

    async def _send(
        self, client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None, attempts: int
    ) -> dict[str, Any]:
        """Send a request until it is answered; return the answer."""
        for attempt in range(attempts):
            try:
                response = await client.request(method, self.base_url + path, json=body)
            except httpx.TransportError as error:
                failure, wait = f"{type(error).__name__}: {error}", None
            else:
                if response.is_success:
                    reply: dict[str, Any] = response.json()
                    return reply
                failure, wait = f"{response.status_code}: {_message(response)}", _retry_after(response)
                if response.status_code not in RETRIED:
                    hint = (
                        f" (the key comes from {self._api_key_variable})" if response.status_code in (401, 403) else ""
                    )
                    raise _Refused(f"{self.base_url}{path} refuses the request, {failure}{hint}")
            if attempt + 1 < attempts:
                await self._sleep(self._jitter.uniform(0, min(2.0**attempt, LONGEST_WAIT)) if wait is None else wait)
        raise ConnectionError(f"{self.base_url}{path} has failed {attempts} times, at last with {failure}")


class _PromptToken(NamedTuple):
    """A token of a prompt as the server sees it."""

    text: str
    logprob: float
    is_greedy: bool


def _prompt_tokens(reply: dict[str, Any], prompt: str | list[int]) -> list[_PromptToken] | None:
    """Return the tokens of the prompt, the first one with log-probability 0; None where the server does not tell."""
    choice = reply["choices"][0]
    first = _PromptToken("", 0.0, True)
    if choice.get("prompt_logprobs"):
        tokens = [first]
        for place, entries in enumerate(choice["prompt_logprobs"][1:], start=1):
            # The prompt's own token comes first, the most likely one after it.
            token = entries[str(prompt[place])] if isinstance(prompt, list) else next(iter(entries.values()))
            tokens.append(_PromptToken(token["decoded_token"] or "", token["logprob"], token["rank"] == 1))
        return tokens
    logprobs = choice.get("logprobs")
    if not logprobs or len(logprobs["tokens"]) < 2 or logprobs["token_logprobs"][0] is not None:
        return None
    length = reply["usage"]["prompt_tokens"]  # one more was generated
    columns = (logprobs[name][1:length] for name in ("tokens", "token_logprobs", "top_logprobs"))
    return [
        first,
        *(_PromptToken(text, value, value >= max(top.values())) for text, value, top in zip(*columns, strict=True)),
    ]


def _generation(
    reply: dict[str, Any],
    latency: float,
    params: SamplingParams,
    completion: Callable[[dict[str, Any], int], Completion],
) -> Generation:
    choices = sorted(reply["choices"], key=lambda choice: int(choice["index"]))
    if len(choices) != params.n:
        raise ValueError(f"expected {params.n} completions of a prompt, the server gave {len(choices)}")
    return Generation(
        prompt_tokens=reply["usage"]["prompt_tokens"],
        completions=[completion(choice, params.logprobs or 0) for choice in choices],
        latency=latency,
        generated_tokens=reply["usage"]["completion_tokens"],
    )


def _completion(choice: dict[str, Any], top: int) -> Completion:
    logprobs = choice.get("logprobs") or {}
    return Completion(
        text=choice["text"],
        token_ids=choice.get("token_ids") or [],
        logprobs=logprobs.get("token_logprobs") or [],
        finish_reason=_finish_reason(choice),
        top_logprobs=[_by_id(likely.items(), top) for likely in logprobs.get("top_logprobs") or []] if top else [],
    )


def _chat_completion(choice: dict[str, Any], top: int) -> Completion:
    tokens = (choice.get("logprobs") or {}).get("content") or []
    tops = (
        [[(likely["token"], likely["logprob"]) for likely in token["top_logprobs"]] for token in tokens] if top else []
    )
    return Completion(
        text=choice["message"].get("content") or "",
        token_ids=choice.get("token_ids") or [],
        logprobs=[token["logprob"] for token in tokens],
        finish_reason=_finish_reason(choice),
        top_logprobs=[_by_id(likely, top) for likely in tops],
    )


def _by_id(likely: Iterable[tuple[str, float]], top: int) -> dict[int, float]:
    """Return the most likely tokens' log-probabilities; vLLM adds the token that was drawn."""
    ordered = sorted(likely, key=lambda token: -token[1])[:top]
    return {int(token.removeprefix("token_id:")): logprob for token, logprob in ordered}


def _finish_reason(choice: dict[str, Any]) -> Literal["stop", "length"]:
    return "length" if choice["finish_reason"] == "length" else "stop"


def _message(response: httpx.Response) -> str:
    """Return what the server says about an error, in OpenAI's form or any other."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        return str(response.json()["error"]["message"])
    return response.text[:500]


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the server asks to wait; it gives a number or a date."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _run(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine to its end, also from a notebook, where this thread has a loop running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
