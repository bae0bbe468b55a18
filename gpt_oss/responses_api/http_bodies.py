"""Bytes on the wire: request bodies in, JSON and server-sent events out.

Bodies are decoded here rather than by FastAPI, because its answers to a bad one are not OpenAI's. Every event leaves as
one chunk: readers exist that lose an event which arrives in two.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.run import ApiEvent, Run

DONE = b"data: [DONE]\n\n"
MAX_DEPTH = 100
"""Of a request's JSON: the libraries that schemas are given to refuse more than 128 levels."""
MAX_DIGITS = 1000
"""Of an integer in a request."""
_NO_BUFFERING = {"cache-control": "no-store", "x-accel-buffering": "no"}


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """The request's JSON object; raises ApiError 400 or 413."""
    coding = request.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise ApiError(f"A body with content-encoding {coding:.20} cannot be read here; send it as it is.")
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > limit:
                raise ApiError(f"The request is larger than {limit:,} bytes.", status=413, code="request_too_large")
    except ClientDisconnect:
        raise ApiError("The request ended before its body was complete.") from None
    return await asyncio.to_thread(decode_object, bytes(content))


def decode_object(content: bytes | str) -> dict[str, Any]:
    """JSON text that must be an object; raises ApiError."""
    try:
        body = json.loads(content, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer)
        if isinstance(body, dict) and _is_deeper(body, MAX_DEPTH):
            raise RecursionError
    except (ValueError, RecursionError) as error:
        too_deep = isinstance(error, RecursionError)
        reason = f"it is nested deeper than {MAX_DEPTH} levels" if too_deep else str(error)
        raise ApiError(f"We could not parse the JSON body of your request: {reason}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError("The body of a request must be a JSON object.", code="invalid_json")
    # JSON can escape half a character, which neither UTF-8 nor the database can carry.
    escaped = b"\\ud" in content.lower() if isinstance(content, bytes) else "\\ud" in content.lower()
    return _carriable(body) if escaped else body


def _carriable(value: Any) -> Any:
    """The value with U+FFFD in place of every lone surrogate."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_carriable(item) for item in value]
    if isinstance(value, dict):
        return {_carriable(name): _carriable(item) for name, item in value.items()}
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    """A number; JSON knows no infinity, so what is larger than a float could not be sent back."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text:.20} is too large a number")
    return number


def _integer(text: str) -> int:
    """A number that is not longer than Python reads, and no integer of this API is."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"{text:.20} is too large a number")
    return int(text)


def _is_deeper(value: dict[str, Any] | list[Any], levels: int) -> bool:
    """Whether arrays and objects are nested deeper than that."""
    nodes = [value]
    for _ in range(levels):
        children = (node.values() if isinstance(node, dict) else node for node in nodes)
        nodes = [child for group in children for child in group if isinstance(child, dict | list)]
        if not nodes:
            return False
    return True


def encode(value: Any) -> bytes:
    """JSON in UTF-8; a lone surrogate, which UTF-8 cannot carry, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(encode(value), status, headers, "application/json")


def named_event(event: ApiEvent) -> bytes:
    """An event of the Responses API as SSE: `event:` equals `type`."""
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), encode(event))


def data_event(event: ApiEvent) -> bytes:
    """A chunk of Chat Completions as SSE."""
    return b"data: %s\n\n" % encode(event)


class RunStream(StreamingResponse):
    """The events of a run as SSE. owned: the run ends when its reader goes away."""

    def __init__(
        self, run: Run, after: int = -1, *, owned: bool = True, frame: Callable[[ApiEvent], bytes] = named_event
    ):
        super().__init__(_frames(run, after, frame), media_type="text/event-stream", headers=_NO_BUFFERING)
        self._run = run
        self._owned = owned

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; also where the first byte is never asked for, the run ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._owned and not self._run.over:
                self._run.cancel()


async def _frames(run: Run, after: int, frame: Callable[[ApiEvent], bytes]) -> AsyncIterator[bytes]:
    async for event in run.follow(after):
        yield frame(event)
    yield DONE


class EventStream(StreamingResponse):
    """Events that are over, as SSE."""

    def __init__(self, events: list[ApiEvent]):
        super().__init__(self._all(events), media_type="text/event-stream", headers=_NO_BUFFERING)

    @staticmethod
    async def _all(events: list[ApiEvent]) -> AsyncIterator[bytes]:
        for event in events:
            yield named_event(event)
        yield DONE
