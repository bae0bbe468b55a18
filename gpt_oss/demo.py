"""The embedded demo model: packing a checkpoint into a small file, unpacking it once into the user's cache.

In: a checkpoint folder (`pack`) or the packed file of the package (`demo_checkpoint`). Out: a file of a few
megabytes, or the folder of a real `original/` checkpoint. Most rows of the tiny model's embedding and
unembedding are one and the same row, that of the tokens it does not know; the packed file holds it once. Does
not know how the model was trained nor what it says.

The packed file is two xz streams, so `xz -dc` shows it: a line of JSON, and the tensors in its order, each as
planes of equally significant bytes (the exponents of BF16 compress, the mantissas do not). A tensor with
shared rows is preceded by the int32 ids of the rows that are its own, and begins with the shared row.
"""

import hashlib
import json
import logging
import lzma
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from gpt_oss.cache import ENTRY_PREFIX, VARIABLE, cache_directory
from gpt_oss.checkpoint import Checkpoint
from gpt_oss.errors import CacheError, CheckpointError
from gpt_oss.tensor_file import NUMPY_DTYPES, tensor_file_header, written_atomically

logger = logging.getLogger(__name__)

PACKED_NAME = "demo_model.xz"
SIZE_LIMIT = 5_000_000  # bytes of the packed file, so that the package stays a small download

_FORMAT = "gpt-oss packed checkpoint 1"
_ID = np.dtype("<i4")
_WITH_SHARED_ROWS = ("embedding.weight", "unembedding.weight")
_ABANDONED_SECONDS = 600  # unpacking takes two; what is left after this time belongs to a killed process
# The payload is a few megabytes; a dictionary of xz's largest size would cost every start 64 MB.
_XZ_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 8 << 20}]


@dataclass(frozen=True)
class _Tensor:
    """One packed tensor; `own_rows` counts the rows that are not the shared one, None if none is shared."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    own_rows: int | None = None


@dataclass(frozen=True)
class _Header:
    config: Mapping[str, Any]  # as config.json says it
    tensors: tuple[_Tensor, ...]
    files: Mapping[str, str]  # name to the SHA-256 of the unpacked file


# --- Packing ------------------------------------------------------------------------------------------------


def pack(checkpoint: str | Path, output: str | Path, limit: int = SIZE_LIMIT) -> int:
    """Pack a checkpoint into one file of at most `limit` bytes and return its size.

    The result is unpacked and compared with the source before it is written. Raises `CheckpointError` if the
    checkpoint is not usable or too large.
    """
    with Checkpoint(checkpoint) as source:
        tensors, pieces = [], []
        for name in source.names:
            tensor, content = _pack_tensor(name, source.dtype(name), source.read(name))
            tensors.append(tensor)
            pieces.append(content)
        payload = b"".join(pieces)
        packed = _compose(source.config.to_dict(), tuple(tensors), payload)
        _compare(source, packed)
    if len(packed) > limit:
        raise CheckpointError(f"{checkpoint}: packs into {len(packed):,} bytes, at most {limit:,} were expected")
    with written_atomically(Path(output)) as file:
        file.write(packed)
    return len(packed)


def _pack_tensor(name: str, dtype: str, array: np.ndarray) -> tuple[_Tensor, bytes]:
    if name in _WITH_SHARED_ROWS:
        rows = np.ascontiguousarray(array)
        as_bytes = rows.view(np.dtype((np.void, rows[0].nbytes)))[:, 0]
        _, first, counts = np.unique(as_bytes, return_index=True, return_counts=True)
        if counts.max() > 1:
            shared = rows[first[counts.argmax()]]
            own = np.flatnonzero((rows != shared).any(axis=1)).astype(_ID)
            stored = np.concatenate([shared[None], rows[own]])
            return _Tensor(name, dtype, array.shape, len(own)), own.tobytes() + _to_planes(stored)
    return _Tensor(name, dtype, array.shape), _to_planes(array)


def _to_planes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).reshape(-1, 1).view(np.uint8).T.tobytes()


def _compose(config: Mapping[str, Any], tensors: tuple[_Tensor, ...], payload: bytes) -> bytes:
    hashes = {name: _sha256(chunks) for name, chunks in _unpacked_files(_Header(config, tensors, {}), payload).items()}
    header = {
        "format": _FORMAT,
        "config": config,
        "files": hashes,
        "tensors": [asdict(tensor) for tensor in tensors],
    }
    streams = (json.dumps(header).encode() + b"\n", payload)
    return b"".join(lzma.compress(stream, filters=_XZ_FILTERS) for stream in streams)


def _compare(source: Checkpoint, packed: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="gpt-oss-pack-") as folder:
        header, payload = _open_packed(packed)
        _write_files(Path(folder), header, _payload(payload))
        with Checkpoint(folder) as copy:
            for name in source.names:
                if source.read(name).tobytes() != copy.read(name).tobytes():
                    raise CheckpointError(f"{source.path}: tensor {name} does not survive packing")


# --- Unpacking ----------------------------------------------------------------------------------------------


def demo_checkpoint(packed: bytes | None = None, cache: Path | None = None) -> Path:
    """The folder of the demo model, an `original/` checkpoint; unpacked at the first call on a machine.

    packed: content of a file made by `pack`, by default the one in the package. cache: the folder to unpack
    to, by default the user's. The folder's name contains the hash of the content, so another version is
    another folder, and what is found there is checked against the hashes of the unpacked files. Any number of
    processes may call this at once, and be killed: files appear under their names only when complete.
    Raises `CheckpointError` for a damaged package and `CacheError` if the cache cannot be written.
    """
    packed = _packaged() if packed is None else packed
    header, payload = _open_packed(packed)
    folder = (cache or cache_directory()) / f"{ENTRY_PREFIX}demo-model-{hashlib.sha256(packed).hexdigest()[:16]}"
    if _is_intact(folder, header):
        return folder
    logger.info("unpacking the demo model into %s", folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        _check_disk(folder, header)
        _write_files(folder, header, _payload(payload))
    except OSError as error:
        if _is_intact(folder, header):  # another process was faster and holds the files open (Windows)
            return folder
        raise CacheError(
            f"{folder}: the demo model cannot be unpacked there ({error.strerror or error}); set {VARIABLE} "
            "to a writable folder"
        ) from error
    return folder


def _packaged() -> bytes:
    try:
        return resources.files("gpt_oss.data").joinpath(PACKED_NAME).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"gpt_oss/data/{PACKED_NAME}: the demo model cannot be read ({error.strerror}); reinstall gpt-oss "
            "or name a checkpoint"
        ) from error


def _open_packed(packed: bytes) -> tuple[_Header, bytes]:
    """The header, and the still compressed payload."""
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        values = json.loads(stream.decompress(packed))
        if values["format"] != _FORMAT:
            raise ValueError(f"format {values['format']!r}")
        tensors = [_Tensor(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in values["tensors"]]
        header = _Header(values["config"], tuple(tensors), values["files"])
    except (lzma.LZMAError, EOFError, ValueError, KeyError, TypeError) as error:
        raise _damaged(error) from error
    return header, stream.unused_data


def _payload(compressed: bytes) -> bytes:
    try:
        return lzma.decompress(compressed, lzma.FORMAT_XZ)
    except lzma.LZMAError as error:
        raise _damaged(error) from error


def _damaged(reason: object) -> CheckpointError:
    return CheckpointError(f"{PACKED_NAME}: the packed demo model is damaged ({reason}); reinstall gpt-oss")


def _is_intact(folder: Path, header: _Header) -> bool:
    try:
        for name, expected in header.files.items():
            with open(folder / name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    return False
    except OSError:
        return False
    return True


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(".*.partial"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
        except OSError:
            continue  # another process was faster


def _check_disk(folder: Path, header: _Header) -> None:
    needed = sum(math.prod(tensor.shape) * NUMPY_DTYPES[tensor.dtype].itemsize for tensor in header.tensors)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CacheError(
            f"{folder}: the demo model needs {needed:,} bytes there and {free:,} are free; free some space or "
            f"set {VARIABLE} to another folder"
        )


def _write_files(folder: Path, header: _Header, payload: bytes) -> None:
    for name, chunks in _unpacked_files(header, payload).items():
        digest = hashlib.sha256()
        with written_atomically(folder / name) as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != header.files[name]:
                raise _damaged(f"{name} has another SHA-256 than it was packed with")


Chunk = bytes | memoryview


def _unpacked_files(header: _Header, payload: bytes) -> dict[str, Iterator[Chunk]]:
    """Name to content of the files of the unpacked checkpoint; the same bytes on every machine."""
    config = json.dumps(header.config, indent=2).encode() + b"\n"
    return {"config.json": iter([config]), "model.safetensors": _safetensors_chunks(header.tensors, payload)}


def _safetensors_chunks(tensors: tuple[_Tensor, ...], payload: bytes) -> Iterator[Chunk]:
    yield tensor_file_header({tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors})
    reader = _PayloadReader(payload)
    for tensor in tensors:
        dtype = NUMPY_DTYPES[tensor.dtype]
        if tensor.own_rows is None:
            array = reader.planes(tensor.shape, dtype)
        else:
            own = reader.take(tensor.own_rows * _ID.itemsize).view(_ID)
            stored = reader.planes((1 + tensor.own_rows, *tensor.shape[1:]), dtype)
            array = np.empty(tensor.shape, dtype)
            array[:] = stored[0]
            array[own] = stored[1:]
        yield array.reshape(-1).view(np.uint8).data


class _PayloadReader:
    """Cuts the payload into arrays, in order."""

    def __init__(self, payload: bytes):
        self._bytes = np.frombuffer(payload, np.uint8)
        self._position = 0

    def take(self, count: int) -> np.ndarray:
        """The next `count` bytes."""
        self._position += count
        if self._position > len(self._bytes):
            raise _damaged("its tensors are cut off")
        return self._bytes[self._position - count : self._position].copy()

    def planes(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The next array of this shape, put together from its byte planes."""
        planes = self.take(math.prod(shape) * dtype.itemsize).reshape(dtype.itemsize, -1)
        return np.ascontiguousarray(planes.T).view(dtype).reshape(shape)


def _sha256(chunks: Iterator[Chunk]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
