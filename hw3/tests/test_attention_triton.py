"""Optional tests of `hw3/attention_triton.py`, which needs triton and a GPU, or TRITON_INTERPRET=1."""

import os

import pytest
import torch

pytest.importorskip("triton", reason="the optional Triton problem needs `pip install triton`")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("the optional Triton problem needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from hw3 import attention_triton
from hw3.transformer import dense_attention
from shared_tasks.checks import assert_close, assert_equal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class TestTiledAttention:
    """The kernel."""

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
    def test_equals_dense_attention(self, dtype: torch.dtype, tolerance: float) -> None:
        """Equals dense attention for grouped heads, lengths that tiles do not divide, and queries that see nothing."""
        generator = torch.Generator().manual_seed(1)
        queries = torch.randn(2, 4, 37, 32, generator=generator).to(DEVICE, dtype)
        keys, values = (torch.randn(2, 2, 53, 32, generator=generator).to(DEVICE, dtype) for _ in range(2))
        mask = (torch.rand(2, 37, 53, generator=generator) < 0.5).to(DEVICE)
        mask[0, 5] = False
        mask[1, :9, :32] = False  # whole tiles in which nothing is seen
        expected = dense_attention(queries.float(), keys.float(), values.float(), mask)
        for query_tile, key_tile in ((16, 16), (32, 16), (64, 64)):
            actual = attention_triton.tiled_attention(
                queries, keys, values, mask, query_tile=query_tile, key_tile=key_tile
            )
            assert_equal(str(actual.dtype), str(dtype), "the dtype")
            assert_close(actual, expected, tolerance, f"attention in tiles of {query_tile} by {key_tile}")
