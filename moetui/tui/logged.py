"""What log points saw, as lines for the console's log: few enough to be read, however often they hit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moetui.routing.breakpoints import Breakpoint
from moetui.routing.events import BreakpointHit

MOST = 50
"""Lines of one log point from one stop of the run to the next; how many more hits there were is said where it stops."""


@dataclass(slots=True)
class _Stretch:
    """What a log point saw since the run last stood."""

    before: int  # hits
    newest: BreakpointHit
    lines: int = 0


class LoggedHits:
    """Follows the hits of log points from one stop of the run to the next."""

    def __init__(self) -> None:
        self._stretches: dict[int, _Stretch] = {}

    def take(self, hit: BreakpointHit) -> int:
        """Number of a hit's line since the run last stood, from 1; 0 if it gets none."""
        stretch = self._stretches.setdefault(hit.breakpoint, _Stretch(hit.hits - 1, hit))
        stretch.newest = hit
        if stretch.lines == MOST:
            return 0
        stretch.lines += 1
        return stretch.lines

    def stood(self, points: Iterable[Breakpoint]) -> list[str]:
        """The run stands: lines that say what got none, here or because a step tells of its first hits alone.

        Args:
            points: those that there are, whose counts are complete.
        """
        counted = {point.id: point.hits for point in points}
        stretches, self._stretches = self._stretches, {}
        lines = []
        for number, stretch in stretches.items():
            hit = stretch.newest
            left = max(hit.hits, counted.get(number, 0)) - stretch.before - stretch.lines
            if left > 0:
                lines.append(f"{hit.expression}: {left:,} more hits; find {hit.expression} lists the tokens")
        return lines
