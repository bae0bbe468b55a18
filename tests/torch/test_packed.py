"""Packed experts: the same greedy tokens as BF16, with the native kernels and without, straight from the map."""

import numpy as np
import pytest
import torch

from gpt_oss import native
from gpt_oss.errors import BackendUnavailable
from gpt_oss.torch import packed, weights
from gpt_oss.torch.model import Transformer
from tests.helpers.checkpoints import tiny_checkpoint, tiny_config
from tests.helpers.models import relative_error


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("packed") / "model", seed=41)


@pytest.fixture(params=["native", "torch only"])
def library(request, monkeypatch):
    if request.param == "native" and native.load() is None:
        pytest.skip("the native library is not built (make native)")
    if request.param == "torch only":
        monkeypatch.setattr(packed.native, "load", lambda: None)


def test_greedy_tokens_equal_those_of_bf16(checkpoint, library):
    # Each step from BF16's own cache, after random tokens: greedy ones may end in a loop that repeats one tie for ever.
    # Sums in another order move a rounding here and there, so what BF16 itself holds for (nearly) equal may fall either
    # way: its two best tokens, or the last expert that a router takes and the first that it leaves. Where all is clear,
    # experts and token must be the same.
    bf16, mxfp4 = (Transformer.from_checkpoint(checkpoint, "cpu", weights=w) for w in ("bf16", "mxfp4"))
    caches = [model.new_cache(1, 300) for model in (bf16, mxfp4)]
    routed, k = [_routers(model) for model in (bf16, mxfp4)], bf16.config.experts_per_token
    compared = 0
    with torch.inference_mode():
        bf16(torch.from_numpy(np.random.default_rng().integers(0, 211, 140)), caches[0], last_only=True)
        for _ in range(60):
            caches[1].keys.copy_(caches[0].keys)
            caches[1].values.copy_(caches[0].values)
            caches[1].lengths[:] = caches[0].lengths
            token = torch.randint(0, 211, (1,))
            expected, actual = (m(token, c, last_only=True) for m, c in zip((bf16, mxfp4), caches, strict=True))
            for theirs, ours in zip(*(router() for router in routed), strict=True):
                if set(ours.topk(k).indices.tolist()) != set(theirs.topk(k).indices.tolist()):
                    best = theirs.topk(k + 1).values
                    assert best[-2] - best[-1] < 0.02 * theirs.abs().max(), "another expert without a tie"
                    break
            else:
                first, second = expected.topk(2).values
                if first - second > 0.02 * expected.abs().max():
                    assert int(actual.argmax()) == int(expected.argmax())
                    compared += 1
    assert compared > 15


def _routers(model):
    """A function that returns, layer by layer, the router's logits [e] of the last call's last token."""
    inputs = {}
    for layer, block in enumerate(model.block):
        block.mlp.register_forward_pre_hook(lambda _, args, layer=layer: inputs.update({layer: args[0]}))

    def logits():
        mlps = (block.mlp for block in model.block)
        return [m.router_logits(m.norm(inputs[i]))[0, -1].float() for i, m in enumerate(mlps)]

    return logits


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33])
def test_logits_stay_within_rounding(tmp_path, library, count):
    # Both round at the same places; sums in another order move a BF16 rounding here and there. Every expert is chosen,
    # because a router that is undecided would turn such a rounding into another expert.
    path = tiny_checkpoint(tmp_path / "model", tiny_config(experts_per_token=6), seed=42)
    bf16 = Transformer.from_checkpoint(path, "cpu")
    mxfp4 = Transformer.from_checkpoint(path, "cpu", weights="mxfp4")
    tokens = torch.randint(0, 211, (count,))
    assert relative_error(mxfp4(tokens), bf16(tokens)) < 0.03


def test_hugging_face_layout_too(tmp_path, library):
    path = tiny_checkpoint(tmp_path / "hf", seed=41, layout="huggingface", shards=3)
    same = tiny_checkpoint(tmp_path / "original", seed=41)
    tokens = torch.arange(50)
    logits = [Transformer.from_checkpoint(p, "cpu", weights="mxfp4")(tokens) for p in (path, same)]
    assert torch.equal(*logits)


def test_weights_stay_in_the_file(checkpoint):
    model = Transformer.from_checkpoint(checkpoint, "cpu", weights="mxfp4")
    assert isinstance(model.block[0].mlp.mlp1.blocks.base, np.memmap | np.ndarray)
    assert not model.block[0].mlp.mlp1.blocks.flags.owndata
    assert "block.0.mlp.mlp1_weight" not in dict(model.named_parameters())


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"dtype": torch.float32}, "the type is torch.float32, not bfloat16")],
)
def test_what_cannot_be_packed_says_why(checkpoint, options, reason):
    with pytest.raises(BackendUnavailable, match=f"cannot stay packed: {reason}; use --weights bf16"):
        Transformer.from_checkpoint(checkpoint, "cpu", weights="mxfp4", **options)


def test_a_dense_checkpoint_cannot_be_packed(tmp_path):
    path = tiny_checkpoint(tmp_path / "dense", tiny_config(num_hidden_layers=1), quantized=False)
    with pytest.raises(BackendUnavailable, match="the checkpoint is not quantised"):
        Transformer.from_checkpoint(path, "cpu", weights="mxfp4")
    assert Transformer.from_checkpoint(path, "cpu", weights="auto")(torch.arange(3)).shape == (3, 211)


def test_automatic_choice_says_what_it_took(checkpoint, monkeypatch, caplog):
    caplog.set_level("INFO", "gpt_oss")
    monkeypatch.setattr(weights.native, "load", lambda: None)
    Transformer.from_checkpoint(checkpoint, "cpu", weights="auto")
    assert "expert weights: BF16" in caplog.text  # it fits, and plain torch is faster with it
    caplog.clear()
    monkeypatch.setattr(weights, "free_memory", lambda device: 0)
    Transformer.from_checkpoint(checkpoint, "cpu", weights="auto")
    assert "expert weights: packed MXFP4" in caplog.text


def test_without_the_kernels_one_line_says_how_to_get_them(checkpoint, monkeypatch, caplog):
    monkeypatch.setattr(packed.native, "load", lambda: None)
    Transformer.from_checkpoint(checkpoint, "cpu", weights="mxfp4")
    assert caplog.messages == [f"packed experts are slow without the native kernels; {native.HOW_TO_BUILD}"]


def test_a_file_that_exceeds_the_memory_is_not_read_ahead(checkpoint, monkeypatch, caplog):
    caplog.set_level("INFO", "gpt_oss")
    monkeypatch.setattr(weights, "free_memory", lambda device: 1000)
    Transformer.from_checkpoint(checkpoint, "cpu", weights="mxfp4")
    assert "exceeds the free memory; it is read when needed" in caplog.text
