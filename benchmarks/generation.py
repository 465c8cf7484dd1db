"""What generation costs: `python -m benchmarks.generation [--model course-base]`.

Times beam search and sampling of the reference against `generate` of transformers, in turns, on the same prompts of the
same model on the CPU, after checking that both give the same text. The end token is forbidden, so that both take every
step. Then counts what stochastic beam search and the best-first searches ask the model for, next to what the handout of
hw1 promises, and fails where a promise is broken; and the positions that run, as the model keeps prefixes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Annotated, Any, TypeVar

import torch
import typer
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM

from grader.reference.hw1.beam_search import Hypothesis, beam_search, stochastic_beam_search
from grader.reference.hw1.best_first import (
    Heuristic,
    a_star_search,
    best_first_beam_search,
    exact_search,
    uniform_cost_search,
)
from grader.reference.hw1.sampling import apply_temperature, generate, top_p_filter
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.randomness import TorchRandomness
from shared_tasks.models.registry import load_model, model_path
from shared_tasks.models.toy import PositionModel
from shared_tasks.models.transformers_model import TransformersModel

PROMPTS = ["Mia has 12 apples.", "Tom went to the shop and", "The bus leaves at nine. There are 23 people on it, and"]
STEPS = 64
REPEATS = 7
ROWS = 64  # that are sampled at once
TEMPERATURE, TOP_P = 0.8, 0.9
BEAMS = 4  # where contexts are counted
SHORT = 12  # and the tokens of a continuation there

Result = TypeVar("Result")
Generator = Callable[..., list[list[int]]]
"""Takes a model and a prompt, and returns continuations."""


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
    model: Annotated[str, typer.Option(help="A course model, a folder or a name on the hub.")] = "course-base",
    threads: Annotated[int, typer.Option(help="Threads that torch may use.")] = 1,
) -> None:
    """Measure and print the tables."""
    torch.set_num_threads(threads)
    theirs = AutoModelForCausalLM.from_pretrained(model_path(model), dtype=torch.float32).eval()
    Console().print(times(model, theirs), contexts_on_a_model(model), contexts_on_a_toy())


def times(name: str, theirs: Any) -> Table:
    """Return the medians of the reference, of its model calls alone, and of transformers, measured in turns.

    The reference has a model that was just loaded, and so knows no prefix, each time.
    """
    table = Table(f"{STEPS} tokens", "reference", "its model calls", "transformers", "reference / transformers")
    jobs: list[tuple[str, Generator, Generator]] = [
        (f"beam search, {beams} beams", partial(beams_of_reference, beams), partial(beams_of_transformers, beams))
        for beams in (4, 16)
    ]
    jobs.append((f"sampling, {ROWS} rows", samples_of_reference, samples_of_transformers))
    for job, reference, transformers in jobs:
        seconds = []
        for prompt in REPEATS * PROMPTS:
            model = load_model(name)
            x, asked = model.encode(prompt), Endless(model)
            ours, found = timed(partial(reference, asked, x))
            other, expected = timed(partial(transformers, theirs, model, x))
            seconds.append((ours, asked.seconds, other))
            assert found == expected, f"{job}: {model.decode(found[0])!r} is not {model.decode(expected[0])!r}"
        medians = [f"{median(column):.3f} s" for column in zip(*seconds, strict=True)]
        ratio = median(ours / other for ours, _, other in seconds)
        table.add_row(job, *medians, f"{ratio:.2f}")
    return table


def beams_of_reference(num_beams: int, model: Endless, prompt: list[int]) -> list[list[int]]:
    """Return the best continuation that the reference's beam search finds."""
    return [beam_search(model, prompt, num_beams=num_beams, max_tokens=STEPS)[0].tokens]


def beams_of_transformers(num_beams: int, theirs: Any, model: TransformersModel, prompt: list[int]) -> list[list[int]]:
    """Return what beam search of transformers finds with the same bound."""
    settings = {"do_sample": False, "length_penalty": 0.0, "early_stopping": "never"}
    return continued(theirs, model, prompt, num_beams=num_beams, **settings)


def samples_of_reference(model: Endless, prompt: list[int]) -> list[list[int]]:
    """Return the reference's samples of a prompt."""
    filters = [partial(apply_temperature, temperature=TEMPERATURE), partial(top_p_filter, top_p=TOP_P)]
    return generate(model, ROWS * [prompt], max_tokens=STEPS, rng=TorchRandomness(0), filters=filters)


def samples_of_transformers(theirs: Any, model: TransformersModel, prompt: list[int]) -> list[list[int]]:
    """Return transformers' samples with the same settings and seed."""
    torch.manual_seed(0)
    settings = {"temperature": TEMPERATURE, "top_p": TOP_P, "top_k": 0, "num_return_sequences": ROWS}
    return continued(theirs, model, prompt, do_sample=True, **settings)


def continued(theirs: Any, model: TransformersModel, prompt: list[int], **settings: Any) -> list[list[int]]:
    """Return what `generate` of transformers makes of a prompt without the end token."""
    start = model.tokenizer.bos_token_id
    ids = torch.tensor([prompt if start is None else [start, *prompt]])
    with torch.inference_mode():
        output = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=STEPS,
            suppress_tokens=[model.eos_token_id],
            pad_token_id=model.eos_token_id,
            **settings,
        )
    tokens: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return tokens


def contexts_on_a_model(name: str) -> Table:
    """Return what each search asks a trained model for, the most that the handout promises, and what that costs.

    The positions that run on a model that was just loaded stand next to those of all contexts, start tokens included.
    """
    model = load_model(name)
    x = model.encode(PROMPTS[1])
    beam = partial(beam_search, x=x, num_beams=BEAMS, max_tokens=SHORT)
    stochastic = partial(stochastic_beam_search, x=x, num_beams=BEAMS, max_tokens=SHORT, rng=TorchRandomness(0))
    best_first = partial(best_first_beam_search, x=x, num_beams=BEAMS, max_tokens=SHORT)
    uniform = partial(uniform_cost_search, x=x, max_tokens=SHORT)
    exact = partial(exact_search, x=x, max_tokens=SHORT)
    logprob = uniform(model)[1]
    assert abs(exact(model)[1] - logprob) < 1e-3, "both must find the most probable continuation"
    assert abs(best_first(model)[1] - beam(model)[0].logprob) < 1e-3, "both must find what beam search finds"
    of_beam = 1 + BEAMS * (SHORT - 1)
    searches: list[tuple[str, Callable[..., Any], int | None]] = [
        (f"beam, {BEAMS}", beam, of_beam),
        (f"stochastic beam, {BEAMS}", stochastic, of_beam),
        (f"best-first beam, {BEAMS}", best_first, counted(model, beam)[0].contexts),
        ("uniform cost", uniform, probable_beginnings(model, x, SHORT, logprob)),
        ("exact, depth first", exact, None),
    ]
    columns = ("contexts", "promised at most", "calls", "their positions", "positions run", "time")
    table = Table(f"search, {SHORT} tokens", *columns)
    for job, search, promised in searches:
        asked, _ = counted(model, search)
        fresh = load_model(name)
        with positions_run(fresh) as run:
            seconds, _ = timed(partial(search, fresh))
        table.add_row(
            job, *_cells(asked, promised), str(asked.tokens + asked.contexts), str(sum(run)), f"{seconds:.3f} s"
        )
    return table


@contextmanager
def positions_run(model: TransformersModel) -> Iterator[list[int]]:
    """Give a list that takes the number of positions of each forward pass."""
    run: list[int] = []
    hook = model.model.register_forward_pre_hook(lambda module, arguments: run.append(arguments[0].numel()))
    yield run
    hook.remove()


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


def _cells(model: CountingModel, most: int | None) -> tuple[str, str, str]:
    assert most is None or model.contexts <= most, f"expected at most {most} contexts, got {model.contexts}"
    return str(model.contexts), "" if most is None else str(most), str(model.calls)


if __name__ == "__main__":
    typer.run(main)
