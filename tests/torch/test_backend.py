"""The seam: whole prefill = any chunking = token by token; slots do not see each other; truncation is exact."""

import numpy as np
import pytest
import torch

from gpt_oss.errors import BackendUnavailable, ContextOverflow, OutOfMemory
from gpt_oss.torch.backend import TorchBackend, choose_device
from tests.helpers.models import ODD, random_tensors, relative_error, torch_model

BOUND = 1e-12


@pytest.fixture(scope="module")
def model():
    """In fp64, where sums in another order differ by next to nothing and rounding cannot decide a router's choice."""
    return torch_model(ODD, random_tensors(ODD, 21), torch.float64)


@pytest.fixture
def tokens():
    return np.random.default_rng().integers(0, ODD.vocab_size, 300).tolist()


def poisoned(model, slots=1, context_length=400):
    backend = TorchBackend(model, slots, context_length)
    backend.cache.keys.fill_(torch.nan)
    backend.cache.values.fill_(torch.nan)
    return backend


def chunked(backend, slot, tokens, sizes):
    start = 0
    for size in sizes:
        logits = backend.prefill(slot, tokens[start : start + size])
        start += size
    assert start == len(tokens)
    return logits


@pytest.mark.parametrize(
    "sizes", [[300], [1, 299], [127, 1, 1, 171], [128, 172], [5] * 60, [1] * 300], ids=lambda sizes: f"{len(sizes)}x"
)
def test_any_chunking_gives_the_logits_of_the_whole(model, tokens, sizes):
    expected = model(torch.tensor(tokens))[-1]
    assert relative_error(chunked(poisoned(model), 0, tokens, sizes), expected) < BOUND


def test_decode_is_prefill_of_one_token(model, tokens):
    backend = poisoned(model)
    expected = model(torch.tensor(tokens))
    backend.prefill(0, tokens[:120])
    for position in range(120, 150):
        assert relative_error(backend.decode([0], [tokens[position]])[0], expected[position]) < BOUND


def test_slots_of_unequal_length_decode_together(model, tokens):
    backend = poisoned(model, slots=4)
    lengths = {3: 1, 0: 127, 2: 200}
    for slot, length in lengths.items():
        backend.prefill(slot, tokens[slot : slot + length])
    together = backend.decode(list(lengths), [7, 8, 9])
    for row, (slot, length) in enumerate(lengths.items()):
        alone = model(torch.tensor([*tokens[slot : slot + length], 7 + row]))[-1]
        assert relative_error(together[row], alone) < BOUND


def test_truncate_then_continue_equals_a_fresh_start(model, tokens):
    backend = poisoned(model)
    backend.prefill(0, tokens)
    assert backend.truncate(0, 140) == 140
    assert backend.truncate(0, 200) == 140, "cannot remember what it forgot"
    other = tokens[::-1][:50]
    expected = model(torch.tensor(tokens[:140] + other))[-1]
    assert relative_error(backend.prefill(0, other), expected) < BOUND


def test_overflow_changes_nothing(model, tokens):
    backend = poisoned(model, context_length=310)
    backend.prefill(0, tokens)
    with pytest.raises(ContextOverflow, match="311 tokens do not fit the context of 310"):
        backend.prefill(0, tokens[:11])
    expected = model(torch.tensor([*tokens, 3]))[-1]
    assert relative_error(backend.decode([0], [3])[0], expected) < BOUND


def test_logits_are_fp32_in_bf16_too():
    backend = TorchBackend(torch_model(ODD, random_tensors(ODD, 22), torch.bfloat16), 2, 64)
    assert backend.prefill(1, [1, 2, 3]).dtype == torch.float32
    assert backend.decode([1], [4]).shape == (1, ODD.vocab_size)


def test_a_cache_that_no_machine_holds():
    model = torch_model(ODD, random_tensors(ODD, 22), torch.bfloat16)
    with pytest.raises(OutOfMemory, match=r"the cache of 1000000000000 x 64 tokens needs [\d.]+ GiB but cpu has"):
        TorchBackend(model, 10**12, 64)


@pytest.mark.parametrize("name", ["nonsense", "cuda:7", "cuda", "meta"])
def test_devices_that_are_not_there(name):
    if name.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendUnavailable, match=f"device '{name}' cannot be used here"):
        choose_device(name)
