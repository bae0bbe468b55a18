"""One safetensors file: a validated header over a memory map, and a writer of the same format.

In: a path. Out: the tensors of the file as read-only NumPy views of the mapped bytes, or a `CheckpointError`
that names file and tensor. Knows nothing of models, names or several files.

The format is 8 bytes of header length, a JSON header and raw little-endian data, so it is read here rather
than through the `safetensors` library: that library offers no BF16 to NumPy, copies what it slices and
reports a damaged file without naming the tensor.
"""

import contextlib
import json
import math
import mmap
import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpt_oss.errors import CheckpointError

# How each stored type is handed out; NumPy has no bfloat16, so BF16 travels as its bit pattern.
NUMPY_DTYPES: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
}
# The other types of the format, so that the sizes of tensors the model does not use are checked all the same.
_OTHER_ITEM_BYTES = {
    1: ("BOOL", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"),
    2: ("I16", "U16"),
    4: ("I32", "U32"),
    8: ("I64", "U64", "F64", "C64"),
}
_ITEM_BYTES = {name: dtype.itemsize for name, dtype in NUMPY_DTYPES.items()}
_ITEM_BYTES |= {name: size for size, names in _OTHER_ITEM_BYTES.items() for name in names}
_LENGTH = struct.Struct("<Q")
_LARGEST_HEADER = 100_000_000  # the limit of the safetensors library, so that a wild length is not allocated
_LFS_POINTER = b"version https://git-lfs"
_ALIGNMENT = 8


@dataclass(frozen=True)
class StoredTensor:
    """One entry of a header: `start` and `stop` are byte positions in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """A safetensors file, mapped and checked. Immutable until closed, hence safe to share among threads."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.tensors: dict[str, StoredTensor] = {}
        self._map: mmap.mmap | None = None
        try:
            with open(self.path, "rb", opener=_open_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise CheckpointError(f"{self.path}: is no regular file; expected a safetensors file")
                size = os.fstat(file.fileno()).st_size
                self.tensors = _read_header(self.path, file, size)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be read ({error.strerror or error})") from error

    def array(self, name: str) -> np.ndarray:
        """The whole tensor as a read-only view; no byte is read from disk until it is looked at."""
        if self._map is None:
            raise CheckpointError(f"{self.path}: is closed; {name} cannot be read any more")
        tensor = self.tensors[name]
        dtype, count = NUMPY_DTYPES[tensor.dtype], math.prod(tensor.shape)
        return np.frombuffer(self._map, dtype, count, tensor.start).reshape(tensor.shape)

    def close(self) -> None:
        """Let go of the map; the system unmaps it when the last array that views it is gone."""
        self._map = None


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_header(path: Path, file: BinaryIO, size: int) -> dict[str, StoredTensor]:
    head = file.read(64)
    if head.startswith(_LFS_POINTER):
        raise CheckpointError(f"{path}: is a Git LFS pointer, not weights; run `git lfs pull` in its folder")
    if len(head) < _LENGTH.size:
        raise CheckpointError(f"{path}: is no safetensors file, it has only {size} bytes; download it again")
    (length,) = _LENGTH.unpack_from(head)
    if length > _LARGEST_HEADER or head[_LENGTH.size : _LENGTH.size + 1] != b"{":
        raise CheckpointError(f"{path}: is no safetensors file, it does not begin with a safetensors header")
    data_start = _LENGTH.size + length
    if data_start > size:
        raise CheckpointError(
            f"{path}: is truncated inside its header, which ends at byte {data_start} but the file has "
            f"{size} bytes; download it again"
        )
    file.seek(_LENGTH.size)
    try:
        entries = json.loads(file.read(length), object_pairs_hook=_object_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: has a damaged header ({error}); download it again") from error
    entries.pop("__metadata__", None)
    tensors = {name: _stored_tensor(path, name, entry, data_start) for name, entry in entries.items()}
    _check_extent(path, tensors.values(), data_start, size)
    return tensors


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} occurs twice")
    return result


def _stored_tensor(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    try:
        dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        well_formed = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in (*shape, start, stop))
    except (KeyError, TypeError, ValueError):
        well_formed = False
    if not well_formed:
        raise CheckpointError(f"{path}: has a damaged header entry for tensor {name}; download it again")
    needed = math.prod(shape) * _ITEM_BYTES.get(dtype, 0)
    if dtype in _ITEM_BYTES and stop - start != needed:
        raise CheckpointError(
            f"{path}: tensor {name}, {dtype} {list(shape)}, needs {needed} bytes but its header gives it "
            f"{stop - start}; the file is damaged, download it again"
        )
    return StoredTensor(name, dtype, shape, data_start + start, data_start + stop)


def _check_extent(path: Path, tensors: Iterable[StoredTensor], data_start: int, size: int) -> None:
    """The tensors must fill the rest of the file exactly: no gap, no overlap, nothing cut off or behind."""
    position = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start != position:
            raise CheckpointError(
                f"{path}: tensor {tensor.name} begins at byte {tensor.start} where byte {position} was "
                "expected; the file is damaged, download it again"
            )
        if tensor.stop > size:
            raise CheckpointError(
                f"{path}: is truncated: tensor {tensor.name} ends at byte {tensor.stop} but the file has "
                f"{size} bytes; download it again"
            )
        position = tensor.stop
    if position != size:
        raise CheckpointError(
            f"{path}: has {size - position} bytes behind its last tensor; it is damaged, download it again"
        )


def tensor_file_header(specs: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """The opening bytes of a file that holds the tensors `name -> (dtype, shape)` in this order."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in specs.items():
        stop = position + math.prod(shape) * NUMPY_DTYPES[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return _LENGTH.pack(len(header)) + header


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary neighbour of `path` for writing and rename it into place only when all went well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
