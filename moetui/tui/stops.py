"""Follows where a live run stands still, from one stop to the next."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from moetui.routing.events import BreakpointHit, RunState
from moetui.tui.messages import Stop

if TYPE_CHECKING:
    from moetui.routing import TimelineView
    from moetui.routing.branches import Line


class Stops:
    """The present stop and the one before it."""

    def __init__(self) -> None:
        self.since = -math.inf  # when a run went over into something else, by the monotonic clock
        self._running = False
        self._paused = False
        self._hit: tuple[int, int | None] | None = None
        self._now: Stop | None = None
        self._last: int | None = None

    def hit(self, event: BreakpointHit) -> None:
        """A breakpoint stopped the run, or is about to."""
        self._hit = event.token, event.site if event.site >= 0 else None

    def state(self, state: RunState) -> None:
        """The run's state changed."""
        if self._running and state is not RunState.RUNNING:
            self.since = time.monotonic()
        self._running = state is RunState.RUNNING
        paused = state is RunState.PAUSED
        if self._paused and not paused:
            self._last = self._now.token if self._now is not None else self._last
            self._hit = self._now = None
        self._paused = paused

    def at(self, view: TimelineView, line: Line | None = None) -> Stop | None:
        """Where the run stands now; None while it does not, or before its first token.

        Args:
            line: of the branch that it is on; None if that is not known.
        """
        from moetui.routing.kept import newest_token  # it brings NumPy, which a first picture does not wait for

        newest = newest_token(view, line) if self._paused else None
        if newest is None:
            return None
        hit = self._hit
        if hit is not None and line is not None and not _lies_on(view, line, hit[0]):
            hit = None  # the run was taken back before it
        token, site = hit if hit is not None else (newest, None)
        last = self._last if self._last is not None and self._last >= view.first else None
        self._now = Stop(token, site, last if last != token else None)
        return self._now


def _lies_on(view: TimelineView, line: Line, token: int) -> bool:
    from moetui.routing.branches import line_rows

    return bool(line_rows(view.tokens(token, token + 1), line, view.stacks).any())
