"""Speculative decoding: guess several tokens cheaply, check them in one pass of the large model, lose nothing.

A *scorer* answers for a large or a small model: `score(contexts, drafts)` returns, per pair, the log-probabilities of
the next token after the context and after each token of the draft, len(draft) + 1 rows in nats. A *drafter* guesses:
`draft(contexts, lengths)` returns a `Draft` of at most so many tokens for each context. Neither changes its arguments.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
    """Return the probability that a token drawn from q is accepted as one of p: the sum of min(p, q).

    Paper: Leviathan et al., 2023, https://arxiv.org/abs/2211.17192, theorem 3.5.
    """
    raise NotImplementedError


def residual(p: Float[Tensor, "*batch vocab"], q: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
    """Return the distribution of the token that replaces a rejected one: max(p - q, 0), normalised; p where p = q."""
    raise NotImplementedError


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
    raise NotImplementedError


def sampling_probs(
    logprobs: Float[Tensor, "*batch vocab"], temperature: float = 1.0, top_p: float = 1.0
) -> Float[Tensor, "*batch vocab"]:
    """Return the distribution that tokens are drawn from at this temperature, truncated to its nucleus.

    At temperature 0 the most probable token has probability one. Otherwise probabilities are softmax(logprobs /
    temperature), and of these the smallest set of most probable tokens with a total of at least `top_p` is kept and
    renormalised. Which of equally probable tokens is kept is left open. Raises ValueError unless temperature >= 0 and
    0 < top_p <= 1.
    """
    raise NotImplementedError


def score_with_model(
    model: LanguageModel, contexts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]
) -> list[Float[Tensor, "rows vocab"]]:
    """Be a scorer: ask for all prefixes of all drafts in one call of `model.next_token_logprobs`."""
    raise NotImplementedError


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
    raise NotImplementedError


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
    raise NotImplementedError


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
    raise NotImplementedError


def expected_tokens(acceptance: float, num_speculative_tokens: int) -> float:
    """Return the expected number of tokens of a round, if each token of a draft is accepted with this probability.

    (1 - a^(g + 1)) / (1 - a), or g + 1 for a = 1. Raises ValueError unless 0 <= a <= 1 and g >= 0.
    """
    raise NotImplementedError


def best_lookahead(acceptance: float, cost_ratio: float, max_lookahead: int) -> tuple[int, float]:
    """Return the number of speculative tokens from 0 to `max_lookahead` with the greatest speed-up, and that speed-up.

    `cost_ratio` is the cost of one step of the drafter over that of one pass of the target, which is taken to cost the
    same for g + 1 tokens as for one. The speed-up over plain decoding is expected_tokens / (cost_ratio g + 1); 0 tokens
    are plain decoding. Of equally good numbers the least. Raises ValueError unless cost_ratio >= 0, max_lookahead >= 0
    and 0 <= acceptance <= 1.
    """
    raise NotImplementedError


class RollbackCache:
    """A cache of the course's transformer whose rows can be cut back, each to a length of its own, and chosen anew."""

    def __init__(self) -> None:
        """Begin empty."""
        raise NotImplementedError

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
        raise NotImplementedError

    def truncate(self, lengths: Sequence[int]) -> None:
        """Forget, in every layer, the positions from lengths[row] on of each row. An empty cache stays empty."""
        raise NotImplementedError

    def select(self, rows: Sequence[int]) -> None:
        """Make row rows[i] of now the row i, in every layer: rows are dropped, reordered or copied.

        An empty cache stays empty.
        """
        raise NotImplementedError


class CachedScorer:
    """A scorer on a transformer that computes no position twice while contexts grow, whatever is rejected."""

    def __init__(self, forward: Callable[[Int[Tensor, "batch new"], Int[Tensor, "batch new"], Any], Tensor]):
        """Begin with an empty `RollbackCache`.

        `forward(token_ids, positions, cache)` is a transformer: it returns the logits after every new position, (batch,
        new, vocab), and keeps keys and values in the cache. Positions of -1 are padding.
        """
        raise NotImplementedError

    def score(
        self, contexts: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "rows vocab"]]:
        """Be a scorer, with one call of `forward`, for any contexts of at least one token.

        Each context goes on from a row of the cache that has the longest prefix in common with it and its draft: what
        the row holds beyond that prefix is forgotten, and only the tokens that it lacks are forwarded, at least those
        from the context's last token on.
        """
        raise NotImplementedError
