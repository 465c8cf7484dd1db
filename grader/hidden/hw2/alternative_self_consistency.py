"""A second correct solution of `self_consistency`: string methods, Decimal and plain loops."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from shared_tasks.models.engine import Completion, Engine, SamplingParams


def chain_of_thought_prompt(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """Put the instruction last."""
    text = ""
    for asked, worked in examples:
        text += "Q: " + asked + "\nA: " + worked + "\n---\n"
    return text + "Q: " + question + "\n(Think it through; end with the marker #### and the answer.)\nA: Let's think."


def extract_answer(text: str) -> str | None:
    """Go through the lines from the last."""
    for line in reversed(text.split("\n")):
        if "####" in line:
            return line.split("####")[-1].strip() or None
    return None


def canonical_answer(answer: str) -> str:
    """Read digits by hand."""
    words = answer.split()
    text = " ".join(words)
    if text.endswith("."):
        text = text[:-1].strip()
    number = _integer_ratio(text)
    if number is None:
        return text.lower()
    top, bottom = number
    common = math.gcd(top, bottom)
    return str(top // common) if bottom == common else f"{top // common}/{bottom // common}"


def _integer_ratio(text: str) -> tuple[int, int] | None:
    if text.count("/") == 1:
        top, bottom = text.split("/")
        if top.lstrip("+-").isdigit() and len(top) - len(top.lstrip("+-")) <= 1 and bottom.isdigit() and int(bottom):
            return int(top), int(bottom)
        return None
    digits = text.removeprefix("$")
    sign = digits[:1] if digits[:1] in ("+", "-") else ""
    digits = digits[len(sign) :]
    whole, point, decimals = digits.partition(".")
    if not (whole or decimals) or (point and not decimals) or (decimals and not decimals.isdigit()):
        return None
    groups = whole.split(",")
    if len(groups) > 1 and (not 1 <= len(groups[0]) <= 3 or any(len(group) != 3 for group in groups[1:])):
        return None
    if whole and not all(group.isdigit() for group in groups):
        return None
    return Decimal(sign + ("".join(groups) or "0") + point + decimals).as_integer_ratio()


def answer_distribution(
    completions: Sequence[Completion], extract: Callable[[str], str | None], weighted: bool
) -> dict[str, float]:
    """Collect the logarithms for each answer, then take their log-sum-exp."""
    logs: dict[str, list[float]] = {}
    seen = set()
    for completion in completions:
        if weighted and completion.text in seen:
            continue
        seen.add(completion.text)
        answer = extract(completion.text)
        if answer is not None:
            logs.setdefault(answer, []).append(math.fsum(completion.logprobs) if weighted else 0.0)
    if not logs:
        return {}
    top = max(max(values) for values in logs.values())
    sums = {answer: sum(math.exp(value - top) for value in values) for answer, values in logs.items()}
    total = sum(sums.values())
    return {answer: sums[answer] / total for answer in sorted(sums)}


@dataclass(frozen=True)
class Vote:
    """The outcome of a vote among samples."""

    answer: str | None
    counts: dict[str, int]
    samples: int


def _vote(answers: list[str | None]) -> Vote:
    given = [answer for answer in answers if answer is not None]
    counts = {answer: given.count(answer) for answer in sorted(set(given))}
    best = min(counts, key=lambda answer: (-counts[answer], given.index(answer)), default=None)
    return Vote(best, counts, len(answers))


def self_consistency(
    model: Engine, prompt: str, extract: Callable[[str], str | None], n: int, params: SamplingParams
) -> Vote:
    """Draw all, then count."""
    settings = {name: getattr(params, name) for name in params.__struct_fields__}
    completions = model.generate([prompt], [SamplingParams(**{**settings, "n": n})])[0].completions
    return _vote([extract(completion.text) for completion in completions])


def is_decided(counts: Mapping[str, int], remaining: int) -> bool:
    """Try every rival."""
    if not counts:
        return False
    leader = max(counts, key=lambda answer: counts[answer])
    rivals = [counts[answer] for answer in counts if answer != leader] + [0]
    return all(rival + remaining < counts[leader] for rival in rivals)


def adaptive_self_consistency(
    model: Engine, prompt: str, extract: Callable[[str], str | None], n: int, batch_size: int, params: SamplingParams
) -> Vote:
    """Recount after every batch."""
    if min(n, batch_size) < 1:
        raise ValueError("nothing to draw")
    settings = {name: getattr(params, name) for name in params.__struct_fields__}
    answers: list[str | None] = []
    for start in range(0, n, batch_size):
        settings["n"] = min(batch_size, n - start)
        if params.seed is not None:
            settings["seed"] = params.seed + start
        completions = model.generate([prompt], SamplingParams(**settings))[0].completions
        answers.extend(extract(completion.text) for completion in completions)
        if is_decided(_vote(answers).counts, n - len(answers)):
            break
    return _vote(answers)
