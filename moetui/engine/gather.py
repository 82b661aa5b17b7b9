"""From what the hooks kept to plain tensors: every site's routing decoded, still on its device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from moetui.engine.adapters.base import Seen, SiteHandle
from moetui.engine.predict import Prediction
from moetui.engine.raw import RawStep, TokenInputs


@dataclass(slots=True, eq=False)
class SiteTensors:
    """One passing of a site: ``[T, K]``, ``[T, K]``, ``[T, E]``; ``before_*`` where a function changed them."""

    number: int
    time: int
    indices: Tensor
    weights: Tensor
    logits: Tensor | None = None
    before_indices: Tensor | None = None
    before_weights: Tensor | None = None


@dataclass(slots=True, eq=False)
class Gathered:
    """A forward pass as tensors; ``prediction`` only where it was worked out on the device."""

    raw: RawStep
    sites: list[SiteTensors]
    inputs: dict[str, TokenInputs]
    prediction: Prediction | None = None


class Gatherer:
    """Decodes passes of one model.

    Args:
        handles: the sites.
        wants_logits: whether to keep the routers' logits.
    """

    def __init__(self, handles: tuple[SiteHandle, ...], wants_logits: bool = True) -> None:
        self._handles, self._wants_logits = handles, wants_logits
        self._plain = [handle.adapter.is_plain(handle) for handle in handles]

    def gather(self, raw: RawStep) -> Gathered:
        """Decode a pass. Nothing here waits for a device."""
        outputs = dict(raw.router_outputs) if self._wants_logits else {}
        sites = [self._site(seen, outputs.get(seen.number)) for seen in raw.seen]
        return Gathered(raw, sites, raw.inputs)

    def _site(self, seen: Seen, output: Any) -> SiteTensors:
        number = seen.number
        if self._plain[number] and seen.before is None and type(output) is tuple and output[0].dim() == 2:
            indices, weights = seen.routing
            return SiteTensors(number, seen.time, indices, weights, output[0])
        handle = self._handles[number]
        indices, weights = handle.adapter.decode(handle, seen.routing)
        logits = None if output is None else handle.adapter.logits(handle, output)
        tensors = SiteTensors(number, seen.time, indices, weights, logits)
        if seen.before is not None:
            tensors.before_indices, tensors.before_weights = handle.adapter.decode(handle, seen.before)
        return tensors


def each_tensor(gathered: Gathered, function: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor of a gathered pass by what ``function`` makes of it."""
    holders: list[Any] = [*gathered.sites, *gathered.inputs.values()]
    if gathered.prediction is not None:
        holders.append(gathered.prediction)
    for holder in holders:
        for field in fields(holder):
            value = getattr(holder, field.name)
            if isinstance(value, Tensor):
                setattr(holder, field.name, function(value))
