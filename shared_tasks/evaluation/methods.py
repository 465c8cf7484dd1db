"""Decoding methods by name: how outputs are drawn for a question, and which of an item's scores is the score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shared_tasks.models.engine import Engine, Generation, Prompt, SamplingParams


class Question(NamedTuple):
    """What a method sees of an item: how it is asked, and how an answer is read off a text. Never the right answer."""

    prompt: Prompt
    parse: Callable[[str], str | None]


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
"""The methods that generate; more can be added here."""
