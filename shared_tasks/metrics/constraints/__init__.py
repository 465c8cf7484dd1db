"""IFEval: instructions whose following can be checked by a program. Nothing is downloaded.

Paper: Zhou et al., 2023, https://arxiv.org/abs/2311.07911.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from shared_tasks.metrics.constraints.checkers import CHECKERS
from shared_tasks.metrics.constraints.language import languages


def instruction_arguments(instruction_id: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that an instruction's checker takes, without the nulls that the hub's file pads them with.

    Raises ValueError, saying what was expected, for an instruction that IFEval does not have, an argument that is
    missing, of the wrong type or unknown, and a language that cannot be detected.
    """
    given = {name: value for name, value in kwargs.items() if value is not None}
    try:
        arguments = msgspec.to_builtins(msgspec.convert(given, _arguments_of(instruction_id), strict=False))
    except msgspec.ValidationError as error:
        raise ValueError(f"instruction {instruction_id} with arguments {given}: {error}") from None
    if arguments.get("language", "en") not in languages():
        known = ", ".join(sorted(languages()))
        raise ValueError(f"instruction {instruction_id}: expected one of {known}, got {arguments['language']!r}")
    return dict(arguments)


def follows_instructions(
    response: str, instruction_id_list: Sequence[str], kwargs: Sequence[Mapping[str, Any]], loose: bool = False
) -> list[bool]:
    """Return for each instruction of a prompt whether the response follows it.

    Strict looks at the response as it is. Loose is content with any of eight variants: with or without the first line,
    with or without the last, with or without asterisks, so that "Sure, here it is:" or bold type does no harm. An empty
    response, or an empty variant, follows nothing.

    Raises ValueError as `instruction_arguments` does, and unless every instruction has its arguments.
    """
    if len(instruction_id_list) != len(kwargs):
        raise ValueError(f"expected arguments for each of {len(instruction_id_list)} instructions, got {len(kwargs)}")
    checks = [
        (instruction_arguments(name, given), CHECKERS[name])
        for name, given in zip(instruction_id_list, kwargs, strict=True)
    ]
    variants = [variant for variant in (_variants(response) if loose else [response]) if variant.strip()]
    return [any(check(variant, **arguments) for variant in variants) for arguments, check in checks]


def instruction_accuracies(strict: Sequence[Sequence[bool]], loose: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Return the four accuracies of IFEval from what `follows_instructions` says of each prompt.

    Prompt level counts the prompts whose instructions are all followed, instruction level the instructions. The names
    are those of lm-evaluation-harness. Raises ValueError unless there are strict and loose verdicts on the same
    prompts, at least one, each with at least one instruction.
    """
    if list(map(len, strict)) != list(map(len, loose)) or not all(map(len, strict)) or not len(strict):
        raise ValueError("expected strict and loose verdicts of the same prompts, each with at least one instruction")
    accuracies = {}
    for name, verdicts in (("strict", strict), ("loose", loose)):
        followed = [verdict for prompt in verdicts for verdict in prompt]
        accuracies[f"prompt_level_{name}_acc"] = sum(map(all, verdicts)) / len(verdicts)
        accuracies[f"inst_level_{name}_acc"] = sum(followed) / len(followed)
    return accuracies


def _variants(response: str) -> list[str]:
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return cut + [variant.replace("*", "") for variant in cut]


@functools.cache
def _arguments_of(instruction_id: str) -> type[msgspec.Struct]:
    """Return the checker's parameters after the response as a type that arguments can be validated against."""
    if instruction_id not in CHECKERS:
        known = ", ".join(sorted(CHECKERS))
        raise ValueError(f"expected an instruction of IFEval, got {instruction_id!r}; there are: {known}")
    parameters = list(inspect.signature(CHECKERS[instruction_id]).parameters.values())[1:]
    fields = [(parameter.name, parameter.annotation) for parameter in parameters]
    return msgspec.defstruct("Arguments", fields, forbid_unknown_fields=True)
