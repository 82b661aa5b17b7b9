"""Routes a site's tokens under choices (force, ban, boost, top-k, temperature, noise), by the best rule there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from moetui.engine.adapters.base import Direct, SiteContext
from moetui.engine.interventions.choice import Choice, fit, merge, preferring
from moetui.engine.interventions.direct import forcing, rankings, where_chosen
from moetui.engine.interventions.noise import normal
from moetui.engine.interventions.reroute import RouterTrace, reroute, trace_router
from moetui.engine.interventions.weights import cast, has_numeric_rule, kept_mass, numeric_weights, silence
from moetui.routing import Site
from moetui.routing.interventions import (
    BanExperts,
    BoostExperts,
    ForceExperts,
    Intervention,
    RouterNoise,
    RouterTemperature,
    SetTopK,
)

Rule = Literal["numeric", "reroute", "keep_mass"]
"""How a changed choice got its weights: the site's numeric rule, its router run again, the token's mass kept."""

CHOICES = (ForceExperts, BanExperts, BoostExperts, SetTopK, RouterTemperature, RouterNoise)
"""The interventions that act together on what is chosen."""

_Change: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(logits [T, E], positions [T]) -> [T, E]``."""

_PROOF = 16  # tokens after which two ways that agreed bit for bit are the same, and the quicker one is taken


@dataclass(slots=True)
class _Prepared:
    """Choices that act together.

    Attributes:
        site: as known when they were.
        active, slots: which they are, and how many slots the model has there.
        choice: what they make of the selection.
        changes: what they do to the logits before it.
        numeric: whether the site has a numeric rule.
        agreed: tokens for which the site's logits and numeric rule gave what its router run again gave, bit for bit;
            -1 once they did not, or where the order of the logits is not what selects.
        ways: the shortest ones to what the logits and the rule give, the first to be taken; None until looked for.
        told: whether it was noted that the numeric rule is what weighs.
        taken: whether the latest pass took the numeric rule alone: a gradient checkpoint's recomputation does the same.
    """

    site: Site
    active: Sequence[Intervention]
    slots: int
    choice: Choice
    changes: tuple[_Change, ...]
    numeric: bool
    agreed: int
    ways: list[Direct] | None = None
    told: bool = False
    taken: bool = False

    @property
    def proven(self) -> bool:
        """Whether the router need not run again: its logits and the rule give the same, or all that can be given."""
        # A forced expert outside the chosen groups would get weight zero from the router itself.
        return self.numeric and (self.choice.forced is not None or self.agreed >= _PROOF)

    def changed(self, logits: Tensor, positions: Tensor) -> Tensor:
        """The logits ``[T, E]`` that count."""
        for change in self.changes:
            logits = change(logits, positions)
        return logits

    def compare(self, own: tuple[Tensor, Tensor], numeric: tuple[Tensor, Tensor]) -> None:
        """Hold the two ways against each other. Waits for the device."""
        if all(map(torch.equal, own, numeric)):
            self.agreed += own[0].shape[0]
        elif self.ways and len(self.ways) > 1:
            del self.ways[0]
            self.agreed = 0
        else:
            self.agreed = -1


class Chooser:
    """The choices of one site.

    Args:
        rules: site name → how weights were found there; written to.
    """

    def __init__(self, rules: dict[str, Rule]) -> None:
        self._rules = rules
        self._trace: RouterTrace | None = None
        self._looks_up = False
        self._ranked = 0  # tokens whose experts were those of the largest logits, where no topk was found
        self._prepared: dict[tuple[int, ...], _Prepared] = {}
        self._last: _Prepared | None = None

    def route(
        self,
        site: Site,
        context: SiteContext,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        active: Sequence[Intervention],
        positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The routing ``[T, K]`` of all rows under these choices.

        Args:
            site: as known by now.
            context: of this routing.
            logits: ``[T, E]``, None where there are none.
            indices: ``[T, K]`` what the model chose, with ``weights``.
            active: the choices, in order.
            positions: ``[T]``, read only by choices that depend on them.
        """
        made = self._last
        if made is None or made.site is not site or made.active is not active or made.slots != indices.shape[-1]:
            made = self._last = self._prepare(site, active, indices.shape[-1])
        numeric, again = logits is not None and made.numeric, context.step is None
        if not again:
            made.taken = made.proven
        if not numeric or not made.taken:
            found = self._reroute(site, context, logits, indices, weights, made, positions)
            if found is not None:
                if numeric and made.agreed >= 0 and not again:
                    with torch.no_grad():
                        made.compare(found, self._by_rule(site, logits, indices, weights, made, positions))
                self._rules[site.name] = "numeric" if made.proven else "reroute"
                return found
        if not made.told:
            self._rules[site.name] = "numeric" if numeric else "keep_mass"
            made.told = numeric
        return self._by_rule(site, logits, indices, weights, made, positions)

    @property
    def direct(self) -> Direct | None:
        """What gives the routing of the latest choices without anything else having to be looked at, if it can."""
        made = self._last
        if made is None or not made.ways or not made.told or not made.proven:
            return None
        choice, direct = made.choice, made.ways[0]
        return where_chosen(frozenset(choice.banned), direct) if choice.forced is None else direct

    def _reroute(
        self,
        site: Site,
        context: SiteContext,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        made: _Prepared,
        positions: Tensor,
    ) -> tuple[Tensor, Tensor] | None:
        """What the router gives when it is run again under these choices; None where it cannot be."""
        choice = made.choice
        if self._trace is None:
            self._trace = trace_router(context, logits, indices)
        looks = self._trace.choice is None and logits is not None and site.kind == "indexed"
        if looks and self._ranked < _PROOF and context.step is not None:
            assert logits is not None
            self._looks_up = self._looks_up or not _ranks(site, logits, indices)
            self._ranked += indices.shape[0]
        change = (lambda values: made.changed(values, positions)) if made.changes else None
        # A router that chooses by no topk follows other logits all the same.
        own = self._trace.choice is None and choice.free and choice.k == made.slots
        found = reroute(context, self._trace, indices, select=None if own else choice.select, change=change)
        if found is None:
            return None
        if site.groups == 1 and choice.forced is None:
            return _fitted(found, indices, weights)  # nothing shuts experts out: none that was chosen is banned
        routed = _settle(found, choice, indices, weights)
        if site.groups == 1:
            return routed
        # Groups shut experts out, as minus infinity or as weight zero. Where bans used up a group, more experts are
        # wanted than it has, or a forced one is none of it, the token's are chosen and weighed without groups.
        whole = choice.allowed(found[0]).all(-1) & (found[1] != 0).all(-1)
        return merge(whole, routed, self._by_rule(site, logits, indices, weights, made, positions))

    def _prepare(self, site: Site, active: Sequence[Intervention], slots: int) -> _Prepared:
        """The choice that these make together, gathered once."""
        key = (slots, *map(id, active))
        found = self._prepared.get(key)
        if found is not None and found.site is not site:
            found.site, found.numeric, found.told, found.ways = site, has_numeric_rule(site), False, None
        if found is None:
            choice = Choice(site.num_experts, slots)
            changes: list[_Change] = []
            for item in active:
                _gather(item, choice, changes, site)
            found = self._prepared[key] = _Prepared(
                site,
                active,
                slots,
                choice,
                tuple(changes),
                has_numeric_rule(site),
                0 if _plain(site, choice) else -1,
            )
        return found

    def _by_rule(
        self,
        site: Site,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        made: _Prepared,
        positions: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What the logits and the rule give; without either, what comes closest."""
        if logits is not None and not self._looks_up:
            if made.ways is None:
                made.ways = _ways(made, logits, indices)
            found = made.ways[0](logits, indices, weights) if made.ways else None
            if found is not None:
                return found
        ranked = None if logits is None else made.changed(cast(logits, torch.float32), positions)
        return self._by_logits(site, ranked, indices, weights, made.choice)

    def _by_logits(
        self, site: Site, ranked: Tensor | None, indices: Tensor, weights: Tensor, choice: Choice
    ) -> tuple[Tensor, Tensor]:
        """Choose by the logits alone, and weigh by the numeric rule or keep the mass."""
        if ranked is None and choice.forced is None:
            # Nothing ranks the experts: what is banned or too much falls silent, the others keep the mass.
            allowed = choice.allowed(indices)
            allowed[:, choice.k :] = False
            kept = silence(weights, allowed)
            total, left = weights.sum(-1, keepdim=True), kept.sum(-1, keepdim=True)
            return indices, torch.where(left != 0, kept * (total / torch.where(left != 0, left, total)), kept)
        if ranked is None:
            chosen = choice.select(weights)
        else:
            scores = _experts_of(site, ranked)
            chosen = choice.select(preferring(scores, indices, weights != 0) if self._looks_up else scores)
        if ranked is not None and has_numeric_rule(site):
            # What the router chose itself when run again has to go on bit for bit when it no longer is.
            found = numeric_weights(site, ranked, chosen, weights, as_routers=choice.forced is None)
        else:
            found = kept_mass(weights, chosen.shape[-1])
        return _fitted((chosen, found), indices, weights)


def _plain(site: Site, choice: Choice) -> bool:
    """Whether the order of the logits may be what selects."""
    return site.groups == 1 and not site.selection_bias and site.zero_experts == 0 and not choice.bias


def _ranks(site: Site, logits: Tensor, indices: Tensor) -> bool:
    """Whether the logits choose a call's experts, and not for instance a table by token. Waits for the device."""
    best = torch.topk(_experts_of(site, logits.detach()), min(indices.shape[-1], site.num_experts), dim=-1).indices
    return torch.equal(best.sort(-1).values, indices.long().sort(-1).values)


def _ways(made: _Prepared, logits: Tensor, indices: Tensor) -> list[Direct]:
    if made.changes or not made.numeric:
        return []
    if made.choice.forced is not None:
        found = forcing(made.site, made.choice, logits, indices)
        return [] if found is None else [found]
    return rankings(made.site, made.choice, made.slots) if _plain(made.site, made.choice) else []


def _experts_of(site: Site, ranked: Tensor) -> Tensor:
    return ranked if ranked.shape[-1] == site.num_experts else ranked[:, : site.num_experts]


def _settle(routing: tuple[Tensor, Tensor], choice: Choice, indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    chosen, found = routing
    if choice.banned:
        found = silence(found, choice.allowed(chosen))
    return _fitted((chosen, found), indices, weights)


def _fitted(routing: tuple[Tensor, Tensor], indices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    chosen, found = fit(*routing, indices.shape[-1])
    return cast(chosen, indices.dtype), cast(found, weights.dtype)


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
