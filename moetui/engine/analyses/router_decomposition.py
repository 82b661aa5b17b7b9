"""Why this expert: what each part of the residual stream added to a router's logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moetui.engine.adapters import SiteHandle
from moetui.engine.analyses.passes import at_rest, forward
from moetui.engine.analyses.residual import refuse, traced
from moetui.engine.analyses.subject import Subject
from moetui.engine.scoring import tolerance
from moetui.engine.streams import next_tokens
from moetui.routing import UsageError
from moetui.routing.analyses import RouterDecomposition

_EPSILONS = ("variance_epsilon", "eps", "epsilon", "norm_eps")


def router_decomposition(
    subject: Subject, branch: int, position: int, site: int, sequence: int = 0
) -> RouterDecomposition:
    """z_e = Σ_c ⟨w_e, γ⊙c⟩ / RMS(h) over the components c of the stream h that the router's norm reads.

    Components are the embedding and what the children of each layer added (attention, experts with shared ones,
    dense MLPs), as the pass up to this token computed them; RMS(h) is held fixed. Nothing is taken on trust: the
    layers must be sums, the norm an RMS norm and the router linear to within rounding.

    Raises:
        UsageError: no such token or site.
        UnsupportedError: the sum does not give the router's logits; the message says where it parts from them.
        ModelError: the model failed.
    """
    handle = subject.handle(site)
    ids = subject.ids(branch, sequence)
    if not 0 <= position < len(ids):
        raise UsageError(f"position must lie between 0 and {len(ids) - 1}, not {position}", "'tokens' lists them")
    if not next_tokens(subject.model):
        raise refuse(handle, "later tokens have a part in them where a model does not write from left to right")
    with at_rest(subject.model), traced(subject.model, subject.handles, handle) as trace:
        forward(subject.model, ids[: position + 1])
        rounding = _rounding(subject.model, handle)
        parts, components, stream = trace.components(rounding)
        norm, values, logits = trace.router()
        scale = _scale(handle, norm, stream, values, rounding)
        weight, bias = _linear(handle, stream.numel(), logits.numel())
    contributions = (components * scale) @ weight.T
    if bias is not None:
        parts, contributions = [*parts, "router bias"], torch.cat([contributions, bias[None]])
    _check_sum(handle, contributions.sum(0), logits, (weight * values).norm(dim=-1), rounding)
    return RouterDecomposition(tuple(parts), contributions.float().numpy(), logits.float().numpy())


def _rounding(model: nn.Module, handle: SiteHandle) -> float:
    """What rounding explains, relative: by the coarser type of the stream and the router."""
    embeddings = model.get_input_embeddings()  # type: ignore[operator]
    return tolerance(embeddings.weight, *(each for each in handle.router.parameters() if each.is_floating_point()))


def _scale(handle: SiteHandle, norm: nn.Module, stream: Tensor, values: Tensor, rounding: float) -> Tensor:
    """``[H]`` γ / RMS(h): what turns the stream into the router's input.

    Raises:
        UnsupportedError: the norm is no RMS norm with a factor a channel.
    """
    epsilon = next((value for name in _EPSILONS if isinstance(value := getattr(norm, name, None), float)), 0.0)
    inverse = (stream.square().mean() + epsilon).rsqrt()
    weight = getattr(norm, "weight", None)
    gammas = [torch.ones_like(stream)]
    if isinstance(weight, Tensor) and weight.numel() == stream.numel():
        own = weight.detach().cpu().double()
        gammas = [own, 1.0 + own]
    for gamma in gammas:
        if (stream * inverse * gamma - values).abs().max() <= rounding * values.abs().max():
            return gamma * inverse
    raise refuse(handle, f"{type(norm).__name__} is no RMS norm with a factor a channel")


def _linear(handle: SiteHandle, hidden: int, classes: int) -> tuple[Tensor, Tensor | None]:
    """``[E, H]`` weight and ``[E]`` bias of the router's one projection.

    Raises:
        UnsupportedError: it has several or none.
    """
    named = dict(handle.router.named_parameters())
    weights = [name for name, each in named.items() if tuple(each.shape) == (classes, hidden)]
    if len(weights) != 1:
        raise refuse(handle, "the router is not one linear projection")
    bias = named.get(weights[0].removesuffix("weight") + "bias")
    if bias is not None and bias.numel() != classes:
        bias = None
    return named[weights[0]].detach().cpu().double(), None if bias is None else bias.detach().cpu().double()


def _check_sum(handle: SiteHandle, total: Tensor, logits: Tensor, sizes: Tensor, rounding: float) -> None:
    """Raise unless the parts' sum is the router's logits; ``sizes``: of the terms that each logit sums."""
    off = (total - logits).abs()
    if (off <= rounding * torch.maximum(logits.abs(), sizes)).all():
        return
    raise refuse(handle, f"the parts' sum misses the router's output by up to {float(off.max()):.3g}")
