"""A second correct solution of `mbr`: counters, loops and tables instead of matrix products and bits."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def expected_utility(
    utilities: Float[Tensor, "hypotheses references"], weights: Float[Tensor, "references"] | None = None
) -> Float[Tensor, "hypotheses"]:
    """Add up row by row."""
    shares = [1.0] * utilities.shape[1] if weights is None else weights.tolist()
    if len(shares) != utilities.shape[1] or min(shares) < 0 or sum(shares) == 0:
        raise ValueError("unusable weights")
    rows = utilities.tolist()
    return torch.tensor([sum(w * u for w, u in zip(shares, row, strict=True)) / sum(shares) for row in rows])


def utility_matrix(
    utility: Callable[[str, str], float], hypotheses: Sequence[str], references: Sequence[str], symmetric: bool
) -> Float[Tensor, "hypotheses references"]:
    """Fill a table of different texts first."""
    table: dict[tuple[str, str], float] = {}
    for h in set(hypotheses):
        for r in set(references):
            if symmetric and (r, h) in table:
                table[h, r] = table[r, h]
            else:
                table[h, r] = utility(h, r)
    return torch.tensor([[float(table[h, r]) for r in references] for h in hypotheses])


def _counts(sequence: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(sequence[i:] for i in range(order)), strict=False))


def _bleu(h: list[str], r: list[str], h_counts: list[Counter], r_counts: list[Counter]) -> float:
    precisions, halves = [], 1.0
    matched = [(a & b).total() for a, b in zip(h_counts, r_counts, strict=True)]
    if sum(matched) == 0:
        return 0.0
    for counts, matches in zip(h_counts, matched, strict=True):
        if counts:
            if not matches:
                halves /= 2
            precisions.append((matches or halves) / counts.total())
    penalty = 1.0 if len(h) >= len(r) else math.exp(1 - len(r) / len(h))
    return 100 * penalty * math.prod(precisions) ** (1 / len(precisions))


def bleu_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Count the n-grams of each text once."""
    hs, rs = [text.split() for text in hypotheses], [text.split() for text in references]
    h_counts = [[_counts(words, n) for n in (1, 2, 3, 4)] for words in hs]
    r_counts = [[_counts(words, n) for n in (1, 2, 3, 4)] for words in rs]
    return torch.tensor(
        [[_bleu(h, r, a, b) for r, b in zip(rs, r_counts, strict=True)] for h, a in zip(hs, h_counts, strict=True)]
    )


def _f_score(pairs: list[tuple[float, float, float]]) -> float:
    """Return chrF of (matches, number in the hypothesis, number in the reference) for each order."""
    used = [pair for pair in pairs if pair[1] and pair[2]]
    if not any(matches for matches, _, _ in used):
        return 0.0
    precision = sum(matches / h for matches, h, _ in used) / len(used)
    recall = sum(matches / r for matches, _, r in used) / len(used)
    return 100 / (0.2 / precision + 0.8 / recall)


def _characters(text: str) -> list[Counter]:
    return [_counts(re.sub(r"\s", "", text), n) for n in range(1, 7)]


def chrf_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Intersect counters."""
    h_counts, r_counts = list(map(_characters, hypotheses)), list(map(_characters, references))
    return torch.tensor([
        [_f_score([((a & b).total(), a.total(), b.total()) for a, b in zip(h, r, strict=True)]) for r in r_counts]
        for h in h_counts
    ])  # fmt: skip


def _common(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for token in first:
        new = [0]
        for j, other in enumerate(second):
            new.append(row[j] + 1 if token == other else max(row[j + 1], new[j]))
        row = new
    return row[-1]


def rouge_l_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Fill the usual table for each pair."""

    def words(text: str) -> list[str]:
        return re.sub("[^a-z0-9]", " ", text.lower()).split()

    scores = []
    for h in map(words, hypotheses):
        scores.append([])
        for r in map(words, references):
            common = _common(h, r)
            precision, recall = common / max(len(h), 1), common / max(len(r), 1)
            scores[-1].append(2 * precision * recall / (precision + recall) if common else 0.0)
    return torch.tensor(scores)


def embedding_matrix(
    embed: Callable[[list[str]], Float[Tensor, "texts features"]], hypotheses: Sequence[str], references: Sequence[str]
) -> Float[Tensor, "hypotheses references"]:
    """Keep the vectors in a table."""
    texts = sorted(set(hypotheses) | set(references))
    vectors = dict(zip(texts, embed(texts).tolist(), strict=True))

    def cosine(first: list[float], second: list[float]) -> float:
        norm = math.hypot(*first) * math.hypot(*second)
        return sum(a * b for a, b in zip(first, second, strict=True)) / norm if norm else 0.0

    return torch.tensor([[cosine(vectors[h], vectors[r]) for r in references] for h in hypotheses])


def aggregate_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses"]:
    """Compare n times the hypothesis with the sum of the references."""
    if len(references) == 0:
        raise ValueError("no reference")
    n = len(references)
    sums: list[Counter] = [Counter() for _ in range(6)]
    for reference in references:
        for total, counts in zip(sums, _characters(reference), strict=True):
            total.update(counts)
    scores = []
    for hypothesis in hypotheses:
        scaled = [Counter({gram: n * count for gram, count in counts.items()}) for counts in _characters(hypothesis)]
        scores.append(_f_score([((a & b).total(), a.total(), b.total()) for a, b in zip(scaled, sums, strict=True)]))
    return torch.tensor(scores)
