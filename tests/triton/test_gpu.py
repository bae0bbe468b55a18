"""What only a card can show: BF16 against the torch backend in fp32, CUDA graphs, threads, memory at true shapes.

With a card the tests of the other files run there too, in fp32 and BF16 (conftest.py): `pytest -m gpu tests/triton`, or
with `-m "gpu and not slow"` those that take a few minutes.
"""

import gc
import threading

import pytest
import torch

from benchmarks.gpu.random_weights import MODELS, HostWeights
from gpt_oss.config import ModelConfig
from gpt_oss.errors import OutOfMemory
from gpt_oss.scheduler import SampledRow
from gpt_oss.synthetic import write_synthetic
from gpt_oss.torch.backend import TorchBackend
from gpt_oss.torch.model import Transformer as TorchTransformer
from gpt_oss.triton.backend import TritonBackend
from gpt_oss.triton.model import Transformer
from gpt_oss.triton.variants import choose_variant
from gpt_oss.triton.weights import load_weights, weight_bytes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# True widths. A choice of experts jumps where two of them are nearly equal, and random weights have such places at any
# precision: BF16 is compared where all experts are chosen, so that its error has a bound, and choices in fp32.
ALL_CHOSEN = ModelConfig(num_hidden_layers=2, num_experts=4, vocab_size=2048)
SOME_CHOSEN = ModelConfig(num_hidden_layers=2, num_experts=8, vocab_size=2048)
# Of the largest logit. torch's own BF16 differs from its fp32 by 1.0 to 1.7 % here (and with eight experts by up to
# 2.7 %, where a choice differs); fp32 sums in another order by far less than a choice would.
BF16_BOUND, FP32_BOUND = 3e-2, 1e-3


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "all_chosen"
    write_synthetic(path, ALL_CHOSEN)
    ours = TritonBackend(Transformer.from_checkpoint(path, "cuda", slots=4, context_length=100_100))
    theirs = TorchBackend(TorchTransformer.from_checkpoint(path, "cuda", torch.float32), 1, 100_100)
    return ours, theirs


@pytest.mark.parametrize("positions", [1, 100, 4_000, 100_000])
def test_logits_equal_torch_in_fp32(backends, positions):
    compare(*backends, positions, BF16_BOUND)


@pytest.mark.parametrize("positions", [1, 100, 4_000])
def test_choices_of_experts_equal_torch(tmp_path_factory, positions):
    path = tmp_path_factory.mktemp("models") / "some_chosen"
    write_synthetic(path, SOME_CHOSEN)
    ours = TritonBackend(Transformer.from_checkpoint(path, "cuda", dtype=torch.float32, context_length=4_010))
    theirs = TorchBackend(TorchTransformer.from_checkpoint(path, "cuda", torch.float32), 1, 4_010)
    compare(ours, theirs, positions, FP32_BOUND)


def compare(ours, theirs, positions, bound):
    tokens = torch.randint(0, theirs.vocab_size, (positions,)).tolist()
    for backend in (ours, theirs):
        backend.truncate(0, 0)
    pairs = [(ours.prefill(0, tokens), theirs.prefill(0, tokens))]
    # Up to here by the kernels of a prefill, from here on by those of a decode step.
    pairs += [(ours.decode([0], [n])[0].clone(), theirs.decode([0], [n])[0]) for n in range(4)]
    for found, expected in pairs:
        error = bound * expected.abs().max()
        assert (found - expected).abs().max() <= error
        # The same best token, or one that equals it but for the error.
        assert expected[found.argmax()] >= expected.max() - error


def test_every_batch_size_is_recorded_at_load(backends):
    steps = backends[0].model.steps
    assert sorted(steps._graphs) == steps.buckets == [1, 2, 4]


def test_a_replayed_graph_equals_a_run_of_its_kernels(backends):
    ours, _ = backends
    steps = ours.model.steps
    for rows in ([0], [0, 1], [0, 1, 2]):
        del steps._graphs[steps.bucket(len(rows))]  # so that the first step runs by itself and is recorded again
        results = []
        for _ in range(3):
            for slot in rows:
                ours.truncate(slot, 0)
                ours.prefill(slot, [1 + slot, 2, 3])
            results.append(ours.decode(rows, [5] * len(rows)).clone())
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[1], results[2])


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_run_ahead_sampling_equals_single_steps(backends, rows):
    """Three rows leave one of padding in the graph for four."""
    ours, _ = backends
    for slot in range(rows):
        ours.truncate(slot, 0)
        ours.prefill(slot, [1 + slot, 2, 3])
    steps = ours.decode_sampled([SampledRow(slot, 5, alternatives=4) for slot in range(rows)])
    found = [next(steps) for _ in range(6)]
    steps.close()
    for slot in range(rows):
        ours.truncate(slot, 3)
    fed = [5] * rows
    for chosen in found:
        logits = ours.decode(range(rows), fed)
        fed = logits.argmax(-1).tolist()
        assert fed == [token.id for token in chosen]
        for row, token in zip(logits.log_softmax(-1), chosen, strict=True):
            assert row[token.id].item() == pytest.approx(token.logprob, abs=1e-3)
            best = pytest.approx(row.topk(4).values.tolist(), abs=1e-3)
            assert [logprob for _, logprob in token.top_logprobs] == best
            assert [row[id].item() for id, _ in token.top_logprobs] == best


def test_another_thread_computes_on_the_models_card(backends):
    """A thread begins with card 0 as its own; the engine's thread is such a one."""
    ours, _ = backends
    ours.truncate(0, 0)
    expected = ours.prefill(0, [1, 2, 3])
    found = []

    def work() -> None:
        ours.truncate(0, 0)
        found.append(ours.prefill(0, [1, 2, 3]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert torch.equal(found[0], expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_card_computes_what_the_first_does(tmp_path):
    write_synthetic(tmp_path, SOME_CHOSEN)
    results = []
    for card in ("cuda:0", "cuda:1"):
        backend = TritonBackend(Transformer.from_checkpoint(tmp_path, card, context_length=512))
        logits = [backend.prefill(0, [1, 2, 3]), *(backend.decode([0], [n])[0].clone() for n in range(3))]
        results.append([row.cpu() for row in logits])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize(("name", "most_gib"), [("20b", 15.5), ("120b", 66.0)])
def test_memory_at_true_shapes(name, most_gib):
    """Loading peaks at 10 % above the weights; a model with 8k of context, and a prefill of it, at the stated bound."""
    config, card = MODELS[name], torch.device("cuda", torch.cuda.current_device())
    _empty()
    if torch.cuda.mem_get_info(card)[0] < (most_gib + 1) * 2**30:
        pytest.skip(f"needs {most_gib + 1} GiB of free memory on the card")
    before, reserved_before = torch.cuda.memory_stats(), torch.cuda.memory_reserved()
    variant = choose_variant(card)
    weights = load_weights(HostWeights(config), card, variant.activations, progress=False)
    size = weight_bytes(config, variant.activations)
    after = torch.cuda.memory_stats()
    # As asked for: what the allocator rounds up (to half a megabyte a tensor) belongs to the bound on the whole.
    assert after["requested_bytes.all.current"] - before["requested_bytes.all.current"] == pytest.approx(size, rel=1e-5)
    assert after["allocated_bytes.all.peak"] - before["allocated_bytes.all.current"] <= 1.1 * size
    backend = TritonBackend(Transformer(config, weights, variant, context_length=8192))
    backend.prefill(0, [7] * 8000)
    list(backend.decode_sampled([SampledRow(0, 1)]))
    # What the allocator has taken from the card, its slack and the graph's pool included.
    assert torch.cuda.max_memory_reserved() - reserved_before <= most_gib * 2**30
    del backend, weights
    _empty()


def _empty() -> None:
    torch.cuda.init()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def test_a_model_that_does_not_fit_leaves_nothing_behind(backends):
    """Neither where it is refused beforehand nor where the allocator gives up in the middle."""
    source, card = HostWeights(MODELS["120b"]), torch.device("cuda", torch.cuda.current_device())
    _empty()
    before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    total = torch.cuda.mem_get_info(card)[1]
    with pytest.raises(OutOfMemory, match=r"choose a context of at most|the weights need"):
        Transformer.from_source(source, card, choose_variant(card), slots=64, context_length=131072)
    assert torch.cuda.memory_allocated() == before
    torch.cuda.set_per_process_memory_fraction(min(1.0, (reserved + 2**31) / total), card)
    try:
        with pytest.raises(OutOfMemory, match=r"ran out of memory while loading|the weights need"):
            Transformer.from_source(source, card, choose_variant(card), context_length=1024)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, card)
    gc.collect()
    assert torch.cuda.memory_allocated() == before
