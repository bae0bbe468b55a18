"""Reading checkpoints: the safetensors library and transformers say what is in the files."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from gpt_oss.checkpoint import Checkpoint, block_range
from gpt_oss.checkpoint_layout import checkpoint_specs
from gpt_oss.checkpoint_writer import write_checkpoint
from gpt_oss.errors import CheckpointError
from gpt_oss.mxfp4 import decode
from gpt_oss.synthetic import MODELS
from gpt_oss.tensor_file import tensor_file_header
from tests.helpers.checkpoints import random_tensors, tiny_config

LAYOUTS = ("original", "huggingface")
HF_BLOCK_NAMES = {
    "attn.norm.scale": "input_layernorm.weight",
    "attn.sinks": "self_attn.sinks",
    "attn.out.weight": "self_attn.o_proj.weight",
    "attn.out.bias": "self_attn.o_proj.bias",
    "mlp.norm.scale": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.router.weight",
    "mlp.gate.bias": "mlp.router.bias",
    "mlp.mlp1_weight.blocks": "mlp.experts.gate_up_proj_blocks",
    "mlp.mlp1_weight.scales": "mlp.experts.gate_up_proj_scales",
    "mlp.mlp1_bias": "mlp.experts.gate_up_proj_bias",
    "mlp.mlp2_weight.blocks": "mlp.experts.down_proj_blocks",
    "mlp.mlp2_weight.scales": "mlp.experts.down_proj_scales",
    "mlp.mlp2_bias": "mlp.experts.down_proj_bias",
}


def stored_bits(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder as the safetensors library reads it; BF16 as bit patterns."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensor = file.get_tensor(name)
                tensors[name] = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return tensors


def in_original_layout(stored: dict[str, np.ndarray], layers: int) -> dict[str, np.ndarray]:
    """The Hugging Face names, spelt out here a second time, turned into those of the original layout."""
    result = {
        "embedding.weight": stored["model.embed_tokens.weight"],
        "norm.scale": stored["model.norm.weight"],
        "unembedding.weight": stored["lm_head.weight"],
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, hf_name in HF_BLOCK_NAMES.items():
            if prefix + hf_name in stored:
                result[f"block.{layer}.{name}"] = stored[prefix + hf_name]
        for kind in ("weight", "bias"):
            parts = [stored[f"{prefix}self_attn.{which}_proj.{kind}"] for which in "qkv"]
            result[f"block.{layer}.attn.qkv.{kind}"] = np.concatenate(parts)
        for name, hf_name in (("mlp1", "gate_up_proj"), ("mlp2", "down_proj")):
            dense = prefix + "mlp.experts." + hf_name
            if dense in stored:
                result[f"block.{layer}.mlp.{name}_weight"] = stored[dense].transpose(0, 2, 1)
    return result


def assert_same_tensors(checkpoint: Checkpoint, expected: dict[str, np.ndarray]) -> None:
    assert set(checkpoint.names) == set(expected)
    for name, array in expected.items():
        read = checkpoint.read(name)
        assert checkpoint.shape(name) == read.shape == array.shape
        np.testing.assert_array_equal(read, array, err_msg=name, strict=True)


@pytest.fixture(params=[(layout, shards) for layout in LAYOUTS for shards in (1, 5)], ids=str)
def written(request, tmp_path):
    """A random checkpoint and its tensors; each test gets fresh data."""
    layout, shards = request.param
    tensors = random_tensors(tiny_config(), np.random.default_rng())
    write_checkpoint(tmp_path / "model", tiny_config(), tensors, layout=layout, shards=shards)
    return tmp_path / "model", tensors


def test_every_tensor_equals_the_safetensors_library(written):
    folder, _ = written
    stored = stored_bits(folder)
    expected = in_original_layout(stored, 3) if "lm_head.weight" in stored else stored
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.config == tiny_config()
        assert checkpoint.quantized
        assert_same_tensors(checkpoint, expected)
        assert checkpoint.nbytes == sum(array.nbytes for array in stored.values())


def test_random_slices(written):
    folder, tensors = written
    random = np.random.default_rng()
    with Checkpoint(folder) as checkpoint:
        for name in random.choice(checkpoint.names, 30):
            for _ in range(10):
                index = tuple(random_index(random, size) for size in tensors[name].shape)
                index = index[: random.integers(0, len(index) + 1)]
                np.testing.assert_array_equal(checkpoint.read(name, index), tensors[name][index], f"{name} {index}")


def random_index(random: np.random.Generator, size: int) -> int | slice:
    if random.random() < 0.3:
        return int(random.integers(-size, size))
    start, stop = random.integers(-size - 3, size + 3, 2).tolist()
    ends = [None if random.random() < 0.2 else end for end in (start, stop)]
    return slice(*ends, int(random.integers(1, size + 2)) if random.random() < 0.5 else None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_qkv_slices_at_the_borders_of_q_k_and_v(tmp_path, layout):
    tensors = random_tensors(tiny_config(), np.random.default_rng())
    write_checkpoint(tmp_path / "model", tiny_config(), tensors, layout=layout)
    rows, borders = 24 * 64, [0, 16 * 64, 20 * 64, 24 * 64]
    edges = sorted({border + step for border in borders for step in (-1, 0, 1)} & set(range(rows + 1)))
    name = "block.2.attn.qkv.bias"
    with Checkpoint(tmp_path / "model") as checkpoint:
        for start in edges:
            for stop in edges:
                for step in (1, 2, 63, 64, 255, 4000):
                    expected = tensors[name][start:stop:step]
                    np.testing.assert_array_equal(checkpoint.read(name, slice(start, stop, step)), expected)
        for row in (*edges[:-1], -1, -rows):
            assert checkpoint.read(name, row) == tensors[name][row]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_covering_blocks_of_every_rank(tmp_path, world):
    """A rank's columns of mlp2, cut inside an MXFP4 block, from the blocks that cover them."""
    config = tiny_config(intermediate_size=352)  # 352 / 8 = 44 columns: 1.375 blocks
    tensors = random_tensors(config, np.random.default_rng())
    tensors = {name: np.minimum(t, 250) if name.endswith("scales") else t for name, t in tensors.items()}
    write_checkpoint(tmp_path / "model", config, tensors)
    name = "block.1.mlp.mlp2_weight"
    whole = decode(tensors[f"{name}.blocks"], tensors[f"{name}.scales"])
    width = config.intermediate_size // world
    with Checkpoint(tmp_path / "model") as checkpoint:
        for rank in range(world):
            start, stop = rank * width, (rank + 1) * width
            blocks, values = block_range(start, stop)
            index = (slice(None), slice(None), blocks)
            part = decode(checkpoint.read(f"{name}.blocks", index), checkpoint.read(f"{name}.scales", index))
            np.testing.assert_array_equal(part[..., values], whole[..., start:stop])
            assert part.shape[-1] - width < 2 * 32, "more blocks than those that cover the columns"


def test_block_range_of_the_real_width():
    assert [block_range(rank * 720, (rank + 1) * 720) for rank in range(4)] == [
        (slice(0, 23), slice(0, 720)),
        (slice(22, 45), slice(16, 736)),
        (slice(45, 68), slice(0, 720)),
        (slice(67, 90), slice(16, 736)),
    ]
    assert block_range(64, 64) == (slice(2, 2), slice(0, 0))
    with pytest.raises(ValueError, match="start 3 and stop 2"):
        block_range(3, 2)


@pytest.fixture(scope="module")
def saved_by_transformers(tmp_path_factory):
    """What `save_pretrained` writes, in several files, and the state of the model that was saved."""
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(int.from_bytes(os.urandom(4)))
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = GptOssForCausalLM(GptOssConfig(**tiny_config().to_hf_dict())).to(torch.bfloat16)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder, max_shard_size="700KB")
    return folder, model.state_dict()


def test_folder_saved_by_transformers(saved_by_transformers):
    folder, state = saved_by_transformers
    assert len(list(folder.glob("*.safetensors"))) > 1
    expected = in_original_layout({name: t.view(torch.uint16).numpy() for name, t in state.items()}, 3)
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.config == tiny_config()
        assert checkpoint.layout == "huggingface"
        assert not checkpoint.quantized
        assert_same_tensors(checkpoint, expected)
        name, index = "block.1.mlp.mlp1_weight", (2, slice(10, 300, 2), slice(5, 17))
        np.testing.assert_array_equal(checkpoint.read(name, index), expected[name][index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dense_tensors_of_other_types(tmp_path, saved_by_transformers, dtype):
    folder, state = saved_by_transformers
    shutil.copy(folder / "config.json", tmp_path)
    save_file({name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path / "model.safetensors")
    expected = in_original_layout({name: tensor.to(dtype).numpy() for name, tensor in state.items()}, 3)
    with Checkpoint(tmp_path) as checkpoint:
        assert {checkpoint.dtype(name) for name in checkpoint.names} == {"F32" if dtype.itemsize == 4 else "F16"}
        assert_same_tensors(checkpoint, expected)


def test_tensors_that_are_not_aligned_in_the_file(tmp_path):
    tensors = random_tensors(tiny_config(), np.random.default_rng())
    folder = write_checkpoint(tmp_path / "model", tiny_config(), tensors)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    path.write_bytes((length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :])
    with Checkpoint(folder) as checkpoint:
        assert_same_tensors(checkpoint, tensors)
        assert all(checkpoint.read(name).flags.aligned for name in checkpoint.names)


# --- Where things are ---------------------------------------------------------------------------------------


@pytest.fixture
def downloaded(tmp_path):
    """A repository as released: quantised Hugging Face shards, and original/ with other weights."""
    for part, layout, shards in ((".", "huggingface", 3), ("original", "original", 1)):
        tensors = random_tensors(tiny_config(), np.random.default_rng())
        write_checkpoint(tmp_path / "made" / layout, tiny_config(), tensors, layout=layout, shards=shards)
        shutil.copytree(tmp_path / "made" / layout, tmp_path / "repository" / part, dirs_exist_ok=True)
    return tmp_path / "repository"


def test_repository_uses_the_folder_that_was_named(downloaded):
    assert Checkpoint(downloaded).path == downloaded
    assert Checkpoint(downloaded / "original").layout == "original"
    assert Checkpoint(str(downloaded)).layout == "huggingface"


@pytest.mark.parametrize(
    "absent", [["*.safetensors*"], ["model-00002-of-00003.safetensors"], ["config.json"], ["*.json", "*-00001-*"]]
)
def test_repository_without_all_of_its_own_files_uses_original(downloaded, absent):
    for pattern in absent:
        for path in downloaded.glob(pattern):
            path.unlink()
    checkpoint = Checkpoint(downloaded)
    assert checkpoint.path == downloaded / "original"
    assert_same_tensors(checkpoint, stored_bits(downloaded / "original"))


def test_repository_with_an_index_that_names_an_impossible_file_uses_original(downloaded):
    index = downloaded / "model.safetensors.index.json"
    named = json.loads(index.read_text())
    named["weight_map"] = dict.fromkeys(named["weight_map"], "x" * 300)
    index.write_text(json.dumps(named))
    assert Checkpoint(downloaded).path == downloaded / "original"


def test_repository_incomplete_in_both_places_reports_both(downloaded):
    (downloaded / "model-00002-of-00003.safetensors").unlink()
    (downloaded / "original" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)model-00002-of-00003.*original/config.json: is missing"):
        Checkpoint(downloaded)


def test_path_of_a_file(downloaded):
    assert Checkpoint(downloaded / "original" / "model.safetensors").layout == "original"
    assert len(Checkpoint(downloaded / "model-00003-of-00003.safetensors").files) == 3


def test_file_named_among_several_whole_ones(tmp_path):
    tensors = [random_tensors(tiny_config(), np.random.default_rng()) for _ in range(2)]
    for number, content in enumerate(tensors):
        folder = write_checkpoint(tmp_path / f"{number}", tiny_config(), content)
        (folder / "model.safetensors").rename(folder / f"{number}.safetensors")
    shutil.move(tmp_path / "1" / "1.safetensors", tmp_path / "0")
    assert_same_tensors(Checkpoint(tmp_path / "0" / "1.safetensors"), tensors[1])


def test_hugging_face_cache_of_links(downloaded, tmp_path):
    snapshot, blobs = tmp_path / "hub" / "snapshots" / "abc", tmp_path / "hub" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(path for path in sorted(downloaded.iterdir()) if path.is_file()):
        shutil.move(path, blobs / str(number))
        (snapshot / path.name).symlink_to(blobs / str(number))
    assert Checkpoint(snapshot).layout == "huggingface"
    assert Checkpoint(snapshot / "model-00001-of-00003.safetensors").layout == "huggingface"


def test_relative_path_and_another_working_directory(downloaded, tmp_path):
    with contextlib.chdir(downloaded):
        checkpoint = Checkpoint("original")
    with contextlib.chdir(tmp_path):
        assert_same_tensors(checkpoint, stored_bits(downloaded / "original"))


def test_home_folder_is_expanded(downloaded, monkeypatch):
    monkeypatch.setenv("HOME", str(downloaded))
    assert Checkpoint("~/original").path == downloaded / "original"


# --- Life of an open checkpoint -----------------------------------------------------------------------------


def test_closing(downloaded):
    with Checkpoint(downloaded / "original") as checkpoint:
        array = checkpoint.read("norm.scale")
        before = array.copy()
    np.testing.assert_array_equal(array, before)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: is closed; norm\.scale"):
        checkpoint.read("norm.scale")
    checkpoint.close()


def test_no_file_stays_open(downloaded):
    def open_maps() -> int:
        return Path("/proc/self/maps").read_text().count(str(downloaded))

    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc")
    checkpoint = Checkpoint(downloaded)
    assert open_maps() == 3
    checkpoint.close()
    assert open_maps() == 0


def test_arrays_cannot_be_written(downloaded):
    with pytest.raises(ValueError, match="read-only"):
        Checkpoint(downloaded).read("norm.scale")[0] = 1


def test_wrong_indices(downloaded):
    checkpoint = Checkpoint(downloaded)
    with pytest.raises(CheckpointError, match=r"has no tensor block\.3\.attn\.sinks"):
        checkpoint.read("block.3.attn.sinks")
    for name in ("block.0.attn.qkv.bias", "block.0.attn.sinks"):
        with pytest.raises(IndexError):
            checkpoint.read(name, 24 * 64)
        with pytest.raises(IndexError):
            checkpoint.read(name, (0, 0))
        with pytest.raises(ValueError, match=f"{name}: the step of a slice must be positive, found -1"):
            checkpoint.read(name, slice(None, None, -1))
        with pytest.raises(TypeError, match=f"{name}: .*found list"):
            checkpoint.read(name, [1, 2])  # type: ignore[arg-type]


def test_many_threads(written):
    folder, tensors = written
    checkpoint = Checkpoint(folder)
    start = threading.Barrier(8)

    def read_all(seed: int) -> bool:
        random = np.random.default_rng(seed)
        start.wait()
        return all(
            np.array_equal(checkpoint.read(name, row := int(random.integers(len(tensors[name])))), tensors[name][row])
            for name in random.permutation(checkpoint.names)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read_all, range(8)))


def test_import_needs_no_torch():
    code = "import sys, gpt_oss.checkpoint, gpt_oss.demo, gpt_oss.synthetic; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- Bytes touched, at the true shapes ----------------------------------------------------------------------


@pytest.fixture
def true_size(tmp_path):
    """gpt-oss-20b in full as a file that is one hole: 13.8 GB that occupy nothing on the disk."""
    config = MODELS["20b"]
    specs = {name: (spec.dtypes[0], spec.shape) for name, spec in checkpoint_specs(config).items()}
    path = tmp_path / "model.safetensors"
    header = tensor_file_header(specs)
    path.write_bytes(header)
    data = sum(int(np.prod(shape)) * (2 if dtype == "BF16" else 1) for dtype, shape in specs.values())
    os.truncate(path, len(header) + data)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    return tmp_path


def resident_file_bytes() -> int:
    return int(re.search(r"RssFile:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to count mapped pages")
def test_only_the_bytes_of_a_slice_are_touched(true_size):
    """Opening maps 13.8 GB and reads a few pages; a slice of 1.4 kB x 360 rows in one expert costs its own pages."""
    before = resident_file_bytes()
    checkpoint = Checkpoint(true_size)
    assert checkpoint.nbytes == 13_761_264_768
    assert resident_file_bytes() - before < 4 << 20
    blocks, _ = block_range(720, 1440)
    slices = {
        "block.7.mlp.mlp1_weight.blocks": (3, slice(1440, 2880)),
        "block.23.mlp.mlp2_weight.blocks": (31, slice(0, 2880), blocks),
        "unembedding.weight": (slice(150_816, 151_816),),
    }
    for name, index in slices.items():
        before = resident_file_bytes()
        part = checkpoint.read(name, index)
        assert resident_file_bytes() - before < 1 << 18, f"{name} was read before anyone looked at it"
        part.copy()
        extent = np.lib.array_utils.byte_bounds(part)
        touched = resident_file_bytes() - before
        # The kernel maps up to 16 pages around a fault, so the ends may each bring 64 KiB more.
        assert part.nbytes // 2 < touched < extent[1] - extent[0] + (1 << 18), name
