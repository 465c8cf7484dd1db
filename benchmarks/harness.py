"""This package beside lm-evaluation-harness: `python -m benchmarks.harness` (or `--help`).

Both run the same model on the same prompts of the embedded sets, turn by turn in one run: log-likelihoods of the
options of multiple-choice questions, and greedy answers to mathematical problems. The outcomes must agree:
log-likelihoods within 1e-4, texts and accuracies exactly. The time is that of an evaluation with model and items
loaded: tokenising, running the model, scoring. The harness lives in an environment of its own, which the first run
installs.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import torch
import typer
from rich.console import Console
from rich.table import Table

from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.folders import WEIGHTS
from shared_tasks.models.transformers_engine import TransformersEngine
from shared_tasks.tasks.prompts import math_prompt, multiple_choice_prompt

ROOT = Path(__file__).parents[1]
DATA = ROOT / "shared_tasks" / "tasks" / "data"
ENVIRONMENT = ROOT / "runs" / "harness-venv"
WORKER = Path(__file__).with_name("harness_worker.py")
LOG = ROOT / "runs" / "harness.log"
HARNESS = "lm_eval[hf]==0.4.13"
TOLERANCE = 1e-4  # nats
MAX_TOKENS = 192
NUMBER = r"#### (-?[0-9]+)"

SHARED = """\
dataset_path: json
test_split: train
doc_to_text: prompt
doc_to_target: answer
target_delimiter: ""
"""
DESCRIPTIONS = {
    "multiple_choice": f"""{SHARED}
output_type: multiple_choice
doc_to_choice: choices
metric_list: [{{metric: acc}}]
""",
    "generation": f"""{SHARED}
output_type: generate_until
generation_kwargs: {{do_sample: false, max_gen_toks: {MAX_TOKENS}, until: ["<|endoftext|>"]}}
filter_list:
- {{name: number, filter: [{{function: regex, regex_pattern: '{NUMBER}'}}, {{function: take_first}}]}}
metric_list: [{{metric: exact_match}}]
""",
}


class Item(msgspec.Struct):
    """A prompt, with what the harness needs to score it."""

    prompt: str
    answer: int | str
    choices: list[str] = []


class Run(msgspec.Struct):
    """One evaluation: how long it took and what came out."""

    seconds: float
    accuracy: float
    logprobs: list[list[float]] = []  # of each choice of each item
    texts: list[str] = []


app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    model: str = "course-small", items: int = 200, rounds: int = 5, batch_size: str = "64", threads: int = 0
) -> None:
    """Run both and print the table; exit with an error where they disagree.

    BATCH_SIZE is the harness's (a number or auto); THREADS is what either may use, 0 for all cores.
    """
    _install()
    threads = threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    folder = str(WEIGHTS / model) if (WEIGHTS / model).is_dir() else model
    engine = TransformersEngine(folder, device="cpu", dtype=torch.float32)
    tasks = {"multiple_choice": _multiple_choice(engine, items), "generation": _generation(engine, items)}
    ours: dict[str, list[Run]] = {task: [] for task in tasks}
    theirs: dict[str, list[Run]] = {task: [] for task in tasks}
    with _harness(tasks, folder, batch_size, threads) as run_harness:
        for task in tasks:
            for _ in range(rounds + 1):  # the first is for warming up
                ours[task].append(_run(engine, task, tasks[task]))
                theirs[task].append(run_harness(task))
    table = Table("task", "this package", "lm-evaluation-harness", "ratio", "accuracy", "largest difference")
    agree = True
    for task in tasks:
        mine, other = ours[task][-1], theirs[task][-1]
        difference = max(
            (
                abs(a - b)
                for pair in zip(mine.logprobs, other.logprobs, strict=True)
                for a, b in zip(*pair, strict=True)
            ),
            default=0.0,
        )
        other_texts = sum(a != b for a, b in zip(mine.texts, other.texts, strict=True))
        agree &= difference <= TOLERANCE and not other_texts and mine.accuracy == other.accuracy
        seconds, harness_seconds = (median(run.seconds for run in runs[task][1:]) for runs in (ours, theirs))
        table.add_row(
            task.replace("_", " "),
            f"{seconds:.2f} s",
            f"{harness_seconds:.2f} s",
            f"{seconds / harness_seconds:.2f}",
            f"{mine.accuracy:.3f}, {other.accuracy:.3f}",
            f"{difference:.1e} nats" if mine.logprobs else f"{other_texts} of {len(mine.texts)} texts",
        )
    Console().print(
        f"{model}, {items} items a task, {threads} threads, harness's batch size {batch_size}, medians of {rounds} runs"
    )
    Console().print(table)
    if not agree:
        sys.exit("The two disagree.")


def _multiple_choice(engine: TransformersEngine, count: int) -> list[Item]:
    return [
        Item(
            _rendered(engine, multiple_choice_prompt(row["question"], row["choices"], "direct")),
            row["answer"],
            row["choices"],
        )
        for row in _rows("multiple_choice", count)
    ]


def _generation(engine: TransformersEngine, count: int) -> list[Item]:
    return [
        Item(_rendered(engine, math_prompt(row["question"], "cot")), row["answer"].rsplit("#### ")[-1])
        for row in _rows("math", count)
    ]


def _rows(task: str, count: int) -> list[dict[str, Any]]:
    lines = (DATA / task / "dev_test.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[:count]]


def _rendered(engine: TransformersEngine, message: str) -> str:
    return engine.tokenizer.render([{"role": "user", "content": message}])


def _run(engine: TransformersEngine, task: str, items: list[Item]) -> Run:
    """Run one task with this package."""
    began = time.perf_counter()
    if task == "multiple_choice":
        contexts = [item.prompt for item in items for _ in item.choices]
        scores = iter(engine.loglikelihood(contexts, [choice for item in items for choice in item.choices]))
        logprobs = [[next(scores).total for _ in item.choices] for item in items]
        right = [of_item.index(max(of_item)) == item.answer for of_item, item in zip(logprobs, items, strict=True)]
        return Run(time.perf_counter() - began, sum(right) / len(items), logprobs=logprobs)
    params = SamplingParams(temperature=0, max_tokens=MAX_TOKENS, logprobs=None)
    texts = [result.completions[0].text for result in engine.generate([item.prompt for item in items], params)]
    numbers = [re.findall(NUMBER, text)[:1] for text in texts]
    right = [number == [item.answer] for number, item in zip(numbers, items, strict=True)]
    return Run(time.perf_counter() - began, sum(right) / len(items), texts=texts)


@contextmanager
def _harness(tasks: dict[str, list[Item]], model: str, batch_size: str, threads: int) -> Iterator[Callable[[str], Run]]:
    """Start the harness on these tasks, with its messages in a log; yield a function that runs one of them."""
    with tempfile.TemporaryDirectory() as name, LOG.open("w") as log:
        folder = Path(name)
        for task, description in DESCRIPTIONS.items():
            data = folder / f"{task}.jsonl"
            data.write_bytes(msgspec.json.Encoder().encode_lines(tasks[task]))
            (folder / f"{task}.yaml").write_text(f"task: {task}\ndataset_kwargs: {{data_files: {data}}}\n{description}")
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
        worker = subprocess.Popen(
            [str(ENVIRONMENT / "bin" / "python"), str(WORKER), str(folder), model, batch_size, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | offline,
        )  # fmt: skip
        assert worker.stdin is not None
        assert worker.stdout is not None
        requests, answers = worker.stdin, worker.stdout

        def run(task: str) -> Run:
            print(task, file=requests, flush=True)
            line = answers.readline()
            if not line:
                sys.exit(f"lm-evaluation-harness has failed; see {LOG}")
            return msgspec.json.decode(line, type=Run)

        try:
            yield run
        finally:
            worker.terminate()
            worker.wait()


def _install() -> None:
    """Make the harness's environment where it is not there yet; versions agree with this one's where both have them."""
    installed = ENVIRONMENT / "installed"
    if not installed.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
        pip = [str(ENVIRONMENT / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), HARNESS], check=True)
        installed.touch()


if __name__ == "__main__":
    app()
