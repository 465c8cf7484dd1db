"""Attention in all its forms: dense, in tiles, in a sliding window, and without a softmax.

Keys and values may have fewer heads than queries: query head h reads head h // (heads / kv_heads). A mask is True where
a query sees a key; a query that sees no key gets zeros. Results have the dtype of the queries (of x in a selective
scan). Inside, half precision is computed in float32; log-sum-exps and states are float32, or float64 for float64
inputs. No function changes its arguments.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import elu

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
    return partial_attention(queries, keys, values, mask).output.to(queries.dtype)


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
    heads, kv_heads = queries.shape[1], keys.shape[1]
    if heads % kv_heads:
        raise ValueError(f"expected the {heads} heads of queries to be a multiple of those of keys, got {kv_heads}")
    grouped, keys, values = (_precise(x) for x in (queries.unflatten(1, (kv_heads, -1)), keys, values))
    scores = grouped @ keys[:, :, None].mT / math.sqrt(queries.shape[-1])
    scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    total = scores.logsumexp(-1)
    # Where nothing is seen, exp(-inf - 0) is the 0 that is wanted; exp(-inf + inf) is none.
    weights = (scores - total.where(total > -torch.inf, 0)[..., None]).exp()
    return Partial((weights @ values[:, :, None]).flatten(1, 2), total.flatten(1, 2))


def merge(first: Partial, second: Partial) -> Partial:
    """Return the partial result over the keys of both, which share none.

    Paper: Milakov and Gimelshein, 2018, https://arxiv.org/abs/1805.02867.
    """
    total = torch.logaddexp(first.logsumexp, second.logsumexp)
    finite = total.where(total > -torch.inf, 0)
    shares = [(partial.logsumexp - finite).exp()[..., None] for partial in (first, second)]
    return Partial(shares[0] * first.output + shares[1] * second.output, total)


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
    if query_tile < 1 or key_tile < 1:
        raise ValueError(f"expected tiles of at least 1 by 1, got {query_tile} by {key_tile}")
    rows = []
    for some, seen in zip(queries.split(query_tile, 2), mask.split(query_tile, 1), strict=True):
        tiles = zip(keys.split(key_tile, 2), values.split(key_tile, 2), seen.split(key_tile, 2), strict=True)
        merged: Partial | None = None
        for tile in tiles:
            partial = partial_attention(some, *tile)
            merged = merge(merged, partial) if merged else partial
        assert merged is not None  # split gives one tile of nothing where there are no keys
        rows.append(merged.output.to(queries.dtype))
    return torch.cat(rows, dim=2)


def sliding_window_mask(
    query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"], window: int
) -> Bool[Tensor, "batch queries keys"]:
    """Let each query see the last `window` positions, its own among them. A position of -1 sees and is seen by none.

    Raises ValueError unless window >= 1. Paper: Beltagy et al., 2020, https://arxiv.org/abs/2004.05150.
    """
    if window < 1:
        raise ValueError(f"expected window >= 1, got {window}")
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    return (distance >= 0) & (distance < window) & (key_positions >= 0)[:, None, :]


class SlidingWindowCache:
    """Keeps the last `window` positions of each row, in a ring buffer.

    The course's transformer takes it as `cache`. Its mask is causal and knows no window: it stays within one where
    positions come one by one; with several new ones at once, whoever attends makes the banded mask.
    """

    def __init__(self, window: int):
        """Begin empty. Raises ValueError unless window >= 1."""
        if window < 1:
            raise ValueError(f"expected window >= 1, got {window}")
        self.window = window
        self._rings: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # keys, values and positions of each layer

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
        if layer not in self._rings:
            slots = (*keys.shape[:2], self.window, keys.shape[3])
            empty = positions.new_full((len(keys), self.window), -1)
            self._rings[layer] = keys.new_zeros(slots), values.new_zeros(slots), empty
        ring, new = self._rings[layer], (keys, values, positions)
        if keys.shape[2] > 1:  # earlier queries of these still look at what the later ones overwrite
            both = [torch.cat(pair, dim) for pair, dim in zip(zip(ring, new, strict=True), (2, 2, 1), strict=True)]
        latest = positions.amax(1, keepdim=True)
        row, column = ((positions >= 0) & (positions > latest - self.window)).nonzero(as_tuple=True)
        slot = positions[row, column] % self.window
        ring[0][row, :, slot] = keys[row, :, column]
        ring[1][row, :, slot] = values[row, :, column]
        ring[2][row, slot] = positions[row, column]
        result = both if keys.shape[2] > 1 else [part.clone() for part in ring]
        return result[0], result[1], result[2]


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
    weights = (_phi(queries) @ _phi(keys).mT).tril()
    return (weights @ _precise(values) / weights.sum(-1, keepdim=True)).to(queries.dtype)


def linear_attention_recurrent(
    queries: Float[Tensor, "batch heads length head_dim"],
    keys: Float[Tensor, "batch heads length head_dim"],
    values: Float[Tensor, "batch heads length value_dim"],
    state: LinearState | None = None,
) -> tuple[Float[Tensor, "batch heads length value_dim"], LinearState]:
    """Compute `linear_attention` position by position, and return the state after the last one too.

    `state` is that after the positions before these; None is the beginning.
    """
    return linear_attention_chunked(queries, keys, values, state, chunk_size=1)


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
    if chunk_size < 1:
        raise ValueError(f"expected chunk_size >= 1, got {chunk_size}")
    phi_queries, phi_keys, precise = _phi(queries), _phi(keys), _precise(values)
    if state is None:
        batch, heads, _, head_dim = keys.shape
        memory = precise.new_zeros(batch, heads, head_dim, values.shape[-1])
        state = LinearState(memory, memory.new_zeros(batch, heads, head_dim))
    outputs = []
    for q, k, v in zip(*(x.split(chunk_size, 2) for x in (phi_queries, phi_keys, precise)), strict=True):
        weights = (q @ k.mT).tril()
        mixed = weights @ v + q @ state.memory
        total = weights.sum(-1, keepdim=True) + q @ state.normalizer[..., None]
        outputs.append(mixed / total)
        state = LinearState(state.memory + k.mT @ v, state.normalizer + k.sum(2))
    return torch.cat(outputs, dim=2).to(queries.dtype), state


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
    decay, drive = _discretised(x, delta, a, b)
    h = torch.zeros_like(drive[:, 0]) if state is None else state
    outputs = []
    for t in range(x.shape[1]):
        h = decay[:, t] * h + drive[:, t]
        outputs.append(h @ _precise(c)[:, t, :, None])
    return torch.cat(outputs, dim=-1).mT.to(x.dtype), h


def associative_scan(combine: Callable[[Elements, Elements], Elements], elements: Elements) -> Elements:
    """Return e_1, e_1 ∘ e_2, e_1 ∘ e_2 ∘ e_3, ... along dimension 1, in logarithmically many steps.

    Elements are tuples of tensors of the same length in dimension 1. `combine(left, right)` gives left ∘ right,
    elementwise in dimension 1 for pieces of any equal length of at least 1. It is associative, but not commutative. It
    is called at most 2 ⌈log2 length⌉ times.

    Papers: Hillis and Steele, 1986, https://doi.org/10.1145/7902.7903; Blelloch, 1990.
    """
    length, distance = elements[0].shape[1], 1
    while distance < length:
        summed = combine(tuple(e[:, :-distance] for e in elements), tuple(e[:, distance:] for e in elements))
        elements = tuple(torch.cat([e[:, :distance], s], dim=1) for e, s in zip(elements, summed, strict=True))
        distance *= 2
    return elements


def selective_scan_parallel(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    a: Float[Tensor, "channels state"],
    b: Float[Tensor, "batch length state"],
    c: Float[Tensor, "batch length state"],
    state: Float[Tensor, "batch channels state"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"]]:
    """Compute `selective_scan` with an associative scan over all positions."""
    decay, drive = _discretised(x, delta, a, b)
    if state is not None:
        drive[:, 0] += decay[:, 0] * state
    _, h = associative_scan(lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1]), (decay, drive))
    return (h @ _precise(c)[..., None])[..., 0].to(x.dtype), h[:, -1]


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
    if chunk_size < 1:
        raise ValueError(f"expected chunk_size >= 1, got {chunk_size}")
    outputs = []
    for x_t, delta_t, b_t, c_t in zip(*(part.split(chunk_size, 1) for part in (x, delta, b, c)), strict=True):
        y, state = selective_scan_parallel(x_t, delta_t, a, b_t, c_t, state)
        outputs.append(y)
    assert state is not None
    return torch.cat(outputs, dim=1), state


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _phi(x: Tensor) -> Tensor:
    return elu(_precise(x)) + 1


def _discretised(x: Tensor, delta: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp(delta_t a) and delta_t x_t b_t, each (batch, length, channels, state)."""
    x, delta, a, b = (_precise(part) for part in (x, delta, a, b))
    return (delta[..., None] * a).exp(), (delta * x)[..., None] * b[:, :, None]
