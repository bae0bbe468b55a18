"""The two container backends: a fresh container for each call, or one for the whole conversation."""

import os
import threading
import time
from collections.abc import Mapping
from typing import ClassVar, Final

from gpt_oss.tools.python_docker.backend import Backend, no_such_file
from gpt_oss.tools.python_docker.choice import Options
from gpt_oss.tools.python_docker.engine import Engine
from gpt_oss.tools.python_docker.interpreter import Interpreter
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.pool import Pool
from gpt_oss.tools.python_docker.result import ExecutionResult
from gpt_oss.tools.python_docker.sandbox import WORK_FOLDER

NO_NETWORK: Final = "There is no network."

_PoolKey = tuple[str | None, Limits, str | None, str | None, int]
_pools: dict[_PoolKey, tuple[Engine, Pool]] = {}
_pools_lock = threading.Lock()


def shared_pool(options: Options) -> tuple[Engine, Pool]:
    """Return this process's engine and pool for `options`, connected at first use; raises ToolError."""
    host = os.environ.get("DOCKER_HOST")  # docker's own variable; a changed one means another engine
    key = (host, options.limits, options.image, options.runtime, options.pool_size)
    with _pools_lock:
        if key not in _pools:
            engine = Engine.connect(options.limits, options.image, options.runtime, options.progress)
            _pools[key] = (engine, Pool(engine, options.pool_size))
        return _pools[key]


def close_pools() -> None:
    """End every waiting interpreter of this process (it is done at exit, too) and forget the engines."""
    with _pools_lock:
        for _, pool in _pools.values():
            pool.close()
        _pools.clear()


class StatelessContainers(Backend):
    """One container per call: nothing of a call is left to the next but the files that were put in."""

    stateful: ClassVar[bool] = False
    place: ClassVar[str] = "a container of its own"
    network: ClassVar[str] = NO_NETWORK
    folder: ClassVar[str] = WORK_FOLDER

    def __init__(self, options: Options):
        super().__init__(options.limits)
        self._options = options

    def execute(self, code: str, cancelled: threading.Event) -> ExecutionResult:
        """Run `code` in a fresh interpreter, as `python file.py` would."""
        _, pool = shared_pool(self._options)
        interpreter = pool.take()
        try:
            result = interpreter.run(code, self._files, self.limits.timeout, cancelled)
        finally:
            pool.finish(interpreter)
        result.state_lost = False  # there was none
        self._results = result.files
        return result


class ContainerSession(Backend):
    """One container per conversation with a living interpreter; a time-out or a crash begins a new one."""

    stateful: ClassVar[bool] = True
    place: ClassVar[str] = "a container kept for this conversation"
    network: ClassVar[str] = NO_NETWORK
    folder: ClassVar[str] = WORK_FOLDER

    def __init__(self, options: Options):
        super().__init__(options.limits)
        self._options = options
        self._lock = threading.Lock()  # one cell at a time
        self._interpreter: Interpreter | None = None
        self._files_lock = threading.Lock()  # another one, as put_files must not wait for a cell
        self._undelivered: dict[str, bytes] = {}

    def execute(self, code: str, cancelled: threading.Event) -> ExecutionResult:
        """Run `code` as the next cell."""
        with self._lock:
            expired = self._end_if_expired()
            interpreter = self._living()
            try:
                result = interpreter.run(code, self._take_undelivered(), self.limits.timeout, cancelled)
            except BaseException:
                self._end()
                raise
            if result.state_lost:
                self._end()
            result.restarted = expired
            self._results = result.files
            return result

    def put_files(self, files: Mapping[str, bytes]) -> None:
        """Give the session these files before its next cell."""
        with self._files_lock:
            super().put_files(files)
            self._undelivered = {**self._undelivered, **files}

    def fetch(self, name: str) -> bytes:
        """Read a file of the session as it is now; raises ToolError where there is none or it is too large."""
        with self._lock:
            if self._interpreter is None or name in self._undelivered:
                return super().fetch(name)
            result = self._interpreter.exchange_files({}, [name])
            if result.state_lost:
                self._end()
            if name not in result.files:
                raise no_such_file(name)
            return result.files[name]

    def reset(self) -> None:
        """End the container; the next cell starts with nothing but the files that were put in."""
        with self._lock:
            self._end()

    def _living(self) -> Interpreter:
        if self._interpreter is None:
            engine, _ = shared_pool(self._options)
            with self._files_lock:
                self._undelivered = dict(self._files)
            self._interpreter = engine.launch("session")
        return self._interpreter

    def _take_undelivered(self) -> dict[str, bytes]:
        with self._files_lock:
            files, self._undelivered = self._undelivered, {}
            return files

    def _end_if_expired(self) -> bool:
        """End a session that has lived its time or died meanwhile; True if there was one."""
        living = self._interpreter
        if living is None:
            return False
        age = time.monotonic() - living.born
        if age < self.limits.session - self.limits.timeout and living.open():
            return False
        self._end()
        return True

    def _end(self) -> None:
        if self._interpreter is not None:
            self._interpreter.abandon()
            self._interpreter = None
