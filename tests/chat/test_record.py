"""The recorder of pictures, on a scripted session."""

import json
import sys
from xml.etree import ElementTree

from recipes.record_chat import COLORS, record


def test_a_session_becomes_a_picture(tmp_path):
    script = tmp_path / "script.json"
    thought = "<|channel|>analysis<|message|>A < B & C.<|end|><|start|>assistant"
    reply = thought + "<|channel|>final<|message|>Use `x < y`.<|return|>"
    script.write_text(json.dumps({"replies": [reply]}))
    command = [sys.executable, "-m", "tests.chat.scripted_chat", str(script)]
    picture = ElementTree.fromstring(record(command, ("Hello",), columns=60, seconds=60))
    texts = {
        element.text: element.get("fill") for element in picture.iter("{http://www.w3.org/2000/svg}text")
    }
    assert any(text.strip() == "Hello" or text.strip() == "> Hello" for text in texts)
    assert any("A < B & C." in text for text in texts)
    assert next(fill for text, fill in texts.items() if "x < y" in text) == COLORS["cyan"]
