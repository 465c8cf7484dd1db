"""Models by name: the course's own, a local folder, the hub, or a server."""

from shared_tasks.models.endpoint import EndpointEngine
from shared_tasks.models.engine import Engine
from shared_tasks.models.folders import WEIGHTS, course_models
from shared_tasks.models.transformers_engine import TransformersEngine
from shared_tasks.models.transformers_model import TransformersModel
from shared_tasks.models.vllm_engine import VllmEngine

ENGINES = ("transformers", "vllm", "endpoint")


def model_path(name: str) -> str:
    """Return the folder of a course model, and any other name, of a folder or on the hub, as it is.

    Raises ValueError when a name that looks like a course model's is none.
    """
    if name in course_models():
        return str(WEIGHTS / name)
    if name.startswith("course-"):
        raise ValueError(f"no course model {name!r}; there are: {', '.join(course_models())}")
    return name


def load_model(name: str) -> TransformersModel:
    """Load a course model by name, offline, or any other model from a local folder or the hub.

    Raises ValueError when a name that looks like a course model's is none, and OSError when a folder or hub name
    cannot be loaded.
    """
    return TransformersModel(model_path(name))


def load_engine(
    model: str,
    engine: str = "transformers",
    base_url: str | None = None,
    tokenizer: str | None = None,
    batch_size: int | None = None,
) -> Engine:
    """Return an engine that runs a model.

    "transformers" and "vllm" load the model as `load_model` does and run `batch_size` sequences at a time. "endpoint"
    asks the server at `base_url`, at most `batch_size` requests at a time; `tokenizer` (a folder, or a name on the hub)
    lets it score chats, and is known for course models. Raises ValueError for another engine, as `load_model`, and as
    the engines.
    """
    if engine == "transformers":
        return TransformersEngine(model_path(model), batch_size=batch_size or 256, name=model)
    if engine == "vllm":
        return VllmEngine(model_path(model), batch_size=batch_size or 256, name=model)
    if engine == "endpoint":
        if base_url is None:
            raise ValueError("the engine endpoint needs a base_url, like http://localhost:8000/v1")
        if tokenizer is None and model in course_models():
            tokenizer = model
        return EndpointEngine(
            base_url, model, tokenizer=tokenizer and model_path(tokenizer), max_in_flight=batch_size or 32
        )
    raise ValueError(f"no engine {engine!r}; there are: {', '.join(ENGINES)}")
