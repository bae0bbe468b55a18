"""The browser's backends by name: everything a caller needs to choose and build one."""

from collections.abc import Callable
from typing import Any, Final

from gpt_oss.tools.simple_browser.base import Backend, BackendError
from gpt_oss.tools.simple_browser.links import VIEW_SOURCE_PREFIX
from gpt_oss.tools.simple_browser.local import LocalBackend
from gpt_oss.tools.simple_browser.providers import ExaBackend, SearxngBackend, YouComBackend

__all__ = [
    "BACKENDS",
    "VIEW_SOURCE_PREFIX",
    "Backend",
    "BackendError",
    "ExaBackend",
    "LocalBackend",
    "SearxngBackend",
    "YouComBackend",
    "make_backend",
]

BACKENDS: Final[dict[str, Callable[..., Backend]]] = {
    "youcom": YouComBackend,
    "exa": ExaBackend,
    "searxng": SearxngBackend,
    "local": LocalBackend,
}


def make_backend(name: str, **options: Any) -> Backend:
    """Build the backend called `name` with its constructor's `options`; BackendError names the known ones."""
    if name not in BACKENDS:
        raise BackendError(f"there is no browser backend {name!r}; known are {', '.join(BACKENDS)}")
    return BACKENDS[name](**options)
