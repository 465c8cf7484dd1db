"""Making mutants: a reference with passages written wrongly."""

import inspect
from types import ModuleType
from typing import Any


def rewritten(reference: ModuleType, name: str, *passages: tuple[str, str]) -> Any:
    """Return a function or class of the reference in which passages are replaced by others."""
    source = inspect.getsource(getattr(reference, name))
    for old, new in passages:
        assert old in source, f"{old!r} is not in {name}"
        source = source.replace(old, new)
    namespace = dict(vars(reference))
    exec(source, namespace)
    return namespace[name]
