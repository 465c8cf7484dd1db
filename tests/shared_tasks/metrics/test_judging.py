"""A language model as the judge: what it is asked, how its replies are read, what is kept."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from shared_tasks.metrics.judging import (
    Judge,
    Preference,
    compare_pairs,
    length_controlled_win_rate,
    parse_preference,
    parse_rating,
    parse_yes_no,
    requirements_followed,
    requirements_following_ratio,
    rubric_scores,
    win_rate,
)
from shared_tasks.models.engine import Completion, Generation, LogLikelihood, Prompt, SamplingParams, Usage
from tests.shared_tasks.metrics.public_data import rows


class ScriptedEngine:
    """Replies as a function of the prompt, and remembers what it was asked."""

    name = "scripted"
    has_chat_template = True

    def __init__(self, reply: Callable[[str], str], content: str = "1"):
        self.reply = reply
        self.content = content
        self.usage = Usage()
        self.prompts: list[Prompt] = []

    def fingerprint(self) -> str:
        return self.content

    def count_tokens(self, prompt: Prompt, continuation: str = "") -> int:
        return 1

    def generate(
        self,
        prompts: Sequence[Prompt],
        params: SamplingParams | Sequence[SamplingParams],
        on_done: Callable[[int, Generation], None] | None = None,
    ) -> list[Generation]:
        done = []
        for index, prompt in enumerate(prompts):
            self.prompts.append(prompt)
            text = self.reply(prompt if isinstance(prompt, str) else prompt[-1]["content"])
            done.append(Generation(1, [Completion(text, [1], [0.0], "stop")], latency=0.0))
            if on_done:
                on_done(index, done[-1])
        return done

    def loglikelihood(
        self,
        contexts: Sequence[Prompt],
        continuations: Sequence[str],
        on_done: Callable[[int, LogLikelihood], None] | None = None,
    ) -> list[LogLikelihood]:
        raise AssertionError("a judge is asked in words")


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("YES", True),
        ("No.", False),
        ("**Yes**, it does", True),
        ("No, because it lacks a title", False),
        ("No the text does not", False),
        ("I think the answer is: No", False),
        ("It is a title. Answer: YES. Nothing more to say", True),
        ("It does not mention it.\n\nNO", False),
        ("Not sure", None),
        ("Nothing to say", None),
        ("None", None),
        ("No idea", None),
        ("Yes and no", None),
        ("Yesterday", None),
        ("Maybe", None),
        ("N/A", None),
        ("", None),
    ],
)
def test_yes_or_no_or_unparsed(reply: str, verdict: bool | None) -> None:
    """Only a yes is Yes and only a no is No; a reply that begins with these letters, or with both, is neither."""
    assert parse_yes_no(reply) is verdict


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("Good. [[7]]", 7),
        ("Rating: [[8.5]]", 8.5),
        ("[[3]] at first, but [[4]]", 4),
        ("Rating: 6/10", 6),
        ("**Rating: 9**", 9),
        ("The score is 10", 10),
        ("7", 7),
        ("[[11]]", None),
        ("0", None),
        ("[[3/5]]", None),
        ("I gave it 7 points", None),
        ("[[rating]]", None),
        ("", None),
    ],
)
def test_ratings(reply: str, rating: float | None) -> None:
    """The last rating on the scale counts; one beyond it, on another scale, or a number in passing is none."""
    assert parse_rating(reply) == rating


@pytest.mark.parametrize(
    ("reply", "preference"),
    [
        ("[[A]]", "first"),
        ("[[B]], no, [[A]]", "first"),
        ("[[C]]", "tie"),
        ("B", "second"),
        ("A is better", None),
        ("", None),
    ],
)
def test_preferences(reply: str, preference: Preference | None) -> None:
    """The last bracketed letter counts, or a reply that is one; a letter in passing does not."""
    assert parse_preference(reply) == preference


def test_every_requirement_is_asked_by_itself() -> None:
    """Each question is one prompt with its instruction and text; verdicts come back in the questions' order."""
    engine = ScriptedEngine(
        lambda prompt: "YES" if "a title?" in prompt else "No." if "short?" in prompt else "Not sure"
    )
    verdicts = requirements_followed(
        Judge(engine),
        ["Write a title.", "Write."],
        ["Cats", "Dogs {0}"],
        [["Is it a title?", "Is it short?"], ["Is it good?"]],
    )
    assert verdicts == [[True, False], [None]]
    assert [("Cats" in str(prompt), "Dogs {0}" in str(prompt)) for prompt in engine.prompts] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_ratio_of_followed_requirements() -> None:
    """1,971 yes of 2,250 is .876: over all questions, no mean over instructions, and unparsed ones are left out."""
    assert requirements_following_ratio([[True] * 1971, [False] * 279]).score == pytest.approx(0.876)
    ratio = requirements_following_ratio([[True, True, True], [False], [None, None]])
    assert (ratio.score, ratio.followed, ratio.not_followed, ratio.unparsed) == (0.75, 3, 1, 2)
    assert requirements_following_ratio([[None]]).score is None


def test_all_questions_of_infobench_can_be_asked() -> None:
    """The 500 instructions have 2,250 questions; a judge that answers by the first letter gets as many verdicts."""
    items = rows("infobench/infobench.jsonl")
    engine = ScriptedEngine(lambda prompt: prompt.rpartition("Question: ")[2][0].replace("I", "Yes").replace("D", "No"))
    questions = [item["decomposed_questions"] for item in items]
    texts = [f"{item['instruction']}\n\n{item['input']}" for item in items]
    ratio = requirements_following_ratio(requirements_followed(Judge(engine), texts, texts, questions))
    first = [question[0] for several in questions for question in several]
    assert ratio.followed + ratio.not_followed + ratio.unparsed == 2250
    assert (ratio.followed, ratio.not_followed) == (first.count("I"), first.count("D"))


def test_a_rubric_and_its_scale_are_in_the_prompt() -> None:
    """The judge sees rubric, scale, instruction and text, and ratings outside the scale are unparsed."""
    engine = ScriptedEngine(lambda prompt: "[[5]]" if "good text" in prompt else "[[6]]")
    scores = rubric_scores(Judge(engine), ["Do it."] * 2, ["good text", "bad text"], "Be {kind}.", lowest=1, highest=5)
    assert scores == [5.0, None]
    assert all(part in str(engine.prompts[0]) for part in ("Be {kind}.", "from 1 to 5", "Do it.", "good text"))


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (lambda prompt: "[[A]]", "tie"),
        (lambda prompt: "[[B]]", "tie"),
        (lambda prompt: "[[A]]" if prompt.index("good") < prompt.index("bad") else "[[B]]", "first"),
        (lambda prompt: "[[B]]" if prompt.index("good") < prompt.index("bad") else "[[A]]", "second"),
        (lambda prompt: "[[C]]", "tie"),
        (lambda prompt: "[[A]]" if prompt.index("good") < prompt.index("bad") else "[[C]]", "tie"),
        (lambda prompt: "[[A]]" if prompt.index("good") < prompt.index("bad") else "Both.", None),
    ],
)
def test_pairs_are_judged_in_both_orders(reply: Callable[[str], str], verdict: Preference | None) -> None:
    """Preferring a position is a tie, preferring a text in both orders a win, and a missing verdict unparsed."""
    engine = ScriptedEngine(reply)
    assert compare_pairs(Judge(engine), ["Write."], ["good"], ["bad"]) == [verdict]
    assert len(engine.prompts) == 2


def test_verdicts_are_kept_on_disk(tmp_path: Path) -> None:
    """A second judge on the same file asks nothing; another model, other parameters or another prompt ask again."""
    file = tmp_path / "verdicts.sqlite"
    first = ScriptedEngine(lambda prompt: f"<think>{prompt}</think>YES")
    assert Judge(first, file).ask(["a", "b", "a"]) == ["YES"] * 3
    assert len(first.prompts) == 2

    again = ScriptedEngine(lambda prompt: "NO")
    assert Judge(again, file).ask(["b", "c"]) == ["YES", "NO"]
    assert len(again.prompts) == 1

    other_model = ScriptedEngine(lambda prompt: "NO", content="2")
    assert Judge(other_model, file).ask(["a"]) == ["NO"]
    other_params = Judge(again, file, SamplingParams(temperature=0.0, max_tokens=5))
    assert other_params.ask(["a"]) == ["NO"]
    assert Judge(again, file, chat=False).ask(["a"]) == ["NO"]
    assert isinstance(again.prompts[-1], str)


def test_what_was_answered_before_a_crash_is_kept(tmp_path: Path) -> None:
    """Replies are stored as they come: after an engine failed at the third prompt, only that one is asked again."""
    file = tmp_path / "verdicts.sqlite"

    def failing(prompt: str) -> str:
        if prompt == "c":
            raise ConnectionError("server gone")
        return "YES"

    with pytest.raises(ConnectionError):
        Judge(ScriptedEngine(failing), file).ask(["a", "b", "c"])
    engine = ScriptedEngine(lambda prompt: "YES")
    assert Judge(engine, file).ask(["a", "b", "c"]) == ["YES"] * 3
    assert len(engine.prompts) == 1


def test_win_rate_counts_ties_half() -> None:
    """Two wins, a tie, a loss and one without a verdict: 2.5 of 4."""
    assert win_rate(["first", "first", "tie", "second", None]) == 2.5 / 4
    with pytest.raises(ValueError, match="verdict"):
        win_rate([None])


def test_equal_lengths_leave_the_win_rate() -> None:
    """Where the texts are equally long there is nothing to control for."""
    preferences: list[Preference | None] = ["first"] * 7 + ["second"] * 3
    assert length_controlled_win_rate(preferences, [5] * 10, [5] * 10) == pytest.approx(0.7, abs=1e-3)


def test_wins_by_length_alone_are_controlled_away() -> None:
    """Longer in 160 pairs a side wins 144, shorter in 40 it wins 4: .74 in all, .5 at equal length."""
    preferences: list[Preference | None] = [*["first"] * 144, *["second"] * 16, *["first"] * 4, *["second"] * 36]
    lengths, others = [200] * 160 + [100] * 40, [100] * 160 + [200] * 40
    assert win_rate(preferences) == 0.74
    assert length_controlled_win_rate(preferences, lengths, others) == pytest.approx(0.5, abs=1e-3)


def test_the_effect_of_quality_is_recovered() -> None:
    """Wins drawn from sigmoid(.5 + 1.5 · tanh(difference / σ)) in exact proportion give sigmoid(.5) at equal length."""
    preferences: list[Preference | None] = []
    lengths: list[int] = []
    for length, total in ((150, 1000), (50, 1000), (130, 500), (70, 500)):
        deviation = math.sqrt((2000 * 50**2 + 1000 * 30**2) / 3000)
        probability = 1 / (1 + math.exp(-0.5 - 1.5 * math.tanh((length - 100) / deviation)))
        wins = round(total * probability)
        preferences += ["first"] * wins + ["second"] * (total - wins)
        lengths += [length] * total
    rate = length_controlled_win_rate(preferences, lengths, [100] * len(lengths))
    assert rate == pytest.approx(1 / (1 + math.exp(-0.5)), abs=2e-3)
    assert abs(win_rate(preferences) - rate) > 0.02


def test_lists_must_fit() -> None:
    """A missing output or length is an error that names the lists."""
    judge = Judge(ScriptedEngine(lambda prompt: ""))
    with pytest.raises(ValueError, match="'outputs': 1"):
        rubric_scores(judge, ["a", "b"], ["c"], "rubric")
    with pytest.raises(ValueError, match="'lengths': 1"):
        length_controlled_win_rate(["first", "tie"], [1], [1, 2])
