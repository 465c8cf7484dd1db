"""The data format between judge and worker."""

import hashlib

import pytest
import torch

from grader.sandbox.remote import JudgeSide
from grader.sandbox.wire import WireError, from_wire, pack, to_wire, unpack


def test_tensors_of_any_stride_cross() -> None:
    """A tensor arrives as it was, also a single element of a strided slice, which torch calls contiguous."""
    side = JudgeSide({}, lambda *_: None)
    numbers = torch.arange(12.0).reshape(3, 4)
    for tensor in (numbers, numbers.T, numbers[:, ::2], numbers[:1, 1::4], numbers[1, 2], numbers[:0], numbers[0, ::5]):
        assert torch.equal(from_wire(to_wire(tensor, side), side), tensor)


def test_integers_of_any_size_cross() -> None:
    """An integer of a hash's length arrives as it was, alone and among others; one without bound is refused."""
    side = JudgeSide({}, lambda *_: None)
    digest = int.from_bytes(hashlib.sha256(b"block").digest(), "big")
    edges = [sign * (1 << bits) + step for bits in (63, 64, 255) for sign in (1, -1) for step in (-1, 0, 1)]
    for value in (digest, -digest, edges, [1, digest], (digest, {digest: 3}), True):
        assert from_wire(unpack(pack(to_wire(value, side))), side) == value
    with pytest.raises(WireError, match="more than"):
        to_wire(1 << 10_000, side)
    with pytest.raises(WireError):
        from_wire({"int": bytes(2000)}, side)
