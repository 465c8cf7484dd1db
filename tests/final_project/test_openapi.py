"""schemathesis against the server's own description of itself."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from final_project.app import ServedModel, create_app
from tests.final_project.conftest import LiveServer, ScriptedEngine


@pytest.fixture(scope="module")
def description(model: ServedModel) -> Iterator[Any]:
    """Give what a server says of itself."""
    live = LiveServer(create_app(ScriptedEngine(step_tokens=64), model))
    yield schemathesis.openapi.from_url(live.url + "/openapi.json")
    live.stop()


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_as_described(description: Any, mode: GenerationMode) -> None:
    """Whatever is sent, right or wrong, the status, the media type and the body's form are as described."""
    for result in description.get_all_operations():
        operation = result.ok()
        if mode == GenerationMode.NEGATIVE and operation.method == "get":
            continue  # there is nothing in it that could be wrong

        @hypothesis.settings(
            max_examples=40, derandomize=True, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def is_as_described(case: Any) -> None:
            case.call_and_validate()
            if mode == GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body["model"] = "course-small"  # the window and the vocabulary may yet refuse
                case.call_and_validate(excluded_checks=[positive_data_acceptance])

        is_as_described()
