"""Hidden tests of hw2.debate."""

import copy

import pytest

from hw2 import debate
from shared_tasks.checks import assert_equal
from shared_tasks.models.engine import SamplingParams
from shared_tasks.models.scripted import ScriptedEngine

PARAMS = SamplingParams(temperature=0.6, max_tokens=40, seed=11)
QUESTION = "Which is larger, {9.11} or 9.9?"


def extract(text):
    """Return what stands in brackets, or None."""
    return text.partition("[")[2].partition("]")[0] or None


def revise(others):
    """Return the message that shows what the others said."""
    return "The others: " + " / ".join(others)


class Agents:
    """An engine that gives the agents' answers round by round, and the chats that it was asked to continue."""

    def __init__(self, rounds):
        self.chats = []
        self.left = [text for texts in rounds for text in texts]
        self.engine = ScriptedEngine(self.answer)

    def answer(self, chat, params):
        """Return the next answers, or none when there are none left."""
        self.chats.append([dict(message) for message in copy.deepcopy(chat)])
        texts, self.left = self.left[: params.n], self.left[params.n :]
        return [*texts, *["nothing left"] * (params.n - len(texts))]

    def debate(self, num_agents, num_rounds, params=PARAMS):
        """Hold a debate."""
        return debate.debate(
            self.engine, QUESTION, revise, extract, num_agents=num_agents, num_rounds=num_rounds, params=params
        )


def user(content):
    """Return a user's message."""
    return {"role": "user", "content": content}


def assistant(content):
    """Return an assistant's message."""
    return {"role": "assistant", "content": content}


THREE_ROUNDS = [
    ["first [a]", "first [b]", "first [b]", "first: no idea"],
    ["second [a]", "second [a]", "second [c]", "second [d]"],
    ["third [c]", "third [a]", "third [c]", "third [b]"],
]


class TestDebate:
    """Several agents, several rounds."""

    def test_rounds_and_vote(self):
        """Exactly num_rounds rounds are held, and the final answers of the last one are counted.

        Answers of earlier rounds have no vote, and the first round is one of the rounds.
        """
        for num_rounds, answer in ((1, "b"), (2, "a"), (3, "c")):
            result = Agents(THREE_ROUNDS).debate(4, num_rounds)
            assert_equal([list(texts) for texts in result.rounds], THREE_ROUNDS[:num_rounds], "the answers")
            assert_equal(result.answer, answer, f"the vote after {num_rounds} rounds")

    def test_what_the_others_said(self):
        """An agent is shown the answers of all others in the round before, in the order of the agents.

        The agent itself is left out by its number, not by its text; nobody sees what is said in the same round.
        """
        agents = Agents([["same [x]", "same [x]", "other [y]"], ["[p]", "[q]", "[r]"], ["[s]", "[t]", "[u]"]])
        agents.debate(3, 3)
        others = [
            ["same [x]", "other [y]"], ["same [x]", "other [y]"], ["same [x]", "same [x]"],
            ["[q]", "[r]"], ["[p]", "[r]"], ["[p]", "[q]"],
        ]  # fmt: skip
        messages = [chat[-1]["content"] for chat in agents.chats[1:]]
        assert_equal(messages, [revise(texts) for texts in others], "the last message of each chat")

    def test_chats(self):
        """Every agent has a chat of its own that keeps all rounds: question, own answers, messages between them.

        `[[question]] * num_agents` is one list several times; a chat that forgets its beginning is no debate.
        """
        agents = Agents(THREE_ROUNDS)
        agents.debate(4, 3)
        assert_equal(agents.chats[0], [user(QUESTION)], "the first chat")
        for agent in range(4):
            expected = [user(QUESTION)]
            for number in range(2):
                texts = THREE_ROUNDS[number]
                expected += [assistant(texts[agent]), user(revise(texts[:agent] + texts[agent + 1 :]))]
                actual = agents.chats[1 + 4 * number + agent]
                assert_equal(actual, expected, f"the chat of agent {agent} in round {number + 2}")

    def test_one_call_a_round(self):
        """A round is one call, the first one a single request for all agents, with the settings given.

        Where all chats are the same, ask for n samples; then ask for one sample of each chat.
        """
        for num_agents in (2, 4):
            agents = Agents([[f"[{r}{a}]" for a in range(num_agents)] for r in range(3)])
            agents.debate(num_agents, 3)
            calls = [len(call) for call in agents.engine.calls]
            assert_equal(calls, [1, num_agents, num_agents], "the number of prompts of each call")
            samples = [own.n for own in agents.engine.params]
            assert_equal(samples, [num_agents] + [1] * 2 * num_agents, "the number of samples of each prompt")
            for own in agents.engine.params:
                settings = (own.temperature, own.max_tokens, own.seed)
                assert_equal(settings, (0.6, 40, 11), "temperature, max_tokens and seed")

    def test_ends_when_all_agree(self):
        """The debate ends after the round in which all agents give the same final answer, in whatever words.

        Compare what `extract` returns, and look after each round, the first one too. A majority is not enough.
        """
        rounds = [["[a]", "[a]", "[b]"], ["I stay [a]", "me too: [a]", "well, [a]"], ["[z]", "[z]", "[z]"]]
        result = Agents(rounds).debate(3, 3)
        assert_equal([list(texts) for texts in result.rounds], rounds[:2], "the answers in each round")
        assert_equal(result.answer, "a", "the vote")
        agents = Agents(rounds[1:])
        assert_equal(len(agents.debate(3, 3).rounds), 1, "the number of rounds when the first answers agree")
        assert_equal(len(agents.engine.calls), 1, "the number of calls")

    def test_no_answer_is_no_agreement(self):
        """The debate goes on while an agent gives no final answer, although the others agree or all give none.

        None is no answer that one could agree on.
        """
        rounds = [["hm", "well", "so"], ["[a]", "[a]", "hm"], ["[a]", "[b]", "[b]"]]
        result = Agents(rounds).debate(3, 3)
        assert_equal(len(result.rounds), 3, "the number of rounds")
        assert_equal(result.answer, "b", "the vote")

    def test_no_answer_has_no_vote(self):
        """An agent without a final answer has no vote, and without any vote the answer is None.

        Leave None out before counting.
        """
        result = Agents([["hm", "well [k]", "so", "then", "[k]", "[m]"]]).debate(6, 1)
        assert_equal(result.answer, "k", "the vote")
        assert_equal(Agents([["hm", "well"]]).debate(2, 1).answer, None, "the vote")

    def test_settings(self):
        """A single agent debates alone, and no agents or no rounds raise ValueError.

        Check the numbers before the first call.
        """
        result = Agents([["hm"], ["[a]"], ["[b]"]]).debate(1, 3)
        assert_equal((len(result.rounds), result.answer), (2, "a"), "the number of rounds, and the vote")
        for numbers in ((0, 2), (3, 0), (2, -1)):
            with pytest.raises(ValueError):  # noqa: PT011 (the message is the student's own)
                Agents(THREE_ROUNDS).debate(*numbers)
