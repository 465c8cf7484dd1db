"""A second correct solution of hw1.best_first: open lists that are searched, and a recursion."""

import math
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel

Heuristic = Callable[[Sequence[Sequence[int]]], Float[Tensor, "batch"]]


def uniform_cost_search(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> tuple[list[int], float]:
    """Look the most probable of a dict of continuations up at every step."""
    if max_tokens <= 0:
        raise ValueError("max_tokens must be positive")
    logprobs: dict[tuple[int, ...], float] = {(): 0.0}
    while True:
        y = max(logprobs, key=lambda continuation: logprobs[continuation])
        if len(y) == max_tokens or model.eos_token_id in y:
            return list(y), logprobs[y]
        total = logprobs.pop(y)
        row = model.next_token_logprobs([list(x) + list(y)]).float().squeeze(0)
        logprobs |= {(*y, token): total + float(value) for token, value in enumerate(row)}


def a_star_search(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int, heuristic: Heuristic
) -> tuple[list[int], float]:
    """Ask the heuristic when a continuation is added to an unsorted list, the empty one included."""
    if max_tokens <= 0:
        raise ValueError("max_tokens must be positive")

    def estimate(y: tuple[int, ...]) -> float:
        if len(y) == max_tokens or y[-1:] == (model.eos_token_id,):
            return 0.0
        return float(heuristic([[*x, *y]])[0])

    frontier = [(estimate(()), (), 0.0)]
    while True:
        frontier.sort(key=lambda entry: entry[0])
        _, y, total = frontier.pop()
        if len(y) == max_tokens or y[-1:] == (model.eos_token_id,):
            return list(y), total
        for token, value in enumerate(model.next_token_logprobs([[*x, *y]])[0].tolist()):
            if value > -math.inf:
                child = (*y, token)
                frontier.append((total + value + estimate(child), child, total + value))


def best_first_beam_search(
    model: LanguageModel, x: Sequence[int], *, num_beams: int, max_tokens: int, length_penalty: float = 0.0
) -> tuple[list[int], float]:
    """Keep a sorted list and stop at the first continuation that is not worth to be taken."""
    if num_beams <= 0 or max_tokens <= 0 or length_penalty < 0:
        raise ValueError("out of range")
    queue: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    taken = [0] * (max_tokens + 1)
    incomplete = [0] * (max_tokens + 1)
    hypotheses: list[tuple[float, tuple[int, ...], float]] = []
    while queue:
        queue.sort()
        total, y = queue.pop()
        if hypotheses and total * max_tokens**-length_penalty <= max(hypotheses)[0]:
            break
        n = len(y)
        taken[n] += 1
        if n == max_tokens or y[-1:] == (model.eos_token_id,):
            if taken[n] <= num_beams:
                hypotheses.append((total * n**-length_penalty, y, total))
            continue
        incomplete[n] += 1
        if incomplete[n] > num_beams:
            continue
        row = model.next_token_logprobs([list(x) + list(y)])[0].tolist()
        queue += [(total + value, (*y, token)) for token, value in enumerate(row) if value > -math.inf]
    _, y, total = max(hypotheses)
    return list(y), total


def exact_search(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int, length_penalty: float = 0.0
) -> tuple[list[int], float]:
    """Recur, and look at the end token before all others."""
    if max_tokens <= 0 or length_penalty < 0:
        raise ValueError("out of range")
    best: tuple[float, list[int], float] = (-math.inf, [], -math.inf)

    def visit(y: list[int], total: float) -> None:
        nonlocal best
        if len(y) == max_tokens or y[-1:] == [model.eos_token_id]:
            best = max(best, (total / len(y) ** length_penalty, y, total))
        elif total / max_tokens**length_penalty > best[0]:
            row = model.next_token_logprobs([[*x, *y]])[0].tolist()
            end = model.eos_token_id
            for token in sorted(range(len(row)), key=lambda v: (v != end, -row[v])):
                if row[token] > -math.inf:
                    visit([*y, token], total + row[token])

    visit([], 0.0)
    return best[1], best[2]
