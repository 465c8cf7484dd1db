"""Plausible wrong solutions of hw3.speculative: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module. Each is the reference with one passage
written wrongly.
"""

# ruff: noqa: E501 (a passage and what replaces it read best on one line)

from functools import partial
from typing import Any

from grader.hidden.rewriting import rewritten
from grader.reference.hw3 import speculative as reference

_but = partial(rewritten, reference)


acceptance_rate__product = _but("acceptance_rate", ("torch.minimum(p, q)", "(p * q)"))
acceptance_rate__total_variation = _but("acceptance_rate", ("torch.minimum(p, q).sum(-1)", "(p - q).abs().sum(-1) / 2"))
acceptance_rate__all_rows = _but("acceptance_rate", (".sum(-1)", ".sum()"))
acceptance_rate__larger = _but("acceptance_rate", ("torch.minimum", "torch.maximum"))
acceptance_rate__forgets_half = _but("acceptance_rate", ("torch.minimum(p, q).sum(-1)", "1 - (p - q).abs().sum(-1)"))

residual__target_itself = _but("residual", ("(p - q).clamp_min(0)", "p"))
residual__absolute = _but("residual", (".clamp_min(0)", ".abs()"))
residual__not_normalised = _but("residual", ("excess / total", "excess"))
residual__nan = _but("residual", ("torch.where(total > 0, excess / total, p)", "excess / total"))
residual__normalises_all_rows = _but("residual", ("excess.sum(-1, keepdim=True)", "excess.sum()"))

_ACCEPT = "(p[i, token] / draft.probs[i, token]).clamp_max(1)"
verify__accepts_with_p = _but("verify", (_ACCEPT, "p[i, token]"))
verify__replaces_from_p = _but("verify", ("residual(p[i], draft.probs[i])", "p[i]"))
verify__goes_on_after_rejection = _but(
    "verify",
    ("return [*draft.tokens[:i], int(rng.categorical(residual(p[i], draft.probs[i])))]",
     "new = int(rng.categorical(residual(p[i], draft.probs[i])))\n"
     "            return [*draft.tokens[:i], new, *draft.tokens[i + 1 :], int(rng.categorical(p[-1]))]"),
)  # fmt: skip
verify__rows_off_by_one = _but("verify", (_ACCEPT, "(p[i + 1, token] / draft.probs[i, token]).clamp_max(1)"))
verify__no_added_token = _but(
    "verify",
    (
        "return [*draft.tokens, int(rng.categorical(p[-1]))]",
        "return list(draft.tokens) or [int(rng.categorical(p[-1]))]",
    ),
)
verify__inverse_ratio = _but("verify", (_ACCEPT, "(draft.probs[i, token] / p[i, token].clamp_min(1e-30)).clamp_max(1)"))
verify__accepts_where_p_is_larger = _but("verify", (_ACCEPT, "(p[i, token] >= draft.probs[i, token]).double()"))
verify__residual_of_the_first_row = _but("verify", ("residual(p[i], draft.probs[i])", "residual(p[0], draft.probs[0])"))
verify__takes_any_rows = _but("verify", ("len(p) != len(draft.tokens) + 1", "len(p) < len(draft.tokens)"))

sampling_probs__nucleus_first = _but(
    "sampling_probs",
    ("probs, order = (logprobs / temperature).softmax(-1).sort(descending=True)\n    kept = probs",
     "probs, order = logprobs.softmax(-1).sort(descending=True)\n    kept = probs ** (1 / temperature)"),
)  # fmt: skip
sampling_probs__drops_the_crossing_token = _but(
    "sampling_probs", ("probs.cumsum(-1) - probs < top_p", "(probs.cumsum(-1) <= top_p) | (order == order[..., :1])")
)
sampling_probs__not_renormalised = _but("sampling_probs", ("kept / kept.sum(-1, keepdim=True)", "kept"))
sampling_probs__divides_by_zero = _but("sampling_probs", ("if temperature == 0:", "if False:"))
sampling_probs__multiplies = _but("sampling_probs", ("logprobs / temperature", "logprobs * temperature"))
sampling_probs__sorted_order = _but(
    "sampling_probs",
    (
        "torch.zeros_like(kept).scatter(-1, order, kept / kept.sum(-1, keepdim=True))",
        "kept / kept.sum(-1, keepdim=True)",
    ),
)

score_with_model__a_call_each = _but(
    "score_with_model",
    ("model.next_token_logprobs(prefixes)", "torch.cat([model.next_token_logprobs([p]) for p in prefixes])"),
)
score_with_model__last_row_missing = _but(
    "score_with_model", ("range(len(draft) + 1)", "range(len(draft))"), ("[len(draft) + 1 for", "[len(draft) for")
)
score_with_model__equal_lengths = _but(
    "score_with_model", (".split([len(draft) + 1 for draft in drafts])", ".split(len(drafts[0]) + 1)")
)
score_with_model__context_left_out = _but("score_with_model", ("[*context, *draft[:i]]", "draft[:i]"))
score_with_model__one_token_late = _but("score_with_model", ("draft[:i]]", "draft[: i + 1]]"))

draft_with_model__reports_untruncated = _but(
    "draft_with_model", ("rows = sampling_probs(rows, temperature, top_p)", "plain, rows = rows.exp(), sampling_probs(rows, temperature, top_p)"),
    ("for i, row, token in zip(live, rows,", "for i, row, token in zip(live, plain,"),
)  # fmt: skip
draft_with_model__ignores_top_p = _but(
    "draft_with_model", ("sampling_probs(rows, temperature, top_p)", "sampling_probs(rows, temperature)")
)
draft_with_model__ignores_temperature = _but(
    "draft_with_model", ("sampling_probs(rows, temperature, top_p)", "sampling_probs(rows, 1.0, top_p)")
)
draft_with_model__goes_past_the_end = _but("draft_with_model", (" and eos_token_id not in tokens[i]", ""))
draft_with_model__ends_at_an_end_in_the_context = _but(
    "draft_with_model", ("eos_token_id not in tokens[i]", "eos_token_id not in [*contexts[i], *tokens[i]]")
)
draft_with_model__same_length_for_all = _but("draft_with_model", ("lengths[i] and", "max(lengths) and"))
draft_with_model__forgets_its_draft = _but("draft_with_model", ("[*contexts[i], *tokens[i]]", "[*contexts[i]]"))

_LOOK = "_looked_up(list(context), max_ngram_size)[:length]"


def _lookup(rule: str) -> Any:
    """Return a drafter that looks up by another rule."""
    return _but(
        "draft_with_ngrams", ("    drafts = []", f"    def _looked_up(context, size):\n{rule}\n    drafts = []")
    )


_RULE = """
        for size in range(min(size, len(context) - 1), 0, -1):
            for start in range(len(context) - size - 1, -1, -1):
                if context[start : start + size] == context[-size:]:
                    return context[start + size :]
        return []
"""
draft_with_ngrams__earliest = _lookup(_RULE.replace("len(context) - size - 1, -1, -1", "len(context) - size"))
draft_with_ngrams__shortest_first = _lookup(
    _RULE.replace("min(size, len(context) - 1), 0, -1", "1, min(size, len(context) - 1) + 1")
)
draft_with_ngrams__finds_itself = _lookup(_RULE.replace("len(context) - size - 1, -1", "len(context) - size, -1"))
draft_with_ngrams__only_the_longest = _lookup(_RULE.replace("min(size, len(context) - 1), 0, -1", "size, size - 1, -1"))
draft_with_ngrams__copies_the_match = _lookup(_RULE.replace("context[start + size :]", "context[start:]"))
draft_with_ngrams__ignores_the_length = _but("draft_with_ngrams", (_LOOK, _LOOK.replace("[:length]", "")))
draft_with_ngrams__uniform_probs = _but(
    "draft_with_ngrams",
    ("torch.zeros(len(tokens), vocab_size)", "torch.full((len(tokens), vocab_size), 1 / vocab_size)"),
)

speculative_generate__plain_target = _but(
    "speculative_generate", ("sampling_probs(rows, temperature, top_p)", "rows.exp()")
)
speculative_generate__overshoots = _but(
    "speculative_generate", ("min(num_speculative_tokens, max_tokens - len(y[i]) - 1)", "num_speculative_tokens")
)
speculative_generate__drafts_what_it_cuts = _but(
    "speculative_generate",
    ("max_tokens - len(y[i]) - 1)", "max_tokens - len(y[i]))"),
    ("y[i] += tokens", "y[i] = (y[i] + tokens)[:max_tokens]"),
)
speculative_generate__end_only_at_the_end = _but(
    "speculative_generate",
    ("if eos_token_id in tokens:", "if False:"),
    ("eos_token_id not in y[i]", "y[i][-1:] != [eos_token_id]"),
)
speculative_generate__ends_at_an_end_in_the_prompt = _but(
    "speculative_generate", ("eos_token_id not in y[i]", "eos_token_id not in [*prompts[i], *y[i]]")
)
speculative_generate__without_the_end = _but(
    "speculative_generate",
    (
        "tokens.index(eos_token_id) + 1]",
        "tokens.index(eos_token_id)]\n                max_tokens = min(max_tokens, len(y[i]) + len(tokens))",
    ),
)
speculative_generate__row_by_row = _but(
    "speculative_generate",
    ("scores = score(contexts, [guess.tokens for guess in drafts])", "scores = [score([c], [g.tokens])[0] for c, g in zip(contexts, drafts)]"),
)  # fmt: skip
speculative_generate__ended_rows_asked = _but(
    "speculative_generate",
    ("while live := [i for i in range(len(prompts)) if goes_on(i)]:", "while any(goes_on(i) for i in range(len(prompts))):\n        live = list(range(len(prompts)))"),
    ("max_tokens - len(y[i]) - 1)", "max(0, max_tokens - len(y[i]) - 1))"), ("y[i] += tokens", "y[i] += tokens if goes_on(i) else []"),
)  # fmt: skip

expected_tokens__without_the_added_one = _but(
    "expected_tokens", ("range(num_speculative_tokens + 1)", "range(1, num_speculative_tokens + 1)")
)
expected_tokens__one_power_short = _but(
    "expected_tokens", ("range(num_speculative_tokens + 1)", "range(max(1, num_speculative_tokens))")
)
expected_tokens__mean_field = _but(
    "expected_tokens",
    ("math.fsum(acceptance**i for i in range(num_speculative_tokens + 1))", "acceptance * num_speculative_tokens + 1"),
)
expected_tokens__divides_by_zero = _but(
    "expected_tokens",
    ("math.fsum(acceptance**i for i in range(num_speculative_tokens + 1))", "(1 - acceptance ** (num_speculative_tokens + 1)) / (1 - acceptance)"),
)  # fmt: skip
expected_tokens__takes_anything = _but("expected_tokens", ("not 0 <= acceptance <= 1 or", "False and"))

_COST = "(cost_ratio * g + 1)"
best_lookahead__target_cost_left_out = _but("best_lookahead", (_COST, "(cost_ratio * g or 1)"))
best_lookahead__cost_left_out = _but("best_lookahead", (" / " + _COST, ""))
best_lookahead__at_least_one = _but(
    "best_lookahead",
    ("range(max_lookahead + 1)", "range(min(1, max_lookahead), max_lookahead + 1)"),
    ("gains.index(max(gains))", "gains.index(max(gains)) + min(1, max_lookahead)"),
)
best_lookahead__largest_left_out = _but("best_lookahead", ("range(max_lookahead + 1)", "range(max(1, max_lookahead))"))
best_lookahead__target_scales = _but("best_lookahead", (_COST, "(cost_ratio * g + 1 + g)"))
best_lookahead__last_of_equals = _but(
    "best_lookahead", ("gains.index(max(gains))", "len(gains) - 1 - gains[::-1].index(max(gains))")
)

RollbackCache__off_by_one = _but("RollbackCache", ("positions >= torch", "positions > torch"))
RollbackCache__cuts_all_to_the_shortest = _but("RollbackCache", ("torch.as_tensor(lengths)[:, None]", "min(lengths)"))
RollbackCache__cuts_columns = _but(
    "RollbackCache",
    (
        "[keys[:, :, used], values[:, :, used], positions[:, used]]",
        "[part[..., : max(lengths), :] if part.ndim > 2 else part[..., : max(lengths)] for part in self._layers[layer]]",
    ),
)
RollbackCache__first_layer_only = _but(
    "RollbackCache", ("in self._layers.items():", "in list(self._layers.items())[:1]:")
)
RollbackCache__positions_not_selected = _but(
    "RollbackCache",
    ("[part[list(rows)] for part in parts]", "[parts[0][list(rows)], parts[1][list(rows)], parts[2][: len(rows)]]"),
)
RollbackCache__select_ignores_order = _but("RollbackCache", ("part[list(rows)]", "part[sorted(rows)]"))
RollbackCache__keys_for_values = _but(
    "RollbackCache", ("return new[0], new[1], new[2]", "return new[0], new[0], new[2]")
)

CachedScorer__cuts_to_the_context = _but(
    "CachedScorer",
    (
        "kept.append(min(max(common), len(context) - 1))",
        "kept.append(min(max(common), len(context) - 2) if max(common) else 0)",
    ),
)
CachedScorer__never_keeps = _but("CachedScorer", ("kept.append(min(max(common), len(context) - 1))", "kept.append(0)"))
CachedScorer__does_not_roll_back = _but("CachedScorer", ("self._cache.truncate(kept)", "pass"))
CachedScorer__first_row_only = _but("CachedScorer", ("rows.append(common.index(max(common)))", "rows.append(0)"))
CachedScorer__rows_stay_where_they_are = _but(
    "CachedScorer", ("rows.append(common.index(max(common)))", "rows.append(min(len(rows), len(common) - 1))")
)
CachedScorer__logits = _but("CachedScorer", (".log_softmax(-1)", ""))
CachedScorer__last_columns_of_padding = _but(
    "CachedScorer", ("row[len(part) - len(draft) - 1 : len(part)]", "row[-len(draft) - 1 :]")
)
CachedScorer__padding_is_a_token = _but("CachedScorer", ("padding_value=-1", "padding_value=0"))
CachedScorer__keeps_the_last_token = _but("CachedScorer", ("min(max(common), len(context) - 1)", "max(common)"))
