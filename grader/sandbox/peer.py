"""Calls in both directions over one connection: while a side waits for an answer, it answers the other side's calls."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .wire import Objects, WireError, from_wire, pack, to_wire, unpack


class Channel(Protocol):
    """Carries whole frames."""

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        ...

    def receive(self) -> bytes | bytearray:
        """Wait for a frame and return it."""
        ...


class Side(Objects, Protocol):
    """What differs between judge and worker: what crosses by reference, what may be called, how errors are told."""

    peer: "Peer"
    answers: type[BaseException]  # what is told to the other side; anything else ends this one

    def find(self, target: int, method: str) -> Callable[..., Any]:
        """Return what a call of the other side runs, or raise WireError when it is not on offer."""
        ...

    def describe(self, error: BaseException) -> list[Any]:
        """Return what the other side learns of an exception, as plain values."""
        ...

    def rebuild(self, described: list[Any]) -> Exception:
        """Return the exception to raise here for one described by the other side."""
        ...


class Peer:
    """One end of the conversation.

    Frames are `["call", target, method, arguments, keywords]`, answered by `["return", value, changed]`, where
    `changed` holds the positional arguments as they are after the call if it changed any in place (otherwise None),
    or by `["raise", described]`.
    """

    def __init__(self, channel: Channel, side: Side):
        self._channel = channel
        self._side = side
        side.peer = self
        self._turn = threading.RLock()  # a submission may call from threads of its own

    def call(self, target: int, method: str, arguments: Sequence[Any], keywords: dict[str, Any]) -> Any:
        """Call a method of an object of the other side and return its result, or raise the exception it raised."""
        side = self._side
        wired = [to_wire(argument, side) for argument in arguments]
        frame = pack(["call", target, method, wired, {k: to_wire(v, side) for k, v in keywords.items()}])
        with self._turn:
            self._channel.send(frame)
            while True:
                kind, *body = self._read()
                if kind == "call" and len(body) == 4:
                    self._answer(*body)
                elif kind == "return" and len(body) == 2:
                    if body[1] is not None:
                        _copy_back(list(arguments), from_wire(body[1], side))
                    return from_wire(body[0], side)
                elif kind == "raise" and len(body) == 1 and type(body[0]) is list:
                    raise side.rebuild(body[0])
                else:
                    raise WireError("a malformed answer")

    def serve(self) -> None:
        """Answer calls until the channel raises."""
        while True:
            _, *body = self._read()
            self._answer(*body)

    def _read(self) -> list[Any]:
        try:
            frame = unpack(self._channel.receive())
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise WireError("bytes that are no message") from error
        if type(frame) is not list or not frame:
            raise WireError("a malformed message")
        return frame

    def _answer(self, target: Any, method: Any, arguments: Any, keywords: Any) -> None:
        side = self._side
        try:
            if type(target) is not int or type(method) is not str or type(arguments) is not list:
                raise WireError("a malformed call")
            function = side.find(target, method)
            positional = [from_wire(node, side) for node in arguments]
            named = {k: from_wire(v, side) for k, v in dict(keywords).items()}
            before = _snapshot(positional, side)
            result = to_wire(function(*positional, **named), side)
            same = _unchanged(before, positional, side)
            changed = None if same else [to_wire(argument, side) for argument in positional]
            frame = pack(["return", result, changed])
        except side.answers as error:
            frame = pack(["raise", side.describe(error)])
        self._channel.send(frame)


def _snapshot(arguments: list[Any], side: Side) -> list[Any]:
    """Return what tells later whether an argument was changed in place."""
    return [
        argument.clone()
        if isinstance(argument, Tensor)
        else pack(to_wire(argument, side))
        if isinstance(argument, (list, dict))
        else None
        for argument in arguments
    ]


def _unchanged(before: list[Any], arguments: list[Any], side: Side) -> bool:
    return all(
        torch.equal(old, new) if isinstance(old, Tensor) else old is None or old == pack(to_wire(new, side))
        for old, new in zip(before, arguments, strict=True)
    )


def _copy_back(originals: list[Any], changed: Any) -> None:
    """Make changed lists, dicts and tensors of the other side's call visible in the caller's own."""
    if type(changed) is not list or len(changed) != len(originals):
        raise WireError("a malformed list of changed arguments")
    for original, new in zip(originals, changed, strict=True):
        if isinstance(original, Tensor) and isinstance(new, Tensor) and original.shape == new.shape:
            original.copy_(new)
        elif isinstance(original, list) and isinstance(new, list):
            original[:] = new
        elif isinstance(original, dict) and isinstance(new, dict):
            original.clear()
            original.update(new)
