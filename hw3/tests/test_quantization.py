"""Public tests of hw3.quantization."""

import math

import pytest
import torch

from hw3 import quantization
from hw3.transformer import Config, Transformer
from shared_tasks.checks import assert_close, assert_equal

WEIGHT = torch.tensor([[0.5, -1.27, 0.02, 0.3], [8.0, 2.0, -25.4, 11.0]])


class TestQuantizeSymmetric:
    """Symmetric int8."""

    def test_example(self):
        """Each row is divided by its largest magnitude over 127 and rounded."""
        matrix = quantization.quantize_symmetric(WEIGHT, 0)
        assert_close(matrix.scale, torch.tensor([[0.01], [0.2]]), 1e-6, "scales of the rows")
        assert_equal(matrix.codes.tolist(), [[50, -127, 2, 30], [40, 10, -127, 55]], "codes of the rows")
        assert_close(quantization.quantize_symmetric(WEIGHT).scale, torch.tensor([[0.2]]), 1e-6, "scale of the matrix")
        columns = quantization.quantize_symmetric(WEIGHT, 1).scale
        assert_close(127 * columns, torch.tensor([[8.0, 2.0, 25.4, 11.0]]), 1e-4, "127 scales of the columns")

    def test_zeros(self):
        """A row of zeros has scale 1."""
        matrix = quantization.quantize_symmetric(torch.tensor([[0.0, 0.0], [1.0, -1.0]]), 0)
        assert_close(matrix.scale, torch.tensor([[1.0], [1 / 127]]), 1e-6, "scales")
        assert_equal(matrix.codes.tolist(), [[0, 0], [127, -127]], "codes")


class TestQuantizeAsymmetric:
    """Asymmetric int8."""

    def test_example(self):
        """The range from the least to the largest number has 255 steps; 0 has a code of its own."""
        matrix = quantization.quantize_asymmetric(torch.tensor([[-1.0, 0.0, 0.52, 1.55]]))
        assert_close(matrix.scale, torch.tensor([[0.01]]), 1e-6, "scale")
        assert_equal(matrix.zero_point.tolist(), [[-28]], "zero point")
        assert_equal(matrix.codes.tolist(), [[-128, -28, 24, 127]], "codes")

    def test_range_contains_zero(self):
        """Numbers of one sign are quantised from 0 on."""
        matrix = quantization.quantize_asymmetric(torch.tensor([[2.55, 2.0], [-5.1, -1.0]]), 0)
        assert_close(matrix.scale, torch.tensor([[0.01], [0.02]]), 1e-6, "scales")
        assert_equal(matrix.zero_point.tolist(), [[-128], [127]], "zero points")
        assert_equal(matrix.codes.tolist(), [[127, 72], [-128, 77]], "codes")


class TestDequantizeInt8:
    """From int8 to float32."""

    def test_example(self):
        """Codes less the zero point, times the scale."""
        codes = torch.tensor([[-128, 0, 127], [1, 2, 3]], dtype=torch.int8)
        points = torch.tensor([[-28], [100]], dtype=torch.int8)
        matrix = quantization.Int8Matrix(codes, torch.tensor([[0.5], [2.0]]), points)
        expected = torch.tensor([[-50.0, 14.0, 77.5], [-198.0, -196.0, -194.0]])
        assert_close(quantization.dequantize_int8(matrix), expected, 1e-5)
        matrix = quantization.Int8Matrix(codes, torch.tensor([[1.0, 2.0, 3.0]]), None)
        assert_close(quantization.dequantize_int8(matrix), codes * torch.tensor([1.0, 2.0, 3.0]), 1e-5)


class TestPackInt4:
    """Two codes a byte."""

    def test_example(self):
        """The first code is in the low bits; -1 is 1111 and -8 is 1000 in two's complement."""
        codes = torch.tensor([[1, 2, -1], [-8, 7, 0]], dtype=torch.int8)
        packed = quantization.pack_int4(codes)
        assert_equal(str(packed.dtype), "torch.uint8", "the dtype")
        assert_equal(packed.tolist(), [[0x21, 0x0F], [0x78, 0x00]], "bytes")
        with pytest.raises(ValueError):  # noqa: PT011
            quantization.pack_int4(codes + 1)


class TestUnpackInt4:
    """And back."""

    def test_example(self):
        """Codes come back with their signs."""
        packed = torch.tensor([[0x21, 0x0F], [0x78, 0x00]], dtype=torch.uint8)
        codes = quantization.unpack_int4(packed, 3)
        assert_equal(str(codes.dtype), "torch.int8", "the dtype")
        assert_equal(codes.tolist(), [[1, 2, -1], [-8, 7, 0]], "codes")
        with pytest.raises(ValueError):  # noqa: PT011
            quantization.unpack_int4(packed, 5)


class TestQuantizeInt4:
    """Int4 in groups."""

    def test_example(self):
        """Groups of a row have scales of their own, the smaller last one too."""
        weight = torch.tensor([[0.7, -0.1, 0.3, 14.0, 4.0, 0.0, -3.5], [0.0, 0.0, 0.0, 1.0, 2.0, -7.0, 21.0]])
        matrix = quantization.quantize_int4(weight, 3)
        assert_equal((matrix.columns, matrix.group_size), (7, 3), "columns and group size")
        assert_close(matrix.scale, torch.tensor([[0.1, 2.0, 0.5], [1.0, 1.0, 3.0]]), 1e-6, "scales")
        expected = [[0xF7, 0x73, 0x02, 0x09], [0x00, 0x10, 0x92, 0x07]]
        assert_equal(matrix.packed.tolist(), expected, "bytes")


def example(rows, columns, group_size):
    """Return an int4 matrix and what it stands for; rows and columns are even."""
    codes = torch.arange(rows * columns).reshape(rows, columns) % 15 - 7
    bits = codes % 16
    scale = 0.5 + torch.arange(rows * -(-columns // group_size)).reshape(rows, -1) / 4
    matrix = quantization.Int4Matrix((bits[:, ::2] + 16 * bits[:, 1::2]).byte(), scale, columns, group_size)
    scales = torch.stack([scale[:, column // group_size] for column in range(columns)], 1)
    return matrix, codes * scales, scales


class TestDequantizeInt4:
    """From int4 to float32."""

    def test_example(self):
        """Each code is multiplied by the scale of its group."""
        for shape in ((2, 6, 3), (3, 8, 8), (2, 10, 4)):
            matrix, expected, _ = example(*shape)
            assert_close(quantization.dequantize_int4(matrix), expected, 1e-5, f"rows, columns, group size: {shape}")


class TestErrorBound:
    """How far an output can be off."""

    def test_example(self):
        """Half of each scale times the magnitude of its input, summed."""
        matrix, _, scales = example(2, 4, 3)
        x = torch.tensor([[1.0, -2.0, 0.5, 4.0]])
        assert_close(scales, torch.tensor([[0.5, 0.5, 0.5, 0.75], [1.0, 1.0, 1.0, 1.25]]), 0.0, "scales of the example")
        assert_close(quantization.error_bound(x, matrix), torch.tensor([[0.875 + 1.5, 1.75 + 2.5]]), 1e-5)


class TestQuantizedLinear:
    """A layer in int4."""

    def test_output_and_bytes(self):
        """The layer computes with the dequantised weight and the exact bias, and keeps neither more nor less."""
        matrix, weight, _ = example(6, 10, 4)
        bias = torch.linspace(-1, 1, 6)
        layer = quantization.QuantizedLinear(matrix, bias)
        x = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0))
        assert_close(layer(x), x @ weight.T + bias, 1e-3, "the output")
        kept = sum(tensor.nbytes for tensor in layer.state_dict().values())
        assert_equal(kept, matrix.packed.nbytes + matrix.scale.nbytes + bias.nbytes, "bytes in the state_dict")


class TestQuantizeWeights:
    """A whole model."""

    def test_which(self):
        """The matrices of the layers are quantised, and nothing else."""
        config = Config(12, 16, 24, 2, 4, 2, 8, 1e-6, 10000.0, False, 64, 0)
        weights = dict(Transformer(config).requires_grad_(False).state_dict())
        quantised = quantization.quantize_weights(weights, 8)
        assert_equal(list(quantised), list(weights), "names")
        linear = [name for name in weights if hasattr(quantised[name], "packed")]
        assert_equal(linear, [name for name in weights if "proj" in name], "names of what is in int4")
        matrix = quantised["layers.1.mlp.down_proj.weight"]
        assert_equal((tuple(matrix.packed.shape), tuple(matrix.scale.shape)), ((16, 12), (16, 3)), "shapes")


class TestPerplexity:
    """Perplexity of a transformer."""

    def test_example(self):
        """Tokens of probability 1/2 and 1/8, in two documents: the geometric mean counts every token once."""
        logits = torch.tensor([2.0, 8.0, 8.0, 4.0]).reciprocal().log()

        def model(token_ids, *arguments, **keywords):
            return logits.expand(*token_ids.shape, 4)

        actual = quantization.perplexity(model, [[3, 0, 0, 0], [0, 1]])
        assert_close(actual, math.exp((3 * math.log(2) + math.log(8)) / 4), 1e-4)
