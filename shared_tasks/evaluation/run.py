"""A run's folder: what was run (run.json), its samples (samples.jsonl) and the model's answers (answers.jsonl)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import msgspec

from shared_tasks.evaluation.answers import Answers
from shared_tasks.evaluation.evaluate import Sample, Tokens, evaluate
from shared_tasks.evaluation.judge import judge_outputs
from shared_tasks.evaluation.plan import Plan
from shared_tasks.evaluation.report import by_group, latency_of, summarise, tokens_of
from shared_tasks.metrics.judging import Judge
from shared_tasks.models.engine import Engine, SamplingParams, Usage
from shared_tasks.tasks.open_ended import Instruction, OpenEnded
from shared_tasks.tasks.reading import DataError
from shared_tasks.tasks.task import Item, Metric, Task


class Run(msgspec.Struct, kw_only=True):
    """What was run, and what came out."""

    task: str
    split: str
    data: str | None = None
    """The file or folder, where it was not the task's own."""
    subject: str | None = None
    model: str
    engine: str
    fingerprint: str
    method: str
    style: str
    chat: bool
    shots: int
    params: SamplingParams
    token_budget: int | None = None
    """Tokens for each question."""
    judge: str | None = None
    items: int
    """Asked for; an interrupted run has fewer samples."""
    done: int = 0
    headline: str | None = None
    """Which of the metrics is the mean score; None where only a judge could score."""
    metrics: dict[str, Metric] = {}
    groups: dict[str, Metric] = {}
    """The mean score of each subject or category, where there are several."""
    notes: list[str] = []
    tokens: Tokens = msgspec.field(default_factory=lambda: Tokens(0, 0, 0))
    """Of all samples, whenever they were generated."""
    tokens_per_question: float = 0.0
    """Of prompts and generated together, the mean over samples."""
    exceeded: int = 0
    """Questions that are unanswered because their token budget was too small."""
    usage: Usage = msgspec.field(default_factory=Usage)
    """Of the engine in the last session; stored answers cost it nothing."""
    latency: float | None = None
    """The median over items, in seconds."""


def run_task(
    run: Run,
    task: Task[Item],
    items: Sequence[Item],
    examples: Sequence[Item],
    engine: Engine,
    plan: Plan,
    folder: Path,
    on_sample: Callable[[Sample], None],
    judge: Judge | None = None,
) -> tuple[Run, list[Sample]]:
    """Run a task in a folder, and return the run with its metrics and its samples.

    However it ends, by an interrupt or an error too, what there is stands in the folder, and the same call goes on.
    """
    samples: list[Sample] = []

    def keep(sample: Sample) -> None:
        samples.append(sample)
        on_sample(sample)

    try:
        with Answers(folder / "answers.jsonl") as answers:
            evaluate(task, items, engine, plan, answers, keep, examples)
        samples.sort(key=lambda sample: sample.index)
        if judge is not None and isinstance(task, OpenEnded):
            judge_outputs(
                judge, task, cast(Sequence[Instruction], items), [sample.outputs for sample in samples], samples
            )
    finally:
        samples.sort(key=lambda sample: sample.index)
        run = _with_results(run, task, items, samples, plan, engine.usage)
        write_run(folder, run, samples)
    return run, samples


def _with_results(
    run: Run, task: Task[Item], items: Sequence[Item], samples: Sequence[Sample], plan: Plan, usage: Usage
) -> Run:
    outputs = [sample.outputs for sample in samples]
    metrics = summarise(task, [items[sample.index] for sample in samples], outputs, samples)
    return msgspec.structs.replace(
        run,
        done=len(samples),
        metrics=metrics,
        headline=plan.selects
        or next((name for name in metrics if any(sample.score is not None for sample in samples)), None),
        groups=by_group(samples),
        tokens=(tokens := tokens_of(samples)),
        tokens_per_question=(tokens.prompt + tokens.generated) / len(samples) if samples else 0.0,
        exceeded=sum(bool(sample.exceeded) for sample in samples),
        latency=latency_of(samples),
        usage=usage,
    )


def write_run(folder: Path, run: Run, samples: Sequence[Sample]) -> None:
    """Write a run into its folder."""
    write_samples(folder / "samples.jsonl", samples)
    _replace(folder / "run.json", msgspec.json.format(msgspec.json.encode(run)))


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """Write samples, a JSON line an item."""
    _replace(path, b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    new.replace(path)


def read_run(folder: Path) -> tuple[Run, list[Sample]]:
    """Read a run from its folder; raises DataError when there is none."""
    try:
        run = msgspec.json.decode((folder / "run.json").read_bytes(), type=Run)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder}: expected the folder of a run, with its run.json; `evaluate … --out` makes one"
        ) from None
    except msgspec.DecodeError as error:
        raise DataError(f"{folder / 'run.json'}: not a run ({error})") from None
    samples = []
    with (folder / "samples.jsonl").open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                samples.append(msgspec.json.decode(line, type=Sample))
            except msgspec.DecodeError as error:
                raise DataError(f"{folder / 'samples.jsonl'}, line {number}: not a sample ({error})") from None
    return run, samples
