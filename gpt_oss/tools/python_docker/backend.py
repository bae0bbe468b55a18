"""What every way of running code offers the tool: execute, files in and out, reset, close.

A `Backend` blocks (the tool calls it from worker threads) and is thread-safe. It says of itself what the model is
told: whether state is kept, where code runs, whether there is a network. Names of files are relative paths in the
work folder; they and their total size are checked here.
"""

import posixpath
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.result import ExecutionResult


class Backend(ABC):
    """Base of all backends. `folder` is where files of the conversation lie, as the code sees it."""

    stateful: ClassVar[bool]
    place: ClassVar[str]  # completes "the code runs in …"
    network: ClassVar[str]  # a whole sentence
    folder: ClassVar[str] = "the current directory"

    def __init__(self, limits: Limits):
        self.limits = limits
        self._files: dict[str, bytes] = {}
        self._results: dict[str, bytes] = {}

    @abstractmethod
    def execute(self, code: str, cancelled: threading.Event) -> ExecutionResult:
        """Run `code`; `cancelled` ends it early. Raises ToolError where it cannot be run at all."""

    def put_files(self, files: Mapping[str, bytes]) -> None:
        """Give every later execution these files (name -> content); raises ToolError for names and sizes."""
        check_files({**self._files, **files}, self.limits)
        self._files = {**self._files, **files}

    def fetch(self, name: str) -> bytes:
        """Content of a file of the last execution (or of one put in); raises ToolError where there is none."""
        for known in (self._results, self._files):
            if name in known:
                return known[name]
        raise no_such_file(name)

    def reset(self) -> None:  # noqa: B027 - what keeps no state has none to forget
        """Forget variables and files of the session, keep what was put in."""

    def close(self) -> None:
        """End what runs on behalf of this backend."""
        self.reset()


def check_files(files: Mapping[str, bytes], limits: Limits) -> None:
    """Raise ToolError for a name that is not a plain relative path, or for more bytes than allowed."""
    for name in files:
        outside = name.startswith(("/", "../")) or name in ("", ".", "..")
        if outside or "\0" in name or posixpath.normpath(name) != name:
            raise ToolError(f"{name!r} is not a relative path inside the work folder")
    total = sum(map(len, files.values()))
    if total > limits.files:
        raise ToolError(f"the files have {total:,} bytes, but at most {limits.files:,} can be put in")


def no_such_file(name: str) -> ToolError:
    """Make the error for a file that is not there or is too large to fetch."""
    return ToolError(f"there is no file {name!r} that could be fetched from the work folder")
