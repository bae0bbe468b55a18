"""From a conversation to the token ids a model reads.

Builds the system and developer messages, decides what of the history a model gets to see again, and renders
it all with openai-harmony, message by message. Control tokens in any text stay text.

openai-harmony's encoder is quadratic in the length of an unbroken run (200,000 spaces take it over 12 s),
so long runs travel through it as short marks and are encoded by tiktoken, which gives the same ids in
linear time.
"""

import datetime
import re
import secrets
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from openai_harmony import (
    DeveloperContent,
    Message,
    ReasoningEffort,
    RenderOptions,
    Role,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespaceConfig,
)

from gpt_oss.errors import RequestError
from gpt_oss.harmony import tokens
from gpt_oss.tokenizer import get_harmony_encoding, get_tokenizer

FUNCTIONS = "functions"
EFFORTS = {"low": ReasoningEffort.LOW, "medium": ReasoningEffort.MEDIUM, "high": ReasoningEffort.HIGH}
DEFAULT_EFFORT = "medium"
KNOWLEDGE_CUTOFF = "2024-06"

LONG_RUN = 1_000
"""Characters without a break from which on openai-harmony's encoder is not trusted with a text."""
LONG_TEXT = 10_000
"""Characters from which on a text is left to tiktoken altogether, which lets other threads run meanwhile."""
_LONG_RUN = re.compile(rf"\S{{{LONG_RUN},}}|\s{{{LONG_RUN},}}")
_LONG_RUN_IN_LINE = re.compile(rf"\S{{{LONG_RUN},}}|[^\S\n]{{{LONG_RUN},}}")
# openai-harmony keeps the interpreter lock while it works: threads that waited for that would all stand in the way of a
# server's event loop, so they wait here, where only one gets in.
_RENDERING = threading.Lock()
_WHITESPACE_CHUNK = re.compile(r"\s{100000}")
"""tiktoken's split pattern gives up (and panics) on white space several times as long."""


class ToolLike(Protocol):
    """What the prompt needs to know of a tool (see `gpt_oss.tools.tool.Tool`)."""

    @property
    def tool_config(self) -> ToolNamespaceConfig | None:
        """The namespace shown to the model, None for nothing."""

    @property
    def instruction(self) -> str:
        """Prose that tells the model how to use the tool."""


def system_message(
    *,
    effort: str = DEFAULT_EFFORT,
    date: datetime.date | str | None = None,
    identity: str | None = None,
    tools: Iterable[ToolLike] = (),
) -> Message:
    """The system message: identity, knowledge cutoff, date (default: today), effort, built-in tools,
    channels.

    Raises RequestError for an effort other than low, medium or high.
    """
    if effort not in EFFORTS:
        raise RequestError(f"the reasoning effort must be one of {', '.join(EFFORTS)}, got {effort!r}")
    content = SystemContent(
        reasoning_effort=EFFORTS[effort],
        knowledge_cutoff=KNOWLEDGE_CUTOFF,
        conversation_start_date=str(date or datetime.date.today()),
    )
    if identity is not None:
        content = content.with_model_identity(identity)
    for tool in tools:
        config = tool.tool_config
        if config is not None and config.name != FUNCTIONS:  # functions belong into the developer message
            content = content.with_tools(config)
    return Message.from_role_and_content(Role.SYSTEM, content)


def developer_message(
    instructions: str | None = None,
    functions: Sequence[ToolDescription] = (),
    namespaces: Iterable[ToolNamespaceConfig] = (),
) -> Message | None:
    """The developer message: instructions and functions; None where there is neither.

    functions become the namespace `functions`; namespaces are further groups of functions, each with its
    name.
    """
    content = DeveloperContent.new()
    if instructions:
        content = content.with_instructions(instructions)
    if functions:
        content = content.with_function_tools(functions)
    for namespace in namespaces:
        content = content.with_tools(namespace)
    if content.instructions is None and not content.tools:
        return None
    return Message.from_role_and_content(Role.DEVELOPER, content)


def conversation_start(
    *,
    effort: str = DEFAULT_EFFORT,
    date: datetime.date | str | None = None,
    identity: str | None = None,
    instructions: str | None = None,
    tools: Sequence[ToolLike] = (),
) -> list[Message]:
    """The messages before the first user's: system, and developer where tools or instructions need it.

    A tool whose namespace is `functions` is described in the developer message, after its instructions.
    """
    functions = [
        tool for tool in tools if tool.tool_config is not None and tool.tool_config.name == FUNCTIONS
    ]
    texts = [tool.instruction for tool in functions if tool.instruction] + (
        [instructions] if instructions else []
    )
    described = [function for tool in functions if tool.tool_config for function in tool.tool_config.tools]
    developer = developer_message("\n\n".join(texts), described)
    start = [system_message(effort=effort, date=date, identity=identity, tools=tools)]
    return start if developer is None else [*start, developer]


def text_message(role: Role | str, text: str, *, channel: str | None = None) -> Message:
    """A message of plain text, such as a user's."""
    message = Message.from_role_and_content(Role(role), text)
    return message if channel is None else message.with_channel(channel)


def visible_history(messages: Sequence[Message]) -> list[Message]:
    """What the model sees of a conversation: reasoning, and calls made while reasoning, go once an answer
    exists.

    Everything on the analysis channel before the last `final` message goes; after it, in the turn that is
    still open, all stays. Developer messages that say nothing are left out.
    """
    answered = max((i for i, message in enumerate(messages) if message.channel == "final"), default=-1)
    return [
        message
        for i, message in enumerate(messages)
        if (i > answered or message.channel != "analysis") and not _says_nothing(message)
    ]


def drop_oldest_turns(messages: Sequence[Message], excess: int) -> tuple[list[Message], int]:
    """Leave out whole turns, oldest first, until at least `excess` tokens are saved or only the last is left.

    A turn begins with a user's message; what stands before the first one (system, developer) stays.
    Returns the messages that are left and the number of turns dropped.
    """
    starts = [i for i, message in enumerate(messages) if message.author.role == Role.USER]
    saved = dropped = 0
    while saved < excess and dropped < len(starts) - 1:
        turn = messages[starts[dropped] : starts[dropped + 1]]
        saved += len(render_messages(visible_history(turn)))
        dropped += 1
    return [*messages[: starts[0]], *messages[starts[dropped] :]] if dropped else list(messages), dropped


def render_messages(messages: Sequence[Message]) -> list[int]:
    """Token ids of the messages as they are, one after the other."""
    functions = any(_has_functions(message) for message in messages)
    return [token for message in messages for token in _render(message, functions)]


def render_for_completion(messages: Sequence[Message]) -> list[int]:
    """The prompt: the visible history, then `<|start|>assistant`, after which the model writes."""
    return render_messages(visible_history(messages)) + opening()


def opening() -> list[int]:
    """What precedes everything an assistant says: `<|start|>assistant`."""
    return [tokens.START, *get_tokenizer().encode_ordinary("assistant")]


def encode_text(text: str) -> list[int]:
    """Token ids of plain text, in time linear in its length; nothing in it becomes a control token."""
    ids: list[int] = []
    start = 0
    for chunk in _WHITESPACE_CHUNK.finditer(text):
        ids += get_tokenizer().encode_ordinary(text[start : chunk.end()])
        start = chunk.end()
    return ids + get_tokenizer().encode_ordinary(text[start:])


def _says_nothing(message: Message) -> bool:
    content = message.content[0] if len(message.content) == 1 else None
    return isinstance(content, DeveloperContent) and not content.instructions and not content.tools


def _has_functions(message: Message) -> bool:
    return any(
        isinstance(part, DeveloperContent) and "functions" in (part.tools or {}) for part in message.content
    )


def _render(message: Message, conversation_has_functions: bool) -> list[int]:
    options = RenderOptions(conversation_has_function_tools=conversation_has_functions)
    runs = _Runs()
    shortened = runs.shorten(message)
    with _RENDERING:
        ids = get_harmony_encoding().render(shortened, options)
    return runs.restore(ids, message) if runs.by_mark else ids


class _Runs:
    """Long runs of one message, taken out of it and put back into its rendered form."""

    def __init__(self) -> None:
        self.by_mark: dict[str, str] = {}

    def shorten(self, message: Message) -> Message:
        """The message with a mark in place of each long run, and nothing in it that UTF-8 cannot carry."""
        content = [type(part)(**self._walk(part.model_dump())) for part in message.content]
        return message.model_copy(update={"content": content})

    def restore(self, ids: list[int], message: Message) -> list[int]:
        """The rendered ids of the shortened message with its runs back in their places."""
        begin = ids.index(tokens.MESSAGE) + 1  # from here to the last id all is text
        if all(isinstance(part, TextContent) for part in message.content):
            parts = [_encodable(part.text) for part in message.content]  # encoded one by one
        else:
            parts = [get_tokenizer().decode(ids[begin:-1])]
            for mark, run in self.by_mark.items():
                parts[0] = parts[0].replace(mark, run)
        return ids[:begin] + [token for part in parts for token in encode_text(part)] + ids[-1:]

    def _walk(self, node: Any, key: str = "") -> Any:
        if isinstance(node, dict):
            return {name: self._walk(value, name) for name, value in node.items()}
        if isinstance(node, list):
            return [self._walk(value) for value in node]
        if type(node) is not str:
            return node
        node = _encodable(node)
        if key in ("text", "instructions"):
            return (
                self._mark(node)
                if len(node) > LONG_TEXT
                else _LONG_RUN.sub(lambda run: self._mark(run[0]), node)
            )
        if key in ("description", "model_identity"):  # openai-harmony writes these line by line
            return _LONG_RUN_IN_LINE.sub(lambda run: self._mark(run[0]), node)
        return node

    def _mark(self, text: str) -> str:
        mark = f"\ue000{secrets.token_hex(8)}\ue001"
        self.by_mark[mark] = text
        return mark


def _encodable(text: str) -> str:
    r"""Replace lone surrogates (JSON allows `"\ud800"`) by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def message_text(message: Message) -> str:
    """All plain text of a message."""
    return "".join(part.text for part in message.content if isinstance(part, TextContent))
