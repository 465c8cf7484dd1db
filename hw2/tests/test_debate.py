"""Public tests of hw2.debate. Run them with `pytest hw2/tests/test_debate.py`."""

# ruff: noqa: PT011 (the type of an error is in the contract, its message is not)

import copy

import pytest

from hw2 import debate
from shared_tasks.checks import assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

PARAMS = SamplingParams(temperature=0.8, max_tokens=30)


def revise(others):
    """Show what the others said."""
    return "The others said: " + " | ".join(others)


def extract(text):
    """Return what follows "answer", or None."""
    return text.partition("answer ")[2] or None


class Agents:
    """An engine that gives the agents' answers round by round, and the chats that it was asked to continue."""

    def __init__(self, rounds):
        self.chats = []
        self.left = [text for texts in rounds for text in texts]
        self.engine = ScriptedEngine(self.answer)

    def answer(self, chat, params):
        """Return the next answers."""
        self.chats.append(copy.deepcopy(chat))
        return [self.left.pop(0) for _ in range(params.n)]

    def debate(self, **settings):
        """Hold a debate about 6 * 7."""
        return debate.debate(self.engine, "6 * 7?", revise, extract, params=PARAMS, **settings)


class TestDebate:
    """Several agents, several rounds."""

    ROUNDS = [
        ["I say answer 42", "I say answer 13", "no idea"],
        ["still answer 42", "then answer 42", "maybe answer 13"],
    ]

    def test_rounds_and_vote(self):
        """All agents answer in each round, and the most frequent answer of the last one wins."""
        result = Agents(self.ROUNDS).debate(num_agents=3, num_rounds=2)
        assert_equal([list(texts) for texts in result.rounds], self.ROUNDS, "the answers in each round")
        assert_equal(result.answer, "42", "the vote")

    def test_each_chat_shows_the_others(self):
        """Before a later round an agent's chat gets its own answer, and then those of all others."""
        agents = Agents(self.ROUNDS)
        agents.debate(num_agents=3, num_rounds=2)
        expected = [
            {"role": "user", "content": "6 * 7?"},
            {"role": "assistant", "content": "I say answer 13"},
            {"role": "user", "content": "The others said: I say answer 42 | no idea"},
        ]
        assert_equal([dict(message) for message in agents.chats[2]], expected, "the second agent's chat")

    def test_one_call_a_round(self):
        """A round is one call, and the first round, where all chats are the same, one request."""
        agents = Agents(self.ROUNDS)
        agents.debate(num_agents=3, num_rounds=2)
        assert_equal([len(call) for call in agents.engine.calls], [1, 3], "the number of prompts of each call")
        assert_equal([own.n for own in agents.engine.params], [3, 1, 1, 1], "the number of samples of each prompt")

    def test_ends_when_all_agree(self):
        """The debate ends when all agents give the same answer; no agents and no rounds are refused."""
        agents = Agents([["one answer 7", "two answer 7"], ["x", "y"]])
        result = agents.debate(num_agents=2, num_rounds=2)
        assert_equal(len(result.rounds), 1, "the number of rounds")
        assert_equal(result.answer, "7", "the vote")
        for settings in ({"num_agents": 0, "num_rounds": 1}, {"num_agents": 2, "num_rounds": 0}):
            with pytest.raises(ValueError):
                Agents(self.ROUNDS).debate(**settings)
