"""Minimum Bayes risk: the sample that the others have most words and pairs of words in common with."""

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


def grams(text):
    words = text.lower().split()
    return Counter(words) + Counter(zip(words, words[1:]))


def overlap(a, b):
    """Return F1 of the words and pairs of words that two texts share."""
    total = sum(a.values()) + sum(b.values())
    return 2 * sum((a & b).values()) / total if total else 1.0


def choose(prompt, completions):
    if not completions:
        return ""
    counted = [grams(one.text if is_open(prompt) else conclusion(one.text)) for one in completions]
    risks = [sum(overlap(own, other) for other in counted) for own in counted]
    return completions[risks.index(max(risks))].text


def answer(prompts, engine):
    found = sample(engine, plan(prompts, engine, max_tokens=120, most=16), temperature=0.7)
    return [choose(prompt, completions) for prompt, completions in zip(prompts, found)]
