"""The program inside the sandbox, given to `python3 -c` as text: runs code from stdin and reports.

Alone in its file because it travels: it imports the standard library only and runs on Python 3.8 and later.
The first process guards (it reads requests, watches for hang-up, reports); its child, forked before any
request so that it is warm, runs the code. Over the sandbox's three standard streams:

    stdin   requests: 4 bytes length (big endian), JSON {"id", "code", "files": [[name, size], …], "fetch": [name, …]},
            then the files' bytes. No "code": only files are exchanged. End of stdin ends the sandbox.
    stdout  what the code prints, stdout and stderr in the order they were written, then NUL id NUL
    stderr  one report per request, framed like a request: JSON {"exit", "oom", "alive", "figures", "files", "skipped"}

`argv`: mode ("script": one request, fresh process; "session": state is kept), seconds to live, bytes of memory,
work folder, and the most bytes of files in one report.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import linecache
import os
import resource
import select
import signal
import stat
import struct
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Iterable
from typing import Any

FRAME = struct.Struct(">I")
THREAD_STACK = 4 << 20  # many threads must fit under RLIMIT_DATA, which counts stacks in full
MAX_FILES = 100


def read_exactly(fd: int, size: int) -> bytes:
    """Read `size` bytes; fewer only at the end of the stream."""
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_frame(fd: int) -> dict[str, Any] | None:
    """Read one framed JSON object, or None at the end of the stream."""
    head = read_exactly(fd, FRAME.size)
    if len(head) < FRAME.size:
        return None
    size = FRAME.unpack(head)[0]
    body = read_exactly(fd, size)
    return json.loads(body) if len(body) == size else None


def write_frame(fd: int, value: object, blobs: Iterable[bytes] = ()) -> None:
    """Write one framed JSON object and the bytes that follow it."""
    body = json.dumps(value).encode()
    for data in (FRAME.pack(len(body)) + body, *blobs):
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]


# The child: runs the code.


def become_worker(requests: int, statuses: int, mode: str, memory: int, folder: str) -> int:
    """Run code until the requests end; in mode "script" the interpreter then ends as it always does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")  # plt.show() does no harm here
    limit = int(memory * 0.9)  # a MemoryError the model can read comes before the kernel's silent kill
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.stack_size(THREAD_STACK)
    share_one_stream()
    sys.argv = [""]
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module  # the real one, so that pickle (multiprocessing) finds what the code defines
    module.__dict__["__builtins__"] = __builtins__
    count, own_process = 0, os.getpid()
    while True:
        request = read_frame(requests)
        if request is None:
            return 0
        count += 1
        if mode == "script":
            exit_code = run(request["code"], "<python>", module.__dict__, echo=False)
        else:
            exit_code = run(request["code"], f"<cell {count}>", module.__dict__, echo=True)
        if os.getpid() != own_process:  # a fork that ran to the end of the code must not answer for us
            return exit_code
        figures = save_figures(folder)
        flush()
        write_frame(statuses, {"exit": exit_code, "figures": figures})
        if mode == "script":
            return exit_code


def share_one_stream() -> None:
    """Make stdout and stderr one stream, in the order of writing, that any bytes and any text can pass."""
    os.dup2(1, 2)
    if isinstance(sys.stdout, io.TextIOWrapper):  # which it is, unless the image's site module changes it
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    sys.stderr = sys.stdout  # one buffer keeps the order; `python -u` would lose parts of large writes


def run(source: str, name: str, namespace: dict[str, Any], echo: bool) -> int:
    """Run `source` in `namespace`, print a traceback as Python does, return the exit code."""
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    try:
        codes = compiled(source, name, echo)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        print_error(error.with_traceback(None))
        return 1
    try:
        for code in codes:
            exec(code, namespace)
    except SystemExit as error:
        return exit_code_of(error)
    except BaseException as error:  # whatever code raises: this is the top level of its interpreter
        print_error(error)
        return 1
    return 0


def compiled(source: str, name: str, echo: bool) -> list[types.CodeType]:
    """Compile `source`; with `echo` a last expression on its own is shown, as notebooks do."""
    tree = ast.parse(source, name)
    if not echo or not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return [compile(tree, name, "exec")]
    last = ast.Interactive([tree.body.pop()])
    return [compile(tree, name, "exec"), compile(last, name, "single")]


def exit_code_of(error: SystemExit) -> int:
    """Return the exit code that Python gives for this SystemExit; a text is printed and means 1."""
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def print_error(error: BaseException) -> None:
    """Print the traceback without the frames of this program."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals is globals():
        frames = frames.tb_next
    error = error.with_traceback(frames)
    try:
        if sys.excepthook is sys.__excepthook__:  # written in C, it does not find the source lines in linecache
            traceback.print_exception(type(error), error, frames)
        else:
            sys.excepthook(type(error), error, frames)
    except BaseException:  # a broken hook, or no memory left for source lines
        sys.stderr.write(f"{type(error).__name__}\n")


def save_figures(folder: str) -> list[str]:
    """Write every open matplotlib figure as a PNG into the work folder, close them, return the files' names."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    names: list[str] = []
    if pyplot is None:
        return names
    try:
        for number in pyplot.get_fignums():
            name = unused_name(folder)
            pyplot.figure(number).savefig(os.path.join(folder, name))
            names.append(name)
    except Exception as error:  # drawing runs the code's own callbacks
        print_error(error)
    finally:
        pyplot.close("all")
    return names


def unused_name(folder: str) -> str:
    """Return the first of figure-1.png, figure-2.png … that is not there."""
    number = 1
    while os.path.lexists(os.path.join(folder, f"figure-{number}.png")):
        number += 1
    return f"figure-{number}.png"


def flush() -> None:
    """Flush what was printed; code may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue


# The first process: reads requests, watches, reports.


def guard(mode: str, folder: str, max_bytes: int, worker: int, requests: int, statuses: int) -> None:
    """Serve requests until stdin ends or the worker has ended."""
    while True:
        request = read_frame(0)
        if request is None:
            return
        refused = write_files(folder, request["files"])
        before = list_files(folder)
        report = {"exit": 0, "oom": False, "alive": True, "figures": []}
        if request.get("code") is not None:
            kills = oom_kills()
            write_frame(requests, {"code": request["code"]})
            report.update(outcome(mode, worker, statuses))
            report["oom"] = oom_kills() > kills
        if mode == "script" or not report["alive"]:
            kill_all_others()
        wanted = request["fetch"] + report["figures"]
        if mode == "script":
            wanted += sorted(set(changed_files(folder, before)) - set(wanted))
        send_report(request["id"], report, folder, wanted, refused, max_bytes)
        if mode == "script" or not report["alive"]:
            return


def outcome(mode: str, worker: int, statuses: int) -> dict[str, Any]:
    """Wait until the code has ended, or its process; leave at once when the other side hangs up."""
    poll = select.poll()
    poll.register(0, 0)  # POLLHUP and POLLERR are always reported
    poll.register(statuses, select.POLLIN)
    status = None
    while True:
        for fd, _ in poll.poll(1 if status else 50):
            if fd == 0:
                os._exit(0)
            poll.unregister(statuses)
            status = read_frame(statuses)
            if mode == "session" and status is not None:
                return dict(status, alive=True)
        exit_code = exit_of_process(worker)
        if exit_code is not None:
            return {"exit": exit_code, "figures": (status or {}).get("figures", []), "alive": False}


def exit_of_process(worker: int) -> int | None:
    """Reap what has ended (orphans come to this process); the worker's exit code, 128 + n for signal n, or None."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == worker:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        if pid == 0:
            return None


def kill_all_others() -> None:
    """End what the code left running, where this process owns its whole process namespace."""
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)


def oom_kills() -> int:
    """Count the processes of this sandbox that the kernel has killed for want of memory (0 if it does not say)."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(path) as lines:
                fields = dict(line.split(None, 1) for line in lines)
            return int(fields.get("oom_kill", 0))
        except (OSError, ValueError):
            continue
    return 0


def write_files(folder: str, files: list[tuple[str, int]]) -> list[str]:
    """Write the files that follow a request; returns the names of those that could not be written."""
    refused = []
    for name, size in files:
        path = os.path.join(folder, name)
        data = read_exactly(0, size)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as out:
                out.write(data)
        except OSError:  # the folder is full, or the code has made something else of that name
            refused.append(name)
    return refused


def list_files(folder: str) -> dict[str, tuple[int, int]]:
    """List regular files under `folder` as relative name -> (size, mtime in ns)."""
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                found[os.path.relpath(path, folder)] = (status.st_size, status.st_mtime_ns)
    return found


def changed_files(folder: str, before: dict[str, tuple[int, int]]) -> list[str]:
    """Name the files that are new or different from `before`, at most MAX_FILES."""
    now = list_files(folder)
    return sorted(name for name in now if now[name] != before.get(name))[:MAX_FILES]


def send_report(
    identity: str, report: dict[str, Any], folder: str, wanted: list[str], skipped: list[str], max_bytes: int
) -> None:
    """End the output with the request's id, then send the report with the wanted files as far as they fit."""
    write_all(1, b"\0" + identity.encode() + b"\0")
    blobs: list[bytes] = []
    files: list[tuple[str, int]] = []
    left = max_bytes
    for name in wanted:
        data = read_file(os.path.join(folder, name), left)
        if data is None:
            skipped.append(name)
        else:
            left -= len(data)
            blobs.append(data)
            files.append((name, len(data)))
    write_frame(2, dict(report, files=files, skipped=skipped), blobs)


def read_file(path: str, max_bytes: int) -> bytes | None:
    """Read a regular file (no link) of at most `max_bytes`, or return None."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            return None
        return file.read(max_bytes)


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`."""
    while data:
        data = data[os.write(fd, data) :]


def start(mode: str, life: int, memory: int, folder: str, max_bytes: int) -> int:
    """Fork the worker and guard it; the return value ends the process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # the code must not be able to end its guard
    signal.signal(signal.SIGALRM, lambda *_: os._exit(124))  # the first process of a namespace needs a handler
    signal.alarm(life)
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    request_out, request_in = os.pipe()
    status_out, status_in = os.pipe()
    worker = os.fork()
    if worker:
        os.close(request_out)
        os.close(status_in)
        guard(mode, folder, max_bytes, worker, request_in, status_out)
        os._exit(0)  # what is left in the namespace ends with its first process
    os.close(request_in)
    os.close(status_out)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    return become_worker(request_out, status_in, mode, memory, folder)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
