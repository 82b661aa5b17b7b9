"""Gate weights for experts that the model did not choose itself: by its numeric rule, or keeping the token's mass."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from moetui.routing import Site


def expert_logits(site: Site, logits: Tensor) -> Tensor:
    """One logit an expert: ``[T, E]`` from ``[T, classes]``.

    An expert with a product key is a pair of a row and a column key, and its logit is their sum (Lample et al. 2019,
    "Large Memory Layers with Product Keys", section 3.1).
    """
    if site.kind != "product_key":
        return logits
    rows, columns = logits.chunk(2, -1)
    return (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(-2)


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """In that type; a conversion that changes nothing takes as long as a small softmax."""
    return values if values.dtype is dtype else values.to(dtype)


def has_numeric_rule(site: Site) -> bool:
    """Whether the site's weights are known to be ``scale · s(logits)``, renormalised over the chosen or not."""
    return site.scoring != "unknown" and site.normalised is not None and site.scale is not None


def over_chosen(site: Site) -> bool:
    """Whether the site's weights are the softmax over the logits of the chosen experts, times its scale."""
    softmax = site.scoring == "softmax_top_k" or (site.scoring == "softmax" and bool(site.normalised))
    return softmax and site.logits_form != "probabilities"


def numeric_weights(site: Site, logits: Tensor, indices: Tensor, like: Tensor, *, as_routers: bool = False) -> Tensor:
    """Weights by the site's own rule: w = c · s(z_e), or c · s(z_e) / Σ_chosen s(z).

    Args:
        site: with a known rule (``has_numeric_rule``).
        logits: ``[T, E]`` as captured.
        indices: ``[T, K]`` the experts chosen.
        like: a tensor of the weights' dtype.
        as_routers: operation by operation as routers do it, to agree with them to the last bit; otherwise the
            quickest way to the same number.

    Returns:
        ``[T, K]`` in the dtype of ``like``; computed in float32.
    """
    values, indices = cast(logits, torch.float32), cast(indices, torch.int64)
    if over_chosen(site) and not as_routers:
        # Not below the smallest number: all of the chosen may be shut out by -inf, and then they share alike.
        chosen = values.gather(-1, indices).clamp_min(torch.finfo(torch.float32).min)
        return _scaled(chosen.softmax(-1), site, like)
    if site.logits_form == "probabilities" or site.scoring == "identity":
        scores = values
    elif site.scoring in ("softmax", "softmax_top_k"):
        scores = values.softmax(-1)
    elif site.scoring == "sigmoid":
        scores = values.sigmoid()
    else:
        scores = functional.softplus(values).sqrt()
    chosen = scores.gather(-1, indices)
    if site.normalised or site.scoring == "softmax_top_k":
        chosen = chosen / chosen.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return _scaled(chosen, site, like)


def _scaled(weights: Tensor, site: Site, like: Tensor) -> Tensor:
    if site.scale is not None and site.scale != 1.0:
        weights = weights * site.scale
    return cast(weights, like.dtype)


def kept_mass(weights: Tensor, slots: int) -> Tensor:
    """The token's own weights in slot order, for ``slots`` experts: its total is kept.

    Fewer slots share the total in the proportion of the first ones; more slots share it equally.
    """
    total = weights.sum(-1, keepdim=True)
    if slots > weights.shape[-1]:
        return (total / slots).expand(-1, slots).contiguous()
    kept = weights[:, :slots]
    share = kept.sum(-1, keepdim=True)
    equal = total / max(slots, 1)
    return torch.where(share != 0, kept * (total / torch.where(share != 0, share, torch.ones_like(share))), equal)


def silence(weights: Tensor, allowed: Tensor) -> Tensor:
    """Zero the weights of slots that are not allowed."""
    return weights.masked_fill(~allowed, 0.0)
