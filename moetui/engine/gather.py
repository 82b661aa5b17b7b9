"""From what the hooks kept to plain tensors: every site's routing decoded, still on its device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moetui.engine.adapters.base import SiteHandle
from moetui.engine.inputs import TokenInputs
from moetui.engine.predict import Prediction
from moetui.engine.raw import SEEN, RawStep


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


@dataclass(slots=True, eq=False)
class SiteColumns:
    """The routing of N passes at the n sites that all of them reached, with every token.

    Attributes:
        numbers: of the sites.
        times: ``[N, n]`` as in ``SiteTensors``.
        indices, weights, logits: N · n tensors as in ``SiteTensors``, pass by pass.
        changed: numbers of the sites whose routing a function changed, c of them.
        was_indices, was_weights: N · c tensors, the same before that.
    """

    numbers: list[int]
    times: NDArray[np.int64]
    indices: list[Tensor]
    weights: list[Tensor]
    logits: list[Tensor | None]
    changed: list[int] = field(default_factory=list)
    was_indices: list[Tensor] = field(default_factory=list)
    was_weights: list[Tensor] = field(default_factory=list)

    @staticmethod
    def of(sites: Sequence[SiteTensors], passes: int) -> SiteColumns:
        """From what was gathered pass by pass."""
        each = len(sites) // passes
        return SiteColumns(
            [site.number for site in sites[:each]],
            np.array([site.time for site in sites], np.int64).reshape(passes, each),
            [site.indices for site in sites],
            [site.weights for site in sites],
            [site.logits for site in sites],
            [site.number for site in sites[:each] if site.before_indices is not None],
            [site.before_indices for site in sites if site.before_indices is not None],
            [site.before_weights for site in sites if site.before_weights is not None],
        )


class Gatherer:
    """Decodes passes of one model.

    Args:
        handles: the sites.
        wants_logits: whether to keep the routers' logits.
        layers: of the sites that are kept; None for all.
    """

    def __init__(
        self, handles: tuple[SiteHandle, ...], wants_logits: bool = True, layers: tuple[int, ...] | None = None
    ) -> None:
        self._handles, self._wants_logits = handles, wants_logits
        self._plain = [handle.adapter.is_plain(handle) for handle in handles]
        self._columnar = [
            plain and handle.site.stack == "decoder" and (layers is None or handle.site.layer in layers)
            for plain, handle in zip(self._plain, handles)
        ]

    def gather(self, raw: RawStep) -> Gathered:
        """Decode a pass. Nothing here waits for a device."""
        sites = [self._site(raw, number, time) for number, time in enumerate(raw.times) if time]
        for inputs in raw.inputs.values():
            inputs.place()  # a 4-D mask is too large to go to the host
        gathered = Gathered(raw, sites, raw.inputs)
        if raw.earlier:
            self._join_calls(raw, gathered)
        return gathered

    def columns(self, raws: Sequence[RawStep]) -> SiteColumns | None:
        """The same for the decoder's passes on the host, alike in their sites and rows, by column.

        None where something has to be decoded, put together or left out first.
        """
        first = raws[0]
        times, indices, returned = first.times, first.first, first.outputs
        numbers = [number for number, time in enumerate(times) if time]
        if first.earlier or not numbers or not all(self._columnar[number] for number in numbers):
            return None
        inputs = first.inputs["decoder"]
        rows = 0 if inputs.shape is None else inputs.shape[0] * inputs.shape[1]
        outputs = [returned[number] for number in numbers] if self._wants_logits else []
        if not all(_starts_with_logits(output) for output in outputs):
            return None
        if any(indices[number].shape[0] != rows for number in numbers):
            return None
        seen: list[Any] = []
        for raw in raws:
            seen += raw.seen
        if len(numbers) < len(times):
            places = range(0, len(seen), SEEN)
            kept = [place for place in places if seen[place + 1]]
            seen = [value for place in kept for value in seen[place : place + SEEN]]
        changed = sorted(first.before)
        return SiteColumns(
            numbers,
            np.array(seen[1::SEEN], np.int64).reshape(len(raws), len(numbers)),
            seen[2::SEEN],
            seen[3::SEEN],
            [output[0] for output in seen[0::SEEN]] if outputs else [],
            changed,
            [raw.before[number][0] for raw in raws for number in changed],
            [raw.before[number][1] for raw in raws for number in changed],
        )

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
        output, _, first, second = raw.seen[SEEN * number : SEEN * (number + 1)]
        output = output if self._wants_logits else None
        if self._plain[number] and not raw.before and not raw.earlier:
            if output is None:
                return SiteTensors(number, time, first, second)
            if _starts_with_logits(output):
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


def _starts_with_logits(output: Any) -> bool:
    """Whether a plain site's router returned ``[T, E]`` first: some give the indices first, or more dimensions."""
    return type(output) is tuple and output[0].dim() == 2 and output[0].is_floating_point()


def each_tensor(gathered: Gathered, function: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor of a gathered pass by what ``function`` makes of it."""
    holders: list[Any] = [*gathered.sites, *gathered.inputs.values()]
    if gathered.prediction is not None:
        holders.append(gathered.prediction)
    raw = gathered.raw
    raw.extras = tuple((kind, number, tuple(map(function, tensors))) for kind, number, tensors in raw.extras)
    for holder in holders:
        for name in (each.name for each in fields(holder)):
            value = getattr(holder, name)
            if isinstance(value, Tensor):
                setattr(holder, name, function(value))
