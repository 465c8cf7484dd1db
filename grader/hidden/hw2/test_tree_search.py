"""Hidden tests of hw2.tree_search."""

import math
import random

import pytest

from hw2 import tree_search
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)


class Tree:
    """A tree given by the rewards of its states, which counts how it is asked: "ba" is the state ["b", "a"].

    States without children are final, but for those that are named dead ends. Every step is proposed `times` times.
    """

    def __init__(self, rewards, dead=(), times=1):
        self.rewards = rewards
        self.dead = dead
        self.times = times
        self.below = {}
        for state in rewards:
            self.below.setdefault(state[:-1], []).append(state)
        self.proposed = []
        self.rewarded = []

    @classmethod
    def random(cls, seed, width=3, depth=4, times=1):
        """Draw a tree with solutions at all depths and some dead ends."""
        generator = random.Random(seed)
        rewards, dead, level = {}, [], [""]
        for size in range(1, depth + 1):
            grown = []
            for state in level:
                for letter in "abcd"[: width if size == 1 else generator.randint(2, width)]:
                    rewards[state + letter] = generator.uniform(0.3, 1.0)
                    if size < depth and generator.random() < 0.7:
                        grown.append(state + letter)
                    elif generator.random() < 0.15:
                        dead.append(state + letter)
            level = grown
        return cls(rewards, tuple(dead), times)

    def propose(self, states):
        """Return the next steps of each state."""
        self.proposed.append(["".join(state) for state in states])
        return [[child[-1] for child in self.below.get(state, [])] * self.times for state in self.proposed[-1]]

    def reward(self, states):
        """Return the reward of each state."""
        self.rewarded.append(["".join(state) for state in states])
        return [self.rewards.get(state, 0.0) for state in self.rewarded[-1]]

    def is_final(self, state):
        """Return whether a state is a solution."""
        return self.final("".join(state))

    def final(self, state):
        """Return whether a state, as a text, is a solution."""
        return state not in self.below and state not in self.dead

    def asked(self):
        """Return what the search algorithms are given."""
        return self.propose, self.reward, self.is_final

    def score(self, state, aggregation):
        """Return the aggregated rewards of the steps of a state."""
        rewards = [self.rewards[state[: i + 1]] for i in range(len(state))]
        return {"min": min(rewards), "product": math.prod(rewards), "last": rewards[-1]}[aggregation]

    def solutions(self, aggregation, max_steps=99):
        """Return all solutions, best first."""
        final = [state for state in self.rewards if self.final(state) and len(state) <= max_steps]
        return sorted(((state, self.score(state, aggregation)) for state in final), key=lambda pair: -pair[1])


def assert_solutions(actual, expected, what):
    """Fail unless the solutions are those of `expected` (steps as one text, score), in order."""
    assert_equal(["".join(solution.steps) for solution in actual], [steps for steps, _ in expected], what)
    for solution, (steps, score) in zip(actual, expected, strict=True):
        assert_close(solution.score, score, 1e-9, f"the score of {steps}")


def assert_refused(call):
    """Fail unless the call raises ValueError."""
    with pytest.raises(ValueError):
        call()


class TestProposeSteps:
    """A model that proposes steps."""

    def test_prompt(self):
        """The prompt is the question and all steps so far, each followed by the end of a step, the last one too.

        A prompt that ends without `step_end` asks the model to go on with the step before.
        """
        states = [[], ["one"], ["one", "two"], ["three", "two", "one"]]
        for end in ("\n", "\n\n", "; "):
            engine = ScriptedEngine(lambda prompt, params: ["x"] * params.n)
            tree_search.propose_steps(engine, "Why?", states, n=2, params=SamplingParams(), step_end=end)
            expected = [f"Why?{end}", f"Why?{end}one{end}", f"Why?{end}one{end}two{end}"]
            expected.append(f"Why?{end}three{end}two{end}one{end}")
            assert_equal(engine.prompts, expected, f"the prompts for states that end in {end!r}")

    def test_one_request_for_each_state(self):
        """All states share one call, and the n samples of a state one request with the parameters given.

        The prompt is paid once where `n` is a parameter of the request.
        """
        params = SamplingParams(temperature=0.9, top_p=0.8, max_tokens=33, seed=3, stop=("Answer", "##"))
        for n, count in ((1, 3), (5, 4)):
            engine = ScriptedEngine(lambda prompt, own: ["x"] * own.n)
            states = [[f"step {i}"] for i in range(count)]
            tree_search.propose_steps(engine, "Q", states, n=n, params=params)
            assert_equal([len(call) for call in engine.calls], [count], "the number of prompts of each call")
            for own in engine.params:
                settings = (own.n, own.temperature, own.top_p, own.max_tokens, own.seed)
                assert_equal(settings, (n, 0.9, 0.8, 33, 3), "n, temperature, top_p, max_tokens and seed")
                assert_equal(set(own.stop), {"\n", "Answer", "##"}, "the stop strings")

    def test_a_step_ends_where_it_ends(self):
        """The model stops at the end of a step: what comes later is neither generated nor returned.

        `step_end` is a stop string; cutting afterwards pays for tokens that are thrown away.
        """
        engine = ScriptedEngine({"Q\n": ["one step\nanother\nand one more", "two words ## not this\nnor this"]})
        params = SamplingParams(stop=("##",))
        steps = tree_search.propose_steps(engine, "Q", [[]], n=2, params=params)
        assert_equal([list(texts) for texts in steps], [["one step", "two words"]], "the steps")
        assert_equal(engine.usage.generated_tokens, 6, "the number of tokens generated")

    def test_different_steps(self):
        """Each state gets its different steps, without white space around them, in the order of the samples.

        Strip before you compare; leave out what is empty then. A set has no order.
        """
        replies = {
            "Q\n": ["d", " b", "d ", "", "a", "   ", "b", "c"],
            "Q\nd\n": ["  ", "", " ", "", "", "", "", ""],
            "Q\nb\n": ["z z", "y", "z z", "z  z", "y", "y", "y", "y"],
        }
        states = [[], ["d"], ["b"]]
        steps = tree_search.propose_steps(ScriptedEngine(replies), "Q", states, n=8, params=SamplingParams())
        assert_equal([list(texts) for texts in steps], [["d", "b", "a", "c"], [], ["z z", "y", "z  z"]], "the steps")

    def test_no_states(self):
        """One state gets one list, and without states the model is not called.

        A call with no prompts is a call.
        """
        engine = ScriptedEngine({"Q\n": ["a", "b"]})
        steps = tree_search.propose_steps(engine, "Q", [[]], n=2, params=SamplingParams())
        assert_equal([list(texts) for texts in steps], [["a", "b"]], "the steps")
        assert_equal(list(tree_search.propose_steps(engine, "Q", [], n=2, params=SamplingParams())), [], "the steps")
        assert_equal(len(engine.calls), 1, "the number of calls")


class TestAggregateRewards:
    """One score from the rewards of the steps."""

    def test_aggregations(self):
        """The score is the least reward, the product of all rewards, or the reward of the last step.

        The product is no mean and no logarithm; the last reward is neither the first nor the largest.
        """
        for rewards, least, product, last in (
            ([0.6, 0.9, 0.5, 0.8], 0.5, 0.216, 0.8),
            ([0.3, 0.7], 0.3, 0.21, 0.7),
            ([0.7, 0.3], 0.3, 0.21, 0.3),
            ([0.9, 0.0, 0.5], 0.0, 0.0, 0.5),
            ([0.4], 0.4, 0.4, 0.4),
        ):
            for aggregation, expected in (("min", least), ("product", product), ("last", last)):
                actual = tree_search.aggregate_rewards(rewards, aggregation)
                assert_close(actual, expected, 1e-9, f"{aggregation} of {rewards}")

    def test_refusals(self):
        """No rewards, and an aggregation of another name, raise ValueError; the rewards stay as they were.

        The product of nothing is no score, and neither is another aggregation taken for one of the three.
        """
        for aggregation in ("min", "product", "last"):
            assert_refused(lambda name=aggregation: tree_search.aggregate_rewards([], name))
        for name in ("mean", "", "Min"):
            assert_refused(lambda name=name: tree_search.aggregate_rewards([0.5, 0.9], name))
        rewards = [0.9, 0.2, 0.4]
        assert_close(tree_search.aggregate_rewards(rewards, "last"), 0.4, 1e-9, "last of 0.9, 0.2, 0.4")
        assert_equal(rewards, [0.9, 0.2, 0.4], "the rewards after the call")


# products: a .9, b .8, c .7; aa .27 final, ab .72, ba .56, bb .76 final, ca .35, cb .63; aba .36 final, abb .684 final,
# baa .504 final, caa .315 final, cba .567, cbaa .51 final
UNEVEN = {
    "a": 0.9, "b": 0.8, "c": 0.7, "aa": 0.3, "ab": 0.8, "ba": 0.7, "bb": 0.95, "ca": 0.5, "cb": 0.9, "aba": 0.5,
    "abb": 0.95, "baa": 0.9, "caa": 0.9, "cba": 0.9, "cbaa": 0.9,
}  # fmt: skip


def search_beams(tree, num_beams, max_steps=9, aggregation="product"):
    """Call step_beam_search."""
    return tree_search.step_beam_search(
        *tree.asked(), num_beams=num_beams, max_steps=max_steps, aggregation=aggregation
    )


class TestStepBeamSearch:
    """Beam search over steps."""

    def test_unlimited_width(self):
        """With unlimited width the result is every solution of up to max_steps steps, best first, as by brute force.

        Solutions of different lengths are compared by their aggregated rewards; unfinished beams are no solutions.
        """
        for seed in range(6):
            for aggregation in ("product", "last"):
                for max_steps in (0, 1, 2, 3, 9):
                    tree = Tree.random(seed)
                    what = f"the solutions of tree {seed} by {aggregation} within {max_steps} steps"
                    found = search_beams(tree, 1000, max_steps, aggregation)
                    assert_solutions(found, tree.solutions(aggregation, max_steps), what)

    def test_width(self):
        """After each step the num_beams best states are kept, of whichever beam they are children.

        One pool for all beams: neither a quota for each beam, nor num_beams children of each.
        """
        for num_beams, expected in (
            (1, [("abb", 0.684)]),
            (2, [("bb", 0.76), ("abb", 0.684)]),
            (3, [("bb", 0.76), ("abb", 0.684), ("cbaa", 0.5103)]),
            (4, [("bb", 0.76), ("abb", 0.684), ("cbaa", 0.5103), ("baa", 0.504)]),
        ):
            assert_solutions(search_beams(Tree(UNEVEN), num_beams), expected, f"the solutions with {num_beams} beams")

    def test_finished_beams_compete(self):
        """A solution stays in the beam while its score does, and better states push it out.

        Solutions share the places of the beam with the states that go on: they are neither lost nor safe, and the
        search goes on while any beam is not final.
        """
        rewards = {"a": 0.9, "b": 0.5, "c": 0.6, "aa": 0.9, "ab": 0.95, "ca": 0.4, "aaa": 0.9, "aba": 0.9}
        assert_solutions(search_beams(Tree(rewards), 2), [("aba", 0.7695), ("aaa", 0.729)], "two beams, b is final")
        rewards = {"a": 0.9, "b": 0.8, "aa": 0.5, "ab": 0.4, "aaa": 0.9}
        assert_solutions(search_beams(Tree(rewards), 2), [("b", 0.8), ("aaa", 0.405)], "two beams, b is final")
        assert_solutions(search_beams(Tree(rewards), 1), [("aaa", 0.405)], "one beam, b is final")

    def test_aggregations(self):
        """Beams are compared by the aggregation asked for, over all of their steps.

        Keep the rewards of the earlier steps with the beam; the last reward alone is one of three aggregations.
        """
        rewards = {
            "a": 0.9, "b": 0.6, "aa": 0.52, "ab": 0.3, "ba": 0.99, "bb": 0.58,
            "aaa": 0.5, "aba": 0.9, "baa": 0.93, "bba": 0.95,
        }  # fmt: skip
        for aggregation, num_beams, expected in (
            ("min", 2, [("baa", 0.6), ("bba", 0.58)]),
            ("product", 2, [("baa", 0.55242), ("aaa", 0.234)]),
            ("last", 2, [("bba", 0.95), ("baa", 0.93)]),
            ("min", 9, [("baa", 0.6), ("bba", 0.58), ("aaa", 0.5), ("aba", 0.3)]),
            ("product", 9, [("baa", 0.55242), ("bba", 0.3306), ("aba", 0.243), ("aaa", 0.234)]),
            ("last", 9, [("bba", 0.95), ("baa", 0.93), ("aba", 0.9), ("aaa", 0.5)]),
        ):
            found = search_beams(Tree(rewards), num_beams, aggregation=aggregation)
            assert_solutions(found, expected, f"the solutions by {aggregation} with {num_beams} beams")

    def test_calls(self):
        """A round is one propose call with the beams that are not final, and one reward call with their children.

        No state is extended or scored twice, and solutions are never extended.
        """
        tree = Tree(UNEVEN, times=2)
        search_beams(tree, 3)
        proposed = [sorted(call) for call in tree.proposed]
        assert_equal(proposed, [[""], ["a", "b", "c"], ["ab", "cb"], ["cba"]], "the states of each propose call")
        rewarded = [sorted(call) for call in tree.rewarded]
        expected = [["a", "b", "c"], ["aa", "ab", "ba", "bb", "ca", "cb"], ["aba", "abb", "cba"], ["cbaa"]]
        assert_equal(rewarded, expected, "the states of each reward call")

    def test_repeated_proposals(self):
        """A step that is proposed several times for a state is one child.

        Equal beams would fill the places of different ones.
        """
        for num_beams in (2, 3, 4):
            expected = [("bb", 0.76), ("abb", 0.684), ("cbaa", 0.5103), ("baa", 0.504)][:num_beams]
            found = search_beams(Tree(UNEVEN, times=3), num_beams)
            assert_solutions(found, expected, f"the solutions with {num_beams} beams")

    def test_steps_and_dead_ends(self):
        """Beams that are not final after max_steps rounds, and states for which nothing is proposed, are left out.

        The empty state is not a solution either.
        """
        assert_solutions(search_beams(Tree(UNEVEN), 3, 0), [], "the solutions within no steps")
        assert_solutions(search_beams(Tree(UNEVEN), 3, 2), [("bb", 0.76)], "the solutions within 2 steps")
        expected = [("bb", 0.76), ("abb", 0.684)]
        assert_solutions(search_beams(Tree(UNEVEN), 3, 3), expected, "the solutions within 3 steps")
        tree = Tree({"a": 0.9, "b": 0.8, "ba": 0.5}, dead=("a",))
        assert_solutions(search_beams(tree, 2), [("ba", 0.4)], "the solutions beside a dead end")
        assert_solutions(search_beams(Tree({"a": 0.9}, dead=("a",)), 2), [], "the solutions of a dead end")

    def test_refusals(self):
        """No beams and a negative number of steps raise ValueError.

        Check the settings before the first call.
        """
        assert_refused(lambda: search_beams(Tree(UNEVEN), 0))
        assert_refused(lambda: search_beams(Tree(UNEVEN), 2, -1))


def search_best_first(tree, max_expansions, aggregation="product"):
    """Call best_first_search; return the solution in a list, or an empty list."""
    found = tree_search.best_first_search(*tree.asked(), max_expansions=max_expansions, aggregation=aggregation)
    return [] if found is None else [found]


class TestBestFirstSearch:
    """Best-first search over steps."""

    def test_optimum(self):
        """Scores that never rise make the first final state on top the best solution, as found by brute force.

        A solution is returned when it is the best open state, not when it is generated.
        """
        for seed in range(12):
            tree = Tree.random(seed, depth=5)
            found = search_best_first(tree, 1000)
            assert_solutions(found, tree.solutions("product")[:1], f"the best solution of tree {seed}")

    def test_extends_only_better_states(self):
        """Exactly the states that score higher than the solution are extended, best first, one at a time.

        The frontier holds the states of all depths; a heap gives its smallest entry first.
        """
        for seed in range(8):
            tree = Tree.random(seed, depth=5, times=2)
            best = tree.solutions("product")[0][1]
            inner = [(tree.score(state, "product"), state) for state in tree.rewards if not tree.final(state)]
            expected = [[""], *([state] for score, state in sorted(inner, reverse=True) if score > best)]
            search_best_first(tree, 1000)
            assert_equal(sorted(tree.proposed), sorted(expected), f"the states of tree {seed} that are extended")
            for call in tree.rewarded:
                assert_equal(len({state[:-1] for state in call}), 1, "the number of parents in one reward call")
            children = [tree.below[state] for (state,) in expected if state in tree.below]
            assert_equal(sorted(map(sorted, tree.rewarded)), sorted(children), "the states of each reward call")

    def test_aggregations(self):
        """The order is that of the aggregation asked for, over all steps.

        By the last reward a promising step makes up for a bad one before; by the minimum it never does.
        """
        rewards = {"a": 0.6, "b": 0.9, "ba": 0.5, "bb": 0.45, "aa": 0.95, "baa": 0.99, "aaa": 0.97, "bba": 0.7}
        for aggregation, solution, extended in (
            ("last", ("aaa", 0.97), ["", "a", "aa", "b"]),
            ("min", ("aaa", 0.6), ["", "a", "aa", "b"]),
            ("product", ("aaa", 0.6 * 0.95 * 0.97), ["", "a", "aa", "b"]),
        ):
            tree = Tree(rewards)
            assert_solutions(search_best_first(tree, 99, aggregation), [solution], f"the solution by {aggregation}")
            assert_equal(sorted(state for (state,) in tree.proposed), extended, f"the states by {aggregation}")
        rewards = {"a": 0.5, "b": 0.8, "aa": 0.9, "ba": 0.6, "baa": 0.85}
        for aggregation, solution in (("last", ("baa", 0.85)), ("min", ("baa", 0.6)), ("product", ("aa", 0.45))):
            tree = Tree(rewards)
            assert_solutions(search_best_first(tree, 99, aggregation), [solution], f"the solution by {aggregation}")

    def test_budget(self):
        """After max_expansions extended states the best final state scored so far is returned, or None.

        Returning a solution is no expansion; a state that is not final is no solution, however good its score.
        """
        # extended in this order: the empty state, a, b; bb .76 is final
        for budget, expected in (
            (0, []), (1, []), (2, [("aa", 0.27)]), (3, [("bb", 0.76)]), (4, [("bb", 0.76)]),
        ):  # fmt: skip
            tree = Tree(UNEVEN)
            assert_solutions(search_best_first(tree, budget), expected, f"the solution after {budget} expansions")
            assert_equal(len(tree.proposed), min(budget, 3), "the number of propose calls")

    def test_nothing_open(self):
        """Without a solution in the whole tree the result is None, and a negative budget raises ValueError.

        The frontier may run empty; nothing is scored where nothing is proposed.
        """
        tree = Tree({"a": 0.9, "b": 0.8, "ba": 0.7}, dead=("a", "ba"))
        assert_solutions(search_best_first(tree, 50), [], "the solution of a tree of dead ends")
        assert_equal(tree.rewarded, [["a", "b"], ["ba"]], "the states of each reward call")
        tree = Tree({"a": 0.9, "b": 0.8, "ba": 0.7}, dead=("a",))
        assert_solutions(search_best_first(tree, 50), [("ba", 0.56)], "the solution beside a dead end")
        assert_refused(lambda: search_best_first(Tree(UNEVEN), -1))


def search_mcts(tree, num_simulations, exploration=1.0):
    """Call mcts; return solution, visits and values with states as texts."""
    found = tree_search.mcts(*tree.asked(), num_simulations=num_simulations, exploration=exploration)
    visits = {"".join(state): count for state, count in found.visits.items()}
    values = {"".join(state): value for state, value in found.values.items()}
    return found.solution and "".join(found.solution), visits, values


class TestMCTS:
    """Monte Carlo tree search."""

    THREE = {"a": 0.55, "b": 0.7, "c": 0.4, "aa": 0.65, "ab": 0.1, "ba": 0.35, "bb": 0.2, "ca": 0.3, "cb": 0.95}
    STATES = ("", "a", "aa", "ab", "b", "ba", "bb", "c", "ca", "cb")

    def test_new_children_first(self):
        """A simulation goes to the first child that was not visited, in the order proposed, and ends there.

        As long as a child was never visited, no other child is visited again; each simulation adds one state.
        """
        for simulations, states in ((1, "a"), (2, "ab"), (3, "abc")):
            _, visits, _ = search_mcts(Tree(self.THREE, times=2), simulations)
            expected = {"": simulations} | dict.fromkeys(states, 1)
            assert_equal(visits, expected, f"the visits after {simulations} simulations")
        tree = Tree(self.THREE)
        _, visits, _ = search_mcts(tree, 3)
        assert_equal(tree.proposed, [[""]], "the states of each propose call")

    def test_upper_confidence_bound(self):
        """Among visited children the one of highest mean + exploration * sqrt(ln N / n) is taken.

        N are the visits of the state itself, n those of the child, both before this simulation.
        """
        # visits of STATES; between the two best bounds there is 0.0028 or more at each decision
        for exploration, simulations, counts in (
            (1.0, 5, (5, 2, 1, 0, 2, 1, 0, 1, 0, 0)),
            (1.0, 12, (12, 3, 1, 1, 3, 1, 1, 6, 1, 4)),
            (0.3, 15, (15, 10, 8, 1, 3, 1, 1, 2, 1, 0)),
            (0.0, 10, (10, 6, 4, 1, 3, 1, 1, 1, 0, 0)),
            (2.0, 25, (25, 8, 4, 3, 6, 3, 2, 11, 3, 7)),
        ):
            expected = {state: count for state, count in zip(self.STATES, counts, strict=True) if count}
            _, visits, _ = search_mcts(Tree(self.THREE), simulations, exploration)
            assert_equal(visits, expected, f"the visits after {simulations} simulations with exploration {exploration}")

    def test_values_are_means(self):
        """The value of a state is the mean of the rewards that simulations through it ended with.

        Every state on the way gets visit and reward, the empty state too, with the same sign on all levels.
        """
        for seed in range(4):
            tree = Tree.random(seed)
            for simulations in (1, 7, 60):
                _, visits, values = search_mcts(tree, simulations, 0.8)
                assert_equal(visits[""], simulations, "the visits of the empty state")
                for state, count in visits.items():
                    below = [child for child in visits if len(child) == len(state) + 1 and child.startswith(state)]
                    own = count - sum(visits[child] for child in below)
                    if state in tree.below:  # a state with children is itself reached once, the empty state never
                        assert_equal(own, int(state != ""), f"the simulations that end in {state!r}")
                    total = own * tree.rewards.get(state, 0.0) + sum(visits[c] * values[c] for c in below)
                    assert_close(values[state], total / count, 1e-9, f"the value of {state!r}")

    def test_calls(self):
        """Each state is extended at most once, only when a simulation goes on from it, and evaluated once.

        Solutions are never extended. Keep children and rewards with the state.
        """
        tree = Tree(self.THREE, times=2)
        search_mcts(tree, 50)
        assert_equal(sorted(tree.proposed), [[""], ["a"], ["b"], ["c"]], "the states of each propose call")
        assert_equal(sorted(tree.rewarded), [[s] for s in sorted(self.THREE)], "the states of each reward call")
        tree = Tree(self.THREE)
        _, visits, _ = search_mcts(tree, 5)
        assert_equal(sorted(state for (state,) in tree.rewarded), sorted(visits)[1:], "the states evaluated")

    def test_solution(self):
        """The solution is the final state of highest reward that was visited, or None.

        Neither the most visited one nor a state that is not final.
        """
        for simulations, exploration, expected in ((3, 1.0, None), (4, 1.0, "ba"), (5, 1.0, "aa"), (60, 1.0, "cb")):
            solution, _, _ = search_mcts(Tree(self.THREE), simulations, exploration)
            assert_equal(solution, expected, f"the solution after {simulations} simulations")
        rewards = {"a": 0.2, "b": 0.95, "aa": 0.97, "ba": 0.9}
        solution, _, _ = search_mcts(Tree(rewards), 8, 1.0)
        assert_equal(solution, "aa", "the solution that was visited less")

    def test_reaches_the_optimum(self):
        """With rewards that tell the best reachable solution, and with enough simulations, the optimum is found.

        Exploration reaches every state in the end, also where the rewards of the first steps mislead.
        """
        for seed in range(3):
            tree = Tree.random(seed, depth=3)
            solution, visits, _ = search_mcts(tree, 400, 2.0)
            assert_equal(solution, tree.solutions("last")[0][0], f"the solution of tree {seed}")
            assert_equal(set(visits), {"", *tree.rewards}, f"the states of tree {seed} that were visited")
        for seed in range(3, 6):
            tree = Tree.random(seed)
            solutions = tree.solutions("last")
            tree.rewards = {s: max((r for t, r in solutions if t.startswith(s)), default=0.0) for s in tree.rewards}
            solution, _, _ = search_mcts(tree, 150, 0.5)
            assert_equal(solution, solutions[0][0], f"the solution of tree {seed} with an oracle")

    def test_dead_ends(self):
        """A state without children is reached again as a solution is, and counts with its own reward.

        It is no solution, and it is extended only once.
        """
        tree = Tree({"a": 0.9, "b": 0.1, "ba": 0.3}, dead=("a",))
        solution, visits, values = search_mcts(tree, 8, 0.5)
        assert_equal(solution, None, "the solution")
        assert_equal(visits, {"": 8, "a": 7, "b": 1}, "the visits")
        assert_close(values["a"], 0.9, 1e-9, "the value of the dead end")
        assert_equal(sorted(tree.proposed), [[""], ["a"]], "the states of each propose call")

    def test_settings(self):
        """Without simulations nothing is visited, and negative settings raise ValueError.

        Without exploration the search follows the best mean.
        """
        assert_equal(search_mcts(Tree(self.THREE), 0), (None, {}, {}), "solution, visits and values")
        assert_refused(lambda: search_mcts(Tree(self.THREE), -1))
        assert_refused(lambda: search_mcts(Tree(self.THREE), 5, -0.1))
