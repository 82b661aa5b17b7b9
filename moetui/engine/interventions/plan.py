"""Turns interventions into one routing function a site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from moetui.engine.adapters.base import RoutingFunction, SiteHandle
from moetui.engine.interventions.chooser import CHOICES, Rule
from moetui.engine.interventions.site_function import Recorded, SiteFunction
from moetui.engine.interventions.support import check
from moetui.routing import UsageError
from moetui.routing.interventions import Intervention, ReplayRouting

_MAX_RANGES = 3


@dataclass(slots=True)
class Plan:
    """Interventions made ready for a model.

    Attributes:
        functions: site number → what changes its routing; sites that no intervention touches are not in it.
        rules: site name → how weights were found there; filled as sites are passed.
    """

    functions: dict[int, RoutingFunction] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)


def plan(
    interventions: Sequence[Intervention],
    handles: Callable[[], Sequence[SiteHandle]],
    recordings: Mapping[str, Recorded] | None = None,
) -> Plan:
    """Check interventions and make a routing function for each site that they touch.

    They act in their order. Choices (force, ban, boost, top-k, temperature, noise) that stand together act together, a
    later one on what earlier ones left, by the router itself. Behind what changed a routing (swap, uniform ...) they
    choose among what that left; but boost, temperature and noise act on the router's scores, before all else.

    Args:
        interventions: in order of application.
        handles: gives the model's sites as known by now: scoring rules become known after the first forward.
        recordings: what ``ReplayRouting.source`` names.

    Raises:
        UsageError: an expert, layer, site, number or recording that there is not.
        UnsupportedError: a site that cannot do it.
    """
    out = Plan()
    touched: dict[int, list[Intervention]] = {}
    for intervention in interventions:
        if isinstance(intervention, ReplayRouting) and intervention.source not in (recordings or {}):
            raise UsageError(f"no recording called {intervention.source} is open", "replay_routing FILE opens it")
        for site in check(intervention, handles()):
            touched.setdefault(site.index, []).append(intervention)
    for number, chain in touched.items():
        ranges = {item.scope.positions for item in chain if isinstance(item, CHOICES) and item.scope.positions}
        if len(ranges) > _MAX_RANGES:
            raise UsageError(f"more than {_MAX_RANGES} different position ranges at one site", "merge some of them")
        out.functions[number] = SiteFunction(number, tuple(chain), handles, recordings or {}, out.rules)
    return out
