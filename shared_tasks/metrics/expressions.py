r"""The final expression of a response, and whether it equals the right one: Math-Verify, used safely.

Comparison is bounded in time, memory and size, works from any thread and in parallel, and is guarded against verdicts
that are known to be wrong.
"""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

from shared_tasks.metrics.answers import ANSWER_IS, boxes, math_spans, without_run_on
from shared_tasks.metrics.numbers import extract_number

_START_SECONDS = 60  # of wall time, on a busy machine
_MAX_CHARACTERS = 1000  # longer than any answer; what is longer is degenerate text
_ANSWER_IS = re.compile(rf"{ANSWER_IS}[ \t*:]*(\S[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;](?:\s|$)|,\s+[a-z]{2,}|\s+(?:because|since|so|which)\b")
_LAYOUT = re.compile(r"(?<!\\)\\(?:left(?![a-z])|right(?![a-z])|[!,;: ])|~")  # not the \\ that ends a matrix row
_DELIMITED = re.compile(r"\$+([^$]+)(?<!\\)\$+|\\\((.+)\\\)|\\\[(.+)\\\]", re.DOTALL)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf)\{([^{}]*)\}")
_HUGE = re.compile(r"(?:\^|\*\*)[\s{(]*\d{5}|\d{5}[\s})]*!")  # 2^{10000000000}, 1000000!
_PLAIN_NAME = re.compile(r"(?<![\\A-Za-z])(?:pi|infty|infinity)(?![A-Za-z])")
_WITH_BASE = re.compile(r"([\dA-Za-z.,]+)_(?:\{(?:\\text\{)?(\w+)\}*|(\d))")
_WORDS = re.compile(r"[A-Za-z][A-Za-z ]{3,}")


def extract_expression(text: str) -> str | None:
    r"""Return the final expression of a response as it is written, or None where it has none.

    It is, in this order: the content of the last `\boxed{}`, so that a revision wins; what follows the last `####` on
    its line; what follows the last "answer is"; the last $…$, \(…\) or \[…\]; the last number. Where the response runs
    on into a question of its own, only what stands before counts.

    Convention: `\boxed{}` as in Hendrycks et al., 2021, https://arxiv.org/abs/2103.03874.
    """
    response = without_run_on(text)
    if found := [content.strip() for _, content in boxes(response) if content.strip()]:
        return found[-1]
    if found := re.findall(r"####(?!#)[ \t]*([^\s#][^\n]*)", response) or _ANSWER_IS.findall(response):
        return _first_expression(found[-1])
    if found := math_spans(response):
        return found[-1]
    number = extract_number(response)
    return None if number is None else str(number)


def expressions_equal(gold: str, answer: str | None, timeout: float = 1.0) -> bool | None:
    r"""Return whether an answer equals the gold expression, or None where that could not be found out.

    Both are LaTeX or plain text, without a box. None counts as wrong: one of the two cannot be parsed, is longer than
    1,000 characters, has an exponent or a factorial of five digits or more, or takes more than `timeout` seconds of CPU
    time (not wall time, so that a busy machine changes no verdict). An `answer` of None, no answer, is False.

    Expressions that are written alike are equal. Otherwise Math-Verify decides, except where it is known to be wrong:
    numbers with a base (52_8) equal only the same digits in the same base, words only the same words, a tuple or
    interval no set, and numbers are compared relative to their size (1/2^{99} is not 1/2^{98}).

    The first call starts a process, which takes a second; later ones take milliseconds. POSIX only.

    Implementation: Math-Verify, https://github.com/huggingface/Math-Verify.
    """
    if answer is None:
        return False
    if max(len(gold), len(answer)) > _MAX_CHARACTERS:
        return None
    gold, answer = _normalised(gold), _normalised(answer)
    if not gold or not answer:
        return None
    if gold.replace(" ", "") == answer.replace(" ", ""):
        return True
    if _WITH_BASE.fullmatch(gold) or _WITH_BASE.fullmatch(answer):
        return _digits_and_base(gold) == _digits_and_base(answer)
    if _WORDS.fullmatch(gold):
        return gold.casefold() == answer.casefold()
    if (_is_set(gold) and _is_tuple(answer)) or (_is_tuple(gold) and _is_set(answer)):
        return False
    if _HUGE.search(gold) or _HUGE.search(answer):
        return None
    return _workers.ask(gold, answer, timeout)


def _first_expression(text: str) -> str | None:
    """Return the expression that a statement of the answer begins with."""
    spans = math_spans(text)
    return (spans[0] if spans else _SENTENCE_END.split(text, maxsplit=1)[0]).strip(" *:") or None


def _normalised(text: str) -> str:
    """Return an expression without delimiters, layout and a wrapping of plain text, with names as LaTeX has them."""
    text = text.strip().removesuffix(".").strip()
    if delimited := _DELIMITED.fullmatch(text):
        text = next(filter(None, delimited.groups()))
    text = _LAYOUT.sub("", re.sub(r"\\[dt]frac", r"\\frac", text))
    text = " ".join(text.split())
    if wrapped := _TEXT.fullmatch(text):
        text = wrapped[1].strip()
    if letter := re.fullmatch(r"\(([A-Za-z])\)", text):
        text = letter[1]
    return _PLAIN_NAME.sub(lambda name: r"\pi" if name[0] == "pi" else r"\infty", text)


def _digits_and_base(text: str) -> tuple[str, str]:
    """Return the digits of a number and its base, which is empty where none is written."""
    match = _WITH_BASE.fullmatch(text)
    return (match[1].replace(",", ""), match[2] or match[3]) if match else (text.replace(",", ""), "")


def _is_set(text: str) -> bool:
    return text.startswith("\\{")


def _is_tuple(text: str) -> bool:
    return text[0] in "([" and text[-1] in ")]" and "," in text


class _Worker:
    """A process that compares expressions, one at a time."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("expression_worker.py")
        # -P: the script's folder has modules named like the standard library's, and must not be searched for them
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    def ask(self, gold: str, answer: str, timeout: float) -> bool | None:
        """Return the verdict, or None where there is none. Raises OSError when the process is gone or hangs."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([gold, answer, timeout]).encode() + b"\n")
        self.process.stdin.flush()
        patience = _START_SECONDS + 20 * timeout  # of wall time: the limit of CPU time ends it long before
        if not select.select([self.process.stdout], [], [], patience)[0]:
            raise TimeoutError(f"the process that compares expressions did not answer for {patience} seconds")
        reply = self.process.stdout.readline()
        if not reply:
            raise BrokenPipeError("the process that compares expressions has ended")
        verdict: bool | None = json.loads(reply)
        return verdict

    def kill(self) -> None:
        """End the process and the fork that serves in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


class _Workers:
    """As many workers as there are cores at most, started as they are needed and kept for the next comparison."""

    def __init__(self) -> None:
        self.idle: list[_Worker] = []
        self.free = threading.BoundedSemaphore(os.cpu_count() or 1)

    def ask(self, gold: str, answer: str, timeout: float) -> bool | None:
        """Return a worker's verdict; a worker that fails is replaced once."""
        with self.free:
            for _ in range(2):
                try:
                    worker = self.idle.pop()
                except IndexError:
                    worker = _Worker()
                try:
                    verdict = worker.ask(gold, answer, timeout)
                except OSError:
                    worker.kill()
                    continue
                self.idle.append(worker)
                return verdict
        return None


_workers = _Workers()


def _start_anew() -> None:
    """Leave the workers to the parent of a forked process, and start others in the child."""
    global _workers
    _workers = _Workers()


os.register_at_fork(after_in_child=_start_anew)
