"""Write the hidden split of every embedded set: `python -m grader.hidden.shared_tasks.generate`.

It follows from the 128 random bits in `seed.txt`, which is staff's alone, as is this folder.
"""

from pathlib import Path
from typing import Annotated

import typer

from shared_tasks.tasks.embedded.splits import write_hidden_split

HERE = Path(__file__).parent


def main(out: Annotated[Path, typer.Option(help="The folder to write to.")] = HERE) -> None:
    """Write the hidden split of every task."""
    write_hidden_split((HERE / "seed.txt").read_text().strip(), out)
    print(f"wrote {out}")


if __name__ == "__main__":
    typer.run(main)
