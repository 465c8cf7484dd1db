"""The final expression of a response, and whether it is the right one."""

import os
import re
import threading

import pytest

from shared_tasks.metrics.expressions import expressions_equal, extract_expression
from tests.shared_tasks.metrics.public_data import rows


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (r"So it is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1}. Wait, that is wrong: \boxed{2}", "2"),
        (r"\boxed{\left\{1, \sqrt{2}\right\}}", r"\left\{1, \sqrt{2}\right\}"),
        (r"\fbox{3} and \boxed{}", "3"),
        (r"\boxed{1} and then \boxed{\frac{2", "1"),
        ("#### x + 1", "x + 1"),
        ("The answer is $x^2$, since it is even.", "x^2"),
        ("The answer is x^2, since it is even.", "x^2"),
        (r"Therefore \(x = 5\). It costs $5 or $6.", "x = 5"),
        ("Therefore $x = 5$.", "x = 5"),
        ("It is 18 dollars.", "18"),
        ("\\boxed{7}\n\nQuestion: And now?\n\\boxed{8}", "7"),
        ("nothing", None),
        ("", None),
    ],
)
def test_the_last_box_is_the_answer(text: str, expression: str | None) -> None:
    """The last complete box wins after a revision; without one the mark, the sentence, the last formula or number."""
    assert extract_expression(text) == expression


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("pi/2", r"\frac{\pi}{2}"),
        (r"\frac{\pi}{2}", "pi/2"),
        (r"\frac{1}{2}", "0.5"),
        ("1/3", "0.333333"),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
        (r"11 \sqrt{5} + 11", r"11(1+\sqrt5)"),
        ("x^2+2x+1", "(x+1)^2"),
        ("5", "x = 5"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi/2)"),
        ("1, 2", "2, 1"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\$32,\!348", "32348"),
        (r"10\%", "10"),
        (r"55^\circ", "55"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{(E)}", "E"),
        ("52_8", "52_{8}"),
        ("1/2^{99}", "2^{-99}"),
        (r"\infty", "infinity"),
        ("3", "$3$."),
    ],
)
def test_equal_expressions(gold: str, answer: str) -> None:
    """Different ways of writing one value are equal."""
    assert expressions_equal(gold, answer) is True


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("52_8", "52"),
        ("52", "52_8"),
        ("52_8", "52_{10}"),
        ("1/2^{99}", "1/2^{98}"),
        ("10^{-30}", "10^{-31}"),
        ("0", "1/2^{99}"),
        ("10^{20}", "10^{20}+1"),
        ("1/3", "0.33"),
        ("(1,2)", r"\{1,2\}"),
        (r"\{1,2\}", "(1,2)"),
        ("(1, 2)", "(2, 1)"),
        ("[0, 1)", "(0, 1)"),
        (r"\text{Evelyn}", "Eevlyn"),
        (r"\text{(E)}", "(B)"),
        (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"\begin{pmatrix} -2 & 0 \\ 0 & -1 \end{pmatrix}"),
        (r"\pi", "3.14"),
        ("-5", "5"),
        ("5", None),
    ],
)
def test_different_expressions(gold: str, answer: str | None) -> None:
    """A base, a size, an order, a bracket, letters or a row that differ make a difference."""
    assert expressions_equal(gold, answer) is False


@pytest.mark.parametrize(
    "answer",
    [
        "2^{10000000000}",
        "9**10000000000",
        "100000000!",
        "(" * 2000 + "5" + ")" * 2000,
        "(" * 400 + "5" + ")" * 400,
        "9^{9^{9^9}}",
        "",
    ],
    ids=lambda text: text[:20],
)
def test_hostile_expressions_have_no_verdict(answer: str) -> None:
    """Towers of powers, deep nesting and long texts are unparsed in bounded time, and the next comparison works."""
    assert expressions_equal("5", answer, timeout=0.5) is None
    assert expressions_equal(answer, "5", timeout=0.5) is None
    assert expressions_equal("0.5", r"\frac{1}{2}") is True


@pytest.mark.slow
def test_every_gold_answer_of_math500_equals_itself_and_nothing_else() -> None:
    """All 500: rewritten with other spacing and commands equal, found in their solutions, different when changed."""
    for row in rows("math500/math500_test.json"):
        gold = row["answer"]
        rewritten = gold.replace(r"\frac", r"\dfrac").replace("+", " + ")
        rewritten = rewritten.replace("(", r"\left(").replace(")", r"\right)")
        digit = re.search(r"\d", gold)
        changed = gold[: digit.start()] + str((int(digit[0]) + 1) % 10) + gold[digit.end() :] if digit else f"{gold}+1"
        assert expressions_equal(gold, gold) is True, gold
        assert expressions_equal(gold, f"$ {rewritten} $") is True, gold
        assert expressions_equal(gold, extract_expression(row["solution"])) is True, gold
        assert not expressions_equal(gold, changed), (gold, changed)
        assert not expressions_equal(gold, f"1+{gold}"), gold


def test_comparison_works_from_threads() -> None:
    """Eight threads at once get the right verdicts, also while some of the comparisons are stopped."""
    verdicts: list[bool | None] = []

    def compare() -> None:
        for i in range(1, 6):
            verdicts.append(expressions_equal(rf"\frac{{{i}}}{{7}}", f"{i}/7"))
            verdicts.append(expressions_equal(rf"\frac{{{i}}}{{7}}", f"{i}/8"))
        verdicts.append(expressions_equal("5", "9^{9^{9^9}}", timeout=0.1))

    threads = [threading.Thread(target=compare) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (verdicts.count(True), verdicts.count(False), verdicts.count(None)) == (40, 40, 8)


def test_comparison_works_in_a_forked_process() -> None:
    """A forked process does not read its parent's verdicts: both get their own, at the same time."""
    assert expressions_equal("1/2", "0.5") is True
    child = os.fork()
    if child == 0:
        good = all(expressions_equal(f"{i}/4", f"{i / 4}") is True for i in range(1, 20))
        os._exit(0 if good else 1)
    assert all(expressions_equal(f"{i}/4", f"{i / 4 + 1}") is False for i in range(1, 20))
    assert os.waitpid(child, 0)[1] == 0
