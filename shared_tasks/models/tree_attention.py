"""Several continuations of one context in one sequence that the model runs once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(slots=True)
class Question:
    """A context and the continuations to be scored after it; `indices` say whose they are."""

    context: tuple[int, ...]
    continuations: list[list[int]]
    indices: list[int]

    @property
    def predictions(self) -> int:
        """Return how many tokens are scored."""
        return sum(map(len, self.continuations))

    @property
    def length(self) -> int:
        """Return how many positions run: the last token of a continuation need not."""
        return len(self.context) + self.predictions - len(self.continuations)


@dataclass(slots=True)
class PackedQuestions:
    """A batch of questions as one input of a model (Miao et al. 2024, tree attention).

    The continuations stand behind their context one after the other, at the positions that each would have alone.
    """

    ids: Int[Tensor, "batch length"]
    positions: Int[Tensor, "batch length"]
    branches: Int[Tensor, "batch length"]
    """0 in the context, i in continuation i, -1 in padding."""
    rows: Int[Tensor, "predictions"]
    columns: Int[Tensor, "predictions"]
    """Where each scored token is predicted, in the order of questions, continuations and tokens."""
    targets: Int[Tensor, "predictions"]

    def visible(self) -> Bool[Tensor, "batch length length"]:
        """Return which column (last axis) each column sees: what comes before it in context and own continuation."""
        length = self.ids.shape[1]
        seen, seeing = self.branches[:, None, :], self.branches[:, :, None]
        return ((seen == 0) | (seen == seeing)) & torch.ones(length, length, dtype=torch.bool).tril()


def pack(questions: Sequence[Question]) -> PackedQuestions:
    """Lay questions out as one batch."""
    ids, positions, branches = ([] for _ in range(3))
    predictions: list[tuple[int, int, int]] = []
    for row, question in enumerate(questions):
        start = len(question.context)
        row_ids = list(question.context)
        row_positions = list(range(start))
        row_branches = [0] * start
        for number, continuation in enumerate(question.continuations, start=1):
            run = continuation[:-1]
            columns = [start - 1, *range(len(row_ids), len(row_ids) + len(run))]
            predictions += [(row, column, token) for column, token in zip(columns, continuation, strict=True)]
            row_ids += run
            row_positions += range(start, start + len(run))
            row_branches += [number] * len(run)
        ids.append(row_ids)
        positions.append(row_positions)
        branches.append(row_branches)
    length = max(map(len, ids))
    rows, columns, targets = torch.tensor(predictions).T
    return PackedQuestions(
        _padded(ids, length, 0), _padded(positions, length, 0), _padded(branches, length, -1), rows, columns, targets
    )


def _padded(rows: list[list[int]], length: int, value: int) -> Int[Tensor, "batch length"]:
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])
