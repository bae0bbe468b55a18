"""A child process with three pipes as a `Channel`; see interpreter.py."""

import os
import selectors
import subprocess
import time
from contextlib import suppress
from typing import IO, Final

from gpt_oss.tools.python_docker.interpreter import STDERR, STDOUT, ChannelClosed

READ_BYTES: Final = 1 << 16


class PipeChannel:
    """Owns `process`, which was started with stdin, stdout and stderr as pipes."""

    def __init__(self, process: subprocess.Popen[bytes]):
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the process must have pipes as standard streams")
        self._process = process
        self._stdin: IO[bytes] = process.stdin
        os.set_blocking(self._stdin.fileno(), False)
        self._outputs = selectors.DefaultSelector()
        self._outputs.register(process.stdout, selectors.EVENT_READ, STDOUT)
        self._outputs.register(process.stderr, selectors.EVENT_READ, STDERR)

    def send(self, data: bytes, timeout: float) -> None:
        """Write all of `data`; raises ChannelClosed or TimeoutError."""
        deadline, view = time.monotonic() + timeout, memoryview(data)
        with selectors.DefaultSelector() as ready:
            ready.register(self._stdin, selectors.EVENT_WRITE)
            while view:
                if not ready.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                try:
                    view = view[os.write(self._stdin.fileno(), view) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise ChannelClosed from error

    def receive(self, timeout: float) -> tuple[int, bytes] | None:
        """Next piece of output, or None after `timeout` seconds; raises ChannelClosed."""
        while self._outputs.get_map():
            ready = self._outputs.select(timeout)
            if not ready:
                return None
            key = ready[0][0]
            data = os.read(key.fd, READ_BYTES)
            if data:
                return key.data, data
            self._outputs.unregister(key.fileobj)
        raise ChannelClosed

    def abandon(self) -> None:
        """Hang up, kill and reap."""
        self._process.kill()
        self._outputs.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process.wait()
