"""The transformer that homework 3 gives to students: it computes what transformers' own implementation computes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from hw3.transformer import Transformer, load_transformer
from shared_tasks.checks import assert_close
from shared_tasks.models.registry import load_model


class AppendingCache:
    """The simplest cache: every new key and value is put behind the old ones, padding too."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def update(self, layer: int, keys: Tensor, values: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if layer in self.kept:
            old = self.kept[layer]
            keys, values = torch.cat([old[0], keys], 2), torch.cat([old[1], values], 2)
            positions = torch.cat([old[2], positions], 1)
        self.kept[layer] = keys, values, positions
        return self.kept[layer]


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    return load_transformer("course-small")


@pytest.fixture(scope="module")
def token_ids() -> Tensor:
    return torch.randint(1, 500, (3, 40), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_logits_are_those_of_transformers(transformer: Transformer, token_ids: Tensor) -> None:
    """On a course model all logits agree to 1e-4 in float32, and the parameters are counted once."""
    model = load_model("course-small").model
    assert_close(transformer(token_ids), model(token_ids).logits, 1e-4)
    assert sum(p.numel() for p in transformer.parameters()) == model.num_parameters()


@torch.inference_mode()
def test_other_shapes_of_qwen3(tmp_path: Path, token_ids: Tensor) -> None:
    """Untied embeddings, a head size that is not hidden / heads, another rotary base: any Qwen3 checkpoint loads."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=500, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=2, head_dim=16, rope_theta=1e6, tie_word_embeddings=False, eos_token_id=3,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    assert_close(load_transformer(str(tmp_path))(token_ids), model(token_ids).logits, 1e-4)


@torch.inference_mode()
def test_any_split_with_a_cache(transformer: Transformer, token_ids: Tensor) -> None:
    """Tokens given in pieces, with a cache in between, have the logits of all tokens given at once."""
    whole = transformer(token_ids)
    for pieces in ([40], [39, 1], [1] * 40, [7, 1, 20, 12]):
        cache, start, logits = AppendingCache(), 0, []
        for size in pieces:
            positions = torch.arange(start, start + size).expand(3, -1)
            logits.append(transformer(token_ids[:, start : start + size], positions, cache))
            start += size
        assert_close(torch.cat(logits, 1), whole, 1e-4, f"logits in pieces of {pieces}")


@torch.inference_mode()
def test_padding_changes_nothing(transformer: Transformer, token_ids: Tensor) -> None:
    """Rows of different lengths, padded on the left or on the right with position -1, have the logits of each alone."""
    short, long = token_ids[0, :11], token_ids[1, :25]
    alone = [transformer(row[None])[0, -1] for row in (short, long)]
    for left in (True, False):
        ids, positions = torch.zeros(2, 25, dtype=torch.long), torch.full((2, 25), -1)
        for row, tokens in enumerate((short, long)):
            columns = slice(25 - len(tokens), 25) if left else slice(0, len(tokens))
            ids[row, columns], positions[row, columns] = tokens, torch.arange(len(tokens))
        last = positions.argmax(1)
        logits = transformer(ids, positions, logits_at=last)
        assert_close(logits[:, 0], torch.stack(alone), 1e-4)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """A name that is none, and a model of another kind, are refused with what was expected."""
    with pytest.raises(ValueError, match="course-small"):
        load_transformer(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="qwen3, got llama"):
        load_transformer(str(tmp_path))
