"""Speculative decoding: guess several tokens cheaply, check them in one pass of the large model, lose nothing.

A *scorer* answers for a large or a small model: `score(contexts, drafts)` returns, per pair, the log-probabilities of
the next token after the context and after each token of the draft, len(draft) + 1 rows in nats. A *drafter* guesses:
`draft(contexts, lengths)` returns a `Draft` of at most so many tokens for each context. Neither changes its arguments.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness


@dataclass(frozen=True)
class Draft:
    """A guess at how a context goes on."""

    tokens: list[int]
    probs: Float[Tensor, "tokens vocab"]
    """The distribution that each of the tokens was drawn from."""


Scorer = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[Float[Tensor, "rows vocab"]]]
Drafter = Callable[[Sequence[Sequence[int]], Sequence[int]], list[Draft]]


def acceptance_rate(p: Float[Tensor, "*batch vocab"], q: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """Return the probability that a token drawn from q is accepted as one of p: the sum of min(p, q).

    Paper: Leviathan et al., 2023, https://arxiv.org/abs/2211.17192, theorem 3.5.
    """
    return torch.minimum(p, q).sum(-1)


def residual(p: Float[Tensor, "*batch vocab"], q: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
    """Return the distribution of the token that replaces a rejected one: max(p - q, 0), normalised; p where p = q."""
    lacking = (p - q).clamp(min=0)
    total = lacking.sum(-1, keepdim=True)
    return torch.where(total > 0, lacking / total.masked_fill(total == 0, 1), p)


def verify(p: Float[Tensor, "rows vocab"], draft: Draft, rng: Randomness) -> list[int]:
    """Return the tokens of the draft that are accepted and one more, distributed exactly as tokens drawn from p.

    Row i of `p` is the target's distribution after i tokens of the draft; there is one row more than there are tokens.
    Token x at row i is accepted with probability min(1, p_i(x) / q_i(x)), all before it being accepted. The first
    rejected token is replaced by a draw from the residual of its row, and nothing follows; after a draft that is
    accepted as a whole comes a draw from the last row of p. Draws come from `rng.bernoulli` and `rng.categorical`.
    Raises ValueError unless p has len(draft.tokens) + 1 rows.

    Papers: Leviathan et al., 2023, https://arxiv.org/abs/2211.17192; Chen et al., 2023,
    https://arxiv.org/abs/2302.01318.
    """
    if len(p) != len(draft.tokens) + 1:
        raise ValueError(f"expected {len(draft.tokens) + 1} rows for {len(draft.tokens)} tokens, got {len(p)}")
    verified: list[int] = []
    for row, token in enumerate(draft.tokens):
        target, guess = p[row].double(), draft.probs[row].double()
        wanted, offered = float(target[token]), float(guess[token])
        chance = 1.0 if wanted >= offered > 0 else wanted / offered if offered > 0 else float(wanted > 0)
        if not bool(rng.bernoulli(chance)):
            return [*verified, int(rng.categorical(residual(target, guess)))]
        verified.append(token)
    return [*verified, int(rng.categorical(p[-1]))]


def sampling_probs(
    logprobs: Float[Tensor, "*batch vocab"], temperature: float = 1.0, top_p: float = 1.0
) -> Float[Tensor, "*batch vocab"]:
    """Return the distribution that tokens are drawn from at this temperature, truncated to its nucleus.

    At temperature 0 the most probable token has probability one. Otherwise probabilities are softmax(logprobs /
    temperature), and of these the smallest set of most probable tokens with a total of at least `top_p` is kept and
    renormalised. Which of equally probable tokens is kept is left open. Raises ValueError unless temperature >= 0 and
    0 < top_p <= 1.
    """
    if not temperature >= 0:
        raise ValueError(f"expected a temperature of at least 0, got {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"expected 0 < top_p <= 1, got {top_p}")
    logprobs = logprobs.to(torch.promote_types(logprobs.dtype, torch.float32))
    best = logprobs.argmax(-1, keepdim=True)
    if temperature == 0:
        return torch.zeros_like(logprobs).scatter(-1, best, 1.0)
    # Less the largest, so that a low temperature makes no infinities of it.
    probs = ((logprobs - logprobs.gather(-1, best)) / temperature).softmax(-1)
    if top_p == 1:
        return probs
    ordered, order = probs.sort(dim=-1, descending=True, stable=True)
    before = ordered.double().cumsum(-1) - ordered.double()
    # A total that only rounding keeps below top_p has reached it.
    dropped = before >= top_p - 8 * torch.finfo(probs.dtype).eps
    dropped[..., 0] = False
    nucleus = probs.masked_fill(torch.zeros_like(dropped).scatter(-1, order, dropped), 0)
    return nucleus / nucleus.sum(-1, keepdim=True)


def score_with_model(
    model: LanguageModel, contexts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]
) -> list[Float[Tensor, "rows vocab"]]:
    """Be a scorer: ask for all prefixes of all drafts in one call of `model.next_token_logprobs`."""
    prefixes = [
        [*context, *draft[:count]]
        for context, draft in zip(contexts, drafts, strict=True)
        for count in range(len(draft) + 1)
    ]
    if not prefixes:
        return []
    return list(model.next_token_logprobs(prefixes).split([len(draft) + 1 for draft in drafts]))


def draft_with_model(
    score: Scorer,
    contexts: Sequence[Sequence[int]],
    lengths: Sequence[int],
    *,
    eos_token_id: int,
    temperature: float,
    top_p: float,
    rng: Randomness,
) -> list[Draft]:
    """Be a drafter: draw up to lengths[i] tokens after contexts[i] from a small model's sampling probabilities.

    A draft ends early only with the end token, which is its last token then. Each step is one call of `score` for the
    drafts that go on, with their contexts and what is drafted so far as contexts and with empty drafts, and a draw of a
    token for each; when none goes on there is no call. A draft of no tokens has probs of no rows.
    """
    tokens: list[list[int]] = [[] for _ in contexts]
    probs: list[list[Tensor]] = [[] for _ in contexts]
    none = torch.empty(0, 0)
    going = [row for row, length in enumerate(lengths) if length > 0]
    while going:
        answers = score([[*contexts[row], *tokens[row]] for row in going], [[] for _ in going])
        for row, answer in zip(going, answers, strict=True):
            own = sampling_probs(answer[0], temperature, top_p)
            tokens[row].append(int(rng.categorical(own)))
            probs[row].append(own)
            none = own.new_empty(0, len(own))
        going = [row for row in going if len(tokens[row]) < lengths[row] and tokens[row][-1] != eos_token_id]
    return [Draft(drawn, torch.stack(rows) if rows else none) for drawn, rows in zip(tokens, probs, strict=True)]


def draft_with_ngrams(
    contexts: Sequence[Sequence[int]], lengths: Sequence[int], *, vocab_size: int, max_ngram_size: int
) -> list[Draft]:
    """Be a drafter without a model: look up how the last tokens of a context went on when they came before.

    For n from `max_ngram_size` down to 1: if the last n tokens of the context occur earlier in it, followed by at least
    one token, the draft is what follows their latest such occurrence, up to the end of the context and at most
    lengths[i] tokens. An occurrence may overlap the last n tokens. Without any the draft is empty. Its tokens were
    certain: each row of probs is one at its token. Raises ValueError unless max_ngram_size >= 1.

    Known as prompt lookup decoding; compare Fu et al., 2024, https://arxiv.org/abs/2402.02057.
    """
    if max_ngram_size < 1:
        raise ValueError(f"expected max_ngram_size of at least 1, got {max_ngram_size}")
    drafts = []
    for context, length in zip(contexts, lengths, strict=True):
        tokens = _what_followed(list(context), max_ngram_size)[: max(0, length)]
        probs = torch.zeros(len(tokens), vocab_size)
        probs[torch.arange(len(tokens)), torch.tensor(tokens, dtype=torch.long)] = 1.0
        drafts.append(Draft(tokens, probs))
    return drafts


def speculative_generate(
    score: Scorer,
    draft: Drafter,
    prompts: Sequence[Sequence[int]],
    *,
    eos_token_id: int,
    num_speculative_tokens: int,
    max_tokens: int,
    temperature: float,
    top_p: float,
    rng: Randomness,
) -> list[list[int]]:
    """Continue each prompt until the end token or `max_tokens` tokens, distributed as if sampled from the target alone.

    In each round one call of `draft` and one of `score` serve all rows that have not ended, and only these, in order. A
    row's draft has at most `num_speculative_tokens` tokens, and one less than it may still get: verification adds one.
    The target's sampling probabilities at this temperature and top_p are what is verified against; the drafter's are
    its own. The end token is part of a continuation, and nothing follows it. An end token inside a prompt ends nothing.
    Raises ValueError unless num_speculative_tokens >= 0 and max_tokens >= 0.
    """
    if num_speculative_tokens < 0 or max_tokens < 0:
        raise ValueError(
            f"expected num_speculative_tokens and max_tokens of at least 0, got {num_speculative_tokens}, {max_tokens}"
        )
    generated: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts))) if max_tokens else []
    while going:
        contexts = [[*prompts[row], *generated[row]] for row in going]
        lengths = [min(num_speculative_tokens, max_tokens - len(generated[row]) - 1) for row in going]
        drafts = draft(contexts, lengths)
        answers = score(contexts, [own.tokens for own in drafts])
        for row, own, logprobs in zip(going, drafts, answers, strict=True):
            new = verify(sampling_probs(logprobs, temperature, top_p), own, rng)
            if eos_token_id in new:
                new = new[: new.index(eos_token_id) + 1]
            generated[row] += new
        going = [row for row in going if len(generated[row]) < max_tokens and generated[row][-1] != eos_token_id]
    return generated


def expected_tokens(acceptance: float, num_speculative_tokens: int) -> float:
    """Return the expected number of tokens of a round, if each token of a draft is accepted with this probability.

    (1 - a^(g + 1)) / (1 - a), or g + 1 for a = 1. Raises ValueError unless 0 <= a <= 1 and g >= 0.
    """
    a, g = acceptance, num_speculative_tokens
    if not 0 <= a <= 1 or g < 0:
        raise ValueError(f"expected an acceptance rate from 0 to 1 and at least 0 tokens, got {a} and {g}")
    if a == 1:
        return float(g + 1)
    return (1 - a ** (g + 1)) / (1 - a) if a < 0.5 else -math.expm1((g + 1) * math.log(a)) / (1 - a)


def best_lookahead(acceptance: float, cost_ratio: float, max_lookahead: int) -> tuple[int, float]:
    """Return the number of speculative tokens from 0 to `max_lookahead` with the greatest speed-up, and that speed-up.

    `cost_ratio` is the cost of one step of the drafter over that of one pass of the target, which is taken to cost the
    same for g + 1 tokens as for one. The speed-up over plain decoding is expected_tokens / (cost_ratio g + 1); 0 tokens
    are plain decoding. Of equally good numbers the least. Raises ValueError unless cost_ratio >= 0, max_lookahead >= 0
    and 0 <= acceptance <= 1.
    """
    if not cost_ratio >= 0 or max_lookahead < 0 or not 0 <= acceptance <= 1:
        raise ValueError(
            "expected cost_ratio >= 0, max_lookahead >= 0 and an acceptance rate from 0 to 1, "
            f"got {cost_ratio}, {max_lookahead} and {acceptance}"
        )
    best, speedup = 0, 1.0
    if cost_ratio == 0 and acceptance > 0:  # each further token is worth something, if less than a float can tell
        return max_lookahead, expected_tokens(acceptance, max_lookahead)
    for lookahead in range(1, max_lookahead + 1):
        gain = expected_tokens(acceptance, lookahead) / (cost_ratio * lookahead + 1)
        if gain > speedup * (1 + 1e-12):  # what differs by rounding is equal
            best, speedup = lookahead, gain
    return best, speedup


class RollbackCache:
    """A cache of the course's transformer whose rows can be cut back, each to a length of its own, and chosen anew."""

    def __init__(self) -> None:
        """Begin empty."""
        # Keys, values and positions of each layer; position p is in column p.
        self._layers: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def update(
        self,
        layer: int,
        keys: Float[Tensor, "batch kv_heads new head_dim"],
        values: Float[Tensor, "batch kv_heads new head_dim"],
        positions: Int[Tensor, "batch new"],
    ) -> tuple[
        Float[Tensor, "batch kv_heads keys head_dim"],
        Float[Tensor, "batch kv_heads keys head_dim"],
        Int[Tensor, "batch keys"],
    ]:
        """Add a layer's new positions, and return keys, values and positions of all that it holds.

        Positions of -1 are padding, in new positions as in returned ones; what is returned may be in any order.
        """
        held = self._layers.get(layer) or (keys[:, :, :0], values[:, :, :0], positions[:, :0])
        width = held[2].shape[1]
        wider = max(width, int(positions.max()) + 1 if positions.numel() else 0)
        grown_keys, grown_values = (pad(kept, (0, 0, 0, wider - width)) for kept in held[:2])
        grown_positions = pad(held[2], (0, wider - width), value=-1)
        rows, columns = (positions >= 0).nonzero(as_tuple=True)
        places = positions[rows, columns]
        if grown_keys.shape[2] == width:  # pad may have copied nothing, and what was returned before stays as it is
            grown_keys, grown_values, grown_positions = grown_keys.clone(), grown_values.clone(), grown_positions.clone()
        grown_keys[rows, :, places] = keys[rows, :, columns]
        grown_values[rows, :, places] = values[rows, :, columns]
        grown_positions[rows, places] = places
        self._layers[layer] = (grown_keys, grown_values, grown_positions)
        return self._layers[layer]

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget, in every layer, the positions from lengths[row] on of each row. An empty cache stays empty."""
        for layer, (keys, values, positions) in self._layers.items():
            limits = torch.tensor(list(lengths), dtype=positions.dtype, device=positions.device)[:, None]
            left = positions.masked_fill(positions >= limits, -1)
            width = int(left.max()) + 1 if left.numel() else 0
            self._layers[layer] = (keys[:, :, :width], values[:, :, :width], left[:, :width])

    def select(self, rows: Sequence[int]) -> None:
        """Make row rows[i] of now the row i, in every layer: rows are dropped, reordered or copied.

        An empty cache stays empty.
        """
        for layer, kept in self._layers.items():
            index = torch.tensor(list(rows), dtype=torch.long, device=kept[2].device)
            keys, values, positions = (part.index_select(0, index) for part in kept)
            self._layers[layer] = (keys, values, positions)


class CachedScorer:
    """A scorer on a transformer that computes no position twice while contexts grow, whatever is rejected."""

    def __init__(self, forward: Callable[[Int[Tensor, "batch new"], Int[Tensor, "batch new"], Any], Tensor]):
        """Begin with an empty `RollbackCache`.

        `forward(token_ids, positions, cache)` is a transformer: it returns the logits after every new position, (batch,
        new, vocab), and keeps keys and values in the cache. Positions of -1 are padding.
        """
        self._forward = forward
        self._cache = RollbackCache()
        self._held: list[list[int]] = []  # the tokens of each row of the cache

    def score(
        self, contexts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "rows vocab"]]:
        """Be a scorer, with one call of `forward`, for any contexts of at least one token.

        Each context goes on from a row of the cache that has the longest prefix in common with it and its draft: what
        the row holds beyond that prefix is forgotten, and only the tokens that it lacks are forwarded, at least those
        from the context's last token on.
        """
        texts = [[*context, *draft] for context, draft in zip(contexts, drafts, strict=True)]
        if not all(len(context) for context in contexts):
            raise ValueError("expected contexts of at least one token, got an empty one")
        if not texts:
            return []
        kept = [0 for _ in texts]
        if self._held:
            rows = []
            for number, text in enumerate(texts):
                common = [_common_prefix(held, text) for held in self._held]
                rows.append(max(range(len(common)), key=common.__getitem__))
                kept[number] = min(common[rows[-1]], len(contexts[number]) - 1)
            self._cache.select(rows)
        self._cache.truncate(kept)
        self._held = [text[:count] for text, count in zip(texts, kept, strict=True)]

        new = [text[count:] for text, count in zip(texts, kept, strict=True)]
        width = max(map(len, new))
        token_ids = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens in new])
        positions = torch.tensor(
            [
                [*range(count, count + len(tokens)), *[-1] * (width - len(tokens))]
                for count, tokens in zip(kept, new, strict=True)
            ]
        )
        with torch.no_grad():
            logits = self._forward(token_ids, positions, self._cache)
        self._held = texts
        logprobs = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        return [
            own[len(context) - 1 - count : len(tokens)]
            for own, context, count, tokens in zip(logprobs, contexts, kept, new, strict=True)
        ]


def _what_followed(context: list[int], max_ngram_size: int) -> list[int]:
    """Return what followed the latest earlier occurrence of the context's last tokens, as many of them as can be."""
    length = len(context)
    for size in range(min(max_ngram_size, length - 1), 0, -1):
        ending = context[length - size :]
        for begin in range(length - size - 1, -1, -1):
            if context[begin : begin + size] == ending:
                return context[begin + size :]
    return []


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many first tokens are the same."""
    count = 0
    for left, right in zip(first, second, strict=False):
        if left != right:
            break
        count += 1
    return count
