"""What surrounds the kernels on a card, where there is none: devices of operands, the current card, recorded graphs.

tests/pretend_device.py plays the card, Triton's interpreter runs the kernels; with a real one test_gpu.py does more.
"""

import pytest
import torch

from gpt_oss.config import ModelConfig
from gpt_oss.synthetic import write_synthetic
from gpt_oss.triton.model import TokenGenerator
from tests.pretend_device import pretended_card
from tests.triton.conftest import INTERPRETED

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="a real card is here")

TINY = ModelConfig(
    num_hidden_layers=2, num_experts=4, experts_per_token=2, vocab_size=64, hidden_size=32, intermediate_size=32,
    head_dim=16, num_attention_heads=4, num_key_value_heads=2,
)  # fmt: skip
PROMPT = list(range(1, 12))
REQUESTS = [
    {"temperature": 1.0, "seed": 7, "top_logprobs": 3},
    {"temperature": 0.8, "seed": 1, "top_p": 0.9},  # filters are the engine's: one step at a time
]


@pytest.fixture
def card(monkeypatch):
    with pretended_card(monkeypatch, triton=True):
        yield


def answers(generator):
    """One request on its own, then both at once, with a prefix that is cached."""
    with generator:
        alone = list(generator.stream(PROMPT, max_tokens=3, **REQUESTS[0]))
        running = [generator.stream(PROMPT[: 8 + n], max_tokens=3, **r) for n, r in enumerate(REQUESTS)]
        return [alone, *(list(answer) for answer in running)]


def test_answers_of_a_card_are_those_of_the_interpreter_alone(tmp_path, request):
    path = write_synthetic(tmp_path / "model", TINY)
    expected = answers(TokenGenerator(path, 16, "cpu", slots=2))
    request.getfixturevalue("card")
    generator = TokenGenerator(path, 16, "cuda", slots=2)
    model = generator.backend.model
    assert model.device.type == "cuda"
    assert sorted(model.steps._graphs) == [1, 2]  # recorded at load
    assert answers(generator) == expected


def test_a_graph_runs_when_it_is_replayed_and_refuses_what_allocates(card):
    x, index, out = torch.arange(3.0, device="cuda"), torch.tensor([2, 0], device="cuda"), torch.zeros(2, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        torch.index_select(x, 0, index, out=out)
    assert out.tolist() == [0, 0]
    graph.replay()
    assert out.tolist() == [2, 0]
    with torch.cuda.graph(graph), pytest.raises(RuntimeError, match="while a graph is captured"):
        x + 1
