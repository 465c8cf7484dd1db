"""Budgets: how much to think, how many samples to draw, of which model, and what to learn from them.

No function changes its arguments.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

import msgspec

from shared_tasks.models.engine import Completion, Engine, SamplingParams


@dataclass(frozen=True)
class Thought:
    """An answer and the thinking before it."""

    thinking: str
    """All that stands between the prompt and the end of thinking, forced continuations too."""
    thinking_tokens: int
    """How many tokens the model generated for it; what was forced on it is not counted."""
    answer: str


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
    """Let a model think for at least `min_tokens` and at most `max_tokens` tokens, then answer.

    While it thinks, the model is asked to continue `x` and all of its thinking so far, with `end_of_thinking` as the
    only stop string and what is left of `max_tokens`. Every token that it generates counts, those of a stop string
    too. If it stops before it has generated `min_tokens`, `continuation` is appended to its thinking and it goes on;
    otherwise, or when it is cut off, thinking is over. Then it is asked once more, with `params`, to continue `x`, the
    thinking and `end_of_thinking`: that is its answer. One sample a request (n = 1), one request a call; other
    parameters are those of `params`. Raises ValueError unless 0 <= min_tokens <= max_tokens and max_tokens >= 1.

    Paper: Muennighoff et al., 2025, https://arxiv.org/abs/2501.19393.
    """
    if not 0 <= min_tokens <= max_tokens or max_tokens < 1:
        raise ValueError(f"expected 0 <= min_tokens <= max_tokens and 1 <= max_tokens, got {min_tokens}, {max_tokens}")
    thinking, tokens = "", 0
    while True:
        budget = msgspec.structs.replace(params, n=1, stop=(end_of_thinking,), max_tokens=max_tokens - tokens)
        (generation,) = model.generate([x + thinking], budget)
        (completion,) = generation.completions
        thinking += completion.text
        tokens += generation.generated_tokens  # which a server that hides its token ids counts too
        if completion.finish_reason == "length" or tokens >= min_tokens:
            break
        thinking += continuation
    (generation,) = model.generate([x + thinking + end_of_thinking], msgspec.structs.replace(params, n=1))
    return Thought(thinking, tokens, generation.completions[0].text)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate without bias the probability that at least one of k samples is correct, when c of n samples were.

    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.

    Paper: Chen et al., 2021, https://arxiv.org/abs/2107.03374.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"expected 0 <= c <= n and 1 <= k <= n, got n = {n}, c = {c}, k = {k}")
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def majority_at_k(answers: Sequence[str | None], correct: str, k: int) -> float:
    """Return the probability that a vote of k of the n answers, drawn without replacement, has the correct outcome.

    None is a sample without an answer: it may be drawn, but has no vote. Of t answers that lead together each wins with
    probability 1 / t; a vote without any answer is lost. Exact, and in time polynomial in n. Raises ValueError unless
    1 <= k <= n.
    """
    n = len(answers)
    if not 1 <= k <= n:
        raise ValueError(f"expected 1 <= k <= n, got k = {k}, n = {n}")
    counts = Counter(answers)
    silent, right = counts.pop(None, 0), counts.pop(correct, 0)
    won = Fraction(0)
    for votes in range(1, min(right, k) + 1):
        ways = {(votes, 1): math.comb(right, votes)}  # (drawn so far, answers that lead) -> number of subsets
        for count in counts.values():
            grown: Counter[tuple[int, int]] = Counter()
            for (drawn, leaders), number in ways.items():
                for more in range(min(count, votes, k - drawn) + 1):
                    grown[drawn + more, leaders + (more == votes)] += number * math.comb(count, more)
            ways = dict(grown)
        won += sum(
            Fraction(number * math.comb(silent, k - drawn), leaders) for (drawn, leaders), number in ways.items()
        )
    return float(won / math.comb(n, k))


@dataclass(frozen=True)
class Option:
    """A model to sample from."""

    cost_per_token: int
    """For instance twice its parameters, the FLOPs of a forward pass."""
    tokens_per_sample: int
    solve_rates: list[float]
    """Per problem, the probability that one sample is correct."""


@dataclass(frozen=True)
class Choice:
    """What to spend a budget on."""

    option: int
    """The index of the model."""
    samples: int
    """How many samples of each problem."""
    solved: float
    """The expected share of problems that are solved."""


def compute_optimal(options: Sequence[Option], budget: int) -> Choice:
    """Choose between larger models and more samples: the option that solves most for `budget` a problem.

    All of an option's budget goes into as many whole samples of a problem as it pays for. A perfect verifier picks a
    correct sample where there is one, and samples are independent, so a problem is solved unless all of them are wrong.
    Options that cannot pay for one sample are left out. Between equally good options the choice is left open. Raises
    ValueError when no option can pay for a sample.

    Papers: Snell et al., 2024, https://arxiv.org/abs/2408.03314; Brown et al., 2024, https://arxiv.org/abs/2407.21787.
    """
    choices = []
    for index, option in enumerate(options):
        samples = budget // (option.cost_per_token * option.tokens_per_sample)
        if samples >= 1:
            solved = sum(1 - (1 - rate) ** samples for rate in option.solve_rates) / len(option.solve_rates)
            choices.append(Choice(index, samples, solved))
    if not choices:
        raise ValueError(f"expected a budget that pays for one sample of some option, got {budget}")
    return max(choices, key=lambda choice: choice.solved)


def weighted_vote(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    """Return the answer whose samples have the highest sum of a verifier's scores, all of them at least 0.

    None is a sample without an answer; it is never the outcome of a vote in which there is an answer. Which of equally
    high sums wins is left open. Raises ValueError unless there are as many scores as answers.

    Paper: Li et al., 2023, https://arxiv.org/abs/2206.02336.
    """
    if len(answers) != len(scores):
        raise ValueError(f"expected a score for each of {len(answers)} answers, got {len(scores)}")
    sums: dict[str, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            sums[answer] = sums.get(answer, 0.0) + score
    return max(sums, key=sums.__getitem__, default=None)


@dataclass(frozen=True)
class Verified:
    """What came of a search for an answer that a verifier accepts."""

    text: str | None
    """The first text that was accepted, in the order of drawing; None if there was none."""
    samples: int
    """How many samples were drawn."""


def sample_until_verified(
    model: Engine,
    x: str,
    verify: Callable[[str, str], bool],
    *,
    max_samples: int,
    batch_size: int,
    params: SamplingParams,
) -> Verified:
    """Draw completions of `x` until an external verifier accepts one, or `max_samples` are drawn.

    Samples come in batches: one request of one `model.generate` call for `batch_size` samples, or those that are left
    of `max_samples`. If `params` has a seed, a batch that begins with sample i, counted from 0, has seed + i.
    `verify(x, text)` is asked about the texts in order, about every different text once, and not after it has accepted
    one. Raises ValueError unless max_samples >= 1 and batch_size >= 1.
    """
    if max_samples < 1 or batch_size < 1:
        raise ValueError(f"expected at least one sample and one a batch, got {max_samples} and {batch_size}")
    rejected: set[str] = set()
    drawn = 0
    while drawn < max_samples:
        size = min(batch_size, max_samples - drawn)
        seed = None if params.seed is None else params.seed + drawn
        (generation,) = model.generate([x], msgspec.structs.replace(params, n=size, seed=seed))
        drawn += size
        for completion in generation.completions:
            if completion.text not in rejected:
                if verify(x, completion.text):
                    return Verified(completion.text, drawn)
                rejected.add(completion.text)
    return Verified(None, drawn)


@dataclass(frozen=True)
class Example:
    """A sequence to train on."""

    input_ids: list[int]
    """The prompt's tokens, then the completion's."""
    labels: list[int]
    """The same tokens, but -100, which losses pass over, for those of the prompt."""


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
    """Sample solutions, keep those that are right, and return them as data to fine-tune on.

    Prompts that are in `held_out` are left out, and of equal prompts all but the first. One `model.generate` call draws
    n completions of every prompt that is left. A completion is kept if it came to its end (finish_reason "stop"), its
    text was not kept for this prompt before, and `verify(prompt, text)` accepts it; of each prompt the first
    `max_per_prompt` of these. Examples are in the order of the prompts, then of drawing; `encode` gives the tokens of a
    prompt, the completion brings its own. No call is made without prompts.

    Papers: Zelikman et al., 2022, https://arxiv.org/abs/2203.14465; Yuan et al., 2023,
    https://arxiv.org/abs/2308.01825.
    """
    chosen = [prompt for prompt in dict.fromkeys(prompts) if prompt not in held_out]
    generations = model.generate(chosen, msgspec.structs.replace(params, n=n)) if chosen else []
    examples = []
    for prompt, generation in zip(chosen, generations, strict=True):
        ids = encode(prompt)
        different: dict[str, Completion] = {}
        for completion in generation.completions:
            if completion.finish_reason == "stop":
                different.setdefault(completion.text, completion)
        right = [completion for completion in different.values() if verify(prompt, completion.text)]
        examples += [
            Example(ids + completion.token_ids, [-100] * len(ids) + completion.token_ids)
            for completion in right[:max_per_prompt]
        ]
    return examples
