"""The `shared-tasks` command."""

import json
import math
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from shared_tasks.models.registry import WEIGHTS, course_models, load_model

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Models and tasks that the homeworks share.")
logging.disable_progress_bar()  # transformers shows one for every file of weights
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models that ship with the kit."""
    rows = [json.loads((WEIGHTS / name / "training.json").read_text()) | {"name": name} for name in course_models()]
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
    try:
        loaded = load_model(model)
        tokens = loaded.encode(text)
        if not tokens:
            raise ValueError("expected a text of at least one token, got an empty one")
        (scores,) = loaded.continuation_logprobs([[]], [tokens])
    except (OSError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise typer.Exit(2) from None
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


if __name__ == "__main__":
    sys.exit(app())
