"""Hidden tests of hw1.best_first: exact, by enumeration, with the expansions counted."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from hw1 import best_first as search
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.toy import PositionModel, TableModel, enumerate_sequences

TOLERANCE = 1e-4  # wide enough for a solution that computes in float32
SLACK = 1e-5  # what rounding may do to a comparison of log-probabilities

Tokens = tuple[int, ...]


def flat_table(
    vocab_size: int, length: int, seed: int, end: int, prompt: Tokens = (), spread: float = 0.7
) -> TableModel:
    """Return a model of continuations up to a length, with probabilities that are close to each other."""
    generator = torch.Generator().manual_seed(seed)
    table: dict[Tokens, list[float]] = {}
    level = [prompt]
    for _ in range(length):
        for context in level:
            logits = spread * torch.randn(vocab_size, generator=generator, dtype=torch.float64)
            table[context] = logits.softmax(-1).tolist()
        level = [(*context, token) for context in level for token in range(vocab_size) if token != end]
    return TableModel(table, end)


# (model, prompt, max_tokens): prompts with and without end tokens, tables in which the whole context matters.
CASES: list[tuple[LanguageModel, list[int], int]] = [
    (flat_table(4, 5, 201, 2, (3, 0)), [3, 0], 5),
    (flat_table(3, 5, 202, 0, (1, 0, 1)), [1, 0, 1], 5),
    (flat_table(5, 4, 203, 4), [], 4),
    (PositionModel(vocab_size=4, max_length=9, seed=248, eos_token_id=1), [3, 1], 5),
    (flat_table(4, 4, 205, 1, (1,), 1.2), [1], 6),  # its table ends before max_tokens
]


@functools.cache
def case(number: int) -> tuple[dict[Tokens, float], dict[Tokens, float]]:
    """Return the log-probabilities of all complete and of all incomplete continuations of a case."""
    model, x, max_tokens = CASES[number]
    complete = {y: math.log(p) for y, p in enumerate_sequences(model, max_tokens, x).items()}
    incomplete: dict[Tokens, float] = {}
    for y in complete:
        for t in range(len(y)):
            if y[:t] not in incomplete:
                (terms,) = model.continuation_logprobs([x], [list(y[:t])])
                incomplete[y[:t]] = terms.double().sum().item()
    return complete, incomplete


def score_of(y: Tokens, logprob: float, length_penalty: float) -> float:
    """Return the normalised score."""
    return logprob / len(y) ** length_penalty


def assert_found(found: Any, y: Tokens, logprob: float, what: str) -> None:
    """Fail unless the pair found has these tokens and this log-probability."""
    tokens, value = found
    assert_equal(list(tokens), list(y), what)
    assert_close(value, logprob, TOLERANCE, f"the log-probability of {what}")


def assert_expanded(model: CountingModel, most: int, what: str) -> None:
    """Fail if the model was asked for more rows."""
    assert model.contexts <= most, f"{what}: expected at most {most} continuations to be expanded, got {model.contexts}"


def assert_refused(call: Callable[[], object]) -> None:
    """Fail unless the call raises ValueError."""
    with pytest.raises(ValueError):  # noqa: PT011 (the message is the student's own)
        call()


class Heuristic:
    """An admissible heuristic: a share, from 0 to 1, of the log-probability of the best way to complete a context."""

    def __init__(self, number: int, share: Callable[[Tokens], float], dtype: torch.dtype = torch.float64):
        self.number, self.share, self.dtype = number, share, dtype
        self.prompt = tuple(CASES[number][1])
        self.complaint = ""

    def __call__(self, contexts: Sequence[Sequence[int]]) -> Tensor:
        """Return an estimate for each context, and remember what should not have been asked."""
        return torch.tensor([self.of(tuple(int(token) for token in context)) for context in contexts], dtype=self.dtype)

    def of(self, context: Tokens) -> float:
        """Return the estimate for one context."""
        _, incomplete = case(self.number)
        y = context[len(self.prompt) :]
        if context[: len(self.prompt)] != self.prompt:
            self.complaint = self.complaint or f"expected contexts that begin with {self.prompt}, got {context}"
        elif y not in incomplete:
            self.complaint = self.complaint or f"expected incomplete continuations of {self.prompt}, got {context}"
        else:
            return self.share(y) * best_to_come(self.number, y)
        return 0.0


def best_to_come(number: int, y: Tokens) -> float:
    """Return the log-probability of the best way to complete a beginning."""
    complete, incomplete = case(number)
    return max(value for tokens, value in complete.items() if tokens[: len(y)] == y) - incomplete[y]


def first_best(number: int, length_penalty: float = 0.0) -> tuple[Tokens, float]:
    """Return the continuation with the highest score, and its log-probability."""
    complete, _ = case(number)
    return max(complete.items(), key=lambda item: score_of(*item, length_penalty))


def beam_by_definition(number: int, num_beams: int, length_penalty: float) -> tuple[tuple[Tokens, float], list[float]]:
    """Return the best hypothesis of a beam, and the log-probabilities of all that it would ever extend."""
    complete, incomplete = case(number)
    everything = complete | incomplete
    finished: dict[Tokens, float] = {}
    extended: list[float] = []
    running: list[Tokens] = [()]
    while running:
        extended += [incomplete[y] for y in running]
        children = [y for y in everything if y[:-1] in running and len(y) == len(running[0]) + 1]
        children.sort(key=lambda y: -everything[y])
        finished |= {y: complete[y] for y in children[:num_beams] if y in complete}
        running = [y for y in children if y in incomplete][:num_beams]
    return max(finished.items(), key=lambda item: score_of(*item, length_penalty)), extended


def depth_first_expansions(number: int, length_penalty: float) -> int:
    """Return how many continuations depth-first branch and bound expands, the most probable child first."""
    complete, incomplete = case(number)
    everything = complete | incomplete
    longest = CASES[number][2]
    best, count = -math.inf, 0
    stack: list[Tokens] = [()]
    while stack:
        y = stack.pop()
        if y in complete:
            best = max(best, score_of(y, complete[y], length_penalty))
        elif incomplete[y] / longest**length_penalty > best:
            count += 1
            children = [child for child in everything if child[:-1] == y and len(child) == len(y) + 1]
            stack += sorted(children, key=lambda child: everything[child])
    return count


# Possible are [0] and [2, 0] with probabilities 0.45 and 0.55 * 0.8, and [2, 1], which is cut off at two tokens.
EMPTY_IS_BEST = TableModel({(): [0.45, 0.0, 0.55], (2,): [0.8, 0.2, 0.0]}, eos_token_id=0)
# The most probable continuation has no end token: it is cut off at three tokens.
CUT_OFF = TableModel({(1,): [0.1, 0.9, 0.0], (1, 1): [0.2, 0.0, 0.8], (1, 1, 2): [0.3, 0.6, 0.1]}, eos_token_id=0)


class TestUniformCostSearch:
    """The most probable continuation first."""

    def test_most_probable_continuation(self):
        """The result is the most probable of all complete continuations of the prompt, with its log-probability.

        A continuation is complete when it is taken from the queue, not when it is put there: a better one may come.
        """
        for number, (model, x, max_tokens) in enumerate(CASES):
            found = search.uniform_cost_search(model, list(x), max_tokens=max_tokens)
            y, logprob = first_best(number)
            assert_found(found, y, logprob, f"the most probable continuation of {x}")

    def test_expansions(self):
        """No continuation is expanded that is less probable than the result, and none twice.

        Take the most probable continuation of the whole queue, of whatever length, and ask for one row at a time.
        """
        for number, (inner, x, max_tokens) in enumerate(CASES):
            model = CountingModel(inner)
            y, logprob = first_best(number)
            found = search.uniform_cost_search(model, x, max_tokens=max_tokens)
            assert_found(found, y, logprob, f"the most probable continuation of {x}")
            most = sum(value >= logprob - SLACK for value in case(number)[1].values())
            assert_expanded(model, most, f"the search after {x}")

    def test_empty_and_cut_off(self):
        """The end token alone is a continuation, and so is one that is cut off at max_tokens tokens.

        Do not leave them out. The prompt does not count in max_tokens, and an end token in it ends nothing.
        """
        found = search.uniform_cost_search(EMPTY_IS_BEST, [], max_tokens=4)
        assert_found(found, (0,), math.log(0.45), "the most probable continuation, the end token alone")
        found = search.uniform_cost_search(CUT_OFF, [1], max_tokens=2)
        assert_found(found, (1, 2), math.log(0.72), "the most probable continuation of two tokens")
        found = search.uniform_cost_search(CUT_OFF, [1], max_tokens=3)
        assert_found(found, (1, 2, 1), math.log(0.432), "the most probable continuation of three tokens")

    def test_certain_and_refused(self):
        """Probabilities of zero and one are no trouble, the prompt is not changed, and max_tokens 0 raises ValueError.

        Log-probabilities of -inf need not be in the queue.
        """
        follows = {(2, 1): 0, (2, 1, 0): 2, (2, 1, 0, 2): 1}
        model = TableModel({context: [float(v == token) for v in range(3)] for context, token in follows.items()}, 1)
        x = [2, 1]
        assert_found(search.uniform_cost_search(model, x, max_tokens=9), (0, 2, 1), 0.0, "the certain continuation")
        assert_equal(x, [2, 1], "the prompt after the call")
        for max_tokens in (0, -1):
            assert_refused(lambda n=max_tokens: search.uniform_cost_search(model, x, max_tokens=n))


class TestAStarSearch:
    """Log-probability plus heuristic."""

    def test_admissible_heuristics(self):
        """With every admissible heuristic the result is the most probable continuation, with its log-probability.

        The heuristic orders the queue and is no part of the log-probability. It may be good in some places and useless
        in others.
        """
        for number, (model, x, max_tokens) in enumerate(CASES):
            y, logprob = first_best(number)
            for name, share in SHARES.items():
                heuristic = Heuristic(number, share)
                found = search.a_star_search(model, x, max_tokens=max_tokens, heuristic=heuristic)
                assert not heuristic.complaint, heuristic.complaint
                assert_found(found, y, logprob, f"the most probable continuation of {x}, with a heuristic that {name}")

    def test_expansions(self):
        """No continuation is expanded whose log-probability plus heuristic is below the result, and none twice.

        Order the queue by the log-probability so far plus the estimate of what is to come for this continuation.
        """
        for number, (inner, x, max_tokens) in enumerate(CASES):
            _, incomplete = case(number)
            y, logprob = first_best(number)
            for name, share in SHARES.items():
                heuristic, model = Heuristic(number, share), CountingModel(inner)
                what = f"the search after {x} with a heuristic that {name}"
                found = search.a_star_search(model, x, max_tokens=max_tokens, heuristic=heuristic)
                assert_found(found, y, logprob, what)
                sums = [value + heuristic.of((*x, *tokens)) for tokens, value in incomplete.items()]
                assert_expanded(model, sum(value >= logprob - SLACK for value in sums), what)

    def test_perfect_heuristic(self):
        """With a perfect heuristic the search goes straight to the result: it expands the beginnings of it alone.

        The estimate of a complete continuation is 0: there is nothing to come.
        """
        for number, (inner, x, max_tokens) in enumerate(CASES):
            for dtype in (torch.float64, torch.float32):
                model, heuristic = CountingModel(inner), Heuristic(number, SHARES["is perfect"], dtype)
                y, logprob = first_best(number)
                found = search.a_star_search(model, x, max_tokens=max_tokens, heuristic=heuristic)
                assert_found(found, y, logprob, f"the most probable continuation of {x}")
                assert_expanded(model, len(y), f"the search after {x} with a perfect heuristic in {dtype}")

    def test_zero_heuristic(self):
        """With a heuristic of zero this is uniform-cost search, which expands nothing less probable than the result.

        It is called with incomplete continuations after the prompt, as the model is.
        """
        for number, (inner, x, max_tokens) in enumerate(CASES):
            model, heuristic = CountingModel(inner), Heuristic(number, lambda y: 0.0)
            y, logprob = first_best(number)
            found = search.a_star_search(model, x, max_tokens=max_tokens, heuristic=heuristic)
            assert not heuristic.complaint, heuristic.complaint
            assert_found(found, y, logprob, f"the most probable continuation of {x}")
            most = sum(value >= logprob - SLACK for value in case(number)[1].values())
            assert_expanded(model, most, f"the search after {x}")

    def test_empty_and_cut_off(self):
        """The end token alone and a continuation of max_tokens tokens are complete; max_tokens 0 raises ValueError.

        The heuristic must not be asked about them.
        """

        def heuristic(contexts: Sequence[Sequence[int]]) -> Tensor:
            asked.extend(len(context) for context in contexts)
            return torch.zeros(len(contexts))

        for model, x, max_tokens, y, p in (
            (EMPTY_IS_BEST, [], 4, (0,), 0.45), (CUT_OFF, [1], 2, (1, 2), 0.72), (CUT_OFF, [1], 3, (1, 2, 1), 0.432),
        ):  # fmt: skip
            asked: list[int] = []
            found = search.a_star_search(model, x, max_tokens=max_tokens, heuristic=heuristic)
            assert_found(found, y, math.log(p), f"the most probable continuation of {x}")
            assert max(asked, default=0) < len(x) + max_tokens, "expected no call for complete continuations"
        for max_tokens in (0, -3):
            assert_refused(lambda n=max_tokens: search.a_star_search(CUT_OFF, [1], max_tokens=n, heuristic=heuristic))


# Shares of the best log-probability to come; each of them is admissible, and the last is not consistent.
SHARES: dict[str, Callable[[Tokens], float]] = {
    "is perfect": lambda y: 1.0,
    "knows half": lambda y: 0.5,
    "knows every second step": lambda y: float(len(y) % 2),
    "knows what begins with an even token": lambda y: 0.9 * float(bool(y) and y[-1] % 2 == 0),
}


class TestBestFirstBeamSearch:
    """Beam search in another order."""

    def test_same_as_beam_search(self):
        """For every num_beams the result is the best hypothesis of beam search, not always the most probable one.

        Of each length num_beams incomplete continuations are expanded, the first that are taken, and no more.
        """
        different = 0
        for number, (model, x, max_tokens) in enumerate(CASES):
            for num_beams in (1, 2, 3, 5):
                (y, logprob), _ = beam_by_definition(number, num_beams, 0.0)
                different += y != first_best(number)[0]
                found = search.best_first_beam_search(model, list(x), num_beams=num_beams, max_tokens=max_tokens)
                assert_found(found, y, logprob, f"the best of {num_beams} beams after {x}")
        assert different, "the cases must tell beam search from exact search"

    def test_expansions(self):
        """Nothing is expanded but what beam search extends and what is at least as probable as the result.

        Stop when the first continuation that counts as a hypothesis is taken from the queue.
        """
        for number, (inner, x, max_tokens) in enumerate(CASES):
            for num_beams in (1, 2, 4):
                model = CountingModel(inner)
                (y, logprob), extended = beam_by_definition(number, num_beams, 0.0)
                what = f"the search with {num_beams} beams after {x}"
                found = search.best_first_beam_search(model, x, num_beams=num_beams, max_tokens=max_tokens)
                assert_found(found, y, logprob, what)
                assert_expanded(model, sum(value >= logprob - SLACK for value in extended), what)

    def test_length_penalty(self):
        """With a length_penalty the result is that of beam search: a later hypothesis may have a higher score.

        The queue stays in order of log-probability. Go on while logprob / max_tokens ** length_penalty of the next one
        is above the best score.
        """
        for number, (model, x, max_tokens) in enumerate(CASES):
            for num_beams, length_penalty in ((1, 1.0), (2, 0.6), (2, 1.0), (3, 2.0), (4, 1.0)):
                (y, logprob), _ = beam_by_definition(number, num_beams, length_penalty)
                found = search.best_first_beam_search(
                    model, x, num_beams=num_beams, max_tokens=max_tokens, length_penalty=length_penalty
                )
                what = f"the best of {num_beams} beams after {x} for length_penalty {length_penalty}"
                assert_found(found, y, logprob, what)

    def test_expansions_with_length_penalty(self):
        """With a length_penalty nothing is expanded whose logprob / max_tokens ** length_penalty is below the result.

        Stop there, and do not empty the queue.
        """
        for number, (inner, x, max_tokens) in enumerate(CASES):
            for num_beams, length_penalty in ((2, 0.3), (3, 0.8), (5, 0.5)):
                model = CountingModel(inner)
                (y, logprob), extended = beam_by_definition(number, num_beams, length_penalty)
                what = f"the search with {num_beams} beams after {x} for length_penalty {length_penalty}"
                found = search.best_first_beam_search(
                    model, x, num_beams=num_beams, max_tokens=max_tokens, length_penalty=length_penalty
                )
                assert_found(found, y, logprob, what)
                least = score_of(y, logprob, length_penalty) - SLACK
                assert_expanded(model, sum(v / max_tokens**length_penalty >= least for v in extended), what)

    def test_wide_beam_is_exact(self):
        """A beam that nothing falls out of finds the best of all continuations; the end token alone is one.

        So does every beam where the first continuation taken is complete.
        """
        for number, (model, x, max_tokens) in enumerate(CASES):
            for length_penalty in (0.0, 1.0):
                y, logprob = first_best(number, length_penalty)
                found = search.best_first_beam_search(
                    model, x, num_beams=1000, max_tokens=max_tokens, length_penalty=length_penalty
                )
                assert_found(found, y, logprob, f"the best of all after {x} for length_penalty {length_penalty}")
        found = search.best_first_beam_search(EMPTY_IS_BEST, [], num_beams=2, max_tokens=4)
        assert_found(found, (0,), math.log(0.45), "the best of two beams, the end token alone")
        found = search.best_first_beam_search(EMPTY_IS_BEST, [], num_beams=1, max_tokens=4)
        assert_found(found, (2, 0), math.log(0.44), "the best of one beam: the end token is not its first candidate")

    def test_limits(self):
        """Settings out of range raise ValueError, and the prompt is not changed.

        num_beams and max_tokens are at least 1, and length_penalty is not negative.
        """
        x = [1]
        found = search.best_first_beam_search(CUT_OFF, x, num_beams=1, max_tokens=3)
        assert_found(found, (1, 2, 1), math.log(0.432), "the best of one beam")
        assert_equal(x, [1], "the prompt after the call")
        for num_beams, max_tokens, length_penalty in ((0, 3, 0.0), (-1, 3, 0.0), (2, 0, 0.0), (2, 3, -0.5)):
            settings = {"num_beams": num_beams, "max_tokens": max_tokens, "length_penalty": length_penalty}
            assert_refused(lambda s=settings: search.best_first_beam_search(CUT_OFF, x, **s))


class TestExactSearch:
    """Branch and bound."""

    def test_best_of_all(self):
        """The result is the best of all complete continuations, found by going back where a better one may be.

        The first continuation that depth-first search completes is greedy search's; the best one is often elsewhere.
        """
        for number, (model, x, max_tokens) in enumerate(CASES):
            y, logprob = first_best(number)
            found = search.exact_search(model, list(x), max_tokens=max_tokens)
            assert_found(found, y, logprob, f"the most probable continuation of {x}")

    def test_length_penalty(self):
        """With a length_penalty the result is the best of all by logprob / length ** length_penalty.

        Prune by what is sure: the score of a longer continuation may be higher than that of its beginning, but not
        above the beginning's logprob / max_tokens ** length_penalty.
        """
        for number, (model, x, max_tokens) in enumerate(CASES):
            for length_penalty in (0.5, 1.0, 1.7):
                y, logprob = first_best(number, length_penalty)
                found = search.exact_search(model, x, max_tokens=max_tokens, length_penalty=length_penalty)
                assert_found(found, y, logprob, f"the best continuation of {x} for length_penalty {length_penalty}")

    def test_expansions(self):
        """Nothing is expanded that cannot beat the best continuation visited before, the most probable child first.

        The order matters: a good continuation that is found early prunes the rest. No continuation is expanded twice.
        """
        for number, (inner, x, max_tokens) in enumerate(CASES):
            for length_penalty in (0.0, 0.5, 1.0):
                model = CountingModel(inner)
                y, logprob = first_best(number, length_penalty)
                what = f"the search after {x} for length_penalty {length_penalty}"
                found = search.exact_search(model, x, max_tokens=max_tokens, length_penalty=length_penalty)
                assert_found(found, y, logprob, what)
                assert_expanded(model, depth_first_expansions(number, length_penalty), what)

    def test_empty_and_cut_off(self):
        """The end token alone is a continuation, and so is one that is cut off at max_tokens tokens.

        Stahlberg and Byrne found that the empty one is often the most probable. Do not leave it out.
        """
        found = search.exact_search(EMPTY_IS_BEST, [], max_tokens=4)
        assert_found(found, (0,), math.log(0.45), "the most probable continuation, the end token alone")
        found = search.exact_search(EMPTY_IS_BEST, [], max_tokens=4, length_penalty=1.0)
        assert_found(found, (2, 0), math.log(0.44), "the best for length_penalty 1")
        found = search.exact_search(CUT_OFF, [1], max_tokens=2)
        assert_found(found, (1, 2), math.log(0.72), "the most probable continuation of two tokens")
        found = search.exact_search(CUT_OFF, [1], max_tokens=3)
        assert_found(found, (1, 2, 1), math.log(0.432), "the most probable continuation of three tokens")

    def test_limits(self):
        """Settings out of range raise ValueError, and the prompt is not changed.

        max_tokens is at least 1, and length_penalty is not negative: for a negative one the bound does not hold.
        """
        x = [1]
        assert_found(search.exact_search(CUT_OFF, x, max_tokens=2), (1, 2), math.log(0.72), "the best of two tokens")
        assert_equal(x, [1], "the prompt after the call")
        for max_tokens, length_penalty in ((0, 0.0), (-2, 1.0), (3, -0.5)):
            settings = {"max_tokens": max_tokens, "length_penalty": length_penalty}
            assert_refused(lambda s=settings: search.exact_search(CUT_OFF, x, **s))
