"""The whole backend against the torch backend: same logits, same tokens, exact reuse of caches, clear errors."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest
import torch

from benchmarks.gpu.random_weights import HostWeights
from gpt_oss.checkpoint import Checkpoint
from gpt_oss.config import ModelConfig
from gpt_oss.demo import demo_checkpoint
from gpt_oss.errors import BackendUnavailable, CheckpointError, ContextOverflow, OutOfMemory, RequestError
from gpt_oss.scheduler import SampledRow
from gpt_oss.synthetic import write_synthetic
from gpt_oss.token_generator import EngineTokenGenerator
from gpt_oss.tokenizer import get_tokenizer
from gpt_oss.torch.backend import TorchBackend
from gpt_oss.torch.model import Transformer as TorchTransformer
from gpt_oss.triton import cache as kv_cache
from gpt_oss.triton import variants
from gpt_oss.triton.backend import TritonBackend
from gpt_oss.triton.decode import key_splits
from gpt_oss.triton.model import TokenGenerator, Transformer
from gpt_oss.triton.weights import WORKSPACE_BYTES, load_weights, room_beside_weights, weight_bytes
from tests.helpers.models import decided

TINY = ModelConfig(
    num_hidden_layers=2, num_experts=4, experts_per_token=2, vocab_size=131, hidden_size=64, intermediate_size=32,
    head_dim=16, num_attention_heads=8, num_key_value_heads=2, sliding_window=8,
)  # fmt: skip
CONTEXT = 36
BF16_BOUND = 3e-2  # of the largest logit: BF16 activations against fp32


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
        checkpoint, device, dtype=torch.float32, slots=4, context_length=CONTEXT, margin=16
    )
    return TritonBackend(model)


@pytest.fixture(scope="module")
def routed_alike(tmp_path_factory):
    """Every expert is chosen by every token, so that rounding cannot change the choice: a BF16 error is bounded."""
    path = tmp_path_factory.mktemp("models") / "routed_alike"
    write_synthetic(path, dataclasses.replace(TINY, num_experts=2), seed=int.from_bytes(np.random.bytes(2)))
    return path


@pytest.fixture
def tokens(generator, reference):
    """The last one alone, and after the first 13, is clear to the routers too; their logits are off by up to 3e-7."""

    def draw():
        return torch.randint(0, TINY.vocab_size, (CONTEXT,), generator=generator).tolist()

    return decided(reference.model, draw, 1e-5, lambda drawn: ([*drawn[:13], drawn[-1]], drawn[-1:]))


def restart(reference):
    for slot in range(3):
        reference.truncate(slot, 0)


def assert_same(found, expected):
    assert (found.cpu() - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_prefill_in_pieces_and_batched_decode_equal_torch(reference, backend, tokens):
    restart(reference)
    assert_same(backend.prefill(0, tokens[:19]), reference.prefill(0, tokens[:19]))  # a chunk of 17 and one of 2
    assert_same(backend.prefill(0, tokens[19:22]), reference.prefill(0, tokens[19:22]))
    assert_same(backend.prefill(2, tokens[:1]), reference.prefill(2, tokens[:1]))
    assert_same(backend.decode([0], [tokens[22]]), reference.decode([0], [tokens[22]]))
    pair = [tokens[1], tokens[23]]
    assert_same(backend.decode([2, 0], pair), reference.decode([2, 0], pair))
    assert_same(backend.prefill(2, tokens[2:4]), reference.prefill(2, tokens[2:4]))


def test_truncation_is_exact_within_the_margin_and_starts_again_beyond(reference, backend, tokens):
    """30 tokens in rings of 24 places: a cut to 13 still finds the 8 keys it sees, one to 12 lacks the oldest."""
    restart(reference)
    last = tokens[-1:]
    backend.prefill(0, tokens[:30])
    assert backend.truncate(0, 13) == 13
    assert_same(backend.prefill(0, last), reference.prefill(0, [*tokens[:13], *last]))
    assert backend.truncate(0, 99) == 14
    assert backend.truncate(0, 12) == 0
    restart(reference)
    assert_same(backend.prefill(0, last), reference.prefill(0, last))


def test_the_sampled_pipeline_may_be_left_at_any_step(reference, backend, tokens):
    """Greedy as in torch; what was computed ahead is taken back, but its place in the rings is used."""
    restart(reference)
    backend.prefill(0, tokens[:28])
    reference.prefill(0, tokens[:28])
    chosen = int(reference.decode([0], [tokens[28]])[0].argmax())
    steps = backend.decode_sampled([SampledRow(0, tokens[28])])
    assert [token.id for token in next(steps)] == [chosen]
    steps.close()
    assert backend.truncate(0, 99) == 29
    assert_same(backend.decode([0], [chosen]), reference.decode([0], [chosen]))
    assert backend.truncate(0, 13) == 13
    restart(reference)
    assert_same(backend.prefill(0, tokens[-1:]), reference.prefill(0, [*tokens[:13], tokens[-1]]))


def test_keys_are_shared_by_eight_programs_and_more_where_the_card_has_room():
    """An H100's 132 processors, 8 key-value heads: a long sequence among 32 short ones is still cut in eight."""
    assert [key_splits(132, batch, 8) for batch in (1, 2, 4, 32)] == [32, 16, 8, 8]


@pytest.mark.parametrize(("length", "kept"), [(13, 13), (12, 0)])
def test_a_place_written_ahead_is_no_longer_free(length, kept):
    """Rings of 24 places, 29 tokens and one more that was written and taken back."""
    cache = kv_cache.KVCache(TINY, 1, CONTEXT, torch.device("cpu"), torch.float32, margin=16)
    cache.grow(0, 29)
    cache.wrote(0, 30)
    assert cache.truncate(0, length) == kept


def test_the_sampled_pipeline_follows_torch_and_fills_the_context(reference, backend, tokens):
    """Three rows in a step for four: the row of padding must follow the first one from step to step."""
    restart(reference)
    first, begun = tokens[0], [CONTEXT - 3, 5, 1]
    for slot, length in enumerate(begun):
        backend.prefill(slot, tokens[:length])
        reference.prefill(slot, tokens[:length])
    rows = [SampledRow(0, first, 0.9, 11, 4), SampledRow(1, first, 1.1, 12, 7, 20), SampledRow(2, first, 0, 0, 0, 3)]
    found = list(backend.decode_sampled(rows))
    assert len(found) == 3  # slot 0 is full then
    assert backend.model.cache.lengths == [CONTEXT, 8, 4, 0]
    fed = [first] * 3
    for chosen in found:
        logprobs = reference.decode([0, 1, 2], fed).log_softmax(-1)
        fed = [token.id for token in chosen]
        for row, token in zip(rows, chosen, strict=True):
            assert logprobs[row.slot, token.id].item() == pytest.approx(token.logprob, abs=1e-4)
            assert len(token.top_logprobs) == row.alternatives
            best = logprobs[row.slot].topk(row.alternatives).values.tolist()
            assert [logprob for _, logprob in token.top_logprobs] == pytest.approx(best, abs=1e-4)
            for id, logprob in token.top_logprobs:
                assert logprobs[row.slot, id].item() == pytest.approx(logprob, abs=1e-4)
        assert chosen[2].top_logprobs[0] == (chosen[2].id, chosen[2].logprob)
        assert logprobs[2, fed[2]] >= logprobs[2].max() - 1e-4


def test_the_generator_answers_like_torch(routed_alike, device, tokens):
    """BF16 against fp32: each token is the reference's best one, given those before it, or equal to it but for that."""
    reference = TorchBackend(TorchTransformer.from_checkpoint(routed_alike, "cpu", torch.float32), 1, CONTEXT)
    with TokenGenerator(routed_alike, 30, None if device.type == "cpu" else device) as generator:
        assert generator.context_length == 30
        found = list(generator.generate(tokens[:5], temperature=0.0, max_tokens=3))
    assert len(found) == 3
    logits = reference.prefill(0, tokens[:5])
    for token in found:
        assert logits[token] >= logits.max() - BF16_BOUND * logits.abs().max()
        logits = reference.decode([0], [token])[0]


def demo_backends(device, context):
    """The embedded model in fp32, ours and torch's; the vocabulary in few pieces, which the interpreter pays for."""
    variant = variants.choose_variant(device, torch.float32)
    if device.type == "cpu":
        variant = dataclasses.replace(variant, tiles=dataclasses.replace(variant.tiles, vocab_rows=8192))
    with Checkpoint(demo_checkpoint()) as checkpoint:
        ours = Transformer.from_source(checkpoint, device, variant, context_length=context)
    theirs = TorchTransformer.from_checkpoint(demo_checkpoint(), "cpu", torch.float32)
    return TritonBackend(ours), TorchBackend(theirs, 1, context)


def greedy(backend, prompt, count):
    """Tokens and the logits that chose them."""
    logits = [backend.prefill(0, prompt).cpu()]
    while len(logits) < count:
        logits.append(backend.decode([0], [int(logits[-1].argmax())])[0].cpu().clone())  # the step's buffer is reused
    return [int(row.argmax()) for row in logits], logits


def test_the_demo_model_says_the_same_as_in_torch(device):
    prompt = get_tokenizer().encode("Hello")
    ours, theirs = demo_backends(device, 64)
    (found, found_logits), (expected, logits) = greedy(ours, prompt, 2), greedy(theirs, prompt, 2)
    assert found == expected
    for row, twin in zip(found_logits, logits, strict=True):
        assert_same(row, twin)


@pytest.mark.slow
def test_the_demo_model_holds_a_conversation_as_in_torch(device):
    """A whole answer in Harmony through both engines: ours samples on the device, a step ahead."""
    pytest.importorskip("openai_harmony", reason="a machine lent for its card may lack the packages of conversations")
    from gpt_oss.harmony.prompt import conversation_start, render_for_completion, text_message

    prompt = render_for_completion([*conversation_start(), text_message("user", "What is the capital of France?")])
    answers = []
    for backend in demo_backends(device, 512):
        with EngineTokenGenerator(backend) as generator:
            answers.append(list(generator.generate(prompt, temperature=0.0, max_tokens=40)))
    assert answers[0] == answers[1]


def test_a_model_that_nobody_holds_is_gone_at_once(checkpoint, device):
    """Without a search for circles of references, which may come late while the card is full."""
    model = Transformer.from_checkpoint(checkpoint, device, dtype=torch.float32, context_length=8)
    model.steps.step(1)
    held = weakref.ref(model.weights)
    gc.disable()
    try:
        del model
        assert held() is None
    finally:
        gc.enable()


def test_context_is_checked_before_anything_is_computed(backend, tokens):
    with pytest.raises(ContextOverflow, match="37 more exceed the context of 36"):
        backend.prefill(0, [*tokens, 1])
    backend.model.cache.grow(0, CONTEXT)
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


def test_a_context_beyond_the_models_is_refused_before_anything_is_read(device):
    class Unreadable:
        config = TINY

        def read(self, name, index=()):
            raise AssertionError("read before it was checked")

    variant = variants.choose_variant(device, torch.float32)
    with pytest.raises(
        RequestError, match="the model has a context of 131072 tokens, got 131073; choose a shorter one"
    ):
        Transformer.from_source(Unreadable(), device, variant, context_length=131073)


def test_weights_that_do_not_fit_are_refused_with_both_sizes(monkeypatch):
    config = ModelConfig(num_hidden_layers=24, num_experts=32)
    needed = weight_bytes(config, torch.bfloat16) + WORKSPACE_BYTES
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed + 5, 80 << 30))
    assert room_beside_weights(config, cuda, torch.bfloat16) == 5
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (needed - 1, 80 << 30))
    with pytest.raises(
        OutOfMemory, match=rf"the weights need {needed:,} bytes .* has {needed - 1:,} free; close other"
    ):
        room_beside_weights(config, cuda, torch.bfloat16)


def test_a_card_that_fills_up_while_loading_is_named_and_nothing_is_kept(device, monkeypatch):
    class Full:
        config = TINY

        def read(self, name, index=()):
            raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 << 30, 16 << 30))
    with pytest.raises(
        OutOfMemory, match=r"ran out of memory while loading \(5,368,709,120 of 17,179,869,184"
    ) as caught:
        Transformer.from_source(Full(), device, variants.choose_variant(device, torch.float32))
    assert caught.value.__context__ is None  # whose traceback would hold what was loaded


def test_experts_in_bf16_are_refused(device):
    class Dense:
        config, names = TINY, ("block.0.mlp.mlp1_weight",)

    with pytest.raises(CheckpointError, match="stored in BF16, the triton backend reads MXFP4; use --backend torch"):
        load_weights(Dense(), device, torch.float32)


def test_a_scale_that_is_not_a_number_is_refused(device):
    class Damaged(HostWeights):
        def read(self, name, index=()):
            array = super().read(name, index)
            if name == "block.1.mlp.mlp2_weight.scales" and index == (3,):
                array = array.copy()
                array[-1, -1] = 255
            return array

    with pytest.raises(CheckpointError, match=r"block\.1\.mlp\.mlp2_weight\.scales holds the byte 255"):
        load_weights(Damaged(TINY), device, torch.float32, progress=False)


def test_true_shapes_fit_the_cards_they_are_meant_for():
    small = weight_bytes(ModelConfig(num_hidden_layers=24, num_experts=32), torch.bfloat16)
    large = weight_bytes(ModelConfig(num_hidden_layers=36, num_experts=128), torch.bfloat16)
    assert small / 2**30 == pytest.approx(12.82, abs=0.02)
    assert large / 2**30 == pytest.approx(60.77, abs=0.05)


def test_prepared_kernels_leave_the_slots_empty(checkpoint, reference, device, tokens):
    """Every batch size was run, and lengths up to a context that is shorter than there are batch sizes."""
    model = Transformer.from_checkpoint(checkpoint, device, dtype=torch.float32, slots=2, context_length=2)
    model.prepare()
    assert model.cache.lengths == model.cache.device_lengths.tolist() == [0, 0]
    assert sorted(model.steps._steps) == [1, 2]
    restart(reference)
    assert_same(model.prefill(1, tokens[:2]), reference.prefill(1, tokens[:2]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a card has a compiler")
def test_kernels_that_cannot_be_built_are_told_before_the_weights_are_read():
    """Tensors without memory fail a launch, as on a machine without a compiler."""
    with pytest.raises(BackendUnavailable, match=r"kernels here \(NotImplementedError: .*tensor.*\); it needs a C"):
        variants.check_compiler(torch.device("meta"))


@pytest.mark.parametrize(("version", "dependent"), [(12020, False), (12030, True)])
def test_old_drivers_record_no_dependent_launches(monkeypatch, version, dependent):
    monkeypatch.setattr(variants.triton.knobs.runtime, "interpret", False)
    monkeypatch.setattr(variants, "driver_version", lambda: version)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    assert variants.choose_variant(torch.device("cuda", 0)).dependent_launch == dependent


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
    with pytest.raises(BackendUnavailable, match="'gpu1' is no device; give cuda, or cuda:1"):
        variants.choose_device("gpu1")
    for name, value in (("is_available", True), ("device_count", 1), ("current_device", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 0))
    with pytest.raises(
        BackendUnavailable, match=r"Tesla V100 has compute capability 7\.0; 8\.0 \(Ampere\) or later is"
    ):
        variants.choose_device("cuda")
    with pytest.raises(BackendUnavailable, match=r"cuda:3 does not exist; this machine has 1 CUDA device"):
        variants.choose_device("cuda:3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 0))
    assert variants.choose_device(None) == torch.device("cuda", 0)
    monkeypatch.setattr(variants.triton, "__version__", "3.4.0")
    with pytest.raises(BackendUnavailable, match=r"Triton 3\.6 or later is needed, found 3\.4\.0"):
        variants.choose_device("cuda")
