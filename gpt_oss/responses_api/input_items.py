"""What clients may send as `input`: items and content parts, each as a model that ignores fields it does not know.

Clients echo whatever they were given once, with fields of their own, so nothing is required but what the prompt needs.
`conversation` turns items into what the model reads.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class Lenient(BaseModel):
    """No field is coerced (`"5"` is no number), unknown ones are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class TextPart(Lenient):
    """Plain text of any kind."""

    type: Literal["input_text", "output_text", "text", "reasoning_text", "summary_text"]
    text: str


class RefusalPart(Lenient):
    """What an assistant said instead of answering."""

    type: Literal["refusal"]
    refusal: str


class ImagePart(Lenient):
    """An image; gpt-oss cannot see it and is told so."""

    type: Literal["input_image"]
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class FilePart(Lenient):
    """A file; its content is shown where `file_data` holds text."""

    type: Literal["input_file"]
    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None


Part = Annotated[TextPart | RefusalPart | ImagePart | FilePart, Field(discriminator="type")]


class MessageItem(Lenient):
    """A message; `type` may be absent. phase: `commentary` for a preamble of the assistant's."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    phase: str | None = None


class ReasoningItem(Lenient):
    """Earlier reasoning, in the clear or as this server's `encrypted_content`."""

    type: Literal["reasoning"]
    content: list[TextPart] | None = None
    summary: list[TextPart] | None = None
    encrypted_content: str | None = None


class FunctionCallItem(Lenient):
    """A call that the model made earlier. status: `incomplete` where it was cut."""

    type: Literal["function_call"]
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    arguments: str
    namespace: str | None = None
    status: Any = None


class CustomToolCallItem(Lenient):
    """A call with free text. status: as a function call's."""

    type: Literal["custom_tool_call"]
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    input: str
    namespace: str | None = None
    status: Any = None


class CallOutputItem(Lenient):
    """What a call returned."""

    type: Literal["function_call_output", "custom_tool_call_output"]
    call_id: str = Field(min_length=1)
    output: str | list[Part]


class WebSearchCallItem(Lenient):
    """A search or page view that a server did."""

    type: Literal["web_search_call"]
    action: dict[str, Any] | None = None


class CodeInterpreterCallItem(Lenient):
    """Code that a server ran."""

    type: Literal["code_interpreter_call"]
    code: str | None = None
    outputs: list[dict[str, Any]] | None = None


class ItemReference(Lenient):
    """An item of a stored response, by its id; `type` may be absent."""

    type: Literal["item_reference"] | None = None
    id: str = Field(min_length=1)


class CompactionItem(Lenient):
    """A summary made by this server's `/responses/compact`."""

    type: Literal["compaction"]
    encrypted_content: str


class OtherItem(Lenient):
    """Known to the API, but nothing that gpt-oss was taught to read: accepted and left out of the prompt."""

    type: Literal[
        "additional_tools",
        "apply_patch_call",
        "apply_patch_call_output",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "configuration_update",
        "file_search_call",
        "image_generation_call",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
    ]


def _kind(item: Any) -> str | None:
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    if kind is None and isinstance(item, dict):
        return "message" if "role" in item or "id" not in item else "item_reference"
    if kind is None:
        return "message" if isinstance(item, MessageItem) else "item_reference"
    if not isinstance(kind, str):
        return str(kind)  # no known type
    if kind in _OTHER:
        return "other"
    return "call_output" if kind in ("function_call_output", "custom_tool_call_output") else kind


_OTHER = frozenset(OtherItem.model_fields["type"].annotation.__args__)  # type: ignore[union-attr]

InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[CustomToolCallItem, Tag("custom_tool_call")]
    | Annotated[CallOutputItem, Tag("call_output")]
    | Annotated[WebSearchCallItem, Tag("web_search_call")]
    | Annotated[CodeInterpreterCallItem, Tag("code_interpreter_call")]
    | Annotated[ItemReference, Tag("item_reference")]
    | Annotated[CompactionItem, Tag("compaction")]
    | Annotated[OtherItem, Tag("other")],
    Discriminator(_kind),
]
