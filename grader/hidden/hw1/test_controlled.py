"""Hidden tests of hw1.controlled: exact, by enumeration on toy models."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from hw1 import controlled
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.language_model import CountingModel, LanguageModel
from shared_tasks.models.randomness import Randomness, TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import NgramModel, PositionModel, TableModel, enumerate_sequences

TOLERANCE = 1e-5

# Tokens of one character and of several; token 0 ends.
VOCABULARY = ["<end>", "a", "b", "ab", "ba", "bb", "abc", "c", ""]


def random_automaton(seed: int, states: int = 6) -> controlled.Automaton:
    """Return an automaton with missing transitions, and states from which nothing is accepted."""
    generator = torch.Generator().manual_seed(seed)
    transitions = {}
    for state, character in itertools.product(range(states), "abc"):
        target = int(torch.randint(2 * states, (), generator=generator))
        if target < states:
            transitions[state, character] = target
    accepting = {int(torch.randint(states, (), generator=generator)) for _ in range(2)}
    return controlled.Automaton(start=1, transitions=transitions, accepting=accepting)


def walk(automaton: controlled.Automaton, state: int | None, text: str) -> int | None:
    """Return the state after a text, None where the automaton refuses it."""
    for character in text:
        state = automaton.transitions.get((state, character))
        if state is None:
            return None
    return state


def brute_force_index(automaton: controlled.Automaton, vocabulary: list[str], eos: int) -> dict[int, dict[int, int]]:
    """Return what compile_automaton promises, from token walks of every length that can matter."""
    states = {automaton.start, *automaton.transitions.values(), *(state for state, _ in automaton.transitions)}
    usable = [token for token, text in enumerate(vocabulary) if text and token != eos]

    def can_accept(state: int | None) -> bool:
        reached = {state}
        for _ in range(len(states) + 1):
            reached |= {walk(automaton, s, vocabulary[token]) for s in reached for token in usable if s is not None}
        return bool(reached & automaton.accepting)

    index: dict[int, dict[int, int]] = {}
    frontier = [automaton.start]
    while frontier:
        state = frontier.pop()
        if state not in index:
            ends = {token: walk(automaton, state, vocabulary[token]) for token in usable}
            index[state] = {token: end for token, end in ends.items() if end is not None and can_accept(end)}
            frontier += index[state].values()
    return index


def processed_sequences(
    model: LanguageModel, context: list[int], max_tokens: int, processors: Sequence[Callable], y: tuple[int, ...] = ()
) -> dict[tuple[int, ...], float]:
    """Return the distribution of continuations under processors."""
    logits = model.next_token_logprobs([[*context, *y]])
    for process in processors:
        logits = process([list(y)], logits)
    sequences: dict[tuple[int, ...], float] = {}
    for token, p in enumerate(logits.softmax(-1)[0].tolist()):
        if p > 0 and (token == model.eos_token_id or len(y) + 1 == max_tokens):
            sequences[(*y, token)] = p
        elif p > 0:
            rest = processed_sequences(model, context, max_tokens, processors, (*y, token))
            sequences |= {key: p * q for key, q in rest.items()}
    return sequences


class TestGenerateWithProcessors:
    """Sampling under processors."""

    def test_order_and_continuations(self):
        """Each processor gets the continuations without prompts and what the one before it returned.

        The prompt is context for the model alone; processors run in the order of the list, at every step.
        """
        model = NgramModel(vocab_size=3, order=2, seed=11)

        def no_repeat(continuations: list[list[int]], logits: Tensor) -> Tensor:
            logits = logits.clone()
            for row, y in enumerate(continuations):
                logits[row, y] = -torch.inf
            return logits

        def sharpen(continuations: list[list[int]], logits: Tensor) -> Tensor:
            return logits * torch.tensor([[2.0 + len(y)] for y in continuations])

        def cut(continuations: list[list[int]], logits: Tensor) -> Tensor:
            return logits.masked_fill(logits < logits.amax(-1, keepdim=True) - 1.0, -torch.inf)

        for processors in ([no_repeat], [sharpen, cut], [cut, sharpen], [no_repeat, sharpen]):
            first, second = (processed_sequences(model, prompt, 2, processors) for prompt in ([2], [1, 2]))
            expected = {(a, b): p * q for (a, p), (b, q) in itertools.product(first.items(), second.items())}

            def run(rng: Randomness, processors: list = processors) -> tuple:
                y = controlled.generate_with_processors(model, [[2], [1, 2]], processors, max_tokens=2, rng=rng)
                return tuple(map(tuple, y))

            assert_same_distribution(enumerate_outcomes(run), expected, 1e-6)

    def test_finished_rows(self):
        """A row that has ended is passed neither to the model nor to a processor.

        Select the rows that have not ended before the call of the model.
        """
        table = {(1,): 2, (1, 2): 1, (1, 2, 1): 0, (2,): 0}
        model = CountingModel(TableModel({k: [float(i == t) for i in range(3)] for k, t in table.items()}, 0))
        seen = []

        def record(continuations: list[list[int]], logits: Tensor) -> Tensor:
            seen.append(([list(y) for y in continuations], tuple(logits.shape)))
            return logits

        x = [[2], [1]]
        y = controlled.generate_with_processors(model, x, [record], max_tokens=7, rng=TorchRandomness(0))
        assert_equal(y, [[0], [2, 1, 0]], "the continuations")
        assert_equal(seen, [([[], []], (2, 3)), ([[2]], (1, 3)), ([[2, 1]], (1, 3))], "what the processor got")
        assert_equal((model.calls, model.contexts), (3, 4), "the number of model calls and of contexts in them")
        assert_equal(x, [[2], [1]], "the prompts after the call")

    def test_limits(self):
        """A continuation has at most max_tokens tokens, and a negative max_tokens raises ValueError.

        The prompt does not count, and an end token in it ends nothing.
        """
        model = TableModel({(0, 1): [0.0, 1.0], (0, 1, 1): [0.0, 1.0]}, 0)
        y = controlled.generate_with_processors(model, [[0, 1]], [], max_tokens=2, rng=TorchRandomness(0))
        assert_equal(y, [[1, 1]], "the continuation of at most two tokens")
        with pytest.raises(ValueError):
            controlled.generate_with_processors(model, [[0, 1]], [], max_tokens=-1, rng=TorchRandomness(0))


class TestCompileAutomaton:
    """An automaton over characters, seen by tokens."""

    def test_random_automata(self):
        """The tokens that may follow are those that brute force finds, for many automata.

        Walk every character of a token; forbid it if no tokens lead on to an accepting state.
        """
        compared = 0
        for seed in range(60):
            automaton = random_automaton(seed)
            expected = brute_force_index(automaton, VOCABULARY, 0)
            if not expected[automaton.start] and automaton.start not in automaton.accepting:
                with pytest.raises(ValueError):
                    controlled.compile_automaton(automaton, VOCABULARY, 0)
            else:
                actual = controlled.compile_automaton(automaton, VOCABULARY, 0)
                assert_equal(actual, expected, f"the tokens by state of {automaton}")
                compared += 1
        assert compared > 20

    def test_accepting_by_characters_only(self):
        """A state from which characters would lead to acceptance, but no tokens, may not be entered.

        Liveness is about the tokens that there are, not about characters.
        """
        automaton = controlled.Automaton(
            0, {(0, "a"): 1, (1, "b"): 2, (2, "c"): 3, (0, "b"): 4, (4, "b"): 3, (1, "x"): 5}, {3}
        )
        actual = controlled.compile_automaton(automaton, ["a", "b", "<end>", "bx"], 2)
        assert_equal(actual, {0: {1: 4}, 4: {1: 3}, 3: {}}, "the tokens by state")

    def test_end_token_and_cycles(self):
        """The end token never occurs even if its text fits, tokens of empty text never occur, and cycles are no end.

        A loop that never leads to an accepting state is as dead as a state without transitions.
        """
        automaton = controlled.Automaton(7, {(7, "a"): 7, (7, "b"): 8, (8, "a"): 8, (7, "c"): 9, (9, "c"): 7}, {9})
        actual = controlled.compile_automaton(automaton, ["a", "c", "b", "", "ca", "cc"], 0)
        assert_equal(actual, {7: {1: 9, 5: 7}, 9: {1: 7, 4: 7, 5: 9}}, "the tokens by state")


class TestConstrainLogits:
    """The mask of an automaton."""

    def test_kept_logits(self):
        """Allowed tokens keep their logits and others get -inf, in each row by its own continuation.

        Mask logits, before any softmax; do not renormalise, and leave the argument as it was.
        """
        automaton = controlled.Automaton(0, {(0, "a"): 1, (1, "b"): 2, (2, "a"): 1, (0, "b"): 3, (3, "b"): 3}, {2})
        vocabulary = ["a", "b", "<end>", "ab", "ba"]
        logits = torch.tensor([[0.5, -1.0, 2.0, 0.3, 1.1]] * 4, dtype=torch.float64) * torch.arange(1, 5)[:, None]
        before = logits.clone()
        actual = controlled.constrain_logits(
            [[], [0], [3], [0, 4]], logits, automaton=automaton, vocabulary=vocabulary, eos_token_id=2
        )
        expected = torch.full_like(before, -torch.inf)
        for row, kept in enumerate([[0, 3], [1, 4], [0, 2, 3], [1, 4]]):
            expected[row, kept] = before[row, kept]
        assert_close(actual, expected, 1e-6, "the logits after [], [a], [ab] and [a, ba]")
        assert_close(logits, before, 0, "the argument after the call")

    def test_accepted_set(self):
        """The complete sequences that can be drawn are exactly those whose text is accepted, and none gets stuck.

        Mask dead states, and let the end token through in accepting states only.
        """
        model = NgramModel(vocab_size=len(VOCABULARY), order=1, seed=3)
        for seed in (4, 23, 42, 61, 82):
            automaton = random_automaton(seed)
            automaton.accepting |= set(automaton.transitions.values()) & {2, 3}
            if not brute_force_index(automaton, VOCABULARY, 0)[1]:
                automaton.transitions[1, "a"] = min(automaton.accepting)
            options = {"automaton": automaton, "vocabulary": VOCABULARY, "eos_token_id": 0}
            accepted = {
                (*tokens, 0)
                for length in range(3)
                for tokens in itertools.product(range(1, 8), repeat=length)
                if walk(automaton, 1, "".join(VOCABULARY[t] for t in tokens)) in automaton.accepting
            }
            frontier, complete = [[]], set()
            for _ in range(3):
                logits = model.next_token_logprobs(frontier)
                rows = controlled.constrain_logits(frontier, logits, **options)
                for y, row in zip(frontier, rows.tolist(), strict=True):
                    assert max(row) > -math.inf, f"expected a token that may follow {y}, got none"
                grown = [
                    [*y, t]
                    for y, row in zip(frontier, rows.tolist(), strict=True)
                    for t, z in enumerate(row)
                    if z > -math.inf
                ]
                complete |= {tuple(y) for y in grown if y[-1] == 0}
                frontier = [y for y in grown if y[-1] != 0]
                if not frontier:
                    break
            assert_equal(complete, accepted, f"the complete sequences of at most 3 tokens of {automaton}")

    def test_forbidden_continuation(self):
        """A continuation with a token that was not allowed, or with the end token, raises ValueError.

        A token is also not allowed if it leads where no tokens lead on.
        """
        automaton = controlled.Automaton(0, {(0, "a"): 1, (0, "b"): 2, (2, "b"): 2}, {1})
        for continuation in ([1], [0, 0], [0, 2], [2]):
            with pytest.raises(ValueError):
                controlled.constrain_logits(
                    [continuation], torch.zeros(1, 3), automaton=automaton, vocabulary=["a", "b", "a"], eos_token_id=2
                )


def contains(y: Sequence[int], phrase: Sequence[int]) -> bool:
    """Say whether the phrase's tokens occur in y one after another."""
    return any(list(y[i : i + len(phrase)]) == list(phrase) for i in range(len(y)))


def progress(y: Sequence[int], phrase: Sequence[int]) -> int:
    """Return the progress on a phrase as the docstring says."""
    if contains(y, phrase):
        return len(phrase)
    return max(k for k in range(len(phrase)) if list(y[len(y) - k :]) == list(phrase[:k]))


def narrow_search(
    model: LanguageModel, prompt: list[int], phrases: list, num_beams: int, max_tokens: int
) -> list | None:
    """Return the result of a narrow beam, from the docstring; fail where a near tie would decide."""
    beam, results = {(): 0.0}, {}
    for _ in range(max_tokens):
        banks: dict[int, dict] = {}
        for y, score in beam.items():
            for token, logprob in enumerate(model.next_token_logprobs([[*prompt, *y]])[0].tolist()):
                if token == model.eos_token_id:
                    if all(contains(y, phrase) for phrase in phrases):
                        results[(*y, token)] = score + logprob
                elif logprob > -math.inf:
                    grown = (*y, token)
                    banks.setdefault(sum(progress(grown, p) for p in phrases), {})[grown] = score + logprob
        beam = {}
        for bank in banks.values():
            ranked = sorted(bank.items(), key=lambda item: -item[1])
            if len(ranked) > num_beams:
                assert ranked[num_beams - 1][1] - ranked[num_beams][1] > 1e-5, "a near tie would decide"
            beam |= dict(ranked[:num_beams])
    return list(max(results, key=results.get)) if results else None


class TestGridBeamSearch:
    """Beam search that must say given words."""

    def test_wide_beam(self):
        """With a wide beam the result is the most probable complete continuation that contains every phrase.

        The tokens of a phrase must be next to each other, in order; phrases may overlap; the end token counts.
        """
        for seed, prompt, phrases in (
            (1, [], [[1, 2]]), (2, [3], [[2, 2], [1]]), (3, [1, 2], [[1, 2], [2, 3]]), (4, [], [[3, 1, 3]]),
            (5, [2], []), (6, [], [[2], [2]]), (7, [1], [[1, 1, 2]]), (9, [], [[2, 1], [1, 2]]),
            (12, [], [[1, 2], [2, 3]]), (16, [], [[1, 2], [2, 1]]),
        ):  # fmt: skip
            model = PositionModel(vocab_size=4, max_length=8, seed=seed)
            sequences = enumerate_sequences(model, 5, prompt)
            valid = {y: p for y, p in sequences.items() if y[-1] == 0 and all(contains(y, q) for q in phrases)}
            actual = controlled.grid_beam_search(model, prompt, phrases, num_beams=500, max_tokens=5)
            assert_equal(actual, list(max(valid, key=valid.get)), f"the best with {phrases} after {prompt}")

    def test_narrow_beam(self):
        """With a narrow beam hypotheses compete with those of equal progress only.

        Count the progress of all phrases together, a partial phrase at the end of the hypothesis too.
        """
        for seed in range(30):
            model = PositionModel(vocab_size=5, max_length=8, seed=seed, eos_token_id=4)
            for phrases in ([[1, 2]], [[0, 3], [2]], [[1, 1, 2]]):
                for num_beams in (1, 2):
                    expected = narrow_search(model, [3], phrases, num_beams, 6)
                    actual = controlled.grid_beam_search(model, [3], phrases, num_beams=num_beams, max_tokens=6)
                    assert_equal(actual, expected, f"the result with {phrases} and {num_beams} beams")

    def test_no_result(self):
        """Without a continuation that contains every phrase the result is None.

        A continuation that is not complete is no result, and neither is one without a phrase.
        """
        model = TableModel({(): [0.4, 0.6, 0.0], (1,): [0.3, 0.5, 0.2], (1, 1): [0.0, 0.4, 0.6]}, 0)
        for phrases, max_tokens in (([[2, 1]], 4), ([[1, 1]], 2), ([[1]], 0), ([[2]], 2)):
            actual = controlled.grid_beam_search(model, [], phrases, num_beams=9, max_tokens=max_tokens)
            assert actual is None, f"expected None for {phrases} within {max_tokens} tokens, got {actual}"
        actual = controlled.grid_beam_search(model, [1], [[1]], num_beams=9, max_tokens=3)
        assert_equal(actual, [1, 2, 0], "the best with [1] after [1], which does not count itself")

    def test_calls_and_errors(self):
        """A step is one call of the model, and settings or phrases that make no sense raise ValueError.

        Pass the hypotheses of all progress to the model together.
        """
        model = CountingModel(NgramModel(vocab_size=4, order=2, seed=8))
        controlled.grid_beam_search(model, [], [[1, 2]], num_beams=3, max_tokens=4)
        assert_equal(model.calls, 4, "the number of model calls for 4 tokens")
        for phrases, num_beams, max_tokens in (([[1]], 0, 3), ([[]], 2, 3), ([[1, 0]], 2, 3), ([[1]], 2, -1)):
            with pytest.raises(ValueError):
                controlled.grid_beam_search(model, [], phrases, num_beams=num_beams, max_tokens=max_tokens)


def logits_of(probabilities: Sequence, shift: float = 0.0) -> Tensor:
    """Return logits with these probabilities, in float64."""
    return torch.tensor(probabilities, dtype=torch.float64).log() + shift


EXPERT = [[0.50, 0.05, 0.30, 0.15], [0.10, 0.62, 0.08, 0.20]]
AMATEUR = [[0.30, 0.25, 0.10, 0.35], [0.40, 0.20, 0.15, 0.25]]
BASE = [[0.25, 0.35, 0.10, 0.30], [0.05, 0.15, 0.45, 0.35]]


class TestContrastiveLogits:
    """Expert minus amateur, on the plausible head."""

    def test_scores(self):
        """On the head the score is log p_expert - log p_amateur, in each row, whatever is added to the logits.

        Normalise both before you subtract; the threshold is on the expert's probabilities.
        """
        for alpha, heads in ((0.2, [[0, 2, 3], [1, 3]]), (0.5, [[0, 2], [1]]), (0.05, [[0, 1, 2, 3], [0, 1, 2, 3]])):
            expert, amateur = logits_of(EXPERT, 1.7), logits_of(AMATEUR, -0.6)
            expected = torch.full_like(expert, -torch.inf)
            for row, head in enumerate(heads):
                expected[row, head] = logits_of(EXPERT)[row, head] - logits_of(AMATEUR)[row, head]
            actual = controlled.contrastive_logits(expert, amateur, alpha)
            assert_close(actual, expected, TOLERANCE, f"the scores for alpha {alpha}")
            assert_close(expert, logits_of(EXPERT, 1.7), 0, "the expert's logits after the call")
            row = controlled.contrastive_logits(expert[1], amateur[1], alpha)
            assert_close(row, expected[1], TOLERANCE, f"the scores of a single row for alpha {alpha}")

    def test_same_models(self):
        """Two equal models make every token of the head equally good, and the expert's -inf stays -inf.

        Outside the head the score is -inf and never NaN.
        """
        expert = logits_of([0.4, 0.0, 0.25, 0.35])
        expert[1] = -torch.inf
        amateur = logits_of([0.4, 0.1, 0.25, 0.35])
        actual = controlled.contrastive_logits(expert, amateur, 0.8)
        assert_close(actual.softmax(-1), torch.tensor([0.5, 0.0, 0.0, 0.5]), TOLERANCE, "the probabilities")

    def test_greedy(self):
        """With alpha 1 only the expert's most probable token is left, and alpha must be above 0 and at most 1.

        The most probable token is always kept.
        """
        actual = controlled.contrastive_logits(logits_of(EXPERT), logits_of(AMATEUR), 1.0)
        assert_equal((actual > -torch.inf).tolist(), [[True, False, False, False], [False, True, False, False]], "kept")
        for alpha in (0.0, -0.1, 1.1):
            with pytest.raises(ValueError):
                controlled.contrastive_logits(logits_of(EXPERT), logits_of(AMATEUR), alpha)


class TestDExpertsLogprobs:
    """A product of experts."""

    def test_product(self):
        """The result is log of p_base (p_expert / p_antiexpert)^alpha, normalised, in each row.

        Multiply probabilities, that is, add logits; normalise at the end.
        """
        for alpha in (0.5, 1.0, 2.3, -0.7):
            base, expert, anti = (torch.tensor(p, dtype=torch.float64) for p in (BASE, EXPERT, AMATEUR))
            weights = base * (expert / anti) ** alpha
            expected = (weights / weights.sum(-1, keepdim=True)).log()
            arguments = logits_of(BASE, 0.4), logits_of(EXPERT, -2.0), logits_of(AMATEUR, 1.5)
            assert_close(controlled.dexperts_logprobs(*arguments, alpha), expected, TOLERANCE, f"alpha {alpha}")
            single = controlled.dexperts_logprobs(*(z[1] for z in arguments), alpha)
            assert_close(single, expected[1], TOLERANCE, f"a single row, alpha {alpha}")

    def test_base_model(self):
        """With alpha 0, or an expert equal to the anti-expert, it is the base model, and its -inf stays.

        The base's log-probabilities come out, normalised.
        """
        base = logits_of([0.2, 0.0, 0.8])
        expert, anti = logits_of([0.1, 0.7, 0.2]), logits_of([0.5, 0.1, 0.4])
        for actual in (
            controlled.dexperts_logprobs(base + 3, expert, anti, 0.0),
            controlled.dexperts_logprobs(base + 3, expert, expert, 1.4),
        ):
            assert_close(actual, base, TOLERANCE, "the log-probabilities")


class TestFudgeLogprobs:
    """Bayes' rule with a classifier of prefixes."""

    def test_true_posterior(self):
        """With the true P(attribute | prefix) the product over steps is exactly P(sequence | attribute).

        The classifier judges the context with the next token; normalise every row.
        """
        model = NgramModel(vocab_size=3, order=2, seed=21)
        sequences = enumerate_sequences(model, 3)
        holds = {y: p for y, p in sequences.items() if y.count(2) == 1}
        z = sum(holds.values())

        def classifier(prefixes: list[list[int]]) -> Tensor:
            def mass(among: dict, prefix: list[int]) -> float:
                return sum(p for y, p in among.items() if list(y[: len(prefix)]) == list(prefix))

            pairs = [(mass(holds, prefix), mass(sequences, prefix)) for prefix in prefixes]
            return torch.tensor([a / b if b else 0.0 for a, b in pairs], dtype=torch.float64)

        for y, p in holds.items():
            rows = controlled.fudge_logprobs(model, [list(y[:t]) for t in range(len(y))], classifier)
            total = float(sum(row[token] for row, token in zip(rows, y, strict=True)))
            assert_close(total, math.log(p / z), TOLERANCE, f"log P({y} | attribute)")

    def test_batch(self):
        """Each context has its row of normalised log-probabilities, and the classifier is called once.

        A batch of contexts of different lengths is one call of the classifier for all contexts and tokens.
        """
        model = NgramModel(vocab_size=4, order=3, seed=22)
        calls = []

        def classifier(prefixes: list[list[int]]) -> Tensor:
            calls.append(len(prefixes))
            return torch.tensor([(1 + sum((i + 1) * t for i, t in enumerate(q))) % 7 / 10 for q in prefixes])

        contexts = [[1], [], [3, 2, 2]]
        actual = controlled.fudge_logprobs(model, contexts, classifier)
        assert_equal(calls, [12], "the number of prefixes in each call of the classifier")
        probabilities = torch.stack([classifier([[*c, token] for token in range(4)]) for c in contexts])
        weights = model.next_token_logprobs(contexts).exp() * probabilities
        expected = (weights / weights.sum(-1, keepdim=True)).log()
        assert_close(actual, expected, TOLERANCE, "the log-probabilities")

    def test_impossible(self):
        """A context without a next token of positive weight raises ValueError.

        A row of zeros cannot be normalised, even where the other rows can.
        """
        model = TableModel({(1,): [0.5, 0.5, 0.0], (2,): [0.0, 0.0, 1.0]}, 0)
        with pytest.raises(ValueError):
            controlled.fudge_logprobs(
                model, [[1], [2]], lambda prefixes: torch.tensor([float(q[-1] != 2) for q in prefixes])
            )


class TestGuidedLogprobs:
    """Classifier-free guidance."""

    def test_formula(self):
        """The result is u + guidance_scale (c - u), normalised, for prompts and continuations of any length.

        u is given the continuation so far, without the prompt, at this step and not an earlier one.
        """
        model = PositionModel(vocab_size=4, max_length=8, seed=31)
        prompts, continuations = [[1, 2], [3], [2, 2, 1]], [[], [1, 3], [2]]
        c = model.next_token_logprobs([x + y for x, y in zip(prompts, continuations, strict=True)])
        u = model.next_token_logprobs(continuations)
        for scale in (0.4, 1.5, 3.0):
            expected = (u + scale * (c - u)).log_softmax(-1)
            actual = controlled.guided_logprobs(model, prompts, continuations, scale)
            assert_close(actual, expected, TOLERANCE, f"guidance_scale {scale}")

    def test_ends_of_the_scale(self):
        """A guidance_scale of 1 is the conditional model, and 0 the unconditional one.

        Some papers shift the scale by one.
        """
        model = NgramModel(vocab_size=5, order=3, seed=32)
        for scale, context in ((1.0, [4, 1, 2]), (0.0, [2])):
            actual = controlled.guided_logprobs(model, [[4, 1]], [[2]], scale)
            assert_close(actual, model.next_token_logprobs([context]), TOLERANCE, f"guidance_scale {scale}")

    def test_calls_and_errors(self):
        """Both distributions come from one call of the model; a negative scale or missing rows raise ValueError.

        Put the conditional and the unconditional contexts into one batch.
        """
        model = CountingModel(NgramModel(vocab_size=3, order=2, seed=33))
        controlled.guided_logprobs(model, [[1], [2]], [[], [1]], 2.0)
        assert_equal((model.calls, model.contexts), (1, 4), "the number of model calls and of contexts in them")
        for prompts, continuations, scale in (([[1]], [[2]], -0.5), ([[1]], [[2], [1]], 1.0), ([[1], [2]], [[2]], 1.0)):
            with pytest.raises(ValueError):
                controlled.guided_logprobs(model, prompts, continuations, scale)


# Token 1 is a, 2 is b; a goes on to acceptance (token 3) with .02, b with .8; 4 refuses.
GARDEN_PATH = TableModel(
    {(): [0.0, 0.8, 0.2, 0.0, 0.0], (1,): [0.0, 0.0, 0.0, 0.02, 0.98], (2,): [0.0, 0.0, 0.0, 0.8, 0.2]}, 0
)


class TestExactPosterior:
    """What conditioning means."""

    def test_by_brute_force(self):
        """The posterior is P(y) / Z over the continuations for which the predicate holds, and Z their total.

        Complete continuations and those cut at max_tokens are all there are; given the prompt.
        """
        model = NgramModel(vocab_size=3, order=3, seed=51, eos_token_id=1)
        for prompt, max_tokens in (([], 3), ([2, 0], 4)):
            for predicate in (lambda y: sum(y) % 3 == 1, lambda y: y[-1] == 1, lambda y: len(y) > 1 and y[1] == 2):
                joint = {y: p for y, p in enumerate_sequences(model, max_tokens, prompt).items() if predicate(list(y))}
                z = sum(joint.values())
                actual = controlled.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
                assert_close(actual.normaliser, z, TOLERANCE, "Z")
                assert_equal(set(actual.probabilities), set(joint), "the sequences for which the predicate holds")
                assert_same_distribution(actual.probabilities, {y: p / z for y, p in joint.items()}, TOLERANCE)

    def test_impossible(self):
        """Continuations of probability zero are left out, and a predicate that holds for none raises ValueError.

        A token that the model rules out starts no continuation.
        """
        actual = controlled.exact_posterior(GARDEN_PATH, lambda y: y[1] >= 3, max_tokens=2)
        assert_equal(set(actual.probabilities), {(1, 3), (1, 4), (2, 3), (2, 4)}, "the sequences")
        with pytest.raises(ValueError):
            controlled.exact_posterior(GARDEN_PATH, lambda y: y[0] == 3, max_tokens=2)


class TestLocallyMaskedDistribution:
    """Masking is not conditioning."""

    def test_garden_path(self):
        """Masking keeps P(a) = .8 although a is rarely accepted, where the posterior has .016 / .176 = 1/11.

        Renormalise at each step over the tokens left, without looking at how probable acceptance is.
        """
        actual = controlled.locally_masked_distribution(GARDEN_PATH, lambda y: y[1] == 3, max_tokens=2)
        assert_same_distribution(actual, {(1, 3): 0.8, (2, 3): 0.2}, TOLERANCE)

    def test_by_recursion(self):
        """At each step tokens that can still fulfil the predicate share the mass, as a recursion finds.

        A token is masked only where nothing that begins with it fulfils the predicate.
        """
        model = NgramModel(vocab_size=3, order=2, seed=52, eos_token_id=2)
        for prompt, max_tokens in (([], 3), ([1, 0], 4)):
            for predicate in (lambda y: y.count(0) == 1, lambda y: y[-1] == 2, lambda y: y[-1] == y[0]):
                accepted = [y for y in enumerate_sequences(model, max_tokens, prompt) if predicate(list(y))]

                def viable(logits: list, y: Tensor, accepted: list = accepted) -> Tensor:
                    (prefix,) = logits
                    kept = {a[len(prefix)] for a in accepted if list(a[: len(prefix)]) == prefix}
                    return y.masked_fill(torch.tensor([[t not in kept for t in range(3)]]), -torch.inf)

                expected = processed_sequences(model, prompt, max_tokens, [viable])
                actual = controlled.locally_masked_distribution(model, predicate, max_tokens=max_tokens, prompt=prompt)
                assert_same_distribution(actual, expected, TOLERANCE)

    def test_impossible(self):
        """Tokens that lead only to continuations of probability zero are masked; none left raises ValueError.

        "Can fulfil the predicate" is about continuations that the model can produce.
        """
        model = TableModel({(): [0.0, 0.5, 0.3, 0.2], (1,): [1.0, 0.0, 0.0, 0.0], (2,): [0.5, 0.2, 0.1, 0.2]}, 0)
        actual = controlled.locally_masked_distribution(model, lambda y: len(y) > 1 and y[1] in (1, 2), max_tokens=2)
        assert_same_distribution(actual, {(2, 1): 2 / 3, (2, 2): 1 / 3}, TOLERANCE)
        with pytest.raises(ValueError):
            controlled.locally_masked_distribution(model, lambda y: y[0] == 0, max_tokens=2)
