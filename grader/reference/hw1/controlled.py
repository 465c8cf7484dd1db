"""Controlled generation: text that obeys a constraint, or follows an attribute, whatever the model prefers.

A continuation is what was generated so far, without the prompt. Functions that combine distributions accept logits that
are not normalised, return normalised log-probabilities where they say so, and never change their input.
"""

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
        raise ValueError(f"expected max_tokens >= 0, got {max_tokens}")
    y: list[list[int]] = [[] for _ in x]
    live = list(range(len(x)))
    for _ in range(max_tokens):
        if not live:
            break
        logits = model.next_token_logprobs([[*x[i], *y[i]] for i in live])
        for process in processors:
            logits = process([list(y[i]) for i in live], logits)
        for i, token in zip(live, rng.categorical(logits.softmax(-1)).tolist(), strict=True):
            y[i].append(token)
        live = [i for i in live if y[i][-1] != model.eos_token_id]
    return y


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
    steps: dict[int, dict[int, int]] = {}
    frontier = [automaton.start]
    while frontier:
        state = frontier.pop()
        if state not in steps:
            ends = {
                token: _walk(automaton, state, text)
                for token, text in enumerate(vocabulary)
                if text and token != eos_token_id
            }
            steps[state] = {token: end for token, end in ends.items() if end is not None}
            frontier += steps[state].values()
    live = automaton.accepting & set(steps)
    while grown := {state for state in steps if state not in live and live & set(steps[state].values())}:
        live |= grown
    if automaton.start not in live:
        raise ValueError("expected an automaton that accepts some text made of tokens, got one that accepts none")
    # What a live state leads to over allowed tokens is live, and was reached over live states only.
    allowed = {s: {token: end for token, end in steps[s].items() if end in live} for s in steps if s in live}
    return {state: allowed[state] for state in _reached(automaton.start, allowed)}


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
    allowed = compile_automaton(automaton, vocabulary, eos_token_id)
    constrained = torch.full_like(logits, -torch.inf)
    for row, (continuation, target) in enumerate(zip(continuations, constrained, strict=True)):
        state = automaton.start
        for token in continuation:
            if token not in allowed[state]:
                raise ValueError(f"expected a continuation of allowed tokens, got token {token} in state {state}")
            state = allowed[state][token]
        kept = [*allowed[state], *([eos_token_id] if state in automaton.accepting else [])]
        target[kept] = logits[row, kept]
    return constrained


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
        raise ValueError(f"expected num_beams >= 1 and max_tokens >= 0, got {num_beams} and {max_tokens}")
    if any(not phrase or model.eos_token_id in phrase for phrase in phrases):
        raise ValueError(f"expected phrases of one token or more, none of them the end token, got {phrases}")
    results: list[tuple[float, list[int]]] = []
    beam: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(max_tokens):
        if not beam:
            break
        rows = model.next_token_logprobs([[*prompt, *y] for _, y in beam]).double().tolist()
        banks: dict[int, list[tuple[float, list[int]]]] = {}
        for (score, y), row in zip(beam, rows, strict=True):
            for token, logprob in enumerate(row):
                if logprob == -torch.inf:
                    continue
                grown = (score + logprob, [*y, token])
                progress = sum(_progress(grown[1], list(phrase)) for phrase in phrases)
                if token != model.eos_token_id:
                    banks.setdefault(progress, []).append(grown)
                elif progress == sum(map(len, phrases)):
                    results.append(grown)
        beam = [best for bank in banks.values() for best in sorted(bank)[-num_beams:]]
    return max(results)[1] if results else None


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
    expert = expert_logits.log_softmax(-1)
    probs = expert.exp()
    head = probs >= alpha * probs.amax(-1, keepdim=True)
    return (expert - amateur_logits.log_softmax(-1)).masked_fill(~head, -torch.inf)


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
    prefixes = [[*context, token] for context in contexts for token in range(model.vocab_size)]
    logprobs = model.next_token_logprobs(contexts)
    weights = logprobs + classifier(prefixes).to(logprobs).log().reshape(logprobs.shape)
    if bool((weights == -torch.inf).all(-1).any()):
        raise ValueError(
            "expected a token of positive weight after each context, got none: the attribute is impossible"
        )
    return weights.log_softmax(-1)


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
    if guidance_scale < 0:
        raise ValueError(f"expected guidance_scale >= 0, got {guidance_scale}")
    if len(prompts) != len(continuations):
        raise ValueError(f"expected as many continuations as prompts ({len(prompts)}), got {len(continuations)}")
    conditional = [[*x, *y] for x, y in zip(prompts, continuations, strict=True)]
    rows = model.next_token_logprobs([*conditional, *continuations])
    c, u = rows[: len(prompts)], rows[len(prompts) :]
    return torch.lerp(u, c, guidance_scale).log_softmax(-1)


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
    joint = {y: p for y, p in enumerate_sequences(model, max_tokens, prompt).items() if predicate(list(y))}
    z = sum(joint.values())
    if z == 0:
        raise ValueError("expected a predicate that holds for some continuation, got one that holds for none")
    return Posterior({y: p / z for y, p in joint.items()}, z)


def locally_masked_distribution(
    model: LanguageModel, predicate: Callable[[list[int]], bool], *, max_tokens: int, prompt: Sequence[int] = ()
) -> dict[tuple[int, ...], float]:
    """Return the distribution of continuations when each step is masked and renormalised on its own.

    A token is masked when no continuation of positive probability that begins with the tokens so far and this token
    fulfils the predicate. Sequences, and the error, are those of `exact_posterior`.
    """
    accepted = list(exact_posterior(model, predicate, max_tokens=max_tokens, prompt=prompt).probabilities)
    viable = {y[:t] for y in accepted for t in range(len(y) + 1)}
    kept: dict[tuple[int, ...], float] = {(): 1.0}
    for prefix in sorted(viable, key=len):
        children = [token for token in range(model.vocab_size) if (*prefix, token) in viable]
        if children:
            (row,) = model.next_token_logprobs([[*prompt, *prefix]])
            for token, p in zip(children, row[children].softmax(-1).tolist(), strict=True):
                kept[(*prefix, token)] = kept[prefix] * p
    return {y: kept[y] for y in accepted}


def _walk(automaton: Automaton, state: int, text: str) -> int | None:
    """Return the state after the characters of `text`, or None where the automaton refuses one."""
    for character in text:
        if (state, character) not in automaton.transitions:
            return None
        state = automaton.transitions[state, character]
    return state


def _reached(start: int, allowed: dict[int, dict[int, int]]) -> set[int]:
    reached, frontier = {start}, [start]
    while frontier:
        new = set(allowed[frontier.pop()].values()) - reached
        reached |= new
        frontier += new
    return reached


def _progress(y: list[int], phrase: list[int]) -> int:
    """Return how many tokens of the phrase `y` has: all if it contains it, else the longest prefix it ends in."""
    n = len(phrase)
    if any(y[i : i + n] == phrase for i in range(len(y) - n + 1)):
        return n
    return max(k for k in range(n) if k == 0 or y[-k:] == phrase[:k])
