"""What the user says: the message of every task and method, the same in training, in evaluation and in a notebook."""

from collections.abc import Sequence
from typing import Literal

Method = Literal["cot", "cot_letter", "direct", "letter"]
LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def math_prompt(question: str, method: Literal["cot", "direct"]) -> str:
    """Return the message that asks for the solution of a problem, with its steps or without.

    The response ends in `#### ` and the number, as the answers of GSM8K do.
    """
    if method == "cot":
        return f"{question}\nReason step by step, then give the answer after ####."
    return f"{question}\nGive only the answer, after ####."


def multiple_choice_prompt(question: str, choices: Sequence[str], method: Method) -> str:
    """Return the message that asks for one of the choices.

    The response to "cot" ends in `The answer is ` and the text of an option, to "cot_letter" in `The answer is (B).`;
    to "direct" it is the text of an option, so that each can be scored by its log-likelihood, to "letter" its letter.
    """
    options = "\n".join(f"({label}) {choice}" for label, choice in zip(LABELS, choices, strict=False))
    ask = {
        "cot": "Reason step by step, then give the text of the right option.",
        "cot_letter": "Reason step by step, then say: The answer is (letter).",
        "direct": "Answer with the text of the right option.",
        "letter": "Answer with the letter of the right option.",
    }[method]
    return f"{question}\n{options}\n{ask}"


def open_ended_prompt(prompt: str) -> str:
    """Return the message of an open-ended item, which is the item's own prompt."""
    return prompt
