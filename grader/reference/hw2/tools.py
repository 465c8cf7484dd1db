"""Tools: what a model calls, how a call is read and checked, and the loop of reasoning, acting and observing.

A model is not trusted: what it writes may be malformed, dangerous, or without end.
"""

import ast
import contextlib
import json
import math
import operator
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from msgspec.structs import replace

from shared_tasks.models.engine import Engine, SamplingParams

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_LARGEST = 1e100


@dataclass(frozen=True)
class Tool:
    """A function that a model may call."""

    name: str
    description: str
    parameters: dict[str, str]
    """The type of each parameter: "string", "integer", "number" or "boolean". All of them are required."""
    function: Callable[..., Any]
    """Called with its parameters by name; what it returns is shown to the model as `str` gives it."""


@dataclass(frozen=True)
class ToolCall:
    """A call that a model asked for."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ProgramLimits:
    """What a program may take."""

    wall_seconds: float = 5.0
    cpu_seconds: int = 5
    memory_bytes: int = 268_435_456
    """Address space."""
    output_bytes: int = 10_000
    """On each of standard output and standard error."""


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended."""

    outcome: Literal["finished", "failed", "wall_time", "cpu_time", "output"]
    """finished: with exit code 0; failed: any other end of its own; or the limit for which it was stopped."""
    stdout: str
    stderr: str


@dataclass(frozen=True)
class AgentStep:
    """One turn of the loop."""

    text: str
    """What the model wrote, as far as it counts."""
    call: ToolCall | None
    """None where it asked for no tool, or not in a form that can be read."""
    observation: str | None
    """What it was shown; None where it gave its final answer."""


@dataclass(frozen=True)
class Episode:
    """One run of an agent."""

    answer: str | None
    """None when the steps ran out before there was an answer."""
    steps: list[AgentStep]


def tool_schema(tool: Tool) -> dict[str, Any]:
    """Describe a tool in JSON Schema, as chat templates and OpenAI-compatible servers want it.

    The result is `{"type": "function", "function": {"name": …, "description": …, "parameters": {"type": "object",
    "properties": {…}, "required": […], "additionalProperties": False}}}`, where each property is `{"type": …}` and
    `required` lists all parameters in their order. Raises ValueError for a type that is none of the four.
    """
    unknown = [kind for kind in tool.parameters.values() if kind not in _TYPES]
    if unknown:
        raise ValueError(f"expected one of the types {', '.join(_TYPES)}, got {', '.join(unknown)}")
    parameters = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in tool.parameters.items()},
        "required": list(tool.parameters),
        "additionalProperties": False,
    }
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def parse_call(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Read a call like `{"name": "calculator", "arguments": {"expression": "2 + 3"}}`, one JSON object.

    White space around it is allowed, other text is not. Raises ValueError, with a message that helps the model to do
    better, whatever else comes: text that is no JSON object, other fields than these two, a tool that is not there,
    arguments that are missing, too many or of another type. A boolean is neither an integer nor a number; an integer is
    a number too.
    """
    try:
        call = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a call in JSON, got {text.strip()[:200]!r} ({error})") from error
    if not isinstance(call, dict) or set(call) != {"name", "arguments"} or not isinstance(call["arguments"], dict):
        raise ValueError('expected {"name": …, "arguments": {…}}, ' + f"got {text.strip()[:200]}")
    name, arguments = call["name"], call["arguments"]
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None:
        raise ValueError(f"expected one of the tools {', '.join(tool.name for tool in tools)}, got {name!r}")
    if set(arguments) != set(tool.parameters):
        expected, given = (", ".join(names) or "none" for names in (tool.parameters, arguments))
        raise ValueError(f"expected the arguments of {name}: {expected}; got: {given}")
    for parameter, kind in tool.parameters.items():
        value = arguments[parameter]
        if not isinstance(value, _TYPES[kind]) or isinstance(value, bool) != (kind == "boolean"):
            raise ValueError(f"expected a value of type {kind} for {parameter} of {name}, got {value!r}")
    return ToolCall(tool.name, arguments)


def calculate(expression: str) -> int | float:
    """Compute an arithmetic expression, safely.

    Allowed are numbers (3, 0.5, 1e6), the operators + - * / // % ** with Python's precedence and meaning, signs,
    parentheses and spaces. Integers are exact. Raises ValueError for everything else: other syntax, names, calls, other
    constants (True, 2j, "a"), division by zero, results that are no real number, and expressions of more than 1,000
    characters. Numbers over 1e100 in magnitude, given or computed on the way, raise ValueError too, before they cost
    time or memory. Nothing is ever executed: no `eval`, no `exec`.
    """
    if len(expression) > 1000:
        raise ValueError(f"expected an expression of at most 1,000 characters, got {len(expression):,}")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ValueError(f"expected an arithmetic expression, got {expression!r} ({error})") from error


def run_program(source: str, limits: ProgramLimits) -> ProgramResult:
    """Run a Python program in a process of its own, within limits, and return what it printed.

    The interpreter is `sys.executable` in isolated mode (`-I`) and UTF-8 mode (`-X utf8`). The program gets an empty
    environment, no standard input, and a temporary working directory of its own that is removed afterwards. When it
    ends, or is stopped because it passed a limit, what it started and left in its process group is killed too. `stdout`
    and `stderr` hold what was printed, invalid UTF-8 replaced, of each no more than the first `output_bytes` bytes; a
    program that prints more is stopped, or its printing fails, and the outcome is "output" however it ends. A program
    that runs out of memory fails.
    """
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as stdout,  # files, not pipes: they neither fill up nor stay open in a grandchild
        tempfile.TemporaryFile() as stderr,
    ):
        program = Path(folder) / "program.py"
        program.write_text(source, encoding="utf-8", errors="surrogatepass")
        process = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", program.name],
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,  # a process group of its own, to be killed as one
            preexec_fn=partial(_limit_this_process, limits),
        )
        stopped = False
        try:
            process.wait(limits.wall_seconds)
        except subprocess.TimeoutExpired:
            stopped = True
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of the group
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed = [_beginning(file, limits.output_bytes + 1) for file in (stdout, stderr)]
    texts = [data[: limits.output_bytes].decode(errors="replace") for data in printed]
    if max(map(len, printed)) > limits.output_bytes:
        return ProgramResult("output", *texts)
    if stopped:
        return ProgramResult("wall_time", *texts)
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return ProgramResult("cpu_time", *texts)
    return ProgramResult("failed" if process.returncode else "finished", *texts)


def run_agent(model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams) -> Episode:
    """Let a model reason, act and observe until it gives its final answer, for at most `max_steps` steps.

    A step is one `model.generate` call with one prompt: `prompt`, followed by the text of each step so far and its
    observation, as `f"{text}\\nObservation: {observation}\\n"`. It stops at "Observation:" besides the stop strings of
    `params`, so that the model never writes an observation itself. In what it wrote, the first line that begins with
    "Action:" or "Final Answer:" decides. Final Answer: the rest of the text after the colon, stripped, is the answer,
    and the loop ends. Action: the rest of that line is a tool call for `parse_call`; the text of the step ends with
    this line, and what came after it is dropped. The text of a step is stripped of white space at its end.

    The observation is what the tool returned, as `str` gives it. Everything that goes wrong is an observation too,
    which begins with "Error: ": neither line there, a call that cannot be read, an exception of the tool (with its
    message). Raises ValueError unless max_steps >= 0.

    Paper: Yao et al., 2022, https://arxiv.org/abs/2210.03629.
    """
    if max_steps < 0:
        raise ValueError(f"expected max_steps >= 0, got {max_steps}")
    params = replace(params, stop=(*params.stop, "Observation:"))
    steps: list[AgentStep] = []
    for _ in range(max_steps):
        (generation,) = model.generate([prompt], params)
        text = generation.completions[0].text
        decision = re.search(r"^(Action|Final Answer):(.*)", text, re.MULTILINE)
        if decision and decision[1] == "Final Answer":
            steps.append(AgentStep(text.rstrip(), None, None))
            return Episode(text[decision.start(2) :].strip(), steps)
        text = text[: decision.end() if decision else None].rstrip()  # what follows an action has not seen its result
        step = AgentStep(text, *_act(decision[2] if decision else None, tools))
        steps.append(step)
        prompt += f"{step.text}\nObservation: {step.observation}\n"
    return Episode(None, steps)


def _value(node: ast.expr) -> int | float:
    """Return the value of an expression of which nothing is allowed but what is listed here."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            a, b = _value(left), _value(right)
            if isinstance(op, ast.Pow) and a != 0 and b * math.log(abs(a)) > math.log(_LARGEST):
                raise ValueError(f"expected numbers up to {_LARGEST:g}, got {a} ** {b}")  # without computing it
            return _bounded(_OPERATORS[type(op)](a, b))
    raise ValueError(f"expected numbers and the operators + - * / // % **, got {ast.unparse(node)!r}")


def _bounded(value: int | float | complex) -> int | float:
    if isinstance(value, complex):
        raise ValueError(f"expected a real number, got {value}")
    if abs(value) > _LARGEST:
        raise ValueError(f"expected numbers up to {_LARGEST:g}, got one that is larger")
    return value


def _limit_this_process(limits: ProgramLimits) -> None:
    """Set the limits that the kernel watches over; runs in the new process before it becomes the program."""
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),  # SIGXCPU, then SIGKILL if that is ignored
        (resource.RLIMIT_FSIZE, limits.output_bytes + 1, limits.output_bytes + 1),  # one more shows that it was passed
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),  # last: it holds for this process too
    ):
        if kind == resource.RLIMIT_AS and sys.platform == "darwin":
            continue  # macOS refuses it
        _, highest = resource.getrlimit(kind)
        if highest != resource.RLIM_INFINITY:  # someone may have limited us already
            soft, hard = min(soft, highest), min(hard, highest)
        resource.setrlimit(kind, (soft, hard))


def _beginning(file: IO[bytes], size: int) -> bytes:
    file.seek(0)
    return file.read(size)


def _act(request: str | None, tools: Sequence[Tool]) -> tuple[ToolCall | None, str]:
    """Run the tool that the model asks for; return the call and what the model observes."""
    if request is None:
        return None, 'Error: expected a line that begins with "Action:" or "Final Answer:"'
    try:
        call = parse_call(request, tools)
    except ValueError as error:
        return None, f"Error: {error}"
    tool = next(tool for tool in tools if tool.name == call.name)
    try:
        return call, str(tool.function(**call.arguments))
    except Exception as error:
        return call, f"Error: {type(error).__name__}: {error}"
