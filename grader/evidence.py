"""What a worker says of an exception, checked against the submitted files.

A worker is in the submission's hands: it could pass a hidden test's inputs off as a function's name or a source line,
and the student's report would print them. So only file and line number are believed, where they exist; the rest is
read from the files.
"""

import ast
import builtins
from collections.abc import Mapping

from grader.results import TracebackLine


def believed_lines(told: list[TracebackLine], files: Mapping[str, bytes]) -> list[TracebackLine]:
    """Return the lines that are in the submitted files, with function and source as they stand there."""
    believed = []
    for line in told:
        text = files.get(line.file, b"").decode(errors="replace")
        source = text.splitlines()
        if 1 <= line.line <= len(source):
            function = _enclosing_function(text, line.line)
            believed.append(TracebackLine(line.file, line.line, function, source[line.line - 1].strip()[:400]))
    return believed


def believed_name(told: str) -> str:
    """Return the name of an exception if it is one of Python's own, else words for it."""
    kind = getattr(builtins, told, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return kind.__name__
    return "an exception of its own"


def _enclosing_function(text: str, line: int) -> str:
    """Return the name of the innermost function around a line."""
    try:
        nodes = ast.walk(ast.parse(text))
        around = [
            node
            for node in nodes
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if node.lineno <= line <= (node.end_lineno or 0)
        ]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "<module>"
    return max(around, key=lambda node: node.lineno).name if around else "<module>"
