"""`dangerously_use_local_jupyter`: code in a Jupyter kernel of this user, started here or named by its connection file.

Nothing is isolated: the kernel has the user's files and network. State is kept, figures come back as images. The
time limit interrupts the kernel; if that does not help, a kernel that was started here is restarted. Needs the
packages jupyter_client and ipykernel.
"""

import base64
import queue
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Final

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.backend import Backend, no_such_file
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.result import ExecutionResult, Transcript

START_SECONDS: Final = 60
INTERRUPT_SECONDS: Final = 3
POLL_SECONDS: Final = 0.1
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")


class LocalJupyter(Backend):
    """One kernel per conversation, not isolated; `connection_file` names a kernel that runs already."""

    stateful: ClassVar[bool] = True
    place: ClassVar[str] = "a Jupyter kernel on the user's machine"
    network: ClassVar[str] = "The network of the user's machine can be used."

    def __init__(self, limits: Limits, connection_file: str | None = None):
        super().__init__(limits)
        self._connection_file = connection_file
        self._lock = threading.Lock()  # one cell at a time
        self._manager: Any = None
        self._client: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._figures = 0

    def execute(self, code: str, cancelled: threading.Event) -> ExecutionResult:
        """Run `code` as the next cell; raises ToolError where there is no kernel."""
        with self._lock:
            self._connect()
            self._write_files()
            cell = _Cell(self._client, code, Transcript(self.limits.output), self._figures)
            started = time.monotonic()
            finished = cell.collect(started + self.limits.timeout, cancelled)
            result = cell.result()
            if not finished:
                result.exit_code = None
                result.cancelled = cancelled.is_set()
                result.timed_out = not result.cancelled
                result.state_lost = not self._interrupt(cell)
            result.seconds = time.monotonic() - started
            self._figures += len(result.figures)
            self._results = {**self._results, **result.files}
            return result

    def fetch(self, name: str) -> bytes:
        """Read a figure, or a file of the kernel's folder (of a kernel started here)."""
        with self._lock:
            path = Path(self._folder.name, name).resolve() if self._folder else None
            inside = path is not None and path.is_relative_to(Path(self._folder.name).resolve())  # type: ignore[union-attr]
            if path is not None and inside and path.is_file():
                return path.read_bytes()
            if name in self._results:
                return self._results[name]
        raise no_such_file(name)

    def reset(self) -> None:
        """End a kernel that was started here; leave one that was not."""
        with self._lock:
            self._end()

    def _connect(self) -> None:
        if self._client is not None and (self._manager is None or self._manager.is_alive()):
            return
        try:
            from jupyter_client import BlockingKernelClient, KernelManager
        except ImportError as error:
            raise ToolError("Python cannot run: run pip install jupyter_client ipykernel") from error
        self._end()
        if self._connection_file:
            self._client = BlockingKernelClient(connection_file=self._connection_file)
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="gpt-oss-python-", ignore_cleanup_errors=True)
            self._manager = KernelManager(kernel_name="python3")
            self._manager.start_kernel(cwd=self._folder.name)
            self._client = self._manager.client()
        try:
            if self._connection_file:
                self._client.load_connection_file()
            self._client.start_channels()
            self._client.wait_for_ready(timeout=START_SECONDS)
        except (OSError, RuntimeError, ValueError) as error:
            self._end()
            raise ToolError(f"Python cannot run: the Jupyter kernel does not answer ({error})") from error

    def _write_files(self) -> None:
        if self._files and self._folder is None:
            raise ToolError("files cannot be put into a kernel that was not started here")
        for name, data in self._files.items():
            path = Path(str(self._folder and self._folder.name), name)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def _interrupt(self, cell: "_Cell") -> bool:
        """Interrupt the kernel; True if it has come to rest with its state."""
        if self._manager is not None:
            self._manager.interrupt_kernel()
        else:
            request = self._client.session.msg("interrupt_request", content={})
            self._client.control_channel.send(request)
        if cell.collect(time.monotonic() + INTERRUPT_SECONDS, threading.Event()):
            return True
        self._end()
        return False

    def _end(self) -> None:
        if self._client is not None:
            self._client.stop_channels()
            self._client = None
        if self._manager is not None:
            self._manager.shutdown_kernel(now=True)
            self._manager = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class _Cell:
    """What a kernel says about one cell, message by message."""

    def __init__(self, client: Any, code: str, transcript: Transcript, figures_before: int):
        self._client = client
        self._transcript = transcript
        self._figures_before = figures_before
        self._figures: dict[str, bytes] = {}
        self._failed = False
        self._request = client.execute(code, allow_stdin=False)

    def collect(self, deadline: float, cancelled: threading.Event) -> bool:
        """Take messages until the kernel is idle again (True) or time is up or the call is cancelled."""
        while time.monotonic() < deadline and not cancelled.is_set():
            try:
                message = self._client.get_iopub_msg(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != self._request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return True
            self._take(message["msg_type"], message["content"])
        return False

    def result(self) -> ExecutionResult:
        """Put together what has come so far."""
        return ExecutionResult(
            output=self._transcript.text(),
            exit_code=int(self._failed),
            omitted=self._transcript.omitted,
            figures=list(self._figures),
            files=dict(self._figures),
        )

    def _take(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "stream":
            self._write(content["text"])
        elif kind == "error":
            self._failed = True
            self._write(_COLOURS.sub("", "\n".join(content["traceback"])) + "\n")
        elif kind in ("execute_result", "display_data"):
            image = content["data"].get("image/png")
            if image:
                name = f"figure-{self._figures_before + len(self._figures) + 1}.png"
                self._figures[name] = base64.b64decode(image)
            elif "text/plain" in content["data"]:
                self._write(content["data"]["text/plain"] + "\n")

    def _write(self, text: str) -> None:
        self._transcript.write(text.encode("utf-8", "replace"))
