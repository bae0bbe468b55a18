"""What stands between `<|start|>` and `<|message|>`: who speaks, on which channel, to whom.

In: the header's text as it arrives, cut in two by `<|channel|>`. Out: a `Header`, and whatever text in it
cannot be a header, so that nothing a model says is lost. Knows no token ids. Written for models that get
headers slightly wrong; a header that openai-harmony renders gives exactly its fields back.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

CONSTRAIN_MARK = "<|constrain|>"
CONTENT_TYPES = ("json", "code", "text")
MAX_HEADER_CHARACTERS = 512
"""Longer than any header: text that reaches it without a `<|message|>` is no header."""

_ROLE = re.compile(r"\s*(?P<role>assistant|user|system|developer|tool)(?::(?P<name>[^\s<]+))?(?=\s|to=|<|$)")
_FIRST_WORD = re.compile(r"\s*(?!to=)[^\s<]+")
_CHANNEL = re.compile(r"\s*(?!to=)(?P<word>[^\s<]+?)(?=to=|[\s<]|$)")
_KNOWN_CHANNEL = re.compile("analysis|commentary|final", re.IGNORECASE)
_RECIPIENT = re.compile(r"to=\s*([^\s<{]+)")
_CONSTRAIN = re.compile(re.escape(CONSTRAIN_MARK) + r"\s*([\w./+-]*)")
_PARTS = re.compile(rf"(?:\s*(?:{_RECIPIENT.pattern}|{_CONSTRAIN.pattern}|(?:json|code)(?=\s)))*")


@dataclass(frozen=True, slots=True)
class Header:
    """One message's header. `name` is the author's: a tool's, or what follows the colon in `user:bob`."""

    role: str = "assistant"
    name: str | None = None
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None


class _Parts(NamedTuple):
    role: re.Match[str] | None  # a known role at the very beginning
    speaker: str | None  # after <|start|>: another word in the role's place
    channel: re.Match[str] | None
    recipient: str | None
    content_type: str | None  # one marked by <|constrain|>
    words: list[str]  # everything else


@dataclass(slots=True)
class HeaderDraft:
    """A header while it is being written.

    started: `<|start|>` was seen, so its first word is the role. transcript: the text is a rendered
    conversation, where a missing channel means none, and not a completion, where it means `final`.
    """

    started: bool = False
    transcript: bool = False
    before: str = ""
    after: str | None = None  # None until <|channel|>

    def add(self, text: str) -> None:
        """Append text to the part that is being written."""
        if self.after is None:
            self.before += text
        else:
            self.after += text

    def is_text(self) -> bool:
        """Whether what was written so far can no longer become a header."""
        if len(self.before) + len(self.after or "") > MAX_HEADER_CHARACTERS:
            return True
        parts = self._parts()
        words = parts.words[:-1] if _begins_recipient(parts.words) else parts.words
        return len(words) > (2 if parts.recipient else 1)

    def is_cut(self) -> bool:
        """At the end of the stream: whether what is there is the beginning of a header rather than text."""
        parts = self._parts()
        if len(parts.words) == 1:
            return _begins_recipient(parts.words) or parts.recipient is not None
        return not parts.words

    def resolve(self) -> tuple[Header, str]:
        """At `<|message|>`: the header, and words in it that were no header but something said."""
        role, speaker, channel, recipient, content_type, words = self._parts()
        if channel is None and len(words) == 1 and _KNOWN_CHANNEL.fullmatch(words[0]):
            channel = _CHANNEL.match(words.pop())
        if recipient is None and len(words) == 1 and _names_a_tool(words[0]):
            recipient = words.pop()
        if recipient is not None or (len(words) == 1 and self._may_be_content_type(words[0])):
            content_type = content_type or (words[-1] if words else None)
            words = []
        name = role["name"] if role else None
        author = role["role"] if role else "assistant"
        if speaker and recipient:  # only a tool answers to somebody
            author, name = "tool", speaker
        where = self._channel(author, channel, recipient)
        return Header(author, name, where, recipient, content_type), " ".join(words)

    def abandon(self) -> tuple[Header, str]:
        """Where `<|message|>` never comes: the header as far as it goes, and the rest verbatim, as text."""
        role, _, channel, recipient, content_type, _ = self._parts()
        if not self.started and self.after is None:
            role = None  # a sentence may well begin with "user"
        author = role["role"] if role else "assistant"
        name = role["name"] if role else None
        header = Header(author, name, self._channel(author, channel, recipient), recipient, content_type)
        whole = self.before[role.end() if role else 0 :]
        text = whole[_end(_PARTS, whole) :] + self._after_without_channel(channel)
        return header, text if text == self.before else text.lstrip()

    def _parts(self) -> _Parts:
        before, after = self.before, self.after or ""
        role = _ROLE.match(before)
        speaker = _FIRST_WORD.match(before) if self.started and role is None else None
        channel = _CHANNEL.match(after)
        rest = f"{before[_end_of(role or speaker) :]} {after[_end_of(channel) :]}"
        recipient, constrain = _RECIPIENT.search(rest), _CONSTRAIN.search(rest)
        return _Parts(
            role,
            speaker[0].strip() if speaker else None,
            channel,
            recipient[1] if recipient else None,
            CONSTRAIN_MARK + constrain[1] if constrain else None,
            _CONSTRAIN.sub(" ", _RECIPIENT.sub(" ", rest)).split(),
        )

    def _may_be_content_type(self, word: str) -> bool:
        return self.started or self.after is not None or word in CONTENT_TYPES

    def _channel(self, role: str, word: re.Match[str] | None, recipient: str | None) -> str | None:
        """The channel as written, the known one that a garbled word holds, or what a missing one means."""
        if word is None:
            if self.transcript or role != "assistant":
                return None
            return "final" if recipient is None else "commentary"
        known = _KNOWN_CHANNEL.findall(word["word"])
        if len(known) > 1 and recipient is not None and recipient.startswith("functions."):
            return "commentary"
        return known[-1].lower() if known else word["word"]

    def _after_without_channel(self, word: re.Match[str] | None) -> str:
        after = self.after or ""
        parts = _end(_PARTS, after, _end_of(word))
        if parts > _end_of(word):
            return after[parts:]  # a recipient follows, so the word before it was a channel however garbled
        known = _KNOWN_CHANNEL.match(after.lstrip())
        return after.lstrip()[_end_of(known) :]


def _end_of(match: re.Match[str] | None) -> int:
    return match.end() if match else 0


def _end(pattern: re.Pattern[str], text: str, start: int = 0) -> int:
    """Where a pattern that may match nothing ends."""
    match = pattern.match(text, start)
    return match.end() if match else start


def _begins_recipient(words: list[str]) -> bool:
    return bool(words) and "to=".startswith(words[-1])


def _names_a_tool(word: str) -> bool:
    return word == "python" or word.startswith(("functions.", "browser."))
