"""What a model may write next in a turn: grammars on answers and arguments, calls that are required.

In: a request's text format, tools and tool_choice. Out: `TurnOptions.constraint`, masks that follow the state of the
Harmony text. Reasoning stays free. Two degrees:

    guided   headers are free; the arguments of a function are one JSON object (of its schema, if strict), the input of
             a custom tool follows its grammar
    forced   (an answer with a schema, a required call) the header of each message is one of a list as well, and the
             model may think once, for at most a share of what it may write, so that there is room for the answer
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt_oss.harmony import tokens
from gpt_oss.harmony.header import Header
from gpt_oss.harmony.parser import HarmonyParser, MessageClosed, MessageOpened
from gpt_oss.harmony.prompt import FUNCTIONS
from gpt_oss.responses_api.errors import ApiError
from gpt_oss.responses_api.grammar import (
    COMPLETE,
    Grammar,
    Matcher,
    any_object,
    json_grammar,
    lark_grammar,
    regex_grammar,
)
from gpt_oss.responses_api.offered_tools import BROWSER, PYTHON, CallerTool, CustomTool, FunctionTool, Offer
from gpt_oss.responses_api.request_models import CreateResponse, TextFormat
from gpt_oss.token_generator import AllowedTokens
from gpt_oss.tokenizer import SPECIAL_TOKENS, VOCAB_SIZE, get_tokenizer

_BROWSER_FUNCTIONS = ("search", "open", "find")
_HOSTED_HEADER = "<|channel|>analysis to={name} code<|message|>"
_NO_REASONING = ("none", "minimal")


@dataclass(frozen=True)
class TurnGrammar:
    """Called before each sample of a turn with its number.

    answer: grammar of the final message. calls: of arguments, by full name; None for free text. custom: full names of
    tools that take text. hosted: the server's tools. required: what has to be called first. ends: tokens that may end
    a call. reasoning: most tokens of thinking before a forced message, 0 for none.
    """

    answer: Grammar | None
    calls: Mapping[str, Grammar | None]
    custom: frozenset[str]
    hosted: Sequence[str]
    required: Sequence[str] | None
    ends: Sequence[int]
    reasoning: int
    vocab_size: int

    def __call__(self, round: int) -> AllowedTokens | None:
        """The mask of sampling round `round` of the turn, from 1 on."""
        required = self.required if round == 1 else None
        if self.answer is None and required is None:
            return _Guided(self) if self.calls else None
        return _Forced(self, required)


def turn_grammar(request: CreateResponse, offer: Offer, vocab_size: int, context_length: int) -> TurnGrammar | None:
    """The grammar of a turn, None where all is free. Raises ApiError for a schema or grammar that cannot be used."""
    answer = _answer_grammar(request.text.format if request.text else None)
    calls = {name: _call_grammar(entry) for name, entry in offer.callables.items()}
    if answer is None and not calls and offer.required is None:
        return None
    thinks = request.reasoning is None or request.reasoning.effort not in _NO_REASONING
    room = request.max_output_tokens or context_length // 2
    parallel = request.parallel_tool_calls is not False
    return TurnGrammar(
        answer=answer,
        calls=calls,
        custom=frozenset(name for name, entry in offer.callables.items() if entry.is_custom),
        hosted=offer.hosted,
        required=offer.required,
        ends=(tokens.CALL, tokens.END) if parallel else (tokens.CALL,),
        reasoning=room // 2 if thinks else 0,
        vocab_size=vocab_size,
    )


def _answer_grammar(format: TextFormat | None) -> Grammar | None:
    if format is None or format.type == "text":
        return None
    if format.type == "json_object":
        return any_object()
    for field, value in (("name", format.name), ("schema", format.schema_)):
        if value is None:
            param = f"text.format.{field}"
            raise ApiError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    return json_grammar(format.schema_, "text.format.schema", format.name or "")


def _call_grammar(entry: CallerTool) -> Grammar | None:
    tool = entry.tool
    if isinstance(tool, FunctionTool):
        if not tool.strict:
            return any_object()
        return json_grammar(_arguments_schema(tool, entry.param), f"{entry.param}.parameters", tool.name)
    return _custom_grammar(tool, f"{entry.param}.format.definition")


def _arguments_schema(tool: FunctionTool, param: str) -> dict[str, Any]:
    """The schema of a function's arguments, which are an object whatever else it says."""
    schema = tool.parameters or {}
    type = schema.get("type", "object")
    if type != "object" and not (isinstance(type, list) and "object" in type):
        text = f"Invalid schema for '{tool.name}': arguments are an object, so 'type' must be 'object'."
        raise ApiError(text, param=f"{param}.parameters", code="invalid_json_schema")
    return {**schema, "type": "object"}


def _custom_grammar(tool: CustomTool, param: str) -> Grammar | None:
    if tool.format is None or tool.format.type == "text":
        return None
    if not tool.format.definition or tool.format.syntax is None:
        raise ApiError(f"A grammar needs 'syntax' and 'definition': '{param}'.", param=param, code="invalid_grammar")
    compiled = lark_grammar if tool.format.syntax == "lark" else regex_grammar
    return compiled(tool.format.definition, param)


class _Guided:
    """The mask of one sample whose headers are free."""

    def __init__(self, rules: TurnGrammar):
        self._rules = rules
        self._parser = HarmonyParser()
        self._read = 0
        self._matcher: Matcher | None = None  # of the open message
        self._ends: Sequence[int] = ()

    def __call__(self, generated: Sequence[int]) -> np.ndarray | None:
        for token in generated[self._read :]:
            self._take(token)
        self._read = len(generated)
        mask = self._mask()
        return None if mask is None else mask[: self._rules.vocab_size]

    def _take(self, token: int) -> None:
        if self._matcher is not None and self._parser.in_content and token not in self._ends:
            self._matcher.consume(token)
        for event in self._parser.process(token):
            if isinstance(event, MessageOpened):
                self._opened(event.header)
            elif isinstance(event, MessageClosed):
                self._closed()

    def _opened(self, header: Header) -> None:
        name = self._called(header.recipient)
        grammar = self._rules.calls.get(name) if name else None
        self._matcher, self._ends = grammar.matcher() if grammar else None, self._rules.ends

    def _closed(self) -> None:
        self._matcher = None

    def _called(self, recipient: str | None) -> str | None:
        return next((name for name in (recipient, f"{FUNCTIONS}.{recipient}") if name in self._rules.calls), None)

    def _mask(self) -> np.ndarray | None:
        if self._matcher is None or not self._parser.in_content:
            return None
        mask = self._matcher.mask()
        complete = mask[COMPLETE]
        mask[COMPLETE] = False
        mask[list(self._ends)] = complete
        return mask


class _Forced(_Guided):
    """The mask of one sample whose messages have to be among those that the rules want."""

    def __init__(self, rules: TurnGrammar, required: Sequence[str] | None):
        super().__init__(rules)
        self._required = required
        self._begun = False  # a message was written already
        self._thought = rules.reasoning == 0  # there is nothing more to think
        self._written = 0  # tokens of the open message
        self._thinking = False
        self._headers = self._possible_headers()
        self._header: list[int] = []  # written of the next one

    def _take(self, token: int) -> None:
        inside = self._parser.in_content
        super()._take(token)
        if self._parser.in_content:
            self._written = self._written + 1 if inside else 0
        elif inside:
            self._begun, self._header = True, []
            self._headers = self._possible_headers()
        else:
            self._header.append(token)

    def _opened(self, header: Header) -> None:
        self._thinking = header.channel == "analysis" and header.recipient is None
        self._thought = self._thought or self._thinking
        if header.channel == "final":
            assert self._rules.answer is not None
            self._matcher, self._ends = self._rules.answer.matcher(), (tokens.RETURN,)
            return
        super()._opened(header)
        self._ends = (tokens.CALL,)
        if (header.recipient or "").startswith(f"{BROWSER}."):
            self._matcher = any_object().matcher()

    def _mask(self) -> np.ndarray | None:
        if not self._parser.in_content:
            return self._header_mask()
        if self._matcher is not None:
            return super()._mask()
        mask = np.zeros(VOCAB_SIZE, bool)
        mask[: tokens.NUM_TEXT_TOKENS] = not self._thinking or self._written < self._rules.reasoning
        mask[list((tokens.END,) if self._thinking else self._ends)] = True
        return mask

    def _header_mask(self) -> np.ndarray:
        at = len(self._header)
        mask = np.zeros(VOCAB_SIZE, bool)
        mask[[header[at] for header in self._headers if header[:at] == self._header and len(header) > at]] = True
        return mask

    def _possible_headers(self) -> list[list[int]]:
        start = "<|start|>assistant" if self._begun else ""
        special = set(SPECIAL_TOKENS)
        return [get_tokenizer().encode(start + text, allowed_special=special) for text in self._header_texts()]

    def _header_texts(self) -> Iterator[str]:
        """As text; functions in the two orders that a model was trained on."""
        if not self._thought:
            yield "<|channel|>analysis<|message|>"
        if self._required is None:
            yield "<|channel|>final<|message|>"
        for name in self._wanted(self._rules.calls):
            json = "" if name in self._rules.custom else " <|constrain|>json"
            yield f" to={name}<|channel|>commentary{json}<|message|>"
            yield f"<|channel|>commentary to={name}{json}<|message|>"
        for name in self._wanted(self._rules.hosted):
            functions = [f"{name}.{function}" for function in _BROWSER_FUNCTIONS] if name == BROWSER else [PYTHON]
            yield from (_HOSTED_HEADER.format(name=function) for function in functions)

    def _wanted(self, names: Mapping[str, object] | Sequence[str]) -> list[str]:
        return [name for name in names if self._required is None or name in self._required]
