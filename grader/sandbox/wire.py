"""The closed data format between judge and worker. Both sides import it; it never unpickles and never evaluates.

On the wire a value is None, a bool, a number, a string, bytes, an array (a list) or a map with one key that says what
else it is: `int` (of more than 64 bits), `tuple`, `set`, `dict`, `tensor`, `record` (a declared dataclass), `object`
(owned by the sender) or `yours` (an object that the receiver owns).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import torch

MAX_DEPTH = 32
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
        torch.float16, torch.bfloat16, torch.float32, torch.float64,
    )
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})
_INT_BYTES = 1024  # of the largest integer that crosses

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.Decoder().decode


class WireError(Exception):
    """A value that cannot cross, or bytes that are not a value."""


class Objects(Protocol):
    """What crosses by reference, or by a class that both sides know."""

    def export(self, value: Any) -> dict[str, Any]:
        """Return the `record`, `object` or `yours` map for a value, or raise WireError."""
        ...

    def resolve(self, kind: str, body: Any) -> Any:
        """Return the value that such a map stands for, or raise WireError."""
        ...


def record_fields(kind: type) -> tuple[str, ...] | None:
    """Return the names of the fields of a dataclass or msgspec Struct, or None for a class that is no record."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else None


def to_wire(value: Any, objects: Objects, depth: int = 0) -> Any:
    """Turn a value into what msgpack can hold; of subclasses of Python's types only the plain value crosses.

    Raises WireError for a value of another type, or nested too deeply.
    """
    kind = type(value)
    if _is_plain(value):
        return value
    if depth > MAX_DEPTH:
        raise WireError(f"a value nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, list):
        if kind is list and all(map(_is_plain, value)):
            return value
        return [to_wire(item, objects, depth + 1) for item in value]
    if isinstance(value, tuple):  # torch.Size and named tuples too
        return {"tuple": [to_wire(item, objects, depth + 1) for item in value]}
    if isinstance(value, dict):
        pairs = [[to_wire(k, objects, depth + 1), to_wire(v, objects, depth + 1)] for k, v in value.items()]
        return {"dict": pairs}
    if isinstance(value, (set, frozenset)):
        return {"set": [to_wire(item, objects, depth + 1) for item in value]}
    if isinstance(value, torch.Tensor):
        return {"tensor": _tensor_to_wire(value)}
    if kind.__module__ == "numpy" and hasattr(value, "dtype"):
        return to_wire(torch.as_tensor(value) if value.ndim else value.item(), objects, depth + 1)
    if kind is int:
        if value.bit_length() >= 8 * _INT_BYTES:
            raise WireError(f"an integer of more than {_INT_BYTES} bytes")
        return {"int": value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)}
    plain: Any
    for plain in (int, float, str, bytes):
        if isinstance(value, plain):
            return to_wire(plain(value), objects, depth + 1)
    return objects.export(value)


def _is_plain(value: Any) -> bool:
    """Say whether msgpack holds the value as it is."""
    kind = type(value)
    return kind in _PLAIN and (kind is not int or -(1 << 63) <= value < 1 << 64)


def from_wire(node: Any, objects: Objects, depth: int = 0) -> Any:
    """Rebuild the value. Raises WireError unless the node is well-formed."""
    kind = type(node)
    if kind in _PLAIN:
        return node
    if depth > 2 * MAX_DEPTH:
        raise WireError("a value nested too deeply")
    if kind is list:
        if all(type(item) in _PLAIN for item in node):
            return node
        return [from_wire(item, objects, depth + 1) for item in node]
    if kind is not dict or len(node) != 1:
        raise WireError("a malformed value")
    ((tag, body),) = node.items()
    if tag == "tensor":
        return _tensor_from_wire(body)
    if tag == "int" and type(body) is bytes and len(body) <= _INT_BYTES:
        return int.from_bytes(body, "little", signed=True)
    if tag in ("tuple", "set", "dict"):
        return _container(tag, body, objects, depth)
    if not isinstance(tag, str):
        raise WireError("a malformed value")
    return objects.resolve(tag, body)


def _container(tag: str, body: Any, objects: Objects, depth: int) -> Any:
    if type(body) is not list:
        raise WireError(f"a malformed {tag}")
    build: Callable[[Any], Any] = {"tuple": tuple, "set": set, "dict": dict}[tag]
    try:
        return build(from_wire(item, objects, depth + 1) for item in body)
    except (TypeError, ValueError) as error:  # unhashable members, or pairs that are none
        raise WireError(f"a malformed {tag}") from error


def _tensor_to_wire(tensor: torch.Tensor) -> list[Any]:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in _NAMES:
        raise WireError(f"a tensor of type {tensor.dtype} and layout {tensor.layout}")
    plain = tensor.detach().cpu().contiguous()
    flat = plain.as_strided((plain.numel(),), (1,))  # a contiguous tensor of one element may have any stride
    data = flat.view(torch.uint8).numpy().data if plain.numel() else b""
    return [_NAMES[plain.dtype], list(plain.shape), data]


def _tensor_from_wire(body: Any) -> torch.Tensor:
    try:
        name, shape, data = body
        dtype = DTYPES[name]
        sizes = [size for size in shape if type(size) is int and size >= 0]
        if len(sizes) != len(shape) or len(sizes) > 16 or math.prod(sizes) * dtype.itemsize != len(data):
            raise WireError("a tensor whose shape does not fit its data")
        if not data:
            return torch.empty(sizes, dtype=dtype)
        if dtype is torch.bool:  # any byte but 0 and 1 would be undefined in a bool tensor
            return (torch.frombuffer(bytearray(data), dtype=torch.uint8) != 0).reshape(sizes)
        return torch.frombuffer(bytearray(data), dtype=dtype).reshape(sizes)
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise WireError("a malformed tensor") from error
