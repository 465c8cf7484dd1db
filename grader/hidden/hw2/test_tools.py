"""Hidden tests of hw2.tools."""

import json
import uuid

import pytest

from hw2 import tools
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

FOUR = {"word": "string", "flag": "boolean", "count": "integer", "size": "number"}


def tool(name, parameters, function=lambda **given: None):
    """Return a tool."""
    return tools.Tool(name, f"Does {name}.", parameters, function)


def assert_refused(call):
    """Fail unless the call raises ValueError."""
    with pytest.raises(ValueError):
        call()


class TestToolSchema:
    """What a server is told of a tool."""

    def test_schema(self):
        """The schema is a function with name, description and an object of the parameters, all of them required.

        Look at the nesting, and at each key: `properties` holds schemas, `required` the names in their order.
        """
        for name, parameters in (("four", FOUR), ("one", {"z": "number"}), ("none", {})):
            expected = {
                "type": "function",
                "function": {
                    "name": name,
                    "description": f"Does {name}.",
                    "parameters": {
                        "type": "object",
                        "properties": {parameter: {"type": kind} for parameter, kind in parameters.items()},
                        "required": list(parameters),
                        "additionalProperties": False,
                    },
                },
            }
            assert_equal(tools.tool_schema(tool(name, parameters)), expected, f"the schema of {name}")

    def test_types(self):
        """The four types are accepted as they are called in JSON Schema, and others raise ValueError.

        Python's names for types mean nothing to a server.
        """
        for kind in ("string", "integer", "number", "boolean"):
            schema = tools.tool_schema(tool("t", {"a": kind}))
            assert_equal(schema["function"]["parameters"]["properties"], {"a": {"type": kind}}, "the properties")
        for kind in ("str", "int", "float", "bool", "object", ""):
            assert_refused(lambda kind=kind: tools.tool_schema(tool("t", {"a": "string", "b": kind})))


class TestParseCall:
    """A call in JSON."""

    TOOLS = (tool("none", {}), tool("four", FOUR), tool("one", {"size": "number"}))

    def read(self, call):
        """Parse a call that is given as text, or as a value to be written as JSON."""
        return tools.parse_call(call if isinstance(call, str) else json.dumps(call), list(self.TOOLS))

    def assert_read(self, call, name, arguments):
        """Fail unless the call is read as that of a tool with these arguments."""
        actual = self.read(call)
        assert_equal((actual.name, dict(actual.arguments)), (name, arguments), f"the call {call!r}")

    def test_calls(self):
        """A call is read with the values that it holds, whatever the order of its fields and the space around it.

        Read JSON with the `json` module: texts may contain braces, quotes and escapes.
        """
        arguments = {"size": -0.5, "flag": True, "count": 3, "word": 'a "b" {c}\n\u00e9'}
        self.assert_read({"name": "four", "arguments": arguments}, "four", arguments)
        self.assert_read({"arguments": {}, "name": "none"}, "none", {})
        self.assert_read('\n {"name":"one","arguments":{"size":2}}  ', "one", {"size": 2})

    def test_types(self):
        """Each argument has its declared type: an integer is a number too, a boolean is neither.

        In Python `isinstance(True, int)` holds, and 2 is no float.
        """
        good = {"word": "w", "flag": False, "count": 0, "size": 7}
        self.assert_read({"name": "four", "arguments": good}, "four", good)
        for name, values in {
            "word": [1, None, ["w"], True],
            "flag": [0, 1, "true", None],
            "count": [1.5, "1", True, None],
            "size": ["1", True, None, [1]],
        }.items():
            for value in values:
                assert_refused(lambda given={**good, name: value}: self.read({"name": "four", "arguments": given}))

    def test_arguments(self):
        """Exactly the declared arguments are there: none is missing and none is added.

        Compare the names with those of the tool that is called.
        """
        good = {"word": "w", "flag": False, "count": 0, "size": 1}
        for name in good:
            fewer = {key: value for key, value in good.items() if key != name}
            assert_refused(lambda given=fewer: self.read({"name": "four", "arguments": given}))
        assert_refused(lambda: self.read({"name": "four", "arguments": {**good, "more": 1}}))
        assert_refused(lambda: self.read({"name": "none", "arguments": {"more": 1}}))
        self.assert_read({"name": "one", "arguments": {"size": 1}}, "one", {"size": 1})

    def test_fields(self):
        """A call has the fields name and arguments, no others, and names a tool that is there.

        Everything wrong is a ValueError, so that the loop can show it to the model: also an unknown tool.
        """
        for call in (
            {"name": "two", "arguments": {}},
            {"name": "None", "arguments": {}},
            {"name": "none"},
            {"arguments": {}},
            {"name": "none", "arguments": {}, "id": 1},
            {"name": "none", "arguments": []},
            {"name": "none", "arguments": None},
            {"name": ["none"], "arguments": {}},
            {},
            [],
            None,
            "none",
        ):
            assert_refused(lambda call=call: tools.parse_call(json.dumps(call), list(self.TOOLS)))
        self.assert_read({"name": "none", "arguments": {}}, "none", {})

    def test_other_text(self):
        """Text that is not one JSON object raises ValueError: words around it, two objects, Python, too deep nesting.

        Do not search for braces. The `json` module raises RecursionError for some hundred thousand brackets.
        """
        good = '{"name": "none", "arguments": {}}'
        for text in (
            "", "none()", f"call {good}", f"{good} please", f"{good}{good}", good[:-1],
            "{'name': 'none', 'arguments': {}}", f"`{good}`", "[" * 200_000,
        ):  # fmt: skip
            assert_refused(lambda text=text: self.read(text))
        self.assert_read(good, "none", {})


class TestCalculate:
    """Arithmetic without eval."""

    def check(self, values):
        """Fail unless each expression has its value."""
        for expression, value in values.items():
            actual = tools.calculate(expression)
            assert_close(actual, value, 1e-12 * max(1.0, abs(value)), expression)

    def test_precedence(self):
        """Operators bind as in Python: powers first and to the right, then signs, products, sums.

        -2 ** 2 is -(2 ** 2), and 2 ** 3 ** 2 is 2 ** (3 ** 2).
        """
        self.check(
            {
                "1 + 2 * 3 - 4 / 8": 6.5, "2 ** 3 ** 2": 512, "-2 ** 2": -4, "(-2) ** 2": 4, "2 ** -1": 0.5,
                "10 - 3 - 2": 5, "48 / 4 / 2": 6, "2 * (3 + 4) * 5": 70, "--3": 3, "+-+4": -4, "-(1 + 2)": -3,
                "7": 7, "((((5))))": 5, "1-1": 0, " 2  *3 ": 6,
            }
        )  # fmt: skip

    def test_operators(self):
        """Quotients, floors and remainders are Python's, for negative numbers too.

        // rounds down, and % has the sign of the divisor; / never drops the rest.
        """
        self.check(
            {
                "7 // 2": 3, "-7 // 2": -4, "7 // -2": -4, "7 % 3": 1, "-7 % 3": 2, "7 % -3": -2, "7 / 2": 3.5,
                "6 / 3": 2, "7.5 // 2": 3, "7.5 % 2": 1.5, "0.5 + 1e3": 1000.5, "1.5e-3 * 2": 0.003, "4 ** 0.5": 2,
            }
        )  # fmt: skip

    def test_integers_are_exact(self):
        """Integers are computed exactly, beyond the digits of floating point.

        No conversion to float where there are only integers.
        """
        for expression, value in (
            ("2 ** 100 + 1 - 2 ** 100", 1),
            ("99999999999999999999 * 3 % 10 ** 12", 999999999997),
            ("10 ** 60 // 7 % 10 ** 15", 10**60 // 7 % 10**15),
            ("(10 ** 30 + 7) % 10 ** 10", 7),
            ("5 * 4", 20),
        ):
            assert_equal(tools.calculate(expression), value, expression)

    def test_syntax(self):
        """What is no expression raises ValueError, like everything else that is refused.

        SyntaxError is not a ValueError: turn it into one.
        """
        for expression in ("", " ", "2 +", "(1", "1)", "1 2", "* 3", "x = 1", "1; 2", "one", "2 ^ 3", "1 << 2", "~1"):
            assert_refused(lambda text=expression: tools.calculate(text))
        self.check({"2 + 2": 4})

    def test_only_arithmetic(self):
        """Names, calls, attributes, other constants and other syntax raise ValueError, and nothing of it is run.

        List what is allowed and refuse the rest; a list of what is forbidden always has a hole.
        """
        for expression in (
            "x", "abs(1)", "__import__('os').system('true')", "().__class__", "(1).real", "'a'", "'a' * 3", "b'a'",
            "True", "True + 1", "None", "2j", "1 + 2j", "[1]", "[1][0]", "(1, 2)", "{1}", "{}", "1 if 1 else 2",
            "1 < 2", "1 and 2", "not 1", "lambda: 1", "[i for i in (1, 2)]", "f'{1}'", "...", "(a := 1)", "*1",
        ):  # fmt: skip
            assert_refused(lambda text=expression: tools.calculate(text))
        self.check({"1 + 1": 2})

    def test_impossible(self):
        """Division by zero and roots of negative numbers raise ValueError.

        Python raises ZeroDivisionError for the one and returns a complex number for the other.
        """
        for expression in ("1 / 0", "1 // 0", "1 % 0", "0 ** -1", "1 / (2 - 2.0)", "(-8) ** 0.5", "(-8) ** (1 / 3)"):
            assert_refused(lambda text=expression: tools.calculate(text))
        self.check({"0 / 1": 0, "8 ** 0.5": 8**0.5})

    def test_size(self):
        """Numbers over 1e100 are refused, given or on the way, before they are computed; so are long expressions.

        Look at the size of a power before you take it: 2 ** 10 ** 10 has three billion digits.
        """
        for expression in (
            "1e101", "1e999", "-1e999", "10 ** 101", "10 ** 101 // 10 ** 100", "1e90 * 1e90 / 1e90",
            "(10 ** 60 * 10 ** 60) // 10 ** 60", "10 ** 99 * 1000", "1e400 - 1e400", "1" * 110, "7 ** 150", "9 ** 9999",
            "0.1 ** -200", "1" + " + 1" * 300, "(" * 2000 + "1" + ")" * 2000, "-" * 3000 + "1",
            "9 ** 99999", "9 ** 9 ** 9", "2 ** 10 ** 10", "(-7) ** 10 ** 12", "1.5 ** 10 ** 20",
        ):  # fmt: skip
            assert_refused(lambda text=expression: tools.calculate(text))
        self.check({"10 ** 99 // 10 ** 98": 10, "1e99 / 1e90": 1e9, "2 ** 300 // 2 ** 290": 1024, "0.5 ** 10": 0.5**10})
        self.check({"1" + " + 1" * 100: 101})


HELD_BY_A_CHILD = """
import fcntl, subprocess, sys, time
file = open({path!r}, "w")
fcntl.flock(file, fcntl.LOCK_EX)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(9)"], pass_fds=[file.fileno()])
time.sleep({seconds})
"""
FREE = """
import fcntl, os
with open({path!r}, "w") as file:
    os.unlink({path!r})
    fcntl.flock(file, fcntl.LOCK_EX)
print("free")
"""


def run(source, **limits):
    """Run a program; return outcome, stdout and stderr."""
    result = tools.run_program(source, tools.ProgramLimits(**limits))
    return result.outcome, result.stdout, result.stderr


class TestRunProgram:
    """A program in a process of its own."""

    def test_process(self):
        """A program runs in an isolated interpreter of its own, in UTF-8 mode, with an empty environment.

        `exec` shares your process with the program, and the environment may hold secrets. An empty `env` is not None.
        """
        outcome, stdout, _ = run(
            "import os, sys\nprint(sys.flags.isolated, sys.flags.utf8_mode, 'HOME' in os.environ, __name__)"
        )
        assert_equal((outcome, stdout), ("finished", "1 1 False __main__\n"), "outcome and output")

    def test_ends(self):
        """The outcome is finished for exit code 0, whatever stands on stderr, and failed for any other end.

        Look at the exit code; keep both streams apart.
        """
        both = run("import sys\nprint('out')\nprint('err', file=sys.stderr)")
        assert_equal(both, ("finished", "out\n", "err\n"), "the result of a program that prints on both streams")
        assert_equal(run("import sys\nsys.exit(3)"), ("failed", "", ""), "the result of exit code 3")
        outcome, stdout, stderr = run("print('first')\nopen('no such file')")
        assert_equal((outcome, stdout), ("failed", "first\n"), "the result of an exception")
        assert "FileNotFoundError" in stderr, f"expected the traceback on stderr, got {stderr!r}"
        outcome, _, stderr = run("print('never'")
        assert_equal(outcome, "failed", "the outcome of a syntax error")
        assert "SyntaxError" in stderr, f"expected the error on stderr, got {stderr!r}"

    def test_folder(self):
        """Each program has an empty working directory of its own, and it is removed afterwards.

        `tempfile.TemporaryDirectory` does both.
        """
        outcome, stdout, _ = run("import os\nopen('left.txt', 'w').close()\nprint(os.getcwd())")
        assert_equal(outcome, "finished", "the outcome of a program that writes a file")
        later = f"import os\nprint('left.txt' in os.listdir(), os.path.exists({stdout.strip()!r}))"
        assert_equal(run(later)[:2], ("finished", "False False\n"), "what the next program sees of it")

    def test_text(self):
        """Output is read as UTF-8, and bytes that are none are replaced; the limit counts bytes.

        A program can print anything: decode with `errors="replace"`.
        """
        assert_equal(run("print('né ☃')")[:2], ("finished", "né ☃\n"), "the output of other characters")
        broken = "import sys\nsys.stdout.buffer.write(b'a\\xffb')"
        assert_equal(run(broken)[:2], ("finished", "a\ufffdb"), "the output of other bytes")
        assert_equal(run("print('é' * 9)", output_bytes=4)[:2], ("output", "éé"), "four bytes of the output")

    def test_wall_time(self):
        """A program that takes more wall time than it may is stopped, also one that only waits.

        What it printed until then is kept.
        """
        outcome, stdout, _ = run("import time\nprint('begun', flush=True)\ntime.sleep(6)", wall_seconds=1.5)
        assert_equal((outcome, stdout), ("wall_time", "begun\n"), "outcome and output")

    def test_cpu_time(self):
        """A program that takes more CPU time than it may is stopped.

        RLIMIT_CPU with a soft limit below the hard one ends it by SIGXCPU, which tells this end from others.
        """
        source = "import time\nwhile time.process_time() < 2.5:\n    pass\nprint('done')"
        assert_equal(run(source, cpu_seconds=1, wall_seconds=7.0)[:2], ("cpu_time", ""), "outcome and output")

    def test_memory(self):
        """A program that takes more memory than it may fails, and one that takes less does not.

        RLIMIT_AS bounds the address space; Python raises MemoryError.
        """
        for size, outcome in ((700_000_000, "failed"), (50_000_000, "finished")):
            actual, _, _ = run(f"data = bytearray({size})", memory_bytes=400_000_000)
            assert_equal(actual, outcome, f"the outcome of a program that takes {size:,} bytes")

    def test_output(self):
        """Of each stream no more than the first output_bytes bytes are kept; more of it is the outcome "output".

        That outcome comes before all others. Exactly output_bytes bytes are not too many.
        """
        numbers = "".join(f"{i}\n" for i in range(5000))
        source = "for i in range(5000):\n    print(i, flush=i % 500 == 0)\n"
        assert_equal(run(source, output_bytes=600)[:2], ("output", numbers[:600]), "600 bytes of the output")
        assert_equal(run(source)[:2], ("output", numbers[:10_000]), "10,000 bytes of the output")
        assert_equal(run(source, output_bytes=len(numbers))[:2], ("finished", numbers), "all of the output")
        source = "import sys\nprint('out', flush=True)\nsys.stderr.write('e' * 3000)"
        assert_equal(run(source, output_bytes=1000), ("output", "out\n", "e" * 1000), "both streams")

    def test_nothing_is_left_running(self):
        """Processes that a program started are killed when it ends, and when it is stopped.

        A child that goes on would hold on to memory and pipes: start a process group and kill the group.
        """
        for seconds, outcome, limits in ((0, "finished", {}), (9, "wall_time", {"wall_seconds": 1.0})):
            path = f"/tmp/hw2-{uuid.uuid4().hex}"
            assert_equal(run(HELD_BY_A_CHILD.format(path=path, seconds=seconds), **limits)[0], outcome, "the outcome")
            actual = run(FREE.format(path=path), wall_seconds=4.0)[:2]
            assert_equal(actual, ("finished", "free\n"), "outcome and output of a program that waits for the child")


def action(name, **arguments):
    """Return the line that calls a tool."""
    return "Action: " + json.dumps({"name": name, "arguments": arguments})


class TestRunAgent:
    """The loop of reasoning, acting and observing."""

    PARAMS = SamplingParams(temperature=0.2, max_tokens=90, stop=("\n\n",), seed=4)

    def act(self, texts, given=(), max_steps=9, prompt="Tools...\nFinal Answer: an example\n\nQuestion: q\n"):
        """Run an agent whose model writes these texts; return episode and engine."""
        left = list(texts)
        engine = ScriptedEngine(lambda prompt, params: [left.pop(0)])
        return tools.run_agent(engine, prompt, list(given), max_steps=max_steps, params=self.PARAMS), engine

    def test_loop(self):
        """Each prompt is the one before it, with the text of the last step and its observation added.

        The texts are those of the model, up to its action; the observation is what the tool returned.
        """
        double = tool("double", {"size": "number"}, lambda size: size * 2)
        spell = tool("spell", {"word": "string"}, lambda word: " ".join(word))
        texts = [
            f"Thought: twice\n{action('double', size=2.5)}\n",
            f"{action('spell', word='ab')}  \n",
            "Thought: done\nFinal Answer: a b, 5.0",
        ]
        episode, engine = self.act(texts, [double, spell])
        assert_equal(episode.answer, "a b, 5.0", "the answer")
        assert_equal([step.text for step in episode.steps], [text.rstrip() for text in texts], "the texts")
        assert_equal([step.observation for step in episode.steps], ["5.0", "a b", None], "the observations")
        calls = [step.call and (step.call.name, step.call.arguments) for step in episode.steps]
        assert_equal(calls, [("double", {"size": 2.5}), ("spell", {"word": "ab"}), None], "the calls")
        first = engine.prompts[0]
        second = f"{first}{texts[0].rstrip()}\nObservation: 5.0\n"
        third = f"{second}{texts[1].rstrip()}\nObservation: a b\n"
        assert_equal(
            engine.prompts, ["Tools...\nFinal Answer: an example\n\nQuestion: q\n", second, third], "the prompts"
        )

    def test_parameters(self):
        """Every step is one call with one prompt and the parameters given, "Observation:" added to the stop strings.

        The stop strings of the parameters hold besides.
        """
        _, engine = self.act([action("wait"), action("wait"), "Final Answer: 1"], [tool("wait", {})])
        assert_equal([len(call) for call in engine.calls], [1, 1, 1], "the number of prompts of each call")
        for own in engine.params:
            assert_equal(set(own.stop), {"\n\n", "Observation:"}, "the stop strings")
            settings = (own.n, own.temperature, own.max_tokens, own.seed)
            assert_equal(settings, (1, 0.2, 90, 4), "n, temperature, max_tokens and seed")

    def test_no_observations_of_its_own(self):
        """What the model would write as an observation is never generated, and so cannot lead to an answer.

        "Observation:" is a stop string of every call.
        """
        episode, engine = self.act(["I look.\nObservation: it is 3\nFinal Answer: 3", "Final Answer: 4"])
        assert_equal(episode.answer, "4", "the answer")
        assert_equal(episode.steps[0].text, "I look.", "the text of the first step")
        assert "it is 3" not in engine.prompts[1], "expected no observation of the model's own in the second prompt"

    def test_first_marker_decides(self):
        """The first line that begins with "Action:" or "Final Answer:" decides, and text after an action is dropped.

        An answer after an action was written without knowing the result. Markers within a line are no markers.
        """
        add = tool("add", {"count": "integer"}, lambda count: count + 1)
        text = f"Thought: no Final Answer: yet, some Action: first\n{action('add', count=4)}\nFinal Answer: 6"
        episode, engine = self.act([text, f"Final Answer: 5\n{action('add', count=5)}"], [add])
        assert_equal(episode.answer, f"5\n{action('add', count=5)}", "the answer")
        assert_equal([step.observation for step in episode.steps], ["5", None], "the observations")
        assert_equal(episode.steps[0].text, "\n".join(text.split("\n")[:2]), "the text of the first step")
        assert "Final Answer: 6" not in engine.prompts[1], "expected the text after the action to be dropped"
        episode, _ = self.act([f"{action('add', count=1)}\n{action('add', count=7)}", "Final Answer: 2"], [add])
        assert_equal([step.observation for step in episode.steps], ["2", None], "the observations")

    def test_answer(self):
        """The answer is the rest of the text after "Final Answer:", over all its lines, without space around it.

        Only the model's new text counts: the prompt may show examples of answers.
        """
        for text, answer in (
            ("Final Answer:  42 \n", "42"),
            ("Thought: so\nFinal Answer:\nline 1\nline 2\n", "line 1\nline 2"),
            ("Final Answer: a: b\nFinal Answer: c", "a: b\nFinal Answer: c"),
            ("Final Answer:", ""),
        ):
            episode, engine = self.act([text])
            assert_equal(episode.answer, answer, f"the answer in {text!r}")
            assert_equal(len(engine.calls), 1, "the number of calls")

    def test_malformed_calls(self):
        """A call that cannot be read, an unknown tool and a text without a call are observations that begin "Error: ".

        The loop goes on: the model may do better next time.
        """
        for text in (
            'Action: {"name": "wait"', "Action: wait", action("sleep"), action("wait", seconds=1),
            "Thought: hm", "", "action: {}",
        ):  # fmt: skip
            episode, engine = self.act([text, "Final Answer: ok"], [tool("wait", {})])
            assert_equal(episode.answer, "ok", f"the answer after {text!r}")
            assert_equal(episode.steps[0].call, None, f"the call in {text!r}")
            observation = episode.steps[0].observation
            assert observation.startswith("Error: "), f"expected an error after {text!r}, got {observation!r}"
            assert engine.prompts[1].endswith(f"{text}\nObservation: {observation}\n"), "expected it in the prompt"

    def test_tool_errors(self):
        """An exception of a tool is an observation that begins "Error: " and holds its message.

        Catch every Exception of the tool; the message is what the model can learn from.
        """

        def fail(kind):
            raise {"value": ValueError, "zero": ZeroDivisionError, "key": KeyError, "type": TypeError}[kind](
                "was " + kind
            )

        failing = tool("fail", {"kind": "string"}, fail)
        kinds = ("value", "zero", "key", "type")
        episode, _ = self.act([*(action("fail", kind=kind) for kind in kinds), "Final Answer: ok"], [failing])
        assert_equal(episode.answer, "ok", "the answer")
        for kind, step in zip(kinds, episode.steps, strict=False):
            assert_equal((step.call.name, step.call.arguments), ("fail", {"kind": kind}), "the call")
            assert step.observation.startswith("Error: "), f"expected an error, got {step.observation!r}"
            assert f"was {kind}" in step.observation, f"expected the message, got {step.observation!r}"

    def test_results(self):
        """Whatever a tool returns is shown as `str` gives it.

        Texts have no quotes, and a tool that returns nothing shows None.
        """
        values = ["plain", 3, 2.5, True, None, [1, "a"], "two\nlines", ""]
        left = list(values)
        take = tool("take", {}, lambda: left.pop(0))
        episode, _ = self.act([action("take")] * len(values), [take], max_steps=len(values))
        assert_equal([step.observation for step in episode.steps], [str(value) for value in values], "the observations")

    def test_cap(self):
        """After max_steps steps without an answer the loop ends with None; a negative number raises ValueError.

        The last step still runs its tool; no further call is made.
        """
        for max_steps in (0, 1, 3):
            ran = []
            note = tool("note", {}, lambda ran=ran: ran.append(1))
            episode, engine = self.act([action("note")] * 5, [note], max_steps)
            assert_equal(episode.answer, None, "the answer")
            numbers = (len(engine.calls), len(ran), len(episode.steps))
            assert_equal(numbers, (max_steps,) * 3, "the numbers of model calls, tool calls and steps")
        assert_refused(lambda: self.act([], max_steps=-1))
