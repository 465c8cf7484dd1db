"""Models by name: the course's own, a local folder, or the hub."""

from pathlib import Path

from shared_tasks.models.transformers_model import TransformersModel

WEIGHTS = Path(__file__).parent / "course" / "weights"


def course_models() -> list[str]:
    """Return the names of the models that ship with the kit."""
    return sorted(folder.name for folder in WEIGHTS.iterdir() if folder.is_dir())


def load_model(name: str) -> TransformersModel:
    """Load a course model by name, offline, or any other model from a local folder or the hub.

    Raises ValueError when a name that looks like a course model's is none, and OSError when a folder or hub name
    cannot be loaded.
    """
    if name in course_models():
        return TransformersModel(str(WEIGHTS / name))
    if name.startswith("course-"):
        raise ValueError(f"no course model {name!r}; there are: {', '.join(course_models())}")
    return TransformersModel(name)
