"""Multiple-choice questions of several subjects, each with one right option and the reasoning that finds it."""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared_tasks.tasks.embedded.words import ANIMALS, COLOURS, DAYS, FRUITS, PEOPLE, PLACES, THINGS, a, plural
from shared_tasks.tasks.prompts import LABELS


class Question(NamedTuple):
    """A question with its choices, the index of the right one, and the reasoning up to the options."""

    subject: str
    template: str
    question: str
    choices: list[str]
    answer: int
    reasoning: str


def _ask(
    draw: random.Random, template: str, question: str, right: str, wrong: Sequence[str], reasoning: str
) -> Question:
    """Return a question with three to five choices in random order."""
    others = list(dict.fromkeys(choice for choice in wrong if choice != right))
    choices = [right, *others[: draw.choices([2, 3, 4], [1, 6, 1])[0]]]
    draw.shuffle(choices)
    return Question(template.split("/")[0], template, question, choices, choices.index(right), reasoning)


def _near(draw: random.Random, number: int) -> list[str]:
    """Return wrong numbers that a slip could give: some units, or a ten, off."""
    slips = [-20, -10, -9, -2, -1, 1, 2, 9, 10, 11, 20, 100]
    draw.shuffle(slips)
    return [str(number + slip) for slip in slips if number + slip > 0]


# --- arithmetic: the value of an expression ---


def _value(draw: random.Random) -> Question:
    kind = draw.choice(["+", "-", "*", "+-"])
    if kind == "*":
        x, y = draw.randint(12, 99), draw.randint(3, 9)
        expression, lines, result = f"{x}*{y}", f"{x}*{y}={x * y}", x * y
    elif kind == "+":
        x, y = draw.randint(25, 480), draw.randint(25, 480)
        expression, lines, result = f"{x}+{y}", f"{x}+{y}={x + y}", x + y
    elif kind == "-":
        x = draw.randint(120, 900)
        y = draw.randint(25, x - 20)
        expression, lines, result = f"{x}-{y}", f"{x}-{y}={x - y}", x - y
    else:
        x, y = draw.randint(25, 300), draw.randint(25, 300)
        z = draw.randint(10, x + y - 10)
        expression, result = f"{x}+{y}-{z}", x + y - z
        lines = f"{x}+{y}={x + y}\n{x + y}-{z}={result}"
    return _ask(draw, "arithmetic/value", f"What is {expression}?", str(result), _near(draw, result), lines)


def _missing(draw: random.Random) -> Question:
    x, y = draw.randint(15, 300), draw.randint(15, 300)
    question, lines = f"Which number is missing in {x}+?={x + y}?", f"{x + y}-{x}={y}"
    return _ask(draw, "arithmetic/missing", question, str(y), _near(draw, y), lines)


# --- comparison: the largest or smallest of some sums ---


def _extreme(draw: random.Random, largest: bool) -> Question:
    while True:
        count, middle = draw.choices([3, 4, 5], [1, 6, 1])[0], draw.randint(40, 260)
        sums: dict[str, int] = {}
        while len(sums) < count:
            value = middle + draw.randint(-25, 25)
            x = draw.randint(6, value - 5)
            sums[f"{x}+{value - x}"] = value
        if len(set(sums.values())) == count:
            break
    choices = list(sums)
    draw.shuffle(choices)
    best = (max if largest else min)(choices, key=sums.__getitem__)
    word = "largest" if largest else "smallest"
    lines = "\n".join(f"{choice}={sums[choice]}" for choice in choices)
    return Question(
        "comparison",
        f"comparison/{word}",
        f"Which sum is the {word}?",
        choices,
        choices.index(best),
        f"{lines}\nThe {word} is {sums[best]}, so {best}.",
    )


# --- ordering: people in a row, told pair by pair ---


def _ordering(draw: random.Random, more: str, most: str, least: str) -> Question:
    names = [person.name for person in draw.sample(PEOPLE, draw.randint(4, 5))]
    facts = [f"{x} is {more} than {y}." for x, y in itertools.pairwise(names)]
    draw.shuffle(facts)
    place = draw.choice(["most", "least", "second"])
    asked, right = {
        "most": (f"Who is the {most}?", names[0]),
        "least": (f"Who is the {least}?", names[-1]),
        "second": (f"Who is the second {most}?", names[1]),
    }[place]
    wrong = [name for name in names if name != right]
    draw.shuffle(wrong)
    reasoning = f"From {most} to {least}: {', '.join(names)}."
    return _ask(draw, f"ordering/{more}", f"{' '.join(facts)} {asked}", right, wrong, reasoning)


# --- reading: facts just told, asked for directly or over two facts ---


def _passage(draw: random.Random) -> Question:
    count = draw.randint(3, 4)
    names = [person.name for person in draw.sample(PEOPLE, count)]
    things, places, colours = draw.sample(THINGS, count), draw.sample(PLACES, count), draw.sample(COLOURS, count)
    facts = [f"{names[i]} has {a(colours[i])} {things[i]}." for i in range(count)]
    facts += [f"{names[i]} is in the {places[i]}." for i in range(count)]
    draw.shuffle(facts)
    i = draw.randrange(count)
    name, thing, place, colour = names[i], things[i], places[i], colours[i]
    owns, stands = f"{name} has {a(colour)} {thing}.", f"{name} is in the {place}."
    template, asked, right, pool, reasoning = draw.choice(
        [
            ("where", f"Where is the {thing}?", place, places, f"{owns} {stands}"),
            ("colour", f"Which colour has the thing in the {place}?", colour, colours, f"{stands} {owns}"),
            ("thing", f"What is in the {place}?", f"the {thing}", [f"the {t}" for t in things], f"{stands} {owns}"),
            ("who", f"Who has the {thing}?", name, names, owns),
        ]
    )
    spare = [draw.choice(PLACES)] if template == "where" else [draw.choice(COLOURS)] if template == "colour" else []
    wrong = [choice for choice in [*pool, *spare] if choice != right]
    draw.shuffle(wrong)
    return _ask(draw, f"reading/{template}", f"{' '.join(facts)} {asked}", right, wrong, reasoning)


# --- kinds: the odd one out ---

KINDS = {"animal": ANIMALS, "fruit": FRUITS, "colour": COLOURS, "place": PLACES, "thing": THINGS, "day": DAYS}
KIND_OF = {word: kind for kind, words in KINDS.items() for word in words}


def _odd_one_out(draw: random.Random) -> Question:
    kind, other = draw.sample(list(KINDS), 2)
    right, wrong = draw.choice(KINDS[other]), draw.sample(KINDS[kind], 4)
    asked = draw.choice([f"Which one is not {a(kind)}?", "Which one does not belong with the others?"])
    question = _ask(draw, "kinds/odd", asked, right, wrong, "")
    lines = "\n".join(f"{choice} is {a(KIND_OF[choice])}." for choice in question.choices)
    return question._replace(reasoning=f"{lines}\nThe odd one is {right}.")


def _member(draw: random.Random) -> Question:
    kind, *others = draw.sample(list(KINDS), 5)
    right, wrong = draw.choice(KINDS[kind]), [draw.choice(KINDS[other]) for other in others]
    question = _ask(draw, "kinds/member", f"Which one is {a(kind)}?", right, wrong, "")
    lines = "\n".join(f"{choice} is {a(KIND_OF[choice])}." for choice in question.choices)
    return question._replace(reasoning=f"{lines}\nThe {kind} is {right}.")


# --- calendar: days counted forwards, or backwards ---


def _calendar(draw: random.Random, forwards: bool) -> Question:
    start, days = draw.randrange(7), draw.randint(3, 40)
    rest, sign = days % 7, 1 if forwards else -1
    path = [DAYS[(start + sign * i) % 7] for i in range(rest + 1)]
    asked = f"What day is it in {days} days?" if forwards else f"What day was it {days} days ago?"
    wrong = draw.sample([day for day in DAYS if day != path[-1]], 4)
    reasoning = f"{days} days are {days // 7} weeks and {rest} days: {', '.join(path)}."
    template = "calendar/forwards" if forwards else "calendar/backwards"
    return _ask(draw, template, f"Today is {DAYS[start]}. {asked}", path[-1], wrong, reasoning)


# --- sequences: the next number ---


def _sequence(draw: random.Random, rising: bool) -> Question:
    step, start, length = draw.randint(3, 29), draw.randint(2, 90), draw.randint(3, 4)
    if not rising:
        start += step * 6
    sign = "+" if rising else "-"
    signed = step if rising else -step
    terms = [start + signed * i for i in range(length + 1)]
    difference = f"{terms[1]}-{terms[0]}={step}" if rising else f"{terms[0]}-{terms[1]}={step}"
    question = f"Which number comes next: {', '.join(map(str, terms[:-1]))}?"
    reasoning = f"{difference}\n{terms[-2]}{sign}{step}={terms[-1]}"
    template = "sequence/rising" if rising else "sequence/falling"
    wrong = [str(terms[-1] + slip) for slip in draw.sample([-10, -2, -1, 1, 2, 10, step], 7)]
    return _ask(draw, template, question, str(terms[-1]), wrong, reasoning)


# --- counting: how many of the words are of a kind ---


def _count(draw: random.Random) -> Question:
    kind, other = draw.sample(["animal", "fruit", "colour", "place"], 2)
    many, few = draw.randint(2, 6), draw.randint(1, 5)
    words = draw.sample(KINDS[kind], many) + draw.sample(KINDS[other], few)
    draw.shuffle(words)
    counted = [word for word in words if KIND_OF[word] == kind]
    question = f"How many of these are {plural(kind)}: {', '.join(words)}?"
    reasoning = ", ".join(f"{word} {i}" for i, word in enumerate(counted, 1)) + "."
    wrong = draw.sample([str(n) for n in range(1, 9) if n != many], 4)
    return _ask(draw, "counting/kind", question, str(many), wrong, reasoning)


TEMPLATES: dict[str, Callable[[random.Random], Question]] = {
    "arithmetic/value": _value,
    "comparison/largest": lambda draw: _extreme(draw, largest=True),
    "comparison/smallest": lambda draw: _extreme(draw, largest=False),
    "ordering/taller": lambda draw: _ordering(draw, "taller", "tallest", "shortest"),
    "ordering/faster": lambda draw: _ordering(draw, "faster", "fastest", "slowest"),
    "ordering/older": lambda draw: _ordering(draw, "older", "oldest", "youngest"),
    "reading/passage": _passage,
    "kinds/odd": _odd_one_out,
    "calendar/forwards": lambda draw: _calendar(draw, forwards=True),
    "sequence/rising": lambda draw: _sequence(draw, rising=True),
    "counting/kind": _count,
}
HELD_OUT_TEMPLATES: dict[str, Callable[[random.Random], Question]] = {
    "arithmetic/missing": _missing,
    "ordering/heavier": lambda draw: _ordering(draw, "heavier", "heaviest", "lightest"),
    "kinds/member": _member,
    "calendar/backwards": lambda draw: _calendar(draw, forwards=False),
    "sequence/falling": lambda draw: _sequence(draw, rising=False),
}


def question(draw: random.Random, templates: Sequence[str]) -> Question:
    """Draw a question of one of the templates."""
    return (TEMPLATES | HELD_OUT_TEMPLATES)[draw.choice(templates)](draw)


def eliminated(drawn: Question) -> str:
    """Write the reasoning, then the options one by one until one matches, then the letter."""
    lines = [f"({LABELS[i]}) {choice}: no." for i, choice in enumerate(drawn.choices[: drawn.answer])]
    label = LABELS[drawn.answer]
    lines.append(f"({label}) {drawn.choices[drawn.answer]}: yes.")
    return "\n".join([drawn.reasoning, *lines, f"The answer is ({label})."])


def concluded(drawn: Question) -> str:
    """Write the reasoning, then the text of the right option."""
    return f"{drawn.reasoning}\nThe answer is {drawn.choices[drawn.answer]}."


def content(drawn: Question) -> str:
    """Return what makes a question the same as another: its text and its options, in whatever order."""
    return "\n".join([drawn.question, *sorted(drawn.choices)])


def item(drawn: Question) -> dict[str, object]:
    """Return a question in the schema of MMLU."""
    return {
        "question": drawn.question,
        "subject": drawn.subject,
        "choices": drawn.choices,
        "answer": drawn.answer,
        "template": drawn.template,
    }
