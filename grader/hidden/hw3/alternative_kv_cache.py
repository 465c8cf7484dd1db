"""A second solution of hw3.kv_cache: lists and loops instead of indexing, a trie instead of hashes."""

import hashlib
import itertools

import torch


def _next(length, row):
    """Return {column: position} of a row's new positions."""
    new = {column: position for column, position in enumerate(row) if position >= 0}
    for offset, position in enumerate(new.values()):
        if position != length + offset:
            raise ValueError(f"position {position} does not follow {length + offset} positions")
    return new


class ContiguousCache:
    """Rows of buffers, written one position at a time."""

    def __init__(self, num_layers, batch_size, max_length, num_kv_heads, head_dim, dtype=torch.float32, device="cpu"):
        self.lengths = [0] * batch_size
        self.max_length = max_length
        shape = (batch_size, num_kv_heads, max_length, head_dim)
        self.buffers = [tuple(torch.zeros(shape, dtype=dtype, device=device) for _ in "kv") for _ in range(num_layers)]

    def update(self, layer, keys, values, positions):
        """Write, and return the beginning of the buffers."""
        if layer == 0:
            rows = positions.tolist()
            if len(rows) != len(self.lengths):
                raise ValueError("another number of rows")
            self.new = [_next(length, row) for length, row in zip(self.lengths, rows, strict=True)]
            grown = [length + len(new) for length, new in zip(self.lengths, self.new, strict=True)]
            if any(length > self.max_length for length in grown):
                raise ValueError("a row that is too long")
            self.lengths = grown
        for row, new in enumerate(self.new):
            for column, position in new.items():
                for buffer, states in zip(self.buffers[layer], (keys, values), strict=True):
                    buffer[row, :, position] = states[row, :, column]
        end = max(self.lengths)
        held = torch.tensor([[p if p < length else -1 for p in range(end)] for length in self.lengths])
        all_keys, all_values = self.buffers[layer]
        return all_keys[:, :, :end], all_values[:, :, :end], held.to(positions.device)

    def truncate(self, row, length):
        """Set the length."""
        if length < 0 or length > self.lengths[row]:
            raise ValueError(f"{length} positions of {self.lengths[row]}")
        self.lengths[row] = length


def pad_chunks(starts, chunks):
    """Pad on the left."""
    width = max(len(chunk) for chunk in chunks)
    rows = [[9] * (width - len(chunk)) + list(chunk) for chunk in chunks]
    places = [
        [-1] * (width - len(chunk)) + list(range(start, start + len(chunk)))
        for start, chunk in zip(starts, chunks, strict=True)
    ]
    return torch.tensor(rows), torch.tensor(places), torch.tensor([width - 1] * len(rows))


def generate(model, cache, prompts, *, max_tokens, eos_token_id):
    """Keep whole sequences, and ask which of their tokens have not been computed."""
    if max_tokens <= 0 or min(map(len, prompts)) == 0:
        raise ValueError("nothing to go on from, or nothing to generate")
    sequences, computed, ended = [list(prompt) for prompt in prompts], [0] * len(prompts), [False] * len(prompts)
    while not all(ended):
        chunks = [[] if end else s[done:] for s, done, end in zip(sequences, computed, ended, strict=True)]
        token_ids, positions, _ = pad_chunks(computed, chunks)
        logits = model(token_ids, positions, cache)[:, -1]
        for row, tokens in enumerate(sequences):
            if not ended[row]:
                computed[row] = len(tokens)
                tokens.append(logits[row].argmax().item())
                ended[row] = tokens[-1] == eos_token_id or len(tokens) - len(prompts[row]) >= max_tokens
    return [tokens[len(prompt) :] for tokens, prompt in zip(sequences, prompts, strict=True)]


class BlockAllocator:
    """A dictionary of the blocks in use."""

    def __init__(self, num_blocks):
        self.num_blocks = num_blocks
        self.used = {}

    def num_free(self):
        """Return those not in use."""
        return self.num_blocks - len(self.used)

    def references(self, block):
        """Look up."""
        return self.used.get(block, 0)

    def allocate(self, count):
        """Take the lowest numbers."""
        if count > self.num_free():
            raise BufferError(f"{count} blocks of {self.num_free()}")
        blocks = list(itertools.islice((b for b in range(self.num_blocks) if b not in self.used), count))
        self.used.update(dict.fromkeys(blocks, 1))
        return blocks

    def fork(self, blocks):
        """Count up."""
        if any(block not in self.used for block in blocks):
            raise ValueError("a free block")
        for block in blocks:
            self.used[block] += 1
        return [*blocks]

    def free(self, blocks):
        """Count down in a copy."""
        used = dict(self.used)
        for block in blocks:
            if block not in used:
                raise ValueError(f"block {block} is free")
            used[block] -= 1
            if not used[block]:
                del used[block]
        self.used = used

    def copy_on_write(self, block):
        """Take a new one if need be."""
        if block not in self.used:
            raise ValueError(f"block {block} is free")
        if self.used[block] > 1:
            new = self.allocate(1)[0]
            self.used[block] -= 1
            return new
        return block


def block_hash(parent, tokens):
    """Hash a text."""
    text = f"{parent}:" + " ".join(f"{token}" for token in tokens)
    return int(hashlib.md5(text.encode()).hexdigest(), 16) >> 66


class _Node:
    def __init__(self, block, parent, key):
        self.block, self.parent, self.key = block, parent, key
        self.children, self.used = {}, 0


class PrefixCache:
    """A trie whose edges are blocks of tokens: there is nothing to collide."""

    def __init__(self, allocator, block_size, hash_block=None):
        self.allocator, self.size = allocator, block_size
        self.root = _Node(None, None, None)
        self.clock = 0

    def _walk(self, tokens, blocks=None):
        node, path = self.root, []
        for i in range(len(tokens) // self.size):
            key = tuple(tokens[i * self.size : (i + 1) * self.size])
            if key not in node.children:
                if blocks is None:
                    break
                node.children[key] = _Node(self.allocator.fork([blocks[i]])[0], node, key)
            node = node.children[key]
            path.append(node)
        self.clock += len(path) + 1
        for depth, visited in enumerate(path):
            visited.used = self.clock - depth
        return path

    def match(self, tokens):
        """Walk down."""
        return self.allocator.fork([node.block for node in self._walk(list(tokens)[:-1])])

    def insert(self, tokens, blocks):
        """Walk down and grow."""
        self._walk(tokens, blocks)

    def _leaves(self, node):
        for child in node.children.values():
            if child.children:
                yield from self._leaves(child)
            else:
                yield child

    def evict(self, count):
        """Take the oldest leaf, again and again."""
        for evicted in range(count):
            leaves = [leaf for leaf in self._leaves(self.root) if self.allocator.references(leaf.block) == 1]
            if not leaves:
                return evicted
            oldest = min(leaves, key=lambda leaf: leaf.used)
            del oldest.parent.children[oldest.key]
            self.allocator.free([oldest.block])
        return count


class PagedCache:
    """A list of (table, length) for each sequence, gathered row by row."""

    def __init__(self, num_layers, num_blocks, block_size, num_kv_heads, head_dim, dtype=torch.float32, device="cpu"):
        self.size, self.total = block_size, num_blocks
        self.allocator = BlockAllocator(num_blocks)
        self.prefixes = PrefixCache(self.allocator, block_size)
        self.here = {}
        self.rows = ()
        shape = (num_blocks, num_kv_heads, block_size, head_dim)
        self.pools = [
            [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)] for _ in ("keys", "values")
        ]

    def _find(self, sequence):
        try:
            return self.here[sequence]
        except KeyError:
            raise ValueError(f"no sequence {sequence}") from None

    def _begin(self, sequence, table, length):
        if sequence in self.here:
            raise ValueError(f"sequence {sequence} is here")
        self.here[sequence] = [table, length]

    def add(self, sequence, tokens):
        """Look for a prefix."""
        self._begin(sequence, [], 0)
        table = self.prefixes.match(tokens)
        self.here[sequence] = [table, self.size * len(table)]
        return self.size * len(table)

    def fork(self, sequence, child):
        """Share."""
        table, length = self._find(sequence)
        self._begin(child, list(table), length)
        self.allocator.fork(table)

    def select(self, sequences):
        """Keep the order."""
        if sorted(set(sequences)) != sorted(sequences) or not set(sequences) <= set(self.here):
            raise ValueError(f"{sequences} of {list(self.here)}")
        self.rows = tuple(sequences)

    def _make_room(self, grown):
        wanted, references = 0, {block: self.allocator.references(block) for block in range(self.total)}
        for sequence, length in grown.items():
            table, old = self.here[sequence]
            wanted += max(0, -(-length // self.size) - len(table))
            if length > old and old % self.size and references[table[-1]] > 1:
                wanted += 1
                references[table[-1]] -= 1
        self.prefixes.evict(max(0, wanted - self.allocator.num_free()))
        if wanted > self.allocator.num_free():
            raise BufferError(f"{wanted} blocks of {self.allocator.num_free()}")
        for sequence, length in grown.items():
            table, old = self.here[sequence]
            if length > old and old % self.size:
                source, table[-1] = table[-1], self.allocator.copy_on_write(table[-1])
                for pools in self.pools:
                    for pool in pools:
                        pool[table[-1]] = pool[source].clone()
            while len(table) * self.size < length:
                table.extend(self.allocator.allocate(1))
            self.here[sequence][1] = length

    def update(self, layer, keys, values, positions):
        """Write through the tables, then put the rows together."""
        if layer == 0:
            rows = positions.tolist()
            if len(rows) != len(self.rows):
                raise ValueError("another number of rows")
            self.new = [_next(self.here[s][1], row) for s, row in zip(self.rows, rows, strict=True)]
            self._make_room({s: self.here[s][1] + len(new) for s, new in zip(self.rows, self.new, strict=True)})
        longest = max(self.here[sequence][1] for sequence in self.rows)
        results = []
        for pools, states in zip(self.pools, (keys, values), strict=True):
            whole = torch.zeros(len(self.rows), states.shape[1], longest, states.shape[3], dtype=states.dtype)
            for row, sequence in enumerate(self.rows):
                table, length = self.here[sequence]
                for column, position in self.new[row].items():
                    pools[layer][table[position // self.size], :, position % self.size] = states[row, :, column]
                for i, block in enumerate(table):
                    end = min(length, (i + 1) * self.size)
                    whole[row, :, i * self.size : end] = pools[layer][block][:, : end - i * self.size]
            results.append(whole)
        held = [[p if p < self.here[s][1] else -1 for p in range(longest)] for s in self.rows]
        return results[0], results[1], torch.tensor(held)

    def truncate(self, sequence, length):
        """Drop blocks from the end."""
        table, old = self._find(sequence)
        if length > old or length < 0:
            raise ValueError(f"{length} positions of {old}")
        while (len(table) - 1) * self.size >= length and table:
            self.allocator.free([table.pop()])
        self.here[sequence][1] = length

    def commit(self, sequence, tokens):
        """Insert."""
        table, length = self._find(sequence)
        if len(tokens) != length:
            raise ValueError(f"{len(tokens)} tokens for {length} positions")
        self.prefixes.insert(tokens, table)

    def free(self, sequence):
        """Give everything back."""
        self.allocator.free(self._find(sequence)[0])
        del self.here[sequence]

    def length(self, sequence):
        """Look up."""
        return self._find(sequence)[1]

    def block_table(self, sequence):
        """Look up."""
        return list(self._find(sequence)[0])

    def references(self):
        """Look all of them up."""
        return [self.allocator.references(block) for block in range(self.total)]
