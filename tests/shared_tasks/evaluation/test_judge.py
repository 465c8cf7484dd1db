"""A model as the judge: what it is asked, and what its verdicts are worth."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared_tasks.evaluation.plan import make_plan
from shared_tasks.evaluation.predictions import score_file
from shared_tasks.evaluation.report import by_group
from shared_tasks.evaluation.run import Run, read_run, run_task
from shared_tasks.metrics.judging import Judge
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.registry import find_task
from tests.shared_tasks.evaluation.scripted import ScriptedEngine

INFOBENCH = [
    {"instruction": "Write a haiku.", "decomposed_questions": ["A haiku?", "Three lines?"], "subset": "Easy_set"},
    {"instruction": "Write a joke.", "decomposed_questions": ["Is it funny?"], "subset": "Hard_set"},
]
MT_BENCH = [{"turns": ["What is 1+1?", "And 2+2?"], "reference": ["It is 2.", "It is 4."]}]


def judged_run(folder: Path, task_name: str, rows: list[Any], judge: ScriptedEngine, model: ScriptedEngine) -> Run:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = find_task(task_name)
    items, plan = load(task, data=path), make_plan(task)
    run = Run(
        **{"task": task_name, "split": "train", "model": "m", "engine": "scripted", "fingerprint": "f"},
        **{"method": plan.method, "style": plan.style, "chat": True, "shots": 0, "params": plan.params, "items": 2},
    )
    return run_task(run, task, items, [], model, plan, folder, lambda sample: None, Judge(judge, folder / "v.sqlite"))[
        0
    ]


def verdict(prompt: str, sample: int) -> str:
    """Say yes to lines, no to haikus, and nothing clear about jokes."""
    return "YES" if "Three lines?" in prompt else "NO" if "A haiku?" in prompt else "Not sure"


def test_decomposed_questions_are_asked_one_by_one(tmp_path: Path) -> None:
    """One of two requirements followed, one verdict unread: DRFR is 1/2, and the unread one counts neither way."""
    judge = ScriptedEngine(verdict)
    run = judged_run(tmp_path, "infobench", INFOBENCH, judge, ScriptedEngine(lambda text, sample: f"On: {text}"))
    assert len(judge.prompts) == 3
    assert run.metrics["drfr"].value == 0.5
    assert (run.headline, run.metrics["requirements_followed"].value) == ("requirements_followed", 0.5)
    assert run.metrics["unparsed_verdicts"].value == 0.5
    _, samples = read_run(tmp_path)
    assert [sample.score for sample in samples] == [0.5, None]
    assert samples[0].details["verdicts"] == [[False, True]]
    assert list(by_group(samples)) == []


def test_every_turn_is_rated_in_its_conversation(tmp_path: Path) -> None:
    """The second turn is rated with what was said before it, and with its own reference."""
    judge = ScriptedEngine(lambda prompt, sample: "[[8]]" if "And 2+2?" in prompt else "[[5]]")
    run = judged_run(tmp_path, "mt_bench", MT_BENCH, judge, ScriptedEngine(lambda text, sample: f"I say {text}"))
    first, second = (str(prompt) for prompt in judge.prompts)
    assert "It is 2." in first
    assert "And 2+2?" not in first
    assert all(part in second for part in ("What is 1+1?", "I say What is 1+1?", "And 2+2?", "It is 4."))
    assert "It is 2." not in second
    assert (run.metrics["rating"].value, run.metrics["rating_turn_2"].value) == (6.5, 8)
    assert not run.metrics["rating"].share


def test_verdicts_are_kept(tmp_path: Path) -> None:
    """A run that goes on asks the judge nothing again."""
    model = ScriptedEngine(lambda text, sample: "a text")
    judged_run(tmp_path, "infobench", INFOBENCH, ScriptedEngine(verdict), model)
    judge = ScriptedEngine(verdict)
    run = judged_run(tmp_path, "infobench", INFOBENCH, judge, model)
    assert (len(judge.prompts), run.metrics["drfr"].value) == (0, 0.5)


def test_an_interrupted_judge_leaves_the_outputs(tmp_path: Path) -> None:
    """What was generated is kept when the judge is interrupted, and the verdicts that it gave."""
    model = ScriptedEngine(lambda text, sample: "a text")
    with pytest.raises(KeyboardInterrupt):
        judged_run(tmp_path, "infobench", INFOBENCH, ScriptedEngine(verdict, stop_after=1), model)
    run, samples = read_run(tmp_path)
    assert (run.done, [sample.outputs for sample in samples]) == (2, [["a text"]] * 2)
    judge = ScriptedEngine(verdict)
    judged_run(tmp_path, "infobench", INFOBENCH, judge, model)
    assert (len(judge.prompts), len(model.prompts)) == (2, 2)


def test_existing_outputs_are_judged_too(tmp_path: Path) -> None:
    """A file of outputs is judged as a run is."""
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row | {"output": "a text"}) + "\n" for row in INFOBENCH))
    metrics, rows = score_file(find_task("infobench"), path, Judge(ScriptedEngine(verdict)))
    assert metrics["drfr"].value == 0.5
    assert [row.score for row in rows] == [0.5, None]
