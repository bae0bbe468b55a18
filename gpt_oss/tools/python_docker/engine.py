"""A connection to Docker or Podman on which waiting interpreters are launched.

In go limits and an image; out come `Interpreter`s, each in a new hardened container. Every failure (no engine,
no image, a refusal) is a ToolError of one line that says what to do.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import docker
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker import container, reaper
from gpt_oss.tools.python_docker.images import Progress, ready_image
from gpt_oss.tools.python_docker.interpreter import Interpreter
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.sandbox import seccomp_profile

log = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 60
CONNECTIONS: Final = 64  # each running call holds one
_ADVICE: Final = "install and start Docker (https://docs.docker.com/engine/install) or Podman, then try again"


class Engine:
    """A container engine that answers; thread-safe."""

    def __init__(self, client: docker.DockerClient, limits: Limits, image: str, runtime: str | None = None):
        self.image = image
        self.limits = limits
        self._api = client.api
        self._runtime = runtime
        self._seccomp = seccomp_option(is_podman(client))

    @classmethod
    def connect(
        cls, limits: Limits, image: str | None = None, runtime: str | None = None, progress: Progress | None = None
    ) -> "Engine":
        """Reach the engine, reap leftovers of killed clients, pull the image if it is not there."""
        client = reach()
        with engine_errors():
            reaper.reap(client.api)
            return cls(client, limits, ready_image(client.api, image, progress), runtime)

    def launch(self, mode: str) -> Interpreter:
        """Start a container whose interpreter waits for code; `mode` is "script" or "session"."""
        with engine_errors():
            name, warnings = container.create(self._api, self.image, mode, self.limits, self._seccomp, self._runtime)
            for warning in warnings:
                log.warning("the container engine says: %s", warning)
            try:
                channel = container.ContainerChannel(self._api, name)
                self._api.start(name)
            except BaseException:  # KeyboardInterrupt too: nothing may be left behind
                reaper.remove(self._api, name)
                raise
            return Interpreter(channel, self.limits)


def reach() -> docker.DockerClient:
    """Connect as the docker command would, else to Podman's socket; raises ToolError where nothing answers."""
    options = {"timeout": REQUEST_SECONDS, "max_pool_size": CONNECTIONS}
    try:
        return docker.from_env(**options)
    except (DockerException, RequestException, OSError, ValueError) as error:
        for path in podman_sockets() if "DOCKER_HOST" not in os.environ else ():
            if path.is_socket():
                try:
                    return docker.DockerClient(base_url=f"unix://{path}", **options)
                except (DockerException, RequestException):
                    continue
        where = os.environ.get("DOCKER_HOST", "Docker's and Podman's sockets")
        raise ToolError(f"Python cannot run: no container engine answers at {where}; {_ADVICE}") from error


def podman_sockets() -> list[Path]:
    """Places where Podman listens: the user's own service, then the system's."""
    if os.name != "posix":
        return []
    return [Path(f"/run/user/{os.getuid()}/podman/podman.sock"), Path("/run/podman/podman.sock")]


def is_podman(client: docker.DockerClient) -> bool:
    """Whether the engine is Podman behind Docker's API."""
    return any("podman" in part.get("Name", "").lower() for part in client.version().get("Components", []))


def seccomp_option(podman: bool) -> str:
    """Return our profile as each engine wants it: Docker takes the JSON text, Podman the path of the file."""
    profile = seccomp_profile()
    return str(profile) if podman else profile.read_text(encoding="utf-8")


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn an engine's refusals and silence into a ToolError of one line."""
    try:
        yield
    except APIError as error:
        reason = " ".join(str(error.explanation or error).split())
        raise ToolError(f"Python cannot run: the container engine refused: {reason}") from error
    except (DockerException, RequestException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ToolError(f"Python cannot run: the container engine does not answer ({reason}); {_ADVICE}") from error
