"""The routing of one pass, or of several alike ones, as arrays over tokens, sites and slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moetui.engine.gather import SiteColumns, SiteTensors
from moetui.engine.options import CaptureOptions
from moetui.routing import NO_EXPERT, Site, SiteFlag
from moetui.routing.step import F16, U8, U16, Bool

_LARGEST = np.float32(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class _Move:
    """What functions did to c sites in the N passes of some rows.

    Attributes:
        rows: of the passes' tokens.
        numbers: of the sites.
        moved: ``[N, T, c]`` which tokens got another routing than the router's.
        silent: ``[N, T, c, K]`` which of their slots fell silent by that; None where none did.
    """

    rows: slice
    numbers: list[int]
    moved: Bool
    silent: Bool | None

    @staticmethod
    def of(
        rows: slice,
        numbers: list[int],
        shape: tuple[int, ...],
        indices: Tensor,
        weights: Tensor,
        was_indices: Tensor,
        was_weights: Tensor,
    ) -> _Move:
        """From the routing after and before, ``[N · c, T, K]`` with ``shape`` for ``(N, c, T, K)``."""
        own, more = was_indices.shape[-1], indices.shape[-1] - was_indices.shape[-1]
        if was_indices.shape[:-1] != indices.shape[:-1] or more < 0:
            moved = torch.ones(indices.shape[:-1], dtype=torch.bool)
        else:
            moved = ((was_indices != indices[..., :own]) | (was_weights != weights[..., :own])).any(-1)
        if more > 0:
            moved |= (weights[..., own:] != 0).any(-1)
        silent = moved.unsqueeze(-1) & (weights == 0)
        if more > 0:  # what fills the slots that other tokens got is no choice of these
            silent[..., own:] |= weights[..., own:] == 0
        quiet = not bool(silent.any())
        return _Move(
            rows,
            numbers,
            moved.view(shape[:-1]).transpose(1, 2).numpy(),
            None if quiet else silent.view(shape).transpose(1, 2).numpy(),
        )


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
        self._whole = SiteColumns([], np.empty((passes, 0), np.int64), [], [], [])
        self._parts: list[tuple[SiteTensors, NDArray[np.intp]]] = []
        self.indices: U16 = np.empty((0, 0, 0), np.uint16)
        self.weights: F16 | None = None
        self.logits: F16 | None = None

    def fill(self, columns: SiteColumns) -> None:
        """Take the sites that every token passed."""
        self._whole = columns
        try:
            self._fill(columns, columns.indices[: len(columns.numbers)])
        except RuntimeError:  # a later pass has more slots than the first, or fewer
            self._fill(columns, columns.indices, alike=False)

    def _fill(self, columns: SiteColumns, widest: Sequence[Tensor], *, alike: bool = True) -> None:
        numbers = columns.numbers
        self._slots = slots = max([self._slots, *(indices.shape[1] for indices in widest)])
        self.indices = self._stacked(columns.indices, numbers, slots, np.uint16, NO_EXPERT, alike)
        if self._options.weights:
            self.weights = self._stacked(columns.weights, numbers, slots, np.float16, np.nan, alike)
        if self._options.logits:
            logits = [tensor for tensor in columns.logits if tensor is not None]
            numbers = [number for number, tensor in zip(numbers, columns.logits) if tensor is not None]
            self.logits = self._stacked(logits, numbers, self._classes, np.float16, np.nan, alike)

    def fill_rows(self, part: SiteTensors, at: NDArray[np.intp]) -> None:
        """Take a site that only the tokens ``at`` passed."""
        self._parts.append((part, at))
        number, slots = part.number, part.indices.shape[1]
        if slots > self._slots:
            self._widen(slots)
        self.indices[at, number, :slots] = part.indices.numpy().astype(np.uint16)
        if self.weights is not None:
            self.weights[at, number, :slots] = half(part.weights)
        if self.logits is not None and part.logits is not None:
            self.logits[at, number, : part.logits.shape[1]] = half(part.logits)

    def _widen(self, slots: int) -> None:
        more = (0, 0), (0, 0), (0, slots - self._slots)
        self._slots = slots
        self.indices = np.pad(self.indices, more, constant_values=NO_EXPERT)
        if self.weights is not None:
            self.weights = np.pad(self.weights, more, constant_values=np.nan)

    def flags(self) -> U8:
        """``[T, S]`` ``SiteFlag`` bits; slots that a function silenced become empty."""
        flags: U8 = np.zeros(self.indices.shape[:2], np.uint8)
        moves, parts = self._moves(), self._moves_of_parts()
        for move in moves:
            part = flags[move.rows].reshape(-1, self._rows, flags.shape[1])
            part[:, :, move.numbers] |= move.moved.astype(np.uint8) * np.uint8(SiteFlag.FORCED)
        for move, at in parts:
            flags[at, move.numbers[0]] |= move.moved[0, :, 0].astype(np.uint8) * np.uint8(SiteFlag.FORCED)
        self._flag_dropped(flags)
        self._flag_non_finite(flags)
        for move in moves:
            if move.silent is not None:
                self._empty(move, move.silent)
        for move, at in parts:
            if move.silent is not None:
                token, slot = move.silent[0, :, 0].nonzero()
                self.indices[at[token], move.numbers[0], slot] = NO_EXPERT
                if self.weights is not None:
                    self.weights[at[token], move.numbers[0], slot] = np.nan
        return flags

    def _moves_of_parts(self) -> list[tuple[_Move, NDArray[np.intp]]]:
        """What functions did to sites that some of the tokens passed, and which tokens these are."""
        out = []
        for part, at in self._parts:
            if part.before_indices is not None and part.before_weights is not None:
                routing = part.indices, part.weights, part.before_indices, part.before_weights
                shape = 1, 1, *part.indices.shape
                out.append((_Move.of(slice(None), [part.number], shape, *(tensor[None] for tensor in routing)), at))
        return out

    def _moves(self) -> list[_Move]:
        """What functions did to the sites that they looked at; at one go where these are alike."""
        whole = self._whole
        if not whole.changed:
            return []
        places = [whole.numbers.index(number) for number in whole.changed]
        each = len(whole.numbers)
        at = [number * each + place for number in range(self._passes) for place in places]
        columns = (
            [whole.indices[place] for place in at],
            [whole.weights[place] for place in at],
            whole.was_indices,
            whole.was_weights,
        )
        shape = self._passes, len(places), self._rows, -1
        try:
            return [_Move.of(slice(None), whole.changed, shape, *map(torch.stack, columns))]
        except RuntimeError:  # sites with different numbers of slots
            return [
                _Move.of(
                    slice(place // len(places) * self._rows, (place // len(places) + 1) * self._rows),
                    [whole.changed[place % len(places)]],
                    (1, 1, self._rows, -1),
                    *each_of,
                )
                for place, each_of in enumerate(zip(*columns))
            ]

    def _empty(self, move: _Move, silent: Bool) -> None:
        """Slots whose weight an intervention made zero are empty: the experts named there add nothing."""
        for values, filler in ((self.indices, NO_EXPERT), (self.weights, np.nan)):
            if values is None:
                continue
            part = values[move.rows].reshape(-1, self._rows, *values.shape[1:])[..., : silent.shape[-1]]
            own = part[:, :, move.numbers]
            own[silent] = filler
            part[:, :, move.numbers] = own

    def _flag_dropped(self, flags: U8) -> None:
        if self.weights is None or not (self._whole.numbers or self._parts):
            return
        idle = self.weights == 0
        idle |= self.indices == NO_EXPERT
        if not idle.any():
            return
        # A class past the experts is a choice of its own: to skip.
        experts = np.array([site.num_experts for site in self._sites])
        idle &= (self.indices == NO_EXPERT) | (self.indices < experts[:, None])
        here = np.zeros(flags.shape, np.bool_)
        here[:, self._whole.numbers] = True
        for part, at in self._parts:
            here[at, part.number] = True
        flags[idle.all(-1) & here] |= np.uint8(SiteFlag.DROPPED)

    def _flag_non_finite(self, flags: U8) -> None:
        odd: Bool | None = None
        for values, kept, parts in (
            (self.weights, self._whole.weights, [part.weights for part, _ in self._parts]),
            (self.logits, self._whole.logits, [part.logits for part, _ in self._parts]),
        ):
            if values is None:
                continue
            places = [*zip(self._whole.numbers, kept), *zip([part.number for part, _ in self._parts], parts)]
            found = _odd(values, places)
            odd = found if odd is None or found is None else odd | found
        if odd is not None:
            odd &= (self.indices != NO_EXPERT).any(-1)
            flags[odd] |= np.uint8(SiteFlag.NON_FINITE)

    def _stacked(
        self, tensors: Sequence[Tensor], numbers: list[int], width: int, dtype: Any, fill: float, alike: bool
    ) -> Any:
        """Sites' ``[rows, k]`` tensors, pass by pass, as one array; ``fill`` where a site has none or is narrower.

        Raises:
            RuntimeError: the passes are not ``alike`` in what their sites give.
        """
        rows, passes, sites = self._rows, self._passes, len(self._sites)
        shape = (rows * passes, sites, width)
        if not tensors:
            return np.full(shape, fill, dtype)
        each = len(numbers)
        if alike and len({tensor.shape[1] for tensor in tensors[:each]}) == 1:
            values = _host(torch.stack(tuple(tensors)), dtype)
            values = values.reshape(passes, each, rows, -1).swapaxes(1, 2).reshape(passes * rows, each, -1)
            if each == sites and values.shape[2] == width:
                return values
            out = np.full(shape, fill, dtype)
            out[:, numbers, : values.shape[2]] = values
            return out
        out = np.full(shape, fill, dtype)
        for place, tensor in enumerate(tensors):
            begin, number = place // each * rows, numbers[place % each]
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


def _odd(values: F16, places: list[tuple[int, Tensor | None]]) -> Bool | None:
    """``[T, S]`` where one of a site's own columns is not finite; None where all are.

    Args:
        values: ``[T, S, width]``.
        places: sites and what came from each.
    """
    odd = ~np.isfinite(values)
    if not odd.any():
        return None
    known = np.zeros(values.shape[1:], np.bool_)
    for number, own in places:
        if own is not None:
            known[number, : own.shape[1]] = True
    return np.asarray((odd & known).any(-1))
