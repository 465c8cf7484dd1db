"""Perplexity of quantised course models: `python -m benchmarks.quantization`.

The reference of hw3 quantises the matrices of the layers; embeddings and norms stay as they are. Documents are of the
kind that the models learnt from, under a seed that they did not see, and without a question, as the models learnt no
questions. Weights are dequantised before they are loaded: this measures the loss of quality, not speed.
"""

import itertools
from collections.abc import Iterator

import torch
import typer
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from torch import Tensor

from grader.reference.hw3.quantization import (
    Int4Matrix,
    dequantize_int4,
    dequantize_int8,
    perplexity,
    quantize_asymmetric,
    quantize_symmetric,
    quantize_weights,
)
from hw3.transformer import load_transformer
from shared_tasks.models.course.text import documents
from shared_tasks.models.course.training import END
from shared_tasks.models.folders import model_folder

SEED = "quantization"
GROUP_SIZES = (4, 8, 16, 32, 64, 128, 1024)


def texts(count: int) -> list[str]:
    """Return stories and lines of arithmetic, as the models read them."""
    plain = (document.text for document in documents(SEED, "course") if document.user is None)
    return [f"{END}{text}{END}" for text in itertools.islice(plain, count)]


def formats(weights: dict[str, Tensor]) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
    """Yield name, bytes and dequantised matrices of every format."""
    yield "float32", sum(weight.nbytes for weight in weights.values()), weights
    for quantize, kind in ((quantize_symmetric, "symmetric"), (quantize_asymmetric, "asymmetric")):
        for axis, scales in ((None, "a matrix"), (0, "an output"), (1, "an input")):
            matrices = {name: quantize(weight, axis) for name, weight in weights.items()}
            restored = {name: dequantize_int8(matrix) for name, matrix in matrices.items()}
            yield f"int8, {kind}, a scale {scales}", sum(m.nbytes for m in matrices.values()), restored
    for group_size in GROUP_SIZES:
        groups = {n: w for n, w in quantize_weights(weights, group_size).items() if isinstance(w, Int4Matrix)}
        restored = {name: dequantize_int4(matrix) for name, matrix in groups.items()}
        name = "an output" if group_size == GROUP_SIZES[-1] else f"{group_size} weights"
        yield f"int4, a scale {name}", sum(m.nbytes for m in groups.values()), restored


def main(models: str = "course-small,course-base", count: int = 200) -> None:
    """Print a table for each model."""
    torch.set_num_threads(1)
    for name in models.split(","):
        model = load_transformer(name)
        tokenizer = Tokenizer.from_file(str(model_folder(name) / "tokenizer.json"))
        encoded = [tokenizer.encode(text).ids for text in texts(count)]
        weights = {n: w for n, w in model.state_dict().items() if n.startswith("layers.") and w.ndim == 2}
        weights = {n: w.clone() for n, w in weights.items()}
        size, plain = sum(w.numel() for w in weights.values()), 0.0
        table = Table("format", "bits a weight", "bytes", "perplexity", "increase", title=f"{name}, {size:,} weights")
        for kind, nbytes, restored in formats(weights):
            model.load_state_dict(restored, strict=False)
            value = perplexity(model, encoded)
            plain = plain or value
            table.add_row(kind, f"{8 * nbytes / size:.2f}", f"{nbytes:,}", f"{value:.4f}", f"{value / plain - 1:.2%}")
        Console(width=110).print(table)
        print(f"{sum(map(len, encoded)) - len(encoded):,} tokens in {len(encoded)} documents")


if __name__ == "__main__":
    typer.run(main)
