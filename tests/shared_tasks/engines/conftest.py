"""The course's small model, with a chat template: as transformers has it, on every engine, and on servers."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from final_project.app import create_app
from final_project.serve import served_model
from grader.reference.final_project.engine import Engine as ReferenceServerEngine
from grader.serving.vllm_server import VllmServer
from shared_tasks.models.endpoint import EndpointEngine
from shared_tasks.models.engine import Engine
from shared_tasks.models.registry import model_path
from shared_tasks.models.transformers_engine import TransformersEngine
from shared_tasks.models.vllm_engine import VllmEngine
from tests.final_project.conftest import LiveServer

TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.content }}\n{% endfor %}"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder, with a chat template that is known to the tests."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(model_path("course-small"))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    AutoModelForCausalLM.from_pretrained(model_path("course-small"), dtype=torch.float32).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def reference(folder: Path) -> Any:
    """The model as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture
def engine(folder: Path) -> TransformersEngine:
    return TransformersEngine(str(folder), device="cpu", name="course-small")


# What vLLM runs is loaded once for all tests: it takes long.


def needs_vllm() -> None:
    """Skip, and say so, where vLLM is not installed."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: make setup-vllm, make test-vllm")


@pytest.fixture(scope="session")
def vllm(folder: Path) -> Iterator[VllmEngine]:
    """The engine on vLLM; its log-probabilities are the model's own."""
    needs_vllm()
    engine = VllmEngine(str(folder), dtype=torch.float32, name="course-small", memory_share=0.3)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def vllm_processed(folder: Path) -> Iterator[VllmEngine]:
    """The engine on vLLM, with the log-probabilities of the distributions that it draws from."""
    needs_vllm()
    engine = VllmEngine(str(folder), dtype=torch.float32, name="course-small", logprobs="processed", memory_share=0.3)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def on_vllm_server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointEngine]:
    """The engine endpoint on vLLM's own server."""
    needs_vllm()
    with VllmServer(str(folder), tmp_path_factory.mktemp("server") / "log.txt", "float32", memory_share=0.3) as server:
        yield EndpointEngine(server.url, tokenizer=str(folder))


@pytest.fixture(scope="session")
def on_reference_server(folder: Path) -> Iterator[EndpointEngine]:
    """The engine endpoint on the server of the final project, with the reference's engine."""
    live = LiveServer(create_app(ReferenceServerEngine(str(folder)), served_model(str(folder)), max_sequences=512))
    yield EndpointEngine(live.url, tokenizer=str(folder))
    live.stop()


@pytest.fixture(scope="session")
def on_transformers(folder: Path) -> TransformersEngine:
    """The engine on transformers, on a GPU where there is one."""
    return TransformersEngine(str(folder), dtype=torch.float32, name="course-small")


@pytest.fixture(params=["on_transformers", "vllm", "on_vllm_server", "on_reference_server"])
def any_engine(request: pytest.FixtureRequest) -> Engine:
    """Every engine in turn."""
    engine: Engine = request.getfixturevalue(request.param)
    return engine
