"""Checkpoints with seeded random weights in the real format, for tests and benchmarks; also a command.

In: a `ModelConfig` and a seed. Out: every tensor by name, straight in MXFP4 and BF16, the same for a name and
seed whatever is asked before it, and so a checkpoint on disk. The model says nothing sensible but costs
exactly what the real one costs.

    python -m gpt_oss.synthetic --model 20b --layers 4 OUT
"""

import argparse
import dataclasses
import hashlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

from gpt_oss.errors import MissingExtra

try:
    import numpy as np
    from tqdm import tqdm
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "numpy", "torch") from error

from gpt_oss.checkpoint_layout import checkpoint_specs
from gpt_oss.checkpoint_writer import check_target, to_bfloat16, write_checkpoint
from gpt_oss.command_line import positive, run_command
from gpt_oss.config import ModelConfig

MODELS = {
    "20b": ModelConfig(num_hidden_layers=24, num_experts=32),
    "120b": ModelConfig(num_hidden_layers=36, num_experts=128),
}

# With uniform codes these scale bytes give weights with a standard deviation of 0.043.
_SCALES = (117, 122)
_WEIGHT_DEVIATION, _BIAS_DEVIATION, _SINK_DEVIATION = 0.02, 0.01, 1.0
_QUANTILES = 1 << 16
_CHUNK = 1 << 22


class SyntheticTensors:
    """Random tensors by their `original/` name, made when asked for.

    MXFP4 blocks are uniform bytes and their scales uniform in 117..122; weights are N(0, 0.02), biases
    N(0, 0.01), sinks N(0, 1), gains 1. Normal values are drawn from 65,536 equally likely quantiles of the
    distribution: several times faster, and BF16 has fewer distinct values than that anyway.
    """

    def __init__(self, config: ModelConfig, seed: int = 0, quantized: bool = True):
        self._specs = checkpoint_specs(config, quantized)
        self._seed = seed
        points = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
        self._standard = np.array([NormalDist().inv_cdf(p) for p in points])

    def __getitem__(self, name: str) -> np.ndarray:
        """One tensor: uint8 for packed ones, uint16 BF16 patterns for the others. KeyError if unknown."""
        shape = self._specs[name].shape
        digest = hashlib.sha256(f"{self._seed}:{name}".encode()).digest()
        random = np.random.Generator(np.random.SFC64(np.frombuffer(digest, np.uint32)))
        if name.endswith(".blocks"):
            return np.frombuffer(random.bytes(math.prod(shape)), np.uint8).reshape(shape)
        if name.endswith(".scales"):
            return random.integers(*_SCALES, shape, np.uint8, endpoint=True)
        if name.endswith("norm.scale"):
            return to_bfloat16(np.ones(shape, np.float32))
        return self._normal(shape, _deviation(name), random)

    def _normal(self, shape: tuple[int, ...], deviation: float, random: np.random.Generator) -> np.ndarray:
        table = to_bfloat16(self._standard * deviation)
        result = np.empty(math.prod(shape), np.uint16)
        for start in range(0, len(result), _CHUNK):
            part = result[start : start + _CHUNK]
            part[:] = table[np.frombuffer(random.bytes(2 * len(part)), np.uint16)]
        return result.reshape(shape)


def _deviation(name: str) -> float:
    if name.endswith("sinks"):
        return _SINK_DEVIATION
    return _BIAS_DEVIATION if name.endswith("bias") else _WEIGHT_DEVIATION


def write_synthetic(
    directory: str | Path,
    config: ModelConfig,
    *,
    seed: int = 0,
    layout: str = "original",
    quantized: bool = True,
    shards: int = 1,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Path:
    """Write a random checkpoint and return its folder; the parameters are those of `write_checkpoint`."""
    tensors = SyntheticTensors(config, seed, quantized)
    total = sum(
        math.prod(spec.shape) * (1 if spec.dtypes[0] == "U8" else 2)
        for spec in checkpoint_specs(config, quantized).values()
    )
    check_target(Path(directory), overwrite)  # before the bar, which would share its line with an error
    with tqdm(total=total, unit="B", unit_scale=True, disable=not show_progress) as bar:
        return write_checkpoint(
            directory,
            config,
            tensors,
            layout=layout,
            quantized=quantized,
            shards=shards,
            overwrite=overwrite,
            progress=bar.update,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="gpt-oss synthetic",
        description="Write a checkpoint with random weights in the real format and, unless --layers says "
        "otherwise, of the full size: 13.8 GB for 20b, 65 GB for 120b.",
    )
    parser.add_argument("output", metavar="OUT", help="folder to write")
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument("--model", choices=MODELS, default="20b", help="shapes to take (default: 20b)")
    shapes.add_argument("--config", metavar="FILE", help="take the shapes of this config.json instead")
    parser.add_argument("--layers", type=int, metavar="N", help="only the first N layers (default: all)")
    parser.add_argument("--layout", choices=("original", "huggingface"), default="original")
    parser.add_argument("--dense", action="store_true", help="experts in BF16 instead of MXFP4")
    parser.add_argument("--shards", type=positive, default=1, metavar="N", help="number of files (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is already there")
    options = parser.parse_args(arguments)
    return run_command(parser.prog, lambda: _write(parser, options))


def _write(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    config = ModelConfig.from_file(options.config) if options.config else MODELS[options.model]
    layers = config.num_hidden_layers if options.layers is None else options.layers
    if not 1 <= layers <= config.num_hidden_layers:
        parser.error(f"--layers must be between 1 and {config.num_hidden_layers}, found {layers}")
    folder = write_synthetic(
        options.output,
        dataclasses.replace(config, num_hidden_layers=layers),
        seed=options.seed,
        layout=options.layout,
        quantized=not options.dense,
        shards=options.shards,
        overwrite=options.overwrite,
        show_progress=True,
    )
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    sys.exit(main())
