"""The engine that answers from a script: replies in order, cut as a model's would be, everything asked kept."""

import pytest

from shared_tasks.models.engine import Engine, SamplingParams
from shared_tasks.models.scripted import ScriptedEngine


def test_replies_of_a_prompt_are_given_out_in_order_and_once() -> None:
    """A table's replies are given out n at a request, and a request for more than it has is refused."""
    engine = ScriptedEngine({"q": ["one", ("two words", [-1.0, -2.0]), "three"], "r": ["other"]})
    assert isinstance(engine, Engine)
    first, other = engine.generate(["q", "r"], [SamplingParams(n=2), SamplingParams()])
    assert [c.text for c in first.completions] == ["one", "two words"]
    assert [c.cumulative_logprob for c in first.completions] == [0.0, -3.0]
    assert other.completions[0].text == "other"
    chat = [{"role": "user", "content": "q"}]
    assert engine.generate([chat], SamplingParams())[0].completions[0].text == "three"
    with pytest.raises(ValueError, match="replies"):
        engine.generate(["q"], SamplingParams())
    assert engine.calls[:2] == [["q", "r"], [chat]]
    assert (engine.usage.requests, engine.usage.prompt_tokens, engine.usage.generated_tokens) == (3, 3, 5)


@pytest.mark.parametrize(
    ("max_tokens", "stop", "text", "tokens", "reason"),
    [
        (9, (), "a b <end> c", 4, "stop"),
        (2, (), "a b", 2, "length"),
        (9, ("<end>",), "a b ", 3, "stop"),
        (3, ("<end>",), "a b ", 3, "stop"),
        (2, ("<end>",), "a b", 2, "length"),
    ],
)
def test_replies_are_cut(max_tokens: int, stop: tuple[str, ...], text: str, tokens: int, reason: str) -> None:
    """max_tokens counts words, the stop string's included; the text is cut before the stop string."""
    engine = ScriptedEngine(lambda prompt, params: ["a b <end> c"])
    (generation,) = engine.generate(["q"], SamplingParams(max_tokens=max_tokens, stop=stop))
    completion = generation.completions[0]
    assert (completion.text, len(completion.token_ids), completion.finish_reason) == (text, tokens, reason)


def test_log_likelihoods_come_from_the_function() -> None:
    """Every pair is scored by the given function, and kept."""
    engine = ScriptedEngine({}, logprobs=lambda context, continuation: [-1.0, -float(len(continuation))])
    assert [result.total for result in engine.loglikelihood(["q", "q"], ["a", "abc"])] == [-2.0, -4.0]
    assert engine.scored == [[("q", "a"), ("q", "abc")]]
