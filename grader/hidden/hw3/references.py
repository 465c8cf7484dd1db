"""What real models do, for the hidden tests of homework 3 that compare with it.

Here the submission's own code is in the middle of the model, so the course's transformer runs while it is graded, and
what it computes is compared with what an engine said, which computes it another way.
"""

from typing import Any

import torch

from grader.assignment import UnusableInput
from grader.goldens.near_ties import ends_right, takes_best
from grader.goldens.prepare import Reference, Subject
from grader.reference.hw3 import kv_cache
from hw3.transformer import Transformer, load_transformer
from shared_tasks.models.engine import SamplingParams


def decoded(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Continue a text greedily.

    Decoding with a cache must do the same, up to near-ties. Raises UnusableInput when it does not.
    """
    params = SamplingParams(temperature=0.0, max_tokens=given["max_tokens"])
    (generation,) = subject.engine.generate([given["text"]], params)
    prompt, tokens = subject.tokens(given["text"]), generation.completions[0].token_ids
    model = _transformer(subject.name)
    result = {"model": subject.name, "prompt": prompt, "tokens": tokens, "tolerance": subject.tolerance}
    result |= {"max_tokens": given["max_tokens"], "eos_token_id": subject.model.eos_token_id}
    cached = kv_cache.generate(
        model, cache_of(model, 1), [prompt], max_tokens=given["max_tokens"], eos_token_id=result["eos_token_id"]
    )
    for continuation in (tokens, *cached):
        logits = model(torch.tensor([prompt + continuation]))[0, len(prompt) - 1 : -1]
        whole = ends_right(continuation, given["max_tokens"], result["eos_token_id"])
        if not whole or not takes_best(logits, continuation, subject.tolerance):
            raise UnusableInput(
                f"{subject.engine.name} and the course's transformer decode {given['text']!r} in different ways"
            )
    return result


def token_logprobs(subject: Subject, given: dict[str, Any]) -> dict[str, Any]:
    """Score the tokens of a long text."""
    begin, rest = given["text"][: given["begin"]], given["text"][given["begin"] :]
    (told,) = subject.engine.loglikelihood([begin], [rest])
    tokens = subject.tokens(given["text"])
    result = {"model": subject.name, "tokens": tokens, "logprobs": told.logprobs, "tolerance": subject.tolerance}
    logprobs = _transformer(subject.name)(torch.tensor([tokens]))[0, :-1].log_softmax(-1)
    actual = logprobs[range(len(tokens) - 1), tokens[1:]][-len(told.logprobs) :]
    off = (actual - torch.tensor(told.logprobs)).abs().max()
    if off > subject.tolerance:
        raise UnusableInput(
            f"{subject.engine.name} and the course's transformer differ by {float(off):.4f} nats for a token; right is "
            f"at most {subject.tolerance:g}"
        )
    return result


def cache_of(model: Transformer, rows: int) -> kv_cache.ContiguousCache:
    """Return a right cache for a model, with rows as long as the model's window."""
    config = model.config
    return kv_cache.ContiguousCache(
        config.num_hidden_layers, rows, config.max_position_embeddings, config.num_key_value_heads, config.head_dim
    )


def _transformer(name: str) -> Transformer:
    try:
        return load_transformer(name)
    except ValueError as error:
        raise UnusableInput(f"homework 3 needs a Qwen3 model in a folder: {error}") from error


STORY = (
    "The wind was cold that day. There was a contest in the garden. Hugo wanted to win with his brown key. Nobody knew "
    "where it came from. One day a frog came to the school and asked for the silver map. "
)
REFERENCES = [
    Reference(
        decoded,
        [
            {"text": text, "max_tokens": 32}
            for text in ("Once", "The wind was cold that day.", "Ann has 3 apples and buys 14 more. How many has she?")
        ],
    ),
    Reference(token_logprobs, [{"text": (STORY * 4).strip(), "begin": len("The wind was cold")}]),
]
