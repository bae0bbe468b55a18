"""Bodies of Chat Completions requests, and their translation into the Responses API's, which does the rest.

In: a decoded body. Out: a `ChatRequest` and the body of the equal Responses request. What the two APIs spell
differently is told apart here and nowhere else.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.input_items import Lenient
from gpt_oss.responses_api.request_models import Metadata


class ChatFunction(Lenient):
    """A called function."""

    name: str
    arguments: str


class ChatCustom(Lenient):
    """A called custom tool."""

    name: str
    input: str


class ChatToolCall(Lenient):
    """A call the model made earlier."""

    id: str = Field(min_length=1)
    type: Literal["function", "custom"] = "function"
    function: ChatFunction | None = None
    custom: ChatCustom | None = None


class ChatMessage(Lenient):
    """A message. reasoning, reasoning_content: what this server gave earlier, in either spelling. refusal: what an
    assistant said in place of its content."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None


class ChatStreamOptions(Lenient):
    """include_usage: a last chunk with token counts."""

    include_usage: bool | None = None


class ChatRequest(Lenient):
    """The body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    n: int | None = Field(default=None, ge=1, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    functions: Any = None
    function_call: Any = None
    metadata: Metadata | None = None


def responses_body(request: ChatRequest) -> dict[str, Any]:
    """The same request to the Responses API. Raises ApiError for what cannot be said there."""
    if request.stop:
        raise ApiError("'stop' is not supported with this model.", param="stop", code="unsupported_parameter")
    for name, successor in (("functions", "tools"), ("function_call", "tool_choice")):
        if getattr(request, name):
            text = f"'{name}' is not supported any more; use '{successor}'."
            raise ApiError(text, param=name, code="unsupported_parameter")
    body: dict[str, Any] = {
        "model": request.model,
        "input": [item for n, message in enumerate(request.messages) for item in _items(message, f"messages[{n}]")],
        "store": False,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_output_tokens": request.max_completion_tokens or request.max_tokens,
        "reasoning": {"effort": request.reasoning_effort},
        "tools": [_tool(tool) for tool in request.tools or ()],
        "tool_choice": _tool_choice(request.tool_choice),
        "parallel_tool_calls": request.parallel_tool_calls,
        "text": {"format": _format(request.response_format)},
        "include": ["message.output_text.logprobs"] if request.logprobs else [],
        "top_logprobs": request.top_logprobs if request.logprobs else None,
    }
    return body


def _items(message: ChatMessage, param: str) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        if not message.tool_call_id:
            raise ApiError("A tool's message needs 'tool_call_id'.", param=f"{param}.tool_call_id")
        output = _parts(message.content, param)
        yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": output}
        return
    if thought := message.reasoning or message.reasoning_content:
        yield {"type": "reasoning", "content": [{"type": "reasoning_text", "text": thought}]}
    calls = message.tool_calls or []
    content = message.content or message.refusal
    if content or not calls:
        phase = {"phase": "commentary"} if calls else {}
        yield {"type": "message", "role": message.role, "content": _parts(content, param), **phase}
    for number, call in enumerate(calls):
        if call.custom is not None:
            yield {"type": "custom_tool_call", "call_id": call.id, "name": call.custom.name, "input": call.custom.input}
        elif call.function is not None:
            function = {"name": call.function.name, "arguments": call.function.arguments}
            yield {"type": "function_call", "call_id": call.id, **function}
        else:
            raise ApiError("A tool call needs 'function' or 'custom'.", param=f"{param}.tool_calls[{number}]")


def _parts(content: str | list[dict[str, Any]] | None, param: str) -> str | list[dict[str, Any]]:
    if content is None or isinstance(content, str):
        return content or ""
    return [_part(part, f"{param}.content[{number}]") for number, part in enumerate(content)]


def _part(part: dict[str, Any], param: str) -> dict[str, Any]:
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "input_text", "text": part["text"]}
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "refusal", "refusal": part["refusal"]}
    if kind == "image_url":
        return {"type": "input_image"}
    if kind == "file" and isinstance(part.get("file"), dict):
        known = {name: value for name, value in part["file"].items() if isinstance(value, str)}
        return {"type": "input_file", **known}
    raise ApiError(
        f"Invalid value for '{param}': a part of type {kind!r:.40} is not supported.",
        param=f"{param}.type",
        code="invalid_value",
    )


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Chat nests what the Responses API has flat."""
    kind = tool.get("type")
    inner = tool.get(kind) if isinstance(kind, str) else None
    if not isinstance(inner, dict):
        return tool
    flat = {"type": kind, **inner}
    format = flat.get("format")
    if isinstance(format, dict) and isinstance(format.get("grammar"), dict):
        flat["format"] = {"type": "grammar", **format["grammar"]}
    return flat


def _tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    if not isinstance(choice, dict):
        return choice
    flat = _tool(choice)
    if isinstance(flat.get("tools"), list):
        flat["tools"] = [_tool(tool) if isinstance(tool, dict) else tool for tool in flat["tools"]]
    return flat


def _format(format: dict[str, Any] | None) -> dict[str, Any] | None:
    if format is None or not isinstance(format.get("json_schema"), dict):
        return format
    return {"type": format.get("type"), **format["json_schema"]}
