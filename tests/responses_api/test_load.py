"""Many requests at once on the real engine, over a backend whose text depends on the whole history; random weights."""

import concurrent.futures
import json

import httpx
import jsonschema
import numpy as np
import pytest
import torch

from gpt_oss.token_generator import EngineTokenGenerator
from gpt_oss.tokenizer import VOCAB_SIZE
from tests.helpers.fake_backend import FakeBackend
from tests.responses_api.stream_rules import check_stream

STREAMS = 64


class Babble:
    """A backend of the real vocabulary. The history's sum and length seed 40 words with a finite logit, or noise."""

    vocab_size = VOCAB_SIZE

    def __init__(self, slots, context_length=1000, noise=False):
        self.slots, self.context_length, self.noise = slots, context_length, noise
        self._cache = [[] for _ in range(slots)]
        self._random = torch.Generator().manual_seed(0)

    def prefill(self, slot, tokens):
        self._cache[slot] += tokens
        return self._logits(self._cache[slot])

    def decode(self, slots, tokens):
        return torch.stack([self.prefill(slot, [token]) for slot, token in zip(slots, tokens, strict=True)])

    def truncate(self, slot, length):
        del self._cache[slot][length:]
        return length

    def _logits(self, history):
        if self.noise:
            return torch.rand(VOCAB_SIZE, generator=self._random)
        logits = torch.full((VOCAB_SIZE,), -1e9)
        random = np.random.default_rng([sum(history), len(history)])
        logits[torch.from_numpy(random.integers(1000, 50_000, 40))] = torch.from_numpy(random.normal(size=40)).float()
        return logits


def test_the_fake_obeys_the_seam():
    assert {"prefill", "decode", "truncate"} <= set(dir(Babble)) & set(dir(FakeBackend))


def test_64_streams_at_once_give_the_texts_of_64_one_by_one(live):
    generator = EngineTokenGenerator(Babble(slots=16))
    base = live(generator=generator, slots=16)

    def ask(number):
        body = {"input": f"Question {number}.", "stream": True, "temperature": 0, "max_output_tokens": 4}
        reply = httpx.post(f"{base}/responses", json=body, timeout=300)
        (item,) = check_stream(reply.content)[-1]["response"]["output"]
        return item["content"][0]["text"]

    one_by_one = [ask(number) for number in range(STREAMS)]
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        at_once = list(pool.map(ask, range(STREAMS)))
    generator.close()
    assert at_once == one_by_one and len(set(at_once)) == STREAMS


OBJECT = {"type": "object", "additionalProperties": False}
SCHEMAS = [
    {**OBJECT, "properties": {"a": {"type": "boolean"}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"]},
    {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    {**OBJECT, "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 999}}, "required": ["n"]},
    {"anyOf": [{"type": "null"}, {**OBJECT, "properties": {"s": {"const": "k"}}, "required": ["s"]}]},
    {**OBJECT, "properties": {"d": {"type": "string", "format": "date"}, "e": {"type": "string", "pattern": "^x{2}$"}},
     "required": ["d", "e"]},
]  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=["object", "array", "range", "anyOf", "formats"])
def test_100_random_answers_are_valid(serve, schema):
    """20 for each of five schemas, of a model that knows nothing."""
    generator = EngineTokenGenerator(Babble(slots=4, noise=True))
    server = serve(generator=generator)
    format = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True}
    body = {
        "input": "hi",
        "text": {"format": format},
        "reasoning": {"effort": "none"},
        "temperature": 1,
        "store": False,
    }
    for _ in range(20):
        response = server.json(body)
        assert response["status"] == "completed"
        (item,) = response["output"]
        jsonschema.validate(json.loads(item["content"][0]["text"]), schema)
    generator.close()


def test_random_thoughts_leave_room_for_the_answer(serve):
    generator = EngineTokenGenerator(Babble(slots=1, noise=True))
    format = {"type": "json_schema", "name": "answer", "schema": SCHEMAS[0], "strict": True}
    body = {"input": "hi", "text": {"format": format}, "max_output_tokens": 100}
    reasoned = answers = 0
    server = serve(generator=generator)
    while answers < 6 or not reasoned:  # about every third has a thought
        answers += 1
        assert answers < 60
        response = server.json(body)
        assert response["status"] == "completed"
        jsonschema.validate(json.loads(response["output"][-1]["content"][0]["text"]), SCHEMAS[0])
        reasoned += response["output"][0]["type"] == "reasoning"
    generator.close()
