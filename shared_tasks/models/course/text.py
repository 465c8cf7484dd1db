"""The text that the course models learn from: short documents drawn from templates, endless and seeded."""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Person(NamedTuple):
    """A protagonist: a name and the pronouns that go with it."""

    name: str
    subject: str
    object: str
    possessive: str


GIRLS = "Ada Mia Lena Zoe Nora Ruth Clara Ines Vera Olga Hana Tara Yuki Amal Sofia Edith".split()
BOYS = "Ben Tom Karl Omar Ivan Felix Hugo Noah Liam Paul Emil Raj Jonas Akira Luis Otto".split()
PEOPLE = [Person(name, "she", "her", "her") for name in GIRLS] + [Person(name, "he", "him", "his") for name in BOYS]
COLOURS = "red blue green yellow white black brown grey pink purple orange golden".split()
THINGS = "ball book kite hat cup lamp drum boat box key coin shell stone ribbon basket ladder map whistle".split()
FRUITS = "apple pear plum cherry nut fig lemon orange melon grape berry date".split()
ANIMALS = "dog cat horse bird fox hen goat duck mouse rabbit frog owl".split()
PLACES = "garden kitchen forest market school park harbour library barn field attic village".split()
MOODS = "happy proud tired calm curious hungry brave sleepy cheerful surprised".split()
WEATHER = [
    "It was a sunny morning.",
    "It was raining outside.",
    "The wind was cold.",
    "Snow lay on the roofs.",
    "The night was clear.",
]
HELPERS = "mother father sister brother friend teacher neighbour grandmother uncle".split()


def documents(seed: int) -> Iterator[str]:
    """Yield documents for ever; a seed always yields the same ones."""
    draw = random.Random(seed)
    kinds: list[tuple[Callable[[random.Random], str], int]] = [
        (story, 6),
        (word_problem, 6),
        (sums, 4),
        (question, 4),
        (comparison, 2),
        (counting, 2),
    ]
    writers, weights = [kind for kind, _ in kinds], [weight for _, weight in kinds]
    while True:
        yield draw.choices(writers, weights)[0](draw)


def story(draw: random.Random) -> str:
    """Write about one person who loses, finds or meets something; pronouns agree."""
    person, helper = draw.choice(PEOPLE), draw.choice(HELPERS)
    colour, thing, animal, mood = (draw.choice(words) for words in (COLOURS, THINGS, ANIMALS, MOODS))
    here, there = draw.sample(PLACES, 2)
    she, her = person.subject, person.possessive
    start = draw.choice(WEATHER)
    plots = [
        f"{person.name} had {_a(colour)} {thing}. One day {she} lost the {thing} in the {here}. {she.capitalize()} "
        f"looked in the {there}, but the {thing} was not there. Then {her} {helper} came and said: I saw your {thing} "
        f"in the {here}. {person.name} ran to the {here} and found the {colour} {thing}. {she.capitalize()} was {mood} "
        f"again.",
        f"{person.name} went to the {here} with {her} {helper}. There {she} saw {_a(animal)}. The {animal} was {mood}. "
        f"{person.name} gave the {animal} {_a(draw.choice(FRUITS))}, and the {animal} followed {person.object} to the "
        f"{there}. Now the {animal} lives in the {there}.",
        f"In the {here} there was {_a(colour)} {thing}. Nobody knew whose {thing} it was. {person.name} asked {her} "
        f"{helper}. It is mine, said the {helper}, I left it in the {here} yesterday. {person.name} gave the {thing} "
        f"to {her} {helper}, and the {helper} was {mood}.",
        f"{person.name} wanted a {thing}. {she.capitalize()} went from the {here} to the {there} and asked {her} "
        f"{helper}. The {helper} made {_a(colour)} {thing} for {person.object}. {person.name} was {mood} and "
        f"took the {colour} {thing} home.",
    ]
    return f"{start} {draw.choice(plots)}" if draw.random() < 0.5 else draw.choice(plots)


def word_problem(draw: random.Random) -> str:
    """Tell of things that are bought, found, eaten or given away, with the sum worked out."""
    person, fruit = draw.choice(PEOPLE), draw.choice(FRUITS)
    she = person.subject
    have = draw.randint(2, 60)
    if draw.random() < 0.5:
        more = draw.randint(2, 39)
        verb = draw.choice(["buys", "finds", "picks", "gets"])
        left, sign, step = have + more, "+", f"{she.capitalize()} {verb} {more} more."
    else:
        have, more = have + 20, draw.randint(2, 20)
        verb = draw.choice(["eats", "sells", "loses", "gives away"])
        left, sign, step = have - more, "-", f"{she.capitalize()} {verb} {more} of them."
    return (
        f"{person.name} has {have} {_plural(fruit)}. {step} How many {_plural(fruit)} does {she} have now? "
        f"{have} {sign} {more} = {left}. The answer is {left}."
    )


def sums(draw: random.Random) -> str:
    """Write a line of sums and differences."""
    lines = []
    for _ in range(draw.randint(2, 5)):
        a, b = draw.randint(0, 99), draw.randint(0, 99)
        if draw.random() < 0.6:
            lines.append(f"{a} + {b} = {a + b}")
        else:
            lines.append(f"{max(a, b)} - {min(a, b)} = {abs(a - b)}")
    return "\n".join(lines)


def question(draw: random.Random) -> str:
    """State some facts and ask for one of them."""
    people, things = draw.sample(PEOPLE, 3), draw.sample(THINGS, 3)
    colours, places = draw.sample(COLOURS, 3), draw.sample(PLACES, 3)
    facts = [
        f"{person.name} has {_a(colour)} {thing} and is in the {place}."
        for person, thing, colour, place in zip(people, things, colours, places, strict=True)
    ]
    i = draw.randrange(3)
    name, thing, colour, place = people[i].name, things[i], colours[i], places[i]
    asked, answer = draw.choice(
        [
            (f"Where is {name}?", f"{name} is in the {place}."),
            (f"What does {name} have?", f"{name} has {_a(colour)} {thing}."),
            (f"Which colour is the {thing}?", f"The {thing} is {colour}."),
            (f"Who has the {thing}?", f"{name} has the {thing}."),
        ]
    )
    return f"{' '.join(facts)}\nQuestion: {asked}\nAnswer: {answer}"


def comparison(draw: random.Random) -> str:
    """Compare two numbers or two people's counts."""
    a, b = draw.sample(range(1, 100), 2)
    if draw.random() < 0.5:
        return (
            f"{a} is {'larger' if a > b else 'smaller'} than {b}. {b} is {'larger' if b > a else 'smaller'} than {a}."
        )
    (first, second), thing = draw.sample(PEOPLE, 2), draw.choice(THINGS)
    richer = first if a > b else second
    return (
        f"{first.name} has {a} {_plural(thing) if a > 1 else thing} and {second.name} has {b} "
        f"{_plural(thing) if b > 1 else thing}. {richer.name} has more."
    )


def counting(draw: random.Random) -> str:
    """Count up or down in equal steps."""
    step, start, length = draw.choice([1, 1, 2, 5, 10]), draw.randint(0, 40), draw.randint(4, 9)
    numbers = [start + step * i for i in range(length)]
    if draw.random() < 0.3:
        numbers.reverse()
    return f"Counting by {step}: {', '.join(map(str, numbers))}."


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _plural(noun: str) -> str:
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("x", "ch", "sh")) else "s")
