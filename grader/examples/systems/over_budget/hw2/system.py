"""Asks for more than there is, and does not catch what comes of it."""

from shared_tasks.models.engine import SamplingParams


def answer(prompts, engine):
    params = SamplingParams(n=8, max_tokens=engine.remaining)
    return [generation.completions[0].text for generation in engine.generate(prompts, params)]
