"""From a few words on the command line to what is run."""

import pytest

from shared_tasks.evaluation.plan import make_plan
from shared_tasks.tasks.registry import find_task

MATH, CHOICES, WRITING, TALKS = (find_task(name) for name in ("math", "multiple_choice", "open_ended", "mt_bench"))


@pytest.mark.parametrize(
    ("task", "said", "style", "method", "n", "temperature"),
    [
        (MATH, {}, "cot", "greedy", 1, 0),
        (MATH, {"method": "greedy"}, "cot", "greedy", 1, 0),
        (MATH, {"method": "cot"}, "cot", "greedy", 1, 0),
        (MATH, {"method": "direct"}, "direct", "greedy", 1, 0),
        (MATH, {"method": "sample"}, "cot", "sample", 1, 0.7),
        (MATH, {"method": "sample", "n": 4, "temperature": 1.0}, "cot", "sample", 4, 1.0),
        (MATH, {"method": "direct", "n": 4}, "direct", "sample", 4, 0.7),
        (MATH, {"temperature": 0.5}, "cot", "sample", 1, 0.5),
        (MATH, {"method": "majority"}, "cot", "majority", 16, 0.7),
        (MATH, {"method": "majority", "style": "direct", "n": 8}, "direct", "majority", 8, 0.7),
        (CHOICES, {}, "direct", "loglikelihood", 1, 0),
        (CHOICES, {"method": "letter"}, "letter", "loglikelihood", 1, 0),
        (CHOICES, {"method": "cot"}, "cot", "greedy", 1, 0),
        (CHOICES, {"method": "greedy"}, "cot", "greedy", 1, 0),
        (CHOICES, {"method": "greedy", "style": "letter"}, "letter", "greedy", 1, 0),
        (CHOICES, {"method": "cot", "n": 8}, "cot", "sample", 8, 0.7),
        (WRITING, {}, "direct", "greedy", 1, 0),
        (WRITING, {"method": "best_of_n", "n": 4}, "direct", "best_of_n", 4, 0.7),
        (TALKS, {"method": "sample"}, "direct", "sample", 1, 0.7),
    ],
)
def test_what_is_left_open_is_chosen(task, said, style, method, n, temperature) -> None:
    """A method may name a prompt; options are compared unless something is generated; n or a temperature sample."""
    plan = make_plan(task, **said)
    assert (plan.style, plan.method, plan.params.n, plan.params.temperature) == (style, method, n, temperature)


@pytest.mark.parametrize(
    ("task", "said", "message"),
    [
        (
            MATH,
            {"method": "beam"},
            "math has no method 'beam'; there are: greedy, sample, majority, best_of_n, cot, direct",
        ),
        (MATH, {"style": "letter"}, "math has no prompt 'letter'; there are: cot, direct"),
        (MATH, {"method": "cot", "style": "direct"}, "two prompts were asked for: cot and direct"),
        (MATH, {"method": "greedy", "n": 4}, "for n samples at a temperature use --method sample"),
        (MATH, {"method": "greedy", "temperature": 0.7}, "use --method sample"),
        (MATH, {"method": "sample", "temperature": 0}, "expected a temperature above 0"),
        (MATH, {"method": "loglikelihood"}, "math has no options to compare"),
        (CHOICES, {"method": "loglikelihood", "style": "cot"}, "no options to compare when asked by cot"),
        (CHOICES, {"method": "loglikelihood", "n": 2}, "one answer a question"),
        (WRITING, {"method": "majority"}, "no majority can agree"),
        (TALKS, {"method": "sample", "n": 2}, "a conversation of 2 turns: expected n to be 1"),
        (TALKS, {"method": "best_of_n"}, "a conversation of 2 turns: expected n to be 1"),
        (MATH, {"method": "sample", "top_p": 0}, "top_p: expected above 0 and at most 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(task, said, message) -> None:
    """Unknown names and parts that contradict each other are refused, with what to do instead."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make_plan(task, **said)


def test_plain_text_stops_before_the_next_question() -> None:
    """A model without a chat template is stopped where it begins to ask itself a question."""
    plan = make_plan(MATH).as_plain_text()
    assert (plan.chat, plan.params.stop) == (False, ("\nQuestion:",))
