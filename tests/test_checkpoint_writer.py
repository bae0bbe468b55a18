"""Writing checkpoints: the safetensors library, torch and transformers read what was written."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.checkpoint_layout import checkpoint_specs
from gpt_oss.checkpoint_writer import to_bfloat16, write_checkpoint
from gpt_oss.errors import CheckpointError
from gpt_oss.mxfp4 import decode
from gpt_oss.synthetic import SyntheticTensors
from tests.helpers.checkpoints import bfloat16_values, random_tensors, tiny_config


@pytest.fixture
def tensors():
    return random_tensors(tiny_config(), np.random.default_rng())


def stored_names(folder: Path) -> dict[str, set[str]]:
    result = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            result[path.name] = set(file.keys())
    return result


def test_released_names_and_types(tmp_path, tensors):
    """The table of the released `original/` checkpoint, written out for one layer."""
    config = tiny_config(num_hidden_layers=1)
    write_checkpoint(tmp_path / "model", config, tensors)
    with safe_open(tmp_path / "model" / "model.safetensors", framework="np") as file:
        found = {name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert found == {
        "embedding.weight": ("BF16", [211, 96]),
        "block.0.attn.norm.scale": ("BF16", [96]),
        "block.0.attn.qkv.weight": ("BF16", [1536, 96]),
        "block.0.attn.qkv.bias": ("BF16", [1536]),
        "block.0.attn.sinks": ("BF16", [16]),
        "block.0.attn.out.weight": ("BF16", [96, 1024]),
        "block.0.attn.out.bias": ("BF16", [96]),
        "block.0.mlp.norm.scale": ("BF16", [96]),
        "block.0.mlp.gate.weight": ("BF16", [6, 96]),
        "block.0.mlp.gate.bias": ("BF16", [6]),
        "block.0.mlp.mlp1_weight.blocks": ("U8", [6, 320, 3, 16]),
        "block.0.mlp.mlp1_weight.scales": ("U8", [6, 320, 3]),
        "block.0.mlp.mlp1_bias": ("BF16", [6, 320]),
        "block.0.mlp.mlp2_weight.blocks": ("U8", [6, 96, 5, 16]),
        "block.0.mlp.mlp2_weight.scales": ("U8", [6, 96, 5]),
        "block.0.mlp.mlp2_bias": ("BF16", [6, 96]),
        "norm.scale": ("BF16", [96]),
        "unembedding.weight": ("BF16", [211, 96]),
    }
    assert json.loads((tmp_path / "model" / "config.json").read_text()) == config.to_dict()


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("shards", [2, 5, 30])
@pytest.mark.parametrize("layout", ["original", "huggingface"])
def test_index_agrees_with_the_files(tmp_path, layout, shards, quantized):
    tensors = random_tensors(tiny_config(), np.random.default_rng(), quantized)
    folder = write_checkpoint(
        tmp_path / "model", tiny_config(), tensors, layout=layout, shards=shards, quantized=quantized
    )
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    names = stored_names(folder)
    assert set(names) == {f"model-{n:05}-of-{shards:05}.safetensors" for n in range(1, shards + 1)}
    assert index["weight_map"] == {name: file for file, in_file in names.items() for name in in_file}
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in tensors.values())
    with Checkpoint(folder) as checkpoint:
        assert all(np.array_equal(checkpoint.read(name), array) for name, array in tensors.items())


def test_shards_are_of_similar_size(tmp_path):
    config = tiny_config(num_hidden_layers=9)
    folder = write_checkpoint(tmp_path / "model", config, SyntheticTensors(config), shards=4)
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    assert max(sizes) < 1.5 * min(sizes)


@pytest.mark.parametrize("shards", [1, 4])
def test_transformers_loads_the_dense_form(tmp_path, shards):
    from transformers import GptOssForCausalLM

    config = tiny_config()
    tensors = SyntheticTensors(config, seed=3, quantized=False)
    folder = write_checkpoint(tmp_path / "model", config, tensors, layout="huggingface", quantized=False, shards=shards)
    model, report = GptOssForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    layer = model.model.layers[1]
    for parameter, name in [
        (layer.mlp.experts.gate_up_proj, "block.1.mlp.mlp1_weight"),
        (layer.mlp.experts.down_proj, "block.1.mlp.mlp2_weight"),
    ]:
        bits = parameter.detach().view(torch.uint16).numpy()
        np.testing.assert_array_equal(bits.transpose(0, 2, 1), tensors[name])
    keys = layer.self_attn.k_proj.weight.detach().view(torch.uint16).numpy()
    np.testing.assert_array_equal(keys, tensors["block.1.attn.qkv.weight"][1024:1280])


def test_transformers_dequantises_the_packed_form(tmp_path):
    """On a CPU transformers unpacks MXFP4 itself: the same values as `mxfp4.decode`."""
    from transformers import GptOssForCausalLM, Mxfp4Config

    config = tiny_config()
    tensors = SyntheticTensors(config, seed=4)
    folder = write_checkpoint(tmp_path / "model", config, tensors, layout="huggingface", shards=2)
    model = GptOssForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=Mxfp4Config(dequantize=True)
    )
    for layer in range(3):
        experts = model.model.layers[layer].mlp.experts
        for parameter, name in [(experts.gate_up_proj, "mlp1"), (experts.down_proj, "mlp2")]:
            packed = [tensors[f"block.{layer}.mlp.{name}_weight.{part}"] for part in ("blocks", "scales")]
            np.testing.assert_array_equal(parameter.detach().float().numpy().transpose(0, 2, 1), decode(*packed))


# --- Values -------------------------------------------------------------------------------------------------


def test_rounding_to_bfloat16_equals_torch():
    bits = np.random.default_rng().integers(0, 1 << 32, 200_000, np.uint32)
    ties = np.arange(0x3F80_0000, 0x3F90_0000, 0x4000, np.uint32)
    special = np.array([0, 1 << 31, 0x7F80_0000, 0xFF80_0000, 0x7F7F_FFFF, 0x0000_8000, 0x0001_8000], np.uint32)
    values = np.concatenate([bits, ties, special]).view(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    number = ~np.isnan(values)
    np.testing.assert_array_equal(to_bfloat16(values)[number], expected[number])
    assert np.isnan(bfloat16_values(to_bfloat16(values[~number]))).all()
    assert np.isnan(bfloat16_values(to_bfloat16(np.array([0x7F80_0001], np.uint32).view(np.float32)))).all()


def test_float32_is_rounded(tmp_path, tensors):
    values = np.random.default_rng().normal(size=(211, 96)).astype(np.float32)
    folder = write_checkpoint(tmp_path / "model", tiny_config(), tensors | {"embedding.weight": values})
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    np.testing.assert_array_equal(Checkpoint(folder).read("embedding.weight"), expected)


def test_tensors_that_are_not_contiguous(tmp_path, tensors):
    name = "block.0.attn.out.weight"
    turned = tensors | {name: np.asfortranarray(tensors[name])}
    folder = write_checkpoint(tmp_path / "model", tiny_config(), turned)
    np.testing.assert_array_equal(Checkpoint(folder).read(name), tensors[name])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (np.zeros(95, np.uint16), "is uint16 [95], expected uint16 [96] to write BF16"),
        (np.zeros(96, np.float64), "is float64 [96], expected uint16 [96] to write BF16"),
        (np.zeros(96, np.float16), "is float16 [96], expected uint16 [96] to write BF16"),
    ],
)
def test_wrong_tensor(tmp_path, tensors, wrong, problem):
    with pytest.raises(CheckpointError) as raised:
        write_checkpoint(tmp_path / "model", tiny_config(), tensors | {"norm.scale": wrong})
    assert str(raised.value) == f"norm.scale: {problem}"
    assert not list(tmp_path.iterdir())


def test_missing_tensor(tmp_path, tensors):
    del tensors["norm.scale"]
    with pytest.raises(CheckpointError, match=r"norm\.scale: is missing among the tensors to write"):
        write_checkpoint(tmp_path / "model", tiny_config(), tensors)
    assert not list(tmp_path.iterdir())


def test_wrong_options(tmp_path, tensors):
    with pytest.raises(ValueError, match='layout must be "original" or "huggingface", found \'hf\''):
        write_checkpoint(tmp_path / "model", tiny_config(), tensors, layout="hf")
    for shards in (0, 49):
        with pytest.raises(CheckpointError, match=f"between 1 and 48, the number of tensors, found {shards}"):
            write_checkpoint(tmp_path / "model", tiny_config(), tensors, shards=shards)


# --- Folder and disk ----------------------------------------------------------------------------------------


def test_interrupted_writing_leaves_nothing(tmp_path, tensors):
    written = []

    def interrupt(count: int) -> None:
        written.append(count)
        if len(written) == 20:
            assert [path.name for path in tmp_path.iterdir() if path.name == "model"] == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "model", tiny_config(), tensors, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_progress_adds_up(tmp_path, tensors):
    written: list[int] = []
    write_checkpoint(tmp_path / "model", tiny_config(), tensors, shards=3, progress=written.append)
    assert sum(written) == sum(array.nbytes for array in tensors.values())


def test_empty_folder_is_filled(tmp_path, tensors):
    (tmp_path / "model").mkdir()
    Checkpoint(write_checkpoint(tmp_path / "model", tiny_config(), tensors))


def test_folder_in_use(tmp_path, tensors):
    folder = write_checkpoint(tmp_path / "model", tiny_config(), tensors)
    with pytest.raises(CheckpointError, match="model: is not empty; choose another folder, or overwrite it"):
        write_checkpoint(folder, tiny_config(), tensors)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file: is a file; expected the name of a folder to write"):
        write_checkpoint(tmp_path / "file", tiny_config(), tensors)


def test_overwriting(tmp_path, tensors):
    folder = write_checkpoint(tmp_path / "model", tiny_config(), tensors, layout="huggingface", shards=4)
    old = Checkpoint(folder)
    other = random_tensors(tiny_config(), np.random.default_rng())
    write_checkpoint(folder, tiny_config(), other, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert os.listdir(tmp_path) == ["model"]
    np.testing.assert_array_equal(Checkpoint(folder).read("norm.scale"), other["norm.scale"])
    np.testing.assert_array_equal(old.read("norm.scale"), tensors["norm.scale"])


def test_overwriting_behind_a_link(tmp_path, tensors):
    write_checkpoint(tmp_path / "model", tiny_config(), tensors)
    (tmp_path / "link").symlink_to("model")
    other = random_tensors(tiny_config(), np.random.default_rng())
    write_checkpoint(tmp_path / "link", tiny_config(), other, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "model"]
    name = "block.0.attn.qkv.weight"
    with Checkpoint(tmp_path / "model") as checkpoint:
        assert (checkpoint.read(name) == other[name]).all()


def test_a_name_that_no_folder_can_have(tmp_path, tensors):
    with pytest.raises(CheckpointError, match=r"a: cannot be written \(File name too long\)"):
        write_checkpoint(tmp_path / ("a" * 300), tiny_config(), tensors)


def test_overwriting_spares_a_folder_with_other_files(tmp_path, tensors):
    folder = write_checkpoint(tmp_path / "model", tiny_config(), tensors)
    (folder / "thesis.tex").touch()
    with pytest.raises(CheckpointError, match=r"also holds thesis\.tex, so is not replaced"):
        write_checkpoint(folder, tiny_config(), tensors, overwrite=True)
    assert (folder / "thesis.tex").exists()


def test_disk_too_small(tmp_path):
    config = tiny_config(vocab_size=1 << 45)
    with pytest.raises(CheckpointError, match=r"bytes free, 13,510,798,88\d,\d+,\d+ are needed; free some space"):
        write_checkpoint(tmp_path / "model", config, {})
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made(tmp_path, tensors):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"file/model: cannot be written \("):
        write_checkpoint(tmp_path / "file" / "model", tiny_config(), tensors)


def test_one_tensor_in_memory_at_a_time(tmp_path):
    config = tiny_config(num_hidden_layers=8, hidden_size=256, intermediate_size=512, num_experts=16)
    tensors = SyntheticTensors(config)
    specs = checkpoint_specs(config)
    total = sum(int(np.prod(spec.shape)) for spec in specs.values())
    largest = max(tensors[name].nbytes for name in specs)
    tracemalloc.start()
    try:
        write_checkpoint(tmp_path / "model", config, tensors, layout="huggingface", shards=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 10 * largest < total
    assert largest < peak < 3 * largest
