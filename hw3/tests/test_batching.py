"""Public tests of hw3.batching."""

import pytest
import torch

from hw3 import batching
from shared_tasks.checks import assert_equal
from shared_tasks.models.toy import NgramModel


def planned(scheduler):
    """Plan a step; return (id, start, number of tokens, samples) of its chunks, and who was preempted."""
    step = scheduler.schedule()
    return [(c.id, c.start, len(c.tokens), c.samples) for c in step.chunks], list(step.preempted)


class TestScheduler:
    """Who computes what, and when."""

    def test_chunked_prefill(self):
        """A prompt is computed in chunks beside a request that decodes, within the budget."""
        scheduler = batching.Scheduler(max_num_seqs=2, max_num_batched_tokens=4, num_blocks=20, block_size=2)
        scheduler.add(batching.Request(1, [5, 6], 3))
        scheduler.add(batching.Request(2, [1, 2, 3, 4, 5, 6], 2))
        assert_equal(planned(scheduler), ([(1, 0, 2, True), (2, 0, 2, False)], []), "first step")
        scheduler.update({1: 8})
        assert_equal(planned(scheduler), ([(1, 2, 1, True), (2, 2, 3, False)], []), "second step")
        scheduler.update({1: 9})
        assert_equal(planned(scheduler), ([(1, 3, 1, True), (2, 5, 1, True)], []), "third step")
        assert_equal(list(scheduler.update({1: 3, 2: 3})), [1], "finished requests")
        assert_equal(planned(scheduler), ([(2, 6, 1, True)], []), "fourth step")

    def test_preemption(self):
        """The latest arrival is preempted when blocks run out, and later computes all of its tokens again."""
        scheduler = batching.Scheduler(max_num_seqs=3, max_num_batched_tokens=9, num_blocks=4, block_size=2)
        scheduler.add(batching.Request(7, [1, 1, 1], 4))
        scheduler.add(batching.Request(3, [2, 2, 2], 3))
        assert_equal(planned(scheduler), ([(7, 0, 3, True), (3, 0, 3, True)], []), "first step")
        scheduler.update({7: 4, 3: 5})
        assert_equal(planned(scheduler), ([(7, 3, 1, True), (3, 3, 1, True)], []), "second step")
        scheduler.update({7: 4, 3: 6})
        assert_equal(planned(scheduler), ([(7, 4, 1, True)], [3]), "third step")
        assert_equal((scheduler.running(), scheduler.waiting()), ([7], [3]), "running and waiting requests")
        scheduler.update({7: 4})
        scheduler.schedule()
        assert_equal(list(scheduler.update({7: 4})), [7], "finished requests")
        step = scheduler.schedule()
        assert_equal([list(chunk.tokens) for chunk in step.chunks], [[2, 2, 2, 5, 6]], "tokens to compute again")

    def test_abort(self):
        """An aborted request is gone, and the next one takes its place."""
        scheduler = batching.Scheduler(max_num_seqs=1, max_num_batched_tokens=4, num_blocks=9, block_size=2)
        for id in (1, 2, 3):
            scheduler.add(batching.Request(id, [id], 4))
        scheduler.schedule()
        scheduler.abort(1)
        scheduler.abort(2)
        scheduler.update({})
        assert_equal(planned(scheduler), ([(3, 0, 1, True)], []), "the step after two were aborted")
        with pytest.raises(ValueError):  # noqa: PT011
            scheduler.abort(2)


class TestServe:
    """The loop that drives a model."""

    @pytest.mark.parametrize("limits", [(4, 50, 50, 2), (2, 3, 50, 2), (4, 4, 5, 3)])
    def test_as_alone(self, limits):
        """With plenty of room, small chunks, or forced preemption, each request generates what it would alone."""
        model, held = NgramModel(9, 3, 0), {}

        def add(id, tokens):
            held[id] = []
            return 0

        def forward(ids, token_ids, positions, logits_at):
            rows = []
            for id, tokens, places, column in zip(ids, token_ids, positions, logits_at, strict=True):
                for token, position in zip(tokens.tolist(), places.tolist(), strict=True):
                    if position >= 0:
                        assert_equal(position, len(held[id]), f"next position of sequence {id}")
                        held[id].append(token)
                assert_equal(int(places[column]), len(held[id]) - 1, "position that logits are asked for")
                rows.append(model.next_token_logprobs([held[id]])[0])
            return torch.stack(rows)

        requests = [batching.Request(3, [1, 2, 3, 4], 6, 0), batching.Request(1, [5], 8, 0)]
        requests += [batching.Request(8, [6, 7, 8, 1, 2], 5, 0), batching.Request(2, [2, 2], 3, 0)]
        expected = {}
        for request in requests:
            tokens = list(request.prompt)
            while len(tokens) < len(request.prompt) + request.max_tokens:
                tokens.append(int(model.next_token_logprobs([tokens])[0].argmax()))
                if tokens[-1] == 0:
                    break
            expected[request.id] = tokens[len(request.prompt) :]
        names = ("max_num_seqs", "max_num_batched_tokens", "num_blocks", "block_size")
        got = batching.serve(
            requests, add, forward, lambda ids, logits: logits.argmax(-1).tolist(), held.pop,
            **dict(zip(names, limits, strict=True)),
        )  # fmt: skip
        assert_equal({id: list(tokens) for id, tokens in got.items()}, expected, "generated tokens")
        assert_equal(held, {}, "sequences that were not freed")
