"""What of a response is reasoning."""

import pytest

from shared_tasks.metrics.reasoning import strip_reasoning


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>6 · 7</think>42", "42"),
        ("<think>\nfirst\n</think>\n\nThe answer is 42.\n", "The answer is 42."),
        ("So <think>a</think>42<think>b</think>.", "So 42."),
        ("reasoning that began in the prompt</think> 42", "42"),
        ("<think>a<think>b</think>c</think>42", "42"),
        ("42", "42"),
        ("", ""),
    ],
)
def test_reasoning_is_removed(text: str, answer: str) -> None:
    """What stands between the tags, or before a closing tag alone, is no part of the answer."""
    assert strip_reasoning(text) == answer


@pytest.mark.parametrize(
    "text", ["<think>The answer is 42.", "The answer is 42. <think>", "<think>a</think>42<think>b"]
)
def test_an_unclosed_block_leaves_nothing(text: str) -> None:
    """A response that was still reasoning has no answer, even if one stands before or within the reasoning."""
    assert strip_reasoning(text) == ""
