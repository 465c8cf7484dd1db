"""From right and wrong outputs to the scores of an item: alone, over samples, and by choosing among them."""

from collections.abc import Sequence
from statistics import mean

from shared_tasks.metrics.samples import best_of_k, majority_at_k, pass_at_k
from shared_tasks.tasks.task import Output, Scored


def score_samples(
    parsed: Sequence[str | None],
    correct: Sequence[bool],
    outputs: Sequence[Output],
    votes: Sequence[str | None] | None = None,
    name: str = "accuracy",
) -> Scored:
    """Score an item by which of its outputs are right.

    accuracy, or what else it is named, is the mean over the outputs. With several of them also, for k up to their
    number: pass@k, one of k is right; maj@k, the answer that most of k give is right; best@k and best_mean@k, the one
    of k with the highest log-probability, or mean log-probability per token, is right. Each is the expectation over all
    choices of k.

    `votes` are the answers in a form in which equal ones are equal, where `parsed` is not; empty where none can be.
    """
    votes = parsed if votes is None else votes
    ks = sample_counts(len(outputs))
    values = {name: mean(map(float, correct))}
    values |= {f"pass@{k}": pass_at_k(len(correct), sum(correct), k) for k in ks}
    if votes:
        values |= {f"maj@{k}": majority_at_k(votes, correct, k) for k in ks}
    values |= best_by_logprob([float(flag) for flag in correct], outputs)
    if votes:
        values["no_answer"] = mean(float(answer is None) for answer in parsed)
    return Scored(score=values[name], parsed=list(parsed), values=values, correct=list(correct))


def best_by_logprob(worth: Sequence[float], outputs: Sequence[Output]) -> dict[str, float]:
    """Return what the outputs are worth that log-probability, or mean log-probability, chooses among k of them.

    Empty for a single output, and where log-probabilities are not known.
    """
    totals = [output.logprob for output in outputs if output.logprob is not None]
    means = [output.logprob / output.tokens for output in outputs if output.logprob is not None and output.tokens]
    if not len(outputs) == len(totals) == len(means):
        return {}
    return {
        f"{name}@{k}": best_of_k(scores, worth, k)
        for name, scores in (("best", totals), ("best_mean", means))
        for k in sample_counts(len(outputs))
    }


def sample_counts(n: int) -> list[int]:
    """Return the numbers of samples to report on: 2, 4, 8 … up to n, and n itself; none for a single output."""
    return sorted({2**exponent for exponent in range(1, n.bit_length())} | {n}) if n > 1 else []
