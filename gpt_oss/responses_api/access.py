"""Who may call, and what every answer carries: the API key, where a WebSocket comes from, a request id, a count.

An ASGI layer around the application, because Starlette's own middleware classes would stand between a response and the
news that its client has gone.
"""

import hmac
import time
import uuid
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.http_bodies import json_response
from gpt_oss.responses_api.metrics import Metrics
from gpt_oss.responses_api.settings import Settings

_OPEN = ("/health",)


class AccessMiddleware:
    """Checks `Authorization: Bearer …` where a key is set (not for /health), and sets `x-request-id`.

    A browser lets any page open a WebSocket to this machine and leaves it to the server to look where it comes from.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics):
        self._app = app
        self._key = settings.api_key
        self._origins = frozenset(settings.cors_origins)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed and refuse the rest."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            if self._has_key(scope) and self._may_connect(scope):
                await self._app(scope, receive, send)
            else:
                await receive()
                await send({"type": "websocket.close", "code": 1008, "reason": "invalid API key or origin"})
        elif self._has_key(scope):
            await self._app(scope, receive, self._marking(scope, send))
        else:
            text = "Incorrect or missing API key; send it as 'Authorization: Bearer KEY'."
            error = ApiError(text, status=401, code="invalid_api_key")
            refusal = json_response(error.body(), 401, {"www-authenticate": "Bearer"})
            await refusal(scope, receive, self._marking(scope, send))

    def _has_key(self, scope: Scope) -> bool:
        if self._key is None or scope["path"] in _OPEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, b"Bearer " + self._key.encode())

    def _may_connect(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")  # only browsers send it
        own = origin.partition("://")[2] == headers.get(b"host", b"").decode("latin-1")
        return not origin or own or not self._origins.isdisjoint((origin, "*"))

    def _marking(self, scope: Scope, send: Send) -> Send:
        began = time.monotonic()

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                milliseconds = int(1000 * (time.monotonic() - began))
                headers: list[Any] = list(message.get("headers", ()))
                headers.append((b"x-request-id", f"req_{uuid.uuid4().hex}".encode()))
                headers.append((b"openai-processing-ms", str(milliseconds).encode()))
                message = {**message, "headers": headers}
                route = scope.get("route")
                self._metrics.request(getattr(route, "path", "unknown"), message["status"])
            await send(message)

        return marked
