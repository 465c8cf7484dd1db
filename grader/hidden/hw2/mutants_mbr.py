"""Plausible wrong solutions of hw2.mbr: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from grader.reference.hw2 import mbr as reference

Texts = Sequence[str]
Utility = Callable[[str, str], float]
Embed = Callable[[list[str]], Tensor]


def _matrix(score: Utility, hypotheses: Texts, references: Texts) -> Tensor:
    rows = [[score(h, r) for r in references] for h in hypotheses]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(hypotheses), len(references))


def expected_utility__over_hypotheses(utilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """Averages over the rows."""
    return reference.expected_utility(utilities.T, weights)


def expected_utility__sum(utilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """Does not divide."""
    return utilities.sum(-1) if weights is None else utilities @ weights


def expected_utility__weights_not_normalised(utilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """Divides by the number of weights."""
    mean = reference.expected_utility(utilities, weights)
    return mean if weights is None else mean * weights.double().mean()


def expected_utility__weights_ignored(utilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """Ignores the weights."""
    if weights is not None:
        reference.expected_utility(utilities, weights)
    return reference.expected_utility(utilities)


def expected_utility__softmax_of_weights(utilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """Takes weights for logits."""
    return reference.expected_utility(utilities, None if weights is None else weights.softmax(-1))


def expected_utility__broadcasts(utilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """Accepts one weight for all."""
    if weights is not None and weights.shape == (1,):
        return utilities.mean(-1)
    return reference.expected_utility(utilities, weights)


def expected_utility__negative_weights(utilities: Tensor, weights: Tensor | None = None) -> Tensor:
    """Checks the sum alone."""
    if weights is None or not weights.sum() > 0 or weights.shape != utilities.shape[1:]:
        return reference.expected_utility(utilities, weights)
    return utilities.double() @ (weights / weights.sum()).double()


def utility_matrix__transposed(utility: Utility, hypotheses: Texts, references: Texts, symmetric: bool) -> Tensor:
    """Asks for utility(reference, hypothesis)."""
    return reference.utility_matrix(lambda h, r: utility(r, h), hypotheses, references, symmetric)


def utility_matrix__all_pairs(utility: Utility, hypotheses: Texts, references: Texts, symmetric: bool) -> Tensor:
    """Asks for every pair."""
    return _matrix(utility, hypotheses, references)


def utility_matrix__always_symmetric(utility: Utility, hypotheses: Texts, references: Texts, symmetric: bool) -> Tensor:
    """Takes every utility for symmetric."""
    return reference.utility_matrix(utility, hypotheses, references, True)


def utility_matrix__never_symmetric(utility: Utility, hypotheses: Texts, references: Texts, symmetric: bool) -> Tensor:
    """Takes no utility for symmetric."""
    return reference.utility_matrix(utility, hypotheses, references, False)


def utility_matrix__duplicates_removed(
    utility: Utility, hypotheses: Texts, references: Texts, symmetric: bool
) -> Tensor:
    """Removes duplicates before the expectation."""
    return reference.utility_matrix(utility, hypotheses, list(dict.fromkeys(references)), symmetric)


def utility_matrix__one_with_itself(utility: Utility, hypotheses: Texts, references: Texts, symmetric: bool) -> Tensor:
    """Takes the utility of a text against itself for 1."""
    return reference.utility_matrix(lambda h, r: 1.0 if h == r else utility(h, r), hypotheses, references, symmetric)


def utility_matrix__triangle(utility: Utility, hypotheses: Texts, references: Texts, symmetric: bool) -> Tensor:
    """Fills the upper triangle and mirrors it, as if hypotheses and references were one list."""
    full = reference.utility_matrix(utility, hypotheses, references, symmetric)
    return full.triu() + full.triu(1).T if symmetric and full.shape[0] == full.shape[1] else full


def _bleu(
    h: str, r: str, *, clip: bool = True, halve: bool = True, smooth: bool = True, effective: bool = True,
    zero: bool = True, penalty: Callable[[int, int], float] = lambda h, r: min(1.0, math.exp(1 - r / max(h, 1))),
    split: Callable[[str], list[str]] = str.split, orders: int = 4,
) -> float:  # fmt: skip
    hypothesis, words = split(h), split(r)
    logs, halves, matched = [], 1.0, 0
    for n in range(1, orders + 1):
        a, b = (Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in (hypothesis, words))
        if not a and effective:
            break
        matches: float = sum(min(c, b[g]) if clip else c * (g in b) for g, c in a.items())
        matched += int(matches)
        if not matches:
            halves = halves / 2 if halve else 0.5
            matches = halves if smooth else 0.0
        logs.append(math.log(matches / a.total()) if matches and a else -math.inf)
    if not logs or (zero and not matched):
        return 0.0
    return 100 * penalty(len(hypothesis), len(words)) * math.exp(sum(logs) / len(logs))


def bleu_matrix__not_clipped(hypotheses: Texts, references: Texts) -> Tensor:
    """Counts an n-gram as often as the hypothesis repeats it."""
    return _matrix(lambda h, r: _bleu(h, r, clip=False), hypotheses, references)


def bleu_matrix__constant_smoothing(hypotheses: Texts, references: Texts) -> Tensor:
    """Smooths every order by one half."""
    return _matrix(lambda h, r: _bleu(h, r, halve=False), hypotheses, references)


def bleu_matrix__no_smoothing(hypotheses: Texts, references: Texts) -> Tensor:
    """Is zero where one order has no match."""
    return _matrix(lambda h, r: _bleu(h, r, smooth=False), hypotheses, references)


def bleu_matrix__four_orders(hypotheses: Texts, references: Texts) -> Tensor:
    """Counts orders that the hypothesis has no n-gram of."""
    return _matrix(lambda h, r: _bleu(h, r, effective=False), hypotheses, references)


def bleu_matrix__smoothed_from_nothing(hypotheses: Texts, references: Texts) -> Tensor:
    """Smooths a pair with nothing in common."""
    return _matrix(lambda h, r: _bleu(h, r, zero=False), hypotheses, references)


def bleu_matrix__no_brevity_penalty(hypotheses: Texts, references: Texts) -> Tensor:
    """Forgets the brevity penalty."""
    return _matrix(lambda h, r: _bleu(h, r, penalty=lambda a, b: 1.0), hypotheses, references)


def bleu_matrix__rewards_length(hypotheses: Texts, references: Texts) -> Tensor:
    """Lets the penalty exceed 1."""
    return _matrix(lambda h, r: _bleu(h, r, penalty=lambda a, b: math.exp(1 - b / a)), hypotheses, references)


def bleu_matrix__transposed(hypotheses: Texts, references: Texts) -> Tensor:
    """Takes the reference for the hypothesis."""
    return reference.bleu_matrix(references, hypotheses).T


def bleu_matrix__single_spaces(hypotheses: Texts, references: Texts) -> Tensor:
    """Splits at single spaces."""
    return _matrix(lambda h, r: _bleu(h, r, split=lambda text: text.split(" ")), hypotheses, references)


def bleu_matrix__lower_case(hypotheses: Texts, references: Texts) -> Tensor:
    """Ignores case."""
    return reference.bleu_matrix([t.lower() for t in hypotheses], [t.lower() for t in references])


def bleu_matrix__from_zero_to_one(hypotheses: Texts, references: Texts) -> Tensor:
    """Returns a share instead of a percentage."""
    return reference.bleu_matrix(hypotheses, references) / 100


def _chrf(
    h: str, r: str, *, strip: Callable[[str], str] = lambda text: "".join(text.split()), orders: int = 6,
    beta: float = 2.0, clip: bool = True, all_orders: bool = False, mean_of_f: bool = False,
) -> float:  # fmt: skip
    pairs = []
    for n in range(1, orders + 1):
        a, b = (Counter(t[i : i + n] for i in range(len(t) - n + 1)) for t in (strip(h), strip(r)))
        matches = sum(min(c, b[g]) if clip else c * (g in b) for g, c in a.items())
        if (a and b) or all_orders:
            pairs.append((matches / max(a.total(), 1), matches / max(b.total(), 1)))

    def f(p: float, q: float) -> float:
        return (1 + beta**2) * p * q / (beta**2 * p + q) if p + q else 0.0

    if mean_of_f:
        return 100 * sum(f(p, q) for p, q in pairs) / max(len(pairs), 1)
    means = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)] or [0.0, 0.0]
    return 100 * f(*means)


def chrf_matrix__white_space_kept(hypotheses: Texts, references: Texts) -> Tensor:
    """Counts spaces as characters."""
    return _matrix(lambda h, r: _chrf(h, r, strip=lambda text: text), hypotheses, references)


def chrf_matrix__f1(hypotheses: Texts, references: Texts) -> Tensor:
    """Weighs precision and recall the same."""
    return _matrix(lambda h, r: _chrf(h, r, beta=1.0), hypotheses, references)


def chrf_matrix__precision_weighs_more(hypotheses: Texts, references: Texts) -> Tensor:
    """Has hypothesis and reference the wrong way round."""
    return reference.chrf_matrix(references, hypotheses).T


def chrf_matrix__not_clipped(hypotheses: Texts, references: Texts) -> Tensor:
    """Counts an n-gram as often as the hypothesis repeats it."""
    return _matrix(lambda h, r: _chrf(h, r, clip=False), hypotheses, references)


def chrf_matrix__all_orders(hypotheses: Texts, references: Texts) -> Tensor:
    """Divides by six in any case."""
    return _matrix(lambda h, r: _chrf(h, r, all_orders=True), hypotheses, references)


def chrf_matrix__mean_of_f_scores(hypotheses: Texts, references: Texts) -> Tensor:
    """Averages the F-scores of the orders."""
    return _matrix(lambda h, r: _chrf(h, r, mean_of_f=True), hypotheses, references)


def chrf_matrix__four_orders(hypotheses: Texts, references: Texts) -> Tensor:
    """Takes BLEU's orders."""
    return _matrix(lambda h, r: _chrf(h, r, orders=4), hypotheses, references)


def chrf_matrix__nan(hypotheses: Texts, references: Texts) -> Tensor:
    """Divides zero by zero where nothing matches."""
    scores = reference.chrf_matrix(hypotheses, references)
    return scores * (scores / scores)


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())


def _f1(common: int, h: Sequence[str], r: Sequence[str]) -> float:
    return 2 * common / max(len(h) + len(r), 1)


def rouge_l_matrix__bag_of_words(hypotheses: Texts, references: Texts) -> Tensor:
    """Ignores the order of words (ROUGE-1)."""
    return _matrix(
        lambda h, r: _f1((Counter(_words(h)) & Counter(_words(r))).total(), _words(h), _words(r)),
        hypotheses, references,
    )  # fmt: skip


def rouge_l_matrix__substring(hypotheses: Texts, references: Texts) -> Tensor:
    """Takes the longest run of words without gaps."""

    def run(h: list[str], r: list[str]) -> int:
        best, row = 0, [0] * (len(r) + 1)
        for word in h:
            row = [0] + [row[j] + 1 if word == other else 0 for j, other in enumerate(r)]
            best = max(best, *row)
        return best

    return _matrix(lambda h, r: _f1(run(_words(h), _words(r)), _words(h), _words(r)), hypotheses, references)


def _subsequence(h: str, r: str, split: Callable[[str], list[str]]) -> tuple[int, list[str], list[str]]:
    first, second = split(h), split(r)
    return reference._longest_common_subsequence(first, second), first, second


def rouge_l_matrix__recall(hypotheses: Texts, references: Texts) -> Tensor:
    """Returns recall."""

    def recall(h: str, r: str) -> float:
        common, _, words = _subsequence(h, r, _words)
        return common / max(len(words), 1)

    return _matrix(recall, hypotheses, references)


def rouge_l_matrix__white_space_tokens(hypotheses: Texts, references: Texts) -> Tensor:
    """Splits at white space and keeps punctuation."""
    return _matrix(lambda h, r: _f1(*_subsequence(h, r, lambda t: t.lower().split())), hypotheses, references)


def rouge_l_matrix__case_kept(hypotheses: Texts, references: Texts) -> Tensor:
    """Tells upper from lower case."""
    return _matrix(
        lambda h, r: _f1(*_subsequence(h, r, lambda t: re.findall("[A-Za-z0-9]+", t))), hypotheses, references
    )


def rouge_l_matrix__punctuation_removed(hypotheses: Texts, references: Texts) -> Tensor:
    """Removes punctuation instead of separating at it."""
    return _matrix(
        lambda h, r: _f1(*_subsequence(h, r, lambda t: re.sub(r"[^a-z0-9\s]", "", t.lower()).split())),
        hypotheses, references,
    )  # fmt: skip


def rouge_l_matrix__characters(hypotheses: Texts, references: Texts) -> Tensor:
    """Compares letters instead of words."""
    return _matrix(lambda h, r: _f1(*_subsequence(h, r, lambda t: list("".join(_words(t))))), hypotheses, references)


def embedding_matrix__dot_product(embed: Embed, hypotheses: Texts, references: Texts) -> Tensor:
    """Does not normalise."""
    place = {text: i for i, text in enumerate(dict.fromkeys([*hypotheses, *references]))}
    vectors = embed(list(place)).double()
    return vectors[[place[h] for h in hypotheses]] @ vectors[[place[r] for r in references]].T


def embedding_matrix__two_calls(embed: Embed, hypotheses: Texts, references: Texts) -> Tensor:
    """Embeds hypotheses and references apart."""
    rows = reference.embedding_matrix(embed, hypotheses, references)
    embed(list(references))
    return rows


def embedding_matrix__duplicates_embedded(embed: Embed, hypotheses: Texts, references: Texts) -> Tensor:
    """Embeds equal texts again."""
    unit = torch.nn.functional.normalize(embed([*hypotheses, *references]).double(), dim=-1)
    return unit[: len(hypotheses)] @ unit[len(hypotheses) :].T


def embedding_matrix__nan(embed: Embed, hypotheses: Texts, references: Texts) -> Tensor:
    """Divides by a norm of 0."""

    def unit(texts: list[str]) -> Tensor:
        vectors = embed(texts)
        return vectors / vectors.norm(dim=-1, keepdim=True)

    return reference.embedding_matrix(unit, hypotheses, references)


def embedding_matrix__clamped(embed: Embed, hypotheses: Texts, references: Texts) -> Tensor:
    """Cuts negative similarities off."""
    return reference.embedding_matrix(embed, hypotheses, references).clamp_min(0)


def embedding_matrix__transposed(embed: Embed, hypotheses: Texts, references: Texts) -> Tensor:
    """Has a row for each reference."""
    return reference.embedding_matrix(embed, references, hypotheses)


def aggregate_chrf__mean_of_scores(hypotheses: Texts, references: Texts) -> Tensor:
    """Averages chrF over the references."""
    if not references:
        raise ValueError("no reference")
    return reference.chrf_matrix(hypotheses, references).mean(-1)


def aggregate_chrf__sum_of_counts(hypotheses: Texts, references: Texts) -> Tensor:
    """Adds the references' counts up."""
    return _aggregate(hypotheses, references, lambda total, n: float(total))


def aggregate_chrf__rounded(hypotheses: Texts, references: Texts) -> Tensor:
    """Rounds the mean counts."""
    return _aggregate(hypotheses, references, lambda total, n: float(round(total / n)))


def aggregate_chrf__different_references(hypotheses: Texts, references: Texts) -> Tensor:
    """Counts equal references once."""
    return reference.aggregate_chrf(hypotheses, list(dict.fromkeys(references)))


def aggregate_chrf__empty_references_left_out(hypotheses: Texts, references: Texts) -> Tensor:
    """Leaves empty references out of the mean."""
    kept = [text for text in references if text.strip()]
    return reference.aggregate_chrf(hypotheses, kept or references)


def aggregate_chrf__concatenated(hypotheses: Texts, references: Texts) -> Tensor:
    """Takes the references for one long text."""
    if not references:
        raise ValueError("no reference")
    return reference.chrf_matrix(hypotheses, ["".join(references)])[:, 0]


def aggregate_chrf__no_reference_is_zero(hypotheses: Texts, references: Texts) -> Tensor:
    """Returns zeros without references."""
    return reference.aggregate_chrf(hypotheses, references) if references else torch.zeros(len(hypotheses))


def _aggregate(hypotheses: Texts, references: Texts, mean: Callable[[int, int], float]) -> Tensor:
    if not references:
        raise ValueError("no reference")
    scores = []
    for h in hypotheses:
        pairs = []
        for n in range(1, 7):
            grams = [
                ["".join(t.split())[i : i + n] for i in range(len("".join(t.split())) - n + 1)]
                for t in [h, *references]
            ]
            sums = Counter(g for row in grams[1:] for g in row)
            means = {g: mean(c, len(references)) for g, c in sums.items()}
            total = sum(means.values())
            if grams[0] and total:
                matches = sum(min(c, means.get(g, 0.0)) for g, c in Counter(grams[0]).items())
                pairs.append((matches / len(grams[0]), matches / total))
        p, q = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)] or [0.0, 0.0]
        scores.append(500 * p * q / (4 * p + q) if p else 0.0)
    return torch.tensor(scores)
