"""Which tokens the table shows, in which order: filtered as far as there was time, sorted by any column."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from moetui.routing import drawable
from moetui.routing.step import I64, Bool
from moetui.routing.timeline import TimelineView

SortKey = Literal["index", "token", "branch", "layers", "entropy", "confidence", "margin", "logprob", "ms", "flags"]
SORT_KEYS: tuple[SortKey, ...] = (
    "index", "token", "branch", "layers", "entropy", "confidence", "margin", "logprob", "ms", "flags",
)  # fmt: skip


class TokenQuery(Protocol):
    """What a parsed filter can do (``moetui.routing.query.Query``)."""

    def match(self, view: TimelineView, start: int, stop: int) -> Bool:
        """``[n]``: which of the tokens ``start .. stop - 1`` match."""


@dataclass(frozen=True, slots=True)
class Sort:
    """An order of rows; ``site`` is whose first choice the ``layers`` column sorts by."""

    key: SortKey = "index"
    descending: bool = False
    site: int = 0


class TokenRows:
    """The rows of the table for each view it is given.

    Attributes:
        numbers: ``[r]`` timeline numbers in the order shown.
        matched: ``[m]`` timeline numbers that match the filter, ascending; all tokens without one.
        total: tokens that are no padding.
        progress: share 0..1 of the tokens that the filter has looked at.
    """

    def __init__(self, budget: float = 0.012) -> None:
        self._budget = budget
        self._query: TokenQuery | None = None
        self._hide = True
        self._sites: object = None
        self._scanned = 0
        self._kept: I64 = np.empty(0, np.int64)
        self._view: TimelineView | None = None
        self._plain: I64 = np.empty(0, np.int64)
        self._key: object = None
        self.version = 0
        self.numbers: I64 = np.empty(0, np.int64)
        self.matched: I64 = np.empty(0, np.int64)
        self.total = 0
        self.progress = 1.0

    def filter_by(self, query: TokenQuery | None, *, hide: bool) -> None:
        """Use another filter; ``hide`` leaves out the others, else they stay and matches can be jumped to."""
        if query is not self._query:
            self._query = query
            self._scanned, self._kept = 0, np.empty(0, np.int64)
            self.version += 1
        self._hide = hide

    @property
    def filtered(self) -> bool:
        """Whether there is a filter."""
        return self._query is not None

    def update(self, view: TimelineView, sort: Sort) -> bool:
        """Bring the rows up to ``view``; False while the filter has not seen all of it."""
        if view is not self._view:  # a count that goes on asks again and again
            self._view = view
            self._plain = np.flatnonzero(~view.tokens(view.first, view.end).pad) + view.first
        self.total = len(self._plain)
        if self._sites is not view.sites or view.end < self._scanned:
            self._sites, self._scanned, self._kept = view.sites, 0, np.empty(0, np.int64)
            self.version += 1
        if self._query is None:
            self.matched, self.progress, self._scanned = self._plain, 1.0, view.end
        else:
            self._scan(view, self._query)
        shown = self.matched if self._hide else self._plain
        key = (sort, self._hide, self.version, view.first, view.end, len(shown))
        if key != self._key:
            self._key = key
            self.numbers = _sorted(view, shown, sort)
        return self.progress >= 1.0

    def row_of(self, token: int) -> int | None:
        """The row that shows a token; None if it is not shown."""
        if self.numbers is self.matched or self.numbers is self._plain:
            row = int(np.searchsorted(self.numbers, token))
            return row if row < len(self.numbers) and self.numbers[row] == token else None
        found = np.flatnonzero(self.numbers == token)
        return int(found[0]) if len(found) else None

    def is_lit(self, token: int) -> bool:
        """Whether a token matches the filter and stands among others that do not."""
        if self._hide or self._query is None:
            return False
        row = int(np.searchsorted(self.matched, token))
        return row < len(self.matched) and int(self.matched[row]) == token

    def next_match(self, token: int, direction: int) -> int | None:
        """The matching token after (1) or before (-1) ``token``, by number, wrapping around."""
        if not len(self.matched):
            return None
        side: Literal["left", "right"] = "right" if direction > 0 else "left"
        at = int(np.searchsorted(self.matched, token, side)) - (0 if direction > 0 else 1)
        return int(self.matched[at % len(self.matched)])

    def _scan(self, view: TimelineView, query: TokenQuery) -> None:
        self._scanned = max(self._scanned, view.first)
        deadline = time.perf_counter() + self._budget
        found = [self._kept[np.searchsorted(self._kept, view.first) :]]
        chunk = 1024
        while self._scanned < view.end:
            stop = min(view.end, self._scanned + chunk)
            hits = query.match(view, self._scanned, stop) & ~view.tokens(self._scanned, stop).pad
            found.append(np.flatnonzero(hits) + self._scanned)
            self._scanned = stop
            if time.perf_counter() > deadline:
                break
            chunk = min(16_384, 2 * chunk)
        self._kept = np.concatenate(found)
        self.matched = self._kept
        held = view.end - view.first
        self.progress = (self._scanned - view.first) / held if held else 1.0


def _sorted(view: TimelineView, numbers: I64, sort: Sort) -> I64:
    if sort.key == "index":
        return numbers[::-1] if sort.descending else numbers
    values = sort_values(view, sort)[numbers - view.first]
    unknown = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), np.bool_)
    known = np.flatnonzero(~unknown)
    order = np.argsort(-values[known] if sort.descending else values[known], kind="stable")
    # What is unknown comes last either way: it is neither small nor large.
    return np.concatenate([numbers[known[order]], numbers[unknown]])


def sort_values(view: TimelineView, sort: Sort) -> NDArray[Any]:
    """``[n]`` numbers that order the tokens held by one column."""
    columns = view.tokens(view.first, view.end)
    if sort.key == "token":
        ids, which = np.unique(columns.token_id, return_inverse=True)
        texts = [drawable(view.text(int(token))).strip().casefold() for token in ids]
        rank = np.empty(len(ids), np.int64)
        rank[sorted(range(len(ids)), key=texts.__getitem__)] = np.arange(len(ids))
        return np.asarray(rank[which])
    if sort.key == "layers":
        indices = view.routing(view.first, view.end).indices
        # Another model may have fewer sites than the one that the order was chosen for.
        known = sort.site < indices.shape[1] and indices.shape[2] > 0
        return indices[:, sort.site, 0].astype(np.int64) if known else np.zeros(len(indices), np.int64)
    if sort.key in ("branch", "flags"):
        return np.asarray(getattr(columns, sort.key), np.int64)
    if sort.key == "index":
        return np.arange(view.first, view.end)
    return np.asarray(getattr(columns, sort.key), np.float64)
