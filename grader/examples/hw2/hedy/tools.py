"""Tools: what a model calls, how a call is read and checked, and the loop of reasoning, acting and observing.

A model is not trusted: what it writes may be malformed, dangerous, or without end.
"""

import ast
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
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
from shared_tasks.models.engine import Engine, SamplingParams


JSON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}
POLL_SECONDS = 0.005


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
    for name, kind in tool.parameters.items():
        if kind not in JSON_TYPES:
            raise ValueError(f"parameter {name} of {tool.name}: expected one of {list(JSON_TYPES)}, got {kind!r}")
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": {
                "type": "object",
                "properties": {name: {"type": kind} for name, kind in tool.parameters.items()},
                "required": list(tool.parameters),
                "additionalProperties": False,
            },
        },
    }


def parse_call(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Read a call like `{"name": "calculator", "arguments": {"expression": "2 + 3"}}`, one JSON object.

    White space around it is allowed, other text is not. Raises ValueError, with a message that helps the model to do
    better, whatever else comes: text that is no JSON object, other fields than these two, a tool that is not there,
    arguments that are missing, too many or of another type. A boolean is neither an integer nor a number; an integer is
    a number too.
    """
    try:
        call = json.loads(text.strip(), object_pairs_hook=_without_repeats, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("expected a flat JSON object, got one that is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"expected one JSON object and nothing else: {error}") from None
    if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
        raise ValueError('expected a JSON object with exactly the fields "name" and "arguments"')
    name, arguments = call["name"], call["arguments"]
    tool = next((tool for tool in tools if tool.name == name), None)
    if tool is None:
        raise ValueError(f"expected one of the tools {[tool.name for tool in tools]}, got {name!r}")
    if not isinstance(arguments, dict) or set(arguments) != set(tool.parameters):
        raise ValueError(f"arguments of {name}: expected an object with exactly {list(tool.parameters)}")
    for parameter, kind in tool.parameters.items():
        value = arguments[parameter]
        if not isinstance(value, JSON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
            raise ValueError(f"argument {parameter} of {name}: expected a value of type {kind}, got {value!r}")
    return ToolCall(name, arguments)


def calculate(expression: str) -> int | float:
    """Compute an arithmetic expression, safely.

    Allowed are numbers (3, 0.5, 1e6), the operators + - * / // % ** with Python's precedence and meaning, signs,
    parentheses and spaces. Integers are exact. Raises ValueError for everything else: other syntax, names, calls, other
    constants (True, 2j, "a"), division by zero, results that are no real number, and expressions of more than 1,000
    characters. Numbers over 1e100 in magnitude, given or computed on the way, raise ValueError too, before they cost
    time or memory. Nothing is ever executed: no `eval`, no `exec`.
    """
    if len(expression) > 1000:
        raise ValueError(f"expected at most 1,000 characters, got {len(expression)}")
    expression = expression.strip()
    if not re.fullmatch(r"[0-9.eE+\-*/%() ]+", expression):
        raise ValueError(f"expected numbers, + - * / // % **, parentheses and spaces only, got {expression!r}")
    try:
        body = ast.parse(expression, mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"expected an arithmetic expression, got {expression!r}") from None
    nodes, todo = [], [body]
    while todo:  # each node stands before those below it
        node = todo.pop()
        nodes.append(node)
        if isinstance(node, ast.BinOp):
            todo += [node.left, node.right]
        elif isinstance(node, ast.UnaryOp):
            todo.append(node.operand)
    values: list[int | float] = []
    for node in reversed(nodes):
        try:
            values.append(_bounded(_value(node, values)))
        except (ZeroDivisionError, OverflowError) as error:
            raise ValueError(f"{error} in {expression!r}") from None
    return values.pop()


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
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        script, *streams = (Path(own, name) for name in ("program.py", "stdout", "stderr"))
        script.write_bytes(source.encode("utf-8", errors="surrogatepass"))
        with streams[0].open("wb") as stdout, streams[1].open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-I", "-X", "utf8", str(script)],
                env={},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                preexec_fn=lambda: _limit_this_process(limits),
            )
        outcome = _wait(process, streams, limits)
        if _too_long(streams, limits):
            outcome = "output"
        texts = []
        for stream in streams:
            with stream.open("rb") as file:
                texts.append(file.read(limits.output_bytes).decode("utf-8", errors="replace"))
    return ProgramResult(outcome, *texts)


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
        raise ValueError(f"expected max_steps of at least 0, got {max_steps}")
    stop = tuple(dict.fromkeys((*params.stop, "Observation:")))
    params = msgspec.structs.replace(params, n=1, stop=stop)
    steps: list[AgentStep] = []
    for _ in range(max_steps):
        [generation] = model.generate([prompt], params)
        text = generation.completions[0].text
        marker = re.search(r"^(Action|Final Answer):", text, flags=re.MULTILINE)
        if marker is not None and marker[1] == "Final Answer":
            steps.append(AgentStep(text.rstrip(), None, None))
            return Episode(text[marker.end() :].strip(), steps)
        if marker is None:
            step = AgentStep(text.rstrip(), None, 'Error: expected a line "Action: {call}" or "Final Answer: {answer}"')
        else:
            action = text[marker.end() :].split("\n")[0]
            step = AgentStep(text[: marker.end() + len(action)].rstrip(), *_act(action, tools))
        steps.append(step)
        prompt += f"{step.text}\nObservation: {step.observation}\n"
    return Episode(None, steps)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError(f"expected each field once, got {[name for name, _ in pairs]}")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"expected JSON, which has no {name}")


def _value(node: ast.expr, values: list[int | float]) -> int | float | complex:
    """Return the value of a node, taking those of its operands from the end of `values`."""
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return value
        case ast.UnaryOp(op=op) if type(op) in UNARY:
            return UNARY[type(op)](values.pop())
        case ast.BinOp(op=op) if type(op) in BINARY:
            right, left = values.pop(), values.pop()
            # a margin of 1, since logarithms are rounded: what is just too large is found afterwards
            if isinstance(op, ast.Pow) and left and right * math.log(abs(left)) > 100 * math.log(10) + 1:
                raise OverflowError("number over 1e100")
            return BINARY[type(op)](left, right)
    raise ValueError(f"expected numbers and + - * / // % ** only, got {type(node).__name__}")


def _bounded(value: int | float | complex) -> int | float:
    if isinstance(value, complex):
        raise ValueError("expected a real number, got a complex one")
    if not abs(value) <= (10**100 if isinstance(value, int) else 1e100):
        raise ValueError("expected numbers of at most 1e100")
    return value


def _limit_this_process(limits: ProgramLimits) -> None:
    """Set the limits, in the process that becomes the program, never above hard limits that are there already."""
    for kind, soft, hard in (
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.output_bytes + 1, limits.output_bytes + 1),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        _, most = resource.getrlimit(kind)
        if most != resource.RLIM_INFINITY:
            hard = min(hard, most)
        try:
            resource.setrlimit(kind, (min(soft, hard), hard))
        except (ValueError, OSError):
            if kind != resource.RLIMIT_AS:  # macOS does not limit the address space
                raise


def _too_long(streams: Sequence[Path], limits: ProgramLimits) -> bool:
    return any(stream.stat().st_size > limits.output_bytes for stream in streams)


def _wait(process: subprocess.Popen, streams: Sequence[Path], limits: ProgramLimits) -> str:
    """Wait until the program ends, or is to be stopped; kill its process group; return the outcome."""
    deadline = time.monotonic() + limits.wall_seconds
    stopped = None
    try:
        # WNOWAIT leaves the ended process in the table, so that its group's number cannot be given to another
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if _too_long(streams, limits):
                stopped = "output"
                break
            if time.monotonic() >= deadline:
                stopped = "wall_time"
                break
            time.sleep(POLL_SECONDS)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # nobody is left
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if stopped:
        return stopped
    cpu_seconds = usage.ru_utime + usage.ru_stime
    if process.returncode == -signal.SIGXCPU or (
        process.returncode == -signal.SIGKILL and cpu_seconds >= limits.cpu_seconds  # it ignored SIGXCPU
    ):
        return "cpu_time"
    return "finished" if process.returncode == 0 else "failed"


def _act(action: str, tools: Sequence[Tool]) -> tuple[ToolCall | None, str]:
    """Return the call that an action asks for, None if it cannot be read, and what is observed."""
    call = None
    try:
        call = parse_call(action, tools)
        tool = next(tool for tool in tools if tool.name == call.name)
        return call, str(tool.function(**call.arguments))
    except Exception as error:  # noqa: BLE001 (whatever a tool raises, the model is told)
        return call, f"Error: {error}" if call is None else f"Error: {type(error).__name__}: {error}"
