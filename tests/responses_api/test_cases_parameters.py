"""Cases 21 to 36 of spec/responses.md, section 5: parameters."""

import time

import pytest

from gpt_oss.responses_api.offered_tools import read_offer
from gpt_oss.responses_api.output_items import token_logprob
from gpt_oss.responses_api.request_models import CreateResponse, parse
from gpt_oss.responses_api.turn_grammar import turn_grammar
from gpt_oss.token_generator import Token
from gpt_oss.tokenizer import VOCAB_SIZE
from tests.helpers.harmony_text import ids, shown
from tests.responses_api.hosted import hosted_browser
from tests.responses_api.replies import WEATHER, answer, browse, call


def prompt(server, request=-1):
    return shown(list(server.generator.requests[request].prompt_tokens))


def allowed_texts(body, *written):
    """What the mask for a request allows after each of the texts."""
    request = parse(CreateResponse, {"input": "hi", **body})
    offer = read_offer(request.tools, request.tool_choice)
    mask = turn_grammar(request, offer, VOCAB_SIZE, 4096)(1)
    return [shown([int(id)]) for id in mask(ids("".join(written))).nonzero()[0]]


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
    ],
)
def test_21_a_required_call_is_enforced(serve, choice):
    server = serve(call("get_weather", '{"location": "Oslo"}'))
    body = {"tools": [WEATHER], "tool_choice": choice}
    assert server.json({"input": "hi", **body})["tool_choice"] == choice
    assert server.generator.requests[0].allowed_tokens is not None
    assert set(allowed_texts(body)) == {"<|channel|>", " to"}
    after_channel = allowed_texts(body, "<|channel|>")
    assert "final" not in after_channel and len(after_channel) == 2  # analysis, commentary
    after_thinking = allowed_texts(body, "<|channel|>analysis<|message|>x<|end|>")
    assert after_thinking == ["<|start|>"]


def test_21_other_functions_are_not_allowed(serve):
    other = {**WEATHER, "name": "other"}
    server = serve(call("get_weather", "{}"))
    choice = {"type": "function", "name": "get_weather"}
    server.json({"input": "hi", "tools": [WEATHER, other], "tool_choice": choice})
    allowed = allowed_texts({"tools": [WEATHER, other], "tool_choice": choice}, "<|channel|>commentary to=functions")
    assert allowed and all(".get_weather".startswith(text) for text in allowed)
    for wrong in ({"type": "function", "name": "absent"}, "sometimes", {"type": "allowed_tools"}):
        assert server.error({"input": "hi", "tools": [WEATHER], "tool_choice": wrong})["param"] == "tool_choice"


@pytest.mark.parametrize(("choice", "param"), [("", "tool_choice"), ({}, "tool_choice.type"), (5, "tool_choice")])
def test_21_a_choice_that_is_none_is_not_auto(serve, choice, param):
    assert serve().error({"input": "hi", "tools": [WEATHER], "tool_choice": choice})["param"] == param


def test_21_tools_that_are_not_offered_narrow_nothing(serve):
    remote = {"type": "mcp", "server_label": "x"}
    function = {"type": "function", "name": "get_weather"}
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [function, remote]}
    server = serve(answer("a"))
    body = {"input": "hi", "tools": [WEATHER, remote]}
    assert server.json({**body, "tool_choice": allowed})["tool_choice"] == allowed
    assert "get_weather" in prompt(server)
    only_remote = {"type": "allowed_tools", "mode": "required", "tools": [remote]}
    for wrong in (remote, only_remote, {"type": "web_search"}):
        assert server.error({**body, "tool_choice": wrong})["param"] == "tool_choice"


def test_22_none_takes_the_tools_out_of_the_prompt(serve):
    server = serve(call("get_weather", "{}"), answer("No tools."))
    response = server.json({"input": "hi", "tools": [WEATHER], "tool_choice": "none"})
    assert "get_weather" not in prompt(server, 0)
    assert [item["type"] for item in response["output"]] == ["message"]


def test_23_a_schema_is_enforced_and_echoed(serve):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    server = serve(answer('{"a": 1}', "Think."))
    assert server.json({"input": "hi", "text": {"format": format}})["text"]["format"] == format
    assert '"required": ["a"]' in prompt(server)
    final = "<|channel|>final<|message|>"
    body = {"text": {"format": format}}
    assert all(text.startswith("{") for text in allowed_texts(body, final))
    assert allowed_texts(body, final, '{"a": 1}') == ["<|return|>"]
    thinking = allowed_texts(body, "<|channel|>analysis<|message|>")
    assert len(thinking) > 199_000 and "<|return|>" not in thinking


@pytest.mark.parametrize("keyword", ["not", "uniqueItems", "if", "dependentRequired", "propertyNames"])
def test_23_an_unsupported_keyword_is_named(serve, keyword):
    values = {"uniqueItems": True, "dependentRequired": {"a": ["b"]}}
    schema = {"type": "object", keyword: values.get(keyword, {"type": "object"})}
    if keyword == "uniqueItems":
        schema = {"type": "array", keyword: True}
    format = {"type": "json_schema", "name": "n", "schema": schema}
    error = serve().error({"input": "hi", "text": {"format": format}})
    assert (error["param"], error["code"]) == ("text.format.schema", "invalid_json_schema")
    assert keyword in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("temperature", 5),
        ("temperature", "hot"),
        ("top_p", 1.5),
        ("top_logprobs", 21),
        ("presence_penalty", 3),
        ("max_output_tokens", 0),
        ("truncation", "bogus"),
        ("include", ["everything"]),
        ("reasoning", {"effort": "huge"}),
        ("metadata", {"a": 1}),
        ("metadata", {str(n): "" for n in range(17)}),
        ("tools", "none"),
        ("stream", "yes"),
        ("text", {"format": {"type": "xml"}}),
        ("prompt", {"id": "x"}),
        ("conversation", "c"),
    ],
)
def test_24_values_out_of_range_are_400(serve, field, value):
    assert serve().error({"input": "hi", field: value})["param"].startswith(field)


def test_24_25_sampling_reaches_the_engine(serve):
    server = serve(answer("a"), answer("b"), answer("c"))
    assert server.json({"input": "hi"})["temperature"] == 1.0
    assert server.json({"input": "hi", "temperature": 0.3, "top_p": 0.5})["top_p"] == 0.5
    server.json({"input": "hi", "top_p": 0})
    first, second, third = server.generator.requests
    assert (first.temperature, first.top_p, second.temperature, second.top_p) == (1.0, 1.0, 0.3, 0.5)
    assert 0 < third.top_p < 0.001


def test_26_models(serve):
    server = serve(answer("a"), answer("b"), model="gpt-oss-20b")
    assert server.json({"input": "hi", "model": "openai/gpt-oss-120b"})["model"] == "openai/gpt-oss-120b"
    assert server.json({"input": "hi", "model": None})["model"] == "gpt-oss-20b"
    error = server.error({"input": "hi", "model": "gpt-4"}, status=404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("asked", "effective"),
    [("none", "low"), ("minimal", "low"), ("low", "low"), (None, "medium"), ("high", "high"), ("xhigh", "high")],
)
def test_27_effort(serve, asked, effective):
    server = serve(answer("a"))
    assert server.json({"input": "hi", "reasoning": {"effort": asked}})["reasoning"]["effort"] == effective
    assert f"Reasoning: {effective}" in prompt(server)


def test_28_29_30_stored_responses_continue(serve):
    server = serve(answer("I am Bo."), answer("Bo, as I said."), answer("x"))
    first = server.json({"input": "Who?", "instructions": "Be a pirate."})
    second = server.json({"input": "Again?", "previous_response_id": first["id"]})
    assert first["store"] and second["previous_response_id"] == first["id"]
    assert "Who?" in prompt(server) and "I am Bo." in prompt(server) and "pirate" not in prompt(server)
    forgotten = server.json({"input": "x", "store": False})
    for unknown in (forgotten["id"], "resp_nope"):
        error = server.error({"input": "Again?", "previous_response_id": unknown})
        assert error["code"] == "previous_response_not_found" and error["param"] == "previous_response_id"
        assert error["message"] == f"Previous response with id '{unknown}' not found."


def test_28_the_other_endpoints(serve):
    server = serve(answer("Hi."))
    client = server.client
    made = server.json({"input": "Who?"})
    address = f"/v1/responses/{made['id']}"
    assert client.get(address).json() == made
    (item,) = client.get(f"{address}/input_items").json()["data"]
    assert item["content"] == [{"type": "input_text", "text": "Who?"}]
    assert client.post(f"{address}/cancel").status_code == 400
    counted = server.json({"input": "Who?"}, "/v1/responses/input_tokens")
    assert counted == {"object": "response.input_tokens", "input_tokens": made["usage"]["input_tokens"]}
    assert client.get("/v1/models").json()["data"][0]["object"] == "model"
    assert client.get("/v1/models/gpt-oss").status_code == 200
    assert client.get("/v1/models/other").status_code == 404
    assert client.get("/health").json() == {"status": "ok"}
    assert "gpt_oss_tokens_total" in client.get("/metrics").text
    assert client.delete(address).json()["deleted"] is True
    assert client.get(address).status_code == client.delete(address).status_code == 404


def test_28_a_page_of_input_items(serve):
    server = serve(answer("Hi."))
    items = [{"role": "user", "content": str(n)} for n in range(5)]
    address = f"/v1/responses/{server.json({'input': items})['id']}/input_items"
    newest = server.client.get(address, params={"limit": 2}).json()
    assert [item["content"][0]["text"] for item in newest["data"]] == ["4", "3"] and newest["has_more"]
    rest = server.client.get(address, params={"limit": 9, "after": newest["last_id"]}).json()
    assert [item["content"][0]["text"] for item in rest["data"]] == ["2", "1", "0"] and not rest["has_more"]
    assert server.client.get(address, params={"order": "asc"}).json()["first_id"] == rest["last_id"]
    for wrong in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"order": "up"}):
        assert server.client.get(address, params=wrong).status_code == 400


def test_31_metadata(serve):
    server = serve(answer("a"), answer("b"))
    assert server.json({"input": "hi", "metadata": {"k": "v"}})["metadata"] == {"k": "v"}
    reply = server.json({"input": "hi", "metadata": None, "__debug": True})
    assert reply["metadata"] == {} and "<|start|>" not in str(reply)


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "name": "f"},
        {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None},
    ],
)
def test_32_nullable_fields(serve, tool):
    server = serve(answer("a"), answer("b"))
    assert server.json({"input": "hi", "tools": None, "instructions": "Be brief."})["tools"] == []
    expected = {"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}
    assert server.json({"input": "hi", "tools": [tool]})["tools"] == [expected]
    assert "type f = () => any;" in prompt(server)


def test_33_include(serve):
    reply = [Token(id, -0.5, ((id, -0.5), (9, -1.0))) for id in ids(answer("Hi you.", "Greet."))]
    include = ["message.output_text.logprobs", "reasoning.encrypted_content"]
    server = serve(reply, answer("again"))
    response = server.json({"input": "hi", "include": include, "top_logprobs": 2})
    reasoning, message = response["output"]
    logprobs = message["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in logprobs) == "Hi you."
    assert logprobs[0]["top_logprobs"][1]["logprob"] == -1.0 and logprobs[0]["bytes"] == list(b"Hi")
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": reasoning["encrypted_content"]}
    open_call = {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "sunny"}
    server.json({"input": [{"role": "user", "content": "hi"}, sealed, open_call, output], "tools": [WEATHER]})
    assert "<|channel|>analysis<|message|>Greet.<|end|>" in prompt(server)


def test_the_logprob_of_an_id_that_the_vocabulary_lacks():
    """A model with padded rows may choose one, or nearly."""
    shown = token_logprob(Token(201_100, -1.0, ((201_101, -2.0),)))
    assert shown["token"] == shown["top_logprobs"][0]["token"] == "\N{REPLACEMENT CHARACTER}"
    assert shown["bytes"] == [0xEF, 0xBF, 0xBD] and shown["logprob"] == -1.0


def test_34_background(serve):
    server = serve(answer("Done."))
    queued = server.json({"input": "hi", "background": True})
    assert queued["status"] == "queued" and queued["background"] is True
    for _ in range(3000):
        response = server.client.get(f"/v1/responses/{queued['id']}").json()
        if response["status"] == "completed":
            break
        time.sleep(0.02)
    assert response["output"][0]["content"][0]["text"] == "Done."
    assert server.error({"input": "hi", "background": True, "store": False})["param"] == "background"


def test_35_36_parallel_calls_and_usage(serve):
    server = serve(browse("search", '{"query": "x"}'), answer("Found.", "So."), hosted=hosted_browser())
    response = server.json({"input": "hi", "tools": [{"type": "web_search"}]})
    assert response["parallel_tool_calls"] is True
    usage = response["usage"]
    first, second = (len(request.prompt_tokens) for request in server.generator.requests)
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"]
    assert usage["output_tokens"] < 30 < second - first  # what the tool said is input
    assert 0 < usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]
    assert usage["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
