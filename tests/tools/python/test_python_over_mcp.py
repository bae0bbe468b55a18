"""Python behind the protocol, in a real container that lives as long as the client."""

import pytest
from mcp import Client

from tests.helpers.docker_engine import TestEngine
from tests.tools.test_mcp import program, text_of


@pytest.mark.usefixtures("nothing_left")
async def test_a_stateful_session_over_stdio(engine: TestEngine) -> None:
    environment = {"DOCKER_HOST": engine.url, "PYTHON_IMAGE": engine.image}
    async with Client(program("python", PYTHON_EXECUTION_BACKEND="docker_session", **environment)) as client:
        assert await text_of(client, "python", {"code": "print('Hello, world!'); x = 41"}) == "Hello, world!\n"
        assert "ZeroDivisionError" in await text_of(client, "python", {"code": "1 / 0"})
        assert await text_of(client, "python", {"code": "print(x + 1)"}) == "42\n"
