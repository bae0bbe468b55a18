"""A checkpoint on disk: one or many safetensors files and a config.json, opened once and read on demand.

In: a folder in the `original/` or the Hugging Face layout, quantised or not. Out: the configuration and the
tensors as NumPy arrays (BF16 as uint16 bit patterns), under the names of the `original/` layout whatever the
layout on disk. All files are checked and mapped when the checkpoint is opened: a tensor that is missing, cut
off or of the wrong type or shape is a `CheckpointError` before any weight is read. Reading a slice touches
only the bytes of that slice. Knows nothing of torch, devices or ranks.
"""

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from gpt_oss.checkpoint_layout import (
    StoredPart,
    TensorSpec,
    checkpoint_specs,
    hugging_face_parts,
    looks_like_hugging_face,
)
from gpt_oss.checkpoint_writer import write_checkpoint
from gpt_oss.config import ModelConfig
from gpt_oss.errors import CheckpointError, GptOssError
from gpt_oss.mxfp4 import BLOCK
from gpt_oss.tensor_file import NUMPY_DTYPES, TensorFile

__all__ = ["BlockRange", "Checkpoint", "Index", "block_range", "write_checkpoint"]

logger = logging.getLogger(__name__)

Index = int | slice | tuple[int | slice, ...]

_SHARD = re.compile(r"-(\d+)-of-(\d+)\.safetensors$")
_OTHER_FORMATS = {
    ".bin": "a Metal model file or a pickled model",
    ".gguf": "a llama.cpp model",
    ".pt": "a pickled model",
    ".pth": "a pickled model",
}


class BlockRange(NamedTuple):
    """Columns of an MXFP4 tensor: the slice of `blocks` to read, then that of decoded `values` to keep."""

    blocks: slice
    values: slice


def block_range(start: int, stop: int) -> BlockRange:
    """The blocks that cover columns [start, stop) and where those columns lie among their values.

    Example: rank 1 of 4 of a 2880-wide tensor owns columns 720 to 1440, that is the second half of block 22
    to all of block 44: `block_range(720, 1440) == (slice(22, 45), slice(16, 736))`.
    """
    if not 0 <= start <= stop:
        raise ValueError(f"expected 0 <= start <= stop, found start {start} and stop {stop}")
    first = start // BLOCK
    return BlockRange(slice(first, -(-stop // BLOCK)), slice(start - first * BLOCK, stop - first * BLOCK))


@dataclass(frozen=True)
class _Source:
    """An `original/` tensor and the stored tensors it consists of, in the order of its first axis."""

    files: tuple[TensorFile, ...]
    parts: tuple[StoredPart, ...]
    shape: tuple[int, ...]
    dtype: str

    def read(self, index: tuple[int | slice, ...]) -> np.ndarray:
        arrays = [file.array(part.name) for file, part in zip(self.files, self.parts, strict=True)]
        if self.parts[0].transposed:
            arrays = [array.swapaxes(-1, -2) for array in arrays]
        return arrays[0][index] if len(arrays) == 1 else _read_rows(arrays, index)


def _read_rows(arrays: list[np.ndarray], index: tuple[int | slice, ...]) -> np.ndarray:
    """`np.concatenate(arrays)[index]`, reading only the rows asked for; a view unless it spans two arrays."""
    rows = range(sum(len(array) for array in arrays))
    selected, rest = rows[index[0] if index else slice(None)], index[1:]
    pieces, start = [], 0
    for array in arrays:
        stop = start + len(array)
        if isinstance(selected, int):
            if start <= selected < stop:
                return array[(selected - start, *rest)]
        else:
            # The first selected row at or behind `start`, then `stop`: both counted in steps.
            first, last = (max(0, -((selected.start - edge) // selected.step)) for edge in (start, stop))
            mine = selected[first:last]
            if mine:
                pieces.append(array[(slice(mine.start - start, mine.stop - start, mine.step), *rest)])
        start = stop
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else arrays[0][(slice(0, 0), *rest)]


class Checkpoint:
    """An open checkpoint. Reading is thread-safe and does not depend on the working directory.

    path: a folder with `config.json` and `*.safetensors`, in either layout; a downloaded repository, whose
    `original/` subfolder is used where its own files are absent or incomplete; or one of the files.
    Raises `CheckpointError` naming file and tensor, or `ConfigError` naming file and key.

    Attributes: `config`; `path`, the folder really used; `layout`, "original" or "huggingface".
    """

    def __init__(self, path: str | Path):
        # Not resolved: the files of a Hugging Face cache are links into a folder of nameless blobs.
        given = Path(os.path.abspath(os.path.expanduser(path)))
        self.path: Path
        self.config: ModelConfig
        self.layout: str
        self._files: list[TensorFile] = []
        self._sources: dict[str, _Source]
        problems: list[GptOssError] = []
        with _explained(given):
            folders, only = _candidates(given)
        for folder in folders:
            try:
                with _explained(folder):
                    self._open(folder, only)
                break
            except GptOssError as error:
                problems.append(error)
        else:
            if len(problems) == 1:
                raise problems[0]
            raise CheckpointError(f"{problems[0]} (nor can original/ be used: {problems[1]})") from problems[0]
        if problems:
            logger.warning("%s; using %s instead", problems[0], self.path)

    def _open(self, folder: Path, only: Path | None) -> None:
        paths = [only] if only else _weight_files(folder)
        config = ModelConfig.from_file(_config_file(folder))
        files = [TensorFile(path) for path in paths]
        owners = _owners(files)
        hugging_face = looks_like_hugging_face(owners)
        self._sources = _match_tensors(folder, config, owners, hugging_face)
        self.path, self.config, self._files = folder, config, files
        self.layout = "huggingface" if hugging_face else "original"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the `original/` layout, in the order of the forward pass."""
        return tuple(self._sources)

    @property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files that are open."""
        return tuple(file.path for file in self._files)

    @property
    def quantized(self) -> bool:
        """Whether all expert weights are MXFP4; dense ones are named without `.blocks` and `.scales`."""
        return not any(name.endswith(("mlp1_weight", "mlp2_weight")) for name in self._sources)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as they are stored."""
        return sum(NUMPY_DTYPES[s.dtype].itemsize * int(np.prod(s.shape)) for s in self._sources.values())

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor in the `original/` layout."""
        return self._source(name).shape

    def dtype(self, name: str) -> str:
        """Stored type: "BF16", "F16", "F32" or "U8"."""
        return self._source(name).dtype

    def read(self, name: str, index: Index = ()) -> np.ndarray:
        """`tensor[index]`, where index is an integer, a slice (of positive step) or a tuple of these.

        Returns uint16 bit patterns for BF16, uint8 for U8, float16 and float32 for F16 and F32. The array is
        read-only and mostly a view of the mapped file, so bytes are read when they are first looked at; it
        stays valid after `close`. It may be strided: `save_pretrained` stores dense experts transposed.
        """
        source = self._source(name)
        index = index if isinstance(index, tuple) else (index,)
        for part in index:
            if isinstance(part, slice) and part.step is not None and part.step < 1:
                raise ValueError(f"{name}: the step of a slice must be positive, found {part.step}")
            if not isinstance(part, slice | int | np.integer) or isinstance(part, bool):
                raise TypeError(f"{name}: an index is integers and slices, found {type(part).__name__}")
        result = np.asarray(source.read(index))
        # A header of odd length, which the format allows, leaves tensors unaligned: unfit for kernels.
        return result if result.flags.aligned else result.copy()

    def _source(self, name: str) -> _Source:
        try:
            return self._sources[name]
        except KeyError:
            known = "the names are in Checkpoint.names"
            raise CheckpointError(f"{self.path}: has no tensor {name}; {known}") from None

    def close(self) -> None:
        """Close the files; arrays that were read stay valid, further reads are a `CheckpointError`."""
        for file in self._files:
            file.close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        what = f"{self.layout} layout, {len(self._files)} files, {self.nbytes:,} bytes"
        return f"Checkpoint({str(self.path)!r}, {what})"


# --- Which files ------------------------------------------------------------------------------------------


def _candidates(path: Path) -> tuple[list[Path], Path | None]:
    """The folders that a user may mean by `path`, best first, and the one file in it if that is meant alone."""
    if path.is_dir():
        inside = path / "original"
        if not _holds_weights(inside):
            return [path], None
        return ([path, inside] if _holds_weights(path) else [inside]), None
    if not path.exists():
        model = "gpt-oss-120b" if "120b" in path.name else "gpt-oss-20b"
        raise CheckpointError(
            f"{path}: does not exist; expected a folder with config.json and *.safetensors, such as the one made by "
            f"`hf download openai/{model} --include 'original/*' --local-dir {model}`"
        )
    if path.suffix != ".safetensors":
        kind = _OTHER_FORMATS.get(path.suffix, "another kind of file")
        raise CheckpointError(f"{path}: is {kind}; expected a folder with config.json and *.safetensors")
    # A file that is whole by itself is meant alone; a shard means its folder.
    alone = _SHARD.search(path.name) is None and _index_file(path.parent) is None
    return [path.parent], path if alone else None


def _holds_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json"))


def _config_file(folder: Path) -> Path:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; it belongs beside the *.safetensors, download it too")
    return path


def _index_file(folder: Path) -> Path | None:
    found = sorted(folder.glob("*.safetensors.index.json"))
    if len(found) > 1:
        raise CheckpointError(f"{folder}: has two index files, {found[0].name} and {found[1].name}; keep one")
    return found[0] if found else None


def _weight_files(folder: Path) -> list[Path]:
    index = _index_file(folder)
    if index is not None:
        return _indexed_files(index)
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder}: holds no *.safetensors files; expected a gpt-oss checkpoint")
    _check_numbering(folder, paths)
    return paths


def _check_numbering(folder: Path, paths: list[Path]) -> None:
    """Without an index, the names of the shards still tell how many there must be."""
    matches = [match for match in map(_SHARD.search, (path.name for path in paths)) if match]
    for total in {int(match[2]) for match in matches}:
        found = {int(match[1]) for match in matches if int(match[2]) == total}
        first = min(found | {1})  # some writers count from 0
        absent = sorted(set(range(first, first + total)) - found)
        if absent:
            raise CheckpointError(f"{folder}: lacks shard {absent[0]} of {total} ({len(absent)} in all); download it")


def _indexed_files(index: Path) -> list[Path]:
    if not index.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{index}: is no regular file; expected the index of the shards")
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index}: is damaged ({error!r}); download it again") from error
    for tensor, file in names.items():
        if Path(file).name != file or not (index.parent / file).is_file():
            raise CheckpointError(
                f"{index.parent / file}: is missing; {index.name} says that it holds {tensor}; download it"
            )
    if not names:
        raise CheckpointError(f"{index}: names no files; download it again")
    return [index.parent / file for file in sorted(set(names.values()))]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What the system says (a folder that may not be searched, a name that is too long) as a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error


# --- Which tensors ----------------------------------------------------------------------------------------


def _owners(files: Iterable[TensorFile]) -> dict[str, TensorFile]:
    """The file of each stored tensor."""
    owners: dict[str, TensorFile] = {}
    for file in files:
        for name in file.tensors:
            if name in owners:
                raise CheckpointError(
                    f"{file.path}: tensor {name} is also in {owners[name].path.name}; the folder mixes two "
                    "checkpoints, remove one or name the file"
                )
            owners[name] = file
    return owners


def _match_tensors(
    folder: Path, config: ModelConfig, owners: dict[str, TensorFile], hugging_face: bool
) -> dict[str, _Source]:
    """Find and check every tensor that the configuration asks for, and nothing else."""
    if config.num_hidden_layers > len(owners):
        raise CheckpointError(
            f"{folder}: holds {len(owners)} tensors, too few for the {config.num_hidden_layers} layers of config.json; "
            "a file was not downloaded or config.json belongs to another model"
        )
    sources: dict[str, _Source] = {}
    used: set[str] = set()
    dense_specs = checkpoint_specs(config, quantized=False)
    for name, spec in checkpoint_specs(config).items():
        base, _, kind = name.rpartition(".")
        parts = _parts(name, spec, config, hugging_face)
        if kind in ("blocks", "scales") and parts[0].name not in owners:
            dense_parts = _parts(base, dense_specs[base], config, hugging_face)
            if dense_parts[0].name in owners:
                name, spec, parts = base, dense_specs[base], dense_parts
        if name not in sources:
            sources[name] = _check_parts(folder, name, spec, parts, owners)
            used.update(part.name for part in parts)
    extra = [name for name in owners if name not in used]
    if extra:
        # Weights that the model does not know would silently be left out of the computation.
        raise CheckpointError(
            f"{owners[extra[0]].path}: tensor {extra[0]} is not part of the model that config.json describes "
            f"({len(extra)} such tensors); config.json and the weights belong to different models"
        )
    return sources


def _parts(name: str, spec: TensorSpec, config: ModelConfig, hugging_face: bool) -> tuple[StoredPart, ...]:
    return hugging_face_parts(name, spec.shape, config) if hugging_face else (StoredPart(name, spec.shape),)


def _check_parts(
    folder: Path, name: str, spec: TensorSpec, parts: tuple[StoredPart, ...], owners: dict[str, TensorFile]
) -> _Source:
    dtype = ""
    for part in parts:
        file = owners.get(part.name)
        if file is None:
            raise CheckpointError(
                f"{folder}: tensor {part.name} is missing; a file was not downloaded or config.json belongs "
                "to another model"
            )
        stored = file.tensors[part.name]
        if stored.dtype not in spec.dtypes:
            raise CheckpointError(
                f"{file.path}: tensor {part.name} is {stored.dtype}, expected {' or '.join(spec.dtypes)}"
            )
        if stored.shape != part.shape:
            raise CheckpointError(
                f"{file.path}: tensor {part.name} has shape {list(stored.shape)}, expected "
                f"{list(part.shape)} by config.json; the two belong to different models"
            )
        if dtype and stored.dtype != dtype:
            raise CheckpointError(
                f"{file.path}: tensor {part.name} is {stored.dtype} but {parts[0].name} is {dtype}; expected one type"
            )
        dtype = stored.dtype
    return _Source(tuple(owners[part.name] for part in parts), parts, spec.shape, dtype)
