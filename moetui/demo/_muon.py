"""Muon: momentum whose update is made orthogonal before it is applied (Jordan et al. 2024).

On this small model it learns in a few hundred steps what AdamW needs thousands for, so that training fits in minutes.
Stacked matrices, such as the experts' `[experts, out, in]`, are treated one by one.
"""

from collections.abc import Iterable
from typing import Final

import torch

_ITERATIONS: Final = 5
# The quintic a x + b x^3 + c x^5 that drives singular values towards 1 fastest from near 0 (same source).
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """Nearly `U V^T` of every `[..., out, in]` matrix `U S V^T`: singular values come out between about 0.7 and 1.2."""
    tall = matrices.size(-2) > matrices.size(-1)
    x = (matrices.mT if tall else matrices).reshape(-1, *sorted(matrices.shape[-2:]))
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = torch.bmm(x, x.mT)
        # Sums within the products: they would take a fifth of the time by themselves.
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x.mT if tall else x).view(matrices.shape)


class Muon:
    """Nesterov momentum with orthogonalised updates and decoupled weight decay."""

    def __init__(self, weights: Iterable[torch.nn.Parameter], momentum: float = 0.95, decay: float = 0.1) -> None:
        self._weights = list(weights)
        self._averages = [torch.zeros_like(weight) for weight in self._weights]
        self._momentum = momentum
        self._decay = decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update every weight from its gradient. `rate` is for square matrices; taller ones move further."""
        for weight, average in zip(self._weights, self._averages, strict=True):
            if weight.grad is None:
                continue
            average.lerp_(weight.grad, 1 - self._momentum)
            update = orthogonalised(weight.grad.lerp(average, self._momentum))
            weight.mul_(1 - rate * self._decay)
            weight.add_(update, alpha=-rate * max(1.0, weight.size(-2) / weight.size(-1)) ** 0.5)
