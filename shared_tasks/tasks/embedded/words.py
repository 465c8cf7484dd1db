"""The small world that the embedded sets and the course models' text speak of."""

import hashlib
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
COLOURS = "red blue green yellow white black brown grey pink purple golden silver".split()
THINGS = "ball book kite hat cup lamp drum boat box key coin shell stone ribbon basket ladder map whistle".split()
FRUITS = "apple pear plum cherry nut fig lemon melon grape berry date peach".split()
ANIMALS = "dog cat horse bird fox hen goat duck mouse rabbit frog owl".split()
PLACES = "garden kitchen forest market school park harbour library barn field attic village river".split()
HELPERS = "mother father sister brother friend teacher neighbour grandmother uncle aunt".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

HELD_OUT_SHARE = 16  # one item in so many belongs to the held-out splits and is never trained on


def held_out(content: str) -> bool:
    """Return whether an item belongs to the held-out splits, which follows from its content alone.

    Whoever trains on generated items leaves these out, and so has seen no item of any held-out split, hidden or not,
    without knowing which they are.
    """
    return hashlib.sha256(content.encode()).digest()[0] < 256 // HELD_OUT_SHARE


def a(noun: str) -> str:
    """Return a noun with its indefinite article."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def plural(noun: str) -> str:
    """Return the plural of a noun."""
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("x", "ch", "sh")) else "s")
