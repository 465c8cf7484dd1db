"""Fast tests first."""

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the slow tests to the end, in their order."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
