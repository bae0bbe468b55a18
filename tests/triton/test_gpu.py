"""What only a card can show: the assembly variant in BF16 and CUDA graphs against the torch backend in fp32."""

import pytest
import torch

from gpt_oss.config import ModelConfig
from gpt_oss.synthetic import write_synthetic
from gpt_oss.torch.backend import TorchBackend
from gpt_oss.torch.model import Transformer as TorchTransformer
from gpt_oss.triton.backend import TritonBackend
from gpt_oss.triton.model import Transformer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WIDE = ModelConfig(num_hidden_layers=2, num_experts=8, vocab_size=2048)
ERROR_BOUND = 3e-2  # of the largest logit: BF16 activations against fp32


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "wide"
    write_synthetic(path, WIDE)
    ours = TritonBackend(Transformer.from_checkpoint(path, "cuda", slots=4, context_length=100_100))
    theirs = TorchBackend(TorchTransformer.from_checkpoint(path, "cuda", torch.float32), 4, 100_100)
    return ours, theirs


@pytest.mark.parametrize("positions", [1, 100, 4_000, 100_000])
def test_logits_equal_torch_in_fp32(backends, positions):
    ours, theirs = backends
    tokens = torch.randint(0, WIDE.vocab_size, (positions,)).tolist()
    for backend in backends:
        backend.truncate(0, 0)
    pairs = [(ours.prefill(0, tokens), theirs.prefill(0, tokens))]
    pairs += [(ours.decode([0], [n])[0].clone(), theirs.decode([0], [n])[0]) for n in range(4)]
    for found, expected in pairs:
        assert (found - expected).abs().max() <= ERROR_BOUND * expected.abs().max()
        # Random weights leave near-ties: the chosen token must be the best within the bound.
        assert expected[found.argmax()] >= expected.max() - ERROR_BOUND * expected.abs().max()


def test_a_replayed_graph_equals_the_first_run(backends):
    ours, _ = backends
    for rows in ([0], [0, 1], [0, 1, 2]):
        results = []
        for _ in range(3):
            for slot in rows:
                ours.truncate(slot, 0)
                ours.prefill(slot, [1 + slot, 2, 3])
            results.append(ours.decode(rows, [5] * len(rows)).clone())
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[1], results[2])
