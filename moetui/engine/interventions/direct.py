"""Routings that a site's logits alone decide, in few operations: those are most of what changing a small step costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from moetui.engine.adapters.base import Direct
from moetui.engine.interventions.choice import Choice
from moetui.engine.interventions.weights import cast, over_chosen
from moetui.routing import Site

_TINY = torch.finfo(torch.float32).tiny
_FEW = 16  # indices that are looked at one by one, where they lie on the host


def forcing(site: Site, choice: Choice, logits: Tensor, indices: Tensor) -> Direct | None:
    """Every token to the same experts, weighed by the softmax over their logits.

    Args:
        site: with a numeric rule.
        choice: with forced experts.
        logits, indices: ``[T, E]`` and ``[T, K]`` of a call, to see what they are like. Waits for the device.

    Returns:
        None where the site weighs otherwise, or where this call shuts experts out by -inf: their softmax might be one
        over nothing.
    """
    forced, slots = choice.forced, indices.shape[-1]
    if not forced or len(forced) < slots or not over_chosen(site) or bool(logits.isneginf().any()):
        return None
    scale = _scale(site)
    with torch.inference_mode(False):  # training may follow
        wanted = torch.tensor(forced, device=logits.device)
        row = wanted.to(indices.dtype).unsqueeze(0)

    def direct(logits: Tensor, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        nonlocal wanted, row
        if indices.size(-1) != slots:
            return None
        if wanted.device != logits.device:  # the model was moved
            with torch.inference_mode(False):
                wanted, row = wanted.to(logits.device), row.to(logits.device)
        chosen = logits.index_select(-1, wanted)
        found = chosen.softmax(-1, torch.float32)
        if scale != 1.0:
            found = found * scale
        if found.dtype is not weights.dtype:
            found = found.to(weights.dtype)
        tokens = logits.shape[0]
        return row if tokens == 1 else row.expand(tokens, -1), found

    return direct


def rankings(site: Site, choice: Choice, slots: int) -> list[Direct]:
    """The best experts that are not banned, weighed operation by operation as routers do it, to agree to the last bit.

    Args:
        site: with a numeric rule; its experts are ranked by their scores alone.
        choice: without forced experts and shifts.
        slots: that the model has there.

    Returns:
        All ways in which a router may work out the site's rule; they differ in the last bits.
    """
    if site.logits_form == "probabilities" or site.num_classes != site.num_experts or choice.k != slots:
        return []
    if slots > site.num_experts - len(choice.banned):
        return []
    early = [_ranking(site, choice, slots, _SCORES[site.scoring], late=False)] if site.scoring in _SCORES else []
    late = [_ranking(site, choice, slots, _as_they_are, late=True)] if over_chosen(site) else []
    return early + late


def _ranking(site: Site, choice: Choice, slots: int, score: Callable[[Tensor], Tensor], *, late: bool) -> Direct:
    """``late``: the softmax is taken over the chosen, and not over all and then renormalised."""
    scale = _scale(site)
    with torch.inference_mode(False):  # training may follow
        shut = torch.zeros(site.num_experts, dtype=torch.bool)
        shut[sorted(choice.banned)] = True

    def direct(logits: Tensor, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        nonlocal shut
        if indices.size(-1) != slots:
            return None
        if shut.device != logits.device:
            with torch.inference_mode(False):
                shut = shut.to(logits.device)
        found, chosen = torch.topk(score(logits).masked_fill(shut, -torch.inf), slots, -1)
        if late:
            found = found.softmax(-1)
        elif site.normalised:
            found = found / found.sum(-1, True).clamp_min(_TINY)
        if scale != 1.0:
            found = found * scale
        return cast(chosen, indices.dtype), cast(found, weights.dtype)

    return direct


def where_chosen(banned: frozenset[int], direct: Direct) -> Direct:
    """What ``direct`` makes of tokens that go to a banned expert; a few tokens that do not keep what they have.

    They would keep the same experts and weights anyway. Looked at are tokens on the host alone, where it costs no wait,
    and not where gradients are taken: a checkpoint's recomputation has to do all that was done.
    """

    def spared(logits: Tensor, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor] | None:
        few = indices.is_cpu and indices.numel() <= _FEW and not torch.is_grad_enabled()
        if few and banned.isdisjoint(indices.flatten().tolist()):
            return indices, weights
        return direct(logits, indices, weights)

    return spared


def _scale(site: Site) -> float:
    return 1.0 if site.scale is None else site.scale


def _as_they_are(logits: Tensor) -> Tensor:
    return cast(logits, torch.float32).clamp_min(torch.finfo(torch.float32).min)  # above what is shut


_SCORES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(-1, torch.float32),
    "sigmoid": lambda logits: cast(logits, torch.float32).sigmoid(),
    "sqrt_softplus": lambda logits: functional.softplus(cast(logits, torch.float32)).sqrt(),
}
