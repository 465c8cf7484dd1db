"""Optional: tiled attention as a Triton kernel. Needs `triton`, and a GPU or TRITON_INTERPRET=1.

Paper: Dao, 2023, https://arxiv.org/abs/2307.08691; the language: https://triton-lang.org.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float
from torch import Tensor


def tiled_attention(
    queries: Float[Tensor, "batch heads queries head_dim"],
    keys: Float[Tensor, "batch kv_heads keys head_dim"],
    values: Float[Tensor, "batch kv_heads keys head_dim"],
    mask: Bool[Tensor, "batch queries keys"],
    *,
    query_tile: int = 64,
    key_tile: int = 64,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """Compute what `hw3.attention.tiled_attention` does: one program for each tile of queries of each head.

    Both sizes and head_dim are powers of two of at least 16. Sums are kept in float32.
    """
    batch, heads, query_count, head_dim = queries.shape
    queries, keys, values, mask = (part.contiguous() for part in (queries, keys, values, mask))
    output = torch.empty_like(queries)
    _attend[(triton.cdiv(query_count, query_tile), batch * heads)](
        queries, keys, values, mask.view(torch.uint8), output, query_count, keys.shape[2], head_dim**-0.5,
        HEADS=heads, GROUP=heads // keys.shape[1], HEAD_DIM=head_dim, QUERY_TILE=query_tile, KEY_TILE=key_tile,
    )  # fmt: skip
    return output


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    queries, keys, values, mask, output, query_count, key_count, scale,
    HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, QUERY_TILE: tl.constexpr, KEY_TILE: tl.constexpr,
):  # fmt: skip
    row_head = tl.program_id(1)  # row * HEADS + head; with GROUP heads to one of keys, // GROUP is that of keys
    row = row_head // HEADS
    q = tl.program_id(0) * QUERY_TILE + tl.arange(0, QUERY_TILE)
    d = tl.arange(0, HEAD_DIM)
    at_queries = (row_head * query_count + q[:, None]) * HEAD_DIM + d[None, :]
    block = tl.load(queries + at_queries, mask=q[:, None] < query_count, other=0.0).to(tl.float32) * scale
    largest = tl.full((QUERY_TILE,), -float("inf"), tl.float32)
    total = tl.zeros((QUERY_TILE,), tl.float32)
    mixed = tl.zeros((QUERY_TILE, HEAD_DIM), tl.float32)
    for start in range(0, key_count, KEY_TILE):
        k = start + tl.arange(0, KEY_TILE)
        inside = k[:, None] < key_count
        at_keys = ((row_head // GROUP) * key_count + k[:, None]) * HEAD_DIM + d[None, :]
        key = tl.load(keys + at_keys, mask=inside, other=0.0).to(tl.float32)
        value = tl.load(values + at_keys, mask=inside, other=0.0).to(tl.float32)
        at_mask = (row * query_count + q[:, None]) * key_count + k[None, :]
        shown = tl.load(mask + at_mask, mask=(q[:, None] < query_count) & (k[None, :] < key_count), other=0)
        scores = tl.dot(block, tl.trans(key), input_precision="ieee")
        scores = tl.where(shown != 0, scores, -float("inf"))
        new = tl.maximum(largest, tl.max(scores, 1))
        safe = tl.where(new == -float("inf"), 0.0, new)  # nothing seen yet: exp(-inf - 0) is 0
        weights = tl.exp(scores - safe[:, None])
        rescale = tl.exp(largest - safe)
        total = total * rescale + tl.sum(weights, 1)
        mixed = mixed * rescale[:, None] + tl.dot(weights, value, input_precision="ieee")
        largest = new
    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    tl.store(output + at_queries, mixed.to(output.dtype.element_ty), mask=q[:, None] < query_count)
