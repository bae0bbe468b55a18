"""What a training dialogue is, and how it becomes token ids.

In: a `Scenario` (system and developer message) and a list of `Exchange`s, each a user's text and everything the
assistant should do about it. Out: `Rendered`: ids, and which of them the model must produce. All text becomes
tokens through openai-harmony; nothing about the format is written by hand here. Knows no skill and no model.
"""

import functools
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from openai_harmony import (
    Author,
    Conversation,
    DeveloperContent,
    HarmonyEncoding,
    Message,
    ReasoningEffort,
    Role,
    SystemContent,
    ToolDescription,
    ToolNamespaceConfig,
)

START, END, MESSAGE, RETURN, CALL = 200_006, 200_007, 200_008, 200_002, 200_012
HELD_OUT_SHARE = 16
"""One dialogue in so many is never trained on."""


class Effort(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True)
class Thought:
    """The analysis text at each effort; an empty text means that there is no analysis message."""

    low: str
    medium: str
    high: str

    def at(self, effort: Effort) -> str:
        return getattr(self, effort.value)


@dataclass(frozen=True)
class Call:
    """One tool call of the assistant, the thought before it, and what the tool answers."""

    thought: Thought
    recipient: str
    text: str
    reply: str

    @property
    def is_function(self) -> bool:
        return self.recipient.startswith("functions.")

    @property
    def channel(self) -> str:
        return "commentary" if self.is_function else "analysis"

    @property
    def content_type(self) -> str:
        return "<|constrain|>json" if self.is_function else "code"


@dataclass(frozen=True)
class Exchange:
    """One user message and the assistant's whole turn: calls in order, then a thought and the final answer."""

    skill: str
    user: str
    thought: Thought
    final: str
    calls: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """Everything before the first user message."""

    effort: Effort = Effort.MEDIUM
    identity: str | None = None
    date: str | None = None
    cutoff: str | None = None
    channels: bool = True
    instructions: str | None = None
    functions: tuple[ToolDescription, ...] = ()
    browser: bool = False
    python: bool = False
    python_description: str | None = None

    def messages(self) -> list[Message]:
        """The system message and, when there is something to say, the developer message."""
        system = SystemContent.new().with_reasoning_effort(ReasoningEffort(self.effort.value.capitalize()))
        if self.identity is not None:
            system = system.with_model_identity(self.identity)
        if self.date is not None:
            system = system.with_conversation_start_date(self.date)
        if self.cutoff is not None:
            system = system.with_knowledge_cutoff(self.cutoff)
        if not self.channels:
            system.channel_config = None
        if self.browser:
            system = system.with_tools(ToolNamespaceConfig.browser())
        if self.python:
            python = ToolNamespaceConfig.python()
            if self.python_description is not None:
                python = ToolNamespaceConfig(name="python", description=self.python_description, tools=[])
            system = system.with_tools(python)
        found = [Message.from_role_and_content(Role.SYSTEM, system)]
        if self.instructions or self.functions:
            developer = DeveloperContent.new()
            if self.instructions:
                developer = developer.with_instructions(self.instructions)
            if self.functions:
                developer = developer.with_function_tools(list(self.functions))
            found.append(Message.from_role_and_content(Role.DEVELOPER, developer))
        return found


@dataclass
class Rendered:
    """`ids[i]` is to be predicted from `ids[:i]` wherever `wanted[i]`; `completions` are the last turn's outputs."""

    ids: list[int]
    wanted: list[bool]
    completions: list[tuple[int, int]] = field(default_factory=list)


def exchange_messages(exchange: Exchange, effort: Effort) -> list[Message]:
    """The assistant's and tools' messages of one exchange, in order."""
    messages: list[Message] = []

    def say(text: str, channel: str) -> None:
        if text:
            messages.append(Message.from_role_and_content(Role.ASSISTANT, text).with_channel(channel))

    for call in exchange.calls:
        say(call.thought.at(effort), "analysis")
        asked = Message.from_role_and_content(Role.ASSISTANT, call.text).with_channel(call.channel)
        messages.append(asked.with_recipient(call.recipient).with_content_type(call.content_type))
        reply = Message.from_author_and_content(Author.new(Role.TOOL, call.recipient), call.reply)
        messages.append(reply.with_channel(call.channel).with_recipient("assistant"))
    say(exchange.thought.at(effort), "analysis")
    say(exchange.final, "final")
    return messages


def render(scenario: Scenario, exchanges: list[Exchange], encoding: HarmonyEncoding) -> Rendered:
    """Token ids of the whole dialogue; earlier turns as a harmony prompt shows them, the last one in full.

    Wanted are all outputs of the last turn, and of earlier turns the contents and what follows "to=functions" (the
    rest of their headers is not: an earlier turn is shown without its analysis, which is not how a turn begins).
    """
    history = scenario.messages()
    for exchange in exchanges[:-1]:
        history.append(Message.from_role_and_content(Role.USER, exchange.user))
        history.extend(exchange_messages(exchange, scenario.effort))
    history.append(Message.from_role_and_content(Role.USER, exchanges[-1].user))
    ids = list(encoding.render_conversation_for_completion(Conversation.from_messages(history), Role.ASSISTANT))
    # What a built-in tool answered is not shown in history, so those answers cannot be predicted there.
    shown = [not exchange.calls or exchange.calls[0].is_function for exchange in exchanges[:-1]]
    rendered = Rendered(ids, _wanted_in_history(ids, encoding, shown))
    _append_last_turn(rendered, exchange_messages(exchanges[-1], scenario.effort), encoding)
    return rendered


def _append_last_turn(rendered: Rendered, messages: list[Message], encoding: HarmonyEncoding) -> None:
    start_of_assistant = rendered.ids[-2:]
    begin = len(rendered.ids)
    for index, message in enumerate(messages):
        ids = list(encoding.render(message))
        if message.author.role == Role.TOOL:
            rendered.ids += ids + start_of_assistant
            rendered.wanted += [False] * (len(ids) + 2)
            begin = len(rendered.ids)
            continue
        follows = index and messages[index - 1].author.role == Role.ASSISTANT
        output = ids if follows else ids[2:]
        if message.channel == "final":
            output[-1] = RETURN
        rendered.ids += output
        rendered.wanted += [True] * len(output)
        if output[-1] in (RETURN, CALL):
            rendered.completions.append((begin, len(rendered.ids)))


@functools.cache
def _header_tokens(encoding: HarmonyEncoding) -> tuple[int, int, int]:
    return encoding.encode("assistant")[0], encoding.encode("user")[0], encoding.encode("functions")[0]


def _wanted_in_history(ids: list[int], encoding: HarmonyEncoding, shown: list[bool]) -> list[bool]:
    """Contents of the assistant's messages after user message k, where `shown[k]`, and names of functions called."""
    assistant, user, functions = _header_tokens(encoding)
    wanted = [False] * len(ids)
    inside = by_assistant = False
    exchange = -1
    for index, token in enumerate(ids):
        if token == START:
            role = ids[index + 1] if index + 1 < len(ids) else None
            exchange += role == user
            inside, by_assistant = False, role == assistant and 0 <= exchange < len(shown) and shown[exchange]
        elif token == MESSAGE:
            inside = by_assistant
        elif token == END:
            inside = False
        elif inside:
            wanted[index] = True
        elif by_assistant and token == functions:
            inside = True
    return wanted


def is_held_out(scenario: Scenario, exchanges: list[Exchange]) -> bool:
    """Whether the dialogue belongs to the test split: a hash of its effort, instructions, tools and user texts.

    Dates and identities are left out on purpose: a dialogue that differs only there is not an unseen one.
    """
    parts = [scenario.effort.value, scenario.instructions or "", str(scenario.browser), str(scenario.python)]
    parts += [function.model_dump_json() for function in scenario.functions]
    parts += [exchange.user for exchange in exchanges]
    parts += [call.reply for exchange in exchanges for call in exchange.calls]
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_SHARE == 0
