"""Fill a `Transformer` from a checkpoint: read only this rank's bytes, decode MXFP4, check memory first.

Tensors arrive as memory-mapped NumPy arrays (BF16 as its bit pattern) and go to the device one by one, so the
peak is the model plus one tensor; with packed weights they stay in the map.
"""

import logging
import mmap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import psutil
import torch
from torch import Tensor
from tqdm import tqdm

from gpt_oss import native
from gpt_oss.checkpoint import Checkpoint, block_range
from gpt_oss.config import ModelConfig
from gpt_oss.errors import BackendUnavailable, OutOfMemory
from gpt_oss.mxfp4 import PAIR_VALUES, scale_values
from gpt_oss.torch.parallel import Parallel

if TYPE_CHECKING:
    from gpt_oss.torch.model import Transformer

logger = logging.getLogger(__name__)


Weights = Literal["bf16", "mxfp4", "auto"]


def load_weights(
    build: "type[Transformer]",
    path: str | Path,
    device: torch.device,
    dtype: torch.dtype,
    parallel: Parallel,
    weights: Weights,
) -> "Transformer":
    """Build a model and fill every parameter; see `Transformer.from_checkpoint`."""
    from gpt_oss.torch.packed import PackedMatrix, PackedMLPBlock  # a variation of the model, which imports us

    with Checkpoint(path) as checkpoint:
        model = build(checkpoint.config, "meta", dtype, parallel)
        needed = sum(p.numel() * p.element_size() for p in model.parameters())
        if _choose_packed(weights, checkpoint, device, dtype, parallel, needed):
            model = build(checkpoint.config, "meta", dtype, parallel, PackedMLPBlock)
            model.allocate(device)
            _fill(model, checkpoint, parallel, device, in_place=True)
            packed = [module for module in model.modules() if isinstance(module, PackedMLPBlock)]
            for layer, mlp in enumerate(packed):
                stems = (f"block.{layer}.mlp.mlp{n}_weight" for n in (1, 2))
                mlp.set_experts(
                    *(PackedMatrix(checkpoint.read(f"{s}.blocks"), checkpoint.read(f"{s}.scales")) for s in stems)
                )
            _read_ahead(checkpoint, device)
            if native.load() is None:
                logger.warning("packed experts are slow without the native kernels; %s", native.HOW_TO_BUILD)
        else:
            _check_memory(needed, device)
            model.allocate(device)
            _fill(model, checkpoint, parallel, device, in_place=False)
    return model.eval().requires_grad_(False)


def _fill(
    model: "Transformer", checkpoint: Checkpoint, parallel: Parallel, device: torch.device, in_place: bool
) -> None:
    """Give every parameter its values; `in_place` leaves BF16 tensors where they lie in the mapped file."""
    parameters = list(model.named_parameters())
    # tqdm shows nothing unless the load takes a second and somebody watches.
    with torch.no_grad(), tqdm(total=len(parameters), desc="loading", unit="tensor", delay=1, disable=None) as bar:
        for name, parameter in parameters:
            mapped = _mapped(checkpoint.read(name)) if in_place and parameter.dtype == torch.bfloat16 else None
            if mapped is not None:
                parameter.data = mapped
            else:
                for index, part in _parts(checkpoint, name, checkpoint.config, parallel, device):
                    parameter[index].copy_(part)
            bar.update()


def _read_ahead(checkpoint: Checkpoint, device: torch.device) -> None:
    """Bring what stays mapped into memory, so that the wait for a disk comes with a bar and not before the first token.

    A file that does not fit the free memory is left alone: its pages would push each other out.
    """
    if checkpoint.nbytes > free_memory(device):
        logger.info(
            "the checkpoint (%.1f GiB) exceeds the free memory; it is read when needed", checkpoint.nbytes / 2**30
        )
        return
    with tqdm(total=checkpoint.nbytes, desc="reading", unit="B", unit_scale=True, delay=1, disable=None) as bar:
        for name in checkpoint.names:
            array = checkpoint.read(name)
            if array.flags.c_contiguous and array.size:
                array.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].max()
            bar.update(array.nbytes)


def _mapped(array: np.ndarray) -> Tensor | None:
    """The array itself as a BF16 tensor, if it is one whole BF16 tensor of the file."""
    if array.dtype != np.uint16 or not array.flags.c_contiguous:
        return None
    with warnings.catch_warnings():
        # torch warns that the array is read-only; parameters of a loaded model are not written.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array).view(torch.bfloat16)


def _choose_packed(
    weights: Weights, checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, parallel: Parallel, needed: int
) -> bool:
    """Whether the experts stay packed. Automatically: where that is possible, and faster or the only thing to fit."""
    obstacles = {
        f"the device is {device}, not a CPU": device.type != "cpu",
        f"the type is {dtype}, not bfloat16": dtype != torch.bfloat16,
        f"there are {parallel.world} ranks": parallel.world > 1,
        "the checkpoint is not quantised": not checkpoint.quantized,
    }
    reasons = [reason for reason, holds in obstacles.items() if holds]
    if weights == "mxfp4" and reasons:
        raise BackendUnavailable(f"the weights cannot stay packed: {' and '.join(reasons)}; use --weights bf16")
    if weights == "auto" and not reasons:
        packed = native.load() is not None or needed > free_memory(device)
        logger.info("expert weights: %s (%.1f GiB in BF16)", "packed MXFP4" if packed else "BF16", needed / 2**30)
        return packed
    return weights == "mxfp4"


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _check_memory(needed: int, device: torch.device) -> None:
    free = free_memory(device)
    if needed > free:
        raise OutOfMemory(
            f"the weights need {needed / 2**30:.1f} GiB but {device} has {free / 2**30:.1f} GiB free; keep them packed "
            "(--weights mxfp4 on a CPU, --backend triton on a GPU), use more ranks (torchrun) or a smaller model"
        )


Parts = Iterator[tuple[int | slice, Tensor]]


def _parts(checkpoint: Checkpoint, name: str, config: ModelConfig, parallel: Parallel, device: torch.device) -> Parts:
    """Pairs (where along the first axis, values) that together are this rank's share of parameter `name`."""
    kind = name.split(".", 2)[-1] if name.startswith("block.") else name
    heads, _ = parallel.heads(config)
    everything = slice(None)
    if kind in ("attn.qkv.weight", "attn.qkv.bias"):
        yield from _qkv_parts(checkpoint, name, config, parallel, device)
    elif kind == "attn.sinks":
        mine = slice(parallel.rank * heads, (parallel.rank + 1) * heads)
        yield everything, _tensor(checkpoint.read(name, (mine,)), device)
    elif kind == "attn.out.weight":
        width = heads * config.head_dim
        columns = slice(parallel.rank * width, (parallel.rank + 1) * width)
        yield everything, _tensor(checkpoint.read(name, (everything, columns)), device)
    elif kind == "unembedding.weight":
        rows = parallel.rows(config.vocab_size)
        yield everything, _tensor(checkpoint.read(name, (slice(rows.start, rows.stop),)), device)
    elif kind in ("mlp.mlp1_weight", "mlp.mlp1_bias"):
        pairs = slice(*(2 * bound for bound in _share_of_intermediate(config, parallel)))
        for expert in range(config.num_experts):
            if kind.endswith("bias"):
                yield expert, _tensor(checkpoint.read(name, (expert, pairs)), device)
            else:
                yield expert, _expert_matrix(checkpoint, name, expert, pairs, slice(0, config.hidden_size), device)
    elif kind == "mlp.mlp2_weight":
        columns = slice(*_share_of_intermediate(config, parallel))
        for expert in range(config.num_experts):
            yield expert, _expert_matrix(checkpoint, name, expert, everything, columns, device)
    else:
        yield everything, _tensor(checkpoint.read(name), device)


def _share_of_intermediate(config: ModelConfig, parallel: Parallel) -> tuple[int, int]:
    share = parallel.share(config.intermediate_size)
    return parallel.rank * share, (parallel.rank + 1) * share


def _qkv_parts(
    checkpoint: Checkpoint, name: str, config: ModelConfig, parallel: Parallel, device: torch.device
) -> Parts:
    """Rows in memory: this rank's query heads, key heads, value heads; on disk all of each kind come together."""
    heads, kv_heads = parallel.heads(config)
    first_kv = parallel.first_kv_head(config)
    on_disk = (
        (parallel.rank * heads, heads),
        (config.num_attention_heads + first_kv, kv_heads),
        (config.num_attention_heads + config.num_key_value_heads + first_kv, kv_heads),
    )
    row = 0
    for first, count in on_disk:
        source = slice(first * config.head_dim, (first + count) * config.head_dim)
        target = slice(row, row + count * config.head_dim)
        yield target, _tensor(checkpoint.read(name, (source,)), device)
        row = target.stop


def _expert_matrix(
    checkpoint: Checkpoint, name: str, expert: int, rows: slice, columns: slice, device: torch.device
) -> Tensor:
    """Rows and columns of one expert's matrix; a cut inside an MXFP4 block reads the block and drops the rest."""
    if f"{name}.blocks" not in checkpoint:
        return _tensor(checkpoint.read(name, (expert, rows, columns)), device)
    cover = block_range(columns.start, columns.stop)
    blocks, scales = (
        _tensor(checkpoint.read(f"{name}.{part}", (expert, rows, cover.blocks)), device)
        for part in ("blocks", "scales")
    )
    return decode_mxfp4(blocks, scales)[:, cover.values]


def decode_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """`gpt_oss.mxfp4.decode` on any device, straight to bfloat16, which holds every value exactly.

    blocks: uint8 [..., n, 16]; scales: uint8 [..., n]. Returns [..., n * 32].
    """
    pairs = torch.from_numpy(PAIR_VALUES).to(blocks.device, torch.bfloat16)
    powers = torch.from_numpy(scale_values(np.arange(256, dtype=np.uint8))).to(blocks.device, torch.bfloat16)
    # Two bfloat16 seen as one int32: a single look-up decodes a byte.
    values = pairs.view(torch.int32)[:, 0][blocks.int()].view(torch.bfloat16)
    return (values * powers[scales.int()][..., None]).flatten(-2)


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """A private copy on `device`; uint16 is how the checkpoint hands out BF16."""
    tensor = torch.from_numpy(np.array(array))
    return (tensor.view(torch.bfloat16) if array.dtype == np.uint16 else tensor).to(device)
