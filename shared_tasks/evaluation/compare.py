"""Two runs on the same items: which is better, and how sure that is."""

from collections.abc import Sequence

import msgspec

from shared_tasks.evaluation.evaluate import Sample
from shared_tasks.metrics.statistics import PairedComparison, paired_comparison
from shared_tasks.tasks.reading import DataError


class Comparison(msgspec.Struct, kw_only=True):
    """A metric of a first and a second run on the items that both have."""

    metric: tuple[str, str]
    """Its name in each run."""
    items: int
    first: float
    second: float
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    tokens: tuple[float, float]
    """Tokens per question of each run, prompt and generated together."""
    paired: PairedComparison


def compare(
    first: Sequence[Sample], second: Sequence[Sample], metrics: tuple[str, str] = ("score", "score")
) -> Comparison:
    """Compare two runs item by item, by their scores or by another value of each.

    An item counts as right where its value is at least one half. Raises DataError when the runs share no items, when
    the items with one number differ, and when a run lacks the value.
    """
    by_index = {sample.index: sample for sample in second}
    pairs = [(sample, by_index[sample.index]) for sample in first if sample.index in by_index]
    if not pairs:
        raise DataError("the two runs have no items in common")
    for one, other in pairs:
        if (one.question, one.gold) != (other.question, other.gold):
            raise DataError(
                f"item {one.index} is not the same in the two runs; compare runs on the same data and split"
            )
    values = [(_value(one, metrics[0]), _value(other, metrics[1])) for one, other in pairs]
    right = [(one >= 0.5, other >= 0.5) for one, other in values]
    return Comparison(
        metric=metrics,
        items=len(pairs),
        first=sum(one for one, _ in values) / len(values),
        second=sum(other for _, other in values) / len(values),
        both_right=right.count((True, True)),
        only_first=right.count((True, False)),
        only_second=right.count((False, True)),
        both_wrong=right.count((False, False)),
        tokens=(_tokens([one for one, _ in pairs]), _tokens([other for _, other in pairs])),
        paired=paired_comparison([one for one, _ in values], [other for _, other in values]),
    )


def _tokens(samples: Sequence[Sample]) -> float:
    return sum(sample.tokens.prompt + sample.tokens.generated for sample in samples) / len(samples)


def _value(sample: Sample, metric: str) -> float:
    value = sample.score if metric == "score" else sample.values.get(metric)
    if value is None:
        there = ", ".join(sample.values)
        raise DataError(f"item {sample.index} has no {metric}; there are: {there}")
    return value
