"""Another correct solution of hw3.costs: a list of the matrices of a layer, and searches in the place of formulas."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """The shape of a model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool
    qk_norm: bool


@dataclass(frozen=True)
class Hardware:
    """A device."""

    name: str
    flops_per_second: float
    bytes_per_second: float
    memory_bytes: int


@dataclass(frozen=True)
class LayerFlops:
    """FLOPs of a layer."""

    projections: int
    attention: int
    mlp: int


def _matrices(shape):
    """Return (rows, columns) of the matrices of a layer's attention and of its MLP."""
    hidden, wide = shape.hidden_size, shape.intermediate_size
    heads = [shape.num_attention_heads, shape.num_key_value_heads, shape.num_key_value_heads]
    attention = [(hidden, count * shape.head_dim) for count in heads]
    attention.append((shape.num_attention_heads * shape.head_dim, hidden))
    return attention, [(hidden, wide), (hidden, wide), (wide, hidden)]


def _entries(matrices):
    return sum(rows * columns for rows, columns in matrices)


def parameter_count(shape):
    """Add the sizes of all weights up."""
    sizes = [shape.vocab_size * shape.hidden_size]
    if not shape.tie_word_embeddings:
        sizes.append(shape.vocab_size * shape.hidden_size)
    for _ in range(shape.num_hidden_layers):
        sizes += [rows * columns for part in _matrices(shape) for rows, columns in part]
        sizes += [shape.hidden_size] * 2
        if shape.qk_norm:
            sizes += [shape.head_dim] * 2
    return sum([*sizes, shape.hidden_size])


def layer_flops(shape, new_tokens, past_tokens=0):
    """Multiply matrix by matrix, and head by head."""
    attention, mlp = _matrices(shape)
    a_head = sum(
        2 * rows * inner * columns
        for rows, inner, columns in (
            (new_tokens, shape.head_dim, past_tokens + new_tokens),
            (new_tokens, past_tokens + new_tokens, shape.head_dim),
        )
    )
    return LayerFlops(
        2 * new_tokens * _entries(attention), shape.num_attention_heads * a_head, 2 * new_tokens * _entries(mlp)
    )


def forward_flops(shape, new_tokens, past_tokens=0, *, batch_size=1, num_logits=None):
    """Add layer after layer."""
    if num_logits is None:
        num_logits = new_tokens
    total = num_logits * 2 * shape.vocab_size * shape.hidden_size
    for _ in range(shape.num_hidden_layers):
        layer = layer_flops(shape, new_tokens, past_tokens)
        total += layer.projections + layer.attention + layer.mlp
    return total * batch_size


def _first(holds, most):
    """Return the least number from 1 to most for which it holds, and goes on to hold."""
    least = 1
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if holds(middle) else (middle + 1, most)
    return least


def crossover_length(shape):
    """Search by halves."""

    def overtaken(length):
        flops = layer_flops(shape, length)
        return flops.attention >= flops.projections + flops.mlp

    return _first(overtaken, 1 << 40)


def weight_bytes(shape, bits=16):
    """Fill bytes."""
    whole, rest = divmod(parameter_count(shape) * bits, 8)
    return whole + bool(rest)


def kv_cache_bytes(shape, length, *, batch_size=1, bits=16):
    """Multiply the shape of a cache."""
    size = bits
    for extent in (2, batch_size, shape.num_hidden_layers, shape.num_key_value_heads, length, shape.head_dim):
        size *= extent
    return size // 8


def largest_batch(shape, memory_bytes, length, *, weight_bits=16, kv_bits=16):
    """Search the first batch that does not fit."""
    if length < 1:
        raise ValueError(f"expected a length of 1 or more, got {length}")
    weights = weight_bytes(shape, weight_bits)
    return (
        _first(
            lambda batch: weights + kv_cache_bytes(shape, length, batch_size=batch, bits=kv_bits) > memory_bytes,
            1 << 50,
        )
        - 1
    )


def longest_context(shape, memory_bytes, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Search the first length at which the batch does not fit."""
    if batch_size < 1:
        raise ValueError(f"expected a batch of 1 or more, got {batch_size}")
    short = _first(
        lambda length: (
            batch_size > largest_batch(shape, memory_bytes, length, weight_bits=weight_bits, kv_bits=kv_bits)
        ),
        1 << 50,
    )
    return short - 1


def forward_bytes(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Add reading and writing."""
    read = kv_cache_bytes(shape, past_tokens, batch_size=batch_size, bits=kv_bits)
    written = kv_cache_bytes(shape, new_tokens, batch_size=batch_size, bits=kv_bits)
    return read + written + weight_bytes(shape, weight_bits)


def _work(shape, new_tokens, past_tokens, batch_size, weight_bits, kv_bits):
    flops = batch_size * forward_flops(shape, new_tokens, past_tokens, num_logits=1)
    return flops, forward_bytes(
        shape, new_tokens, past_tokens, batch_size=batch_size, weight_bits=weight_bits, kv_bits=kv_bits
    )


def arithmetic_intensity(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Divide."""
    flops, traffic = _work(shape, new_tokens, past_tokens, batch_size, weight_bits, kv_bits)
    return flops / traffic


def roofline_seconds(flops, bytes_moved, hardware):
    """Divide the work by what the roofline permits at its intensity."""
    if bytes_moved == 0:
        return flops / hardware.flops_per_second
    if flops == 0:
        return bytes_moved / hardware.bytes_per_second
    attainable = min(hardware.flops_per_second, flops / bytes_moved * hardware.bytes_per_second)
    return flops / attainable


def prefill_seconds(shape, hardware, prompt_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Put the whole prompt through."""
    return roofline_seconds(*_work(shape, prompt_tokens, 0, batch_size, weight_bits, kv_bits), hardware)


def decode_seconds(shape, hardware, past_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Put a token through."""
    return roofline_seconds(*_work(shape, 1, past_tokens, batch_size, weight_bits, kv_bits), hardware)


def compute_bound_batch(shape, hardware, past_tokens, *, weight_bits=16, kv_bits=16):
    """Search the first batch beyond the ridge."""

    def bound_by_arithmetic(batch):
        flops, traffic = _work(shape, 1, past_tokens, batch, weight_bits, kv_bits)
        return flops * hardware.bytes_per_second >= traffic * hardware.flops_per_second

    found = _first(bound_by_arithmetic, 1 << 40)
    return found if found < 1 << 40 else None
