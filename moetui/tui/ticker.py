"""When to repaint: at once after a quiet time, at an adaptive rate while things happen, never when nothing did."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

SLOWEST, FASTEST = 1.0, 10.0  # Hz
USUAL = 4.0
# Of the interpreter that painting may take: the model's thread waits for it, and laying out and sending a frame
# take about as long again.
_COST_SHARE = 0.03
LIGHT = 28_000.0  # bytes a second that live frames may send: a line of 256 kbit/s swallows them


@dataclass(slots=True)
class Rate:
    """The rate of repaints, by what one costs here and how long the line takes.

    Args:
        fixed: frames a second that a person asked for; None to adapt.
        ceiling: never faster than this.
    """

    fixed: float | None = None
    ceiling: float = FASTEST
    hz: float = USUAL

    def __post_init__(self) -> None:
        self.hz = self.fixed or min(USUAL, self.ceiling)

    def painted(self, seconds: float, round_trip: float | None = None, nbytes: float = 0.0) -> None:
        """Take note of a repaint: its CPU time, the terminal's last answer time if it answers, and the bytes sent.

        A costly or heavy picture or a slow line earns a lower rate than the usual one; only a person asks for a higher.
        """
        if self.fixed is not None:
            return
        by_cost = _COST_SHARE / max(seconds, 1e-4)
        by_line = USUAL if round_trip is None else 0.5 / max(round_trip, 0.01)
        by_weight = LIGHT / max(nbytes, 1.0)
        goal = min(max(min(by_cost, by_line, by_weight, USUAL), SLOWEST), self.ceiling)
        self.hz += (goal - self.hz) * 0.3


class Ticker:
    """Calls ``paint`` on the event loop when something was marked dirty.

    Args:
        paint: draws; its time is measured.
        rate: how often at most.
        may_paint: asked before each repaint; False puts it off (the line has not swallowed the last frames yet).
        round_trip: seconds of the terminal's last answer, None if it gives none.
        sent: bytes sent to the terminal so far.
    """

    def __init__(
        self,
        paint: Callable[[], None],
        rate: Rate,
        *,
        may_paint: Callable[[], bool] = lambda: True,
        round_trip: Callable[[], float | None] = lambda: None,
        sent: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paint = paint
        self._may_paint = may_paint
        self._round_trip = round_trip
        self._sent = sent
        self._clock = clock
        self._dirty = asyncio.Event()
        self.rate = rate
        self._painted: deque[float] = deque(maxlen=32)

    def mark(self) -> None:
        """Something changed. Cheap; on the event loop only."""
        self._dirty.set()

    @property
    def dirty(self) -> bool:
        """Whether something changed that is not painted yet."""
        return self._dirty.is_set()

    def recent(self, span: float = 2.0) -> float:
        """Repaints a second over the last ``span`` seconds."""
        now = self._clock()
        return sum(1 for when in self._painted if now - when < span) / span

    async def run(self) -> None:
        """Repaint until cancelled."""
        last = -1.0
        sent = self._sent()
        while True:
            await self._dirty.wait()
            wait = last + 1.0 / self.rate.hz - self._clock()
            if wait > 0:
                await asyncio.sleep(wait)
            while not self._may_paint():
                await asyncio.sleep(0.02)
            self._dirty.clear()
            last = self._clock()
            self._paint()
            self._painted.append(last)
            # What was sent since the last repaint: this one's is not on its way before the event loop goes round.
            before, sent = sent, self._sent()
            self.rate.painted(self._clock() - last, self._round_trip(), sent - before)
