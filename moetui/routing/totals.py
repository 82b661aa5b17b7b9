"""Sums over a timeline's routing, brought up to date piece by piece: what statistics and diagnostics are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moetui.routing.branches import Line, line_rows
from moetui.routing.metrics.loads import loads_and_mass
from moetui.routing.model import Site
from moetui.routing.parallel import in_order
from moetui.routing.phase import Phase
from moetui.routing.scores import passed, site_entropy
from moetui.routing.step import F16, F64, I64, Bool, SiteFlag
from moetui.routing.timeline import TimelineView

_CHUNK_BYTES = 16_000_000
_MAX_CHUNK = 4096


class RoutingTotals:
    """Loads, gate mass, entropies and marks of all tokens seen so far; padding is left out of everything.

    Args:
        sites: the sites, in the order of the site axis.
        entropy: read the router logits too; without, ``mean_entropy`` is unknown and an update several times faster.
        line: count the tokens of these branches only, each up to this position (None: to its end); None for all.

    Attributes:
        start: number of the first token counted, and ``end`` one past the last token looked at.
        tokens: token positions counted, by phase: ``[2]``, indexed by ``Phase``.
        stack_tokens: the same by stack.
        routed: ``[S]`` tokens that each site routed (of its own stack, dropped ones included).
        loads: ``[S, E]`` tokens an expert got; ``experts`` ``[S]`` is their sum.
        dropped: ``[S]`` tokens that got no expert; ``forced`` and ``non_finite`` ``[S]`` likewise by ``SiteFlag``.
    """

    def __init__(self, sites: Sequence[Site], *, entropy: bool = True, line: Line | None = None) -> None:
        self.sites = tuple(sites)
        self._entropy = entropy
        self._line = line
        self._reset(0)

    def _reset(self, start: int) -> None:
        number = len(self.sites)
        width = max((site.num_experts for site in self.sites), default=0)
        self.start = self.end = start
        self.tokens = np.zeros(len(Phase), np.int64)
        self.stack_tokens: dict[str, int] = {}
        self.routed = np.zeros(number, np.int64)
        self.loads = np.zeros((number, width), np.int64)
        self.dropped = np.zeros(number, np.int64)
        self.forced = np.zeros(number, np.int64)
        self.non_finite = np.zeros(number, np.int64)
        self.has_logits = False
        self._mass = np.zeros((number, width), np.float64)
        self._mass_known = np.zeros((number, width), np.int64)
        self._entropy_sum = np.zeros(number, np.float64)
        self._entropy_known = np.zeros(number, np.int64)

    @property
    def has_weights(self) -> bool:
        """Whether any gate weight was known."""
        return bool(self._mass_known.any())

    @property
    def gate_mass(self) -> F64:
        """Sum of each expert's known gate weights, ``[S, E]``; NaN at experts with tokens but no known weight."""
        return np.where((self.loads > 0) & (self._mass_known == 0), np.nan, self._mass)

    @property
    def mean_entropy(self) -> F64:
        """Mean entropy of the full router distribution, ``[S]`` nats; NaN where it is unknown."""
        known = self._entropy_known
        return np.where(known > 0, self._entropy_sum / np.maximum(known, 1), np.nan)

    @property
    def experts(self) -> I64:
        """Experts that the site's tokens got altogether, ``[S]``."""
        return np.asarray(self.loads.sum(1), np.int64)

    def update(self, view: TimelineView, limit: int | None = None) -> bool:
        """Count the tokens that were not counted yet.

        A view that ends before the last one (a replay was moved back) is counted from its start.

        Args:
            view: a later view of the same timeline. Tokens that left it before they were counted are not counted.
            limit: the most tokens to look at in this call, so that a screen stays quick.

        Returns:
            Whether all of the view is counted.
        """
        if view.end < self.end:
            self._reset(view.first)
        if self.end < view.first:
            if not self.tokens.any():
                self.start = view.first
            self.end = view.first
        stop = view.end if limit is None else min(view.end, self.end + max(1, limit))
        # Side by side when all is wanted at once; smaller then, so that a trace keeps what several threads read.
        step = chunk_tokens(self.sites) if limit else max(1, chunk_tokens(self.sites) // 2)
        pieces = [(start, min(start + step, stop)) for start in range(self.end, stop, step)]

        def count(piece: tuple[int, int]) -> _Counts | None:
            return _counts(view, *piece, self.sites, self._line, entropy=self._entropy)

        counted = map(count, pieces) if limit or len(pieces) == 1 else in_order(count, pieces)
        for (_, until), counts in zip(pieces, counted, strict=True):
            if counts is not None:
                self._add(counts)
            self.end = until
        return self.end == view.end

    def _add(self, counts: _Counts) -> None:
        self.tokens += counts.tokens
        for stack, count in counts.stack_tokens.items():
            self.stack_tokens[stack] = self.stack_tokens.get(stack, 0) + count
        self.routed += counts.routed
        self.loads += counts.loads
        self.dropped += counts.dropped
        self.forced += counts.forced
        self.non_finite += counts.non_finite
        self._mass += counts.mass
        self._mass_known += counts.mass_known
        self.has_logits |= counts.has_logits
        if counts.entropy is not None:
            total, number = counts.entropy
            self._entropy_sum += total
            self._entropy_known += number


@dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """What some tokens add to the totals, named as there; ``entropy`` is a sum, and of how many."""

    tokens: I64
    stack_tokens: dict[str, int]
    routed: I64
    loads: I64
    dropped: I64
    forced: I64
    non_finite: I64
    has_logits: bool
    mass: F64
    mass_known: I64
    entropy: tuple[F64, I64] | None


def _counts(
    view: TimelineView, start: int, stop: int, sites: tuple[Site, ...], line: Line | None, *, entropy: bool
) -> _Counts | None:
    columns = view.tokens(start, stop)
    keep = ~columns.pad if line is None else line_rows(columns, line, view.stacks)
    if not keep.any():
        return None
    stacks = np.bincount(columns.stack[keep], minlength=len(view.stacks)).tolist()
    block = view.routing(start, stop)
    load, mass, known = loads_and_mass(block.indices, block.weights, sites, keep)
    seen = passed(block.indices, block.flags) & keep[:, None]
    dropped, forced, non_finite = (
        np.asarray(((block.flags & flag) != 0)[keep].sum(0), np.int64)
        for flag in (SiteFlag.DROPPED, SiteFlag.FORCED, SiteFlag.NON_FINITE)
    )
    return _Counts(
        tokens=np.bincount(columns.phase[keep], minlength=len(Phase))[: len(Phase)],
        stack_tokens={view.stacks[number]: count for number, count in enumerate(stacks)},
        routed=np.asarray(seen.sum(0), np.int64),
        loads=load,
        dropped=dropped,
        forced=forced,
        non_finite=non_finite,
        has_logits=block.logits is not None,
        mass=mass,
        mass_known=known,
        entropy=_entropy_sum(block.logits, seen, sites) if entropy and block.logits is not None else None,
    )


def _entropy_sum(logits: F16, seen: Bool, sites: tuple[Site, ...]) -> tuple[F64, I64]:
    values = site_entropy(logits, sites, roughly=True)
    known = seen & ~np.isnan(values)
    return np.where(known, values, 0.0).sum(0, dtype=np.float64), np.asarray(known.sum(0), np.int64)


def chunk_tokens(sites: Sequence[Site]) -> int:
    """Tokens to take at a time from a view, so that a chunk's routing stays in the tens of megabytes."""
    width = max((site.num_classes + 2 * site.top_k for site in sites), default=0)
    return max(64, min(_MAX_CHUNK, _CHUNK_BYTES // max(1, 2 * len(sites) * width)))
