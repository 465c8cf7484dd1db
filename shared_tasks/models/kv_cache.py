"""Keys and values: of sequences that come and go while their neighbours run on, and of all prefixes seen, in a tree."""

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

KeysAndValues = list[tuple[Float[Tensor, "heads length dim"], Float[Tensor, "heads length dim"]]]  # a pair per layer

GROWTH = 128  # free columns of a new buffer


class BatchCache(Cache):  # type: ignore[misc] # transformers is not typed
    """A cache for transformers' models whose rows join and leave between steps.

    All rows end in the same column, so that a step writes one column in place, copies nothing else, and a sliding
    window means the same in every row. A row begins in the column `starts[row]`; what stands before is masked. Rows
    that leave are filled up by the last ones; columns before the first start are left out of every view.
    """

    def __init__(self, num_layers: int, max_rows: int):
        self.max_rows = max_rows
        self.starts: list[int] = []
        self.end = 0
        super().__init__(layers=[_BatchLayer(self) for _ in range(num_layers)])

    @property
    def begin(self) -> int:
        """Return the first column that any row uses."""
        return min(self.starts, default=self.end)

    def join(self, keys_and_values: KeysAndValues, copies: int) -> None:
        """Add `copies` rows that continue one prompt: its keys and values.

        A prompt that is longer than all there is moves the other rows to the right.
        """
        length = keys_and_values[0][0].shape[1]
        if not self.starts:
            self.end = 0
        if length > self.end:
            self._move(length - self.end)
        rows = slice(len(self.starts), len(self.starts) + copies)
        self.starts += [self.end - length] * copies
        for layer, (keys, values) in zip(self.layers, keys_and_values, strict=True):
            layer.write(rows, slice(self.end - length, self.end), keys, values)

    def leave(self, row: int) -> None:
        """Remove a row; the last one takes its place."""
        last = len(self.starts) - 1
        for layer in self.layers:
            layer.keys[row, :, self.begin : self.end] = layer.keys[last, :, self.begin : self.end]
            layer.values[row, :, self.begin : self.end] = layer.values[last, :, self.begin : self.end]
        self.starts[row] = self.starts[last]
        self.starts.pop()

    def prepare_step(self) -> tuple[Int[Tensor, "rows 1"], Bool[Tensor, "rows columns"]]:
        """Make room for a step; return each row's next position, and which columns, the next one included, it sees."""
        if self.end == self.layers[0].keys.shape[2]:
            self._move(-self.begin, room=GROWTH)
        starts = torch.tensor(self.starts)[:, None]
        return self.end - starts, torch.arange(self.begin, self.end + 1) >= starts

    def advance(self) -> None:
        """Count the column that a step of the model has written."""
        self.end += 1

    def _move(self, by: int, room: int = 0) -> None:
        """Move the columns in use by so many to the right, with room for `room` more behind them."""
        for layer in self.layers:
            layer.move(slice(self.begin, self.end), by, room)
        self.starts = [start + by for start in self.starts]
        self.end += by


class _BatchLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, (rows, heads, columns, dim)."""

    is_sliding = False

    def __init__(self, cache: BatchCache):
        super().__init__()
        self.cache = weakref.proxy(cache)  # a cycle would keep the buffers until Python next looks for cycles

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make the buffers, for a first prompt of shape (heads, length, dim)."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            # Not merely empty: masked columns are multiplied by zero, which does not heal a NaN.
            states.new_zeros(self.cache.max_rows, states.shape[0], states.shape[1] + GROWTH, states.shape[2])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def move(self, columns: slice, by: int, room: int) -> None:
        """Move these columns by so many, into larger buffers where they and `room` columns behind do not fit."""
        if self.is_initialized:
            self.keys, self.values = (self._moved(states, columns, by, room) for states in (self.keys, self.values))

    def _moved(
        self, states: Float[Tensor, "rows heads columns dim"], columns: slice, by: int, room: int
    ) -> Float[Tensor, "rows heads more dim"]:
        begin, end, rows = columns.start + by, columns.stop + by, len(self.cache.starts)
        if end + room > states.shape[2]:
            return torch.nn.functional.pad(states[:, :, columns], (0, 0, begin, GROWTH))
        states[:rows, :, begin:end] = states[:rows, :, columns].clone()
        return states

    def write(self, rows: slice, columns: slice, keys: Tensor, values: Tensor) -> None:
        """Put keys and values in their place."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self.keys[rows, :, columns] = keys
        self.values[rows, :, columns] = values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "rows heads columns dim"], Float[Tensor, "rows heads columns dim"]]:
        """Write the next column of every row; return all columns in use."""
        rows, begin, end = len(self.cache.starts), self.cache.begin, self.cache.end
        self.keys[:rows, :, end : end + 1] = key_states
        self.values[:rows, :, end : end + 1] = value_states
        return self.keys[:rows, :, begin : end + 1], self.values[:rows, :, begin : end + 1]

    def get_seq_length(self) -> int:
        """Return the number of columns in use."""
        length: int = self.cache.end - self.cache.begin
        return length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the columns that a mask covers, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: the buffers grow."""
        return -1


class PrefixCache(Cache):  # type: ignore[misc]
    """A cache for transformers' models that keeps the prefixes it has seen, as a tree: each position once.

    A prefix has a slot, which holds the keys and values of its last position; slot 0 stands for the empty prefix, and
    for padding. Every layer writes what a step runs into its slots, then gathers what the step attends to. So a row can
    continue a prefix of any earlier step, and of a row beside it.

    At most `max_positions` are kept, or as many as one step needs. When they run out, the half that was used longest
    ago is forgotten. Whoever uses a prefix uses all that it begins with, so that none is forgotten before its own
    continuations.
    """

    def __init__(self, num_layers: int, max_positions: int, device: str):
        self.max_positions = max_positions
        self.device = device
        self._slot: dict[tuple[int, int], int] = {}  # of a prefix, by that of its parent and its last token
        self._free: list[int] = []
        self._last_use = torch.zeros(1, dtype=torch.long)  # of each slot, in steps
        self._step = 0
        super().__init__(layers=[_PrefixLayer(self) for _ in range(num_layers)])

    def __len__(self) -> int:
        """Return the number of positions that are kept."""
        return len(self._slot)

    @property
    def capacity(self) -> int:
        """Return the number of slots, slot 0 included."""
        return len(self._last_use)

    def prepare_step(self, rows: Sequence[Sequence[int]]) -> tuple[int, Int[Tensor, "rows length"]]:
        """Find or make the slots of each row's positions; return how many of the last positions to run, and the slots.

        Rows are not empty. They end in the same column, and begin with padding where they are shorter than the longest.
        """
        paths = [self._known(row) for row in rows]
        self._step += 1
        self._last_use[[slot for path in paths for slot in path]] = self._step
        missing = sum(len(row) - len(path) for row, path in zip(rows, paths, strict=True))
        if missing > len(self._free):
            self._make_room(missing)
        new = 1  # the logits of the last position are asked for, whether or not its keys are known
        for row, path in zip(rows, paths, strict=True):
            new = max(new, len(row) - len(path))
            for token in row[len(path) :]:
                place = (path[-1] if path else 0, token)
                if place not in self._slot:  # else a row before this one has it run
                    self._slot[place] = self._free.pop()
                path.append(self._slot[place])
        length = max(map(len, rows))
        slots = torch.tensor([[0] * (length - len(path)) + path for path in paths])
        self._last_use[slots] = self._step
        slots = slots.to(self.device)
        self.shape, self.past = slots.shape, length - new
        self.is_padded = bool(slots.eq(0).any())
        self.written, self.read = slots[:, self.past :].flatten(), slots.flatten()
        return new, slots

    def forget(self) -> None:
        """Forget all prefixes."""
        self._free += self._slot.values()
        self._slot.clear()

    def _known(self, row: Sequence[int]) -> list[int]:
        path: list[int] = []
        slot = 0
        for token in row:
            if (slot := self._slot.get((slot, token), 0)) == 0:
                break
            path.append(slot)
        return path

    def _make_room(self, count: int) -> None:
        """Get `count` free slots: from new ones while there may be more, then from the prefixes used longest ago."""
        if self.capacity <= self.max_positions:
            self._grow(min(max(2 * self.capacity, len(self) + count + 1), self.max_positions + 1))
        if count > len(self._free) and self._slot:
            last_use = self._last_use.tolist()
            oldest_first = sorted(last_use[slot] for slot in self._slot.values())
            forgotten = min(max(len(self) // 2, count - len(self._free)), len(self))
            kept_since = min(oldest_first[forgotten - 1] + 1, self._step)
            self._free += [slot for slot in self._slot.values() if last_use[slot] < kept_since]
            self._slot = {place: slot for place, slot in self._slot.items() if last_use[slot] >= kept_since}
        if count > len(self._free):
            self._grow(len(self) + count + 1)

    def _grow(self, capacity: int) -> None:
        self._free += range(self.capacity, capacity)
        self._last_use = torch.nn.functional.pad(self._last_use, (0, capacity - self.capacity))


class _PrefixLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, (slots, heads, dim)."""

    is_sliding = False

    def __init__(self, cache: PrefixCache):
        super().__init__()
        self.cache = weakref.proxy(cache)  # as above

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Begin without slots, for states of shape (rows, heads, new, dim)."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            states.new_zeros(0, states.shape[1], states.shape[3]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Float[Tensor, "rows heads length dim"], Float[Tensor, "rows heads length dim"]]:
        """Write the positions that are run; return those of the whole rows."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, keys = self._written(self.keys, key_states)
        self.values, values = self._written(self.values, value_states)
        return keys, values

    def _written(
        self, kept: Float[Tensor, "slots heads dim"], states: Float[Tensor, "rows heads new dim"]
    ) -> tuple[Float[Tensor, "slots heads dim"], Float[Tensor, "rows heads length dim"]]:
        if len(kept) < self.cache.capacity:
            kept = torch.cat([kept, kept.new_zeros(self.cache.capacity - len(kept), *kept.shape[1:])])
        kept.index_copy_(0, self.cache.written, states.transpose(1, 2).flatten(0, 1))
        if self.cache.is_padded:
            kept[0] = 0  # padding is masked, that is multiplied by zero, which does not heal a NaN
        return kept, kept.index_select(0, self.cache.read).unflatten(0, self.cache.shape).transpose(1, 2)

    def get_seq_length(self) -> int:
        """Return the number of columns before those that are run."""
        past: int = self.cache.past
        return past

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the columns that a mask covers, and the first of them."""
        return self.cache.past + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: there is no limit."""
        return -1
