"""Caches of keys and values: contiguous and paged, with prefixes that sequences share.

A cache is what `hw3.transformer.Transformer` takes as its argument `cache`. In a forward pass the model calls `update`
for layer 0, 1, 2, ... in turn with the same positions. The new positions of a row, padding (-1) left out, are those
that follow what the row holds: its length, length + 1, ... in order.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

Heads = Float[Tensor, "batch heads length head_dim"]
Model = Callable[..., Float[Tensor, "batch positions vocab"]]


class ContiguousCache:
    """Keys and values of a batch of sequences in buffers that are allocated once, a row for each sequence.

    Rows may have different lengths. Position p of a row lies in column p.
    """

    lengths: list[int]
    """How many positions each row holds."""

    def __init__(
        self,
        num_layers: int,
        batch_size: int,
        max_length: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ):
        self.lengths = [0] * batch_size
        # Zeros, not merely allocated: a masked value is multiplied by zero, which does not heal a NaN.
        shape = (num_layers, batch_size, num_kv_heads, max_length, head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros_like(self._keys)

    def update(
        self, layer: int, keys: Heads, values: Heads, positions: Int[Tensor, "batch new"]
    ) -> tuple[Heads, Heads, Int[Tensor, "batch keys"]]:
        """Keep a layer's keys and values of new positions; return all that the rows hold, as the protocol `Cache` says.

        No more columns are returned than the longest row needs. Raises ValueError, and changes nothing, unless there
        are as many rows as in the cache, their positions follow what they hold, and no row outgrows `max_length`.
        """
        if layer == 0:
            self._begin_step(positions)
        all_keys, all_values = self._keys[layer, :, :, : self._end], self._values[layer, :, :, : self._end]
        for buffer, new in ((all_keys, keys), (all_values, values)):
            if self._aligned:
                buffer[:, :, -new.shape[2] :] = new
            else:
                buffer[self._rows, :, self._slots] = new[self._rows, :, self._columns]
        return all_keys, all_values, self._key_positions

    def _begin_step(self, positions: Int[Tensor, "batch new"]) -> None:
        """Check and count the new positions, and find their places, once for all layers."""
        if len(positions) != len(self.lengths):
            raise ValueError(f"expected {len(self.lengths)} rows, got {len(positions)}")
        lengths = [_grown(length, row) for length, row in zip(self.lengths, positions.tolist(), strict=True)]
        if max(lengths) > self._keys.shape[3]:
            raise ValueError(f"expected rows of at most {self._keys.shape[3]} positions, got one of {max(lengths)}")
        new = positions.shape[1]
        self._aligned = lengths == [lengths[0]] * len(lengths) == [length + new for length in self.lengths]
        self._rows, self._columns = (positions >= 0).nonzero(as_tuple=True)
        self._slots = positions[self._rows, self._columns]
        self.lengths, self._end = lengths, max(lengths)
        self._key_positions = _up_to(lengths, self._end, positions.device)

    def truncate(self, row: int, length: int) -> None:
        """Forget the positions of a row from `length` on. Raises ValueError unless the row holds that many."""
        if not 0 <= length <= self.lengths[row]:
            raise ValueError(f"expected a length from 0 to {self.lengths[row]}, got {length}")
        self.lengths[row] = length


def pad_chunks(
    starts: Sequence[int], chunks: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "rows new"], Int[Tensor, "rows new"], Int[Tensor, "rows"]]:
    """Return token ids and positions of a forward pass, and the column of each row's last token.

    Row i is the tokens `chunks[i]`, whose first has the position `starts[i]`. Shorter rows are filled up to the length
    of the longest; there the position is -1. Chunks may be empty, but not all of them.
    """
    width = max(map(len, chunks))
    token_ids = torch.zeros(len(chunks), width, dtype=torch.long)
    positions = torch.full_like(token_ids, -1)
    for row, (start, chunk) in enumerate(zip(starts, chunks, strict=True)):
        token_ids[row, : len(chunk)] = torch.tensor(chunk, dtype=torch.long)
        positions[row, : len(chunk)] = torch.arange(start, start + len(chunk))
    return token_ids, positions, torch.tensor([max(0, len(chunk) - 1) for chunk in chunks])


def generate(
    model: Model, cache: object, prompts: Sequence[Sequence[int]], *, max_tokens: int, eos_token_id: int
) -> list[list[int]]:
    """Continue every prompt greedily; return the generated tokens of each, the end token included where one came.

    Every position of a row is computed once: the first forward pass takes the prompts, each later one the last token
    of every row that goes on. `model(token_ids, positions, cache, logits_at=...)` is a `hw3.transformer.Transformer`,
    and `cache` an empty cache with a row for each prompt. Rows are padded with position -1. The last generated token of
    a row is never computed. Raises ValueError when a prompt is empty or max_tokens is less than 1.
    """
    if max_tokens < 1 or not all(prompts):
        raise ValueError("expected prompts of at least one token, and max_tokens of at least 1")
    generated: list[list[int]] = [[] for _ in prompts]
    starts, chunks = [0] * len(prompts), [list(prompt) for prompt in prompts]
    while any(chunks):
        token_ids, positions, last = pad_chunks(starts, chunks)
        choices = model(token_ids, positions, cache, logits_at=last)[:, 0].argmax(-1).tolist()
        for row, token in enumerate(choices):
            if chunks[row]:
                generated[row].append(token)
                starts[row] += len(chunks[row])
                chunks[row] = [] if token == eos_token_id or len(generated[row]) == max_tokens else [token]
    return generated


class BlockAllocator:
    """Counts references to `num_blocks` blocks, numbered from 0. A block without any is free."""

    def __init__(self, num_blocks: int):
        self._free = list(range(num_blocks))[::-1]
        self._references = [0] * num_blocks

    def num_free(self) -> int:
        """Return how many blocks are free."""
        return len(self._free)

    def references(self, block: int) -> int:
        """Return how many references there are to a block."""
        return self._references[block]

    def allocate(self, count: int) -> list[int]:
        """Return `count` blocks that were free, with one reference each.

        Raises BufferError, and takes none, when fewer are free.
        """
        if count > len(self._free):
            raise BufferError(f"expected {count} free blocks, got {len(self._free)}")
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def fork(self, blocks: Sequence[int]) -> list[int]:
        """Add a reference to each block; return the blocks, as a list of its own.

        Raises ValueError, and adds none, when one of them is free.
        """
        for block in blocks:
            self._refuse_fewer(block, 1)
        for block in blocks:
            self._references[block] += 1
        return list(blocks)

    def free(self, blocks: Sequence[int]) -> None:
        """Take a reference from each block; those that have none left are free.

        Raises ValueError, and takes none, when a block has fewer references than are to be taken.
        """
        for block, count in Counter(blocks).items():
            self._refuse_fewer(block, count)
        for block in blocks:
            self._references[block] -= 1
            if self._references[block] == 0:
                self._free.append(block)

    def copy_on_write(self, block: int) -> int:
        """Return the block to write in place of `block`: itself if nobody else refers to it, otherwise a new one.

        The caller's reference moves to the new block. Raises ValueError when `block` is free, and BufferError, without
        a change, when a new one is needed and none is free.
        """
        self._refuse_fewer(block, 1)
        if self._references[block] == 1:
            return block
        (copy,) = self.allocate(1)
        self.free([block])
        return copy

    def _refuse_fewer(self, block: int, count: int) -> None:
        if self._references[block] < count:
            raise ValueError(f"expected {count} references to block {block}, there are {self._references[block]}")


def block_hash(parent: int, tokens: Sequence[int]) -> int:
    """Return a hash of a block's tokens and of all tokens before them, of which `parent` is the hash (0: no tokens).

    Equal arguments have equal hashes, in every process; others differ but by an unlikely accident.
    """
    text = ",".join(map(str, (parent, *tokens)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


@dataclass(eq=False)
class _CachedBlock:
    block: int
    tokens: tuple[int, ...]
    parent: "_CachedBlock | None"
    hash: int
    children: int = 0


class PrefixCache:
    """Finds blocks whose keys and values can be used again: same tokens, and same tokens before them.

    Keys and values depend on all tokens up to their own, so a block is known by the chained hash of its tokens. Hashes
    only say where to look: a block is given out only if its tokens, and those of all blocks before it, are equal. Only
    full blocks are kept, with one reference of the cache's own to each. `hash_block` stands in for `block_hash`.
    """

    def __init__(
        self,
        allocator: BlockAllocator,
        block_size: int,
        hash_block: Callable[[int, Sequence[int]], int] | None = None,
    ):
        self._allocator = allocator
        self._block_size = block_size
        self._hash_block = hash_block or block_hash
        self._cached: OrderedDict[int, _CachedBlock] = OrderedDict()  # by hash; the least recently used comes first

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Return the longest chain of cached blocks that `tokens` begin with, with a reference to each for the caller.

        The last token is never covered, even if its block is cached: the model must compute at least one token, or
        there would be no logits to go on from. Blocks that are found count as used now.
        """
        chain = self._chain(tokens[:-1])
        self._use(chain)
        return self._allocator.fork([cached.block for cached in chain])

    def insert(self, tokens: Sequence[int], blocks: Sequence[int]) -> None:
        """Keep the full blocks of a sequence: `blocks[i]` holds tokens i * block_size to (i + 1) * block_size - 1.

        Where equal content is cached already, in whatever block, nothing changes but that it counts as used now. A
        block whose hash belongs to other content is left out, and so is what follows it.
        """
        chain = self._chain(tokens)
        for i in range(len(chain), len(tokens) // self._block_size):
            parent = chain[-1] if chain else None
            own = tuple(tokens[i * self._block_size : (i + 1) * self._block_size])
            hashed = self._hash_block(parent.hash if parent else 0, own)
            if hashed in self._cached:
                break
            (block,) = self._allocator.fork([blocks[i]])
            self._cached[hashed] = _CachedBlock(block, own, parent, hashed)
            if parent:
                parent.children += 1
            chain.append(self._cached[hashed])
        self._use(chain)

    def evict(self, count: int) -> int:
        """Free up to `count` blocks that only the cache refers to, least recently used first; return how many.

        Blocks used at the same time go from the end of the chain: a block without those before it is never found.
        """
        evicted: list[_CachedBlock] = []
        for cached in self._cached.values():
            if len(evicted) == count:
                break
            if cached.children == 0 and self._allocator.references(cached.block) == 1:
                evicted.append(cached)
                if cached.parent:
                    cached.parent.children -= 1  # it comes later in this order
        for cached in evicted:
            del self._cached[cached.hash]
        self._allocator.free([cached.block for cached in evicted])
        return len(evicted)

    def _chain(self, tokens: Sequence[int]) -> list[_CachedBlock]:
        """Return the cached blocks that tokens begin with, verified."""
        chain: list[_CachedBlock] = []
        for end in range(self._block_size, len(tokens) + 1, self._block_size):
            parent, own = chain[-1] if chain else None, tuple(tokens[end - self._block_size : end])
            found = self._cached.get(self._hash_block(parent.hash if parent else 0, own))
            if found is None or found.tokens != own or found.parent is not parent:
                break
            chain.append(found)
        return chain

    def _use(self, chain: list[_CachedBlock]) -> None:
        for cached in reversed(chain):
            self._cached.move_to_end(cached.hash)


class PagedCache:
    """Keys and values of any number of sequences in blocks of `block_size` positions out of one pool.

    A sequence's block table names its blocks in order: position p lies in block table[p // block_size] at offset
    p % block_size. Sequences are known by a number of the caller's choice. `select` says which of them the rows of the
    following forward passes are. Sequences that fork share their blocks until one of them writes (copy on write);
    sequences that begin with the same tokens share full blocks through a `PrefixCache`, whose blocks are evicted when
    no block is free.
    """

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ):
        self._block_size = block_size
        self._allocator = BlockAllocator(num_blocks)
        self._prefixes = PrefixCache(self._allocator, block_size)
        self._tables: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}
        self._selected: list[int] = []
        shape = (num_layers, num_blocks, block_size, num_kv_heads, head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros_like(self._keys)

    def add(self, sequence: int, tokens: Sequence[int]) -> int:
        """Begin a sequence; return of how many of its first tokens the keys and values are here already.

        They are full blocks of earlier sequences that began alike, and never cover all of `tokens`, which are looked up
        here and not kept. Raises ValueError for a sequence that is here already.
        """
        self._refuse_known(sequence)
        self._tables[sequence] = self._prefixes.match(tokens)
        self._lengths[sequence] = len(self._tables[sequence]) * self._block_size
        return self._lengths[sequence]

    def fork(self, sequence: int, child: int) -> None:
        """Begin a sequence that holds what `sequence` holds, in the same blocks.

        Raises ValueError for an unknown sequence, and for a child that is here already.
        """
        self._refuse_known(child)
        self._tables[child] = self._allocator.fork(self._table(sequence))
        self._lengths[child] = self._lengths[sequence]

    def select(self, sequences: Sequence[int]) -> None:
        """Make the rows of the following forward passes these sequences, in this order.

        Raises ValueError for an unknown sequence, or for one that comes twice.
        """
        if len(set(sequences)) < len(sequences):
            raise ValueError(f"expected every sequence once, got {list(sequences)}")
        for sequence in sequences:
            self._table(sequence)
        self._selected = list(sequences)

    def update(
        self, layer: int, keys: Heads, values: Heads, positions: Int[Tensor, "batch new"]
    ) -> tuple[Heads, Heads, Int[Tensor, "batch keys"]]:
        """Keep a layer's keys and values of new positions; return all that the rows hold, as the protocol `Cache` says.

        Blocks are allocated as they are needed, and a shared block is copied before it is written. At most `block_size`
        - 1 more columns are returned than the longest row needs. Raises ValueError unless there is a row for each
        selected sequence and their positions follow what they hold, and BufferError when there are too few blocks. The
        sequences are unchanged then.
        """
        if layer == 0:
            self._begin_step(positions)
        gathered = []
        for pool, new in ((self._keys[layer], keys), (self._values[layer], values)):
            pool.flatten(0, 1)[self._slots] = new[self._rows, :, self._columns]
            # index_select copies whole blocks: several times as fast as an index in brackets.
            blocks = pool.index_select(0, self._blocks.flatten()).unflatten(0, self._blocks.shape)
            gathered.append(blocks.flatten(1, 2).transpose(1, 2))
        return gathered[0], gathered[1], self._key_positions

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the positions of a sequence from `length` on, and give back the blocks that it no longer needs.

        Raises ValueError for an unknown sequence, or one that holds less.
        """
        table = self._table(sequence)
        if not 0 <= length <= self._lengths[sequence]:
            raise ValueError(f"expected a length from 0 to {self._lengths[sequence]}, got {length}")
        needed = self._blocks_for(length)
        self._allocator.free(table[needed:])
        del table[needed:]
        self._lengths[sequence] = length

    def commit(self, sequence: int, tokens: Sequence[int]) -> None:
        """Offer the full blocks of a sequence, whose tokens these are, to sequences that begin with the same tokens.

        Raises ValueError for an unknown sequence, or unless there are as many tokens as it holds.
        """
        table = self._table(sequence)
        if len(tokens) != self._lengths[sequence]:
            raise ValueError(f"expected the {self._lengths[sequence]} tokens of the sequence, got {len(tokens)}")
        self._prefixes.insert(tokens, table)

    def free(self, sequence: int) -> None:
        """Forget a sequence. Raises ValueError for one that is not here."""
        # From the end, so that the blocks of a sequence are taken again in order.
        self._allocator.free(self._table(sequence)[::-1])
        del self._tables[sequence], self._lengths[sequence]
        self._selected = [selected for selected in self._selected if selected != sequence]

    def length(self, sequence: int) -> int:
        """Return how many positions a sequence holds. Raises ValueError for one that is not here."""
        self._table(sequence)
        return self._lengths[sequence]

    def block_table(self, sequence: int) -> list[int]:
        """Return the blocks of a sequence, no more than it needs. Raises ValueError for one that is not here."""
        return list(self._table(sequence))

    def references(self) -> list[int]:
        """Return the number of references to each block: of sequences, and one for being kept as a prefix."""
        return [self._allocator.references(block) for block in range(self._keys.shape[1])]

    def _begin_step(self, positions: Int[Tensor, "batch new"]) -> None:
        """Check and count the new positions, and find their places, once for all layers."""
        if len(positions) != len(self._selected):
            raise ValueError(
                f"expected a row for each of {len(self._selected)} selected sequences, got {len(positions)}"
            )
        lengths = [
            _grown(self._lengths[sequence], row)
            for sequence, row in zip(self._selected, positions.tolist(), strict=True)
        ]
        self._make_room(lengths)
        tables = [self._tables[sequence] for sequence in self._selected]
        width = max(map(len, tables), default=0)
        # Block 0 fills the shorter tables up; the positions of what it holds are -1.
        padded = torch.tensor([table + [0] * (width - len(table)) for table in tables], dtype=torch.long)
        self._blocks = padded.to(positions.device)
        self._rows, self._columns = (positions >= 0).nonzero(as_tuple=True)
        new = positions[self._rows, self._columns]
        blocks = self._blocks[self._rows, new // self._block_size]
        self._slots = blocks * self._block_size + new % self._block_size
        self._key_positions = _up_to(lengths, width * self._block_size, positions.device)

    def _make_room(self, lengths: list[int]) -> None:
        """Let every selected sequence own the blocks that it writes up to its new length."""
        grown, shared = 0, Counter[int]()
        for sequence, length in zip(self._selected, lengths, strict=True):
            grown += self._blocks_for(length) - len(self._tables[sequence])
            shared.update(self._written(sequence, length))
        # Of those who write the same block, the last may have it if nobody else refers to it.
        references = self._allocator.references
        copies = sum(min(writers, references(block) - 1) for block, writers in shared.items())
        missing = grown + copies - self._allocator.num_free()
        if missing > 0:
            self._prefixes.evict(missing)
        if grown + copies > self._allocator.num_free():
            raise BufferError(f"expected {grown + copies} free blocks, got {self._allocator.num_free()}")
        for sequence, length in zip(self._selected, lengths, strict=True):
            table = self._tables[sequence]
            for old in self._written(sequence, length):
                new = self._allocator.copy_on_write(old)
                if new != old:
                    self._keys[:, new], self._values[:, new] = self._keys[:, old], self._values[:, old]
                    table[table.index(old)] = new
            table += self._allocator.allocate(self._blocks_for(length) - len(table))
            self._lengths[sequence] = length

    def _written(self, sequence: int, length: int) -> list[int]:
        """Return the sequence's blocks that growing to a length writes into: its last one, if that is not full."""
        partial = self._lengths[sequence] % self._block_size and length > self._lengths[sequence]
        return self._tables[sequence][-1:] if partial else []

    def _blocks_for(self, length: int) -> int:
        return -(-length // self._block_size)

    def _table(self, sequence: int) -> list[int]:
        if sequence not in self._tables:
            raise ValueError(f"expected one of the sequences {sorted(self._tables)}, got {sequence}")
        return self._tables[sequence]

    def _refuse_known(self, sequence: int) -> None:
        if sequence in self._tables:
            raise ValueError(f"expected a new sequence, got {sequence}, which is here already")


def _grown(length: int, positions: list[int]) -> int:
    """Return the length of a row after its new positions."""
    new = [position for position in positions if position != -1]
    if new != list(range(length, length + len(new))):
        raise ValueError(f"expected positions that follow the {length} of the row, got {new}")
    return length + len(new)


def _up_to(lengths: list[int], width: int, device: torch.device) -> Int[Tensor, "batch width"]:
    """Return the positions 0, 1, 2, ... of every row, and -1 from its length on."""
    positions = torch.arange(width, device=device).expand(len(lengths), -1)
    return positions.masked_fill(positions >= torch.tensor(lengths, device=device)[:, None], -1)
