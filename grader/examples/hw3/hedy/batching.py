"""Continuous batching: a scheduler that says what to compute in each step, and the loop that does it.

The tokens of a request are its prompt and what was generated so far. A token is *computed* when its keys and values are
in the cache. The next token can be sampled once all tokens are computed; that is as true of a new prompt as of a
request that decodes, whose only token to compute is the one sampled last.

The scheduler knows no model: it counts tokens and blocks.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from hw3.kv_cache import pad_chunks

Add = Callable[[int, list[int]], int]
Forward = Callable[
    [list[int], Int[Tensor, "rows new"], Int[Tensor, "rows new"], Int[Tensor, "rows"]], Float[Tensor, "rows vocab"]
]
Sample = Callable[[list[int], Float[Tensor, "rows vocab"]], list[int]]


@dataclass(frozen=True)
class Request:
    """What a user wants: a prompt of at least one token, continued until the end token or `max_tokens` tokens."""

    id: int
    prompt: list[int]
    max_tokens: int
    eos_token_id: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Tokens of a request to compute in a step: its tokens from position `start` on."""

    id: int
    start: int
    tokens: list[int]
    samples: bool
    """Whether they are the last of the request's tokens, so that the next one is sampled after them."""


@dataclass(frozen=True)
class Step:
    """What to do next."""

    chunks: list[Chunk]
    """In the order in which their requests arrived; none is empty."""
    preempted: list[int]
    """Requests that lose their blocks, before anything is computed."""


class Scheduler:
    """Plans steps for the requests that have arrived: first come, first served.

    A request is waiting or running. One that runs with t tokens holds ceil(t / block_size) blocks, whether they are
    computed or not. Each call of `schedule` does three things, in this order:

    1. While the running requests hold more than `num_blocks` together, the one of them that arrived last is preempted:
       it gives its blocks back and waits. Its generated tokens are kept, but nothing of it is computed any more.
    2. Of the `max_num_batched_tokens` of a step the running requests take, in the order of arrival, as many as each has
       to compute or as are left. (All but the last decode, and have a single one; the last may be in the middle of its
       prompt, which is computed in chunks.)
    3. While some are left, the waiting request that arrived first begins to run and takes its part of them, unless
       `max_num_seqs` requests run already, or its blocks are not free. Then nobody who came later begins.

    `cached(id, tokens)` is asked each time that a request begins to run: how many of its first tokens are computed
    already, because others began alike; never all of them. Without it none are.
    """

    def __init__(
        self,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        num_blocks: int,
        block_size: int,
        cached: Add | None = None,
    ):
        """Set the limits. Raises ValueError unless 1 <= max_num_seqs <= max_num_batched_tokens."""
        if not 1 <= max_num_seqs <= max_num_batched_tokens:
            raise ValueError(
                f"expected 1 <= max_num_seqs <= max_num_batched_tokens, got {max_num_seqs} and {max_num_batched_tokens}"
            )
        self._max_num_seqs, self._max_num_batched_tokens = max_num_seqs, max_num_batched_tokens
        self._num_blocks, self._block_size = num_blocks, block_size
        self._cached = cached
        # Both in the order of arrival, and all that run arrived before all that wait.
        self._running: list[_Entry] = []
        self._waiting: deque[_Entry] = deque()
        self._planned: list[tuple[_Entry, Chunk]] = []

    def add(self, request: Request) -> None:
        """Let a request arrive; it waits.

        Raises ValueError for an id that is waiting or running, an empty prompt, max_tokens less than 1, and a request
        that could not finish with all blocks to itself. The last token of a request is never computed.
        """
        if any(entry.request.id == request.id for entry in (*self._running, *self._waiting)):
            raise ValueError(f"expected a new id, but request {request.id} is waiting or running")
        if not request.prompt:
            raise ValueError(f"expected a prompt of at least one token in request {request.id}, got none")
        if request.max_tokens < 1:
            raise ValueError(f"expected max_tokens of at least 1 in request {request.id}, got {request.max_tokens}")
        needed = self._blocks_for(len(request.prompt) + request.max_tokens - 1)
        if needed > self._num_blocks:
            raise ValueError(f"expected {needed} blocks for request {request.id}, there are {self._num_blocks}")
        self._waiting.append(_Entry(request, list(request.prompt)))

    def running(self) -> list[int]:
        """Return the ids of the running requests, in order of arrival."""
        return [entry.request.id for entry in self._running]

    def waiting(self) -> list[int]:
        """Return the ids of the waiting requests, in order of arrival."""
        return [entry.request.id for entry in self._waiting]

    def schedule(self) -> Step:
        """Plan the next step. Without requests it has no chunks.

        Every step is followed by a call of `update` before the next one is planned.
        """
        preempted = []
        while self._blocks_held() > self._num_blocks:
            latest = self._running.pop()
            latest.computed = 0
            self._waiting.appendleft(latest)
            preempted.append(latest.request.id)

        self._planned = []
        left = self._max_num_batched_tokens
        for entry in self._running:
            left -= self._plan(entry, left)
        while left and self._waiting and len(self._running) < self._max_num_seqs:
            entry = self._waiting[0]
            if self._blocks_held() + self._blocks_for(len(entry.tokens)) > self._num_blocks:
                break
            self._running.append(self._waiting.popleft())
            if self._cached is not None:
                entry.computed = self._cached(entry.request.id, list(entry.tokens))
            left -= self._plan(entry, left)
        return Step([chunk for _, chunk in self._planned], preempted)

    def update(self, sampled: Mapping[int, int]) -> list[int]:
        """Take note that the planned step has been computed, and of the tokens sampled in it, by id.

        Returns the ids of the requests that have finished, with the end token or `max_tokens` tokens, in order of
        arrival; the scheduler has forgotten them. Requests that were aborted meanwhile are passed over. Raises
        ValueError unless there is a token for each other chunk that samples, and for none that does not; nothing has
        changed then.
        """
        here, gone = [], set()
        for entry, chunk in self._planned:
            if any(entry is other for other in self._running):
                here.append((entry, chunk))
            else:
                gone.add(chunk.id)
        expected = {chunk.id for _, chunk in here if chunk.samples}
        if set(sampled) - gone != expected:
            raise ValueError(f"expected tokens of the requests {sorted(expected)}, got those of {sorted(sampled)}")
        self._planned = []
        finished = []
        for entry, chunk in here:
            entry.computed += len(chunk.tokens)
            if chunk.samples:
                entry.tokens.append(int(sampled[chunk.id]))
                if entry.has_finished():
                    finished.append(chunk.id)
        self._running = [entry for entry in self._running if entry.request.id not in finished]
        return finished

    def abort(self, id: int) -> None:
        """Forget a request, waiting or running, even between `schedule` and `update`. Raises ValueError for others."""
        for entries in (self._running, self._waiting):
            for entry in entries:
                if entry.request.id == id:
                    entries.remove(entry)
                    return
        raise ValueError(f"expected a request that is waiting or running, got {id}")

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self._block_size)

    def _blocks_held(self) -> int:
        return sum(self._blocks_for(len(entry.tokens)) for entry in self._running)

    def _plan(self, entry: "_Entry", budget: int) -> int:
        """Plan what a request computes with so many tokens left; return how many it takes."""
        start = entry.computed
        tokens = entry.tokens[start : start + budget]
        if tokens:
            samples = start + len(tokens) == len(entry.tokens)
            self._planned.append((entry, Chunk(entry.request.id, start, tokens, samples)))
        return len(tokens)


def serve(
    requests: Sequence[Request],
    add: Add,
    forward: Forward,
    sample: Sample,
    free: Callable[[int], None],
    *,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    num_blocks: int,
    block_size: int,
) -> dict[int, list[int]]:
    """Run requests, which arrive in this order, together; return what each generated, by id, the end token included.

    The callables are a model with its cache, and a way to sample:

    - `add(id, tokens)` begins a sequence in the cache and returns how many of its first tokens are computed already.
      It is called when a request begins to run, also after it was preempted.
    - `forward(ids, token_ids, positions, logits_at)` runs the model on a row for each of these sequences, padded with
      position -1, and returns the logits after column `logits_at` of each row. It is called once for each step.
    - `sample(ids, logits)` chooses the next token for each of these requests. It is called at most once for each step,
      never without rows, and exactly once for each generated token of a request, in order.
    - `free(id)` ends a sequence of the cache: when its request is preempted, before the step runs, or has finished.

    What a request generates does not depend on the other requests, on their order, or on the limits. Raises ValueError
    as `Scheduler` does.
    """
    scheduler = Scheduler(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        num_blocks=num_blocks,
        block_size=block_size,
        cached=add,
    )
    for request in requests:
        scheduler.add(request)
    generated: dict[int, list[int]] = {request.id: [] for request in requests}
    while scheduler.running() or scheduler.waiting():
        step = scheduler.schedule()
        for id in step.preempted:
            free(id)
        chunks = step.chunks
        token_ids, positions, last = pad_chunks([c.start for c in chunks], [c.tokens for c in chunks])
        logits = forward([chunk.id for chunk in chunks], token_ids, positions, last)
        through = [row for row, chunk in enumerate(chunks) if chunk.samples]
        ids = [chunks[row].id for row in through]
        sampled = dict(zip(ids, sample(ids, logits[through]), strict=True)) if ids else {}
        for id, token in sampled.items():
            generated[id].append(int(token))
        for id in scheduler.update(sampled):
            free(id)
    return generated


@dataclass(eq=False)
class _Entry:
    """A request in the scheduler: all its tokens, of which the first so many are computed."""

    request: Request
    tokens: list[int]
    computed: int = 0

    def has_finished(self) -> bool:
        """Return whether the last token, which was generated, ends the request."""
        generated = len(self.tokens) - len(self.request.prompt)
        return generated >= self.request.max_tokens or self.tokens[-1] == self.request.eos_token_id
