"""Ends its process while the engine could work for it."""

import os


def answer(prompts, engine):
    engine.count_tokens(prompts[0])
    os._exit(0)
