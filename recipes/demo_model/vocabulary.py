"""Which of the 201,088 tokens the model knows, and their compact numbering during training.

Known are all tokens that a large sample of the corpus contains, the special tokens of Harmony, all numbers of up to
three digits, and the most frequent plain-text tokens. All others share one row, number `len(known)`.
"""

import functools
import re

import numpy as np

from gpt_oss.tokenizer import VOCAB_SIZE, get_tokenizer

FREQUENT_RANKS = 3000
"""Printable ASCII tokens below this rank are known whether the corpus has them or not."""
_SPECIAL = (199_999, 200_002, 200_003, 200_005, 200_006, 200_007, 200_008, 200_012)


@functools.cache
def _token_texts(limit: int) -> tuple[bytes, ...]:
    tokenizer = get_tokenizer()
    return tuple(tokenizer.decode_single_token_bytes(token) for token in range(limit))


def base_tokens() -> set[int]:
    """The tokens that are known without looking at the corpus."""
    texts = _token_texts(FREQUENT_RANKS)
    known = {token for token in range(FREQUENT_RANKS) if texts[token].isascii()}
    known |= {get_tokenizer().encode(str(n).zfill(digits))[0] for digits in (1, 2, 3) for n in range(10**digits)}
    return known | set(_SPECIAL)


class Vocabulary:
    """`known`: sorted ids; `compact`: int32 [VOCAB_SIZE], id -> row, with the shared row for unknown ids."""

    def __init__(self, known: np.ndarray):
        self.known = np.unique(known)
        self.compact = np.full(VOCAB_SIZE, len(self.known), dtype=np.int32)
        self.compact[self.known] = np.arange(len(self.known), dtype=np.int32)

    def __len__(self) -> int:
        """Rows, the shared one included."""
        return len(self.known) + 1

    @property
    def unknown_count(self) -> int:
        """How many real ids share the last row."""
        return VOCAB_SIZE - len(self.known)


_MARKED_WORD = re.compile(rb"([^\sA-Za-z0-9\x80-\xff])([A-Za-z]{2,})")


def embedding_start(vocabulary: Vocabulary, hidden: int, seed: int = 0) -> np.ndarray:
    """float32 [len(vocabulary), hidden]: rows of length about 1 to start training from.

    Spellings of one word (" Paris", "Paris", ".paris") share most of their row and differ by the same few directions,
    and numbers get a clock-like code (sine and cosine of several periods) beside a random part: a small model finds
    both by itself, only later.
    """
    tokenizer = get_tokenizer()
    directions = _unit(np.random.default_rng(seed), (4, hidden))
    rows = np.empty((len(vocabulary), hidden), dtype=np.float32)
    for row, token in enumerate(vocabulary.known.tolist()):
        text = tokenizer.decode_single_token_bytes(token)
        word = text.removeprefix(b" ")
        base = _base(word.lower(), hidden, seed)
        if (mark := _MARKED_WORD.fullmatch(text)) is not None:
            word = mark[2]
            base = 0.5 * base + 0.7 * _base(word.lower(), hidden, seed) + 0.4 * _base(mark[1], hidden, seed)
            base /= np.linalg.norm(base)
        signs = [text[:1] == b" ", word[:1].isupper(), len(word) > 1 and word.isupper(), False]
        rows[row] = 0.85 * base + 0.3 * sum(d if s else -d for d, s in zip(directions, signs, strict=True))
    rows[-1] = _unit(np.random.default_rng(seed + 1), (hidden,))
    return rows


def _base(word: bytes, hidden: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, *word])
    random = _unit(rng, (hidden,))
    if not word.isdigit():
        return random
    periods = (2, 5, 10, 20, 50, 100, 200, 1000)
    angles = [2 * np.pi * int(word) / period for period in periods]
    clock = np.concatenate([np.cos(angles), np.sin(angles)]) / np.sqrt(len(periods))
    spread = _unit(np.random.default_rng(seed + 2), (len(clock), hidden))
    mixed = 0.6 * random + 0.8 * (clock @ spread)
    return mixed / np.linalg.norm(mixed)


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = rng.standard_normal(shape)
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)
