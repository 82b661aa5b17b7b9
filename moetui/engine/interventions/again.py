"""A choice among what earlier interventions left of a routing."""

from __future__ import annotations

import torch
from torch import Tensor

from moetui.engine.interventions.choice import Choice, fit, preferring
from moetui.engine.interventions.weights import cast, has_numeric_rule, kept_mass, numeric_weights, silence
from moetui.routing import Site
from moetui.routing.interventions import BanExperts, ForceExperts, SetTopK


def choose_again(
    item: ForceExperts | BanExperts | SetTopK, site: Site, logits: Tensor | None, indices: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Force, ban or limit experts in a routing that is no longer the router's own.

    Forced experts are weighed by the numeric rule, or share the token's mass. Else a token keeps the experts that it
    may keep, with their weights; what others had goes in equal parts to those that come in their place, the best by
    their logits, or to those kept where none comes.

    Args:
        logits: ``[T, E]``; None where there are none, and then nothing comes in place of what goes.
        indices, weights: ``[T, K]``; a slot with weight zero is empty.
    """
    choice = Choice(site.num_experts, indices.shape[-1])
    if isinstance(item, ForceExperts):
        choice.force(item.experts)
        chosen = choice.select(weights if logits is None else logits)
        if logits is not None and has_numeric_rule(site):
            found = numeric_weights(site, logits[:, : site.num_experts], chosen, weights)
        else:
            found = kept_mass(weights.sum(-1, keepdim=True).expand_as(weights) / weights.shape[-1], chosen.shape[-1])
        return _fitted(chosen, found, indices, weights)
    if isinstance(item, BanExperts):
        choice.ban(item.experts)
    else:
        choice.limit(item.k)
    total = weights.sum(-1, keepdim=True)
    if logits is None:
        order = cast(weights, torch.float32).argsort(stable=True, dim=-1, descending=True).argsort(-1)
        kept = silence(weights, choice.allowed(indices) & (order < choice.k))
        return indices, _with_mass(kept, total)
    chosen = choice.select(preferring(logits[:, : site.num_experts], indices, weights != 0))
    same = (chosen.unsqueeze(-1) == indices.unsqueeze(-2)) & (weights != 0).unsqueeze(-2)
    own = (same * weights.unsqueeze(-2)).sum(-1)
    new = ~same.any(-1)
    lost = (total - own.sum(-1, keepdim=True)) / new.sum(-1, keepdim=True).clamp_min(1)
    found = torch.where(new, lost, own) if isinstance(item, BanExperts) else own.masked_fill(new, 0.0)
    if isinstance(item, SetTopK) and item.k > indices.shape[-1]:
        found = torch.where(new, total / item.k, own * (1 - new.sum(-1, keepdim=True) / item.k))
    return _fitted(chosen, _with_mass(found, total), indices, weights)


def _with_mass(weights: Tensor, total: Tensor) -> Tensor:
    """The same shares of another total; a token without any weight stays without."""
    left = weights.sum(-1, keepdim=True)
    return torch.where(left != 0, weights * (total / torch.where(left != 0, left, torch.ones_like(left))), weights)


def _fitted(chosen: Tensor, found: Tensor, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    chosen, found = fit(chosen, found, indices.shape[-1])
    return cast(chosen, indices.dtype), cast(found, weights.dtype)
