"""What a link on a page points to: pure functions over URLs.

In: an `href` as written and the page's base URL; out: an absolute URL worth opening, or None.
"""

import re
from urllib.parse import unquote, urljoin, urlsplit

VIEW_SOURCE_PREFIX = "view-source:"
_BLANKS = re.compile(r"[\x00-\x20\x7f]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_HOST_AND_PORT = re.compile(r"[^/:]+:\d+(/|\Z)")


def link_target(href: str, base: str) -> str | None:
    """Resolve `href` against `base`; None for fragments of the same page and for what cannot be opened.

    Only http, https and (from a local page) file are opened; mailto, javascript, data and the like are not.
    """
    href = href.strip(" \t\r\n\f\x00")
    if not href or href.startswith("#"):
        return None
    try:
        target = urljoin(base, _BLANKS.sub("%20", href))
        parts = urlsplit(target)
    except ValueError:
        return None
    if parts.scheme in ("http", "https") and parts.hostname:
        return target
    return target if parts.scheme == "file" and base.startswith("file:") and parts.path else None


def domain_of(url: str) -> str:
    """Host (and port, if written) of `url` without user names; empty where there is none."""
    try:
        return urlsplit(url.removeprefix(VIEW_SOURCE_PREFIX)).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""


def without_fragment(url: str) -> str:
    """The URL of the document itself."""
    return url.partition("#")[0]


def absolute_url(text: str) -> str:
    """Read what a model gave as a URL: without a scheme, https is meant."""
    text = text.strip()
    if _SCHEME.match(text) and not _HOST_AND_PORT.match(text):
        return text
    return "https://" + text.lstrip("/")


def last_path_part(url: str) -> str:
    """Name of the document in `url`, decoded; empty for a folder."""
    return unquote(urlsplit(url).path.rpartition("/")[2])
