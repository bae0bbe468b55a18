"""A container engine for tests: the one that runs here, else a private one started for this test session.

Out comes a `TestEngine`: the URL that DOCKER_HOST needs and the name of an image with Python. The private engine
(start-docker-engine.sh) ends with the process that asked for it, also when that is killed; its folder is removed
by `stop` or, after a kill, by the next start. Where neither is possible the reason comes back as EngineAbsent.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

HERE = Path(__file__).parent
START_SCRIPT = HERE / "start-docker-engine.sh"
MAKE_IMAGE = HERE / "make_python_image.py"
PREFIX = "gpt-oss-engine-"
DEFAULT_SOCKET = "/var/run/docker.sock"
START_SECONDS = 90


class EngineAbsent(Exception):
    """No engine runs here and none can be started; the text says why."""


@dataclass(frozen=True)
class TestEngine:
    """A running engine: `url` for DOCKER_HOST, an `image` with Python, `pid` of what was started (or None)."""

    __test__ = False
    url: str
    image: str
    pid: int | None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float):
        super().__init__("localhost", timeout=timeout, blocksize=1 << 20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def answers(path: str) -> bool:
    """Whether an engine answers `_ping` on the unix socket at `path`."""
    try:
        connection = _UnixConnection(path, 2)
        connection.request("GET", "/_ping")
        return connection.getresponse().status == 200
    except OSError:
        return False


def import_image(path: str, tag: str, interpreter: str, packages: tuple[str, ...] = ()) -> None:
    """Make an image from `interpreter` of this machine (`packages`: of sys.executable) and import it as `tag`."""
    command = [sys.executable, str(MAKE_IMAGE), interpreter]
    command += ["--packages", *packages] if packages else []
    repository, _, version = tag.rpartition(":")
    query = f"fromSrc=-&repo={quote(repository, safe='')}&tag={version}"
    headers = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
    connection = _UnixConnection(path, 60)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as maker:
        connection.request("POST", f"/images/create?{query}", maker.stdout, headers, encode_chunked=True)
    answer = connection.getresponse()
    if answer.status != 200 or b'"error"' in (body := answer.read()):
        raise EngineAbsent(f"the engine refused the test image: {answer.status} {body[:200]!r}")


def plain_interpreter() -> str:
    """Pick the interpreter the image is made from: the system's, as it has the smallest library, else our own."""
    system = Path("/usr/bin/python3")
    return str(system if system.exists() else Path(sys._base_executable))  # type: ignore[attr-defined]


def interpreter_version(interpreter: str) -> str:
    """Return '3.11' and the like."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([interpreter, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def running_engine() -> Iterator[TestEngine]:
    """Yield an engine with a Python image; raises EngineAbsent. A user's engine keeps no image of ours."""
    url = os.environ.get("DOCKER_HOST", f"unix://{DEFAULT_SOCKET}")
    interpreter = plain_interpreter()
    version = interpreter_version(interpreter)
    path = url.removeprefix("unix://")
    if url.startswith("unix://") and answers(path):
        tag = f"gpt-oss-test-python:{version}-{os.getpid()}"
        import_image(path, tag, interpreter)
        try:
            yield TestEngine(url, tag, None)
        finally:
            _delete_image(path, tag)
        return
    if "DOCKER_HOST" in os.environ:
        raise EngineAbsent(f"DOCKER_HOST is {url}, which is no unix socket on which an engine answers")
    with _private_engine() as (process, path):
        tag = f"python:{version}-slim"
        import_image(path, tag, interpreter)
        yield TestEngine(f"unix://{path}", tag, process.pid)


def _delete_image(path: str, tag: str) -> None:
    connection = _UnixConnection(path, 30)
    connection.request("DELETE", f"/images/{quote(tag, safe=':')}?force=true")
    connection.getresponse().read()


@contextlib.contextmanager
def _private_engine() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    _remove_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    log = folder / "dockerd.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(START_SCRIPT), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for pytest, which then stops the engine
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(str(folder / "docker.sock")):
            if process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").strip().splitlines()[-5:]
                raise EngineAbsent(f"no Docker engine could be started here: {' | '.join(last)}")
            time.sleep(0.05)
        yield process, str(folder / "docker.sock")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        _remove_folder(folder)


def _remove_leftovers() -> None:
    """Remove folders of engines whose test session was killed (the engine ended with it)."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    """Remove the engine's folder and its emptied control groups; the kernel may need a moment to let go."""
    name = folder / "cgroup"
    if name.exists():
        group = name.read_text().strip().lstrip("/")
        hierarchies = Path("/sys/fs/cgroup")
        for top in [*hierarchies.glob(f"*/{group}"), *hierarchies.glob(group)]:
            for inner in sorted(top.rglob("*"), reverse=True):
                if inner.is_dir():
                    _retry(inner.rmdir)
            _retry(top.rmdir)
    shutil.rmtree(folder, ignore_errors=True)


def _retry(action: Callable[[], object]) -> None:
    for _ in range(20):
        try:
            action()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)


@contextlib.contextmanager
def engine_for_session() -> Iterator[TestEngine]:
    """`running_engine`, named by DOCKER_HOST meanwhile. Without one the test is skipped, but in CI it fails."""
    with pytest.MonkeyPatch.context() as patch:
        running = running_engine()
        try:
            found = running.__enter__()
        except EngineAbsent as error:
            if os.environ.get("CI"):
                pytest.fail(f"CI needs a container engine: {error}")
            pytest.skip(str(error))
        try:
            patch.setenv("DOCKER_HOST", found.url)
            yield found
        finally:
            running.__exit__(None, None, None)
