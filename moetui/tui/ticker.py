"""When to repaint: at once after a quiet time, at an adaptive rate while things happen, never when nothing did."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

SLOWEST, FASTEST = 1.0, 10.0  # Hz
USUAL = 4.0  # where the rate begins, and what it keeps to where the terminal does not answer
# Of the interpreter that the screen may take, all that its thread does: from a model that needs the interpreter all
# the time, and from one that hardly does.
LEAST_SHARE, MOST_SHARE = 0.02, 0.1
LIGHT = 26_000.0  # bytes a second that live frames may send: a line of 256 kbit/s swallows them
_SITE_SECONDS = 0.0015  # a step that takes no longer for each of its sites is Python for the most part
_DOWN, _UP = 0.6, 0.3  # how much of the way to another rate is gone at a repaint
_MOST_STRETCH = 4.0
_STEADY = 2.0  # usual waits; what was spent over a longer time is no frame's cost


def need_of(rate: float, sites: int) -> float:
    """The share 0..1 of the interpreter that a run of so many tokens a second is taken to need; all, while unknown."""
    return 1.0 if math.isnan(rate) else min(1.0, rate * sites * _SITE_SECONDS)


@dataclass(slots=True)
class Rate:
    """The rate of repaints, by what one costs here and how long the line takes.

    Args:
        fixed: frames a second that a person asked for; None to adapt.
        ceiling: never faster than this.
        need: the share of the interpreter that the model needs: 1 leaves least for the screen.
        stretch: how much longer a repaint takes than the processor time that it gets. Where others keep the processors
            busy, a model's steps take longer too, and that does not make it need the interpreter less.
    """

    fixed: float | None = None
    ceiling: float = FASTEST
    hz: float = field(init=False)
    need: float = 1.0
    stretch: float = 1.0

    def __post_init__(self) -> None:
        self.hz = self.fixed or min(USUAL, self.ceiling)

    @property
    def quickest(self) -> float:
        """How often what a person does may be shown."""
        return self.fixed or self.ceiling

    def drawn(self, seconds: float, spent: float) -> None:
        """Take note of how long drawing a picture took, and of the processor time in it, both in seconds."""
        stretch = min(max(seconds / spent, 1.0), _MOST_STRETCH) if spent > 0 else 1.0
        self.stretch += (stretch - self.stretch) * _UP

    def painted(self, seconds: float, round_trip: float | None = None, nbytes: float = 0.0) -> None:
        """Take note of a repaint.

        Args:
            seconds: processor time of the screen's thread from the repaint to the next one.
            round_trip: the terminal's last answer time in seconds; None if it does not answer.
            nbytes: sent.
        """
        if self.fixed is not None:
            return
        need = min(max(self.need * self.stretch, LEAST_SHARE / MOST_SHARE), 1.0)
        by_cost = LEAST_SHARE / need / max(seconds, 1e-4)
        by_line = USUAL if round_trip is None else 0.5 / max(round_trip, 0.01)
        by_weight = LIGHT / max(nbytes, 1.0)
        goal = min(max(min(by_cost, by_line, by_weight), SLOWEST), self.ceiling)
        self.hz += (goal - self.hz) * (_DOWN if goal < self.hz else _UP)


class Ticker:
    """Calls ``paint`` on the event loop when something was marked dirty.

    Args:
        paint: draws.
        rate: how often at most.
        may_paint: asked before each repaint; False puts it off (the line has not swallowed the last frames yet).
        round_trip: seconds of the terminal's last answer, None if it gives none.
        sent: bytes sent to the terminal so far.
        spent: processor time of the event loop's thread, seconds.
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
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._paint = paint
        self._may_paint = may_paint
        self._round_trip = round_trip
        self._sent = sent
        self._clock = clock
        self._spent = spent
        self._dirty = asyncio.Event()
        self._soon = asyncio.Event()
        self._touched = False
        self._begun = -math.inf
        self.rate = rate
        self._painted: deque[float] = deque(maxlen=32)

    def mark(self, *, soon: bool = False) -> None:
        """Something changed; ``soon`` if a person waits for it. Cheap; on the event loop only."""
        self._dirty.set()
        if soon:
            self._soon.set()

    def touched(self) -> None:
        """A person typed or pointed: what is spent now is not what a frame costs."""
        self._touched = True

    def begin(self) -> None:
        """A run begins: whoever began it waits for its first tokens, of which there are some in a moment."""
        self._begun = self._clock()
        self.mark(soon=True)

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
        last, spent, sent = -math.inf, self._spent(), self._sent()
        while True:
            await self._dirty.wait()
            await self._due(last)
            while not self._may_paint():
                await asyncio.sleep(0.02)
            now, spent_now, sent_now = self._clock(), self._spent(), self._sent()
            if now - last < _STEADY / self.rate.hz and not self._touched:
                # What has happened since the last repaint: it is laid out and sent when the event loop goes round.
                self.rate.painted(spent_now - spent, self._round_trip(), sent_now - sent)
            last, spent, sent = now, spent_now, sent_now
            self._touched = False
            self._dirty.clear()
            self._soon.clear()
            self._painted.append(last)
            self._paint()
            self.rate.drawn(self._clock() - last, self._spent() - spent)

    async def _due(self, last: float) -> None:
        """Wait as long as the rate says, or less if a person waits."""
        wait = last + 1.0 / self.rate.hz - self._clock()
        if wait > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._soon.wait(), wait)
        wait = max(last, self._begun) + 1.0 / self.rate.quickest - self._clock()
        if wait > 0 and self._soon.is_set():
            await asyncio.sleep(wait)
