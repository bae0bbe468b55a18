"""Chat Completions where it differs from the Responses API: names of parameters, parts, legacy fields.

Whole dialogues with the SDK are in `test_openai_python`.
"""

import pytest

from tests.helpers.harmony_text import shown
from tests.helpers.scripted import ScriptedGenerator
from tests.responses_api.replies import answer, call

PATH = "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
CALLED = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def prompt_of(server, messages):
    server.json({"messages": messages}, PATH)
    return shown(list(server.generator.requests[-1].prompt_tokens))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        ({"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "y"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x " * 500}]}, "messages"),
        ({"functions": [TOOL["function"]]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"stop": ["x"]}, "stop"),
        ({"stop": {}}, "stop"),
        ({"n": 2}, "n"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.name"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_mistake_is_named_as_the_client_wrote_it(serve, body, param, stream):
    generator = ScriptedGenerator(answer("no"), context_length=400)
    error = serve(generator=generator).error({"messages": [USER], "stream": stream, **body}, PATH)
    assert error["param"] == param and error["type"] == "invalid_request_error"


def test_ids_that_every_turn_uses_again(serve):
    """As servers hand them out that number the calls of a turn."""
    asked = {"role": "assistant", "content": None, "tool_calls": [CALLED]}
    turns = [asked, {"role": "tool", "tool_call_id": "call_0", "content": "first"}]
    turns += [asked, {"role": "tool", "tool_call_id": "call_0", "content": "second"}]
    text = prompt_of(serve(answer("ok")), [USER, *turns])
    assert text.index("first") < text.index("second")


def test_what_an_assistant_refused(serve):
    text = prompt_of(serve(answer("ok")), [USER, {"role": "assistant", "content": None, "refusal": "Not that."}, USER])
    assert "<|channel|>final<|message|>Not that.<|end|>" in text


def test_roles_and_parts(serve):
    parts = [{"type": "text", "text": "Look."}, {"type": "image_url", "image_url": {"url": "x"}}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "name": "Ada", "content": parts}]
    text = prompt_of(serve(answer("ok")), messages)
    assert "# Instructions\n\nBe brief." in text and "Look.\n[An image is attached here." in text


@pytest.mark.parametrize("wanted", [True, False, None])
def test_usage_comes_last_where_it_is_asked_for(serve, wanted):
    options = {"stream_options": {"include_usage": wanted}}
    reply = serve(call("f", "{}")).post({"messages": [USER], "tools": [TOOL], "stream": True, **options}, PATH)
    chunks = reply.text.split("\n\n")
    assert chunks[-2:] == ["data: [DONE]", ""]
    assert ('"choices":[]' in chunks[-3]) == bool(wanted)
    assert '"finish_reason":"tool_calls"' in chunks[-4 if wanted else -3]
