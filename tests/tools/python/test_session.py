"""The stateful session and files in and out, against a real engine."""

import asyncio

import pytest

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.limits import MB, Limits
from tests.helpers.python_tool import answer, containers, wait_until

pytestmark = pytest.mark.usefixtures("nothing_left")

RESET = "[the session was reset: variables, imports and files are gone]"
SILENT = "[warning: the code printed nothing; use print() to see a value]"


@pytest.fixture
async def session(make_tool):
    """Yield a tool with a session that a test may use up."""
    async with make_tool(execution_backend="docker_session", timeout=3) as tool:
        yield tool


async def test_state_is_kept(session, client):
    assert await answer(session, "x = 1") == SILENT
    assert await answer(session, "print(x)") == "1\n"
    assert await answer(session, "import math\nx += 1\nx, math.pi") == "(2, 3.141592653589793)\n"
    assert await answer(session, "_[0]") == "2\n"
    assert await answer(session, "def f(n): return n * x\nclass C: pass\nNone") == SILENT
    assert await answer(session, "print(f(21)); C().__class__.__module__") == "42\n'__main__'\n"
    assert len(containers(client)) == 1


async def test_state_survives_errors(session):
    await answer(session, "x = 5")
    text = await answer(session, "print('before')\nx / 0")
    assert text.startswith(
        'before\nTraceback (most recent call last):\n  File "<cell 2>", line 2, in <module>\n    x / 0\n'
    )
    assert text.endswith("ZeroDivisionError: division by zero\n[exit code 1]")
    assert "SyntaxError" in await answer(session, "x x")
    assert await answer(session, "import sys\nsys.exit(4)") == "[exit code 4]"
    assert "MemoryError" in await answer(session, "y = bytearray(2_000_000_000)")
    assert await answer(session, "x") == "5\n"


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("while True: pass", "[stopped: the time limit of 3 seconds was reached]"),
        ("import os\nprint('a')\nos._exit(9)", "a\n[exit code 9]"),
        ("import os\nos.kill(os.getpid(), 9)", "[exit code 137, killed by signal 9]"),
    ],
)
async def test_an_ended_session_begins_anew(session, code, end):
    await answer(session, "x = 1")
    assert await answer(session, code) == f"{end}\n{RESET}"
    assert "NameError" in await answer(session, "x")
    assert await answer(session, "x = 2\nx") == "2\n"


async def test_out_of_memory_ends_the_session(make_tool):
    async with make_tool(execution_backend="docker_session", limits=Limits(memory=128 * MB)) as session:
        hog = "import mmap\nm = mmap.mmap(-1, 2_000_000_000)\nfor i in range(0, len(m), 4096): m[i] = 1"
        assert await answer(session, hog) == f"[killed: out of memory, the limit is 128 MB]\n{RESET}"
        assert await answer(session, "1") == "1\n"


async def test_a_session_that_vanished_is_told(session, client):
    await answer(session, "x = 1")
    client.api.remove_container(containers(client)[0], force=True)
    assert wait_until(lambda: not containers(client))
    text = await answer(session, "print('x' in globals())")
    assert text == "False\n[the session had ended; this ran in a new one, without earlier variables]"


async def test_reset_and_two_sessions(session, make_tool):
    async with make_tool(execution_backend="docker_session") as other:
        await answer(session, "x = 'mine'")
        await answer(other, "x = 'other'")
        assert await answer(session, "x") == "'mine'\n"
        await session.reset()
        assert await answer(session, "'x' in globals()") == "False\n"
        assert await answer(other, "x") == "'other'\n"


async def test_cells_run_one_after_the_other(session):
    await answer(session, "log = []")
    code = "log.append({n}); import time; time.sleep(0.1); log.append({n})"
    await asyncio.gather(*(answer(session, code.format(n=n)) for n in range(4)))
    assert await answer(session, "log[::2] == log[1::2], sorted(log[::2])") == "(True, [0, 1, 2, 3])\n"


async def test_late_output_comes_with_the_next_cell(session):
    await answer(session, "import threading\nthreading.Timer(0.1, print, ['late']).start()")
    await asyncio.sleep(1)
    assert await answer(session, "print('next')") == "late\nnext\n"


async def test_a_fork_does_not_answer_for_the_session(session):
    assert await answer(session, "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('x')") == "x\nx\n"
    assert await answer(session, "print('alone')") == "alone\n"


async def test_files_of_a_session(session):
    session.put_files({"in.csv": b"1,2\n", "deep/er/in.bin": bytes(range(256))})
    code = "data = open('deep/er/in.bin', 'rb').read()\nopen('out.bin', 'wb').write(data[::-1])\nopen('in.csv').read()"
    assert await answer(session, code) == "'1,2\\n'\n"
    assert await session.fetch("out.bin") == bytes(reversed(range(256)))
    session.put_files({"more.txt": b"more"})
    assert await answer(session, "open('more.txt').read()") == "'more'\n"
    await session.reset()
    assert await answer(session, "import os\nsorted(os.listdir())") == "['deep', 'in.csv', 'more.txt']\n"
    await answer(session, "os.symlink('/etc/passwd', 'link'); os.mkfifo('fifo'); open('big', 'wb').truncate(10**8)")
    for name in ("absent", "link", "fifo", "big", "deep", "../../etc/passwd", "/etc/passwd/x", "a\0b"):
        with pytest.raises(ToolError, match="no file"):
            await session.fetch(name)
    assert await answer(session, "1") == "1\n"


async def test_putting_files_does_not_wait_for_a_cell(session):
    await answer(session, "1")
    cell = asyncio.ensure_future(answer(session, "import time; time.sleep(2); import os; os.listdir()"))
    await asyncio.sleep(0.8)
    session.put_files({"late.txt": b"late"})
    assert not cell.done()
    assert await cell == "[]\n"
    assert await answer(session, "open('late.txt').read()") == "'late'\n"


async def test_files_of_stateless_calls(make_tool):
    tool = make_tool()
    tool.put_files({"in.txt": b"in"})
    assert await answer(tool, "print(open('in.txt').read())\nopen('out.txt', 'w').write('out')") == "in\n"
    assert await tool.fetch("out.txt") == b"out"
    assert await tool.fetch("in.txt") == b"in"
    assert await answer(tool, "import os\nprint(os.listdir(), os.listdir('/tmp'))") == "['in.txt'] []\n"
    with pytest.raises(ToolError, match=r"no file 'out\.txt'"):
        await tool.fetch("out.txt")
    await answer(tool, "open('in.txt', 'a').write('!')")
    assert await tool.fetch("in.txt") == b"in!"


@pytest.mark.parametrize("name", ["", "/etc/x", "..", "../x", "a/../../x", "a//b", "a/", ".", "./x", "a\0"])
def test_names_outside_the_folder_are_refused(make_tool, name):
    with pytest.raises(ToolError, match="relative path"):
        make_tool().put_files({name: b""})


def test_too_many_bytes_are_refused(make_tool):
    tool = make_tool(limits=Limits(files=10))
    tool.put_files({"a": b"123456"})
    with pytest.raises(ToolError, match="12 bytes, but at most 10"):
        tool.put_files({"b": b"123456"})
    tool.put_files({"a": b"1234567890"})


async def test_code_cannot_forge_a_breakdown_of_the_client(make_tool):
    """What the guard writes on stderr, code can write too (through /proc): the client must take anything."""
    reports = (b"\0\0\0\x02{}", b"\0\0\0\x04null", b"\xff" * 100, b"\0\0\0\x02[[")
    tool = make_tool(timeout=3)
    forge = "import os\nos.write(os.open('/proc/1/fd/2', os.O_WRONLY), {!r})\nprint('done')"
    for text in await asyncio.gather(*(answer(tool, forge.format(report)) for report in reports)):
        assert text.startswith(("Error: the sandbox sent", "done", "[stopped")), text
