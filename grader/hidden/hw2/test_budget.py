"""Hidden tests of `hw2/budget.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import dataclasses
import itertools
import math
from collections import Counter

import pytest

from hw2 import budget
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.engine import Prompt, SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

TOLERANCE = 1e-6
PARAMS = SamplingParams(temperature=0.6, top_p=0.9, max_tokens=7, stop=("\n\n",), seed=3)
END = " <end>"


def think(model: ScriptedEngine, min_tokens: int, max_tokens: int) -> tuple:
    """Let the model think about a question; return thinking, its tokens, and answer."""
    return dataclasses.astuple(
        budget.force_budget(model, "Q", END, " Hm,", min_tokens=min_tokens, max_tokens=max_tokens, params=PARAMS)
    )


class TestForceBudget:
    """Least and most thinking."""

    def test_forced_as_often_as_needed(self) -> None:
        """Forces continuations until the model has generated the minimum itself; forced tokens do not count.

        Count the tokens of the completions, not those of the text: the continuation is yours, not the model's.
        """
        replies = {
            "Q": [" a <end>"],
            "Q a Hm,": [" b <end>"],
            "Q a Hm, b Hm,": [" c d <end>"],
            "Q a Hm, b Hm, c d <end>": [" 7"],
        }
        model = ScriptedEngine(replies)
        actual = think(model, 6, 20)
        assert_equal(actual, (" a Hm, b Hm, c d", 7, " 7"), "thinking, its tokens, and answer")
        assert_equal(model.prompts, list(replies), "the prompts")

    def test_exactly_enough(self) -> None:
        """Forces nothing on a model that stops with exactly the minimum, or that has none.

        Continue only while the tokens are fewer than the minimum.
        """
        for min_tokens in (0, 1, 3):
            model = ScriptedEngine({"Q": [" a b <end> no"], "Q a b <end>": [" 7"]})
            actual = think(model, min_tokens, 9)
            assert_equal(actual, (" a b", 3, " 7"), f"the result for a minimum of {min_tokens}")

    def test_maximum_over_all_requests(self) -> None:
        """Gives each request what is left of the maximum, and answers after the cut.

        The maximum holds for all thinking together. Where a model is cut off below the minimum nothing is forced on it.
        """
        for min_tokens in (5, 6):
            model = ScriptedEngine({"Q": [" a b <end>"], "Q a b Hm,": [" c d e f g"], "Q a b Hm, c d e <end>": [" 7"]})
            actual = think(model, min_tokens, 6)
            assert_equal(actual, (" a b Hm, c d e", 6, " 7"), f"the result for a minimum of {min_tokens}")
            assert_equal([params.max_tokens for params in model.params], [6, 3, 7], "max_tokens of each request")

    def test_stop_at_the_maximum(self) -> None:
        """Makes no request without tokens left, where the model stops with its last token.

        A minimum that equals the maximum is reached then. SamplingParams refuses max_tokens 0.
        """
        model = ScriptedEngine({"Q": [" a <end>"], "Q a Hm,": [" b <end>"], "Q a Hm, b <end>": [" 7"]})
        assert_equal(think(model, 4, 4), (" a Hm, b", 4, " 7"), "thinking, its tokens, and answer")

    def test_model_window_ends(self) -> None:
        """Goes on to the answer when a model is cut off before the maximum, by the end of its window.

        finish_reason "length" says that the model can not go on; asking again would never end.
        """

        class Narrow(ScriptedEngine):
            def generate(self, prompts, params, on_done=None):
                (one,) = params if isinstance(params, list) else [params]
                return super().generate(prompts, SamplingParams(stop=one.stop, max_tokens=2), on_done)

        model = Narrow(lambda prompt, params: [" 7"] if prompt.endswith(END) else [" a b c d e"])
        assert_equal(think(model, 8, 9), (" a b", 2, " 7"), "thinking, its tokens, and answer")
        assert_equal(model.prompts, ["Q", "Q a b <end>"], "the prompts")

    def test_parameters(self) -> None:
        """Stops thinking at the end of thinking alone, and answers with the caller's parameters, one sample each.

        The caller's stop strings are for the answer, and so is max_tokens. Other parameters hold for both.
        """
        model = ScriptedEngine({"Q": [" a\n\nb <end>"], "Q a\n\nb <end>": [" 7\n\nQ"]})
        params = SamplingParams(n=4, temperature=0.6, top_p=0.9, max_tokens=7, stop=("\n\n",), seed=3)
        actual = budget.force_budget(model, "Q", END, " Hm,", min_tokens=1, max_tokens=30, params=params)
        assert_equal(dataclasses.astuple(actual), (" a\n\nb", 3, " 7"), "thinking, its tokens, and answer")
        wanted = [
            SamplingParams(temperature=0.6, top_p=0.9, max_tokens=30, stop=(END,), seed=3),
            SamplingParams(temperature=0.6, top_p=0.9, max_tokens=7, stop=("\n\n",), seed=3),
        ]
        assert_equal(model.params, wanted, "the sampling parameters")
        for least, most in ((-1, 3), (3, 2), (0, 0)):
            with pytest.raises(ValueError):
                think(model, least, most)


def drawn_subsets(n: int, k: int) -> list[tuple[int, ...]]:
    """Return all subsets of k of n samples."""
    return list(itertools.combinations(range(n), k))


class TestPassAtK:
    """At least one of k."""

    def test_by_listing_subsets(self) -> None:
        """Equals the share of subsets of k samples that have a correct one, for all numbers up to n = 7.

        Draw without replacement: 1 - (1 - c/n)^k draws with replacement, and is biased.
        """
        for n in range(1, 8):
            for c in range(n + 1):
                for k in range(1, n + 1):
                    subsets = drawn_subsets(n, k)
                    expected = sum(min(subset) < c for subset in subsets) / len(subsets)
                    assert_close(budget.pass_at_k(n, c, k), expected, TOLERANCE, f"pass@{k} with {c} of {n} correct")

    def test_many_samples(self) -> None:
        """Works for thousands of samples, where binomial coefficients overflow a float.

        Divide exact integers as fractions, or multiply ratios. An integer of a thousand digits is no float.
        """
        expected = 1 - math.prod((2900 - i) / (3000 - i) for i in range(1000))
        assert_close(budget.pass_at_k(3000, 100, 1000), expected, TOLERANCE, "pass@1000 with 100 of 3000 correct")
        assert_close(budget.pass_at_k(3000, 1, 1500), 0.5, TOLERANCE, "pass@1500 with 1 of 3000 correct")

    def test_refuses(self) -> None:
        """Accepts all extremes, and raises ValueError for numbers that do not fit.

        C(n - c, k) is 0 where fewer than k are wrong. Check c and k against n.
        """
        assert_close(budget.pass_at_k(4, 4, 1), 1.0, TOLERANCE, "pass@1 with all correct")
        assert_close(budget.pass_at_k(4, 1, 4), 1.0, TOLERANCE, "pass@4 with 1 of 4 correct")
        for n, c, k in ((4, 5, 2), (4, -1, 2), (4, 2, 0), (4, 2, 5), (0, 0, 0)):
            with pytest.raises(ValueError):
                budget.pass_at_k(n, c, k)


class TestMajorityAtK:
    """A vote of k."""

    def test_by_listing_subsets(self) -> None:
        """Equals the mean over all subsets of k samples; t answers that lead together have 1/t each, None has no vote.

        A tie is neither won nor lost. A sample without an answer uses up a draw. Draw without replacement.
        """
        for text in ("aabbc", "abc?", "aaab??", "abbccd", "bbb", "a???", "aabb??cc"):
            answers = [None if letter == "?" else letter for letter in text]
            for k in range(1, len(answers) + 1):
                expected = 0.0
                subsets = drawn_subsets(len(answers), k)
                for subset in subsets:
                    counts = Counter(answers[i] for i in subset if answers[i] is not None)
                    leaders = [answer for answer in counts if counts[answer] == max(counts.values())]
                    expected += ("a" in leaders) / max(len(leaders), 1) / len(subsets)
                assert_close(budget.majority_at_k(answers, "a", k), expected, TOLERANCE, f"maj@{k} of {text}")

    def test_binomial(self) -> None:
        """Approaches the binomial values for many samples, in the time that a test has.

        There are 10^20 subsets: count them by how many votes each answer gets instead of listing them. With .6 correct
        and one wrong answer, maj@3 is .648, maj@5 .68256 and maj@11 .7535 for independent draws.
        """
        answers = ["right"] * 1200 + ["wrong"] * 800
        for k, expected in ((3, 0.648), (5, 0.68256), (11, 0.7535)):
            assert_close(budget.majority_at_k(answers, "right", k), expected, 1e-3, f"maj@{k} of 2000 samples")
        answers = ["r"] * 20 + [f"w{i}" for i in range(20) for _ in range(2)] + [None] * 20
        actual = budget.majority_at_k(answers, "r", 40)
        assert 0.98 < actual <= 1.0, f"expected maj@40 between .98 and 1, got {actual}"

    def test_refuses(self) -> None:
        """Is 0 where no sample is correct, and raises ValueError unless 1 <= k <= n.

        A vote without any answer is lost.
        """
        assert_close(budget.majority_at_k([None, None, "b"], "a", 2), 0.0, TOLERANCE, "maj@2 without a correct sample")
        assert_close(budget.majority_at_k([None, None, "a"], "a", 1), 1 / 3, TOLERANCE, "maj@1 with one answer of 3")
        for k in (0, 4, -1):
            with pytest.raises(ValueError):
                budget.majority_at_k(["a", "a", "b"], "a", k)


class TestComputeOptimal:
    """A larger model or more samples."""

    def test_best_of_all_options(self) -> None:
        """Solves most with the whole budget; which model does so changes with the budget, back and forth.

        Spend all that an option can: whole samples of cost_per_token · tokens_per_sample each. Average 1 - (1 - p)^n
        over the problems; an average p hides that some problems are never solved.
        """
        options = [
            budget.Option(3, 40, [0.9, 0.0, 0.0, 0.0]),
            budget.Option(10, 45, [0.5, 0.4, 0.3, 0.0]),
            budget.Option(40, 30, [0.8, 0.7, 0.6, 0.5]),
        ]
        seen = set()
        for amount in (120, 449, 450, 1199, 1200, 1300, 2399, 2400, 5000, 20000):
            results = []
            for option in options:
                n = amount // (option.cost_per_token * option.tokens_per_sample)
                results.append((sum(1 - (1 - p) ** n for p in option.solve_rates) / 4, n))
            best = max(range(3), key=lambda i, r=results: r[i])
            choice = budget.compute_optimal(options, amount)
            assert_equal((choice.option, choice.samples), (best, results[best][1]), f"option and samples for {amount}")
            assert_close(choice.solved, results[best][0], TOLERANCE, f"the share solved for {amount}")
            seen.add(choice.option)
        assert_equal(seen, {0, 1, 2}, "the options chosen")

    def test_averages_over_problems(self) -> None:
        """Prefers moderate rates everywhere to certainty in half of the problems, once it can sample often.

        1 - (1 - mean p)^n is not the mean of 1 - (1 - p)^n. More samples do not help where p is 0 or 1.
        """
        certain, moderate = budget.Option(1, 10, [1.0, 1.0, 0.0]), budget.Option(1, 10, [0.4, 0.5, 0.3])
        assert_equal(budget.compute_optimal([certain, moderate], 10).option, 0, "the option for one sample")
        choice = budget.compute_optimal([certain, moderate], 55)
        assert_equal((choice.option, choice.samples), (1, 5), "option and samples for 55")
        assert_close(choice.solved, 1 - (0.6**5 + 0.5**5 + 0.7**5) / 3, TOLERANCE, "the share solved for 55")

    def test_too_little(self) -> None:
        """Leaves out options that cannot pay for a sample, and raises ValueError when there is no other.

        An option with no samples solves nothing; do not choose it, even where all others solve nothing either.
        """
        small, large = budget.Option(2, 10, [0.0]), budget.Option(30, 10, [1.0])
        choice = budget.compute_optimal([large, small], 299)
        assert_equal((choice.option, choice.samples), (1, 14), "option and samples for 299")
        for options, amount in (([large, small], 19), ([large], 299), ([], 100)):
            with pytest.raises(ValueError):
                budget.compute_optimal(options, amount)


class TestWeightedVote:
    """A vote weighted by a verifier."""

    def test_sums(self) -> None:
        """Returns the answer with the highest sum, not the one with the highest score, mean, or count.

        Add the scores up for each answer.
        """
        cases = (
            ("a b b", [0.9, 0.5, 0.5], "b"),
            ("a b b", [0.9, 0.3, 0.3], "a"),
            ("a a a b b", [0.1, 0.1, 0.1, 0.5, 0.6], "b"),
            ("a b a b a", [0.5, 0.6, 0.0, 0.6, 0.5], "b"),
            ("a ? ? b", [0.1, 0.9, 0.9, 0.2], "b"),
            ("? a", [1.0, 0.0], "a"),
        )
        for text, scores, winner in cases:
            answers = [None if word == "?" else word for word in text.split()]
            assert_equal(budget.weighted_vote(answers, scores), winner, f"the vote of {text} with scores {scores}")

    def test_none_and_mismatch(self) -> None:
        """Returns None only where nobody answers, and raises ValueError when scores and answers do not pair up.

        Check both directions: `zip` without `strict=True` drops what is left over.
        """
        assert_equal(budget.weighted_vote([], []), None, "the vote of nobody")
        assert_equal(budget.weighted_vote([None], [3.0]), None, "the vote of one sample without answer")
        for answers, scores in ((["a"], [1.0, 2.0]), (["a", "b"], [1.0]), (["a"], [])):
            with pytest.raises(ValueError):
                budget.weighted_vote(answers, scores)


class TestSampleUntilVerified:
    """An external verifier."""

    def test_verifies_in_order_and_once(self) -> None:
        """Asks about every different text once, in order, and about none after one was accepted.

        Verifiers run programs or proofs: do not ask twice, do not ask on.
        """
        asked = []

        def verify(x: str, text: str) -> bool:
            asked.append((x, text))
            return text in ("d", "e")

        model = ScriptedEngine({"q": list("abacbadeab")})
        actual = budget.sample_until_verified(model, "q", verify, max_samples=10, batch_size=4, params=PARAMS)
        assert_equal((actual.text, actual.samples), ("d", 8), "text and number of samples")
        assert_equal(asked, [("q", "a"), ("q", "b"), ("q", "c"), ("q", "d")], "the texts asked about")

    def test_requests(self) -> None:
        """Makes one request per batch, no more after a text is accepted, with seeds that go on.

        The last batch is smaller. The same seed in every batch draws the same texts again.
        """

        def reply(prompt: Prompt, params: SamplingParams) -> list[str]:
            return [str((params.seed or 0) + i) for i in range(params.n)]

        for accepted, sizes in (("4", [3]), ("8", [3, 3]), ("10", [3, 3, 2]), ("99", [3, 3, 2])):
            model = ScriptedEngine(reply)
            actual = budget.sample_until_verified(
                model, "q", lambda x, text, a=accepted: text == a, max_samples=8, batch_size=3, params=PARAMS
            )
            text = None if accepted == "99" else accepted
            assert_equal(
                (actual.text, actual.samples), (text, sum(sizes)), f"text and number of samples if {accepted} is right"
            )
            starts = [3, 6, 9][: len(sizes)]
            wanted = [
                SamplingParams(n=n, temperature=0.6, top_p=0.9, max_tokens=7, stop=("\n\n",), seed=seed)
                for n, seed in zip(sizes, starts, strict=True)
            ]
            assert_equal(model.params, wanted, f"the sampling parameters if {accepted} is right")
        model = ScriptedEngine(reply)
        budget.sample_until_verified(
            model, "q", lambda x, y: True, max_samples=1, batch_size=9, params=SamplingParams()
        )
        assert_equal(model.params, [SamplingParams()], "the sampling parameters without a seed")

    def test_refuses(self) -> None:
        """Accepts an empty text if the verifier does, and raises ValueError unless both numbers are at least 1.

        An empty text is a text: compare with None.
        """
        model = ScriptedEngine({"q": ["", "a"]})
        actual = budget.sample_until_verified(
            model, "q", lambda x, y: y == "", max_samples=2, batch_size=1, params=PARAMS
        )
        assert_equal((actual.text, actual.samples), ("", 1), "text and number of samples")
        for most, size in ((0, 1), (1, 0), (-1, 1), (2, -2)):
            with pytest.raises(ValueError):
                budget.sample_until_verified(
                    model, "q", lambda x, y: True, max_samples=most, batch_size=size, params=PARAMS
                )


def collect(model: ScriptedEngine, prompts: list[str], held_out: list[str] | None = None, **settings: int) -> list:
    """Return input_ids and labels from texts that end in "ok"; a prompt's tokens are 1000 + its letters' codes."""
    examples = budget.rejection_sampling_data(
        model,
        prompts,
        lambda prompt: [1000 + ord(letter) for letter in prompt],
        lambda prompt, text: text.endswith("ok") and prompt[0] != "z",
        **{"n": 6, "max_per_prompt": 9, "params": PARAMS, "held_out": held_out or []} | settings,
    )
    return [(list(e.input_ids), list(e.labels)) for e in examples]


def example(model: ScriptedEngine, prompt: str, *words: str) -> tuple[list[int], list[int]]:
    """Return input_ids and labels of a prompt and a completion's words."""
    ids = [model._ids[word] for word in words]
    prompt_ids = [1000 + ord(letter) for letter in prompt]
    return prompt_ids + ids, [-100] * len(prompt_ids) + ids


class TestRejectionSamplingData:
    """Data to fine-tune on."""

    def test_verified_different_and_capped(self) -> None:
        """Keeps the first max_per_prompt different texts that are verified, of each prompt on its own.

        Verify and remove duplicates before you cap. The same text for another prompt is another example.
        """
        replies = ["b no", "a ok", "a ok", "b ok", "c ok", "d ok"]
        for cap in (1, 2, 3, 9):
            model = ScriptedEngine({"p": replies, "q": [*replies[::-1]], "z": replies})
            actual = collect(model, ["p", "z", "q"], max_per_prompt=cap)
            expected = [example(model, "p", word, " ok") for word in "abcd"[:cap]]
            expected += [example(model, "q", word, " ok") for word in "dcba"[:cap]]
            assert_equal(actual, expected, f"the examples with at most {cap} a prompt")

    def test_prompt_is_masked(self) -> None:
        """Trains on the completion's own tokens, all of them and no other.

        Labels are not shifted: they have the length of the inputs. Mask the prompt's tokens by their number, not by
        their value, and do not encode the completion again.
        """
        model = ScriptedEngine({"pqp": ["x y x ok"]})
        (actual,) = collect(model, ["pqp"], n=1)
        assert_equal(actual[0], [1112, 1113, 1112, 0, 1, 2, 3], "the tokens")
        assert_equal(actual[1], [-100, -100, -100, 0, 1, 2, 3], "the labels")

    def test_nothing_of_the_test_leaks(self) -> None:
        """Samples held-out prompts neither first nor last, equal prompts once, all others in one call.

        Compare with `held_out` before you generate. One request of n samples for each prompt.
        """
        model = ScriptedEngine(lambda prompt, params: [f"{prompt} {i} ok" for i in range(params.n)])
        actual = collect(model, ["t", "p", "q", "p", "u", "q"], ["u", "t", "v"], n=2)
        assert_equal(model.calls, [["p", "q"]], "the prompts of each call")
        wanted = SamplingParams(n=2, temperature=0.6, top_p=0.9, max_tokens=7, stop=("\n\n",), seed=3)
        assert_equal(model.params, [wanted] * 2, "the sampling parameters")
        expected = [example(model, prompt, prompt, f" {i}", " ok") for prompt in "pq" for i in range(2)]
        assert_equal(actual, expected, "the examples")
        assert_equal(collect(model, ["t"], ["t"]), [], "the examples of a held-out prompt")
        assert_equal(len(model.calls), 1, "the number of calls")

    def test_cut_off_completions(self) -> None:
        """Leaves out completions that were cut off, even if the verifier would accept them.

        finish_reason "length" means that the model had not finished. Its text may come again, finished.
        """
        model = ScriptedEngine({"p": ["a b c d e f ok ok", "a b c d e f ok", "g ok"]})
        actual = collect(model, ["p"], n=3)
        expected = [example(model, "p", "a", " b", " c", " d", " e", " f", " ok"), example(model, "p", "g", " ok")]
        assert_equal(actual, expected, "the examples")
