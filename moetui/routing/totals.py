"""Sums over a timeline's routing, brought up to date piece by piece: what statistics and diagnostics are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from moetui.routing.branches import Line, line_rows
from moetui.routing.counts import Counts, Summed, added, count_tokens
from moetui.routing.model import Site
from moetui.routing.parallel import in_order
from moetui.routing.phase import Phase
from moetui.routing.step import F64, I64
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
        summed = view if self._line is None and isinstance(view, Summed) and view.sites == self.sites else None
        # Side by side when all is wanted at once; smaller then, so that a trace keeps what several threads read.
        step = chunk_tokens(self.sites) if limit else max(1, chunk_tokens(self.sites) // 2)

        def count(piece: tuple[int, int, bool]) -> Counts | None:
            start, until, known = piece
            counts = summed.counts(start, until) if known and summed is not None else None
            return counts or self._counted(view, start, until, step)

        pieces = list(_pieces(self.end, stop, step, summed))
        counted = map(count, pieces) if limit or len(pieces) == 1 else in_order(count, pieces)
        for (_, until, _), counts in zip(pieces, counted, strict=True):
            if counts is not None:
                self._add(counts, view.stacks)
            self.end = until
        return self.end == view.end

    def _counted(self, view: TimelineView, start: int, stop: int, step: int) -> Counts | None:
        """The sums over tokens ``start .. stop - 1``, ``step`` of them at a time; None if none counts."""
        parts = [self._count(view, low, min(low + step, stop)) for low in range(start, stop, step)]
        known = [part for part in parts if part is not None]
        return added(known) if known else None

    def _count(self, view: TimelineView, start: int, stop: int) -> Counts | None:
        columns = view.tokens(start, stop)
        keep = ~columns.pad if self._line is None else line_rows(columns, self._line, view.stacks)
        if not keep.any():
            return None
        block = view.routing(start, stop)
        logits = block.logits if self._entropy else None
        indices, weights, flags = block.indices, block.weights, block.flags
        return count_tokens(columns.phase, columns.stack, keep, indices, weights, logits, flags, self.sites)

    def _add(self, counts: Counts, stacks: Sequence[str]) -> None:
        self.tokens += counts.phases
        for stack, count in zip(stacks, counts.stacks.tolist()):
            self.stack_tokens[stack] = self.stack_tokens.get(stack, 0) + count
        self.routed += counts.routed
        self.loads += counts.loads
        self.dropped += counts.dropped
        self.forced += counts.forced
        self.non_finite += counts.non_finite
        self._mass += counts.mass
        self._mass_known += counts.mass_known
        if self._entropy:
            self._entropy_sum += counts.entropy
            self._entropy_known += counts.entropy_known
            self.has_logits |= counts.has_logits


def _pieces(start: int, stop: int, step: int, summed: Summed | None) -> Iterator[tuple[int, int, bool]]:
    """Tokens ``start .. stop - 1`` in pieces, of ``step`` at most but where sums are known, as each says."""
    while start < stop:
        low, high = (stop, stop) if summed is None else summed.summed(start, stop)
        for at in range(start, low, step):
            yield at, min(at + step, low), False
        if low < high:
            yield low, high, True
        start = high


def chunk_tokens(sites: Sequence[Site]) -> int:
    """Tokens to take at a time from a view, so that a chunk's routing stays in the tens of megabytes."""
    width = max((site.num_classes + 2 * site.top_k for site in sites), default=0)
    return max(64, min(_MAX_CHUNK, _CHUNK_BYTES // max(1, 2 * len(sites) * width)))
