"""Minimum Bayes risk: choose the candidate that the other samples, on average, agree with most.

Every matrix of utilities has a row for each hypothesis and a column for each reference. No function changes its
arguments.
"""

from collections.abc import Callable, Sequence

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
    raise NotImplementedError


def utility_matrix(
    utility: Callable[[str, str], float], hypotheses: Sequence[str], references: Sequence[str], symmetric: bool
) -> Float[Tensor, "hypotheses references"]:
    """Return `utility(hypothesis, reference)` of all pairs, with no call twice.

    Every different pair is asked for once, however often its texts occur. If the utility is `symmetric`,
    utility(a, b) = utility(b, a), only one of the two is asked for.
    """
    raise NotImplementedError


def bleu_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return sentence BLEU, from 0 to 100, of each hypothesis against each reference alone.

    Tokens are what white space separates. Orders 1 to 4, but only those of which the hypothesis has an n-gram
    (effective order); exponential smoothing: the k-th order without a match counts 2 ** -k matches; 0 where no order
    has a match. As sacrebleu's BLEU(tokenize="none", effective_order=True).

    Papers: Papineni et al., 2002, https://aclanthology.org/P02-1040; Chen and Cherry, 2014 (method 3).
    """
    raise NotImplementedError


def chrf_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return chrF, from 0 to 100, of each hypothesis against each reference alone.

    Character n-grams of orders 1 to 6, white space left out; precision and recall averaged over the orders of which
    both texts have an n-gram; F with beta = 2. 0 where nothing matches. As sacrebleu's CHRF().

    Paper: Popović, 2015, https://aclanthology.org/W15-3049.
    """
    raise NotImplementedError


def rouge_l_matrix(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses references"]:
    """Return ROUGE-L, from 0 to 1, of each hypothesis against each reference alone.

    The F1 of precision and recall of the longest common subsequence of the texts' tokens; tokens are runs of the
    letters a to z and of digits in the text in lower case. 0 for a text without tokens. As rouge_score's rougeL without
    stemming.

    Paper: Lin, 2004, https://aclanthology.org/W04-1013.
    """
    raise NotImplementedError


def embedding_matrix(
    embed: Callable[[list[str]], Float[Tensor, "texts features"]], hypotheses: Sequence[str], references: Sequence[str]
) -> Float[Tensor, "hypotheses references"]:
    """Return the cosine similarity of the embeddings of each hypothesis and each reference.

    `embed` is called once, with every different text of both lists once. The similarity with an embedding of zeros is
    0.
    """
    raise NotImplementedError


def aggregate_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Float[Tensor, "hypotheses"]:
    """Return chrF, from 0 to 100, of each hypothesis against the average of all references, in linear time.

    The average reference has of each n-gram its mean number of occurrences over the references. All else is as in
    `chrf_matrix`: matches of an n-gram are the smaller of its two numbers; an order counts if hypothesis and average
    reference both have an n-gram of it. Raises ValueError when there is no reference.

    Paper: Vamvas and Sennrich, 2024, https://arxiv.org/abs/2402.04251.
    """
    raise NotImplementedError
