"""Sums over pairs of tokens, from which a site's comparison is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing.compare.values import SiteComparison
from moetui.routing.metrics.loads import loads, shares
from moetui.routing.metrics.tokens import first_choices, overlap, set_sizes
from moetui.routing.model import Site
from moetui.routing.scores import entropy, passed, probabilities, sum_last
from moetui.routing.step import F32, F64, I64, NO_EXPERT, Bool
from moetui.routing.timeline import RoutingBlock

_SMALLEST = 1e-9  # keeps KL finite where the second run's probability is 0


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The routing of p pairs of tokens at the m sites that both runs have; ``[p, m]`` each.

    ``both`` marks where both runs routed the token, ``differ`` where they did so to other experts, ``one`` where only
    one of them says that it was routed.
    """

    a: RoutingBlock
    b: RoutingBlock
    both: Bool
    differ: Bool
    one: Bool
    same_top1: Bool
    jaccard: F64
    kl: F32
    l1: F32
    entropy_a: F32
    entropy_b: F32


def measure(a: RoutingBlock, b: RoutingBlock, sites_a: tuple[Site, ...], sites_b: tuple[Site, ...]) -> Pairs:
    """Measure p pairs at m sites; the blocks hold the same sites in the same order."""
    both, shared, union = common(a, b)
    kl, l1, entropy_a, entropy_b = _distributions(a, b, sites_a, sites_b)
    return Pairs(
        a=a,
        b=b,
        both=both,
        differ=both & (shared != union),
        one=passed(a.indices, a.flags) != passed(b.indices, b.flags),
        same_top1=_first(a) == _first(b),
        # Two tokens that were both dropped agree.
        jaccard=np.where(union > 0, shared / np.maximum(union, 1), 1.0),
        kl=kl,
        l1=l1,
        entropy_a=entropy_a,
        entropy_b=entropy_b,
    )


def common(a: RoutingBlock, b: RoutingBlock) -> tuple[Bool, I64, I64]:
    """``[p, m]`` where both routed the token, and how many experts both chose, and either; reads no logits."""
    both = passed(a.indices, a.flags) & passed(b.indices, b.flags)
    shared, size_a, size_b = overlap(a.indices, b.indices), set_sizes(a.indices), set_sizes(b.indices)
    return both, shared, size_a + size_b - shared


def _first(block: RoutingBlock) -> NDArray[Any]:
    if not block.indices.shape[2]:
        return np.zeros(block.indices.shape[:2], np.uint16)
    return first_choices(block.indices, block.weights)


def _distributions(
    a: RoutingBlock, b: RoutingBlock, sites_a: tuple[Site, ...], sites_b: tuple[Site, ...]
) -> tuple[F32, F32, F32, F32]:
    """KL, L1 and both entropies, NaN where either distribution is unknown."""
    out = np.full((4, *a.indices.shape[:2]), np.nan, np.float32)
    if a.logits is None or b.logits is None:
        return out[0], out[1], out[2], out[3]
    for column, (site_a, site_b) in enumerate(zip(sites_a, sites_b)):
        p = probabilities(a.logits[:, column], site_a)
        q = probabilities(b.logits[:, column], site_b)
        with np.errstate(all="ignore"):
            terms = np.where(p > 0, p * (np.log(p) - np.log(np.maximum(q, _SMALLEST))), 0.0)
        known = ~(np.isnan(p[:, 0]) | np.isnan(q[:, 0]))
        for number, values in enumerate((sum_last(terms), sum_last(np.abs(p - q)), entropy(p), entropy(q))):
            out[number, known, column] = values[known]
    np.maximum(out[0], 0.0, out=out[0])
    return out[0], out[1], out[2], out[3]


class SiteSums:
    """Adds up pairs and gives each site's comparison.

    Args:
        sites: the m sites, numbered as in the first run.
    """

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self._sites = sites
        self._number = np.zeros(len(sites), np.int64)
        self._flips = np.zeros(len(sites), np.int64)
        self._known = np.zeros(len(sites), np.int64)
        self._sums = np.zeros((6, len(sites)), np.float64)
        width = max((site.num_experts for site in sites), default=0)
        self._loads = np.zeros((2, len(sites), width), np.int64)

    def add(self, pairs: Pairs, keep: Bool) -> None:
        """Add the pairs where ``keep`` (``[p]``) is set."""
        counted = pairs.both & keep[:, None]
        known = counted & ~np.isnan(pairs.kl)
        self._number += counted.sum(0)
        self._flips += (pairs.differ & counted).sum(0)
        self._known += known.sum(0)
        always = (pairs.same_top1, pairs.jaccard)
        where_known = (pairs.kl, pairs.l1, pairs.entropy_a, pairs.entropy_b)
        for row, values in enumerate(always):
            self._sums[row] += np.where(counted, values, 0.0).sum(0, dtype=np.float64)
        for row, values in enumerate(where_known, len(always)):
            self._sums[row] += np.where(known, values, 0.0).sum(0, dtype=np.float64)
        for side, block in enumerate((pairs.a, pairs.b)):
            paired = np.where(counted[:, :, None], block.indices, np.uint16(NO_EXPERT))
            self._loads[side] += loads(paired, self._sites)

    def result(self) -> tuple[SiteComparison, ...]:
        """One comparison a site, in their order."""
        out = []
        shift = np.abs(np.diff(shares(self._loads), axis=0)[0]).sum(-1) / 2
        for row, site in enumerate(self._sites):
            number, known = int(self._number[row]), int(self._known[row])
            top1, jaccard = (_mean(total, number) for total in self._sums[:2, row])
            kl, l1, entropy_a, entropy_b = (_mean(total, known) for total in self._sums[2:, row])
            out.append(
                SiteComparison(
                    site=site.name,
                    layer=site.layer,
                    tokens=number,
                    same_top1=top1,
                    same_set=_mean(number - self._flips[row], number),
                    jaccard=jaccard,
                    kl=kl,
                    l1=l1,
                    entropy_a=entropy_a,
                    entropy_b=entropy_b,
                    entropy_shift=None if entropy_a is None or entropy_b is None else entropy_b - entropy_a,
                    load_shift=None if np.isnan(shift[row]) else float(shift[row]),
                    loads_a=tuple(self._loads[0, row, : site.num_experts].tolist()),
                    loads_b=tuple(self._loads[1, row, : site.num_experts].tolist()),
                    flips=int(self._flips[row]),
                )
            )
        return tuple(out)


def _mean(total: float, number: int) -> float | None:
    return float(total / number) if number else None
