"""`POST /v1/responses/compact`: a conversation becomes the user's messages and a summary for this server."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from gpt_oss.responses_api.conversation import seal
from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.event_mapper import EventMapper
from gpt_oss.responses_api.output_items import new_id
from gpt_oss.responses_api.preparation import response_fields
from gpt_oss.responses_api.request_models import PromptRequest
from gpt_oss.responses_api.run import until_finished
from gpt_oss.responses_api.service import ResponseService, listed_input

REQUEST = (
    "Write a summary of our conversation for somebody who continues it without having read it: what was asked, what "
    "was found out and decided, what was done, and what is still open. Answer with the summary alone."
)


async def compact(
    service: ResponseService, body: dict[str, Any], receive: Callable[[], Awaitable[Any]]
) -> dict[str, Any]:
    """The answer to a request; raises ApiError."""
    given = body.get("input")
    asked = [{"role": "user", "content": given}] if isinstance(given, str) else given
    items = [*asked, {"role": "user", "content": REQUEST}] if isinstance(asked, list | None) and asked else asked
    plain = {"tools": None, "tool_choice": None, "text": None, "store": False}
    asking = {**{name: body[name] for name in PromptRequest.model_fields if name in body}, **plain}
    asking["input"] = items or REQUEST
    request = await service.parsed(asking)
    previous = await service.previous(request)
    if not asked and previous is None:
        raise ApiError("'input' is required.", param="input", code="missing_required_parameter")
    prepared = await service.prepare(request, previous)
    mapper = EventMapper(response_fields(request, prepared.offer, service.settings), prepared.offer)
    run = service.run(new_id("cmp_run"), mapper, prepared)
    await run.started()
    await until_finished(run, receive)
    response = mapper.response
    if response["status"] == "incomplete":
        text = "The conversation leaves no room for its summary in the context window of this model."
        raise ApiError(text, param="input", code="context_length_exceeded")
    if response["status"] == "cancelled":
        raise ApiError("The request was cancelled.")  # nobody reads this
    if response["status"] != "completed":
        raise ApiError("The summary could not be made.", status=500, type="server_error", code="server_error")
    summary = "".join(
        part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]
    )
    earlier = [item for item in previous.input if item["type"] == "message"] if previous else []
    given = listed_input(asking["input"][:-1]) if asked else []
    messages = [item for item in [*earlier, *given] if item.get("role") == "user"]
    sealed = {"id": new_id("cmp"), "type": "compaction", "encrypted_content": seal(summary)}
    return {
        "id": new_id("resp"),
        "object": "response.compaction",
        "created_at": int(time.time()),
        "output": [*messages, sealed],
        "usage": response["usage"],
    }
