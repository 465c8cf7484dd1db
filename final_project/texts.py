"""From token ids to text while they come, up to a stop string."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TextStream:
    """The text of one answer.

    What may yet change is held back: the first bytes of a character, and what a stop string may begin with.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]):
        """Begin an answer; `tokenizer` is a fast one of transformers."""
        self._tokenizer = tokenizer
        self._stop = stop
        self._longest_stop = max(map(len, stop), default=0)
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._text = ""
        self._given = 0  # characters
        self.stopped = False

    def add(self, token_id: int, last: bool) -> str:
        """Return the text that has become certain with a token, perhaps none; with the last one all that is left."""
        self._ids.append(token_id)
        searched = max(0, len(self._text) - self._longest_stop + 1)
        self._text += self._decoder.step(self._tokenizer.backend_tokenizer, token_id) or ""
        if last:  # a character that was begun and never ended shows as the replacement character
            self._text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        found = [place for text in self._stop if (place := self._text.find(text, searched)) >= 0]
        if found:
            self._text, self.stopped = self._text[: min(found)], True
        certain = len(self._text) if last or self.stopped else len(self._text) - self._begun_stop()
        piece, self._given = self._text[self._given : certain], max(self._given, certain)
        return piece

    def _begun_stop(self) -> int:
        """Return the length of the longest end of the text that a stop string begins with."""
        for length in range(min(self._longest_stop - 1, len(self._text)), 0, -1):
            if any(text.startswith(self._text[-length:]) for text in self._stop):
                return length
        return 0
