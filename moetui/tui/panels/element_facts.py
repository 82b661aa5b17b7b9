"""What is known of a router or an expert from the tokens seen: numbers only, for the Elements panel to draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moetui.routing import RoutingBlock, Site, TimelineView, TokenColumns
from moetui.routing.metrics import (
    NEAR_TIE,
    coactivation,
    gate_mass,
    jain_fairness,
    loads,
    passed,
    ranked,
    router_entropy,
    router_margin,
)

WINDOW = 4096  # tokens looked at: enough for favourites, little enough to count at every repaint
_OCCURRENCES = 3  # a token met less often is no favourite, only luck
_HISTORY = 32


@dataclass(frozen=True, slots=True, eq=False)
class Recent:
    """The newest tokens of a view, padding left out.

    Attributes:
        first: timeline number of the oldest of them.
        columns: their light columns; block: their routing; keep: ``[n]`` those that are no padding.
        seen: ``[n, S]`` which sites routed them.
    """

    first: int
    columns: TokenColumns
    block: RoutingBlock
    keep: NDArray[np.bool_]
    seen: NDArray[np.bool_]

    @property
    def tokens(self) -> int:
        """How many count."""
        return int(self.keep.sum())


def recent(view: TimelineView, window: int = WINDOW) -> Recent:
    """The newest ``window`` tokens."""
    start = max(view.first, view.end - window)
    columns, block = view.tokens(start, view.end), view.routing(start, view.end)
    keep = ~columns.pad
    return Recent(start, columns, block, keep, passed(block.indices, block.flags) & keep[:, None])


def usage(view: TimelineView, seen: Recent) -> NDArray[np.float64] | None:
    """Share of each site's tokens that each expert got, ``[S, E]``; NaN at sites without tokens, None without any."""
    if not seen.tokens:
        return None
    counts = loads(seen.block.indices, view.sites, seen.keep).astype(np.float64)
    passes = seen.seen.sum(0).astype(np.float64)
    with np.errstate(all="ignore"):
        return np.asarray(counts / np.where(passes > 0, passes, np.nan)[:, None], np.float64)


@dataclass(frozen=True, slots=True)
class ExpertFacts:
    """An expert over the recent tokens that its site routed.

    Attributes:
        tokens: tokens that the site routed; load: those that the expert got.
        share: load over tokens; relative: that over the even share k/E.
        first: share of the tokens at whose site it was the first choice.
        mass: share of the site's gate mass; NaN where weights are unknown.
        weight: mean gate weight where it was chosen.
        favourites: token id, share of its occurrences that came here, how often it was met.
        partners: expert, and how often it was chosen where this one was.
    """

    tokens: int
    load: int
    share: float
    relative: float
    first: float
    mass: float
    weight: float
    favourites: tuple[tuple[int, float, int], ...]
    partners: tuple[tuple[int, float], ...]


def expert_facts(seen: Recent, site: Site, expert: int, top: int = 5) -> ExpertFacts:
    """Look at one expert. Unknown shares are NaN."""
    rows = np.flatnonzero(seen.seen[:, site.index])
    chosen = seen.block.indices[rows, site.index, :]
    here = (chosen == expert).any(-1)
    count, load = int(rows.size), int(here.sum())
    share = load / count if count else math.nan
    weights = None if seen.block.weights is None else np.asarray(seen.block.weights[rows, site.index, :], np.float32)
    first = ranked(chosen[:, None, :], None if weights is None else weights[:, None, :])[:, 0, 0] == expert
    mass = weight = math.nan
    if weights is not None and count:
        masses = gate_mass(chosen[:, None, :], weights[:, None, :], [site])[0]
        total = float(np.nansum(masses))
        mass = float(masses[expert]) / total if total else math.nan
        own = weights[chosen == expert]
        weight = float(np.nanmean(own)) if own.size and not np.isnan(own).all() else math.nan
    together = coactivation(chosen, site.num_experts)[expert] if load else np.zeros(site.num_experts)
    order = [int(e) for e in np.argsort(-together, kind="stable") if e != expert and together[e] > 0][:top]
    return ExpertFacts(
        count,
        load,
        share,
        share / (site.top_k / site.num_experts),
        float(first.mean()) if count else math.nan,
        mass,
        weight,
        _favourites(seen.columns.token_id[rows], here, top),
        tuple((e, float(together[e])) for e in order),
    )


def _favourites(ids: NDArray[np.int32], here: NDArray[np.bool_], top: int) -> tuple[tuple[int, float, int], ...]:
    known = ids >= 0
    values, inverse, counts = np.unique(ids[known], return_inverse=True, return_counts=True)
    if not values.size:
        return ()
    hits = np.bincount(inverse.ravel(), weights=here[known], minlength=values.size)
    shares = hits / counts
    enough = np.flatnonzero((counts >= _OCCURRENCES) & (hits > 0))
    # Among equal shares the one met more often says more.
    order = enough[np.lexsort((-counts[enough], -shares[enough]))][:top]
    return tuple((int(values[i]), float(shares[i]), int(counts[i])) for i in order)


@dataclass(frozen=True, slots=True, eq=False)
class RouterFacts:
    """A router over the recent tokens that passed it.

    Attributes:
        tokens: how many; entropy: mean entropy (nats) of its distribution, NaN where unknown.
        history: mean entropy in up to 32 equal spans of tokens, the oldest first.
        loads: ``[E]`` tokens by expert; fairness: Jain's index of them.
        margin: mean k-th minus k+1-th score.
        ties: share of the tokens with a margin that is a near tie.
    """

    tokens: int
    entropy: float
    history: tuple[float, ...]
    loads: NDArray[np.int64]
    fairness: float
    margin: float
    ties: float


def router_facts(seen: Recent, site: Site) -> RouterFacts:
    """Look at one router. Unknown numbers are NaN."""
    rows = np.flatnonzero(seen.seen[:, site.index])
    indices = seen.block.indices[rows][:, [site.index]]
    counts = loads(indices, [site])[0]
    unknown: NDArray[np.float32] = np.full(rows.size, np.nan, np.float32)
    entropies = gaps = unknown
    if seen.block.logits is not None:
        logits = seen.block.logits[rows, site.index, : site.num_classes]
        entropies, gaps = router_entropy(logits, site), router_margin(logits, site)
    mean_margin = _mean(gaps)
    spans = np.array_split(entropies, min(_HISTORY, max(1, rows.size)))
    known = gaps[np.isfinite(gaps)]
    return RouterFacts(
        int(rows.size),
        _mean(entropies),
        tuple(_mean(span) for span in spans) if rows.size else (),
        counts,
        float(jain_fairness(counts[: site.num_experts])) if rows.size else math.nan,
        mean_margin,
        float((known < NEAR_TIE).mean()) if known.size else math.nan,
    )


def _mean(values: NDArray[np.float32]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if finite.size else math.nan
