"""Minimum Bayes risk: choose the candidate that the other samples, on average, agree with most.

Every matrix of utilities has a row for each hypothesis and a column for each reference. No function changes its
arguments.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def expected_utility(
    utilities: Float[Tensor, "hypotheses references"], weights: Float[Tensor, "references"] | None = None
) -> Float[Tensor, "hypotheses"]:
    """Return the mean utility of each hypothesis over the references, weighted in proportion to `weights`.

    Without weights all references weigh the same. Raises ValueError unless there is a weight for each reference, none
    is negative, and one is positive.

    Paper: Kumar and Byrne, 2004, "Minimum Bayes-risk decoding for statistical machine translation".
    """
    references = utilities.shape[1]
    weights = torch.ones(references) if weights is None else weights
    if weights.shape != (references,):
        raise ValueError(f"expected a weight for each of {references} references, got shape {tuple(weights.shape)}")
    if not ((weights >= 0).all() and (weights > 0).any()):
        raise ValueError(f"expected weights of at least 0, one of them positive, got {weights.tolist()}")
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
    for h in dict.fromkeys(hypotheses):
        for r in dict.fromkeys(references):
            known[h, r] = known[r, h] if symmetric and (r, h) in known else utility(h, r)
    return _matrix([[known[h, r] for r in references] for h in hypotheses], hypotheses, references)


def bleu_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return sentence BLEU, from 0 to 100, of each hypothesis against each reference alone.

    Tokens are what white space separates. Orders 1 to 4, but only those of which the hypothesis has an n-gram
    (effective order); exponential smoothing: the k-th order without a match counts 2 ** -k matches; 0 where no order
    has a match. As sacrebleu's BLEU(tokenize="none", effective_order=True).

    Papers: Papineni et al., 2002, https://aclanthology.org/P02-1040; Chen and Cherry, 2014 (method 3).
    """
    h_words, r_words = [h.split() for h in hypotheses], [r.split() for r in references]
    h_length, r_length = _lengths(h_words)[:, None], _lengths(r_words)[None, :]
    log_precisions = torch.zeros(len(hypotheses), len(references), dtype=torch.float64)
    without_match = torch.zeros_like(log_precisions)  # how many of the orders so far had no match
    orders = h_length.clamp(1, 4)
    for k in range(1, 5):
        matches = _clipped_matches([_ngrams(words, k) for words in h_words], [_ngrams(words, k) for words in r_words])
        without_match += matches == 0
        counted = torch.where(matches == 0, 2.0**-without_match, matches)
        total = h_length - k + 1
        log_precisions += torch.where(total > 0, (counted / total.clamp_min(1)).log(), 0.0)
    brevity = (1 - r_length / h_length.clamp_min(1)).clamp_max(0).exp()
    return torch.where(without_match == 4, 0.0, 100 * brevity * (log_precisions / orders).exp())


def chrf_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return chrF, from 0 to 100, of each hypothesis against each reference alone.

    Character n-grams of orders 1 to 6, white space left out; precision and recall averaged over the orders of which
    both texts have an n-gram; F with beta = 2. 0 where nothing matches. As sacrebleu's CHRF().

    Paper: Popović, 2015, https://aclanthology.org/W15-3049.
    """
    h_chars, r_chars = [_characters(h) for h in hypotheses], [_characters(r) for r in references]
    h_length, r_length = _lengths(h_chars)[:, None], _lengths(r_chars)[None, :]
    orders = []
    for k in range(1, 7):
        matches = _clipped_matches([_ngrams(text, k) for text in h_chars], [_ngrams(text, k) for text in r_chars])
        orders.append((matches, (h_length - k + 1).clamp_min(0), (r_length - k + 1).clamp_min(0)))
    return _chrf(orders)


def rouge_l_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return ROUGE-L, from 0 to 1, of each hypothesis against each reference alone.

    The F1 of precision and recall of the longest common subsequence of the texts' tokens; tokens are runs of the
    letters a to z and of digits in the text in lower case. 0 for a text without tokens. As rouge_score's rougeL without
    stemming.

    Paper: Lin, 2004, https://aclanthology.org/W04-1013.
    """
    tokens = {text: re.findall("[a-z0-9]+", text.lower()) for text in {*hypotheses, *references}}

    def rouge_l(h: str, r: str) -> float:
        length = len(tokens[h]) + len(tokens[r])
        return 2 * _lcs_length(tokens[h], tokens[r]) / length if length else 0.0

    return utility_matrix(rouge_l, hypotheses, references, symmetric=True)


def embedding_matrix(
    embed: Callable[[list[str]], Float[Tensor, "texts features"]], hypotheses: Sequence[str], references: Sequence[str]
) -> Float[Tensor, "hypotheses references"]:
    """Return the cosine similarity of the embeddings of each hypothesis and each reference.

    `embed` is called once, with every different text of both lists once. The similarity with an embedding of zeros is
    0.
    """
    texts = list(dict.fromkeys([*hypotheses, *references]))
    row = {text: i for i, text in enumerate(texts)}
    embeddings = embed(texts).double()
    lengths = embeddings.norm(dim=1, keepdim=True)
    units = embeddings / torch.where(lengths > 0, lengths, 1.0)
    return units[[row[h] for h in hypotheses]] @ units[[row[r] for r in references]].T


def aggregate_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses"]:
    """Return chrF, from 0 to 100, of each hypothesis against the average of all references, in linear time.

    The average reference has of each n-gram its mean number of occurrences over the references. All else is as in
    `chrf_matrix`: matches of an n-gram are the smaller of its two numbers; an order counts if hypothesis and average
    reference both have an n-gram of it. Raises ValueError when there is no reference.

    Paper: Vamvas and Sennrich, 2024, https://arxiv.org/abs/2402.04251.
    """
    if not references:
        raise ValueError("expected at least one reference, got none")
    h_chars, r_chars = [_characters(h) for h in hypotheses], [_characters(r) for r in references]
    orders = []
    for k in range(1, 7):
        total = Counter(ngram for text in r_chars for ngram in _ngrams(text, k))
        average = {ngram: count / len(references) for ngram, count in total.items()}
        counts = [Counter(_ngrams(text, k)) for text in h_chars]
        matches = [sum(min(count, average.get(g, 0.0)) for g, count in own.items()) for own in counts]
        orders.append(
            (
                torch.tensor(matches, dtype=torch.float64),
                torch.tensor([own.total() for own in counts], dtype=torch.float64),
                torch.tensor(total.total() / len(references), dtype=torch.float64),
            )
        )
    return _chrf(orders)


def _matrix(rows: list[list[float]], hypotheses: Sequence[str], references: Sequence[str]) -> Tensor:
    """Return rows as a matrix, which keeps its shape where one side is empty."""
    return torch.tensor(rows, dtype=torch.float64).reshape(len(hypotheses), len(references))


def _lengths(texts: Sequence[Sequence[str]]) -> Tensor:
    return torch.tensor([len(text) for text in texts], dtype=torch.float64)


def _characters(text: str) -> str:
    """Return a text without its white space."""
    return "".join(text.split())


def _ngrams(tokens: Sequence[str], k: int) -> list[str | tuple[str, ...]]:
    """Return all n-grams of k tokens; those of a text are texts."""
    return [tokens[i : i + k] if isinstance(tokens, str) else tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1)]


def _clipped_matches(hypotheses: Sequence[Sequence], references: Sequence[Sequence]) -> Tensor:
    """Return for all pairs of lists of n-grams the size of their intersection as multisets.

    The k-th occurrence of an n-gram is an item of its own, so that this is a product of two 0/1 matrices.
    """
    columns: dict[tuple, int] = {}

    def places(ngrams: Sequence) -> list[int]:
        seen: Counter = Counter()
        found = []
        for ngram in ngrams:
            found.append(columns.setdefault((ngram, seen[ngram]), len(columns)))
            seen[ngram] += 1
        return found

    rows = [places(ngrams) for ngrams in [*hypotheses, *references]]
    has = torch.zeros(len(rows), len(columns))
    for i, found in enumerate(rows):
        has[i, found] = 1.0
    return (has[: len(hypotheses)] @ has[len(hypotheses) :].T).double()


def _chrf(orders: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Return chrF from matches, n-grams of the hypothesis and n-grams of the reference of each order."""
    precision = recall = count = 0.0
    for matches, t, s in orders:
        both = (t > 0) & (s > 0)
        precision = precision + torch.where(both, matches / t, 0.0)
        recall = recall + torch.where(both, matches / s, 0.0)
        count = count + both
    precision, recall = precision / count.clamp_min(1), recall / count.clamp_min(1)
    return torch.where(precision > 0, 100 * 5 * precision * recall / (4 * precision + recall), 0.0)


def _lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, a row of the usual table at a time in the bits of an int."""
    where: dict[str, int] = {}
    for i, token in enumerate(a):
        where[token] = where.get(token, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full  # bit i is 0 where the row's length rises from i to i + 1
    for token in b:
        hit = row & where.get(token, 0)
        row = (row + hit | row - hit) & full
    return len(a) - row.bit_count()
