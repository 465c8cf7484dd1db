"""Two runs on the same items: who is better, and how sure that is."""

import pytest

from shared_tasks.evaluation.compare import compare
from shared_tasks.evaluation.evaluate import Sample, Tokens
from shared_tasks.tasks.reading import DataError


def samples(*scores: float | None, question: str = "Q", values: dict[str, float] | None = None) -> list[Sample]:
    return [
        Sample(
            index=index, id="", group="", question=f"{question}{index}", prompt="P", gold="G", parsed=[], score=score,
            values=values or {}, tokens=Tokens(0, 0, 0),
        )
        for index, score in enumerate(scores)
    ]  # fmt: skip


def test_the_difference_is_that_of_the_second_run() -> None:
    """Eight items right only in the second run, none only in the first: + 0.8, and McNemar's p = 2 / 2^8."""
    result = compare(samples(*[0] * 8, 1, 0), samples(*[1] * 8, 1, 0))
    assert (result.first, result.second, result.paired.difference) == (0.1, 0.9, pytest.approx(0.8))
    assert (result.both_right, result.only_first, result.only_second, result.both_wrong) == (1, 0, 8, 1)
    assert result.paired.p_value == pytest.approx(2 / 2**8)


def test_items_are_paired_by_their_number() -> None:
    """Only the items that both runs have are compared, whatever their order in the files."""
    result = compare(samples(1, 0, 1), list(reversed(samples(1, 1))))
    assert (result.items, result.only_second, result.paired.difference) == (2, 1, 0.5)


def test_each_run_may_have_a_metric_of_its_own() -> None:
    """The score of one run is compared with another value of the other run."""
    result = compare(samples(0, 0), samples(0, 0, values={"maj@16": 1.0}), ("score", "maj@16"))
    assert (result.first, result.second) == (0, 1)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (samples(1), samples(1, question="another"), "item 0 is not the same in the two runs"),
        (samples(), samples(1), "no items in common"),
        (samples(1), samples(None), "item 0 has no score"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(first: list[Sample], second: list[Sample], message: str) -> None:
    """Runs on other items, without items, or without the value are refused."""
    with pytest.raises(DataError, match=message):
        compare(first, second)
