"""runner.py as a child of this process, unprotected and without an engine: the protocol, figures, old Pythons."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.interpreter import STDERR, STDOUT, ChannelClosed, Interpreter
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.pipes import PipeChannel
from gpt_oss.tools.python_docker.result import ExecutionResult
from gpt_oss.tools.python_docker.sandbox import runner_arguments
from tests.helpers.python_tool import wait_until

LIMITS = Limits(memory=2**31, timeout=30)


@contextlib.contextmanager
def runner(mode: str, folder: Path, python: str = sys.executable) -> Iterator[Interpreter]:
    """Start an interpreter that waits for code in `folder`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**os.environ, "MPLBACKEND": "agg"}
    process = subprocess.Popen([python, *runner_arguments(mode, LIMITS, str(folder))], env=environment, **pipes)
    interpreter = Interpreter(PipeChannel(process), LIMITS)
    try:
        yield interpreter
    finally:
        interpreter.abandon()


def run(interpreter: Interpreter, code: str, **files: bytes) -> ExecutionResult:
    """Run `code` with `files`."""
    return interpreter.run(code, files, LIMITS.timeout, threading.Event())


@pytest.mark.parametrize("mode", ["script", "session"])
def test_figures(mode, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed beside the tests")
    draw = "import matplotlib.pyplot as plt\nfor n in (1, 2):\n  plt.figure(); plt.plot([n, 2])\nprint('drawn')"
    (tmp_path / "figure-1.png").write_text("not ours")
    with runner(mode, tmp_path) as interpreter:
        result = run(interpreter, draw)
        assert (result.output, result.figures) == ("drawn\n", ["figure-2.png", "figure-3.png"])
        first, second = (result.files[name] for name in result.figures)
        assert first.startswith(b"\x89PNG\r\n") and second.startswith(b"\x89PNG\r\n") and first != second
        if mode == "session":
            shown = run(interpreter, "plt.plot([1, 2])\nplt.show()")
            assert (shown.output, shown.figures) == ("", ["figure-4.png"])
            assert run(interpreter, "1").figures == []
            broken = "class Broken(plt.Figure):\n  def draw(self, _): 1/0\nplt.figure(FigureClass=Broken); None"
            assert "ZeroDivisionError" in run(interpreter, broken).output
            assert run(interpreter, "print('alive')").output == "alive\n"


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_python_versions(version, tmp_path):
    python = find_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    with runner("session", tmp_path, python) as interpreter:
        assert run(interpreter, "import sys\n'%d.%d' % sys.version_info[:2]").output == f"'{version}'\n"
        assert "ZeroDivisionError" in run(interpreter, "1 / 0").output
    with runner("script", tmp_path, python) as interpreter:
        result = run(interpreter, "def f():\n    raise ValueError('é')\nf()")
        assert "    raise ValueError('é')\n" in result.output and result.output.endswith("ValueError: é\n")
        assert result.exit_code == 1


def find_python(version: str) -> str | None:
    """Find an interpreter of this version: pyenv's, else on the PATH; None where what is found does not run."""
    candidates = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    return None


def test_hanging_up_ends_waiting_and_busy_interpreters(tmp_path):
    for code in (None, "while True: pass"):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, *runner_arguments("script", LIMITS, str(tmp_path))], **pipes)
        channel = PipeChannel(process)
        if code:
            thread = threading.Thread(target=run, args=(Interpreter(channel, LIMITS), code), daemon=True)
            thread.start()
            time.sleep(0.3)
        process.stdin.close()
        assert wait_until(lambda: process.poll() is not None)  # noqa: B023
        kill_workers(str(tmp_path))


def kill_workers(folder: str) -> None:
    """End workers left behind: outside a process namespace nothing ends them with their guard."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.encode() in (entry / "cmdline").read_bytes() and entry.name.isdigit():
                os.kill(int(entry.name), signal.SIGKILL)


class Script:
    """A channel that plays back what a sandbox sends."""

    def __init__(self, *pieces: tuple[int, bytes]):
        self.pieces = list(pieces)
        self.sent = b""
        self.abandoned = False

    def send(self, data: bytes, timeout: float) -> None:
        self.sent += data
        identity = data.partition(b'"id": "')[2][:16]
        self.pieces = [(stream, data.replace(b"<id>", identity)) for stream, data in self.pieces]

    def receive(self, timeout: float) -> tuple[int, bytes] | None:
        if not self.pieces:
            raise ChannelClosed
        return self.pieces.pop(0)

    def abandon(self) -> None:
        self.abandoned = True


REPORT = b'{"exit": 0, "oom": false, "alive": true, "figures": [], "skipped": [], "files": [["a", 3]]}'
FRAMED = len(REPORT).to_bytes(4, "big") + REPORT + b"abc"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_any_division_into_pieces_is_read(size):
    stdout = b"text \0 with \0 nul\n\0<id>\0"
    probe = Script((STDOUT, stdout))
    probe.send(b'"id": "0123456789abcdef"', 1)

    class Pieces(Script):
        def send(self, data: bytes, timeout: float) -> None:
            super().send(data, timeout)
            whole = [(stream, data) for stream, data in self.pieces]
            self.pieces = [(s, d[i : i + size]) for s, d in whole for i in range(0, len(d), size)]

    channel = Pieces((STDOUT, stdout), (STDERR, FRAMED))
    result = Interpreter(channel, LIMITS).run("x", {"in": b"bytes"}, 5, threading.Event())
    assert result.output == "text \0 with \0 nul\n" and result.files == {"a": b"abc"} and result.exit_code == 0
    assert channel.sent.endswith(b"bytes") and not channel.abandoned


def test_a_sandbox_that_ends_without_a_word():
    channel = Script((STDOUT, b"half\0"))
    result = Interpreter(channel, LIMITS).run("x", {}, 5, threading.Event())
    assert result.died and result.state_lost and result.output == "half\0" and channel.abandoned


@pytest.mark.parametrize(
    "report",
    [b"\0\0\0\x02{}", b"\0\0\0\x04null", b"\xff" * 2_000_000 * 9, b"\0\0\0\x02[[", b"\0\x01\0\0" + b"[" * 65536],
)
def test_nonsense_from_the_sandbox_is_a_tool_error(report):
    channel = Script((STDOUT, b"\0<id>\0"), (STDERR, report))
    with pytest.raises(ToolError, match="the sandbox sent"):
        Interpreter(channel, LIMITS).run("x", {}, 5, threading.Event())
    assert channel.abandoned
