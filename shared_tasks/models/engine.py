"""What every engine takes and gives: prompts, sampling parameters, generations, log-likelihoods."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypedDict, runtime_checkable

import msgspec


class Message(TypedDict):
    """One turn of a chat; the role is system, user or assistant."""

    role: str
    content: str


Prompt = str | Sequence[Message]
"""A plain text, or a chat that the model's own template renders."""


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to continue a prompt. Names, meanings and order of application are vLLM's.

    logit_bias is added to the logits, temperature divides them (0 takes the most likely token), then min_p, top_k and
    top_p cut the distribution in this order, each on what the one before left over, renormalised.
    """

    n: int = 1
    """Completions of each prompt."""
    temperature: float = 1.0
    top_p: float = 1.0
    """Keep the fewest most likely tokens whose probabilities sum to at least this."""
    top_k: int = 0
    """Keep this many most likely tokens; 0 or -1 keeps all."""
    min_p: float = 0.0
    """Keep the tokens that are at least this likely, relative to the most likely one."""
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    """Texts that end a completion; it is cut before the first of them."""
    seed: int | None = None
    """Makes this request's draws reproducible, whatever runs beside it. Completion i draws from seed + i."""
    logprobs: int | None = 0
    """Ask for the log-probability of each generated token (0), and of so many of the most likely tokens besides. None
    asks for none, for servers that do not tell."""
    logit_bias: dict[int, float] = {}
    ignore_eos: bool = False
    """Generate on after the end token, to max_tokens."""

    def __post_init__(self) -> None:
        """Raise ValueError, saying what was expected, for a value outside its range."""
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError(f'stop: expected a tuple of non-empty strings, like ("\\n",), got {self.stop!r}')
        greedy_once = self.temperature > 0 or self.n == 1
        for name, expected, holds in (
            ("n", "at least 1, and 1 where temperature is 0", self.n >= 1 and greedy_once),
            ("temperature", "a finite number, at least 0", 0 <= self.temperature < float("inf")),
            ("top_p", "above 0 and at most 1", 0 < self.top_p <= 1),
            ("top_k", "at least 1, or 0 or -1 for all", self.top_k >= -1),
            ("min_p", "from 0 to 1", 0 <= self.min_p <= 1),
            ("max_tokens", "at least 1", self.max_tokens >= 1),
            ("logprobs", "at least 0, or None", self.logprobs is None or self.logprobs >= 0),
            ("logit_bias", "values from -100 to 100", all(-100 <= bias <= 100 for bias in self.logit_bias.values())),
        ):
            if not holds:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")


class Completion(msgspec.Struct, frozen=True):
    """One way in which a model continued a prompt."""

    text: str
    """Without special tokens, cut before a stop string."""
    token_ids: list[int]
    """All that was generated, the end token and the tokens of a stop string too. Empty where a server hides them."""
    logprobs: list[float]
    """log P of each generated token under the model itself, in nats: before bias, temperature and truncation."""
    finish_reason: Literal["stop", "length"]
    """stop: by the end token or a stop string; length: by max_tokens or the end of the model's window."""
    top_logprobs: list[dict[int, float]] = []
    """Per generated token the most likely tokens and their log-probabilities, as many as `SamplingParams.logprobs`."""

    @property
    def cumulative_logprob(self) -> float:
        """Return the completion's log-probability in nats.

        Raises ValueError where the engine did not tell the log-probabilities.
        """
        if not self.logprobs:
            raise ValueError("expected log-probabilities of the tokens; the request or the server left them out")
        return sum(self.logprobs)


class Generation(msgspec.Struct, frozen=True):
    """What became of one prompt: its n completions and what they cost."""

    prompt_tokens: int
    """Tokens of the rendered prompt, start token included."""
    completions: list[Completion]
    latency: float
    """Seconds from the moment the request began to run until its last completion ended."""
    generated_tokens: int = 0
    """Of all completions together."""
    forward_positions: int = 0
    """Positions that went through the model, without padding; 0 from a server, which does not tell."""


class LogLikelihood(msgspec.Struct, frozen=True):
    """How likely a model finds one continuation of one context."""

    logprobs: list[float]
    """log P of each token of the continuation, in nats."""
    is_greedy: bool
    """Whether every token of the continuation is the most likely one where it stands."""
    prompt_tokens: int = 0
    """Tokens of the context, start token included."""
    forward_positions: int = 0
    """As in `Generation`; a context that several continuations share is counted with the first of them."""

    @property
    def total(self) -> float:
        """Return log P(continuation | context) in nats."""
        return sum(self.logprobs)


class Usage(msgspec.Struct):
    """Running totals of an engine since it was made."""

    requests: int = 0
    """Prompts continued, and continuations scored."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    forward_positions: int = 0
    """Positions that went through the model, without padding; 0 from a server, which does not tell."""
    seconds: float = 0.0
    """Wall time inside the engine."""

    @property
    def throughput(self) -> float:
        """Return generated tokens a second."""
        return self.generated_tokens / self.seconds if self.seconds else 0.0


@runtime_checkable
class Engine(Protocol):
    """Runs a language model on many prompts at once."""

    name: str
    """Shown in reports, and part of the keys of stored results."""
    usage: Usage

    @property
    def has_chat_template(self) -> bool:
        """Whether chats can be prompts; a server whose tokenizer is not known is taken to render them."""
        ...

    def fingerprint(self) -> str:
        """Return a text that changes when the model's content does: its weights, configuration or tokenizer."""
        ...

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the tokens of the rendered prompt, start token included, and of a continuation that follows it."""
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt, with the same parameters or with its own; results in the order of the prompts.

        `on_done(index, result)` is called as soon as a result is there, in any order. Raises ValueError before anything
        runs for a prompt that cannot be run: longer than the model's window, or a chat without a chat template.
        """
        ...

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Return log P(continuation | context) of each pair; `on_done` and errors as in `generate`.

        Context and continuation are tokenised together and split where the tokens of the context end; spaces at the end
        of a context count to the continuation.
        """
        ...


def each_with_params(
    prompts: Sequence[Prompt], params: SamplingParams | Sequence[SamplingParams]
) -> list[tuple[Prompt, SamplingParams]]:
    """Pair every prompt with its parameters.

    Raises ValueError when there are not as many parameters as prompts.
    """
    if isinstance(params, SamplingParams):
        return [(prompt, params) for prompt in prompts]
    if len(params) != len(prompts):
        raise ValueError(f"expected one SamplingParams, or one per prompt ({len(prompts)}), got {len(params)}")
    return list(zip(prompts, params, strict=True))
