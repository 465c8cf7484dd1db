"""Answers in the making: tokens in, pieces of text with log-probabilities out, in the shapes of the protocol."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from final_project.interface import Token
from final_project.protocol import (
    AnswerMessage,
    ChatChoice,
    ChatLogprobs,
    CompletionChoice,
    CompletionLogprobs,
    TokenLogprob,
)
from final_project.texts import TextStream


class Piece(NamedTuple):
    """What an answer has grown by."""

    text: str
    tokens: list[Token]
    """Empty where no log-probabilities are asked for."""
    offset: int
    """Characters of the tokens before these."""
    is_first: bool


class Answer:
    """One answer, from its first token to its last."""

    def __init__(
        self, index: int, tokenizer: Any, stop: Sequence[str], logprobs: int | None, prompt: list[int], echo: bool
    ):
        """Begin an answer; with `echo` it begins with the prompt."""
        self.index = index
        self.tokenizer = tokenizer
        self.logprobs = logprobs
        self.generated = 0
        """Tokens, the end token and those of a stop string included."""
        self.finish_reason: Literal["stop", "length"] | None = None
        self._stream = TextStream(tokenizer, stop)
        self._scored_left = len(prompt) if echo and logprobs is not None else 0
        self._text = tokenizer.decode(prompt, skip_special_tokens=True) if echo else ""
        self._tokens: list[Token] = []
        self._offset = 0
        self._is_first = True

    def add(self, tokens: Sequence[Token], finish_reason: Literal["stop", "length"] | None) -> None:
        """Add what the engine has generated; what follows a stop string is dropped."""
        for place, token in enumerate(tokens, start=1):
            if self.logprobs is not None:
                self._tokens.append(token)
            if self._scored_left:  # of the prompt
                self._scored_left -= 1
                continue
            self.generated += 1
            is_last = place == len(tokens) and finish_reason is not None
            self._text += self._stream.add(token.id, is_last)
            if self._stream.stopped:
                self.finish_reason = "stop"
                return
        self.finish_reason = finish_reason

    def has_news(self) -> bool:
        """Return whether there is something to tell since `take` was last called."""
        return bool(self._text or self._tokens or self.finish_reason)

    def take(self) -> Piece:
        """Return what is new since the last call."""
        piece = Piece(self._text, self._tokens, self._offset, self._is_first)
        self._offset += sum(len(self.token_text(token.id)) for token in self._tokens)
        self._text, self._tokens, self._is_first = "", [], False
        return piece

    def token_text(self, token_id: int) -> str:
        """Return a token as text, special tokens and all; a part of a character as the replacement character."""
        text: str = self.tokenizer.decode([token_id])
        return text


def completion_choice(answer: Answer, piece: Piece) -> CompletionChoice:
    """Return a piece as /v1/completions gives it, whole or in a stream."""
    logprobs = None if answer.logprobs is None else _completion_logprobs(answer, piece)
    return CompletionChoice(index=answer.index, text=piece.text, logprobs=logprobs, finish_reason=answer.finish_reason)


def chat_choice(answer: Answer, piece: Piece) -> ChatChoice:
    """Return a whole answer as /v1/chat/completions gives it."""
    message = AnswerMessage(role="assistant", content=piece.text)
    return ChatChoice(
        index=answer.index,
        message=message,
        logprobs=_chat_logprobs(answer, piece),
        finish_reason=answer.finish_reason,
    )


def chat_delta(answer: Answer, piece: Piece) -> dict[str, Any]:
    """Return a piece as a stream of /v1/chat/completions gives it."""
    role = {"role": "assistant"} if piece.is_first else {}
    return {
        "index": answer.index,
        "delta": role | {"content": piece.text},
        "logprobs": _chat_logprobs(answer, piece),
        "finish_reason": answer.finish_reason,
    }


def _completion_logprobs(answer: Answer, piece: Piece) -> CompletionLogprobs:
    texts = [answer.token_text(token.id) for token in piece.tokens]
    offsets = [piece.offset]
    for text in texts:
        offsets.append(offsets[-1] + len(text))
    top = [
        {answer.token_text(other): logprob for other, logprob in token.top_logprobs.items()}
        if token.top_logprobs is not None
        else None
        for token in piece.tokens
    ]
    return CompletionLogprobs(
        tokens=texts,
        token_logprobs=[token.logprob for token in piece.tokens],
        top_logprobs=top if answer.logprobs else None,
        text_offset=offsets[:-1],
    )


def _chat_logprobs(answer: Answer, piece: Piece) -> ChatLogprobs | None:
    if answer.logprobs is None:
        return None

    def entry(token_id: int, logprob: float) -> TokenLogprob:
        text = answer.token_text(token_id)
        return TokenLogprob(token=text, logprob=logprob, bytes=list(text.encode()))

    content = []
    for token in piece.tokens:
        told = entry(token.id, token.logprob or 0.0)
        told["top_logprobs"] = [entry(other, logprob) for other, logprob in (token.top_logprobs or {}).items()]
        content.append(told)
    return ChatLogprobs(content=content)
