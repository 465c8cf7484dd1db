"""The option that a response chooses."""

import math

import pytest

from shared_tasks.metrics.choices import choice_probabilities, extract_choice, pick_by_loglikelihood

CHOICES = ["Because of wind", "Friction", "Sunlight", "Magnetism"]
A, B, C, D = range(4)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("(A)… wait, the answer is (C).", C),
        ("The answer is (A). Wait, no, the answer is (C).", C),
        ("answer is b", B),
        ("The answer is A because it blows.", A),
        ("Answer: C", C),
        ("**Answer: C**", C),
        ("Answer (C)", C),
        ("the answer is: C. Sunlight", C),
        ("The answer is option C", C),
        ("The answer is\n\n(C)", C),
        ("The correct option is C", C),
        ("(C) is correct.", C),
        ("C is the answer, not B", C),
        ("The answer must be (C)", C),
        ("The answer is therefore C.", C),
        ("I would choose D.", D),
        (r"\boxed{D}", D),
        (r"So $\boxed{\text{(C)}}$", C),
        (r"\boxed{A} hmm, the answer is (B)", B),
        (r"The answer is (B), no, \boxed{A}", A),
        ("The answer is (A). I hope the answer is right", A),
        ("The answer is C, D is wrong", C),
    ],
)
def test_the_last_statement_chooses(text: str, choice: int) -> None:
    """A label after "answer is", in a box or before "is correct" is the choice; a later one revises it."""
    assert extract_choice(text, CHOICES) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("Friction", B),
        ("friction.", B),
        ("The answer is Because of wind.", A),
        ('The answer is "Friction"', B),
        ("The answer is Sunlight, as (A) is wrong", C),
        (r"\boxed{\text{Friction}}", B),
    ],
)
def test_the_text_of_an_option_chooses(text: str, choice: int) -> None:
    """An option's text, as the whole response or where the answer is stated, is a choice; a case is no difference."""
    assert extract_choice(text, CHOICES) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [("A", A), ("b", B), ("(B)", B), ("**B**", B), ("B. Friction", B), ("B) Friction", B), ("(A) is wrong.\nC", C)],
)
def test_a_label_alone_chooses(text: str, choice: int) -> None:
    """A response that is a label, begins with the only one, or ends in a line of one, chooses it."""
    assert extract_choice(text, CHOICES) == choice


@pytest.mark.parametrize(
    "text",
    [
        "The answer is Because of gravity",
        "The answer is a dog",
        "The answer is A dog",
        "The answer is I think B",
        "The answer is (A) or (B)",
        "The answer is A and B",
        "The answer is A, B and C",
        "The answer is not (A)",
        "The answer is E",
        "The answer is D.C.",
        "The answer is unclear",
        "(A) is wrong, (B) is wrong.",
        "Because",
        "A dog",
        "",
        "   ",
        "I do not know.",
        r"\boxed{}",
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    """A word that begins like a label, an article, two labels at once, or mere mentions are no choice."""
    assert extract_choice(text, CHOICES) is None


def test_a_run_on_question_does_not_choose() -> None:
    """The answer to a next question of the model's own does not count."""
    assert extract_choice("The answer is (B).\n\nQuestion: Why?\n(A) x\nThe answer is (A).", CHOICES) == B


def test_a_response_may_begin_with_the_question() -> None:
    """Where nothing stands before the question, it is the task restated, and what follows is the response."""
    assert extract_choice("\nQuestion: Why?\nThe answer is (A).", CHOICES) == A


@pytest.mark.parametrize("place", range(10))
def test_ten_options(place: int) -> None:
    """Up to ten options are known by A to J, in every form, and J is none where there are nine."""
    choices = [f"thing {i}" for i in range(10)]
    label = "ABCDEFGHIJ"[place]
    for text in (
        f"The answer is {label}",
        f"the answer is ({label}).",
        label,
        f"{label}. thing {place}",
        f"thing {place}",
    ):
        assert extract_choice(text, choices) == place, text
    if label == "J":
        assert extract_choice("The answer is J", choices[:9]) is None


def test_labels_may_be_digits() -> None:
    """With labels 1 to 4 a digit is a label, but not as part of a quantity."""
    labels = ["1", "2", "3", "4"]
    assert extract_choice("The answer is 3", CHOICES, labels) == C
    assert extract_choice("The answer is (4)", CHOICES, labels) == D
    assert extract_choice("The answer is 3 apples", CHOICES, labels) is None
    assert extract_choice("The answer is 3.5", CHOICES, labels) is None
    assert extract_choice("The answer is C", CHOICES, labels) is None


@pytest.mark.parametrize(
    ("text", "choice"),
    [("The answer is 3.5", 2), ("The answer is 30.", 1), ("The answer is 3", 0), ("1", 3), ("3/4", None)],
)
def test_numeric_options_match_whole_numbers(text: str, choice: int | None) -> None:
    """Among the options 3, 30, 3.5 and 1 the longest match counts, and 3/4 is none of them."""
    assert extract_choice(text, ["3", "30", "3.5", "1"]) == choice


def test_a_label_goes_before_an_option_of_the_same_text() -> None:
    """Of blood groups A, B, AB, O the answer "A" is the label, "O" and "AB" are texts."""
    groups = ["A", "B", "AB", "O"]
    assert [extract_choice(f"The answer is {text}", groups) for text in ("A", "AB", "O", "D")] == [0, 2, 3, 3]


def test_an_option_may_name_labels() -> None:
    """The option "A and B" is chosen by its label and by its text, although it names two labels itself."""
    choices = ["Iron", "Gold", "Lead", "A and B"]
    for text in ("The answer is (D) A and B.", "The answer is A and B.", "D. A and B", "(D)", r"\boxed{A and B}"):
        assert extract_choice(text, choices) == D, text
    assert extract_choice("The answer is A and B", CHOICES) is None


def test_three_or_five_options() -> None:
    """The labels follow the number of options: D is none of three, E one of five."""
    assert extract_choice("The answer is D", CHOICES[:3]) is None
    assert extract_choice("The answer is E", [*CHOICES, "Sound"]) == 4


def test_labels_must_fit_the_options() -> None:
    """Too few labels, equal ones, or more than ten options are errors."""
    for choices, labels in ((CHOICES, ["A"]), (CHOICES, ["A", "a", "B", "C"]), (["x"] * 11, None), (["x"], None)):
        with pytest.raises(ValueError, match="expected 2 to 10 options"):
            extract_choice("A", choices, labels)


def test_normalisation_changes_the_pick() -> None:
    """Totals -4, -6, -7 over 2, 4, 14 characters or 6, 4, 14 bytes: plain takes 0, characters 2, bytes 2, not 1."""
    choices = ["猫犬", "cats", "cats and dogs!"]
    assert pick_by_loglikelihood([-4.0, -6.0, -7.0], choices) == 0
    assert pick_by_loglikelihood([-4.0, -6.0, -7.0], choices, "characters") == 2
    assert pick_by_loglikelihood([-4.0, -6.0, -10.0], choices, "bytes") == 0
    assert pick_by_loglikelihood([-4.0, -6.0, -10.0], choices, "characters") == 2


def test_log_likelihoods_must_be_numbers() -> None:
    """NaN, a missing value and an empty option where lengths count are errors; -inf is a log-likelihood."""
    assert pick_by_loglikelihood([-math.inf, -3.0], ["a", "b"]) == 1
    for logprobs, choices in (([math.nan, 0.0], ["a", "b"]), ([0.0], ["a", "b"]), ([0.0], ["a"])):
        with pytest.raises(ValueError, match="expected"):
            pick_by_loglikelihood(logprobs, choices)
    with pytest.raises(ValueError, match="option 1 has none"):
        pick_by_loglikelihood([-1.0, -2.0], ["a", ""], "characters")


def test_probabilities_of_options() -> None:
    """The softmax of log .1 and log .3 is .25 and .75, also far below the smallest float."""
    assert choice_probabilities([math.log(0.1), math.log(0.3)]) == pytest.approx([0.25, 0.75])
    assert choice_probabilities([-5000.0 + math.log(0.1), -5000.0 + math.log(0.3)]) == pytest.approx([0.25, 0.75])
    assert choice_probabilities([-math.inf, -1.0]) == [0.0, 1.0]
    with pytest.raises(ValueError, match="finite"):
        choice_probabilities([-math.inf, -math.inf])
