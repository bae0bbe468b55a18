"""The tools behind the protocol, called by the protocol's own client over stdio and HTTP."""

import asyncio
import base64
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import uvicorn
from mcp import Client, MCPError, StdioServerParameters
from openai_harmony import Message, ToolDescription, ToolNamespaceConfig

from gpt_oss.errors import ToolError
from gpt_oss.tools.mcp.server import HTTP_PATH, http_app, make_server
from gpt_oss.tools.mcp.sessions import Sessions
from gpt_oss.tools.registry import build_tool
from gpt_oss.tools.tool import Parameter, Tool, message_text, read_arguments

ROOT = Path(__file__).parents[2]


class Counter(Tool):
    """Counts its own calls: whoever shares an instance sees the other's count."""

    name = "counter"
    made: list["Counter"]

    def __init__(self) -> None:
        self.count = 0
        self.closed = False

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        schema = {"type": "object", "properties": {"by": {"type": "integer", "default": 1}}}
        add = ToolDescription.new("add", "Add to the count.", parameters=schema)
        return ToolNamespaceConfig(name=self.name, description="It counts.", tools=[add])

    async def _process(self, message: Message) -> AsyncGenerator[Message, None]:
        if message.recipient != "counter.add":
            raise ToolError(f"there is no function {message.recipient}")
        before = self.count
        step = read_arguments(message_text(message), {"by": Parameter((int,), 1)}, "counter.add")["by"]
        await asyncio.sleep(0.01)  # calls that did not take turns would both start from `before`
        self.count = before + step
        yield self.reply(message, f"now {self.count}")

    async def close(self) -> None:
        self.closed = True


class Painter(Tool):
    """Takes plain text, like python, and draws."""

    name = "painter"
    figures: dict[str, bytes]

    async def _process(self, message: Message) -> AsyncGenerator[Message, None]:
        self.figures = {"figure-1.png": b"\x89PNG " + message_text(message).encode()}
        yield self.reply(message, "drawn")


@contextmanager
def served(make_tool: Callable[[], Tool]) -> Iterator[str]:
    """Serve over HTTP on a free port in a thread of its own; yields the URL."""
    server = uvicorn.Server(uvicorn.Config(http_app(make_tool), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}{HTTP_PATH}"
    finally:
        server.should_exit = True
        thread.join()


def program(*arguments: str, **environment: str) -> StdioServerParameters:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("BROWSER_", "PYTHON_", "DOCKER_"))}
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "gpt_oss.tools.mcp", *arguments],
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
    )


async def text_of(client: Client, name: str, arguments: dict[str, object]) -> str:
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    return "".join(part.text for part in result.content if part.type == "text")


async def error_of(client: Client, name: str, arguments: dict[str, object]) -> str:
    result = await client.call_tool(name, arguments)
    assert result.is_error
    (part,) = result.content
    assert part.type == "text"
    return part.text


async def test_every_http_session_has_its_own_tool() -> None:
    made = []

    def make_tool() -> Counter:
        made.append(Counter())
        return made[-1]

    with served(make_tool) as url:
        async with Client(url) as one, Client(url) as other:
            assert await text_of(one, "add", {"by": 5}) == "now 5"
            assert await text_of(other, "add", {}) == "now 1"
            assert await text_of(one, "add", {"by": 2}) == "now 7"
        while [tool.closed for tool in made] != [False, True, True]:  # the two clients have taken leave
            await asyncio.sleep(0.01)
        async with Client(url) as third:
            assert await text_of(third, "add", {}) == "now 1"
    assert len(made) == 4  # one to ask for its description, one for each session
    assert all(tool.closed for tool in made)


async def test_calls_of_one_session_take_turns() -> None:
    with served(Counter) as url:
        async with Client(url) as client:
            answers = await asyncio.gather(*(text_of(client, "add", {}) for _ in range(8)))
    assert sorted(answers) == [f"now {count}" for count in range(1, 9)]


async def test_description_and_errors_reach_the_client() -> None:
    with served(Counter) as url:
        async with Client(url) as client:
            (tool,) = (await client.list_tools()).tools
            assert (tool.name, tool.description) == ("add", "Add to the count.")
            assert tool.input_schema["properties"] == {"by": {"type": "integer", "default": 1}}
            assert client.instructions == "It counts."
            assert "must be an integer, not a string" in await error_of(client, "add", {"by": "x"})
            assert await error_of(client, "nothing", {}) == "there is no function counter.nothing"
            assert await text_of(client, "add", {}) == "now 1"


async def test_plain_text_tools_take_code_and_give_figures() -> None:
    async with Client(make_server(Painter)) as client:
        (tool,) = (await client.list_tools()).tools
        assert (tool.name, tool.input_schema["required"]) == ("painter", ["code"])
        result = await client.call_tool("painter", {"code": "x"})
        text, image = result.content
        assert text.type == "text" and text.text == "drawn"
        assert image.type == "image" and image.mime_type == "image/png"
        assert image.data == "iVBORyB4"  # the bytes above in base64
        assert "takes one argument" in await error_of(client, "painter", {"code": 1})
        assert "takes one argument" in await error_of(client, "painter", {"code": "x", "more": 1})
        assert "does not answer to the name" in await error_of(client, "printer", {"code": "x"})


async def test_a_revision_without_sessions_is_refused_over_http() -> None:
    with served(Counter) as url:
        async with Client(url, mode="2026-07-28") as client:
            with pytest.raises(MCPError, match="keeps state in sessions"):
                await client.call_tool("add", {})


def test_a_setting_that_is_missing_shows_at_the_start() -> None:
    def make_tool() -> Tool:
        raise ToolError("YDC_API_KEY is not set")

    with pytest.raises(ToolError, match="YDC_API_KEY"):
        make_server(make_tool)


class Clock:
    """Time that passes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_idle_and_surplus_sessions_are_closed_but_none_at_work() -> None:
    clock = Clock()
    sessions = Sessions(Counter, idle_seconds=10, most=2, clock=clock)

    async def use(key: str | None) -> Counter:
        async with sessions.tool(key) as tool:
            assert isinstance(tool, Counter)
            return tool

    a = await use("a")
    assert await use("a") is a
    b = await use("b")
    async with sessions.tool("a") as lent:
        c = await use("c")  # three: b is the oldest that is idle
        assert (lent.closed, b.closed, c.closed) == (False, True, False)
        clock.now = 11
        d = await use("d")
        assert (lent.closed, c.closed) == (False, True)
    clock.now = 20
    assert await use("a") is a
    assert await use("b") is not b
    await sessions.close()
    assert a.closed and d.closed


async def test_browser_over_stdio_searches_opens_and_finds(tmp_path) -> None:
    (tmp_path / "tides.md").write_text("# Tides\n\nThe moon pulls the sea.\n")
    async with Client(program("browser", BROWSER_LOCAL_FOLDER=str(tmp_path))) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "open", "find"]
        assert "【0†Tides】" in await text_of(client, "search", {"query": "moon"})
        assert "The moon pulls the sea." in await text_of(client, "open", {"id": 0})
        assert "moon pulls" in await text_of(client, "find", {"pattern": "moon"})
        assert "needs the argument 'pattern'" in await error_of(client, "find", {})


class SearxngHandler(BaseHTTPRequestHandler):
    """Answers a search as SearXNG does, with one result that repeats the query."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)["q"][0]
        results = [{"title": f"About {query}", "url": "https://example.org/", "content": "Something."}]
        body = json.dumps({"query": query, "results": results}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_browser_over_http_keeps_the_pages_of_each_client_apart() -> None:
    searxng = ThreadingHTTPServer(("127.0.0.1", 0), SearxngHandler)
    threading.Thread(target=searxng.serve_forever).start()
    environment = {"SEARXNG_URL": f"http://127.0.0.1:{searxng.server_port}"}
    try:
        with served(lambda: build_tool("browser", environment)) as url:
            async with Client(url) as one, Client(url) as other:
                assert (await text_of(one, "search", {"query": "seas"})).startswith("[0] ")
                assert (await text_of(one, "search", {"query": "tides"})).startswith("[1] ")
                assert "About rain" in await text_of(other, "search", {"query": "rain"})
                assert (await text_of(other, "find", {"pattern": "rain"})).startswith("[1] ")
                assert "About seas" in await text_of(one, "open", {"cursor": 0})
                assert await error_of(other, "open", {"cursor": 7})
    finally:
        searxng.shutdown()
        searxng.server_close()


async def test_the_program_serves_http(tmp_path) -> None:
    (tmp_path / "page.txt").write_text("anything\n")
    server = program("browser", "--http", "--port", "0", BROWSER_LOCAL_FOLDER=str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        server.command, *server.args, env=server.env, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 300)).decode()
        url = line.split()[-1]
        async with Client(url) as client:
            assert await text_of(client, "search", {"query": "anything"})
    finally:
        process.send_signal(signal.SIGINT)
        _, complaint = await process.communicate()
    assert process.returncode == 130 and complaint == b"python -m gpt_oss.tools.mcp: interrupted\n"


async def test_python_over_stdio_without_an_engine_answers_in_one_line(tmp_path) -> None:
    server = program("python", DOCKER_HOST=f"unix://{tmp_path}/nowhere.sock")
    async with Client(server) as client:
        (tool,) = (await client.list_tools()).tools
        assert tool.name == "python"
        complaint = await error_of(client, "python", {"code": "print(1)"})
        assert "nowhere.sock" in complaint
        assert "\n" not in complaint
        assert await error_of(client, "python", {"code": "print(2)"})


async def test_a_wrong_setting_ends_the_program_with_one_line() -> None:
    server = program("python", PYTHON_EXECUTION_BACKEND="basic")
    process = await asyncio.create_subprocess_exec(
        server.command, *server.args, env=server.env, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.startswith(b"python -m gpt_oss.tools.mcp: error: ")
    assert b"'basic'" in stderr
    assert stderr.count(b"\n") == 1


async def test_any_text_survives_the_way() -> None:
    odd = "é 😀 \u2028 \u0000 \\n"
    async with Client(make_server(Painter)) as client:
        _, image = (await client.call_tool("painter", {"code": odd})).content
    assert image.type == "image"
    assert base64.b64decode(image.data) == b"\x89PNG " + odd.encode()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--port", "99999"], 2, "--port: expected a port from 0 to 65535, got '99999'"),
        (["--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1, port 8001"),
    ],
)
def test_an_address_that_cannot_be_had(options, status, said, tmp_path, monkeypatch, capsys) -> None:
    from gpt_oss.tools.mcp.__main__ import main

    monkeypatch.setenv("BROWSER_LOCAL_FOLDER", str(tmp_path))
    try:
        ended = main(["browser", "--http", *options])
    except SystemExit as left:
        ended = left.code
    assert ended == status and said in capsys.readouterr().err
