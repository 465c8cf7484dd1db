"""Plausible wrong solutions of hw3.kv_cache: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

from collections import Counter

import torch

from grader.reference.hw3 import kv_cache as reference
from grader.reference.hw3.kv_cache import BlockAllocator, ContiguousCache, PagedCache, PrefixCache


class ContiguousCache__counts_columns_for_positions(ContiguousCache):
    """Writes padding, and puts a key into the column that its place in the input says."""

    def update(self, layer, keys, values, positions):
        """Append columns."""
        if layer == 0:
            self._start = max(self.lengths)
            self._begin_step(positions)
        end = self._start + positions.shape[1]
        self._keys[layer, :, :, self._start : end] = keys[:, :, : self._keys.shape[3] - self._start]
        self._values[layer, :, :, self._start : end] = values[:, :, : self._keys.shape[3] - self._start]
        return self._keys[layer, :, :, : self._end], self._values[layer, :, :, : self._end], self._key_positions


class ContiguousCache__marks_no_empty_slots(ContiguousCache):
    """Gives every column its number as position, in shorter rows too."""

    def update(self, layer, keys, values, positions):
        """Leave no -1."""
        all_keys, all_values, _ = super().update(layer, keys, values, positions)
        return all_keys, all_values, torch.arange(self._end).expand(len(self.lengths), -1)


class ContiguousCache__truncates_all_rows(ContiguousCache):
    """Cuts every row."""

    def truncate(self, row, length):
        """Cut all."""
        super().truncate(row, length)
        self.lengths = [min(own, length) for own in self.lengths]


class ContiguousCache__truncates_one_too_many(ContiguousCache):
    """Forgets the last position that was to stay."""

    def truncate(self, row, length):
        """Cut at length - 1."""
        super().truncate(row, length)
        self.lengths[row] = max(0, length - 1)


class ContiguousCache__one_buffer_for_all_layers(ContiguousCache):
    """Every layer overwrites what the one before has kept."""

    def update(self, layer, keys, values, positions):
        """Use layer 0's buffers."""
        if layer == 0:
            self._begin_step(positions)
        for buffer, new in ((self._keys[0], keys), (self._values[0], values)):
            buffer[self._rows, :, self._slots] = new[self._rows, :, self._columns]
        return self._keys[0, :, :, : self._end], self._values[0, :, :, : self._end], self._key_positions


class ContiguousCache__returns_whole_buffers(ContiguousCache):
    """Lets attention read every column that was allocated."""

    def update(self, layer, keys, values, positions):
        """Return all columns."""
        super().update(layer, keys, values, positions)
        columns = torch.arange(self._keys.shape[3]).expand(len(self.lengths), -1)
        ends = torch.tensor(self.lengths)[:, None]
        return self._keys[layer], self._values[layer], columns.masked_fill(columns >= ends, -1)


class ContiguousCache__takes_any_positions(ContiguousCache):
    """Does not ask whether positions follow."""

    def _begin_step(self, positions):
        lengths = [max(length, max(row) + 1) for length, row in zip(self.lengths, positions.tolist(), strict=True)]
        if max(lengths) > self._keys.shape[3]:
            raise ValueError("too long")
        self._aligned = False
        self._rows, self._columns = (positions >= 0).nonzero(as_tuple=True)
        self._slots = positions[self._rows, self._columns]
        self.lengths, self._end = lengths, max(lengths)
        columns = torch.arange(self._end).expand(len(lengths), -1)
        self._key_positions = columns.masked_fill(columns >= torch.tensor(lengths)[:, None], -1)


class ContiguousCache__counts_in_every_layer(ContiguousCache):
    """Adds the new positions to the lengths once for each layer."""

    def update(self, layer, keys, values, positions):
        """Count again."""
        result = super().update(layer, keys, values, positions)
        if layer:
            self.lengths = [n + int((row >= 0).sum()) for n, row in zip(self.lengths, positions, strict=True)]
        return result


def pad_chunks__restarts_positions(starts, chunks):
    """Begins every row at position 0."""
    return reference.pad_chunks([0] * len(starts), chunks)


def pad_chunks__last_column_for_all(starts, chunks):
    """Takes the logits of every row from the last column."""
    token_ids, positions, last = reference.pad_chunks(starts, chunks)
    return token_ids, positions, torch.full_like(last, token_ids.shape[1] - 1)


def pad_chunks__numbers_the_padding(starts, chunks):
    """Goes on counting through the padding."""
    token_ids, _, last = reference.pad_chunks(starts, chunks)
    return token_ids, torch.tensor(starts)[:, None] + torch.arange(token_ids.shape[1]), last


def pad_chunks__column_of_an_empty_row(starts, chunks):
    """Points before the first column where a row is empty."""
    token_ids, positions, _ = reference.pad_chunks(starts, chunks)
    return token_ids, positions, torch.tensor([len(chunk) - 1 for chunk in chunks])


def pad_chunks__floats(starts, chunks):
    """Makes tensors of floats."""
    return tuple(tensor.float() for tensor in reference.pad_chunks(starts, chunks))


def _decode(model, cache, prompts, max_tokens, eos_token_id, *, whole=False, ended=True, end=True, longest=False):
    generated = [[] for _ in prompts]
    starts, chunks = [0] * len(prompts), [list(prompt) for prompt in prompts]
    if max_tokens < 1 or not all(prompts):
        raise ValueError
    done = [False] * len(prompts)
    while not all(done):
        token_ids, positions, last = reference.pad_chunks(starts, chunks)
        tokens = model(token_ids, positions, cache, logits_at=last)[:, 0].argmax(-1).tolist()
        for row, token in enumerate(tokens):
            if done[row]:
                if not ended:
                    starts[row], chunks[row] = starts[row] + len(chunks[row]), [token]
                continue
            if token != eos_token_id or end:
                generated[row].append(token)
            starts[row] += len(chunks[row])
            if longest and starts[row] == len(prompts[row]):
                starts[row] = max(map(len, prompts))
            chunks[row] = [token]
            done[row] = token == eos_token_id or len(generated[row]) == max_tokens
            if done[row] and ended:
                chunks[row] = []
    return generated


def generate__computes_the_last_token(model, cache, prompts, *, max_tokens, eos_token_id):
    """Runs the model once more after the last token."""
    generated = reference.generate(model, cache, prompts, max_tokens=max_tokens, eos_token_id=eos_token_id)
    starts = [len(prompt) + len(own) - 1 for prompt, own in zip(prompts, generated, strict=True)]
    token_ids, positions, last = reference.pad_chunks(starts, [own[-1:] for own in generated])
    model(token_ids, positions, cache, logits_at=last)
    return generated


def generate__computes_ended_rows(model, cache, prompts, *, max_tokens, eos_token_id):
    """Goes on computing rows that have ended."""
    return _decode(model, cache, prompts, max_tokens, eos_token_id, ended=False)


def generate__drops_the_end_token(model, cache, prompts, *, max_tokens, eos_token_id):
    """Leaves the end token out of the result."""
    return _decode(model, cache, prompts, max_tokens, eos_token_id, end=False)


def generate__positions_of_the_longest(model, cache, prompts, *, max_tokens, eos_token_id):
    """Lets all rows go on after the longest prompt."""
    return _decode(model, cache, prompts, max_tokens, eos_token_id, longest=True)


def generate__ends_with_the_first_row(model, cache, prompts, *, max_tokens, eos_token_id):
    """Stops when one row has ended."""
    generated = reference.generate(model, cache, prompts, max_tokens=max_tokens, eos_token_id=eos_token_id)
    return [own[: min(map(len, generated))] for own in generated]


def generate__recomputes_everything(model, cache, prompts, *, max_tokens, eos_token_id):
    """Uses no cache."""
    if max_tokens < 1 or not all(prompts):
        raise ValueError
    generated = []
    for prompt in prompts:
        tokens = list(prompt)
        while len(tokens) < len(prompt) + max_tokens:
            token_ids, positions, last = reference.pad_chunks([0], [tokens])
            cache.kept = {}
            tokens.append(int(model(token_ids, positions, cache, logits_at=last)[0, 0].argmax()))
            if tokens[-1] == eos_token_id:
                break
        generated.append(tokens[len(prompt) :])
    return generated


def generate__continues_nothing(model, cache, prompts, *, max_tokens, eos_token_id):
    """Takes empty prompts for prompts of a token 0."""
    prompts = [prompt or [0] for prompt in prompts]
    return reference.generate(model, cache, prompts, max_tokens=max(1, max_tokens), eos_token_id=eos_token_id)


class BlockAllocator__keeps_block_zero(BlockAllocator):
    """Leaves block 0 aside, and counts it as free."""

    def __init__(self, num_blocks):
        super().__init__(num_blocks)
        self._free.remove(0)

    def num_free(self):
        """Count block 0."""
        return super().num_free() + 1


class BlockAllocator__frees_shared_blocks(BlockAllocator):
    """Puts a block back on the free list whoever else refers to it."""

    def free(self, blocks):
        """Free at once."""
        super().free(blocks)
        for block in blocks:
            if self._references[block]:
                self._references[block] = 0
                self._free.append(block)


class BlockAllocator__keeps_what_it_took(BlockAllocator):
    """Takes blocks one by one until there are none."""

    def allocate(self, count):
        """Take, then complain."""
        if count > len(self._free):
            super().allocate(len(self._free))
            raise BufferError
        return super().allocate(count)


class BlockAllocator__keeps_the_shared_reference(BlockAllocator):
    """Copies a block without letting go of the old one."""

    def copy_on_write(self, block):
        """Forget to free."""
        if self.references(block) == 0:
            raise ValueError
        return block if self.references(block) == 1 else self.allocate(1)[0]


class BlockAllocator__always_copies(BlockAllocator):
    """Copies a block that nobody else refers to."""

    def copy_on_write(self, block):
        """Copy."""
        copy = self.allocate(1)[0]
        self.free([block])
        return copy


class BlockAllocator__frees_twice(BlockAllocator):
    """Takes a reference to a free block back."""

    def free(self, blocks):
        """Do not look."""
        for block in blocks:
            self._references[block] -= 1
            if self._references[block] <= 0:
                self._references[block] = 0
                self._free.append(block)


class BlockAllocator__checks_as_it_goes(BlockAllocator):
    """Frees the first blocks of a list before it finds that one is free already."""

    def free(self, blocks):
        """Free one by one."""
        for block in blocks:
            super().free([block])


class BlockAllocator__forks_free_blocks(BlockAllocator):
    """Gives references to blocks that are free."""

    def fork(self, blocks):
        """Do not look."""
        for block in blocks:
            self._references[block] += 1
        return list(blocks)


def block_hash__ignores_the_parent(parent, tokens):
    """Hashes the tokens alone."""
    return reference.block_hash(0, tokens)


def block_hash__of_the_text(parent, tokens):
    """Hashes what Python prints of the tokens: a list is not a tuple."""
    return reference.block_hash(parent, list(str(tokens).encode()))


def block_hash__ignores_the_order(parent, tokens):
    """Hashes a sorted block."""
    return reference.block_hash(parent, sorted(tokens))


def block_hash__joins_digits(parent, tokens):
    """Puts nothing between the numbers."""
    return reference.block_hash(0, [int("1" + "".join(map(str, (parent, *tokens))))])


def block_hash__sums(parent, tokens):
    """Adds the tokens up."""
    return reference.block_hash(parent, [sum(tokens)])


def block_hash__short(parent, tokens):
    """Keeps eight bits."""
    return reference.block_hash(parent, tokens) % 256


class PrefixCache__covers_all_tokens(PrefixCache):
    """Leaves no token to compute after a full hit."""

    def match(self, tokens):
        """Match everything."""
        return super().match([*tokens, -1])


class PrefixCache__takes_no_reference(PrefixCache):
    """Gives blocks out without a reference for the caller."""

    def match(self, tokens):
        """Look up only."""
        return [cached.block for cached in self._chain(tokens[:-1])]


class PrefixCache__trusts_hashes(PrefixCache):
    """Compares no tokens."""

    def _chain(self, tokens):
        chain, parent = [], 0
        for end in range(self._block_size, len(tokens) + 1, self._block_size):
            parent = self._hash_block(parent, tokens[end - self._block_size : end])
            if parent not in self._cached or self._cached[parent] in chain:
                break
            chain.append(self._cached[parent])
        return chain


class PrefixCache__verifies_one_block(PrefixCache):
    """Compares the tokens of a block, but not what comes before it."""

    def _chain(self, tokens):
        chain = []
        for end in range(self._block_size, len(tokens) + 1, self._block_size):
            own = tuple(tokens[end - self._block_size : end])
            found = self._cached.get(self._hash_block(chain[-1].hash if chain else 0, own))
            if found is None or found.tokens != own:
                break
            chain.append(found)
        return chain


class PrefixCache__hashes_blocks_alone(PrefixCache):
    """Finds a block by its own tokens."""

    def __init__(self, allocator, block_size, hash_block=None):
        super().__init__(allocator, block_size, lambda parent, tokens: reference.block_hash(0, tokens))

    _chain = PrefixCache__verifies_one_block._chain


class PrefixCache__first_in_first_out(PrefixCache):
    """Evicts by age: using a block again does not count."""

    def _use(self, chain):
        for cached in reversed(chain):
            if cached.children == 0 and self._allocator.references(cached.block) == 2:
                self._cached.move_to_end(cached.hash)
                break


class PrefixCache__evicts_blocks_in_use(PrefixCache):
    """Evicts blocks that a sequence refers to."""

    def evict(self, count):
        """Take the oldest."""
        evicted = list(self._cached.values())[:count]
        for cached in evicted:
            del self._cached[cached.hash]
        self._allocator.free([cached.block for cached in evicted])
        return len(evicted)


class PrefixCache__evicts_the_beginning_first(PrefixCache):
    """Counts the beginning of a chain as used before its end."""

    def _use(self, chain):
        for cached in chain:
            self._cached.move_to_end(cached.hash)

    def evict(self, count):
        """Take the oldest that nobody uses."""
        unused = [c for c in self._cached.values() if self._allocator.references(c.block) == 1][:count]
        for cached in unused:
            del self._cached[cached.hash]
        self._allocator.free([cached.block for cached in unused])
        return len(unused)


class PrefixCache__keeps_copies(PrefixCache):
    """Replaces a cached block by a new one with the same content, and forgets the old one's reference."""

    def insert(self, tokens, blocks):
        """Overwrite."""
        super().insert(tokens, blocks)
        for cached, block in zip(self._chain(tokens), blocks, strict=False):
            if cached.block != block:
                (cached.block,) = self._allocator.fork([block])


class PrefixCache__keeps_the_last_block(PrefixCache):
    """Keeps a block that is not full."""

    def insert(self, tokens, blocks):
        """Keep all."""
        super().insert(tokens, blocks)
        if len(tokens) % self._block_size:
            self._allocator.fork(blocks[-1:])


class PagedCache__begins_again(PagedCache):
    """Adds a sequence in place of one that is here."""

    def _refuse_known(self, sequence):
        self._tables.pop(sequence, None)


class PagedCache__writes_shared_blocks(PagedCache):
    """Copies nothing before it writes."""

    def _written(self, sequence, length):
        return []


class PagedCache__copies_one_layer(PagedCache):
    """Copies a shared block in the first layer only."""

    def _make_room(self, lengths):
        before = {sequence: list(self._tables[sequence]) for sequence in self._selected}
        kept = self._keys[1:].clone()
        super()._make_room(lengths)
        for sequence, table in before.items():
            for old, new in zip(table, self._tables[sequence], strict=False):
                if old != new:
                    self._keys[1:, new] = kept[:, new]


class PagedCache__leaks_on_free(PagedCache):
    """Forgets a sequence and keeps its blocks."""

    def free(self, sequence):
        """Forget the table."""
        self._table(sequence)
        del self._tables[sequence], self._lengths[sequence]


class PagedCache__leaks_on_truncate(PagedCache):
    """Keeps the blocks that a shorter sequence does not need."""

    def truncate(self, sequence, length):
        """Set the length."""
        if not 0 <= length <= self.length(sequence):
            raise ValueError
        self._lengths[sequence] = length


class PagedCache__no_eviction(PagedCache):
    """Never takes a kept prefix back."""

    def _make_room(self, lengths):
        needed = sum(
            self._blocks_for(length) - len(self._tables[sequence])
            for sequence, length in zip(self._selected, lengths, strict=True)
        )
        if needed > self._allocator.num_free():
            raise BufferError
        super()._make_room(lengths)


class PagedCache__takes_blocks_before_it_counts(PagedCache):
    """Lets the first rows have their blocks before the last one finds none."""

    def _make_room(self, lengths):
        selected = self._selected
        try:
            for sequence, length in zip(selected, lengths, strict=True):
                self._selected = [sequence]
                super()._make_room([length])
        finally:
            self._selected = selected


class PagedCache__counts_no_copies(PagedCache):
    """Forgets that copies need blocks."""

    def _make_room(self, lengths):
        before = self.references()
        if any(
            before[block] > 1 for s, n in zip(self._selected, lengths, strict=True) for block in self._written(s, n)
        ):
            for sequence, length in zip(self._selected, lengths, strict=True):
                self._lengths[sequence], old = length, self._lengths[sequence]
                for block in self._tables[sequence][-1:]:
                    if old % self._block_size:
                        self._tables[sequence][-1] = self._allocator.copy_on_write(block)
                        new = self._tables[sequence][-1]
                        self._keys[:, new], self._values[:, new] = self._keys[:, block], self._values[:, block]
                self._tables[sequence] += self._allocator.allocate(
                    self._blocks_for(length) - len(self._tables[sequence])
                )
        else:
            super()._make_room(lengths)


class PagedCache__shares_before_it_is_committed(PagedCache):
    """Offers the blocks of a sequence when it begins, before anything is in them."""

    def add(self, sequence, tokens):
        """Keep what will be computed."""
        cached = super().add(sequence, tokens)
        missing = len(tokens) // self._block_size - len(self._tables[sequence])
        if 0 < missing <= self._allocator.num_free():
            blocks = [*self._tables[sequence], *self._allocator.allocate(missing)]
            self._prefixes.insert(tokens[: len(blocks) * self._block_size], blocks)
            self._allocator.free(blocks[len(self._tables[sequence]) :])
        return cached


class PagedCache__positions_of_the_pool(PagedCache):
    """Leaves the positions of what a block holds beyond a sequence's end as they were."""

    def _begin_step(self, positions):
        super()._begin_step(positions)
        self._key_positions = torch.arange(self._key_positions.shape[1]).expand(len(positions), -1)


class PagedCache__positions_in_a_byte(PagedCache):
    """Keeps positions in eight bits, which no short sequence minds."""

    def update(self, layer, keys, values, positions):
        """Return positions from -128 to 127."""
        all_keys, all_values, key_positions = super().update(layer, keys, values, positions)
        return all_keys, all_values, key_positions.to(torch.int8).long()


class PagedCache__ignores_the_selection(PagedCache):
    """Takes the rows for the sequences in the order of their numbers."""

    def select(self, sequences):
        """Sort."""
        super().select(sorted(sequences))


class PagedCache__fork_shares_the_table(PagedCache):
    """Gives the child the very table of its parent."""

    def fork(self, sequence, child):
        """Share the list."""
        super().fork(sequence, child)
        self._tables[child] = self._tables[sequence]


class PagedCache__frees_twice(PagedCache):
    """Takes the references of a sequence with blocks in common with another one back twice."""

    def free(self, sequence):
        """Free what others refer to as well."""
        table = self.block_table(sequence)
        super().free(sequence)
        counts = Counter(table)
        self._allocator.free([block for block in counts if self._allocator.references(block) > 1])
