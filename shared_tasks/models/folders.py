"""Where the files of a model lie."""

import hashlib
from pathlib import Path

WEIGHTS = Path(__file__).parent / "course" / "weights"


def course_models() -> list[str]:
    """Return the names of the models that ship with the kit."""
    return sorted(folder.name for folder in WEIGHTS.iterdir() if folder.is_dir())


def model_folder(name_or_path: str) -> Path:
    """Return the folder of a course model, or a local folder as it is.

    Raises ValueError when there is neither.
    """
    folder = WEIGHTS / name_or_path if name_or_path in course_models() else Path(name_or_path)
    if not (folder / "config.json").is_file():
        names = ", ".join(course_models())
        raise ValueError(f"expected a course model ({names}) or a folder with config.json, got {name_or_path!r}")
    return folder


def digest_of(name_or_path: str) -> str:
    """Return a hash of all files of a model, by their names and contents. Raises as `model_folder`."""
    hashed = hashlib.sha256()
    folder = model_folder(name_or_path)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        contents = hashlib.sha256(file.read_bytes()).hexdigest()
        hashed.update(f"{file.relative_to(folder).as_posix()}\0{contents}\n".encode())
    return hashed.hexdigest()
