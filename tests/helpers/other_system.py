"""A stand-in for Windows: `strip()` takes from this process what only POSIX has, and forgets the package.

What other libraries have imported before stays with them; on Windows they bring their own ways.
"""

import importlib
import os
import pkgutil
import signal
import sys

POSIX_MODULES = (
    "crypt curses fcntl grp nis ossaudiodev posix posixshmem pty pwd readline resource spwd syslog termios tty"
)
POSIX_OS = (
    "O_CLOEXEC O_DIRECTORY O_DSYNC O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH O_SYNC chown chroot confstr ctermid fchdir "
    "fchmod fchown fdatasync fork forkpty fpathconf fstatvfs getegid geteuid getgid getgrouplist getgroups getloadavg "
    "getpgid getpgrp getpriority getresgid getresuid getsid getuid initgroups killpg lchown lockf major makedev "
    "minor mkfifo mknod nice openpty pathconf pipe2 pread preadv pwrite pwritev readv register_at_fork "
    "sched_getaffinity sched_setaffinity sched_yield sendfile setegid seteuid setgid setgroups setpgid setpriority "
    "setregid setresgid setresuid setreuid setsid setuid statvfs sync sysconf tcgetpgrp tcsetpgrp ttyname uname wait "
    "wait3 wait4 waitid writev"
)
POSIX_SIGNAL = (
    "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGUSR1 SIGUSR2 SIGWINCH "
    "alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigwait"
)
ELSEWHERE = (
    "gpt_oss.triton",  # Triton has no wheel for Windows or macOS
    "gpt_oss.metal.backend",  # has to be built first
    "gpt_oss.native.libgptoss_native",  # no module of Python's
    "gpt_oss.vllm",  # needs vLLM
    "gpt_oss.tools.python_docker.runner",  # runs inside the container, which is Linux
    "gpt_oss.engines.transformers",  # a second of imports of which nothing is ours
)


def modules() -> list[str]:
    """All modules of the package that another system can use."""
    import gpt_oss

    found = [module.name for module in pkgutil.walk_packages(gpt_oss.__path__, "gpt_oss.", onerror=lambda name: None)]
    return [name for name in found if not name.startswith(ELSEWHERE) and not name.endswith("__main__")]


def import_all() -> None:
    """Import them; raises what their import raises."""
    for name in modules():
        importlib.import_module(name)


def strip() -> None:
    """Become the other system."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "gpt_oss"]:
        del sys.modules[name]
    for name in POSIX_MODULES.split():
        sys.modules[name] = None  # type: ignore[assignment] - Python's own way to say that there is none
    for names, module in ((POSIX_OS, os), (POSIX_SIGNAL, signal)):
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    os.supports_dir_fd.clear()
