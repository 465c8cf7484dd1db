"""Hidden tests of hw3.quantization: bounds for every element, all bytes, and a transformer of the test's own."""

import itertools
import math

import pytest
import torch

from hw3 import quantization
from hw3.transformer import Config, Transformer
from shared_tasks.checks import assert_close, assert_equal

ROUNDING = 1e-4  # of a scale: float32 keeps seven digits


def normal(seed, *shape, dtype=torch.float32):
    """Draw numbers from a standard normal distribution, rows and columns of very different sizes."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return (x * 10.0 ** torch.arange(shape[0])[:, None] * (1 + torch.arange(shape[1])) / shape[1]).to(dtype)


def assert_type(tensor, dtype, what):
    """Fail unless a tensor has this dtype."""
    assert_equal(str(tensor.dtype), str(dtype), f"the dtype of {what}")


def assert_nearest(restored, x, scale, what):
    """Fail unless every element is within half of its scale."""
    error = ((restored - x.double()).abs() / scale).max().item()
    assert error <= 0.5 + ROUNDING, f"{what}: expected errors of at most scale / 2, got one of {error:.4g} scale"


def restore(matrix):
    """Dequantise int8 in float64."""
    zero_point = 0 if matrix.zero_point is None else matrix.zero_point.double()
    return matrix.scale.double() * (matrix.codes.double() - zero_point)


def assert_int8(matrix, x, axis, what):
    """Fail unless types and shapes are those of an int8 matrix with scales along an axis, each element nearest."""
    shape = {None: (1, 1), 0: (x.shape[0], 1), 1: (1, x.shape[1])}[axis]
    assert_type(matrix.codes, torch.int8, f"the codes of {what}")
    assert_type(matrix.scale, torch.float32, f"the scale of {what}")
    assert_equal(tuple(matrix.codes.shape), tuple(x.shape), f"the shape of the codes of {what}")
    assert_equal(tuple(matrix.scale.shape), shape, f"the shape of the scale of {what}")
    if matrix.zero_point is not None:
        assert_type(matrix.zero_point, torch.int8, f"the zero point of {what}")
        assert_equal(tuple(matrix.zero_point.shape), shape, f"the shape of the zero point of {what}")
    assert_nearest(restore(matrix), x, matrix.scale, what)


def reduced(x, axis, function):
    """Apply torch.amin or torch.amax to what shares a scale."""
    return function(x.double(), (0, 1) if axis is None else (1 - axis,), keepdim=True)


def assert_scale(actual, expected, what):
    """Fail unless scales are within a relative 1e-5."""
    assert_close(actual / expected, torch.ones_like(expected), 1e-5, f"{what} over the expected one")


def assert_refuses_infinities(function, *arguments):
    """Fail unless numbers that are not finite raise ValueError."""
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError):  # noqa: PT011
            function(torch.tensor([[1.0, 2.0], [bad, 0.5]]), *arguments)


class TestQuantizeSymmetric:
    """Symmetric int8."""

    def test_each_axis(self):
        """One scale for all, for each row or for each column is max|x| / 127 over what shares it; errors are at most
        half of it.

        axis 0 keeps the rows apart: the maximum is over dimension 1. The code is the nearest integer, not the next
        towards 0.
        """
        for seed, shape in enumerate(((3, 5), (4, 4), (1, 9))):
            x = normal(seed, *shape)
            x[0, 0] = -3 * x.abs().max()  # the largest is negative
            for axis in (None, 0, 1):
                matrix = quantization.quantize_symmetric(x, axis)
                assert_int8(matrix, x, axis, f"shape {shape} with axis {axis}")
                assert_scale(matrix.scale, reduced(x.abs(), axis, torch.amax) / 127, f"the scale with axis {axis}")
                assert_equal(matrix.zero_point, None, "the zero point")

    def test_range(self):
        """Codes are from -127 to 127, so -x has the codes of x with the other sign.

        -128 has no counterpart; symmetric quantisation leaves it out.
        """
        x = normal(5, 6, 40)
        for axis in (None, 0, 1):
            codes = quantization.quantize_symmetric(x, axis).codes
            assert_equal(int(codes.abs().max()), 127, f"the largest code with axis {axis}")
            assert_equal(
                quantization.quantize_symmetric(-x, axis).codes.tolist(), (-codes).tolist(), f"codes of -x, axis {axis}"
            )
        assert_equal(int(quantization.quantize_symmetric(x.abs().neg()).codes.min()), -127, "the least code")

    def test_zeros(self):
        """What is all 0 has scale 1 and codes 0, beside rows that are not; numbers that are not finite are refused.

        0 / 0 is NaN, and NaN as an integer is anything. So would be an infinity over an infinity.
        """
        x = normal(7, 3, 4)
        x[1] = 0
        matrix = quantization.quantize_symmetric(x, 0)
        assert_int8(matrix, x, 0, "a row of zeros")
        assert_equal((matrix.scale[1].item(), matrix.codes[1].tolist()), (1.0, [0] * 4), "scale and codes of zeros")
        whole = quantization.quantize_symmetric(torch.zeros(2, 3))
        assert_equal((whole.scale.item(), whole.codes.tolist()), (1.0, [[0] * 3] * 2), "scale and codes of zeros")
        assert_refuses_infinities(quantization.quantize_symmetric)
        assert_refuses_infinities(quantization.quantize_symmetric, 0)

    def test_other_types(self):
        """Weights in half precision are quantised in float32, and the given weight is left as it is.

        bfloat16 keeps eight bits: x / scale in it is off by up to a quarter.
        """
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            x = normal(9, 3, 200, dtype=dtype)
            before = x.clone()
            assert_int8(quantization.quantize_symmetric(x, 0), x, 0, f"a weight in {dtype}")
            assert_equal(bool((x == before).all()), True, "the weight unchanged")


class TestQuantizeAsymmetric:
    """Asymmetric int8."""

    def test_each_axis(self):
        """The range from min(x, 0) to max(x, 0) has 255 steps, along whatever axis; errors are at most half of one.

        The zero point is rounded to an integer before codes are made, and only then added to the rounded x / scale.
        """
        for seed, offset in itertools.product(range(3), (0.0, 0.3, -0.2)):
            x = normal(seed, 3, 50) + offset
            for axis in (None, 0, 1):
                matrix = quantization.quantize_asymmetric(x, axis)
                what = f"axis {axis}, x around {offset}"
                assert_int8(matrix, x, axis, what)
                low, high = reduced(x, axis, torch.amin).clamp(max=0), reduced(x, axis, torch.amax).clamp(min=0)
                assert_scale(matrix.scale, (high - low) / 255, f"the scale with {what}")
                off = (matrix.zero_point - (-128 - low / matrix.scale.double())).abs().max().item()
                assert off <= 0.5 + 1e-3, f"{what}: expected the nearest zero point, got one that is off by {off:.3g}"

    def test_one_sided(self):
        """Where all of x has one sign, the range still contains 0, which has its own code.

        Otherwise the zero point of numbers from 100 to 101 would not be a code at all.
        """
        for seed, sign in itertools.product((3, 4), (1, -1)):
            x = sign * (100 + torch.rand(4, 30, generator=torch.Generator().manual_seed(seed)))
            for axis in (None, 0, 1):
                matrix = quantization.quantize_asymmetric(x, axis)
                assert_int8(matrix, x, axis, f"x around {100 * sign}, axis {axis}")
                assert_scale(
                    matrix.scale, reduced(x.abs(), axis, torch.amax) / 255, f"the scale of x around {100 * sign}"
                )
                assert_equal(set(matrix.zero_point.flatten().tolist()), {-128 if sign > 0 else 127}, "zero point")

    def test_zero_is_exact(self):
        """0 comes back as exactly 0, as padding and masks need it, and all zeros have scale 1.

        The code of 0 is the zero point.
        """
        x = torch.relu(normal(8, 4, 60)) - 0.37 * torch.relu(-normal(9, 4, 60))
        x[2], x[:, ::7] = 0, 0
        for axis in (None, 0, 1):
            matrix = quantization.quantize_asymmetric(x, axis)
            assert_int8(matrix, x, axis, f"axis {axis}")
            assert_equal(float(restore(matrix)[x == 0].abs().max()), 0.0, f"what 0 becomes with axis {axis}")
        assert_equal(quantization.quantize_asymmetric(x, 0).scale[2].item(), 1.0, "the scale of zeros")

    def test_whole_range(self):
        """Both ends of the range are codes, and codes never wrap around; numbers that are not finite are refused.

        Clamp before the cast to int8: 128 would become -128.
        """
        for low, high in ((-100.5, 154.5), (-127.5, 127.5), (-0.5, 254.5), (-254.4, 0.6), (-1.3, 1.7)):
            for fraction in (1.0, 0.37, 3.3):
                x = fraction * torch.linspace(low, high, 511)[None]
                matrix = quantization.quantize_asymmetric(x)
                assert_int8(matrix, x, None, f"{low} to {high}, times {fraction}")
                codes = matrix.codes[0].tolist()
                assert_equal(codes, sorted(codes), f"codes of ascending numbers from {low} to {high}")
                used = codes[-1] - codes[0]
                assert used >= 254, f"expected codes over the whole range, got {codes[0]} to {codes[-1]}"
        assert_refuses_infinities(quantization.quantize_asymmetric, 0)


class TestDequantizeInt8:
    """From int8 to float32."""

    def matrix(self, seed, shape, zero_point):
        """Return a matrix of random codes."""
        generator = torch.Generator().manual_seed(seed)
        codes = torch.randint(-128, 128, (4, 6), generator=generator, dtype=torch.int8)
        points = torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8) if zero_point else None
        return quantization.Int8Matrix(codes, torch.rand(shape, generator=generator) / 50, points)

    def test_all_kinds(self):
        """scale * (code - zero_point) in float32, for one scale, scales of rows and scales of columns.

        Shapes (rows, 1) and (1, columns) broadcast as they are.
        """
        for seed, (shape, zero_point) in enumerate(itertools.product(((1, 1), (4, 1), (1, 6)), (True, False))):
            matrix = self.matrix(seed, shape, zero_point)
            result = quantization.dequantize_int8(matrix)
            assert_type(result, torch.float32, "the result")
            assert_close(result, restore(matrix), 1e-5, f"scale of shape {shape}, zero point {zero_point}")

    def test_differences_beyond_int8(self):
        """A code of 127 and a zero point of -128 are 255 steps apart.

        In int8 the difference would be -1: cast before subtracting.
        """
        codes = torch.tensor([[127, -128, 0, 1]], dtype=torch.int8)
        for point, expected in ((-128, [255.0, 0, 128, 129]), (127, [0.0, -255, -127, -126])):
            matrix = quantization.Int8Matrix(codes, torch.ones(1, 1), torch.tensor([[point]], dtype=torch.int8))
            assert_close(quantization.dequantize_int8(matrix), torch.tensor([expected]), 0.0, f"zero point {point}")

    def test_precision(self):
        """The product is computed in float32.

        Half precision would add an error of its own to that of quantisation.
        """
        codes = torch.arange(-127, 128, dtype=torch.int8)[None]
        matrix = quantization.Int8Matrix(codes, torch.tensor([[1.2345678e-6]]), None)
        actual = quantization.dequantize_int8(matrix)
        assert_close(actual * 1e6, codes.double() * 1.2345678, 1e-4, "millions of the result")


def nibbles(codes):
    """Pack rows of integers, one at a time."""
    rows = [[code % 16 for code in row] + [0] * (len(row) % 2) for row in codes]
    return [[low + 16 * high for low, high in zip(row[::2], row[1::2], strict=True)] for row in rows]


def from_nibbles(packed, columns):
    """Unpack, one byte at a time."""
    rows = [[half for byte in row for half in (byte % 16, byte // 16)][:columns] for row in packed.tolist()]
    return torch.tensor([[half - 16 if half > 7 else half for half in row] for row in rows])


def random_codes(seed, rows, columns):
    """Draw codes from -8 to 7."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-8, 8, (rows, columns), generator=generator, dtype=torch.int8)


class TestPackInt4:
    """Two codes a byte."""

    def test_all_pairs(self):
        """Each of the 256 pairs of codes becomes the byte with the first one in its low bits.

        A negative code has ones above its four bits in int8: mask them off before the halves are put together.
        """
        pairs = torch.tensor(list(itertools.product(range(-8, 8), repeat=2)), dtype=torch.int8)
        packed = quantization.pack_int4(pairs)
        assert_type(packed, torch.uint8, "the bytes")
        assert_equal(packed.tolist(), nibbles(pairs.tolist()), "the bytes of all pairs")
        wide = pairs.reshape(16, 32)
        assert_equal(quantization.pack_int4(wide).tolist(), nibbles(wide.tolist()), "the bytes of long rows")

    def test_odd_and_refused(self):
        """A last code alone leaves the high bits 0; a code that four bits cannot hold is refused.

        8 would come back as -8.
        """
        for columns in (1, 3, 7):
            codes = random_codes(columns, 5, columns)
            codes[0] = -1
            assert_equal(quantization.pack_int4(codes).tolist(), nibbles(codes.tolist()), f"{columns} columns")
        for code in (8, -9, 127, -128):
            with pytest.raises(ValueError):  # noqa: PT011
                quantization.pack_int4(torch.tensor([[0, 1], [code, 0]], dtype=torch.int8))


class TestUnpackInt4:
    """And back."""

    def test_all_bytes(self):
        """Each of the 256 bytes holds two codes from -8 to 7, the first one in its low bits.

        Bits 1000 to 1111 are negative: the fourth bit is the sign. A shift to the right of an int8 keeps its sign.
        """
        packed = torch.arange(256, dtype=torch.uint8)
        for rows in (256, 16, 1):
            given = packed.reshape(rows, -1)
            codes = quantization.unpack_int4(given, 512 // rows)
            assert_type(codes, torch.int8, "the codes")
            assert_equal(codes.tolist(), from_nibbles(given, 512 // rows).tolist(), f"the codes in {rows} rows")

    def test_odd_and_refused(self):
        """An odd number of columns drops the last half byte; a number that the bytes do not hold is refused.

        2n bytes hold 4n or 4n - 1 codes.
        """
        for columns in (1, 5, 6):
            codes = random_codes(20 + columns, 3, columns)
            packed = torch.tensor(nibbles(codes.tolist()), dtype=torch.uint8)
            assert_equal(quantization.unpack_int4(packed, columns).tolist(), codes.tolist(), f"{columns} columns")
            for wrong in (columns + 2, max(columns - 2, 0)):
                with pytest.raises(ValueError):  # noqa: PT011
                    quantization.unpack_int4(packed, wrong)


def int4_scale(matrix):
    """Return the scale of each element."""
    return matrix.scale.repeat_interleave(min(matrix.group_size, matrix.columns), 1)[:, : matrix.columns].double()


def int4_restore(matrix):
    """Dequantise int4 in float64."""
    return int4_scale(matrix) * from_nibbles(matrix.packed, matrix.columns)


def assert_int4(matrix, x, group_size, what):
    """Fail unless types, shapes and scales are those of an int4 matrix, each element nearest."""
    rows, columns = x.shape
    groups = [x[:, start : start + group_size].double().abs().amax(1) / 7 for start in range(0, columns, group_size)]
    expected = torch.stack(groups, 1)
    assert_type(matrix.packed, torch.uint8, f"the bytes of {what}")
    assert_type(matrix.scale, torch.float32, f"the scales of {what}")
    assert_equal(matrix.columns, columns, f"the columns of {what}")
    assert_equal(tuple(matrix.packed.shape), (rows, (columns + 1) // 2), f"the shape of the bytes of {what}")
    assert_equal(tuple(matrix.scale.shape), tuple(expected.shape), f"the shape of the scales of {what}")
    assert_scale(matrix.scale, expected.where(expected > 0, 1.0), f"the scales of {what}")
    least = int(from_nibbles(matrix.packed, columns).min())
    assert least >= -7, f"{what}: expected codes from -7 to 7, got {least}"
    assert_nearest(int4_restore(matrix), x, int4_scale(matrix), what)


class TestQuantizeInt4:
    """Int4 in groups."""

    def test_groups(self):
        """Each group of neighbours in a row has the scale max|w| / 7; errors are at most half of it.

        Groups go along the inputs, which a row of the weight has side by side. Round to the nearest code.
        """
        for seed, (shape, group_size) in enumerate((((3, 8), 4), ((8, 8), 2), ((2, 12), 12), ((5, 6), 1))):
            x = normal(seed, *shape)
            x[0, 1] = -2 * x[0].abs().max()
            assert_int4(quantization.quantize_int4(x, group_size), x, group_size, f"{shape} in groups of {group_size}")

    def test_last_group(self):
        """The last group of a row may be smaller, and one group larger than the row is the row.

        It gets a scale of its own, from its own elements.
        """
        for seed, (shape, group_size) in enumerate((((3, 10), 4), ((2, 7), 3), ((4, 5), 32), ((3, 9), 8), ((2, 1), 2))):
            x = normal(10 + seed, *shape)
            assert_int4(quantization.quantize_int4(x, group_size), x, group_size, f"{shape} in groups of {group_size}")

    def test_zeros(self):
        """A group of zeros has scale 1 and codes 0; numbers that are not finite and groups of nothing are refused.

        Whole groups of a pruned weight are 0, and 0 / 0 is NaN.
        """
        x = normal(4, 3, 8)
        x[1, 4:], x[2] = 0, 0
        matrix = quantization.quantize_int4(x, 4)
        assert_int4(matrix, x, 4, "a weight with groups of zeros")
        assert_refuses_infinities(quantization.quantize_int4, 2)
        for group_size in (0, -4):
            with pytest.raises(ValueError):  # noqa: PT011
                quantization.quantize_int4(x, group_size)

    def test_other_types(self):
        """Weights in half precision are quantised in float32, and the given weight is left as it is.

        A scale rounded to bfloat16 is no longer max|w| / 7.
        """
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            x = normal(9, 3, 100, dtype=dtype)
            before = x.clone()
            assert_int4(quantization.quantize_int4(x, 32), x, 32, f"a weight in {dtype}")
            assert_equal(bool((x == before).all()), True, "the weight unchanged")


def random_int4(seed, rows, columns, group_size):
    """Return a matrix of random codes and scales of different sizes."""
    codes = random_codes(seed, rows, columns)
    groups = -(-columns // group_size)
    scale = 0.1 + torch.rand(rows, groups, generator=torch.Generator().manual_seed(seed + 1))
    packed = torch.tensor(nibbles(codes.tolist()), dtype=torch.uint8)
    return quantization.Int4Matrix(packed, scale, columns, group_size)


SHAPES = ((4, 8, 4), (6, 6, 3), (3, 10, 4), (5, 7, 2), (2, 5, 64), (7, 1, 1))


class TestDequantizeInt4:
    """From int4 to float32."""

    def test_any_groups(self):
        """Each code times the scale of its group in float32, for groups that fit and groups that do not.

        Column c has the scale c // group_size.
        """
        for seed, (rows, columns, group_size) in enumerate(SHAPES):
            matrix = random_int4(seed, rows, columns, group_size)
            result = quantization.dequantize_int4(matrix)
            assert_type(result, torch.float32, "the result")
            assert_close(result, int4_restore(matrix), 1e-5, f"{rows} x {columns} in groups of {group_size}")

    def test_negative_codes(self):
        """All codes from -8 to 7 come back with their signs.

        Other programs use -8 too.
        """
        codes = list(range(-8, 8))
        packed = torch.tensor(nibbles([codes]), dtype=torch.uint8)
        scale = torch.tensor([[0.5, 2.0]])
        result = quantization.dequantize_int4(quantization.Int4Matrix(packed, scale, 16, 8))
        assert_close(result[0], torch.tensor([code * (0.5 if code < 0 else 2.0) for code in codes]), 0.0, "all codes")


class TestErrorBound:
    """How far an output can be off."""

    def test_closed_form(self):
        """The bound is the sum over the inputs of |x| times half of the scale of the weight's group.

        Signs of x do not matter: errors may all point the same way.
        """
        for seed, (rows, columns, group_size) in enumerate(SHAPES):
            matrix = random_int4(30 + seed, rows, columns, group_size)
            x = torch.randn(3, columns, generator=torch.Generator().manual_seed(seed))
            expected = x.double().abs() @ int4_scale(matrix).T / 2
            assert_close(
                quantization.error_bound(x, matrix), expected, 1e-4, f"{rows} x {columns} in groups of {group_size}"
            )

    def test_reached(self):
        """Some weight of this quantised form reaches the bound, and none goes beyond.

        The worst weight is off by scale / 2 in the direction of the sign of x.
        """
        matrix = random_int4(50, 4, 9, 4)
        weight, half = int4_restore(matrix), int4_scale(matrix) / 2
        x = torch.randn(5, 9, generator=torch.Generator().manual_seed(3))
        bound = quantization.error_bound(x, matrix)
        for row in range(5):
            worst = weight + half * x[row].double().sign()
            assert_close(bound[row], x[row].double() @ (worst - weight).T, 1e-4, f"the worst case of input {row}")


def random_transformer(seed):
    """Build a small transformer with random weights; no matrix is square, and no size is a multiple of another."""
    config = Config(
        vocab_size=22, hidden_size=14, intermediate_size=18, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, rms_norm_eps=1e-6, rope_theta=300.0,
        tie_word_embeddings=False, max_position_embeddings=64, eos_token_id=0,
    )  # fmt: skip
    model = Transformer(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.normal_(0.0, 2.0 * weight.shape[1] ** -0.5, generator=generator)
    return model


class Calling(torch.nn.Module):
    """A module of the judge's own that asks a layer of the submission."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        """Ask."""
        return self.layer(x)


class TestQuantizedLinear:
    """A layer in int4."""

    def test_output(self):
        """y is x W^T + b for any leading dimensions of x, with and without a bias, in the type of x.

        Only the weight is quantised: neither x nor the bias is rounded to fewer bits.
        """
        generator = torch.Generator().manual_seed(2)
        for seed, (rows, columns, group_size) in enumerate(SHAPES):
            matrix = random_int4(60 + seed, rows, columns, group_size)
            bias = 30 + torch.randn(rows, generator=generator)
            for b in (bias, None):
                layer = quantization.QuantizedLinear(matrix, b)
                for leading in ((3,), (2, 3), ()):
                    x = torch.randn(*leading, columns, generator=generator)
                    expected = x.double() @ int4_restore(matrix).T + (0 if b is None else b.double())
                    what = f"{rows} x {columns} in groups of {group_size}, bias {b is not None}"
                    assert_close(layer(x), expected, 1e-4, what)
            for dtype in (torch.bfloat16, torch.float64):
                layer = quantization.QuantizedLinear(matrix, bias)
                x = torch.randn(2, columns, generator=generator, dtype=torch.float32).to(dtype)
                y = layer(x)
                assert_type(y, dtype, f"the output for an input in {dtype}")
                expected = x.double() @ int4_restore(matrix).T + bias.double()
                assert_close(y, expected, 1.0 if dtype is torch.bfloat16 else 1e-5, f"the output in {dtype}")

    def test_bytes(self):
        """What a layer keeps is as large as its codes, its scales and its bias.

        The point of it all: a dequantised weight that is kept takes eight times as much.
        """
        for bias in (torch.randn(30, generator=torch.Generator().manual_seed(0)), None):
            matrix = random_int4(70, 30, 64, 32)
            layer = quantization.QuantizedLinear(matrix, bias)
            layer(torch.ones(1, 64))
            kept = sum(tensor.nbytes for tensor in layer.state_dict().values())
            expected = 30 * 32 + 30 * 2 * 4 + (0 if bias is None else 30 * 4)
            assert_equal(kept, expected, "bytes in the state_dict")

    def test_in_the_transformer(self):
        """In place of the linear layers of a transformer, these give the logits of the dequantised weights.

        The layer is called with (batch, new, hidden).
        """
        model, quantised = random_transformer(3), random_transformer(3)
        for i, (name, module) in enumerate(list(model.named_modules())):
            if name.startswith("layers.") and isinstance(module, torch.nn.Linear):
                matrix = random_int4(80 + i, *module.weight.shape, 4)
                matrix.scale.mul_(module.weight.std() / 4)
                module.weight.copy_(int4_restore(matrix))
                parent, _, child = name.rpartition(".")
                setattr(quantised.get_submodule(parent), child, Calling(quantization.QuantizedLinear(matrix)))
        token_ids = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
        assert_close(quantised(token_ids), model(token_ids), 1e-3, "logits of the transformer")


class TestQuantizeWeights:
    """A whole model."""

    def test_which(self):
        """The matrices of the layers become int4 with this group size; embeddings, head, norms and biases stay.

        Qwen2 has biases in its layers: one dimension, so they stay. So does a matrix that belongs to no layer.
        """
        weights = dict(random_transformer(4).state_dict())
        weights["layers.0.self_attn.q_proj.bias"] = torch.linspace(-1, 1, 24)
        before = {name: weight.clone() for name, weight in weights.items()}
        quantised = quantization.quantize_weights(weights, 4)
        assert_equal(list(quantised), list(before), "the names")
        for name, weight in before.items():
            if name.startswith("layers.") and name.endswith("proj.weight"):
                assert hasattr(quantised[name], "packed"), f"expected {name} in int4, got {type(quantised[name])}"
                assert_int4(quantised[name], weight, 4, name)
            else:
                assert_close(quantised[name], weight, 0.0, name)
                assert_type(quantised[name], weight.dtype, name)
        assert_equal(
            [name for name in before if not bool((weights[name] == before[name]).all())], [], "changed arguments"
        )

    def test_in_the_transformer(self):
        """The model with dequantised weights computes nearly what it did, nearer with smaller groups.

        The name says which layer a weight is of: each must come back under its own.
        """
        model = random_transformer(5)
        token_ids = torch.tensor([[7, 1, 4, 20, 5, 9, 11, 3]])
        expected, errors = model(token_ids), []
        for group_size in (1, 3, 14):
            restored = random_transformer(6)
            weights = quantization.quantize_weights(dict(model.state_dict()), group_size)
            restored.load_state_dict(
                {name: int4_restore(w) if hasattr(w, "packed") else w for name, w in weights.items()}
            )
            errors.append((restored(token_ids) - expected).abs().mean().item())
        assert errors[0] < 1e-4, f"expected no error with a scale for each weight, got {errors[0]:.3g}"
        assert errors[0] < errors[1] < errors[2] < 2, f"expected errors that grow with the group size, got {errors}"


class TestPerplexity:
    """Perplexity of a transformer."""

    def documents(self, seed):
        """Draw documents of very different lengths."""
        generator = torch.Generator().manual_seed(seed)
        return [torch.randint(1, 22, (n,), generator=generator).tolist() for n in (2, 17, 5, 1, 30)]

    def test_brute_force(self):
        """exp of the mean over all tokens but the first of each document, token by token.

        The logits at position i are for token i + 1. A long document has more tokens, and so more weight.
        """
        for seed in range(3):
            model, documents = random_transformer(seed), self.documents(seed)
            logprobs = [
                model(torch.tensor([document[:i]]))[0, -1].double().log_softmax(-1)[document[i]].item()
                for document in documents
                for i in range(1, len(document))
            ]
            expected = math.exp(-sum(logprobs) / len(logprobs))
            actual = quantization.perplexity(lambda *a, model=model, **k: model(*a, **k), documents)
            assert_close(actual / expected, 1.0, 1e-4, "the perplexity over the expected one")

    def test_known_models(self):
        """Uniform logits have the size of the vocabulary as perplexity, a model that is sure 1 or nearly infinity.

        Logits are not log-probabilities yet, and any constant may be added to them.
        """

        def uniform(token_ids, *a, **k):
            return torch.full((*token_ids.shape, 17), 50.0)

        def next_number(token_ids, *a, **k):
            return 40 + 100.0 * torch.nn.functional.one_hot((token_ids + 1) % 17, 17)

        for documents in ([[1, 2, 3, 4, 5, 6]], [[3, 4], [9, 10, 11]]):
            assert_close(quantization.perplexity(uniform, documents), 17.0, 1e-3, "perplexity of the uniform model")
            assert_close(quantization.perplexity(next_number, documents), 1.0, 1e-5, "perplexity of the sure model")

    def test_nothing_to_predict(self):
        """Documents without a second token give nothing to predict, and are refused when there are no others.

        A mean over no tokens is NaN.
        """
        model = random_transformer(7)

        def forward(*a, **k):
            return model(*a, **k)

        for documents in ([], [[3]], [[3], [4], []]):
            with pytest.raises(ValueError):  # noqa: PT011
                quantization.perplexity(forward, documents)
        alone = quantization.perplexity(forward, [[3, 4, 5]])
        assert_close(quantization.perplexity(forward, [[9], [3, 4, 5], []]), alone, 1e-3, "short documents beside")
