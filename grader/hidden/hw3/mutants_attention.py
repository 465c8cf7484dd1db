"""Plausible wrong solutions of hw3.attention: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module. Each is the reference with one passage
written wrongly.
"""

# ruff: noqa: E501 (a passage and what replaces it read best on one line)
from functools import partial

from grader.hidden.rewriting import rewritten
from grader.reference.hw3 import attention as reference

_but = partial(rewritten, reference)


_DENSE = (
    "return partial_attention(queries, keys, values, mask).output.to(queries.dtype)",
    """
    group = queries.shape[1] // keys.shape[1]
    if queries.shape[1] % keys.shape[1]:
        raise ValueError
    dtype = queries.dtype
    queries, keys, values = queries.WIDE, keys.REPEAT.WIDE, values.REPEAT.WIDE
    scores = (queries @ keys.mT / math.sqrt(queries.shape[-1])).masked_fill(~mask[:, None], -torch.inf)
    return (scores.softmax(-1).nan_to_num(0) @ values).to(dtype)""",
)
_WIDE, _REPEAT = ("WIDE", "double()"), ("REPEAT", "repeat_interleave(group, 1)")
grouped_query_attention__heads_interleaved = _but(
    "grouped_query_attention", _DENSE, _WIDE, ("REPEAT", "repeat(1, group, 1, 1)")
)
grouped_query_attention__unscaled = _but(
    "grouped_query_attention", _DENSE, _WIDE, _REPEAT, (" / math.sqrt(queries.shape[-1])", "")
)
grouped_query_attention__nan_where_nothing_is_seen = _but(
    "grouped_query_attention", _DENSE, _WIDE, _REPEAT, (".nan_to_num(0)", "")
)
grouped_query_attention__mean_where_nothing_is_seen = _but(
    "grouped_query_attention", _DENSE, _WIDE, _REPEAT, ("-torch.inf", "-1e9")
)
grouped_query_attention__in_float64_always = _but("grouped_query_attention", _DENSE, _WIDE, _REPEAT, (".to(dtype)", ""))
grouped_query_attention__exponentials_overflow = _but(
    "grouped_query_attention", _DENSE, ("WIDE", "float()"), _REPEAT,
    ("scores.softmax(-1)", "(scores.exp() / scores.exp().sum(-1, keepdim=True))"),
)  # fmt: skip

partial_attention__sum_of_exponentials = _but(
    "partial_attention", ("total.flatten(1, 2))", "total.exp().flatten(1, 2))")
)
partial_attention__masked_keys_counted = _but(
    "partial_attention", ("total = scores.logsumexp(-1)", "total = scores.nan_to_num(neginf=0).logsumexp(-1)")
)
partial_attention__nan_where_nothing_is_seen = _but(
    "partial_attention", ("total.where(total > -torch.inf, 0)", "total")
)
partial_attention__rounded_early = _but(
    "partial_attention", ("flatten(1, 2), total", "flatten(1, 2).to(queries.dtype), total")
)
partial_attention__unscaled_log_sum_exp = _but(
    "partial_attention", ("total.flatten(1, 2))", "(total * math.sqrt(queries.shape[-1])).flatten(1, 2))")
)

merge__mean_of_outputs = _but(
    "merge", ("shares[0] * first.output + shares[1] * second.output", "(first.output + second.output) / 2")
)
merge__sums_outputs = _but(
    "merge", ("shares[0] * first.output + shares[1] * second.output", "first.output + second.output")
)
merge__nan_where_nothing_is_seen = _but("merge", ("total.where(total > -torch.inf, 0)", "total"))
merge__adds_log_sum_exps = _but(
    "merge", ("torch.logaddexp(first.logsumexp, second.logsumexp)", "first.logsumexp + second.logsumexp")
)
merge__overflows = _but(
    "merge",
    ("torch.logaddexp(first.logsumexp, second.logsumexp)", "(first.logsumexp.exp() + second.logsumexp.exp()).log()"),
)
merge__keeps_the_larger_log_sum_exp = _but("merge", ("torch.logaddexp(", "torch.maximum("))

tiled_attention__drops_the_last_keys = _but(
    "tiled_attention", ("for tile in tiles:", "for tile in list(tiles)[: max(1, keys.shape[2] // key_tile)]:")
)
tiled_attention__all_scores_at_once = _but(
    "tiled_attention",
    ("    rows = []", "    return grouped_query_attention(queries, keys, values, mask)\n    rows = []"),
)
tiled_attention__forgets_to_rescale = _but(
    "tiled_attention", ("merge(merged, partial)", "Partial(merged.output + partial.output, merged.logsumexp)")
)
tiled_attention__rounds_each_tile = _but(
    "tiled_attention",
    ("merge(merged, partial)", "merge(Partial(merged.output.to(queries.dtype).to(partial.output.dtype), merged.logsumexp.to(queries.dtype).to(partial.output.dtype)), partial)"),
)  # fmt: skip
tiled_attention__takes_no_tile = _but(
    "tiled_attention", ("query_tile < 1 or key_tile < 1", "query_tile == 0 or key_tile == 0")
)
tiled_attention__first_tile_twice = _but(
    "tiled_attention", ("merge(merged, partial) if merged else partial", "merge(merged or partial, partial)")
)

sliding_window_mask__one_too_many = _but("sliding_window_mask", ("distance < window", "distance <= window"))
sliding_window_mask__not_itself = _but("sliding_window_mask", ("distance >= 0", "distance > 0"))
sliding_window_mask__sees_padding = _but("sliding_window_mask", (" & (key_positions >= 0)[:, None, :]", ""))
sliding_window_mask__both_sides = _but("sliding_window_mask", ("(distance >= 0)", "(distance > -window)"))

_KEEP_NEW = (
    ("        if keys.shape[2] > 1:  # earlier", "        if False:  # earlier"),
    ("both if keys.shape[2] > 1 else ", ""),
)
SlidingWindowCache__overwrites_what_a_chunk_needs = _but("SlidingWindowCache", *_KEEP_NEW)
SlidingWindowCache__grows = _but(
    "SlidingWindowCache",
    ("self.window), -1)", "99), -1)"),
    ("self.window, keys", "99, keys"),
    ("% self.window", "% 99"),
)
SlidingWindowCache__one_slot_too_few = _but(
    "SlidingWindowCache", ("self.window = window", "self.window = max(1, window - 1)")
)
SlidingWindowCache__layers_share_a_ring = _but(
    "SlidingWindowCache", ("self._rings[layer]", "self._rings[0]"), ("layer not in", "0 not in")
)
SlidingWindowCache__keeps_padding = _but(
    "SlidingWindowCache", ("(positions >= 0) & (positions > latest", "(positions > latest")
)
SlidingWindowCache__rows_share_positions = _but(
    "SlidingWindowCache", ("ring[2][row, slot] = positions[row, column]", "ring[2][:, slot] = positions[row, column]")
)

linear_attention__sees_the_future = _but("linear_attention", (".tril()", ""))
linear_attention__not_itself = _but("linear_attention", (".tril()", ".tril(-1)"))
linear_attention__not_normalised = _but("linear_attention", (" / weights.sum(-1, keepdim=True)", ""))
linear_attention__relu = _but("linear_attention", ("_phi(queries) @ _phi(keys)", "(elu(queries) + 1) @ keys.relu()"))
linear_attention__half_precision = _but(
    "linear_attention",
    ("(_phi(queries) @ _phi(keys).mT)", "(_phi(queries) @ _phi(keys).mT).to(queries.dtype)"), ("_precise(values)", "values"),
    ("weights @", "weights.cumsum(-1)[..., -1:] * 0 + weights @"),
    ("weights.sum(-1, keepdim=True)", "weights.to(queries.dtype).cumsum(-1).to(queries.dtype)[..., -1:].to(torch.bfloat16)"),
)  # fmt: skip

_RECURRENT = (
    "linear_attention_recurrent",
    (
        "return linear_attention_chunked(queries, keys, values, state, chunk_size=1)",
        """
    output, last = linear_attention_chunked(queries, keys, values, state, chunk_size=1)
    OTHER
    return output, last""",
    ),
)
linear_attention_recurrent__starts_anew = _but("linear_attention_recurrent", ("values, state,", "values, None,"))
linear_attention_recurrent__normalizer_not_carried = _but(
    *_RECURRENT, ("OTHER", "last = LinearState(last.memory, last.normalizer * 0)")
)
linear_attention_recurrent__reads_before_it_writes = _but(
    *_RECURRENT, ("OTHER", "output = torch.cat([output[:, :, :1] * 0, output[:, :, :-1]], dim=2)")
)
linear_attention_recurrent__changes_the_state = _but(
    *_RECURRENT, ("OTHER", "if state is not None: state.memory.copy_(last.memory)")
)
linear_attention_recurrent__state_in_half_precision = _but(
    *_RECURRENT, ("OTHER", "last = LinearState(last.memory.to(queries.dtype), last.normalizer.to(queries.dtype))")
)

linear_attention_chunked__sees_the_chunk = _but("linear_attention_chunked", (".tril()", ""))
linear_attention_chunked__denominator_of_the_chunk = _but(
    "linear_attention_chunked", (" + q @ state.normalizer[..., None]", "")
)
linear_attention_chunked__no_state_between_chunks = _but("linear_attention_chunked", (" + q @ state.memory", ""))
linear_attention_chunked__last_chunk_dropped = _but(
    "linear_attention_chunked",
    (
        "        weights = ",
        "        if q.shape[2] < chunk_size <= keys.shape[2]:\n            continue\n        weights = ",
    ),
)
linear_attention_chunked__state_replaced = _but("linear_attention_chunked", ("state.memory + k.mT @ v", "k.mT @ v"))
linear_attention_chunked__in_place = _but(
    "linear_attention_chunked", ("LinearState(state.memory + k.mT @ v", "LinearState(state.memory.add_(k.mT @ v)")
)

_STEP = "decay, drive = _discretised(x, delta, a, b)"
selective_scan__input_not_scaled = _but("selective_scan", (_STEP, _STEP + "\n    drive = drive / delta[..., None]"))
selective_scan__old_state_read = _but(
    "selective_scan",
    ("        h = decay[:, t] * h + drive[:, t]\n        outputs.append(h @ _precise(c)[:, t, :, None])",
     "        outputs.append(h @ _precise(c)[:, t, :, None])\n        h = decay[:, t] * h + drive[:, t]"),
)  # fmt: skip
selective_scan__starts_anew = _but("selective_scan", ("if state is None else state", ""))
selective_scan__decay_after_input = _but(
    "selective_scan", ("decay[:, t] * h + drive[:, t]", "decay[:, t] * (h + drive[:, t])")
)
selective_scan__linear_decay = _but("selective_scan", (_STEP, _STEP + "\n    decay = 1 + decay.log()"))

associative_scan__reversed_order = _but(
    "associative_scan",
    ("tuple(e[:, :-distance] for e in elements), tuple(e[:, distance:] for e in elements)",
     "tuple(e[:, distance:] for e in elements), tuple(e[:, :-distance] for e in elements)"),
)  # fmt: skip
associative_scan__one_by_one = _but("associative_scan", ("distance *= 2", "distance += 1"), (
    "while distance < length:", "first = elements\n    while distance < length:"), (
    "combine(tuple(e[:, :-distance] for e in elements), tuple(e[:, distance:] for e in elements))",
    "combine(tuple(e[:, distance - 1 : -1] for e in elements), tuple(e[:, distance:] for e in first))"),
)  # fmt: skip
associative_scan__stops_early = _but("associative_scan", ("distance < length:", "2 * distance < length:"))
associative_scan__in_place = _but(
    "associative_scan",
    ("elements = tuple(torch.cat([e[:, :distance], s], dim=1) for e, s in zip(elements, summed, strict=True))",
     "[e[:, distance:].copy_(s) for e, s in zip(elements, summed, strict=True)]"),
)  # fmt: skip
associative_scan__powers_of_two_only = _but(
    "associative_scan",
    ("distance *= 2", "distance *= 2\n        if 2 * distance > length > distance:\n            break"),
)

selective_scan_parallel__divides_by_decays = _but(
    "selective_scan_parallel",
    ("_, h = associative_scan(lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1]), (decay, drive))",
     "h = decay.cumprod(1) * (drive / decay.cumprod(1)).cumsum(1)"),
)  # fmt: skip
selective_scan_parallel__starts_anew = _but("selective_scan_parallel", ("if state is not None:", "if False:"))
selective_scan_parallel__state_not_decayed = _but("selective_scan_parallel", ("decay[:, 0] * state", "state"))
selective_scan_parallel__left_decay = _but(
    "selective_scan_parallel", ("right[0] * left[1] + right[1]", "left[0] * right[1] + left[1]")
)
selective_scan_parallel__sums_inputs = _but(
    "selective_scan_parallel", ("right[0] * left[1] + right[1]", "left[1] + right[1]")
)

selective_scan_chunked__no_state_between_chunks = _but("selective_scan_chunked", ("b_t, c_t, state)", "b_t, c_t)"))
selective_scan_chunked__takes_no_chunk = _but(
    "selective_scan_chunked",
    ("    outputs = []", "    chunk_size = chunk_size or 1\n    outputs = []"),
    ("chunk_size < 1", "chunk_size < 0"),
)
selective_scan_chunked__state_of_the_first_chunk = _but(
    "selective_scan_chunked",
    ("y, state = ", "y, last = "),
    ("return torch.cat(outputs, dim=1), state", "return torch.cat(outputs, dim=1), last"),
    ("assert state is not None", ""),
)
selective_scan_chunked__outputs_reversed = _but(
    "selective_scan_chunked", ("torch.cat(outputs", "torch.cat(outputs[::-1]")
)
selective_scan_chunked__last_chunk_dropped = _but(
    "selective_scan_chunked",
    ("        outputs.append(y)", "        if y.shape[1] == chunk_size or not outputs:\n            outputs.append(y)"),
)
