"""An engine on a causal language model of transformers: its own decoding loop, batches and caches, on CPU or GPU."""

import hashlib
import sys
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from shared_tasks.models.engine import (
    Completion,
    Generation,
    LogLikelihood,
    Prompt,
    SamplingParams,
    Usage,
    each_with_params,
)
from shared_tasks.models.kv_cache import BatchCache, KeysAndValues
from shared_tasks.models.linear import use_onednn
from shared_tasks.models.next_token import choose, uniforms
from shared_tasks.models.tokenizing import PromptTokenizer
from shared_tasks.models.transformers_model import load_pretrained
from shared_tasks.models.tree_attention import Question, pack

# Limits of what runs at a time, beside the number of sequences.
CACHE_BYTES = 2 << 30  # of keys and values on a CPU; on a GPU half of the memory that is free
MAX_LOGITS = 1 << 27  # where log-likelihoods are asked for: half a gibibyte
MAX_SEED = 1 << 62
LONGEST = 4096  # tokens of a sequence that a batch which is open to any request makes room for
POSITIONS = {"cpu": 2048, "cuda": 16384}  # of prompts: more would leave a CPU's caches, fewer a GPU idle


@dataclass(eq=False, slots=True)
class _Request:
    """A prompt on its way through the engine."""

    key: int  # the caller's name for it
    tokens: list[int]
    params: SamplingParams
    limit: int  # of generated tokens
    began: float = 0.0
    completions: dict[int, Completion] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Row:
    """A completion in the making."""

    request: _Request
    number: int  # among the request's completions
    uniforms: list[float]  # its draws
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Prefilled:
    """A prompt that has run, some of whose completions have not begun."""

    request: _Request
    keys_and_values: KeysAndValues
    logits: Float[Tensor, "1 vocab"]
    begun: int = 0


class TransformersEngine:
    """Generates and scores with a model of transformers.

    Prompts run longest first. Up to `batch_size` sequences decode together; those that have ended leave the batch, and
    waiting ones join. A prompt runs once whatever the number of its completions, and a context once whatever the number
    of its continuations. Every completion draws from a generator of its own, so what runs beside it does not matter.
    """

    def __init__(
        self,
        name_or_path: str,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int = 256,
        name: str | None = None,
    ):
        """Load a local folder or a name on the hub.

        By default the device is a GPU where there is one, and the dtype float32 on a CPU and the checkpoint's own on a
        GPU. Raises OSError, with transformers' explanation, when there is no such model, and ValueError when its
        tokenizer has no end token.
        """
        self.name = name or name_or_path
        self.usage = Usage()
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.batch_size = batch_size
        dtype = dtype or (torch.float32 if self.device == "cpu" else None)
        tokenizer, self.model = load_pretrained(name_or_path, self.device, dtype)
        self.tokenizer = PromptTokenizer(tokenizer, self.name)
        if self.model.config._attn_implementation == "sdpa":
            self.model.set_attn_implementation("grouped_sdpa")
        if self.device == "cpu":
            use_onednn(self.model)
        self._vocab_size: int = self.model.config.vocab_size
        self._sliding_window: int = getattr(self.model.config, "sliding_window", None) or sys.maxsize
        self._window: int = getattr(self.model.config, "max_position_embeddings", sys.maxsize)
        ends = self.model.generation_config.eos_token_id
        self._ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        self._pieces: dict[int, str] = {}
        self._fingerprint: str | None = None

    @property
    def has_chat_template(self) -> bool:
        """Whether the model's tokenizer has a chat template."""
        return self.tokenizer.has_chat_template

    def fingerprint(self) -> str:
        """Return a hash of configuration, tokenizer, chat template, end tokens and weights."""
        if self._fingerprint is None:
            tokenizer = self.tokenizer.tokenizer
            texts = (sorted(tokenizer.get_vocab().items()), tokenizer.chat_template, sorted(self._ends))
            digest = hashlib.sha256(self.model.config.to_json_string().encode() + repr(texts).encode())
            for name, parameter in self.model.named_parameters():
                digest.update(name.encode())
                digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        """Return the number of tokens; see `Engine`."""
        return self.tokenizer.count(prompt, continuation)

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        """Continue every prompt; see `Engine`."""
        pairs = each_with_params(prompts, params)
        tokens = self.tokenizer.encode([self.tokenizer.render(prompt) for prompt in prompts])
        requests = [self._request(i, ids, pairs[i][1]) for i, ids in enumerate(tokens)]
        longest = max((len(request.tokens) + request.limit for request in requests), default=1)
        batch = RunningBatch(self, self._rows_at_once(longest, sum(request.params.n for request in requests)))
        batch.waiting.extend(sorted(requests, key=lambda request: -len(request.tokens)))
        generations: dict[int, Generation] = {}
        while len(generations) < len(requests):
            for index, generation in batch.step():
                generations[index] = generation
                if on_done is not None:
                    on_done(index, generation)
        return [generations[i] for i in range(len(requests))]

    def open_batch(self) -> "RunningBatch":
        """Return an empty batch with room for `batch_size` sequences of any length, if the memory is there."""
        return RunningBatch(self, self._rows_at_once(min(self._window, LONGEST), self.batch_size))

    @torch.inference_mode()
    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        """Return log P(continuation | context) of each pair; see `Engine`."""
        pairs = self.tokenizer.encode_pairs(contexts, continuations)
        lengths = [
            len(context) + len(continuation) - 1 for context, continuation in pairs
        ]  # the last is only predicted
        for i, length in enumerate(lengths):
            if length > self._window:
                raise ValueError(
                    f"context and continuation {i} have {length} tokens together, {self.name} takes {self._window}"
                )
        # A model counts a sliding window in columns: beyond it each continuation needs a row of its own.
        share = max(lengths, default=0) <= self._sliding_window
        questions: dict[tuple[tuple[int, ...], int], Question] = {}
        for i, (context, continuation) in enumerate(pairs):
            key = tuple(context), -1 if share else i
            question = questions.setdefault(key, Question(tuple(context), [], []))
            question.continuations.append(continuation)
            question.indices.append(i)
        results: dict[int, LogLikelihood] = {}
        with self._timed() as tick:
            for batch in self._question_batches(list(questions.values())):
                scores = self._score(batch)
                tick()
                for i, result in scores:
                    results[i] = result
                    self.usage.requests += 1
                    self.usage.prompt_tokens += result.prompt_tokens
                    self.usage.forward_positions += result.forward_positions
                    if on_done is not None:
                        on_done(i, result)
        return [results[i] for i in range(len(pairs))]

    # What a running batch needs of the engine

    def _request(self, key: int, tokens: list[int], params: SamplingParams) -> _Request:
        room = self._window - len(tokens)
        if room < 1:
            raise ValueError(
                f"prompt {key} has {len(tokens)} tokens, {self.name} takes {self._window}, the answer's first included"
            )
        if any(not 0 <= token < self._vocab_size for token in params.logit_bias):
            raise ValueError(f"logit_bias: expected token ids from 0 to {self._vocab_size - 1}")
        if params.seed is not None and abs(params.seed) >= MAX_SEED:
            raise ValueError(f"seed: expected a number below 2**62, got {params.seed}")
        return _Request(key, tokens, params, limit=min(params.max_tokens, room))

    def _completion(self, row: _Row) -> Completion | None:
        """Return the completion if the row's last token has ended it."""
        params, token_ids = row.request.params, row.token_ids
        text: str | None = None
        finish_reason: Literal["stop", "length"] = "stop"
        if token_ids[-1] in self._ends and not params.ignore_eos:
            text = self.tokenizer.decode(token_ids[:-1])
        elif params.stop and self._may_end(token_ids[-1], params.stop):
            whole = self.tokenizer.decode(token_ids)
            found = [position for stop in params.stop if (position := whole.find(stop)) >= 0]
            text = whole[: min(found)] if found else None
        if text is None and len(token_ids) == row.request.limit:
            text, finish_reason = self.tokenizer.decode(token_ids), "length"
        if text is None:
            return None
        return Completion(text, token_ids, row.logprobs, finish_reason, row.top_logprobs)

    def _may_end(self, token: int, stop: tuple[str, ...]) -> bool:
        """Return whether a stop string may end in this token: only then is it worth decoding the whole text."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self.tokenizer.decode([token])
        # A part of a character decodes to the replacement character; a leading space may be dropped.
        return "\ufffd" in piece or any(text[-1] in piece or text[-1] == " " for text in stop)

    # Runs of the model

    def _rows_at_once(self, longest: int, completions: int) -> int:
        """Return how many of these run together: `batch_size`, if keys and values of such length fit in memory."""
        config = self.model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        position = 2 * config.num_hidden_layers * heads * dim * self.model.dtype.itemsize
        memory = CACHE_BYTES if self.device == "cpu" else torch.cuda.mem_get_info(self.device)[0] // 2
        return max(1, min(self.batch_size, completions, int(memory // (longest * position))))

    def _prompts_at_once(self, length: int) -> int:
        """Return how many prompts of at most this length run together."""
        return max(1, min(self.batch_size, POSITIONS[torch.device(self.device).type] // length))

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> tuple[DynamicCache, Float[Tensor, "batch vocab"]]:
        """Run prompts, padded on the left; return their keys and values, and the logits of the next token."""
        length = max(map(len, prompts))
        ids, mask = (torch.zeros(len(prompts), length, dtype=torch.long) for _ in range(2))
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt)
            mask[row, length - len(prompt) :] = 1
        cache = DynamicCache()  # without the configuration: all layers keep all positions
        logits = self._forward(ids, mask, (mask.cumsum(-1) - 1).clamp_min(0), cache, logits_to_keep=1)
        return cache, logits[:, 0]

    def _step(self, tokens: Int[Tensor, "rows"], cache: BatchCache) -> Float[Tensor, "rows vocab"]:
        """Run one token of each row; return the logits of the next."""
        positions, mask = cache.prepare_step()
        logits = self._forward(tokens[:, None], mask, positions, cache, logits_to_keep=1)
        cache.advance()
        return logits[:, 0]

    def _question_batches(self, questions: list[Question]) -> Iterator[list[Question]]:
        """Yield the questions longest first, in batches of as many positions as prompts and of bounded logits."""
        batch: list[Question] = []
        for question in sorted(questions, key=lambda question: -question.length):
            longer = [*batch, question]
            columns = longer[0].length - min(len(other.context) for other in longer) + 1
            full = batch and len(batch) == self._prompts_at_once(batch[0].length)
            if full or (batch and len(longer) * columns * self._vocab_size > MAX_LOGITS):
                yield batch
                longer = [question]
            batch = longer
        if batch:
            yield batch

    def _score(self, questions: list[Question]) -> Iterator[tuple[int, LogLikelihood]]:
        """Run questions together; yield the log-likelihoods with their indices."""
        packed = pack(questions)
        columns, places = torch.unique(packed.columns, return_inverse=True)
        if all(len(question.continuations) == 1 for question in questions):
            mask: Tensor = packed.branches >= 0
        else:
            unseen = torch.finfo(self.model.dtype).min
            mask = torch.zeros(1, dtype=self.model.dtype).masked_fill(~packed.visible(), unseen)[:, None]
        logits = self._forward(packed.ids, mask, packed.positions, None, columns.to(self.device))
        targets = packed.targets.to(self.device)
        logprobs = logits[packed.rows.to(self.device), places.to(self.device)].log_softmax(-1)
        of_targets = iter(logprobs.gather(1, targets[:, None])[:, 0].tolist())
        are_greedy = iter((logprobs.argmax(-1) == targets).tolist())
        for question in questions:
            for number, (i, continuation) in enumerate(zip(question.indices, question.continuations, strict=True)):
                length = len(continuation)
                yield (
                    i,
                    LogLikelihood(
                        logprobs=list(islice(of_targets, length)),
                        is_greedy=all(list(islice(are_greedy, length))),
                        prompt_tokens=len(question.context),
                        forward_positions=length - 1 + (0 if number else len(question.context)),
                    ),
                )

    def _forward(
        self,
        ids: Int[Tensor, "batch new"],
        mask: Shaped[Tensor, "batch columns"] | Float[Tensor, "batch 1 new columns"],
        positions: Int[Tensor, "batch new"],
        cache: DynamicCache | BatchCache | None,
        logits_to_keep: int | Int[Tensor, "kept"],
    ) -> Float[Tensor, "batch kept vocab"]:
        logits: Tensor = self.model(
            ids.to(self.device),
            attention_mask=mask.to(self.device),
            position_ids=positions.to(self.device),
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=logits_to_keep,
        ).logits
        return logits.float()

    @contextmanager
    def _timed(self) -> Iterator[Callable[[], None]]:
        """Add the time inside to the usage, on leaving and whenever the function that it gives is called."""
        clock = time.perf_counter()

        def tick() -> None:
            nonlocal clock
            now = time.perf_counter()
            self.usage.seconds += now - clock
            clock = now

        try:
            yield tick
        finally:
            tick()


class RunningBatch:
    """Generations in progress. Requests join between steps of the model, and leave when they end or are aborted."""

    def __init__(self, engine: TransformersEngine, max_rows: int):
        self.waiting: deque[_Request] = deque()
        self._engine = engine
        self._ready: deque[_Prefilled] = deque()
        self._rows: list[_Row] = []
        self._cache = BatchCache(engine.model.config.num_hidden_layers, max_rows)
        self._logits = torch.empty(0, engine._vocab_size, device=engine.device)

    def add(self, key: int, prompt: Prompt, params: SamplingParams) -> None:
        """Let a request wait for its turn. Raises ValueError for a prompt that cannot be run."""
        tokenizer = self._engine.tokenizer
        (tokens,) = tokenizer.encode([tokenizer.render(prompt)])
        self.waiting.append(self._engine._request(key, tokens, params))

    @torch.inference_mode()
    def abort(self, keys: Container[int]) -> None:
        """Drop the requests with these keys, waiting or running."""
        self.waiting = deque(request for request in self.waiting if request.key not in keys)
        self._ready = deque(prefilled for prefilled in self._ready if prefilled.request.key not in keys)
        self._logits = self._logits[self._drop([row.request.key in keys for row in self._rows])]

    @torch.inference_mode()
    def step(self) -> list[tuple[int, Generation]]:
        """Run the model once over all completions in progress; return the generations that this ended, with keys."""
        engine = self._engine
        ended: list[tuple[int, Generation]] = []
        with engine._timed():
            if len(self._rows) <= self._cache.max_rows * 7 // 8:  # prompts are cheaper by the dozen
                self._logits = torch.cat([self._logits, *self._join()])
            if not self._rows:
                return []
            tokens = self._choose()
            completions = [engine._completion(row) for row in self._rows]
            for row, completion in zip(self._rows, completions, strict=True):
                if completion is not None:
                    row.request.completions[row.number] = completion
                    if len(row.request.completions) == row.request.params.n:
                        ended.append((row.request.key, _generation(row.request)))
            kept = self._drop([completion is not None for completion in completions])
            self._logits = engine._step(tokens[kept], self._cache) if kept else self._logits[:0]
            for _, generation in ended:
                engine.usage.requests += 1
                engine.usage.prompt_tokens += generation.prompt_tokens
                engine.usage.generated_tokens += generation.generated_tokens
                engine.usage.forward_positions += generation.forward_positions
        return ended

    def _drop(self, dropped: Sequence[bool]) -> list[int]:
        """Let rows leave; return where each of the others was."""
        kept = list(range(len(self._rows)))
        for i in reversed(range(len(self._rows))):
            if dropped[i]:
                self._cache.leave(i)
                self._rows[i], kept[i] = self._rows[-1], kept[-1]  # as the cache does
                self._rows.pop()
                kept.pop()
        return kept

    def _join(self) -> list[Float[Tensor, "joined vocab"]]:
        """Begin completions until the batch is full; return the logits of their first tokens."""
        logits, rows, cache, ready = [], self._rows, self._cache, self._ready
        while (free := cache.max_rows - len(rows)) and (self.waiting or ready):
            if not ready:
                ready.extend(self._prefill_next(free))
            prefilled = ready[0]
            request = prefilled.request
            copies = min(free, request.params.n - prefilled.begun)
            cache.join(prefilled.keys_and_values, copies)
            logits.append(prefilled.logits.expand(copies, -1))
            for number in range(prefilled.begun, prefilled.begun + copies):
                rows.append(_Row(request, number, uniforms(request.params, request.limit, number)))
            prefilled.begun += copies
            if prefilled.begun == request.params.n:
                ready.popleft()
        return logits

    def _prefill_next(self, free: int) -> Iterator[_Prefilled]:
        """Run the next prompts, as many as go together and have a row to begin in."""
        chunk: list[_Request] = []
        waiting = self.waiting
        at_once = self._engine._prompts_at_once(len(waiting[0].tokens))
        while waiting and free > 0 and len(chunk) < at_once:
            request = waiting.popleft()
            request.began = time.perf_counter()
            chunk.append(request)
            free -= request.params.n
        cache, logits = self._engine._prefill([request.tokens for request in chunk])
        for row, request in enumerate(chunk):
            length = len(request.tokens)
            keys_and_values = [(layer.keys[row, :, -length:], layer.values[row, :, -length:]) for layer in cache.layers]
            yield _Prefilled(request, keys_and_values, logits[row : row + 1])

    def _choose(self) -> Int[Tensor, "rows"]:
        """Choose each row's next token, and note it and its log-probability."""
        rows, logits = self._rows, self._logits
        params = [row.request.params for row in rows]
        tokens = choose(logits, params, [row.uniforms[len(row.token_ids)] for row in rows])
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.token_ids.append(token)
        if any(p.logprobs is not None for p in params):
            logprobs = logits.log_softmax(-1)
            for row, logprob in zip(rows, logprobs.gather(1, tokens[:, None])[:, 0].tolist(), strict=True):
                if row.request.params.logprobs is not None:
                    row.logprobs.append(logprob)
            for i, p in enumerate(params):
                if p.logprobs:
                    top = logprobs[i].topk(min(p.logprobs, logprobs.shape[1]))
                    rows[i].top_logprobs.append(dict(zip(top.indices.tolist(), top.values.tolist(), strict=True)))
        return tokens


def _generation(request: _Request) -> Generation:
    completions = [request.completions[number] for number in range(request.params.n)]
    generated = sum(len(completion.token_ids) for completion in completions)
    return Generation(
        prompt_tokens=len(request.tokens),
        completions=completions,
        latency=time.perf_counter() - request.began,
        generated_tokens=generated,
        forward_positions=len(request.tokens) + generated - len(completions),  # last tokens need not run
    )


def _grouped_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "batch heads new dim"],
    key: Float[Tensor, "batch key_heads columns dim"],
    value: Float[Tensor, "batch key_heads columns dim"],
    attention_mask: Float[Tensor, "batch 1 new columns"] | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch new heads dim"], None]:
    """Attend as transformers' sdpa does, without its copies of keys and values for every query head in a step.

    The query heads that share a key head stand in the place of several positions (Ainslie et al. 2023).
    """
    if query.shape[2] > 1:
        attended: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return attended
    batch, heads, _, dim = query.shape
    grouped = query.view(batch, key.shape[1], heads // key.shape[1], dim)
    output = torch.nn.functional.scaled_dot_product_attention(grouped, key, value, attention_mask, scale=scaling)
    return output.reshape(batch, 1, heads, value.shape[3]), None


def _additive_mask(*args: Any, **kwargs: Any) -> Float[Tensor, "batch 1 new columns"] | None:
    """Return transformers' mask as numbers to add, made once for all layers rather than in each."""
    mask = sdpa_mask(*args, **kwargs)
    if mask is None:
        return None
    unseen = torch.finfo(kwargs["dtype"]).min
    return torch.zeros((), dtype=kwargs["dtype"], device=mask.device).masked_fill(~mask, unseen)


AttentionInterface.register("grouped_sdpa", _grouped_attention)
AttentionMaskInterface.register("grouped_sdpa", _additive_mask)
