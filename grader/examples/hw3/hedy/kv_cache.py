"""Caches of keys and values: contiguous and paged, with prefixes that sequences share.

A cache is what `hw3.transformer.Transformer` takes as its argument `cache`. In a forward pass the model calls `update`
for layer 0, 1, 2, ... in turn with the same positions. The new positions of a row, padding (-1) left out, are those
that follow what the row holds: its length, length + 1, ... in order.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

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
        shape = (num_layers, batch_size, num_kv_heads, max_length, head_dim)
        self.lengths = [0] * batch_size
        self.max_length = max_length
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self._new: _NewPositions | None = None

    def update(
        self, layer: int, keys: Heads, values: Heads, positions: Int[Tensor, "batch new"]
    ) -> tuple[Heads, Heads, Int[Tensor, "batch keys"]]:
        """Keep a layer's keys and values of new positions; return all that the rows hold, as the protocol `Cache` says.

        No more columns are returned than the longest row needs. Raises ValueError, and changes nothing, unless there
        are as many rows as in the cache, their positions follow what they hold, and no row outgrows `max_length`.
        """
        if layer == 0:
            self._new = None
            new = _NewPositions(positions, self.lengths)
            _check_shapes(self._keys[0, :, :, :1], keys, values, positions)
            lengths = [held + count for held, count in zip(self.lengths, new.counts, strict=True)]
            if max(lengths, default=0) > self.max_length:
                raise ValueError(f"expected at most {self.max_length} positions in a row, got lengths {lengths}")
            self.lengths, self._new = lengths, new
        new = _same_pass(self._new, positions)
        self._keys[layer][new.rows, :, new.places] = keys[new.rows, :, new.columns].to(self._keys.dtype)
        self._values[layer][new.rows, :, new.places] = values[new.rows, :, new.columns].to(self._values.dtype)
        longest = max(self.lengths, default=0)
        held = _held_positions(self.lengths, longest, positions)
        return self._keys[layer][:, :, :longest], self._values[layer][:, :, :longest], held

    def truncate(self, row: int, length: int) -> None:
        """Forget the positions of a row from `length` on. Raises ValueError unless the row holds that many."""
        if not 0 <= row < len(self.lengths):
            raise ValueError(f"expected a row from 0 to {len(self.lengths) - 1}, got {row}")
        if not 0 <= length <= self.lengths[row]:
            raise ValueError(f"expected a length from 0 to {self.lengths[row]}, what row {row} holds, got {length}")
        self.lengths[row] = length
        self._new = None


def pad_chunks(
    starts: Sequence[int], chunks: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "rows new"], Int[Tensor, "rows new"], Int[Tensor, "rows"]]:
    """Return token ids and positions of a forward pass, and the column of each row's last token.

    Row i is the tokens `chunks[i]`, whose first has the position `starts[i]`. Shorter rows are filled up to the length
    of the longest; there the position is -1. Chunks may be empty, but not all of them.
    """
    if len(starts) != len(chunks):
        raise ValueError(f"expected a start for each chunk, got {len(starts)} starts for {len(chunks)} chunks")
    width = max(map(len, chunks), default=0)
    if not width:
        raise ValueError("expected at least one token in the chunks, got none")
    token_ids = torch.zeros(len(chunks), width, dtype=torch.long)
    positions = torch.full_like(token_ids, -1)
    for row, (start, chunk) in enumerate(zip(starts, chunks, strict=True)):
        count = len(chunk)
        token_ids[row, :count] = torch.tensor(list(chunk), dtype=torch.long)
        positions[row, :count] = torch.arange(start, start + count)
    last = torch.tensor([max(0, len(chunk) - 1) for chunk in chunks])
    return token_ids, positions, last


def generate(
    model: Model, cache: object, prompts: Sequence[Sequence[int]], *, max_tokens: int, eos_token_id: int
) -> list[list[int]]:
    """Continue every prompt greedily; return the generated tokens of each, the end token included where one came.

    Every position of a row is computed once: the first forward pass takes the prompts, each later one the last token
    of every row that goes on. `model(token_ids, positions, cache, logits_at=...)` is a `hw3.transformer.Transformer`,
    and `cache` an empty cache with a row for each prompt. Rows are padded with position -1. The last generated token of
    a row is never computed. Raises ValueError when a prompt is empty or max_tokens is less than 1.
    """
    if max_tokens < 1:
        raise ValueError(f"expected max_tokens of at least 1, got {max_tokens}")
    if not all(len(prompt) for prompt in prompts):
        raise ValueError("expected prompts of at least one token, got an empty one")
    generated: list[list[int]] = [[] for _ in prompts]
    starts = [0 for _ in prompts]
    chunks = [list(prompt) for prompt in prompts]
    while any(chunks):
        token_ids, positions, last = pad_chunks(starts, chunks)
        with torch.no_grad():
            logits = model(token_ids, positions, cache, logits_at=last)
        choices = logits[:, 0].argmax(-1).tolist()
        for row, (chunk, tokens) in enumerate(zip(chunks, generated, strict=True)):
            if not chunk:
                continue
            token = choices[row]
            tokens.append(token)
            starts[row] += len(chunk)
            chunks[row] = [] if token == eos_token_id or len(tokens) == max_tokens else [token]
    return generated


class BlockAllocator:
    """Counts references to `num_blocks` blocks, numbered from 0. A block without any is free."""

    def __init__(self, num_blocks: int):
        self._references = [0] * num_blocks
        self._free = list(range(num_blocks - 1, -1, -1))

    def num_free(self) -> int:
        """Return how many blocks are free."""
        return len(self._free)

    def references(self, block: int) -> int:
        """Return how many references there are to a block."""
        if not 0 <= block < len(self._references):
            raise ValueError(f"expected a block from 0 to {len(self._references) - 1}, got {block}")
        return self._references[block]

    def allocate(self, count: int) -> list[int]:
        """Return `count` blocks that were free, with one reference each.

        Raises BufferError, and takes none, when fewer are free.
        """
        if count < 0:
            raise ValueError(f"expected a count of at least 0, got {count}")
        if count > len(self._free):
            raise BufferError(f"expected {count} free blocks, there are {len(self._free)}")
        blocks = [self._free.pop() for _ in range(count)]
        for block in blocks:
            self._references[block] = 1
        return blocks

    def fork(self, blocks: Sequence[int]) -> list[int]:
        """Add a reference to each block; return the blocks, as a list of its own.

        Raises ValueError, and adds none, when one of them is free.
        """
        for block in blocks:
            if not self.references(block):
                raise ValueError(f"expected blocks in use, but block {block} is free")
        for block in blocks:
            self._references[block] += 1
        return list(blocks)

    def free(self, blocks: Sequence[int]) -> None:
        """Take a reference from each block; those that have none left are free.

        Raises ValueError, and takes none, when a block has fewer references than are to be taken.
        """
        for block, count in Counter(blocks).items():
            if self.references(block) < count:
                raise ValueError(f"expected {count} references to block {block}, there are {self.references(block)}")
        for block in blocks:
            self._references[block] -= 1
            if not self._references[block]:
                self._free.append(block)

    def copy_on_write(self, block: int) -> int:
        """Return the block to write in place of `block`: itself if nobody else refers to it, otherwise a new one.

        The caller's reference moves to the new block. Raises ValueError when `block` is free, and BufferError, without
        a change, when a new one is needed and none is free.
        """
        references = self.references(block)
        if not references:
            raise ValueError(f"expected a block in use, but block {block} is free")
        if references == 1:
            return block
        (copy,) = self.allocate(1)
        self._references[block] -= 1
        return copy


def block_hash(parent: int, tokens: Sequence[int]) -> int:
    """Return a hash of a block's tokens and of all tokens before them, of which `parent` is the hash (0: no tokens).

    Equal arguments have equal hashes, in every process; others differ but by an unlikely accident.
    """
    text = ",".join(str(int(number)) for number in (parent, *tokens))
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")


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
        # By hash, used least recently first. A use puts a chain's last block first, so children come before parents.
        self._kept: OrderedDict[int, _KeptBlock] = OrderedDict()

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Return the longest chain of cached blocks that `tokens` begin with, with a reference to each for the caller.

        The last token is never covered, even if its block is cached: the model must compute at least one token, or
        there would be no logits to go on from. Blocks that are found count as used now.
        """
        chain = self._find(tokens, max(0, len(tokens) - 1) // self._block_size)
        self._use(chain)
        return self._allocator.fork([kept.block for kept in chain])

    def insert(self, tokens: Sequence[int], blocks: Sequence[int]) -> None:
        """Keep the full blocks of a sequence: `blocks[i]` holds tokens i * block_size to (i + 1) * block_size - 1.

        Where equal content is cached already, in whatever block, nothing changes but that it counts as used now. A
        block whose hash belongs to other content is left out, and so is what follows it.
        """
        count = min(len(tokens) // self._block_size, len(blocks))
        chain = self._find(tokens, count)
        new: list[_KeptBlock] = []
        taken = set()
        parent = chain[-1] if chain else None
        for number in range(len(chain), count):
            part = self._part(tokens, number)
            key = self._hash_block(parent.key if parent else 0, part)
            if key in self._kept or key in taken:
                break  # the hash of other content, or it would have been found
            parent = _KeptBlock(key, blocks[number], part, parent)
            taken.add(key)
            new.append(parent)
        self._allocator.fork([kept.block for kept in new])
        for kept in new:
            self._kept[kept.key] = kept
            if kept.parent:
                kept.parent.children += 1
        self._use(chain + new)

    def evict(self, count: int) -> int:
        """Free up to `count` blocks that only the cache refers to, least recently used first; return how many.

        Blocks used at the same time go from the end of the chain: a block without those before it is never found.
        """
        evicted = 0
        for kept in list(self._kept.values()):
            if evicted >= count:
                break
            if kept.children or self._allocator.references(kept.block) > 1:
                continue
            del self._kept[kept.key]
            if kept.parent:
                kept.parent.children -= 1
            self._allocator.free([kept.block])
            evicted += 1
        return evicted

    def _part(self, tokens: Sequence[int], number: int) -> list[int]:
        """Return the tokens of a block."""
        begin = number * self._block_size
        return [int(token) for token in tokens[begin : begin + self._block_size]]

    def _find(self, tokens: Sequence[int], count: int) -> list["_KeptBlock"]:
        """Return the longest kept chain that begins with the first tokens, of at most `count` blocks."""
        chain: list[_KeptBlock] = []
        parent = None
        for number in range(count):
            part = self._part(tokens, number)
            kept = self._kept.get(self._hash_block(parent.key if parent else 0, part))
            # A block's parent stays as long as the block does, so the same parent means the same tokens before it.
            if kept is None or kept.tokens != part or kept.parent is not parent:
                break
            chain.append(kept)
            parent = kept
        return chain

    def _use(self, chain: Sequence["_KeptBlock"]) -> None:
        for kept in reversed(chain):
            self._kept.move_to_end(kept.key)


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
        shape = (num_layers, num_blocks, block_size, num_kv_heads, head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self._num_blocks, self._block_size = num_blocks, block_size
        self._allocator = BlockAllocator(num_blocks)
        self._prefixes = PrefixCache(self._allocator, block_size)
        self._held: dict[int, _Held] = {}
        self._selected: list[int] = []
        self._new: _NewPositions | None = None

    def add(self, sequence: int, tokens: Sequence[int]) -> int:
        """Begin a sequence; return of how many of its first tokens the keys and values are here already.

        They are full blocks of earlier sequences that began alike, and never cover all of `tokens`. Raises ValueError
        for a sequence that is here already.
        """
        self._refuse_if_here(sequence)
        table = self._prefixes.match(tokens)
        self._held[sequence] = _Held(table, len(table) * self._block_size)
        return self._held[sequence].length

    def fork(self, sequence: int, child: int) -> None:
        """Begin a sequence that holds what `sequence` holds, in the same blocks.

        Raises ValueError for an unknown sequence, and for a child that is here already.
        """
        held = self._get(sequence)
        self._refuse_if_here(child)
        self._held[child] = _Held(self._allocator.fork(held.table), held.length)

    def select(self, sequences: Sequence[int]) -> None:
        """Make the rows of the following forward passes these sequences, in this order.

        Raises ValueError for an unknown sequence, or for one that comes twice.
        """
        for sequence in sequences:
            self._get(sequence)
        if len(set(sequences)) < len(sequences):
            raise ValueError(f"expected every sequence once, got {list(sequences)}")
        self._selected = list(sequences)
        self._new = None

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
            self._new = None
            rows = [self._get(sequence) for sequence in self._selected]
            new = _NewPositions(positions, [held.length for held in rows])
            _check_shapes(self._keys[0, :1].movedim(1, 2).expand(len(rows), -1, -1, -1), keys, values, positions)
            self._make_room(rows, new.counts)
            self._tables = self._padded_tables(rows, positions)
            new.blocks = self._tables[new.rows, new.places // self._block_size]
            self._longest = max((held.length for held in rows), default=0)
            self._positions = _held_positions([held.length for held in rows], self._longest, positions)
            self._new = new
        new = _same_pass(self._new, positions)
        offsets = new.places % self._block_size
        self._keys[layer][new.blocks, offsets] = keys[new.rows, :, new.columns].to(self._keys.dtype)
        self._values[layer][new.blocks, offsets] = values[new.rows, :, new.columns].to(self._values.dtype)
        gathered_keys, gathered_values = (
            pool[layer][self._tables].flatten(1, 2)[:, : self._longest].transpose(1, 2)
            for pool in (self._keys, self._values)
        )
        return gathered_keys, gathered_values, self._positions

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the positions of a sequence from `length` on, and give back the blocks that it no longer needs.

        Raises ValueError for an unknown sequence, or one that holds less.
        """
        held = self._get(sequence)
        if not 0 <= length <= held.length:
            raise ValueError(f"expected a length from 0 to {held.length}, what {sequence} holds, got {length}")
        needed = self._blocks_for(length)
        self._allocator.free(held.table[needed:])
        del held.table[needed:]
        held.length = length
        self._new = None

    def commit(self, sequence: int, tokens: Sequence[int]) -> None:
        """Offer the full blocks of a sequence, whose tokens these are, to sequences that begin with the same tokens.

        Raises ValueError for an unknown sequence, or unless there are as many tokens as it holds.
        """
        held = self._get(sequence)
        if len(tokens) != held.length:
            raise ValueError(f"expected the {held.length} tokens that sequence {sequence} holds, got {len(tokens)}")
        self._prefixes.insert(tokens, held.table)

    def free(self, sequence: int) -> None:
        """Forget a sequence. Raises ValueError for one that is not here."""
        self._allocator.free(self._get(sequence).table)
        del self._held[sequence]
        self._new = None

    def length(self, sequence: int) -> int:
        """Return how many positions a sequence holds. Raises ValueError for one that is not here."""
        return self._get(sequence).length

    def block_table(self, sequence: int) -> list[int]:
        """Return the blocks of a sequence, no more than it needs. Raises ValueError for one that is not here."""
        return list(self._get(sequence).table)

    def references(self) -> list[int]:
        """Return the number of references to each block: of sequences, and one for being kept as a prefix."""
        return [self._allocator.references(block) for block in range(self._num_blocks)]

    def _get(self, sequence: int) -> "_Held":
        if sequence not in self._held:
            raise ValueError(f"expected a sequence that is here, got {sequence}; here are {sorted(self._held)}")
        return self._held[sequence]

    def _refuse_if_here(self, sequence: int) -> None:
        if sequence in self._held:
            raise ValueError(f"expected a new sequence, but {sequence} is here already")

    def _blocks_for(self, length: int) -> int:
        return -(-length // self._block_size)

    def _make_room(self, rows: Sequence["_Held"], counts: Sequence[int]) -> None:
        """Give every row blocks of its own for its new positions, or raise BufferError before any row changes."""
        growing = [(held, count) for held, count in zip(rows, counts, strict=True) if count]
        # A block that is begun is the last of its table. Whoever is the last to refer to it may write in place.
        begun = Counter(held.table[-1] for held, _ in growing if held.length % self._block_size)
        copies = sum(min(writers, self._allocator.references(block) - 1) for block, writers in begun.items())
        added = sum(self._blocks_for(held.length + count) - len(held.table) for held, count in growing)
        lacking = copies + added - self._allocator.num_free()
        if lacking > 0 and self._prefixes.evict(lacking) < lacking:
            raise BufferError(
                f"expected {copies + added} free blocks for {sum(counts)} new positions, "
                f"there are {self._allocator.num_free()}"
            )
        for held, count in growing:
            if held.length % self._block_size:
                old = held.table[-1]
                own = self._allocator.copy_on_write(old)
                if own != old:
                    self._keys[:, own] = self._keys[:, old]
                    self._values[:, own] = self._values[:, old]
                    held.table[-1] = own
            held.table += self._allocator.allocate(self._blocks_for(held.length + count) - len(held.table))
            held.length += count

    def _padded_tables(self, rows: Sequence["_Held"], like: Tensor) -> Int[Tensor, "rows blocks"]:
        width = max((len(held.table) for held in rows), default=0)
        tables = [held.table + [0] * (width - len(held.table)) for held in rows]
        return torch.tensor(tables, dtype=torch.long, device=like.device).reshape(len(rows), width)


@dataclass(eq=False)
class _KeptBlock:
    """A block of the prefix cache."""

    key: int
    block: int
    tokens: list[int]
    parent: "_KeptBlock | None"
    children: int = 0


@dataclass
class _Held:
    """What a sequence of the paged cache holds."""

    table: list[int]
    length: int


class _NewPositions:
    """Where the new positions of a forward pass are in its input, worked out once for all layers."""

    blocks: Tensor

    def __init__(self, positions: Tensor, lengths: Sequence[int]):
        """Raise ValueError unless there is a row for each of the lengths, and its positions follow them."""
        if positions.ndim != 2 or positions.shape[0] != len(lengths):
            raise ValueError(f"expected positions in {len(lengths)} rows, got the shape {tuple(positions.shape)}")
        self.counts: list[int] = []
        for row, (given, length) in enumerate(zip(positions.tolist(), lengths, strict=True)):
            real = [position for position in given if position != -1]
            if real != list(range(length, length + len(real))):
                raise ValueError(f"expected the positions of row {row} to go on from {length}, got {real}")
            self.counts.append(len(real))
        self.positions = positions.clone()
        self.rows, self.columns = (positions >= 0).nonzero(as_tuple=True)
        self.places = positions[self.rows, self.columns].long()


def _same_pass(new: _NewPositions | None, positions: Tensor) -> _NewPositions:
    """Return the new positions that layer 0 counted; ValueError unless these are the same."""
    if new is None or not torch.equal(new.positions, positions):
        raise ValueError("expected the same positions as at layer 0 of this forward pass")
    return new


def _check_shapes(like: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> None:
    """Raise ValueError unless keys and values have the rows, heads and head_dim of `like`, and a column a position."""
    expected = (*like.shape[:2], positions.shape[1], like.shape[3])
    for name, given in (("keys", keys), ("values", values)):
        if tuple(given.shape) != expected:
            raise ValueError(f"expected {name} of shape {expected}, got {tuple(given.shape)}")


def _held_positions(lengths: Sequence[int], longest: int, like: Tensor) -> Int[Tensor, "batch keys"]:
    """Return 0, 1, 2, ... for each row, and -1 from its length on."""
    columns = torch.arange(longest, dtype=like.dtype, device=like.device).expand(len(lengths), -1)
    held = torch.tensor(list(lengths), dtype=like.dtype, device=like.device)[:, None]
    return columns.masked_fill(columns >= held, -1)
