"""`python -m gpt_oss.chat` with a model that says what a JSON file wrote down; run as a process by the tests.

    python -m tests.chat.scripted_chat SCRIPT.json [CHAT OPTIONS]

The file: {"replies": ["<|channel|>…", …]} and what else ScriptedGenerator takes, and "fails_after": the engine dies
after so many tokens. TEST_WITHOUT_LINE_EDITOR=1: as on a machine where prompt_toolkit is not installed.
"""

import json
import os
import sys
from pathlib import Path

from gpt_oss import chat
from gpt_oss.errors import GenerationError
from tests.helpers.harmony_text import ids
from tests.helpers.scripted import ScriptedGenerator

if __name__ == "__main__":
    if os.environ.get("TEST_WITHOUT_LINE_EDITOR"):
        sys.modules["prompt_toolkit"] = None  # type: ignore[assignment]
    script = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    replies = script.pop("replies")
    if (alive := script.pop("fails_after", None)) is not None:
        replies[-1] = [*ids(replies[-1])[:alive], GenerationError("the engine is gone")]
    sys.exit(chat.main(sys.argv[2:], load=lambda options: ScriptedGenerator(*replies, **script)))
