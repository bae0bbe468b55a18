"""What `torchrun` tells each process that it starts, checked; a process started otherwise is rank 0 of 1.

Rank 0 leads: it alone reads and prints. Knows nothing of torch.
"""

import os

from gpt_oss.errors import RequestError


def is_follower() -> bool:
    """Whether this process is a rank other than 0."""
    return os.environ.get("RANK", "0") != "0"


def world_size() -> int:
    """How many processes there are. RequestError if the environment makes no sense."""
    return _number("WORLD_SIZE", 1, "the number of processes")


def local_rank() -> int:
    """This process's number on its machine. RequestError if the environment makes no sense."""
    return _number("LOCAL_RANK", 0, "a number of at least 0")


def _number(name: str, least: int, expected: str) -> int:
    text = os.environ.get(name, str(least))
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise RequestError(f"{name} is {text!r}, expected {expected}; start the processes with torchrun")
    return int(text)
