"""All tasks by name."""

from typing import Any

from shared_tasks.tasks.mathematical_reasoning import GSM8KRow, MathematicalReasoning, MATHRow, SVAMPRow
from shared_tasks.tasks.multiple_choice import (
    ARCRow,
    MMLUProRow,
    MMLURow,
    MMLUTableRow,
    MultipleChoice,
    OpenBookQARow,
    StemRow,
)
from shared_tasks.tasks.open_ended import IFEvalRow, InfoBenchRow, MTBenchHubRow, MTBenchRow, OpenEnded, PromptRow
from shared_tasks.tasks.task import DataSet, Task

EMBEDDED_SPLITS = ("train", "dev", "dev_test")
MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")

TASKS: dict[str, Task[Any]] = {
    task.name: task
    for task in (
        MathematicalReasoning(
            "math",
            "word problems of the kit's own, one to six steps",
            DataSet((GSM8KRow,), split="dev", splits=EMBEDDED_SPLITS, shots="train"),
            max_tokens=256,
        ),
        MultipleChoice(
            "multiple_choice",
            "questions of the kit's own, with 3 to 5 options",
            DataSet((MMLURow,), split="dev", splits=EMBEDDED_SPLITS, shots="train"),
            max_tokens=256,
        ),
        OpenEnded(
            "open_ended",
            "writing under constraints, of the kit's own; with --data also plain prompts and references",
            DataSet((IFEvalRow, PromptRow), split="dev", splits=EMBEDDED_SPLITS, shots="train"),
            max_tokens=256,
        ),
        MathematicalReasoning(
            "gsm8k",
            "grade school word problems (Cobbe et al., 2021)",
            DataSet(
                (GSM8KRow,),
                split="test",
                splits=("train", "test"),
                shots="train",
                hub="openai/gsm8k",
                configuration="main",
            ),
        ),
        MathematicalReasoning(
            "math500",
            "500 competition problems (Hendrycks et al., 2021; Lightman et al., 2023)",
            DataSet((MATHRow,), split="test", splits=("test",), hub="HuggingFaceH4/MATH-500"),
            max_tokens=2048,
            expressions=True,
        ),
        MathematicalReasoning(
            "svamp",
            "varied simple word problems (Patel et al., 2021)",
            DataSet(
                (SVAMPRow,), split="test", splits=("train", "test"), shots="train", hub="ChilleD/SVAMP", stem="SVAMP"
            ),
        ),
        MultipleChoice(
            "mmlu",
            "57 subjects, from school to profession (Hendrycks et al., 2021)",
            DataSet(
                (MMLURow, MMLUTableRow),
                split="test",
                splits=("auxiliary_train", "dev", "validation", "test"),
                shots="dev",
                shots_by_group=True,
                hub="cais/mmlu",
                configuration="all",
                columns=MMLU_COLUMNS,
            ),
        ),
        MultipleChoice(
            "mmlu_pro",
            "harder, with up to ten options (Wang et al., 2024)",
            DataSet(
                (MMLUProRow,),
                split="test",
                splits=("validation", "test"),
                shots="validation",
                shots_by_group=True,
                hub="TIGER-Lab/MMLU-Pro",
            ),
            max_tokens=1024,
        ),
        MultipleChoice(
            "arc",
            "grade school science, the challenge set (Clark et al., 2018)",
            DataSet(
                (ARCRow, StemRow),
                split="test",
                splits=("train", "validation", "test"),
                shots="train",
                hub="allenai/ai2_arc",
                configuration="ARC-Challenge",
            ),
        ),
        MultipleChoice(
            "openbookqa",
            "elementary science with common knowledge (Mihaylov et al., 2018)",
            DataSet(
                (OpenBookQARow, StemRow),
                split="test",
                splits=("train", "validation", "test"),
                shots="train",
                hub="allenai/openbookqa",
                configuration="main",
            ),
        ),
        OpenEnded(
            "infobench",
            "instructions with decomposed questions for a judge (Qin et al., 2024)",
            DataSet((InfoBenchRow,), split="train", splits=("train",), hub="kqsong/InFoBench", stem="infobench"),
            max_tokens=1024,
            judged="questions",
        ),
        OpenEnded(
            "ifeval",
            "25 kinds of verifiable instructions (Zhou et al., 2023)",
            DataSet((IFEvalRow,), split="train", splits=("train",), hub="google/IFEval", stem="input_data"),
            max_tokens=1280,
        ),
        OpenEnded(
            "mt_bench",
            "conversations of two turns for a judge (Zheng et al., 2023)",
            DataSet(
                (MTBenchRow, MTBenchHubRow),
                split="train",
                splits=("train",),
                hub="HuggingFaceH4/mt_bench_prompts",
                stem="question",
            ),
            max_tokens=1024,
            turns=2,
            judged="ratings",
        ),
    )
}


def find_task(name: str) -> Task[Any]:
    """Return a task by name; raises ValueError, with the names there are, for another one."""
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are: {', '.join(TASKS)}")
    return TASKS[name]
