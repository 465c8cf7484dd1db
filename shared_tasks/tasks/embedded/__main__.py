"""Write the public splits of the embedded sets: `python -m shared_tasks.tasks.embedded`."""

from pathlib import Path
from typing import Annotated

import typer

from shared_tasks.tasks.embedded.splits import DATA, write_public_splits


def main(out: Annotated[Path, typer.Option(help="The folder to write to.")] = DATA) -> None:
    """Write train, dev and dev-test of every task."""
    write_public_splits(out)
    print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
