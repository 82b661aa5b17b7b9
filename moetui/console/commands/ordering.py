"""Tokens in the order of a measure: the most striking first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moetui.routing import TimelineView
from moetui.routing.metrics import passed, site_entropy, site_margin
from moetui.routing.totals import chunk_tokens

MEASURES = ("margin", "entropy", "conf", "logp", "ms")
LARGEST = ("entropy", "ms")
_COLUMNS = {"conf": "confidence", "logp": "logprob", "ms": "ms"}


@dataclass(frozen=True, slots=True)
class Ordered:
    """Tokens with a known value, the most striking first.

    Attributes:
        tokens: their numbers; values: of the measure.
        sites: index of the site that the value is of, -1 where it is the token's.
    """

    tokens: NDArray[np.int64]
    values: NDArray[np.float32]
    sites: NDArray[np.int64]


def ordered(view: TimelineView, tokens: NDArray[np.int64], measure: str) -> Ordered:
    """Order tokens by a measure.

    Args:
        view: holds them.
        tokens: ``[n]`` their numbers, ascending.
        measure: one of ``MEASURES``. Of ``margin`` and ``entropy`` a token has its least and its largest of all sites;
            the least margin, confidence and log-probability come first, the largest entropy and time.
    """
    parts = list(_values(view, tokens, measure))
    values = np.concatenate([value for value, _ in parts]) if parts else np.empty(0, np.float32)
    sites = np.concatenate([site for _, site in parts]) if parts else np.empty(0, np.int64)
    order = np.argsort(-values if measure in LARGEST else values, kind="stable")
    order = order[~np.isnan(values[order])]
    return Ordered(tokens[order], values[order], sites[order])


def _values(view: TimelineView, tokens: NDArray[np.int64], measure: str) -> Iterator[tuple[Any, Any]]:
    step = chunk_tokens(view.sites)
    low = int(tokens[0]) if tokens.size else 0
    while tokens.size and low <= tokens[-1]:
        rows = tokens[np.searchsorted(tokens, low) : np.searchsorted(tokens, low + step)] - low
        if rows.size:
            if measure in _COLUMNS:
                yield getattr(view.tokens(low, low + step), _COLUMNS[measure])[rows], np.full(rows.size, -1, np.int64)
            else:
                yield _of_sites(view, low, step, measure, rows)
        low += step


def _of_sites(view: TimelineView, low: int, step: int, measure: str, rows: NDArray[np.int64]) -> tuple[Any, Any]:
    block = view.routing(low, low + step)
    take = site_entropy if measure == "entropy" else site_margin
    at_sites = take(block.logits, view.sites, len(block.indices))[rows]
    known = passed(block.indices, block.flags)[rows] & ~np.isnan(at_sites)
    worst = -np.inf if measure == "entropy" else np.inf
    masked = np.where(known, at_sites, worst)
    best = masked.argmax(1) if measure == "entropy" else masked.argmin(1)
    values = np.where(known.any(1), masked[np.arange(rows.size), best], np.nan)
    return values.astype(np.float32), best
