"""The splits of the embedded sets: how many items, from which templates, and how they are written."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from shared_tasks.tasks.embedded import mathematics, multiple_choice, open_ended
from shared_tasks.tasks.embedded.words import held_out

DATA = Path(__file__).parents[1] / "data"
PUBLIC, PUBLIC_SEED = ("train", "dev", "dev_test"), "public"
SIZES = {"train": 800, "dev": 300, "dev_test": 400, "hidden": 400}
UNSEEN_SHARE = 0.25  # of the items of a held-out split come from templates that nothing is trained on


class Drawn(NamedTuple):
    """An item as it is stored, and the text that makes it the same as another."""

    content: str
    item: dict[str, object]


def _mathematics(draw: random.Random, unseen: bool, _: int) -> Drawn:
    templates = mathematics.HELD_OUT_TEMPLATES if unseen else mathematics.TEMPLATES
    problem = mathematics.problem(draw, list(templates))
    return Drawn(problem.question, mathematics.item(problem))


def _multiple_choice(draw: random.Random, unseen: bool, _: int) -> Drawn:
    templates = multiple_choice.HELD_OUT_TEMPLATES if unseen else multiple_choice.TEMPLATES
    question = multiple_choice.question(draw, list(templates))
    return Drawn(multiple_choice.content(question), multiple_choice.item(question))


def _open_ended(draw: random.Random, unseen: bool, key: int) -> Drawn:
    request = open_ended.request(draw, unseen_pairs=unseen)
    while _ambiguous(request):
        request = open_ended.request(draw, unseen_pairs=unseen)
    return Drawn(request.prompt, open_ended.item(request, key))


def _ambiguous(request: open_ended.Item) -> bool:
    """Return whether sentences are to be counted in a text with "P.S." or "fig.", where counts differ."""
    counted = "length_constraints:number_sentences" in request.instruction_id_list
    return counted and any(short in request.reference.lower() for short in ("p.s.", "fig."))


TASKS: dict[str, Callable[[random.Random, bool, int], Drawn]] = {
    "math": _mathematics,
    "multiple_choice": _multiple_choice,
    "open_ended": _open_ended,
}


def split(task: str, name: str, seed: str, taken: set[str]) -> list[dict[str, object]]:
    """Return the items of a split; none has a content among those `taken`, to which they are added.

    A train split has the items that training may see; every other split has only items that it never sees.
    """
    draw, items = random.Random(f"{seed}/{task}/{name}"), list[dict[str, object]]()
    while len(items) < SIZES[name]:
        unseen = name != "train" and draw.random() < UNSEEN_SHARE
        drawn = TASKS[task](draw, unseen, len(items))
        if drawn.content not in taken and held_out(drawn.content) == (name != "train"):
            taken.add(drawn.content)
            items.append(drawn.item)
    return items


def write_public_splits(out: Path) -> None:
    """Write train, dev and dev-test of every task."""
    for task in TASKS:
        taken: set[str] = set()
        for name in PUBLIC:
            _write(split(task, name, PUBLIC_SEED, taken), out / task / f"{name}.jsonl")


def write_hidden_split(seed: str, out: Path) -> None:
    """Write the hidden split of every task from a secret seed; no item is in a public split."""
    for task in TASKS:
        taken: set[str] = set()
        for name in PUBLIC:
            split(task, name, PUBLIC_SEED, taken)
        _write(split(task, "hidden", seed, taken), out / f"{task}.jsonl")


def _write(items: list[dict[str, object]], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
