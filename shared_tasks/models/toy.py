"""Exact toy models: small enough to enumerate every sequence, so that a test knows the one right answer."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel


class _ExactModel:
    """What the toy models share: a model is given by the logits that follow one context."""

    def __init__(self, vocab_size: int, eos_token_id: int):
        self.vocab_size = vocab_size
        self.eos_token_id = eos_token_id

    def logits(self, context: tuple[int, ...]) -> Float[Tensor, "vocab"]:
        """Return unnormalised next-token log-probabilities; every toy model defines its own."""
        raise NotImplementedError

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Return log P(next token | context), a float64 row per context."""
        rows = [self.logits(self._checked(context)) for context in contexts]
        stacked = torch.stack(rows) if rows else torch.empty(0, self.vocab_size, dtype=torch.float64)
        return stacked.log_softmax(-1)

    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        """Return log P of each token of each continuation, in float64."""
        if len(contexts) != len(continuations):
            raise ValueError(f"expected as many continuations as contexts ({len(contexts)}), got {len(continuations)}")
        scores = []
        for context, continuation in zip(contexts, continuations, strict=True):
            prefixes = [[*context, *continuation[:t]] for t in range(len(continuation))]
            rows = self.next_token_logprobs(prefixes)
            targets = torch.tensor(self._checked(continuation), dtype=torch.long)
            scores.append(rows.gather(1, targets[:, None])[:, 0])
        return scores

    def _checked(self, tokens: Sequence[int]) -> tuple[int, ...]:
        context = tuple(int(token) for token in tokens)
        for token in context:
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"expected token ids from 0 to {self.vocab_size - 1}, got {token}")
        return context


class TableModel(_ExactModel):
    """A model that looks its next-token probabilities up by the whole context.

    After a context that is not in the table the sequence ends with certainty.
    """

    def __init__(self, probabilities: Mapping[tuple[int, ...], Sequence[float]], eos_token_id: int):
        """Keep a row of `vocab` probabilities for each context."""
        table = {context: torch.tensor(row, dtype=torch.float64) for context, row in probabilities.items()}
        super().__init__(vocab_size=len(next(iter(table.values()))), eos_token_id=eos_token_id)
        self._logits = {context: row.log() for context, row in table.items()}
        self._end = torch.full((self.vocab_size,), -torch.inf, dtype=torch.float64)
        self._end[eos_token_id] = 0.0

    @classmethod
    def random(cls, vocab_size: int, depth: int, seed: int, eos_token_id: int = 0) -> "TableModel":
        """Draw a table for every unfinished context shorter than `depth`; at `depth` tokens the sequence ends."""
        generator = torch.Generator().manual_seed(seed)
        table: dict[tuple[int, ...], list[float]] = {}
        level: list[tuple[int, ...]] = [()]
        for _ in range(depth):
            for context in level:
                logits = 1.5 * torch.randn(vocab_size, generator=generator, dtype=torch.float64)
                table[context] = logits.softmax(-1).tolist()
            level = [(*c, token) for c in level for token in range(vocab_size) if token != eos_token_id]
        return cls(table, eos_token_id)

    def logits(self, context: tuple[int, ...]) -> Float[Tensor, "vocab"]:
        """Look the whole context up."""
        return self._logits.get(context, self._end)


class NgramModel(_ExactModel):
    """A model that looks only at the last `order - 1` tokens; it never has to end."""

    def __init__(self, vocab_size: int, order: int, seed: int, eos_token_id: int = 0):
        """Draw logits for every history of up to `order - 1` tokens."""
        super().__init__(vocab_size, eos_token_id)
        self.order = order
        shape = (vocab_size + 1,) * (order - 1) + (vocab_size,)  # index vocab_size stands for "before the start"
        generator = torch.Generator().manual_seed(seed)
        self._logits = 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)

    def logits(self, context: tuple[int, ...]) -> Float[Tensor, "vocab"]:
        """Look the last `order - 1` tokens up."""
        start = (self.vocab_size,) * (self.order - 1)
        history = (start + context)[len(context) :]
        return self._logits[history]


class PositionModel(_ExactModel):
    """A model whose logits depend on the last token and on its absolute position.

    Padding on the left that shifts positions changes its answers, which a model with relative positions would hide.
    """

    def __init__(self, vocab_size: int, max_length: int, seed: int, eos_token_id: int = 0):
        """Draw logits for every position up to `max_length` tokens."""
        super().__init__(vocab_size, eos_token_id)
        generator = torch.Generator().manual_seed(seed)
        shape = (max_length + 1, vocab_size + 1, vocab_size)
        self._logits = 1.5 * torch.randn(shape, generator=generator, dtype=torch.float64)

    def logits(self, context: tuple[int, ...]) -> Float[Tensor, "vocab"]:
        """Look position and last token up. Raises ValueError beyond the longest context."""
        if len(context) >= len(self._logits):
            raise ValueError(f"expected at most {len(self._logits) - 1} tokens of context, got {len(context)}")
        last = context[-1] if context else self.vocab_size
        return self._logits[len(context), last]


def enumerate_sequences(
    model: LanguageModel, max_tokens: int, context: Sequence[int] = ()
) -> dict[tuple[int, ...], float]:
    """Return P(continuation | context) of every way to go on that ends in the end token or at `max_tokens`.

    Continuations of probability zero are left out; the probabilities sum to one.
    """
    finished: dict[tuple[int, ...], float] = {}
    frontier: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(max_tokens):
        rows = model.next_token_logprobs([[*context, *continuation] for continuation in frontier]).exp()
        grown: dict[tuple[int, ...], float] = {}
        for (continuation, mass), row in zip(frontier.items(), rows.tolist(), strict=True):
            for token, probability in enumerate(row):
                if probability > 0:
                    target = finished if token == model.eos_token_id else grown
                    target[(*continuation, token)] = mass * probability
        frontier = grown
        if not frontier:
            break
    return finished | frontier
