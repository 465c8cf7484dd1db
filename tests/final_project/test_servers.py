"""Servers as processes: the public tests, a storm, and the end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from final_project.configuration import read_configuration
from shared_tasks.models.folders import model_folder

KIT = Path(__file__).parents[2]
CONFIG = KIT / "grader" / "reference" / "final_project" / "serve.toml"


@contextmanager
def running(system: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a system's server on a free port, from its first healthy answer on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "final_project.serve", "--config", str(CONFIG), "--system", system]
    process = subprocess.Popen([*command, "--port", str(port)], cwd=KIT, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        assert any(is_healthy(url, process) for _ in range(600))
        yield url, process
    finally:
        process.kill()
        process.wait()


def is_healthy(url: str, process: subprocess.Popen[bytes]) -> bool:
    try:
        return httpx.get(url + "/health").status_code == 200
    except httpx.TransportError:
        try:
            pytest.fail(f"the server has ended with {process.wait(timeout=0.1)}")
        except subprocess.TimeoutExpired:
            return False


@pytest.mark.slow
@pytest.mark.parametrize("system", ["reference", "improved"])
def test_public_tests(system: str) -> None:
    """The reference and the improved baseline, of which the simple one is a batch of one, pass the public tests."""
    with running(system) as (url, _):
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "final_project/tests"],
            cwd=KIT,
            env=os.environ | {"SERVER_URL": url},
            capture_output=True,
            text=True,
        )
    assert run.returncode == 0, run.stdout


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here: see `make setup-vllm`")
@pytest.mark.parametrize(("backend", "path"), [("openai", "completions"), ("openai-chat", "chat/completions")])
def test_vllm_bench(backend: str, path: str, tmp_path: Path) -> None:
    """`vllm bench serve` is answered to its last request, with as many tokens as it asks for."""
    command = [sys.executable, "-m", "grader.serving.vllm_command", "bench", "serve", "--backend", backend]
    command += ["--endpoint", f"/v1/{path}", "--model", "course-base", "--tokenizer", str(model_folder("course-base"))]
    command += ["--dataset-name", "random", "--random-input-len", "60", "--random-output-len", "20", "--ignore-eos"]
    command += ["--num-prompts", "8", "--save-result", "--result-dir", str(tmp_path), "--result-filename", "told.json"]
    with running("reference") as (url, _):
        run = subprocess.run([*command, "--base-url", url], cwd=KIT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["completed"], told["failed"], told["total_output_tokens"]) == (8, 0, 8 * 20)


@pytest.mark.slow
def test_drain() -> None:
    """On SIGTERM the server takes in no more, finishes what is under way, and ends without an error."""
    body = {"model": "course-base", "prompt": [5, 6], "max_tokens": 300, "ignore_eos": True, "stream": True}
    with (
        running("reference") as (url, process),
        httpx.stream("POST", url + "/v1/completions", json=body, timeout=60) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        assert process.wait(timeout=30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(url + "/health")


@pytest.mark.slow
def test_soak() -> None:
    """Storms of good, bad, slow and broken-off requests leave nothing running.

    `python -m benchmarks.soak` does the same for ten minutes, and watches the memory.
    """
    from benchmarks.soak import storm

    with running("reference") as (url, _):
        for seed in (0, 1):
            statuses = asyncio.run(storm(url, "course-base", seed=seed, requests=20))
            assert set(statuses) <= {200, 400, 404, 413, 429, 0}
            assert statuses[200] > 0
        metrics = httpx.get(url + "/metrics").text
        assert "requests_running 0.0" in metrics
        assert httpx.get(url + "/health").status_code == 200


def test_configuration_errors(tmp_path: Path) -> None:
    """A serve.toml that is wrong is refused with what was expected."""
    file = tmp_path / "serve.toml"
    for text, message in (
        ("systems = 3", "Expected `array`"),
        ("systems = []", "expected 1 to 3 systems"),
        ('[[systems]]\nname = "a"\nmodel = "m"\nport = 1', "unknown field `port`"),
        ('[[systems]]\nname = "a"\nmodel = "m"\n' * 2, "names of their own"),
        ("=", "Invalid"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_configuration(file)


def test_models_beside_the_configuration(tmp_path: Path) -> None:
    """A folder beside serve.toml is found from anywhere; other names stay as they are."""
    (tmp_path / "mine").mkdir()
    systems = '[[systems]]\nname = "a"\nmodel = "mine"\n[[systems]]\nname = "b"\nmodel = "course-base"\n'
    (tmp_path / "serve.toml").write_text(systems)
    first, second = read_configuration(tmp_path / "serve.toml").systems
    assert (first.model, second.model) == (str(tmp_path / "mine"), "course-base")


def test_the_configuration_that_students_get() -> None:
    """The serve.toml of the handout is valid, and its engine is the stub."""
    (system,) = read_configuration(KIT / "final_project" / "serve.toml").systems
    with pytest.raises(NotImplementedError):
        system.load_engine()
