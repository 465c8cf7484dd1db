"""Hidden tests of hw1.beam_search: exact, by enumeration, by the definition taken word for word, and scripted noise."""

import math
from collections.abc import Callable, Iterable, Sequence

import pytest
import torch

from grader.goldens.near_ties import is_greedy
from grader.goldens.recording import RecordedModel
from grader.goldens.tolerances import ARITHMETIC
from hw1 import beam_search as search
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.randomness import ScriptedNoise, TorchRandomness
from shared_tasks.models.toy import PositionModel, TableModel, enumerate_sequences

TOLERANCE = 1e-4  # wide enough for a solution that computes in float32

Tokens = tuple[int, ...]
Candidate = tuple[float, Tokens]  # log-probability and tokens

# Prompts of several lengths, one with end tokens; models that look at whole contexts or at positions. No two
# continuations tie: an n-gram model gives those with the same n-grams the same probability.
CASES: list[tuple[LanguageModel, list[int]]] = [
    (TableModel.random(vocab_size=4, depth=6, seed=101, eos_token_id=2), [3, 0]),
    (PositionModel(vocab_size=5, max_length=12, seed=102, eos_token_id=3), [3, 1, 0, 3]),
    (TableModel.random(vocab_size=4, depth=5, seed=103, eos_token_id=1), []),
    (PositionModel(vocab_size=6, max_length=10, seed=104, eos_token_id=5), [1]),
]
# Possible after [] are [3, 1], [3, 2, 0, ...] and [1]; after a context that is not in the table the end token 1 comes.
SPARSE = TableModel(
    {
        (): [0.0, 0.3, 0.0, 0.7],
        (3,): [0.0, 0.6, 0.4, 0.0],
        (3, 2): [1.0, 0.0, 0.0, 0.0],
        (3, 2, 0): [0.0, 0.8, 0.0, 0.2],
    },
    eos_token_id=1,
)
# With two beams [0] and then the less probable [2, 0] finish, while [1, 1] is about to end.
LATE = TableModel(
    {(): [0.5, 0.4, 0.1], (1,): [0.02, 0.95, 0.03], (2,): [0.9, 0.04, 0.06], (1, 1): [0.98, 0.015, 0.005]},
    eos_token_id=0,
)


def sequence_logprob(model: LanguageModel, x: list[int], tokens: Sequence[int]) -> float:
    """Return log P(tokens | x)."""
    (terms,) = model.continuation_logprobs([x], [list(tokens)])
    return terms.double().sum().item()


def step_by_definition(
    model: LanguageModel, x: list[int], running: list[Candidate], penalty: dict[int, float]
) -> list[Candidate]:
    """Return all possible candidates in order of falling log-probability minus penalty."""
    rows = model.next_token_logprobs([[*x, *y] for _, y in running]).double().tolist()
    candidates = [
        (total + row[token], (*y, token))
        for (total, y), row in zip(running, rows, strict=True)
        for token in range(model.vocab_size)
        if row[token] > -math.inf
    ]
    return sorted(candidates, key=lambda candidate: penalty.get(candidate[1][-1], 0.0) - candidate[0])


def divide_by_definition(
    candidates: list[Candidate], num_beams: int, max_tokens: int, end: int
) -> tuple[list[Candidate], list[Candidate]]:
    """Return what has finished and what runs on."""
    complete = [len(y) == max_tokens or y[-1] == end for _, y in candidates]
    ended = [c for c, done in zip(candidates[:num_beams], complete, strict=False) if done]
    return ended, [c for c, done in zip(candidates, complete, strict=True) if not done][:num_beams]


def best_by_score(finished: Iterable[Candidate], length_penalty: float, most: int) -> list[Candidate]:
    """Return the candidates with the highest normalised scores."""
    return sorted(finished, key=lambda candidate: -candidate[0] / len(candidate[1]) ** length_penalty)[:most]


def beam_by_definition(
    model: LanguageModel,
    x: list[int],
    num_beams: int,
    max_tokens: int,
    length_penalty: float = 0.0,
    early_stopping: bool = False,
) -> tuple[list[Candidate], int]:
    """Return the hypotheses of beam search and the number of continuations that it extends."""
    running: list[Candidate] = [(0.0, ())]
    finished: list[Candidate] = []
    extended = 0
    while running:
        extended += len(running)
        candidates = step_by_definition(model, x, running, {})
        ended, running = divide_by_definition(candidates, num_beams, max_tokens, model.eos_token_id)
        finished = best_by_score(finished + ended, length_penalty, num_beams)
        if len(finished) == num_beams and running:
            total, y = running[0]
            reachable = max(total / n**length_penalty for n in range(len(y) + 1, max_tokens + 1))
            if early_stopping or reachable <= finished[-1][0] / len(finished[-1][1]) ** length_penalty:
                break
    return finished, extended


def diverse_by_definition(
    model: LanguageModel,
    x: list[int],
    size: int,
    num_beam_groups: int,
    diversity_penalty: float,
    max_tokens: int,
    length_penalty: float = 0.0,
) -> list[list[Candidate]]:
    """Return the hypotheses of each group of diverse beam search."""
    running: list[list[Candidate]] = [[(0.0, ())] for _ in range(num_beam_groups)]
    finished: list[list[Candidate]] = [[] for _ in range(num_beam_groups)]
    for _ in range(max_tokens):
        penalty: dict[int, float] = {}
        for g in range(num_beam_groups):
            if len(finished[g]) >= size or not running[g]:
                continue
            candidates = step_by_definition(model, x, running[g], penalty)
            ended, running[g] = divide_by_definition(candidates, size, max_tokens, model.eos_token_id)
            finished[g] = best_by_score(finished[g] + ended, length_penalty, size)
            for _, y in ended + running[g]:
                penalty[y[-1]] = penalty.get(y[-1], 0.0) + diversity_penalty
    return finished


def conditioned(row: Sequence[float], maximum: float) -> list[float]:
    """Return the row, conditioned on its maximum, by the formula."""
    z = max(row)
    inner = [math.exp(-maximum) - math.exp(-z) + (math.inf if g == -math.inf else math.exp(-g)) for g in row]
    return [maximum if g == z else -math.log(total) for g, total in zip(row, inner, strict=True)]


def stochastic_by_definition(
    model: LanguageModel, x: list[int], num_beams: int, max_tokens: int, noise: Sequence[float]
) -> tuple[list[tuple[float, float, Tokens]], int]:
    """Return (score, log-probability, tokens) of the samples, and the number of noise values used."""
    script = iter(noise)
    used = 1
    beam: list[tuple[float, float, Tokens]] = [(next(script), 0.0, ())]
    for _ in range(max_tokens):
        done = [member for member in beam if member[2][-1:] == (model.eos_token_id,)]
        going = [member for member in beam if member[2][-1:] != (model.eos_token_id,)]
        if not going:
            break
        children = []
        for score, total, y in going:
            row = model.next_token_logprobs([[*x, *y]])[0].double().tolist()
            perturbed = [total + logprob + next(script) for logprob in row]
            scores = conditioned(perturbed, score)
            children += [
                (scores[token], total + row[token], (*y, token)) for token in range(len(row)) if row[token] > -math.inf
            ]
            used += len(row)
        beam = sorted(done + children, reverse=True)[:num_beams]
    return beam, used


def noise_of(count: int, seed: int) -> list[float]:
    """Return standard Gumbel noise."""
    return TorchRandomness(seed).gumbel((count,)).tolist()


def assert_hypotheses(found: Sequence, expected: Sequence[Candidate], length_penalty: float, what: str) -> None:
    """Fail unless the hypotheses found are the expected ones in this order, with their log-probabilities and scores."""
    assert_equal([list(h.tokens) for h in found], [list(y) for _, y in expected], what)
    for hypothesis, (total, y) in zip(found, expected, strict=True):
        assert_close(hypothesis.logprob, total, TOLERANCE, f"the log-probability of {list(y)} in {what}")
        score = total / len(y) ** length_penalty
        assert_close(hypothesis.score, score, TOLERANCE, f"the score of {list(y)} in {what}")


def assert_refused(call: Callable[[], object]) -> None:
    """Fail unless the call raises ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 (the message is the student's own)
        call()


class TestGreedySearch:
    """The most probable token at every step."""

    def test_most_probable_tokens(self):
        """Every token is the most probable one after the prompt and all tokens before it.

        Look at what the context of each call is made of, and return the continuation without the prompt.
        """
        for model, x in CASES:
            tokens = search.greedy_search(model, list(x), max_tokens=6)
            expected: list[int] = []
            while len(expected) < 6 and expected[-1:] != [model.eos_token_id]:
                expected.append(int(model.next_token_logprobs([[*x, *expected]]).argmax()))
            assert_equal(list(tokens), expected, f"the continuation of {x}")

    def test_stops_at_the_end_token(self):
        """The search stops at the model's own end token, which belongs to the result; one in the prompt ends nothing.

        The end token need not be token 0. There is one model call for each token, and none after the end.
        """
        chain = {(1, 1): 2, (1, 1, 2): 0, (1, 1, 2, 0): 1, (2,): 1}
        model = CountingModel(
            TableModel({context: [float(v == token) for v in range(3)] for context, token in chain.items()}, 1)
        )
        assert_equal(list(search.greedy_search(model, [1, 1], max_tokens=9)), [2, 0, 1], "the continuation of [1, 1]")
        assert_equal(list(search.greedy_search(model, [2], max_tokens=9)), [1], "the continuation of [2]")
        assert model.contexts <= 4, f"expected at most 4 contexts passed to the model, got {model.contexts}"

    def test_max_tokens(self):
        """The result has at most max_tokens tokens without the prompt, prompts do not change, and 0 raises ValueError.

        Count the tokens of the continuation alone.
        """
        model = PositionModel(vocab_size=4, max_length=9, seed=111, eos_token_id=3)
        x = [0, 3, 1]
        long = []
        while len(long) < 5:
            long.append(int(model.next_token_logprobs([[*x, *long]])[0, :3].argmax()))
        forced = TableModel(
            {(*x, *long[:t]): [0.9 if v == token else 0.1 / 3 for v in range(4)] for t, token in enumerate(long)}, 3
        )
        for max_tokens in (1, 2, 4):
            tokens = list(search.greedy_search(forced, x, max_tokens=max_tokens))
            assert_equal(tokens, long[:max_tokens], f"the continuation of at most {max_tokens} tokens")
        assert_equal(x, [0, 3, 1], "the prompt after the calls")
        for max_tokens in (0, -1):
            assert_refused(lambda n=max_tokens: search.greedy_search(forced, x, max_tokens=n))

    @pytest.mark.reference("greedy")
    def test_real_model(self, golden):
        """On a real model every token is the most probable one too; of nearly equal ones either is right.

        With a thousand tokens and more to choose from, look at how the most probable one is found.
        """
        for case in golden:
            model = RecordedModel(case["recording"])
            tokens = list(search.greedy_search(model, case["x"], max_tokens=case["max_tokens"]))
            if not is_greedy(model, case["x"], tokens, case["max_tokens"], ARITHMETIC):
                assert_equal(tokens, case["tokens"], f"the continuation of {case['x']}")


class TestScoreBound:
    """What a running continuation can still reach."""

    def test_best_length(self):
        """The bound is the highest of logprob / n ** length_penalty over all lengths n that are still possible.

        logprob is negative: dividing by more raises it. Where the exponent is negative, a longer continuation loses.
        """
        for length_penalty in (-1.5, -0.4, 0.0, 0.6, 1.0, 2.0):
            for length, max_tokens in ((0, 1), (0, 7), (2, 7), (6, 7), (4, 12)):
                for logprob in (-0.3, -4.0):
                    expected = max(logprob / n**length_penalty for n in range(length + 1, max_tokens + 1))
                    what = f"the bound of ({logprob}, {length}, {max_tokens}, {length_penalty})"
                    assert_close(
                        search.score_bound(logprob, length, max_tokens, length_penalty), expected, TOLERANCE, what
                    )

    def test_certain_and_refused(self):
        """A continuation of probability one can reach 0, and a length without a next token raises ValueError.

        A running continuation has fewer than max_tokens tokens.
        """
        for length_penalty in (-1.0, 0.0, 1.0):
            assert_close(
                search.score_bound(0.0, 3, 8, length_penalty), 0.0, TOLERANCE, "the bound of log-probability 0"
            )
            for length, max_tokens in ((8, 8), (9, 8), (-1, 8)):
                arguments = (-1.0, length, max_tokens, length_penalty)
                assert_refused(lambda a=arguments: search.score_bound(*a))


class TestBeamSearch:
    """Beam search."""

    def test_wide_beam_is_brute_force(self):
        """A beam of at least V^(T - 1) finds the best of all continuations, for every length_penalty.

        Begin with one empty continuation, not with num_beams copies of it; the bound must hold for every length.
        """
        for model, x in ((TableModel.random(3, 5, 121, 1), [2, 0]), (PositionModel(3, 9, 122, 2), [2, 1, 2])):
            exact = [(math.log(p), tokens) for tokens, p in enumerate_sequences(model, 4, x).items()]
            for length_penalty in (-0.7, 0.0, 0.5, 1.0, 2.0):
                found = search.beam_search(model, x, num_beams=27, max_tokens=4, length_penalty=length_penalty)
                expected = best_by_score(exact, length_penalty, 27)
                assert_hypotheses(found, expected, length_penalty, f"the 27 best for length_penalty {length_penalty}")

    def test_one_beam_is_greedy_search(self):
        """One beam is greedy search: with early_stopping for every length_penalty, without it for length_penalty 0.

        A candidate that ends finishes only if it is among the num_beams best: one beam must not end with an improbable
        end token.
        """
        for model, x in CASES:
            greedy: list[int] = []
            while len(greedy) < 5 and greedy[-1:] != [model.eos_token_id]:
                greedy.append(int(model.next_token_logprobs([[*x, *greedy]]).argmax()))
            expected = [(sequence_logprob(model, x, greedy), tuple(greedy))]
            for early_stopping, length_penalty in ((True, 0.0), (True, 1.0), (True, -0.5), (False, 0.0)):
                found = search.beam_search(
                    model, x, num_beams=1, max_tokens=5, length_penalty=length_penalty, early_stopping=early_stopping
                )
                assert_hypotheses(found, expected, length_penalty, f"one beam after {x}")

    def test_every_width(self):
        """For every num_beams the hypotheses are those of the definition, with log-probabilities of whole sequences.

        A hypothesis that has finished takes no place among the num_beams that run, and is not extended.
        """
        for model, x in CASES:
            for num_beams in (2, 3, 4, 7):
                found = search.beam_search(model, x, num_beams=num_beams, max_tokens=5)
                expected, _ = beam_by_definition(model, x, num_beams, 5)
                assert_hypotheses(found, expected, 0.0, f"the hypotheses of {num_beams} beams after {x}")

    def test_length_penalty(self):
        """Finished hypotheses are ranked by logprob / length ** length_penalty, with the end token in the length.

        The prompt does not count. The score decides which hypotheses stay among the num_beams finished ones.
        """
        for model, x in CASES:
            for length_penalty in (-1.0, 0.6, 1.0, 2.5):
                found = search.beam_search(model, x, num_beams=3, max_tokens=6, length_penalty=length_penalty)
                expected, _ = beam_by_definition(model, x, 3, 6, length_penalty)
                what = f"the hypotheses after {x} for length_penalty {length_penalty}"
                assert_hypotheses(found, expected, length_penalty, what)

    def test_early_stopping(self):
        """With early_stopping the search stops after the step in which there are num_beams finished hypotheses.

        It stops then whatever still runs, and not when the first hypothesis has finished.
        """
        for model, x in CASES:
            for num_beams, length_penalty in ((2, 1.0), (3, 2.0), (2, 0.0), (4, -0.5)):
                counting = CountingModel(model)
                found = search.beam_search(
                    counting, x, num_beams=num_beams, max_tokens=7, length_penalty=length_penalty, early_stopping=True
                )
                expected, extended = beam_by_definition(model, x, num_beams, 7, length_penalty, True)
                assert_hypotheses(found, expected, length_penalty, f"the hypotheses of {num_beams} beams after {x}")
                assert counting.contexts <= extended, (
                    f"expected at most {extended} contexts passed to the model, got {counting.contexts}"
                )

    def test_stops_when_nothing_can_improve(self):
        """Without early_stopping the search goes on as long as a beam may still win, and not longer.

        Compare the bound of the best running beam with the worst of num_beams finished hypotheses.
        """
        for model, x in [*CASES, (LATE, [])]:
            for num_beams, length_penalty in ((1, 1.0), (2, 0.0), (2, -1.0), (2, 0.3), (3, 1.5)):
                counting = CountingModel(model)
                found = search.beam_search(
                    counting, x, num_beams=num_beams, max_tokens=8, length_penalty=length_penalty
                )
                expected, extended = beam_by_definition(model, x, num_beams, 8, length_penalty)
                what = f"the hypotheses of {num_beams} beams after {x} for length_penalty {length_penalty}"
                assert_hypotheses(found, expected, length_penalty, what)
                assert counting.contexts <= extended, (
                    f"{what}: expected at most {extended} contexts passed to the model, got {counting.contexts}"
                )

    def test_impossible_continuations(self):
        """Where there are fewer continuations than beams all of them are found, and none of probability zero.

        Drop candidates whose log-probability is -inf.
        """
        found = search.beam_search(SPARSE, [], num_beams=6, max_tokens=4)
        expected = [(0.42, (3, 1)), (0.3, (1,)), (0.224, (3, 2, 0, 1)), (0.056, (3, 2, 0, 3))]
        assert_hypotheses(found, [(math.log(p), y) for p, y in expected], 0.0, "all continuations")

    def test_cost_and_limits(self):
        """There is one model call a step, for the running beams alone; settings below one raise ValueError.

        Pass all running continuations to the model at once. The prompt is not changed.
        """
        inner = PositionModel(5, 9, 123, 0)
        model, x = CountingModel(inner), [2, 4]
        found = search.beam_search(model, x, num_beams=4, max_tokens=6, length_penalty=1.0)
        expected, extended = beam_by_definition(inner, [2, 4], 4, 6, 1.0)
        assert_hypotheses(found, expected, 1.0, "the hypotheses of 4 beams")
        assert model.calls <= 6, f"expected at most 6 model calls, one a step, got {model.calls}"
        assert model.contexts <= extended, f"expected at most {extended} contexts in all, got {model.contexts}"
        assert_equal(x, [2, 4], "the prompt after the call")
        for num_beams, max_tokens in ((0, 5), (-2, 5), (3, 0), (3, -1)):
            settings = {"num_beams": num_beams, "max_tokens": max_tokens}
            assert_refused(lambda s=settings: search.beam_search(inner, x, **s))

    @pytest.mark.reference("beams")
    def test_real_model(self, golden):
        """Finds the continuations of a real model, where every beam has a thousand candidates and more.

        Candidates of all beams compete: keep the best of them all, not some of each.
        """
        for case in golden:
            model = RecordedModel(case["recording"])
            found = search.beam_search(model, case["x"], **case["settings"])
            expected = [(logprob, tuple(tokens)) for tokens, logprob, _ in case["found"]]
            what = f"the continuations of {case['x']} with {case['settings']}"
            assert_hypotheses(found, expected, case["settings"]["length_penalty"], what)
            assert_equal(model.strayed, 0, "the number of contexts that nothing asks for")


class TestDiverseBeamSearch:
    """Groups of beams that avoid each other."""

    def test_no_penalty(self):
        """Without a penalty each group is a beam search of width num_beams / num_beam_groups with early_stopping.

        Keep no more continuations in a group than its own width, and extend none that has ended.
        """
        for model, x in CASES:
            for size, number in ((1, 3), (2, 2), (3, 2)):
                groups = search.diverse_beam_search(
                    model, x, num_beams=size * number, num_beam_groups=number, diversity_penalty=0.0, max_tokens=5
                )
                expected, _ = beam_by_definition(model, x, size, 5, 0.0, True)
                assert_equal(len(groups), number, "the number of groups")
                for group in groups:
                    assert_hypotheses(group, expected, 0.0, f"each of {number} groups of {size} after {x}")

    def test_first_group(self):
        """The first group is a plain beam search, whatever the penalty.

        Only groups before a group matter to it: those after it, and earlier steps, do not.
        """
        for model, x in CASES:
            for penalty in (0.4, 3.0):
                groups = search.diverse_beam_search(
                    model, x, num_beams=6, num_beam_groups=3, diversity_penalty=penalty, max_tokens=6
                )
                expected, _ = beam_by_definition(model, x, 2, 6, 0.0, True)
                assert_hypotheses(groups[0], expected, 0.0, f"the first group after {x} with penalty {penalty}")

    def test_every_group(self):
        """A candidate of a group is ranked by logprob minus the penalty for each time earlier groups kept its token.

        Count what earlier groups keep at this step, in finished hypotheses too, and start to count anew at each step.
        """
        for model, x in CASES:
            for size, number, penalty in ((1, 4, 0.7), (2, 3, 0.3), (2, 2, 1.5), (3, 2, 0.8)):
                groups = search.diverse_beam_search(
                    model, x, num_beams=size * number, num_beam_groups=number, diversity_penalty=penalty, max_tokens=5
                )
                expected = diverse_by_definition(model, x, size, number, penalty, 5)
                assert_equal(len(groups), number, "the number of groups")
                for g, group in enumerate(groups):
                    assert_hypotheses(group, expected[g], 0.0, f"group {g} of {number} after {x}, penalty {penalty}")

    def test_large_penalty(self):
        """With a large penalty, groups of one beam take different tokens at each step, and keep their true probability.

        The penalty is not part of a hypothesis: its log-probability is that of the model.
        """
        for model, x in CASES:
            groups = search.diverse_beam_search(
                model, x, num_beams=3, num_beam_groups=3, diversity_penalty=1000.0, max_tokens=5
            )
            found = [list(hypothesis.tokens) for group in groups for hypothesis in group]
            assert_equal(len(found), 3, "the number of hypotheses of three groups of one beam")
            for step in range(5):
                tokens = [y[step] for y in found if len(y) > step]
                assert len(set(tokens)) == len(tokens), f"expected different tokens at step {step}, got {found}"
            for group in groups:
                (best,) = group
                exact = sequence_logprob(model, x, list(best.tokens))
                assert_close(best.logprob, exact, TOLERANCE, f"the log-probability of {list(best.tokens)}")
                assert_close(best.score, exact, TOLERANCE, f"the score of {list(best.tokens)}")

    def test_length_penalty(self):
        """Hypotheses are ranked within their group by logprob / length ** length_penalty, without prompt and penalty.

        The length is that of the continuation, with its end token.
        """
        for model, x in CASES:
            for length_penalty in (-1.0, 1.0, 2.0):
                groups = search.diverse_beam_search(
                    model, x, num_beams=6, num_beam_groups=2, diversity_penalty=0.5, max_tokens=5,
                    length_penalty=length_penalty,
                )  # fmt: skip
                expected = diverse_by_definition(model, x, 3, 2, 0.5, 5, length_penalty)
                for g, group in enumerate(groups):
                    what = f"group {g} after {x} for length_penalty {length_penalty}"
                    assert_hypotheses(group, expected[g], length_penalty, what)

    def test_impossible_continuations(self):
        """Candidates of probability zero are never kept, however large the penalty on the others is.

        Their log-probability is -inf. A group may find fewer hypotheses than its beam is wide.
        """
        for penalty in (0.0, 0.6, 500.0):
            groups = search.diverse_beam_search(
                SPARSE, [], num_beams=10, num_beam_groups=2, diversity_penalty=penalty, max_tokens=4
            )
            expected = [(0.42, (3, 1)), (0.3, (1,)), (0.224, (3, 2, 0, 1)), (0.056, (3, 2, 0, 3))]
            for g, group in enumerate(groups):
                what = f"group {g}, which holds all continuations, with penalty {penalty}"
                assert_hypotheses(group, [(math.log(p), y) for p, y in expected], 0.0, what)

    def test_cost_and_limits(self):
        """There is one model call a step for all groups; settings that do not fit raise ValueError.

        The groups must be of equal size, and the penalty must not be negative.
        """
        inner = PositionModel(5, 9, 131, 4)
        model, x = CountingModel(inner), [1, 4]
        groups = search.diverse_beam_search(
            model, x, num_beams=4, num_beam_groups=2, diversity_penalty=0.9, max_tokens=4
        )
        expected = diverse_by_definition(inner, [1, 4], 2, 2, 0.9, 4)
        for g, group in enumerate(groups):
            assert_hypotheses(group, expected[g], 0.0, f"group {g}")
        assert model.calls <= 4, f"expected at most 4 model calls, one a step, got {model.calls}"
        assert_equal(x, [1, 4], "the prompt after the call")
        for num_beams, number, penalty, max_tokens in (
            (4, 3, 1.0, 3), (4, 0, 1.0, 3), (2, 4, 1.0, 3), (0, 1, 1.0, 3), (4, 2, -0.5, 3), (4, 2, 1.0, 0),
        ):  # fmt: skip
            settings = {"num_beams": num_beams, "num_beam_groups": number, "max_tokens": max_tokens}
            assert_refused(lambda s=settings, p=penalty: search.diverse_beam_search(inner, x, diversity_penalty=p, **s))


class TestConditionOnMaximum:
    """Gumbel variables with a given maximum."""

    def test_closed_form(self):
        """The result is -log(exp(-maximum) - exp(-Z) + exp(-g)), above or below the row's own maximum Z.

        The largest entry becomes the maximum, and the order of the entries stays; a shift of the row does neither.
        """
        for dtype in (torch.float64, torch.float32):
            for row in ([0.3, -1.2, 2.5, 0.9], [-2.0, -0.5, -4.0], [1.5, 1.0]):
                for maximum in (-1.0, 0.4, 3.0):
                    g, target = torch.tensor(row, dtype=dtype), torch.tensor(maximum, dtype=dtype)
                    expected = torch.tensor(conditioned(row, maximum), dtype=torch.float64)
                    actual = search.condition_on_maximum(g, target)
                    assert_close(actual, expected, 1e-4, f"{row} with the maximum {maximum}")

    def test_batches(self):
        """Every row of a batch of any shape has its own Z and its own maximum, and the arguments stay as they were.

        Reduce the last dimension, and keep it while you compute.
        """
        before = torch.tensor(noise_of(24, 141), dtype=torch.float64).reshape(2, 3, 4)
        maxima = torch.tensor(noise_of(6, 142), dtype=torch.float64).reshape(2, 3)
        g, target = before.clone(), maxima.clone()
        expected = [conditioned(before[i, j].tolist(), maxima[i, j].item()) for i in range(2) for j in range(3)]
        actual = search.condition_on_maximum(g, target)
        assert_close(
            actual, torch.tensor(expected, dtype=torch.float64).reshape(2, 3, 4), 1e-5, "a 2 × 3 batch of rows"
        )
        assert_close(g, before, 0, "the first argument after the call")
        assert_close(target, maxima, 0, "the second argument after the call")

    def test_impossible_entries(self):
        """An entry of -inf stays -inf, and a row with one finite entry gets the maximum there; nothing is NaN.

        Infinity minus infinity is NaN; look at what the logarithms get.
        """
        rows = [[-math.inf, 0.4, -math.inf, -0.8], [-math.inf, -math.inf, 3.0, -math.inf]]
        for maxima in ([1.2, -0.6], [-2.0, 5.0]):
            expected = [conditioned(row, maximum) for row, maximum in zip(rows, maxima, strict=True)]
            actual = search.condition_on_maximum(
                torch.tensor(rows, dtype=torch.float64), torch.tensor(maxima, dtype=torch.float64)
            )
            assert_close(actual, torch.tensor(expected, dtype=torch.float64), 1e-4, f"rows with -inf, maxima {maxima}")

    def test_large_numbers(self):
        """Entries and maxima of some hundreds or thousands give finite results.

        exp(1000) overflows. With v = maximum - g + log(1 - exp(g - Z)) the result is maximum - max(v, 0) -
        log(1 + exp(-|v|)).
        """
        # exp(-maximum) outweighs or is outweighed by so much that the result is one of the two, to all digits.
        for row, maximum, expected in (
            ([-1000.0, -1400.0, -1250.0], -2.0, [-2.0, -1400.0, -1250.0]),
            ([-900.0, -1800.0], -950.0, [-950.0, -1800.0]),
            ([900.0, 2.0, 400.0], 850.0, [850.0, 2.0, 400.0]),
            ([-2.0, -900.0], 900.0, [900.0, -900.0]),
        ):
            actual = search.condition_on_maximum(
                torch.tensor(row, dtype=torch.float64), torch.tensor(maximum, dtype=torch.float64)
            )
            assert_close(actual, torch.tensor(expected, dtype=torch.float64), 1e-2, f"{row}, maximum {maximum}")


class TestStochasticBeamSearch:
    """Sampling without replacement."""

    def test_one_step_is_gumbel_top_k(self):
        """With max_tokens 1 the samples are the tokens with the largest log-probabilities plus noise, in this order.

        This is the Gumbel-top-k trick: it draws without replacement. The largest one gets the score of the root.
        """
        p = [0.05, 0.4, 0.1, 0.3, 0.15]
        model = TableModel({(3,): p}, eos_token_id=2)
        for seed in (151, 152, 153):
            noise = noise_of(6, seed)
            perturbed = [math.log(q) + g for q, g in zip(p, noise[1:], strict=True)]
            scores = conditioned(perturbed, noise[0])
            order = sorted(range(5), key=lambda token: -perturbed[token])
            for num_beams in (1, 3, 5, 9):
                found = search.stochastic_beam_search(
                    model, [3], num_beams=num_beams, max_tokens=1, rng=ScriptedNoise(noise)
                )
                expected = [(scores[v], math.log(p[v]), (v,)) for v in order[:num_beams]]
                assert_samples(found, expected, f"{num_beams} tokens of {p} with noise {noise[1:]}")

    def test_scores_follow_the_tree(self):
        """When the beam holds every continuation, each beginning has the score of the best one that begins with it.

        So the scores are those of independent Gumbel variables, one for each whole continuation, drawn from the top of
        the tree down: this is what makes the samples a draw without replacement. The best of all has the root's score.
        """
        for model, x in ((PositionModel(3, 9, 154, 1), [1, 2]), (TableModel.random(4, 3, 155, 3), [])):
            exact = enumerate_sequences(model, 3, x)
            noise = noise_of(400, 156)
            rng = ScriptedNoise(noise)
            found = search.stochastic_beam_search(model, x, num_beams=len(exact) + 2, max_tokens=3, rng=rng)
            scores = {tuple(h.tokens): float(h.score) for h in found}
            assert_equal(sorted(scores), sorted(exact), "the continuations found by a beam wide enough for all")
            assert_close(max(scores.values()), noise[0], TOLERANCE, "the best score, which is the root's")
            level: dict[Tokens, float] = {(): noise[0]}  # the rows of noise are in order of falling score
            used = 1
            while level:
                grown = {}
                for y in sorted(level, key=lambda beginning: -level[beginning]):
                    row = model.next_token_logprobs([[*x, *y]])[0].tolist()
                    own = 0.0 if not y else sequence_logprob(model, x, y)
                    perturbed = [own + row[v] + noise[used + v] for v in range(len(row))]
                    used += len(row)
                    for v, score in enumerate(conditioned(perturbed, level[y])):
                        below = [s for tokens, s in scores.items() if tokens[: len(y) + 1] == (*y, v)]
                        if score > -math.inf:
                            assert_close(max(below), score, TOLERANCE, f"the best score that begins with {[*y, v]}")
                        if row[v] > -math.inf and v != model.eos_token_id and len(y) < 2:
                            grown[*y, v] = score
                level = grown
            assert_equal(rng.used, used, "the number of noise values used")

    def test_every_width(self):
        """At every step the num_beams highest scores stay, complete members among them; no sample comes twice.

        A complete member keeps its score and its place. Rows of noise belong to the incomplete ones, by falling score.
        """
        for number, (model, x) in enumerate(CASES):
            for num_beams in (1, 2, 4, 6):
                noise = noise_of(300, 160 + number)
                rng = ScriptedNoise(noise)
                found = search.stochastic_beam_search(model, x, num_beams=num_beams, max_tokens=4, rng=rng)
                expected, used = stochastic_by_definition(model, x, num_beams, 4, noise)
                assert_samples(found, expected, f"{num_beams} samples after {x}")
                assert_equal(rng.used, used, "the number of noise values used")

    def test_every_seed(self):
        """Samples have the log-probability of the model, without noise, and the perturbed one as their score.

        Carry both along: noise is added to the log-probability of the whole child, and not to its parent's score.
        """
        model, x = CASES[0]
        for seed in range(170, 182):
            noise = noise_of(200, seed)
            found = search.stochastic_beam_search(model, x, num_beams=3, max_tokens=5, rng=ScriptedNoise(noise))
            expected, _ = stochastic_by_definition(model, x, 3, 5, noise)
            assert_samples(found, expected, f"3 samples with the noise of seed {seed}")
            for hypothesis in found:
                exact = sequence_logprob(model, x, list(hypothesis.tokens))
                assert_close(hypothesis.logprob, exact, TOLERANCE, f"the log-probability of {list(hypothesis.tokens)}")

    def test_impossible_continuations(self):
        """Continuations of probability zero are never drawn, so that there may be fewer samples than beams.

        Their perturbed log-probability is -inf: leave them out.
        """
        noise = noise_of(80, 191)
        found = search.stochastic_beam_search(SPARSE, [], num_beams=7, max_tokens=4, rng=ScriptedNoise(noise))
        expected, _ = stochastic_by_definition(SPARSE, [], 7, 4, noise)
        assert_equal(len(expected), 4, "the number of possible continuations")
        assert_samples(found, expected, "all continuations")

    def test_improbable_continuations(self):
        """Continuations with log-probabilities near -1000 are drawn with finite scores.

        exp(1000) overflows in the formula: `condition_on_maximum` has to avoid it.
        """
        tiny = 1e-220
        model = TableModel({(): [0.0, tiny, 1.0], (1,): [0.0, 1.0, tiny]}, eos_token_id=0)
        noise = [0.3, 0.0, 0.5, 1.0, *(0.0, 0.2, 0.9), *(0.0, 0.4, -0.7)]
        found = search.stochastic_beam_search(model, [], num_beams=4, max_tokens=2, rng=ScriptedNoise(noise))
        found = {tuple(h.tokens): h for h in found}
        assert_equal(sorted(found), [(1, 1), (1, 2), (2, 0)], "the tokens of all samples")
        low = math.log(tiny)
        for tokens, logprob, score in (((2, 0), 0.0, 0.3), ((1, 1), low, low + 0.5), ((1, 2), 2 * low, 2 * low - 0.7)):
            assert_close(found[tokens].logprob, logprob, 1e-2, f"the log-probability of {list(tokens)}")
            assert_close(found[tokens].score, score, 1e-2, f"the score of {list(tokens)}")

    def test_cost_and_limits(self):
        """There is one model call a step, for incomplete members alone; settings below one raise ValueError.

        When every member is complete the model is not called again, and no noise is drawn.
        """
        inner = TableModel({(2,): [0.6, 0.4, 0.0], (2, 1): [0.7, 0.3, 0.0], (2, 1, 1): [1.0, 0.0, 0.0]}, 0)
        model, rng, x = CountingModel(inner), ScriptedNoise(noise_of(60, 192)), [2]
        found = search.stochastic_beam_search(model, x, num_beams=3, max_tokens=9, rng=rng)
        tokens = sorted(list(hypothesis.tokens) for hypothesis in found)
        assert_equal(tokens, [[0], [1, 0], [1, 1, 0]], "the tokens of the samples")
        assert_equal(rng.used, 10, "the number of noise values used")
        assert model.contexts <= 3, f"expected at most 3 contexts passed to the model, got {model.contexts}"
        assert_equal(x, [2], "the prompt after the call")
        model = CountingModel(PositionModel(4, 5, 193, 3))
        search.stochastic_beam_search(model, [], num_beams=5, max_tokens=4, rng=TorchRandomness(1))
        assert model.calls <= 4, f"expected at most 4 model calls, one a step, got {model.calls}"
        for num_beams, max_tokens in ((0, 3), (-1, 3), (2, 0), (2, -4)):
            settings = {"num_beams": num_beams, "max_tokens": max_tokens, "rng": TorchRandomness(0)}
            assert_refused(lambda s=settings: search.stochastic_beam_search(inner, x, **s))


def assert_samples(found: Sequence, expected: Sequence[tuple[float, float, Tokens]], what: str) -> None:
    """Fail unless the samples found have these tokens in this order, with their scores and log-probabilities."""
    assert_equal([list(h.tokens) for h in found], [list(y) for _, _, y in expected], f"the tokens of {what}")
    for hypothesis, (score, logprob, y) in zip(found, expected, strict=True):
        assert_close(hypothesis.logprob, logprob, TOLERANCE, f"the log-probability of {list(y)} in {what}")
        assert_close(hypothesis.score, score, 1e-4, f"the perturbed log-probability of {list(y)} in {what}")
