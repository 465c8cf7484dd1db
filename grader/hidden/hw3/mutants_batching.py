"""Plausible wrong solutions of hw3.batching: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

from dataclasses import replace

import torch

from grader.reference.hw3.batching import Scheduler, Step, serve
from grader.reference.hw3.kv_cache import pad_chunks


class Scheduler__preempts_the_first(Scheduler):
    """Preempts the request that has run longest."""

    def schedule(self):
        """Turn the order round while blocks are missing."""
        held = sum(self._blocks(len(progress.tokens)) for progress in self._running)
        if held > self._num_blocks:
            self._running.reverse()
        return super().schedule()


class Scheduler__forgets_generated_tokens(Scheduler):
    """A preempted request begins again with its prompt."""

    def schedule(self):
        """Drop what was generated."""
        step = super().schedule()
        for progress in self._waiting:
            if progress.request.id in step.preempted:
                progress.tokens = list(progress.request.prompt)
        return step


class Scheduler__goes_on_after_preemption(Scheduler):
    """Believes the keys and values of a preempted request to be there still."""

    def schedule(self):
        """Keep the count of computed tokens."""
        computed = {progress.request.id: progress.computed for progress in self._running}
        step = super().schedule()
        for progress in self._waiting:
            if progress.request.id in step.preempted:
                progress.computed = computed[progress.request.id]
        cached = self._cached
        self._cached = lambda id, tokens: max(
            cached(id, tokens), next(p.computed for p in self._running if p.request.id == id)
        )
        return step


class Scheduler__preempted_to_the_back(Scheduler):
    """Puts a preempted request behind all that wait."""

    def schedule(self):
        """Rotate the queue."""
        step = super().schedule()
        for _ in step.preempted:
            self._waiting.rotate(-1)
        return step


class Scheduler__whole_prompts(Scheduler):
    """Computes a prompt at once, beyond the budget."""

    def schedule(self):
        """Give every request all it has to compute."""
        step = super().schedule()
        for progress in self._running:
            if progress.scheduled:
                progress.scheduled = progress.uncomputed
        return Step([self._chunk(p) for p in self._running if p.scheduled], step.preempted)


class Scheduler__budget_for_prompts_only(Scheduler):
    """Counts the tokens of decoding requests as free."""

    def schedule(self):
        """Add them to the budget."""
        decoding = sum(progress.uncomputed == 1 for progress in self._running)
        self._max_num_batched_tokens += decoding
        step = super().schedule()
        self._max_num_batched_tokens -= decoding
        return step


class Scheduler__samples_after_every_chunk(Scheduler):
    """Takes the logits after a part of a prompt for those of the next token."""

    def schedule(self):
        """Mark all chunks."""
        step = super().schedule()
        return Step([replace(chunk, samples=True) for chunk in step.chunks], step.preempted)


class Scheduler__shortest_first(Scheduler):
    """Lets short prompts go first."""

    def schedule(self):
        """Sort the queue."""
        ordered = sorted(self._waiting, key=lambda progress: len(progress.tokens))
        self._waiting.clear()
        self._waiting.extend(ordered)
        return super().schedule()


class Scheduler__passes_a_blocked_request(Scheduler):
    """Lets later requests begin where the first one does not fit."""

    def schedule(self):
        """Look for one that fits."""
        held = sum(self._blocks(len(progress.tokens)) for progress in self._running)
        for progress in list(self._waiting):
            if held + self._blocks(len(progress.tokens)) <= self._num_blocks:
                self._waiting.remove(progress)
                self._waiting.appendleft(progress)
                break
        return super().schedule()


class Scheduler__one_sequence_too_many(Scheduler):
    """Compares with <= where < is meant."""

    def __init__(self, **limits):
        super().__init__(**limits)
        self._max_num_seqs += 1


class Scheduler__blocks_of_the_prompt(Scheduler):
    """Rounds the blocks of a request down."""

    def _blocks(self, length):
        return length // self._block_size


class Scheduler__abort_of_running_only(Scheduler):
    """Does not find a request that waits."""

    def abort(self, id):
        """Look at those that run."""
        if id not in (*self.running(), *self.waiting()):
            raise ValueError
        self._running = [progress for progress in self._running if progress.request.id != id]


class Scheduler__ignores_cached_tokens(Scheduler):
    """Computes what is computed already."""

    def __init__(self, **limits):
        super().__init__(**limits | {"cached": None})


class Scheduler__takes_impossible_requests(Scheduler):
    """Lets a request wait for ever that can never fit."""

    def add(self, request):
        """Look at the prompt only."""
        if self._blocks(len(request.prompt)) <= self._num_blocks:
            blocks, self._num_blocks = self._num_blocks, 10**6
            super().add(request)
            self._num_blocks = blocks
        else:
            super().add(request)


class Scheduler__one_token_too_many(Scheduler):
    """Counts the first generated token as part of the prompt."""

    def add(self, request):
        """Raise the bound."""
        super().add(request)
        self._waiting[-1].request = replace(request, max_tokens=request.max_tokens + 1)


class Scheduler__never_ends_early(Scheduler):
    """Does not look for the end token."""

    def add(self, request):
        """Drop it."""
        super().add(replace(request, eos_token_id=None))


def _run(requests, add, forward, sample, free, limits, *, plan=lambda chunks: chunks, before=True, after=True):
    """Serve with parts left out."""
    scheduler = Scheduler(cached=add, **limits)
    for request in requests:
        scheduler.add(request)
    generated = {request.id: [] for request in requests}
    while (step := scheduler.schedule()).chunks:
        for id in step.preempted if before else ():
            free(id)
        chunks = plan(step.chunks)
        padded = pad_chunks([chunk.start for chunk in chunks], [chunk.tokens for chunk in chunks])
        logits = forward([chunk.id for chunk in chunks], *padded)
        rows = [row for row, chunk in enumerate(chunks) if chunk.samples]
        ids = [chunks[row].id for row in rows]
        sampled = dict(zip(ids, sample(ids, logits[rows]), strict=True)) if rows else {}
        for id, token in sampled.items():
            generated[id].append(token)
        for id in scheduler.update(sampled):
            if after:
                free(id)
    return generated


def serve__keeps_preempted_sequences(requests, add, forward, sample, free, **limits):
    """Does not free what was preempted."""
    return _run(requests, add, forward, sample, free, limits, before=False)


def serve__keeps_finished_sequences(requests, add, forward, sample, free, **limits):
    """Does not free what has finished."""
    return _run(requests, add, forward, sample, free, limits, after=False)


def serve__restarts_positions(requests, add, forward, sample, free, **limits):
    """Gives every chunk positions from 0 on."""
    return _run(
        requests, add, forward, sample, free, limits, plan=lambda chunks: [replace(chunk, start=0) for chunk in chunks]
    )


def serve__samples_in_the_middle(requests, add, forward, sample, free, **limits):
    """Samples after every chunk, and throws away what it should not have sampled."""

    def forward_and_sample(ids, token_ids, positions, logits_at):
        logits = forward(ids, token_ids, positions, logits_at)
        sample(ids, logits)
        return logits

    return _run(requests, add, forward_and_sample, sample, free, limits)


def serve__one_after_the_other(requests, add, forward, sample, free, **limits):
    """Serves each request alone."""
    generated = {}
    for request in requests:
        generated |= serve([request], add, forward, sample, free, **limits)
    return generated


def serve__last_column_of_all_rows(requests, add, forward, sample, free, **limits):
    """Takes the logits of every row from the last column."""

    def last(ids, token_ids, positions, logits_at):
        return forward(ids, token_ids, positions, logits_at * 0 + token_ids.shape[1] - 1)

    return _run(requests, add, last, sample, free, limits)


def serve__a_pass_for_each_row(requests, add, forward, sample, free, **limits):
    """Runs the model once for every row."""

    def one_by_one(ids, token_ids, positions, logits_at):
        rows = [
            forward([id], token_ids[i : i + 1], positions[i : i + 1], logits_at[i : i + 1])[0]
            for i, id in enumerate(ids)
        ]
        return torch.stack(rows)

    return _run(requests, add, one_by_one, sample, free, limits)


def serve__runs_an_empty_step(requests, add, forward, sample, free, **limits):
    """Runs the model before it looks whether there is anything to do."""
    if not requests:
        forward([], *(torch.zeros(0, 1, dtype=torch.long) for _ in range(2)), torch.zeros(0, dtype=torch.long))
    return serve(requests, add, forward, sample, free, **limits)


def serve__ignores_prefix_hits(requests, add, forward, sample, free, **limits):
    """Computes what `add` said to be there."""
    return serve(requests, lambda id, tokens: add(id, tokens) * 0, forward, sample, free, **limits)


def serve__leaves_out_the_end_token(requests, add, forward, sample, free, **limits):
    """Drops the end token from the result."""
    generated = serve(requests, add, forward, sample, free, **limits)
    ends = {request.id: request.eos_token_id for request in requests}
    return {id: [token for token in tokens if token != ends[id]] for id, tokens in generated.items()}
