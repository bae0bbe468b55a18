"""Sessions and their commands, without a terminal."""

import io
import json

import pytest

from gpt_oss.errors import RequestError
from gpt_oss.harmony.agent import TurnOptions
from gpt_oss.harmony.bridge import Bridge
from gpt_oss.harmony.prompt import message_text
from gpt_oss.terminal.commands import COMMANDS, Quit, is_command, run_slash_command
from gpt_oss.terminal.session import Session, Settings
from gpt_oss.terminal.view import TerminalView
from tests.helpers.harmony_text import shown
from tests.helpers.scripted import ScriptedGenerator, ScriptedTool

ANSWER = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"


@pytest.fixture
def make_session():
    with Bridge() as bridge:

        def make(*replies, **options):
            generator = ScriptedGenerator(*replies, **options)
            view = TerminalView(io.StringIO(), color=False, width=lambda: 80)
            tools = {"python": ScriptedTool("python", "1")}
            return Session(generator, tools, view, Settings(tools={"python": True}), TurnOptions(), bridge)

        yield make


def prompts(session):
    return [shown(list(request.prompt_tokens)) for request in session.generator.requests]


def test_turns_build_a_conversation(make_session):
    session = make_session(ANSWER, ANSWER)
    session.turn("One?")
    session.turn("Two?")
    assert [message_text(message) for message in session.history] == [
        "One?",
        "Hm.",
        "Yes.",
        "Two?",
        "Hm.",
        "Yes.",
    ]
    second = prompts(session)[1]
    assert (
        "Hm." not in second and second.count("Yes.") == 1 and second.endswith("Two?<|end|><|start|>assistant")
    )


def test_undo(make_session):
    session = make_session(ANSWER, ANSWER, ANSWER)
    session.turn("One?")
    session.turn("Two?")
    assert run_slash_command("/undo", session) == "undone: Two?"
    session.turn("Three?")
    assert "Two?" not in prompts(session)[2] and "One?" in prompts(session)[2]
    run_slash_command("/undo", session)
    run_slash_command("/undo", session)
    with pytest.raises(RequestError, match="nothing to undo"):
        run_slash_command("/undo", session)


def test_reset_keeps_settings(make_session):
    session = make_session(ANSWER, ANSWER)
    session.turn("One?")
    run_slash_command("/effort high", session)
    run_slash_command("/reset", session)
    session.turn("Two?")
    assert "One?" not in prompts(session)[1] and "Reasoning: high" in prompts(session)[1]


def test_system_and_tools(make_session):
    session = make_session(ANSWER, ANSWER)
    assert "namespace python" in run_slash_command("/system Be brief.", session)
    assert run_slash_command("/tools python off", session) == "tools: python (off)"
    session.turn("Hi")
    assert "Be brief." in prompts(session)[0] and "namespace python" not in prompts(session)[0]
    run_slash_command("/system none", session)
    run_slash_command("/tools python", session)
    session.turn("Hi")
    assert "Be brief." not in prompts(session)[1] and "namespace python" in prompts(session)[1]


def test_save_and_load(make_session, tmp_path):
    session = make_session(ANSWER, ANSWER)
    session.turn("漢字 🫠?")
    run_slash_command("/effort high", session)
    path = tmp_path / "talk.json"
    assert run_slash_command(f"/save {path}", session) == f"saved 3 messages to {path}"
    other = make_session(ANSWER)
    assert run_slash_command(f"/load {path}", other) == f"loaded 3 messages from {path}"
    assert other.history == session.history and other.settings.effort == "high"
    other.turn("And?")
    assert "漢字 🫠?" in prompts(other)[0]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "gpt-oss conversation 2"}', "\udcff",
     '{"format": "gpt-oss conversation 1", "messages": [{"role": "x"}]}',
     json.dumps({"format": "gpt-oss conversation 1", "effort": "huge", "instructions": None, "messages": []})],
)  # fmt: skip
def test_files_that_are_no_conversation(make_session, tmp_path, content):
    session = make_session(ANSWER)
    session.turn("One?")
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(RequestError, match=r"x\.json: "):
        run_slash_command(f"/load {path}", session)
    assert len(session.history) == 3, "the conversation is unchanged"


@pytest.mark.parametrize(
    "line, complaint",
    [
        ("/nonsense", "there is no command /nonsense"),
        ("/effort huge", "low, medium, high, got 'huge'"),
        ("/tools browser on", "there is no tool browser; there are python"),
        ("/tools python maybe", "on or off, not 'maybe'"),
        ("/save", "/save needs the name of a file"),
        ("/save /nowhere/x", "/nowhere/x: cannot be written"),
        ("/load /nowhere/x", "/nowhere/x: cannot be read"),
        ("/reasoning maybe", "on or off"),
    ],
)
def test_commands_that_cannot_be_used(make_session, line, complaint):
    with pytest.raises(RequestError, match=complaint):
        run_slash_command(line, make_session())


def test_help_names_every_command_and_quit_leaves(make_session):
    session = make_session()
    text = run_slash_command("/help", session)
    assert all(name in text for name in COMMANDS)
    with pytest.raises(Quit):
        run_slash_command("/quit", session)


def test_tokens_and_reasoning(make_session):
    session = make_session(ANSWER, context_length=1000)
    assert "of 1,000 tokens" in run_slash_command("/tokens", session)
    session.turn("Hi")
    text = run_slash_command("/tokens", session)
    assert "14 out (6 reasoning)" in text and "tokens/s" in text
    assert run_slash_command("/reasoning", session) == "Hm."


def test_a_message_may_begin_with_a_slash():
    assert is_command("/help") and not is_command("//etc") and not is_command("what is /etc?")


def test_a_request_that_cannot_run_leaves_the_conversation_alone(make_session):
    session = make_session(context_length=100)
    with pytest.raises(RequestError, match="the context holds 100"):
        session.turn("word " * 200)
    assert session.history == []
