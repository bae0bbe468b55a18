"""Reading messages: pipes, Python's input, continuation lines, and where the history is kept."""

import io
import os
import sys

import pytest

from gpt_oss.terminal.line_input import PipeInput, PlainInput, history_file, is_open, joined


def typed(*lines):
    """A stand-in for input(): the lines, then the end."""
    rest = list(lines)

    def ask(prompt):
        if not rest:
            raise EOFError
        return rest.pop(0)

    return ask


def read_all(source):
    messages = []
    while (text := source.read()) is not None:
        messages.append(text)
    return messages


def test_a_pipe_is_read_line_by_line():
    assert read_all(PipeInput(io.StringIO("one\n\ntwo\r\nthree"))) == ["one", "two", "three"]


def test_messages_of_several_lines():
    source = PlainInput(None, typed("a\\", "b", '"""', "c", "", "d\\", '"""', "e"))
    assert read_all(source) == ["a\nb", "c\n\nd\\", "e"]


def test_the_end_inside_a_message_is_the_end():
    assert read_all(PlainInput(None, typed("x", "a\\"))) == ["x"]


@pytest.mark.parametrize(
    "text, unfinished",
    [("a", False), ("a\\", True), ('"""', True), ('"""\na\n"""', False), ("a\\\nb", False)],
)
def test_is_open(text, unfinished):
    assert is_open(text) == unfinished


def test_joined_leaves_ordinary_text_alone():
    assert joined('say """ and \\n') == 'say """ and \\n'


def test_history_lies_in_the_cache_folder(tmp_path):
    assert history_file({"GPT_OSS_CACHE": str(tmp_path)}) == tmp_path / "gpt-oss-chat" / "history"
    assert history_file({"GPT_OSS_HISTORY": str(tmp_path / "h")}) == tmp_path / "h"
    assert history_file({"GPT_OSS_HISTORY": ""}) is None


def test_no_history_where_no_folder_can_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    assert history_file({"GPT_OSS_CACHE": str(tmp_path / "file")}) is None


def test_history_is_private(tmp_path):
    folder = history_file({"GPT_OSS_CACHE": str(tmp_path)}).parent
    assert sys.platform == "win32" or os.stat(folder).st_mode & 0o077 == 0
