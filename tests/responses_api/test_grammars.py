"""What the masks let a model write: arguments, answers and inputs of custom tools, token by token, and grammars that
cannot be used."""

import json

import jsonschema
import numpy as np
import pytest

from gpt_oss.responses_api.grammar import COMPLETE, Matcher, json_grammar
from gpt_oss.responses_api.offered_tools import read_offer
from gpt_oss.responses_api.request_models import CreateResponse, parse
from gpt_oss.responses_api.turn_grammar import turn_grammar
from gpt_oss.token_generator import EngineTokenGenerator
from gpt_oss.tokenizer import VOCAB_SIZE, get_tokenizer
from tests.helpers.harmony_text import ids, shown
from tests.responses_api.replies import WEATHER, answer
from tests.responses_api.stream_rules import check_stream
from tests.responses_api.test_load import Babble

PATCH_GRAMMAR = """
start: "*** Begin Patch" LF change+ "*** End Patch" LF?
change: "*** Add File: " NAME LF ("+" TEXT LF)+ | "*** Delete File: " NAME LF
NAME: /[^\\n]+/
TEXT: /[^\\n]*/
%import common.LF
"""
PATCH = "*** Begin Patch\n*** Add File: a.txt\n+Hello.\n*** End Patch\n"


def custom(syntax, definition):
    format = {"type": "grammar", "syntax": syntax, "definition": definition}
    return {"type": "custom", "name": "edit", "description": "Changes files.", "format": format}


def forbidden(body, text):
    """The first piece of `text` that a model must not write in answer to a request; None where all of it is allowed."""
    request = parse(CreateResponse, {"input": "hi", **body})
    offer = read_offer(request.tools, request.tool_choice)
    allowed_after = turn_grammar(request, offer, VOCAB_SIZE, 4096)(1)
    written = ids(text)
    for position, token in enumerate(written):
        mask = allowed_after(written[:position])
        if mask is not None and not mask[token]:
            return shown([token])
    return None


EDIT = "<|channel|>commentary to=functions.edit<|message|>"


@pytest.mark.parametrize(
    ("input", "stops_at"),
    [
        (PATCH, None),
        ("Here is the patch.", "Here"),
        (PATCH.replace("+Hello", "Hello"), "Hello"),
        (PATCH.removesuffix("*** End Patch\n"), "<|call|>"),
        (PATCH + "Done.", "Done"),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "required", {"type": "custom", "name": "edit"}])
def test_the_input_of_a_custom_tool_follows_its_lark_grammar(input, stops_at, choice):
    body = {"tools": [custom("lark", PATCH_GRAMMAR)], "tool_choice": choice}
    thought = "<|channel|>analysis<|message|>Anything at all.<|end|><|start|>assistant"
    assert forbidden(body, f"{thought}{EDIT}{input}<|call|>") == stops_at


def test_the_input_of_a_custom_tool_matches_its_regex():
    body = {"tools": [custom("regex", r"\d{4}-\d{2}")]}
    assert forbidden(body, f"{EDIT}2026-11<|call|>") is None
    assert forbidden(body, f"{EDIT}2026-1<|call|>") == "<|call|>"
    assert forbidden(body, f"{EDIT}today<|call|>") == "today"


def test_a_custom_call_streams_its_input(serve):
    server = serve(f"{EDIT}{PATCH}<|call|>", answer("Done."))
    body = {"input": "hi", "tools": [custom("lark", PATCH_GRAMMAR)], "stream": True}
    events = check_stream(server.post(body).content)
    (made,) = events[-1]["response"]["output"]
    assert (made["type"], made["name"], made["input"]) == ("custom_tool_call", "edit", PATCH)
    deltas = [e["delta"] for e in events if e["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == PATCH and len(deltas) > 3
    prompt = shown(list(server.generator.requests[0].prompt_tokens))
    assert "Changes files." in prompt and "// NAME: /[^\\n]+/" in prompt


def test_a_namespace_may_hold_a_custom_tool(serve):
    space = {"type": "namespace", "name": "files", "description": "", "tools": [custom("lark", PATCH_GRAMMAR)]}
    server = serve(f"{EDIT.replace('functions', 'files')}{PATCH}<|call|>")
    (made,) = server.json({"input": "hi", "tools": [space]})["output"]
    assert (made["name"], made["namespace"], made["input"]) == ("edit", "files", PATCH)
    assert forbidden({"tools": [space]}, f"{EDIT.replace('functions', 'files')}Done") == "Done"


@pytest.mark.parametrize(
    ("syntax", "definition", "complaint"),
    [
        ("lark", "start: nobody", "nobody"),
        ("lark", 'begin: "a"', "start"),
        ("lark", "start: /(?=a)b/", "look-around"),
        ("lark", "start: more\nmore: start", "no text fits it"),
        ("lark", 'start: <|end|> "a"', "special token"),
        ("regex", "(", "unclosed group"),
    ],
)
def test_a_grammar_that_cannot_be_used_is_400(serve, syntax, definition, complaint):
    error = serve().error({"input": "hi", "tools": [WEATHER, custom(syntax, definition)]})
    assert (error["param"], error["code"]) == ("tools[1].format.definition", "invalid_grammar")
    assert complaint in error["message"] and "\n" not in error["message"]


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "object", "properties": {"a": {"type": "array", "contains": {}}}}, "contains"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"type": "string", "format": "colour"}, "format"),
        ({"type": "string", "pattern": "(?!a)b"}, "pattern"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "minimum"),
        ({"$ref": "#/$defs/absent"}, "$defs/absent"),
        ({"$ref": "#"}, "no text fits it"),
    ],
)
def test_a_schema_that_cannot_be_used_names_the_keyword(serve, schema, keyword):
    format = {"type": "json_schema", "name": "n", "schema": schema}
    server = serve()
    error = server.error({"input": "hi", "text": {"format": format}})
    assert (error["param"], error["code"]) == ("text.format.schema", "invalid_json_schema")
    assert keyword in error["message"] and "\n" not in error["message"]
    strict = {**WEATHER, "parameters": schema, "strict": True}
    assert server.error({"input": "hi", "tools": [strict]})["param"] == "tools[0].parameters"


@pytest.mark.parametrize("type", ["array", "string", ["array", "null"], 5, None])
def test_arguments_are_an_object(serve, type):
    strict = {**WEATHER, "parameters": {"type": type}, "strict": True}
    error = serve().error({"input": "hi", "tools": [strict]})
    assert (error["param"], error["code"]) == ("tools[0].parameters", "invalid_json_schema")
    assert "must be 'object'" in error["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": ["object", "null"]},
        {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"a": {"type": "integer"}}}]},
        {"$ref": "#/$defs/any", "$defs": {"any": {}}},
    ],
)
def test_strict_arguments_are_an_object_whatever_else_the_schema_allows(schema):
    body = {"tools": [{"type": "function", "name": "edit", "parameters": schema, "strict": True}]}
    header = EDIT.replace("<|message|>", " <|constrain|>json<|message|>")
    assert forbidden(body, f'{header}{{"a":1}}<|call|>') is None
    assert [forbidden(body, f"{header}{other}") for other in ("null", "5", '"')] == ["null", "5", '"']


def test_a_grammar_cannot_name_tokens_that_are_no_text():
    body = {"tools": [custom("lark", 'start: "a" (<|end|> | "b")')]}
    assert forbidden(body, f"{EDIT}ab<|call|>") is None
    assert forbidden(body, f"{EDIT}a<|end|>") == "<|end|>"


@pytest.mark.parametrize("missing", ["name", "schema"])
def test_a_format_without_a_name_or_a_schema(serve, missing):
    format = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    del format[missing]
    error = serve().error({"input": "hi", "text": {"format": format}})
    assert (error["param"], error["code"]) == (f"text.format.{missing}", "missing_required_parameter")


def test_an_expression_that_takes_too_long_fails_instead_of_ending_early(serve):
    """Its first mask allows the quotation mark; what comes then costs too much to find out."""
    generator = EngineTokenGenerator(Babble(slots=1, noise=True))
    server = serve(generator=generator)
    format = {"type": "json_schema", "name": "n", "schema": {"type": "string", "pattern": "^a{100000}$"}}
    body = {"input": "hi", "text": {"format": format}, "reasoning": {"effort": "none"}}
    response = server.json(body)
    assert response["status"] == "failed" and "too many expressions" in response["error"]["message"]
    generator.close()


def test_alternatives_that_exclude_each_other_may_be_called_oneof():
    kinds = [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, "n": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["kind", "n"],
            "additionalProperties": False,
        }
        for kind in ("circle", "square")
    ]
    schema = {"oneOf": kinds}
    grammar = json_grammar(schema, "p", "n")
    chosen = np.random.default_rng(0)
    for _ in range(20):
        jsonschema.validate(json.loads(random_text(grammar.matcher(), chosen)), schema)


def random_text(matcher, chosen):
    written = []
    while True:
        possible = np.flatnonzero(matcher.mask())
        token = int(chosen.choice(possible))
        if token == COMPLETE:
            return get_tokenizer().decode(written)
        written.append(token)
        matcher.consume(token)


def test_a_token_that_was_not_allowed_is_an_error():
    matcher = Matcher(json_grammar({"type": "integer"}, "p", "n").source)
    matcher.consume(ids("word")[0])
    with pytest.raises(ValueError, match="token"):
        matcher.mask()


def test_strict_arguments_of_a_model_that_knows_nothing(serve):
    """Six calls."""
    schema = {
        "type": "object",
        "properties": {"unit": {"enum": ["c", "f"]}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
        "required": ["unit", "days"],
        "additionalProperties": False,
    }
    generator = EngineTokenGenerator(Babble(slots=1, noise=True))
    server = serve(generator=generator)
    tool = {"type": "function", "name": "forecast", "parameters": schema, "strict": True}
    body = {"input": "hi", "tools": [tool], "tool_choice": "required", "reasoning": {"effort": "none"}, "store": False}
    for _ in range(6):
        (made,) = server.json(body)["output"]
        assert made["type"] == "function_call"
        jsonschema.validate(json.loads(made["arguments"]), schema)
    generator.close()
