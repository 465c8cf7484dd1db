"""Word problems and competition problems: the answer is a number or an expression at the end of a solution."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

from shared_tasks.metrics.expressions import expressions_equal, extract_expression
from shared_tasks.metrics.numbers import extract_number, numbers_equal
from shared_tasks.metrics.reasoning import strip_reasoning
from shared_tasks.metrics.samples import group_answers
from shared_tasks.tasks.correctness import score_samples
from shared_tasks.tasks.prompts import math_prompt
from shared_tasks.tasks.task import Example, Output, Schema, Scored, Task

CALCULATION = re.compile(r"<<[^>]*>>")  # GSM8K's calls of a calculator


class Problem(Example):
    """A problem, its worked solution where there is one, and the answer."""

    answer: str
    solution: str | None = None


# The rows of each data set


class GSM8KRow(Schema):
    """Hub: openai/gsm8k, configuration main, splits train (7,473) and test (1,319).

    The kit's own set adds two fields.
    """

    question: str
    answer: str
    """Worked steps, with calculations in <<>>; the last line is the answer after ####."""
    template: str = ""
    steps: int = 0

    def item(self) -> Problem:
        """Return the row in the form of all problems."""
        *_, answer = self.answer.rsplit("####", 1)
        if extract_number(answer) is None:
            raise ValueError(f"field answer: expected a number after ####, got {self.answer[-40:]!r}")
        solution = CALCULATION.sub("", self.answer) if "####" in self.answer else None
        return Problem(question=self.question, answer=answer.strip(), solution=solution, group=self.template)


class MATHRow(Schema):
    r"""Hub: HuggingFaceH4/MATH-500, split test (500). The answer is the LaTeX inside the solution's \boxed{}."""

    problem: str
    answer: str
    solution: str | None = None
    subject: str = ""
    level: int | str = ""
    unique_id: str = ""

    def item(self) -> Problem:
        """Return the row in the form of all problems."""
        return Problem(
            id=self.unique_id, question=self.problem, answer=self.answer, solution=self.solution, group=self.subject
        )


class SVAMPRow(Schema):
    """Hub: ChilleD/SVAMP, splits train (700) and test (300), answers as texts; the original file has numbers."""

    Body: str
    Question: str
    Answer: float | str
    Equation: str = ""
    ID: str = ""

    def item(self) -> Problem:
        """Return the row in the form of all problems."""
        answer = str(self.Answer).removesuffix(".0")
        if extract_number(answer) is None:
            raise ValueError(f"field Answer: expected a number, got {self.Answer!r}")
        question = f"{self.Body.strip()} {self.Question.strip()}"
        equation = re.sub(r"\.0\b", "", self.Equation).strip("() ")
        solution = f"{equation} = {answer}\n#### {answer}" if equation else None
        return Problem(id=self.ID, question=question, answer=answer, solution=solution)


@dataclass(frozen=True)
class MathematicalReasoning(Task[Problem]):
    """Problems whose answers are compared as numbers, or as expressions."""

    expressions: bool = False

    styles = ("cot", "direct")

    def questions(self, item: Problem, style: str) -> list[str]:
        """Return the problem with the form that the answer should have."""
        if not self.expressions:
            return [math_prompt(item.question, "direct" if style == "direct" else "cot")]
        steps = "Give only the final answer" if style == "direct" else "Reason step by step, then give the final answer"
        return [f"{item.question}\n{steps} in \\boxed{{}}."]

    def answer(self, item: Problem, style: str) -> str:
        """Return the worked solution, or for direct prompts the answer alone."""
        if style == "direct":
            return f"\\boxed{{{item.answer}}}" if self.expressions else f"#### {item.answer}"
        if item.solution is None:
            raise ValueError(f"{self.name}: example {item.id} has no worked solution; ask for direct answers")
        return item.solution

    def gold(self, item: Problem) -> str:
        """Return the right answer."""
        return item.answer

    def parse(self, item: Problem, text: str) -> str | None:
        """Return the last number or expression that the output gives as its answer."""
        text = strip_reasoning(text)
        if self.expressions:
            return extract_expression(text)
        number = extract_number(text)
        return None if number is None else _plain(number)

    def score(self, item: Problem, outputs: Sequence[Output]) -> Scored:
        """Score each output as right or wrong."""
        parsed = [self.parse(item, output.text) for output in outputs]
        equal = expressions_equal if self.expressions else numbers_equal
        right = {answer: bool(equal(item.answer, answer)) for answer in set(parsed) if answer is not None}
        correct = [answer is not None and right[answer] for answer in parsed]
        return score_samples(parsed, correct, outputs, group_answers(parsed, equal) if self.expressions else parsed)


def _plain(number: Fraction) -> str:
    """Write a number as a decimal where that ends, else as a fraction: equal numbers are written alike."""
    rest = number.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return str(number)
    with localcontext(prec=len(str(number.numerator)) + 4 * len(str(number.denominator))):
        return f"{Decimal(number.numerator) / Decimal(number.denominator):f}"
