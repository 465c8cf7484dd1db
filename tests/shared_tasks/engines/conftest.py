"""The course's small model, as an engine and as transformers has it, with a chat template."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared_tasks.models.registry import model_path
from shared_tasks.models.transformers_engine import TransformersEngine

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
