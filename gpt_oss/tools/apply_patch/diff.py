r"""What a patch changed, as a unified diff in git's form: `git apply` takes it, `git apply -R` takes it back.

Lines are split at `\n` only. A moved file is shown as a rename when nothing took its old place.
"""

import difflib
from collections.abc import Iterator, Sequence

from gpt_oss.tools.apply_patch.paths import Path, shown
from gpt_oss.tools.apply_patch.plan import Change

_CONTEXT = 3


def unified_diff(changes: Sequence[Change]) -> str:
    """Show `changes`; an empty string when there are none."""
    gone = {change.path: change for change in changes if change.after is None}
    moved = {change.path: gone.pop(change.like) for change in changes if _is_move(change) and change.like in gone}
    hidden = {source.path for source in moved.values()}
    return "".join(_file_diff(change, moved.get(change.path)) for change in changes if change.path not in hidden)


def _is_move(change: Change) -> bool:
    return change.before is None and change.like != change.path


def _file_diff(change: Change, source: Change | None) -> str:
    """Show one change; `source` is what became of the old place when the file has moved."""
    old, before = (source.path, source.before) if source else (change.path, change.before)
    old_name, new_name = _quoted("a/", old), _quoted("b/", change.path)
    head = f"diff --git {old_name} {new_name}\n"
    if source:
        head += f"rename from {_quoted('', old)}\nrename to {_quoted('', change.path)}\n"
    elif before is None:
        head += "new file mode 100644\n"
    elif change.after is None:
        head += "deleted file mode 100644\n"
    body = "".join(_hunks(_lines(before or ""), _lines(change.after or "")))
    if not body:
        return head
    old_name = "/dev/null" if before is None else _ended(old_name)
    new_name = "/dev/null" if change.after is None else _ended(new_name)
    return f"{head}--- {old_name}\n+++ {new_name}\n{body}"


def _quoted(prefix: str, path: Path) -> str:
    """Write a path as git does: in C's quotes if it has a quote, backslash or control character."""
    name = prefix + shown(path)
    if not any(character in '"\\' or character < " " or character == "\x7f" for character in name):
        return name
    return '"' + "".join(_escaped(character) for character in name) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return f"\\{ord(character):03o}" if character < " " or character == "\x7f" else character


def _ended(name: str) -> str:
    return name + "\t" if " " in name and not name.startswith('"') else name  # else `patch` stops at the blank


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last + "\n\\ No newline at end of file\n"] if last else [])


def _hunks(old: list[str], new: list[str]) -> Iterator[str]:
    """Compare; equal ends are set aside first, because SequenceMatcher is slow on long files."""
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    skipped = max(0, same - _CONTEXT)
    ends = zip(reversed(old[same:]), reversed(new[same:]), strict=False)
    tail = next((i for i, (a, b) in enumerate(ends) if a != b), min(len(old), len(new)) - same)
    cut = max(0, tail - _CONTEXT)
    old, new = old[skipped : len(old) - cut], new[skipped : len(new) - cut]
    for group in difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(_CONTEXT):
        (_, old_start, _, new_start, _), (_, _, old_stop, _, new_stop) = group[0], group[-1]
        old_range = _range(old_start + skipped, old_stop - old_start)
        yield f"@@ -{old_range} +{_range(new_start + skipped, new_stop - new_start)} @@\n"
        for tag, i, i_stop, j, j_stop in group:
            if tag == "equal":
                yield from (" " + line for line in old[i:i_stop])
            else:
                yield from ("-" + line for line in old[i:i_stop])
                yield from ("+" + line for line in new[j:j_stop])


def _range(start: int, count: int) -> str:
    if count == 1:
        return str(start + 1)
    return f"{start + 1 if count else start},{count}"
