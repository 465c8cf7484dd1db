"""Real public data sets, which lie beside the checkout and are never part of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("COURSE_DATA") or Path(__file__).parents[4] / "shared" / "data")


def rows(name: str) -> list[Any]:
    """Return the rows of a JSON or JSON-lines file; skip the test where the data is not there."""
    file = DATA / name
    if not file.exists():
        pytest.skip(f"no {name} in {DATA}; COURSE_DATA names the folder of public data")
    text = file.read_text()
    return json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
