"""The judge's end of the wire: frames over a socket that never block for good, and a bounded capture of the output."""

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Callable

LENGTH = struct.Struct("<Q")
LOOK_SECONDS = 0.1


class Disconnected(Exception):
    """The submission's process closed its end, most likely by dying."""


class TooLarge(Exception):
    """A message over the limit."""


class Connection:
    """A socket for frames and a pipe for what the submission prints; `look` runs regularly, however short the waits."""

    def __init__(self, output_limit: int, message_limit: int, look: Callable[[], None]):
        self._socket, self.their_socket = socket.socketpair()
        for end in (self._socket, self.their_socket):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._pipe, self.their_pipe = os.pipe()
        self._socket.setblocking(False)
        os.set_blocking(self._pipe, False)
        self._output_limit = output_limit
        self._message_limit = message_limit
        self._look = look
        self._next_look = time.monotonic() + LOOK_SECONDS
        self.output = bytearray()
        self.output_bytes = 0

    def close_their_ends(self) -> None:
        """Close what the worker has now, so that its death is seen here."""
        self.their_socket.close()
        os.close(self.their_pipe)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        os.close(self._pipe)

    @property
    def hung_up(self) -> bool:
        """Whether nobody holds the other end any more."""
        poll = select.poll()
        poll.register(self._socket, 0)  # POLLHUP is told unasked
        return bool(poll.poll(0))

    def send(self, frame: bytes) -> None:
        """Send a frame. Raises Disconnected."""
        parts = [memoryview(LENGTH.pack(len(frame))), memoryview(frame)]
        while parts:
            try:
                sent = self._socket.sendmsg(parts)
                while parts and sent >= len(parts[0]):
                    sent -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][sent:]
            except BlockingIOError:
                self._wait(select.POLLOUT)
            except OSError as error:
                raise Disconnected from error

    def receive(self) -> bytearray:
        """Wait for a frame. Raises Disconnected, and TooLarge when its announced size is over the limit."""
        self._look_when_due()  # here too: one that calls back again and again is never waited for
        (size,) = LENGTH.unpack(self._exactly(LENGTH.size))
        if size > self._message_limit:
            raise TooLarge(f"a message of {size:,} bytes, over the limit of {self._message_limit:,}")
        return self._exactly(size)

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            try:
                received = self._socket.recv_into(view[filled:])
            except BlockingIOError:
                self._wait(select.POLLIN)
                continue
            except OSError as error:
                raise Disconnected from error
            if received == 0:
                raise Disconnected
            filled += received
        return data

    def _wait(self, event: int) -> None:
        """Wait until the socket is ready; meanwhile take in what is printed, and look."""
        poll = select.poll()
        poll.register(self._socket, event)
        poll.register(self._pipe, select.POLLIN)
        while True:
            ready = dict(poll.poll(1000 * LOOK_SECONDS))
            if self._pipe in ready:
                self.drain()
                if ready[self._pipe] & select.POLLHUP:
                    poll.unregister(self._pipe)
            self._look_when_due()
            if self._socket.fileno() in ready:
                return

    def _look_when_due(self) -> None:
        if time.monotonic() > self._next_look:
            self._look()
            self._next_look = time.monotonic() + LOOK_SECONDS

    def drain(self) -> None:
        """Keep the beginning of what was printed and drop the rest, some megabytes at a time."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                printed = os.read(self._pipe, 1 << 16)
                if not printed:
                    return
                self.output_bytes += len(printed)
                self.output += printed[: max(0, self._output_limit - len(self.output))]

    def forget_output(self) -> None:
        """Start the capture anew."""
        self.drain()
        self.output.clear()
        self.output_bytes = 0
