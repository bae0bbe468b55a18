"""The torch backend on a card, as far as a machine without one can tell: every tensor is where its operator needs it.

A pretended device (tests/pretend_device.py) computes on the CPU and refuses what CUDA would refuse.
"""

import pytest
import torch

from gpt_oss.config import ModelConfig
from gpt_oss.synthetic import write_synthetic
from gpt_oss.torch.backend import TokenGenerator
from tests.pretend_device import pretended_card

CONFIG = ModelConfig(
    num_hidden_layers=2, num_experts=4, experts_per_token=2, vocab_size=97, hidden_size=64, intermediate_size=32,
    head_dim=16, num_attention_heads=4, num_key_value_heads=2, sliding_window=8, initial_context_length=256,
)  # fmt: skip
PROMPT = list(range(1, 40))
REQUESTS = [
    {"temperature": 0.0, "top_logprobs": 5},
    {"temperature": 1.0, "seed": 7, "logprobs": True},
    {"temperature": 0.8, "seed": 1, "top_p": 0.9},
    {"temperature": 1.5, "seed": 2, "top_k": 5, "top_p": 0.5},
    {"temperature": 1.0, "seed": 3, "allowed_tokens": lambda _: torch.arange(97) % 2 == 0},
]


@pytest.fixture
def card(monkeypatch):
    with pretended_card(monkeypatch):
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_synthetic(tmp_path_factory.mktemp("models") / "model", CONFIG)


def answers(generator):
    """Every request on its own and all of them at once, the second time with a prefix that is cached."""
    with generator:
        alone = [list(generator.stream(PROMPT, max_tokens=5, **request)) for request in REQUESTS]
        running = [generator.stream(PROMPT[: 20 + n], max_tokens=5, **r) for n, r in enumerate(REQUESTS)]
        return alone, [list(answer) for answer in running]


def test_answers_of_a_card_are_those_of_the_cpu(checkpoint, request):
    options = {"slots": 3, "context_length": 64, "dtype": torch.float32, "weights": "bf16"}
    expected = answers(TokenGenerator(checkpoint, "cpu", **options))
    request.getfixturevalue("card")
    generator = TokenGenerator(checkpoint, **options)  # which takes the card by itself
    assert generator.backend.model.device == torch.device("cuda", 0)
    for found, wanted in zip(answers(generator), expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert [token.id for token in one] == [token.id for token in other]
            # On a CPU sums run in another order (gpt_oss/torch/cpu.py).
            assert [token.logprob for token in one] == pytest.approx([token.logprob for token in other], abs=1e-4)
            assert [[id for id, _ in token.top_logprobs] for token in one] == [
                [id for id, _ in token.top_logprobs] for token in other
            ]


def test_operands_on_different_devices_are_refused(card):
    there = torch.ones(2, device="cuda")
    assert (there * torch.tensor(2.0)).device == there.device  # numbers may come from anywhere
    assert there[torch.tensor([0])].tolist() == [1.0]  # and so may indices
    with pytest.raises(RuntimeError, match="different devices"):
        there + torch.ones(2)
    there[:1] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="with one on cpu"):
        there[torch.tensor([0])] = torch.zeros(2)
