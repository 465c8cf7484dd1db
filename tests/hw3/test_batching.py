"""The references of caches and batching together, on a trained model."""

import random

import pytest
from torch import Tensor

from grader.reference.hw3.batching import Request, serve
from grader.reference.hw3.kv_cache import ContiguousCache, PagedCache, generate
from hw3.transformer import Transformer, load_transformer
from shared_tasks.checks import assert_equal

BEGINNING = [7, 300, 41, 41, 5, 99, 12, 8, 600]  # that some prompts have in common


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    return load_transformer("course-small")


@pytest.mark.parametrize(
    ("max_num_seqs", "max_num_batched_tokens", "num_blocks", "block_size"),
    [(12, 500, 60, 16), (8, 8, 20, 4), (4, 64, 20, 4), (9, 9, 64, 1)],
)
def test_requests_are_served_as_if_alone(
    transformer: Transformer, max_num_seqs: int, max_num_batched_tokens: int, num_blocks: int, block_size: int
) -> None:
    """With shared prefixes, small chunks and preemption, requests generate what they generate alone."""
    generator, config = random.Random(0), transformer.config
    prompts = [[generator.randrange(1, 1000) for _ in range(generator.randint(1, 25))] for _ in range(9)]
    prompts += [[*BEGINNING, token] for token in (1, 2, 3)]
    shape = (config.num_key_value_heads, config.head_dim)
    cache = PagedCache(config.num_hidden_layers, num_blocks, block_size, *shape)
    held: dict[int, list[int]] = {}
    counts = {"computed": 0, "shared": 0, "freed": 0}

    def add(id: int, tokens: list[int]) -> int:
        shared = cache.add(id, tokens)
        held[id] = tokens[:shared]
        counts["shared"] += shared
        return shared

    def forward(ids: list[int], token_ids: Tensor, positions: Tensor, logits_at: Tensor) -> Tensor:
        cache.select(ids)
        logits = transformer(token_ids, positions, cache, logits_at=logits_at)[:, 0]
        for id, tokens, places in zip(ids, token_ids, positions, strict=True):
            held[id] += tokens[places >= 0].tolist()
            cache.commit(id, held[id])
        counts["computed"] += int((positions >= 0).sum())
        return logits

    def free(id: int) -> None:
        counts["freed"] += 1
        cache.free(id)

    served = serve(
        [Request(id, prompt, 15, config.eos_token_id) for id, prompt in enumerate(prompts)],
        add,
        forward,
        lambda ids, logits: logits.argmax(-1).tolist(),
        free,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        num_blocks=num_blocks,
        block_size=block_size,
    )
    for id, prompt in enumerate(prompts):
        own = ContiguousCache(config.num_hidden_layers, 1, len(prompt) + 15, *shape)
        (alone,) = generate(transformer, own, [prompt], max_tokens=15, eos_token_id=config.eos_token_id)
        assert_equal(served[id], alone, f"tokens of request {id}")
    assert max(cache.references()) <= 1, "nothing but kept prefixes is left"
    if num_blocks == 20:
        assert counts["freed"] > len(prompts), "some were preempted"
    if max_num_seqs < len(prompts):
        assert counts["shared"] > 0
