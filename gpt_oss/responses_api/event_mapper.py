"""From the events of a turn to the events of the API, numbered: the only place that numbers outputs.

In: `gpt_oss.harmony.events` in their order. Out: dicts with `type` and `sequence_number`, each ready to be sent. The
rules (spec/responses.md, 1.5): sequence numbers without gaps; items one after the other, `output_index` in the order
they were added; one id per item; deltas joined equal the text in every `done`; exactly one terminal event, whose
`output` is the items that were done.

A call that the server runs stays open until its result is there. What the model wrote after it in the same breath
waits until then, so that items never interleave.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from openai_harmony import Message

from gpt_oss.harmony.events import (
    Citation,
    Event,
    MessageDone,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolResult,
    TurnDone,
    Usage,
)
from gpt_oss.responses_api.offered_tools import BROWSER, PYTHON, Offer
from gpt_oss.responses_api.output_items import (
    Fields,
    FunctionCallOutput,
    InterpreterOutput,
    MessageOutput,
    OutputItem,
    ReasoningOutput,
    Sent,
    WebSearchOutput,
)

REASONING_EVENT = "reasoning_text"
OPEN_RESPONSES_REASONING_EVENT = "reasoning"

_INCOMPLETE = ("max_tokens", "max_rounds", "max_seconds", "context")
"""Ends of a turn at which the model had more to say."""


class EventMapper:
    """One response. `response` is it as a whole, as far as it is made; `finished` after its terminal event.

    response: the fields that repeat the request. include: as in the request. pages: the address of the page
    that the browser shows, and those of its links.
    """

    def __init__(
        self,
        response: Mapping[str, Any],
        offer: Offer,
        include: Collection[str] = (),
        reasoning_event: str = REASONING_EVENT,
        pages: Callable[[], tuple[str, Sequence[str]]] = lambda: ("", ()),
    ):
        self.finished = False
        self.calls: list[tuple[Message, str]] = []
        """Calls that the caller has to answer, with their call ids."""
        self.messages: tuple[Message, ...] = ()
        """What the turn added to the conversation."""
        self._response = {**response, "status": "in_progress", "output": []}
        self._offer = offer
        self._include = frozenset(include)
        self._reasoning_event = reasoning_event
        self._pages = pages
        self._sequence = 0
        self._open: OutputItem | None = None
        self._open_index: int | None = None  # the turn's index of the open item
        self._waits_for: int | None = None  # the turn's index of a call that the server is running
        self._waiting: deque[Event] = deque()
        self._calls_by_index: dict[int, ToolCallStarted] = {}
        self._cut = False  # an item was closed as incomplete

    @property
    def response(self) -> Fields:
        """A snapshot."""
        return {**self._response, "output": list(self._response["output"])}

    def start(self, *, queued: bool = False) -> Iterator[Fields]:
        """The events before all others; with `queued`, call once more without it when the work begins."""
        self._response["status"] = "queued" if queued else "in_progress"
        if self._sequence == 0:
            yield self._whole("response.created")
        yield self._whole("response.queued" if queued else "response.in_progress")

    def map(self, event: Event) -> Iterator[Fields]:
        """The API's events for one of the turn's."""
        if self.finished:
            return
        if isinstance(event, TurnDone):
            yield from self._finish(event)
        elif self._waits_for is not None and not isinstance(event, ToolResult):
            self._waiting.append(event)
        else:
            yield from self._map(event)

    def fail(self, message: str, code: str = "server_error") -> Iterator[Fields]:
        """End with `error` and `response.failed`."""
        if self.finished:
            return
        yield from self._close("incomplete")
        yield self._error(message, code)
        yield from self._terminate("failed", error={"code": code, "message": message})

    def cancelled(self) -> Iterator[Fields]:
        """End because the client wanted it; the API has no event of this name, the status says it."""
        if self.finished:
            return
        yield from self._close("incomplete")
        yield from self._terminate("incomplete", status="cancelled")

    def fail_instead(self, message: str) -> Iterator[Fields]:
        """Take back the terminal event, which was not sent yet, and fail."""
        self.finished = False
        self._sequence -= 1
        self._response.update(completed_at=None, incomplete_details=None)
        yield from self.fail(message)

    # --- One event of the turn ---------------------------------------------------------------------------------

    def _map(self, event: Event) -> Iterator[Fields]:
        match event:
            case ReasoningDelta(index, text, tokens):
                yield from self._grow(index, text, tokens, self._new_reasoning)
            case TextDelta(index, text, channel, tokens):
                yield from self._grow(index, text, tokens, lambda: self._new_message(channel))
            case Citation(index) if isinstance(self._open, MessageOutput) and index == self._open_index:
                yield from self._send(self._open.cite(event))
            case ToolCallStarted():
                yield from self._call_started(event)
            case ToolCallDelta(index, text, tokens) if index == self._open_index and self._open is not None:
                yield from self._send(self._open.grow(text, tokens))
            case ToolCallFinished():
                yield from self._call_finished(event)
            case MessageDone():
                yield from self._message_done(event)
            case ToolResult(index) if index == self._waits_for:
                yield from self._result(event)

    def _grow(self, index: int, text: str, tokens: Sequence[Any], make: Any) -> Iterator[Fields]:
        if index != self._open_index:
            yield from self._begin(make(), index)
        assert self._open is not None
        yield from self._send(self._open.grow(text, tokens))

    def _new_reasoning(self) -> OutputItem:
        return ReasoningOutput(self._reasoning_event, "reasoning.encrypted_content" in self._include)

    def _new_message(self, channel: str) -> OutputItem:
        return MessageOutput(channel == "commentary", "message.output_text.logprobs" in self._include)

    def _call_started(self, event: ToolCallStarted) -> Iterator[Fields]:
        self._calls_by_index[event.index] = event
        if event.by_caller:
            if self._response["parallel_tool_calls"] or not self.calls:
                yield from self._begin(FunctionCallOutput(self._offer.callables[event.name]), event.index)
        elif self._hosted(event.name) == PYTHON:
            wanted = "code_interpreter_call.outputs" in self._include
            yield from self._begin(InterpreterOutput(wanted), event.index)

    def _call_finished(self, event: ToolCallFinished) -> Iterator[Fields]:
        started = self._calls_by_index[event.index]
        if started.by_caller and not event.by_caller:
            yield from self.fail(f"the model called {event.name} with arguments that are not a JSON object")
        elif isinstance(self._open, InterpreterOutput):
            yield from self._send(self._open.written())
            self._waits_for = event.index
        elif self._hosted(event.name) == BROWSER and not started.by_caller:
            function = event.name.rpartition(".")[2]
            sources = "web_search_call.action.sources" in self._include
            item = WebSearchOutput(function, event.arguments, sources, "web_search_call.results" in self._include)
            yield from self._begin(item, event.index)
            self._waits_for = event.index

    def _hosted(self, name: str) -> str | None:
        """The hosted tool that a name means; models like to write `functions.` before any name."""
        space = name.removeprefix("functions.").partition(".")[0]
        return space if space in self._offer.hosted else None

    def _message_done(self, event: MessageDone) -> Iterator[Fields]:
        if event.index != self._open_index:
            if event.message.channel == "final" and not event.text and event.complete and not event.message.recipient:
                yield from self._begin(self._new_message("final"), event.index)  # the answer is empty, but it is one
            else:
                return
        if isinstance(self._open, FunctionCallOutput) and event.complete:
            self.calls.append((event.message, self._open.fields["call_id"]))
        if self._waits_for is None:
            yield from self._close("completed" if event.complete else "incomplete")

    def _result(self, event: ToolResult) -> Iterator[Fields]:
        if isinstance(self._open, InterpreterOutput):
            self._open.found(event.text)
        elif isinstance(self._open, WebSearchOutput):
            page_url, urls = self._pages()
            self._open.found(event.text, page_url, urls)
        self._waits_for = None
        yield from self._close("completed")
        while self._waiting and self._waits_for is None and not self.finished:
            yield from self._map(self._waiting.popleft())

    # --- The end -----------------------------------------------------------------------------------------------

    def _finish(self, done: TurnDone) -> Iterator[Fields]:
        self._response["usage"] = usage(done.usage)
        self.messages = done.messages
        yield from self._close("incomplete")  # a call that nobody answered any more
        while self._waiting and not self.finished:
            self._waits_for = None
            yield from self._map(self._waiting.popleft())
        yield from self._close("incomplete")
        if done.reason == "error":
            yield from self.fail(done.error or "inference failed")
        elif done.reason == "cancelled":
            yield from self.cancelled()
        elif done.reason in _INCOMPLETE or self._cut:
            yield from self._terminate("incomplete", incomplete_details={"reason": "max_output_tokens"})
        elif not self.finished:
            yield from self._terminate("completed", completed_at=int(time.time()))

    def _terminate(self, kind: str, status: str | None = None, **fields: Any) -> Iterator[Fields]:
        self._response.update(status=status or kind, **fields)
        self.finished = True
        yield self._whole(f"response.{kind}")

    # --- Numbers -----------------------------------------------------------------------------------------------

    def _begin(self, item: OutputItem, index: int) -> Iterator[Fields]:
        yield from self._close("completed")
        self._open, self._open_index = item, index
        yield self._event("response.output_item.added", output_index=self._output_index, item=dict(item.fields))
        yield from self._send(item.begin())

    def _close(self, status: str) -> Iterator[Fields]:
        if self._open is None:
            return
        item, self._open, self._open_index, self._waits_for = self._open, None, None, None
        yield from self._send(item.end(status == "completed"), item)
        item.fields["status"] = status
        self._cut = self._cut or status == "incomplete"
        yield self._event("response.output_item.done", output_index=self._output_index, item=dict(item.fields))
        self._response["output"] = [*self._response["output"], dict(item.fields)]

    def _send(self, sent: Sent, item: OutputItem | None = None) -> Iterator[Fields]:
        of = item or self._open
        assert of is not None
        for type, fields in sent:
            yield self._event(type, item_id=of.fields["id"], output_index=self._output_index, **fields)

    @property
    def _output_index(self) -> int:
        return len(self._response["output"])

    def _whole(self, type: str) -> Fields:
        return self._event(type, response=self.response)

    def _error(self, message: str, code: str) -> Fields:
        """Flat, as the published schema wants it, and nested, as it is really sent."""
        error = {"type": "server_error", "code": code, "message": message, "param": None}
        return self._event("error", code=code, message=message, param=None, error=error)

    def _event(self, type: str, **fields: Any) -> Fields:
        event = {"type": type, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event


def usage(used: Usage) -> Fields:
    """Token counts in the API's form."""
    return {
        "input_tokens": used.input_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.total_tokens,
    }
