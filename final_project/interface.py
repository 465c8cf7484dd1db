"""Between the server, which is given, and the engine, which you write: token ids in, token ids out.

An engine is synchronous and knows nothing of HTTP, texts, chats, stop strings or asyncio. One thread owns it: between
two steps it adds and aborts requests, and a step gives back what it has generated (see `runner`).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from shared_tasks.models.engine import SamplingParams


class Request(msgspec.Struct, frozen=True):
    """One sequence to generate. What a client asks for with several prompts, or n > 1, comes as several of these."""

    id: int
    prompt: list[int]
    """Token ids, at least one, start token included. Prompt and answer fit in the model's window."""
    params: SamplingParams
    """`n` is 1, `max_tokens` is the limit that holds, and a `seed` is this sequence's own. `stop` is empty: the server
    looks for stop strings, and aborts the sequence when it finds one."""
    score_prompt: bool = False
    """Whether the prompt's own tokens are to be given out, with their log-probabilities, before the first new one."""


class Token(NamedTuple):
    """A token and how likely it was."""

    id: int
    logprob: float | None = None
    """log P under the model itself, in nats: before bias, temperature and truncation. None where `params.logprobs` is
    None, and for a prompt's first token, which nothing precedes."""
    top_logprobs: dict[int, float] | None = None
    """The most likely tokens in its place, as many as `params.logprobs`; None where that is None or 0."""


class Output(NamedTuple):
    """What a step has generated of a sequence."""

    request_id: int
    tokens: list[Token]
    """One in most cases; several after a prompt that is scored, or by speculative decoding."""
    finish_reason: Literal["stop", "length"] | None = None
    """stop: the last token is the end token, and `ignore_eos` is not set; length: it is number `max_tokens`. After that
    the engine has forgotten the sequence."""


class Stats(NamedTuple):
    """What an engine is busy with."""

    waiting: int
    """Sequences that have not begun, or were put off."""
    running: int
    """Sequences that have a place in the batch."""
    cache_usage: float = 0.0
    """The part of the memory for keys and values that is in use, from 0 to 1."""


class Engine(Protocol):
    """Generates many sequences at a time. `engine.Engine` is where yours begins."""

    def add(self, request: Request) -> None:
        """Take a sequence in; it begins in one of the next steps."""
        ...

    def abort(self, request_id: int) -> None:
        """Forget a sequence and free what it holds at once. One that has ended, or never was, is no error."""
        ...

    def step(self) -> Sequence[Output]:
        """Do one round of work, a few milliseconds if you can, and return what it has generated.

        Aborted and newly come requests wait until it returns.
        """
        ...

    def stats(self) -> Stats:
        """Return what there is to do now. When nothing waits or runs, no step is called until a request comes."""
        ...
