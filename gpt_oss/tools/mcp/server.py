"""A tool of ours as a server of the Model Context Protocol.

Each function of the tool's namespace becomes a tool of the protocol; a namespace without functions, as python is,
becomes one tool with the argument `code`. Over stdio there is one client. Over HTTP every protocol session has a
tool of its own; the revision of 2026-07-28 has no sessions there, so this server offers the revisions before it, to
which clients fall back by themselves.
"""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from openai_harmony import Author, Message, Role, TextContent

from gpt_oss import __version__
from gpt_oss.errors import MissingExtra, ToolError
from gpt_oss.tools.mcp.sessions import Sessions
from gpt_oss.tools.tool import Tool, message_text

try:
    import mcp_types as types
    from mcp import MCPError
    from mcp.server import Server, ServerRequestContext
    from mcp.server.stdio import stdio_server
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.types import ASGIApp, Receive, Scope, Send
except ImportError as error:
    raise MissingExtra("mcp (2.3 or newer)", "mcp") from error

HTTP_PATH: Final = "/mcp"
_SESSION_HEADER: Final = "mcp-session-id"
_CODE: Final = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "Python source"}},
    "required": ["code"],
}

Context = ServerRequestContext[Sessions, Any]


async def serve_stdio(make_tool: Callable[[], Tool]) -> None:
    """Serve one client on standard input and output until it hangs up."""
    server = make_server(make_tool)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def http_app(make_tool: Callable[[], Tool], host: str = "127.0.0.1") -> Starlette:
    """Make the streamable HTTP server as an ASGI application; its endpoint is HTTP_PATH.

    For a `host` that is this machine only, requests with a foreign Host or Origin header are refused.
    """
    sessions = Sessions(make_tool)
    server = make_server(make_tool, sessions)
    server.add_request_handler("server/discover", types.RequestParams, _refuse_revision)
    app = server.streamable_http_app(streamable_http_path=HTTP_PATH, host=host)
    app.add_middleware(_EndSessions, sessions=sessions)
    return app


def make_server(make_tool: Callable[[], Tool], sessions: Sessions | None = None) -> Server[Sessions]:
    """Make the protocol server; raises what `make_tool` raises, so that a wrong setting shows at the start."""
    sample = make_tool()
    lent = sessions or Sessions(make_tool)
    config = sample.tool_config
    tools = _protocol_tools(sample)

    @asynccontextmanager
    async def lifespan(_: Server[Sessions]) -> AsyncIterator[Sessions]:
        async with sample:
            try:
                yield lent
            finally:
                await lent.close()

    async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def call_tool(context: Context, call: types.CallToolRequestParams) -> types.CallToolResult:
        async with context.lifespan_context.tool(_session_key(context)) as tool:
            return await _call(tool, call.name, call.arguments or {})

    return Server(
        f"gpt-oss-{sample.name}",
        version=__version__,
        instructions=config and config.description,
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _protocol_tools(tool: Tool) -> list[types.Tool]:
    config = tool.tool_config
    if config is None or not config.tools:
        return [types.Tool(name=tool.name, description=tool.instruction, input_schema=_CODE)]
    return [
        types.Tool(
            name=function.name,
            description=function.description,
            input_schema=function.parameters or {"type": "object", "properties": {}},
        )
        for function in config.tools
    ]


async def _call(tool: Tool, name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    """Call the function `name` as a model does; what goes wrong is a result with `is_error`."""
    try:
        message = _message(tool, name, arguments)
        replies = [message_text(reply) async for reply in tool.run(message)]
    except ToolError as error:
        return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
    content: list[types.ContentBlock] = [types.TextContent(text=text) for text in replies]
    figures: dict[str, bytes] = getattr(tool, "figures", {})  # of python: PNG images its code drew
    images = [base64.b64encode(image).decode() for image in figures.values()]
    return types.CallToolResult(
        content=[*content, *(types.ImageContent(data=image, mime_type="image/png") for image in images)]
    )


def _message(tool: Tool, name: str, arguments: dict[str, Any]) -> Message:
    config = tool.tool_config
    if config is not None and config.tools:
        recipient, text = f"{tool.name}.{name}", json.dumps(arguments)
    else:
        if list(arguments) != ["code"] or not isinstance(arguments["code"], str):
            raise ToolError(f"{tool.name} takes one argument, the string 'code'")
        recipient, text = name, arguments["code"]
    return Message(author=Author(role=Role.ASSISTANT), content=[TextContent(text=text)], recipient=recipient)


class _EndSessions:
    """ASGI middleware that closes a session's tool when its client takes leave, by DELETE."""

    def __init__(self, app: ASGIApp, sessions: Sessions):
        self._app = app
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        if scope["type"] == "http" and scope["method"] == "DELETE":
            await self._sessions.end(Headers(scope=scope).get(_SESSION_HEADER))


def _session_key(context: Context) -> str | None:
    """Name the client's session: None over stdio, where there is but one client."""
    if context.request is None:
        return None
    key: str | None = context.request.headers.get(_SESSION_HEADER)
    if key is None:
        raise _revision_without_sessions(context)
    return key


async def _refuse_revision(context: Context, _: types.RequestParams | None) -> types.DiscoverResult:
    raise _revision_without_sessions(context)


def _revision_without_sessions(context: Context) -> MCPError:
    known = list(HANDSHAKE_PROTOCOL_VERSIONS)
    data = types.UnsupportedProtocolVersionErrorData(supported=known, requested=context.protocol_version)
    message = f"this server keeps state in sessions; begin one by `initialize` at a revision up to {known[-1]}"
    return MCPError(types.UNSUPPORTED_PROTOCOL_VERSION, message, data.model_dump(by_alias=True))
