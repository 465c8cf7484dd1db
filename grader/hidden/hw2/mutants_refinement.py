"""Plausible wrong solutions of hw2.refinement: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from grader.reference.hw2 import refinement as reference
from grader.reference.hw2.refinement import Refinement, Templates, Transitions
from shared_tasks.models.engine import Engine, SamplingParams


def _texts(model: Engine, prompts: Sequence[str], params: SamplingParams) -> list[str]:
    return [generation.completions[0].text for generation in model.generate(prompts, params)] if prompts else []


def _refined(
    model: Engine,
    questions: Sequence[str],
    templates: Templates,
    is_satisfied: Callable[[str], bool],
    max_rounds: int,
    params: SamplingParams,
    *,
    criticise: Callable[[str, list[str]], str] | None = None,
    refine: Callable[[str, list[str], list[str]], str] | None = None,
    open_after: Callable[[list[int], list[int]], list[int]] = lambda live, unsatisfied: unsatisfied,
    critique_at_the_end: bool = False,
    keeps_satisfied_critique: bool = True,
    result: Callable[[list[str]], list[str]] = lambda answers: answers,
    all_at_once: bool = True,
) -> list[Refinement]:
    """Refine as the reference does, but for the parts given."""
    if max_rounds < 0:
        raise ValueError(max_rounds)
    if not all_at_once:
        return [
            reference.self_refine(model, [q], templates, is_satisfied, max_rounds=max_rounds, params=params)[0]
            for q in questions
        ]
    ask = criticise or (lambda q, answers: templates.critique.format(question=q, answer=answers[-1]))
    improve = refine or (
        lambda q, answers, said: templates.refine.format(question=q, answer=answers[-1], feedback=said[-1])
    )
    answers = [[text] for text in _texts(model, [templates.draft.format(question=q) for q in questions], params)]
    said: list[list[str]] = [[] for _ in questions]
    live = list(range(len(questions)))
    satisfied: set[int] = set()
    for number in range(max_rounds + critique_at_the_end):
        for i, text in zip(live, _texts(model, [ask(questions[i], answers[i]) for i in live], params), strict=True):
            said[i].append(text)
            if is_satisfied(text):
                satisfied.add(i)
                if not keeps_satisfied_critique:
                    said[i].pop()
        live = open_after(live, [i for i in live if i not in satisfied])
        if number == max_rounds:
            break
        prompts = [improve(questions[i], answers[i], said[i]) for i in live]
        for i, text in zip(live, _texts(model, prompts, params), strict=True):
            answers[i].append(text)
    return [Refinement(result(answers[i]), said[i], i in satisfied) for i in range(len(questions))]


def self_refine__criticises_the_last_answer_too(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Pays for a critique that leads to nothing."""
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, critique_at_the_end=True)


def self_refine__never_stops_early(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Refines answers that its critique found good."""
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, open_after=lambda live, rest: live)


def self_refine__all_stop_with_the_first(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Ends the round for all questions when one critique is satisfied."""
    stop = lambda live, rest: rest if len(rest) == len(live) else []  # noqa: E731
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, open_after=stop)


def self_refine__all_go_on_with_the_last(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Keeps satisfied questions in the batch until all are satisfied."""
    stop = lambda live, rest: live if rest else []  # noqa: E731
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, open_after=stop)


def self_refine__one_question_at_a_time(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Makes calls of its own for every question."""
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, all_at_once=False)


def self_refine__refines_the_draft_each_time(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Shows the first answer with the latest critique."""
    refine = lambda q, a, said: templates.refine.format(question=q, answer=a[0], feedback=said[-1])  # noqa: E731
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, refine=refine)


def self_refine__criticises_the_draft_each_time(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Asks what is wrong with the first answer."""
    criticise = lambda q, a: templates.critique.format(question=q, answer=a[0])  # noqa: E731
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, criticise=criticise)


def self_refine__first_critique_each_time(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Refines by a critique of an older answer."""
    refine = lambda q, a, said: templates.refine.format(question=q, answer=a[-1], feedback=said[0])  # noqa: E731
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, refine=refine)


def self_refine__fields_in_texts_are_filled_in(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Replaces one field after the other, so that a question can bring fields of its own."""

    def refine(question: str, answers: list[str], said: list[str]) -> str:
        text = templates.refine.replace("{question}", question).replace("{answer}", answers[-1])
        return text.replace("{feedback}", said[-1])  # type: ignore[no-any-return]

    return _refined(model, questions, templates, is_satisfied, max_rounds, params, refine=refine)


def self_refine__returns_the_draft(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Lists the answers from the last to the first."""
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, result=lambda answers: answers[::-1])


def self_refine__drops_the_satisfied_critique(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Keeps only the critiques that led to a refinement."""
    return _refined(model, questions, templates, is_satisfied, max_rounds, params, keeps_satisfied_critique=False)


def self_refine__a_round_too_many(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Makes max_rounds + 1 refinements."""
    return _refined(model, questions, templates, is_satisfied, max_rounds + 1, params)


def self_refine__calls_without_prompts(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Goes through all rounds, with empty calls at the end."""
    results = reference.self_refine(model, questions, templates, is_satisfied, max_rounds=max_rounds, params=params)
    if all(result.accepted for result in results):
        model.generate([], params)
    return results


def self_refine__own_params(
    model: Any, questions: Any, templates: Any, is_satisfied: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Generates with the defaults."""
    return _refined(model, questions, templates, is_satisfied, max_rounds, SamplingParams())


def _corrected(
    model: Engine,
    questions: Sequence[str],
    templates: Templates,
    verify: Callable[[str, str], str | None],
    max_rounds: int,
    params: SamplingParams,
    *,
    accepts: Callable[[str | None], bool] = lambda verdict: verdict is None,
    verifies_last: bool = True,
    feedback_shown: Callable[[list[str]], str] = lambda said: said[-1],
    answer_shown: Callable[[list[str]], str] = lambda answers: answers[-1],
    again: bool = False,
    keeps_accepted: bool = False,
) -> list[Refinement]:
    """Correct as the reference does, but for the parts given."""
    if max_rounds < 0:
        raise ValueError(max_rounds)
    answers = [[text] for text in _texts(model, [templates.draft.format(question=q) for q in questions], params)]
    said: list[list[str]] = [[] for _ in questions]
    live = list(range(len(questions)))
    accepted: set[int] = set()
    for number in range(max_rounds + 1):
        if number == max_rounds and not verifies_last:
            break
        for i in range(len(questions)) if again else live:
            verdict = verify(questions[i], answers[i][-1])
            if accepts(verdict):
                accepted.add(i)
            elif i in live:
                said[i].append(verdict or "")
        rejected = [i for i in live if i not in accepted]
        live = live if keeps_accepted and rejected else rejected
        if number == max_rounds:
            break
        prompts = [
            templates.refine.format(
                question=questions[i],
                answer=answer_shown(answers[i]),
                feedback=feedback_shown(said[i]) if said[i] else "",
            )
            for i in live
        ]
        for i, text in zip(live, _texts(model, prompts, params), strict=True):
            answers[i].append(text)
    return [Refinement(answers[i], said[i], i in accepted) for i in range(len(questions))]


def self_correct__empty_feedback_accepts(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Takes feedback without words for acceptance."""
    accepts = lambda verdict: not verdict  # noqa: E731
    return _corrected(model, questions, templates, verify, max_rounds, params, accepts=accepts)


def self_correct__last_answer_is_not_verified(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Leaves open whether the last answer is right."""
    return _corrected(model, questions, templates, verify, max_rounds, params, verifies_last=False)


def self_correct__first_feedback_each_time(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Refines by feedback on the draft."""
    first = lambda said: said[0]  # noqa: E731
    return _corrected(model, questions, templates, verify, max_rounds, params, feedback_shown=first)


def self_correct__no_feedback(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Tells the model that it is wrong, not why."""
    return _corrected(model, questions, templates, verify, max_rounds, params, feedback_shown=lambda said: "wrong")


def self_correct__corrects_the_draft_each_time(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Shows the first answer with the latest feedback."""
    return _corrected(model, questions, templates, verify, max_rounds, params, answer_shown=lambda answers: answers[0])


def self_correct__verifies_accepted_answers_again(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Calls the verifier for every question in every round."""
    return _corrected(model, questions, templates, verify, max_rounds, params, again=True)


def self_correct__corrects_accepted_answers(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Goes on with all questions until all are accepted."""
    return _corrected(model, questions, templates, verify, max_rounds, params, keeps_accepted=True)


def self_correct__one_question_at_a_time(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Makes calls of its own for every question."""
    if max_rounds < 0:
        raise ValueError(max_rounds)
    return [
        reference.self_correct(model, [q], templates, verify, max_rounds=max_rounds, params=params)[0]
        for q in questions
    ]


def self_correct__a_round_too_many(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Makes max_rounds + 1 corrections."""
    return _corrected(model, questions, templates, verify, max_rounds + 1, params)


def self_correct__arguments_swapped(
    model: Any, questions: Any, templates: Any, verify: Any, *, max_rounds: int, params: SamplingParams
) -> list[Refinement]:
    """Shows the verifier the answer as the question."""
    return _corrected(model, questions, templates, lambda q, answer: verify(answer, q), max_rounds, params)


def transition_statistics__mean_over_trajectories(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Averages the shares of the trajectories."""
    each = [reference.transition_statistics([trajectory]) for trajectory in correct]
    stays = [one.stays_correct for one in each if one.stays_correct is not None]
    becomes = [one.becomes_correct for one in each if one.becomes_correct is not None]
    return Transitions(sum(stays) / len(stays) if stays else None, sum(becomes) / len(becomes) if becomes else None)


def transition_statistics__first_and_last_only(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Compares the draft with the final answer."""
    return reference.transition_statistics([[answers[0], answers[-1]] for answers in correct if len(answers) > 1])


def transition_statistics__first_round_only(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Looks at the first refinement only."""
    return reference.transition_statistics([answers[:2] for answers in correct])


def transition_statistics__joint_for_conditional(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Divides by the number of all steps."""
    steps = [(a, b) for answers in correct for a, b in pairwise(answers)]
    if not steps:
        return Transitions(None, None)
    return Transitions(sum(a and b for a, b in steps) / len(steps), sum(b and not a for a, b in steps) / len(steps))


def transition_statistics__fields_swapped(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Puts the shares into the wrong fields."""
    right = reference.transition_statistics(correct)
    return Transitions(right.becomes_correct, right.stays_correct)


def transition_statistics__backwards(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Conditions on the next answer."""
    return reference.transition_statistics([answers[::-1] for answers in correct])


def transition_statistics__zero_for_nothing(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Reports a share of zero where there was nothing to see."""
    right = reference.transition_statistics(correct)
    return Transitions(right.stays_correct or 0.0, right.becomes_correct or 0.0)


def transition_statistics__across_trajectories(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Takes the last answer to a question and the first to the next for a step."""
    return reference.transition_statistics([[value for answers in correct for value in answers]])


def transition_statistics__last_answer_repeated(correct: Sequence[Sequence[bool]]) -> Transitions:
    """Fills shorter trajectories up with their last answer."""
    longest = max(map(len, correct), default=0)
    return reference.transition_statistics([[*a, *[a[-1]] * (longest - len(a))] for a in correct if a])


def predicted_accuracy__only_losses(
    accuracy: float, stays_correct: float, becomes_correct: float, rounds: int
) -> float:
    """Forgets the wrong answers that become correct."""
    reference.predicted_accuracy(accuracy, stays_correct, becomes_correct, rounds)
    return accuracy * stays_correct**rounds


def predicted_accuracy__only_gains(accuracy: float, stays_correct: float, becomes_correct: float, rounds: int) -> float:
    """Forgets the correct answers that become wrong."""
    return reference.predicted_accuracy(accuracy, 1.0 if stays_correct <= 1 else 2.0, becomes_correct, rounds)


def predicted_accuracy__one_round(accuracy: float, stays_correct: float, becomes_correct: float, rounds: int) -> float:
    """Predicts the accuracy after one round, whatever their number."""
    return reference.predicted_accuracy(accuracy, stays_correct, becomes_correct, min(rounds, 1))


def predicted_accuracy__shares_swapped(
    accuracy: float, stays_correct: float, becomes_correct: float, rounds: int
) -> float:
    """Exchanges the two shares."""
    return reference.predicted_accuracy(accuracy, becomes_correct, stays_correct, rounds)


def predicted_accuracy__change_of_the_draft_scaled(
    accuracy: float, stays_correct: float, becomes_correct: float, rounds: int
) -> float:
    """Adds the change of the first round once for each round."""
    once = reference.predicted_accuracy(accuracy, stays_correct, becomes_correct, min(rounds, 1))
    return accuracy + (once - accuracy) * rounds


def predicted_accuracy__fixed_point_divides_by_zero(
    accuracy: float, stays_correct: float, becomes_correct: float, rounds: int
) -> float:
    """Uses the closed form where it has none."""
    reference.predicted_accuracy(accuracy, stays_correct, becomes_correct, rounds)
    factor = stays_correct - becomes_correct
    limit = becomes_correct / (1 - factor)
    return limit + factor**rounds * (accuracy - limit)


def predicted_accuracy__accepts_anything(
    accuracy: float, stays_correct: float, becomes_correct: float, rounds: int
) -> float:
    """Computes with values that are no probabilities."""
    for _ in range(rounds):
        accuracy = accuracy * stays_correct + (1 - accuracy) * becomes_correct
    return accuracy
