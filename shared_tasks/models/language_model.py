"""The one interface that every algorithm of the course is written against."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class LanguageModel(Protocol):
    """P(next token | prefix) over a fixed vocabulary of token ids 0 .. vocab_size - 1.

    A sequence is a list of token ids without any start token: the model adds its own where it needs one, so the
    empty context is a context like any other. A sequence is complete when it ends in `eos_token_id`.
    """

    vocab_size: int
    eos_token_id: int

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Return log P(next token | context) in nats, a row per context.

        Contexts may differ in length. Each row is normalised: its exponentials sum to one.
        """
        ...

    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        """Return, per pair, log P(continuation[t] | context + continuation[:t]) in nats for every t.

        Raises ValueError when there are not as many continuations as contexts.
        """
        ...


class CountingModel:
    """A language model that counts how it is used and otherwise answers as the model it wraps.

    `calls` counts calls of either method, `contexts` the rows asked for in them, and `tokens` the tokens in those
    rows (context and continuation).
    """

    def __init__(self, model: LanguageModel):
        self.model = model
        self.vocab_size = model.vocab_size
        self.eos_token_id = model.eos_token_id
        self.calls = 0
        self.contexts = 0
        self.tokens = 0

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Count, then ask the wrapped model."""
        self.calls += 1
        self.contexts += len(contexts)
        self.tokens += sum(map(len, contexts))
        return self.model.next_token_logprobs(contexts)

    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        """Count, then ask the wrapped model."""
        self.calls += 1
        self.contexts += len(contexts)
        self.tokens += sum(map(len, contexts)) + sum(map(len, continuations))
        return self.model.continuation_logprobs(contexts, continuations)
