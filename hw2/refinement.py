"""Refinement: answers that get better, or worse, when a model is told what is wrong with them.

Templates are filled in with one `str.format`, by name, so that braces and field names in a question, an answer or
feedback stay as they are. Answers and feedback are kept exactly as they were generated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    raise NotImplementedError


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
    raise NotImplementedError


def transition_statistics(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Estimate from trajectories what a round does to correct and to wrong answers.

    `correct[i][t]` says whether answer t to question i was correct; trajectories may differ in length. Each step from
    one answer to the next counts once, whichever trajectory it is in.

    Paper: Yang et al., 2024, https://arxiv.org/abs/2412.19513.
    """
    raise NotImplementedError


def predicted_accuracy(accuracy: float, stays_correct: float, becomes_correct: float, rounds: int) -> float:
    """Return the accuracy after `rounds` rounds that each do the same to answers, from the accuracy of the drafts.

    Raises ValueError unless rounds >= 0 and the other arguments are from 0 to 1.
    """
    raise NotImplementedError
