"""A second correct solution of hw2.tools: a parser of its own, pipes and threads, a program that limits itself."""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

from shared_tasks.models.engine import Engine, SamplingParams


@dataclass(frozen=True)
class Tool:
    """A function that a model may call."""

    name: str
    description: str
    parameters: dict[str, str]
    function: Callable[..., Any]


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
    output_bytes: int = 10_000


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended."""

    outcome: Literal["finished", "failed", "wall_time", "cpu_time", "output"]
    stdout: str
    stderr: str


@dataclass(frozen=True)
class AgentStep:
    """One turn of the loop."""

    text: str
    call: ToolCall | None
    observation: str | None


@dataclass(frozen=True)
class Episode:
    """One run of an agent."""

    answer: str | None
    steps: list[AgentStep]


def tool_schema(tool: Tool) -> dict[str, Any]:
    """Fill the schema in by and by."""
    schema: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": {}, "required": []}
    for parameter, kind in tool.parameters.items():
        if kind not in ("string", "integer", "number", "boolean"):
            raise ValueError(f"the type {kind} is unknown")
        schema["properties"][parameter] = {"type": kind}
        schema["required"].append(parameter)
    return {
        "function": {"parameters": schema, "description": tool.description, "name": tool.name},
        "type": "function",
    }


def parse_call(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Check one thing after another."""
    try:
        call = json.JSONDecoder().decode(text.strip())
    except Exception:
        raise ValueError("this is no JSON") from None
    if type(call) is not dict or sorted(call) != ["arguments", "name"]:
        raise ValueError("a call has the fields name and arguments")
    by_name = {tool.name: tool for tool in tools}
    if type(call["name"]) is not str or call["name"] not in by_name:
        raise ValueError("there is no such tool; there are: " + ", ".join(by_name))
    declared = by_name[call["name"]].parameters
    if type(call["arguments"]) is not dict:
        raise ValueError("the arguments are no object")
    for name in {**declared, **call["arguments"]}:
        if name not in declared:
            raise ValueError(f"there is no parameter {name}")
        if name not in call["arguments"]:
            raise ValueError(f"the argument {name} is missing")
        kinds = {"string": [str], "integer": [int], "number": [int, float], "boolean": [bool]}[declared[name]]
        if type(call["arguments"][name]) not in kinds:
            raise ValueError(f"the argument {name} is not of type {declared[name]}")
    return ToolCall(name=call["name"], arguments=call["arguments"])


LEVELS = [("+", "-"), ("*", "/", "//", "%")]


class _Parser:
    """Precedence climbing over tokens."""

    def __init__(self, expression: str):
        pattern = r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|(\*\*|//|[-+*/%()]))"
        self.tokens: list[str] = []
        position, expression = 0, expression.strip()
        while position < len(expression):
            match = re.compile(pattern, re.ASCII).match(expression, position)
            if match is None:
                raise ValueError(f"{expression[position]!r} is not allowed here")
            self.tokens.append(match[1] or match[2])
            position = match.end()
        self.tokens.append("end")

    def take(self) -> str:
        return self.tokens.pop(0)

    def binary(self, level: int) -> int | float:
        if level == len(LEVELS):
            return self.signed()
        left = self.binary(level + 1)
        while self.tokens[0] in LEVELS[level]:
            left = _apply(self.take(), left, self.binary(level + 1))
        return left

    def signed(self) -> int | float:
        if self.tokens[0] == "-":
            self.take()
            return _checked(-self.signed())
        if self.tokens[0] == "+":
            self.take()
            return self.signed()
        base = self.atom()
        if self.tokens[0] == "**":
            self.take()
            return _apply("**", base, self.signed())
        return base

    def atom(self) -> int | float:
        token = self.take()
        if token == "(":
            value = self.binary(0)
            if self.take() != ")":
                raise ValueError("a parenthesis is not closed")
            return value
        if token[0] not in "0123456789.":
            raise ValueError(f"expected a number, got {token}")
        return _checked(int(token) if token.isdigit() else float(token))


def _apply(operator: str, a: int | float, b: int | float) -> int | float:
    if operator in ("/", "//", "%") and b == 0:
        raise ValueError("division by zero")
    if operator == "**":
        if a == 0 and b < 0:
            raise ValueError("division by zero")
        if a < 0 and b != int(b):
            raise ValueError("the result is not real")
        if a != 0 and b * math.log10(abs(a)) > 100.5:
            raise ValueError("the power is too large")
        return _checked(a**b)
    operations: dict[str, Callable[[], int | float]] = {
        "+": lambda: a + b,
        "-": lambda: a - b,
        "*": lambda: a * b,
        "/": lambda: a / b,
        "//": lambda: a // b,
        "%": lambda: a % b,
    }
    return _checked(operations[operator]())


def _checked(value: int | float) -> int | float:
    if not -1e100 <= value <= 1e100:
        raise ValueError("the number is too large")
    return value


def calculate(expression: str) -> int | float:
    """Parse and compute in one pass."""
    if len(expression) > 1000:
        raise ValueError("the expression is too long")
    parser = _Parser(expression)
    try:
        value = parser.binary(0)
    except RecursionError:
        raise ValueError("the expression is nested too deeply") from None
    if parser.tokens != ["end"]:
        raise ValueError("the expression goes on after its end")
    return value


BEGIN = """
import os, resource, sys
cpu, memory, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 2))
if sys.platform != "darwin":
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
os.execve(sys.executable, [sys.executable, "-I", "-X", "utf8", program], {})
"""


def run_program(source: str, limits: ProgramLimits) -> ProgramResult:
    """Read both pipes in threads of their own, up to the limit."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "main.py")
        with open(path, "wb") as file:
            file.write(source.encode("utf-8", "surrogateescape"))
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", BEGIN, str(limits.cpu_seconds), str(limits.memory_bytes), path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env={},
            process_group=0,
        )
        printed: dict[str, bytes] = {}
        passed: list[str] = []

        def read(name: str, pipe: IO[bytes]) -> None:
            data = b""
            while len(data) <= limits.output_bytes and (more := os.read(pipe.fileno(), 4096)):
                data += more
                printed[name] = data[: limits.output_bytes]
            if len(data) > limits.output_bytes:
                passed.append(name)
                os.killpg(process.pid, signal.SIGKILL)

        pipes = {"stdout": process.stdout, "stderr": process.stderr}
        threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in pipes.items()]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + limits.wall_seconds
        late = False
        try:
            process.wait(timeout=deadline - time.monotonic())
        except subprocess.TimeoutExpired:
            late = True
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        for thread in threads:
            thread.join()
        stdout, stderr = (printed.get(name, b"").decode("utf-8", "replace") for name in ("stdout", "stderr"))
    if passed:
        return ProgramResult("output", stdout, stderr)
    if late:
        return ProgramResult("wall_time", stdout, stderr)
    if status == -signal.SIGXCPU or status == -signal.SIGKILL:
        return ProgramResult("cpu_time", stdout, stderr)
    return ProgramResult("finished" if status == 0 else "failed", stdout, stderr)


def run_agent(model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams) -> Episode:
    """Go through the lines; write the prompt anew from the steps each time."""
    if max_steps < 0:
        raise ValueError("max_steps must not be negative")
    fields = {name: getattr(params, name) for name in params.__struct_fields__}
    own = SamplingParams(**{**fields, "stop": ("Observation:", *params.stop)})
    steps: list[AgentStep] = []
    while len(steps) < max_steps:
        history = "".join(f"{step.text}\nObservation: {step.observation}\n" for step in steps)
        text = model.generate([prompt + history], own)[0].completions[0].text
        lines = text.split("\n")
        kept: list[str] = []
        observation = "Error: write either an action or a final answer"
        call = None
        for number, line in enumerate(lines):
            kept.append(line)
            if line.startswith("Final Answer:"):
                answer = "\n".join([line.removeprefix("Final Answer:"), *lines[number + 1 :]])
                steps.append(AgentStep(text.rstrip(), None, None))
                return Episode(answer.strip(), steps)
            if line.startswith("Action:"):
                try:
                    call = parse_call(line.removeprefix("Action:"), tools)
                    for tool in tools:
                        if tool.name == call.name:
                            observation = f"{tool.function(**call.arguments)}"
                            break
                except Exception as error:
                    observation = f"Error: {error}"
                break
        steps.append(AgentStep("\n".join(kept).rstrip(), call, observation))
    return Episode(None, steps)
