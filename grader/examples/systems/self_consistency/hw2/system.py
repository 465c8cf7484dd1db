"""Self-consistency: the conclusion that most samples come to (Wang et al. 2023)."""

from collections import Counter

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


def conclusion(text):
    """Return what a text concludes: what is after the last ####, or else its last sentence."""
    if "####" in text:
        return text.rsplit("####", 1)[1].strip().replace(",", "")
    return text.strip().rstrip(".").rsplit(". ", 1)[-1].lower()


def is_open(prompt):
    """Tell a text to write from a question with one answer."""
    return with_steps(prompt) == prompt


def vote(prompt, completions):
    if not completions:
        return ""
    if is_open(prompt):  # texts do not vote: the likeliest one
        return max(completions, key=lambda one: sum(one.logprobs) / max(1, len(one.logprobs))).text
    votes = Counter(conclusion(one.text) for one in completions)
    winner = votes.most_common(1)[0][0]
    return next(one.text for one in completions if conclusion(one.text) == winner)


def answer(prompts, engine):
    found = sample(engine, plan(prompts, engine, max_tokens=120, most=16), temperature=0.7)
    return [vote(prompt, completions) for prompt, completions in zip(prompts, found)]
