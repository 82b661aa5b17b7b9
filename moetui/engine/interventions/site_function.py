"""The function that changes one site's routing, by the rule that its first calls told, intervention by intervention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, TypeAlias

import torch
from torch import Tensor

from moetui.engine.adapters.base import Direct, SiteContext, SiteHandle
from moetui.engine.adapters.indexed import masks_skip
from moetui.engine.interventions.again import choose_again
from moetui.engine.interventions.choice import fit, listed, merge
from moetui.engine.interventions.chooser import CHOICES, Chooser, Rule
from moetui.engine.interventions.transforms import (
    limit_capacity,
    random_experts,
    scale_experts,
    swap_experts,
    uniform_weights,
)
from moetui.engine.interventions.weights import expert_logits, has_numeric_rule, kept_mass, numeric_weights, silence
from moetui.engine.scoring import Rule as Scored
from moetui.engine.scoring import expert_scale, find_form, find_rule, with_rule
from moetui.routing import Phase, Site
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

Recorded: TypeAlias = Callable[[Site, Tensor, int], "tuple[Tensor, Tensor, Tensor] | None"]
"""``(site, positions [T], sequences) -> (indices [T, K], weights [T, K], known [T])`` of a recording.

The tokens are those of so many sequences, one after the other and of equal length; 0 where that cannot be told. Slots
of weight 0 are empty ones; weights that the recording lacks are NaN. None where nothing is known of the site or its
tokens.
"""

_NOWHERE = torch.empty(0, dtype=torch.int64)  # the positions of tokens where nothing asks for them
_BY_POSITION = (RouterNoise, RandomRouting, ExpertCapacity, ReplayRouting)
_ON_SCORES = (BoostExperts, RouterTemperature, RouterNoise)  # they act before anything is chosen
_SAMPLE = 64  # tokens looked at


class SiteFunction:
    """The routing function of one site.

    Attributes:
        direct: see ``Directing``.
    """

    def __init__(
        self,
        number: int,
        chain: tuple[Intervention, ...],
        handles: Callable[[], Sequence[SiteHandle]],
        recordings: Mapping[str, Recorded],
        rules: dict[str, Rule],
    ) -> None:
        self._number, self._handles, self._recordings = number, handles, recordings
        self._chooser = Chooser(rules)
        self._choices, self._others = _in_order(chain)
        self._bans = tuple(item for item in chain if isinstance(item, BanExperts))
        self._site: Site | None = None
        self._unsettled: Site | None = None
        self._samples: tuple[Tensor, Tensor, Tensor] | None = None
        self._positions: Tensor | None = None
        self._sequences, self._several = 1, False
        self.direct: Direct | None = None
        # Working out positions takes as long as forcing an expert, and most interventions do not ask where a token is.
        self._placed = any(isinstance(item, _BY_POSITION) or item.scope.positions is not None for item in chain)
        self._phased = any(item.scope.phase is not None for item in chain)
        self._plain = bool(self._choices) and not (self._others or self._placed or self._phased)

    def __call__(
        self, context: SiteContext, logits: Tensor | None, indices: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See ``RoutingFunction``."""
        site = self._site or self._look(context, logits, indices, weights)
        logits = None if logits is None else expert_logits(site, logits)
        if self._plain:
            out = self._chooser.route(site, context, logits, indices, weights, self._choices, _NOWHERE)
            if self.direct is None and _are_first(context.call.output, logits):
                self.direct = self._chooser.direct
            return out
        positions = self._where(context, site, indices) if self._placed else _NOWHERE
        phase = context.step.phase(site.stack) if self._phased and context.step is not None else None
        out = indices, weights
        choices = self._choices if phase is None else tuple(item for item in self._choices if _in_phase(item, phase))
        if choices:
            out = self._choose(site, context, logits, indices, weights, choices, positions)
        for item in self._others:
            if _in_phase(item, phase):
                changed = self._change(item, site, logits, *out, positions, phase)
                rows = _rows(item, positions)
                out = changed if rows is None else merge(rows, changed, out)
        return out

    def _look(self, context: SiteContext, logits: Tensor | None, indices: Tensor, weights: Tensor) -> Site:
        """The site with its scoring rule, from these very calls where the first of them came before it was known.

        What a run computes must not hang on when the recorder's thread finds it out. Waits for the device.
        """
        if context.step is None and self._unsettled is not None:
            return self._unsettled  # a gradient checkpoint's recomputation does what the pass did
        handle = self._handles()[self._number]
        site = handle.site
        if self._samples is None and site.scoring != "unknown":
            self._site = site
            return site
        if site.kind == "product_key":
            # By this very rule its adapter forms the weights that are shown, from what ``expert_logits`` gives.
            self._site = replace(site, scoring="softmax_top_k", normalised=True, scale=1.0)
            return self._site
        if logits is None or logits.shape[0] != indices.shape[0]:
            self._site = replace(site, scoring="unknown", normalised=None, scale=None)
            return self._site
        logits, indices, weights = (tensor[:_SAMPLE].detach().cpu() for tensor in (logits, indices, weights))
        if self._samples is not None:
            logits, indices, weights = map(torch.cat, zip(self._samples, (logits, indices, weights)))
        self._samples = logits, indices, weights
        scale = expert_scale(handle.router)
        rule = find_rule(logits, indices, weights, scale)
        if rule is not None or logits.shape[0] > _SAMPLE:
            form = find_form(logits, None)
            self._site = with_rule(site, rule or Scored(), form, by_expert=scale is not None)
            return self._site
        self._unsettled = replace(site, scoring="unknown", normalised=None, scale=None)
        return self._unsettled

    def _where(self, context: SiteContext, site: Site, indices: Tensor) -> Tensor:
        rows = indices.shape[0]
        if context.step is not None:
            vision = "vision" in site.name
            self._positions = context.step.positions(site.stack, rows, indices.device, vision=vision)
            self._several = self._several or context.step.passed(self._number)
            self._sequences = 0 if self._several else context.step.sequences(site.stack, rows)
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
        spans = {item.scope.positions for item in choices if item.scope.positions is not None}
        if not spans:
            return self._chooser.route(site, context, logits, indices, weights, choices, positions)
        ranges = sorted(spans, key=str)
        out = indices, weights
        for pattern in product((False, True), repeat=len(ranges)):
            inside = {span for span, on in zip(ranges, pattern) if on}
            active = [item for item in choices if item.scope.positions is None or item.scope.positions in inside]
            if not active:
                continue
            chosen = self._chooser.route(site, context, logits, indices, weights, active, positions)
            rows = torch.ones_like(positions, dtype=torch.bool)
            for span, on in zip(ranges, pattern):
                rows &= _within(span, positions) == on
            out = merge(rows, chosen, out)
        return out

    def _change(
        self,
        item: Intervention,
        site: Site,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        positions: Tensor,
        phase: Phase | None,
    ) -> tuple[Tensor, Tensor]:
        if isinstance(item, ForceExperts | BanExperts | SetTopK):
            return choose_again(item, site, logits, indices, weights)
        if isinstance(item, ScaleExperts):
            return scale_experts(indices, weights, item.experts, item.factor)
        if isinstance(item, SwapExperts):
            return swap_experts(indices, weights, item.a, item.b)
        if isinstance(item, UniformRouting):
            return uniform_weights(indices, weights)
        if isinstance(item, RandomRouting):
            shut = self._shut(site, positions, phase)
            return random_experts(indices, weights, site.num_experts, item.seed, site.index, positions, shut)
        if isinstance(item, ExpertCapacity):
            return limit_capacity(indices, weights, site.num_experts, item.factor, positions >= 0)
        assert isinstance(item, ReplayRouting)
        return self._replay(item, site, logits, indices, weights, positions, self._shut(site, positions, phase))

    def _shut(self, site: Site, positions: Tensor, phase: Phase | None) -> Tensor | None:
        """``[T, E]`` or ``[1, E]`` which experts are banned for which tokens; None for none."""
        shut: Tensor | None = None
        for item in self._bans:
            if not _in_phase(item, phase):
                continue
            banned = torch.zeros(1, site.num_experts, dtype=torch.bool, device=positions.device)
            banned.index_fill_(1, listed(item.experts, positions.device), True)
            rows = _rows(item, positions)
            here = banned if rows is None else banned & rows.unsqueeze(-1)
            shut = here if shut is None else shut | here
        return shut

    def _replay(
        self,
        item: ReplayRouting,
        site: Site,
        logits: Tensor | None,
        indices: Tensor,
        weights: Tensor,
        positions: Tensor,
        shut: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        found = self._recordings[item.source](site, positions, self._sequences)
        if found is None:
            return indices, weights
        chosen, recorded, known = found
        unknown = recorded.isnan().any(-1, keepdim=True)
        if logits is not None and has_numeric_rule(site):
            own = numeric_weights(site, logits, chosen, weights)
        else:
            own = kept_mass(weights, chosen.shape[-1])
        # A recording of ids alone has no weights: the router's own rule supplies them.
        weighted = torch.where(unknown, own.masked_fill(recorded == 0, 0.0), recorded.to(own.dtype))
        if masks_skip(self._handles()[self._number]):
            skipped = chosen >= site.num_experts  # the experts have no such row
            chosen, weighted = chosen.masked_fill(skipped, 0), weighted.masked_fill(skipped, 0.0)
        if shut is not None:
            closed = shut.expand(chosen.shape[0], -1).gather(-1, chosen.clamp(max=site.num_experts - 1))
            weighted = silence(weighted, ~closed | (chosen >= site.num_experts))
        chosen, weighted = fit(chosen.to(indices.dtype), weighted.to(weights.dtype), indices.shape[-1])
        return merge(known, (chosen, weighted), (indices, weights))


def _in_order(chain: tuple[Intervention, ...]) -> tuple[tuple[Intervention, ...], tuple[Intervention, ...]]:
    """What the router's choice is made under, and what then changes the routing, in order.

    A choice that stands behind what changes a routing chooses among what that left. Scaled weights alone are no reason
    to: but for a forced choice, which forgets them, it comes to the same, and the router's own rule weighs better.
    """
    first: list[Intervention] = []
    then: list[Intervention] = []
    for item in chain:
        scaled = all(isinstance(each, ScaleExperts) for each in then) and not (then and isinstance(item, ForceExperts))
        if isinstance(item, _ON_SCORES) or (isinstance(item, CHOICES) and scaled):
            first.append(item)
        else:
            then.append(item)
    return tuple(first), tuple(then)


def _are_first(output: Any, logits: Tensor | None) -> bool:
    """Whether logits are the first of what a router returned, as they are."""
    return logits is not None and type(output) is tuple and output[0] is logits


def _in_phase(item: Intervention, phase: Phase | None) -> bool:
    return item.scope.phase is None or phase is None or item.scope.phase == phase


def _rows(item: Intervention, positions: Tensor) -> Tensor | None:
    return None if item.scope.positions is None else _within(item.scope.positions, positions)


def _within(span: tuple[int, int | None], positions: Tensor) -> Tensor:
    inside = positions >= span[0]
    return inside if span[1] is None else inside & (positions < span[1])
