"""A content-addressed store of results: a file for each key, whole or not there."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from grader.sandbox.isolation import KIT

FOLDER = KIT / "goldens"  # of the judge alone: a sandbox shows nothing of it
DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float64, torch.int64, torch.bool)}


class Corrupt(Exception):
    """A file of the store is not what was written; the message says which."""


class GoldenStore:
    """Values under keys, in a folder.

    A file begins with the hash of its key and of what follows. It is written beside its place and moved there whole, so
    that a run that is killed leaves nothing half-written under a key; of two runs at once the first one is kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def get(self, key: str) -> Any:
        """Return the value. Raises KeyError when there is none, and Corrupt when the file was damaged."""
        try:
            written = self.path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None
        if written[:32] != _checksum(key, written[32:]):
            raise Corrupt(f"{self.path(key)} is damaged")
        return msgspec.msgpack.decode(written[32:], ext_hook=_tensor)

    def put(self, key: str, value: Any) -> None:
        """Keep a value made of plain values, tensors and structs; a struct comes back as a dict.

        What another process has kept in the meantime stays: that may have been used already.
        """
        body = msgspec.msgpack.encode(value, enc_hook=_extension)
        with contextlib.suppress(KeyError, Corrupt):
            self.get(key)
            return
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix="unfinished-")
        try:
            with open(descriptor, "wb") as file:
                file.write(_checksum(key, body) + body)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise

    def path(self, key: str) -> Path:
        """Return where the value of a key lies."""
        return self.folder / key[:2] / f"{key[2:]}.golden"


def _checksum(key: str, body: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + body).digest()


def _extension(value: Any) -> Any:
    if not isinstance(value, Tensor):
        raise TypeError(f"expected plain values, tensors and structs, got {type(value).__name__}")
    tensor = value.detach().cpu().contiguous()
    if str(tensor.dtype) not in DTYPES:
        raise TypeError(f"expected a tensor of {', '.join(DTYPES)}, got {tensor.dtype}")
    packed = [str(tensor.dtype), list(tensor.shape), tensor.numpy().tobytes()]
    return msgspec.msgpack.Ext(1, msgspec.msgpack.encode(packed))


def _tensor(code: int, data: memoryview) -> Tensor:
    dtype, shape, values = msgspec.msgpack.decode(data, type=tuple[str, list[int], bytes])
    return torch.frombuffer(bytearray(values), dtype=DTYPES[dtype]).reshape(shape) if values else torch.empty(shape)
