"""Answers half of the prompts."""

from shared_tasks.models.engine import SamplingParams


def answer(prompts, engine):
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts[: len(prompts) // 2]]
    found = engine.generate(chats, SamplingParams(temperature=0.0, max_tokens=64))
    return [generation.completions[0].text for generation in found]
