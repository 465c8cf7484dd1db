"""What search costs: `python -m benchmarks.search [--model course-small]`.

Times beam search of the reference against `generate(num_beams=...)` of transformers, in turns, on the same prompts of
the same model on the CPU, after checking that both find the same text. The end token is forbidden, so that both take
every step. Then counts what stochastic beam search and the best-first searches ask the model for, next to what the
handout of hw1 promises, and fails where a promise is broken.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Annotated, TypeVar

import torch
import typer
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from grader.reference.hw1.beam_search import Hypothesis, beam_search, stochastic_beam_search
from grader.reference.hw1.best_first import (
    Heuristic,
    a_star_search,
    best_first_beam_search,
    exact_search,
    uniform_cost_search,
)
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.randomness import TorchRandomness
from shared_tasks.models.registry import load_model
from shared_tasks.models.toy import PositionModel
from shared_tasks.models.transformers_model import TransformersModel

PROMPTS = ["Mia has 12 apples.", "Tom went to the shop and", "The bus leaves at nine. There are 23 people on it, and"]
STEPS = 64
REPEATS = 7
BEAMS = 4  # where contexts are counted
SHORT = 12  # and the tokens of a continuation there

Result = TypeVar("Result")


class Endless:
    """A model whose end token has probability zero; the rest is left as it is. Its calls are timed."""

    def __init__(self, model: LanguageModel):
        self.model, self.vocab_size, self.eos_token_id = model, model.vocab_size, model.eos_token_id
        self.seconds = 0.0

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Ask the model, and rule the end token out."""
        seconds, logprobs = timed(partial(self.model.next_token_logprobs, contexts))
        self.seconds += seconds
        return logprobs.index_fill(1, torch.tensor(self.eos_token_id), -torch.inf)

    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        """Ask the model; no continuation here has an end token."""
        return self.model.continuation_logprobs(contexts, continuations)


def main(
    model: Annotated[str, typer.Option(help="A course model, a folder or a name on the hub.")] = "course-small",
    threads: Annotated[int, typer.Option(help="Threads that torch may use.")] = 1,
) -> None:
    """Measure and print the tables."""
    torch.set_num_threads(threads)
    loaded = load_model(model)
    Console().print(beam_search_times(loaded), contexts_on_a_model(loaded), contexts_on_a_toy())


def beam_search_times(model: TransformersModel) -> Table:
    """Return the medians of both beam searches, and of the reference's model calls alone, measured in turns."""
    table = Table("beam search, 64 tokens", "reference", "its model calls", "transformers", "reference / transformers")
    for num_beams in (4, 16):
        ours: list[float] = []
        calls: list[float] = []
        theirs: list[float] = []
        for _ in range(REPEATS):
            for prompt in map(model.encode, PROMPTS):
                asked = Endless(model)
                seconds, (best, *_) = timed(partial(beam_search, asked, prompt, num_beams=num_beams, max_tokens=STEPS))
                ours.append(seconds)
                calls.append(asked.seconds)
                seconds, tokens = timed(partial(search_of_transformers, model, prompt, num_beams))
                theirs.append(seconds)
                assert best.tokens == tokens, f"{model.decode(best.tokens)!r} is not {model.decode(tokens)!r}"
        ratio = median(own / other for own, other in zip(ours, theirs, strict=True))
        seconds_of_each = [f"{median(times):.3f} s" for times in (ours, calls, theirs)]
        table.add_row(f"{num_beams} beams", *seconds_of_each, f"{ratio:.2f}")
    return table


def search_of_transformers(model: TransformersModel, prompt: list[int], num_beams: int) -> list[int]:
    """Return what beam search of transformers finds with the same bound and without the end token."""
    start = model.tokenizer.bos_token_id
    ids = torch.tensor([prompt if start is None else [start, *prompt]])
    with torch.inference_mode():
        output = model.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_beams=num_beams,
            max_new_tokens=STEPS,
            do_sample=False,
            length_penalty=0.0,
            early_stopping="never",
            suppress_tokens=[model.eos_token_id],
            pad_token_id=model.eos_token_id,
        )
    tokens: list[int] = output[0, ids.shape[1] :].tolist()
    return tokens


def contexts_on_a_model(model: TransformersModel) -> Table:
    """Return what each search asks a trained model for, and the most that the handout promises."""
    table = Table(f"search, {SHORT} tokens", "contexts", "promised at most", "calls", "log-probability of the result")
    x = model.encode(PROMPTS[1])
    beam, (best, *_) = counted(model, partial(beam_search, x=x, num_beams=BEAMS, max_tokens=SHORT))
    table.add_row(f"beam, {BEAMS}", *_cells(beam, 1 + BEAMS * (SHORT - 1)), f"{best.logprob:.3f}")
    samples = partial(stochastic_beam_search, x=x, num_beams=BEAMS, max_tokens=SHORT, rng=TorchRandomness(0))
    drawn, (first, *_) = counted(model, samples)
    table.add_row(f"stochastic beam, {BEAMS}", *_cells(drawn, 1 + BEAMS * (SHORT - 1)), f"{first.logprob:.3f}")
    searched, (_, logprob) = counted(model, partial(best_first_beam_search, x=x, num_beams=BEAMS, max_tokens=SHORT))
    assert abs(logprob - best.logprob) < 1e-3, "best-first beam search must find what beam search finds"
    table.add_row(f"best-first beam, {BEAMS}", *_cells(searched, beam.contexts), f"{logprob:.3f}")
    searched, (_, logprob) = counted(model, partial(uniform_cost_search, x=x, max_tokens=SHORT))
    table.add_row("uniform cost", *_cells(searched, probable_beginnings(model, x, SHORT, logprob)), f"{logprob:.3f}")
    searched, (_, logprob) = counted(model, partial(exact_search, x=x, max_tokens=SHORT))
    table.add_row("exact, depth first", str(searched.contexts), "", str(searched.calls), f"{logprob:.3f}")
    return table


def contexts_on_a_toy() -> Table:
    """Return what A* asks a toy model for with heuristics of known quality, and the most that the handout promises."""
    model = PositionModel(vocab_size=100, max_length=SHORT, seed=3)
    best = best_by_length_and_last_token(model)
    table = Table(f"A* on a toy model, {SHORT} tokens", "contexts", "promised at most", "calls")
    for share in (0.0, 0.5, 0.9, 1.0):
        heuristic = partial(estimate, share * best)
        search = partial(a_star_search, x=[], max_tokens=SHORT, heuristic=heuristic)
        searched, (tokens, logprob) = counted(model, search)
        most = probable_beginnings(model, [], SHORT, logprob, heuristic)
        assert share < 1 or most == len(tokens), "a perfect heuristic must lead straight to the result"
        table.add_row(f"{share:g} of the perfect heuristic", *_cells(searched, most))
    return table


def probable_beginnings(
    model: LanguageModel,
    x: list[int],
    max_tokens: int,
    logprob: float,
    heuristic: Heuristic = lambda contexts: torch.zeros(len(contexts)),
) -> int:
    """Return how many incomplete continuations have a log-probability plus estimate of at least `logprob`."""
    count, level = 0, [Hypothesis([], 0.0, 0.0)]
    while level and len(level[0].tokens) < max_tokens:
        count += len(level)
        children = []
        for parent in level:
            row = model.next_token_logprobs([[*x, *parent.tokens]])[0].double() + parent.logprob
            row[model.eos_token_id] = -torch.inf
            children += [
                Hypothesis([*parent.tokens, token], float(row[token]), 0.0)
                for token in (row >= logprob - 1e-4).nonzero()[:, 0].tolist()
            ]
        estimates = heuristic([[*x, *child.tokens] for child in children]).tolist() if children else []
        level = [c for c, h in zip(children, estimates, strict=True) if c.logprob + h >= logprob - 1e-4]
    return count


def best_by_length_and_last_token(model: PositionModel) -> Float[Tensor, "length vocab"]:
    """Return the log-probability of the best way to complete a context that a position model tells apart."""
    best = torch.zeros(SHORT + 1, model.vocab_size, dtype=torch.float64)
    for length in range(SHORT - 1, 0, -1):
        rows = model.next_token_logprobs([[0] * (length - 1) + [last] for last in range(model.vocab_size)])
        after = best[length + 1].index_fill(0, torch.tensor(model.eos_token_id), 0.0)
        best[length] = (rows + after).amax(-1)
    return best


def estimate(best: Float[Tensor, "length vocab"], contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch"]:
    """Look the contexts up."""
    return torch.stack([best[len(context), context[-1]] for context in contexts])


def counted(model: LanguageModel, search: Callable[..., Result]) -> tuple[CountingModel, Result]:
    """Run a search on a model that counts."""
    counting = CountingModel(model)
    return counting, search(counting)


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    """Return wall time and result."""
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def _cells(model: CountingModel, most: int) -> tuple[str, str, str]:
    assert model.contexts <= most, f"expected at most {most} contexts, got {model.contexts}"
    return str(model.contexts), str(most), str(model.calls)


if __name__ == "__main__":
    typer.run(main)
