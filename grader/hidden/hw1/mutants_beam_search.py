"""Plausible wrong solutions of hw1.beam_search: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from grader.reference.hw1 import beam_search as reference
from grader.reference.hw1.beam_search import Hypothesis
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness

Tokens = tuple[int, ...]
Candidate = tuple[float, Tokens]  # log-probability and tokens


def greedy_search__prompt_returned(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Returns the prompt with the continuation."""
    return [*x, *reference.greedy_search(model, x, max_tokens=max_tokens)]


def greedy_search__prompt_ignored(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Searches without the prompt."""
    return reference.greedy_search(model, [], max_tokens=max_tokens)


def greedy_search__prompt_counted_in_max_tokens(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int
) -> list[int]:
    """Counts the prompt towards max_tokens."""
    return _greedy(model, x, max_tokens, lambda y: len(x) + len(y) >= max_tokens)


def greedy_search__one_token_too_many(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Stops one token late."""
    return _greedy(model, x, max_tokens, lambda y: len(y) > max_tokens)


def greedy_search__end_token_dropped(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Returns the continuation without its end token."""
    y = reference.greedy_search(model, x, max_tokens=max_tokens)
    return y[:-1] if y[-1] == model.eos_token_id else y


def greedy_search__never_stops(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Goes on after the end token."""
    return _greedy(model, x, max_tokens, lambda y: len(y) == max_tokens, end=-1)


def greedy_search__stops_at_token_zero(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Takes token 0 for the end token."""
    return _greedy(model, x, max_tokens, lambda y: len(y) == max_tokens, end=0)


def greedy_search__end_token_in_the_prompt_stops(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int
) -> list[int]:
    """Stops where any token of the sequence is the end token."""
    return [] if model.eos_token_id in x else reference.greedy_search(model, x, max_tokens=max_tokens)


def greedy_search__last_token_only(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Passes the model the last token alone."""
    return _greedy(model, x, max_tokens, lambda y: len(y) == max_tokens, context=lambda tokens: tokens[-1:])


def greedy_search__edits_the_prompt(model: LanguageModel, x: list[int], *, max_tokens: int) -> list[int]:
    """Appends to the caller's prompt."""
    y = reference.greedy_search(model, x, max_tokens=max_tokens)
    x += y
    return y


def greedy_search__accepts_zero(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Returns nothing for max_tokens 0."""
    return reference.greedy_search(model, x, max_tokens=max_tokens) if max_tokens > 0 else []


def greedy_search__a_call_after_the_end(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> list[int]:
    """Asks the model for another row before it looks whether the continuation has ended."""
    y = reference.greedy_search(model, x, max_tokens=max_tokens)
    model.next_token_logprobs([[*x, *y]])
    return y


def score_bound__length_so_far(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Normalises by the present length, as if nothing were to come."""
    reference.score_bound(logprob, length, max_tokens, length_penalty)
    return logprob / max(length, 1) ** length_penalty


def score_bound__always_the_longest(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Normalises by max_tokens, whatever the sign of the exponent."""
    reference.score_bound(logprob, length, max_tokens, length_penalty)
    return logprob / max_tokens**length_penalty


def score_bound__always_the_next(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Normalises by the next length, whatever the sign of the exponent."""
    reference.score_bound(logprob, length, max_tokens, length_penalty)
    return logprob / (length + 1) ** length_penalty


def score_bound__one_short_of_the_longest(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Takes max_tokens - 1 for the greatest length."""
    reference.score_bound(logprob, length, max_tokens, length_penalty)
    return logprob / (max(max_tokens - 1, 1) if length_penalty > 0 else length + 1) ** length_penalty


def score_bound__present_length_for_negative_exponents(
    logprob: float, length: int, max_tokens: int, length_penalty: float
) -> float:
    """Lets a running continuation end without another token."""
    reference.score_bound(logprob, length, max_tokens, length_penalty)
    return logprob / (max_tokens if length_penalty > 0 else max(length, 1)) ** length_penalty


def score_bound__multiplies(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Multiplies by the normaliser."""
    return reference.score_bound(logprob, length, max_tokens, -length_penalty)


def score_bound__zero(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Returns a bound that holds for everything."""
    reference.score_bound(logprob, length, max_tokens, length_penalty)
    return 0.0


def score_bound__accepts_the_full_length(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Returns a bound where nothing can come."""
    return reference.score_bound(logprob, min(length, max_tokens - 1), max_tokens, length_penalty)


def score_bound__accepts_negative_lengths(logprob: float, length: int, max_tokens: int, length_penalty: float) -> float:
    """Returns a bound for a length below zero."""
    return reference.score_bound(logprob, max(length, 0), max_tokens, length_penalty)


def beam_search__copies_of_the_first_beam(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Starts with num_beams empty continuations, which stay the same for ever."""
    return _beam(model, x, **settings, copies=settings["num_beams"])


def beam_search__extends_what_has_finished(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Keeps continuations that have ended in the beam and extends them."""

    def divide(candidates: list[Candidate], width: int, done: Callable[[Tokens], bool], last: bool) -> Any:
        ended = [c for c in candidates[:width] if done(c[1])]
        return ended, [] if last else candidates[:width]

    return _beam(model, x, **settings, divide=divide)


def beam_search__finished_take_a_place(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Lets only those of the first num_beams candidates run on that have not ended."""

    def divide(candidates: list[Candidate], width: int, done: Callable[[Tokens], bool], last: bool) -> Any:
        best = candidates[:width]
        return [c for c in best if done(c[1])], [c for c in best if not done(c[1])]

    return _beam(model, x, **settings, divide=divide)


def beam_search__beam_shrinks_for_good(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Narrows the beam by one for each hypothesis that has finished."""
    found: list[Candidate] = []

    def divide(candidates: list[Candidate], width: int, done: Callable[[Tokens], bool], last: bool) -> Any:
        ended, running = _divide(candidates, width - len(found), done, last)
        found.extend(ended)
        return ended, running[: width - len(found)]

    return _beam(model, x, **settings, divide=divide)


def beam_search__improbable_ends_finish(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Takes every candidate that has ended for a finished hypothesis, whatever its rank."""

    def divide(candidates: list[Candidate], width: int, done: Callable[[Tokens], bool], last: bool) -> Any:
        return [c for c in candidates if done(c[1])], [c for c in candidates if not done(c[1])][:width]

    return _beam(model, x, **settings, divide=divide)


def beam_search__every_beam_for_itself(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Keeps the best child of each beam from the second step on."""

    def divide(candidates: list[Candidate], width: int, done: Callable[[Tokens], bool], last: bool) -> Any:
        ended, running = _divide(candidates, width, done, last)
        if running and len(running[0][1]) > 1:
            best = {c[1][:-1]: c for c in reversed([c for c in candidates if not done(c[1])])}
            running = sorted(best.values(), reverse=True)
        return ended, running

    return _beam(model, x, **settings, divide=divide)


def beam_search__one_beam_too_many(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Lets num_beams + 1 continuations run."""

    def divide(candidates: list[Candidate], width: int, done: Callable[[Tokens], bool], last: bool) -> Any:
        return _divide(candidates, width, done, last)[0], _divide(candidates, width + 1, done, last)[1]

    return _beam(model, x, **settings, divide=divide)


def beam_search__last_step_ranks_only(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Ranks candidates by the log-probability of their last token alone."""
    return _beam(model, x, **settings, add=lambda total, value: value)


def beam_search__adds_probabilities(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Sums probabilities up where it should multiply them."""
    return _beam(model, x, **settings, add=lambda total, value: math.log(math.exp(total) + math.exp(value)))


def beam_search__prompt_in_the_length(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Divides by the length of prompt and continuation."""
    return _beam(model, x, **settings, length=lambda y: len(x) + len(y))


def beam_search__end_token_not_in_the_length(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Divides by the number of tokens before the end token."""
    return _beam(model, x, **settings, length=lambda y: max(len(y) - (y[-1] == model.eos_token_id), 1))


def beam_search__length_penalty_ignored(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Ranks by the log-probability for every length_penalty."""
    return _beam(model, x, **settings, length=lambda y: 1)


def beam_search__multiplies_by_the_length(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Multiplies by length ** length_penalty."""
    return _beam(model, x, **settings, length=lambda y: 1 / len(y))


def beam_search__finished_ranked_by_log_probability(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Chooses and orders finished hypotheses by their log-probability, and normalises only for show."""
    return _beam(model, x, **settings, rank=lambda hypothesis: hypothesis.logprob)


def beam_search__finished_in_order_of_finding(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Keeps the first num_beams finished hypotheses, unsorted."""
    return _beam(model, x, **settings, rank=lambda hypothesis: 0.0)


def beam_search__keeps_all_finished(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Returns more than num_beams hypotheses where more have finished."""
    return _beam(model, x, **settings, most=1000)


def beam_search__best_alone(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Returns one hypothesis."""
    return reference.beam_search(model, x, **settings)[:1]


def beam_search__stops_with_the_first_finished(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Stops early with a single finished hypothesis."""
    return _beam(model, x, **settings, stop=lambda finished, bound, early: early or bound <= finished[0].score)


def beam_search__early_stopping_ignored(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Goes on while a beam can win, with early_stopping too."""
    return reference.beam_search(model, x, **{**settings, "early_stopping": False})


def beam_search__always_stops_early(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Stops at num_beams finished hypotheses without early_stopping too."""
    return reference.beam_search(model, x, **{**settings, "early_stopping": True})


def beam_search__never_stops_before_max_tokens(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Takes every step, though nothing can change any more."""
    return _beam(model, x, **settings, stop=lambda finished, bound, early: False)


def beam_search__bound_against_the_best(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Stops when no beam can beat the best finished hypothesis, though it could still be the second."""

    def stop(finished: list[Hypothesis], bound: float, early: bool) -> bool:
        return len(finished) == settings["num_beams"] and (early or bound <= finished[0].score)

    return _beam(model, x, **settings, stop=stop)


def beam_search__bound_without_waiting(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Compares the bound with the worst of fewer than num_beams finished hypotheses."""

    def stop(finished: list[Hypothesis], bound: float, early: bool) -> bool:
        return (early and len(finished) == settings["num_beams"]) or bound <= finished[-1].score

    return _beam(model, x, **settings, stop=stop)


def beam_search__bound_at_the_present_length(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Compares with what the best beam would score if it ended now."""
    return _beam(model, x, **settings, reach=lambda total, length, longest, penalty: total / length**penalty)


def beam_search__bound_at_the_greatest_length(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Compares with what the best beam would score at max_tokens, for a negative length_penalty too."""
    return _beam(model, x, **settings, reach=lambda total, length, longest, penalty: total / longest**penalty)


def beam_search__what_does_not_end_is_lost(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Drops continuations that have max_tokens tokens and no end token."""
    found = reference.beam_search(model, x, **settings)
    return [h for h in found if h.tokens[-1] == model.eos_token_id]


def beam_search__impossible_candidates(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Keeps candidates of probability zero."""
    return _beam(model, x, **settings, least=-math.inf)


def beam_search__takes_token_zero_for_the_end(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Stops at token 0."""
    return _beam(model, x, **settings, end=0)


def beam_search__prompt_ignored(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Searches without the prompt."""
    return reference.beam_search(model, [], **settings)


def beam_search__prompt_returned(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Returns the prompt with the continuation."""
    found = reference.beam_search(model, x, **settings)
    return [Hypothesis([*x, *h.tokens], h.logprob, h.score) for h in found]


def beam_search__prompt_counted_in_max_tokens(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Counts the prompt towards max_tokens."""
    short = max(settings["max_tokens"] - len(x), 1) if settings["max_tokens"] > 0 else 0
    return reference.beam_search(model, x, **{**settings, "max_tokens": short})


def beam_search__row_by_row(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Calls the model once for every beam."""
    return reference.beam_search(_RowByRow(model), x, **settings)


def beam_search__accepts_no_beam(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Returns nothing for num_beams 0."""
    return reference.beam_search(model, x, **settings) if settings["num_beams"] > 0 else []


def beam_search__accepts_no_token(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Returns nothing for max_tokens 0."""
    return reference.beam_search(model, x, **settings) if settings["max_tokens"] > 0 else []


def beam_search__edits_the_prompt(model: LanguageModel, x: list[int], **settings: Any) -> list[Hypothesis]:
    """Appends to the caller's prompt."""
    found = reference.beam_search(model, x, **settings)
    x += found[0].tokens
    return found


def diverse_beam_search__penalty_not_used(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Computes the penalty and leaves it out."""
    return _diverse(model, x, **settings, penalise=lambda penalty, count: 0.0)


def diverse_beam_search__penalty_grows_the_wrong_way(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Rewards tokens that earlier groups keep."""
    return _diverse(model, x, **settings, penalise=lambda penalty, count: -penalty * count)


def diverse_beam_search__penalty_once(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Takes the same penalty however often a token is kept."""
    return _diverse(model, x, **settings, penalise=lambda penalty, count: penalty * (count > 0))


def diverse_beam_search__penalty_averaged(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Divides the penalty by the number of beams of a group."""
    size = settings["num_beams"] // max(settings["num_beam_groups"], 1)
    return _diverse(model, x, **settings, penalise=lambda penalty, count: penalty * count / max(size, 1))


def diverse_beam_search__penalty_multiplies(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Makes log-probabilities larger by a factor in place of a difference."""
    return _diverse(model, x, **settings, scale=True)


def diverse_beam_search__counts_all_steps(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Counts on from step to step."""
    return _diverse(model, x, **settings, anew=False)


def diverse_beam_search__counts_own_group(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Penalises what the group itself kept at the step before."""
    return _diverse(model, x, **settings, own=True)


def diverse_beam_search__last_group_only(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Counts what the group just before keeps, and not the others."""
    return _diverse(model, x, **settings, latest=True)


def diverse_beam_search__counts_running_beams_only(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Leaves tokens of finished hypotheses out of the count."""
    return _diverse(model, x, **settings, counted=lambda ended, running: running)


def diverse_beam_search__penalty_in_the_log_probability(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Carries the penalty on in the log-probability of the hypothesis."""
    return _diverse(model, x, **settings, carried=True)


def diverse_beam_search__not_pruned_to_the_group(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Gives every group num_beams beams."""
    return _diverse(model, x, **settings, size=settings["num_beams"])


def diverse_beam_search__extends_what_has_finished(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Keeps continuations that have ended in the beam and extends them."""

    def divide(candidates: list[Candidate], width: int, done: Callable[[Tokens], bool], last: bool) -> Any:
        return [c for c in candidates[:width] if done(c[1])], [] if last else candidates[:width]

    return _diverse(model, x, **settings, divide=divide)


def diverse_beam_search__prompt_in_the_length(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Divides by the length of prompt and continuation."""
    return _diverse(model, x, **settings, length=lambda y: len(x) + len(y))


def diverse_beam_search__length_penalty_ignored(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Ranks by the log-probability for every length_penalty."""
    return _diverse(model, x, **settings, length=lambda y: 1)


def diverse_beam_search__runs_to_max_tokens(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Goes on with a group that has as many finished hypotheses as its beam is wide."""
    return _diverse(model, x, **settings, stops=False)


def diverse_beam_search__impossible_candidates(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Keeps candidates of probability zero."""
    return _diverse(model, x, **settings, least=-math.inf)


def diverse_beam_search__one_list(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Returns the hypotheses of all groups in one group."""
    groups = reference.diverse_beam_search(model, x, **settings)
    return [sorted([h for group in groups for h in group], key=lambda h: -h.score)]


def diverse_beam_search__row_by_row(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Calls the model once for every beam."""
    return reference.diverse_beam_search(_RowByRow(model), x, **settings)


def diverse_beam_search__accepts_uneven_groups(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Rounds the size of groups down."""
    number, beams = settings["num_beam_groups"], settings["num_beams"]
    even = {**settings, "num_beams": beams - beams % number} if 0 < number <= beams else settings
    return reference.diverse_beam_search(model, x, **even)


def diverse_beam_search__accepts_negative_penalties(model: LanguageModel, x: Sequence[int], **settings: Any) -> Any:
    """Takes the absolute value of the penalty."""
    return reference.diverse_beam_search(
        model, x, **{**settings, "diversity_penalty": abs(settings["diversity_penalty"])}
    )


def condition_on_maximum__naive_formula(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Writes the formula down as it stands."""
    z = perturbed.amax(-1, keepdim=True)
    return -torch.log(torch.exp(-maximum[..., None]) - torch.exp(-z) + torch.exp(-perturbed))


def condition_on_maximum__shifted(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Moves the whole row so that its maximum is right."""
    return perturbed - perturbed.amax(-1, keepdim=True) + maximum[..., None]


def condition_on_maximum__clamped(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Cuts the row off at the maximum."""
    return torch.minimum(perturbed, maximum[..., None])


def condition_on_maximum__maximum_of_the_batch(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Takes one Z for all rows."""
    return _conditioned(perturbed, maximum, perturbed.max())


def condition_on_maximum__over_the_batch(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Takes Z over the rows where there are any."""
    return _conditioned(perturbed, maximum, perturbed.amax(0, keepdim=True))


def condition_on_maximum__without_z(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Leaves the row's own maximum out."""
    return -torch.logaddexp(-maximum[..., None], -perturbed)


def condition_on_maximum__swapped(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Exchanges Z and the maximum."""
    z = perturbed.amax(-1, keepdim=True)
    inner = torch.exp(-z) - torch.exp(-maximum[..., None]) + torch.exp(-perturbed)
    return -torch.log(inner.clamp_min(1e-30))


def condition_on_maximum__nan_for_impossible_entries(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Multiplies an infinity by zero where an entry is -inf."""
    safe = _conditioned(perturbed, maximum, perturbed.amax(-1, keepdim=True))
    return safe + 0 * perturbed


def condition_on_maximum__revives_impossible_entries(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Replaces -inf by a finite number to be safe from NaN."""
    finite = perturbed.clamp_min(-1e4)
    return _conditioned(finite, maximum, finite.amax(-1, keepdim=True))


def condition_on_maximum__edits_in_place(perturbed: Tensor, maximum: Tensor) -> Tensor:
    """Writes the result into its argument."""
    return perturbed.copy_(_conditioned(perturbed, maximum, perturbed.amax(-1, keepdim=True)))


def stochastic_beam_search__unconditioned(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Ranks children by log-probability plus noise of their own."""
    return _stochastic(model, x, **settings, condition=lambda perturbed, score: perturbed)


def stochastic_beam_search__shifted(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Moves the children's scores so that the best has the parent's."""
    return _stochastic(model, x, **settings, condition=condition_on_maximum__shifted)


def stochastic_beam_search__naive_formula(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Lets exp overflow."""
    return _stochastic(model, x, **settings, condition=condition_on_maximum__naive_formula)


def stochastic_beam_search__noise_on_the_score(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Adds noise and the token's log-probability to the score of the parent."""
    return _stochastic(model, x, **settings, base=lambda member: member.score, condition=lambda p, score: p)


def stochastic_beam_search__noise_on_the_last_token(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Perturbs the log-probability of the last token, not of the whole child."""
    return _stochastic(model, x, **settings, base=lambda member: 0.0)


def stochastic_beam_search__log_probability_with_noise(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Returns the score as the log-probability."""
    found = reference.stochastic_beam_search(model, x, **settings)
    return [Hypothesis(h.tokens, h.score, h.score) for h in found]


def stochastic_beam_search__score_without_noise(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Returns the log-probability as the score."""
    found = reference.stochastic_beam_search(model, x, **settings)
    return [Hypothesis(h.tokens, h.logprob, h.logprob) for h in found]


def stochastic_beam_search__root_of_zero(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Draws nothing for the root."""
    return _stochastic(model, x, **settings, root=lambda rng: 0.0)


def stochastic_beam_search__root_drawn_and_ignored(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Draws the root's score and begins with zero."""
    return _stochastic(model, x, **settings, root=lambda rng: 0 * float(rng.gumbel(())))


def stochastic_beam_search__same_noise_for_all_members(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Draws one row of noise for all members."""
    return _stochastic(model, x, **settings, noise=lambda rng, shape: rng.gumbel(shape[1:]).expand(shape))


def stochastic_beam_search__noise_for_complete_members(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Perturbs complete members anew at every step."""

    def passed_on(member: Hypothesis, rng: Randomness) -> Hypothesis:
        return Hypothesis(member.tokens, member.logprob, member.logprob + float(rng.gumbel(())))

    return _stochastic(model, x, **settings, passed_on=passed_on)


def stochastic_beam_search__complete_members_leave(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Puts complete members aside, so that they take no place in the beam."""
    return _stochastic(model, x, **settings, aside=True)


def stochastic_beam_search__best_child_of_each(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Keeps one child of each member from the second step on."""
    return _stochastic(model, x, **settings, children=1)


def stochastic_beam_search__ranked_by_log_probability(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Prunes the beam by log-probability."""
    return _stochastic(model, x, **settings, rank=lambda member: member.logprob)


def stochastic_beam_search__returned_by_log_probability(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Returns the samples in order of their log-probability."""
    return sorted(reference.stochastic_beam_search(model, x, **settings), key=lambda h: -h.logprob)


def stochastic_beam_search__rows_in_order_of_log_probability(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Gives the rows of noise to the members in another order."""
    return _stochastic(model, x, **settings, rows=lambda member: -member.logprob)


def stochastic_beam_search__impossible_samples(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Keeps children of probability zero."""
    return _stochastic(model, x, **settings, least=-math.inf)


def stochastic_beam_search__with_replacement(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Draws num_beams times one sample."""
    one = {**settings, "num_beams": min(1, settings["num_beams"])}
    return [reference.stochastic_beam_search(model, x, **one)[0] for _ in range(max(1, settings["num_beams"]))]


def stochastic_beam_search__row_by_row(model: LanguageModel, x: Sequence[int], **settings: Any) -> list[Hypothesis]:
    """Calls the model once for every member."""
    return reference.stochastic_beam_search(_RowByRow(model), x, **settings)


def stochastic_beam_search__accepts_no_beam(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> list[Hypothesis]:
    """Returns nothing for num_beams 0."""
    return reference.stochastic_beam_search(model, x, **settings) if settings["num_beams"] > 0 else []


class _RowByRow:
    """A model that is asked for one row at a time."""

    def __init__(self, model: LanguageModel):
        self.model, self.vocab_size, self.eos_token_id = model, model.vocab_size, model.eos_token_id

    def next_token_logprobs(self, contexts: Sequence[Sequence[int]]) -> Tensor:
        return torch.cat([self.model.next_token_logprobs([context]) for context in contexts])


def _greedy(
    model: LanguageModel,
    x: Sequence[int],
    max_tokens: int,
    full: Callable[[list[int]], bool],
    *,
    end: int | None = None,
    context: Callable[[list[int]], list[int]] = lambda tokens: tokens,
) -> list[int]:
    """Search greedily with one thing changed."""
    if max_tokens < 1:
        raise ValueError(max_tokens)
    y: list[int] = []
    while not full(y) and y[-1:] != [model.eos_token_id if end is None else end]:
        y.append(int(model.next_token_logprobs([context([*x, *y])]).argmax()))
    return y


def _divide(
    candidates: list[Candidate], width: int, done: Callable[[Tokens], bool], last: bool
) -> tuple[list[Candidate], list[Candidate]]:
    """Return what finishes and what runs on."""
    return [c for c in candidates[:width] if done(c[1])], [c for c in candidates if not done(c[1])][:width]


def _beam(
    model: LanguageModel,
    x: Sequence[int],
    *,
    num_beams: int,
    max_tokens: int,
    length_penalty: float = 0.0,
    early_stopping: bool = False,
    copies: int = 1,
    divide: Callable[[list[Candidate], int, Callable[[Tokens], bool], bool], Any] = _divide,
    add: Callable[[float, float], float] = lambda total, value: total + value,
    length: Callable[[Tokens], float] = len,
    rank: Callable[[Hypothesis], float] = lambda hypothesis: hypothesis.score,
    most: int | None = None,
    stop: Callable[[list[Hypothesis], float, bool], bool] | None = None,
    reach: Callable[[float, int, int, float], float] = reference.score_bound,
    least: float = -1e300,
    end: int | None = None,
) -> list[Hypothesis]:
    """Search with one thing changed."""
    if num_beams < 1 or max_tokens < 1:
        raise ValueError(num_beams, max_tokens)
    end = model.eos_token_id if end is None else end
    stop = stop or (lambda found, bound, early: len(found) >= num_beams and (early or bound <= found[-1].score))
    running: list[Candidate] = [(0.0, ())] * copies
    finished: list[Hypothesis] = []
    for step in range(1, max_tokens + 1):
        rows = model.next_token_logprobs([[*x, *y] for _, y in running]).tolist()
        candidates = [
            (add(total, value), (*y, token))
            for (total, y), row in zip(running, rows, strict=True)
            for token, value in enumerate(row)
            if value >= least
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        ended, running = divide(
            candidates, num_beams, lambda y, n=step: n == max_tokens or y[-1] == end, step == max_tokens
        )
        finished += [Hypothesis(list(y), total, total / length(y) ** length_penalty) for total, y in ended]
        finished = sorted(finished, key=lambda hypothesis: -rank(hypothesis))[: most or num_beams]
        if not running:
            break
        if finished and stop(finished, reach(running[0][0], step, max_tokens, length_penalty), early_stopping):
            break
    return finished


def _diverse(
    model: LanguageModel,
    x: Sequence[int],
    *,
    num_beams: int,
    num_beam_groups: int,
    diversity_penalty: float,
    max_tokens: int,
    length_penalty: float = 0.0,
    penalise: Callable[[float, int], float] = lambda penalty, count: penalty * count,
    scale: bool = False,
    anew: bool = True,
    own: bool = False,
    latest: bool = False,
    counted: Callable[[list[Candidate], list[Candidate]], list[Candidate]] = lambda ended, running: ended + running,
    carried: bool = False,
    size: int | None = None,
    divide: Callable[[list[Candidate], int, Callable[[Tokens], bool], bool], Any] = _divide,
    length: Callable[[Tokens], float] = len,
    stops: bool = True,
    least: float = -1e300,
) -> list[list[Hypothesis]]:
    """Search in groups with one thing changed."""
    if num_beams < 1 or num_beam_groups < 1 or num_beams % num_beam_groups or diversity_penalty < 0 or max_tokens < 1:
        raise ValueError(num_beams, num_beam_groups, diversity_penalty, max_tokens)
    size = size or num_beams // num_beam_groups
    running: list[list[Candidate]] = [[(0.0, ())] for _ in range(num_beam_groups)]
    finished: list[list[Hypothesis]] = [[] for _ in range(num_beam_groups)]
    kept: list[int] = []
    before: list[list[int]] = [[] for _ in range(num_beam_groups)]
    for step in range(1, max_tokens + 1):
        kept = [] if anew else kept
        going = [g for g in range(num_beam_groups) if running[g] and not (stops and len(finished[g]) >= size)]
        contexts = [[*x, *y] for g in going for _, y in running[g]]
        if not contexts:
            break
        rows = iter(model.next_token_logprobs(contexts).tolist())
        for g in going:
            ranked: list[tuple[float, Candidate]] = []
            for total, y in running[g]:
                for token, value in enumerate(next(rows)):
                    if value >= least:
                        penalty = penalise(diversity_penalty, (kept + before[g] if own else kept).count(token))
                        augmented = (total + value) * (1 + penalty) if scale else total + value - penalty
                        ranked.append((augmented, (augmented if carried else total + value, (*y, token))))
            ranked.sort(key=lambda pair: -pair[0])
            done = lambda y, n=step: n == max_tokens or y[-1] == model.eos_token_id  # noqa: E731
            ended, running[g] = divide([candidate for _, candidate in ranked], size, done, step == max_tokens)
            finished[g] += [Hypothesis(list(y), total, total / length(y) ** length_penalty) for total, y in ended]
            finished[g] = sorted(finished[g], key=lambda hypothesis: -hypothesis.score)[:size]
            before[g] = [y[-1] for _, y in counted(ended, running[g])]
            kept = before[g] if latest else kept + before[g]
    return finished


def _conditioned(perturbed: Tensor, maximum: Tensor, z: Tensor) -> Tensor:
    v = maximum[..., None] - perturbed + torch.log1p(-torch.exp(perturbed - z))
    return maximum[..., None] - v.clamp_min(0) - torch.log1p(torch.exp(-v.abs()))


def _stochastic(
    model: LanguageModel,
    x: Sequence[int],
    *,
    num_beams: int,
    max_tokens: int,
    rng: Randomness,
    condition: Callable[[Tensor, Tensor], Tensor] = reference.condition_on_maximum,
    base: Callable[[Hypothesis], float] = lambda member: member.logprob,
    root: Callable[[Randomness], float] = lambda rng: float(rng.gumbel(())),
    noise: Callable[[Randomness, tuple[int, int]], Tensor] = lambda rng, shape: rng.gumbel(shape),
    passed_on: Callable[[Hypothesis, Randomness], Hypothesis] = lambda member, rng: member,
    aside: bool = False,
    children: int | None = None,
    rank: Callable[[Hypothesis], float] = lambda member: member.score,
    rows: Callable[[Hypothesis], float] = lambda member: -member.score,
    least: float = -1e300,
) -> list[Hypothesis]:
    """Sample without replacement with one thing changed."""
    if num_beams < 1 or max_tokens < 1:
        raise ValueError(num_beams, max_tokens)
    beam, left = [Hypothesis([], 0.0, root(rng))], []
    for step in range(max_tokens):
        going = sorted([m for m in beam if m.tokens[-1:] != [model.eos_token_id]], key=rows)
        done = [m for m in beam if m.tokens[-1:] == [model.eos_token_id]]
        if not going:
            break
        done = [passed_on(member, rng) for member in done]
        if aside:
            left, done = left + done, []
        logprobs = model.next_token_logprobs([[*x, *member.tokens] for member in going]).double()
        draws = noise(rng, (len(going), model.vocab_size))
        for member, row, draw in zip(going, logprobs, draws, strict=True):
            scores = condition(base(member) + row + draw, torch.tensor(member.score, dtype=torch.float64))
            grown = [
                Hypothesis([*member.tokens, token], member.logprob + value, score)
                for token, (value, score) in enumerate(zip(row.tolist(), scores.tolist(), strict=True))
                if value >= least
            ]
            grown.sort(key=lambda child: -child.score)
            done += grown[:children] if step else grown
        beam = sorted(done, key=lambda member: -rank(member))[:num_beams]
    return sorted(left + beam, key=lambda member: -member.score)[:num_beams]
