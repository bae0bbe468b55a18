"""What one execution may use. Plain numbers: this module knows nothing of containers."""

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds of one execution (or of one session); sizes in bytes, times in seconds."""

    timeout: float = 60.0
    memory: int = 512 * MB
    cpus: float = 1.0
    processes: int = 64
    folder: int = 64 * MB  # of the work folder, and again of /tmp; both count as memory
    shared_memory: int = 16 * MB
    open_files: int = 1024
    source: int = 256_000  # compiling 1 MB of source needs more memory than a container has
    output: int = 32_000  # half from the beginning, half from the end
    files: int = 16 * MB  # all files that go in or come out with one call
    waiting: int = 600  # how long a started interpreter waits for its first code
    session: int = 6 * 3600  # how long a session lives
