"""Decoding methods by name: how outputs are drawn for a question, and which of an item's scores is the score."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shared_tasks.models.engine import Engine, Generation, Prompt, SamplingParams


class Question(NamedTuple):
    """What a method sees of an item: how it is asked, and how an answer is read off a text. Never the right answer."""

    prompt: Prompt
    parse: Callable[[str], str | None]
    text: str | None = None
    """The prompt as one text, which a model continues: a chat as its template renders it, up to the assistant's turn.
    None for a chat with a model whose template is not known."""


OnDone = Callable[[int, Generation], None]
Generate = Callable[[Engine, Sequence[Question], Sequence[SamplingParams], OnDone], list[Generation]]
"""Returns a generation for each question, asked with its own parameters, and reports each as soon as it is there."""


@dataclass(frozen=True)
class Method:
    """A way to get outputs for a question."""

    about: str
    generate: Generate
    selects: str | None = None
    """The value that is the score of an item, where it is not what the task takes: the mean over its outputs."""
    samples: bool = True
    """Whether it draws at random, so that a temperature and a number of samples mean something."""
    default_n: int = 1


def generate(
    engine: Engine, questions: Sequence[Question], params: Sequence[SamplingParams], on_done: OnDone
) -> list[Generation]:
    """Let the engine continue each prompt: greedily at temperature 0, else by sampling."""
    return engine.generate([question.prompt for question in questions], params, on_done)


METHODS = {
    "greedy": Method("the most likely token at every step", generate, samples=False),
    "sample": Method("n samples; the score is their mean", generate),
    "majority": Method("the answer that most of n samples give", generate, selects="maj@{n}", default_n=16),
    "best_of_n": Method("the most probable of n samples", generate, selects="best@{n}", default_n=16),
}
"""The kit's own methods that generate."""


def find_method(name: str) -> Method:
    """Return one of METHODS, or the one that PACKAGE.MODULE:ATTRIBUTE names, imported from the current folder.

    Raises ValueError, with what is wrong in one line, when there is none.
    """
    if name in METHODS:
        return METHODS[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"no method {name!r}; there are: {', '.join(METHODS)}, and PACKAGE.MODULE:NAME of your own")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # an installed command does not look there
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(
            f"--method {name}: {module_name} cannot be imported ({type(error).__name__}: {error})"
        ) from error
    method = getattr(module, attribute, None)
    if not isinstance(method, Method):
        there = ", ".join(key for key, value in vars(module).items() if isinstance(value, Method)) or "none"
        found = "nothing" if method is None else f"a {type(method).__name__}"
        raise ValueError(f"--method {name}: expected a Method of that name, found {found}; its methods: {there}")
    return method


def code_of(name: str) -> str:
    """Return a hash of the code of a method: of its function, or of all files of the package that it comes from."""
    method = find_method(name)
    if name in METHODS:
        return hashlib.sha256(inspect.getsource(method.generate).encode()).hexdigest()
    module = sys.modules[name.partition(":")[0]]
    top = sys.modules[module.__name__.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(top, "__path__", [])]
    files = [file for folder in folders for file in folder.rglob("*.py")] or [Path(inspect.getfile(module))]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
