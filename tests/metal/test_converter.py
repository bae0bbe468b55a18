"""The converter against a second reader of the format, and what it refuses."""

import math
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.checkpoint_writer import write_checkpoint
from gpt_oss.demo import demo_checkpoint
from gpt_oss.errors import CheckpointError
from gpt_oss.metal.converter import Vocabulary, convert, number_of_layers, write_model_file
from gpt_oss.tokenizer import SPLIT_PATTERN, get_tokenizer
from tests.helpers.checkpoints import bfloat16_values, random_tensors, tiny_checkpoint
from tests.metal.model_file import read_model_file, tiny_model_config, tiny_model_file, tiny_vocabulary

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "gpt_oss" / "metal" / "scripts" / "create-local-model.py"


def test_header_is_that_of_the_released_models(tmp_path: Path) -> None:
    header = read_model_file(tiny_model_file(tmp_path)).header
    assert (header["context_length"], header["attention_window"], header["rope_theta"]) == (131072, 128, 150000)
    assert (header["num_blocks"], header["num_experts"], header["num_active_experts"]) == (3, 6, 4)
    # spec/model.md: low 8.0928, high 17.398, concentration 1.34657.
    low, high = (32 * math.log(4096 / (turns * 2 * math.pi)) / math.log(150000) for turns in (32, 1))
    assert (round(low, 4), round(high, 3)) == (8.0928, 17.398)
    assert header["yarn_offset"] == np.float32(-low / (high - low))
    assert header["yarn_scale"] == np.float32(1 / (high - low))
    assert round(header["yarn_multiplier"], 5) == 1.34657
    assert header["interpolation_scale"] == 1 / 32


def test_the_number_of_layers_is_read_back(tmp_path: Path) -> None:
    path = tiny_model_file(tmp_path)
    assert number_of_layers(path) == 3
    for content in (b"", path.read_bytes()[:39], b"x" + path.read_bytes()[1:100]):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"other: is neither a folder .* nor a Metal model file"):
            number_of_layers(tmp_path / "other")
    with pytest.raises(CheckpointError, match="absent: cannot be read"):
        number_of_layers(tmp_path / "absent")


def test_every_bit_of_a_random_checkpoint(tmp_path: Path) -> None:
    config = tiny_model_config()
    tensors = random_tensors(config, np.random.default_rng(1))
    for name in tensors:  # NaN payloads do not survive a multiplication; NaN scales and those above 240 are refused
        if name.endswith(".scales"):
            tensors[name] = np.minimum(tensors[name], 240)
        elif ".qkv." in name:
            tensors[name] &= 0xBFFF
    folder = write_checkpoint(tmp_path / "checkpoint", config, tensors)
    with Checkpoint(folder) as checkpoint:
        found = read_model_file(write_model_file(checkpoint, tmp_path / "model.bin", tiny_vocabulary()))
    rows = len(tiny_vocabulary())
    for name, array in found.dense.items():
        expected = tensors[name][:rows] if "embedding" in name else tensors[name]
        if ".qkv." not in name:
            np.testing.assert_array_equal(array, expected, err_msg=name)
            continue
        for head in range(16 + 2 * 4):
            for row in range(64):
                # Row 2j holds the checkpoint's row j, row 2j + 1 its partner j + 32; values are left alone.
                source = row if head >= 20 else row // 2 + row % 2 * 32
                factor = 0.5 if head < 16 else 0.25 if head < 20 else 1.0
                exact = bfloat16_values(expected[head * 64 + source]) * np.float32(factor)
                normal = np.abs(exact) >= np.finfo(np.float32).tiny
                actual = bfloat16_values(array[head * 64 + row])
                np.testing.assert_array_equal(np.where(normal, actual, 0), np.where(normal, exact, 0))
    for (layer, expert, part), array in found.experts.items():
        expected = tensors[f"block.{layer}.mlp.{part}"][expert]
        np.testing.assert_array_equal(array, expected + 14 if part.endswith("scales") else expected)


def test_both_layouts_and_shards_give_the_same_file(tmp_path: Path) -> None:
    original = tiny_model_file(tmp_path / "a").read_bytes()
    assert tiny_model_file(tmp_path / "b", layout="huggingface", shards=3).read_bytes() == original


def test_dense_experts_of_representable_values_are_exact(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_model_config()
    blocks = random_tensors(config, np.random.default_rng(2), quantized=False)
    dense = {
        name: (array % 3 * 0x80 + 0x3F00).astype(np.uint16) if "mlp" in name and array.ndim == 3 else array & 0xBFFF
        for name, array in blocks.items()
    }
    folder = write_checkpoint(tmp_path / "dense", config, dense, quantized=False)
    with Checkpoint(folder) as checkpoint:
        found = read_model_file(write_model_file(checkpoint, tmp_path / "model.bin", tiny_vocabulary()))
    assert "rounded to MXFP4" in caplog.text
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    for (layer, expert, part), codes in found.experts.items():
        if part.endswith("blocks"):
            scales = found.experts[layer, expert, part.replace("blocks", "scales")].astype(np.int32) - 14 - 127
            pairs = np.stack([values[codes & 15], values[codes >> 4]], axis=-1).reshape(*scales.shape, 32)
            decoded = np.ldexp(pairs, scales[..., None]).reshape(len(scales), -1)
            expected = bfloat16_values(dense[f"block.{layer}.mlp.{part.removesuffix('.blocks')}"][expert])
            np.testing.assert_array_equal(decoded, expected)


def test_demo_model_by_the_command(tmp_path: Path) -> None:
    output = tmp_path / "model.bin"
    command = [sys.executable, str(SCRIPT), "-s", str(demo_checkpoint()), "-d", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr  # the progress bar reached its end
    found = read_model_file(output)
    assert found.pattern == SPLIT_PATTERN.encode() + b"\0"
    tokenizer = get_tokenizer()
    assert found.text == [tokenizer.decode_single_token_bytes(token) for token in range(199_998)]
    assert found.dense["embedding.weight"].shape == (200_014, 128)
    assert uuid.UUID(bytes=found.special[200_006 - 199_998]) == uuid.UUID("55a77c2f-8a01-4c54-8ac2-313bfc7e208d")
    assert [n for n, token in enumerate(found.special) if not any(token)] == [0, 1, 3, 6, 11, 12, 13]


def test_a_failed_conversion_leaves_the_old_file(tmp_path: Path) -> None:
    output = tiny_model_file(tmp_path)
    before = output.read_bytes()

    def fail(_written: int, _total: int) -> None:
        raise KeyboardInterrupt

    with Checkpoint(tmp_path / "checkpoint") as checkpoint, pytest.raises(KeyboardInterrupt):
        write_model_file(checkpoint, output, tiny_vocabulary(), progress=fail)
    assert output.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.bin"]


def test_a_full_disk_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tiny_checkpoint(tmp_path / "checkpoint", tiny_model_config())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with Checkpoint(checkpoint) as opened, pytest.raises(CheckpointError, match=r"1,000 bytes free, .* are needed"):
        write_model_file(opened, tmp_path / "model.bin", tiny_vocabulary())
    assert os.listdir(tmp_path) == ["checkpoint"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"head_dim": 32}, "head_dim 32.*only hold 64"), ({"vocab_size": 284}, "vocabulary of 284 rows.*needs 285")],
)
def test_models_that_the_format_cannot_hold(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    config = tiny_model_config() if "head_dim" not in changes else tiny_model_config(**changes)
    if "vocab_size" in changes:
        config = SimpleNamespace(**{**vars(config), **changes})
    opened = SimpleNamespace(config=config, path="checkpoint", quantized=True, names=())
    with pytest.raises(CheckpointError, match=message):
        write_model_file(opened, tmp_path / "model.bin", tiny_vocabulary())  # type: ignore[arg-type]


def test_a_scale_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = tiny_model_config()
    tensors = random_tensors(config, np.random.default_rng(3))
    for name in tensors:
        if name.endswith(".scales"):
            tensors[name] = np.minimum(tensors[name], 240)
    tensors["block.1.mlp.mlp2_weight.scales"][5, 7, 1] = 241
    folder = write_checkpoint(tmp_path / "checkpoint", config, tensors)
    with Checkpoint(folder) as opened, pytest.raises(CheckpointError, match=r"block\.1\.mlp\.mlp2_weight\.scales"):
        write_model_file(opened, tmp_path / "model.bin", tiny_vocabulary())


@pytest.mark.parametrize("target", [".", "absent/model.bin"])
def test_targets_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder|is not a folder"):
        convert(demo_checkpoint(), tmp_path / target)
    assert os.listdir(tmp_path) == []


def test_the_command_reports_a_missing_folder_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "-s", str(tmp_path / "none"), "-d", str(tmp_path / "model.bin")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "error: " in done.stderr and "does not exist" in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_the_vocabulary_is_that_of_the_package() -> None:
    vocabulary = Vocabulary.o200k()
    assert len(vocabulary) == 200_014
    assert get_tokenizer().encode_single_token(vocabulary.text[199_997]) == 199_997
