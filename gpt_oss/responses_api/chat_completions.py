"""`POST /v1/chat/completions`, over the same turns as the Responses API."""

import asyncio
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gpt_oss.responses_api.chat_mapper import ChatMapper
from gpt_oss.responses_api.chat_models import ChatRequest, responses_body
from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.http_bodies import RunStream, data_event, json_response
from gpt_oss.responses_api.output_items import new_id
from gpt_oss.responses_api.request_models import parse
from gpt_oss.responses_api.run import until_finished
from gpt_oss.responses_api.service import ResponseService


async def chat_completion(service: ResponseService, body: dict[str, Any], http: Request) -> Response:
    """Answer a request; raises ApiError."""
    chat = await asyncio.to_thread(parse, ChatRequest, body)
    try:
        request = await service.parsed(responses_body(chat))
        prepared = await service.prepare(request, None, seed=chat.seed)
        mapper = ChatMapper(
            chat.model or service.settings.model,
            prepared.offer,
            logprobs=bool(chat.logprobs),
            include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        )
        run = service.run(new_id("chat_run"), mapper, prepared)
        await run.started()
    except ApiError as error:
        raise _in_terms_of_chat(error, chat) from None
    if chat.stream:
        return RunStream(run, frame=data_event)
    await until_finished(run, http.receive)
    if mapper.failure is not None:
        raise ApiError(mapper.failure, status=500, type="server_error", code="server_error")
    return json_response(mapper.completion())


_NAMES = {
    "input": "messages",
    "text.format.name": "response_format.json_schema.name",
    "text.format.schema": "response_format.json_schema.schema",
    "text.format": "response_format",
    "max_output_tokens": "max_tokens",
}
"""What a parameter is called here; the first that fits."""
_TOOL = re.compile(r"tools\[(\d+)\]\.(?!type)")


def _in_terms_of_chat(error: ApiError, chat: ChatRequest) -> ApiError:
    """The complaint with Chat's names of the parameters."""
    asked = error.param or ""
    found = next((name for name in _NAMES if asked.startswith(name)), None)
    param = asked
    if found == "input":
        param = "messages"  # one message becomes several items, so no number is right
    elif found is not None:
        param = asked.replace(found, _NAMES[found], 1)
    elif tool := _TOOL.match(asked):
        kind = (chat.tools or [])[int(tool[1])].get("type")
        param = f"tools[{tool[1]}].{kind}.{asked[tool.end() :]}"
    message = error.message.replace(f"'{asked}'", f"'{param}'") if asked else error.message
    return ApiError(
        message, status=error.status, type=error.type, param=param or None, code=error.code, headers=error.headers
    )
