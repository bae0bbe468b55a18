"""`dangerously_use_uv`: code as a process of this user, with this user's files and network, through `uv run`.

Nothing is isolated: choose it only for code you would run yourself. uv gives each call a fresh interpreter and
installs what the code asks for in a `# /// script` block. A folder of its own is the current directory and is
removed afterwards; the time limit ends the whole process group.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, ClassVar, Final

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.backend import Backend
from gpt_oss.tools.python_docker.result import ExecutionResult, Transcript

POLL_SECONDS: Final = 0.05
SCRIPT: Final = "code.py"


class UvProcess(Backend):
    """A fresh process for each call, not isolated."""

    stateful: ClassVar[bool] = False
    place: ClassVar[str] = "a process of its own on the user's machine"
    network: ClassVar[str] = "The network of the user's machine can be used."

    def execute(self, code: str, cancelled: threading.Event) -> ExecutionResult:
        """Run `code` with uv; raises ToolError where uv is not installed."""
        uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
        if uv is None:
            raise ToolError("Python cannot run: uv is not installed; see https://docs.astral.sh/uv or pip install uv")
        with tempfile.TemporaryDirectory(prefix="gpt-oss-python-", ignore_cleanup_errors=True) as folder:
            before = self._prepare(Path(folder), code)
            result = self._run([uv, "run", "--no-project", "--quiet", SCRIPT], folder, cancelled)
            self._results = result.files = _changed(Path(folder), before, self.limits.files)
        return result

    def _prepare(self, folder: Path, code: str) -> dict[str, bytes]:
        before = {**self._files, SCRIPT: code.encode("utf-8", "surrogatepass")}
        for name, data in before.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return before

    def _run(self, command: list[str], folder: str, cancelled: threading.Event) -> ExecutionResult:
        started = time.monotonic()
        text_settings = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8:backslashreplace", "MPLBACKEND": "agg"}
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **text_settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        transcript = Transcript(self.limits.output)
        reader = threading.Thread(target=_drain, args=(process.stdout, transcript), daemon=True)
        reader.start()
        result = ExecutionResult(exit_code=None)
        try:
            result.exit_code = self._wait(process, started + self.limits.timeout, cancelled)
        finally:
            _end(process)
        reader.join(1)  # a process that left the group may hold the pipe open
        result.cancelled = result.exit_code is None and cancelled.is_set()
        result.timed_out = result.exit_code is None and not result.cancelled
        result.output, result.omitted = transcript.text(), transcript.omitted
        result.seconds = time.monotonic() - started
        return result

    def _wait(self, process: subprocess.Popen[bytes], deadline: float, cancelled: threading.Event) -> int | None:
        """Exit code (128 + n for signal n), or None if time was up or the call was cancelled first."""
        while time.monotonic() < deadline and not cancelled.is_set():
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL_SECONDS)
                return code if code >= 0 else 128 - code
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it has started; on Windows, which has no such groups, uv takes its children along."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            process.kill()
    process.wait()


def _drain(pipe: IO[bytes] | None, transcript: Transcript) -> None:
    if pipe is not None:
        with pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                transcript.write(data)


def _changed(folder: Path, before: dict[str, bytes], max_bytes: int) -> dict[str, bytes]:
    """Read files that are new or different, as far as they fit."""
    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink() or not path.is_file() or "__pycache__" in path.parts:
            continue
        if path.stat().st_size <= max_bytes and (data := path.read_bytes()) != before.get(name):
            found[name] = data
            max_bytes -= len(data)
    return found
