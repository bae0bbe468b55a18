"""Labels that say whose a container is and until when, and removal of those that nobody waits for any more.

A container goes away by itself in every case but one (the client was killed between create and start); this is
the net under that case and under engines that were restarted. Other users' containers carry no such label.
"""

import logging
import os
import time
from pathlib import Path
from typing import Final

from docker import APIClient
from docker.errors import APIError, DockerException
from requests.exceptions import RequestException

log = logging.getLogger(__name__)

LABEL: Final = "gpt-oss.python"
CLIENT_LABEL: Final = "gpt-oss.python.client"
EXPIRES_LABEL: Final = "gpt-oss.python.expires"
REMOVE_ATTEMPTS: Final = 6


def labels(life: float) -> dict[str, str]:
    """Labels of a container of this process that may live for `life` seconds."""
    return {LABEL: "1", CLIENT_LABEL: client_name(os.getpid()), EXPIRES_LABEL: str(int(time.time() + life))}


def client_name(pid: int) -> str:
    """Name a process so that it is never mistaken for another: boot, pid namespace, pid, start time ('' if gone)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
    return f"{boot} {namespace} {pid} {started}"


def abandoned(container_labels: dict[str, str], now: float) -> bool:
    """Whether a container with these labels has expired or its client, a process of this machine, is gone."""
    expires = container_labels.get(EXPIRES_LABEL, "0")
    if not expires.isdigit() or float(expires) < now:
        return True
    client = container_labels.get(CLIENT_LABEL, "").split()
    ours = client_name(os.getpid()).split()
    if len(client) != 4 or len(ours) != 4 or client[:2] != ours[:2]:
        return False
    return client_name(int(client[2])).split() != client


def reap(api: APIClient) -> int:
    """Remove abandoned containers of this tool; returns how many. Failures are logged: they concern no caller."""
    removed = 0
    try:
        for container in api.containers(all=True, filters={"label": LABEL}):
            if abandoned(container["Labels"], time.time()):
                removed += remove(api, container["Id"])
    except (DockerException, RequestException) as error:
        log.warning("could not look for leftover containers: %s", error)
    return removed


def remove(api: APIClient, container: str) -> bool:
    """Kill and remove one container; False where it was gone or going already."""
    for attempt in range(REMOVE_ATTEMPTS):
        try:
            api.remove_container(container, force=True, v=True)
            return True
        except APIError as error:
            if error.status_code in (404, 409):
                return False
            reason: Exception = error
        except (DockerException, RequestException) as error:
            reason = error
            break
        time.sleep(0.1 * attempt)  # Podman answers 500 "container state improper" while one is ending by itself
    log.warning("container %.12s could not be removed: %s", container, reason)
    return False
