"""What the diagnostics find in the tokens that a replay shows: what was found when they ran may hold no longer."""

from __future__ import annotations

from moetui.routing import TimelineView
from moetui.routing.diagnostics import diagnose, is_unsure
from moetui.routing.events import Finding
from moetui.routing.totals import RoutingTotals, chunk_tokens


class Diagnosis:
    """Follows a view that grows and shrinks, a portion at a time; one thread calls ``follow``.

    Attributes:
        found: by the built-in diagnostics, in the last view that was wholly counted.
    """

    def __init__(self) -> None:
        self.found: tuple[Finding, ...] = ()
        self._totals = RoutingTotals(())
        self._end: int | None = None  # of the view that ``found`` is of

    def is_of(self, view: TimelineView) -> bool:
        """Whether ``found`` is what is found in this view."""
        return self._end == view.end and self._totals.sites is view.sites

    def follow(self, view: TimelineView) -> bool:
        """Count a portion of what is new in a view; whether ``found`` is another now."""
        if self._totals.sites is not view.sites:  # others are gone, or more is known of the model
            self._totals, self._end = RoutingTotals(view.sites), None
        if not self._totals.update(view, chunk_tokens(view.sites)):
            self._end = None
            return False
        self._end = view.end
        before, found = self.found, diagnose(self._totals)
        self.found = tuple(finding for finding in found if not is_unsure(finding))
        return self.found != before
