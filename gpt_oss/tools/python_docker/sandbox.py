"""What all sandboxes share: the runner's command line, the environment of the code, the filter of system calls."""

from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from gpt_oss.tools.python_docker.limits import Limits

WORK_FOLDER: Final = "/mnt/data"  # the folder the models know from their training


def runner_arguments(mode: str, limits: Limits, folder: str = WORK_FOLDER) -> list[str]:
    """Arguments after `python3` that make it an interpreter waiting for code; see runner.py."""
    source = resources.files(__package__).joinpath("runner.py").read_text(encoding="utf-8")
    return ["-c", source, mode, str(life_seconds(mode, limits)), str(limits.memory), folder, str(limits.files)]


def life_seconds(mode: str, limits: Limits) -> int:
    """Return the longest that a sandbox for `mode` ("script" or "session") can be of use."""
    return int(limits.session if mode == "session" else limits.waiting + limits.timeout) + 1


def environment() -> dict[str, str]:
    """All that the code sees of an environment, beside the image's own; one thread, as there is one cpu."""
    return {
        "HOME": WORK_FOLDER,
        "LANG": "C.UTF-8",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": "/tmp",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def seccomp_profile() -> Traversable:
    """Return the file with the allow-list of system calls, in the format of Docker and Podman."""
    return resources.files(__package__).joinpath("seccomp.json")
