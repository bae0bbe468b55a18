"""x Wᵀ + b on CPUs, by whichever routine of this machine is fast for the type and the number of rows.

In: BF16, fp32 or fp64 tensors in main memory. Out: the product, summed in fp32 or better and rounded to x's type, or
by `wide_linear` left as it is.
Knows nothing of the model. The choice matters for BF16 only. The native kernels read a matrix once for a few rows, at
the speed of the memory. For many rows torch is faster on processors with BF16 or AMX instructions; on all others it
multiplies element by element, at a fortieth of the speed of fp32.
"""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from gpt_oss import native
from gpt_oss.mxfp4 import BLOCK

# Up to here the matrix is streamed: by the native kernels, else as W xᵀ, 1.3 times as fast in torch as x Wᵀ.
FEW_ROWS = 16
# Weights widened to fp32 at once, so that no product needs more than 64 MB beside its operands.
WIDENED_ELEMENTS = 1 << 24


@functools.cache
def multiplies_bf16() -> bool:
    """Whether torch multiplies BF16 matrices with instructions of this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def wide_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ in fp32, also of BF16: what it is summed in. x: [..., k]; weight: [n, k]. Returns [..., n]."""
    if weight.dtype != torch.bfloat16:
        return linear(x, weight)
    flat = x.reshape(-1, x.shape[-1])
    y = _native(flat, weight, None, torch.float32) if _suits_native(x, weight) else widened(flat, weight)
    return y.reshape(*x.shape[:-1], len(weight))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b. x: [..., k]; weight: [n, k]; bias: [n]. Returns [..., n]."""
    rows = x.shape[:-1].numel()
    flat = x.reshape(rows, x.shape[-1])
    slow = weight.dtype == torch.bfloat16 and not multiplies_bf16()
    if (slow or 0 < rows <= FEW_ROWS) and _suits_native(x, weight):
        y = _native(flat, weight, bias, x.dtype)
    elif slow:
        y = widened(flat, weight)
        y = (y if bias is None else y + bias.float()).to(x.dtype)
    elif rows > FEW_ROWS or not rows:
        return F.linear(x, weight, bias)
    else:
        y = weight @ flat[0] if rows == 1 else (weight @ flat.mT).mT
        y = y if bias is None else y + bias
    return y.reshape(*x.shape[:-1], len(weight))


def _suits_native(x: Tensor, weight: Tensor) -> bool:
    differentiable = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    fits = weight.dtype == torch.bfloat16 and x.numel() > 0 and not weight.shape[1] % BLOCK
    return fits and not differentiable and native.load() is not None


def _native(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    library = native.load()
    assert library is not None
    x, weight = x.contiguous(), weight.contiguous()
    n, k = weight.shape
    y = x.new_empty(len(x), n, dtype=dtype)
    library.matmul_bf16(
        weight.data_ptr(), None if bias is None else bias.data_ptr(), n, k, x.data_ptr(), len(x), y.data_ptr(),
        torch.get_num_threads(), rounded=dtype == torch.bfloat16,
    )  # fmt: skip
    return y


def widened(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ of BF16 matrices in fp32, where their products are exact; on any device. [m, k], [n, k] -> [m, n]."""
    step = max(1, WIDENED_ELEMENTS // weight.shape[1])
    parts = [x.float() @ part.float().mT for part in weight.split(step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
