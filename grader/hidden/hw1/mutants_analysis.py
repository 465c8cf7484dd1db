"""Plausible wrong solutions of hw1.analysis: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from grader.reference.hw1 import analysis as reference
from grader.reference.hw1.analysis import ErrorRates, TemperaturePoint
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness

Prompts = Sequence[Sequence[int]]


def _totals(model: LanguageModel, x: Prompts, y: Prompts) -> list[float]:
    return [float(scores.double().sum()) for scores in model.continuation_logprobs(x, y)]


def _rates(found: list[float], wanted: list[float], best: list[float]) -> ErrorRates:
    count = len(best)
    return ErrorRates(
        search=sum(b > f + 1e-6 for b, f in zip(best, found, strict=True)) / count,
        model=sum(b > w + 1e-6 for b, w in zip(best, wanted, strict=True)) / count,
    )


def error_rates__gold_against_decoded(
    model: LanguageModel, prompts: Prompts, decoded: Prompts, gold: Prompts, best: Prompts
) -> ErrorRates:
    """Calls it a model error when the decoded output is more probable than gold, and never looks at the best."""
    right = reference.error_rates(model, prompts, decoded, gold, best)
    return ErrorRates(right.search, reference.error_rates(model, prompts, gold, gold, decoded).search)


def error_rates__search_when_tokens_differ(
    model: LanguageModel, prompts: Prompts, decoded: Prompts, gold: Prompts, best: Prompts
) -> ErrorRates:
    """Compares tokens instead of log-probabilities."""
    right = reference.error_rates(model, prompts, decoded, gold, best)
    differ = [list(d) != list(b) for d, b in zip(decoded, best, strict=True)]
    return ErrorRates(sum(differ) / len(differ), right.model)


def error_rates__without_prompts(
    model: LanguageModel, prompts: Prompts, decoded: Prompts, gold: Prompts, best: Prompts
) -> ErrorRates:
    """Scores continuations without their prompts."""
    return reference.error_rates(model, [[] for _ in prompts], decoded, gold, best)


def error_rates__mean_per_token(
    model: LanguageModel, prompts: Prompts, decoded: Prompts, gold: Prompts, best: Prompts
) -> ErrorRates:
    """Compares log-probabilities per token."""
    reference.error_rates(model, prompts, decoded, gold, best)  # for its checks
    found, wanted, most = (
        [total / len(y) for total, y in zip(_totals(model, prompts, ys), ys, strict=True)]
        for ys in (decoded, gold, best)
    )
    return _rates(found, wanted, most)


def error_rates__model_only_without_search_error(
    model: LanguageModel, prompts: Prompts, decoded: Prompts, gold: Prompts, best: Prompts
) -> ErrorRates:
    """Takes the two errors for alternatives, so that an input counts in one of them only."""
    reference.error_rates(model, prompts, decoded, gold, best)
    pairs = [
        reference.error_rates(model, [x], [d], [g], [b])
        for x, d, g, b in zip(prompts, decoded, gold, best, strict=True)
    ]
    count = len(pairs)
    return ErrorRates(
        sum(pair.search for pair in pairs) / count, sum(pair.model for pair in pairs if not pair.search) / count
    )


def error_rates__counts_ties(
    model: LanguageModel, prompts: Prompts, decoded: Prompts, gold: Prompts, best: Prompts
) -> ErrorRates:
    """Calls equal probability an error where the tokens differ."""
    reference.error_rates(model, prompts, decoded, gold, best)
    best_scores = _totals(model, prompts, best)
    rates = []
    for ys in (decoded, gold):
        scores = _totals(model, prompts, ys)
        wrong = [b >= s and list(y) != list(z) for b, s, y, z in zip(best_scores, scores, ys, best, strict=True)]
        rates.append(sum(wrong) / len(wrong))
    return ErrorRates(*rates)


def error_rates__shortest_list_decides(
    model: LanguageModel, prompts: Prompts, decoded: Prompts, gold: Prompts, best: Prompts
) -> ErrorRates:
    """Zips the lists, so that what is missing is not noticed."""
    count = min(map(len, (prompts, decoded, gold, best)))
    if not count:
        return ErrorRates(0.0, 0.0)
    return reference.error_rates(model, prompts[:count], decoded[:count], gold[:count], best[:count])


def distinct_n__mean_over_samples(samples: Prompts, n: int) -> float:
    """Averages the share of each sample."""
    shares = [reference.distinct_n([sample], n) for sample in samples]
    return sum(shares) / len(shares) if shares else 0.0


def distinct_n__across_samples(samples: Prompts, n: int) -> float:
    """Joins the samples, so that n-grams run over their ends."""
    return reference.distinct_n([[token for sample in samples for token in sample]], n)


def distinct_n__over_tokens(samples: Prompts, n: int) -> float:
    """Divides by the number of tokens, as the first paper's code does."""
    tokens = sum(map(len, samples))
    if n < 1:
        raise ValueError(n)
    ngrams = {tuple(sample[i : i + n]) for sample in samples for i in range(len(sample) - n + 1)}
    return len(ngrams) / tokens if tokens else 0.0


def distinct_n__once_only(samples: Prompts, n: int) -> float:
    """Counts the n-grams that occur once."""
    if n < 1:
        raise ValueError(n)
    ngrams = [tuple(sample[i : i + n]) for sample in samples for i in range(len(sample) - n + 1)]
    return sum(ngrams.count(ngram) == 1 for ngram in ngrams) / len(ngrams) if ngrams else 0.0


def distinct_n__short_samples_count(samples: Prompts, n: int) -> float:
    """Takes a sample shorter than n for an n-gram."""
    if n < 1:
        raise ValueError(n)
    ngrams = [tuple(sample[i : i + n]) for sample in samples for i in range(max(1, len(sample) - n + 1))]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def distinct_n__accepts_zero(samples: Prompts, n: int) -> float:
    """Has no check of n."""
    return reference.distinct_n(samples, n) if n >= 1 else 0.0


def _curve(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
    scored: Any = None,
    measure: Any = None,
) -> list[TemperaturePoint]:
    """Draw as the reference does, and measure by the functions given."""
    if not all(t > 0 for t in temperatures) or num_samples < 1 or max_tokens < 1:
        raise ValueError(temperatures)
    points = []
    for temperature in temperatures:
        samples = reference._sample(model, prompt, temperature, num_samples, max_tokens, rng)
        quality = (scored or _mean_total)(model, prompt, samples, temperature)
        diversity = (measure or (lambda s: len(set(map(tuple, s))) / len(s)))(samples)
        points.append(TemperaturePoint(temperature, diversity, quality))
    return points


def _mean_total(model: LanguageModel, prompt: Sequence[int], samples: Prompts, temperature: float) -> float:
    return math.fsum(_totals(model, [prompt] * len(samples), samples)) / len(samples)


def temperature_curve__quality_at_the_temperature(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Scores samples under the distribution that they were drawn from."""

    def scored(model: LanguageModel, prompt: Sequence[int], samples: Prompts, temperature: float) -> float:
        total = 0.0
        for sample in samples:
            for t, token in enumerate(sample):
                row = model.next_token_logprobs([[*prompt, *sample[:t]]])[0] / temperature
                total += float(row.log_softmax(-1)[token])
        return total / len(samples)

    return _curve(model, prompt, temperatures, num_samples, max_tokens, rng, scored=scored)


def temperature_curve__quality_per_token(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Takes the mean per token for the quality."""

    def scored(model: LanguageModel, prompt: Sequence[int], samples: Prompts, temperature: float) -> float:
        totals = _totals(model, [prompt] * len(samples), samples)
        return math.fsum(total / len(y) for total, y in zip(totals, samples, strict=True)) / len(samples)

    return _curve(model, prompt, temperatures, num_samples, max_tokens, rng, scored=scored)


def temperature_curve__without_the_prompt(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Scores samples without the prompt."""

    def scored(model: LanguageModel, prompt: Sequence[int], samples: Prompts, temperature: float) -> float:
        return _mean_total(model, [], samples, temperature)

    return _curve(model, prompt, temperatures, num_samples, max_tokens, rng, scored=scored)


def temperature_curve__diversity_of_tokens(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Counts different tokens instead of different samples."""
    return _curve(
        model,
        prompt,
        temperatures,
        num_samples,
        max_tokens,
        rng,
        measure=lambda samples: reference.distinct_n(samples, 1),
    )


def temperature_curve__multiplies_by_the_temperature(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Multiplies log-probabilities where it should divide."""
    if not all(t > 0 for t in temperatures):
        raise ValueError(temperatures)
    points = reference.temperature_curve(
        model, prompt, [1 / t for t in temperatures], num_samples=num_samples, max_tokens=max_tokens, rng=rng
    )
    return [TemperaturePoint(t, p.diversity, p.quality) for t, p in zip(temperatures, points, strict=True)]


def temperature_curve__goes_on_after_the_end(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Draws `max_tokens` tokens for every sample, whether it has ended or not."""
    if not all(t > 0 for t in temperatures) or num_samples < 1 or max_tokens < 1:
        raise ValueError(temperatures)
    points = []
    for temperature in temperatures:
        samples: list[list[int]] = [[] for _ in range(num_samples)]
        for _ in range(max_tokens):
            rows = model.next_token_logprobs([[*prompt, *sample] for sample in samples])
            for sample, token in zip(samples, rng.categorical((rows / temperature).softmax(-1)), strict=True):
                sample.append(int(token))
        diversity = len(set(map(tuple, samples))) / num_samples
        points.append(TemperaturePoint(temperature, diversity, _mean_total(model, prompt, samples, temperature)))
    return points


def temperature_curve__accepts_anything(
    model: LanguageModel,
    prompt: Sequence[int],
    temperatures: Sequence[float],
    *,
    num_samples: int,
    max_tokens: int,
    rng: Randomness,
) -> list[TemperaturePoint]:
    """Takes temperature 0 for a very small one."""
    return reference.temperature_curve(
        model,
        prompt,
        [max(t, 1e-3) for t in temperatures],
        num_samples=max(num_samples, 1),
        max_tokens=max(max_tokens, 1),
        rng=rng,
    )


def group_perplexities__mean_of_perplexities(model: LanguageModel, groups: Mapping[str, Prompts]) -> dict[str, float]:
    """Averages the perplexities of the sequences."""
    reference.group_perplexities(model, groups)
    means = {}
    for name, sequences in groups.items():
        each = [reference.group_perplexities(model, {"": [y]})[""] for y in sequences if len(y)]
        means[name] = math.fsum(each) / len(each)
    return means


def group_perplexities__mean_per_sequence(model: LanguageModel, groups: Mapping[str, Prompts]) -> dict[str, float]:
    """Lets every sequence weigh the same."""
    reference.group_perplexities(model, groups)
    means = {}
    for name, sequences in groups.items():
        kept = [y for y in sequences if len(y)]
        totals = _totals(model, [[]] * len(kept), kept)
        means[name] = math.exp(-math.fsum(t / len(y) for t, y in zip(totals, kept, strict=True)) / len(kept))
    return means


def group_perplexities__divides_by_sequences(model: LanguageModel, groups: Mapping[str, Prompts]) -> dict[str, float]:
    """Divides by the number of sequences instead of tokens."""
    reference.group_perplexities(model, groups)
    return {
        name: float(torch.tensor(-math.fsum(_totals(model, [[]] * len(y), y)) / len(y)).exp())
        for name, y in groups.items()
    }


def group_perplexities__all_together(model: LanguageModel, groups: Mapping[str, Prompts]) -> dict[str, float]:
    """Gives every group the perplexity of all sequences."""
    reference.group_perplexities(model, groups)
    whole = reference.group_perplexities(model, {"": [y for sequences in groups.values() for y in sequences]})[""]
    return dict.fromkeys(groups, whole)


def group_perplexities__in_bits(model: LanguageModel, groups: Mapping[str, Prompts]) -> dict[str, float]:
    """Takes 2 to the power of a mean in nats."""
    right = reference.group_perplexities(model, groups)
    return {name: 2 ** math.log(value) for name, value in right.items()}


def group_perplexities__empty_groups_are_left_out(
    model: LanguageModel, groups: Mapping[str, Prompts]
) -> dict[str, float]:
    """Leaves groups without tokens out instead of refusing them."""
    return reference.group_perplexities(model, {name: y for name, y in groups.items() if any(map(len, y))})
