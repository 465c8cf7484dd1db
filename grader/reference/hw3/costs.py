"""What inference costs: parameters, FLOPs, bytes, and the time that they take at least.

A FLOP is a floating-point operation; a multiplication and the addition after it are two. As in the course's first
lecture, only matrix multiplications count: what normalisations, rotations and activations add is below one per cent.
Sizes are in bytes, times in seconds, and a GB is 10^9 bytes.
"""

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class ModelShape:
    """The shape of a decoder with grouped-query attention and SwiGLU, with the names of a checkpoint's config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    tie_word_embeddings: bool
    """Whether the LM head uses the embedding's matrix."""
    qk_norm: bool
    """Whether queries and keys are normalised, as in Qwen3: two weight vectors of head_dim a layer, shared by heads."""


@dataclass(frozen=True)
class Hardware:
    """What a device can do at best, as its vendor says or as it was measured."""

    name: str
    flops_per_second: float
    """Dense, in the dtype of the activations."""
    bytes_per_second: float
    """Between memory and processor."""
    memory_bytes: int


@dataclass(frozen=True)
class LayerFlops:
    """The FLOPs of one layer by where they arise."""

    projections: int
    """Of queries, keys, values and the attention's output."""
    attention: int
    """Scores and mixing of values: what grows with the square of the context."""
    mlp: int
    """Gate, up and down projection."""


def parameter_count(shape: ModelShape) -> int:
    """Return the number of parameters: matrices without biases, and the weight vectors of all RMSNorms.

    A layer has two RMSNorms of hidden_size, and one follows the last layer. A matrix that is used twice counts once.
    """
    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    projections = shape.hidden_size * (2 * query + 2 * key_value)
    mlp = 3 * shape.hidden_size * shape.intermediate_size
    norms = 2 * shape.hidden_size + (2 * shape.head_dim if shape.qk_norm else 0)
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    return embeddings + shape.num_hidden_layers * (projections + mlp + norms) + shape.hidden_size


def layer_flops(shape: ModelShape, new_tokens: int, past_tokens: int = 0) -> LayerFlops:
    """Return the FLOPs of one layer for `new_tokens` positions of a sequence of which `past_tokens` are in the cache.

    Scores count for every pair of a new position and any position, past or new, also where the causal mask throws them
    away.
    """
    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    return LayerFlops(
        projections=2 * new_tokens * shape.hidden_size * (2 * query + 2 * key_value),
        attention=2 * 2 * new_tokens * (past_tokens + new_tokens) * query,
        mlp=2 * new_tokens * 3 * shape.hidden_size * shape.intermediate_size,
    )


def forward_flops(
    shape: ModelShape, new_tokens: int, past_tokens: int = 0, *, batch_size: int = 1, num_logits: int | None = None
) -> int:
    """Return the FLOPs of a forward pass of `batch_size` sequences: all layers, and the LM head.

    Each sequence has `new_tokens` new positions after `past_tokens` cached ones. The LM head runs at `num_logits` of
    the new positions of each sequence, None stands for all of them. The embedding is a lookup and costs no FLOPs.
    """
    layer = layer_flops(shape, new_tokens, past_tokens)
    logits = new_tokens if num_logits is None else num_logits
    lm_head = 2 * logits * shape.hidden_size * shape.vocab_size
    return batch_size * (shape.num_hidden_layers * (layer.projections + layer.attention + layer.mlp) + lm_head)


def crossover_length(shape: ModelShape) -> int:
    """Return the least length of a prompt at which a layer's attention FLOPs are at least all its other FLOPs."""
    one = layer_flops(shape, 1)
    return -(-(one.projections + one.mlp) // one.attention)


def weight_bytes(shape: ModelShape, bits: int = 16) -> int:
    """Return the memory of all parameters at `bits` bits each, rounded up to whole bytes."""
    return -(-parameter_count(shape) * bits // 8)


def kv_cache_bytes(shape: ModelShape, length: int, *, batch_size: int = 1, bits: int = 16) -> int:
    """Return the memory of the keys and values of `length` positions of each of `batch_size` sequences.

    `bits` is the size of a number: 4, 8, 16 or 32. All heads have an even head_dim, so these are whole bytes.
    """
    numbers = 2 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    return batch_size * length * numbers * bits // 8


def largest_batch(
    shape: ModelShape, memory_bytes: int, length: int, *, weight_bits: int = 16, kv_bits: int = 16
) -> int:
    """Return how many sequences of `length` positions fit into memory beside the weights, 0 if the weights do not.

    Weights and caches are all that counts. Raises ValueError unless length >= 1.
    """
    if length < 1:
        raise ValueError(f"expected a length of at least 1, got {length}")
    left = memory_bytes - weight_bytes(shape, weight_bits)
    return max(0, left) // kv_cache_bytes(shape, length, bits=kv_bits)


def longest_context(
    shape: ModelShape, memory_bytes: int, *, batch_size: int = 1, weight_bits: int = 16, kv_bits: int = 16
) -> int:
    """Return how many positions each of `batch_size` sequences can hold in memory beside the weights, 0 if none.

    Weights and caches are all that counts. Raises ValueError unless batch_size >= 1.
    """
    if batch_size < 1:
        raise ValueError(f"expected a batch size of at least 1, got {batch_size}")
    left = memory_bytes - weight_bytes(shape, weight_bits)
    return max(0, left) // kv_cache_bytes(shape, 1, batch_size=batch_size, bits=kv_bits)


def forward_bytes(
    shape: ModelShape,
    new_tokens: int,
    past_tokens: int = 0,
    *,
    batch_size: int = 1,
    weight_bits: int = 16,
    kv_bits: int = 16,
) -> int:
    """Return the bytes that a forward pass moves between memory and processor.

    All weights are read once for the whole batch; of each sequence, the keys and values of past positions are read and
    those of new positions written. Activations stay in fast memory.
    """
    cache = kv_cache_bytes(shape, past_tokens + new_tokens, batch_size=batch_size, bits=kv_bits)
    return weight_bytes(shape, weight_bits) + cache


def arithmetic_intensity(
    shape: ModelShape,
    new_tokens: int,
    past_tokens: int = 0,
    *,
    batch_size: int = 1,
    weight_bits: int = 16,
    kv_bits: int = 16,
) -> float:
    """Return the FLOPs of a forward pass for each byte it moves, with logits at the last position of each sequence.

    Paper: Williams et al., 2009, "Roofline", https://doi.org/10.1145/1498765.1498785.
    """
    flops = forward_flops(shape, new_tokens, past_tokens, batch_size=batch_size, num_logits=1)
    precision = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    return flops / forward_bytes(shape, new_tokens, past_tokens, batch_size=batch_size, **precision)


def roofline_seconds(flops: float, bytes_moved: float, hardware: Hardware) -> float:
    """Return the least time in which a device computes `flops` and moves `bytes_moved`, both at the same time."""
    return max(flops / hardware.flops_per_second, bytes_moved / hardware.bytes_per_second)


def prefill_seconds(
    shape: ModelShape,
    hardware: Hardware,
    prompt_tokens: int,
    *,
    batch_size: int = 1,
    weight_bits: int = 16,
    kv_bits: int = 16,
) -> float:
    """Return the least time until prompts of `prompt_tokens` are read: one pass, logits at their last positions only.

    Nothing is in the cache before. Numbers of fewer bits save traffic; they do not compute faster.
    """
    flops = forward_flops(shape, prompt_tokens, batch_size=batch_size, num_logits=1)
    precision = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    return roofline_seconds(flops, forward_bytes(shape, prompt_tokens, batch_size=batch_size, **precision), hardware)


def decode_seconds(
    shape: ModelShape,
    hardware: Hardware,
    past_tokens: int,
    *,
    batch_size: int = 1,
    weight_bits: int = 16,
    kv_bits: int = 16,
) -> float:
    """Return the least time of a step that adds one token to each of `batch_size` sequences of `past_tokens`."""
    flops = forward_flops(shape, 1, past_tokens, batch_size=batch_size)
    precision = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    return roofline_seconds(flops, forward_bytes(shape, 1, past_tokens, batch_size=batch_size, **precision), hardware)


def compute_bound_batch(
    shape: ModelShape, hardware: Hardware, past_tokens: int, *, weight_bits: int = 16, kv_bits: int = 16
) -> int | None:
    """Return the least batch size at which arithmetic takes a decoding step at least as long as memory traffic does.

    None if there is no such batch: every sequence brings a cache of its own, which may take longer to read than its
    token to compute. Memory is not asked whether the batch fits.
    """
    ridge = Fraction(hardware.flops_per_second) / Fraction(hardware.bytes_per_second)
    gained = forward_flops(shape, 1, past_tokens) - ridge * kv_cache_bytes(shape, past_tokens + 1, bits=kv_bits)
    return math.ceil(ridge * weight_bytes(shape, weight_bits) / gained) if gained > 0 else None
