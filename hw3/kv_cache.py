"""Caches of keys and values: contiguous and paged, with prefixes that sequences share.

A cache is what `hw3.transformer.Transformer` takes as its argument `cache`. In a forward pass the model calls `update`
for layer 0, 1, 2, ... in turn with the same positions. The new positions of a row, padding (-1) left out, are those
that follow what the row holds: its length, length + 1, ... in order.
"""

from collections.abc import Callable, Sequence

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
        raise NotImplementedError

    def update(
        self, layer: int, keys: Heads, values: Heads, positions: Int[Tensor, "batch new"]
    ) -> tuple[Heads, Heads, Int[Tensor, "batch keys"]]:
        """Keep a layer's keys and values of new positions; return all that the rows hold, as the protocol `Cache` says.

        No more columns are returned than the longest row needs. Raises ValueError, and changes nothing, unless there
        are as many rows as in the cache, their positions follow what they hold, and no row outgrows `max_length`.
        """
        raise NotImplementedError

    def truncate(self, row: int, length: int) -> None:
        """Forget the positions of a row from `length` on. Raises ValueError unless the row holds that many."""
        raise NotImplementedError


def pad_chunks(
    starts: Sequence[int], chunks: Sequence[Sequence[int]]
) -> tuple[Int[Tensor, "rows new"], Int[Tensor, "rows new"], Int[Tensor, "rows"]]:
    """Return token ids and positions of a forward pass, and the column of each row's last token.

    Row i is the tokens `chunks[i]`, whose first has the position `starts[i]`. Shorter rows are filled up to the length
    of the longest; there the position is -1. Chunks may be empty, but not all of them.
    """
    raise NotImplementedError


def generate(
    model: Model, cache: object, prompts: Sequence[Sequence[int]], *, max_tokens: int, eos_token_id: int
) -> list[list[int]]:
    """Continue every prompt greedily; return the generated tokens of each, the end token included where one came.

    Every position of a row is computed once: the first forward pass takes the prompts, each later one the last token
    of every row that goes on. `model(token_ids, positions, cache, logits_at=...)` is a `hw3.transformer.Transformer`,
    and `cache` an empty cache with a row for each prompt. Rows are padded with position -1. The last generated token of
    a row is never computed. Raises ValueError when a prompt is empty or max_tokens is less than 1.
    """
    raise NotImplementedError


class BlockAllocator:
    """Counts references to `num_blocks` blocks, numbered from 0. A block without any is free."""

    def __init__(self, num_blocks: int):
        raise NotImplementedError

    def num_free(self) -> int:
        """Return how many blocks are free."""
        raise NotImplementedError

    def references(self, block: int) -> int:
        """Return how many references there are to a block."""
        raise NotImplementedError

    def allocate(self, count: int) -> list[int]:
        """Return `count` blocks that were free, with one reference each.

        Raises BufferError, and takes none, when fewer are free.
        """
        raise NotImplementedError

    def fork(self, blocks: Sequence[int]) -> list[int]:
        """Add a reference to each block; return the blocks, as a list of its own.

        Raises ValueError, and adds none, when one of them is free.
        """
        raise NotImplementedError

    def free(self, blocks: Sequence[int]) -> None:
        """Take a reference from each block; those that have none left are free.

        Raises ValueError, and takes none, when a block has fewer references than are to be taken.
        """
        raise NotImplementedError

    def copy_on_write(self, block: int) -> int:
        """Return the block to write in place of `block`: itself if nobody else refers to it, otherwise a new one.

        The caller's reference moves to the new block. Raises ValueError when `block` is free, and BufferError, without
        a change, when a new one is needed and none is free.
        """
        raise NotImplementedError


def block_hash(parent: int, tokens: Sequence[int]) -> int:
    """Return a hash of a block's tokens and of all tokens before them, of which `parent` is the hash (0: no tokens).

    Equal arguments have equal hashes, in every process; others differ but by an unlikely accident.
    """
    raise NotImplementedError


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
        raise NotImplementedError

    def match(self, tokens: Sequence[int]) -> list[int]:
        """Return the longest chain of cached blocks that `tokens` begin with, with a reference to each for the caller.

        The last token is never covered, even if its block is cached: the model must compute at least one token, or
        there would be no logits to go on from. Blocks that are found count as used now.
        """
        raise NotImplementedError

    def insert(self, tokens: Sequence[int], blocks: Sequence[int]) -> None:
        """Keep the full blocks of a sequence: `blocks[i]` holds tokens i * block_size to (i + 1) * block_size - 1.

        Where equal content is cached already, in whatever block, nothing changes but that it counts as used now. A
        block whose hash belongs to other content is left out, and so is what follows it.
        """
        raise NotImplementedError

    def evict(self, count: int) -> int:
        """Free up to `count` blocks that only the cache refers to, least recently used first; return how many.

        Blocks used at the same time go from the end of the chain: a block without those before it is never found.
        """
        raise NotImplementedError


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
        raise NotImplementedError

    def add(self, sequence: int, tokens: Sequence[int]) -> int:
        """Begin a sequence; return of how many of its first tokens the keys and values are here already.

        They are full blocks of earlier sequences that began alike, and never cover all of `tokens`, which are looked up
        here and not kept. Raises ValueError for a sequence that is here already.
        """
        raise NotImplementedError

    def fork(self, sequence: int, child: int) -> None:
        """Begin a sequence that holds what `sequence` holds, in the same blocks.

        Raises ValueError for an unknown sequence, and for a child that is here already.
        """
        raise NotImplementedError

    def select(self, sequences: Sequence[int]) -> None:
        """Make the rows of the following forward passes these sequences, in this order.

        Raises ValueError for an unknown sequence, or for one that comes twice.
        """
        raise NotImplementedError

    def update(
        self, layer: int, keys: Heads, values: Heads, positions: Int[Tensor, "batch new"]
    ) -> tuple[Heads, Heads, Int[Tensor, "batch keys"]]:
        """Keep a layer's keys and values of new positions; return all that the rows hold, as the protocol `Cache` says.

        Blocks are allocated as they are needed, and a shared block is copied before it is written. At most `block_size`
        - 1 more columns are returned than the longest row needs. Raises ValueError unless there is a row for each
        selected sequence and their positions follow what they hold, and BufferError when there are too few blocks. The
        sequences are unchanged then.
        """
        raise NotImplementedError

    def truncate(self, sequence: int, length: int) -> None:
        """Forget the positions of a sequence from `length` on, and give back the blocks that it no longer needs.

        Raises ValueError for an unknown sequence, or one that holds less.
        """
        raise NotImplementedError

    def commit(self, sequence: int, tokens: Sequence[int]) -> None:
        """Offer the full blocks of a sequence, whose tokens these are, to sequences that begin with the same tokens.

        Raises ValueError for an unknown sequence, or unless there are as many tokens as it holds.
        """
        raise NotImplementedError

    def free(self, sequence: int) -> None:
        """Forget a sequence. Raises ValueError for one that is not here."""
        raise NotImplementedError

    def length(self, sequence: int) -> int:
        """Return how many positions a sequence holds. Raises ValueError for one that is not here."""
        raise NotImplementedError

    def block_table(self, sequence: int) -> list[int]:
        """Return the blocks of a sequence, no more than it needs. Raises ValueError for one that is not here."""
        raise NotImplementedError

    def references(self) -> list[int]:
        """Return the number of references to each block: of sequences, and one for being kept as a prefix."""
        raise NotImplementedError
