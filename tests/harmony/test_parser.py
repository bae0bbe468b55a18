"""HarmonyParser against openai-harmony's StreamableParser, and under noise."""

import random
import time

import pytest
from openai_harmony import Author, Message, Role, StreamableParser

from gpt_oss.harmony import tokens
from gpt_oss.harmony.parser import ContentDelta, HarmonyParser, MessageClosed, MessageOpened
from gpt_oss.tokenizer import get_harmony_encoding, get_tokenizer
from tests.helpers.harmony_text import ids

CHANNELS = ["analysis", "commentary", "final"]
NAMES = ["functions.f", "functions.get_weather", "python", "browser.search", "browser.open", "functions.a-b"]
SNIPPETS = [
    "Hello, world!",
    "漢字かな交じり文",
    "😀🏳️‍🌈🫠",
    "  \n\n\t",
    '{"city": "München", "n": [1, 2]}',
    "<|start|>assistant<|channel|>final<|message|>",
    "def f(x):\r\n    return x ** 2\n",
    "a\u0301\u200d\ufeff",
    "ไทย हिन्दी العربية",
    " to=functions.f",
    "1234567.89",
]


def random_text(rng: random.Random) -> str:
    pieces = [rng.choice(SNIPPETS) for _ in range(rng.randrange(4))]
    pieces.append(
        "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xA0, 0xD800)))) for _ in range(4))
    )
    rng.shuffle(pieces)
    return "".join(pieces)


def random_message(rng: random.Random) -> Message:
    kind = rng.randrange(5)
    if kind == 0:
        return Message.from_role_and_content(
            rng.choice([Role.USER, Role.SYSTEM, Role.DEVELOPER]), random_text(rng)
        )
    if kind == 1:
        author = Author(role=Role.TOOL, name=rng.choice(NAMES))
        message = Message.from_author_and_content(author, random_text(rng)).with_recipient("assistant")
        return message.with_channel(rng.choice(CHANNELS)) if rng.random() < 0.8 else message
    message = Message.from_role_and_content(Role.ASSISTANT, random_text(rng))
    if rng.random() < 0.95:
        message = message.with_channel(rng.choice(CHANNELS))
    if kind == 2:
        message = message.with_recipient(rng.choice(NAMES))
        content_type = rng.choice([None, "json", "code", "<|constrain|>json", "text/plain"])
        message = message if content_type is None else message.with_content_type(content_type)
    return message


def state(parser) -> tuple:
    role = parser.current_role
    return (
        getattr(role, "value", role),
        parser.current_recipient,
        parser.current_channel,
        parser.current_content_type,
        parser.current_content,
        parser.last_content_delta,
    )


def test_equals_streamable_parser_after_every_token():
    rng = random.Random()
    encoding = get_harmony_encoding()
    for _ in range(10_000):
        rendered = [
            token for _ in range(rng.randrange(1, 4)) for token in encoding.render(random_message(rng))
        ]
        ours, theirs = HarmonyParser(role=None), StreamableParser(encoding, None)
        for token in rendered:
            ours.process(token)
            theirs.process(token)
            assert state(ours) == state(theirs), get_tokenizer().decode(rendered)
        for mine, message in zip(ours.messages, theirs.messages, strict=True):
            header = mine.header
            assert (header.role, header.channel) == (message.author.role.value, message.channel)
            assert (header.recipient, header.content_type) == (message.recipient, message.content_type)
            assert header.name == message.author.name
            assert mine.text == message.content[0].text and mine.complete


def test_equals_streamable_parser_inside_a_completion():
    encoding = get_harmony_encoding()
    rng = random.Random()
    for _ in range(300):
        message = random_message(rng)
        if message.author.role != Role.ASSISTANT or message.channel is None:
            continue
        completion = encoding.render(message)[2:]  # after <|start|>assistant
        ours, theirs = HarmonyParser(), StreamableParser(encoding, Role.ASSISTANT)
        for token in completion:
            ours.process(token)
            theirs.process(token)
            assert state(ours) == state(theirs), get_tokenizer().decode(completion)


BOUNDARIES = {tokens.START, tokens.CHANNEL, tokens.END, *tokens.STOP_TOKENS}


def content_runs(sequence: list[int]) -> list[str]:
    """What certainly is content: text after a <|message|>, up to the next token that can end a message."""
    runs, run = [], None
    for token in [*sequence, tokens.END]:
        if token in BOUNDARIES:
            if run:
                runs.append(get_tokenizer().decode_bytes(run).decode(errors="replace"))
            run = None
        elif token == tokens.MESSAGE and run is None:
            run = []
        elif 0 <= token < tokens.NUM_TEXT_TOKENS and run is not None:
            run.append(token)
    return runs


def noisy(rng: random.Random, valid: list[int]) -> list[int]:
    """A mutation of a valid completion, or pure noise."""
    control = [*BOUNDARIES, tokens.MESSAGE, tokens.CONSTRAIN]

    def anything():
        return rng.choice((rng.choice(control), rng.randrange(256), rng.randrange(-9, 201_200)))

    if rng.random() < 0.2:
        return [anything() for _ in range(rng.randrange(24))]
    sequence = list(valid[: rng.randrange(len(valid)) + 1 if rng.random() < 0.3 else None])
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(sequence) + 1)
        sequence[at : at + rng.randrange(3)] = [anything() for _ in range(rng.randrange(3))]
    return sequence


def check_fuzzed(rng: random.Random, rounds: int) -> None:
    encoding = get_harmony_encoding()
    valid = []
    for _ in range(500):
        call, answer = (random_message(rng) for _ in range(2))
        valid.append((encoding.render(call) + encoding.render(answer))[2:40])
    for number in range(rounds):
        sequence = noisy(rng, valid[number % len(valid)])
        parser, open_text, texts = HarmonyParser(), None, []
        for events in [*map(parser.process, sequence), parser.finish()]:
            for event in events:
                if isinstance(event, MessageOpened):
                    assert open_text is None
                    open_text = []
                elif isinstance(event, ContentDelta):
                    open_text.append(event.text)
                elif isinstance(event, MessageClosed):
                    texts.append(event.message.text)
                    assert "".join(open_text) == texts[-1], sequence
                    open_text = None
        assert open_text is None and texts == [message.text for message in parser.messages]
        whole, at = "\0".join(texts), 0
        for run in content_runs(sequence):
            found = whole.find(run, at)
            assert found >= 0, (run, sequence)
            at = found + len(run)


def test_fuzzed_output_never_raises_and_loses_no_content():
    check_fuzzed(random.Random(), 100_000)


def test_replacement_characters_only_where_bytes_are_not_utf8():
    rng = random.Random()
    for _ in range(2_000):
        run = [rng.randrange(400) for _ in range(rng.randrange(1, 8))]  # the first 256 ids are single bytes
        parser = HarmonyParser()
        deltas = [
            e.text for e in parser.process_all([*ids("<|channel|>final<|message|>"), *run, tokens.END])[1:-1]
        ]
        assert (
            "".join(deltas)
            == get_tokenizer().decode_bytes(run).decode(errors="replace")
            == parser.messages[0].text
        )


@pytest.mark.parametrize("content", ["content", "header"])
def test_cost_per_token_does_not_grow(content):
    """The last tenth of 100,000 tokens costs about what the first tenth does."""
    parser = HarmonyParser()
    parser.process_all(ids("<|channel|>final<|message|>" if content == "content" else "<|channel|>"))
    words = ids(" the quick brown fox") * 2_500
    seconds = []
    for _ in range(10):
        start = time.process_time()
        parser.process_all(words)
        seconds.append(time.process_time() - start)
    assert min(seconds[5:]) < 3 * min(seconds[:5])


def test_a_header_without_end_does_not_gather_for_ever():
    parser = HarmonyParser()
    parser.process_all(ids("<|channel|>"))
    start = time.process_time()
    parser.process_all(ids("x") * 20_000)
    assert time.process_time() - start < 2
    assert parser.in_content
