"""One prompt in, one answer out, streamed: `python -m gpt_oss.generate` and `gpt-oss generate`.

Raw: the prompt's tokens (special tokens as written) are continued until <|endoftext|>, <|return|> or <|call|>.
Chat: the prompt is a user's message in a Harmony conversation, and the text of the final answer is printed.

Standard output carries the answer alone; what it cost is said at the end on standard error.
"""

import argparse
import codecs
import itertools
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from gpt_oss.backends import add_backend_arguments, load_from_arguments
from gpt_oss.command_line import add_sampling_arguments, non_negative, run_command, sampling_options
from gpt_oss.errors import RequestError
from gpt_oss.harmony.parser import ContentDelta, HarmonyParser, MessageOpened
from gpt_oss.harmony.tokens import STOP_TOKENS
from gpt_oss.token_generator import Generation, Token
from gpt_oss.tokenizer import get_tokenizer, token_bytes
from gpt_oss.torchrun import is_follower

DEFAULT_PROMPT = "How are you?"

logger = logging.getLogger(__name__)


def build_parser(prog: str = "gpt-oss generate") -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Continue a prompt, or answer it, and print the text as it comes.",
        epilog="Without FILE the embedded demo model answers, which knows nothing but conversations: "
        "then --chat is the default. With FILE the default is --raw.",
    )
    parser.add_argument(
        "-p",
        "--prompt",
        metavar="PROMPT",
        default=DEFAULT_PROMPT,
        help="what to continue or to answer; - reads standard input (default: %(default)r)",
    )
    parser.add_argument(
        "-l", "--limit", metavar="N", type=non_negative, default=0, help="most tokens to generate (0: no limit)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--raw", dest="chat", action="store_false", help="continue the prompt as it is")
    form.add_argument("--chat", dest="chat", action="store_true", help="answer the prompt as a message")
    parser.set_defaults(chat=None)
    parser.add_argument(
        "--effort", choices=("low", "medium", "high"), default="medium", help="how long to reason, with --chat"
    )
    parser.add_argument("--logprobs", action="store_true", help="print each token and its log probability instead")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is loaded, and where")
    add_sampling_arguments(parser, temperature=0.0)
    add_backend_arguments(parser, context_length=4096, backend_flags=("-b", "--backend"))
    return parser


def main(arguments: Sequence[str] | None = None, prog: str = "gpt-oss generate") -> int:
    """The command; returns its exit status (see `gpt_oss.command_line`)."""
    options = build_parser(prog).parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    return run_command(prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    chat = options.checkpoint is None if options.chat is None else options.chat
    # Before the model is loaded, so that a prompt that cannot be used costs no time; only rank 0 reads.
    prompt = [] if is_follower() else _prompt_tokens(_read_prompt(options.prompt), chat, options.effort)
    generator = load_from_arguments(options)
    if generator is None:
        return  # a follower, whose work is done
    pieces = logprob_lines if options.logprobs else answer_pieces if chat else text_pieces
    with generator:
        clock = _Clock()
        with generator.stream(
            prompt,
            stop_tokens=[token for token in STOP_TOKENS if token < generator.vocab_size],
            max_tokens=options.limit,
            logprobs=options.logprobs,
            **sampling_options(options),
        ) as generation:
            _print(pieces(clock.watch(generation)))
    sys.stderr.write(clock.report(generation) + "\n")


def _read_prompt(prompt: str) -> str:
    text = prompt
    if prompt == "-":
        text = sys.stdin.buffer.read().decode(errors="replace")
    if not text:
        raise RequestError("the prompt is empty; write one after --prompt")
    return text


def _prompt_tokens(text: str, chat: bool, effort: str) -> list[int]:
    if not chat:
        return get_tokenizer().encode(text, allowed_special="all")
    # openai-harmony takes a third of a second to import, which --help need not pay.
    from gpt_oss.harmony.prompt import conversation_start, render_for_completion, text_message

    start = conversation_start(effort=effort)
    return render_for_completion([*start, text_message("user", text)])


def _print(pieces: Iterable[str]) -> None:
    last = ""
    try:
        for piece in pieces:
            last = piece or last
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:  # Ctrl-C and failures too leave the terminal at the start of a line
        if last and not last.endswith("\n"):
            sys.stdout.write("\n")


def text_pieces(tokens: Iterable[Token]) -> Iterator[str]:
    """All tokens as text but the one that ends it. A character split over tokens comes when it is complete."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        if token.id not in STOP_TOKENS:
            yield decoder.decode(token_bytes(token.id))
    yield decoder.decode(b"", final=True)


def answer_pieces(tokens: Iterable[Token]) -> Iterator[str]:
    """The text of the final message."""
    parser = HarmonyParser()
    shown = answered = False
    for events in itertools.chain((parser.process(token.id) for token in tokens), iter(parser.finish, [])):
        for event in events:
            if isinstance(event, MessageOpened):
                shown = event.header.channel == "final"
            elif isinstance(event, ContentDelta) and shown:
                answered = True
                yield event.text
    if not answered:
        logger.warning("the model ended without an answer; allow it more tokens (--limit, --context-length)")


def logprob_lines(tokens: Iterable[Token]) -> Iterator[str]:
    """A line per token, special ones and half characters included."""
    for token in tokens:
        text = token_bytes(token.id).decode(errors="replace")
        yield f"Generated token: {text!r}, logprob: {token.logprob:.6f}\n"


class _Clock:
    """Measures a stream of tokens."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first = self._last = self._start
        self._count = 0

    def watch(self, tokens: Iterable[Token]) -> Iterator[Token]:
        """The same tokens, counted and timed."""
        for token in tokens:
            self._last = time.perf_counter()
            if not self._count:
                self._first = self._last
            self._count += 1
            yield token

    def report(self, generation: Generation) -> str:
        """One line: how much, how fast and why it ended. The rate leaves out the time to the first token."""
        rate = (self._count - 1) / (self._last - self._first) if self._count > 1 else 0.0
        return (
            f"[{generation.prompt_tokens} prompt tokens, {self._count} generated ({generation.finish_reason}); "
            f"first token after {self._first - self._start:.2f} s, then {rate:.1f} tokens/s]"
        )


if __name__ == "__main__":
    sys.exit(main())
