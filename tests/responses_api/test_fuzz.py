"""Fuzzing with our own OpenAPI description: no input gives a 5xx, and every refusal is OpenAI's error object."""

import time

import hypothesis
import pytest

from gpt_oss.responses_api.api_server import create_api_server
from gpt_oss.responses_api.settings import Settings
from tests.responses_api.replies import answer
from tests.responses_api.single_reply import SameReply

EXAMPLES = 4  # a smoke of ten seconds; the slow test is the real one
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


SERVER = create_api_server(SameReply(answer("Hi.", "Greet.")), settings=Settings(slots=4))


async def app(scope, receive, send):
    """The server; schemathesis would start it and shut it down around every single request."""
    if scope["type"] != "lifespan":
        await SERVER(scope, receive, send)
        return
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})


SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", app)


def check(case):
    """Send it; the answer is no fault of the server's, and a refusal has OpenAI's shape."""
    answered = case.call()
    assert answered.status_code < 500, answered.text
    assert answered.status_code != 422
    if answered.status_code >= 400:
        assert set(answered.json()["error"]) == {"message", "type", "param", "code"}


def settings(examples):
    return hypothesis.settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )


@SCHEMA.parametrize()
@settings(EXAMPLES)
def test_no_input_breaks_the_server(case):
    check(case)


@pytest.mark.slow  # two minutes, which is what it is for: pytest -m slow tests/responses_api/test_fuzz.py
def test_no_input_breaks_the_server_for_two_minutes():
    """Round after round over all operations, each with other examples."""
    operations = [found.ok() for found in SCHEMA.get_all_operations()]
    end, rounds = time.monotonic() + 120, 0
    while time.monotonic() < end:
        for operation in operations:
            settings(50)(hypothesis.given(case=operation.as_strategy())(check))()
        rounds += 1
    assert rounds
