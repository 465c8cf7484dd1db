"""Methods from a module: each question through a meter of its own, under a token budget."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from shared_tasks.evaluation.answers import Answers
from shared_tasks.evaluation.compare import compare
from shared_tasks.evaluation.evaluate import Sample, evaluate
from shared_tasks.evaluation.methods import code_of, find_method
from shared_tasks.evaluation.plan import Plan, make_plan
from shared_tasks.models.engine import Prompt, SamplingParams
from shared_tasks.models.scripted import ScriptedEngine
from shared_tasks.tasks.mathematical_reasoning import Problem
from shared_tasks.tasks.registry import TASKS

MATH = TASKS["math"]
ITEMS = [Problem(question=f"What is {i}?", answer=str(i)) for i in range(3)]
TWICE = """
from shared_tasks.evaluation.methods import Method
from msgspec.structs import replace

def twice(engine, questions, params, on_done):
    engine.generate([q.prompt for q in questions], params)
    return [replace(g, prompt_tokens=0, generated_tokens=0)
            for g in engine.generate([q.prompt for q in questions], params)]

def stub(engine, questions, params, on_done):
    raise NotImplementedError

method = Method("asks twice, and says that it cost nothing", twice)
unfinished = Method("a stub", stub)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A package in the current folder with a module of methods; a name of its own for each test."""
    name = f"own_{request.node.name.split('[')[0]}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / name / "methods.py").write_text(TWICE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def plan(method: str, budget: int | None = None, n: int = 1) -> Plan:
    return make_plan(MATH, method, "cot", n=n, max_tokens=4, token_budget=budget)


def run(engine: ScriptedEngine, plan: Plan, folder: Path) -> list[Sample]:
    with Answers(folder / "answers.jsonl") as answers:
        return evaluate(MATH, ITEMS, engine, plan, answers, lambda sample: None)


def says(text: str) -> Callable[[Prompt, SamplingParams], Sequence[str]]:
    return lambda prompt, params: [text] * params.n


def test_what_all_questions_ask_for_next_is_one_call(package: str, tmp_path: Path) -> None:
    """Two requests of each of three questions are two calls of the engine with three prompts."""
    engine = ScriptedEngine(says("#### 1"))
    samples = run(engine, plan(f"{package}.methods:method"), tmp_path)
    assert [len(call) for call in engine.calls] == [3, 3]
    assert [sample.score for sample in samples] == [0, 1, 0]


def test_tokens_are_those_that_the_meter_saw(package: str, tmp_path: Path) -> None:
    """Whatever a method says that it cost, a question costs both of its requests."""
    engine = ScriptedEngine(says("#### 1"))
    samples = run(engine, plan(f"{package}.methods:method"), tmp_path)
    asked = engine.count_tokens(samples[0].prompt)
    assert [(sample.tokens.prompt, sample.tokens.generated) for sample in samples] == [(2 * asked, 4)] * 3


def test_a_question_over_its_budget_is_unanswered(package: str, tmp_path: Path) -> None:
    """A budget for one request at its longest leaves too little for the second one: no answer, and it says why."""
    engine = ScriptedEngine(says("#### 1"))
    asked = engine.count_tokens(MATH_PROMPT)
    samples = run(engine, plan(f"{package}.methods:method", budget=asked + 4), tmp_path)
    assert [len(call) for call in engine.calls] == [3]
    for sample in samples:
        assert (sample.score, sample.outputs, sample.parsed) == (0, [""], [None])
        assert "tokens are left" in sample.exceeded
        assert sample.tokens.prompt + sample.tokens.generated == asked + 2


MATH_PROMPT = [{"role": "user", "content": MATH.questions(ITEMS[0], "cot")[0]}]


@pytest.mark.parametrize("method", ["majority", "best_of_n", "sample"])
def test_the_kits_own_methods_keep_to_a_budget_too(method: str, tmp_path: Path) -> None:
    """Of two samples at their longest, one token less is refused before anything runs, and none is enough."""
    engine = ScriptedEngine(says("#### 1"))
    enough = engine.count_tokens(MATH_PROMPT) + 2 * 4
    refused = run(engine, plan(method, budget=enough - 1, n=2), tmp_path)
    assert engine.calls == []
    assert [sample.score for sample in refused] == [0, 0, 0]
    answered = run(engine, plan(method, budget=enough, n=2), tmp_path)
    assert [sample.score for sample in answered] == [0, 1, 0]


def test_changed_code_asks_again(package: str, tmp_path: Path) -> None:
    """Answers of a method are kept, until a file of its package changes."""
    name = f"{package}.methods:method"
    engine = ScriptedEngine(says("#### 1"))
    run(engine, plan(name), tmp_path)
    run(engine, plan(name), tmp_path)
    assert len(engine.calls) == 2
    before = code_of(name)
    (tmp_path / package / "beside.py").write_text("CHANGED = True\n")
    assert code_of(name) != before
    run(engine, plan(name), tmp_path)
    assert len(engine.calls) == 4


def test_another_budget_asks_again(package: str, tmp_path: Path) -> None:
    """Answers under one budget are not those under another."""
    engine = ScriptedEngine(says("#### 1"))
    for budget in (None, 1000, 2000):
        run(engine, plan(f"{package}.methods:method", budget), tmp_path)
    assert len(engine.calls) == 6


def test_a_stub_is_named(package: str, tmp_path: Path) -> None:
    """A method that meets a stub ends the run with the stub's name."""
    with pytest.raises(ValueError, match=r"own_.*stub in .*methods.py, line 11, is not implemented yet"):
        run(ScriptedEngine(says("")), plan(f"{package}.methods:unfinished"), tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("majoritty", "no method 'majoritty'; there are: greedy"),
        ("no_such.module:method", r"no_such.module cannot be imported \(ModuleNotFoundError"),
        ("PACKAGE.methods:methd", "found nothing; its methods: method, unfinished"),
        ("PACKAGE.methods:twice", "found a function; its methods: method, unfinished"),
    ],
)
def test_what_is_no_method_is_said_in_one_line(package: str, name: str, message: str) -> None:
    """A missing module, a missing attribute and one that is no method are told apart."""
    with pytest.raises(ValueError, match=message) as caught:
        find_method(name.replace("PACKAGE", package))
    assert "\n" not in str(caught.value)


def test_an_error_of_the_engine_ends_the_run(package: str, tmp_path: Path) -> None:
    """No thread goes on waiting when the engine fails."""

    def fails(prompt: Prompt, params: SamplingParams) -> Sequence[str]:
        raise OSError("the server is gone")

    with pytest.raises(OSError, match="the server is gone"):
        run(ScriptedEngine(fails), plan(f"{package}.methods:method"), tmp_path)


def test_comparison_has_tokens_per_question(package: str, tmp_path: Path) -> None:
    """Asking twice costs twice as many tokens."""
    engine = ScriptedEngine(says("#### 1"))
    once, twice = (run(engine, plan(name), tmp_path) for name in ("sample", f"{package}.methods:method"))
    tokens = compare(once, twice).tokens
    assert tokens[1] == 2 * tokens[0] > 0
