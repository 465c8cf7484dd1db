"""Hidden tests of `hw2/self_consistency.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import math
from collections.abc import Sequence

import msgspec
import pytest

from grader.goldens.recording import RecordedEngine
from hw2 import self_consistency
from shared_tasks.checks import assert_equal, assert_same_distribution
from shared_tasks.metrics.numbers import extract_number
from shared_tasks.models.engine import Completion, SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

PARAMS = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=11)


def last_word(text: str) -> str | None:
    """Take the last word for the answer, unless it is a question mark."""
    word = text.split()[-1]
    return None if word == "?" else word


class TestChainOfThoughtPrompt:
    """Prompts that ask for reasoning."""

    def test_examples_as_given(self) -> None:
        """Holds every example's question and worked answer, in order and as given, then the question, each once.

        Use the whole worked answer, reasoning too, and fill nothing in that looks like a field of a template.
        """
        examples = [
            ("What is {x} % 3?", "Let {x} be 7.\n\n7 = 2 * 3 + 1\n#### 1"),
            ("Is\nit?", "  It is.\n#### yes"),
            ("Why?", "#### {}"),
        ]
        parts = [part for example in examples for part in example] + ["And {question} %s?"]
        prompt = self_consistency.chain_of_thought_prompt("And {question} %s?", examples)
        assert_equal([prompt.count(part) for part in parts], [1] * 7, f"how often each of {parts} occurs in {prompt!r}")
        places = [prompt.index(part) for part in parts]
        assert_equal(places, sorted(places), f"the places of {parts}")

    def test_marker(self) -> None:
        """Asks for an answer behind #### in its own words, with examples and without.

        The examples may not show the marker: write it into the instruction.
        """
        for examples in ([], [("1 + 1?", "It is two.")]):
            prompt = self_consistency.chain_of_thought_prompt("2 + 2?", examples)
            assert "####" in prompt, f"expected #### in the prompt, got {prompt!r}"
            assert "2 + 2?" in prompt, f"expected the question in the prompt, got {prompt!r}"


class TestExtractAnswer:
    """The answer behind the marker."""

    def test_last_line_with_a_marker(self) -> None:
        """Returns what stands behind the last marker on its line, whatever comes before and after.

        Search from the end; stop at the end of the line; keep what is inside of the answer as it is.
        """
        cases = {
            "#### 1\n#### 2\n\nThat is 3.": "2",
            "x #### y #### z": "z",
            "####12": "12",
            "####\t-4,000  km\t\r\nok": "-4,000  km",
            "#### # 5": "# 5",
            "a\n#### The  Answer.": "The  Answer.",
        }
        for text, answer in cases.items():
            assert_equal(self_consistency.extract_answer(text), answer, f"the answer in {text!r}")

    def test_none(self) -> None:
        """Returns None, not an empty text and not a guess, where nothing stands behind the last marker.

        A last number somewhere in the text is no answer here. The line after the marker's line is not behind it.
        """
        for text in ("", "7", "### 7", "#### 7\n####", "####   \n7", "so ####\n\n7"):
            assert_equal(self_consistency.extract_answer(text), None, f"the answer in {text!r}")


class TestCanonicalAnswer:
    """One form for one answer."""

    def test_ways_to_write_a_number(self) -> None:
        """Gives all ways to write a number one form: an integer or a reduced fraction with its sign in front.

        Decimals are exact: .1 is 1/10 and not a float. Zero has no sign.
        """
        cases = {
            "1250": ["1250", "1,250", "$1,250", "1250.0", " 1250. ", "+1250", "2500/2", "01250", "$1,250.00."],
            "-7/2": ["-3.5", "-7/2", "-14/4", "-3.50", "-03.5"],
            "0": ["0", "-0", "0.0", "0/5", "-.0", "$0.00"],
            "1/10": ["0.1", ".1", "1/10", "10/100", ".10."],
            "1000000": ["1,000,000", "1000000", "$1,000,000"],
        }
        for form, answers in cases.items():
            for answer in answers:
                assert_equal(self_consistency.canonical_answer(answer), form, f"the form of {answer!r}")

    def test_large_numbers(self) -> None:
        """Keeps every digit of a long number.

        A float has 16 digits: use Fraction or Decimal.
        """
        for answer in ("12345678901234567891", "12,345,678,901,234,567,891", "12345678901234567891.000"):
            assert_equal(self_consistency.canonical_answer(answer), "12345678901234567891", f"the form of {answer!r}")

    def test_what_is_no_number(self) -> None:
        """Leaves everything else as text: lower case, single spaces, none around it, minus one full stop at its end.

        A comma that does not separate thousands makes no number, and neither does a division by zero.
        """
        cases = {
            "1/0": "1/0",
            "12,34": "12,34",
            "New  York\tCity": "new york city",
            " Yes. ": "yes",
            "x = 5": "x = 5",
            "5 apples": "5 apples",
            "$": "$",
            "...": "..",
            ".": "",
            "(B)": "(b)",
            "1.5.2": "1.5.2",
        }
        for answer, form in cases.items():
            assert_equal(self_consistency.canonical_answer(answer), form, f"the form of {answer!r}")


def samples(*pairs: tuple[str, float]) -> list[Completion]:
    """Return completions of two tokens each with these texts and log-probabilities."""
    return [Completion(text, [0, 1], [logprob - 0.5, 0.5], "stop") for text, logprob in pairs]


class TestAnswerDistribution:
    """Marginalising over reasoning."""

    def test_unweighted(self) -> None:
        """Gives each answer its share of the samples that have one, duplicates counted, probabilities ignored.

        Divide by the number of samples with an answer. Drawing a text twice is evidence: count it twice.
        """
        drawn = samples(
            ("a 1", -9.0), ("b 1", -1.0), ("a 1", -9.0), ("c 2", -0.1), ("d ?", -0.1), ("e 3", -5.0), ("e 3", -5.0)
        )
        actual = self_consistency.answer_distribution(drawn, last_word, weighted=False)
        assert_same_distribution(actual, {"1": 1 / 2, "2": 1 / 6, "3": 1 / 3}, 1e-6)

    def test_weighted(self) -> None:
        """Gives each answer the probability of the different texts that lead to it, renormalised.

        A sum over reasoning has each reasoning once, however often it was drawn. Add probabilities, not logarithms, of
        whole texts, not of a mean token.
        """
        log = math.log
        drawn = samples(
            ("a 1", log(0.05)),
            ("b 1", log(0.1)),
            ("a 1", log(0.05)),
            ("c 2", log(0.2)),
            ("d ?", log(0.4)),
            ("f 3", log(0.05)),
        )
        actual = self_consistency.answer_distribution(drawn, last_word, weighted=True)
        assert_same_distribution(actual, {"1": 0.375, "2": 0.5, "3": 0.125}, 1e-6)

    def test_long_texts(self) -> None:
        """Works with log-probabilities of any size.

        exp(-2000) is 0: subtract the largest log-probability first.
        """
        drawn = samples(("a 1", -2000.0), ("b 2", -2000.0 + math.log(3)), ("c ?", -1.0))
        actual = self_consistency.answer_distribution(drawn, last_word, weighted=True)
        assert_same_distribution(actual, {"1": 0.25, "2": 0.75}, 1e-6)

    def test_no_answer(self) -> None:
        """Is empty where no sample has an answer.

        None is not an answer, and nothing divides by zero.
        """
        for weighted in (False, True):
            for drawn in ([], samples(("a ?", -1.0), ("b ?", -2.0))):
                actual = self_consistency.answer_distribution(drawn, last_word, weighted)
                assert_equal(dict(actual), {}, "the distribution without answers")
            actual = self_consistency.answer_distribution(samples(("a ?", -1.0), ("b 7", -2.0)), last_word, weighted)
            assert_same_distribution(actual, {"7": 1.0}, 1e-6)


class TestSelfConsistency:
    """A vote."""

    def test_vote(self) -> None:
        """Returns the most frequent answer, of equally frequent ones the first drawn, and all counts.

        Samples without an answer are drawn and do not vote, even if they are the most. The vote does not go by the
        order of the alphabet.
        """
        cases = (
            ("9 1 9 ? ? ?", "9", {"9": 2, "1": 1}),
            ("? 5 4 4 5", "5", {"5": 2, "4": 2}),
            ("? z b a", "z", {"z": 1, "b": 1, "a": 1}),
            ("a b b ? c", "b", {"a": 1, "b": 2, "c": 1}),
            ("? ?", None, {}),
        )
        for drawn, answer, counts in cases:
            texts = [f"because {word}" for word in drawn.split()]
            vote = self_consistency.self_consistency(ScriptedEngine({"q": texts}), "q", last_word, len(texts), PARAMS)
            assert_equal(
                (vote.answer, dict(vote.counts), vote.samples), (answer, counts, len(texts)), f"the vote of {drawn}"
            )

    def test_one_request(self) -> None:
        """Draws all samples with one request that differs from the caller's parameters in n alone.

        Use n: the prompt is then paid once. Pass temperature, top_p, seed and max_tokens on.
        """
        model = ScriptedEngine(lambda prompt, params: [f"so {i % 3}" for i in range(params.n)])
        params = SamplingParams(n=3, temperature=0.8, top_p=0.95, max_tokens=11, stop=("!",), seed=4)
        vote = self_consistency.self_consistency(model, "one two three", last_word, 32, params)
        assert_equal((vote.answer, vote.samples), ("0", 32), "answer and samples")
        assert_equal(model.calls, [["one two three"]], "the prompts of each call")
        wanted = SamplingParams(n=32, temperature=0.8, top_p=0.95, max_tokens=11, stop=("!",), seed=4)
        assert_equal(model.params, [wanted], "the sampling parameters")

    @pytest.mark.reference("votes")
    def test_real_model(self, golden) -> None:
        """On problems and samples of a real model, every vote comes out as it should.

        Real samples are long, alike, cut off, or without an answer: count them all.
        """

        def final_answer(text: str) -> str | None:
            number = extract_number(text) if "####" in text else None
            return None if number is None else str(number)

        for case in golden:
            model, params = RecordedEngine(case["recording"]), msgspec.convert(case["params"], SamplingParams)
            vote = self_consistency.self_consistency(model, case["prompt"], final_answer, case["n"], params)
            found = [vote.answer, dict(vote.counts), vote.samples]
            assert_equal(found, case["vote"], "answer, counts and samples of a vote")
            assert_equal(model.strayed, 0, "the number of requests that nothing asks for")


class TestIsDecided:
    """When the rest cannot matter."""

    def test_by_playing_the_rest(self) -> None:
        """Holds exactly where the leader stays ahead even if all remaining samples go to one other answer.

        The other answer may be the runner-up or one that has not been seen. To draw level is enough to leave it open.
        """
        cases: list[Sequence[int]] = [(), (1,), (2, 1), (1, 2), (3, 3), (5, 1, 1), (4, 2, 1), (1, 1, 1), (0, 4, 2)]
        for votes in cases:
            counts = {f"answer {i}": votes[i] for i in range(len(votes))}
            for remaining in range(7):
                finals = [[v + (i == j) * remaining for i, v in enumerate([*votes, 0])] for j in range(len(votes) + 1)]
                leader = max(range(len(votes)), key=lambda i, v=votes: v[i], default=None)
                decided = leader is not None and all(
                    final[leader] > max(v for i, v in enumerate(final) if i != leader)
                    for j, final in enumerate(finals)
                    if j != leader
                )
                actual = bool(self_consistency.is_decided(counts, remaining))
                assert_equal(actual, decided, f"whether {counts} is decided with {remaining} to come")


class TestAdaptiveSelfConsistency:
    """A vote that ends early."""

    def test_same_answer_with_fewer_samples(self) -> None:
        """Stops after the first batch that decides the vote, and names the winner that all n samples name.

        Compare the lead with the samples that are left of n. Samples without an answer use up draws without a vote.
        """
        cases = (
            ("1 1 1 1 2 2 2", 2, "1", 4),
            ("2 1 1 1 1 ? ?", 1, "1", 5),
            ("1 2 1 2 1 2 1", 3, "1", 7),
            ("? ? ? 3 ? ? ?", 1, "3", 7),
            ("? ? 3 3 ? ? ?", 1, "3", 6),
            ("1 1 1 2 2 2", 4, "1", 6),
            ("? ? ?", 2, None, 3),
        )
        for drawn, batch_size, answer, samples_drawn in cases:
            texts = [f"so {word}" for word in drawn.split()]
            model = ScriptedEngine({"q": texts})
            vote = self_consistency.adaptive_self_consistency(model, "q", last_word, len(texts), batch_size, PARAMS)
            seen = [word for word in drawn.split()[:samples_drawn] if word != "?"]
            counts = {word: seen.count(word) for word in seen}
            actual = (vote.answer, dict(vote.counts), vote.samples)
            assert_equal(actual, (answer, counts, samples_drawn), f"the vote of {drawn} in batches of {batch_size}")

    def test_requests(self) -> None:
        """Makes one request for each batch, the last one for what is left, with seeds that go on from batch to batch.

        The same seed in every batch draws the same samples again. Sample i of one request draws from seed + i.
        """
        model = ScriptedEngine(lambda prompt, params: [f"so {params.seed}.{i}" for i in range(params.n)])
        params = SamplingParams(temperature=0.8, max_tokens=5, seed=100)
        vote = self_consistency.adaptive_self_consistency(model, "q", last_word, 8, 3, params)
        assert_equal(vote.samples, 8, "the samples drawn")
        assert_equal(model.calls, [["q"]] * 3, "the prompts of each call")
        wanted = [
            SamplingParams(n=n, temperature=0.8, max_tokens=5, seed=seed) for n, seed in ((3, 100), (3, 103), (2, 106))
        ]
        assert_equal(model.params, wanted, "the sampling parameters")
        unseeded = ScriptedEngine(lambda prompt, params: ["so 1"] * params.n)
        self_consistency.adaptive_self_consistency(unseeded, "q", last_word, 2, 5, PARAMS)
        wanted = [SamplingParams(n=2, temperature=0.8, top_p=0.95, max_tokens=11)]
        assert_equal(unseeded.params, wanted, "the sampling parameters without a seed")

    def test_refuses(self) -> None:
        """Raises ValueError, before anything is drawn, unless n and batch_size are at least 1.

        A batch of no samples would never end.
        """
        model = ScriptedEngine(lambda prompt, params: ["so 1"] * params.n)
        vote = self_consistency.adaptive_self_consistency(model, "q", last_word, 1, 1, PARAMS)
        assert_equal((vote.answer, vote.samples), ("1", 1), "answer and samples")
        for n, batch_size in ((0, 1), (-1, 2), (3, 0), (3, -1)):
            with pytest.raises(ValueError):
                self_consistency.adaptive_self_consistency(model, "q", last_word, n, batch_size, PARAMS)
        assert_equal(model.usage.requests, 1, "the number of requests")
