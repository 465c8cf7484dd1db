"""Hidden tests of hw3.speculative: distributions by enumeration, calls counted, caches on a real transformer."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import itertools
import math

import pytest
import torch

from hw3 import speculative
from hw3.transformer import Config, Transformer
from shared_tasks.checks import assert_close, assert_equal, assert_same_distribution
from shared_tasks.models.language_model import CountingModel
from shared_tasks.models.randomness import TorchRandomness, enumerate_outcomes
from shared_tasks.models.toy import NgramModel, PositionModel, enumerate_sequences

PAIRS = [
    ([0.5, 0.3, 0.2], [0.2, 0.5, 0.3]),
    ([0.1, 0.6, 0.3], [0.1, 0.6, 0.3]),
    ([0.0, 0.4, 0.6], [0.7, 0.3, 0.0]),
    ([1.0, 0.0, 0.0], [0.0, 0.5, 0.5]),
]


def rows(*probabilities):
    """Return probabilities as a float64 tensor."""
    return torch.tensor(probabilities, dtype=torch.float64)


class Scorer:
    """A scorer on a language model that keeps what it was asked."""

    def __init__(self, model):
        self.model = model
        self.asked = []

    def __call__(self, contexts, drafts):
        """Ask for all prefixes at once."""
        pairs = [(list(context), list(draft)) for context, draft in zip(contexts, drafts, strict=True)]
        self.asked.append(pairs)
        prefixes = [[*context, *draft[:i]] for context, draft in pairs for i in range(len(draft) + 1)]
        return list(self.model.next_token_logprobs(prefixes).split([len(draft) + 1 for _, draft in pairs]))


def nucleus(probs, temperature, top_p):
    """Compute sampling probabilities of one row of plain numbers."""
    powers = [p ** (1 / temperature) for p in probs]
    powers = [p / sum(powers) for p in powers]
    kept, total = [], 0.0
    for token in sorted(range(len(powers)), key=lambda i: -powers[i]):
        if total < top_p:
            kept.append(token)
        total += powers[token]
    mass = sum(powers[i] for i in kept)
    return [powers[i] / mass if i in kept else 0.0 for i in range(len(powers))]


class TestAcceptanceRate:
    def test_one_minus_total_variation(self):
        """Is one minus the total variation distance of p and q.

        The mean of min(1, p / q) under q is the sum of min(p, q).
        """
        for p, q in PAIRS:
            expected = 1 - sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
            actual = speculative.acceptance_rate(rows(*p), rows(*q))
            assert_close(actual, torch.tensor(expected), 1e-6, f"the acceptance rate of {q} for {p}")

    def test_rows(self):
        """Treats every row on its own, in any number of dimensions.

        Sum over the last dimension only.
        """
        p, q = (rows(*(pair[i] for pair in PAIRS)) for i in (0, 1))
        expected = torch.tensor([0.7, 1.0, 0.3, 0.0])
        assert_close(speculative.acceptance_rate(p, q), expected, 1e-6, "the rates of 4 rows")
        actual = speculative.acceptance_rate(p.reshape(2, 2, 3), q.reshape(2, 2, 3))
        assert_close(actual, expected.reshape(2, 2), 1e-6, "the rates of 2 by 2 rows")


class TestResidual:
    def test_excess(self):
        """Is the excess of p over q, normalised row by row.

        Clamp before you normalise, and divide each row by its own sum.
        """
        p, q = (rows(*(PAIRS[k][i] for k in (0, 2, 3))) for i in (0, 1))
        expected = rows([1.0, 0.0, 0.0], [0.0, 1 / 7, 6 / 7], [1.0, 0.0, 0.0])
        assert_close(speculative.residual(p, q), expected, 1e-6, "the residuals of 3 rows")
        actual = speculative.residual(p.reshape(3, 1, 3), q.reshape(3, 1, 3))
        assert_close(actual, expected.reshape(3, 1, 3), 1e-6, "the residuals of 3 by 1 rows")

    def test_equal_distributions(self):
        """Is p itself where p equals q, beside rows where it does not.

        0 / 0 is NaN. Rounding can reject a token with probability 1e-8 where p equals q.
        """
        p, q = rows([0.1, 0.6, 0.3], [0.5, 0.3, 0.2]), rows([0.1, 0.6, 0.3], [0.2, 0.5, 0.3])
        expected = rows([0.1, 0.6, 0.3], [1.0, 0.0, 0.0])
        assert_close(speculative.residual(p, q), expected, 1e-6, "the residuals")


def joint(targets, proposals):
    """Return the distribution of the tokens of one round, from the definition."""
    outcomes = {}

    def go(prefix, mass):
        i = len(prefix)
        if i == len(proposals):
            for token, p in enumerate(targets[i]):
                outcomes[(*prefix, token)] = outcomes.get((*prefix, token), 0) + mass * p
            return
        p, q = targets[i], proposals[i]
        for token in range(len(p)):
            if min(p[token], q[token]) > 0:
                go((*prefix, token), mass * min(p[token], q[token]))
            if p[token] > q[token]:  # rejection and a draw from the residual together have the mass of the excess
                outcomes[(*prefix, token)] = outcomes.get((*prefix, token), 0) + mass * (p[token] - q[token])

    go((), 1.0)
    return {tokens: mass for tokens, mass in outcomes.items() if mass > 0}


class TestVerify:
    def test_every_pair(self):
        """Draws exactly from p for one token and the next, for every pair of distributions.

        Accept with min(1, p / q) of the token; after a rejection draw from the residual, after acceptance from p.
        """
        last = [0.2, 0.3, 0.5]
        for p, q in PAIRS:

            def run(rng, p=p, q=q):
                token = int(rng.categorical(rows(*q)))
                return tuple(speculative.verify(rows(p, last), speculative.Draft([token], rows(q)), rng))

            assert_same_distribution(enumerate_outcomes(run), joint([p, last], [q]), 1e-6)

    def test_several_tokens(self):
        """Accepts a run of tokens from left to right, each with its own rows, and stops at the first rejection.

        Row i of p is for token i. Nothing follows a replaced token: later tokens were drawn for another context.
        """
        targets = [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.0, 0.4], [0.25, 0.5, 0.25]]
        proposals = [[0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.2, 0.4, 0.4]]

        def run(rng):
            tokens = rng.categorical(rows(*proposals)).tolist()
            return tuple(speculative.verify(rows(*targets), speculative.Draft(tokens, rows(*proposals)), rng))

        assert_same_distribution(enumerate_outcomes(run), joint(targets, proposals), 1e-6)

    def test_certain_drafts(self):
        """Accepts a token that was certain with its probability under p, and never replaces it by itself.

        Drafts by lookup have one-hot probabilities; greedy targets too.
        """
        for p in ([0.5, 0.3, 0.2], [0.0, 1.0, 0.0]):
            draft = speculative.Draft([1], rows([0.0, 1.0, 0.0]))
            actual = enumerate_outcomes(lambda rng, p=p, d=draft: tuple(speculative.verify(rows(p, [0, 0, 1]), d, rng)))
            expected = {(1, 2): p[1]} | {(i,): p[i] for i in (0, 2)}
            assert_same_distribution(actual, {k: v for k, v in expected.items() if v}, 1e-6)

    def test_empty_draft_and_rows(self):
        """Draws one token from p without a draft, and raises ValueError unless p has one row more than tokens.

        The last row of p is for the token after the draft.
        """
        p = [0.5, 0.3, 0.2]
        empty = speculative.Draft([], torch.empty(0, 3))
        actual = enumerate_outcomes(lambda rng: tuple(speculative.verify(rows(p), empty, rng)))
        assert_same_distribution(actual, {(i,): mass for i, mass in enumerate(p)}, 1e-6)
        for count in (1, 3):
            with pytest.raises(ValueError):
                speculative.verify(rows(*[p] * count), speculative.Draft([0], rows(p)), TorchRandomness(0))


class TestSamplingProbs:
    def test_nucleus_after_temperature(self):
        """Takes the nucleus of the probabilities at the temperature, and renormalises them.

        The temperature comes first: it changes which tokens are in the nucleus. The token that crosses is kept.
        """
        table = [[0.05, 0.4, 0.1, 0.25, 0.17, 0.03], [0.62, 0.02, 0.12, 0.04, 0.11, 0.09]]
        for temperature, top_p in itertools.product((0.5, 1.0, 1.7), (0.05, 0.3, 0.63, 0.9, 1.0)):
            actual = speculative.sampling_probs(rows(*table).log(), temperature, top_p)
            expected = rows(*(nucleus(row, temperature, top_p) for row in table))
            assert_close(actual, expected, 1e-6, f"probabilities at temperature {temperature}, top_p {top_p}")

    def test_greedy_and_refusals(self):
        """Is certain of the most probable token at temperature 0, accepts -inf, and refuses what has no meaning.

        Do not divide by 0; top_p may be 1 but not 0.
        """
        logprobs = rows([0.0, 0.7, 0.3], [0.2, 0.0, 0.8]).log()
        assert_close(speculative.sampling_probs(logprobs, 0.0, 0.4), rows([0, 1, 0], [0, 0, 1]), 0, "greedy")
        assert_close(speculative.sampling_probs(logprobs), logprobs.exp(), 1e-6, "the defaults")
        for temperature, top_p in ((-0.1, 1.0), (1.0, 0.0), (1.0, 1.1), (0.0, 0.0)):
            with pytest.raises(ValueError):
                speculative.sampling_probs(logprobs, temperature, top_p)


class TestScoreWithModel:
    def test_ragged(self):
        """Gives each pair its own rows, in order, however long context and draft are.

        One row more than the draft has tokens; the last is for the token after the draft.
        """
        model = PositionModel(5, 12, seed=3)
        contexts, drafts = [[1, 2], [], [3, 3, 1, 2]], [[4], [1, 2, 3], []]
        answers = speculative.score_with_model(model, contexts, drafts)
        assert_equal(len(answers), 3, "the number of answers")
        for context, draft, actual in zip(contexts, drafts, answers, strict=True):
            expected = model.next_token_logprobs([context + draft[:i] for i in range(len(draft) + 1)])
            assert_close(actual, expected, 1e-6, f"the rows of {context} and {draft}")

    def test_one_call(self):
        """Calls the model once for all prefixes of all drafts.

        g + 1 calls cost what plain decoding costs: nothing would be won.
        """
        model = CountingModel(NgramModel(4, 2, seed=1))
        speculative.score_with_model(model, [[1], [2, 3]], [[1, 2], [3]])
        assert_equal((model.calls, model.contexts), (1, 5), "calls and contexts")


class TestDraftWithModel:
    def test_distribution(self):
        """Draws tokens one after the other from the sampling probabilities, and reports these.

        The reported probabilities are those drawn from: at the temperature, truncated and renormalised.
        """
        model = NgramModel(3, 2, seed=5)
        for temperature, top_p in ((1.0, 1.0), (0.6, 0.8)):
            law = lambda context, t=temperature, n=top_p: nucleus(  # noqa: E731
                model.next_token_logprobs([context])[0].exp().tolist(), t, n
            )

            def run(rng, t=temperature, n=top_p, law=law):
                (draft,) = speculative.draft_with_model(
                    Scorer(model), [[1]], [2], eos_token_id=9, temperature=t, top_p=n, rng=rng
                )
                expected = rows(*(law([1, *draft.tokens[:i]]) for i in range(2)))
                assert_close(draft.probs, expected, 1e-6, "the probabilities of the draft")
                return tuple(draft.tokens)

            expected = {(i, j): law([1])[i] * law([1, i])[j] for i in range(3) for j in range(3)}
            assert_same_distribution(enumerate_outcomes(run), {k: v for k, v in expected.items() if v}, 1e-6)

    def test_lengths_and_calls(self):
        """Gives every context its own number of tokens, asking only for those that go on.

        A draft of length 0 is in no call; without any other there is no call.
        """
        score = Scorer(NgramModel(4, 2, seed=2))
        drafts = speculative.draft_with_model(
            score, [[1], [2, 3], [3]], [1, 0, 3], eos_token_id=9, temperature=0.0, top_p=1.0, rng=TorchRandomness(0)
        )
        assert_equal([len(draft.tokens) for draft in drafts], [1, 0, 3], "the lengths of the drafts")
        assert_equal([len(draft.probs) for draft in drafts], [1, 0, 3], "the numbers of distributions")
        one, three = list(drafts[0].tokens), list(drafts[2].tokens)
        expected = [[([1], []), ([3], [])], [([3, *three[:1]], [])], [([3, *three[:2]], [])]]
        assert_equal(score.asked, expected, f"what was asked for the drafts {one} and {three}")
        score.asked.clear()
        drafts = speculative.draft_with_model(
            score, [[1]], [0], eos_token_id=9, temperature=0.0, top_p=1.0, rng=TorchRandomness(0)
        )
        assert_equal((score.asked, list(drafts[0].tokens)), ([], []), "calls and tokens for a draft of no tokens")

    def test_end_token(self):
        """Ends a draft with the end token, and does not end at one in the context.

        Nothing is drafted after the end token; the others go on.
        """
        model = NgramModel(4, 2, seed=8)
        greedy = {token: int(model.next_token_logprobs([[token]]).argmax()) for token in range(4)}
        for end in range(4):
            drafts = speculative.draft_with_model(
                Scorer(model), [[end, 1], [2, 3]], [4, 4], eos_token_id=end, temperature=0.0, top_p=1.0,
                rng=TorchRandomness(0),
            )  # fmt: skip
            for draft, token in zip(drafts, (1, 3), strict=True):
                expected = []
                while len(expected) < 4 and end not in expected:
                    token = greedy[token]
                    expected.append(token)
                assert_equal(list(draft.tokens), expected, f"the draft with end token {end}")


def looked_up(context, length, size, vocab=10):
    """Return the tokens of a draft after checking its probabilities."""
    (draft,) = speculative.draft_with_ngrams([context], [length], vocab_size=vocab, max_ngram_size=size)
    assert_close(draft.probs.double(), torch.eye(vocab).double()[list(draft.tokens)], 0, "the probabilities")
    return list(draft.tokens)


class TestDraftWithNgrams:
    def test_longest_then_latest(self):
        """Prefers a longer match to a later one, and the latest of equally long ones.

        Go from max_ngram_size down to 1, and search from the end of the context.
        """
        context = [1, 2, 3, 4, 9, 3, 5, 8, 3, 6, 1, 2, 3]
        for size, expected in ((5, [4, 9]), (3, [4, 9]), (2, [4, 9]), (1, [6, 1])):
            assert_equal(looked_up(context, 2, size), expected, f"the draft with n-grams of up to {size}")
        assert_equal(looked_up([7, 1, 5, 7, 2, 6, 7], 1, 2), [2], "the draft from the latest of two matches")

    def test_overlap_and_end(self):
        """Finds occurrences that overlap the last tokens, stops at the end of the context, and at the length asked for.

        The last tokens themselves are no earlier occurrence, since nothing follows them.
        """
        assert_equal(looked_up([4, 4, 4], 5, 2), [4], "the draft after 4 4 4")
        assert_equal(looked_up([1, 2, 1, 2, 1], 5, 3), [2, 1], "the draft after 1 2 1 2 1")
        assert_equal(looked_up([3, 5, 6, 7, 3], 2, 3), [5, 6], "a draft of 2 tokens")
        assert_equal(looked_up([3, 5, 6, 7, 3], 0, 3), [], "a draft of 0 tokens")

    def test_nothing_found(self):
        """Returns an empty draft when nothing repeats, for a context of one token, and for none.

        There may be fewer tokens than max_ngram_size.
        """
        for context in ([], [5], [1, 2, 3, 4]):
            assert_equal(looked_up(context, 3, 4), [], f"the draft after {context}")
        for size in (0, -1):
            with pytest.raises(ValueError):
                speculative.draft_with_ngrams([[1]], [1], vocab_size=3, max_ngram_size=size)

    def test_rows_of_their_own(self):
        """Looks each context up in itself, with its own length.

        Another row's text is another context.
        """
        drafts = speculative.draft_with_ngrams([[1, 2, 1], [2, 3], [3, 3]], [2, 2, 1], vocab_size=4, max_ngram_size=2)
        assert_equal([list(draft.tokens) for draft in drafts], [[2, 1], [], [3]], "the drafts")


def generate(score, draft, prompts, rng, **settings):
    """Call speculative_generate with settings that do nothing."""
    defaults = {"eos_token_id": 0, "num_speculative_tokens": 2, "max_tokens": 3, "temperature": 1.0, "top_p": 1.0}
    return [list(y) for y in speculative.speculative_generate(score, draft, prompts, rng=rng, **defaults | settings)]


def drawing(model, rng, asked=None):
    """Make a drafter that draws tokens from a model, whatever the temperature."""

    def draft(contexts, lengths):
        if asked is not None:
            asked.append(([list(context) for context in contexts], list(lengths)))
        drafts = []
        for context, length in zip(contexts, lengths, strict=True):
            tokens, probs = [], torch.empty(length, model.vocab_size, dtype=torch.float64)
            for i in range(length):
                probs[i] = model.next_token_logprobs([[*context, *tokens]])[0].exp()
                tokens.append(int(rng.categorical(probs[i])))
            drafts.append(speculative.Draft(tokens, probs))
        return drafts

    return draft


class Truncated:
    """The target at a temperature and top_p, as a model to enumerate."""

    def __init__(self, model, temperature, top_p):
        self.model, self.eos_token_id = model, model.eos_token_id
        self.law = temperature, top_p

    def next_token_logprobs(self, contexts):
        """Return the logarithms of the sampling probabilities."""
        probs = self.model.next_token_logprobs(contexts).exp().tolist()
        return rows(*(nucleus(row, *self.law) for row in probs)).log()


def scripted(answers):
    """Make a drafter that reads its guesses, as certain ones, from a list by position."""

    def draft(contexts, lengths):
        guesses = [list(answers[len(c) : len(c) + n]) for c, n in zip(contexts, lengths, strict=True)]
        return [speculative.Draft(guess, torch.eye(10, dtype=torch.float64)[guess]) for guess in guesses]

    return draft


class Sequence:
    """A model of 10 tokens that is certain of the token at each position."""

    def __init__(self, tokens):
        self.tokens = tokens

    def next_token_logprobs(self, contexts):
        """Return one-hot rows."""
        return torch.eye(10, dtype=torch.float64)[[self.tokens[len(context)] for context in contexts]].log()


class TestSpeculativeGenerate:
    def test_exact_distribution(self):
        """Draws every sequence with its probability under the target, with every drafter, at every lookahead.

        Enumerated, not sampled. Wrong here and right in verify: look at which rows go with which tokens.
        """
        for seed, lookahead in ((1, 1), (2, 2), (3, 0)):
            target, small = NgramModel(3, 2, seed=seed), NgramModel(3, 2, seed=seed + 10)
            actual = enumerate_outcomes(
                lambda rng, t=target, s=small, g=lookahead: tuple(
                    generate(Scorer(t), drawing(s, rng), [[2]], rng, num_speculative_tokens=g)[0]
                )
            )
            assert_same_distribution(actual, enumerate_sequences(target, 3, [2]), 1e-6)

    def test_temperature_and_top_p(self):
        """Draws from the target's probabilities at the temperature, truncated, whatever the drafter draws from.

        A token outside the target's nucleus is never accepted and never put in as a replacement.
        """
        target, small = NgramModel(3, 2, seed=4), NgramModel(3, 2, seed=14)
        for temperature, top_p in ((0.7, 1.0), (1.0, 0.7), (1.5, 0.8)):
            actual = enumerate_outcomes(
                lambda rng, t=temperature, p=top_p: tuple(
                    generate(Scorer(target), drawing(small, rng), [[1]], rng, temperature=t, top_p=p)[0]
                )
            )
            assert_same_distribution(actual, enumerate_sequences(Truncated(target, temperature, top_p), 3, [1]), 1e-6)

    def test_calls_of_the_target(self):
        """Gains the length of the accepted run and one token with each call, and never overshoots max_tokens.

        The lookahead is at most max_tokens - 1 - the tokens so far: verification adds one.
        """
        text = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3]
        wrong = [*text[:4], 7, *text[5:]]
        for lookahead, most, guesses, lengths in (
            (3, 12, text, [3, 3, 3]), (3, 10, text, [3, 3, 1]), (2, 5, text, [2, 1]), (4, 1, text, [0]),
            (0, 3, text, [0, 0, 0]), (3, 12, wrong, [3, 3, 3, 2]), (3, 0, text, []),
        ):  # fmt: skip
            score = Scorer(Sequence([0, *text]))
            (y,) = generate(
                score, scripted([0, *guesses]), [[0]], TorchRandomness(0),
                num_speculative_tokens=lookahead, max_tokens=most,
            )  # fmt: skip
            what = f"for {most} tokens with a lookahead of {lookahead}"
            assert_equal(y, text[:most], f"the text {what}")
            assert_equal([len(draft) for ((_, draft),) in score.asked], lengths, f"the drafts scored {what}")

    def test_end_token_inside_a_run(self):
        """Ends with the end token wherever it comes in a run, and ends nothing at one in the prompt.

        Cut the run at the end token: what was accepted after it, and the added token, go.
        """
        for at in range(6):
            text = [3, 1, 4, 1, 5, 9, 2, 6, 5]
            text[at] = 8
            score = Scorer(Sequence([8, *text]))
            (y,) = generate(
                score, scripted([8, *text]), [[8]], TorchRandomness(0),
                eos_token_id=8, num_speculative_tokens=3, max_tokens=8,
            )  # fmt: skip
            assert_equal(y, text[: at + 1], f"the text with the end token at {at}")
            assert_equal(len(score.asked), at // 4 + 1, "the calls of the target")

    def test_ragged_batch(self):
        """Serves all rows that have not ended with one call of drafter and scorer a round, each at its own length.

        Rows accept different numbers of tokens. Rows that have ended are in no call.
        """
        target, asked, rng = NgramModel(4, 2, seed=3), [], TorchRandomness(1)
        score = Scorer(target)
        prompts = [[1], [2, 3, 1], [], [3]]
        before = [list(prompt) for prompt in prompts]
        y = generate(score, drawing(NgramModel(4, 2, seed=4), rng, asked), prompts, rng, max_tokens=7, temperature=0.0)
        expected = []
        for prompt in before:
            row = []
            while len(row) < 7 and 0 not in row:
                row.append(int(target.next_token_logprobs([prompt + row]).argmax()))
            expected.append(row)
        assert_equal(y, expected, "the greedy texts")
        assert_equal(prompts, before, "the prompts after the call")
        assert_equal(len(asked), len(score.asked), "calls of the drafter for those of the scorer")
        starts = [(i, len(before[i])) for i in range(4)]
        for (contexts, lengths), pairs in zip(asked, score.asked, strict=True):
            assert_equal([context for context, _ in pairs], contexts, "the contexts scored, in a round")
            for context, length in zip(contexts, lengths, strict=True):
                row = next(
                    i for i, n in starts if context[:n] == before[i] and context[n:] == expected[i][: len(context) - n]
                )
                done = len(context) - len(before[row])
                assert 0 not in context[len(before[row]) :], f"expected no row that has ended, got {context}"
                assert_equal(length, min(2, 6 - done), f"the draft's length after {context}")
        assert_equal(generate(score, drawing(target, rng), [], rng), [], "the texts of no prompts")
        for wrong in ({"max_tokens": -1}, {"num_speculative_tokens": -1}):
            with pytest.raises(ValueError):
                generate(score, drawing(target, rng), [[1]], rng, **wrong)


class TestExpectedTokens:
    def test_counted(self):
        """Is the mean length of a round, counted over all ways in which tokens are accepted.

        A round yields one token more than are accepted; at acceptance 1 the closed form is 0 / 0.
        """
        for a, g in itertools.product((0.0, 0.3, 0.8, 0.999, 1.0), (0, 1, 4, 7)):
            expected = sum((i + 1) * a**i * (1 - a) for i in range(g)) + (g + 1) * a**g
            assert_close(speculative.expected_tokens(a, g), expected, 1e-6, f"the tokens at {a}, lookahead {g}")

    def test_refuses(self):
        """Raises ValueError for what is no probability and for a negative lookahead.

        0 <= a <= 1 and g >= 0.
        """
        for a, g in ((-0.1, 3), (1.1, 3), (0.5, -1)):
            with pytest.raises(ValueError):
                speculative.expected_tokens(a, g)


class TestBestLookahead:
    def test_searched(self):
        """Finds the best number from 0 up to the largest allowed, and tells its speed-up.

        A round costs g steps of the drafter and one pass of the target. 0 is best where guessing does not pay.
        """
        for a, c, most in itertools.product((0.0, 0.3, 0.8, 0.95), (0.01, 0.05, 0.4, 1.0), (0, 3, 40)):
            gains = [(1 - a ** (g + 1)) / (1 - a) / (c * g + 1) for g in range(most + 1)]
            lookahead, speedup = speculative.best_lookahead(a, c, most)
            what = f"at acceptance {a}, cost ratio {c}, at most {most}"
            assert_close(speedup, max(gains), 1e-6, f"the speed-up {what}")
            assert_close(gains[lookahead], max(gains), 1e-6, f"the speed-up of {lookahead} {what}")

    def test_ties_and_refusals(self):
        """Takes the least of equally good numbers, and raises ValueError for negative costs or lookaheads.

        At acceptance 0 and cost 0 every number is as good as 0; at acceptance 1 and cost 0 longer is better.
        """
        assert_equal(speculative.best_lookahead(0.0, 0.0, 9)[0], 0, "the lookahead at acceptance 0 and no cost")
        assert_equal(tuple(speculative.best_lookahead(1.0, 0.0, 9)), (9, 10.0), "the lookahead at acceptance 1")
        for a, c, most in ((0.5, -0.1, 3), (0.5, 0.1, -1), (1.5, 0.1, 3)):
            with pytest.raises(ValueError):
                speculative.best_lookahead(a, c, most)


def random_transformer(seed):
    """Build a small transformer with random weights."""
    torch.manual_seed(seed)
    return Transformer(Config(12, 16, 24, 2, 4, 2, 8, 1e-6, 10000.0, False, 64, 0)).requires_grad_(False).eval()


def tokens(seed, *shape):
    """Draw token ids."""
    return torch.randint(1, 12, shape, generator=torch.Generator().manual_seed(seed))


class TestRollbackCache:
    def test_rows_cut_to_their_own_length(self):
        """Gives a transformer the logits of the whole text after rows were cut to different lengths and went on.

        Cut every layer. What was cut must neither be seen nor be counted as a position; padding too.
        """
        model, ids = random_transformer(1), tokens(1, 3, 9)
        wrong = ids.clone()
        lengths = [4, 0, 6]
        for row, length in enumerate(lengths):
            wrong[row, length:] = 11 - wrong[row, length:] % 10
        cache = speculative.RollbackCache()
        model(wrong[:, :3], torch.arange(3).expand(3, 3), cache)
        model(wrong[:, 3:7], torch.arange(3, 7).expand(3, 4), cache)
        cache.truncate(lengths)
        for _ in range(2):  # the second time after cutting back to the same lengths
            new = [ids[row, length:] for row, length in enumerate(lengths)]
            padded = torch.nn.utils.rnn.pad_sequence(new, batch_first=True)
            where = [torch.arange(length, 9) for length in lengths]
            positions = torch.nn.utils.rnn.pad_sequence(where, batch_first=True, padding_value=-1)
            logits, expected = model(padded, positions, cache), model(ids)
            for row, length in enumerate(lengths):
                assert_close(logits[row, : 9 - length], expected[row, length:], 1e-4, f"the logits of row {row}")
            cache.truncate(lengths)

    def test_select_rows(self):
        """Drops, reorders and copies rows, which then go their own ways.

        In every layer. A row that was copied is two rows.
        """
        model, ids = random_transformer(2), tokens(2, 3, 5)
        for rows_kept in ([2, 0], [1, 1, 0], [0, 1, 2, 2], [1]):
            cache = speculative.RollbackCache()
            model(ids, None, cache)
            cache.select(rows_kept)
            cache.truncate([5 - i for i in range(len(rows_kept))])
            rest = [torch.cat([ids[row, 5 - i :], tokens(row, 3)])[:2] for i, row in enumerate(rows_kept)]
            where = torch.stack([torch.arange(5 - i, 7 - i) for i in range(len(rows_kept))])
            logits = model(torch.stack(rest), where, cache)
            for i, row in enumerate(rows_kept):
                whole = torch.cat([ids[row, : 5 - i], rest[i]])
                assert_close(logits[i], model(whole[None])[0, -2:], 1e-4, f"the logits of row {i} of {rows_kept}")

    def test_holds_what_it_was_given(self):
        """Returns every position once, with its key and value, and nothing for padding or before the first update.

        Keys and values are not mixed up; slots of -1 hold nothing.
        """
        cache = speculative.RollbackCache()
        cache.truncate([0, 0])
        cache.select([0])
        held = [{}, {}]
        for counts, cut in (((3, 1), (2, 1)), ((1, 4), (9, 3)), ((2, 2), (0, 4)), ((1, 1), (9, 9))):
            positions, numbers = torch.full((2, max(counts)), -1), torch.zeros(2, max(counts))
            for row, count in enumerate(counts):
                for i in range(count):
                    position, number = len(held[row]), float(100 * row + len(held[row]) + 1000 * sum(cut))
                    held[row][position] = positions[row, i], numbers[row, i] = position, number
            for layer in (0, 3):
                shaped = numbers[:, None, :, None] + layer
                keys, values, where = cache.update(layer, shaped, -shaped, positions)
                for row in range(2):
                    seen = [i for i, p in enumerate(where[row].tolist()) if p >= 0]
                    actual = sorted(
                        (int(where[row, i]), keys[row, 0, i, 0].item(), -values[row, 0, i, 0].item()) for i in seen
                    )
                    expected = [(p, number + layer, number + layer) for p, (_, number) in sorted(held[row].items())]
                    assert_equal(actual, expected, f"positions, keys and values of row {row}, layer {layer}")
            cache.truncate(list(cut))
            held = [{p: entry for p, entry in row.items() if p < n} for row, n in zip(held, cut, strict=True)]


class Counted:
    """A transformer that counts the positions that it computes."""

    def __init__(self, seed):
        self.model = random_transformer(seed)
        self.positions = []

    def __call__(self, token_ids, positions, cache):
        """Return the logits."""
        self.positions.append((positions >= 0).sum(1).tolist())
        return self.model(token_ids, positions, cache)

    def expected(self, context, draft):
        """Return the rows of a pair without a cache."""
        return self.model(torch.tensor([[*context, *draft]]))[0, len(context) - 1 :].log_softmax(-1)


def check_scores(scorer, counted, contexts, drafts, positions):
    """Check a call's answers and the positions that it forwarded."""
    answers = scorer.score(contexts, drafts)
    for context, draft, actual in zip(contexts, drafts, answers, strict=True):
        assert_close(actual, counted.expected(context, draft), 1e-4, f"the rows of {context} and {draft}")
    assert_equal(counted.positions, [positions], f"positions forwarded for {contexts} and {drafts}, in each call")
    counted.positions.clear()


class TestCachedScorer:
    def test_acceptance_and_rejection(self):
        """Forwards one token more than was rejected or is new, whether all, some or none of the draft was accepted.

        After full acceptance the last token of the draft is in the cache, the added one is not. Roll back to the prefix
        in common, not to the length.
        """
        counted = Counted(1)
        scorer = speculative.CachedScorer(counted)
        check_scores(scorer, counted, [[1, 2, 3]], [[4, 5]], [5])
        check_scores(scorer, counted, [[1, 2, 3, 4, 5, 6]], [[7, 8]], [3])  # all accepted
        check_scores(scorer, counted, [[1, 2, 3, 4, 5, 6, 7, 3]], [[4]], [2])  # one accepted
        check_scores(scorer, counted, [[1, 2, 3, 4, 5, 6, 7, 3, 9]], [[]], [1])  # none accepted
        check_scores(scorer, counted, [[1, 2, 3, 4, 5, 6, 7, 3, 9]], [[2]], [2])  # the same context again

    def test_ragged_batch(self):
        """Serves rows of different lengths, of which some are rejected and some are dropped.

        Padding has position -1. A row goes on from whichever row it has most in common with.
        """
        counted = Counted(2)
        scorer = speculative.CachedScorer(counted)
        check_scores(scorer, counted, [[1], [2, 3, 4], [5, 6]], [[1, 1], [], [7]], [3, 3, 3])
        check_scores(scorer, counted, [[1, 1, 1, 9], [2, 3, 4, 5], [5, 6, 8]], [[2], [3, 4], []], [2, 3, 1])
        check_scores(scorer, counted, [[2, 3, 4, 5, 3, 1], [5, 6, 8, 8]], [[6], [7]], [2, 2])
        check_scores(scorer, counted, [[5, 6, 8, 8, 7, 1], [2, 3, 4, 5, 3, 1, 6, 6]], [[], [1]], [1, 2])

    def test_any_contexts(self):
        """Is right for contexts that have nothing to do with the last ones, and for several that share one past.

        The cache only saves work: an answer never depends on it.
        """
        counted = Counted(3)
        scorer = speculative.CachedScorer(counted)
        check_scores(scorer, counted, [[1, 2, 3, 4]], [[]], [4])
        check_scores(scorer, counted, [[7, 8]], [[9]], [3])
        check_scores(scorer, counted, [[7, 8, 9, 1], [7, 8, 5], [2]], [[], [1], []], [1, 2, 1])
        check_scores(scorer, counted, [[7]], [[]], [1])

    def test_speculative_decoding(self):
        """Decodes greedily what the transformer alone does, computing each position of the text about once.

        At most the text and the rejected drafts are forwarded: quadratic recomputation is many times as much.
        """
        counted = Counted(4)
        scorer = speculative.CachedScorer(counted)
        text = [3, 1, 2]
        while len(text) < 33:
            text.append(int(counted.model(torch.tensor([text]))[0, -1].argmax()))
        guesses = [t if i % 4 else t % 11 + 1 for i, t in enumerate(text)]
        context, rounds = text[:3], 0
        while len(context) < 33:
            draft = guesses[len(context) : len(context) + 3]
            (answer,) = scorer.score([context], [draft])
            best = answer.argmax(-1).tolist()
            right = next((i for i, token in enumerate(draft) if token != best[i]), len(draft))
            context, rounds = context + best[: right + 1], rounds + 1
        assert_equal(context[:33], text, "the text")
        forwarded = sum(row[0] for row in counted.positions)
        assert forwarded <= len(text) + 4 * rounds, (
            f"expected at most {len(text) + 4 * rounds} positions, got {forwarded}"
        )
        assert math.isclose(len(counted.positions), rounds), f"expected {rounds} calls, got {len(counted.positions)}"
