"""The data format between judge and worker."""

import torch

from grader.sandbox.remote import JudgeSide
from grader.sandbox.wire import from_wire, to_wire


def test_tensors_of_any_stride_cross() -> None:
    """A tensor arrives as it was, also a single element of a strided slice, which torch calls contiguous."""
    side = JudgeSide({}, lambda *_: None)
    numbers = torch.arange(12.0).reshape(3, 4)
    for tensor in (numbers, numbers.T, numbers[:, ::2], numbers[:1, 1::4], numbers[1, 2], numbers[:0], numbers[0, ::5]):
        assert torch.equal(from_wire(to_wire(tensor, side), side), tensor)
