"""Plausible wrong solutions of hw1.analysis: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from grader.reference.hw1 import analysis as reference
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness

Texts = Sequence[Sequence[int]]


def error_rates__decoded_against_gold(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Calls it a search error when the gold continuation is more probable than the decoded one."""
    rates = reference.error_rates(model, x, decoded, gold, best)
    return reference.ErrorRates(reference.error_rates(model, x, decoded, gold, gold).search, rates.model)


def error_rates__gold_against_decoded(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Calls it a model error when the decoded continuation is more probable than the gold one."""
    rates = reference.error_rates(model, x, decoded, gold, best)
    return reference.ErrorRates(rates.search, reference.error_rates(model, x, decoded, gold, decoded).model)


def error_rates__swapped(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Takes one kind for the other."""
    return reference.error_rates(model, x, gold, decoded, best)


def error_rates__either_or(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Blames the model only where the search did not fail."""
    each = [reference.error_rates(model, *([part] for part in row)) for row in zip(x, decoded, gold, best, strict=True)]
    rates = reference.error_rates(model, x, decoded, gold, best)
    return reference.ErrorRates(rates.search, sum(r.model for r in each if not r.search) / len(x))


def error_rates__tokens_compared(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Calls every continuation but the best one an error."""
    reference.error_rates(model, x, decoded, gold, best)
    search, wrong = (
        sum(list(y) != list(most) for y, most in zip(texts, best, strict=True)) for texts in (decoded, gold)
    )
    return reference.ErrorRates(search / len(x), wrong / len(x))


def error_rates__ties_are_errors(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Calls it an error when the best is at least as probable."""
    reference.error_rates(model, x, decoded, gold, best)
    return _rates(model, x, decoded, gold, best, lambda most, y, n: most >= y)


def error_rates__normalised(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Compares log-probabilities per token."""
    reference.error_rates(model, x, decoded, gold, best)
    return _rates(model, x, decoded, gold, best, lambda most, y, n: most / n[0] > y / n[1] + 1e-6)


def error_rates__impossible_left_out(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Does not count continuations of probability zero."""
    reference.error_rates(model, x, decoded, gold, best)
    return _rates(model, x, decoded, gold, best, lambda most, y, n: math.isfinite(y) and most > y + 1e-6)


def error_rates__prompts_ignored(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Scores every continuation as if it began the text."""
    return reference.error_rates(model, [[] for _ in x], decoded, gold, best)


def error_rates__counts(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Returns numbers of inputs."""
    rates = reference.error_rates(model, x, decoded, gold, best)
    return reference.ErrorRates(rates.search * len(x), rates.model * len(x))


def error_rates__accepts_missing(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts) -> Any:
    """Goes as far as the shortest list."""
    n = min(len(x), len(decoded), len(gold), len(best))
    return reference.error_rates(model, x[:n], decoded[:n], gold[:n], best[:n]) if n else reference.ErrorRates(0.0, 0.0)


def distinct_n__mean_over_samples(samples: Texts, n: int) -> float:
    """Averages the shares of single samples."""
    return sum(reference.distinct_n([sample], n) for sample in samples) / max(len(samples), 1)


def distinct_n__across_samples(samples: Texts, n: int) -> float:
    """Joins the samples, so that an n-gram may begin in one and end in another."""
    return reference.distinct_n([[token for sample in samples for token in sample]], n)


def distinct_n__over_tokens(samples: Texts, n: int) -> float:
    """Divides by the number of tokens."""
    ngrams = sum(max(len(sample) - n + 1, 0) for sample in samples)
    return reference.distinct_n(samples, n) * ngrams / max(sum(map(len, samples)), 1)


def distinct_n__last_missing(samples: Texts, n: int) -> float:
    """Leaves the last n-gram of each sample out."""
    return reference.distinct_n([sample[:-1] for sample in samples], n)


def distinct_n__seen_once(samples: Texts, n: int) -> float:
    """Counts n-grams that occur exactly once."""
    share = reference.distinct_n(samples, n)
    counts = Counter(tuple(s[i : i + n]) for s in samples for i in range(len(s) - n + 1))
    return sum(count == 1 for count in counts.values()) / counts.total() if share else 0.0


def distinct_n__order_ignored(samples: Texts, n: int) -> float:
    """Takes an n-gram for a set of tokens."""
    reference.distinct_n(samples, n)
    ngrams = [frozenset(s[i : i + n]) for s in samples for i in range(len(s) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def distinct_n__short_samples_count(samples: Texts, n: int) -> float:
    """Takes a sample shorter than n for an n-gram."""
    reference.distinct_n(samples, n)
    ngrams = [tuple(s[i : i + n]) for s in samples for i in range(max(len(s) - n + 1, 1))]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def distinct_n__one_without_ngrams(samples: Texts, n: int) -> float:
    """Finds nothing repeated where there is nothing."""
    return reference.distinct_n(samples, n) or 1.0


def distinct_n__accepts_zero(samples: Texts, n: int) -> float:
    """Takes any n."""
    return reference.distinct_n(samples, max(n, 1))


def temperature_curve__scored_at_the_temperature(*args: Any, **settings: Any) -> Any:
    """Scores the samples with the temperature that they were drawn with."""
    return _curve(*args, **settings, at_temperature=True)


def temperature_curve__multiplied(*args: Any, **settings: Any) -> Any:
    """Multiplies log-probabilities by the temperature."""
    return _curve(*args, **settings, power=lambda temperature: temperature)


def temperature_curve__drawn_at_one(*args: Any, **settings: Any) -> Any:
    """Draws without a temperature."""
    return _curve(*args, **settings, power=lambda temperature: 1.0)


def temperature_curve__quality_per_token(*args: Any, **settings: Any) -> Any:
    """Divides the log-probability of a sample by its length."""
    return _curve(*args, **settings, per_token=True)


def temperature_curve__ended_samples_go_on(*args: Any, **settings: Any) -> Any:
    """Extends samples that have ended."""
    return _curve(*args, **settings, stop=False)


def temperature_curve__end_token_dropped(*args: Any, **settings: Any) -> Any:
    """Takes the end token off before it scores."""
    return _curve(*args, **settings, keep_end=False)


def temperature_curve__prompt_scored(*args: Any, **settings: Any) -> Any:
    """Adds the log-probability of the prompt."""
    return _curve(*args, **settings, score_prompt=True)


def temperature_curve__distinct_tokens(*args: Any, **settings: Any) -> Any:
    """Measures diversity by different tokens, not by different samples."""
    return _curve(*args, **settings, tokens=True)


def temperature_curve__in_rising_order(model: LanguageModel, x: Sequence[int], t: Sequence[float], **kw: Any) -> Any:
    """Sorts the temperatures."""
    return reference.temperature_curve(model, x, sorted(t), **kw)


def temperature_curve__one_token_short(
    model: LanguageModel, x: Sequence[int], t: Sequence[float], *, max_tokens: int, **settings: Any
) -> Any:
    """Draws a token less."""
    return reference.temperature_curve(model, x, t, max_tokens=max_tokens - (max_tokens > 1), **settings)


def temperature_curve__accepts_zero(*args: Any, **settings: Any) -> Any:
    """Takes any settings."""
    return _curve(*args, **settings, check=False)


def group_perplexities__mean_over_sequences(model: LanguageModel, groups: Mapping[str, Texts]) -> dict[str, float]:
    """Averages the perplexities of sequences."""
    whole = reference.group_perplexities(model, groups)
    for name, group in groups.items():
        each = [reference.group_perplexities(model, {name: [y]})[name] for y in group if y]
        whole[name] = sum(each) / len(each)
    return whole


def group_perplexities__per_sequence(model: LanguageModel, groups: Mapping[str, Texts]) -> dict[str, float]:
    """Divides by the number of sequences."""
    whole = reference.group_perplexities(model, groups)
    return {name: whole[name] ** (sum(map(len, group)) / len(group)) for name, group in groups.items()}


def group_perplexities__first_token_given(model: LanguageModel, groups: Mapping[str, Texts]) -> dict[str, float]:
    """Does not score the first token of a sequence."""
    whole = reference.group_perplexities(model, groups)
    for name, group in groups.items():
        rows = [scores[1:] for scores in model.continuation_logprobs([[]] * len(group), group)]
        tokens = max(sum(map(len, rows)), 1)
        whole[name] = math.exp(-sum(float(row.sum()) for row in rows) / tokens) if whole[name] < math.inf else math.inf
    return whole


def group_perplexities__one_text(model: LanguageModel, groups: Mapping[str, Texts]) -> dict[str, float]:
    """Joins the sequences of a group to one."""
    return reference.group_perplexities(model, {k: [[v for y in group for v in y]] for k, group in groups.items()})


def group_perplexities__all_groups_together(model: LanguageModel, groups: Mapping[str, Texts]) -> dict[str, float]:
    """Gives each group the perplexity of everything."""
    reference.group_perplexities(model, groups)
    together = reference.group_perplexities(model, {"": [y for group in groups.values() for y in group]})
    return dict.fromkeys(groups, together[""])


def group_perplexities__logarithm(model: LanguageModel, groups: Mapping[str, Texts]) -> dict[str, float]:
    """Returns nats per token."""
    return {name: math.log(value) for name, value in reference.group_perplexities(model, groups).items()}


def group_perplexities__impossible_left_out(model: LanguageModel, groups: Mapping[str, Texts]) -> dict[str, float]:
    """Skips tokens of probability zero."""
    whole = reference.group_perplexities(model, groups)
    for name, group in groups.items():
        scores = [float(s) for row in model.continuation_logprobs([[]] * len(group), group) for s in row]
        finite = [score for score in scores if score > -math.inf]
        whole[name] = math.exp(-sum(finite) / max(len(finite), 1))
    return whole


def group_perplexities__empty_groups_skipped(model: LanguageModel, groups: Mapping[str, Texts]) -> dict[str, float]:
    """Leaves groups without tokens out."""
    return reference.group_perplexities(model, {name: group for name, group in groups.items() if any(group)})


def _rates(model: LanguageModel, x: Texts, decoded: Texts, gold: Texts, best: Texts, worse: Any) -> Any:
    def share(texts: Texts) -> float:
        found, most = (
            [float(row.sum()) for row in model.continuation_logprobs(x, [list(y) for y in ys])] for ys in (texts, best)
        )
        lengths = [(len(b), len(y)) for b, y in zip(best, texts, strict=True)]
        return sum(map(worse, most, found, lengths)) / len(x)

    return reference.ErrorRates(share(decoded), share(gold))


def _curve(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
    power: Any = lambda temperature: 1 / temperature if temperature else 1.0,
    at_temperature: bool = False,
    per_token: bool = False,
    stop: bool = True,
    keep_end: bool = True,
    score_prompt: bool = False,
    tokens: bool = False,
    check: bool = True,
) -> list[Any]:
    if check and (min(temperatures, default=1) <= 0 or num_samples < 1 or max_tokens < 1):
        raise ValueError
    points = []
    before = float(model.continuation_logprobs([[]], [prompt])[0].sum()) if score_prompt else 0.0
    for temperature in temperatures:
        samples: list[list[int]] = [[] for _ in range(num_samples)]
        scores = [before] * num_samples
        live = list(range(num_samples))
        for _ in range(max_tokens):
            if not live:
                break
            logprobs = model.next_token_logprobs([[*prompt, *samples[i]] for i in live])
            logits = logprobs * power(temperature)
            drawn = rng.categorical(logits.softmax(-1)).tolist()
            scored = logits.log_softmax(-1) if at_temperature else logprobs
            for i, row, token in zip(live, scored.tolist(), drawn, strict=True):
                if keep_end or token != model.eos_token_id:
                    samples[i].append(token)
                    scores[i] += row[token]
            live = [i for i, v in zip(live, drawn, strict=True) if not stop or v != model.eos_token_id]
        if per_token:
            scores = [score / len(sample) for score, sample in zip(scores, samples, strict=True)]
        different = len(set(map(tuple, samples))) / max(num_samples, 1)
        if tokens:
            different = reference.distinct_n(samples, 1)
        points.append(reference.TemperaturePoint(temperature, different, sum(scores) / max(num_samples, 1)))
    return points
