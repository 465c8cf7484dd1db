"""Refinement: answers that get better, or worse, when a model is told what is wrong with them.

Templates are filled in with one `str.format`, by name, so that braces and field names in a question, an answer or
feedback stay as they are. Answers and feedback are kept exactly as they were generated.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shared_tasks.models.engine import Engine, SamplingParams


@dataclass(frozen=True)
class Templates:
    """The prompts of a refinement."""

    draft: str = "{question}\n\nAnswer:"
    """With the field {question}."""
    critique: str = "{question}\n\nAnswer: {answer}\n\nIs this right? Say what is wrong with it, or say: It is right."
    """With the fields {question} and {answer}, the latest answer. Only `self_refine` uses it."""
    refine: str = "{question}\n\nAnswer: {answer}\n\nFeedback: {feedback}\n\nImproved answer:"
    """With the fields {question}, {answer}, the latest answer, and {feedback}, what was said of it."""


@dataclass(frozen=True)
class Refinement:
    """How the answer to one question came about."""

    answers: list[str]
    """The draft and its revisions in order; the last one counts."""
    feedback: list[str]
    """What was said of the first answer, of the second, and so on."""
    accepted: bool
    """Whether the last answer was found good."""


@dataclass(frozen=True)
class Transitions:
    """What a round of refinement does to answers; None where there was no answer of that kind to see it on."""

    stays_correct: float | None
    """P(next answer correct | answer correct)."""
    becomes_correct: float | None
    """P(next answer correct | answer wrong)."""


def self_refine(
    model: Engine,
    questions: Sequence[str],
    templates: Templates,
    is_satisfied: Callable[[str], bool],
    *,
    max_rounds: int,
    params: SamplingParams,
) -> list[Refinement]:
    """Let the model draft an answer to each question, criticise it and refine it, until its critique is satisfied.

    All questions advance together. First comes one `model.generate` call with the drafts of all questions. Then, in
    each of at most `max_rounds` rounds, one call with the critiques of the latest answers of all questions that are
    still open, and one call with the refinements of those whose critique does not satisfy `is_satisfied`. A question
    whose critique satisfies it is accepted with the answer it has: nothing more is generated for it. So k refinements
    of one question take 1 + 2k requests, and one more if a critique accepts the last answer; refinements that
    `max_rounds` cuts off are not criticised any more, and are not accepted. No call is made without prompts. `feedback`
    holds all critiques, the satisfied one too. Raises ValueError unless max_rounds >= 0.

    Paper: Madaan et al., 2023, https://arxiv.org/abs/2303.17651.
    """
    records = _drafts(model, questions, templates, max_rounds, params)
    still_open = records
    for _ in range(max_rounds):
        critiques = _texts(model, [r.prompt(templates.critique) for r in still_open], params)
        for record, critique in zip(still_open, critiques, strict=True):
            record.feedback.append(critique)
            record.accepted = is_satisfied(critique)
        still_open = _refine_rejected(model, still_open, templates, params)
    return [r.result() for r in records]


def self_correct(
    model: Engine,
    questions: Sequence[str],
    templates: Templates,
    verify: Callable[[str, str], str | None],
    *,
    max_rounds: int,
    params: SamplingParams,
) -> list[Refinement]:
    """Let the model draft an answer to each question and refine it for as long as an external verifier rejects it.

    `verify(question, answer)` returns None for an answer that it accepts, and otherwise its feedback, which may be an
    empty text. Every answer is verified once, the last one too. All questions advance together: one `model.generate`
    call with all drafts, then, in each of at most `max_rounds` rounds, one call with the refinements of the answers
    that were rejected. No call is made without prompts. Raises ValueError unless max_rounds >= 0.

    Papers: Welleck et al., 2023, https://arxiv.org/abs/2211.00053; Huang et al., 2024,
    https://arxiv.org/abs/2310.01798.
    """
    records = _drafts(model, questions, templates, max_rounds, params)
    _verify(verify, records)
    still_open = records
    for _ in range(max_rounds):
        still_open = _refine_rejected(model, still_open, templates, params)
        _verify(verify, still_open)
    return [r.result() for r in records]


def transition_statistics(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Estimate from trajectories what a round does to correct and to wrong answers.

    `correct[i][t]` says whether answer t to question i was correct; trajectories may differ in length. Each step from
    one answer to the next counts once, whichever trajectory it is in.

    Paper: Yang et al., 2024, https://arxiv.org/abs/2412.19513.
    """
    steps = Counter(
        (bool(before), bool(after)) for trajectory in correct for before, after in itertools.pairwise(trajectory)
    )

    def share(before: bool) -> float | None:
        total = steps[before, True] + steps[before, False]
        return steps[before, True] / total if total else None

    return Transitions(stays_correct=share(True), becomes_correct=share(False))


def predicted_accuracy(accuracy: float, stays_correct: float, becomes_correct: float, rounds: int) -> float:
    """Return the accuracy after `rounds` rounds that each do the same to answers, from the accuracy of the drafts.

    Raises ValueError unless rounds >= 0 and the other arguments are from 0 to 1.
    """
    if rounds < 0:
        raise ValueError(f"expected a number of rounds of at least 0, got {rounds}")
    if not all(0 <= p <= 1 for p in (accuracy, stays_correct, becomes_correct)):
        raise ValueError(f"expected values from 0 to 1, got {accuracy}, {stays_correct}, {becomes_correct}")
    for _ in range(rounds):
        accuracy = accuracy * stays_correct + (1 - accuracy) * becomes_correct
    return accuracy


@dataclass
class _Record:
    """A refinement that is under way."""

    question: str
    answers: list[str]
    feedback: list[str] = field(default_factory=list)
    accepted: bool = False

    def prompt(self, template: str) -> str:
        """Fill in the latest answer and what was said of it."""
        feedback = self.feedback[-1] if self.feedback else ""
        return template.format(question=self.question, answer=self.answers[-1], feedback=feedback)

    def result(self) -> Refinement:
        return Refinement(self.answers, self.feedback, bool(self.accepted))


def _texts(model: Engine, prompts: Sequence[str], params: SamplingParams) -> list[str]:
    """Return the completion of each prompt, from one call or, without prompts, none."""
    if not prompts:
        return []
    return [generation.completions[0].text for generation in model.generate(prompts, params)]


def _drafts(
    model: Engine, questions: Sequence[str], templates: Templates, max_rounds: int, params: SamplingParams
) -> list[_Record]:
    if max_rounds < 0:
        raise ValueError(f"expected max_rounds of at least 0, got {max_rounds}")
    drafts = _texts(model, [templates.draft.format(question=question) for question in questions], params)
    return [_Record(question, [draft]) for question, draft in zip(questions, drafts, strict=True)]


def _refine_rejected(
    model: Engine, records: Sequence[_Record], templates: Templates, params: SamplingParams
) -> list[_Record]:
    """Give each record that is not accepted another answer, and return these records."""
    rejected = [r for r in records if not r.accepted]
    answers = _texts(model, [r.prompt(templates.refine) for r in rejected], params)
    for record, answer in zip(rejected, answers, strict=True):
        record.answers.append(answer)
    return rejected


def _verify(verify: Callable[[str, str], str | None], records: Sequence[_Record]) -> None:
    for record in records:
        feedback = verify(record.question, record.answers[-1])
        record.accepted = feedback is None
        if feedback is not None:
            record.feedback.append(feedback)
