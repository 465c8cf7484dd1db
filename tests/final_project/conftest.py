"""A server in this process on an engine that does what a test says."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from fastapi import FastAPI

from final_project.app import ServedModel, create_app
from final_project.interface import Output, Request, Stats, Token
from final_project.serve import served_model


class ScriptedEngine:
    """Answers with the prompt, again and again, a token of each sequence a step; `go` holds it up or lets it run."""

    def __init__(self, step_tokens: int = 1):
        self.step_tokens = step_tokens
        self.go = threading.Event()
        self.go.set()
        self.fails = False
        self.requests: dict[int, Request] = {}
        self.generated: dict[int, int] = {}
        self.seen: list[Request] = []
        self.steps = 0
        self.holds_after = -1  # steps

    def add(self, request: Request) -> None:
        self.requests[request.id] = request
        self.generated[request.id] = 0
        self.seen.append(request)

    def abort(self, request_id: int) -> None:
        self.requests.pop(request_id, None)

    def stats(self) -> Stats:
        return Stats(0, len(self.requests), 0.5)

    def step(self) -> list[Output]:
        if self.fails:
            raise RuntimeError("as the test says")
        if not self.go.wait(timeout=0.001):  # commands are obeyed meanwhile
            return []
        self.steps += 1
        if self.steps == self.holds_after:
            self.go.clear()
        outputs = []
        for request in list(self.requests.values()):
            tokens = []
            if request.score_prompt and not self.generated[request.id]:
                tokens = [Token(token, -1.0) for token in request.prompt]
            for _ in range(min(self.step_tokens, request.params.max_tokens - self.generated[request.id])):
                place = self.generated[request.id]
                tokens.append(Token(request.prompt[place % len(request.prompt)], -0.5))
                self.generated[request.id] += 1
            last = self.generated[request.id] == request.params.max_tokens
            if last:
                del self.requests[request.id]
            outputs.append(Output(request.id, tokens, "length" if last else None))
        return outputs


class LiveServer:
    """An app on a free port of the loopback, in a thread of its own, from `start` to `stop`."""

    def __init__(self, app: FastAPI):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)  # holds connections until they are taken
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        self.thread.join()
        self.socket.close()


@pytest.fixture(scope="session")
def model() -> ServedModel:
    """Give course-small as clients see it."""
    return served_model("course-small")


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def server(engine: ScriptedEngine, model: ServedModel) -> Iterator[LiveServer]:
    """Give a server with room for eight sequences."""
    live = LiveServer(create_app(engine, model, max_sequences=8))
    yield live
    engine.go.set()
    live.stop()
