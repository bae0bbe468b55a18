"""A model that an Ollama server runs, by its documented `/api/generate` with `raw` and `stream`.

In: token ids, sent as text with Harmony's control tokens spelled out. Out: ids of the text that comes back. Ollama says
that the model stopped but not by which token; that is the one which closes what is open, `<|call|>` or `<|return|>`,
and it is the only token that is not read from Ollama's text. Masks and log probabilities cannot be had this way.
"""

import http.client
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from gpt_oss.errors import BackendUnavailable, GenerationError, RequestError
from gpt_oss.harmony import tokens
from gpt_oss.harmony.parser import HarmonyParser
from gpt_oss.token_generator import Generation, IteratorGeneration, Request
from gpt_oss.token_generator import TokenGenerator as Base
from gpt_oss.tokenizer import VOCAB_SIZE, get_tokenizer

DEFAULT_MODEL = "gpt-oss:20b"
DEFAULT_CONTEXT = 8192
HOST_VARIABLE = "OLLAMA_HOST"
DEFAULT_PORT = 11434
_CONTROL = re.compile(r"<\|(?=[a-z0-9_]+\|>)")


class TokenGenerator(Base):
    """model: Ollama's name of it. host: of the server, by default $OLLAMA_HOST or this machine. timeout: seconds
    without a token after which the server is given up. slots: has no effect, Ollama queues by itself."""

    vocab_size = VOCAB_SIZE
    honours_allowed_tokens = False

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        host: str | None = None,
        context_length: int | None = None,
        slots: int = 1,
        timeout: float = 120.0,
    ):
        self._server = server_address(host or os.environ.get(HOST_VARIABLE) or "127.0.0.1")
        self.context_length = context_length or DEFAULT_CONTEXT
        self._model, self._timeout = model, timeout
        with _Answer(self._server, self._timeout, "GET", "/api/version") as answer:
            if answer.status != 200:
                raise BackendUnavailable(f"{self._server} is no Ollama server (status {answer.status})")

    def start(self, request: Request) -> Generation:
        """Send the request to the server; RequestError for what it cannot give."""
        if request.logprobs:
            raise RequestError("the ollama backend cannot give log probabilities; leave them out")
        return IteratorGeneration(request, self._tokens(request), self.context_length)

    def _tokens(self, request: Request) -> Iterator[int]:
        options: dict[str, Any] = {
            "num_ctx": self.context_length,
            "num_predict": request.max_tokens or -1,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
        }
        if request.seed is not None:
            options["seed"] = request.seed
        body = {
            "model": self._model,
            "prompt": prompt_text(request.prompt_tokens),
            "raw": True,
            "stream": True,
            "options": options,
        }
        parser = HarmonyParser()
        with _Answer(self._server, self._timeout, "POST", "/api/generate", body) as answer:
            for line in answer.lines():
                if "error" in line:
                    raise GenerationError(f"Ollama failed: {line['error']}")
                for token in get_tokenizer().encode(line.get("response") or "", allowed_special="all"):
                    parser.process(token)
                    yield token
                if line.get("done"):
                    if line.get("done_reason", "stop") == "stop" and parser.stop_token is None:
                        yield tokens.CALL if parser.current_recipient else tokens.RETURN
                    return
        raise GenerationError("Ollama ended its answer in the middle")


def server_address(host: str) -> str:
    """`scheme://host:port`, with Ollama's port where the host is given without a scheme. Raises RequestError."""
    try:
        parts = urlsplit(host if "://" in host else f"http://{host}")
        port = parts.port or (DEFAULT_PORT if "://" not in host else {"http": 80, "https": 443}[parts.scheme])
    except (ValueError, KeyError) as error:
        raise RequestError(f"{host!r} is no address of an Ollama server; expected HOST[:PORT] or a URL") from error
    name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{name}:{port}"


def prompt_text(ids: Iterable[int]) -> str:
    """The ids as text that Ollama reads as the same tokens; what only looks like a control token is broken up."""
    pieces: list[str] = []
    plain: list[int] = []
    sequence: list[int | None] = [*ids, None]
    for token in sequence:
        if token is not None and token < tokens.NUM_TEXT_TOKENS:
            plain.append(token)
            continue
        pieces.append(_CONTROL.sub("<\u200b|", get_tokenizer().decode(plain)))
        plain = []
        if token is not None:
            pieces.append(get_tokenizer().decode([token]))
    return "".join(pieces)


class _Answer:
    """One request to the server and its answer."""

    def __init__(self, server: str, timeout: float, method: str, path: str, body: Any = None):
        self._server = server
        scheme, _, place = server.partition("://")
        connect = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        self._connection = connect(place, timeout=timeout)
        content = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, content, {"content-type": "application/json"})
            self._response = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self._failure(error) from error
        self.status = self._response.status

    def lines(self) -> Iterator[dict[str, Any]]:
        """The objects of the answer, one per line. Raises GenerationError."""
        try:
            while line := self._response.readline():
                yield json.loads(line)
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(error) from error
        except ValueError as error:
            raise GenerationError(f"Ollama answered something that is not JSON (status {self.status})") from error

    def _failure(self, error: Exception) -> GenerationError | BackendUnavailable:
        if isinstance(error, TimeoutError):
            return GenerationError("Ollama sent nothing for too long and was given up (time-out)")
        if isinstance(error, ConnectionRefusedError):
            return BackendUnavailable(f"there is no Ollama server at {self._server}; start it with: ollama serve")
        return GenerationError(f"the connection to Ollama broke ({type(error).__name__}: {error})")

    def __enter__(self) -> "_Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
