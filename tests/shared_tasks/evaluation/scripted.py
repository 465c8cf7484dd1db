"""What the tests of evaluation share: an engine that says what a test wants it to say, and small data sets."""

from collections.abc import Callable, Sequence

from shared_tasks.models.engine import (
    Completion,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)


class ScriptedEngine:
    """Answers the last user's text by `reply(text, sample)`, and finds a continuation as likely as `likelihood` says.

    After `stop_after` results it is interrupted, as by Ctrl-C.
    """

    name = "scripted"

    def __init__(
        self,
        reply: Callable[[str, int], str] = lambda text, sample: "",
        likelihood: Callable[[str, str], float] = lambda context, continuation: 0.0,
        model: str = "a model",
        stop_after: int | None = None,
        has_chat_template: bool = True,
    ):
        self.reply = reply
        self.likelihood = likelihood
        self.model = model
        self.left = stop_after
        self.has_chat_template = has_chat_template
        self.usage = Usage()
        self.prompts: list[Prompt] = []
        self.params: list[SamplingParams] = []

    def fingerprint(self) -> str:
        return self.model

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        return len(words(last(prompt))) + len(continuation.split())

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        results = []
        for index, (prompt, one) in enumerate(each_with_params(prompts, params)):
            self._count()
            self.prompts.append(prompt)
            self.params.append(one)
            texts = [self.reply(last(prompt), sample) for sample in range(one.n)]
            completions = [
                Completion(
                    text=text,
                    token_ids=[0] * len(words(text)),
                    logprobs=[-1.0] * len(words(text)),
                    finish_reason="stop",
                )
                for text in texts
            ]
            generated = sum(len(completion.token_ids) for completion in completions)
            result = Generation(
                prompt_tokens=len(words(last(prompt))), completions=completions, latency=0.5, generated_tokens=generated
            )
            results.append(result)
            if on_done is not None:
                on_done(index, result)
        return results

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        results = []
        for index, (context, continuation) in enumerate(zip(contexts, continuations, strict=True)):
            self._count()
            self.prompts.append(context)
            result = LogLikelihood(
                logprobs=[self.likelihood(last(context), continuation)], is_greedy=False, prompt_tokens=1
            )
            results.append(result)
            if on_done is not None:
                on_done(index, result)
        return results

    def _count(self) -> None:
        if self.left is not None:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
        self.usage.requests += 1


def last(prompt: Prompt) -> str:
    """Return what the user said last."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def words(text: str) -> list[str]:
    """Return a text's tokens."""
    return text.split() or [""]
