"""Names of files in a patch -> paths that cannot leave the root. Pure: symbolic links are seen to later."""

import os
import re
from typing import Final

from gpt_oss.errors import DiffError

Path = tuple[str, ...]

_WINDOWS: Final = os.name == "nt"
_DEVICES: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\s*(\..*)?")


def path_below_root(name: str, *, windows: bool = _WINDOWS) -> Path:
    r"""Split `name` at `/` (on Windows also at `\`); raises DiffError unless it is a path below the root.

    Refused are absolute paths, `..`, and on Windows drives, streams (`a:b`), device names such as `NUL` and
    names ending in a dot or blank, which Windows would silently read as other names.
    """
    separated = name.replace("\\", "/") if windows else name
    parts = tuple(part for part in separated.split("/") if part not in ("", "."))
    if separated.startswith("/") or (windows and ":" in separated):
        raise DiffError(f"{name}: a path in a patch must be relative to the root, not absolute")
    if ".." in parts:
        raise DiffError(f"{name}: a path in a patch must not contain '..'")
    if not parts or separated.endswith("/"):
        raise DiffError(f"{name}: this names a folder, not a file")
    if windows and any(_DEVICES.fullmatch(part) or part[-1] in ". " for part in parts):
        raise DiffError(f"{name}: Windows reads this name as another one")
    return parts


def shown(path: Path) -> str:
    """Write `path` as patches and diffs do."""
    return "/".join(path)
