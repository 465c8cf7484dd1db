"""Debate: several agents answer, read each other's answers, and answer again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from shared_tasks.models.engine import Engine, Message, SamplingParams


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
    if num_agents < 1 or num_rounds < 1:
        raise ValueError(f"expected num_agents >= 1 and num_rounds >= 1, got {num_agents} and {num_rounds}")
    chats = [[Message(role="user", content=question)] for _ in range(num_agents)]
    (first,) = model.generate(chats[:1], replace(params, n=num_agents))
    rounds = [[sample.text for sample in first.completions]]
    finals = [extract(text) for text in rounds[-1]]
    while len(rounds) < num_rounds and (None in finals or len(set(finals)) > 1):
        texts = rounds[-1]
        for agent, chat in enumerate(chats):
            chat.append(Message(role="assistant", content=texts[agent]))
            chat.append(Message(role="user", content=revise(texts[:agent] + texts[agent + 1 :])))
        rounds.append([generation.completions[0].text for generation in model.generate(chats, replace(params, n=1))])
        finals = [extract(text) for text in rounds[-1]]
    votes = Counter(final for final in finals if final is not None)
    return Debate(rounds, votes.most_common(1)[0][0] if votes else None)
