"""A second solution of hw3.batching: one list of all requests, of which a beginning runs."""

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Request:
    """What a user wants."""

    id: int
    prompt: list[int]
    max_tokens: int
    eos_token_id: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Tokens to compute."""

    id: int
    start: int
    tokens: list[int]
    samples: bool


@dataclass(frozen=True)
class Step:
    """What to do next."""

    chunks: list[Chunk]
    preempted: list[int]


class Scheduler:
    """All requests are in one list by arrival; the first `self.active` of them run."""

    def __init__(self, *, max_num_seqs, max_num_batched_tokens, num_blocks, block_size, cached=None):
        if max_num_seqs < 1 or max_num_batched_tokens < max_num_seqs:
            raise ValueError("impossible limits")
        self.sequences, self.budget = max_num_seqs, max_num_batched_tokens
        self.capacity, self.size, self.cached = num_blocks, block_size, cached
        self.queue, self.active = [], 0
        self.requests, self.tokens, self.done, self.plan = {}, {}, {}, {}

    def _room(self, count):
        """Return whether the first requests fit."""
        return sum(math.ceil(len(self.tokens[id]) / self.size) for id in self.queue[:count]) <= self.capacity

    def add(self, request):
        """Append."""
        length = len(request.prompt) + request.max_tokens - 1
        if request.id in self.queue or not request.prompt or request.max_tokens <= 0:
            raise ValueError(f"impossible: {request}")
        if math.ceil(length / self.size) > self.capacity:
            raise ValueError(f"too long: {request}")
        self.queue.append(request.id)
        self.requests[request.id], self.tokens[request.id] = request, tuple(request.prompt)
        self.done[request.id] = 0

    def running(self):
        """Return the first ones."""
        return self.queue[: self.active]

    def waiting(self):
        """Return the others."""
        return self.queue[self.active :]

    def schedule(self):
        """Move the border between running and waiting, then deal out the budget."""
        preempted = []
        while not self._room(self.active):
            self.active -= 1
            preempted.append(self.queue[self.active])
            self.done[self.queue[self.active]] = 0
        self.plan, budget, begun = {}, self.budget, self.active
        for place, id in enumerate(self.queue):
            if place >= begun:
                if budget == 0 or place >= self.sequences or not self._room(place + 1):
                    break
                self.active += 1
                if self.cached is not None:
                    self.done[id] = self.cached(id, list(self.tokens[id]))
            end = min(len(self.tokens[id]), self.done[id] + budget)
            budget -= end - self.done[id]
            if end > self.done[id]:
                self.plan[id] = end
        chunks = [
            Chunk(id, self.done[id], list(self.tokens[id][self.done[id] : end]), len(self.tokens[id]) == end)
            for id, end in self.plan.items()
        ]
        return Step(chunks, preempted)

    def update(self, sampled):
        """Compare what came with what was planned."""
        wanted = {id for id, end in self.plan.items() if end == len(self.tokens[id])}
        if {id for id in sampled if id in self.queue} != wanted:
            raise ValueError(f"tokens of {list(sampled)} for {wanted}")
        finished = []
        for id, end in self.plan.items():
            self.done[id] = end
            if id in wanted:
                self.tokens[id] += (sampled[id],)
                request = self.requests[id]
                if (
                    sampled[id] == request.eos_token_id
                    or len(self.tokens[id]) == len(request.prompt) + request.max_tokens
                ):
                    finished.append(id)
        self.plan = {}
        for id in finished:
            self.abort(id)
        return finished

    def abort(self, id):
        """Remove."""
        if id not in self.queue:
            raise ValueError(f"no request {id}")
        self.active -= self.queue.index(id) < self.active
        self.queue.remove(id)
        self.plan.pop(id, None)
        for kept in (self.requests, self.tokens, self.done):
            del kept[id]


def serve(requests, add, forward, sample, free, *, max_num_seqs, max_num_batched_tokens, num_blocks, block_size):
    """Pad on the left; sample from the last column."""
    scheduler = Scheduler(
        max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens,
        num_blocks=num_blocks, block_size=block_size, cached=add,
    )  # fmt: skip
    answers = {}
    for request in requests:
        scheduler.add(request)
        answers[request.id] = []
    while True:
        step = scheduler.schedule()
        for id in step.preempted:
            free(id)
        if not step.chunks:
            return answers
        width = max(len(chunk.tokens) for chunk in step.chunks)
        token_ids = torch.tensor([[0] * (width - len(c.tokens)) + c.tokens for c in step.chunks])
        positions = torch.tensor(
            [[-1] * (width - len(c.tokens)) + [c.start + i for i in range(len(c.tokens))] for c in step.chunks]
        )
        ends = torch.full((len(step.chunks),), width - 1)
        logits = forward([chunk.id for chunk in step.chunks], token_ids, positions, ends)
        through = [(i, chunk.id) for i, chunk in enumerate(step.chunks) if chunk.samples]
        tokens = sample([id for _, id in through], torch.stack([logits[i] for i, _ in through])) if through else []
        for (_, id), token in zip(through, tokens, strict=True):
            answers[id].append(token)
        for id in scheduler.update({id: token for (_, id), token in zip(through, tokens, strict=True)}):
            free(id)
