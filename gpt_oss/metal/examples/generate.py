"""Continue a prompt through the Metal backend's own interface: a model, a context, one token after the other.

    python gpt_oss/metal/examples/generate.py MODEL_FILE -p "Why did the chicken cross the road?"

MODEL_FILE is the `metal/model.bin` of a released repository, or what scripts/create-local-model.py makes.
"""

import argparse
import codecs
import logging
import secrets
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_oss.command_line import non_negative, run_command

if TYPE_CHECKING:
    from gpt_oss.metal import Context


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Continue a prompt as it is, without a conversation around it.")
    parser.add_argument("model", metavar="MODEL_FILE", type=Path, help="file in the Metal backend's format")
    parser.add_argument("-p", "--prompt", default="Hello, how are you?", help="what to continue (%(default)r)")
    parser.add_argument("-l", "--limit", type=non_negative, default=100, help="most tokens to write (%(default)s)")
    parser.add_argument("-t", "--temperature", type=float, default=0.0, help="0 takes the most probable token (0)")
    parser.add_argument("--seed", type=non_negative, help="makes a temperature above 0 repeatable")
    parser.add_argument("--context-length", type=non_negative, default=0, help="most tokens altogether (the model's)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    from gpt_oss.metal import Context, Model, device

    logging.info("device: %s", device())
    model = Model(options.model)
    context = Context(model, options.context_length)
    context.append(options.prompt)
    tokenizer = model.tokenizer
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a token may end in the middle of a character
    sys.stdout.write(options.prompt)
    for token in sampled(context, options.limit, options.temperature, options.seed):
        sys.stdout.write(decoder.decode(tokenizer.decode(token)))
        sys.stdout.flush()
    sys.stdout.write(decoder.decode(b"", final=True) + "\n")


def sampled(context: "Context", limit: int, temperature: float, seed: int | None) -> Iterator[int]:
    """Up to `limit` tokens as they come; fewer where the context is full."""
    seed = secrets.randbits(64) if seed is None else seed
    for _ in range(limit):
        tokens = context.sample(1, temperature=temperature, seed=seed)
        if not tokens:
            logging.info("the context of %d tokens is full", context.max_tokens)
            return
        yield tokens[0]


if __name__ == "__main__":
    sys.exit(main())
