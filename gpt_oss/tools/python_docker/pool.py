"""Interpreters that wait for code, so that a call need not wait for a container: 20 ms instead of 150.

Each is used once. After a call (not during it: the cores are busy then) a thread replaces what was taken and
removes what was used. One pool serves all tools of the process with equal settings; it ends with the process.
"""

import atexit
import logging
import threading
import time
from typing import Final

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.engine import Engine
from gpt_oss.tools.python_docker.interpreter import Interpreter

log = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 10
POOL_THREADS: Final = "python-tool-pool"


class Pool:
    """At most `size` waiting interpreters of `engine`; `size` 0 means a new container for each call."""

    def __init__(self, engine: Engine, size: int):
        self._engine = engine
        self._size = size
        self._lock = threading.Lock()
        self._waiting: list[Interpreter] = []
        self._launching = 0
        self._closed = False
        self._threads: set[threading.Thread] = set()
        atexit.register(self.close)

    def take(self) -> Interpreter:
        """Return an interpreter that waits for code; raises ToolError."""
        while True:
            with self._lock:
                candidate = self._waiting.pop() if self._waiting else None
            if candidate is None:
                return self._engine.launch("script")
            if self._is_usable(candidate):
                return candidate
            candidate.abandon()

    def finish(self, used: Interpreter) -> None:
        """Replace an interpreter that was used and remove it, without making the caller wait."""
        thread = threading.Thread(target=self._replace, args=(used,), name=POOL_THREADS, daemon=True)
        with self._lock:
            self._threads = {thread, *(other for other in self._threads if other.is_alive())}
            thread.start()

    def close(self) -> None:
        """End the waiting interpreters and wait for threads; interpreters in use end with their calls."""
        atexit.unregister(self.close)
        with self._lock:
            self._closed = True
            threads = list(self._threads)
        for thread in threads:
            thread.join(CLOSE_SECONDS)
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for interpreter in waiting:
            interpreter.abandon()

    def _is_usable(self, interpreter: Interpreter) -> bool:
        age = time.monotonic() - interpreter.born
        return age < self._engine.limits.waiting and interpreter.open()

    def _replace(self, used: Interpreter) -> None:
        try:
            self._refill()
        except ToolError as error:
            log.warning("no interpreter could be made to wait: %s", error)
        used.abandon()

    def _refill(self) -> None:
        with self._lock:
            if self._closed or len(self._waiting) + self._launching >= self._size:
                return
            self._launching += 1
        try:
            interpreter = self._engine.launch("script")
            with self._lock:
                self._waiting.append(interpreter)
        finally:
            with self._lock:
                self._launching -= 1
