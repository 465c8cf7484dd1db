"""Plausible wrong solutions of hw1.best_first: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from grader.reference.hw1 import best_first as reference
from shared_tasks.models.language_model import LanguageModel

Tokens = tuple[int, ...]
Found = tuple[list[int], float]


def uniform_cost_search__greedy(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Takes the most probable child at every step."""
    return _exact(model, x, max_tokens=max_tokens, enough=lambda found: True)


def uniform_cost_search__stops_when_complete_is_seen(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int
) -> Found:
    """Stops at the first complete continuation that is put into the queue."""
    return _queue(model, x, max_tokens=max_tokens, at_sight=True)


def uniform_cost_search__least_probable_first(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Takes the cheapest, with log-probabilities for costs."""
    return _queue(model, x, max_tokens=max_tokens, priority=lambda y, total, last: -total)


def uniform_cost_search__last_token_alone(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Orders the queue by the log-probability of the last token."""
    return _queue(model, x, max_tokens=max_tokens, priority=lambda y, total, last: last)


def uniform_cost_search__normalised(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Orders the queue by log-probability per token."""
    return _queue(model, x, max_tokens=max_tokens, priority=lambda y, total, last: total / max(len(y), 1))


def uniform_cost_search__longest_first(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Goes deep before it compares."""
    return _queue(model, x, max_tokens=max_tokens, priority=lambda y, total, last: (len(y), total))


def uniform_cost_search__breadth_first(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Expands everything and takes the best in the end."""
    return _exact(model, x, max_tokens=max_tokens, bound=lambda total, y, longest: math.inf)


def uniform_cost_search__whole_levels(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Expands all continuations of a length before those that are longer."""
    found = reference.uniform_cost_search(model, x, max_tokens=max_tokens)
    level: list[list[int]] = [[]]
    for _ in found[0]:
        model.next_token_logprobs([[*x, *y] for y in level])
        level = [[*y, v] for y in level for v in range(model.vocab_size) if v != model.eos_token_id]
    return found


def uniform_cost_search__without_the_empty_continuation(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int
) -> Found:
    """Leaves the end token alone out."""
    return _queue(model, x, max_tokens=max_tokens, allowed=lambda y: y != (model.eos_token_id,))


def uniform_cost_search__end_token_required(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Leaves continuations out that are cut off."""
    return _queue(model, x, max_tokens=max_tokens, allowed=lambda y: len(y) < max_tokens or y[-1] == model.eos_token_id)


def uniform_cost_search__prompt_counted_in_max_tokens(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int
) -> Found:
    """Counts the prompt towards max_tokens."""
    short = max(max_tokens - len(x), 1) if max_tokens > 0 else 0
    return reference.uniform_cost_search(model, x, max_tokens=short)


def uniform_cost_search__prompt_ignored(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Searches without the prompt."""
    return reference.uniform_cost_search(model, [], max_tokens=max_tokens)


def uniform_cost_search__prompt_returned(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Returns the prompt with the continuation."""
    y, logprob = reference.uniform_cost_search(model, x, max_tokens=max_tokens)
    return [*x, *y], logprob


def uniform_cost_search__probability_returned(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Returns the probability."""
    y, logprob = reference.uniform_cost_search(model, x, max_tokens=max_tokens)
    return y, math.exp(logprob)


def uniform_cost_search__cost_returned(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Returns the cost that the queue holds."""
    y, logprob = reference.uniform_cost_search(model, x, max_tokens=max_tokens)
    return y, -logprob


def uniform_cost_search__accepts_zero(model: LanguageModel, x: Sequence[int], *, max_tokens: int) -> Found:
    """Returns nothing for max_tokens 0."""
    return reference.uniform_cost_search(model, x, max_tokens=max_tokens) if max_tokens > 0 else ([], 0.0)


def uniform_cost_search__takes_token_zero_for_the_end(
    model: LanguageModel, x: Sequence[int], *, max_tokens: int
) -> Found:
    """Stops at token 0."""
    return _queue(model, x, max_tokens=max_tokens, end=0)


def a_star_search__heuristic_ignored(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Does uniform-cost search."""
    return reference.uniform_cost_search(model, x, max_tokens=settings["max_tokens"])


def a_star_search__heuristic_alone(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Orders the queue by the estimate without what lies behind."""
    return _a_star(model, x, **settings, combine=lambda total, estimate, length: estimate)


def a_star_search__heuristic_subtracted(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Takes the estimate for a cost."""
    return _a_star(model, x, **settings, combine=lambda total, estimate, length: total - estimate)


def a_star_search__heuristic_counted_twice(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Weighs the estimate by two, which makes it inadmissible."""
    return _a_star(model, x, **settings, combine=lambda total, estimate, length: total + 2 * estimate)


def a_star_search__heuristic_halved(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Weighs the estimate by a half, which expands more than needed."""
    return _a_star(model, x, **settings, combine=lambda total, estimate, length: total + estimate / 2)


def a_star_search__heuristic_per_token(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Divides by the length."""
    return _a_star(model, x, **settings, combine=lambda total, estimate, length: (total + estimate) / max(length, 1))


def a_star_search__estimate_of_the_parent(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Gives all children the estimate of their parent."""
    return _a_star(model, x, **settings, about=lambda y: y[:-1])


def a_star_search__prompt_not_in_the_context(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Calls the heuristic with the continuation alone."""
    heuristic = settings["heuristic"]
    return reference.a_star_search(
        model, x, **{**settings, "heuristic": lambda contexts: heuristic([context[len(x) :] for context in contexts])}
    )


def a_star_search__asks_about_complete_continuations(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Calls the heuristic with complete continuations too."""
    return _a_star(model, x, **settings, asked_of_all=True)


def a_star_search__estimates_accumulate(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Adds the estimate to the log-probability that children start from."""
    return _a_star(model, x, **settings, accumulate=True)


def a_star_search__stops_when_complete_is_seen(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Stops at the first complete continuation that is put into the queue."""
    return _a_star(model, x, **settings, at_sight=True)


def a_star_search__priority_returned(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Returns the cost that the queue holds."""
    y, logprob = reference.a_star_search(model, x, **settings)
    return y, -logprob


def a_star_search__without_the_empty_continuation(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Leaves the end token alone out."""
    return _a_star(model, x, **settings, allowed=lambda y: y != (model.eos_token_id,))


def a_star_search__one_estimate_for_a_batch(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Takes the first estimate of a batch for all of it."""
    heuristic = settings["heuristic"]
    return reference.a_star_search(
        model, x, **{**settings, "heuristic": lambda contexts: heuristic(contexts)[:1].expand(len(contexts))}
    )


def a_star_search__accepts_zero(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Returns nothing for max_tokens 0."""
    return reference.a_star_search(model, x, **settings) if settings["max_tokens"] > 0 else ([], 0.0)


def best_first_beam_search__no_width(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Drops nothing, and so finds the most probable continuation."""
    return reference.best_first_beam_search(model, x, **{**settings, "num_beams": 10**6 * settings["num_beams"]})


def best_first_beam_search__one_beam_too_many(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Expands num_beams + 1 of each length."""
    return _best_first(model, x, **settings, wider=1)


def best_first_beam_search__width_of_the_queue(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Keeps the num_beams best of the whole queue, of whatever length."""
    return _best_first(model, x, **settings, queue_limit=True)


def best_first_beam_search__complete_ones_take_a_place(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> Found:
    """Counts complete continuations among those of a length that may be expanded."""
    return _best_first(model, x, **settings, places=lambda taken, expanded: taken - 1)


def best_first_beam_search__every_complete_one_counts(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Takes every complete continuation for a hypothesis, whatever its rank."""
    return _best_first(model, x, **settings, all_count=True)


def best_first_beam_search__stops_at_the_first_complete(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> Found:
    """Stops at the first hypothesis, with a length_penalty too."""
    return _best_first(model, x, **settings, bound=lambda total, y, longest, penalty: -math.inf)


def best_first_beam_search__bound_at_its_own_length(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Compares what the next continuation would score if it ended now."""
    return _best_first(model, x, **settings, bound=lambda total, y, longest, penalty: total / max(len(y), 1) ** penalty)


def best_first_beam_search__never_stops(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Empties the queue."""
    return _best_first(model, x, **settings, bound=lambda total, y, longest, penalty: math.inf)


def best_first_beam_search__bound_of_log_probability_zero(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> Found:
    """Divides the bound by so much that it stops late."""
    return _best_first(model, x, **settings, bound=lambda total, y, longest, penalty: total / (10 * longest) ** penalty)


def best_first_beam_search__normalised_queue(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Orders the queue by the normalised score."""
    penalty = settings.get("length_penalty", 0.0)
    return _best_first(model, x, **settings, priority=lambda y, total: total / max(len(y), 1) ** penalty)


def best_first_beam_search__length_penalty_ignored(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Ranks hypotheses by log-probability."""
    if settings.get("length_penalty", 0.0) < 0:
        raise ValueError(settings)
    return reference.best_first_beam_search(model, x, **{**settings, "length_penalty": 0.0})


def best_first_beam_search__prompt_in_the_length(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Divides by the length of prompt and continuation."""
    return _best_first(model, x, **settings, length=lambda y: len(x) + len(y))


def best_first_beam_search__score_returned(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Returns the normalised score in place of the log-probability."""
    y, logprob = reference.best_first_beam_search(model, x, **settings)
    return y, logprob / len(y) ** settings.get("length_penalty", 0.0)


def best_first_beam_search__beam_by_beam(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Extends every beam of every step."""
    return _best_first(
        model, x, **settings, priority=lambda y, total: (-len(y), total), bound=lambda *arguments: math.inf
    )


def best_first_beam_search__without_the_empty_continuation(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> Found:
    """Leaves the end token alone out."""
    return _best_first(model, x, **settings, allowed=lambda y: y != (model.eos_token_id,))


def best_first_beam_search__accepts_no_beam(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Returns nothing for num_beams 0."""
    if settings["num_beams"] < 1:
        return [], 0.0
    return reference.best_first_beam_search(model, x, **settings)


def best_first_beam_search__accepts_negative_penalties(
    model: LanguageModel, x: Sequence[int], **settings: Any
) -> Found:
    """Searches with a bound that does not hold."""
    kept = {**settings, "length_penalty": max(settings.get("length_penalty", 0.0), 0.0)}
    return reference.best_first_beam_search(model, x, **kept)


def exact_search__greedy(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Returns the first continuation that it completes."""
    return _exact(model, x, **settings, enough=lambda found: True)


def exact_search__no_bound(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Expands everything."""
    return _exact(model, x, **settings, bound=lambda total, y, longest: math.inf)


def exact_search__bound_without_normalisation(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Compares the log-probability so far with a normalised score."""
    return _exact(model, x, **settings, bound=lambda total, y, longest: total)


def exact_search__bound_at_the_present_length(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Prunes by the score that the beginning has."""
    penalty = settings.get("length_penalty", 0.0)
    return _exact(model, x, **settings, bound=lambda total, y, longest: total / max(len(y), 1) ** penalty)


def exact_search__bound_too_high(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Bounds by the length of prompt and continuation."""
    penalty = settings.get("length_penalty", 0.0)
    return _exact(model, x, **settings, bound=lambda total, y, longest: total / (longest + len(x) + 3) ** penalty)


def exact_search__least_probable_first(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Visits children in order of rising probability."""
    return _exact(model, x, **settings, order=lambda child: -child[1])


def exact_search__vocabulary_order(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Visits children in the order of their token ids."""
    return _exact(model, x, **settings, order=lambda child: child[0][-1])


def exact_search__pruned_by_the_parent(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Checks the bound when a child is put aside, not when it is visited."""
    return _exact(model, x, **settings, early=True)


def exact_search__ranked_by_log_probability(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Finds the most probable continuation for every length_penalty."""
    if settings.get("length_penalty", 0.0) < 0:
        raise ValueError(settings)
    return reference.exact_search(model, x, **{**settings, "length_penalty": 0.0})


def exact_search__prompt_in_the_length(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Divides by the length of prompt and continuation."""
    return _exact(model, x, **settings, length=lambda y: len(x) + len(y))


def exact_search__without_the_empty_continuation(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Leaves the end token alone out."""
    return _exact(model, x, **settings, allowed=lambda y: y != (model.eos_token_id,))


def exact_search__end_token_required(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Leaves continuations out that are cut off."""
    longest = settings["max_tokens"]
    return _exact(model, x, **settings, allowed=lambda y: len(y) < longest or y[-1] == model.eos_token_id)


def exact_search__last_best_kept(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Replaces the best continuation by each later one."""
    return _exact(model, x, **settings, replaces=lambda new, old: True)


def exact_search__two_best_children(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Visits two children of each continuation."""
    return _exact(model, x, **settings, most=2)


def exact_search__score_returned(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Returns the normalised score in place of the log-probability."""
    y, logprob = reference.exact_search(model, x, **settings)
    return y, logprob / len(y) ** settings.get("length_penalty", 0.0)


def exact_search__prompt_ignored(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Searches without the prompt."""
    return reference.exact_search(model, [], **settings)


def exact_search__accepts_zero(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Returns nothing for max_tokens 0."""
    return reference.exact_search(model, x, **settings) if settings["max_tokens"] > 0 else ([], 0.0)


def exact_search__accepts_negative_penalties(model: LanguageModel, x: Sequence[int], **settings: Any) -> Found:
    """Searches with a bound that does not hold."""
    return reference.exact_search(model, x, **{**settings, "length_penalty": abs(settings.get("length_penalty", 0.0))})


def _children(
    model: LanguageModel, x: Sequence[int], y: Tokens, total: float, allowed: Callable[[Tokens], bool]
) -> list[tuple[Tokens, float, float]]:
    """Return the possible children: tokens, log-probability, and that of the last token."""
    row = model.next_token_logprobs([[*x, *y]])[0].tolist()
    return [
        ((*y, token), total + value, value)
        for token, value in enumerate(row)
        if value > -math.inf and allowed((*y, token))
    ]


def _queue(
    model: LanguageModel,
    x: Sequence[int],
    *,
    max_tokens: int,
    priority: Callable[[Tokens, float, float], Any] = lambda y, total, last: total,
    allowed: Callable[[Tokens], bool] = lambda y: True,
    at_sight: bool = False,
    end: int | None = None,
) -> Found:
    """Do uniform-cost search with one thing changed."""
    if max_tokens < 1:
        raise ValueError(max_tokens)
    end = model.eos_token_id if end is None else end
    queue: list[tuple[Tokens, float, float]] = [((), 0.0, 0.0)]
    while True:
        y, total, _ = queue.pop(max(range(len(queue)), key=lambda i: priority(*queue[i])))
        if len(y) == max_tokens or y[-1:] == (end,):
            return list(y), total
        children = sorted(_children(model, x, y, total, allowed), key=lambda child: -child[1])
        for child in children:
            if at_sight and (len(child[0]) == max_tokens or child[0][-1] == end):
                return list(child[0]), child[1]
        queue += children


def _a_star(
    model: LanguageModel,
    x: Sequence[int],
    *,
    max_tokens: int,
    heuristic: reference.Heuristic,
    combine: Callable[[float, float, int], float] = lambda total, estimate, length: total + estimate,
    about: Callable[[Tokens], Tokens] = lambda y: y,
    allowed: Callable[[Tokens], bool] = lambda y: True,
    asked_of_all: bool = False,
    accumulate: bool = False,
    at_sight: bool = False,
) -> Found:
    """Do A* with one thing changed."""
    if max_tokens < 1:
        raise ValueError(max_tokens)

    def complete(y: Tokens) -> bool:
        return len(y) == max_tokens or y[-1:] == (model.eos_token_id,)

    queue: list[tuple[float, Tokens, float, float]] = [(0.0, (), 0.0, 0.0)]
    while True:
        queue.sort(key=lambda entry: entry[0])
        _, y, total, base = queue.pop()
        if complete(y):
            return list(y), total
        for child, new, last in _children(model, x, y, total, allowed):
            if at_sight and complete(child):
                return list(child), new
            asked = asked_of_all or not complete(child)
            estimate = float(heuristic([[*x, *about(child)]])[0]) if asked else 0.0
            start = base + last + (estimate if accumulate else 0.0)
            queue.append((combine(base + last, estimate, len(child)), child, new, start))


def _best_first(
    model: LanguageModel,
    x: Sequence[int],
    *,
    num_beams: int,
    max_tokens: int,
    length_penalty: float = 0.0,
    priority: Callable[[Tokens, float], Any] = lambda y, total: total,
    bound: Callable[[float, Tokens, int, float], float] = lambda total, y, longest, penalty: total / longest**penalty,
    places: Callable[[int, int], int] = lambda taken, expanded: expanded,
    length: Callable[[Tokens], int] = len,
    allowed: Callable[[Tokens], bool] = lambda y: True,
    all_count: bool = False,
    queue_limit: bool = False,
    wider: int = 0,
) -> Found:
    """Do best-first beam search with one thing changed."""
    if num_beams < 1 or max_tokens < 1 or length_penalty < 0:
        raise ValueError(num_beams, max_tokens, length_penalty)
    queue: list[tuple[Tokens, float]] = [((), 0.0)]
    taken: Counter[int] = Counter()
    expanded: Counter[int] = Counter()
    best: Found = ([], -math.inf)
    score = -math.inf
    while queue:
        queue.sort(key=lambda entry: priority(*entry))
        y, total = queue.pop()
        if score > -math.inf and bound(total, y, max_tokens, length_penalty) <= score:
            break
        n = len(y)
        taken[n] += 1
        if n == max_tokens or y[-1:] == (model.eos_token_id,):
            new = total / length(y) ** length_penalty
            if (all_count or taken[n] <= num_beams) and new > score:
                best, score = (list(y), total), new
        elif places(taken[n], expanded[n]) < num_beams + wider:
            expanded[n] += 1
            queue += [(child, value) for child, value, _ in _children(model, x, y, total, allowed)]
            if queue_limit:
                queue = sorted(queue, key=lambda entry: priority(*entry))[-num_beams:]
    return best


def _exact(
    model: LanguageModel,
    x: Sequence[int],
    *,
    max_tokens: int,
    length_penalty: float = 0.0,
    bound: Callable[[float, Tokens, int], float] | None = None,
    order: Callable[[tuple[Tokens, float, float]], float] = lambda child: child[1],
    allowed: Callable[[Tokens], bool] = lambda y: True,
    enough: Callable[[Found], bool] = lambda found: False,
    replaces: Callable[[float, float], bool] = lambda new, old: new > old,
    length: Callable[[Tokens], int] = len,
    most: int | None = None,
    early: bool = False,
) -> Found:
    """Do branch and bound with one thing changed."""
    if max_tokens < 1 or length_penalty < 0:
        raise ValueError(max_tokens, length_penalty)
    bound = bound or (lambda total, y, longest: total / longest**length_penalty)
    best: Found = ([], -math.inf)
    score = -math.inf
    stack: list[tuple[Tokens, float, float]] = [((), 0.0, 0.0)]
    while stack:
        y, total, _ = stack.pop()
        if len(y) == max_tokens or y[-1:] == (model.eos_token_id,):
            new = total / length(y) ** length_penalty
            if replaces(new, score):
                best, score = (list(y), total), new
                if enough(best):
                    return best
        elif early or bound(total, y, max_tokens) > score:
            children = sorted(_children(model, x, y, total, allowed), key=order)
            kept = [c for c in children if not early or bound(c[1], c[0], max_tokens) > score]
            stack += kept[-most:] if most else kept
    return best
