"""Muon: momentum whose matrices are made orthogonal, about, before they step, so that no direction starves.

In float32, for matrices of a few hundred: torch's own multiplies in bfloat16, ten times as slowly on a processor that
has none. Source: Jordan et al. 2024; the size of a step as in Liu et al. 2025 (that of AdamW's).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that pulls singular values to about 1
ROUNDS = 5
ROOT_MEAN_SQUARE = 0.2  # of AdamW's steps, by experience: one learning rate serves both


class Muon(torch.optim.Optimizer):
    """For matrices alone; vectors and tables are AdamW's."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            share, rate = group["momentum"], group["lr"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                if not self.state[matrix]:
                    self.state[matrix]["momentum"] = torch.zeros_like(matrix)
                mean = self.state[matrix]["momentum"]
                mean.lerp_(matrix.grad, 1 - share)
                direction = orthogonal(matrix.grad.lerp(mean, share))
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(direction, alpha=-rate * ROOT_MEAN_SQUARE * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix (R, C) with its singular vectors and singular values of .7 to 1.2, by Newton–Schulz iterations."""
    first, second, third = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.t()
    x: Tensor = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        square = x @ x.t()
        x = first * x + (second * square + third * square @ square) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.t()
