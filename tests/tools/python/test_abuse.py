"""Every attack of the list in spec/containers.md, section 5, against a real engine."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gpt_oss.tools.python_docker.limits import MB, Limits
from tests.helpers.python_tool import answer, containers, wait_until

pytestmark = pytest.mark.usefixtures("nothing_left")

STUBBORN = "import signal\nfor n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(n, signal.SIG_IGN)\n"


async def test_time_limit(make_tool):
    stuck = [
        "while True: pass",
        "import time\ntime.sleep(1000)",
        STUBBORN + "while True: pass",
        "import os, signal\nfor n in range(1, 65): os.kill(1, n) if n != 14 else 0\nwhile True: pass",
    ]
    tool, started = make_tool(timeout=2), time.monotonic()
    texts = await asyncio.gather(*(answer(tool, code) for code in stuck))
    assert texts == ["[stopped: the time limit of 2 seconds was reached]"] * len(stuck)
    assert 2 < time.monotonic() - started < 60


async def test_output_before_the_time_limit_is_kept(make_tool):
    text = await answer(make_tool(timeout=1.5), "print('seen 1')\nprint('seen 2')\nwhile True: pass")
    assert text == "seen 1\nseen 2\n[stopped: the time limit of 1.5 seconds was reached]"


async def test_fork_bomb(make_tool):
    code = """
        import os, time
        children = 0
        try:
            for _ in range(1000):
                if os.fork() == 0:
                    time.sleep(60); os._exit(0)
                children += 1
        except OSError as error:
            print(children, error)
    """
    text = await answer(make_tool(), textwrap.dedent(code))
    children, _, reason = text.partition(" ")
    assert 40 <= int(children) <= 64 and "temporarily unavailable" in reason
    assert await answer(make_tool(timeout=2), "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass")
    assert await answer(make_tool(), "print('still usable')") == "still usable\n"


async def test_daemon_that_holds_stdout_does_not_hold_the_call(make_tool):
    daemon = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(60)\n  os._exit(0)\n"
    started = time.monotonic()
    assert await answer(make_tool(), daemon + "print('main')") == "main\n"
    assert time.monotonic() - started < 40


async def test_ten_thousand_threads(make_tool):
    code = """
        import threading
        stop, threads = threading.Event(), []
        try:
            for _ in range(10_000):
                threads.append(threading.Thread(target=stop.wait)); threads[-1].start()
        except RuntimeError as error:
            print(error)
        stop.set()
        print(len(threads))
    """
    reason, count = (await answer(make_tool(), textwrap.dedent(code))).split("\n")[:2]
    assert reason == "can't start new thread" and 40 < int(count) <= 64


async def test_too_much_memory_is_an_exception_the_model_can_read(make_tool):
    text = await answer(make_tool(), "print('before')\nhog = bytearray(2_000_000_000)")
    assert text.startswith("before\nTraceback") and "MemoryError\n[exit code 1]" in text


async def test_out_of_memory_is_told_from_exit_codes(make_tool):
    hog = "import mmap\nm = mmap.mmap(-1, 2_000_000_000)\nfor i in range(0, len(m), 4096): m[i] = 1"
    small = Limits(memory=128 * MB, timeout=20)
    tool = make_tool(limits=small, timeout=None)
    assert await answer(tool, hog) == "[killed: out of memory, the limit is 128 MB]"
    child = f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', {hog!r}]).returncode)"
    assert await answer(tool, child) == "-9\n[a process was killed: out of memory, the limit is 128 MB]"
    assert await answer(tool, "import sys\nsys.exit(137)") == "[exit code 137, killed by signal 9]"
    assert await answer(tool, "import os\nos.kill(os.getpid(), 9)") == "[exit code 137, killed by signal 9]"
    assert await answer(tool, "import os\nos.kill(os.getpid(), 11)") == "[exit code 139, killed by signal 11]"


async def test_source_size(make_tool):
    text = await answer(make_tool(), "x = 1\n" * 250_000)
    assert text == "Error: the code has 1,500,000 bytes, but at most 256,000 can be run"
    assert await answer(make_tool(), "x = 1\n" * 40_000 + "print(x)") == "1\n"  # > 128 KB, the most that argv can carry


async def test_folders_are_bounded(make_tool):
    code = """
        for folder in ("/tmp", "/mnt/data", "/dev/shm"):
            n = 0
            try:
                with open(folder + "/fill", "wb", buffering=0) as out:
                    while True:
                        n += out.write(b"x" * 1_000_000)
            except OSError as error:
                print(folder, n, error.strerror)
    """
    lines = (await answer(make_tool(), textwrap.dedent(code))).splitlines()
    assert [line.split(" ", 2)[::2] for line in lines] == [
        [folder, "No space left on device"] for folder in ("/tmp", "/mnt/data", "/dev/shm")
    ]
    assert all(15 * MB < int(line.split()[1]) <= 64 * MB for line in lines)


async def test_hundred_megabytes_of_output_in_bounded_memory(engine):
    script = f"""
        import asyncio, json, resource
        from gpt_oss.tools.python_docker.docker_tool import PythonTool
        def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        async def main():
            tool = PythonTool(image={engine.image!r}, pool_size=0)
            await tool.execute("print('warm')")
            before = peak()
            result = await tool.execute("print('first')\\nfor i in range(100): print('x' * 999_999)\\nprint('last')")
            text = result.output
            print(json.dumps([before, peak(), result.omitted, text[:6], text[-5:], len(text)]))
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    before, after, omitted, head, tail, kept = json.loads(told)
    assert (head, tail) == ("first\n", "last\n")
    assert omitted == 100_000_000 + len("first\nlast\n") - Limits().output
    assert kept < Limits().output + 200
    assert after - before < 50 * MB


async def test_endless_output(make_tool, client):
    started = time.monotonic()
    text = await answer(make_tool(timeout=2), "import os\nwhile True: os.write(1, b'x' * 65536)")
    assert text.endswith("[stopped: the time limit of 2 seconds was reached]") and "left out" in text
    assert time.monotonic() - started < 40
    assert client.ping()  # an unread stream would block the engine's kill, inspect and remove


async def test_bytes_that_are_no_text(make_tool):
    code = (
        "import os, sys\nos.write(1, bytes(range(128, 132)) + b'\\n')\nprint('\\ud800')\nprint('é€😀', file=sys.stderr)"
    )
    assert await answer(make_tool(), code) == "\ufffd\ufffd\ufffd\ufffd\n\\ud800\né€😀\n"


async def test_large_writes_arrive_whole(make_tool):
    code = "import sys\nfor _ in range(20): sys.stdout.write('y' * 1_000_000)\nsys.stderr.write('z' * 1_000_000)"
    result = await make_tool().execute(code)
    assert result.omitted + Limits().output == 21_000_000


async def test_host_files_and_environment_are_absent(make_tool, monkeypatch, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    monkeypatch.setenv("GPT_OSS_TEST_SECRET", "secret")
    paths = [str(secret), "/etc/shadow", "/var/run/docker.sock", str(Path.cwd() / "gpt_oss"), "/dev/vda", "/dev/kmsg"]
    code = f"""
        import os
        for path in {paths}: print(os.path.exists(path))
        for path in ("/proc/kcore", "/proc/timer_list", "/proc/sysrq-trigger"):
            try: print(len(open(path, "rb").read(10)))
            except OSError as error: print(0)
        print("secret" in str(os.environ), open("/proc/1/environ").read().count("secret"))
        processes = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        print(processes[0], len(processes))
        print(os.getuid(), os.getgid())
    """
    lines = (await answer(make_tool(), textwrap.dedent(code))).splitlines()
    assert lines == ["False"] * 6 + ["0"] * 3 + ["False 0", "1 2", "65534 65534"]


async def test_privileged_calls_are_refused(make_tool):
    code = """
        import ctypes, errno, os
        libc = ctypes.CDLL(None, use_errno=True)
        def attempt(name, *arguments):
            ctypes.set_errno(0)
            told = "refused" if getattr(libc, name)(*arguments) == -1 else "ALLOWED"
            print(name, told, errno.errorcode.get(ctypes.get_errno()))
        attempt("chroot", b"/tmp")
        attempt("setuid", 0)
        attempt("mount", b"none", b"/tmp", b"tmpfs", 0, None)
        attempt("umount", b"/tmp")
        attempt("mknod", b"/tmp/node", 0o060600, 0xFE00)
        attempt("unshare", 0x10000000)
        attempt("setns", 0, 0)
        attempt("ptrace", 16, 1, 0, 0)
        attempt("process_vm_readv", 1, 0, 0, 0, 0, 0)
        attempt("keyctl", 0, 0, 0, 0) if hasattr(libc, "keyctl") else print("keyctl refused EPERM")
        attempt("syscall", 321, 0, 0, 0)  # bpf
        attempt("syscall", 425, 1, 0)  # io_uring_setup
        attempt("syscall", 298, 0, 0, 0, 0, 0)  # perf_event_open
        attempt("clone", 0, 0, 0x10000000, 0)
        attempt("sethostname", b"x", 1)
        print(open("/proc/self/status").read().split("CapEff:")[1].split()[0], end=" ")
        print(open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0])
    """
    *calls, status = (await answer(make_tool(), textwrap.dedent(code))).splitlines()
    assert len(calls) == 15
    assert [call for call in calls if call.split(" ", 1)[1] not in ("refused EPERM", "refused EINVAL")] == []
    assert status == "0000000000000000 1"


async def test_no_network(make_tool):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        name = f"\0gpt-oss-test-{os.getpid()}"
        abstract.bind(name)
        abstract.listen()
        code = f"""
            import socket
            def attempt(family, address):
                with socket.socket(family) as s:
                    s.settimeout(2)
                    try: s.connect(address); print("REACHED", address)
                    except OSError: print("no")
            attempt(socket.AF_INET, {tcp.getsockname()!r})
            attempt(socket.AF_INET, ("169.254.169.254", 80))
            attempt(socket.AF_INET, ("192.0.2.1", 80))
            attempt(socket.AF_UNIX, {name!r})
            try: print(socket.getaddrinfo("example.com", 80))
            except OSError: print("no")
        """
        assert await answer(make_tool(), textwrap.dedent(code)) == "no\n" * 5


async def test_socket_families(make_tool):
    code = """
        import socket
        allowed = []
        for family in range(1, 46):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
                try: socket.socket(family, kind).close(); allowed.append(family)
                except OSError: pass
        print(sorted(set(allowed)))
    """
    assert await answer(make_tool(), textwrap.dedent(code)) == "[1, 2, 10]\n"


async def test_only_the_two_folders_can_be_written(make_tool):
    code = """
        import os, subprocess
        for folder in ("/", "/etc", "/usr/local/bin", "/root", "/var", "/proc/sys/kernel", "/sys"):
            try: open(folder + "/x", "w"); print("WRITTEN", folder)
            except OSError: print("no")
        for folder in ("/tmp", "/mnt/data"):
            with open(folder + "/x", "w") as out: out.write("#!/bin/sh\\necho RUN\\n")
            os.chmod(folder + "/x", 0o755)
            try: subprocess.run([folder + "/x"])
            except PermissionError: print("not executable")
    """
    assert await answer(make_tool(), textwrap.dedent(code)) == "no\n" * 7 + "not executable\n" * 2


SILENT = r"\[warning: the code printed nothing; use print\(\) to see a value\]"
WAYS_TO_END = {  # code -> regular expression of the whole answer
    "input()": r"Traceback .*EOFError: EOF when reading a line\n\[exit code 1\]",
    "import sys\nsys.exit(7)": r"\[exit code 7\]",
    "import sys\nsys.exit('why')": r"why\n\[exit code 1\]",
    "raise SystemExit": SILENT,
    "print('a')\n1/0": r'a\nTraceback .*  File "<python>", line 2, in <module>\n    1/0\n.*Error: .*\n\[exit code 1\]',
    "def f(:\n  pass": r'  File "<python>", line 1\n    def f\(:\n *\^\nSyntaxError: .*\n\[exit code 1\]',
    "x = '\0'": r".*null bytes\n\[exit code 1\]",
    "x = '\\ud800'; print(len(x))": r"1\n",
    "import os\nprint('a'); os._exit(3)": r"a\n\[exit code 3\]",
    "import atexit\natexit.register(print, 'bye')\nprint('hi')": r"hi\nbye\n",
    "import threading\nthreading.Timer(0.2, print, ['late']).start()\nprint('early')": r"early\nlate\n",
    "import sys\nsys.stderr = None; sys.stdout.close()": r"\[.*\]",
    "import os\npid = os.fork()\nif pid: os.wait()\nprint(1)\nif pid: 1/0": r"1\n1\nTraceback .*\[exit code 1\]",
    "import sys\nsys.excepthook = lambda *_: print('hook')\n1/0": r"hook\n\[exit code 1\]",
    "import sys\nfor c in '12': print(c, end=''); sys.stderr.write(c)\nprint()": r"1122\n",
}


async def test_ways_to_end(make_tool):
    tool = make_tool()
    texts = await asyncio.gather(*(answer(tool, code) for code in WAYS_TO_END))
    pairs = zip(WAYS_TO_END, texts, strict=True)
    assert [(code, text) for code, text in pairs if not re.fullmatch(WAYS_TO_END[code], text, re.DOTALL)] == []


async def test_multiprocessing(make_tool):
    code = "from multiprocessing import Pool\ndef f(x): return x * x\nwith Pool(4) as p: print(p.map(f, range(5)))"
    assert await answer(make_tool(), code) == "[0, 1, 4, 9, 16]\n"


async def test_eight_calls_at_once(make_tool, client):
    tool = make_tool(pool_size=2)
    texts = await asyncio.gather(*(answer(tool, f"import time\ntime.sleep(0.3)\nprint({n} ** 5)") for n in range(8)))
    assert texts == [f"{n**5}\n" for n in range(8)]


async def test_a_call_does_not_block_the_event_loop(make_tool):
    tool = make_tool()
    gaps, last = [], time.monotonic()
    call = asyncio.ensure_future(answer(tool, "import time\ntime.sleep(1)\nprint('done')"))
    while not call.done():
        await asyncio.sleep(0.01)
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
    assert await call == "done\n"
    assert max(gaps) < 0.9 and len(gaps) > 20  # a loop that the call blocks stands still for its whole second


async def test_cancelling_the_task_ends_the_container(make_tool, client):
    call = asyncio.ensure_future(answer(make_tool(timeout=60), "while True: pass"))
    assert await asyncio.to_thread(wait_until, lambda: bool(containers(client)))
    await asyncio.sleep(0.5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(wait_until, lambda: not containers(client))


CLIENT = """
import asyncio, signal, sys
from gpt_oss.tools.python_docker.docker_tool import PythonTool
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with SIGINT ignored
async def main():
    tool = PythonTool(image=sys.argv[1], pool_size=3, timeout=600)
    for _ in range(3): await tool.execute("print(1)")
    session = PythonTool(image=sys.argv[1], execution_backend="docker_session", timeout=600)
    await session.execute("x = 1")
    busy = asyncio.ensure_future(tool.execute("import os\\nos.close(0)\\nwhile True: pass"))
    await asyncio.sleep(1)
    print("ready", flush=True)
    await busy
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_killed_client_leaves_nothing(engine, client, number):
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, engine.image], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        assert wait_until(lambda: len(containers(client)) >= 3)  # waiting, session, busy
        assert wait_until(lambda: len(runner_processes()) >= 6)
        process.send_signal(number)
        try:
            process.wait(60)
        finally:
            process.kill()
    assert wait_until(lambda: not containers(client)), "containers are left"
    assert wait_until(lambda: not runner_processes()), "processes are left"


def runner_processes() -> list[str]:
    """Processes anywhere on this machine that run our runner."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"The program inside the sandbox" in command:
            found.append(entry.name)
    return found
