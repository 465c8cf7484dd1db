"""Debate: several agents answer, read each other's answers, and answer again."""

from collections.abc import Callable
from dataclasses import dataclass

from shared_tasks.models.engine import Engine, SamplingParams


@dataclass(frozen=True)
class Debate:
    """What the agents said, and what came of it."""

    rounds: list[list[str]]
    """The answer of each agent in each round that was held."""
    answer: str | None
    """The vote of the last round."""


def debate(
    model: Engine,
    question: str,
    revise: Callable[[list[str]], str],
    extract: Callable[[str], str | None],
    *,
    num_agents: int,
    num_rounds: int,
    params: SamplingParams,
) -> Debate:
    """Let `num_agents` agents debate a question for at most `num_rounds` rounds, then vote.

    Each agent has a chat of its own with the model, which begins with the question as the user's message. In the first
    round all chats are the same: one request with n = `num_agents` answers it for all agents, in order. Before each
    later round every agent's chat gets its own last answer as the assistant's message, and as the user's message
    `revise(others)`, where `others` are the answers of all other agents in the round before, in the order of the
    agents; then one `model.generate` call continues all chats, one prompt and one sample per agent.

    `extract` takes the final answer out of an agent's text, or returns None where there is none. The debate ends early,
    after a round in which all agents gave the same final answer. The vote is the most frequent final answer of the last
    round, None never counted; of equally frequent ones that of the earliest agent; None when no agent gave one. Raises
    ValueError unless num_agents >= 1 and num_rounds >= 1.

    Paper: Du et al., 2023, https://arxiv.org/abs/2305.14325.
    """
    raise NotImplementedError
