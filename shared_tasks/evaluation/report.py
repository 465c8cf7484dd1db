"""From scored items to metrics with standard errors."""

from collections.abc import Sequence
from statistics import mean, median
from typing import Any

from shared_tasks.evaluation.evaluate import Sample, Tokens
from shared_tasks.metrics.statistics import standard_error
from shared_tasks.tasks.task import Item, Metric, Scored, Task

NOT_SHARES = ("words", "rating", "rouge", "sentence_", "self_bleu")  # names that begin so are no shares of one


def summarise(
    task: Task[Item], items: Sequence[Item], outputs: Sequence[Sequence[str]], scores: Sequence[Scored]
) -> dict[str, Metric]:
    """Return all metrics of a set: the means of its items' values, then what the task computes over all of them.

    An item with several samples counts as one observation, the mean over its samples: the standard errors are those of
    clusters, as samples of one question are alike.
    """
    names = dict.fromkeys(name for score in scores for name in score.values)
    return {name: mean_of(name, [score.values[name] for score in scores if name in score.values]) for name in names} | (
        task.metrics(items, outputs, scores) if scores else {}
    )


def mean_of(name: str, values: Sequence[float]) -> Metric:
    """Return a mean with its closed-form standard error."""
    return Metric(mean(values), standard_error(values), len(values), share=not name.startswith(NOT_SHARES))


def by_group(samples: Sequence[Sample]) -> dict[str, Metric]:
    """Return the mean score of each group; empty where there are not several groups."""
    scores: dict[str, list[float]] = {}
    for sample in samples:
        if sample.score is not None:
            scores.setdefault(sample.group, []).append(sample.score)
    return {group: mean_of("score", scores[group]) for group in sorted(scores)} if len(scores) > 1 else {}


def tokens_of(samples: Sequence[Sample]) -> Tokens:
    """Return what all samples cost together, whenever they were made."""
    return Tokens(
        prompt=sum(sample.tokens.prompt for sample in samples),
        generated=sum(sample.tokens.generated for sample in samples),
        forward_positions=sum(sample.tokens.forward_positions for sample in samples),
    )


def latency_of(samples: Sequence[Sample]) -> float | None:
    """Return the median latency in seconds of the items that something was generated for."""
    latencies = [sample.latency for sample in samples if sample.latency is not None]
    return median(latencies) if latencies else None


def flat(metrics: dict[str, Metric]) -> dict[str, Any]:
    """Return metrics as plain values: NAME, and NAME_stderr and NAME_note where there is one."""
    plain: dict[str, Any] = {}
    for name, metric in metrics.items():
        plain[name] = metric.value
        if metric.standard_error is not None:
            plain[f"{name}_stderr"] = metric.standard_error
        if metric.note:
            plain[f"{name}_note"] = metric.note
    return plain
