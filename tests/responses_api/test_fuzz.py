"""Fuzzing with our own OpenAPI description: no input gives a 5xx, and every refusal is OpenAI's error object."""

import hypothesis
import pytest

from gpt_oss.responses_api.api_server import create_api_server
from gpt_oss.responses_api.settings import Settings
from tests.responses_api.replies import answer
from tests.responses_api.single_reply import SameReply

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


@SCHEMA.parametrize()
@hypothesis.settings(max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
def test_no_input_breaks_the_server(case):
    answered = case.call()
    assert answered.status_code < 500, answered.text
    assert answered.status_code != 422
    if answered.status_code >= 400:
        assert set(answered.json()["error"]) == {"message", "type", "param", "code"}
