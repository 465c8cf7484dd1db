"""A second correct solution of hw2.debate: every chat is written anew from the rounds so far."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from shared_tasks.models.engine import Engine, Message, SamplingParams


@dataclass(frozen=True)
class Debate:
    """What the agents said, and what came of it."""

    rounds: list[list[str]]
    answer: str | None


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
    """Hold one round after another; count votes by hand."""
    if min(num_agents, num_rounds) < 1:
        raise ValueError("num_agents and num_rounds must be at least 1")
    one = msgspec.structs.replace(params, n=1)
    rounds: list[list[str]] = []
    messages: dict[tuple[int, int], str] = {}  # (round, agent): what the user says before that agent's answer

    def chat(agent: int) -> list[Message]:
        turns: list[Message] = [{"role": "user", "content": question}]
        for number, texts in enumerate(rounds, start=1):
            turns.append({"role": "assistant", "content": texts[agent]})
            if (number, agent) not in messages:
                others = [text for other, text in enumerate(texts) if other != agent]
                messages[number, agent] = revise(others)
            turns.append({"role": "user", "content": messages[number, agent]})
        return turns

    for number in range(num_rounds):
        if number == 0:
            many = msgspec.structs.replace(params, n=num_agents)
            texts = [completion.text for completion in model.generate([chat(0)], [many])[0].completions]
        else:
            prompts = [chat(agent) for agent in range(num_agents)]
            texts = [result.completions[0].text for result in model.generate(prompts, [one] * num_agents)]
        rounds.append(texts)
        answers = [extract(text) for text in texts]
        if answers[0] is not None and all(answer == answers[0] for answer in answers):
            break
    given = [answer for answer in answers if answer is not None]
    best = None
    for answer in given:
        if best is None or given.count(answer) > given.count(best):
            best = answer
    return Debate(rounds, best)
