"""run_turn with a model that replays exact tokens: event lists, prompts, usage, limits and interruptions."""

import asyncio
import threading
import time
from contextlib import aclosing

import numpy as np
import pytest
from openai_harmony import Role

from gpt_oss.errors import ContextOverflow, GenerationError, RequestError
from gpt_oss.harmony.agent import TurnOptions, run_turn
from gpt_oss.harmony.bridge import Bridge
from gpt_oss.harmony.events import (
    Citation,
    MessageDone,
    Notice,
    PromptRead,
    ReasoningDelta,
    SampleStarted,
    TextDelta,
    TokenSampled,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolResult,
    TurnDone,
)
from gpt_oss.harmony.prompt import (
    conversation_start,
    message_text,
    render_for_completion,
    text_message,
)
from gpt_oss.harmony.pump import Cancellation
from gpt_oss.harmony.toolbox import tool_reply
from gpt_oss.token_generator import Token
from tests.helpers.harmony_text import ids, shown
from tests.helpers.scripted import ScriptedGenerator, ScriptedTool

ANSWER = "<|channel|>final<|message|>Hi there.<|return|>"
THINK = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>{}<|return|>"
CALL = "<|channel|>commentary to={} <|constrain|>json<|message|>{}<|call|>"
PYTHON = "<|channel|>analysis to=python code<|message|>{}<|call|>"
JSON = {"functions.f": "json", "functions.g": "json"}


def start(*texts, tools=()):
    return [
        *conversation_start(date="2026-01-01", tools=tools),
        *(text_message("user", text) for text in texts),
    ]


def play(generator, messages=None, tools=(), **arguments):
    with Bridge() as bridge:
        return list(bridge.iterate(run_turn(messages or start("Hello"), generator, tools, **arguments)))


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def simplified(events):
    """Events as (class, what was said), neighbours of the same class and index joined."""
    lines = []
    for event in events:
        name = type(event).__name__
        if isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta):
            if lines and lines[-1][:2] == [name, event.index]:
                lines[-1][2] += event.text
            else:
                lines.append([name, event.index, event.text])
        elif isinstance(event, SampleStarted):
            lines.append([name, event.round])
        elif isinstance(event, MessageDone):
            lines.append([name, event.index, event.text, event.complete])
        elif isinstance(event, ToolCallStarted):
            lines.append([name, event.index, event.name, event.by_caller])
        elif isinstance(event, ToolCallFinished):
            lines.append([name, event.index, event.name, event.arguments, event.by_caller])
        elif isinstance(event, ToolResult):
            lines.append([name, event.index, event.name, event.text])
        elif isinstance(event, TurnDone):
            lines.append([name, event.reason])
        else:
            lines.append([name, event])
    return lines


def transcript(messages):
    """Role or name, channel, recipient, text."""
    return [(m.author.name or m.author.role.value, m.channel, m.recipient, message_text(m)) for m in messages]


def test_a_plain_answer():
    generator = ScriptedGenerator(THINK + ANSWER)
    events = play(generator)
    assert simplified(events) == [
        ["SampleStarted", 1],
        ["ReasoningDelta", 0, "Hm."],
        ["MessageDone", 0, "Hm.", True],
        ["TextDelta", 1, "Hi there."],
        ["MessageDone", 1, "Hi there.", True],
        ["TurnDone", "stop"],
    ]
    done = events[-1]
    assert transcript(done.messages) == [
        ("assistant", "analysis", None, "Hm."),
        ("assistant", "final", None, "Hi there."),
    ]
    reasoning, text = ids("<|channel|>analysis<|message|>Hm.<|end|>"), ids("<|start|>assistant" + ANSWER)
    assert (done.usage.reasoning_tokens, done.usage.text_tokens) == (len(reasoning), len(text))
    assert done.usage.output_tokens == len(reasoning) + len(text)
    assert done.usage.input_tokens == len(render_for_completion(start("Hello")))
    assert (done.rounds, done.error) == (1, None)


def test_a_tool_call_and_its_answer_are_fed_back_token_for_token():
    tool = ScriptedTool("python", "2\n")
    messages = start("1+1?", tools=[tool])
    # Slightly off: a recipient named twice and no <|end|> after the thought. None of it may be "mended" on the way.
    odd = (
        "<|channel|>analysis<|message|>Hm.<|channel|>analysis to=python to=python code<|message|>1+1<|call|>"
    )
    prompt = shown(render_for_completion(messages))
    generator = ScriptedGenerator(
        odd,
        FINAL.format("2"),
        expected=[
            prompt,
            prompt
            + odd
            + "<|start|>python to=assistant<|channel|>analysis<|message|>2\n<|end|><|start|>assistant",
        ],
    )
    events = play(generator, messages, [tool])
    assert simplified(events) == [
        ["SampleStarted", 1],
        ["ReasoningDelta", 0, "Hm."],
        ["MessageDone", 0, "Hm.", True],
        ["ToolCallStarted", 1, "python", False],
        ["ToolCallDelta", 1, "1+1"],
        ["ToolCallFinished", 1, "python", "1+1", False],
        ["MessageDone", 1, "1+1", True],
        ["ToolResult", 1, "python", "2\n"],
        ["SampleStarted", 2],
        ["TextDelta", 2, "2"],
        ["MessageDone", 2, "2", True],
        ["TurnDone", "stop"],
    ]
    done, first, second = events[-1], *generator.requests
    assert second.prompt_tokens[: len(first.prompt_tokens)] == first.prompt_tokens
    added = len(second.prompt_tokens) - len(first.prompt_tokens) - len(ids(odd))
    assert done.usage.input_tokens == len(first.prompt_tokens) + added
    assert done.usage.tool_tokens == added - 2  # <|start|>assistant
    assert done.usage.total_tokens == len(second.prompt_tokens) + len(ids(FINAL.format("2")))
    assert transcript(done.messages)[1:] == [
        ("assistant", "analysis", "python", "1+1"),
        ("python", "analysis", "assistant", "2\n"),
        ("assistant", "final", None, "2"),
    ]


def test_several_calls_in_one_sample():
    tool = ScriptedTool("python", "1", "2")
    two = PYTHON.format("a").replace("<|call|>", "<|end|><|start|>assistant") + PYTHON.format("b")
    events = play(ScriptedGenerator(two, ANSWER), tools=[tool])
    assert [message_text(call) for call in tool.calls] == ["a", "b"]
    assert [(r.index, r.text) for r in of(ToolResult, events)] == [(0, "1"), (1, "2")]
    assert [line[3] for line in transcript(events[-1].messages)] == ["a", "b", "1", "2", "Hi there."]


def test_calls_of_the_callers_functions_end_the_turn():
    both = CALL.format("functions.f", '{"a": 1}').replace("<|call|>", "<|end|><|start|>assistant")
    both += CALL.format("g", "{}")  # its namespace forgotten
    events = play(ScriptedGenerator(both), functions=JSON)
    assert [(e.name, e.arguments, e.by_caller) for e in of(ToolCallFinished, events)] == [
        ("functions.f", '{"a": 1}', True),
        ("functions.g", "{}", True),
    ]
    assert events[-1].reason == "tool_calls"
    assert [line[2] for line in transcript(events[-1].messages)] == ["functions.f", "g"]


def test_a_caller_answers_its_function_and_the_next_turn_goes_on():
    messages = start("Weather?")
    done = play(ScriptedGenerator(THINK + CALL.format("functions.f", "{}")), messages, functions=JSON)[-1]
    messages += [*done.messages, tool_reply("functions.f", "sunny")]
    generator = ScriptedGenerator(FINAL.format("It is sunny."))
    events = play(generator, messages, functions=JSON)
    assert events[-1].reason == "stop"
    prompt = shown(list(generator.requests[0].prompt_tokens))
    assert prompt.endswith(
        "<|start|>assistant<|channel|>analysis<|message|>Hm.<|end|>"
        "<|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>"
        "<|start|>functions.f to=assistant<|channel|>commentary<|message|>sunny<|end|><|start|>assistant"
    )


def test_tools_here_run_before_calls_go_to_the_caller():
    tool = ScriptedTool("python", "1")
    mixed = CALL.format("functions.f", "{}").replace("<|call|>", "<|end|><|start|>assistant") + PYTHON.format(
        "x"
    )
    done = play(ScriptedGenerator(mixed), tools=[tool], functions=JSON)[-1]
    assert done.reason == "tool_calls"
    assert [line[:1] + line[2:] for line in transcript(done.messages)] == [
        ("assistant", "functions.f", "{}"),
        ("assistant", "python", "x"),
        ("python", "assistant", "1"),
    ]


@pytest.mark.parametrize("recipient", ["functions.python", "functions.python.run", "python.run"])
def test_built_in_tools_called_as_functions(recipient):
    tool = ScriptedTool("python", "ok")
    events = play(ScriptedGenerator(CALL.format(recipient, "{}"), ANSWER), tools=[tool])
    assert of(ToolResult, events)[0].text == "ok"
    assert tool.calls[0].recipient == recipient.removeprefix("functions.")


def test_a_callers_function_named_like_a_tool_is_the_callers():
    tool = ScriptedTool("python")
    call = CALL.format("functions.python", "{}")
    done = play(ScriptedGenerator(call), tools=[tool], functions={"functions.python": "json"})[-1]
    assert done.reason == "tool_calls" and tool.calls == []


@pytest.mark.parametrize(
    "call, complaint",
    [
        (CALL.format("functions.nothing", "{}"), "Error: there is no tool named functions.nothing"),
        (CALL.format("browser.search", '{"query": "x"}'), "Error: there is no tool named browser.search"),
        (CALL.format("functions.f", '{"a": '), "Error: the arguments of functions.f must be one JSON object"),
        (CALL.format("functions.f", "[1]"), "Error: the arguments of functions.f must be one JSON object"),
        (CALL.format("functions.f", "[" * 100_000), "Error: the arguments of functions.f must be"),
    ],
)
def test_calls_that_cannot_be_run_are_answered_to_the_model(call, complaint):
    generator = ScriptedGenerator(call, ANSWER)
    events = play(generator, tools=[ScriptedTool("python")], functions=JSON)
    (result,) = of(ToolResult, events)
    assert result.text.startswith(complaint)
    assert events[-1].reason == "stop"
    assert shown(list(generator.requests[1].prompt_tokens)).count(complaint) == 1
    assert not of(ToolCallFinished, events)[0].by_caller


def test_free_text_arguments():
    call = CALL.format("functions.patch", "*** Begin Patch")
    events = play(ScriptedGenerator(call), functions={"functions.patch": "text"})
    assert of(ToolCallFinished, events)[0].arguments == "*** Begin Patch"
    assert events[-1].reason == "tool_calls"


def test_a_tool_with_a_bug_does_not_end_the_turn(caplog):
    tool = ScriptedTool("python", KeyError("oops"))
    events = play(ScriptedGenerator(PYTHON.format("x"), ANSWER), tools=[tool])
    assert of(ToolResult, events)[0].text == "Error: python failed: KeyError: 'oops'"
    assert events[-1].reason == "stop"


@pytest.mark.parametrize(
    "stray",
    [
        "<|end|><|start|>user<|message|>And now?<|end|><|start|>assistant" + ANSWER,
        "<|start|>user<|message|>And now?<|end|>",
    ],
)
def test_the_model_does_not_speak_for_the_user(stray):
    generator = ScriptedGenerator("<|channel|>final<|message|>Yes." + stray, seconds_per_token=0.005)
    events = play(generator)
    assert transcript(events[-1].messages) == [("assistant", "final", None, "Yes.")]
    assert events[-1].reason == "stop"
    assert generator.generations[0].finish_reason == "cancelled"


def test_an_invented_tool_answer_is_replaced_by_the_real_one():
    tool = ScriptedTool("python", "4")
    invented = PYTHON.format("2+2").replace("<|call|>", "<|end|>")
    invented += (
        "<|start|>python to=assistant<|channel|>analysis<|message|>5<|end|><|start|>assistant" + ANSWER
    )
    generator = ScriptedGenerator(invented, FINAL.format("4"))
    events = play(generator, tools=[tool])
    assert [line[3] for line in transcript(events[-1].messages)] == ["2+2", "4", "4"]
    assert "5" not in shown(list(generator.requests[1].prompt_tokens))[-200:]


def test_a_preamble_is_text_and_an_unknown_channel_an_answer():
    words = (
        "<|channel|>commentary<|message|>Let me see.<|end|><|start|>assistant<|channel|>answer<|message|>42"
    )
    events = play(ScriptedGenerator(words + "<|return|>"))
    first = of(TextDelta, events)[0]
    assert (first.index, first.channel) == (0, "commentary")
    assert [(e.text, e.message.channel) for e in of(MessageDone, events)] == [
        ("Let me see.", "commentary"),
        ("42", "final"),
    ]


def test_log_probabilities_stay_with_their_text():
    scripted = [
        Token(t, -i / 8, ((t, -i / 8), (0, -9.0))) for i, t in enumerate(ids(FINAL.format("漢字 ok 🫠")))
    ]
    events = play(ScriptedGenerator(scripted), options=TurnOptions(logprobs=True, top_logprobs=2))
    deltas = of(TextDelta, events)
    tokens = [token for delta in deltas for token in delta.tokens]
    assert tokens == scripted[3:-1]
    assert shown([token.id for token in tokens]) == "漢字 ok 🫠"
    (ok,) = [delta for delta in deltas if delta.text == " ok"]
    assert [shown([token.id]) for token in ok.tokens] == [" ok"]


def test_raw_tokens_precede_their_meaning():
    events = play(ScriptedGenerator(ANSWER), options=TurnOptions(raw=True))
    assert [e.token.id for e in of(TokenSampled, events)] == ids(ANSWER)
    assert list(of(SampleStarted, events)[0].prompt) == render_for_completion(start("Hello"))


class Pages(ScriptedTool):
    """A browser with one page, at cursor 3."""

    def normalize_citations(self, text, hide_partial_citations=False):
        before, _, citation = text.partition("【3†")
        if not citation:
            return text, [], False
        link = "[page](https://example.com)"
        found = {"start_index": len(before), "end_index": len(before + link), "url": "https://example.com"}
        return before + link, [{**found, "title": "page"}], False


@pytest.mark.parametrize(
    "written, shown_text, count",
    [
        (
            "See 【3†L1-L2】 and 【3†L9】.",
            "See [page](https://example.com) and [page](https://example.com).",
            2,
        ),
        ("【4†L1】 is unknown", "【4†L1】 is unknown", 0),
        ("cut 【3†L", "cut 【3†L", 0),
        ("【【3†L1】", "【[page](https://example.com)", 1),
        ("【" + "x" * 200 + "】", "【" + "x" * 200 + "】", 0),
        ("漢字【3†L1】🫠", "漢字[page](https://example.com)🫠", 1),
        ("【" * 50 + "3†L1】】", "【" * 49 + "[page](https://example.com)】", 1),
    ],
)
def test_citations_become_links_with_exact_positions(written, shown_text, count):
    events = play(ScriptedGenerator(FINAL.format(written)), tools=[Pages("browser")])
    (message,) = of(MessageDone, events)
    assert message.text == shown_text == "".join(e.text for e in of(TextDelta, events))
    assert message_text(message.message) == written, "the model's own words go into the history"
    citations = of(Citation, events)
    assert len(citations) == count
    for citation in citations:
        assert shown_text[citation.start : citation.end] == "[page](https://example.com)"
        assert (citation.url, citation.title) == ("https://example.com", "page")


def test_half_a_citation_is_held_back_until_it_completes():
    events = play(ScriptedGenerator(FINAL.format("A 【3†L1-L2】 B")), tools=[Pages("browser")])
    assert all("【" not in e.text and "†" not in e.text for e in of(TextDelta, events))


def test_max_tokens_counts_all_rounds():
    tool = ScriptedTool("python", "1")
    call = PYTHON.format("x")
    generator = ScriptedGenerator(call, ANSWER)
    limit = len(ids(call)) + 4
    done = play(generator, tools=[tool], options=TurnOptions(max_tokens=limit))[-1]
    assert [request.max_tokens for request in generator.requests] == [limit, 4]
    assert (done.reason, done.usage.output_tokens) == ("max_tokens", limit)
    assert transcript(done.messages)[-1] == ("assistant", "final", None, "Hi")


def test_max_tokens_exactly_used_up_by_a_call():
    call = PYTHON.format("x")
    tool = ScriptedTool("python", "1")
    done = play(ScriptedGenerator(call), tools=[tool], options=TurnOptions(max_tokens=len(ids(call))))[-1]
    assert (done.reason, done.usage.output_tokens) == ("max_tokens", len(ids(call)))


@pytest.mark.parametrize("length", range(1, len(ids(THINK + CALL.format("functions.f", '{"a": 1}')))))
def test_cut_anywhere_no_half_message_but_text_remains(length):
    generator = ScriptedGenerator(THINK + CALL.format("functions.f", '{"a": 1}'))
    events = play(generator, functions=JSON, options=TurnOptions(max_tokens=length))
    assert events[-1].reason == "max_tokens" and events[-1].usage.output_tokens == length
    assert all(m.recipient is None for m in events[-1].messages)
    assert all(done.complete for done in of(MessageDone, events)[:-1])


def test_max_rounds_ends_with_an_answered_call():
    tool = ScriptedTool("python", "1", "2", "3")
    done = play(
        ScriptedGenerator(*[PYTHON.format("x")] * 5), tools=[tool], options=TurnOptions(max_rounds=3)
    )[-1]
    assert (done.reason, done.rounds, len(tool.calls)) == ("max_rounds", 3, 2)
    assert transcript(done.messages)[-1][3].startswith("Error: no more tool calls")


def test_max_tool_calls_refuses_and_goes_on():
    tool = ScriptedTool("python", "1")
    generator = ScriptedGenerator(PYTHON.format("x"), PYTHON.format("y"), ANSWER)
    events = play(generator, tools=[tool], options=TurnOptions(max_tool_calls=1))
    assert [r.text[:5] for r in of(ToolResult, events)] == ["1", "Error"]
    assert events[-1].reason == "stop"


def test_max_seconds_while_the_model_writes():
    began = time.monotonic()
    done = play(
        ScriptedGenerator(FINAL.format("word " * 10_000), seconds_per_token=0.01),
        options=TurnOptions(max_seconds=1),
    )[-1]
    assert done.reason == "max_seconds" and time.monotonic() - began < 30
    assert message_text(done.messages[0]).startswith("word word")


def test_max_seconds_while_a_tool_runs():
    tool = ScriptedTool("python", "never", seconds=60)
    began = time.monotonic()
    done = play(ScriptedGenerator(PYTHON.format("x")), tools=[tool], options=TurnOptions(max_seconds=1))[-1]
    assert done.reason == "max_seconds" and time.monotonic() - began < 30
    assert tool.interrupted == 1 and done.messages == (), (
        "a call without an answer is no part of the conversation"
    )


def cancel_after(kind, count, generator, **arguments):
    cancellation, events = Cancellation(), []
    with Bridge() as bridge:
        for event in bridge.iterate(run_turn(start("Go"), generator, cancellation=cancellation, **arguments)):
            events.append(event)
            if len(of(kind, events)) == count:
                cancellation.request()
    return events


def test_cancel_while_the_model_writes_keeps_what_was_said():
    generator = ScriptedGenerator(FINAL.format("word " * 1000), seconds_per_token=0.002)
    events = cancel_after(TextDelta, 5, generator)
    assert events[-1].reason == "cancelled"
    assert generator.generations[0].finish_reason == "cancelled"
    said = message_text(events[-1].messages[0])
    assert "".join(e.text for e in of(TextDelta, events)) == said
    again = ScriptedGenerator(ANSWER)
    assert (
        play(again, [*start("Go"), *events[-1].messages, text_message("user", "More")])[-1].reason == "stop"
    )


def test_cancel_before_the_first_token():
    cancellation = Cancellation()
    cancellation.request()
    done = play(ScriptedGenerator(ANSWER, seconds_per_token=0.01), cancellation=cancellation)[-1]
    assert (done.reason, done.messages) == ("cancelled", ())


def test_cancel_from_another_thread_while_a_tool_runs():
    tool = ScriptedTool("python", "never", seconds=60)
    cancellation = Cancellation()

    def cancel():
        while not tool.calls:
            time.sleep(0.01)
        cancellation.request()

    threading.Thread(target=cancel, daemon=True).start()
    began = time.monotonic()
    done = play(ScriptedGenerator(THINK + PYTHON.format("x")), tools=[tool], cancellation=cancellation)[-1]
    assert done.reason == "cancelled" and time.monotonic() - began < 30
    assert tool.interrupted == 1
    assert transcript(done.messages) == [("assistant", "analysis", None, "Hm.")]


def test_closing_the_turn_cancels_the_generation():
    generator = ScriptedGenerator(FINAL.format("word " * 1000), seconds_per_token=0.002)

    async def close_early():
        async with aclosing(run_turn(start("Go"), generator)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break

    asyncio.run(close_early())
    assert generator.generations[0].finish_reason == "cancelled"


def test_cancelling_the_task_cancels_the_tool():
    tool = ScriptedTool("python", "never", seconds=60)

    async def run():
        async def consume():
            async with aclosing(
                run_turn(start("Go"), ScriptedGenerator(PYTHON.format("x")), [tool])
            ) as events:
                async for _ in events:
                    pass

        task = asyncio.create_task(consume())
        while not tool.calls:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert tool.interrupted == 1


def test_the_event_loop_stays_free_while_the_model_computes():
    async def run():
        beats, stop = 0, False

        async def heartbeat():
            nonlocal beats
            while not stop:
                await asyncio.sleep(0.005)
                beats += 1

        beat = asyncio.create_task(heartbeat())
        async for _ in run_turn(start("Go"), ScriptedGenerator(ANSWER, seconds_per_token=0.1)):
            pass
        stop = True
        await beat
        return beats

    # A loop that inference blocks would beat about once per token.
    assert asyncio.run(run()) > 2 * len(ids(ANSWER))


def test_many_turns_at_once():
    async def one(number):
        generator = ScriptedGenerator(FINAL.format(f"answer {number}"), seconds_per_token=0.002)
        return [event async for event in run_turn(start("Go"), generator)]

    async def run():
        return await asyncio.gather(*map(one, range(50)))

    assert [message_text(events[-1].messages[0]) for events in asyncio.run(run())] == [
        f"answer {number}" for number in range(50)
    ]


def test_inference_that_fails_ends_the_turn_with_what_there_is():
    broken = [*ids("<|channel|>final<|message|>So"), GenerationError("the engine is gone")]
    events = play(ScriptedGenerator(broken))
    assert events[-1].reason == "error" and events[-1].error == "the engine is gone"
    assert transcript(events[-1].messages) == [("assistant", "final", None, "So")]


def test_a_request_that_cannot_run_is_refused_before_anything_happens():
    generator = ScriptedGenerator(ANSWER)
    with pytest.raises(RequestError, match="top_p"):
        play(generator, options=TurnOptions(top_p=2.0))
    assert generator.requests == []


def long_talk(turns):
    talk = conversation_start(date="2026-01-01")
    for number in range(turns):
        talk += [text_message("user", f"question {number} " + "word " * 50)]
        talk += [text_message(Role.ASSISTANT, f"answer {number}", channel="final")]
    return [*talk, text_message("user", "the last question")]


def test_a_conversation_longer_than_the_context_is_one_clear_error():
    generator = ScriptedGenerator(ANSWER, context_length=300)
    with pytest.raises(ContextOverflow, match=r"the conversation has \d+ tokens but the context holds 300"):
        play(generator, long_talk(10))
    assert generator.requests == []


def test_the_oldest_turns_leave_a_full_context_if_the_caller_allows_it():
    generator = ScriptedGenerator(ANSWER, context_length=400)
    events = play(generator, long_talk(10), options=TurnOptions(overflow="drop"))
    assert isinstance(events[0], Notice) and "the context of 400 tokens is full" in events[0].text
    prompt = shown(list(generator.requests[0].prompt_tokens))
    assert len(generator.requests[0].prompt_tokens) <= 300
    assert prompt.startswith("<|start|>system") and prompt.endswith(
        "the last question<|end|><|start|>assistant"
    )
    assert "question 0" not in prompt and "question 9" in prompt and events[-1].reason == "stop"


def test_one_turn_that_is_too_long_cannot_be_dropped():
    with pytest.raises(ContextOverflow):
        play(
            ScriptedGenerator(ANSWER, context_length=300),
            start("word " * 500),
            options=TurnOptions(overflow="drop"),
        )


def test_a_tool_result_larger_than_the_context_ends_the_turn():
    tool = ScriptedTool("python", "word " * 500)
    done = play(ScriptedGenerator(PYTHON.format("x"), context_length=400), tools=[tool])[-1]
    assert done.reason == "context"
    assert [line[2] for line in transcript(done.messages)] == ["python", "assistant"]


def test_a_tool_result_makes_room_by_dropping_old_turns():
    tool = ScriptedTool("python", "word " * 150)
    generator = ScriptedGenerator(PYTHON.format("x"), ANSWER, context_length=500)
    events = play(generator, long_talk(4), tools=[tool], options=TurnOptions(overflow="drop"))
    assert events[-1].reason == "stop" and any(isinstance(e, Notice) for e in events)
    assert "the last question" in shown(list(generator.requests[1].prompt_tokens))


def test_the_constraint_sees_only_its_round_and_masks_it():
    seen = []

    def constraint(round_number):
        def allowed(generated):
            seen.append((round_number, list(generated)))
            return np.ones(201_088, dtype=bool)

        return allowed

    generator = ScriptedGenerator(PYTHON.format("x"), ANSWER)
    play(generator, tools=[ScriptedTool("python", "1")], options=TurnOptions(constraint=constraint))
    for number, request in enumerate(generator.requests, start=1):
        assert request.allowed_tokens([1, 2]).all()
        assert seen[-1] == (number, [1, 2])


def test_cached_tokens_are_those_of_the_first_prompt():
    generator = ScriptedGenerator(ANSWER, ANSWER)
    messages = start("Hello")
    first = play(generator, messages)[-1]
    messages += [*first.messages, text_message("user", "And?")]
    second = play(generator, messages)[-1]
    assert first.usage.cached_tokens == 0
    assert second.usage.cached_tokens >= first.usage.input_tokens


def test_progress_is_told_while_a_long_prompt_is_read():
    events = play(ScriptedGenerator(ANSWER, seconds_to_read=1.5))
    told = [event.tokens for event in of(PromptRead, events)]
    assert len(told) >= 2 and told == sorted(told) and told[-1] <= events[-1].usage.input_tokens
    assert [type(event) for event in events[: len(told) + 1]] == [SampleStarted] + [PromptRead] * len(told)


def test_max_seconds_while_the_prompt_is_read():
    began = time.monotonic()
    done = play(ScriptedGenerator(ANSWER, seconds_to_read=30), options=TurnOptions(max_seconds=0.4))[-1]
    assert (done.reason, done.messages) == ("max_seconds", ()) and time.monotonic() - began < 10
