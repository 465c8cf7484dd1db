"""Public tests of hw2.tools. Run them with `pytest hw2/tests/test_tools.py`; -k TestCalculate picks one problem."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import sys

import pytest

from hw2 import tools
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

LIMITS = tools.ProgramLimits()


def add(first, second):
    """Add two numbers."""
    return first + second


ADD = tools.Tool("add", "Adds two numbers.", {"first": "number", "second": "number"}, add)
REPEAT = tools.Tool(
    "repeat", "Repeats a text.", {"text": "string", "count": "integer"}, lambda text, count: text * count
)


class TestToolSchema:
    """What a server is told of a tool."""

    def test_schema(self):
        """The schema names the tool, says what it does, and lists types and names of its parameters."""
        expected = {
            "type": "function",
            "function": {
                "name": "repeat",
                "description": "Repeats a text.",
                "parameters": {
                    "type": "object",
                    "properties": {"text": {"type": "string"}, "count": {"type": "integer"}},
                    "required": ["text", "count"],
                    "additionalProperties": False,
                },
            },
        }
        assert_equal(tools.tool_schema(REPEAT), expected, "the schema")


class TestParseCall:
    """A call in JSON."""

    def test_call(self):
        """A call of a tool that is there, with the arguments it takes, is read."""
        call = tools.parse_call(' {"arguments": {"first": 2, "second": 0.5}, "name": "add"}\n', [REPEAT, ADD])
        assert_equal(call.name, "add", "the name")
        assert_equal(call.arguments, {"first": 2, "second": 0.5}, "the arguments")

    def test_refusals(self):
        """What is no call, and a call with wrong arguments, raises ValueError."""
        for text in (
            "add(1, 2)",
            '["add", 1, 2]',
            '{"name": "subtract", "arguments": {"first": 1, "second": 2}}',
            '{"name": "add", "arguments": {"first": 1}}',
            '{"name": "add", "arguments": {"first": 1, "second": "2"}}',
        ):
            with pytest.raises(ValueError):
                tools.parse_call(text, [ADD, REPEAT])


class TestCalculate:
    """Arithmetic without eval."""

    def test_arithmetic(self):
        """Expressions have Python's values."""
        for expression, value in (("2 + 3 * 4", 14), ("-2 ** 2", -4), ("(1 - 4) * 2 // 4", -2), ("7 / 2", 3.5)):
            assert_close(tools.calculate(expression), value, 1e-12, expression)
        assert_equal(tools.calculate("10 ** 20 + 1 - 10 ** 20"), 1, "10 ** 20 + 1 - 10 ** 20")

    def test_refusals(self):
        """Anything else, and numbers that are too large, raise ValueError."""
        for expression in (
            "",
            "2 +",
            "x",
            "abs(-1)",
            "__import__('os')",
            "'a' * 3",
            "1 / 0",
            "9 ** 999",
            "2 ** 10 ** 10",
        ):
            with pytest.raises(ValueError):
                tools.calculate(expression)


class TestRunProgram:
    """A program in a process of its own."""

    def test_output(self):
        """What a program prints is returned, and so is how it failed."""
        result = tools.run_program("for i in range(3):\n    print(i * i)", LIMITS)
        assert_equal((result.outcome, result.stdout, result.stderr), ("finished", "0\n1\n4\n", ""), "the result")
        result = tools.run_program("print('before')\n1 / 0", LIMITS)
        assert_equal((result.outcome, result.stdout), ("failed", "before\n"), "the result of a division by zero")
        assert "ZeroDivisionError" in result.stderr, f"expected the traceback on stderr, got {result.stderr!r}"

    def test_time(self):
        """A program that takes too long is stopped."""
        result = tools.run_program("import time\ntime.sleep(5)", tools.ProgramLimits(wall_seconds=0.3))
        assert_equal(result.outcome, "wall_time", "the outcome")

    def test_output_limit(self):
        """No more than the beginning of what a program prints is kept."""
        result = tools.run_program("print('x' * 50_000)", tools.ProgramLimits(output_bytes=100))
        assert_equal((result.outcome, result.stdout), ("output", "x" * 100), "the result")

    @pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit the address space")
    def test_memory(self):
        """A program that takes too much memory fails."""
        result = tools.run_program("data = bytearray(500_000_000)", tools.ProgramLimits(memory_bytes=200_000_000))
        assert_equal(result.outcome, "failed", "the outcome")


class TestRunAgent:
    """The loop of reasoning, acting and observing."""

    PARAMS = SamplingParams(temperature=0.0, max_tokens=50)

    def test_acts_and_answers(self):
        """The tool's result is shown to the model as an observation, until it gives its final answer."""
        first = 'Thought: add\nAction: {"name": "add", "arguments": {"first": 2, "second": 3}}'
        engine = ScriptedEngine(
            {
                "Q: 2+3?\n": [first + "\nObservation: 6\nFinal Answer: 6"],
                f"Q: 2+3?\n{first}\nObservation: 5\n": ["Final Answer: 5"],
            }
        )
        episode = tools.run_agent(engine, "Q: 2+3?\n", [ADD], max_steps=5, params=self.PARAMS)
        assert_equal(episode.answer, "5", "the answer")
        assert_equal([step.text for step in episode.steps], [first, "Final Answer: 5"], "the texts of the steps")
        assert_equal([step.observation for step in episode.steps], ["5", None], "the observations")

    def test_never_writes_its_own_observation(self):
        """Generation stops where the model would write an observation itself."""
        engine = ScriptedEngine(lambda prompt, params: ["I look.\nObservation: 42\nFinal Answer: 42"])
        episode = tools.run_agent(engine, "Q\n", [ADD], max_steps=1, params=self.PARAMS)
        assert_equal(episode.answer, None, "the answer")
        assert "Observation:" in engine.params[0].stop, f"expected a stop string, got {engine.params[0].stop}"

    def test_errors_are_observations(self):
        """A malformed call and an exception of a tool are shown to the model, and the loop goes on, to its cap."""
        texts = ['Action: {"name": "add"', 'Action: {"name": "repeat", "arguments": {"text": "a", "count": 2}}', "Hm"]
        broken = tools.Tool("repeat", "Fails.", REPEAT.parameters, lambda text, count: int(text))
        engine = ScriptedEngine(lambda prompt, params: [texts.pop(0)])
        episode = tools.run_agent(engine, "Q\n", [ADD, broken], max_steps=3, params=self.PARAMS)
        assert_equal(episode.answer, None, "the answer")
        assert_equal(len(engine.calls), 3, "the number of model calls")
        for step in episode.steps:
            assert step.observation.startswith("Error: "), f"expected an error, got {step.observation!r}"
        assert "invalid literal" in episode.steps[1].observation, f"got {episode.steps[1].observation!r}"
