"""Weights in fewer bits: int8 matrices, int4 in groups, and a linear layer whose weights stay quantised.

A weight has the shape (out, in) of `torch.nn.Linear`. It may be of any floating-point type; computations are in float32
at least, and scales and dequantised weights are float32. The quantised values are the nearest ones (ties may go either
way), so that |x - dequantised| <= scale / 2 but for rounding in the last bits. Where a scale would be 0, because all
that it belongs to is 0, it is 1. No function changes its arguments.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int8, UInt8
from torch import Tensor, nn

Model = Callable[..., Float[Tensor, "batch positions vocab"]]


@dataclass(frozen=True)
class Int8Matrix:
    """A matrix in int8: x is about scale * (code - zero_point)."""

    codes: Int8[Tensor, "rows columns"]
    scale: Float[Tensor, "#rows #columns"]
    """Of shape (1, 1), (rows, 1) or (1, columns), in float32: for the whole matrix, each row, or each column."""
    zero_point: Int8[Tensor, "#rows #columns"] | None
    """The code that stands for 0, of the shape of `scale`; None where it is 0 everywhere."""

    @property
    def nbytes(self) -> int:
        """The bytes that its tensors take."""
        return self.codes.nbytes + self.scale.nbytes + (0 if self.zero_point is None else self.zero_point.nbytes)


@dataclass(frozen=True)
class Int4Matrix:
    """A matrix in int4, two codes a byte, with a scale for every `group_size` neighbours in a row."""

    packed: UInt8[Tensor, "rows bytes"]
    """The codes as `pack_int4` packs them."""
    scale: Float[Tensor, "rows groups"]
    """In float32. Column c belongs to group c // group_size; the last group may be smaller."""
    columns: int
    group_size: int

    @property
    def nbytes(self) -> int:
        """The bytes that its tensors take."""
        return self.packed.nbytes + self.scale.nbytes


def quantize_symmetric(x: Float[Tensor, "rows columns"], axis: int | None = None) -> Int8Matrix:
    """Quantise to codes from -127 to 127, with 0 for 0: scale = max|x| / 127.

    There is a scale for the whole matrix (`axis` None), for each row (0: in a weight, each output), or for each column
    (1). Raises ValueError unless all of x is finite.
    """
    raise NotImplementedError


def quantize_asymmetric(x: Float[Tensor, "rows columns"], axis: int | None = None) -> Int8Matrix:
    """Quantise the range from min(x, 0) to max(x, 0) to codes from -128 to 127: scale = (max - min) / 255.

    The range contains 0, and the zero point is the integer nearest to -128 - min / scale, so 0 is represented exactly.
    `axis` is as in `quantize_symmetric`. Raises ValueError unless all of x is finite.

    Paper: Jacob et al., 2018, https://arxiv.org/abs/1712.05877.
    """
    raise NotImplementedError


def dequantize_int8(matrix: Int8Matrix) -> Float[Tensor, "rows columns"]:
    """Return scale * (code - zero_point) in float32."""
    raise NotImplementedError


def pack_int4(codes: Int8[Tensor, "rows columns"]) -> UInt8[Tensor, "rows bytes"]:
    """Pack two codes from -8 to 7 into a byte, each as its four bits in two's complement.

    Byte b of a row holds column 2b in its low and column 2b + 1 in its high four bits. The high bits of the last byte
    are 0 where the number of columns is odd. Raises ValueError for a code outside of -8 to 7.
    """
    raise NotImplementedError


def unpack_int4(packed: UInt8[Tensor, "rows bytes"], columns: int) -> Int8[Tensor, "rows columns"]:
    """Return the codes, from -8 to 7, that were packed. Raises ValueError unless a row has (columns + 1) // 2 bytes."""
    raise NotImplementedError


def quantize_int4(weight: Float[Tensor, "rows columns"], group_size: int) -> Int4Matrix:
    """Quantise every `group_size` neighbours in a row to codes from -7 to 7: scale = max|w| / 7 of the group.

    The last group of a row may be smaller. Raises ValueError unless group_size >= 1 and all of the weight is finite.
    """
    raise NotImplementedError


def dequantize_int4(matrix: Int4Matrix) -> Float[Tensor, "rows columns"]:
    """Return scale * code in float32, each column with the scale of its group."""
    raise NotImplementedError


def error_bound(x: Float[Tensor, "batch columns"], weight: Int4Matrix) -> Float[Tensor, "batch rows"]:
    """Return how far x times the quantised weight can be from x times the original: sum over c of |x_c| scale_c / 2.

    The original is any weight that has this quantised form with |w - dequantised| <= scale / 2.
    """
    raise NotImplementedError


class QuantizedLinear(nn.Module):
    """A linear layer whose weight stays in int4: y = x W^T + b, with W dequantised for the moment of the product.

    Its state_dict holds the tensors of the weight, the bias as it is, if there is one, and nothing else.
    """

    def __init__(self, weight: Int4Matrix, bias: Float[Tensor, "rows"] | None = None):
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "*batch columns"]) -> Float[Tensor, "*batch rows"]:
        """Return x W^T + b in the type of x, which is also what the weight and the bias are cast to."""
        raise NotImplementedError


def quantize_weights(weights: Mapping[str, Tensor], group_size: int) -> dict[str, Tensor | Int4Matrix]:
    """Quantise the matrices of a model's layers, and leave all else: embeddings, output head, norms and biases.

    `weights` are a state_dict, of `hw3.transformer.Transformer` or another model whose layers are so named: matrices of
    layers are the tensors of two dimensions whose names begin with "layers.". The result has the same names.
    """
    raise NotImplementedError


def perplexity(model: Model, documents: Sequence[Sequence[int]]) -> float:
    """Return exp(-mean of ln p(token | tokens before it in its document)) over all tokens but the first of each.

    Every such token counts the same, in whatever document. `model(token_ids)` is a `hw3.transformer.Transformer`: it
    returns the logits of the token after each. Raises ValueError when no document has two tokens.
    """
    raise NotImplementedError
