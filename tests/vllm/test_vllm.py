"""The vLLM engine, for real on a CPU with the demo model: `make test-vllm` runs this in vLLM's own environment."""

import concurrent.futures
import threading

import numpy as np
import pytest
import torch

from gpt_oss.errors import ContextOverflow, GenerationError, RequestError
from tests.helpers.harmony_text import ids, shown

pytest.importorskip("vllm", reason="vLLM is not installed here; run: make test-vllm")

CONTEXT = 1024
STOP = [200002, 200012]


@pytest.fixture(scope="module")
def folder():
    from gpt_oss.demo import demo_checkpoint

    return demo_checkpoint()


@pytest.fixture(scope="module")
def theirs(folder):
    from gpt_oss.vllm.token_generator import TokenGenerator

    # fp32, in which no two tokens of these texts are close enough for the order of a sum to decide between them
    with TokenGenerator(folder, context_length=CONTEXT, slots=8, dtype=torch.float32) as generator:
        yield generator


def prompt(text):
    return ids(f"<|start|>user<|message|>{text}<|end|><|start|>assistant")


QUESTIONS = [prompt(text) for text in ("Hello!", "What is the capital of France?", "Count to five.", "Bye!")]
LONG = prompt("We talked about the weather. " * 40 + "What is the capital of France?")  # beyond the sliding window


def greedy(generator, question, **options):
    return [token.id for token in generator.stream(question, stop_tokens=STOP, temperature=0, max_tokens=60, **options)]


def test_its_shape(theirs):
    assert (theirs.context_length, theirs.vocab_size) == (CONTEXT, 201_088)


def test_it_says_what_the_torch_backend_says(theirs, folder):
    from gpt_oss.torch.backend import TokenGenerator as TorchGenerator

    with TorchGenerator(folder, "cpu", context_length=CONTEXT, dtype=torch.float32) as ours:
        pairs = [(greedy(theirs, question), greedy(ours, question)) for question in [*QUESTIONS, LONG]]
    assert [shown(a) for a, _ in pairs] == [shown(b) for _, b in pairs]
    assert all(a[-1] in STOP or len(a) == 60 for a, _ in pairs)


def test_requests_share_a_batch(theirs):
    alone = [greedy(theirs, question) for question in QUESTIONS]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: greedy(theirs, question), QUESTIONS * 2))
    assert together == alone * 2


def test_ends(theirs):
    few = theirs.stream(QUESTIONS[0], temperature=0, max_tokens=3)
    assert len(list(few)) == 3 and few.finish_reason == "length"
    full = theirs.stream(QUESTIONS[0] * 80, temperature=1, seed=1)
    said = len(list(full))
    assert full.finish_reason == "context" and said == CONTEXT - len(QUESTIONS[0]) * 80
    with pytest.raises(ContextOverflow):
        theirs.stream(QUESTIONS[0] * 200)


def test_a_seed_is_kept(theirs):
    first, again = (list(theirs.generate(QUESTIONS[0], temperature=1.5, seed=5, max_tokens=12)) for _ in range(2))
    other = list(theirs.generate(QUESTIONS[0], temperature=1.5, seed=6, max_tokens=12))
    assert first == again != other


def test_log_probabilities(theirs):
    tokens = list(theirs.stream(QUESTIONS[0], temperature=0, max_tokens=4, top_logprobs=3))
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.top_logprobs[0] == (token.id, token.logprob)
        assert 0 >= token.logprob >= token.top_logprobs[1][1] >= token.top_logprobs[2][1]


def test_masks_are_obeyed_and_see_every_token(theirs):
    seen = []
    wanted = ids("<|channel|>final<|message|>Bonjour<|return|>")

    def only(generated):
        seen.append(list(generated))
        mask = np.zeros(theirs.vocab_size, bool)
        mask[wanted[len(generated)]] = True
        return mask

    said = [token.id for token in theirs.stream(QUESTIONS[0], stop_tokens=STOP, temperature=1, allowed_tokens=only)]
    assert shown(said) == shown(wanted)
    assert seen == [wanted[:n] for n in range(len(wanted))]


def test_a_broken_mask_ends_its_request_alone(theirs):
    def broken(generated):
        raise ValueError("no mask")

    other = theirs.stream(QUESTIONS[1], stop_tokens=STOP, temperature=0, max_tokens=20)
    with pytest.raises(GenerationError, match="no mask"):
        list(theirs.stream(QUESTIONS[0], allowed_tokens=broken))
    assert len(list(other)) > 1


def test_cancel_from_another_thread(theirs):
    generation = theirs.stream(QUESTIONS[0], temperature=1)
    threading.Timer(0.3, generation.cancel).start()
    assert len(list(generation)) < CONTEXT and generation.finish_reason == "cancelled"
    assert len(greedy(theirs, QUESTIONS[0])) > 1


def test_the_server_with_a_schema(theirs):
    from starlette.testclient import TestClient

    from gpt_oss.responses_api.api_server import create_api_server

    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    format = {"type": "json_schema", "name": "city", "schema": {**schema, "additionalProperties": False}}
    body = {"input": "The capital of France?", "text": {"format": format}, "max_output_tokens": 200}
    with TestClient(create_api_server(theirs)) as client:
        response = client.post("/v1/responses", json=body).json()
    assert response["status"] == "completed"
    assert response["output"][-1]["content"][0]["text"].replace(" ", "") in ('{"city":"Paris"}', '{"city":"Rome"}')


def test_what_cannot_be_loaded(tmp_path):
    from gpt_oss.backends import load_generator

    with pytest.raises(RequestError, match="weights"):
        load_generator("vllm", weights="bf16")
    with pytest.raises(Exception, match=str(tmp_path)):
        load_generator("vllm", tmp_path)


def test_a_closed_one_refuses(theirs):
    """Last: it closes the module's generator."""
    theirs.close()
    with pytest.raises(GenerationError, match="closed"):
        theirs.stream(QUESTIONS[0])
