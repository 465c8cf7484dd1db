"""The `shared-tasks` command."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Models and tasks that the homeworks share.")


@app.callback()
def shared_tasks() -> None:
    """Models and tasks that the homeworks share."""


@app.command()
def score(
    text: Annotated[str, typer.Argument(help="The text to score.")],
    model: Annotated[str, typer.Option(help="A course model, a local folder, or a name on the hub.")] = "course-small",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the log-probability that a model gives to each token of a text, and the perplexity of the text."""
    pass


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    sys.exit(app())
