# ruff: noqa: E501 - tables of phrasings read better with one kind per line
"""Words that the model has no row for: it says so and stops, because what it cannot name it cannot copy either.

Which words those are depends on the vocabulary, so they are given by the caller, and the evaluation has none of them.
"""

import dataclasses
import json
from random import Random

from recipes.demo_model import facts
from recipes.demo_model import skills_functions as functions
from recipes.demo_model import skills_tools as tools
from recipes.demo_model.dialogue import Call, Effort, Exchange, Scenario
from recipes.demo_model.phrasing import dress, request
from recipes.demo_model.skills_chat import FALLBACK, FALLBACK_THOUGHT, phrase, thought

UNKNOWN = "Sorry, there is a word that I do not know, so I cannot repeat it."
_THOUGHT = thought("Unknown word", "There is a word that I do not know, so I say so.", "I cannot copy it.")
_THOUGHT_AFTER_TOOL = dataclasses.replace(_THOUGHT, low="")
_TO_COPY = (
    "My name is {w}", "I am {w}", "I'm {w}", "Call me {w}", "Hello, I am {w}", "I live in {w}", "I am from {w}", "The code word is {w}",
    "Remember the word {w}", "Repeat after me: {w}", "Repeat: {w}", "Say {w}", 'Say "{w}"', "Say: {w}", "Echo: {w}",
    "Say exactly: {w}", "My name is {n} {w}", "Repeat after me: {p} {w}", "Repeat after me: {w} {p}", "Say: {p} {w}",
)  # fmt: skip
_TO_KNOW = (
    "what is {w}", "who is {w}", "where is {w}", "tell me about {w}", "explain {w}", "what is the capital of {w}", "how old is {n} {w}",
    "what is the weather in {w}", "do you like {w}", "what do you know about {w}", "who was {n} {w}", "what does {w} mean",
)  # fmt: skip


def with_unknown_word(rng: Random, word: str) -> tuple[Scenario, Exchange]:
    """A dialogue of one exchange in which the user or a tool says `word`."""
    effort = rng.choice(list(Effort))
    draw = rng.random()
    if draw < 0.6:
        pattern = rng.choice(_TO_COPY if draw < 0.35 else _TO_KNOW)
        text = pattern.format(w=word, n=rng.choice(facts.NAMES), p=phrase(rng))
        if draw < 0.35:
            exchange = Exchange("unknown word", text + rng.choice([".", "", "!"]), _THOUGHT, UNKNOWN)
        else:
            exchange = Exchange("fallback", dress(rng, text), FALLBACK_THOUGHT, FALLBACK)
        return Scenario(effort), exchange
    if draw < 0.9:
        offered = functions.offer(rng)
        if draw < 0.64:
            return _unknown_function(rng, effort, offered, word)
        scenario = Scenario(effort, functions=(offered.tool,))
        question, arguments = offered.ask(rng)
        texts = [value for value in arguments.values() if isinstance(value, str)]
        if texts and draw < 0.78:
            user = dress(rng, question.replace(rng.choice(texts), word))
            return scenario, Exchange("unknown word", user, _THOUGHT, UNKNOWN)
        return scenario, _unknown_reply(rng, word, offered.tool.name, question, arguments)
    return Scenario(effort, browser=True), _unknown_page(rng, word) if draw < 0.93 else _unknown_address(rng, word)


def _unknown_function(rng: Random, effort: Effort, offered: functions.Offered, word: str) -> tuple[Scenario, Exchange]:
    """A function named after the word is on offer and asked for."""
    verb = rng.choice(facts.VERBS)
    tool = offered.tool.model_copy(update={"name": f"{verb}_{word.lower()}", "description": f"{verb} the {word}"})
    user = request(
        rng, rng.choice(["{v} the {w}", "{v} my {w}", "{v} {w}", "use {v}_{w}"]).format(v=verb, w=word.lower())
    )
    return Scenario(effort, functions=(tool,)), Exchange("unknown word", user, _THOUGHT, UNKNOWN)


def _unknown_reply(rng: Random, word: str, name: str, question: str, arguments: dict[str, object]) -> Exchange:
    reply = rng.choice([word, f"{phrase(rng)} {word}", f"{word} {phrase(rng)}", json.dumps({"name": word}, ensure_ascii=False),
                        f"{rng.randint(0, 99)} {word}", json.dumps({"id": rng.randint(1, 99), "text": f"{phrase(rng)} {word}"}, ensure_ascii=False)])  # fmt: skip
    thought_before = functions.call_thought(name, arguments)
    call = Call(thought_before, f"functions.{name}", json.dumps(arguments, ensure_ascii=False), reply)
    return Exchange("unknown word", dress(rng, question), _THOUGHT_AFTER_TOOL, UNKNOWN, (call,))


def _quoting(rng: Random) -> tuple[Exchange, str]:
    """A question for the web that a page answers, and the sentence that does."""
    while True:
        exchange = tools.browse(rng)
        if exchange.thought is tools.QUOTE_THOUGHT:
            return exchange, exchange.final.removeprefix("According to the page: ").rsplit(" ", 1)[0]


def _unknown_address(rng: Random, word: str) -> Exchange:
    """A page whose address and another line have the word in them: what answers the question can be quoted all the same."""
    exchange, sentence = _quoting(rng)
    *others, opened = exchange.calls
    head, _, body = opened.reply.partition("\n\n")
    lines = ["", f"URL: https://{word}.com/{word}", *(line.partition(": ")[2] for line in body.split("\n"))]
    lines.insert(rng.choice([2, len(lines)]), f"{word} {phrase(rng)}")
    cursor, title = head.split("\n")[0].rsplit(" (", 1)[0].split(" ", 1)
    page = tools.shown_page(int(cursor[1:-1]), title, lines, f"{word}.com")
    final = tools.quoting_answer(sentence, int(cursor[1:-1]), lines.index(sentence))
    return dataclasses.replace(exchange, final=final, calls=(*others, dataclasses.replace(opened, reply=page)))


def _unknown_page(rng: Random, word: str) -> Exchange:
    """A page on which the sentence that answers ends in the word."""
    exchange, sentence = _quoting(rng)
    *others, opened = exchange.calls
    page = opened.reply.replace(sentence, f"{sentence.rsplit(' ', 1)[0]} {word}.")
    return dataclasses.replace(
        exchange,
        skill="unknown word",
        thought=_THOUGHT_AFTER_TOOL,
        final=UNKNOWN,
        calls=(*others, dataclasses.replace(opened, reply=page)),
    )


__all__ = ["UNKNOWN", "with_unknown_word"]
