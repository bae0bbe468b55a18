"""The three tools by themselves: no model, no torch. Run: python examples/tools_without_model.py

A message to a tool is what a model would write; here we write it. Python needs Docker or Podman; without one its
answer says how to get one.
"""

import asyncio
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from openai_harmony import Message, Role

from gpt_oss.tools.apply_patch import apply_patch
from gpt_oss.tools.python_docker.images import ProgressBar
from gpt_oss.tools.registry import build_tool
from gpt_oss.tools.simple_browser import SimpleBrowserTool
from gpt_oss.tools.simple_browser.backend import LocalBackend
from gpt_oss.tools.tool import Tool

PAGE = "# Tides\n\nThe moon pulls the sea; high tide comes about every twelve hours and 25 minutes.\n"
PATCH = """\
*** Begin Patch
*** Update File: tides.md
@@
-The moon pulls the sea; high tide comes about every twelve hours and 25 minutes.
+Moon and sun pull the sea; high tide comes about every twelve hours and 25 minutes.
*** End Patch
"""


async def show(tool: Tool, recipient: str, text: str) -> None:
    """Print what `tool` answers to one call."""
    call = Message.from_role_and_content(Role.ASSISTANT, text).with_recipient(recipient).with_channel("analysis")
    async for reply in tool.process(call):
        print(f"--- {recipient}\n{reply.content[0].text}")


async def main(folder: Path) -> None:
    """Search a folder, run some code, change a file."""
    (folder / "tides.md").write_text(PAGE)

    async with SimpleBrowserTool(backend=LocalBackend(folder)) as browser:
        await show(browser, "browser.search", '{"query": "moon tide"}')
        await show(browser, "browser.open", '{"id": 0}')

    with closing(ProgressBar(sys.stderr)) as progress:
        async with build_tool("python", progress=progress) as python:
            await show(python, "python", "print(12 * 60 + 25)")

    print(f"--- apply_patch\n{apply_patch(PATCH, root=folder)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(main(Path(temporary)))
