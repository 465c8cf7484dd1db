"""A second correct solution of `budget`: recursion, products and log-factorials, plain loops."""

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from shared_tasks.models.engine import Engine, SamplingParams


@dataclass(frozen=True)
class Thought:
    """An answer and the thinking before it."""

    thinking: str
    thinking_tokens: int
    answer: str


def _changed(params: SamplingParams, **changes: object) -> SamplingParams:
    settings = {name: getattr(params, name) for name in params.__struct_fields__}
    return SamplingParams(**{**settings, **changes})


def force_budget(
    model: Engine,
    x: str,
    end_of_thinking: str,
    continuation: str,
    *,
    min_tokens: int,
    max_tokens: int,
    params: SamplingParams,
) -> Thought:
    """Keep the text so far, prompt included, and cut the prompt off at the end."""
    if min_tokens < 0 or min_tokens > max_tokens or max_tokens == 0:
        raise ValueError("no such budget")
    text, left = x, max_tokens
    over = False
    while not over:
        settings = _changed(params, n=1, stop=(end_of_thinking,), max_tokens=left)
        completion = model.generate([text], [settings])[0].completions[0]
        left -= len(completion.token_ids)
        text += completion.text
        over = completion.finish_reason != "stop" or max_tokens - left >= min_tokens
        if not over:
            text += continuation
    answer = model.generate((text + end_of_thinking,), _changed(params, n=1))[0].completions[0].text
    return Thought(text[len(x) :], max_tokens - left, answer)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Multiply the chances of k wrong draws in a row."""
    if c < 0 or c > n or k < 1 or k > n:
        raise ValueError("the numbers do not fit")
    wrong = 1.0
    for i in range(k):
        wrong *= max(n - c - i, 0) / (n - i)
    return 1 - wrong


def majority_at_k(answers: Sequence[str | None], correct: str, k: int) -> float:
    """Multiply polynomials: the coefficient of z^j counts subsets of j samples; one factor per answer."""
    n = len(answers)
    if k < 1 or k > n:
        raise ValueError("the numbers do not fit")
    counts: dict[str | None, int] = {}
    for answer in answers:
        counts[answer] = counts.get(answer, 0) + 1
    silent, right = counts.pop(None, 0), counts.pop(correct, 0)
    total = 0.0
    for votes in range(1, min(right, k) + 1):
        table = [[0] * (k + 1) for _ in range(len(counts) + 2)]  # [others that lead too][samples drawn]
        table[0][votes] = math.comb(right, votes)
        for count in counts.values():
            new = [[0] * (k + 1) for _ in table]
            for leaders, drawn, more in itertools.product(
                range(len(table)), range(k + 1), range(min(count, votes) + 1)
            ):
                if table[leaders][drawn] and drawn + more <= k:
                    new[leaders + int(more == votes)][drawn + more] += table[leaders][drawn] * math.comb(count, more)
            table = new
        for leaders, row in enumerate(table):
            subsets = sum(row[drawn] * math.comb(silent, k - drawn) for drawn in range(k + 1))
            total += subsets / (leaders + 1) / math.comb(n, k)
    return total


@dataclass(frozen=True)
class Option:
    """A model to sample from."""

    cost_per_token: int
    tokens_per_sample: int
    solve_rates: list[float]


@dataclass(frozen=True)
class Choice:
    """What to spend a budget on."""

    option: int
    samples: int
    solved: float


def compute_optimal(options: Sequence[Option], budget: int) -> Choice:
    """Keep the best so far."""
    best = None
    for i in range(len(options)):
        price = options[i].cost_per_token * options[i].tokens_per_sample
        samples = int(budget // price)
        missed = [math.prod([1 - rate] * samples) for rate in options[i].solve_rates]
        solved = 1 - sum(missed) / len(missed)
        if price <= budget and (best is None or solved >= best.solved):
            best = Choice(i, samples, solved)
    if best is None:
        raise ValueError("too little")
    return best


def weighted_vote(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    """Sort the answers by their sums."""
    pairs = list(zip(answers, scores, strict=True))
    given = {answer for answer in answers if answer is not None}
    sums = sorted((math.fsum(s for a, s in pairs if a == answer), answer) for answer in given)
    return sums[-1][1] if sums else None


@dataclass(frozen=True)
class Verified:
    """What came of a search for an answer that a verifier accepts."""

    text: str | None
    samples: int


def sample_until_verified(
    model: Engine,
    x: str,
    verify: Callable[[str, str], bool],
    *,
    max_samples: int,
    batch_size: int,
    params: SamplingParams,
) -> Verified:
    """Keep all verdicts in a table."""
    if not (max_samples > 0 and batch_size > 0):
        raise ValueError("nothing to draw")
    verdicts: dict[str, bool] = {}
    for start in range(0, max_samples, batch_size):
        size = batch_size if start + batch_size <= max_samples else max_samples - start
        changes = {"n": size} if params.seed is None else {"n": size, "seed": params.seed + start}
        for completion in model.generate([x], _changed(params, **changes))[0].completions:
            if completion.text not in verdicts:
                verdicts[completion.text] = bool(verify(x, completion.text))
            if verdicts[completion.text]:
                return Verified(completion.text, start + size)
    return Verified(None, max_samples)


@dataclass(frozen=True)
class Example:
    """A sequence to train on."""

    input_ids: list[int]
    labels: list[int]


def rejection_sampling_data(
    model: Engine,
    prompts: Sequence[str],
    encode: Callable[[str], list[int]],
    verify: Callable[[str, str], bool],
    *,
    n: int,
    max_per_prompt: int,
    held_out: Collection[str],
    params: SamplingParams,
) -> list[Example]:
    """Stop verifying a prompt's completions once the cap is reached."""
    wanted: list[str] = []
    for prompt in prompts:
        if prompt not in wanted and prompt not in set(held_out):
            wanted.append(prompt)
    if not wanted:
        return []
    examples = []
    generations = model.generate(wanted, [_changed(params, n=n) for _ in wanted])
    for i, prompt in enumerate(wanted):
        kept: list[str] = []
        for completion in generations[i].completions:
            if len(kept) == max_per_prompt:
                break
            if completion.finish_reason == "length" or completion.text in kept or not verify(prompt, completion.text):
                continue
            kept.append(completion.text)
            prompt_ids = list(encode(prompt))
            ids = prompt_ids + list(completion.token_ids)
            examples.append(Example(ids, [-100 if i < len(prompt_ids) else token for i, token in enumerate(ids)]))
    return examples
