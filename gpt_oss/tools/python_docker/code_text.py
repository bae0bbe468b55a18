"""The Python source in what a model sent, however it was wrapped.

Models write to the python tool what they were trained to (plain source), but also `{"code": "…"}` and Markdown
fences. A wrapper is taken off only where the whole text is one; everything else is source as it stands.
"""

import json
import re
from typing import Final

from gpt_oss.errors import ToolError
from gpt_oss.tools.tool import encodable

CODE_KEYS: Final = ("code", "source", "script", "input")
_OPENING: Final = re.compile(r"(```+|~~~+)[ \t]*(?:python3?|py|ipython)?[ \t]*", re.IGNORECASE)


def extract_code(text: str, max_bytes: int) -> str:
    """Return the source in `text`; raises ToolError where there is none or more than `max_bytes` of it."""
    code = _without_fence(_from_json(text))
    if not code.strip():
        raise ToolError("there is no Python code in the message")
    size = len(encodable(code).encode())
    if size > max_bytes:
        raise ToolError(f"the code has {size:,} bytes, but at most {max_bytes:,} can be run")
    return code


def _from_json(text: str) -> str:
    """Take the source out of a JSON object with one string under a known key (a dict literal is no such object)."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        value = json.loads(text, strict=False)  # models put raw newlines into JSON strings
    except (ValueError, RecursionError):
        return text
    for key in CODE_KEYS:
        if isinstance(value, dict) and isinstance(value.get(key), str):
            return str(value[key])
    return text


def _without_fence(text: str) -> str:
    """Take off one fence around all of `text` (by hand: a pattern for it takes quadratic time on long blanks)."""
    first, _, rest = text.strip().partition("\n")
    opening = _OPENING.fullmatch(first)
    if not opening or not rest.endswith(opening[1]):
        return text
    body = rest.removesuffix(opening[1]).rstrip(" \t")
    if any(line.lstrip().startswith(opening[1]) for line in body.split("\n")):
        return text  # several blocks
    return body.removesuffix("\n")
