"""A second correct solution of hw3.attention: loops over heads, rings as lists, the parallel scan by halves."""

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
    """Go head by head, with matrices only."""
    rows, heads, count, size = queries.shape
    if heads % keys.shape[1]:
        raise ValueError(f"{heads} heads of queries over {keys.shape[1]} of keys")
    wide = torch.promote_types(queries.dtype, torch.float32)
    output = torch.zeros(rows, heads, count, values.shape[-1], dtype=wide)
    for row in range(rows):
        for head in range(heads):
            kv = head * keys.shape[1] // heads
            scores = queries[row, head].to(wide) @ keys[row, kv].to(wide).T * size**-0.5
            scores[~mask[row]] = -torch.inf
            seen = mask[row].any(1)
            output[row, head, seen] = scores[seen].softmax(1) @ values[row, kv].to(wide)
    return output.to(queries.dtype)


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
    """Subtract the largest score, or 0 where there is none."""
    group, left = divmod(queries.shape[1], keys.shape[1])
    if left:
        raise ValueError(f"{queries.shape[1]} heads of queries over {keys.shape[1]} of keys")
    wide = torch.promote_types(queries.dtype, torch.float32)
    keys, values = (x.to(wide).repeat_interleave(group, dim=1) for x in (keys, values))
    scores = torch.einsum("bhqd,bhkd->bhqk", queries.to(wide), keys) / math.sqrt(queries.shape[-1])
    scores = torch.where(mask[:, None], scores, -torch.inf)
    if scores.shape[-1] == 0:
        return Partial(torch.zeros(*scores.shape[:3], values.shape[-1], dtype=wide), scores.sum(-1) - torch.inf)
    largest = scores.amax(-1, keepdim=True)
    largest = torch.where(largest == -torch.inf, torch.zeros_like(largest), largest)
    weights = torch.exp(scores - largest)
    total = weights.sum(-1, keepdim=True)
    return Partial((weights @ values) / total.clamp_min(torch.finfo(wide).tiny), (total.log() + largest)[..., 0])


def merge(first: Partial, second: Partial) -> Partial:
    """Weigh with a softmax over the two log-sum-exps."""
    both = torch.stack([first.logsumexp, second.logsumexp])
    shares = both.softmax(0).nan_to_num(0.0)[..., None]
    return Partial(shares[0] * first.output + shares[1] * second.output, both.logsumexp(0))


def tiled_attention(
    queries: Float[Tensor, "batch heads queries head_dim"],
    keys: Float[Tensor, "batch kv_heads keys head_dim"],
    values: Float[Tensor, "batch kv_heads keys head_dim"],
    mask: Bool[Tensor, "batch queries keys"],
    *,
    query_tile: int,
    key_tile: int,
) -> Float[Tensor, "batch heads queries head_dim"]:
    """Keep a running maximum, denominator and numerator, as FlashAttention is usually written."""
    if min(query_tile, key_tile) < 1:
        raise ValueError("a tile has at least one position")
    wide = torch.promote_types(queries.dtype, torch.float32)
    group = queries.shape[1] // keys.shape[1]
    output = torch.empty(*queries.shape[:3], values.shape[-1], dtype=queries.dtype)
    for q in range(0, queries.shape[2], query_tile):
        block = queries[:, :, q : q + query_tile].to(wide) / math.sqrt(queries.shape[-1])
        largest = torch.full(block.shape[:3], -torch.inf, dtype=wide)
        total, mixed = torch.zeros_like(largest), torch.zeros(*block.shape[:3], values.shape[-1], dtype=wide)
        for k in range(0, keys.shape[2], key_tile):
            some_keys, some_values = (
                x[:, :, k : k + key_tile].to(wide).repeat_interleave(group, 1) for x in (keys, values)
            )
            shown = mask[:, None, q : q + query_tile, k : k + key_tile]
            scores = (block @ some_keys.mT).masked_fill(~shown, -torch.inf)
            new = torch.maximum(largest, scores.amax(-1))
            safe = new.masked_fill(new == -torch.inf, 0)
            weights, rescale = torch.exp(scores - safe[..., None]), torch.exp(largest - safe)
            total = total * rescale + weights.sum(-1)
            mixed = mixed * rescale[..., None] + weights @ some_values
            largest = new
        output[:, :, q : q + query_tile] = torch.where(total[..., None] > 0, mixed / total[..., None], 0)
    return output


def sliding_window_mask(
    query_positions: Int[Tensor, "batch queries"], key_positions: Int[Tensor, "batch keys"], window: int
) -> Bool[Tensor, "batch queries keys"]:
    """Compare bounds."""
    if window <= 0:
        raise ValueError("a window has at least one position")
    queries, keys = query_positions.unsqueeze(2), key_positions.unsqueeze(1)
    return (keys <= queries) & (keys > queries - window) & (keys != -1)


class SlidingWindowCache:
    """A cache of the course's transformer that keeps the last `window` positions of each row, in a ring buffer."""

    def __init__(self, window: int):
        """Keep a dictionary of positions for every layer and row."""
        if window < 1:
            raise ValueError("a window has at least one position")
        self.window = window
        self.layers: dict[int, list[dict[int, tuple[Tensor, Tensor]]]] = {}

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
        """Answer with everything held, then forget what is too old."""
        held = self.layers.setdefault(layer, [{} for _ in keys])
        single = positions.shape[1] == 1
        for row, slots in enumerate(held):
            for column, position in enumerate(positions[row].tolist()):
                if position >= 0:
                    slots[position] = keys[row, :, column].clone(), values[row, :, column].clone()
            if single:
                self._forget(slots)
        width = max(map(len, held))
        seen = torch.full((len(held), width), -1)
        out = (
            keys.new_zeros(len(held), keys.shape[1], width, keys.shape[3]),
            values.new_zeros(len(held), keys.shape[1], width, values.shape[3]),
        )
        for row, slots in enumerate(held):
            for i, (position, (key, value)) in enumerate(slots.items()):
                seen[row, i], out[0][row, :, i], out[1][row, :, i] = position, key, value
            self._forget(slots)
        return out[0], out[1], seen

    def _forget(self, slots: dict[int, tuple[Tensor, Tensor]]) -> None:
        for position in [p for p in slots if p <= max(slots) - self.window]:
            del slots[position]


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
    """Compute with an explicit causal mask."""
    wide = torch.promote_types(queries.dtype, torch.float32)
    q, k = (torch.where(x > 0, x + 1, torch.exp(x)) for x in (queries.to(wide), keys.to(wide)))
    length = queries.shape[2]
    causal = torch.arange(length)[:, None] >= torch.arange(length)
    weights = torch.einsum("bhtd,bhsd->bhts", q, k) * causal
    weights = weights / weights.sum(3, keepdim=True)
    return torch.einsum("bhts,bhsv->bhtv", weights, values.to(wide)).to(queries.dtype)


def linear_attention_recurrent(
    queries: Float[Tensor, "batch heads length head_dim"],
    keys: Float[Tensor, "batch heads length head_dim"],
    values: Float[Tensor, "batch heads length value_dim"],
    state: LinearState | None = None,
) -> tuple[Float[Tensor, "batch heads length value_dim"], LinearState]:
    """Update both sums, then read."""
    wide = torch.promote_types(queries.dtype, torch.float32)
    q, k = (torch.where(x > 0, x + 1, torch.exp(x)) for x in (queries.to(wide), keys.to(wide)))
    v = values.to(wide)
    if state is None:
        memory = torch.zeros(*k.shape[:2], k.shape[3], v.shape[3], dtype=wide)
        normalizer = torch.zeros(*k.shape[:2], k.shape[3], dtype=wide)
    else:
        memory, normalizer = state.memory.clone(), state.normalizer.clone()
    output = torch.empty_like(v)
    for t in range(v.shape[2]):
        memory += k[:, :, t, :, None] * v[:, :, t, None, :]
        normalizer += k[:, :, t]
        output[:, :, t] = torch.einsum("bhd,bhdv->bhv", q[:, :, t], memory) / (q[:, :, t] * normalizer).sum(
            -1, keepdim=True
        )
    return output.to(queries.dtype), LinearState(memory, normalizer)


def linear_attention_chunked(
    queries: Float[Tensor, "batch heads length head_dim"],
    keys: Float[Tensor, "batch heads length head_dim"],
    values: Float[Tensor, "batch heads length value_dim"],
    state: LinearState | None = None,
    *,
    chunk_size: int,
) -> tuple[Float[Tensor, "batch heads length value_dim"], LinearState]:
    """Append a column of ones to the values: the denominator is the output for it."""
    if chunk_size < 1:
        raise ValueError("a chunk has at least one position")
    wide = torch.promote_types(queries.dtype, torch.float32)
    q, k = (torch.where(x > 0, x + 1, torch.exp(x)) for x in (queries.to(wide), keys.to(wide)))
    v = torch.cat([values.to(wide), torch.ones(*values.shape[:3], 1, dtype=wide)], dim=3)
    sums = torch.zeros(*k.shape[:2], k.shape[3], v.shape[3], dtype=wide)
    if state is not None:
        sums = torch.cat([state.memory, state.normalizer[..., None]], dim=3)
    mixed = torch.empty_like(v)
    for start in range(0, v.shape[2], chunk_size):
        part = slice(start, start + chunk_size)
        inside = torch.tril(q[:, :, part] @ k[:, :, part].mT) @ v[:, :, part]
        mixed[:, :, part] = inside + q[:, :, part] @ sums
        sums = sums + k[:, :, part].mT @ v[:, :, part]
    output = mixed[..., :-1] / mixed[..., -1:]
    return output.to(queries.dtype), LinearState(sums[..., :-1], sums[..., -1])


def selective_scan(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    a: Float[Tensor, "channels state"],
    b: Float[Tensor, "batch length state"],
    c: Float[Tensor, "batch length state"],
    state: Float[Tensor, "batch channels state"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"]]:
    """Go channel by channel."""
    wide = torch.promote_types(x.dtype, torch.float32)
    u, step, rate, write, read = (part.to(wide) for part in (x, delta, a, b, c))
    h = torch.zeros(x.shape[0], *a.shape, dtype=wide) if state is None else state.to(wide).clone()
    y = torch.empty_like(u)
    for t in range(x.shape[1]):
        for channel in range(x.shape[2]):
            scale = step[:, t, channel, None]
            h[:, channel] = (
                torch.exp(scale * rate[channel]) * h[:, channel] + scale * u[:, t, channel, None] * write[:, t]
            )
        y[:, t] = (h * read[:, t, None]).sum(-1)
    return y.to(x.dtype), h


def associative_scan(combine: Callable[[Elements, Elements], Elements], elements: Elements) -> Elements:
    """Pair neighbours, scan the pairs, and fill in the positions between (Blelloch)."""
    length = elements[0].shape[1]
    if length < 2:
        return tuple(e.clone() for e in elements)
    even, odd = (tuple(e[:, i : length - length % 2 : 2] for e in elements) for i in (0, 1))
    pairs = associative_scan(combine, combine(even, odd))
    result = tuple(e.clone() for e in elements)
    for target, pair in zip(result, pairs, strict=True):
        target[:, 1::2] = pair
    if length > 2:
        between = tuple(e[:, 2::2] for e in elements)
        before = tuple(pair[:, : between[0].shape[1]] for pair in pairs)
        for target, filled in zip(result, combine(before, between), strict=True):
            target[:, 2::2] = filled
    return result


def selective_scan_parallel(
    x: Float[Tensor, "batch length channels"],
    delta: Float[Tensor, "batch length channels"],
    a: Float[Tensor, "channels state"],
    b: Float[Tensor, "batch length state"],
    c: Float[Tensor, "batch length state"],
    state: Float[Tensor, "batch channels state"] | None = None,
) -> tuple[Float[Tensor, "batch length channels"], Float[Tensor, "batch channels state"]]:
    """Put the first state in front as an element of its own."""
    wide = torch.promote_types(x.dtype, torch.float32)
    u, step, rate, write, read = (part.to(wide) for part in (x, delta, a, b, c))
    decay = torch.exp(torch.einsum("btc,cs->btcs", step, rate))
    drive = torch.einsum("btc,bts->btcs", step * u, write)
    begin = torch.zeros_like(drive[:, :1]) if state is None else state.to(wide)[:, None]
    decay, drive = torch.cat([torch.ones_like(begin), decay], dim=1), torch.cat([begin, drive], dim=1)
    states = associative_scan(lambda p, q: (p[0] * q[0], torch.addcmul(q[1], q[0], p[1])), (decay, drive))[1]
    return torch.einsum("btcs,bts->btc", states[:, 1:], read).to(x.dtype), states[:, -1]


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
    """Alternate between slices and the state."""
    if chunk_size <= 0:
        raise ValueError("a chunk has at least one position")
    y, h = torch.empty_like(x), state
    for start in range(0, x.shape[1], chunk_size):
        part = slice(start, start + chunk_size)
        y[:, part], h = selective_scan_parallel(x[:, part], delta[:, part], a, b[:, part], c[:, part], h)
    assert h is not None
    return y, h
