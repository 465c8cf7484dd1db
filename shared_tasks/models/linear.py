"""Linear layers on a CPU."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor


def use_onednn(model: torch.nn.Module) -> None:
    """Let the linear layers of a float32 model on a CPU go through oneDNN where that is the faster library.

    For float32 PyTorch calls MKL, which leaves half of what a CPU that is not Intel's can do.
    """
    if torch.backends.mkldnn.is_available():
        for module in model.modules():
            if type(module) is torch.nn.Linear:
                module.forward = partial(_linear, module)  # type: ignore[method-assign]


def _linear(module: torch.nn.Linear, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
    """Apply a linear layer. For a few rows the call of oneDNN costs more than it saves."""
    rows = x.numel() // x.shape[-1]
    if rows < 16:
        return torch.nn.functional.linear(x, module.weight, module.bias)
    padding = _rounded_up(rows) - rows
    padded = torch.nn.functional.pad(x.reshape(rows, -1), (0, 0, 0, padding)) if padding else x
    product: Tensor = torch.ops.mkldnn._linear_pointwise(padded, module.weight, module.bias, "none", [], "")
    return product[:rows].view(*x.shape[:-1], -1) if padding else product


def _rounded_up(rows: int) -> int:
    """Return one of a few numbers of rows, 15 or an eighth more at most: oneDNN keeps code for each that it meets."""
    step = max(16, 1 << (rows.bit_length() - 4))
    return -(-rows // step) * step
