"""vLLM's own server as a process: the ceiling of the final project."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from grader.sandbox.isolation import KIT
from shared_tasks.models.folders import WEIGHTS, course_models
from shared_tasks.models.vllm_thread import ENVIRONMENT, gpu_options

START_SECONDS = 300.0
END_SECONDS = 20.0
LOOK_SECONDS = 0.5
ON_CPU = ["--enforce-eager", "--no-enable-chunked-prefill"]  # as the engine has it


class VllmServer:
    """`vllm serve` with a model on a free port of the loopback, from `with` to the end of the block.

    On a CPU it computes in float32; on a GPU in the checkpoint's own dtype unless one is named, and it takes
    `memory_share` of the memory that is free.
    """

    def __init__(self, model: str, log: Path, dtype: str | None = None, memory_share: float = 0.9):
        """Prepare to serve a course model, a folder or a name on the hub; what the server prints goes to `log`."""
        self.model, self.log = model, log
        gpu = gpu_options(memory_share)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        path = str(WEIGHTS / model) if model in course_models() else model
        command = [sys.executable, "-m", "grader.serving.vllm_command", "serve", path]
        command += ["--served-model-name", Path(model).name, "--host", "127.0.0.1", "--port", str(port)]
        command += ["--dtype", dtype or ("auto" if gpu else "float32")]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in gpu.items()] or ON_CPU
        self._command = command

    def __enter__(self) -> Self:
        """Start it and wait until it is healthy.

        Raises ValueError when vLLM is not installed, or when the server ends or is not healthy in five minutes.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ValueError("vLLM is not installed here: see `make setup-vllm`")
        path = os.pathsep.join(filter(None, [str(KIT), os.environ.get("PYTHONPATH")]))
        environment = ENVIRONMENT | os.environ | {"PYTHONPATH": path}
        environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)  # set by an engine in this process
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_until_healthy()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + "/health").status_code == 200:
                    return
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = self._process.wait(LOOK_SECONDS)
                raise ValueError(f"vLLM's server of {self.model} has ended with {status}: see {self.log}")
        raise ValueError(f"vLLM's server of {self.model} is not healthy after {START_SECONDS:g} s: see {self.log}")

    def _end(self) -> None:
        """Ask it to end, and wait until nothing is left of it; what has not ended by then is killed."""
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.wait()
        _, left = psutil.wait_procs(family, END_SECONDS)
        for process in left:
            process.kill()
        psutil.wait_procs(left)
