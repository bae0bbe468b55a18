"""The items of a response while they are written: what each sends when it begins, grows and ends.

Every item yields `(event type, fields)`; `event_mapper` adds the numbers and ids. Nothing here knows of indexes, of
other items, or of HTTP.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from gpt_oss.harmony.events import Citation
from gpt_oss.responses_api.conversation import seal
from gpt_oss.responses_api.offered_tools import CallerTool
from gpt_oss.token_generator import Token
from gpt_oss.tokenizer import token_bytes

Fields = dict[str, Any]
Sent = Iterator[tuple[str, Fields]]


def new_id(prefix: str) -> str:
    """A random id such as `msg_…`."""
    return f"{prefix}_{uuid.uuid4().hex}"


class OutputItem:
    """An item that is open. `fields` is the item as it would be sent now, without text that is still growing."""

    def __init__(self, prefix: str, type: str, **fields: Any):
        self.fields: Fields = {"id": new_id(prefix), "type": type, "status": "in_progress", **fields}
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._pieces)

    def begin(self) -> Sent:
        """After `output_item.added`."""
        yield from ()

    def grow(self, text: str, tokens: Sequence[Token]) -> Sent:
        """More text came."""
        self._pieces.append(text)
        yield from ()

    def end(self, complete: bool) -> Sent:
        """Before `output_item.done`; completes `fields`. complete: it was not cut off."""
        yield from ()


class ReasoningOutput(OutputItem):
    """The model's thinking. event: the name of the events, `reasoning_text` or, of Open Responses, `reasoning`."""

    def __init__(self, event: str, sealed: bool):
        super().__init__("rs", "reasoning", summary=[], content=[])
        self._event, self._sealed = f"response.{event}", sealed

    def begin(self) -> Sent:
        """The events that open the item."""
        yield "response.content_part.added", {"content_index": 0, "part": {"type": "reasoning_text", "text": ""}}

    def grow(self, text: str, tokens: Sequence[Token]) -> Sent:
        """The events of more text."""
        self._pieces.append(text)
        yield f"{self._event}.delta", {"content_index": 0, "delta": text}

    def end(self, complete: bool) -> Sent:
        """The events that close the item; `complete`: it was not cut off."""
        part = {"type": "reasoning_text", "text": self.text}
        yield f"{self._event}.done", {"content_index": 0, "text": self.text}
        yield "response.content_part.done", {"content_index": 0, "part": part}
        self.fields["content"] = [part]
        if self._sealed:
            self.fields["encrypted_content"] = seal(self.text)


class MessageOutput(OutputItem):
    """Text for the user. preamble: said before a call. logprobs: whether the client asked for them."""

    def __init__(self, preamble: bool, logprobs: bool):
        phase = {"phase": "commentary"} if preamble else {}
        super().__init__("msg", "message", role="assistant", content=[], **phase)
        self._wanted = logprobs
        self._logprobs: list[Fields] = []
        self._annotations: list[Fields] = []

    def begin(self) -> Sent:
        """The events that open the item."""
        yield "response.content_part.added", {"content_index": 0, "part": self._part("", [], [])}

    def grow(self, text: str, tokens: Sequence[Token]) -> Sent:
        """The events of more text."""
        self._pieces.append(text)
        logprobs = [token_logprob(token) for token in tokens] if self._wanted else []
        self._logprobs += logprobs
        yield "response.output_text.delta", {"content_index": 0, "delta": text, "logprobs": logprobs}

    def cite(self, citation: Citation) -> Sent:
        """The text that was sent last holds a link."""
        annotation = {
            "type": "url_citation",
            "start_index": citation.start,
            "end_index": citation.end,
            "title": citation.title,
            "url": citation.url,
        }
        index = len(self._annotations)
        self._annotations.append(annotation)
        yield (
            "response.output_text.annotation.added",
            {
                "content_index": 0,
                "annotation_index": index,
                "annotation": annotation,
            },
        )

    def end(self, complete: bool) -> Sent:
        """The events that close the item; `complete`: it was not cut off."""
        part = self._part(self.text, self._annotations, self._logprobs)
        yield "response.output_text.done", {"content_index": 0, "text": self.text, "logprobs": self._logprobs}
        yield "response.content_part.done", {"content_index": 0, "part": part}
        self.fields["content"] = [part]

    @staticmethod
    def _part(text: str, annotations: list[Fields], logprobs: list[Fields]) -> Fields:
        return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs}


class FunctionCallOutput(OutputItem):
    """A call that the caller runs: of a function, or of a custom tool, which takes free text."""

    def __init__(self, called: CallerTool):
        self._key = "input" if called.is_custom else "arguments"
        self._event = "response." + ("custom_tool_call_input" if called.is_custom else "function_call_arguments")
        prefix, type = ("ctc", "custom_tool_call") if called.is_custom else ("fc", "function_call")
        fields: dict[str, Any] = {"call_id": new_id("call"), "name": called.name, self._key: ""}
        if called.namespace:
            fields["namespace"] = called.namespace
        super().__init__(prefix, type, **fields)

    def grow(self, text: str, tokens: Sequence[Token]) -> Sent:
        """The events of more text."""
        self._pieces.append(text)
        yield f"{self._event}.delta", {"delta": text}

    def end(self, complete: bool) -> Sent:
        """The events that close the item; `complete`: it was not cut off."""
        if complete and not self.text and self._key == "arguments":  # the model wrote nothing: a call without arguments
            yield from self.grow("{}", ())
        self.fields[self._key] = self.text
        yield f"{self._event}.done", {self._key: self.text}


class WebSearchOutput(OutputItem):
    """A search or page view by the server's browser. sources, results: what the client asked to see of it."""

    _EVENT = "response.web_search_call"

    def __init__(self, function: str, arguments: str, sources: bool, results: bool):
        super().__init__("ws", "web_search_call", action=_action(function, arguments))
        self._sources, self._results = sources, results

    def begin(self) -> Sent:
        """The events that open the item."""
        yield f"{self._EVENT}.in_progress", {}
        yield f"{self._EVENT}.searching", {}

    def found(self, text: str, page_url: str, urls: Sequence[str]) -> None:
        """The browser answered with a page at `page_url`, or of results at `urls`."""
        action = dict(self.fields["action"])
        if action["type"] != "search":
            action["url"] = page_url or action["url"]
        elif self._sources:
            action["sources"] = [{"type": "url", "url": url} for url in urls]
        self.fields["action"] = action
        if self._results:
            self.fields["results"] = [{"text": text}]

    def end(self, complete: bool) -> Sent:
        """The events that close the item; `complete`: it was not cut off."""
        if complete:
            yield f"{self._EVENT}.completed", {}


class InterpreterOutput(OutputItem):
    """Code that the server runs. outputs: whether the client asked to see what it printed."""

    _EVENT = "response.code_interpreter_call"

    def __init__(self, outputs: bool):
        self._wanted = outputs
        super().__init__(
            "ci", "code_interpreter_call", code="", container_id="cntr_local", outputs=[] if outputs else None
        )

    def begin(self) -> Sent:
        """The events that open the item."""
        yield f"{self._EVENT}.in_progress", {}

    def grow(self, text: str, tokens: Sequence[Token]) -> Sent:
        """The events of more text."""
        self._pieces.append(text)
        yield f"{self._EVENT}_code.delta", {"delta": text}

    def written(self) -> Sent:
        """The code is complete and runs."""
        self.fields["code"] = self.text
        yield f"{self._EVENT}_code.done", {"code": self.text}
        yield f"{self._EVENT}.interpreting", {}

    def found(self, text: str) -> None:
        """The code printed `text`."""
        if self._wanted:
            self.fields["outputs"] = [{"type": "logs", "logs": text}]

    def end(self, complete: bool) -> Sent:
        """The events that close the item; `complete`: it was not cut off."""
        self.fields["code"] = self.text
        if complete:
            yield f"{self._EVENT}.completed", {}


def _action(function: str, arguments: str) -> Fields:
    """What the browser was asked, in the API's words; a call that cannot be read is shown as a search for it."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        given = {"query": arguments}
    if function == "open":
        target = given.get("id")
        return {"type": "open_page", "url": target if isinstance(target, str) and "/" in target else None}
    if function == "find":
        return {"type": "find_in_page", "pattern": str(given.get("pattern", "")), "url": ""}
    return {"type": "search", "query": str(given.get("query", ""))}


def token_logprob(token: Token) -> Fields:
    """A token's log probability and those of its rivals, as the API shows them."""
    top = [_one_logprob(id, logprob) for id, logprob in token.top_logprobs]
    return {**_one_logprob(token.id, token.logprob or 0.0), "top_logprobs": top}


def _one_logprob(id: int, logprob: float) -> Fields:
    as_bytes = token_bytes(id)
    return {"token": as_bytes.decode("utf-8", "replace"), "bytes": list(as_bytes), "logprob": max(logprob, -9999.0)}
