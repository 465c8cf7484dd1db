"""Raises when it meets a text to write."""


def answer(prompts, engine):
    raise KeyError("no idea")
