"""Attention in all its forms: dense, in tiles, in a sliding window, and without a softmax.

Keys and values may have fewer heads than queries: query head h reads head h // (heads / kv_heads). A mask is True where
a query sees a key; a query that sees no key gets zeros. Results have the dtype of the queries (of x in a selective
scan). Inside, half precision is computed in float32; log-sum-exps and states are float32, or float64 for float64
inputs. No function changes its arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

Elements = tuple[Float[Tensor, "batch length *rest"], ...]


def grouped_query_attention(
    queries: Float[Tensor, "batch heads queries head_dim"],
    keys: Float[Tensor, "batch kv_heads keys head_dim"],
    values: Float[Tensor, "batch kv_heads keys head_dim"],
    mask: Bool[Tensor, "batch queries keys"],
) -> Float[Tensor, "batch heads queries head_dim"]:
    """Compute softmax(QK^T / sqrt(head_dim)) V; it can be the `attention` of the course's transformer.

    Raises ValueError unless heads is a multiple of kv_heads.

    Papers: Vaswani et al., 2017, https://arxiv.org/abs/1706.03762; Ainslie et al., 2023,
    https://arxiv.org/abs/2305.13245.
    """
    raise NotImplementedError


@dataclass(frozen=True)
class Partial:
    """What attention to some of the keys comes to: enough to merge it with attention to others."""

    output: Float[Tensor, "batch heads queries head_dim"]
    """The mean of these keys' values, weighted by their softmax; zeros for a query that sees none of the keys."""
    logsumexp: Float[Tensor, "batch heads queries"]
    """The logarithm of the sum of exp(score) over these keys; -inf for a query that sees none of them."""


def partial_attention(
    queries: Float[Tensor, "batch heads queries head_dim"],
    keys: Float[Tensor, "batch kv_heads keys head_dim"],
    values: Float[Tensor, "batch kv_heads keys head_dim"],
    mask: Bool[Tensor, "batch queries keys"],
) -> Partial:
    """Attend to these keys alone; there may be none. Scores are q · k / sqrt(head_dim).

    `output` is float32 too where the inputs are in half precision. Raises ValueError unless heads is a multiple of
    kv_heads.
    """
    raise NotImplementedError


def merge(first: Partial, second: Partial) -> Partial:
    """Return the partial result over the keys of both, which share none.

    Paper: Milakov and Gimelshein, 2018, https://arxiv.org/abs/1805.02867.
    """
    raise NotImplementedError


def tiled_attention(
    queries: Float[Tensor, "batch heads queries head_dim"],
    keys: Float[Tensor, "batch kv_heads keys head_dim"],
    values: Float[Tensor, "batch kv_heads keys head_dim"],
    mask: Bool[Tensor, "batch queries keys"],
    *,
    query_tile: int,
    key_tile: int,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """Compute what `grouped_query_attention` does, with scores of `query_tile` by `key_tile` positions at a time.

    Only the last tile may be smaller. No more than a few tiles of scores are held at once. Raises ValueError unless
    both sizes are at least 1.

    Paper: Dao et al., 2022, https://arxiv.org/abs/2205.14135.
    """
    raise NotImplementedError


def sliding_window_mask(
    query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"], window: int
) -> Bool[Tensor, "batch queries keys"]:
    """Let each query see the last `window` positions, its own among them. A position of -1 sees and is seen by none.

    Raises ValueError unless window >= 1. Paper: Beltagy et al., 2020, https://arxiv.org/abs/2004.05150.
    """
    raise NotImplementedError


class SlidingWindowCache:
    """Keeps the last `window` positions of each row, in a ring buffer.

    The course's transformer takes it as `cache`. Its mask is causal and knows no window: it stays within one where
    positions come one by one; with several new ones at once, whoever attends makes the banded mask.
    """

    def __init__(self, window: int):
        """Begin empty. Raises ValueError unless window >= 1."""
        raise NotImplementedError

    def update(
        self,
        layer: int,
        keys: Float[Tensor, "batch kv_heads new head_dim"],
        values: Float[Tensor, "batch kv_heads new head_dim"],
        positions: Int[Tensor, "batch new"],
    ) -> tuple[
        Float[Tensor, "batch kv_heads keys head_dim"],
        Float[Tensor, "batch kv_heads keys head_dim"],
        Int[Tensor, "batch keys"],
    ]:
        """Add a layer's new positions, and return keys, values and positions that their queries may look at.

        Positions of a row ascend, without gaps from 0, within a call and from call to call; -1 marks padding, in new
        positions as in returned ones. Every position within the window of a new position is returned; rows may differ
        in length, and what is returned may be in any order. At most `window` slots are kept between calls, so at most
        window + new of them are returned, and at most `window` when one position is new.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LinearState:
    """All that linear attention remembers of the keys and values so far."""

    memory: Float[Tensor, "batch heads head_dim value_dim"]
    """The sum of the outer products phi(k) v^T."""
    normalizer: Float[Tensor, "batch heads head_dim"]
    """The sum of phi(k)."""


def linear_attention(
    queries: Float[Tensor, "batch heads length head_dim"],
    keys: Float[Tensor, "batch heads length head_dim"],
    values: Float[Tensor, "batch heads length value_dim"],
) -> Float[Tensor, "batch heads length value_dim"]:
    """Compute causal linear attention in parallel form, all pairs of positions at once.

    The weight of position s for position t >= s is phi(q_t) · phi(k_s), over the sum of these; phi(x) = elu(x) + 1.

    Paper: Katharopoulos et al., 2020, https://arxiv.org/abs/2006.16236.
    """
    raise NotImplementedError


def linear_attention_recurrent(
    queries: Float[Tensor, "batch heads length head_dim"],
    keys: Float[Tensor, "batch heads length head_dim"],
    values: Float[Tensor, "batch heads length value_dim"],
    state: LinearState | None = None,
) -> tuple[Float[Tensor, "batch heads length value_dim"], LinearState]:
    """Compute `linear_attention` position by position, and return the state after the last one too.

    `state` is that after the positions before these; None is the beginning.
    """
    raise NotImplementedError


def linear_attention_chunked(
    queries: Float[Tensor, "batch heads length head_dim"],
    keys: Float[Tensor, "batch heads length head_dim"],
    values: Float[Tensor, "batch heads length value_dim"],
    state: LinearState | None = None,
    *,
    chunk_size: int,
) -> tuple[Float[Tensor, "batch heads length value_dim"], LinearState]:
    """Compute `linear_attention_recurrent` in chunks: parallel form within a chunk, the state from chunk to chunk.

    Only the last chunk may be smaller. Raises ValueError unless chunk_size >= 1.

    Paper: Yang et al., 2024, https://arxiv.org/abs/2312.06635.
    """
    raise NotImplementedError


def selective_scan(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    a: Float[Tensor, "channels state"],
    b: Float[Tensor, "batch length state"],
    c: Float[Tensor, "batch length state"],
    state: Float[Tensor, "batch channels state"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"]]:
    """Run a selective state-space model position by position; return its outputs y and its last state h.

    Each channel has a state of its own: h_t = exp(delta_t a) * h_(t-1) + delta_t x_t b_t and y_t = c_t · h_t. `delta`
    is positive, `a` negative. `state` is h before the first position; None is zero.

    Paper: Gu and Dao, 2023, https://arxiv.org/abs/2312.00752.
    """
    raise NotImplementedError


def associative_scan(combine: Callable[[Elements, Elements], Elements], elements: Elements) -> Elements:
    """Return e_1, e_1 ∘ e_2, e_1 ∘ e_2 ∘ e_3, ... along dimension 1, in logarithmically many steps.

    Elements are tuples of tensors of the same length in dimension 1. `combine(left, right)` gives left ∘ right,
    elementwise in dimension 1 for pieces of any equal length of at least 1. It is associative, but not commutative. It
    is called at most 2 ⌈log2 length⌉ times.

    Papers: Hillis and Steele, 1986, https://doi.org/10.1145/7902.7903; Blelloch, 1990.
    """
    raise NotImplementedError


def selective_scan_parallel(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    a: Float[Tensor, "channels state"],
    b: Float[Tensor, "batch length state"],
    c: Float[Tensor, "batch length state"],
    state: Float[Tensor, "batch channels state"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"]]:
    """Compute `selective_scan` with an associative scan over all positions."""
    raise NotImplementedError


def selective_scan_chunked(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    a: Float[Tensor, "channels state"],
    b: Float[Tensor, "batch length state"],
    c: Float[Tensor, "batch length state"],
    state: Float[Tensor, "batch channels state"] | None = None,
    *,
    chunk_size: int,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"]]:
    """Compute `selective_scan` in chunks: in parallel within a chunk, the state from chunk to chunk.

    Only the last chunk may be smaller. Raises ValueError unless chunk_size >= 1.
    """
    raise NotImplementedError
