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

_NUMBER = re.compile(r"\$?([+-]?)(\d+|\d{1,3}(?:,\d{3})+)?(\.\d+)?")
_FRACTION = re.compile(r"[+-]?\d+/\d+")


def chain_of_thought_prompt(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Return a prompt that makes a model reason before it answers.

    It holds the question and the worked answer of each example, in order, then `question`, each once and as given. Even
    without examples it asks for reasoning and for an answer behind `####`. Which words it uses besides is left open.

    Paper: Wei et al., 2022, https://arxiv.org/abs/2201.11903.
    """
    instruction = "Reason step by step, then give the answer after ####."
    shots = [f"Question: {asked}\nAnswer: {worked}" for asked, worked in examples]
    return "\n\n".join([instruction, *shots, f"Question: {question}\nAnswer:"])


def extract_answer(text: str) -> str | None:
    """Return what stands behind the last `####` of a text, to the end of its line, without white space around it.

    Returns None where there is no `####`, and where nothing stands behind the last one on its line.
    """
    _, marker, behind = text.rpartition("####")
    line = behind.split("\n")[0].strip()
    return line if marker and line else None


def canonical_answer(answer: str) -> str:
    """Return the one form that all ways to write the same answer share, so that they vote together.

    White space around the answer and then one full stop at its end are dropped. A number, with a dollar sign in front
    or not, a sign or not, commas between thousands or not, and decimals or not, becomes an integer or a reduced
    fraction, like `-7/2`; so does a fraction of two integers, unless it divides by zero. Everything else becomes lower
    case, with every run of white space as one space.
    """
    answer = answer.strip().removesuffix(".").rstrip()
    number = _NUMBER.fullmatch(answer)
    if number and (number[2] or number[3]):
        return str(Fraction(number[1] + (number[2] or "0").replace(",", "") + (number[3] or "")))
    if _FRACTION.fullmatch(answer) and int(answer.split("/")[1]):
        return str(Fraction(answer))
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
    if weighted:
        completions = list({completion.text: completion for completion in completions}.values())
    answers = [extract(completion.text) for completion in completions]
    answered = [(a, c) for a, c in zip(answers, completions, strict=True) if a is not None]
    logs = [completion.cumulative_logprob if weighted else 0.0 for _, completion in answered]
    masses: dict[str, float] = {}
    for (answer, _), log in zip(answered, logs, strict=True):
        masses[answer] = masses.get(answer, 0.0) + math.exp(log - max(logs))
    return {answer: mass / sum(masses.values()) for answer, mass in masses.items()}


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
    first, second, *_ = [*sorted(counts.values(), reverse=True), 0, 0]
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
        raise ValueError(f"expected at least one sample and one a batch, got n = {n}, batch_size = {batch_size}")
    counts: Counter[str] = Counter()
    drawn = 0
    while drawn < n and not is_decided(counts, n - drawn):
        size = min(batch_size, n - drawn)
        seed = None if params.seed is None else params.seed + drawn
        (generation,) = model.generate([prompt], msgspec.structs.replace(params, n=size, seed=seed))
        answers = [extract(completion.text) for completion in generation.completions]
        counts.update(answer for answer in answers if answer is not None)
        drawn += size
    return Vote(max(counts, key=counts.__getitem__, default=None), dict(counts), drawn)
