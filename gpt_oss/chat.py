"""Talk to the model in a terminal: `python -m gpt_oss.chat` and `gpt-oss chat`.

On a terminal: a line editor, reasoning, tools and markdown as they come, /commands. With a pipe as input: every line
is a message and every answer a text on standard output. Under `torchrun` rank 0 alone talks and runs tools.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_oss.backends import add_backend_arguments, load_from_arguments
from gpt_oss.command_line import INTERRUPTED, add_sampling_arguments, non_negative, run_command
from gpt_oss.errors import GptOssError
from gpt_oss.torchrun import is_follower

if TYPE_CHECKING:
    from gpt_oss.harmony.bridge import Bridge
    from gpt_oss.terminal.session import Session
    from gpt_oss.terminal.view import View
    from gpt_oss.token_generator import TokenGenerator
    from gpt_oss.tools.tool import Tool

CONTEXT_LENGTH = 8192
Load = Callable[[argparse.Namespace], "TokenGenerator | None"]


def build_parser(prog: str = "gpt-oss chat") -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Talk to the model, with tools.",
        epilog="/help lists the commands inside. With a pipe as input every line is answered in plain text.",
    )
    parser.add_argument(
        "-r",
        "--reasoning-effort",
        metavar="EFFORT",
        choices=("low", "medium", "high"),
        default="low",
        help="low, medium or high: how long the model reasons (default: %(default)s)",
    )
    parser.add_argument("--developer-message", metavar="TEXT", help="instructions for the model")
    parser.add_argument(
        "--max-tokens",
        metavar="N",
        type=non_negative,
        default=0,
        help="most tokens of an answer (0: no limit)",
    )
    parser.add_argument("--resume", metavar="FILE", type=Path, help="continue the conversation that /save wrote")
    tools = parser.add_argument_group("tools")
    tools.add_argument("-b", "--browser", action="store_true", help="let the model search and read web pages")
    tools.add_argument(
        "--browser-backend", metavar="NAME", help="youcom, exa, searxng or local (default: $BROWSER_BACKEND)"
    )
    tools.add_argument("--show-browser-results", action="store_true", help="show in full what the browser finds")
    tools.add_argument("-p", "--python", action="store_true", help="let the model run Python code in a container")
    tools.add_argument(
        "--python-backend",
        metavar="NAME",
        help="how code is run (default: $PYTHON_EXECUTION_BACKEND or docker)",
    )
    tools.add_argument("-a", "--apply-patch", action="store_true", help="let the model change files")
    tools.add_argument(
        "--patch-root",
        metavar="DIR",
        default=".",
        help="folder it may change files in (default: %(default)s)",
    )
    look = parser.add_argument_group("display")
    look.add_argument("--raw", action="store_true", help="show the exact tokens, control tokens included")
    look.add_argument("--hide-reasoning", action="store_true", help="one line in place of the model's thoughts")
    look.add_argument("--no-color", action="store_true", help="no colours, as with $NO_COLOR")
    look.add_argument("-v", "--verbose", action="store_true", help="say what is loaded, and where")
    add_sampling_arguments(parser, temperature=1.0)
    add_backend_arguments(parser, context_length=CONTEXT_LENGTH, context_flags=("-c", "--context", "--context-length"))
    return parser


def main(
    arguments: Sequence[str] | None = None, prog: str = "gpt-oss chat", *, load: Load = load_from_arguments
) -> int:
    """The command; returns its exit status (see `gpt_oss.command_line`). load: makes the generator."""
    options = build_parser(prog).parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    return run_command(prog, lambda: _run(options, load))


def _run(options: argparse.Namespace, load: Load) -> int:
    if is_follower():
        load(options)  # serves rank 0 until it leaves
        return 0
    # What openai-harmony and the tools take to import, --help need not pay.
    from gpt_oss.harmony.agent import TurnOptions
    from gpt_oss.harmony.bridge import Bridge
    from gpt_oss.terminal.line_input import quiet_keyboard
    from gpt_oss.terminal.session import Session, Settings

    view = _make_view(options)
    with ExitStack() as cleanup:
        cleanup.enter_context(quiet_keyboard())
        bridge = cleanup.enter_context(Bridge())
        tools = _make_tools(options, view)
        for tool in tools.values():
            cleanup.callback(_close, bridge, tool)
        generator = load(options)
        assert generator is not None  # rank 0 has one
        cleanup.enter_context(generator)
        session = Session(
            generator,
            tools,
            view,
            Settings(options.reasoning_effort, options.developer_message, dict.fromkeys(tools, True)),
            TurnOptions(
                temperature=options.temperature,
                top_p=options.top_p,
                top_k=options.top_k,
                seed=options.seed,
                max_tokens=options.max_tokens,
                raw=options.raw,
            ),
            bridge,
        )
        if options.resume is not None:
            session.load(options.resume)
        return _talk(session, options)


def _talk(session: "Session", options: argparse.Namespace) -> int:
    """Read, answer, repeat. 0 at the end of the input, 130 where Ctrl-C was pressed twice."""
    from gpt_oss.terminal.commands import COMMANDS, Quit
    from gpt_oss.terminal.line_input import PipeInput, open_input

    source = open_input(list(COMMANDS), color=_color(options))
    interactive = not isinstance(source, PipeInput)
    if interactive:
        session.view.say(_greeting(session, options), "dim")
    interrupted = False
    while True:
        try:
            text = source.read()
            if text is None:
                return 0
            interrupted = _handle(text, session)
        except Quit:
            return 0
        except KeyboardInterrupt:
            if interrupted or not interactive:
                return INTERRUPTED
            interrupted = True
            session.view.say("(Ctrl-C again leaves, and so does Ctrl-D)")


def _handle(text: str, session: "Session") -> bool:
    """One message or command; whether Ctrl-C stopped the answer. What goes wrong is said, and does not end it."""
    from gpt_oss.terminal.commands import is_command, run_slash_command

    try:
        if is_command(text):
            session.view.say(run_slash_command(text, session))
        elif text.strip():
            done = session.turn(text.removeprefix("/") if text.startswith("//") else text)
            return done is not None and done.reason == "cancelled"
    except GptOssError as error:
        session.view.say(str(error), "error")
    return False


def _greeting(session: "Session", options: argparse.Namespace) -> str:
    model = options.checkpoint or "the embedded demo model, a demonstration and not an assistant"
    tools = ", ".join(session.settings.tools)
    return (
        f"gpt-oss chat: {model}; context {session.generator.context_length:,}, effort {session.settings.effort}"
        f"{f', tools {tools}' if tools else ''}; /help lists the commands"
    )


def _make_view(options: argparse.Namespace) -> "View":
    from gpt_oss.terminal.view import PlainView, RawView, TerminalView

    if options.raw:
        return RawView(sys.stdout, sys.stderr)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return PlainView(sys.stdout, sys.stderr)
    return TerminalView(
        sys.stdout,
        color=_color(options),
        hide_reasoning=options.hide_reasoning,
        full_results=options.show_browser_results,
    )


def _color(options: argparse.Namespace) -> bool:
    return not options.no_color and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _make_tools(options: argparse.Namespace, view: "View") -> "dict[str, Tool]":
    """The tools asked for, by name. Their settings come from the flags, else from the environment."""
    from gpt_oss.tools.apply_patch.tool import ApplyPatchTool
    from gpt_oss.tools.registry import build_tool

    environment: Mapping[str, str] = {
        **os.environ,
        **({"BROWSER_BACKEND": options.browser_backend} if options.browser_backend else {}),
        **({"PYTHON_EXECUTION_BACKEND": options.python_backend} if options.python_backend else {}),
    }
    tools: dict[str, Tool] = {}
    for name, wanted in (("browser", options.browser), ("python", options.python)):
        if wanted:
            tools[name] = build_tool(name, environment, view.downloading)
    if options.apply_patch:
        tools["apply_patch"] = ApplyPatchTool(options.patch_root)
    return tools


def _close(bridge: "Bridge", tool: "Tool") -> None:
    bridge.run(tool.close())


if __name__ == "__main__":
    sys.exit(main())
