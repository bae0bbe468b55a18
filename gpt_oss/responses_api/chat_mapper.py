"""From the events of a turn to chunks of Chat Completions, and to the whole completion.

In: `gpt_oss.harmony.events`. Out: chunks as dicts; `completion()` is the sum of them. Reasoning goes by both names that
clients look for, `reasoning` and `reasoning_content`. Tools that the server runs leave no trace but the answer.
"""

import time
from collections.abc import Iterator

from gpt_oss.harmony.events import (
    Citation,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    TurnDone,
)
from gpt_oss.responses_api.event_mapper import usage
from gpt_oss.responses_api.offered_tools import Offer
from gpt_oss.responses_api.output_items import Fields, new_id, token_logprob
from gpt_oss.token_generator import Token

_FINISH = {"stop": "stop", "tool_calls": "tool_calls"}


class ChatMapper:
    """One completion. `failure` says what went wrong, if anything did."""

    def __init__(self, model: str, offer: Offer, *, logprobs: bool = False, include_usage: bool = False):
        self.finished = False
        self.failure: str | None = None
        self._head = {"id": new_id("chatcmpl"), "created": int(time.time()), "model": model}
        self._offer = offer
        self._wants_logprobs, self._wants_usage = logprobs, include_usage
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, Fields] = {}  # by the turn's index
        self._logprobs: list[Fields] = []
        self._annotations: list[Fields] = []
        self._last_text: int | None = None  # the turn's index of the message that text came from last
        self._offset = 0  # of that message in the content
        self._finish_reason: str | None = None
        self._usage: Fields | None = None

    def start(self) -> Iterator[Fields]:
        """The chunk that names the role."""
        yield self._chunk({"role": "assistant", "content": ""})

    def map(self, event: Event) -> Iterator[Fields]:
        """The chunks for one event."""
        match event:
            case ReasoningDelta(_, text):
                self._reasoning.append(text)
                yield self._chunk({"reasoning": text, "reasoning_content": text})
            case TextDelta(index, text, _, tokens):
                yield from self._text(index, text, tokens)
            case Citation():
                yield from self._cite(event)
            case ToolCallStarted(index, name, True):
                yield from self._call_started(index, name)
            case ToolCallDelta(index, text) if index in self._calls:
                yield from self._arguments(index, text)
            case ToolCallFinished(index, name, arguments, by_caller) if index in self._calls:
                if not by_caller:
                    yield from self.fail(f"the model called {name} with arguments that are not a JSON object")
                elif not arguments and "function" in self._calls[index]:
                    yield from self._arguments(index, "{}")
            case TurnDone():
                yield from self._finish(event)

    def fail(self, message: str, code: str = "server_error") -> Iterator[Fields]:
        """End with an error."""
        if not self.finished:
            self.finished, self.failure = True, message
            yield {"error": {"message": message, "type": "server_error", "param": None, "code": code}}

    def cancelled(self) -> Iterator[Fields]:
        """Nobody reads any more."""
        yield from self.fail("the request was cancelled")

    def fail_instead(self, message: str) -> Iterator[Fields]:
        """Replace the last chunk by an error."""
        self.finished = False
        yield from self.fail(message)

    def completion(self) -> Fields:
        """The whole, for a request without `stream`."""
        reasoning = "".join(self._reasoning)
        message: Fields = {
            "role": "assistant",
            "content": "".join(self._content) or (None if self._calls else ""),
            "refusal": None,
            "annotations": self._annotations,
        }
        if reasoning:
            message |= {"reasoning": reasoning, "reasoning_content": reasoning}
        if self._calls:
            message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in self._calls.values()]
        logprobs = {"content": self._logprobs, "refusal": None} if self._wants_logprobs else None
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": self._finish_reason}
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": self._usage}

    def _text(self, index: int, text: str, tokens: tuple[Token, ...]) -> Iterator[Fields]:
        if self._last_text not in (None, index):
            text = f"\n\n{text}"  # a preamble and the answer are one text here
        if index != self._last_text:
            self._offset = sum(map(len, self._content)) + (len(text) - len(text.lstrip("\n")) if self._content else 0)
        self._last_text = index
        self._content.append(text)
        logprobs = [token_logprob(token) for token in tokens] if self._wants_logprobs else []
        self._logprobs += logprobs
        yield self._chunk({"content": text}, logprobs={"content": logprobs} if self._wants_logprobs else None)

    def _cite(self, citation: Citation) -> Iterator[Fields]:
        cited = {
            "start_index": self._offset + citation.start,
            "end_index": self._offset + citation.end,
            "url": citation.url,
            "title": citation.title,
        }
        annotation = {"type": "url_citation", "url_citation": cited}
        self._annotations.append(annotation)
        yield self._chunk({"annotations": [annotation]})

    def _call_started(self, index: int, name: str) -> Iterator[Fields]:
        called = self._offer.callables[name]
        kind, key = ("custom", "input") if called.is_custom else ("function", "arguments")
        position = len(self._calls)
        call: Fields = {
            "index": position,
            "id": new_id("call"),
            "type": kind,
            kind: {"name": called.name, key: ""},
        }
        self._calls[index] = call
        yield self._chunk({"tool_calls": [{**call, kind: dict(call[kind])}]})

    def _arguments(self, index: int, text: str) -> Iterator[Fields]:
        call = self._calls[index]
        kind = call["type"]
        key = "input" if kind == "custom" else "arguments"
        call[kind][key] += text
        yield self._chunk({"tool_calls": [{"index": call["index"], kind: {key: text}}]})

    def _finish(self, done: TurnDone) -> Iterator[Fields]:
        if done.reason == "error":
            yield from self.fail(done.error or "inference failed")
        elif done.reason == "cancelled":
            yield from self.cancelled()
        if self.finished:
            return
        counts = usage(done.usage)
        self._usage = {
            "prompt_tokens": counts["input_tokens"],
            "completion_tokens": counts["output_tokens"],
            "total_tokens": counts["total_tokens"],
            "prompt_tokens_details": {"cached_tokens": done.usage.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": done.usage.reasoning_tokens},
        }
        self.finished, self._finish_reason = True, _FINISH.get(done.reason, "length")
        yield self._chunk({}, finish_reason=self._finish_reason)
        if self._wants_usage:
            yield {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": self._usage}

    def _chunk(self, delta: Fields, *, logprobs: Fields | None = None, finish_reason: str | None = None) -> Fields:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        nothing = {"usage": None} if self._wants_usage else {}
        return {**self._head, "object": "chat.completion.chunk", "choices": [choice], **nothing}
