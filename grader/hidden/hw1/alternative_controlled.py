"""A second correct solution of hw1.controlled: tables and recursions, in float32 where numbers are compared."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.randomness import Randomness

Processor = Callable[[list[list[int]], Float[Tensor, "batch vocab"]], Float[Tensor, "batch vocab"]]


def generate_with_processors(
    model: LanguageModel,
    x: Sequence[Sequence[int]],
    processors: Sequence[Processor],
    *,
    max_tokens: int,
    rng: Randomness,
) -> list[list[int]]:
    """Keep the rows in a dict from which those that end are taken out."""
    if max_tokens < 0:
        raise ValueError("max_tokens is negative")
    running: dict[int, list[int]] = {row: [] for row in range(len(x))}
    ended: dict[int, list[int]] = {}
    step = 0
    while running and step < max_tokens:
        contexts = [list(x[row]) + y for row, y in running.items()]
        logits = reduce(
            lambda z, process: process([y.copy() for y in running.values()], z),
            processors,
            model.next_token_logprobs(contexts),
        )
        drawn = rng.categorical(torch.softmax(logits, dim=-1))
        for row, token in zip(list(running), drawn.tolist(), strict=True):
            running[row] = [*running[row], token]
            if token == model.eos_token_id:
                ended[row] = running.pop(row)
        step += 1
    return [y for _, y in sorted((running | ended).items())]


@dataclass
class Automaton:
    """An automaton over characters."""

    start: int
    transitions: dict[tuple[int, str], int]
    accepting: set[int]


def compile_automaton(automaton: Automaton, vocabulary: Sequence[str], eos_token_id: int) -> dict[int, dict[int, int]]:
    """Find the live states backwards from the accepting ones, then walk forward through live states."""
    states = {automaton.start} | automaton.accepting | set(automaton.transitions.values())
    states |= {state for state, _ in automaton.transitions}
    edges: dict[int, dict[int, int]] = {state: {} for state in states}
    before: dict[int, set[int]] = defaultdict(set)
    for token, text in enumerate(vocabulary):
        if token == eos_token_id or text == "":
            continue
        for state in states:
            end: int | None = state
            for character in text:
                end = None if end is None else automaton.transitions.get((end, character))
            if end is not None:
                edges[state][token] = end
                before[end].add(state)
    live: set[int] = set()
    stack = list(automaton.accepting)
    while stack:
        state = stack.pop()
        if state not in live:
            live.add(state)
            stack.extend(before[state])
    if automaton.start not in live:
        raise ValueError("nothing is accepted")
    index: dict[int, dict[int, int]] = {}

    def visit(state: int) -> None:
        if state not in index:
            index[state] = {token: end for token, end in edges[state].items() if end in live}
            for end in index[state].values():
                visit(end)

    visit(automaton.start)
    return index


def constrain_logits(
    continuations: Sequence[Sequence[int]],
    logits: Float[Tensor, "batch vocab"],
    *,
    automaton: Automaton,
    vocabulary: Sequence[str],
    eos_token_id: int,
) -> Float[Tensor, "batch vocab"]:
    """Add a matrix of zeros and -inf."""
    index = compile_automaton(automaton, vocabulary, eos_token_id)
    penalties = []
    for y in continuations:
        state = automaton.start
        for token in y:
            try:
                state = index[state][token]
            except KeyError:
                raise ValueError(f"token {token} was not allowed") from None
        row = [0.0 if token in index[state] else -math.inf for token in range(logits.shape[-1])]
        row[eos_token_id] = 0.0 if state in automaton.accepting else -math.inf
        penalties.append(row)
    return logits.float() + torch.tensor(penalties)


def grid_beam_search(
    model: LanguageModel, prompt: Sequence[int], phrases: Sequence[Sequence[int]], *, num_beams: int, max_tokens: int
) -> list[int] | None:
    """Carry the best result along, and count progress on each phrase by comparing every prefix."""
    if num_beams <= 0 or max_tokens < 0 or not all(phrases) or any(model.eos_token_id in p for p in phrases):
        raise ValueError("out of range")

    def held(y: tuple[int, ...], phrase: tuple[int, ...]) -> int:
        if phrase in {y[i : i + len(phrase)] for i in range(len(y))}:
            return len(phrase)
        return max(k for k in range(len(phrase)) if y[len(y) - min(k, len(y)) :] == phrase[:k])

    best: tuple[float, tuple[int, ...] | None] = (-math.inf, None)
    beam: dict[tuple[int, ...], Tensor] = {(): torch.tensor(0.0)}
    for _ in range(max_tokens if max_tokens else 0):
        table = model.next_token_logprobs([[*prompt, *y] for y in beam]).float()
        banks: dict[int, dict[tuple[int, ...], Tensor]] = defaultdict(dict)
        for (y, score), row in zip(beam.items(), table, strict=True):
            for token in torch.isfinite(row).nonzero().flatten().tolist():
                longer = (*y, token)
                if token != model.eos_token_id:
                    banks[sum(held(longer, tuple(p)) for p in phrases)][longer] = score + row[token]
                elif all(held(y, tuple(p)) == len(p) for p in phrases):
                    best = max(best, (float(score + row[token]), longer), key=lambda pair: pair[0])
        beam = {}
        for bank in banks.values():
            for y in sorted(bank, key=lambda key: float(bank[key]), reverse=True)[:num_beams]:
                beam[y] = bank[y]
        if not beam:
            break
    return None if best[1] is None else list(best[1])


def contrastive_logits(
    expert_logits: Float[Tensor, "*batch vocab"], amateur_logits: Float[Tensor, "*batch vocab"], alpha: float
) -> Float[Tensor, "*batch vocab"]:
    """Cut in the space of logits, in float32."""
    if alpha <= 0 or alpha > 1:
        raise ValueError("alpha must be above 0 and at most 1")
    expert, amateur = expert_logits.float(), amateur_logits.float()
    kept = expert >= expert.max(dim=-1, keepdim=True).values + math.log(alpha)
    score = expert - amateur - expert.logsumexp(-1, keepdim=True) + amateur.logsumexp(-1, keepdim=True)
    return torch.where(kept, score, torch.tensor(-math.inf))


def dexperts_logprobs(
    base_logits: Float[Tensor, "*batch vocab"],
    expert_logits: Float[Tensor, "*batch vocab"],
    antiexpert_logits: Float[Tensor, "*batch vocab"],
    alpha: float,
) -> Float[Tensor, "*batch vocab"]:
    """Multiply probabilities, in float32."""
    base, expert, anti = (z.float().softmax(-1) for z in (base_logits, expert_logits, antiexpert_logits))
    weights = base * (expert / anti).pow(alpha)
    return (weights / weights.sum(-1, keepdim=True)).log()


def fudge_logprobs(
    model: LanguageModel,
    contexts: Sequence[Sequence[int]],
    classifier: Callable[[list[list[int]]], Float[Tensor, "prefixes"]],
) -> Float[Tensor, "batch vocab"]:
    """Multiply probabilities, with prefixes in the order of tokens, in float32."""
    n, size = len(contexts), model.vocab_size
    attribute = classifier([[*contexts[i], token] for token in range(size) for i in range(n)]).float()
    weights = model.next_token_logprobs(contexts).float().exp() * attribute.reshape(size, n).T
    total = weights.sum(dim=1, keepdim=True)
    if (total == 0).any():
        raise ValueError("the attribute is impossible")
    return (weights / total).log()


def guided_logprobs(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    guidance_scale: float,
) -> Float[Tensor, "batch vocab"]:
    """Interleave contexts, and weigh both distributions, in float32."""
    if guidance_scale < 0 or len(prompts) != len(continuations):
        raise ValueError("out of range")
    contexts: list[list[int]] = []
    for prompt, y in zip(prompts, continuations, strict=True):
        contexts += [list(y), [*prompt, *y]]
    rows = model.next_token_logprobs(contexts).float()
    mixed = (1 - guidance_scale) * rows[0::2] + guidance_scale * rows[1::2]
    return mixed - mixed.logsumexp(-1, keepdim=True)


@dataclass
class Posterior:
    """A conditional distribution and its normaliser."""

    probabilities: dict[tuple[int, ...], float]
    normaliser: float


def exact_posterior(
    model: LanguageModel, predicate: Callable[[list[int]], bool], *, max_tokens: int, prompt: Sequence[int] = ()
) -> Posterior:
    """Go through the tree of continuations level by level."""
    level: dict[tuple[int, ...], float] = {(): 1.0}
    complete: dict[tuple[int, ...], float] = {}
    for length in range(1, max_tokens + 1):
        grown: dict[tuple[int, ...], float] = {}
        for y, p in level.items():
            row = model.next_token_logprobs([[*prompt, *y]])[0].exp().tolist()
            for token, q in enumerate(row):
                if q > 0:
                    target = complete if token == model.eos_token_id or length == max_tokens else grown
                    target[(*y, token)] = p * q
        level = grown
    if max_tokens == 0:
        complete = level
    joint = {y: p for y, p in complete.items() if predicate(list(y))}
    if not joint:
        raise ValueError("the predicate never holds")
    z = math.fsum(joint.values())
    return Posterior(probabilities={y: p / z for y, p in joint.items()}, normaliser=z)


def locally_masked_distribution(
    model: LanguageModel, predicate: Callable[[list[int]], bool], *, max_tokens: int, prompt: Sequence[int] = ()
) -> dict[tuple[int, ...], float]:
    """Recur into children, and share the mass among those that return something."""

    def below(y: list[int]) -> dict[tuple[int, ...], float]:
        if len(y) == max_tokens or (y and y[-1] == model.eos_token_id):
            return {tuple(y): 1.0} if predicate(list(y)) else {}
        row = model.next_token_logprobs([[*prompt, *y]])[0].exp().tolist()
        found = [(p, below([*y, token])) for token, p in enumerate(row) if p > 0]
        total = sum(p for p, sub in found if sub)
        return {key: p / total * q for p, sub in found for key, q in sub.items()}

    distribution = below([])
    if not distribution:
        raise ValueError("the predicate never holds")
    return distribution
