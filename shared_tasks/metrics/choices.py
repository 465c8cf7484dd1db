r"""The option that a response chooses, by what it says or by log-likelihood.

Options are known by their place, from 0. Their labels are what the prompt showed: A to J, or 1 to 4.
"""

import math
import re
from collections.abc import Sequence
from typing import Literal

from shared_tasks.metrics.answers import ANSWER_IS, CHOICE_IS, boxes, without_run_on

_LETTERS = "ABCDEFGHIJ"
_REACH = 1000  # characters after a statement in which its option is named
_STATEMENT = re.compile(
    rf"{ANSWER_IS}|\banswer(?=[ \t]*\()|{CHOICE_IS}|\bI(?:'d| would| will)? (?:choose|pick|select|go with)\b",
    re.IGNORECASE,
)
_OPENING = (
    r"\s{0,9}(?:(?:therefore|thus|clearly|probably|actually),?\s)?"
    r"""[\s*_"'`“‘$:]{0,9}(?:\\\w{1,9}\{)?[\s*(\[]{0,9}(?:(?:option|choice|letter)\s)?[*(\[]{0,9}"""
)
_CLOSING = r"""[)\]}*_"'`”’.:,;$]*"""
_NOT_A_LABEL = r"(?!\w|['’-]\w|[.,/]\d|\s?%|\.\w\.)"  # B52, A's, 1.5, 3 %, D.C.
_WORDS_AFTER_A_LABEL = "because since as which and or so with based due by for is".split()


def extract_choice(text: str, choices: Sequence[str], labels: Sequence[str] | None = None) -> int | None:
    r"""Return the place of the option that a response chooses, or None where it chooses none.

    The last statement counts: a `\boxed{}`, what follows "answer is", "answer:", "correct option is", "I choose", or
    "(C) is correct". It names a label, with or without parentheses, or begins with the whole text of an option. A
    response without a statement chooses by being a label or the text of an option, by ending in a line that is a
    label, or by beginning with the only label in it ("(B) …", "B. …").

    Nothing is ever guessed: a word that begins like a label ("Because"), an article ("a dog"), two labels at once
    ("A or B") and a label that is only mentioned are no choice.

    `labels` default to A, B, … Raises ValueError unless there are two to ten options with different labels.

    Convention: labels and option texts as the generative multiple-choice tasks of lm-evaluation-harness accept them,
    without their fallback to the first letter found anywhere.
    """
    labels = _checked_labels(choices, labels)
    text = without_run_on(text)
    for said in _statements(text, labels):
        named = _named(said, choices, labels)
        if named:
            return named[0] if len(named) == 1 else None
    return _bare(text.strip(), choices, labels)


def _statements(text: str, labels: Sequence[str]) -> list[str]:
    """Return what each statement says, the last statement first."""
    found = [(start + len(content), content) for start, content in boxes(text)]
    found += [(match.end(), text[match.end() : match.end() + _REACH]) for match in _STATEMENT.finditer(text)]
    is_correct = rf"(?<!\w)({_either(labels)})[)\]*]* is (?:the )?(?:correct|right|best|answer)\b"
    found += [(match.end(), match[1]) for match in re.finditer(is_correct, text)]
    return [said for _, said in sorted(found, key=lambda item: item[0], reverse=True)]


def _named(said: str, choices: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Return the options that a statement names: none, one, or several where it does not decide."""
    label = re.match(rf"{_OPENING}(?P<label>{_either(labels)}){_NOT_A_LABEL}(?P<close>{_CLOSING})", said, re.IGNORECASE)
    by_text = _option_at_start(said, choices)
    if by_text is not None and (label is None or len(_plain(choices[by_text])) > len(label["label"])):
        return [by_text]
    rest = said[label.end() :] if label else ""
    if label is None or not _is_label(label["label"], label["close"], rest, choices, labels):
        return [] if by_text is None else [by_text]
    place = _place(label["label"], labels)
    if _option_at_start(rest, [choices[place]]) is not None:  # D. A and B
        return [place]
    another = rf"{_OPENING}({_either(labels)}){_NOT_A_LABEL}"
    joined = rf"\s*(?:or|and|/|&){another}|{another}(?=[)\]]?\s*(?:,|and\b|or\b|\.|$))"  # A or B; A, B and C
    also = re.match(joined, rest, re.IGNORECASE)
    return [place] if also is None else list({place, _place(also[1] or also[2], labels)})


def _is_label(label: str, close: str, rest: str, choices: Sequence[str], labels: Sequence[str]) -> bool:
    """Return whether a label is meant, rather than the article a, the pronoun I, or a quantity as in "3 apples"."""
    word = re.match(r"\s+(\w+)", rest)
    if close or word is None or not (label in "AaIi" or label.isdigit()):
        return True
    return word[1] in _WORDS_AFTER_A_LABEL or _option_at_start(rest, [choices[_place(label, labels)]]) is not None


def _bare(text: str, choices: Sequence[str], labels: Sequence[str]) -> int | None:
    """Return the option that a response without a statement chooses."""
    if last := re.fullmatch(rf"{_OPENING}({_either(labels)}){_CLOSING}", text.rpartition("\n")[2], re.IGNORECASE):
        return _place(last[1], labels)
    if _plain(text) in (plain_choices := [_plain(choice) for choice in choices]) and _plain(text):
        return plain_choices.index(_plain(text))
    first = re.match(rf"[*_(\[]*({_either(labels)})(?:[)\]*_]+|[.:](?=\s)|(?=\n))", text)
    marked = {
        label
        for label in labels
        if re.search(rf"(?m)(?<!\w)\({re.escape(label)}\)(?!\w)|^[*_\s]*{re.escape(label)}[.:)]", text)
    }
    return _place(first[1], labels) if first and marked <= {first[1]} else None


def _option_at_start(said: str, choices: Sequence[str]) -> int | None:
    """Return the option with the longest text that a statement begins with, as whole words."""
    spoken = _plain(said)
    matches = [
        place
        for place, choice in enumerate(choices)
        if _plain(choice) and re.match(re.escape(_plain(choice)) + r"(?!\w|[.,/:-]\w)", spoken)
    ]
    return max(matches, key=lambda place: len(choices[place]), default=None)


def _plain(text: str) -> str:
    r"""Return a text as options are compared: without case, repeated spaces, \text{} and punctuation around it."""
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    return " ".join(text.casefold().split()).lstrip(" *_\"'`“‘$:").rstrip(" *_\"'`”’$.,:;!")


def _either(labels: Sequence[str]) -> str:
    return "|".join(map(re.escape, sorted(labels, key=len, reverse=True)))


def _place(label: str, labels: Sequence[str]) -> int:
    return next(place for place, known in enumerate(labels) if known.casefold() == label.casefold())


def pick_by_loglikelihood(
    logprobs: Sequence[float], choices: Sequence[str], normalisation: Literal["none", "characters", "bytes"] = "none"
) -> int:
    """Return the place of the option whose text has the highest log-likelihood, the first of equal ones.

    `logprobs` holds the total log P(text | question) of each option in nats. "none" compares them as they are (`acc`
    of lm-evaluation-harness), "characters" divides each by the length of the option's text in characters (its
    `acc_norm`), "bytes" by the length in UTF-8 bytes (its `acc_bytes`). Lengths are those of `choices` as given:
    without the space that separates an option from the prompt.

    Raises ValueError unless there are as many log-likelihoods as options, all numbers (-inf is one), at least two, and
    for an empty option where lengths count.
    """
    if len(logprobs) != len(choices) or len(choices) < 2:
        raise ValueError(
            f"expected a log-likelihood for each of at least 2 options, got {len(logprobs)} for {len(choices)}"
        )
    if any(math.isnan(logprob) for logprob in logprobs):
        raise ValueError("expected log-likelihoods that are numbers, got NaN")
    if normalisation == "none":
        lengths = [1] * len(choices)
    elif normalisation == "characters":
        lengths = [len(choice) for choice in choices]
    elif normalisation == "bytes":
        lengths = [len(choice.encode()) for choice in choices]
    else:
        raise ValueError(f'expected normalisation "none", "characters" or "bytes", got {normalisation!r}')
    if 0 in lengths:
        raise ValueError(f"expected options with text, to divide by its length; option {lengths.index(0)} has none")
    scores = [logprob / length for logprob, length in zip(logprobs, lengths, strict=True)]
    return max(range(len(scores)), key=scores.__getitem__)


def choice_probabilities(logprobs: Sequence[float]) -> list[float]:
    """Return the probability of each option among the options: the softmax of their log-likelihoods in nats.

    The highest of them is the confidence that calibration is measured on, as in Kadavath et al., 2022,
    https://arxiv.org/abs/2207.05221. Raises ValueError where no option has any probability.
    """
    top = max(logprobs, default=-math.inf)
    if not math.isfinite(top):
        raise ValueError(f"expected at least one option with a finite log-likelihood, got {list(logprobs)}")
    weights = [math.exp(logprob - top) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]


def _checked_labels(choices: Sequence[str], labels: Sequence[str] | None) -> list[str]:
    labels = list(_LETTERS[: len(choices)] if labels is None else labels)
    if (
        not 2 <= len(choices) <= len(_LETTERS)
        or len({label.casefold() for label in labels}) != len(choices)
        or "" in labels
    ):
        expected = f"2 to {len(_LETTERS)} options, each with its own label"
        raise ValueError(f"expected {expected}, got {len(choices)} options and the labels {labels}")
    return labels
