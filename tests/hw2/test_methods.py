"""The methods of homework 2, with the reference solutions in the place of the stubs."""

import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from grader.assignment import load_assignment
from shared_tasks.evaluation.answers import Answers
from shared_tasks.evaluation.evaluate import Sample, evaluate
from shared_tasks.evaluation.methods import Method
from shared_tasks.evaluation.plan import make_plan
from shared_tasks.models.engine import Engine, Prompt, SamplingParams
from shared_tasks.models.registry import load_engine
from shared_tasks.models.scripted import ScriptedEngine
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.mathematical_reasoning import Problem
from shared_tasks.tasks.registry import TASKS

MATH = TASKS["math"]


@pytest.fixture(scope="module")
def methods() -> Iterator[ModuleType]:
    """hw2.methods on the references."""
    names = [f"hw2.{module}" for module in load_assignment("hw2").modules]
    before = {name: sys.modules.pop(name, None) for name in [*names, "hw2.methods"]}
    for name in names:
        sys.modules[name] = importlib.import_module(f"grader.reference.{name}")
    yield importlib.import_module("hw2.methods")
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module


def names(methods: ModuleType) -> list[str]:
    return [name for name, value in vars(methods).items() if isinstance(value, Method)]


def run(engine: Engine, items: Sequence[Problem], name: str, n: int, folder: Path, chat: bool = True) -> list[Sample]:
    plan = make_plan(MATH, f"hw2.methods:{name}", "cot", n=n, max_tokens=96, seed=0)
    plan = plan if chat else plan.as_plain_text()
    with Answers(folder / f"{name}.jsonl") as answers:
        return evaluate(MATH, items, engine, plan, answers, lambda sample: None)


def test_every_algorithm_runs_on_a_course_model(methods: ModuleType, tmp_path: Path) -> None:
    """Every method answers every question, and costs tokens."""
    engine = load_engine("course-small")
    items = load(MATH, "dev", limit=2)
    assert len(names(methods)) == 19
    for name in names(methods):
        samples = run(engine, items, name, 2, tmp_path)
        assert [len(sample.outputs) for sample in samples] == [1, 1], name
        assert all(sample.tokens.generated > 0 for sample in samples), name


def test_self_consistency_of_32_samples_pays_the_prompt_once(methods: ModuleType, tmp_path: Path) -> None:
    """32 samples are one request: one prompt, and the tokens of 32 completions."""

    def reply(prompt: Prompt, params: SamplingParams) -> list[str]:
        return ["so #### 4", "so #### 5", "thus #### 5"] + ["no idea"] * (params.n - 3)

    engine = ScriptedEngine(reply)
    item = Problem(question="What is 2 + 3?", answer="5")
    (sample,) = run(engine, [item], "self_consistency", 32, tmp_path, chat=False)
    assert (len(engine.prompts), engine.params[0].n) == (1, 32)
    assert (sample.tokens.prompt, sample.tokens.generated) == (engine.count_tokens(sample.prompt), 9 + 2 * 29)
    assert (sample.outputs, sample.score) == (["so #### 5"], 1)


def test_a_real_engine_reads_the_prompt_of_32_samples_once(methods: ModuleType, tmp_path: Path) -> None:
    """The positions that go through the model are one prompt and what was generated, the last tokens left out."""
    engine = load_engine("course-small")
    (sample,) = run(engine, load(MATH, "dev", limit=1), "self_consistency", 32, tmp_path)
    assert sample.tokens.prompt == engine.count_tokens(sample.prompt)
    assert sample.tokens.forward_positions <= sample.tokens.prompt + sample.tokens.generated


def test_the_verifier_chooses_what_calculates_right(methods: ModuleType, tmp_path: Path) -> None:
    """Of three samples the one wins whose equations hold and that has an answer."""
    texts = ["2+3=6\n#### 6", "2+3=5", "2+3=5\n#### 5"]
    engine = ScriptedEngine(lambda prompt, params: texts)
    item = Problem(question="What is 2 + 3?", answer="5")
    (sample,) = run(engine, [item], "best_of_n_verifier", 3, tmp_path, chat=False)
    assert sample.outputs == [texts[2]]


def test_all_questions_are_refined_together(methods: ModuleType, tmp_path: Path) -> None:
    """Three questions, a draft and a satisfied critique each: two calls with three prompts."""
    engine = ScriptedEngine(lambda prompt, params: ["It is right." if "Is this right" in str(prompt) else "#### 5"])
    items = [Problem(question=f"What is {i}?", answer="5") for i in range(3)]
    run(engine, items, "self_refine", 2, tmp_path, chat=False)
    assert [len(call) for call in engine.calls] == [3, 3]


def test_steps_follow_the_assistants_turn_at_once(methods: ModuleType, tmp_path: Path) -> None:
    """A first step is asked for right behind the prompt, the second behind the first one's line."""
    engine = ScriptedEngine(lambda prompt, params: ["#### 5" if "2+3" in str(prompt) else "2+3=5"] * params.n)
    item = Problem(question="What is two and three?", answer="5")
    (sample,) = run(engine, [item], "beam_of_steps", 1, tmp_path, chat=False)
    assert engine.prompts == [sample.prompt, f"{sample.prompt}2+3=5\n"]
    assert sample.outputs == ["2+3=5\n#### 5"]
