"""Public tests of hw2.tree_search. Run them with `pytest hw2/tests/test_tree_search.py`; -k TestMCTS picks one problem.

The trees are written down by the rewards of their states: "ba" is the state ["b", "a"]. States without children are
solutions.
"""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import pytest

from hw2 import tree_search
from shared_tasks.checks import assert_close, assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

#     products: a .9, b .8, c .3; aa .45, ab .54, ba .72, bb .32, ca .297; aba .486, baa .396, bab .504
REWARDS = {
    "a": 0.9, "b": 0.8, "c": 0.3, "aa": 0.5, "ab": 0.6, "ba": 0.9, "bb": 0.4, "ca": 0.99, "aba": 0.9, "baa": 0.55,
    "bab": 0.7,
}  # fmt: skip


class Tree:
    """A tree that counts how it is asked."""

    def __init__(self, rewards):
        self.rewards = rewards
        self.proposed = []
        self.rewarded = []

    def children(self, state):
        """Return the states one step further."""
        return [other for other in self.rewards if len(other) == len(state) + 1 and other.startswith(state)]

    def propose(self, states):
        """Return the next steps of each state."""
        self.proposed.append(["".join(state) for state in states])
        return [[child[-1] for child in self.children(state)] for state in self.proposed[-1]]

    def reward(self, states):
        """Return the reward of each state."""
        self.rewarded.append(["".join(state) for state in states])
        return [self.rewards[state] for state in self.rewarded[-1]]

    def is_final(self, state):
        """Return whether a state has no children."""
        return not self.children("".join(state))

    def asked(self):
        """Return what the search algorithms are given."""
        return self.propose, self.reward, self.is_final


def assert_solutions(actual, expected, what):
    """Fail unless the solutions are those of `expected` (steps as one text, score), in order."""
    assert_equal(["".join(solution.steps) for solution in actual], [steps for steps, _ in expected], what)
    for solution, (steps, score) in zip(actual, expected, strict=True):
        assert_close(solution.score, score, 1e-9, f"the score of {steps}")


class TestProposeSteps:
    """A model that proposes steps."""

    def test_steps(self):
        """Each state gets the different steps that the model samples after the question and the steps so far."""
        engine = ScriptedEngine({"1+2+3\n": [" 1+2=3", "2+3=5\nSo", "1+2=3"], "1+2+3\n1+2=3\n": ["3+3=6", "", "6"]})
        states = [[], ["1+2=3"]]
        steps = tree_search.propose_steps(engine, "1+2+3", states, n=3, params=SamplingParams(temperature=0.7))
        assert_equal([list(texts) for texts in steps], [["1+2=3", "2+3=5"], ["3+3=6", "6"]], "the steps")

    def test_one_request_for_each_state(self):
        """All states share one call, a state's samples one request that stops at the end of a step."""
        engine = ScriptedEngine(lambda prompt, params: ["step"] * params.n)
        params = SamplingParams(temperature=0.7, stop=("Answer",))
        tree_search.propose_steps(engine, "question", [["a"], ["b"], ["c"]], n=4, params=params)
        assert_equal([len(call) for call in engine.calls], [3], "the number of prompts of each call")
        for own in engine.params:
            assert_equal((own.n, set(own.stop), own.temperature), (4, {"\n", "Answer"}, 0.7), "n, stop and temperature")


class TestAggregateRewards:
    """One score from the rewards of the steps."""

    def test_aggregations(self):
        """The score is the minimum, the product or the last of the rewards; no rewards are refused."""
        for aggregation, expected in (("min", 0.5), ("product", 0.36), ("last", 0.8)):
            actual = tree_search.aggregate_rewards([0.9, 0.5, 0.8], aggregation)
            assert_close(actual, expected, 1e-9, f"{aggregation} of 0.9, 0.5, 0.8")
        with pytest.raises(ValueError):
            tree_search.aggregate_rewards([], "product")


class TestStepBeamSearch:
    """Beam search over steps."""

    def test_width_one_is_greedy(self):
        """One beam follows the best step, and asks for the children of that state only."""
        tree = Tree(REWARDS)
        found = tree_search.step_beam_search(*tree.asked(), num_beams=1, max_steps=5, aggregation="product")
        assert_solutions(found, [("aba", 0.486)], "the solutions with one beam")
        assert_equal(tree.proposed, [[""], ["a"], ["ab"]], "the states of each propose call")

    def test_finished_beams_compete(self):
        """A solution keeps its place in the beam for as long as its score does, and is not extended."""
        tree = Tree(REWARDS)
        found = tree_search.step_beam_search(*tree.asked(), num_beams=3, max_steps=5, aggregation="product")
        assert_solutions(found, [("bab", 0.504), ("aba", 0.486), ("aa", 0.45)], "the solutions with three beams")
        assert_equal([sorted(call) for call in tree.proposed], [[""], ["a", "b", "c"], ["ab", "ba"]], "the calls")
        assert_equal(len(tree.rewarded), 3, "the number of reward calls")

    def test_aggregations(self):
        """Unlimited width finds all solutions, in the order of their aggregated rewards."""
        for aggregation, best in (("min", ("bab", 0.7)), ("product", ("bab", 0.504)), ("last", ("ca", 0.99))):
            found = tree_search.step_beam_search(
                *Tree(REWARDS).asked(), num_beams=99, max_steps=3, aggregation=aggregation
            )
            assert_equal(len(found), 6, "the number of solutions")
            assert_solutions(found[:1], [best], f"the best solution by {aggregation}")


class TestBestFirstSearch:
    """Best-first search over steps."""

    def test_best_solution(self):
        """The open state of highest score is extended, wherever it is, and the first one that is final is returned."""
        tree = Tree(REWARDS)
        found = tree_search.best_first_search(*tree.asked(), max_expansions=50, aggregation="product")
        assert_solutions([found], [("bab", 0.504)], "the solution")
        assert_equal(tree.proposed, [[""], ["a"], ["b"], ["ba"], ["ab"]], "the states of each propose call")

    def test_budget(self):
        """When the expansions are used up, the best solution among the states scored is returned."""
        for budget, expected in ((4, ("bab", 0.504)), (3, ("aa", 0.45)), (2, ("aa", 0.45))):
            tree = Tree(REWARDS)
            found = tree_search.best_first_search(*tree.asked(), max_expansions=budget)
            assert_solutions([found], [expected], f"the solution after {budget} expansions")
            assert_equal(len(tree.proposed), budget, "the number of propose calls")
        assert_equal(tree_search.best_first_search(*Tree(REWARDS).asked(), max_expansions=1), None, "the solution")


class TestMCTS:
    """Monte Carlo tree search."""

    SMALL = {"a": 0.5, "b": 0.8, "aa": 0.2, "ab": 0.9, "ba": 0.4, "bb": 0.1}

    def test_visits_and_values(self):
        """Simulations go to new children first and then by UCT; the reward of the state reached is backed up.

        Six simulations with exploration 1 reach a, b, ba, aa, bb and ab.
        """
        found = tree_search.mcts(*Tree(self.SMALL).asked(), num_simulations=6, exploration=1.0)
        visits = {"".join(state): count for state, count in found.visits.items()}
        assert_equal(visits, {"": 6, "a": 3, "b": 3, "aa": 1, "ab": 1, "ba": 1, "bb": 1}, "the visits")
        values = {"".join(state): value for state, value in found.values.items()}
        for state, value in (("", 2.9 / 6), ("a", 1.6 / 3), ("b", 1.3 / 3), ("ab", 0.9)):
            assert_close(values[state], value, 1e-9, f"the value of {state!r}")

    def test_solution(self):
        """The solution is the final state of highest reward among those visited."""
        for simulations, expected in ((2, None), (3, ["b", "a"]), (6, ["a", "b"]), (40, ["a", "b"])):
            found = tree_search.mcts(*Tree(self.SMALL).asked(), num_simulations=simulations, exploration=1.0)
            assert_equal(found.solution, expected, f"the solution after {simulations} simulations")

    def test_calls(self):
        """No state is extended or evaluated twice."""
        tree = Tree(self.SMALL)
        tree_search.mcts(*tree.asked(), num_simulations=40, exploration=1.0)
        assert_equal(sorted(tree.proposed), [[""], ["a"], ["b"]], "the states of each propose call")
        assert_equal(sorted(tree.rewarded), [[state] for state in sorted(self.SMALL)], "the states of each reward call")
