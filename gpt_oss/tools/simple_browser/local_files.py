"""The documents of a folder: which files belong, and each of them as a page.

Nothing outside the folder is ever read: paths are resolved first (`..`, symbolic links), then checked. Hidden
files and unknown suffixes do not belong.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpt_oss.tools.simple_browser.base import BackendError
from gpt_oss.tools.simple_browser.charsets import decode_page
from gpt_oss.tools.simple_browser.links import VIEW_SOURCE_PREFIX
from gpt_oss.tools.simple_browser.page_contents import (
    MAX_PAGE_BYTES,
    PageContents,
    process_html,
    process_markdown,
    process_text,
)

HTML_SUFFIXES = frozenset((".html", ".htm", ".xhtml"))
MARKDOWN_SUFFIXES = frozenset((".md", ".markdown"))
TEXT_SUFFIXES = frozenset((".txt", ".text", ".rst"))
SUFFIXES = HTML_SUFFIXES | MARKDOWN_SUFFIXES | TEXT_SUFFIXES


def documents(root: Path) -> Iterator[Path]:
    """Yield the resolved paths of all documents under the resolved `root`, each once, in a stable order."""
    seen = set()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            try:
                path = checked_path(root, Path(folder) / name)
            except BackendError:
                continue
            if path not in seen:
                seen.add(path)
                yield path


def checked_path(root: Path, path: Path) -> Path:
    """Resolve `path`; raises BackendError unless it is a document of `root` of a size that is read."""
    try:
        resolved = path.resolve(strict=True)
        status = resolved.stat()
        str(resolved).encode()
    except (OSError, ValueError, RuntimeError) as error:  # missing, forbidden, a loop; a name with NUL or no text
        raise BackendError(f"there is no document {path.name!r} in the local folder") from error
    inside = resolved.is_relative_to(root)
    parts = resolved.relative_to(root).parts if inside else ()
    if not inside or any(part.startswith(".") for part in parts) or resolved.suffix.lower() not in SUFFIXES:
        raise BackendError(f"{path.name!r} is no HTML, Markdown or text document of the local folder")
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_PAGE_BYTES:
        raise BackendError(f"{path.name!r} is no regular file of at most {MAX_PAGE_BYTES // 2**20} MB")
    return resolved


def path_of(root: Path, url: str) -> Path:
    """The document that `url` names: a file: URL, or a path from `root` (also if it starts with a slash)."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return checked_path(root, Path(unquote(parts.path)))
    if parts.scheme:
        raise BackendError(f"{url} is not in the local folder, and only its documents can be opened")
    return checked_path(root, root / url.lstrip("/"))


def read_page(path: Path, data: bytes, view_source: bool = False) -> PageContents:
    """Make a page of the file's bytes `data` according to its suffix; its URL is a file: URL."""
    suffix = path.suffix.lower()
    text = decode_page(data, None, suffix in HTML_SUFFIXES)
    if view_source:
        return process_text(text, VIEW_SOURCE_PREFIX + path.as_uri())
    if suffix in HTML_SUFFIXES:
        return process_html(text, path.as_uri(), display_urls=True)
    read = process_markdown if suffix in MARKDOWN_SUFFIXES else process_text
    return read(text, path.as_uri())
