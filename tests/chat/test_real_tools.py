"""Whole conversations with real tools: once with scripted tokens, and once with the embedded model.

The scripted ones prove the wiring to the last character; the embedded model has to find its own way.
"""

import pytest
from openai_harmony import ToolDescription

from gpt_oss.harmony.agent import TurnOptions, run_turn
from gpt_oss.harmony.bridge import Bridge
from gpt_oss.harmony.events import Citation, MessageDone, ReasoningDelta, ToolCallFinished, ToolResult
from gpt_oss.harmony.prompt import conversation_start, developer_message, text_message
from gpt_oss.harmony.toolbox import tool_reply
from gpt_oss.tools.apply_patch.tool import ApplyPatchTool
from gpt_oss.tools.python_docker.docker_tool import PythonTool
from gpt_oss.tools.simple_browser import SimpleBrowserTool
from gpt_oss.tools.simple_browser.backend import LocalBackend
from tests.helpers.scripted import ScriptedGenerator

THINK = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>{}<|return|>"
WEATHER = ToolDescription.new(
    "get_weather",
    "Get the current weather for a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest.fixture(scope="session")
def demo_model():
    from gpt_oss.backends import load_generator

    with load_generator("torch", context_length=4096) as generator:
        yield generator


@pytest.fixture
def bridge():
    with Bridge() as bridge:
        yield bridge


def converse(bridge, generator, question, tools=(), *, effort="low", start=None, **arguments):
    """The events of one turn, greedy."""
    messages = [*(start or conversation_start(effort=effort, tools=tools)), text_message("user", question)]
    options = TurnOptions(temperature=0.0, max_tokens=1000, max_rounds=6)
    return messages, list(bridge.iterate(run_turn(messages, generator, tools, options=options, **arguments)))


def answer(events):
    """The text of the final message."""
    return next(
        e.text for e in reversed(events) if isinstance(e, MessageDone) and e.message.channel == "final"
    )


def results(events):
    return [event.text for event in events if isinstance(event, ToolResult)]


def check_python(bridge, generator, question, container_engine):
    tool = PythonTool(image=container_engine.image, pool_size=0, timeout=60)
    try:
        _, events = converse(bridge, generator, question, [tool])
    finally:
        bridge.run(tool.close())
    assert [text.strip() for text in results(events)] == ["56088"]
    assert "56088" in answer(events) and events[-1].reason == "stop"


def check_browser(bridge, generator, question, tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "bridge.md").write_text("# The old bridge\n\nThe old bridge is in Oxford.\n")
    (pages / "other.md").write_text("# The Stone Mill\n\nThe Stone Mill was built in 1873.\n")
    tool = SimpleBrowserTool(backend=LocalBackend(pages))
    try:
        _, events = converse(bridge, generator, question, [tool])
    finally:
        bridge.run(tool.close())
    assert len(results(events)) == 2 and "is in Oxford" in results(events)[1]
    (citation,) = [event for event in events if isinstance(event, Citation)]
    shown = answer(events)
    assert "Oxford" in shown and "【" not in shown
    assert citation.url.endswith("bridge.md") and citation.url in shown[citation.start : citation.end]


def check_apply_patch(bridge, generator, question, tmp_path):
    tool = ApplyPatchTool(tmp_path)
    _, events = converse(bridge, generator, question, [tool])
    assert "+++ b/notes.txt" in results(events)[0]
    assert (tmp_path / "notes.txt").read_text() == "hello\n"
    assert events[-1].reason == "stop" and answer(events)


def check_function(bridge, generator, question):
    start = [*conversation_start(effort="low"), developer_message(None, [WEATHER])]
    functions = {"functions.get_weather": "json"}
    messages, events = converse(bridge, generator, question, start=start, functions=functions)
    (call,) = [event for event in events if isinstance(event, ToolCallFinished)]
    assert (call.name, call.arguments.replace(" ", "")) == ("functions.get_weather", '{"city":"Paris"}')
    assert events[-1].reason == "tool_calls"
    messages += [*events[-1].messages, tool_reply("functions.get_weather", '{"weather": "sunny"}')]
    events = list(
        bridge.iterate(run_turn(messages, generator, functions=functions, options=TurnOptions(temperature=0)))
    )
    assert "sunny" in answer(events)


CALL_PYTHON = "<|channel|>analysis to=python code<|message|>print(123 * 456)<|call|>"
CALL_SEARCH = '<|channel|>analysis to=browser.search code<|message|>{"query": "old bridge"}<|call|>'
CALL_OPEN = '<|channel|>analysis to=browser.open code<|message|>{"id": 0}<|call|>'
CALL_PATCH = (
    "<|channel|>commentary to=functions.apply_patch <|constrain|>json<|message|>"
    '{"input": "*** Begin Patch\\n*** Add File: notes.txt\\n+hello\\n*** End Patch"}<|call|>'
)
CALL_WEATHER = (
    '<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>'
)


def test_scripted_python_in_a_container(bridge, container_engine):
    script = ScriptedGenerator(THINK + CALL_PYTHON, FINAL.format("It is 56088."))
    check_python(bridge, script, "123 * 456?", container_engine)


def test_scripted_browser_with_a_citation(bridge, tmp_path):
    script = ScriptedGenerator(CALL_SEARCH, CALL_OPEN, FINAL.format("In Oxford 【1†L2】."))
    check_browser(bridge, script, "Where is the old bridge?", tmp_path)


def test_scripted_apply_patch(bridge, tmp_path):
    check_apply_patch(
        bridge, ScriptedGenerator(CALL_PATCH, FINAL.format("Done.")), "Write notes.txt.", tmp_path
    )


def test_scripted_function(bridge):
    script = ScriptedGenerator(THINK + CALL_WEATHER, FINAL.format("It is sunny."))
    check_function(bridge, script, "What is the weather in Paris?")


def test_demo_plain(bridge, demo_model):
    _, events = converse(bridge, demo_model, "What is the capital of France?")
    assert "Paris" in answer(events) and events[-1].reason == "stop"


def test_demo_three_efforts(bridge, demo_model):
    lengths = []
    for effort in ("low", "medium", "high"):
        _, events = converse(bridge, demo_model, "What is the capital of France?", effort=effort)
        lengths.append(sum(len(event.text) for event in events if isinstance(event, ReasoningDelta)))
        assert "Paris" in answer(events)
    assert lengths[0] < lengths[1] < lengths[2]


def test_demo_python_in_a_container(bridge, demo_model, container_engine):
    check_python(bridge, demo_model, "Use python to compute 123 * 456.", container_engine)


def test_demo_browser_with_a_citation(bridge, demo_model, tmp_path):
    check_browser(bridge, demo_model, "Where is the old bridge?", tmp_path)


def test_demo_apply_patch(bridge, demo_model, tmp_path):
    check_apply_patch(bridge, demo_model, "Create a file notes.txt with the text hello", tmp_path)


def test_demo_function(bridge, demo_model):
    check_function(bridge, demo_model, "What is the weather in Paris?")
