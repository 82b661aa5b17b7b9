"""Turns interventions into one routing function a site: choices first, in order, then what changes a routing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from moetui.engine.adapters.base import RoutingFunction, SiteContext, SiteHandle
from moetui.engine.interventions.choice import Choice, among, fit
from moetui.engine.interventions.noise import normal
from moetui.engine.interventions.reroute import RouterTrace, reroute, trace_router
from moetui.engine.interventions.support import check
from moetui.engine.interventions.transforms import (
    limit_capacity,
    random_experts,
    scale_experts,
    swap_experts,
    uniform_weights,
)
from moetui.engine.interventions.weights import expert_logits, has_numeric_rule, kept_mass, numeric_weights, silence
from moetui.routing import Phase, Site, UsageError
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ExpertCapacity,
    ForceExperts,
    Intervention,
    RandomRouting,
    ReplayRouting,
    RouterNoise,
    RouterTemperature,
    ScaleExperts,
    SetTopK,
    SwapExperts,
    UniformRouting,
)

Rule = Literal["numeric", "reroute", "keep_mass"]
"""How a changed choice got its weights: the site's numeric rule, its router run again, the token's mass kept."""

Recorded: TypeAlias = Callable[[Site, Tensor], "tuple[Tensor, Tensor, Tensor] | None"]
"""``(site, positions [T]) -> (indices [T, K], weights [T, K], known [T])`` of a recording; None without such a site."""

_Change: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(logits [T, E], positions [T]) -> [T, E]``."""

_NOWHERE = torch.empty(0, dtype=torch.int64)  # the positions of tokens where nothing asks for them
_CHOICES = (ForceExperts, BanExperts, BoostExperts, SetTopK, RouterTemperature, RouterNoise)
_BY_POSITION = (RouterNoise, RandomRouting, ExpertCapacity, ReplayRouting)
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

    Choices (force, ban, boost, top-k, temperature, noise) act together, a later one on what earlier ones left; then the
    others change the chosen routing in their order.

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
        ranges = {item.scope.positions for item in chain if isinstance(item, _CHOICES) and item.scope.positions}
        if len(ranges) > _MAX_RANGES:
            raise UsageError(f"more than {_MAX_RANGES} different position ranges at one site", "merge some of them")
        out.functions[number] = _SiteFunction(number, tuple(chain), handles, recordings or {}, out.rules)
    return out


class _SiteFunction:
    """The routing function of one site."""

    def __init__(
        self,
        number: int,
        chain: tuple[Intervention, ...],
        handles: Callable[[], Sequence[SiteHandle]],
        recordings: Mapping[str, Recorded],
        rules: dict[str, Rule],
    ) -> None:
        self._number, self._handles, self._recordings, self._rules = number, handles, recordings, rules
        self._choices = tuple(item for item in chain if isinstance(item, _CHOICES))
        self._others = tuple(item for item in chain if not isinstance(item, _CHOICES))
        self._banned = tuple(sorted({e for item in chain if isinstance(item, BanExperts) for e in item.experts}))
        self._trace: RouterTrace | None = None
        self._positions: Tensor | None = None
        # Working out positions takes as long as forcing an expert, and most interventions do not ask where a token is.
        self._placed = any(isinstance(item, _BY_POSITION) or item.scope.positions is not None for item in chain)
        self._prepared: dict[tuple[int, ...], tuple[Choice, tuple[_Change, ...]]] = {}

    def __call__(
        self, context: SiteContext, logits: Tensor | None, indices: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        site = self._handles()[self._number].site
        logits = None if logits is None else expert_logits(site, logits)
        positions = self._where(context, site, indices) if self._placed else _NOWHERE
        phase = None if context.step is None else context.step.phase(site.stack)
        out = indices, weights
        choices = [item for item in self._choices if _in_phase(item, phase)]
        if choices:
            out = self._choose(site, context, logits, indices, weights, choices, positions)
        for item in self._others:
            if _in_phase(item, phase):
                changed = self._change(item, site, logits, *out, positions)
                rows = _rows(item, positions)
                out = changed if rows is None else _merge(rows, changed, out)
        return out

    def _where(self, context: SiteContext, site: Site, indices: Tensor) -> Tensor:
        rows = indices.shape[0]
        if context.step is not None:
            self._positions = context.step.positions(site.stack, rows, indices.device)
        elif self._positions is None or self._positions.shape[0] != rows:
            self._positions = torch.arange(rows, device=indices.device)
        # Outside of a step the routing is a gradient checkpoint's recomputation: the positions are those of before.
        return self._positions

    def _choose(
        self,
        site: Site,
        context: SiteContext,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        choices: Sequence[Intervention],
        positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ranges = sorted({item.scope.positions for item in choices if item.scope.positions is not None}, key=str)
        if not ranges:
            return self._route(site, context, logits, indices, weights, choices, positions)
        out = indices, weights
        for pattern in product((False, True), repeat=len(ranges)):
            inside = {span for span, on in zip(ranges, pattern) if on}
            active = [item for item in choices if item.scope.positions is None or item.scope.positions in inside]
            if not active:
                continue
            chosen = self._route(site, context, logits, indices, weights, active, positions)
            rows = torch.ones_like(positions, dtype=torch.bool)
            for span, on in zip(ranges, pattern):
                rows &= _within(span, positions) == on
            out = _merge(rows, chosen, out)
        return out

    def _route(
        self,
        site: Site,
        context: SiteContext,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        active: Sequence[Intervention],
        positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The routing of all rows under these choices, by the best rule there is."""
        choice, changes = self._prepare(site, active, indices.shape[-1])

        def change(values: Tensor) -> Tensor:
            for function in changes:
                values = function(values, positions)
            return values

        if self._trace is None:
            self._trace = trace_router(context, logits, indices)
        numeric = logits is not None and has_numeric_rule(site)
        if choice.forced is None or not numeric:
            # A forced expert outside the chosen groups would get weight zero from the router itself.
            found = reroute(context, self._trace, indices, select=choice.select, change=change if changes else None)
            if found is not None:
                self._rules[site.name] = "reroute"
                if site.groups == 1 and choice.forced is None:
                    return self._fitted(found, indices, weights)  # nothing shuts others out: none of them is banned
                routed = self._settle(found, choice, indices, weights)
                if not choice.banned or site.groups == 1:
                    return routed
                # Bans may have used up a group: rows that kept a banned expert choose among all others instead.
                fallback = self._by_logits(site, logits, indices, weights, choice, change)
                return _merge(choice.allowed(found[0]).all(-1), routed, fallback)
        self._rules[site.name] = "numeric" if numeric else "keep_mass"
        return self._by_logits(site, logits, indices, weights, choice, change)

    def _prepare(self, site: Site, active: Sequence[Intervention], slots: int) -> tuple[Choice, tuple[_Change, ...]]:
        """The choice that these make together, gathered once."""
        key = (slots, *map(id, active))
        found = self._prepared.get(key)
        if found is None:
            choice = Choice(site.num_experts, slots)
            changes: list[_Change] = []
            for item in active:
                _gather(item, choice, changes, site)
            found = self._prepared[key] = choice, tuple(changes)
        return found

    def _by_logits(
        self,
        site: Site,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        choice: Choice,
        change: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Choose by the logits alone, and weigh by the numeric rule or keep the mass."""
        if logits is None and choice.forced is None:
            # Nothing ranks the experts: what is banned or too much falls silent, the others keep the mass.
            allowed = choice.allowed(indices)
            allowed[:, choice.k :] = False
            kept = silence(weights, allowed)
            total, left = weights.sum(-1, keepdim=True), kept.sum(-1, keepdim=True)
            return indices, torch.where(left != 0, kept * (total / torch.where(left != 0, left, total)), kept)
        ranked = change(logits.float()) if logits is not None else weights.new_zeros(indices.shape[0], site.num_experts)
        chosen = choice.select(ranked[:, : site.num_experts])
        if logits is not None and has_numeric_rule(site):
            found = numeric_weights(site, ranked, chosen, weights)
        else:
            found = kept_mass(weights, chosen.shape[-1])
        return self._settle((chosen, found), choice, indices, weights)

    @staticmethod
    def _settle(
        routing: tuple[Tensor, Tensor], choice: Choice, indices: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        chosen, found = routing
        if choice.banned:
            found = silence(found, choice.allowed(chosen))
        return _SiteFunction._fitted((chosen, found), indices, weights)

    @staticmethod
    def _fitted(routing: tuple[Tensor, Tensor], indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        chosen, found = fit(*routing, indices.shape[-1])
        return chosen.to(indices.dtype), found.to(weights.dtype)

    def _change(
        self,
        item: Intervention,
        site: Site,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if isinstance(item, ScaleExperts):
            return scale_experts(indices, weights, item.experts, item.factor)
        if isinstance(item, SwapExperts):
            return swap_experts(indices, weights, item.a, item.b)
        if isinstance(item, UniformRouting):
            return uniform_weights(indices, weights)
        if isinstance(item, RandomRouting):
            return random_experts(indices, weights, site.num_experts, item.seed, site.index, positions, self._banned)
        if isinstance(item, ExpertCapacity):
            return limit_capacity(indices, weights, site.num_experts, item.factor, positions >= 0)
        assert isinstance(item, ReplayRouting)
        return self._replay(item, site, logits, indices, weights, positions)

    def _replay(
        self,
        item: ReplayRouting,
        site: Site,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        found = self._recordings[item.source](site, positions)
        if found is None:
            return indices, weights
        chosen, recorded, known = found
        unknown = recorded.isnan().any(-1, keepdim=True)
        if logits is not None and has_numeric_rule(site):
            own = numeric_weights(site, logits, chosen, weights)
        else:
            own = kept_mass(weights, chosen.shape[-1])
        # A recording of ids alone has no weights: the router's own rule supplies them.
        weighted = torch.where(unknown, own, recorded.to(own.dtype))
        weighted = silence(weighted, ~among(chosen, self._banned))
        chosen, weighted = fit(chosen.to(indices.dtype), weighted.to(weights.dtype), indices.shape[-1])
        return _merge(known, (chosen, weighted), (indices, weights))


def _gather(item: Intervention, choice: Choice, changes: list[_Change], site: Site) -> None:
    if isinstance(item, ForceExperts):
        choice.force(item.experts)
    elif isinstance(item, BanExperts):
        choice.ban(item.experts)
    elif isinstance(item, BoostExperts):
        choice.boost(item.experts, item.bias)
    elif isinstance(item, SetTopK):
        choice.limit(item.k)
    elif isinstance(item, RouterTemperature):
        temperature = item.temperature
        changes.append(lambda values, _: values / temperature)
    elif isinstance(item, RouterNoise):
        sigma, seed = item.sigma, item.seed
        number = site.index
        changes.append(lambda values, at: values + sigma * normal(seed, number, at, values.shape[-1]))


def _in_phase(item: Intervention, phase: Phase | None) -> bool:
    return item.scope.phase is None or phase is None or item.scope.phase == phase


def _rows(item: Intervention, positions: Tensor) -> Tensor | None:
    return None if item.scope.positions is None else _within(item.scope.positions, positions)


def _within(span: tuple[int, int | None], positions: Tensor) -> Tensor:
    inside = positions >= span[0]
    return inside if span[1] is None else inside & (positions < span[1])


def _merge(rows: Tensor, chosen: tuple[Tensor, Tensor], otherwise: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    slots = max(chosen[0].shape[-1], otherwise[0].shape[-1])
    first, second = fit(*chosen, slots), fit(*otherwise, slots)
    mask = rows.unsqueeze(-1)
    return torch.where(mask, first[0], second[0]), torch.where(mask, first[1], second[1])
