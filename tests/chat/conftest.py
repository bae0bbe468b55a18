"""A chat in a pseudo-terminal, with a scripted model."""

import json
import sys
from pathlib import Path

import pytest

from tests.helpers.docker_engine import engine_for_session
from tests.helpers.terminal import Terminal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scripted_chat(tmp_path):
    """Starts a chat in a terminal: `scripted_chat([replies], *options, columns=, lines=, …)`."""
    running = []

    def start(
        replies, *options, seconds_per_token=0.0, seconds_to_read=0.0, context_length=8192, environment=None, **size
    ):
        script = tmp_path / "script.json"
        settings = {"seconds_per_token": seconds_per_token, "seconds_to_read": seconds_to_read}
        settings |= {"context_length": context_length}
        script.write_text(json.dumps({"replies": replies, **settings}))
        terminal = Terminal(
            [sys.executable, "-m", "tests.chat.scripted_chat", str(script), *options],
            cwd=ROOT,
            environment={"GPT_OSS_HISTORY": str(tmp_path / "history"), **(environment or {})},
            **size,
        )
        running.append(terminal)
        return terminal

    yield start
    for terminal in running:
        terminal.__exit__()


@pytest.fixture(scope="session")
def container_engine():
    """An engine with a Python image, named by DOCKER_HOST for the rest of the session; in CI it has to be there."""
    with engine_for_session() as found:
        yield found
