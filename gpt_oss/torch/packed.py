"""The expert layer that keeps its weights packed: MXFP4 blocks read in place from the checkpoint's memory map.

The same model with another `MLPBlock`; 20b then needs 13.8 GB instead of 42. The native kernels decode in registers
for few tokens and in cache for many; where torch multiplies BF16 by instructions of the processor, many tokens decode
an expert to BF16 and go to torch, as do all on machines without the library. All round where the BF16 model rounds.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpt_oss import native
from gpt_oss.config import ModelConfig
from gpt_oss.torch.cpu import multiplies_bf16
from gpt_oss.torch.model import MLPBlock, linear, swiglu
from gpt_oss.torch.parallel import Parallel
from gpt_oss.torch.weights import decode_mxfp4

# Beyond them torch, where it multiplies BF16 fast, beats the native kernels, decoding of each expert included.
NATIVE_TOKENS = 32


@dataclass(frozen=True)
class PackedMatrix:
    """One projection of all experts: uint8 blocks [e, rows, k/32, 16] and scales [e, rows, k/32], read-only."""

    blocks: np.ndarray
    scales: np.ndarray

    def decode(self, expert: int) -> Tensor:
        """One expert's matrix, BF16 [rows, k]."""
        blocks, scales = self.blocks[expert], self.scales[expert]
        library = native.load()
        if library is None:
            return decode_mxfp4(torch.from_numpy(np.array(blocks)), torch.from_numpy(np.array(scales)))
        out = torch.empty(scales.shape[0], scales.shape[1] * 32, dtype=torch.bfloat16)
        library.decode(blocks, scales, out.data_ptr(), torch.get_num_threads())
        return out


class PackedMLPBlock(MLPBlock):
    """`MLPBlock` over `PackedMatrix`es, which the loader sets; on the CPU, in BF16, on one rank."""

    mlp1: PackedMatrix
    mlp2: PackedMatrix

    def __init__(self, config: ModelConfig, parallel: Parallel):
        super().__init__(config, parallel)
        del self.mlp1_weight, self.mlp2_weight

    def set_experts(self, mlp1: PackedMatrix, mlp2: PackedMatrix) -> None:
        """Take the weights; the biases are parameters and must have been filled before."""
        self.mlp1, self.mlp2 = mlp1, mlp2
        library = native.load()
        if library is None:
            self._layer = None
            return
        bias1, bias2 = (
            bias.detach().view(torch.int16).numpy().view(np.uint16) for bias in (self.mlp1_bias, self.mlp2_bias)
        )
        self._arrays = native.ExpertLayer(mlp1.blocks, mlp1.scales, bias1, mlp2.blocks, mlp2.scales, bias2, self.limit)
        self._layer = library.describe(self._arrays)

    def mixture(self, t: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """See `MLPBlock.mixture`."""
        library = native.load()
        if library is None or self._layer is None or (len(t) > NATIVE_TOKENS and multiplies_bf16()):
            return super().mixture(t, chosen, weights)
        t, weights = t.contiguous(), weights.contiguous()
        out = torch.empty(t.shape, dtype=torch.float32)
        library.experts(
            self._layer, len(t), self.experts_per_token, t.data_ptr(), chosen.data_ptr(), weights.data_ptr(),
            out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out

    def expert(self, expert: int, t: Tensor) -> Tensor:
        """See `MLPBlock.expert`."""
        hidden = swiglu(linear(t, self.mlp1.decode(expert), self.mlp1_bias[expert]), self.limit)
        return linear(hidden, self.mlp2.decode(expert), self.mlp2_bias[expert])
