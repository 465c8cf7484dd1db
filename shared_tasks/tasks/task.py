"""What a task is: where its examples are, how they are asked, how an output is scored."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from shared_tasks.models.engine import LogLikelihood, Message, Prompt

Item = TypeVar("Item", bound="Example")


class Example(msgspec.Struct, kw_only=True):
    """What the examples of all tasks have; `group` is a subject or a category, by which a report can be split."""

    question: str
    id: str = ""
    group: str = ""


class Schema(msgspec.Struct):
    """The fields of a data set's rows."""

    def item(self) -> Example:
        """Return the row in the form that all data sets of its kind share.

        Raises ValueError for values that make no sense.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class DataSet:
    """Where a task's examples are, and what their rows look like."""

    schemas: tuple[type["Schema"], ...]
    """The forms that rows come in; the first whose required fields a row has is taken."""
    split: str
    """Evaluated unless another one is asked for."""
    splits: tuple[str, ...]
    shots: str | None = None
    """The split that examples for few-shot prompts come from: never the evaluated one."""
    shots_by_group: bool = False
    """Whether these are of the same subject as the question."""
    hub: str | None = None
    """The name on the hub; None for a set that ships with the kit."""
    configuration: str | None = None
    stem: str | None = None
    """The file to take from a folder in which no file is named after a split."""
    columns: tuple[str, ...] | None = None
    """Names for the columns of CSV files without a header."""


class Output(msgspec.Struct, frozen=True):
    """One of a model's outputs for an example, of which only the text is always known."""

    text: str
    logprob: float | None = None
    """log P of the whole output, in nats."""
    tokens: int | None = None


class Scored(msgspec.Struct, kw_only=True):
    """What the outputs for one example are worth."""

    score: float | None
    """The one number for this example; None where only a judge could tell."""
    parsed: list[str | None]
    """The answer read off each output; None where there is none."""
    values: dict[str, float]
    """Named scores. Each becomes a metric: its mean over all examples, with a standard error."""
    correct: list[bool] = []
    """Of each output."""
    details: dict[str, Any] = {}
    """What else a reader of the report wants to see, and what metrics of the whole set are made from."""


class Metric(msgspec.Struct, frozen=True):
    """A number about a whole set, and how far it may be off."""

    value: float
    standard_error: float | None = None
    n: int = 0
    """Examples that it is made from."""
    share: bool = True
    """Whether it lies between 0 and 1, so that one may read it as a percentage."""
    note: str = ""
    """How it was computed, where that is not the same everywhere."""


@dataclass(frozen=True)
class Task(ABC, Generic[Item]):
    """How to load, ask, run and score one data set."""

    name: str
    about: str
    data: DataSet
    max_tokens: int = 512
    """Enough for a full answer."""
    turns: int = 1
    """How many questions of one conversation an example has."""

    styles: ClassVar[tuple[str, ...]] = ("direct",)
    """The ways in which it can be asked."""
    compared: ClassVar[tuple[str, ...]] = ()
    """Those of them in which the options can be compared by their log-likelihood, the usual one first."""
    votes: ClassVar[bool] = True
    """Whether outputs give answers that can be equal, so that most of them can agree."""

    @abstractmethod
    def questions(self, item: Item, style: str) -> list[str]:
        """Return what the user says in each turn."""

    @abstractmethod
    def answer(self, item: Item, style: str) -> str:
        """Return the answer that a few-shot prompt shows; raises ValueError where the data set has none."""

    @abstractmethod
    def score(self, item: Item, outputs: Sequence[Output]) -> Scored:
        """Score what was generated: the samples of one prompt, or the answers to the turns of a conversation."""

    def gold(self, item: Item) -> str:
        """Return the right answer as a report shows it, or an empty text."""
        return ""

    def parse(self, item: Item, text: str) -> str | None:
        """Return the answer that an output gives, in a form in which equal answers are equal; None without one."""
        return None

    def options(self, item: Item, style: str) -> list[str]:
        """Return the answers that are compared by their log-likelihood; empty where one can only generate."""
        return []

    def score_options(self, item: Item, style: str, options: Sequence[LogLikelihood]) -> Scored:
        """Score the log-likelihoods of the item's options."""
        raise ValueError(f"{self.name} has no options to compare")

    def metrics(
        self, items: Sequence[Item], outputs: Sequence[Sequence[str]], scores: Sequence[Scored]
    ) -> dict[str, Metric]:
        """Return the metrics that are no means over the examples."""
        return {}


def prompt(shots: Sequence[tuple[str, str]], question: str, chat: bool) -> Prompt:
    """Return a question after pairs of question and answer, as a chat or as plain text."""
    if not chat:
        before = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in shots)
        return f"{before}Question: {question}\nAnswer:"
    turns = [turn for asked, answer in shots for turn in (_said("user", asked), _said("assistant", answer))]
    return [*turns, _said("user", question)]


PLAIN_TEXT_STOPS = ("\nQuestion:",)
"""Where a model without a chat template begins to ask itself the next question."""


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
