"""Plausible wrong solutions of `scoring`; every one must fail a hidden test.

A mutant `NAME__the_bug_in_words` replaces NAME in a fresh copy of the reference module.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grader.reference.hw1 import scoring
from grader.reference.hw1.scoring import Ranking
from shared_tasks.models.language_model import LanguageModel

Sequences = Sequence[Sequence[int]]
Scores = Float[Tensor, "batch"]
Batch = Float[Tensor, "*batch"]
Logprobs = Float[Tensor, "*batch vocab"]
Confidences = Float[Tensor, "n"]
Correct = Bool[Tensor, "n"]


# sequence_logprobs


def sequence_logprobs__without_first_token(model: LanguageModel, sequences: Sequences) -> Scores:
    """Scores from the second token on, as a shift of logits against labels does."""
    return scoring.conditional_logprobs(model, [x[:1] for x in sequences], [x[1:] for x in sequences])


def sequence_logprobs__without_last_token(model: LanguageModel, sequences: Sequences) -> Scores:
    """Leaves the last token of every sequence out."""
    return scoring.sequence_logprobs(model, [x[:-1] for x in sequences])


def sequence_logprobs__rows_shifted_by_one(model: LanguageModel, sequences: Sequences) -> Scores:
    """Scores each token with the row that already has the token in its context."""
    totals = []
    for x in sequences:
        rows = model.next_token_logprobs([x[: t + 1] for t in range(len(x))])
        totals.append(sum((rows[t, token] for t, token in enumerate(x)), torch.tensor(0.0)))
    return torch.stack(totals)


def sequence_logprobs__unconditional_tokens(model: LanguageModel, sequences: Sequences) -> Scores:
    """Scores every token in the empty context."""
    row = model.next_token_logprobs([[]])[0]
    return torch.stack([row[list(x)].sum() for x in sequences])


def sequence_logprobs__end_token_not_scored(model: LanguageModel, sequences: Sequences) -> Scores:
    """Takes the end token for padding and masks it."""
    scores = model.continuation_logprobs([[]] * len(sequences), sequences)
    kept = [
        [s for s, t in zip(row, x, strict=True) if t != model.eos_token_id]
        for row, x in zip(scores, sequences, strict=True)
    ]
    return torch.tensor([math.fsum(row) for row in kept])


def sequence_logprobs__token_zero_not_scored(model: LanguageModel, sequences: Sequences) -> Scores:
    """Takes token 0 for padding and masks it."""
    scores = model.continuation_logprobs([[]] * len(sequences), sequences)
    kept = [[s for s, t in zip(row, x, strict=True) if t != 0] for row, x in zip(scores, sequences, strict=True)]
    return torch.tensor([math.fsum(row) for row in kept])


def sequence_logprobs__stops_at_end_token(model: LanguageModel, sequences: Sequences) -> Scores:
    """Ignores what comes after the first end token."""
    end = model.eos_token_id
    return scoring.sequence_logprobs(model, [x[: list(x).index(end) + 1] if end in x else x for x in sequences])


def sequence_logprobs__end_token_appended(model: LanguageModel, sequences: Sequences) -> Scores:
    """Appends the end token to every sequence that lacks it."""
    end = model.eos_token_id
    return scoring.sequence_logprobs(model, [[*x] if end in x else [*x, end] for x in sequences])


def sequence_logprobs__counts_padding(model: LanguageModel, sequences: Sequences) -> Scores:
    """Pads on the right to the longest sequence and scores the padding too."""
    longest = max(map(len, sequences))
    return scoring.sequence_logprobs(model, [[*x, *[model.eos_token_id] * (longest - len(x))] for x in sequences])


def sequence_logprobs__padding_in_context(model: LanguageModel, sequences: Sequences) -> Scores:
    """Pads on the left to the longest sequence, so that every position shifts."""
    longest = max(map(len, sequences))
    padding = [[model.eos_token_id] * (longest - len(x)) for x in sequences]
    return scoring.conditional_logprobs(model, padding, sequences)


def sequence_logprobs__mean_over_tokens(model: LanguageModel, sequences: Sequences) -> Scores:
    """Divides by the length."""
    return scoring.sequence_logprobs(model, sequences) / torch.tensor([max(len(x), 1) for x in sequences])


def sequence_logprobs__probability(model: LanguageModel, sequences: Sequences) -> Scores:
    """Returns P(x) instead of its logarithm."""
    return scoring.sequence_logprobs(model, sequences).exp()


def sequence_logprobs__in_bits(model: LanguageModel, sequences: Sequences) -> Scores:
    """Returns bits instead of nats."""
    return scoring.sequence_logprobs(model, sequences) / math.log(2)


def sequence_logprobs__negated(model: LanguageModel, sequences: Sequences) -> Scores:
    """Returns the negative log-likelihood."""
    return -scoring.sequence_logprobs(model, sequences)


def sequence_logprobs__clamped(model: LanguageModel, sequences: Sequences) -> Scores:
    """Adds a small constant to the probability, so that nothing is impossible."""
    return (scoring.sequence_logprobs(model, sequences).exp() + 1e-12).log()


def sequence_logprobs__empty_is_nan(model: LanguageModel, sequences: Sequences) -> Scores:
    """Multiplies the mean over tokens by the length, which is NaN for the empty sequence."""
    scores = model.continuation_logprobs([[]] * len(sequences), sequences)
    return torch.stack([row.mean() * len(row) for row in scores])


def sequence_logprobs__nan_for_impossible(model: LanguageModel, sequences: Sequences) -> Scores:
    """Masks by multiplication with one-hot rows, so that 0 times -inf is NaN."""
    totals = []
    for x in sequences:
        rows = model.next_token_logprobs([x[:t] for t in range(len(x))])
        totals.append((rows * torch.nn.functional.one_hot(torch.tensor(x, dtype=torch.long), model.vocab_size)).sum())
    return torch.stack(totals)


def sequence_logprobs__changes_input(model: LanguageModel, sequences: list[list[int]]) -> Scores:
    """Pads the caller's lists in place."""
    scores = scoring.sequence_logprobs(model, sequences)
    longest = max(map(len, sequences))
    for x in sequences:
        x.extend([model.eos_token_id] * (longest - len(x)))
    return scores


# conditional_logprobs


def conditional_logprobs__tokens_in_bytes(model: LanguageModel, prompts: Sequences, continuations: Sequences) -> Scores:
    """Keeps token ids in eight bits, which no small vocabulary minds."""
    small = [torch.tensor(tokens).to(torch.uint8).tolist() for tokens in continuations]
    return scoring.conditional_logprobs(model, prompts, small)


def conditional_logprobs__joint(model: LanguageModel, prompts: Sequences, continuations: Sequences) -> Scores:
    """Scores the prompt too."""
    pairs = zip(prompts, continuations, strict=True)
    return torch.stack([scoring.sequence_logprobs(model, [[*x, *y]])[0] for x, y in pairs])


def conditional_logprobs__ignores_prompt(model: LanguageModel, prompts: Sequences, continuations: Sequences) -> Scores:
    """Scores the continuation as if there were no prompt."""
    return scoring.conditional_logprobs(model, [[]] * len(prompts), continuations)


def conditional_logprobs__joint_minus_prompt(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Subtracts log P(x) from log P(x, y), which is NaN after an impossible prompt."""
    joint = [[*x, *y] for x, y in zip(prompts, continuations, strict=True)]
    return torch.stack([row.sum() for row in model.continuation_logprobs([[]] * len(joint), joint)]) - torch.stack(
        [row.sum() for row in model.continuation_logprobs([[]] * len(prompts), prompts)]
    )


def conditional_logprobs__without_first_token(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Leaves out the first token of the continuation, an off-by-one at the seam."""
    pairs = list(zip(prompts, continuations, strict=True))
    rows = model.continuation_logprobs([[*x, *y[:1]] for x, y in pairs], [y[1:] for _, y in pairs])
    return torch.stack([row.sum() for row in rows])


def conditional_logprobs__with_last_prompt_token(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Scores the last token of the prompt too, an off-by-one at the seam."""
    pairs = list(zip(prompts, continuations, strict=True))
    rows = model.continuation_logprobs([x[:-1] for x, _ in pairs], [[*x[-1:], *y] for x, y in pairs])
    return torch.stack([row.sum() for row in rows])


def conditional_logprobs__padding_in_context(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Pads prompts on the left to the longest, so that every position shifts."""
    longest = max(map(len, prompts))
    padded = [[*[model.eos_token_id] * (longest - len(x)), *x] for x in prompts]
    if len(prompts) != len(continuations):
        raise ValueError("not as many continuations as prompts")
    return torch.stack([row.sum() for row in model.continuation_logprobs(padded, continuations)])


def conditional_logprobs__first_prompt_for_all(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Conditions every continuation on the first prompt."""
    if len(prompts) != len(continuations):
        raise ValueError("not as many continuations as prompts")
    rows = model.continuation_logprobs([prompts[0]] * len(prompts), continuations)
    return torch.stack([row.sum() for row in rows])


def conditional_logprobs__prompt_cut_at_end_token(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Drops end tokens from the prompt."""
    end = model.eos_token_id
    return scoring.conditional_logprobs(model, [[t for t in x if t != end] for x in prompts], continuations)


def conditional_logprobs__stops_at_end_token(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Ignores what comes after the first end token of the continuation."""
    end = model.eos_token_id
    cut = [y[: list(y).index(end) + 1] if end in y else y for y in continuations]
    return scoring.conditional_logprobs(model, prompts, cut)


def conditional_logprobs__end_token_not_scored(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Leaves a final end token of the continuation out."""
    cut = [y[:-1] if list(y[-1:]) == [model.eos_token_id] else y for y in continuations]
    return scoring.conditional_logprobs(model, prompts, cut)


def conditional_logprobs__mean_over_tokens(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Divides by the length of the continuation."""
    lengths = torch.tensor([max(len(y), 1) for y in continuations])
    return scoring.conditional_logprobs(model, prompts, continuations) / lengths


def conditional_logprobs__drops_unpaired(model: LanguageModel, prompts: Sequences, continuations: Sequences) -> Scores:
    """Drops what is left over of the longer list instead of raising ValueError."""
    n = min(len(prompts), len(continuations))
    return scoring.conditional_logprobs(model, prompts[:n], continuations[:n])


def conditional_logprobs__extra_prompts_dropped(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Raises ValueError only when there are too few prompts."""
    return scoring.conditional_logprobs(model, prompts[: len(continuations)], continuations)


def conditional_logprobs__nan_for_impossible(
    model: LanguageModel, prompts: Sequences, continuations: Sequences
) -> Scores:
    """Turns -inf into a large finite number."""
    return scoring.conditional_logprobs(model, prompts, continuations).nan_to_num()


def conditional_logprobs__changes_input(
    model: LanguageModel, prompts: list[list[int]], continuations: Sequences
) -> Scores:
    """Appends the continuations to the caller's prompts."""
    scores = scoring.conditional_logprobs(model, prompts, continuations)
    for x, y in zip(prompts, continuations, strict=True):
        x += y
    return scores


# perplexity


def perplexity__mean_of_sequence_means(model: LanguageModel, sequences: Sequences) -> float:
    """Averages per sequence first, so that tokens of short sequences weigh more."""
    kept = [x for x in sequences if x]
    if not kept:
        raise ValueError("no token")
    means = [float(scoring.sequence_logprobs(model, [x])[0]) / len(x) for x in kept]
    return math.exp(-sum(means) / len(means))


def perplexity__mean_of_perplexities(model: LanguageModel, sequences: Sequences) -> float:
    """Averages the perplexities of the sequences."""
    kept = [x for x in sequences if x]
    if not kept:
        raise ValueError("no token")
    return sum(scoring.perplexity(model, [x]) for x in kept) / len(kept)


def perplexity__per_sequence(model: LanguageModel, sequences: Sequences) -> float:
    """Divides by the number of sequences instead of tokens."""
    if not any(sequences):
        raise ValueError("no token")
    return float((-scoring.sequence_logprobs(model, sequences).sum() / len(sequences)).exp())


def perplexity__base_two(model: LanguageModel, sequences: Sequences) -> float:
    """Raises 2, not e, to a mean in nats."""
    return float(2 ** math.log(scoring.perplexity(model, sequences)))


def perplexity__cross_entropy(model: LanguageModel, sequences: Sequences) -> float:
    """Returns the mean negative log-probability without the exponential."""
    return math.log(scoring.perplexity(model, sequences))


def perplexity__inverted(model: LanguageModel, sequences: Sequences) -> float:
    """Forgets the minus sign."""
    return 1 / scoring.perplexity(model, sequences)


def perplexity__end_tokens_not_counted(model: LanguageModel, sequences: Sequences) -> float:
    """Divides by the number of tokens without end tokens."""
    total = float(scoring.sequence_logprobs(model, sequences).sum())
    tokens = sum(token != model.eos_token_id for x in sequences for token in x)
    if not any(sequences):
        raise ValueError("no token")
    return math.exp(-total / max(tokens, 1))


def perplexity__start_tokens_counted(model: LanguageModel, sequences: Sequences) -> float:
    """Divides by one token more per sequence."""
    if not any(sequences):
        raise ValueError("no token")
    return float((-scoring.sequence_logprobs(model, sequences).sum() / sum(len(x) + 1 for x in sequences)).exp())


def perplexity__one_long_sequence(model: LanguageModel, sequences: Sequences) -> float:
    """Scores the concatenation of the corpus, so that sequences condition on those before them."""
    return scoring.perplexity(model, [[token for x in sequences for token in x]])


def perplexity__padded_to_longest(model: LanguageModel, sequences: Sequences) -> float:
    """Divides by the size of the padded batch."""
    if not any(sequences):
        raise ValueError("no token")
    longest = max(map(len, sequences))
    return float((-scoring.sequence_logprobs(model, sequences).sum() / (longest * len(sequences))).exp())


def perplexity__no_error_without_tokens(model: LanguageModel, sequences: Sequences) -> float:
    """Returns 1 for a corpus without tokens."""
    return scoring.perplexity(model, sequences) if any(sequences) else 1.0


def perplexity__error_for_empty_sequence(model: LanguageModel, sequences: Sequences) -> float:
    """Raises ValueError when any sequence is empty."""
    if not all(sequences):
        raise ValueError("an empty sequence")
    return scoring.perplexity(model, sequences)


def perplexity__finite_for_impossible(model: LanguageModel, sequences: Sequences) -> float:
    """Clamps impossible tokens to a small probability."""
    return min(scoring.perplexity(model, sequences), 1e10)


# entropy


def entropy__in_bits(logprobs: Logprobs) -> Batch:
    """Returns bits instead of nats."""
    return scoring.entropy(logprobs) / math.log(2)


def entropy__negated(logprobs: Logprobs) -> Batch:
    """Forgets the minus sign."""
    return -scoring.entropy(logprobs)


def entropy__nan_for_zero(logprobs: Logprobs) -> Batch:
    """Multiplies 0 by -inf."""
    return -(logprobs.exp() * logprobs).sum(-1)


def entropy__minus_infinity_set_to_zero(logprobs: Logprobs) -> Batch:
    """Sets -inf to 0 before the exponential, and normalises the ones that come of it."""
    return scoring.entropy(logprobs.masked_fill(logprobs.isinf(), 0.0).log_softmax(-1))


def entropy__mean_over_vocabulary(logprobs: Logprobs) -> Batch:
    """Averages over the vocabulary instead of summing."""
    return scoring.entropy(logprobs) / logprobs.shape[-1]


def entropy__first_dimension(logprobs: Logprobs) -> Batch:
    """Sums over the first dimension."""
    p = logprobs.exp()
    return -torch.where(p > 0, p * logprobs, 0).sum(0)


def entropy__second_dimension(logprobs: Logprobs) -> Batch:
    """Sums over dimension 1, which is the vocabulary only in a batch of one dimension."""
    p = logprobs.exp()
    return -torch.where(p > 0, p * logprobs, 0).sum(1)


def entropy__whole_batch(logprobs: Logprobs) -> Batch:
    """Sums over all dimensions."""
    return scoring.entropy(logprobs).sum()


def entropy__surprisal_of_the_mode(logprobs: Logprobs) -> Batch:
    """Returns the min-entropy, -log max p."""
    return -logprobs.max(-1).values


def entropy__collision(logprobs: Logprobs) -> Batch:
    """Returns the Rényi entropy of order 2, -log Σ p²."""
    return -(2 * logprobs).logsumexp(-1)


def entropy__mean_surprisal(logprobs: Logprobs) -> Batch:
    """Weighs all tokens the same instead of by p."""
    return -logprobs.masked_fill(logprobs.isinf(), 0.0).mean(-1)


def entropy__normalised(logprobs: Logprobs) -> Batch:
    """Divides by log V, so that the largest value is 1."""
    return scoring.entropy(logprobs) / math.log(logprobs.shape[-1])


def entropy__probabilities_expected(logprobs: Logprobs) -> Batch:
    """Takes its argument for probabilities."""
    return -(logprobs * logprobs.log()).nan_to_num().sum(-1)


def entropy__changes_input(logprobs: Logprobs) -> Batch:
    """Replaces -inf in the caller's tensor."""
    value = scoring.entropy(logprobs)
    logprobs[logprobs.isinf()] = 0.0
    return value


# kl_divergence


def kl_divergence__swapped(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Returns KL(q || p)."""
    return scoring.kl_divergence(q_logprobs, p_logprobs)


def kl_divergence__negated(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Has the ratio upside down."""
    return -scoring.kl_divergence(p_logprobs, q_logprobs)


def kl_divergence__in_bits(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Returns bits instead of nats."""
    return scoring.kl_divergence(p_logprobs, q_logprobs) / math.log(2)


def kl_divergence__cross_entropy(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Forgets to subtract the entropy of p."""
    p = p_logprobs.exp()
    return -torch.where(p > 0, p * q_logprobs, 0).sum(-1)


def kl_divergence__nan_for_zeros(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Computes -inf minus -inf and 0 times -inf."""
    return (p_logprobs.exp() * (p_logprobs - q_logprobs)).sum(-1)


def kl_divergence__all_nan_to_zero(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Replaces NaN by 0 and with it infinity by a large finite number."""
    return (p_logprobs.exp() * (p_logprobs - q_logprobs)).nan_to_num().sum(-1)


def kl_divergence__infinite_terms_dropped(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Leaves out the terms where q is 0, so that the divergence is always finite."""
    terms = p_logprobs.exp() * (p_logprobs - q_logprobs)
    return torch.where(terms.isfinite(), terms, 0).sum(-1)


def kl_divergence__smoothed(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Adds a small constant to q."""
    return scoring.kl_divergence(p_logprobs, (q_logprobs.exp() + 1e-10).log())


def kl_divergence__infinite_where_q_is_zero(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Is infinite wherever q has a zero, also where p has one too."""
    return scoring.kl_divergence(p_logprobs, q_logprobs).masked_fill(q_logprobs.isinf().any(-1), math.inf)


def kl_divergence__infinite_for_all(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Makes the whole batch infinite when one row is."""
    values = scoring.kl_divergence(p_logprobs, q_logprobs)
    return torch.full_like(values, math.inf) if values.isinf().any() else values


def kl_divergence__symmetric(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Averages both directions."""
    forward = scoring.kl_divergence(p_logprobs, q_logprobs)
    return (forward + scoring.kl_divergence(q_logprobs, p_logprobs)) / 2


def kl_divergence__absolute_terms(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Takes the absolute value of every term."""
    p = p_logprobs.exp()
    return torch.where(p > 0, p * (p_logprobs - q_logprobs), 0).abs().sum(-1)


def kl_divergence__positive_terms_only(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Clamps every term at 0, because a divergence cannot be negative."""
    p = p_logprobs.exp()
    return torch.where(p > 0, p * (p_logprobs - q_logprobs), 0).clamp_min(0).sum(-1)


def kl_divergence__mean_over_vocabulary(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Averages over the vocabulary instead of summing."""
    return scoring.kl_divergence(p_logprobs, q_logprobs) / p_logprobs.shape[-1]


def kl_divergence__first_dimension(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Sums over the first dimension."""
    p = p_logprobs.exp()
    return torch.where(p > 0, p * (p_logprobs - q_logprobs), 0).sum(0)


def kl_divergence__batch_mean(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Reduces the batch too, as kl_div with reduction batchmean does."""
    return scoring.kl_divergence(p_logprobs, q_logprobs).mean()


def kl_divergence__changes_input(p_logprobs: Logprobs, q_logprobs: Logprobs) -> Batch:
    """Computes the log-ratio in the caller's tensor."""
    value = scoring.kl_divergence(p_logprobs, q_logprobs)
    p_logprobs -= q_logprobs
    return value


# expected_calibration_error


def _check_bins(confidences: Confidences, num_bins: int) -> None:
    if not 1 <= num_bins <= len(confidences):
        raise ValueError("the number of bins")


def _binned(confidences: Confidences, correct: Correct, num_bins: int) -> list[Float[Tensor, "size"]]:
    _check_bins(confidences, num_bins)
    gaps = (correct.double() - confidences)[confidences.argsort(descending=True)]
    return list(gaps.tensor_split(num_bins))


def expected_calibration_error__equal_width(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Cuts [0, 1] into bins of equal width."""
    _check_bins(confidences, num_bins)
    index = (confidences * num_bins).long().clamp_max(num_bins - 1)
    gaps = correct.double() - confidences
    return sum(float(gaps[index == i].sum().abs()) for i in range(num_bins)) / len(gaps)


def expected_calibration_error__unsorted(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Cuts the predictions into bins in the order given."""
    _check_bins(confidences, num_bins)
    gaps = correct.double() - confidences
    return sum(float(part.sum().abs()) for part in gaps.tensor_split(num_bins)) / len(gaps)


def expected_calibration_error__outcomes_unsorted(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Sorts the confidences but leaves the outcomes where they were."""
    _check_bins(confidences, num_bins)
    gaps = correct.double() - confidences.sort(descending=True).values
    return sum(float(part.sum().abs()) for part in gaps.tensor_split(num_bins)) / len(gaps)


def expected_calibration_error__larger_bins_last(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Sorts from low to high, so that the larger bins hold the low confidences."""
    _check_bins(confidences, num_bins)
    gaps = (correct.double() - confidences)[confidences.argsort()]
    return sum(float(part.sum().abs()) for part in gaps.tensor_split(num_bins)) / len(gaps)


def expected_calibration_error__last_bin_takes_the_rest(
    confidences: Confidences, correct: Correct, num_bins: int
) -> float:
    """Gives every bin n // num_bins members and the remainder to the last."""
    gaps = torch.cat(_binned(confidences, correct, num_bins))
    size = len(gaps) // num_bins
    parts = gaps.tensor_split([size * i for i in range(1, num_bins)])
    return sum(float(part.sum().abs()) for part in parts) / len(gaps)


def expected_calibration_error__remainder_dropped(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Leaves out the predictions that do not fill a bin."""
    gaps = torch.cat(_binned(confidences, correct, num_bins))
    size = len(gaps) // num_bins
    return float(gaps[: size * num_bins].reshape(num_bins, size).mean(1).abs().mean())


def expected_calibration_error__ceiling_chunks(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Fills bins of ceil(n / num_bins) as torch.chunk does, so that the last may be short by more than one."""
    gaps = torch.cat(_binned(confidences, correct, num_bins))
    return sum(float(part.sum().abs()) for part in gaps.chunk(num_bins)) / len(gaps)


def expected_calibration_error__bins_weigh_the_same(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Averages over bins instead of predictions."""
    return sum(float(part.mean().abs()) for part in _binned(confidences, correct, num_bins)) / num_bins


def expected_calibration_error__signed(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Takes the absolute value after the sum over bins, so that errors cancel."""
    return abs(sum(float(part.sum()) for part in _binned(confidences, correct, num_bins))) / len(confidences)


def expected_calibration_error__absolute_per_prediction(
    confidences: Confidences, correct: Correct, num_bins: int
) -> float:
    """Takes the absolute value per prediction, so that bins make no difference."""
    return sum(float(part.abs().sum()) for part in _binned(confidences, correct, num_bins)) / len(confidences)


def expected_calibration_error__maximum(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Returns the maximum calibration error over bins."""
    return max(float(part.mean().abs()) for part in _binned(confidences, correct, num_bins))


def expected_calibration_error__root_mean_square(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Averages squares and takes the root, as the paper does."""
    parts = _binned(confidences, correct, num_bins)
    return math.sqrt(sum(len(part) * float(part.mean()) ** 2 for part in parts) / len(confidences))


def expected_calibration_error__sum_over_bins(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Adds the gaps of the bins up without weights."""
    return sum(float(part.mean().abs()) for part in _binned(confidences, correct, num_bins))


def expected_calibration_error__any_number_of_bins(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Quietly uses n bins when asked for more, and one when asked for none."""
    return scoring.expected_calibration_error(confidences, correct, min(max(num_bins, 1), len(confidences)))


def expected_calibration_error__n_bins_refused(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Raises ValueError for as many bins as predictions."""
    _check_bins(confidences, num_bins + 1)
    return scoring.expected_calibration_error(confidences, correct, num_bins)


def expected_calibration_error__changes_input(confidences: Confidences, correct: Correct, num_bins: int) -> float:
    """Sorts the caller's tensor."""
    value = scoring.expected_calibration_error(confidences, correct, num_bins)
    confidences.copy_(confidences.sort(descending=True).values)
    return value


# macro_calibration_error


def macro_calibration_error__micro(confidences: Confidences, correct: Correct) -> float:
    """Averages over all predictions, so that the larger class weighs more."""
    scoring.macro_calibration_error(confidences, correct)
    return float((correct.double() - confidences).abs().mean())


def macro_calibration_error__sum(confidences: Confidences, correct: Correct) -> float:
    """Adds the two class errors up without halving."""
    return 2 * scoring.macro_calibration_error(confidences, correct)


def macro_calibration_error__swapped(confidences: Confidences, correct: Correct) -> float:
    """Takes the confidence for the error where correct, and its complement where wrong."""
    return 1 - scoring.macro_calibration_error(confidences, correct)


def macro_calibration_error__squared(confidences: Confidences, correct: Correct) -> float:
    """Averages squared errors."""
    scoring.macro_calibration_error(confidences, correct)
    return float((1 - confidences[correct]).square().mean() + confidences[~correct].square().mean()) / 2


def macro_calibration_error__same_error_for_both(confidences: Confidences, correct: Correct) -> float:
    """Takes 1 - confidence for the error of wrong predictions too."""
    scoring.macro_calibration_error(confidences, correct)
    return float((1 - confidences[correct]).mean() + (1 - confidences[~correct]).mean()) / 2


def macro_calibration_error__wrong_ones_only(confidences: Confidences, correct: Correct) -> float:
    """Looks only at the wrong predictions."""
    scoring.macro_calibration_error(confidences, correct)
    return float(confidences[~correct].mean())


def macro_calibration_error__difference_of_means(confidences: Confidences, correct: Correct) -> float:
    """Compares mean confidence with accuracy over all predictions."""
    scoring.macro_calibration_error(confidences, correct)
    return abs(float(confidences.double().mean() - correct.double().mean()))


def macro_calibration_error__missing_class_counts_zero(confidences: Confidences, correct: Correct) -> float:
    """Counts an error of 0 for a class without predictions."""
    if correct.any() and not correct.all():
        return scoring.macro_calibration_error(confidences, correct)
    return float((correct.double() - confidences).abs().sum()) / max(2 * len(correct), 1)


def macro_calibration_error__missing_class_is_nan(confidences: Confidences, correct: Correct) -> float:
    """Returns NaN for a class without predictions."""
    return float((1 - confidences[correct]).mean() + confidences[~correct].mean()) / 2


def macro_calibration_error__only_wrong_class_required(confidences: Confidences, correct: Correct) -> float:
    """Raises ValueError only when there is no wrong prediction."""
    if correct.all():
        raise ValueError("no wrong prediction")
    if not correct.any():
        return float(confidences.mean())
    return scoring.macro_calibration_error(confidences, correct)


def macro_calibration_error__changes_input(confidences: Confidences, correct: Correct) -> float:
    """Writes the errors into the caller's confidences."""
    value = scoring.macro_calibration_error(confidences, correct)
    confidences[correct] = 1 - confidences[correct]
    return value


# brier_score


def brier_score__root(confidences: Confidences, correct: Correct) -> float:
    """Takes the square root."""
    return math.sqrt(scoring.brier_score(confidences, correct))


def brier_score__sum(confidences: Confidences, correct: Correct) -> float:
    """Adds up instead of averaging."""
    return scoring.brier_score(confidences, correct) * len(confidences)


def brier_score__absolute(confidences: Confidences, correct: Correct) -> float:
    """Averages absolute differences."""
    scoring.brier_score(confidences, correct)
    return float((confidences - correct.double()).abs().mean())


def brier_score__both_outcomes(confidences: Confidences, correct: Correct) -> float:
    """Adds the squared error of the opposite outcome, as the score over classes does."""
    return 2 * scoring.brier_score(confidences, correct)


def brier_score__square_of_mean(confidences: Confidences, correct: Correct) -> float:
    """Averages before it squares."""
    scoring.brier_score(confidences, correct)
    return float((confidences - correct.double()).mean().square())


def brier_score__calibration_term_only(confidences: Confidences, correct: Correct) -> float:
    """Compares with the accuracy instead of each outcome."""
    scoring.brier_score(confidences, correct)
    return float((confidences - correct.double().mean()).square().mean())


def brier_score__flipped(confidences: Confidences, correct: Correct) -> float:
    """Takes 1 for the outcome of a wrong prediction."""
    return scoring.brier_score(confidences, ~correct)


def brier_score__correct_only(confidences: Confidences, correct: Correct) -> float:
    """Looks only at the correct predictions."""
    return scoring.brier_score(confidences[correct], correct[correct])


def brier_score__unbiased(confidences: Confidences, correct: Correct) -> float:
    """Divides by n - 1."""
    n = len(confidences)
    return scoring.brier_score(confidences, correct) * n / max(n - 1, 1)


def brier_score__hard_decisions(confidences: Confidences, correct: Correct) -> float:
    """Rounds confidences to 0 or 1 first."""
    return scoring.brier_score((confidences > 0.5).double(), correct)


def brier_score__empty_is_zero(confidences: Confidences, correct: Correct) -> float:
    """Returns 0 when there is no prediction."""
    return scoring.brier_score(confidences, correct) if len(confidences) else 0.0


def brier_score__empty_is_nan(confidences: Confidences, correct: Correct) -> float:
    """Returns NaN when there is no prediction."""
    return float((confidences - correct.double()).square().mean())


def brier_score__changes_input(confidences: Confidences, correct: Correct) -> float:
    """Subtracts the outcomes from the caller's confidences."""
    value = scoring.brier_score(confidences, correct)
    confidences -= correct.to(confidences.dtype)
    return value


# rank_samples


def _ranked(model: LanguageModel, samples: Sequences, prompt: Sequence[int]) -> list[list[int]]:
    scores = scoring.conditional_logprobs(model, [prompt] * len(samples), samples)
    return [list(samples[i]) for i in scores.argsort(descending=True).tolist()]


def _groups(ranked: list[list[int]], k: int) -> Ranking:
    if not 1 <= k <= len(ranked):
        raise ValueError("k")
    middle = (len(ranked) - k) // 2
    return Ranking(ranked[:k], ranked[middle : middle + k], ranked[len(ranked) - k :])


def rank_samples__rising(model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()) -> Ranking:
    """Sorts from least to most probable."""
    return _groups(_ranked(model, samples, prompt)[::-1], k)


def rank_samples__lowest_group_rising(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Lists the lowest group from its least probable member."""
    ranking = scoring.rank_samples(model, samples, k, prompt)
    return Ranking(ranking.highest, ranking.middle, ranking.lowest[::-1])


def rank_samples__length_normalised(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Ranks by the mean log-probability per token."""
    scores = scoring.conditional_logprobs(model, [prompt] * len(samples), samples)
    means = scores / torch.tensor([max(len(y), 1) for y in samples])
    return _groups([list(samples[i]) for i in means.argsort(descending=True).tolist()], k)


def rank_samples__ignores_prompt(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Ranks by the probability without the prompt."""
    return scoring.rank_samples(model, samples, k)


def rank_samples__first_token_only(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Ranks by the probability of the first token."""
    scores = scoring.conditional_logprobs(model, [prompt] * len(samples), [y[:1] for y in samples])
    return _groups([list(samples[i]) for i in scores.argsort(descending=True, stable=True).tolist()], k)


def rank_samples__end_token_not_scored(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Leaves a final end token out of the score."""
    cut = [y[:-1] if list(y[-1:]) == [model.eos_token_id] else y for y in samples]
    scores = scoring.conditional_logprobs(model, [prompt] * len(samples), cut)
    return _groups([list(samples[i]) for i in scores.argsort(descending=True, stable=True).tolist()], k)


def rank_samples__middle_rounded_up(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Starts the middle group at the position rounded up."""
    ranking = scoring.rank_samples(model, samples, k, prompt)
    start = (len(samples) - k + 1) // 2
    return Ranking(ranking.highest, _ranked(model, samples, prompt)[start : start + k], ranking.lowest)


def rank_samples__middle_starts_at_half(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Starts the middle group at n // 2."""
    ranking = scoring.rank_samples(model, samples, k, prompt)
    start = len(samples) // 2
    return Ranking(ranking.highest, _ranked(model, samples, prompt)[start : start + k], ranking.lowest)


def rank_samples__halves_rounded_apart(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Starts the middle group at n // 2 - k // 2."""
    ranking = scoring.rank_samples(model, samples, k, prompt)
    start = len(samples) // 2 - k // 2
    return Ranking(ranking.highest, _ranked(model, samples, prompt)[start : start + k], ranking.lowest)


def rank_samples__groups_disjoint(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Leaves members of the highest and lowest groups out of the middle one."""
    ranking = scoring.rank_samples(model, samples, k, prompt)
    ranked, start = _ranked(model, samples, prompt), (len(samples) - k) // 2
    return Ranking(ranking.highest, ranked[max(start, k) : min(start + k, len(samples) - k)], ranking.lowest)


def rank_samples__duplicates_removed(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Counts equal samples once."""
    distinct = [list(y) for y in dict.fromkeys(map(tuple, samples))]
    return _groups(_ranked(model, distinct, prompt), k)


def rank_samples__k_not_checked(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Returns whatever the slices give for k = 0 or k > n."""
    ranked = _ranked(model, samples, prompt)
    middle = (len(ranked) - k) // 2
    return Ranking(ranked[:k], ranked[middle : middle + k], ranked[-k:])


def rank_samples__all_samples_refused(
    model: LanguageModel, samples: Sequences, k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Raises ValueError for k = n."""
    if k >= len(samples):
        raise ValueError("k")
    return scoring.rank_samples(model, samples, k, prompt)


def rank_samples__sorts_the_callers_list(
    model: LanguageModel, samples: list[list[int]], k: int, prompt: Sequence[int] = ()
) -> Ranking:
    """Sorts the caller's list in place."""
    ranking = scoring.rank_samples(model, samples, k, prompt)
    samples[:] = _ranked(model, samples, prompt)
    return ranking
