"""From the API's input items to the Harmony messages a model reads.

In: items, and the history that a stored response continues. Out: `Entry`s, which are Harmony messages with the call
id that clients know a call by. Every output directly follows its call, as the model was trained on, whatever the
order in which a client lists them. Knows nothing of HTTP but the `ApiError`s for items that cannot belong together.
"""

import base64
import binascii
import itertools
import json
import zlib
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openai_harmony import Author, DeveloperContent, Message, Role, TextContent

from gpt_oss.harmony.header import CONSTRAIN_MARK
from gpt_oss.harmony.prompt import FUNCTIONS, text_message
from gpt_oss.harmony.toolbox import tool_reply
from gpt_oss.responses_api import input_items as items
from gpt_oss.responses_api.errors import ApiError

IMAGE_NOTE = "[An image is attached here. You cannot see images; say so if it matters.]"
SUMMARY_NOTE = "What follows is a summary of the conversation so far, which is not shown any more:\n\n"
_SEALED = "gptoss1."


@dataclass(frozen=True)
class Entry:
    """A message of the conversation. `call_id` of a call of the caller's, `answers` of an output: the call's id."""

    message: Message
    call_id: str | None = None
    answers: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {"message": self.message.to_dict(), "call_id": self.call_id, "answers": self.answers}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Entry":
        """The inverse of `to_dict`."""
        return cls(Message.from_dict(data["message"]), data["call_id"], data["answers"])


def read_items(given: str | Sequence[Any] | None, history: Sequence[Entry] = ()) -> list[Entry]:
    """The whole conversation: the history and the items after it.

    Raises ApiError for an output without a call, or a call that nobody answered.
    """
    if given is None or isinstance(given, str):
        new = [Entry(text_message(Role.USER, given))] if given is not None else []
    else:
        answered = {item.call_id for item in given if isinstance(item, items.CallOutputItem)}
        given = [item for item in given if not _was_cut(item, answered)]
        new = [entry for position, item in enumerate(given) for entry in _entries(item, given[position + 1 :])]
    return _paired([*history, *new])


def _was_cut(item: Any, answered: Collection[str]) -> bool:
    """Whether it is a call that a limit ended before it was whole, which nobody could answer."""
    is_call = isinstance(item, items.FunctionCallItem | items.CustomToolCallItem)
    return is_call and item.status == "incomplete" and item.call_id not in answered


def _paired(entries: Sequence[Entry]) -> list[Entry]:
    """Move each output behind its call; neither may be without the other.

    Clients that number the calls of each turn from 0 use an id again: its outputs answer its calls in their order.
    """
    calls = {entry.call_id for entry in entries if entry.call_id is not None}
    outputs: dict[str, deque[Entry]] = defaultdict(deque)
    for entry in entries:
        if entry.answers is not None:
            if entry.answers not in calls:
                text = f"No tool call found for function call output with call_id {entry.answers}."
                raise ApiError(text, param="input")
            outputs[entry.answers].append(entry)
    paired: list[Entry] = []
    for entry in entries:
        if entry.answers is not None:
            continue
        paired.append(entry)
        if entry.call_id is not None:
            if entry.call_id not in outputs:
                raise ApiError(f"No tool output found for function call {entry.call_id}.", param="input")
            answers = outputs[entry.call_id]
            output = answers.popleft() if len(answers) > 1 else answers[0]  # a call that was sent twice is one call
            name = entry.message.recipient or FUNCTIONS
            reply = tool_reply(name, _text(output.message), entry.message.channel)
            paired.append(Entry(reply, answers=entry.call_id))
    return paired


def _text(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, TextContent))


def _entries(item: Any, following: Sequence[Any]) -> Iterator[Entry]:
    """The messages that an item stands for; none for what gpt-oss cannot read."""
    match item:
        case items.MessageItem():
            yield Entry(_message(item, following))
        case items.ReasoningItem():
            if text := _reasoning_text(item):
                yield Entry(text_message(Role.ASSISTANT, text, channel="analysis"))
        case items.FunctionCallItem():
            call = call_message(f"{item.namespace or FUNCTIONS}.{item.name}", item.arguments, f"{CONSTRAIN_MARK}json")
            yield Entry(call, call_id=item.call_id)
        case items.CustomToolCallItem():
            call = call_message(f"{item.namespace or FUNCTIONS}.{item.name}", item.input, None)
            yield Entry(call, call_id=item.call_id)
        case items.CallOutputItem():
            yield Entry(tool_reply("", _joined(item.output)), answers=item.call_id)
        case items.WebSearchCallItem():
            yield from _search(item.action or {})
        case items.CodeInterpreterCallItem():
            logs = "".join(str(o.get("logs", "")) for o in item.outputs or ())
            yield Entry(call_message("python", item.code or "", "code", "analysis"))
            yield Entry(tool_reply("python", logs or "(the output was not kept)", "analysis"))
        case items.CompactionItem():
            summary = unseal(item.encrypted_content)
            if summary is None:
                raise ApiError(
                    "The compaction item was not made by this server.", param="input", code="invalid_encrypted_content"
                )
            yield Entry(_developer(SUMMARY_NOTE + summary))


def call_message(recipient: str, text: str, content_type: str | None, channel: str = "commentary") -> Message:
    """A call as the model writes it."""
    return Message(
        author=Author(role=Role.ASSISTANT),
        content=[TextContent(text=text)],
        channel=channel,
        recipient=recipient,
        content_type=content_type,
    )


def _message(item: items.MessageItem, following: Sequence[Any]) -> Message:
    text = _joined(item.content, "" if item.role == "assistant" else "\n")
    if item.role in ("system", "developer"):
        return _developer(text)
    if item.role == "user":
        return text_message(Role.USER, text)
    return text_message(Role.ASSISTANT, text, channel="commentary" if _is_preamble(item, following) else "final")


def _is_preamble(item: items.MessageItem, following: Sequence[Any]) -> bool:
    """Whether the assistant said this before a call; clients often lose `phase`."""
    if item.phase is not None:
        return item.phase == "commentary"
    after = next((i for i in following if not isinstance(i, items.ReasoningItem)), None)
    return isinstance(after, items.FunctionCallItem | items.CustomToolCallItem)


def _developer(text: str) -> Message:
    return Message.from_role_and_content(Role.DEVELOPER, DeveloperContent.new().with_instructions(text))


def _reasoning_text(item: items.ReasoningItem) -> str:
    if item.content:
        return "\n".join(part.text for part in item.content)
    if item.encrypted_content and (text := unseal(item.encrypted_content)) is not None:
        return text
    return "\n".join(part.text for part in item.summary or ())


def _search(action: dict[str, Any]) -> Iterator[Entry]:
    functions = {
        "open_page": ("open", {"id": action.get("url")}),
        "find_in_page": ("find", {"pattern": action.get("pattern")}),
    }
    function, arguments = functions.get(str(action.get("type")), ("search", {"query": action.get("query")}))
    sources = action.get("sources")
    urls = [source.get("url") for source in sources if isinstance(source, dict)] if isinstance(sources, list) else []
    found = "\n".join(map(str, urls)) or "(the result was not kept)"
    name = f"browser.{function}"
    yield Entry(call_message(name, json.dumps(arguments, ensure_ascii=False), "code", "analysis"))
    yield Entry(tool_reply(name, found, "analysis"))


def _joined(content: str | Sequence[Any], separator: str = "\n") -> str:
    return content if isinstance(content, str) else separator.join(map(_part_text, content))


def _part_text(part: Any) -> str:
    match part:
        case items.TextPart():
            return part.text
        case items.RefusalPart():
            return part.refusal
        case items.FilePart():
            return _file_text(part)
    return IMAGE_NOTE


def _file_text(part: items.FilePart) -> str:
    """The file's text where it is text, else a note."""
    name = part.filename or "a file"
    header, _, data = (part.file_data or "").partition("base64,")
    try:
        text = base64.b64decode(data or header, validate=True).decode() if part.file_data else None
    except (binascii.Error, UnicodeDecodeError):
        text = None
    return f"[File {name}]\n{text}" if text else f"[{name} is attached here. You cannot read it; say so if it matters.]"


def split_leading(entries: Iterable[Entry]) -> tuple[list[str], list[Entry]]:
    """Instructions that stand before everything else, and the rest."""
    entries = list(entries)
    leading = list(itertools.takewhile(lambda entry: _instructions(entry) is not None, entries))
    return [_instructions(entry) or "" for entry in leading], entries[len(leading) :]


def _instructions(entry: Entry) -> str | None:
    content = entry.message.content[0]
    return content.instructions or "" if isinstance(content, DeveloperContent) else None


def seal(text: str) -> str:
    """`text` in the opaque form of `encrypted_content`; it hides nothing, it only survives any client unchanged."""
    return _SEALED + base64.urlsafe_b64encode(zlib.compress(text.encode("utf-8", "replace"))).decode()


def unseal(sealed: str) -> str | None:
    """The inverse of `seal`; None for anything that this server did not make."""
    if not sealed.startswith(_SEALED):
        return None
    try:
        unpacked = zlib.decompressobj().decompress(base64.urlsafe_b64decode(sealed[len(_SEALED) :]), 8_000_000)
        return unpacked.decode()
    except (binascii.Error, zlib.error, ValueError):
        return None
