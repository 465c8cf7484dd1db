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
    dtype = _working_dtype(queries, keys, values)
    batch, heads, count, head_dim = queries.shape
    kv_heads = keys.shape[1]
    _check_heads(heads, kv_heads)
    grouped = queries.to(dtype).reshape(batch, kv_heads, heads // kv_heads, count, head_dim)
    scores = grouped @ keys.to(dtype)[:, :, None].mT / math.sqrt(head_dim)
    scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
    logsumexp = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - _finite(logsumexp)[..., None])
    output = weights @ values.to(dtype)[:, :, None]
    return Partial(output.flatten(1, 2), logsumexp.flatten(1, 2))


def merge(first: Partial, second: Partial) -> Partial:
    """Return the partial result over the keys of both, which share none.

    Paper: Milakov and Gimelshein, 2018, https://arxiv.org/abs/1805.02867.
    """
    logsumexp = torch.logaddexp(first.logsumexp, second.logsumexp)
    total = _finite(logsumexp)
    weights = [torch.exp(part.logsumexp - total)[..., None] for part in (first, second)]
    return Partial(weights[0] * first.output + weights[1] * second.output, logsumexp)


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
        raise ValueError(f"expected tiles of at least one position, got {query_tile} queries by {key_tile} keys")
    batch, heads, count, _ = queries.shape
    _check_heads(heads, keys.shape[1])
    dtype = _working_dtype(queries, keys, values)
    output = queries.new_zeros(batch, heads, count, values.shape[3])
    for begin in range(0, count, query_tile):
        rows = slice(begin, begin + query_tile)
        tile = queries[:, :, rows]
        running = Partial(
            output=torch.zeros(*tile.shape[:3], values.shape[3], dtype=dtype, device=tile.device),
            logsumexp=torch.full(tile.shape[:3], -torch.inf, dtype=dtype, device=tile.device),
        )
        for start in range(0, keys.shape[2], key_tile):
            columns = slice(start, start + key_tile)
            part = partial_attention(tile, keys[:, :, columns], values[:, :, columns], mask[:, rows, columns])
            running = merge(running, part)
        output[:, :, rows] = running.output
    return output


def sliding_window_mask(
    query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"], window: int
) -> Bool[Tensor, "batch queries keys"]:
    """Let each query see the last `window` positions, its own among them. A position of -1 sees and is seen by none.

    Raises ValueError unless window >= 1. Paper: Beltagy et al., 2020, https://arxiv.org/abs/2004.05150.
    """
    _check_at_least_one("window", window)
    query, key = query_positions[:, :, None], key_positions[:, None, :]
    return (query >= 0) & (key >= 0) & (key <= query) & (key > query - window)


class SlidingWindowCache:
    """A cache of the course's transformer that keeps the last `window` positions of each row, in a ring buffer."""

    def __init__(self, window: int):
        """Begin empty. Raises ValueError unless window >= 1."""
        _check_at_least_one("window", window)
        self.window = window
        self._layers: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

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
        window = self.window
        if layer not in self._layers:
            self._layers[layer] = (
                keys.new_zeros(*keys.shape[:2], window, keys.shape[3]),
                values.new_zeros(*values.shape[:2], window, values.shape[3]),
                positions.new_full((positions.shape[0], window), -1),
            )
        old_keys, old_values, old_positions = self._layers[layer]
        real = positions >= 0
        several = bool((real.sum(1) > 1).any())
        if several:
            # The queries of a chunk look at what was there before it and at the chunk, whichever slots it will take.
            # What no window of the row's new positions reaches any more is left out.
            far = torch.iinfo(positions.dtype).max
            first = positions.masked_fill(~real, far).amin(1, keepdim=True)
            reached = (old_positions > first - window) | (first == far)
            answer = (
                torch.cat([old_keys, keys], dim=2),
                torch.cat([old_values, values], dim=2),
                torch.cat([old_positions.masked_fill(~reached, -1), positions], dim=1),
            )
        if positions.shape[1]:
            # Of a long chunk only the last positions stay, so that no slot is written twice.
            staying = real & (positions > positions.amax(1, keepdim=True) - window)
            rows, columns = staying.nonzero(as_tuple=True)
            kept = positions[rows, columns]
            slots = kept % window
            old_keys[rows, :, slots] = keys[rows, :, columns]
            old_values[rows, :, slots] = values[rows, :, columns]
            old_positions[rows, slots] = kept
        return answer if several else (old_keys.clone(), old_values.clone(), old_positions.clone())


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
    phi_queries, phi_keys, values_ = _features(queries, keys, values)
    weights = (phi_queries @ phi_keys.mT).tril()
    return (weights @ values_ / weights.sum(-1, keepdim=True)).to(queries.dtype)


def linear_attention_recurrent(
    queries: Float[Tensor, "batch heads length head_dim"],
    keys: Float[Tensor, "batch heads length head_dim"],
    values: Float[Tensor, "batch heads length value_dim"],
    state: LinearState | None = None,
) -> tuple[Float[Tensor, "batch heads length value_dim"], LinearState]:
    """Compute `linear_attention` position by position, and return the state after the last one too.

    `state` is that after the positions before these; None is the beginning.
    """
    phi_queries, phi_keys, values_ = _features(queries, keys, values)
    memory, normalizer = _linear_start(phi_keys, values_, state)
    output = torch.empty_like(values_)
    for t in range(values_.shape[2]):
        query, key, value = phi_queries[:, :, t], phi_keys[:, :, t], values_[:, :, t]
        memory = memory + key[..., :, None] * value[..., None, :]
        normalizer = normalizer + key
        mixed = (query[..., None, :] @ memory)[..., 0, :]
        output[:, :, t] = mixed / (query * normalizer).sum(-1, keepdim=True)
    return output.to(queries.dtype), LinearState(memory, normalizer)


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
    _check_at_least_one("chunk_size", chunk_size)
    phi_queries, phi_keys, values_ = _features(queries, keys, values)
    memory, normalizer = _linear_start(phi_keys, values_, state)
    output = torch.empty_like(values_)
    for begin in range(0, values_.shape[2], chunk_size):
        chunk = slice(begin, begin + chunk_size)
        query, key, value = phi_queries[:, :, chunk], phi_keys[:, :, chunk], values_[:, :, chunk]
        weights = (query @ key.mT).tril()
        mixed = weights @ value + query @ memory
        total = weights.sum(-1, keepdim=True) + query @ normalizer[..., None]
        output[:, :, chunk] = mixed / total
        memory = memory + key.mT @ value
        normalizer = normalizer + key.sum(2)
    return output.to(queries.dtype), LinearState(memory, normalizer)


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
    wide = _working_dtype(x, delta, a, b, c)
    inputs, steps, decays, into, out = (tensor.to(wide) for tensor in (x, delta, a, b, c))
    h = _scan_start(inputs, decays, state)
    y = torch.empty_like(inputs)
    for t in range(x.shape[1]):
        step = steps[:, t, :, None]
        h = torch.exp(step * decays) * h + step * inputs[:, t, :, None] * into[:, t, None, :]
        y[:, t] = (h * out[:, t, None, :]).sum(-1)
    return y.to(x.dtype), h


def associative_scan(combine: Callable[[Elements, Elements], Elements], elements: Elements) -> Elements:
    """Return e_1, e_1 ∘ e_2, e_1 ∘ e_2 ∘ e_3, ... along dimension 1, in logarithmically many steps.

    Elements are tuples of tensors of the same length in dimension 1. `combine(left, right)` gives left ∘ right,
    elementwise in dimension 1 for pieces of any equal length of at least 1. It is associative, but not commutative. It
    is called at most 2 ⌈log2 length⌉ times.

    Papers: Hillis and Steele, 1986, https://doi.org/10.1145/7902.7903; Blelloch, 1990.
    """
    scanned = tuple(element.clone() for element in elements)
    length, distance = scanned[0].shape[1], 1
    while distance < length:
        # position t holds the product of up to `distance` elements that end at t; the one before them goes on the left
        left = tuple(element[:, :-distance] for element in scanned)
        right = tuple(element[:, distance:] for element in scanned)
        combined = combine(left, right)
        scanned = tuple(
            torch.cat([element[:, :distance], new], dim=1) for element, new in zip(scanned, combined, strict=True)
        )
        distance *= 2
    return scanned


def selective_scan_parallel(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    a: Float[Tensor, "channels state"],
    b: Float[Tensor, "batch length state"],
    c: Float[Tensor, "batch length state"],
    state: Float[Tensor, "batch channels state"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"]]:
    """Compute `selective_scan` with an associative scan over all positions."""
    wide = _working_dtype(x, delta, a, b, c)
    inputs, steps, decays, into, out = (tensor.to(wide) for tensor in (x, delta, a, b, c))
    start = _scan_start(inputs, decays, state)
    if not x.shape[1]:
        return torch.empty_like(x), start
    decay = torch.exp(steps[..., None] * decays)
    added = (steps * inputs)[..., None] * into[:, :, None, :]
    added[:, 0] += decay[:, 0] * start

    def combine(left: Elements, right: Elements) -> Elements:
        return left[0] * right[0], right[0] * left[1] + right[1]

    _, h = associative_scan(combine, (decay, added))
    y = (h * out[:, :, None, :]).sum(-1)
    return y.to(x.dtype), h[:, -1].clone()


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
    _check_at_least_one("chunk_size", chunk_size)
    wide = _working_dtype(x, delta, a, b, c)
    h = _scan_start(x.to(wide), a.to(wide), state)
    y = torch.empty_like(x)
    for begin in range(0, x.shape[1], chunk_size):
        chunk = slice(begin, begin + chunk_size)
        y[:, chunk], h = selective_scan_parallel(x[:, chunk], delta[:, chunk], a, b[:, chunk], c[:, chunk], h)
    return y, h


def _working_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float32 at least, float64 where an input is."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _finite(logsumexp: Tensor) -> Tensor:
    """Return 0 in place of -inf, so that exp(-inf - it) is 0 and not NaN."""
    return logsumexp.masked_fill(logsumexp == -torch.inf, 0.0)


def _check_heads(heads: int, kv_heads: int) -> None:
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"expected heads to be a multiple of kv_heads, got {heads} heads over {kv_heads}")


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"expected {name} of at least 1, got {value}")


def _features(queries: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return phi of queries and keys, and the values, all in the dtype to compute in."""
    dtype = _working_dtype(queries, keys, values)
    # exp(x) below 0, rather than elu(x) + 1, which is the same but for the digits that -1 + 1 eats
    phi_queries, phi_keys = (
        torch.where(x > 0, x + 1, torch.exp(x.clamp(max=0))) for x in (queries.to(dtype), keys.to(dtype))
    )
    return phi_queries, phi_keys, values.to(dtype)


def _linear_start(keys: Tensor, values: Tensor, state: LinearState | None) -> tuple[Tensor, Tensor]:
    """Return memory and normaliser to begin with."""
    if state is not None:
        return state.memory.to(keys.dtype, copy=True), state.normalizer.to(keys.dtype, copy=True)
    batch, heads, _, head_dim = keys.shape
    return keys.new_zeros(batch, heads, head_dim, values.shape[3]), keys.new_zeros(batch, heads, head_dim)


def _scan_start(x: Tensor, a: Tensor, state: Tensor | None) -> Tensor:
    """Return the state to begin with."""
    return x.new_zeros(x.shape[0], *a.shape) if state is None else state.to(x.dtype, copy=True)
