"""Decoding with a cache: `python -m benchmarks.decoding [--threads 1]`.

Continues mathematical questions greedily with course-base in float32 on the CPU: `transformers.generate`, and
`hw3/transformer.py` with the reference's contiguous and paged caches, turn by turn, with the same prompts and without
an end token, so that all take every step. Prompts of a batch differ in length. Fails unless the texts are equal.
"""

import json
import time
from collections.abc import Callable
from statistics import median

import torch
import typer
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from grader.reference.hw3.kv_cache import ContiguousCache, PagedCache, generate
from hw3.transformer import load_transformer
from shared_tasks.models.folders import model_folder
from shared_tasks.models.transformers_model import load_pretrained
from shared_tasks.tasks.loading import EMBEDDED

MAX_TOKENS = 64
BLOCK_SIZE = 16
Tokens = list[list[int]]


def main(model: str = "course-base", threads: int = 1, rounds: int = 7) -> None:
    """Print medians, and ratios taken in each round."""
    torch.set_num_threads(threads)
    tokenizer = Tokenizer.from_file(str(model_folder(model) / "tokenizer.json"))
    lines = (EMBEDDED / "math" / "dev.jsonl").read_text().splitlines()[:64]
    questions = [tokenizer.encode(f"Question: {json.loads(line)['question']}\nAnswer:").ids for line in lines]
    table = Table(
        f"{MAX_TOKENS} tokens, {threads} threads", "transformers", "contiguous", "paged", "contiguous / transformers",
        "paged / contiguous",
    )  # fmt: skip
    for batch in (1, 64):
        ways = decoders(model, questions[:batch])
        texts = [way() for way in ways]  # warms up, too
        if any(text != texts[0] for text in texts):
            raise SystemExit(f"expected equal texts in a batch of {batch}")
        seconds = [[timed(way) for way in ways] for _ in range(rounds)]
        theirs, contiguous, paged = (median(column) for column in zip(*seconds, strict=True))
        ratios = median(row[1] / row[0] for row in seconds), median(row[2] / row[1] for row in seconds)
        table.add_row(
            f"batch {batch}", *(f"{s:.3f} s" for s in (theirs, contiguous, paged)), *(f"{r:.2f}" for r in ratios)
        )
    Console(width=110).print(table)


def decoders(name: str, prompts: Tokens) -> list[Callable[[], Tokens]]:
    """Return three ways to continue the prompts, each with caches of its own in every call."""
    model, (_, theirs) = load_transformer(name), load_pretrained(str(model_folder(name)), "cpu", torch.float32)
    theirs.generation_config.eos_token_id = None
    longest = max(map(len, prompts))
    length = longest + MAX_TOKENS
    shape = (model.config.num_key_value_heads, model.config.head_dim)
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])

    def transformers() -> Tokens:
        output = theirs.generate(ids, attention_mask=mask, max_new_tokens=MAX_TOKENS, do_sample=False, pad_token_id=0)
        tokens: Tokens = output[:, longest:].tolist()
        return tokens

    def contiguous() -> Tokens:
        cache = ContiguousCache(model.config.num_hidden_layers, len(prompts), length, *shape)
        return generate(model, cache, prompts, max_tokens=MAX_TOKENS, eos_token_id=-1)

    def paged() -> Tokens:
        blocks = len(prompts) * -(-length // BLOCK_SIZE)
        cache = PagedCache(model.config.num_hidden_layers, blocks, BLOCK_SIZE, *shape)
        for sequence, prompt in enumerate(prompts):
            cache.add(sequence, prompt)
        cache.select(range(len(prompts)))
        return generate(model, cache, prompts, max_tokens=MAX_TOKENS, eos_token_id=-1)

    return [transformers, contiguous, paged]


@torch.inference_mode()
def timed(way: Callable[[], Tokens]) -> float:
    """Return wall time."""
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


if __name__ == "__main__":
    typer.run(main)
