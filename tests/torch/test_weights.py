"""Loading: both layouts, one file or many, quantised or dense, any rank's share: always the same numbers."""

import dataclasses

import numpy as np
import pytest
import torch

from gpt_oss import mxfp4
from gpt_oss.checkpoint import Checkpoint
from gpt_oss.errors import CheckpointError, ConfigError, OutOfMemory
from gpt_oss.torch import weights
from gpt_oss.torch.model import Transformer
from gpt_oss.torch.parallel import Parallel
from tests.helpers.checkpoints import bfloat16_values, tiny_checkpoint, tiny_config
from tests.helpers.models import relative_error, transformers_model


def decoded(path):
    """Real-valued float32 tensors, by way of the NumPy decoder."""
    with Checkpoint(path) as checkpoint:
        result = {}
        for name in checkpoint.names:
            if name.endswith(".blocks"):
                stem = name.removesuffix(".blocks")
                result[stem] = mxfp4.decode(checkpoint.read(name), checkpoint.read(f"{stem}.scales"))
            elif not name.endswith(".scales"):
                result[name] = bfloat16_values(checkpoint.read(name))
        return result


def test_every_layout_gives_the_same_logits(tmp_path):
    tokens = torch.arange(0, 200, 3)
    variants = [
        {},
        {"shards": 5},
        {"layout": "huggingface"},
        {"layout": "huggingface", "shards": 5},
    ]
    results = []
    for number, options in enumerate(variants):
        path = tiny_checkpoint(tmp_path / str(number), seed=3, **options)
        results.append(Transformer.from_checkpoint(path, "cpu", torch.float32)(tokens))
    for result in results[1:]:
        assert torch.equal(result, results[0])


def test_the_loaded_model_equals_transformers_on_the_same_file(tmp_path):
    path = tiny_checkpoint(tmp_path / "model", seed=4)
    config = tiny_config()
    tokens = torch.arange(0, 200, 2)
    ours = Transformer.from_checkpoint(path, "cpu", torch.float32)(tokens)
    theirs = transformers_model(config, decoded(path))(tokens[None]).logits[0]
    assert relative_error(ours, theirs) < 1e-4


def test_a_dense_hugging_face_folder_written_by_transformers(tmp_path):
    path = tiny_checkpoint(tmp_path / "packed", seed=5)
    model = transformers_model(tiny_config(), decoded(path), torch.bfloat16)
    model.save_pretrained(tmp_path / "dense")
    tokens = torch.arange(100)
    dense = Transformer.from_checkpoint(tmp_path / "dense", "cpu", torch.float32)(tokens)
    packed = Transformer.from_checkpoint(path, "cpu", torch.float32)(tokens)
    assert torch.equal(dense, packed)


def test_decoding_is_exact_for_all_codes_and_scales():
    blocks = (
        np.random.default_rng().permuted(np.tile(np.arange(256, dtype=np.uint8), (256, 1)), axis=1).reshape(256, 16, 16)
    )
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 16, axis=1)
    actual = weights.decode_mxfp4(torch.from_numpy(blocks), torch.from_numpy(scales)).float().numpy()
    expected = mxfp4.decode(blocks, scales)
    np.testing.assert_array_equal(actual.view(np.uint32)[:255], expected.view(np.uint32)[:255])
    assert np.isnan(actual[255]).all() and np.isnan(expected[255]).all()


@pytest.mark.parametrize("world", [2, 4, 8])
def test_the_shares_of_all_ranks_make_the_whole(tmp_path, world):
    # 160 / 4 = 40 columns: 1.25 MXFP4 blocks, so cuts fall inside blocks; 8 ranks hold 4 kv heads twice.
    path = tiny_checkpoint(tmp_path / "model", seed=6)
    config, whole = tiny_config(), decoded(path)
    share = config.intermediate_size // world
    heads, kv_heads, d = 16 // world, max(1, 4 // world), config.head_dim
    for rank in range(world):
        model = Transformer.from_checkpoint(path, "cpu", torch.float32, Parallel(rank, world))
        parts = {name: p.numpy() for name, p in model.named_parameters()}
        mine = slice(rank * share, (rank + 1) * share)
        rows = slice(2 * mine.start, 2 * mine.stop)
        name = "block.1.mlp.mlp"
        np.testing.assert_array_equal(parts[f"{name}1_weight"], whole[f"{name}1_weight"][:, rows])
        np.testing.assert_array_equal(parts[f"{name}1_bias"], whole[f"{name}1_bias"][:, rows])
        np.testing.assert_array_equal(parts[f"{name}2_weight"], whole[f"{name}2_weight"][:, :, mine])
        np.testing.assert_array_equal(parts[f"{name}2_bias"], whole[f"{name}2_bias"])
        attn = "block.2.attn."
        head = slice(rank * heads, (rank + 1) * heads)
        np.testing.assert_array_equal(parts[attn + "sinks"], whole[attn + "sinks"][head])
        columns = slice(head.start * d, head.stop * d)
        np.testing.assert_array_equal(parts[attn + "out.weight"], whole[attn + "out.weight"][:, columns])
        kv = rank * 4 // world
        qkv = whole[attn + "qkv.weight"].reshape(24, d, -1)
        expected = np.concatenate([qkv[head], qkv[16 + kv : 16 + kv + kv_heads], qkv[20 + kv : 20 + kv + kv_heads]])
        np.testing.assert_array_equal(parts[attn + "qkv.weight"], expected.reshape(-1, config.hidden_size))


def test_uneven_cuts_are_refused_before_anything_is_read(tmp_path):
    path = tiny_checkpoint(tmp_path / "model", tiny_config(num_attention_heads=6, num_key_value_heads=2))
    with pytest.raises(ConfigError, match="6 query and 2 key-value heads cannot be cut for 4 ranks"):
        Transformer.from_checkpoint(path, "cpu", parallel=Parallel(0, 4))


def test_a_model_larger_than_memory_is_refused_with_both_numbers(tmp_path, monkeypatch):
    path = tiny_checkpoint(tmp_path / "model")
    monkeypatch.setattr(weights.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1 << 20}))
    with pytest.raises(OutOfMemory, match=r"need 0\.0 GiB but cpu has 0\.0 GiB free"):
        Transformer.from_checkpoint(path, "cpu")


def test_errors_of_the_checkpoint_come_through(tmp_path):
    with pytest.raises(CheckpointError, match="nothing-here"):
        Transformer.from_checkpoint(tmp_path / "nothing-here", "cpu")


def test_mxfp4_values_are_exact_in_bf16(tmp_path):
    path = tiny_checkpoint(tmp_path / "model", dataclasses.replace(tiny_config(), num_hidden_layers=1), seed=8)
    bf16 = Transformer.from_checkpoint(path, "cpu", torch.bfloat16)
    fp32 = Transformer.from_checkpoint(path, "cpu", torch.float32)
    assert torch.equal(bf16.block[0].mlp.mlp1_weight.float(), fp32.block[0].mlp.mlp1_weight)
