"""What all commands share: checked options for sampling, and how a command ends.

    0    done, also where the reader of standard output had enough (| head)
    1    something failed: a checkpoint, a device, inference
    2    the arguments cannot be used (argparse's own status)
    130  the user pressed Ctrl-C

A failure is one line on standard error. Under `torchrun` rank 0 alone reads and prints, but for failures of
other ranks. Knows no models.
"""

import argparse
import io
import math
import os
import sys
from collections.abc import Callable
from typing import Any

from gpt_oss.errors import GptOssError, RequestError
from gpt_oss.torchrun import is_follower

INTERRUPTED = 130  # what a shell reports for a process that SIGINT ended


def add_sampling_arguments(parser: argparse.ArgumentParser, temperature: float) -> None:
    """Add -t/--temperature (with this default), --top-p, --top-k and --seed; `sampling_options` reads them."""
    group = parser.add_argument_group("sampling")
    group.add_argument(
        "-t",
        "--temperature",
        metavar="TEMP",
        type=_non_negative_number,
        default=temperature,
        help="0 takes the most probable token, 1 samples the model's own distribution (default: %(default)g)",
    )
    group.add_argument(
        "--top-p", metavar="P", type=_share, default=1.0, help="sample among the fewest tokens that hold the share P"
    )
    group.add_argument(
        "--top-k", metavar="K", type=non_negative, default=0, help="sample among the K most probable tokens (0: all)"
    )
    group.add_argument("--seed", metavar="N", type=int, help="an integer that makes the answer repeatable")


def sampling_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The sampling arguments as keywords of `TokenGenerator.stream`."""
    return {name: getattr(arguments, name) for name in ("temperature", "top_p", "top_k", "seed")}


def non_negative(text: str) -> int:
    """An integer of at least 0, for argparse."""
    return int(_checked(text, int, lambda value: value >= 0, "an integer of at least 0"))


def port(text: str) -> int:
    """The number of a TCP port or 0, for argparse."""
    return int(_checked(text, int, lambda value: 0 <= value <= 65_535, "a port from 0 to 65535"))


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    return int(_checked(text, int, lambda value: value >= 1, "an integer of at least 1"))


def _non_negative_number(text: str) -> float:
    return _checked(text, float, lambda value: 0 <= value < math.inf, "a number of at least 0")


def _share(text: str) -> float:
    return _checked(text, float, lambda value: 0 < value <= 1, "a number above 0 and at most 1")


def _checked(text: str, kind: Callable[[str], float], usable: Callable[[float], bool], expected: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not usable(value):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return value


def run_command(prog: str, command: Callable[[], int | None]) -> int:
    """Run a command's body and return its exit status; see above. Nothing the user can cause shows a traceback."""
    # In this order they get the descriptors 0, 1 and 2, as other libraries expect.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started the command
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for as long as the process)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows ? for what it cannot
    who = f"{prog} (rank {os.environ['RANK']})" if is_follower() else prog
    try:
        status = command() or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _give_up_stdout()
        return 0
    except OSError as error:  # a full disk behind standard output, a file that vanished
        sys.stderr.write(f"{who}: error: {error}\n")
        try:
            sys.stdout.flush()
        except OSError:
            _give_up_stdout()
        return 1
    except KeyboardInterrupt:
        if not is_follower():
            sys.stderr.write(f"{prog}: interrupted\n")
        return INTERRUPTED
    except GptOssError as error:
        sys.stderr.write(f"{who}: error: {error}\n")
        return 2 if isinstance(error, RequestError) else 1


def _give_up_stdout() -> None:
    """What is still buffered would fail again when the interpreter closes standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
