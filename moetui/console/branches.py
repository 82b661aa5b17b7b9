"""Branches side by side: a branch's whole sequence, and where two of them part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moetui.routing import NO_EXPERT, TimelineView, UsageError, join_texts
from moetui.routing.events import Branch
from moetui.routing.metrics import overlap, passed, set_sizes
from moetui.routing.step import F64, I64


@dataclass(frozen=True, slots=True, eq=False)
class BranchComparison:
    """How two branches differ, over the positions that both hold.

    Attributes:
        shared: number of those positions.
        difference: first position with another token; None if there is none.
        texts: the two tokens there.
        sites: names of the S sites of the decoder.
        agreement: ``[S]`` mean share of the first's experts that the second chose too, before the first difference;
            NaN where a site routed none of them.
        agreement_all: the same over all shared positions.
        weight_difference: ``[S]`` mean absolute difference of an expert's gate weight, before the first difference,
            over the experts that either chose; NaN where weights are unknown.
    """

    a: str
    b: str
    shared: int
    difference: int | None
    texts: tuple[str, str]
    sites: tuple[str, ...]
    agreement: F64
    agreement_all: F64
    weight_difference: F64

    def data(self) -> dict[str, Any]:
        """As plain values."""
        columns = zip(self.sites, self.agreement.tolist(), self.agreement_all.tolist(), self.weight_difference.tolist())
        known = [[None if isinstance(cell, float) and cell != cell else cell for cell in row] for row in columns]
        return {
            "a": self.a,
            "b": self.b,
            "positions": self.shared,
            "first_difference": self.difference,
            "tokens": None if self.difference is None else list(self.texts),
            "per_site": [
                {"site": name, "agreement": same, "agreement_all": every, "weight_difference": weight}
                for name, same, every, weight in known
            ],
        }


def branch_tokens(view: TimelineView, branches: Sequence[Branch], branch: Branch, sequence: int = 0) -> I64:
    """Timeline numbers of a branch's decoder tokens by position, those before its fork taken from its parents.

    Returns:
        ``[n]``: entry p is the token at position p, -1 where it is not held.
    """
    columns = view.tokens(view.first, view.end)
    decoder = [number for number, name in enumerate(view.stacks) if name == "decoder"] or [0]
    usable = ~columns.pad & (columns.sequence == sequence) & (columns.position >= 0) & np.isin(columns.stack, decoder)
    line: list[tuple[int, int | None]] = []
    stop: int | None = None
    current: Branch | None = branch
    seen: set[int] = set()
    while current is not None and current.id not in seen:
        seen.add(current.id)
        line.append((current.id, stop))
        stop = current.fork_position if stop is None else min(stop, current.fork_position)
        current = next((other for other in branches if other.id == current.parent), None)
    out = np.full(0, -1, np.int64)
    for number, end in reversed(line):
        rows = np.flatnonzero(usable & (columns.branch == number))
        if end is not None:
            rows = rows[columns.position[rows] < end]
        if rows.size:
            length = max(out.size, int(columns.position[rows].max()) + 1)
            out = np.concatenate([out, np.full(length - out.size, -1, np.int64)])
            out[columns.position[rows]] = rows + view.first
    return out


def branch_text(view: TimelineView, branch: Branch) -> str:
    """A branch's own tokens that went through the model, as a person reads them."""
    columns = view.tokens(view.first, view.end)
    keep = ~columns.pad & (columns.branch == branch.id) & (columns.token_id >= 0) & (columns.sequence == 0)
    return join_texts([view.text(token) for token in columns.token_id[keep].tolist()])


def compare_branches(view: TimelineView, branches: Sequence[Branch], a: Branch, b: Branch) -> BranchComparison:
    """Compare two branches by position.

    Raises:
        UsageError: they share no position that is still held.
    """
    first, second = branch_tokens(view, branches, a), branch_tokens(view, branches, b)
    length = min(first.size, second.size)
    positions = np.flatnonzero((first[:length] >= 0) & (second[:length] >= 0))
    if not positions.size:
        raise UsageError(f"{a.name} and {b.name} share no position that is still held", "'branches' lists their tokens")
    rows_a, rows_b = first[positions] - view.first, second[positions] - view.first
    columns = view.tokens(view.first, view.end)
    differs = np.flatnonzero(columns.token_id[rows_a] != columns.token_id[rows_b])
    at = int(differs[0]) if differs.size else None
    texts = ("", "")
    if at is not None:
        ids = columns.token_id[[rows_a[at], rows_b[at]]].tolist()
        texts = (view.text(ids[0]), view.text(ids[1]))
    same = np.arange(positions.size) < (positions.size if at is None else at)
    decoder = [site.index for site in view.sites if site.stack == "decoder"]
    share, weight = _agreement(view, first[positions], second[positions], decoder)
    return BranchComparison(
        a=a.name,
        b=b.name,
        shared=int(positions.size),
        difference=None if at is None else int(positions[at]),
        texts=texts,
        sites=tuple(view.sites[number].name for number in decoder),
        agreement=_mean(share[same]),
        agreement_all=_mean(share),
        weight_difference=_mean(weight[same]),
    )


def _agreement(view: TimelineView, a: I64, b: I64, sites: list[int]) -> tuple[F64, F64]:
    """``[n, S]`` share of a's experts that b chose, and mean difference of the weights; NaN where not routed."""
    block = view.routing(view.first, view.end)
    rows_a, rows_b = a - view.first, b - view.first
    first, second = block.indices[rows_a][:, sites], block.indices[rows_b][:, sites]
    seen = passed(block.indices, block.flags)[:, sites]
    both = seen[rows_a] & seen[rows_b]
    sizes = set_sizes(first)
    share = np.where(both & (sizes > 0), overlap(first, second) / np.maximum(sizes, 1), np.nan)
    weight = np.full(share.shape, np.nan)
    if block.weights is not None:
        for column, site in enumerate(sites):
            count = max(view.sites[site].num_classes, 1)
            here = _dense(first[:, column], block.weights[rows_a, site], count)
            there = _dense(second[:, column], block.weights[rows_b, site], count)
            used = (here != 0) | (there != 0)
            total = np.abs(here - there).sum(1)
            with np.errstate(all="ignore"):
                weight[:, column] = np.where(both[:, column], total / np.maximum(used.sum(1), 1), np.nan)
    return np.asarray(share, np.float64), weight


def _dense(indices: Any, weights: Any, count: int) -> F64:
    """``[n, E]`` weights by expert; a row with an unknown weight is all NaN."""
    out = np.zeros((indices.shape[0], count + 1), np.float64)
    known = np.where(indices == NO_EXPERT, 0.0, np.asarray(weights, np.float64))
    np.put_along_axis(out, np.minimum(indices, count).astype(np.intp), known, axis=1)
    return out[:, :count]


def _mean(values: F64) -> F64:
    known = ~np.isnan(values)
    with np.errstate(all="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(0) / np.where(known.sum(0) > 0, known.sum(0), np.nan))
