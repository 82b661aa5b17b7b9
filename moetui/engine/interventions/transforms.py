"""What is done to a routing after the choice: pure functions ``(indices, weights) -> (indices, weights)``."""

from __future__ import annotations

import torch
from torch import Tensor

from moetui.engine.interventions.choice import among
from moetui.engine.interventions.noise import uniform


def scale_experts(indices: Tensor, weights: Tensor, experts: tuple[int, ...], factor: float) -> tuple[Tensor, Tensor]:
    """Multiply the weights of these experts by ``factor``; the others stay as they are."""
    return indices, torch.where(among(indices, experts), weights * factor, weights)


def swap_experts(indices: Tensor, weights: Tensor, a: int, b: int) -> tuple[Tensor, Tensor]:
    """Exchange two experts, each keeping the other's weight."""
    swapped = torch.where(indices == a, b, torch.where(indices == b, a, indices))
    return swapped.to(indices.dtype), weights


def uniform_weights(indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Share each token's mass equally among the experts that have a weight; a token without mass stays without."""
    used = weights != 0
    share = weights.sum(-1, keepdim=True) / used.sum(-1, keepdim=True).clamp_min(1)
    return indices, torch.where(used, share.to(weights.dtype), weights)


def random_experts(
    indices: Tensor,
    weights: Tensor,
    num_experts: int,
    seed: int,
    site: int,
    positions: Tensor,
    shut: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Different experts drawn uniformly without replacement; each slot keeps its weight.

    Args:
        shut: ``[T, E]`` or ``[1, E]`` experts that are left out; where too few are left, these are drawn again.
    """
    draws = uniform(seed, site, positions, num_experts)
    slots = indices.shape[-1]
    if shut is not None:
        draws = draws.masked_fill(shut, -1.0)
    drawn, chosen = torch.topk(draws, min(slots, num_experts), dim=-1)
    left = (drawn >= 0).sum(-1, keepdim=True).clamp_min(1)
    again = torch.arange(slots, device=chosen.device) % left
    return chosen.gather(-1, again).to(indices.dtype), weights


def limit_capacity(
    indices: Tensor, weights: Tensor, num_experts: int, factor: float, real: Tensor
) -> tuple[Tensor, Tensor]:
    """Drop what an expert gets beyond its capacity ⌈factor · T · k / E⌉ (GShard, Lepikhin et al. 2020, algorithm 1).

    All first choices queue before all second ones, in token order. T counts the tokens of this forward pass without
    padding; a dropped slot gets weight zero and the rest is not renormalised. Slots without weight, and of classes past
    the experts, do not queue.

    Args:
        real: ``[T]`` tokens that are no padding.
    """
    tokens, slots = indices.shape
    capacity = torch.ceil(factor * real.sum() * slots / num_experts)
    queued = ((weights != 0) & (indices < num_experts) & real.unsqueeze(-1)).t().reshape(-1)
    order = indices.t().reshape(-1).long().clamp(0, num_experts - 1)
    arrivals = torch.zeros(tokens * slots, num_experts, dtype=torch.int32, device=indices.device)
    arrivals.scatter_(1, order.unsqueeze(-1), queued.to(torch.int32).unsqueeze(-1))
    place = arrivals.cumsum(0, dtype=torch.int32).gather(1, order.unsqueeze(-1)).squeeze(-1)
    kept = (place <= capacity) | ~queued
    return indices, weights.masked_fill(~kept.reshape(slots, tokens).t(), 0.0)
