"""An engine that answers from a script, so that a test knows what a model says and sees what it was asked."""

import re
from collections.abc import Callable, Mapping, Sequence

from shared_tasks.models.engine import (
    Completion,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)

Reply = str | tuple[str, Sequence[float]]
"""A text whose tokens are certain, or a text and the log-probability of each of its tokens."""
Script = Mapping[str, Sequence[Reply]] | Callable[[Prompt, SamplingParams], Sequence[Reply]]


def split_tokens(text: str) -> list[str]:
    """Return the tokens of a text: its words, each with the white space before it."""
    return re.findall(r"\s*\S+|\s+$", text)


class ScriptedEngine:
    """Answers from a table, or by a function, and keeps what it was asked.

    A table has a list of replies for each prompt (a chat is looked up by its last message); they are given out in
    order, n at a request, each once. A function gets prompt and parameters and returns the n replies. Tokens are words;
    max_tokens and stop strings cut a reply as they would a model's. `calls` holds the prompts of each call of
    `generate`, `params` the parameters of each prompt, `scored` the pairs of each call of `loglikelihood`.
    """

    def __init__(
        self,
        script: Script,
        logprobs: Callable[[Prompt, str], Sequence[float]] = lambda context, continuation: [],
        name: str = "scripted",
        has_chat_template: bool = True,
    ):
        """Take the script, and for `loglikelihood` a function that returns each token's log-probability."""
        self.script = script
        self.logprobs = logprobs
        self.name = name
        self.has_chat_template = has_chat_template
        self.usage = Usage()
        self.calls: list[list[Prompt]] = []
        self.params: list[SamplingParams] = []
        self.scored: list[list[tuple[Prompt, str]]] = []
        self._given: dict[str, int] = {}
        self._ids: dict[str, int] = {}

    @property
    def prompts(self) -> list[Prompt]:
        """Return every prompt that was continued, in order."""
        return [prompt for call in self.calls for prompt in call]

    def fingerprint(self) -> str:
        """Return the engine's name: a script has no weights."""
        return self.name

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the number of words."""
        return _count(prompt) + len(split_tokens(continuation))

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Answer every prompt from the script.

        Raises ValueError for one string in place of a list of prompts, and where the script has too few replies.
        """
        if isinstance(prompts, str):
            raise ValueError(f"expected a list of prompts, got one string: {prompts!r}")
        pairs = each_with_params(prompts, params)
        self.calls.append(list(prompts))
        generations = []
        for index, (prompt, settings) in enumerate(pairs):
            self.params.append(settings)
            completions = [self._completion(reply, settings) for reply in self._replies(prompt, settings)]
            count = sum(len(completion.token_ids) for completion in completions)
            generation = Generation(_count(prompt), completions, latency=0.0, generated_tokens=count)
            self.usage.requests += 1
            self.usage.prompt_tokens += generation.prompt_tokens
            self.usage.generated_tokens += count
            generations.append(generation)
            if on_done is not None:
                on_done(index, generation)
        return generations

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Score every pair by the given function. Raises ValueError unless contexts and continuations pair up."""
        if isinstance(contexts, str) or isinstance(continuations, str) or len(contexts) != len(continuations):
            raise ValueError("expected a list of contexts and a list of as many continuations")
        pairs = list(zip(contexts, continuations, strict=True))
        self.scored.append(pairs)
        results = []
        for index, (context, continuation) in enumerate(pairs):
            result = LogLikelihood(list(self.logprobs(context, continuation)), False, _count(context))
            self.usage.requests += 1
            self.usage.prompt_tokens += result.prompt_tokens
            results.append(result)
            if on_done is not None:
                on_done(index, result)
        return results

    def _replies(self, prompt: Prompt, settings: SamplingParams) -> Sequence[Reply]:
        if callable(self.script):
            replies = self.script(prompt, settings)
        else:
            key = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            given = self._given.get(key, 0)
            replies = self.script.get(key, ())[given : given + settings.n]
            self._given[key] = given + settings.n
        if len(replies) < settings.n:
            raise ValueError(f"the script has no {settings.n} (more) replies to {prompt!r}")
        return replies[: settings.n]

    def _completion(self, reply: Reply, settings: SamplingParams) -> Completion:
        text, logprobs = (reply, None) if isinstance(reply, str) else reply
        tokens = split_tokens(text)
        scores = [0.0] * len(tokens) if logprobs is None else list(logprobs)
        if len(scores) != len(tokens):
            raise ValueError(f"expected a log-probability for each of the {len(tokens)} words of {text!r}")
        length = next((i for i in range(1, len(tokens) + 1) if _stops("".join(tokens[:i]), settings.stop)), len(tokens))
        ended = length <= settings.max_tokens
        length = min(length, settings.max_tokens)
        text = "".join(tokens[:length])
        cuts = [text.index(stop) for stop in settings.stop if stop in text]
        return Completion(
            text=text[: min(cuts)] if cuts else text,
            token_ids=[self._ids.setdefault(token, len(self._ids)) for token in tokens[:length]],
            logprobs=[] if settings.logprobs is None else scores[:length],
            finish_reason="stop" if ended else "length",
        )


def _stops(text: str, stop: Sequence[str]) -> bool:
    return any(string in text for string in stop)


def _count(prompt: Prompt) -> int:
    texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
    return sum(len(split_tokens(text)) for text in texts)
