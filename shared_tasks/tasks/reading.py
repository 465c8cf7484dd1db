"""Rows of data sets, from the hub or a local file, each with the place that an error can name."""

import csv
import json
import re
import tempfile
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import datasets  # type: ignore[import-untyped]
import httpx
import huggingface_hub
import msgspec
from datasets import load_dataset

Fields = TypeVar("Fields", bound=msgspec.Struct)

SPLITS = ("auxiliary_train", "validation", "dev_test", "train", "test", "dev", "val")  # longer names first
ALIASES = {"val": "validation"}


class DataError(ValueError):
    """Data that cannot be used; the message names the file and the line."""


class Row(NamedTuple):
    """One example, as a data set has it."""

    values: dict[str, Any]
    place: str  # "answers.jsonl, line 3"
    file: str  # "abstract_algebra_test.csv", or the name on the hub
    from_csv: bool = False  # so every value is a text


def read_hub(name: str, configuration: str | None, split: str) -> list[Row]:
    """Read a split of a data set on the hub, or of its copy in the local cache when the hub cannot be reached.

    Raises DataError when neither has it.
    """
    if not _hub_answers():
        datasets.config.HF_HUB_OFFLINE = True  # it would be tried again and again for half a minute
    try:
        data = load_dataset(name, configuration, split=split)
    except (OSError, ValueError) as error:
        place = f"{name}, split {split}"
        raise DataError(
            f"{place}: neither the hub nor the local cache has it ({error}); give a copy with --data PATH"
        ) from None
    return [Row(dict(values), f"{name} {split}, row {row}", name) for row, values in enumerate(data)]


def _hub_answers() -> bool:
    try:
        httpx.head(huggingface_hub.constants.ENDPOINT, timeout=5)
    except httpx.TransportError:
        return False
    return True


def find_files(path: Path, split: str, stem: str | None = None) -> list[Path]:
    """Return the files that hold a split: the path itself, or those of a folder whose names say so.

    Of a folder in which no name mentions a split, the file of that `stem` is taken, or the only one. Raises DataError
    when there is none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in READERS)
    split_of = {file: _mentioned_split(file.relative_to(path)) for file in files}
    named = [file for file in files if split_of[file] == split]
    if named:
        return named
    unnamed = [file for file in files if split_of[file] is None and stem in (None, file.stem)]
    if len(unnamed) == 1 and not any(split_of.values()):
        return unnamed
    there = ", ".join(str(file.relative_to(path)) for file in files[:8]) or f"no {', '.join(READERS)}"
    raise DataError(f"{path}: expected a file whose name says {split!r}, found {there}; name the file itself")


def _mentioned_split(path: Path) -> str | None:
    for part in reversed(path.with_suffix("").parts):
        for split in SPLITS:
            if re.search(rf"(?<![a-z]){split}(?![a-z])", part.lower()):
                return ALIASES.get(split, split)
    return None


def read_file(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """Read a local file: JSON lines, a JSON array, CSV or parquet, by its suffix.

    `columns` names the columns of a CSV file without a header. Raises DataError, with file and line, for what is not
    UTF-8, not JSON, or no object, and for an empty file, and OSError when there is no such file.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: expected a file that ends in {', '.join(READERS)}")
    with path.open("rb"):  # a missing file is told apart from a broken one
        pass
    try:
        rows = reader(path, columns)
    except UnicodeDecodeError:
        raise DataError(_not_utf8(path)) from None
    if not rows:
        raise DataError(f"{path}, line 1: expected at least one example, the file has none")
    return rows


def _not_utf8(path: Path) -> str:
    content = path.read_bytes()
    try:
        content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return f"{path}, line {line}: expected UTF-8, got the byte 0x{content[error.start]:02x}"
    return f"{path}: not UTF-8"


def _stream(builder: str, path: Path, **options: Any) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as cache:  # of which streaming only uses a lock
        data = load_dataset(builder, data_files=str(path), split="train", streaming=True, cache_dir=cache, **options)
        return list(data)


def _read_json(path: Path, columns: Sequence[str] | None) -> list[Row]:
    """Read JSON lines, or in a file named .json an array of objects.

    `datasets` reads the text and not the JSON: its JSON reader takes a column of dates for timestamps, turns a column
    of mixed types into texts, and cannot say in which line something is wrong.
    """
    lines = [line["text"] for line in _stream("text", path, encoding="utf-8-sig")]
    text = "\n".join(lines)
    if path.suffix == ".json" and text.lstrip().startswith("["):
        return _read_array(path, text)
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return [_json_row(path, number, line) for number, line in numbered]


def _read_array(path: Path, text: str) -> list[Row]:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise DataError(f"{path}, line 1: not JSON (nested too deeply)") from None
    rows, position, line = [], 0, 1
    for element in msgspec.json.decode(text, type=list[msgspec.Raw]):
        source = bytes(element).decode()
        start = text.index(source, position)
        line += text.count("\n", position, start)
        rows.append(_json_row(path, line, source))
        line += source.count("\n")
        position = start + len(source)
    return rows


def _json_row(path: Path, line: int, source: str) -> Row:
    place = f"{path}, line {line}"
    try:
        values = msgspec.json.decode(source)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({str(error).removeprefix('JSON is malformed: ')})") from None
    if not isinstance(values, dict):
        raise DataError(f"{place}: expected a JSON object, got {_kind(values)}")
    return Row(values, place, path.name)


def _read_csv(path: Path, columns: Sequence[str] | None) -> list[Row]:
    """Read CSV with every cell as a text: pandas would take the option "None" for a missing value, and 1.50 for 1.5."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        has_header = columns is None or (header is not None and columns[0] in header)
        names = header if has_header else list(columns or ())
        width = len(names or ())
        lines, line = [] if has_header else [1], reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != width:
                raise DataError(f"{path}, line {line}: expected {width} cells, got {len(cells)}")
            if cells:
                lines.append(line)
            line = reader.line_num + 1
    if header is None:
        return []
    if len(header) != width:
        raise DataError(f"{path}, line 1: expected {width} cells, got {len(header)}")
    as_text: dict[int, Callable[[str], str]] = dict.fromkeys(range(width), str)
    options = {"names": names, "header": 0 if has_header else None, "converters": as_text, "keep_default_na": False}
    rows = _stream("csv", path, encoding="utf-8-sig", **options)
    return [Row(row, f"{path}, line {line}", path.name, True) for row, line in zip(rows, lines, strict=True)]


def _read_parquet(path: Path, columns: Sequence[str] | None) -> list[Row]:
    try:
        rows = _stream("parquet", path)
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise DataError(f"{path}: not parquet ({' '.join(str(error).split())})") from None
    return [Row(row, f"{path}, row {number}", path.name) for number, row in enumerate(rows, start=1)]


READERS: dict[str, Callable[[Path, Sequence[str] | None], list[Row]]] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def as_schema(row: Row, schema: type[Fields]) -> Fields:
    """Return a row as the given schema; fields that the schema lacks are left out, and nulls count as missing.

    A schema with a field `file` is told the file's name. Raises DataError, with the row's place, for a missing field
    and for one of the wrong type.
    """
    values: dict[str, Any] = {"file": row.file}
    values |= {name: value for name, value in row.values.items() if value is not None}
    if row.from_csv:
        values = _decoded_cells(values, schema)
    try:
        return msgspec.convert(values, schema, strict=not row.from_csv)
    except msgspec.ValidationError as error:
        raise DataError(f"{row.place}: {_in_words(str(error))}") from None


def _decoded_cells(values: dict[str, str], schema: type[msgspec.Struct]) -> dict[str, Any]:
    """Decode the JSON in cells of fields that cannot be texts; an empty cell is a missing value."""
    types_of = {field.name: field.type for field in msgspec.structs.fields(schema)}
    decoded: dict[str, Any] = {}
    for name, cell in values.items():
        if name in types_of and not _takes_text(types_of[name]):
            if not cell:
                continue
            try:
                decoded[name] = msgspec.json.decode(cell)
                continue
            except msgspec.DecodeError:
                pass
        decoded[name] = cell
    return decoded


def _takes_text(kind: Any) -> bool:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return any(_takes_text(part) for part in typing.get_args(kind))
    return kind is str


def _in_words(message: str) -> str:
    """Say msgspec's message about a row as one says it about a field."""
    missing = re.fullmatch(r"Object missing required field `(\w+)`(?: - at `\$\.?(.*)`)?", message)
    if missing:
        inside = f" in {missing[2]}" if missing[2] else ""
        return f"the field {missing[1]}{inside} is missing"
    what, _, place = message.partition(" - at `$.")
    said = re.sub("`([^`]*)`", lambda kinds: _kinds(kinds[1]), what)
    return f"field {place.rstrip('`')}: {said[0].lower()}{said[1:]}"


def _kinds(names: str) -> str:
    return " or ".join(KINDS.get(name, name) for name in names.split(" | ") if name != "null" or names == "null")


def _kind(value: Any) -> str:
    return KINDS["array" if isinstance(value, list) else "null" if value is None else type(value).__name__]


KINDS = {
    "str": "a text",
    "int": "a number",
    "float": "a number",
    "bool": "a truth value",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
