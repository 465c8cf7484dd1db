"""What goes over the wire: OpenAI's completions and chat completions, with the sampling parameters of vLLM.

Requests are checked by pydantic, strictly: a field that is unknown, or of another type, is an error. `null` stands for
a field's default, as clients send it. Answers are plain dictionaries whose types also describe them in /openapi.json.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict

from shared_tasks.models.engine import Message, SamplingParams


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
"""Makes 3.0 an integer, as it is one in JSON."""
Text = Annotated[str, Field(min_length=1)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0), Whole]], Field(min_length=1)]
LogitBias = Annotated[
    dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
    Field(json_schema_extra={"additionalProperties": False}),
]
Top = Annotated[int, Field(ge=0, le=20), Whole]

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "seed", "ignore_eos")
SEEDS = 2**62  # so far from 0 at most: PyTorch takes 64 bits, and answer i is drawn from seed + i


class Body(BaseModel):
    """A JSON object of a request."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(Body):
    """What a stream tells besides the answer."""

    include_usage: bool | None = None


class GenerationRequest(Body):
    """What both kinds of request have in common."""

    model: str
    max_tokens: Annotated[int, Field(ge=1), Whole] | None = None
    """At most; an answer ends earlier where the model's window does."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1), Whole] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=128), Whole] | None = None
    seed: Annotated[int, Field(ge=-SEEDS, le=SEEDS), Whole] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=16)] | None = None
    logit_bias: LogitBias | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Taken, and of no effect."""
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    """Taken where it asks for nothing, as the two after it: common clients send them."""
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    repetition_penalty: Annotated[float, Field(ge=1, le=1)] | None = None

    @property
    def stop_strings(self) -> list[str]:
        """Return the stop strings, none or one or several."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def includes_usage(self) -> bool:
        """Return whether a stream is to end with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling_params(self, logprobs: int | None, max_tokens: int) -> SamplingParams:
        """Return how one answer is drawn."""
        given = {name: value for name in SAMPLING if (value := getattr(self, name)) is not None}
        bias = {int(token): value for token, value in (self.logit_bias or {}).items()}
        return SamplingParams(**given, logit_bias=bias, logprobs=logprobs, max_tokens=max_tokens)


class CompletionRequest(GenerationRequest):
    """The body of POST /v1/completions."""

    prompt: str | TokenIds | Annotated[list[str], Field(min_length=1)] | Annotated[list[TokenIds], Field(min_length=1)]
    echo: bool | None = None
    """Give the prompt out before the answer; with `logprobs`, its tokens and their log-probabilities too."""
    logprobs: Top | None = None
    """Tell each token's log-probability, and those of so many of the most likely ones."""


class TextPart(Body):
    """A part of a message that has several."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    """Taken, and of no effect."""

    def message(self) -> Message:
        """Return the turn with its parts put together."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role=self.role, content=content)


class ChatRequest(GenerationRequest):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1), Whole] | None = None
    """The newer name of max_tokens, and first where both are given."""
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    """Only with `logprobs`."""


class Usage(TypedDict):
    """How many tokens a request has cost."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(TypedDict):
    """The tokens of a text, each with what goes with it in four lists of the same length."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TokenLogprob(TypedDict):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: NotRequired[list["TokenLogprob"]]


class ChatLogprobs(TypedDict):
    """The tokens of an answer."""

    content: list[TokenLogprob]


class CompletionChoice(TypedDict):
    """One answer, or a piece of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class AnswerMessage(TypedDict):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str


class ChatChoice(TypedDict):
    """One answer to a chat."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class CompletionResponse(TypedDict):
    """The answer of POST /v1/completions; a stream sends the same, piece by piece."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None


class ChatResponse(TypedDict):
    """The answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Model(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(TypedDict):
    """The answer of GET /v1/models."""

    object: Literal["list"]
    data: list[Model]


class Error(TypedDict):
    """What is wrong with a request, or with the server."""

    message: str
    type: str
    param: str | None
    """The field that is to blame."""
    code: str | None


class ErrorResponse(TypedDict):
    """The answer where there is no other."""

    error: Error


class APIError(Exception):
    """An error that the client is told of."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.headers = status, headers
        kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
        self.body = ErrorResponse(error=Error(message=message, type=kind, param=param, code=code))


def invalid_fields(errors: list[dict[str, Any]]) -> APIError:
    """Return pydantic's complaints about a body as an error that names its first wrong field."""
    if errors[0]["type"] == "json_invalid" or len(errors[0]["loc"]) < 2:
        return APIError(400, "expected a JSON object as the body, with the content type application/json")
    field = str(errors[0]["loc"][1])
    # A field of several types is wrong in several ways: each is told once.
    said = dict.fromkeys(error["msg"] for error in errors if str(error["loc"][1]) == field)
    return APIError(400, f"{field}: {'; or: '.join(said)}", param=field)
