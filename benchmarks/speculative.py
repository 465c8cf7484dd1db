"""Speculative decoding on course models: `python -m benchmarks.speculative`.

Continues mathematical questions with course-base, batch of one, on one thread: plainly with a cache, with course-small
as draft, and with prompt lookup, in turns. Fails unless greedy texts are equal. Counts the passes of the target, tells
how many drafted tokens were accepted, and compares the speed-up measured with the one that the costs measured predict.
"""

import json
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from torch import Tensor

from grader.reference.hw3.speculative import (
    CachedScorer,
    Draft,
    Drafter,
    draft_with_model,
    draft_with_ngrams,
    expected_tokens,
    speculative_generate,
)
from hw3.transformer import load_transformer
from shared_tasks.models.folders import model_folder
from shared_tasks.models.randomness import TorchRandomness
from shared_tasks.tasks.loading import EMBEDDED

MAX_TOKENS = 64


class Counted:
    """Counts and times the calls of a function."""

    def __init__(self, function: Callable[..., Tensor]):
        self.function, self.calls, self.seconds = function, 0, 0.0

    def __call__(self, *arguments: object) -> Tensor:
        """Call it."""
        began = time.perf_counter()
        result = self.function(*arguments)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        return result


def main(
    target: str = "course-base",
    draft: str = "course-small",
    prompts: int = 8,
    rounds: int = 3,
    temperature: float = 0.0,
    lookahead: Annotated[list[int] | None, typer.Option()] = None,
) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    large, small = load_transformer(target), load_transformer(draft)
    tokenizer = Tokenizer.from_file(str(model_folder(target) / "tokenizer.json"))
    lines = (EMBEDDED / "math" / "dev.jsonl").read_text().splitlines()[:prompts]
    contexts = [tokenizer.encode(f"Question: {json.loads(line)['question']}\nAnswer:").ids for line in lines]
    end, vocab = large.config.eos_token_id, large.config.vocab_size

    def run(kind: str, guesses: int, seed: int) -> tuple[list[list[int]], float, Counted, Counted, int]:
        """Return texts, seconds, the calls of both models, and the number of tokens drafted."""
        counted, cheap, rng, drafted = Counted(large), Counted(small), TorchRandomness(seed), 0
        texts = []
        began = time.perf_counter()
        for context in contexts:
            score, small_score = CachedScorer(counted).score, CachedScorer(cheap).score

            def guess(given: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Draft]:
                nonlocal drafted
                drafters: dict[str, Drafter] = {
                    "plain": lambda c, n: [Draft([], torch.empty(0, vocab)) for _ in c],
                    "model": lambda c, n: draft_with_model(
                        small_score,  # noqa: B023 (called in this turn of the loop only)
                        c, n, eos_token_id=end, temperature=temperature, top_p=1.0, rng=rng,
                    ),
                    "lookup": lambda c, n: draft_with_ngrams(c, n, vocab_size=vocab, max_ngram_size=3),
                }  # fmt: skip
                drafts = drafters[kind](given, lengths)
                drafted += sum(len(draft.tokens) for draft in drafts)
                return drafts

            texts += speculative_generate(
                score, guess, [context], eos_token_id=end, num_speculative_tokens=guesses, max_tokens=MAX_TOKENS,
                temperature=temperature, top_p=1.0, rng=rng,
            )  # fmt: skip
        return texts, time.perf_counter() - began, counted, cheap, drafted

    ways = [("plain", 0)] + [(kind, g) for kind in ("model", "lookup") for g in lookahead or [1, 2, 4, 8]]
    results = {way: [run(*way, seed) for seed in range(rounds)] for way in ways}
    plain = results["plain", 0]
    pass_cost = median(r[2].seconds / r[2].calls for r in plain)
    plain_pace = median(r[1] / sum(map(len, r[0])) for r in plain)  # seconds a token: sampled texts differ in length
    table = Table(
        "drafter", "lookahead", "target passes", "accepted", "tokens / pass", "seconds", "speed-up", "predicted"
    )
    for (kind, g), runs in results.items():
        texts, _, counted, cheap, drafted = runs[-1]
        if temperature == 0 and texts != plain[-1][0]:
            raise SystemExit(f"expected the texts of plain decoding, got others with {kind}, lookahead {g}")
        tokens = sum(map(len, texts))
        seconds, pace = median(r[1] for r in runs), median(r[1] / sum(map(len, r[0])) for r in runs)
        per_pass = tokens / counted.calls
        # What a round costs in plain passes: those of the drafter and one of the target, both as measured.
        cost = (counted.seconds + cheap.seconds) / counted.calls / pass_cost
        table.add_row(
            kind, str(g), str(counted.calls), f"{(tokens - counted.calls) / drafted:.2f}" if drafted else "",
            f"{per_pass:.2f}", f"{seconds:.2f}", f"{plain_pace / pace:.2f}", f"{per_pass / cost:.2f}",
        )  # fmt: skip
    Console(width=110).print(table)
    for (kind, g), runs in results.items():
        if kind == "model":
            counted, cheap = runs[-1][2], runs[-1][3]
            target_cost, draft_cost = (part.seconds / part.calls / pass_cost for part in (counted, cheap))
            bound = expected_tokens(1.0, g) / (target_cost + g * draft_cost)
            print(
                f"lookahead {g}: a pass of {target} costs {target_cost:.2f} plain ones, of {draft} {draft_cost:.2f}; "
                f"at most {bound:.2f} times as fast, if all were accepted"
            )
    print(f"a plain pass of {target}: {1000 * pass_cost:.2f} ms")


if __name__ == "__main__":
    typer.run(main)
