"""Plausible wrong solutions of hw2.self_consistency: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import msgspec

from grader.reference.hw2 import self_consistency as reference
from grader.reference.hw2.self_consistency import Vote
from shared_tasks.models.engine import Completion, Engine, SamplingParams

Extract = Callable[[str], str | None]


def chain_of_thought_prompt__question_first(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Puts the question before the examples."""
    return question + "\n" + reference.chain_of_thought_prompt("", examples)


def chain_of_thought_prompt__without_marker(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Leaves the marker to the examples."""
    return "\n\n".join([*(f"{asked}\n{worked}" for asked, worked in examples), question, "Let's think step by step."])


def chain_of_thought_prompt__answers_only(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Shows the answers of the examples without the reasoning."""
    return reference.chain_of_thought_prompt(question, [(q, "####" + a.split("####")[-1]) for q, a in examples])


def chain_of_thought_prompt__formats_twice(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Fills fields in that stand in the question and the examples."""
    template = reference.chain_of_thought_prompt("{question}", examples)
    for field in ("{question}", "{x}", "{}"):
        template = template.replace(field, question)
    return template


def chain_of_thought_prompt__zero_shot(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Ignores the examples."""
    return reference.chain_of_thought_prompt(question, [])


def chain_of_thought_prompt__reversed(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Shows the last example first."""
    return reference.chain_of_thought_prompt(question, list(examples)[::-1])


def extract_answer__first_marker(text: str) -> str | None:
    """Takes the first marker."""
    behind = text.partition("####")[2]
    return behind.split("\n")[0].strip() or None


def extract_answer__to_the_end_of_the_text(text: str) -> str | None:
    """Takes all lines behind the marker."""
    return (text.rpartition("####")[2].strip() or None) if "####" in text else None


def extract_answer__empty_text(text: str) -> str | None:
    """Returns an empty text where nothing stands behind the marker."""
    return text.rpartition("####")[2].split("\n")[0].strip() if "####" in text else None


def extract_answer__last_number(text: str) -> str | None:
    """Falls back to the last number of the text."""
    numbers = re.findall(r"-?\d+", text)
    return reference.extract_answer(text) or (numbers[-1] if numbers else None)


def extract_answer__next_line(text: str) -> str | None:
    """Strips before it takes the line."""
    behind = text.rpartition("####")[2].strip() if "####" in text else ""
    return behind.split("\n")[0].strip() or None


def extract_answer__number_only(text: str) -> str | None:
    """Takes a number behind the marker."""
    numbers = re.findall(r"#### *(-?[\d,.]+)", text)
    return numbers[-1] if numbers else None


def extract_answer__last_non_empty(text: str) -> str | None:
    """Goes back to a marker with something behind it."""
    lines = [part.split("\n")[0].strip() for part in text.split("####")[1:]]
    return next((line for line in reversed(lines) if line), None)


def canonical_answer__float(answer: str) -> str:
    """Goes through a float."""
    text = reference.canonical_answer(answer)
    try:
        number = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        return text
    return str(Fraction(number).limit_denominator(10**6))


def canonical_answer__keeps_decimals(answer: str) -> str:
    """Leaves 0.50 as it is."""
    text = answer.strip().removesuffix(".").lstrip("$").replace(",", "").lower()
    return " ".join(text.split())


def canonical_answer__all_commas(answer: str) -> str:
    """Removes every comma."""
    return reference.canonical_answer(answer.replace(",", ""))


def canonical_answer__case_kept(answer: str) -> str:
    """Keeps the case of other answers."""
    text = reference.canonical_answer(answer)
    plain = " ".join(answer.strip().removesuffix(".").split())
    return plain if plain.lower() == text else text


def canonical_answer__divides_by_zero(answer: str) -> str:
    """Reads 1/0 as a fraction."""
    stripped = answer.strip().removesuffix(".")
    return str(Fraction(stripped)) if re.fullmatch(r"-?\d+/\d+", stripped) else reference.canonical_answer(answer)


def canonical_answer__first_number(answer: str) -> str:
    """Takes the first number of any text."""
    found = re.search(r"[+-]?[\d,]*\.?\d+", answer)
    return reference.canonical_answer(found[0]) if found and "/" not in answer else reference.canonical_answer(answer)


def canonical_answer__all_stops(answer: str) -> str:
    """Strips every full stop at the end."""
    return reference.canonical_answer(answer.strip().rstrip("."))


def canonical_answer__fractions_not_reduced(answer: str) -> str:
    """Leaves fractions as text."""
    return " ".join(answer.lower().split()).removesuffix(".") if "/" in answer else reference.canonical_answer(answer)


def answer_distribution__none_counts(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Divides by all samples."""
    shares = reference.answer_distribution(completions, lambda text: extract(text) or "", weighted)
    return {answer: share for answer, share in shares.items() if answer}


def answer_distribution__duplicates_weigh_twice(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Adds the probability of a text once per draw."""
    unique = [msgspec.structs.replace(c, text=f"{i} {c.text}") for i, c in enumerate(completions)]
    return reference.answer_distribution(unique, extract, weighted)


def answer_distribution__duplicates_dropped(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Counts different texts without weights too."""
    return reference.answer_distribution(list({c.text: c for c in completions}.values()), extract, weighted)


def answer_distribution__always_weighted(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Ignores the flag."""
    return reference.answer_distribution(completions, extract, True)


def answer_distribution__never_weighted(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Ignores the flag, the other way."""
    return reference.answer_distribution(completions, extract, False)


def answer_distribution__mean_logprob(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Weighs by the probability of a mean token."""
    scaled = [msgspec.structs.replace(c, logprobs=[sum(c.logprobs) / len(c.logprobs)]) for c in completions]
    return reference.answer_distribution(scaled, extract, weighted)


def answer_distribution__underflows(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Exponentiates before it normalises."""
    if not weighted:
        return reference.answer_distribution(completions, extract, weighted)
    masses: dict[str, float] = {}
    for text, completion in {c.text: c for c in completions}.items():
        answer = extract(text)
        if answer is not None:
            masses[answer] = masses.get(answer, 0.0) + math.exp(completion.cumulative_logprob)
    return {answer: mass / sum(masses.values()) for answer, mass in masses.items()}


def answer_distribution__best_reasoning_only(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Takes the most probable reasoning of each answer instead of the sum."""
    if not weighted:
        return reference.answer_distribution(completions, extract, weighted)
    best: dict[str, Completion] = {}
    for completion in sorted(completions, key=lambda c: c.cumulative_logprob):
        answer = extract(completion.text)
        if answer is not None:
            best[answer] = completion
    return reference.answer_distribution(list(best.values()), extract, weighted)


def answer_distribution__division_by_zero(
    completions: Sequence[Completion], extract: Extract, weighted: bool
) -> dict[str, float]:
    """Returns None with a share where no sample has an answer."""
    shares = reference.answer_distribution(completions, extract, weighted)
    return shares or {None: 1.0}  # type: ignore[dict-item]


def self_consistency__none_votes(model: Engine, prompt: str, extract: Extract, n: int, params: SamplingParams) -> Vote:
    """Lets samples without an answer win."""
    (generation,) = model.generate([prompt], msgspec.structs.replace(params, n=n))
    counts = Counter(extract(completion.text) for completion in generation.completions)
    winner = counts.most_common(1)[0][0]
    return Vote(winner, {a: c for a, c in counts.items() if a is not None}, n)


def self_consistency__n_requests(model: Engine, prompt: str, extract: Extract, n: int, params: SamplingParams) -> Vote:
    """Repeats the prompt n times in one call."""
    generations = model.generate([prompt] * n, msgspec.structs.replace(params, n=1))
    counts = Counter(a for g in generations if (a := extract(g.completions[0].text)) is not None)
    return Vote(max(counts, key=counts.__getitem__, default=None), dict(counts), n)


def self_consistency__parameters_lost(
    model: Engine, prompt: str, extract: Extract, n: int, params: SamplingParams
) -> Vote:
    """Makes parameters of its own."""
    return reference.self_consistency(model, prompt, extract, n, SamplingParams(max_tokens=params.max_tokens))


def self_consistency__ties_by_alphabet(
    model: Engine, prompt: str, extract: Extract, n: int, params: SamplingParams
) -> Vote:
    """Breaks ties in sorted order."""
    vote = reference.self_consistency(model, prompt, extract, n, params)
    return Vote(min(vote.counts, key=lambda a: (-vote.counts[a], a), default=None), vote.counts, n)


def self_consistency__last_drawn_wins(
    model: Engine, prompt: str, extract: Extract, n: int, params: SamplingParams
) -> Vote:
    """Breaks ties in favour of the last."""
    vote = reference.self_consistency(model, prompt, extract, n, params)
    winner = max(reversed(list(vote.counts)), key=vote.counts.__getitem__, default=None)
    return Vote(winner, vote.counts, n)


def self_consistency__samples_with_answer(
    model: Engine, prompt: str, extract: Extract, n: int, params: SamplingParams
) -> Vote:
    """Counts only samples with an answer as drawn."""
    vote = reference.self_consistency(model, prompt, extract, n, params)
    return Vote(vote.answer, vote.counts, sum(vote.counts.values()))


def is_decided__draw_is_enough(counts: Mapping[str, int], remaining: int) -> bool:
    """Takes a possible draw for decided."""
    first, second, *_ = [*sorted(counts.values(), reverse=True), 0, 0]
    return first > 0 and first - second >= remaining


def is_decided__absolute_majority(counts: Mapping[str, int], remaining: int) -> bool:
    """Waits for more than half of all samples."""
    return max(counts.values(), default=0) > (sum(counts.values()) + remaining) / 2


def is_decided__runner_up_only(counts: Mapping[str, int], remaining: int) -> bool:
    """Forgets that a new answer may come."""
    ranked = sorted(counts.values(), reverse=True)
    return len(ranked) == 1 or (len(ranked) > 1 and ranked[0] - ranked[1] > remaining)


def is_decided__against_all_others(counts: Mapping[str, int], remaining: int) -> bool:
    """Compares the leader with all others together."""
    first = max(counts.values(), default=0)
    return first - (sum(counts.values()) - first) > remaining


def is_decided__first_listed_leads(counts: Mapping[str, int], remaining: int) -> bool:
    """Takes the first answer for the leader."""
    first, *others = [*counts.values(), 0]
    return first - max(others, default=0) > remaining


def _adaptive(
    model: Engine, prompt: str, extract: Extract, n: int, batch_size: int, params: SamplingParams,
    left: Callable[[int], int], seeds: int = 1, exact: bool = True,
) -> Vote:  # fmt: skip
    if n < 1 or batch_size < 1:
        raise ValueError("nothing to draw")
    counts: Counter[str] = Counter()
    drawn = 0
    while drawn < n and not reference.is_decided(counts, left(drawn)):
        size = min(batch_size, n - drawn) if exact else batch_size
        seed = None if params.seed is None else params.seed + drawn * seeds
        (generation,) = model.generate([prompt], msgspec.structs.replace(params, n=size, seed=seed))
        counts.update(a for c in generation.completions if (a := extract(c.text)) is not None)
        drawn += size
    return Vote(max(counts, key=counts.__getitem__, default=None), dict(counts), drawn)


def adaptive_self_consistency__never_early(
    model: Engine, prompt: str, extract: Extract, n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Draws all samples."""
    return _adaptive(model, prompt, extract, n, batch_size, params, lambda drawn: n)


def adaptive_self_consistency__same_seed(
    model: Engine, prompt: str, extract: Extract, n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Repeats the seed, and with it the samples."""
    return _adaptive(model, prompt, extract, n, batch_size, params, lambda drawn: n - drawn, seeds=0)


def adaptive_self_consistency__full_last_batch(
    model: Engine, prompt: str, extract: Extract, n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Draws more than n."""
    return _adaptive(model, prompt, extract, n, batch_size, params, lambda drawn: n - drawn, exact=False)


def adaptive_self_consistency__stops_at_any_lead(
    model: Engine, prompt: str, extract: Extract, n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Stops as soon as one answer leads."""
    return _adaptive(model, prompt, extract, n, batch_size, params, lambda drawn: 0)


def adaptive_self_consistency__one_batch_late(
    model: Engine, prompt: str, extract: Extract, n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Counts the last batch as still to come."""
    return _adaptive(model, prompt, extract, n, batch_size, params, lambda drawn: n - drawn + batch_size)


def adaptive_self_consistency__one_request(
    model: Engine, prompt: str, extract: Extract, n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Draws everything at once and stops counting early."""
    if n < 1 or batch_size < 1:
        raise ValueError("nothing to draw")
    (generation,) = model.generate([prompt], msgspec.structs.replace(params, n=n))
    counts: Counter[str] = Counter()
    for drawn, completion in enumerate(generation.completions):
        if reference.is_decided(counts, n - drawn):
            break
        answer = extract(completion.text)
        counts.update([] if answer is None else [answer])
    return Vote(max(counts, key=counts.__getitem__, default=None), dict(counts), n)


def adaptive_self_consistency__no_check(
    model: Engine, prompt: str, extract: Extract, n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Mends a batch size of 0 silently."""
    return reference.adaptive_self_consistency(model, prompt, extract, n, max(batch_size, 1), params)
