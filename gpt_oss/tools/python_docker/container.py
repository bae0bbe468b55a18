"""One hardened container: its options, and the attached stream as a `Channel`.

Facts about engines that shaped it: docker-py's time-outs do not reach a hijacked stream, so its socket is read
here; an unread stream blocks kill, inspect and remove of its container, so hanging up comes first; put_archive
works with neither a read-only root nor a tmpfs, so code and files go in over stdin.
"""

import socket
import ssl
import struct
from contextlib import suppress
from typing import Any, Final

from docker import APIClient
from docker.types import LogConfig, Ulimit

from gpt_oss.tools.python_docker import reaper
from gpt_oss.tools.python_docker.interpreter import ChannelClosed
from gpt_oss.tools.python_docker.limits import Limits
from gpt_oss.tools.python_docker.sandbox import WORK_FOLDER, environment, life_seconds, runner_arguments

NOBODY: Final = "65534:65534"
RECEIVE_BYTES: Final = 1 << 16
_STREAM_HEADER: Final = struct.Struct(">BxxxI")


def create(
    api: APIClient, image: str, mode: str, limits: Limits, seccomp: str, runtime: str | None
) -> tuple[str, list[str]]:
    """Create (not start) a container for `mode`; returns its id and the engine's warnings."""
    life = life_seconds(mode, limits)
    answer = api.create_container(
        image,
        entrypoint=["python3", *runner_arguments(mode, limits)],
        hostname="sandbox",
        user=NOBODY,
        stdin_open=True,  # docker-py then sets StdinOnce: when we hang up, the runner's stdin ends
        network_disabled=True,
        environment=environment(),
        labels=reaper.labels(life + limits.timeout),
        host_config=_host_config(api, limits, seccomp, runtime),
        use_config_proxy=False,  # ~/.docker/config.json may hold proxies with passwords
    )
    return answer["Id"], answer.get("Warnings") or []


def _host_config(api: APIClient, limits: Limits, seccomp: str, runtime: str | None) -> dict[str, Any]:
    folder = f"size={limits.folder},mode=1777,noexec,nosuid,nodev"
    return api.create_host_config(
        network_mode="none",
        read_only=True,
        tmpfs={WORK_FOLDER: folder, "/tmp": folder},
        shm_size=limits.shared_memory,
        ipc_mode="private",  # not "none": multiprocessing needs /dev/shm
        mem_limit=limits.memory,
        memswap_limit=limits.memory,
        nano_cpus=int(limits.cpus * 1e9),
        pids_limit=limits.processes,
        ulimits=[
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
            Ulimit(name="nproc", soft=4096, hard=4096),  # counts all of nobody's processes; pids_limit bounds ours
        ],
        cap_drop=["ALL"],
        security_opt=["no-new-privileges", f"seccomp={seccomp}"],
        log_config=LogConfig(type="none"),  # 100 MB of output would be 100 MB of the host's disk
        auto_remove=True,
        runtime=runtime,
    )


class ContainerChannel:
    """The attached stream of one container; see `interpreter.Channel`."""

    def __init__(self, api: APIClient, container: str):
        self._api = api
        self._container = container
        streams = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        self._stream = api.attach_socket(container, params=streams)
        # docker-py gives a SocketIO for plain connections, for others what already is a socket
        self._socket: socket.socket = getattr(self._stream, "_sock", self._stream)
        self._buffer = bytearray()
        self._piece = (0, 0)  # stream number and bytes left of the frame that is being received

    def send(self, data: bytes, timeout: float) -> None:
        """Write all of `data`; raises ChannelClosed or TimeoutError."""
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(data)
        except TimeoutError:
            raise
        except OSError as error:
            raise ChannelClosed from error

    def receive(self, timeout: float) -> tuple[int, bytes] | None:
        """Next piece of output, or None after `timeout` seconds; raises ChannelClosed."""
        while (piece := self._take()) is None:
            try:
                self._socket.settimeout(timeout)
                data = self._socket.recv(RECEIVE_BYTES)
            except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
                return None
            except OSError as error:
                raise ChannelClosed from error
            if not data:
                raise ChannelClosed
            self._buffer += data
        return piece

    def _take(self) -> tuple[int, bytes] | None:
        """Cut the next piece out of what was received: frames have 8 bytes of header and any length."""
        stream, left = self._piece
        if not left:
            if len(self._buffer) < _STREAM_HEADER.size:
                return None
            stream, left = _STREAM_HEADER.unpack_from(self._buffer)
            del self._buffer[: _STREAM_HEADER.size]
        data = bytes(self._buffer[:left])
        del self._buffer[:left]
        self._piece = (stream, left - len(data))
        return (stream, data) if data else None

    def abandon(self) -> None:
        """Hang up, kill, remove."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            self._stream.close()
        reaper.remove(self._api, self._container)
