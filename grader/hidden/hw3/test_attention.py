"""Hidden tests of hw3.attention: closed forms, brute force in float64, splits at random places."""

import math

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hw3 import attention
from hw3.transformer import Config, Transformer, dense_attention
from shared_tasks.checks import assert_close, assert_equal

DTYPES = ((torch.float64, 1e-9), (torch.float32, 2e-5), (torch.bfloat16, 2e-2))


def normal(seed, *shape):
    """Draw numbers from a standard normal distribution, in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(queries, keys, values, mask):
    """Compute output and log-sum-exp in float64, repeating heads of keys and values."""
    group = queries.shape[1] // keys.shape[1]
    queries, keys, values = (x.double() for x in (queries, keys, values))
    keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
    scores = (queries @ keys.mT / math.sqrt(queries.shape[-1])).masked_fill(~mask[:, None], -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ values, scores.logsumexp(-1)


def problem(seed, heads=6, kv_heads=2, queries=7, keys=11, head_dim=5, value_dim=None):
    """Return queries, keys, values and a random mask in which some queries see nothing, or only late keys."""
    mask = torch.rand(3, queries, keys, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[0, 1] = False
    mask[1, 2, : keys - 2] = False
    mask[2, 3, keys // 2 :] = False
    shapes = ((3, heads, queries, head_dim), (3, kv_heads, keys, head_dim), (3, kv_heads, keys, value_dim or head_dim))
    return *(normal(seed + i, *shape) for i, shape in enumerate(shapes)), mask


def cast(inputs, dtype):
    """Cast all but masks."""
    return tuple(x if x.dtype == torch.bool else x.to(dtype) for x in inputs)


def assert_type(tensor, dtype, what):
    """Fail unless a tensor has this dtype."""
    assert_equal(str(tensor.dtype), str(dtype), f"the dtype of {what}")


def assert_pure(function, *inputs):
    """Fail if a call changes its tensors."""
    before = [x.clone() for x in inputs]
    function(*inputs)
    for i, (old, new) in enumerate(zip(before, inputs, strict=True)):
        assert_close(new.double(), old.double(), 0, f"argument {i} after the call")


class TestGroupedQueryAttention:
    """Dense attention."""

    def test_groups_of_heads(self):
        """Gives consecutive heads of queries the same head of keys and values, for every size of group.

        Head h reads head h // group: `repeat_interleave`, not `repeat`.
        """
        for kv_heads in (1, 2, 3, 6):
            inputs = problem(10 * kv_heads, kv_heads=kv_heads)
            actual = attention.grouped_query_attention(*inputs)
            assert_close(actual, dense(*inputs)[0], 1e-6, f"attention of 6 heads over {kv_heads}")
        with pytest.raises(ValueError):  # noqa: PT011
            attention.grouped_query_attention(*problem(1, heads=6, kv_heads=4))

    def test_precision(self):
        """Has the dtype of the queries, computes half precision in float32, and leaves its arguments alone.

        Cast up first and down last: sums of hundreds of bfloat16 numbers stall. A query that sees nothing gets zeros.
        """
        queries, keys, values, mask = problem(3, keys=600, head_dim=3)
        for dtype, tolerance in DTYPES:
            inputs = cast((queries, keys, values.abs(), mask), dtype)
            actual = attention.grouped_query_attention(*inputs)
            assert_type(actual, dtype, f"attention in {dtype}")
            assert_close(actual, dense(*inputs)[0], tolerance / 2, f"attention in {dtype}")
        assert_pure(attention.grouped_query_attention, *problem(4))

    def test_large_scores(self):
        """Stays finite when scores are in the hundreds.

        exp(89) overflows in float32: subtract the largest score, but not -inf from -inf.
        """
        queries, keys, values, mask = problem(5)
        inputs = cast((60 * queries, 60 * keys, values, mask), torch.float32)
        assert_close(attention.grouped_query_attention(*inputs), dense(*inputs)[0], 1e-3, "attention of large scores")

    def test_in_the_transformer(self):
        """Leaves the logits of the course's transformer as they are, also with padding.

        Its signature is that of `dense_attention` in hw3/transformer.py; heads come before positions.
        """
        model = random_transformer(1)
        ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
        positions = torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, -1, -1]])
        with torch.no_grad():
            expected = model(ids, positions, attention=dense_attention)
            actual = model(ids, positions, attention=attention.grouped_query_attention)
        assert_close(actual, expected, 1e-4, "the logits")


def random_transformer(seed):
    """Build a small transformer with random weights."""
    torch.manual_seed(seed)
    return Transformer(Config(12, 16, 24, 2, 4, 2, 8, 1e-6, 10000.0, False, 64, 0)).eval()


class TestPartialAttention:
    """Attention to some of the keys."""

    def test_output_and_log_sum_exp(self):
        """Returns the normalised output and the log-sum-exp of the scaled and masked scores.

        The log-sum-exp is of the scores that the softmax sees: scaled, without masked keys, in nats.
        """
        for seed, head_dim in ((1, 2), (2, 8)):
            inputs = problem(seed, head_dim=head_dim, value_dim=3)
            partial = attention.partial_attention(*inputs)
            output, logsumexp = dense(*inputs)
            assert_close(partial.output, output, 1e-6, "the output")
            assert_close(partial.logsumexp, logsumexp, 1e-6, "the log-sum-exp")

    def test_nothing_to_see(self):
        """Returns zeros and -inf for a query that sees no key, and for all queries when there are no keys.

        exp(-inf - (-inf)) is NaN; a sum over no keys is 0.
        """
        queries, keys, values, mask = problem(6)
        for shown in (torch.zeros_like(mask), mask[:, :, :0]):
            count = shown.shape[2]
            partial = attention.partial_attention(queries, keys[:, :, :count], values[:, :, :count], shown)
            assert_close(partial.output, torch.zeros(3, 6, 7, 5), 0, f"the output of {count} masked keys")
            assert_close(partial.logsumexp, torch.full((3, 6, 7), -torch.inf), 0, f"the log-sum-exp of {count} keys")

    def test_precision(self):
        """Stays in float32 for half precision, in float64 for float64, and finite for large scores.

        What is to be merged is not rounded before. Use logsumexp, or subtract the largest score and add it back.
        """
        queries, keys, values, mask = problem(7)
        for dtype, wide in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2):
            inputs = cast((30 * queries, 30 * keys, values, mask), dtype)
            partial = attention.partial_attention(*inputs)
            output, logsumexp = dense(*inputs)
            assert_type(partial.output, wide, f"the output for {dtype}")
            assert_type(partial.logsumexp, wide, f"the log-sum-exp for {dtype}")
            assert_close(partial.output, output, 1e-3, f"the output for {dtype}")
            assert_close(partial.logsumexp, logsumexp, 1e-2, f"the log-sum-exp for {dtype}")


def partial_of(inputs, columns):
    """Compute the partial result of some keys."""
    queries, keys, values, mask = inputs
    return attention.Partial(*dense(queries, keys[:, :, columns], values[:, :, columns], mask[:, :, columns]))


class TestMerge:
    """Two partial results in one."""

    def test_equals_attention_to_both(self):
        """Equals attention to the keys of both, however they are split, in either order.

        Each output is already normalised: weigh it by exp(its log-sum-exp - the merged one).
        """
        inputs = problem(8)
        output, logsumexp = dense(*inputs)
        for columns in ([0], [3, 7, 1], list(range(6)), list(range(10))):
            rest = [i for i in range(11) if i not in columns]
            for one, other in ((columns, rest), (rest, columns)):
                merged = attention.merge(partial_of(inputs, one), partial_of(inputs, other))
                assert_close(merged.output, output, 1e-6, f"the output of keys {one} and {other}")
                assert_close(merged.logsumexp, logsumexp, 1e-6, f"the log-sum-exp of keys {one} and {other}")

    def test_empty_side(self):
        """Leaves a result as it is when the other side saw nothing, and zeros when both did.

        -inf on one side has weight 0; on both sides there is nothing to divide by.
        """
        some = attention.Partial(normal(1, 1, 2, 3, 4), normal(2, 1, 2, 3))
        nothing = attention.Partial(torch.zeros(1, 2, 3, 4).double(), torch.full((1, 2, 3), -torch.inf).double())
        for first, second, expected in ((some, nothing, some), (nothing, some, some), (nothing, nothing, nothing)):
            merged = attention.merge(first, second)
            assert_close(merged.output, expected.output, 1e-9, "the output")
            assert_close(merged.logsumexp, expected.logsumexp, 1e-9, "the log-sum-exp")

    def test_large_log_sum_exps(self):
        """Merges log-sum-exps of hundreds and thousands without overflow.

        Take differences before the exponential, never exp of a log-sum-exp itself.
        """
        for shift in (-2000.0, 300.0, 5000.0):
            first = attention.Partial(torch.tensor([[[[2.0]]]]), torch.tensor([[[shift]]]))
            second = attention.Partial(torch.tensor([[[[6.0]]]]), torch.tensor([[[shift + math.log(3)]]]))
            merged = attention.merge(first, second)
            assert_close(merged.output, torch.tensor([[[[5.0]]]]), 5e-3, f"the output at {shift}")
            assert_close(merged.logsumexp, torch.tensor([[[shift + math.log(4)]]]), 1e-3, f"log-sum-exp at {shift}")


class Largest(TorchDispatchMode):
    """Refuses to make a tensor of more elements than allowed, where the submission runs in this process."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        size = result.numel() if isinstance(result, Tensor) else 0
        assert size <= self.most, f"expected tensors of at most {self.most} elements, got one of {size}"
        return result


class TestTiledAttention:
    """Online softmax."""

    def test_any_tile_size(self):
        """Equals dense attention for every size of both tiles.

        The last tile may be smaller: do not drop it and do not pad it with keys that are seen.
        """
        inputs = problem(9)
        expected, _ = dense(*inputs)
        for query_tile in (1, 2, 3, 7, 50):
            for key_tile in (1, 2, 4, 5, 11, 50):
                actual = attention.tiled_attention(*inputs, query_tile=query_tile, key_tile=key_tile)
                assert_close(actual, expected, 1e-6, f"attention in tiles of {query_tile} by {key_tile}")
        for sizes in ((0, 1), (1, 0), (-1, 3)):
            with pytest.raises(ValueError):  # noqa: PT011
                attention.tiled_attention(*inputs, query_tile=sizes[0], key_tile=sizes[1])

    def test_scores_grow_or_fall(self):
        """Is right when the largest score comes first, last or in a tile after one that is not seen at all.

        When the running maximum changes, what was summed before is rescaled, the output as well as the denominator.
        """
        queries, keys, values, mask = problem(12, keys=12)
        scale = torch.linspace(0.1, 40, 12).double()
        for order in (torch.arange(12), torch.arange(12).flip(0)):
            shown = mask.clone()
            shown[:, :, :3] = False
            inputs = cast((queries.abs(), keys.abs() * scale[order][:, None], values, shown), torch.float32)
            actual = attention.tiled_attention(*inputs, query_tile=2, key_tile=3)
            assert_close(actual, dense(*inputs)[0], 1e-3, "attention with growing or falling scores")

    def test_precision(self):
        """Rounds to half precision only at the end, however many tiles there are.

        Keep the running sums in float32: 256 + 1 is 256 in bfloat16.
        """
        queries, keys, values, mask = problem(13, keys=700, head_dim=3)
        for dtype, tolerance in DTYPES:
            inputs = cast((queries, keys, values.abs(), mask), dtype)
            actual = attention.tiled_attention(*inputs, query_tile=4, key_tile=8)
            assert_type(actual, dtype, f"attention in {dtype}")
            assert_close(actual, dense(*inputs)[0], tolerance / 2, f"attention in {dtype}")

    def test_memory(self):
        """Never holds all the scores: it takes 16 heads of 1,024 by 4,096 positions within the memory there is.

        A tile of scores has query_tile by key_tile positions. Loop over tiles; do not mask or repeat all at once.
        """
        queries, keys, values = normal(1, 1, 16, 1024, 1), normal(2, 1, 1, 4096, 1), normal(3, 1, 1, 4096, 1)
        mask = torch.ones(1, 1024, 4096, dtype=torch.bool)
        with Largest(16 * 1024 * 4096 // 4):
            actual = attention.tiled_attention(queries, keys, values, mask, query_tile=64, key_tile=128)
        expected, _ = dense(queries[:, :, ::256], keys, values, mask[:, ::256])
        assert_close(actual[:, :, ::256], expected, 1e-6, "every 256th position")


class TestSlidingWindowMask:
    """The band."""

    def test_every_window(self):
        """Shows a query the positions from its own down to `window` - 1 before, whatever the order of keys.

        Compare positions, not columns: a ring buffer returns keys in any order.
        """
        queries, keys = torch.tensor([[5, 0, 2], [9, 7, 8]]), torch.tensor([[3, 0, 5, 1, 2], [6, 9, 8, 5, 7]])
        for window in (1, 2, 3, 5, 100):
            mask = attention.sliding_window_mask(queries, keys, window)
            expected = [
                [[q - window < k <= q for k in row] for q in queries[i].tolist()] for i, row in enumerate(keys.tolist())
            ]
            assert_equal(mask.tolist(), expected, f"the mask of a window of {window}")
        for window in (0, -2):
            with pytest.raises(ValueError):  # noqa: PT011
                attention.sliding_window_mask(queries, keys, window)

    def test_padding(self):
        """Shows padding to nobody, and nothing to padding.

        -1 is within a window of 3 of position 1, and -1 equals -1.
        """
        mask = attention.sliding_window_mask(torch.tensor([[-1, 1, 0]]), torch.tensor([[-1, 0, 1]]), 3)
        expected = [[[False, False, False], [False, True, True], [False, True, False]]]
        assert_equal(mask.tolist(), expected, "the mask with padding")


def banded(queries, keys, values, window):
    """Compute attention in a sliding window with a banded mask over all positions."""
    distance = torch.arange(queries.shape[2])[:, None] - torch.arange(keys.shape[2])
    mask = ((distance >= 0) & (distance < window)).expand(len(queries), -1, -1)
    return dense(queries, keys, values, mask)[0]


class TestSlidingWindowCache:
    """The ring buffer."""

    def test_any_chunks(self):
        """Equals the banded mask for chunks of any size, after any number of wraps.

        A chunk's first queries still see keys whose slots its last keys take: join old and new before you write.
        """
        queries, keys, values = normal(1, 2, 2, 17, 3), normal(2, 2, 2, 17, 3), normal(3, 2, 2, 17, 3)
        for window in (1, 2, 4, 5, 16, 30):
            expected = banded(queries, keys, values, window)
            for chunks in ([1] * 17, [5, 1, 1, 4, 1, 5], [17], [2, 15], [9, 1, 7]):
                cache = attention.SlidingWindowCache(window)
                outputs, start = [], 0
                for size in chunks:
                    part = slice(start, start + size)
                    positions = torch.arange(start, start + size).expand(2, size)
                    k, v, where = cache.update(0, keys[:, :, part], values[:, :, part], positions)
                    difference = positions[:, :, None] - where[:, None]
                    mask = (difference >= 0) & (difference < window) & (where[:, None] >= 0)
                    outputs.append(dense(queries[:, :, part], k, v, mask)[0])
                    start += size
                what = f"attention in a window of {window}, chunks of {chunks}"
                assert_close(torch.cat(outputs, dim=2), expected, 1e-6, what)

    def test_size(self):
        """Returns at most `window` slots for one position and window + new for several, every position once.

        What is outside the window of all new positions goes. A window has room for exactly `window` positions.
        """
        for window in (1, 3, 4):
            cache = attention.SlidingWindowCache(window)
            start = 0
            for size in (1, 1, 1, 1, 1, 2, 1, 6, 1):
                positions = torch.arange(start, start + size)[None]
                kv = positions[:, None, :, None].double()
                keys, values, where = cache.update(0, kv, kv + 0.5, positions)
                start += size
                most = window if size == 1 else window + size
                assert len(where[0]) <= most, f"expected at most {most} slots, got {len(where[0])}"
                held = [p for p in where[0].tolist() if p >= 0]
                needed = range(max(0, start - size - window + 1), start)
                assert len(set(held)) == len(held), f"expected every position once, got {sorted(held)}"
                assert set(needed) <= set(held), f"expected positions {list(needed)}, got {sorted(held)}"
                assert_close(keys[0, 0, where[0] >= 0, 0], torch.tensor(held), 0, "the keys at their positions")
                assert_close(values[0, 0, where[0] >= 0, 0], torch.tensor(held) + 0.5, 0, "the values")

    def test_rows_of_their_own(self):
        """Keeps every row and every layer apart, and does not keep padding.

        Rows differ in length: a slot is found by the row's own position, not by a common counter.
        """
        cache, keys = attention.SlidingWindowCache(3), normal(4, 2, 1, 12, 2)
        done = [0, 0]
        for counts in ((4, 1), (1, 0), (0, 1), (2, 5), (1, 1)):
            new = max(counts)
            positions, chunk = torch.full((2, new), -1), torch.full((2, 1, new, 2), 99.0).double()
            for row, count in enumerate(counts):
                positions[row, :count] = torch.arange(done[row], done[row] + count)
                chunk[row, 0, :count] = keys[row, 0, done[row] : done[row] + count]
                done[row] += count
            for layer in (0, 1):
                sign = 1 - 2 * layer
                k, v, where = cache.update(layer, sign * chunk, 2 * sign * chunk, positions)
                for row, count in enumerate(counts):
                    held = {p: i for i, p in enumerate(where[row].tolist()) if p >= 0}
                    first = done[row] - max(count, 1) - 2
                    for p in range(max(0, first), done[row]):
                        assert p in held, f"expected position {p} of row {row}, got {sorted(held)}"
                        what = f"of layer {layer}, row {row}, position {p}"
                        assert_close(k[row, 0, held[p]], sign * keys[row, 0, p], 1e-9, f"the key {what}")
                        assert_close(v[row, 0, held[p]], 2 * sign * keys[row, 0, p], 1e-9, f"the value {what}")
                    assert all(p < done[row] for p in held), f"expected positions below {done[row]}, got {held}"
        with pytest.raises(ValueError):  # noqa: PT011
            attention.SlidingWindowCache(0)

    def test_in_the_transformer(self):
        """Gives the course's transformer, token by token, the logits of a banded mask.

        Every layer has its own ring. Look at what a call with one position returns.
        """
        model, ids = random_transformer(2), torch.randint(0, 12, (2, 11), generator=torch.Generator().manual_seed(1))
        band = torch.ones(11, 11, dtype=torch.bool).tril().triu(-2)
        with torch.no_grad():
            expected = model(ids, attention=lambda q, k, v, mask: dense_attention(q, k, v, mask & band))
            cache = attention.SlidingWindowCache(3)
            steps = [model(ids[:, t : t + 1], torch.full((2, 1), t), cache) for t in range(11)]
        assert_close(torch.cat(steps, dim=1), expected, 1e-4, "the logits with a window of 3")


def linear(queries, keys, values):
    """Compute causal linear attention and its last state in float64."""
    phi = [torch.where(x > 0, x + 1, x.exp()) for x in (queries.double(), keys.double())]
    weights = torch.einsum("bhtd,bhsd->bhts", *phi) * torch.ones(queries.shape[2], keys.shape[2]).tril()
    output = (weights / weights.sum(-1, keepdim=True)) @ values.double()
    return output, torch.einsum("bhsd,bhsv->bhdv", phi[1], values.double()), phi[1].sum(2)


def linear_problem(seed, length=13, head_dim=4, value_dim=6):
    """Return queries, keys and values."""
    return tuple(normal(seed + i, 2, 3, length, d) for i, d in enumerate((head_dim, head_dim, value_dim)))


def check_linear(function, *, exact=1e-6):
    """Check output, state and dtype of a form that carries a state, split at several places."""
    for dtype, tolerance in DTYPES:
        inputs = cast(linear_problem(2), dtype)
        output, memory, normalizer = linear(*inputs)
        for cut in (0, 1, 5, 12):
            parts, state = [], None
            for part in (slice(0, cut), slice(cut, 13)) if cut else (slice(0, 13),):
                out, state = function(*(x[:, :, part] for x in inputs), state)
                assert_type(out, dtype, f"the output in {dtype}")
                parts.append(out)
            assert_close(torch.cat(parts, dim=2), output, max(tolerance, exact), f"the output cut at {cut}")
            assert_close(state.memory, memory, max(2e-5, exact), f"the memory cut at {cut}, {dtype}")
            assert_close(state.normalizer, normalizer, max(2e-5, exact), f"the normalizer cut at {cut}, {dtype}")


def check_state_untouched(function):
    """Check that a state can be gone on from twice."""
    inputs = linear_problem(5)
    _, state = function(*(x[:, :, :4] for x in inputs), None)
    before = (state.memory.clone(), state.normalizer.clone())
    first, _ = function(*(x[:, :, 4:] for x in inputs), state)
    second, _ = function(*(x[:, :, 4:] for x in inputs), state)
    assert_close(second, first, 0, "the output of going on from the same state again")
    assert_close(state.memory, before[0], 0, "the memory after it was gone on from")
    assert_close(state.normalizer, before[1], 0, "the normalizer after it was gone on from")


class TestLinearAttention:
    """Parallel form."""

    def test_formula(self):
        """Is causal, normalised, and has the feature map elu(x) + 1 on queries and keys.

        A position sees itself. The weights of a position sum to one; nothing is divided by sqrt(head_dim).
        """
        for length in (1, 2, 13):
            inputs = linear_problem(1, length)
            assert_close(attention.linear_attention(*inputs), linear(*inputs)[0], 1e-6, f"{length} positions")

    def test_precision(self):
        """Has the dtype of the queries, and sums in float32 at least.

        Cast up before the products.
        """
        for dtype, tolerance in DTYPES:
            queries, keys, values = cast(linear_problem(3, 400), dtype)
            inputs = queries, keys, values.abs() + 3
            actual = attention.linear_attention(*inputs)
            assert_type(actual, dtype, f"linear attention in {dtype}")
            assert_close(actual, linear(*inputs)[0], tolerance, f"linear attention in {dtype}")


class TestLinearAttentionRecurrent:
    """Recurrent form."""

    def test_output_and_state(self):
        """Returns the output of the parallel form and the sums, for any split of the positions.

        Update before you read: a position sees itself. Both sums are carried.
        """
        check_linear(attention.linear_attention_recurrent)

    def test_state_is_not_changed(self):
        """Leaves the state that it is given as it was.

        `+=` on a tensor of the caller changes the caller's tensor: a beam goes on from one state several times.
        """
        check_state_untouched(attention.linear_attention_recurrent)


class TestLinearAttentionChunked:
    """Chunked form."""

    def test_output_and_state(self):
        """Returns what the recurrent form does, for any size of chunk and any split.

        Within a chunk all pairs, causally; from before the chunk the state, for numerator and denominator.
        """
        for size in (1, 3, 4, 13, 40):
            check_linear(lambda q, k, v, state, size=size: attention.linear_attention_chunked(
                q, k, v, state, chunk_size=size))  # fmt: skip

    def test_state_is_not_changed(self):
        """Leaves the state that it is given as it was, and refuses chunks of no position.

        Do not add to the caller's tensors in place.
        """
        check_state_untouched(lambda q, k, v, s: attention.linear_attention_chunked(q, k, v, s, chunk_size=5))
        for size in (0, -3):
            with pytest.raises(ValueError):  # noqa: PT011
                attention.linear_attention_chunked(*linear_problem(1), chunk_size=size)


def space(seed, length=13, channels=3, state=4):
    """Return x, delta, a, b, c and a state to begin from."""
    steps, decays = normal(seed + 1, 2, length, channels).exp(), -normal(seed + 2, channels, state).exp()
    b, c = normal(seed + 3, 2, length, state), normal(seed + 4, 2, length, state)
    return normal(seed, 2, length, channels), steps, decays, b, c, normal(seed + 5, 2, channels, state)


def scan(x, delta, a, b, c, state=None):
    """Run the recurrence in float64."""
    x, delta, a, b, c = (part.double() for part in (x, delta, a, b, c))
    h = torch.zeros(x.shape[0], *a.shape).double() if state is None else state.double()
    outputs = []
    for t in range(x.shape[1]):
        h = torch.exp(delta[:, t, :, None] * a) * h + torch.einsum("bc,bs->bcs", delta[:, t] * x[:, t], b[:, t])
        outputs.append(torch.einsum("bcs,bs->bc", h, c[:, t]))
    return torch.stack(outputs, dim=1), h


def check_scan(function):
    """Check output, last state and dtype, with and without a first state, split at several places."""
    for length in (1, 2, 13, 16):
        inputs = space(length, length)
        for state in (None, inputs[5]):
            y, h = function(*inputs[:5], state)
            expected = scan(*inputs[:5], state)
            what = f"{length} positions from {'zero' if state is None else 'a state'}"
            assert_close(y, expected[0], 1e-6, f"the output of {what}")
            assert_close(h, expected[1], 1e-6, f"the last state of {what}")
    x, delta, a, b, c, state = inputs
    expected = scan(x, delta, a, b, c, state)
    before, parts = state.clone(), []
    h = state
    for part in (slice(0, 5), slice(5, 6), slice(6, 16)):
        y, h = function(x[:, part], delta[:, part], a, b[:, part], c[:, part], h)
        parts.append(y)
    assert_close(torch.cat(parts, dim=1), expected[0], 1e-6, "the output of 5, 1 and 10 positions")
    assert_close(h, expected[1], 1e-6, "the last state of 5, 1 and 10 positions")
    assert_close(state, before, 0, "the first state after the call")
    for dtype, tolerance in DTYPES:
        narrow = cast(inputs[:5], dtype)
        y, h = function(*narrow)
        assert_type(y, dtype, f"the output in {dtype}")
        scale = float(scan(*narrow)[0].abs().max())
        assert_close(y, scan(*narrow)[0], tolerance * scale, f"the output in {dtype}")
        assert_close(h, scan(*narrow)[1], 1e-4, f"the last state in {dtype}")


def check_strong_decay(function):
    """Check steps after which nothing of the past is left, and steps that forget nothing."""
    for factor in (200.0, 1e-6):
        x, delta, a, b, c, state = cast(space(30, 40), torch.float32)
        y, h = function(x, factor * delta, a, b, c, state)
        for actual, expected in zip((y, h), scan(x, factor * delta, a, b, c, state), strict=True):
            scale = float(expected.abs().max())
            assert_close(actual / scale, expected / scale, 1e-4, f"output or last state with steps times {factor}")


class TestSelectiveScan:
    """Position by position."""

    def test_recurrence(self):
        """Returns output and last state, from any first state, for any split.

        The step scales both the decay and the input; the output is read from the new state.
        """
        check_scan(attention.selective_scan)

    def test_steps_of_any_size(self):
        """Forgets all with a large step, and nearly nothing with a small one.

        Compute in float32 at least, and in the order of the formula.
        """
        check_strong_decay(attention.selective_scan)


def join(left, right):
    """Combine intervals of words: not commutative, and it tells what was combined with what."""
    return left[0] * 8 ** right[1] + right[0], left[1] + right[1]


class TestAssociativeScan:
    """All prefixes at once."""

    def test_order(self):
        """Combines left with right, in the order of positions, for every length.

        combine(left, right) is not combine(right, left). The first element stays as it is.
        """
        for length in (1, 2, 3, 4, 5, 7, 8, 12, 16, 17):
            digits = torch.randint(0, 8, (2, length), generator=torch.Generator().manual_seed(length))
            sums, lengths = attention.associative_scan(join, (digits, torch.ones_like(digits)))
            expected = [[int("".join(map(str, row[: t + 1])), 8) for t in range(length)] for row in digits.tolist()]
            assert_equal(sums.tolist(), expected, f"the running words of {length} digits in base 8")
            assert_equal(lengths.tolist(), [list(range(1, length + 1))] * 2, "their lengths")

    def test_steps(self):
        """Calls combine a logarithmic number of times, with pieces of equal length.

        Each call should handle a whole slice of positions: double the distance, or pair neighbours and halve.
        """
        for length in (1, 2, 3, 8, 9, 100, 1000):
            calls = []

            def add(left, right, calls=calls):
                calls.append((left[0].shape[1], right[0].shape[1]))
                return (left[0] + right[0],)

            numbers = normal(length, 2, length, 3)
            (sums,) = attention.associative_scan(add, (numbers,))
            assert_close(sums, numbers.cumsum(1), 1e-6, f"the running sums of {length} numbers")
            most = 2 * math.ceil(math.log2(length))
            assert len(calls) <= most, f"expected at most {most} calls for {length} positions, got {len(calls)}"
            assert all(one == other >= 1 for one, other in calls), f"expected pieces of equal length, got {calls}"

    def test_elements_are_not_changed(self):
        """Leaves the elements as they were, tensors of different shapes among them.

        Slices are views: writing into them writes into the argument.
        """
        first, second = normal(1, 2, 9, 3), normal(2, 2, 9)
        before = first.clone(), second.clone()
        sums = attention.associative_scan(lambda left, right: (left[0] + right[0], left[1] + right[1]), (first, second))
        for total, element, old in zip(sums, (first, second), before, strict=True):
            assert_close(total, old.cumsum(1), 1e-6, "the running sums")
            assert_close(element, old, 0, "the elements after the call")


class TestSelectiveScanParallel:
    """All positions at once."""

    def test_equals_the_recurrence(self):
        """Returns output and last state of the recurrence, from any first state, for any split.

        The first state decays into the first position. Elements are pairs of decay and input, combined left to right.
        """
        check_scan(attention.selective_scan_parallel)

    def test_steps_of_any_size(self):
        """Stays exact and finite when the product of all decays underflows.

        Dividing by a cumulative product of decays is 0 / 0 after a few large steps.
        """
        check_strong_decay(attention.selective_scan_parallel)


class TestSelectiveScanChunked:
    """Chunk by chunk."""

    def test_any_chunk_size(self):
        """Equals the recurrence for any size of chunk, and refuses chunks of no position.

        The last state of a chunk is the first of the next, also for the last, smaller chunk.
        """
        for size in (1, 3, 8, 13, 50):
            check_scan(lambda *inputs, size=size: attention.selective_scan_chunked(*inputs, chunk_size=size))
        check_strong_decay(lambda *inputs: attention.selective_scan_chunked(*inputs, chunk_size=6))
        for size in (0, -1):
            with pytest.raises(ValueError):  # noqa: PT011
                attention.selective_scan_chunked(*space(1)[:5], chunk_size=size)
