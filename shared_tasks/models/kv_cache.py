"""Keys and values of sequences that come and go while their neighbours run on."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

KeysAndValues = list[tuple[Float[Tensor, "heads length dim"], Float[Tensor, "heads length dim"]]]  # a pair per layer

GROWTH = 128  # columns that a full buffer grows by


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
        missing = max(0, length - self.end) if self.starts else 0
        self.end = self.end + missing if self.starts else length
        self.starts = [start + missing for start in self.starts]
        for layer in self.layers:
            layer.make_room(missing, self.end)
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
            begin = self.begin
            for layer in self.layers:
                layer.grow(slice(begin, self.end))
            self.starts = [start - begin for start in self.starts]
            self.end -= begin
        starts = torch.tensor(self.starts)[:, None]
        return self.end - starts, torch.arange(self.begin, self.end + 1) >= starts

    def advance(self) -> None:
        """Count the column that a step of the model has written."""
        self.end += 1


class _BatchLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, (rows, heads, columns, dim)."""

    is_sliding = False

    def __init__(self, cache: BatchCache):
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make the buffers, for a first prompt of shape (heads, length, dim)."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            # Not merely empty: masked columns are multiplied by zero, which does not heal a NaN.
            states.new_zeros(self.cache.max_rows, states.shape[0], states.shape[1] + GROWTH, states.shape[2])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def grow(self, columns: slice) -> None:
        """Keep these columns, at the beginning of larger buffers."""
        self.keys, self.values = (
            torch.nn.functional.pad(states[:, :, columns], (0, 0, 0, GROWTH)) for states in (self.keys, self.values)
        )

    def make_room(self, before: int, end: int) -> None:
        """Put so many columns before the others, and behind them what is missing up to `end`."""
        if self.is_initialized and (before or end > self.keys.shape[2]):
            after = max(0, end - before - self.keys.shape[2])
            self.keys, self.values = (
                torch.nn.functional.pad(states, (0, 0, before, after)) for states in (self.keys, self.values)
            )

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
        return self.cache.end - self.cache.begin

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the columns that a mask covers, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: the buffers grow."""
        return -1
