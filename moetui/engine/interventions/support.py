"""What cannot be done where, said before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from moetui.engine.adapters.base import SiteHandle
from moetui.routing import Site, UnsupportedError, UsageError
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ExpertCapacity,
    ForceExperts,
    Intervention,
    RouterNoise,
    RouterTemperature,
    ScaleExperts,
    SetTopK,
    SwapExperts,
)
from moetui.routing.ranges import with_routers


def check(intervention: Intervention, handles: Sequence[SiteHandle]) -> tuple[Site, ...]:
    """The sites that an intervention acts on.

    Raises:
        UsageError: it names an expert, layer, site or number that the model has not.
        UnsupportedError: a site of its scope cannot do it; the message says why.
    """
    _check_scope(intervention, [handle.site for handle in handles])
    _check_numbers(intervention)
    chosen = [handle for handle in handles if intervention.scope.holds_site(handle.site)]
    for handle in chosen:
        _check_experts(intervention, handle.site)
        reason = refusal(intervention, handle)
        if reason:
            raise UnsupportedError(f"{intervention.name} is not possible at {handle.site.name}: {reason}")
    return tuple(handle.site for handle in chosen)


def refusal(intervention: Intervention, handle: SiteHandle) -> str:
    """Why a site cannot do an intervention; empty if it can."""
    site, never = handle.site, handle.adapter.refusal(handle)
    if never:
        return never
    if site.kind == "parallel":
        return _refusal_fixed(intervention, site, "the expert's batches are laid out for exactly {k} slots a token")
    if site.kind == "product_key":
        wants = _slots_wanted(intervention)
        if wants is not None and wants > site.top_k:
            return f"the experts' keys are looked up for {site.top_k} slots, not {wants}"
    if site.kind == "mask":
        return _refusal_fixed(intervention, site, "the mask that the experts take holds {k} slots a token")
    return ""


def _refusal_fixed(intervention: Intervention, site: Site, reason: str) -> str:
    wants = _slots_wanted(intervention)
    if wants is not None and wants != site.top_k:
        return reason.format(k=site.top_k)
    return ""


def _slots_wanted(intervention: Intervention) -> int | None:
    if isinstance(intervention, SetTopK):
        return intervention.k
    if isinstance(intervention, ForceExperts):
        return len(set(intervention.experts))
    return None


def _check_scope(intervention: Intervention, sites: Sequence[Site]) -> None:
    scope = intervention.scope
    with_routers(scope.layers or (), {site.layer for site in sites})
    names = [site.name for site in sites]
    for name in scope.sites or ():
        if name not in names:
            raise UsageError(f"no site is called {name}", f"sites: {', '.join(names[:12])}")
    if not any(scope.holds_site(site) for site in sites):
        raise UsageError("the scope holds no site", f"sites: {', '.join(names[:12])}")


def _check_numbers(intervention: Intervention) -> None:
    if isinstance(intervention, ForceExperts | BanExperts | BoostExperts | ScaleExperts) and not intervention.experts:
        raise UsageError(f"{intervention.name} needs at least one expert", "name them: 0 3 7")
    if isinstance(intervention, RouterTemperature) and not 0 < intervention.temperature < float("inf"):
        raise UsageError(f"a router temperature must be above 0, not {intervention.temperature}")
    if isinstance(intervention, RouterNoise) and not 0 <= intervention.sigma < float("inf"):
        raise UsageError(f"the noise's sigma must not be negative, not {intervention.sigma}")
    if isinstance(intervention, ExpertCapacity) and not 0 < intervention.factor < float("inf"):
        raise UsageError(f"a capacity factor must be above 0, not {intervention.factor}", "1.0 is an even share")
    for value in (getattr(intervention, "bias", 0.0), getattr(intervention, "factor", 0.0)):
        if not abs(value) < float("inf"):
            raise UsageError(f"{intervention.name} needs a finite number, not {value}")


def _check_experts(intervention: Intervention, site: Site) -> None:
    named: tuple[int, ...] = getattr(intervention, "experts", ())
    if isinstance(intervention, SwapExperts):
        named = (intervention.a, intervention.b)
    for expert in named:
        if not 0 <= expert < site.num_experts:
            raise UsageError(f"{site.name} has no expert {expert}", f"its experts are 0 to {site.num_experts - 1}")
    if isinstance(intervention, SetTopK) and not 1 <= intervention.k <= site.num_experts:
        raise UsageError(f"top-k must lie between 1 and {site.num_experts} at {site.name}, not {intervention.k}")
    if isinstance(intervention, BanExperts) and len(set(intervention.experts)) >= site.num_experts:
        raise UsageError(f"that bans every expert of {site.name}", "leave at least one")
