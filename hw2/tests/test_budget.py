"""Public tests of `hw2/budget.py`: run them with `pytest hw2/tests/test_budget.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import pytest

from hw2 import budget
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

TOLERANCE = 1e-6
PARAMS = SamplingParams(max_tokens=20)
END = " </think>"


def think(model: ScriptedEngine, min_tokens: int, max_tokens: int) -> budget.Thought:
    """Let the model think about a question."""
    return budget.force_budget(
        model, "Q: 6 * 7?", END, " Wait,", min_tokens=min_tokens, max_tokens=max_tokens, params=PARAMS
    )


class TestForceBudget:
    """Least and most thinking."""

    def test_within_the_budget(self) -> None:
        """Lets a model that thinks long enough answer at once."""
        model = ScriptedEngine({"Q: 6 * 7?": [" six sevens </think> 1"], "Q: 6 * 7? six sevens </think>": [" 42"]})
        assert_equal(think(model, 2, 10), budget.Thought(" six sevens", 3, " 42"), "thinking, its tokens, and answer")

    def test_least_thinking(self) -> None:
        """Forces a continuation on a model that stops too early."""
        model = ScriptedEngine(
            {
                "Q: 6 * 7?": [" 41 </think>"],
                "Q: 6 * 7? 41 Wait,": [" no: 42 </think>"],
                "Q: 6 * 7? 41 Wait, no: 42 </think>": [" 42"],
            }
        )
        thought = think(model, 4, 10)
        assert_equal(thought, budget.Thought(" 41 Wait, no: 42", 5, " 42"), "thinking, its tokens, and answer")

    def test_most_thinking(self) -> None:
        """Cuts thinking off at the maximum, and asks for the answer."""
        model = ScriptedEngine({"Q: 6 * 7?": [" 7 14 21 28 35"], "Q: 6 * 7? 7 14 21 </think>": [" 42"]})
        assert_equal(think(model, 0, 3), budget.Thought(" 7 14 21", 3, " 42"), "thinking, its tokens, and answer")
        with pytest.raises(ValueError):
            think(model, 4, 3)


class TestPassAtK:
    """At least one of k."""

    def test_by_hand(self) -> None:
        """Returns the share of subsets of k samples with a correct one."""
        for k, expected in ((1, 0.3), (2, 0.5333333), (5, 0.9166667), (8, 1.0)):
            assert_close(budget.pass_at_k(10, 3, k), expected, TOLERANCE, f"pass@{k} with 3 of 10 correct")

    def test_refuses(self) -> None:
        """Is 0 without a correct sample, and raises ValueError for numbers that do not fit."""
        assert_close(budget.pass_at_k(5, 0, 5), 0.0, TOLERANCE, "pass@5 with none of 5 correct")
        for n, c, k in ((3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)):
            with pytest.raises(ValueError):
                budget.pass_at_k(n, c, k)


class TestMajorityAtK:
    """A vote of k."""

    def test_by_hand(self) -> None:
        """Returns the share of subsets of k samples whose vote is right; a tie counts in part."""
        answers = ["4", "4", "5", "6"]
        # Of the 6 pairs one is 4 4 and four have one 4; of the 4 triples two are 4 4 and another, two are 4 5 6.
        for k, expected in ((1, 2 / 4), (2, (1 + 4 / 2) / 6), (3, (2 + 2 / 3) / 4), (4, 1.0)):
            assert_close(budget.majority_at_k(answers, "4", k), expected, TOLERANCE, f"maj@{k} of {answers}")

    def test_no_answer_has_no_vote(self) -> None:
        """Lets samples without an answer be drawn, but not vote."""
        answers = ["4", None, None]
        assert_close(budget.majority_at_k(answers, "4", 2), 2 / 3, TOLERANCE, f"maj@2 of {answers}")
        assert_close(budget.majority_at_k(answers, "4", 3), 1.0, TOLERANCE, f"maj@3 of {answers}")
        with pytest.raises(ValueError):
            budget.majority_at_k(answers, "4", 4)


class TestComputeOptimal:
    """A larger model or more samples."""

    def test_depends_on_the_budget(self) -> None:
        """Chooses the option that solves most: many samples of a small model, or a few of a large one."""
        small = budget.Option(cost_per_token=2, tokens_per_sample=50, solve_rates=[0.5, 0.1])
        large = budget.Option(cost_per_token=20, tokens_per_sample=50, solve_rates=[0.9, 0.9])
        choice = budget.compute_optimal([large, small], 450)
        assert_equal((choice.option, choice.samples), (1, 4), "option and samples for 450")
        assert_close(choice.solved, (1 - 0.5**4 + 1 - 0.9**4) / 2, TOLERANCE, "the share solved for 450")
        choice = budget.compute_optimal([large, small], 1000)
        assert_equal((choice.option, choice.samples), (0, 1), "option and samples for 1000")
        assert_close(choice.solved, 0.9, TOLERANCE, "the share solved for 1000")

    def test_refuses(self) -> None:
        """Raises ValueError when the budget pays for no sample."""
        option = budget.Option(2, 50, [0.5])
        assert_equal(budget.compute_optimal([option], 100).samples, 1, "the samples for 100")
        with pytest.raises(ValueError):
            budget.compute_optimal([option], 99)


class TestWeightedVote:
    """A vote weighted by a verifier."""

    def test_sum_of_scores(self) -> None:
        """Returns the answer with the highest sum of scores."""
        actual = budget.weighted_vote(["4", "5", "5", "4", None], [0.9, 0.5, 0.3, 0.05, 5.0])
        assert_equal(actual, "4", "the answer with .95 against .8")

    def test_no_answer(self) -> None:
        """Returns None where there is no answer, and raises ValueError when scores and answers do not pair up."""
        assert_equal(budget.weighted_vote([None, None], [1.0, 2.0]), None, "the vote of two samples without answer")
        with pytest.raises(ValueError):
            budget.weighted_vote(["4", "5"], [1.0])


class TestSampleUntilVerified:
    """An external verifier."""

    def test_first_accepted(self) -> None:
        """Stops at the first text that the verifier accepts."""
        model = ScriptedEngine({"x": ["1", "2", "3", "4", "5", "6"]})
        actual = budget.sample_until_verified(
            model, "x", lambda x, text: text in ("3", "4"), max_samples=6, batch_size=2, params=PARAMS
        )
        assert_equal(actual, budget.Verified("3", 4), "text and number of samples")
        assert_equal([params.n for params in model.params], [2, 2], "the samples of each request")

    def test_none_accepted(self) -> None:
        """Gives up after max_samples, and raises ValueError unless both numbers are at least 1."""
        model = ScriptedEngine({"x": ["1", "2", "3"]})
        actual = budget.sample_until_verified(
            model, "x", lambda x, y: False, max_samples=3, batch_size=2, params=PARAMS
        )
        assert_equal(actual, budget.Verified(None, 3), "text and number of samples")
        with pytest.raises(ValueError):
            budget.sample_until_verified(model, "x", lambda x, y: True, max_samples=0, batch_size=2, params=PARAMS)


class TestRejectionSamplingData:
    """Data to fine-tune on."""

    def test_right_ones_once_with_prompt_masked(self) -> None:
        """Keeps different right completions up to the cap, and masks the prompt's labels."""
        model = ScriptedEngine({"p": ["a yes", "b no", "a yes", "c yes", "d yes"]})
        examples = budget.rejection_sampling_data(
            model,
            ["p"],
            lambda prompt: [100, 101],
            lambda prompt, text: text.endswith("yes"),
            n=5,
            max_per_prompt=2,
            held_out=[],
            params=PARAMS,
        )
        ids = {" yes": 1, "a": 0, "c": 4}  # the engine numbers its words as they come: a, yes, b, no, c
        expected = [budget.Example([100, 101, ids[word], 1], [-100, -100, ids[word], 1]) for word in ("a", "c")]
        assert_equal(examples, expected, "the examples")

    def test_held_out(self) -> None:
        """Neither samples nor keeps anything for prompts that are held out."""
        model = ScriptedEngine(lambda prompt, params: ["yes"] * params.n)
        examples = budget.rejection_sampling_data(
            model,
            ["p", "test", "q"],
            lambda prompt: [len(prompt)],
            lambda prompt, text: True,
            n=2,
            max_per_prompt=2,
            held_out=["test"],
            params=PARAMS,
        )
        assert_equal(model.calls, [["p", "q"]], "the prompts of each call")
        assert_equal([example.labels for example in examples], [[-100, 0], [-100, 0]], "the labels")
