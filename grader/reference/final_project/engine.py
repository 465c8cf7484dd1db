"""The reference engine: continuous batching over a paged KV cache with shared prefixes, prompts in chunks.

It puts together what homework 3 is about: the scheduler says which tokens to compute in a step, the paged cache keeps
their keys and values, the course transformer computes them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from final_project.interface import Output, Request, Stats, Token
from grader.reference.hw3 import batching
from grader.reference.hw3.batching import Chunk, Scheduler
from grader.reference.hw3.kv_cache import PagedCache, pad_chunks
from hw3.transformer import Heads, dense_attention, load_transformer
from shared_tasks.models.linear import use_onednn
from shared_tasks.models.next_token import choose, uniforms


@dataclass(eq=False)
class _Sequence:
    """A sequence that is waiting or running."""

    request: Request
    uniforms: list[float]  # its draws
    generated: int = 0
    scored: int = 0  # tokens of the prompt that were given out
    in_cache: bool = False


class Engine:
    """Runs up to `max_batch_size` sequences at a time, and up to `max_batched_tokens` tokens in a step."""

    def __init__(
        self,
        model: str,
        max_batch_size: int = 64,
        max_batched_tokens: int = 512,
        cache_bytes: int = 128 << 20,
        block_size: int = 16,
    ):
        """Load a course model or a folder. Raises ValueError where there is none, and when the cache is too small."""
        self.model = load_transformer(model)
        use_onednn(self.model)
        config = self.model.config
        position_bytes = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        self.num_blocks = cache_bytes // (position_bytes * block_size)
        if self.num_blocks * block_size < config.max_position_embeddings:
            needed = position_bytes * config.max_position_embeddings
            raise ValueError(f"cache_bytes: expected {needed} at least, for the whole window, got {cache_bytes}")
        self.cache = PagedCache(
            config.num_hidden_layers, self.num_blocks, block_size, config.num_key_value_heads, config.head_dim
        )
        self.scheduler = Scheduler(
            max_num_seqs=max_batch_size,
            max_num_batched_tokens=max_batched_tokens,
            num_blocks=self.num_blocks,
            block_size=block_size,
            cached=self._begin,
        )
        self.sequences: dict[int, _Sequence] = {}

    def add(self, request: Request) -> None:
        """Take a sequence in; it begins in one of the next steps."""
        params = request.params
        self.sequences[request.id] = _Sequence(request, uniforms(params, params.max_tokens))
        end = None if params.ignore_eos else self.model.config.eos_token_id
        self.scheduler.add(batching.Request(request.id, request.prompt, params.max_tokens, end))

    def abort(self, request_id: int) -> None:
        """Forget a sequence and its blocks; one that has ended, or never was, is no error."""
        if request_id in self.sequences:
            self.scheduler.abort(request_id)
            self._forget(request_id)

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Compute the tokens that the scheduler has planned, and sample where a sequence's last one is among them."""
        step = self.scheduler.schedule()
        for request_id in step.preempted:
            self.cache.free(request_id)
            self.sequences[request_id].in_cache = False
        told: dict[int, list[Token]] = defaultdict(list)
        sampling: list[Chunk] = []
        logits = []
        for chunks in _alike(step.chunks):
            token_ids, positions, last = pad_chunks([chunk.start for chunk in chunks], [c.tokens for c in chunks])
            self.cache.select([chunk.id for chunk in chunks])
            scoring = [self._is_scored(chunk) for chunk in chunks]
            given = self.model(token_ids, positions, self.cache, grouped_attention, None if any(scoring) else last)
            if any(scoring):
                for chunk, row, is_scored in zip(chunks, given, scoring, strict=True):
                    if is_scored:
                        told[chunk.id] = self._score(chunk, row)
                given = given.take_along_dim(last[:, None, None], dim=1)
            rows = [row for row, chunk in enumerate(chunks) if chunk.samples]
            sampling += [chunks[row] for row in rows]
            logits.append(given[rows, 0])
        sampled = self._sample(sampling, torch.cat(logits)) if sampling else {}
        for request_id, token in sampled.items():
            told[request_id].append(token)
        finished = set(self.scheduler.update({request_id: token.id for request_id, token in sampled.items()}))
        return [self._output(request_id, tokens, request_id in finished) for request_id, tokens in told.items()]

    def stats(self) -> Stats:
        """Return the lengths of the scheduler's two queues, and the part of all blocks that hold something."""
        running = sum(sequence.in_cache for sequence in self.sequences.values())
        usage = 1 - self.cache.references().count(0) / self.num_blocks
        return Stats(len(self.sequences) - running, running, usage)

    def _begin(self, request_id: int, tokens: Sequence[int]) -> int:
        """Begin a sequence in the cache; return how many of its tokens are computed already."""
        sequence = self.sequences[request_id]
        sequence.in_cache = True
        return self.cache.add(request_id, [] if sequence.request.score_prompt else tokens)

    def _forget(self, request_id: int) -> None:
        if self.sequences.pop(request_id).in_cache:
            self.cache.free(request_id)

    def _sample(self, chunks: Sequence[Chunk], logits: Float[Tensor, "rows vocab"]) -> dict[int, Token]:
        """Draw the next token of each chunk's sequence."""
        sequences = [self.sequences[chunk.id] for chunk in chunks]
        params = [sequence.request.params for sequence in sequences]
        drawn = choose(logits, params, [sequence.uniforms[sequence.generated] for sequence in sequences])
        for chunk, sequence in zip(chunks, sequences, strict=True):
            sequence.generated += 1
            prompt = sequence.request.prompt
            if chunk.start + len(chunk.tokens) == len(prompt):
                self.cache.commit(chunk.id, prompt)
        tokens = tell(drawn.tolist(), logits, [p.logprobs for p in params])
        return {chunk.id: token for chunk, token in zip(chunks, tokens, strict=True)}

    def _is_scored(self, chunk: Chunk) -> bool:
        request = self.sequences[chunk.id].request
        return request.score_prompt and chunk.start < len(request.prompt)

    def _score(self, chunk: Chunk, logits: Float[Tensor, "positions vocab"]) -> list[Token]:
        """Return the tokens of the prompt that follow the chunk's own, and its very first one."""
        sequence = self.sequences[chunk.id]
        prompt, params = sequence.request.prompt, sequence.request.params
        scored = prompt[chunk.start + 1 : chunk.start + 1 + len(chunk.tokens)]
        tokens = tell(scored, logits[: len(scored)], [params.logprobs] * len(scored))
        first = chunk.start + 1
        if chunk.start == 0:
            tokens, first = [Token(prompt[0]), *tokens], 0
        new = tokens[max(0, sequence.scored - first) :]  # after it was preempted, some were told already
        sequence.scored += len(new)
        return new

    def _output(self, request_id: int, tokens: list[Token], finished: bool) -> Output:
        if not finished:
            return Output(request_id, tokens)
        ignore_eos = self.sequences[request_id].request.params.ignore_eos
        self._forget(request_id)
        ended = tokens[-1].id == self.model.config.eos_token_id and not ignore_eos
        return Output(request_id, tokens, "stop" if ended else "length")


def tell(token_ids: Sequence[int], logits: Float[Tensor, "rows vocab"], counts: Sequence[int | None]) -> list[Token]:
    """Return tokens with their log-probabilities under their rows' logits, and with so many of the most likely ones.

    Rows whose count is None get neither.
    """
    if all(count is None for count in counts):
        return [Token(token_id) for token_id in token_ids]
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(1, torch.tensor(token_ids)[:, None])[:, 0].tolist()
    likely = logprobs.topk(min(max(count or 0 for count in counts), logprobs.shape[1]))
    rows = zip(token_ids, own, likely.indices.tolist(), likely.values.tolist(), counts, strict=True)
    return [
        Token(token_id)
        if count is None
        else Token(token_id, logprob, dict(zip(ids[:count], values, strict=False)) if count else None)
        for token_id, logprob, ids, values, count in rows
    ]


def grouped_attention(queries: Heads, keys: Heads, values: Heads, mask: Bool[Tensor, "batch queries keys"]) -> Heads:
    """Attend without copies of keys and values for every query head, where rows have a single query.

    The query heads that share a key head stand in the place of several positions (Ainslie et al., 2023,
    https://arxiv.org/abs/2305.13245).
    """
    if queries.shape[2] > 1:
        return dense_attention(queries, keys, values, mask)
    grouped = queries.view(len(queries), keys.shape[1], -1, queries.shape[3])
    return scaled_dot_product_attention(grouped, keys, values, mask[:, None]).view_as(queries)


def _alike(chunks: Sequence[Chunk]) -> list[list[Chunk]]:
    """Return chunks in groups of similar length and similar context: a group is filled up to its longest of both.

    Neither doubles, but that contexts of up to 255 tokens go together: more rows at once are worth more there.
    """
    groups: dict[tuple[int, int], list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        length = len(chunk.tokens)
        groups[length.bit_length(), max(8, (chunk.start + length).bit_length())].append(chunk)
    return list(groups.values())
