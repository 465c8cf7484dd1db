"""Plausible wrong solutions of hw1.sampling: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grader.reference.hw1 import sampling as reference
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness


def ancestral_sample__greedy(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Takes the most probable token without a draw."""
    return logits.argmax(-1)


def ancestral_sample__softmax_over_the_batch(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Normalises over the rows of the batch where there are any."""
    return rng.categorical(logits.softmax(0))


def ancestral_sample__probabilities_taken_as_logits(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Takes the softmax twice."""
    return rng.categorical(logits.softmax(-1).softmax(-1))


def ancestral_sample__no_normalisation(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Passes exp(logits) on as probabilities."""
    return rng.categorical(logits.exp())


def ancestral_sample__linear_normalisation(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Shifts and scales the logits to sum to one instead of taking the softmax."""
    shifted = logits - logits.amin(-1, keepdim=True) + 0.1
    return rng.categorical(shifted / shifted.sum(-1, keepdim=True))


def ancestral_sample__exp_overflows(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Takes exp of the logits before subtracting their maximum."""
    weights = logits.exp()
    return rng.categorical(weights / weights.sum(-1, keepdim=True))


def ancestral_sample__one_draw_for_all_rows(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Draws for the first row and gives its token to every row."""
    first = logits.reshape(-1, logits.shape[-1])[:1].softmax(-1)
    return rng.categorical(first).expand(logits[..., 0].numel()).reshape(logits.shape[:-1])


def ancestral_sample__first_distribution_for_all_rows(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Draws every row from the distribution of the first."""
    first = logits.reshape(-1, logits.shape[-1])[:1].softmax(-1)
    return rng.categorical(first.expand(logits[..., 0].numel(), -1)).reshape(logits.shape[:-1])


def ancestral_sample__loses_the_batch_shape(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Returns a flat list of tokens for any shape of batch."""
    return rng.categorical(logits.softmax(-1)).flatten()


def ancestral_sample__edits_in_place(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Subtracts the maximum from the caller's logits."""
    logits -= logits.amax(-1, keepdim=True)
    return rng.categorical(logits.softmax(-1))


def ancestral_sample__revives_removed_tokens(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Replaces -inf by a finite logit to be safe from NaN."""
    return rng.categorical(logits.clamp_min(-10.0).softmax(-1))


def gumbel_max_sample__noise_shared_across_rows(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Asks for one row of noise and adds it to every row."""
    return (logits + rng.gumbel(logits.shape[-1:])).argmax(-1)


def gumbel_max_sample__noise_subtracted(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Subtracts the noise."""
    return (logits - rng.gumbel(logits.shape)).argmax(-1)


def gumbel_max_sample__noise_on_probabilities(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Adds the noise to probabilities."""
    return (logits.softmax(-1) + rng.gumbel(logits.shape)).argmax(-1)


def gumbel_max_sample__argmin(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Takes the smallest perturbed logit."""
    return (logits + rng.gumbel(logits.shape)).argmin(-1)


def gumbel_max_sample__noise_ignored(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Draws noise and leaves it out."""
    rng.gumbel(logits.shape)
    return logits.argmax(-1)


def gumbel_max_sample__noise_alone(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Takes the argmax of the noise among tokens that are not removed."""
    return rng.gumbel(logits.shape).masked_fill(logits == -torch.inf, -torch.inf).argmax(-1)


def gumbel_max_sample__uniform_noise(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Takes uniform noise for Gumbel noise and transforms it once only."""
    return (logits - rng.uniform(logits.shape).log()).argmax(-1)


def gumbel_max_sample__noise_on_half_logits(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Adds the noise at a temperature of two."""
    return (logits / 2 + rng.gumbel(logits.shape)).argmax(-1)


def gumbel_max_sample__argmax_over_the_batch(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Takes the argmax over the rows of a batch."""
    return (logits + rng.gumbel(logits.shape)).argmax(0)


def gumbel_max_sample__edits_in_place(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Adds the noise to the caller's logits."""
    logits += rng.gumbel(logits.shape)
    return logits.argmax(-1)


def gumbel_max_sample__noise_after_truncation(
    logits: Float[Tensor, "*batch vocab"], rng: Randomness
) -> Int[Tensor, "*batch"]:
    """Lets the noise bring back tokens that were removed, as if -inf were a small logit."""
    return (logits.clamp_min(-20.0) + rng.gumbel(logits.shape)).argmax(-1)


def gumbel_max_sample__categorical(logits: Float[Tensor, "*batch vocab"], rng: Randomness) -> Int[Tensor, "*batch"]:
    """Draws with rng.categorical."""
    return rng.categorical(logits.softmax(-1))


def apply_temperature__multiplies(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Multiplies by the temperature."""
    if temperature <= 0:
        raise ValueError(temperature)
    return logits * temperature


def apply_temperature__divides_probabilities(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Divides probabilities, which the next softmax takes for logits."""
    if temperature <= 0:
        raise ValueError(temperature)
    return logits.softmax(-1) / temperature


def apply_temperature__returns_probabilities(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Returns the softmax at the temperature."""
    if temperature <= 0:
        raise ValueError(temperature)
    return (logits / temperature).softmax(-1)


def apply_temperature__edits_in_place(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Divides the caller's logits."""
    if temperature <= 0:
        raise ValueError(temperature)
    return logits.div_(temperature)


def apply_temperature__rounds_down(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Divides with a floor."""
    if temperature <= 0:
        raise ValueError(temperature)
    return logits // temperature


def apply_temperature__ignored(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Returns the logits as they are."""
    if temperature <= 0:
        raise ValueError(temperature)
    return logits.clone()


def apply_temperature__accepts_zero(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Guards against zero with a small constant instead of refusing it."""
    if temperature < 0:
        raise ValueError(temperature)
    return logits / max(temperature, 1e-6)


def apply_temperature__accepts_negative(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Refuses zero only."""
    if temperature == 0:
        raise ValueError(temperature)
    return logits / temperature


def apply_temperature__bounded_below(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Clamps small temperatures to a tenth."""
    if temperature <= 0:
        raise ValueError(temperature)
    return logits / max(temperature, 0.1)


def apply_temperature__revives_removed_tokens(
    logits: Float[Tensor, "*batch vocab"], temperature: float
) -> Float[Tensor, "*batch vocab"]:
    """Replaces -inf by the lowest finite number."""
    if temperature <= 0:
        raise ValueError(temperature)
    return (logits / temperature).clamp_min(torch.finfo(logits.dtype).min)


def top_k_filter__one_too_many(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Keeps k + 1 tokens."""
    return reference.top_k_filter(logits, top_k + 1 if top_k > 0 else top_k)


def top_k_filter__one_too_few(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Drops the k-th token, and keeps one at least."""
    return reference.top_k_filter(logits, max(top_k - 1, 1) if top_k > 0 else top_k)


def top_k_filter__least_probable(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Keeps the least probable tokens."""
    kept = reference.top_k_filter(-logits, top_k)
    return logits.masked_fill(kept == -torch.inf, -torch.inf)


def top_k_filter__fails_beyond_the_vocabulary(
    logits: Float[Tensor, "*batch vocab"], top_k: int
) -> Float[Tensor, "*batch vocab"]:
    """Lets torch.topk raise where k exceeds the vocabulary."""
    if top_k < 1:
        raise ValueError(top_k)
    return logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)


def top_k_filter__accepts_zero(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Takes k = 0 to mean no filter."""
    return logits.clone() if top_k <= 0 else reference.top_k_filter(logits, top_k)


def top_k_filter__first_rows_tokens_for_all(
    logits: Float[Tensor, "*batch vocab"], top_k: int
) -> Float[Tensor, "*batch vocab"]:
    """Keeps in every row the tokens that the first row keeps."""
    first = reference.top_k_filter(logits.reshape(-1, logits.shape[-1])[0], top_k)
    return logits.masked_fill(first == -torch.inf, -torch.inf)


def top_k_filter__first_rows_threshold_for_all(
    logits: Float[Tensor, "*batch vocab"], top_k: int
) -> Float[Tensor, "*batch vocab"]:
    """Compares every row with the k-th logit of the first."""
    first = reference.top_k_filter(logits.reshape(-1, logits.shape[-1])[0], top_k)
    return logits.masked_fill(logits < first[first > -torch.inf].min(), -torch.inf)


def top_k_filter__across_the_batch(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Keeps the k largest logits of the whole batch."""
    return reference.top_k_filter(logits.flatten(), top_k).reshape(logits.shape)


def top_k_filter__edits_in_place(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Masks the caller's logits."""
    return _overwritten(logits, reference.top_k_filter(logits, top_k))


def top_k_filter__zero_for_removed(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Sets removed logits to zero."""
    return _zero_for_removed(logits, reference.top_k_filter(logits, top_k))


def top_k_filter__revives_removed_tokens(
    logits: Float[Tensor, "*batch vocab"], top_k: int
) -> Float[Tensor, "*batch vocab"]:
    """Replaces -inf by a small logit before it starts."""
    return reference.top_k_filter(logits.clamp_min(-1e4), top_k)


def top_k_filter__returns_log_probabilities(
    logits: Float[Tensor, "*batch vocab"], top_k: int
) -> Float[Tensor, "*batch vocab"]:
    """Renormalises the logits that it keeps."""
    return reference.top_k_filter(logits, top_k).log_softmax(-1)


def top_k_filter__forgets_to_unsort(logits: Float[Tensor, "*batch vocab"], top_k: int) -> Float[Tensor, "*batch vocab"]:
    """Returns logits in sorted order."""
    if top_k < 1:
        raise ValueError(top_k)
    ranked = logits.sort(descending=True).values.clone()
    ranked[..., top_k:] = -torch.inf
    return ranked


def top_p_filter__drops_the_crossing_token(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Drops the token that crosses the threshold."""
    return _nucleus(logits, top_p, keep=lambda probs: probs.cumsum(-1) <= top_p)


def top_p_filter__drops_the_crossing_token_but_never_all(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Drops the token that crosses the threshold, unless none would be left."""
    return _nucleus(
        logits, top_p, keep=lambda probs: (probs.cumsum(-1) <= top_p).index_fill(-1, torch.tensor([0]), True)
    )


def top_p_filter__one_too_many(logits: Float[Tensor, "*batch vocab"], top_p: float) -> Float[Tensor, "*batch vocab"]:
    """Keeps the token after the one that crosses the threshold."""
    return _nucleus(logits, top_p, keep=lambda probs: probs.cumsum(-1) - probs - probs.roll(1, -1) < top_p)


def top_p_filter__least_probable_first(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Sorts from the least probable token."""
    return _nucleus(logits, top_p, keep=lambda probs: probs.cumsum(-1) - probs < top_p, descending=False)


def top_p_filter__vocabulary_order(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Adds probabilities up without sorting them."""
    if not 0 < top_p <= 1:
        raise ValueError(top_p)
    probs = logits.softmax(-1)
    return logits.masked_fill(probs.cumsum(-1) - probs >= top_p, -torch.inf)


def top_p_filter__forgets_to_unsort(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Applies the mask of the sorted tokens to the unsorted ones."""
    if not 0 < top_p <= 1:
        raise ValueError(top_p)
    probs = logits.softmax(-1).sort(descending=True).values
    return logits.masked_fill(probs.cumsum(-1) - probs >= top_p, -torch.inf)


def top_p_filter__unsorts_with_gather(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Gathers where it should scatter, which inverts the permutation."""
    if not 0 < top_p <= 1:
        raise ValueError(top_p)
    probs, order = logits.softmax(-1).sort(descending=True)
    return logits.masked_fill((probs.cumsum(-1) - probs >= top_p).gather(-1, order), -torch.inf)


def top_p_filter__threshold_on_each_probability(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Keeps tokens of probability at least 1 - top_p, and the best one."""
    if not 0 < top_p <= 1:
        raise ValueError(top_p)
    return reference.epsilon_filter(logits, 1 - top_p)


def top_p_filter__adds_up_logits(logits: Float[Tensor, "*batch vocab"], top_p: float) -> Float[Tensor, "*batch vocab"]:
    """Adds up shifted logits instead of probabilities."""
    if not 0 < top_p <= 1:
        raise ValueError(top_p)
    weights = logits - logits.masked_fill(logits == -torch.inf, torch.inf).amin(-1, keepdim=True)
    return _same_mask(logits, reference.top_p_filter((weights.clamp_min(0) + 1e-9).log(), top_p))


def top_p_filter__first_row_for_all(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Keeps in every row the tokens that the first row keeps."""
    first = reference.top_p_filter(logits.reshape(-1, logits.shape[-1])[0], top_p)
    return logits.masked_fill(first == -torch.inf, -torch.inf)


def top_p_filter__first_rows_count_for_all(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Keeps in every row as many tokens as in the first."""
    first = reference.top_p_filter(logits.reshape(-1, logits.shape[-1])[0], top_p)
    return reference.top_k_filter(logits, int((first > -torch.inf).sum()))


def top_p_filter__across_the_batch(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes the softmax of the whole batch at once."""
    return reference.top_p_filter(logits.flatten(), top_p).reshape(logits.shape)


def top_p_filter__edits_in_place(logits: Float[Tensor, "*batch vocab"], top_p: float) -> Float[Tensor, "*batch vocab"]:
    """Masks the caller's logits."""
    return _overwritten(logits, reference.top_p_filter(logits, top_p))


def top_p_filter__zero_for_removed(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Sets removed logits to zero."""
    return _zero_for_removed(logits, reference.top_p_filter(logits, top_p))


def top_p_filter__revives_removed_tokens(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Replaces -inf by a small logit before it starts."""
    return reference.top_p_filter(logits.clamp_min(-8.0), top_p)


def top_p_filter__returns_log_probabilities(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Renormalises the logits that it keeps."""
    return reference.top_p_filter(logits, top_p).log_softmax(-1)


def top_p_filter__accepts_more_than_one(
    logits: Float[Tensor, "*batch vocab"], top_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes a top_p above one for one."""
    return reference.top_p_filter(logits, min(top_p, 1.0))


def top_p_filter__accepts_zero(logits: Float[Tensor, "*batch vocab"], top_p: float) -> Float[Tensor, "*batch vocab"]:
    """Takes a top_p of zero to mean the best token."""
    return reference.top_p_filter(logits, 1e-9 if top_p == 0 else top_p)


def top_p_filter__refuses_one(logits: Float[Tensor, "*batch vocab"], top_p: float) -> Float[Tensor, "*batch vocab"]:
    """Refuses top_p = 1."""
    if top_p >= 1:
        raise ValueError(top_p)
    return reference.top_p_filter(logits, top_p)


def min_p_filter__absolute_threshold(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares probabilities with min_p itself."""
    if not 0 <= min_p <= 1:
        raise ValueError(min_p)
    probs = logits.softmax(-1)
    return logits.masked_fill((probs < min_p) & (probs < probs.amax(-1, keepdim=True)), -torch.inf)


def min_p_filter__squared_maximum(logits: Float[Tensor, "*batch vocab"], min_p: float) -> Float[Tensor, "*batch vocab"]:
    """Scales by the probability of the best token twice."""
    if not 0 <= min_p <= 1:
        raise ValueError(min_p)
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < min_p * probs.amax(-1, keepdim=True) ** 2, -torch.inf)


def min_p_filter__ratio_of_logits(logits: Float[Tensor, "*batch vocab"], min_p: float) -> Float[Tensor, "*batch vocab"]:
    """Compares logits with min_p times the largest."""
    if not 0 <= min_p <= 1:
        raise ValueError(min_p)
    return logits.masked_fill(logits < min_p * logits.amax(-1, keepdim=True), -torch.inf)


def min_p_filter__relative_to_the_mean(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares with min_p times the mean probability."""
    if not 0 <= min_p <= 1:
        raise ValueError(min_p)
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < min_p * probs.mean(-1, keepdim=True), -torch.inf)


def min_p_filter__maximum_of_the_batch(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes the largest probability of the whole batch."""
    if not 0 <= min_p <= 1:
        raise ValueError(min_p)
    probs = logits.softmax(-1)
    return logits.masked_fill((probs < min_p * probs.max()) & (probs < probs.amax(-1, keepdim=True)), -torch.inf)


def min_p_filter__first_row_for_all(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Keeps in every row the tokens that the first row keeps."""
    first = reference.min_p_filter(logits.reshape(-1, logits.shape[-1])[0], min_p)
    return logits.masked_fill(first == -torch.inf, -torch.inf)


def min_p_filter__drops_the_best_at_one(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares strictly, so that min_p = 1 keeps nothing."""
    if not 0 <= min_p <= 1:
        raise ValueError(min_p)
    probs = logits.softmax(-1)
    return logits.masked_fill(probs <= min_p * probs.amax(-1, keepdim=True), -torch.inf)


def min_p_filter__keeps_the_tail(logits: Float[Tensor, "*batch vocab"], min_p: float) -> Float[Tensor, "*batch vocab"]:
    """Keeps the tokens under the threshold and the best one."""
    if not 0 <= min_p <= 1:
        raise ValueError(min_p)
    probs = logits.softmax(-1)
    best = probs.amax(-1, keepdim=True)
    return logits.masked_fill((probs >= min_p * best) & (probs < best), -torch.inf)


def min_p_filter__log_of_zero(logits: Float[Tensor, "*batch vocab"], min_p: float) -> Float[Tensor, "*batch vocab"]:
    """Takes log(min_p) without a thought for min_p = 0."""
    if not 0 <= min_p <= 1:
        raise ValueError(min_p)
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(min_p), -torch.inf)


def min_p_filter__edits_in_place(logits: Float[Tensor, "*batch vocab"], min_p: float) -> Float[Tensor, "*batch vocab"]:
    """Masks the caller's logits."""
    return _overwritten(logits, reference.min_p_filter(logits, min_p))


def min_p_filter__zero_for_removed(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Sets removed logits to zero."""
    return _zero_for_removed(logits, reference.min_p_filter(logits, min_p))


def min_p_filter__revives_removed_tokens(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Replaces -inf by a small logit before it starts."""
    return reference.min_p_filter(logits.clamp_min(-1e4), min_p)


def min_p_filter__returns_log_probabilities(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Renormalises the logits that it keeps."""
    return reference.min_p_filter(logits, min_p).log_softmax(-1)


def min_p_filter__accepts_more_than_one(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes a min_p above one for one."""
    return reference.min_p_filter(logits, min(min_p, 1.0))


def min_p_filter__accepts_negative(
    logits: Float[Tensor, "*batch vocab"], min_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes a negative min_p for zero."""
    return reference.min_p_filter(logits, max(min_p, 0.0))


def typical_filter__sorted_by_probability(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes tokens from the most probable one, as top-p does."""
    return reference.top_p_filter(logits, typical_p)


def typical_filter__signed_difference(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Sorts by the signed difference, so that the most probable token comes first."""
    return _typical(logits, typical_p, lambda surprise, entropy: surprise - entropy)


def typical_filter__most_atypical_first(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Sorts from the largest difference to the smallest."""
    return _typical(logits, typical_p, lambda surprise, entropy: -(surprise - entropy).abs().nan_to_num(posinf=-1.0))


def typical_filter__entropy_in_bits(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares surprisals in nats with an entropy in bits."""
    return _typical(logits, typical_p, lambda surprise, entropy: (surprise - entropy / math.log(2)).abs())


def typical_filter__sign_of_the_entropy(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Adds the entropy where it should be subtracted."""
    return _typical(logits, typical_p, lambda surprise, entropy: (surprise + entropy).abs())


def typical_filter__entropy_without_weights(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes the mean surprisal of the tokens left for the entropy."""
    return _typical(logits, typical_p, lambda surprise, entropy: (surprise - _mean_finite(surprise)).abs())


def typical_filter__distance_from_probability(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares probabilities, not surprisals, with exp(-entropy)."""
    return _typical(logits, typical_p, lambda surprise, entropy: ((-surprise).exp() - (-entropy).exp()).abs())


def typical_filter__nan_from_zero_times_log_zero(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Computes p log p where p is zero, which is NaN."""
    if not 0 < typical_p <= 1:
        raise ValueError(typical_p)
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1, keepdim=True)
    return _kept_by_order(logits, (-logprobs - entropy).abs().argsort(-1), typical_p)


def typical_filter__drops_the_crossing_token(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Drops the token that crosses the threshold, unless none would be left."""
    if not 0 < typical_p <= 1:
        raise ValueError(typical_p)
    logprobs = logits.log_softmax(-1)
    order = (-logprobs - _entropy(logits)).abs().argsort(-1)
    kept = logprobs.exp().gather(-1, order).cumsum(-1) <= typical_p + 1e-9
    kept[..., 0] = True
    return logits.masked_fill(~torch.zeros_like(kept).scatter(-1, order, kept), -torch.inf)


def typical_filter__adds_up_sorted_probabilities(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Adds probabilities up from the largest while it takes tokens in typical order."""
    if not 0 < typical_p <= 1:
        raise ValueError(typical_p)
    logprobs = logits.log_softmax(-1)
    order = (-logprobs - _entropy(logits)).abs().argsort(-1)
    probs = logprobs.exp().sort(descending=True).values
    kept = probs.cumsum(-1) - probs < typical_p
    return logits.masked_fill(~torch.zeros_like(kept).scatter(-1, order, kept), -torch.inf)


def typical_filter__forgets_to_unsort(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Applies the mask of the sorted tokens to the unsorted ones."""
    if not 0 < typical_p <= 1:
        raise ValueError(typical_p)
    logprobs = logits.log_softmax(-1)
    probs = logprobs.exp().gather(-1, (-logprobs - _entropy(logits)).abs().argsort(-1))
    return logits.masked_fill(probs.cumsum(-1) - probs >= typical_p, -torch.inf)


def typical_filter__unnormalised_logits(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes logits for log-probabilities."""
    if not 0 < typical_p <= 1:
        raise ValueError(typical_p)
    return _kept_by_order(logits, (-logits - _entropy(logits)).abs().argsort(-1), typical_p)


def typical_filter__entropy_of_the_batch(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Averages the entropy over the rows of the batch."""
    return _typical(logits, typical_p, lambda surprise, entropy: (surprise - entropy.mean()).abs())


def typical_filter__first_row_for_all(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Keeps in every row the tokens that the first row keeps."""
    first = reference.typical_filter(logits.reshape(-1, logits.shape[-1])[0], typical_p)
    return logits.masked_fill(first == -torch.inf, -torch.inf)


def typical_filter__always_keeps_the_most_probable(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Adds the most probable token to the typical set."""
    kept = reference.typical_filter(logits, typical_p)
    return torch.where(logits == logits.amax(-1, keepdim=True), logits, kept)


def typical_filter__edits_in_place(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Masks the caller's logits."""
    return _overwritten(logits, reference.typical_filter(logits, typical_p))


def typical_filter__zero_for_removed(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Sets removed logits to zero."""
    return _zero_for_removed(logits, reference.typical_filter(logits, typical_p))


def typical_filter__revives_removed_tokens(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Replaces -inf by a small logit before it starts."""
    return reference.typical_filter(logits.clamp_min(-20.0), typical_p)


def typical_filter__returns_log_probabilities(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Renormalises the logits that it keeps."""
    return reference.typical_filter(logits, typical_p).log_softmax(-1)


def typical_filter__accepts_more_than_one(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes a typical_p above one for one."""
    return reference.typical_filter(logits, min(typical_p, 1.0))


def typical_filter__accepts_zero(
    logits: Float[Tensor, "*batch vocab"], typical_p: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes a typical_p of zero to mean the most typical token."""
    return reference.typical_filter(logits, 1e-9 if typical_p == 0 else typical_p)


def epsilon_filter__may_remove_everything(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Removes the whole row where no token passes."""
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(epsilon_cutoff)
    return logits.masked_fill(logits.softmax(-1) < epsilon_cutoff, -torch.inf)


def epsilon_filter__keeps_everything_where_none_passes(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Returns the row unfiltered where no token passes."""
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(epsilon_cutoff)
    probs = logits.softmax(-1)
    return logits.masked_fill((probs < epsilon_cutoff) & (probs.amax(-1, keepdim=True) >= epsilon_cutoff), -torch.inf)


def epsilon_filter__relative_to_the_best(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Scales the cutoff by the best probability, as min-p does."""
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(epsilon_cutoff)
    return reference.min_p_filter(logits, epsilon_cutoff)


def epsilon_filter__compares_logits(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares exp(logits), which are not normalised, with the cutoff."""
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(epsilon_cutoff)
    best = logits == logits.amax(-1, keepdim=True)
    return logits.masked_fill((logits.exp() < epsilon_cutoff) & ~best, -torch.inf)


def epsilon_filter__compares_log_probabilities(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares log-probabilities with the cutoff itself."""
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(epsilon_cutoff)
    best = logits == logits.amax(-1, keepdim=True)
    return logits.masked_fill((logits.log_softmax(-1) < epsilon_cutoff) & ~best, -torch.inf)


def epsilon_filter__softmax_of_the_batch(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Normalises over the whole batch."""
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(epsilon_cutoff)
    best = logits == logits.amax(-1, keepdim=True)
    probs = logits.flatten().softmax(-1).reshape(logits.shape)
    return logits.masked_fill((probs < epsilon_cutoff) & ~best, -torch.inf)


def epsilon_filter__first_row_for_all(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Keeps in every row the tokens that the first row keeps."""
    first = reference.epsilon_filter(logits.reshape(-1, logits.shape[-1])[0], epsilon_cutoff)
    return logits.masked_fill(first == -torch.inf, -torch.inf)


def epsilon_filter__fallback_from_the_first_row(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Where no token passes, keeps the token that is best in the first row."""
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(epsilon_cutoff)
    probs = logits.softmax(-1)
    best = int(logits.reshape(-1, logits.shape[-1])[0].argmax())
    kept = probs >= epsilon_cutoff
    kept[..., best] |= ~kept.any(-1)
    return logits.masked_fill(~kept, -torch.inf)


def epsilon_filter__square_root_of_the_cutoff(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares with the square root of the cutoff."""
    if not 0 <= epsilon_cutoff < 1:
        raise ValueError(epsilon_cutoff)
    return reference.epsilon_filter(logits, epsilon_cutoff**0.5)


def epsilon_filter__edits_in_place(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Masks the caller's logits."""
    return _overwritten(logits, reference.epsilon_filter(logits, epsilon_cutoff))


def epsilon_filter__zero_for_removed(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Sets removed logits to zero."""
    return _zero_for_removed(logits, reference.epsilon_filter(logits, epsilon_cutoff))


def epsilon_filter__revives_removed_tokens(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Replaces -inf by a small logit before it starts."""
    return reference.epsilon_filter(logits.clamp_min(-1e4), epsilon_cutoff)


def epsilon_filter__returns_log_probabilities(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Renormalises the logits that it keeps."""
    return reference.epsilon_filter(logits, epsilon_cutoff).log_softmax(-1)


def epsilon_filter__accepts_one(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes a cutoff of one or more to mean the best token."""
    return reference.epsilon_filter(logits, min(epsilon_cutoff, 0.999999))


def epsilon_filter__accepts_negative(
    logits: Float[Tensor, "*batch vocab"], epsilon_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes a negative cutoff for zero."""
    return reference.epsilon_filter(logits, max(epsilon_cutoff, 0.0))


def eta_filter__without_its_minimum(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes sqrt(eta_cutoff) exp(-entropy) alone."""
    return _eta(logits, eta_cutoff, lambda e, entropy: e**0.5 * (-entropy).exp())


def eta_filter__maximum_for_minimum(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes the larger of the two thresholds."""
    return _eta(logits, eta_cutoff, lambda e, entropy: (e**0.5 * (-entropy).exp()).clamp_min(e))


def eta_filter__without_entropy(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes eta_cutoff alone, as epsilon sampling does."""
    return _eta(logits, eta_cutoff, lambda e, entropy: torch.full_like(entropy, e))


def eta_filter__without_the_square_root(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Scales exp(-entropy) by eta_cutoff itself."""
    return _eta(logits, eta_cutoff, lambda e, entropy: (e * (-entropy).exp()).clamp_max(e))


def eta_filter__entropy_in_bits(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes exp of an entropy in bits."""
    return _eta(logits, eta_cutoff, lambda e, entropy: (e**0.5 * (-entropy / math.log(2)).exp()).clamp_max(e))


def eta_filter__sign_of_the_entropy(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes exp(entropy), so that the minimum is always eta_cutoff."""
    return _eta(logits, eta_cutoff, lambda e, entropy: (e**0.5 * entropy.exp()).clamp_max(e))


def eta_filter__entropy_of_the_batch(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Averages the entropy over the rows of the batch."""
    return _eta(logits, eta_cutoff, lambda e, entropy: (e**0.5 * (-entropy.mean()).exp()).clamp_max(e))


def eta_filter__nan_from_zero_times_log_zero(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Computes p log p where p is zero, which is NaN."""
    if not 0 <= eta_cutoff < 1:
        raise ValueError(eta_cutoff)
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1, keepdim=True)
    eta = (eta_cutoff**0.5 * (-entropy).exp()).clamp_max(eta_cutoff)
    return logits.masked_fill((logprobs.exp() >= eta).logical_not(), -torch.inf)


def eta_filter__entropy_without_weights(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Sums log-probabilities without their weights p."""
    return _eta(
        logits, eta_cutoff, lambda e, entropy: (e**0.5 * (-_mean_finite(-logits.log_softmax(-1))).exp()).clamp_max(e)
    )


def eta_filter__first_row_for_all(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Keeps in every row the tokens that the first row keeps."""
    first = reference.eta_filter(logits.reshape(-1, logits.shape[-1])[0], eta_cutoff)
    return logits.masked_fill(first == -torch.inf, -torch.inf)


def eta_filter__compares_logits(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Compares exp(logits), which are not normalised, with eta."""
    if not 0 <= eta_cutoff < 1:
        raise ValueError(eta_cutoff)
    eta = (eta_cutoff**0.5 * (-_entropy(logits)).exp()).clamp_max(eta_cutoff)
    return logits.masked_fill(logits.exp() < eta, -torch.inf)


def eta_filter__edits_in_place(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Masks the caller's logits."""
    return _overwritten(logits, reference.eta_filter(logits, eta_cutoff))


def eta_filter__zero_for_removed(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Sets removed logits to zero."""
    return _zero_for_removed(logits, reference.eta_filter(logits, eta_cutoff))


def eta_filter__revives_removed_tokens(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Replaces -inf by a small logit before it starts."""
    return reference.eta_filter(logits.clamp_min(-1e4), eta_cutoff)


def eta_filter__returns_log_probabilities(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Renormalises the logits that it keeps."""
    return reference.eta_filter(logits, eta_cutoff).log_softmax(-1)


def eta_filter__accepts_one(logits: Float[Tensor, "*batch vocab"], eta_cutoff: float) -> Float[Tensor, "*batch vocab"]:
    """Takes a cutoff of one or more to mean a little less than one."""
    return reference.eta_filter(logits, min(eta_cutoff, 0.999999))


def eta_filter__accepts_negative(
    logits: Float[Tensor, "*batch vocab"], eta_cutoff: float
) -> Float[Tensor, "*batch vocab"]:
    """Takes a negative cutoff for zero."""
    return reference.eta_filter(logits, max(eta_cutoff, 0.0))


def estimate_zipf_exponent__unsorted(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Takes the probabilities in the order of the vocabulary."""
    return _slope(probs[probs > 0][:m])


def estimate_zipf_exponent__ascending(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Sorts from the least probable token."""
    return _slope(probs[probs > 0].sort().values[:m])


def estimate_zipf_exponent__mean_of_ratios(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Averages the ratios b / t."""
    top = probs[probs > 0].sort(descending=True).values[:m]
    return _slope(top, lambda t, b: (b / t).mean())


def estimate_zipf_exponent__ratio_of_sums(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Divides the sum of b by the sum of t."""
    top = probs[probs > 0].sort(descending=True).values[:m]
    return _slope(top, lambda t, b: b.sum() / t.sum())


def estimate_zipf_exponent__regression_with_intercept(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Fits log p against log rank with an intercept."""
    top = probs[probs > 0].double().sort(descending=True).values[:m]
    if len(top) < 2:
        return math.inf
    rank = torch.arange(1, len(top) + 1, dtype=torch.float64).log()
    rank, y = rank - rank.mean(), top.log() - top.log().mean()
    return float(-(rank * y).sum() / (rank * rank).sum())


def estimate_zipf_exponent__inverse(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Divides by sum(b^2)."""
    top = probs[probs > 0].sort(descending=True).values[:m]
    return _slope(top, lambda t, b: (t * b).sum() / (b * b).sum())


def estimate_zipf_exponent__mixed_logarithms(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Takes b in bits and t in nats."""
    return reference.estimate_zipf_exponent(probs, m) / math.log(2)


def estimate_zipf_exponent__m_ignored(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Uses every token."""
    return reference.estimate_zipf_exponent(probs, len(probs))


def estimate_zipf_exponent__one_ratio_too_many(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Uses m ratios, of m + 1 tokens."""
    return reference.estimate_zipf_exponent(probs, m + 1)


def estimate_zipf_exponent__one_ratio_too_few(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Uses m - 2 ratios and so never meets the m-th token."""
    return reference.estimate_zipf_exponent(probs, m - 1)


def estimate_zipf_exponent__ranks_from_two(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Starts the ranks at two."""
    top = probs[probs > 0].double().sort(descending=True).values[:m]
    if len(top) < 2:
        return math.inf
    i = torch.arange(2, len(top) + 1, dtype=torch.float64)
    t, b = ((i + 1) / i).log(), (top[:-1] / top[1:]).log()
    return float((t * b).sum() / (t * t).sum())


def estimate_zipf_exponent__zeros_kept(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Takes ratios with probabilities of zero."""
    return _slope(probs.sort(descending=True).values[:m])


def estimate_zipf_exponent__nothing_to_fit_is_nan(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Divides zero by zero when a single token is left."""
    top = probs[probs > 0].double().sort(descending=True).values[:m]
    t = torch.arange(1, len(top), dtype=torch.float64).reciprocal().log1p()
    return float((t * (top[:-1] / top[1:]).log()).sum() / (t * t).sum())


def estimate_zipf_exponent__edits_in_place(probs: Float[Tensor, "vocab"], m: int = 100) -> float:
    """Sorts the caller's probabilities."""
    return reference.estimate_zipf_exponent(probs.copy_(probs.sort(descending=True).values), m)


class Mirostat__nats_for_bits(reference.Mirostat):
    """Measures the surprise in nats."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        return _step(self, logits, rng, surprise=lambda full, kept, token: -math.log(full[token]))


class Mirostat__power_of_e(reference.Mirostat):
    """Takes e to the power mu, as if mu were in nats."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu / math.log(2), self.m)


class Mirostat__sign_of_the_update(reference.Mirostat):
    """Raises mu after a surprising token."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        before = self.mu
        token = super().sample(logits, rng)
        self.mu = 2 * before - self.mu
        return token


class Mirostat__mu_starts_at_tau(reference.Mirostat):
    """Starts mu at tau."""

    def __init__(self, tau: float, learning_rate: float = 0.1, m: int = 100):
        """Start."""
        super().__init__(tau, learning_rate, m)
        self.mu = tau


class Mirostat__mu_never_moves(reference.Mirostat):
    """Leaves mu where it started."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw."""
        before = self.mu
        token = super().sample(logits, rng)
        self.mu = before
        return token


class Mirostat__error_against_mu(reference.Mirostat):
    """Measures the error against mu instead of tau."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        before = self.mu
        token = super().sample(logits, rng)
        self.mu += self.learning_rate * (before - self.tau)
        return token


class Mirostat__mu_clamped_to_tau(reference.Mirostat):
    """Never lets mu rise above twice tau."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        token = super().sample(logits, rng)
        self.mu = min(self.mu, 2 * self.tau)
        return token


class Mirostat__surprise_after_truncation(reference.Mirostat):
    """Measures the surprise under the truncated, renormalised distribution."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        return _step(self, logits, rng, surprise=lambda full, kept, token: -math.log2(kept[token]))


class Mirostat__expected_surprise(reference.Mirostat):
    """Updates with the entropy instead of the surprise of the token drawn."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        entropy = float(_entropy(logits)) / math.log(2)
        return _step(self, logits, rng, surprise=lambda full, kept, token: entropy)


class Mirostat__updates_before_the_draw(reference.Mirostat):
    """Updates mu by the surprise of the most probable token before it computes k."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Update and draw."""
        before = self.mu
        self.mu -= self.learning_rate * (-math.log2(float(logits.softmax(-1).max())) - self.tau)
        moved = self.mu - before
        token = super().sample(logits, rng)
        self.mu -= moved
        return token


class Mirostat__draws_from_everything(reference.Mirostat):
    """Draws from the full distribution."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        return _step(self, logits, rng, k=len(logits))


class Mirostat__draws_unnormalised(reference.Mirostat):
    """Draws from the k probabilities without renormalising them."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        probs = logits.softmax(-1)
        top = probs.topk(self.top_k(probs))
        token = int(top.indices[rng.categorical(top.values)])
        self.mu -= self.learning_rate * (-math.log2(probs[token]) - self.tau)
        return token


class Mirostat__returns_the_rank(reference.Mirostat):
    """Returns the rank of the token drawn instead of the token."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        token = super().sample(logits, rng)
        return int(logits.argsort(descending=True).tolist().index(token))


class Mirostat__least_probable_k(reference.Mirostat):
    """Draws from the k least probable tokens."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        probs = logits.softmax(-1)
        worst = probs.topk(self.top_k(probs), largest=False)
        token = int(worst.indices[rng.categorical(worst.values / worst.values.sum())])
        self.mu -= self.learning_rate * (-math.log2(probs[token]) - self.tau)
        return token


class Mirostat__k_zero(reference.Mirostat):
    """Lets k fall to zero."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu, self.m, least=0)


class Mirostat__k_beyond_the_vocabulary(reference.Mirostat):
    """Lets k exceed the vocabulary."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu, self.m, most=10**6)


class Mirostat__k_truncated(reference.Mirostat):
    """Rounds k down."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu, self.m, rounded=math.floor)


class Mirostat__k_rounded_up(reference.Mirostat):
    """Rounds k up, as the authors' code adds one."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu, self.m, rounded=math.ceil)


class Mirostat__without_the_last_power(reference.Mirostat):
    """Leaves the power 1 / s out."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu, self.m, power=lambda s: 1.0)


class Mirostat__power_of_s(reference.Mirostat):
    """Takes the power s instead of 1 / s."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu, self.m, power=lambda s: s)


class Mirostat__m_for_the_vocabulary(reference.Mirostat):
    """Takes N to be the number of tokens in the estimate."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu, self.m, vocab=min(self.m, len(probs)))


class Mirostat__removed_tokens_left_out_of_the_vocabulary(reference.Mirostat):
    """Counts only tokens of positive probability in N."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        return _k(probs, self.mu, self.m, vocab=max(int((probs > 0).sum()), 2))


class Mirostat__m_ignored(reference.Mirostat):
    """Estimates the exponent from a hundred tokens whatever m is."""

    def __init__(self, tau: float, learning_rate: float = 0.1, m: int = 100):
        """Start."""
        super().__init__(tau, learning_rate)


class Mirostat__learning_rate_ignored(reference.Mirostat):
    """Learns at a rate of 0.1 whatever it was given."""

    def __init__(self, tau: float, learning_rate: float = 0.1, m: int = 100):
        """Start."""
        super().__init__(tau, 0.1, m)


class Mirostat__exponent_estimated_once(reference.Mirostat):
    """Keeps the exponent of the first step."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        if not hasattr(self, "first"):
            self.first = probs.clone()
        return _k(self.first, self.mu, self.m)


class Mirostat__exponent_of_one_divides_by_zero(reference.Mirostat):
    """Has no limit for an exponent of exactly one."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        epsilon = reference.estimate_zipf_exponent(probs, self.m) - 1
        return round(1 / epsilon) if epsilon == 0 else super().top_k(probs)


class Mirostat__equal_probabilities_divide_by_zero(reference.Mirostat):
    """Has no limit for an exponent of zero."""

    def top_k(self, probs: Float[Tensor, "vocab"]) -> int:
        """Return k."""
        exponent = reference.estimate_zipf_exponent(probs, self.m)
        return round(1 / exponent) if exponent == 0 else super().top_k(probs)


class Mirostat__edits_in_place(reference.Mirostat):
    """Masks the caller's logits."""

    def sample(self, logits: Float[Tensor, "vocab"], rng: Randomness) -> int:
        """Draw and update."""
        token = _step(self, logits.clone(), rng)
        _overwritten(logits, reference.top_k_filter(logits, 1))
        return token


def generate__fifty_most_probable(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    filters: Sequence[Callable[[Tensor], Tensor]] = (),
    **settings: Any,
) -> list[list[int]]:
    """Keeps a top-k of 50 that nobody asked for, as a well-known library does; invisible with fewer tokens."""
    cut = lambda logits: reference.top_k_filter(logits, 50)  # noqa: E731
    return reference.generate(model, x, filters=[*filters, cut], **settings)


def generate__prompt_ignored(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Passes the model what was generated without the prompt."""
    return _generate(model, x, max_tokens, rng, filters, context=lambda prompt, y: list(y))


def generate__last_token_only(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Passes the model the last token alone."""
    return _generate(model, x, max_tokens, rng, filters, context=lambda prompt, y: [*prompt, *y][-1:])


def generate__own_tokens_ignored(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Passes the model the prompt alone at every step."""
    return _generate(model, x, max_tokens, rng, filters, context=lambda prompt, y: list(prompt))


def generate__prompt_returned(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Returns the prompt with the continuation."""
    y = reference.generate(model, x, max_tokens=max_tokens, rng=rng, filters=filters)
    return [[*prompt, *tokens] for prompt, tokens in zip(x, y, strict=True)]


def generate__prompt_counted_in_max_tokens(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Counts the tokens of the prompt towards max_tokens."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    longest = max(map(len, x), default=0)
    return reference.generate(model, x, max_tokens=max(max_tokens - longest, 0), rng=rng, filters=filters)


def generate__one_token_too_many(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Draws max_tokens + 1 tokens."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    return reference.generate(model, x, max_tokens=max_tokens + 1, rng=rng, filters=filters)


def generate__one_token_too_few(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Draws max_tokens - 1 tokens."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    return reference.generate(model, x, max_tokens=max(max_tokens - 1, 0), rng=rng, filters=filters)


def generate__end_token_dropped(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Leaves the end token out of the continuation."""
    y = reference.generate(model, x, max_tokens=max_tokens, rng=rng, filters=filters)
    return [[token for token in tokens if token != model.eos_token_id] for tokens in y]


def generate__never_stops(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Goes on after the end token."""
    return _generate(model, x, max_tokens, rng, filters, stop=lambda prompt, y: False)


def generate__all_stop_with_the_first(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Stops every row when one has ended."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    y: list[list[int]] = [[] for _ in x]
    for _ in range(max_tokens):
        logits = model.next_token_logprobs([[*p, *c] for p, c in zip(x, y, strict=True)])
        for change in filters:
            logits = change(logits)
        for row, token in zip(y, rng.categorical(logits.softmax(-1)).tolist(), strict=True):
            row.append(token)
        if any(row[-1] == model.eos_token_id for row in y):
            break
    return y


def generate__stops_when_the_first_row_does(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Stops every row when the first one has ended."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    first = reference.generate(model, x[:1], max_tokens=max_tokens, rng=rng, filters=filters)
    length = len(first[0]) if first else 0
    return first + reference.generate(model, x[1:], max_tokens=length, rng=rng, filters=filters)


def generate__finished_row_extended(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Goes on with finished rows until all have ended."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    y: list[list[int]] = [[] for _ in x]
    for _ in range(max_tokens):
        if all(model.eos_token_id in row for row in y):
            break
        logits = model.next_token_logprobs([[*p, *c] for p, c in zip(x, y, strict=True)])
        for change in filters:
            logits = change(logits)
        for row, token in zip(y, rng.categorical(logits.softmax(-1)).tolist(), strict=True):
            row.append(token)
    return y


def generate__finished_row_passed_to_the_model(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Asks the model about finished rows and throws the answer away."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    y: list[list[int]] = [[] for _ in x]
    live = list(range(len(x)))
    for _ in range(max_tokens):
        if not live:
            break
        logits = model.next_token_logprobs([[*p, *c] for p, c in zip(x, y, strict=True)])[live]
        for change in filters:
            logits = change(logits)
        for i, token in zip(live, rng.categorical(logits.softmax(-1)).tolist(), strict=True):
            y[i].append(token)
        live = [i for i in live if y[i][-1] != model.eos_token_id]
    return y


def generate__finished_row_padded(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Pads finished rows with end tokens to the longest."""
    y = reference.generate(model, x, max_tokens=max_tokens, rng=rng, filters=filters)
    longest = max(map(len, y), default=0)
    return [row + [model.eos_token_id] * (longest - len(row)) for row in y]


def generate__stops_at_token_zero(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Takes token 0 for the end token of every model."""
    return _generate(model, x, max_tokens, rng, filters, stop=lambda prompt, y: y[-1] == 0)


def generate__end_token_in_the_prompt_stops(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Takes an end token in the prompt for the end of the row."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    live = [i for i, prompt in enumerate(x) if model.eos_token_id not in prompt]
    drawn = reference.generate(model, [x[i] for i in live], max_tokens=max_tokens, rng=rng, filters=filters)
    y: list[list[int]] = [[] for _ in x]
    for i, tokens in zip(live, drawn, strict=True):
        y[i] = tokens
    return y


def generate__filters_reversed(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Applies the filters from the last to the first."""
    return reference.generate(model, x, max_tokens=max_tokens, rng=rng, filters=list(reversed(filters)))


def generate__filters_ignored(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Draws from the model itself."""
    return reference.generate(model, x, max_tokens=max_tokens, rng=rng)


def generate__last_filter_only(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Gives every filter the model's log-probabilities and keeps the last answer."""
    return reference.generate(model, x, max_tokens=max_tokens, rng=rng, filters=filters[-1:])


def generate__filters_on_the_first_step_only(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Applies the filters before the first token only."""
    return _generate(model, x, max_tokens, rng, filters, filtered=lambda step: step == 0)


def generate__filters_on_probabilities(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Gives the filters probabilities and draws from what they return."""
    return _generate(model, x, max_tokens, rng, [torch.exp, *filters, lambda z: z.clamp_min(0).log()])


def generate__filters_on_the_first_row_only(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Applies the filters to the first row of each step."""
    return _generate(model, x, max_tokens, rng, [lambda z, f=f: torch.cat([f(z[:1]), z[1:]]) for f in filters])


def generate__first_rows_mask_for_all(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Removes in every row what the filters remove in the first."""
    return _generate(
        model, x, max_tokens, rng, [lambda z, f=f: z.masked_fill(f(z[:1]) == -torch.inf, -torch.inf) for f in filters]
    )


def generate__unnormalised_draws(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Draws from exp of what the filters return, without normalising it."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    y: list[list[int]] = [[] for _ in x]
    live = list(range(len(x)))
    for _ in range(max_tokens if live else 0):
        logits = model.next_token_logprobs([[*x[i], *y[i]] for i in live])
        for change in filters:
            logits = change(logits)
        for i, token in zip(live, rng.categorical(logits.exp()).tolist(), strict=True):
            y[i].append(token)
        live = [i for i in live if y[i][-1] != model.eos_token_id]
        if not live:
            break
    return y


def generate__renormalises_between_filters(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Renormalises between the filters."""
    return _generate(model, x, max_tokens, rng, [lambda z, f=f: f(z).log_softmax(-1) for f in filters])


def generate__same_draw_for_all_rows(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Draws one token per step, from the first row, for every row."""
    return _generate(
        model, x, max_tokens, rng, filters, draw=lambda probs: rng.categorical(probs[:1]).expand(len(probs))
    )


def generate__greedy(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Takes the most probable token at every step."""
    return _generate(model, x, max_tokens, rng, filters, draw=lambda probs: probs.argmax(-1))


def generate__pads_on_the_left(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Pads the prompts on the left with end tokens to one length."""
    longest = max(map(len, x), default=0)
    padded = [[model.eos_token_id] * (longest - len(prompt)) + list(prompt) for prompt in x]
    return reference.generate(model, padded, max_tokens=max_tokens, rng=rng, filters=filters)


def generate__prompts_cut_to_the_shortest(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Cuts the prompts to the length of the shortest."""
    shortest = min(map(len, x), default=0)
    cut = [list(prompt[:shortest]) for prompt in x]
    return reference.generate(model, cut, max_tokens=max_tokens, rng=rng, filters=filters)


def generate__row_by_row(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Calls the model once a row instead of once a step."""
    return [reference.generate(model, [prompt], max_tokens=max_tokens, rng=rng, filters=filters)[0] for prompt in x]


def generate__edits_the_prompts(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Appends the tokens to the caller's prompts."""
    y = reference.generate(model, x, max_tokens=max_tokens, rng=rng, filters=filters)
    for prompt, tokens in zip(x, y, strict=True):
        prompt += tokens  # type: ignore[operator]
    return y


def generate__model_called_before_the_loop(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Calls the model once even when no token is wanted."""
    if len(x) > 0 and max_tokens >= 0:
        model.next_token_logprobs(x)
    return reference.generate(model, x, max_tokens=max_tokens, rng=rng, filters=filters)


def generate__accepts_negative_max_tokens(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter] = (),
) -> list[list[int]]:
    """Takes a negative max_tokens for zero."""
    return reference.generate(model, x, max_tokens=max(max_tokens, 0), rng=rng, filters=filters)


def _overwritten(logits: Tensor, filtered: Tensor) -> Tensor:
    return logits.copy_(filtered)


def _same_mask(logits: Tensor, filtered: Tensor) -> Tensor:
    return logits.masked_fill(filtered == -torch.inf, -torch.inf)


def _zero_for_removed(logits: Tensor, filtered: Tensor) -> Tensor:
    return logits.masked_fill(filtered == -torch.inf, 0.0)


def _entropy(logits: Tensor) -> Tensor:
    return torch.special.entr(logits.softmax(-1)).sum(-1, keepdim=True)


def _mean_finite(values: Tensor) -> Tensor:
    finite = values < torch.inf
    return values.masked_fill(~finite, 0.0).sum(-1, keepdim=True) / finite.sum(-1, keepdim=True)


def _nucleus(logits: Tensor, top_p: float, keep: Callable[[Tensor], Tensor], descending: bool = True) -> Tensor:
    if not 0 < top_p <= 1:
        raise ValueError(top_p)
    probs, order = logits.softmax(-1).sort(descending=descending)
    kept = keep(probs)
    return logits.masked_fill(~torch.zeros_like(kept).scatter(-1, order, kept), -torch.inf)


def _kept_by_order(logits: Tensor, order: Tensor, mass: float) -> Tensor:
    probs = logits.softmax(-1).gather(-1, order)
    kept = probs.cumsum(-1) - probs < mass
    return logits.masked_fill(~torch.zeros_like(kept).scatter(-1, order, kept), -torch.inf)


def _typical(logits: Tensor, typical_p: float, distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    if not 0 < typical_p <= 1:
        raise ValueError(typical_p)
    return _kept_by_order(logits, distance(-logits.log_softmax(-1), _entropy(logits)).argsort(-1), typical_p)


def _eta(logits: Tensor, eta_cutoff: float, threshold: Callable[[float, Tensor], Tensor]) -> Tensor:
    if not 0 <= eta_cutoff < 1:
        raise ValueError(eta_cutoff)
    probs = logits.softmax(-1)
    best = probs == probs.amax(-1, keepdim=True)
    return logits.masked_fill((probs < threshold(eta_cutoff, _entropy(logits))) & ~best, -torch.inf)


def _slope(top: Tensor, fit: Callable[[Tensor, Tensor], Tensor] = lambda t, b: (t * b).sum() / (t * t).sum()) -> float:
    if len(top) < 2:
        return math.inf
    i = torch.arange(1, len(top), dtype=torch.float64)
    return float(fit(((i + 1) / i).log(), (top[:-1].double() / top[1:].double()).log()))


def _k(
    probs: Tensor,
    mu: float,
    m: int,
    *,
    least: int = 1,
    most: int | None = None,
    vocab: int | None = None,
    rounded: Callable[[float], int] = round,
    power: Callable[[float], float] = lambda s: 1 / s if s else math.inf,
) -> int:
    """Return Mirostat's k with one thing changed."""
    vocab, most = vocab or len(probs), most or len(probs)
    s = reference.estimate_zipf_exponent(probs, m)
    if s == math.inf:
        return 1
    ratio = 1 / math.log(vocab) if s == 1 else (s - 1) / (1 - vocab ** (1 - s))
    k = float((torch.tensor(ratio * 2**mu, dtype=torch.float64)) ** power(s))
    return max(least, rounded(min(k, most)))


def _step(
    mirostat: reference.Mirostat,
    logits: Tensor,
    rng: Randomness,
    *,
    k: int | None = None,
    surprise: Callable[[Tensor, Tensor, int], float] = lambda full, kept, token: -math.log2(full[token]),
) -> int:
    """Take one step of Mirostat with one thing changed."""
    full = logits.softmax(-1)
    kept = reference.top_k_filter(logits, k or mirostat.top_k(full)).softmax(-1)
    token = int(rng.categorical(kept))
    mirostat.mu -= mirostat.learning_rate * (surprise(full, kept, token) - mirostat.tau)
    return token


def _generate(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    max_tokens: int,
    rng: Randomness,
    filters: Sequence[reference.Filter],
    *,
    context: Callable[[Sequence[int], list[int]], list[int]] = lambda prompt, y: [*prompt, *y],
    stop: Callable[[Sequence[int], list[int]], bool] | None = None,
    filtered: Callable[[int], bool] = lambda step: True,
    draw: Callable[[Tensor], Tensor] | None = None,
) -> list[list[int]]:
    """Generate with one thing changed."""
    if max_tokens < 0:
        raise ValueError(max_tokens)
    y: list[list[int]] = [[] for _ in x]
    live = list(range(len(x)))
    for step in range(max_tokens):
        if not live:
            break
        logits = model.next_token_logprobs([context(x[i], y[i]) for i in live])
        for change in filters if filtered(step) else ():
            logits = change(logits)
        for i, token in zip(live, (draw or rng.categorical)(logits.softmax(-1)).tolist(), strict=True):
            y[i].append(token)
        live = [i for i in live if not (stop(x[i], y[i]) if stop else y[i][-1] == model.eos_token_id)]
    return y
