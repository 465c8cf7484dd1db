"""The command that starts a server: `python -m final_project.serve`."""

import argparse
import resource
import signal
import sys
from pathlib import Path

import msgspec
import torch
import uvicorn
from transformers import AutoTokenizer

from final_project.app import ServedModel, create_app
from final_project.configuration import System, read_configuration
from shared_tasks.models.folders import model_folder
from shared_tasks.models.tokenizing import PromptTokenizer

HERE = Path(__file__).parent
DRAIN_SECONDS = 60  # for answers that are under way when the server is told to end


def served_model(name_or_path: str) -> ServedModel:
    """Read what the HTTP side has to know of a model. Raises ValueError when there is no such model."""
    folder = model_folder(name_or_path)
    tokenizer = PromptTokenizer(AutoTokenizer.from_pretrained(folder), folder.name)
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    return ServedModel(folder.name, tokenizer, config["max_position_embeddings"], config["vocab_size"])


def serve(system: System, host: str, port: int) -> None:
    """Load a system and answer until SIGTERM or SIGINT: then no more is taken in, and what is under way is finished."""
    torch.set_num_threads(system.threads)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection is an open file
    app = create_app(system.load_engine(), served_model(system.model), system.max_sequences)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # called when uvicorn has drained
    uvicorn.run(app, host=host, port=port, access_log=False, timeout_graceful_shutdown=DRAIN_SECONDS)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m final_project.serve", description=__doc__)
    parser.add_argument("--config", type=Path, default=HERE / "serve.toml", help="the file of systems")
    parser.add_argument("--system", help="its name; the first one by default")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        serve(read_configuration(arguments.config).system(arguments.system), arguments.host, arguments.port)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
