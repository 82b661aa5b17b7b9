"""Breakpoints of a live session: looked at after each step, before the next one begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from moetui.routing import TimelineView, UnsupportedError, UsageError
from moetui.routing.events import BreakpointHit
from moetui.routing.query import Query, parse
from moetui.session.protocol import Breakpoint

_LOGGED = 20  # hits of one log point that a step tells of; all are counted


class Breakpoints:
    """What a run's tokens are held against. Any thread may change it; the generating one asks.

    Args:
        logits: whether the routers' logits are captured.
    """

    def __init__(self, *, logits: bool) -> None:
        self._logits = logits
        self._lock = threading.Lock()
        self._points: dict[int, tuple[Breakpoint, Query]] = {}
        self._last = 0
        self._looked = 0

    @property
    def all(self) -> tuple[Breakpoint, ...]:
        """All of them, oldest first."""
        with self._lock:
            return tuple(point for point, _ in self._points.values())

    @property
    def active(self) -> bool:
        """Whether any has to be looked at."""
        return any(point.enabled for point in self.all)

    def add(self, expression: str, branches: Mapping[str, int], **options: bool | int) -> Breakpoint:
        """Add one; see ``Breakable.add_breakpoint``."""
        query = parse(expression, branches)
        if not expression.strip():
            raise UsageError("a breakpoint needs a condition", "for instance: entropy < 0.3")
        if query.needs.logits and not self._logits:
            raise UnsupportedError(
                f"{expression} asks for the router logits, which are not captured", "leave out --no-logits"
            )
        with self._lock:
            self._last += 1
            point = replace(Breakpoint(self._last, expression.strip()), **options)  # type: ignore[arg-type]
            self._points[point.id] = point, query
        return point

    def enable(self, number: int, enabled: bool) -> None:
        """Switch one on or off; raises ``UsageError`` if there is none of this number."""
        with self._lock:
            point, query = self._get(number)
            self._points[number] = replace(point, enabled=enabled), query

    def remove(self, number: int) -> None:
        """Remove one; raises ``UsageError`` if there is none of this number."""
        with self._lock:
            self._get(number)
            del self._points[number]

    def skip_to(self, token: int) -> None:
        """Look at no token before this one."""
        self._looked = token

    def look(self, view: TimelineView) -> list[BreakpointHit]:
        """What the tokens that came since the last look hit; log points among them do not stop the run."""
        start, self._looked = max(self._looked, view.first), view.end
        hits: list[BreakpointHit] = []
        with self._lock:
            for point, query in list(self._points.values()):
                if point.enabled:
                    hits += self._hits(point, query, view, start)
        return hits

    def _hits(self, point: Breakpoint, query: Query, view: TimelineView, start: int) -> Iterator[BreakpointHit]:
        matches = start + np.flatnonzero(query.match(view, start, view.end))
        passed = min(point.ignore, len(matches))
        acting = matches[passed:]
        if point.temporary and len(acting):
            del self._points[point.id]
        else:
            hits, left = point.hits + len(matches), point.ignore - passed
            self._points[point.id] = replace(point, hits=hits, ignore=left), query
        told = acting[: _LOGGED if point.log_only and not point.temporary else 1]
        for number, token in enumerate(told.tolist(), start=point.hits + passed + 1):
            why = query.explain(view, token)
            yield BreakpointHit(point.id, point.expression, token, why.site, why.words, number, point.log_only)

    def _get(self, number: int) -> tuple[Breakpoint, Query]:
        if number not in self._points:
            known = ", ".join(map(str, self._points)) or "there are none"
            raise UsageError(f"there is no breakpoint {number}", f"breakpoints: {known}")
        return self._points[number]
