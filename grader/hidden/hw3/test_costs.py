"""Hidden tests of hw3.costs."""

import functools
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hw3 import costs
from hw3.configurations import HARDWARE, MODELS
from hw3.costs import Hardware, ModelShape
from hw3.transformer import Config, Transformer
from shared_tasks.checks import assert_close, assert_equal

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)


def random_shapes(seed, count, qk_norm=None):
    """Draw small shapes, in which heads times head_dim is never the hidden size, which is odd."""
    generator = random.Random(seed)
    for number in range(count):
        kv_heads, group = generator.randint(1, 5), generator.randint(2, 5)
        yield ModelShape(
            vocab_size=generator.randrange(301, 999, 2),
            hidden_size=generator.randrange(51, 99, 2),
            intermediate_size=generator.randrange(101, 299, 2),
            num_hidden_layers=generator.randint(2, 4),
            num_attention_heads=kv_heads * group,
            num_key_value_heads=kv_heads,
            head_dim=2 * generator.randint(2, 12),
            tie_word_embeddings=bool(number % 2),
            qk_norm=generator.random() < 0.5 if qk_norm is None else qk_norm,
        )


def transformer(shape):
    """Return the course's transformer in a shape, without memory for its weights."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += ("num_key_value_heads", "head_dim", "tie_word_embeddings")
    sizes = {name: getattr(shape, name) for name in names}
    with torch.device("meta"):
        model = Transformer(
            Config(**sizes, rms_norm_eps=1e-6, rope_theta=1e4, max_position_embeddings=10**6, eos_token_id=0)
        )
    if shape.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    return model


def every_pair(queries, keys, values, mask):
    """Compute all scores, as the formula counts them."""
    group = queries.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    return (queries @ keys.transpose(-1, -2)).softmax(-1) @ values


class Past:
    """A cache that holds so many positions."""

    def __init__(self, length):
        self.length = length

    def update(self, layer, keys, values, positions):
        """Put the past before the new."""
        past = keys.new_zeros(*keys.shape[:2], self.length, keys.shape[3])
        held = positions.new_zeros(len(positions), self.length)
        return torch.cat([past, keys], 2), torch.cat([past, values], 2), torch.cat([held, positions], 1)


def counted(shape, new, past, batch, last_only=False):
    """Run the transformer on the meta device and count its FLOPs: of a layer's parts, and of the whole pass."""
    model = transformer(shape)
    counter = FlopCounterMode(display=False)
    with counter, torch.device("meta"):
        logits_at = torch.zeros(batch, dtype=torch.long) if last_only else None
        token_ids = torch.zeros(batch, new, dtype=torch.long)
        model(token_ids, cache=Past(past), attention=every_pair, logits_at=logits_at)
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    layer = "Transformer.layers.1"
    mlp = by_module[f"{layer}.mlp"]
    projections = sum(by_module[f"{layer}.self_attn.{name}_proj"] for name in "qkvo")
    return projections, by_module[f"{layer}.self_attn"] - projections, mlp, by_module["Global"]


@functools.cache
def parameters(shape):
    """Return the number of parameters."""
    model = transformer(shape)
    names = ("q_norm.weight", "k_norm.weight")
    norms = sum(weight.numel() for name, weight in model.named_parameters() if name.endswith(names))
    return sum(weight.numel() for weight in model.parameters()) - (0 if shape.qk_norm else norms)


def flops(shape, new, past, batch, logits=1):
    """Return the FLOPs of a forward pass."""
    query = shape.num_attention_heads * shape.head_dim
    a_token = shape.hidden_size * (2 * query + 2 * shape.num_key_value_heads * shape.head_dim)
    a_token += 3 * shape.hidden_size * shape.intermediate_size + 2 * query * (past + new)
    return 2 * batch * (shape.num_hidden_layers * new * a_token + logits * shape.hidden_size * shape.vocab_size)


def cache_bytes(shape, positions, bits):
    """Return the bytes of the keys and values of so many positions."""
    return positions * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * bits // 4


def moved(shape, positions, batch, weight_bits, kv_bits):
    """Return the bytes that move in a pass after which each sequence has so many positions."""
    return -(-parameters(shape) * weight_bits // 8) + cache_bytes(shape, batch * positions, kv_bits)


def cases(seed, count):
    """Draw (shape, new, past, batch, bits of weights, bits of the cache)."""
    generator = random.Random(seed)
    for shape in random_shapes(seed, count):
        new, past, batch = generator.randint(2, 90), generator.randint(1, 300), generator.randint(2, 40)
        weight_bits, kv_bits = generator.sample((4, 8, 16, 32), 2)
        yield shape, new, past, batch, weight_bits, kv_bits


def assert_near(actual, expected, what):
    """Fail unless the number is right to one part in 10^9."""
    assert_close(actual, expected, 1e-9 * abs(expected), what)


class TestParameterCount:
    """Parameters."""

    def test_any_shape(self):
        """The count is that of the transformer's own weights, whatever its shape.

        Look at hw3/transformer.py: heads times head_dim is not the hidden size, the norms of queries and keys have
        head_dim weights each, and the last norm belongs to no layer.
        """
        for shape in random_shapes(0, 12, qk_norm=True):
            assert_equal(costs.parameter_count(shape), parameters(shape), f"parameters of {shape}")

    def test_without_qk_norm(self):
        """Llamas have no norms of queries and keys: 70,553,706,496 and 405,853,388,800 parameters.

        `qk_norm` and `tie_word_embeddings` say what a shape has.
        """
        for name, expected in (("Llama-3.1-70B", 70_553_706_496), ("Llama-3.1-405B", 405_853_388_800)):
            assert_equal(costs.parameter_count(MODELS[name]), expected, f"parameters of {name}")
        for shape in random_shapes(1, 6, qk_norm=False):
            assert_equal(costs.parameter_count(shape), parameters(shape), f"parameters of {shape}")


class TestLayerFlops:
    """FLOPs of a layer."""

    def test_prompt(self):
        """Each part is what a layer of the transformer computes for a prompt, counted operation by operation.

        A multiplication and an addition are two. Keys and values have fewer heads than queries in the projections, but
        every head of queries has scores of its own.
        """
        for shape in random_shapes(2, 6):
            for new in (1, 7, 40):
                expected = costs.LayerFlops(*counted(shape, new, 0, 1)[:3])
                assert_equal(costs.layer_flops(shape, new), expected, f"FLOPs of {new} tokens of {shape}")

    def test_after_a_cache(self):
        """Cached positions are not computed again, but new ones look at them.

        The attention of a decoding step grows with the past, everything else does not.
        """
        for shape, new, past, *_ in cases(3, 6):
            expected = costs.LayerFlops(*counted(shape, new, past, 1)[:3])
            assert_equal(
                costs.layer_flops(shape, new, past), expected, f"FLOPs of {new} tokens after {past} of {shape}"
            )


class TestForwardFlops:
    """FLOPs of a forward pass."""

    def test_logits_everywhere(self):
        """A batch costs what the transformer computes for it, layers and LM head.

        The LM head runs at new positions only, and the embedding costs nothing.
        """
        for shape, new, past, batch, *_ in cases(4, 6):
            expected = counted(shape, new, past, batch)[3]
            got = costs.forward_flops(shape, new, past, batch_size=batch)
            assert_equal(got, expected, f"FLOPs of {batch} sequences of {new} tokens after {past} of {shape}")

    def test_number_of_logits(self):
        """Logits at one position cost one position's LM head, logits at none cost nothing.

        A chunk in the middle of a prompt needs no logits: 0 is not None.
        """
        for shape, new, past, batch, *_ in cases(5, 4):
            for logits in (0, 1, 2):
                expected = flops(shape, new, past, batch, logits)
                if logits == 1:
                    assert expected == counted(shape, new, past, batch, last_only=True)[3]
                got = costs.forward_flops(shape, new, past, batch_size=batch, num_logits=logits)
                assert_equal(got, expected, f"FLOPs with logits at {logits} of {new} positions")

    def test_large_models(self):
        """FLOPs are whole numbers, exact for the largest models.

        A float has 53 bits.
        """
        for name, new in (("Llama-3.1-405B", 131_071), ("Qwen3-32B", 40_959)):
            expected = flops(MODELS[name], new, 0, 3, logits=new)
            assert_equal(costs.forward_flops(MODELS[name], new, batch_size=3), expected, f"FLOPs of {name}")


class TestCrossoverLength:
    """Where attention overtakes the rest."""

    def test_families(self):
        """In Llama-3.1-70B attention overtakes the rest at 52,224 tokens, in Qwen3-0.6B at 3,840, to the token.

        Where both are equal, attention is not less. The LM head is no part of a layer.
        """
        expected = {"Llama-3.1-70B": 52_224, "Llama-3.1-405B": 97_280, "Qwen3-0.6B": 3_840, "Qwen3-14B": 32_256}
        for name, length in expected.items():
            assert_equal(costs.crossover_length(MODELS[name]), length, f"length for {name}")

    def test_any_shape(self):
        """At the length that is returned attention is not less than the rest, one token before it is.

        Most lengths are no whole number: round up.
        """
        for shape in random_shapes(6, 20):
            got = costs.crossover_length(shape)
            assert isinstance(got, int), f"expected a whole number, got {got!r}"
            query = shape.num_attention_heads * shape.head_dim
            rest = shape.hidden_size * (2 * query + 2 * shape.num_key_value_heads * shape.head_dim)
            rest += 3 * shape.hidden_size * shape.intermediate_size
            assert 2 * query * got >= rest, f"expected a larger length than {got} for {shape}"
            assert 2 * query * (got - 1) < rest, f"expected a smaller length than {got} for {shape}"


class TestWeightBytes:
    """Memory of the weights."""

    def test_any_shape(self):
        """Every parameter takes so many bits, and what is left over fills a byte.

        A matrix that is used twice is in memory once.
        """
        odd = ModelShape(7, 5, 3, 1, 2, 1, 2, tie_word_embeddings=True, qk_norm=False)
        for shape in (odd, *random_shapes(7, 8)):
            for bits in (4, 8, 16, 32):
                expected = -(-parameters(shape) * bits // 8)
                assert_equal(costs.weight_bytes(shape, bits), expected, f"bytes of {shape} at {bits} bits")

    def test_default(self):
        """Without an argument a parameter takes two bytes.

        Checkpoints are in bfloat16.
        """
        assert_equal(costs.weight_bytes(MODELS["Qwen3-0.6B"]), 1_192_099_840, "bytes of Qwen3-0.6B")


class TestKvCacheBytes:
    """Memory of the cache."""

    def test_families(self):
        """32,768 tokens take 3.5 GiB in Qwen3-0.6B, 10 GiB in Llama-3.1-70B, 15.75 GiB in Llama-3.1-405B.

        Keys and values, of every layer; heads of keys, not of queries.
        """
        for name, gib in (("Qwen3-0.6B", 3.5), ("Qwen3-14B", 5), ("Llama-3.1-70B", 10), ("Llama-3.1-405B", 15.75)):
            assert_equal(costs.kv_cache_bytes(MODELS[name], 32_768), int(gib * 2**30), f"bytes of {name}")

    def test_batch_and_bits(self):
        """The cache grows with length, batch and the bits of a number.

        A number of 4 bits takes half a byte.
        """
        for shape, new, _, batch, _, bits in cases(8, 10):
            got = costs.kv_cache_bytes(shape, new, batch_size=batch, bits=bits)
            assert_equal(got, cache_bytes(shape, batch * new, bits), f"bytes of {batch} of {new} tokens, {bits} bits")


class TestLargestBatch:
    """How many sequences fit."""

    def test_to_the_byte(self):
        """A batch that fills the memory exactly fits; with a byte less it does not.

        The weights are in memory once, with bits of their own.
        """
        for shape, length, _, batch, weight_bits, kv_bits in cases(9, 12):
            full = moved(shape, length, batch, weight_bits, kv_bits)
            for memory, expected in ((full, batch), (full - 1, batch - 1)):
                got = costs.largest_batch(shape, memory, length, weight_bits=weight_bits, kv_bits=kv_bits)
                assert_equal(got, expected, f"batch size in {memory} bytes")

    def test_hardware(self):
        """On an H200, 36 sequences of 4,096 tokens fit beside 4-bit weights of Llama-3.1-70B and a cache of 16 bits.

        The bits of the weights do not change the cache.
        """
        shape, memory = MODELS["Llama-3.1-70B"], HARDWARE["H200"].memory_bytes
        expected = (memory - parameters(shape) // 2) // cache_bytes(shape, 4096, 16)
        assert_equal(costs.largest_batch(shape, memory, 4096, weight_bits=4), expected, "batch size")

    def test_too_small(self):
        """Where the weights do not fit, no sequence does; a length below 1 is refused.

        A negative batch size is no answer.
        """
        for name in ("Llama-3.1-70B", "Llama-3.1-405B"):
            assert_equal(costs.largest_batch(MODELS[name], HARDWARE["H100"].memory_bytes, 10), 0, f"batch of {name}")
        with pytest.raises(ValueError):
            costs.largest_batch(MODELS["Qwen3-4B"], 10**10, 0)


class TestLongestContext:
    """How long a context fits."""

    def test_to_the_byte(self):
        """A context that fills the memory exactly fits; with a byte less it does not.

        All sequences of a batch grow together.
        """
        for shape, length, _, batch, weight_bits, kv_bits in cases(10, 12):
            full = moved(shape, length, batch, weight_bits, kv_bits)
            for memory, expected in ((full, length), (full - 1, length - 1)):
                got = costs.longest_context(shape, memory, batch_size=batch, weight_bits=weight_bits, kv_bits=kv_bits)
                assert_equal(got, expected, f"context of each of {batch} sequences in {memory} bytes")

    def test_too_small(self):
        """Where the weights do not fit, no context does; a batch without sequences is refused.

        A negative length is no answer.
        """
        assert_equal(costs.longest_context(MODELS["Qwen3-32B"], HARDWARE["L40S"].memory_bytes), 0, "context")
        with pytest.raises(ValueError):
            costs.longest_context(MODELS["Qwen3-4B"], 10**10, batch_size=0)


class TestForwardBytes:
    """Bytes that move."""

    def test_any_pass(self):
        """Weights move once for the batch, keys and values of past and new positions for each sequence.

        A larger batch reads no more weights: this is what batching is for.
        """
        for shape, new, past, batch, weight_bits, kv_bits in cases(11, 12):
            got = costs.forward_bytes(shape, new, past, batch_size=batch, weight_bits=weight_bits, kv_bits=kv_bits)
            assert_equal(got, moved(shape, past + new, batch, weight_bits, kv_bits), f"bytes of {new} after {past}")

    def test_defaults(self):
        """Without arguments it is one sequence without a past, in 16 bits.

        The new keys and values are written.
        """
        shape = MODELS["Qwen3-4B"]
        assert_equal(costs.forward_bytes(shape, 100), 2 * 4_022_468_096 + 100 * 147_456, "bytes of Qwen3-4B")


class TestArithmeticIntensity:
    """FLOPs a byte."""

    def test_any_pass(self):
        """It is the FLOPs of the pass, with one position of logits a sequence, over the bytes that it moves.

        FLOPs over bytes, and of the same batch.
        """
        for shape, new, past, batch, weight_bits, kv_bits in cases(12, 12):
            got = costs.arithmetic_intensity(
                shape, new, past, batch_size=batch, weight_bits=weight_bits, kv_bits=kv_bits
            )
            expected = flops(shape, new, past, batch) / moved(shape, past + new, batch, weight_bits, kv_bits)
            assert_near(got, expected, f"FLOPs a byte of {batch} sequences, {new} tokens after {past}")

    def test_batches_help_short_contexts(self):
        """A batch of 64 multiplies the FLOPs a byte of decoding, less so where its sequences are long.

        Weights are shared, caches are not.
        """
        shape = MODELS["Llama-3.1-70B"]
        for past in (0, 8192):
            got = costs.arithmetic_intensity(shape, 1, past, batch_size=64)
            assert_near(got, flops(shape, 1, past, 64) / moved(shape, past + 1, 64, 16, 16), f"after {past} tokens")


class TestRooflineSeconds:
    """The roofline."""

    def test_any_load(self):
        """It is the longer of the times of arithmetic and of traffic, which overlap.

        Neither their sum nor the shorter.
        """
        generator = random.Random(13)
        for _ in range(20):
            device = Hardware("device", generator.uniform(1, 9) * 1e9, generator.uniform(1, 9) * 1e7, 10**9)
            work, traffic = generator.randrange(10**9), generator.randrange(10**7)
            expected = max(work / device.flops_per_second, traffic / device.bytes_per_second)
            assert_near(
                costs.roofline_seconds(work, traffic, device), expected, f"seconds of {work} FLOPs, {traffic} B"
            )

    def test_ridge(self):
        """At the ridge, 206 FLOPs a byte on an H200, both take the same time.

        On either side of it another limit decides.
        """
        device = HARDWARE["H200"]
        for work, expected in ((4.8e12 * 100, 1.0), (989e12, 1.0), (2 * 989e12, 2.0)):
            assert_near(costs.roofline_seconds(work, 4.8e12, device), expected, f"seconds of {work:g} FLOPs")


class TestPrefillSeconds:
    """Reading a prompt."""

    def test_both_limits(self):
        """Long prompts are bound by arithmetic, short ones by the weights, on every device.

        The logits of a prompt are computed at its last position only.
        """
        for name, device in HARDWARE.items():
            for shape in (MODELS["Qwen3-0.6B"], MODELS["Llama-3.1-8B"]):
                for length, batch in ((3, 1), (40, 4), (3000, 2)):
                    work, traffic = flops(shape, length, 0, batch), moved(shape, length, batch, 16, 16)
                    expected = max(work / device.flops_per_second, traffic / device.bytes_per_second)
                    got = costs.prefill_seconds(shape, device, length, batch_size=batch)
                    assert_near(got, expected, f"seconds of {batch} prompts of {length} tokens on {name}")

    def test_quantised(self):
        """Fewer bits save traffic, and no arithmetic.

        Weights of 4 bits are turned into bfloat16 before they are multiplied.
        """
        device = HARDWARE["L40S"]
        for shape, length, _, batch, weight_bits, kv_bits in cases(14, 10):
            for new in (1, 100 * length):
                work, traffic = flops(shape, new, 0, batch), moved(shape, new, batch, weight_bits, kv_bits)
                expected = max(work / device.flops_per_second, traffic / device.bytes_per_second)
                got = costs.prefill_seconds(
                    shape, device, new, batch_size=batch, weight_bits=weight_bits, kv_bits=kv_bits
                )
                assert_near(got, expected, f"seconds at {weight_bits} and {kv_bits} bits")


class TestDecodeSeconds:
    """A step of decoding."""

    def test_hardware(self):
        """A step takes the time of its weights and caches at small batches, and of its arithmetic at large ones.

        All sequences get their token in the same step: the time of a step is not divided by the batch.
        """
        for name, device in HARDWARE.items():
            for past, batch in ((0, 1), (5000, 1), (5000, 32), (10, 900)):
                shape = MODELS["Qwen3-8B"]
                work, traffic = flops(shape, 1, past, batch), moved(shape, past + 1, batch, 16, 16)
                expected = max(work / device.flops_per_second, traffic / device.bytes_per_second)
                got = costs.decode_seconds(shape, device, past, batch_size=batch)
                assert_near(got, expected, f"seconds of {batch} sequences after {past} tokens on {name}")

    def test_quantised(self):
        """Weights and cache are read with the bits that they have.

        At a long context the cache is what takes time.
        """
        slow = Hardware("slow", 1e15, 1e6, 10**9)
        for shape, _, past, batch, weight_bits, kv_bits in cases(15, 10):
            got = costs.decode_seconds(shape, slow, past, batch_size=batch, weight_bits=weight_bits, kv_bits=kv_bits)
            expected = moved(shape, past + 1, batch, weight_bits, kv_bits) / 1e6
            assert_near(got, expected, f"seconds at {weight_bits} and {kv_bits} bits")


class TestComputeBoundBatch:
    """Where decoding becomes bound by arithmetic."""

    def check(self, shape, device, past, weight_bits, kv_bits):
        """Check that the answer is bound by arithmetic and that one less is not; return it."""
        got = costs.compute_bound_batch(shape, device, past, weight_bits=weight_bits, kv_bits=kv_bits)
        ridge = device.flops_per_second / device.bytes_per_second
        if got is None:
            gained = flops(shape, 1, past, 1) - ridge * cache_bytes(shape, past + 1, kv_bits)
            assert gained <= 0, f"expected a batch size after {past} tokens on {device.name}, got None"
            return got
        assert isinstance(got, int), f"expected a whole number or None, got {got!r}"
        intensities = [
            flops(shape, 1, past, batch) / moved(shape, past + 1, batch, weight_bits, kv_bits)
            for batch in (got - 1, got)
        ]
        where = f"{got} sequences after {past} tokens on {device.name}"
        assert intensities[1] >= ridge * (1 - 1e-9), f"{where}: expected a larger batch, this is bound by memory"
        assert intensities[0] < ridge * (1 + 1e-9), f"{where}: expected a smaller batch, one less is enough"
        return got

    def test_hardware(self):
        """With the batch that is returned, a step is bound by arithmetic; with one sequence less, by memory.

        Each sequence brings its FLOPs, and its cache to read.
        """
        found = [
            self.check(shape, device, past, weight_bits, 16)
            for device in HARDWARE.values()
            for shape in (MODELS["Llama-3.1-70B"], MODELS["Qwen3-32B"])
            for past in (0, 50, 500, 8000)
            for weight_bits in (4, 16)
        ]
        assert any(batch is None for batch in found)
        assert any(batch is not None for batch in found)

    def test_never(self):
        """Where the cache of a sequence takes longer to read than its token to compute, there is no such batch.

        A cache with fewer bits moves that length away.
        """
        shape, device = MODELS["Llama-3.1-8B"], HARDWARE["A100"]
        if self.check(shape, device, 2000, 16, 16) is not None:
            pytest.fail("expected None after 2,000 tokens at 16 bits")
        assert_equal(
            self.check(shape, device, 700, 16, 8) is not None, True, "there is a batch after 700 tokens, 8 bits"
        )

    def test_any_shape(self):
        """So it is with any model, device and number of bits.

        The answer is the least such batch, rounded up.
        """
        generator = random.Random(16)
        for shape, _, past, _, weight_bits, kv_bits in cases(16, 20):
            device = Hardware("device", generator.uniform(1, 40) * 1e9, 1e9, 10**9)
            self.check(shape, device, past // 10, weight_bits, kv_bits)
