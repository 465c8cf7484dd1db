"""Word problems with two to six steps of arithmetic, each with its solution in several styles of reasoning."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shared_tasks.tasks.embedded.words import FRUITS, HELPERS, PEOPLE, THINGS, Person, plural

LARGEST = 999  # no quantity of a problem is larger


class Quantity(NamedTuple):
    """A number of a problem: given in the text (no step), or the result of a step."""

    value: int
    step: int | None = None


class Step(NamedTuple):
    """One operation: its operands, and the sentence that says it, with `{}` where the equation stands."""

    left: Quantity
    operator: str
    right: Quantity
    result: int
    sentence: str


@dataclass
class Problem:
    """A problem as it is being told: the sentences so far, the steps of the solution, the question at the end."""

    template: str
    sentences: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def question(self) -> str:
        """The text of the problem."""
        return " ".join(self.sentences)

    @property
    def answer(self) -> int:
        """The result of the last step."""
        return self.steps[-1].result

    def say(self, *sentences: str) -> None:
        """Add sentences to the text."""
        self.sentences.extend(sentences)

    def step(self, left: int | Quantity, operator: str, right: int | Quantity, sentence: str) -> Quantity:
        """Add a step to the solution and return its result.

        Raises Unsuitable when the result is not a whole number from 1 to LARGEST.
        """
        left, right = _quantity(left), _quantity(right)
        a, b = left.value, right.value
        if operator == "/":
            if b == 0 or a % b:
                raise Unsuitable
            result = a // b
        else:
            result = {"+": a + b, "-": a - b, "*": a * b}[operator]
        if not 1 <= result <= LARGEST:
            raise Unsuitable
        self.steps.append(Step(left, operator, right, result, sentence))
        return Quantity(result, len(self.steps) - 1)


class Unsuitable(Exception):
    """The numbers drawn do not work out; draw again."""


def _quantity(number: int | Quantity) -> Quantity:
    return number if isinstance(number, Quantity) else Quantity(number)


# --- Templates. Each tells a problem with numbers, names and events drawn anew. ---


def _collection(draw: random.Random, problem: Problem) -> None:
    person, item = draw.choice(PEOPLE), plural(draw.choice(THINGS + FRUITS))
    she, have = person.subject, draw.randint(15, 150)
    problem.say(f"{person.name} has {have} {item}.")
    _events(draw, problem, person, item, Quantity(have), draw.randint(2, 5))
    problem.say(f"How many {item} does {she} have now?")


def _events(draw: random.Random, problem: Problem, person: Person, item: str, now: Quantity, count: int) -> Quantity:
    """Let `count` things happen to a person's items, at most one of which takes two steps."""
    she, She, her = person.subject, person.subject.capitalize(), person.possessive
    opener = ["Then ", "The next day ", "After that ", "Later "]
    packed = False
    while count > 0:
        start = draw.choice(opener)
        kind = draw.choices(["more", "less", "packs", "times", "share"], [4, 4, 3, 1, 1])[0]
        if kind == "more":
            n = draw.randint(11, 180)
            verb = draw.choice(["buys", "finds", "gets"])
            problem.say(f"{start}{she} {verb} {n} more.")
            now = problem.step(now, "+", n, f"{She} {verb} {n} more, so {she} has {{}} {item}.")
        elif kind == "less" and now.value > 15:
            n = draw.randint(6, min(now.value - 3, 180))
            verb = draw.choice(["loses", "sells", "gives away"])
            problem.say(f"{start}{she} {verb} {n} of them.")
            now = problem.step(now, "-", n, f"{She} {verb} {n}, so {she} has {{}} {item}.")
        elif kind == "packs" and count > 1 and not packed:
            packs, each = draw.randint(3, 9), draw.randint(6, 36)
            problem.say(f"{start}{she} buys {packs} packs of {each} {item}.")
            bought = problem.step(packs, "*", each, f"The {packs} packs hold {{}} {item}.")
            now = problem.step(now, "+", bought, f"With the packs {she} has {{}} {item}.")
            packed, count = True, count - 1
        elif kind == "times" and now.value < 200:
            n = draw.randint(2, 4)
            helper = draw.choice(HELPERS)
            problem.say(f"{start}{her} {helper} makes it {n} times as many.")
            now = problem.step(now, "*", n, f"{n} times as many are {{}} {item}.")
        elif kind == "share":
            n = next((n for n in draw.sample(range(2, 8), 6) if now.value % n == 0 and now.value // n > 10), 0)
            if not n:
                continue
            problem.say(f"{start}{she} shares them equally among {n} children and takes the part of one.")
            now = problem.step(now, "/", n, f"The part of one is {{}} {item}.")
        else:
            continue
        count -= 1
    return now


def _shopping(draw: random.Random, problem: Problem) -> None:
    person, items = draw.choice(PEOPLE), draw.sample(THINGS, 3)
    she, She = person.subject, person.subject.capitalize()
    kinds = draw.randint(2, 3)
    total: Quantity | None = None
    for i, item in enumerate(items[:kinds]):
        count, price = draw.randint(2, 9), draw.randint(3, 34)
        verb = f"{person.name} buys" if i == 0 else f"{She} also buys"
        problem.say(f"{verb} {count} {plural(item)} at {price} dollars each.")
        cost = problem.step(count, "*", price, f"The {plural(item)} cost {{}} dollars.")
        total = cost if total is None else problem.step(total, "+", cost, "Together that makes {} dollars.")
    assert total is not None
    if draw.random() < 0.5:
        paid = (total.value // 50 + draw.randint(1, 3)) * 50
        problem.say(f"{She} pays with {paid} dollars.", f"How many dollars does {she} get back?")
        problem.step(paid, "-", total, f"{She} gets {{}} dollars back.")
    else:
        problem.say(f"How many dollars does {she} pay?")


def _comparison(draw: random.Random, problem: Problem) -> None:
    people, item = draw.sample(PEOPLE, 4), plural(draw.choice(THINGS + FRUITS))
    count = draw.randint(3, 4)
    amounts = [Quantity(draw.randint(14, 110))]
    problem.say(f"{people[0].name} has {amounts[0].value} {item}.")
    for i in range(1, count):
        other = draw.randrange(i)
        kind = draw.choices(["more", "fewer", "times"], [3, 3, 2])[0]
        me, them = people[i].name, people[other].name
        if kind == "more":
            n = draw.randint(7, 90)
            problem.say(f"{me} has {n} more than {them}.")
            amounts.append(problem.step(amounts[other], "+", n, f"{me} has {{}} {item}."))
        elif kind == "fewer":
            n = draw.randint(5, max(6, amounts[other].value - 2))
            problem.say(f"{me} has {n} fewer than {them}.")
            amounts.append(problem.step(amounts[other], "-", n, f"{me} has {{}} {item}."))
        else:
            n = draw.randint(2, 5)
            problem.say(f"{me} has {n} times as many as {them}.")
            amounts.append(problem.step(n, "*", amounts[other], f"{me} has {{}} {item}."))
    if draw.random() < 0.5:
        problem.say(f"How many {item} do they have together?")
        total = amounts[0]
        for amount in amounts[1:]:
            total = problem.step(total, "+", amount, f"Together that makes {{}} {item}.")
    else:
        first = draw.randrange(count - 1)
        problem.say(f"How many {item} do {people[first].name} and {people[count - 1].name} have together?")
        problem.step(amounts[first], "+", amounts[count - 1], f"Together they have {{}} {item}.")


def _savings(draw: random.Random, problem: Problem) -> None:
    person, thing = draw.choice(PEOPLE), draw.choice(THINGS)
    she, She = person.subject, person.subject.capitalize()
    weekly, weeks, start = draw.randint(6, 45), draw.randint(3, 9), draw.randint(12, 190)
    problem.say(f"{person.name} has {start} dollars.", f"{She} saves {weekly} dollars every week for {weeks} weeks.")
    saved = problem.step(weekly, "*", weeks, f"In {weeks} weeks {she} saves {{}} dollars.")
    now = problem.step(start, "+", saved, f"Now {she} has {{}} dollars.")
    for gift in draw.sample(HELPERS, draw.randint(0, 2)):
        n = draw.randint(11, 95)
        problem.say(f"{She} spends {n} dollars on a gift for {person.possessive} {gift}.")
        now = problem.step(now, "-", n, f"After the gift {she} has {{}} dollars.")
    if draw.random() < 0.5:
        goal = now.value + draw.randint(9, 120)
        problem.say(f"A {thing} costs {goal} dollars.", f"How many dollars are missing for the {thing}?")
        problem.step(goal, "-", now, f"For the {thing} {{}} dollars are missing.")
    else:
        problem.say(f"How many dollars does {she} have now?")


def _reading(draw: random.Random, problem: Problem) -> None:
    person = draw.choice(PEOPLE)
    she, She = person.subject, person.subject.capitalize()
    pages, days, each = draw.randint(220, 900), draw.randint(3, 9), draw.randint(8, 39)
    problem.say(f"A book has {pages} pages.", f"{person.name} reads {each} pages a day for {days} days.")
    read = problem.step(each, "*", days, f"In {days} days {she} reads {{}} pages.")
    if draw.random() < 0.6:
        more = draw.randint(12, 80)
        problem.say(f"Then {she} reads {more} more pages.")
        read = problem.step(read, "+", more, f"With {more} more {she} has read {{}} pages.")
    left = problem.step(pages, "-", read, "So {} pages are left.")
    if draw.random() < 0.5:
        rest = next((n for n in draw.sample(range(2, 10), 8) if left.value % n == 0), 0)
        if not rest:
            raise Unsuitable
        problem.say(f"{She} reads the rest in {rest} equal parts.", "How many pages has each part?")
        problem.step(left, "/", rest, "Each part has {} pages.")
    else:
        problem.say("How many pages are left?")


def _boxes(draw: random.Random, problem: Problem) -> None:
    person, item = draw.choice(PEOPLE), plural(draw.choice(THINGS + FRUITS))
    she, She = person.subject, person.subject.capitalize()
    boxes, each = draw.randint(3, 9), draw.randint(12, 68)
    problem.say(f"{person.name} has {boxes} boxes of {each} {item}.")
    now = problem.step(boxes, "*", each, f"The {boxes} boxes hold {{}} {item}.")
    if draw.random() < 0.5:
        loose = draw.randint(7, 90)
        problem.say(f"{She} also has {loose} {item} in a bag.")
        now = problem.step(now, "+", loose, f"With the bag {she} has {{}} {item}.")
    lost = draw.randint(9, min(now.value - 5, 160))
    verb = draw.choice(["sells", "loses", "gives away"])
    problem.say(f"{She} {verb} {lost} of them.")
    now = problem.step(now, "-", lost, f"{She} {verb} {lost}, so {{}} {item} are left.")
    if draw.random() < 0.4:
        bags = next((n for n in draw.sample(range(2, 10), 8) if now.value % n == 0), 0)
        if not bags:
            raise Unsuitable
        problem.say(f"{She} puts the rest equally into {bags} bags.", f"How many {item} are in each bag?")
        problem.step(now, "/", bags, f"Each bag holds {{}} {item}.")
    else:
        problem.say(f"How many {item} are left?")


def _bakery(draw: random.Random, problem: Problem) -> None:
    person = draw.choice(PEOPLE)
    She = person.subject.capitalize()
    trays, each = draw.randint(3, 9), draw.randint(12, 48)
    problem.say(f"{person.name} bakes {trays} trays of {each} cakes.")
    now = problem.step(trays, "*", each, f"The {trays} trays hold {{}} cakes.")
    sold, price = draw.randint(15, min(now.value - 4, 90)), draw.randint(2, 7)
    if draw.random() < 0.5:
        problem.say(f"{She} keeps {sold} cakes and sells the rest at {price} dollars each.")
        now = problem.step(now, "-", sold, f"{She} sells {{}} cakes.")
        now = problem.step(now, "*", price, "For them {} dollars come in.")
        cost = draw.randint(20, 95)
        if draw.random() < 0.6:
            problem.say(f"The flour costs {cost} dollars.", "How many dollars are left after the flour is paid?")
            problem.step(now, "-", cost, "After the flour {} dollars are left.")
        else:
            problem.say("How many dollars come in?")
    else:
        more = draw.randint(13, 95)
        problem.say(f"{She} sells {sold} of them in the morning and {more} at noon.", "How many cakes are left?")
        now = problem.step(now, "-", sold, "After the morning {} cakes are left.")
        problem.step(now, "-", more, "After noon {} cakes are left.")


def _trip(draw: random.Random, problem: Problem) -> None:
    person = draw.choice(PEOPLE)
    she = person.subject
    total, speed, hours = draw.randint(350, 950), draw.randint(34, 95), draw.randint(2, 6)
    problem.say(
        f"{person.name} makes a trip of {total} kilometres.",
        f"First {she} drives {hours} hours at {speed} kilometres an hour.",
    )
    done = problem.step(hours, "*", speed, f"First {she} drives {{}} kilometres.")
    for _ in range(draw.randint(0, 2)):
        more = draw.randint(14, 120)
        problem.say(f"Then {she} drives {more} more kilometres.")
        done = problem.step(done, "+", more, f"With {more} more {she} has driven {{}} kilometres.")
    problem.say("How many kilometres are left?")
    problem.step(total, "-", done, "So {} kilometres are left.")


def _farm(draw: random.Random, problem: Problem) -> None:
    kinds = draw.sample(["hens", "ducks", "goats", "horses", "rabbits"], draw.randint(2, 3))
    base = draw.randint(12, 85)
    problem.say(f"On a farm there are {base} {kinds[0]}.")
    amounts = [Quantity(base)]
    for before, kind in itertools.pairwise(kinds):
        if draw.random() < 0.4:
            n = draw.randint(2, 4)
            problem.say(f"There are {n} times as many {kind} as {before}.")
            amounts.append(problem.step(n, "*", amounts[-1], f"There are {{}} {kind}."))
        else:
            n = draw.randint(8, 90)
            problem.say(f"There are {n} more {kind} than {before}.")
            amounts.append(problem.step(amounts[-1], "+", n, f"There are {{}} {kind}."))
    total = amounts[0]
    for amount in amounts[1:]:
        total = problem.step(total, "+", amount, "Together that makes {} animals.")
    if draw.random() < 0.5:
        sold = draw.randint(9, min(total.value - 5, 95))
        problem.say(f"The farmer sells {sold} animals.", "How many animals are left?")
        problem.step(total, "-", sold, "So {} animals are left.")
    else:
        problem.say("How many animals are there?")


def _work(draw: random.Random, problem: Problem) -> None:
    person = draw.choice(PEOPLE)
    she, She = person.subject, person.subject.capitalize()
    hours, days, wage = draw.randint(3, 9), draw.randint(2, 6), draw.randint(8, 19)
    problem.say(f"{person.name} works {hours} hours a day for {days} days.", f"{She} gets {wage} dollars an hour.")
    time = problem.step(hours, "*", days, f"{She} works {{}} hours.")
    now = problem.step(time, "*", wage, f"For that {she} gets {{}} dollars.")
    if draw.random() < 0.4:
        n = draw.randint(12, 95)
        problem.say(f"{She} also gets {n} dollars from {person.possessive} {draw.choice(HELPERS)}.")
        now = problem.step(now, "+", n, f"With {n} more {she} has {{}} dollars.")
    n = draw.randint(13, min(190, now.value - 5))
    problem.say(f"{She} spends {n} dollars.", f"How many dollars does {she} have left?")
    problem.step(now, "-", n, f"After that {she} has {{}} dollars left.")


# Held-out templates put moments of the others together anew.


def _fair(draw: random.Random, problem: Problem) -> None:
    person = draw.choice(PEOPLE)
    she, She = person.subject, person.subject.capitalize()
    trays, each, price = draw.randint(3, 9), draw.randint(12, 48), draw.randint(2, 7)
    problem.say(f"{person.name} bakes {trays} trays of {each} cakes.")
    now = problem.step(trays, "*", each, f"The {trays} trays hold {{}} cakes.")
    kept = draw.randint(15, min(now.value - 4, 90))
    problem.say(f"{She} keeps {kept} cakes and sells the rest at {price} dollars each.")
    now = problem.step(now, "-", kept, f"{She} sells {{}} cakes.")
    now = problem.step(now, "*", price, "For them {} dollars come in.")
    spent = draw.randint(11, 95)
    problem.say(f"{She} spends {spent} dollars on a gift for {person.possessive} {draw.choice(HELPERS)}.")
    problem.say(f"How many dollars does {she} have left?")
    problem.step(now, "-", spent, f"After the gift {she} has {{}} dollars left.")


def _wages(draw: random.Random, problem: Problem) -> None:
    person, item = draw.choice(PEOPLE), plural(draw.choice(THINGS))
    she, She = person.subject, person.subject.capitalize()
    hours, days, wage = draw.randint(3, 9), draw.randint(2, 6), draw.randint(8, 19)
    problem.say(f"{person.name} works {hours} hours a day for {days} days.", f"{She} gets {wage} dollars an hour.")
    time = problem.step(hours, "*", days, f"{She} works {{}} hours.")
    now = problem.step(time, "*", wage, f"For that {she} gets {{}} dollars.")
    count, price = draw.randint(2, 9), draw.randint(3, 34)
    problem.say(f"{She} buys {count} {item} at {price} dollars each.", f"How many dollars does {she} have left?")
    cost = problem.step(count, "*", price, f"The {item} cost {{}} dollars.")
    problem.step(now, "-", cost, f"After that {she} has {{}} dollars left.")


def _harvest(draw: random.Random, problem: Problem) -> None:
    person, item = draw.choice(PEOPLE), plural(draw.choice(THINGS + FRUITS))
    boxes, each = draw.randint(3, 9), draw.randint(12, 68)
    problem.say(f"{person.name} has {boxes} boxes of {each} {item}.")
    now = problem.step(boxes, "*", each, f"The {boxes} boxes hold {{}} {item}.")
    _events(draw, problem, person, item, now, draw.randint(1, 3))
    problem.say(f"How many {item} does {person.subject} have now?")


TEMPLATES: dict[str, Callable[[random.Random, Problem], None]] = {
    "collection": _collection,
    "shopping": _shopping,
    "comparison": _comparison,
    "savings": _savings,
    "reading": _reading,
    "boxes": _boxes,
    "bakery": _bakery,
    "trip": _trip,
    "farm": _farm,
    "work": _work,
}
HELD_OUT_TEMPLATES: dict[str, Callable[[random.Random, Problem], None]] = {
    "fair": _fair,
    "wages": _wages,
    "harvest": _harvest,
}


def problem(draw: random.Random, templates: Sequence[str]) -> Problem:
    """Draw a problem of one of the templates, with two to six steps."""
    name = draw.choice(templates)
    while True:
        drawn = Problem(name)
        try:
            (TEMPLATES | HELD_OUT_TEMPLATES)[name](draw, drawn)
        except Unsuitable:
            continue
        drawn.steps = _needed(drawn.steps)
        if 2 <= len(drawn.steps) <= 6:
            return drawn


def _needed(steps: list[Step]) -> list[Step]:
    """Return the steps that the last one depends on, numbered anew."""
    needed = {len(steps) - 1}
    for i in range(len(steps) - 1, -1, -1):
        if i in needed:
            needed |= {operand.step for operand in (steps[i].left, steps[i].right) if operand.step is not None}
    place = {old: new for new, old in enumerate(sorted(needed))}

    def moved(operand: Quantity) -> Quantity:
        return operand if operand.step is None else Quantity(operand.value, place[operand.step])

    kept = [steps[i] for i in sorted(needed)]
    return [step._replace(left=moved(step.left), right=moved(step.right)) for step in kept]


# --- Styles of reasoning, from the shortest to the longest. All write their arithmetic as equations. ---


def terse(problem: Problem) -> str:
    """Write the solution as bare equations, and take shortcuts where it is long: four steps and more are `fused`."""
    if len(problem.steps) >= 4:
        return fused(problem)
    return "\n".join([*map(_equation, problem.steps), f"#### {problem.answer}"])


def fused(problem: Problem) -> str:
    """Write the solution with two operations an equation wherever one feeds the next: short, and easy to get wrong."""
    lines: list[str] = []
    steps, i = problem.steps, 0
    while i < len(steps):
        step = steps[i]
        following = steps[i + 1] if i + 1 < len(steps) else None
        later = [operand.step for other in steps[i + 2 :] for operand in (other.left, other.right)]
        operands = [] if following is None else [following.left.step, following.right.step]
        if following is not None and operands.count(i) == 1 and i not in later:
            inner = f"{step.left.value}{step.operator}{step.right.value}"
            first = following.left.step == i
            wrap = (
                (step.operator in "+-" and following.operator in "*/")
                or (not first and following.operator == "-" and step.operator in "+-")
                or (not first and following.operator == "/")
            )
            inner = f"({inner})" if wrap else inner
            left, right = (inner, following.right.value) if first else (following.left.value, inner)
            lines.append(f"{left}{following.operator}{right}={following.result}")
            i += 2
        else:
            lines.append(_equation(step))
            i += 1
    return "\n".join([*lines, f"#### {problem.answer}"])


def equations(problem: Problem) -> str:
    """Write the solution as numbered equations, one operation each."""
    lines = [f"Step {i}: {_equation(step)}" for i, step in enumerate(problem.steps, 1)]
    return "\n".join([*lines, f"#### {problem.answer}"])


def prose(problem: Problem) -> str:
    """Write the solution in sentences, each with its equation."""
    lines = [step.sentence.format(_equation(step)) for step in problem.steps]
    return "\n".join([*lines, f"#### {problem.answer}"])


def careful(problem: Problem) -> str:
    """Write the solution with every operation broken down by place value: long, and hard to get wrong."""
    lines = [worked(step.left.value, step.operator, step.right.value) for step in problem.steps]
    return "\n".join(["Let us work it out.", *lines, f"#### {problem.answer}"])


def worked(left: int, operator: str, right: int) -> str:
    """Write an operation as a chain of equal expressions, one place at a time: `48+27=68+7=75`."""
    result = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[operator]
    chain = [f"{left}{operator}{right}"]
    if operator in "+-":
        parts = _places(right)
        sign = 1 if operator == "+" else -1
        for i, part in enumerate(parts[:-1]):
            left += sign * part
            chain.append(f"{left}{operator}{sum(parts[i + 1 :])}")
    elif operator == "*":
        if left < 10 and len(str(right)) > 1:
            left, right = right, left
        parts = [part * right for part in _places(left)]
        while len(parts) > 1:
            chain.append("+".join(map(str, parts)))
            parts = [parts[0] + parts[1], *parts[2:]]
    return "=".join([*chain, str(result)])


def _places(number: int) -> list[int]:
    """Return the parts of a number by place: 307 is 300 and 7."""
    digits = str(number)
    return [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits) if d != "0"]


def _equation(step: Step) -> str:
    return f"{step.left.value}{step.operator}{step.right.value}={step.result}"


def item(drawn: Problem) -> dict[str, object]:
    """Return a problem in the schema of GSM8K, with its template and its number of steps."""
    return {
        "question": drawn.question,
        "answer": prose(drawn),
        "template": drawn.template,
        "steps": len(drawn.steps),
    }
