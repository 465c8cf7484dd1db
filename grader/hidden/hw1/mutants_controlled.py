"""Plausible wrong solutions of hw1.controlled: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from grader.reference.hw1 import controlled as reference
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness
from shared_tasks.models.toy import enumerate_sequences

Predicate = Callable[[list[int]], bool]
Classifier = Callable[[list[list[int]]], Tensor]
Index = dict[int, dict[int, int]]
Distribution = dict[tuple[int, ...], float]


def generate_with_processors__reversed(model: LanguageModel, x: Any, processors: Any, **settings: Any) -> Any:
    """Calls the last processor first."""
    return reference.generate_with_processors(model, x, list(processors)[::-1], **settings)


def generate_with_processors__prompt_included(model: LanguageModel, x: Any, processors: Any, **settings: Any) -> Any:
    """Gives processors the prompt with the continuation."""
    return _generate(model, x, processors, **settings, prompt_seen=True)


def generate_with_processors__first_step_alone(model: LanguageModel, x: Any, processors: Any, **settings: Any) -> Any:
    """Calls processors at the first step only."""
    return _generate(model, x, processors, **settings, steps=1)


def generate_with_processors__each_from_the_model(
    model: LanguageModel, x: Any, processors: Any, **settings: Any
) -> Any:
    """Gives every processor the model's logits, so that only the last one counts."""
    return reference.generate_with_processors(model, x, list(processors)[-1:], **settings)


def generate_with_processors__ended_rows_stay(model: LanguageModel, x: Any, processors: Any, **settings: Any) -> Any:
    """Carries rows along that have ended, and cuts them in the end."""
    return _generate(model, x, processors, **settings, drop_ended=False)


def generate_with_processors__end_token_removed(model: LanguageModel, x: Any, processors: Any, **settings: Any) -> Any:
    """Leaves the end token out."""
    sampled = reference.generate_with_processors(model, x, processors, **settings)
    return [[token for token in y if token != model.eos_token_id] for y in sampled]


def generate_with_processors__prompt_returned(model: LanguageModel, x: Any, processors: Any, **settings: Any) -> Any:
    """Returns prompts with their continuations."""
    sampled = reference.generate_with_processors(model, x, processors, **settings)
    return [[*prompt, *y] for prompt, y in zip(x, sampled, strict=True)]


def generate_with_processors__prompt_counted(
    model: LanguageModel, x: Any, processors: Any, *, max_tokens: int, rng: Randomness
) -> Any:
    """Counts the prompt towards max_tokens."""
    short = max_tokens if max_tokens < 0 else max(max_tokens - max(map(len, x)), 0)
    return reference.generate_with_processors(model, x, processors, max_tokens=short, rng=rng)


def generate_with_processors__negative_accepted(
    model: LanguageModel, x: Any, processors: Any, *, max_tokens: int, rng: Randomness
) -> Any:
    """Returns nothing for a negative max_tokens."""
    return reference.generate_with_processors(model, x, processors, max_tokens=max(max_tokens, 0), rng=rng)


def compile_automaton__dead_states_kept(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Allows tokens that lead to states from which nothing is accepted."""
    return _compile(automaton, vocabulary, eos_token_id, trim=False)


def compile_automaton__live_by_characters(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Asks whether characters lead to acceptance, although no tokens do."""
    return _compile(automaton, vocabulary, eos_token_id, by_characters=True)


def compile_automaton__first_character_alone(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Looks at the first character of a token."""
    return reference.compile_automaton(automaton, [text[:1] for text in vocabulary], eos_token_id)


def compile_automaton__single_characters(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Leaves out tokens of several characters."""
    short = [text if len(text) == 1 else "" for text in vocabulary]
    return reference.compile_automaton(automaton, short, eos_token_id)


def compile_automaton__one_step_of_liveness(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Looks one token ahead for an accepting state, and no further."""
    return _compile(automaton, vocabulary, eos_token_id, rounds=1)


def compile_automaton__stays_where_refused(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Stops a token at the character that is refused, instead of forbidding it."""
    return _compile(automaton, vocabulary, eos_token_id, lenient=True)


def compile_automaton__end_token_by_text(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Treats the end token as any other, by its text."""
    return reference.compile_automaton(automaton, vocabulary, -1)


def compile_automaton__empty_text_allowed(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Allows tokens of empty text, which lead nowhere."""
    index = reference.compile_automaton(automaton, vocabulary, eos_token_id)
    empty = [token for token, text in enumerate(vocabulary) if not text and token != eos_token_id]
    return {state: row | dict.fromkeys(empty, state) for state, row in index.items()}


def compile_automaton__final_states_missing(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Has no entry for states after which nothing may follow."""
    return {s: row for s, row in reference.compile_automaton(automaton, vocabulary, eos_token_id).items() if row}


def compile_automaton__unreachable_states_kept(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Has entries for states to which no tokens lead."""
    index = reference.compile_automaton(automaton, vocabulary, eos_token_id)
    others = {s: {} for s, _ in automaton.transitions} | {s: {} for s in automaton.transitions.values()}
    return others | index


def compile_automaton__impossible_is_empty(automaton: Any, vocabulary: Sequence[str], eos_token_id: int) -> Index:
    """Returns an empty entry where nothing is accepted."""
    try:
        return reference.compile_automaton(automaton, vocabulary, eos_token_id)
    except ValueError:
        return {automaton.start: {}}


def compile_automaton__accepting_states_are_final(
    automaton: Any, vocabulary: Sequence[str], eos_token_id: int
) -> Index:
    """Lets nothing follow an accepting state."""
    index = reference.compile_automaton(automaton, vocabulary, eos_token_id)
    return {state: {} if state in automaton.accepting else row for state, row in index.items()}


def constrain_logits__end_token_always(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Lets the end token through in every state."""
    constrained = reference.constrain_logits(continuations, logits, **options)
    end = options["eos_token_id"]
    constrained[:, end] = logits[:, end]
    return constrained


def constrain_logits__end_token_never(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Never lets the end token through."""
    constrained = reference.constrain_logits(continuations, logits, **options)
    constrained[:, options["eos_token_id"]] = -torch.inf
    return constrained


def constrain_logits__end_only_where_accepting(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Allows nothing but the end token in an accepting state."""
    constrained = reference.constrain_logits(continuations, logits, **options)
    end = options["eos_token_id"]
    done = constrained[:, end] > -torch.inf
    kept = constrained[done, end]
    constrained[done] = -torch.inf
    constrained[done, end] = kept
    return constrained


def constrain_logits__start_state_always(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Masks by the start state at every step."""
    reference.constrain_logits(continuations, logits, **options)
    return reference.constrain_logits([[] for _ in continuations], logits, **options)


def constrain_logits__last_token_from_start(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Follows the last token alone."""
    reference.constrain_logits(continuations, logits, **options)
    return reference.constrain_logits([list(y)[-1:] for y in continuations], logits, **options)


def constrain_logits__renormalised(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Returns log-probabilities in place of logits."""
    return reference.constrain_logits(continuations, logits, **options).log_softmax(-1)


def constrain_logits__in_place(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Writes into the argument."""
    return logits.copy_(reference.constrain_logits(continuations, logits, **options))


def constrain_logits__zero_for_forbidden(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Multiplies logits by the mask."""
    constrained = reference.constrain_logits(continuations, logits, **options)
    return constrained.masked_fill(constrained == -torch.inf, 0.0)


def constrain_logits__first_row_for_all(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Masks all rows by the first continuation."""
    reference.constrain_logits(continuations, logits, **options)
    return reference.constrain_logits([continuations[0]] * len(continuations), logits, **options)


def constrain_logits__forbidden_accepted(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Forbids everything after a token that was not allowed, without an error."""
    try:
        return reference.constrain_logits(continuations, logits, **options)
    except ValueError:
        return torch.full_like(logits, -torch.inf)


def constrain_logits__dead_ends(continuations: Any, logits: Tensor, **options: Any) -> Tensor:
    """Forbids only what the automaton refuses at once."""
    constrained = reference.constrain_logits(continuations, logits, **options)
    automaton, vocabulary, end = options["automaton"], options["vocabulary"], options["eos_token_id"]
    for row, y in enumerate(continuations):
        state = _end(automaton, automaton.start, "".join(vocabulary[token] for token in y))
        for token, text in enumerate(vocabulary):
            if text and token != end and state is not None and _end(automaton, state, text) is not None:
                constrained[row, token] = logits[row, token]
    return constrained


def grid_beam_search__one_beam_for_all(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Lets all hypotheses compete, as in beam search."""
    return _grid(model, prompt, phrases, **settings, bank=lambda y: 0)


def grid_beam_search__complete_phrases_counted(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Counts phrases that are complete, not their tokens."""
    return _grid(model, prompt, phrases, **settings, bank=lambda y: sum(_contains(y, p) for p in phrases))


def grid_beam_search__progress_by_phrase(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Has a bank for each combination of progress, not for the total."""
    return _grid(
        model, prompt, phrases, **settings, bank=lambda y: tuple(reference._progress(y, list(p)) for p in phrases)
    )


def grid_beam_search__longest_prefix_ever(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Counts the longest prefix that occurs anywhere, not at the end."""
    return _grid(
        model,
        prompt,
        phrases,
        **settings,
        bank=lambda y: sum(max(k for k in range(len(p) + 1) if not k or _contains(y, p[:k])) for p in phrases),
    )


def grid_beam_search__tokens_in_any_order(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Takes a phrase for contained when all of its tokens are."""
    return _grid(model, prompt, phrases, **settings, valid=lambda y: all(set(p) <= set(y) for p in phrases))


def grid_beam_search__any_phrase(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Is content with one of the phrases."""
    return _grid(
        model, prompt, phrases, **settings, valid=lambda y: not phrases or any(_contains(y, p) for p in phrases)
    )


def grid_beam_search__phrases_may_not_overlap(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Wants room for every phrase."""
    room = sum(map(len, phrases))
    return _grid(
        model, prompt, phrases, **settings, valid=lambda y: len(y) >= room and all(_contains(y, p) for p in phrases)
    )


def grid_beam_search__prompt_searched(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Looks for phrases in the prompt, too."""
    return _grid(model, prompt, phrases, **settings, valid=lambda y: all(_contains([*prompt, *y], p) for p in phrases))


def grid_beam_search__prompt_ignored(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Searches without the prompt."""
    return reference.grid_beam_search(model, [], phrases, **settings)


def grid_beam_search__prompt_returned(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Returns the prompt with the continuation."""
    y = reference.grid_beam_search(model, prompt, phrases, **settings)
    return y if y is None else [*prompt, *y]


def grid_beam_search__end_token_removed(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Leaves the end token out."""
    y = reference.grid_beam_search(model, prompt, phrases, **settings)
    return y if y is None else y[:-1]


def grid_beam_search__first_result(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Stops at the first result."""
    return _grid(model, prompt, phrases, **settings, first=True)


def grid_beam_search__normalised(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Returns the result of highest log-probability per token."""
    return _grid(model, prompt, phrases, **settings, score=lambda total, y: total / len(y))


def grid_beam_search__end_token_not_counted(
    model: LanguageModel, prompt: Any, phrases: Any, *, num_beams: int, max_tokens: int
) -> Any:
    """Goes on for one step more, for the end token."""
    longer = max_tokens + 1 if max_tokens >= 0 else max_tokens
    return reference.grid_beam_search(model, prompt, phrases, num_beams=num_beams, max_tokens=longer)


def grid_beam_search__empty_for_none(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Returns an empty continuation where there is none."""
    return reference.grid_beam_search(model, prompt, phrases, **settings) or []


def grid_beam_search__one_beam_more(
    model: LanguageModel, prompt: Any, phrases: Any, *, num_beams: int, max_tokens: int
) -> Any:
    """Keeps one hypothesis more."""
    wide = num_beams + 1 if num_beams > 0 else num_beams
    return reference.grid_beam_search(model, prompt, phrases, num_beams=wide, max_tokens=max_tokens)


def grid_beam_search__model_called_by_hypothesis(
    model: LanguageModel, prompt: Any, phrases: Any, **settings: Any
) -> Any:
    """Calls the model once for each hypothesis."""
    return _grid(model, prompt, phrases, **settings, batched=False)


def grid_beam_search__end_token_in_phrase(model: LanguageModel, prompt: Any, phrases: Any, **settings: Any) -> Any:
    """Accepts phrases with the end token."""
    if any(model.eos_token_id in phrase for phrase in phrases):
        return None
    return reference.grid_beam_search(model, prompt, phrases, **settings)


def contrastive_logits__no_head(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Leaves the plausibility constraint out."""
    reference.contrastive_logits(expert_logits, amateur_logits, alpha)
    return expert_logits.log_softmax(-1) - amateur_logits.log_softmax(-1)


def contrastive_logits__absolute_cut(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Compares with alpha, not with alpha times the maximum."""
    score = contrastive_logits__no_head(expert_logits, amateur_logits, alpha)
    return score.masked_fill(expert_logits.softmax(-1) < alpha, -torch.inf)


def contrastive_logits__head_of_the_amateur(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Cuts by the amateur's probabilities."""
    p = amateur_logits.softmax(-1)
    score = contrastive_logits__no_head(expert_logits, amateur_logits, alpha)
    return score.masked_fill(p < alpha * p.amax(-1, keepdim=True), -torch.inf)


def contrastive_logits__cut_on_log_probabilities(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Multiplies the log-probability by alpha."""
    logprobs = expert_logits.log_softmax(-1)
    score = contrastive_logits__no_head(expert_logits, amateur_logits, alpha)
    return score.masked_fill(logprobs < logprobs.amax(-1, keepdim=True) / alpha, -torch.inf)


def contrastive_logits__maximum_of_the_batch(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Takes the maximum over all rows."""
    p = expert_logits.softmax(-1)
    score = contrastive_logits__no_head(expert_logits, amateur_logits, alpha)
    return score.masked_fill(p < alpha * p.max(), -torch.inf)


def contrastive_logits__not_normalised(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Subtracts logits as they are."""
    head = reference.contrastive_logits(expert_logits, amateur_logits, alpha) > -torch.inf
    return (expert_logits - amateur_logits).masked_fill(~head, -torch.inf)


def contrastive_logits__amateur_minus_expert(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Subtracts the wrong way round."""
    score = reference.contrastive_logits(expert_logits, amateur_logits, alpha)
    return torch.where(score > -torch.inf, -score, score)


def contrastive_logits__zero_outside(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Gives tokens outside the head a score of zero."""
    score = reference.contrastive_logits(expert_logits, amateur_logits, alpha)
    return score.masked_fill(score == -torch.inf, 0.0)


def contrastive_logits__any_alpha(expert_logits: Tensor, amateur_logits: Tensor, alpha: float) -> Tensor:
    """Accepts every alpha."""
    return reference.contrastive_logits(expert_logits, amateur_logits, min(max(alpha, 1e-9), 1.0))


def dexperts_logprobs__not_normalised(base: Tensor, expert: Tensor, anti: Tensor, alpha: float) -> Tensor:
    """Returns the sum of logits."""
    return base + alpha * (expert - anti)


def dexperts_logprobs__experts_swapped(base: Tensor, expert: Tensor, anti: Tensor, alpha: float) -> Tensor:
    """Multiplies by the anti-expert."""
    return reference.dexperts_logprobs(base, anti, expert, alpha)


def dexperts_logprobs__alpha_on_base(base: Tensor, expert: Tensor, anti: Tensor, alpha: float) -> Tensor:
    """Weighs the base, not the experts."""
    return (alpha * base.log_softmax(-1) + expert - anti).log_softmax(-1)


def dexperts_logprobs__alpha_on_expert_alone(base: Tensor, expert: Tensor, anti: Tensor, alpha: float) -> Tensor:
    """Leaves the anti-expert without its exponent."""
    return (base + alpha * expert - anti).log_softmax(-1)


def dexperts_logprobs__interpolated(base: Tensor, expert: Tensor, anti: Tensor, alpha: float) -> Tensor:
    """Goes from the base towards the ratio."""
    return ((1 - alpha) * base.clamp(min=-1e9) + alpha * (expert - anti)).log_softmax(-1)


def dexperts_logprobs__added_probabilities(base: Tensor, expert: Tensor, anti: Tensor, alpha: float) -> Tensor:
    """Adds probabilities, and clips those below zero."""
    mixed = base.softmax(-1) + alpha * (expert.softmax(-1) - anti.softmax(-1))
    return (mixed.clamp(min=0) / mixed.clamp(min=0).sum(-1, keepdim=True)).log()


def dexperts_logprobs__normalised_over_the_batch(base: Tensor, expert: Tensor, anti: Tensor, alpha: float) -> Tensor:
    """Normalises along the first dimension."""
    return (base + alpha * (expert - anti)).log_softmax(0)


def fudge_logprobs__not_normalised(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Returns the product as it is."""
    return _fudge(model, contexts, classifier, normalise=False)


def fudge_logprobs__context_alone(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Asks the classifier about the context, without the next token."""
    return _fudge(model, contexts, lambda prefixes: classifier([prefix[:-1] for prefix in prefixes]))


def fudge_logprobs__token_alone(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Asks the classifier about the next token, without its context."""
    return _fudge(model, contexts, lambda prefixes: classifier([prefix[-1:] for prefix in prefixes]))


def fudge_logprobs__one_call_by_context(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Calls the classifier once for each context."""
    return torch.cat([reference.fudge_logprobs(model, [context], classifier) for context in contexts])


def fudge_logprobs__wrong_order(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Mixes up contexts and tokens when it reshapes."""
    n, size = len(contexts), model.vocab_size
    return _fudge(model, contexts, lambda prefixes: classifier(prefixes).reshape(n, size).T.reshape(-1))


def fudge_logprobs__probability_added(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Adds the probability to the log-probability, without its logarithm."""
    return _fudge(model, contexts, lambda prefixes: classifier(prefixes).exp())


def fudge_logprobs__classifier_alone(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Leaves the model out."""
    return _fudge(model, contexts, classifier, weight=0.0)


def fudge_logprobs__zero_row(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Returns NaN for a row that cannot be normalised."""
    return _fudge(model, contexts, classifier)


def fudge_logprobs__error_for_all_rows_alone(model: LanguageModel, contexts: Any, classifier: Classifier) -> Tensor:
    """Raises only if no row can be normalised."""
    result = _fudge(model, contexts, classifier)
    if result.isnan().all():
        raise ValueError("expected a token of positive weight")
    return result


def guided_logprobs__not_normalised(model: LanguageModel, prompts: Any, continuations: Any, scale: float) -> Tensor:
    """Returns the combination as it is."""
    return _guided(model, prompts, continuations, scale, normalise=False)


def guided_logprobs__scale_shifted(model: LanguageModel, prompts: Any, continuations: Any, scale: float) -> Tensor:
    """Starts from the conditional distribution, so that zero is no guidance."""
    _guided(model, prompts, continuations, scale)
    return reference.guided_logprobs(model, prompts, continuations, scale + 1)


def guided_logprobs__swapped(model: LanguageModel, prompts: Any, continuations: Any, scale: float) -> Tensor:
    """Goes away from the prompt."""
    return _guided(model, prompts, continuations, scale, swap=True)


def guided_logprobs__empty_context(model: LanguageModel, prompts: Any, continuations: Any, scale: float) -> Tensor:
    """Gives the unconditional model nothing at all."""
    return _guided(model, prompts, continuations, scale, unconditional=lambda x, y: [])


def guided_logprobs__last_prompt_token_kept(
    model: LanguageModel, prompts: Any, continuations: Any, scale: float
) -> Tensor:
    """Starts the unconditional context at the last token of the prompt."""
    return _guided(model, prompts, continuations, scale, unconditional=lambda x, y: [*x[-1:], *y])


def guided_logprobs__prompt_as_unconditional(
    model: LanguageModel, prompts: Any, continuations: Any, scale: float
) -> Tensor:
    """Gives the unconditional model the prompt without the continuation."""
    return _guided(model, prompts, continuations, scale, unconditional=lambda x, y: list(x))


def guided_logprobs__probabilities_mixed(
    model: LanguageModel, prompts: Any, continuations: Any, scale: float
) -> Tensor:
    """Combines probabilities, and clips those below zero."""
    c, u = (_guided(model, prompts, continuations, s).exp() for s in (1.0, 0.0))
    mixed = (u + scale * (c - u)).clamp(min=1e-12)
    return (mixed / mixed.sum(-1, keepdim=True)).log()


def guided_logprobs__two_calls(model: LanguageModel, prompts: Any, continuations: Any, scale: float) -> Tensor:
    """Calls the model twice."""
    result = reference.guided_logprobs(model, prompts, continuations, scale)
    model.next_token_logprobs([list(y) for y in continuations])
    return result


def guided_logprobs__negative_scale(model: LanguageModel, prompts: Any, continuations: Any, scale: float) -> Tensor:
    """Accepts a negative scale."""
    if len(prompts) != len(continuations):
        raise ValueError("expected as many continuations as prompts")
    return _guided(model, prompts, continuations, scale, checked=False)


def guided_logprobs__shorter_of_both(model: LanguageModel, prompts: Any, continuations: Any, scale: float) -> Tensor:
    """Leaves out what has no partner."""
    n = min(len(prompts), len(continuations))
    return reference.guided_logprobs(model, prompts[:n], continuations[:n], scale)


def exact_posterior__joint(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Returns P(sequence and predicate), not divided by Z."""
    exact = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    return reference.Posterior({y: p * exact.normaliser for y, p in exact.probabilities.items()}, exact.normaliser)


def exact_posterior__normaliser_one(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Sums up the probabilities after the division."""
    exact = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    return reference.Posterior(exact.probabilities, 1.0)


def exact_posterior__logarithm(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Returns log Z."""
    exact = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    return reference.Posterior(exact.probabilities, math.log(exact.normaliser))


def exact_posterior__prompt_ignored(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Forgets the prompt."""
    return reference.exact_posterior(model, predicate, max_tokens=max_tokens)


def exact_posterior__predicate_sees_prompt(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Gives the predicate the prompt with the continuation."""
    return reference.exact_posterior(model, lambda y: predicate([*prompt, *y]), max_tokens=max_tokens, prompt=prompt)


def exact_posterior__ended_alone(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Leaves out continuations that are cut at max_tokens."""
    end = model.eos_token_id
    return reference.exact_posterior(
        model, lambda y: predicate(y) and y[-1] == end, max_tokens=max_tokens, prompt=prompt
    )


def exact_posterior__end_token_removed(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Returns sequences without the end token."""
    exact = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    end = model.eos_token_id
    return reference.Posterior(
        {y[:-1] if y[-1] == end else y: p for y, p in exact.probabilities.items()}, exact.normaliser
    )


def exact_posterior__zeros_kept(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Lists continuations of other tokens with probability zero."""
    exact = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    extra = {(token,) * max_tokens: 0.0 for token in range(model.vocab_size)}
    kept = {y: p for y, p in extra.items() if predicate(list(y))}
    return reference.Posterior(kept | exact.probabilities, exact.normaliser)


def exact_posterior__local_masks(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Masks each step on its own."""
    exact = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    local = reference.locally_masked_distribution(model, predicate, max_tokens=max_tokens, prompt=prompt)
    return reference.Posterior(local, exact.normaliser)


def exact_posterior__impossible_is_empty(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> reference.Posterior:
    """Returns an empty distribution where the predicate holds for none."""
    try:
        return reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    except ValueError:
        return reference.Posterior({}, 0.0)


def locally_masked_distribution__posterior(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> Distribution:
    """Conditions on the predicate."""
    return reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt).probabilities


def locally_masked_distribution__not_renormalised(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> Distribution:
    """Masks without renormalising."""
    exact = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    return {y: p * exact.normaliser for y, p in exact.probabilities.items()}


def locally_masked_distribution__last_step_alone(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> Distribution:
    """Masks complete continuations only, and loses the mass of dead ends."""
    exact = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt)
    everything = enumerate_sequences(model, max_tokens, prompt)
    among: Distribution = {}
    for y in exact.probabilities:
        among[y[:-1]] = among.get(y[:-1], 0.0) + everything[y]
    before = {y[:-1]: sum(p for z, p in everything.items() if z[: len(y) - 1] == y[:-1]) for y in exact.probabilities}
    return {y: everything[y] / among[y[:-1]] * before[y[:-1]] for y in exact.probabilities}


def locally_masked_distribution__uniform(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> Distribution:
    """Shares the mass evenly among the tokens left."""
    accepted = reference.exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt).probabilities
    viable = {y[:t] for y in accepted for t in range(len(y) + 1)}
    ways = {v: sum(w[:-1] == v for w in viable if w) for v in viable}
    return {y: math.prod(1 / ways[y[:t]] for t in range(len(y))) for y in accepted}


def locally_masked_distribution__prompt_ignored(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> Distribution:
    """Forgets the prompt."""
    return reference.locally_masked_distribution(model, predicate, max_tokens=max_tokens)


def locally_masked_distribution__impossible_not_masked(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> Distribution:
    """Keeps tokens that only lead to continuations of probability zero."""
    local = reference.locally_masked_distribution(model, predicate, max_tokens=max_tokens, prompt=prompt)
    row = model.next_token_logprobs([list(prompt)])[0].exp().tolist()
    accepted = {y[0] for y in local}
    fits = {t for t in range(model.vocab_size) if any(predicate([t, u]) for u in range(model.vocab_size))}
    share = sum(row[t] for t in accepted) / sum(row[t] for t in accepted | fits)
    return {y: p * share for y, p in local.items()}


def locally_masked_distribution__impossible_is_empty(
    model: LanguageModel, predicate: Predicate, *, max_tokens: int, prompt: Any = ()
) -> Distribution:
    """Returns an empty distribution where the predicate holds for none."""
    try:
        return reference.locally_masked_distribution(model, predicate, max_tokens=max_tokens, prompt=prompt)
    except ValueError:
        return {}


def _generate(
    model: LanguageModel,
    x: Any,
    processors: Any,
    *,
    max_tokens: int,
    rng: Randomness,
    prompt_seen: bool = False,
    steps: float = math.inf,
    drop_ended: bool = True,
) -> list[list[int]]:
    """Generate with bugs."""
    if max_tokens < 0:
        raise ValueError("expected max_tokens >= 0")
    end = model.eos_token_id
    y: list[list[int]] = [[] for _ in x]
    for step in range(max_tokens):
        live = [i for i in range(len(x)) if not drop_ended or end not in y[i]]
        if all(end in row for row in y):
            break
        logits = model.next_token_logprobs([[*x[i], *y[i]] for i in live])
        for process in processors if step < steps else []:
            logits = process([[*x[i], *y[i]] if prompt_seen else list(y[i]) for i in live], logits)
        for i, token in zip(live, rng.categorical(logits.softmax(-1)).tolist(), strict=True):
            y[i].append(token)
    return [row[: row.index(end) + 1] if end in row else row for row in y]


def _end(automaton: Any, state: int, text: str, lenient: bool = False) -> int | None:
    """Return the state after a text."""
    for character in text:
        if (state, character) in automaton.transitions:
            state = automaton.transitions[state, character]
        elif lenient:
            break
        else:
            return None
    return state


def _compile(
    automaton: Any,
    vocabulary: Sequence[str],
    eos_token_id: int,
    *,
    trim: bool = True,
    by_characters: bool = False,
    rounds: float = math.inf,
    lenient: bool = False,
) -> Index:
    """Compile with bugs."""
    states = {automaton.start, *automaton.accepting, *automaton.transitions.values()}
    states |= {state for state, _ in automaton.transitions}
    usable = [token for token, text in enumerate(vocabulary) if text and token != eos_token_id]
    steps: Index = {}
    for state in states:
        ends = {token: _end(automaton, state, vocabulary[token], lenient) for token in usable}
        steps[state] = {token: end for token, end in ends.items() if end is not None}
    edges = [(s, end) for s in states for end in steps[s].values()]
    if by_characters:
        edges = [(s, end) for (s, _), end in automaton.transitions.items()]
    live, done = set(automaton.accepting), 0
    while (grown := live | {s for s, end in edges if end in live}) != live and done < rounds:
        live, done = grown, done + 1
    if automaton.start not in live:
        raise ValueError("expected an automaton that accepts some text")
    index: Index = {}
    frontier = [automaton.start]
    while frontier:
        state = frontier.pop()
        if state not in index:
            index[state] = {token: end for token, end in steps[state].items() if not trim or end in live}
            frontier += index[state].values()
    return index


def _contains(y: Sequence[int], phrase: Sequence[int]) -> bool:
    """Say whether the phrase occurs in y."""
    return any(list(y[i : i + len(phrase)]) == list(phrase) for i in range(len(y)))


def _grid(
    model: LanguageModel,
    prompt: Any,
    phrases: Any,
    *,
    num_beams: int,
    max_tokens: int,
    bank: Callable[[list[int]], Any] | None = None,
    valid: Callable[[list[int]], bool] | None = None,
    score: Callable[[float, list[int]], float] = lambda total, y: total,
    first: bool = False,
    batched: bool = True,
) -> list[int] | None:
    """Search with bugs."""
    reference.grid_beam_search(model, prompt, phrases, num_beams=num_beams, max_tokens=min(max_tokens, 0))
    bank = bank or (lambda y: sum(reference._progress(y, list(p)) for p in phrases))
    valid = valid or (lambda y: all(_contains(y, p) for p in phrases))
    beam: list[tuple[float, list[int]]] = [(0.0, [])]
    results: list[tuple[float, list[int]]] = []
    for _ in range(max_tokens):
        contexts = [[*prompt, *y] for _, y in beam]
        if not contexts or (first and results):
            break
        if batched:
            rows = model.next_token_logprobs(contexts).tolist()
        else:
            rows = [model.next_token_logprobs([context])[0].tolist() for context in contexts]
        banks: dict[Any, list[tuple[float, list[int]]]] = {}
        for (total, y), row in zip(beam, rows, strict=True):
            for token, logprob in enumerate(row):
                grown = (total + logprob, [*y, token])
                if logprob == -math.inf:
                    continue
                if token != model.eos_token_id:
                    banks.setdefault(bank(grown[1]), []).append(grown)
                elif valid(y):
                    results.append((score(*grown), grown[1]))
        beam = [best for candidates in banks.values() for best in sorted(candidates)[-num_beams:]]
    return max(results)[1] if results else None


def _fudge(
    model: LanguageModel, contexts: Any, classifier: Classifier, *, normalise: bool = True, weight: float = 1.0
) -> Tensor:
    """Combine with bugs."""
    logprobs = model.next_token_logprobs(contexts)
    prefixes = [[*context, token] for context in contexts for token in range(model.vocab_size)]
    weights = weight * logprobs + classifier(prefixes).to(logprobs).log().reshape(logprobs.shape)
    return weights.log_softmax(-1) if normalise else weights


def _guided(
    model: LanguageModel,
    prompts: Any,
    continuations: Any,
    scale: float,
    *,
    unconditional: Callable[[Any, Any], list[int]] = lambda x, y: list(y),
    normalise: bool = True,
    swap: bool = False,
    checked: bool = True,
) -> Tensor:
    """Guide with bugs."""
    if checked and (scale < 0 or len(prompts) != len(continuations)):
        raise ValueError("expected a guidance_scale >= 0 and as many continuations as prompts")
    pairs = list(zip(prompts, continuations, strict=True))
    contexts = [[*x, *y] for x, y in pairs] + [unconditional(x, y) for x, y in pairs]
    c, u = model.next_token_logprobs(contexts).split(len(pairs))
    if swap:
        c, u = u, c
    mixed = u + scale * (c - u)
    return mixed.log_softmax(-1) if normalise else mixed
