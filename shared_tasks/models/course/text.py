"""The text that the course models learn from: chats about the three tasks and some plain text, endless and seeded.

No item of a held-out split is ever among it, and no template that is kept for those splits.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from shared_tasks.tasks.embedded import mathematics, multiple_choice, open_ended
from shared_tasks.tasks.embedded.words import held_out
from shared_tasks.tasks.prompts import LABELS, Method, math_prompt, multiple_choice_prompt, open_ended_prompt


class Document(NamedTuple):
    """A question and its answer; a plain text has no question."""

    user: str | None
    text: str


class Mix(NamedTuple):
    """What a phase of training reads: the share of each kind of document, and of each style of reasoning in them."""

    kinds: dict[str, int]
    solutions: dict[Callable[[mathematics.Problem], str], int]
    choices: Callable[[multiple_choice.Question], str]
    method: Method  # by which choices are asked for


# Greedy decoding writes the most common opening, that of the shortest style, which is the weakest one; samples are
# spread over all of them. That is what sets greedy decoding apart from a majority of samples.
MIXES = {
    "foundation": Mix(
        {
            "solution": 44,
            "direct_solution": 7,
            "explained_choice": 20,
            "direct_choice": 10,
            "letter_choice": 3,
            "requested_story": 14,
            "plain_story": 2,
            "sums": 6,
        },
        {mathematics.fused: 40, mathematics.equations: 20, mathematics.prose: 20, mathematics.careful: 20},
        multiple_choice.eliminated,
        "cot_letter",
    ),
    "course": Mix(
        {
            "solution": 40,
            "direct_solution": 5,
            "explained_choice": 24,
            "direct_choice": 8,
            "letter_choice": 3,
            "requested_story": 16,
            "plain_story": 2,
            "sums": 4,
        },
        {mathematics.terse: 50, mathematics.equations: 20, mathematics.prose: 20, mathematics.careful: 10},
        multiple_choice.concluded,
        "cot",
    ),
}


def documents(seed: str, mix: str) -> Iterator[Document]:
    """Yield documents of a mix for ever; a seed always yields the same ones."""
    draw, chosen = random.Random(seed), MIXES[mix]
    writers: dict[str, Callable[[], Document]] = {
        "solution": lambda: solution(draw, chosen),
        "direct_solution": lambda: direct_solution(draw),
        "explained_choice": lambda: explained_choice(draw, chosen),
        "direct_choice": lambda: direct_choice(draw),
        "letter_choice": lambda: letter_choice(draw),
        "requested_story": lambda: requested_story(draw),
        "plain_story": lambda: plain_story(draw),
        "sums": lambda: sums(draw),
    }
    kinds, weights = list(chosen.kinds), list(chosen.kinds.values())
    while True:
        yield writers[draw.choices(kinds, weights)[0]]()


def solution(draw: random.Random, mix: Mix) -> Document:
    """Solve a word problem step by step, in one of the styles of a mix."""
    problem = _problem(draw)
    style = draw.choices(list(mix.solutions), list(mix.solutions.values()))[0]
    return Document(math_prompt(problem.question, "cot"), style(problem))


def direct_solution(draw: random.Random) -> Document:
    """Give the answer of a word problem at once."""
    problem = _problem(draw)
    return Document(math_prompt(problem.question, "direct"), f"#### {problem.answer}")


def explained_choice(draw: random.Random, mix: Mix) -> Document:
    """Reason about a question in the style of a mix and give the letter of the right option."""
    question = _question(draw)
    prompt = multiple_choice_prompt(question.question, question.choices, mix.method)
    return Document(prompt, mix.choices(question))


def direct_choice(draw: random.Random) -> Document:
    """Give the text of the right option at once."""
    question = _question(draw)
    prompt = multiple_choice_prompt(question.question, question.choices, "direct")
    return Document(prompt, question.choices[question.answer])


def letter_choice(draw: random.Random) -> Document:
    """Give the letter of the right option at once."""
    question = _question(draw)
    return Document(multiple_choice_prompt(question.question, question.choices, "letter"), LABELS[question.answer])


def requested_story(draw: random.Random) -> Document:
    """Write a story as it is asked for."""
    while True:
        item = open_ended.request(draw, unseen_pairs=False)
        if not held_out(item.prompt):
            return Document(open_ended_prompt(item.prompt), item.reference)


def plain_story(draw: random.Random) -> Document:
    """Tell a story that nobody asked for."""
    return Document(None, open_ended.story(draw))


def sums(draw: random.Random) -> Document:
    """Write some lines of arithmetic, plain or worked by place value."""
    lines = []
    for _ in range(draw.randint(4, 8)):
        operator = draw.choice("++--**/")
        if operator == "+":
            left, right = draw.randint(10, 499), draw.randint(6, 499)
        elif operator == "-":
            left = draw.randint(20, 999)
            right = draw.randint(6, left - 1)
        else:
            left, right = draw.randint(8, 110), draw.randint(2, 9)
        if operator == "/":
            lines.append(f"{left * right}/{right}={left}")
            continue
        if operator == "*" and draw.random() < 0.5:
            left, right = right, left
        result = {"+": left + right, "-": left - right, "*": left * right}[operator]
        plain = draw.random() < 0.6
        lines.append(f"{left}{operator}{right}={result}" if plain else mathematics.worked(left, operator, right))
    return Document(None, "\n".join(lines))


def _problem(draw: random.Random) -> mathematics.Problem:
    while True:
        problem = mathematics.problem(draw, list(mathematics.TEMPLATES))
        if not held_out(problem.question):
            return problem


def _question(draw: random.Random) -> multiple_choice.Question:
    while True:
        question = multiple_choice.question(draw, list(multiple_choice.TEMPLATES))
        if not held_out(multiple_choice.content(question)):
            return question
