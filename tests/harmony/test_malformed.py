"""The classes of output that real models produce and that openai-harmony's parser refuses or misreads."""

import pytest

from gpt_oss.harmony.parser import ContentDelta, HarmonyParser, InvalidToken
from gpt_oss.harmony.tokens import CALL, END, END_OF_TEXT, RETURN
from tests.helpers.harmony_text import ids

# A message as (channel, recipient, content type, text).
CALL_F = ("commentary", "functions.f", None, "{}")
CASES = {
    "1 recipient twice": (
        "<|channel|>commentary to=functions.f to=functions.f<|message|>{}<|call|>",
        [CALL_F],
    ),
    "2 content type after a space": (
        '<|channel|>final <|constrain|>json<|message|>{"a":1}<|return|>',
        [("final", None, "<|constrain|>json", '{"a":1}')],
    ),
    "2 content type without a space": (
        '<|channel|>final<|constrain|>json<|message|>{"a":1}<|return|>',
        [("final", None, "<|constrain|>json", '{"a":1}')],
    ),
    "3 start twice": (
        "<|channel|>analysis<|message|>t<|end|><|start|><|start|>assistant<|channel|>final<|message|>hi<|return|>",
        [("analysis", None, None, "t"), ("final", None, None, "hi")],
    ),
    "3 start and role twice": (
        "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|start|>assistant<|channel|>final<|message|>hi",
        [("analysis", None, None, "t"), ("final", None, None, "hi")],
    ),
    "4 end, then return": ("<|channel|>final<|message|>hi<|end|><|return|>", [("final", None, None, "hi")]),
    "5 text after end": (
        "<|channel|>analysis<|message|>t<|end|> and this<|return|>",
        [("analysis", None, None, "t"), ("final", None, None, " and this")],
    ),
    "5 a long text after end": (
        "<|channel|>analysis<|message|>t<|end|>It is what it is, I say.<|return|>",
        [("analysis", None, None, "t"), ("final", None, None, "It is what it is, I say.")],
    ),
    "6 empty channel": ("<|channel|><|message|>x<|return|>", [("final", None, None, "x")]),
    "7 no message token": ("<|channel|>final hello there<|return|>", [("final", None, None, "hello there")]),
    "7 no message token, a sentence": (
        "<|channel|>analysis The user wants: 1, 2 and 3.<|end|>",
        [("analysis", None, None, "The user wants: 1, 2 and 3.")],
    ),
    "7 no message token, a call": (
        '<|channel|>commentary to=functions.f <|constrain|>json{"a": 1, "b": 2}<|call|>',
        [("commentary", "functions.f", "<|constrain|>json", '{"a": 1, "b": 2}')],
    ),
    "8 no message token, later": (
        "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>final hello you all<|return|>",
        [("analysis", None, None, "t"), ("final", None, None, "hello you all")],
    ),
    "8 no channel either": (
        "<|channel|>analysis<|message|>t<|end|><|start|>assistant hello<|return|>",
        [("analysis", None, None, "t"), ("final", None, None, "hello")],
    ),
    "9 start inside content": (
        "<|channel|>analysis<|message|>think<|start|>assistant<|channel|>final<|message|>hi<|return|>",
        [("analysis", None, None, "think"), ("final", None, None, "hi")],
    ),
    "10 channel inside content": (
        "<|channel|>analysis<|message|>think<|channel|>final<|message|>hi<|return|>",
        [("analysis", None, None, "think"), ("final", None, None, "hi")],
    ),
    "11 unknown role": (
        "<|channel|>analysis<|message|>t<|end|><|start|>robot<|channel|>final<|message|>hi<|return|>",
        [("analysis", None, None, "t"), ("final", None, None, "hi")],
    ),
    "12 garbled channel, function": (
        "<|channel|>analysis––commentary to=functions.f<|message|>{}<|call|>",
        [CALL_F],
    ),
    "12 garbled channel, other order": (
        "<|channel|>commentary––analysis to=functions.f<|message|>{}<|call|>",
        [CALL_F],
    ),
    "12 garbled channel, text": ("<|channel|>Final!<|message|>hi<|return|>", [("final", None, None, "hi")]),
    "12 channel and recipient grown together": (
        "<|channel|>commentaryto=functions.f<|message|>{}<|call|>",
        [CALL_F],
    ),
    "12 channel without its token": ("analysis<|message|>hm<|end|>", [("analysis", None, None, "hm")]),
    "12 two channels": (
        "<|channel|>analysis<|channel|>final<|message|>hi<|return|>",
        [("final", None, None, "hi")],
    ),
    "13 recipient before the channel": (
        " to=functions.f<|channel|>commentary<|message|>{}<|call|>",
        [CALL_F],
    ),
    "13 recipient after the channel": ("<|channel|>commentary to=functions.f<|message|>{}<|call|>", [CALL_F]),
    "13 recipient without a channel": (" to=functions.f<|message|>{}<|call|>", [CALL_F]),
    "13 recipient without to=": ("<|channel|>commentary functions.f<|message|>{}<|call|>", [CALL_F]),
    "14 call on the analysis channel": (
        "<|channel|>analysis to=python code<|message|>1+1<|call|>",
        [("analysis", "python", "code", "1+1")],
    ),
    "14 content type json": (
        "<|channel|>commentary to=functions.f json<|message|>{}<|call|>",
        [("commentary", "functions.f", "json", "{}")],
    ),
    "15 no channel": ("<|message|>hi<|return|>", [("final", None, None, "hi")]),
    "16 no header": (
        "It is a sunny day, user.<|return|>",
        [("final", None, None, "It is a sunny day, user.")],
    ),
    "16 no header, one word": ("Hi<|return|>", [("final", None, None, "Hi")]),
    "16 no header, a role first": (
        "user experience matters most<|return|>",
        [("final", None, None, "user experience matters most")],
    ),
    "16 text before the header": (
        "Hello there<|channel|>final<|message|>hi<|return|>",
        [("final", None, None, "Hello there"), ("final", None, None, "hi")],
    ),
    "20 endoftext": ("<|channel|>final<|message|>hi<|endoftext|>", [("final", None, None, "hi")]),
    "20 reserved ids": (
        "<|channel|>final<|message|>h<|reserved_200500|>i<|startoftext|><|endofprompt|>!<|return|>",
        [("final", None, None, "hi!")],
    ),
    "20 control tokens that mean nothing there": (
        "<|channel|>final<|message|>h<|message|>i<|constrain|>!<|return|>",
        [("final", None, None, "hi!")],
    ),
}


def fields(parser):
    return [(m.header.channel, m.header.recipient, m.header.content_type, m.text) for m in parser.messages]


@pytest.mark.parametrize("completion, expected", CASES.values(), ids=CASES)
def test_malformed_output_is_understood(completion, expected):
    parser = HarmonyParser()
    parser.process_all(ids(completion))
    parser.finish()
    assert fields(parser) == expected
    assert {m.header.role for m in parser.messages} == {"assistant"}
    assert all(m.complete for m in parser.messages) == completion.endswith("|>")


def test_stop_tokens_are_told():
    for stop, token in {"<|return|>": RETURN, "<|call|>": CALL, "<|endoftext|>": END_OF_TEXT}.items():
        parser = HarmonyParser()
        parser.process_all(ids("<|channel|>final<|message|>hi"))
        assert parser.stop_token is None
        parser.process_all(ids(stop))
        assert parser.stop_token == token


WHOLE = ids(
    "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant<|channel|>commentary to="
    'functions.f <|constrain|>json<|message|>{"a": 1}<|call|>'
)


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_17_a_stream_that_ends_anywhere(length):
    parser = HarmonyParser()
    parser.process_all(WHOLE[:length])
    parser.finish()
    uncut = HarmonyParser()
    uncut.process_all(WHOLE)
    closed = [length > WHOLE.index(token) for token in (END, CALL)]
    for cut, full, complete in zip(parser.messages, uncut.messages, closed, strict=False):
        assert cut.header == full.header, "a header that was cut short is no message"
        assert full.text.startswith(cut.text)
        assert cut.complete == complete


def test_18_split_characters_are_whole_in_the_deltas():
    text = "漢字 🏳️‍🌈 ไทย 😀"
    parser = HarmonyParser()
    parser.process_all(ids("<|channel|>final<|message|>"))
    deltas = [event.text for token in ids(text) for event in parser.process(token)]
    assert "".join(deltas) == text
    assert len(ids(text)) > len(deltas), "the case must contain split characters"


def test_18_a_character_cut_at_the_end_becomes_one_replacement():
    emoji = ids("🫠")
    assert len(emoji) > 1
    parser = HarmonyParser()
    events = parser.process_all(ids("<|channel|>final<|message|>hi") + emoji[:-1] + ids("<|end|>"))
    assert [e.text for e in events if isinstance(e, ContentDelta)] == ["hi", "\ufffd"]
    assert parser.messages[0].text == "hi\ufffd"


@pytest.mark.parametrize("bad", [201_088, 1 << 40, -1])
def test_19_ids_out_of_range_are_told_and_left_out(bad):
    parser = HarmonyParser()
    events = parser.process_all([*ids("<|channel|>final<|message|>h"), bad, *ids("i<|return|>")])
    assert InvalidToken(bad) in events
    assert parser.messages[0].text == "hi"
