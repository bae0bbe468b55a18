"""One sample of the model, read into events and messages.

In: tokens as they are generated. Out: the events of `gpt_oss.harmony.events` for each, and at the end the
messages and calls of the sample, its token ids and where they went. Knows no generator and runs no tool.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from openai_harmony import Author, Message, Role, TextContent

from gpt_oss.harmony import tokens
from gpt_oss.harmony.citations import CitationStream
from gpt_oss.harmony.events import (
    Citation,
    Event,
    MessageDone,
    Notice,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
)
from gpt_oss.harmony.header import Header
from gpt_oss.harmony.parser import (
    ContentDelta,
    HarmonyParser,
    InvalidToken,
    MessageClosed,
    MessageOpened,
    ParsedMessage,
    ParserEvent,
)
from gpt_oss.harmony.toolbox import Toolbox, is_call
from gpt_oss.token_generator import Token

Kind = Literal["reasoning", "call", "text"]
CLOSING = (tokens.END, *tokens.STOP_TOKENS)


@dataclass(frozen=True, slots=True)
class Call:
    """A complete call. `by_caller`: the caller runs it."""

    index: int
    name: str
    message: Message
    by_caller: bool


class SampleReader:
    """Feed every token of a sample to `read`, then call `finish`.

    first_index: the index of the sample's first message within the turn.
    """

    def __init__(self, toolbox: Toolbox, first_index: int = 0):
        self.ids: list[int] = []
        self.messages: list[Message] = []
        self.calls: list[Call] = []
        self.counts: dict[Kind, int] = {"reasoning": 0, "call": 0, "text": 0}
        self.strayed = False
        """The model began to write a message of the user's or a tool's; nothing is read from there on."""
        self.index = first_index
        self._toolbox = toolbox
        self._parser = HarmonyParser()
        self._citations = CitationStream(None)
        self._text: list[str] = []  # of the open message, as shown
        self._waiting: list[Token] = []  # tokens whose text was not given out yet
        self._counted = 0
        self._closed_ids = 0  # tokens up to the end of the last message

    def read(self, token: Token) -> Iterator[Event]:
        """The events of one more token; to be exhausted before the next."""
        self.ids.append(token.id)
        if self._parser.in_content:
            self._waiting.append(token)
        for event in self._parser.process(token.id):
            if not self.strayed:
                yield from self._translate(event)

    def finish(self) -> Iterator[Event]:
        """The sample is over."""
        if not self.strayed:
            for event in self._parser.finish():
                yield from self._translate(event)
        self._count("text")

    def ids_to_continue(self) -> list[int]:
        """The ids as the model wrote them, ended where it strayed or where no closing token was given out."""
        kept = self.ids[: self._closed_ids] if self.strayed else self.ids
        return kept if kept and kept[-1] in CLOSING else [*kept, tokens.CALL]

    def _translate(self, event: ParserEvent) -> Iterator[Event]:
        match event:
            case MessageOpened(header):
                yield from self._open(header)
            case ContentDelta(text):
                yield from self._delta(text)
            case MessageClosed(message):
                yield from self._close(message)
            case InvalidToken(id):
                yield Notice(f"the model wrote the token {id}, which does not exist; it was left out")

    def _open(self, header: Header) -> Iterator[Event]:
        if header.role != "assistant":
            self.strayed = True
            return
        self._text, self._waiting = [], []
        self._kind = _kind(header)
        self._channel = header.channel or "final"
        self._function = self._toolbox.function_named(header.recipient)
        self._citations = CitationStream(self._toolbox.normalize_citations if self._kind == "text" else None)
        if self._kind == "call":
            yield ToolCallStarted(
                self.index, self._function or header.recipient or "", self._function is not None
            )

    def _delta(self, text: str) -> Iterator[Event]:
        for piece, links in self._citations.feed(text):
            yield from self._give(piece)
            for link in links:
                yield Citation(self.index, link.start, link.end, link.url, link.title)

    def _give(self, text: str) -> Iterator[Event]:
        if not text:
            return
        made_of, self._waiting = tuple(self._waiting), []
        self._text.append(text)
        if self._kind == "text":
            yield TextDelta(self.index, text, self._channel, made_of)
        elif self._kind == "call":
            yield ToolCallDelta(self.index, text, made_of)
        else:
            yield ReasoningDelta(self.index, text, made_of)

    def _close(self, parsed: ParsedMessage) -> Iterator[Event]:
        yield from self._give(self._citations.flush())
        message = _message(parsed, self._kind)
        if self._kind == "call" and parsed.complete:
            name, by_caller = self._function or parsed.header.recipient or "", False
            if self._function is not None:
                by_caller = self._toolbox.is_readable(self._function, parsed.text)
            self.calls.append(Call(self.index, name, message, by_caller))
            yield ToolCallFinished(self.index, name, parsed.text, by_caller)
        if parsed.complete or (self._kind == "text" and parsed.text):
            self.messages.append(message)
        yield MessageDone(self.index, message, "".join(self._text), parsed.complete)
        self.index += 1
        self._closed_ids = len(self.ids) - (bool(self.ids) and self.ids[-1] not in CLOSING)
        self._count(self._kind)

    def _count(self, kind: Kind) -> None:
        self.counts[kind] += len(self.ids) - self._counted
        self._counted = len(self.ids)


def _kind(header: Header) -> Kind:
    if is_call(header.recipient):
        return "call"
    return "reasoning" if header.channel == "analysis" else "text"


def _message(parsed: ParsedMessage, kind: Kind) -> Message:
    """The message for the history; text on a channel that does not exist was an answer."""
    header = parsed.header
    channel = header.channel
    if kind == "text" and channel != "commentary":
        channel = "final"
    return Message(
        author=Author(role=Role.ASSISTANT),
        content=[TextContent(text=parsed.text)],
        channel=channel,
        recipient=header.recipient if kind == "call" else None,
        content_type=header.content_type,
    )
