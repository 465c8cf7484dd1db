"""Public tests of hw3.costs."""

import pytest

from hw3 import costs
from hw3.configurations import HARDWARE, MODELS
from shared_tasks.checks import assert_close, assert_equal

LLAMA, QWEN, SMALL = MODELS["Llama-3.1-8B"], MODELS["Qwen3-8B"], MODELS["Qwen3-0.6B"]
H100, H200 = HARDWARE["H100"], HARDWARE["H200"]


class TestParameterCount:
    """Parameters."""

    def test_llama(self):
        """Llama-3.1-8B has 8,030,261,248 parameters."""
        assert_equal(costs.parameter_count(LLAMA), 8_030_261_248, "parameters of Llama-3.1-8B")

    def test_tied_and_normalised(self):
        """Qwen3-0.6B, whose LM head is its embedding, has 596,049,920 parameters."""
        assert_equal(costs.parameter_count(SMALL), 596_049_920, "parameters of Qwen3-0.6B")


class TestLayerFlops:
    """FLOPs of a layer."""

    def test_llama(self):
        """A layer of Llama-3.1-8B takes 4,672,924,418,048 FLOPs for 8,192 tokens, in three parts."""
        flops = costs.layer_flops(LLAMA, 8192)
        assert_equal(flops.projections, 687_194_767_360, "projections")
        assert_equal(flops.attention, 1_099_511_627_776, "attention")
        assert_equal(flops.mlp, 2_886_218_022_912, "MLP")

    def test_decoding(self):
        """One token after 8,191 cached ones costs 1/8,192 of what the whole prompt costs, in each part."""
        flops = costs.layer_flops(LLAMA, 1, 8191)
        assert_equal(flops, costs.LayerFlops(83_886_080, 134_217_728, 352_321_536), "FLOPs of a decoding step")


class TestForwardFlops:
    """FLOPs of a forward pass."""

    def test_llama(self):
        """Llama-3.1-8B takes 158,140,695,838,720 FLOPs for a prompt of 8,192 tokens with logits everywhere."""
        assert_equal(costs.forward_flops(LLAMA, 8192), 158_140_695_838_720, "FLOPs")

    def test_last_logits(self):
        """With logits at the last position only, the LM head costs 2 * 4,096 * 128,256 FLOPs."""
        layers = 32 * 4_672_924_418_048
        assert_equal(costs.forward_flops(LLAMA, 8192, num_logits=1), layers + 2 * 4096 * 128_256, "FLOPs")


class TestCrossoverLength:
    """Where attention overtakes the rest."""

    def test_llama(self):
        """In Llama-3.1-8B, attention takes as much as everything else in a layer at 26,624 tokens."""
        assert_equal(costs.crossover_length(LLAMA), 26_624, "length")


class TestWeightBytes:
    """Memory of the weights."""

    def test_sixteen_and_four_bits(self):
        """Llama-3.1-8B takes 16.06 GB in bfloat16, and a quarter of that with 4 bits."""
        assert_equal(costs.weight_bytes(LLAMA), 16_060_522_496, "bytes at 16 bits")
        assert_equal(costs.weight_bytes(LLAMA, 4), 4_015_130_624, "bytes at 4 bits")


class TestKvCacheBytes:
    """Memory of the cache."""

    def test_qwen(self):
        """Qwen3-8B keeps 147,456 bytes a token, 4.5 GiB for 32,768 tokens."""
        assert_equal(costs.kv_cache_bytes(QWEN, 1), 147_456, "bytes of a token")
        assert_equal(costs.kv_cache_bytes(QWEN, 32_768), 9 * 2**29, "bytes of 32,768 tokens")


class TestLargestBatch:
    """How many sequences fit."""

    def test_h100(self):
        """59 sequences of 8,192 tokens fit beside Llama-3.1-8B into the 80 GB of an H100."""
        assert_equal(costs.largest_batch(LLAMA, H100.memory_bytes, 8192), 59, "batch size")


class TestLongestContext:
    """How long a context fits."""

    def test_rtx_4090(self):
        """60,573 tokens fit beside Llama-3.1-8B into the 24 GB of an RTX 4090."""
        assert_equal(costs.longest_context(LLAMA, HARDWARE["RTX 4090"].memory_bytes), 60_573, "tokens")


class TestForwardBytes:
    """Bytes that move."""

    def test_decoding(self):
        """A step of 8 sequences reads the weights once, and writes a position to each of the 8 caches that it reads."""
        expected = 16_060_522_496 + 8 * 1024 * 131_072
        assert_equal(costs.forward_bytes(LLAMA, 1, 1023, batch_size=8), expected, "bytes")


class TestArithmeticIntensity:
    """FLOPs a byte."""

    def test_decoding_and_prefill(self):
        """A decoding step of Llama-3.1-8B does less than one FLOP a byte, a prompt of 2,048 tokens 1,885."""
        assert_close(costs.arithmetic_intensity(LLAMA, 1, 1), 15_010_365_440 / 16_060_784_640, 1e-9, "decoding")
        assert_close(costs.arithmetic_intensity(LLAMA, 2048), 1885.4465, 1e-3, "prefill of 2,048 tokens")


class TestRooflineSeconds:
    """The roofline."""

    def test_both_sides(self):
        """The slower of arithmetic and memory traffic decides."""
        device = costs.Hardware("toy", flops_per_second=100.0, bytes_per_second=4.0, memory_bytes=1000)
        assert_close(costs.roofline_seconds(50, 40, device), 10.0, 1e-12, "seconds")
        assert_close(costs.roofline_seconds(5000, 40, device), 50.0, 1e-12, "seconds")


class TestPrefillSeconds:
    """Reading a prompt."""

    def test_h100(self):
        """An H100 reads a prompt of 8,192 tokens with Llama-3.1-8B in no less than 0.151 s."""
        assert_close(costs.prefill_seconds(LLAMA, H100, 8192), 0.151198, 1e-6, "seconds")


class TestDecodeSeconds:
    """A step of decoding."""

    def test_h200(self):
        """An H200 needs at least 3.35 ms for a token of Llama-3.1-8B: the time to read its weights."""
        assert_close(costs.decode_seconds(LLAMA, H200, 0), 3.34597e-3, 1e-8, "seconds")


class TestComputeBoundBatch:
    """Where decoding becomes bound by arithmetic."""

    def test_short_and_long(self):
        """On an A100, 189 sequences of Llama-3.1-8B of 100 tokens are bound by arithmetic, and no number of 1,000."""
        a100 = HARDWARE["A100"]
        assert_equal(costs.compute_bound_batch(LLAMA, a100, 100), 189, "batch size after 100 tokens")
        if costs.compute_bound_batch(LLAMA, a100, 1000) is not None:
            pytest.fail("expected None after 1,000 tokens: each sequence brings more traffic than arithmetic")
