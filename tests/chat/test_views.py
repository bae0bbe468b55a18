"""What the views show of a download, which no scripted session has."""

import io
import time

from gpt_oss.harmony.events import ToolCallFinished
from gpt_oss.terminal.view import PlainView, RawView, TerminalView


def test_unstyled_views_announce_a_download_once_on_standard_error() -> None:
    for view_class in (PlainView, RawView):
        output, errors = io.StringIO(), io.StringIO()
        view = view_class(output, errors)
        for done, total in ((0, 0), (0, 0), (0, 45_000_000), (45_000_000, 45_000_000)):
            view.downloading("python:3.12-slim", done, total)
        assert output.getvalue() == ""
        assert errors.getvalue() == "downloading python:3.12-slim\n"


def test_the_spinner_of_a_waiting_tool_counts_the_download() -> None:
    stream = io.StringIO()
    view = TerminalView(stream, width=lambda: 60)
    view.downloading("python:3.12-slim", 1, 2)  # before any tool runs there is nothing to show it on
    assert stream.getvalue() == ""
    view.show(ToolCallFinished(0, "python", "{}", by_caller=False))
    view.downloading("python:3.12-slim", 21_000_000, 45_000_000)
    deadline = time.monotonic() + 30
    while "21 of 45 MB" not in stream.getvalue():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    view.downloading("registry.example.com/" + "long/" * 20 + "image", 21_000_000, 45_000_000)
    while "registry" not in stream.getvalue():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    view.close()
    lines = stream.getvalue().replace("\x1b[K", "").replace("\x1b[2m", "").replace("\x1b[0m", "").split("\r")
    assert max(map(len, lines)) <= 60
