"""The Ollama engine against a local server that speaks its documented protocol."""

import itertools
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from starlette.testclient import TestClient

from gpt_oss.engines.ollama import TokenGenerator, prompt_text, server_address
from gpt_oss.errors import BackendUnavailable, GenerationError, RequestError
from gpt_oss.responses_api.api_server import create_api_server
from tests.helpers.harmony_text import ids, shown


@contextmanager
def ollama(chunks, status=200, left=None):
    """A server that answers every generate request with these objects; gives its address and what it was sent.

    An event among the objects is waited for. left: set when the client leaves before the end.
    """
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(200, [{"version": "0.12"}])

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            try:
                self.reply(status, chunks)
            except ConnectionError:
                if left is not None:
                    left.set()

        def reply(self, status, objects):
            self.send_response(status)
            self.end_headers()
            for item in objects:
                if isinstance(item, threading.Event):
                    item.wait(60)
                    continue
                self.wfile.write(item if isinstance(item, bytes) else json.dumps(item).encode() + b"\n")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def said(*pieces, reason="stop"):
    return [
        *({"response": piece, "done": False} for piece in pieces),
        {"response": "", "done": True, "done_reason": reason},
    ]


@pytest.mark.parametrize(
    ("pieces", "end"),
    [
        (("<|channel|>", "final", "<|message|>", "Hello", " there"), "<|return|>"),
        (("<|channel|>", "commentary to=functions.f ", "<|message|>", "{}"), "<|call|>"),
    ],
)
def test_what_it_says_comes_back_as_tokens(pieces, end):
    with ollama(said(*pieces)) as (host, asked):
        generator = TokenGenerator("gpt-oss:20b", host=host, context_length=500)
        generation = generator.stream(ids("<|start|>user<|message|>hi<|end|>"), temperature=0.5, max_tokens=40, seed=7)
        assert shown([token.id for token in generation]) == "".join(pieces) + end
    (request,) = asked
    assert request["raw"] is True and request["stream"] is True and request["prompt"].startswith("<|start|>user")
    assert request["options"] == {
        "num_ctx": 500,
        "num_predict": 40,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 0,
        "seed": 7,
    }


def test_a_cut_answer_gets_no_token_of_ours():
    with ollama(said("<|channel|>", "final", reason="length")) as (host, _):
        assert shown(list(TokenGenerator("m", host=host).generate([1]))) == "<|channel|>final"


@pytest.mark.parametrize(
    ("chunks", "status", "message"),
    [
        ([{"error": "model 'm' not found"}], 404, "model 'm' not found"),
        ([{"response": "a", "done": False}, {"error": "out of memory"}], 200, "out of memory"),
        ([b"<html>"], 502, "not JSON"),
        ([{"response": "a", "done": False}], 200, "in the middle"),
    ],
)
def test_its_errors_are_ours(chunks, status, message):
    with ollama(chunks, status) as (host, _), pytest.raises(GenerationError, match=message):
        list(TokenGenerator("m", host=host).generate([1]))


@pytest.mark.parametrize("said_before", [[], [{"response": "<|channel|>", "done": False}]])
def test_a_server_that_falls_silent_is_given_up(said_before):
    answers = threading.Event()
    with ollama([*said_before, answers, {"done": True}]) as (host, _):
        generator = TokenGenerator("m", host=host)
        generator._timeout = 0.3  # once it has been greeted, which on a busy machine may take longer
        with pytest.raises(GenerationError, match="time-out"):
            list(generator.generate([1]))
        with TestClient(create_api_server(generator)) as client:
            response = client.post("/v1/responses", json={"input": "hi"}).json()
            assert response["status"] == "failed" and "time-out" in response["error"]["message"]
        answers.set()


def test_a_reader_that_leaves_ends_the_connection():
    """Which is how Ollama learns that nobody wants the rest."""
    left = threading.Event()
    with ollama(itertools.repeat({"response": "more ", "done": False}), left=left) as (host, _):
        tokens = TokenGenerator("m", host=host).generate([1])
        next(tokens)
        tokens.close()
        assert left.wait(30)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("box:8080", "http://box:8080"),
        ("http://box", "http://box:80"),
        ("https://box/", "https://box:443"),
        ("[::1]:5", "http://[::1]:5"),
    ],
)
def test_addresses_are_read_as_ollama_reads_them(host, address):
    assert server_address(host) == address
    for wrong in ("box:port", "ftp://box"):
        with pytest.raises(RequestError, match="address"):
            server_address(wrong)


def test_no_server():
    with pytest.raises(BackendUnavailable, match="ollama serve"):
        TokenGenerator("m", host="127.0.0.1:9")


def test_log_probabilities_are_refused():
    with ollama([]) as (host, _), pytest.raises(RequestError):
        TokenGenerator("m", host=host).stream([1], logprobs=True)


def test_text_that_looks_like_a_control_token_is_not_sent_as_one():
    from gpt_oss.tokenizer import get_tokenizer

    plain = get_tokenizer().encode_ordinary("<|start|>system")
    text = prompt_text([*ids("<|start|>user<|message|>"), *plain])
    assert text.startswith("<|start|>user<|message|>") and text.count("<|start|>") == 1


LARK = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"tools": [FUNCTION], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{**FUNCTION, "strict": True}]}, "tools[0].strict"),
        ({"tools": [FUNCTION, {"type": "custom", "name": "c", "format": LARK}]}, "tools[1].format"),
    ],
)
def test_the_server_refuses_what_cannot_be_enforced(asked, param):
    with ollama(said("<|channel|>final<|message|>Hi.")) as (host, sent):
        generator = TokenGenerator("m", host=host)
        with TestClient(create_api_server(generator)) as client:
            refused = client.post("/v1/responses", json={"input": "hi", **asked})
            assert refused.status_code == 400 and refused.json()["error"]["param"] == param
            assert not sent
            free = client.post("/v1/responses", json={"input": "hi", "tools": [FUNCTION]}).json()
            assert free["output"][0]["content"][0]["text"] == "Hi."
        with pytest.raises(RequestError, match="allowed_tokens"):
            generator.stream([1], allowed_tokens=lambda generated: None)
