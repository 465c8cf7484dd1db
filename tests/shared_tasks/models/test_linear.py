"""Linear layers through oneDNN."""

import pytest
import torch

from shared_tasks.checks import assert_close
from shared_tasks.models.linear import use_onednn


@pytest.fixture
def rows_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that oneDNN is called with."""
    run = []
    pointwise = torch.ops.mkldnn._linear_pointwise

    def counted(x: torch.Tensor, *arguments: object) -> torch.Tensor:
        run.append(x.numel() // x.shape[-1])
        return pointwise(x, *arguments)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    return run


@pytest.mark.parametrize("shape", [(0,), (1,), (15,), (16,), (17,), (3, 100), (2, 5, 70), (4097,)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_the_layers_own(shape: tuple[int, ...], bias: bool) -> None:
    """Whatever the number of rows and their arrangement, the result is that of the layer as it was made."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 5, bias=bias)
    x = torch.randn(*shape, 8)
    expected = layer(x).detach()
    use_onednn(layer)
    with torch.inference_mode():
        assert_close(layer(x), expected, 1e-5)


def test_code_is_compiled_for_few_numbers_of_rows(rows_run: list[int]) -> None:
    """oneDNN keeps code for each number of rows: all numbers up to 4096 make do with few, and none is far larger."""
    layer = torch.nn.Linear(2, 2)
    use_onednn(layer)
    with torch.inference_mode():
        for rows in range(16, 4097):
            layer(torch.zeros(rows, 2))
            assert rows <= rows_run[-1] <= max(rows + 15, 1.125 * rows)
    assert len(set(rows_run)) < 60
