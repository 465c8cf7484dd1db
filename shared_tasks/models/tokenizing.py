"""From prompts to token ids and back, alike for every engine."""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from shared_tasks.models.engine import Prompt


class PromptTokenizer:
    """A tokenizer of transformers with the rules for start tokens, chats and continuations.

    A text is given the start token once: as the tokenizer itself does it, not again where the text begins with it. A
    tokenizer that adds none although its start token is its end token, as GPT-2's, separates documents by it; there it
    is put before every text.
    """

    def __init__(self, tokenizer: Any, name: str):
        """Keep a tokenizer; `name` is the model's, for messages. Raises ValueError when it has no end token."""
        if tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {name} has no end token")
        self.tokenizer = tokenizer
        self.name = name
        self.eos_token_id: int = tokenizer.eos_token_id
        self._prefix_token_id: int = (
            tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        )
        self._prefix: str = tokenizer.decode([self._prefix_token_id])
        separates_documents = tokenizer.bos_token_id == tokenizer.eos_token_id
        adds_start = self._prefix_token_id in tokenizer("a").input_ids[:1]
        self._start = [self._prefix_token_id] if separates_documents and not adds_start else []

    @property
    def has_chat_template(self) -> bool:
        """Whether chats can be rendered."""
        return self.tokenizer.chat_template is not None

    def render(self, prompt: Prompt) -> str:
        """Return a plain text as it is, and a chat as the model's template writes it, up to the assistant's turn.

        Raises ValueError when there is no template, or when it refuses the chat.
        """
        if isinstance(prompt, str):
            return prompt
        if not self.has_chat_template:
            raise ValueError(f"{self.name} has no chat template: give plain texts, or take a model that has one")
        try:
            text: str = self.tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
        except (TemplateError, KeyError, TypeError) as error:
            raise ValueError(f"the chat template of {self.name} refuses this chat ({error}): {prompt!r}") from error
        return text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, start token included."""
        started = {text: text.startswith(self._prefix) for text in texts}
        tokens: dict[str, list[int]] = {}
        for has_start, start in ((True, []), (False, self._start)):
            chosen = [text for text in started if started[text] == has_start]
            if chosen:
                encoded = self._encode(chosen, not has_start)
                tokens |= {text: [*start, *ids] for text, ids in zip(chosen, encoded, strict=True)}
        return [tokens[text] or [self._prefix_token_id] for text in texts]

    def _encode(self, texts: list[str], add_special_tokens: bool) -> list[list[int]]:
        if self.tokenizer.is_fast:  # without the offsets that nobody asks for
            fast = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
            return [encoding.ids for encoding in fast]
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=add_special_tokens).input_ids
        return ids

    def encode_pairs(
        self, contexts: Sequence[Prompt], continuations: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """Return the token ids of each context and of the continuation that follows it.

        White space at the end of a context goes over to the continuation; both are tokenised together and split where
        the tokens of the context alone end, as lm-evaluation-harness does it (`_encode_pair`). Raises ValueError when
        there are not as many continuations as contexts, or when one adds no token.
        """
        if len(contexts) != len(continuations):
            raise ValueError(f"expected as many continuations as contexts ({len(contexts)}), got {len(continuations)}")
        texts = [self.render(context) for context in contexts]
        stripped = [text.rstrip() for text in texts]
        wholes = [text + continuation for text, continuation in zip(texts, continuations, strict=True)]
        tokens = self.encode([*stripped, *wholes])
        pairs = []
        for i, (context, whole) in enumerate(zip(tokens[: len(texts)], tokens[len(texts) :], strict=True)):
            continuation = whole[len(context) :]
            if not stripped[i] and whole[0] != self._prefix_token_id:
                continuation = whole  # nothing conditions it but the start token that `encode` made up
            if not continuation:
                raise ValueError(f"continuation {i} adds no token to its context: {continuations[i]!r}")
            pairs.append((context, continuation))
        return pairs

    def count(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the number of tokens of a prompt, and of the continuation that follows it, if any."""
        if not continuation:
            return len(self.encode([self.render(prompt)])[0])
        return sum(len(part) for part in self.encode_pairs([prompt], [continuation])[0])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text
