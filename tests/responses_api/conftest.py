"""Servers for tests: in process (`client`) and on a socket (`live`), with models that say what a test wrote down."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from gpt_oss.responses_api.api_server import create_api_server
from gpt_oss.responses_api.settings import Settings
from gpt_oss.token_generator import TokenGenerator
from tests.helpers.scripted import ScriptedGenerator


@dataclass
class Server:
    """A client in process, and what is behind it."""

    client: TestClient
    generator: Any
    service: Any

    def post(self, body: Any, path: str = "/v1/responses") -> Any:
        return self.client.post(path, json=body)

    def json(self, body: Any, path: str = "/v1/responses") -> Any:
        answer = self.post(body, path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def error(self, body: Any, path: str = "/v1/responses", status: int = 400) -> dict[str, Any]:
        answer = self.post(body, path)
        assert answer.status_code == status, answer.text
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        return answer.json()["error"]


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start a server in process: `serve(*replies, **settings)`; generator= in place of replies."""
    with contextlib.ExitStack() as stack:

        def start(*replies: Any, generator: TokenGenerator | None = None, **settings: Any) -> Server:
            generator = generator or ScriptedGenerator(*replies)
            app = create_api_server(generator, settings=replace(Settings(slots=4), **settings))
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            return Server(client, generator, app.state.service)

        yield start


@pytest.fixture
def live() -> Iterator[Callable[..., str]]:
    """Start a server on a socket of this machine; gives its base URL."""
    with contextlib.ExitStack() as stack:

        def start(*replies: Any, generator: TokenGenerator | None = None, **settings: Any) -> str:
            generator = generator or ScriptedGenerator(*replies)
            app = create_api_server(generator, settings=replace(Settings(slots=4, shutdown_seconds=0.5), **settings))
            return stack.enter_context(listening(app))

        yield start


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """Run the application by uvicorn in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2, ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
