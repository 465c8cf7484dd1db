r"""The process that runs Math-Verify for `expressions`. Started as a script; speaks JSON lines.

Parsing an answer may take for ever or fill the memory (2^{10000000000}), and Math-Verify's own time limit works in a
main thread only. So this process imports Math-Verify once, then serves from a fork of itself in which every comparison
has a limit of CPU time. A fork that exceeds it is ended by the kernel, whatever it is in the middle of; the next fork
is ready within milliseconds.
"""

import json
import logging
import os
import resource
import signal
import sys
from typing import BinaryIO

import sympy  # type: ignore[import-untyped]
from math_verify import parse, verify  # type: ignore[import-untyped]
from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig  # type: ignore[import-untyped]

_MEMORY = 2 * 2**30  # bytes of address space
_PRECISION = 30  # digits
_TOLERANCE = sympy.Rational(1, 10**5)


def _expression(text: str) -> list[object]:
    configs = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    return list(parse(f"${text}$", extraction_config=configs, fallback_mode="no_fallback", parsing_timeout=None))


def equal(gold: str, answer: str) -> bool | None:
    """Return whether two expressions are equal, or None where one of them cannot be parsed."""
    first, second = _expression(gold), _expression(answer)
    if not first or not second:
        return None
    if not verify(first, second, timeout_seconds=None):
        return False
    return "%" in gold + answer or not _numbers_differ(first[0], second[0])


def _numbers_differ(gold: object, answer: object) -> bool:
    """Return whether two numbers differ relative to their size: Math-Verify rounds, and takes 1/2^99 for 1/2^98."""
    if not (isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr) and gold.is_number and answer.is_number):
        return False
    one, other = gold.evalf(_PRECISION), answer.evalf(_PRECISION)
    return bool(abs(one - other) > _TOLERANCE * max(abs(one), abs(other)))


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    for line in iter(requests.readline, b""):
        gold, answer, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process
        try:
            verdict = equal(gold, answer)
        except Exception:  # Math-Verify raises what its parsers do; memory and recursion limits end up here too
            verdict = None
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(verdict).encode() + b"\n")
        replies.flush()


def main() -> None:
    """Serve until the input closes, from a new fork whenever one was ended."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for gold, answer in ((r"\frac{1}{2}", "0.5"), (r"\sqrt{2}/2", r"x^2+1"), ("(1,2)", r"\{1, 2\}"), ("x=5", "5")):
        equal(gold, answer)  # the parser builds its tables as it meets grammar
    while True:
        server = os.fork()
        if server == 0:
            _serve(sys.stdin.buffer, sys.stdout.buffer)
            os._exit(0)
        if os.waitpid(server, 0)[1] == 0:
            return
        os.write(sys.stdout.fileno(), b"null\n")  # the answer that the ended fork owes


if __name__ == "__main__":
    main()
