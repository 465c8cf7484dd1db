"""Submitted modules as the judge sees them: the names are the stub's, the code runs in the sandbox."""

import builtins
import dataclasses
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec

from grader.results import Outcome, TracebackLine
from grader.sandbox.peer import Peer
from grader.sandbox.wire import WireError, from_wire, record_fields, to_wire
from shared_tasks.models.engine import Completion, Engine, Generation, LogLikelihood, SamplingParams
from shared_tasks.models.language_model import LanguageModel
from shared_tasks.models.metered import MeteredEngine, TokenBudgetExceeded
from shared_tasks.models.randomness import Randomness

# What a submission may do with an object that a test lends it: the methods to call, with "get" before the name of an
# attribute to read, and the constants it gets a copy of.
ON_LOAN: list[tuple[Any, list[str], list[str]]] = [
    (LanguageModel, ["next_token_logprobs", "continuation_logprobs"], ["vocab_size", "eos_token_id"]),
    (Randomness, ["categorical", "bernoulli", "gumbel", "uniform"], []),
    (MeteredEngine, ["generate", "loglikelihood", "count_tokens", "get remaining"], ["name", "has_chat_template"]),
    (Engine, ["generate", "loglikelihood"], ["name", "has_chat_template"]),
]
SHARED_RECORDS = (SamplingParams, Completion, Generation, LogLikelihood)  # cross by value, beside the stubs' own

SHARED_ERRORS = (TokenBudgetExceeded,)  # of the kit, beside Python's own; a submission may catch them


class NoAnswer(Exception):
    """The submission gave no answer that could be read; says how that ended and why."""

    def __init__(self, outcome: Outcome, reason: str):
        super().__init__(reason)
        self.outcome = outcome


class SubmissionError(Exception):
    """An exception of the submission that is none of Python's own."""


@dataclasses.dataclass
class Raised:
    """What the worker told of an exception; hangs on the exception raised in the judge, as its `raised` attribute."""

    name: str
    message: str
    traceback: list[TracebackLine]


@dataclasses.dataclass
class ClassInterface:
    """What the judge uses of a class of the stub."""

    kind: type
    methods: list[str]
    attributes: list[str]


def public_names(stub: ModuleType) -> dict[str, Any]:
    """Return the functions and classes that a stub module defines itself."""
    return {
        name: value
        for name, value in vars(stub).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == stub.__name__
        if inspect.isfunction(value) or inspect.isclass(value)
    }


def class_interfaces(stubs: list[ModuleType]) -> dict[str, ClassInterface]:
    """Return the classes of the stubs by path ("hw1.sampling:Mirostat"), and the records that all assignments share."""
    records = {f"{kind.__module__}:{kind.__name__}": ClassInterface(kind, [], []) for kind in SHARED_RECORDS}
    return records | {
        f"{stub.__name__}:{name}": ClassInterface(
            value,
            [method for method, function in inspect.getmembers(value, inspect.isfunction) if method[0] != "_"],
            [attribute for attribute in inspect.get_annotations(value) if attribute[0] != "_"],
        )
        for stub in stubs
        for name, value in public_names(stub).items()
        if inspect.isclass(value)
    }


Caller = Callable[[int, str, tuple[Any, ...], dict[str, Any]], Any]


class RemoteFunction:
    """A function of the submission, or one of its classes."""

    def __init__(self, path: str, call: Caller):
        self.path = path
        self._call = call

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it in the sandbox."""
        return self._call(0, self.path, arguments, keywords)


class RemoteObject:
    """An object that lives in the submission's process."""

    def __init__(self, side: "JudgeSide", number: int, methods: list[str], attributes: list[str]):
        self._side = side
        self._number = number
        self._methods = methods
        self._attributes = attributes

    def __getattr__(self, name: str) -> Any:
        if name in self._attributes:
            return self._side.call(self._number, f"get {name}", (), {})
        if name in self._methods:
            return lambda *arguments, **keywords: self._side.call(self._number, name, arguments, keywords)
        raise AttributeError(f"the judge uses no {name!r} of this object of the submission")

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call it in the sandbox."""
        return self._side.call(self._number, "__call__", arguments, keywords)


def remote_module(stub: ModuleType, call: Caller) -> ModuleType:
    """Return a module with the stub's names, whose functions and classes run in the sandbox.

    Records are the stub's own: they cross by value.
    """
    module = ModuleType(stub.__name__, stub.__doc__)
    for name, value in public_names(stub).items():
        record = inspect.isclass(value) and record_fields(value) is not None
        remote = value if record else RemoteFunction(f"{stub.__name__}:{name}", call)
        setattr(module, name, remote)
    return module


class JudgeSide:
    """The judge's end of the conversation: nothing is on offer but what a test has lent."""

    peer: Peer
    answers: type[BaseException] = Exception  # an interrupt of the judge is no answer

    def __init__(self, classes: dict[str, ClassInterface], call: Caller):
        self.call = call
        self._classes = classes
        self._lent: dict[int, tuple[Any, list[str]]] = {}

    def find(self, target: int, method: str) -> Callable[..., Any]:
        """Return a method on loan."""
        value, methods = self._lent.get(target, (None, []))
        if method not in methods:
            raise WireError(f"a call of {method!r}, which is not on offer")
        if method.startswith("get "):
            return lambda: getattr(value, method.removeprefix("get "))
        return getattr(value, method)  # type: ignore[no-any-return]

    def export(self, value: Any) -> dict[str, Any]:
        """Lend models, sources of randomness, engines and callables; send records by value."""
        if isinstance(value, RemoteObject):
            return {"yours": value._number}
        if isinstance(value, RemoteFunction):
            return {"function": value.path}
        path = f"{type(value).__module__}:{type(value).__qualname__}"
        if path in self._classes:
            names = record_fields(type(value)) or ()
            return {"record": [path, {name: to_wire(getattr(value, name), self, 1) for name in names}]}
        for interface, methods, constants in ON_LOAN:
            if isinstance(value, interface):
                return self._lend(value, methods, {name: getattr(value, name) for name in constants})
        if callable(value):
            return self._lend(value, ["__call__"], {})
        raise WireError(f"an object of type {type(value).__name__}")

    def _lend(self, value: Any, methods: list[str], constants: dict[str, Any]) -> dict[str, Any]:
        self._lent[id(value)] = (value, methods)
        return {"object": [id(value), methods, constants]}

    def resolve(self, kind: str, body: Any) -> Any:
        """Return one of our own objects, a stand-in for one of the submission's, or a record."""
        if kind == "yours":
            if type(body) is int and body in self._lent:
                return self._lent[body][0]
            raise WireError("an object that was never lent")
        if type(body) is not list or len(body) != 2:
            raise WireError("a malformed value")
        if kind == "record" and type(body[0]) is str and type(body[1]) is dict:
            return self._record(body[0], body[1])
        if kind == "object" and type(body[0]) is int and (body[1] == "" or body[1] in self._classes):
            interface = self._classes.get(body[1])
            if interface is None:
                return RemoteObject(self, body[0], [], [])
            return RemoteObject(self, body[0], interface.methods, interface.attributes)
        raise WireError("a malformed value")

    def _record(self, path: str, fields: dict[str, Any]) -> Any:
        interface = self._classes.get(path)
        names = record_fields(interface.kind) if interface else None
        if interface is None or names is None or set(fields) != set(names):
            raise WireError(f"a {path.split(':')[-1]} with other fields than the kit's")
        values = {name: from_wire(node, self, 1) for name, node in fields.items()}
        if dataclasses.is_dataclass(interface.kind):
            return interface.kind(**values)
        try:
            return msgspec.convert(values, interface.kind)
        except msgspec.ValidationError as error:
            raise WireError(f"a {interface.kind.__name__} whose {error}") from error

    def describe(self, error: BaseException) -> list[Any]:
        """Tell the submission type and message of what its call of a lent object raised."""
        kind = type(error)
        return [f"{kind.__module__}:{kind.__name__}" if kind in SHARED_ERRORS else kind.__name__, str(error)]

    def rebuild(self, described: list[Any]) -> Exception:
        """Return the exception to raise in the test for one of the submission."""
        try:
            name, message, lines = described
            traceback = [
                TracebackLine(str(file), int(line), str(function), str(source))
                for file, line, function, source in lines
            ]
        except (TypeError, ValueError) as error:
            raise WireError("a malformed exception") from error
        if name == "!":
            return NoAnswer(Outcome.PROTOCOL, str(message))
        kind: Any = getattr(builtins, str(name), None)
        ordinary = isinstance(kind, type) and issubclass(kind, Exception)
        try:
            raised: Any = (kind if ordinary else SubmissionError)(message)
        except TypeError:  # UnicodeDecodeError and the like want more arguments
            raised = SubmissionError(message)
        raised.raised = Raised(str(name), str(message), traceback)
        return raised  # type: ignore[no-any-return]
