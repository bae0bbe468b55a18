"""Lines that begin with a slash: what the user wants of the program, not of the model.

In: a line and the session. Out: what to say; the session is changed. A command that cannot be used raises
RequestError with one sentence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpt_oss.errors import RequestError
from gpt_oss.harmony.prompt import EFFORTS, render_messages
from gpt_oss.terminal.session import Session
from gpt_oss.terminal.view import TerminalView
from gpt_oss.tokenizer import get_tokenizer


class Quit(Exception):
    """The user wants to leave."""


@dataclass(frozen=True, slots=True)
class Command:
    """`run` gets the session and what follows the name."""

    arguments: str
    summary: str
    run: Callable[[Session, str], str]


def is_command(line: str) -> bool:
    """Whether a message is meant for the program: `//` lets a message begin with a slash."""
    return line.startswith("/") and not line.startswith("//")


def run_slash_command(line: str, session: Session) -> str:
    """Do what the line says; returns what to tell the user. Raises RequestError and Quit."""
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        raise RequestError(f"there is no command {name}; /help lists them, // begins a message with a slash")
    return COMMANDS[name].run(session, rest.strip())


def _help(session: Session, rest: str) -> str:
    width = max(len(f"{name} {command.arguments}") for name, command in COMMANDS.items())
    lines = [f"{f'{name} {c.arguments}':<{width}}  {c.summary}" for name, c in COMMANDS.items()]
    keys = "Ctrl-C stops an answer, twice leaves; Ctrl-D leaves; Alt-Enter or \\ at the end begins a new line"
    return "\n".join([*lines, keys])


def _effort(session: Session, rest: str) -> str:
    if rest:
        if rest not in EFFORTS:
            raise RequestError(f"the effort must be one of {', '.join(EFFORTS)}, got {rest!r}")
        session.settings.effort = rest
    return f"reasoning effort: {session.settings.effort}"


def _system(session: Session, rest: str) -> str:
    if rest:
        session.settings.instructions = None if rest == "none" else rest
    return get_tokenizer().decode(render_messages(session.start()))


def _tools(session: Session, rest: str) -> str:
    tools = session.settings.tools
    if rest:
        name, _, state = rest.partition(" ")
        if name not in tools:
            raise RequestError(f"there is no tool {name}; there are {', '.join(tools) or 'none'}")
        if state not in ("on", "off", ""):
            raise RequestError(f"a tool can be switched on or off, not {state!r}")
        tools[name] = state == "on" if state else not tools[name]
    listed = (f"{name} ({'on' if on else 'off'})" for name, on in tools.items())
    return "tools: " + (", ".join(listed) or "none; -b, -p and -a bring browser, python and apply_patch")


def _reset(session: Session, rest: str) -> str:
    session.reset()
    return "a new conversation"


def _undo(session: Session, rest: str) -> str:
    text = session.undo()
    if text is None:
        raise RequestError("there is nothing to undo")
    first = text.split("\n")[0]
    return f"undone: {first if len(first) <= 60 else first[:59] + '…'}"


def _save(session: Session, rest: str) -> str:
    session.save(_path(rest, "/save"))
    return f"saved {len(session.history)} messages to {rest}"


def _load(session: Session, rest: str) -> str:
    session.load(_path(rest, "/load"))
    return f"loaded {len(session.history)} messages from {rest}"


def _tokens(session: Session, rest: str) -> str:
    used, context = session.prompt_tokens(), session.generator.context_length
    lines = [f"context: {used:,} of {context:,} tokens ({100 * used / context:.0f} %)"]
    if session.last is not None:
        usage, seconds = session.last.usage, session.last.generating_seconds
        speed = (usage.output_tokens - session.last.rounds) / seconds if seconds else 0.0
        lines.append(
            f"last turn: {usage.input_tokens:,} in ({usage.cached_tokens:,} cached, {usage.tool_tokens:,} from tools), "
            f"{usage.output_tokens:,} out ({usage.reasoning_tokens:,} reasoning)"
        )
        lines.append(f"first token after {session.last.first_token_seconds:.2f} s, then {speed:.1f} tokens/s")
    return "\n".join(lines)


def _reasoning(session: Session, rest: str) -> str:
    view = session.view
    if not isinstance(view, TerminalView):
        raise RequestError("there is no reasoning to show here")
    if rest in ("on", "off"):
        view.hide_reasoning = rest == "off"
        return f"reasoning is {'hidden' if view.hide_reasoning else 'shown'}"
    if rest:
        raise RequestError(f"reasoning can be switched on or off, not {rest!r}")
    return view.last_reasoning or "there was none"


def _quit(session: Session, rest: str) -> str:
    raise Quit


def _path(rest: str, command: str) -> Path:
    if not rest:
        raise RequestError(f"{command} needs the name of a file")
    return Path(rest).expanduser()


COMMANDS = {
    "/help": Command("", "show this", _help),
    "/effort": Command("[low|medium|high]", "how long the model reasons", _effort),
    "/reasoning": Command("[on|off]", "show the last thoughts; fold or unfold those to come", _reasoning),
    "/system": Command("[TEXT|none]", "what the model is told first; TEXT becomes your instructions", _system),
    "/tools": Command("[NAME on|off]", "which tools the model has", _tools),
    "/reset": Command("", "begin a new conversation", _reset),
    "/undo": Command("", "take back the last question and its answer", _undo),
    "/save": Command("FILE", "write the conversation to a file", _save),
    "/load": Command("FILE", "continue the conversation of a file", _load),
    "/tokens": Command("", "how full the context is, and how fast the last answer came", _tokens),
    "/quit": Command("", "leave", _quit),
}
