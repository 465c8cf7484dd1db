"""Plausible wrong solutions of hw3.costs: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from dataclasses import replace

from grader.reference.hw3 import costs as reference
from grader.reference.hw3.costs import LayerFlops


def _square(shape):
    """Return the shape with a head_dim of hidden size over heads."""
    return replace(shape, head_dim=shape.hidden_size // shape.num_attention_heads)


def _ungrouped(shape):
    """Return the shape with as many heads of keys as of queries."""
    return replace(shape, num_key_value_heads=shape.num_attention_heads)


def parameter_count__counts_the_tied_matrix_twice(shape):
    """Adds the LM head to the embedding whether it is another matrix or not."""
    return reference.parameter_count(replace(shape, tie_word_embeddings=False))


def parameter_count__one_embedding_always(shape):
    """Forgets the LM head."""
    return reference.parameter_count(replace(shape, tie_word_embeddings=True))


def parameter_count__forgets_the_last_norm(shape):
    """Counts the norms of layers only."""
    return reference.parameter_count(shape) - shape.hidden_size


def parameter_count__normalises_every_model(shape):
    """Gives Llamas norms of queries and keys."""
    return reference.parameter_count(replace(shape, qk_norm=True))


def parameter_count__norms_for_each_head(shape):
    """Gives each head weights of its own to normalise with."""
    more = (shape.num_attention_heads + shape.num_key_value_heads - 2) * shape.head_dim
    return reference.parameter_count(shape) + (shape.num_hidden_layers * more if shape.qk_norm else 0)


def parameter_count__ignores_groups(shape):
    """Gives keys and values as many heads as queries."""
    return reference.parameter_count(_ungrouped(shape))


def parameter_count__divides_the_hidden_size(shape):
    """Takes hidden size over heads for the size of a head."""
    return reference.parameter_count(_square(shape))


def parameter_count__two_matrices_in_the_mlp(shape):
    """Forgets the gate."""
    gates = shape.num_hidden_layers * shape.hidden_size * shape.intermediate_size
    return reference.parameter_count(shape) - gates


def layer_flops__counts_multiply_add_as_one(shape, new_tokens, past_tokens=0):
    """Halves everything."""
    flops = reference.layer_flops(shape, new_tokens, past_tokens)
    return LayerFlops(flops.projections // 2, flops.attention // 2, flops.mlp // 2)


def layer_flops__halves_for_the_mask(shape, new_tokens, past_tokens=0):
    """Leaves out what the causal mask throws away."""
    flops = reference.layer_flops(shape, new_tokens, past_tokens)
    pairs = new_tokens * past_tokens + new_tokens * (new_tokens + 1) // 2
    return replace(flops, attention=4 * pairs * shape.num_attention_heads * shape.head_dim)


def layer_flops__ignores_groups(shape, new_tokens, past_tokens=0):
    """Projects as many heads of keys as of queries."""
    return reference.layer_flops(_ungrouped(shape), new_tokens, past_tokens)


def layer_flops__groups_save_scores(shape, new_tokens, past_tokens=0):
    """Computes scores once for each head of keys."""
    flops = reference.layer_flops(shape, new_tokens, past_tokens)
    return replace(flops, attention=flops.attention // shape.num_attention_heads * shape.num_key_value_heads)


def layer_flops__divides_the_hidden_size(shape, new_tokens, past_tokens=0):
    """Takes the hidden size for heads times head_dim."""
    return reference.layer_flops(_square(shape), new_tokens, past_tokens)


def layer_flops__scores_only(shape, new_tokens, past_tokens=0):
    """Forgets the mixing of values."""
    flops = reference.layer_flops(shape, new_tokens, past_tokens)
    return replace(flops, attention=flops.attention // 2)


def layer_flops__two_matrices_in_the_mlp(shape, new_tokens, past_tokens=0):
    """Forgets the gate."""
    flops = reference.layer_flops(shape, new_tokens, past_tokens)
    return replace(flops, mlp=flops.mlp // 3 * 2)


def layer_flops__forgets_the_past(shape, new_tokens, past_tokens=0):
    """Lets new positions look at each other only."""
    return reference.layer_flops(shape, new_tokens)


def layer_flops__computes_the_past_again(shape, new_tokens, past_tokens=0):
    """Has no cache."""
    return reference.layer_flops(shape, new_tokens + past_tokens)


def layer_flops__forgets_the_new(shape, new_tokens, past_tokens=0):
    """Lets new positions look at the past only."""
    flops = reference.layer_flops(shape, new_tokens, past_tokens)
    own = 4 * new_tokens * new_tokens * shape.num_attention_heads * shape.head_dim
    return replace(flops, attention=flops.attention - own if past_tokens else flops.attention)


def _head(shape, positions):
    return 2 * positions * shape.hidden_size * shape.vocab_size


def forward_flops__counts_the_embedding(shape, new_tokens, past_tokens=0, *, batch_size=1, num_logits=None):
    """Takes the lookup for a multiplication."""
    flops = reference.forward_flops(shape, new_tokens, past_tokens, batch_size=batch_size, num_logits=num_logits)
    return flops + batch_size * _head(shape, new_tokens)


def forward_flops__forgets_the_lm_head(shape, new_tokens, past_tokens=0, *, batch_size=1, num_logits=None):
    """Counts layers only."""
    return reference.forward_flops(shape, new_tokens, past_tokens, batch_size=batch_size, num_logits=0)


def forward_flops__logits_everywhere(shape, new_tokens, past_tokens=0, *, batch_size=1, num_logits=None):
    """Does not ask how many logits are wanted."""
    return reference.forward_flops(shape, new_tokens, past_tokens, batch_size=batch_size)


def forward_flops__takes_zero_for_all(shape, new_tokens, past_tokens=0, *, batch_size=1, num_logits=None):
    """Computes all logits where none are wanted."""
    return reference.forward_flops(
        shape, new_tokens, past_tokens, batch_size=batch_size, num_logits=num_logits or new_tokens
    )


def forward_flops__one_batch_of_logits(shape, new_tokens, past_tokens=0, *, batch_size=1, num_logits=None):
    """Computes logits once for the whole batch."""
    layers = reference.forward_flops(shape, new_tokens, past_tokens, batch_size=batch_size, num_logits=0)
    return layers + _head(shape, new_tokens if num_logits is None else num_logits)


def forward_flops__takes_a_batch_for_a_sequence(shape, new_tokens, past_tokens=0, *, batch_size=1, num_logits=None):
    """Lets the positions of a batch look at each other."""
    logits = new_tokens if num_logits is None else num_logits
    return reference.forward_flops(
        shape, batch_size * new_tokens, batch_size * past_tokens, num_logits=batch_size * logits
    )


def forward_flops__floats(shape, new_tokens, past_tokens=0, *, batch_size=1, num_logits=None):
    """Counts in floating point."""
    return float(reference.forward_flops(shape, new_tokens, past_tokens, batch_size=batch_size, num_logits=num_logits))


def crossover_length__rounds_down(shape):
    """Drops the fraction."""
    one = reference.layer_flops(shape, 1)
    return (one.projections + one.mlp) // one.attention


def crossover_length__must_be_more(shape):
    """Asks for more attention than everything else."""
    return crossover_length__rounds_down(shape) + 1


def crossover_length__counts_the_lm_head(shape):
    """Compares the whole model."""
    one, head = reference.layer_flops(shape, 1), _head(shape, 1)
    layers = shape.num_hidden_layers
    return math.ceil(((one.projections + one.mlp) * layers + head) / (one.attention * layers))


def crossover_length__compares_with_the_mlp(shape):
    """Leaves out the projections."""
    one = reference.layer_flops(shape, 1)
    return math.ceil(one.mlp / one.attention)


def crossover_length__halves_for_the_mask(shape):
    """Takes half of the scores."""
    return 2 * reference.crossover_length(shape)


def weight_bytes__bits_for_bytes(shape, bits=16):
    """Forgets to divide by eight."""
    return reference.parameter_count(shape) * bits


def weight_bytes__rounds_down(shape, bits=16):
    """Loses half a byte."""
    return reference.parameter_count(shape) * bits // 8


def weight_bytes__two_bytes_always(shape, bits=16):
    """Does not look at the bits."""
    return 2 * reference.parameter_count(shape)


def weight_bytes__whole_bytes_for_each_number(shape, bits=16):
    """Keeps a number of four bits in a byte."""
    return reference.parameter_count(shape) * max(1, bits // 8)


def weight_bytes__ties_nothing(shape, bits=16):
    """Keeps the LM head beside the embedding that it equals."""
    return reference.weight_bytes(replace(shape, tie_word_embeddings=False), bits)


def weight_bytes__float32_by_default(shape, bits=32):
    """Takes four bytes for a parameter."""
    return reference.weight_bytes(shape, bits)


def kv_cache_bytes__keys_only(shape, length, *, batch_size=1, bits=16):
    """Forgets the values."""
    return reference.kv_cache_bytes(shape, length, batch_size=batch_size, bits=bits) // 2


def kv_cache_bytes__heads_of_queries(shape, length, *, batch_size=1, bits=16):
    """Keeps keys for every head of queries."""
    return reference.kv_cache_bytes(_ungrouped(shape), length, batch_size=batch_size, bits=bits)


def kv_cache_bytes__divides_the_hidden_size(shape, length, *, batch_size=1, bits=16):
    """Takes hidden size over heads for the size of a head."""
    return reference.kv_cache_bytes(_square(shape), length, batch_size=batch_size, bits=bits)


def kv_cache_bytes__one_layer(shape, length, *, batch_size=1, bits=16):
    """Keeps one layer."""
    return reference.kv_cache_bytes(replace(shape, num_hidden_layers=1), length, batch_size=batch_size, bits=bits)


def kv_cache_bytes__one_sequence(shape, length, *, batch_size=1, bits=16):
    """Shares the cache between sequences."""
    return reference.kv_cache_bytes(shape, length, bits=bits)


def kv_cache_bytes__whole_bytes_for_each_number(shape, length, *, batch_size=1, bits=16):
    """Keeps a number of four bits in a byte."""
    return reference.kv_cache_bytes(shape, length, batch_size=batch_size, bits=max(bits, 8))


def largest_batch__forgets_the_weights(shape, memory_bytes, length, *, weight_bits=16, kv_bits=16):
    """Fills the memory with caches."""
    if length < 1:
        raise ValueError
    return memory_bytes // reference.kv_cache_bytes(shape, length, bits=kv_bits)


def largest_batch__negative(shape, memory_bytes, length, *, weight_bits=16, kv_bits=16):
    """Answers with less than nothing."""
    if length < 1:
        raise ValueError
    left = memory_bytes - reference.weight_bytes(shape, weight_bits)
    return left // reference.kv_cache_bytes(shape, length, bits=kv_bits)


def largest_batch__leaves_a_byte(shape, memory_bytes, length, *, weight_bits=16, kv_bits=16):
    """Does not fill the memory to the last byte."""
    return reference.largest_batch(shape, memory_bytes - 1, length, weight_bits=weight_bits, kv_bits=kv_bits)


def largest_batch__rounds(shape, memory_bytes, length, *, weight_bits=16, kv_bits=16):
    """Rounds to the nearest number."""
    if length < 1:
        raise ValueError
    left = max(0, memory_bytes - reference.weight_bytes(shape, weight_bits))
    return round(left / reference.kv_cache_bytes(shape, length, bits=kv_bits))


def largest_batch__weights_for_each_sequence(shape, memory_bytes, length, *, weight_bits=16, kv_bits=16):
    """Keeps the weights once for each sequence."""
    if length < 1:
        raise ValueError
    cache = reference.kv_cache_bytes(shape, length, bits=kv_bits)
    return memory_bytes // (reference.weight_bytes(shape, weight_bits) + cache)


def largest_batch__cache_in_the_bits_of_weights(shape, memory_bytes, length, *, weight_bits=16, kv_bits=16):
    """Quantises the cache with the weights."""
    return reference.largest_batch(shape, memory_bytes, length, weight_bits=weight_bits, kv_bits=weight_bits)


def largest_batch__takes_any_length(shape, memory_bytes, length, *, weight_bits=16, kv_bits=16):
    """Fits sequences of no length."""
    return reference.largest_batch(shape, memory_bytes, max(1, length), weight_bits=weight_bits, kv_bits=kv_bits)


def longest_context__for_one_sequence(shape, memory_bytes, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Gives the whole memory to one sequence."""
    if batch_size < 1:
        raise ValueError
    return reference.longest_context(shape, memory_bytes, weight_bits=weight_bits, kv_bits=kv_bits)


def longest_context__all_sequences_together(shape, memory_bytes, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Adds the lengths of all sequences."""
    return batch_size * reference.longest_context(
        shape, memory_bytes, batch_size=batch_size, weight_bits=weight_bits, kv_bits=kv_bits
    )


def longest_context__forgets_the_weights(shape, memory_bytes, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Fills the memory with the cache."""
    if batch_size < 1:
        raise ValueError
    return memory_bytes // reference.kv_cache_bytes(shape, 1, batch_size=batch_size, bits=kv_bits)


def longest_context__negative(shape, memory_bytes, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Answers with less than nothing."""
    if batch_size < 1:
        raise ValueError
    left = memory_bytes - reference.weight_bytes(shape, weight_bits)
    return left // reference.kv_cache_bytes(shape, 1, batch_size=batch_size, bits=kv_bits)


def longest_context__leaves_a_byte(shape, memory_bytes, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Does not fill the memory to the last byte."""
    return reference.longest_context(
        shape, memory_bytes - 1, batch_size=batch_size, weight_bits=weight_bits, kv_bits=kv_bits
    )


def longest_context__in_sixteen_bits(shape, memory_bytes, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Does not look at the bits of the cache."""
    return reference.longest_context(shape, memory_bytes, batch_size=batch_size, weight_bits=weight_bits)


def _traffic(shape, positions, batch_size, weight_bits, kv_bits):
    cache = reference.kv_cache_bytes(shape, positions, batch_size=batch_size, bits=kv_bits)
    return reference.weight_bytes(shape, weight_bits) + cache


def forward_bytes__weights_for_each_sequence(
    shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16
):
    """Reads the weights again for every sequence."""
    return batch_size * _traffic(shape, past_tokens + new_tokens, 1, weight_bits, kv_bits)


def forward_bytes__forgets_the_new(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Writes nothing."""
    return _traffic(shape, past_tokens, batch_size, weight_bits, kv_bits)


def forward_bytes__forgets_the_past(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Reads no cache."""
    return _traffic(shape, new_tokens, batch_size, weight_bits, kv_bits)


def forward_bytes__reads_what_it_writes(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Moves new keys and values twice."""
    return _traffic(shape, past_tokens + 2 * new_tokens, batch_size, weight_bits, kv_bits)


def forward_bytes__cache_of_one_sequence(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Shares the cache between sequences."""
    return _traffic(shape, past_tokens + new_tokens, 1, weight_bits, kv_bits)


def forward_bytes__swaps_the_bits(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Reads weights in the bits of the cache."""
    return _traffic(shape, past_tokens + new_tokens, batch_size, kv_bits, weight_bits)


def arithmetic_intensity__upside_down(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Returns bytes a FLOP."""
    bits = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    return 1 / reference.arithmetic_intensity(shape, new_tokens, past_tokens, batch_size=batch_size, **bits)


def arithmetic_intensity__logits_everywhere(
    shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16
):
    """Computes logits at all positions."""
    flops = reference.forward_flops(shape, new_tokens, past_tokens, batch_size=batch_size)
    return flops / _traffic(shape, past_tokens + new_tokens, batch_size, weight_bits, kv_bits)


def arithmetic_intensity__of_one_sequence(
    shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16
):
    """Does not look at the batch."""
    return reference.arithmetic_intensity(shape, new_tokens, past_tokens, weight_bits=weight_bits, kv_bits=kv_bits)


def arithmetic_intensity__of_the_weights(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Forgets the traffic of caches."""
    flops = reference.forward_flops(shape, new_tokens, past_tokens, batch_size=batch_size, num_logits=1)
    return flops / reference.weight_bytes(shape, weight_bits)


def arithmetic_intensity__whole_numbers(shape, new_tokens, past_tokens=0, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Divides integers."""
    bits = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    return reference.arithmetic_intensity(shape, new_tokens, past_tokens, batch_size=batch_size, **bits) // 1


def roofline_seconds__adds(flops, bytes_moved, hardware):
    """Moves first and computes then."""
    return flops / hardware.flops_per_second + bytes_moved / hardware.bytes_per_second


def roofline_seconds__shorter(flops, bytes_moved, hardware):
    """Takes the limit that does not limit."""
    return min(flops / hardware.flops_per_second, bytes_moved / hardware.bytes_per_second)


def roofline_seconds__arithmetic_only(flops, bytes_moved, hardware):
    """Forgets memory."""
    return flops / hardware.flops_per_second


def roofline_seconds__memory_only(flops, bytes_moved, hardware):
    """Forgets arithmetic."""
    return bytes_moved / hardware.bytes_per_second


def roofline_seconds__swaps_the_rates(flops, bytes_moved, hardware):
    """Divides each by the rate of the other."""
    return max(flops / hardware.bytes_per_second, bytes_moved / hardware.flops_per_second)


def prefill_seconds__arithmetic_only(shape, hardware, prompt_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Takes every prompt for a long one."""
    flops = reference.forward_flops(shape, prompt_tokens, batch_size=batch_size, num_logits=1)
    return flops / hardware.flops_per_second


def prefill_seconds__logits_everywhere(shape, hardware, prompt_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Computes logits that nobody looks at."""
    flops = reference.forward_flops(shape, prompt_tokens, batch_size=batch_size)
    traffic = _traffic(shape, prompt_tokens, batch_size, weight_bits, kv_bits)
    return reference.roofline_seconds(flops, traffic, hardware)


def prefill_seconds__token_by_token(shape, hardware, prompt_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Reads the prompt as if it were decoded."""
    bits = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    steps = range(min(prompt_tokens, 200))
    return sum(reference.decode_seconds(shape, hardware, past, batch_size=batch_size, **bits) for past in steps)


def prefill_seconds__one_prompt(shape, hardware, prompt_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Does not look at the batch."""
    return reference.prefill_seconds(shape, hardware, prompt_tokens, weight_bits=weight_bits, kv_bits=kv_bits)


def prefill_seconds__computes_in_fewer_bits(
    shape, hardware, prompt_tokens, *, batch_size=1, weight_bits=16, kv_bits=16
):
    """Computes four times as fast with a quarter of the bits."""
    faster = replace(hardware, flops_per_second=hardware.flops_per_second * 16 / weight_bits)
    bits = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    return reference.prefill_seconds(shape, faster, prompt_tokens, batch_size=batch_size, **bits)


def decode_seconds__memory_only(shape, hardware, past_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Takes decoding to be bound by memory whatever the batch."""
    return _traffic(shape, past_tokens + 1, batch_size, weight_bits, kv_bits) / hardware.bytes_per_second


def decode_seconds__weights_only(shape, hardware, past_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Forgets the cache."""
    flops = reference.forward_flops(shape, 1, past_tokens, batch_size=batch_size)
    return reference.roofline_seconds(flops, reference.weight_bytes(shape, weight_bits), hardware)


def decode_seconds__a_token(shape, hardware, past_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Divides the time of a step by the batch."""
    bits = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    step = reference.decode_seconds(shape, hardware, past_tokens, batch_size=batch_size, **bits)
    return step / batch_size


def decode_seconds__without_a_cache(shape, hardware, past_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Computes the past again."""
    bits = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    return reference.prefill_seconds(shape, hardware, past_tokens + 1, batch_size=batch_size, **bits)


def decode_seconds__each_in_turn(shape, hardware, past_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Takes a step for each sequence."""
    bits = {"weight_bits": weight_bits, "kv_bits": kv_bits}
    return batch_size * reference.decode_seconds(shape, hardware, past_tokens, **bits)


def decode_seconds__in_sixteen_bits(shape, hardware, past_tokens, *, batch_size=1, weight_bits=16, kv_bits=16):
    """Does not look at the bits."""
    return reference.decode_seconds(shape, hardware, past_tokens, batch_size=batch_size)


def compute_bound_batch__the_ridge(shape, hardware, past_tokens, *, weight_bits=16, kv_bits=16):
    """Takes the ridge for the batch size: two FLOPs a parameter of two bytes."""
    return math.ceil(hardware.flops_per_second / hardware.bytes_per_second)


def _gained(shape, hardware, past_tokens, kv_bits):
    ridge = hardware.flops_per_second / hardware.bytes_per_second
    cache = reference.kv_cache_bytes(shape, past_tokens + 1, bits=kv_bits)
    return ridge, reference.forward_flops(shape, 1, past_tokens) - ridge * cache


def compute_bound_batch__negative(shape, hardware, past_tokens, *, weight_bits=16, kv_bits=16):
    """Answers with a batch of less than nothing."""
    ridge, gained = _gained(shape, hardware, past_tokens, kv_bits)
    return math.ceil(ridge * reference.weight_bytes(shape, weight_bits) / gained)


def compute_bound_batch__forgets_the_cache(shape, hardware, past_tokens, *, weight_bits=16, kv_bits=16):
    """Reads no caches."""
    ridge = hardware.flops_per_second / hardware.bytes_per_second
    flops = reference.forward_flops(shape, 1, past_tokens)
    return math.ceil(ridge * reference.weight_bytes(shape, weight_bits) / flops)


def compute_bound_batch__rounds_down(shape, hardware, past_tokens, *, weight_bits=16, kv_bits=16):
    """Drops the fraction."""
    ridge, gained = _gained(shape, hardware, past_tokens, kv_bits)
    return int(ridge * reference.weight_bytes(shape, weight_bits) / gained) if gained > 0 else None


def compute_bound_batch__searches_powers_of_two(shape, hardware, past_tokens, *, weight_bits=16, kv_bits=16):
    """Doubles the batch until it is bound by arithmetic."""
    least = reference.compute_bound_batch(shape, hardware, past_tokens, weight_bits=weight_bits, kv_bits=kv_bits)
    return least and 1 << (least - 1).bit_length()


def compute_bound_batch__gives_up(shape, hardware, past_tokens, *, weight_bits=16, kv_bits=16):
    """Tries no batch above 256."""
    least = reference.compute_bound_batch(shape, hardware, past_tokens, weight_bits=weight_bits, kv_bits=kv_bits)
    return least if least and least <= 256 else None
