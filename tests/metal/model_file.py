"""A second reader of the Metal model file, straight from its description, and tiny files for tests.

It shares nothing with `gpt_oss.metal.converter` but the vocabulary it is given, so that the two check each other.
"""

import struct
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.config import ModelConfig
from gpt_oss.metal.converter import Vocabulary, write_model_file
from tests.helpers.checkpoints import tiny_checkpoint, tiny_config

HEADER_TYPES = {
    "context_length": "I",
    "num_blocks": "I",
    "num_experts": "I",
    "num_active_experts": "I",
    "embedding_dim": "I",
    "mlp_dim": "I",
    "swiglu_limit": "f",
    "head_dim": "I",
    "num_heads": "I",
    "num_kv_heads": "I",
    "attention_window": "I",
    "rope_theta": "f",
    "interpolation_scale": "f",
    "yarn_offset": "f",
    "yarn_scale": "f",
    "yarn_multiplier": "f",
    "rmsnorm_epsilon": "f",
}
PLAIN_WORDS = [b"th", b"he", b"in", b" t", b" th", b" the", b"re", b"an", b"ab", b"bc", b"abc", b"  ", b"    "]


def tiny_vocabulary() -> Vocabulary:
    """All single bytes and a few merges, then the 16 special tokens."""
    return Vocabulary([bytes([byte]) for byte in range(256)] + PLAIN_WORDS)


def tiny_model_config(**changes: object) -> ModelConfig:
    """`tiny_config` with rows to spare for `tiny_vocabulary`."""
    return tiny_config(vocab_size=300, **changes)


def small_model_config(**changes: object) -> ModelConfig:
    """The least that has every part: one windowed and one full layer, grouped heads, experts to choose from."""
    least = {
        "num_hidden_layers": 2,
        "num_experts": 4,
        "experts_per_token": 2,
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return tiny_model_config(**(least | changes))


def small_model_file(folder: Path, **changes: object) -> Path:
    """A model file of `small_model_config`, for tests that compute many tokens."""
    return tiny_model_file(folder, small_model_config(**changes))


def tiny_model_file(folder: Path, config: ModelConfig | None = None, **options: object) -> Path:
    """A model file of a tiny random checkpoint; both lie in `folder`."""
    checkpoint = tiny_checkpoint(folder / "checkpoint", config or tiny_model_config(), **options)
    with Checkpoint(checkpoint) as opened:
        return write_model_file(opened, folder / "model.bin", tiny_vocabulary())


@dataclass
class ModelFile:
    """Everything in a file: header values, tokenizer, tensors as raw patterns in the order of the file."""

    header: dict[str, float]
    special: list[bytes]
    pattern: bytes
    text: list[bytes]
    dense: dict[str, np.ndarray]  # uint16
    experts: dict[tuple[int, int, str], np.ndarray]  # (layer, expert, name) -> uint8, biases uint16
    starts: dict[object, int]  # name of a tensor, or (layer, expert, name) -> byte


class _Cursor:
    def __init__(self, content: bytes):
        self.content, self.position = content, 0

    def take(self, count: int) -> bytes:
        assert self.position + count <= len(self.content), f"the file ends before byte {self.position + count}"
        self.position += count
        return self.content[self.position - count : self.position]

    def align(self, alignment: int) -> None:
        assert not any(self.take(-self.position % alignment)), f"padding before byte {self.position} is not zero"

    def array(self, dtype: type, *shape: int) -> np.ndarray:
        return np.frombuffer(self.take(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape)


def read_model_file(path: Path) -> ModelFile:
    """Read and check a whole file; fails where the file departs from its description."""
    cursor = _Cursor(path.read_bytes())
    assert cursor.take(16) == b"GPT-OSS v1.0\0\0\0\0"
    assert uuid.UUID(bytes=cursor.take(16)) == uuid.UUID("df52dc86-1789-4ed0-a295-66f10508145b")
    header = {name: struct.unpack(f"<{kind}", cursor.take(4))[0] for name, kind in HEADER_TYPES.items()}
    assert uuid.UUID(bytes=cursor.take(16)) == uuid.UUID("229177a8-5775-4268-bfd8-d588b351c56d")
    assert uuid.UUID(bytes=cursor.take(16)) == uuid.UUID("7401aded-2a95-40cb-b782-9ccebaafe72b")
    num_special, num_text, regex_size, tokens_size = struct.unpack("<4I", cursor.take(16))
    special = [cursor.take(16) for _ in range(num_special)]
    pattern = cursor.take(regex_size)
    begin = cursor.position
    text = [cursor.take(struct.unpack("<H", cursor.take(2))[0]) for _ in range(num_text)]
    assert cursor.position - begin == tokens_size
    cursor.align(16384)
    dense, starts = _dense(cursor, header, num_text + num_special)
    experts = _experts(cursor, header, starts)
    assert cursor.position == len(cursor.content)
    return ModelFile(header, special, pattern, text, dense, experts, starts)


def _dense(cursor: _Cursor, header: dict[str, float], rows: int) -> tuple[dict[str, np.ndarray], dict[object, int]]:
    hidden, heads, kv_heads, head_dim, experts = (
        int(header[name]) for name in ("embedding_dim", "num_heads", "num_kv_heads", "head_dim", "num_experts")
    )
    dense: dict[str, np.ndarray] = {}
    starts: dict[object, int] = {}

    def take(name: str, *shape: int, aligned: bool = True) -> None:
        if aligned:
            cursor.align(16)
        starts[name] = cursor.position
        dense[name] = cursor.array(np.uint16, *shape)

    take("embedding.weight", rows, hidden)
    for layer in range(int(header["num_blocks"])):
        block, qkv = f"block.{layer}", (heads + 2 * kv_heads) * head_dim
        take(f"{block}.attn.norm.scale", hidden)
        take(f"{block}.attn.qkv.weight", qkv, hidden)
        take(f"{block}.attn.qkv.bias", qkv, aligned=False)
        take(f"{block}.attn.sinks", heads)
        take(f"{block}.attn.out.weight", hidden, heads * head_dim)
        take(f"{block}.attn.out.bias", hidden, aligned=False)
        take(f"{block}.mlp.norm.scale", hidden)
        take(f"{block}.mlp.gate.weight", experts, hidden)
        take(f"{block}.mlp.gate.bias", experts, aligned=False)
    take("norm.scale", hidden)
    take("unembedding.weight", rows, hidden)
    return dense, starts


def _experts(
    cursor: _Cursor, header: dict[str, float], starts: dict[object, int]
) -> dict[tuple[int, int, str], np.ndarray]:
    hidden, inter = int(header["embedding_dim"]), int(header["mlp_dim"])
    parts = (
        ("mlp1_weight.blocks", np.uint8, (2 * inter, hidden // 32, 16)),
        ("mlp1_weight.scales", np.uint8, (2 * inter, hidden // 32)),
        ("mlp1_bias", np.uint16, (2 * inter,)),
        ("mlp2_weight.blocks", np.uint8, (hidden, inter // 32, 16)),
        ("mlp2_weight.scales", np.uint8, (hidden, inter // 32)),
        ("mlp2_bias", np.uint16, (hidden,)),
    )
    found = {}
    for layer in range(int(header["num_blocks"])):
        cursor.align(16384)
        for expert in range(int(header["num_experts"])):
            for name, dtype, shape in parts:
                cursor.align(16)
                starts[layer, expert, name] = cursor.position
                found[layer, expert, name] = cursor.array(dtype, *shape)
    return found
