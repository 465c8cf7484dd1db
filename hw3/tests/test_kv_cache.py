"""Public tests of hw3.kv_cache."""

import pytest
import torch

from hw3 import kv_cache
from hw3.transformer import Config, Transformer
from shared_tasks.checks import assert_close, assert_equal

SHAPE = {"num_layers": 2, "num_kv_heads": 2, "head_dim": 4}


@pytest.fixture(scope="module")
def model():
    """Return a tiny transformer with random weights."""
    config = Config(
        vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4, rms_norm_eps=1e-6, rope_theta=100.0,
        tie_word_embeddings=False, max_position_embeddings=64, eos_token_id=0,
    )  # fmt: skip
    transformer = Transformer(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for weight in transformer.parameters():
        if weight.ndim > 1:
            weight.normal_(0.0, 2.0 * weight.shape[1] ** -0.5, generator=generator)
    return transformer


def step(model, cache, rows):
    """Run rows of (all tokens of a sequence, how many of them are new) and check the logits of the new ones."""
    new = [tokens[len(tokens) - count :] for tokens, count in rows]
    width = max(map(len, new))
    token_ids = torch.tensor([[3] * (width - len(tokens)) + tokens for tokens in new])
    positions = torch.tensor(
        [[-1] * (width - count) + list(range(len(tokens) - count, len(tokens))) for tokens, count in rows]
    )
    logits = model(token_ids, positions, cache)
    for row, (tokens, count) in enumerate(rows):
        if count:
            whole = model(torch.tensor([tokens]))[0, -count:]
            assert_close(logits[row, width - count :], whole, 1e-3, f"logits of row {row}")


A, B, C = [5, 9, 2, 7, 7, 1, 8], [6, 6, 3, 1, 2], [4, 12, 25, 8, 1, 9, 9, 10]


class TestContiguousCache:
    """A buffer for each row."""

    def test_prompts_then_tokens(self, model):
        """Rows of different lengths, in pieces, have the logits of a single pass without a cache."""
        cache = kv_cache.ContiguousCache(batch_size=2, max_length=8, **SHAPE)
        step(model, cache, [(A[:4], 4), (B[:2], 2)])
        step(model, cache, [(A[:5], 1), (B[:3], 1)])
        step(model, cache, [(A, 2), (B[:3], 0)])
        assert_equal(list(cache.lengths), [7, 3], "lengths")

    def test_truncate(self, model):
        """A truncated row goes on with other tokens as if the forgotten ones had never been."""
        cache = kv_cache.ContiguousCache(batch_size=2, max_length=8, **SHAPE)
        step(model, cache, [(A[:6], 6), (B, 5)])
        cache.truncate(0, 2)
        step(model, cache, [([*A[:2], 20, 21], 2), ([*B, 22], 1)])
        with pytest.raises(ValueError):  # noqa: PT011
            cache.truncate(0, 5)


class TestPadChunks:
    """Rows of a forward pass."""

    def test_example(self):
        """Rows are filled up to the longest with position -1, and the last token of each is pointed at."""
        token_ids, positions, last = kv_cache.pad_chunks([4, 0, 9], [[7], [1, 2, 3], []])
        assert_equal(tuple(token_ids.shape), (3, 3), "shape")
        held = [
            [(int(p), int(t)) for p, t in zip(*row, strict=True) if p >= 0]
            for row in zip(positions, token_ids, strict=True)
        ]
        assert_equal(held, [[(4, 7)], [(0, 1), (1, 2), (2, 3)], []], "positions and tokens")
        assert_equal([int(positions[row, last[row]]) for row in (0, 1)], [4, 2], "positions of the last tokens")


class Appending:
    """A cache of the test's own; what you write only passes it on."""

    def __init__(self):
        self.kept = {}

    def __call__(self):
        """Make it something that can be lent."""

    def update(self, layer, keys, values, positions):
        """Append."""
        old = self.kept.get(layer, (keys[:, :, :0], values[:, :, :0], positions[:, :0]))
        pairs = zip(old, (keys, values, positions), (2, 2, 1), strict=True)
        self.kept[layer] = tuple(torch.cat((first, second), dim) for first, second, dim in pairs)
        return self.kept[layer]


class TestGenerate:
    """Decoding with a cache."""

    def test_as_without_cache(self, model):
        """A batch of prompts is continued as each of them alone, and every position is computed once."""
        computed = []

        def forward(token_ids, positions=None, cache=None, attention=None, logits_at=None):
            computed.append(int((positions >= 0).sum()))
            return model(token_ids, positions, cache, logits_at=logits_at)

        expected = []
        for prompt in (A, B):
            tokens = list(prompt)
            for _ in range(6):
                tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
            expected.append(tokens[len(prompt) :])
        got = kv_cache.generate(forward, Appending(), [A, B], max_tokens=6, eos_token_id=-1)
        assert_equal([list(tokens) for tokens in got], expected, "generated tokens")
        assert_equal(computed, [12, 2, 2, 2, 2, 2], "positions in each forward pass")


class TestBlockAllocator:
    """Counting references."""

    def test_references(self):
        """A block is free when as many references were given back as were taken."""
        allocator = kv_cache.BlockAllocator(4)
        blocks = list(allocator.allocate(3))
        assert_equal(len(set(blocks)), 3, "different blocks")
        copy = allocator.fork(blocks[:2])
        assert_equal([allocator.references(block) for block in blocks], [2, 2, 1], "references")
        allocator.free(blocks)
        assert_equal(allocator.num_free(), 2, "free blocks")
        allocator.free(copy)
        assert_equal(allocator.num_free(), 4, "free blocks in the end")

    def test_copy_on_write(self):
        """A block of one's own is written in place, a shared one is replaced by a new one."""
        allocator = kv_cache.BlockAllocator(2)
        (block,) = allocator.allocate(1)
        assert_equal(allocator.copy_on_write(block), block, "a block of one's own")
        allocator.fork([block])
        copy = allocator.copy_on_write(block)
        assert_equal(sorted([block, copy]), [0, 1], "both blocks")
        assert_equal([allocator.references(b) for b in (block, copy)], [1, 1], "references")
        with pytest.raises(BufferError):
            allocator.allocate(1)


class TestBlockHash:
    """Chained hashes."""

    def test_parent_and_tokens(self):
        """The hash changes with the parent, with any token, and with their order, and with nothing else."""
        blocks = [(0, [1, 2]), (0, [2, 1]), (0, [12]), (3, [1, 2]), (0, [1, 2, 0])]
        hashes = [kv_cache.block_hash(parent, tokens) for parent, tokens in blocks]
        assert_equal(len(set(hashes)), 5, "different hashes")
        assert_equal([kv_cache.block_hash(parent, tokens) for parent, tokens in blocks], hashes, "hashes, again")


class TestPrefixCache:
    """Blocks to use again."""

    def test_match(self):
        """The full blocks of the longest common beginning are found, but never all of the tokens."""
        allocator = kv_cache.BlockAllocator(8)
        prefixes = kv_cache.PrefixCache(allocator, 2)
        blocks = list(allocator.allocate(3))
        prefixes.insert([1, 2, 3, 4, 5], blocks)
        allocator.free(blocks)
        for tokens, count in (([1, 2, 3, 4, 9], 2), ([1, 2, 3, 4], 1), ([1, 2, 4, 3, 9], 1), ([3, 4, 9], 0)):
            found = list(prefixes.match(tokens))
            assert_equal(found, blocks[:count], f"blocks found for {tokens}")
            allocator.free(found)
        assert_equal(allocator.num_free(), 6, "free blocks")

    def test_eviction(self):
        """The block that was used least recently goes first, and none that is in use."""
        allocator = kv_cache.BlockAllocator(8)
        prefixes = kv_cache.PrefixCache(allocator, 1)
        for token in (1, 2, 3):
            blocks = allocator.allocate(1)
            prefixes.insert([token], blocks)
            allocator.free(blocks)
        held = prefixes.match([2, 9])
        allocator.free(prefixes.match([1, 9]))
        assert_equal(prefixes.evict(1), 1, "evicted blocks")
        assert_equal([len(prefixes.match([token, 9])) for token in (3,)], [0], "blocks for 3, the least recent")
        assert_equal(prefixes.evict(9), 1, "evicted blocks, of the two that are left")
        assert_equal(len(held), 1, "blocks in use")


class TestPagedCache:
    """Blocks out of one pool."""

    def test_as_without_cache(self, model):
        """Any of the sequences, in any order, have the logits of a single pass without a cache."""
        cache = kv_cache.PagedCache(num_blocks=9, block_size=3, **SHAPE)
        for sequence in (1, 2, 3):
            cache.add(sequence, [1])
        cache.select([1, 2])
        step(model, cache, [(A[:5], 5), (B[:2], 2)])
        cache.select([3, 2, 1])
        step(model, cache, [(C[:4], 4), (B[:3], 1), (A[:6], 1)])
        cache.select([2])
        step(model, cache, [(B, 2)])
        assert_equal([cache.length(sequence) for sequence in (1, 2, 3)], [6, 5, 4], "lengths")
        assert_equal(sum(cache.references()), 6, "blocks in use")

    def test_fork(self, model):
        """Sequences that fork share blocks until one of them writes."""
        cache = kv_cache.PagedCache(num_blocks=6, block_size=4, **SHAPE)
        cache.add(1, [1])
        cache.select([1])
        step(model, cache, [(A[:6], 6)])
        cache.fork(1, 2)
        assert_equal(list(cache.block_table(2)), list(cache.block_table(1)), "blocks of the fork")
        cache.select([2, 1])
        step(model, cache, [([*A[:6], 20], 1), (A, 1)])
        step(model, cache, [([*A[:6], 20, 21], 1), ([*A, 22], 1)])
        assert_equal(sum(count > 0 for count in cache.references()), 3, "blocks in use")

    def test_shared_prefix(self, model):
        """A sequence that begins like a committed one starts with its blocks; freed ones can all be used again."""
        cache = kv_cache.PagedCache(num_blocks=3, block_size=3, **SHAPE)
        cache.add(1, C)
        cache.select([1])
        step(model, cache, [(C, 8)])
        cache.commit(1, C)
        cache.free(1)
        assert_equal(cache.add(2, [*C[:6], 2]), 6, "tokens that are here already")
        cache.select([2])
        step(model, cache, [([*C[:6], 2], 1)])
        cache.free(2)
        cache.add(3, B)
        cache.select([3])
        step(model, cache, [([*A, 1, 2], 9)])
