"""The reference of the optional Triton problem; needs triton, and a GPU or TRITON_INTERPRET=1."""

import os

import pytest
import torch

from grader.reference.hw3.attention import grouped_query_attention

pytest.importorskip("triton", reason="the optional Triton problem needs `pip install triton`")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("the optional Triton problem needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)


def test_kernel_equals_dense_attention() -> None:
    """The kernel's result is that of dense attention, for odd lengths, grouped heads and queries that see nothing."""
    from grader.reference.hw3 import attention_triton

    device = "cuda" if torch.cuda.is_available() else "cpu"
    queries, keys, values = (torch.randn(3, h, n, 16, device=device) for h, n in ((6, 21), (2, 45), (2, 45)))
    mask = torch.rand(3, 21, 45, device=device) < 0.4
    mask[1, :7] = False
    actual = attention_triton.tiled_attention(queries, keys, values, mask, query_tile=16, key_tile=32)
    torch.testing.assert_close(actual, grouped_query_attention(queries, keys, values, mask), atol=1e-4, rtol=1e-4)
