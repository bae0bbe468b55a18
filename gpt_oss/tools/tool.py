"""What every tool is: a name, the schema the model sees, and `process(message)` giving the tool's answers.

In goes one Harmony message that the model addressed to the tool (`recipient`); out come messages by
`Author(role=tool, name=<that recipient>)`, on the same channel, addressed to the assistant. Whatever the
model got wrong (a function that is not there, arguments that do not fit) and whatever the tool could not do
(`ToolError`) is answered to the model in one line, because a conversation must survive it; any other
exception is a bug and is raised. A tool knows nothing of models, prompts or tokens.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from openai_harmony import Author, Message, Role, TextContent, ToolNamespaceConfig

from gpt_oss.errors import ToolError

_REQUIRED: Final = object()


@dataclass(frozen=True)
class Parameter:
    """One argument of a function the model may call: its JSON types and its value when left out."""

    types: tuple[type, ...]
    default: Any = _REQUIRED

    @property
    def required(self) -> bool:
        """True when the model has to give this argument."""
        return self.default is _REQUIRED


class Tool(ABC):
    """Base of all tools: subclasses set `name` and `tool_config` and write `_process`; callers `process`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Namespace of the tool, such as `browser`: it answers to `browser` and `browser.<function>`."""

    @property
    def tool_config(self) -> ToolNamespaceConfig | None:
        """What the system (or developer) message tells the model about this tool; None for nothing."""
        return None

    @property
    def instruction(self) -> str:
        """The prose of `tool_config`, or an empty string."""
        return (self.tool_config and self.tool_config.description) or ""

    def accepts(self, recipient: str | None) -> bool:
        """Whether a message to `recipient` is for this tool."""
        return recipient == self.name or (recipient or "").startswith(f"{self.name}.")

    async def process(self, message: Message) -> AsyncIterator[Message]:
        """Answer one call of the model (the module's contract); closing the iterator stops the work."""
        try:
            async with aclosing(self.run(message)) as replies:
                async for reply in replies:
                    yield reply
        except ToolError as error:
            yield self.error_message(str(error), message.channel, recipient=message.recipient)

    async def run(self, message: Message) -> AsyncGenerator[Message, None]:
        """Do as `process` does, but raise ToolError, for callers that treat failures on their own."""
        if not self.accepts(message.recipient):
            raise ToolError(f"the tool {self.name} does not answer to the name {message.recipient!r}")
        async with aclosing(self._process(message)) as replies:
            async for reply in replies:
                yield reply

    @abstractmethod
    def _process(self, message: Message) -> AsyncGenerator[Message, None]:
        """Do the work (an async generator) for a `message` to this tool; raises ToolError."""

    def reply(self, message: Message, text: str) -> Message:
        """Make the answer `text` to `message`: author, channel and recipient filled in."""
        return self._answer(text, message.channel, message.recipient)

    def error_message(self, text: str, channel: str | None = None, *, recipient: str | None = None) -> Message:
        """Make the answer that says what went wrong; `recipient` is the name that was called."""
        return self._answer(f"Error: {text}", channel, recipient)

    def _answer(self, text: str, channel: str | None, called_as: str | None) -> Message:
        author = Author(role=Role.TOOL, name=called_as if self.accepts(called_as) else self.name)
        content = TextContent(text=encodable(text))
        return Message(author=author, content=[content], channel=channel, recipient="assistant")

    async def close(self) -> None:  # noqa: B027 - most tools hold nothing
        """Give back what the tool holds (sessions, containers); more than one call does no harm."""

    async def __aenter__(self) -> Self:
        """Enter a block at whose end the tool is closed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the tool."""
        await self.close()


def message_text(message: Message) -> str:
    """Join all text of `message`; other kinds of content carry none."""
    return "".join(part.text for part in message.content if isinstance(part, TextContent))


def encodable(text: str) -> str:
    r"""Replace lone surrogates (JSON allows `"\ud800"`) by U+FFFD, so that UTF-8 can carry `text`."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_arguments(text: str, parameters: Mapping[str, Parameter], function: str) -> dict[str, Any]:
    """Read the JSON object `text` as arguments of `function`: defaults filled in, all of declared types.

    Blank text is an object without keys. A whole float counts as int, true and false do not.
    Raises ToolError with one line that names the function, what was wrong and which arguments exist.
    """
    given = _json_object(text, function)
    usage = f"{function} takes " + (", ".join(parameters) or "no arguments")
    for name in given:
        if name not in parameters:
            raise ToolError(f"{function} has no argument {_shown(name)}; {usage}")
    values = {}
    for name, parameter in parameters.items():
        if name in given:
            values[name] = _checked(given[name], parameter, f"{function}({name})")
        elif parameter.required:
            raise ToolError(f"{function} needs the argument {name!r}; {usage}")
        else:
            values[name] = parameter.default
    return values


def _json_object(text: str, function: str) -> dict[str, Any]:
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ToolError(f"the arguments of {function} are not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ToolError(f"the arguments of {function} must be a JSON object, not {_json_type(value)}")
    return value


def _checked(value: Any, parameter: Parameter, where: str) -> Any:
    if isinstance(value, float) and int in parameter.types and value.is_integer():
        value = int(value)
    if type(value) in parameter.types:
        return encodable(value) if isinstance(value, str) else value
    expected = " or ".join(_JSON_TYPES[kind] for kind in parameter.types)
    raise ToolError(f"{where} must be {expected}, not {_json_type(value)} ({_shown(value)})")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


_JSON_TYPES: Final[dict[type, str]] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def _json_type(value: Any) -> str:
    return _JSON_TYPES[type(value)]
