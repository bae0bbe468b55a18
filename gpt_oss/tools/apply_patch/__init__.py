"""Apply the patches gpt-oss models write: parse -> plan -> apply, all of it or nothing.

    from gpt_oss.tools.apply_patch import apply_patch
    print(apply_patch(patch_text, root="my/project"))      # a unified diff of what has changed

`apply_patch.md` beside this file tells a model how to write such a patch. As a tool of a conversation it is
`gpt_oss.tools.apply_patch.tool.ApplyPatchTool`, on the command line `python -m gpt_oss.tools.apply_patch`.
"""

import os

from gpt_oss.errors import DiffError
from gpt_oss.tools.apply_patch.callbacks import Callbacks, OpenFunction, RemoveFunction, WriteFunction
from gpt_oss.tools.apply_patch.diff import unified_diff
from gpt_oss.tools.apply_patch.disk import Disk
from gpt_oss.tools.apply_patch.parse import parse_patch
from gpt_oss.tools.apply_patch.plan import plan_changes

__all__ = ["DiffError", "apply_patch"]


def apply_patch(
    text: str,
    root: str | os.PathLike[str] | None = None,
    open_fn: OpenFunction | None = None,
    write_fn: WriteFunction | None = None,
    remove_fn: RemoveFunction | None = None,
    *,
    dry_run: bool = False,
) -> str:
    """Apply the patch `text` to the files below `root` and return a unified diff of what has changed.

    Args:
        text: The patch, bare or in one of the accepted wrappers (`wrappers.py`).
        root: Folder to which all paths are relative; nothing outside it is read or written. Default: the
            current one.
        open_fn: Returns the text of a path; FileNotFoundError or KeyError says there is no such file.
        write_fn: Gives a path (new or not) a text.
        remove_fn: Removes a path. Functions that are left out work on disk.
        dry_run: Only say what would change.

    Returns:
        The diff in git's form, empty when nothing differs.

    Raises:
        DiffError: The patch cannot be read or applied, or a write failed; no file has changed.
    """
    sections = parse_patch(text)
    files: Disk | Callbacks = Disk(root if root is not None else os.curdir)
    if open_fn or write_fn or remove_fn:
        files = Callbacks(root, open_fn, write_fn, remove_fn)
    changes = plan_changes(sections, files.read)
    if not dry_run:
        files.write(changes)
    return unified_diff(changes)
