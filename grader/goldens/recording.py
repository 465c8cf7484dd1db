"""Models and engines that are recorded while a reference runs, and replayed while a submission does.

A submission is run on what the model said to the reference. So it needs no GPU, takes no time of the model's, and sees
the same numbers whichever engine made them. Of a context or a request that the reference never came to, a recording
knows nothing: whoever asks for one is on another path than the reference.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from shared_tasks.models.engine import (
    Engine,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.tokenizing import PromptTokenizer


class Unusable(Exception):
    """A reference test cannot be made of this input on this model; the message says why."""


class EngineModel:
    """P(next token | prefix) by an engine, which is asked for the log-probabilities of all tokens.

    Contexts are token ids without the start token. The engine takes texts, so a context must be what its own text is
    read as; otherwise Unusable is raised.
    """

    def __init__(self, engine: Engine, tokenizer: PromptTokenizer, vocab_size: int):
        self.vocab_size = vocab_size
        self.eos_token_id = tokenizer.eos_token_id
        self._engine = engine
        self._tokenizer = tokenizer
        self._params = SamplingParams(max_tokens=1, temperature=0.0, logprobs=vocab_size)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without the start token."""
        start, tokens = self._tokenizer.encode(["", text])
        return tokens[len(start) :] if tokens[: len(start)] == start else tokens

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Return a row of log-probabilities for each context."""
        texts = [self._text(context) for context in contexts]
        rows = torch.full((len(texts), self.vocab_size), -torch.inf)
        for row, generation in zip(rows, self._engine.generate(texts, self._params), strict=True):
            told = generation.completions[0].top_logprobs[0]
            row[list(told)] = torch.tensor(list(told.values()))
        total = rows.double().logsumexp(-1)
        if bool((total.abs() > 1e-2).any()):
            raise Unusable(f"the engine told only {100 * float(total.min().exp()):.1f} % of a distribution")
        return rows

    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        """Return the log-probabilities of each continuation's tokens; see `LanguageModel`."""
        return chain_logprobs(self, contexts, continuations)

    def _text(self, context: Sequence[int]) -> str:
        tokens = list(context)
        text: str = self._tokenizer.tokenizer.decode(tokens)
        if self.encode(text) != tokens:
            raise Unusable(f"the text of the tokens {tokens} is read as other tokens")
        return text


class Recorder:
    """A language model that keeps what the model it wraps says of each context, and asks it only once."""

    def __init__(self, model: LanguageModel):
        self.vocab_size, self.eos_token_id = model.vocab_size, model.eos_token_id
        self._model = model
        self._rows: dict[tuple[int, ...], Tensor] = {}

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Return the model's rows."""
        keys = [tuple(context) for context in contexts]
        new = [key for key in dict.fromkeys(keys) if key not in self._rows]
        if new:
            self._rows |= zip(new, self._model.next_token_logprobs(new), strict=True)
        return torch.stack([self._rows[key] for key in keys]) if keys else torch.empty(0, self.vocab_size)

    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        """Return the log-probabilities of each continuation's tokens; see `LanguageModel`."""
        return chain_logprobs(self, contexts, continuations)

    @property
    def recording(self) -> dict[str, Any]:
        """Return all that was said, as `RecordedModel` takes it."""
        rows = torch.stack(list(self._rows.values())) if self._rows else torch.empty(0, self.vocab_size)
        return {"eos_token_id": self.eos_token_id, "contexts": list(self._rows), "rows": rows}


class RecordedModel:
    """A language model that says what was recorded of one model, and raises LookupError for any other context."""

    def __init__(self, *recordings: dict[str, Any]):
        self._rows = torch.cat([recording["rows"] for recording in recordings])
        self.eos_token_id: int = recordings[0]["eos_token_id"]
        self.vocab_size: int = self._rows.shape[1]
        self.strayed = 0
        """How many contexts were asked for that the reference never came to."""
        contexts = [context for recording in recordings for context in recording["contexts"]]
        self._places = {tuple(context): place for place, context in enumerate(contexts)}

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Return a row of log-probabilities for each context."""
        keys = [tuple(int(token) for token in context) for context in contexts]
        missing = sum(key not in self._places for key in keys)
        if missing:
            self.strayed += missing
            raise LookupError("a right solution asks the model for no such context")
        return self._rows[[self._places[key] for key in keys]].clone()

    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        """Return the log-probabilities of each continuation's tokens; see `LanguageModel`."""
        return chain_logprobs(self, contexts, continuations)


def chain_logprobs(
    model: LanguageModel, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[Float[Tensor, "length"]]:
    """Return the log-probabilities of continuations by those of the next token after each prefix.

    Raises ValueError when there are not as many continuations as contexts.
    """
    if len(contexts) != len(continuations):
        raise ValueError(f"expected as many continuations as contexts ({len(contexts)}), got {len(continuations)}")
    pairs = list(zip(contexts, continuations, strict=True))
    rows = model.next_token_logprobs([[*x, *y[:t]] for x, y in pairs for t in range(len(y))])
    targets = torch.tensor([token for _, y in pairs for token in y], dtype=torch.long)
    return list(rows.gather(1, targets[:, None])[:, 0].split([len(y) for _, y in pairs]))


class ScriptedDraws:
    """Answers `categorical` with the tokens that a script holds for each draw, and keeps the probabilities.

    Raises LookupError for a draw of another size, for one after the last, and for every other kind of draw.
    """

    def __init__(self, script: Sequence[Sequence[int]]):
        self.script = script
        self.probs: list[Tensor] = []
        """What each draw was from, a row for each token."""

    def categorical(self, probs: Float[Tensor, "*batch vocab"]) -> Int[Tensor, "*batch"]:
        """Return the next tokens of the script."""
        place = len(self.probs)
        if place == len(self.script) or probs.shape[:-1].numel() != len(self.script[place]):
            raise LookupError("a right solution makes no such draw")
        self.probs.append(probs.detach().clone())
        return torch.tensor(self.script[place]).reshape(probs.shape[:-1])

    def bernoulli(self, p: Float[Tensor, "*shape"] | float) -> Bool[Tensor, "*shape"]:
        """Raise LookupError."""
        raise LookupError("a right solution draws with rng.categorical alone")

    def gumbel(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Raise LookupError."""
        raise LookupError("a right solution draws with rng.categorical alone")

    def uniform(self, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """Raise LookupError."""
        raise LookupError("a right solution draws with rng.categorical alone")


class RecordingEngine:
    """An engine that keeps what the engine it wraps answers to each request."""

    def __init__(self, engine: Engine):
        self.name, self.usage, self.has_chat_template = engine.name, engine.usage, engine.has_chat_template
        self.recording: dict[str, Any] = {"generations": [], "likelihoods": []}
        """All requests and their answers, as `RecordedEngine` takes them."""
        self._engine = engine

    def fingerprint(self) -> str:
        """Return the engine's."""
        return self._engine.fingerprint()

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the engine's count."""
        return self._engine.count_tokens(prompt, continuation)

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt; see `Engine`."""
        answers = self._engine.generate(prompts, params, on_done)
        requests = each_with_params(prompts, params)
        self.recording["generations"] += [(*request, answer) for request, answer in zip(requests, answers, strict=True)]
        return answers

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Return log P(continuation | context) of each pair; see `Engine`."""
        answers = self._engine.loglikelihood(contexts, continuations, on_done)
        self.recording["likelihoods"] += list(zip(contexts, continuations, answers, strict=True))
        return answers


class RecordedEngine:
    """An engine that answers the requests that were recorded, and raises LookupError for any other."""

    has_chat_template = True

    def __init__(self, recording: dict[str, Any]):
        self.name, self.usage = "recorded", Usage()
        self.strayed = 0
        """How many requests there were that the reference never made."""
        self._generations = {
            _key(prompt, msgspec.convert(params, SamplingParams)): msgspec.convert(answer, Generation)
            for prompt, params, answer in recording["generations"]
        }
        self._likelihoods = {
            _key(context, continuation): msgspec.convert(answer, LogLikelihood)
            for context, continuation, answer in recording["likelihoods"]
        }

    def fingerprint(self) -> str:
        """Return a constant: a recording is kept under a key that covers the model."""
        return "recorded"

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Raise LookupError: a recording holds no tokenizer."""
        raise LookupError("a recording counts no tokens")

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt as it was continued; see `Engine`."""
        return self._answers(self._generations, each_with_params(prompts, params), on_done)

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Return log P(continuation | context) of each pair as it was; see `Engine`."""
        return self._answers(self._likelihoods, list(zip(contexts, continuations, strict=True)), on_done)

    def _answers(
        self, known: dict[bytes, Any], requests: Sequence[tuple[Any, Any]], on_done: Callable[[int, Any], None] | None
    ) -> list[Any]:
        keys = [_key(*request) for request in requests]
        missing = sum(key not in known for key in keys)
        if missing:
            self.strayed += missing
            raise LookupError("a right solution makes no such request of the engine")
        for place, key in enumerate(keys):
            if on_done is not None:
                on_done(place, known[key])
        return [known[key] for key in keys]


def _key(*request: Any) -> bytes:
    return msgspec.json.encode(request)
