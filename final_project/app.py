"""The HTTP side of the server, given: it checks requests, makes token ids of texts, and answers of token ids."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException as FrameworkError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from final_project import interface
from final_project.answers import Answer, chat_choice, chat_delta, completion_choice
from final_project.metrics import Metrics
from final_project.protocol import (
    APIError,
    ChatRequest,
    ChatResponse,
    CompletionRequest,
    CompletionResponse,
    ErrorResponse,
    GenerationRequest,
    Model,
    ModelList,
    Usage,
    invalid_fields,
)
from final_project.runner import EngineFailed, EngineRunner, ServerFull
from shared_tasks.models.engine import Prompt
from shared_tasks.models.tokenizing import PromptTokenizer

Result = TypeVar("Result")

MAX_BODY_BYTES = 4 << 20
RETRY_AFTER = {"Retry-After": "1"}  # seconds
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "A value is wrong; `param` names the field"},
    404: {"model": ErrorResponse, "description": "There is no such model"},
    413: {"model": ErrorResponse, "description": "The prompt leaves no room in the model's window"},
    429: {"model": ErrorResponse, "description": "The server is full; try again after Retry-After"},
    500: {"model": ErrorResponse, "description": "The engine has failed"},
}


@dataclass(frozen=True)
class ServedModel:
    """A model as clients see it."""

    name: str
    tokenizer: PromptTokenizer
    window: int
    """Tokens of prompt and answer together."""
    vocab_size: int


@dataclass
class Job:
    """An HTTP request on its way: the sequences that it asks for, and the answers so far."""

    requests: list[interface.Request]
    answers: dict[int, Answer]
    """By the id of their sequence."""
    prompt_tokens: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def usage(self) -> Usage:
        """Return the tokens of all prompts, each counted once, and of all answers."""
        generated = sum(answer.generated for answer in self.answers.values())
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=generated,
            total_tokens=self.prompt_tokens + generated,
        )


def create_app(engine: interface.Engine, model: ServedModel, max_sequences: int = 512) -> FastAPI:
    """Return the server around an engine, which has a thread of its own while the app runs.

    At most `max_sequences` sequences are in the engine's hands at a time, running or waiting; more are refused.
    """
    metrics = Metrics()
    runner = EngineRunner(engine, max_sequences, metrics)
    ids = count()
    vocabulary = model.tokenizer.tokenizer.get_vocab()
    longest_text = model.window * max(map(len, vocabulary))  # of one that fits, in characters
    started = int(time.time())

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runner.start()
        yield
        runner.stop()

    app = FastAPI(title="Inference server", version="1", lifespan=lifespan)
    app.add_middleware(BodyLimit)

    def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
        metrics.responses.labels(status).inc()
        return Response(msgspec.json.encode(body), status, headers, "application/json")

    @app.exception_handler(APIError)
    async def refuse(request: Request, error: APIError) -> Response:
        return answer(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_fields(request: Request, error: RequestValidationError) -> Response:
        return await refuse(request, invalid_fields(list(error.errors())))

    @app.exception_handler(FrameworkError)  # of the framework: unknown paths and methods, bodies that are no JSON
    async def refuse_request(request: Request, error: FrameworkError) -> Response:
        return await refuse(request, APIError(error.status_code, str(error.detail), headers=error.headers))  # type: ignore[arg-type]

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        return await refuse(request, APIError(500, "an error of the server; its log says more"))

    @app.get("/health", responses={503: REFUSALS[500]})
    async def health() -> dict[str, str]:
        """Say whether requests can be answered."""
        if runner.failed:
            raise APIError(503, "the engine has failed; the server's log says why")
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def show_metrics() -> Response:
        """Tell Prometheus how the server does."""
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", responses={200: {"model": ModelList}})
    async def models() -> Response:
        """List the models: one."""
        served = Model(id=model.name, object="model", created=started, owned_by="course", max_model_len=model.window)
        return answer(ModelList(object="list", data=[served]))

    @app.post("/v1/completions", responses={200: {"model": CompletionResponse}, **REFUSALS})
    async def complete(body: CompletionRequest, request: Request) -> Response:
        """Continue texts."""
        check_model(body)
        given = body.prompt
        texts = [given] if isinstance(given, str) else [text for text in given if isinstance(text, str)]
        prompts: Any = tokenize(texts, "prompt") if texts else [given] if isinstance(given[0], int) else given
        job = new_job(body, prompts, "prompt", body.logprobs, body.max_tokens or 16, bool(body.echo))

        def response(choices: list[Any], usage: Usage | None) -> CompletionResponse:
            return CompletionResponse(
                id=f"cmpl-{job.id}",
                object="text_completion",
                created=job.created,
                model=model.name,
                choices=choices,
                usage=usage,
            )

        if body.stream:
            return await stream(request, job, body, completion_choice, response)
        await unless_disconnected(request, run(job))
        return answer(response([completion_choice(piece, piece.take()) for piece in job.answers.values()], job.usage()))

    @app.post("/v1/chat/completions", responses={200: {"model": ChatResponse}, **REFUSALS})
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Continue a chat."""
        check_model(body)
        if body.top_logprobs and not body.logprobs:
            raise APIError(400, "top_logprobs: expected logprobs to be true beside it", param="top_logprobs")
        prompts = tokenize([[message.message() for message in body.messages]], "messages")
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        limit = body.max_completion_tokens or body.max_tokens or model.window
        job = new_job(body, prompts, "messages", logprobs, limit, echo=False)

        def response(kind: str, choices: list[Any], usage: Usage | None) -> dict[str, Any]:
            shared = {"id": f"chatcmpl-{job.id}", "object": kind, "created": job.created, "model": model.name}
            return shared | {"choices": choices, "usage": usage}

        if body.stream:
            return await stream(request, job, body, chat_delta, partial(response, "chat.completion.chunk"))
        await unless_disconnected(request, run(job))
        choices = [chat_choice(piece, piece.take()) for piece in job.answers.values()]
        return answer(response("chat.completion", choices, job.usage()))

    def check_model(body: GenerationRequest) -> None:
        if body.model != model.name:
            message = f"model: expected {model.name}, got {body.model!r}"
            raise APIError(404, message, param="model", code="model_not_found")

    def tokenize(prompts: Sequence[Prompt], name: str) -> list[list[int]]:
        try:
            texts = [model.tokenizer.render(prompt) for prompt in prompts]
        except ValueError as error:
            raise APIError(400, f"{name}: {error}", param=name) from error
        if max(map(len, texts)) > longest_text:  # not worth the time of tokenising it
            raise too_long(name, f"a text of {max(map(len, texts))} characters")
        return model.tokenizer.encode(texts)

    def too_long(name: str, got: str) -> APIError:
        message = f"{name}: expected at most {model.window - 1} tokens, as the window has {model.window}; got {got}"
        return APIError(413, message, param=name, code="context_length_exceeded")

    def new_job(
        body: GenerationRequest, prompts: list[list[int]], name: str, logprobs: int | None, limit: int, echo: bool
    ) -> Job:
        """Return the sequences that a request asks for, after the checks that need the model."""
        for token in (token for prompt in prompts for token in prompt):
            if token >= model.vocab_size:
                raise APIError(400, f"{name}: expected token ids below {model.vocab_size}, got {token}", param=name)
        longest = max(map(len, prompts))
        if longest >= model.window:
            raise too_long(name, str(longest))
        n = body.n or 1
        if len(prompts) * n > max_sequences:
            message = f"{name}: expected at most {max_sequences} answers in a request, got {len(prompts)} x {n}"
            raise APIError(400, message, param=name)
        requests: list[interface.Request] = []
        answers: dict[int, Answer] = {}
        for prompt in prompts:
            params = body.sampling_params(logprobs, min(limit, model.window - len(prompt)))
            if any(token >= model.vocab_size for token in params.logit_bias):
                message = f"logit_bias: expected token ids below {model.vocab_size}"
                raise APIError(400, message, param="logit_bias")
            for number in range(n):
                own = params
                if params.seed is not None:
                    own = msgspec.structs.replace(params, seed=params.seed + number)
                new = interface.Request(next(ids), prompt, own, score_prompt=echo and logprobs is not None)
                requests.append(new)
                answers[new.id] = Answer(
                    len(answers), model.tokenizer.tokenizer, body.stop_strings, logprobs, prompt, echo
                )
        return Job(requests, answers, sum(map(len, prompts)))

    async def outputs(job: Job) -> AsyncGenerator[Answer]:
        """Run a job; yield an answer whenever there is more of it. What ends early is aborted."""
        try:
            async with contextlib.aclosing(runner.generate(job.requests)) as generated:
                async for output in generated:
                    piece = job.answers[output.request_id]
                    if piece.finish_reason is None:  # else it had a stop string, and more tokens were on their way
                        piece.add(output.tokens, output.finish_reason)
                        if piece.finish_reason is not None:
                            runner.abort(output.request_id)
                        yield piece
        except ServerFull:
            message = f"the server is full: it holds {max_sequences} sequences at a time"
            raise APIError(429, message, code="server_full", headers=RETRY_AFTER) from None
        except EngineFailed:
            raise APIError(500, "the engine has failed; the server's log says why") from None
        finally:
            usage = job.usage()
            if usage["completion_tokens"]:  # else it was refused, or given up before it began
                metrics.prompt_tokens.inc(usage["prompt_tokens"])
                metrics.generated_tokens.inc(usage["completion_tokens"])

    async def run(job: Job) -> None:
        async with contextlib.aclosing(outputs(job)) as pieces:
            async for _ in pieces:
                pass

    async def stream(request: Request, job: Job, body: GenerationRequest, choice: Any, response: Any) -> Response:
        """Answer with server-sent events: a piece of an answer each, then the usage where it is asked for."""
        pieces = outputs(job)
        # The first output is awaited here, so that a request that is refused gets its status and no stream.
        first = await unless_disconnected(request, anext(pieces))
        metrics.responses.labels(200).inc()

        async def events() -> AsyncIterator[bytes]:
            async with contextlib.aclosing(pieces):
                piece = first
                try:
                    while True:
                        if piece.has_news():
                            yield event(response([choice(piece, piece.take())], None))
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    if body.includes_usage:
                        yield event(response([], job.usage()))
                except APIError as error:
                    yield event(error.body)
            yield b"data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return app


class BodyLimit:
    """Refuses to read bodies of more than MAX_BODY_BYTES."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app read so much and no more."""
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise HTTPException(413, f"expected a body of at most {MAX_BODY_BYTES} bytes")
            return message

        await self.app(scope, limited, send)


async def unless_disconnected(request: Request, work: Awaitable[Result]) -> Result:
    """Return the result of some work; cancel it when the client goes away."""

    async def client_goes() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(client_goes())
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise APIError(499, "the client has gone away")
    finally:
        working.cancel()
        watching.cancel()


def event(body: Any) -> bytes:
    """Return a server-sent event."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
