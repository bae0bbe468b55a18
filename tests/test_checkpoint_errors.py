"""A checkpoint that cannot be used: one error that names file and tensor, before any weight is read."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.checkpoint_writer import write_checkpoint
from gpt_oss.errors import CheckpointError, ConfigError, GptOssError
from tests.helpers.checkpoints import random_tensors, tiny_config

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def tensors():
    return random_tensors(tiny_config(), np.random.default_rng())


@pytest.fixture
def folder(tmp_path, tensors):
    return write_checkpoint(tmp_path / "model", tiny_config(), tensors)


@pytest.fixture
def sharded(tmp_path, tensors):
    return write_checkpoint(tmp_path / "model", tiny_config(), tensors, layout="huggingface", shards=3)


def message(path: Path, kind: type[GptOssError] = CheckpointError) -> str:
    with pytest.raises(kind) as raised:
        Checkpoint(path)
    text = str(raised.value)
    assert "\n" not in text
    return text


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """Change the tensors of a one-file checkpoint with the safetensors library."""
    path = folder / "model.safetensors"
    content = load_file(path)
    change(content)
    save_file(content, path)
    return path


def rewrite_header(path: Path, change: Callable[[dict], object]) -> None:
    """Change the JSON header and keep the data."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    change(header)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content[8 + length :])


# --- The folder ---------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path):
    text = message(tmp_path / "no such")
    assert text.startswith(f"{tmp_path}/no such: does not exist; expected a folder with config.json")
    assert "hf download openai/gpt-oss-20b" in text
    assert "hf download openai/gpt-oss-120b" in message(tmp_path / "gpt-oss-120b")


def test_a_name_that_no_file_can_have(tmp_path):
    assert message(tmp_path / ("a" * 300)).endswith("a: cannot be read (File name too long)")


def test_an_index_that_names_a_file_that_cannot_be(sharded):
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a" * 300}}))
    assert message(sharded).endswith("a: cannot be read (File name too long)")


def test_a_pipe_in_place_of_a_file(folder):
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert message(folder) == f"{folder}/model.safetensors: is no regular file; expected a safetensors file"


def test_a_pipe_in_place_of_an_index(sharded):
    index = sharded / "model.safetensors.index.json"
    index.unlink()
    os.mkfifo(index)
    assert message(sharded) == f"{index}: is no regular file; expected the index of the shards"


def test_config_with_far_more_layers_than_the_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**9}))
    assert "tensors, too few for the 1000000000 layers of config.json" in message(folder)


def test_empty_folder(tmp_path):
    assert message(tmp_path) == f"{tmp_path}: holds no *.safetensors files; expected a gpt-oss checkpoint"


@pytest.mark.parametrize(("name", "kind"), [("model.bin", "a Metal model file"), ("x.gguf", "a llama.cpp model")])
def test_file_of_another_format(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"GPT-OSS v1.0")
    assert f"{name}: is {kind}" in message(tmp_path / name)


def test_no_config(folder):
    (folder / "config.json").unlink()
    assert message(folder).startswith(f"{folder}/config.json: is missing; ")


def test_config_that_is_not_json(folder):
    (folder / "config.json").write_text('{"num_hidden_layers": 3,')
    assert f"{folder}/config.json" in message(folder, ConfigError)


def test_config_of_another_model(folder):
    (folder / "config.json").write_text(json.dumps(tiny_config(intermediate_size=192).to_dict()))
    text = message(folder)
    assert f"{folder}/model.safetensors: tensor block.0.mlp.mlp1_weight.blocks has shape [6, 320, 3, 16]" in text
    assert "expected [6, 384, 3, 16] by config.json" in text


def test_config_with_fewer_layers_than_the_weights(folder):
    (folder / "config.json").write_text(json.dumps(tiny_config(num_hidden_layers=2).to_dict()))
    text = message(folder)
    assert f"{folder}/model.safetensors: tensor block.2." in text
    assert "(15 such tensors)" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(folder):
    (folder / "model.safetensors").chmod(0)
    assert f"{folder}/model.safetensors: cannot be read (Permission denied)" in message(folder)


def test_folder_in_place_of_a_file(folder):
    (folder / "model.safetensors").rename(folder / "model.tmp")
    (folder / "model.safetensors").mkdir()
    assert f"{folder}/model.safetensors: cannot be read (Is a directory)" in message(folder)


# --- Several files ------------------------------------------------------------------------------------------


def test_missing_shard(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    text = message(sharded)
    assert text.startswith(f"{sharded}/model-00002-of-00003.safetensors: is missing; ")
    assert "model.safetensors.index.json says that it holds model." in text


def test_missing_shard_without_index(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    (sharded / "model.safetensors.index.json").unlink()
    assert message(sharded) == f"{sharded}: lacks shard 2 of 3 (1 in all); download it"


def test_shards_counted_from_zero(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    for number in range(3):
        shard = sharded / f"model-0000{number + 1}-of-00003.safetensors"
        shard.rename(sharded / f"model-0000{number}-of-00003.safetensors")
    assert len(Checkpoint(sharded).files) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "\xff"])
def test_damaged_index(sharded, content):
    (sharded / "model.safetensors.index.json").write_text(content, encoding="latin-1")
    assert message(sharded).startswith(f"{sharded}/model.safetensors.index.json: ")


def test_two_indices(sharded):
    (sharded / "old.safetensors.index.json").write_text("{}")
    assert "has two index files, model.safetensors.index.json and old.safetensors.index.json" in message(sharded)


def test_index_that_leaves_the_folder(sharded):
    index = sharded / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00002", "../model-00002"))
    (sharded / "model-00002-of-00003.safetensors").rename(sharded.parent / "model-00002-of-00003.safetensors")
    assert "model-00002-of-00003.safetensors: is missing" in message(sharded)


def test_tensor_in_two_files(folder):
    save_file({"norm.scale": torch.ones(96, dtype=torch.bfloat16)}, folder / "other.safetensors")
    text = message(folder)
    assert text.startswith(f"{folder}/other.safetensors: tensor norm.scale is also in model.safetensors; ")


def test_files_that_the_index_does_not_name_are_not_opened(sharded):
    (sharded / "consolidated.safetensors").write_bytes(b"whatever")
    assert len(Checkpoint(sharded).files) == 3


# --- One file -----------------------------------------------------------------------------------------------


def test_git_lfs_pointer(folder):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13761300984\n"
    (folder / "model.safetensors").write_text(pointer)
    text = message(folder)
    assert text == f"{folder}/model.safetensors: is a Git LFS pointer, not weights; run `git lfs pull` in its folder"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is no safetensors file, it has only 0 bytes"),
        (b"\x10\0\0", "is no safetensors file, it has only 3 bytes"),
        (b"<!DOCTYPE html><html>404</html>", "does not begin with a safetensors header"),
        (struct.pack("<Q", 1 << 40) + b"{}", "does not begin with a safetensors header"),
        (struct.pack("<Q", 4) + b"[1] ", "does not begin with a safetensors header"),
        (
            struct.pack("<Q", 900) + b'{"a":',
            "is truncated inside its header, which ends at byte 908 but the file has 13",
        ),
        (struct.pack("<Q", 5) + b'{"a":', "has a damaged header"),
        (struct.pack("<Q", 5) + b'{"\xff"}', "has a damaged header"),
        (struct.pack("<Q", 15) + b'{"a":{},"a":{}}', "has a damaged header (a occurs twice)"),
        (struct.pack("<Q", 8) + b'{"a":{}}', "has a damaged header entry for tensor a"),
        (struct.pack("<Q", 7) + b'{"a":3}', "has a damaged header entry for tensor a"),
        (struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995, "has a damaged header (maximum recursion"),
    ],
)
def test_no_safetensors_file(folder, content, problem):
    (folder / "model.safetensors").write_bytes(content)
    text = message(folder)
    assert text.startswith(f"{folder}/model.safetensors: ")
    assert problem in text


@pytest.mark.parametrize("lost", [1, 100, 100_000])
def test_truncated_file(folder, lost):
    path = folder / "model.safetensors"
    size = path.stat().st_size - lost
    os.truncate(path, size)
    text = message(folder)
    assert f"{path}: is truncated: tensor " in text
    assert f"but the file has {size} bytes; download it again" in text


def test_truncated_file_names_the_first_tensor_that_is_cut(folder):
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size - 10)
    assert "tensor unembedding.weight ends at byte" in message(folder)


def test_bytes_behind_the_last_tensor(folder):
    with open(folder / "model.safetensors", "ab") as file:
        file.write(bytes(3))
    assert "model.safetensors: has 3 bytes behind its last tensor" in message(folder)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("data_offsets", [0, 10], "tensor norm.scale, BF16 [96], needs 192 bytes but its header gives it 10"),
        ("data_offsets", [-192, 0], "has a damaged header entry for tensor norm.scale"),
        ("data_offsets", [1.0, 193.0], "has a damaged header entry for tensor norm.scale"),
        ("data_offsets", [192, 384], "tensor norm.scale begins at byte"),
        ("data_offsets", [1 << 50, (1 << 50) + 192], "tensor unembedding.weight begins at byte"),
        ("shape", [97], "tensor norm.scale, BF16 [97], needs 194 bytes but its header gives it 192"),
        ("shape", [-96], "has a damaged header entry for tensor norm.scale"),
        ("shape", [True] * 96, "has a damaged header entry for tensor norm.scale"),
        ("shape", "96", "has a damaged header entry for tensor norm.scale"),
        ("dtype", 5, "has a damaged header entry for tensor norm.scale"),
        ("dtype", "F4_NEW", "tensor norm.scale is F4_NEW, expected BF16 or F32 or F16"),
        ("dtype", "I16", "tensor norm.scale is I16, expected BF16 or F32 or F16"),
    ],
)
def test_damaged_header_entry(folder, key, value, problem):
    path = folder / "model.safetensors"
    rewrite_header(path, lambda header: header["norm.scale"].update({key: value}))
    text = message(folder)
    assert text.startswith(f"{path}: ")
    assert problem in text


def test_any_damage_of_the_header_is_reported_as_such(tmp_path):
    """Bytes changed at random: the checkpoint opens (a name's letter case in the metadata, say) or is refused."""
    config = tiny_config(num_hidden_layers=1, vocab_size=3)
    folder = write_checkpoint(tmp_path / "model", config, random_tensors(config, np.random.default_rng()))
    path = folder / "model.safetensors"
    content, random = path.read_bytes(), np.random.default_rng()
    header = 8 + struct.unpack_from("<Q", content)[0]
    refused = 0
    for _ in range(500):
        damaged = bytearray(content)
        for position in random.integers(0, header, random.integers(1, 4)):
            damaged[position] = random.choice([random.integers(256), ord(random.choice(list('0123456789[]{},:"-e')))])
        path.write_bytes(damaged)
        try:
            Checkpoint(folder).close()
        except CheckpointError as error:
            refused += 1
            assert str(folder) in str(error)
    assert refused > 400


# --- The tensors --------------------------------------------------------------------------------------------


def test_missing_tensor(folder):
    rewrite(folder, lambda content: content.pop("block.1.attn.sinks"))
    assert message(folder).startswith(f"{folder}: tensor block.1.attn.sinks is missing; ")


@pytest.mark.parametrize("part", ["blocks", "scales"])
def test_half_of_a_packed_tensor(folder, part):
    name = f"block.2.mlp.mlp2_weight.{part}"
    rewrite(folder, lambda content: content.pop(name))
    assert f"tensor {name} is missing" in message(folder)


def test_missing_part_of_qkv(sharded):
    path = sharded / "model-00003-of-00003.safetensors"
    content = load_file(path)
    name = next(name for name in content if name.endswith("k_proj.bias"))
    del content[name]
    save_file(content, path)
    assert f"tensor {name} is missing" in message(sharded)


def test_extra_tensor(folder):
    path = rewrite(folder, lambda content: content.update({"block.0.attn.q_norm.scale": torch.ones(64)}))
    text = message(folder)
    assert text.startswith(f"{path}: tensor block.0.attn.q_norm.scale is not part of the model")


def test_wrong_shape(folder):
    path = rewrite(folder, lambda content: content.update({"norm.scale": content["norm.scale"][:95].clone()}))
    assert f"{path}: tensor norm.scale has shape [95], expected [96] by config.json" in message(folder)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("norm.scale", torch.float64, "F64, expected BF16 or F32 or F16"),
        ("block.0.mlp.mlp1_weight.blocks", torch.int8, "I8, expected U8"),
        ("block.0.mlp.mlp1_weight.scales", torch.float32, "F32, expected U8"),
    ],
)
def test_wrong_type(folder, name, dtype, expected):
    path = rewrite(folder, lambda content: content.update({name: content[name].to(dtype)}))
    assert f"{path}: tensor {name} is {expected}" in message(folder)


def test_parts_of_qkv_of_two_types(sharded):
    path = sharded / "model-00003-of-00003.safetensors"
    content = load_file(path)
    name = next(name for name in content if name.endswith("k_proj.bias"))
    content[name] = content[name].float()
    save_file(content, path)
    assert f"{path}: tensor {name} is F32 but {name.replace('k_proj', 'q_proj')} is BF16" in message(sharded)
