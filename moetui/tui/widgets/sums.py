"""Routing summed over tokens: additive, so that a window slides by what enters and what leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moetui.routing.metrics import by_site, coefficient_of_variation, jain_fairness, load_imbalance
from moetui.routing.model import Site
from moetui.routing.scores import entropy, passed, probabilities
from moetui.routing.step import F32, F64, I64, Bool, SiteFlag
from moetui.routing.timeline import TimelineView, TokenColumns

Chooser: TypeAlias = Callable[[TokenColumns, int], Bool]
"""``(columns, number of their first token) -> [n]``: which tokens count."""


@dataclass(frozen=True, slots=True, eq=False)
class RoutingSums:
    """Sums over the tokens of a window, S sites, E experts at the largest site.

    Attributes:
        tokens: token positions counted, padding left out.
        loads: ``[S, E]`` slots that went to each expert.
        mass: ``[S, E]`` gate weights summed; meaningless where ``weighed`` is 0.
        chance: ``[S, E]`` router probabilities summed over the tokens with a known distribution.
        spread: ``[S, E]`` router entropy (nats) summed over the tokens sent to each expert.
        spread_count: ``[S, E]`` how many of those had a known entropy.
        entropy: ``[S]`` router entropy summed.
        known: ``[S]`` tokens with a known distribution.
        weighed: ``[S]`` tokens with known weights.
        dropped: ``[S]`` tokens that got no expert at a site that they passed.
    """

    tokens: int
    loads: I64
    mass: F64
    chance: F64
    spread: F64
    spread_count: I64
    entropy: F64
    known: I64
    weighed: I64
    dropped: I64

    def plus(self, other: RoutingSums, sign: int = 1) -> RoutingSums:
        """The sums with another window's tokens added, or taken away (``sign`` -1)."""
        return RoutingSums(
            self.tokens + sign * other.tokens,
            self.loads + sign * other.loads,
            self.mass + sign * other.mass,
            self.chance + sign * other.chance,
            self.spread + sign * other.spread,
            self.spread_count + sign * other.spread_count,
            self.entropy + sign * other.entropy,
            self.known + sign * other.known,
            self.weighed + sign * other.weighed,
            self.dropped + sign * other.dropped,
        )


def no_sums(sites: tuple[Site, ...]) -> RoutingSums:
    """The sums over no tokens."""
    count, experts = len(sites), max((site.num_experts for site in sites), default=0)
    return RoutingSums(
        tokens=0,
        loads=np.zeros((count, experts), np.int64),
        mass=np.zeros((count, experts)),
        chance=np.zeros((count, experts)),
        spread=np.zeros((count, experts)),
        spread_count=np.zeros((count, experts), np.int64),
        entropy=np.zeros(count),
        known=np.zeros(count, np.int64),
        weighed=np.zeros(count, np.int64),
        dropped=np.zeros(count, np.int64),
    )


def not_padding(columns: TokenColumns, _first: int) -> Bool:
    """Chooses every token that is no padding."""
    return ~columns.pad


def router_spread(logits: NDArray[Any], sites: tuple[Site, ...]) -> tuple[F32, F32]:
    """Router distributions ``[n, S, C]`` and their entropies ``[n, S]`` of logits ``[n, S, C]``; NaN where unknown."""
    chances = np.full(logits.shape, np.nan, np.float32)
    entropies = np.full(logits.shape[:2], np.nan, np.float32)
    for members in _alike(sites):
        site = sites[members[0]]
        # Sites of one rule are scored together: a loop over 48 sites costs more in calls than in arithmetic.
        rows: Any = slice(None) if len(members) == len(sites) else members
        spread = probabilities(logits[:, rows], site)
        chances[:, rows, : site.num_classes] = spread
        entropies[:, rows] = entropy(spread)
    return chances, entropies


def _alike(sites: tuple[Site, ...]) -> list[list[int]]:
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, site in enumerate(sites):
        groups.setdefault((site.scoring, site.logits_form, site.num_classes), []).append(index)
    return list(groups.values())


def sum_tokens(view: TimelineView, start: int, stop: int, choose: Chooser = not_padding) -> RoutingSums:
    """Sums over the tokens ``start .. stop - 1`` that are held and chosen."""
    sites = view.sites
    out = no_sums(sites)
    first = max(start, view.first)
    columns = view.tokens(first, stop)
    chosen = choose(columns, first)
    if not sites or not chosen.any():
        return out
    block = view.routing(first, stop)
    indices = block.indices[chosen]
    count, experts = len(indices), out.loads.shape[1]
    valid = indices < experts
    cells = np.where(valid, indices + (np.arange(len(sites)) * experts)[None, :, None], 0)
    flat, size = cells[valid], len(sites) * experts
    out.loads[:] = np.bincount(flat, minlength=size).reshape(len(sites), experts)
    flags = block.flags[chosen]
    out.dropped[:] = ((flags & SiteFlag.DROPPED) != 0).sum(0)
    if block.weights is not None:
        weights = block.weights[chosen].astype(np.float32)
        known = valid & np.isfinite(weights)
        out.mass[:] = np.bincount(cells[known], weights[known], size).reshape(len(sites), experts)
        out.weighed[:] = known.any(-1).sum(0)
    if block.logits is not None:
        _sum_spread(out, block.logits[chosen], sites, passed(indices, flags), cells, valid)
    return RoutingSums(
        count, out.loads, out.mass, out.chance, out.spread, out.spread_count, out.entropy, out.known, out.weighed,
        out.dropped,
    )  # fmt: skip


def _sum_spread(
    out: RoutingSums, logits: NDArray[Any], sites: tuple[Site, ...], seen: Bool, cells: I64, valid: Bool
) -> None:
    chances, entropies = router_spread(logits, sites)
    known = seen & np.isfinite(entropies)
    sites_count, experts = out.loads.shape
    np.copyto(chances, 0.0, where=~(np.isfinite(chances) & known[..., None]))
    total = chances.sum(0)
    out.chance[:, : min(experts, total.shape[1])] = total[:, :experts]
    out.entropy[:] = np.where(known, entropies, 0.0).sum(0)
    out.known[:] = known.sum(0)
    slots = valid & known[..., None]
    flat, size = cells[slots], sites_count * experts
    by_slot = np.broadcast_to(entropies[..., None], slots.shape)[slots]
    out.spread[:] = np.bincount(flat, by_slot, size).reshape(sites_count, experts)
    out.spread_count[:] = np.bincount(flat, minlength=size).reshape(sites_count, experts)


class SlidingSums:
    """Sums over a window of a timeline that mostly moves forward, brought up to date in bounded portions.

    Args:
        cells: how many (token, site, class) cells one ``move`` may look at; 4 million cost about 40 ms.
    """

    def __init__(self, cells: int = 1_000_000) -> None:
        self._cells = cells
        self._key: object = None
        self._sites: object = None  # held, so that no other sites can have the same id
        self._start = self._stop = 0
        self._sums: RoutingSums | None = None

    def move(
        self, view: TimelineView, key: object, start: int, stop: int, choose: Chooser = not_padding
    ) -> tuple[RoutingSums, float]:
        """Bring the window to ``start .. stop - 1``.

        Args:
            key: what the window is; another key starts over.

        Returns:
            The sums so far and the share 0..1 of the window that they cover: call again while it is below 1.
        """
        sums = self._sums
        # What is known of the sites can change after the first step: sums by another scoring rule are worth nothing.
        key = (key, id(view.sites))
        slides = sums is not None and key == self._key and self._start <= start <= self._stop <= stop
        # Tokens that left the timeline cannot be taken away any more.
        if sums is None or not slides or (self._start < start and self._start < view.first):
            sums, self._start, self._stop = no_sums(view.sites), start, start
        self._key, self._sites = key, view.sites
        portion = self._portion(view)
        if self._start < start:
            if start - self._start > portion:
                sums, self._stop = no_sums(view.sites), start
            else:
                sums = sums.plus(sum_tokens(view, self._start, start, choose), -1)
            self._start = start
        until = min(stop, self._stop + portion)
        if until > self._stop:
            sums = sums.plus(sum_tokens(view, self._stop, until, choose))
            self._stop = until
        self._sums = sums
        return sums, (self._stop - start) / (stop - start) if stop > start else 1.0

    def _portion(self, view: TimelineView) -> int:
        width = max((site.num_classes for site in view.sites), default=1)
        return max(64, self._cells // max(1, len(view.sites) * width))


@dataclass(frozen=True, slots=True)
class Balance:
    """How evenly load is spread, as means over the sites with load; NaN without any (see ``routing.metrics``)."""

    fairness: float
    variation: float
    peak: float


def mean_balance(counts: NDArray[Any], sites: tuple[Site, ...]) -> Balance:
    """Balance of ``[S, E]`` loads."""
    own = by_site(counts, sites)[np.asarray(counts).sum(1) > 0]
    if not len(own):
        return Balance(float("nan"), float("nan"), float("nan"))
    return Balance(
        float(jain_fairness(own).mean()), float(coefficient_of_variation(own).mean()), float(load_imbalance(own).mean())
    )
