"""Public tests of hw2.refinement. Run them with `pytest hw2/tests/test_refinement.py`; -k TestSelfRefine picks
one problem.

The model is an engine that answers from a table: for each prompt it knows what to say, and any other prompt is an
error. So a test knows every prompt that is right.
"""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import pytest

from hw2 import refinement
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

PARAMS = SamplingParams(max_tokens=20)
TEMPLATES = refinement.Templates(
    draft="Q {question}", critique="Q {question} A {answer} ?", refine="Q {question} A {answer} F {feedback} !"
)
GOOD = "fine"


def satisfied(critique: str) -> bool:
    """Return whether a critique finds nothing wrong."""
    return critique == GOOD


def assert_refinement(actual, answers, feedback, accepted, what):
    """Fail unless a refinement has these answers, this feedback and this verdict."""
    assert_equal(list(actual.answers), answers, f"the answers to {what}")
    assert_equal(list(actual.feedback), feedback, f"the feedback on {what}")
    assert_equal(bool(actual.accepted), accepted, f"whether the last answer to {what} is accepted")


class TestSelfRefine:
    """The model criticises and refines its own answers."""

    SCRIPT = {
        "Q 2+2": ["5"],
        "Q 2+2 A 5 ?": ["too high"],
        "Q 2+2 A 5 F too high !": ["4"],
        "Q 2+2 A 4 ?": [GOOD],
    }

    def test_until_satisfied(self):
        """The draft is refined until the critique is satisfied, and the answer of that moment is kept."""
        engine = ScriptedEngine(self.SCRIPT)
        (result,) = refinement.self_refine(engine, ["2+2"], TEMPLATES, satisfied, max_rounds=5, params=PARAMS)
        assert_refinement(result, ["5", "4"], ["too high", GOOD], True, "2+2")
        assert_equal(engine.usage.requests, 4, "the number of requests")

    def test_rounds(self):
        """At most max_rounds refinements are made, the last one is not criticised, and a negative number is refused."""
        for max_rounds, answers, feedback in ((0, ["5"], []), (1, ["5", "4"], ["too high"])):
            engine = ScriptedEngine(self.SCRIPT)
            (result,) = refinement.self_refine(
                engine, ["2+2"], TEMPLATES, satisfied, max_rounds=max_rounds, params=PARAMS
            )
            assert_refinement(result, answers, feedback, False, f"2+2 after {max_rounds} rounds")
            assert_equal(engine.usage.requests, 1 + 2 * max_rounds, "the number of requests")
        with pytest.raises(ValueError):
            refinement.self_refine(ScriptedEngine({}), [], TEMPLATES, satisfied, max_rounds=-1, params=PARAMS)

    def test_batch(self):
        """All questions share the calls of a round, and one that is accepted takes no part any more."""
        engine = ScriptedEngine(self.SCRIPT | {"Q 1+1": ["2"], "Q 1+1 A 2 ?": [GOOD]})
        one, two = refinement.self_refine(engine, ["1+1", "2+2"], TEMPLATES, satisfied, max_rounds=5, params=PARAMS)
        assert_refinement(one, ["2"], [GOOD], True, "1+1")
        assert_refinement(two, ["5", "4"], ["too high", GOOD], True, "2+2")
        assert_equal([len(call) for call in engine.calls], [2, 2, 1, 1], "the number of prompts of each call")


class TestSelfCorrect:
    """A verifier says whether an answer is right."""

    SCRIPT = {
        "Q 2+2": ["5"],
        "Q 2+2 A 5 F 5 > 4 !": ["3"],
        "Q 2+2 A 3 F 3 < 4 !": ["4"],
        "Q 1+1": ["2"],
    }

    def verify(self, question, answer):
        """Compare with the sum."""
        total = sum(map(int, question.split("+")))
        return None if int(answer) == total else f"{answer} {'>' if int(answer) > total else '<'} {total}"

    def test_until_accepted(self):
        """Answers are refined for as long as the verifier rejects them."""
        engine = ScriptedEngine(self.SCRIPT)
        one, two = refinement.self_correct(engine, ["1+1", "2+2"], TEMPLATES, self.verify, max_rounds=4, params=PARAMS)
        assert_refinement(one, ["2"], [], True, "1+1")
        assert_refinement(two, ["5", "3", "4"], ["5 > 4", "3 < 4"], True, "2+2")
        assert_equal([len(call) for call in engine.calls], [2, 1, 1], "the number of prompts of each call")

    def test_rounds(self):
        """At most max_rounds refinements are made, the last one is verified too, and a negative number is refused."""
        for max_rounds, answers, feedback in ((0, ["5"], ["5 > 4"]), (1, ["5", "3"], ["5 > 4", "3 < 4"])):
            engine = ScriptedEngine(self.SCRIPT)
            (result,) = refinement.self_correct(
                engine, ["2+2"], TEMPLATES, self.verify, max_rounds=max_rounds, params=PARAMS
            )
            assert_refinement(result, answers, feedback, False, f"2+2 after {max_rounds} rounds")
        with pytest.raises(ValueError):
            refinement.self_correct(ScriptedEngine({}), [], TEMPLATES, self.verify, max_rounds=-1, params=PARAMS)


class TestTransitionStatistics:
    """What a round does to answers."""

    def test_shares(self):
        """The shares are those among all steps that begin at a correct, and at a wrong answer."""
        trajectories = [[False, True, True], [True, False], [False, False, False, True]]
        statistics = refinement.transition_statistics(trajectories)  # correct: 1 of 2 stays; wrong: 2 of 4 turn
        assert_close(statistics.stays_correct, 0.5, 1e-9, "P(next correct | correct)")
        assert_close(statistics.becomes_correct, 0.5, 1e-9, "P(next correct | wrong)")

    def test_nothing_to_see(self):
        """Without a step from an answer of a kind, its share is None."""
        statistics = refinement.transition_statistics([[True, True], [False]])
        assert_close(statistics.stays_correct, 1.0, 1e-9, "P(next correct | correct)")
        assert_equal(statistics.becomes_correct, None, "P(next correct | wrong)")


class TestPredictedAccuracy:
    """The accuracy after some rounds."""

    def test_rounds(self):
        """Each round keeps a share of the correct answers and turns a share of the wrong ones."""
        for rounds, expected in ((0, 0.5), (1, 0.55), (2, 0.585)):  # 0.5 * 0.9 + 0.5 * 0.2 = 0.55
            actual = refinement.predicted_accuracy(0.5, 0.9, 0.2, rounds)
            assert_close(actual, expected, 1e-9, f"the accuracy after {rounds} rounds")

    def test_limits(self):
        """The accuracy tends to a fixed point, and values that are no probabilities are refused."""
        assert_close(refinement.predicted_accuracy(0.1, 0.9, 0.2, 200), 2 / 3, 1e-9, "the accuracy in the end")
        with pytest.raises(ValueError):
            refinement.predicted_accuracy(1.2, 0.9, 0.2, 1)
