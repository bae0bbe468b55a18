"""The bodies of requests, and their validation with errors that name the field as the client wrote it.

In: a decoded JSON object. Out: a model, or an `ApiError` of status 400. Fields that this server does not know are
ignored; those it knows are checked, because a wrong one means a client that expects something else.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.input_items import InputItem, Lenient

Model = TypeVar("Model", bound=Lenient)

Include = Literal[
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "file_search_call.results",
    "computer_call_output.output.image_url",
]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class Reasoning(Lenient):
    """How long to think. Harmony knows low, medium and high; the others mean the nearest of them."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextFormat(Lenient):
    """The form of the answer. `schema` belongs to `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextOptions(Lenient):
    """Form and length of the answer; gpt-oss has no setting for `verbosity`, which is only echoed."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamOptions(Lenient):
    """Events are never padded here, so obfuscation has no effect."""

    include_obfuscation: bool | None = None


class PromptRequest(Lenient):
    """What decides the prompt: the part that `/responses/input_tokens` and `/responses/compact` share."""

    model: str | None = None
    input: str | list[InputItem] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    conversation: Any = None
    prompt: Any = None


class CreateResponse(PromptRequest):
    """The body of `POST /v1/responses`. Defaults are OpenAI's: temperature 1, top_p 1, store true.

    Penalties and `service_tier` are checked and echoed, and change nothing.
    """

    background: bool | None = None
    include: list[Include] | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    max_tool_calls: int | None = Field(default=None, ge=0)
    metadata: Metadata | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None


_MISSING = ("missing", "union_tag_not_found")
_MESSAGES = dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "input should be an object")
_MESSAGES |= dict.fromkeys(_MISSING, "field required")


def parse(model: type[Model], body: Any) -> Model:
    """The checked request; raises ApiError that names the field which is wrong."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _as_api_error(error, body) from None


def _as_api_error(error: ValidationError, body: Any) -> ApiError:
    """The deepest complaint: of `str | list[item]` it is the one about what the client meant."""
    found = [(_path(e["loc"], body, e["type"] in _MISSING), e) for e in error.errors(include_url=False)]
    path, worst = max(found, key=lambda pair: len(pair[0]))
    kind = worst["type"]
    if kind in ("union_tag_invalid", "union_tag_not_found") and path[-1:] != ["type"]:
        path = [*path, "type"]
    param = _written(path) or None
    code = "missing_required_parameter" if kind in _MISSING else "invalid_value"
    message = _MESSAGES.get(kind) or worst["msg"][0].lower() + worst["msg"][1:]
    if kind == "union_tag_invalid":
        message = f"{worst['ctx']['tag']!r} is not known here"
    text = f"Invalid value for '{param}': {message}." if param else f"Invalid request: {message}."
    return ApiError(text, param=param, code=code)


def _path(loc: tuple[int | str, ...], body: Any, missing: bool) -> list[int | str]:
    """The steps of a location that lead through the body; pydantic adds the names of union members.

    missing: the last step is a field that is not there.
    """
    path: list[int | str] = []
    for step in loc:
        if isinstance(body, dict) and step in body:
            body = body[step]
        elif isinstance(body, list):
            if not isinstance(step, int):
                continue  # the name of a member of a union
            body = body[step]
        elif not missing or not isinstance(body, dict) or step != loc[-1]:
            continue
        path.append(step)
    return path


def _written(path: list[int | str]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
