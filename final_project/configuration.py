"""serve.toml: the systems that a submission enters, each a model on an engine with its resources."""

import importlib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec

from final_project.interface import Engine

MAX_SYSTEMS = 3


class System(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the load test."""

    name: str
    model: str
    """A course model, or a folder beside serve.toml with config.json, safetensors and tokenizer."""
    engine: str = "final_project.engine:Engine"
    """MODULE:CLASS, made as CLASS(model, **options)."""
    options: dict[str, Any] = {}
    max_sequences: Annotated[int, msgspec.Meta(ge=1)] = 512
    """Running and waiting at a time; more are refused with 429."""
    threads: Annotated[int, msgspec.Meta(ge=1)] = 2
    """Of PyTorch."""
    memory_bytes: Annotated[int, msgspec.Meta(ge=1)] = 4 << 30
    """What the judge grants, up to a limit of its own."""

    def load_engine(self) -> Engine:
        """Make the engine. Raises ValueError when there is no such class."""
        module, _, name = self.engine.partition(":")
        try:
            make = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"engine: expected MODULE:CLASS, got {self.engine!r} ({error})") from error
        engine: Engine = make(self.model, **self.options)
        return engine


class Configuration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of serve.toml."""

    systems: list[System]

    def system(self, name: str | None) -> System:
        """Return a system by name, the first one by default. Raises ValueError when there is none of that name."""
        for system in self.systems:
            if name in (None, system.name):
                return system
        raise ValueError(f"expected a system of {', '.join(s.name for s in self.systems)}, got {name!r}")


def read_configuration(file: Path) -> Configuration:
    """Read a serve.toml; folders of models are taken relative to it.

    Raises ValueError, saying what was expected, when the file is wrong.
    """
    try:
        configuration = msgspec.convert(tomllib.loads(file.read_text()), Configuration)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(f"{file}: {error}") from error
    names = [system.name for system in configuration.systems]
    if not 1 <= len(names) <= MAX_SYSTEMS or len(set(names)) < len(names):
        raise ValueError(f"{file}: expected 1 to {MAX_SYSTEMS} systems with names of their own, got {names}")
    return Configuration([_with_folder(system, file.resolve().parent) for system in configuration.systems])


def _with_folder(system: System, beside: Path) -> System:
    folder = beside / system.model
    return msgspec.structs.replace(system, model=str(folder)) if folder.is_dir() else system
