"""schemathesis against the server's own description of itself."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis

from final_project.app import ServedModel, create_app
from tests.final_project.conftest import LiveServer, ScriptedEngine


@pytest.fixture(scope="module")
def description(model: ServedModel) -> Iterator[Any]:
    """Give what a server says of itself."""
    live = LiveServer(create_app(ScriptedEngine(step_tokens=64), model))
    yield schemathesis.openapi.from_url(live.url + "/openapi.json")
    live.stop()


@schemathesis.pytest.from_fixture("description").parametrize()
@hypothesis.settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)
@pytest.mark.slow
def test_as_described(case: Any) -> None:
    """Whatever is sent, right or wrong, the status, the media type and the body's form are as described."""
    case.call_and_validate()
