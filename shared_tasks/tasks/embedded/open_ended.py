"""Requests for a short story under constraints that a program can check, each with a story that meets them.

A story comes first, from a small grammar of plots; the constraints are then drawn among those that the story meets, in
the instruction types and keyword arguments of IFEval (Zhou et al., 2023, https://arxiv.org/abs/2311.07911).
"""

import random
import re
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from shared_tasks.tasks.embedded.words import ANIMALS, COLOURS, FRUITS, HELPERS, PEOPLE, PLACES, THINGS, a

GLAD, SORRY = "happy proud glad cheerful calm".split(), "sad tired worried cold lonely".split()
ENDINGS = ["The end.", "Good night.", "That was a good day.", "Nobody ever forgot it."]
POSTSCRIPTS = ["The {thing} is still there.", "It is a true story.", "{name} told me so.", "The {helper} knows it too."]


class Beat(NamedTuple):
    """A moment of a plot: ways to tell it, and whether it may be left out."""

    tellings: tuple[str, ...]
    optional: bool = False


def _must(*tellings: str) -> Beat:
    return Beat(tellings)


def _may(*tellings: str) -> Beat:
    return Beat(tellings, optional=True)


OPENING = _may(
    "It was a sunny morning.", "It was raining outside.", "The wind was cold that day.", "Snow lay on the roofs."
)
ON_THE_WAY = _may(
    "On the way {she} saw {an_other} in the grass.",
    "On the way {she} passed an old {other}.",
    "{She} also carried {an_other}, because {she} might need it.",
    "{Her} bag held {an_other} and {a_fruit}.",
)
PLOTS: dict[str, list[Beat]] = {
    "lost": [
        OPENING,
        _must("{name} had {a_colour} {thing}.", "{name} loved {her} {colour} {thing} very much."),
        _may("It was a gift from {her} {helper}.", "{Her} {helper} had made it for {object}."),
        _must("One day {she} lost the {thing} in the {here}.", "One day the {thing} was gone."),
        _may("{She} was very {sorry}.", "{name} felt {sorry} and did not want to eat."),
        _must("First {she} looked in the {there}, but it was not there.", "{She} looked for it in the {there}."),
        ON_THE_WAY,
        _may("Then {she} asked {her} {helper} for help.", "{Her} {helper} helped {object} to search."),
        _must(
            "At last {a_animal} showed {object} the way to the {here}.",
            "Then {a_animal} came out of the {here} with the {thing}.",
            "In the {here} {a_animal} was sleeping on the {thing}.",
        ),
        _may("{name} thanked the {animal} and gave it {a_fruit}.", "The {animal} got {a_fruit} for its help."),
        _must("{name} took the {colour} {thing} home and was {glad} again.", "Now {name} had {her} {thing} back."),
        _may("{She} never lost it again.", "From then on {she} kept it in the {there}."),
    ],
    "friend": [
        OPENING,
        _must("{name} went to the {here} with {her} {helper}.", "One day {name} walked through the {here}."),
        _may("{She} had {her} {colour} {thing} with {object}.", "{She} played with {a_colour} {thing}."),
        ON_THE_WAY,
        _must("There {she} met {a_animal}.", "Behind a wall {she} found {a_animal}."),
        _must("The {animal} was {sorry} and hungry.", "The {animal} looked {sorry}, so {name} sat down beside it."),
        _must("{name} gave it {a_fruit} to eat.", "{She} shared {her} {fruit} with the {animal}."),
        _may("The {animal} liked the {fruit} very much.", "After that the {animal} was not afraid any more."),
        _may("They played with the {colour} {thing} until the evening.", "The {animal} wanted to see the {thing}."),
        _must("Then the {animal} followed {name} to the {there}.", "{name} showed the {animal} the {there}."),
        _may("{Her} {helper} laughed when {she} told the story.", "{Her} {helper} said that it could stay."),
        _must("Now the {animal} lives in the {there}.", "Since that day {name} and the {animal} are friends."),
        _may("{name} is {glad} about it.", "Every morning it waits for {object}."),
    ],
    "gift": [
        OPENING,
        _must("{name} wanted to make a gift for {her} {helper}.", "It was the birthday of the {helper} of {name}."),
        _may("{She} did not have much money.", "{She} thought about it all night."),
        _must("In the {here} {she} found an old {thing}.", "{She} found a broken {thing} in the {here}."),
        ON_THE_WAY,
        _must("{She} painted the {thing} {colour}.", "With {colour} paint {she} made the {thing} new."),
        _may("While it dried, {she} ate {a_fruit}.", "{A_animal} watched {object} all the time."),
        _may("The work was hard and {name} was {sorry}.", "It took {object} the whole day."),
        _must("Then {she} carried it to the {there}.", "In the evening {she} hid it in the {there}."),
        _must("{Her} {helper} saw the {colour} {thing} and was {glad}.", "The {helper} had never been so {glad}."),
        _may("They sat together and shared {a_fruit}.", "Even the {animal} came to look at it."),
        _may("The {thing} stands in the {there} to this day.", "{name} was {glad} too."),
    ],
    "secret": [
        OPENING,
        _must("There was {a_colour} {thing} in the {here}.", "In the {here} lay {a_colour} {thing}."),
        _may("Nobody knew where it came from.", "It had been there for many years."),
        _must("{name} found it and wondered whose it was.", "One day {name} picked it up."),
        _must(
            "{She} asked {a_animal}, but the {animal} only looked at {object}.", "{She} showed it to {her} {helper}."
        ),
        ON_THE_WAY,
        _may("{She} walked to the {there} with it.", "In the {there} {she} sat down and ate {a_fruit}."),
        _must("Then {she} heard a voice from inside the {thing}.", "Then {she} saw a small note on the {thing}."),
        _must(
            "It said that {a_animal} was waiting in the {there}.",
            "It said that whoever finds the {thing} may keep it.",
            "It told {object} to bring {a_fruit} to the {there}.",
        ),
        _may("{name} was {sorry} at first, but {she} did it.", "{name} ran as fast as {she} could."),
        _must("In the end {she} took the {thing} home.", "So the {colour} {thing} found its way back."),
        _may("{Her} {helper} still tells this story.", "{name} was {glad} and kept the secret."),
    ],
    "contest": [
        OPENING,
        _must("There was a contest in the {here}.", "Every year there is a contest in the {here}."),
        _must("{name} wanted to win with {her} {colour} {thing}.", "{name} came with {a_colour} {thing}."),
        _may("{Her} {helper} had taught {object} everything.", "For weeks {she} had practised in the {there}."),
        ON_THE_WAY,
        _must("But {a_animal} was faster than all the others.", "Just then {a_animal} ran away with the {thing}."),
        _may("Everybody laughed, and {name} was {sorry}.", "{name} was {sorry} but did not give up."),
        _must("{She} ran after it to the {there}.", "{name} caught the {animal} in the {there}."),
        _may("{She} gave the {animal} {a_fruit} and took the {thing} back.", "The {animal} only wanted {a_fruit}."),
        _must("In the end {name} won {a_fruit} and was {glad}.", "In the end {name} and the {animal} won together."),
        _may("{Her} {helper} was very proud.", "The {helper} hung the {thing} on the wall."),
    ],
}


@dataclass(frozen=True)
class Shape:
    """The form that a story is asked to have, chosen before it is told."""

    lowercase: bool = False
    quoted: bool = False
    titled: bool = False
    no_comma: bool = False
    ending: str = ""
    postscript: bool = False


class Item(NamedTuple):
    """A request: its text, its constraints in IFEval's terms, and a story that meets them."""

    prompt: str
    instruction_id_list: list[str]
    kwargs: list[dict[str, object]]
    reference: str


# Pairs of instructions that occur together in held-out splits only.
HELD_OUT_PAIRS = [
    {"startend:quotation", "startend:end_checker"},
    {"detectable_format:title", "change_case:english_lowercase"},
    {"punctuation:no_comma", "detectable_content:postscript"},
    {"keywords:frequency", "keywords:forbidden_words"},
]


def story(draw: random.Random) -> str:
    """Tell a story of one of the plots."""
    _, text = _tell(draw, Shape())
    return text


def _tell(draw: random.Random, shape: Shape) -> tuple[dict[str, str], str]:
    """Return the words that a story is about, and its text in a shape."""
    person = draw.choice(PEOPLE)
    here, there = draw.sample(PLACES, 2)
    thing, other = draw.sample(THINGS, 2)
    words = {
        "name": person.name,
        "she": person.subject,
        "object": person.object,
        "her": person.possessive,
        "colour": draw.choice(COLOURS),
        "thing": thing,
        "other": other,
        "animal": draw.choice(ANIMALS),
        "fruit": draw.choice(FRUITS),
        "helper": draw.choice(HELPERS),
        "here": here,
        "there": there,
        "glad": draw.choice(GLAD),
        "sorry": draw.choice(SORRY),
    }
    slots = words | {
        "She": person.subject.capitalize(),
        "Her": person.possessive.capitalize(),
        "a_colour": a(words["colour"]),
        "a_animal": a(words["animal"]),
        "A_animal": a(words["animal"]).capitalize(),
        "a_fruit": a(words["fruit"]),
        "an_other": a(words["other"]),
    }
    plot, detail = draw.choice(list(PLOTS.values())), draw.choice([0.15, 0.4, 0.7])
    told, named = [], False
    for beat in plot:
        if beat.optional and draw.random() > detail:
            continue
        tellings = [t for t in beat.tellings if not (shape.no_comma and "," in t)]
        if "{animal}" in "".join(tellings) and not named:  # an animal is introduced before it is "the animal"
            tellings = [t for t in tellings if "{animal}" not in t or "animal}" in t.split("{animal}")[0]]
        if not tellings:
            continue
        telling = draw.choice(tellings)
        named = named or "a_animal}" in telling.lower()
        told.append(telling.format(**slots))
    text = " ".join(told)
    if shape.ending:
        text = f"{text} {shape.ending}"
    if shape.postscript:
        text = f"{text}\nP.S. {draw.choice(POSTSCRIPTS).format(**slots)}"
    if shape.titled:
        text = f"<<{draw.choice([f'The {thing}', f'{person.name} and the {thing}', f'A day in the {here}'])}>>\n{text}"
    if shape.lowercase:
        text = text.lower()
    if shape.quoted:
        text = f'"{text}"'
    return words, text


def _shape(draw: random.Random) -> Shape:
    forms = draw.sample(
        ["lowercase", "quoted", "titled", "no_comma", "ending", "postscript"], draw.choices([0, 1, 2], [4, 4, 2])[0]
    )
    chosen: dict[str, bool | str] = dict.fromkeys(forms, True)
    if "ending" in chosen:
        chosen["ending"] = draw.choice(ENDINGS)
        chosen.pop("postscript", None)
    return Shape(**chosen)  # type: ignore[arg-type]


def _constraint(
    draw: random.Random, kind: str, words: dict[str, str], text: str
) -> tuple[str, dict[str, object]] | None:
    """Return the sentence that asks for something that the story has, and its kwargs; None where it has it not."""
    found = re.findall(r"[a-z]+", text.lower())
    nouns = [words[slot] for slot in ("other", "animal", "fruit", "here", "there", "helper")]
    if kind == "keywords:existence":
        present = [noun for noun in nouns if noun in found]
        if len(present) < 2:
            return None
        keywords = draw.sample(present, draw.randint(1, min(3, len(present))))
        listed = keywords[0] if len(keywords) == 1 else f"{', '.join(keywords[:-1])} and {keywords[-1]}"
        return f"Include the word{'s' * (len(keywords) > 1)} {listed}.", {"keywords": keywords}
    if kind == "keywords:forbidden_words":
        usual = [*ANIMALS, *PLACES, *FRUITS, *HELPERS, *GLAD, *SORRY, "was", "it", "then", "day", "home"]
        absent = [word for word in usual if word not in found]
        forbidden = draw.sample(absent, draw.randint(1, 2))
        forbidden += [word for word in ["then", "day", "it"] if word not in found and draw.random() < 0.3]
        forbidden = list(dict.fromkeys(forbidden))
        words_ = "word" if len(forbidden) == 1 else "words"
        return f"Do not use the {words_} {' or '.join(forbidden)}.", {"forbidden_words": forbidden}
    if kind == "keywords:frequency":
        counted = [(word, found.count(word)) for word in (words["thing"], words["animal"], words["fruit"])]
        counted = [(word, count) for word, count in counted if count >= 2]
        if not counted:
            return None
        word, count = draw.choice(counted)
        return (
            f"Use the word {word} at least {count} times.",
            {"relation": "at least", "keyword": word, "frequency": count},
        )
    if kind == "length_constraints:number_sentences":
        count = len(re.findall(r"[.!?](?:\s|$|\")", text.replace("P.S.", "PS")))
        if draw.random() < 0.6:
            n = max(2, count - draw.choice([0, 0, 1]))
            return f"Use at least {n} sentences.", {"relation": "at least", "num_sentences": n}
        n = count + draw.randint(1, 2)
        return f"Use less than {n} sentences.", {"relation": "less than", "num_sentences": n}
    count = len(re.findall(r"\w+", text))
    if draw.random() < 0.6:
        n = max(10, (count - draw.randint(0, 4)) // 5 * 5)
        return f"Use at least {n} words.", {"relation": "at least", "num_words": n}
    n = (count + draw.randint(1, 4) + 4) // 5 * 5
    return f"Use less than {n} words.", {"relation": "less than", "num_words": n}


def request(draw: random.Random, unseen_pairs: bool) -> Item:
    """Draw a request with one to four constraints; with `unseen_pairs`, only one that has a held-out pair of them."""
    while True:
        shape = _shape(draw)
        words, text = _tell(draw, shape)
        constraints: list[tuple[str, str, dict[str, object]]] = []
        for asked, kind, sentence, kwargs in [
            (shape.lowercase, "change_case:english_lowercase", "Use only lowercase letters.", {}),
            (shape.quoted, "startend:quotation", "Put the whole story in double quotation marks.", {}),
            (shape.titled, "detectable_format:title", "Give it a title in double angular brackets.", {}),
            (shape.no_comma, "punctuation:no_comma", "Do not use any commas.", {}),
            (shape.postscript, "detectable_content:postscript", "Add a postscript that starts with P.S.", {}),
            (
                bool(shape.ending),
                "startend:end_checker",
                f"End with the words: {shape.ending}",
                {"end_phrase": shape.ending},
            ),
        ]:
            if asked:
                constraints.append((kind, sentence, dict(kwargs)))
        if shape.postscript:
            constraints[-1][2]["postscript_marker"] = "P.S."
        kinds = [
            "keywords:existence",
            "keywords:forbidden_words",
            "keywords:frequency",
            "length_constraints:number_sentences",
            "length_constraints:number_words",
        ]
        for kind in draw.sample(kinds, draw.randint(0 if constraints else 1, 3)):
            drawn = _constraint(draw, kind, words, text)
            if drawn is not None:
                constraints.append((kind, *drawn))
        ids = [kind for kind, _, _ in constraints]
        unseen = any({x, y} in HELD_OUT_PAIRS for x, y in combinations(ids, 2))
        clash = {"length_constraints:number_sentences", "length_constraints:number_words"} <= set(ids)
        subject = draw.choice([f"{a(words['colour'])} {words['thing']}", a(words["animal"])])
        told = all(word in text.lower() for word in subject.split()[1:]) and words["name"].lower() in text.lower()
        if constraints and not clash and told and unseen == unseen_pairs:
            break
    draw.shuffle(constraints)
    asks = " ".join(sentence for _, sentence, _ in constraints)
    return Item(
        f"Write a short story about {words['name']} and {subject}. {asks}",
        [kind for kind, _, _ in constraints],
        [kwargs for _, _, kwargs in constraints],
        text,
    )


def item(drawn: Item, key: int) -> dict[str, object]:
    """Return a request in the schema of IFEval, with a reference."""
    return {
        "key": key,
        "prompt": drawn.prompt,
        "instruction_id_list": drawn.instruction_id_list,
        "kwargs": drawn.kwargs,
        "reference": drawn.reference,
    }
