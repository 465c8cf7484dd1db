"""The reference engine: continuous batching over a paged KV cache with shared prefixes, prompts in chunks.

It puts together what homework 3 is about: the scheduler says which tokens to compute in a step, the paged cache keeps
their keys and values, the course transformer computes them. While few sequences run, prompt lookup may guess some
tokens of each, which are verified in one step.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from final_project.interface import Output, Request, Stats, Token
from grader.reference.hw3 import batching
from grader.reference.hw3.batching import Chunk, Scheduler
from grader.reference.hw3.kv_cache import PagedCache, pad_chunks
from grader.reference.hw3.speculative import draft_with_ngrams
from hw3.transformer import Heads, dense_attention, load_transformer
from shared_tasks.models.linear import use_onednn
from shared_tasks.models.next_token import choose, uniforms

FEW = 4  # sequences: with more, a guess that is wrong costs more than one that is right gains
MAX_NGRAM_SIZE = 3


@dataclass(eq=False)
class _Sequence:
    """A sequence that is waiting or running."""

    request: Request
    uniforms: list[float]  # its draws
    tokens: list[int] = field(default_factory=list)  # generated
    ahead: deque[Token] = field(default_factory=deque)  # those that come next: they were guessed, and guessed right
    scored: int = 0  # tokens of the prompt that were given out
    in_cache: bool = False


class Engine:
    """Runs up to `max_batch_size` sequences at a time, and up to `max_batched_tokens` tokens in a step.

    While at most `FEW` run, up to `num_speculative_tokens` are guessed of each and computed in the same step, and those
    before the first wrong one are kept (Leviathan et al., 2023, https://arxiv.org/abs/2211.17192). A token follows from
    its context and its own draw, so what is generated stays the same, greedy or not.
    """

    def __init__(
        self,
        model: str,
        max_batch_size: int = 64,
        max_batched_tokens: int = 512,
        cache_bytes: int = 128 << 20,
        block_size: int = 16,
        num_speculative_tokens: int = 0,
    ):
        """Load a course model or a folder. Raises ValueError where there is none, and when the cache is too small."""
        self.model = load_transformer(model)
        use_onednn(self.model)
        config = self.model.config
        position_bytes = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        self.num_blocks = cache_bytes // (position_bytes * block_size)
        self.num_speculative_tokens = num_speculative_tokens
        guessed_blocks = FEW * -(-num_speculative_tokens // block_size)  # what is ahead of the scheduler's count
        if (self.num_blocks - guessed_blocks) * block_size < config.max_position_embeddings:
            needed = position_bytes * (config.max_position_embeddings + guessed_blocks * block_size)
            raise ValueError(f"cache_bytes: expected {needed} at least, for the whole window, got {cache_bytes}")
        self.cache = PagedCache(
            config.num_hidden_layers, self.num_blocks, block_size, config.num_key_value_heads, config.head_dim
        )
        self.scheduler = Scheduler(
            max_num_seqs=max_batch_size,
            max_num_batched_tokens=max_batched_tokens,
            num_blocks=self.num_blocks - guessed_blocks,
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
            self.sequences[request_id].ahead.clear()
        known = {chunk.id: ahead.popleft() for chunk in step.chunks if (ahead := self.sequences[chunk.id].ahead)}
        drafts = self._draft([chunk for chunk in step.chunks if chunk.id not in known])
        told: dict[int, list[Token]] = defaultdict(list)
        sampling: list[Chunk] = []
        logits = []
        for chunks in _alike([_longer(chunk, drafts[chunk.id]) for chunk in step.chunks if chunk.id in drafts]):
            token_ids, positions, last = pad_chunks([chunk.start for chunk in chunks], [c.tokens for c in chunks])
            self.cache.select([chunk.id for chunk in chunks])
            scoring = [self._is_scored(chunk) for chunk in chunks]
            whole = any(scoring) or any(drafts[chunk.id] for chunk in chunks)
            given = self.model(token_ids, positions, self.cache, grouped_attention, None if whole else last)
            for chunk, row, is_scored in zip(chunks, given, scoring, strict=True):
                if is_scored:
                    told[chunk.id] = self._score(chunk, row)
                if chunk.samples:
                    sampling.append(chunk)
                    end = len(chunk.tokens) if whole else 1
                    logits.append(row[end - 1 - len(drafts[chunk.id]) : end])
        sampled = known | (self._sample(sampling, drafts, torch.cat(logits)) if sampling else {})
        for request_id, token in sampled.items():
            self.sequences[request_id].tokens.append(token.id)
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

    def _draft(self, chunks: Sequence[Chunk]) -> dict[int, list[int]]:
        """Return what each chunk's sequence is guessed to go on with; nothing while there are many, or of a prompt."""
        drafts: dict[int, list[int]] = {chunk.id: [] for chunk in chunks}
        if self.num_speculative_tokens == 0 or len(self.scheduler.running()) > FEW:
            return drafts
        for chunk in chunks:
            sequence = self.sequences[chunk.id]
            prompt = sequence.request.prompt
            if chunk.samples and chunk.start >= len(prompt):
                # One token comes of the chunk itself.
                length = min(self.num_speculative_tokens, sequence.request.params.max_tokens - len(sequence.tokens) - 1)
                context, vocab_size = [*prompt, *sequence.tokens], self.model.config.vocab_size
                (draft,) = draft_with_ngrams([context], [length], vocab_size=vocab_size, max_ngram_size=MAX_NGRAM_SIZE)
                drafts[chunk.id] = draft.tokens
        return drafts

    def _sample(
        self, chunks: Sequence[Chunk], drafts: dict[int, list[int]], logits: Float[Tensor, "rows vocab"]
    ) -> dict[int, Token]:
        """Draw the next token of each chunk's sequence, and those after it as far as its draft is right.

        Of a chunk there are as many rows as its draft has tokens, and one more.
        """
        params, draws = [], []
        for chunk in chunks:
            sequence, count = self.sequences[chunk.id], 1 + len(drafts[chunk.id])
            params += [sequence.request.params] * count
            draws += sequence.uniforms[len(sequence.tokens) :][:count]
        tokens = iter(tell(choose(logits, params, draws).tolist(), logits, [p.logprobs for p in params]))
        sampled = {}
        for chunk in chunks:
            sequence, draft = self.sequences[chunk.id], drafts[chunk.id]
            own = [next(tokens) for _ in range(1 + len(draft))]
            right = sum(1 for _ in takewhile(lambda pair: pair[0].id == pair[1], zip(own, draft, strict=False)))
            end = chunk.start + len(chunk.tokens)
            if draft:
                self.cache.truncate(chunk.id, end - len(draft) + right)
            if end == len(sequence.request.prompt):
                self.cache.commit(chunk.id, sequence.request.prompt)
            sampled[chunk.id] = own[0]
            sequence.ahead.extend(own[1 : 1 + right])
        return sampled

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


def _longer(chunk: Chunk, draft: list[int]) -> Chunk:
    return replace(chunk, tokens=[*chunk.tokens, *draft])


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
