"""The bodies of answers, as documentation: what `/docs` shows and what tests hold the answers against.

Answers are built as dicts where they are made, because most of them grow event by event.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer has all its fields and no others."""

    model_config = ConfigDict(extra="forbid")


class ErrorObject(Answer):
    """What was wrong. `param` is the path of the field, `code` a word that programs know."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Answer):
    """Every refusal."""

    error: ErrorObject


class InputTokensDetails(Answer):
    """Of the input: found in the cache, written to it for a price (never here)."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Answer):
    """Of the output."""

    reasoning_tokens: int


class Usage(Answer):
    """Token counts of one response."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseError(Answer):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(Answer):
    """Why a response ended early."""

    reason: Literal["max_output_tokens", "content_filter"]


class Response(BaseModel):
    """A response: the echo of its request, and what was made."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["completed", "failed", "in_progress", "cancelled", "queued", "incomplete"]
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    truncation: Literal["auto", "disabled"]
    usage: Usage | None
    metadata: dict[str, str]


class DeletedResponse(Answer):
    """A response was forgotten."""

    id: str
    object: Literal["response"]
    deleted: bool


class ItemList(Answer):
    """A page of items."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(Answer):
    """The length of a prompt."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class CompactedResponse(Answer):
    """A conversation, shortened: the user's messages and a summary."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[dict[str, Any]]
    usage: Usage


class ChatCompletion(BaseModel):
    """An answer to a list of messages."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]


class Model(Answer):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Answer):
    """All models that are served."""

    object: Literal["list"]
    data: list[Model]


class Health(Answer):
    """The server takes requests."""

    status: Literal["ok", "stopping"]


ALL = (
    ErrorBody,
    Response,
    DeletedResponse,
    ItemList,
    InputTokens,
    CompactedResponse,
    ChatCompletion,
    ModelList,
    Model,
    Health,
)
