"""The page about a run: complete, self-contained, and safe whatever a model says."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from shared_tasks.evaluation.evaluate import Choice, Sample, Tokens
from shared_tasks.evaluation.page import MOST_SAMPLES, page, visible_text
from shared_tasks.evaluation.run import Run
from shared_tasks.models.engine import SamplingParams
from shared_tasks.tasks.task import Metric

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</style><script>alert(1)</script>",
    "{{ 7 * 191 }}{% for x in y %}",
    "\x1b[31mred\x1b[0m \x00 \x07 \u202egnp.exe \ud800",
]


def a_run(samples: list[Sample], **changes: Any) -> Run:
    metrics = {"accuracy": Metric(0.25, 0.125, 8), "pass@2": Metric(0.5, 0.1, 8), "words": Metric(17, 1, 8, False)}
    about: dict[str, Any] = {
        **{
            "task": "gsm8k",
            "split": "test",
            "model": "course-small",
            "engine": "transformers",
            "fingerprint": "f" * 64,
        },
        **{"method": "sample", "style": "cot", "chat": True, "shots": 0, "params": SamplingParams(n=2)},
        **{"items": len(samples), "done": len(samples), "headline": "accuracy", "metrics": metrics},
    }
    return Run(**about | changes)


def a_sample(index: int, score: float | None, **changes: Any) -> Sample:
    about: dict[str, Any] = {
        **{
            "index": index,
            "id": f"id-{index}",
            "group": "",
            "question": f"Question {index}?",
            "prompt": f"Prompt {index}",
        },
        **{"gold": "7", "parsed": ["7", None], "score": score, "values": {}, "correct": [True, False]},
        **{"outputs": [f"First {index}", f"Second {index}"], "logprobs": [-1.5, None], "output_tokens": [12, 34]},
        **{"finish_reasons": ["stop", "length"], "tokens": Tokens(1, 46, 50), "latency": 0.5},
    }
    return Sample(**about | changes)


class Reader(HTMLParser):
    """Collects the tags, their attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data


def test_the_page_shows_what_was_measured() -> None:
    """Metrics stand with their errors, samples with prompt, outputs, answers, tokens and log-probabilities."""
    samples = [a_sample(0, 0.5)]
    text = " ".join(Reader(page(a_run(samples), samples)).text.split())
    for part in ("25.0 %", "± 12.5", "pass@2", "50.0 %", "17.00", "Prompt 0", "First 0", "Second 0", "12 tokens",
                 "log P -1.50", "cut off", "1 of 2 right", "answer 7", "no answer"):  # fmt: skip
        assert part in text, part


def test_wrong_ones_come_first() -> None:
    """Samples stand by their score, the lowest first, those that could not be scored last."""
    samples = [a_sample(0, 1.0), a_sample(1, None), a_sample(2, 0.0), a_sample(3, 0.5)]
    html = page(a_run(samples), samples)
    assert re.findall(r"Prompt (\d)", html) == ["2", "3", "0", "1"]
    assert re.findall(r'data-state="(\w+)" data-group', html) == ["wrong", "part", "right", "unscored"]


def test_options_stand_with_their_probabilities() -> None:
    """Log-likelihoods of -1 and -1 - log 3 are probabilities of 75 % and 25 %."""
    choices = [Choice("a cat", -1.0, 2), Choice("an oak", -2.0986122886681098, 2)]
    nothing: dict[str, Any] = {"outputs": [], "logprobs": [], "output_tokens": [], "finish_reasons": []}
    sample = a_sample(0, 1.0, choices=choices, parsed=["A"], gold="A", correct=[True], **nothing)
    text = " ".join(Reader(page(a_run([sample], method="loglikelihood"), [sample])).text.split())
    assert "A a cat ✓ -1.00 75 % B an oak -2.10 25 %" in text


def test_an_unfinished_run_says_so() -> None:
    """A page about an interrupted run says how far it came."""
    samples = [a_sample(0, 1.0)]
    assert "Not finished: 1 of 9 items" in page(a_run(samples, items=9), samples)


def test_a_run_without_samples_has_a_page() -> None:
    """A run that was interrupted at once has a page too."""
    assert "None yet." in page(a_run([], metrics={}, headline=None), [])


def test_calibration_and_curves_are_drawn_where_there_is_something_to_draw() -> None:
    """The reliability plot needs confidences, the curve several numbers of samples, the histogram lengths."""
    plain = [a_sample(i, 1.0) for i in range(4)]
    assert "Calibration" not in page(a_run(plain), plain)
    confident = [a_sample(i, 1.0, details={"confidence": 0.2 * i, "confident_and_right": i > 1}) for i in range(4)]
    html = page(a_run(confident), confident)
    assert "Calibration" in html
    assert "Over the number of samples" in html
    assert 'aria-label="pass@1: 25.0 %; pass@2: 50.0 %; "' in html
    assert "12 to 12 tokens: 4;" in html


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_a_model_says_is_run(text: str) -> None:
    """Whatever stands in prompts, outputs, names and details is shown and not run."""
    fields = {
        "question": text,
        "gold": text,
        "id": text,
        "group": text,
        "outputs": [text, text],
        "parsed": [text, text],
    }
    samples = [a_sample(0, 0.0, prompt=[{"role": text, "content": text}], details={"said": text}, **fields)]
    html = page(a_run(samples, model=text, task=text, notes=[text]), samples)
    clean = page(a_run([a_sample(0, 0.0)]), [a_sample(0, 0.0)])
    assert [tag for tag, _ in Reader(html).tags].count("script") == [tag for tag, _ in Reader(clean).tags].count(
        "script"
    )
    assert not any(name.startswith("on") for _, attributes in Reader(html).tags for name in attributes)
    assert "1337" not in html
    html.encode("utf-8")
    assert not set("\x00\x07\x1b\u202e") & set(html)


def test_the_page_needs_nothing_from_outside() -> None:
    """The policy allows only the page's own style and script, by their hashes, and nothing is referred to."""
    samples = [a_sample(0, 1.0)]
    html = page(a_run(samples), samples)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    for tag in ("style", "script"):
        source = re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        assert source is not None
        digest = base64.b64encode(hashlib.sha256(source[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    attributes = {name for _, attributes in Reader(html).tags for name in attributes}
    assert not attributes & {"src", "href", "style", "action", "data"}
    assert not re.search(r"url\(|@import|https?:", html)


def test_a_long_run_shows_its_worst_part() -> None:
    """A page holds so many samples at most, the wrong ones first, and says that it left some out."""
    samples = [
        a_sample(i, float(i < 5), outputs=[], correct=[], output_tokens=[], logprobs=[])
        for i in range(MOST_SAMPLES + 5)
    ]
    html = page(a_run(samples), samples)
    assert html.count('<details class="sample') == MOST_SAMPLES
    assert "others are in samples.jsonl" in html
    assert ">Prompt 0<" not in html


def test_long_texts_are_cut() -> None:
    """A text without end is cut, and the page says by how much."""
    assert visible_text("x" * 9_000).endswith("… and 1,000 more characters")
