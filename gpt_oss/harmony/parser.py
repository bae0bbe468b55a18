"""Harmony's output language: token ids in, messages and typed deltas out, as they come.

`HarmonyParser` equals openai-harmony's `StreamableParser` on well-formed output (and has the same
`current_*` properties), but never raises and loses no text that was meant to be seen when output is
slightly off; the cases are in tests/harmony/test_malformed.py. Work per token does not depend on how much
came before. Knows nothing of models or tools.

The turn of an assistant starts after `<|start|>assistant`:

    header    text and <|channel|> gather in a HeaderDraft until <|message|>, or until it cannot be a header
    content   text, until <|end|>, <|call|>, <|return|>, <|endoftext|>, or a misplaced <|start|> or
    <|channel|>
"""

import codecs
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import tiktoken

from gpt_oss.harmony import tokens
from gpt_oss.harmony.header import CONSTRAIN_MARK, Header, HeaderDraft
from gpt_oss.tokenizer import get_tokenizer


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """A message as the model wrote it. `complete` is False where the stream ended inside it."""

    header: Header
    text: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class MessageOpened:
    """A header is complete; its content follows."""

    header: Header


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More text (never empty) of the message that is open."""

    text: str


@dataclass(frozen=True, slots=True)
class MessageClosed:
    """The open message is finished; its text is exactly the deltas joined."""

    message: ParsedMessage


@dataclass(frozen=True, slots=True)
class InvalidToken:
    """An id that no vocabulary entry has; it was left out."""

    id: int


ParserEvent = MessageOpened | ContentDelta | MessageClosed | InvalidToken


class HarmonyParser:
    """Feed tokens to `process`, call `finish` at the end of the stream; both return the events.

    role: "assistant" to read a completion, which begins inside the assistant's header; None to read a
    rendered conversation from its first `<|start|>`.
    """

    def __init__(self, role: str | None = "assistant", encoding: tiktoken.Encoding | None = None):
        self.messages: list[ParsedMessage] = []
        self.stop_token: int | None = None
        """The last of `<|return|>`, `<|call|>`, `<|endoftext|>` that was seen."""
        self.last_content_delta: str | None = None
        self._first_role = role
        self._bytes_of = (encoding or get_tokenizer()).decode_single_token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._draft = HeaderDraft(transcript=role is None)
        self._header: Header | None = None  # that of the open message
        self._content: list[str] = []
        self._committed = False  # the open message never had a <|message|>
        self._events: list[ParserEvent] = []
        self._controls: dict[int, Callable[[], None]] = {
            tokens.START: self._start,
            tokens.CHANNEL: self._channel,
            tokens.CONSTRAIN: self._constrain,
            tokens.MESSAGE: self._message,
            tokens.END: self._end,
        }

    def process(self, token: int) -> list[ParserEvent]:
        """Read one token. Never raises for any integer."""
        self._events = []
        self.last_content_delta = None
        if 0 <= token < tokens.NUM_TEXT_TOKENS:
            self._text(self._utf8.decode(self._bytes_of(token)))
        elif control := self._controls.get(token):
            control()
        elif token in tokens.STOP_TOKENS:
            self._end()
            self.stop_token = token
        elif not 0 <= token < tokens.VOCAB_SIZE:
            self._events.append(InvalidToken(token))
        return self._events

    def process_all(self, ids: Iterable[int]) -> list[ParserEvent]:
        """Read many tokens; the same events as one by one."""
        return [event for token in ids for event in self.process(token)]

    def finish(self) -> list[ParserEvent]:
        """The stream is over: close what is open, flagged incomplete. Harmless when called again."""
        self._events = []
        self.last_content_delta = None
        if self._header is not None:
            self._close(complete=False)
        elif not self._draft.is_cut():
            self._abandon(complete=False)
        self._draft = self._new_draft()
        return self._events

    @property
    def in_content(self) -> bool:
        """Whether a message is open, so that the next text is content."""
        return self._header is not None

    @property
    def current_role(self) -> str | None:
        """As StreamableParser's: known inside content, and from the start of a completion."""
        if self._header is not None:
            return self._header.role
        return None if self.messages or self._draft.started else self._first_role

    @property
    def current_channel(self) -> str | None:
        """The open message's channel."""
        return self._header.channel if self._header else None

    @property
    def current_recipient(self) -> str | None:
        """The open message's recipient."""
        return self._header.recipient if self._header else None

    @property
    def current_content_type(self) -> str | None:
        """The open message's content type."""
        return self._header.content_type if self._header else None

    @property
    def current_content(self) -> str:
        """The open message's text so far (joined anew at each access)."""
        return "".join(self._content)

    def _text(self, text: str) -> None:
        if self._header is not None:
            self._delta(text)
        elif text:
            self._draft.add(text)
            if self._draft.is_text():
                header, said = self._draft.abandon()
                self._open(header, committed=True)
                self._delta(said)

    def _start(self) -> None:
        self._end()
        self._draft.started = True

    def _channel(self) -> None:
        if self._header is None and self._draft.after is not None and self._draft.is_cut():
            self._draft.after = None  # a header that names two channels means the last
        elif self._header is not None or self._draft.after is not None:
            self._end()
        self._flush_header_text()
        self._draft.after = ""

    def _constrain(self) -> None:
        if self._header is None:
            self._flush_header_text()
            self._draft.add(f" {CONSTRAIN_MARK}")

    def _message(self) -> None:
        if self._header is not None:
            if not self._committed:
                return  # a second <|message|> says nothing new
            self._end()
        self._flush_header_text()
        header, said = self._draft.resolve()
        if said:
            self._whole(Header(channel="final"), said, complete=True)
        self._open(header)

    def _end(self) -> None:
        if self._header is not None:
            self._close()
        else:
            self._flush_header_text()
            self._abandon(complete=True)
        self._draft = self._new_draft()

    def _new_draft(self) -> HeaderDraft:
        return HeaderDraft(transcript=self._first_role is None)

    def _open(self, header: Header, *, committed: bool = False) -> None:
        self._header, self._content, self._committed = header, [], committed
        self._draft = self._new_draft()
        self._events.append(MessageOpened(header))

    def _delta(self, text: str) -> None:
        if text:
            self._content.append(text)
            self.last_content_delta = text
            self._events.append(ContentDelta(text))

    def _close(self, *, complete: bool = True) -> None:
        assert self._header is not None
        self._delta(self._utf8.decode(b"", final=True))  # half a character becomes U+FFFD
        message = ParsedMessage(self._header, "".join(self._content), complete)
        self.messages.append(message)
        self._events.append(MessageClosed(message))
        self._header, self._content = None, []

    def _abandon(self, *, complete: bool) -> None:
        header, said = self._draft.abandon()
        if said:
            self._whole(header, said, complete=complete)

    def _whole(self, header: Header, text: str, *, complete: bool) -> None:
        self._open(header)
        self._delta(text)
        self._close(complete=complete)

    def _flush_header_text(self) -> None:
        """Half a character at the end of a header's text cannot be completed any more."""
        if rest := self._utf8.decode(b"", final=True):
            self._draft.add(rest)
