"""Two recordings as rows: each pair of tokens in a line, those without a partner where they stood."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from moetui.routing import ModelInfo, TimelineView
from moetui.routing.compare import Comparison, align, compare, pair_flips, shared_sites
from moetui.routing.metrics import jain_fairness
from moetui.routing.model import Site
from moetui.routing.step import I64, NO_EXPERT, Bool
from moetui.session import Session
from moetui.tui.widgets.heat_values import HeatPicture, HeatValues, nice_ceiling

NOBODY = -1
_FLIPS = 500


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One of the two runs: file name, model, tokens, and the sites that both have."""

    name: str
    info: ModelInfo
    view: TimelineView
    sites: tuple[Site, ...]


@dataclass(frozen=True, eq=False)
class TwoRuns:
    """What the diff screen shows.

    Attributes:
        a, b: the runs.
        comparison: their numbers.
        numbers: ``[r, 2]`` timeline numbers of each row's tokens; ``NOBODY`` where one has no partner.
        same: ``[r]`` whether both are the same token.
        flips: ``[r]`` at how many sites they went to other experts.
    """

    a: Side
    b: Side
    comparison: Comparison
    numbers: I64
    same: Bool
    flips: I64

    @cached_property
    def differences(self) -> I64:
        """Rows at which anything differs."""
        return np.flatnonzero(~self.same | (self.flips > 0))

    def next_difference(self, row: int, direction: int) -> int | None:
        """The row of the next difference after (1) or before (-1) ``row``; None if there is none."""
        rows = self.differences
        at = int(np.searchsorted(rows, row, "right" if direction > 0 else "left")) - (0 if direction > 0 else 1)
        return int(rows[at]) if 0 <= at < len(rows) else None

    def row_of(self, token: int) -> int | None:
        """The row of a token of the first run."""
        found = np.flatnonzero(self.numbers[:, 0] == token)
        return int(found[0]) if found.size else None

    @cached_property
    def first_other_token(self) -> int | None:
        """The row at which tokens differ first; a token without a partner is none of them."""
        where = self.comparison.first_token
        return None if where is None else self.row_of(where.a)

    @cached_property
    def first_other_experts(self) -> int | None:
        """The row at which experts differ first."""
        where = self.comparison.first_routing
        return None if where is None else self.row_of(where.a)

    def experts(self, row: int) -> tuple[tuple[tuple[int, ...], ...] | None, tuple[tuple[int, ...], ...] | None]:
        """The experts of a row's tokens by shared site, in the router's order; None for a token that is not there."""
        left, right = (_experts(side, int(number)) for side, number in zip((self.a, self.b), self.numbers[row]))
        return left, right

    def shift_picture(self, *, prefix: bool) -> HeatPicture:
        """Each expert's share of its site's load in the second run less that in the first, in points."""
        sites = self.comparison.prefix_sites if prefix else self.comparison.sites
        experts = max((site.num_experts for site in self.a.sites), default=0)
        loads = np.zeros((2, len(sites), experts), np.int64)
        for number, site in enumerate(sites):
            loads[0, number, : len(site.loads_a)], loads[1, number, : len(site.loads_b)] = site.loads_a, site.loads_b
        counts = np.array([site.num_experts for site in self.a.sites[: len(sites)]])[:, None]
        absent = np.arange(experts)[None, :] >= counts if len(sites) else np.zeros((0, experts), np.bool_)
        with np.errstate(all="ignore"):
            share = 100 * loads / loads.sum(-1, keepdims=True)
        values = np.where(absent, np.nan, share[1] - share[0])
        high = nice_ceiling(float(np.nanmax(np.abs(values), initial=0.0)))
        nobody = (loads.sum(0) == 0) & ~absent & np.isfinite(values)
        return HeatPicture(
            names=tuple(site.site for site in sites),
            heat=HeatValues(values, nobody, absent, -high, high, "points", diverging=True),
            title="load shift · A to B",
            entropy=np.array(
                [np.nan if site.entropy_shift is None else site.entropy_shift for site in sites], np.float64
            ),
            fairness=np.array([_fairness(site.loads_b) - _fairness(site.loads_a) for site in sites], np.float64),
            trail=np.zeros((0, len(sites))),
            loads=loads[1],
            loads_before=loads[0],
        )


def two_runs(a: Session, b: Session) -> TwoRuns:
    """Compare two recordings that stand at their ends.

    Raises:
        UsageError: the models have no site in common, or a common one has other experts.
    """
    assert a.info is not None and b.info is not None  # noqa: PT018 - a recording knows its model from the start
    view_a, view_b = a.timeline.snapshot(), b.timeline.snapshot()
    sites_a, sites_b = shared_sites(view_a, view_b)
    pairing = align(view_a, view_b)
    numbers, pair = _interleave(pairing.a, pairing.b, _tokens(view_a), _tokens(view_b))
    paired = pair != NOBODY
    same, flips = np.zeros(len(pair), np.bool_), np.zeros(len(pair), np.int64)
    same[paired], flips[paired] = pairing.same[pair[paired]], pair_flips(view_a, view_b, pairing)[pair[paired]]
    return TwoRuns(
        Side(Path(a.name).name, a.info, view_a, sites_a),
        Side(Path(b.name).name, b.info, view_b, sites_b),
        compare(view_a, view_b, top=_FLIPS),
        numbers,
        same,
        flips,
    )


def _tokens(view: TimelineView) -> I64:
    return np.flatnonzero(~view.tokens(view.first, view.end).pad) + view.first


def _fairness(loads: tuple[int, ...]) -> float:
    return float(jain_fairness(np.asarray(loads)))


def _interleave(a: I64, b: I64, all_a: I64, all_b: I64) -> tuple[I64, I64]:
    """``[r, 2]`` numbers and ``[r]`` which pair it is, by the first run; lone tokens behind their neighbours."""
    lone_a, lone_b = np.setdiff1d(all_a, a), np.setdiff1d(all_b, b)
    by_b = np.argsort(b)
    before = np.searchsorted(b[by_b], lone_b) - 1
    after = np.where(before >= 0, a[by_b][before], NOBODY) if len(a) else np.full(len(lone_b), NOBODY)
    numbers = np.concatenate(
        [
            np.stack([a, b], 1),
            np.stack([lone_a, np.full_like(lone_a, NOBODY)], 1),
            np.stack([np.full_like(lone_b, NOBODY), lone_b], 1),
        ]
    )
    pair = np.concatenate([np.arange(len(a)), np.full(len(lone_a) + len(lone_b), NOBODY)])
    place = np.concatenate([a, lone_a, after])
    order = np.lexsort((numbers[:, 1], np.r_[np.zeros(len(a) + len(lone_a)), np.ones(len(lone_b))], place))
    return numbers[order], pair[order]


def _experts(side: Side, number: int) -> tuple[tuple[int, ...], ...] | None:
    if number == NOBODY:
        return None
    indices = side.view.routing(number, number + 1).indices[0]
    return tuple(
        tuple(int(expert) for expert in indices[site.index].tolist() if expert != NO_EXPERT) for site in side.sites
    )
