"""The clock of a replay: which tokens are shown at what time. Pure; the caller says what time it is."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from moetui.routing.timeline import StepColumns

MIN_SPEED, MAX_SPEED = 0.25, 64.0
_UNTIMED = 0.05  # seconds that a step takes in a recording without times
_LONGEST = 2.0  # seconds that a replay waits at most: nobody wants to see a pause again in full length


class Playhead:
    """A cursor that moves over the steps as the clock does.

    Attributes:
        position: tokens shown.
        loop: half-open range of tokens that is repeated, or None.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.position = 0
        self.loop: tuple[int, int] | None = None
        self.speed = min(max(speed, MIN_SPEED), MAX_SPEED)
        self.playing = False
        self._ends: list[int] = []
        self._times: list[float] = []  # seconds of play at which each step is there, waits cut short
        self._anchor = (0.0, 0.0)  # a time of the caller's clock, and the seconds of play then

    @property
    def end(self) -> int:
        """Tokens that can be shown."""
        return self._ends[-1] if self._ends else 0

    @property
    def at_end(self) -> bool:
        """Whether all tokens are shown."""
        return self.position >= self.end

    def follow(self, steps: StepColumns, end: int) -> None:
        """Take in the steps of a recording of ``end`` tokens, in place of those known before."""
        # Each token comes with the last step that begins before it, whatever damage took of the steps.
        stops = [*steps.first_token[1:].tolist(), end] if end else []
        with np.errstate(invalid="ignore"):
            waits = np.diff(steps.started + steps.duration / 1000.0, prepend=0.0)
        waits = np.clip(np.nan_to_num(waits, nan=_UNTIMED, posinf=_UNTIMED, neginf=0.0), 0.0, _LONGEST)
        times = np.cumsum(waits).tolist() or [_UNTIMED]
        self._ends, self._times = stops, times[: len(stops)]

    def play(self, now: float) -> None:
        """Let the clock run from here."""
        self.playing = True
        self._hold(now)

    def pause(self) -> None:
        """Stop the clock."""
        self.playing = False

    def set_speed(self, speed: float, now: float) -> None:
        """Go on from here ``speed`` times as fast as recorded."""
        seconds = self._seconds(now)
        self.speed = min(max(speed, MIN_SPEED), MAX_SPEED)
        self._anchor = (now, seconds)

    def seek(self, position: int, now: float) -> None:
        """Show ``position`` tokens, as many as there are."""
        self.position = min(max(position, 0), self.end)
        self._hold(now)

    def steps_away(self, count: int) -> int:
        """The position ``count`` steps from here; back with a negative count."""
        if count >= 0:
            reached = bisect_right(self._ends, self.position) + count - 1
            return self.position if count == 0 else self._ends[min(reached, len(self._ends) - 1)] if self._ends else 0
        reached = bisect_left(self._ends, self.position) + count
        return self._ends[reached] if reached >= 0 else 0

    def advance(self, now: float) -> int:
        """Move on to where the clock is; the position then."""
        if not self.playing:
            return self.position
        if self.loop is not None and self.position >= min(self.loop[1], self.end):
            self.seek(self.loop[0], now)
        shown = bisect_right(self._times, self._seconds(now) + 1e-6)
        if shown and self._ends[shown - 1] > self.position:
            limit = self.end if self.loop is None else self.loop[1]
            self.position = min(self._ends[shown - 1], limit)
        return self.position

    def wait(self, now: float) -> float | None:
        """Seconds until the next step is due; None if nothing is."""
        if not self.playing:
            return None
        if self.loop is None and self.at_end:
            return None
        following = bisect_right(self._ends, self.position)
        if following >= len(self._ends) or (self.loop is not None and self.position >= self.loop[1]):
            return _UNTIMED / self.speed
        return max(0.0, (self._times[following] - self._seconds(now)) / self.speed)

    def _hold(self, now: float) -> None:
        shown = bisect_right(self._ends, self.position)
        self._anchor = (now, self._times[shown - 1] if shown else 0.0)

    def _seconds(self, now: float) -> float:
        since, seconds = self._anchor
        return seconds + (now - since) * self.speed if self.playing else seconds
