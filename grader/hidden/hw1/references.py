"""What references of homework 1 give on a real model, for the hidden tests that compare with it."""

from collections.abc import Callable, Sequence
from typing import Any

from grader.assignment import UnusableInput
from grader.goldens.near_ties import decided, record_near_ties
from grader.goldens.prepare import Reference, Subject
from grader.goldens.recording import Recorder, ScriptedDraws, Unusable
from grader.goldens.tolerances import ARITHMETIC
from grader.reference.hw1 import beam_search as search
from grader.reference.hw1 import sampling, scoring
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import TorchRandomness


def log_probabilities(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Score a continuation of a text.

    The engine's own log-likelihood must agree. Raises UnusableInput when it does not.
    """
    text, continuation = given["text"], given["continuation"]
    recorder = Recorder(subject.model)
    x, both = subject.model.encode(text), subject.model.encode(text + continuation)
    if both[: len(x)] != x:
        raise Unusable(f"the tokens of {text!r} change when {continuation!r} follows")
    y = both[len(x) :]
    logprob = float(scoring.conditional_logprobs(recorder, [x], [y])[0])
    (told,) = subject.engine.loglikelihood([text], [continuation])
    if abs(told.total - logprob) > subject.tolerance * len(y):
        raise UnusableInput(
            f"{subject.engine.name} contradicts itself: log P({continuation!r}) is {told.total:.4f} by loglikelihood, "
            f"{logprob:.4f} by its distributions of the next token"
        )
    return {"x": x, "y": y, "logprob": logprob, "recording": recorder.recording}


def greedy(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Continue a text greedily."""
    recorder = Recorder(subject.model)
    x, max_tokens = subject.model.encode(given["text"]), given["max_tokens"]
    tokens = search.greedy_search(recorder, x, max_tokens=max_tokens)
    record_near_ties(recorder, x, max_tokens, ARITHMETIC)
    return {"x": x, "max_tokens": max_tokens, "tokens": tokens, "recording": recorder.recording}


def beams(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Search for the best continuations of a text with a beam."""
    recorder = Recorder(subject.model)
    x = subject.model.encode(given["text"])
    settings = {name: given[name] for name in ("num_beams", "max_tokens", "length_penalty")}

    def run(model: LanguageModel) -> list[list[int]]:
        return [hypothesis.tokens for hypothesis in search.beam_search(model, x, **settings)]

    decided(run, recorder)
    found = [(h.tokens, h.logprob, h.score) for h in search.beam_search(recorder, x, **settings)]
    return {"x": x, "settings": settings, "found": found, "recording": recorder.recording}


def sampled(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Sample continuations of texts, and keep what each token was drawn from."""
    recorder = Recorder(subject.model)
    x = [subject.model.encode(text) for text in given["texts"]]
    settings = {"max_tokens": given["max_tokens"], "filters": right_filters(given["filters"])}
    draws = _Draws(given["seed"])
    y = sampling.generate(recorder, x, rng=draws, **settings)
    seen = ScriptedDraws(draws.script)

    def run(model: LanguageModel) -> list[list[list[bool]]]:
        again = ScriptedDraws(draws.script)
        sampling.generate(model, x, rng=again, **settings)
        return [(probs > 0).tolist() for probs in again.probs]

    decided(run, recorder)
    sampling.generate(recorder, x, rng=seen, **settings)
    kept = {name: given[name] for name in ("max_tokens", "filters")}
    return {**kept, "x": x, "y": y, "script": draws.script, "probs": seen.probs, "recording": recorder.recording}


def right_filters(named: Sequence[tuple[str, float]]) -> list[sampling.Filter]:
    """Return right filters by the names of their parameters."""
    known: dict[str, Callable[[Any, float], Any]] = {
        "temperature": sampling.apply_temperature,
        "top_p": sampling.top_p_filter,
        "min_p": sampling.min_p_filter,
    }
    return [lambda logits, name=name, setting=setting: known[name](logits, setting) for name, setting in named]


class _Draws(TorchRandomness):
    """Draws, and keeps what came."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.script: list[list[int]] = []

    def categorical(self, probs: Any) -> Any:
        drawn = super().categorical(probs)
        self.script.append(drawn.tolist())
        return drawn


TEXTS = [
    "The wind was cold that day.",
    "Ann has 3 apples and buys 14 more. How many has she?",
    "Once",
    "In the garden lay a silver map. Nobody knew",
]
REFERENCES = [
    Reference(
        log_probabilities,
        [
            {"text": "The wind was cold", "continuation": " that day. There was a contest in the garden."},
            {"text": "Ann has 3 apples and buys 14 more.", "continuation": "\n3+14=17\n#### 17"},
            {"text": "One", "continuation": " day a frog came to the school and asked for the brown key."},
            {"text": "12*3", "continuation": "=36"},
        ],
    ),
    Reference(greedy, [{"text": text, "max_tokens": 24} for text in TEXTS]),
    Reference(
        beams,
        [
            {"text": text, "num_beams": num_beams, "max_tokens": 8, "length_penalty": length_penalty}
            for text in TEXTS
            for num_beams, length_penalty in ((3, 0.0), (4, 1.0))
        ],
    ),
    Reference(
        sampled,
        [
            {"texts": TEXTS[:2], "max_tokens": 20, "filters": filters, "seed": seed}
            for seed in range(2)
            for filters in ([], [("temperature", 0.7)], [("temperature", 1.3), ("top_p", 0.8)], [("min_p", 0.05)])
        ],
    ),
]
