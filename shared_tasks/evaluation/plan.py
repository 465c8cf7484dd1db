"""How a task is run: from a few words on a command line to a prompt style, a decoding method and its parameters."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from shared_tasks.evaluation.methods import METHODS, find_method
from shared_tasks.models.engine import SamplingParams
from shared_tasks.tasks.task import PLAIN_TEXT_STOPS, Task

LOGLIKELIHOOD = "loglikelihood"
"""The one method that generates nothing: it compares the options of a question."""
TEMPERATURE = 0.7
"""Of methods that sample, where none is given."""


@dataclass(frozen=True)
class Plan:
    """How a task is asked and answered."""

    style: str
    method: str
    params: SamplingParams
    chat: bool = True
    """Whether prompts are chats, for the model's own template, or plain text."""
    shots: int = 0
    token_budget: int | None = None
    """Tokens for each question, of each turn; None for no limit."""

    @property
    def selects(self) -> str | None:
        """The name of the value that is an item's score, where the task's own is not."""
        selects = None if self.method == LOGLIKELIHOOD else find_method(self.method).selects
        return selects and selects.format(n=self.params.n)

    def as_plain_text(self) -> "Plan":
        """Return the plan for a model without a chat template, which would ask itself the next question."""
        return replace(self, chat=False, params=msgspec.structs.replace(self.params, stop=PLAIN_TEXT_STOPS))


def make_plan(
    task: Task[Any],
    method: str | None = None,
    style: str | None = None,
    n: int | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    shots: int = 0,
    token_budget: int | None = None,
    **params: Any,
) -> Plan:
    """Return how to run a task, from what was said of it; `params` are further SamplingParams.

    `method` names a decoding method, as `find_method` knows them, or, for short, a prompt style. Without a decoding
    method the options are compared by their log-likelihood where the prompt leaves that open, otherwise outputs are
    greedy; an n above 1 or a temperature makes them samples. Raises ValueError for what does not exist and for what
    does not fit together.
    """
    if method in task.styles:
        if style not in (None, method):
            raise ValueError(f"two prompts were asked for: {method} and {style}")
        method, style = None, method
    if style is not None and style not in task.styles:
        raise ValueError(f"{task.name} has no prompt {style!r}; there are: {', '.join(task.styles)}")
    if method not in (None, LOGLIKELIHOOD, *METHODS) and ":" not in str(method):
        there = [*METHODS, *([LOGLIKELIHOOD] if task.compared else []), *task.styles]
        raise ValueError(f"{task.name} has no method {method!r}; there are: {', '.join(there)}")
    method = method or _usual_method(task, style, sampled=(n or 1) > 1 or bool(temperature))
    _check(task, method, style, n, temperature)
    if method == LOGLIKELIHOOD:
        if token_budget is not None:
            raise ValueError("a token budget is for methods that generate")
        return Plan(style or task.compared[0], method, SamplingParams(temperature=0), shots=shots)
    chosen = find_method(method)
    samples = chosen.samples
    sampling = SamplingParams(
        n=(n or chosen.default_n) if samples else 1,
        temperature=(temperature or TEMPERATURE) if samples else 0,
        max_tokens=max_tokens or task.max_tokens,
        **params,
    )
    return Plan(style or task.styles[0], method, sampling, shots=shots, token_budget=token_budget)


def _usual_method(task: Task[Any], style: str | None, sampled: bool) -> str:
    if sampled:
        return "sample"
    return LOGLIKELIHOOD if task.compared and style in (None, *task.compared) else "greedy"


def _check(task: Task[Any], method: str, style: str | None, n: int | None, temperature: float | None) -> None:
    """Raise ValueError when the parts of a plan do not fit together."""
    one_output = method == LOGLIKELIHOOD or not find_method(method).samples
    if one_output and ((n or 1) > 1 or temperature):
        raise ValueError(f"{method} has one answer a question; for n samples at a temperature use --method sample")
    if not one_output and temperature == 0:
        raise ValueError(f"{method} draws samples: expected a temperature above 0")
    if method == LOGLIKELIHOOD and (not task.compared or style not in (None, *task.compared)):
        raise ValueError(
            f"{task.name} has no options to compare" + (f" when asked by {style}" if task.compared else "")
        )
    if method == "majority" and not task.votes:
        raise ValueError(f"outputs of {task.name} are texts, of which no majority can agree")
    if not one_output and task.turns > 1 and (n or find_method(method).default_n) > 1:
        raise ValueError(f"{task.name} is a conversation of {task.turns} turns: expected n to be 1")
