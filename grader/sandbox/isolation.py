"""The walls: what of this machine a worker sees, and which system calls it may make (bubblewrap and seccomp)."""

import os
import platform
import shutil
import struct
import subprocess
import sys
import sysconfig
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec
from packaging.requirements import Requirement

KIT = Path(__file__).resolve().parents[2]
WORKER_FILES = ("__init__.py", "wire.py", "peer.py", "worker.py")
START = "import sys; sys.path += ['/packages', '/worker']; from sandbox.worker import main; sys.path.pop(); main()"
KEPT_ENVIRONMENT = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # which kernels are right for this processor
USER = "65534"


class Limits(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a submission may take."""

    test_seconds: float  # wall time of one test
    test_cpu_seconds: float  # CPU time of one test, all processes together
    problem_seconds: float  # wall time of all tests of one problem
    submission_seconds: float  # wall time of all tests
    memory_bytes: int  # private writable memory on top of what torch takes, all processes together
    processes: int  # processes and threads at one time
    disk_bytes: int  # the size of /tmp
    file_bytes: int  # the size of one file
    open_files: int
    output_bytes: int  # what is kept of a test's printed output
    message_bytes: int  # the size of one message to the judge


class SandboxUnavailable(Exception):
    """This machine cannot isolate a submission; the message says what to do."""


@cache
def bubblewrap() -> str:
    """Return the path of bubblewrap. Raises SandboxUnavailable when it is missing."""
    path = shutil.which("bwrap")
    if path is None:
        raise SandboxUnavailable("bubblewrap is missing; install it with: sudo apt-get install bubblewrap")
    return path


def command(submission: Path, packages: list[str], modules: list[str], limits: Limits, seccomp: int) -> list[str]:
    """Return the command that starts a worker; the control socket's descriptor is to be added at its end.

    `packages` are distributions, `modules` files of the kit below its root, `seccomp` the descriptor of the filter.
    """
    mounts = [
        *((source, f"/packages/{name}") for source, name in package_paths(tuple(packages))),
        *((KIT / module, f"/packages/{module}") for module in modules),
        *((KIT / "grader/sandbox" / file, f"/worker/sandbox/{file}") for file in WORKER_FILES),
        (submission, "/submission"),
    ]
    arguments = [
        *(bubblewrap(), "--unshare-all", "--unshare-user", "--disable-userns", "--uid", USER, "--gid", USER),
        *("--hostname", "sandbox", "--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL"),
        *("--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"),
        *("--setenv", "OMP_NUM_THREADS", "1", "--setenv", "MKL_NUM_THREADS", "1"),
        *(word for name in KEPT_ENVIRONMENT if name in os.environ for word in ("--setenv", name, os.environ[name])),
        *system_mounts(),
        *(word for source, target in mounts for word in ("--ro-bind", str(source), target)),
        *("--proc", "/proc", "--dev", "/dev"),
        *("--size", str(limits.disk_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--size", str(limits.disk_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"),
        *("--seccomp", str(seccomp)),
    ]
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return [*arguments, interpreter, "-I", "-S", "-B", "-c", START]


def system_mounts() -> list[str]:
    """Return the read-only mounts of the interpreter and the system's libraries, without the packages among them."""
    prefix, stdlib = Path(sys.base_prefix), Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    words: list[str] = []
    for folder in ("/usr/lib", "/usr/lib64"):
        if os.path.isdir(folder):
            words += ["--ro-bind", folder, folder]
    for link in ("/lib", "/lib64"):
        if os.path.islink(link):
            words += ["--symlink", os.readlink(link), link]
        elif os.path.isdir(link):
            words += ["--ro-bind", link, link]
    if prefix == Path("/usr"):
        interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        words += ["--ro-bind", interpreter, interpreter]
    else:
        words += ["--ro-bind", str(prefix), str(prefix)]
    hidden = [stdlib / "site-packages", stdlib / "dist-packages", Path("/usr/lib/python3/dist-packages")]
    if prefix != Path("/usr") and KIT.is_relative_to(prefix):
        hidden.append(KIT)
    for folder_path in hidden:
        if folder_path.is_dir():
            words += ["--tmpfs", str(folder_path), "--remount-ro", str(folder_path)]
    return words


@cache
def package_paths(distributions: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return (path, name under /packages) of all that the distributions and their requirements install."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = list(distributions)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in distributions:
                raise SandboxUnavailable(f"the package {name} is not installed; run: make setup") from None
            continue
        for file in distribution.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith(".pth"):
                found[top] = str(distribution.locate_file(top))
        for text in distribution.requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return sorted((path, top) for top, path in found.items())


# System calls that a submission has no use for: memory that no limit counts (memfd, System V), other processes'
# memory, new namespaces, and large pieces of kernel that have had holes.
REFUSED_CALLS = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "memfd_create": 319, "memfd_secret": 447,
        "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "io_uring_setup": 425, "userfaultfd": 323,
        "perf_event_open": 298, "bpf": 321, "add_key": 248, "request_key": 249, "keyctl": 250, "mount": 165,
        "umount2": 166, "unshare": 272, "setns": 308,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "memfd_create": 279, "memfd_secret": 447,
        "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "io_uring_setup": 425, "userfaultfd": 282,
        "perf_event_open": 241, "bpf": 280, "add_key": 217, "request_key": 218, "keyctl": 219, "mount": 40,
        "umount2": 39, "unshare": 97, "setns": 268,
    },
}  # fmt: skip
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*


def seccomp_filter() -> bytes:
    """Return the BPF program that answers the refused system calls with EPERM and kills other instruction sets.

    Raises SandboxUnavailable on a processor whose call numbers are not known here.
    """
    machine = platform.machine()
    if machine not in REFUSED_CALLS:
        known = " and ".join(REFUSED_CALLS)
        raise SandboxUnavailable(f"the sandbox knows the system calls of {known}, not of {machine}")
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    numbers = sorted(REFUSED_CALLS[machine].values())
    program = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, ARCHITECTURES[machine]),
        (give, 0, 0, kill),
        (load, 0, 0, 0),  # the call's number
        (at_least, len(numbers) + 1, 0, 0x40000000),  # x86-64's second table of the same calls
        *((equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


@cache
def check() -> str:
    """Return bubblewrap's version after isolating a trivial command. Raises SandboxUnavailable when that fails."""
    words = [bubblewrap(), "--unshare-all", "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "true"]
    trial = subprocess.run(words, capture_output=True, text=True, check=False)
    if trial.returncode != 0:
        reason = trial.stderr.strip().splitlines()[-1:] or ["it failed without a message"]
        raise SandboxUnavailable(
            f"bubblewrap cannot isolate here: {reason[0]} (user namespaces must be allowed: "
            "sudo sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0)"
        )
    return subprocess.run([bubblewrap(), "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
