"""Code in a bubblewrap sandbox: no container engine, about 20 ms per call, fail closed.

Isolation: all namespaces, the system's /usr read-only, tmpfs folders, no capabilities, the seccomp allow-list of
the containers (compiled by libseccomp), limits per process. What containers have and this has not: a bound on the
memory and the processor time of all processes together. Where any part is missing nothing is run.
"""

import ctypes
import ctypes.util
import functools
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, ClassVar, Final

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.backend import Backend
from gpt_oss.tools.python_docker.interpreter import Interpreter
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.pipes import PipeChannel
from gpt_oss.tools.python_docker.result import ExecutionResult
from gpt_oss.tools.python_docker.sandbox import WORK_FOLDER, environment, runner_arguments, seccomp_profile

INTERPRETER: Final = "/usr/bin/python3"
NOBODY: Final = 65534
PROBE_SECONDS: Final = 10
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_OPERATORS: Final = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class BwrapSandbox(Backend):
    """A fresh sandbox for each call."""

    stateful: ClassVar[bool] = False
    place: ClassVar[str] = "a sandbox of its own"
    network: ClassVar[str] = "There is no network."
    folder: ClassVar[str] = WORK_FOLDER

    def __init__(self, limits: Limits):
        super().__init__(limits)
        self._probed = False

    def execute(self, code: str, cancelled: threading.Event) -> ExecutionResult:
        """Run `code` in a fresh interpreter; raises ToolError where it cannot be isolated."""
        if not self._probed:
            self._probe()
        process = self._start(runner_arguments("script", self.limits))
        interpreter = Interpreter(PipeChannel(process), self.limits)
        try:
            result = interpreter.run(code, self._files, self.limits.timeout, cancelled)
        finally:
            interpreter.abandon()
        result.state_lost = False
        self._results = result.files
        return result

    def _probe(self) -> None:
        """Check once that the sandbox can be built here, as its failure later has no place to be told."""
        process = self._start(["-c", "pass"])
        try:
            _, told = process.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ToolError("Python cannot run: bwrap does not start here") from error
        if process.returncode:
            reason = " ".join(told.decode("utf-8", "replace").split())
            raise ToolError(f"Python cannot run: bwrap does not start here: {reason}")
        self._probed = True

    def _start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        program = shutil.which("bwrap")
        if program is None or not Path(INTERPRETER).exists():
            raise ToolError(f"Python cannot run: bwrap (package bubblewrap) or {INTERPRETER} is not installed")
        filter_fd = os.memfd_create("seccomp")
        try:
            os.write(filter_fd, seccomp_program())
            os.lseek(filter_fd, 0, os.SEEK_SET)
            return subprocess.Popen(
                [program, *bwrap_options(self.limits, filter_fd), INTERPRETER, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[filter_fd],
                env={},  # the first process shows the launcher's environment in /proc/1/environ
                cwd="/",
                **_as_nobody(),
            )
        finally:
            os.close(filter_fd)


def _as_nobody() -> dict[str, Any]:
    """Return options of Popen that give up root, as root's processes escape RLIMIT_NPROC."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}


def bwrap_options(limits: Limits, filter_fd: int) -> list[str]:
    """Return the command line of bwrap up to the program."""
    options = ["--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--as-pid-1"]
    options += ["--cap-drop", "ALL", "--seccomp", str(filter_fd), "--uid", str(NOBODY), "--gid", str(NOBODY)]
    options += ["--hostname", "sandbox", "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if Path(name).is_symlink():
            options += ["--symlink", os.readlink(name), name]
        elif Path(name).is_dir():
            options += ["--ro-bind", name, name]
    for folder in (WORK_FOLDER, "/tmp"):
        options += ["--size", str(limits.folder), "--tmpfs", folder]
    for name, value in {**environment(), "PATH": "/usr/bin:/bin"}.items():
        options += ["--setenv", name, value]
    return options


@functools.cache
def seccomp_program() -> bytes:
    """Compile seccomp.json for this machine; raises ToolError without libseccomp."""
    name = ctypes.util.find_library("seccomp")
    if name is None:
        raise ToolError("Python cannot run: bwrap needs the library libseccomp for its filter (package libseccomp2)")
    library = ctypes.CDLL(name, use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | 1)))
    try:
        profile = json.loads(seccomp_profile().read_text(encoding="utf-8"))
        for rule in profile["syscalls"]:
            for call in rule["names"]:
                _add_rule(library, context, call, rule)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


def _add_rule(library: ctypes.CDLL, context: ctypes.c_void_p, call: str, rule: dict[str, Any]) -> None:
    number = library.seccomp_syscall_resolve_name(call.encode())
    if number < 0:
        return  # this machine has no such system call
    action = _ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERRNO | rule.get("errnoRet", 1)
    if action == _ERRNO | 1:
        return  # what is not allowed is refused so anyway
    comparisons = [
        _Comparison(arg["index"], _OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0))
        for arg in rule.get("args", [])
    ]
    array = (_Comparison * max(1, len(comparisons)))(*comparisons)
    code = library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(comparisons), array)
    if code:
        raise ToolError(f"Python cannot run: libseccomp refuses the rule for {call} ({os.strerror(-code)})")


def _export(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    out = os.memfd_create("bpf")
    with os.fdopen(out, "rb") as file:
        if library.seccomp_export_bpf(context, out):
            raise ToolError("Python cannot run: libseccomp cannot compile the filter")
        return Path(f"/proc/self/fd/{file.fileno()}").read_bytes()
