"""Output of any length in bounded memory, and its wording for the model."""

import random

import pytest

from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.result import NOTHING_PRINTED, ExecutionResult, Transcript, describe


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("length", [0, 1, 6, 7, 8, 99, 100, 101, 1000])
def test_head_and_tail_are_kept(limit, length):
    data = bytes(random.choices(b"abcdefghij\n", k=length))
    transcript, left = Transcript(limit), data
    while left:
        size = random.randint(1, 50)
        transcript.write(left[:size])
        left = left[size:]
    if length <= limit:
        assert transcript.text() == data.decode() and transcript.omitted == 0
        return
    head, tail = data[: limit - limit // 2].decode(), data[length - limit // 2 :].decode()
    assert transcript.omitted == length - limit
    note = f"\n[... {length - limit:,} of {length:,} bytes left out: output is limited to {limit:,} bytes ...]\n"
    assert transcript.text() == head + note + tail


def test_memory_is_bounded():
    transcript = Transcript(1000)
    for _ in range(1000):
        transcript.write(b"x" * 10_000)
    assert transcript.total == 10_000_000
    assert len(transcript._head) + len(transcript._tail) <= 3000


@pytest.mark.parametrize("limit", range(20, 40))
def test_characters_are_not_cut(limit):
    transcript = Transcript(limit)
    transcript.write("€😀é".encode() * 20)
    assert "\ufffd" not in transcript.text()


def test_what_is_not_utf8_is_replaced():
    transcript = Transcript(100)
    transcript.write(b"a\xff\xc3")
    transcript.write(b"\xa9b\xe2\x82")
    assert transcript.text() == "a\ufffdéb\ufffd"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ExecutionResult(output="a\n"), "a\n"),
        (ExecutionResult(output="a"), "a"),
        (ExecutionResult(), NOTHING_PRINTED),
        (ExecutionResult(output="a", exit_code=3), "a\n[exit code 3]"),
        (ExecutionResult(output="a\n", exit_code=139), "a\n[exit code 139, killed by signal 11]"),
        (ExecutionResult(exit_code=255), "[exit code 255]"),
        (ExecutionResult(exit_code=None, timed_out=True), "[stopped: the time limit of 60 seconds was reached]"),
        (ExecutionResult(exit_code=None, cancelled=True), "[stopped: the call was cancelled]"),
        (ExecutionResult(exit_code=137, out_of_memory=True), "[killed: out of memory, the limit is 512 MB]"),
        (
            ExecutionResult(output="a\n", out_of_memory=True),
            "a\n[a process was killed: out of memory, the limit is 512 MB]",
        ),
        (
            ExecutionResult(exit_code=None, died=True),
            "[the sandbox ended unexpectedly; it may have been out of memory]",
        ),
        (ExecutionResult(figures=["figure-1.png"]), "[figure saved as figure-1.png]"),
    ],
)
def test_wording(result, text):
    assert describe(result, Limits()) == text
