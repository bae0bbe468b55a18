"""From a checkpoint to the single model file that the Metal backend maps into memory.

In: a `Checkpoint` of either layout, dense or MXFP4. Out: a file of the released format, byte for byte: header,
tokenizer, dense tensors, experts. The file is planned first (every piece with its size and alignment), so the disk is
checked before anything is written, and it appears under its name only when it is complete. Knows no device.

The format is that of `metal/model.bin` in the released repositories, little-endian. What differs from a checkpoint:
the vocabulary ends after the 16 special tokens that have a meaning; rotary pairs are neighbours instead of halves;
the attention scale is folded into the query and key rows; MXFP4 scales are stored + 14, which is the exponent by
which an FP4 code moved into a half's bits must be raised.
"""

import base64
import logging
import shutil
import struct
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.checkpoint_writer import to_bfloat16
from gpt_oss.config import ModelConfig
from gpt_oss.errors import CheckpointError
from gpt_oss.mxfp4 import BLOCK, encode
from gpt_oss.rope import yarn
from gpt_oss.tensor_file import written_atomically
from gpt_oss.tokenizer import NUM_TEXT_TOKENS, SPLIT_PATTERN, vocabulary_table

logger = logging.getLogger(__name__)

MAGIC = b"GPT-OSS v1.0" + struct.pack("<I", 0)
MODEL_UUID = uuid.UUID("df52dc86-1789-4ed0-a295-66f10508145b")
LAYOUT_UUID = uuid.UUID("229177a8-5775-4268-bfd8-d588b351c56d")
TOKENIZER_UUID = uuid.UUID("7401aded-2a95-40cb-b782-9ccebaafe72b")

PAGE = 16384  # of Apple Silicon: memory is shared with the device in whole pages
ALIGNMENT = 16  # of every tensor
SCALE_OFFSET = 14
HEAD_DIM = 64  # the only one the format and its kernels know
_LARGEST_SCALE = 254 - SCALE_OFFSET  # 255 stays the format's NaN
_QUERY_SCALE, _KEY_SCALE = 0.5, 0.25  # together 1 / sqrt(HEAD_DIM); powers of two, so BF16 stays exact
_WRITE_BYTES = 16 << 20

# By distance from the first special id. The released files know no <|end_untrusted|> (position 3) and neither do we.
_SPECIAL_UUIDS = {
    2: "07d7da55-b346-4cff-8b37-7cefacf8a3e8",  # 200,000 <|untrusted|>
    4: "f799ff69-1992-43c4-a3d8-d831f475dc75",  # 200,002 <|return|>
    5: "c0bb14c7-6022-49da-ad08-792d67e8b470",  # 200,003 <|constrain|>
    7: "fd3dda11-c8ab-4033-876e-d93deb172c93",  # 200,005 <|channel|>
    8: "55a77c2f-8a01-4c54-8ac2-313bfc7e208d",  # 200,006 <|start|>
    9: "fcac2f6d-4705-4f6b-b228-642accac7238",  # 200,007 <|end|>
    10: "16e40431-f47f-4b22-b59b-8b278fc30a54",  # 200,008 <|message|>
    14: "1220f796-e388-4de5-b487-fe2eb5fe03c0",  # 200,012 <|call|>
    15: "e15ba702-28c4-4292-ab8f-ffa434709128",  # 200,013 <|refusal|>
}
NUM_SPECIAL_TOKENS = 16


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer's part of the file: text tokens in the order of their ids, and the special tokens after them.

    special: UUID by distance from the first special id; a distance without one is a reserved token.
    """

    text: Sequence[bytes]
    pattern: str = SPLIT_PATTERN
    num_special: int = NUM_SPECIAL_TOKENS
    special: Mapping[int, str] = field(default_factory=lambda: _SPECIAL_UUIDS)

    @classmethod
    def o200k(cls) -> "Vocabulary":
        """The vocabulary of the released models."""
        ranked = (line.split() for line in vocabulary_table().splitlines())
        tokens = {int(rank): base64.b64decode(token) for token, rank in ranked}
        return cls([tokens[rank] for rank in range(NUM_TEXT_TOKENS)])

    def __len__(self) -> int:
        return len(self.text) + self.num_special

    def to_bytes(self) -> bytes:
        """Sections 3 to 5 of the file: UUID, counts, special UUIDs, pattern, tokens."""
        pattern = self.pattern.encode("ascii") + b"\0"
        tokens = b"".join(struct.pack("<H", len(token)) + token for token in self.text)
        counts = struct.pack("<4I", self.num_special, len(self.text), len(pattern), len(tokens))
        uuids = (uuid.UUID(self.special[n]).bytes if n in self.special else bytes(16) for n in range(self.num_special))
        return TOKENIZER_UUID.bytes + counts + b"".join(uuids) + pattern + tokens


@dataclass(frozen=True)
class Piece:
    """`nbytes` bytes that begin at a multiple of `alignment`; `read` makes them when they are written."""

    alignment: int
    nbytes: int
    read: Callable[[], bytes]


def convert(model_dir: str | Path, output: str | Path, *, progress: Callable[[int, int], object] | None = None) -> Path:
    """Convert a checkpoint folder of either layout and return the path of the model file.

    progress: called with the bytes of each write and the bytes of the whole file. An existing output is replaced
    when the new one is complete. Raises `CheckpointError` if the checkpoint cannot be used, the model does not fit
    the format or the disk is full; the output is then as it was.
    """
    with Checkpoint(model_dir) as checkpoint:
        return write_model_file(checkpoint, output, Vocabulary.o200k(), progress=progress)


def write_model_file(
    checkpoint: Checkpoint,
    output: str | Path,
    vocabulary: Vocabulary,
    *,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """`convert` for an open checkpoint and any vocabulary; its rows are the first `len(vocabulary)` ones."""
    output = Path(output)
    _check_model(checkpoint, vocabulary)
    pieces = list(_pieces(checkpoint, vocabulary))
    total = file_size(pieces)
    try:
        _check_target(output, total)
        with written_atomically(output) as file:
            for chunk in _chunks(pieces):
                file.write(chunk)
                if progress is not None:
                    progress(len(chunk), total)
    except OSError as error:
        raise CheckpointError(f"{output}: cannot be written ({error.strerror or error})") from error
    return output


def number_of_layers(model_file: str | Path) -> int:
    """What the header of a model file says. Raises CheckpointError if it is none; the rest of it is not looked at."""
    path = Path(model_file)
    begin = MAGIC + MODEL_UUID.bytes
    try:
        with path.open("rb") as file:
            header = file.read(len(begin) + 8)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if header[: len(begin)] != begin or len(header) < len(begin) + 8:
        raise CheckpointError(f"{path}: is neither a folder with a checkpoint nor a Metal model file")
    _, layers = struct.unpack_from("<2I", header, len(begin))
    return layers


def file_size(pieces: Sequence[Piece]) -> int:
    """Bytes of a file that holds these pieces."""
    position = 0
    for piece in pieces:
        position += -position % piece.alignment + piece.nbytes
    return position


def _check_model(checkpoint: Checkpoint, vocabulary: Vocabulary) -> None:
    config = checkpoint.config
    if config.head_dim != HEAD_DIM:
        raise CheckpointError(
            f"{checkpoint.path}: has head_dim {config.head_dim}; the Metal model file can only hold {HEAD_DIM}"
        )
    if config.vocab_size < len(vocabulary):
        raise CheckpointError(
            f"{checkpoint.path}: has a vocabulary of {config.vocab_size:,} rows; the tokenizer in the Metal model file "
            f"needs {len(vocabulary):,}"
        )
    if not checkpoint.quantized:
        logger.warning("%s: the experts are dense; they are rounded to MXFP4", checkpoint.path)
        return
    # Before gigabytes are written rather than after.
    for name in checkpoint.names:
        if name.endswith(".scales") and checkpoint.read(name).max(initial=0) > _LARGEST_SCALE:
            raise CheckpointError(
                f"{checkpoint.path}: tensor {name} has a scale byte above {_LARGEST_SCALE}, which the Metal model file "
                "cannot hold"
            )


def _check_target(output: Path, needed: int) -> None:
    if output.is_dir():
        raise CheckpointError(f"{output}: is a folder; expected the name of a file to write")
    if not output.parent.is_dir():
        raise CheckpointError(f"{output.parent}: is not a folder; create it first")
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise CheckpointError(f"{output.parent}: has {free:,} bytes free, {needed:,} are needed; free some space")


def _chunks(pieces: Sequence[Piece]) -> Iterator[bytes | memoryview]:
    position = 0
    for piece in pieces:
        if padding := -position % piece.alignment:
            yield bytes(padding)
        data = memoryview(piece.read())
        assert len(data) == piece.nbytes, "the plan of the file and its contents disagree"
        for start in range(0, len(data), _WRITE_BYTES):
            yield data[start : start + _WRITE_BYTES]
        position += padding + piece.nbytes


# --- The plan of the file ---------------------------------------------------------------------------------


def _pieces(checkpoint: Checkpoint, vocabulary: Vocabulary) -> Iterator[Piece]:
    config = checkpoint.config
    rows = len(vocabulary)
    opening = MAGIC + _model_header(config) + vocabulary.to_bytes()
    yield Piece(1, len(opening), lambda: opening)
    yield Piece(PAGE, 0, bytes)
    yield _dense(checkpoint, "embedding.weight", rows)
    for layer in range(config.num_hidden_layers):
        block = f"block.{layer}"
        yield _dense(checkpoint, f"{block}.attn.norm.scale")
        yield _linear(checkpoint, f"{block}.attn.qkv", partial(_paired_rows, config))
        yield _dense(checkpoint, f"{block}.attn.sinks")
        yield _linear(checkpoint, f"{block}.attn.out")
        yield _dense(checkpoint, f"{block}.mlp.norm.scale")
        yield _linear(checkpoint, f"{block}.mlp.gate")
    yield _dense(checkpoint, "norm.scale")
    yield _dense(checkpoint, "unembedding.weight", rows)
    for layer in range(config.num_hidden_layers):
        yield Piece(PAGE, 0, bytes)
        for expert in range(config.num_experts):
            yield from _expert(checkpoint, f"block.{layer}.mlp", expert)


def _model_header(config: ModelConfig) -> bytes:
    """Section 2. The rotary embedding is stored as a linear function of the pair's index that is clamped to 0 … 1."""
    frequencies = yarn(config)
    width = frequencies.high - frequencies.low
    values = struct.pack(
        "<6If4I6f",
        config.context_length,
        config.num_hidden_layers,
        config.num_experts,
        config.experts_per_token,
        config.hidden_size,
        config.intermediate_size,
        config.swiglu_limit,
        config.head_dim,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.sliding_window,
        config.rope_theta,
        1 / config.rope_scaling_factor,
        -frequencies.low / width,
        1 / width,
        frequencies.concentration,
        config.rms_norm_eps,
    )
    return MODEL_UUID.bytes + values + LAYOUT_UUID.bytes


def _dense(checkpoint: Checkpoint, name: str, rows: int | None = None) -> Piece:
    """A BF16 tensor, or its first rows."""
    length, *rest = checkpoint.shape(name)
    rows = length if rows is None else rows
    return Piece(ALIGNMENT, 2 * rows * int(np.prod(rest)), lambda: _bfloat16(checkpoint, name, slice(rows)).tobytes())


def _linear(
    checkpoint: Checkpoint, name: str, reorder: Callable[[np.ndarray], np.ndarray] = lambda rows: rows
) -> Piece:
    """A weight and, without a gap, its bias; `reorder` is applied to the rows of both."""

    def read() -> bytes:
        return b"".join(reorder(_bfloat16(checkpoint, f"{name}.{part}")).tobytes() for part in ("weight", "bias"))

    elements = sum(int(np.prod(checkpoint.shape(f"{name}.{part}"))) for part in ("weight", "bias"))
    return Piece(ALIGNMENT, 2 * elements, read)


def _bfloat16(checkpoint: Checkpoint, name: str, index: int | slice = slice(None)) -> np.ndarray:
    """BF16 patterns of (a part of) a tensor; F16 and F32 are rounded to nearest even."""
    values = checkpoint.read(name, index)
    return values if values.dtype == np.uint16 else to_bfloat16(values.astype(np.float32))


def _paired_rows(config: ModelConfig, rows: np.ndarray) -> np.ndarray:
    """qkv rows (or biases) with rotary pairs as neighbours and the attention scale folded into queries and keys."""
    heads = rows.reshape(-1, HEAD_DIM, *rows.shape[1:])
    rotated = config.num_attention_heads + config.num_key_value_heads
    halves = heads[:rotated].reshape(rotated, 2, HEAD_DIM // 2, *rows.shape[1:])
    pairs = halves.swapaxes(1, 2).reshape(rotated, HEAD_DIM, *rows.shape[1:])
    queries, keys = np.split(pairs, [config.num_attention_heads])
    parts = (_scaled(queries, _QUERY_SCALE), _scaled(keys, _KEY_SCALE), heads[rotated:])
    return np.concatenate(parts).reshape(rows.shape)


def _scaled(patterns: np.ndarray, factor: float) -> np.ndarray:
    values = (patterns.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):
        return to_bfloat16(values * np.float32(factor))


def _expert(checkpoint: Checkpoint, block: str, expert: int) -> Iterator[Piece]:
    """One expert's two matrices: MXFP4 codes, scales + 14, bias."""
    for matrix in ("mlp1", "mlp2"):
        name = f"{block}.{matrix}"
        _, rows = checkpoint.shape(f"{name}_bias")
        dense = f"{name}_weight" in checkpoint
        blocks = (
            checkpoint.shape(f"{name}_weight")[2] // BLOCK if dense else checkpoint.shape(f"{name}_weight.scales")[2]
        )
        packed = partial(_encoded if dense else _packed, checkpoint, f"{name}_weight", expert)
        yield Piece(ALIGNMENT, rows * blocks * BLOCK // 2, partial(_codes, packed))
        yield Piece(ALIGNMENT, rows * blocks, partial(_raised_scales, packed))
        yield Piece(ALIGNMENT, 2 * rows, partial(_bias, checkpoint, f"{name}_bias", expert))


def _codes(packed: Callable[[], tuple[np.ndarray, np.ndarray]]) -> bytes:
    return packed()[0].tobytes()


def _raised_scales(packed: Callable[[], tuple[np.ndarray, np.ndarray]]) -> bytes:
    return (packed()[1] + np.uint8(SCALE_OFFSET)).tobytes()


def _bias(checkpoint: Checkpoint, name: str, expert: int) -> bytes:
    return _bfloat16(checkpoint, name, expert).tobytes()


def _packed(checkpoint: Checkpoint, name: str, expert: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of one expert's matrix, as the checkpoint has them: views, not read before they are used."""
    return checkpoint.read(f"{name}.blocks", expert), checkpoint.read(f"{name}.scales", expert)


def _encoded(checkpoint: Checkpoint, name: str, expert: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and scales of one expert's dense matrix, rounded to MXFP4."""
    values = checkpoint.read(name, expert)
    values = (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values
    try:
        codes, scales = encode(values)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path}: tensor {name}, expert {expert}: {error}") from error
    if scales.max(initial=0) > _LARGEST_SCALE:
        raise CheckpointError(f"{checkpoint.path}: tensor {name} has values too large for the Metal model file")
    return codes, scales
