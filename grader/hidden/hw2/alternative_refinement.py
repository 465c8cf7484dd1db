"""A second correct solution of hw2.refinement: one coroutine per question, all driven in step."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from shared_tasks.models.engine import Engine, SamplingParams


@dataclass(frozen=True)
class Templates:
    """The prompts of a refinement."""

    draft: str = "{question}\n\nAnswer:"
    critique: str = "{question}\n\nAnswer: {answer}\n\nIs this right? Say what is wrong with it, or say: It is right."
    refine: str = "{question}\n\nAnswer: {answer}\n\nFeedback: {feedback}\n\nImproved answer:"


@dataclass(frozen=True)
class Refinement:
    """How the answer to one question came about."""

    answers: list[str]
    feedback: list[str]
    accepted: bool


@dataclass(frozen=True)
class Transitions:
    """What a round of refinement does to answers."""

    stays_correct: float | None
    becomes_correct: float | None


Life = Generator[str, str, Refinement]


def self_refine(
    model: Engine,
    questions: Sequence[str],
    templates: Templates,
    is_satisfied: Callable[[str], bool],
    *,
    max_rounds: int,
    params: SamplingParams,
) -> list[Refinement]:
    """Describe what happens to one question, then let all happen at once."""

    def life(question: str) -> Life:
        answer = yield templates.draft.format(question=question, answer="", feedback="")
        answers, critiques = [answer], []
        for _ in range(max_rounds):
            critique = yield templates.critique.format(**{"question": question, "answer": answer})
            critiques.append(critique)
            if is_satisfied(critique):
                return Refinement(answers, critiques, True)
            answer = yield templates.refine.format(question=question, answer=answer, feedback=critique)
            answers.append(answer)
        return Refinement(answers, critiques, False)

    return _lived(model, [life(question) for question in questions], max_rounds, params)


def self_correct(
    model: Engine,
    questions: Sequence[str],
    templates: Templates,
    verify: Callable[[str, str], str | None],
    *,
    max_rounds: int,
    params: SamplingParams,
) -> list[Refinement]:
    """Describe what happens to one question, then let all happen at once."""

    def life(question: str) -> Life:
        answers = [(yield templates.draft.format(question=question))]
        said = []
        while (verdict := verify(question, answers[-1])) is not None:
            said.append(verdict)
            if len(answers) > max_rounds:
                return Refinement(answers, said, False)
            answers.append((yield templates.refine.format(question=question, answer=answers[-1], feedback=verdict)))
        return Refinement(answers, said, True)

    return _lived(model, [life(question) for question in questions], max_rounds, params)


def _lived(model: Engine, lives: list[Life], max_rounds: int, params: SamplingParams) -> list[Refinement]:
    if max_rounds < 0:
        raise ValueError("max_rounds must not be negative")
    ended: dict[int, Refinement] = {}
    waiting = {i: next(life) for i, life in enumerate(lives)}
    while waiting:
        results = model.generate(tuple(waiting.values()), [params] * len(waiting))
        texts = dict(zip(waiting, (result.completions[0].text for result in results), strict=True))
        waiting = {}
        for i, text in texts.items():
            try:
                waiting[i] = lives[i].send(text)
            except StopIteration as stop:
                ended[i] = stop.value
    return [ended[i] for i in range(len(lives))]


def transition_statistics(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Count the four kinds of steps."""
    counts = {(before, after): 0 for before in (False, True) for after in (False, True)}
    for trajectory in correct:
        for t in range(1, len(trajectory)):
            counts[bool(trajectory[t - 1]), bool(trajectory[t])] += 1

    def share(before: bool) -> float | None:
        total = counts[before, False] + counts[before, True]
        return counts[before, True] / total if total > 0 else None

    return Transitions(stays_correct=share(True), becomes_correct=share(False))


def predicted_accuracy(accuracy: float, stays_correct: float, becomes_correct: float, rounds: int) -> float:
    """Use the closed form: the distance from the fixed point shrinks by the same factor in each round."""
    for value in (accuracy, stays_correct, becomes_correct):
        if value < 0 or value > 1:
            raise ValueError("probabilities are from 0 to 1")
    if rounds < 0:
        raise ValueError("rounds must not be negative")
    factor = stays_correct - becomes_correct
    if factor == 1:  # nothing ever changes: every accuracy is a fixed point
        return accuracy
    limit = becomes_correct / (1 - factor)
    return limit + factor**rounds * (accuracy - limit)
