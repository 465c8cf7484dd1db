"""From a task's name, split and path to its items."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from shared_tasks.tasks.reading import DataError, Row, as_schema, find_files, read_file, read_hub
from shared_tasks.tasks.task import DataSet, Item, Schema, Task

EMBEDDED = Path(__file__).parent / "data"


def load(
    task: Task[Item],
    split: str | None = None,
    data: Path | None = None,
    subject: str | None = None,
    limit: int | None = None,
) -> list[Item]:
    """Load a split of a task: from `data`, a file or folder, else from the kit or the hub.

    Of the items only those of a subject are kept, and of these the first `limit`. Raises DataError for data that cannot
    be used, and OSError for a path that is not there.
    """
    items = [to_item(task, row) for row in read_rows(task, split or task.data.split, data)]
    if subject is not None:
        groups = sorted({item.group for item in items})
        items = [item for item in items if item.group == subject]
        if not items:
            raise DataError(f"{task.name}: no subject {subject!r}; there are: {', '.join(groups)}")
    return items[:limit]


def read_rows(task: Task[Any], split: str, data: Path | None) -> list[Row]:
    """Read a split's rows from where they are; raises as `load`."""
    source = task.data
    if data is not None:
        return [row for file in find_files(data, split, source.stem) for row in read_file(file, source.columns)]
    if split not in source.splits:
        raise DataError(f"{task.name} has no split {split!r}; there are: {', '.join(source.splits)}")
    if source.hub is None:
        return read_file(EMBEDDED / task.name / f"{split}.jsonl")
    return read_hub(source.hub, source.configuration, split)


def to_item(task: Task[Item], row: Row) -> Item:
    """Return a row as an item of the task; raises DataError, with the row's place, when it cannot be one."""
    values = as_schema(row, _schema_of(task.data, row))
    try:
        return cast(Item, values.item())
    except ValueError as error:
        raise DataError(f"{row.place}: {error}") from None


def _schema_of(data: DataSet, row: Row) -> type[Schema]:
    there = {name for name, value in row.values.items() if value is not None}
    for schema in data.schemas:
        if {field.name for field in msgspec.structs.fields(schema) if field.required} <= there:
            return schema
    return data.schemas[0]


def load_shots(
    task: Task[Item], evaluated: str, data: Path | None, split: str | None = None, shots_data: Path | None = None
) -> list[Item]:
    """Load the examples that few-shot prompts are made from.

    They come from a train or dev split. Raises DataError for the evaluated split or file, and for a test split.
    """
    split = split or task.data.shots
    source = shots_data or data
    if split is None or (source is None and split not in task.data.splits):
        raise DataError(
            f"{task.name} has no train or dev split to take examples from; give some with --shots-data PATH"
        )
    if split in (evaluated, "test", "dev_test"):
        raise DataError(f"examples for the prompt come from a train or dev split, not from {split!r}")
    if source is not None and data is not None:
        files = set(find_files(source, split, task.data.stem))
        if any(
            file.resolve() in {path.resolve() for path in find_files(data, evaluated, task.data.stem)} for file in files
        ):
            raise DataError(f"{source}: examples for the prompt must not come from the file that is evaluated")
    return load(task, split, source)


def shots_for(task: Task[Item], item: Item, pool: Sequence[Item], count: int) -> list[Item]:
    """Return the first `count` examples of the pool, of the item's subject where the task goes by subject.

    Raises DataError when there are too few.
    """
    by_group = task.data.shots_by_group
    fitting = [example for example in pool if example.group == item.group] if by_group else list(pool)
    if len(fitting) < count:
        about = f" of {item.group}" if by_group else ""
        raise DataError(f"{count} examples{about} were asked for, there are {len(fitting)}")
    return fitting[:count]
