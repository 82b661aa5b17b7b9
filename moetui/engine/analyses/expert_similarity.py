"""How alike a site's experts are: by their weights, or by what they make of the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moetui.engine.adapters import SiteHandle
from moetui.engine.adapters.indexed import routing_parameters
from moetui.engine.analyses.passes import at_rest, forward
from moetui.engine.analyses.subject import Subject
from moetui.engine.around import own_forward
from moetui.routing import UnsupportedError, UsageError
from moetui.routing.step import F32

_CHUNK = 1 << 22  # numbers that are held in float32 at once
_MOST_TOKENS = 256  # newest tokens that experts are compared on
_TOKENS = 16  # tokens whose outputs by all experts are held at once


def expert_similarity(
    subject: Subject, site: int, by: str = "weights", branch: int | None = None, sequence: int = 0
) -> F32:
    """``[E, E]`` cosine similarities of a site's experts, 1 on the diagonal; NaN where an expert is all zero.

    By weights: of all its projections (up, gate, down) in one vector, as they are stored; experts that are alike but
    for the order of their neurons look unlike. By outputs: mean over the newest tokens of a sequence of the cosine of
    what two experts make of the same token, whether or not it was routed to them.

    Args:
        by: ``weights`` or ``outputs``.
        branch: whose tokens the outputs are of.

    Raises:
        UsageError: no such site or sequence.
        UnsupportedError: weights that are quantised, elsewhere, or not kept by expert.
    """
    handle = subject.handle(site)
    if by not in ("weights", "outputs"):
        raise UsageError(f"experts are compared by weights or outputs, not by {by}")
    if by == "weights":
        with torch.no_grad():
            gram = _gram(handle)
        return _cosines(gram)
    if branch is None:
        raise UsageError("outputs are compared on the tokens of a branch", "name a branch")
    return _by_outputs(subject, handle, subject.ids(branch, sequence))


def _cosines(gram: Tensor) -> F32:
    norms = gram.diagonal().sqrt()
    cosines = gram / (norms[:, None] * norms[None, :])
    out: F32 = cosines.clamp(-1.0, 1.0).cpu().numpy().astype(np.float32)
    out[np.diag_indices_from(out)] = np.where(norms.cpu().numpy() > 0, 1.0, np.nan)
    return out


def _gram(handle: SiteHandle) -> Tensor:
    """``[E, E]`` float64 inner products of the experts' weights, summed piece by piece."""
    total: Tensor | None = None
    for piece in _pieces(handle):
        values = piece.float()
        product = (values @ values.T).double().cpu()
        total = product if total is None else total + product
    if total is None:
        raise UnsupportedError(f"the weights at {handle.site.name} are not kept by expert: {handle.site.kind} experts")
    return total


def _pieces(handle: SiteHandle) -> Iterator[Tensor]:
    """``[E, n]`` pieces that together are all weights of the experts, each small."""
    experts, count = handle.experts, handle.site.num_experts
    width = max(1, _CHUNK // count)
    # Parallel experts are several modules: the routing reaches the first of them.
    owners = [child for child in handle.block.children() if type(child) is type(experts)] or [experts]
    named = [pair for owner in owners for pair in owner.named_parameters()]
    stacked = [(name, each) for name, each in named if each.dim() >= 3 and each.shape[0] == count]
    if stacked:
        for name, each in stacked:
            _check(handle, name, each)
            flat = each.view(count, -1) if each.is_contiguous() else each.reshape(count, -1)
            for begin in range(0, flat.shape[1], width):
                yield flat[:, begin : begin + width]
        return
    children = [child for child in experts.children() if next(child.parameters(), None) is not None]
    if not isinstance(experts, nn.ModuleList | nn.ModuleDict) or len(children) != count:
        return
    each_own = [{name: each for name, each in child.named_parameters() if each.dim() >= 2} for child in children]
    for name in each_own[0]:
        own = [params[name] for params in each_own]
        for each in own:
            _check(handle, name, each)
        for begin in range(0, own[0].numel(), width):
            yield torch.stack([each.reshape(-1)[begin : begin + width] for each in own])


def _check(handle: SiteHandle, name: str, values: Tensor) -> None:
    if values.is_meta:
        raise UnsupportedError(f"the weights at {handle.site.name} are not in memory", "load the model without offload")
    if not values.is_floating_point() or values.element_size() < 2:
        raise UnsupportedError(
            f"{name} at {handle.site.name} is quantised ({str(values.dtype).removeprefix('torch.')})",
            "load the model in bfloat16",
        )


def _by_outputs(subject: Subject, handle: SiteHandle, ids: list[int]) -> F32:
    names = routing_parameters(handle.experts)
    if handle.site.kind != "indexed" or names is None:
        raise UnsupportedError(
            f"single experts cannot be run at {handle.site.name}: {handle.site.kind} experts", "compare by weights"
        )
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = dict(zip(("hidden", *names), args)) | kwargs
        hidden = values.get("hidden", next(iter(values.values())))
        seen.append((hidden, values[names[0]], values[names[1]]))

    with at_rest(subject.model):
        hook = handle.experts.register_forward_pre_hook(look, with_kwargs=True)
        try:
            forward(subject.model, ids)
        finally:
            hook.remove()
        if not seen:
            raise UnsupportedError(f"the tokens of the text did not pass {handle.site.name}")
        batched = seen[-1][0].dim() == 3
        hidden, indices, weights = (each.reshape(-1, each.shape[-1])[-_MOST_TOKENS:] for each in seen[-1])
        total = torch.zeros(handle.site.num_experts, handle.site.num_experts, dtype=torch.float64)
        for begin in range(0, len(hidden), _TOKENS):
            part = slice(begin, begin + _TOKENS)
            given = hidden[part][None] if batched else hidden[part]
            total += _output_cosines(handle, given, indices[part], weights[part])
    out: F32 = (total / len(hidden)).numpy().astype(np.float32)
    return out


def _output_cosines(handle: SiteHandle, hidden: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """``[E, E]`` sum over some tokens of the cosines of the experts' outputs."""
    alone = torch.zeros_like(weights)
    alone[:, 0] = 1.0  # the other slots add nothing
    outputs = []
    for expert in range(handle.site.num_experts):
        # ``forward`` itself: no hook may see these calls.
        found = own_forward(handle.experts)(hidden, torch.full_like(indices, expert), alone)
        outputs.append(nn.functional.normalize(found.float().reshape(len(indices), -1), dim=-1))
    each = torch.stack(outputs)
    return torch.einsum("ith,jth->ij", each, each).double().cpu()
