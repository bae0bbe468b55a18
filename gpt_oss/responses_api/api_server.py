"""The HTTP application: routes, errors, keys. `create_api_server` makes it.

In: a `TokenGenerator` (or a function that gives one token at a time) and `Settings`. Out: a FastAPI application with
the Responses API, Chat Completions, models, health and metrics. Every refusal is OpenAI's error object, never a 422.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from gpt_oss import __version__
from gpt_oss.errors import GptOssError
from gpt_oss.responses_api.access import AccessMiddleware
from gpt_oss.responses_api.chat_completions import chat_completion
from gpt_oss.responses_api.compaction import compact
from gpt_oss.responses_api.errors import ApiError, api_error
from gpt_oss.responses_api.http_bodies import EventStream, RunStream, json_response, read_json
from gpt_oss.responses_api.openapi import describe, documented
from gpt_oss.responses_api.query import choice_parameter, flag_parameter, integer_parameter
from gpt_oss.responses_api.run import until_finished
from gpt_oss.responses_api.service import ResponseService
from gpt_oss.responses_api.settings import Settings
from gpt_oss.responses_api.single_token import NextToken, SingleTokenGenerator
from gpt_oss.responses_api.store import page
from gpt_oss.responses_api.websocket import serve_websocket
from gpt_oss.token_generator import TokenGenerator

logger = logging.getLogger(__name__)


def create_api_server(
    generator: TokenGenerator | NextToken | None = None,
    encoding: Any = None,
    *,
    settings: Settings | None = None,
    infer_next_token: NextToken | None = None,
) -> FastAPI:
    """The application.

    generator: what continues prompts; it stays the caller's to close. infer_next_token: in its place, a function
    (tokens, temperature, new_request) -> next token, as the public gpt-oss server takes it; `encoding` is that
    server's second argument, and not needed.
    """
    source = generator if generator is not None else infer_next_token
    if source is None:
        raise TypeError("create_api_server needs a TokenGenerator or infer_next_token")
    if not isinstance(source, TokenGenerator):
        source = SingleTokenGenerator(source)
    service = ResponseService(source, settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await service.shut_down(service.settings.shutdown_seconds)
        service.close()

    app = FastAPI(title="gpt-oss", version=__version__, lifespan=lifespan, redoc_url=None)
    app.state.service = service
    _add_errors(app)
    _add_responses(app, service)
    _add_others(app, service)
    describe(app)
    app.add_middleware(AccessMiddleware, settings=service.settings, metrics=service.metrics)
    if service.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(service.settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(GptOssError)
    async def refused(request: Request, error: GptOssError) -> Response:
        told = api_error(error)
        if told.status >= 500:
            logger.warning("a request failed: %s", told.message)
        return json_response(told.body(), told.status, told.headers)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> Response:
        told = ApiError(f"{error.detail}: {request.method} {request.url.path}", status=error.status_code)
        return json_response(told.body(), told.status, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        told = ApiError("The server had an error.", status=500, type="server_error", code="server_error")
        return json_response(told.body(), 500)


def _add_responses(app: FastAPI, service: ResponseService) -> None:
    limit = service.settings.max_body_bytes

    @app.post("/v1/responses", **documented("CreateResponse", "Response"))
    async def create_response(request: Request) -> Response:
        """Make a response."""
        body = await read_json(request, limit)
        made = await service.create(body)
        background = bool(body.get("background"))
        if body.get("stream"):
            return RunStream(made.run, owned=not background)
        if background:
            return json_response(made.run.events[1]["response"])  # as queued, however far it may be by now
        await until_finished(made.run, request.receive)
        return json_response(made.mapper.response)

    @app.post("/v1/responses/input_tokens", **documented("PromptRequest", "InputTokens"))
    async def input_tokens(request: Request) -> Response:
        """Count the tokens of a prompt."""
        tokens = await service.count_tokens(await read_json(request, limit))
        return json_response({"object": "response.input_tokens", "input_tokens": tokens})

    @app.post("/v1/responses/compact", **documented("PromptRequest", "CompactedResponse"))
    async def compact_response(request: Request) -> Response:
        """Replace a conversation by a summary of it."""
        return json_response(await compact(service, await read_json(request, limit), request.receive))

    @app.get("/v1/responses/{response_id}", **documented(None, "Response"))
    async def get_response(response_id: str, request: Request) -> Response:
        """A stored response, or its events with `stream=true` (after the one numbered `starting_after`)."""
        after = integer_parameter(request, "starting_after", -1, 0)
        record = await service.get(response_id)
        if not flag_parameter(request, "stream"):
            return json_response(record.response)
        if run := service.live(response_id):
            return RunStream(run, after, owned=False)
        return EventStream((await service.get(response_id)).events[after + 1 :])

    @app.delete("/v1/responses/{response_id}", **documented(None, "DeletedResponse"))
    async def delete_response(response_id: str) -> Response:
        """Forget a stored response."""
        await service.delete(response_id)
        return json_response({"id": response_id, "object": "response", "deleted": True})

    @app.post("/v1/responses/{response_id}/cancel", **documented(None, "Response"))
    async def cancel_response(response_id: str) -> Response:
        """End a background response."""
        return json_response((await service.cancel(response_id)).response)

    @app.get("/v1/responses/{response_id}/input_items", **documented(None, "ItemList"))
    async def input_items(response_id: str, request: Request) -> Response:
        """The input items of a stored response, newest first."""
        size = integer_parameter(request, "limit", 20, 1, 100)
        order = choice_parameter(request, "order", "desc", ("asc", "desc"))
        record = await service.get(response_id)
        return json_response(page(record.input, request.query_params.get("after"), size, order))

    @app.websocket("/v1/responses")
    async def response_socket(socket: WebSocket) -> None:
        await serve_websocket(socket, service)


def _add_others(app: FastAPI, service: ResponseService) -> None:
    @app.post("/v1/chat/completions", **documented("ChatRequest", "ChatCompletion"))
    async def create_chat_completion(request: Request) -> Response:
        """Answer a list of messages."""
        body = await read_json(request, service.settings.max_body_bytes)
        return await chat_completion(service, body, request)

    @app.get("/v1/models", **documented(None, "ModelList"))
    async def models() -> Response:
        """The one model that is served."""
        return json_response({"object": "list", "data": [service.model()]})

    @app.get("/v1/models/{model:path}", **documented(None, "Model"))
    async def model(model: str) -> Response:
        """A model that is served."""
        return json_response(service.model(model))

    @app.head("/health", include_in_schema=False)  # how some load balancers ask
    @app.get("/health", **documented(None, "Health"))
    async def health() -> Response:
        """Whether the server takes requests."""
        if service.stopping:
            return json_response({"status": "stopping"}, 503)
        return json_response({"status": "ok"})

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
