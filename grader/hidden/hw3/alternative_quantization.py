"""A second solution of hw3.quantization: groups one after another, arithmetic on integers, a table of nibbles."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Int8Matrix:
    """Codes, scale and zero point."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None


@dataclass(frozen=True)
class Int4Matrix:
    """Bytes, scales and how to read them."""

    packed: torch.Tensor
    scale: torch.Tensor
    columns: int
    group_size: int


def _refuse_infinite(x):
    if torch.isnan(x).any() or torch.isinf(x).any():
        raise ValueError("NaN or infinity")
    return x.detach().double()


def _affine(x, symmetric):
    """Return codes, scale and zero point of numbers that share them."""
    flat = x.flatten().tolist()
    low, high = min(0.0, *flat), max(0.0, *flat)
    scale = (max(high, -low) / 127 if symmetric else (high - low) / 255) or 1.0
    zero_point = 0 if symmetric else min(127, max(-128, round(-128 - low / scale)))
    codes = torch.floor(x / scale + 0.5) + zero_point  # ties go up
    return codes.clamp(-127 if symmetric else -128, 127).char(), scale, zero_point


def _quantize(x, axis, symmetric):
    x = _refuse_infinite(x)
    if axis is None:
        codes, scale, zero_point = _affine(x, symmetric)
        points = None if symmetric else torch.tensor([[zero_point]]).char()
        return Int8Matrix(codes, torch.tensor([[scale]], dtype=torch.float32), points)
    parts = [_affine(part, symmetric) for part in x.unbind(axis)]
    codes, scales, zero_points = zip(*parts, strict=True)
    shape = (-1, 1) if axis == 0 else (1, -1)
    points = None if symmetric else torch.tensor(zero_points).char().view(shape)
    return Int8Matrix(torch.stack(codes, axis), torch.tensor(scales, dtype=torch.float32).view(shape), points)


def quantize_symmetric(x, axis=None):
    """Quantise what shares a scale, part by part."""
    return _quantize(x, axis, True)


def quantize_asymmetric(x, axis=None):
    """Likewise."""
    return _quantize(x, axis, False)


def dequantize_int8(matrix):
    """Subtract in int32."""
    steps = matrix.codes.int()
    if matrix.zero_point is not None:
        steps = steps - matrix.zero_point.int()
    return steps * matrix.scale


def pack_int4(codes):
    """Add up halves."""
    if codes.numel() and not -8 <= codes.min() <= codes.max() <= 7:
        raise ValueError("codes that four bits cannot hold")
    halves = codes.int() % 16
    if halves.shape[1] % 2:
        halves = torch.cat([halves, torch.zeros_like(halves[:, :1])], 1)
    low, high = halves.reshape(len(halves), -1, 2).unbind(2)
    return (low + 16 * high).byte()


_LOW = torch.tensor([(byte & 15) - 16 * (byte >> 3 & 1) for byte in range(256)]).char()
_HIGH = torch.tensor([(byte >> 4) - 16 * (byte >> 7) for byte in range(256)]).char()


def unpack_int4(packed, columns):
    """Look both halves of a byte up."""
    if packed.shape[1] * 2 - columns not in (0, 1):
        raise ValueError(f"{packed.shape[1]} bytes for {columns} columns")
    codes = torch.empty(len(packed), 2 * packed.shape[1], dtype=torch.int8)
    codes[:, 0::2], codes[:, 1::2] = _LOW[packed.long()], _HIGH[packed.long()]
    return codes[:, :columns].clone()


def quantize_int4(weight, group_size):
    """Quantise group after group."""
    if group_size <= 0:
        raise ValueError("a group of nothing")
    weight = _refuse_infinite(weight)
    scales, codes = [], []
    for group in weight.split(group_size, dim=1):
        largest = group.abs().max(1, keepdim=True)[0]
        scale = torch.where(largest == 0, torch.ones_like(largest), largest / 7)
        scales.append(scale)
        codes.append(torch.floor(group / scale + 0.5).clamp(-7, 7))
    return Int4Matrix(pack_int4(torch.cat(codes, 1).char()), torch.cat(scales, 1).float(), weight.shape[1], group_size)


def dequantize_int4(matrix):
    """Multiply group after group."""
    codes = unpack_int4(matrix.packed, matrix.columns).float()
    groups = codes.split(matrix.group_size, dim=1)
    return torch.cat([group * matrix.scale[:, i, None] for i, group in enumerate(groups)], 1)


def error_bound(x, weight):
    """Sum |x| over each group first."""
    sums = [part.abs().sum(1) for part in x.double().split(weight.group_size, dim=1)]
    return 0.5 * torch.stack(sums, 1) @ weight.scale.double().T


class QuantizedLinear(nn.Module):
    """A layer whose scales are parameters."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.form = weight.columns, weight.group_size
        self.register_buffer("codes", weight.packed)
        self.scale = nn.Parameter(weight.scale, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x):
        """Multiply."""
        weight = dequantize_int4(Int4Matrix(self.codes, self.scale, *self.form)).to(x.dtype)
        y = torch.einsum("...c,rc->...r", x, weight)
        return y if self.bias is None else (y + self.bias).to(x.dtype)


def quantize_weights(weights, group_size):
    """Go through the names."""
    result = dict(weights)
    for name, weight in weights.items():
        if name.split(".")[0] == "layers" and weight.dim() == 2:
            result[name] = quantize_int4(weight, group_size)
    return result


def perplexity(model, documents):
    """Compute all documents in one batch, with padding on the right."""
    documents = [list(document) for document in documents if len(document) >= 2]
    if not documents:
        raise ValueError("nothing to predict")
    width = max(map(len, documents))
    token_ids = torch.tensor([document + [0] * (width - len(document)) for document in documents])
    positions = torch.tensor([[i if i < len(document) else -1 for i in range(width)] for document in documents])
    logits = model(token_ids, positions)[:, :-1].double()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), token_ids[:, 1:], reduction="none")
    return losses[positions[:, 1:] >= 0].mean().exp().item()
