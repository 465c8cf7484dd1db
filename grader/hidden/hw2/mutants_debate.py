"""Plausible wrong solutions of hw2.debate: each must fail a hidden test.

A mutant is called NAME__the_bug and stands in for NAME of the reference module.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from grader.reference.hw2 import debate as reference
from grader.reference.hw2.debate import Debate
from shared_tasks.models.engine import Engine, SamplingParams


def _majority(finals: Sequence[str | None]) -> str | None:
    votes = Counter(final for final in finals if final is not None)
    return votes.most_common(1)[0][0] if votes else None


def _agreed(finals: Sequence[str | None]) -> bool:
    return None not in finals and len(set(finals)) == 1


def _held(
    model: Engine,
    question: str,
    revise: Callable[[list[str]], str],
    extract: Callable[[str], str | None],
    num_agents: int,
    num_rounds: int,
    params: SamplingParams,
    *,
    shown: Callable[[list[str], int], list[str]] = lambda texts, agent: texts[:agent] + texts[agent + 1 :],
    vote: Callable[[Sequence[Any]], str | None] = _majority,
    agreed: Callable[[Sequence[Any]], bool] = _agreed,
    voters: Callable[[list[list[str]]], list[str]] = lambda rounds: rounds[-1],
    remembers: bool = True,
    own_answer: bool = True,
    shared: bool = False,
    prompt_once: bool = True,
    batched: bool = True,
    in_turn: bool = False,
) -> Debate:
    """Debate as the reference does, but for the parts given."""
    if num_agents < 1 or num_rounds < 1:
        raise ValueError((num_agents, num_rounds))
    start = {"role": "user", "content": question}
    chats: list[Any] = [[start]] * num_agents if shared else [[start] for _ in range(num_agents)]
    if prompt_once:
        texts = [c.text for c in model.generate([[start]], replace(params, n=num_agents))[0].completions]  # type: ignore[list-item]
    else:
        texts = [g.completions[0].text for g in model.generate([[start]] * num_agents, replace(params, n=1))]  # type: ignore[list-item]
    rounds = [texts]
    while len(rounds) < num_rounds and not agreed([extract(text) for text in rounds[-1]]):
        seen = list(rounds[-1])
        said: list[str] = []
        for agent, chat in enumerate(chats):
            mine = [{"role": "assistant", "content": rounds[-1][agent]}] if own_answer else []
            turn = [*mine, {"role": "user", "content": revise(shown(seen, agent))}]
            if remembers:
                chat += turn
            else:
                chat[1:] = turn
            if in_turn:
                seen[agent] = model.generate([chat], replace(params, n=1))[0].completions[0].text
                said.append(seen[agent])
        if batched and not in_turn:
            said = [g.completions[0].text for g in model.generate(chats, replace(params, n=1))]
        elif not in_turn:
            said = [model.generate([chat], replace(params, n=1))[0].completions[0].text for chat in chats]
        rounds.append(said)
    return Debate(rounds, vote([extract(text) for text in voters(rounds)]))


def debate__agents_see_themselves(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Shows every agent all answers, its own among them."""
    shown = lambda texts, agent: list(texts)  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, shown=shown)


def debate__agents_see_only_themselves(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Shows every agent its own answer as that of the others."""
    shown = lambda texts, agent: [texts[agent]]  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, shown=shown)


def debate__agents_see_one_other(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Shows every agent the answer of its neighbour."""
    shown = lambda texts, agent: [texts[(agent + 1) % len(texts)]]  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, shown=shown)


def debate__equal_answers_are_left_out(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Tells the others by their texts, and so leaves out those that say the same."""
    shown = lambda texts, agent: [text for text in texts if text != texts[agent]]  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, shown=shown)


def debate__others_from_the_next_on(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Begins the others' answers with the agent after this one."""
    shown = lambda texts, agent: texts[agent + 1 :] + texts[:agent]  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, shown=shown)


def debate__agents_speak_in_turn(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Shows later agents what earlier ones say in the same round."""
    return _held(model, question, revise, extract, num_agents, num_rounds, params, in_turn=True)


def debate__forgets_earlier_rounds(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Begins every chat anew with the last answers."""
    return _held(model, question, revise, extract, num_agents, num_rounds, params, remembers=False)


def debate__own_answer_is_missing(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Does not tell an agent what it has said itself."""
    return _held(model, question, revise, extract, num_agents, num_rounds, params, own_answer=False)


def debate__one_chat_for_all(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Multiplies a list, so that all agents write into one chat."""
    return _held(model, question, revise, extract, num_agents, num_rounds, params, shared=True)


def debate__pays_the_question_for_each_agent(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Sends the question as often as there are agents."""
    return _held(model, question, revise, extract, num_agents, num_rounds, params, prompt_once=False)


def debate__one_call_for_each_agent(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Continues the chats one after another."""
    return _held(model, question, revise, extract, num_agents, num_rounds, params, batched=False)


def debate__never_ends_early(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Goes on when all agree."""
    return _held(model, question, revise, extract, num_agents, num_rounds, params, agreed=lambda finals: False)


def debate__agreement_on_nothing(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Ends when no agent gives an answer."""
    agreed = lambda finals: len(set(finals)) == 1  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, agreed=agreed)


def debate__agreement_of_those_who_answer(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Ends when all who give an answer give the same one."""
    agreed = lambda finals: len(set(finals) - {None}) == 1  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, agreed=agreed)


def debate__ends_with_a_majority(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Ends when more than half agree."""
    agreed = lambda finals: finals.count(_majority(finals)) > len(finals) / 2 and _majority(finals)  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, agreed=agreed)


def debate__compares_whole_texts(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Looks for agreement and votes on what was said, word for word."""
    last = _held(model, question, revise, lambda text: text if extract(text) else None, num_agents, num_rounds, params)
    return Debate(last.rounds, extract(last.answer) if last.answer else None)


def debate__no_answer_votes(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Lets agents without an answer win the vote."""
    vote = lambda finals: Counter(finals).most_common(1)[0][0]  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, vote=vote)


def debate__first_agent_decides(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Takes the answer of the first agent that gives one."""
    vote = lambda finals: next((final for final in finals if final is not None), None)  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, vote=vote)


def debate__votes_of_all_rounds(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Counts the answers of earlier rounds too."""
    voters = lambda rounds: [text for texts in rounds for text in texts]  # noqa: E731
    return _held(model, question, revise, extract, num_agents, num_rounds, params, voters=voters)


def debate__votes_of_the_first_round(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Votes before the debate."""
    return _held(model, question, revise, extract, num_agents, num_rounds, params, voters=lambda rounds: rounds[0])


def debate__a_round_too_many(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Counts the first round as none."""
    if num_rounds < 1:
        raise ValueError(num_rounds)
    return _held(model, question, revise, extract, num_agents, num_rounds + 1, params)


def debate__own_params(
    model: Any, question: Any, revise: Any, extract: Any, *, num_agents: int, num_rounds: int, params: Any
) -> Debate:
    """Samples with the defaults."""
    own = SamplingParams()
    return reference.debate(model, question, revise, extract, num_agents=num_agents, num_rounds=num_rounds, params=own)
