"""Controlled generation: text that obeys a constraint, or follows an attribute, whatever the model prefers.

A continuation is what was generated so far, without the prompt. Functions that combine distributions accept logits that
are not normalised, return normalised log-probabilities where they say so, and never change their input.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness
from shared_tasks.models.toy import enumerate_sequences

Processor = Callable[[list[list[int]], Float[Tensor, "batch vocab"]], Float[Tensor, "batch vocab"]]


def generate_with_processors(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    processors: Sequence[Processor],
    *,
    max_tokens: int,
    rng: Randomness,
) -> list[list[int]]:
    """Sample a continuation of each prompt in `x`, with processors that see the continuations so far.

    Each step is one call of `model.next_token_logprobs` for all rows that have not ended; then each processor in the
    order given, called as `processor(continuations, logits)` with the continuations of these rows (lists of token ids,
    without prompts) and what the processor before it returned; then one call of `rng.categorical` with the softmax of
    the result. A row ends with the end token, which it keeps, or at `max_tokens` tokens. A row that has ended is passed
    neither to the model nor to a processor. Raises ValueError unless max_tokens >= 0.
    """
    if max_tokens < 0:
        raise ValueError(f"expected max_tokens of at least 0, got {max_tokens}")
    continuations: list[list[int]] = [[] for _ in x]
    running = list(range(len(x)))
    for _ in range(max_tokens):
        if not running:
            break
        logits = model.next_token_logprobs([[*x[i], *continuations[i]] for i in running])
        for process in processors:
            logits = process([list(continuations[i]) for i in running], logits)
        for i, token in zip(running, rng.categorical(logits.softmax(-1)).tolist(), strict=True):
            continuations[i].append(token)
        running = [i for i in running if continuations[i][-1] != model.eos_token_id]
    return continuations


@dataclass
class Automaton:
    """A deterministic finite automaton over characters; it refuses where `transitions` has no entry.

    A text is accepted when its characters lead from `start` to one of the `accepting` states.
    """

    start: int
    transitions: dict[tuple[int, str], int]
    """(state, character) to the next state."""
    accepting: set[int]


def compile_automaton(automaton: Automaton, vocabulary: Sequence[str], eos_token_id: int) -> dict[int, dict[int, int]]:
    """Return the tokens that may follow in each state: state to {token id: state after the token's last character}.

    `vocabulary[i]` is the text of token i. A token may follow when the automaton refuses none of its characters and
    tokens exist that lead from the state after it to an accepting state (no token is needed where that state accepts).
    States are keys when tokens that may follow lead to them from `start`, which is always one; a state after which
    nothing may follow has an empty entry. The end token, whatever its text, and tokens of empty text never occur.
    Raises ValueError when tokens lead from `start` to no accepting state.
    """

    def walk(state: int, text: str) -> int | None:
        for character in text:
            if (state, character) not in automaton.transitions:
                return None
            state = automaton.transitions[state, character]
        return state

    texts = {token: text for token, text in enumerate(vocabulary) if text and token != eos_token_id}

    def steps(state: int) -> dict[int, int]:
        ends = {token: walk(state, text) for token, text in texts.items()}
        return {token: end for token, end in ends.items() if end is not None}

    edges = _reachable(automaton.start, steps)
    before: dict[int, list[int]] = {}
    for state, following in edges.items():
        for target in following.values():
            before.setdefault(target, []).append(state)
    alive: set[int] = set()
    stack = [state for state in edges if state in automaton.accepting]
    while stack:
        state = stack.pop()
        if state not in alive:
            alive.add(state)
            stack += before.get(state, [])
    if automaton.start not in alive:
        raise ValueError("expected an automaton that accepts some sequence of tokens")
    return _reachable(automaton.start, lambda state: {t: end for t, end in edges[state].items() if end in alive})


def constrain_logits(
    continuations: Sequence[Sequence[int]],
    logits: Float[Tensor, "batch vocab"],
    *,
    automaton: Automaton,
    vocabulary: Sequence[str],
    eos_token_id: int,
) -> Float[Tensor, "batch vocab"]:
    """Forbid every token after which the text of the continuation can no longer become one that is accepted.

    In the state that a row's continuation leads to, the tokens of `compile_automaton` may follow, and the end token
    where the state is accepting. These keep their logits, all others get -inf. Raises ValueError when a continuation
    contains a token that was not allowed, or the end token.
    """
    table = compile_automaton(automaton, vocabulary, eos_token_id)
    allowed = torch.zeros_like(logits, dtype=torch.bool)
    for row, continuation in enumerate(continuations):
        state = automaton.start
        for token in continuation:
            if token not in table[state]:
                raise ValueError(f"token {token} of the continuation {list(continuation)} is not allowed there")
            state = table[state][token]
        allowed[row, list(table[state])] = True
        allowed[row, eos_token_id] = state in automaton.accepting
    return logits.masked_fill(~allowed, -torch.inf)


def grid_beam_search(
    model: LanguageModel, prompt: Sequence[int], phrases: Sequence[Sequence[int]], *, num_beams: int, max_tokens: int
) -> list[int] | None:
    """Return the most probable continuation found that contains every phrase, or None when none was found.

    A continuation contains a phrase when the phrase's tokens occur in it one after another; phrases may overlap. Its
    progress on a phrase is the phrase's length if it contains it, else the length of the longest prefix of the phrase
    that it ends in. Hypotheses compete only with those of equal total progress over all phrases: at every step all
    hypotheses are extended by every token of positive probability; of the extensions that do not end, the `num_beams`
    most probable ones for each total progress go on. An extension by the end token is a result if it contains every
    phrase, and is dropped otherwise. After `max_tokens` steps (the end token counts) the result of highest
    log P(continuation | prompt) is returned, with its end token. Equal log-probabilities may be ordered either way.

    Each step is one call of `model.next_token_logprobs`. Raises ValueError unless num_beams >= 1, max_tokens >= 0 and
    phrases are not empty and without the end token.

    Paper: Hokamp and Liu, 2017, https://arxiv.org/abs/1704.07138; banks by progress: Post and Vilar, 2018,
    https://arxiv.org/abs/1804.06609.
    """
    if num_beams < 1 or max_tokens < 0:
        raise ValueError(f"cannot search with num_beams {num_beams} and max_tokens {max_tokens}")
    wanted = [list(phrase) for phrase in phrases]
    if any(not phrase or model.eos_token_id in phrase for phrase in wanted):
        raise ValueError("expected phrases that are not empty and without the end token")
    goal = sum(map(len, wanted))
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    best: tuple[float, list[int] | None] = (-math.inf, None)
    for _ in range(max_tokens):
        if not running:
            break
        rows = model.next_token_logprobs([[*prompt, *y] for _, y in running]).tolist()
        banks: dict[int, list[tuple[float, list[int]]]] = {}
        for (logprob, y), row in zip(running, rows, strict=True):
            for token, term in enumerate(row):
                if term == -math.inf:
                    continue
                extended = (logprob + term, [*y, token])
                progress = sum(_progress(extended[1], phrase) for phrase in wanted)
                if token != model.eos_token_id:
                    banks.setdefault(progress, []).append(extended)
                elif progress == goal and extended[0] > best[0]:
                    best = extended
        running = [kept for bank in banks.values() for kept in heapq.nlargest(num_beams, bank)]
    return best[1]


def contrastive_logits(
    expert_logits: Float[Tensor, "*batch vocab"], amateur_logits: Float[Tensor, "*batch vocab"], alpha: float
) -> Float[Tensor, "*batch vocab"]:
    """Return log p_expert - log p_amateur where p_expert >= alpha * max p_expert, and -inf elsewhere.

    Both p are the softmax of the logits. Where the expert's probability is exactly at the cut a token may be kept or
    not, but the most probable one is always kept. The amateur's logits are finite; the expert's may be -inf. Raises
    ValueError unless 0 < alpha <= 1. Paper: Li et al., 2023, https://arxiv.org/abs/2210.15097.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"expected 0 < alpha <= 1, got {alpha}")
    expert, amateur = expert_logits.log_softmax(-1), amateur_logits.log_softmax(-1)
    plausible = expert >= expert.amax(-1, keepdim=True) + math.log(alpha)
    return (expert - amateur).masked_fill(~plausible, -torch.inf)


def dexperts_logprobs(
    base_logits: Float[Tensor, "*batch vocab"],
    expert_logits: Float[Tensor, "*batch vocab"],
    antiexpert_logits: Float[Tensor, "*batch vocab"],
    alpha: float,
) -> Float[Tensor, "*batch vocab"]:
    """Return normalised log-probabilities proportional to p_base * (p_expert / p_antiexpert) ** alpha.

    The base's logits may be -inf, and such a token stays out; those of the experts are finite. Any `alpha` is allowed.
    Paper: Liu et al., 2021, https://arxiv.org/abs/2105.03023.
    """
    return (base_logits + alpha * (expert_logits - antiexpert_logits)).log_softmax(-1)


def fudge_logprobs(
    model: LanguageModel,
    contexts: Sequence[Sequence[int]],
    classifier: Callable[[list[list[int]]], Float[Tensor, "prefixes"]],
) -> Float[Tensor, "batch vocab"]:
    """Return log P(next token | context, attribute), proportional to P(next | context) P(attribute | context + next).

    `classifier` returns P(attribute | prefix) in [0, 1] for a list of prefixes (lists of token ids). It is called once,
    for all contexts and all tokens of the vocabulary. Rows are normalised. Raises ValueError when a context has no
    next token of positive weight. Paper: Yang and Klein, 2021, https://arxiv.org/abs/2104.05218.
    """
    logprobs = model.next_token_logprobs(contexts)
    prefixes = [[*context, token] for context in contexts for token in range(model.vocab_size)]
    joint = logprobs + classifier(prefixes).to(logprobs.device).log().reshape(logprobs.shape)
    if (joint == -torch.inf).all(-1).any():
        raise ValueError("expected a next token of positive weight after every context")
    return joint.log_softmax(-1)


def guided_logprobs(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    guidance_scale: float,
) -> Float[Tensor, "batch vocab"]:
    """Return classifier-free guidance: normalised u + guidance_scale * (c - u) of next-token log-probabilities.

    c is given prompt and continuation, u given the continuation alone. The model gives every token positive
    probability. One call of `model.next_token_logprobs` for both. Raises ValueError unless guidance_scale >= 0 and
    there are as many continuations as prompts. Paper: Sanchez et al., 2023, https://arxiv.org/abs/2306.17806.
    """
    if not guidance_scale >= 0:
        raise ValueError(f"expected guidance_scale of at least 0, got {guidance_scale}")
    if len(prompts) != len(continuations):
        raise ValueError(f"expected a continuation for each of {len(prompts)} prompts, got {len(continuations)}")
    with_prompt = [[*prompt, *y] for prompt, y in zip(prompts, continuations, strict=True)]
    c, u = model.next_token_logprobs([*with_prompt, *continuations]).tensor_split([len(prompts)])
    return (u + guidance_scale * (c - u)).log_softmax(-1)


@dataclass
class Posterior:
    """The distribution of sequences given that a predicate holds."""

    probabilities: dict[tuple[int, ...], float]
    """P(sequence | predicate) of the sequences for which it holds."""
    normaliser: float
    """Z, the probability that the predicate holds."""


def exact_posterior(
    model: LanguageModel, predicate: Callable[[list[int]], bool], *, max_tokens: int, prompt: Sequence[int] = ()
) -> Posterior:
    """Return the distribution of the continuations of `prompt` given that `predicate(continuation)` holds.

    Continuations end in the end token, which they keep, or at `max_tokens` tokens, as in
    `shared_tasks.models.toy.enumerate_sequences`. Those of probability zero are left out. Raises ValueError when
    the predicate holds for none.
    """
    sequences = enumerate_sequences(model, max_tokens, prompt)
    accepted = {y: p for y, p in sequences.items() if predicate(list(y))}
    if not accepted:
        raise ValueError("expected a predicate that holds for some continuation")
    normaliser = sum(accepted.values())
    return Posterior({y: p / normaliser for y, p in accepted.items()}, normaliser)


def locally_masked_distribution(
    model: LanguageModel, predicate: Callable[[list[int]], bool], *, max_tokens: int, prompt: Sequence[int] = ()
) -> dict[tuple[int, ...], float]:
    """Return the distribution of continuations when each step is masked and renormalised on its own.

    A token is masked when no continuation of positive probability that begins with the tokens so far and this token
    fulfils the predicate. Sequences, and the error, are those of `exact_posterior`.
    """
    accepted = exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt).probabilities
    mass: defaultdict[tuple[int, ...], float] = defaultdict(float)  # P(y_1..y_t), of every beginning
    for y, p in enumerate_sequences(model, max_tokens, prompt).items():
        for t in range(len(y) + 1):
            mass[y[:t]] += p
    allowed: defaultdict[tuple[int, ...], float] = defaultdict(float)  # the mass of what may follow a beginning
    for beginning in {y[:t] for y in accepted for t in range(1, len(y) + 1)}:
        allowed[beginning[:-1]] += mass[beginning]
    return {y: math.prod((mass[y[: t + 1]] / allowed[y[:t]] for t in range(len(y))), start=1.0) for y in accepted}


def _reachable(start: int, steps: Callable[[int], dict[int, int]]) -> dict[int, dict[int, int]]:
    """Return the steps of every state that they lead to from the start."""
    edges: dict[int, dict[int, int]] = {}
    stack = [start]
    while stack:
        state = stack.pop()
        if state not in edges:
            edges[state] = steps(state)
            stack += edges[state].values()
    return edges


def _progress(y: list[int], phrase: list[int]) -> int:
    """Return the phrase's length if y contains it, else that of its longest prefix that y ends in."""
    n = len(phrase)
    if any(y[i : i + n] == phrase for i in range(len(y) - n + 1)):
        return n
    return next(k for k in range(min(n - 1, len(y)), -1, -1) if y[len(y) - k :] == phrase[:k])
