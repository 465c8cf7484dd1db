"""Goldens: what they depend on, how they are kept, and what is computed again."""

import importlib
import itertools
import json
import multiprocessing
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from typer.testing import CliRunner

import grader.hidden
from grader.assignment import FOLDER as ASSIGNMENTS
from grader.assignment import UnusableInput, load_assignment
from grader.cli import app
from grader.goldens import prepare
from grader.goldens.near_ties import decided, is_greedy, record_near_ties
from grader.goldens.prepare import Environment, Goldens, Prepared, open_subject
from grader.goldens.recording import (
    RecordedEngine,
    RecordedModel,
    Recorder,
    RecordingEngine,
    ScriptedDraws,
    Unusable,
)
from grader.goldens.source import Sources
from grader.goldens.store import FOLDER, Corrupt, GoldenStore
from grader.reference.hw1 import beam_search
from grader.sandbox import isolation
from shared_tasks.models.engine import Engine, SamplingParams
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness
from shared_tasks.models.scripted import ScriptedEngine
from shared_tasks.models.toy import NgramModel, PositionModel, TableModel

# What a reference depends on

KIT = {
    "kit/__init__.py": "",
    "kit/reference.py": '''
        """A module."""
        from functools import cache
        from math import floor

        from kit import helpers, reexporting
        from kit.deep import base
        from .deep.base import Base as Parent

        LIMIT = helpers.SMALL * 2
        REGISTERED = {}
        unrelated_constant = 5

        def reference(x):
            """Say what it does."""
            from kit.lazy import later
            return later(helpers.helper(x)) + reexporting.shared(LIMIT) + Child().method() + floor(x)  # a comment

        class Child(Parent):
            def own(self):
                return 1

        @cache
        def decorated(x):
            return x

        def unrelated_reference(x):
            return decorated(x) + unrelated_constant

        def takes_a_module(x):
            return x(base)
    ''',
    "kit/helpers.py": """
        SMALL = 2

        def helper(x):
            return _private(x)

        def _private(x):
            return x + 1

        def other(x):
            helper = x
            return helper
    """,
    "kit/lazy.py": "def later(x):\n    return x\n\n\ndef never(x):\n    return x\n",
    "kit/reexporting.py": "from kit.deep.base import shared\n",
    "kit/deep/__init__.py": "",
    "kit/deep/base.py": """
        def shared(x):
            return x

        def alone(x):
            return x

        class Base:
            def method(self):
                return shared(3)
    """,
}
CHANGES = [
    # file, what stands there, what stands there after, whether the result of `reference` may be another
    ("reference", "helpers.helper(x)", "helpers.helper(2 * x)", True),
    ("reference", "SMALL * 2", "SMALL * 3", True),
    ("reference", "return 1", "return 2", True),
    ("helpers", "return x + 1", "return x + 2", True),
    ("helpers", "SMALL = 2", "SMALL = 3", True),
    ("helpers", "SMALL = 2", "SMALL = 2\nprint(SMALL)", True),
    ("lazy", "def later(x):\n    return x", "def later(x):\n    return -x", True),
    ("deep/base", "def shared(x):\n    return x", "def shared(x):\n    return -x", True),
    ("deep/base", "return shared(3)", "return shared(4)", True),
    ("reference", "import floor", "import ceil as floor", True),
    ("reexporting", "import shared", "import alone as shared", True),
    ("reference", "helpers.helper(x)", "helpers.helper( x )", False),
    ("reference", "  # a comment", "  # another comment", False),
    ("reference", "Say what it does.", "Say it in other words.", False),
    ("reference", "A module.", "The module.", False),
    ("reference", "import cache", "import lru_cache as cache", False),
    ("reference", "decorated(x) +", "decorated(x) -", False),
    ("reference", "unrelated_constant = 5", "unrelated_constant = 6", False),
    ("helpers", "helper = x", "helper = 2 * x", False),
    ("lazy", "def never(x):\n    return x", "def never(x):\n    return -x", False),
    ("deep/base", "def alone(x):\n    return x", "def alone(x):\n    return -x", False),
]


def write_kit(root: Path) -> None:
    for name, text in KIT.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


@pytest.mark.parametrize(("file", "before", "after", "matters"), CHANGES, ids=[f"{c[0]}: {c[2]}" for c in CHANGES])
def test_digest_changes_with_what_a_function_reaches(
    tmp_path: Path, file: str, before: str, after: str, matters: bool
) -> None:
    """Code that a function comes to changes its hash; comments, docstrings and code beside it do not."""
    write_kit(tmp_path)
    old = Sources(tmp_path).digest("kit.reference", "reference")
    path = tmp_path / "kit" / f"{file}.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    assert (Sources(tmp_path).digest("kit.reference", "reference") != old) == matters


def test_digest_of_a_module_that_is_passed_on(tmp_path: Path) -> None:
    """Who gets a module may call anything in it, so all of it counts."""
    write_kit(tmp_path)
    reached = Sources(tmp_path).reached("kit.reference", "takes_a_module")
    assert {name for module, name in reached if module == "kit.deep.base"} >= {"shared", "alone", "Base"}


def test_digest_of_nothing(tmp_path: Path) -> None:
    """A name that is not there is an error, not an empty hash."""
    write_kit(tmp_path)
    for module, name in (("kit.reference", "nothing"), ("kit.nowhere", "x"), ("kit.nowhere", None)):
        with pytest.raises(LookupError, match="expected"):
            Sources(tmp_path).digest(module, name)


def test_digest_of_real_references() -> None:
    """A reference reaches its own helpers and the interfaces that it names, and no other reference."""
    reached = {name for _, name in Sources().reached("grader.reference.hw1.beam_search", "beam_search")}
    assert reached >= {"beam_search", "score_bound", "_Beam", "_check", "Hypothesis", "LanguageModel"}
    assert not reached & {"greedy_search", "diverse_beam_search", "stochastic_beam_search", "condition_on_maximum"}


# How results are kept

KEY = "ab" * 32


def test_store_gives_back_what_it_was_given(tmp_path: Path) -> None:
    """Plain values, tensors of all shapes, and structs as dicts come back as they were."""
    store = GoldenStore(tmp_path)
    with pytest.raises(KeyError):
        store.get(KEY)
    tensors = [
        torch.randn(2, 3),
        torch.tensor([1, -2]),
        torch.tensor(True),
        torch.empty(0, 4),
        torch.tensor(2.5).double(),
    ]
    store.put(KEY, {"plain": [1, "a", None, {"x": 0.1}], "tensors": tensors, "params": SamplingParams(n=3)})
    found = store.get(KEY)
    assert found["plain"] == [1, "a", None, {"x": 0.1}]
    for tensor, original in zip(found["tensors"], tensors, strict=True):
        assert tensor.dtype == original.dtype
        assert torch.equal(tensor, original)
    assert msgspec.convert(found["params"], SamplingParams) == SamplingParams(n=3)
    with pytest.raises(TypeError, match="expected plain values"):
        store.put(KEY, object())
    assert store.get(KEY)["plain"][1] == "a"


def test_store_finds_every_kind_of_damage(tmp_path: Path) -> None:
    """A flipped bit anywhere, a file cut off anywhere, a longer one, and one in another's place are all found."""
    store = GoldenStore(tmp_path)
    store.put(KEY, [1, 2, 3, torch.arange(3)])
    path = store.path(KEY)
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))]
    for contents in (*damaged, whole + b"\0"):
        path.write_bytes(contents)
        with pytest.raises(Corrupt):
            store.get(KEY)
    other = "cd" * 32
    store.put(other, "of another key")
    path.write_bytes(store.path(other).read_bytes())
    with pytest.raises(Corrupt):
        store.get(KEY)


def write_and_read(folder: Path, number: int) -> None:
    store = GoldenStore(folder)
    for _ in range(60):
        store.put(KEY, torch.zeros(2000))
        assert len(store.get(KEY)) == 2000


def test_processes_write_the_same_key_at_once(tmp_path: Path) -> None:
    """Whoever reads while others write finds a whole value, and nothing unfinished is left behind."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_and_read, args=(tmp_path, i)) for i in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".golden"]


# What is computed, and what is computed again

REFERENCES = """
from grader.goldens.prepare import Reference
from grader.goldens.recording import Unusable

computed = []


def helper(x):
    return x * FACTOR


FACTOR = 2


def doubled(subject, given):
    computed.append(("doubled", given))
    if given == "interrupt":
        raise KeyboardInterrupt
    if given == "unusable":
        raise Unusable("no use")
    return helper(given)


def lengths(subject, given):
    computed.append(("lengths", given))
    return {"length": len(given), "correct": True}


REFERENCES = [Reference(doubled, [1, 2, 3]), Reference(lengths, ["ab", "c"])]
"""
ENVIRONMENT = Environment("transformers", "a model", "float32", "cpu", {"torch": "2"}, "code", "weights")


class Nothing:
    """An engine that has done nothing, as a subject."""

    engine = ScriptedEngine({})


class Kit:
    """A kit with references of an assignment of its own."""

    def __init__(self, root: Path):
        self.file = root / "grader" / "hidden" / "hw0" / "references.py"
        self.file.parent.mkdir(parents=True)
        self.store = root / "goldens"
        self.loads = 0
        self.write(REFERENCES)

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def replace(self, before: str, after: str) -> None:
        assert before in self.file.read_text()
        self.write(self.file.read_text().replace(before, after))

    @property
    def goldens(self) -> Goldens:
        for name in [name for name in sys.modules if name.startswith("grader.hidden.hw0")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return Goldens("hw0", self.store)

    def load(self) -> Any:
        self.loads += 1
        return Nothing()

    def prepare(self, environment: Environment = ENVIRONMENT) -> list[Prepared]:
        return list(self.goldens.prepare(environment, self.load))

    def computed(self, environment: Environment = ENVIRONMENT) -> list[tuple[str, int]]:
        return [(p.reference, p.number) for p in self.prepare(environment) if p.computed]


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files change faster than their dates
    monkeypatch.setattr(prepare, "KIT", tmp_path)
    monkeypatch.setattr(prepare, "Sources", lambda: Sources(tmp_path))
    monkeypatch.setattr(grader.hidden, "__path__", [*grader.hidden.__path__, str(tmp_path / "grader" / "hidden")])
    yield Kit(tmp_path)
    for name in [name for name in sys.modules if name.startswith("grader.hidden.hw0")]:
        del sys.modules[name]


ALL = [("doubled", 0), ("doubled", 1), ("doubled", 2), ("lengths", 0), ("lengths", 1)]


def test_second_run_computes_nothing(kit: Kit) -> None:
    """What is there is kept, and no model is even loaded for it."""
    first = kit.prepare()
    assert [(p.reference, p.number) for p in first if p.computed] == ALL
    assert {p.total for p in first} == {5}
    assert kit.computed() == []
    assert kit.loads == 1
    assert kit.goldens.load("doubled") == [2, 4, 6]
    assert kit.goldens.load("lengths") == [{"length": 2, "correct": True}, {"length": 1, "correct": True}]


@pytest.mark.parametrize(
    ("before", "after", "again"),
    [
        ("return x * FACTOR", "return x + FACTOR", ALL[:3]),
        ("FACTOR = 2", "FACTOR = 3", ALL[:3]),
        ("len(given)", "len(given) + 1", ALL[3:]),
        ("[1, 2, 3]", "[1, 2, 4]", [ALL[2]]),
        ("[1, 2, 3]", "[3, 1, 2, 5]", [("doubled", 3)]),
        ("computed = []", "computed = []  # what was", []),
    ],
)
def test_change_recomputes_what_depends_on_it(kit: Kit, before: str, after: str, again: list[tuple[str, int]]) -> None:
    """A changed reference, helper, constant or input computes its own results again and no other."""
    kit.prepare()
    kit.replace(before, after)
    assert kit.computed() == again
    assert kit.computed() == []


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "vllm"},
        {"versions": {"torch": "3"}},
        {"engine_code": "other"},
        {"weights": "other"},
        {"dtype": "bfloat16"},
        {"device": "a GPU"},
    ],
    ids=str,
)
def test_environment_is_part_of_the_key(kit: Kit, change: dict[str, Any]) -> None:
    """Another engine, version, model or precision computes all again, and what was there before stays for a return."""
    kit.prepare()
    assert kit.computed(msgspec.structs.replace(ENVIRONMENT, **change)) == ALL
    assert kit.computed() == []


def test_damaged_result_is_computed_again(kit: Kit) -> None:
    """A result that was damaged is found, counted, and computed again; its neighbours are kept."""
    kit.prepare()
    goldens = kit.goldens
    key = goldens.keys(ENVIRONMENT)["doubled"][1]
    path = goldens.store.path(key)
    path.write_bytes(path.read_bytes()[:-1])
    again = [p for p in kit.prepare() if p.computed]
    assert [(p.reference, p.number, p.damaged) for p in again] == [("doubled", 1, True)]
    assert kit.goldens.load("doubled") == [2, 4, 6]


def test_interrupted_run_goes_on(kit: Kit) -> None:
    """What was computed before an interruption is kept, and nothing is in force before all is there."""
    kit.replace("[1, 2, 3]", '[1, "interrupt", 3]')
    with pytest.raises(KeyboardInterrupt):
        kit.prepare()
    assert kit.goldens.environment is None
    (kit.store / "00").mkdir()
    (kit.store / "00" / "unfinished-by-a-kill").write_bytes(b"half")
    kit.replace('[1, "interrupt", 3]', "[1, 2, 3]")
    assert kit.computed() == ALL[1:]
    assert kit.goldens.load("doubled") == [2, 4, 6]


def prepare_all(kit: Kit) -> None:
    assert len(kit.prepare()) == 5


def test_two_runs_at_once(kit: Kit) -> None:
    """Runs side by side both end well, and leave what one would have left."""
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=prepare_all, args=(kit,)) for _ in range(4)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0] * 4
    assert kit.computed() == []
    assert kit.goldens.load("doubled") == [2, 4, 6]


def test_unusable_inputs_are_left_out(kit: Kit) -> None:
    """An input that makes no test on this model is left out and says why; without any other that is an error."""
    kit.replace("[1, 2, 3]", '[1, "unusable", 3]')
    results = kit.prepare()
    assert [p.result.get("unusable") for p in results] == [None, "no use", None, None, None]
    assert kit.goldens.load("doubled") == [2, 6]
    kit.replace('[1, "unusable", 3]', '["unusable"]')
    with pytest.raises(UnusableInput, match="no input of doubled is of use on a model: no use"):
        kit.prepare()
    assert kit.goldens.load("doubled") == [2, 6]  # what was in force before


def test_goldens_go_out_of_force(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in force while references, inputs and engine are those that they came from, and all files are whole."""
    engine = kit.file.parents[3] / "shared_tasks" / "models" / "transformers_engine.py"
    engine.parent.mkdir(parents=True)
    engine.write_text("class Engine:\n    speed = 1\n")
    code = Sources(kit.file.parents[3]).digest("shared_tasks.models.transformers_engine")
    environment = msgspec.structs.replace(ENVIRONMENT, engine_code=code)
    assert not kit.goldens.in_force()
    kit.prepare(environment)
    assert kit.goldens.in_force()
    for file, before, after in (
        (kit.file, "FACTOR = 2", "FACTOR = 3"),
        (kit.file, "[1, 2, 3]", "[1, 2]"),
        (engine, "speed = 1", "speed = 2"),
    ):
        text = file.read_text()
        file.write_text(text.replace(before, after))
        assert not kit.goldens.in_force(), after
        file.write_text(text)
        assert kit.goldens.in_force()
    path = kit.goldens.store.path(kit.goldens.keys(environment)["lengths"][0])
    path.unlink()
    assert not kit.goldens.in_force()


def test_goldens_of_another_engine_are_not_replaced_unasked(kit: Kit) -> None:
    """Grading does not run references on this machine's engine when they were prepared on another one."""
    engine = kit.file.parents[3] / "shared_tasks" / "models" / "vllm_engine.py"
    engine.parent.mkdir(parents=True)
    engine.write_text("speed = 1\n")
    kit.prepare(msgspec.structs.replace(ENVIRONMENT, engine="vllm", model="Qwen/Qwen3-0.6B"))
    with pytest.raises(UnusableInput, match=r"grader prepare hw0 --engine vllm --model Qwen/Qwen3-0\.6B"):
        list(kit.goldens.ensure())


def test_assignment_without_references(tmp_path: Path) -> None:
    """Nothing is prepared for an assignment that compares with nothing."""
    goldens = Goldens("final_project", tmp_path)
    assert goldens.references == {}
    assert list(goldens.ensure()) == []


# Recordings

MODEL = NgramModel(vocab_size=7, order=3, seed=5)


def test_recorded_model_says_what_the_model_said() -> None:
    """A recording gives the same rows for the same contexts, and refuses others."""
    recorder = Recorder(MODEL)
    assert isinstance(recorder, LanguageModel)
    contexts = [[1, 2], [], [3]]
    rows = recorder.next_token_logprobs(contexts)
    scores = recorder.continuation_logprobs([[1], []], [[2, 3], []])
    recorded = RecordedModel(recorder.recording, Recorder(MODEL).recording)
    assert isinstance(recorded, LanguageModel)
    assert (recorded.vocab_size, recorded.eos_token_id) == (7, MODEL.eos_token_id)
    assert torch.equal(recorded.next_token_logprobs(contexts), rows)
    (score, nothing) = recorded.continuation_logprobs([[1], []], [[2, 3], []])
    assert torch.equal(score, scores[0])
    assert torch.allclose(score, MODEL.continuation_logprobs([[1]], [[2, 3]])[0].to(score))
    assert nothing.tolist() == []
    assert recorded.strayed == 0
    with pytest.raises(LookupError):
        recorded.next_token_logprobs([[1, 2], [5, 5, 5]])
    assert recorded.strayed == 1


def test_recorded_model_is_not_changed_by_who_asks() -> None:
    """Rows are copies: writing into one leaves the recording as it is."""
    recorder = Recorder(MODEL)
    recorder.next_token_logprobs([[1]])
    recorded = RecordedModel(recorder.recording)
    before = recorded.next_token_logprobs([[1]]).clone()
    recorded.next_token_logprobs([[1]]).zero_()
    assert torch.equal(recorded.next_token_logprobs([[1]]), before)


def test_recorded_engine_answers_recorded_requests_alone(tmp_path: Path) -> None:
    """The same request has the same answer, after a way through the store too; any other is refused and counted."""
    params = SamplingParams(n=2, temperature=0.7, logit_bias={3: 1.5}, stop=("x",))
    engine = RecordingEngine(ScriptedEngine({"p": ["one", "two"]}, logprobs=lambda x, y: [-1.0] * len(y)))
    assert isinstance(engine, Engine)
    (generation,) = engine.generate(["p"], params)
    (likelihood,) = engine.loglikelihood(["p"], ["abc"])
    store = GoldenStore(tmp_path)
    store.put(KEY, engine.recording)
    recorded = RecordedEngine(store.get(KEY))
    assert isinstance(recorded, Engine)
    done: list[Any] = []
    assert recorded.generate(["p"], params, lambda i, g: done.append((i, g))) == [generation]
    assert done == [(0, generation)]
    assert recorded.loglikelihood(["p"], ["abc"]) == [likelihood]
    for prompt, other in (("q", params), ("p", msgspec.structs.replace(params, n=1))):
        with pytest.raises(LookupError):
            recorded.generate([prompt], other)
    with pytest.raises(LookupError):
        recorded.loglikelihood(["p"], ["ab"])
    assert recorded.strayed == 3


def test_scripted_draws_repeat_a_sample() -> None:
    """A script gives the sample again, and what each draw was from; a draw that it does not hold is refused."""
    draws = ScriptedDraws([[2, 1], [0]])
    assert isinstance(draws, Randomness)
    assert draws.categorical(torch.full((2, 3), 1 / 3)).tolist() == [2, 1]
    with pytest.raises(LookupError):
        draws.categorical(torch.full((2, 3), 1 / 3))
    assert draws.categorical(torch.tensor([0.5, 0.5])).tolist() == 0
    for draw in (lambda: draws.gumbel(()), lambda: draws.uniform(()), lambda: draws.bernoulli(0.5)):
        with pytest.raises(LookupError):
            draw()
    assert [tuple(probs.shape) for probs in draws.probs] == [(2, 3), (2,)]


def test_engine_model_is_the_model() -> None:
    """The distribution that an engine tells is that of the model, and so are the tokens of a text."""
    from shared_tasks.models.registry import load_model

    environment, load = open_subject("transformers", "course-small", "float32")
    subject, model = load(), load_model("course-small")
    assert environment.weights == open_subject("transformers", "course-small", "float32")[0].weights
    assert environment.weights != open_subject("transformers", "course-base", "float32")[0].weights
    texts = ["", "Once", "The wind was cold", "12*3=36\n#### 36", "a  b "]
    tokens = [subject.model.encode(text) for text in texts]
    assert tokens == [model.encode(text) for text in texts]
    rows = subject.model.next_token_logprobs(tokens)
    assert torch.allclose(rows, model.next_token_logprobs(tokens), atol=1e-4)
    split = [*model.encode("T"), *model.encode("he"), *model.encode(" wind")]
    assert split != model.encode("The wind")
    with pytest.raises(Unusable, match="read as other tokens"):
        subject.model.next_token_logprobs([split])


# Near-ties

TIED = TableModel({(): [0.1, 0.45, 0.45], (1,): [0.2, 0.3, 0.5], (2,): [0.9, 0.05, 0.05], (1, 2): [0.6, 0.3, 0.1]}, 0)


def test_near_ties_are_right_either_way() -> None:
    """Of nearly equal tokens either is greedy, with all that follows from it; no other token and no other end is."""
    right = ([1, 2, 0], [2, 0])
    wrong = ([0], [1, 2], [1, 1, 0], [2], [1, 2, 0, 0], [1, 2, 1], [])
    for tokens in right:
        assert is_greedy(TIED, [], tokens, 4, 1e-4), tokens
    for tokens in wrong:
        assert not is_greedy(TIED, [], tokens, 4, 1e-4), tokens
    assert is_greedy(TIED, [], [1, 2], 2, 1e-4)


def test_near_ties_are_recorded() -> None:
    """All branches that greedy decoding may take are in the recording, so that each can be checked on it."""
    recorder = Recorder(TIED)
    record_near_ties(recorder, [], 4, 1e-4)
    recorded = RecordedModel(recorder.recording)
    for tokens in ([1, 2, 0], [2, 0]):
        assert is_greedy(recorded, [], tokens, 4, 1e-4)
    flat = PositionModel(vocab_size=90, max_length=4, seed=1)
    with pytest.raises(Unusable, match="branches"):
        record_near_ties(Recorder(flat), [], 4, 100.0)


def test_input_that_rounding_decides_is_left_out() -> None:
    """A search whose outcome hangs on a near-tie is no test; one with clear choices is."""
    clear = NgramModel(vocab_size=7, order=3, seed=5)

    def search(model: LanguageModel) -> list[list[int]]:
        return [h.tokens for h in beam_search.beam_search(model, [], num_beams=1, max_tokens=4)]

    assert decided(search, Recorder(clear)) == search(clear)
    with pytest.raises(Unusable, match="near-tie"):
        decided(search, Recorder(TIED))


# What the kit has


@pytest.mark.parametrize("name", [path.stem for path in sorted(ASSIGNMENTS.glob("*.toml"))])
def test_every_reference_has_a_test(name: str) -> None:
    """Each reference is compared with by a hidden test that is marked with it, and no marker names another."""
    assignment = load_assignment(name)
    texts = [assignment.test_file(module, "hidden").read_text() for module in assignment.modules]
    marked = [found for text in texts for found in re.findall(r'@pytest\.mark\.reference\("(\w+)"\)', text)]
    assert set(marked) == set(Goldens(name).references)
    assert len(marked) == sum(len(re.findall(r"def test_\w+\(self, golden\)", text)) for text in texts)


def test_submissions_see_no_goldens() -> None:
    """No mount of the sandbox leads to the store, or to what is in it."""
    for name in ("hw1", "hw2", "hw3"):
        assignment = load_assignment(name)
        words = isolation.command(Path("submission"), assignment.packages, assignment.kit, assignment.limits, 9)
        sources = [Path(source) for kind, source in itertools.pairwise(words) if kind == "--ro-bind"]
        covered = [Path(words[i + 1]) for i, word in enumerate(words) if word == "--tmpfs"]
        assert len(sources) > 10
        for source in sources:
            seen = FOLDER.is_relative_to(source) and not any(FOLDER.is_relative_to(hidden) for hidden in covered)
            assert not seen, source
            assert not source.is_relative_to(FOLDER)


def test_grades_depend_on_the_goldens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When other goldens come into force, everything is graded anew."""
    monkeypatch.setattr("grader.assignment.GOLDENS", tmp_path)
    digests = [load_assignment("hw1").digest]
    for contents in ("{}", '{"results": {}}', "{}"):
        (tmp_path / "hw1.json").write_text(contents)
        digests.append(load_assignment("hw1").digest)
    assert len(set(digests)) == 3
    assert digests[1] == digests[3]


def test_command_says_what_it_computed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`grader prepare` computes everything once, then keeps everything, and refuses what it cannot run in one line."""
    monkeypatch.setattr(Goldens.__init__, "__defaults__", (tmp_path,))

    def run(*arguments: str) -> Any:
        outcome = CliRunner().invoke(app, ["prepare", "hw3", *arguments])
        return outcome if outcome.exit_code else json.loads(outcome.stdout)["references"]

    total = {"decoded": 3, "token_logprobs": 1}
    assert {row["reference"]: (row["computed"], row["kept"]) for row in run("--json")} == {
        name: (count, 0) for name, count in total.items()
    }
    assert {row["reference"]: (row["computed"], row["kept"]) for row in run("--json")} == {
        name: (0, count) for name, count in total.items()
    }
    for wrong in (["--engine", "abacus"], ["--dtype", "float7"], ["--model", "course-huge"]):
        outcome = run(*wrong)
        assert outcome.exit_code == 2
        assert len(outcome.stderr.strip().splitlines()) == 1, outcome.stderr
