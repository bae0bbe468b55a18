"""The whole backend against the torch backend: same logits, same tokens, exact reuse of caches, clear errors."""

import itertools

import numpy as np
import pytest
import torch

from gpt_oss.config import ModelConfig
from gpt_oss.errors import BackendUnavailable, CheckpointError, ContextOverflow, OutOfMemory
from gpt_oss.synthetic import write_synthetic
from gpt_oss.torch.backend import TorchBackend
from gpt_oss.torch.model import Transformer as TorchTransformer
from gpt_oss.triton import cache as kv_cache
from gpt_oss.triton import variants
from gpt_oss.triton.backend import SampledRow, TritonBackend
from gpt_oss.triton.model import TokenGenerator, Transformer
from gpt_oss.triton.weights import weight_bytes

TINY = ModelConfig(
    num_hidden_layers=3, num_experts=4, experts_per_token=2, vocab_size=331, hidden_size=64, intermediate_size=32,
    head_dim=16, num_attention_heads=16, num_key_value_heads=4, sliding_window=8,
)  # fmt: skip
CONTEXT = 100


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    write_synthetic(path, TINY, seed=int.from_bytes(np.random.bytes(2)))
    return path


@pytest.fixture(scope="module")
def reference(checkpoint):
    return TorchBackend(TorchTransformer.from_checkpoint(checkpoint, "cpu", torch.float32), 3, CONTEXT)


@pytest.fixture
def backend(checkpoint, device):
    """A margin of 16 makes rings of 24 places, so that these short sequences wrap."""
    model = Transformer.from_checkpoint(
        checkpoint, device, dtype=torch.float32, slots=3, context_length=CONTEXT, margin=16
    )
    return TritonBackend(model)


@pytest.fixture
def tokens(generator):
    return torch.randint(0, TINY.vocab_size, (CONTEXT,), generator=generator).tolist()


def restart(reference):
    for slot in range(3):
        reference.truncate(slot, 0)


def assert_same(found, expected):
    assert (found.cpu() - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_prefill_in_pieces_and_batched_decode_equal_torch(reference, backend, tokens):
    restart(reference)
    assert_same(backend.prefill(0, tokens[:37]), reference.prefill(0, tokens[:37]))
    assert_same(backend.prefill(0, tokens[37:40]), reference.prefill(0, tokens[37:40]))
    assert_same(backend.prefill(2, tokens[:1]), reference.prefill(2, tokens[:1]))
    assert_same(backend.decode([0], [5]), reference.decode([0], [5]))
    assert_same(backend.decode([2, 0], [6, 7]), reference.decode([2, 0], [6, 7]))
    assert_same(backend.prefill(2, tokens[:3]), reference.prefill(2, tokens[:3]))


def test_truncation_is_exact_within_the_margin_and_starts_again_beyond(reference, backend, tokens):
    restart(reference)
    backend.prefill(0, tokens[:60])
    reference.prefill(0, tokens[:60])
    assert backend.truncate(0, 45) == reference.truncate(0, 45) == 45
    assert_same(backend.prefill(0, tokens[:2]), reference.prefill(0, tokens[:2]))
    assert backend.truncate(0, 20) == 0
    reference.truncate(0, 0)
    assert_same(backend.prefill(0, tokens[:20]), reference.prefill(0, tokens[:20]))
    assert backend.truncate(0, 99) == 20


def test_every_truncation_that_stays_is_right(reference, backend, tokens):
    """At each depth the backend may keep or drop; what it keeps must continue like a fresh sequence."""
    for length in (59, 44, 43, 42):
        backend.truncate(1, 0)
        backend.prefill(1, tokens[:60])
        kept = backend.truncate(1, length)
        assert kept in (0, length)
        reference.truncate(1, 0)
        assert_same(backend.prefill(1, [9]), reference.prefill(1, [*tokens[:kept], 9]))


def test_greedy_tokens_equal_torch_and_the_sampled_pipeline(reference, backend, tokens):
    restart(reference)
    expected = [int(reference.prefill(0, tokens[:9]).argmax())]
    for _ in range(6):
        expected.append(int(reference.decode([0], expected[-1:])[0].argmax()))
    assert int(backend.prefill(0, tokens[:9]).argmax()) == expected[0]
    steps = itertools.islice(backend.decode_sampled([SampledRow(0, expected[0])]), 3)
    assert [rows[0][0] for rows in steps] == expected[1:4]
    assert backend.model.cache.lengths[0] == 9 + 3
    assert backend.truncate(0, 99) == 12
    assert int(backend.decode([0], [expected[3]])[0].argmax()) == expected[4]


def test_the_sampled_pipeline_equals_engine_sampling_and_fills_the_context(backend, tokens):
    from gpt_oss.sampling import RowSettings, sample

    seed, first = 11, tokens[0]
    backend.prefill(0, tokens[:96])
    backend.prefill(1, tokens[:5])
    rows = [SampledRow(0, first, 0.9, seed, 4), SampledRow(1, first, 1.1, seed + 1, 7)]
    found = list(backend.decode_sampled(rows))
    assert len(found) == 4  # slot 0 is full then
    assert backend.model.cache.lengths[:2] == [100, 9]
    backend.truncate(0, 96)
    backend.truncate(1, 5)
    fed = [first, first]
    for step, pairs in enumerate(found):
        settings = [RowSettings(row.temperature, seed=row.seed, step=row.step + step) for row in rows]
        logits = backend.decode([0, 1], fed)
        fed = sample(logits, settings).tolist()
        assert fed == [token for token, _ in pairs]
        for row, (token, logprob) in enumerate(pairs):
            assert logits[row].log_softmax(-1)[token].item() == pytest.approx(logprob, abs=1e-4)


def test_the_generator_answers_like_torch(checkpoint, reference, device, tokens):
    restart(reference)
    with TokenGenerator(checkpoint, 40, None if device.type == "cpu" else device) as generator:
        assert generator.context_length == 40
        found = list(generator.generate(tokens[:5], temperature=0.0, max_tokens=3))
    assert len(found) == 3


def test_context_is_checked_before_anything_is_computed(backend, tokens):
    with pytest.raises(ContextOverflow, match="101 more exceed the context of 100"):
        backend.prefill(0, [*tokens, 1])
    backend.prefill(0, tokens)
    with pytest.raises(ContextOverflow):
        backend.decode([0], [1])


def test_context_follows_from_free_memory():
    config = ModelConfig(num_hidden_layers=24, num_experts=32)
    per_token = kv_cache.bytes_per_token(config, torch.bfloat16)
    assert per_token == 24 * 1024
    ring = kv_cache.ring_bytes(config, 131072, torch.bfloat16)
    assert kv_cache.choose_context(config, None, 1, ring + 131072 * per_token, torch.bfloat16) == 131072
    assert kv_cache.choose_context(config, None, 1, ring + 9000 * per_token, torch.bfloat16) == 8960
    with pytest.raises(OutOfMemory, match=r"1 sequence.s. of 131072 tokens need .* and .* are free; choose"):
        kv_cache.choose_context(config, 131072, 1, ring + 9000 * per_token, torch.bfloat16)


def test_true_shapes_fit_the_cards_they_are_meant_for():
    small = weight_bytes(ModelConfig(num_hidden_layers=24, num_experts=32), torch.bfloat16)
    large = weight_bytes(ModelConfig(num_hidden_layers=36, num_experts=128), torch.bfloat16)
    assert small / 2**30 == pytest.approx(12.82, abs=0.02)
    assert large / 2**30 == pytest.approx(60.77, abs=0.05)


def test_errors_say_what_is_missing(monkeypatch, tmp_path):
    with pytest.raises(CheckpointError):
        Transformer.from_checkpoint(tmp_path / "absent")
    if torch.cuda.is_available():
        return
    monkeypatch.setattr(variants.triton.knobs.runtime, "interpret", False)
    with pytest.raises(BackendUnavailable, match="no CUDA device was found; choose --backend torch"):
        variants.choose_device(None)
    with pytest.raises(BackendUnavailable, match="runs on CUDA devices, not on cpu"):
        variants.choose_device("cpu")
    monkeypatch.setattr(variants.triton, "__version__", "3.4.0")
    with pytest.raises(BackendUnavailable, match=r"Triton 3\.6 or later is needed, found 3\.4\.0"):
        variants.choose_device("cuda")
