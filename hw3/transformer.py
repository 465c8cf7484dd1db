"""Qwen3 in plain PyTorch, given to you: read it once from top to bottom, it is all there is.

It loads the course models and real Qwen3 checkpoints, and computes what transformers' own implementation does. Where
keys and values are kept (the cache) and how attention is computed are arguments: they are what this homework is about.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from shared_tasks.models.folders import model_folder

Heads = Float[Tensor, "batch heads length head_dim"]
Attention = Callable[[Heads, Heads, Heads, Bool[Tensor, "batch queries keys"]], Heads]
"""(queries, keys, values, mask) -> mixed values. There may be fewer heads of keys and values than of queries; where the
mask is False a query does not see a key."""


class Cache(Protocol):
    """Where the keys and values of earlier positions are kept."""

    def update(
        self, layer: int, keys: Heads, values: Heads, positions: Int[Tensor, "batch new"]
    ) -> tuple[Heads, Heads, Int[Tensor, "batch keys"]]:
        """Add a layer's keys and values of new positions; return all that its queries may look at.

        The third result is the position of each returned key, in whatever order; -1 marks a slot that holds none.
        New positions of -1 are padding and are not kept.
        """
        ...


@dataclass(frozen=True)
class Config:
    """The shape of a model, with the names of a checkpoint's config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    max_position_embeddings: int
    eos_token_id: int

    @classmethod
    def read(cls, folder: Path) -> "Config":
        """Read config.json. Raises ValueError for a model that is no Qwen3."""
        given = json.loads((folder / "config.json").read_text())
        if given["model_type"] != "qwen3":
            raise ValueError(f"expected a model of type qwen3, got {given['model_type']} in {folder}")
        given["rope_theta"] = given.get("rope_theta") or given["rope_parameters"]["rope_theta"]
        return cls(**{name: given[name] for name in cls.__dataclass_fields__})


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        """Normalise in float32, whatever the dtype of x."""
        return torch.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


class SelfAttention(nn.Module):
    """Grouped-query attention with normalised queries and keys and rotary positions."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        query_size, key_size = (h * config.head_dim for h in (config.num_attention_heads, config.num_key_value_heads))
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(
        self,
        x: Float[Tensor, "batch new hidden"],
        positions: Int[Tensor, "batch new"],
        rotation: tuple[Tensor, Tensor],
        cache: Cache | None,
        attention: Attention,
    ) -> Float[Tensor, "batch new hidden"]:
        """Let every position look at itself and at the positions before it."""
        queries, keys, values = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        queries, keys = rotate(self.q_norm(queries), rotation), rotate(self.k_norm(keys), rotation)
        key_positions = positions
        if cache is not None:
            keys, values, key_positions = cache.update(self.layer, keys, values, positions)
        mask = (key_positions[:, None, :] <= positions[:, :, None]) & (key_positions[:, None, :] >= 0)
        mixed = attention(queries, keys, values, mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """The SwiGLU feed-forward block."""

    def __init__(self, config: Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Float[Tensor, "batch new hidden"]) -> Float[Tensor, "batch new hidden"]:
        """down(silu(gate(x)) * up(x))."""
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention and feed-forward block, each on a normalised input and added to the residual stream."""

    def __init__(self, config: Config, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Float[Tensor, "batch new hidden"],
        positions: Int[Tensor, "batch new"],
        rotation: tuple[Tensor, Tensor],
        cache: Cache | None,
        attention: Attention,
    ) -> Float[Tensor, "batch new hidden"]:
        """Return the residual stream after this layer."""
        x = x + self.self_attn(self.input_layernorm(x), positions, rotation, cache, attention)
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """The whole model: token ids to logits."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(
        self,
        token_ids: Int[Tensor, "batch new"],
        positions: Int[Tensor, "batch new"] | None = None,
        cache: Cache | None = None,
        attention: Attention | None = None,
        logits_at: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch positions vocab"]:
        """Return the logits of the next token after every new position, or only after column `logits_at` of each row.

        `positions` default to 0, 1, 2, ... in every row; -1 marks padding, whose logits mean nothing. With a cache,
        only new tokens are given and the cache holds the rest.
        """
        if positions is None:
            positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        x = self.embed_tokens(token_ids)
        rotation = rotary(positions, self.config, x.dtype)
        for layer in self.layers:
            x = layer(x, positions, rotation, cache, attention or dense_attention)
        if logits_at is not None:
            x = x.take_along_dim(logits_at[:, None, None], dim=1)
        return self.lm_head(self.norm(x))  # type: ignore[no-any-return]


def rotary(positions: Int[Tensor, "batch new"], config: Config, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, (batch, 1, new, head_dim), of the angle by which each position turns each pair."""
    exponents = torch.arange(0, config.head_dim, 2, device=positions.device) / config.head_dim
    angles = positions[:, None, :, None] * config.rope_theta**-exponents
    return angles.cos().repeat(1, 1, 1, 2).to(dtype), angles.sin().repeat(1, 1, 1, 2).to(dtype)


def rotate(x: Heads, rotation: tuple[Tensor, Tensor]) -> Heads:
    """Turn the pairs (i, i + head_dim / 2) of every head (Su et al., 2021, https://arxiv.org/abs/2104.09864)."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


def dense_attention(queries: Heads, keys: Heads, values: Heads, mask: Bool[Tensor, "batch queries keys"]) -> Heads:
    """Compute softmax(QK^T / sqrt(head_dim)) V with PyTorch's own kernel."""
    # A row of padding sees nothing; PyTorch answers such a row with zeros.
    return scaled_dot_product_attention(queries, keys, values, mask[:, None], enable_gqa=True)


def load_transformer(name_or_path: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Transformer:
    """Load a course model by name, or a folder with config.json and safetensors.

    Raises ValueError when the folder holds no Qwen3 model or its weights do not fit.
    """
    folder = model_folder(name_or_path)
    config = Config.read(folder)
    weights: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= {name.removeprefix("model."): tensor.to(dtype) for name, tensor in load_file(file).items()}
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["embed_tokens.weight"]
    with torch.device("meta"):
        model = Transformer(config)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"expected the weights of {config.num_hidden_layers} Qwen3 layers in {folder}: {error}"
        ) from error
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    return model.to(device).requires_grad_(False).eval()
