"""Rows become items: the schemas of the public sets, and where few-shot examples may come from."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shared_tasks.tasks import reading
from shared_tasks.tasks.loading import load, load_shots, shots_for
from shared_tasks.tasks.reading import DataError
from shared_tasks.tasks.registry import TASKS, find_task

DATA = Path(os.environ.get("COURSE_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))


def loaded(folder: Path, task: str, *rows: Any, split: str | None = None) -> list[Any]:
    """Load rows through a file."""
    path = folder / f"{task}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load(find_task(task), split, path)


class TestSchemas:
    def test_gsm8k(self, tmp_path: Path) -> None:
        """The answer stands after ####; calculations in <<>> are no part of the solution that a prompt shows."""
        (item,) = loaded(tmp_path, "gsm8k", {"question": "Q", "answer": "2*3=<<2*3=6>>6 eggs\n#### 2,006"})
        assert (item.answer, item.solution) == ("2,006", "2*3=6 eggs\n#### 2,006")

    def test_svamp(self, tmp_path: Path) -> None:
        """Body and question make the problem; the answer is a number, or a text on the hub."""
        row = {"Body": "He had 76 cards.", "Question": "How many are left?", "Equation": "( 76.0 - 25.0 )"}
        items = loaded(tmp_path, "svamp", row | {"Answer": 51.0}, row | {"Answer": "51"}, row | {"Answer": 2.5})
        assert [item.answer for item in items] == ["51", "51", "2.5"]
        assert items[0].question == "He had 76 cards. How many are left?"
        assert items[0].solution == "76 - 25 = 51\n#### 51"

    def test_mmlu(self, tmp_path: Path) -> None:
        """The answer is an index on the hub and a letter in the original files."""
        row = {"question": "Q", "choices": ["w", "x", "y", "z"], "subject": "law"}
        items = loaded(tmp_path, "mmlu", row | {"answer": 2}, row | {"answer": "C"})
        assert [(item.right, item.group) for item in items] == [(2, "law"), (2, "law")]

    def test_mmlu_pro(self, tmp_path: Path) -> None:
        """Ten options; the letter and the index of the answer must agree."""
        row = {"question": "Q", "options": list("abcdefghij"), "answer": "J", "category": "law"}
        (item,) = loaded(tmp_path, "mmlu_pro", row | {"answer_index": 9})
        assert (item.right, len(item.choices), item.letters[-1]) == (9, 10, "J")
        with pytest.raises(DataError, match=r"line 1: .*answer_index 8"):
            loaded(tmp_path, "mmlu_pro", row | {"answer_index": 8})

    @pytest.mark.parametrize("task", ["arc", "openbookqa"])
    @pytest.mark.parametrize(("labels", "key"), [(["A", "B", "C"], "C"), (["1", "2", "3"], "3")])
    def test_labels_are_letters_or_digits(self, tmp_path: Path, task: str, labels: list[str], key: str) -> None:
        """ARC and OpenBookQA give texts beside labels on the hub, and options inside the question in the original."""
        hub = {
            "question" if task == "arc" else "question_stem": "Q",
            "choices": {"text": ["x", "y", "z"], "label": labels},
            "answerKey": key,
        }
        options = [{"text": text, "label": label} for text, label in zip("xyz", labels, strict=True)]
        original = {"question": {"stem": "Q", "choices": options}, "answerKey": key}
        for item in loaded(tmp_path, task, hub, original):
            assert (item.question, item.choices, item.right, item.labels) == ("Q", ["x", "y", "z"], 2, labels)

    def test_ifeval(self, tmp_path: Path) -> None:
        """Arguments that are null, as the hub pads them, are not given."""
        row = {"key": 1, "prompt": "P", "instruction_id_list": ["punctuation:no_comma", "keywords:frequency"]}
        kwargs = [
            {"keyword": None, "frequency": None},
            {"keyword": "fox", "frequency": 2, "relation": "at least", "language": None},
        ]
        (item,) = loaded(tmp_path, "ifeval", row | {"kwargs": kwargs})
        assert item.arguments == [{}, {"keyword": "fox", "frequency": 2, "relation": "at least"}]
        with pytest.raises(DataError, match="expected one for each of 2 instructions, got 1"):
            loaded(tmp_path, "ifeval", row | {"kwargs": [{}]})
        with pytest.raises(DataError, match=r"line 1: instruction keywords:frequency"):
            loaded(tmp_path, "ifeval", row | {"kwargs": [{}, {"keyword": "fox"}]})

    def test_infobench(self, tmp_path: Path) -> None:
        """The input, where there is one, stands below the instruction."""
        row = {"instruction": "Translate.", "decomposed_questions": ["Is it French?"], "subset": "Easy_set"}
        items = loaded(tmp_path, "infobench", row | {"input": "Good day."}, row | {"input": ""})
        assert [item.question for item in items] == ["Translate.\n\nGood day.", "Translate."]
        assert items[0].questions == ["Is it French?"]

    def test_mt_bench(self, tmp_path: Path) -> None:
        """The turns are called turns in the original and prompt on the hub."""
        items = loaded(tmp_path, "mt_bench", {"turns": ["a", "b"], "category": "math"}, {"prompt": ["a", "b"]})
        assert [(item.question, item.further) for item in items] == [("a", ["b"])] * 2

    def test_plain_prompts(self, tmp_path: Path) -> None:
        """A prompt may come with one reference, several, or none."""
        rows = [{"prompt": "P"}, {"prompt": "P", "reference": "R"}, {"prompt": "P", "references": ["R", "S"]}]
        assert [item.references for item in loaded(tmp_path, "open_ended", *rows)] == [[], ["R"], ["R", "S"]]

    @pytest.mark.parametrize(
        ("task", "row", "message"),
        [
            ("gsm8k", {"question": "Q", "answer": "no number"}, "expected a number after ####"),
            ("gsm8k", {"question": "Q"}, "the field answer is missing"),
            ("gsm8k", {"question": 5, "answer": "#### 1"}, "field question: expected a text, got a number"),
            (
                "mmlu",
                {"question": "Q", "choices": ["a", "b"], "answer": 2},
                "expected a right answer from 0 to 1, got 2",
            ),
            ("mmlu", {"question": "Q", "choices": ["a"], "answer": 0}, "expected 2 to 10 options, got 1"),
            (
                "arc",
                {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "E"},
                "got 'E'",
            ),
            ("arc", {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"}, "labels"),
            ("open_ended", {"prompt": "P", "references": "R"}, "field references: expected a list, got a text"),
            ("mt_bench", {"turns": ["a"]}, "expected two turns, got 1"),
        ],
    )
    def test_a_row_that_makes_no_sense_is_refused(self, tmp_path: Path, task: str, row: Any, message: str) -> None:
        """An unusable row is refused with file, line and reason."""
        good = {
            "gsm8k": {"question": "Q", "answer": "#### 1"},
            "mmlu": {"question": "Q", "choices": ["a", "b"], "answer": 1},
            "arc": {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
            "open_ended": {"prompt": "P"},
            "mt_bench": {"turns": ["a", "b"]},
        }[task]
        with pytest.raises(DataError, match=rf"{task}\.jsonl, line 2: ") as raised:
            loaded(tmp_path, task, good, row)
        assert message in str(raised.value)


class TestSources:
    def test_a_subject_and_a_limit(self, tmp_path: Path) -> None:
        """Only the items of a subject are kept, and of these the first ones; an unknown subject is refused."""
        path = tmp_path / "test.jsonl"
        rows = [{"question": f"{i}", "choices": ["a", "b"], "answer": 0, "subject": "ab"[i % 2]} for i in range(6)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = find_task("mmlu")
        assert [item.question for item in load(task, data=path, subject="b", limit=2)] == ["1", "3"]
        with pytest.raises(DataError, match="no subject 'c'; there are: a, b"):
            load(task, data=path, subject="c")

    def test_an_unknown_split_is_refused(self) -> None:
        """A split that a task does not have is refused, before anything is read."""
        with pytest.raises(DataError, match="gsm8k has no split 'dev'; there are: train, test"):
            load(find_task("gsm8k"), "dev")

    def test_an_unknown_task_is_refused(self) -> None:
        """A name that is none is refused with the names there are."""
        with pytest.raises(ValueError, match="no task 'gsm9k'; there are: math, multiple_choice"):
            find_task("gsm9k")

    def test_the_hub_is_asked_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a path, rows come from the hub by name, configuration and split."""
        asked = []

        def load_dataset(*args: Any, **options: Any) -> list[dict[str, str]]:
            asked.append((args, options))
            return [{"question": "Q", "answer": "#### 1"}]

        monkeypatch.setattr(reading, "load_dataset", load_dataset)
        monkeypatch.setattr(reading, "_hub_answers", lambda: True)
        assert [item.answer for item in load(find_task("gsm8k"))] == ["1"]
        assert asked == [(("openai/gsm8k", "main"), {"split": "test"})]

    def test_a_hub_out_of_reach_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where neither the hub nor the cache has a set, the error names the way out."""

        def load_dataset(*args: Any, **options: Any) -> None:
            raise ConnectionError("Couldn't reach the Hub")

        monkeypatch.setattr(reading, "load_dataset", load_dataset)
        monkeypatch.setattr(reading, "_hub_answers", lambda: True)
        with pytest.raises(DataError, match=r"openai/gsm8k, split test: .*give a copy with --data PATH"):
            load(find_task("gsm8k"))


class TestShots:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A folder with a train and a test split."""
        for split, count in (("train", 4), ("test", 2)):
            rows = [{"question": f"{split} {i}", "answer": f"#### {i}"} for i in range(count)]
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    def test_examples_come_from_the_train_split(self, folder: Path) -> None:
        """The first examples of the train split stand in the prompt."""
        task = find_task("gsm8k")
        pool = load_shots(task, "test", folder)
        shots = shots_for(task, pool[0], pool, 2)
        assert [shot.question for shot in shots] == ["train 0", "train 1"]
        with pytest.raises(DataError, match="5 examples were asked for, there are 4"):
            shots_for(task, pool[0], pool, 5)

    @pytest.mark.parametrize(("evaluated", "shots"), [("test", "test"), ("train", "train"), ("train", "test")])
    def test_the_evaluated_split_and_test_splits_are_refused(self, folder: Path, evaluated: str, shots: str) -> None:
        """Examples never come from the split that is evaluated, nor from a test split."""
        with pytest.raises(DataError, match="come from a train or dev split"):
            load_shots(find_task("gsm8k"), evaluated, folder, shots)

    def test_the_evaluated_file_is_refused(self, folder: Path) -> None:
        """Examples do not come from the evaluated file under another name either."""
        file = folder / "test.jsonl"
        (folder / "link.jsonl").symlink_to(file)
        for shots in (None, file, folder / "link.jsonl"):
            with pytest.raises(DataError, match="must not come from the file that is evaluated"):
                load_shots(find_task("gsm8k"), "test", file, shots_data=shots)

    def test_a_task_without_a_train_split_says_so(self) -> None:
        """MATH-500 has a test split only."""
        with pytest.raises(DataError, match="math500 has no train or dev split"):
            load_shots(find_task("math500"), "test", None)

    def test_examples_of_mmlu_are_of_the_same_subject(self, tmp_path: Path) -> None:
        """The five examples of a question of MMLU are those of its subject."""
        path = tmp_path / "dev.jsonl"
        rows = [{"question": f"{i}", "choices": ["a", "b"], "answer": 0, "subject": "ab"[i % 2]} for i in range(4)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = find_task("mmlu")
        pool = load(task, "dev", path)
        assert [shot.question for shot in shots_for(task, pool[1], pool, 2)] == ["1", "3"]
        with pytest.raises(DataError, match="3 examples of b were asked for, there are 2"):
            shots_for(task, pool[1], pool, 3)


REAL = [
    ("gsm8k", "gsm8k", "test", 1319),
    ("gsm8k", "gsm8k", "train", 7473),
    ("math500", "math500", "test", 500),
    ("svamp", "svamp", "test", 1000),
    ("mmlu", "mmlu", "dev", 285),
    ("arc", "arc_challenge", "test", 1172),
    ("openbookqa", "openbookqa", "test", 500),
    ("infobench", "infobench", "train", 500),
    ("ifeval", "ifeval", "train", 541),
    ("mt_bench", "mt_bench", "train", 80),
]


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are not here")
class TestRealFiles:
    @pytest.mark.parametrize(("name", "folder", "split", "count"), REAL)
    def test_every_row_of_the_public_sets_loads(self, name: str, folder: str, split: str, count: int) -> None:
        """Every row of a public set becomes an item that can be asked in every way the task knows."""
        task = TASKS[name]
        items = load(task, split, DATA / folder)
        assert len(items) == count
        assert all(len(task.questions(item, style)) == task.turns for item in items for style in task.styles)

    def test_the_gold_answers_score_as_right(self) -> None:
        """A model that answers with the worked solutions of GSM8K is always right."""
        from shared_tasks.tasks.task import Output

        task = TASKS["gsm8k"]
        items = load(task, "test", DATA / "gsm8k")
        assert all(task.score(item, [Output(item.solution)]).score == 1 for item in items)

    @pytest.mark.slow
    def test_mmlu_has_57_subjects(self) -> None:
        """The 57 files of MMLU's test split give 14,042 questions of as many subjects."""
        items = load(TASKS["mmlu"], "test", DATA / "mmlu")
        assert (len(items), len({item.group for item in items})) == (14042, 57)
        assert {len(item.choices) for item in items} == {4}
