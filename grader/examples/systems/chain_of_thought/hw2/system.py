"""Chain of thought: the model reasons before it answers, once and greedily (Wei et al. 2022)."""

from shared_tasks.models.engine import SamplingParams

STEPS = {
    "Give only the answer, after ####.": "Reason step by step, then give the answer after ####.",
    "Answer with the text of the right option.": "Reason step by step, then give the text of the right option.",
}


def with_steps(prompt):
    """Ask for reasoning where an answer alone was asked for."""
    for short, long in STEPS.items():
        if prompt.endswith(short):
            return prompt.removesuffix(short) + long
    return prompt


def plan(prompts, engine, max_tokens, most):
    """Return for each prompt its chat, and how many samples of so many tokens it can pay with an even share."""
    share = engine.remaining // len(prompts)
    chats = [[{"role": "user", "content": with_steps(prompt)}] for prompt in prompts]
    rooms = [max(0, share - engine.count_tokens(chat)) for chat in chats]
    counts = [max(1, min(most, room // max_tokens)) for room in rooms]
    return [(chat, count, min(max_tokens, room)) for chat, count, room in zip(chats, counts, rooms)]


def sample(engine, plans, temperature):
    """Return the completions of each prompt; none where the share does not pay a token."""
    asked = [i for i, (_, _, length) in enumerate(plans) if length > 0]
    params = [
        SamplingParams(n=plans[i][1], temperature=temperature, max_tokens=plans[i][2], seed=1000 * i) for i in asked
    ]
    found = [[] for _ in plans]
    for i, generation in zip(asked, engine.generate([plans[i][0] for i in asked], params)):
        found[i] = generation.completions
    return found


def answer(prompts, engine):
    found = sample(engine, plan(prompts, engine, max_tokens=160, most=1), temperature=0.0)
    return [completions[0].text if completions else "" for completions in found]
