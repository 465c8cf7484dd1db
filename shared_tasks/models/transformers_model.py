"""A causal language model of transformers behind the course's interface, with a KV cache and batches."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache


def load_pretrained(name_or_path: str, device: str, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """Load tokenizer and model of transformers, ready to run; dtype None is the checkpoint's own.

    Raises OSError, with transformers' explanation, when there is no such model.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    return tokenizer, AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype or "auto").to(device).eval()


class TransformersModel:
    """P(next token | prefix) by a model of transformers, on the CPU or a GPU.

    Calls that extend the contexts of the call before by the same number of tokens run only the new tokens: the keys and
    values of the last call are kept. Rows may be dropped, repeated or reordered between calls, as sampling and beam
    search do.

    The tokenizer's start token, where it has one, is put before every context; a model without one is given the end
    token before an empty context.
    """

    def __init__(
        self,
        name_or_path: str,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 64,
    ):
        """Load a local folder or a name on the hub; at most `batch_size` rows run at a time without a cache.

        Raises OSError, with transformers' explanation, when there is no such model, and ValueError when its tokenizer
        has no end token.
        """
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer, self.model = load_pretrained(name_or_path, self.device, dtype)
        self.batch_size = batch_size
        self.vocab_size: int = self.model.config.vocab_size
        if self.tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {name_or_path} has no end token")
        self.eos_token_id: int = self.tokenizer.eos_token_id
        self._bos_token_id: int | None = self.tokenizer.bos_token_id
        self._window: int = getattr(self.model.config, "max_position_embeddings", sys.maxsize)
        self._forget()

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without any special token."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def encode_chat(self, message: str) -> list[int]:
        """Return the token ids of a user's message in the model's chat template, up to where the assistant speaks.

        The start token is left out, as everywhere. Without a template the message stands as a question in plain text.
        """
        if self.tokenizer.chat_template is None:
            return self.encode(f"Question: {message}\nAnswer:")
        chat = [{"role": "user", "content": message}]
        text: str = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return self.encode(text.removeprefix(self.tokenizer.bos_token or ""))

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    @torch.inference_mode()
    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Return log P(next token | context), a float32 row per context, on the CPU.

        Raises ValueError for token ids outside the vocabulary and for contexts longer than the model's window.
        """
        rows = [self._with_start(context) for context in contexts]
        if not rows:
            return torch.empty(0, self.vocab_size)
        extension = self._extension(rows)
        logits = self._cold(rows) if extension is None else self._extended(rows, *extension)
        return logits.float().log_softmax(-1).cpu()

    @torch.inference_mode()
    def continuation_logprobs(
        self, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> list[Float[Tensor, "length"]]:
        """Return log P of each token of each continuation, float32, on the CPU.

        Raises ValueError when there are not as many continuations as contexts, and as `next_token_logprobs`.
        """
        if len(contexts) != len(continuations):
            raise ValueError(f"expected as many continuations as contexts ({len(contexts)}), got {len(continuations)}")
        starts = [self._with_start(context) for context in contexts]
        rows = [
            [*start, *self._checked(continuation)] for start, continuation in zip(starts, continuations, strict=True)
        ]
        scores = [torch.empty(0)] * len(rows)
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for chunk in _chunks([i for i in by_length if len(rows[i]) > len(starts[i])], self.batch_size):
            length = max(len(rows[i]) for i in chunk)
            self._check_window(length)
            # Padding stands on the right, where causal attention does not see it.
            ids = torch.zeros(len(chunk), length, dtype=torch.long)
            for row, i in enumerate(chunk):
                ids[row, : len(rows[i])] = torch.tensor(rows[i])
            first = min(len(starts[i]) for i in chunk) - 1  # no earlier position is asked for
            logits = self.model(ids.to(self.device), logits_to_keep=length - first).logits
            for row, i in enumerate(chunk):
                targets = ids[row, len(starts[i]) : len(rows[i])].to(self.device)
                wanted = logits[row, len(starts[i]) - 1 - first : len(rows[i]) - 1 - first].float()
                scores[i] = wanted.log_softmax(-1).gather(1, targets[:, None])[:, 0].cpu()
        return scores

    def _with_start(self, context: Sequence[int]) -> list[int]:
        tokens = self._checked(context)
        if self._bos_token_id is not None:
            return [self._bos_token_id, *tokens]
        return tokens or [self.eos_token_id]

    def _checked(self, tokens: Sequence[int]) -> list[int]:
        checked = [int(token) for token in tokens]
        for token in checked:
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"expected token ids from 0 to {self.vocab_size - 1}, got {token}")
        return checked

    def _check_window(self, length: int) -> None:
        if length > self._window:
            raise ValueError(f"expected at most {self._window} tokens, the model's window, got {length}")

    # The cache: the rows of the last call, left-padded to one length, with their keys and values.

    def _forget(self) -> None:
        self._rows: dict[tuple[int, ...], int] = {}
        self._cache: DynamicCache | None = None
        self._mask: Int[Tensor, "batch length"] | None = None

    def _extension(self, rows: list[list[int]]) -> tuple[list[int], int] | None:
        """Return the cached row that each row extends, and by how many tokens all of them do; None if they do not."""
        for new in sorted({len(rows[0]) - len(cached) for cached in self._rows}):
            parents = [self._rows.get(tuple(row[:-new])) for row in rows] if new > 0 else [None]
            if None not in parents:
                return [parent for parent in parents if parent is not None], new
        return None

    def _cold(self, rows: list[list[int]]) -> Float[Tensor, "batch vocab"]:
        """Run whole contexts, in chunks of similar length; keep the cache where one chunk holds them all."""
        self._forget()
        logits = torch.empty(len(rows), self.vocab_size, dtype=self.model.dtype, device=self.device)
        by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for chunk in _chunks(by_length, self.batch_size):
            length = max(len(rows[i]) for i in chunk)
            ids, mask = (torch.zeros(len(chunk), length, dtype=torch.long) for _ in range(2))
            for row, i in enumerate(chunk):
                ids[row, length - len(rows[i]) :] = torch.tensor(rows[i])
                mask[row, length - len(rows[i]) :] = 1
            cache = DynamicCache(config=self.model.config) if len(chunk) == len(rows) else None
            logits[chunk] = self._forward(ids, mask.to(self.device), cache)
            if cache is not None:
                self._keep([rows[i] for i in chunk], cache, mask.to(self.device))
        return logits

    def _extended(self, rows: list[list[int]], parents: list[int], new: int) -> Float[Tensor, "batch vocab"]:
        """Run only the last `new` tokens of each row, on top of what its parent row left in the cache."""
        assert self._cache is not None
        assert self._mask is not None
        cache, mask = self._cache, self._mask
        if parents != list(range(len(mask))):
            index = torch.tensor(parents, device=self.device)
            cache.batch_select_indices(index)
            mask = mask[index]
        mask = torch.cat([mask, mask.new_ones(len(rows), new)], dim=1)
        logits = self._forward(torch.tensor([row[-new:] for row in rows]), mask, cache)
        self._keep(rows, cache, mask)
        return logits

    def _keep(self, rows: list[list[int]], cache: DynamicCache, mask: Int[Tensor, "batch length"]) -> None:
        self._rows = {tuple(row): i for i, row in enumerate(rows)}
        self._cache, self._mask = cache, mask

    def _forward(
        self, ids: Int[Tensor, "batch new"], mask: Int[Tensor, "batch length"], cache: DynamicCache | None
    ) -> Float[Tensor, "batch vocab"]:
        """Return the last position's logits; positions count from each row's first real token."""
        self._check_window(mask.shape[1])
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        output = self.model(
            ids.to(self.device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1,
        )
        logits: Float[Tensor, "batch vocab"] = output.logits[:, -1]
        return logits


def _chunks(indices: list[int], size: int) -> list[list[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]
