"""The reference of quantization on a trained model."""

import pytest
import torch

from grader.reference.hw3.quantization import (
    Int4Matrix,
    QuantizedLinear,
    dequantize_int4,
    perplexity,
    quantize_weights,
)
from hw3.transformer import load_transformer
from shared_tasks.checks import assert_close

TOKENS = [0, 300, 41, 41, 5, 99, 12, 8, 600, 17, 230, 4]


def test_layers_in_int4_compute_what_their_weights_say() -> None:
    """Layers put into the transformer as the handout does it give the logits of the dequantised weights."""
    model, restored = load_transformer("course-small"), load_transformer("course-small")
    for name, weight in quantize_weights(model.state_dict(), 32).items():
        if isinstance(weight, Int4Matrix):
            parent, _, child = name.removesuffix(".weight").rpartition(".")
            setattr(model.get_submodule(parent), child, QuantizedLinear(weight))
            restored.get_submodule(name.removesuffix(".weight")).weight = torch.nn.Parameter(
                dequantize_int4(weight), requires_grad=False
            )
    assert sum(isinstance(module, QuantizedLinear) for module in model.modules()) == 4 * 7
    token_ids = torch.tensor([TOKENS])
    assert_close(model(token_ids), restored(token_ids), 1e-3, "the logits")


def test_a_scale_for_each_weight_loses_nothing() -> None:
    """In groups of one, a weight is its own scale, and perplexity stays as it is."""
    model = load_transformer("course-small")
    before = perplexity(model, [TOKENS])
    matrices = quantize_weights(model.state_dict(), 1)
    model.load_state_dict(
        {name: dequantize_int4(m) if isinstance(m, Int4Matrix) else m for name, m in matrices.items()}
    )
    assert perplexity(model, [TOKENS]) == pytest.approx(before, rel=1e-4)
