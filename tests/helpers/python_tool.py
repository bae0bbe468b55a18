"""Calling the python tool as a model does, and looking at what its containers leave behind."""

import threading
import time
from collections.abc import Callable

import docker
from openai_harmony import Author, Message, Role, TextContent

from gpt_oss.tools.python_docker.docker_tool import PythonTool
from gpt_oss.tools.python_docker.pool import POOL_THREADS
from gpt_oss.tools.python_docker.reaper import LABEL


def code_message(code: str, recipient: str = "python") -> Message:
    """Make the message a model sends to run `code`."""
    return Message(
        author=Author(role=Role.ASSISTANT),
        content=[TextContent(text=code)],
        channel="analysis",
        recipient=recipient,
        content_type="code",
    )


async def answer(tool: PythonTool, code: str) -> str:
    """Return the text of the one message that the tool answers with."""
    (reply,) = [message async for message in tool.process(code_message(code, tool.name))]
    (content,) = reply.content
    assert isinstance(content, TextContent)
    return content.text


def containers(client: docker.DockerClient) -> list[str]:
    """Ids of all containers of the python tool, in any state."""
    return [found["Id"] for found in client.api.containers(all=True, filters={"label": LABEL})]


def settle_pools() -> None:
    """Wait until the pools have replaced and removed what was used."""
    for thread in threading.enumerate():
        if thread.name == POOL_THREADS:
            thread.join(60)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Poll `condition` until it is true (True) or `seconds` have passed (False)."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())
