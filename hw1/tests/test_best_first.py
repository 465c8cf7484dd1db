"""Public tests of hw1.best_first. Run them with `pytest hw1/tests/test_best_first.py`; -k TestAStar picks one problem.

The models are so small that the most probable continuation is known, and so is what a search must expand to be sure.
"""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from hw1 import best_first as search
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.language_model import CountingModel
from shared_tasks.models.toy import PositionModel, TableModel, enumerate_sequences

TOLERANCE = 1e-4  # wide enough for a solution that computes in float32

# Token 0 ends a continuation. After a context that is not in the table it comes with certainty.
GARDEN = TableModel({(): [0.0, 0.6, 0.4], (1,): [0.34, 0.36, 0.3], (2,): [0.9, 0.06, 0.04]}, eos_token_id=0)
# The most probable continuation is the end token alone, although every other first token is more probable.
EMPTY = TableModel(
    {(): [0.22, 0.4, 0.38], (1,): [0.3, 0.32, 0.38], (2,): [0.4, 0.35, 0.25], (1, 2): [0.9, 0.05, 0.05]}, eos_token_id=0
)


def assert_found(found: Any, tokens: Sequence[int], probability: float, what: str) -> None:
    """Fail unless the pair found has these tokens and the logarithm of this probability."""
    y, logprob = found
    assert_equal(list(y), list(tokens), what)
    assert_close(logprob, math.log(probability), TOLERANCE, f"the log-probability of {what}")


def assert_expanded(model: CountingModel, most: int) -> None:
    """Fail if the model was asked for more rows."""
    assert model.contexts <= most, f"expected at most {most} continuations to be expanded, got {model.contexts}"


class TestUniformCostSearch:
    """The most probable continuation first."""

    def test_most_probable_continuation(self) -> None:
        """Finds the most probable continuation, and expands only what is at least as probable."""
        model = CountingModel(GARDEN)
        found = search.uniform_cost_search(model, [], max_tokens=5)
        assert_found(found, [2, 0], 0.36, "the most probable continuation")
        assert_expanded(model, 3)  # [], [1] and [2], with probabilities 1, 0.6 and 0.4

    def test_after_a_prompt(self) -> None:
        """Finds the best of all continuations of up to max_tokens tokens; max_tokens 0 raises ValueError."""
        model = PositionModel(vocab_size=4, max_length=8, seed=47, eos_token_id=1)
        exact = enumerate_sequences(model, max_tokens=4, context=[3, 1])
        best = max(exact, key=lambda tokens: exact[tokens])
        found = search.uniform_cost_search(model, [3, 1], max_tokens=4)
        assert_found(found, best, exact[best], "the most probable continuation of [3, 1]")
        with pytest.raises(ValueError):
            search.uniform_cost_search(model, [3, 1], max_tokens=0)


class TestAStarSearch:
    """Log-probability plus heuristic."""

    def test_perfect_heuristic(self) -> None:
        """With a perfect heuristic only the beginnings of the most probable continuation are expanded."""
        best_to_come = {(): 0.36, (1,): 0.36, (2,): 0.9, (1, 1): 1.0, (1, 2): 1.0, (2, 1): 1.0, (2, 2): 1.0}
        model = CountingModel(GARDEN)
        found = search.a_star_search(
            model,
            [],
            max_tokens=5,
            heuristic=lambda contexts: torch.tensor([math.log(best_to_come[tuple(c)]) for c in contexts]),
        )
        assert_found(found, [2, 0], 0.36, "the most probable continuation")
        assert_expanded(model, 2)  # [] and [2]

    def test_zero_heuristic(self) -> None:
        """With a heuristic of zero it is uniform-cost search."""
        model = CountingModel(GARDEN)
        found = search.a_star_search(
            model, [], max_tokens=5, heuristic=lambda contexts: torch.zeros(len(contexts), dtype=torch.float64)
        )
        assert_found(found, [2, 0], 0.36, "the most probable continuation")
        assert_expanded(model, 3)

    def test_contexts_of_the_heuristic(self) -> None:
        """The heuristic gets contexts with the prompt, all of them incomplete."""
        seen: list[list[int]] = []

        def heuristic(contexts: Sequence[Sequence[int]]) -> torch.Tensor:
            seen.extend(list(context) for context in contexts)
            return torch.zeros(len(contexts))

        model = PositionModel(vocab_size=3, max_length=8, seed=22)
        exact = enumerate_sequences(model, max_tokens=3, context=[2, 0])
        best = max(exact, key=lambda tokens: exact[tokens])
        found = search.a_star_search(model, [2, 0], max_tokens=3, heuristic=heuristic)
        assert_found(found, best, exact[best], "the most probable continuation of [2, 0]")
        for context in seen:
            what = f"expected contexts of [2, 0] and fewer than 3 tokens without an end token, got {context}"
            assert context[:2] == [2, 0], what
            assert len(context) < 5, what
            assert 0 not in context[2:], what


class TestBestFirstBeamSearch:
    """Beam search in another order."""

    def test_same_as_beam_search(self) -> None:
        """Finds what a beam of the same width finds, which is not always the most probable continuation."""
        found = search.best_first_beam_search(GARDEN, [], num_beams=1, max_tokens=5)
        assert_found(found, [1, 1, 0], 0.216, "what one beam finds")
        found = search.best_first_beam_search(GARDEN, [], num_beams=2, max_tokens=5)
        assert_found(found, [2, 0], 0.36, "what two beams find")

    def test_expands_no_more_than_needed(self) -> None:
        """Expands only what is at least as probable as the result, where beam search fills every step."""
        model = CountingModel(GARDEN)
        search.best_first_beam_search(model, [], num_beams=2, max_tokens=5)
        assert_expanded(model, 3)  # [], [1] and [2]; beam search also expands [1, 1] and [1, 2]

    def test_length_penalty(self) -> None:
        """With a length_penalty it goes on until nothing in the queue can reach a higher score."""
        model = TableModel({(): [0.5, 0.4, 0.1], (1,): [0.1, 0.85, 0.05], (1, 1): [0.9, 0.06, 0.04]}, eos_token_id=0)
        found = search.best_first_beam_search(model, [], num_beams=2, max_tokens=5)
        assert_found(found, [0], 0.5, "the best for length_penalty 0")
        found = search.best_first_beam_search(model, [], num_beams=2, max_tokens=5, length_penalty=1.0)
        assert_found(found, [1, 1, 0], 0.306, "the best for length_penalty 1")


class TestExactSearch:
    """Branch and bound."""

    def test_empty_string(self) -> None:
        """Finds the end token alone where that is the most probable continuation, which greedy search does not."""
        model = CountingModel(EMPTY)
        found = search.exact_search(model, [], max_tokens=6)
        assert_found(found, [0], 0.22, "the most probable continuation")
        assert_expanded(model, 4)  # [], [1], [1, 2] and [2]: no other beginning can beat [1, 2, 0] and then [2, 0]

    def test_prunes_what_cannot_win(self) -> None:
        """Finds the best of all continuations, and expands only what may beat the best one found before."""
        model = CountingModel(PositionModel(vocab_size=4, max_length=8, seed=57, eos_token_id=3))
        exact = enumerate_sequences(model.model, max_tokens=4, context=[0])
        best = max(exact, key=lambda tokens: exact[tokens])
        found = search.exact_search(model, [0], max_tokens=4)
        assert_found(found, best, exact[best], "the most probable continuation of [0]")
        assert_expanded(model, 8)  # of 40 incomplete continuations

    def test_length_penalty(self) -> None:
        """Maximises logprob / length ** length_penalty, with a bound that holds for the longest continuation."""
        model = TableModel({(): [0.5, 0.4, 0.1], (1,): [0.1, 0.85, 0.05], (1, 1): [0.9, 0.06, 0.04]}, eos_token_id=0)
        found = search.exact_search(model, [], max_tokens=5, length_penalty=1.0)
        assert_found(found, [1, 1, 0], 0.306, "the best for length_penalty 1")
        with pytest.raises(ValueError):
            search.exact_search(model, [], max_tokens=5, length_penalty=-1.0)
