"""A real HTTP server on the loopback interface, in place of a provider or of the web."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class WebServer:
    """A running server: its address and what it was asked, in order."""

    url: str
    requests: list[web.Request] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        """Paths asked for so far."""
        return [request.path for request in self.requests]


@asynccontextmanager
async def serving(handlers: Mapping[str, Handler | web.Response], host: str = "127.0.0.1") -> AsyncIterator[WebServer]:
    """Serve `handlers` by path, whatever the method; other paths are answered with 404."""
    server = WebServer("")

    async def answer(request: web.Request) -> web.StreamResponse:
        server.requests.append(request)
        handler = handlers.get(request.path)
        if handler is None:
            raise web.HTTPNotFound
        return handler if isinstance(handler, web.Response) else await handler(request)

    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0)
        await site.start()
        address, port = runner.addresses[0][:2]
        server.url = f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
        yield server
    finally:
        await runner.cleanup()


def in_turn(*responses: Callable[[], web.Response]) -> Handler:
    """Answer each request with the next of `responses`, the last one for ever."""
    waiting = list(responses)

    async def answer(_: web.Request) -> web.Response:
        return (waiting.pop(0) if len(waiting) > 1 else waiting[0])()

    return answer


def page(body: str | bytes, content_type: str = "text/html; charset=utf-8", status: int = 200) -> Handler:
    """Answer with `body`, always anew (an aiohttp response can be sent once)."""
    data = body.encode() if isinstance(body, str) else body
    headers = {"Content-Type": content_type} if content_type else {}
    return in_turn(lambda: web.Response(body=data, headers=headers, status=status))


def redirect(location: str, status: int = 302) -> Handler:
    """Answer with a redirect."""
    return in_turn(lambda: web.Response(status=status, headers={"Location": location}))
