"""From the name of a backend to the backend; each is imported only when it is chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.backend import Backend
from gpt_oss.tools.python_docker.limits import Limits

if TYPE_CHECKING:
    from gpt_oss.tools.python_docker.images import Progress

DEFAULT_BACKEND: Final = "docker"


@dataclass(frozen=True)
class Options:
    """What backends can be told; see PythonTool for the fields. Each takes what concerns it."""

    limits: Limits
    image: str | None = None
    runtime: str | None = None
    pool_size: int = 1
    progress: "Progress | None" = None
    jupyter_connection_file: str | None = None


def make_backend(name: str, options: Options) -> Backend:
    """Make the backend called `name`; raises ToolError that lists the known names."""
    if name not in BACKENDS:
        known = ", ".join(BACKENDS)
        raise ToolError(f"there is no way to run Python called {name!r} (PYTHON_EXECUTION_BACKEND); known are {known}")
    return BACKENDS[name](options)


def _docker(options: Options) -> Backend:
    from gpt_oss.tools.python_docker.containers import StatelessContainers

    return StatelessContainers(options)


def _docker_session(options: Options) -> Backend:
    from gpt_oss.tools.python_docker.containers import ContainerSession

    return ContainerSession(options)


def _bwrap(options: Options) -> Backend:
    from gpt_oss.tools.python_docker.bwrap import BwrapSandbox

    return BwrapSandbox(options.limits)


def _uv(options: Options) -> Backend:
    from gpt_oss.tools.python_docker.uv import UvProcess

    return UvProcess(options.limits)


def _jupyter(options: Options) -> Backend:
    from gpt_oss.tools.python_docker.jupyter import LocalJupyter

    return LocalJupyter(options.limits, options.jupyter_connection_file)


BACKENDS: Final[dict[str, Callable[[Options], Backend]]] = {
    "docker": _docker,
    "docker_session": _docker_session,
    "bwrap": _bwrap,
    "dangerously_use_uv": _uv,
    "dangerously_use_local_jupyter": _jupyter,
}
