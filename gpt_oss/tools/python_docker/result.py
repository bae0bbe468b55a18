"""What an execution gave, and the text that tells the model about it.

`Transcript` keeps the beginning and the end of an output of any length in bounded memory; `ExecutionResult` holds
everything known about one execution; `describe` words it. Nothing here knows how code is run.
"""

import codecs
from dataclasses import dataclass, field

from gpt_oss.tools.python_docker.limits import MB, Limits

NOTHING_PRINTED = "[warning: the code printed nothing; use print() to see a value]"


class Transcript:
    """An output stream reduced to at most `limit` bytes: the first half of the limit and the last."""

    def __init__(self, limit: int):
        self._head_limit = limit - limit // 2
        self._tail_limit = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def write(self, data: bytes) -> None:
        """Append `data`."""
        self.total += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._tail_limit :] if self._tail_limit else b""
        if len(self._tail) > 2 * self._tail_limit:  # trimmed now and then, not at every write
            del self._tail[: -self._tail_limit]

    @property
    def omitted(self) -> int:
        """Number of bytes between head and tail that are not kept."""
        return self.total - len(self._head) - min(len(self._tail), self._tail_limit)

    def text(self) -> str:
        """Decode as UTF-8 with U+FFFD for what is not; says in its place how much was left out."""
        tail = bytes(self._tail[-self._tail_limit :]) if self._tail_limit else b""
        if not self.omitted:
            return (bytes(self._head) + tail).decode("utf-8", "replace")
        head = codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(self._head))
        start = next((i for i in range(min(4, len(tail))) if tail[i] & 0xC0 != 0x80), 0)
        kept = self._head_limit + self._tail_limit
        note = f"\n[... {self.omitted:,} of {self.total:,} bytes left out: output is limited to {kept:,} bytes ...]\n"
        return head + note + tail[start:].decode("utf-8", "replace")


@dataclass
class ExecutionResult:
    """One finished execution. `exit_code` is None where it was stopped; `files` includes the figures."""

    output: str = ""
    exit_code: int | None = 0
    timed_out: bool = False
    out_of_memory: bool = False
    cancelled: bool = False
    died: bool = False  # the sandbox ended without a word
    state_lost: bool = False  # a session ended with this execution
    restarted: bool = False  # a session that had ended was begun anew for this execution
    omitted: int = 0
    seconds: float = 0.0
    figures: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)  # files too large to come out, or for which there was no room


def describe(result: ExecutionResult, limits: Limits) -> str:
    """Word `result` for the model: the output as it is, then one bracketed line for each thing it must know."""
    notes = [*_ending(result, limits), *_leftovers(result)]
    if not result.output and not result.figures and not notes:
        notes = [NOTHING_PRINTED]
    if not notes:
        return result.output
    gap = "\n" if result.output and not result.output.endswith("\n") else ""
    return result.output + gap + "\n".join(notes)


def _ending(result: ExecutionResult, limits: Limits) -> list[str]:
    if result.cancelled:
        return ["[stopped: the call was cancelled]"]
    if result.timed_out:
        return [f"[stopped: the time limit of {limits.timeout:g} seconds was reached]"]
    if result.out_of_memory and result.exit_code == 0:
        return [f"[a process was killed: out of memory, the limit is {limits.memory // MB} MB]"]
    if result.out_of_memory:
        return [f"[killed: out of memory, the limit is {limits.memory // MB} MB]"]
    if result.died:
        return ["[the sandbox ended unexpectedly; it may have been out of memory]"]
    if result.exit_code:
        signal = f", killed by signal {result.exit_code - 128}" if 128 < result.exit_code < 160 else ""
        return [f"[exit code {result.exit_code}{signal}]"]
    return []


def _leftovers(result: ExecutionResult) -> list[str]:
    notes = [f"[figure saved as {name}]" for name in result.figures]
    if result.restarted:
        notes.append("[the session had ended; this ran in a new one, without earlier variables]")
    if result.state_lost:
        notes.append("[the session was reset: variables, imports and files are gone]")
    return notes
