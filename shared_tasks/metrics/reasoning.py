"""Reasoning between tags, which is not part of the answer."""

import re

_BLOCK = re.compile(r"<think>.*?</think>", re.DOTALL)


def strip_reasoning(text: str) -> str:
    """Return the response without its `<think>…</think>` blocks.

    A template may end in `<think>`, so a closing tag without an opening one ends reasoning that began in the prompt. Of
    a block that never closes nothing is an answer, whatever stands before it: the result is empty.

    Convention: DeepSeek-R1, https://arxiv.org/abs/2501.12948, and Qwen3, https://arxiv.org/abs/2505.09388.
    """
    answer = _BLOCK.sub("", text).rpartition("</think>")[2]
    return "" if "<think>" in answer else answer.strip()
