"""`PythonTool`: answers a model's message to `python` with what its code printed.

In goes a Harmony message with source (plain, fenced or in JSON), out comes one tool message with the output and
bracketed notes on whatever else the model must know: exit code, time limit, memory, figures. The work is done by
a `Backend`; this module words the tool's description from the backend's properties, keeps its blocking calls off
the event loop and hands files in and out.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from openai_harmony import Message, ToolNamespaceConfig

from gpt_oss.tools.python_docker.backend import Backend
from gpt_oss.tools.python_docker.choice import DEFAULT_BACKEND, Options, make_backend
from gpt_oss.tools.python_docker.code_text import extract_code
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.result import ExecutionResult, describe
from gpt_oss.tools.tool import Tool, message_text

if TYPE_CHECKING:
    from gpt_oss.tools.python_docker.images import Progress

T = TypeVar("T")

CONCURRENT_CALLS: Final = 32


class PythonTool(Tool):
    """The python tool. Its arguments:

    execution_backend: one of choice.BACKENDS. "docker": each call in a fresh container; "docker_session": one
        container with a living interpreter for the conversation; "bwrap": a fresh bubblewrap sandbox; the two
        dangerous ones run code unprotected, as the current user. None takes what the variable
        PYTHON_EXECUTION_BACKEND says, else "docker".
    timeout: seconds of wall-clock time for one call; None takes that of `limits`, which has all other bounds.
    image: for containers; None takes the newest local python:3.N-slim or pulls images.DEFAULT_IMAGE.
    runtime: for containers, the engine's runtime, such as "runsc" for gVisor.
    pool_size: stateless containers kept waiting after the first call, shared by equal tools of the process.
    progress: told about the download of an image, see images.Progress.
    local_jupyter_connection_file: a running kernel to use; None starts one.

    Raises ToolError for the name of a backend that does not exist; all else is found out at the first call.
    """

    def __init__(
        self,
        name: str = "python",
        *,
        execution_backend: str | None = None,
        timeout: float | None = None,
        limits: Limits | None = None,
        image: str | None = None,
        runtime: str | None = None,
        pool_size: int = 1,
        progress: "Progress | None" = None,
        local_jupyter_connection_file: str | None = None,
    ):
        limits = limits or Limits()
        if timeout is not None:
            limits = replace(limits, timeout=timeout)
        options = Options(limits, image, runtime, pool_size, progress, local_jupyter_connection_file)
        self._name = name
        self._backend = make_backend(execution_backend or backend_of_environment(), options)
        self._threads = ThreadPoolExecutor(CONCURRENT_CALLS, thread_name_prefix="python-tool")
        self.figures: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        """Name the model calls the tool by."""
        return self._name

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """Return what the system message tells the model; a message to the tool is plain source, no function."""
        return ToolNamespaceConfig(name=self.name, description=description(self.name, self._backend), tools=[])

    async def _process(self, message: Message) -> AsyncGenerator[Message, None]:
        result = await self.execute(message_text(message))
        yield self.reply(message, describe(result, self._backend.limits))

    async def execute(self, text: str) -> ExecutionResult:
        """Run the code in `text`; cancelling the task ends the execution. Raises ToolError.

        PNG images of the figures it drew are then in `figures` (name -> bytes) and in the result's `files`.
        """
        code = extract_code(text, self._backend.limits.source)
        cancelled = threading.Event()
        try:
            result = await self._in_thread(lambda: self._backend.execute(code, cancelled))
        except asyncio.CancelledError:
            cancelled.set()
            raise
        self.figures = {name: result.files[name] for name in result.figures}
        return result

    def put_files(self, files: Mapping[str, bytes]) -> None:
        """Place files (relative name -> content) where the code of every later call finds them; raises ToolError."""
        self._backend.put_files(files)

    async def fetch(self, name: str) -> bytes:
        """Content of a file that code of this conversation made: of a stateless tool, in its last call.

        Raises ToolError where there is none or it is larger than `limits.files`.
        """
        return await self._in_thread(lambda: self._backend.fetch(name))

    async def reset(self) -> None:
        """Forget variables and files of a session (files that were put in come back)."""
        await self._in_thread(self._backend.reset)

    async def close(self) -> None:
        """End the session, if there is one."""
        await self._in_thread(self._backend.close)

    async def _in_thread(self, action: Callable[[], T]) -> T:
        """Run blocking work elsewhere; a cancelled caller does not wait for it."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, action)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if nobody awaits it
        return await asyncio.shield(future)


def backend_of_environment() -> str:
    """Ask the registry, which alone reads the environment, what the user has chosen."""
    from gpt_oss.tools.registry import python_setting  # at the call: the registry imports this module

    return python_setting("PYTHON_EXECUTION_BACKEND") or DEFAULT_BACKEND


def description(name: str, backend: Backend) -> str:
    """Word what the model is told about the tool: every sentence follows from the backend's properties."""
    limits = backend.limits
    state = (
        "State is kept between calls: variables, imports and files stay, and the value of a last expression is "
        "shown as in a notebook. After a time-out the session starts anew, and you are told."
        if backend.stateful
        else "Nothing is kept between calls: every message must contain all the code it needs. Only what is "
        "printed is shown, so use print()."
    )
    return (
        "Run Python code as part of your reasoning. The user sees neither the code nor its output.\n\n"
        f"Send the source as a message to {name}. It runs in {backend.place}, and what it writes to stdout and "
        f"stderr comes back, at most {limits.output:,} bytes. {state} A call is stopped after {limits.timeout:g} "
        f"seconds. {backend.network} Files can be written in {backend.folder}."
    )
