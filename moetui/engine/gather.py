"""From what the hooks kept to plain tensors: every site's routing decoded, still on its device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from moetui.engine.adapters.base import SiteHandle
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
    """A forward pass as tensors.

    Attributes:
        raw: the pass, for its numbers and times.
        sites: the sites that it reached.
        inputs: the tokens of each stack.
        prediction: only where it was worked out on the device.
        repeated: numbers of the sites that every token passed several times; ``sites`` has their last.
    """

    raw: RawStep
    sites: list[SiteTensors]
    inputs: dict[str, TokenInputs]
    prediction: Prediction | None = None
    repeated: tuple[int, ...] = ()


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
        sites = [self._site(raw, number, time) for number, time in enumerate(raw.times) if time]
        gathered = Gathered(raw, sites, raw.inputs)
        if raw.earlier:
            self._join_calls(raw, gathered)
        return gathered

    def _join_calls(self, raw: RawStep, gathered: Gathered) -> None:
        """Sites that were called several times: put pieces together, keep the last of whole passings."""
        for site in gathered.sites:
            earlier = raw.earlier.get(site.number, [])
            inputs = raw.inputs.get(self._handles[site.number].site.stack)
            whole = None if inputs is None or inputs.shape is None else inputs.shape[0] * inputs.shape[1]
            if not earlier:
                continue
            if site.indices.shape[0] == whole:
                gathered.repeated += (site.number,)
                continue
            pieces = [self._decoded(site.number, site.time, *call) for call in earlier]
            site.indices = torch.cat([*(piece.indices for piece in pieces), site.indices])
            site.weights = torch.cat([*(piece.weights for piece in pieces), site.weights])
            logits = [piece.logits for piece in (*pieces, site) if piece.logits is not None]
            site.logits = torch.cat(logits) if len(logits) == len(pieces) + 1 else None

    def _site(self, raw: RawStep, number: int, time: int) -> SiteTensors:
        first, second, output = raw.first[number], raw.second[number], raw.outputs[number]
        output = output if self._wants_logits else None
        if self._plain[number] and not raw.before and not raw.earlier:
            if output is None:
                return SiteTensors(number, time, first, second)
            if type(output) is tuple and output[0].dim() == 2:
                return SiteTensors(number, time, first, second, output[0])
        tensors = self._decoded(number, time, first, second, output)
        if number in raw.before:
            handle = self._handles[number]
            tensors.before_indices, tensors.before_weights = handle.adapter.decode(handle, *raw.before[number])
        return tensors

    def _decoded(self, number: int, time: int, first: Any, second: Any, output: Any) -> SiteTensors:
        handle = self._handles[number]
        indices, weights = handle.adapter.decode(handle, first, second)
        wanted = output is not None and self._wants_logits
        return SiteTensors(number, time, indices, weights, handle.adapter.logits(handle, output) if wanted else None)


def each_tensor(gathered: Gathered, function: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor of a gathered pass by what ``function`` makes of it."""
    holders: list[Any] = [*gathered.sites, *gathered.inputs.values()]
    if gathered.prediction is not None:
        holders.append(gathered.prediction)
    raw = gathered.raw
    raw.extras = [(kind, number, tuple(map(function, tensors))) for kind, number, tensors in raw.extras]
    for holder in holders:
        for field in fields(holder):
            value = getattr(holder, field.name)
            if isinstance(value, Tensor):
                setattr(holder, field.name, function(value))
