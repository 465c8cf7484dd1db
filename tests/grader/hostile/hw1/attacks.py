"""What a submission might try. Each function runs in the sandbox and returns what it got away with."""

import collections
import contextlib
import ctypes
import errno
import mmap
import os
import signal
import socket
import struct
import sys
import threading
import time
import urllib.request

import numpy
import torch


def double(x):
    return 2 * x


def call_for_ever(lent):
    while True:
        lent()


def kin_of_plain_values():
    return [torch.Size([2, 3]), collections.Counter("aab"), numpy.float32(0.5), numpy.arange(3)]


def files_of_the_judge():
    found = []
    for folder, folders, files in os.walk("/"):
        if folder.startswith(("/proc", "/packages/torch", "/packages/numpy", "/packages/sympy", "/packages/networkx")):
            folders.clear()
            continue
        found += [f"{folder}/{name}" for name in [*folders, *files] if "hidden" in name or "grader" in name.lower()]
        found += [f"{folder}/{name}" for name in files if name.startswith("test_scoring") or name.endswith(".sqlite")]
    return found


def importable(names):
    found = []
    for name in names:
        with contextlib.suppress(ImportError):
            __import__(name)
            found.append(name)
    return found


def writable_places():
    places = []
    for folder in (
        "/",
        "/dev",
        "/usr",
        "/usr/lib",
        "/packages",
        "/packages/torch",
        "/submission",
        "/worker",
        "/proc",
        sys.prefix,
    ):
        with contextlib.suppress(OSError):
            with open(f"{folder}/mark", "w") as file:
                file.write("x")
            places.append(folder)
    return places


def environment():
    return dict(os.environ)


def visible_processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def identity():
    return [os.getuid(), os.geteuid(), open("/proc/self/status").read().split("CapEff:")[1].split()[0]]


def reach_the_network(port):
    reached = []
    for address in ("127.0.0.1", "10.0.0.1", "1.1.1.1"):
        with contextlib.suppress(OSError):
            socket.create_connection((address, port), timeout=0.5)
            reached.append(address)
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://localhost:{port}", timeout=0.5)
        reached.append("localhost")
    return reached


def refused_system_calls():
    libc = ctypes.CDLL(None, use_errno=True)
    answers = {}
    for name, call in (
        ("memfd_create", lambda: libc.memfd_create(b"x", 0)),
        ("shmget", lambda: libc.shmget(0, 1 << 20, 0o1600)),
        ("unshare", lambda: libc.unshare(0x10000000)),
        ("ptrace", lambda: libc.ptrace(16, 1, 0, 0)),
    ):
        ctypes.set_errno(0)
        answers[name] = errno.errorcode.get(ctypes.get_errno(), "done") if call() < 0 else "done"
    return answers


def touch_the_worker():
    """Try to read, stop and kill process 1; return what worked."""
    worked = []
    with contextlib.suppress(OSError):
        open("/proc/1/mem", "rb").close()
        worked.append("read its memory")
    with contextlib.suppress(OSError):
        os.readlink("/proc/1/fd/3")
        worked.append("see its files")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.kill(1, number)
    return worked


def starve_the_worker():
    import resource

    resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))
    return True


def leave_a_process_behind():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    return True


def fill(folder):
    """Write until the disk is full; return the bytes that fitted."""
    written, block = 0, b"x" * (1 << 20)
    for number in range(10_000):
        try:
            with open(f"{folder}/{number}", "wb") as file:
                for _ in range(16):
                    file.write(block)
                    written += len(block)
        except OSError:
            break
    return written


def open_many_files():
    files = []
    try:
        while True:
            files.append(open("/dev/null"))
    except OSError:
        return len(files)


def loop_for_ever():
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue


def burn_in_processes():
    for _ in range(8):
        if os.fork() == 0:
            while True:
                pass
    while True:
        pass


def sleep_for_ever():
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(3600)


def hog_memory():
    hoard = []
    while True:
        hoard.append(bytearray(1 << 24))


def hog_memory_with_torch():
    return torch.ones(1 << 34).sum().item()


def hog_shared_memory():
    hoard = []
    while True:
        block = mmap.mmap(-1, 1 << 26)
        block.write(b"x" * (1 << 26))
        hoard.append(block)


def fork_bomb():
    while True:
        with contextlib.suppress(OSError):
            os.fork()


def thread_bomb():
    while True:
        with contextlib.suppress(RuntimeError, MemoryError):
            threading.Thread(target=time.sleep, args=(3600,)).start()


def segfault():
    ctypes.string_at(0)


def leave_quietly():
    os._exit(0)


def exit_politely():
    sys.exit(0)


def interrupt():
    raise KeyboardInterrupt("stop the judge")


class Skipped(Exception):
    """Looks like the exception with which pytest skips a test."""


def pretend_to_skip():
    raise Skipped("nothing to see")


def flood_the_output(megabytes):
    for _ in range(megabytes):
        sys.stdout.write("x" * (1 << 20))
    return "done"


class EqualsEverything:
    def __eq__(self, other):
        return True

    def __lt__(self, other):
        return True


def equal_to_everything():
    return EqualsEverything()


class Liar(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True


def lying_tensor():
    return torch.zeros(3).as_subclass(Liar)


class LyingFloat(float):
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


def lying_number():
    return LyingFloat(1.0)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def generator():
    return (n for n in range(3))


def _judge_socket():
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            found = socket.socket(fileno=os.dup(number))
            if found.family == socket.AF_UNIX:
                return found
    return None


def write_to_the_judge(data):
    """Find the connection and write to it directly; the answer below comes too late."""
    _judge_socket().sendall(struct.pack("<Q", len(data)) + data)
    time.sleep(0.2)
    return "the honest answer"


def announce_a_huge_message():
    _judge_socket().sendall(struct.pack("<Q", 1 << 62))
    time.sleep(60)


def stop_reading(model):
    """Ask for something and never take the answer."""
    connection = _judge_socket()
    connection.shutdown(socket.SHUT_RD)
    return model.next_token_logprobs([[]])


def ask_for_more(model):
    """Return what is to be had from a lent model besides its interface."""
    side = next(
        cell.cell_contents
        for cell in type(model).next_token_logprobs.__closure__
        if hasattr(cell.cell_contents, "peer")
    )
    got = {}
    for method in ("__class__", "__init__", "logits", "get vocab_size", "_logits"):
        try:
            got[method] = repr(side.peer.call(model._number, method, (), {}))
        except Exception as error:
            got[method] = type(error).__name__
    try:
        got["another object"] = repr(side.peer.call(12345, "__call__", (), {}))
    except Exception as error:
        got["another object"] = type(error).__name__
    return got


def use(model):
    return [model.vocab_size, model.eos_token_id, model.next_token_logprobs([[], [1]]).exp().sum(-1)]


def use_from_threads(model):
    rows = []

    def ask():
        for _ in range(20):
            rows.append(model.next_token_logprobs([[1]]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(rows)


def apply(function, value):
    return function(value)


def change_in_place(tensor, numbers, table):
    tensor.zero_()
    numbers.append(4)
    table["new"] = 1
    return None


def poison():
    torch.Tensor.sum = lambda self, *args, **kwargs: torch.tensor(42.0)
    return True


def total(tensor):
    return tensor.sum()


def number_of_calls(counter=[0]):
    counter[0] += 1
    return counter[0]


def divide(a, b):
    return a / b


def say(text):
    print(text)
    print(text, file=sys.stderr)
    return len(text)


def ask_the_engine(engine, prompt):
    from shared_tasks.models.engine import SamplingParams

    (generation,) = engine.generate([prompt], SamplingParams(n=2, max_tokens=3, seed=1, stop=("!",)))
    return generation.completions[1]


def record_of_wrong_types():
    from shared_tasks.models.engine import Completion

    return Completion(text=["not a text"], token_ids="no", logprobs=[None], finish_reason="because")
