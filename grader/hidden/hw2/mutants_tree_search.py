"""Plausible wrong solutions of hw2.tree_search: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from grader.reference.hw2 import tree_search as reference
from grader.reference.hw2.tree_search import (
    Aggregation,
    IsFinal,
    Propose,
    Reward,
    SearchTree,
    Solution,
    State,
    _children,
    _State,
    aggregate_rewards,
)
from shared_tasks.models.engine import Engine, SamplingParams


def _steps(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(step for text in texts if (step := text.strip())))


def propose_steps__one_call_for_each_state(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Calls the model once for every state."""
    return [reference.propose_steps(model, question, [s], n=n, params=params, step_end=step_end)[0] for s in states]


def propose_steps__pays_the_prompt_n_times(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Repeats each prompt n times in place of asking for n samples."""
    if not states:
        return []
    prompts = ["".join(text + step_end for text in (question, *state)) for state in states for _ in range(n)]
    generations = model.generate(prompts, replace(params, n=1, stop=(step_end, *params.stop)))
    texts = [generation.completions[0].text for generation in generations]
    return [_steps(texts[i : i + n]) for i in range(0, len(texts), n)]


def propose_steps__asks_for_one_sample(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Forgets n."""
    return reference.propose_steps(model, question, states, n=1, params=params, step_end=step_end)


def propose_steps__does_not_stop_at_the_end_of_a_step(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Takes all that the model writes for one step."""
    if not states:
        return []
    prompts = ["".join(text + step_end for text in (question, *state)) for state in states]
    return [_steps([c.text for c in g.completions]) for g in model.generate(prompts, replace(params, n=n))]


def propose_steps__cuts_instead_of_stopping(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Lets the model write on and cuts afterwards: every sample pays for the steps thrown away."""
    if not states:
        return []
    prompts = ["".join(text + step_end for text in (question, *state)) for state in states]
    generations = model.generate(prompts, replace(params, n=n))
    return [_steps([c.text.split(step_end)[0] for c in generation.completions]) for generation in generations]


def propose_steps__drops_the_stop_strings_of_params(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Replaces the caller's stop strings."""
    own = replace(params, stop=())
    return reference.propose_steps(model, question, states, n=n, params=own, step_end=step_end)


def propose_steps__drops_the_params(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Samples with the defaults."""
    own = SamplingParams(stop=params.stop)
    return reference.propose_steps(model, question, states, n=n, params=own, step_end=step_end)


def propose_steps__keeps_repetitions(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Returns a step as often as it was sampled."""
    if not states:
        return []
    prompts = ["".join(text + step_end for text in (question, *state)) for state in states]
    generations = model.generate(prompts, replace(params, n=n, stop=(step_end, *params.stop)))
    return [[step for c in generation.completions if (step := c.text.strip())] for generation in generations]


def propose_steps__keeps_empty_steps(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Takes nothing for a step."""
    if not states:
        return []
    prompts = ["".join(text + step_end for text in (question, *state)) for state in states]
    generations = model.generate(prompts, replace(params, n=n, stop=(step_end, *params.stop)))
    return [list(dict.fromkeys(c.text.strip() for c in generation.completions)) for generation in generations]


def propose_steps__does_not_strip(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Takes steps that differ in white space for different ones."""
    if not states:
        return []
    prompts = ["".join(text + step_end for text in (question, *state)) for state in states]
    generations = model.generate(prompts, replace(params, n=n, stop=(step_end, *params.stop)))
    return [list(dict.fromkeys(c.text for c in g.completions if c.text.strip())) for g in generations]


def propose_steps__sorts(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Puts the steps into alphabetical order."""
    proposals = reference.propose_steps(model, question, states, n=n, params=params, step_end=step_end)
    return [sorted(steps) for steps in proposals]


def propose_steps__no_separator_after_the_last_step(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Joins question and steps, and leaves the model to end the last step."""
    if not states:
        return []
    prompts = [step_end.join((question, *state)) for state in states]
    generations = model.generate(prompts, replace(params, n=n, stop=(step_end, *params.stop)))
    return [_steps([c.text for c in generation.completions]) for generation in generations]


def propose_steps__forgets_earlier_steps(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Shows the model the last step only."""
    last = [state[-1:] for state in states]
    return reference.propose_steps(model, question, last, n=n, params=params, step_end=step_end)


def propose_steps__calls_without_states(
    model: Engine, question: str, states: Sequence[State], *, n: int, params: SamplingParams, step_end: str = "\n"
) -> list[list[str]]:
    """Calls the model with no prompt at all."""
    prompts = ["".join(text + step_end for text in (question, *state)) for state in states]
    generations = model.generate(prompts, replace(params, n=n, stop=(step_end, *params.stop)))
    return [_steps([c.text for c in generation.completions]) for generation in generations]


def aggregate_rewards__mean_for_product(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Averages."""
    if aggregation == "product" and rewards:
        return sum(rewards) / len(rewards)
    return reference.aggregate_rewards(rewards, aggregation)


def aggregate_rewards__geometric_mean(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Takes the length out of the product."""
    score = reference.aggregate_rewards(rewards, aggregation)
    return score ** (1 / len(rewards)) if aggregation == "product" else score


def aggregate_rewards__sum_of_logs(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Returns the logarithm of the product, and fails at a reward of zero."""
    score = reference.aggregate_rewards(rewards, aggregation)
    return math.log(score) if aggregation == "product" else score


def aggregate_rewards__max_for_min(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Takes the best step for the worst."""
    return max(rewards) if aggregation == "min" and rewards else reference.aggregate_rewards(rewards, aggregation)


def aggregate_rewards__first_for_last(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Takes the first reward."""
    return rewards[0] if aggregation == "last" and rewards else reference.aggregate_rewards(rewards, aggregation)


def aggregate_rewards__least_as_last(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Sorts before it takes the last."""
    score = reference.aggregate_rewards(rewards, aggregation)
    return sorted(rewards)[-1] if aggregation == "last" else score


def aggregate_rewards__no_rewards_are_perfect(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Takes the empty product for an answer."""
    return reference.aggregate_rewards(rewards, aggregation) if rewards else 1.0


def aggregate_rewards__anything_else_is_last(rewards: Sequence[float], aggregation: Aggregation) -> float:
    """Accepts every name."""
    known = aggregation in ("min", "product", "last")
    return reference.aggregate_rewards(rewards, aggregation if known else "last")


def _beam(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    num_beams: int,
    max_steps: int,
    aggregation: Aggregation,
    *,
    extend: Callable[..., list[_State]] = _children,
    keep: Callable[[list[_State], list[_State], int], list[_State]] = lambda final, new, width: sorted(
        final + new, key=lambda state: state.score, reverse=True
    )[:width],
    done: Callable[[list[_State]], bool] = lambda beams: all(beam.final for beam in beams),
    found: Callable[[list[_State]], list[_State]] = lambda beams: [beam for beam in beams if beam.final],
) -> list[Solution]:
    """Search as the reference does, but for the parts given."""
    if num_beams < 1 or max_steps < 0:
        raise ValueError((num_beams, max_steps))
    beams = [_State()]
    for _ in range(max_steps):
        if done(beams):
            break
        new = extend([beam for beam in beams if not beam.final], propose, reward, is_final, aggregation)
        beams = keep([beam for beam in beams if beam.final], new, num_beams)
    return [Solution(beam.steps, beam.score) for beam in found(beams)]


def step_beam_search__finished_beams_are_lost(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Forgets solutions while other beams go on."""
    return _beam(
        propose, reward, is_final, num_beams, max_steps, aggregation,
        keep=lambda final, new, width: sorted(new or final, key=lambda s: s.score, reverse=True)[:width],
    )  # fmt: skip


def step_beam_search__finished_beams_do_not_compete(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Puts solutions aside, where no better state can push them out."""
    return _beam(
        propose, reward, is_final, num_beams, max_steps, aggregation,
        keep=lambda final, new, width: sorted(
            final + sorted(new, key=lambda s: s.score, reverse=True)[:width], key=lambda s: s.score, reverse=True
        ),
    )  # fmt: skip


def step_beam_search__solutions_first(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Keeps solutions before better states that are not final yet."""
    return _beam(
        propose, reward, is_final, num_beams, max_steps, aggregation,
        keep=lambda final, new, width: sorted(final + new, key=lambda s: (s.final, s.score), reverse=True)[:width],
    )  # fmt: skip


def step_beam_search__final_states_are_extended(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Asks for next steps of solutions too."""
    if num_beams < 1 or max_steps < 0:
        raise ValueError((num_beams, max_steps))
    beams = [_State()]
    for _ in range(max_steps):
        if all(beam.final for beam in beams):
            break
        new = _children(beams, propose, reward, is_final, aggregation)
        pool = [beam for beam in beams if beam.final] + new
        beams = sorted(pool, key=lambda s: s.score, reverse=True)[:num_beams]
    return [Solution(beam.steps, beam.score) for beam in beams if beam.final]


def step_beam_search__width_for_each_beam(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Keeps the best num_beams children of each beam."""

    def extend(beams: list[_State], *how: Any) -> list[_State]:
        if not beams:
            return []
        children = _children(beams, *how)
        groups = [[child for child in children if child.steps[:-1] == beam.steps] for beam in beams]
        return [s for group in groups for s in sorted(group, key=lambda s: s.score, reverse=True)[:num_beams]]

    return _beam(
        propose, reward, is_final, num_beams, max_steps, aggregation, extend=extend,
        keep=lambda final, new, width: sorted(final + new, key=lambda s: s.score, reverse=True),
    )  # fmt: skip


def step_beam_search__one_child_of_each_beam(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Keeps the best child of each beam, so that all beams live on."""

    def extend(beams: list[_State], *how: Any) -> list[_State]:
        children = _children(beams, *how)
        if len(beams) == 1:
            return children
        groups = [[child for child in children if child.steps[:-1] == beam.steps] for beam in beams]
        return [max(group, key=lambda s: s.score) for group in groups if group]

    return _beam(propose, reward, is_final, num_beams, max_steps, aggregation, extend=extend)


def step_beam_search__worst_kept(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Sorts the wrong way round."""
    return _beam(
        propose, reward, is_final, num_beams, max_steps, aggregation,
        keep=lambda final, new, width: sorted(final + new, key=lambda s: s.score)[:width],
    )  # fmt: skip


def step_beam_search__last_reward_only(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Scores a state by its last step, whatever the aggregation."""
    return _beam(propose, reward, is_final, num_beams, max_steps, "last")


def step_beam_search__always_the_minimum(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Does not look at the aggregation asked for."""
    return _beam(propose, reward, is_final, num_beams, max_steps, "min")


def step_beam_search__stops_at_the_first_solution(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Ends as soon as one beam is final."""
    done = lambda beams: any(beam.final for beam in beams)  # noqa: E731
    return _beam(propose, reward, is_final, num_beams, max_steps, aggregation, done=done)


def step_beam_search__returns_unfinished_beams(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Passes partial solutions off as solutions."""
    return _beam(propose, reward, is_final, num_beams, max_steps, aggregation, found=lambda beams: beams)


def step_beam_search__one_step_too_many(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Goes max_steps + 1 steps deep."""
    if max_steps < 0:
        raise ValueError(max_steps)
    return _beam(propose, reward, is_final, num_beams, max_steps + 1, aggregation)


def step_beam_search__repetitions_fill_the_beam(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Takes a step that was proposed twice for two children."""

    def extend(beams: list[_State], *how: Any) -> list[_State]:
        proposals = propose([beam.steps for beam in beams])
        pairs = [(beam, [*beam.steps, s]) for beam, steps in zip(beams, proposals, strict=True) for s in steps]
        last = reward([steps for _, steps in pairs]) if pairs else []
        rewards = [[*beam.rewards, r] for (beam, _), r in zip(pairs, last, strict=True)]
        return [
            _State(steps, r, aggregate_rewards(r, aggregation), is_final(steps))
            for (_, steps), r in zip(pairs, rewards, strict=True)
        ]

    return _beam(propose, reward, is_final, num_beams, max_steps, aggregation, extend=extend)


def step_beam_search__one_call_for_each_beam(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Extends the beams one after another."""

    def extend(beams: list[_State], *how: Any) -> list[_State]:
        return [child for beam in beams for child in _children([beam], *how)]

    return _beam(propose, reward, is_final, num_beams, max_steps, aggregation, extend=extend)


def step_beam_search__scores_all_steps_again(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Asks for the rewards of all prefixes of a child, each time anew."""

    def extend(beams: list[_State], *how: Any) -> list[_State]:
        children = _children(beams, *how)
        reward([child.steps[:i] for child in children for i in range(1, len(child.steps))] or [[]])
        return children

    return _beam(propose, reward, is_final, num_beams, max_steps, aggregation, extend=extend)


def step_beam_search__accepts_no_beams(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_beams: int, max_steps: int, aggregation: Any = "min"
) -> list[Solution]:
    """Searches with no beam and finds nothing."""
    if num_beams < 1:
        return []
    return _beam(propose, reward, is_final, num_beams, max_steps, aggregation)


def _best_first(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    max_expansions: int,
    aggregation: Aggregation,
    *,
    children: Callable[..., list[_State]] = _children,
    pick: Callable[[list[_State]], _State] = lambda frontier: max(frontier, key=lambda state: state.score),
    early: Callable[[list[_State]], _State | None] = lambda new: None,
    rest: Callable[[list[_State]], list[_State]] = lambda frontier: [state for state in frontier if state.final],
) -> Solution | None:
    """Search as the reference does, but for the parts given."""
    if max_expansions < 0:
        raise ValueError(max_expansions)
    frontier = [_State()]
    for _ in range(max_expansions):
        if not frontier:
            return None
        state = pick(frontier)
        frontier.remove(state)
        if state.final:
            return Solution(state.steps, state.score)
        new = children([state], propose, reward, is_final, aggregation)
        if (first := early(new)) is not None:
            return Solution(first.steps, first.score)
        frontier += new
    best = max(rest(frontier), key=lambda state: state.score, default=None)
    return None if best is None else Solution(best.steps, best.score)


def best_first_search__first_solution_generated(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Returns a solution when it is generated, although better states may be open."""
    return _best_first(
        propose, reward, is_final, max_expansions, aggregation,
        early=lambda new: max((s for s in new if s.final), key=lambda s: s.score, default=None),
    )  # fmt: skip


def best_first_search__depth_first(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Goes on below the state that it extended last."""
    return _best_first(
        propose, reward, is_final, max_expansions, aggregation,
        pick=lambda frontier: max(frontier, key=lambda s: (len(s.steps), s.score)),
    )  # fmt: skip


def best_first_search__breadth_first(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Extends states in the order in which they were found."""
    pick = lambda frontier: frontier[0]  # noqa: E731
    return _best_first(propose, reward, is_final, max_expansions, aggregation, pick=pick)


def best_first_search__worst_first(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Forgets that a heap gives the smallest."""
    pick = lambda frontier: min(frontier, key=lambda s: s.score)  # noqa: E731
    return _best_first(propose, reward, is_final, max_expansions, aggregation, pick=pick)


def best_first_search__last_reward_only(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Orders the states by their last reward."""
    return _best_first(propose, reward, is_final, max_expansions, "last")


def best_first_search__always_the_product(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Does not look at the aggregation asked for."""
    return _best_first(propose, reward, is_final, max_expansions, "product")


def best_first_search__one_expansion_too_many(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Checks the budget after it has spent it."""
    if max_expansions < 0:
        raise ValueError(max_expansions)
    return _best_first(propose, reward, is_final, max_expansions + 1, aggregation)


def best_first_search__nothing_after_the_budget(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Throws the solutions in the frontier away when the budget is used up."""
    return _best_first(propose, reward, is_final, max_expansions, aggregation, rest=lambda frontier: [])


def best_first_search__best_state_after_the_budget(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Returns the best open state, final or not, when the budget is used up."""
    rest = lambda frontier: [state for state in frontier if state.steps]  # noqa: E731
    return _best_first(propose, reward, is_final, max_expansions, aggregation, rest=rest)


def best_first_search__one_reward_call_for_each_child(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Scores the children one by one."""
    one_by_one = lambda states: [reward([state])[0] for state in states]  # noqa: E731
    return _best_first(propose, one_by_one, is_final, max_expansions, aggregation)


def best_first_search__counts_solutions_as_expansions(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Asks for next steps of a solution before it looks whether it is one."""
    if max_expansions < 0:
        raise ValueError(max_expansions)
    frontier = [_State()]
    for _ in range(max_expansions):
        if not frontier:
            return None
        state = max(frontier, key=lambda s: s.score)
        frontier.remove(state)
        frontier += _children([state], propose, reward, is_final, aggregation)
        if state.final:
            return Solution(state.steps, state.score)
    best = max((s for s in frontier if s.final), key=lambda s: s.score, default=None)
    return None if best is None else Solution(best.steps, best.score)


def best_first_search__crashes_when_nothing_is_open(
    propose: Propose, reward: Reward, is_final: IsFinal, *, max_expansions: int, aggregation: Any = "product"
) -> Solution | None:
    """Takes it for granted that there is always a state to extend."""

    def pick(frontier: list[_State]) -> _State:
        return max(frontier, key=lambda s: s.score)

    frontier = [_State()]
    if max_expansions < 0:
        raise ValueError(max_expansions)
    for _ in range(max_expansions):
        state = pick(frontier)
        frontier.remove(state)
        if state.final:
            return Solution(state.steps, state.score)
        frontier += _children([state], propose, reward, is_final, aggregation)
    best = max((s for s in frontier if s.final), key=lambda s: s.score, default=None)
    return None if best is None else Solution(best.steps, best.score)


Node = reference._Node


def _bound(parent: Node, child: Node, exploration: float) -> float:
    return child.total / child.visits + exploration * math.sqrt(math.log(parent.visits) / child.visits)


def _in_order(parent: Node, exploration: float, bound: Callable[..., float] = _bound) -> Node:
    unvisited = [child for child in parent.children or [] if child.visits == 0]
    return unvisited[0] if unvisited else max(parent.children or [], key=lambda c: bound(parent, c, exploration))


def _back_up(path: list[Node], value: float) -> None:
    for node in path:
        node.visits += 1
        node.total += value


def _search(
    propose: Propose,
    reward: Reward,
    is_final: IsFinal,
    num_simulations: int,
    exploration: float,
    *,
    select: Callable[..., Node] = _in_order,
    back_up: Callable[[list[Node], float], None] = _back_up,
    evaluated: Callable[[list[Node]], Node] = lambda path: path[-1],
    goes_on: Callable[[Node], bool] = lambda node: not node.final,
    stops_at_new: bool = True,
    keeps_rewards: bool = True,
    keeps_children: bool = True,
    distinct: bool = True,
    best: Callable[[list[Node]], Node] = lambda nodes: max(nodes, key=lambda n: n.total / n.visits),
    candidates: Callable[[Node], bool] = lambda node: node.final,
) -> SearchTree:
    """Search as the reference does, but for the parts given."""
    if num_simulations < 0 or exploration < 0:
        raise ValueError((num_simulations, exploration))
    root = Node([], final=False)
    for _ in range(num_simulations):
        path = [root]
        while goes_on(path[-1]):
            node = path[-1]
            if node.children is None or not keeps_children:
                steps = propose([node.steps])[0]
                states = [[*node.steps, step] for step in (dict.fromkeys(steps) if distinct else steps)]
                if node.children is None:
                    node.children = [Node(state, is_final(state)) for state in states]
            if not node.children:
                break
            path.append(select(node, exploration))
            if path[-1].visits == 0 and stops_at_new:
                break
        leaf = evaluated(path)
        if leaf.reward is None or not keeps_rewards:
            leaf.reward = reward([leaf.steps])[0]
        back_up(path, leaf.reward)
    nodes, waiting = [], [root]
    while waiting:
        node = waiting.pop(0)
        waiting += node.children or []
        nodes += [node] if node.visits else []
    solutions = [node for node in nodes if candidates(node)]
    return SearchTree(
        best(solutions).steps if solutions else None,
        {tuple(node.steps): node.visits for node in nodes},
        {tuple(node.steps): node.total / node.visits for node in nodes},
    )


def mcts__unvisited_children_are_worth_nothing(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Gives a child without visits the bound zero."""
    bound = lambda parent, child, c: _bound(parent, child, c) if child.visits else 0.0  # noqa: E731
    select = lambda parent, c: max(parent.children, key=lambda child: bound(parent, child, c))  # noqa: E731
    return _search(propose, reward, is_final, num_simulations, exploration, select=select)


def mcts__last_unvisited_child_first(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Visits new children from the last to the first."""

    def select(parent: Node, c: float) -> Node:
        unvisited = [child for child in parent.children or [] if child.visits == 0]
        return unvisited[-1] if unvisited else _in_order(parent, c)

    return _search(propose, reward, is_final, num_simulations, exploration, select=select)


def mcts__no_exploration(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Always goes to the child of highest value."""
    if exploration < 0:
        raise ValueError(exploration)
    return _search(propose, reward, is_final, num_simulations, 0.0)


def mcts__fixed_exploration(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Uses the square root of two for every exploration constant."""
    if exploration < 0:
        raise ValueError(exploration)
    return _search(propose, reward, is_final, num_simulations, 2**0.5)


def _with_bound(
    bound: Callable[..., float], propose: Any, reward: Any, is_final: Any, simulations: int, exploration: float
) -> SearchTree:
    select = lambda parent, c: _in_order(parent, c, bound)  # noqa: E731
    return _search(propose, reward, is_final, simulations, exploration, select=select)


def mcts__visits_of_the_child_in_the_logarithm(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Takes the logarithm of the child's own visits."""
    bound = lambda p, n, c: n.total / n.visits + c * math.sqrt(math.log(n.visits) / n.visits)  # noqa: E731
    return _with_bound(bound, propose, reward, is_final, num_simulations, exploration)


def mcts__simulations_in_the_logarithm(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Takes the logarithm of the number of simulations in place of the visits of the state."""
    bound = lambda p, n, c: n.total / n.visits + c * math.sqrt(math.log(num_simulations) / n.visits)  # noqa: E731
    return _with_bound(bound, propose, reward, is_final, num_simulations, exploration)


def mcts__no_square_root(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Adds the bonus without its root."""
    bound = lambda p, n, c: n.total / n.visits + c * math.log(p.visits) / n.visits  # noqa: E731
    return _with_bound(bound, propose, reward, is_final, num_simulations, exploration)


def mcts__no_logarithm(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Adds sqrt(N) / n, the bonus of PUCT with a constant prior."""
    bound = lambda p, n, c: n.total / n.visits + c * math.sqrt(p.visits) / n.visits  # noqa: E731
    return _with_bound(bound, propose, reward, is_final, num_simulations, exploration)


def mcts__total_for_mean(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Compares sums of rewards, so that what was visited often is visited more."""
    bound = lambda p, n, c: n.total + c * math.sqrt(math.log(p.visits) / n.visits)  # noqa: E731
    return _with_bound(bound, propose, reward, is_final, num_simulations, exploration)


def mcts__own_reward_for_mean(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Goes by the child's own reward; what was found below it is never used."""
    bound = lambda p, n, c: n.reward + c * math.sqrt(math.log(p.visits) / n.visits)  # noqa: E731
    return _with_bound(bound, propose, reward, is_final, num_simulations, exploration)


def mcts__worst_child(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Goes to the child of lowest bound."""
    bound = lambda p, n, c: -_bound(p, n, c)  # noqa: E731
    return _with_bound(bound, propose, reward, is_final, num_simulations, exploration)


def mcts__sign_changes_on_the_way_up(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Backs up as in a game of two players."""

    def back_up(path: list[Node], value: float) -> None:
        for depth, node in enumerate(reversed(path)):
            _back_up([node], value if depth % 2 == 0 else -value)

    return _search(propose, reward, is_final, num_simulations, exploration, back_up=back_up)


def mcts__root_is_left_out(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Backs up the value to all states but the root, of which only the visits are counted."""

    def back_up(path: list[Node], value: float) -> None:
        path[0].visits += 1
        _back_up(path[1:], value)

    return _search(propose, reward, is_final, num_simulations, exploration, back_up=back_up)


def mcts__only_the_leaf_learns(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Counts visits on the whole way, but adds the value to the state reached only."""

    def back_up(path: list[Node], value: float) -> None:
        _back_up(path[-1:], value)
        for node in path[:-1]:
            node.visits += 1

    return _search(propose, reward, is_final, num_simulations, exploration, back_up=back_up)


def mcts__goes_on_to_the_end(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Never stops before a final state, so that one simulation adds a whole path."""
    return _search(propose, reward, is_final, num_simulations, exploration, stops_at_new=False)


def mcts__value_of_the_parent(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Evaluates the state from which it reached the new one."""
    evaluated = lambda path: path[-2] if len(path) > 1 else path[-1]  # noqa: E731
    return _search(propose, reward, is_final, num_simulations, exploration, evaluated=evaluated)


def mcts__extends_final_states(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Asks for next steps of solutions."""
    return _search(propose, reward, is_final, num_simulations, exploration, goes_on=lambda node: True)


def mcts__asks_for_rewards_again(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Evaluates a final state at each visit."""
    return _search(propose, reward, is_final, num_simulations, exploration, keeps_rewards=False)


def mcts__proposes_again(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Asks for the next steps of a state each time it passes through."""
    return _search(propose, reward, is_final, num_simulations, exploration, keeps_children=False)


def mcts__repetitions_are_children(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Takes a step that was proposed twice for two children."""
    return _search(propose, reward, is_final, num_simulations, exploration, distinct=False)


def mcts__most_visited_solution(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Returns the final state that was visited most often."""
    best = lambda nodes: max(nodes, key=lambda n: n.visits)  # noqa: E731
    return _search(propose, reward, is_final, num_simulations, exploration, best=best)


def mcts__any_state_is_a_solution(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Returns the state of highest value, final or not."""
    return _search(propose, reward, is_final, num_simulations, exploration, candidates=lambda n: bool(n.steps))


def mcts__accepts_negative_exploration(
    propose: Propose, reward: Reward, is_final: IsFinal, *, num_simulations: int, exploration: float
) -> SearchTree:
    """Searches with any exploration constant."""
    return _search(propose, reward, is_final, num_simulations, abs(exploration))
