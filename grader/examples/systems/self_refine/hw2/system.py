"""Self-refine: a draft, a critique of it, another attempt; the likelier of the two is kept (Madaan et al. 2023)."""

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


def said(role, content):
    return {"role": role, "content": content}


DRAFT, CRITIQUE, SECOND = 160, 60, 120  # tokens


def affordable(engine, chats, drafts):
    """Return the prompts, from the first one on, whose drafts what is left can refine at its greatest cost."""
    purse, found = engine.remaining, []
    for i, (chat, draft) in enumerate(zip(chats, drafts)):
        asked = engine.count_tokens([*chat, said("assistant", draft), CHECK])
        scored = 2 * (engine.count_tokens(chat) + DRAFT)
        purse -= asked + CRITIQUE + asked + CRITIQUE + engine.count_tokens(chat) + SECOND + scored
        if purse < 0:
            break
        if draft.strip():
            found.append(i)
    return found


CHECK = said("user", "Is anything wrong? Check each step.")


def answer(prompts, engine):
    plans = plan(prompts, engine, max_tokens=DRAFT, most=1)
    chats = [chat for chat, _, _ in plans]
    answers = [completions[0].text if completions else "" for completions in sample(engine, plans, temperature=0.0)]
    refined = affordable(engine, chats, answers)
    longer = [[*chats[i], said("assistant", answers[i]), CHECK] for i in refined]
    critiques = engine.generate(longer, SamplingParams(temperature=0.0, max_tokens=CRITIQUE))
    for i, talk, critique in zip(refined, longer, critiques):
        talk += [said("assistant", critique.completions[0].text), chats[i][-1]]
    attempts = engine.generate(longer, SamplingParams(temperature=0.0, max_tokens=SECOND))
    seconds = {i: attempt.completions[0].text for i, attempt in zip(refined, attempts)}
    changed = [i for i, text in seconds.items() if text.strip() and text != answers[i]]
    old = engine.loglikelihood([chats[i] for i in changed], [answers[i] for i in changed])
    new = engine.loglikelihood([chats[i] for i in changed], [seconds[i] for i in changed])
    for i, before, after in zip(changed, old, new):
        if after.total / len(after.logprobs) > before.total / len(before.logprobs):
            answers[i] = seconds[i]
    return answers
