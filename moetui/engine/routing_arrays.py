"""The routing of one pass, or of several alike ones, as arrays over tokens, sites and slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moetui.engine.gather import SiteTensors
from moetui.engine.options import CaptureOptions
from moetui.routing import NO_EXPERT, Site, SiteFlag
from moetui.routing.step import F16, U8, U16, Bool

_LARGEST = np.float32(np.finfo(np.float16).max)


class RoutingArrays:
    """``indices``, ``weights`` and ``logits`` as in ``Step``, the passes' tokens one after the other.

    Args:
        sites: all sites of the model.
        options: whether there are weights and logits.
        rows: tokens of one pass.
        passes: how many passes, alike in their sites.
    """

    def __init__(self, sites: Sequence[Site], options: CaptureOptions, rows: int, passes: int) -> None:
        self._sites, self._options, self._rows, self._passes = sites, options, rows, passes
        self._slots = max(site.top_k for site in sites)
        self._classes = max(site.num_classes for site in sites)
        self.indices: U16 = np.empty((0, 0, 0), np.uint16)
        self.weights: F16 | None = None
        self.logits: F16 | None = None

    def fill(self, passed: list[SiteTensors]) -> None:
        """Take the sites that every token passed, pass by pass."""
        self._slots = max([self._slots, *(site.indices.shape[1] for site in passed)])
        numbers = [site.number for site in passed]
        slots = self._slots
        self.indices = self._stacked([site.indices for site in passed], numbers, slots, np.uint16, NO_EXPERT)
        if self._options.weights:
            self.weights = self._stacked([site.weights for site in passed], numbers, slots, np.float16, np.nan)
        if self._options.logits:
            logits = [site.logits for site in passed if site.logits is not None]
            numbers = [site.number for site in passed if site.logits is not None]
            self.logits = self._stacked(logits, numbers, self._classes, np.float16, np.nan)

    def fill_rows(self, part: SiteTensors, at: NDArray[np.intp]) -> None:
        """Take a site that only the tokens ``at`` passed."""
        number, slots = part.number, part.indices.shape[1]
        self.indices[at, number, :slots] = part.indices.numpy().astype(np.uint16)
        if self.weights is not None:
            self.weights[at, number, :slots] = half(part.weights)
        if self.logits is not None and part.logits is not None:
            self.logits[at, number, : part.logits.shape[1]] = half(part.logits)

    def flags(self, passed: list[SiteTensors]) -> U8:
        """``[T, S]`` ``SiteFlag`` bits."""
        flags: U8 = np.zeros(self.indices.shape[:2], np.uint8)
        each = max(1, len(passed) // self._passes)
        changed = [
            (slice(place // each * self._rows, (place // each + 1) * self._rows), site)
            for place, site in enumerate(passed)
            if site.before_indices is not None and site.indices.shape[0] == self._rows
        ]
        moves = _moves([site for _, site in changed])
        for (rows, site), (moved, _) in zip(changed, moves):
            flags[rows, site.number][moved] |= np.uint8(SiteFlag.FORCED)
        self._flag_dropped(flags, passed)
        self._flag_non_finite(flags, passed)
        for (rows, site), (_, silent) in zip(changed, moves):
            if silent is not None:
                self._empty(rows, site.number, silent)
        return flags

    def _empty(self, rows: slice, number: int, silent: Bool) -> None:
        """Slots whose weight an intervention made zero are empty: the experts named there add nothing."""
        slots = silent.shape[1]
        self.indices[rows, number, :slots][silent] = NO_EXPERT
        if self.weights is not None:
            self.weights[rows, number, :slots][silent] = np.nan

    def _flag_dropped(self, flags: U8, passed: list[SiteTensors]) -> None:
        if self.weights is None or not passed:
            return
        idle = self.weights == 0
        idle |= self.indices == NO_EXPERT
        if not idle.any():
            return
        # A class past the experts is a choice of its own: to skip.
        experts = np.array([site.num_experts for site in self._sites])
        idle &= (self.indices == NO_EXPERT) | (self.indices < experts[:, None])
        here = np.zeros(len(self._sites), np.bool_)
        here[[site.number for site in passed if site.indices.shape[0] == self._rows]] = True
        flags[idle.all(-1) & here] |= np.uint8(SiteFlag.DROPPED)

    def _flag_non_finite(self, flags: U8, passed: list[SiteTensors]) -> None:
        odd: Bool | None = None
        if self.weights is not None:
            widths = {site.number: int(site.weights.shape[1]) for site in passed}
            odd = _odd(self.weights, widths)
        if self.logits is not None:
            widths = {site.number: int(site.logits.shape[1]) for site in passed if site.logits is not None}
            found = _odd(self.logits, widths)
            odd = found if odd is None or found is None else odd | found
        if odd is not None:
            odd &= (self.indices != NO_EXPERT).any(-1)
            flags[odd] |= np.uint8(SiteFlag.NON_FINITE)

    def _stacked(self, tensors: list[Tensor], numbers: list[int], width: int, dtype: Any, fill: float) -> Any:
        """Sites' ``[rows, k]`` tensors as one array, ``fill`` where a site has none or is narrower."""
        rows, passes, sites = self._rows, self._passes, len(self._sites)
        shape = (rows * passes, sites, width)
        if not tensors:
            return np.full(shape, fill, dtype)
        each = len(tensors) // passes
        if len({tensor.shape[1] for tensor in tensors}) == 1 and len({tensor.dtype for tensor in tensors}) == 1:
            values = _host(torch.stack(tensors), dtype)
            values = values.reshape(passes, each, rows, -1).swapaxes(1, 2).reshape(passes * rows, each, -1)
            if numbers[:each] == list(range(sites)) and values.shape[2] == width:
                return values
            out = np.full(shape, fill, dtype)
            out[:, numbers[:each], : values.shape[2]] = values
            return out
        out = np.full(shape, fill, dtype)
        for place, (number, tensor) in enumerate(zip(numbers, tensors)):
            begin = place // each * rows
            out[begin : begin + rows, number, : tensor.shape[1]] = _host(tensor, dtype)
        return out


def half(values: Tensor) -> F16:
    """In half precision; finite values beyond its range become its largest, not infinite."""
    array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    with np.errstate(over="ignore"):
        out: F16 = array.astype(np.float16)
    if not np.isfinite(out).all():
        out = np.where(np.isfinite(array), np.clip(array, -_LARGEST, _LARGEST), array).astype(np.float16)
    return out


def _host(values: Tensor, dtype: Any) -> NDArray[Any]:
    return half(values) if dtype is np.float16 else values.numpy().astype(dtype)


def _moves(sites: list[SiteTensors]) -> list[tuple[Bool, Bool | None]]:
    """What functions did to sites that they looked at.

    Returns:
        For each, ``[T]`` which tokens got another routing than the router's, and ``[T, K]`` which of their slots fell
        silent by that; None where none did.
    """
    if not sites:
        return []
    looks = {(site.indices.shape, site.indices.dtype, site.weights.dtype) for site in sites}
    befores = [(site.before_indices, site.before_weights) for site in sites]
    if len(sites) > 1 and (
        len(looks) > 1 or any(was is None or was.shape != sites[0].indices.shape for was, _ in befores)
    ):
        return [found for site in sites for found in _moves([site])]
    indices, weights = torch.stack([site.indices for site in sites]), torch.stack([site.weights for site in sites])
    was_indices = torch.stack([was for was, _ in befores if was is not None])
    was_weights = torch.stack([was for _, was in befores if was is not None])
    if was_indices.shape == indices.shape:
        moved = ((was_indices != indices) | (was_weights != weights)).any(-1)
    else:
        moved = torch.ones(indices.shape[:2], dtype=torch.bool)
    silent = moved.unsqueeze(-1) & (weights == 0)
    quiet = not bool(silent.any())
    return [(one, None if quiet else other) for one, other in zip(moved.numpy(), silent.numpy())]


def _odd(values: F16, widths: dict[int, int]) -> Bool | None:
    """``[T, S]`` where one of a site's own columns is not finite; None where all are."""
    odd = ~np.isfinite(values)
    if not odd.any():
        return None
    known = np.zeros(values.shape[1:], np.bool_)
    for number, width in widths.items():
        known[number, :width] = True
    return np.asarray((odd & known).any(-1))
