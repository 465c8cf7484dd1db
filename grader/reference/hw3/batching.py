"""Continuous batching: a scheduler that says what to compute in each step, and the loop that does it.

The tokens of a request are its prompt and what was generated so far. A token is *computed* when its keys and values are
in the cache. The next token can be sampled once all tokens are computed; that is as true of a new prompt as of a
request that decodes, whose only token to compute is the one sampled last.

The scheduler knows no model: it counts tokens and blocks.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from grader.reference.hw3.kv_cache import pad_chunks

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


@dataclass(eq=False)
class _Progress:
    """A request in the scheduler."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    computed: int = 0
    scheduled: int = 0  # tokens in the step that runs

    @property
    def uncomputed(self) -> int:
        return len(self.tokens) - self.computed


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
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._num_blocks = num_blocks
        self._block_size = block_size
        self._cached = cached or (lambda id, tokens: 0)
        # All that runs arrived before all that waits: requests begin from the front of the queue, and return to it.
        self._running: list[_Progress] = []
        self._waiting: deque[_Progress] = deque()

    def add(self, request: Request) -> None:
        """Let a request arrive; it waits.

        Raises ValueError for an id that is waiting or running, an empty prompt, max_tokens less than 1, and a request
        that could not finish with all blocks to itself. The last token of a request is never computed.
        """
        if request.id in (*self.running(), *self.waiting()):
            raise ValueError(f"expected a new id, got {request.id}, which is waiting or running")
        if not request.prompt or request.max_tokens < 1:
            raise ValueError("expected a prompt of at least one token, and max_tokens of at least 1")
        needed = self._blocks(len(request.prompt) + request.max_tokens - 1)
        if needed > self._num_blocks:
            raise ValueError(f"expected a request that fits into {self._num_blocks} blocks, got one of {needed}")
        self._waiting.append(_Progress(request, list(request.prompt)))

    def running(self) -> list[int]:
        """Return the ids of the running requests, in order of arrival."""
        return [progress.request.id for progress in self._running]

    def waiting(self) -> list[int]:
        """Return the ids of the waiting requests, in order of arrival."""
        return [progress.request.id for progress in self._waiting]

    def schedule(self) -> Step:
        """Plan the next step. Without requests it has no chunks.

        Every step is followed by a call of `update` before the next one is planned.
        """
        preempted = []
        held = sum(self._blocks(len(progress.tokens)) for progress in self._running)
        while held > self._num_blocks:
            last = self._running.pop()
            held -= self._blocks(len(last.tokens))
            last.computed = 0
            self._waiting.appendleft(last)
            preempted.append(last.request.id)
        left = self._max_num_batched_tokens
        for progress in self._running:
            progress.scheduled = min(progress.uncomputed, left)
            left -= progress.scheduled
        while left and self._waiting and len(self._running) < self._max_num_seqs:
            first = self._waiting[0]
            held += self._blocks(len(first.tokens))
            if held > self._num_blocks:
                break
            self._running.append(self._waiting.popleft())
            first.computed = self._cached(first.request.id, list(first.tokens))
            first.scheduled = min(first.uncomputed, left)
            left -= first.scheduled
        return Step([self._chunk(progress) for progress in self._running if progress.scheduled], preempted)

    def update(self, sampled: Mapping[int, int]) -> list[int]:
        """Take note that the planned step has been computed, and of the tokens sampled in it, by id.

        Returns the ids of the requests that have finished, with the end token or `max_tokens` tokens, in order of
        arrival; the scheduler has forgotten them. Requests that were aborted meanwhile are passed over. Raises
        ValueError unless there is a token for each other chunk that samples, and for none that does not; nothing has
        changed then.
        """
        expected = {p.request.id for p in self._running if p.scheduled and p.scheduled == p.uncomputed}
        unexpected = {p.request.id for p in (*self._running, *self._waiting)} & set(sampled) - expected
        if unexpected or not expected <= set(sampled):
            raise ValueError(f"expected tokens of the requests {sorted(expected)}, got those of {sorted(sampled)}")
        finished = []
        for progress in self._running:
            request = progress.request
            progress.computed += progress.scheduled
            progress.scheduled = 0
            if request.id in expected:
                progress.tokens.append(sampled[request.id])
                generated = len(progress.tokens) - len(request.prompt)
                if sampled[request.id] == request.eos_token_id or generated == request.max_tokens:
                    finished.append(request.id)
        self._running = [progress for progress in self._running if progress.request.id not in finished]
        return finished

    def abort(self, id: int) -> None:
        """Forget a request, waiting or running, even between `schedule` and `update`. Raises ValueError for others."""
        if id not in (*self.running(), *self.waiting()):
            raise ValueError(f"expected a request that waits or runs, got {id}")
        self._running = [progress for progress in self._running if progress.request.id != id]
        self._waiting = deque(progress for progress in self._waiting if progress.request.id != id)

    def _chunk(self, progress: _Progress) -> Chunk:
        end = progress.computed + progress.scheduled
        tokens = progress.tokens[progress.computed : end]
        return Chunk(progress.request.id, progress.computed, tokens, samples=end == len(progress.tokens))

    def _blocks(self, length: int) -> int:
        return -(-length // self._block_size)


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
    while (step := scheduler.schedule()).chunks:
        for id in step.preempted:
            free(id)
        padded = pad_chunks([chunk.start for chunk in step.chunks], [chunk.tokens for chunk in step.chunks])
        logits = forward([chunk.id for chunk in step.chunks], *padded)
        rows = [row for row, chunk in enumerate(step.chunks) if chunk.samples]
        ids = [step.chunks[row].id for row in rows]
        sampled = dict(zip(ids, sample(ids, logits[rows]), strict=True)) if rows else {}
        for id, token in sampled.items():
            generated[id].append(token)
        for id in scheduler.update(sampled):
            free(id)
    return generated
