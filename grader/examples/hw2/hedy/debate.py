"""Debate: several agents answer, read each other's answers, and answer again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
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
    if num_agents < 1 or num_rounds < 1:
        raise ValueError(f"expected num_agents and num_rounds of at least 1, got {num_agents} and {num_rounds}")
    opening = {"role": "user", "content": question}
    [generation] = model.generate([[opening]], msgspec.structs.replace(params, n=num_agents))
    texts = [y.text for y in generation.completions]
    chats = [[opening] for _ in texts]
    rounds = [texts]
    while len(rounds) < num_rounds and not _agree([extract(text) for text in texts]):
        chats = [
            [
                *chat,
                {"role": "assistant", "content": texts[i]},
                {"role": "user", "content": revise(texts[:i] + texts[i + 1 :])},
            ]
            for i, chat in enumerate(chats)
        ]
        texts = [g.completions[0].text for g in model.generate(chats, msgspec.structs.replace(params, n=1))]
        rounds.append(texts)
    votes = Counter(answer for text in texts if (answer := extract(text)) is not None)
    return Debate(rounds, max(votes, key=votes.__getitem__, default=None))


def _agree(answers: list[str | None]) -> bool:
    return answers[0] is not None and len(set(answers)) == 1
