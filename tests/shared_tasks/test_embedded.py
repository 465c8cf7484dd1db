"""The embedded sets: right answers, splits that share nothing, and data that the seeded script gives again."""

import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from shared_tasks.models.course.text import MIXES, documents
from shared_tasks.tasks.embedded import mathematics, multiple_choice, open_ended
from shared_tasks.tasks.embedded.mathematics import Problem, Quantity, Unsuitable
from shared_tasks.tasks.embedded.splits import DATA, PUBLIC, SIZES, TASKS, split, write_public_splits
from shared_tasks.tasks.embedded.words import held_out
from shared_tasks.tasks.prompts import math_prompt, multiple_choice_prompt

HIDDEN = Path(__file__).parents[2] / "grader" / "hidden" / "shared_tasks"
STYLES = [mathematics.terse, mathematics.fused, mathematics.equations, mathematics.prose, mathematics.careful]


def rows(task: str, name: str) -> list[dict]:
    file = HIDDEN / f"{task}.jsonl" if name == "hidden" else DATA / task / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def content(task: str, row: dict) -> str:
    if task == "multiple_choice":
        return "\n".join([row["question"], *sorted(row["choices"])])
    return row["question"] if task == "math" else row["prompt"]


def value(expression: str) -> Fraction:
    """Return the exact value of an expression of digits, operators and parentheses."""
    assert re.fullmatch(r"[\d+\-*/()]+", expression)
    exact = re.sub(r"\d+", lambda number: f"Fraction({number[0]})", expression)
    return Fraction(eval(exact, {"Fraction": Fraction}))


def told() -> Problem:
    """A problem with the steps 12 * 4 = 48, 100 - 48 = 52, 52 + 7 = 59, 59 - 9 = 50."""
    problem = Problem("example")
    first = problem.step(12, "*", 4, "There are {}.")
    second = problem.step(100, "-", first, "Then {}.")
    third = problem.step(second, "+", 7, "Then {}.")
    problem.step(third, "-", 9, "So {} are left.")
    return problem


def test_a_step_refuses_numbers_that_do_not_work_out() -> None:
    """Results below one, above the largest number or with a fraction are drawn anew."""
    for left, operator, right in ((5, "-", 5), (500, "+", 500), (7, "/", 2)):
        with pytest.raises(Unsuitable):
            Problem("example").step(left, operator, right, "{}")


def test_fused_writes_two_operations_an_equation() -> None:
    """A step that only the next one uses is written into it, with parentheses where they are needed."""
    assert mathematics.fused(told()) == "100-12*4=52\n52+7-9=50\n#### 50"
    problem = Problem("example")
    problem.step(problem.step(12, "+", 8, "{}"), "*", 3, "{}")
    assert mathematics.fused(problem) == "(12+8)*3=60\n#### 60"
    problem = Problem("example")
    problem.step(90, "-", problem.step(12, "+", 8, "{}"), "{}")
    assert mathematics.fused(problem) == "90-(12+8)=70\n#### 70"


def test_fused_keeps_a_result_that_is_used_again() -> None:
    """A step that two later ones use stands alone."""
    problem = Problem("example")
    first = problem.step(12, "+", 8, "{}")
    problem.step(first, "+", problem.step(first, "+", 5, "{}"), "{}")
    assert mathematics.fused(problem) == "12+8=20\n20+20+5=45\n#### 45"


def test_terse_takes_shortcuts_only_in_long_problems() -> None:
    """From four steps on, terse is fused; below, it is one operation an equation."""
    assert mathematics.terse(told()) == mathematics.fused(told())
    short = Problem("example")
    short.step(short.step(12, "*", 4, "{}"), "-", 8, "{}")
    assert mathematics.terse(short) == "12*4=48\n48-8=40\n#### 40"


def test_careful_works_place_by_place() -> None:
    """Sums and differences take a place at a time; a product is the sum of the products of the places."""
    assert mathematics.worked(48, "+", 127) == "48+127=148+27=168+7=175"
    assert mathematics.worked(243, "-", 159) == "243-159=143-59=93-9=84"
    assert mathematics.worked(7, "*", 48) == "7*48=280+56=336"
    assert mathematics.worked(100, "-", 30) == "100-30=70"
    assert mathematics.worked(96, "/", 4) == "96/4=24"


@pytest.mark.parametrize("template", [*mathematics.TEMPLATES, *mathematics.HELD_OUT_TEMPLATES])
def test_every_style_solves_every_template(template: str) -> None:
    """In all styles all equations hold, and the last result is the answer."""
    draw = random.Random(template)
    for _ in range(40):
        problem = mathematics.problem(draw, [template])
        assert 2 <= len(problem.steps) <= 6
        for style in STYLES:
            text = style(problem)
            chains = re.findall(r"[\d+\-*/()]+(?:=[\d+\-*/()]+)+", text)
            assert all(len({value(part) for part in chain.split("=")}) == 1 for chain in chains)
            assert chains[-1].endswith(f"={problem.answer}")
            assert text.endswith(f"\n#### {problem.answer}")


@pytest.mark.parametrize("template", [*mathematics.TEMPLATES, *mathematics.HELD_OUT_TEMPLATES])
def test_every_step_is_needed(template: str) -> None:
    """Every result but the last is an operand later, and an operand that is a result has its value."""
    draw = random.Random(template)
    for _ in range(40):
        steps = mathematics.problem(draw, [template]).steps
        operands = [operand for step in steps for operand in (step.left, step.right) if operand.step is not None]
        assert {operand.step for operand in operands} == set(range(len(steps) - 1))
        assert all(operand == Quantity(steps[operand.step].result, operand.step) for operand in operands)


@pytest.mark.parametrize("template", [*multiple_choice.TEMPLATES, *multiple_choice.HELD_OUT_TEMPLATES])
def test_choices_are_different_and_the_reasoning_leads_to_one(template: str) -> None:
    """There are three to five different options, and the styles end in the text or letter of the right one."""
    draw = random.Random(template)
    for _ in range(100):
        question = multiple_choice.question(draw, [template])
        assert 3 <= len(question.choices) <= 5
        assert len(set(question.choices)) == len(question.choices)
        letter, right = "ABCDE"[question.answer], question.choices[question.answer]
        assert multiple_choice.concluded(question).endswith(f"\nThe answer is {right}.")
        assert multiple_choice.eliminated(question).endswith(f"\n({letter}) {right}: yes.\nThe answer is ({letter}).")


@pytest.mark.parametrize("name", ["comparison/largest", "comparison/smallest"])
def test_compared_sums_have_one_extreme(name: str) -> None:
    """The right option is the largest, or smallest, and no other equals it."""
    draw, pick = random.Random(name), max if name.endswith("largest") else min
    for _ in range(100):
        question = multiple_choice.question(draw, [name])
        values = [value(choice) for choice in question.choices]
        assert values.count(pick(values)) == 1
        assert values.index(pick(values)) == question.answer


def test_the_calendar_counts_backwards_too() -> None:
    """The right day lies as many days after, or before, today as asked."""
    days = multiple_choice.DAYS
    for name, sign in (("calendar/forwards", 1), ("calendar/backwards", -1)):
        draw = random.Random(name)
        for _ in range(50):
            question = multiple_choice.question(draw, [name])
            today = days.index(re.search(r"Today is (\w+)", question.question)[1])
            count = int(re.search(r"(\d+) days", question.question)[1])
            assert question.choices[question.answer] == days[(today + sign * count) % 7]


def test_orders_follow_from_the_facts() -> None:
    """Sorting the people by the facts gives the person asked for."""
    draw = random.Random(0)
    for _ in range(100):
        question = multiple_choice.question(draw, ["ordering/taller"])
        facts = re.findall(r"(\w+) is taller than (\w+)\.", question.question)
        tallest = ({x for x, _ in facts} - {y for _, y in facts}).pop()
        order = [tallest]
        while len(order) <= len(facts):
            order.append(dict(facts)[order[-1]])
        place = 1 if "second" in question.question else 0 if "tallest" in question.question else -1
        assert question.choices[question.answer] == order[place]


def test_a_shape_is_seen_in_the_reference() -> None:
    """What a request asks of a story's form is what its reference has."""
    draw = random.Random(0)
    for _ in range(300):
        item = open_ended.request(draw, unseen_pairs=False)
        asked = dict(zip(item.instruction_id_list, item.kwargs, strict=True))
        text = item.reference
        if "change_case:english_lowercase" in asked:
            assert text == text.lower()
        if "startend:quotation" in asked:
            assert text[0] == text[-1] == '"'
        if "punctuation:no_comma" in asked:
            assert "," not in text
        if "startend:end_checker" in asked:
            assert text.strip('"').lower().endswith(asked["startend:end_checker"]["end_phrase"].lower())
        if "detectable_format:title" in asked:
            assert re.search(r"<<[^\n]+>>", text)
        for word in asked.get("keywords:existence", {}).get("keywords", []):
            assert re.search(rf"\b{word}\b", text, re.IGNORECASE)
        for word in asked.get("keywords:forbidden_words", {}).get("forbidden_words", []):
            assert not re.search(rf"\b{word}\b", text, re.IGNORECASE)


def test_references_meet_their_constraints() -> None:
    """Every reference of every split follows all instructions, strictly, by the kit's own checkers."""
    constraints = pytest.importorskip("shared_tasks.metrics.constraints")
    for name in (*PUBLIC, "hidden"):
        for row in rows("open_ended", name):
            followed = constraints.follows_instructions(row["reference"], row["instruction_id_list"], row["kwargs"])
            assert all(followed), row


def test_an_animal_is_introduced_before_it_is_spoken_of() -> None:
    """In every story the first mention of the animal has an indefinite article."""
    draw = random.Random(0)
    for _ in range(500):
        text = open_ended.story(draw)
        for animal in open_ended.ANIMALS:
            mentions = re.findall(rf"\b(\w+) {animal}\b", text)
            assert not mentions or mentions[0].lower() in ("a", "an"), text


@pytest.mark.parametrize("task", TASKS)
def test_splits_share_no_item_and_have_their_sizes(task: str) -> None:
    """An item is in one split only, and no split has it twice."""
    seen: set[str] = set()
    for name, size in SIZES.items():
        contents = {content(task, row) for row in rows(task, name)}
        assert len(contents) == len(rows(task, name)) == size
        assert not contents & seen
        seen |= contents


@pytest.mark.parametrize("task", TASKS)
def test_held_out_items_are_those_that_training_leaves_out(task: str) -> None:
    """Every item of dev, dev-test and hidden is held out by its content, and no item of train is."""
    for name in SIZES:
        assert {held_out(content(task, row)) for row in rows(task, name)} == {name != "train"}


@pytest.mark.parametrize("mix", MIXES)
def test_no_training_document_asks_a_held_out_item(mix: str) -> None:
    """No question of the stream is held out by content, whatever the method it is asked with."""
    asked = {
        math_prompt(row["question"], method)
        for name in SIZES
        if name != "train"
        for row in rows("math", name)
        for method in ("cot", "direct")
    }
    asked |= {row["prompt"] for name in SIZES if name != "train" for row in rows("open_ended", name)}
    asked |= {
        multiple_choice_prompt(row["question"], row["choices"], method)
        for name in SIZES
        if name != "train"
        for row in rows("multiple_choice", name)
        for method in ("cot", "cot_letter", "direct", "letter")
    }
    stream = documents("test", mix)
    for _ in range(5_000):
        user = next(stream).user
        assert user not in asked
        if user is not None and user.rpartition("\n")[2].endswith("after ####."):
            assert not held_out(user.rpartition("\n")[0])
        if user is not None and user.startswith("Write a short story"):
            assert not held_out(user)


def test_some_templates_occur_in_held_out_splits_only() -> None:
    """Train has no held-out template and no held-out pair of instructions; every other split has some."""
    for name in SIZES:
        held = {row["template"] for row in rows("math", name)} & set(mathematics.HELD_OUT_TEMPLATES)
        assert bool(held) == (name != "train")
        held = {row["template"] for row in rows("multiple_choice", name)} & set(multiple_choice.HELD_OUT_TEMPLATES)
        assert bool(held) == (name != "train")
        pairs = [
            pair
            for row in rows("open_ended", name)
            for pair in open_ended.HELD_OUT_PAIRS
            if pair <= set(row["instruction_id_list"])
        ]
        assert bool(pairs) == (name != "train")


def test_the_script_writes_what_is_shipped(tmp_path: Path) -> None:
    """The public splits follow from their seed."""
    write_public_splits(tmp_path)
    for task in TASKS:
        for name in PUBLIC:
            assert (tmp_path / task / f"{name}.jsonl").read_text() == (DATA / task / f"{name}.jsonl").read_text()


def test_the_hidden_split_follows_from_its_seed_alone() -> None:
    """The seed in the staff's folder has 128 bits and gives the hidden items; another seed gives others."""
    seed = (HIDDEN / "seed.txt").read_text().strip()
    assert re.fullmatch(r"[0-9a-f]{32}", seed)
    taken: set[str] = set()
    for name in PUBLIC:
        split("math", name, "public", taken)
    assert split("math", "hidden", seed, set(taken)) == rows("math", "hidden")
    assert split("math", "hidden", "public", set(taken)) != rows("math", "hidden")
