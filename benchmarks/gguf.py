"""Write a checkpoint as llama.cpp's model file, so that a peer runs the same weights: `write_gguf`.

In: an open quantised `Checkpoint`. Out: a GGUF file (version 3) of architecture gpt-oss without a vocabulary: MXFP4
experts with the same codes and scales, matrices of the dense layers as Q8_0 (what the published files have) or as they
are in BF16, everything else in fp32. Layout: ggml's docs/gguf.md; blocks: ggml-common.h.
"""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpt_oss.checkpoint import Checkpoint
from gpt_oss.config import ModelConfig
from gpt_oss.mxfp4 import BLOCK

_ALIGNMENT = 32
_KINDS = {"f32": 0, "q8_0": 8, "bf16": 30, "mxfp4": 39}
_BLOCK_BYTES = {"f32": 4 * BLOCK, "q8_0": 2 + BLOCK, "bf16": 2 * BLOCK, "mxfp4": 1 + BLOCK // 2}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file; `data` makes its bytes when they are written."""

    name: str
    kind: str
    shape: tuple[int, ...]
    data: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes in the file, without padding."""
        return math.prod(self.shape) * _BLOCK_BYTES[self.kind] // BLOCK


def write_gguf(checkpoint: Checkpoint, path: Path, dense: str = "q8_0") -> None:
    """Write the whole model to `path`; dense: "q8_0" or "bf16"."""
    tensors = list(gguf_tensors(checkpoint, dense))
    settings = dict(_settings(checkpoint.config))
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(settings)))
        for key, value in settings.items():
            file.write(_string(key) + _value(value))
        offset = 0
        for tensor in tensors:
            shape = tensor.shape[::-1]  # the fastest axis first
            file.write(_string(tensor.name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            file.write(struct.pack("<IQ", _KINDS[tensor.kind], offset))
            offset += tensor.nbytes + -tensor.nbytes % _ALIGNMENT
        for tensor in tqdm(tensors, desc="GGUF", unit="tensor", disable=None):
            file.write(bytes(-file.tell() % _ALIGNMENT))
            data = tensor.data()
            assert data.nbytes == tensor.nbytes, tensor.name
            file.write(data.tobytes())


def gguf_tensors(checkpoint: Checkpoint, dense: str) -> Iterator[GgufTensor]:
    """The tensors in file order."""
    config = checkpoint.config
    encode = _q8_0 if dense == "q8_0" else np.ascontiguousarray

    def matrix(name: str, source: str, rows: slice = slice(None)) -> GgufTensor:
        count = len(range(*rows.indices(checkpoint.shape(source)[0])))
        shape = (count, checkpoint.shape(source)[1])
        return GgufTensor(name, dense, shape, lambda: encode(checkpoint.read(source, (rows,))))

    def floats(name: str, source: str, *index: slice) -> GgufTensor:
        shape = checkpoint.read(source, index).shape
        return GgufTensor(name, "f32", shape, lambda: _float32(checkpoint.read(source, index)))

    def experts(name: str, source: str, rows: slice) -> GgufTensor:
        def data() -> np.ndarray:
            blocks, scales = (checkpoint.read(f"{source}.{part}", (slice(None), rows)) for part in ("blocks", "scales"))
            return _mxfp4(blocks, scales)

        count, height, blocks = checkpoint.read(f"{source}.scales", (slice(None), rows)).shape
        return GgufTensor(name, "mxfp4", (count, height, blocks * BLOCK), data)

    yield matrix("token_embd.weight", "embedding.weight")
    yield matrix("output.weight", "unembedding.weight")
    yield floats("output_norm.weight", "norm.scale")
    heads, kv = (n * config.head_dim for n in (config.num_attention_heads, config.num_key_value_heads))
    parts = {"q": slice(0, heads), "k": slice(heads, heads + kv), "v": slice(heads + kv, heads + 2 * kv)}
    even, odd, every = slice(0, None, 2), slice(1, None, 2), slice(None)
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"block.{layer}", f"blk.{layer}"
        yield floats(f"{theirs}.attn_norm.weight", f"{ours}.attn.norm.scale")
        yield floats(f"{theirs}.post_attention_norm.weight", f"{ours}.mlp.norm.scale")
        yield floats(f"{theirs}.attn_sinks.weight", f"{ours}.attn.sinks")
        for part, rows in parts.items():
            yield matrix(f"{theirs}.attn_{part}.weight", f"{ours}.attn.qkv.weight", rows)
            yield floats(f"{theirs}.attn_{part}.bias", f"{ours}.attn.qkv.bias", rows)
        yield matrix(f"{theirs}.attn_output.weight", f"{ours}.attn.out.weight")
        yield floats(f"{theirs}.attn_output.bias", f"{ours}.attn.out.bias")
        yield floats(f"{theirs}.ffn_gate_inp.weight", f"{ours}.mlp.gate.weight")
        yield floats(f"{theirs}.ffn_gate_inp.bias", f"{ours}.mlp.gate.bias")
        for name, source, rows in (("gate", "mlp1", even), ("up", "mlp1", odd), ("down", "mlp2", every)):
            yield experts(f"{theirs}.ffn_{name}_exps.weight", f"{ours}.mlp.{source}_weight", rows)
            yield floats(f"{theirs}.ffn_{name}_exps.bias", f"{ours}.mlp.{source}_bias", every, rows)


def bytes_per_token(tensors: list[GgufTensor], config: ModelConfig) -> int:
    """Bytes of weights that one decoded token reads: the chosen experts, everything else but the embedding."""
    share = config.experts_per_token / config.num_experts
    return round(
        sum(
            tensor.nbytes * (share if "_exps." in tensor.name else 1)
            for tensor in tensors
            if not tensor.name.startswith("token_embd")
        )
    )


def _settings(config: ModelConfig) -> Iterator[tuple[str, str | int | float]]:
    yield "general.architecture", "gpt-oss"
    yield "tokenizer.ggml.model", "none"
    own: dict[str, str | int | float] = {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "expert_feed_forward_length": config.intermediate_size,
        "expert_count": config.num_experts,
        "expert_used_count": config.experts_per_token,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.sliding_window": config.sliding_window,
        "rope.freq_base": float(config.rope_theta),
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(config.rope_scaling_factor),
        "rope.scaling.original_context_length": config.initial_context_length,
    }
    yield from ((f"gpt-oss.{key}", value) for key, value in own.items())


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: str | int | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    return struct.pack("<Ii", 4, value) if isinstance(value, int) else struct.pack("<If", 6, value)


def _float32(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint32) << 16).view(np.float32)


def _mxfp4(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """A scale byte, then 16 bytes; byte j holds values j (low nibble) and j + 16. [..., n, 16] -> [..., n, 17]."""
    codes = np.stack((blocks & 15, blocks >> 4), axis=-1).reshape(*scales.shape, BLOCK)
    result = np.empty((*scales.shape, _BLOCK_BYTES["mxfp4"]), np.uint8)
    result[..., 0] = scales
    result[..., 1:] = codes[..., : BLOCK // 2] | codes[..., BLOCK // 2 :] << 4
    return result


def _q8_0(bits: np.ndarray) -> np.ndarray:
    """A factor in fp16, then 32 signed bytes. BF16 patterns [n, k] -> uint8 [n, k / 32, 34]."""
    result = np.empty((len(bits), bits.shape[1] // BLOCK, _BLOCK_BYTES["q8_0"]), np.uint8)
    for start in range(0, len(bits), 4096):
        values = _float32(bits[start : start + 4096]).reshape(-1, result.shape[1], BLOCK)
        factors = np.abs(values).max(-1, keepdims=True) / 127
        codes = np.rint(np.divide(values, factors, out=np.zeros_like(values), where=factors > 0))
        result[start : start + 4096, :, :2] = factors.astype(np.float16).view(np.uint8)
        result[start : start + 4096, :, 2:] = codes.astype(np.int8).view(np.uint8)
    return result
