"""What outputs are worth: numbers, expressions, choices, instructions and references."""

import math

import pytest

from shared_tasks.models.engine import LogLikelihood
from shared_tasks.tasks.mathematical_reasoning import Problem
from shared_tasks.tasks.multiple_choice import Question, softmax
from shared_tasks.tasks.open_ended import Instruction
from shared_tasks.tasks.registry import find_task
from shared_tasks.tasks.task import Output, Scored


def outputs(*texts: str) -> list[Output]:
    return [Output(text, logprob=-float(len(text)), tokens=1) for text in texts]


class TestNumbers:
    @pytest.mark.parametrize(
        ("text", "parsed", "score"),
        [
            ("#### 18", "18", 1),
            ("She earns $18.00.", "18", 1),
            ("\\boxed{18}", "18", 1),
            ("#### 17.5", "17.5", 0),
            ("#### 1/3", "1/3", 0),
            ("I cannot tell.", None, 0),
            ("<think>#### 18</think>#### 17", "17", 0),
            ("<think>#### 18", None, 0),
        ],
    )
    def test_the_last_number_is_the_answer(self, text: str, parsed: str | None, score: float) -> None:
        """Equal numbers are written alike, reasoning is no answer, and no answer is wrong."""
        result = find_task("gsm8k").score(Problem(question="Q", answer="18"), outputs(text))
        assert (result.parsed, result.score) == ([parsed], score)

    def test_samples_vote(self) -> None:
        """Of 18, 18.0, none and 7 two are right: pass@2 = 1 - 1/6, and the vote of all four is right."""
        result = find_task("gsm8k").score(Problem(question="Q", answer="18"), outputs("18", "18.0", "none", "7"))
        assert result.values["accuracy"] == 0.5
        assert result.values["pass@2"] == pytest.approx(5 / 6)
        assert result.values["maj@4"] == 1
        assert result.values["no_answer"] == 0.25

    def test_log_probability_chooses(self) -> None:
        """best@2 takes the output with the highest log-probability; with one output there is nothing to choose."""
        task, item = find_task("gsm8k"), Problem(question="Q", answer="18")
        assert task.score(item, outputs("18", "it is 7")).values["best@2"] == 1
        assert task.score(item, outputs("it is 18", "7")).values["best@2"] == 0
        assert "best@2" not in task.score(item, [Output("18"), Output("7")]).values
        assert set(task.score(item, outputs("18")).values) == {"accuracy", "no_answer"}


class TestExpressions:
    def test_equal_expressions_are_right_and_vote_together(self) -> None:
        """pi/2 and its LaTeX are one answer, and outvote an answer that stands twice."""
        item = Problem(question="Q", answer="\\frac{\\pi}{2}")
        texts = ["\\boxed{pi/2}", "\\boxed{\\frac{\\pi}{2}}", "\\boxed{\\frac{2\\pi}{4}}", "\\boxed{3}", "\\boxed{3}"]
        result = find_task("math500").score(item, outputs(*texts))
        assert result.correct == [True, True, True, False, False]
        assert result.values["maj@5"] == 1


class TestChoices:
    item = Question(question="Q", choices=["a cat", "an oak", "a stone"], right=1, labels=["1", "2", "3"])

    @pytest.mark.parametrize(
        ("text", "parsed"),
        [
            ("The answer is (B).", "B"),
            ("The answer is (2).", "B"),
            ("The answer is an oak.", "B"),
            ("(A)… wait, the answer is (C).", "C"),
            ("The answer is Because of gravity", None),
            ("<think>The answer is (B).", None),
        ],
    )
    def test_letters_labels_and_texts_are_read(self, text: str, parsed: str | None) -> None:
        """A letter of the prompt, a label of the data set or the text of an option is an answer; nothing is guessed."""
        result = find_task("arc").score(self.item, outputs(text))
        assert (result.parsed, result.score) == ([parsed], float(parsed == "B"))

    def test_the_share_of_samples_that_agree_is_the_confidence(self) -> None:
        """Three of four samples say B: the confidence is 3/4, and it is right."""
        result = find_task("arc").score(self.item, outputs("(B)", "(B)", "(C)", "(B)"))
        assert (result.details["confidence"], result.details["confident_and_right"]) == (0.75, True)

    def test_probabilities_are_among_the_options(self) -> None:
        """Log-likelihoods become probabilities among the options, however small they are."""
        assert softmax([-1000.0, -1000.0 - math.log(3)]) == pytest.approx([0.75, 0.25])

    def test_calibration_is_measured(self) -> None:
        """Always sure and right three times of four: ECE and Brier are 1/4, MacroCE is 1/2."""
        task = find_task("arc")
        scores = [
            Scored(
                score=float(right), parsed=[], values={}, details={"confidence": 1.0, "confident_and_right": right}
            )
            for right in (True, True, True, False)
        ]  # fmt: skip
        metrics = task.metrics([self.item] * 4, [[]] * 4, scores)
        assert {name: metric.value for name, metric in metrics.items()} == {"ece": 0.25, "macro_ce": 0.5, "brier": 0.25}
        assert all(metric.standard_error is not None for metric in metrics.values())

    def test_options_are_normalised_in_three_ways(self) -> None:
        """Plain, per character and per byte may choose three different options."""
        options = [LogLikelihood(logprobs=[total], is_greedy=False) for total in (-3.0, -5.0, -8.0)]
        task, right = find_task("mmlu"), []
        for place in range(3):
            item = Question(question="Q", choices=["ab", "é" * 4, "abcdefgh"], right=place)
            values = task.score_options(item, "direct", options).values
            right.append([name for name, value in values.items() if value])
            assert list(task.score_options(item, "letter", options).values) == ["accuracy"]
        assert right == [["accuracy"], ["accuracy_per_byte"], ["accuracy_per_character"]]


class TestInstructions:
    item = Instruction(
        question="Q",
        instructions=["punctuation:no_comma", "keywords:existence"],
        arguments=[{}, {"keywords": ["fox"]}],
    )

    def test_an_output_is_right_that_follows_all(self) -> None:
        """Strict wants every instruction followed; loose forgives a first line."""
        task = find_task("ifeval")
        assert task.score(self.item, outputs("A fox.")).score == 1
        result = task.score(self.item, outputs("Sure, here it is:\nA fox."))
        assert (result.score, result.values["prompt_level_loose_acc"]) == (0, 1)
        assert (result.details["strict"], result.details["loose"]) == ([[False, True]], [[True, True]])

    def test_instructions_count_over_the_whole_set(self) -> None:
        """One of two and two of two instructions followed: three of four, whatever the prompts."""
        task = find_task("ifeval")
        texts = [["No, nothing."], ["A fox."]]
        scores = [task.score(self.item, outputs(*several)) for several in texts]
        metrics = task.metrics([self.item] * 2, texts, scores)
        assert metrics["inst_level_strict_acc"].value == 0.5
        assert metrics["inst_level_strict_acc"].standard_error == pytest.approx(math.sqrt(2) / 4)

    def test_a_checker_chooses_among_samples(self) -> None:
        """With samples, pass@k says how often one of k follows all; there is no vote on texts."""
        result = find_task("ifeval").score(self.item, outputs("A fox.", "A hen."))
        assert (result.score, result.values["pass@2"]) == (0.5, 1)
        assert not any(name.startswith("maj@") for name in result.values)


class TestReferences:
    item = Instruction(question="Q", references=["the cat sat on the mat", "a cat was on the mat"])

    def test_the_best_reference_counts(self) -> None:
        """A text that is one of its references scores fully, and ROUGE-L is the score."""
        task = find_task("open_ended")
        result = task.score(self.item, outputs("a cat was on the mat"))
        assert result.score == pytest.approx(1)
        assert (result.values["rougeL"], result.values["sentence_bleu"]) == (pytest.approx(100), pytest.approx(100))

    def test_the_corpus_has_signatures(self) -> None:
        """BLEU and chrF of all texts come with the signature that makes them comparable."""
        task, texts = find_task("open_ended"), [["a cat was on the mat"], ["the dog"]]
        scores = [task.score(self.item, outputs(*several)) for several in texts]
        metrics = task.metrics([self.item] * 2, texts, scores)
        assert metrics["bleu"].note.startswith("BLEU|nrefs:2")
        assert 0 < metrics["chrf"].value < 100
        assert metrics["rougeL"].value == pytest.approx((scores[0].values["rougeL"] + scores[1].values["rougeL"]) / 2)

    def test_without_anything_known_only_lengths_and_diversity_remain(self) -> None:
        """A plain prompt has no score; samples that are alike have no diversity."""
        task, item = find_task("open_ended"), Instruction(question="Q")
        result = task.score(item, outputs("one two three four five", "one two three four five"))
        assert result.score is None
        assert (result.values["words"], result.values["self_bleu"]) == (5, pytest.approx(100))
        assert result.values["pairwise_diversity"] == pytest.approx(0)

    def test_a_conversation_needs_an_output_for_each_turn(self) -> None:
        """A conversation of two turns has two outputs."""
        item = Instruction(question="Q", further=["R"])
        assert find_task("mt_bench").score(item, outputs("a b", "c d")).values == {"words": 2}
        with pytest.raises(ValueError, match="expected an output for each of 2 turns, got 1"):
            find_task("mt_bench").score(item, outputs("a"))
