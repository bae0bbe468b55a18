"""apply_patch as a tool of a conversation: the function `apply_patch` of the namespace `functions`.

The model sends `{"input": "*** Begin Patch…"}` (or the bare patch, or any accepted wrapper) and gets back
the unified diff of what changed, or one sentence that lets it mend the patch.
"""

import asyncio
import os
from collections.abc import AsyncGenerator
from importlib.resources import files
from typing import Final

from openai_harmony import Message, ToolDescription, ToolNamespaceConfig

from gpt_oss.errors import ToolError
from gpt_oss.tools.apply_patch import apply_patch
from gpt_oss.tools.tool import Tool, message_text

DESCRIPTION: Final = "Add, delete, move or edit text files by a patch; answers with a unified diff of what changed."
_PARAMETERS: Final = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The patch, from *** Begin Patch to *** End Patch."}},
    "required": ["input"],
}


class ApplyPatchTool(Tool):
    """Patches files below `root` (None: the current folder); answers to `functions.apply_patch` and `apply_patch`.

    Raises ToolError where `root` is no folder.
    """

    name = "apply_patch"

    def __init__(self, root: str | os.PathLike[str] | None = None):
        if root is not None and not os.path.isdir(root):
            raise ToolError(f"{os.fspath(root)}: is no folder that files could be changed in")
        self._root = root

    @property
    def tool_config(self) -> ToolNamespaceConfig:
        """The namespace `functions` with this one function; it belongs into a developer message."""
        function = ToolDescription.new("apply_patch", DESCRIPTION, parameters=dict(_PARAMETERS))
        return ToolNamespaceConfig(name="functions", description=None, tools=[function])

    @property
    def instruction(self) -> str:
        """How to write a patch, for the developer message: the text of `apply_patch.md`."""
        return (files(__package__) / "apply_patch.md").read_text(encoding="utf-8")

    def accepts(self, recipient: str | None) -> bool:
        """Whether `recipient` is this function, with or without its namespace."""
        return recipient in ("apply_patch", "functions.apply_patch")

    async def _process(self, message: Message) -> AsyncGenerator[Message, None]:
        # In a thread: files may be on a slow disk, and nothing may block the event loop.
        diff = await asyncio.to_thread(apply_patch, message_text(message), self._root)
        yield self.reply(message, diff or "The patch applies, and changes nothing.\n")
