"""Compares two runs: where they part, and how far, site by site."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from moetui.routing.branches import Line
from moetui.routing.compare.align import Alignment, align
from moetui.routing.compare.measure import Pairs, SiteSums, common, measure
from moetui.routing.compare.values import Comparison, Divergence, Flip
from moetui.routing.compare.words import pairs_around, probability_moved
from moetui.routing.errors import UsageError
from moetui.routing.model import Site
from moetui.routing.parallel import in_order
from moetui.routing.scores import site_margin
from moetui.routing.step import I64, NO_EXPERT, Bool
from moetui.routing.timeline import RoutingBlock, TimelineView
from moetui.routing.totals import chunk_tokens

_NAMED = 3

_Ranked: TypeAlias = tuple[float, int, int, Flip]
"""A flip behind what it is ranked by; larger ranks first."""


def _rank(entry: _Ranked) -> tuple[float, int, int]:
    return entry[:3]


def compare(
    a: TimelineView,
    b: TimelineView,
    *,
    line_a: Line | None = None,
    line_b: Line | None = None,
    top: int = 20,
    side_by_side: int = 8,
) -> Comparison:
    """Compare two runs, token by token and site by site; reads both in chunks.

    Tokens are paired by their place (``align``); how many of them are the same token, and for how long from the start,
    is told, and the sites are measured over all pairs and over the common prefix alone. Sites are paired by name;
    those that one model has not are listed.

    Args:
        a: the first run (a recording's timeline, or a branch of a live one); ``b`` the second.
        b: may be the same view.
        line_a: take only the tokens of this sequence (``BranchTree.line``); None for all.
        line_b: likewise; of two in one view, those that they share are left out.
        top: how many flips to list, and of those before any token differs likewise.
        side_by_side: how many pairs of tokens to list, from just before the first other one.

    Raises:
        UsageError: the models have no site in common, or a common one has other experts, so that ids mean nothing.
    """
    sites_a, sites_b = shared_sites(a, b)
    pairing = align(a, b, line_a, line_b)
    everything, prefix = SiteSums(sites_a), SiteSums(sites_a)
    best: list[_Ranked] = []
    best_prefix: list[_Ranked] = []
    first_routing: Divergence | None = None
    differ = np.zeros(len(pairing.a), np.int64)
    unknown = 0
    for rows, pairs in _chunks(a, b, sites_a, sites_b, pairing):
        unknown += int(pairs.one.sum())
        everything.add(pairs, np.ones(len(rows), np.bool_))
        prefix.add(pairs, pairing.prefix[rows])
        differ[rows] = pairs.differ.sum(1)
        if first_routing is None and pairs.differ.any():
            first_routing = _routed_apart(a, b, sites_a, pairing, rows, pairs.differ)
        found = list(_flips(a, sites_a, pairing, rows, pairs, top))
        best = heapq.nlargest(top, [*best, *found], key=_rank)
        best_prefix = heapq.nlargest(top, [*best_prefix, *(entry for entry in found if entry[3].same_token)], key=_rank)
    comparison, moved = everything.result(), probability_moved(a, b, pairing)
    heard = moved[pairing.prefix & ~np.isnan(moved)]
    different = np.flatnonzero(~pairing.same)
    return Comparison(
        aligned="tokens" if pairing.known else "position",
        tokens=len(pairing.a),
        same_tokens=int(pairing.same.sum()),
        common_prefix=int(pairing.prefix.sum()),
        only_a=pairing.only_a,
        only_b=pairing.only_b,
        first_token=_divergence(a, b, pairing, int(different[0])) if different.size else None,
        first_routing=first_routing,
        sites=comparison,
        prefix_sites=prefix.result(),
        flips=sum(site.flips for site in comparison),
        other_token_flips=int(differ[~pairing.same].sum()),
        top_flips=tuple(flip for *_, flip in best),
        prefix_flips=tuple(flip for *_, flip in best_prefix),
        probability_moved=float(heard.mean()) if heard.size else None,
        side_by_side=pairs_around(a, b, pairing, differ, moved, side_by_side),
        sites_only_a=_missing(a, sites_a),
        sites_only_b=_missing(b, sites_b),
        routing_unknown=unknown,
    )


def pair_flips(a: TimelineView, b: TimelineView, pairing: Alignment) -> I64:
    """``[p]`` at how many sites each pair of tokens went to other experts.

    Raises:
        UsageError: as for ``compare``.
    """
    sites_a, sites_b = shared_sites(a, b)
    out = np.zeros(len(pairing.a), np.int64)
    for rows, pairs in _chunks(a, b, sites_a, sites_b, pairing):
        out[rows] = pairs.differ.sum(1)
    return out


def first_routing(a: TimelineView, b: TimelineView, pairing: Alignment) -> Divergence | None:
    """Where a token of the common prefix first went to other experts; None if none did.

    Reads no further than there, and no logits.

    Raises:
        UsageError: as for ``compare``.
    """
    sites_a, sites_b = shared_sites(a, b)
    prefix = np.flatnonzero(pairing.prefix)
    size = min(chunk_tokens(a.sites), chunk_tokens(b.sites))
    for start in range(0, len(prefix), size):
        rows = prefix[start : start + size]
        both, shared, union = common(
            _gather(a, pairing.a[rows], sites_a, choices=True), _gather(b, pairing.b[rows], sites_b, choices=True)
        )
        differ = both & (shared != union)
        if differ.any():
            return _routed_apart(a, b, sites_a, pairing, rows, differ)
    return None


def shared_sites(a: TimelineView, b: TimelineView) -> tuple[tuple[Site, ...], tuple[Site, ...]]:
    """The sites that both have, paired by name, as the first and as the second knows them.

    Raises:
        UsageError: none, or one with other experts here than there.
    """
    there = {site.name: site for site in b.sites}
    shared = [(site, there[site.name]) for site in a.sites if site.name in there]
    if not shared:
        raise UsageError(
            f"the two have no site in common: {_names(a.sites)} here, {_names(b.sites)} there",
            "compare runs of one architecture",
        )
    for one, other in shared:
        if one.num_experts != other.num_experts or one.num_classes != other.num_classes:
            raise UsageError(
                f"{one.name} has {one.num_experts} experts here and {other.num_experts} there"
                + (
                    f" ({one.num_classes} and {other.num_classes} classes)"
                    if one.num_experts == other.num_experts
                    else ""
                ),
                "expert numbers mean something in models of one shape only",
            )
    return tuple(one for one, _ in shared), tuple(other for _, other in shared)


def _names(sites: tuple[Site, ...]) -> str:
    listed = ", ".join(site.name for site in sites[:_NAMED]) or "none"
    return f"{listed} …" if len(sites) > _NAMED else listed


def _missing(view: TimelineView, shared: tuple[Site, ...]) -> tuple[str, ...]:
    known = {site.name for site in shared}
    return tuple(site.name for site in view.sites if site.name not in known)


def _chunks(
    a: TimelineView, b: TimelineView, sites_a: tuple[Site, ...], sites_b: tuple[Site, ...], pairing: Alignment
) -> Iterator[tuple[I64, Pairs]]:
    """The pairs a piece at a time: their rows in the alignment, and what was measured of them."""
    # Several pieces are measured at once, so that each is smaller.
    size = max(1, min(chunk_tokens(a.sites), chunk_tokens(b.sites)) // 2)

    def measured(start: int) -> tuple[I64, Pairs]:
        rows = np.arange(start, min(start + size, len(pairing.a)), dtype=np.int64)
        block_a = _gather(a, pairing.a[rows], sites_a)
        block_b = _gather(b, pairing.b[rows], sites_b)
        return rows, measure(block_a, block_b, sites_a, sites_b)

    return in_order(measured, range(0, len(pairing.a), size))


def _gather(view: TimelineView, numbers: I64, sites: tuple[Site, ...], *, choices: bool = False) -> RoutingBlock:
    """The routing of these tokens at these sites, as wide as the sites need; ``choices``: no weights or logits."""
    low = int(numbers.min())
    block = view.routing(low, int(numbers.max()) + 1)
    rows, columns = _in_a_row(numbers - low), _in_a_row(np.array([site.index for site in sites]))
    classes = max(site.num_classes for site in sites)
    return RoutingBlock(
        indices=block.indices[rows][:, columns],
        weights=None if choices or block.weights is None else block.weights[rows][:, columns],
        logits=None if choices or block.logits is None else block.logits[rows][:, columns, :classes],
        flags=block.flags[rows][:, columns],
    )


def _in_a_row(numbers: I64) -> I64 | slice:
    """Numbers to take along an axis, as a slice where they stand in a row: that copies nothing."""
    first = int(numbers[0])
    return slice(first, first + len(numbers)) if (np.diff(numbers) == 1).all() else numbers


def _routed_apart(
    a: TimelineView, b: TimelineView, sites: Sequence[Site], pairing: Alignment, rows: I64, differ: Bool
) -> Divergence:
    """The first of these pairs, ``differ`` ``[n, S]``, whose experts are not the same."""
    row = int(np.flatnonzero(differ.any(1))[0])
    names = tuple(site.name for site, other in zip(sites, differ[row]) if other)
    return _divergence(a, b, pairing, int(rows[row]), names)


def _divergence(
    a: TimelineView, b: TimelineView, pairing: Alignment, row: int, sites: tuple[str, ...] = ()
) -> Divergence:
    number_a, number_b = int(pairing.a[row]), int(pairing.b[row])
    one, other = a.tokens(number_a, number_a + 1), b.tokens(number_b, number_b + 1)
    return Divergence(
        a=number_a,
        b=number_b,
        position=int(one.position[0]),
        text_a=a.text(int(one.token_id[0])),
        text_b=b.text(int(other.token_id[0])),
        sites=sites,
    )


def _flips(
    a: TimelineView, sites: tuple[Site, ...], pairing: Alignment, rows: I64, pairs: Pairs, top: int
) -> Iterator[_Ranked]:
    """The piece's flips of the same token against the largest margins, and those of its common prefix."""
    where, columns = np.nonzero(pairs.differ & pairing.same[rows][:, None])
    if not where.size:
        return
    renumbered = tuple(replace(site, index=number) for number, site in enumerate(sites))
    touched, back = np.unique(where, return_inverse=True)
    logits = None if pairs.a.logits is None else pairs.a.logits[touched]
    margins = site_margin(logits, renumbered, len(touched))[back.ravel(), columns].astype(np.float64)
    ranks = np.where(np.isnan(margins), -1.0, margins)
    order = np.lexsort((columns, where, -ranks))
    early = pairing.prefix[rows[where[order]]]
    listed = (np.arange(len(order)) < top) | (early & (np.cumsum(early) <= top))
    for number in order[listed].tolist():
        row, column = int(where[number]), int(columns[number])
        token = int(pairing.a[rows[row]])
        light = a.tokens(token, token + 1)
        here, there = (_experts(block, row, column) for block in (pairs.a, pairs.b))
        flip = Flip(
            a=token,
            b=int(pairing.b[rows[row]]),
            position=int(light.position[0]),
            site=sites[column].name,
            text=a.text(int(light.token_id[0])),
            margin=None if np.isnan(margins[number]) else float(margins[number]),
            lost=tuple(sorted(here - there)),
            gained=tuple(sorted(there - here)),
            same_token=bool(pairing.prefix[rows[row]]),
        )
        yield float(ranks[number]), -int(rows[row]), -column, flip


def _experts(block: RoutingBlock, row: int, column: int) -> set[int]:
    return {int(expert) for expert in block.indices[row, column].tolist() if expert != NO_EXPERT}
