"""Self-consistency: reasoning is a latent variable, and an answer is as good as all the reasoning that leads to it.

No function changes its arguments.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import msgspec
from shared_tasks.models.engine import Completion, Engine, SamplingParams



NUMBER = re.compile(r"(?:\$?[+-]?|[+-]\$)((?:[0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.[0-9]+)?|\.[0-9]+)")
FRACTION = re.compile(r"([+-]?[0-9]+)/([+-]?[0-9]+)")


def chain_of_thought_prompt(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Return a prompt that makes a model reason before it answers.

    It holds the question and the worked answer of each example, in order, then `question`, each once and as given. Even
    without examples it asks for reasoning and for an answer behind `####`. Which words it uses besides is left open.

    Paper: Wei et al., 2022, https://arxiv.org/abs/2201.11903.
    """
    parts = ["Think step by step, and write your reasoning down. Put the final answer behind #### on a last line."]
    parts += [f"Question: {asked}\nAnswer: {worked}" for asked, worked in examples]
    parts.append(f"Question: {question}\nAnswer:")
    return "\n\n".join(parts)


def extract_answer(text: str) -> str | None:
    """Return what stands behind the last `####` of a text, to the end of its line, without white space around it.

    Returns None where there is no `####`, and where nothing stands behind the last one on its line.
    """
    _, marker, rest = text.rpartition("####")
    answer = rest.split("\n")[0].strip()
    return answer if marker and answer else None


def canonical_answer(answer: str) -> str:
    """Return the one form that all ways to write the same answer share, so that they vote together.

    White space around the answer and then one full stop at its end are dropped. A number, with a dollar sign in front
    or not, a sign or not, commas between thousands or not, and decimals or not, becomes an integer or a reduced
    fraction, like `-7/2`; so does a fraction of two integers, unless it divides by zero. Everything else becomes lower
    case, with every run of white space as one space.
    """
    answer = answer.strip().removesuffix(".").rstrip()
    try:
        if NUMBER.fullmatch(answer):
            return str(Fraction(answer.replace("$", "").replace(",", "")))
        if fraction := FRACTION.fullmatch(answer):
            return str(Fraction(int(fraction[1]), int(fraction[2])))
    except (ZeroDivisionError, ValueError):
        pass  # a fraction of zero, or more digits than Python converts: a text like any other
    return " ".join(answer.lower().split())


def answer_distribution(
    completions: Sequence[Completion], extract: Callable[[str], str | None], weighted: bool
) -> dict[str, float]:
    """Estimate P(answer | prompt), the sum over all reasoning that leads to the answer, from sampled completions.

    `extract` takes the answer out of a text, or returns None; completions without an answer are left out. Unweighted,
    an answer has the share of completions that give it. Weighted, it has the share of the probability of the different
    texts that give it: a text counts once, however often it was drawn, with the probability that its log-probability
    says (equal texts have equal ones). The shares sum to one; without any answer there are none.

    Paper: Wang et al., 2022, https://arxiv.org/abs/2203.11171.
    """
    answered = [(y, answer) for y in completions if (answer := extract(y.text)) is not None]
    if not answered:
        return {}
    masses: dict[str, float] = {}
    if weighted:
        different = {y.text: (y.cumulative_logprob, answer) for y, answer in answered}
        largest = max(logprob for logprob, _ in different.values())
        for logprob, answer in different.values():
            masses[answer] = masses.get(answer, 0.0) + math.exp(logprob - largest)
    else:
        masses = Counter(answer for _, answer in answered)
    total = sum(masses.values())
    return {answer: mass / total for answer, mass in masses.items()}


@dataclass(frozen=True)
class Vote:
    """The outcome of a vote among samples."""

    answer: str | None
    """The most frequent answer, of equally frequent ones the first that was drawn; None where no sample has one."""
    counts: dict[str, int]
    """How many samples gave each answer; samples without an answer are not among them."""
    samples: int
    """How many samples were drawn, those without an answer too."""


def self_consistency(
    model: Engine, prompt: str, extract: Callable[[str], str | None], n: int, params: SamplingParams
) -> Vote:
    """Draw n completions of a prompt and let their answers vote.

    All samples come from one request of one `model.generate` call: `params` with this n. `extract` is as in
    `answer_distribution`.

    Paper: Wang et al., 2022, https://arxiv.org/abs/2203.11171.
    """
    return adaptive_self_consistency(model, prompt, extract, n, n, params)


def is_decided(counts: Mapping[str, int], remaining: int) -> bool:
    """Say whether one answer leads by more votes than remain, so that no other can draw level, not even a new one."""
    first, second, *_ = sorted([*counts.values(), 0, 0], reverse=True)
    return first - second > remaining


def adaptive_self_consistency(
    model: Engine, prompt: str, extract: Callable[[str], str | None], n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Draw samples in batches until the vote among n samples is decided, as `is_decided` says, or all n are drawn.

    Each batch is one request of one `model.generate` call, for `batch_size` samples or those that are left of n. If
    `params` has a seed, a batch that begins with sample i, counted from 0, has seed + i, so that the samples are those
    of one request. Raises ValueError unless n >= 1 and batch_size >= 1.

    Paper: Aggarwal et al., 2023, https://arxiv.org/abs/2305.11860.
    """
    if n < 1 or batch_size < 1:
        raise ValueError(f"expected n and batch_size of at least 1, got {n} and {batch_size}")
    counts: Counter[str] = Counter()
    drawn = 0
    while drawn < n and not is_decided(counts, n - drawn):
        seed = None if params.seed is None else params.seed + drawn
        batch = msgspec.structs.replace(params, n=min(batch_size, n - drawn), seed=seed)
        [generation] = model.generate([prompt], batch)
        answers = [extract(y.text) for y in generation.completions]
        counts.update(answer for answer in answers if answer is not None)
        drawn += batch.n
    return Vote(max(counts, key=counts.__getitem__, default=None), dict(counts), drawn)
