"""The final number of a response."""

import math
from fractions import Fraction

import pytest

from shared_tasks.metrics.numbers import extract_number, numbers_equal
from tests.shared_tasks.metrics.public_data import rows


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("#### 18", 18),
        ("####18", 18),
        ("#### $18", 18),
        ("#### 18.00", 18),
        ("#### 2,125", 2125),
        ("#### 18 (16-3-4=9)", 18),
        ("#### 18 dollars every day", 18),
        ("#### 9 * 2 = $18", 18),
        ("#### 3*(4+2) = 18", 18),
        ("####\n18", 18),
        ("#### 5\nNo, that is wrong.\n#### 18", 18),
        ("#### 18\n####", 18),
        ("#### -5", -5),
        ("#### -$5", -5),
        ("#### 0.5.", Fraction(1, 2)),
    ],
)
def test_the_last_mark_names_the_number(text: str, number: Fraction) -> None:
    """After the last #### with a number stands the answer, whatever is written around it."""
    assert extract_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"\boxed{18}", 18),
        (r"\boxed{\$2{,}125}", 2125),
        (r"\boxed{2,\!125}", 2125),
        (r"\boxed{-\frac{3}{4}}", Fraction(-3, 4)),
        (r"\boxed{1\frac{1}{2}}", Fraction(3, 2)),
        (r"\boxed{\dfrac34}", Fraction(3, 4)),
        (r"\boxed{x = 18}", 18),
        (r"\boxed{18 \text{ dollars}}", 18),
        (r"\boxed{18}. Wait, \boxed{20}", 20),
        (r"\boxed{18}, as 9 times 2 shows. See chapter 3.", 18),
    ],
)
def test_the_last_box_names_the_number(text: str, number: Fraction) -> None:
    """Without a mark the last box counts, in LaTeX's spellings, before any number in the text."""
    assert extract_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 18.", 18),
        ("The answer is 18. Let me check: 9 times 2.", 18),
        ("**Answer:** 18", 18),
        ("The final answer is: $18", 18),
        ("The answer to the question is 12 apples of 20.", 12),
        ("The answer is 9 * 2 = $18 a day, 7 days a week", 18),
        ("The answer is -5.", -5),
        ("The answer must be 12, out of 20", 12),
    ],
)
def test_the_sentence_names_the_number(text: str, number: Fraction) -> None:
    """Without mark and box, "answer is" counts before other numbers."""
    assert extract_number(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = 18 dollars...", 18),
        ("18", 18),
        ("so 9-3", 3),
        ("(2)-3", 3),
        ("it fell to -3", -3),
        ("−7", -7),
        ("50%", 50),
        ("3/4 of it", Fraction(3, 4)),
        ("1 1/2 cups", Fraction(3, 2)),
        ("about 1e-3", Fraction(1, 1000)),
        (".5", Fraction(1, 2)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("Rs.18", 18),
        ("each 18kg", 18),
    ],
)
def test_the_last_number_is_the_last_resort(text: str, number: Fraction) -> None:
    """Without any mark the last number counts; a hyphen after a number subtracts and is no sign."""
    assert extract_number(text) == number


def test_marks_count_in_order() -> None:
    """####, then the box, the sentence, the last number: each is used only where those before it are missing."""
    text = r"#### 1 and \boxed{2} and the answer is 3, not 4"
    assert extract_number(text) == 1
    assert extract_number(text.replace("#### 1", "")) == 2
    assert extract_number("the answer is 3, not 4") == 3
    assert extract_number("3, not 4") == 4


@pytest.mark.parametrize("start", ["Question: ", "Q: ", "**Question:** ", "Problem 2. ", "User: ", "### Question: "])
@pytest.mark.parametrize("answer", ["#### 18", "The answer is 18.", "It is 18"])
def test_a_run_on_question_does_not_answer(start: str, answer: str) -> None:
    """A response that goes on with the next question, and answers it, keeps its own answer."""
    assert extract_number(f"{answer}\n\n{start}Tom has 5 apples.\nAnswer: #### 7") == 18


def test_a_run_on_chat_does_not_answer() -> None:
    """A next turn after a chat marker is no part of the response."""
    assert extract_number("It is 18<|endoftext|><|user|>Tom has 5 apples.") == 18


def test_a_response_may_begin_with_the_question() -> None:
    """A response that restates its task first is read to its end."""
    assert extract_number("Question: Tom has 5 apples and eats 2.\nAnswer: 3") == 3


def test_a_heading_is_no_mark() -> None:
    """A fourth-level heading of markdown, "#### Step 2", names no answer."""
    assert extract_number("#### Step 2: add\nThe answer is 7.") == 7


@pytest.mark.parametrize(
    "text", ["", "none", "x2", "####", r"\boxed{}", "1e400000", "9" * 5000, "1/0", r"\boxed{5"[:7]]
)
def test_no_number(text: str) -> None:
    """A response without a number, or with one beyond all sense, has no answer; nothing is raised."""
    assert extract_number(text) is None


def test_every_gold_answer_of_gsm8k_extracts_to_itself() -> None:
    """On all 8,792 gold solutions the number after #### comes out."""
    for file in ("train", "test"):
        for row in rows(f"gsm8k/{file}.jsonl"):
            gold = row["answer"].split("####")[1]
            assert extract_number(row["answer"]) == Fraction(gold.replace(",", "").strip())
            assert numbers_equal(gold, extract_number(row["answer"]))


def test_every_gold_answer_of_svamp_extracts_to_itself() -> None:
    """On all 1,000 float answers, bare and in a sentence with thousands separated."""
    for row in rows("svamp/SVAMP.json"):
        gold = row["Answer"]
        assert numbers_equal(gold, extract_number(str(gold)))
        assert numbers_equal(gold, extract_number(f"The answer is {gold:,}."))
        assert not numbers_equal(gold, extract_number(f"The answer is {gold + 1:,}."))


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        (18.0, "18", True),
        ("18", Fraction(18), True),
        (0.1, Fraction(1, 10), True),
        (1 / 3, Fraction(1, 3), True),
        (Fraction(1, 3), "0.33", False),
        (2.5, "2.50", True),
        (123456789, 123456790, False),
        (1e-9, 2e-9, False),
        (0, "0.0", True),
        (-5, 5, False),
        (18, None, False),
        (18, math.nan, False),
        (18, math.inf, False),
        (18, "no number", False),
    ],
)
def test_equal_numbers(gold: float, answer: float | None, equal: bool) -> None:
    """Whole numbers are compared exactly, fractions to six digits, and no answer is wrong."""
    assert numbers_equal(gold, answer) is equal


def test_a_gold_answer_must_be_a_number() -> None:
    """A gold without a number is an error of the data, and is not scored as wrong."""
    with pytest.raises(ValueError, match="gold"):
        numbers_equal("unknown", 5)


@pytest.mark.parametrize("piece", ["#### ", "answer is ", r"\boxed{", "1,", "\n ", "= 1 ", r"\frac{1", "-", " ", "Q: "])
def test_degenerate_text_is_read_in_linear_time(piece: str) -> None:
    """A loop of a hundred thousand characters is read, whatever it repeats."""
    extract_number(piece * (100_000 // len(piece)))
