"""Assertions for tests of algorithms: they say what was expected and what came."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-6, what: str = "the result") -> None:
    """Fail unless `actual` is a finite number or tensor of the expected shape within `tolerance` of `expected`.

    The tolerance is absolute. Infinities and NaN are equal only to themselves, and only where they are expected.
    """
    if isinstance(actual, bool) or not isinstance(actual, (int, float, Tensor)):
        raise AssertionError(f"{what}: expected a number or a tensor, got {_described(actual)}")
    got = torch.as_tensor(actual).detach().to("cpu", torch.float64)
    want = torch.as_tensor(expected).detach().to("cpu", torch.float64)
    if got.shape != want.shape:
        raise AssertionError(f"{what}: expected shape {tuple(want.shape)}, got shape {tuple(got.shape)}")
    same = (got == want) | ((got - want).abs() <= tolerance) | (got.isnan() & want.isnan())
    if not bool(same.all()):
        raise AssertionError(
            f"{what}: expected {_described(expected)}, got {_described(actual)} (tolerance {tolerance:g})"
        )


def assert_equal(actual: Any, expected: Any, what: str = "the result") -> None:
    """Fail unless `actual` is the expected plain value: same type, same contents."""
    if type(actual) is not type(expected) or actual != expected:
        raise AssertionError(f"{what}: expected {_described(expected)}, got {_described(actual)}")


def assert_same_distribution(
    actual: Mapping[Any, float], expected: Mapping[Any, float], tolerance: float = 1e-9
) -> None:
    """Fail unless two finite distributions give every outcome the same probability within `tolerance`."""
    for outcome in sorted(set(actual) | set(expected), key=repr):
        got, want = actual.get(outcome, 0.0), expected.get(outcome, 0.0)
        if not abs(got - want) <= tolerance:
            raise AssertionError(f"P({outcome!r}): expected {want:.6f}, got {got:.6f}")


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        text = f"a tensor of shape {tuple(value.shape)}"
        return f"{text}: {value.tolist()}" if value.numel() <= 64 else text
    text = f"{value!r} ({type(value).__name__})"
    return text if len(text) <= 400 else text[:400] + "…"
