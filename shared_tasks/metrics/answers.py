"""Where a response says its answer: what the extraction of numbers, expressions and choices shares."""

import re

_IS = r"(?:[ \t]+\w+){0,6}?[ \t*]*(?:\b(?:is|(?:would|should|must|will|has to) be)\b|:|=)"
ANSWER_IS = rf"\banswer\b{_IS}"
"""A pattern of what comes before an answer in a sentence: "the answer is", "Answer:", "the answer to this must be"."""
CHOICE_IS = rf"\b(?:correct|right|best|final|my)\s+(?:option|choice|letter){_IS}"
"""The same for options: "the correct option is", "my choice:"."""

_BRACES = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\.|[{}]")  # an escaped brace is text
_MATH = re.compile(
    r"\$\$([^$]{1,2000})\$\$|\$(?=\S)([^$\n]{1,2000})(?<=\S)\$(?!\d)"
    r"|\\\(([^\n]{1,2000}?)\\\)|\\\[(.{1,2000}?)\\\]",
    re.DOTALL,
)
_RUN_ON = re.compile(
    r"<\|[a-z_]+\|>"
    r"|\n[ \t]*(?:#+ *|\*\*)?(?:Question|Q|Problem|Exercise|Instruction|Input|User|Human)(?: *\d+)?(?:\*\*)? *[:.]",
    re.IGNORECASE,
)


def without_run_on(text: str) -> str:
    """Return the response up to where the model goes on with a question of its own.

    Such a question starts a line ("Question: …", "Q: …", "Problem 2. …", "User: …") or follows a chat marker
    ("<|user|>"). One at the very start of a response, which restates the task, is kept.
    """
    start = len(text) - len(text.lstrip())
    marks = (match.start() for match in _RUN_ON.finditer(text))
    return text[: next((mark for mark in marks if text[start:mark].strip()), len(text))]


def boxes(text: str) -> list[tuple[int, str]]:
    r"""Return start and content of each `\boxed{…}` or `\fbox{…}` with balanced braces, in order of their ends.

    A box that never closes, as in a response that was cut off, is none.
    """
    found = []
    open_braces: list[tuple[int, int] | None] = []  # start of a box and of its content; None for a plain brace
    for match in _BRACES.finditer(text):
        if match["box"]:
            open_braces.append((match.start(), match.end()))
        elif match[0] == "{":
            open_braces.append(None)
        elif match[0] == "}" and open_braces and (box := open_braces.pop()):
            found.append((box[0], text[box[1] : match.start()]))
    return found


def math_spans(text: str) -> list[str]:
    r"""Return what stands in $…$, $$…$$, \(…\) or \[…\], in order.

    As in Pandoc, an opening $ has no space after it, a closing one none before it and no digit after it, so that prices
    ($5 and $6) are none.
    """
    return [next(filter(None, match.groups())).strip() for match in _MATH.finditer(text)]
