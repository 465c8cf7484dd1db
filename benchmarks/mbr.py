"""Minimum Bayes risk of 100 candidates, beside the `mbrs` package: `python -m benchmarks.mbr`.

Times the expected chrF and BLEU of every candidate against all of them by hw2's reference and by mbrs, in turns and in
one process, and compares all pairs with sacrebleu. mbrs has an environment of its own under `runs/`, made at first
use, in which this module runs itself; packages that it does not bring come from the environment that started it.
"""

import os
import random
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch import Tensor

from grader.reference.hw2.mbr import bleu_matrix, chrf_matrix, expected_utility

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / "runs" / "mbrs-0.1.8"
CANDIDATES = 100
REPEATS = 3
Rival = tuple[str, Callable[[list[str]], Tensor]]
PASSAGE = """
The old bridge over the river was closed for the winter because its stones had begun to move . Every morning two
engineers walked out to measure the cracks , and every evening they wrote the figures into a book that nobody read . In
spring the water rose higher than anyone remembered , but the bridge stood , and the town decided to open it again .
""".split()


def main() -> None:
    """Run inside the environment that has mbrs; make it first if it is not there."""
    if Path(sys.prefix) == ENVIRONMENT:
        measure()
        return
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "ready").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        packages = Path(sysconfig.get_path("purelib"))
        own = Path(sysconfig.get_path("purelib", vars={"base": str(ENVIRONMENT), "platbase": str(ENVIRONMENT)}))
        (own / "kit.pth").write_text(f"{packages}\n")  # torch and sacrebleu are not installed a second time
        subprocess.run([python, "-m", "pip", "install", "--quiet", "mbrs==0.1.8"], check=True)
        (ENVIRONMENT / "ready").touch()
    subprocess.run([python, "-m", "benchmarks.mbr"], cwd=ROOT, check=True)


def candidates(words: int) -> list[str]:
    """Return variants of a passage, as samples of a translation are: words dropped, doubled and replaced."""
    draw = random.Random(words)
    texts = []
    for _ in range(CANDIDATES):
        kept = [draw.choice(PASSAGE) if draw.random() < 0.15 else word for word in PASSAGE[:words]]
        texts.append(" ".join(word for word in kept for _ in range(draw.choices([0, 1, 2], [0.1, 0.8, 0.1])[0])))
    return texts


def measure() -> None:
    """Time both and print the table."""
    bleu_metric = import_module("mbrs.metrics.bleu").MetricBLEU  # only there inside
    chrf_metric = import_module("mbrs.metrics.chrf").MetricChrF

    def plain(metric: Any) -> Callable[[list[str]], Tensor]:
        return lambda texts: metric.expected_scores(texts, texts)

    chrf: list[Rival] = [
        ("hw2 reference", lambda texts: expected_utility(chrf_matrix(texts, texts))),
        ("mbrs, as it comes (8 workers)", plain(chrf_metric(chrf_metric.Config()))),
        ("mbrs, fastchrf (Rust)", plain(chrf_metric(chrf_metric.Config(fastchrf=True)))),
    ]
    bleu: list[Rival] = [
        ("hw2 reference", lambda texts: expected_utility(bleu_matrix(texts, texts))),
        ("mbrs, as it comes (8 workers)", plain(bleu_metric(bleu_metric.Config(tokenize="none")))),
    ]
    scorers: dict[str, Any] = {"chrF": CHRF(), "BLEU": BLEU(tokenize="none", effective_order=True)}
    matrices = {"chrF": chrf_matrix, "BLEU": bleu_matrix}
    table = Table("metric", "words", "by", "median", "against hw2", "largest difference from hw2")
    for words in (20, len(PASSAGE)):
        texts = candidates(words)
        for name, rivals in (("chrF", chrf), ("BLEU", bleu)):
            ours = rivals[0][1](texts)
            times: dict[str, list[float]] = {rival: [] for rival, _ in rivals}
            differences = {}
            for _ in range(REPEATS):
                for rival, run in rivals:
                    began = time.perf_counter()
                    scores = run(texts)
                    times[rival].append(time.perf_counter() - began)
                    differences[rival] = float((scores.double() - ours).abs().max())
            base = median(times["hw2 reference"])
            for rival, _ in rivals:
                took = median(times[rival])
                table.add_row(
                    name, str(words), rival, f"{1e3 * took:.1f} ms", f"{took / base:.1f}×", f"{differences[rival]:.1e}"
                )
            exact = [[scorers[name].sentence_score(h, [r]).score for r in texts] for h in texts]
            gap = float((matrices[name](texts, texts) - torch.tensor(exact, dtype=torch.float64)).abs().max())
            table.add_row(name, str(words), "sacrebleu, all pairs", "", "", f"{gap:.1e}")
    Console(width=110).print(table)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
