"""A line that says that something is going on, while nothing else can be written."""

import threading
import time
from collections.abc import Callable
from typing import Self

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
DELAY = 0.15  # seconds: what is over sooner shows no spinner
PERIOD = 0.1

_CLEAR = "\r\x1b[K"


class Spinner:
    """Shows `label` and the seconds so far on the last line until `stop`. For terminals only."""

    def __init__(self, write: Callable[[str], None], label: str):
        self.label = label
        self._write = write
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._turn, name="spinner", daemon=True)

    def start(self) -> Self:
        """Begin to turn."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Take the line away; the cursor is where it was."""
        self._over.set()
        self._thread.join()

    def _turn(self) -> None:
        began = time.monotonic()
        if self._over.wait(DELAY):
            return
        frame = 0
        while True:
            seconds = time.monotonic() - began
            shown = f"{FRAMES[frame % len(FRAMES)]} {self.label} {seconds:.0f} s"
            self._write(f"{_CLEAR}\x1b[2m{shown}\x1b[0m")
            frame += 1
            if self._over.wait(PERIOD):
                break
        self._write(_CLEAR)
