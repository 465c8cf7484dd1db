"""Continuous batching: a scheduler that says what to compute in each step, and the loop that does it.

The tokens of a request are its prompt and what was generated so far. A token is *computed* when its keys and values are
in the cache. The next token can be sampled once all tokens are computed; that is as true of a new prompt as of a
request that decodes, whose only token to compute is the one sampled last.

The scheduler knows no model: it counts tokens and blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

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
        raise NotImplementedError

    def add(self, request: Request) -> None:
        """Let a request arrive; it waits.

        Raises ValueError for an id that is waiting or running, an empty prompt, max_tokens less than 1, and a request
        that could not finish with all blocks to itself. The last token of a request is never computed.
        """
        raise NotImplementedError

    def running(self) -> list[int]:
        """Return the ids of the running requests, in order of arrival."""
        raise NotImplementedError

    def waiting(self) -> list[int]:
        """Return the ids of the waiting requests, in order of arrival."""
        raise NotImplementedError

    def schedule(self) -> Step:
        """Plan the next step. Without requests it has no chunks.

        Every step is followed by a call of `update` before the next one is planned.
        """
        raise NotImplementedError

    def update(self, sampled: Mapping[int, int]) -> list[int]:
        """Take note that the planned step has been computed, and of the tokens sampled in it, by id.

        Returns the ids of the requests that have finished, with the end token or `max_tokens` tokens, in order of
        arrival; the scheduler has forgotten them. Requests that were aborted meanwhile are passed over. Raises
        ValueError unless there is a token for each other chunk that samples, and for none that does not; nothing has
        changed then.
        """
        raise NotImplementedError

    def abort(self, id: int) -> None:
        """Forget a request, waiting or running, even between `schedule` and `update`. Raises ValueError for others."""
        raise NotImplementedError


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
    raise NotImplementedError
