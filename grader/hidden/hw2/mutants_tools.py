"""Plausible wrong solutions of hw2.tools: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module. None of them hangs on the tests that
it fails.
"""

import ast
import contextlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace as changed
from functools import partial
from typing import Any

from msgspec.structs import replace

from grader.reference.hw2 import tools as reference
from grader.reference.hw2.tools import AgentStep, Episode, ProgramLimits, ProgramResult, Tool, ToolCall
from shared_tasks.models.engine import Engine, SamplingParams


def tool_schema__nothing_required(tool: Tool) -> dict[str, Any]:
    """Leaves the required parameters out."""
    schema = reference.tool_schema(tool)
    del schema["function"]["parameters"]["required"]
    return schema


def tool_schema__required_sorted(tool: Tool) -> dict[str, Any]:
    """Sorts the required parameters."""
    schema = reference.tool_schema(tool)
    schema["function"]["parameters"]["required"].sort()
    return schema


def tool_schema__flat(tool: Tool) -> dict[str, Any]:
    """Leaves the envelope out."""
    schema: dict[str, Any] = reference.tool_schema(tool)["function"]
    return schema


def tool_schema__types_without_objects(tool: Tool) -> dict[str, Any]:
    """Writes the type where a schema belongs."""
    schema = reference.tool_schema(tool)
    schema["function"]["parameters"]["properties"] = dict(tool.parameters)
    return schema


def tool_schema__other_arguments_allowed(tool: Tool) -> dict[str, Any]:
    """Allows arguments that the tool does not take."""
    schema = reference.tool_schema(tool)
    schema["function"]["parameters"]["additionalProperties"] = True
    return schema


def tool_schema__any_type(tool: Tool) -> dict[str, Any]:
    """Passes every type on."""
    schema = reference.tool_schema(changed(tool, parameters=dict.fromkeys(tool.parameters, "string")))
    schema["function"]["parameters"]["properties"] = {name: {"type": kind} for name, kind in tool.parameters.items()}
    return schema


def _read(
    text: str,
    tools: Sequence[Tool],
    *,
    load: Callable[[str], Any] = json.loads,
    fields: Callable[[set[str]], bool] = lambda fields: fields == {"name", "arguments"},
    names: Callable[[set[str], set[str]], bool] = lambda given, declared: given == declared,
    fits: Callable[[Any, str], bool] = lambda value, kind: (
        isinstance(value, reference._TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")
    ),
) -> ToolCall:
    """Read as the reference does, but for the parts given."""
    try:
        call = load(text)
    except (ValueError, SyntaxError) as error:
        raise ValueError(text) from error
    if not isinstance(call, dict) or not fields(set(call)) or not isinstance(call.get("arguments", {}), dict):
        raise ValueError(text)
    arguments = call.get("arguments", {})
    tool = next((tool for tool in tools if tool.name == call["name"]), None)
    if tool is None or not names(set(arguments), set(tool.parameters)):
        raise ValueError(text)
    if not all(fits(value, tool.parameters[name]) for name, value in arguments.items() if name in tool.parameters):
        raise ValueError(text)
    return ToolCall(tool.name, arguments)


def parse_call__deep_nesting_escapes(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Lets a RecursionError of the JSON reader through."""
    return _read(text, tools)


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_call__python_literals(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Reads Python where JSON is asked for."""
    try:
        return _read(text, tools, load=lambda text: ast.literal_eval(text.strip()))
    except (RecursionError, MemoryError) as error:
        raise ValueError("nested too deeply") from error


def parse_call__finds_a_call_in_other_text(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Looks for the first brace and the last one."""
    return _read(text, tools, load=lambda text: _load(text[max(0, text.find("{")) : text.rfind("}") + 1]))


def parse_call__first_object_only(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Does not look at what follows the object."""

    def load(text: str) -> Any:
        try:
            return json.JSONDecoder().raw_decode(text.strip())[0]
        except RecursionError as error:
            raise ValueError("nested too deeply") from error

    return _read(text, tools, load=load)


def parse_call__other_fields_allowed(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Does not mind further fields."""
    return _read(text, tools, load=_load, fields=lambda fields: {"name", "arguments"} <= fields)


def parse_call__arguments_may_be_left_out(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Takes a call without arguments for one with none."""
    return _read(text, tools, load=_load, fields=lambda fields: "name" in fields <= {"name", "arguments"})


def parse_call__missing_arguments_pass(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Leaves it to the tool to miss an argument."""
    return _read(text, tools, load=_load, names=lambda given, declared: given <= declared)


def parse_call__further_arguments_pass(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Passes arguments on that the tool does not take."""
    return _read(text, tools, load=_load, names=lambda given, declared: given >= declared)


def parse_call__types_are_not_checked(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Passes every value on."""
    return _read(text, tools, load=_load, fits=lambda value, kind: True)


def parse_call__booleans_are_integers(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Forgets that True is an int in Python."""
    return _read(text, tools, load=_load, fits=lambda value, kind: isinstance(value, reference._TYPES[kind]))


def parse_call__integers_are_no_numbers(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Wants a decimal point in a number."""
    kinds = {"string": str, "integer": int, "number": float, "boolean": bool}
    return _read(text, tools, load=_load, fits=lambda value, kind: type(value) is kinds[kind])


def parse_call__fractions_are_integers(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Takes every number for an integer."""
    kinds = reference._TYPES | {"integer": (int, float)}
    fits = lambda value, kind: isinstance(value, kinds[kind]) and isinstance(value, bool) == (kind == "boolean")  # noqa: E731
    return _read(text, tools, load=_load, fits=fits)


def parse_call__unknown_tool_is_a_key_error(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Looks the tool up in a dict."""
    call = _load(text)
    if isinstance(call, dict) and isinstance(call.get("name"), str):
        {tool.name: tool for tool in tools}[call["name"]]
    return reference.parse_call(text, tools)


def parse_call__first_tool(text: str, tools: Sequence[Tool]) -> ToolCall:
    """Checks the call against the first tool."""
    call = reference.parse_call(text, tools)
    _read(json.dumps({"name": tools[0].name, "arguments": call.arguments}), tools[:1])
    return call


def calculate__eval_without_builtins(expression: str) -> Any:
    """Trusts eval once it has no built-in functions."""
    try:
        return eval(expression, {"__builtins__": {}})
    except Exception as error:
        raise ValueError(expression) from error


def _give_up_on_huge_powers(expression: str) -> None:
    """Raise TimeoutError in place of a computation that would not end."""
    if re.search(r"\*\* ?9 ?\*\* ?9|\*\* ?10 ?\*\* ?\d\d", expression):
        raise TimeoutError(expression)


def calculate__characters_checked_then_eval(expression: str) -> Any:
    """Trusts eval once there are only digits and operators; powers are not bounded."""
    _give_up_on_huge_powers(expression)
    if not re.fullmatch(r"[-+*/%().0-9eE ]{1,1000}", expression):
        raise ValueError(expression)
    try:
        value = eval(expression, {"__builtins__": {}})
    except Exception as error:
        raise ValueError(expression) from error
    if isinstance(value, complex) or abs(value) > 1e100:
        raise ValueError(expression)
    return value


def _computed(
    expression: str,
    *,
    operators: dict[Any, Any] | None = None,
    constant: Callable[[Any], bool] = lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    bounded: Callable[[Any], Any] = reference._bounded,
    power: Callable[[Any, Any], bool] = lambda a, b: False,
    errors: tuple[type[Exception], ...] = (SyntaxError, ArithmeticError, RecursionError, MemoryError, ValueError),
    longest: int = 1000,
) -> Any:
    """Compute as the reference does, but for the parts given."""
    table = reference._OPERATORS | (operators or {})

    def value(node: Any) -> Any:
        if isinstance(node, ast.Constant) and constant(node.value):
            return bounded(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
            return value(node.operand) * (1 if isinstance(node.op, ast.UAdd) else -1)
        if isinstance(node, ast.BinOp) and type(node.op) in table:
            a, b = value(node.left), value(node.right)
            if isinstance(node.op, ast.Pow) and not power(a, b):
                return bounded(reference.calculate(f"({a!r}) ** ({b!r})"))
            return bounded(table[type(node.op)](a, b))
        raise ValueError(ast.dump(node))

    if len(expression) > longest:
        raise ValueError(len(expression))
    try:
        return value(ast.parse(expression.strip(), mode="eval").body)
    except errors as error:
        raise ValueError(expression) from error


def calculate__division_by_zero_escapes(expression: str) -> Any:
    """Raises ZeroDivisionError for a division by zero."""
    return _computed(expression, errors=(SyntaxError, RecursionError, MemoryError, OverflowError))


def calculate__syntax_errors_escape(expression: str) -> Any:
    """Raises SyntaxError for what is no expression."""
    return _computed(expression, errors=(ArithmeticError, RecursionError, MemoryError))


def calculate__other_constants(expression: str) -> Any:
    """Allows all constants where it allows numbers."""
    bounded = lambda v: reference._bounded(v) if isinstance(v, (int, float)) else v  # noqa: E731
    return _computed(expression, constant=lambda value: True, bounded=bounded)


def calculate__booleans_are_numbers(expression: str) -> Any:
    """Forgets that True is an int in Python."""
    return _computed(expression, constant=lambda value: isinstance(value, (int, float)))


def calculate__floats_only(expression: str) -> Any:
    """Computes in floating point."""
    return float(reference.calculate(expression))


def calculate__floor_towards_zero(expression: str) -> Any:
    """Cuts the quotient off."""
    return _computed(expression, operators={ast.FloorDiv: lambda a, b: int(a / b)})


def calculate__remainder_with_the_sign_of_the_dividend(expression: str) -> Any:
    """Takes the remainder as C does."""
    return _computed(expression, operators={ast.Mod: lambda a, b: abs(a) % abs(b) * (1 if a >= 0 else -1)})


def calculate__whole_division(expression: str) -> Any:
    """Divides integers without a rest."""
    whole = lambda a, b: a // b if isinstance(a, int) and isinstance(b, int) else a / b  # noqa: E731
    return _computed(expression, operators={ast.Div: whole})


def calculate__caret_is_a_power(expression: str) -> Any:
    """Reads ^ as **."""
    return reference.calculate(expression.replace("^", "**"))


def calculate__shifts_are_allowed(expression: str) -> Any:
    """Has more operators than it should."""
    return _computed(expression, operators={ast.LShift: lambda a, b: a << min(b, 999)})


def calculate__powers_are_not_bounded(expression: str) -> Any:
    """Computes every power before it looks at its size."""
    _give_up_on_huge_powers(expression)
    return _computed(expression, power=lambda a, b: True)


def calculate__result_is_bounded_only(expression: str) -> Any:
    """Bounds the final value and the exponent, but not what is computed on the way."""
    value = _computed(expression, bounded=lambda value: value, power=lambda a, b: b <= 1000)
    return reference._bounded(value)


def calculate__infinity(expression: str) -> Any:
    """Lets infinity through."""
    bounded = lambda v: v if v in (float("inf"), -float("inf")) else reference._bounded(v)  # noqa: E731
    return _computed(expression, bounded=bounded)


def calculate__complex_results(expression: str) -> Any:
    """Returns complex numbers."""
    bounded = lambda v: v if isinstance(v, complex) else reference._bounded(v)  # noqa: E731
    return _computed(expression, bounded=bounded, power=lambda a, b: a < 0 and b != int(b))


def calculate__any_length(expression: str) -> Any:
    """Parses expressions of any length."""
    return _computed(expression, longest=10**9)


def _run(
    source: str,
    limits: ProgramLimits,
    *,
    options: Sequence[str] = ("-I", "-X", "utf8"),
    folder: str | None = None,
    environment: dict[str, str] | None = None,
    limit: Callable[[ProgramLimits], None] | None = reference._limit_this_process,
    group: bool = True,
    decode: Callable[[bytes], str] = lambda data: data.decode(errors="replace"),
    cut: Callable[[bytes, int], bytes] = lambda data, size: data[:size],
    merged: bool = False,
    outcome: Callable[[str, Any], str] = lambda outcome, process: outcome,
) -> ProgramResult:
    """Run as the reference does, but for the parts given."""
    with (
        tempfile.TemporaryDirectory() as own,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        process = subprocess.Popen(
            [sys.executable, *options, "-c", source],
            cwd=folder or own,
            env={} if environment is None else environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stdout if merged else stderr,
            start_new_session=True,
            preexec_fn=partial(limit, limits) if limit else None,
        )
        late = False
        try:
            process.wait(limits.wall_seconds)
        except subprocess.TimeoutExpired:
            late = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        status = process.wait()
        data = [reference._beginning(file, 1 << 24) for file in (stdout, stderr)]
    if max(map(len, data)) > limits.output_bytes:
        end = "output"
    elif late:
        end = "wall_time"
    elif status in (-signal.SIGXCPU, -signal.SIGKILL):
        end = "cpu_time"
    else:
        end = "failed" if status else "finished"
    texts = [decode(cut(part, limits.output_bytes)) for part in data]
    return ProgramResult(outcome(end, process), *texts)  # type: ignore[arg-type]


def run_program__in_this_process(source: str, limits: ProgramLimits) -> ProgramResult:
    """Runs the program with exec."""
    stdout, stderr = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            exec(source, {"__name__": "__main__"})
    except (Exception, SystemExit) as error:
        return ProgramResult("failed", stdout.getvalue(), stderr.getvalue() + repr(error))
    return ProgramResult("finished", stdout.getvalue(), stderr.getvalue())


def run_program__not_isolated(source: str, limits: ProgramLimits) -> ProgramResult:
    """Runs Python as it comes."""
    return _run(source, limits, options=("-X", "utf8"))


def run_program__environment_inherited(source: str, limits: ProgramLimits) -> ProgramResult:
    """Shows the program the environment, with whatever secrets it holds."""
    return _run(source, limits, environment={"HOME": "/", **os.environ})


SHARED = tempfile.TemporaryDirectory()


def run_program__shared_folder(source: str, limits: ProgramLimits) -> ProgramResult:
    """Runs all programs in one folder."""
    return _run(source, limits, folder=SHARED.name)


def run_program__folder_is_left(source: str, limits: ProgramLimits) -> ProgramResult:
    """Does not remove the folder."""
    return _run(source, limits, folder=tempfile.mkdtemp(dir=SHARED.name))


def run_program__no_wall_time(source: str, limits: ProgramLimits) -> ProgramResult:
    """Limits CPU time only."""
    return _run(source, changed(limits, wall_seconds=60.0))


def _limit_without(kind: int, limits: ProgramLimits) -> None:
    without = changed(limits, cpu_seconds=1000) if kind == resource.RLIMIT_CPU else limits
    without = changed(without, memory_bytes=1 << 45) if kind == resource.RLIMIT_AS else without
    without = changed(without, output_bytes=1 << 26) if kind == resource.RLIMIT_FSIZE else without
    reference._limit_this_process(without)


def run_program__no_cpu_time(source: str, limits: ProgramLimits) -> ProgramResult:
    """Limits wall time only."""
    return _run(source, limits, limit=partial(_limit_without, resource.RLIMIT_CPU))


def run_program__no_memory_limit(source: str, limits: ProgramLimits) -> ProgramResult:
    """Lets the program have all memory."""
    return _run(source, limits, limit=partial(_limit_without, resource.RLIMIT_AS))


def run_program__output_is_only_cut(source: str, limits: ProgramLimits) -> ProgramResult:
    """Takes all output in and cuts it at the end, without a word."""
    end = lambda outcome, process: "failed" if process.returncode else "finished"  # noqa: E731
    return _run(source, limits, limit=partial(_limit_without, resource.RLIMIT_FSIZE), outcome=end)


def run_program__output_is_not_cut(source: str, limits: ProgramLimits) -> ProgramResult:
    """Reports that there was too much output, and returns it."""
    keep = lambda data, size: data  # noqa: E731
    return _run(source, limits, limit=partial(_limit_without, resource.RLIMIT_FSIZE), cut=keep)


def run_program__end_of_the_output(source: str, limits: ProgramLimits) -> ProgramResult:
    """Keeps the end of the output."""
    end = lambda data, size: data[-size:]  # noqa: E731
    return _run(source, limits, limit=partial(_limit_without, resource.RLIMIT_FSIZE), cut=end)


def run_program__one_byte_less(source: str, limits: ProgramLimits) -> ProgramResult:
    """Stops a program that prints exactly as much as it may."""
    return _run(source, changed(limits, output_bytes=limits.output_bytes - 1))


def run_program__streams_merged(source: str, limits: ProgramLimits) -> ProgramResult:
    """Writes errors into the output."""
    return _run(source, limits, merged=True)


def run_program__exit_code_ignored(source: str, limits: ProgramLimits) -> ProgramResult:
    """Takes every end for success."""
    return _run(source, limits, outcome=lambda outcome, process: "finished" if outcome == "failed" else outcome)


def run_program__failed_by_stderr(source: str, limits: ProgramLimits) -> ProgramResult:
    """Takes every word on standard error for a failure."""
    result = _run(source, limits)
    ended = result.outcome in ("finished", "failed")
    return changed(result, outcome="failed" if result.stderr else "finished") if ended else result


def run_program__only_the_program_is_killed(source: str, limits: ProgramLimits) -> ProgramResult:
    """Leaves alive what the program has started."""
    return _run(source, limits, group=False)


def run_program__strict_decoding(source: str, limits: ProgramLimits) -> ProgramResult:
    """Fails for output that is no UTF-8."""
    return _run(source, limits, decode=lambda data: data.decode())


def run_program__outcomes_not_told_apart(source: str, limits: ProgramLimits) -> ProgramResult:
    """Calls everything a failure that is no success."""
    return _run(source, limits, outcome=lambda outcome, process: outcome if outcome == "finished" else "failed")


def _episode(
    model: Engine,
    prompt: str,
    tools: Sequence[Tool],
    max_steps: int,
    params: SamplingParams,
    *,
    stop: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda stop: (*stop, "Observation:"),
    pattern: str = r"^(Action|Final Answer):(.*)",
    act: Callable[[str | None, Sequence[Tool]], tuple[ToolCall | None, str]] = reference._act,
    answer: Callable[[str], str] = lambda rest: rest.strip(),
    keep: Callable[[str, int | None], str] = lambda text, end: text[:end].rstrip(),
    extend: Callable[[str, str, AgentStep], str] = lambda start, prompt, step: (
        prompt + f"{step.text}\nObservation: {step.observation}\n"
    ),
) -> Episode:
    """Act as the reference does, but for the parts given."""
    if max_steps < 0:
        raise ValueError(max_steps)
    own = replace(params, stop=stop(params.stop))
    start = prompt
    steps: list[AgentStep] = []
    for _ in range(max_steps):
        text = model.generate([prompt], own)[0].completions[0].text
        decision = re.search(pattern, text, re.MULTILINE)
        if decision and decision[1] == "Final Answer":
            steps.append(AgentStep(text.rstrip(), None, None))
            return Episode(answer(text[decision.start(2) :]), steps)
        call, observation = act(decision[2] if decision else None, tools)
        steps.append(AgentStep(keep(text, decision.end() if decision else None), call, observation))
        prompt = extend(start, prompt, steps[-1])
    return Episode(None, steps)


def run_agent__model_writes_observations(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Does not stop the model before an observation."""
    return _episode(model, prompt, tools, max_steps, params, stop=lambda stop: stop)


def run_agent__stop_strings_replaced(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Forgets the stop strings of the parameters."""
    return _episode(model, prompt, tools, max_steps, params, stop=lambda stop: ("Observation:",))


def run_agent__answer_before_action(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Takes a final answer that was written before the tool was called."""
    pattern = r"^(Final Answer):(.*)|^(Action):(.*)"

    if max_steps < 0:
        raise ValueError(max_steps)
    own = replace(params, stop=(*params.stop, "Observation:"))
    steps: list[AgentStep] = []
    for _ in range(max_steps):
        text = model.generate([prompt], own)[0].completions[0].text
        final = re.search(r"^Final Answer:", text, re.MULTILINE)
        if final:
            steps.append(AgentStep(text.rstrip(), None, None))
            return Episode(text[final.end() :].strip(), steps)
        decision = re.search(pattern, text, re.MULTILINE)
        kept = (text[: decision.end()] if decision else text).rstrip()
        steps.append(AgentStep(kept, *reference._act(decision[4] if decision else None, tools)))
        prompt += f"{kept}\nObservation: {steps[-1].observation}\n"
    return Episode(None, steps)


def run_agent__keeps_what_follows_an_action(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Leaves in the text what the model wrote after its action."""
    return _episode(model, prompt, tools, max_steps, params, keep=lambda text, end: text.rstrip())


def run_agent__text_is_not_stripped(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Keeps white space at the end, so that observations stand after empty lines."""
    return _episode(model, prompt, tools, max_steps, params, keep=lambda text, end: text)


def run_agent__markers_anywhere(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Finds its markers in the middle of a thought."""
    return _episode(model, prompt, tools, max_steps, params, pattern=r"(Action|Final Answer):(.*)")


def run_agent__tool_errors_escape(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Lets exceptions of tools end the loop."""

    def act(request: str | None, tools: Sequence[Tool]) -> tuple[ToolCall | None, str]:
        if request is None:
            return None, "Error: no action"
        try:
            call = reference.parse_call(request, tools)
        except ValueError as error:
            return None, f"Error: {error}"
        return call, str(next(tool for tool in tools if tool.name == call.name).function(**call.arguments))

    return _episode(model, prompt, tools, max_steps, params, act=act)


def run_agent__malformed_calls_escape(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Lets a call that cannot be read end the loop."""

    def act(request: str | None, tools: Sequence[Tool]) -> tuple[ToolCall | None, str]:
        if request is not None:
            reference.parse_call(request, tools)
        return reference._act(request, tools)

    return _episode(model, prompt, tools, max_steps, params, act=act)


def run_agent__gives_up_without_an_action(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Takes a text without an action for the answer."""

    def act(request: str | None, tools: Sequence[Tool]) -> tuple[ToolCall | None, str]:
        if request is None:
            raise StopIteration
        return reference._act(request, tools)

    try:
        return _episode(model, prompt, tools, max_steps, params, act=act)
    except StopIteration:
        return Episode(None, [])


def run_agent__errors_without_a_message(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Tells the model that there was an error, not which."""

    def act(request: str | None, tools: Sequence[Tool]) -> tuple[ToolCall | None, str]:
        call, observation = reference._act(request, tools)
        return call, "Error: it failed" if observation.startswith("Error: ") else observation

    return _episode(model, prompt, tools, max_steps, params, act=act)


def run_agent__repr_of_the_result(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Shows texts in quotes."""
    own = [changed(tool, function=lambda tool=tool, **given: repr(tool.function(**given))) for tool in tools]
    return _episode(model, prompt, own, max_steps, params)


def run_agent__forgets_earlier_steps(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Shows the model its last step only."""
    extend = lambda start, prompt, step: f"{start}{step.text}\nObservation: {step.observation}\n"  # noqa: E731
    return _episode(model, prompt, tools, max_steps, params, extend=extend)


def run_agent__observation_only(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Shows the model observations without its own thoughts and actions."""
    extend = lambda start, prompt, step: f"{prompt}Observation: {step.observation}\n"  # noqa: E731
    return _episode(model, prompt, tools, max_steps, params, extend=extend)


def run_agent__first_line_of_the_answer(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Cuts the answer off at the end of its line."""
    first = lambda rest: rest.splitlines()[0].strip() if rest else ""  # noqa: E731
    return _episode(model, prompt, tools, max_steps, params, answer=first)


def run_agent__one_step_too_many(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Makes a call more than it may."""
    if max_steps < 0:
        raise ValueError(max_steps)
    return _episode(model, prompt, tools, max_steps + 1, params)


def run_agent__own_params(
    model: Engine, prompt: str, tools: Sequence[Tool], *, max_steps: int, params: SamplingParams
) -> Episode:
    """Generates with the defaults."""
    return _episode(model, prompt, tools, max_steps, SamplingParams(stop=params.stop))
