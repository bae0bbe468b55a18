"""The base class: who is answered, on which channel, and what happens to everything that goes wrong."""

import json
from collections.abc import AsyncGenerator

import pytest
from openai_harmony import Author, Message, Role, TextContent

from gpt_oss.errors import ToolError
from gpt_oss.tools.tool import Parameter, Tool, message_text, read_arguments

PARAMETERS = {
    "text": Parameter((str,)),
    "count": Parameter((int,), default=1),
    "target": Parameter((int, str), default=-1),
    "loud": Parameter((bool,), default=False),
}


class Echo(Tool):
    """Repeats its argument; raises what it is told to."""

    name = "echo"

    def __init__(self) -> None:
        self.closed = 0
        self.finished = False

    async def _process(self, message: Message) -> AsyncGenerator[Message, None]:
        arguments = read_arguments(message_text(message), PARAMETERS, "echo.say")
        try:
            for _ in range(arguments["count"]):
                yield self.reply(message, arguments["text"])
            if arguments["text"] == "tool":
                raise ToolError("the line is dead")
            if arguments["text"] == "bug":
                raise ZeroDivisionError
        finally:
            self.finished = True

    async def close(self) -> None:
        self.closed += 1


def call(text: str, recipient: str | None = "echo.say", channel: str | None = "analysis") -> Message:
    return Message(
        author=Author(role=Role.ASSISTANT), content=[TextContent(text=text)], recipient=recipient, channel=channel
    )


async def replies(message: Message) -> list[Message]:
    return [reply async for reply in Echo().process(message)]


@pytest.mark.parametrize("channel", ["analysis", "commentary", None])
@pytest.mark.parametrize("recipient", ["echo", "echo.say"])
async def test_reply_comes_from_the_called_name_on_the_callers_channel(recipient: str, channel: str | None) -> None:
    first, second = await replies(call('{"text": "hi", "count": 2}', recipient, channel))
    assert first == second
    assert first.author == Author(role=Role.TOOL, name=recipient)
    assert (first.channel, first.recipient, message_text(first)) == (channel, "assistant", "hi")


@pytest.mark.parametrize("recipient", [None, "", "ech", "echoes", "other.say", "functions.echo"])
async def test_a_message_for_someone_else_is_answered_not_raised(recipient: str | None) -> None:
    (reply,) = await replies(call('{"text": "hi"}', recipient))
    assert reply.author.name == "echo"
    assert message_text(reply).startswith("Error: the tool echo does not answer to the name")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", "needs the argument 'text'; echo.say takes text, count, target, loud"),
        ("", "needs the argument 'text'"),
        ("hello", "not valid JSON"),
        ('{"text": "a"', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"count": ' + "9" * 10_000 + "}", "not valid JSON"),
        ("[1]", "must be a JSON object, not an array"),
        ("null", "must be a JSON object, not null"),
        ('{"text": "a", "q": 1}', 'has no argument "q"; echo.say takes text, count, target, loud'),
        ('{"text": null}', "echo.say(text) must be a string, not null (null)"),
        ('{"text": 5}', "must be a string, not an integer (5)"),
        ('{"text": "a", "count": "5"}', 'echo.say(count) must be an integer, not a string ("5")'),
        ('{"text": "a", "count": 1.5}', "must be an integer, not a number (1.5)"),
        ('{"text": "a", "count": true}', "must be an integer, not true or false (true)"),
        ('{"text": "a", "count": NaN}', "must be an integer"),
        ('{"text": "a", "target": []}', "must be an integer or a string, not an array ([])"),
        ('{"text": "a", "loud": 0}', "must be true or false, not an integer (0)"),
        (json.dumps({"text": {"x": "y" * 1000}}), "must be a string, not an object"),
        (json.dumps({"k\n" * 500: 1}), "has no argument"),
        ('{"text": "tool"}', "the line is dead"),
    ],
)
async def test_what_does_not_fit_is_one_line(text: str, complaint: str) -> None:
    reply = message_text((await replies(call(text)))[-1])
    assert reply.startswith("Error: ")
    assert complaint in reply
    assert "\n" not in reply
    assert len(reply) < 300


async def test_bugs_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await replies(call('{"text": "bug"}'))


def test_arguments_get_defaults_and_whole_floats_are_integers() -> None:
    assert read_arguments('{"text": "a", "count": 3.0}', PARAMETERS, "f") == {
        "text": "a",
        "count": 3,
        "target": -1,
        "loud": False,
    }
    assert read_arguments('{"text": "", "target": "3", "loud": true}', PARAMETERS, "f")["target"] == "3"
    assert type(read_arguments('{"text": "", "count": 3.0}', PARAMETERS, "f")["count"]) is int


async def test_half_surrogate_pairs_never_reach_an_encoder() -> None:
    (reply,) = await replies(call(r'{"text": "a\ud800 \ud83d\ude00"}'))
    assert message_text(reply) == "a\ufffd \U0001f600"


async def test_closing_the_iterator_early_ends_the_work() -> None:
    tool = Echo()
    running = tool.process(call('{"text": "a", "count": 5}'))
    await anext(aiter(running))
    await running.aclose()
    assert tool.finished


async def test_context_manager_closes() -> None:
    async with Echo() as tool:
        assert tool.closed == 0
    assert tool.closed == 1


def test_message_text_joins_all_parts() -> None:
    message = call("a").adding_content("b")
    assert message_text(message) == "ab"


def test_instruction_is_empty_without_a_config() -> None:
    assert Echo().instruction == ""
    assert Echo().tool_config is None
