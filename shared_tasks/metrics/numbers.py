r"""The final number of a response, and whether it is the right one.

A number is written 18, 18.00, .5, 2,125, 2{,}125, -3, $18, 1e-3, 3/4, 1 3/4 or \frac{3}{4}; currency, percent signs and
units are not part of it (50% is 50, the way GSM8K writes percentages). Values are exact fractions, so that 18.00 is 18
and equal answers vote together.
"""

import re
from fractions import Fraction

from shared_tasks.metrics.answers import ANSWER_IS, boxes, without_run_on

_REACH = 200  # characters after a mark in which its number stands
_MAX_CHARACTERS = 400  # a longer number, or a larger exponent than three digits, is degenerate text
_TOLERANCE = Fraction(1, 10**6)

_NUMBER = re.compile(
    r"""
    (?P<sign> (?<![\w)\]}%.]) - )?                   # in 9-3 and (2)-3 the hyphen subtracts
    (?: [$€£]\ ? (?P<inner_sign> - )? )?
    (?<!\w) (?<!\d\.)
    (?: (?P<whole> \d{1,9} )\ +(?=\d+/\d) )?         # 1 3/4
    (?P<number> \d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)? | \d+(?:\.\d+)? | \.\d+ )
    (?: [eE](?P<exponent> [-+]?\d+ )(?!\w) | \ ?/\ ?(?P<divisor> \d+(?!/) ) )?
    """,
    re.VERBOSE,
)
_EQUALS = re.compile(r"(?:[-+*/×÷·] ?\(|[\s\d+\-*/×÷·^).,$€£%x])*=\s*")  # the rest of a calculation: 9 * 2 = $18
_MARK = re.compile(r"####(?!#)")
_ANSWER_IS = re.compile(ANSWER_IS, re.IGNORECASE)
_HEADING = re.compile(
    r"\W{0,9}(?:step|part|case|section|method|option|solution|question|problem|example)\b", re.IGNORECASE
)


def extract_number(text: str) -> Fraction | None:
    r"""Return the final number of a response, or None where it has none.

    It is, in this order: the number after the last `####`, in the last `\boxed{}`, after the last "answer is", or the
    last number at all. A mark that no number follows (on its line, or on the next one where the mark ends its line)
    does not count. After a mark the first number is meant, or the result of a calculation that it begins:
    `#### 18 (16-3-4=9)` and `#### 9 * 2 = 18` are both 18. Where the response runs on into a question of its own, only
    what stands before counts.

    Convention: `####` as in Cobbe et al., 2021, https://arxiv.org/abs/2110.14168; `\boxed{}` as in Hendrycks et al.,
    2021, https://arxiv.org/abs/2103.03874; the last number as in lm-evaluation-harness (gsm8k, flexible-extract).
    """
    response = without_run_on(text)
    number = _final_number(response)
    return _final_number(text) if number is None and len(response) < len(text) else number


def numbers_equal(gold: str | int | float | Fraction, answer: str | int | float | Fraction | None) -> bool:
    """Return whether an answer is the gold number; None, no answer, is wrong.

    They may differ by 10^-6, or by 10^-6 of a gold smaller than one: whole numbers must be the same, and 1/3 is
    .3333333333 but not .33. Texts are read by `extract_number`.

    Raises ValueError when the gold is no number.
    """
    expected, given = _as_fraction(gold), None if answer is None else _as_fraction(answer)
    if expected is None:
        raise ValueError(f"expected a gold answer with a number, got {gold!r}")
    if given is None:
        return False
    return abs(expected - given) <= _TOLERANCE * min(Fraction(1), abs(expected))


def _as_fraction(value: str | int | float | Fraction) -> Fraction | None:
    if isinstance(value, str):
        return extract_number(value)
    try:
        return Fraction(value)
    except (ValueError, OverflowError):  # NaN, infinity
        return None


def _final_number(text: str) -> Fraction | None:
    text = _plain(text)
    for mark in reversed(list(_MARK.finditer(text))):
        if not _HEADING.match(text, mark.end()) and (number := _number_after(text, mark.end())) is not None:
            return number
    for _, content in reversed(boxes(text)):
        if (number := _number_after(content, 0)) is not None:
            return number
    for phrase in reversed(list(_ANSWER_IS.finditer(text))):
        if (number := _number_after(text, phrase.end())) is not None:
            return number
    numbers = list(_NUMBER.finditer(text))
    return _value(numbers[-1]) if numbers else None


def _number_after(text: str, start: int) -> Fraction | None:
    """Return the number that a mark points at: the first on its line, or the result of a calculation begun there."""
    lines = text[start : start + _REACH].split("\n", 2)[:2]
    line = next((line for line in lines if line.strip(" \t*$:")), "")
    number = _NUMBER.search(line)
    while number and (equals := _EQUALS.match(line, number.end())) and (result := _NUMBER.match(line, equals.end())):
        number = result
    return _value(number) if number else None


def _value(match: re.Match[str]) -> Fraction | None:
    exponent = match["exponent"] or "0"
    if len(match[0]) > _MAX_CHARACTERS or len(exponent) > 4:
        return None
    value = Fraction(match["number"].replace(",", "")) * Fraction(10) ** int(exponent)
    if match["divisor"]:
        if int(match["divisor"]) == 0:
            return None
        value /= int(match["divisor"])
    value += int(match["whole"] or 0)
    return -value if match["sign"] or match["inner_sign"] else value


def _plain(text: str) -> str:
    r"""Return the text with LaTeX's ways of writing numbers turned into plain ones."""
    text = text.replace("−", "-").replace("\\$", "$").replace("{,}", ",").replace("\\%", "%")
    text = re.sub(r"\\[!,;]", "", text)  # thin spaces: 2,\!125
    text = re.sub(r"(\d?)\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", _fraction, text)
    return re.sub(r"(\d?)\\[dt]?frac\s*(\d)\s*(\d)", _fraction, text)


def _fraction(match: re.Match[str]) -> str:
    return f"{match[1]} {match[2]}/{match[3]}" if match[1] else f"{match[2]}/{match[3]}"
