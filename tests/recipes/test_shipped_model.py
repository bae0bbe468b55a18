"""The packed model as users get it: held-out dialogues, greedy, token for token."""

import pytest

from gpt_oss import demo
from recipes.demo_model.dialogue import CALL, RETURN
from recipes.demo_model.evaluate import Judge, Turn, evaluate, held_out_turns, is_well_formed

DIALOGUES = 32
# What the shipped weights reach (see recipes/demo_model/results.json), less the chance of so few dialogues. The aim is
# 0.95 and 1.0: raise these with every better model.
EXACT_FLOOR, WELL_FORMED_FLOOR = 0.9, 0.96


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(demo.demo_checkpoint())


@pytest.fixture(scope="module")
def turns() -> list[Turn]:
    return list(held_out_turns("ci", DIALOGUES))


def test_held_out_dialogues_are_right_and_well_formed(judge: Judge, turns: list[Turn]) -> None:
    scores, right, formed = evaluate(judge, turns, explain=2)
    failures = [text for score in scores.values() for text in score.failures]
    assert right >= EXACT_FLOOR, "\n".join(failures)
    assert formed >= WELL_FORMED_FLOOR, "\n".join(failures)


def test_what_is_right_in_one_pass_is_right_token_by_token(judge: Judge, turns: list[Turn]) -> None:
    for turn in [t for t in turns if len(t.rendered.ids) < 300][:5]:
        if judge.right([turn])[0]:
            for begin, end in turn.rendered.completions:
                assert judge.generate(turn.rendered.ids[:begin]) == turn.rendered.ids[begin:end]


def test_well_formed_needs_a_stop_token_and_a_matching_channel(turns: list[Turn]) -> None:
    rendered = next(t.rendered for t in turns if len(t.rendered.completions) == 2)
    call, final = (rendered.ids[begin:end] for begin, end in rendered.completions)
    assert call[-1] == CALL and final[-1] == RETURN
    assert is_well_formed(call) and is_well_formed(final)
    assert not is_well_formed(final[:-1])
    assert not is_well_formed([*final[:-1], CALL])
    assert not is_well_formed([])
