"""Training batches, made in a process of their own so that training never waits for text.

Batch number k is a pure function of seed and k: dialogues come in pools of `POOL`, are sorted by length and cut
into batches of at most `TOKENS` padded tokens, which are then shuffled within the pool.
"""

import multiprocessing as mp
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from queue import Full
from random import Random

import numpy as np

from gpt_oss.tokenizer import get_harmony_encoding, get_tokenizer
from recipes.demo_model.corpus import rendered_dialogue
from recipes.demo_model.dialogue import MESSAGE, START, Effort, Exchange, Rendered, Scenario, is_held_out, render
from recipes.demo_model.skills_functions import call_function, offer
from recipes.demo_model.skills_knowledge import fact
from recipes.demo_model.skills_tools import browse, page_with_quotes, python
from recipes.demo_model.skills_unknown import with_unknown_word
from recipes.demo_model.vocabulary import Vocabulary

TOKENS = 4096
POOL = 1024
_PAD = 199_999


@dataclass
class Batch:
    """tokens: compact ids [b, n]; wanted: bool [b, n], true where the token is to be predicted."""

    tokens: np.ndarray
    wanted: np.ndarray


def pool(seed: str, number: int) -> list[Rendered]:
    """Training dialogues number·POOL … of the seed, held-out ones left out."""
    encoding = get_harmony_encoding()
    indices = range(number * POOL, (number + 1) * POOL)
    found = (rendered_dialogue(seed, index, False, encoding, practice=True) for index in indices)
    return [rendered for pair in found if pair is not None for rendered in pair[1:]]


def cut(dialogues: list[Rendered], vocabulary: Vocabulary, rng: Random) -> list[Batch]:
    """Batches of similar lengths, in random order."""
    ordered = sorted(dialogues, key=lambda d: len(d.ids))
    groups: list[list[Rendered]] = [[]]
    for dialogue in ordered:
        if (len(groups[-1]) + 1) * _row_length(len(dialogue.ids)) > TOKENS:
            groups.append([])
        groups[-1].append(dialogue)
    rng.shuffle(groups)
    return [_pad(group, vocabulary) for group in groups]


def _row_length(tokens: int) -> int:
    """Few different lengths, because every new shape costs the matrix library a new kernel."""
    step = 32 if tokens <= 512 else 128
    return -(-tokens // step) * step


def _pad(group: list[Rendered], vocabulary: Vocabulary) -> Batch:
    longest = _row_length(max(len(d.ids) for d in group))
    ids = np.full((len(group), longest), _PAD)
    wanted = np.zeros((len(group), longest), dtype=bool)
    for row, dialogue in enumerate(group):
        ids[row, : len(dialogue.ids)] = dialogue.ids
        wanted[row, : len(dialogue.ids)] = dialogue.wanted
    return Batch(vocabulary.compact[ids], wanted)


def drill(vocabulary: Vocabulary, rng: np.random.Generator) -> Batch:
    """Random known tokens, then spans of them again: what comes next in a span is wanted.

    Copying is most of what the tools need, and only this shows every known token often enough to be copied.
    """
    length = int(rng.choice([64, 128, 256, 512]))
    rows, first = TOKENS // length, length // 2
    tokens = rng.integers(0, len(vocabulary.known), (rows, length), dtype=np.int32)
    wanted = np.zeros((rows, length), dtype=bool)
    for row in range(rows):
        place = first
        while place < length:
            span = min(int(rng.integers(3, 24)), length - place, first)
            start = int(rng.integers(0, first - span + 1))
            tokens[row, place : place + span] = tokens[row, start : start + span]
            wanted[row, place + 1 : place + span] = True
            place += span
    return Batch(tokens, wanted)


def fact_drill(vocabulary: Vocabulary, rng: Random) -> Batch:
    """Facts one after another, worded as the answers are: only what completes each of them is wanted.

    A dialogue shows one sum or capital in fifty to a hundred tokens, a drill one in eight to fifteen.
    """
    tokenizer, length = get_tokenizer(), 256
    tokens = np.full((TOKENS // length, length), _PAD)
    wanted = np.zeros(tokens.shape, dtype=bool)
    for row in range(len(tokens)):
        place = 0
        while True:
            given, found = fact(rng)
            ids, more = tokenizer.encode(given), tokenizer.encode(found + ".")
            end = place + len(ids) + len(more)
            if end > length:
                break
            tokens[row, place:end] = ids + more
            wanted[row, place + len(ids) : end] = True
            place = end
    return Batch(vocabulary.compact[tokens], wanted)


def quote_drill(vocabulary: Vocabulary, rng: Random) -> Batch:
    """A page and its lines quoted with citations, one after another: only the cited pages and lines are wanted.

    A browser dialogue asks for one of them in seven hundred tokens.
    """
    tokenizer, length = get_tokenizer(), 512
    tokens = np.full((TOKENS // length, length), _PAD)
    wanted = np.zeros(tokens.shape, dtype=bool)
    for row in range(len(tokens)):
        page, quotes = page_with_quotes(rng)
        ids = tokenizer.encode(page)
        for quote, citation in quotes:
            given, found = tokenizer.encode(f"\n{quote}"), tokenizer.encode(citation)
            place = len(ids) + len(given)
            ids += given + found
            wanted[row, place : len(ids)] = True
        tokens[row, : len(ids)] = ids[:length]
    return Batch(vocabulary.compact[tokens], wanted)


def tool_drill(rng: Random, tool: str, dialogues: int) -> list[Rendered]:
    """Dialogues with the tool "browser" or "python" or with "functions", without their system message, which is most of
    their tokens; most browsers have shown other pages before, most functions and arguments have unusual names.

    Wanted are the texts of calls and answers; the thoughts are not, because nothing tells the effort.
    """
    found: list[Rendered] = []
    while len(found) < dialogues:
        scenario = Scenario(rng.choice(list(Effort)), browser=tool == "browser", python=tool == "python")
        if tool == "functions":
            offered = [offer(rng, invented=0.4, usual=0.2) for _ in range(rng.choice([1, 2, 2, 3]))]
            if len({function.tool.name for function in offered}) < len(offered):
                continue
            scenario = replace(scenario, functions=tuple(function.tool for function in offered))
            exchange = call_function(rng, offered)
        else:
            exchange = browse(rng, used=0.7) if tool == "browser" else python(rng)
        if not is_held_out(scenario, [exchange]):
            found.append(_without_system(scenario, exchange))
    return found


def _without_system(scenario: Scenario, exchange: Exchange) -> Rendered:
    whole = render(scenario, [exchange], get_harmony_encoding())
    begin = whole.ids.index(START, 1)
    wanted = [False] * len(whole.ids)
    for start, end in whole.completions:
        text = max(i for i in range(start, end) if whole.ids[i] == MESSAGE) + 1
        wanted[text:end] = [True] * (end - text)
    return Rendered(whole.ids[begin:], wanted[begin:])


class Strangers:
    """Words with tokens that a vocabulary does not know, and dialogues that contain one."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        texts = (get_tokenizer().decode_single_token_bytes(token) for token in self._unknown_ids())
        words = [text.decode("utf-8", "replace") for text in texts]
        self._words = [word.strip() for word in words if word.isprintable() and "\ufffd" not in word]
        self._latin = [word for word in self._words if word.isascii() and word.isalpha()]

    def _unknown_ids(self) -> list[int]:
        unknown = np.flatnonzero(self._vocabulary.compact == len(self._vocabulary.known))
        return unknown[unknown < _PAD - 1].tolist()

    def dialogues(self, rng: Random, count: int) -> list[Rendered]:
        """So many dialogues of `skills_unknown`."""
        found: list[Rendered] = []
        while len(found) < count:
            word = rng.choice(self._latin if rng.random() < 0.8 else self._words)
            if rng.random() < 0.3:
                word = rng.choice(self._latin) + rng.choice(self._latin).lower()
            scenario, exchange = with_unknown_word(rng, word.capitalize() if rng.random() < 0.4 else word)
            rendered = render(scenario, [exchange], get_harmony_encoding())
            if (self._vocabulary.compact[rendered.ids] == len(self._vocabulary.known)).any():
                found.append(rendered)
        return found


def _drills(number: int, batches: int) -> int:
    """How many drills of each kind a pool gets: many at first, because nothing else starts copying as soon."""
    return batches // (6 if number < 4 else 12)


def _produce(queue: mp.Queue, seed: str, first_pool: int, known: np.ndarray) -> None:
    os.nice(2)
    queue.cancel_join_thread()  # or this process would wait for ever to hand over what nobody takes any more
    vocabulary, number = Vocabulary(known), first_pool
    strangers = Strangers(vocabulary)
    while True:
        order, numbers = Random(f"{seed}/order/{number}"), np.random.default_rng(number)
        batches = cut(pool(seed, number), vocabulary, order)
        drills = _drills(number, len(batches))
        batches += [drill(vocabulary, numbers) for _ in range(drills)]
        batches += [fact_drill(vocabulary, order) for _ in range(drills)]
        batches += [quote_drill(vocabulary, order) for _ in range(drills // 2)]
        batches += cut(tool_drill(order, "browser", 24 * drills), vocabulary, order)
        batches += cut(tool_drill(order, "python", 24 * drills), vocabulary, order)
        batches += cut(tool_drill(order, "functions", 40 * drills), vocabulary, order)
        batches += cut(strangers.dialogues(order, 8 * drills), vocabulary, order)
        order.shuffle(batches)
        for index, batch in enumerate(batches):
            if not _put(queue, (number, index, batch)):
                return
        number += 1


def _put(queue: mp.Queue, item: tuple[int, int, Batch]) -> bool:
    """Wait for room in the queue; false once nobody is left to take from it, because training was killed."""
    while (parent := mp.parent_process()) is not None and parent.is_alive():
        try:
            queue.put(item, timeout=5)
            return True
        except Full:
            continue
    return False


def stream(seed: str, vocabulary: Vocabulary, start: tuple[int, int] = (0, 0)) -> Iterator[tuple[int, int, Batch]]:
    """(pool, place in the pool, batch) without end, from `start` on."""
    context = mp.get_context("spawn")
    queue: mp.Queue = context.Queue(maxsize=200)
    process = context.Process(target=_produce, args=(queue, seed, start[0], vocabulary.known), daemon=True)
    process.start()
    try:
        while True:
            number, index, batch = queue.get()
            if (number, index) >= start:
                yield number, index, batch
    finally:
        process.kill()
