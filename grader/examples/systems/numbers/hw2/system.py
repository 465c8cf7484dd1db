"""Returns numbers in place of texts."""


def answer(prompts, engine):
    return list(range(len(prompts)))
