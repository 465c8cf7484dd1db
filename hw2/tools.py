"""Tools: what a model calls, how a call is read and checked, and the loop of reasoning, acting and observing.

A model is not trusted: what it writes may be malformed, dangerous, or without end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from shared_tasks.models.engine import Engine, SamplingParams


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
    raise NotImplementedError


def parse_call(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Read a call like `{"name": "calculator", "arguments": {"expression": "2 + 3"}}`, one JSON object.

    White space around it is allowed, other text is not. Raises ValueError, with a message that helps the model to do
    better, whatever else comes: text that is no JSON object, other fields than these two, a tool that is not there,
    arguments that are missing, too many or of another type. A boolean is neither an integer nor a number; an integer is
    a number too.
    """
    raise NotImplementedError


def calculate(expression: str) -> int | float:
    """Compute an arithmetic expression, safely.

    Allowed are numbers (3, 0.5, 1e6), the operators + - * / // % ** with Python's precedence and meaning, signs,
    parentheses and spaces. Integers are exact. Raises ValueError for everything else: other syntax, names, calls, other
    constants (True, 2j, "a"), division by zero, results that are no real number, and expressions of more than 1,000
    characters. Numbers over 1e100 in magnitude, given or computed on the way, raise ValueError too, before they cost
    time or memory. Nothing is ever executed: no `eval`, no `exec`.
    """
    raise NotImplementedError


def run_program(source: str, limits: ProgramLimits) -> ProgramResult:
    """Run a Python program in a process of its own, within limits, and return what it printed.

    The interpreter is `sys.executable` in isolated mode (`-I`) and UTF-8 mode (`-X utf8`). The program gets an empty
    environment, no standard input, and a temporary working directory of its own that is removed afterwards. When it
    ends, or is stopped because it passed a limit, what it started and left in its process group is killed too. `stdout`
    and `stderr` hold what was printed, invalid UTF-8 replaced, of each no more than the first `output_bytes` bytes; a
    program that prints more is stopped, or its printing fails, and the outcome is "output" however it ends. A program
    that runs out of memory fails.
    """
    raise NotImplementedError


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
    raise NotImplementedError
