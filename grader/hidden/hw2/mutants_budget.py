"""Plausible wrong solutions of hw2.budget: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from grader.reference.hw2 import budget as reference
from grader.reference.hw2.budget import Choice, Example, Option, Thought, Verified
from shared_tasks.models.engine import Completion, Engine, SamplingParams

Answers = Sequence[str | None]
Encode = Callable[[str], list[int]]
Verify = Callable[[str, str], bool]


def _force(
    model: Engine, x: str, end: str, continuation: str, min_tokens: int, max_tokens: int, params: SamplingParams,
    *, count: Callable[[Completion], int] = lambda completion: len(completion.token_ids),
    enough: Callable[[int], bool] | None = None, remaining: Callable[[int], int] | None = None,
    stop: tuple[str, ...] | None = None, limit: int = 99, forced: int = 0, answer: Callable[[str], str] | None = None,
    answer_params: SamplingParams | None = None,
) -> Thought:  # fmt: skip
    if not 0 <= min_tokens <= max_tokens or max_tokens < 1:
        raise ValueError("no such budget")
    thinking, tokens = "", 0
    for _ in range(limit):
        left = remaining(tokens) if remaining else max_tokens - tokens
        settings = msgspec.structs.replace(params, n=1, stop=stop or (end,), max_tokens=left)
        completion = model.generate([x + thinking], settings)[0].completions[0]
        thinking += completion.text
        tokens += count(completion)
        if completion.finish_reason == "length" or (enough(tokens) if enough else tokens >= min_tokens):
            break
        thinking += continuation
        tokens += forced
    prompt = answer(thinking) if answer else x + thinking + end
    (generation,) = model.generate([prompt], answer_params or msgspec.structs.replace(params, n=1))
    return Thought(thinking, tokens, generation.completions[0].text)


def force_budget__counts_forced_tokens(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Counts the continuation as the model's own thinking."""
    return _force(
        model, x, end_of_thinking, continuation, min_tokens, max_tokens, params, forced=len(continuation.split())
    )


def force_budget__forces_once(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Forces at most one continuation."""
    return _force(
        model, x, end_of_thinking, continuation, min_tokens, max_tokens, params, enough=lambda tokens: False, limit=2
    )


def force_budget__more_than_the_minimum(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Asks for more tokens than the minimum."""
    return _force(
        model, x, end_of_thinking, continuation, min_tokens, max_tokens, params,
        enough=lambda tokens: tokens > min_tokens or tokens == max_tokens,
    )  # fmt: skip


def force_budget__maximum_for_each_request(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Gives each request the whole maximum."""
    return _force(
        model, x, end_of_thinking, continuation, min_tokens, max_tokens, params, remaining=lambda tokens: max_tokens
    )


def force_budget__no_end_of_thinking(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Asks for the answer while the model still thinks."""
    return _force(
        model, x, end_of_thinking, continuation, min_tokens, max_tokens, params, answer=lambda thinking: x + thinking
    )


def force_budget__counts_words_of_the_text(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Leaves the tokens of the stop string out."""
    return _force(
        model, x, end_of_thinking, continuation, min_tokens, max_tokens, params,
        count=lambda completion: len(completion.text.split()),
    )  # fmt: skip


def force_budget__callers_stop_strings_too(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Lets the answer's stop strings end the thinking."""
    return _force(
        model, x, end_of_thinking, continuation, min_tokens, max_tokens, params, stop=(end_of_thinking, *params.stop)
    )


def force_budget__answer_with_thinking_parameters(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Answers with the parameters of the thinking."""
    settings = msgspec.structs.replace(params, n=1, stop=(end_of_thinking,), max_tokens=max_tokens)
    return _force(model, x, end_of_thinking, continuation, min_tokens, max_tokens, params, answer_params=settings)


def force_budget__forces_after_a_cut(
    model: Engine, x: str, end_of_thinking: str, continuation: str,
    *, min_tokens: int, max_tokens: int, params: SamplingParams,
) -> Thought:  # fmt: skip
    """Looks at the tokens alone, not at why the model stopped."""
    thinking, tokens = "", 0
    if not 0 <= min_tokens <= max_tokens or max_tokens < 1:
        raise ValueError("no such budget")
    while True:
        settings = msgspec.structs.replace(params, n=1, stop=(end_of_thinking,), max_tokens=max_tokens - tokens)
        completion = model.generate([x + thinking], settings)[0].completions[0]
        thinking += completion.text
        tokens += len(completion.token_ids)
        if tokens >= min_tokens:
            break
        thinking += continuation
    (generation,) = model.generate([x + thinking + end_of_thinking], msgspec.structs.replace(params, n=1))
    return Thought(thinking, tokens, generation.completions[0].text)


def pass_at_k__with_replacement(n: int, c: int, k: int) -> float:
    """Draws with replacement."""
    reference.pass_at_k(n, c, k)
    return 1 - (1 - c / n) ** k


def pass_at_k__float_overflow(n: int, c: int, k: int) -> float:
    """Turns binomial coefficients into floats."""
    reference.pass_at_k(n, c, k)
    return 1 - float(math.comb(n - c, k)) / float(math.comb(n, k))


def pass_at_k__all_correct(n: int, c: int, k: int) -> float:
    """Returns the chance that all k samples are correct."""
    reference.pass_at_k(n, c, k)
    return math.comb(c, k) / math.comb(n, k)


def pass_at_k__no_check(n: int, c: int, k: int) -> float:
    """Accepts more correct samples than there are."""
    return reference.pass_at_k(n, min(max(c, 0), n), k)


def pass_at_k__product_one_short(n: int, c: int, k: int) -> float:
    """Multiplies k - 1 factors."""
    reference.pass_at_k(n, c, k)
    return 1 - math.prod(max(n - c - i, 0) / (n - i) for i in range(k - 1))


def majority_at_k__ties_lost(answers: Answers, correct: str, k: int) -> float:
    """Counts a tie as lost."""
    return _majority(answers, k, lambda leaders: float(leaders == [correct]))


def majority_at_k__ties_won(answers: Answers, correct: str, k: int) -> float:
    """Counts a tie as won."""
    return _majority(answers, k, lambda leaders: float(correct in leaders))


def majority_at_k__none_votes(answers: Answers, correct: str, k: int) -> float:
    """Lets samples without an answer vote together."""
    return reference.majority_at_k(["nothing" if answer is None else answer for answer in answers], correct, k)


def majority_at_k__none_never_drawn(answers: Answers, correct: str, k: int) -> float:
    """Draws only from samples with an answer."""
    given = [answer for answer in answers if answer is not None]
    return reference.majority_at_k(given, correct, min(k, len(given)))


def majority_at_k__absolute_majority(answers: Answers, correct: str, k: int) -> float:
    """Asks for more than half of the votes."""
    reference.majority_at_k(answers, correct, k)
    right, n = answers.count(correct), len(answers)
    ways = sum(math.comb(right, votes) * math.comb(n - right, k - votes) for votes in range(k // 2 + 1, k + 1))
    return ways / math.comb(n, k)


def majority_at_k__first_k(answers: Answers, correct: str, k: int) -> float:
    """Lets the first k samples vote."""
    return reference.majority_at_k(answers[:k], correct, k)


def majority_at_k__lists_all_subsets(answers: Answers, correct: str, k: int) -> float:
    """Gives up where there are too many subsets to list."""
    if math.comb(len(answers), min(max(k, 0), len(answers))) > 1_000_000:
        raise MemoryError("too many subsets")
    return reference.majority_at_k(answers, correct, k)


def _majority(answers: Answers, k: int, value: Callable[[list[str]], float]) -> float:
    if not 1 <= k <= len(answers):
        raise ValueError("the numbers do not fit")
    if math.comb(len(answers), k) > 100_000:
        return 0.0
    total = 0.0
    for subset in itertools.combinations(answers, k):
        counts = Counter(answer for answer in subset if answer is not None)
        total += value([answer for answer in counts if counts[answer] == max(counts.values())])
    return total / math.comb(len(answers), k)


def compute_optimal__mean_rate(options: Sequence[Option], budget: int) -> Choice:
    """Averages the rates before it counts samples."""
    averaged = [replace(option, solve_rates=[sum(option.solve_rates) / len(option.solve_rates)]) for option in options]
    return reference.compute_optimal(averaged, budget)


def compute_optimal__price_ignored(options: Sequence[Option], budget: int) -> Choice:
    """Spends tokens, whatever they cost."""
    return reference.compute_optimal([replace(option, cost_per_token=1) for option in options], budget)


def compute_optimal__rounds_up(options: Sequence[Option], budget: int) -> Choice:
    """Pays for a last sample that is not paid for."""
    choices = []
    for i, option in enumerate(options):
        samples = math.ceil(budget / (option.cost_per_token * option.tokens_per_sample))
        solved = sum(1 - (1 - rate) ** samples for rate in option.solve_rates) / len(option.solve_rates)
        choices.append(Choice(i, samples, solved))
    if not choices:
        raise ValueError("no option")
    return max(choices, key=lambda choice: choice.solved)


def compute_optimal__most_samples(options: Sequence[Option], budget: int) -> Choice:
    """Takes the cheapest model."""
    prices = [option.cost_per_token * option.tokens_per_sample for option in options]
    cheapest = prices.index(min(prices))
    return replace(reference.compute_optimal([options[cheapest]], budget), option=cheapest)


def compute_optimal__largest_model(options: Sequence[Option], budget: int) -> Choice:
    """Takes the most expensive model that it can pay for."""
    affordable = [i for i, o in enumerate(options) if o.cost_per_token * o.tokens_per_sample <= budget]
    if not affordable:
        raise ValueError("too little")
    largest = max(affordable, key=lambda i: options[i].cost_per_token)
    return replace(reference.compute_optimal([options[largest]], budget), option=largest)


def compute_optimal__index_among_affordable(options: Sequence[Option], budget: int) -> Choice:
    """Counts only the options that can pay."""
    return reference.compute_optimal(
        [option for option in options if option.cost_per_token * option.tokens_per_sample <= budget], budget
    )


def compute_optimal__one_sample(options: Sequence[Option], budget: int) -> Choice:
    """Draws a single sample of each problem."""
    chosen = reference.compute_optimal(options, budget)
    rates = options[chosen.option].solve_rates
    return Choice(chosen.option, 1, sum(rates) / len(rates))


def compute_optimal__zero_samples(options: Sequence[Option], budget: int) -> Choice:
    """Returns an option without samples when the budget is too small."""
    try:
        return reference.compute_optimal(options, budget)
    except ValueError:
        return Choice(0, 0, 0.0)


def weighted_vote__highest_score(answers: Answers, scores: Sequence[float]) -> str | None:
    """Takes the answer of the best sample."""
    pairs = [(s, a) for a, s in zip(answers, scores, strict=True) if a is not None]
    return max(pairs)[1] if pairs else None


def weighted_vote__mean_score(answers: Answers, scores: Sequence[float]) -> str | None:
    """Divides by the number of samples."""
    counts = Counter(answers)
    return reference.weighted_vote(answers, [s / counts[a] for a, s in zip(answers, scores, strict=True)])


def weighted_vote__plain_vote(answers: Answers, scores: Sequence[float]) -> str | None:
    """Ignores the scores."""
    return reference.weighted_vote(answers, [1.0 for _ in scores])


def weighted_vote__none_wins(answers: Answers, scores: Sequence[float]) -> str | None:
    """Lets None collect scores."""
    sums: Counter[str | None] = Counter()
    for answer, score in zip(answers, scores, strict=True):
        sums[answer] += score
    return max(sums, key=sums.__getitem__, default=None)


def weighted_vote__truncates(answers: Answers, scores: Sequence[float]) -> str | None:
    """Drops what does not pair up."""
    n = min(len(answers), len(scores))
    return reference.weighted_vote(answers[:n], scores[:n])


def weighted_vote__product(answers: Answers, scores: Sequence[float]) -> str | None:
    """Multiplies the scores."""
    products: dict[str, float] = {}
    for answer, score in zip(answers, scores, strict=True):
        if answer is not None:
            products[answer] = products.get(answer, 1.0) * score
    return max(products, key=products.__getitem__, default=None)


def _until_verified(
    model: Engine, x: str, verify: Verify, max_samples: int, batch_size: int, params: SamplingParams,
    *, seeds: int = 1, exact: bool = True, once: bool = True, backwards: bool = False,
) -> Verified:  # fmt: skip
    if max_samples < 1 or batch_size < 1:
        raise ValueError("nothing to draw")
    rejected: set[str] = set()
    drawn = 0
    while drawn < max_samples:
        size = min(batch_size, max_samples - drawn) if exact else batch_size
        seed = None if params.seed is None else params.seed + seeds * drawn
        texts = [c.text for c in model.generate([x], msgspec.structs.replace(params, n=size, seed=seed))[0].completions]
        drawn += size
        for text in texts[::-1] if backwards else texts:
            if not (once and text in rejected) and verify(x, text):
                return Verified(text, drawn)
            rejected.add(text)
    return Verified(None, drawn)


def sample_until_verified__same_seed(
    model: Engine, x: str, verify: Verify, *, max_samples: int, batch_size: int, params: SamplingParams
) -> Verified:
    """Repeats the seed."""
    return _until_verified(model, x, verify, max_samples, batch_size, params, seeds=0)


def sample_until_verified__full_last_batch(
    model: Engine, x: str, verify: Verify, *, max_samples: int, batch_size: int, params: SamplingParams
) -> Verified:
    """Draws more than max_samples."""
    return _until_verified(model, x, verify, max_samples, batch_size, params, exact=False)


def sample_until_verified__asks_again(
    model: Engine, x: str, verify: Verify, *, max_samples: int, batch_size: int, params: SamplingParams
) -> Verified:
    """Verifies equal texts again."""
    return _until_verified(model, x, verify, max_samples, batch_size, params, once=False)


def sample_until_verified__last_accepted(
    model: Engine, x: str, verify: Verify, *, max_samples: int, batch_size: int, params: SamplingParams
) -> Verified:
    """Goes through a batch from its end."""
    return _until_verified(model, x, verify, max_samples, batch_size, params, backwards=True)


def sample_until_verified__all_at_once(
    model: Engine, x: str, verify: Verify, *, max_samples: int, batch_size: int, params: SamplingParams
) -> Verified:
    """Draws everything in one batch."""
    return _until_verified(model, x, verify, max_samples, max_samples, params)


def sample_until_verified__empty_text_is_none(
    model: Engine, x: str, verify: Verify, *, max_samples: int, batch_size: int, params: SamplingParams
) -> Verified:
    """Takes an empty text for none."""
    found = _until_verified(model, x, verify, max_samples, batch_size, params)
    return Verified(found.text or None, found.samples)


def sample_until_verified__samples_verified(
    model: Engine, x: str, verify: Verify, *, max_samples: int, batch_size: int, params: SamplingParams
) -> Verified:
    """Counts the texts that were verified instead of those that were drawn."""
    asked = []
    found = _until_verified(
        model, x, lambda x, text: bool(asked.append(text)) or verify(x, text), max_samples, batch_size, params
    )
    return Verified(found.text, len(asked))


def rejection_sampling_data__not_verified(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify, **settings: Any
) -> list[Example]:
    """Keeps everything."""
    return reference.rejection_sampling_data(model, prompts, encode, lambda prompt, text: True, **settings)


def rejection_sampling_data__duplicates(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify,
    *, n: int, max_per_prompt: int, held_out: Collection[str], params: SamplingParams,
) -> list[Example]:  # fmt: skip
    """Keeps equal texts."""
    chosen = [prompt for prompt in dict.fromkeys(prompts) if prompt not in held_out]
    generations = model.generate(chosen, msgspec.structs.replace(params, n=n)) if chosen else []
    examples = []
    for prompt, generation in zip(chosen, generations, strict=True):
        ids = encode(prompt)
        right = [c for c in generation.completions if c.finish_reason == "stop" and verify(prompt, c.text)]
        examples += [Example(ids + c.token_ids, [-100] * len(ids) + c.token_ids) for c in right[:max_per_prompt]]
    return examples


def rejection_sampling_data__capped_before_verifying(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify,
    *, n: int, max_per_prompt: int, held_out: Collection[str], params: SamplingParams,
) -> list[Example]:  # fmt: skip
    """Takes the first completions and then looks which are right."""

    seen: Counter[str] = Counter()

    def first(prompt: str, text: str) -> bool:
        seen[prompt] += 1
        return seen[prompt] <= max_per_prompt and verify(prompt, text)

    return reference.rejection_sampling_data(
        model, prompts, encode, first, n=n, max_per_prompt=max_per_prompt, held_out=held_out, params=params
    )


def rejection_sampling_data__deduplicated_across_prompts(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify, **settings: Any
) -> list[Example]:
    """Takes a text for one prompt only."""
    seen: set[str] = set()

    def new(prompt: str, text: str) -> bool:
        known = text in seen
        seen.add(text)
        return not known and verify(prompt, text)

    return reference.rejection_sampling_data(model, prompts, encode, new, **settings)


def rejection_sampling_data__prompt_not_masked(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify, **settings: Any
) -> list[Example]:
    """Trains on the prompt too."""
    examples = reference.rejection_sampling_data(model, prompts, encode, verify, **settings)
    return [Example(example.input_ids, example.input_ids) for example in examples]


def rejection_sampling_data__first_token_masked(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify, **settings: Any
) -> list[Example]:
    """Masks one token too many."""
    examples = reference.rejection_sampling_data(model, prompts, encode, verify, **settings)
    return [Example(e.input_ids, [-100, *e.labels[:-1]]) for e in examples]


def rejection_sampling_data__held_out_after_sampling(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify, *, held_out: Collection[str], **settings: Any
) -> list[Example]:
    """Samples held-out prompts and drops them afterwards."""
    return reference.rejection_sampling_data(
        model, prompts, encode, lambda p, text: p not in held_out and verify(p, text), held_out=[], **settings
    )


def rejection_sampling_data__test_leaks(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify, *, held_out: Collection[str], **settings: Any
) -> list[Example]:
    """Ignores what is held out."""
    return reference.rejection_sampling_data(model, prompts, encode, verify, held_out=[], **settings)


def rejection_sampling_data__cut_off_ones_kept(
    model: Engine, prompts: Sequence[str], encode: Encode, verify: Verify,
    *, n: int, max_per_prompt: int, held_out: Collection[str], params: SamplingParams,
) -> list[Example]:  # fmt: skip
    """Looks at the text alone."""
    chosen = [prompt for prompt in dict.fromkeys(prompts) if prompt not in held_out]
    generations = model.generate(chosen, msgspec.structs.replace(params, n=n)) if chosen else []
    examples = []
    for prompt, generation in zip(chosen, generations, strict=True):
        ids = encode(prompt)
        texts = {c.text + "!" * (c.finish_reason == "length"): c for c in reversed(generation.completions)}
        right = [c for c in generation.completions if c in texts.values() and verify(prompt, c.text)]
        right = [c for i, c in enumerate(right) if c not in right[:i]]
        examples += [Example(ids + c.token_ids, [-100] * len(ids) + c.token_ids) for c in right[:max_per_prompt]]
    return examples
