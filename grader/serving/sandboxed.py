"""A submission's server in a sandbox without a network, and the judge's way to it."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpcore
import httpx
import msgspec
import psutil

from grader.sandbox.isolation import (
    KEPT_ENVIRONMENT,
    KIT,
    USER,
    bubblewrap,
    package_paths,
    seccomp_filter,
    system_mounts,
)
from grader.sandbox.sandbox import measure

PORT = 8000
ANSWER_SECONDS = 2.0
LOOK_SECONDS = 0.5


class ServerLimits(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a server may take."""

    start_seconds: float  # until /health answers
    memory_bytes: int  # all processes together
    processes: int  # processes and threads at one time
    disk_bytes: int  # the size of /tmp
    file_bytes: int  # the size of one file, and of the log
    open_files: int
    submission_bytes: int  # of what is handed in, unpacked


class Entry(NamedTuple):
    """A system to start: `python -m final_project.serve --config CONFIG --system SYSTEM --port PORT`."""

    folder: Path
    """Holds the package final_project; it is /submission inside."""
    config: str
    """The path of serve.toml inside."""
    system: str
    kit: tuple[str, ...] = ("shared_tasks",)
    """What of the kit is there to import."""


class NotServing(Exception):
    """A server did not start; the message says why."""


class SandboxedServer:
    """A server in its sandbox, from `with` to the end of the block, when everything in it is killed."""

    def __init__(self, entry: Entry, packages: Iterable[str], limits: ServerLimits, log: Path):
        """Prepare to start an entry; what it prints goes to the file `log`."""
        self.entry, self.packages, self.limits, self.log = entry, tuple(packages), limits, log
        self.stopped = ""
        """Why it was stopped before its time, in words."""

    def __enter__(self) -> Self:
        """Start it. Raises SandboxUnavailable on a machine that cannot isolate."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(ANSWER_SECONDS)
        self._answers = True
        with theirs, tempfile.TemporaryFile() as seccomp, self.log.open("wb") as log:
            seccomp.write(seccomp_filter())
            seccomp.seek(0)
            self._process = subprocess.Popen(
                self._command(theirs.fileno(), seccomp.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(), seccomp.fileno()),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill process 1 of its namespace, and with it all others."""
        self._control.close()
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.kill()
        self._process.wait()

    def _command(self, control: int, seccomp: int) -> list[str]:
        limits = self.limits
        mounts = [
            *((source, f"/packages/{name}") for source, name in package_paths(self.packages)),
            *((KIT / part, f"/packages/{part}") for part in self.entry.kit),
            (Path(__file__).with_name("inside.py"), "/judge/inside.py"),
            (self.entry.folder, "/submission"),
        ]
        environment = {"HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONPATH": "/submission:/packages", "HF_HUB_OFFLINE": "1"}
        environment |= {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
        resources = {
            "RLIMIT_FSIZE": limits.file_bytes,
            "RLIMIT_NOFILE": limits.open_files,
            "RLIMIT_NPROC": limits.processes,
            "RLIMIT_CORE": 0,
        }
        interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        entry = self.entry
        server = ["-m", "final_project.serve", "--config", entry.config, "--system", entry.system, "--port", str(PORT)]
        return [
            *(bubblewrap(), "--unshare-all", "--unshare-user", "--disable-userns", "--uid", USER, "--gid", USER),
            *("--hostname", "sandbox", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"),
            *("--clearenv", *(word for name, value in environment.items() for word in ("--setenv", name, value))),
            *system_mounts(),
            *(word for source, target in mounts for word in ("--ro-bind", str(source), target)),
            *("--proc", "/proc", "--dev", "/dev"),
            *("--size", str(limits.disk_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
            *("--size", str(limits.disk_bytes), "--tmpfs", "/tmp", "--chdir", "/submission", "--remount-ro", "/"),
            *("--seccomp", str(seccomp)),
            *(interpreter, "-I", "-S", "-B", "/judge/inside.py", str(control), json.dumps(resources)),
            *(interpreter, "-B", *server),
        ]

    # The way to it

    def transport(self) -> httpx.AsyncBaseTransport:
        """Return what carries an httpx client's requests into the sandbox, whatever host their URLs name."""
        transport = httpx.AsyncHTTPTransport(trust_env=False)
        # httpx lets nobody choose the network of its connections; httpcore, which it stands on, does.
        transport._pool = httpcore.AsyncConnectionPool(
            max_connections=None, max_keepalive_connections=None, network_backend=_Loopback(self)
        )
        return transport

    def new_socket(self) -> socket.socket:
        """Return a socket of the sandbox's network. Raises ConnectionError when there is nobody to make one."""
        return self._ask()[1]

    def ended(self) -> str:
        """Say how the server has ended by itself, or was stopped; empty while it runs."""
        if self.stopped:
            return self.stopped
        try:
            status, fresh = self._ask()
        except ConnectionError as error:
            return str(error)
        fresh.close()
        if status is None:
            return ""
        code = os.waitstatus_to_exitcode(status)
        return f"the server was killed by signal {-code}" if code < 0 else f"the server ended with exit code {code}"

    def _ask(self) -> tuple[int | None, socket.socket]:
        """Return the server's exit status and a new socket. What comes from inside is not trusted."""
        descriptors: list[int] = []
        try:
            if not self._answers:
                raise ConnectionError
            self._control.send(b"?")
            message, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
            status = msgspec.json.decode(message, type=int | None)
            fresh = socket.socket(fileno=descriptors.pop())
        except (OSError, LookupError, msgspec.DecodeError) as error:
            self._answers = False  # whoever has once kept the judge waiting is not asked again
            raise ConnectionError("the sandbox has ended") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if (fresh.family, fresh.type) != (socket.AF_INET, socket.SOCK_STREAM):
            fresh.close()
            raise ConnectionError("the sandbox gave something that is no socket of its network")
        return status, fresh

    async def wait_until_healthy(self, client: httpx.AsyncClient) -> None:
        """Wait until /health answers 200. Raises NotServing when the server ends before, or the time is up."""
        try:
            async with asyncio.timeout(self.limits.start_seconds):
                while not await _is_healthy(client):
                    if why := self.ended():
                        raise NotServing(f"{why} before it was healthy")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise NotServing(f"/health did not answer within {self.limits.start_seconds:g} s") from None

    # What it takes

    async def watch(self) -> None:
        """Look at its processes twice a second for ever, and kill them when they are over a limit."""
        while True:
            taken = [measure(process) for process in self._processes()]
            if sum(one.memory_bytes for one in taken) > self.limits.memory_bytes:
                self._stop(f"it took more than {self.limits.memory_bytes / 2**20:,.0f} MiB of memory")
            if sum(one.threads for one in taken) > self.limits.processes:
                self._stop(f"it had more than {self.limits.processes} processes and threads")
            await asyncio.sleep(LOOK_SECONDS)

    def _stop(self, why: str) -> None:
        self.stopped = f"the server was stopped: {why}"
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


async def _is_healthy(client: httpx.AsyncClient) -> bool:
    try:
        async with client.stream("GET", "/health") as response:
            return response.status_code == 200
    except Exception:  # whatever a server makes the client raise, it is not healthy
        return False


class _Loopback(httpcore.AsyncNetworkBackend):
    """Connects to the server's port inside the sandbox."""

    def __init__(self, server: SandboxedServer):
        self._server = server

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> "_Stream":
        """Connect, wherever to. Raises OSError."""
        fresh = self._server.new_socket()
        try:
            fresh.setblocking(False)
            await asyncio.get_running_loop().sock_connect(fresh, ("127.0.0.1", PORT))
            return _Stream(*await asyncio.open_connection(sock=fresh))
        except BaseException:
            fresh.close()
            raise


class _Stream(httpcore.AsyncNetworkStream):
    """One connection, as httpcore wants it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader, self._writer = reader, writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, some bytes at least; none at the end."""
        return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send some bytes."""
        self._writer.write(buffer)
        await self._writer.drain()

    async def aclose(self) -> None:
        """Hang up."""
        self._writer.close()

    def get_extra_info(self, info: str) -> Any:
        """Say whether there is something to read, which on an idle connection is its end."""
        return self._reader.at_eof() if info == "is_readable" else None
