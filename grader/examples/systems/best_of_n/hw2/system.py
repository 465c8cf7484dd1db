"""Best of n with a verifier: samples whose sums are right, of these the likeliest one (Cobbe et al. 2021)."""

import re
from fractions import Fraction

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


SUM = re.compile(r"(\d+) ([-+*/]) (\d+) = (-?\d+)")
OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else None,
}


def verified(prompt, text):
    """Return the share of right calculations, and whether there is a conclusion that uses the last of them."""
    sums = SUM.findall(text)
    right = sum(OPERATIONS[sign](Fraction(a), Fraction(b)) == Fraction(c) for a, sign, b, c in sums)
    ends = not is_open(prompt) and bool(sums) and conclusion(text) == sums[-1][3]
    return (right / len(sums) if sums else 1.0, ends)


def answer(prompts, engine):
    found = sample(engine, plan(prompts, engine, max_tokens=120, most=16), temperature=0.7)
    return [
        max(
            (one.text for one in completions),
            key=lambda text: (*verified(prompt, text), likely[text]),
        )
        if completions
        else ""
        for prompt, completions in zip(prompts, found)
        for likely in [{one.text: sum(one.logprobs) / max(1, len(one.logprobs)) for one in completions}]
    ]
