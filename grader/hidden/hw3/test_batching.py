"""Hidden tests of hw3.batching."""

import random

import pytest
import torch

from hw3 import batching
from shared_tasks.checks import assert_equal
from shared_tasks.models.randomness import TorchRandomness
from shared_tasks.models.toy import NgramModel

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

VOCAB = 11


def assert_refused(function, *arguments):
    """Fail unless the call raises ValueError."""
    with pytest.raises(ValueError):
        function(*arguments)


class Watched:
    """A scheduler whose plans are checked against what a request is, and which is told made-up tokens."""

    def __init__(self, *, max_num_seqs, max_num_batched_tokens, num_blocks, block_size, hits=None):
        self.limits = (max_num_seqs, max_num_batched_tokens, num_blocks)
        self.block_size = block_size
        self.hits = hits
        self.asked = []
        self.scheduler = batching.Scheduler(
            max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens, num_blocks=num_blocks,
            block_size=block_size, cached=self.cached if hits else None,
        )  # fmt: skip
        self.requests, self.tokens, self.computed = {}, {}, {}
        self.order, self.finished = [], []

    def cached(self, id, tokens):
        """Say how many tokens are computed already."""
        assert_equal(list(tokens), self.tokens[id], f"tokens of request {id} when it begins")
        self.asked.append(id)
        self.computed[id] = min(self.hits, len(tokens) - 1)
        return self.computed[id]

    def add(self, id, prompt, max_tokens, end=None):
        """Let a request arrive."""
        request = batching.Request(id, prompt, max_tokens, end)
        self.scheduler.add(request)
        self.requests[id], self.tokens[id], self.computed[id] = request, list(prompt), 0
        self.order.append(id)

    def abort(self, id):
        """Abort a request."""
        self.scheduler.abort(id)
        self.order.remove(id)

    def blocks(self, ids):
        """Return how many blocks these requests hold."""
        return sum(-(-len(self.tokens[id]) // self.block_size) for id in ids)

    def plan(self):
        """Plan a step; return it, checked against every rule of the contract."""
        before = list(self.scheduler.running())
        step = self.scheduler.schedule()
        running, waiting = list(self.scheduler.running()), list(self.scheduler.waiting())
        assert_equal([*running, *waiting], self.order, "running and then waiting requests, in order of arrival")
        kept = list(before)
        while self.blocks(kept) > self.limits[2]:
            kept.pop()
        assert_equal(sorted(step.preempted), sorted(before[len(kept) :]), "preempted requests")
        for id in step.preempted:
            self.computed[id] = 0
        assert len(running) <= self.limits[0], f"expected at most {self.limits[0]} running requests, got {len(running)}"
        assert self.blocks(running) <= self.limits[2], f"expected at most {self.limits[2]} blocks in use"
        left = self.limits[1]
        sizes = {id: len(self.tokens[id]) - self.computed[id] for id in running}
        expected = {}
        for id in running:
            expected[id] = min(sizes[id], left)
            left -= expected[id]
            assert expected[id], f"request {id} runs, though no tokens were left for it"
        assert_equal([chunk.id for chunk in step.chunks], running, "requests with a chunk")
        for chunk in step.chunks:
            start, end = self.computed[chunk.id], self.computed[chunk.id] + expected[chunk.id]
            got = (chunk.start, list(chunk.tokens), chunk.samples)
            wanted = (start, self.tokens[chunk.id][start:end], end == len(self.tokens[chunk.id]))
            assert_equal(got, wanted, f"(start, tokens, samples) of the chunk of request {chunk.id}")
        if left and waiting and len(running) < self.limits[0]:
            free = self.limits[2] - self.blocks(running)
            assert self.blocks(waiting[:1]) > free, f"request {waiting[0]} could run in {free} free blocks, but waits"
        return step

    def update(self, step, choose=lambda id, count: 1 + (7 * id + count) % 9):
        """Say what was sampled in the step; check what has finished."""
        sampled = {c.id: choose(c.id, len(self.tokens[c.id])) for c in step.chunks if c.samples and c.id in self.order}
        finished = list(self.scheduler.update(sampled))
        expected = []
        for chunk in step.chunks:
            if chunk.id not in self.order:
                continue
            self.computed[chunk.id] += len(chunk.tokens)
            if chunk.samples:
                request, tokens = self.requests[chunk.id], self.tokens[chunk.id]
                tokens.append(sampled[chunk.id])
                if tokens[-1] == request.eos_token_id or len(tokens) == len(request.prompt) + request.max_tokens:
                    expected.append(chunk.id)
        assert_equal(finished, expected, "finished requests")
        self.order = [id for id in self.order if id not in expected]
        self.finished += expected

    def run(self, most=500):
        """Run until nothing is left; return the number of steps."""
        for count in range(most):
            step = self.plan()
            if not step.chunks:
                assert_equal(self.order, [], "requests that are left over when a plan is empty")
                return count
            self.update(step)
        raise AssertionError(f"expected the end of {self.order} within {most} steps: does somebody starve?")


class TestScheduler:
    """Who computes what, and when."""

    def test_chunks_beside_decoding(self):
        """Decoding requests come first, a token each; the rest of the budget is a chunk of the next prompt.

        A long prompt must not stop those who decode; `samples` is true only after its last token.
        """
        watched = Watched(max_num_seqs=4, max_num_batched_tokens=7, num_blocks=50, block_size=2)
        watched.add(5, [1, 2, 3], 9)
        watched.add(2, list(range(1, 16)), 4)
        watched.add(9, [4, 4], 3)
        sizes = []
        for _ in range(5):
            step = watched.plan()
            sizes.append([(chunk.id, len(chunk.tokens), chunk.samples) for chunk in step.chunks])
            watched.update(step)
        expected = [
            [(5, 3, True), (2, 4, False)],
            [(5, 1, True), (2, 6, False)],
            [(5, 1, True), (2, 5, True), (9, 1, False)],
            [(5, 1, True), (2, 1, True), (9, 1, True)],
            [(5, 1, True), (2, 1, True), (9, 1, True)],
        ]
        assert_equal(sizes, expected, "(id, tokens, samples) in five steps")
        watched.run()

    def test_preemption(self):
        """When blocks run out, the latest arrival gives all of its blocks back, waits in front of the others, and
        later computes its prompt and what it had generated from the start.

        It samples nothing that it had sampled before: its tokens are kept, only keys and values are gone.
        """
        watched = Watched(max_num_seqs=3, max_num_batched_tokens=12, num_blocks=6, block_size=2)
        watched.add(3, [1, 1, 1], 8)
        watched.add(1, [2, 2, 2], 6)
        watched.add(7, [5, 5], 2)
        preempted = []
        for _ in range(40):
            step = watched.plan()
            preempted += step.preempted
            if not step.chunks:
                break
            watched.update(step)
        assert preempted, "expected preempted requests"
        assert preempted[0] != 3, "the first to arrive was preempted"
        assert_equal(sorted(watched.finished), [1, 3, 7], "finished requests")

    def test_random_traces(self):
        """With any limits and arrivals, every step keeps to every rule, and all requests finish.

        Budget, sequences, blocks, order of arrival, the latest preempted, no work left undone that there is room for.
        """
        for seed in range(12):
            generator = random.Random(seed)
            sequences = generator.randint(1, 5)
            watched = Watched(
                max_num_seqs=sequences, max_num_batched_tokens=sequences + generator.choice((0, 2, 9, 60)),
                num_blocks=generator.randint(9, 16), block_size=generator.choice((2, 3, 4)), hits=seed % 3,
            )  # fmt: skip
            for id in generator.sample(range(100), 14):
                watched.add(
                    id, [generator.randrange(1, 9) for _ in range(generator.randint(1, 10))], generator.randint(1, 8), 5
                )
                for _ in range(generator.randrange(3)):
                    watched.update(watched.plan())
            watched.run()
            assert_equal(len(watched.finished), 14, "finished requests")

    def test_aborted_requests(self):
        """An aborted request is gone at once, waiting, running or in the middle of a step; the others go on, and its
        blocks are free.

        A client may hang up between `schedule` and `update`, which passes it over, with its token or without.
        """
        for seed in range(8):
            generator = random.Random(30 + seed)
            watched = Watched(max_num_seqs=3, max_num_batched_tokens=6, num_blocks=8, block_size=3)
            for id in range(12):
                watched.add(id, [1 + id % 5] * generator.randint(1, 9), generator.randint(2, 8))
            while watched.order:
                if generator.random() < 0.2:
                    watched.abort(generator.choice(watched.order))
                step = watched.plan()
                if watched.order and generator.random() < 0.3:
                    watched.abort(generator.choice(watched.order))
                watched.update(step)
            assert_equal(len(watched.plan().chunks), 0, "chunks when nobody is left")
        scheduler = batching.Scheduler(max_num_seqs=2, max_num_batched_tokens=4, num_blocks=4, block_size=4)
        for id in (1, 2):
            scheduler.add(batching.Request(id, [3], 3))
        scheduler.schedule()
        scheduler.abort(1)
        assert_equal(list(scheduler.update({1: 5, 2: 6})), [], "finished requests when one was aborted")
        assert_refused(scheduler.abort, 1)

    def test_cached_tokens(self):
        """`cached` is asked once each time that a request begins to run, and what it answers is not computed.

        After a preemption too: what a request had computed may be in the prefix cache still.
        """
        watched = Watched(max_num_seqs=3, max_num_batched_tokens=5, num_blocks=6, block_size=2, hits=3)
        for id in (4, 8, 6):
            watched.add(id, [1, 2, 3, 4], 7)
        begun = 0
        while watched.order:
            before = set(watched.scheduler.running())
            step = watched.plan()
            begun += len(set(watched.scheduler.running()) - (before - set(step.preempted)))
            watched.update(step)
        assert begun > 3, "expected a preemption"
        assert_equal(len(watched.asked), begun, "questions")

    def test_refuses(self):
        """Impossible limits and requests are refused, and tokens that no chunk asked for, or missing ones, change
        nothing.

        A request that could never finish would block all that come after it.
        """
        limits = {"num_blocks": 4, "block_size": 3}
        for sequences, budget in ((0, 4), (5, 4)):
            assert_refused(
                lambda s=sequences, b=budget: batching.Scheduler(max_num_seqs=s, max_num_batched_tokens=b, **limits)
            )
        scheduler = batching.Scheduler(max_num_seqs=2, max_num_batched_tokens=4, **limits)
        scheduler.add(batching.Request(1, [1] * 6, 7))
        for wrong in ((1, [1], 1), (2, [], 1), (2, [1], 0), (2, [1] * 6, 8), (2, [1] * 13, 1)):
            assert_refused(scheduler.add, batching.Request(*wrong))
        scheduler.add(batching.Request(2, [2], 3))
        scheduler.schedule()
        for wrong in ({1: 4}, {2: 4}, {1: 4, 2: 4}):
            assert_refused(scheduler.update, wrong)
        scheduler.update({})
        assert_equal([len(chunk.tokens) for chunk in scheduler.schedule().chunks], [2, 1], "tokens of the second step")
        for wrong in ({}, {1: 4}, {2: 4}):
            assert_refused(scheduler.update, wrong)
        assert_equal(list(scheduler.update({1: 3, 2: 4})), [], "finished requests")


class Machine:
    """A model with a cache, which checks that what it is given follows what it holds."""

    def __init__(self, seed, budget, hits=0, greedy=True):
        self.model = NgramModel(VOCAB, 4, seed)
        self.budget = budget
        self.hits = hits
        self.greedy = greedy
        self.held, self.sources, self.draws = {}, {}, {}
        self.calls = self.most = self.frees = 0

    def add(self, id, tokens):
        """Begin a sequence."""
        assert id not in self.held, f"sequence {id} was added, but not freed before"
        count = min(self.hits, len(tokens) - 1)
        self.held[id] = list(tokens[:count])
        return count

    def free(self, id):
        """End a sequence."""
        assert id in self.held, f"sequence {id} was freed, but is not there"
        del self.held[id]
        self.frees += 1

    def forward(self, ids, token_ids, positions, logits_at):
        """Compute a step: append, and answer with logits of the whole context."""
        ids, self.calls = list(ids), self.calls + 1
        assert len(set(ids)) == len(ids), f"expected each sequence once, got {ids}"
        assert_equal(tuple(token_ids.shape), tuple(positions.shape), "shape of token ids, as that of positions")
        assert_equal(len(token_ids), len(ids), "rows")
        computed = int((positions >= 0).sum())
        assert computed <= self.budget, f"expected at most {self.budget} tokens in a step, got {computed}"
        self.most = max(self.most, len(ids))
        rows = []
        for row, id in enumerate(ids):
            assert id in self.held, f"sequence {id} is in a step, but is not in the cache"
            for column, (token, position) in enumerate(
                zip(token_ids[row].tolist(), positions[row].tolist(), strict=True)
            ):
                if position >= 0:
                    assert_equal(position, len(self.held[id]), f"next position of sequence {id}")
                    self.held[id].append(token)
                if column == int(logits_at[row]):
                    rows.append(self.model.next_token_logprobs([self.held[id]])[0] if position >= 0 else None)
        assert all(row is not None for row in rows), "logits were asked for at padding"
        return torch.stack(rows)

    def sample(self, ids, logits):
        """Choose a token for each of the requests."""
        assert ids, "sample was called without rows"
        assert_equal(len(logits), len(ids), "rows of logits to sample from")
        return [self.choose(id, row) for id, row in zip(ids, logits, strict=True)]

    def choose(self, id, row):
        """Choose greedily, or draw from the request's own source."""
        if self.greedy:
            return int(row.argmax())
        source = self.sources.setdefault(id, TorchRandomness(1000 + id))
        self.draws[id] = self.draws.get(id, 0) + 1
        return int(source.categorical(row.exp()))

    def alone(self, request):
        """Return what a request generates by itself."""
        tokens, fresh = list(request.prompt), Machine(0, 0, greedy=self.greedy)
        while len(tokens) < len(request.prompt) + request.max_tokens:
            tokens.append(fresh.choose(request.id, self.model.next_token_logprobs([tokens])[0]))
            if tokens[-1] == request.eos_token_id:
                break
        return tokens[len(request.prompt) :]

    def serve(self, requests, sequences, blocks, size):
        """Run requests; return what they generated, and check that nothing is left behind."""
        got = batching.serve(
            requests, self.add, self.forward, self.sample, self.free, max_num_seqs=sequences,
            max_num_batched_tokens=self.budget, num_blocks=blocks, block_size=size,
        )  # fmt: skip
        assert_equal(sorted(self.held), [], "sequences that are left in the cache")
        assert self.most <= sequences, f"expected at most {sequences} rows, got {self.most}"
        return {id: list(tokens) for id, tokens in got.items()}


def drawn_requests(seed, count, end=0):
    """Draw requests of different lengths."""
    generator = random.Random(seed)
    return [
        batching.Request(
            id, [generator.randrange(1, VOCAB) for _ in range(generator.randint(1, 9))], generator.randint(1, 12), end
        )
        for id in generator.sample(range(200), count)
    ]


class TestServe:
    """The loop that drives a model."""

    def test_independent_of_neighbours(self):
        """Whatever runs beside it, in whatever order, chunks and blocks, a request generates what it would alone.

        Each row has its own positions, its logits are at its own last token, and a preempted request goes on.
        """
        requests = drawn_requests(1, 9)
        for seed, (sequences, budget, blocks, size) in enumerate(
            ((1, 1, 7, 3), (4, 4, 8, 3), (9, 200, 90, 2), (5, 8, 7, 3), (3, 7, 30, 1))
        ):
            order = random.Random(seed).sample(requests, len(requests))
            machine = Machine(3, budget)
            got = machine.serve(order, sequences, blocks, size)
            assert_equal(got, {request.id: machine.alone(request) for request in order}, f"tokens in run {seed}")

    def test_seeded_sampling(self):
        """With a source of randomness for each request, every token is drawn once and in order: what a request
        generates is exactly what it would alone, also after it was preempted.

        Tokens that were sampled before a preemption are kept; only keys and values are computed again.
        """
        requests = drawn_requests(2, 8, end=None)
        for sequences, budget, blocks, size in ((1, 5, 20, 2), (8, 8, 11, 2), (4, 40, 8, 3)):
            machine = Machine(5, budget, greedy=False)
            got = machine.serve(requests, sequences, blocks, size)
            assert_equal(got, {request.id: machine.alone(request) for request in requests}, "tokens")
            assert_equal(machine.draws, {request.id: request.max_tokens for request in requests}, "draws")

    def test_forced_preemption(self):
        """A preempted sequence is freed before the step that follows, and added again before it runs again.

        Whoever forgets to free it leaks its blocks; whoever frees it twice takes somebody else's.
        """
        machine = Machine(7, 12)
        requests = [batching.Request(id, [1 + id, 2, 3], 8) for id in range(4)]
        got = machine.serve(requests, 4, 8, 2)
        assert machine.frees > 4, "expected preempted requests"
        assert_equal(got, {request.id: machine.alone(request) for request in requests}, "tokens")

    def test_prefix_hits(self):
        """What `add` says to be computed already is not computed again.

        The first position of a chunk is its start, not 0.
        """
        for hits in (1, 4, 50):
            machine = Machine(9, 10, hits=hits)
            requests = drawn_requests(4, 6)
            got = machine.serve(requests, 3, 20, 2)
            assert_equal(got, {request.id: machine.alone(request) for request in requests}, f"tokens with {hits} hits")

    def test_batches(self):
        """Requests run together: there are no more forward passes than steps of the scheduler.

        One pass for each request, or a pass for prompts beside one for decoding, loses what batching is for.
        """
        machine = Machine(2, 64)
        machine.serve([batching.Request(id, [1, 2, 3, 4], 10) for id in range(8)], 8, 60, 4)
        assert_equal(machine.calls, 10, "forward passes of 8 requests for 10 tokens each")

    def test_no_requests(self):
        """Without requests nothing is called and nothing comes back; a request that is impossible is refused.

        `Scheduler.add` raises the error.
        """
        machine = Machine(2, 4)
        assert_equal(machine.serve([], 2, 4, 4), {}, "what no request generated")
        assert_equal(machine.calls, 0, "forward passes")
        assert_refused(machine.serve, [batching.Request(1, [1] * 9, 9)], 2, 4, 4)
