"""Public tests of hw1.controlled. Run them with `pytest hw1/tests/test_controlled.py`; -k TestFudge picks one problem.

Models and automata are so small that every result can be checked by hand.
"""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math

import pytest
import torch
from torch import Tensor

from hw1 import controlled
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.language_model import CountingModel
from shared_tasks.models.randomness import Randomness, TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import TableModel

TOLERANCE = 1e-4  # wide enough for a solution that computes in float32

# Token 0 ends. Token 1 is a, with P(a) = .9, and goes on to acceptance (token 3) with .01; token 2 is b, with .9.
GARDEN_PATH = TableModel({(): [0.0, 0.9, 0.1, 0.0, 0.0], (1,): [0, 0, 0, 0.01, 0.99], (2,): [0, 0, 0, 0.9, 0.1]}, 0)


def accepted(y: list[int]) -> bool:
    """Say whether the second token is 3."""
    return y[1] == 3


class TestGenerateWithProcessors:
    """Sampling under processors."""

    def test_distribution(self) -> None:
        """A processor that forbids a token forbids it at every step, given the continuations without prompts."""
        model = TableModel({(2,): [0.2, 0.5, 0.3], (2, 1): [0.4, 0.4, 0.2], (2, 2): [0.25, 0.25, 0.5]}, 0)

        def no_repetition(continuations: list[list[int]], logits: Tensor) -> Tensor:
            logits = logits.clone()
            for row, y in enumerate(continuations):
                logits[row, y] = -torch.inf
            return logits

        def run(rng: Randomness) -> tuple[int, ...]:
            (y,) = controlled.generate_with_processors(model, [[2]], [no_repetition], max_tokens=2, rng=rng)
            return tuple(y)

        # After [1] the token 1 is out, which leaves .4 and .2; after [2] the token 2, which leaves .25 and .25.
        expected = {(0,): 0.2, (1, 0): 0.5 * 2 / 3, (1, 2): 0.5 / 3, (2, 0): 0.15, (2, 1): 0.15}
        assert_same_distribution(enumerate_outcomes(run), expected, TOLERANCE)

    def test_order_and_ended_rows(self) -> None:
        """Processors run in order, and a row that has ended is passed neither to the model nor to them."""
        model = CountingModel(TableModel({(1,): [0.0, 0.0, 1.0], (2,): [1.0, 0.0, 0.0]}, 0))
        calls: list[tuple[str, list[list[int]]]] = []

        def first(continuations: list[list[int]], logits: Tensor) -> Tensor:
            calls.append(("first", [list(y) for y in continuations]))
            return logits

        def second(continuations: list[list[int]], logits: Tensor) -> Tensor:
            calls.append(("second", [list(y) for y in continuations]))
            return logits

        y = controlled.generate_with_processors(
            model, [[1], [2]], [first, second], max_tokens=5, rng=TorchRandomness(0)
        )
        assert_equal(y, [[2, 0], [0]], "the continuations")
        expected = [("first", [[], []]), ("second", [[], []]), ("first", [[2]]), ("second", [[2]])]
        assert_equal(calls, expected, "the calls of the processors")
        assert_equal((model.calls, model.contexts), (2, 3), "the number of model calls and of contexts in them")


class TestCompileAutomaton:
    """An automaton over characters, seen by tokens."""

    def test_tokens_of_several_characters(self) -> None:
        """A token may follow when all of its characters can be read, and leads where the last one leads."""
        automaton = controlled.Automaton(0, {(0, "a"): 1, (1, "b"): 0}, {0})  # ab, any number of times
        actual = controlled.compile_automaton(automaton, ["<end>", "a", "b", "ab", "ba", "aa", "abab"], 0)
        assert_equal(actual, {0: {1: 1, 3: 0, 6: 0}, 1: {2: 0, 4: 1}}, "the tokens by state")

    def test_dead_ends(self) -> None:
        """A token that leads to a state from which no tokens lead to acceptance may not follow."""
        automaton = controlled.Automaton(0, {(0, "a"): 1, (0, "b"): 2, (2, "b"): 2, (0, "c"): 3, (3, "d"): 1}, {1})
        actual = controlled.compile_automaton(automaton, ["a", "b", "c", "<end>", ""], 3)
        assert_equal(actual, {0: {0: 1}, 1: {}}, "the tokens by state (there is no token d)")

    def test_nothing_accepted(self) -> None:
        """An automaton that accepts no text made of tokens raises ValueError."""
        automaton = controlled.Automaton(0, {(0, "a"): 1, (1, "b"): 2}, {2})
        with pytest.raises(ValueError):
            controlled.compile_automaton(automaton, ["<end>", "a", "c"], 0)


class TestConstrainLogits:
    """The mask of an automaton."""

    def test_mask(self) -> None:
        """Allowed tokens keep their logits, the end token where the text is accepted; all others get -inf."""
        automaton = controlled.Automaton(0, {(0, "a"): 1, (1, "b"): 2, (2, "b"): 2}, {2})
        logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).repeat(3, 1)
        actual = controlled.constrain_logits(
            [[], [1], [3, 2]], logits, automaton=automaton, vocabulary=["<end>", "a", "b", "ab"], eos_token_id=0
        )
        no = -math.inf
        expected = torch.tensor([[no, 0.2, no, 0.4], [no, no, 0.3, no], [0.1, no, 0.3, no]])
        assert_close(actual, expected, TOLERANCE, "the logits after the empty text, a and abb")

    def test_forbidden_continuation(self) -> None:
        """A continuation with a token that was not allowed raises ValueError."""
        automaton = controlled.Automaton(0, {(0, "a"): 1}, {1})
        for continuation in ([2], [1, 1], [1, 0]):
            with pytest.raises(ValueError):
                controlled.constrain_logits(
                    [continuation],
                    torch.zeros(1, 3),
                    automaton=automaton,
                    vocabulary=["<end>", "a", "b"],
                    eos_token_id=0,
                )


class TestGridBeamSearch:
    """Beam search that must say given words."""

    def test_phrase(self) -> None:
        """The result contains the phrase although each of its tokens is improbable."""
        model = TableModel(
            {(): [0.1, 0.7, 0.2], (1,): [0.6, 0.3, 0.1], (2,): [0.5, 0.3, 0.2], (1, 2): [0.5, 0.4, 0.1]}, 0
        )
        for phrases, expected in (([], [1, 0]), ([[2]], [2, 0]), ([[2, 1]], [2, 1, 0]), ([[1], [2]], [2, 1, 0])):
            actual = controlled.grid_beam_search(model, [], phrases, num_beams=9, max_tokens=4)
            assert_equal(actual, expected, f"the most probable continuation with {phrases}")

    def test_banks(self) -> None:
        """A single beam for each progress keeps a hypothesis with the phrase, however improbable it is."""
        model = TableModel({(): [0.01, 0.9, 0.06, 0.03], (1,): [0.5, 0.45, 0.03, 0.02], (2,): [0.2, 0.1, 0.1, 0.6]}, 0)
        actual = controlled.grid_beam_search(model, [], [[2, 3]], num_beams=1, max_tokens=3)
        assert_equal(actual, [2, 3, 0], "the result with one beam")

    def test_none(self) -> None:
        """Without a complete continuation that contains every phrase the result is None."""
        model = TableModel({(): [0.5, 0.5, 0.0], (1,): [0.5, 0.5, 0.0]}, 0)
        assert_equal(controlled.grid_beam_search(model, [], [[1]], num_beams=2, max_tokens=2), [1, 0], "with [1]")
        for phrases, max_tokens in (([[1]], 1), ([[2]], 4)):
            actual = controlled.grid_beam_search(model, [], phrases, num_beams=2, max_tokens=max_tokens)
            assert actual is None, f"expected None for {phrases} and max_tokens {max_tokens}, got {actual}"

    def test_errors(self) -> None:
        """Settings or phrases that make no sense raise ValueError."""
        for phrases, num_beams, max_tokens in (([[1]], 0, 3), ([[]], 2, 3), ([[0]], 2, 3), ([[1]], 2, -1)):
            with pytest.raises(ValueError):
                controlled.grid_beam_search(GARDEN_PATH, [], phrases, num_beams=num_beams, max_tokens=max_tokens)


class TestContrastiveLogits:
    """Expert minus amateur, on the plausible head."""

    def test_scores(self) -> None:
        """Tokens of at least alpha times the highest probability get the difference of log-probabilities."""
        expert, amateur = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.25, 0.6, 0.15]])
        expected = torch.tensor([[math.log(2.0), math.log(0.5), -math.inf]])
        actual = controlled.contrastive_logits(expert.log() + 1, amateur.log() - 2, 0.5)
        assert_close(actual, expected, TOLERANCE, "the scores for alpha 0.5")

    def test_alpha(self) -> None:
        """With alpha 1 the expert's most probable token is left; alpha 0 raises ValueError."""
        expert, amateur = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.8, 0.1, 0.1]).log()
        actual = controlled.contrastive_logits(expert, amateur, 1.0)
        assert_equal((actual > -torch.inf).tolist(), [True, False, False], "the tokens kept")
        with pytest.raises(ValueError):
            controlled.contrastive_logits(expert, amateur, 0.0)


class TestDExpertsLogprobs:
    """A product of experts."""

    def test_product(self) -> None:
        """The result is proportional to p_base (p_expert / p_antiexpert)^alpha."""
        base, expert, anti = torch.tensor([[0.5, 0.5], [0.8, 0.2]]), torch.tensor([0.6, 0.4]), torch.tensor([0.2, 0.8])
        # Ratios 3 and 1/2; squared 9 and 1/4.
        for alpha, first in ((1.0, [3 / 3.5, 2.4 / 2.5]), (2.0, [9 / 9.25, 7.2 / 7.25]), (0.0, [0.5, 0.8])):
            expected = torch.tensor([[p, 1 - p] for p in first])
            actual = controlled.dexperts_logprobs(
                base.log() + 1, expert.log().repeat(2, 1), anti.log().repeat(2, 1) - 1, alpha
            )
            assert_close(actual.exp(), expected, TOLERANCE, f"the probabilities for alpha {alpha}")


class TestFudgeLogprobs:
    """Bayes' rule with a classifier of prefixes."""

    def test_bayes_rule(self) -> None:
        """Each row is P(next | context) P(attribute | context + next), normalised, with one call of the classifier."""
        model = TableModel({(1,): [0.5, 0.3, 0.2], (2, 1): [0.1, 0.1, 0.8]}, 0)
        attribute = {(1, 0): 0.2, (1, 1): 1.0, (1, 2): 0.5, (2, 1, 0): 0.4, (2, 1, 1): 0.6, (2, 1, 2): 0.0}
        calls: list[int] = []

        def classifier(prefixes: list[list[int]]) -> Tensor:
            calls.append(len(prefixes))
            return torch.tensor([attribute[tuple(prefix)] for prefix in prefixes])

        actual = controlled.fudge_logprobs(model, [[1], [2, 1]], classifier)
        assert_close(actual.exp(), torch.tensor([[0.2, 0.6, 0.2], [0.4, 0.6, 0.0]]), TOLERANCE, "the probabilities")
        assert_equal(calls, [6], "the number of prefixes in each call of the classifier")

    def test_impossible(self) -> None:
        """An attribute that no next token can have raises ValueError."""
        with pytest.raises(ValueError):
            controlled.fudge_logprobs(GARDEN_PATH, [[1]], lambda prefixes: torch.zeros(len(prefixes)))


class TestGuidedLogprobs:
    """Classifier-free guidance."""

    def test_scale(self) -> None:
        """0 is the model without the prompt, 1 with it, and 2 goes as far beyond."""
        model = TableModel({(2, 1): [0.6, 0.2, 0.2], (1,): [0.2, 0.4, 0.4]}, 0)
        # For 2 the weights are c^2 / u: .36 / .2, .04 / .4 and .04 / .4, which is 1.8, .1 and .1.
        for scale, expected in ((0.0, [0.2, 0.4, 0.4]), (1.0, [0.6, 0.2, 0.2]), (2.0, [0.9, 0.05, 0.05])):
            actual = controlled.guided_logprobs(model, [[2]], [[1]], scale)
            assert_close(actual.exp(), torch.tensor([expected]), TOLERANCE, f"the probabilities for {scale}")

    def test_errors(self) -> None:
        """A negative guidance_scale, or another number of continuations than of prompts, raises ValueError."""
        for continuations, scale in (([[1]], -1.0), ([[1], [1]], 1.0)):
            with pytest.raises(ValueError):
                controlled.guided_logprobs(GARDEN_PATH, [[2]], continuations, scale)


class TestExactPosterior:
    """What conditioning means."""

    def test_garden_path(self) -> None:
        """P(a) = .9 becomes .009 / .099 = 1/11 when a is accepted with .01 and b with .9."""
        actual = controlled.exact_posterior(GARDEN_PATH, accepted, max_tokens=2)
        assert_close(actual.normaliser, 0.099, TOLERANCE, "Z")
        assert_same_distribution(actual.probabilities, {(1, 3): 1 / 11, (2, 3): 10 / 11}, TOLERANCE)

    def test_impossible(self) -> None:
        """A predicate that holds for no continuation raises ValueError."""
        with pytest.raises(ValueError):
            controlled.exact_posterior(GARDEN_PATH, lambda y: y[0] == 4, max_tokens=2)


class TestLocallyMaskedDistribution:
    """Masking is not conditioning."""

    def test_garden_path(self) -> None:
        """Masking step by step keeps P(a) = .9, where the posterior has 1/11."""
        actual = controlled.locally_masked_distribution(GARDEN_PATH, accepted, max_tokens=2)
        assert_same_distribution(actual, {(1, 3): 0.9, (2, 3): 0.1}, TOLERANCE)

    def test_impossible(self) -> None:
        """A predicate that holds for no continuation raises ValueError."""
        with pytest.raises(ValueError):
            controlled.locally_masked_distribution(GARDEN_PATH, lambda y: y[0] == 4, max_tokens=2)
