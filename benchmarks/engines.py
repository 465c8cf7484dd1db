"""The engines on the references' work: `python -m benchmarks.engines [--model course-base] [--rounds 3]`.

What the references of homework 1 and 2 ask of an engine, once for a whole cohort: log-likelihoods of the options of
multiple-choice questions, greedy answers, samples, and many chains of thought for each question; with the engine on
transformers and the one on vLLM, turn by turn. Then ten submissions that share an engine in the judge: all at once, and
one request after the other. vLLM's cache of prefixes is emptied before every run. Fails unless the engines agree:
log-likelihoods within 1e-3, greedy texts all but one in fifty (in another dtype than float32 more may differ).
"""

import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from grader.shared_engine import BatchingEngine, SharedEngine
from shared_tasks.models.engine import Engine, SamplingParams
from shared_tasks.models.registry import model_path
from shared_tasks.models.transformers_engine import TransformersEngine
from shared_tasks.models.vllm_engine import VllmEngine
from shared_tasks.tasks.loading import load
from shared_tasks.tasks.registry import find_task

SUBMISSIONS = 10
TOLERANCE = 1e-3  # nats
DIFFERENT = 0.02  # of the greedy texts: near a tie the last bits decide


class Work(NamedTuple):
    """Something that a reference asks an engine for; it returns what is compared, if anything."""

    name: str
    run: Callable[[Engine], Any]


def main(model: str = "course-base", rounds: int = 3, items: int = 60) -> None:
    """Print medians of the rounds, and ratios taken in each round."""
    if rounds < 1 or items < 1:
        raise SystemExit("expected at least one round and one item")
    engines: dict[str, TransformersEngine | VllmEngine] = {
        "transformers": TransformersEngine(model_path(model), dtype=torch.float32, name=model),
        "vllm": VllmEngine(model_path(model), dtype=torch.float32, name=model),
    }
    table = Table(f"{model}, {items} items", *engines, "vllm / transformers")
    for work in works(items):
        results = [work.run(engine) for engine in engines.values()]  # warms up, too
        compare(work.name, *results)
        seconds = [[timed(work.run, engine) for engine in engines.values()] for _ in range(rounds)]
        columns = [median(column) for column in zip(*seconds, strict=True)]
        ratio = median(row[1] / row[0] for row in seconds)
        table.add_row(work.name, *(f"{column:.2f} s" for column in columns), f"{ratio:.2f}")
    Console(width=110).print(table)
    shared = Table(f"{SUBMISSIONS} submissions, 4 requests each", "one by one", "at once", "at once / one by one")
    for name, engine in engines.items():
        seconds = [[timed(one_by_one, engine), timed(at_once, engine)] for _ in range(rounds)]
        columns = [median(column) for column in zip(*seconds, strict=True)]
        ratio = median(row[1] / row[0] for row in seconds)
        shared.add_row(name, *(f"{column:.2f} s" for column in columns), f"{ratio:.2f}")
    Console(width=110).print(shared)


def works(items: int) -> list[Work]:
    """Return the work of both homeworks, on so many items of the embedded sets."""
    questions = questions_of("math", items)
    choices = find_task("multiple_choice")
    examples = load(choices, "dev", limit=items)
    contexts = [choices.questions(example, "direct")[0] for example in examples for _ in example.choices]
    options = [f" {option}" for example in examples for option in example.choices]
    greedy = SamplingParams(temperature=0, max_tokens=96)
    samples = SamplingParams(n=4, temperature=0.8, top_p=0.95, seed=0, max_tokens=64)
    chains = SamplingParams(n=16, temperature=0.7, seed=0, max_tokens=96)

    def scored(engine: Engine) -> list[float]:
        return [one.total for one in engine.loglikelihood(contexts, options)]

    def answered(engine: Engine) -> list[str]:
        return [result.completions[0].text for result in engine.generate(questions, greedy)]

    return [
        Work(f"hw1: {len(options)} options scored", scored),
        Work(f"hw1: {items} greedy answers", answered),
        Work(f"hw1: {4 * items} samples", lambda engine: engine.generate(questions, samples) and None),
        Work(f"hw2: {16 * items} chains of thought", lambda engine: engine.generate(questions, chains) and None),
    ]


def questions_of(task: str, count: int) -> list[str]:
    """Return the first questions of the embedded set, as they are asked."""
    found = find_task(task)
    return [found.questions(example, "direct")[0] for example in load(found, "dev", limit=count)]


def compare(name: str, first: Any, second: Any) -> None:
    """Raise SystemExit where two engines do not agree."""
    if first is None:
        return
    if isinstance(first[0], float):
        farthest = max(abs(a - b) for a, b in zip(first, second, strict=True))
        print(f"{name}: at most {farthest:.1e} nats apart")
        different = farthest > TOLERANCE
    else:
        others = sum(a != b for a, b in zip(first, second, strict=True))
        print(f"{name}: {others} of {len(first)} differ")
        different = others > DIFFERENT * len(first)
    if different:
        raise SystemExit(f"{name}: the engines do not agree")


def timed(run: Callable[[Any], object], engine: TransformersEngine | VllmEngine) -> float:
    """Return the seconds of a run that finds no prefix in the cache."""
    if isinstance(engine, VllmEngine):
        engine.forget()
    began = time.perf_counter()
    run(engine)
    return time.perf_counter() - began


def submissions() -> list[list[str]]:
    """Return what each submission asks."""
    questions = questions_of("math", 4 * SUBMISSIONS)
    return [questions[i::SUBMISSIONS] for i in range(SUBMISSIONS)]


SETTINGS = SamplingParams(temperature=0.7, max_tokens=64, ignore_eos=True)


def one_by_one(engine: BatchingEngine) -> None:
    """Answer each request after the one before it."""
    with SharedEngine(engine) as shared:
        for prompts in submissions():
            client = shared.client()
            for prompt in prompts:
                client.generate([prompt], SETTINGS)


def at_once(engine: BatchingEngine) -> None:
    """Answer submissions that ask in parallel, each all of its requests together."""
    with SharedEngine(engine) as shared:
        threads = [
            threading.Thread(target=shared.client().generate, args=(prompts, SETTINGS)) for prompts in submissions()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    typer.run(main)
