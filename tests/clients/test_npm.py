"""openai, @openai/agents and the AI SDK (npm) against a live server: whole dialogues, streamed and not.

The dialogues are in the .mjs files beside this one; here is what the model says in them, and what has to come out.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.responses_api.replies import answer, call

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
HI, HELLO = answer("Hi!", "Greet."), answer("Hello.", "Greet.")
OSLO = call("get_weather", '{"location": "Oslo"}', "Look.")
ROME = call("get_weather", '{"location": "Rome"}', "Look.")
SUNNY, MILD = answer("Sunny.", "Good."), answer("Mild.", "Good.")
PERSON = answer('{"name": "Ada"}', "Think.")


@pytest.fixture
def dialogue(live, modules):
    """Run a script against a server that says these replies; gives what it found."""

    def run(script, *replies):
        command = ["node", str(HERE / script), live(*replies)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_openai(dialogue):
    assert dialogue("openai.mjs", HI, HELLO, OSLO, SUNNY, PERSON, answer("Chat.")) == {
        "plain": "Hi!",
        "events": ["response.created", "response.completed"],
        "streamed": "Hello.",
        "call": {"location": "Oslo"},
        "told": "Sunny.",
        "parsed": {"name": "Ada"},
        "stored": "Hi!",
        "items": ["hi"],
        "gone": 404,
        "wrong": ["BadRequestError", 400, "temperature"],
        "chat": "Chat.",
    }


def test_agents(dialogue):
    hand_over = call("transfer_to_spanish", "{}")
    assert dialogue("agents.mjs", OSLO, SUNNY, ROME, MILD, hand_over, answer("Hola."), PERSON) == {
        "called": "Sunny.",
        "heard": ["Oslo", "Rome"],
        "streamed": ["Mild.", "Mild."],
        "handed": ["Hola.", "spanish"],
        "person": {"name": "Ada"},
    }


def test_ai_sdk(dialogue):
    found = dialogue("ai_sdk.mjs", *[HI, HELLO, OSLO, SUNNY, PERSON] * 2)
    expected = {
        "plain": "Hi!",
        "tokens": True,
        "streamed": "Hello.",
        "called": ["sunny in Oslo", "Sunny."],
        "person": {"name": "Ada"},
    }
    # The provider for OpenAI shows summaries of reasoning only, and gpt-oss has none.
    assert found == {
        "openai": {**expected, "reasoning": ""},
        "openResponses": {**expected, "reasoning": "Greet."},
    }
