"""Grammars over the model's tokens, by llguidance: a JSON schema, a Lark grammar or a regular expression becomes a mask
of the tokens that may come next.

In: a grammar's source, checked when it is compiled. Out: a `Matcher` for each text that is to follow it. Knows nothing
of Harmony: at the end of a complete text its mask allows `<|return|>`, which the caller may mean otherwise.
"""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llguidance
import llguidance.numpy
import llguidance.tiktoken
import numpy as np

from gpt_oss.responses_api.errors import ApiError
from gpt_oss.tokenizer import NUM_TEXT_TOKENS, SPECIAL_TOKENS, VOCAB_SIZE, get_tokenizer

COMPLETE = SPECIAL_TOKENS["<|return|>"]
# At most one blank where JSON allows any number: a weak model would write them for ever.
_JSON_OPTIONS = {"whitespace_pattern": "[ ]?"}
# A tenth of the work that the library would spend on a regular expression: `a{100000}` would hold up every answer for
# seconds. Its messages must not repeat what the model wrote.
_LIMITS = llguidance.LLParserLimits(initial_lexer_fuel=100_000, verbose_errors=False)


@dataclass(frozen=True)
class Grammar:
    """A grammar that was found to be usable."""

    source: str

    def matcher(self) -> "Matcher":
        """A text begins."""
        return Matcher(self.source)


class Matcher:
    """One text as it is written."""

    def __init__(self, source: str):
        self._matcher = llguidance.LLMatcher(_vocabulary(), source, log_level=0, limits=_LIMITS)
        self._bits = llguidance.numpy.allocate_token_bitmask(1, VOCAB_SIZE)

    def consume(self, token: int) -> None:
        """The token was written."""
        self._matcher.consume_token(token)

    def mask(self) -> np.ndarray:
        """Which tokens may come next, bool [VOCAB_SIZE]; `COMPLETE` where the text may end. A new array.

        Raises ValueError for a grammar that is wrong, or too costly to follow from here.
        """
        if not self._matcher.is_stopped():
            llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error():
            raise ValueError(_sentence(self._matcher.get_error()))
        if self._matcher.is_stopped():
            mask = np.zeros(VOCAB_SIZE, bool)
            mask[COMPLETE] = True
            return mask
        mask = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[:VOCAB_SIZE].view(bool)
        complete = mask[COMPLETE]
        mask[NUM_TEXT_TOKENS:] = False  # a Lark grammar can name Harmony's tokens, which would end the text
        mask[COMPLETE] = complete
        if not mask.any():
            raise ValueError("after this only a special token could follow, which is no text")
        return mask


@functools.cache
def _vocabulary() -> Any:
    """Takes a second to build, once."""
    return llguidance.tiktoken.lltokenizer_from_encoding(get_tokenizer(), n_vocab=VOCAB_SIZE, eos_token=COMPLETE)


def warm_up() -> None:
    """Build what the first grammar would otherwise wait for."""
    _vocabulary()


def json_grammar(schema: Any, param: str, name: str) -> Grammar:
    """JSON that follows a schema. Raises ApiError that names the keyword which is not supported."""

    def source() -> str:
        return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), _JSON_OPTIONS)  # type: ignore[arg-type]

    return _checked(source, f"Invalid schema for '{name}'", param, "invalid_json_schema")


def lark_grammar(definition: str, param: str) -> Grammar:
    """Text that follows a Lark grammar."""
    return _checked(
        lambda: llguidance.LLMatcher.grammar_from_lark(definition), "Invalid grammar", param, "invalid_grammar"
    )


def regex_grammar(definition: str, param: str) -> Grammar:
    """Text that matches a regular expression."""
    return _checked(
        lambda: llguidance.LLMatcher.grammar_from_regex(definition), "Invalid grammar", param, "invalid_grammar"
    )


@functools.cache
def any_object() -> Grammar:
    """Any JSON object."""
    return json_grammar({"type": "object"}, "", "object")


def _checked(source: Callable[[], str], complaint: str, param: str, code: str) -> Grammar:
    try:
        grammar = Grammar(source())
        grammar.matcher().mask()
    except (ValueError, RecursionError) as error:
        raise ApiError(f"{complaint}: {_sentence(str(error))}.", param=param, code=code) from None
    return grammar


def _sentence(message: str) -> str:
    """A complaint of llguidance's without its picture of the place; it names no keyword for a regular expression."""
    first, *picture = message.strip().split("\n")
    if first == "NoExtensionBias":
        return "no text fits it"
    reason = next((line.removeprefix("error: ") for line in picture if line.startswith("error: ")), "")
    place = first.removesuffix("regex parse error:").strip()
    return f"{place or 'pattern:'} {reason}".strip()
