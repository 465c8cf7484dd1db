"""Public tests of `hw3/attention.py`: run them with `pytest hw3/tests/test_attention.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math

import pytest
import torch
from torch import Tensor

from hw3 import attention
from shared_tasks.checks import assert_close, assert_equal


def normal(seed: int, *shape: int) -> Tensor:
    """Draw numbers from a standard normal distribution, in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Compute attention one query at a time, as the formula says."""
    output = torch.zeros(*queries.shape[:3], values.shape[3], dtype=queries.dtype)
    group = queries.shape[1] // keys.shape[1]
    for row, head, query in torch.cartesian_prod(*map(torch.arange, queries.shape[:3])).tolist():
        seen = mask[row, query]
        if seen.any():
            scores = keys[row, head // group, seen] @ queries[row, head, query] / math.sqrt(queries.shape[3])
            output[row, head, query] = scores.softmax(0) @ values[row, head // group, seen]
    return output


def example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return queries, keys and values of 2 rows, 4 heads over 2, and the causal mask of 6 positions."""
    mask = torch.ones(6, 6, dtype=torch.bool).tril().expand(2, 6, 6)
    return normal(1, 2, 4, 6, 8), normal(2, 2, 2, 6, 8), normal(3, 2, 2, 6, 8), mask


class TestGroupedQueryAttention:
    """Dense attention."""

    def test_formula(self) -> None:
        """Is the softmax of the scaled scores times the values, with a group of query heads to each head of keys."""
        actual = attention.grouped_query_attention(*example())
        assert_close(actual, dense(*example()), 1e-6, "causal attention of 4 heads over 2")

    def test_sees_nothing(self) -> None:
        """Answers zeros to a query that sees no key."""
        queries, keys, values, mask = example()
        mask = mask.clone()
        mask[0, 2] = False
        actual = attention.grouped_query_attention(queries, keys, values, mask)
        assert_close(actual[0, :, 2], torch.zeros(4, 8), 0, "the output where everything is masked")


class TestPartialAttention:
    """Attention to some of the keys."""

    def test_log_sum_exp(self) -> None:
        """Returns the attention's output and the logarithm of the sum of the exponentials of the scores."""
        queries, keys, values, mask = (part[:, :1] if part.ndim == 4 else part for part in example())
        partial = attention.partial_attention(queries, keys, values, mask)
        scores = (queries @ keys.mT / math.sqrt(8)).masked_fill(~mask[:, None], -torch.inf)
        assert_close(partial.output, dense(queries, keys, values, mask), 1e-6, "the output")
        assert_close(partial.logsumexp, scores.exp().sum(-1).log(), 1e-6, "the log-sum-exp")


class TestMerge:
    """Two partial results in one."""

    def test_two_keys(self) -> None:
        """Weighs two values by the softmax of their scores."""
        first = attention.Partial(torch.tensor([[[[1.0]]]]), torch.tensor([[[math.log(1.0)]]]))
        second = attention.Partial(torch.tensor([[[[5.0]]]]), torch.tensor([[[math.log(3.0)]]]))
        merged = attention.merge(first, second)
        assert_close(merged.output, torch.tensor([[[[4.0]]]]), 1e-6, "the output")
        assert_close(merged.logsumexp, torch.tensor([[[math.log(4.0)]]]), 1e-6, "the log-sum-exp")


class TestTiledAttention:
    """Online softmax."""

    def test_any_tile_size(self) -> None:
        """Equals dense attention for tiles that divide the length, that do not, and that exceed it."""
        for query_tile, key_tile in ((2, 3), (4, 4), (1, 5), (9, 1), (9, 9)):
            actual = attention.tiled_attention(*example(), query_tile=query_tile, key_tile=key_tile)
            assert_close(actual, dense(*example()), 1e-6, f"attention in tiles of {query_tile} by {key_tile}")


class TestSlidingWindowMask:
    """The band."""

    def test_by_hand(self) -> None:
        """Lets a query see its own position and those before it, `window` in all."""
        mask = attention.sliding_window_mask(torch.tensor([[2, 3]]), torch.tensor([[0, 1, 2, 3, -1]]), 2)
        expected = [[[False, True, True, False, False], [False, False, True, True, False]]]
        assert_equal(mask.tolist(), expected, "the mask of a window of 2")


class TestSlidingWindowCache:
    """The ring buffer."""

    def test_wraps_around(self) -> None:
        """Holds the last `window` positions, each with its own key and value."""
        cache = attention.SlidingWindowCache(3)
        for position in range(8):
            kv = torch.full((1, 1, 1, 2), float(position))
            keys, values, positions = cache.update(0, kv, -kv, torch.tensor([[position]]))
            held = {
                p: (keys[0, 0, i, 0].item(), values[0, 0, i, 1].item()) for i, p in enumerate(positions[0].tolist())
            }
            held.pop(-1, None)
            expected = {p: (float(p), -float(p)) for p in range(max(0, position - 2), position + 1)}
            assert_equal(held, expected, f"keys and values by position after position {position}")

    def test_chunk(self) -> None:
        """Gives every query of a chunk its whole window, even where later positions of the chunk take its place."""
        queries, keys, values, _ = example()
        positions = torch.arange(6).expand(2, 6)
        expected = dense(queries, keys, values, attention.sliding_window_mask(positions, positions, 3))
        cache = attention.SlidingWindowCache(3)
        outputs = []
        for chunk in (slice(0, 2), slice(2, 6)):
            new = positions[:, chunk]
            seen_keys, seen_values, seen = cache.update(0, keys[:, :, chunk], values[:, :, chunk], new)
            mask = attention.sliding_window_mask(new, seen, 3)
            outputs.append(dense(queries[:, :, chunk], seen_keys, seen_values, mask))
        assert_close(torch.cat(outputs, dim=2), expected, 1e-6, "attention in a window of 3")


def linear(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Compute causal linear attention one query at a time."""
    phi_queries, phi_keys = (torch.where(x > 0, x + 1, x.exp()) for x in (queries, keys))
    output = torch.empty(*queries.shape[:3], values.shape[3], dtype=torch.float64)
    for row, head, t in torch.cartesian_prod(*map(torch.arange, queries.shape[:3])).tolist():
        weights = phi_keys[row, head, : t + 1] @ phi_queries[row, head, t]
        output[row, head, t] = weights @ values[row, head, : t + 1] / weights.sum()
    return output


LINEAR = normal(4, 2, 3, 7, 4), normal(5, 2, 3, 7, 4), normal(6, 2, 3, 7, 5)


class TestLinearAttention:
    """Parallel form."""

    def test_formula(self) -> None:
        """Weighs earlier values by phi(q) · phi(k), without a softmax."""
        assert_close(attention.linear_attention(*LINEAR), linear(*LINEAR), 1e-6, "linear attention")


class TestLinearAttentionRecurrent:
    """Recurrent form."""

    def test_state_is_carried(self) -> None:
        """Goes on from the state that it returned."""
        first, state = attention.linear_attention_recurrent(*(x[:, :, :3] for x in LINEAR))
        second, _ = attention.linear_attention_recurrent(*(x[:, :, 3:] for x in LINEAR), state)
        assert_close(torch.cat([first, second], dim=2), linear(*LINEAR), 1e-6, "the output of 3 and then 4 positions")


class TestLinearAttentionChunked:
    """Chunked form."""

    def test_any_chunk_size(self) -> None:
        """Equals the other forms for any size of chunk."""
        for size in (1, 2, 3, 7, 10):
            output, _ = attention.linear_attention_chunked(*LINEAR, chunk_size=size)
            assert_close(output, linear(*LINEAR), 1e-6, f"the output in chunks of {size}")
        with pytest.raises(ValueError):
            attention.linear_attention_chunked(*LINEAR, chunk_size=0)


def scan(x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Run the recurrence number by number."""
    y, h = torch.zeros_like(x), torch.zeros(x.shape[0], *a.shape, dtype=torch.float64)
    for row, t, channel in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        decayed = torch.exp(delta[row, t, channel] * a[channel]) * h[row, channel]
        h[row, channel] = decayed + delta[row, t, channel] * x[row, t, channel] * b[row, t]
        y[row, t, channel] = h[row, channel] @ c[row, t]
    return y, h


SPACE = normal(7, 2, 7, 3), normal(8, 2, 7, 3).exp(), -normal(9, 3, 4).exp(), normal(10, 2, 7, 4), normal(11, 2, 7, 4)


class TestSelectiveScan:
    """Position by position."""

    def test_recurrence(self) -> None:
        """Lets the state decay, adds the input, and reads the output from the new state."""
        y, h = attention.selective_scan(*SPACE)
        assert_close(y, scan(*SPACE)[0], 1e-6, "the output")
        assert_close(h, scan(*SPACE)[1], 1e-6, "the last state")


class TestAssociativeScan:
    """All prefixes at once."""

    def test_running_sums(self) -> None:
        """Returns running sums when combining is adding, in few steps."""
        calls = []

        def add(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            calls.append(left[0].shape[1])
            return (left[0] + right[0],)

        (sums,) = attention.associative_scan(add, (torch.arange(1.0, 14.0)[None],))
        assert_close(sums, torch.arange(1.0, 14.0).cumsum(0)[None], 1e-6, "the running sums of 1 to 13")
        assert len(calls) <= 8, f"expected at most 2 ceil(log2 13) = 8 calls of combine, got {len(calls)}"


class TestSelectiveScanParallel:
    """All positions at once."""

    def test_equals_the_recurrence(self) -> None:
        """Returns what the recurrence does."""
        y, h = attention.selective_scan_parallel(*SPACE)
        assert_close(y, scan(*SPACE)[0], 1e-6, "the output")
        assert_close(h, scan(*SPACE)[1], 1e-6, "the last state")


class TestSelectiveScanChunked:
    """Chunk by chunk."""

    def test_any_chunk_size(self) -> None:
        """Equals the recurrence for any size of chunk."""
        for size in (1, 2, 3, 7, 10):
            y, h = attention.selective_scan_chunked(*SPACE, chunk_size=size)
            assert_close(y, scan(*SPACE)[0], 1e-6, f"the output in chunks of {size}")
            assert_close(h, scan(*SPACE)[1], 1e-6, f"the last state in chunks of {size}")
