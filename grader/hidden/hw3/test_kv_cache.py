"""Hidden tests of hw3.kv_cache."""

import itertools
import random

import pytest
import torch

from grader.goldens.near_ties import ends_right, takes_best
from hw3 import kv_cache
from hw3.transformer import Config, Transformer, load_transformer
from shared_tasks.checks import assert_close, assert_equal

LAYERS, KV_HEADS, HEAD_DIM, VOCAB = 3, 2, 6, 48
SHAPE = {"num_layers": LAYERS, "num_kv_heads": KV_HEADS, "head_dim": HEAD_DIM}


@pytest.fixture(scope="module")
def model():
    """Return a small transformer with random weights, large enough that attention matters."""
    config = Config(
        vocab_size=VOCAB, hidden_size=20, intermediate_size=24, num_hidden_layers=LAYERS, num_attention_heads=6,
        num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, rms_norm_eps=1e-6, rope_theta=500.0,
        tie_word_embeddings=False, max_position_embeddings=256, eos_token_id=0,
    )  # fmt: skip
    transformer = Transformer(config).requires_grad_(False)
    generator = torch.Generator().manual_seed(11)
    for weight in transformer.parameters():
        if weight.ndim > 1:
            weight.normal_(0.0, 2.0 * weight.shape[1] ** -0.5, generator=generator)
    return transformer


class Sequences:
    """Sequences that grow by random tokens, and the logits that a model must give for them."""

    def __init__(self, model, seed):
        self.model = model
        self.random = random.Random(seed)
        self.tokens = {}

    def begin(self, sequence, tokens=()):
        """Begin a sequence that holds these tokens already."""
        self.tokens[sequence] = list(tokens)

    def forward(self, cache, sequences, sizes, where="right"):
        """Give each sequence `sizes` new tokens, with padding on one side or in between; check the logits."""
        width = max(sizes) + (where == "between")
        token_ids = torch.full((len(sequences), width), 7)
        positions = torch.full((len(sequences), width), -1)
        for row, (sequence, size) in enumerate(zip(sequences, sizes, strict=True)):
            known = self.tokens[sequence]
            new = [self.random.randrange(1, VOCAB) for _ in range(size)]
            columns = {"right": list(range(size)), "left": list(range(width - size, width))}.get(where)
            if columns is None:
                columns = sorted(self.random.sample(range(width), size))
            for column, token in zip(columns, new, strict=True):
                token_ids[row, column], positions[row, column] = token, len(known)
                known.append(token)
        logits = self.model(token_ids, positions, cache)
        for row, sequence in enumerate(sequences):
            if sizes[row]:
                whole = self.model(torch.tensor([self.tokens[sequence]]))[0, -sizes[row] :]
                got = logits[row, positions[row] >= 0]
                what = f"logits of row {row}, {sizes[row]} tokens after {len(self.tokens[sequence]) - sizes[row]}"
                assert_close(got, whole, 1e-3, what)


def marked(rows, new, start=0):
    """Return keys and values that differ everywhere."""
    numbers = torch.arange(rows * KV_HEADS * new * HEAD_DIM, dtype=torch.float32) + 1000 * start + 1
    keys = numbers.reshape(rows, KV_HEADS, new, HEAD_DIM)
    return keys, -keys


def assert_held(result, expected, most_columns):
    """Fail unless the result of `update` holds the expected keys (length, heads, dim) of each row, and nothing else."""
    keys, values, positions = result
    assert positions.shape[1] <= most_columns, f"expected at most {most_columns} columns, got {positions.shape[1]}"
    assert keys.shape[2] == values.shape[2] == positions.shape[1], "expected a key and a value for each position"
    for row, kept in enumerate(expected):
        held = sorted((p, column) for column, p in enumerate(positions[row].tolist()) if p != -1)
        assert_equal([p for p, _ in held], list(range(len(kept))), f"positions of row {row}")
        columns = [column for _, column in held]
        assert_close(keys[row][:, columns].transpose(0, 1), kept, 0.0, f"keys of row {row}, by position")
        assert_close(values[row][:, columns].transpose(0, 1), -kept, 0.0, f"values of row {row}, by position")


def assert_refused(function, *arguments, error=ValueError):
    """Fail unless the call raises the error."""
    with pytest.raises(error):
        function(*arguments)


def assert_real_logprobs(cache, case):
    """Fail unless a real text, in chunks through an empty cache, has the log-probabilities that an engine told."""
    model, tokens = load_transformer(case["model"]), case["tokens"]
    begins = [0, 70, 71, 72, 140, 141, len(tokens) - 1]
    assert begins == sorted(begins), f"expected a text of more than 141 tokens, got {len(tokens)}"
    chunks = [
        model(torch.tensor([tokens[begin:end]]), torch.arange(begin, end)[None], cache)[0]
        for begin, end in itertools.pairwise(begins)
    ]
    expected = case["logprobs"]
    actual = torch.cat(chunks).log_softmax(-1)[range(len(tokens) - 1), tokens[1:]][-len(expected) :]
    assert_close(actual, expected, case["tolerance"], "the log-probabilities of a real text")


class TestContiguousCache:
    """A buffer for each row."""

    def make(self, rows, length):
        """Return an empty cache."""
        return kv_cache.ContiguousCache(batch_size=rows, max_length=length, **SHAPE)

    def test_any_split(self, model):
        """However the tokens of a batch are split into forward passes, the logits are those of one pass.

        A new key belongs into the column of its position, in every layer.
        """
        for seed, pieces in enumerate(([17], [1] * 9, [5, 1, 1, 8], [3, 4])):
            cache, sequences = self.make(3, sum(pieces)), Sequences(model, seed)
            for row in range(3):
                sequences.begin(row)
            for size in pieces:
                sequences.forward(cache, [0, 1, 2], [size] * 3)
            assert_equal(list(cache.lengths), [sum(pieces)] * 3, "lengths")

    def test_ragged_rows(self, model):
        """Rows grow by different numbers of tokens, none too, with padding on the left, on the right or in between.

        Positions, not columns of the input, say where a key belongs; padding is not kept and does not count.
        """
        generator = random.Random(5)
        for seed, where in enumerate(("left", "right", "between")):
            cache, sequences = self.make(4, 40), Sequences(model, 20 + seed)
            for row in range(4):
                sequences.begin(row)
            for _ in range(6):
                sequences.forward(cache, [0, 1, 2, 3], [*generator.sample(range(6), 3), 1], where)
            assert_equal(list(cache.lengths), [len(sequences.tokens[row]) for row in range(4)], "lengths")

    def test_what_update_returns(self):
        """All kept keys and values come back with their positions, in no more columns than the longest row needs; -1
        marks what a shorter row does not hold.

        Stale or empty slots must be marked -1: the mask is made from these positions.
        """
        cache = self.make(2, 9)
        first, _ = marked(2, 3)
        positions = torch.tensor([[0, 1, 2], [-1, 0, -1]])
        for layer in range(LAYERS):
            result = cache.update(layer, first + layer, -first - layer, positions)
            kept = [first[0].transpose(0, 1) + layer, first[1, :, 1:2].transpose(0, 1) + layer]
            assert_held(result, kept, 3)
        second, _ = marked(2, 2, start=1)
        for layer in range(LAYERS):
            result = cache.update(layer, second + layer, -second - layer, torch.tensor([[-1, 3], [1, 2]]))
            kept = [
                torch.cat([first[0].transpose(0, 1), second[0, :, 1:].transpose(0, 1)]) + layer,
                torch.cat([first[1, :, 1:2].transpose(0, 1), second[1].transpose(0, 1)]) + layer,
            ]
            assert_held(result, kept, 4)

    def test_truncate(self, model):
        """A row that is truncated goes on as if the forgotten positions had never been, the others as they are.

        This is the rollback of speculative decoding: what was forgotten is neither returned nor counted.
        """
        cache, sequences = self.make(3, 30), Sequences(model, 3)
        for row in range(3):
            sequences.begin(row)
        sequences.forward(cache, [0, 1, 2], [9, 4, 6])
        for row, length in ((0, 5), (2, 0), (1, 4)):
            cache.truncate(row, length)
            sequences.tokens[row] = sequences.tokens[row][:length]
        assert_equal(list(cache.lengths), [5, 4, 0], "lengths after truncation")
        keys, values = marked(3, 1, start=5)
        positions = cache.update(0, keys, values, torch.tensor([[5], [4], [0]]))[2]
        counts = [sum(p != -1 for p in row) for row in positions.tolist()]
        assert_equal(counts, [6, 5, 1], "positions returned after truncation")
        for row in range(3):
            cache.truncate(row, len(sequences.tokens[row]))
        sequences.forward(cache, [0, 1, 2], [1, 3, 2])
        sequences.forward(cache, [0, 1, 2], [4, 1, 0])

    def test_refuses(self):
        """Other numbers of rows, positions that do not follow, rows that grow too long: all refused, and nothing is
        changed; so is truncating to more than is there.

        A cache that takes what does not fit gives wrong logits without an error.
        """
        cache = self.make(2, 4)
        keys, values = marked(2, 2)
        cache.update(0, keys, values, torch.tensor([[0, 1], [0, -1]]))
        for wrong in ([[2, 3], [2, 3]], [[2, 4], [1, 2]], [[0, 1], [1, 2]], [[3, 2], [1, 2]], [[1, 2], [1, -1]]):
            assert_refused(cache.update, 0, keys, values, torch.tensor(wrong))
        three, others = marked(2, 3)
        assert_refused(cache.update, 0, three, others, torch.tensor([[2, 3, 4], [1, -1, -1]]))
        assert_refused(cache.update, 0, keys[:1], values[:1], torch.tensor([[2, 3]]))
        assert_equal(list(cache.lengths), [2, 1], "lengths after refused updates")
        for row, length in ((0, 3), (1, 2), (0, -1)):
            assert_refused(cache.truncate, row, length)
        cache.update(0, keys, values, torch.tensor([[2, 3], [1, 2]]))

    @pytest.mark.reference("token_logprobs")
    def test_real_model(self, golden):
        """A long text in chunks has the log-probabilities that another implementation of a real model gives it.

        Keys and values must come back as they were given, in every layer and at every position.
        """
        for case in golden:
            config = load_transformer(case["model"]).config
            shape = (config.num_hidden_layers, 1, 256, config.num_key_value_heads, config.head_dim)
            assert_real_logprobs(kv_cache.ContiguousCache(*shape), case)


class TestPadChunks:
    """Rows of a forward pass."""

    def test_random_chunks(self):
        """Each row has its tokens, with positions from its start on, and -1 where there is none; `last` is the column
        of the last token.

        A position is start + offset, whatever the padding.
        """
        generator = random.Random(1)
        for _ in range(20):
            starts = [generator.randrange(50) for _ in range(5)]
            chunks = [[generator.randrange(1, 99) for _ in range(generator.randrange(7))] for _ in range(4)] + [[5, 6]]
            token_ids, positions, last = kv_cache.pad_chunks(starts, chunks)
            width = max(map(len, chunks))
            assert_equal(tuple(token_ids.shape), (5, width), "shape of the token ids")
            assert_equal(tuple(positions.shape), (5, width), "shape of the positions")
            for row, (start, chunk) in enumerate(zip(starts, chunks, strict=True)):
                pairs = list(zip(token_ids[row].tolist(), positions[row].tolist(), strict=True))
                held = [pair for pair in pairs if pair[1] != -1]
                assert_equal(held, [(t, start + i) for i, t in enumerate(chunk)], f"tokens and positions of {chunk}")
                if chunk:
                    assert_equal(pairs[int(last[row])], (chunk[-1], start + len(chunk) - 1), "the last token")
                assert 0 <= int(last[row]) < width, f"expected a column from 0 to {width - 1}, got {int(last[row])}"

    def test_types(self):
        """All three are tensors of integers, as an embedding and an index want them.

        torch.empty and torch.tensor([]) are of floats.
        """
        for starts, chunks in (([0, 4], [[3], []]), ([2], [[1, 2]])):
            assert_equal([str(t.dtype) for t in kv_cache.pad_chunks(starts, chunks)], ["torch.int64"] * 3, "dtypes")


class Handle:
    """The judge's own cache: a submission can only pass it on."""

    def __init__(self):
        self.kept = {}

    def __call__(self):
        """Make it something that can be lent."""

    def update(self, layer, keys, values, positions):
        """Append, padding too."""
        new = (keys, values, positions)
        if layer in self.kept:
            new = tuple(
                torch.cat(pair, dim)
                for pair, dim in zip(zip(self.kept[layer], new, strict=True), (2, 2, 1), strict=True)
            )
        self.kept[layer] = new
        return new


class TestGenerate:
    """Decoding with a cache."""

    def run(self, model, prompts, max_tokens, end):
        """Generate with a model that is watched; return the tokens and the calls' positions and widths of logits."""
        calls, cache = [], Handle()

        def forward(token_ids, positions=None, cache=None, attention=None, logits_at=None):
            assert isinstance(cache, Handle), "expected the cache that was given"
            calls.append((token_ids.clone(), positions.clone(), logits_at))
            return model(token_ids, positions, cache, logits_at=logits_at)

        return kv_cache.generate(forward, cache, prompts, max_tokens=max_tokens, eos_token_id=end), calls

    def alone(self, model, prompt, max_tokens, end):
        """Return the greedy continuation without a cache."""
        tokens = list(prompt)
        while len(tokens) < len(prompt) + max_tokens:
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
            if tokens[-1] == end:
                break
        return tokens[len(prompt) :]

    def prompts(self, seed, count):
        """Draw prompts of different lengths."""
        generator = random.Random(seed)
        return [[generator.randrange(1, VOCAB) for _ in range(generator.randint(1, 9))] for _ in range(count)]

    def test_as_alone(self, model):
        """Every prompt of a ragged batch is continued as it would be alone and without a cache.

        The logits of a short prompt are at its own last token, and its next position is its own length.
        """
        for seed, count in ((0, 1), (1, 5), (2, 3)):
            prompts = self.prompts(seed, count)
            expected = [self.alone(model, prompt, 12, -5) for prompt in prompts]
            assert_equal(self.run(model, prompts, 12, -5)[0], expected, "generated tokens")

    def test_end_token(self, model):
        """A row ends with the end token, which is part of it; the others go on to their own ends.

        Nothing is appended to a row that has ended, and the loop ends when all have.
        """
        for seed in range(4):
            prompts = self.prompts(10 + seed, 4)
            long = [self.alone(model, prompt, 10, -5) for prompt in prompts]
            end = long[0][2]
            expected = [self.alone(model, prompt, 10, end) for prompt in prompts]
            got, calls = self.run(model, prompts, 10, end)
            assert_equal(got, expected, f"generated tokens with end token {end}")
            assert_equal(len(calls), max(map(len, expected)), "forward passes")

    def test_every_position_once(self, model):
        """Each position of a row is computed exactly once, the last generated token never; ended rows are padding.

        With a cache only new tokens are given: the work is linear, not quadratic.
        """
        prompts = self.prompts(30, 4)
        long = [self.alone(model, prompt, 9, -5) for prompt in prompts]
        got, calls = self.run(model, prompts, 9, long[1][4])
        for row, prompt in enumerate(prompts):
            whole = prompt + got[row]
            given = [
                (int(position), int(token))
                for token_ids, positions, _ in calls
                for token, position in zip(token_ids[row], positions[row], strict=True)
                if position >= 0
            ]
            assert_equal(given, list(enumerate(whole[:-1])), f"(position, token) pairs computed for row {row}")

    def test_refuses(self, model):
        """An empty prompt and max_tokens of 0 are refused.

        There are no logits after nothing.
        """
        assert_refused(self.run, model, [[1], []], 3, 0)
        assert_refused(self.run, model, [[1]], 0, 0)

    @pytest.mark.reference("decoded")
    def test_real_model(self, golden):
        """Continues texts as a real model does, alone and in a batch; of nearly equal tokens either is right.

        Look at the positions of the shorter rows, and at where each row ends.
        """
        model = load_transformer(golden[0]["model"])
        for cases in (*([case] for case in golden), golden):
            generated = kv_cache.generate(
                model,
                Handle(),
                [case["prompt"] for case in cases],
                max_tokens=cases[0]["max_tokens"],
                eos_token_id=cases[0]["eos_token_id"],
            )
            for case, tokens in zip(cases, generated, strict=True):
                what = f"the continuation of {case['prompt']}"
                if not ends_right(tokens, case["max_tokens"], case["eos_token_id"]):
                    assert_equal(tokens, case["tokens"], what)
                logits = model(torch.tensor([case["prompt"] + tokens]))[0, len(case["prompt"]) - 1 : -1]
                if not takes_best(logits, tokens, case["tolerance"]):
                    assert_equal(tokens, case["tokens"], what)


class TestBlockAllocator:
    """Counting references."""

    def test_random_traces(self):
        """After any trace of allocate, fork, free and copy_on_write, free and used blocks add up to the total, and the
        references are those that callers hold.

        Every reference is taken once and given back once; a block is free when its last reference is gone.
        """
        for seed in range(6):
            generator, total = random.Random(seed), 5 + 4 * seed
            allocator, tables = kv_cache.BlockAllocator(total), []
            for _ in range(60):
                action = generator.choice(("allocate", "fork", "free", "write"))
                counts = [sum(table.count(block) for table in tables) for block in range(total)]
                if action == "allocate":
                    count = generator.randrange(4)
                    if count <= counts.count(0):
                        table = list(allocator.allocate(count))
                        assert all(counts[block] == 0 for block in table), f"expected free blocks, got {table}"
                        tables.append(table)
                    else:
                        assert_refused(allocator.allocate, count, error=BufferError)
                elif tables and action == "fork":
                    table = generator.choice(tables)
                    copy = allocator.fork(table)
                    assert_equal(list(copy), table, "forked blocks")
                    tables.append(list(copy))
                elif tables and action == "free":
                    allocator.free(tables.pop(generator.randrange(len(tables))))
                elif tables and action == "write":
                    table = generator.choice(tables)
                    for i, block in enumerate(table):
                        shared = sum(other.count(block) for other in tables) > 1
                        if shared and not counts.count(0):
                            assert_refused(allocator.copy_on_write, block, error=BufferError)
                        else:
                            table[i] = allocator.copy_on_write(block)
                            assert (table[i] != block) == shared, "expected a new block exactly where it was shared"
                        counts = [sum(table.count(block) for table in tables) for block in range(total)]
                counts = [sum(table.count(block) for table in tables) for block in range(total)]
                assert_equal([allocator.references(b) for b in range(total)], counts, f"references after {action}")
                assert_equal(allocator.num_free(), counts.count(0), f"free blocks after {action}")

    def test_all_blocks(self):
        """Exactly `num_blocks` different blocks can be allocated, before and after all were freed.

        Blocks are numbered from 0; a freed block can be allocated again.
        """
        allocator = kv_cache.BlockAllocator(9)
        for _ in range(3):
            blocks = [*allocator.allocate(4), *allocator.allocate(0), *allocator.allocate(5)]
            assert_equal(sorted(blocks), list(range(9)), "all blocks")
            assert_refused(allocator.allocate, 1, error=BufferError)
            allocator.free(blocks)

    def test_refused_calls_change_nothing(self):
        """Freeing or forking a free block is refused, also in the middle of a list, and so is freeing a block more
        often than there are references; nothing changes.

        Check all blocks before you touch the first one.
        """
        allocator = kv_cache.BlockAllocator(4)
        a, b, c = allocator.allocate(3)
        allocator.free([c])
        for call in (allocator.free, allocator.fork):
            assert_refused(call, [a, b, c])
        assert_refused(allocator.free, [a, b, a])
        assert_refused(allocator.copy_on_write, c)
        assert_refused(allocator.allocate, 3, error=BufferError)
        assert_equal([allocator.references(block) for block in (a, b, c)], [1, 1, 0], "references")
        assert_equal(allocator.num_free(), 2, "free blocks")


class TestBlockHash:
    """Chained hashes."""

    def test_all_tokens_count(self):
        """Parent, tokens and their order all change the hash; no two of many different blocks have the same.

        Digits that run together ([1, 23] and [12, 3]) and sums of tokens make collisions.
        """
        blocks = {
            (parent, tokens) for parent in (0, 1, 23, 2**61) for tokens in ((1, 23), (12, 3), (1, 2, 3), (3, 2, 1))
        }
        blocks |= {(parent, (i, j)) for parent in (0, 5) for i in range(12) for j in range(12)}
        blocks |= {(0, (1,) * n) for n in range(1, 9)} | {(1, ()), (0, ())}
        hashes = {kv_cache.block_hash(parent, list(tokens)) for parent, tokens in blocks}
        assert_equal(len(hashes), len(blocks), "different hashes")

    def test_same_in_every_process(self):
        """Equal arguments have the same hash, as a list or as a tuple; it is an integer.

        Python's own hash of a string differs from process to process.
        """
        hashed = kv_cache.block_hash(17, [5, 6, 7])
        assert type(hashed) is int, f"expected an integer, got {hashed!r}"
        assert_equal(kv_cache.block_hash(17, (5, 6, 7)), hashed, "the hash of a tuple")
        assert_equal(kv_cache.block_hash(17, [5, 6, 7]), hashed, "the hash the second time")

    def test_chain(self):
        """A chain of hashes tells whole beginnings apart: equal blocks after different ones differ.

        The parent's hash is part of what is hashed.
        """
        seen = set()
        for first in range(30):
            parent = 0
            for block in ([first, 0], [1, 2], [1, 2], [1, 2]):
                parent = kv_cache.block_hash(parent, block)
                seen.add(parent)
        assert_equal(len(seen), 120, "different hashes of 30 chains of 4 blocks")


class TestPrefixCache:
    """Blocks to use again."""

    def make(self, total, block_size, hash_block=None):
        """Return an allocator and an empty prefix cache."""
        allocator = kv_cache.BlockAllocator(total)
        return allocator, kv_cache.PrefixCache(allocator, block_size, hash_block)

    def cached(self, allocator, prefixes, tokens, size):
        """Insert a sequence whose owner then lets go of it; return its blocks."""
        blocks = list(allocator.allocate(-(-len(tokens) // size)))
        prefixes.insert(tokens, blocks)
        allocator.free(blocks)
        return blocks

    def test_longest_chain(self):
        """The full blocks of the longest common beginning are found, each with a new reference; nothing else is.

        A block belongs to all tokens before it, too: equal tokens later in a text are not the same block.
        """
        allocator, prefixes = self.make(20, 3)
        tokens = [1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8]
        blocks = self.cached(allocator, prefixes, tokens, 3)
        for query, count in (
            ([1, 2, 3, 1, 2, 3, 4, 5, 6, 9, 9, 9], 3), ([1, 2, 3, 1, 2, 3, 4, 5, 7, 7], 2), ([1, 2, 3, 4], 1),
            ([1, 2, 3, 4, 5, 6, 7], 1), ([4, 5, 6, 7], 0), ([2, 2, 3, 1, 2, 3, 0], 0), ([1, 2], 0), ([], 0),
        ):  # fmt: skip
            found = prefixes.match(query)
            assert_equal(list(found), blocks[:count], f"blocks found for {query}")
            for block in found:
                assert_equal(allocator.references(block), 2, f"references to block {block}")
            allocator.free(found)
        assert_equal([allocator.references(block) for block in blocks], [1, 1, 1, 0], "references in the end")

    def test_full_hit(self):
        """Of tokens that are cached entirely, the last block is left out: at least one token has to be computed.

        Without a token to compute there are no logits to sample the next one from.
        """
        for size in (1, 2, 4):
            allocator, prefixes = self.make(20, size)
            tokens = list(range(10, 18))
            blocks = self.cached(allocator, prefixes, tokens, size)
            for length in range(1, 9):
                expected = blocks[: (length - 1) // size]
                assert_equal(list(prefixes.match(tokens[:length])), expected, f"the first {length} of 8 tokens")

    def test_colliding_hashes(self):
        """Where hashes collide, no block with other tokens, or other tokens before it, is ever given out.

        A hash says where to look; tokens and chain must be compared.
        """
        for hash_block in (
            lambda parent, tokens: 5,
            lambda parent, tokens: sum(tokens),
            lambda parent, tokens: parent + tokens[0],
        ):
            allocator, prefixes = self.make(60, 2, hash_block)
            holds, generator = {}, random.Random(4)
            for _ in range(25):
                tokens = [generator.randrange(3) for _ in range(7)]
                for i, block in enumerate(prefixes.match(tokens)):
                    assert_equal(holds[block], tokens[: 2 * i + 2], f"tokens up to the end of block {block}")
                    allocator.free([block])
                if allocator.num_free() >= 3:
                    blocks = list(allocator.allocate(3))
                    prefixes.insert(tokens[:6], blocks)
                    for i, block in enumerate(blocks):
                        if allocator.references(block) == 2:
                            holds[block] = tokens[: 2 * i + 2]
                    allocator.free(blocks)

    def test_insert_again(self):
        """Content that is cached stays where it is: another block with the same is not kept, and blocks behind it are.

        One reference for each cached block, however often it is inserted.
        """
        allocator, prefixes = self.make(12, 2)
        first = self.cached(allocator, prefixes, [1, 2, 3, 4, 5], 2)
        second = list(allocator.allocate(3))
        prefixes.insert([1, 2, 3, 4, 6, 7], second)
        prefixes.insert([1, 2, 3, 4, 6, 7], second)
        assert_equal([allocator.references(block) for block in first[:2]], [1, 1], "references to the old blocks")
        assert_equal([allocator.references(block) for block in second], [1, 1, 2], "references to the new blocks")
        assert_equal(list(prefixes.match([1, 2, 3, 4, 6, 7, 8])), [*first[:2], second[2]], "the chain")

    def test_eviction(self):
        """The block used least recently goes first, a chain from its end; blocks in use stay.

        Using the beginning of a chain is using it now; a block without those before it would never be found again.
        """
        allocator, prefixes = self.make(20, 2)
        self.cached(allocator, prefixes, [1, 1, 2, 2, 3, 3], 2)
        self.cached(allocator, prefixes, [4, 4, 5, 5], 2)
        self.cached(allocator, prefixes, [6, 6, 7, 7], 2)
        allocator.free(prefixes.match([4, 4, 9]))  # from least to most recent: 3, 2, 1, 5, 7, 6, 4
        held = prefixes.match([6, 6, 7, 7, 9])

        def found():
            chains = [prefixes.match(tokens) for tokens in ([6, 6, 7, 7, 9], [4, 4, 5, 5, 9], [1, 1, 2, 2, 3, 3, 9])]
            for chain in chains:
                allocator.free(chain)
            return [len(chain) for chain in chains]

        assert_equal(prefixes.evict(1), 1, "evicted blocks")
        assert_equal(allocator.num_free(), 14, "free blocks")
        allocator.free(prefixes.match([1, 1, 9]))  # 2, 5, 4, 7, 6, 1
        assert_equal(prefixes.evict(1), 1, "evicted blocks")
        assert_equal(found(), [2, 2, 1], "chains after 3 and 2 were evicted")
        assert_equal(prefixes.evict(0), 0, "evicted blocks when none are wanted")
        assert_equal(prefixes.evict(99), 3, "evicted blocks when all are wanted")
        assert_equal(found(), [2, 0, 0], "chains while one is in use")
        assert_equal(allocator.num_free(), 18, "free blocks")
        allocator.free(held)
        assert_equal(prefixes.evict(2), 2, "evicted blocks after all were freed")
        assert_equal(allocator.num_free(), 20, "free blocks in the end")


class TestPagedCache:
    """Blocks out of one pool."""

    def make(self, total, size):
        """Return an empty cache."""
        return kv_cache.PagedCache(num_blocks=total, block_size=size, **SHAPE)

    def grow(self, cache, sequences, batch, sizes, where="right"):
        """Run a forward pass of some sequences and check its logits."""
        cache.select(batch)
        sequences.forward(cache, batch, sizes, where)

    def assert_sound(self, cache, sequences, total, size):
        """Fail unless tables have the right lengths and references are those of the tables, plus one if kept."""
        counts = [0] * total
        for sequence, tokens in sequences.tokens.items():
            table = list(cache.block_table(sequence))
            assert_equal(cache.length(sequence), len(tokens), f"length of sequence {sequence}")
            assert_equal(len(table), -(-len(tokens) // size), f"blocks of {len(tokens)} positions")
            for block in table:
                counts[block] += 1
        extra = [have - count for have, count in zip(cache.references(), counts, strict=True)]
        assert set(extra) <= {0, 1}, f"expected references of the tables, and at most one more, got {extra} more"
        return extra

    def test_as_contiguous(self, model):
        """Any of the sequences in any order, prompts in chunks beside decoding ones: the logits are those of no cache.

        The block table, not the row, says where a position lies.
        """
        for size, total in ((1, 64), (3, 24), (16, 6)):
            cache, sequences, generator = self.make(total, size), Sequences(model, size), random.Random(size)
            for sequence in (8, 3, 5, 1):
                sequences.begin(sequence)
                assert_equal(cache.add(sequence, [1, 2, 3]), 0, "tokens that are cached")
            for where in ("left", "right", "between", "right"):
                batch = generator.sample((8, 3, 5, 1), generator.randint(2, 4))
                self.grow(cache, sequences, batch, [generator.choice((1, 1, 5)) for _ in batch], where)
                extra = self.assert_sound(cache, sequences, total, size)
                assert_equal(sum(extra), 0, "references beyond the tables'")

    def test_what_update_returns(self):
        """All kept keys and values come back with their positions, and fewer than `block_size` columns too many.

        What a block holds beyond the sequence's length, and blocks that fill up a shorter table, have position -1.
        """
        cache = self.make(8, 4)
        for sequence in (4, 2):
            cache.add(sequence, [1])
        cache.select([4, 2])
        first, _ = marked(2, 5)
        positions = torch.tensor([[0, 1, 2, 3, 4], [-1, -1, 0, -1, -1]])
        for layer in range(LAYERS):
            result = cache.update(layer, first + layer, -first - layer, positions)
            assert_held(result, [first[0].transpose(0, 1) + layer, first[1, :, 2:3].transpose(0, 1) + layer], 8)
        cache.select([2])
        second, _ = marked(1, 1, start=3)
        for layer in range(LAYERS):
            result = cache.update(layer, second + layer, -second - layer, torch.tensor([[1]]))
            kept = torch.cat([first[1, :, 2:3].transpose(0, 1), second[0].transpose(0, 1)]) + layer
            assert_held(result, [kept], 4)

    def test_copy_on_write(self, model):
        """Sequences that fork share their blocks until one writes; then each goes on as if it were alone.

        A block that others refer to is copied in all layers before it is written, full blocks never are.
        """
        cache, sequences = self.make(20, 4), Sequences(model, 2)
        cache.add(0, [1])
        sequences.begin(0)
        self.grow(cache, sequences, [0], [6])
        for child in (1, 2):
            cache.fork(0, child)
            sequences.begin(child, sequences.tokens[0])
            assert_equal(list(cache.block_table(child)), list(cache.block_table(0)), "blocks of a fork")
        self.grow(cache, sequences, [1], [1])
        self.grow(cache, sequences, [0, 2, 1], [1, 1, 1])
        tables = [list(cache.block_table(sequence)) for sequence in (0, 1, 2)]
        assert_equal(len({table[0] for table in tables}), 1, "copies of the full block")
        assert_equal(len({table[1] for table in tables}), 3, "copies of the block that was written")
        assert_equal(sum(count > 0 for count in cache.references()), 4, "blocks in use")
        self.grow(cache, sequences, [2, 0, 1], [5, 2, 1])
        self.assert_sound(cache, sequences, 20, 4)

    def test_truncate(self, model):
        """Truncation gives back the blocks that are not needed; a shared block is not overwritten afterwards.

        After truncating into a full block that others share, the next write copies it.
        """
        cache, sequences = self.make(9, 4), Sequences(model, 6)
        cache.add(0, [1])
        sequences.begin(0)
        self.grow(cache, sequences, [0], [12])
        cache.fork(0, 1)
        sequences.begin(1, sequences.tokens[0])
        for length in (11, 8, 6):
            cache.truncate(1, length)
            sequences.tokens[1] = sequences.tokens[1][:length]
            self.assert_sound(cache, sequences, 9, 4)
        self.grow(cache, sequences, [1], [1])
        self.grow(cache, sequences, [0, 1], [1, 3])
        self.assert_sound(cache, sequences, 9, 4)
        assert_refused(cache.truncate, 1, 11)
        assert_refused(cache.truncate, 0, -1)

    def test_shared_prefixes(self, model):
        """A sequence that begins like a committed one starts with its full blocks, and has the logits of a cold start.

        Blocks stay after the sequence is gone; a block that is hit entirely still leaves a token to compute.
        """
        for size in (1, 4):
            cache, sequences = self.make(40, size), Sequences(model, 9)
            cache.add(0, [1])
            sequences.begin(0)
            self.grow(cache, sequences, [0], [10])
            tokens = list(sequences.tokens[0])
            assert_equal(cache.add(1, tokens), 0, "cached tokens before they are committed")
            cache.free(1)
            cache.commit(0, tokens)
            table = list(cache.block_table(0))
            cache.free(0)
            del sequences.tokens[0]
            for sequence, query, shared in (
                (2, tokens, 9 // size * size), (3, tokens[:9], 8), (4, [*tokens[:6], 0], 6 // size * size),
                (5, [0, *tokens], 0),
            ):  # fmt: skip
                assert_equal(cache.add(sequence, query), shared, f"cached tokens of {query}, block_size {size}")
                assert_equal(list(cache.block_table(sequence)), table[: shared // size], "shared blocks")
                sequences.begin(sequence, query[:shared])
            self.grow(cache, sequences, [4, 2, 5, 3], [3, 1, 2, 5])
            self.assert_sound(cache, sequences, 40, size)
            assert_refused(cache.commit, 3, tokens[:9])

    def test_too_few_blocks(self, model):
        """When blocks run out, kept prefixes that nobody uses are evicted; when that is not enough, BufferError is
        raised and no sequence has changed.

        Count what all rows need, copies too, before the first one takes anything.
        """
        cache, sequences = self.make(6, 2), Sequences(model, 12)
        cache.add(0, [1])
        sequences.begin(0)
        self.grow(cache, sequences, [0], [6])
        cache.commit(0, sequences.tokens[0])
        cache.free(0)
        del sequences.tokens[0]
        for sequence in (1, 2):
            cache.add(sequence, [0])
            sequences.begin(sequence)
        self.grow(cache, sequences, [1, 2], [3, 3])
        extra = self.assert_sound(cache, sequences, 6, 2)
        assert_equal(sum(extra), 2, "prefix blocks that are still kept")
        self.grow(cache, sequences, [1], [5])
        assert_equal(sum(self.assert_sound(cache, sequences, 6, 2)), 0, "prefix blocks when all blocks are in use")
        cache.truncate(1, 6)
        sequences.tokens[1] = sequences.tokens[1][:6]
        cache.select([2, 1])
        keys, values = marked(2, 2)
        assert_refused(cache.update, 0, keys, values, torch.tensor([[3, 4], [6, -1]]), error=BufferError)
        self.assert_sound(cache, sequences, 6, 2)
        self.grow(cache, sequences, [1], [1])
        cache.fork(2, 3)
        sequences.begin(3, sequences.tokens[2])
        cache.select([2, 3])
        assert_refused(cache.update, 0, keys[:, :, :1], values[:, :, :1], torch.tensor([[3], [3]]), error=BufferError)
        self.assert_sound(cache, sequences, 6, 2)
        cache.free(1)
        del sequences.tokens[1]
        self.grow(cache, sequences, [2, 3], [1, 2])
        self.assert_sound(cache, sequences, 6, 2)

    def test_random_traces(self, model):
        """After any trace of adding, growing, forking, truncating, committing and freeing, references are those of the
        tables and of the kept prefixes, logits are right, and in the end nothing has leaked.

        Whatever ends a sequence gives back all of its blocks, once.
        """
        for seed in range(3):
            generator, total, size = random.Random(100 + seed), 14, (2, 3, 4)[seed]
            cache, sequences = self.make(total, size), Sequences(model, 50 + seed)
            begun, texts = 0, []
            for _ in range(25):
                live = sorted(sequences.tokens)
                action = generator.choice(("add", "grow", "grow", "fork", "truncate", "commit", "free"))
                one = generator.choice(live) if live else None
                if action == "add" or one is None:
                    query = [*generator.choice([*texts, [1, 2, 3]]), 5]
                    sequences.begin(begun, query[: cache.add(begun, query)])
                    begun += 1
                elif action == "grow":
                    used = sum(-(-len(tokens) // size) for tokens in sequences.tokens.values())
                    batch = generator.sample(live, min(len(live), 2))
                    if used + 2 * len(batch) + 2 <= total:
                        self.grow(cache, sequences, batch, [generator.randint(1, size) for _ in batch])
                elif action == "fork":
                    cache.fork(one, begun)
                    sequences.begin(begun, sequences.tokens[one])
                    begun += 1
                elif action == "truncate":
                    length = generator.randint(0, len(sequences.tokens[one]))
                    cache.truncate(one, length)
                    sequences.tokens[one] = sequences.tokens[one][:length]
                elif action == "commit":
                    cache.commit(one, sequences.tokens[one])
                    texts.append(list(sequences.tokens[one]))
                elif action == "free":
                    cache.free(one)
                    del sequences.tokens[one]
                self.assert_sound(cache, sequences, total, size)
            for sequence in list(sequences.tokens):
                cache.free(sequence)
                del sequences.tokens[sequence]
            self.assert_sound(cache, sequences, total, size)
            cache.add(begun, [1])
            sequences.begin(begun)
            self.grow(cache, sequences, [begun], [total * size])

    def test_refuses(self):
        """Unknown sequences, sequences that are here already, twice the same row, positions that do not follow and
        other numbers of rows are refused.

        A server that frees a sequence twice must not free somebody else's blocks.
        """
        cache = self.make(8, 2)
        cache.add(1, [1])
        cache.add(2, [1])
        cache.free(2)
        keys, values = marked(1, 1)
        for call in (
            (cache.add, 1, [1]), (cache.fork, 1, 1), (cache.fork, 2, 3), (cache.free, 2), (cache.length, 2),
            (cache.block_table, 2), (cache.truncate, 2, 0), (cache.commit, 2, []), (cache.select, [1, 2]),
            (cache.select, [1, 1]),
        ):  # fmt: skip
            assert_refused(*call)
        cache.select([1])
        assert_refused(cache.update, 0, keys, values, torch.tensor([[1]]))
        both, others = marked(2, 1)
        assert_refused(cache.update, 0, both, others, torch.tensor([[0], [0]]))
        assert_equal(cache.length(1), 0, "length after refused updates")

    @pytest.mark.reference("token_logprobs")
    def test_real_model(self, golden):
        """A long text in chunks has the log-probabilities that another implementation of a real model gives it.

        Positions and block numbers of any size must come back as they are.
        """
        for case in golden:
            config = load_transformer(case["model"]).config
            cache = kv_cache.PagedCache(config.num_hidden_layers, 40, 16, config.num_key_value_heads, config.head_dim)
            cache.add(4, case["tokens"])
            cache.select([4])
            assert_real_logprobs(cache, case)
