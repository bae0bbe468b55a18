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
from gpt_oss.tokenizer import SPECIAL_TOKENS, VOCAB_SIZE, get_tokenizer

COMPLETE = SPECIAL_TOKENS["<|return|>"]
# At most one blank where JSON allows any number: a weak model would write them for ever.
_JSON_OPTIONS = {"whitespace_pattern": "[ ]?"}


@dataclass(frozen=True)
class Grammar:
    """A grammar that was found to be usable."""

    source: str

    def matcher(self) -> "Matcher":
        """A text begins."""
        return Matcher(llguidance.LLMatcher(_vocabulary(), self.source))


class Matcher:
    """One text as it is written."""

    def __init__(self, matcher: Any):
        self._matcher = matcher
        self._bits = llguidance.numpy.allocate_token_bitmask(1, VOCAB_SIZE)

    def consume(self, token: int) -> None:
        """The token was written; one that the mask did not allow ends all guidance."""
        self._matcher.consume_token(token)

    def mask(self) -> np.ndarray:
        """Which tokens may come next, bool [VOCAB_SIZE]; `COMPLETE` where the text may end. A new array."""
        if self._matcher.is_stopped() or self._matcher.is_error():
            mask = np.zeros(VOCAB_SIZE, bool)
            mask[COMPLETE] = True
            return mask
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits)
        return np.unpackbits(self._bits.view(np.uint8), bitorder="little")[:VOCAB_SIZE].view(bool)


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
        grammar = source()
        is_error, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, _vocabulary())
    except (ValueError, RecursionError) as error:
        is_error, messages = True, [str(error)]
    if is_error:
        raise ApiError(f"{complaint}: {' '.join(messages).strip()}.", param=param, code=code)
    return Grammar(grammar)
