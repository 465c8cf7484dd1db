"""Running a task: what is asked, what is scored, and what is not asked again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared_tasks.evaluation import evaluate as evaluation
from shared_tasks.evaluation.answers import Answer, Answers
from shared_tasks.evaluation.evaluate import Sample, evaluate
from shared_tasks.evaluation.methods import METHODS, Method
from shared_tasks.evaluation.plan import Plan, make_plan
from shared_tasks.models.engine import Generation
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.reading import DataError
from shared_tasks.tasks.registry import find_task
from tests.shared_tasks.evaluation.scripted import ScriptedEngine

GSM8K, ARC, TALKS = (find_task(name) for name in ("gsm8k", "arc", "mt_bench"))


def items_of(folder: Path, task: Any, *rows: Any) -> list[Any]:
    path = folder / f"{task.name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(task, data=path)


@pytest.fixture
def sums(tmp_path: Path) -> list[Any]:
    """Three problems: 1+1, 2+2, 3+3."""
    rows = [{"question": f"{i}+{i}", "answer": f"{i}+{i}={2 * i}\n#### {2 * i}"} for i in (1, 2, 3)]
    return items_of(tmp_path, GSM8K, *rows)


@pytest.fixture
def kinds(tmp_path: Path) -> list[Any]:
    """Two questions with options."""
    row = {"choices": {"text": ["a cat", "an oak", "an"], "label": ["A", "B", "C"]}}
    return items_of(
        tmp_path, ARC, row | {"question": "animal?", "answerKey": "A"}, row | {"question": "tree?", "answerKey": "B"}
    )


def right(text: str, sample: int) -> str:
    """Answer a sum."""
    number = int(re.findall(r"(\d+)\+", text)[-1])
    return f"I add. #### {2 * number}"


def run(folder: Path, task: Any, items: list[Any], engine: ScriptedEngine, plan: Plan, **options: Any) -> list[Sample]:
    with Answers(folder / "answers.jsonl") as answers:
        return evaluate(task, items, engine, plan, answers, options.pop("on_sample", lambda sample: None), **options)


class TestPrompts:
    def test_a_chat_holds_the_message(self, tmp_path: Path, sums: list[Any]) -> None:
        """A model with a chat template is told the question as the user's message."""
        engine = ScriptedEngine(right)
        run(tmp_path, GSM8K, sums[:1], engine, make_plan(GSM8K))
        assert engine.prompts == [[{"role": "user", "content": GSM8K.questions(sums[0], "cot")[0]}]]

    def test_plain_text_ends_in_answer(self, tmp_path: Path, sums: list[Any]) -> None:
        """A model without one is given plain text, examples first, and stops before it asks the next question."""
        engine = ScriptedEngine(lambda text, sample: "#### 6")
        plan = make_plan(GSM8K, "direct", shots=1).as_plain_text()
        run(tmp_path, GSM8K, sums[2:], engine, plan, examples=sums[:1])
        shown, asked = (GSM8K.questions(item, "direct")[0] for item in (sums[0], sums[2]))
        assert engine.prompts == [f"Question: {shown}\nAnswer: #### 2\n\nQuestion: {asked}\nAnswer:"]
        assert engine.params[0].stop == ("\nQuestion:",)

    def test_examples_are_turns_of_the_chat(self, tmp_path: Path, sums: list[Any]) -> None:
        """In a chat an example is a question of the user and an answer of the assistant."""
        engine = ScriptedEngine(right)
        run(tmp_path, GSM8K, sums[2:], engine, make_plan(GSM8K, shots=2), examples=sums[:2])
        (prompt,) = engine.prompts
        assert [turn["role"] for turn in prompt] == ["user", "assistant", "user", "assistant", "user"]
        assert prompt[1]["content"] == "1+1=2\n#### 2"

    def test_a_second_turn_follows_the_first_answer(self, tmp_path: Path) -> None:
        """In a conversation the model sees what it said before."""
        items = items_of(tmp_path, TALKS, {"turns": ["Sing.", "Louder."]})
        engine = ScriptedEngine(lambda text, sample: {"Sing.": "la", "Louder.": "LA"}[text])
        (sample,) = run(tmp_path, TALKS, items, engine, make_plan(TALKS))
        assert [turn["content"] for turn in engine.prompts[1]] == ["Sing.", "la", "Louder."]
        assert sample.outputs == ["la", "LA"]

    @pytest.mark.parametrize(
        ("chat", "asked"), [(True, ["a cat", "an oak", "an"]), (False, [" a cat", " an oak", " an"])]
    )
    def test_options_follow_a_space_in_plain_text_only(
        self, tmp_path: Path, kinds: list[Any], chat: bool, asked: list[str]
    ) -> None:
        """After "Answer:" an option begins with a space, after a chat's markers it does not."""
        seen = []

        def likelihood(context: str, continuation: str) -> float:
            seen.append(continuation)
            return -1.0

        plan = make_plan(ARC)
        run(tmp_path, ARC, kinds[:1], ScriptedEngine(likelihood=likelihood), plan if chat else plan.as_plain_text())
        assert seen == asked


class TestScores:
    def test_half_a_character_is_replaced(self, tmp_path: Path, sums: list[Any]) -> None:
        """A server may send half of a surrogate pair; the answer is kept with a mark in its place."""
        (sample,) = run(tmp_path, GSM8K, sums[:1], ScriptedEngine(lambda text, sample: "\ud800 2"), make_plan(GSM8K))
        assert (sample.outputs, sample.score) == (["? 2"], 1)

    def test_samples_come_in_the_order_of_the_items(self, tmp_path: Path, sums: list[Any]) -> None:
        """Whatever order they were made in, samples stand in the order of the items, with all that was seen."""
        samples = run(tmp_path, GSM8K, sums, ScriptedEngine(lambda text, sample: "#### 4"), make_plan(GSM8K))
        assert [(sample.index, sample.parsed, sample.score) for sample in samples] == [
            (0, ["4"], 0.0),
            (1, ["4"], 1.0),
            (2, ["4"], 0.0),
        ]
        assert (samples[1].gold, samples[1].outputs, samples[1].output_tokens) == ("4", ["#### 4"], [2])

    def test_a_majority_is_the_score_of_a_majority_method(self, tmp_path: Path, sums: list[Any]) -> None:
        """Two of three samples right: the mean is 2/3, the majority is right."""
        engine = ScriptedEngine(lambda text, sample: right(text, sample) if sample else "#### 0")
        (mean,) = run(tmp_path, GSM8K, sums[:1], engine, make_plan(GSM8K, "sample", n=3))
        (majority,) = run(tmp_path, GSM8K, sums[:1], engine, make_plan(GSM8K, "majority", n=3))
        assert mean.score == pytest.approx(2 / 3)
        assert majority.score == 1
        assert majority.values["accuracy"] == mean.score

    def test_best_of_n_takes_the_most_probable(self, tmp_path: Path, sums: list[Any]) -> None:
        """The shortest sample is the most probable here, and is what best_of_n is scored by."""
        replies = ["#### 2", "let me think #### 0", "let me think #### 0"]
        engine = ScriptedEngine(lambda text, sample: replies[sample])
        (sample,) = run(tmp_path, GSM8K, sums[:1], engine, make_plan(GSM8K, "best_of_n", n=3))
        assert (sample.score, sample.values["maj@3"]) == (1, 0)

    def test_the_likeliest_option_is_the_answer(self, tmp_path: Path, kinds: list[Any]) -> None:
        """Plain, the likeliest text wins; per character a longer one may; the log-likelihoods are kept."""
        likelihoods = {"a cat": -3.0, "an oak": -4.0, "an": -2.0}
        engine = ScriptedEngine(likelihood=lambda context, option: likelihoods[option])
        first, _ = run(tmp_path, ARC, kinds, engine, make_plan(ARC))
        assert (first.parsed, first.score) == (["C"], 0)
        assert first.values["accuracy_per_character"] == 1  # -3/5 > -4/6 > -2/2
        assert [(choice.text, choice.logprob) for choice in first.choices] == list(likelihoods.items())

    def test_letters_are_compared(self, tmp_path: Path, kinds: list[Any]) -> None:
        """Asked for a letter, the letters are the options."""
        engine = ScriptedEngine(likelihood=lambda context, option: {"A": -1.0, "B": -2.0, "C": -3.0}[option])
        samples = run(tmp_path, ARC, kinds, engine, make_plan(ARC, "letter"))
        assert [(sample.parsed, sample.score) for sample in samples] == [(["A"], 1), (["A"], 0)]

    def test_a_method_sees_no_right_answer(
        self, tmp_path: Path, sums: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A method of one's own gets prompts and a way to read answers, and its outputs are scored."""
        seen = []

        def ask_twice(engine, questions, params, on_done):  # type: ignore[no-untyped-def]
            seen.extend(questions)
            drafts = engine.generate([question.prompt for question in questions], params)
            assert [
                question.parse(draft.completions[0].text) for question, draft in zip(questions, drafts, strict=True)
            ] == ["2"]
            return engine.generate([question.prompt for question in questions], params)

        monkeypatch.setitem(METHODS, "twice", Method("asks twice", ask_twice))
        engine = ScriptedEngine(right)
        (sample,) = run(tmp_path, GSM8K, sums[:1], engine, make_plan(GSM8K, "twice"))
        assert (sample.score, len(engine.prompts)) == (1, 2)
        assert set(seen[0]._fields) == {"prompt", "parse", "text"}


class TestGoingOn:
    def test_an_interrupted_run_goes_on_where_it_was(self, tmp_path: Path, sums: list[Any]) -> None:
        """What was answered before an interrupt is not asked again, and the result is that of one whole run."""
        kept: list[Sample] = []
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, GSM8K, sums, ScriptedEngine(right, stop_after=2), make_plan(GSM8K), on_sample=kept.append)
        assert [sample.index for sample in kept] == [0, 1]
        engine = ScriptedEngine(right)
        samples = run(tmp_path, GSM8K, sums, engine, make_plan(GSM8K))
        assert len(engine.prompts) == 1
        assert samples == run(tmp_path / "whole", GSM8K, sums, ScriptedEngine(right), make_plan(GSM8K))

    def test_options_go_on_item_by_item(self, tmp_path: Path, kinds: list[Any]) -> None:
        """An item of which only some options were scored is asked again as a whole."""
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, ARC, kinds, ScriptedEngine(stop_after=4), make_plan(ARC))
        engine = ScriptedEngine()
        run(tmp_path, ARC, kinds, engine, make_plan(ARC))
        assert len(engine.prompts) == 3

    def test_a_conversation_goes_on_in_its_turn(self, tmp_path: Path) -> None:
        """First turns that were answered are not asked again."""
        items = items_of(tmp_path, TALKS, {"turns": ["a", "b"]}, {"turns": ["c", "d"]})
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, TALKS, items, ScriptedEngine(stop_after=3), make_plan(TALKS))
        engine = ScriptedEngine()
        run(tmp_path, TALKS, items, engine, make_plan(TALKS))
        assert [prompt[-1]["content"] for prompt in engine.prompts] == ["d"]

    def test_a_torn_last_line_is_asked_again(self, tmp_path: Path, sums: list[Any]) -> None:
        """A process killed while it wrote leaves half a line, which is dropped."""
        run(tmp_path, GSM8K, sums, ScriptedEngine(right), make_plan(GSM8K))
        file = tmp_path / "answers.jsonl"
        file.write_bytes(file.read_bytes()[:-10])
        engine = ScriptedEngine(right)
        run(tmp_path, GSM8K, sums, engine, make_plan(GSM8K))
        assert len(engine.prompts) == 1
        run(tmp_path, GSM8K, sums, engine, make_plan(GSM8K))
        assert len(engine.prompts) == 1

    def test_everything_that_changes_an_answer_changes_the_key(
        self, tmp_path: Path, sums: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another model, prompt, parameter, example or prompt code is asked anew; the same run is not."""

        def asked(plan: Plan, model: str = "a model", **options: Any) -> int:
            engine = ScriptedEngine(right, model=model)
            run(tmp_path, GSM8K, sums[2:], engine, plan, **options)
            return len(engine.prompts)

        sampled = make_plan(GSM8K, "sample", n=2, seed=0)
        assert asked(make_plan(GSM8K)) == 1
        assert asked(make_plan(GSM8K)) == 0
        assert asked(make_plan(GSM8K), model="another") == 1
        assert asked(make_plan(GSM8K, "direct")) == 1
        assert asked(make_plan(GSM8K, max_tokens=7)) == 1
        assert asked(make_plan(GSM8K).as_plain_text()) == 1
        assert asked(make_plan(GSM8K, shots=1), examples=sums[:1]) == 1
        assert asked(make_plan(GSM8K, shots=1), examples=sums[1:2]) == 1
        assert asked(sampled) == 1
        assert asked(make_plan(GSM8K, "majority", n=2, seed=0)) == 0  # the same samples, chosen from in another way
        assert asked(make_plan(GSM8K, "sample", n=2, seed=1)) == 1
        assert asked(make_plan(GSM8K, "sample", n=2, temperature=0.8, seed=0)) == 1
        monkeypatch.setattr(evaluation.inspect, "getsource", lambda thing: "changed")
        assert asked(make_plan(GSM8K)) == 1

    def test_items_draw_independently_and_reproducibly(self, tmp_path: Path, sums: list[Any]) -> None:
        """Each item has a seed of its own, the same in every run and whatever the limit."""
        engine = ScriptedEngine(right)
        run(tmp_path / "a", GSM8K, sums, engine, make_plan(GSM8K, "sample", seed=0))
        run(tmp_path / "b", GSM8K, sums[:2], engine, make_plan(GSM8K, "sample", seed=0))
        seeds = [params.seed for params in engine.params]
        assert len(set(seeds[:3])) == 3
        assert seeds[3:] == seeds[:2]

    def test_one_run_at_a_time_writes(self, tmp_path: Path) -> None:
        """A second run in the same folder is refused while the first one writes."""
        with Answers(tmp_path / "answers.jsonl"), pytest.raises(BlockingIOError, match="another run is writing"):
            Answers(tmp_path / "answers.jsonl")

    def test_a_line_that_is_no_answer_is_named(self, tmp_path: Path) -> None:
        """A damaged line in the middle of the file is refused with its number, not passed over."""
        with Answers(tmp_path / "answers.jsonl") as answers:
            answers.add(Answer("k", Generation(prompt_tokens=1, completions=[], latency=0.0)))
        with (tmp_path / "answers.jsonl").open("ab") as file:
            file.write(b"{}\n")
        with pytest.raises(DataError, match=r"answers\.jsonl, line 2: not a stored answer"):
            Answers(tmp_path / "answers.jsonl")
