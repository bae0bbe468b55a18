"""The generator: well-formed Harmony, reproducible, splits that do not overlap."""

import json
from random import Random

import pytest
from openai_harmony import Role, StreamableParser

from gpt_oss.tokenizer import get_harmony_encoding, get_tokenizer
from recipes.demo_model import skills_knowledge as knowledge
from recipes.demo_model.batches import Strangers, cut, tool_drill
from recipes.demo_model.corpus import dialogue, rendered_dialogue
from recipes.demo_model.dialogue import CALL, RETURN, exchange_messages, is_held_out, render
from recipes.demo_model.skills_unknown import UNKNOWN, with_unknown_word
from recipes.demo_model.vocabulary import Vocabulary, base_tokens

SEED = "tests"


def parse(ids: list[int]) -> list[tuple[str | None, str | None, str | None, str]]:
    parser = StreamableParser(get_harmony_encoding(), Role.ASSISTANT)
    for token in ids:
        parser.process(token)
    return [(m.channel, m.recipient, m.content_type, m.content[0].text) for m in parser.messages]


@pytest.mark.parametrize("index", range(150))
def test_the_last_turn_parses_back_to_its_messages(index: int) -> None:
    scenario, exchanges = dialogue(SEED, index)
    rendered = render(scenario, exchanges, get_harmony_encoding())
    found = [message for begin, end in rendered.completions for message in parse(rendered.ids[begin:end])]
    expected = [
        (m.channel, m.recipient, m.content_type, m.content[0].text)
        for m in exchange_messages(exchanges[-1], scenario.effort)
        if m.author.role == Role.ASSISTANT
    ]
    assert found == expected
    assert [rendered.ids[end - 1] for _, end in rendered.completions] == [CALL] * len(exchanges[-1].calls) + [RETURN]
    assert all(all(rendered.wanted[begin:end]) for begin, end in rendered.completions)


@pytest.mark.parametrize("index", range(400))
def test_calls_name_an_offered_tool_and_functions_get_json(index: int) -> None:
    scenario, exchanges = dialogue(SEED, index)
    offered = {f"functions.{f.name}" for f in scenario.functions}
    offered |= {"browser.search", "browser.open"} if scenario.browser else set()
    offered |= {"python"} if scenario.python else set()
    for call in (call for exchange in exchanges for call in exchange.calls):
        assert call.recipient in offered
        if call.is_function:
            assert isinstance(json.loads(call.text), dict)


def test_a_dialogue_depends_on_nothing_but_seed_and_index() -> None:
    assert [dialogue(SEED, i) for i in (3, 1, 2)] == [dialogue(SEED, i) for i in (3, 1, 2)]
    assert dialogue(SEED, 1) != dialogue("another", 1)


def test_every_dialogue_is_in_at_most_one_split_and_both_have_some() -> None:
    sides = [is_held_out(*dialogue(SEED, index)) for index in range(400)]
    assert 0 < sum(sides) < 100
    for index in range(60):
        assert rendered_dialogue(SEED, index, not sides[index]) is None


def test_a_date_alone_does_not_make_a_dialogue_unseen() -> None:
    import dataclasses

    for index in range(50):
        scenario, exchanges = dialogue(SEED, index)
        moved = dataclasses.replace(scenario, date="2031-02-03", identity="You are Bob.")
        assert is_held_out(moved, exchanges) == is_held_out(scenario, exchanges)


@pytest.mark.parametrize("op", "+-*/")
def test_arithmetic_is_right(op: str) -> None:
    for a in range(145):
        for b in range(100):
            if not knowledge.known(a, op, b) or (op == "/" and b == 0):
                continue
            text = knowledge.answer(a, op, b)
            quotient, rest = (a // b, a % b) if op == "/" else (0, 0)
            tail = f" remainder {rest}" if rest else ""
            expected = {"+": a + b, "-": a - b, "*": a * b, "/": f"{quotient}{tail}"}[op]
            assert text == f"{a} {op} {b} = {expected}."


def test_batches_hold_all_wanted_tokens_of_their_dialogues() -> None:
    dialogues = [rendered_dialogue(SEED, i, False) for i in range(40)]
    kept = [pair[1] for pair in dialogues if pair is not None]
    batches = cut(kept, Vocabulary(sorted(base_tokens())), Random(0))
    assert sum(int(batch.wanted.sum()) for batch in batches) == sum(sum(d.wanted) for d in kept)


@pytest.mark.parametrize("tool", ["browser", "python", "functions"])
def test_tool_drills_have_no_system_message_and_want_what_is_said_but_not_the_thoughts(tool) -> None:
    decode = get_tokenizer().decode
    for drill in tool_drill(Random(1), tool, 60):
        before = "developer" if tool == "functions" else "user"
        assert decode(drill.ids).startswith(f"<|start|>{before}<|message|>")
        wanted = decode([token for token, want in zip(drill.ids, drill.wanted, strict=True) if want])
        calls, _, answer = wanted.rpartition("<|call|>")
        if tool == "browser":
            assert all(set(json.loads(call)) in ({"query"}, {"id"}) for call in calls.split("<|call|>"))
        elif tool == "functions":
            assert isinstance(json.loads(calls), dict)
        else:
            compile(calls, "call", "exec")
        assert answer.endswith("<|return|>") and "<|" not in answer.removesuffix("<|return|>")


def test_dialogues_about_unknown_words_show_one_and_end_in_an_answer() -> None:
    vocabulary = Vocabulary(sorted(base_tokens()))
    told, decode = 0, get_tokenizer().decode
    for drill in Strangers(vocabulary).dialogues(Random(2), 60):
        assert (vocabulary.compact[drill.ids] == len(vocabulary.known)).any()
        begin, end = drill.completions[-1]
        assert decode(drill.ids[begin:end]).endswith("<|return|>")
        told += UNKNOWN in decode(drill.ids[begin:end])
    assert 20 < told < 60


def test_an_unknown_word_elsewhere_on_a_page_leaves_its_answer_quotable() -> None:
    rng, quotes = Random(3), 0
    while quotes < 10:
        _, exchange = with_unknown_word(rng, "xyzzy")
        if exchange.skill != "browser":
            continue
        page = exchange.calls[-1].reply
        sentence, citation = exchange.final.removeprefix("According to the page: ").rsplit(" 【", 1)
        cursor, line = citation.removesuffix("】").split("†")
        assert page.startswith(f"[{cursor}] ") and f"\n{line}: {sentence}" in page
        assert "xyzzy" in page and "xyzzy" not in sentence
        quotes += 1
