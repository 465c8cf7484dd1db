"""Questions with options: the most likely option is taken, or the model is asked for a letter."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import stdev
from typing import Literal, cast

import msgspec
import numpy as np

from shared_tasks.metrics.calibration import brier_score, expected_calibration_error, macro_calibration_error
from shared_tasks.metrics.choices import extract_choice, pick_by_loglikelihood
from shared_tasks.metrics.reasoning import strip_reasoning
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.models.engine import LogLikelihood
from shared_tasks.tasks.correctness import score_samples
from shared_tasks.tasks.prompts import LABELS, Method, multiple_choice_prompt
from shared_tasks.tasks.task import Example, Metric, Output, Schema, Scored, Task

CALIBRATION_BINS = 10
RESAMPLES = 200
NORMALISATIONS: dict[Literal["none", "characters", "bytes"], str] = {
    "none": "accuracy",
    "characters": "accuracy_per_character",
    "bytes": "accuracy_per_byte",
}


class Question(Example):
    """A question, its options, and the index of the right one."""

    choices: list[str]
    right: int
    labels: list[str] = []
    """What the data set calls the options, where that is not A, B, C …"""
    reasoning: str | None = None

    def __post_init__(self) -> None:
        """Raise ValueError unless there are 2 to 10 options, one of them right, and labels that differ."""
        if not 2 <= len(self.choices) <= 10:
            raise ValueError(f"expected 2 to 10 options, got {len(self.choices)}")
        if not 0 <= self.right < len(self.choices):
            raise ValueError(f"expected a right answer from 0 to {len(self.choices) - 1}, got {self.right}")
        if self.labels and len(set(self.labels)) != len(self.choices):
            raise ValueError(f"expected a label of its own for each of {len(self.choices)} options, got {self.labels}")

    @property
    def letters(self) -> list[str]:
        """The letters that the prompt gives to the options."""
        return list(LABELS[: len(self.choices)])


# The rows of each data set


class MMLURow(Schema):
    """Hub: cais/mmlu, configuration all, 57 subjects; test (14,042), validation (1,531), dev (285), auxiliary_train.

    The kit's own set has the same fields and 3 to 5 choices.
    """

    question: str
    choices: list[str]
    answer: int | str
    """The index of the right choice; the original files have its letter."""
    subject: str = ""

    def item(self) -> Question:
        """Return the row in the form of all questions."""
        right = self.answer if isinstance(self.answer, int) else _position(self.answer, LABELS)
        return Question(question=self.question, choices=self.choices, right=right, group=self.subject)


class MMLUTableRow(Schema):
    """The original MMLU files: CSV without a header, a file for each subject and split, as SUBJECT_test.csv."""

    question: str
    A: str
    B: str
    C: str
    D: str
    answer: str
    file: str = ""
    """Which the loader fills in."""

    def item(self) -> Question:
        """Return the row in the form of all questions."""
        right = _position(self.answer, "ABCD")
        subject = self.file.removesuffix(".csv").rpartition("_")[0]
        choices = [self.A, self.B, self.C, self.D]
        return Question(question=self.question, choices=choices, right=right, group=subject)


class MMLUProRow(Schema):
    """Hub: TIGER-Lab/MMLU-Pro, splits test (12,032) and validation (70, with reasoning); 3 to 10 options."""

    question: str
    options: list[str]
    answer: str
    """The letter of the right option."""
    answer_index: int | None = None
    question_id: int | str = ""
    category: str = ""
    cot_content: str = ""

    def item(self) -> Question:
        """Return the row in the form of all questions."""
        right = _position(self.answer, LABELS)
        if self.answer_index is not None and self.answer_index != right:
            raise ValueError(f"expected the answer {self.answer} at its index, got answer_index {self.answer_index}")
        return Question(
            id=str(self.question_id),
            question=self.question,
            choices=self.options,
            right=right,
            group=self.category,
            reasoning=self.cot_content.removeprefix("A: ") or None,
        )


class LabelledTexts(msgspec.Struct):
    """Options as the hub has them: a list of texts beside a list of labels."""

    text: list[str]
    label: list[str]


class LabelledText(msgspec.Struct):
    """One option as the original files have it."""

    text: str
    label: str


class ARCRow(Schema):
    """Hub: allenai/ai2_arc, configurations ARC-Challenge and ARC-Easy; train, validation, test (1,172; 2,376).

    3 to 5 choices, labelled A to E or 1 to 4.
    """

    question: str
    choices: LabelledTexts
    answerKey: str
    id: str = ""

    def item(self) -> Question:
        """Return the row in the form of all questions."""
        return _labelled(self.id, self.question, self.choices, self.answerKey)


class OpenBookQARow(Schema):
    """Hub: allenai/openbookqa, configuration main; train (4,957), validation (500), test (500)."""

    question_stem: str
    choices: LabelledTexts
    answerKey: str
    id: str = ""

    def item(self) -> Question:
        """Return the row in the form of all questions."""
        return _labelled(self.id, self.question_stem, self.choices, self.answerKey)


class Stem(msgspec.Struct):
    """The question inside a row of the original files of ARC and OpenBookQA."""

    stem: str
    choices: list[LabelledText]


class StemRow(Schema):
    """The original files of ARC and OpenBookQA: JSON lines with the options inside the question."""

    question: Stem
    answerKey: str
    id: str = ""

    def item(self) -> Question:
        """Return the row in the form of all questions."""
        options = self.question.choices
        choices = LabelledTexts([option.text for option in options], [option.label for option in options])
        return _labelled(self.id, self.question.stem, choices, self.answerKey)


def _labelled(identifier: str, question: str, choices: LabelledTexts, key: str) -> Question:
    if len(choices.label) != len(choices.text):
        raise ValueError(f"expected as many labels as options ({len(choices.text)}), got {len(choices.label)}")
    right = _position(key, choices.label)
    return Question(id=identifier, question=question, choices=choices.text, right=right, labels=choices.label)


def _position(answer: str, labels: Sequence[str]) -> int:
    answer = answer.strip()
    if len(answer) != 1 or answer not in labels:
        raise ValueError(f"expected one of the labels {', '.join(labels)} as the answer, got {answer!r}")
    return labels.index(answer)


@dataclass(frozen=True)
class MultipleChoice(Task[Question]):
    """Questions with options.

    Asked directly, the option with the most likely text is the answer; asked for a letter, the one with the most likely
    letter. Asked to reason, and wherever a method generates, the answer is read off the output.
    """

    styles = ("cot", "direct", "letter")
    compared = ("direct", "letter")

    def questions(self, item: Question, style: str) -> list[str]:
        """Return the question with its options and the form that the answer should have."""
        return [multiple_choice_prompt(item.question, item.choices, cast(Method, style))]

    def answer(self, item: Question, style: str) -> str:
        """Return the right option's text or letter, or the reasoning that leads to it."""
        if style == "cot":
            return item.reasoning or f"The answer is {item.choices[item.right]}."
        return self.options(item, style)[item.right]

    def options(self, item: Question, style: str) -> list[str]:
        """Return the texts of the options, or their letters; none where the model is asked to reason."""
        if style == "cot":
            return []
        return item.choices if style == "direct" else item.letters

    def gold(self, item: Question) -> str:
        """Return the right letter."""
        return item.letters[item.right]

    def parse(self, item: Question, text: str) -> str | None:
        """Return the letter of the option that the output decides for."""
        text = strip_reasoning(text)
        choice = extract_choice(text, item.choices, item.letters)
        if choice is None and item.labels not in ([], item.letters):
            choice = extract_choice(text, item.choices, item.labels)
        return None if choice is None else item.letters[choice]

    def score(self, item: Question, outputs: Sequence[Output]) -> Scored:
        """Score each output as right or wrong; the share of samples that agree is the confidence."""
        parsed = [self.parse(item, output.text) for output in outputs]
        result = score_samples(parsed, [answer == self.gold(item) for answer in parsed], outputs)
        votes = Counter(answer for answer in parsed if answer is not None)
        if len(outputs) > 1 and votes:
            (answer, count), *_ = votes.most_common(1)
            result.details["confidence"] = count / len(outputs)
            result.details["confident_and_right"] = answer == self.gold(item)
        return result

    def score_options(self, item: Question, style: str, options: Sequence[LogLikelihood]) -> Scored:
        """Take the most likely option: by its log-likelihood, and by that per character and per byte of its text.

        The confidence is the probability of the chosen option among the options.
        """
        texts = self.options(item, style)
        totals = [option.total for option in options]
        kinds = list(NORMALISATIONS)[: 3 if style == "direct" else 1]  # letters are all of one length
        picks = [pick_by_loglikelihood(totals, texts, kind) for kind in kinds]
        probabilities = softmax(totals)
        right = picks[0] == item.right
        return Scored(
            score=float(right),
            parsed=[item.letters[picks[0]]],
            values={
                name: float(pick == item.right) for name, pick in zip(NORMALISATIONS.values(), picks, strict=False)
            },
            correct=[right],
            details={"confidence": max(probabilities), "confident_and_right": right},
        )

    def metrics(
        self, items: Sequence[Question], outputs: Sequence[Sequence[str]], scores: Sequence[Scored]
    ) -> dict[str, Metric]:
        """Return how well confidence and correctness agree, where there are confidences."""
        details = [score.details for score in scores if "confidence" in score.details]
        confidences = [one["confidence"] for one in details]
        correct = [one["confident_and_right"] for one in details]
        if not details:
            return {}
        bins = min(CALIBRATION_BINS, len(details))
        found = {"ece": _calibration(partial(expected_calibration_error, num_bins=bins), confidences, correct)}
        if len(set(correct)) == 2:
            found["macro_ce"] = _calibration(macro_calibration_error, confidences, correct)
        squares = [(confidence - flag) ** 2 for confidence, flag in zip(confidences, correct, strict=True)]
        found["brier"] = Metric(brier_score(confidences, correct), standard_error(squares), len(details))
        return found


def _calibration(
    error: Callable[[Sequence[float], Sequence[bool]], float], confidences: Sequence[float], correct: Sequence[bool]
) -> Metric:
    """Return a calibration error, which is no mean, with its bootstrap standard error."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = rng.integers(len(correct), size=len(correct))
        flags = [correct[place] for place in drawn]
        if len(set(flags)) == 2:  # MacroCE needs right and wrong answers
            values.append(error([confidences[place] for place in drawn], flags))
    deviation = stdev(values) if len(values) > 1 else None
    return Metric(error(confidences, correct), deviation, len(correct))


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Return the probability of each option among the options, from their log-probabilities."""
    highest = max(logprobs)
    weights = [math.exp(logprob - highest) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]
