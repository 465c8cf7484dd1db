"""A second correct solution of hw3.speculative: plain numbers, one row at a time, a cache of lists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    """One minus the mass that p lacks."""
    return 1 - (q - p).relu().sum(-1)


def residual(p: Float[Tensor, "*batch vocab"], q: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
    """Go row by row."""
    out = []
    for row, other in zip(p.reshape(-1, p.shape[-1]), q.reshape(-1, q.shape[-1]), strict=True):
        excess = torch.relu(row - other)
        out.append(row if excess.sum() <= 0 else excess / excess.sum())
    return torch.stack(out).reshape(p.shape)


def verify(p: Float[Tensor, "rows vocab"], draft: Draft, rng: Randomness) -> list[int]:
    """Draw all coins first."""
    count = len(draft.tokens)
    if p.shape[0] != count + 1:
        raise ValueError("one row more than tokens")
    if count == 0:
        return [int(rng.categorical(p[0]))]
    index = torch.arange(count)
    ratios = p[index, draft.tokens].double() / draft.probs[index, draft.tokens].double()
    coins = rng.bernoulli(ratios.clamp(max=1.0)).tolist()
    accepted = coins.index(False) if False in coins else count
    law = p[accepted] if accepted == count else residual(p[accepted], draft.probs[accepted])
    return [*draft.tokens[:accepted], int(rng.categorical(law))]


def sampling_probs(
    logprobs: Float[Tensor, "*batch vocab"], temperature: float = 1.0, top_p: float = 1.0
) -> Float[Tensor, "*batch vocab"]:
    """Find each row's threshold probability."""
    if temperature < 0 or top_p <= 0 or top_p > 1:
        raise ValueError("no such distribution")
    if temperature == 0:
        return torch.nn.functional.one_hot(logprobs.argmax(-1), logprobs.shape[-1]).to(logprobs.dtype)
    probs = torch.softmax(logprobs / temperature, dim=-1)
    ranked = probs.sort(-1, descending=True).values
    before = torch.cat([torch.zeros_like(ranked[..., :1]), ranked.cumsum(-1)[..., :-1]], dim=-1)
    count = (before < top_p).sum(-1, keepdim=True)
    probs = torch.where(probs >= ranked.gather(-1, count - 1), probs, 0)
    return probs / probs.sum(-1, keepdim=True)


def score_with_model(
    model: LanguageModel, contexts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]
) -> list[Float[Tensor, "rows vocab"]]:
    """Cut the answer at running sums."""
    asked = [list(c) + list(d)[:i] for c, d in zip(contexts, drafts, strict=True) for i in range(len(d) + 1)]
    table, start, out = model.next_token_logprobs(asked), 0, []
    for draft in drafts:
        out.append(table[start : start + len(draft) + 1])
        start += len(draft) + 1
    return out


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
    """Count steps, and draw for each row by itself."""
    drafts = [([], []) for _ in contexts]  # type: list[tuple[list[int], list[Tensor]]]
    for step in range(max(lengths, default=0)):
        live = [i for i, n in enumerate(lengths) if step < n and drafts[i][0][-1:] != [eos_token_id]]
        if not live:
            break
        answers = score([list(contexts[i]) + drafts[i][0] for i in live], [[] for _ in live])
        for i, answer in zip(live, answers, strict=True):
            law = sampling_probs(answer[0], temperature, top_p)
            drafts[i][1].append(law)
            drafts[i][0].append(int(rng.categorical(law)))
    return [Draft(tokens, torch.stack(laws) if laws else torch.zeros(0, 0)) for tokens, laws in drafts]


def draft_with_ngrams(
    contexts: Sequence[Sequence[int]], lengths: Sequence[int], *, vocab_size: int, max_ngram_size: int
) -> list[Draft]:
    """Compare how far each earlier place agrees with the end."""
    if max_ngram_size < 1:
        raise ValueError("an n-gram has at least one token")
    out = []
    for context, length in zip(contexts, lengths, strict=True):
        best, place = 0, len(context)
        for end in range(1, len(context)):
            size = 0
            while size < min(end, max_ngram_size) and context[end - 1 - size] == context[-1 - size]:
                size += 1
            if size and size >= best:
                best, place = size, end
        tokens = list(context[place : place + length])
        out.append(Draft(tokens, torch.eye(vocab_size)[tokens]))
    return out


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
    """Keep the rows that go on in a dictionary."""
    if min(num_speculative_tokens, max_tokens) < 0:
        raise ValueError("numbers of tokens are not negative")
    done: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts))) if max_tokens else []
    while live:
        contexts = [list(prompts[i]) + done[i] for i in live]
        room = [max_tokens - len(done[i]) for i in live]
        guesses = draft(contexts, [min(num_speculative_tokens, n - 1) for n in room])
        answers = score(contexts, [list(guess.tokens) for guess in guesses])
        still = []
        for i, guess, answer in zip(live, guesses, answers, strict=True):
            for token in verify(sampling_probs(answer, temperature, top_p), guess, rng):
                done[i].append(token)
                if token == eos_token_id:
                    break
            if done[i][-1] != eos_token_id and len(done[i]) < max_tokens:
                still.append(i)
        live = still
    return done


def expected_tokens(acceptance: float, num_speculative_tokens: int) -> float:
    """Take the closed form."""
    if acceptance < 0 or acceptance > 1 or num_speculative_tokens < 0:
        raise ValueError("no such round")
    if acceptance == 1:
        return float(num_speculative_tokens + 1)
    return (1 - acceptance ** (num_speculative_tokens + 1)) / (1 - acceptance)


def best_lookahead(acceptance: float, cost_ratio: float, max_lookahead: int) -> tuple[int, float]:
    """Keep the best so far."""
    if not 0 <= acceptance <= 1 or cost_ratio < 0 or max_lookahead < 0:
        raise ValueError("no such costs")
    best = 0, 1.0
    for lookahead in range(1, max_lookahead + 1):
        speedup = expected_tokens(acceptance, lookahead) / (1 + lookahead * cost_ratio)
        if speedup > best[1]:
            best = lookahead, speedup
    return best


class RollbackCache:
    """A cache of the course's transformer whose rows can be cut back, each to a length of its own, and chosen anew."""

    def __init__(self) -> None:
        """Keep each row of each layer as tensors of its own."""
        self.layers: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}

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
        """Append without padding, and pad for the answer."""
        new = []
        for row in range(len(keys)):
            real = positions[row] >= 0
            new.append((keys[row][:, real], values[row][:, real], positions[row][real]))
        if layer in self.layers:
            new = [
                (torch.cat([a[0], b[0]], 1), torch.cat([a[1], b[1]], 1), torch.cat([a[2], b[2]]))
                for a, b in zip(self.layers[layer], new, strict=True)
            ]
        self.layers[layer] = new
        width = max(len(row[2]) for row in new)
        out = (
            keys.new_zeros(*keys.shape[:2], width, keys.shape[3]),
            values.new_zeros(*values.shape[:2], width, values.shape[3]),
        )
        where = torch.full((len(new), width), -1)
        for i, (k, v, p) in enumerate(new):
            out[0][i, :, : len(p)], out[1][i, :, : len(p)], where[i, : len(p)] = k, v, p
        return out[0], out[1], where

    def truncate(self, lengths: Sequence[int]) -> None:
        """Slice every row of every layer."""
        for rows in self.layers.values():
            for i, (length, (k, v, p)) in enumerate(zip(lengths, rows, strict=True)):
                rows[i] = k[:, :length], v[:, :length], p[:length]

    def select(self, rows: Sequence[int]) -> None:
        """Rows are never written to, so that copies can share them."""
        self.layers = {layer: [held[i] for i in rows] for layer, held in self.layers.items()}


class CachedScorer:
    """A scorer on a transformer that computes no position twice while contexts grow, whatever is rejected."""

    def __init__(self, forward: Callable[[Int[Tensor, "batch new"], Int[Tensor, "batch new"], Any], Tensor]):
        """Remember the texts that the cache holds."""
        self.forward, self.cache, self.texts = forward, RollbackCache(), []  # type: Any, RollbackCache, list[list[int]]

    def score(
        self, contexts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "rows vocab"]]:
        """Pad on the left."""
        texts = [list(c) + list(d) for c, d in zip(contexts, drafts, strict=True)]
        chosen, starts = [], []
        for text, context in zip(texts, contexts, strict=True):
            best, row = 0, 0
            for i, held in enumerate(self.texts):
                n = 0
                while n < min(len(held), len(text)) and held[n] == text[n]:
                    n += 1
                if n > best:
                    best, row = n, i
            chosen.append(row)
            starts.append(min(best, len(context) - 1))
        self.cache.select(chosen)
        self.cache.truncate(starts)
        width = max(len(text) - start for text, start in zip(texts, starts, strict=True))
        ids, places = torch.zeros(len(texts), width, dtype=torch.long), torch.full((len(texts), width), -1)
        for i, (text, start) in enumerate(zip(texts, starts, strict=True)):
            ids[i, width - len(text) + start :] = torch.tensor(text[start:])
            places[i, width - len(text) + start :] = torch.arange(start, len(text))
        logits = self.forward(ids, places, self.cache)
        self.texts = texts
        return [logits[i, width - len(draft) - 1 :].log_softmax(-1) for i, draft in enumerate(drafts)]
