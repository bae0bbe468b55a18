"""Write checkpoints in the released formats, tensor by tensor.

In: a `ModelConfig` and a way to get each tensor of the `original/` layout by name. Out: a folder with
config.json and one or many safetensors files in either layout, which appears under its name only when it is
complete. At most one tensor is in memory at a time. Does not know where the values come from.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gpt_oss.checkpoint_layout import Shape, StoredPart, checkpoint_specs, hugging_face_parts
from gpt_oss.config import ModelConfig
from gpt_oss.errors import CheckpointError
from gpt_oss.tensor_file import NUMPY_DTYPES, tensor_file_header

_WRITE_BYTES = 16 << 20  # one write call: large enough for the disk, small enough for a smooth progress bar
# What `transformers` needs to know to keep the expert weights packed when it loads them.
_HF_QUANTIZATION = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": [
        "model.layers.*.self_attn",
        "model.layers.*.mlp.router",
        "model.embed_tokens",
        "lm_head",
    ],
}


Specs = Mapping[str, tuple[str, Shape]]  # `original/` name to type and shape
Part = tuple[str, StoredPart]  # `original/` name and one stored part of it


class TensorSource(Protocol):
    """What gives a tensor by its `original/` name: a dict or anything else with this one method."""

    def __getitem__(self, name: str, /) -> np.ndarray: ...


def write_checkpoint(
    directory: str | Path,
    config: ModelConfig,
    tensors: TensorSource,
    *,
    layout: str = "original",
    quantized: bool = True,
    shards: int = 1,
    overwrite: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write a checkpoint and return its folder.

    tensors: `tensors[name]` is asked once for each name of the `original/` layout; BF16 as uint16 bit
    patterns or as float32, which is rounded to the nearest; U8 as uint8. quantized: expert weights as MXFP4
    `.blocks` and `.scales`, otherwise dense BF16 under the name without ending.
    layout: "original" or "huggingface". shards: number of files, cut between tensors.
    overwrite: replace a checkpoint that is already there. progress: called with the bytes of each write.
    Raises `CheckpointError` if the folder is in use, the disk too small, a tensor of the wrong type or shape or
    `shards` larger than the number of tensors.
    """
    directory = Path(os.path.realpath(directory))  # what a link leads to is replaced, not the link
    specs = {name: (spec.dtypes[0], spec.shape) for name, spec in checkpoint_specs(config, quantized).items()}
    stored = _stored_parts(config, specs, layout)
    files = _cut_into_shards(stored, specs, shards)
    check_target(directory, overwrite)
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
    try:
        temporary.mkdir(parents=True)
        _check_disk(temporary, sum(_part_bytes(specs[name][0], part) for name, part in stored))
        for file_name, entries in files.items():
            _write_file(temporary / file_name, entries, specs, tensors, progress)
        if len(files) > 1:
            _write_json(temporary / "model.safetensors.index.json", _index(files, specs))
        _write_json(temporary / "config.json", _config_dict(config, layout, quantized))
        _move_into_place(temporary, directory)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Float32 values to BF16 bit patterns (uint16), rounded to nearest, ties to even; NaN stays NaN."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def _stored_parts(config: ModelConfig, specs: Specs, layout: str) -> list[Part]:
    if layout not in ("original", "huggingface"):
        raise ValueError(f'layout must be "original" or "huggingface", found {layout!r}')
    if layout == "original":
        return [(name, StoredPart(name, shape)) for name, (_, shape) in specs.items()]
    return [(name, part) for name in specs for part in hugging_face_parts(name, specs[name][1], config)]


def _part_bytes(dtype: str, part: StoredPart) -> int:
    return math.prod(part.shape) * NUMPY_DTYPES[dtype].itemsize


def _cut_into_shards(stored: list[Part], specs: Specs, shards: int) -> dict[str, list[Part]]:
    """File name to its parts, of roughly equal size; the parts of one tensor stay in one file."""
    names = list(dict.fromkeys(name for name, _ in stored))
    if not 1 <= shards <= len(names):
        raise CheckpointError(f"shards must be between 1 and {len(names)}, the number of tensors, found {shards}")
    if shards == 1:
        return {"model.safetensors": stored}
    sizes = dict.fromkeys(names, 0)
    for name, part in stored:
        sizes[name] += _part_bytes(specs[name][0], part)
    shard_of, shard, filled, remaining = dict.fromkeys(names, 0), 0, 0, sum(sizes.values())
    for position, name in enumerate(names):
        # On to the next file when this one has its share of the rest, or just one tensor is left for each.
        has_share = filled * (shards - shard) >= filled + remaining
        if has_share or len(names) - position < shards - shard:
            shard, filled = min(shard + 1, shards - 1), 0
        shard_of[name] = shard
        filled, remaining = filled + sizes[name], remaining - sizes[name]
    files: dict[str, list[Part]] = {f"model-{n + 1:05}-of-{shards:05}.safetensors": [] for n in range(shards)}
    by_number = list(files.values())
    for name, part in stored:
        by_number[shard_of[name]].append((name, part))
    return files


def check_target(directory: Path, overwrite: bool) -> None:
    """Raise CheckpointError unless a checkpoint can be written to `directory`."""
    try:
        if not directory.exists():
            return
        if not directory.is_dir():
            raise CheckpointError(f"{directory}: is a file; expected the name of a folder to write")
        entries = [path.name for path in directory.iterdir()]
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written ({error.strerror or error})") from error
    if entries and not overwrite:
        raise CheckpointError(f"{directory}: is not empty; choose another folder, or overwrite it (--overwrite)")
    foreign = [name for name in entries if not name.endswith((".safetensors", ".index.json", "config.json"))]
    if foreign:
        raise CheckpointError(f"{directory}: also holds {foreign[0]}, so is not replaced; choose another folder")


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(f"{folder.parent}: has {free:,} bytes free, {needed:,} are needed; free some space")


def _write_file(
    path: Path,
    entries: list[Part],
    specs: Specs,
    tensors: TensorSource,
    progress: Callable[[int], object] | None,
) -> None:
    with open(path, "xb") as file:
        file.write(tensor_file_header({part.name: (specs[name][0], part.shape) for name, part in entries}))
        for array in _arrays_in_order(entries, specs, tensors):
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            for start in range(0, len(data), _WRITE_BYTES):
                written = file.write(data[start : start + _WRITE_BYTES])
                if progress is not None:
                    progress(written)


def _arrays_in_order(entries: list[Part], specs: Specs, tensors: TensorSource) -> Iterator[np.ndarray]:
    asked, tensor, row = "", np.empty(0), 0
    for name, part in entries:
        if name != asked:
            asked, tensor, row = name, _checked(name, tensors, *specs[name]), 0
        if part.transposed:
            yield tensor.swapaxes(-1, -2)
        else:
            yield tensor[row : row + part.shape[0]]
            row += part.shape[0]


def _checked(name: str, tensors: TensorSource, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.asarray(tensors[name])
    except KeyError:
        raise CheckpointError(f"{name}: is missing among the tensors to write") from None
    if dtype == "BF16" and array.dtype == np.float32:
        array = to_bfloat16(array)
    if array.dtype != NUMPY_DTYPES[dtype] or array.shape != shape:
        found, expected = f"{array.dtype} {list(array.shape)}", f"{NUMPY_DTYPES[dtype]} {list(shape)}"
        raise CheckpointError(f"{name}: is {found}, expected {expected} to write {dtype}")
    return array


def _index(files: Mapping[str, list[Part]], specs: Specs) -> dict[str, Any]:
    total = sum(_part_bytes(specs[name][0], part) for entries in files.values() for name, part in entries)
    weight_map = {part.name: file for file, entries in files.items() for _, part in entries}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def _config_dict(config: ModelConfig, layout: str, quantized: bool) -> dict[str, Any]:
    if layout == "original":
        return config.to_dict()
    return config.to_hf_dict() | ({"quantization_config": _HF_QUANTIZATION} if quantized else {})


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _move_into_place(temporary: Path, directory: Path) -> None:
    """Rename the finished folder; what was there is moved aside first and deleted only afterwards."""
    if not directory.exists():
        temporary.rename(directory)
        return
    replaced = temporary.with_name(temporary.name + ".replaced")
    directory.rename(replaced)
    try:
        temporary.rename(directory)
    except OSError:
        replaced.rename(directory)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
