"""Which image the code runs in, and its download with progress on first use.

Without a choice it is the newest `python:3.N-slim` that the engine already has, else DEFAULT_IMAGE is pulled, so a
machine that has one never waits for another. Progress is told to a callback; `ProgressBar` is one that draws.
"""

import logging
import re
from collections.abc import Callable
from typing import Final, TextIO

from docker import APIClient
from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from gpt_oss.errors import ToolError
from gpt_oss.tools.python_docker.limits import MB

log = logging.getLogger(__name__)

DEFAULT_IMAGE: Final = "python:3.12-slim"
_SLIM: Final = re.compile(r"(?:docker\.io/library/)?python:3\.(\d+)-slim")

Progress = Callable[[str, int, int], None]
"""Called while an image is pulled with its name, bytes downloaded and bytes known of (0 at first)."""


def ready_image(api: APIClient, image: str | None, progress: Progress | None) -> str:
    """Make sure that `image` (None: see the module) is there; returns its name. Raises ToolError."""
    if image is None:
        image = newest_slim_image(api) or DEFAULT_IMAGE
    try:
        api.inspect_image(image)
    except ImageNotFound:
        pull(api, image, progress)
    return image


def newest_slim_image(api: APIClient) -> str | None:
    """Name the local `python:3.N-slim` with the largest N."""
    tags = [tag for image in api.images() for tag in image.get("RepoTags") or []]
    slim = [(int(match[1]), tag) for tag in tags if (match := _SLIM.fullmatch(tag))]
    return max(slim)[1] if slim else None


def pull(api: APIClient, image: str, progress: Progress | None) -> None:
    """Download `image`; raises ToolError with the engine's reason."""
    log.info("pulling %s", image)
    repository, tag = _split(image)
    layers: dict[str, tuple[int, int]] = {}
    try:
        for event in api.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in event:
                raise ToolError(f"the image {image} could not be pulled: {_one_line(event['error'])}")
            _note(event, layers)
            if progress:
                progress(image, sum(done for done, _ in layers.values()), sum(size for _, size in layers.values()))
        api.inspect_image(image)
    except (DockerException, RequestException) as error:
        reason = error.explanation if isinstance(error, APIError) and error.explanation else error
        raise ToolError(f"the image {image} could not be pulled: {_one_line(str(reason))}") from error
    log.info("pulled %s", image)


def _note(event: dict[str, object], layers: dict[str, tuple[int, int]]) -> None:
    """Follow the bytes of each layer; a layer counts as downloaded in full once the engine says so."""
    layer, detail = str(event.get("id", "")), event.get("progressDetail")
    if event.get("status") == "Downloading" and isinstance(detail, dict) and detail.get("total"):
        layers[layer] = (int(detail.get("current", 0)), int(detail["total"]))
    elif event.get("status") in ("Download complete", "Pull complete") and layer in layers:
        layers[layer] = (layers[layer][1], layers[layer][1])


def _split(image: str) -> tuple[str, str | None]:
    """Split 'host:5000/name:tag' into repository and tag; a digest stays with the repository."""
    repository, colon, tag = image.rpartition(":")
    if "@" in image:
        return image, None
    return (repository, tag) if colon and "/" not in tag else (image, "latest")


def _one_line(text: str) -> str:
    return " ".join(text.split())


class ProgressBar:
    """A `Progress` that draws one line on a terminal: `python:3.12-slim [=====>    ]  21 of 45 MB`."""

    def __init__(self, stream: TextIO, width: int = 30):
        self._stream = stream
        self._width = width
        self._last = ""

    def __call__(self, image: str, done: int, total: int) -> None:
        """Draw the state if it looks different from what is drawn."""
        filled = self._width * done // total if total else 0
        bar = "=" * filled + ">" * (filled < self._width)
        line = f"{image} [{bar:{self._width}}] {done // MB:3d} of {total // MB} MB"
        if line != self._last:
            self._last = line
            self._stream.write(f"\r{line}")
            self._stream.flush()

    def close(self) -> None:
        """End the line, if one was begun."""
        if self._last:
            self._stream.write("\n")
            self._stream.flush()
            self._last = ""
