"""A server that speaks OpenAI's protocol as vLLM does, on the engine of transformers, and fails on demand."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from shared_tasks.models.engine import Completion, SamplingParams
from shared_tasks.models.transformers_engine import TransformersEngine

OWN = {"temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "ignore_eos", "logit_bias", "n"}


@dataclass
class Behaviour:
    """What the server can, what fails next, and what it has seen."""

    is_vllm: bool = True
    has_logprobs: bool = True
    failures: list[Response] = field(default_factory=list)  # instead of the next answers
    barrier: asyncio.Barrier | None = None  # requests wait for one another here
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0


class Server:
    """The server, in a thread of its own, from `start` to `stop`."""

    def __init__(self, engine: TransformersEngine):
        self.engine = engine
        self.behaviour = Behaviour()
        self.socket = socket.create_server(("127.0.0.1", 0))  # holds connections until the server takes them
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(self.app(), log_level="critical", lifespan="off"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.socket.close()

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def watch(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
            behaviour = self.behaviour
            behaviour.headers.append(dict(request.headers))
            behaviour.in_flight += 1
            behaviour.most_in_flight = max(behaviour.most_in_flight, behaviour.in_flight)
            try:
                if request.method == "POST" and behaviour.failures:
                    return behaviour.failures.pop(0)
                if behaviour.barrier is not None:
                    await behaviour.barrier.wait()
                return await answer(request)
            finally:
                behaviour.in_flight -= 1

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            owner = "vllm" if self.behaviour.is_vllm else "someone"
            return {"data": [{"id": "course-small", "object": "model", "owned_by": owner}]}

        @app.post("/v1/completions")
        async def completions(request: Request) -> Any:
            body = await request.json()
            self.behaviour.requests.append(body)
            prompt, tokenizer = body["prompt"], self.engine.tokenizer.tokenizer
            ids = prompt if isinstance(prompt, list) else self.engine.tokenizer.encode([prompt])[0]
            if len(ids) >= 1024:
                return JSONResponse({"error": {"message": "the prompt is too long"}}, status_code=400)
            reply = self.reply(body, tokenizer.decode(ids), self.choice)
            with_logprobs = self.behaviour.has_logprobs
            if with_logprobs and body.get("prompt_logprobs") is not None:
                reply["choices"][0]["prompt_logprobs"] = self.prompt_logprobs(ids)
            if with_logprobs and body.get("echo"):
                prefix = [
                    (tokenizer.decode([token]), entry) for token, entry in zip(ids, self.scores(ids), strict=True)
                ]
                of_choice = reply["choices"][0]["logprobs"]
                of_choice["tokens"] = [text for text, _ in prefix] + of_choice["tokens"]
                of_choice["token_logprobs"] = [e and e["own"] for _, e in prefix] + of_choice["token_logprobs"]
                of_choice["top_logprobs"] = [e and {"top": e["top"]} for _, e in prefix] + of_choice["top_logprobs"]
            return reply

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Any:
            body = await request.json()
            self.behaviour.requests.append(body)
            return self.reply(body, body["messages"], self.chat_choice)

        return app

    def reply(self, body: dict[str, Any], prompt: Any, choice: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        options = {name: value for name, value in body.items() if name in OWN}
        options["stop"] = tuple(options.get("stop", ()))
        options["logit_bias"] = {int(token): bias for token, bias in options.get("logit_bias", {}).items()}
        top = body.get("top_logprobs", body.get("logprobs"))
        params = SamplingParams(**options, logprobs=top if self.behaviour.has_logprobs else None)
        (result,) = self.engine.generate([prompt], params)
        choices = [choice(i, completion, body) for i, completion in enumerate(result.completions)]
        usage = {"prompt_tokens": result.prompt_tokens, "completion_tokens": result.generated_tokens}
        return {"choices": choices[::-1], "usage": usage}  # in no particular order

    def name(self, token: int, body: dict[str, Any]) -> str:
        return f"token_id:{token}" if body.get("return_tokens_as_token_ids") else self.engine.tokenizer.decode([token])

    def choice(self, index: int, completion: Completion, body: dict[str, Any]) -> dict[str, Any]:
        logprobs = None
        if completion.logprobs:
            tokens = [self.name(token, body) for token in completion.token_ids]
            drawn = zip(completion.token_ids, completion.logprobs, strict=True)
            tops = completion.top_logprobs or [{} for _ in tokens]
            named = [
                {self.name(key, body): value for key, value in ({token: logprob} | top).items()}
                for (token, logprob), top in zip(drawn, tops, strict=True)
            ]
            logprobs = {"tokens": tokens, "token_logprobs": completion.logprobs, "top_logprobs": named}
        return self.common(index, completion, body) | {"text": completion.text, "logprobs": logprobs}

    def chat_choice(self, index: int, completion: Completion, body: dict[str, Any]) -> dict[str, Any]:
        tops = completion.top_logprobs or [{} for _ in completion.token_ids]
        content = [
            {
                "token": self.name(token, body),
                "logprob": logprob,
                "top_logprobs": [{"token": self.name(key, body), "logprob": value} for key, value in top.items()],
            }
            for token, logprob, top in zip(completion.token_ids, completion.logprobs, tops, strict=False)
        ]
        message = {"role": "assistant", "content": completion.text}
        logprobs = {"content": content} if content else None
        return self.common(index, completion, body) | {"message": message, "logprobs": logprobs}

    def common(self, index: int, completion: Completion, body: dict[str, Any]) -> dict[str, Any]:
        ids = completion.token_ids if body.get("return_token_ids") else None
        return {"index": index, "finish_reason": completion.finish_reason, "token_ids": ids}

    @torch.inference_mode()
    def scores(self, ids: list[int]) -> list[dict[str, Any] | None]:
        """Return each token's log-probability and rank, and the most likely one; None for the first token."""
        rows = self.engine.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        own = rows.gather(1, torch.tensor(ids[1:])[:, None])
        ranks = (rows > own).sum(1) + 1
        tops = rows.max(-1)
        values = zip(own[:, 0].tolist(), ranks.tolist(), tops.values.tolist(), tops.indices.tolist(), strict=True)
        return [None, *({"own": o, "rank": r, "top": t, "top_id": i} for o, r, t, i in values)]

    def prompt_logprobs(self, ids: list[int]) -> list[dict[str, Any] | None]:
        entries: list[dict[str, Any] | None] = []
        for token, score in zip(ids, self.scores(ids), strict=True):
            if score is None:
                entries.append(None)
                continue
            text = self.engine.tokenizer.decode([token])
            own = {str(token): {"logprob": score["own"], "rank": score["rank"], "decoded_token": text}}
            top = {str(score["top_id"]): {"logprob": score["top"], "rank": 1, "decoded_token": ""}}
            entries.append(own | {key: value for key, value in top.items() if key not in own})
        return entries


def failure(status: int, message: str = "try again", **headers: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status, headers=headers)


def broken_connection() -> Response:
    """An answer that ends before it is complete, so that the server closes the connection."""

    async def half() -> AsyncIterator[bytes]:
        yield b'{"choices": '

    return StreamingResponse(half(), headers={"Content-Length": "100"})
