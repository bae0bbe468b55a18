"""Names, types and shapes of the tensors of a checkpoint, in the `original/` and in the Hugging Face layout.

In: a `ModelConfig`. Out: what every tensor is called and what it must look like. The names of the `original/`
layout are the names used everywhere in gpt_oss; a Hugging Face name appears only here. Opens no file.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gpt_oss.config import ModelConfig
from gpt_oss.mxfp4 import BLOCK

Shape = tuple[int, ...]

DENSE_DTYPES = ("BF16", "F32", "F16")
_PACKED_DTYPES = ("U8",)


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor must be: one of `dtypes` (the first is the released one) and exactly `shape`."""

    shape: Shape
    dtypes: tuple[str, ...] = DENSE_DTYPES


def checkpoint_specs(config: ModelConfig, quantized: bool = True) -> dict[str, TensorSpec]:
    """Every tensor of the `original/` layout in the order of the forward pass.

    quantized: expert weights as MXFP4 `.blocks` and `.scales`; otherwise dense, without those endings.
    """
    specs = {"embedding.weight": TensorSpec((config.vocab_size, config.hidden_size))}
    for layer in range(config.num_hidden_layers):
        for name, spec in _block_specs(config, quantized):
            specs[f"block.{layer}.{name}"] = spec
    specs["norm.scale"] = TensorSpec((config.hidden_size,))
    specs["unembedding.weight"] = TensorSpec((config.vocab_size, config.hidden_size))
    return specs


def _block_specs(config: ModelConfig, quantized: bool) -> Iterator[tuple[str, TensorSpec]]:
    hidden, inter, experts = config.hidden_size, config.intermediate_size, config.num_experts
    heads_width = config.num_attention_heads * config.head_dim
    yield "attn.norm.scale", TensorSpec((hidden,))
    yield "attn.qkv.weight", TensorSpec((config.qkv_rows, hidden))
    yield "attn.qkv.bias", TensorSpec((config.qkv_rows,))
    yield "attn.sinks", TensorSpec((config.num_attention_heads,))
    yield "attn.out.weight", TensorSpec((hidden, heads_width))
    yield "attn.out.bias", TensorSpec((hidden,))
    yield "mlp.norm.scale", TensorSpec((hidden,))
    yield "mlp.gate.weight", TensorSpec((experts, hidden))
    yield "mlp.gate.bias", TensorSpec((experts,))
    for name, rows, columns in (("mlp.mlp1", 2 * inter, hidden), ("mlp.mlp2", hidden, inter)):
        if quantized:
            blocks = columns // BLOCK
            yield f"{name}_weight.blocks", TensorSpec((experts, rows, blocks, BLOCK // 2), _PACKED_DTYPES)
            yield f"{name}_weight.scales", TensorSpec((experts, rows, blocks), _PACKED_DTYPES)
        else:
            yield f"{name}_weight", TensorSpec((experts, rows, columns))
        yield f"{name}_bias", TensorSpec((experts, rows))


# --- Hugging Face layout ----------------------------------------------------------------------------------

_HF_OUTSIDE_BLOCKS = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.scale": "model.norm.weight",
    "unembedding.weight": "lm_head.weight",
}
_HF_IN_BLOCK = {
    "attn.norm.scale": ("input_layernorm.weight",),
    "attn.qkv.weight": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "attn.qkv.bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "attn.sinks": ("self_attn.sinks",),
    "attn.out.weight": ("self_attn.o_proj.weight",),
    "attn.out.bias": ("self_attn.o_proj.bias",),
    "mlp.norm.scale": ("post_attention_layernorm.weight",),
    "mlp.gate.weight": ("mlp.router.weight",),
    "mlp.gate.bias": ("mlp.router.bias",),
    "mlp.mlp1_weight.blocks": ("mlp.experts.gate_up_proj_blocks",),
    "mlp.mlp1_weight.scales": ("mlp.experts.gate_up_proj_scales",),
    "mlp.mlp1_weight": ("mlp.experts.gate_up_proj",),
    "mlp.mlp1_bias": ("mlp.experts.gate_up_proj_bias",),
    "mlp.mlp2_weight.blocks": ("mlp.experts.down_proj_blocks",),
    "mlp.mlp2_weight.scales": ("mlp.experts.down_proj_scales",),
    "mlp.mlp2_weight": ("mlp.experts.down_proj",),
    "mlp.mlp2_bias": ("mlp.experts.down_proj_bias",),
}


@dataclass(frozen=True)
class StoredPart:
    """Where (a part of) a tensor lies in the Hugging Face layout: its name there and the shape it has there.

    The parts of one tensor follow each other along its first axis. A `transposed` part has its last two axes
    swapped: `save_pretrained` writes dense expert weights as [experts, input, output].
    """

    name: str
    shape: Shape
    transposed: bool = False


def hugging_face_parts(name: str, shape: Shape, config: ModelConfig) -> tuple[StoredPart, ...]:
    """The stored parts of the `original/` tensor `name`, whose shape there is `shape`."""
    if name in _HF_OUTSIDE_BLOCKS:
        return (StoredPart(_HF_OUTSIDE_BLOCKS[name], shape),)
    _, layer, in_block = name.split(".", 2)
    stored = [f"model.layers.{layer}.{part}" for part in _HF_IN_BLOCK[in_block]]
    if in_block.startswith("attn.qkv."):
        rows = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        shapes = [(heads * config.head_dim, *shape[1:]) for heads in rows]
        return tuple(StoredPart(*part) for part in zip(stored, shapes, strict=True))
    if in_block in ("mlp.mlp1_weight", "mlp.mlp2_weight"):
        return (StoredPart(stored[0], (shape[0], shape[2], shape[1]), transposed=True),)
    return (StoredPart(stored[0], shape),)


def looks_like_hugging_face(names: Iterable[str]) -> bool:
    """Whether any of the tensor names belongs to the Hugging Face layout."""
    return any(name.startswith(("model.", "lm_head.")) for name in names)
