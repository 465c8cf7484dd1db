"""The other side of `benchmarks.harness`: lm-evaluation-harness, in a process and an environment of its own.

Called with a folder of tasks, a model's folder, a batch size and a number of threads. It loads both once, then runs the
task named on each line of its input and answers with a line of JSON: the seconds of `evaluate`, and what came out.
"""

import json
import os
import sys
import time
from typing import Any

import torch
from lm_eval.evaluator import evaluate  # type: ignore[import-not-found] # in its own environment
from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]
from lm_eval.tasks import TaskManager  # type: ignore[import-not-found]


def main() -> None:
    """Serve runs until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed must not get among the answers
    folder, model, batch_size, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    size = int(batch_size) if batch_size.isdecimal() else batch_size
    lm = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=size)
    tasks = TaskManager(include_path=folder, include_defaults=False)
    loaded = {name: tasks.load([name]) for name in tasks.all_tasks}
    for line in sys.stdin:
        name = line.strip()
        began = time.perf_counter()
        result: dict[str, Any] = evaluate(lm, loaded[name], bootstrap_iters=0, verbosity="ERROR")
        seconds = time.perf_counter() - began
        metrics = result["results"][name]
        samples = sorted(result["samples"][name], key=lambda sample: int(sample["doc_id"]))
        answer: dict[str, Any] = {"seconds": seconds}
        if name == "multiple_choice":
            answer["accuracy"] = metrics["acc,none"]
            answer["logprobs"] = [[float(response[0][0]) for response in sample["resps"]] for sample in samples]
        else:
            answer["accuracy"] = metrics["exact_match,number"]
            answer["texts"] = [sample["resps"][0][0] for sample in samples]
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
