"""A language model as the judge of texts, behind any engine; its verdicts are kept on disk.

What a judge writes is parsed strictly: a reply that gives no verdict is None, "unparsed", which is counted and never
taken for a No, a low score or a tie.
"""

import hashlib
import json
import re
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from shared_tasks.metrics.reasoning import strip_reasoning
from shared_tasks.models.engine import Engine, Generation, Prompt, SamplingParams

Preference = Literal["first", "second", "tie"]

_GREEDY = SamplingParams(temperature=0.0, max_tokens=512)
_RIDGE = 1e-3  # keeps the fit finite where length separates wins from losses

_QUESTION_PROMPT = """\
Below are an instruction and a text that was written for it. Answer the question about the text with YES or NO.
YES means that the text meets the condition entirely; if it falls short in any way, the answer is NO.

<instruction>
{instruction}
</instruction>

<text>
{output}
</text>

Question: {question}
Answer YES or NO:"""

_RUBRIC_PROMPT = """\
Below are an instruction and a response to it. Rate the response from {lowest} to {highest} by this rubric:
{rubric}

<instruction>
{instruction}
</instruction>

<response>
{output}
</response>

Explain your judgement briefly, then end with the rating in double brackets, for example [[{lowest}]]."""

_PAIR_PROMPT = """\
Below are an instruction and two responses to it. Which one follows the instruction better and helps more? Their order
and their length are no reasons.

<instruction>
{instruction}
</instruction>

<response A>
{first}
</response A>

<response B>
{second}
</response B>

Explain your judgement briefly, then end with [[A]] if A is better, [[B]] if B is better, or [[C]] for a tie."""


class Judge:
    """An engine that is asked for verdicts.

    Each prompt is sent as a chat of one message, or as plain text where `chat` is False, for models without a chat
    template. With `cache`, a file, replies are stored there as they come, and a question that was answered before is
    not asked again: one from the same model (name and fingerprint) with the same parameters and prompt.
    """

    def __init__(self, engine: Engine, cache: Path | None = None, params: SamplingParams = _GREEDY, chat: bool = True):
        self.engine = engine
        self.params = params
        self.chat = chat
        self._lock = threading.Lock()  # engines may report from threads of their own
        self._replies = sqlite3.connect(cache or ":memory:", timeout=60, check_same_thread=False, isolation_level=None)
        self._replies.execute("CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, prompt TEXT, reply TEXT)")

    def ask(self, prompts: Sequence[str]) -> list[str]:
        """Return the judge's reply to each prompt, without its reasoning; equal prompts are asked once."""
        keys = {prompt: self._key(prompt) for prompt in prompts}
        missing = [prompt for prompt in keys if self._stored(keys[prompt]) is None]

        def store(index: int, generation: Generation) -> None:
            prompt, reply = missing[index], generation.completions[0].text
            with self._lock:
                self._replies.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", (keys[prompt], prompt, reply))

        if missing:
            sent: list[Prompt] = [[{"role": "user", "content": prompt}] if self.chat else prompt for prompt in missing]
            self.engine.generate(sent, self.params, on_done=store)
        replies = {prompt: strip_reasoning(self._stored(key) or "") for prompt, key in keys.items()}
        return [replies[prompt] for prompt in prompts]

    def _stored(self, key: str) -> str | None:
        with self._lock:
            row = self._replies.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _key(self, prompt: str) -> str:
        params = msgspec.to_builtins(self.params)
        asked = json.dumps([self.engine.name, self.engine.fingerprint(), params, self.chat, prompt], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()


# Decomposed questions


class RequirementsRatio(msgspec.Struct, frozen=True):
    """The decomposed requirements following ratio, and the counts behind it."""

    score: float | None
    """Followed requirements among those with a verdict; None where no question has one."""
    followed: int
    not_followed: int
    unparsed: int


def requirements_followed(
    judge: Judge, instructions: Sequence[str], outputs: Sequence[str], questions: Sequence[Sequence[str]]
) -> list[list[bool | None]]:
    """Ask whether each output meets each of its instruction's decomposed requirements; None where there is no verdict.

    Every question is asked by itself, so that no verdict depends on another. `instructions` include their input.
    Raises ValueError unless there are as many outputs and lists of questions as instructions.

    Paper: InFoBench, Qin et al., 2024, https://arxiv.org/abs/2401.03601.
    """
    _same_length(instructions=instructions, outputs=outputs, questions=questions)
    prompts = [
        [_QUESTION_PROMPT.format(instruction=instruction, output=output, question=question) for question in several]
        for instruction, output, several in zip(instructions, outputs, questions, strict=True)
    ]
    replies = iter(judge.ask([prompt for several in prompts for prompt in several]))
    return [[parse_yes_no(next(replies)) for _ in several] for several in prompts]


def requirements_following_ratio(verdicts: Sequence[Sequence[bool | None]]) -> RequirementsRatio:
    """Return DRFR: the share of followed requirements over all questions of all instructions.

    Unparsed verdicts are left out of the ratio and counted beside it. Paper: see `requirements_followed`.
    """
    flat = [verdict for several in verdicts for verdict in several]
    followed, not_followed = flat.count(True), flat.count(False)
    parsed = followed + not_followed
    return RequirementsRatio(followed / parsed if parsed else None, followed, not_followed, flat.count(None))


def parse_yes_no(reply: str) -> bool | None:
    """Return True for a reply that says yes, False for one that says no, None for any other, such as "Not sure".

    The first word decides, else the last "answer: …" or "answer is …", else the last word. "Yes and no" and "No idea"
    are neither.
    """
    words = re.findall(r"[\w']+", reply.lower())
    opening = " ".join(words[:3])
    if re.match(r"(yes|no)\b(?! (and|or) (yes|no)\b)(?! (idea|clue|way|verdict|answer)\b)", opening):
        return bool(words[0] == "yes")
    if re.match(r"(yes|no)\b", opening):
        return None
    if found := re.findall(r"\banswer\b(?: is|:)?\W*(yes|no)\b", reply.lower()):
        return bool(found[-1] == "yes")
    return words[-1] == "yes" if words and words[-1] in ("yes", "no") else None


# Rubric


def rubric_scores(
    judge: Judge,
    instructions: Sequence[str],
    outputs: Sequence[str],
    rubric: str,
    lowest: int = 1,
    highest: int = 10,
) -> list[float | None]:
    """Ask for a rating of each output by a rubric; None where there is no rating from `lowest` to `highest`.

    Raises ValueError unless there are as many outputs as instructions.

    Paper: single-answer grading of MT-bench, Zheng et al., 2023, https://arxiv.org/abs/2306.05685.
    """
    _same_length(instructions=instructions, outputs=outputs)
    prompts = [
        _RUBRIC_PROMPT.format(instruction=instruction, output=output, rubric=rubric, lowest=lowest, highest=highest)
        for instruction, output in zip(instructions, outputs, strict=True)
    ]
    return [parse_rating(reply, lowest, highest) for reply in judge.ask(prompts)]


def parse_rating(reply: str, lowest: float = 1, highest: float = 10) -> float | None:
    """Return the rating in a reply, or None where there is none or it is outside the scale.

    It is the last [[number]], else the last "rating: number" or "score: number", else a reply that is only a number;
    "/10" after it may be the top of the scale and nothing else.
    """
    number = r"(-?\d+(?:\.\d+)?)(?:\s*/\s*(\d+))?"
    found = (
        re.findall(rf"\[\[\s*{number}\s*\]\]", reply)
        or re.findall(rf"\b(?:rating|score)\b(?: is)?[\s:*]*{number}(?![\d.]*\d)", reply, re.IGNORECASE)
        or re.findall(rf"\A[\s*]*{number}[\s*.]*\Z", reply)
    )
    if not found:
        return None
    rating, top = found[-1]
    return float(rating) if lowest <= float(rating) <= highest and (not top or float(top) == highest) else None


# Pairs


def compare_pairs(
    judge: Judge, instructions: Sequence[str], firsts: Sequence[str], seconds: Sequence[str]
) -> list[Preference | None]:
    """Ask which of two outputs is better, in both orders; None where either reply has no verdict.

    A judge that prefers a position rather than a text contradicts itself when the order is swapped: two different
    verdicts are a tie. Raises ValueError unless there are as many outputs of each kind as instructions.

    Paper: Zheng et al., 2023, https://arxiv.org/abs/2306.05685, section 3.4.
    """
    _same_length(instructions=instructions, firsts=firsts, seconds=seconds)
    pairs = list(zip(instructions, firsts, seconds, strict=True))
    prompts = [_PAIR_PROMPT.format(instruction=text, first=one, second=other) for text, one, other in pairs]
    swapped = [_PAIR_PROMPT.format(instruction=text, first=other, second=one) for text, one, other in pairs]
    replies = judge.ask([*prompts, *swapped])
    back: dict[Preference | None, Preference | None] = {"first": "second", "second": "first", "tie": "tie", None: None}
    verdicts = [parse_preference(reply) for reply in replies[: len(pairs)]]
    checks = [back[parse_preference(reply)] for reply in replies[len(pairs) :]]
    return [_agreed(verdict, check) for verdict, check in zip(verdicts, checks, strict=True)]


def _agreed(verdict: Preference | None, check: Preference | None) -> Preference | None:
    if verdict is None or check is None:
        return None
    return verdict if verdict == check else "tie"


def parse_preference(reply: str) -> Preference | None:
    """Return which response a reply prefers: the last [[A]], [[B]] or [[C]], or a reply that is only A, B, C or tie."""
    found = re.findall(r"\[\[\s*([ABC]|tie)\s*\]\]", reply, re.IGNORECASE)
    found = found or re.findall(r"\A[\s*(\[]*([ABC]|tie)[\s*)\].]*\Z", reply, re.IGNORECASE)
    names: dict[str, Preference] = {"A": "first", "B": "second", "C": "tie", "TIE": "tie"}
    return names[found[-1].upper()] if found else None


def win_rate(preferences: Sequence[Preference | None]) -> float:
    """Return the share of pairs that the first side wins, ties counting half; pairs without a verdict do not count.

    Raises ValueError where no pair has a verdict.
    """
    return float(np.mean(_wins(preferences)[0]))


def length_controlled_win_rate(
    preferences: Sequence[Preference | None], lengths: Sequence[int], other_lengths: Sequence[int]
) -> float:
    """Return the win rate of the first side as it would be if both sides' texts were equally long.

    A logistic regression explains each verdict (win 1, tie ½, loss 0) by a constant, how much better the side is, and
    by tanh of the difference in length, in standard deviations of that difference. The result is its prediction at
    difference 0. This is AlpacaEval 2's method without the term for the difficulty of each instruction, which needs
    the verdicts of many models.

    `lengths` are those of the first side's texts, `other_lengths` of the other's, in characters. Raises ValueError
    unless every pair has both, and where no pair has a verdict.

    Paper: Dubois et al., 2024, https://arxiv.org/abs/2404.04475.
    """
    _same_length(preferences=preferences, lengths=lengths, other_lengths=other_lengths)
    wins, kept = _wins(preferences)
    difference = (np.asarray(lengths, dtype=np.float64) - np.asarray(other_lengths, dtype=np.float64))[kept]
    features = np.stack([np.ones_like(difference), np.tanh(difference / (difference.std() or 1.0))], axis=1)
    weights = np.zeros(2)
    for _ in range(100):  # Newton's method; each step is bounded, because far from the optimum it overshoots
        predicted = 1 / (1 + np.exp(-features @ weights))
        gradient = features.T @ (predicted - wins) + _RIDGE * weights
        curvature = (features * (predicted * (1 - predicted))[:, None]).T @ features + _RIDGE * np.eye(2)
        weights = weights - np.clip(np.linalg.solve(curvature, gradient), -1, 1)
    return float(1 / (1 + np.exp(-weights[0])))


def _wins(preferences: Sequence[Preference | None]) -> tuple[Float[NDArray[np.float64], "kept"], list[int]]:
    """Return 1, ½ or 0 for each pair with a verdict, and the places of these pairs."""
    value = {"first": 1.0, "tie": 0.5, "second": 0.0}
    kept = [i for i, preference in enumerate(preferences) if preference is not None]
    if not kept:
        raise ValueError(f"expected at least one pair with a verdict, got {len(preferences)} without")
    return np.array([value[preference] for preference in preferences if preference is not None]), kept


def _same_length(**lists: Sequence[object]) -> None:
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected one of each per pair or text, got {lengths}")
