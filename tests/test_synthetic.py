"""Synthetic checkpoints: their distributions, their determinism and the command."""

import hashlib
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.checkpoint_layout import checkpoint_specs
from gpt_oss.mxfp4 import decode
from gpt_oss.synthetic import MODELS, SyntheticTensors, main, write_synthetic
from tests.helpers.checkpoints import bfloat16_values, tiny_config


def kolmogorov_distance(values: np.ndarray, deviation: float) -> float:
    """Largest distance between the distribution of the values and N(0, deviation)."""
    from statistics import NormalDist

    ordered = np.sort(values.ravel().astype(np.float64))
    points = np.linspace(-3.5, 3.5, 141)
    expected = np.array([NormalDist().cdf(x) for x in points])
    # Half the values that equal a point lie on either side of it: BF16 makes ties.
    below = [np.searchsorted(ordered, points * deviation, side) for side in ("left", "right")]
    return float(np.abs(sum(below) / 2 / len(ordered) - expected).max())


def test_shapes_of_the_released_models():
    """Parameters and bytes as the model cards state them: 20.9 B in 13.8 GB, 116.8 B in 65 GB."""
    expected = {"20b": (20_914_757_184, 13_761_264_768), "120b": (116_829_156_672, 65_248_815_744)}
    for model, (parameters, nbytes) in expected.items():
        count = size = 0
        for name, spec in checkpoint_specs(MODELS[model]).items():
            elements = int(np.prod(spec.shape))
            size += elements * (1 if spec.dtypes == ("U8",) else 2)
            count += 0 if name.endswith("scales") else elements * (2 if name.endswith("blocks") else 1)
        assert (count, size) == (parameters, nbytes)


def test_distributions():
    config = tiny_config(num_hidden_layers=1, num_attention_heads=512, num_key_value_heads=8, vocab_size=20_000)
    tensors = SyntheticTensors(config, seed=int.from_bytes(np.random.default_rng().bytes(4)))
    for name, deviation, tolerance in [
        ("embedding.weight", 0.02, 0.003),
        ("block.0.attn.qkv.weight", 0.02, 0.003),
        ("block.0.attn.qkv.bias", 0.01, 0.02),
        ("block.0.attn.sinks", 1.0, 0.13),  # of 512 true values one set in ten million is farther: 2 exp(-2 n d²)
    ]:
        assert kolmogorov_distance(bfloat16_values(tensors[name]), deviation) < tolerance, name
    for name in ("block.0.attn.norm.scale", "block.0.mlp.norm.scale", "norm.scale"):
        assert (bfloat16_values(tensors[name]) == 1).all()
    blocks, scales = (tensors[f"block.0.mlp.mlp1_weight.{part}"] for part in ("blocks", "scales"))
    codes = np.bincount(np.concatenate([blocks.ravel() & 15, blocks.ravel() >> 4]), minlength=16)
    assert abs(codes / codes.mean() - 1).max() < 0.05
    assert set(np.unique(scales)) == set(range(117, 123))
    assert abs(np.bincount(scales.ravel())[117:] / (scales.size / 6) - 1).max() < 0.2
    assert decode(blocks, scales).std() == pytest.approx(0.043, rel=0.05)


def test_neighbouring_values_and_tensors_are_not_related():
    tensors = SyntheticTensors(tiny_config(vocab_size=5000))
    first, second = (bfloat16_values(tensors[name]).ravel() for name in ("embedding.weight", "unembedding.weight"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.01
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.01


def test_the_same_whatever_the_order():
    config, seed = tiny_config(), 12345
    names = list(checkpoint_specs(config))
    forward, backward = SyntheticTensors(config, seed), SyntheticTensors(config, seed)
    first = {name: forward[name].copy() for name in names}
    for name in reversed(names):
        np.testing.assert_array_equal(backward[name], first[name])


def test_the_first_layers_are_those_of_the_whole_model():
    whole, part = (SyntheticTensors(tiny_config(num_hidden_layers=n)) for n in (3, 1))
    for name in checkpoint_specs(tiny_config(num_hidden_layers=1)):
        np.testing.assert_array_equal(whole[name], part[name])


def test_seeds_differ():
    one, two = (SyntheticTensors(tiny_config(), seed)["norm.scale"] for seed in (1, 2))
    np.testing.assert_array_equal(one, two)
    for name in ("embedding.weight", "block.1.mlp.mlp1_weight.blocks", "block.1.mlp.mlp1_weight.scales"):
        assert not np.array_equal(SyntheticTensors(tiny_config(), 1)[name], SyntheticTensors(tiny_config(), 2)[name])


def test_bytes_stay_the_same_from_version_to_version(tmp_path):
    """Benchmarks name a seed; their numbers are comparable only as long as it means the same weights."""
    path = write_synthetic(tmp_path / "model", tiny_config(), seed=7) / "model.safetensors"
    assert (
        hashlib.sha256(path.read_bytes()).hexdigest()
        == "0fb14af266abc0a9a8a9390a5471c309e9e2d2095d00ec415b83b6c165d31034"
    )


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "shapes.json"
    path.write_text(json.dumps(tiny_config().to_dict()))
    return str(path)


def test_command(tmp_path, config_file, capsys):
    options = ["--layers", "2", "--layout", "huggingface", "--shards", "3", "--seed", "5"]
    assert main(["--config", config_file, *options, str(tmp_path / "model")]) == 0
    output = capsys.readouterr()
    assert output.out == f"{tmp_path / 'model'}\n"
    assert "100%" in output.err
    with Checkpoint(tmp_path / "model") as checkpoint:
        assert len(checkpoint.files) == 3
        assert checkpoint.layout == "huggingface"
        assert checkpoint.config == tiny_config(num_hidden_layers=2)
        expected = SyntheticTensors(tiny_config(), 5)
        for name in checkpoint.names:
            np.testing.assert_array_equal(checkpoint.read(name), expected[name])
    again = ["--config", config_file, "--dense", "--overwrite", str(tmp_path / "model")]
    assert main(again) == 0
    assert not Checkpoint(tmp_path / "model").quantized


@pytest.mark.slow
def test_command_at_the_true_shape(tmp_path):
    assert main(["--model", "20b", "--layers", "1", str(tmp_path / "model")]) == 0
    with Checkpoint(tmp_path / "model") as checkpoint:
        name, index = "block.0.mlp.mlp2_weight.blocks", (31, slice(2000, 2100))
        assert checkpoint.shape(name) == (32, 2880, 90, 16)
        np.testing.assert_array_equal(checkpoint.read(name, index), SyntheticTensors(MODELS["20b"])[name][index])


def test_command_refuses(tmp_path, config_file, capsys):
    target = str(tmp_path / "model")
    (tmp_path / "file").touch()
    for arguments, problem in [
        ([str(tmp_path / "file")], "file: is a file; expected the name of a folder to write"),
        (["--shards", "49", target], "shards must be between 1 and 48, the number of tensors, found 49"),
    ]:
        assert main(["--config", config_file, *arguments]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("gpt-oss synthetic: error: ") and error.endswith(problem)
    assert main(["--config", str(tmp_path / "none"), target]) == 1
    for option, value, problem in [
        ("--layers", "0", "--layers must be between 1 and 3, found 0"),
        ("--layers", "4", "--layers must be between 1 and 3, found 4"),
        ("--shards", "0", "argument --shards: expected an integer of at least 1, got '0'"),
    ]:
        with pytest.raises(SystemExit) as raised:
            main(["--config", config_file, option, value, target])
        assert raised.value.code == 2
        assert problem in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "shapes.json"]


def test_help_is_quick_and_needs_no_torch():
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "gpt_oss.synthetic", "--help"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert "--layers N" in result.stdout
    assert not re.search(r"\| +torch$", result.stderr, re.MULTILINE)


def test_config_is_that_of_the_model(tmp_path):
    folder = write_synthetic(tmp_path / "model", tiny_config())
    assert json.loads((folder / "config.json").read_text()) == tiny_config().to_dict()
