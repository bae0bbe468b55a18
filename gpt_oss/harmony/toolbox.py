"""Who answers a call: a tool that runs here, a function of the caller's, or nobody.

In: the recipient a model wrote. Out: the tool, and the answers as messages. Every call is answered, also
one to a tool that is not there or with arguments that cannot be read, because the model can only mend what
it is told.
"""

import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

from openai_harmony import Author, Message, Role, TextContent, ToolNamespaceConfig

from gpt_oss.harmony.citations import Normalize

logger = logging.getLogger(__name__)

ArgumentFormat = Literal["json", "text"]
NOT_A_TOOL = (None, "assistant", "user", "all")
"""Recipients that address a person or the model itself."""


class Tool(Protocol):
    """What a turn needs of a tool (see `gpt_oss.tools.tool.Tool`)."""

    @property
    def name(self) -> str:
        """Its namespace."""

    @property
    def tool_config(self) -> ToolNamespaceConfig | None:
        """How it is described to the model."""

    @property
    def instruction(self) -> str:
        """Prose that tells the model how to use it."""

    def accepts(self, recipient: str | None) -> bool:
        """Whether a message to `recipient` is for it."""

    def process(self, message: Message) -> AsyncIterator[Message]:
        """Answer one call."""


class Toolbox:
    """The tools of one turn.

    functions: what the caller will run itself, by full name (`functions.get_weather`), with the format of its
    arguments: a JSON object, or any text.
    """

    def __init__(self, tools: Sequence[Tool] = (), functions: Mapping[str, ArgumentFormat] | None = None):
        self._tools = list(tools)
        self._functions = dict(functions or {})

    @property
    def normalize_citations(self) -> Normalize | None:
        """That of the tool which has pages to cite, if there is one."""
        for tool in self._tools:
            normalize = getattr(tool, "normalize_citations", None)
            if normalize is not None:
                return normalize
        return None

    def function_named(self, recipient: str | None) -> str | None:
        """The caller's function meant by `recipient`; its namespace may have been forgotten."""
        for name in (recipient, f"functions.{recipient}"):
            if name in self._functions:
                return name
        return None

    def is_readable(self, function: str, arguments: str) -> bool:
        """Whether the caller can be given these arguments; no text at all means no arguments."""
        if self._functions[function] == "text" or not arguments.strip():
            return True
        try:
            return isinstance(json.loads(arguments), dict)
        except (ValueError, RecursionError):
            return False

    async def answer(self, call: Message) -> list[Message]:
        """All answers to a call that is not the caller's, on its channel. Never raises for what a model wrote."""
        tool, name = self._tool_for(call.recipient or "")
        if tool is None:
            return [self.refuse(call, self._complaint(call))]
        try:
            replies = [reply async for reply in tool.process(call.model_copy(update={"recipient": name}))]
            return replies or [self.refuse(call, f"{name} gave no answer")]
        except Exception as error:  # a tool is foreign code; the conversation must survive its bugs
            logger.exception("the tool %s failed", name)
            return [self.refuse(call, f"{name} failed: {type(error).__name__}: {error}")]

    def refuse(self, call: Message, reason: str) -> Message:
        """An answer that says why the call was not run."""
        author = Author(role=Role.TOOL, name=call.recipient or "tool")
        content = [TextContent(text=f"Error: {reason}")]
        return Message(author=author, content=content, channel=call.channel, recipient="assistant")

    def _tool_for(self, recipient: str) -> tuple[Tool | None, str]:
        """The tool that answers, and the name it goes by; models like to write `functions.` before any name."""
        for name in (recipient, recipient.removeprefix("functions.")):
            for tool in self._tools:
                if tool.accepts(name):
                    return tool, name
        return None, recipient

    def _complaint(self, call: Message) -> str:
        function = self.function_named(call.recipient)
        if function is not None:
            return f"the arguments of {function} must be one JSON object; call it again"
        names = sorted([*self._functions, *(tool.name for tool in self._tools)])
        offer = f"there are {', '.join(names)}" if names else "there are no tools; answer without"
        return f"there is no tool named {call.recipient}; {offer}"


def tool_reply(call_name: str, text: str, channel: str | None = "commentary") -> Message:
    """A message with the result of a function that the caller ran, to be appended to the conversation."""
    author = Author(role=Role.TOOL, name=call_name)
    return Message(author=author, content=[TextContent(text=text)], channel=channel, recipient="assistant")


def is_call(recipient: str | None) -> bool:
    """Whether a message to `recipient` wants something done."""
    return recipient not in NOT_A_TOOL
