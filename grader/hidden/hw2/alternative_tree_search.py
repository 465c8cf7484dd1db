"""A second correct solution of hw2.tree_search: plain lists, and tables keyed by the steps of a state."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from shared_tasks.models.engine import Engine, SamplingParams

State = list[str]
Propose = Callable[[list[State]], list[list[str]]]
Reward = Callable[[list[State]], list[float]]
IsFinal = Callable[[State], bool]
Aggregation = Literal["min", "product", "last"]


@dataclass(frozen=True)
class Solution:
    """A final state."""

    steps: list[str]
    score: float


@dataclass(frozen=True)
class SearchTree:
    """What a Monte Carlo tree search has seen."""

    solution: list[str] | None
    visits: dict[tuple[str, ...], int]
    values: dict[tuple[str, ...], float]


def propose_steps(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Give every prompt its own parameters, and filter in loops."""
    if len(states) == 0:
        return []
    own = SamplingParams(
        n=n,
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        min_p=params.min_p,
        max_tokens=params.max_tokens,
        stop=tuple({*params.stop, step_end}),
        seed=params.seed,
        logprobs=params.logprobs,
        logit_bias=params.logit_bias,
        ignore_eos=params.ignore_eos,
    )
    prompts = [step_end.join([question, *state, ""]) for state in states]
    proposals = []
    for generation in model.generate(prompts, [own for _ in prompts]):
        steps: list[str] = []
        for completion in generation.completions:
            step = completion.text.strip()
            if step != "" and step not in steps:
                steps.append(step)
        proposals.append(steps)
    return proposals


def aggregate_rewards(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Go through the rewards one by one."""
    if len(rewards) == 0:
        raise ValueError("there are no rewards")
    if aggregation == "last":
        return rewards[len(rewards) - 1]
    if aggregation not in ("min", "product"):
        raise ValueError("unknown aggregation")
    total = rewards[0]
    for reward in rewards[1:]:
        total = total * reward if aggregation == "product" else min(total, reward)
    return total


def step_beam_search(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    *,
    num_beams: int,
    max_steps: int,
    aggregation: Aggregation = "min",
) -> list[Solution]:
    """Keep the final beams in a list of their own; rewards of all states in a table."""
    if num_beams <= 0 or max_steps < 0:
        raise ValueError("num_beams must be positive, max_steps not negative")
    rewards: dict[tuple[str, ...], list[float]] = {(): []}
    active: list[tuple[str, ...]] = [()]
    finished: list[tuple[str, ...]] = []

    def score(state: tuple[str, ...]) -> float:
        return aggregate_rewards(rewards[state], aggregation)

    step = 0
    while active and step < max_steps:
        step += 1
        new: list[tuple[str, ...]] = []
        for state, texts in zip(active, propose([list(state) for state in active]), strict=True):
            new += {(*state, text) for text in texts}
        if new:
            for child, value in zip(new, reward([list(child) for child in new]), strict=True):
                rewards[child] = rewards[child[:-1]] + [value]
        best = sorted(finished + new, key=lambda state: -score(state))[:num_beams]
        finished_before = set(finished)
        finished = [state for state in best if state in finished_before or is_final(list(state))]
        active = [state for state in best if state not in finished]
    return [Solution(list(state), score(state)) for state in finished]


def best_first_search(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    *,
    max_expansions: int,
    aggregation: Aggregation = "product",
) -> Solution | None:
    """Look for the best of the open states anew each time."""
    if max_expansions < 0:
        raise ValueError("max_expansions must not be negative")
    rewards: dict[tuple[str, ...], list[float]] = {}
    waiting: list[tuple[str, ...]] = []
    state: tuple[str, ...] = ()
    before: list[float] = []

    def score(state: tuple[str, ...]) -> float:
        return aggregate_rewards(rewards[state], aggregation)

    for _ in range(max_expansions):
        children = list({(*state, text): None for text in propose([list(state)])[0]})
        if children:
            values = reward([list(child) for child in children])
            rewards |= {child: [*before, value] for child, value in zip(children, values, strict=True)}
            waiting += children
        if not waiting:
            return None
        state = max(waiting, key=score)
        if is_final(list(state)):
            return Solution(list(state), score(state))
        waiting.remove(state)
        before = rewards[state]
    solutions = [state for state in waiting if is_final(list(state))]
    return max((Solution(list(s), score(s)) for s in solutions), key=lambda solution: solution.score, default=None)


def mcts(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    *,
    num_simulations: int,
    exploration: float,
) -> SearchTree:
    """Go down by recursion; everything known of a state is in tables."""
    if num_simulations < 0 or exploration < 0:
        raise ValueError("num_simulations and exploration must not be negative")
    visits: dict[tuple[str, ...], int] = {}
    sums: dict[tuple[str, ...], float] = {}
    children: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    rewards: dict[tuple[str, ...], float] = {}

    def value(state: tuple[str, ...]) -> float:
        if state not in rewards:
            rewards[state] = reward([list(state)])[0]
        return rewards[state]

    def upper_bound(state: tuple[str, ...], parent: tuple[str, ...]) -> float:
        if state not in visits:
            return math.inf
        mean = sums[state] / visits[state]
        return mean + exploration * (math.log(visits[parent]) / visits[state]) ** 0.5

    def simulate(state: tuple[str, ...]) -> float:
        if (state and state not in visits) or (state and is_final(list(state))):
            result = value(state)
        else:
            if state not in children:
                children[state] = []
                for text in propose([list(state)])[0]:
                    if (*state, text) not in children[state]:
                        children[state].append((*state, text))
            best = None
            for child in children[state]:
                if best is None or upper_bound(child, state) > upper_bound(best, state):
                    best = child
            result = value(state) if best is None else simulate(best)
        visits[state] = visits.get(state, 0) + 1
        sums[state] = sums.get(state, 0.0) + result
        return result

    for _ in range(num_simulations):
        simulate(())
    final = [state for state in visits if state and is_final(list(state))]
    final.sort(key=lambda state: rewards[state])
    means = {state: sums[state] / visits[state] for state in visits}
    return SearchTree(list(final[-1]) if final else None, dict(visits), means)
