"""Everything that a GPU changes, checked on the GPU of this machine: `make gpu-check`, or
`python -m grader.gpu_check --out FOLDER`.

The engines' tests, the Triton problem, the references on vLLM, their work on both engines, and a load test with vLLM's
own server. A report with the date, the machine, and the outcome and output of each goes to the folder. Without `--out`
it only says which GPU there is.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import torch

from grader.sandbox.isolation import KIT
from shared_tasks.models.vllm_engine import version

OUTPUT_LINES = 40


class Part(NamedTuple):
    """Something to check: the arguments of this Python, in the kit's folder."""

    name: str
    words: list[str]


class Outcome(NamedTuple):
    """What became of a part."""

    part: Part
    status: int
    seconds: float
    output: str


def parts(out: Path) -> list[Part]:
    """Return what is checked; the load test writes its pages to the folder `out`."""
    engines = "tests/shared_tasks/engines"
    load_test = ["serve-test", "--ceiling", "--out", str(out / "load-test")]
    return [
        Part("Engines", ["-m", "pytest", "-q", engines]),
        Part("Judge's shared engine", ["-m", "pytest", "-q", "tests/grader/test_vllm.py"]),
        Part("Triton problem", ["-m", "pytest", "-q", "tests/grader/test_triton.py"]),
        *(
            Part(f"References of {homework}", ["-m", "grader.cli", "prepare", homework, "--engine", "vllm"])
            for homework in ("hw1", "hw2", "hw3")
        ),
        Part("References' work on both engines", ["-m", "benchmarks.engines"]),
        Part("Load test", ["-m", "grader.cli", *load_test]),
    ]


def gpu() -> str:
    """Return the name and the memory of the GPU. Raises RuntimeError where there is none."""
    if not torch.cuda.is_available():
        raise RuntimeError("there is no GPU that torch can use here: nothing was checked")
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def run(part: Part) -> Outcome:
    """Run a part to its end, whatever becomes of it."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *part.words], cwd=KIT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return Outcome(part, done.returncode, time.monotonic() - began, done.stdout)


def report(device: str, outcomes: Sequence[Outcome], now: datetime) -> str:
    """Return the report, in Markdown."""
    vllm = version() if importlib.util.find_spec("vllm") else "no vLLM: what runs on it was skipped"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=KIT, capture_output=True, text=True)
    lines = [
        f"# GPU check of {now:%Y-%m-%d %H:%M}",
        "",
        f"{device}; torch {torch.__version__}; {vllm}; kit {commit.stdout.strip() or 'of unknown version'}.",
        "",
        "| part | outcome | seconds |",
        "| --- | --- | ---: |",
    ]
    for part, status, seconds, _ in outcomes:
        lines.append(f"| {part.name} | {'passed' if status == 0 else f'FAILED with {status}'} | {seconds:.0f} |")
    for part, _, _, output in outcomes:
        lines += ["", f"## {part.name}", "", f"`python {' '.join(part.words)}`", "", "```"]
        lines += [*output.rstrip().splitlines()[-OUTPUT_LINES:], "```"]
    return "\n".join(lines) + "\n"


def check(device: str, checked: Sequence[Part], out: Path, now: datetime) -> bool:
    """Run the parts one after the other and write the report, anew after each; return whether all have passed."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"gpu-{now:%Y-%m-%d-%H%M}.md"
    outcomes: list[Outcome] = []
    for part in checked:
        print(f"{part.name} ...", end=" ", flush=True)
        outcomes.append(run(part))
        print("passed" if outcomes[-1].status == 0 else "FAILED", f"in {outcomes[-1].seconds:.0f} s")
        file.write_text(report(device, outcomes, now), "utf-8")
    print(file)
    return all(outcome.status == 0 for outcome in outcomes)


def main() -> None:
    """Read the command line and check."""
    parser = argparse.ArgumentParser(prog="python -m grader.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, help="where the report goes; without it nothing is run")
    out = parser.parse_args().out
    try:
        device = gpu()
    except RuntimeError as reason:
        parser.exit(2, f"error: {reason}\n")
    print(device)
    if out is not None and not check(device, parts(out.resolve()), out, datetime.now().astimezone()):
        parser.exit(1)


if __name__ == "__main__":
    main()
