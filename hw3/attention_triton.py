"""Optional: tiled attention as a Triton kernel. Needs `triton`, and a GPU or TRITON_INTERPRET=1.

Paper: Dao, 2023, https://arxiv.org/abs/2307.08691; the language: https://triton-lang.org.
"""

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
    raise NotImplementedError
