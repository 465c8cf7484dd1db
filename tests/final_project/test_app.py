"""The given side of the server, on an engine whose every step is known."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from final_project.answers import Answer
from final_project.app import MAX_BODY_BYTES, ServedModel
from final_project.interface import Token
from final_project.texts import TextStream


def complete(server: Any, **fields: Any) -> httpx.Response:
    body = {"model": "course-small", "prompt": [65, 66, 67], "max_tokens": 4} | fields
    return httpx.post(server.url + "/v1/completions", json=body, timeout=30)


def metric(server: Any, name: str) -> float:
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(name + " ")))


def eventually(holds: Callable[[], bool]) -> bool:
    """Return whether something comes true within ten seconds."""
    pause = threading.Event()
    return any(holds() or pause.wait(0.005) for _ in range(2000))


def raw_request(server: Any, **fields: Any) -> socket.socket:
    """Send a request and do not read the answer."""
    url = httpx.URL(server.url)
    connection = socket.create_connection((url.host, url.port))
    content = json.dumps({"model": "course-small", "prompt": [65], "max_tokens": 1000} | fields).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
    connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)
    return connection


class TestTextStream:
    """Text from tokens, piece by piece."""

    def pieces(self, model: ServedModel, text: str, stop: list[str]) -> tuple[list[str], bool]:
        ids = model.tokenizer.tokenizer(text, add_special_tokens=False).input_ids
        stream = TextStream(model.tokenizer.tokenizer, stop)
        pieces = []
        for place, token in enumerate(ids, start=1):
            pieces.append(stream.add(token, place == len(ids)))
            if stream.stopped:
                break
        return pieces, stream.stopped

    def test_characters_of_several_tokens(self, model: ServedModel) -> None:
        """A character that takes several tokens is given out once, with the last of them."""
        pieces, stopped = self.pieces(model, "né 日本", [])
        assert "".join(pieces) == "né 日本"
        assert not stopped
        assert not any("\ufffd" in piece for piece in pieces)

    def test_unfinished_character(self, model: ServedModel) -> None:
        """What an answer's end leaves unfinished shows as the replacement character, as when all is decoded at once."""
        tokenizer = model.tokenizer.tokenizer
        ids = tokenizer("a日", add_special_tokens=False).input_ids[:-1]
        stream = TextStream(tokenizer, [])
        text = "".join(stream.add(token, place == len(ids)) for place, token in enumerate(ids, start=1))
        assert text == tokenizer.decode(ids)
        assert text.endswith("\ufffd")

    def test_stop_across_tokens(self, model: ServedModel) -> None:
        """A stop string that lies across tokens ends the text before it, and nothing of it was given out before."""
        pieces, stopped = self.pieces(model, "one two three four", ["wo th"])
        assert stopped
        assert "".join(pieces) == "one t"

    def test_begun_stop_is_given_after_all(self, model: ServedModel) -> None:
        """What looked like a stop string and is none comes out late but whole."""
        pieces, stopped = self.pieces(model, "one two three four", ["two fish", "fours"])
        assert not stopped
        assert "".join(pieces) == "one two three four"

    def test_first_of_several(self, model: ServedModel) -> None:
        """The stop string that comes first in the text counts, whatever its place in the list."""
        pieces, _ = self.pieces(model, "one two three four", ["three", "two"])
        assert "".join(pieces) == "one "


class TestAnswer:
    """An answer in the making."""

    def test_what_follows_a_stop_string_is_not_counted(self, model: ServedModel) -> None:
        """Tokens after the one that completes the stop string are dropped, also when they come in one step."""
        tokenizer = model.tokenizer.tokenizer
        ids = tokenizer("ab#cd", add_special_tokens=False).input_ids
        through_stop = next(n for n in range(1, len(ids) + 1) if "#" in tokenizer.decode(ids[:n]))
        answer = Answer(0, tokenizer, ["#"], None, [1], echo=False)
        answer.add([Token(token) for token in ids], "length")
        assert answer.take().text == "ab"
        assert (answer.generated, answer.finish_reason) == (through_stop, "stop")


class TestEngineSide:
    """What the engine is given."""

    def test_a_sequence_for_each_answer(self, server: Any, engine: Any) -> None:
        """n answers are n sequences of one answer each, drawn from seed, seed + 1, ..."""
        complete(server, n=3, seed=10, stop=["x"], temperature=0.5).raise_for_status()
        assert [request.params.seed for request in engine.seen] == [10, 11, 12]
        assert all((request.params.n, request.params.stop) == (1, ()) for request in engine.seen)

    def test_limit(self, server: Any, engine: Any, model: ServedModel) -> None:
        """max_tokens is cut down to what the window has room for."""
        complete(server, prompt=[65] * (model.window - 3), max_tokens=10**15).raise_for_status()
        assert engine.seen[0].params.max_tokens == 3

    def test_stop_frees_the_sequence(self, server: Any, engine: Any) -> None:
        """A sequence whose answer has its stop string is aborted while its neighbour runs on."""
        first = complete(server, prompt=[[65, 66, 67], [70, 71, 72]], max_tokens=60).json()["choices"][0]["text"]
        answer = complete(server, prompt=[[65, 66, 67], [70, 71, 72]], max_tokens=900, stop=[first[:2]]).json()
        assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "length"]
        assert answer["usage"]["completion_tokens"] < 900 + 100
        assert eventually(lambda: not engine.requests)

    def test_several_tokens_a_step(self, server: Any, engine: Any) -> None:
        """An engine may give several tokens in a step; the answer is the same."""
        one = complete(server, max_tokens=20, logprobs=0).json()["choices"]
        engine.step_tokens = 7
        assert complete(server, max_tokens=20, logprobs=0).json()["choices"] == one


class TestFull:
    """A server that has no room."""

    def test_full_then_free(self, server: Any, engine: Any) -> None:
        """With eight places taken the ninth request is told 429 and when to come back; a place given up is free."""
        engine.go.clear()
        connections = [raw_request(server) for _ in range(8)]
        assert eventually(lambda: len(engine.requests) == 8)
        refused = complete(server)
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["code"] == "server_full"
        connections.pop().close()
        assert eventually(lambda: len(engine.requests) == 7)
        connections.append(raw_request(server))
        assert eventually(lambda: len(engine.requests) == 8)
        for connection in connections:
            connection.close()
        assert eventually(lambda: not engine.requests)

    def test_never_room(self, server: Any) -> None:
        """A request that asks for more answers than the server ever holds is a bad request, not one to try again."""
        refused = complete(server, n=9)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt")

    @pytest.mark.slow
    def test_ten_thousand_requests(self, server: Any, engine: Any) -> None:
        """Of 10,000 requests at a standstill eight are kept and the rest refused; then the eight are answered."""
        engine.go.clear()
        statuses: list[int] = []
        url = httpx.URL(server.url)
        content = json.dumps({"model": "course-small", "prompt": [65], "max_tokens": 2}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
        request = head.encode() + b"Content-Type: application/json\r\n\r\n" + content

        async def client(left: list[None]) -> None:
            reader, writer = await asyncio.open_connection(url.host, url.port)
            while left:
                left.pop()
                writer.write(request)
                header = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                await reader.readexactly(int(header.split("content-length: ")[1].split("\r\n")[0]))
                statuses.append(int(header.split()[1]))
                if len(statuses) == 10_000 - 8:
                    engine.go.set()
            writer.close()

        async def main() -> None:
            left = [None] * 10_000
            await asyncio.gather(*(client(left) for _ in range(64)))

        asyncio.run(main())
        assert sorted(set(statuses)) == [200, 429]
        assert statuses.count(200) == 8
        assert complete(server).status_code == 200


class TestGoneClients:
    """Those who leave, and those who are slow."""

    @pytest.mark.parametrize("stream", [False, True])
    def test_cancelled_before_the_first_token(self, server: Any, engine: Any, stream: bool) -> None:
        """A request that is given up while it waits is aborted, whether it streams or not."""
        engine.go.clear()
        connection = raw_request(server, stream=stream)
        assert eventually(lambda: len(engine.requests) == 1)
        connection.close()
        assert eventually(lambda: not engine.requests)

    def test_disconnect_in_mid_stream(self, server: Any, engine: Any) -> None:
        """A reader that goes away in the middle of its stream is aborted."""
        engine.holds_after = 5
        connection = raw_request(server, stream=True, prompt=[65] * 9)
        assert connection.recv(100)
        assert eventually(lambda: engine.steps == 5)
        connection.close()
        assert eventually(lambda: not engine.requests)

    def test_slow_reader(self, server: Any, engine: Any) -> None:
        """A reader that does not read holds no place in the engine, and others are answered meanwhile."""
        readers = [raw_request(server, stream=True, logprobs=5, n=4) for _ in range(2)]
        assert eventually(lambda: len(engine.seen) == 8 and not engine.requests)
        assert complete(server).status_code == 200
        for reader in readers:
            reader.close()


class TestFailures:
    """When the engine fails, and what is too large."""

    def test_engine_fails(self, server: Any, engine: Any) -> None:
        """Requests under way are told 500, later ones too, and /health says that the server is ill."""
        assert httpx.get(server.url + "/health").status_code == 200
        engine.fails = True
        for _ in range(2):
            failed = complete(server)
            assert failed.status_code == 500
            assert failed.json()["error"]["type"] == "server_error"
        assert httpx.get(server.url + "/health").status_code == 503

    def test_engine_fails_in_mid_stream(self, server: Any, engine: Any) -> None:
        """A stream that cannot go on says so in an event."""
        engine.holds_after = 3
        body = {"model": "course-small", "prompt": [65], "max_tokens": 1000, "stream": True}
        with httpx.stream("POST", server.url + "/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            engine.fails = True
            rest = [line for line in lines if line]
        assert rest[-2].startswith('data: {"error"')
        assert rest[-1] == "data: [DONE]"

    def test_large_body(self, server: Any) -> None:
        """A body beyond the limit is refused with 413 before it is read to its end."""
        response = httpx.post(
            server.url + "/v1/completions",
            content=iter([b'{"prompt": "'] + [b"a" * 65536] * (MAX_BODY_BYTES // 65536 + 1)),
            headers={"content-type": "application/json"},
        )
        assert response.status_code == 413

    def test_deep_nesting(self, server: Any) -> None:
        """Brackets without end are a bad request."""
        response = httpx.post(
            server.url + "/v1/completions", content=b"[" * 200_000, headers={"content-type": "application/json"}
        )
        assert response.status_code == 400

    def test_metrics_count_statuses(self, server: Any, engine: Any) -> None:
        """Answers are counted by their status; what is refused costs no tokens."""
        complete(server)
        complete(server, n=0)
        assert metric(server, 'responses_total{status="200"}') == 1
        assert metric(server, 'responses_total{status="400"}') == 1
        engine.go.clear()
        held = raw_request(server, n=8)
        assert eventually(lambda: len(engine.requests) == 8)
        assert complete(server).status_code == 429
        assert metric(server, "prompt_tokens_total") == 3
        held.close()
