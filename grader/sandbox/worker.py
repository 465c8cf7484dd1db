"""Inside the sandbox: serves calls of the submission's functions, and does nothing else.

The worker is process 1 of its own PID namespace. It imports torch once, computes nothing with it (thread pools do not
survive a fork), and forks a fresh child for each group of tests. Nothing here is trusted by the judge: whatever a
submission does to its worker, only values go back.
"""

import builtins
import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch

from .peer import Peer
from .wire import WireError, from_wire, record_fields, to_wire

SUBMISSION = "/submission"
PR_SET_DUMPABLE = 4
LENGTH = struct.Struct("<Q")


def main() -> None:
    """Serve the judge's control socket (file descriptor given on the command line): `fork` and `kill`."""
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(control.recv(1 << 20))
    sys.path.append(SUBMISSION)  # last: a submission's own torch.py changes nothing
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # children share the user id; keep them out of this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control.send(b"ready")
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 16, 2)
        if request == b"fork":
            connection, output = descriptors
            if os.fork() == 0:
                control.close()
                run_child(connection, output, settings)
            os.close(connection)
            os.close(output)
            control.send(b"forked")
        elif request == b"kill":
            control.send(json.dumps(kill_everything()).encode())
        else:  # the judge has gone
            os._exit(0)


def kill_everything() -> list[int]:
    """Kill every process of the namespace but this one; return the exit statuses of those that were reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    statuses = []
    while True:
        try:
            statuses.append(os.wait()[1])
        except ChildProcessError:
            return statuses


def run_child(connection: int, output: int, settings: dict[str, Any]) -> None:
    """Serve one group of tests in this fresh process, under the assignment's limits."""
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        set_limits(settings["limits"])
        torch.set_num_threads(1)
        Peer(SocketChannel(connection), WorkerSide(settings["classes"])).serve()
    except EOFError:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def set_limits(limits: dict[str, int]) -> None:
    """Bound what this process may take. Memory counts on top of what torch holds already."""
    with open("/proc/self/status") as status:
        held = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    for name, value in (
        ("RLIMIT_DATA", held + limits["memory_bytes"]),
        ("RLIMIT_FSIZE", limits["file_bytes"]),
        ("RLIMIT_NOFILE", limits["open_files"]),
        ("RLIMIT_NPROC", limits["processes"]),
        ("RLIMIT_CORE", 0),
    ):
        resource.setrlimit(getattr(resource, name), (value, value))


class SocketChannel:
    """Frames with their length before them, over a stream socket."""

    def __init__(self, descriptor: int):
        self._socket = socket.socket(fileno=descriptor)

    def send(self, frame: bytes) -> None:
        """Send what was printed first, then the frame: so that the judge has the output of a call when it ends."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        header = LENGTH.pack(len(frame))
        sent = self._socket.sendmsg([header, frame])
        if sent < len(header) + len(frame):
            self._socket.sendall(memoryview(frame)[max(0, sent - len(header)) :])

    def receive(self) -> bytearray:
        """Wait for a frame. Raises EOFError when the judge has closed the connection."""
        return self._exactly(LENGTH.unpack(self._exactly(LENGTH.size))[0])

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            received = self._socket.recv_into(view[filled:])
            if received == 0:
                raise EOFError
            filled += received
        return data


class WorkerSide:
    """The submission's end: it offers the functions and classes of the assignment's modules."""

    answers: type[BaseException] = BaseException  # SystemExit of a submission too

    def __init__(self, classes: list[str]):
        self.classes = classes  # those that the judge knows: "hw1.sampling:Mirostat"
        self.owned: dict[int, Any] = {}
        self.peer: Peer  # set by the peer itself

    def find(self, target: int, method: str) -> Callable[..., Any]:
        """Return a function of a submitted module ("hw1.scoring:entropy"), or a method of an object handed out."""
        if target == 0:
            return submitted(method)  # type: ignore[no-any-return]
        owned: Any = self.owned[target]
        if method.startswith("get "):
            return lambda: getattr(owned, method.removeprefix("get "))
        return getattr(owned, method)  # type: ignore[no-any-return]

    def export(self, value: Any) -> dict[str, Any]:
        """Send declared records by value, declared classes and callables by reference."""
        if isinstance(value, Borrowed):
            return {"yours": value._number}
        kind = type(value)
        path = f"{kind.__module__}:{kind.__qualname__}"
        if path in self.classes:
            names = record_fields(kind)
            if names is not None:
                return {"record": [path, {name: to_wire(getattr(value, name), self, 1) for name in names}]}
        elif callable(value):
            path = ""
        else:
            raise WireError(f"an object of type {kind.__module__}.{kind.__qualname__}")
        self.owned[id(value)] = value
        return {"object": [id(value), path]}

    def resolve(self, kind: str, body: Any) -> Any:
        """Return a stand-in for an object of the judge, one of our own objects, or a record."""
        if kind == "object":
            number, methods, constants = body
            return borrow(self, number, methods, constants)
        if kind == "yours":
            return self.owned[body]
        if kind == "function":
            return submitted(body)
        if kind == "record":
            path, fields = body
            kind_of_record = shared(path) if path.startswith("shared_tasks.") else submitted(path)
            return kind_of_record(**{name: from_wire(node, self, 1) for name, node in fields.items()})
        raise WireError("a malformed value")

    def describe(self, error: BaseException) -> list[Any]:
        """Tell type, message and the submission's own lines on the way to the exception."""
        if isinstance(error, WireError):
            return ["!", f"the result was or contained {error}, which cannot be sent back", []]
        if isinstance(error, SubmissionLacks):
            return ["?", str(error), []]
        lines: list[list[Any]] = [
            [frame.filename.removeprefix(SUBMISSION + "/"), frame.lineno or 0, frame.name, frame.line or ""]
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename.startswith(SUBMISSION)
        ]
        if isinstance(error, SyntaxError) and (error.filename or "").startswith(SUBMISSION):
            name = str(error.filename).removeprefix(SUBMISSION + "/")
            lines.append([name, error.lineno or 0, "<module>", (error.text or "").strip()])
        try:
            message = str(error)
        except BaseException:
            message = "(an exception whose message cannot be read)"
        cut = [[file, line, name, source[:400]] for file, line, name, source in lines[-20:]]
        return [type(error).__name__[:200], message[:4000], cut]

    def rebuild(self, described: list[Any]) -> Exception:
        """Return the exception that the judge's object raised."""
        name, message = described
        if ":" in name:
            return shared(name)(message)  # type: ignore[no-any-return]
        kind: Any = getattr(builtins, name, None)
        ordinary = isinstance(kind, type) and issubclass(kind, Exception)
        return kind(message) if ordinary else RuntimeError(f"{name}: {message}")


class SubmissionLacks(Exception):
    """A module or a name that the assignment asks for is not there."""


def submitted(path: str) -> Any:
    """Return the function or class at "module:name" of the submission."""
    module_name, name = path.split(":")
    file = module_name.replace(".", "/") + ".py"
    if not os.path.isfile(f"{SUBMISSION}/{file}"):
        raise SubmissionLacks(f"the submission has no file {file}")
    module = importlib.import_module(module_name)
    if not hasattr(module, name):
        raise SubmissionLacks(f"{file} defines no {name}")
    return getattr(module, name)


def shared(path: str) -> Any:
    """Return the class at "module:name" of the kit."""
    module_name, name = path.split(":")
    return getattr(importlib.import_module(module_name), name)


class Borrowed:
    """An object that the judge owns; its methods run there."""

    _number: int


def borrow(side: WorkerSide, number: int, methods: list[str], constants: dict[str, Any]) -> Borrowed:
    """Return a stand-in with the judge's methods and constants."""

    def forward(method: str) -> Callable[..., Any]:
        def call(self: Borrowed, *arguments: Any, **keywords: Any) -> Any:
            return side.peer.call(number, method, arguments, keywords)

        return call

    members: dict[str, Any] = {name: forward(name) for name in methods if not name.startswith("get ")}
    for name in methods:
        if name.startswith("get "):
            members[name.removeprefix("get ")] = property(forward(name))
    kind: Any = type("Borrowed", (Borrowed,), {"_number": number} | members | constants)
    return kind()  # type: ignore[no-any-return]
