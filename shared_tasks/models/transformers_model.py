"""A causal language model of transformers behind the course's interface, with a KV cache and batches."""

import sys
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from shared_tasks.models.kv_cache import PrefixCache
from shared_tasks.models.linear import use_onednn

Item = TypeVar("Item")


def load_pretrained(name_or_path: str, device: str, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """Load tokenizer and model of transformers, ready to run; dtype None is the checkpoint's own.

    Raises OSError, with transformers' explanation, when there is no such model.
    """
    tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    return tokenizer, AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype or "auto").to(device).eval()


class TransformersModel:
    """P(next token | prefix) by a model of transformers, on the CPU or a GPU.

    Keys and values of the contexts seen are kept. Of a context that begins as one of any earlier call, only the rest is
    run, and equal contexts run once: a step of sampling, beam search or best-first search costs a position a row.

    The tokenizer's start token, where it has one, is put before every context; a model without one is given the end
    token before an empty context.
    """

    def __init__(
        self,
        name_or_path: str,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 64,
        cache_positions: int = 32768,
    ):
        """Load a local folder or a name on the hub.

        At most `batch_size` rows run at a time. Keys and values are kept of at most `cache_positions` positions, or of
        those of so many rows where these are more; what was used longest ago is forgotten first. Raises OSError, with
        transformers' explanation, when there is no such model, and ValueError when its tokenizer has no end token.
        """
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer, self.model = load_pretrained(name_or_path, self.device, dtype)
        if self.device == "cpu" and dtype == torch.float32:
            use_onednn(self.model)
        self.batch_size = batch_size
        self.vocab_size: int = self.model.config.vocab_size
        if self.tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {name_or_path} has no end token")
        self.eos_token_id: int = self.tokenizer.eos_token_id
        self._bos_token_id: int | None = self.tokenizer.bos_token_id
        self._window: int = getattr(self.model.config, "max_position_embeddings", sys.maxsize)
        self._cache = PrefixCache(self.model.config.num_hidden_layers, cache_positions, self.device)

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

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Float[Tensor, "batch vocab"]:
        """Return log P(next token | context), a float32 row per context, on the CPU.

        Raises ValueError for token ids outside the vocabulary and for contexts longer than the model's window.
        """
        rows = [tuple(self._with_start(context)) for context in contexts]
        distinct = {row: i for i, row in enumerate(sorted(dict.fromkeys(rows), key=len))}
        with torch.inference_mode():
            logits = [self._run(chunk) for chunk in _chunks(list(distinct), self.batch_size)]
            logprobs = torch.cat(
                [torch.empty(0, self.vocab_size), *(one.float().log_softmax(-1).cpu() for one in logits)]
            )
        # An ordinary tensor, which unlike one of inference mode may be changed in place.
        return logprobs[[distinct[row] for row in rows]]

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
        with torch.inference_mode():
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
        return [score.clone() for score in scores]  # ordinary tensors, as above

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

    def _run(self, rows: list[tuple[int, ...]]) -> Float[Tensor, "batch vocab"]:
        """Return the logits of what follows each row; only what the cache lacks is run."""
        self._check_window(max(map(len, rows)))
        new, slots = self._cache.prepare_step(rows)
        is_real = slots > 0
        positions = (is_real.cumsum(-1) - 1).clamp_min(0)
        ids = torch.tensor([(0,) * (new - len(row)) + row[-new:] for row in rows])
        try:
            output = self.model(
                ids.to(self.device),
                attention_mask=None if is_real.all() else is_real,
                position_ids=positions[:, -new:],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        except BaseException:  # an interrupt too: slots that nothing was written to must not be used
            self._cache.forget()
            raise
        logits: Float[Tensor, "batch vocab"] = output.logits[:, -1]
        return logits


def _chunks(items: list[Item], size: int) -> list[list[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
