"""Muon for the matrices of the blocks, AdamW for everything else.

Muon (Jordan et al., 2024): momentum, then the nearest orthogonal matrix by five Newton-Schulz steps. Expert weights
[e, rows, columns] are treated as e matrices at once.
"""

import torch
from torch import Tensor

from recipes.demo_model.model import COMPUTE


def orthogonalise(matrices: Tensor) -> Tensor:
    """Approximately U·Vᵀ of each matrix in [..., rows, columns]; singular values end up in about 0.7 … 1.2."""
    x = matrices.to(COMPUTE)
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x if wide else x.mT).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Updates of equal size in all directions; the step is lr · 0.2 · sqrt(max(rows, columns)), AdamW's size."""

    def __init__(self, params: list[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                average = state.setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 1 - group["momentum"])
                update = orthogonalise(parameter.grad.lerp(average, group["momentum"]))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * 0.2 * max(parameter.shape[-2:]) ** 0.5)


def make_optimizers(named: list[tuple[str, torch.nn.Parameter]], lr: float) -> list[torch.optim.Optimizer]:
    """One Muon and one AdamW; each group's `factor` is its share of the common learning rate."""
    muon, rows, others = [], [], []
    for name, parameter in named:
        if name.endswith(("qkv.weight", "out.weight", "mlp1_weight", "mlp2_weight")):
            muon.append(parameter)
        else:
            (rows if name == "embedding.weight" else others).append(parameter)
    # Every step touches every row a little through the softmax. With a small eps Adam would turn that into full steps
    # that drive all rare tokens the same way, and a token that looks like any other cannot be copied.
    adam = [{"params": rows, "factor": 0.25, "eps": 1e-6}, {"params": others, "factor": 0.5}]
    return [Muon(muon, lr=lr, weight_decay=0.02), torch.optim.AdamW(adam, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]
