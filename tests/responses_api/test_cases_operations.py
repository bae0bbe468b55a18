"""Cases 50 to 60 of spec/responses.md, section 5: errors, engine, operations."""

import concurrent.futures
import gzip
import http.client
import json
import logging
import socket
import threading
import time
from unittest.mock import ANY
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.websockets import WebSocketDisconnect

from gpt_oss.errors import ToolError
from gpt_oss.token_generator import IteratorGeneration, TokenGenerator
from gpt_oss.tokenizer import VOCAB_SIZE
from tests.helpers.harmony_text import ids
from tests.responses_api.hosted import hosted_browser
from tests.responses_api.replies import WEATHER, answer, browse, call
from tests.responses_api.stream_rules import check_stream


class Slow(TokenGenerator):
    """Says the prompt's last user text back, one token at a time, and never tires."""

    vocab_size = VOCAB_SIZE

    def __init__(self, seconds=0.01, context_length=2000, count=10_000):
        self.seconds, self.context_length, self.count = seconds, context_length, count
        self.running = 0
        self.lock = threading.Lock()

    def start(self, request):
        return IteratorGeneration(request, self._tokens(request), self.context_length)

    def _tokens(self, request):
        with self.lock:
            self.running += 1
        try:
            yield from ids("<|channel|>final<|message|>")
            word = request.prompt_tokens[-4]
            for _ in range(self.count):
                time.sleep(self.seconds)
                yield word
            yield from ids("<|return|>")
        finally:
            with self.lock:
                self.running -= 1


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


DEEP = b'{"input": "hi", "tools": [{"type": "function", "name": "f", "parameters": %s1%s}]}'


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"5",
        b"\xff",
        b"",
        b'{"input": NaN}',
        b'{"input": "hi", "tools": [{"type": "new", "least": 1e400}]}',
        b'{"input": "hi", "max_tool_calls": %s}' % (b"9" * 5000),
        b"[" * 100_000,
        DEEP % (b'{"items": ' * 150, b"}" * 150),
    ],
)
def test_50_bodies_that_are_no_json_object(serve, content):
    reply = serve().client.post("/v1/responses", content=content)
    assert reply.status_code == 400 and reply.json()["error"]["type"] == "invalid_request_error"


def test_50_a_packed_body_is_refused_by_name(serve):
    body = gzip.compress(b'{"input": "hi"}')
    reply = serve().client.post("/v1/responses", content=body, headers={"content-encoding": "gzip"})
    assert reply.status_code == 400 and "gzip" in reply.json()["error"]["message"]


def test_50_health_can_be_asked_without_a_body(serve):
    reply = serve(api_key="secret").client.head("/health")
    assert (reply.status_code, reply.content) == (200, b"")


def test_50_other_refusals_have_the_same_shape(serve):
    server = serve(max_body_bytes=1000)
    for method, path, status in (("GET", "/nope", 404), ("PUT", "/v1/responses", 405), ("GET", "/v1/responses/x", 404)):
        reply = server.client.request(method, path)
        assert reply.status_code == status and set(reply.json()) == {"error"}
    assert server.post({"input": "x" * 2000}).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        {"input": "\ud800", "instructions": "\udfff", "metadata": {"\ud800": "\ud800"}},
        {"input": "hi", "previous_response_id": "\ud800"},
        {"input": "hi", "tools": [{"type": "function", "name": "f", "parameters": {"properties": {"\ud800": {}}}}]},
    ],
)
def test_50_half_characters_do_no_harm(serve, body):
    reply = serve(answer("ok")).client.post("/v1/responses", content=json.dumps(body))
    assert reply.status_code in (200, 400) and "\ufffd" in reply.text


def test_51_text_that_is_no_header_is_not_a_function(serve):
    (item,) = serve("hello there<|return|>").json({"input": "hi", "tools": [WEATHER]})["output"]
    assert item["type"] == "message" and item["content"][0]["text"] == "hello there"


def test_52_an_answer_that_stops_at_once(serve):
    assert serve("<|return|>").json({"input": "hi"})["output"] == []


@pytest.mark.parametrize("hallucinated", [browse("search", '{"query": "x"}'), call("no_such_function", "{}")])
def test_53_a_call_to_nobody_is_tried_again(serve, hallucinated):
    server = serve(hallucinated, answer("Without."), hallucinated, answer("Without."))
    (item,) = server.json({"input": "hi"})["output"]
    assert item["content"][0]["text"] == "Without."
    events = check_stream(server.post({"input": "hi", "stream": True}).content)
    assert len(events[-1]["response"]["output"]) == 1


def test_54_the_event_loop_is_free_while_a_model_computes(live):
    """The model waits, in the middle of a token, until the server has answered others."""
    answered = threading.Event()

    class Waiting(Slow):
        def _tokens(self, request):
            yield from ids("<|channel|>final<|message|>")
            assert answered.wait(60)
            yield from ids("Hi.<|return|>")

    base = live(generator=Waiting())
    with httpx.Client(base_url=base, timeout=60) as client, concurrent.futures.ThreadPoolExecutor() as pool:
        reply = pool.submit(client.post, "/responses", json={"input": "hi"})
        for _ in range(5):
            assert client.get(base.replace("/v1", "/health")).status_code == 200
        assert not reply.done()
        answered.set()
        assert reply.result().json()["status"] == "completed"


def test_55_streams_do_not_mix(live):
    base = live(generator=Slow(seconds=0.002, count=15), slots=16)
    words = ["red", "blue", "green", "white", "black", "gold", "pink", "grey"]
    texts = {}

    def ask(word):
        reply = httpx.post(f"{base}/responses", json={"input": word, "stream": True}, timeout=60)
        texts[word] = check_stream(reply.content)[-1]["response"]["output"][0]["content"][0]["text"]

    threads = [threading.Thread(target=ask, args=(word,)) for word in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {word: word * 15 for word in words}


@pytest.mark.parametrize("stream", [True, False])
def test_56_a_client_that_leaves_frees_its_slot(live, stream):
    generator = Slow()
    address = urlsplit(live(generator=generator))
    connection = http.client.HTTPConnection(address.hostname, address.port)
    connection.request("POST", "/v1/responses", json.dumps({"input": "hi", "stream": stream}))
    wait_for(lambda: generator.running == 1)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    wait_for(lambda: generator.running == 0)


def test_57_the_store_is_bounded(serve):
    server = serve(*[answer("x")] * 5, store_max_responses=3)
    made = [server.json({"input": "hi"})["id"] for _ in range(5)]
    found = [server.client.get(f"/v1/responses/{id}").status_code for id in made]
    assert found == [404, 404, 200, 200, 200]


def test_58_no_content_in_logs_or_on_the_terminal(serve, caplog, capfd):
    caplog.set_level(logging.INFO)
    server = serve(
        browse("search", '{"query": "SECRETQ"}'),
        answer("SECRETA"),
        call("get_weather", "SECRETB"),
        hosted=hosted_browser(),
    )
    server.json({"input": "SECRETP", "tools": [{"type": "web_search"}]})
    server.json({"input": "SECRETP", "tools": [WEATHER]})
    server.error({"input": [{"type": "SECRETT"}]})
    server.client.post("/v1/responses", content=b'{"input": "SECRETP",')
    out, err = capfd.readouterr()
    assert "SECRET" not in caplog.text + out + err


def test_a_binary_frame_closes_its_websocket(serve):
    with serve().client.websocket_connect("/v1/responses") as connection:
        connection.send_bytes(b"{}")
        assert connection.receive() == {"type": "websocket.close", "code": 1003, "reason": ANY}


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_59_an_input_longer_than_the_context(serve, stream, background):
    server = serve(generator=Slow(context_length=200))
    error = server.error({"input": "word " * 300, "stream": stream, "background": background})
    assert len(server.service.store) == 0
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    assert error["message"].startswith("Your input exceeds the context window of this model")


def test_59_truncation_auto_drops_old_turns(serve):
    server = serve(generator=Slow(context_length=300, count=3, seconds=0))
    turns = [{"role": role, "content": f"{role} {n} " * 20} for n in range(4) for role in ("user", "assistant")]
    body = {"input": [*turns, {"role": "user", "content": "Now?"}]}
    assert server.error(body)["code"] == "context_length_exceeded"
    assert server.json({**body, "truncation": "auto"})["status"] == "completed"


def test_59_a_conversation_that_leaves_no_room_for_its_summary(serve):
    server = serve(generator=Slow(context_length=300, seconds=0))
    error = server.error({"input": "word " * 100}, "/v1/responses/compact")
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    body = {"input": "hi", "max_output_tokens": 1, "metadata": 5}  # not the prompt's, so of no account here
    assert serve(answer("Summed up.")).json(body, "/v1/responses/compact")["output"][-1]["type"] == "compaction"


def test_60_a_browser_without_a_key_is_left_out(monkeypatch):
    from gpt_oss.responses_api.serve import build_parser, server_settings

    options = build_parser().parse_args([])
    assert dict(server_settings(options, {}).hosted) == {}
    assert list(server_settings(options, {"EXA_API_KEY": "k"}).hosted) == ["browser"]
    with pytest.raises(ToolError, match="EXA_API_KEY"):
        server_settings(build_parser().parse_args(["--browser-backend", "exa"]), {})


def test_too_many_requests(live):
    generator = Slow()
    base = live(generator=generator, slots=1, max_waiting=1)
    with httpx.Client(base_url=base) as client:
        made = [client.post("/responses", json={"input": "hi", "background": True}).json() for _ in range(2)]
        refused = client.post("/responses", json={"input": "hi"})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        for response in made:
            cancelled = client.post(f"/responses/{response['id']}/cancel").json()
            assert cancelled["status"] == "cancelled"
        assert httpx.get(base.replace("/v1", "/health")).status_code == 200
    wait_for(lambda: generator.running == 0)


def test_a_background_response_that_is_refused_leaves_nothing(live):
    generator = Slow()
    base = live(generator=generator, slots=1, max_waiting=0)
    with httpx.Client(base_url=base) as client:
        made = client.post("/responses", json={"input": "hi", "background": True}).json()
        items = [{"role": "user", "content": "hi", "id": "msg_refused"}]
        assert client.post("/responses", json={"input": items, "background": True}).status_code == 429
        missing = client.post("/responses", json={"input": [{"type": "item_reference", "id": "msg_refused"}]})
        assert missing.status_code == 400 and missing.json()["error"]["param"] == "input[0].id"
        client.post(f"/responses/{made['id']}/cancel")


def test_the_api_key(serve):
    server = serve(answer("x"), api_key="k")
    assert server.error({"input": "hi"}, status=401)["code"] == "invalid_api_key"
    wrong = server.client.post("/v1/responses", json={"input": "hi"}, headers={"authorization": b"Bearer \xe9"})
    assert wrong.status_code == 401 and wrong.headers["x-request-id"]
    headers = {"authorization": "Bearer k"}
    assert server.client.post("/v1/responses", json={"input": "hi"}, headers=headers).status_code == 200
    assert server.client.get("/health").status_code == 200


def test_cors_is_off_until_allowed(serve):
    headers = {"origin": "https://a.example", "access-control-request-method": "POST"}
    plain = serve().client.options("/v1/responses", headers=headers)
    assert "access-control-allow-origin" not in plain.headers
    allowed = serve(cors_origins=("https://a.example",)).client.options("/v1/responses", headers=headers)
    assert allowed.headers["access-control-allow-origin"] == "https://a.example"


@pytest.mark.parametrize(
    ("headers", "connects"),
    [
        ({}, True),
        ({"origin": "https://a.example"}, True),
        ({"origin": "http://testserver"}, True),
        ({"origin": "https://b.example"}, False),
        ({"origin": "null"}, False),
        ({"authorization": "Bearer x"}, False),
    ],
)
def test_who_may_open_a_websocket(serve, headers, connects):
    """Browsers ask no server before they let a page open one."""
    client = serve(api_key="k", cors_origins=("https://a.example",)).client
    headers = {"authorization": "Bearer k", **headers}
    if connects:
        with client.websocket_connect("/v1/responses", headers=headers) as connection:
            connection.send_json({"type": "nonsense"})
            assert connection.receive_json()["error"]["param"] == "type"
    else:
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/responses", headers=headers):
            pass


def test_a_browser_remembers_the_pages_of_earlier_responses(serve, tmp_path):
    search, open_link = browse("search", '{"query": "x"}'), browse("open", '{"cursor": 0, "id": 0}')
    browser = {"tools": [{"type": "web_search"}]}
    where = {"hosted": hosted_browser(), "store_path": tmp_path / "store.sqlite"}
    first = serve(search, answer("Found."), answer("No need."), **where)
    searched = first.json({"input": "news?", **browser})
    idle = first.json({"input": "thanks", "previous_response_id": searched["id"]})  # offers no browser
    again = serve(open_link, answer("Read."), **where)
    opened = again.json({"input": "open it", "previous_response_id": idle["id"], **browser})
    assert opened["output"][0]["action"] == {"type": "open_page", "url": "https://news.example/berlin"}
