"""Talk to a model through the Metal backend's own interface, in the Harmony format.

    python gpt_oss/metal/examples/chat.py MODEL_FILE

Every line of standard input is a message; Ctrl-D ends. The whole conversation is appended anew in every turn: keys and
values of what it has in common with the context are used again. For tools, commands and markdown there is
`python -m gpt_oss.chat --backend metal`, which takes the same file.
"""

import argparse
import logging
import secrets
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openai_harmony import Message

from gpt_oss.command_line import non_negative, run_command
from gpt_oss.harmony.parser import ContentDelta, HarmonyParser, MessageClosed, MessageOpened, ParserEvent
from gpt_oss.harmony.prompt import conversation_start, render_for_completion, text_message
from gpt_oss.harmony.tokens import STOP_TOKENS

if TYPE_CHECKING:
    from gpt_oss.metal import Context

DIM, PLAIN = "\033[2m", "\033[0m"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Talk to a model; every line is a message.")
    parser.add_argument("model", metavar="MODEL_FILE", type=Path, help="file in the Metal backend's format")
    parser.add_argument("-r", "--reasoning-effort", choices=("low", "medium", "high"), default="low", help="(low)")
    parser.add_argument("--developer-message", metavar="TEXT", help="instructions for the model")
    parser.add_argument("-t", "--temperature", type=float, default=1.0, help="0 takes the most probable token (1)")
    parser.add_argument("--seed", type=non_negative, help="makes the answers repeatable")
    parser.add_argument("--context-length", type=non_negative, default=0, help="most tokens altogether (the model's)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_command(parser.prog, lambda: _talk(options))


def _talk(options: argparse.Namespace) -> None:
    from gpt_oss.metal import Context, Model, device

    logging.info("device: %s", device())
    context = Context(Model(options.model), options.context_length)
    seed = secrets.randbits(64) if options.seed is None else options.seed
    messages = conversation_start(effort=options.reasoning_effort, instructions=options.developer_message)
    for line in _lines():
        messages.append(text_message("user", line))
        messages.append(_answer(context, messages, options.temperature, seed))


def _lines() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            sys.stdout.write("> ")
            sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def _answer(context: "Context", messages: list[Message], temperature: float, seed: int) -> Message:
    """Print what the model says, its thoughts dimmed, and return its final message."""
    context.reset()
    context.append(render_for_completion(messages))
    final, channel = "", None
    color = sys.stdout.isatty()
    for event in _events(_sampled(context, temperature, seed)):
        if isinstance(event, MessageOpened):
            channel = event.header.channel
            sys.stdout.write(DIM if color and channel != "final" else "")
        elif isinstance(event, ContentDelta):
            final += event.text if channel == "final" else ""
            sys.stdout.write(event.text)
            sys.stdout.flush()
        elif isinstance(event, MessageClosed):
            sys.stdout.write(f"{PLAIN if color else ''}\n")
    return text_message("assistant", final, channel="final")


def _events(tokens: Iterable[int]) -> Iterator[ParserEvent]:
    parser = HarmonyParser()
    for token in tokens:
        yield from parser.process(token)
    yield from parser.finish()


def _sampled(context: "Context", temperature: float, seed: int) -> Iterator[int]:
    """Tokens as they come, up to and with the one that ends the answer."""
    while True:
        tokens = context.sample(1, temperature=temperature, seed=seed)
        if not tokens:
            logging.info("the context of %d tokens is full", context.max_tokens)
            return
        yield tokens[0]
        if tokens[0] in STOP_TOKENS:
            return


if __name__ == "__main__":
    sys.exit(main())
