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


def hash_files(folder: Path) -> str:
    """Return a SHA-256 of all files in a model's folder, by their names and contents."""
    hashed = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            contents = hashlib.file_digest(file, "sha256").hexdigest()
        hashed.update(f"{path.relative_to(folder).as_posix()}\0{contents}\n".encode())
    return hashed.hexdigest()
