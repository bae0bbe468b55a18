"""A conversation in the terminal: what was said, what is switched on, one turn at a time.

In: a loaded generator and tools. Out: events to a view. Knows no keys and no flags; `commands` changes it, `chat`
feeds it.
"""

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from openai_harmony import Message, Role

from gpt_oss.errors import RequestError
from gpt_oss.harmony.agent import TurnOptions, run_turn
from gpt_oss.harmony.bridge import Bridge
from gpt_oss.harmony.events import TurnDone
from gpt_oss.harmony.prompt import conversation_start, message_text, render_for_completion, text_message
from gpt_oss.harmony.pump import Cancellation
from gpt_oss.terminal.view import View
from gpt_oss.token_generator import TokenGenerator
from gpt_oss.tools.tool import Tool

FILE_FORMAT = "gpt-oss conversation 1"


@dataclass
class Settings:
    """What commands can change between turns."""

    effort: str = "low"
    instructions: str | None = None
    tools: dict[str, bool] = field(default_factory=dict)
    """Every tool that there is, by name, and whether it is switched on."""


class Session:
    """One conversation with one model."""

    def __init__(
        self,
        generator: TokenGenerator,
        tools: Mapping[str, Tool],
        view: View,
        settings: Settings,
        options: TurnOptions,
        bridge: Bridge,
    ):
        self.generator = generator
        self.settings = settings
        self.view = view
        self.history: list[Message] = []
        self.last: TurnDone | None = None
        self._tools = dict(tools)
        self._options = replace(options, overflow="drop")
        self._bridge = bridge

    def start(self) -> list[Message]:
        """System and developer message as they are now."""
        return conversation_start(
            effort=self.settings.effort, instructions=self.settings.instructions, tools=self._active()
        )

    def prompt_tokens(self) -> int:
        """How much of the context the conversation takes."""
        return len(render_for_completion([*self.start(), *self.history]))

    def turn(self, text: str) -> TurnDone | None:
        """Let the model answer. What it says is shown and becomes part of the conversation.

        Raises RequestError, with the conversation unchanged, if it cannot be asked. The first Ctrl-C stops the
        answer, the second raises KeyboardInterrupt.
        """
        asked = text_message(Role.USER, text)
        messages = [*self.start(), *self.history, asked]
        cancellation = Cancellation()
        turn = run_turn(messages, self.generator, self._active(), options=self._options, cancellation=cancellation)
        done = None
        try:
            with _stopped_by_ctrl_c(cancellation):
                for event in self._bridge.iterate(turn):
                    self.view.show(event)
                    if isinstance(event, TurnDone):
                        done = self.last = event
                        self.history += [asked, *event.messages]
        finally:
            self.view.close()
        return done

    def undo(self) -> str | None:
        """Forget the last turn; what the user had said in it, None where there is none."""
        for index in range(len(self.history) - 1, -1, -1):
            if self.history[index].author.role == Role.USER:
                text = message_text(self.history[index])
                del self.history[index:]
                return text
        return None

    def reset(self) -> None:
        """Forget the conversation; settings and tools stay."""
        self.history.clear()
        self.last = None

    def save(self, path: Path) -> None:
        """Write the conversation to a JSON file. Raises RequestError where that cannot be done."""
        content = {
            "format": FILE_FORMAT,
            "effort": self.settings.effort,
            "instructions": self.settings.instructions,
            "messages": [message.to_dict() for message in self.history],
        }
        try:
            path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise RequestError(f"{path}: cannot be written ({error.strerror})") from error

    def load(self, path: Path) -> None:
        """Continue the conversation of a file that `save` wrote. Raises RequestError for any other."""
        history, effort, instructions = read_conversation(path)
        self.history, self.last = history, None
        self.settings.effort, self.settings.instructions = effort, instructions

    def _active(self) -> list[Tool]:
        return [tool for name, tool in self._tools.items() if self.settings.tools.get(name)]


def read_conversation(path: Path) -> tuple[list[Message], str, str | None]:
    """Messages, effort and instructions of a saved conversation."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FILE_FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        messages = [Message.from_dict(message) for message in content["messages"]]
        start = conversation_start(effort=content["effort"], instructions=content["instructions"])
        render_for_completion([*start, *messages])
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # whatever is wrong with a file, it is not a conversation
        raise RequestError(f"{path}: not a conversation that /save wrote ({error})") from error
    return messages, content["effort"], content["instructions"]


@contextmanager
def _stopped_by_ctrl_c(cancellation: Cancellation) -> Iterator[None]:
    """Within the block Ctrl-C requests the cancellation; when repeated it raises KeyboardInterrupt."""

    def stop(signum: int, frame: FrameType | None) -> None:
        if cancellation.requested:
            raise KeyboardInterrupt
        cancellation.request()

    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
