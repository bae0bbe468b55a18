"""The client's end of a waiting interpreter: send code, collect output, keep to the deadline.

In go a `Channel` to a sandbox that runs runner.py (whose docstring is the protocol) and requests; out come
`ExecutionResult`s. It does not know what the sandbox is. Not thread-safe: one request at a time.
"""

import json
import secrets
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.result import ExecutionResult, Transcript

STDOUT: Final = 1
STDERR: Final = 2
POLL_SECONDS: Final = 0.1  # how late a cancellation may be seen
MAX_EARLY_PIECES: Final = 64
_FRAME: Final = struct.Struct(">I")


class ChannelClosed(Exception):
    """The other side of a channel has hung up."""


class Channel(Protocol):
    """Three streams of a running sandbox. `abandon` ends sandbox and channel, whatever state both are in."""

    def send(self, data: bytes, timeout: float) -> None:
        """Write all of `data`; raises ChannelClosed or TimeoutError."""

    def receive(self, timeout: float) -> tuple[int, bytes] | None:
        """Next piece as (STDOUT or STDERR, bytes), None after `timeout` seconds; raises ChannelClosed."""

    def abandon(self) -> None:
        """Hang up, kill, remove; never raises for a sandbox that is gone already."""


@dataclass(frozen=True)
class _Report:
    """What the sandbox says about a request; `files` are names and sizes."""

    exit: int
    oom: bool
    alive: bool
    figures: list[str]
    files: list[tuple[str, int]]
    skipped: list[str]


@dataclass
class _Incoming:
    """What has arrived for one request: output up to its end mark, and the report."""

    mark: bytes
    transcript: Transcript
    max_files: int
    output_ended: bool = False
    report: _Report | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    _held: bytes = b""
    _raw: bytearray = field(default_factory=bytearray)

    def output(self, data: bytes) -> None:
        """Take a piece of stdout; what could be the beginning of the end mark is held back."""
        if self.output_ended:
            return
        data = self._held + data
        before, found, _ = data.partition(self.mark)
        if found:
            self.output_ended = True
        else:
            nul = data.rfind(b"\0", -len(self.mark))
            cut = nul if nul >= 0 and self.mark.startswith(data[nul:]) else len(data)
            before, self._held = data[:cut], data[cut:]
        self.transcript.write(before)

    def end_of_stream(self) -> None:
        """Give up waiting for the end mark."""
        self.transcript.write(self._held)
        self._held = b""

    def control(self, data: bytes) -> None:
        """Take a piece of the report; raises ToolError for one that cannot be."""
        self._raw += data
        if len(self._raw) > self.max_files + 1_000_000:
            raise ToolError("the sandbox sent more than was agreed")
        if len(self._raw) < _FRAME.size:
            return
        end = _FRAME.size + _FRAME.unpack_from(self._raw)[0]
        if len(self._raw) < end:
            return
        report = _read_report(self._raw[_FRAME.size : end])
        if len(self._raw) >= end + sum(size for _, size in report.files):
            contents = memoryview(self._raw)[end:]
            for name, size in report.files:
                self.files[name], contents = bytes(contents[:size]), contents[size:]
            self.report = report


def _read_report(text: bytes | bytearray) -> _Report:
    """Read a report; code in the sandbox can forge one, so nothing in it is believed to be well formed."""
    try:
        told = json.loads(text)
        files = [(str(name), abs(int(size))) for name, size in told["files"]]
        figures, skipped = ([str(name) for name in told[key]] for key in ("figures", "skipped"))
        return _Report(int(told["exit"]), bool(told["oom"]), bool(told["alive"]), figures, files, skipped)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ToolError("the sandbox sent a report that cannot be read") from error


class Interpreter:
    """One sandbox, seen from outside. After `abandon`, or a result with `state_lost`, it is of no more use."""

    def __init__(self, channel: Channel, limits: Limits):
        self._channel = channel
        self._limits = limits
        self._early: list[tuple[int, bytes]] = []
        self.born = time.monotonic()

    def abandon(self) -> None:
        """End the sandbox."""
        self._channel.abandon()

    def open(self) -> bool:
        """Whether the sandbox is there; what it has printed meanwhile is kept for the next result."""
        try:
            while len(self._early) < MAX_EARLY_PIECES and (piece := self._channel.receive(0)) is not None:
                self._early.append(piece)
        except ChannelClosed:
            return False
        return True

    def run(self, code: str, files: Mapping[str, bytes], timeout: float, cancelled: threading.Event) -> ExecutionResult:
        """Run `code` with `files` in its folder; on time-out or cancellation the sandbox is abandoned."""
        return self._exchange({"code": code, "fetch": []}, files, timeout, cancelled)

    def exchange_files(
        self, files: Mapping[str, bytes], fetch: Sequence[str], timeout: float = 30.0
    ) -> ExecutionResult:
        """Put `files` in the folder, read those named in `fetch` (in the result's `files`, or `skipped`)."""
        return self._exchange({"fetch": list(fetch)}, files, timeout, threading.Event())

    def _exchange(
        self, header: dict[str, Any], files: Mapping[str, bytes], timeout: float, cancelled: threading.Event
    ) -> ExecutionResult:
        started = time.monotonic()
        identity = secrets.token_hex(8)
        incoming = _Incoming(b"\0" + identity.encode() + b"\0", Transcript(self._limits.output), self._limits.files)
        sizes = [[name, len(data)] for name, data in files.items()]
        body = json.dumps({**header, "id": identity, "files": sizes}).encode()
        result = ExecutionResult(exit_code=None)
        complete = False
        try:
            self._channel.send(b"".join([_FRAME.pack(len(body)), body, *files.values()]), timeout)
            complete = self._collect(incoming, started + timeout, cancelled)
            result.cancelled = not complete and cancelled.is_set()
            result.timed_out = not complete and not result.cancelled
        except TimeoutError:
            result.timed_out = True
        except ChannelClosed:
            result.died = True
        finally:
            if not complete:
                self.abandon()  # also on KeyboardInterrupt
        if not complete:
            incoming.end_of_stream()
        _fill(result, incoming)
        result.seconds = time.monotonic() - started
        return result

    def _collect(self, incoming: _Incoming, deadline: float, cancelled: threading.Event) -> bool:
        """Receive until output and report are complete (True), or time is up or the call is cancelled."""
        while not (incoming.output_ended and incoming.report):
            left = deadline - time.monotonic()
            if left <= 0 or cancelled.is_set():
                return False
            piece = self._early.pop(0) if self._early else self._channel.receive(min(left, POLL_SECONDS))
            if piece is not None:
                (incoming.output if piece[0] == STDOUT else incoming.control)(piece[1])
        return True


def _fill(result: ExecutionResult, incoming: _Incoming) -> None:
    result.output = incoming.transcript.text()
    result.omitted = incoming.transcript.omitted
    report = incoming.report
    if report is None:
        result.state_lost = True
        return
    result.died = False
    result.exit_code = report.exit
    result.out_of_memory = report.oom
    result.state_lost = not report.alive
    result.files = incoming.files
    result.figures = [name for name in report.figures if name in incoming.files]
    result.skipped = report.skipped
