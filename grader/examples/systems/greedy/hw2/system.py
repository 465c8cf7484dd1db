"""Greedy: the system that students start from, for prompts of all three tasks.

This one gives the model's most likely answer and leaves the rest of its budget unused. Make it better.
"""

from shared_tasks.models.engine import Prompt, SamplingParams
from shared_tasks.models.metered import MeteredEngine

MAX_TOKENS = 128


def answer(prompts: list[str], engine: MeteredEngine) -> list[str]:
    """Return an answer to each prompt, in the order of the prompts.

    The prompts are mixed: word problems, questions with options, and texts to write. Nothing says which is which but
    their words. Every call has a budget for all of its prompts together: `engine.remaining` tokens are left of it, and
    `engine.count_tokens(prompt)` costs nothing. A request that could cost more than is left raises TokenBudgetExceeded.
    """
    chats: list[Prompt] = [[{"role": "user", "content": prompt}] for prompt in prompts]
    fair = (engine.remaining or 0) // len(prompts)
    rooms = [min(MAX_TOKENS, fair - engine.count_tokens(chat)) for chat in chats]
    asked = [i for i, room in enumerate(rooms) if room > 0]
    params = [SamplingParams(temperature=0.0, max_tokens=rooms[i]) for i in asked]
    answers = [""] * len(prompts)
    for i, generation in zip(asked, engine.generate([chats[i] for i in asked], params), strict=True):
        answers[i] = generation.completions[0].text
    return answers
