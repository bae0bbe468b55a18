"""The clothes a patch may come in, taken off: JSON, a shell command with a here-document, a Markdown fence.

In goes whatever the model sent, out comes the text from `*** Begin Patch` on. Models learned several ways
of calling this tool, among them `{"input": …}`, `{"patch": …}`, `{"cmd": ["apply_patch", …]}` and
`apply_patch <<'EOF'`; wrappers may be nested. What the patch itself says is not looked at here.
"""

import json
import re
from typing import Any, Final

from gpt_oss.errors import DiffError

_HERE_DOCUMENT: Final = re.compile(r"(?:apply_patch|applypatch)?\s*<<-?\s*(['\"]?)(\w+)\1\s*")
_SHELLS: Final = frozenset({"bash", "sh", "zsh"})
_DEEPEST: Final = 5


def unwrap(text: str) -> str:
    """Take all wrappers off `text`; raises DiffError when one is not closed or not understood."""
    for _ in range(_DEEPEST):
        text = text.removeprefix("\ufeff").strip()
        if text[:1] in ("{", "[", '"'):
            text = _from_json(text)
        elif text.startswith("```"):
            text = _without_frame(text, closing="```", what="Markdown fence")
        elif opening := _HERE_DOCUMENT.fullmatch(text.partition("\n")[0]):
            text = _without_frame(text, closing=opening[2], what="here-document")
        else:
            return text
    raise DiffError(f"the patch is wrapped more than {_DEEPEST} times; send it as it is")


def _without_frame(text: str, closing: str, what: str) -> str:
    _, _, body = text.partition("\n")
    body, _, last = body.rpartition("\n")
    if last.strip() != closing:
        raise DiffError(f"the {what} around the patch is not closed: its last line must be {closing!r}")
    return body


def _from_json(text: str) -> str:
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise DiffError(f"the patch looks like JSON, but it cannot be read as JSON: {error}") from error
    if isinstance(value, dict):
        if len(value) != 1:
            raise DiffError(f'the JSON around a patch has one key, as in {{"input": "…"}}, not {len(value)}')
        (value,) = value.values()
    if isinstance(value, list):
        value = _from_command(value)
    if not isinstance(value, str):
        raise DiffError("the JSON around a patch must hold the patch as a string")
    return value


def _from_command(words: list[Any]) -> Any:
    if len(words) == 2 and words[0] in ("apply_patch", "applypatch"):
        return words[1]
    if len(words) == 3 and words[0] in _SHELLS and words[1] in ("-c", "-lc"):
        return words[2]
    raise DiffError('a command around a patch must be ["apply_patch", "*** Begin Patch…"]')
