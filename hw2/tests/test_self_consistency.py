"""Public tests of `hw2/self_consistency.py`: run them with `pytest hw2/tests/test_self_consistency.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math

import pytest

from hw2 import self_consistency
from shared_tasks.checks import assert_equal, assert_same_distribution
from shared_tasks.models.engine import Completion, SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

PARAMS = SamplingParams(max_tokens=9)


def last_word(text: str) -> str | None:
    """Take the last word for the answer, unless it is a question mark."""
    word = text.split()[-1]
    return None if word == "?" else word


class TestChainOfThoughtPrompt:
    """Prompts that ask for reasoning."""

    def test_examples_then_question(self) -> None:
        """Shows the examples in order, then the question."""
        prompt = self_consistency.chain_of_thought_prompt(
            "How old is Mia?", [("1 + 1?", "One more.\n#### 2"), ("3 + 1?", "#### 4")]
        )
        parts = ["1 + 1?", "One more.\n#### 2", "3 + 1?", "#### 4", "How old is Mia?"]
        assert_equal([prompt.count(part) for part in parts], [1] * 5, f"how often each of {parts} occurs")
        places = [prompt.index(part) for part in parts]
        assert_equal(places, sorted(places), f"the order of {parts}")

    def test_asks_for_the_marker(self) -> None:
        """Asks for an answer behind #### even without examples."""
        prompt = self_consistency.chain_of_thought_prompt("How old is Mia?", [])
        assert_equal(("How old is Mia?" in prompt, "####" in prompt), (True, True), "question and #### in the prompt")


class TestExtractAnswer:
    """The answer behind the marker."""

    def test_last_marker(self) -> None:
        """Returns the rest of the line behind the last ####."""
        text = "First #### 3. No:\nIt is 4.\n####  4 apples \nDone."
        assert_equal(self_consistency.extract_answer(text), "4 apples", f"the answer in {text!r}")

    def test_no_answer(self) -> None:
        """Returns None where there is no marker or nothing behind it."""
        for text in ("It is 4.", "It is ####", "####\n4", ""):
            assert_equal(self_consistency.extract_answer(text), None, f"the answer in {text!r}")


class TestCanonicalAnswer:
    """One form for one answer."""

    def test_numbers(self) -> None:
        """Writes every number as an integer or a reduced fraction."""
        for answer, form in (
            ("42", "42"),
            (" $1,200.00. ", "1200"),
            ("-0.50", "-1/2"),
            ("6/4", "3/2"),
            ("+7", "7"),
            (".25", "1/4"),
        ):
            assert_equal(self_consistency.canonical_answer(answer), form, f"the form of {answer!r}")

    def test_other_answers(self) -> None:
        """Lowers the case of other answers and squeezes their white space."""
        for answer, form in (("Blue  Whale.", "blue whale"), ("1/0", "1/0"), ("4 apples", "4 apples"), ("", "")):
            assert_equal(self_consistency.canonical_answer(answer), form, f"the form of {answer!r}")


def sample(text: str, logprob: float = -1.0) -> Completion:
    """Return a completion of this log-probability."""
    return Completion(text, [0], [logprob], "stop")


class TestAnswerDistribution:
    """Marginalising over reasoning."""

    def test_share_of_samples(self) -> None:
        """Gives each answer the share of samples that lead to it."""
        samples = [sample("so 4"), sample("hence 4"), sample("so 5"), sample("no idea ?"), sample("so 4")]
        actual = self_consistency.answer_distribution(samples, last_word, weighted=False)
        assert_same_distribution(actual, {"4": 0.75, "5": 0.25}, 1e-6)

    def test_share_of_probability(self) -> None:
        """Adds up the probabilities of the different texts that lead to an answer."""
        log = math.log
        samples = [
            sample("so 4", log(0.1)),
            sample("hence 4", log(0.2)),
            sample("so 4", log(0.1)),
            sample("so 5", log(0.3)),
        ]
        actual = self_consistency.answer_distribution(samples, last_word, weighted=True)
        assert_same_distribution(actual, {"4": 0.5, "5": 0.5}, 1e-6)


class TestSelfConsistency:
    """A vote."""

    def test_most_frequent_answer(self) -> None:
        """Returns the most frequent answer; samples without an answer have no vote."""
        model = ScriptedEngine({"q": ["so 5", "x ?", "so 4", "x ?", "thus 4", "x ?"]})
        vote = self_consistency.self_consistency(model, "q", last_word, 6, PARAMS)
        assert_equal((vote.answer, vote.counts, vote.samples), ("4", {"5": 1, "4": 2}, 6), "answer, counts and samples")

    def test_pays_the_prompt_once(self) -> None:
        """Draws 32 samples with a single request."""
        model = ScriptedEngine(lambda prompt, params: ["so 4"] * params.n)
        self_consistency.self_consistency(model, "a long prompt", last_word, 32, PARAMS)
        assert_equal(model.params, [SamplingParams(n=32, max_tokens=9)], "the requests")
        assert_equal(model.usage.prompt_tokens, 3, "the prompt tokens paid for")


class TestIsDecided:
    """When the rest cannot matter."""

    def test_lead(self) -> None:
        """Holds where the lead is larger than the number of samples that remain."""
        for counts, remaining, decided in (
            ({"a": 3, "b": 1}, 1, True),
            ({"a": 3, "b": 1}, 2, False),
            ({"a": 3}, 3, False),
            ({"a": 3}, 2, True),
        ):
            actual = self_consistency.is_decided(counts, remaining)
            assert_equal(actual, decided, f"whether {counts} is decided with {remaining} to come")

    def test_no_vote_yet(self) -> None:
        """Does not hold while no answer leads."""
        for counts, remaining in (({}, 3), ({"a": 2, "b": 2}, 0)):
            actual = self_consistency.is_decided(counts, remaining)
            assert_equal(actual, False, f"whether {counts} is decided with {remaining} to come")


class TestAdaptiveSelfConsistency:
    """A vote that ends early."""

    def test_stops_when_decided(self) -> None:
        """Draws no more batches once the vote is decided."""
        model = ScriptedEngine({"q": ["so 4", "so 5", "so 4", "so 4", "so 4", "so 4", "so 5", "so 5"]})
        vote = self_consistency.adaptive_self_consistency(model, "q", last_word, 8, 2, PARAMS)
        assert_equal((vote.answer, vote.counts, vote.samples), ("4", {"4": 5, "5": 1}, 6), "answer, counts and samples")
        assert_equal([params.n for params in model.params], [2, 2, 2], "the samples of each request")

    def test_last_batch_and_errors(self) -> None:
        """Draws n samples at most, and raises ValueError unless n and batch_size are at least 1."""
        model = ScriptedEngine({"q": ["so 4", "so 5", "so 6", "so 7", "so 7"]})
        vote = self_consistency.adaptive_self_consistency(model, "q", last_word, 5, 3, PARAMS)
        assert_equal((vote.answer, vote.samples), ("7", 5), "answer and samples")
        assert_equal([params.n for params in model.params], [3, 2], "the samples of each request")
        for n, batch_size in ((0, 1), (1, 0)):
            with pytest.raises(ValueError):
                self_consistency.adaptive_self_consistency(model, "q", last_word, n, batch_size, PARAMS)

    def test_seed(self) -> None:
        """Seeds a batch so that it goes on where the one before ended."""
        model = ScriptedEngine(lambda prompt, params: [f"so {params.seed}"] * params.n)
        self_consistency.adaptive_self_consistency(model, "q", last_word, 4, 2, SamplingParams(seed=10))
        assert_equal([params.seed for params in model.params], [10, 12], "the seeds")
        assert_equal(model.usage.requests, 2, "the number of requests")
