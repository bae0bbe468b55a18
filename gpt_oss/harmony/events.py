"""What happens in a turn, as typed events: made by `agent`, printed by the chat, numbered by the server.

Every message the assistant writes (reasoning, text, call) has an `index`, counted from 0 within the turn in
the order of writing; messages do not interleave. For each one: its deltas, then `MessageDone`. Joined
deltas equal the message's text.

    ReasoningDelta*            MessageDone      thinking
    (TextDelta | Citation)*    MessageDone      an answer (`final`) or a preamble (`commentary`)
    ToolCallStarted ToolCallDelta* ToolCallFinished MessageDone      a call
    ToolResult                                  after the calls, for each that was answered here

A `SampleStarted`, and `PromptRead` while a long prompt is read, precede what the model writes each time it
is asked; `TurnDone` is always the last event.
"""

from dataclasses import dataclass, field
from typing import Literal

from openai_harmony import Message

from gpt_oss.token_generator import Token

EndReason = Literal[
    "stop",  # the model had no more to say
    "tool_calls",  # the model called functions that the caller has to run
    "max_tokens",
    "max_rounds",
    "max_seconds",
    "context",  # the context is full
    "cancelled",
    "error",  # inference failed; TurnDone.error says how
]


@dataclass(frozen=True, slots=True)
class SampleStarted:
    """The model is asked, for the `round`-th time in this turn, to continue `prompt`."""

    round: int
    prompt: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PromptRead:
    """So many tokens of the prompt were read by now; sent while that takes its time, before the first token."""

    tokens: int


@dataclass(frozen=True, slots=True)
class TokenSampled:
    """A token as the model wrote it; precedes what it means. Only where raw tokens were asked for."""

    token: Token


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's thinking. `tokens` are those that this text was made of."""

    index: int
    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text for the user, with citations as links. `channel`: `final`, `commentary` or what was written."""

    index: int
    text: str
    channel: str = "final"
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Citation:
    """The last delta held a link to a source: characters [start, end) of the message's text."""

    index: int
    start: int
    end: int
    url: str
    title: str


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """The model begins to call `name`. `by_caller`: the caller has to run it, it will not be answered here."""

    index: int
    name: str
    by_caller: bool


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the call's arguments."""

    index: int
    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallFinished:
    """The call is complete; not sent for one that was cut off."""

    index: int
    name: str
    arguments: str
    by_caller: bool


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The answer to call `index`, as the model will read it."""

    index: int
    name: str
    text: str
    messages: tuple[Message, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class MessageDone:
    """A message of the assistant is over. `text` is the deltas joined, `message` what the model really wrote.

    complete: False where it was cut off; such a message becomes part of the conversation only if it is text.
    """

    index: int
    message: Message
    text: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the user should know: old turns were dropped, the model wrote an impossible token."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one turn, over all its rounds.

    input_tokens: the first prompt and everything that was added to it for later rounds, of which
    tool_tokens are answers of tools; cached_tokens of the first prompt were not computed again.
    output_tokens: all that the model wrote, headers included: reasoning, call and text together.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    tool_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    call_tokens: int = 0
    text_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """What the turn takes up of the context."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class TurnDone:
    """The turn is over. `messages` continue the conversation: the assistant's and the tools', in order.

    Every call in them is followed by its answer, except those left to the caller (`tool_calls`).
    """

    reason: EndReason
    messages: tuple[Message, ...]
    usage: Usage = field(default_factory=Usage)
    error: str | None = None
    rounds: int = 1
    first_token_seconds: float = 0.0
    """From the start of the turn to the first token."""
    generating_seconds: float = 0.0
    """Spent between first and last token, summed over the rounds."""


Event = (
    SampleStarted
    | PromptRead
    | TokenSampled
    | ReasoningDelta
    | TextDelta
    | Citation
    | ToolCallStarted
    | ToolCallDelta
    | ToolCallFinished
    | ToolResult
    | MessageDone
    | Notice
    | TurnDone
)
