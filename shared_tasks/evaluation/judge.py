"""Scoring what only a reader can score: a language model answers questions about outputs, or rates them."""

from collections.abc import Sequence
from statistics import mean

from shared_tasks.metrics.judging import Judge, requirements_followed, rubric_scores
from shared_tasks.metrics.reasoning import strip_reasoning
from shared_tasks.tasks.open_ended import Instruction, OpenEnded
from shared_tasks.tasks.task import Scored

RUBRIC = """\
10: correct, complete and helpful, at the right length; nothing to improve.
7: helpful, with a small gap or flaw.
4: partly helpful, or with a serious mistake.
1: wrong, off the subject, or empty.
Where a reference answer is given, an answer that contradicts it is wrong."""
HIGHEST = 10


def judge_outputs(
    judge: Judge,
    task: OpenEnded,
    items: Sequence[Instruction],
    outputs: Sequence[Sequence[str]],
    scores: Sequence[Scored],
) -> None:
    """Add a judge's verdicts to the scores of a task's items, in place.

    Of infobench's items the decomposed questions are asked, of mt_bench's conversations each turn is rated. A verdict
    that could not be read counts neither way; an item without any keeps no score.
    """
    texts = [[strip_reasoning(output) for output in several] for several in outputs]
    if task.judged == "questions":
        _ask_questions(judge, items, texts, scores)
    else:
        _rate_turns(judge, items, texts, scores)


def _ask_questions(
    judge: Judge, items: Sequence[Instruction], texts: Sequence[Sequence[str]], scores: Sequence[Scored]
) -> None:
    owners = [place for place, several in enumerate(texts) for _ in several]
    verdicts = requirements_followed(
        judge,
        [items[place].question for place in owners],
        [text for several in texts for text in several],
        [items[place].questions for place in owners],
    )
    for place, score in enumerate(scores):
        of_item = [flags for owner, flags in zip(owners, verdicts, strict=True) if owner == place]
        known = [float(flag) for flags in of_item for flag in flags if flag is not None]
        asked = sum(map(len, of_item))
        _add(score, {"requirements_followed": mean(known)} if known else {}, 1 - len(known) / asked)
        score.details |= {"questions": items[place].questions, "verdicts": of_item}
        score.score = mean(known) if known else None


def _rate_turns(
    judge: Judge, items: Sequence[Instruction], texts: Sequence[Sequence[str]], scores: Sequence[Scored]
) -> None:
    places = [(place, turn) for place, several in enumerate(texts) for turn in range(len(several))]
    ratings = rubric_scores(
        judge,
        [_conversation(items[place], texts[place], turn) for place, turn in places],
        [texts[place][turn] for place, turn in places],
        RUBRIC,
        highest=HIGHEST,
    )
    for place, score in enumerate(scores):
        of_item = [rating for (owner, _), rating in zip(places, ratings, strict=True) if owner == place]
        known = [rating for rating in of_item if rating is not None]
        values = {"rating": mean(known)} if known else {}
        values |= {f"rating_turn_{turn}": one for turn, one in enumerate(of_item, start=1) if one is not None}
        _add(score, values, 1 - len(known) / len(of_item))
        score.details |= {"ratings": of_item}
        score.score = mean(known) / HIGHEST if known else None


def _conversation(item: Instruction, texts: Sequence[str], turn: int) -> str:
    """Return what was said up to a turn's answer, and the reference for it where there is one."""
    questions = [item.question, *item.further]
    said = [f"User: {question}\n\nAssistant: {text}\n\n" for question, text in zip(questions, texts, strict=False)]
    asked = f"{''.join(said[:turn])}User: {questions[turn]}" if turn else questions[turn]
    return f"{asked}\n\nA reference answer:\n{item.references[turn]}" if turn < len(item.references) else asked


def _add(score: Scored, values: dict[str, float], unparsed: float) -> None:
    """Put a judge's values first, as they are what the item is about."""
    score.values = values | {"unparsed_verdicts": unparsed} | score.values
