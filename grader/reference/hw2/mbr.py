"""Minimum Bayes risk: choose the candidate that the other samples, on average, agree with most.

Every matrix of utilities has a row for each hypothesis and a column for each reference. No function changes its
arguments.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_BLEU_ORDERS = 4
_CHRF_ORDERS = 6


def expected_utility(
    utilities: Float[Tensor, "hypotheses references"], weights: Float[Tensor, "references"] | None = None
) -> Float[Tensor, "hypotheses"]:
    """Return the mean utility of each hypothesis over the references, weighted in proportion to `weights`.

    Without weights all references weigh the same. Raises ValueError unless there is a weight for each reference, none
    is negative, and one is positive.

    Paper: Kumar and Byrne, 2004, "Minimum Bayes-risk decoding for statistical machine translation".
    """
    if weights is None:
        return utilities.double().mean(-1)
    if weights.shape != utilities.shape[1:] or (weights < 0).any() or not (weights > 0).any():
        raise ValueError(
            f"expected {utilities.shape[1]} weights, at least 0, not all of them 0, got {weights.tolist()}"
        )
    weights = weights.double()
    return utilities.double() @ (weights / weights.sum())


def utility_matrix(
    utility: Callable[[str, str], float], hypotheses: Sequence[str], references: Sequence[str], symmetric: bool
) -> Float[Tensor, "hypotheses references"]:
    """Return `utility(hypothesis, reference)` of all pairs, with no call twice.

    Every different pair is asked for once, however often its texts occur. If the utility is `symmetric`,
    utility(a, b) = utility(b, a), only one of the two is asked for.
    """
    known: dict[tuple[str, str], float] = {}

    def value(hypothesis: str, reference: str) -> float:
        pair = (hypothesis, reference)
        if symmetric and hypothesis > reference:
            pair = (reference, hypothesis)
        if pair not in known:
            known[pair] = utility(*pair)
        return known[pair]

    rows = [[value(hypothesis, reference) for reference in references] for hypothesis in hypotheses]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(hypotheses), len(references))


def bleu_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return sentence BLEU, from 0 to 100, of each hypothesis against each reference alone.

    Tokens are what white space separates. Orders 1 to 4, but only those of which the hypothesis has an n-gram
    (effective order); exponential smoothing: the k-th order without a match counts 2 ** -k matches; 0 where no order
    has a match. As sacrebleu's BLEU(tokenize="none", effective_order=True).

    Papers: Papineni et al., 2002, https://aclanthology.org/P02-1040; Chen and Cherry, 2014 (method 3).
    """
    hypothesis_words = [text.split() for text in hypotheses]
    reference_words = [text.split() for text in references]
    lengths, reference_lengths = _lengths(hypothesis_words)[:, None], _lengths(reference_words)
    missed = torch.zeros(len(hypotheses), len(references), dtype=torch.float64)
    log_precisions, matched = torch.zeros_like(missed), torch.zeros_like(missed)
    for order in range(1, _BLEU_ORDERS + 1):
        total = (lengths - order + 1).clamp_min(0)
        matches = _clipped_matches(_ngrams(hypothesis_words, order), _ngrams(reference_words, order))
        matched += matches
        missed += (matches == 0) & (total > 0)
        smoothed = torch.where(matches > 0, matches, 2.0**-missed)
        log_precisions += torch.where(total > 0, (smoothed / total).log(), 0)
    orders = lengths.clamp(1, _BLEU_ORDERS)
    brevity = (1 - reference_lengths / lengths.clamp_min(1)).clamp_max(0)
    return torch.where(matched > 0, 100 * (brevity + log_precisions / orders).exp(), 0)


def chrf_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return chrF, from 0 to 100, of each hypothesis against each reference alone.

    Character n-grams of orders 1 to 6, white space left out; precision and recall averaged over the orders of which
    both texts have an n-gram; F with beta = 2. 0 where nothing matches. As sacrebleu's CHRF().

    Paper: Popović, 2015, https://aclanthology.org/W15-3049.
    """
    hypothesis_letters = ["".join(text.split()) for text in hypotheses]
    reference_letters = ["".join(text.split()) for text in references]
    orders = range(1, _CHRF_ORDERS + 1)
    totals = [
        [(_lengths(texts) - n + 1).clamp_min(0) for n in orders] for texts in (hypothesis_letters, reference_letters)
    ]
    matches = [_clipped_matches(_ngrams(hypothesis_letters, n), _ngrams(reference_letters, n)) for n in orders]
    return _chrf(torch.stack(totals[0])[:, :, None], torch.stack(totals[1])[:, None, :], torch.stack(matches))


def rouge_l_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return ROUGE-L, from 0 to 1, of each hypothesis against each reference alone.

    The F1 of precision and recall of the longest common subsequence of the texts' tokens; tokens are runs of the
    letters a to z and of digits in the text in lower case. 0 for a text without tokens. As rouge_score's rougeL without
    stemming.

    Paper: Lin, 2004, https://aclanthology.org/W04-1013.
    """
    tokens = {text: re.findall("[a-z0-9]+", text.lower()) for text in {*hypotheses, *references}}

    def f1(hypothesis: str, reference: str) -> float:
        first, second = tokens[hypothesis], tokens[reference]
        return 2 * _longest_common_subsequence(first, second) / max(len(first) + len(second), 1)

    return utility_matrix(f1, hypotheses, references, symmetric=True)


def embedding_matrix(
    embed: Callable[[list[str]], Float[Tensor, "texts features"]], hypotheses: Sequence[str], references: Sequence[str]
) -> Float[Tensor, "hypotheses references"]:
    """Return the cosine similarity of the embeddings of each hypothesis and each reference.

    `embed` is called once, with every different text of both lists once. The similarity with an embedding of zeros is
    0.
    """
    place = {text: i for i, text in enumerate(dict.fromkeys([*hypotheses, *references]))}
    unit = torch.nn.functional.normalize(embed(list(place)).double(), dim=-1)
    rows, columns = ([place[text] for text in texts] for texts in (hypotheses, references))
    return unit[rows] @ unit[columns].T


def aggregate_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses"]:
    """Return chrF, from 0 to 100, of each hypothesis against the average of all references, in linear time.

    The average reference has of each n-gram its mean number of occurrences over the references. All else is as in
    `chrf_matrix`: matches of an n-gram are the smaller of its two numbers; an order counts if hypothesis and average
    reference both have an n-gram of it. Raises ValueError when there is no reference.

    Paper: Vamvas and Sennrich, 2024, https://arxiv.org/abs/2402.04251.
    """
    if not references:
        raise ValueError("expected at least one reference, got none")
    letters = ["".join(text.split()) for text in hypotheses]
    reference_letters = ["".join(text.split()) for text in references]
    totals, reference_totals, matches = [], [], []
    for order in range(1, _CHRF_ORDERS + 1):
        sums = Counter(gram for grams in _ngrams(reference_letters, order) for gram in grams)
        mean = {gram: count / len(references) for gram, count in sums.items()}
        counts = [Counter(grams) for grams in _ngrams(letters, order)]
        totals.append([c.total() for c in counts])
        reference_totals.append([sums.total() / len(references)])
        matches.append([sum(min(number, mean.get(gram, 0.0)) for gram, number in c.items()) for c in counts])
    return _chrf(*(torch.tensor(rows, dtype=torch.float64) for rows in (totals, reference_totals, matches)))


def _lengths(texts: Sequence[Sequence[str]]) -> Float[Tensor, "texts"]:
    return torch.tensor([len(text) for text in texts], dtype=torch.float64)


def _ngrams(texts: Sequence[Sequence[str]], order: int) -> list[list[Hashable]]:
    """Return the n-grams of each text: strings of a string, tuples of a list."""
    return [
        [
            text[i : i + order] if isinstance(text, str) else tuple(text[i : i + order])
            for i in range(len(text) - order + 1)
        ]
        for text in texts
    ]


def _clipped_matches(
    hypotheses: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]]
) -> Float[Tensor, "hypotheses references"]:
    """Return the number of n-grams that each hypothesis and each reference share, as often as both have them.

    The k-th occurrence of an n-gram is an item of its own: what two texts share is then the intersection of two sets,
    and all intersections together are one product of 0/1 matrices.
    """
    places: dict[tuple[Hashable, int], int] = {}
    columns = [[places.setdefault(item, len(places)) for item in _numbered(grams)] for grams in references]
    rows = [[places[item] for item in _numbered(grams) if item in places] for grams in hypotheses]
    return (_incidence(rows, len(places)) @ _incidence(columns, len(places)).T).double()


def _numbered(grams: Sequence[Hashable]) -> list[tuple[Hashable, int]]:
    seen: Counter[Hashable] = Counter()
    items = []
    for gram in grams:
        items.append((gram, seen[gram]))
        seen[gram] += 1
    return items


def _incidence(rows: Sequence[Sequence[int]], width: int) -> Float[Tensor, "rows width"]:
    matrix = torch.zeros(len(rows), width)  # float32 is exact for sums of fewer than 2 ** 24 ones
    matrix[[i for i, row in enumerate(rows) for _ in row], [place for row in rows for place in row]] = 1.0
    return matrix


def _chrf(
    totals: Float[Tensor, "orders *#shape"],
    reference_totals: Float[Tensor, "orders *#shape"],
    matches: Float[Tensor, "orders *shape"],
) -> Float[Tensor, "*shape"]:
    counted = (totals > 0) & (reference_totals > 0)
    orders = counted.sum(0).clamp_min(1)
    precision = torch.where(counted, matches / totals, 0).sum(0) / orders
    recall = torch.where(counted, matches / reference_totals, 0).sum(0) / orders
    return torch.where(precision + recall > 0, 100 * 5 * precision * recall / (4 * precision + recall), 0)


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Return its length, a row of the usual table at a time, as the bits of one integer.

    Paper: Hyyrö, 2004, "Bit-parallel LCS-length computation revisited".
    """
    where: dict[str, int] = {}
    for i, token in enumerate(second):
        where[token] = where.get(token, 0) | 1 << i
    full = (1 << len(second)) - 1
    row = full
    for token in first:
        matches = row & where.get(token, 0)
        row = (row + matches) | (row - matches)
    return len(second) - (row & full).bit_count()
