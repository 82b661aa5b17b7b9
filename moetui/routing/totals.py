"""Sums over a timeline's routing, brought up to date piece by piece: what statistics and diagnostics are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moetui.routing.branches import Line, line_rows
from moetui.routing.metrics.loads import loads, mass_and_known
from moetui.routing.model import Site
from moetui.routing.phase import Phase
from moetui.routing.scores import passed, site_entropy
from moetui.routing.step import F64, I64, Bool, SiteFlag
from moetui.routing.timeline import RoutingBlock, TimelineView

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
        step = chunk_tokens(self.sites)
        while self.end < stop:
            until = min(self.end + step, stop)
            self._count(view, self.end, until)
            self.end = until
        return self.end == view.end

    def _count(self, view: TimelineView, start: int, stop: int) -> None:
        columns = view.tokens(start, stop)
        keep = ~columns.pad if self._line is None else line_rows(columns, self._line, view.stacks)
        if not keep.any():
            return
        self.tokens += np.bincount(columns.phase[keep], minlength=len(Phase))[: len(Phase)]
        for number, count in enumerate(np.bincount(columns.stack[keep], minlength=len(view.stacks)).tolist()):
            self.stack_tokens[view.stacks[number]] = self.stack_tokens.get(view.stacks[number], 0) + count
        block = view.routing(start, stop)
        seen = passed(block.indices, block.flags) & keep[:, None]
        self.routed += seen.sum(0)
        self.loads += loads(block.indices, self.sites, keep)
        if block.weights is not None:
            mass, known = mass_and_known(block.indices, block.weights, self.sites, keep)
            self._mass += mass
            self._mass_known += known
        for flag, counter in (
            (SiteFlag.DROPPED, self.dropped),
            (SiteFlag.FORCED, self.forced),
            (SiteFlag.NON_FINITE, self.non_finite),
        ):
            counter += ((block.flags & flag) != 0)[keep].sum(0)
        self._count_entropy(block, seen)

    def _count_entropy(self, block: RoutingBlock, seen: Bool) -> None:
        if block.logits is None:
            return
        self.has_logits = True
        if self._entropy:
            values = site_entropy(block.logits, self.sites)
            known = seen & ~np.isnan(values)
            self._entropy_sum += np.where(known, values, 0.0).sum(0, dtype=np.float64)
            self._entropy_known += known.sum(0)


def chunk_tokens(sites: Sequence[Site]) -> int:
    """Tokens to take at a time from a view, so that a chunk's routing stays in the tens of megabytes."""
    width = max((site.num_classes + 2 * site.top_k for site in sites), default=0)
    return max(64, min(_MAX_CHUNK, _CHUNK_BYTES // max(1, 2 * len(sites) * width)))
