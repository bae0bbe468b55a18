"""apply_patch as the model calls it in a conversation."""

import json

import pytest
from openai_harmony import DeveloperContent, Message, Role

from gpt_oss.tools.apply_patch.parse import parse_patch
from gpt_oss.tools.apply_patch.tool import ApplyPatchTool
from gpt_oss.tools.tool import message_text
from tests.helpers.trees import harvest, patch, plant

PATCH = patch("*** Update File: a", "-1", "+2")


async def call(tool: ApplyPatchTool, text: str, recipient: str = "functions.apply_patch") -> Message:
    message = Message.from_role_and_content(Role.ASSISTANT, text).with_recipient(recipient)
    (reply,) = [reply async for reply in tool.process(message.with_channel("commentary"))]
    return reply


@pytest.mark.parametrize("text", [PATCH, json.dumps({"input": PATCH}), json.dumps({"cmd": ["apply_patch", PATCH]})])
@pytest.mark.parametrize("recipient", ["functions.apply_patch", "apply_patch"])
async def test_answers_with_the_diff(tmp_path, text: str, recipient: str) -> None:
    reply = await call(ApplyPatchTool(plant(tmp_path, {"a": "1\n"})), text, recipient)
    assert message_text(reply) == "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-1\n+2\n"
    assert (reply.author.role, reply.author.name) == (Role.TOOL, recipient)
    assert (reply.channel, reply.recipient) == ("commentary", "assistant")
    assert harvest(tmp_path) == {"a": "2\n"}


async def test_answers_with_what_did_not_fit(tmp_path) -> None:
    tool = ApplyPatchTool(plant(tmp_path, {"a": "one\n"}))
    for text in (PATCH, "", "{", '{"input": 7}', patch("*** Add File: ../b", "+x")):
        reply = message_text(await call(tool, text))
        assert reply.startswith("Error: ")
        assert "\n" not in reply
    assert harvest(tmp_path) == {"a": "one\n"}


async def test_says_when_nothing_changed(tmp_path) -> None:
    tool = ApplyPatchTool(plant(tmp_path, {"a": "1\n"}))
    assert "changes nothing" in message_text(await call(tool, patch("*** Update File: a", " 1")))


def test_instructions_and_function_fit_a_developer_message() -> None:
    tool = ApplyPatchTool()
    content = DeveloperContent.new().with_instructions(tool.instruction).with_tools(tool.tool_config)
    assert content.tools is not None
    (function,) = content.tools["functions"].tools
    assert (function.name, function.parameters["required"]) == ("apply_patch", ["input"])


def test_the_example_of_the_instructions_is_a_patch() -> None:
    example = ApplyPatchTool().instruction.split("```")[1]
    assert [type(section).__name__ for section in parse_patch(example)] == [
        "AddFile",
        "UpdateFile",
        "UpdateFile",
        "DeleteFile",
    ]
