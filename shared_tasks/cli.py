"""The `shared-tasks` command."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from shared_tasks.evaluation.compare import compare as compare_samples
from shared_tasks.evaluation.evaluate import Sample
from shared_tasks.evaluation.methods import METHODS
from shared_tasks.evaluation.page import page
from shared_tasks.evaluation.plan import LOGLIKELIHOOD, make_plan
from shared_tasks.evaluation.predictions import score_file
from shared_tasks.evaluation.report import flat
from shared_tasks.evaluation.run import Run, read_run, run_task, write_samples
from shared_tasks.metrics.judging import Judge
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.tasks.loading import load, load_shots
from shared_tasks.tasks.open_ended import OpenEnded
from shared_tasks.tasks.registry import TASKS, find_task
from shared_tasks.tasks.task import Metric, Task

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Models and tasks that the homeworks share.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JudgeModel = Annotated[str | None, typer.Option(help="The model that judges infobench and mt_bench.")]
JudgeEngine = Annotated[str, typer.Option(help="What runs the judge.")]
JudgeServer = Annotated[str | None, typer.Option(help="The judge's server.")]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run, as evaluate's --out made it.")]
INTERRUPTED = 130


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line and exit code 2 for what is wrong with its input."""
    try:
        yield
    except (OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None


def models_registry() -> ModuleType:
    """Import what runs models: it takes seconds, which only the commands that need it wait for."""
    from transformers.utils import logging

    from shared_tasks.models import registry

    logging.disable_progress_bar()  # transformers shows one for every file of weights
    return registry


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that ship with the kit."""
    registry = models_registry()
    rows = [
        json.loads((registry.WEIGHTS / name / "training.json").read_text()) | {"name": name}
        for name in registry.course_models()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    table = Table("model", "parameters", "window", "held-out perplexity")
    for row in rows:
        table.add_row(
            row["name"], f"{row['parameters']:,}", f"{row['window']} tokens", f"{row['held_out_perplexity']:.3f}"
        )
    Console().print(table)


@app.command()
def logprobs(
    text: Annotated[str, typer.Argument(help="The text to score.")],
    model: Annotated[str, typer.Option(help="A course model, a local folder, or a name on the hub.")] = "course-small",
    as_json: AsJson = False,
) -> None:
    """Print the log-probability that a model gives to each token of a text, and the text's perplexity."""
    with one_line_errors():
        loaded = models_registry().load_model(model)
        tokens = loaded.encode(text)
        if not tokens:
            raise ValueError("expected a text of at least one token, got an empty one")
        (scores,) = loaded.continuation_logprobs([[]], [tokens])
    pieces = [loaded.decode([token]) for token in tokens]
    total, perplexity = float(scores.sum()), math.exp(-float(scores.mean()))
    if as_json:
        rows = [{"token": piece, "logprob": score} for piece, score in zip(pieces, scores.tolist(), strict=True)]
        print(json.dumps({"model": model, "logprob": total, "perplexity": perplexity, "tokens": rows}))
        return
    table = Table("token", "log P", "P")
    for piece, score in zip(pieces, scores.tolist(), strict=True):
        table.add_row(repr(piece).replace("[", r"\["), f"{score:.3f}", f"{math.exp(score):.3f}")
    Console().print(table)
    print(f"log P = {total:.3f}, perplexity {perplexity:.3f} per token")


@app.command("list")
def list_tasks(as_json: AsJson = False) -> None:
    """List the tasks: where their data is from, their splits, and how they can be asked."""
    rows = [
        {
            "name": task.name,
            "about": task.about,
            "data": task.data.hub or "ships with the kit",
            "splits": task.data.splits,
            "split": task.data.split,
            "prompts": task.styles,
        }
        for task in TASKS.values()
    ]
    methods = {name: method.about for name, method in METHODS.items()} | {
        LOGLIKELIHOOD: "the most likely option; what multiple choice does unless told otherwise"
    }
    if as_json:
        print(json.dumps({"tasks": rows, "methods": methods}))
        return
    table = Table.grid(padding=(0, 2))
    for task in TASKS.values():
        splits = ", ".join(f"[bold]{split}[/]" if split == task.data.split else split for split in task.data.splits)
        source = task.data.hub or "ships with the kit"
        table.add_row(task.name, f"{escape(task.about)}\n[dim]{source}; {splits}; {', '.join(task.styles)}[/]")
    table.add_row("", "")
    for name, about in methods.items():
        table.add_row(name, about)
    console = Console(highlight=False)
    console.print(table)
    console.print("\nUnder a task: its data, its splits, the usual one in bold, and its prompts. Below: methods.")


@app.command()
def evaluate(
    task: Annotated[str, typer.Argument(help="One of the names that `list` shows.")],
    model: Annotated[str, typer.Option(help="A course model, a local folder, or a name on the hub.")] = "course-small",
    engine: Annotated[
        str, typer.Option(help="What runs the model: transformers, vllm, or endpoint for a server.")
    ] = "transformers",
    base_url: Annotated[str | None, typer.Option(help="The server, like http://localhost:8000/v1.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="The tokenizer of the server's model, to score chats.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sequences, or requests, at a time.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split; the task's own by default.")] = None,
    data: Annotated[Path | None, typer.Option(help="A local file, or folder with files named after splits.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only the items of a subject or category.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first items.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="How to decode: greedy, sample, majority, best_of_n, loglikelihood; PACKAGE.MODULE:NAME of your own; "
            "or a prompt, for short."
        ),
    ] = None,
    token_budget: Annotated[
        int | None, typer.Option(min=1, help="Tokens for each question; one that needs more is unanswered.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="How to ask: cot, direct or letter.")] = None,
    n: Annotated[int | None, typer.Option(min=1, help="Samples of each prompt.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0.7 where a method samples.")] = None,
    top_p: Annotated[float, typer.Option(help="Sample from the fewest tokens of this probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Sample from so many tokens; 0 for all.")] = 0,
    min_p: Annotated[float, typer.Option(help="Sample from tokens this probable, against the first.")] = 0.0,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of one output; enough for the task by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the samples: the same seed draws the same.")] = 0,
    shots: Annotated[int, typer.Option(min=0, help="Worked examples in the prompt.")] = 0,
    shots_split: Annotated[str | None, typer.Option(help="Where they come from: a train or dev split.")] = None,
    shots_data: Annotated[Path | None, typer.Option(help="Or a file or folder.")] = None,
    chat: Annotated[
        bool | None, typer.Option(help="Prompts as chats, in the model's template; by default where it has one.")
    ] = None,
    judge: JudgeModel = None,
    judge_engine: JudgeEngine = "transformers",
    judge_base_url: JudgeServer = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; the same command goes on where it was.")] = None,
    samples: Annotated[Path | None, typer.Option(help="Also write the samples here, a JSON line an item.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a task on a model and score it; what is there already is not run again."""
    with one_line_errors():
        chosen = find_task(task)
        evaluated = split or chosen.data.split
        plan = make_plan(
            chosen,
            method,
            prompt,
            n,
            temperature,
            max_tokens,
            shots,
            token_budget,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            seed=seed,
        )
        examples = load_shots(chosen, evaluated, data, shots_split, shots_data) if shots else []
        items = load(chosen, evaluated, data, subject, limit)
        registry = models_registry()
        loaded = registry.load_engine(model, engine, base_url, tokenizer, batch_size)
        if chat is False or (chat is None and not loaded.has_chat_template):
            plan = plan.as_plain_text()
        folder = out or Path("runs") / "-".join([task, Path(model).name, plan.style, plan.method.replace(":", ".")])
        run = Run(
            task=task,
            split=evaluated,
            data=None if data is None else str(data),
            subject=subject,
            model=model,
            engine=engine,
            fingerprint=loaded.fingerprint(),
            method=plan.method,
            style=plan.style,
            chat=plan.chat,
            shots=shots,
            params=plan.params,
            token_budget=plan.token_budget,
            judge=judge,
            items=len(items),
            notes=missing_judge(chosen, judge),
        )
        folder.mkdir(parents=True, exist_ok=True)
        judging = load_judge(chosen, judge, judge_engine, judge_base_url, folder / "verdicts.sqlite")
        try:
            with progress(task, len(items)) as on_sample:
                run, scored = run_task(run, chosen, items, examples, loaded, plan, folder, on_sample, judging)
        except KeyboardInterrupt:
            done = read_run(folder)[0].done
            print(
                f"interrupted: {done} of {len(items)} items are kept in {folder}; the same command goes on from there",
                file=sys.stderr,
            )
            raise typer.Exit(INTERRUPTED) from None
        if samples is not None:
            write_samples(samples, scored)
    if as_json:
        about = msgspec.to_builtins(run) | {"metrics": flat(run.metrics), "groups": flat(run.groups)}
        print(json.dumps(about | {"out": str(folder)}))
        return
    show_metrics(run.metrics, run.groups)
    for line in [*run.notes, *costs(run)]:
        print(line)
    print(f"{folder}: samples.jsonl holds every item; `shared-tasks view {folder}` makes a page of it")


def load_judge(
    task: Task[Any], model: str | None, engine: str, base_url: str | None, verdicts: Path | None
) -> Judge | None:
    """Load the judge of a task, with the file that keeps its replies; None where none is named.

    Raises ValueError for a task that is scored without one.
    """
    if model is None:
        return None
    if not (isinstance(task, OpenEnded) and task.judged):
        judged = [name for name, one in TASKS.items() if isinstance(one, OpenEnded) and one.judged]
        raise ValueError(f"{task.name} is scored without a judge; --judge is for {', '.join(judged)}")
    loaded = models_registry().load_engine(model, engine, base_url)
    return Judge(loaded, verdicts, chat=loaded.has_chat_template)


def missing_judge(task: Task[Any], judge: str | None) -> list[str]:
    """Say what a task lacks that needs a judge and has none."""
    if isinstance(task, OpenEnded) and task.judged and judge is None:
        return [f"No judge was given: {task.name} is scored by one (--judge MODEL). Lengths and diversity only."]
    return []


@contextmanager
def progress(task: str, items: int) -> Iterator[Callable[[Sample], None]]:
    """Show on stderr how far a run is and its mean score so far: a bar on a terminal, else a line every tenth."""
    console = Console(stderr=True)
    scores: list[float] = []
    done = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        row = bar.add_task(task, total=items)

        def on_sample(sample: Sample) -> None:
            nonlocal done
            done += 1
            if sample.score is not None:
                scores.append(sample.score)
            so_far = f"{task} {100 * mean(scores):.1f} ± {100 * standard_error(scores):.1f} %" if scores else task
            bar.update(row, advance=1, description=so_far)
            if not console.is_terminal and (done == items or done * 10 // items > (done - 1) * 10 // items):
                print(f"{done} of {items}: {so_far}", file=sys.stderr)

        yield on_sample


def show_metrics(metrics: dict[str, Metric], groups: dict[str, Metric]) -> None:
    """Print metrics as a table, and the means of groups as another."""
    for title, part in (("metric", metrics), ("group", groups)):
        if part:
            table = Table(title, "value", "±", "items", "")
            for name, metric in part.items():
                error = "" if metric.standard_error is None else f"{metric.standard_error:.4f}"
                table.add_row(escape(name), f"{metric.value:.4f}", error, str(metric.n), escape(metric.note))
            Console().print(table)


def costs(run: Run) -> list[str]:
    """Say what a run cost."""
    tokens, usage = run.tokens, run.usage
    positions = f", {tokens.forward_positions:,} positions through the model" if tokens.forward_positions else ""
    lines = [f"{tokens.prompt:,} prompt tokens, {tokens.generated:,} generated{positions}"]
    if run.done:
        limit = "" if run.token_budget is None else f" of at most {run.token_budget:,}"
        lines[0] += f"; {run.tokens_per_question:,.1f}{limit} a question"
    if run.exceeded:
        lines.append(f"{run.exceeded} of {run.done} questions are unanswered: their token budget was too small")
    if run.latency is not None:
        lines.append(f"latency {run.latency:.2f} s an item (median)")
    if usage.requests:
        rate = f", {usage.throughput:,.0f} generated tokens a second" if usage.generated_tokens else ""
        lines.append(f"this time {usage.requests} requests in {usage.seconds:.1f} s{rate}")
    elif not run.exceeded:
        lines.append("everything was there already; nothing ran")
    return lines


@app.command()
def score(
    task: Annotated[str, typer.Argument(help="One of the names that `list` shows.")],
    predictions: Annotated[
        Path, typer.Argument(help="The data set's fields and `output` or `outputs`, a line an item.")
    ],
    judge: JudgeModel = None,
    judge_engine: JudgeEngine = "transformers",
    judge_base_url: JudgeServer = None,
    as_json: AsJson = False,
) -> None:
    """Score outputs that exist already."""
    with one_line_errors():
        chosen = find_task(task)
        metrics, rows = score_file(
            chosen, predictions, load_judge(chosen, judge, judge_engine, judge_base_url, verdicts=None)
        )
    if as_json:
        print(json.dumps({"metrics": flat(metrics), "rows": msgspec.to_builtins(rows)}))
        return
    show_metrics(metrics, {})
    for note in missing_judge(chosen, judge):
        print(note)


@app.command()
def compare(
    first: RunFolder,
    second: RunFolder,
    metric: Annotated[
        list[str] | None, typer.Option(help="What to compare instead of the score; given twice, one for each run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two runs item by item: the difference, its 95 % interval, and how likely it is by chance."""
    with one_line_errors():
        names = metric or ["score"]
        if len(names) > 2:
            raise ValueError(f"expected one metric for both runs or one for each, got {len(names)}")
        (one, first_samples), (other, second_samples) = read_run(first), read_run(second)
        if (one.task, one.split) != (other.task, other.split):
            raise ValueError(f"{first} ran {one.task} {one.split}, {second} {other.task} {other.split}")
        result = compare_samples(first_samples, second_samples, (names[0], names[-1]))
    if as_json:
        print(json.dumps(msgspec.to_builtins(result)))
        return
    paired = result.paired
    table = Table("", "value", "items right", "tokens a question")
    table.add_row(
        escape(f"{first} ({result.metric[0]})"),
        f"{result.first:.4f}",
        f"{result.both_right + result.only_first}",
        f"{result.tokens[0]:,.1f}",
    )
    table.add_row(
        escape(f"{second} ({result.metric[1]})"),
        f"{result.second:.4f}",
        f"{result.both_right + result.only_second}",
        f"{result.tokens[1]:,.1f}",
    )
    Console().print(table)
    print(f"{result.items} items: {result.both_right} right in both, {result.only_first} only in the first, ", end="")
    print(f"{result.only_second} only in the second, {result.both_wrong} in neither")
    print(f"difference {paired.difference:+.4f} ± {paired.standard_error:.4f}", end="")
    print(
        f", 95 % interval {paired.low:+.4f} to {paired.high:+.4f}, p = {paired.p_value:.4g} (paired permutation test)"
    )


@app.command()
def view(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; report.html in the run's folder by default.")
    ] = None,
) -> None:
    """Write one HTML page about a run: metrics, calibration, lengths, and every sample."""
    with one_line_errors():
        file = out or run / "report.html"
        file.write_text(page(*read_run(run)), "utf-8")
    print(file)


if __name__ == "__main__":
    sys.exit(app())
