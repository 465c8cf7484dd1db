"""Inside the sandbox, as process 1: starts the server, and makes sockets for the judge.

A socket stays in the network in which it was made, whoever uses it. So the judge, outside, reaches the server's
loopback with sockets from here, and the server reaches nothing: there is nobody but itself in its network. Run as a
file, with the control socket's descriptor, the limits in JSON, and the server's command; it needs nothing but the
standard library.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys

PR_SET_DUMPABLE = 4


def main() -> None:
    """Answer each request with a new socket, and with how the server's process has ended, if it has."""
    control = socket.socket(fileno=int(sys.argv[1]))
    limits, command = json.loads(sys.argv[2]), sys.argv[3:]
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # the server shares the user id; keep it out of this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = os.fork()
    if server == 0:
        control.close()
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(command[0], command)
    ended: int | None = None
    while control.recv(16):
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG))[0]:
                if reaped[0] == server:
                    ended = reaped[1]
        with socket.socket() as fresh:
            socket.send_fds(control, [json.dumps(ended).encode()], [fresh.fileno()])
    os._exit(0)  # the judge has gone, and with this process everything else goes


if __name__ == "__main__":
    main()
