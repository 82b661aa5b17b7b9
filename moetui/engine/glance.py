"""A look at a pass that is not recorded yet: at a decode step right behind it, or at one that stands before a site."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from time import perf_counter_ns
from typing import Any, TypeVar

import torch
from torch import Tensor

from moetui.engine.adapters.base import SiteContext
from moetui.engine.assemble import Assembler
from moetui.engine.gather import Gatherer, SiteTensors
from moetui.engine.inputs import TokenInputs
from moetui.engine.raw import RawStep
from moetui.routing import TimelineView
from moetui.routing.timeline import view_of

_Held = TypeVar("_Held", SiteTensors, TokenInputs)


@dataclass(frozen=True, slots=True)
class Glance:
    """One pass.

    To record one that has ended would take several times as long, and so would to have the recorder's thread do it and
    wait for that.

    Attributes:
        raw: the pass.
        gatherer, assembler: what its recorder works with.
    """

    raw: RawStep
    gatherer: Gatherer
    assembler: Assembler

    def view(self, *, scores: bool) -> TimelineView | None:
        """The token of a decode step, as number 0 of a view that has nothing else.

        Known of it is all that will be recorded but for probabilities, its number in the timeline and whether it is
        padding behind the end of its sequence. None for a pass of several tokens, on another device than the host, or
        that has to be decoded or studied first.

        Args:
            scores: whether ``TokenColumns`` has entropy, confidence and margin, or NaN.
        """
        if torch.is_grad_enabled() or not _is_one_token(self.raw):
            return None
        columns = self.gatherer.columns([self.raw])
        if columns is None:
            return None
        return view_of(self.assembler.glimpse(self.raw, columns, scores=scores), self.assembler.described())

    def so_far(self, context: SiteContext) -> TimelineView | None:
        """The tokens that stand before a site, with the routing of the sites that they passed and what that one gave.

        They are numbered from 0 in a view that has nothing else. At the site that they stand before, the routing is the
        router's own: what interventions make of it is known when they go on. Unknown are probabilities, durations, and
        which tokens are padding behind the end of their sequence. Waits for the device.

        Returns:
            None where nothing tells how many tokens there are.
        """
        assert context.routing is not None
        number, stack = context.site.index, context.site.stack
        handle, output = context.handle, context.call.output
        logits = None if output is None else handle.adapter.logits(handle, output)
        here = SiteTensors(number, perf_counter_ns(), *handle.adapter.decode(handle, *context.routing), logits)
        gathered = self.gatherer.gather(self.raw)
        others = [site for site in gathered.sites if site.number != number]  # of a site that is called again, its last
        sites = [_on_host(site) for site in sorted((*others, here), key=lambda site: site.number)]
        inputs = self.raw.inputs.get(stack)
        steps = self.assembler.so_far(self.raw, stack, sites, None if inputs is None else _on_host(inputs))
        return None if steps is None else view_of(steps, self.assembler.described())


def _on_host(held: _Held) -> _Held:
    """The same with every tensor on the host and without a graph."""
    values: dict[str, Any] = {field.name: getattr(held, field.name) for field in fields(held)}
    moved = {name: value.detach().cpu() for name, value in values.items() if isinstance(value, Tensor)}
    return replace(held, **{**values, **moved})


def _is_one_token(raw: RawStep) -> bool:
    """Whether a pass added one token to the one sequence of the decoder, on the host."""
    inputs = raw.inputs.get("decoder")
    if inputs is None or len(raw.inputs) != 1 or inputs.shape != (1, 1) or raw.probes:
        return False
    if isinstance(inputs.past, Tensor) or inputs.past == 0:
        return False
    return raw.on_host and all(isinstance(value, Tensor) for value in raw.first if value is not None)
