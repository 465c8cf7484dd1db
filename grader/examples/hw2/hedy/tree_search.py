"""Tree search over reasoning steps.

A state is a partial solution: the list of its steps so far, each a text. Three callables say what the tree is.
`propose(states)` returns for each state the texts of possible next steps, `reward(states)` a number for each state: how
good its last step is given those before it (a process reward). `is_final(state)` says whether a state is a complete
solution.

The search begins at the empty state, which is never final. A final state is never extended. A step that is proposed
twice for a state is one child of it; a state for which nothing is proposed has no children. `propose` and `reward` are
never called without states, and neither is called twice for the same state. Which of two equal scores comes first is
left open.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from shared_tasks.models.engine import Engine, SamplingParams

State = list[str]
Propose = Callable[[list[State]], list[list[str]]]
Reward = Callable[[list[State]], list[float]]
IsFinal = Callable[[State], bool]
Aggregation = Literal["min", "product", "last"]
Path = tuple[str, ...]


@dataclass(frozen=True)
class Solution:
    """A final state."""

    steps: list[str]
    score: float
    """The rewards of its steps, aggregated."""



@dataclass(frozen=True)
class _Node:
    """A state with what is known of it."""

    steps: State
    rewards: list[float]
    score: float
    final: bool

    def solution(self) -> Solution:
        return Solution(list(self.steps), self.score)


ROOT = _Node([], [], 0.0, final=False)  # nothing is compared with it: its score does not matter


@dataclass(frozen=True)
class SearchTree:
    """What a Monte Carlo tree search has seen."""

    solution: list[str] | None
    """The final state of highest reward among those visited; None when none was visited."""
    visits: dict[tuple[str, ...], int]
    """For each visited state, its steps as a tuple, the number of simulations that passed through it or ended in it."""
    values: dict[tuple[str, ...], float]
    """For each visited state the mean value of these simulations."""


def propose_steps(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Let a model propose next steps: up to `n` for each state, with one `model.generate` call for all states.

    The prompt of a state is the question followed by `step_end`, then each of its steps followed by `step_end`. The n
    samples of a state are one request, so that its prompt is paid once; they stop at `step_end`, besides the stop
    strings of `params`. Steps are stripped of white space around them; empty ones and repetitions are left out, the
    others keep the order in which they were sampled. Without states no call is made.
    """
    if not states:
        return []
    prompts = [question + step_end + "".join(step + step_end for step in state) for state in states]
    stop = tuple(dict.fromkeys((*params.stop, step_end)))
    generations = model.generate(prompts, msgspec.structs.replace(params, n=n, stop=stop))
    return [list(dict.fromkeys(step for y in g.completions if (step := y.text.strip()))) for g in generations]


def aggregate_rewards(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Turn the rewards of a state's steps, in order, into one score: their minimum, their product, or the last one.

    Raises ValueError when there are no rewards, or for another aggregation.

    Papers: Uesato et al., 2022, https://arxiv.org/abs/2211.14275; Lightman et al., 2023,
    https://arxiv.org/abs/2305.20050.
    """
    if len(rewards) == 0:
        raise ValueError("expected at least one reward, got none")
    if aggregation == "min":
        return min(rewards)
    if aggregation == "product":
        return math.prod(rewards)
    if aggregation == "last":
        return rewards[-1]
    raise ValueError(f'expected "min", "product" or "last", got {aggregation!r}')


def step_beam_search(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    *,
    num_beams: int,
    max_steps: int,
    aggregation: Aggregation = "min",
) -> list[Solution]:
    """Keep the `num_beams` best states at each step; return the solutions among the last ones, best first.

    The search begins with the empty state as its only beam. In each of at most `max_steps` rounds the beams that are
    not final are extended, with one `propose` call and one `reward` call for all of them; then the `num_beams` states
    of highest score are kept among all these children and the final beams, which compete with the score that they have.
    It ends when no beam is left to extend. Beams that are not final in the end are left out. Raises ValueError unless
    num_beams >= 1 and max_steps >= 0.

    Papers: Yao et al., 2023, https://arxiv.org/abs/2305.10601; Snell et al., 2024, https://arxiv.org/abs/2408.03314.
    """
    if num_beams < 1 or max_steps < 0:
        raise ValueError(f"expected num_beams >= 1 and max_steps >= 0, got {num_beams} and {max_steps}")
    beams = [ROOT]
    for _ in range(max_steps):
        unfinished = [beam for beam in beams if not beam.final]
        if not unfinished:
            break
        pool = [beam for beam in beams if beam.final] + _extend(unfinished, propose, reward, is_final, aggregation)
        beams = sorted(pool, key=lambda node: node.score, reverse=True)[:num_beams]
    return [beam.solution() for beam in beams if beam.final]


def best_first_search(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    *,
    max_expansions: int,
    aggregation: Aggregation = "product",
) -> Solution | None:
    """Extend the state of highest score, wherever it is in the tree, until that state is final; return it.

    Extending a state takes one `propose` call for it and one `reward` call for all its children; the empty state comes
    first. After `max_expansions` extended states, and when no state is left to extend, the final state of highest score
    that was scored so far is returned, or None when there is none. Raises ValueError unless max_expansions >= 0.

    Papers: Yao et al., 2023, https://arxiv.org/abs/2305.10601; Koh et al., 2024, https://arxiv.org/abs/2407.01476.
    """
    if max_expansions < 0:
        raise ValueError(f"expected max_expansions >= 0, got {max_expansions}")
    order = itertools.count()
    queue = [(-ROOT.score, next(order), ROOT)]
    expansions = 0
    while queue:
        *_, node = queue[0]
        if node.final:
            return node.solution()
        if expansions == max_expansions:
            break
        heapq.heappop(queue)
        expansions += 1
        for child in _extend([node], propose, reward, is_final, aggregation):
            heapq.heappush(queue, (-child.score, next(order), child))
    # a final state that was scored is still in the queue: taking one ends the search
    found = [node for *_, node in queue if node.final]
    return max(found, key=lambda node: node.score).solution() if found else None


def mcts(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    *,
    num_simulations: int,
    exploration: float,
) -> SearchTree:
    """Search by Monte Carlo tree search with UCT; the value of a state is its own reward.

    Each simulation begins at the empty state and goes down until it reaches a state that was not visited before, a
    final state, or one without children. From a state it goes to its first child, in the order proposed, that was not
    visited yet; when all were, to the child c of the highest

        values[c] + exploration * sqrt(ln(visits[state]) / visits[c]).

    Then the reward of the state that was reached is added to the values, and one to the visits, of every state on the
    way, the empty state and the state reached among them. `propose` is called at most once for each state, and only
    where a simulation goes on from it; `reward` is called once for each state reached, with that state alone. Raises
    ValueError unless num_simulations >= 0 and exploration >= 0.

    Papers: Kocsis and Szepesvári, 2006, "Bandit based Monte-Carlo planning"; Hao et al., 2023,
    https://arxiv.org/abs/2305.14992.
    """
    if num_simulations < 0 or not exploration >= 0:
        raise ValueError(f"expected num_simulations >= 0 and exploration >= 0, got {num_simulations}, {exploration}")
    visits: dict[Path, int] = {}
    totals: dict[Path, float] = {}
    rewards: dict[Path, float] = {}
    children: dict[Path, list[Path]] = {}
    finals: dict[Path, bool] = {(): False}

    def next_state(state: Path) -> Path | None:
        """Return where a simulation goes from a state, or None where it ends."""
        if finals[state]:
            return None
        if state not in children:
            [steps] = propose([list(state)])
            children[state] = [(*state, step) for step in dict.fromkeys(steps)]
        fresh = next((child for child in children[state] if child not in visits), None)
        if fresh is not None:
            return fresh

        def upper_bound(child: Path) -> float:
            return totals[child] / visits[child] + exploration * math.sqrt(math.log(visits[state]) / visits[child])

        return max(children[state], key=upper_bound, default=None)

    for _ in range(num_simulations):
        way: list[Path] = [()]
        while (state := next_state(way[-1])) is not None:
            way.append(state)
            if state not in visits:
                break
        reached = way[-1]
        if reached not in rewards:
            [rewards[reached]] = reward([list(reached)])
            finals[reached] = reached != () and bool(is_final(list(reached)))
        for state in way:
            visits[state] = visits.get(state, 0) + 1
            totals[state] = totals.get(state, 0.0) + rewards[reached]

    solution = max((state for state in rewards if finals[state]), key=rewards.__getitem__, default=None)
    values = {state: totals[state] / visits[state] for state in visits}
    return SearchTree(None if solution is None else list(solution), visits, values)


def _extend(
    nodes: Sequence[_Node], propose: Propose, reward: Reward, is_final: IsFinal, aggregation: Aggregation
) -> list[_Node]:
    """Return all children of the nodes, with one `propose` call and, if there are any, one `reward` call."""
    proposed = propose([list(node.steps) for node in nodes])
    born = [
        (node, [*node.steps, step])
        for node, steps in zip(nodes, proposed, strict=True)
        for step in dict.fromkeys(steps)
    ]
    if not born:
        return []
    children = []
    for (node, steps), value in zip(born, reward([list(steps) for _, steps in born]), strict=True):
        rewards = [*node.rewards, value]
        children.append(_Node(steps, rewards, aggregate_rewards(rewards, aggregation), bool(is_final(list(steps)))))
    return children
