"""Hidden tests of hw2.refinement."""

import itertools

import pytest

from hw2 import refinement
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

PARAMS = SamplingParams(temperature=0.3, max_tokens=50, stop=("###",), seed=5)
TEMPLATES = refinement.Templates(
    draft="<d>{question}", critique="<c>{question};{answer}", refine="<r>{question};{answer};{feedback}"
)


def assert_refinement(actual, answers, feedback, accepted, what):
    """Fail unless a refinement has these answers, this feedback and this verdict."""
    assert_equal(list(actual.answers), answers, f"the answers to {what}")
    assert_equal(list(actual.feedback), feedback, f"the feedback on {what}")
    assert_equal(bool(actual.accepted), accepted, f"whether the last answer to {what} is accepted")


class Author:
    """An engine that counts its answers to each question up, and is content with the one that `content` names."""

    def __init__(self, content):
        self.content = content
        self.engine = ScriptedEngine(self.write)

    def write(self, prompt, params):
        """Draft answer 0, criticise answer i by "redo i" or "ok", refine answer i to answer i + 1."""
        kind, text = prompt[:3], prompt[3:]
        question, _, rest = text.partition(";")
        answer, _, feedback = rest.partition(";")
        if kind == "<d>":
            return ["0"]
        if kind == "<c>":
            return [f"ok {answer}" if int(answer) >= self.content[question] else f"redo {answer}"]
        return [str(int(answer) + 1) if feedback in (f"redo {answer}", f"more than {answer}") else "a wrong prompt"]

    def refine(self, questions, max_rounds, params=PARAMS):
        """Call self_refine."""
        return refinement.self_refine(
            self.engine,
            questions,
            TEMPLATES,
            lambda critique: critique[:2] == "ok",
            max_rounds=max_rounds,
            params=params,
        )


class TestSelfRefine:
    """The model criticises and refines its own answers."""

    def test_until_satisfied(self):
        """Every round shows the latest answer and the critique of it, until the critique is satisfied.

        Neither the draft nor an older critique may be shown once there is a newer one.
        """
        (result,) = Author({"q": 3}).refine(["q"], 9)
        critiques = ["redo 0", "redo 1", "redo 2", "ok 3"]
        assert_refinement(result, ["0", "1", "2", "3"], critiques, True, "a question that takes three rounds")

    def test_number_of_requests(self):
        """k refinements take 1 + 2k requests; the answer after the last round is not criticised any more.

        Stop right after the last refinement: a critique would lead to nothing.
        """
        for max_rounds in (0, 1, 3):
            author = Author({"q": 99})
            (result,) = author.refine(["q"], max_rounds)
            numbers = [str(i) for i in range(max_rounds + 1)]
            critiques = [f"redo {i}" for i in range(max_rounds)]
            assert_refinement(result, numbers, critiques, False, f"a question after {max_rounds} rounds")
            assert_equal(author.engine.usage.requests, 1 + 2 * max_rounds, "the number of requests")

    def test_each_question_ends_for_itself(self):
        """A question whose critique is satisfied keeps its answer and is left out of later calls; the others go on.

        Keep the indices of the questions that are still open.
        """
        content = {"w": 2, "x": 0, "y": 99, "z": 1}
        for order in itertools.permutations(content):
            author = Author(content)
            results = author.refine(list(order), 3)
            for question, result in zip(order, results, strict=True):
                last = min(content[question], 3)
                answers = [str(i) for i in range(last + 1)]
                critiques = [f"redo {i}" for i in range(last)] + ([f"ok {last}"] if last < 3 else [])
                assert_refinement(result, answers, critiques, last < 3, question)
            sizes = [len(call) for call in author.engine.calls]
            assert_equal(sizes, [4, 4, 3, 3, 2, 2, 1], "the number of prompts of each call")

    def test_no_empty_calls(self):
        """The model is not called when no question is open, and not for an empty list of questions.

        Leave the loop when nothing is left to do.
        """
        author = Author({"x": 0, "z": 1})
        author.refine(["x", "z"], 8)
        assert_equal([len(call) for call in author.engine.calls], [2, 2, 1, 1], "the number of prompts of each call")
        assert_equal(list(author.refine([], 2)), [], "the refinements of no questions")
        assert_equal(len(author.engine.calls), 4, "the number of calls")

    def test_texts_are_no_templates(self):
        """Braces and names of fields in a question, an answer or a critique are shown as they are.

        One `str.format` with all fields does it; replacing one field after the other fills in what texts bring along.
        """
        script = {
            "<d>{answer} {": ["{feedback} {0}"],
            "<c>{answer} {;{feedback} {0}": ["no {question}"],
            "<r>{answer} {;{feedback} {0};no {question}": ["better"],
        }
        (result,) = refinement.self_refine(
            ScriptedEngine(script), ["{answer} {"], TEMPLATES, lambda critique: False, max_rounds=1, params=PARAMS
        )
        assert_refinement(result, ["{feedback} {0}", "better"], ["no {question}"], False, "a question with braces")

    def test_settings(self):
        """All requests have the parameters given, and a negative number of rounds raises ValueError.

        Pass `params` on.
        """
        author = Author({"q": 1})
        author.refine(["q"], 4)
        assert_equal(author.engine.params, [PARAMS] * 4, "the parameters of the requests")
        with pytest.raises(ValueError):
            author.refine(["q"], -1)


class Verifier:
    """Accepts the answer that `right` names, and keeps what it was asked."""

    def __init__(self, right):
        self.right = right
        self.asked = []

    def __call__(self, question, answer):
        """Return None or feedback."""
        self.asked.append((question, answer))
        return None if self.right.get(question) == answer else f"more than {answer}"


def correct(author, verifier, questions, max_rounds, params=PARAMS):
    """Call self_correct."""
    return refinement.self_correct(author.engine, questions, TEMPLATES, verifier, max_rounds=max_rounds, params=params)


class TestSelfCorrect:
    """A verifier says whether an answer is right."""

    def test_until_accepted(self):
        """Every round shows the latest answer and the verifier's feedback on it, until the verifier accepts.

        Neither the draft nor older feedback may be shown once there is something newer.
        """
        author = Author({})
        (result,) = correct(author, Verifier({"q": "3"}), ["q"], 9)
        feedback = ["more than 0", "more than 1", "more than 2"]
        assert_refinement(result, ["0", "1", "2", "3"], feedback, True, "a question that takes three rounds")
        assert_equal(author.engine.usage.requests, 4, "the number of requests")

    def test_last_answer_is_verified(self):
        """The answer of the last round is verified like all others, and accepted or not.

        After max_rounds refinements there are max_rounds + 1 answers to verify.
        """
        for right, accepted in (("2", True), ("3", False)):
            (result,) = correct(Author({}), Verifier({"q": right}), ["q"], 2)
            feedback = ["more than 0", "more than 1"] + ([] if accepted else ["more than 2"])
            assert_refinement(result, ["0", "1", "2"], feedback, accepted, f"a question answered by {right}")
        (result,) = correct(Author({}), Verifier({"q": "0"}), ["q"], 0)
        assert_refinement(result, ["0"], [], True, "a question without rounds")

    def test_each_question_ends_for_itself(self):
        """A question that is accepted is left out of later calls; all others share the calls of a round.

        Keep the indices of the answers that were rejected.
        """
        right = {"w": "2", "x": "0", "y": "9", "z": "1"}
        for order in (["w", "x", "y", "z"], ["y", "z", "w", "x"]):
            author = Author({})
            results = correct(author, Verifier(right), order, 3)
            for question, result in zip(order, results, strict=True):
                last = min(int(right[question]), 3)
                answers = [str(i) for i in range(last + 1)]
                feedback = [f"more than {i}" for i in range(last)] + (["more than 3"] if question == "y" else [])
                assert_refinement(result, answers, feedback, question != "y", question)
            assert_equal(
                [len(call) for call in author.engine.calls], [4, 3, 2, 1], "the number of prompts of each call"
            )

    def test_verifier_is_asked_once_for_each_answer(self):
        """The verifier is asked once for each answer, with the question and that answer.

        Verifiers may be costly: do not ask again for answers that it has accepted.
        """
        verifier = Verifier({"w": "2", "x": "0"})
        correct(Author({}), verifier, ["w", "x"], 5)
        expected = [("w", "0"), ("w", "1"), ("w", "2"), ("x", "0")]
        assert_equal(sorted(verifier.asked), expected, "what the verifier was asked")

    def test_feedback_may_be_empty(self):
        """Feedback without words rejects an answer; only None accepts it.

        Compare with None: an empty text is false in a condition.
        """
        script = {"<d>q": ["u"], "<r>q;u;": ["v"]}
        verdicts = {"u": "", "v": None}
        (result,) = refinement.self_correct(
            ScriptedEngine(script), ["q"], TEMPLATES, lambda q, answer: verdicts[answer], max_rounds=2, params=PARAMS
        )
        assert_refinement(result, ["u", "v"], [""], True, "a question")

    def test_settings(self):
        """All requests have the parameters given, no questions need no call, and negative rounds raise ValueError.

        Pass `params` on, and leave empty calls out.
        """
        author = Author({})
        correct(author, Verifier({"q": "1"}), ["q"], 4)
        assert_equal(author.engine.params, [PARAMS] * 2, "the parameters of the requests")
        assert_equal(list(correct(author, Verifier({}), [], 4)), [], "the refinements of no questions")
        assert_equal(len(author.engine.calls), 2, "the number of calls")
        with pytest.raises(ValueError):
            correct(author, Verifier({}), ["q"], -1)


class TestTransitionStatistics:
    """What a round does to answers."""

    def test_all_steps_count_alike(self):
        """Each step counts once, whatever the length of its trajectory, and none leads from one question to another.

        Pool the steps of all trajectories before you divide; every step counts, not only the first or the last.
        """
        trajectories = [
            [False, False, True, True, True, False],
            [True, True],
            [False, True, False],
            [False],
            [False, False, False],
        ]  # from correct: T T F, T, F; from wrong: F T, T, F F
        statistics = refinement.transition_statistics(trajectories)
        assert_close(statistics.stays_correct, 3 / 5, 1e-9, "P(next correct | correct)")
        assert_close(statistics.becomes_correct, 2 / 5, 1e-9, "P(next correct | wrong)")

    def test_the_two_shares(self):
        """Each share is conditional on the answer before the step.

        Divide by the number of steps that begin at a correct (or at a wrong) answer.
        """
        for trajectories, stays, becomes in (
            ([[True, True, True, False, False]], 2 / 3, 0.0),
            ([[False, True, True], [False, False]], 1.0, 1 / 2),
            ([[True, False], [True, False], [True, True], [False, True]], 1 / 3, 1.0),
        ):
            statistics = refinement.transition_statistics(trajectories)
            assert_close(statistics.stays_correct, stays, 1e-9, f"P(next correct | correct) of {trajectories}")
            assert_close(statistics.becomes_correct, becomes, 1e-9, f"P(next correct | wrong) of {trajectories}")

    def test_nothing_to_see(self):
        """A share without any step to see it on is None, not zero.

        Trajectories of one answer have no steps, and those that ended early have no further ones.
        """
        for trajectories, stays, becomes in (([], None, None), ([[True], [False]], None, None)):
            statistics = refinement.transition_statistics(trajectories)
            assert_equal(statistics.stays_correct, stays, f"P(next correct | correct) of {trajectories}")
            assert_equal(statistics.becomes_correct, becomes, f"P(next correct | wrong) of {trajectories}")
        statistics = refinement.transition_statistics([[False, False], [False]])
        assert_equal(statistics.stays_correct, None, "P(next correct | correct)")
        assert_close(statistics.becomes_correct, 0.0, 1e-9, "P(next correct | wrong)")
        statistics = refinement.transition_statistics([[False, True], [False, False, False, True]])
        assert_equal(statistics.stays_correct, None, "P(next correct | correct)")
        assert_close(statistics.becomes_correct, 1 / 2, 1e-9, "P(next correct | wrong)")


class TestPredictedAccuracy:
    """The accuracy after some rounds."""

    def test_rounds(self):
        """A round keeps the share stays_correct of what is correct, and adds becomes_correct of what is wrong.

        Both terms belong to every round, and each round begins where the one before it ended.
        """
        for accuracy, stays, becomes, expected in (
            (0.4, 0.8, 0.5, [0.4, 0.62, 0.686, 0.7058]),
            (0.9, 0.7, 0.1, [0.9, 0.64, 0.484, 0.3904]),
            (0.5, 0.1, 0.9, [0.5, 0.5, 0.5, 0.5]),
            (0.2, 0.25, 0.75, [0.2, 0.65, 0.425, 0.5375]),
        ):
            for rounds, value in enumerate(expected):
                actual = refinement.predicted_accuracy(accuracy, stays, becomes, rounds)
                assert_close(actual, value, 1e-9, f"the accuracy of {accuracy, stays, becomes} after {rounds} rounds")

    def test_extreme_shares(self):
        """The shares may be zero or one: nothing changes, all is right, or right and wrong change places.

        A closed form with 1 - stays_correct + becomes_correct below the line divides by zero where nothing changes.
        """
        for stays, becomes, expected in ((1.0, 0.0, 0.3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.7)):
            actual = refinement.predicted_accuracy(0.3, stays, becomes, 3)
            assert_close(actual, expected, 1e-9, f"the accuracy with {stays, becomes}")

    def test_settings(self):
        """The accuracy tends to becomes_correct / (1 - stays_correct + becomes_correct), and other values are refused.

        Probabilities are from 0 to 1, rounds are not negative.
        """
        for start in (0.0, 0.35, 1.0):
            actual = refinement.predicted_accuracy(start, 0.7, 0.2, 300)
            assert_close(actual, 0.4, 1e-9, f"the accuracy in the end from {start}")
        for arguments in ((-0.1, 0.5, 0.5, 1), (0.5, 1.1, 0.5, 1), (0.5, 0.5, -0.2, 1), (0.5, 0.5, 0.5, -1)):
            with pytest.raises(ValueError):
                refinement.predicted_accuracy(*arguments)
